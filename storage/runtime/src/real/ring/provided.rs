//! Receive buffers provided to the kernel: it picks one per arrival, so idle connections hold none.
//!
//! The kernel reads entries between its head and our tail; giving a buffer back writes one entry and moves the
//! tail. Buffers are lent to connections by number; whoever holds a number owns the buffer's bytes.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::AlignedBuffer;

/// The only buffer group of a ring.
pub(in crate::real) const GROUP: u16 = 0;

/// Bytes of one buffer: a request of usual size fits, and 1,024 of them are 4 MiB per shard.
const BUFFER_BYTES: usize = 4096;

pub(in crate::real) struct ProvidedBuffers {
    /// The ring of entries shared with the kernel; its first entry's reserved field is the tail.
    entries: RefCell<AlignedBuffer>,
    memory: RefCell<AlignedBuffer>,
    count: u16,
    tail: Cell<u16>,
    /// Buffers now lent to connections.
    lent: Cell<usize>,
    registered: bool,
}

impl ProvidedBuffers {
    /// Memory for `count` buffers, a power of two.
    pub(super) fn allocate(count: u16) -> ProvidedBuffers {
        assert!(
            count.is_power_of_two() && count <= 1 << 15,
            "the kernel takes a power of two up to 32,768"
        );
        ProvidedBuffers {
            entries: RefCell::new(AlignedBuffer::zeroed(
                usize::from(count) * size_of::<BufRingEntry>(),
            )),
            memory: RefCell::new(AlignedBuffer::zeroed(usize::from(count) * BUFFER_BYTES)),
            count,
            tail: Cell::new(0),
            lent: Cell::new(0),
            registered: false,
        }
    }

    /// Registers the buffers with `io` and provides all of them.
    pub(super) fn register(&mut self, io: &IoUring) -> io::Result<()> {
        let address = self.entries.get_mut().as_ptr() as u64;
        // SAFETY: the entries are page-aligned, hold `count` of them, and are freed after the ring, which is the
        // field before them in `Ring`.
        unsafe {
            io.submitter()
                .register_buf_ring_with_flags(address, self.count, GROUP, 0)?
        };
        self.registered = true;
        for buffer in 0..self.count {
            self.provide(buffer);
        }
        Ok(())
    }

    /// Bytes provided to the kernel in all.
    pub(super) fn bytes(&self) -> usize {
        if self.registered {
            usize::from(self.count) * BUFFER_BYTES
        } else {
            0
        }
    }

    /// A completion has filled `buffer`: it is lent until [`ProvidedBuffers::give_back`].
    pub(in crate::real) fn lend(&self) {
        self.lent.set(self.lent.get() + 1);
    }

    /// True when so many are lent that holding more could leave none for other connections.
    pub(in crate::real) fn scarce(&self) -> bool {
        self.lent.get() > usize::from(self.count) / 2
    }

    /// Appends the first `bytes` bytes of a lent buffer to `into`.
    pub(in crate::real) fn copy(&self, buffer: u16, bytes: usize, into: &mut Vec<u8>) {
        assert!(
            buffer < self.count && bytes <= BUFFER_BYTES,
            "the kernel fills one buffer at a time"
        );
        let start = usize::from(buffer) * BUFFER_BYTES;
        into.extend_from_slice(&self.memory.borrow()[start..start + bytes]);
    }

    pub(in crate::real) fn give_back(&self, buffer: u16) {
        self.lent.set(self.lent.get() - 1);
        self.provide(buffer);
    }

    fn provide(&self, buffer: u16) {
        let mut entries = self.entries.borrow_mut();
        let memory = self.memory.borrow();
        let base = entries.as_mut_ptr().cast::<BufRingEntry>();
        let tail = self.tail.get();
        let start = usize::from(buffer) * BUFFER_BYTES;
        // SAFETY: the index is below the number of entries, and the kernel does not read the entry before the tail
        // has passed it. Only the fields before the tail, which shares the first entry, are written.
        unsafe {
            let entry = &mut *base.add(usize::from(tail & (self.count - 1)));
            entry.set_addr(memory[start..].as_ptr() as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        // SAFETY: the tail is an aligned u16 within the entries, which the kernel only reads.
        unsafe { (*BufRingEntry::tail(base).cast::<AtomicU16>()).store(tail, Ordering::Release) };
    }
}
