//! The verdict and the report: for a person on standard output, for programs as JSON and as an HdrHistogram log.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2Serializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde_json::{Value, json};

use crate::options::{Objective, Protocol, Rate, Run};
use crate::record::{Interval, OperationRecord};
use crate::run::{Measured, milliseconds};

/// Share of a core from which on the client itself is the bottleneck.
const CLIENT_BUSY: f64 = 0.9;

/// Share of operations that may fail where no objective says how many, percent. What was never started is the rate's matter.
const ERRORS_PERCENT_MAX: f64 = 1.0;

/// The percentiles that a report shows.
const PERCENTILES: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// An objective and what was measured for it.
struct Judged {
    objective: String,
    measured: String,
    met: bool,
}

/// A finished run with its verdict.
pub(crate) struct Report<'a> {
    options: &'a Run,
    measured: &'a Measured,
    verdict: Vec<Judged>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(options: &'a Run, measured: &'a Measured) -> Report<'a> {
        let objectives = options.slo.iter().flat_map(|slo| &slo.0);
        let verdict = objectives.map(|objective| judge(objective, measured)).collect();
        Report {
            options,
            measured,
            verdict,
        }
    }

    /// Every objective was met, something was answered well, without an objective for errors not too many failed, and nothing
    /// that was read was missing, wrong or stale.
    pub(crate) fn passed(&self) -> bool {
        let record = &self.measured.record;
        self.verdict.iter().all(|judged| judged.met)
            && record.good > 0
            && !record.damaged
            && !self.too_many_failed()
    }

    /// No objective says how many operations may fail, and more did than [`ERRORS_PERCENT_MAX`].
    fn too_many_failed(&self) -> bool {
        let mut objectives = self.options.slo.iter().flat_map(|slo| &slo.0);
        let is_judged = objectives.any(|objective| matches!(objective, Objective::Errors { .. }));
        let record = &self.measured.record;
        let failed = record.errors_total() as f64;
        !is_judged && failed * 100.0 > ERRORS_PERCENT_MAX * (failed + record.good as f64)
    }

    /// Nothing was answered well, and nothing at all was read.
    pub(crate) fn unusable(&self) -> bool {
        let record = &self.measured.record;
        record.good == 0 && !record.damaged
    }

    pub(crate) fn print(&self) {
        let Measured {
            record,
            seconds,
            client_cpu,
            ..
        } = self.measured;
        let common = &self.options.common;
        println!(
            "{} · workload {:?} · {} items of {} B · {} connections x {} in flight · seed {}",
            common.target,
            self.options.workload,
            common.items,
            common.item_size,
            common.connections,
            common.in_flight,
            common.seed
        );
        let intended = match self.options.rate {
            Rate::Max => "as fast as the answers come (closed loop)".to_owned(),
            Rate::PerSecond(rate) => {
                format!("{rate:.0}/s intended (open loop, latency from the intended start)")
            }
        };
        println!(
            "{:.0}/s achieved, {intended}, {seconds:.0} s measured",
            record.good as f64 / seconds
        );
        println!(
            "{:>10} {}",
            "ms",
            PERCENTILES.map(|p| format!("{:>9}", name_of(p))).join(" ")
        );
        for (name, record) in [("get", &record.gets), ("put", &record.puts)] {
            for (kind, histogram) in [("latency", &record.latency), ("service", &record.service)] {
                if !histogram.is_empty() {
                    let values = PERCENTILES.map(|p| format!("{:>9.3}", at(histogram, p)));
                    println!("{:>10} {}  ({} {kind})", name, values.join(" "), histogram.len());
                }
            }
        }
        let errors = record.errors_total();
        println!(
            "errors {errors} ({:.4} %), never started {}",
            error_percent(self.measured),
            record.never_started
        );
        for (name, count) in &record.errors {
            println!("{count:>10} {name}");
        }
        if record.damaged {
            println!(
                "DATA IS DAMAGED: items that were read were missing, wrong or stale, or transactions torn"
            );
        }
        if self.too_many_failed() {
            println!(
                "TOO MANY OPERATIONS FAILED: more than {ERRORS_PERCENT_MAX} %, and no objective allows for it"
            );
        }
        println!("client used {:.0} % of one core", client_cpu * 100.0);
        if *client_cpu >= CLIENT_BUSY {
            println!("THE CLIENT IS THE BOTTLENECK: the node may be faster than what was measured");
        }
        for judged in &self.verdict {
            let word = if judged.met { "met   " } else { "MISSED" };
            println!("SLO {word} {} (measured {})", judged.objective, judged.measured);
        }
    }

    /// The report as JSON; its fields are described in docs/loadgen.md.
    pub(crate) fn json(&self) -> Value {
        let Measured {
            record,
            seconds,
            client_cpu,
            intervals,
        } = self.measured;
        let common = &self.options.common;
        let distribution = self
            .options
            .distribution
            .unwrap_or_else(|| self.options.workload.default_distribution());
        json!({
            "target": common.target.to_string(),
            "protocol": match common.target.protocol { Protocol::Http => "http", Protocol::Native => "native" },
            "signed": common.access_key.is_some(),
            "workload": self.options.workload,
            "distribution": distribution,
            "items": common.items,
            "item_bytes": common.item_size,
            "connections": common.connections,
            "in_flight": common.in_flight,
            "consistent_reads": self.options.consistent,
            "seed": common.seed,
            "rate_intended": match self.options.rate { Rate::Max => Value::Null, Rate::PerSecond(rate) => json!(rate) },
            "rate_achieved": record.good as f64 / seconds,
            "seconds": seconds,
            "get": operation_json(&record.gets),
            "put": operation_json(&record.puts),
            "intervals": intervals.iter().map(interval_json).collect::<Vec<_>>(),
            "errors": record.errors,
            "error_percent": error_percent(self.measured),
            "never_started": record.never_started,
            "damaged": record.damaged,
            "client_cpu": client_cpu,
            "client_is_bottleneck": *client_cpu >= CLIENT_BUSY,
            "slo": self.verdict.iter().map(|judged| json!({
                "objective": judged.objective, "measured": judged.measured, "met": judged.met,
            })).collect::<Vec<_>>(),
            "passed": self.passed(),
        })
    }

    /// Writes the latencies second by second as an HdrHistogram interval log.
    pub(crate) fn write_hdr(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut serializer = V2Serializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("loadgen: latency from the intended start, nanoseconds")
            .with_start_time(SystemTime::now())
            .begin_log_with(&mut file, &mut serializer)?;
        let mut start = Duration::ZERO;
        for interval in &self.measured.intervals {
            let length = Duration::from_secs_f64(interval.seconds);
            log.write_histogram(&interval.histogram(), start, length, None)
                .map_err(|error| io::Error::other(format!("the interval log: {error:?}")))?;
            start += length;
        }
        file.flush()
    }
}

fn operation_json(record: &OperationRecord) -> Value {
    let histogram = |histogram: &Histogram<u64>| {
        let percentiles = PERCENTILES
            .iter()
            .map(|&p| (format!("{}_ms", name_of(p)), json!(at(histogram, p))))
            .collect();
        Value::Object(percentiles)
    };
    json!({
        "count": record.latency.len(),
        "latency": histogram(&record.latency),
        "service": histogram(&record.service),
    })
}

fn interval_json(interval: &Interval) -> Value {
    let [p50, p99, p999, longest] = interval.percentiles.map(milliseconds);
    json!({
        "seconds": interval.seconds,
        "count": interval.count,
        "p50_ms": p50,
        "p99_ms": p99,
        "p99.9_ms": p999,
        "max_ms": longest,
    })
}

fn name_of(percentile: f64) -> String {
    if percentile >= 100.0 {
        "max".to_owned()
    } else {
        format!("p{percentile}")
    }
}

fn at(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    milliseconds(histogram.value_at_percentile(percentile))
}

fn error_percent(measured: &Measured) -> f64 {
    let record = &measured.record;
    let failed = (record.errors_total() + record.never_started) as f64;
    let all = failed + record.good as f64;
    if all > 0.0 { failed * 100.0 / all } else { 0.0 }
}

fn judge(objective: &Objective, measured: &Measured) -> Judged {
    let record = &measured.record;
    let (met, shown) = match objective {
        Objective::Latency { percentile, below } => {
            let latency = Duration::from_nanos(record.latency().value_at_percentile(*percentile));
            // A run without a single answer meets nothing.
            (latency < *below && record.good > 0, format!("{latency:?}"))
        }
        Objective::Errors { percent_below } => {
            let percent = error_percent(measured);
            (
                percent < *percent_below && record.good > 0,
                format!("{percent:.4}%"),
            )
        }
        Objective::Rate { above } => {
            let rate = record.good as f64 / measured.seconds;
            (rate > *above, format!("{rate:.0}/s"))
        }
    };
    Judged {
        objective: objective.to_string(),
        measured: shown,
        met,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Slo;
    use crate::record::Record;
    use crate::wire::Outcome;
    use crate::workload::{Operation, Reading};

    fn measured(latencies_ms: &[u64], failures: usize) -> Measured {
        let mut record = Record::new();
        let failed = Outcome::Failed("ThrottlingException".into());
        for (index, &latency) in latencies_ms.iter().enumerate() {
            let outcome = if index < failures { &failed } else { &Outcome::Good };
            let latency = Duration::from_millis(latency);
            let operation = Operation::Get {
                key: 0,
                how: Reading::Get,
            };
            record.ended(operation, outcome, latency, latency);
        }
        Measured {
            record,
            seconds: 1.0,
            client_cpu: 0.1,
            intervals: Vec::new(),
        }
    }

    #[test]
    fn objectives_are_judged() {
        let check = |slo: &str, measured: &Measured| {
            let slo: Slo = slo.parse().unwrap();
            slo.0.iter().all(|objective| judge(objective, measured).met)
        };
        let latencies: Vec<u64> = (1..=100).collect();
        let run = measured(&latencies, 1);
        assert!(check("p50<60ms,p99<101ms,errors<2%,rate>98", &run));
        assert!(!check("p99<50ms", &run));
        assert!(!check("errors<0.5%", &run));
        assert!(!check("rate>99", &run));
        // Nothing measured is nothing proven.
        assert!(!check("p99<10ms", &measured(&[], 0)));
        assert!(!check("errors<1%", &measured(&[], 0)));
    }
}
