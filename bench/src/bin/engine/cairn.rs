//! Cairn's engine on one shard. A put reads what it replaces, as the server's do: `overwrite` is not blind.

use std::cell::{Cell, RefCell};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_engine::ids::{IndexId, LogId, PartitionId, TableId};
use cairn_engine::sealing::Keys;
use cairn_engine::volume::{Keeper, VolumeConfig};
use cairn_engine::{Change, Direction, Engine, EngineConfig, EngineStats, PartitionDescriptor, Range};
use cairn_item::{Space, StorageKey};
use cairn_runtime::real::{self, RealRuntime};
use cairn_runtime::sim::Random;
use cairn_runtime::sync::{WaitGroup, spawn};
use cairn_runtime::{Queue, Runtime};

use crate::Options;
use crate::figures::{Figure, Latencies, directory_bytes, process_cpu};
use crate::load::{Work, item, key};

/// What one shard has done.
struct Part {
    operations: u64,
    took: Duration,
    /// Of the whole process meanwhile.
    cpu: Duration,
    latencies: Latencies,
    written_bytes: u64,
    reads: u64,
    stored_bytes: u64,
}

pub(crate) fn measure(options: &Options, work: Work) -> Result<Figure, String> {
    let parts = Arc::new(Mutex::new(Vec::new()));
    let config = real::Config {
        shards: options.shards,
        ..real::Config::default()
    };
    // As a node's shards do, each has its log, its trees and its part of the memory.
    let shards = options.shards as u64;
    let share = Options {
        items: options.items / shards,
        memtable_mib: options.memtable_mib / options.shards,
        cache_mib: options.cache_mib / options.shards,
        writers: options.writers.div_ceil(options.shards),
        readers: options.readers.div_ceil(options.shards),
        partitions: (options.partitions / shards).max(1),
        ..options.clone()
    };
    let slot = Arc::clone(&parts);
    let started = real::run(config, move |runtime| {
        let (share, slot) = (share.clone(), Arc::clone(&slot));
        async move {
            let part = on_shard(runtime, &share, work).await;
            slot.lock().expect("no shard panics").push(part);
        }
    });
    started.map_err(|error| error.to_string())?;
    let parts = std::mem::take(&mut *parts.lock().expect("the shards have ended"));
    if parts.len() != options.shards {
        return Err("a shard ended early".to_owned());
    }
    let parts = parts.into_iter().collect::<Result<Vec<Part>, String>>()?;
    let sum = |of: fn(&Part) -> u64| parts.iter().map(of).sum::<u64>() as f64;
    let longest = |of: fn(&Part) -> Duration| parts.iter().map(of).max().unwrap_or_default();
    let operations = sum(|part| part.operations);
    let writes = match work {
        Work::Fill | Work::Overwrite => Some(operations),
        Work::Mixed => Some(operations / 2.0),
        _ => None,
    };
    Ok(Figure {
        rate: operations / longest(|part| part.took).as_secs_f64(),
        cpu_us: Some(longest(|part| part.cpu).as_secs_f64() * 1e6 / operations),
        write_amplification: writes
            .map(|writes| sum(|part| part.written_bytes) / (writes * options.item_bytes as f64).max(1.0)),
        reads: Some(sum(|part| part.reads) / operations),
        space: Some(sum(|part| part.stored_bytes) / (options.items * options.item_bytes as u64) as f64),
        latency_us: Latencies(parts.into_iter().flat_map(|part| part.latencies.0).collect()).percentiles(),
    })
}

/// Where hash `at` of `parts` begins.
fn boundary(at: u64, parts: u64) -> Vec<u8> {
    let hash = (u128::from(at) << 64) / u128::from(parts);
    StorageKey::hash_prefix(Space::Base, u64::try_from(hash).expect("at is below parts"))
}

struct Bench {
    engine: Engine<RealRuntime>,
    runtime: RealRuntime,
    options: Options,
    work: Work,
    next: Cell<u64>,
    until: Instant,
    latencies: RefCell<Latencies>,
    operations: Cell<u64>,
    failure: RefCell<Option<String>>,
}

async fn on_shard(runtime: RealRuntime, options: &Options, work: Work) -> Result<Part, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let root = options
        .data
        .join("cairn")
        .join(format!("shard-{}", runtime.shard().0));
    let volume = VolumeConfig {
        drives: (0..options.mirrors)
            .map(|at| root.join(format!("drive-{at}")))
            .collect(),
        state: root.join("state"),
        mirrors: options.mirrors,
        accept_epoch: None,
        keys: Keys::default(),
    };
    std::fs::create_dir_all(&root).map_err(|error| words(&error))?;
    let keeper = Keeper::open(runtime.clone(), volume)
        .await
        .map_err(|error| words(&error))?;
    let volume = keeper
        .handle()
        .attach(runtime.clone())
        .await
        .map_err(|error| words(&error))?;
    let config = EngineConfig {
        memtable_bytes: options.memtable_mib << 20,
        cache_bytes: options.cache_mib << 20,
        log_file_bytes: ((options.memtable_mib as u64) << 20) / 4,
        compression: options.compression,
        ..EngineConfig::default()
    };
    let engine = Engine::open(runtime.clone(), volume, LogId(0), config).await;
    let engine = engine.map_err(|error| words(&error))?;
    for at in 0..options.partitions {
        let upper = (at + 1 < options.partitions).then(|| boundary(at + 1, options.partitions));
        let descriptor = PartitionDescriptor {
            id: PartitionId(at + 1),
            table: TableId(1),
            index: IndexId(0),
            lower: if at == 0 {
                Vec::new()
            } else {
                boundary(at, options.partitions)
            },
            upper,
        };
        engine
            .create_partition(descriptor)
            .await
            .map_err(|error| words(&error))?;
    }
    let before = engine.stats();
    let cpu = process_cpu();
    let began = Instant::now();
    let bench = Rc::new(Bench {
        engine: engine.clone(),
        runtime: runtime.clone(),
        options: options.clone(),
        work,
        next: Cell::new(0),
        until: began + Duration::from_secs(options.seconds),
        latencies: RefCell::default(),
        operations: Cell::new(0),
        failure: RefCell::default(),
    });
    let tasks = WaitGroup::new();
    let count = match work {
        Work::Fill | Work::Overwrite => options.writers,
        _ => options.readers,
    };
    for number in 0..count {
        let (bench, token) = (Rc::clone(&bench), tasks.enter());
        runtime.spawn(Queue::Foreground, async move {
            bench.task(number as u64).await;
            drop(token);
        });
    }
    tasks.wait().await;
    let took = began.elapsed();
    if let Some(failure) = bench.failure.take() {
        return Err(failure);
    }
    let cpu = process_cpu().saturating_sub(cpu);
    let after = engine.stats();
    let written =
        |stats: &EngineStats| stats.log.bytes + stats.segments.flushed_bytes + stats.segments.compacted_bytes;
    let part = Part {
        operations: bench.operations.get(),
        took,
        cpu,
        latencies: bench.latencies.take(),
        written_bytes: written(&after) - written(&before),
        reads: after.segments.device_reads - before.segments.device_reads,
        stored_bytes: directory_bytes(&root.join("drive-0")),
    };
    eprintln!(
        "engine: cairn: {} items, segments {} MiB with {} versions, index {} KiB, log {} MiB, debt {} MiB, packed {:.3}",
        after.item_count,
        after.segment_bytes >> 20,
        after.segment_versions,
        after.segments.resident_bytes >> 10,
        after.log.live_bytes >> 20,
        after.compaction_debt_bytes >> 20,
        after.segments.blocks_stored_bytes as f64 / after.segments.blocks_bytes.max(1) as f64,
    );
    engine.close().await.map_err(|error| words(&error))?;
    drop(keeper);
    Ok(part)
}

impl Bench {
    fn partition(&self, key: &[u8]) -> PartitionId {
        let hash = u64::from_be_bytes(*key[1..].first_chunk().expect("a key has a hash"));
        PartitionId(((u128::from(hash) * u128::from(self.options.partitions)) >> 64) as u64 + 1)
    }

    async fn task(self: Rc<Self>, number: u64) {
        let mut random = Random::new(number ^ (self.work as u64 * 1_000));
        while self.failure.borrow().is_none() && (self.work == Work::Fill || Instant::now() < self.until) {
            let began = Instant::now();
            let done = match self.work {
                Work::Fill | Work::Overwrite => self.write(&mut random).await,
                Work::Read => self.read(random.below(self.options.items)).await,
                Work::Missing => {
                    self.read(self.options.items + random.below(self.options.items))
                        .await
                }
                Work::Scan => self.scan(random.below(self.options.items)).await,
                Work::Mixed if random.one_in(2) => {
                    self.put(random.below(self.options.items), random.next_u64())
                        .await
                }
                Work::Mixed => self.read(random.below(self.options.items)).await,
            };
            match done {
                Ok(0) => return,
                Ok(operations) => {
                    self.operations.set(self.operations.get() + operations);
                    self.latencies.borrow_mut().add(began.elapsed());
                }
                Err(error) => *self.failure.borrow_mut() = Some(error),
            }
        }
    }

    async fn write(self: &Rc<Self>, random: &mut Random) -> Result<u64, String> {
        let mut puts = Vec::new();
        for _ in 0..self.options.batch {
            let number = if self.work == Work::Fill {
                let number = self.next.get();
                if number == self.options.items {
                    break;
                }
                self.next.set(number + 1);
                number
            } else {
                random.below(self.options.items)
            };
            let (bench, version) = (Rc::clone(self), random.next_u64());
            puts.push(spawn(&self.runtime, Queue::Foreground, async move {
                bench.put(number, version).await
            }));
        }
        let mut done = 0;
        for put in puts {
            done += put.await.map_err(|_| "the shard stops".to_owned())??;
        }
        Ok(done)
    }

    async fn put(&self, number: u64, version: u64) -> Result<u64, String> {
        let key = key(number);
        let item = item(self.options.content, number, version, self.options.item_bytes);
        let item_bytes = u32::try_from(item.len()).expect("items are small");
        let change = Change::Put { item, item_bytes };
        let put = self
            .engine
            .update(self.partition(&key), &key, |_| (change, ()))
            .await;
        put.map(|_| 1).map_err(|error| error.to_string())
    }

    async fn read(&self, number: u64) -> Result<u64, String> {
        let key = key(number);
        let found = self.engine.get(self.partition(&key), &key).await;
        let found = found.map_err(|error| error.to_string())?;
        if found.is_some() == (number < self.options.items) {
            Ok(1)
        } else {
            Err(format!("item {number} is there or not, wrongly"))
        }
    }

    async fn scan(&self, number: u64) -> Result<u64, String> {
        let key = key(number);
        let range = Range {
            lower: Bound::Included(key.clone()),
            upper: Bound::Unbounded,
        };
        let mut scan = self.engine.scan(self.partition(&key), range, Direction::Forward);
        let mut seen = 0;
        while seen < self.options.scan_items as u64 {
            match scan.next().await.map_err(|error| error.to_string())? {
                Some(_) => seen += 1,
                None => break,
            }
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use cairn_item::KeyValue;

    use super::*;

    #[test]
    fn boundaries_cut_the_hashes_evenly() {
        assert_eq!(boundary(1, 2)[1..], [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(boundary(1, 128) < boundary(2, 128));
        let partition_key = KeyValue::S("k".to_owned());
        assert!(
            StorageKey::new(Space::Base, 7, &partition_key, None).as_bytes() >= boundary(0, 2).as_slice()
        );
    }
}
