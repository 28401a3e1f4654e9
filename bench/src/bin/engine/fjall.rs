//! fjall, on threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_engine::Compression;
use cairn_runtime::sim::Random;
use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::Options;
use crate::figures::{Figure, Latencies, directory_bytes, process_cpu};
use crate::load::{Work, item, key};

struct Bench<'a> {
    database: Database,
    keyspace: Keyspace,
    options: &'a Options,
    work: Work,
    next: AtomicU64,
    until: Instant,
    operations: AtomicU64,
    latencies: Mutex<Latencies>,
    failed: AtomicBool,
}

pub(crate) fn measure(options: &Options, work: Work) -> Result<Figure, String> {
    let root = options.data.join("fjall");
    let words = |error: fjall::Error| error.to_string();
    let packed = match options.compression {
        Compression::None => CompressionType::None,
        // It has no other.
        Compression::Lz4 | Compression::Zstd => CompressionType::Lz4,
    };
    let database = Database::builder(&root)
        .cache_size((options.cache_mib as u64) << 20)
        .open()
        .map_err(words)?;
    let keyspace = database.keyspace("items", || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(((options.memtable_mib as u64) << 20) / 2)
            .data_block_compression_policy(CompressionPolicy::all(packed))
    });
    let written = process_written();
    let cpu = process_cpu();
    let began = Instant::now();
    let bench = Bench {
        keyspace: keyspace.map_err(words)?,
        database,
        options,
        work,
        next: AtomicU64::new(0),
        until: began + Duration::from_secs(options.seconds),
        operations: AtomicU64::new(0),
        latencies: Mutex::default(),
        failed: AtomicBool::new(false),
    };
    let threads = match work {
        Work::Fill | Work::Overwrite => options.writers,
        _ => options.readers,
    };
    std::thread::scope(|scope| {
        for number in 0..threads {
            let bench = &bench;
            scope.spawn(move || bench.task(number as u64));
        }
    });
    let took = began.elapsed();
    if bench.failed.into_inner() {
        return Err("fjall failed".to_owned());
    }
    let operations = bench.operations.into_inner();
    let latencies = bench
        .latencies
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let writes = match work {
        Work::Fill | Work::Overwrite => Some(operations),
        Work::Mixed => Some(operations / 2),
        _ => None,
    };
    let written = process_written().saturating_sub(written) as f64;
    Ok(Figure {
        rate: operations as f64 / took.as_secs_f64(),
        latency_us: latencies.percentiles(),
        cpu_us: Some(process_cpu().saturating_sub(cpu).as_secs_f64() * 1e6 / operations as f64),
        write_amplification: writes
            .map(|writes| written / (writes * options.item_bytes as u64).max(1) as f64),
        reads: None,
        space: Some(directory_bytes(&root) as f64 / (options.items * options.item_bytes as u64) as f64),
    })
}

/// Bytes that this process has made the kernel write.
fn process_written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

impl Bench<'_> {
    fn task(&self, number: u64) {
        let mut random = Random::new(number ^ (self.work as u64 * 1_000));
        let mut latencies = Latencies::default();
        let goes_on = || {
            !self.failed.load(Ordering::Relaxed) && (self.work == Work::Fill || Instant::now() < self.until)
        };
        while goes_on() {
            let began = Instant::now();
            let items = self.options.items;
            let done = match self.work {
                Work::Fill | Work::Overwrite => self.write(&mut random),
                Work::Read => self.read(random.below(items)),
                Work::Missing => self.read(items + random.below(items)),
                Work::Scan => self.scan(random.below(items)),
                Work::Mixed if random.one_in(2) => self.put(random.below(items), random.next_u64()),
                Work::Mixed => self.read(random.below(items)),
            };
            match done {
                Ok(0) => break,
                Ok(operations) => {
                    self.operations.fetch_add(operations, Ordering::Relaxed);
                    latencies.add(began.elapsed());
                }
                Err(error) => {
                    eprintln!("engine: fjall: {error}");
                    self.failed.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut all = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        all.0.append(&mut latencies.0);
    }

    fn write(&self, random: &mut Random) -> Result<u64, fjall::Error> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        let mut count = 0;
        for _ in 0..self.options.batch {
            let number = if self.work == Work::Fill {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                if number >= self.options.items {
                    break;
                }
                number
            } else {
                random.below(self.options.items)
            };
            let item = item(
                self.options.content,
                number,
                random.next_u64(),
                self.options.item_bytes,
            );
            batch.insert(&self.keyspace, key(number), item);
            count += 1;
        }
        if count > 0 {
            batch.commit()?;
        }
        Ok(count)
    }

    fn put(&self, number: u64, version: u64) -> Result<u64, fjall::Error> {
        let item = item(self.options.content, number, version, self.options.item_bytes);
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.keyspace, key(number), item);
        batch.commit().map(|()| 1)
    }

    fn read(&self, number: u64) -> Result<u64, fjall::Error> {
        let found = self.keyspace.get(key(number))?.is_some();
        assert_eq!(
            found,
            number < self.options.items,
            "item {number} is there or not, wrongly"
        );
        Ok(1)
    }

    fn scan(&self, number: u64) -> Result<u64, fjall::Error> {
        let mut seen = 0;
        for guard in self.keyspace.range(key(number)..).take(self.options.scan_items) {
            guard.value()?;
            seen += 1;
        }
        Ok(seen)
    }
}
