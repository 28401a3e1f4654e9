//! The connections of a paced run that can take another operation.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use cairn_runtime::sync::Notify;

/// A connection as [`Ready`] sees it.
pub(crate) trait Member {
    /// Whether it stands in the queue; [`Ready`]'s own.
    fn queued(&self) -> &Cell<bool>;
}

/// Lines with a free slot, the one that waits longest first, each of them once: every answer frees a slot, so a queue
/// with an entry for each of those would grow for as long as the run lasts, and whoever finds its lines full after a
/// stall would have to go through all of them.
pub(crate) struct Ready<T: Member> {
    lines: RefCell<VecDeque<Rc<T>>>,
    pushed: Notify,
}

impl<T: Member> Ready<T> {
    pub(crate) fn new() -> Ready<T> {
        Ready {
            lines: RefCell::default(),
            pushed: Notify::new(),
        }
    }

    /// A slot of the line is free.
    pub(crate) fn push(&self, line: &Rc<T>) {
        if !line.queued().replace(true) {
            self.lines.borrow_mut().push_back(line.clone());
            self.pushed.notify_one();
        }
    }

    /// The line that waits longest. Whoever takes it gives it back with [`Ready::put_back`] while a slot of it is free.
    pub(crate) fn take(&self) -> Option<Rc<T>> {
        let line = self.lines.borrow_mut().pop_front()?;
        line.queued().set(false);
        Some(line)
    }

    /// The line that was taken last is the first again.
    pub(crate) fn put_back(&self, line: Rc<T>) {
        if !line.queued().replace(true) {
            self.lines.borrow_mut().push_front(line);
        }
    }

    /// Ends when a line has been pushed.
    pub(crate) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// Forgets all lines, and wakes who waits for one.
    pub(crate) fn clear(&self) {
        let lines = std::mem::take(&mut *self.lines.borrow_mut());
        lines.iter().for_each(|line| line.queued().set(false));
        self.pushed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Connection(u32, Cell<bool>);

    impl Member for Connection {
        fn queued(&self) -> &Cell<bool> {
            &self.1
        }
    }

    #[test]
    fn a_connection_stands_in_the_queue_once() {
        let ready = Ready::new();
        let connections = [0, 1, 2].map(|name| Rc::new(Connection(name, Cell::default())));
        for _ in 0..1000 {
            connections.iter().for_each(|connection| ready.push(connection));
            let first = ready.take().unwrap();
            ready.push(&connections[1]);
            ready.put_back(first);
        }
        let name = || ready.take().map(|connection| connection.0);
        assert_eq!(
            [name(), name(), name(), name()],
            [Some(0), Some(1), Some(2), None]
        );
        // One that was taken and found full comes back when an answer has freed a slot, behind the others.
        connections
            .iter()
            .rev()
            .for_each(|connection| ready.push(connection));
        assert_eq!(ready.take().map(|connection| connection.0), Some(2));
        ready.push(&connections[2]);
        assert_eq!(
            [name(), name(), name(), name()],
            [Some(1), Some(0), Some(2), None]
        );
        ready.push(&connections[0]);
        ready.clear();
        assert!(ready.take().is_none());
        ready.push(&connections[0]);
        assert!(ready.take().is_some());
    }
}
