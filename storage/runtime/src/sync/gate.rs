//! Waiting for work in progress to end: before a shutdown ([`Gate`]), or for a set of tasks ([`WaitGroup`]).

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use super::{Closed, Notify};

/// Counts work in progress. Cheap to clone.
#[derive(Clone, Default)]
pub struct WaitGroup {
    count: Rc<Cell<usize>>,
    empty: Notify,
}

impl WaitGroup {
    /// With nothing in progress.
    #[must_use]
    pub fn new() -> WaitGroup {
        WaitGroup::default()
    }

    /// Counts one more piece of work until the token is dropped.
    pub fn enter(&self) -> WaitToken {
        self.count.set(self.count.get() + 1);
        WaitToken { group: self.clone() }
    }

    /// Pieces of work in progress.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Resolves when nothing is in progress.
    pub async fn wait(&self) {
        while self.count.get() > 0 {
            self.empty.notified().await;
        }
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WaitGroup({})", self.count.get())
    }
}

/// One piece of work of a [`WaitGroup`].
#[must_use = "the work ends when the token is dropped"]
pub struct WaitToken {
    group: WaitGroup,
}

impl Drop for WaitToken {
    fn drop(&mut self) {
        let count = self.group.count.get() - 1;
        self.group.count.set(count);
        if count == 0 {
            self.group.empty.notify_all();
        }
    }
}

impl fmt::Debug for WaitToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WaitToken")
    }
}

/// A [`WaitGroup`] that can be shut: who is inside may finish, nobody enters any more. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    closed: Rc<Cell<bool>>,
    inside: WaitGroup,
    closing: Notify,
}

/// Leave to be inside a [`Gate`], until dropped.
pub type Pass = WaitToken;

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Enters.
    ///
    /// # Errors
    /// [`Closed`] once [`Gate::close`] was called.
    pub fn enter(&self) -> Result<Pass, Closed> {
        if self.closed.get() {
            Err(Closed)
        } else {
            Ok(self.inside.enter())
        }
    }

    /// Closes the gate now; resolves when everybody has left.
    pub fn close(&self) -> impl Future<Output = ()> + 'static {
        self.closed.set(true);
        self.closing.notify_all();
        let inside = self.inside.clone();
        async move { inside.wait().await }
    }

    /// Resolves when [`Gate::close`] is called; for tasks that wait for their end.
    pub async fn closed(&self) {
        while !self.closed.get() {
            self.closing.notified().await;
        }
    }

    /// Whether [`Gate::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}
