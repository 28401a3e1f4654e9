//! Measures the storage engine by itself beside RocksDB and fjall: the same work, on the same drive, in the same run.
//!
//! 1. Every store is filled with the same number of items of the same length and likeness, by the same number of
//!    writers, every batch durable before the next of its writer.
//! 2. It is then overwritten, read at random, asked for what is not there, scanned, and read and written at once.
//! 3. The stores take turns, workload by workload, so that a change of the machine's speed meets all alike; a figure is
//!    the median of the rounds.
//!
//! `cargo run --release -p cairn-bench --bin engine -- --help` has the knobs. With `--items` large against `--cache-mib` and
//! `--memtable-mib` it is rows P5 and P7 of the targets.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark of real engines: nothing here runs in the simulator"
)]

mod cairn;
mod figures;
mod fjall;
mod load;
mod rocksdb;

use std::path::PathBuf;
use std::process::ExitCode;

use cairn_engine::Compression;
use clap::Parser;

use figures::{Figure, table};
use load::{Content, Work};

/// The node's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the engine beside RocksDB and fjall.
#[derive(Debug, Clone, Parser)]
#[command(name = "engine")]
pub(crate) struct Options {
    /// Directory for the data, on the drive to be measured; it is emptied.
    #[arg(long, default_value = "target/engine-data")]
    pub(crate) data: PathBuf,
    /// Stores to measure.
    #[arg(long, value_delimiter = ',', default_value = "cairn,fjall,rocksdb")]
    pub(crate) stores: Vec<String>,
    /// Workloads, in this order; the first that needs data finds what `fill` has written.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "fill,overwrite,read,missing,scan,mixed"
    )]
    pub(crate) works: Vec<Work>,
    /// Items.
    #[arg(long, default_value_t = 200_000)]
    pub(crate) items: u64,
    /// Length of an item in bytes.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) item_bytes: usize,
    /// What items are made of: random, half (half of the bytes random, as db_bench has them), or attributes.
    #[arg(long, default_value = "half")]
    pub(crate) content: Content,
    /// Tasks or threads that write.
    #[arg(long, default_value_t = 8)]
    pub(crate) writers: usize,
    /// Items that a writer writes before it waits for them all.
    #[arg(long, default_value_t = 32)]
    pub(crate) batch: usize,
    /// Tasks or threads that read.
    #[arg(long, default_value_t = 32)]
    pub(crate) readers: usize,
    /// Items of a scan.
    #[arg(long, default_value_t = 100)]
    pub(crate) scan_items: usize,
    /// Partitions that the items are spread over; the peers have one tree.
    #[arg(long, default_value_t = 1)]
    pub(crate) partitions: u64,
    /// Shards of Cairn, each with a core, a log and its part of items, partitions, memory and clients; the peers' threads
    /// use all cores.
    #[arg(long, default_value_t = 1)]
    pub(crate) shards: usize,
    /// Drives' directories that every byte is written to, all on the same drive: 1 is what the peers do.
    #[arg(long, default_value_t = 1)]
    pub(crate) mirrors: usize,
    /// Memory of the memtables.
    #[arg(long, default_value_t = 64)]
    pub(crate) memtable_mib: usize,
    /// Memory of the block cache, filters and index included.
    #[arg(long, default_value_t = 64)]
    pub(crate) cache_mib: usize,
    /// What blocks are packed with, in all stores: none, lz4, zstd.
    #[arg(long, default_value = "lz4")]
    pub(crate) compression: Compression,
    /// Longest time of one measurement in seconds; `fill` always writes all items.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Rounds of everything but `fill`.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// RocksDB's db_bench (Debian: rocksdb-tools).
    #[arg(long, default_value = "db_bench")]
    pub(crate) db_bench: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("engine: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if options.data.exists() {
        std::fs::remove_dir_all(&options.data).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir_all(&options.data).map_err(|error| error.to_string())?;
    let mut rows: Vec<(Work, String, Vec<Figure>)> = Vec::new();
    for work in &options.works {
        let rounds = if *work == Work::Fill { 1 } else { options.rounds };
        for _ in 0..rounds {
            for store in &options.stores {
                eprintln!("engine: {work:?} {store}");
                let figure = match store.as_str() {
                    "cairn" => cairn::measure(options, *work)?,
                    "fjall" => fjall::measure(options, *work)?,
                    "rocksdb" => rocksdb::measure(options, *work)?,
                    other => return Err(format!("{other:?} is not one of cairn, fjall, rocksdb")),
                };
                match rows
                    .iter_mut()
                    .find(|(known, name, _)| known == work && name == store)
                {
                    Some((.., figures)) => figures.push(figure),
                    None => rows.push((*work, store.clone(), vec![figure])),
                }
            }
        }
    }
    print!("{}", table(options, &rows));
    Ok(())
}
