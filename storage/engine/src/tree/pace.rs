//! How fast compaction may go, by what requests feel of it.
//!
//! 1. Whoever waits for a drive in the foreground tells how long it took: [`Pace::felt`]. More than one in
//!    [`SLOW_PART`] above [`SLOW`] in an interval is too much: that is a p99.
//! 2. After each interval the rate falls by a quarter if it was too much, else it rises by an eighth; between
//!    [`RATE_MIN`] and [`RATE_MAX`]. It falls faster than it rises, because a compaction can wait and a request cannot.
//! 3. Compaction need not be faster than its debt asks for: what is due is merged within [`PAY_SECONDS`] or so, instead of as fast
//!    as the core can and then nothing for seconds, of which requests feel the first part. The beginning of a merge, copies for
//!    another drive, and merges although nothing is due, for another key, have no such limit.
//! 4. While writers outrun compaction, it must not be slow for their sake: the trees' level 0 sets a least rate,
//!    nothing up to [`LEVEL0_CALM`] segments and the full rate from [`LEVEL0_URGENT`] on, before writes are delayed.
//! 5. [`Pace::spend`] answers how long to sleep so that the rate is kept, in steps of [`STEP`] or more: shorter sleeps
//!    are not worth their timer.

use std::cell::Cell;
use std::time::Duration;

use cairn_runtime::Moment;

/// What a request may feel: half of the p99 that a node is to keep at its usual load.
const SLOW: Duration = Duration::from_millis(3);

/// One in so many may feel more.
const SLOW_PART: u64 = 100;

/// How often the rate is set anew.
const INTERVAL: Duration = Duration::from_millis(100);

/// Least rate in bytes merged per second: a tree of 10 GB is rewritten in a quarter of an hour.
pub const RATE_MIN: u64 = 12 << 20;

/// Greatest rate: more than a core merges.
pub const RATE_MAX: u64 = 2 << 30;

/// Seconds within which compaction would merge what is due, if that were all that it had to read: what it is merged with takes as
/// long again or twice. Four flushes of 32 MiB give 64 MiB/s, where a node at its peak merged 24 MB/s in the mean of ten minutes.
const PAY_SECONDS: u64 = 2;

/// Segments in level 0 up to which compaction may be slow.
const LEVEL0_CALM: usize = 5;

/// Segments in level 0 from which it is not held back.
const LEVEL0_URGENT: usize = 10;

/// Shortest sleep.
const STEP: Duration = Duration::from_millis(1);

/// The rate at which one engine compacts.
#[derive(Debug)]
pub struct Pace {
    rate: Cell<u64>,
    /// When what was spent will have been earned.
    earned_at: Cell<Moment>,
    interval_began: Cell<Moment>,
    felt: Cell<u64>,
    felt_slow: Cell<u64>,
    level0: Cell<usize>,
    debt: Cell<u64>,
}

impl Default for Pace {
    fn default() -> Pace {
        let beginning = Moment { nanoseconds: 0 };
        Pace {
            rate: Cell::new(RATE_MAX / 8),
            earned_at: Cell::new(beginning),
            interval_began: Cell::new(beginning),
            felt: Cell::new(0),
            felt_slow: Cell::new(0),
            level0: Cell::new(0),
            debt: Cell::new(0),
        }
    }
}

impl Pace {
    /// A request waited so long for a drive.
    pub fn felt(&self, waited: Duration) {
        self.felt.set(self.felt.get() + 1);
        self.felt_slow
            .set(self.felt_slow.get() + u64::from(waited > SLOW));
    }

    /// Segments in the longest level 0 of the engine's trees, and the bytes that are due to be merged in all of them.
    pub fn set_due(&self, level0_segments: usize, debt_bytes: u64) {
        self.level0.set(level0_segments);
        self.debt.set(debt_bytes);
    }

    /// Bytes per second at present, for work that is slow to pay a debt (rule 3) or not.
    #[must_use]
    pub fn rate(&self, by_debt: bool) -> u64 {
        let urgency = self.level0.get().clamp(LEVEL0_CALM, LEVEL0_URGENT) - LEVEL0_CALM;
        let least = RATE_MAX / (LEVEL0_URGENT - LEVEL0_CALM) as u64 * urgency as u64;
        let wanted = match self.debt.get() {
            debt if by_debt && debt > 0 => (debt / PAY_SECONDS).max(RATE_MIN),
            _ => RATE_MAX,
        };
        self.rate.get().min(wanted).max(least)
    }

    /// So many bytes have been merged, or copied: how long to sleep before the next, if at all.
    pub fn spend(&self, now: Moment, bytes: u64, by_debt: bool) -> Option<Duration> {
        if now.since(self.interval_began.get()) >= INTERVAL {
            let too_much = self.felt_slow.get() * SLOW_PART > self.felt.get();
            let rate = self.rate.get();
            let rate = if too_much { rate / 4 * 3 } else { rate + rate / 8 };
            self.rate.set(rate.clamp(RATE_MIN, RATE_MAX));
            self.interval_began.set(now);
            self.felt.set(0);
            self.felt_slow.set(0);
        }
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / self.rate(by_debt));
        let earned_at = self.earned_at.get().max(now) + cost;
        self.earned_at.set(earned_at);
        let ahead = earned_at.since(now);
        (ahead >= STEP).then_some(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment {
            nanoseconds: ms * 1_000_000,
        }
    }

    /// Bytes that are merged within a second when every sleep is kept, with these latencies felt each millisecond.
    fn merged(pace: &Pace, from_ms: u64, felt: impl Fn(u64) -> Duration) -> u64 {
        let mut bytes = 0;
        let mut free_at = at(from_ms);
        for ms in from_ms..from_ms + 1_000 {
            pace.felt(felt(ms));
            while free_at <= at(ms) {
                bytes += 64 << 10;
                let sleep = pace.spend(at(ms), 64 << 10, true);
                free_at = at(ms) + sleep.unwrap_or(Duration::from_micros(20));
                if bytes > 8 << 30 {
                    return bytes;
                }
            }
        }
        bytes
    }

    #[test]
    fn it_falls_while_requests_feel_it_and_rises_again() {
        let pace = Pace::default();
        let begun = pace.rate(true);
        let slow = |ms: u64| Duration::from_millis(if ms.is_multiple_of(50) { 20 } else { 0 });
        (0..8).for_each(|second| {
            merged(&pace, second * 1_000, slow);
        });
        assert_eq!(pace.rate(true), RATE_MIN, "one in fifty is more than a p99");
        let rare = |ms: u64| Duration::from_millis(if ms.is_multiple_of(200) { 20 } else { 0 });
        (8..20).for_each(|second| {
            merged(&pace, second * 1_000, rare);
        });
        assert!(pace.rate(true) > begun, "one in two hundred is not");
    }

    #[test]
    fn the_rate_is_kept() {
        let pace = Pace::default();
        let slow = |_: u64| Duration::from_millis(10);
        (0..8).for_each(|second| {
            merged(&pace, second * 1_000, slow);
        });
        let bytes = merged(&pace, 8_000, slow);
        // Sleeps end with the next millisecond here, so that some of it is lost.
        assert!(
            (RATE_MIN / 4 * 3..RATE_MIN + (64 << 10)).contains(&bytes),
            "{bytes}"
        );
    }

    #[test]
    fn writers_that_outrun_it_set_it_free() {
        let pace = Pace::default();
        pace.rate.set(RATE_MIN);
        let rates = [0, 5, 6, 8, 10, 50].map(|segments| {
            pace.set_due(segments, 0);
            pace.rate(true) >> 20
        });
        assert_eq!(rates, [12, 12, 409, 1228, 2047, 2047]);
    }

    #[test]
    fn it_is_no_faster_than_its_debt_asks_for() {
        let pace = Pace::default();
        let begun = pace.rate(true);
        let rates = [1 << 20, 128 << 20, 10 << 30].map(|debt| {
            pace.set_due(LEVEL0_CALM, debt);
            pace.rate(true)
        });
        assert_eq!(rates, [RATE_MIN, 64 << 20, begun]);
        let bytes = {
            pace.set_due(LEVEL0_CALM, 128 << 20);
            merged(&pace, 0, |_| Duration::ZERO)
        };
        assert!((60 << 20..68 << 20).contains(&bytes), "{bytes}");
        pace.set_due(LEVEL0_URGENT, 128 << 20);
        assert_eq!(pace.rate(true) >> 20, 2047, "writers do not wait for it");
        pace.set_due(LEVEL0_CALM, 1 << 20);
        assert_eq!(pace.rate(false), pace.rate.get(), "copies are no debt");
    }
}
