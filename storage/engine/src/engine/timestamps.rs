//! The clock that commit timestamps follow.
//!
//! A commit timestamp is `max(clock, last + 1)` of its partition, so it is unique and ascending whatever the
//! clock does; what the clock can spoil is only how far ahead it drags the partition, for ever. Hence:
//!
//! 1. The first reading after a start is believed: a node may have been idle for years, so distance from the
//!    recovered floor proves nothing. A floor ahead of the clock is simply counted up from.
//! 2. While running, a reading is compared with the **highest believed reading plus the monotonic time since**.
//!    One that is more than `step_max` ahead of that is refused: the clock then runs on from what was believed,
//!    by monotonic time, and the refusal is counted. Writes never stop, so no clock can brick a node.
//! 3. A reading behind is used as it is and does not move what is believed, so that a clock that went back may
//!    come forward again by any distance.
//!
//! A clock that was really wrong by more than `step_max` until now (or a machine that slept) is therefore
//! followed from the next restart.

use std::time::Duration;

use cairn_runtime::Moment;

use crate::ids::CommitTimestamp;

#[derive(Debug)]
pub(super) struct Clock {
    believed_ms: u64,
    believed_at: Moment,
    step_ms_max: u64,
    refused: u64,
}

impl Clock {
    pub(super) fn new(now: Moment, unix_ms: u64, step_max: Duration) -> Clock {
        let step_ms_max = u64::try_from(step_max.as_millis()).unwrap_or(u64::MAX);
        Clock {
            believed_ms: unix_ms,
            believed_at: now,
            step_ms_max,
            refused: 0,
        }
    }

    /// Milliseconds to follow, given what the two clocks say.
    fn read(&mut self, now: Moment, unix_ms: u64) -> u64 {
        let elapsed_ms = u64::try_from(now.since(self.believed_at).as_millis()).unwrap_or(u64::MAX);
        let expected_ms = self.believed_ms.saturating_add(elapsed_ms);
        if unix_ms > expected_ms.saturating_add(self.step_ms_max) {
            self.refused += 1;
            return expected_ms;
        }
        if unix_ms > expected_ms {
            self.believed_ms = unix_ms;
            self.believed_at = now;
        }
        unix_ms
    }

    /// The timestamp of the next mutation of a partition whose last one was `last`.
    pub(super) fn next(&mut self, now: Moment, unix_ms: u64, last: CommitTimestamp) -> CommitTimestamp {
        CommitTimestamp::from_unix_ms(self.read(now, unix_ms)).max(last.next())
    }

    /// Readings refused so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused
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

    /// Each row: monotonic ms, wall ms, what is followed, refusals so far.
    #[test]
    fn follows_steps_up_to_the_limit_and_refuses_beyond() {
        let rows = [
            (0, 1_000_000, 1_000_000, 0),
            (10, 1_000_010, 1_000_010, 0),
            // A small step forward is followed, and so is one back.
            (20, 1_050_000, 1_050_000, 0),
            (30, 1_000_030, 1_000_030, 0),
            (40, 1_050_020, 1_050_020, 0),
            // Far ahead: refused, time goes on; again when the clock is mended.
            (50, 90_000_000, 1_050_030, 1),
            (60, 90_000_010, 1_050_040, 2),
            (70, 1_050_050, 1_050_050, 2),
            // An idle hour is no step.
            (3_600_070, 4_650_050, 4_650_050, 2),
            // From far behind, the way back is open.
            (3_600_080, 10, 10, 2),
            (3_600_090, 4_650_070, 4_650_070, 2),
            // A clock gone mad.
            (3_600_100, u64::MAX, 4_650_080, 3),
        ];
        let mut clock = Clock::new(at(0), 1_000_000, Duration::from_secs(60));
        for (monotonic, wall, followed, refused) in rows {
            assert_eq!(clock.read(at(monotonic), wall), followed, "at {monotonic}");
            assert_eq!(clock.refused(), refused, "at {monotonic}");
        }
    }

    #[test]
    fn timestamps_ascend_whatever_the_clock_does() {
        let mut clock = Clock::new(at(0), 1_000, Duration::from_secs(60));
        let mut last = CommitTimestamp(0);
        for (step, wall) in [1_000, 1_000, 500, 70_000, u64::MAX, 0, 1_001]
            .into_iter()
            .enumerate()
        {
            let next = clock.next(at(step as u64), wall, last);
            assert!(next > last);
            last = next;
        }
        let floor = CommitTimestamp(5_000_000 << 16);
        assert_eq!(clock.next(at(9), 1_000, floor), CommitTimestamp(floor.0 + 1));
    }
}
