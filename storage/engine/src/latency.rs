//! How long a drive takes, and whether it is slow.
//!
//! **Slow** is what another drive is not: a drive that one waits for [`SLOW_RATIO`] times as long as for the fastest other, and
//! longer than [`SLOW_MIN`]. Where all are slow, none is.
//! 1. Every operation moves an estimate: an eighth of the way up, half of the way down. A few bad ones do not make a drive slow,
//!    and it is trusted again after a few good ones, at half of what made it slow.
//! 2. A drive with operations in flight of which none has ended for [`STALL`], or for [`SLOW_RATIO`] times its estimate, is
//!    stalled. It is slow for as long as that lasts, and until its estimate says otherwise.
//! 3. Reads go round a slow drive, so nothing moves its estimate: every [`PROBE_EVERY`] one read that another drive has answered
//!    is repeated there, in the background. Log files go elsewhere if they can; what is known of its writes is forgotten after
//!    [`FORGET_AFTER`], so that it is tried again.
//! 4. Who waits for a read for longer than [`Speed::patience`] asks another drive as well.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use cairn_runtime::Moment;

/// How many times as long as for the fastest other drive.
const SLOW_RATIO: u32 = 4;
/// No drive is slow below this: it is what a request may feel without missing its objective.
const SLOW_MIN: Duration = Duration::from_millis(2);
/// How long a drive may let all its operations wait: ten times what a flash drive takes for its slowest, an erase.
const STALL: Duration = Duration::from_millis(50);
/// Time between two looks at a slow drive.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long nothing may have been written to a drive before what is known of its writes is worth nothing.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Least time that a read is waited for before another drive is asked: half of what a request may take, so that the other
/// drive has the other half.
const PATIENCE_MIN: Duration = Duration::from_millis(5);
/// Bytes that any drive reads in a microsecond: patience for long reads.
const BYTES_PER_US: u64 = 64;
/// Longer reads move no estimate: how long they take depends on how long they are.
pub(crate) const ESTIMATED_BYTES_MAX: usize = 64 << 10;

/// Upper bounds of the buckets of [`Latencies`] in microseconds; the last bucket has none.
pub const BOUNDS_US: [u64; 14] = [
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 2_000_000,
];

/// How often a drive took how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latencies {
    /// Operations by the least of [`BOUNDS_US`] that they did not exceed.
    pub buckets: [u64; BOUNDS_US.len() + 1],
    /// Microseconds of all together.
    pub sum_us: u64,
}

impl Latencies {
    /// One operation took so long.
    pub fn add(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Takes in what another has counted.
    pub fn merge(&mut self, other: &Latencies) {
        for (count, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Operations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What is known of the speed of one drive, of one kind of operation.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    latencies: RefCell<Latencies>,
    estimate: Cell<Duration>,
    in_flight: Cell<u32>,
    /// When an operation last ended, or the first of those in flight began.
    progress_at: Cell<Option<Moment>>,
    probed_at: Cell<Option<Moment>>,
    slow: Cell<bool>,
}

impl Speed {
    /// Operations in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        *self.latencies.borrow()
    }

    /// What an operation is expected to take; zero before the first.
    pub(crate) fn estimate(&self) -> Duration {
        self.estimate.get()
    }

    /// How long a read of so many bytes is waited for before another drive is asked as well.
    pub(crate) fn patience(&self, bytes: usize) -> Duration {
        let length = Duration::from_micros(bytes as u64 / BYTES_PER_US);
        PATIENCE_MIN.max(self.estimate.get() * SLOW_RATIO) + length
    }

    pub(crate) fn began(&self, now: Moment) {
        if self.in_flight.get() == 0 {
            self.progress_at.set(Some(now));
        }
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// One in flight has got its answer.
    pub(crate) fn answered(&self, now: Moment) {
        self.progress_at.set(Some(now));
    }

    /// One is no longer in flight: it has got its answer, or whoever began it has gone.
    pub(crate) fn left(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }

    /// Counts an operation that took so long.
    pub(crate) fn count(&self, took: Duration) {
        self.latencies.borrow_mut().add(took);
    }

    /// An operation like those of the other drives took so long, and the fastest of them is expected to take `others`, if
    /// there is one. Whether the drive has become slow, or has ceased to be, by it.
    pub(crate) fn took(&self, took: Duration, others: Option<Duration>) -> bool {
        let before = self.estimate.get();
        let estimate = if took > before {
            before + (took - before) / 8
        } else {
            before - (before - took) / 2
        };
        self.estimate.set(estimate);
        let Some(others) = others else {
            return self.slow.replace(false);
        };
        let limit = SLOW_MIN.max(others * SLOW_RATIO);
        let slow = match self.slow.get() {
            true => estimate > limit / 2,
            false => estimate > limit,
        };
        self.slow.replace(slow) != slow
    }

    /// Whether one had better go elsewhere.
    pub(crate) fn is_slow(&self, now: Moment) -> bool {
        self.slow.get() || self.is_stalled(now)
    }

    pub(crate) fn is_stalled(&self, now: Moment) -> bool {
        let limit = STALL.max(self.estimate.get() * SLOW_RATIO);
        let waits = |since: Moment| now.since(since) > limit;
        self.in_flight.get() > 0 && self.progress_at.get().is_some_and(waits)
    }

    /// Another drive answers and this one does not. Whether that is news.
    pub(crate) fn stalls(&self) -> bool {
        !self.slow.replace(true)
    }

    /// Forgets that it is slow when nothing is in flight and nothing has ended for a long time.
    pub(crate) fn forget(&self, now: Moment) {
        let long_ago = |ended: Moment| now.since(ended) > FORGET_AFTER;
        if self.in_flight.get() == 0 && self.progress_at.get().is_some_and(long_ago) {
            self.slow.set(false);
            self.estimate.set(Duration::ZERO);
        }
    }

    /// Whether a read is to be repeated there now.
    pub(crate) fn wants_probe(&self, now: Moment) -> bool {
        let recent = |probed: Moment| now.since(probed) < PROBE_EVERY;
        let wants = self.slow.get() && self.in_flight.get() == 0 && !self.probed_at.get().is_some_and(recent);
        if wants {
            self.probed_at.set(Some(now));
        }
        wants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(ms: u64) -> Moment {
        Moment {
            nanoseconds: ms * 1_000_000,
        }
    }

    #[test]
    fn what_takes_longer_than_the_others_is_slow_until_it_does_not() {
        let speed = Speed::default();
        assert!(!speed.took(ms(100), Some(ms(10))), "once is nothing");
        let mut reads = 0;
        while !speed.took(ms(100), Some(ms(10))) {
            reads += 1;
        }
        assert!((1..8).contains(&reads) && speed.is_slow(at(0)));
        reads = 0;
        while !speed.took(ms(10), Some(ms(10))) {
            reads += 1;
        }
        assert!((1..6).contains(&reads) && !speed.is_slow(at(0)));
        // Where the others are no better, or there are none, it is not.
        for others in [Some(ms(50)), None] {
            let speed = Speed::default();
            assert!((0..100).all(|_| !speed.took(ms(100), others)));
        }
        let quick = Speed::default();
        let all = (0..100).all(|_| !quick.took(ms(1), Some(Duration::from_micros(50))));
        assert!(all, "a millisecond is not slow");
    }

    #[test]
    fn a_drive_that_lets_its_reads_wait_is_slow_until_one_ends() {
        let speed = Speed::default();
        speed.began(at(0));
        speed.began(at(40));
        speed.began(at(41));
        assert!(!speed.is_slow(at(50)) && speed.is_slow(at(51)));
        speed.left();
        assert!(speed.is_slow(at(60)), "that somebody gave up is no answer");
        speed.answered(at(60));
        speed.left();
        assert!(!speed.is_slow(at(100)));
        speed.answered(at(110));
        speed.left();
        assert!(!speed.is_slow(at(10_000)), "nothing waits");
        assert!(speed.stalls() && !speed.stalls(), "news once");
        assert!(speed.wants_probe(at(10_000)) && !speed.wants_probe(at(10_999)));
        assert!(speed.wants_probe(at(11_000)));
        speed.forget(at(60_110));
        assert!(speed.is_slow(at(60_110)));
        speed.forget(at(60_111));
        assert!(!speed.is_slow(at(60_111)));
    }

    #[test]
    fn where_reads_take_long_one_waits_longer() {
        let speed = Speed::default();
        assert_eq!(speed.patience(8_192), Duration::from_micros(5_128));
        assert_eq!(speed.patience(512 << 10), Duration::from_micros(5_000 + 8_192));
        for _ in 0..100 {
            speed.took(ms(40), Some(ms(40)));
        }
        assert!(speed.patience(0) > ms(150) && !speed.is_slow(at(0)));
        speed.began(at(0));
        assert!(!speed.is_stalled(at(150)) && speed.is_stalled(at(161)));
    }

    #[test]
    fn each_bucket_ends_with_its_bound() {
        let mut latencies = Latencies::default();
        for us in [20, 21, 2_000_000, 2_000_001] {
            latencies.add(Duration::from_micros(us));
        }
        assert_eq!(latencies.buckets[..2], [1, 1]);
        assert_eq!(latencies.buckets[BOUNDS_US.len() - 1..], [1, 1]);
        let mut twice = latencies;
        twice.merge(&latencies);
        assert_eq!((twice.count(), twice.sum_us), (8, 8_000_084));
    }
}
