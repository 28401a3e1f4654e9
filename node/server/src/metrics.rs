//! What the node counts, and how Prometheus reads it.
//!
//! A shard counts in plain cells of its own: recording a request is a search among 25 bounds and three additions.
//! A scrape asks every shard for a copy by message and adds the copies up; no counter is shared.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use cairn_engine::latency::{self, Latencies};

use crate::http::server::ServerStats;

/// Upper bounds of the latency histogram's buckets in microseconds; the last bucket has none.
pub const BOUNDS_US: [u64; 25] = [
    25, 50, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_500, 10_000, 15_000,
    20_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// DynamoDB's.
    Http,
    /// Ours.
    Native,
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Http, Protocol::Native];

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Native => "native",
        }
    }
}

macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        /// A request's operation, as far as it is counted by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the names are DynamoDB's")]
        pub enum Operation { $($name,)* }

        impl Operation {
            /// All of them.
            pub const ALL: &'static [Operation] = &[$(Operation::$name,)*];

            /// The operation of that name; [`Operation::Other`] for one that is not known.
            #[must_use]
            pub fn named(name: &str) -> Operation {
                match name {
                    $(stringify!($name) => Operation::$name,)*
                    _ => Operation::Other,
                }
            }

            /// DynamoDB's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Operation::$name => stringify!($name),)*
                }
            }
        }
    };
}

operations! {
    GetItem, PutItem, DeleteItem, UpdateItem, Query, Scan, BatchGetItem, BatchWriteItem, TransactGetItems,
    TransactWriteItems, ExecuteStatement, BatchExecuteStatement, ExecuteTransaction, CreateTable, DescribeTable, ListTables, DeleteTable,
    UpdateTable, UpdateTimeToLive, DescribeTimeToLive, TagResource, UntagResource, ListTagsOfResource,
    DescribeContinuousBackups, DescribeStream, GetRecords, GetShardIterator, ListStreams, Other,
}

const OPERATIONS: usize = Operation::ALL.len();

/// Latencies of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram {
    /// Requests per bucket, not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Sum of all latencies in nanoseconds.
    pub sum_ns: u64,
}

impl Histogram {
    const EMPTY: Histogram = Histogram {
        buckets: [0; BUCKETS],
        sum_ns: 0,
    };

    /// Requests counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn add(&mut self, other: &Histogram) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.sum_ns += other.sum_ns;
    }
}

struct HistogramCells {
    buckets: [Cell<u64>; BUCKETS],
    sum_ns: Cell<u64>,
}

/// One shard's counters.
pub struct Metrics {
    latencies: [[HistogramCells; OPERATIONS]; PROTOCOLS.len()],
    errors: RefCell<BTreeMap<(Protocol, Operation, &'static str), u64>>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let cells = || HistogramCells {
            buckets: std::array::from_fn(|_| Cell::new(0)),
            sum_ns: Cell::new(0),
        };
        Metrics {
            latencies: std::array::from_fn(|_| std::array::from_fn(|_| cells())),
            errors: RefCell::default(),
        }
    }
}

impl Metrics {
    /// Counts an answered request; failures are counted here too.
    pub fn record(&self, protocol: Protocol, operation: Operation, latency: Duration) {
        let cells = &self.latencies[protocol as usize][operation as usize];
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &cells.buckets[BOUNDS_US.partition_point(|&bound_us| bound_us * 1000 < ns)];
        bucket.set(bucket.get() + 1);
        cells.sum_ns.set(cells.sum_ns.get().wrapping_add(ns));
    }

    /// Counts a failure by its error's name.
    pub fn record_error(&self, protocol: Protocol, operation: Operation, error: &'static str) {
        *self
            .errors
            .borrow_mut()
            .entry((protocol, operation, error))
            .or_default() += 1;
    }

    /// A copy of the counters.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            shards: 1,
            errors: self.errors.borrow().clone(),
            ..Snapshot::default()
        };
        for (cells, copy) in self
            .latencies
            .iter()
            .flatten()
            .zip(snapshot.latencies.iter_mut().flatten())
        {
            for (cell, bucket) in cells.buckets.iter().zip(&mut copy.buckets) {
                *bucket = cell.get();
            }
            copy.sum_ns = cells.sum_ns.get();
        }
        snapshot
    }
}

/// A copy of the counters of one or more shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Shards added up.
    pub shards: u64,
    latencies: Box<[[Histogram; OPERATIONS]; PROTOCOLS.len()]>,
    errors: BTreeMap<(Protocol, Operation, &'static str), u64>,
    /// The HTTP server's connections.
    pub http: ServerStats,
    /// The native server's connections.
    pub native: ServerStats,
    /// How long drives took.
    pub drives: Vec<DriveLatencies>,
    /// Further values by family, each summed over the shards. The key is the whole name with labels.
    pub values: BTreeMap<(Family, String), u64>,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot {
            shards: 0,
            latencies: Box::new([[Histogram::EMPTY; OPERATIONS]; PROTOCOLS.len()]),
            errors: BTreeMap::new(),
            http: ServerStats::default(),
            native: ServerStats::default(),
            drives: Vec::new(),
            values: BTreeMap::new(),
        }
    }
}

/// How long operations of one drive took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveLatencies {
    /// Place in the node's list.
    pub drive: usize,
    /// Reads of segments.
    pub reads: Latencies,
    /// Writes of log batches.
    pub writes: Latencies,
}

/// A metric that another part of the node counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family {
    /// Without labels; counters end in `_total`.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Whether it only grows.
    pub counter: bool,
}

impl Snapshot {
    /// Adds another shard's counters.
    pub fn add(&mut self, other: &Snapshot) {
        self.shards += other.shards;
        for (sum, more) in self
            .latencies
            .iter_mut()
            .flatten()
            .zip(other.latencies.iter().flatten())
        {
            sum.add(more);
        }
        for (key, count) in &other.errors {
            *self.errors.entry(*key).or_default() += count;
        }
        self.http.add(&other.http);
        self.native.add(&other.native);
        self.drives.extend(other.drives.iter().cloned());
        for (key, value) in &other.values {
            *self.values.entry(key.clone()).or_default() += value;
        }
    }

    /// Sets a value of a family without labels.
    pub fn set(&mut self, family: Family, value: u64) {
        self.values.insert((family, String::new()), value);
    }

    /// The latencies of an operation.
    #[must_use]
    pub fn latencies(&self, protocol: Protocol, operation: Operation) -> &Histogram {
        &self.latencies[protocol as usize][operation as usize]
    }

    /// Appends Prometheus's text format, version 0.0.4.
    pub fn write_text(&self, out: &mut String) {
        self.write(out).expect("a String takes all text");
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        head(out, "cairn_build_info", "The version that runs.", "gauge")?;
        writeln!(
            out,
            "cairn_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        )?;
        head(out, "cairn_shards", "Shards of this node.", "gauge")?;
        writeln!(out, "cairn_shards {}", self.shards)?;
        self.write_latencies(out)?;
        self.write_drives(out)?;
        let name = "cairn_request_errors_total";
        head(out, name, "Requests that were answered with an error.", "counter")?;
        for ((protocol, operation, error), count) in &self.errors {
            let (protocol, operation) = (protocol.name(), operation.name());
            writeln!(
                out,
                "{name}{{protocol=\"{protocol}\",operation=\"{operation}\",error=\"{error}\"}} {count}"
            )?;
        }
        self.write_connections(out)?;
        let mut last = "";
        for ((family, labels), value) in &self.values {
            if family.name != last {
                head(
                    out,
                    family.name,
                    family.help,
                    if family.counter { "counter" } else { "gauge" },
                )?;
                last = family.name;
            }
            writeln!(out, "{}{labels} {value}", family.name)?;
        }
        Ok(())
    }

    fn write_latencies(&self, out: &mut String) -> fmt::Result {
        let name = "cairn_request_duration_seconds";
        let help = "Time from a request's arrival to its answer being ready, by protocol and operation.";
        head(out, name, help, "histogram")?;
        for protocol in PROTOCOLS {
            for &operation in Operation::ALL {
                let histogram = self.latencies(protocol, operation);
                if histogram.count() == 0 {
                    continue;
                }
                let labels = format!(
                    "protocol=\"{}\",operation=\"{}\"",
                    protocol.name(),
                    operation.name()
                );
                let mut below = 0;
                for (count, bound_us) in histogram.buckets.iter().zip(BOUNDS_US) {
                    below += count;
                    let seconds = Duration::from_micros(bound_us).as_secs_f64();
                    writeln!(out, "{name}_bucket{{{labels},le=\"{seconds}\"}} {below}")?;
                }
                let (count, sum) = (
                    histogram.count(),
                    Duration::from_nanos(histogram.sum_ns).as_secs_f64(),
                );
                writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
                writeln!(out, "{name}_sum{{{labels}}} {sum}")?;
                writeln!(out, "{name}_count{{{labels}}} {count}")?;
            }
        }
        Ok(())
    }

    fn write_drives(&self, out: &mut String) -> fmt::Result {
        type Of = fn(&DriveLatencies) -> &Latencies;
        let families: [(&str, &str, Of); 2] = [
            (
                "cairn_drive_read_duration_seconds",
                "Time that a read of a segment took, by drive.",
                |drive| &drive.reads,
            ),
            (
                "cairn_drive_write_duration_seconds",
                "Time that a durable write of a log batch took, by drive.",
                |drive| &drive.writes,
            ),
        ];
        for (name, help, of) in families {
            head(out, name, help, "histogram")?;
            for drive in &self.drives {
                let (label, latencies) = (format!("drive=\"{}\"", drive.drive), of(drive));
                let mut below = 0;
                for (count, bound_us) in latencies.buckets.iter().zip(latency::BOUNDS_US) {
                    below += count;
                    let seconds = Duration::from_micros(bound_us).as_secs_f64();
                    writeln!(out, "{name}_bucket{{{label},le=\"{seconds}\"}} {below}")?;
                }
                let sum = Duration::from_micros(latencies.sum_us).as_secs_f64();
                writeln!(out, "{name}_bucket{{{label},le=\"+Inf\"}} {}", latencies.count())?;
                writeln!(out, "{name}_sum{{{label}}} {sum}")?;
                writeln!(out, "{name}_count{{{label}}} {}", latencies.count())?;
            }
        }
        Ok(())
    }

    fn write_connections(&self, out: &mut String) -> fmt::Result {
        type Count = fn(&ServerStats) -> u64;
        let families: [(&str, &str, &str, Count); 5] = [
            ("cairn_connections", "Connections open now.", "gauge", |stats| {
                stats.open
            }),
            (
                "cairn_connections_accepted_total",
                "Connections accepted.",
                "counter",
                |stats| stats.accepted,
            ),
            (
                "cairn_connections_refused_total",
                "Connections closed on arrival because too many were open.",
                "counter",
                |stats| stats.refused,
            ),
            (
                "cairn_connections_timed_out_total",
                "Connections closed because they were idle or slow.",
                "counter",
                |stats| stats.timed_out,
            ),
            (
                "cairn_connections_malformed_total",
                "Connections closed because of what they sent.",
                "counter",
                |stats| stats.malformed,
            ),
        ];
        for (name, help, kind, count) in families {
            head(out, name, help, kind)?;
            writeln!(out, "{name}{{protocol=\"http\"}} {}", count(&self.http))?;
            writeln!(out, "{name}{{protocol=\"native\"}} {}", count(&self.native))?;
        }
        Ok(())
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_buckets() {
        let metrics = Metrics::default();
        let record = |us| metrics.record(Protocol::Http, Operation::GetItem, Duration::from_micros(us));
        for us in [0, 25, 26, 1_000, 1_001, 10_000_000, 10_000_001, 3_600_000_000] {
            record(us);
        }
        let snapshot = metrics.snapshot();
        let buckets = snapshot.latencies(Protocol::Http, Operation::GetItem).buckets;
        let filled: Vec<_> = buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(at, count)| (at, *count))
            .collect();
        assert_eq!(filled, [(0, 2), (1, 1), (8, 1), (9, 1), (24, 1), (25, 2)]);
        assert!(BOUNDS_US.is_sorted());
    }

    #[test]
    fn operations_have_their_names() {
        for &operation in Operation::ALL {
            assert_eq!(Operation::named(operation.name()), operation);
            assert_eq!(Operation::ALL[operation as usize], operation);
        }
        assert_eq!(Operation::named("Nonsense"), Operation::Other);
    }

    #[test]
    fn shards_add_up_to_text() {
        const REPAIRS: Family = Family {
            name: "cairn_repairs_total",
            help: "Repairs.",
            counter: true,
        };
        let shard = || {
            let metrics = Metrics::default();
            metrics.record(Protocol::Http, Operation::PutItem, Duration::from_micros(240));
            metrics.record_error(Protocol::Http, Operation::PutItem, "ValidationException");
            let mut snapshot = metrics.snapshot();
            snapshot.http.open = 3;
            snapshot.set(REPAIRS, 2);
            snapshot
        };
        let mut sum = shard();
        sum.add(&shard());
        let mut text = String::new();
        sum.write_text(&mut text);
        for line in [
            "cairn_shards 2",
            "# TYPE cairn_request_duration_seconds histogram",
            "cairn_request_duration_seconds_bucket{protocol=\"http\",operation=\"PutItem\",le=\"0.0002\"} 0",
            "cairn_request_duration_seconds_bucket{protocol=\"http\",operation=\"PutItem\",le=\"0.0003\"} 2",
            "cairn_request_duration_seconds_bucket{protocol=\"http\",operation=\"PutItem\",le=\"+Inf\"} 2",
            "cairn_request_duration_seconds_sum{protocol=\"http\",operation=\"PutItem\"} 0.00048",
            "cairn_request_duration_seconds_count{protocol=\"http\",operation=\"PutItem\"} 2",
            "cairn_request_errors_total{protocol=\"http\",operation=\"PutItem\",error=\"ValidationException\"} 2",
            "cairn_connections{protocol=\"http\"} 6",
            "# TYPE cairn_repairs_total counter",
            "cairn_repairs_total 4",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        assert!(
            !text.contains("GetItem"),
            "operations that never ran are left out"
        );
    }
}
