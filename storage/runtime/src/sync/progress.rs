//! A number that only grows, and tasks that wait until it has reached theirs: durable, committed, applied.
//! Only the tasks whose number is reached are woken.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Closed;

#[derive(Default)]
struct State {
    reached: u64,
    closed: bool,
    ticket_next: u64,
    waiters: BTreeMap<(u64, u64), Waker>,
}

/// A number that only grows. Cheap to clone.
#[derive(Clone, Default)]
pub struct Progress {
    state: Rc<RefCell<State>>,
}

impl Progress {
    /// Starts at `reached`.
    #[must_use]
    pub fn new(reached: u64) -> Progress {
        Progress {
            state: Rc::new(RefCell::new(State {
                reached,
                ..State::default()
            })),
        }
    }

    /// The number reached so far.
    #[must_use]
    pub fn reached(&self) -> u64 {
        self.state.borrow().reached
    }

    /// Raises the number; a lower one changes nothing. Wakes in the order of the numbers waited for.
    pub fn advance(&self, to: u64) {
        let woken = {
            let mut state = self.state.borrow_mut();
            state.reached = state.reached.max(to);
            let later = match state.reached.checked_add(1) {
                Some(next) => state.waiters.split_off(&(next, 0)),
                None => BTreeMap::new(),
            };
            std::mem::replace(&mut state.waiters, later)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// Fails everyone who waits, now and later, for a number not reached.
    pub fn close(&self) {
        let woken = {
            let mut state = self.state.borrow_mut();
            state.closed = true;
            std::mem::take(&mut state.waiters)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// Resolves when `number` is reached; [`Closed`] when it never will be.
    pub fn wait(&self, number: u64) -> impl Future<Output = Result<(), Closed>> + 'static {
        Wait {
            progress: self.clone(),
            number,
            ticket: None,
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Progress({})", self.reached())
    }
}

struct Wait {
    progress: Progress,
    number: u64,
    ticket: Option<u64>,
}

impl Future for Wait {
    type Output = Result<(), Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let progress = self.progress.clone();
        let mut state = progress.state.borrow_mut();
        if state.reached >= self.number {
            return Poll::Ready(Ok(()));
        }
        if state.closed {
            return Poll::Ready(Err(Closed));
        }
        let ticket = self.ticket.unwrap_or(state.ticket_next);
        if self.ticket.replace(ticket).is_none() {
            state.ticket_next += 1;
        }
        let previous = state
            .waiters
            .insert((self.number, ticket), context.waker().clone());
        drop(state);
        drop(previous);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let waker = self
            .progress
            .state
            .borrow_mut()
            .waiters
            .remove(&(self.number, ticket));
        drop(waker);
    }
}
