//! What a shard knows about its tasks, its ring and its timers: the state that the driver acts on.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::real::clock;
use crate::real::ring::Ring;
use crate::real::signal::Signal;
use crate::real::task::Header;
use crate::real::timers::Timers;
use crate::{Moment, Queue};

pub(super) struct Scheduler {
    signal: Arc<Signal>,
    ring: Rc<Ring>,
    timers: Rc<Timers>,
    /// Runnable tasks of the foreground queue, and of the others together.
    foreground: Cell<usize>,
    others: Cell<usize>,
    /// Tasks that have not ended, by place; and the places that are free.
    table: RefCell<Vec<Option<Arc<Header>>>>,
    free: RefCell<Vec<usize>>,
    stopping: Cell<bool>,
    /// The driver's waker while it waits for a reason to run.
    driver: RefCell<Option<Waker>>,
    waiting: Cell<bool>,
    slice: Duration,
    slice_began: Cell<Moment>,
}

impl Scheduler {
    pub(super) fn new(signal: Arc<Signal>, ring: Rc<Ring>, slice: Duration) -> Scheduler {
        Scheduler {
            signal,
            ring,
            timers: Rc::new(Timers::default()),
            foreground: Cell::new(0),
            others: Cell::new(0),
            table: RefCell::new(Vec::new()),
            free: RefCell::new(Vec::new()),
            stopping: Cell::new(false),
            driver: RefCell::new(None),
            waiting: Cell::new(false),
            slice,
            slice_began: Cell::new(Moment::default()),
        }
    }

    pub(super) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }

    pub(super) fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    pub(super) fn timers(&self) -> &Rc<Timers> {
        &self.timers
    }

    /// Changes the number of runnable tasks.
    pub(super) fn runnable(&self, queue: Queue, change: isize) {
        let count = if queue == Queue::Foreground {
            &self.foreground
        } else {
            &self.others
        };
        count.set(
            count
                .get()
                .checked_add_signed(change)
                .expect("a task is counted while it is queued"),
        );
    }

    pub(super) fn foreground_runnable(&self) -> usize {
        self.foreground.get()
    }

    pub(super) fn others_runnable(&self) -> usize {
        self.others.get()
    }

    pub(super) fn enter_table(&self, header: Arc<Header>) -> usize {
        let mut table = self.table.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or(table.len());
        if place == table.len() {
            table.push(None);
        }
        table[place] = Some(header);
        place
    }

    pub(super) fn leave_table(&self, place: usize) {
        let header = self.table.borrow_mut()[place].take();
        debug_assert!(header.is_some(), "a task leaves once");
        self.free.borrow_mut().push(place);
    }

    /// Tasks that have not ended.
    pub(super) fn tasks(&self) -> usize {
        self.table.borrow().len() - self.free.borrow().len()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// The shard is to end; the driver sees to it.
    pub(super) fn request_stop(&self) {
        self.stopping.set(true);
    }

    /// Has every task polled once more, which drops its future.
    pub(super) fn stop(&self) {
        let tasks: Vec<Arc<Header>> = self.table.borrow().iter().flatten().cloned().collect();
        for task in tasks {
            task.stop(self);
        }
    }

    /// Called after every poll of a task. Notices what came in meanwhile: a task boundary is the only moment at
    /// which one thread can change its mind.
    pub(super) fn between_tasks(&self, queue: Queue) {
        if self.waiting.get() && self.driver_is_needed() {
            self.wake_driver();
            if queue != Queue::Foreground {
                leave_queue();
                return;
            }
        }
        if queue != Queue::Foreground {
            self.leave_queue_after_slice(clock::now());
        }
    }

    fn driver_is_needed(&self) -> bool {
        self.foreground.get() + self.others.get() == 0
            || self.stopping.get()
            || self.ring.has_work()
            || !self.signal.is_empty()
            || self.timers.earliest().is_some_and(|due| due <= clock::now())
    }

    /// Lets another queue run when the running one has had its slice and another has runnable tasks.
    pub(super) fn leave_queue_after_slice(&self, now: Moment) {
        if now.since(self.slice_began.get()) >= self.slice {
            self.slice_began.set(now);
            leave_queue();
        }
    }

    /// The driver has nothing to do but other queues have: it waits for [`Scheduler::between_tasks`] to wake it.
    pub(super) fn driver_waits(&self, waker: &Waker) {
        self.waiting.set(true);
        *self.driver.borrow_mut() = Some(waker.clone());
    }

    /// The driver runs again, whatever woke it.
    pub(super) fn driver_goes_on(&self) {
        self.waiting.set(false);
        *self.driver.borrow_mut() = None;
    }

    fn wake_driver(&self) {
        self.waiting.set(false);
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Asks glommio to choose a queue anew once the running task has been polled.
fn leave_queue() {
    let executor = glommio::executor();
    let mut leave = pin!(executor.yield_task_queue_now());
    // Its first poll leaves the mark, which is all that is wanted.
    let _ = leave.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}
