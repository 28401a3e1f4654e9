//! Primitives for tasks of one shard: no locks, no atomics, all `!Send`.
//!
//! Invariants that every primitive here keeps:
//! - Waiters are served first in, first out; a newcomer never overtakes one that waits.
//! - Dropping a waiting future gives back whatever it was already granted and passes it on, so nothing is lost
//!   when a task is cancelled between being woken and being polled.
//! - Wakers are called while nothing is borrowed, so a waker may re-enter the primitive.
//!
//! For several shards see [`crate::mailbox`].

mod gate;
mod mutex;
mod notify;
mod oneshot;
mod progress;
mod queue;
mod semaphore;
#[cfg(test)]
mod sync_test;

pub use gate::{Gate, Pass, WaitGroup, WaitToken};
pub use mutex::{Mutex, MutexGuard};
pub use notify::{Notified, Notify};
pub use oneshot::{OneshotReceiver, OneshotSender, oneshot};
pub use progress::Progress;
pub use queue::{BoundedQueue, PushError};
pub use semaphore::{Acquire, Permit, Semaphore};

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::{Queue, Runtime};

/// The other side is gone or was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("closed")
    }
}

impl std::error::Error for Closed {}

/// The time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the time ran out")
    }
}

impl std::error::Error for Elapsed {}

/// Spawns `future` and resolves with its output. Dropping the receiver detaches the task; `Closed` means the
/// task was dropped unfinished.
pub fn spawn<R: Runtime, T: 'static>(
    runtime: &R,
    queue: Queue,
    future: impl Future<Output = T> + 'static,
) -> OneshotReceiver<T> {
    let (sender, receiver) = oneshot();
    runtime.spawn(queue, async move {
        // A receiver that is gone asked for a detached task.
        let _ = sender.send(future.await);
    });
    receiver
}

/// Runs `future` for at most `duration`, then drops it. Never wrap a durable write: dropping its future does
/// not cancel it; [`spawn`] the write and put the timeout around the receiver.
///
/// # Errors
/// [`Elapsed`] when the time ran out first.
pub async fn timeout<R: Runtime, F: Future>(
    runtime: &R,
    duration: Duration,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(runtime.sleep(duration));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    })
    .await
}
