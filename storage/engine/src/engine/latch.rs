//! Per-key latches, first in, first out.
//!
//! An update holds its key's latch only while it reads the newest state from a drive; where the state is in
//! memory, reading, deciding and proposing happen in one go and need no latch, unless somebody already holds
//! or awaits it: then the newcomer queues, so updates of a key are decided in the order in which they came.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use cairn_runtime::sync::{Permit, Semaphore};

/// The latches of one partition. Holds an entry only for keys that somebody holds or awaits.
#[derive(Default)]
pub(super) struct Latches {
    keys: RefCell<BTreeMap<Rc<[u8]>, Entry>>,
}

struct Entry {
    turn: Semaphore,
    /// Tasks that hold or await the latch.
    users: usize,
}

impl Latches {
    /// Whether somebody holds or awaits the latch of `key`.
    pub(super) fn is_taken(&self, key: &[u8]) -> bool {
        let keys = self.keys.borrow();
        !keys.is_empty() && keys.contains_key(key)
    }

    /// Waits for the turn.
    pub(super) async fn acquire(&self, key: &[u8]) -> Latch<'_> {
        let (ticket, turn) = self.enter(key);
        let permit = turn.acquire(1).await;
        Latch {
            _permit: permit,
            _ticket: ticket,
        }
    }

    fn enter(&self, key: &[u8]) -> (Ticket<'_>, Semaphore) {
        let mut keys = self.keys.borrow_mut();
        if let Some((key, entry)) = keys
            .get_key_value(key)
            .map(|(key, entry)| (Rc::clone(key), entry.turn.clone()))
        {
            keys.get_mut(&key).expect("just found").users += 1;
            return (Ticket { latches: self, key }, entry);
        }
        let key: Rc<[u8]> = key.into();
        let turn = Semaphore::new(1);
        keys.insert(
            Rc::clone(&key),
            Entry {
                turn: turn.clone(),
                users: 1,
            },
        );
        (Ticket { latches: self, key }, turn)
    }
}

/// A latch held, until dropped.
pub(super) struct Latch<'a> {
    // The turn passes on before the entry may go.
    _permit: Permit,
    _ticket: Ticket<'a>,
}

/// A place in the queue of a key, given back however its future ends.
struct Ticket<'a> {
    latches: &'a Latches,
    key: Rc<[u8]>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut keys = self.latches.keys.borrow_mut();
        let entry = keys.get_mut(&self.key).expect("a ticket keeps its entry");
        entry.users -= 1;
        if entry.users == 0 {
            keys.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn turns_come_in_order_and_leave_nothing_behind() {
        let latches = Latches::default();
        let mut first = Box::pin(latches.acquire(b"key"));
        let mut second = Box::pin(latches.acquire(b"key"));
        let mut third = Box::pin(latches.acquire(b"key"));
        let mut other = Box::pin(latches.acquire(b"other"));
        let Poll::Ready(held) = poll(&mut first) else {
            panic!("nobody was there")
        };
        assert!(poll(&mut other).is_ready());
        assert!(poll(&mut second).is_pending());
        assert!(poll(&mut third).is_pending());
        drop(held);
        assert!(poll(&mut third).is_pending());
        drop(second);
        let Poll::Ready(held) = poll(&mut third) else {
            panic!("the second gave up its place")
        };
        assert!(latches.is_taken(b"key"));
        drop(held);
        assert!(latches.keys.borrow().is_empty());
    }
}
