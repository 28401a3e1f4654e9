//! The driver: the task that moves a shard's ring and timers. It lives in the foreground queue, first in, first
//! out with the handlers, so that woken handlers run first and what they ask for leaves in one batch.
//!
//! One turn:
//! 1. Take wakes from other threads. If the ring has work, one `enter`: submit everything queued, collect
//!    everything finished. Wake due timers.
//! 2. Foreground tasks are runnable: go to the back of the queue.
//! 3. Only other queues have runnable tasks: wait, so that the foreground queue costs nothing; the boundary after
//!    each of their tasks looks for completions, wakes and due timers ([`Scheduler::between_tasks`]).
//! 4. Nothing is runnable: sleep **in the ring** until a completion, the next timer, or the eventfd that other
//!    threads write ([`super::signal`]).
//!
//! glommio itself therefore never sleeps while the shard lives. It would like to: when its preempt timer has fired
//! before it runs the first task (the thread was descheduled between), its `run` believes that nothing is runnable
//! and parks until some event of its own, of which a shard that does its I/O elsewhere has none. So that timer is
//! set out of reach ([`super::start`]); queues are left after a slice of our own instead
//! ([`Scheduler::leave_queue_after_slice`]). Should glommio park for a reason not known to us, two guard timers
//! registered with it and renewed while the driver turns end that after 10 ms, or after a second.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::timer::Timer;

use crate::Moment;
use crate::real::clock;
use crate::real::ring::Operation;
use crate::real::scheduler::Scheduler;

/// Periods of the guards.
const GUARD_PERIODS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// What the driver does after a turn.
enum Next {
    Turn,
    Wait,
    End,
}

pub(super) struct Driver {
    scheduler: Rc<Scheduler>,
    eventfd: Rc<OwnedFd>,
    /// The read of the eventfd; always armed.
    wakeup: Option<Operation>,
    guards: [Guard; GUARD_PERIODS.len()],
    /// Spin this long for a completion before sleeping.
    spin: Duration,
    stopped: bool,
}

#[derive(Default)]
struct Guard {
    timer: Option<Timer>,
    due: Moment,
}

impl Driver {
    pub(super) fn new(scheduler: Rc<Scheduler>, eventfd: OwnedFd, spin: Duration) -> Driver {
        let guards = Default::default();
        Driver {
            scheduler,
            eventfd: Rc::new(eventfd),
            wakeup: None,
            guards,
            spin,
            stopped: false,
        }
    }

    /// Drives the shard until it is stopped, every task has ended and the ring is drained.
    pub(super) async fn run(mut self) {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        loop {
            match self.turn(&waker) {
                Next::Turn => {
                    waker.wake_by_ref();
                    woken_once().await;
                }
                Next::Wait => {
                    self.scheduler.driver_waits(&waker);
                    woken_once().await;
                    self.scheduler.driver_goes_on();
                }
                Next::End => break,
            }
        }
        self.wakeup = None;
        self.scheduler.ring().drain();
    }

    fn turn(&mut self, waker: &Waker) -> Next {
        let scheduler = Rc::clone(&self.scheduler);
        let ring = scheduler.ring();
        self.arm_wakeup();
        let mut now = clock::now();
        loop {
            self.take_wakes();
            if self.is_idle() && !scheduler.is_stopping() {
                self.sleep(now);
            } else if ring.has_work() {
                ring.enter(None);
            }
            ring.reap();
            self.arm_wakeup();
            self.take_wakes();
            now = clock::now();
            scheduler.timers().expire(now);
            if scheduler.is_stopping() {
                if !self.stopped {
                    self.stopped = true;
                    scheduler.stop();
                }
                if scheduler.tasks() == 0 {
                    return Next::End;
                }
            }
            if scheduler.foreground_runnable() + scheduler.others_runnable() > 0 {
                break;
            }
        }
        self.renew_guards(now, waker);
        if scheduler.foreground_runnable() == 0 {
            return Next::Wait;
        }
        if scheduler.others_runnable() > 0 {
            scheduler.leave_queue_after_slice(now);
        }
        Next::Turn
    }

    fn take_wakes(&self) {
        while let Some(task) = self.scheduler.signal().pop() {
            task.receive(&self.scheduler);
        }
    }

    fn is_idle(&self) -> bool {
        self.scheduler.foreground_runnable() + self.scheduler.others_runnable() == 0
    }

    /// Submits what is queued and sleeps until something happens. Nothing is runnable.
    fn sleep(&self, now: Moment) {
        let ring = self.scheduler.ring();
        let due = self.scheduler.timers().earliest();
        let limit = due.map(|due| due.since(now));
        if limit.is_some_and(|limit| limit.is_zero()) || !self.spin_is_fruitless(now, limit) {
            if ring.has_work() {
                ring.enter(None);
            }
            return;
        }
        let signal = self.scheduler.signal();
        if signal.prepare_sleep() {
            ring.enter(Some(limit));
            signal.end_sleep();
        }
    }

    /// Spins for a moment, if so configured, in the hope of a completion or a wake.
    fn spin_is_fruitless(&self, began: Moment, limit: Option<Duration>) -> bool {
        let spin = limit.map_or(self.spin, |limit| limit.min(self.spin));
        if spin.is_zero() {
            return true;
        }
        let ring = self.scheduler.ring();
        if ring.has_work() {
            ring.enter(None);
        }
        while clock::now().since(began) < spin {
            if ring.has_work() || !self.scheduler.signal().is_empty() {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }

    /// Keeps a read of the eventfd in the ring. Wakes themselves come through the signal's queue.
    fn arm_wakeup(&mut self) {
        if let Some(wakeup) = &mut self.wakeup {
            match Pin::new(wakeup).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => return,
                Poll::Ready(_) => self.wakeup = None,
            }
        }
        self.wakeup = self.scheduler.ring().wakeup(Rc::clone(&self.eventfd)).ok();
        if let Some(wakeup) = &mut self.wakeup {
            let _ = Pin::new(wakeup).poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Registers each guard again once half of its time has passed.
    fn renew_guards(&mut self, now: Moment, waker: &Waker) {
        for (guard, period) in self.guards.iter_mut().zip(GUARD_PERIODS) {
            if guard.due.since(now) >= period / 2 {
                continue;
            }
            // The old one is dropped first, and with it its registration.
            guard.timer = None;
            let mut timer = Timer::new(period);
            if Pin::new(&mut timer)
                .poll(&mut Context::from_waker(waker))
                .is_pending()
            {
                guard.timer = Some(timer);
            }
            guard.due = now + period;
        }
    }
}

/// Pending until the task is polled again, by whatever wakes it: a turn too many does no harm.
fn woken_once() -> impl Future<Output = ()> {
    let mut polled = false;
    poll_fn(move |_| {
        if std::mem::replace(&mut polled, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
}
