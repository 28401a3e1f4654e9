//! A slot for one answer, reserved before the question is asked.
//!
//! The state only moves forward: `EMPTY` -> `SENT` -> `TAKEN`, or `EMPTY` -> `CLOSED`. The value is written by the
//! only sender before `SENT` is published, and read by the only receiver after it was seen.
#![expect(
    unsafe_code,
    reason = "a slot shared by two threads, handed over by one atomic"
)]

use std::cell::UnsafeCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::Closed;

const EMPTY: u8 = 0;
const SENT: u8 = 1;
const TAKEN: u8 = 2;
const CLOSED: u8 = 3;

struct Slot<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
    waker: AtomicWaker,
}

// SAFETY: the cell is accessed by the sender while the state is EMPTY and by the receiver once it is SENT; the state
// is published with release and read with acquire ordering, so the accesses never overlap. T is Send, and only
// moved through.
unsafe impl<T: Send> Sync for Slot<T> {}

/// A reserved slot for one answer: sending it neither waits nor fails for lack of room.
pub fn reply<T: Send>() -> (ReplySender<T>, Reply<T>) {
    let slot = Arc::new(Slot {
        state: AtomicU8::new(EMPTY),
        value: UnsafeCell::new(None),
        waker: AtomicWaker::new(),
    });
    (
        ReplySender {
            slot: Some(Arc::clone(&slot)),
        },
        Reply { slot },
    )
}

/// Answers once. Dropped unused, the asker hears [`Closed`].
pub struct ReplySender<T> {
    slot: Option<Arc<Slot<T>>>,
}

impl<T: Send> ReplySender<T> {
    /// Sends the answer; it is dropped when nobody waits for it any more.
    pub fn send(mut self, value: T) {
        let slot = self.slot.take().expect("taken only here and when dropped");
        // SAFETY: the state is EMPTY until this sender, of which there is one, changes it; until then the receiver
        // does not touch the cell.
        unsafe { *slot.value.get() = Some(value) };
        slot.state.store(SENT, Ordering::Release);
        slot.waker.wake();
    }
}

impl<T> Drop for ReplySender<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.state.store(CLOSED, Ordering::Release);
            slot.waker.wake();
        }
    }
}

impl<T> fmt::Debug for ReplySender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ReplySender")
    }
}

/// Resolves with the answer, or with [`Closed`] when it was dropped unanswered.
#[must_use = "the answer is only seen by awaiting it"]
pub struct Reply<T> {
    slot: Arc<Slot<T>>,
}

impl<T: Send> Reply<T> {
    fn try_take(&self) -> Option<Result<T, Closed>> {
        match self.slot.state.load(Ordering::Acquire) {
            EMPTY => None,
            SENT => {
                // SAFETY: the sender has published the value and let go of the cell.
                let value = unsafe { (*self.slot.value.get()).take() };
                self.slot.state.store(TAKEN, Ordering::Relaxed);
                Some(value.ok_or(Closed))
            }
            _ => Some(Err(Closed)),
        }
    }
}

impl<T: Send> Future for Reply<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(answer) = self.try_take() {
            return Poll::Ready(answer);
        }
        self.slot.waker.register(context.waker());
        self.try_take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reply")
    }
}
