//! The shard ring: one `io_uring` per shard, owned by its thread, through which all drive and network I/O goes.
//!
//! Invariants:
//! - An operation's memory (buffers, names, addresses, descriptors) lives in the [`slab`] from the moment it is
//!   queued until its last completion, whatever becomes of the future that asked for it.
//! - Completions carry a slot and its generation; one that is not for the slot's present use is ignored.
//! - Queueing makes no system call. One `enter` submits everything queued and collects everything finished.
//! - Before memory that the kernel may still write is freed, [`Ring::drain`] has seen the last completion.
//! - No reference into the ring is held while a waker runs or an operation's resource is dropped.
//!
//! An operation whose future is dropped is orphaned: network operations are also cancelled, drive operations
//! never, because a write that may or may not happen must at least not be torn by us.

mod operation;
mod provided;
mod setup;
mod slab;
#[expect(
    unsafe_code,
    reason = "submission entries point to memory that the slab keeps alive"
)]
mod submit;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::Waker;

use io_uring::{IoUring, cqueue, squeue};

pub(super) use operation::{Operation, Outcome};
pub(super) use provided::ProvidedBuffers;
pub(super) use setup::{KernelRefusal, RingConfig, check_kernel};
use slab::{Completed, Slab};
pub(super) use slab::{Key, Resource, descriptor};

/// Marks completions that nobody waits for: those of cancellations.
const IGNORED: u64 = u64::MAX;

/// Receives the completions of a multishot operation.
pub(super) trait Sink {
    /// One completion; `last` when the operation has ended and must be armed again to go on.
    fn completed(self: Rc<Self>, ring: &Rc<Ring>, result: i32, flags: u32, last: bool);
}

/// Counters of one shard ring since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingStats {
    /// What the kernel granted of the wanted set-up, in words.
    pub setup: &'static str,
    /// The ring's descriptor is registered, which saves a look-up per system call.
    pub registered_descriptor: bool,
    /// Bytes of receive buffers provided to the kernel; 0 when it refused them.
    pub receive_buffer_bytes: usize,
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Calls among them that slept because the shard had nothing to do.
    pub sleeps: u64,
    /// Operations handed to the kernel.
    pub submitted: u64,
    /// Completions collected.
    pub completed: u64,
    /// Operations and armed multishots now in the kernel or queued for it.
    pub in_flight: usize,
    /// Receives that ended because no provided buffer was free; each was armed again.
    pub buffers_exhausted: u64,
    /// Accepts that paused for want of descriptors or memory.
    pub accept_pauses: u64,
}

pub(super) struct Ring {
    /// Dropped before the memory it may point to.
    io: RefCell<IoUring>,
    slab: RefCell<Slab>,
    /// Entries that did not fit into the submission queue. Bounded by the number of operations in the slab.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    /// Entries not yet submitted, the backlog included.
    queued: Cell<usize>,
    /// Reused between collections.
    batch: RefCell<Vec<cqueue::Entry>>,
    provided: ProvidedBuffers,
    taskrun_flag: bool,
    closing: Cell<bool>,
    stats: Cell<RingStats>,
}

impl Ring {
    /// Counters since the start.
    pub(super) fn stats(&self) -> RingStats {
        RingStats {
            in_flight: self.slab.borrow().occupied(),
            ..self.stats.get()
        }
    }

    pub(super) fn provided(&self) -> &ProvidedBuffers {
        &self.provided
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut RingStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// True when entering the kernel now would submit or collect something.
    pub(super) fn has_work(&self) -> bool {
        if self.queued.get() > 0 {
            return true;
        }
        let mut io = self.io.borrow_mut();
        if !io.completion().is_empty() {
            return true;
        }
        let submission = io.submission();
        (self.taskrun_flag && submission.taskrun()) || submission.cq_overflow()
    }

    /// Wakes the tasks of everything that has completed so far, without entering the kernel.
    pub(super) fn reap(self: &Rc<Ring>) {
        loop {
            let mut batch = self.batch.take();
            batch.extend(self.io.borrow_mut().completion());
            let collected = batch.len();
            for entry in batch.drain(..) {
                self.complete(&entry);
            }
            self.batch.replace(batch);
            if collected == 0 {
                return;
            }
            self.count(|stats| stats.completed += collected as u64);
        }
    }

    fn complete(self: &Rc<Ring>, entry: &cqueue::Entry) {
        if entry.user_data() == IGNORED {
            return;
        }
        let last = !cqueue::more(entry.flags());
        let completed =
            self.slab
                .borrow_mut()
                .complete(Key::from_user_data(entry.user_data()), entry.result(), last);
        match completed {
            Completed::Wake(waker) => wake(waker),
            Completed::Orphan(resource) => resource.discard(entry.result()),
            Completed::Sink(sink) => sink.completed(self, entry.result(), entry.flags(), last),
            Completed::Unknown => {}
        }
    }

    /// Ends every network operation, waits until the kernel has let go of everything, and refuses whatever comes
    /// later. Waits for drive operations however long they take.
    pub(super) fn drain(self: &Rc<Ring>) {
        self.closing.set(true);
        let cancel = self.slab.borrow().cancellable();
        for key in cancel {
            self.cancel(key);
        }
        while self.slab.borrow().in_kernel() > 0 {
            self.enter(Some(None));
            self.reap();
        }
    }

    fn refuse_when_closing(&self) -> io::Result<()> {
        if self.closing.get() {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "the shard is shutting down",
            ));
        }
        Ok(())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
