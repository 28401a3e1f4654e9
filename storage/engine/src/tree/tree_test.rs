//! The tree against a slow, obvious model, and against what drives do to files.

mod damage_test;
mod items_test;
mod model_test;
mod shape_test;
mod trim_test;

use std::cell::{Cell, RefCell};
use std::ops::Bound;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use cairn_runtime::sim::{Config, DriveControl, Handle, NodeIndex, SimRuntime, Simulation};
use cairn_runtime::{Runtime, ShardIndex};

use super::*;
use crate::ids::{IndexId, LogId, NodeId, PartitionId, SegmentId, TableId};
use crate::manifest::{Edit, ManifestState};
use crate::sealing::{NodeKey, RootKey, TableKeys};
use crate::volume::{DriveIndex, DriveSet};

const PARTITION: PartitionId = PartitionId(7);
const PATHS: [&str; 2] = ["/one", "/two"];

/// Drives that are live until they are reported.
#[derive(Clone, Default)]
struct Watch(Rc<Cell<DriveSet>>);

impl DriveWatch for Watch {
    fn live(&self) -> DriveSet {
        self.0.get()
    }

    fn report_failed(&self, drive: DriveIndex, _why: String) -> Reported {
        let live = Rc::clone(&self.0);
        Box::pin(async move {
            live.set(live.get().without(drive));
            Ok(())
        })
    }
}

/// A tree with its manifest, as the engine would hold them.
struct Bench {
    runtime: SimRuntime,
    watch: Watch,
    config: CompactionConfig,
    cache_bytes: u64,
    key: Option<Arc<NodeKey>>,
    tree: Rc<Tree<SimRuntime>>,
    context: TreeContext<SimRuntime>,
    manifest: RefCell<ManifestState>,
    next: Cell<u64>,
    commit: Cell<u64>,
}

const SMALL: CompactionConfig = CompactionConfig {
    segment_bytes: 64 << 10,
    level0_segments: 3,
    level1_bytes_min: 128 << 10,
    level_ratio: 4,
    compression: Compression::Lz4,
};

fn descriptor() -> PartitionDescriptor {
    PartitionDescriptor {
        id: PARTITION,
        table: TableId(5),
        index: IndexId(1),
        lower: Vec::new(),
        upper: None,
    }
}

async fn context(
    runtime: &SimRuntime,
    watch: &Watch,
    cache_bytes: u64,
    config: CompactionConfig,
    key: Option<Arc<NodeKey>>,
) -> TreeContext<SimRuntime> {
    let mut drives = Vec::new();
    for (at, path) in PATHS.iter().enumerate() {
        let index = DriveIndex::new(at).unwrap();
        if let Ok(drive) = runtime.drive(Path::new(path), true).await {
            drives.push((index, drive));
        }
    }
    let store = StoreConfig {
        node: NodeId(3),
        mirrors: 2,
        cache_bytes,
        item_cache_eighths: 4,
        open_files_max: 6,
    };
    TreeContext::over(
        SegmentStore::sealed(
            runtime.clone(),
            store,
            TableKeys::new(key),
            &drives,
            watch.clone(),
        ),
        config,
    )
}

impl Bench {
    async fn new(runtime: SimRuntime, cache_bytes: u64, config: CompactionConfig, sealed: bool) -> Bench {
        let make = || RootKey::new([1; 32]).make_node_key(&runtime, NodeId(3)).0;
        let key = sealed.then(make).map(Arc::new);
        let watch = Watch::default();
        watch
            .0
            .set((0..PATHS.len()).filter_map(DriveIndex::new).collect());
        let context = context(&runtime, &watch, cache_bytes, config, key.clone()).await;
        let mut manifest = ManifestState::default();
        manifest.apply(&Edit::CreatePartition(descriptor())).unwrap();
        Bench {
            tree: Rc::new(Tree::new(&context, &descriptor())),
            runtime,
            watch,
            config,
            cache_bytes,
            key,
            context,
            manifest: RefCell::new(manifest),
            next: Cell::new(0),
            commit: Cell::new(0),
        }
    }

    fn next_segment(&self) -> SegmentId {
        self.next.set(self.next.get() + 1);
        SegmentId::new(LogId(2), self.next.get()).unwrap()
    }

    fn next_commit(&self) -> CommitTimestamp {
        self.commit.set(self.commit.get() + 1);
        CommitTimestamp(self.commit.get())
    }

    fn put(&self, key: &[u8], item: &[u8]) -> CommitTimestamp {
        let commit = self.next_commit();
        let item_bytes = u32::try_from(item.len()).unwrap();
        self.tree
            .insert(key, Version::put(commit, item_bytes, item), LogSequence(commit.0));
        commit
    }

    fn delete(&self, key: &[u8]) -> CommitTimestamp {
        let commit = self.next_commit();
        self.tree
            .insert(key, Version::tombstone(commit), LogSequence(commit.0));
        commit
    }

    fn edit(&self, prepared: &Prepared<SimRuntime>) {
        let partition = PARTITION;
        let mut manifest = self.manifest.borrow_mut();
        let removed = prepared.removed.iter().map(|segment| Edit::RemoveSegment {
            partition,
            segment: *segment,
        });
        let added = prepared.added.iter().map(|segment| Edit::AddSegment {
            partition,
            segment: segment.clone(),
        });
        for edit in removed.chain(added) {
            manifest.apply(&edit).unwrap();
        }
        manifest.validate().unwrap();
    }

    async fn flush(&self) -> Result<(), TreeError> {
        self.tree.freeze();
        while self.tree.frozen_bytes() > 0 {
            let prepared = self.tree.flush(|| self.next_segment()).await?;
            self.edit(&prepared);
            self.tree.install_flush(prepared);
        }
        Ok(())
    }

    /// One compaction; whether there was one to do.
    async fn compact(&self) -> Result<bool, TreeError> {
        let Some(prepared) = self.tree.compact(Urge::Debt, || self.next_segment()).await? else {
            return Ok(false);
        };
        self.edit(&prepared);
        self.tree.install_compaction(prepared);
        Ok(true)
    }

    async fn compact_all(&self) {
        while self.compact().await.unwrap() {}
        assert_eq!(self.tree.compaction_debt(), 0);
    }

    /// Forgets everything in memory but the manifest, as a restart does. The memtable must have been flushed.
    async fn reopen(&mut self) -> Result<(), TreeError> {
        let key = self.key.clone();
        self.context = context(&self.runtime, &self.watch, self.cache_bytes, self.config, key).await;
        self.tree = Rc::new(Tree::new(&self.context, &descriptor()));
        let segments = self.manifest.borrow().partitions[&PARTITION].segments.clone();
        self.tree.open_segments(segments.values()).await
    }

    fn stats(&self) -> StoreStats {
        self.context.store().stats()
    }

    async fn item(&self, key: &[u8]) -> Option<Vec<u8>> {
        let version = self.tree.get(key).await.unwrap()?;
        (!version.is_tombstone()).then(|| version.item.to_vec())
    }

    async fn everything(&self, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut cursor = self.tree.scan(Bound::Unbounded, Bound::Unbounded, direction);
        let mut found = Vec::new();
        while let Some((key, version)) = cursor.next().await.unwrap() {
            found.push((key, version.item.to_vec()));
        }
        if direction == Direction::Backward {
            found.reverse();
        }
        found
    }

    /// Lets background tasks (repairs, sweeps) end.
    async fn settle(&self) {
        self.runtime.sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// Runs a scenario on a node with two drives. Those of odd seeds are sealed.
fn simulate<T: 'static>(
    seed: u64,
    cache_bytes: u64,
    config: CompactionConfig,
    scenario: impl AsyncFnOnce(Bench, [DriveControl; 2], Handle) -> T + 'static,
) -> T {
    let simulation = Simulation::new(seed, Config::default());
    let handle = Handle::clone(&simulation);
    simulation.block_on(NodeIndex(0), ShardIndex(0), async move |runtime| {
        let bench = Bench::new(runtime, cache_bytes, config, seed % 2 == 1).await;
        let drives = PATHS.map(|path| handle.drive(NodeIndex(0), path));
        scenario(bench, drives, handle).await
    })
}

/// Bytes that look random and can be told from each other.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    cairn_runtime::sim::Random::new(seed).fill(&mut bytes);
    bytes
}

/// Bytes as items have them, which pack well, and can be told from each other.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let random = bytes(seed, length);
    let mut text = Vec::new();
    for piece in random.chunks(6) {
        text.extend_from_slice(b"name, ");
        text.extend_from_slice(piece);
        text.extend_from_slice(b" of the item; ");
    }
    text.truncate(length);
    text
}

/// A key as the engine's: space, hash, partition key, sort key.
fn key(number: u64) -> Vec<u8> {
    let hash = crate::checksum::checksum(1, &number.to_le_bytes()).to_be_bytes();
    [&[1], &hash[..], format!("user#{number}").as_bytes(), &[0, 0]].concat()
}
