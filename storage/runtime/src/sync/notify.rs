//! Wakes tasks that wait for something to have changed.
//!
//! A [`Notified`] counts from its creation, not from its first poll: create it, check the condition, await it,
//! and no change is missed. `notify_one` with nobody waiting is remembered, once.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct State {
    /// Rises with every `notify_all`.
    generation: u64,
    /// A `notify_one` that found nobody.
    remembered: bool,
    ticket_next: u64,
    /// Sorted by ticket; the first `granted` were chosen by `notify_one` and not polled since.
    waiters: VecDeque<(u64, Waker)>,
    granted: usize,
}

/// Tells waiting tasks that something changed. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notify {
    state: Rc<RefCell<State>>,
}

impl Notify {
    /// With nobody waiting and nothing remembered.
    #[must_use]
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes the first waiter; with none, the next [`Notify::notified`] resolves at once.
    pub fn notify_one(&self) {
        let waker = {
            let mut state = self.state.borrow_mut();
            let granted = state.granted;
            match state.waiters.get(granted) {
                Some((_, waker)) => {
                    let waker = waker.clone();
                    state.granted += 1;
                    Some(waker)
                }
                None => {
                    state.remembered = true;
                    None
                }
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Resolves every [`Notified`] that exists; remembers nothing.
    pub fn notify_all(&self) {
        let waiters = {
            let mut state = self.state.borrow_mut();
            state.generation += 1;
            // A grant among them is answered by the new generation too, and must not be passed on.
            state.granted = 0;
            std::mem::take(&mut state.waiters)
        };
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Resolves at the first notification after this call.
    pub fn notified(&self) -> Notified {
        let generation = self.state.borrow().generation;
        Notified {
            notify: self.clone(),
            generation,
            ticket: None,
        }
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Notify({} waiting)", self.state.borrow().waiters.len())
    }
}

/// The future of [`Notify::notified`].
#[must_use = "futures do nothing until awaited"]
pub struct Notified {
    notify: Notify,
    generation: u64,
    ticket: Option<u64>,
}

impl Future for Notified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let notify = self.notify.clone();
        let mut state = notify.state.borrow_mut();
        if state.generation != self.generation {
            self.ticket = None;
            return Poll::Ready(());
        }
        let Some(ticket) = self.ticket else {
            if std::mem::take(&mut state.remembered) {
                return Poll::Ready(());
            }
            let ticket = state.ticket_next;
            state.ticket_next += 1;
            state.waiters.push_back((ticket, context.waker().clone()));
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        let place = state
            .waiters
            .binary_search_by_key(&ticket, |waiter| waiter.0)
            .expect("a waiter of this generation stays until its future removes it");
        let previous;
        let answer = if place < state.granted {
            state.granted -= 1;
            previous = state.waiters.remove(place).map(|waiter| waiter.1);
            self.ticket = None;
            Poll::Ready(())
        } else {
            previous = Some(std::mem::replace(
                &mut state.waiters[place].1,
                context.waker().clone(),
            ));
            Poll::Pending
        };
        drop(state);
        drop(previous);
        answer
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let (waiter, pass_on) = {
            let mut state = self.notify.state.borrow_mut();
            if state.generation != self.generation {
                return;
            }
            let place = state
                .waiters
                .binary_search_by_key(&ticket, |waiter| waiter.0)
                .expect("a waiter of this generation stays until its future removes it");
            let granted = place < state.granted;
            if granted {
                state.granted -= 1;
            }
            (state.waiters.remove(place), granted)
        };
        drop(waiter);
        if pass_on {
            self.notify.notify_one();
        }
    }
}

impl fmt::Debug for Notified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Notified")
    }
}
