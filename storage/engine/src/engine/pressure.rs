//! Back-pressure: how long a write waits before it may be proposed.
//!
//! The resource that writes exhaust first is the memtable budget. Up to half of it nothing happens; from half a
//! background flush makes room; from three quarters on writes pass a **gate** that lets them through one after the other at
//! a rate reckoned from that of the flushes: twice that at three quarters, as much at 88 %, a fiftieth just before
//! the whole budget, in a straight line. So the memtables settle where what comes in is what goes out, and nobody meets the
//! stall behind it unless flushes stop altogether. A delay per write instead would slow one writer and not a thousand.
//!
//! The other is the patience of readers: flushes that compaction does not keep up with gather in level 0, where a read
//! asks every one of them. From [`LEVEL0_SLOW`] on, writes to that partition are delayed by a square law. That bounds
//! deeper levels too: compaction takes whichever level is furthest beyond its target.
//!
//! docs/decisions/0005 has the curves.

use std::cell::Cell;
use std::time::Duration;

use cairn_runtime::Moment;

/// Delay of one write by a level 0 of twice [`LEVEL0_SLOW`]. Some ten group commits on the drive of record.
const LEVEL0_DELAY: Duration = Duration::from_millis(2);

/// Segments in level 0 from which writes are delayed: three times as many as make a compaction due.
pub(super) const LEVEL0_SLOW: usize = 12;

/// Segments in level 0 from which a tree is compacted before all others.
pub(super) const LEVEL0_URGENT: usize = 8;

/// Longest delay of one write by its partition's level 0, reached with 72 segments.
const LEVEL0_DELAY_MAX: Duration = Duration::from_millis(50);

/// What a write must do first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pressure {
    /// Go on.
    None,
    /// Pass the gate, then go on.
    Slow,
    /// Wait until memory has been freed.
    Stall,
}

/// Memory above which a flush is wanted.
pub(super) fn flush_above(budget_bytes: usize) -> usize {
    budget_bytes / 2
}

fn slow_above(budget_bytes: usize) -> usize {
    budget_bytes / 4 * 3
}

pub(super) fn pressure(used_bytes: usize, budget_bytes: usize) -> Pressure {
    if used_bytes <= slow_above(budget_bytes) {
        Pressure::None
    } else if used_bytes < budget_bytes {
        Pressure::Slow
    } else {
        Pressure::Stall
    }
}

/// Longest wait at the gate.
const GATE_WAIT_MAX: Duration = Duration::from_millis(100);

/// Least rate of the gate in bytes per second, and the one before the first flush has ended.
const GATE_RATE_MIN: u64 = 1 << 20;
const GATE_RATE_FIRST: u64 = 64 << 20;

/// Lets writes through one after the other while memory is short.
#[derive(Debug)]
pub(super) struct Gate {
    /// Bytes that flushes free per second.
    flush_rate: Cell<u64>,
    /// By how much a write makes the memtables grow.
    write_bytes: Cell<u64>,
    /// When the last one in line passes.
    passed: Cell<Moment>,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            flush_rate: Cell::new(GATE_RATE_FIRST),
            write_bytes: Cell::new(1 << 10),
            passed: Cell::new(Moment { nanoseconds: 0 }),
        }
    }
}

impl Gate {
    /// A flush took so long for so many bytes, which so many writes had filled.
    pub(super) fn flushed(&self, bytes: usize, writes: u64, took: Duration) {
        let nanoseconds = took.as_nanos().max(1);
        let rate = u64::try_from(bytes as u128 * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX);
        // A mean of the last few: one slow flush is no trend.
        let mean = |before: u64, now: u64| before / 4 * 3 + now / 4;
        self.flush_rate
            .set(mean(self.flush_rate.get(), rate).max(GATE_RATE_MIN));
        if let Some(growth) = (bytes as u64).checked_div(writes) {
            self.write_bytes.set(mean(self.write_bytes.get(), growth).max(64));
        }
    }

    /// The rate with so much memory in use, in bytes per second: 2 to 0.02 times that of the flushes.
    fn rate(&self, used_bytes: usize, budget_bytes: usize) -> u64 {
        let slow_above = slow_above(budget_bytes);
        let over = used_bytes.saturating_sub(slow_above) as u128;
        let whole = (budget_bytes - slow_above).max(1) as u128;
        let permille = 2_000 - (over * 1_980 / whole).min(1_980);
        u64::try_from(u128::from(self.flush_rate.get()) * permille / 1_000).unwrap_or(u64::MAX)
    }

    /// How long the next write waits for its turn.
    pub(super) fn wait(&self, now: Moment, used_bytes: usize, budget_bytes: usize) -> Duration {
        let rate = self.rate(used_bytes, budget_bytes).max(1);
        let turn = Duration::from_nanos(self.write_bytes.get().saturating_mul(1_000_000_000) / rate);
        let passes = self.passed.get().max(now) + turn;
        let passes = passes.min(now + GATE_WAIT_MAX);
        self.passed.set(passes);
        passes.since(now)
    }
}

/// How long a write to a partition waits that has so many segments in level 0: [`LEVEL0_DELAY`] at twice
/// [`LEVEL0_SLOW`].
pub(super) fn level0_delay(segments: usize) -> Duration {
    let over = segments.saturating_sub(LEVEL0_SLOW) as u64;
    let slow = LEVEL0_SLOW as u64;
    let delay_us = u64::try_from(LEVEL0_DELAY.as_micros()).expect("short") * over * over / (slow * slow);
    Duration::from_micros(delay_us).min(LEVEL0_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Moment {
        Moment {
            nanoseconds: us * 1_000,
        }
    }

    #[test]
    fn the_gate_is_between_three_quarters_and_the_whole() {
        let rows = [
            (0, Pressure::None),
            (750, Pressure::None),
            (751, Pressure::Slow),
            (999, Pressure::Slow),
            (1000, Pressure::Stall),
            (2000, Pressure::Stall),
        ];
        for (used, expected) in rows {
            assert_eq!(pressure(used, 1000), expected, "at {used}");
        }
    }

    #[test]
    fn its_rate_falls_in_a_straight_line() {
        let gate = Gate::default();
        gate.flush_rate.set(100_000_000);
        let rates = [750, 800, 875, 950, 999, 1000].map(|used| gate.rate(used, 1000) / 1_000_000);
        assert_eq!(rates, [200, 160, 101, 41, 2, 2]);
    }

    #[test]
    fn writers_pass_one_after_the_other() {
        let gate = Gate::default();
        gate.flush_rate.set(100_000_000);
        gate.write_bytes.set(1_010);
        // 101 MB/s: 10 us each, however many come at once.
        let waits = [0, 0, 0, 5].map(|now| gate.wait(at(now), 875, 1000).as_micros());
        assert_eq!(waits, [10, 20, 30, 35]);
        assert_eq!(
            gate.wait(at(1_000), 875, 1000).as_micros(),
            10,
            "after a pause there is no line"
        );
        let longest = (0..20_000).map(|_| gate.wait(at(1_000), 999, 1000)).max();
        assert_eq!(longest, Some(GATE_WAIT_MAX));
    }

    /// Writers that never rest against flushes of half the budget each: memory settles below the whole.
    #[test]
    fn memory_settles_where_what_comes_in_goes_out() {
        for flush_rate in [5_u64, 50, 500] {
            let (budget, write) = (64 << 20, 1_000);
            let gate = Gate::default();
            gate.flush_rate.set(flush_rate * 1_000_000);
            let (mut used, mut now_us, mut most) = (0_usize, 0_u64, 0_usize);
            // Bytes of the memtable being flushed, and when it will have been.
            let mut flushing: Option<(usize, u64, u64)> = None;
            let mut active = 0;
            for _ in 0..600_000 {
                if let Some((bytes, writes, until)) = flushing
                    && now_us >= until
                {
                    used -= bytes;
                    gate.flushed(bytes, writes, Duration::from_micros(bytes as u64 / flush_rate));
                    flushing = None;
                }
                if flushing.is_none() && used > flush_above(budget) {
                    flushing = Some((
                        active,
                        (active / write) as u64,
                        now_us + active as u64 / flush_rate,
                    ));
                    active = 0;
                }
                match pressure(used, budget) {
                    Pressure::None => now_us += 1,
                    Pressure::Slow => now_us += gate.wait(at(now_us), used, budget).as_micros() as u64,
                    Pressure::Stall => now_us += 100,
                }
                if pressure(used, budget) != Pressure::Stall {
                    used += write;
                    active += write;
                }
                most = most.max(used);
            }
            assert!(most < budget, "{flush_rate} MB/s: {most} of {budget}");
        }
    }

    #[test]
    fn rises_with_what_readers_have_to_ask() {
        for (segments, us) in [
            (0, 0),
            (12, 0),
            (13, 13),
            (24, 2_000),
            (36, 8_000),
            (72, 50_000),
            (1_000, 50_000),
        ] {
            assert_eq!(
                level0_delay(segments),
                Duration::from_micros(us),
                "{segments} segments"
            );
        }
    }
}
