//! How long a drive takes, and whether it is slow.
//!
//! **Slow** is what another drive is not: a drive that one waits for [`SLOW_RATIO`] times as long as for the fastest other, and
//! longer than [`SLOW_MIN`]. Where all are slow, none is.
//! 1. Every operation moves an estimate: an eighth of the way up, half of the way down, and none counts for more than
//!    [`OUTLIER_RATIO`] times what makes a drive slow. Two bad ones do not make it slow, however bad.
//! 2. A drive with operations in flight of which none has ended for [`STALL`], or for [`SLOW_RATIO`] times its estimate, is
//!    stalled. It is slow for as long as that lasts, and if another drive answered meanwhile, until it is trusted again.
//! 3. It is trusted again when the estimate is half of what made it slow, [`GOOD_MIN`] operations one after the other were as
//!    quick as that, and [`WAIT_MIN`] have passed since the last that was not. Who is slow again within [`RELAPSE`] waits twice
//!    as long, up to [`WAIT_MAX`]: a drive that is good for some moments and bad for others is gone round nearly all of the time.
//! 4. Reads go round a slow drive, so nothing moves its estimate: every [`PROBE_EVERY`] one read that another drive has answered
//!    is repeated there, in the background. Log files go elsewhere if they can; what is known of its writes is forgotten after
//!    [`FORGET_AFTER`], or the wait if that is longer, so that it is tried again.
//! 5. Who waits for a read for longer than [`Speed::patience`] asks another drive as well.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use cairn_runtime::Moment;

/// How many times as long as for the fastest other drive.
const SLOW_RATIO: u32 = 4;
/// No drive is slow below this: it is what a request may feel without missing its objective.
const SLOW_MIN: Duration = Duration::from_millis(2);
/// What takes longer than so many times what makes a drive slow counts as if it took that.
const OUTLIER_RATIO: u32 = 4;
/// Operations in time, one after the other, before a slow drive is trusted again.
const GOOD_MIN: u32 = 3;
/// How long a slow drive must have been in time before it is trusted again, the first time.
const WAIT_MIN: Duration = Duration::from_secs(4);
/// The same for one that was slow again and again.
const WAIT_MAX: Duration = Duration::from_secs(256);
/// A drive that is slow again so soon after it was trusted has its wait doubled.
const RELAPSE: Duration = Duration::from_secs(600);
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

/// What a slow drive has shown since.
#[derive(Debug, Clone, Copy)]
struct Distrust {
    /// When it last was late.
    late_at: Moment,
    /// Operations in time since then.
    good: u32,
}

impl Distrust {
    fn late(now: Moment) -> Distrust {
        Distrust {
            late_at: now,
            good: 0,
        }
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
    /// The last operation that ended took less than [`STALL`].
    prompt: Cell<bool>,
    /// It is slow.
    slow: Cell<Option<Distrust>>,
    /// How long it must have been in time, since it last became slow.
    wait: Cell<Duration>,
    /// When it last ceased to be slow.
    trusted_at: Cell<Option<Moment>>,
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
        self.prompt.set(took < STALL);
    }

    /// An operation like those of the other drives took so long, and the fastest of them is expected to take `others`, if
    /// there is one. Whether the drive has become slow, or has ceased to be, by it.
    pub(crate) fn took(&self, now: Moment, took: Duration, others: Option<Duration>) -> bool {
        let limit = others.map(|others| SLOW_MIN.max(others * SLOW_RATIO));
        let counted = limit.map_or(took, |limit| took.min(limit * OUTLIER_RATIO));
        let before = self.estimate.get();
        let estimate = if counted > before {
            before + (counted - before) / 8
        } else {
            before - (before - counted) / 2
        };
        self.estimate.set(estimate);
        let Some(limit) = limit else {
            return self.trust(now);
        };
        let Some(seen) = self.slow.get() else {
            return estimate > limit && self.distrust(now);
        };
        if took > limit / 2 {
            self.slow.set(Some(Distrust::late(now)));
            return false;
        }
        let good = seen.good.saturating_add(1);
        self.slow.set(Some(Distrust { good, ..seen }));
        let waited = now.since(seen.late_at) >= self.wait.get();
        waited && good >= GOOD_MIN && estimate <= limit / 2 && self.trust(now)
    }

    /// From now on it is slow. Whether that is news.
    fn distrust(&self, now: Moment) -> bool {
        if self.slow.get().is_some() {
            self.slow.set(Some(Distrust::late(now)));
            return false;
        }
        let soon = |trusted: Moment| now.since(trusted) < RELAPSE;
        let wait = match self.trusted_at.get().is_some_and(soon) {
            true => (self.wait.get() * 2).clamp(WAIT_MIN, WAIT_MAX),
            false => WAIT_MIN,
        };
        self.wait.set(wait);
        self.slow.set(Some(Distrust::late(now)));
        true
    }

    /// From now on it is not slow. Whether that is news.
    fn trust(&self, now: Moment) -> bool {
        let was = self.slow.take().is_some();
        if was {
            self.trusted_at.set(Some(now));
        }
        was
    }

    /// Whether one had better go elsewhere.
    pub(crate) fn is_slow(&self, now: Moment) -> bool {
        self.slow.get().is_some() || self.is_stalled(now)
    }

    /// Where one had better go first is less: 0 to a drive that is trusted, 1 to one that was in time of late, 2 to one that is late.
    pub(crate) fn rank(&self, now: Moment) -> u8 {
        match self.slow.get() {
            _ if self.is_stalled(now) => 2,
            Some(seen) => 1 + u8::from(seen.good == 0),
            None => 0,
        }
    }

    pub(crate) fn is_stalled(&self, now: Moment) -> bool {
        let limit = STALL.max(self.estimate.get() * SLOW_RATIO);
        let waits = |since: Moment| now.since(since) > limit;
        self.in_flight.get() > 0 && self.progress_at.get().is_some_and(waits)
    }

    /// Whether it is one to which another drive that lets its operations wait compares badly: trusted, and its last answer
    /// did not wait for the end of a stall itself.
    pub(crate) fn is_prompt(&self, now: Moment) -> bool {
        self.prompt.get() && !self.is_slow(now)
    }

    /// Another drive answers and this one does not. Whether that is news.
    pub(crate) fn stalls(&self, now: Moment) -> bool {
        self.distrust(now)
    }

    /// Forgets that it is slow when nothing is in flight and nothing has ended for a long time.
    pub(crate) fn forget(&self, now: Moment) {
        let long_ago = |ended: Moment| now.since(ended) > FORGET_AFTER.max(self.wait.get());
        if self.in_flight.get() == 0 && self.progress_at.get().is_some_and(long_ago) {
            self.trust(now);
            self.estimate.set(Duration::ZERO);
        }
    }

    /// Whether a read is to be repeated there now.
    pub(crate) fn wants_probe(&self, now: Moment) -> bool {
        let recent = |probed: Moment| now.since(probed) < PROBE_EVERY;
        let wants = self.slow.get().is_some()
            && self.in_flight.get() == 0
            && !self.probed_at.get().is_some_and(recent);
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

    /// Reads that are in time, one a second, until the drive is trusted: how many.
    fn reads_until_trusted(speed: &Speed, from_ms: u64) -> u64 {
        let read = |second: &u64| speed.took(at(from_ms + second * 1_000), ms(1), Some(ms(10)));
        (1..10_000).find(read).expect("it is trusted again")
    }

    #[test]
    fn what_takes_longer_than_the_others_is_slow() {
        let speed = Speed::default();
        let mut reads = 1;
        while !speed.took(at(0), ms(100), Some(ms(10))) {
            reads += 1;
        }
        assert!((3..8).contains(&reads) && speed.is_slow(at(0)), "{reads}");
        // However long two take, it needs a third.
        let speed = Speed::default();
        let long = [0, 1, 2].map(|_| speed.took(at(0), ms(60_000), Some(ms(10))));
        assert_eq!(long, [false, false, true]);
        // Where the others are no better, or there are none, it is not.
        for others in [Some(ms(50)), None] {
            let speed = Speed::default();
            assert!((0..100).all(|_| !speed.took(at(0), ms(100), others)));
        }
        let quick = Speed::default();
        let all = (0..100).all(|_| !quick.took(at(0), ms(1), Some(Duration::from_micros(50))));
        assert!(all, "a millisecond is not slow");
    }

    #[test]
    fn a_slow_drive_is_trusted_when_it_was_in_time_for_a_while() {
        let slow = || {
            let speed = Speed::default();
            while !speed.took(at(0), ms(60_000), Some(ms(10))) {}
            speed
        };
        let speed = slow();
        let at_once = (0..100).any(|_| speed.took(at(3_999), ms(10), Some(ms(10))));
        assert!(!at_once, "however many are in time");
        assert!(speed.took(at(4_000), ms(10), Some(ms(10))) && !speed.is_slow(at(4_000)));
        // The time begins anew with each one that is late.
        let speed = slow();
        for second in 1..60 {
            let took = if second % 3 == 0 { ms(30) } else { ms(10) };
            assert!(!speed.took(at(second * 1_000), took, Some(ms(10))), "{second}");
        }
        // Where all are slow, one that is in time is better than one that is not.
        let speed = slow();
        assert_eq!(speed.rank(at(0)), 2);
        speed.took(at(100), ms(10), Some(ms(10)));
        assert_eq!((speed.rank(at(100)), Speed::default().rank(at(100))), (1, 0));
        speed.began(at(100));
        assert_eq!((speed.rank(at(120)), speed.rank(at(60_000))), (1, 2));
        // Time alone is nothing.
        let speed = slow();
        let answers = [60_000, 60_001, 60_002].map(|now| speed.took(at(now), ms(10), Some(ms(10))));
        assert_eq!(answers, [false, false, true]);
        // A drive that is alone has nobody to be slower than.
        assert!(slow().took(at(1), ms(10), None));
    }

    #[test]
    fn a_drive_that_is_slow_again_and_again_waits_twice_as_long_each_time() {
        let speed = Speed::default();
        let mut now_ms = 0;
        let relapse = |now_ms| while !speed.took(at(now_ms), ms(500), Some(ms(10))) {};
        let mut waits = Vec::new();
        for _ in 0..9 {
            relapse(now_ms);
            let reads = reads_until_trusted(&speed, now_ms);
            waits.push(reads);
            now_ms += (reads + 1) * 1_000;
        }
        assert_eq!(waits, [4, 8, 16, 32, 64, 128, 256, 256, 256]);
        // What was good for long begins anew.
        now_ms += 600_000;
        relapse(now_ms);
        assert_eq!(reads_until_trusted(&speed, now_ms), 4);
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
        assert!(speed.stalls(at(110)) && !speed.stalls(at(111)), "news once");
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
            speed.took(at(0), ms(40), Some(ms(40)));
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
