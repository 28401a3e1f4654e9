//! How other threads reach a shard: a queue of tasks to wake, and an eventfd written only while the shard sleeps.
//!
//! 1. A foreign waker pushes its task, then looks whether the shard sleeps; if so it takes that mark back and
//!    writes the eventfd.
//! 2. A shard that wants to sleep sets the mark, then looks at the queue once more.
//!
//! Both put a sequentially consistent fence between their two steps, so at least one sees the other. However many
//! tasks are woken while the shard sleeps, one write wakes it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::SegQueue;
use rustix::event::{EventfdFlags, eventfd};

use crate::real::task::Header;

pub(super) struct Signal {
    /// Holds a task at most once, so it is bounded by the number of tasks.
    woken: SegQueue<Arc<Header>>,
    sleeping: AtomicBool,
    closed: AtomicBool,
    eventfd: OwnedFd,
}

impl Signal {
    pub(super) fn new() -> io::Result<Signal> {
        // Blocking on purpose: the ring's read of it then waits for a count, where a non-blocking one would fail.
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC)?;
        let (sleeping, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Signal {
            woken: SegQueue::new(),
            sleeping,
            closed,
            eventfd,
        })
    }

    /// The shard's own handle on the eventfd, for its ring.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.eventfd.try_clone()
    }

    /// Called by other threads: has the shard wake `task`.
    pub(super) fn push(&self, task: Arc<Header>) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        self.woken.push(task);
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // The count cannot overflow: one write per sleep. A failure to write would be a broken kernel.
            rustix::io::write(self.eventfd.as_fd(), &1u64.to_ne_bytes())
                .expect("an eventfd takes a count of one");
        }
    }

    pub(super) fn pop(&self) -> Option<Arc<Header>> {
        self.woken.pop()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.woken.is_empty()
    }

    /// Announces sleep; false when a task was woken meanwhile and the shard must not sleep.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.woken.is_empty() {
            return true;
        }
        self.sleeping.store(false, Ordering::Relaxed);
        false
    }

    pub(super) fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The shard has ended: wakes from now on are dropped.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        while self.woken.pop().is_some() {}
    }
}
