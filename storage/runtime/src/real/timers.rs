//! Timers of one shard, ordered by deadline and then by registration, so that equal deadlines resolve first in,
//! first out. The driver wakes what is due; a dropped timer leaves nothing behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::Moment;
use crate::real::clock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    due: Moment,
    order: u64,
}

#[derive(Default)]
pub(super) struct Timers {
    waiting: RefCell<BTreeMap<Key, Waker>>,
    next: Cell<u64>,
}

impl Timers {
    /// When the earliest timer is due.
    pub(super) fn earliest(&self) -> Option<Moment> {
        self.waiting.borrow().first_key_value().map(|(key, _)| key.due)
    }

    /// Wakes every timer due at `now`, in order.
    pub(super) fn expire(&self, now: Moment) {
        loop {
            let waker = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.first_entry() {
                    Some(first) if first.key().due <= now => first.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }

    fn insert(&self, due: Moment, waker: Waker) -> Key {
        let key = Key {
            due,
            order: self.next.replace(self.next.get() + 1),
        };
        self.waiting.borrow_mut().insert(key, waker);
        key
    }
}

/// Resolves once its duration has passed, counted from its creation.
pub(super) struct Sleep {
    timers: Rc<Timers>,
    due: Moment,
    key: Option<Key>,
}

impl Sleep {
    pub(super) fn new(timers: Rc<Timers>, duration: Duration) -> Sleep {
        Sleep {
            timers,
            due: clock::now() + duration,
            key: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(key) = self.key {
            let mut waiting = self.timers.waiting.borrow_mut();
            let Some(waker) = waiting.get_mut(&key) else {
                drop(waiting);
                self.key = None;
                return Poll::Ready(());
            };
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let key = self.timers.insert(self.due, context.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.waiting.borrow_mut().remove(&key);
        }
    }
}
