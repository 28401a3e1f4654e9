//! A simulated node with two mirrors, and an engine on it.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared by test files, each of which uses another part"
)]

use std::ops::Bound;
use std::path::PathBuf;
use std::rc::Rc;

use cairn_engine::ids::{CommitTimestamp, IndexId, LogId, PartitionId, TableId};
use cairn_engine::sealing::{Keys, RootKey};
use cairn_engine::volume::{Keeper, VolumeConfig, VolumeHandle};
use cairn_engine::{
    Change, Direction, Engine, EngineConfig, EngineError, PartitionDescriptor, Range, Stored, Updated,
};
use cairn_runtime::ShardIndex;
use cairn_runtime::sim::{Config, DriveControl, NodeIndex, SimRuntime, Simulation};

pub const NODE: NodeIndex = NodeIndex(0);
pub const P1: PartitionId = PartitionId(1);
pub const P2: PartitionId = PartitionId(2);

pub type SimEngine = Engine<SimRuntime>;

pub struct World {
    pub sim: Simulation,
    pub keys: Keys,
    pub config: EngineConfig,
}

/// An engine in its world, for the length of a scenario.
pub struct Running {
    pub engine: SimEngine,
    pub runtime: SimRuntime,
    _keeper: Keeper<SimRuntime>,
}

impl Running {
    pub fn volume(&self) -> VolumeHandle {
        self._keeper.handle()
    }
}

/// What the node of these tests is encrypted under.
pub fn root_key() -> RootKey {
    RootKey::new([7; 32])
}

pub fn volume_config() -> VolumeConfig {
    VolumeConfig {
        drives: vec![PathBuf::from("/mirror-0"), PathBuf::from("/mirror-1")],
        state: PathBuf::from("/state"),
        mirrors: 2,
        accept_epoch: None,
        keys: Keys::of(root_key()),
    }
}

/// Limits so small that a few hundred writes flush, compact and recycle.
pub fn small() -> EngineConfig {
    let mut config = EngineConfig {
        memtable_bytes: 64 << 10,
        cache_bytes: 64 << 10,
        log_file_bytes: 64 << 10,
        log_files_max: 6,
        item_bytes_max: 16 << 10,
        segment_bytes: 64 << 10,
        ..EngineConfig::default()
    };
    config.log.batch_bytes = 16 << 10;
    config.log.first_file_bytes = 64 << 10;
    config
}

impl World {
    pub fn new(seed: u64, config: EngineConfig) -> World {
        World {
            keys: Keys::of(root_key()),
            sim: Simulation::new(
                seed,
                Config {
                    trace_tail: 20,
                    ..Config::default()
                },
            ),
            config,
        }
    }

    /// A world whose node is not encrypted, so that what is written can be found in its files.
    pub fn plain(seed: u64, config: EngineConfig) -> World {
        World {
            keys: Keys::default(),
            ..World::new(seed, config)
        }
    }

    pub fn volume_config(&self) -> VolumeConfig {
        VolumeConfig {
            keys: self.keys.clone(),
            ..volume_config()
        }
    }

    pub fn mirror(&self, at: usize) -> DriveControl {
        self.sim.drive(NODE, format!("/mirror-{at}"))
    }

    pub fn open(&self) -> Running {
        self.try_open().expect("the engine opens")
    }

    pub fn try_open(&self) -> Result<Running, String> {
        self.try_open_on(self.volume_config())
    }

    pub fn try_open_on(&self, volume: VolumeConfig) -> Result<Running, String> {
        let config = self.config.clone();
        self.sim.block_on(NODE, ShardIndex(0), async move |runtime| {
            let keeper = Keeper::open(runtime.clone(), volume)
                .await
                .map_err(|error| error.to_string())?;
            let volume = keeper
                .handle()
                .attach(runtime.clone())
                .await
                .map_err(|error| error.to_string())?;
            let engine = Engine::open(runtime.clone(), volume, LogId(0), config).await;
            let engine = engine.map_err(|error| error.to_string())?;
            Ok(Running {
                engine,
                runtime,
                _keeper: keeper,
            })
        })
    }

    /// Runs something on the node.
    pub fn run<T: 'static>(&self, task: impl AsyncFnOnce(SimRuntime) -> T + 'static) -> T {
        self.sim.block_on(NODE, ShardIndex(0), task)
    }

    /// Runs something with an engine that has partitions 1 and 2.
    pub fn with<T: 'static>(&self, running: &Running, task: impl AsyncFnOnce(SimEngine) -> T + 'static) -> T {
        let engine = running.engine.clone();
        self.run(async move |_| {
            for id in [P1, P2] {
                engine
                    .create_partition(descriptor(id))
                    .await
                    .expect("partitions can be created");
            }
            task(engine).await
        })
    }

    pub fn crash(&self, running: Running) {
        drop(running);
        self.sim.crash(NODE);
        self.sim.restart(NODE);
    }

    pub fn close(&self, running: Running) {
        let engine = running.engine.clone();
        self.run(async move |_| engine.close().await.expect("the engine closes"));
        drop(running);
        self.sim.kill(NODE);
        self.sim.restart(NODE);
    }
}

pub fn descriptor(id: PartitionId) -> PartitionDescriptor {
    PartitionDescriptor {
        id,
        table: TableId(1),
        index: IndexId(0),
        lower: Vec::new(),
        upper: None,
    }
}

pub fn key(number: u64) -> Vec<u8> {
    format!("key-{number:06}").into_bytes()
}

pub async fn put(
    engine: &SimEngine,
    partition: PartitionId,
    key: &[u8],
    item: &[u8],
) -> Result<Updated<()>, EngineError> {
    let change = Change::Put {
        item: item.to_vec(),
        item_bytes: item.len() as u32,
    };
    engine.update(partition, key, |_| (change, ())).await
}

pub async fn delete(
    engine: &SimEngine,
    partition: PartitionId,
    key: &[u8],
) -> Result<Updated<()>, EngineError> {
    engine.update(partition, key, |_| (Change::Delete, ())).await
}

pub async fn get(engine: &SimEngine, partition: PartitionId, key: &[u8]) -> Option<Vec<u8>> {
    let stored: Option<Stored> = engine.get(partition, key).await.expect("the partition serves");
    stored.map(|stored| stored.to_vec())
}

pub async fn scan_all(
    engine: &SimEngine,
    partition: PartitionId,
    direction: Direction,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let range = Range {
        lower: Bound::Unbounded,
        upper: Bound::Unbounded,
    };
    let mut scan = engine.scan(partition, range, direction);
    let mut items = Vec::new();
    while let Some((key, stored)) = scan.next().await.expect("the partition serves") {
        items.push((key, stored.to_vec()));
    }
    items
}

/// Item `number`, `bytes` long.
pub fn item(number: u64, bytes: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(bytes).collect()
}

/// Writes until the first log file has been reused.
pub async fn fill(engine: &SimEngine, partition: PartitionId, count: u64, bytes: usize) -> CommitTimestamp {
    let mut last = CommitTimestamp(0);
    for number in 0..count {
        let put = put(engine, partition, &key(number % 100), &item(number, bytes)).await;
        last = put
            .expect("there is room")
            .commit
            .expect("a put changes something");
    }
    last
}

pub type Shared<T> = Rc<std::cell::RefCell<T>>;
