//! Tasks of a shard, and their wakers.
//!
//! Every task that the runtime spawns is wrapped, so that the shard knows exactly how many of its tasks are
//! runnable. That number lets the driver sleep in the shard ring when it is zero, instead of in glommio, which may
//! park with runnable tasks (see [`super::driver`]), and it lets a shard end by dropping every task's future.
//!
//! Invariants:
//! - `queued` is true from the moment a task is woken until it is polled; the shard's count of runnable tasks is
//!   the number of queued tasks.
//! - The part of a [`Header`] that is not atomic is touched on the shard's own thread only. A waker used elsewhere
//!   sends the header there.
//! - A task's glommio waker is kept from its first poll until it ends, and never dropped elsewhere: while the
//!   task lives the shard's table holds its header.
#![expect(
    unsafe_code,
    reason = "wakers are shared between threads, the rest of a task is not"
)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::Queue;
use crate::real::scheduler::Scheduler;
use crate::real::signal::Signal;

thread_local! {
    static SCHEDULER: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
}

/// Makes `scheduler` the one of this thread; `None` when its shard ends.
pub(super) fn enter(scheduler: Option<Rc<Scheduler>>) {
    SCHEDULER.set(scheduler);
}

/// What wakers of a task point to.
pub(super) struct Header {
    signal: Arc<Signal>,
    /// The header is in the signal's queue.
    sent: AtomicBool,
    own: Own,
}

struct Own {
    queue: Queue,
    queued: Cell<bool>,
    ended: Cell<bool>,
    /// Place in the shard's table of tasks.
    place: Cell<usize>,
    inner: RefCell<Option<Waker>>,
}

// SAFETY: `own` is only accessed on the shard's thread (`wake_by_ref` checks which thread it is on). Dropped
// elsewhere it drops no waker, because `inner` is taken when the task ends, and until then the shard's table holds
// the header.
unsafe impl Send for Header {}
// SAFETY: as above; the rest is Sync by itself.
unsafe impl Sync for Header {}

impl Wake for Header {
    fn wake(self: Arc<Header>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Header>) {
        let local = SCHEDULER.try_with(|scheduler| match &*scheduler.borrow() {
            Some(scheduler) if Arc::ptr_eq(scheduler.signal(), &self.signal) => {
                self.wake_here(scheduler);
                true
            }
            _ => false,
        });
        if !local.unwrap_or(false) && !self.sent.swap(true, Ordering::AcqRel) {
            self.signal.push(Arc::clone(self));
        }
    }
}

impl Header {
    /// Makes the task runnable; on its own shard only.
    fn wake_here(&self, scheduler: &Scheduler) {
        if self.own.ended.get() || self.own.queued.replace(true) {
            return;
        }
        scheduler.runnable(self.own.queue, 1);
        if let Some(inner) = &*self.own.inner.borrow() {
            inner.wake_by_ref();
        }
    }

    /// Takes a wake that came through the signal.
    pub(super) fn receive(&self, scheduler: &Scheduler) {
        // Acquires what every waker that found the mark set did before.
        self.sent.swap(false, Ordering::AcqRel);
        self.wake_here(scheduler);
    }

    /// Has the task polled once more, as the scheduler asks when the shard ends.
    pub(super) fn stop(&self, scheduler: &Scheduler) {
        self.wake_here(scheduler);
    }
}

/// A future as glommio sees it.
pub(super) struct Task<F> {
    scheduler: Rc<Scheduler>,
    header: Arc<Header>,
    waker: Waker,
    future: Option<F>,
}

impl<F: Future<Output = ()> + 'static> Task<F> {
    /// Counts the task as runnable: it must be given to glommio at once.
    pub(super) fn new(scheduler: &Rc<Scheduler>, queue: Queue, future: F) -> Task<F> {
        let header = Arc::new(Header {
            signal: Arc::clone(scheduler.signal()),
            sent: AtomicBool::new(false),
            own: Own {
                queue,
                queued: Cell::new(true),
                ended: Cell::new(false),
                place: Cell::new(0),
                inner: RefCell::new(None),
            },
        });
        header.own.place.set(scheduler.enter_table(Arc::clone(&header)));
        scheduler.runnable(queue, 1);
        let waker = Waker::from(Arc::clone(&header));
        Task {
            scheduler: Rc::clone(scheduler),
            header,
            waker,
            future: Some(future),
        }
    }
}

impl<F> Task<F> {
    fn end(&mut self) {
        let own = &self.header.own;
        if own.ended.replace(true) {
            return;
        }
        if own.queued.replace(false) {
            self.scheduler.runnable(own.queue, -1);
        }
        own.inner.take();
        self.scheduler.leave_table(own.place.get());
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is never moved: it is pinned in place below, and dropped in place by assigning None.
        let this = unsafe { self.get_unchecked_mut() };
        let own = &this.header.own;
        if own.queued.replace(false) {
            this.scheduler.runnable(own.queue, -1);
        }
        {
            let mut inner = own.inner.borrow_mut();
            match &mut *inner {
                Some(inner) => inner.clone_from(context.waker()),
                None => *inner = Some(context.waker().clone()),
            }
        }
        let queue = own.queue;
        let polled = if this.scheduler.is_stopping() {
            Poll::Ready(())
        } else if let Some(future) = &mut this.future {
            // SAFETY: a field of a pinned value that is not moved.
            unsafe { Pin::new_unchecked(future) }.poll(&mut Context::from_waker(&this.waker))
        } else {
            Poll::Ready(())
        };
        if polled.is_ready() {
            this.future = None;
            this.end();
        }
        this.scheduler.between_tasks(queue);
        polled
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        self.end();
    }
}
