//! When operations are due.
//!
//! With a rate, operation `n` is due at `start + n / rate` whether or not the answers before it have come (an open
//! loop): latency counts from then, so a node that stalls pays for everything that would have arrived meanwhile.

use std::cell::Cell;
use std::time::Duration;

use cairn_runtime::Moment;

use crate::options::Rate;

/// Hands out operations in order, each with its intended start.
pub(crate) struct Schedule {
    start: Moment,
    end: Moment,
    rate: Rate,
    next: Cell<u64>,
}

/// What a connection with a free slot should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Start an operation that was intended for this moment.
    Now(Moment),
    /// Nothing is due before this moment.
    At(Moment),
    /// The run is over.
    Never,
}

impl Schedule {
    pub(crate) fn new(start: Moment, length: Duration, rate: Rate) -> Schedule {
        Schedule {
            start,
            end: start + length,
            rate,
            next: Cell::new(0),
        }
    }

    /// Takes the next operation when it is due at `now`.
    pub(crate) fn take(&self, now: Moment) -> Due {
        let Rate::PerSecond(_) = self.rate else {
            return if now < self.end { Due::Now(now) } else { Due::Never };
        };
        let intended = self.intended(self.next.get());
        if intended >= self.end {
            Due::Never
        } else if intended <= now {
            self.next.set(self.next.get() + 1);
            Due::Now(intended)
        } else {
            Due::At(intended)
        }
    }

    /// Intended starts of the operations that nobody took although they were due before the end.
    pub(crate) fn never_started(&self) -> impl Iterator<Item = Moment> {
        let open_loop = matches!(self.rate, Rate::PerSecond(_));
        let from = self.next.get();
        (from..)
            .map(|index| self.intended(index))
            .take_while(move |&intended| open_loop && intended < self.end)
    }

    pub(crate) fn end(&self) -> Moment {
        self.end
    }

    fn intended(&self, index: u64) -> Moment {
        match self.rate {
            Rate::Max => self.end,
            Rate::PerSecond(rate) => self.start + Duration::from_nanos((index as f64 * 1e9 / rate) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanoseconds: u64) -> Moment {
        Moment { nanoseconds }
    }

    #[test]
    fn operations_are_due_whatever_became_of_those_before() {
        let schedule = Schedule::new(at(1000), Duration::from_nanos(5000), Rate::PerSecond(1e6));
        assert_eq!(schedule.take(at(999)), Due::At(at(1000)));
        assert_eq!(schedule.take(at(1000)), Due::Now(at(1000)));
        assert_eq!(schedule.take(at(1000)), Due::At(at(2000)));
        // Late: two are due at once, each with its own intended start.
        assert_eq!(schedule.take(at(3500)), Due::Now(at(2000)));
        assert_eq!(schedule.take(at(3500)), Due::Now(at(3000)));
        assert_eq!(schedule.take(at(3500)), Due::At(at(4000)));
        assert_eq!(schedule.never_started().collect::<Vec<_>>(), [at(4000), at(5000)]);
        assert_eq!(schedule.take(at(9000)), Due::Now(at(4000)));
        assert_eq!(schedule.take(at(9000)), Due::Now(at(5000)));
        assert_eq!(schedule.take(at(9000)), Due::Never);
        assert_eq!(schedule.never_started().count(), 0);
    }

    #[test]
    fn at_full_speed_everything_is_due_until_the_end() {
        let schedule = Schedule::new(at(0), Duration::from_nanos(10), Rate::Max);
        assert_eq!(schedule.take(at(9)), Due::Now(at(9)));
        assert_eq!(schedule.take(at(10)), Due::Never);
        assert_eq!(schedule.never_started().count(), 0);
    }
}
