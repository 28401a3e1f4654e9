//! Bounded queues between shards, and replies to what was asked through them.
//!
//! Invariants:
//! - A mailbox never holds more than its capacity; a full one is backpressure, never growth.
//! - Messages of one sender arrive in the order they were sent.
//! - A reply has its slot before the request leaves, so answering never waits: two full mailboxes cannot wait for
//!   each other.
//! - What can no longer be received is dropped at once, so the asker of a request that nobody will answer hears
//!   [`Closed`] instead of waiting.
//!
//! Nothing here names a thread: a message wakes its receiver through the task's ordinary waker, and the runtime
//! decides what that means. In the real world a waker used on another shard queues the task there and writes one
//! eventfd only if that shard sleeps; in the simulator it makes the task runnable.

mod reply;
mod waiters;

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::Poll;

use crossbeam_queue::ArrayQueue;
use futures_util::task::AtomicWaker;

pub use reply::{Reply, ReplySender, reply};
use waiters::{Waiters, Waiting};

/// The other side is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the other side is gone")
    }
}

impl std::error::Error for Closed {}

/// Why [`MailboxSender::try_send`] gave the message back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused<T> {
    /// No room now.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// A queue of at most `capacity` messages to one receiver.
///
/// # Panics
/// When `capacity` is zero.
#[must_use]
pub fn mailbox<T: Send + 'static>(capacity: usize) -> (MailboxSender<T>, MailboxReceiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity),
        receiver: AtomicWaker::new(),
        receiving: AtomicBool::new(true),
        senders: AtomicUsize::new(1),
        waiters: Arc::new(Waiters::default()),
    });
    (
        MailboxSender {
            shared: Arc::clone(&shared),
        },
        MailboxReceiver { shared },
    )
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    receiver: AtomicWaker,
    /// False once the receiver has been dropped.
    receiving: AtomicBool,
    senders: AtomicUsize,
    waiters: Arc<Waiters>,
}

impl<T> Shared<T> {
    /// Takes one message and gives its room to whoever waits for room.
    fn pop(&self) -> Option<T> {
        let message = self.queue.pop()?;
        // Pairs with the fence of a sender that registers and then tries again: either it sees the room, or its
        // registration is seen here.
        fence(Ordering::SeqCst);
        self.waiters.wake_one();
        Some(message)
    }

    fn push(&self, message: T) -> Result<(), Refused<T>> {
        if !self.receiving.load(Ordering::Acquire) {
            return Err(Refused::Closed(message));
        }
        self.queue.push(message).map_err(Refused::Full)?;
        // Pairs with the fence of the receiver that registers and then looks again, and of one that is dropped.
        fence(Ordering::SeqCst);
        if self.receiving.load(Ordering::Relaxed) {
            self.receiver.wake();
        } else {
            self.discard();
        }
        Ok(())
    }

    /// Drops what nobody will receive.
    fn discard(&self) {
        while self.queue.pop().is_some() {}
    }
}

/// The sending end; clone it for every shard that sends.
pub struct MailboxSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> MailboxSender<T> {
    /// Sends if there is room. A message accepted in the moment the receiver goes away is dropped, as one that
    /// was never read.
    ///
    /// # Errors
    /// [`Refused::Full`] or [`Refused::Closed`], with the message.
    pub fn try_send(&self, message: T) -> Result<(), Refused<T>> {
        self.shared.push(message)
    }

    /// Sends, waiting for room. Senders that wait are woken first in, first out. Dropping the future before it
    /// resolves drops the message unsent.
    ///
    /// # Errors
    /// [`Closed`] when the receiver is gone.
    pub fn send(&self, message: T) -> impl Future<Output = Result<(), Closed>> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            let mut waiting = Waiting::new(Arc::clone(&shared.waiters));
            let mut message = Some(message);
            poll_fn(move |context| {
                for registered in [false, true] {
                    let content = message
                        .take()
                        .expect("a send is not polled after it has resolved");
                    match shared.push(content) {
                        Ok(()) => {
                            waiting.resolve();
                            return Poll::Ready(Ok(()));
                        }
                        Err(Refused::Closed(_)) => return Poll::Ready(Err(Closed)),
                        Err(Refused::Full(content)) => message = Some(content),
                    }
                    if !registered {
                        waiting.register(context.waker());
                        // Pairs with the fence in `pop`.
                        fence(Ordering::SeqCst);
                    }
                }
                Poll::Pending
            })
            .await
        }
    }

    /// Number of messages that can be waiting.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.queue.capacity()
    }
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> MailboxSender<T> {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        MailboxSender {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Drop for MailboxSender<T> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.receiver.wake();
        }
    }
}

impl<T> fmt::Debug for MailboxSender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "MailboxSender({}/{})",
            self.shared.queue.len(),
            self.shared.queue.capacity()
        )
    }
}

/// The receiving end. May be sent to another shard before it is used; there is only one.
pub struct MailboxReceiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send + 'static> MailboxReceiver<T> {
    /// The next message; `None` once every sender is gone and nothing is left. Dropping the future loses nothing.
    pub fn recv(&mut self) -> impl Future<Output = Option<T>> + '_ {
        poll_fn(move |context| {
            if let Some(message) = self.shared.pop() {
                return Poll::Ready(Some(message));
            }
            self.shared.receiver.register(context.waker());
            // Pairs with the fence in `push`.
            fence(Ordering::SeqCst);
            // The senders are counted before the second look: whatever the last one sent is then visible.
            let abandoned = self.shared.senders.load(Ordering::Acquire) == 0;
            match self.shared.pop() {
                Some(message) => Poll::Ready(Some(message)),
                None if abandoned => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
    }

    /// Appends everything that waits now to `into`, at most the capacity; gives the number of messages.
    pub fn drain(&mut self, into: &mut Vec<T>) -> usize {
        let before = into.len();
        // Bounded: senders may refill the queue while it is being emptied.
        for _ in 0..self.shared.queue.capacity() {
            let Some(message) = self.shared.pop() else { break };
            into.push(message);
        }
        into.len() - before
    }
}

impl<T> Drop for MailboxReceiver<T> {
    fn drop(&mut self) {
        self.shared.receiving.store(false, Ordering::SeqCst);
        // Pairs with the fence in `push`: a sender either sees that nobody receives and discards its message
        // itself, or the message is discarded here.
        fence(Ordering::SeqCst);
        self.shared.discard();
        self.shared.waiters.wake_all();
    }
}

impl<T> fmt::Debug for MailboxReceiver<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "MailboxReceiver({}/{})",
            self.shared.queue.len(),
            self.shared.queue.capacity()
        )
    }
}
