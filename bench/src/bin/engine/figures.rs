//! What was measured, and how it is shown.

use std::fmt::Write;
use std::time::Duration;

use crate::Options;
use crate::load::Work;

/// One measurement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figure {
    /// Operations per second; an item of a scan is one.
    pub(crate) rate: f64,
    /// Latencies of one operation (a batch of a writer is one) in microseconds: p50, p99, p99.9. None where the store's
    /// own tool does not say.
    pub(crate) latency_us: [Option<f64>; 3],
    /// CPU of the whole process per operation, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// Bytes written to a drive per byte of item, log included.
    pub(crate) write_amplification: Option<f64>,
    /// Reads asked of a drive per operation.
    pub(crate) reads: Option<f64>,
    /// Bytes of the store's files per byte of item.
    pub(crate) space: Option<f64>,
}

/// CPU that this process has used.
pub(crate) fn process_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // User and system time are the 14th and 15th field; the name was the second.
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

/// Bytes of all files under a directory.
pub(crate) fn directory_bytes(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Latencies of a measurement.
#[derive(Debug, Default)]
pub(crate) struct Latencies(pub(crate) Vec<u32>);

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0
            .push(u32::try_from(latency.as_nanos() / 100).unwrap_or(u32::MAX));
    }

    /// p50, p99 and p99.9 in microseconds.
    pub(crate) fn percentiles(mut self) -> [Option<f64>; 3] {
        self.0.sort_unstable();
        [500, 990, 999].map(|permille| {
            let at = self.0.len() * permille / 1_000;
            self.0
                .get(at.min(self.0.len().checked_sub(1)?))
                .map(|tenths| f64::from(*tenths) / 10.0)
        })
    }
}

fn median(figures: &[Figure], of: impl Fn(&Figure) -> Option<f64>) -> String {
    let mut values: Vec<f64> = figures.iter().filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    let Some(value) = values.get(values.len() / 2) else {
        return "-".to_owned();
    };
    match *value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The table, in Markdown.
pub(crate) fn table(options: &Options, rows: &[(Work, String, Vec<Figure>)]) -> String {
    let mut text = format!(
        "{} items of {} bytes ({:?}), {} MiB memtables, {} MiB cache, {}; {} writers x {}, {} readers, {} partitions, {} \
         shards, {} mirrors, every batch durable.\n\n",
        options.items,
        options.item_bytes,
        options.content,
        options.memtable_mib,
        options.cache_mib,
        options.compression.name(),
        options.writers,
        options.batch,
        options.readers,
        options.partitions,
        options.shards,
        options.mirrors,
    );
    text.push_str("| work | store | ops/s | p50 us | p99 us | p99.9 us | CPU us/op | written/byte | reads/op | space |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|\n");
    for (work, store, figures) in rows {
        let _ = writeln!(
            text,
            "| {work:?} | {store} | {} | {} | {} | {} | {} | {} | {} | {} |",
            median(figures, |figure| Some(figure.rate)),
            median(figures, |figure| figure.latency_us[0]),
            median(figures, |figure| figure.latency_us[1]),
            median(figures, |figure| figure.latency_us[2]),
            median(figures, |figure| figure.cpu_us),
            median(figures, |figure| figure.write_amplification),
            median(figures, |figure| figure.reads),
            median(figures, |figure| figure.space),
        );
    }
    text
}
