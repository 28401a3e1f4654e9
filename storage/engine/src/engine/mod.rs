//! The engine: one log, the trees of its partitions, and what moves data between them.
//!
//! Read in this order: [`types`] (what callers see), `write` (propose, commit, apply), `partition`, `edits`
//! (changes of the manifest), `maintain` (flush, release, compaction), `scrub`, `remirror`, `snapshot`, [`backup`],
//! `replay` and `recovery` (start).
//!
//! **Invariants**
//! 1. Everything durable is in the log before it is applied, and stays there until it is in segments whose
//!    manifest edit is durable.
//! 2. Readers see applied state only; an answer that was decided on proposed state waits until that is applied.
//! 3. Per partition, raft indexes have no gaps, and commit timestamps ascend with them, over all restarts.
//! 4. A partition that lost acknowledged data serves nothing and says what is lost; the others go on.
//!
//! What the design buys: one sequential write per group of mutations, whatever partitions they belong to. What it
//! costs: a partition that is seldom written pins the log, and is flushed for that alone.

pub mod backup;
mod edits;
mod files;
mod latch;
mod maintain;
pub(crate) mod partition;
mod pressure;
mod recovery;
mod rekey;
mod remirror;
pub(crate) mod replay;
mod scan;
mod scrub;
pub mod snapshot;
mod space;
mod timestamps;
pub mod types;
mod write;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use cairn_runtime::sync::{Notify, Progress, WaitGroup};
use cairn_runtime::{Queue, Runtime};

use self::backup::Backing;
use self::partition::{Applied, Partition, Standing};
use self::pressure::Gate;
use self::rekey::Rekey;
use self::remirror::Remirror;
use self::scrub::Scrub;
use self::space::{Claim, Room};
use self::timestamps::Clock;
use self::write::Proposal;
use crate::config::EngineConfig;
use crate::error::EngineError;
use crate::group::Counter;
use crate::ids::{CommitTimestamp, LogId, LogSequence, PartitionId, SegmentId, Term};
use crate::log::{Log, LogError, Recovery};
use crate::manifest::{Edit, ManifestState};
use crate::stats::{Counts, EngineStats};
use crate::tree::{Compression, NEWEST, Tree, TreeContext, TreeError, TreeSpace, Version};
use crate::volume::Volume;

pub use scan::Scan;
pub use snapshot::Snapshot;
pub use types::{
    Change, Decision, Derived, Direction, IndexUsage, PartitionDescriptor, PartitionInfo, Range, Stored,
    StoredRef, Updated,
};

/// The term of a partition with one replica.
const TERM: Term = Term(1);

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
    config: EngineConfig,
    volume: Volume<R>,
    log: Log<R>,
    recovery: Recovery,
    trees: TreeContext<R>,
    partitions: RefCell<BTreeMap<PartitionId, Rc<Partition<R>>>>,
    /// Partitions whose drop is not durable, with its batch: they pin the log still.
    dropping: RefCell<Vec<(LogSequence, Rc<Partition<R>>)>>,
    /// Everything edited, whether or not it is durable yet.
    manifest: RefCell<ManifestState>,
    next_segment: Cell<u64>,
    /// Batch at which the last durable snapshot of the manifest began.
    snapshot_start: Cell<LogSequence>,
    /// Log bytes that it took, and the log's bytes at its end.
    snapshot_cost: Cell<(u64, u64)>,
    /// Batches below this one have been given back to the log.
    released: Cell<LogSequence>,
    clock: RefCell<Clock>,
    /// Proposals that are not applied, in log order.
    queue: RefCell<VecDeque<Proposal<R>>>,
    /// Number of the last proposal.
    proposals: Cell<u64>,
    proposed: Notify,
    /// Number of the last proposal applied.
    applied: Progress,
    last_applied: Cell<LogSequence>,
    scratch: RefCell<Vec<u8>>,
    /// Bytes in all memtables.
    memory: Cell<usize>,
    gate: Gate,
    log_tight: Cell<bool>,
    /// The full drive that background work has met.
    out_of_space: RefCell<Option<Rc<str>>>,
    room: Room,
    /// Memory or log space has become free, or will not.
    relief: Notify,
    work: Notify,
    compactable: Notify,
    /// Something about the drives has changed, or been asked for.
    attention: Notify,
    scrub: Scrub,
    remirror: Remirror,
    backing: Backing,
    rekey: Rekey,
    tasks: WaitGroup,
    /// Why nothing is written any more.
    stopped: RefCell<Option<Rc<str>>>,
    closing: Cell<bool>,
    counts: Counts,
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
        let inner = Rc::new(recovery::recover(runtime, volume, log, config).await?);
        for (queue, task) in [
            (Queue::Foreground, 0),
            (Queue::Background, 1),
            (Queue::Background, 2),
            (Queue::Background, 3),
            (Queue::Background, 4),
        ] {
            let (token, inner) = (inner.tasks.enter(), Rc::clone(&inner));
            inner.runtime.clone().spawn(queue, async move {
                match task {
                    0 => write::commit(inner).await,
                    1 => maintain::flush(inner).await,
                    2 => maintain::compact(inner).await,
                    3 => scrub::scrub(inner).await,
                    _ => remirror::remirror(inner).await,
                }
                drop(token);
            });
        }
        let (mut changes, heeding) = (inner.volume.handle().subscribe(), Rc::downgrade(&inner));
        inner.runtime.spawn(Queue::Background, async move {
            while changes.changed().await
                && let Some(inner) = heeding.upgrade()
            {
                inner.attention.notify_all();
                inner.heed_rekey();
                inner.tell_rekey().await;
            }
        });
        inner.look_for_work();
        inner.compactable.notify_one();
        Ok(Engine { inner })
    }

    /// All partitions, by id.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionInfo> {
        self.inner
            .partitions
            .borrow()
            .values()
            .map(|partition| partition.info())
            .collect()
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<PartitionInfo> {
        self.inner
            .partitions
            .borrow()
            .get(&partition)
            .map(|partition| partition.info())
    }

    /// Creates a partition; resolves when that is durable. Creating the same one again does nothing.
    ///
    /// # Errors
    /// `PartitionConflict` when the id exists with another description; the log's errors.
    pub async fn create_partition(&self, descriptor: PartitionDescriptor) -> Result<(), EngineError> {
        let inner = &self.inner;
        inner.check_runs()?;
        let id = descriptor.id;
        let empty = descriptor
            .upper
            .as_ref()
            .is_some_and(|upper| *upper <= descriptor.lower);
        if empty || id == PartitionId(0) {
            return Err(EngineError::PartitionConflict(id));
        }
        if let Some(existing) = inner.manifest.borrow().partitions.get(&id)
            && existing.descriptor != descriptor
        {
            return Err(EngineError::PartitionConflict(id));
        }
        if inner.partitions.borrow().contains_key(&id) {
            return Ok(());
        }
        let durable = inner
            .edit(id, &[Edit::CreatePartition(descriptor.clone())])
            .await?;
        inner.durable(durable).await?;
        // Another call may have been first, or a drop may have followed.
        if inner.manifest.borrow().partitions.contains_key(&id) {
            let mut partitions = inner.partitions.borrow_mut();
            partitions.entry(id).or_insert_with(|| {
                let tree = Tree::new(&inner.trees, &descriptor);
                let partition = Partition::new(descriptor, tree, Applied::default());
                // What is open may be ahead of the clock.
                let floor = inner.trees.newest_snapshot().unwrap_or_default();
                partition.proposed_commit.set(floor);
                Rc::new(partition)
            });
        }
        Ok(())
    }

    /// Removes a partition and everything in it; resolves when that is durable. Idempotent.
    ///
    /// # Errors
    /// The log's errors.
    pub async fn drop_partition(&self, partition: PartitionId) -> Result<(), EngineError> {
        let inner = &self.inner;
        inner.check_runs()?;
        let durable = match inner.edit(partition, &[Edit::DropPartition(partition)]).await {
            Ok(durable) => durable,
            Err(EngineError::NoSuchPartition(_)) => return inner.dropped(partition).await,
            Err(error) => return Err(error),
        };
        // In the same step as the edit, so that no mutation is proposed behind it.
        let proposals = inner.proposals.get();
        let Some(dropping) = inner.partitions.borrow_mut().remove(&partition) else {
            return inner.durable(durable).await;
        };
        *dropping.standing.borrow_mut() = Standing::Dropping;
        inner.dropping.borrow_mut().push((durable, Rc::clone(&dropping)));
        inner.durable(durable).await?;
        inner.wait_applied(Some(proposals)).await?;
        *dropping.standing.borrow_mut() = Standing::Dropped;
        inner
            .dropping
            .borrow_mut()
            .retain(|(_, other)| !Rc::ptr_eq(other, &dropping));
        let bytes = dropping.unflushed_bytes();
        inner.memory.set(inner.memory.get() - bytes);
        dropping.tree.remove_all();
        inner.relief.notify_all();
        inner.work.notify_one();
        Ok(())
    }

    /// Has background work leave out the keys from `lower` to before `upper`: each of them was put once and never deleted or read by a
    /// snapshot, and nobody reads it any more. It replaces what was given before, and is forgotten when the engine is closed.
    ///
    /// # Errors
    /// `NoSuchPartition`, `Fenced`.
    pub fn trim(&self, partition: PartitionId, lower: Vec<u8>, upper: Vec<u8>) -> Result<(), EngineError> {
        let inner = &self.inner;
        inner.serving(partition)?.tree.trim(lower, upper);
        inner.compactable.notify_one();
        Ok(())
    }

    /// Has what is flushed and compacted of the partition from now on be packed so, also when the engine is opened again; without
    /// it as [`EngineConfig::compression`] says. What is stored stays readable, and as it is until it is rewritten. Resolves when
    /// that is durable; what the partition is packed with already costs nothing.
    ///
    /// # Errors
    /// `NoSuchPartition`, `Fenced`, the log's errors.
    pub async fn pack_with(
        &self,
        id: PartitionId,
        compression: Option<Compression>,
    ) -> Result<(), EngineError> {
        let inner = &self.inner;
        let partition = inner.serving(id)?;
        let known = {
            let manifest = inner.manifest.borrow();
            manifest.partitions.get(&id).map(|state| state.compression)
        };
        if known == Some(compression) {
            return Ok(());
        }
        let edit = Edit::Packing {
            partition: id,
            compression,
        };
        let durable = inner.edit(id, &[edit]).await?;
        // In the same step as the edit, so that of two calls the same one wins in both.
        partition.tree.pack_with(compression);
        inner.durable(durable).await
    }

    /// Resolves when everything proposed so far is durable and applied.
    ///
    /// # Errors
    /// `Unknown` when the engine stops.
    pub async fn settled(&self) -> Result<(), EngineError> {
        self.inner.wait_applied(Some(self.inner.proposals.get())).await
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
        let decide = |newest: Option<StoredRef<'_>>| {
            let (change, outcome) = decide(newest);
            Decision {
                change,
                derived: Vec::new(),
                outcome,
            }
        };
        let update = self
            .inner
            .update(partition, key, Counter::Items, Claim::New, decide);
        update.await
    }

    /// As [`Engine::update`], with changes of further keys of the partition in the same step: durable and applied
    /// together or not at all. `counter` is the one that the item's own change moves.
    ///
    /// # Errors
    /// As [`Engine::update`]; `TooLarge` when all the changes together exceed the longest record of the log, and
    /// `KeyOutOfRange` for any of the keys.
    pub async fn update_with<T>(
        &self,
        partition: PartitionId,
        key: &[u8],
        counter: Counter,
        decide: impl FnOnce(Option<StoredRef<'_>>) -> Decision<T>,
    ) -> Result<Updated<T>, EngineError> {
        let update = self.inner.update(partition, key, counter, Claim::New, decide);
        update.await
    }

    /// As [`Engine::update_with`], for an item that was accepted before, by somebody who had asked [`Engine::check_room`] then:
    /// it is put although room has become low on the drives since.
    ///
    /// # Errors
    /// As [`Engine::update_with`], but for that.
    pub async fn update_accepted<T>(
        &self,
        partition: PartitionId,
        key: &[u8],
        decide: impl FnOnce(Option<StoredRef<'_>>) -> Decision<T>,
    ) -> Result<Updated<T>, EngineError> {
        let update = self
            .inner
            .update(partition, key, Counter::Items, Claim::Accepted, decide);
        update.await
    }

    /// Whether new items of the partition are taken now.
    ///
    /// # Errors
    /// `OutOfSpace` when room is low on the drives; `NoSuchPartition`, `Fenced`.
    pub fn check_room(&self, partition: PartitionId) -> Result<(), EngineError> {
        let partition = self.inner.serving(partition)?;
        self.inner.check_room(&partition)
    }

    /// Reads the applied state of `key`.
    ///
    /// # Errors
    /// `NoSuchPartition`, `Fenced`, or what the drives say.
    pub async fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Stored>, EngineError> {
        if let Some(answer) = self.get_cached(partition, key) {
            return answer;
        }
        let inner = &self.inner;
        inner.counts.add(&inner.counts.gets);
        let partition = inner.serving(partition)?;
        let asked = inner.runtime.now();
        let found = partition.tree.get(key).await;
        inner.trees.pace().felt(inner.runtime.now().since(asked));
        stored(found.map_err(|error| inner.read_failed(&partition, error))?)
    }

    /// As [`Engine::get`], when it can be answered without a drive read; else none.
    pub fn get_cached(
        &self,
        partition: PartitionId,
        key: &[u8],
    ) -> Option<Result<Option<Stored>, EngineError>> {
        let inner = &self.inner;
        let partitions = inner.partitions.borrow();
        let Some(partition) = partitions.get(&partition) else {
            return Some(Err(EngineError::NoSuchPartition(partition)));
        };
        if let Err(error) = partition.check_serves() {
            return Some(Err(error));
        }
        let found = partition.tree.get_cached(key)?;
        inner.counts.add(&inner.counts.gets_cached);
        match found {
            Ok(found) => Some(stored(found)),
            Err(error) => Some(Err(inner.read_failed(partition, error))),
        }
    }

    /// Greatest commit timestamp of a delete of an item that the partition has applied since the engine was opened; zero before
    /// the first. It tells whether a key that is absent at two moments can have been there between them: only when this has
    /// risen.
    ///
    /// # Errors
    /// `NoSuchPartition`, `Fenced`.
    pub fn greatest_delete(&self, partition: PartitionId) -> Result<CommitTimestamp, EngineError> {
        Ok(self.inner.serving(partition)?.greatest_delete.get())
    }

    /// The applied items of `range`, in order. Each key is as it is at some moment between this call and
    /// the moment the scan passes it.
    pub fn scan(&self, partition: PartitionId, range: Range, direction: Direction) -> Scan<R> {
        Scan::new(Rc::clone(&self.inner), partition, range, direction, NEWEST)
    }

    /// What recovery found in the log.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// Why nothing is written any more, if it is so.
    #[must_use]
    pub fn stopped(&self) -> Option<Rc<str>> {
        self.inner.stopped.borrow().clone()
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.inner.stats()
    }

    /// Waits for the writes in flight, writes the log's marker and stops the background tasks. Later writes
    /// answer `Stopped`. Memtables are not flushed: the log has them.
    ///
    /// # Errors
    /// The log's errors; everything acknowledged is durable all the same.
    pub async fn close(&self) -> Result<(), EngineError> {
        let inner = &self.inner;
        if inner.closing.replace(true) {
            inner.tasks.wait().await;
            return Ok(());
        }
        inner
            .stopped
            .borrow_mut()
            .get_or_insert_with(|| "it has been closed".into());
        let proposals = inner.proposals.get();
        // Fails only when the log has, which closing it says below.
        let _ = inner.applied.wait(proposals).await;
        inner.wake_all();
        inner.tasks.wait().await;
        inner.end_scrub();
        inner.applied.close();
        let closed = inner.log.close().await;
        closed.map_err(|error| EngineError::Stopped(error.to_string().into()))
    }
}

fn stored(version: Option<Version>) -> Result<Option<Stored>, EngineError> {
    Ok(version.filter(|version| !version.is_tombstone()).map(Stored::new))
}

impl<R: Runtime> Inner<R> {
    /// Resolves when the drop of a partition that is not in the manifest is durable.
    async fn dropped(&self, id: PartitionId) -> Result<(), EngineError> {
        let durable = self
            .dropping
            .borrow()
            .iter()
            .find(|(_, partition)| partition.descriptor.id == id)
            .map(|(sequence, _)| *sequence);
        match durable {
            Some(sequence) => self.durable(sequence).await,
            None => Ok(()),
        }
    }

    fn serving(&self, id: PartitionId) -> Result<Rc<Partition<R>>, EngineError> {
        let partition = self.partitions.borrow().get(&id).cloned();
        let partition = partition.ok_or(EngineError::NoSuchPartition(id))?;
        partition.check_serves()?;
        Ok(partition)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.borrow().is_some()
    }

    fn check_runs(&self) -> Result<(), EngineError> {
        match &*self.stopped.borrow() {
            None => Ok(()),
            Some(why) => Err(EngineError::Stopped(Rc::clone(why))),
        }
    }

    /// Stops for good: nothing is acknowledged any more, those who wait learn that they do not know.
    fn stop(&self, why: &str) {
        self.stopped.borrow_mut().get_or_insert_with(|| why.into());
        self.applied.close();
        self.wake_all();
    }

    fn wake_all(&self) {
        self.proposed.notify_all();
        self.relief.notify_all();
        self.work.notify_all();
        self.compactable.notify_all();
        self.attention.notify_all();
    }

    fn stop_reason(&self) -> Rc<str> {
        self.stopped
            .borrow()
            .clone()
            .unwrap_or_else(|| "the log has failed".into())
    }

    /// What it means that the log did not take a record: nothing was written.
    fn log_refused(&self, error: &LogError) -> EngineError {
        match error {
            LogError::Full => EngineError::Throttled,
            LogError::OutOfSpace(path) => EngineError::OutOfSpace(path.to_string_lossy().into()),
            LogError::TooLarge { bytes, bytes_max } => EngineError::TooLarge {
                bytes: *bytes,
                bytes_max: *bytes_max,
            },
            error => self.log_stopped(error),
        }
    }

    /// What it means that the log has failed.
    fn log_stopped(&self, error: &LogError) -> EngineError {
        self.stop(&error.to_string());
        EngineError::Stopped(self.stop_reason())
    }

    /// What a failed read means to its caller; bytes of its tree that no mirror has fence the partition. What a flush
    /// or compaction has just written is not part of the tree yet.
    fn read_failed(&self, partition: &Partition<R>, error: TreeError) -> EngineError {
        match error {
            TreeError::Unreadable { segment, .. } if self.is_referenced(partition, segment) => {
                let why: Rc<str> = error.to_string().into();
                let mut standing = partition.standing.borrow_mut();
                if matches!(*standing, Standing::Serving) {
                    *standing = Standing::Fenced(Rc::clone(&why));
                }
                EngineError::Fenced {
                    partition: partition.descriptor.id,
                    why,
                }
            }
            error => self.background_failed(partition, &error),
        }
    }

    fn is_referenced(&self, partition: &Partition<R>, segment: SegmentId) -> bool {
        let manifest = self.manifest.borrow();
        let state = manifest.partitions.get(&partition.descriptor.id);
        state.is_some_and(|state| state.segments.contains_key(&segment))
    }

    fn background_failed(&self, partition: &Partition<R>, error: &TreeError) -> EngineError {
        match error {
            TreeError::OutOfSpace { drive } => EngineError::OutOfSpace(self.drive_name(*drive)),
            TreeError::Exhausted { .. } => EngineError::Exhausted(error.to_string().into()),
            TreeError::Volume(error) => {
                self.stop(&error.to_string());
                EngineError::Stopped(self.stop_reason())
            }
            error => EngineError::Fenced {
                partition: partition.descriptor.id,
                why: error.to_string().into(),
            },
        }
    }
}

impl<R: Runtime> Inner<R> {
    fn stats(&self) -> EngineStats {
        let counts = &self.counts;
        let partitions = self.partitions.borrow();
        let fenced =
            |partition: &&Rc<Partition<R>>| matches!(&*partition.standing.borrow(), Standing::Fenced(_));
        let in_sync = self.volume.in_sync();
        let mut space = TreeSpace::default();
        let mut level0_segments_max = 0;
        let mut compaction_debt_bytes = 0;
        for partition in partitions.values() {
            space.add(partition.tree.space());
            level0_segments_max = level0_segments_max.max(partition.tree.level0_segments() as u64);
            compaction_debt_bytes += partition.tree.compaction_debt();
        }
        let applied = || partitions.values().map(|partition| partition.applied.get());
        EngineStats {
            item_count: applied().map(|applied| applied.item_count).sum(),
            item_bytes: applied().map(|applied| applied.item_bytes).sum(),
            segment_bytes: space.bytes,
            segment_versions: space.versions,
            level0_segments_max,
            compaction_debt_bytes,
            compaction_rate: self.trees.pace().rate(true),
            mutations: counts.mutations.get(),
            unchanged: counts.unchanged.get(),
            gets: counts.gets.get(),
            gets_cached: counts.gets_cached.get(),
            delays: counts.delays.get(),
            stalls: counts.stalls.get(),
            flushes: counts.flushes.get(),
            compactions: counts.compactions.get(),
            snapshots: counts.snapshots.get(),
            background_failures: counts.background_failures.get(),
            orphans: counts.orphans.get(),
            restored: counts.restored.get(),
            remirrored: counts.remirrored.get(),
            scrubs: counts.scrubs.get(),
            scrubbed_bytes: self.scrub.bytes_read(),
            scrub_damaged: self.scrub.report().damaged,
            scrub_lost: self.scrub.report().lost,
            log_repaired: self.recovery.repaired,
            log_dropped: self.recovery.dropped,
            clock_refused: self.clock.borrow().refused(),
            partitions: partitions.len() as u64,
            partitions_fenced: partitions.values().filter(fenced).count() as u64,
            snapshots_open: self.trees.snapshots() as u64,
            memtable_bytes: self.memory.get() as u64,
            memtable_bytes_max: self.config.memtable_bytes as u64,
            room_low: u64::from(self.room.is_low()),
            log: self.log.stats(),
            segments: self.trees.store().stats(),
            in_sync_epoch: in_sync.epoch.0,
            in_sync_drives: in_sync.set.count() as u64,
        }
    }
}
