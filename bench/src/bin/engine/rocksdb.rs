//! RocksDB, by its own db_bench: its keys are numbers in order of their digits, its values half random.

use std::process::Command;

use cairn_engine::Compression;

use crate::Options;
use crate::figures::{Figure, directory_bytes};
use crate::load::{Content, Work, key};

/// `fillrandom` draws keys with replacement. From a space this many times the items, hardly one is drawn twice: all
/// stores then hold the same number of items.
const KEY_SPACE: u64 = 100;

pub(crate) fn measure(options: &Options, work: Work) -> Result<Figure, String> {
    let root = options.data.join("rocksdb");
    std::fs::create_dir_all(&root).map_err(|error| error.to_string())?;
    let (name, threads) = match work {
        Work::Fill => ("fillrandom", options.writers),
        Work::Overwrite => ("overwrite", options.writers),
        Work::Read => ("readrandom", options.readers),
        Work::Missing => ("readmissing", options.readers),
        Work::Scan => ("seekrandom", options.readers),
        Work::Mixed => ("readrandomwriterandom", options.readers),
    };
    // What `fill` has written, and nothing else: other keys would be answered by a filter.
    let existing = !matches!(work, Work::Fill | Work::Missing);
    let compression = match options.compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    let ratio = if options.content == Content::Random {
        1.0
    } else {
        0.5
    };
    let mut command = Command::new(&options.db_bench);
    command.args([
        format!("--benchmarks={name},stats"),
        format!("--db={}", root.display()),
        format!("--wal_dir={}", root.display()),
        format!("--num={}", options.items * KEY_SPACE),
        format!("--key_size={}", key(0).len()),
        format!("--value_size={}", options.item_bytes),
        format!("--compression_ratio={ratio}"),
        format!("--compression_type={compression}"),
        format!("--threads={threads}"),
        format!(
            "--batch_size={}",
            if work == Work::Mixed { 1 } else { options.batch }
        ),
        format!("--seek_nexts={}", options.scan_items),
        format!("--write_buffer_size={}", (options.memtable_mib << 20) / 2),
        format!("--cache_size={}", options.cache_mib << 20),
        format!("--use_existing_keys={}", u8::from(existing)),
        "--sync=1".to_owned(),
        "--disable_wal=0".to_owned(),
        "--bloom_bits=10".to_owned(),
        "--cache_index_and_filter_blocks=1".to_owned(),
        "--use_direct_reads=1".to_owned(),
        "--use_direct_io_for_flush_and_compaction=1".to_owned(),
        "--level_compaction_dynamic_level_bytes=1".to_owned(),
        "--readwritepercent=50".to_owned(),
        "--histogram=1".to_owned(),
        "--statistics=1".to_owned(),
        "--seed=1".to_owned(),
        format!("--use_existing_db={}", u8::from(work != Work::Fill)),
    ]);
    match work {
        // Every thread writes its part.
        Work::Fill => command.arg(format!("--writes={}", options.items / options.writers as u64)),
        _ => command.arg(format!("--duration={}", options.seconds)),
    };
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", options.db_bench.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("db_bench: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut figure = parse(&text, name).ok_or_else(|| format!("db_bench said: {text}"))?;
    if work == Work::Scan {
        figure.rate *= options.scan_items as f64;
    }
    figure.space = Some(directory_bytes(&root) as f64 / (options.items * options.item_bytes as u64) as f64);
    if work == Work::Fill || work == Work::Overwrite {
        let count = |name: &str| counter(&text, name);
        let bytes = count("rocksdb.wal.bytes")?
            + count("rocksdb.flush.write.bytes")?
            + count("rocksdb.compact.write.bytes")?;
        figure.write_amplification = Some(bytes / count("rocksdb.bytes.written")?);
    }
    Ok(figure)
}

/// A counter of `--statistics`.
fn counter(text: &str, name: &str) -> Result<f64, String> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .ok_or_else(|| format!("db_bench does not say {name}"))
}

/// The benchmark's own line and its histogram.
fn parse(text: &str, name: &str) -> Option<Figure> {
    let line = text
        .lines()
        .find(|line| line.starts_with(name) && line.contains("ops/sec"))?;
    let before = line.split("ops/sec").next()?;
    let rate: f64 = before.split_whitespace().next_back()?.parse().ok()?;
    let percentiles = text.lines().find(|line| line.starts_with("Percentiles:"));
    let percentile = |name: &str| -> Option<f64> {
        let (_, rest) = percentiles?.split_once(name)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some(Figure {
        rate,
        latency_us: [percentile("P50: "), percentile("P99: "), percentile("P99.9: ")],
        ..Figure::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_db_bench_prints_is_read() {
        let text = "fillrandom   :      22.1 micros/op 45175 ops/sec 4.4 seconds 200000 operations;   44.1 MB/s\n\
                    Percentiles: P50: 20.10 P75: 30.00 P99: 900.50 P99.9: 2000.25 P99.99: 3000.00\n\
                    rocksdb.wal.bytes COUNT : 205000000\n";
        let figure = parse(text, "fillrandom").unwrap();
        assert_eq!(figure.rate, 45_175.0);
        assert_eq!(figure.latency_us, [Some(20.1), Some(900.5), Some(2000.25)]);
        assert_eq!(counter(text, "rocksdb.wal.bytes"), Ok(205_000_000.0));
        assert!(counter(text, "rocksdb.none").is_err());
    }
}
