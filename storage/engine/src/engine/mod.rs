//! INTERIM: the engine's public face over maps in memory, so that what stands above can be written against it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::ops::{Bound, Deref};
use std::rc::Rc;

use cairn_runtime::Runtime;

use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::ids::{CommitTimestamp, IndexId, LogId, PartitionId, TableId};
use crate::stats::EngineStats;
use crate::volume::Volume;

/// What a partition is: ids that are never reused, and the range of keys it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescriptor {
    /// Its id.
    pub id: PartitionId,
    /// The table it belongs to.
    pub table: TableId,
    /// The index it belongs to; zero is the base table.
    pub index: IndexId,
    /// Least key it owns.
    pub lower: Vec<u8>,
    /// Least key beyond it; none is the end of the key space.
    pub upper: Option<Vec<u8>>,
}

/// A partition as it stands: applied state only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its id.
    pub id: PartitionId,
    /// The table it belongs to.
    pub table: TableId,
    /// The index it belongs to; zero is the base table.
    pub index: IndexId,
    /// Least key it owns.
    pub lower: Vec<u8>,
    /// Least key beyond it.
    pub upper: Option<Vec<u8>>,
    /// Items it holds.
    pub item_count: u64,
    /// Their DynamoDB sizes summed, in bytes.
    pub item_bytes: u64,
    /// Greatest commit timestamp applied; zero when nothing was ever written.
    pub floor: CommitTimestamp,
    /// Why it does not serve, when it is fenced.
    pub fenced: Option<Rc<str>>,
}

/// What `decide` wants done with the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// Store this item.
    Put {
        /// Archived bytes, opaque to the engine.
        item: Vec<u8>,
        /// Its DynamoDB size in bytes.
        item_bytes: u32,
    },
    /// Remove the item. Of nothing, it changes nothing.
    Delete,
}

/// The newest proposed state of a key, lent to `decide`.
#[derive(Debug, Clone, Copy)]
pub struct StoredRef<'a> {
    /// Archived bytes.
    pub item: &'a [u8],
    /// DynamoDB size in bytes.
    pub item_bytes: u32,
    /// The version.
    pub commit: CommitTimestamp,
}

/// A stored item: a handle to its bytes in memory. Cheap to clone. Derefs to the archived bytes.
#[derive(Debug, Clone)]
pub struct Stored {
    item: Rc<[u8]>,
    item_bytes: u32,
    commit: CommitTimestamp,
}

impl Stored {
    /// Archived bytes.
    #[must_use]
    pub fn item(&self) -> &[u8] {
        &self.item
    }

    /// DynamoDB size in bytes.
    #[must_use]
    pub fn item_bytes(&self) -> u32 {
        self.item_bytes
    }

    /// The version.
    #[must_use]
    pub fn commit(&self) -> CommitTimestamp {
        self.commit
    }
}

impl Deref for Stored {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.item
    }
}

/// What an update did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated<T> {
    /// What `decide` returned beside the change.
    pub outcome: T,
    /// The new version; none when nothing changed.
    pub commit: Option<CommitTimestamp>,
    /// DynamoDB size of the item that was there.
    pub old_item_bytes: Option<u32>,
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub lower: Bound<Vec<u8>>,
    /// Where it ends.
    pub upper: Bound<Vec<u8>>,
}

/// Order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// One engine: one log and the trees of its partitions. Clones share it. Belongs to one shard.
pub struct Engine<R: Runtime> {
    inner: Rc<Inner<R>>,
}

impl<R: Runtime> Clone for Engine<R> {
    fn clone(&self) -> Engine<R> {
        Engine {
            inner: Rc::clone(&self.inner),
        }
    }
}

struct Inner<R: Runtime> {
    runtime: R,
    _volume: Volume<R>,
    partitions: RefCell<BTreeMap<PartitionId, Partition>>,
    stats: RefCell<EngineStats>,
}

struct Partition {
    info: PartitionInfo,
    items: BTreeMap<Vec<u8>, Stored>,
}

impl<R: Runtime> Engine<R> {
    /// Recovers the log `log` of `volume`, creating it when it does not exist, and serves its partitions.
    ///
    /// # Errors
    /// Anything that keeps the whole log from being served; a loss that concerns single partitions fences those.
    pub async fn open(
        runtime: R,
        volume: Volume<R>,
        log: LogId,
        config: EngineConfig,
    ) -> Result<Engine<R>, EngineError> {
        let _ = (log, config);
        let inner = Inner {
            runtime,
            _volume: volume,
            partitions: RefCell::new(BTreeMap::new()),
            stats: RefCell::new(EngineStats::default()),
        };
        Ok(Engine {
            inner: Rc::new(inner),
        })
    }

    /// All partitions, by id.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionInfo> {
        self.inner
            .partitions
            .borrow()
            .values()
            .map(|partition| partition.info.clone())
            .collect()
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<PartitionInfo> {
        self.inner
            .partitions
            .borrow()
            .get(&partition)
            .map(|partition| partition.info.clone())
    }

    /// Creates a partition; resolves when that is durable. Creating the same one again does nothing.
    ///
    /// # Errors
    /// `PartitionConflict` when the id exists with another description; the log's errors.
    pub async fn create_partition(&self, descriptor: PartitionDescriptor) -> Result<(), EngineError> {
        let mut partitions = self.inner.partitions.borrow_mut();
        if let Some(partition) = partitions.get(&descriptor.id) {
            let same = partition.info.table == descriptor.table
                && partition.info.index == descriptor.index
                && partition.info.lower == descriptor.lower
                && partition.info.upper == descriptor.upper;
            return if same {
                Ok(())
            } else {
                Err(EngineError::PartitionConflict(descriptor.id))
            };
        }
        let info = PartitionInfo {
            id: descriptor.id,
            table: descriptor.table,
            index: descriptor.index,
            lower: descriptor.lower,
            upper: descriptor.upper,
            item_count: 0,
            item_bytes: 0,
            floor: CommitTimestamp(0),
            fenced: None,
        };
        partitions.insert(
            info.id,
            Partition {
                info,
                items: BTreeMap::new(),
            },
        );
        Ok(())
    }

    /// Removes a partition and everything in it; resolves when that is durable. Idempotent.
    ///
    /// # Errors
    /// The log's errors.
    pub async fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError> {
        self.inner.partitions.borrow_mut().remove(&partition);
        Ok(())
    }

    /// Reads the newest proposed state of `key`, lets `decide` choose what becomes of it, and resolves when
    /// the position that `decide` saw and its own change are durable and applied.
    ///
    /// # Errors
    /// See [`EngineError::kind`]. Unless it is `Unknown`, nothing was written.
    pub async fn update<T>(
        &self,
        partition: PartitionId,
        key: &[u8],
        decide: impl FnOnce(Option<StoredRef<'_>>) -> (Change, T),
    ) -> Result<Updated<T>, EngineError> {
        self.inner.runtime.yield_now().await;
        let mut partitions = self.inner.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(&partition) else {
            return Err(EngineError::NoSuchPartition(partition));
        };
        let old = partition.items.get(key);
        let old_item_bytes = old.map(Stored::item_bytes);
        let (change, outcome) = decide(old.map(|old| StoredRef {
            item: &old.item,
            item_bytes: old.item_bytes,
            commit: old.commit,
        }));
        let info = &mut partition.info;
        let clock = CommitTimestamp(self.inner.runtime.unix_ms() << 16);
        let commit = clock.max(CommitTimestamp(info.floor.0 + 1));
        let mut stats = self.inner.stats.borrow_mut();
        let (new, new_bytes) = match change {
            Change::Put { item, item_bytes } => (
                Some(Stored {
                    item: item.into(),
                    item_bytes,
                    commit,
                }),
                item_bytes,
            ),
            Change::Delete if old_item_bytes.is_some() => (None, 0),
            Change::Delete | Change::Keep => {
                stats.unchanged += 1;
                return Ok(Updated {
                    outcome,
                    commit: None,
                    old_item_bytes,
                });
            }
        };
        stats.mutations += 1;
        info.floor = commit;
        info.item_count = info.item_count + u64::from(new.is_some()) - u64::from(old_item_bytes.is_some());
        info.item_bytes = info.item_bytes + u64::from(new_bytes) - u64::from(old_item_bytes.unwrap_or(0));
        match new {
            Some(new) => drop(partition.items.insert(key.to_vec(), new)),
            None => drop(partition.items.remove(key)),
        }
        Ok(Updated {
            outcome,
            commit: Some(commit),
            old_item_bytes,
        })
    }

    /// Reads the applied state of `key`.
    ///
    /// # Errors
    /// `NoSuchPartition`, `Fenced`, or what the drives say.
    pub async fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Stored>, EngineError> {
        self.get_cached(partition, key).expect("everything is in memory")
    }

    /// As [`Engine::get`], when it can be answered without a drive read; else none.
    pub fn get_cached(
        &self,
        partition: PartitionId,
        key: &[u8],
    ) -> Option<Result<Option<Stored>, EngineError>> {
        let partitions = self.inner.partitions.borrow();
        let Some(partition) = partitions.get(&partition) else {
            return Some(Err(EngineError::NoSuchPartition(partition)));
        };
        Some(Ok(partition.items.get(key).cloned()))
    }

    /// The applied items of `range`, in order, as they are when the scan reaches them.
    pub fn scan(&self, partition: PartitionId, range: Range, direction: Direction) -> Scan<R> {
        let partitions = self.inner.partitions.borrow();
        let items = partitions.get(&partition).map(|partition| {
            let mut items: VecDeque<_> = partition
                .items
                .range((range.lower, range.upper))
                .map(|(key, stored)| (key.clone(), stored.clone()))
                .collect();
            if direction == Direction::Backward {
                items.make_contiguous().reverse();
            }
            items
        });
        Scan {
            items: items.ok_or(EngineError::NoSuchPartition(partition)),
            runtime: PhantomData,
        }
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let mut stats = self.inner.stats.borrow().clone();
        stats.partitions = self.inner.partitions.borrow().len() as u64;
        stats
    }

    /// Writes the log's marker and stops the background tasks. Later calls answer `Stopped`.
    ///
    /// # Errors
    /// The log's errors; everything acknowledged is durable all the same.
    pub async fn close(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// A scan in progress.
pub struct Scan<R: Runtime> {
    items: Result<VecDeque<(Vec<u8>, Stored)>, EngineError>,
    runtime: PhantomData<R>,
}

impl<R: Runtime> Scan<R> {
    /// The next item and its key, none at the end.
    ///
    /// # Errors
    /// As [`Engine::get`]. The scan is over then.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Stored)>, EngineError> {
        match &mut self.items {
            Ok(items) => Ok(items.pop_front()),
            Err(error) => Err(error.clone()),
        }
    }
}
