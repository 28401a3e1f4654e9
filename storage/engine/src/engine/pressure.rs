//! Back-pressure: how long a write waits before it may be proposed.
//!
//! The resource that writes exhaust first is the memtable budget. Up to half of it nothing happens; from half a
//! background flush makes room; from three quarters every write is delayed, by a square law that reaches
//! [`DELAY_MAX`] at the whole budget; there writes stall until a flush has ended. The square law makes the
//! delay small where a flush will catch up anyway and large only just before the stall.
//!
//! The other is the patience of readers: flushes that compaction does not keep up with gather in level 0, where a read
//! asks every one of them. From [`LEVEL0_SLOW`] on, writes to that partition are delayed by the same law.

use std::time::Duration;

/// Longest delay of one write below the budget. Some two group commits on the drive of record.
const DELAY_MAX: Duration = Duration::from_millis(2);

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
    /// Sleep, then go on.
    Delay(Duration),
    /// Wait until memory has been freed.
    Stall,
}

/// Memory above which a flush is wanted.
pub(super) fn flush_above(budget_bytes: usize) -> usize {
    budget_bytes / 2
}

pub(super) fn pressure(used_bytes: usize, budget_bytes: usize) -> Pressure {
    let slow_above = budget_bytes / 4 * 3;
    if used_bytes <= slow_above {
        return Pressure::None;
    }
    if used_bytes >= budget_bytes {
        return Pressure::Stall;
    }
    let over = (used_bytes - slow_above) as u64;
    let whole = (budget_bytes - slow_above) as u64;
    // Per mille, so that the square stays in integers.
    let share = over * 1000 / whole;
    let delay_us = u64::try_from(DELAY_MAX.as_micros()).expect("short") * share * share / 1_000_000;
    if delay_us == 0 {
        Pressure::None
    } else {
        Pressure::Delay(Duration::from_micros(delay_us))
    }
}

/// How long a write to a partition waits that has so many segments in level 0: [`DELAY_MAX`] at twice
/// [`LEVEL0_SLOW`].
pub(super) fn level0_delay(segments: usize) -> Duration {
    let over = segments.saturating_sub(LEVEL0_SLOW) as u64;
    let slow = LEVEL0_SLOW as u64;
    let delay_us = u64::try_from(DELAY_MAX.as_micros()).expect("short") * over * over / (slow * slow);
    Duration::from_micros(delay_us).min(LEVEL0_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_smoothly_to_the_stall() {
        let delay = |us| Pressure::Delay(Duration::from_micros(us));
        let rows = [
            (0, Pressure::None),
            (750, Pressure::None),
            (751, Pressure::None),
            (775, delay(20)),
            (875, delay(500)),
            (950, delay(1280)),
            (999, delay(1984)),
            (1000, Pressure::Stall),
            (2000, Pressure::Stall),
        ];
        for (used, expected) in rows {
            assert_eq!(pressure(used, 1000), expected, "at {used}");
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
