//! Senders that wait for room, first in, first out. The slow path of a mailbox: it is locked for a few
//! instructions, and only touched while somebody waits.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

#[derive(Default)]
pub(super) struct Waiters {
    /// Length of the list, so that nobody locks it to find it empty.
    count: AtomicUsize,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl Waiters {
    /// Wakes the sender that has waited longest.
    pub(super) fn wake_one(&self) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let first = {
            let mut list = self.lock();
            let first = list.waiting.pop_front();
            self.count.store(list.waiting.len(), Ordering::Relaxed);
            first
        };
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    pub(super) fn wake_all(&self) {
        let all = {
            let mut list = self.lock();
            self.count.store(0, Ordering::Relaxed);
            mem::take(&mut list.waiting)
        };
        for (_, waker) in all {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().expect("nothing panics while holding the list")
    }
}

/// One sender's place in the list. Room that was offered to a sender that goes away without using it is offered
/// to the next.
pub(super) struct Waiting {
    waiters: Arc<Waiters>,
    id: Option<u64>,
}

impl Waiting {
    pub(super) fn new(waiters: Arc<Waiters>) -> Waiting {
        Waiting { waiters, id: None }
    }

    /// Enters the list at its end, or renews the waker of the place already held.
    pub(super) fn register(&mut self, waker: &Waker) {
        let mut list = self.waiters.lock();
        if let Some(place) = list.waiting.iter_mut().find(|(id, _)| Some(*id) == self.id) {
            place.1.clone_from(waker);
            return;
        }
        let id = list.next;
        list.next += 1;
        list.waiting.push_back((id, waker.clone()));
        self.waiters.count.store(list.waiting.len(), Ordering::Relaxed);
        self.id = Some(id);
    }

    /// The sender has found room: it leaves the list, and keeps what it was offered.
    pub(super) fn resolve(&mut self) {
        self.leave();
    }

    /// Gives true when the sender had been woken.
    fn leave(&mut self) -> bool {
        let Some(own) = self.id.take() else { return false };
        let mut list = self.waiters.lock();
        let before = list.waiting.len();
        list.waiting.retain(|(id, _)| *id != own);
        self.waiters.count.store(list.waiting.len(), Ordering::Relaxed);
        list.waiting.len() == before
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.leave() {
            self.waiters.wake_one();
        }
    }
}
