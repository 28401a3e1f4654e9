//! Memory for direct I/O: aligned to, and a multiple of, [`BLOCK_BYTES`].
#![expect(unsafe_code, reason = "aligned allocation has no safe form in std")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::BLOCK_BYTES;

/// Zero-initialised bytes, aligned to [`BLOCK_BYTES`] and a multiple of it long.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    bytes: usize,
    /// Bytes allocated, at least `bytes`.
    capacity: usize,
}

impl AlignedBuffer {
    /// A zeroed buffer of `bytes`, rounded up to a multiple of [`BLOCK_BYTES`], at least one block.
    #[must_use]
    pub fn zeroed(bytes: usize) -> AlignedBuffer {
        let bytes = bytes.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        let layout =
            Layout::from_size_align(bytes, BLOCK_BYTES).expect("a buffer is smaller than isize::MAX");
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        AlignedBuffer {
            start,
            bytes,
            capacity: bytes,
        }
    }

    /// A buffer that begins with `content`; the rest of the last block is zero.
    #[must_use]
    pub fn from_slice(content: &[u8]) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::zeroed(content.len());
        buffer[..content.len()].copy_from_slice(content);
        buffer
    }

    /// Bytes allocated.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes the buffer `bytes` long, rounded up to a multiple of [`BLOCK_BYTES`], within its capacity. The content
    /// stays; bytes that appear are those that were there before.
    pub fn set_bytes(&mut self, bytes: usize) {
        let bytes = bytes.next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES);
        assert!(bytes <= self.capacity, "within the capacity");
        self.bytes = bytes;
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `bytes` initialised bytes that this value owns.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        let layout = Layout::from_size_align(self.capacity, BLOCK_BYTES).expect("checked when allocated");
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}

// SAFETY: the buffer owns its memory exclusively, as a Vec does.
unsafe impl Send for AlignedBuffer {}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AlignedBuffer({} bytes)", self.bytes)
    }
}
