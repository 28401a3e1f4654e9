//! A counter of permits with a queue of waiters; what [`super::Mutex`] and [`super::BoundedQueue`] stand on.
//!
//! Granted waiters stay in the queue until they are polled or dropped, and always form its front: grants go in
//! order and never skip. A waiter's place is found by binary search, since tickets only grow.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Closed;

struct Waiter {
    ticket: u64,
    permits: usize,
    waker: Waker,
}

#[derive(Default)]
struct State {
    permits: usize,
    closed: bool,
    ticket_next: u64,
    /// The first `granted` have their permits already.
    waiters: VecDeque<Waiter>,
    granted: usize,
}

impl State {
    fn place(&self, ticket: u64) -> usize {
        self.waiters
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .expect("a waiter stays in the queue until its future removes it")
    }

    fn try_take(&mut self, permits: usize) -> bool {
        let free = self.waiters.len() == self.granted && self.permits >= permits;
        if free {
            self.permits -= permits;
        }
        free
    }
}

/// The semaphore without guards: acquires fail once closed, when they would have to wait.
#[derive(Clone, Default)]
pub(super) struct RawSemaphore {
    state: Rc<RefCell<State>>,
}

impl RawSemaphore {
    pub(super) fn new(permits: usize) -> RawSemaphore {
        RawSemaphore {
            state: Rc::new(RefCell::new(State {
                permits,
                ..State::default()
            })),
        }
    }

    pub(super) fn available(&self) -> usize {
        self.state.borrow().permits
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    pub(super) fn try_acquire(&self, permits: usize) -> bool {
        self.state.borrow_mut().try_take(permits)
    }

    pub(super) fn acquire(&self, permits: usize) -> RawAcquire {
        RawAcquire {
            semaphore: self.clone(),
            permits,
            ticket: None,
        }
    }

    pub(super) fn release(&self, permits: usize) {
        self.state.borrow_mut().permits += permits;
        self.grant();
    }

    pub(super) fn close(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.borrow_mut();
            state.closed = true;
            let granted = state.granted;
            state
                .waiters
                .iter()
                .skip(granted)
                .map(|waiter| waiter.waker.clone())
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn grant(&self) {
        loop {
            let waker = {
                let mut state = self.state.borrow_mut();
                let granted = state.granted;
                let Some(waiter) = state.waiters.get(granted) else {
                    return;
                };
                let (permits, waker) = (waiter.permits, waiter.waker.clone());
                if permits > state.permits {
                    return;
                }
                state.permits -= permits;
                state.granted += 1;
                waker
            };
            waker.wake();
        }
    }
}

/// Waits for permits; the permits are the caller's to release.
pub(super) struct RawAcquire {
    semaphore: RawSemaphore,
    permits: usize,
    ticket: Option<u64>,
}

impl Future for RawAcquire {
    type Output = Result<(), Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let semaphore = self.semaphore.clone();
        let mut state = semaphore.state.borrow_mut();
        let Some(ticket) = self.ticket else {
            if state.try_take(self.permits) {
                return Poll::Ready(Ok(()));
            }
            if state.closed {
                return Poll::Ready(Err(Closed));
            }
            let ticket = state.ticket_next;
            state.ticket_next += 1;
            state.waiters.push_back(Waiter {
                ticket,
                permits: self.permits,
                waker: context.waker().clone(),
            });
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        let place = state.place(ticket);
        if place < state.granted {
            state.granted -= 1;
            let waiter = state.waiters.remove(place);
            self.ticket = None;
            drop(state);
            drop(waiter);
            return Poll::Ready(Ok(()));
        }
        if state.closed {
            let waiter = state.waiters.remove(place);
            self.ticket = None;
            drop(state);
            drop(waiter);
            return Poll::Ready(Err(Closed));
        }
        if !state.waiters[place].waker.will_wake(context.waker()) {
            let previous = std::mem::replace(&mut state.waiters[place].waker, context.waker().clone());
            drop(state);
            drop(previous);
        }
        Poll::Pending
    }
}

impl Drop for RawAcquire {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let waiter = {
            let mut state = self.semaphore.state.borrow_mut();
            let place = state.place(ticket);
            if place < state.granted {
                state.granted -= 1;
                state.permits += self.permits;
            }
            state.waiters.remove(place)
        };
        drop(waiter);
        // What was granted, or the place at the front, passes on.
        self.semaphore.grant();
    }
}

/// A counter of permits. Cheap to clone; clones share the permits.
#[derive(Clone)]
pub struct Semaphore {
    raw: RawSemaphore,
}

impl Semaphore {
    /// A semaphore that holds `permits`.
    #[must_use]
    pub fn new(permits: usize) -> Semaphore {
        Semaphore {
            raw: RawSemaphore::new(permits),
        }
    }

    /// Waits for `permits` of them, first in, first out: a large request is not starved by small ones.
    /// A request for more than will ever be there waits forever.
    pub fn acquire(&self, permits: usize) -> Acquire {
        Acquire {
            raw: self.raw.acquire(permits),
        }
    }

    /// Takes `permits` if they are there and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, permits: usize) -> Option<Permit> {
        self.raw.try_acquire(permits).then(|| Permit {
            semaphore: self.raw.clone(),
            permits,
        })
    }

    /// Adds permits that were not there before.
    pub fn add(&self, permits: usize) {
        self.raw.release(permits);
    }

    /// Permits that nobody holds or was granted.
    #[must_use]
    pub fn available(&self) -> usize {
        self.raw.available()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Semaphore({} available)", self.available())
    }
}

/// The future of [`Semaphore::acquire`].
#[must_use = "futures do nothing until awaited"]
pub struct Acquire {
    raw: RawAcquire,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        Pin::new(&mut self.raw).poll(context).map(|acquired| {
            acquired.expect("a public semaphore is never closed");
            Permit {
                semaphore: self.raw.semaphore.clone(),
                permits: self.raw.permits,
            }
        })
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Acquire({})", self.raw.permits)
    }
}

/// Permits, given back when dropped.
#[must_use = "a permit is released when dropped"]
pub struct Permit {
    semaphore: RawSemaphore,
    permits: usize,
}

impl Permit {
    /// How many.
    #[must_use]
    pub fn permits(&self) -> usize {
        self.permits
    }

    /// Keeps the permits away for good.
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// Gives all but `permits` back.
    pub fn shrink_to(&mut self, permits: usize) {
        let surplus = self.permits.saturating_sub(permits);
        self.permits -= surplus;
        self.semaphore.release(surplus);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.semaphore.release(self.permits);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Permit({})", self.permits)
    }
}
