//! What happened: latency histograms, errors by name, and the interval that the progress line shows.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::wire::Outcome;
use crate::workload::Operation;

/// Longest latency that is told apart: an hour. Longer ones count as an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Gets or puts.
pub(crate) struct OperationRecord {
    /// From the intended start to the answer, nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the moment of sending to the answer, nanoseconds.
    pub(crate) service: Histogram<u64>,
}

/// Everything measured.
pub(crate) struct Record {
    pub(crate) gets: OperationRecord,
    pub(crate) puts: OperationRecord,
    /// Latencies since the progress line before.
    pub(crate) interval: Histogram<u64>,
    pub(crate) interval_errors: u64,
    /// Operations answered as they should be.
    pub(crate) good: u64,
    /// Others, by what went wrong.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Operations that were due and never started, because every slot was busy.
    pub(crate) never_started: u64,
    /// An item was read that was missing, wrong or stale, the warm-up included.
    pub(crate) damaged: bool,
}

/// The latencies of a part of the run.
pub(crate) struct Interval {
    pub(crate) seconds: f64,
    pub(crate) count: u64,
    /// Nanoseconds at 50, 99, 99.9 and 100 %.
    pub(crate) percentiles: [u64; 4],
    /// How often each value was recorded, if that is kept. A histogram takes a quarter of a megabyte, whatever is in it; a run
    /// of hours that kept one for each second would touch fresh memory all the time, and stall for it.
    recorded: Vec<(u64, u64)>,
}

impl Interval {
    /// With `whole`, what was recorded is kept as well.
    pub(crate) fn new(seconds: f64, histogram: &Histogram<u64>, whole: bool) -> Interval {
        let recorded = histogram
            .iter_recorded()
            .filter(|_| whole)
            .map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect();
        Interval {
            seconds,
            count: histogram.len(),
            percentiles: [0.5, 0.99, 0.999, 1.0].map(|part| histogram.value_at_quantile(part)),
            recorded,
        }
    }

    /// Of an interval that was kept whole.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        let mut histogram = histogram();
        for &(value, count) in &self.recorded {
            histogram.saturating_record_n(value, count);
        }
        histogram
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds are valid")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos())
        .unwrap_or(u64::MAX)
        .min(LATENCY_NS_MAX)
}

impl OperationRecord {
    fn new() -> OperationRecord {
        OperationRecord {
            latency: histogram(),
            service: histogram(),
        }
    }
}

impl Record {
    pub(crate) fn new() -> Record {
        Record {
            gets: OperationRecord::new(),
            puts: OperationRecord::new(),
            interval: histogram(),
            interval_errors: 0,
            good: 0,
            errors: BTreeMap::new(),
            never_started: 0,
            damaged: false,
        }
    }

    /// An operation that ended. Failed ones count into latency as well: a client waited for them.
    pub(crate) fn ended(
        &mut self,
        operation: Operation,
        outcome: &Outcome,
        latency: Duration,
        service: Duration,
    ) {
        let record = self.of(operation);
        record.latency.saturating_record(nanoseconds(latency));
        record.service.saturating_record(nanoseconds(service));
        self.interval.saturating_record(nanoseconds(latency));
        self.damaged |= outcome.is_damage();
        match outcome.error() {
            None => self.good += 1,
            Some(error) => self.error(error),
        }
    }

    /// Damage seen by an operation that is not measured.
    pub(crate) fn damage(&mut self, outcome: &Outcome) {
        self.damaged = true;
        self.error(outcome.error().unwrap_or_default());
    }

    /// An operation whose answer did not come: it counts with the time it had waited.
    pub(crate) fn lost(&mut self, operation: Operation, waited: Duration) {
        self.of(operation).latency.saturating_record(nanoseconds(waited));
        self.error("no answer");
    }

    /// An operation that was due but never started.
    pub(crate) fn never_started(&mut self, operation: Operation, waited: Duration) {
        self.of(operation).latency.saturating_record(nanoseconds(waited));
        self.never_started += 1;
    }

    pub(crate) fn error(&mut self, name: &str) {
        self.interval_errors += 1;
        match self.errors.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(name.to_owned(), 1);
            }
        }
    }

    /// Gets and puts together.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        let mut both = self.gets.latency.clone();
        both.add(&self.puts.latency).expect("the same bounds");
        both
    }

    pub(crate) fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    fn of(&mut self, operation: Operation) -> &mut OperationRecord {
        match operation {
            Operation::Get { .. } => &mut self.gets,
            Operation::Put { .. } => &mut self.puts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_gives_its_histogram_again() {
        let mut recorded = histogram();
        (0..5_000).for_each(|n| recorded.saturating_record(n * n * 1_000));
        recorded.saturating_record_n(LATENCY_NS_MAX, 3);
        assert!(Interval::new(1.0, &recorded, true).histogram() == recorded);
        let empty = histogram();
        assert!(Interval::new(1.0, &empty, true).histogram() == empty);
    }
}
