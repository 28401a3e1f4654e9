//! Background work: flush, release of the log, compaction.
//!
//! One task flushes, one compacts; each does one thing at a time and sleeps when there is nothing to do.
//!
//! **Which tree is flushed.** When more than half of the log's files are in use, the tree whose oldest unflushed
//! mutation is the oldest of all, if that keeps the oldest file; else, when memtables hold more than half of
//! their budget, the tree with the greatest product of bytes and age, so that neither a large young nor a small
//! old one stays for ever.
//!
//! **Which tree is compacted.** Those whose level 0 has grown to [`LEVEL0_URGENT`] segments first, the longest of them, as
//! their writers are about to be delayed and their readers ask most; else the one with the most bytes to move. How fast:
//! [`crate::tree::pace`], fed with what requests wait for.
//!
//! **While room is low** ([`super::space`]), tombstones are flushed and compacted though nothing else is due.
//!
//! **Whose fault it is.** A failure that is one partition's own lets that one rest and the next have its turn; bytes of
//! the tree that no mirror has fence it. What is everybody's, as a full drive, makes all wait.
//!
//! **When a log file may be reused.** When every mutation in it is in a segment whose edit is durable, and every
//! manifest edit in it is restated by a durable snapshot behind it. Both bounds are batch numbers; what lies
//! below the lesser one is released. The log must hold the manifest several times over: some 300 bytes per
//! partition and 200 per segment.
//!
//! **No deadlock.** Freeing log space takes log space, for the edits. Writers therefore stall at the log's limit, and
//! edits may go beyond it (`Log::append_reserved`).

use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::Runtime;
use cairn_runtime::sync::timeout;

use super::Inner;
use super::partition::{Partition, Rest};
use super::pressure::{LEVEL0_URGENT, flush_above};
use crate::canary::{self, Canary};
use crate::error::EngineError;
use crate::ids::{LogSequence, SegmentId};
use crate::manifest::Edit;
use crate::phase::{self, Phase};
use crate::tree::{Tree, Urge};

/// How long background work waits after a failure before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Tombstones of one memtable that are flushed for their own sake while room is low, when the first of what it holds
/// is at least so old.
const RECLAIM_TOMBSTONES: usize = 256;
const RECLAIM_AGE: Duration = Duration::from_millis(500);

/// Whether a failure of background work says something of its partition alone.
fn is_of_one_partition(error: &EngineError) -> bool {
    matches!(error, EngineError::Fenced { .. })
}

impl<R: Runtime> Inner<R> {
    /// Cheap look after every commit: wakes the background when it has something to do, and stalls writers when
    /// the log is nearly full.
    pub(super) fn look_for_work(&self) {
        self.look_at_space();
        let log = self.log.stats();
        self.log_tight.set(log.files_live > log.files_max);
        if self.is_log_long() || self.memory.get() > flush_above(self.config.memtable_bytes) {
            self.work.notify_one();
        }
    }

    fn is_log_long(&self) -> bool {
        let log = self.log.stats();
        // What was released already is given back in its own time.
        let wanted = self
            .log
            .release_wanted()
            .filter(|wanted| *wanted > self.released.get());
        (self.remirror.purges() || log.files_live > (log.files_max / 2).max(1)) && wanted.is_some()
    }

    /// The first batch that is still needed for a mutation.
    fn mutations_from(&self) -> LogSequence {
        let in_flight = self.queue.borrow().front().map(|proposal| proposal.sequence);
        let (partitions, dropping) = (self.partitions.borrow(), self.dropping.borrow());
        let unflushed = partitions
            .values()
            .chain(dropping.iter().map(|(_, partition)| partition))
            .filter_map(|partition| partition.unflushed_since())
            .map(|(sequence, _)| sequence)
            .min();
        let pinned = in_flight.into_iter().chain(unflushed).min();
        pinned.unwrap_or_else(|| self.log.acknowledged().next())
    }

    /// A snapshot costs log space itself. It waits until as much has been written since the last as that one took,
    /// so that half of the log at worst is snapshots, and a manifest too large for the log cannot make it spin.
    fn is_snapshot_due(&self) -> bool {
        let (bytes, end) = self.snapshot_cost.get();
        self.log.stats().bytes >= end + bytes
    }

    /// The tree that pins the log's oldest batch, and that batch.
    fn oldest_unflushed(&self) -> Option<(LogSequence, Rc<Partition<R>>)> {
        let partitions = self.partitions.borrow();
        let now = self.runtime.now();
        let with_data = partitions
            .values()
            .filter(|partition| !partition.flush_rest.lasts(now))
            .filter_map(|partition| Some((partition.unflushed_since()?.0, partition)));
        with_data
            .min_by_key(|(since, _)| *since)
            .map(|(since, partition)| (since, Rc::clone(partition)))
    }

    fn heaviest(&self) -> Option<Rc<Partition<R>>> {
        let now = self.runtime.now();
        let weight = |partition: &Rc<Partition<R>>| {
            let (_, since) = partition.unflushed_since()?;
            let age_ms = now.since(since).as_millis() + 1;
            Some(age_ms * partition.unflushed_bytes() as u128)
        };
        let partitions = self.partitions.borrow();
        let weighed = partitions
            .values()
            .filter(|partition| !partition.flush_rest.lasts(now))
            .filter_map(|partition| Some((weight(partition)?, partition)));
        weighed
            .max_by_key(|(weight, _)| *weight)
            .map(|(_, partition)| Rc::clone(partition))
    }

    /// Does the most urgent thing; false when there is nothing to do.
    async fn work_once(&self) -> Result<bool, EngineError> {
        self.trees.store().sweep().await;
        if self.is_log_long()
            && let Some(wanted) = self.log.release_wanted()
        {
            if self.mutations_from() < wanted
                && let Some((since, partition)) = self.oldest_unflushed()
                && since < wanted
            {
                self.flush(&partition).await?;
                return Ok(true);
            }
            if self.mutations_from() >= wanted {
                if self.snapshot_start.get() < wanted {
                    if !self.is_snapshot_due() && !self.remirror.purges() {
                        return Ok(false);
                    }
                    self.snapshot().await?;
                }
                let released = self.mutations_from().min(self.snapshot_start.get());
                self.log.release_up_to(released);
                self.released.set(released);
                return Ok(true);
            }
        }
        if self.memory.get() > flush_above(self.config.memtable_bytes)
            && let Some(partition) = self.heaviest()
        {
            self.flush(&partition).await?;
            return Ok(true);
        }
        if self.room.is_low()
            && let Some(partition) = self.most_deleted()
        {
            self.flush(&partition).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Of the trees whose memtable has tombstones worth a segment, the one with the most.
    fn most_deleted(&self) -> Option<Rc<Partition<R>>> {
        let now = self.runtime.now();
        let partitions = self.partitions.borrow();
        let is_old = |partition: &Partition<R>| {
            let since = partition.unflushed_since();
            since.is_some_and(|(_, since)| now.since(since) >= RECLAIM_AGE)
        };
        let deleted = partitions
            .values()
            .filter(|partition| !partition.flush_rest.lasts(now) && is_old(partition))
            .map(|partition| (partition.tree.unflushed_tombstones(), partition))
            .filter(|(tombstones, _)| *tombstones >= RECLAIM_TOMBSTONES);
        let most = deleted.max_by_key(|(tombstones, _)| *tombstones);
        most.map(|(_, partition)| Rc::clone(partition))
    }

    pub(super) fn next_segment(&self) -> SegmentId {
        let counter = self.next_segment.get();
        self.next_segment.set(counter + 1);
        SegmentId::new(self.log.id(), counter).expect("2^40 segments are not used up")
    }

    /// Moves a memtable into segments.
    async fn flush(&self, partition: &Rc<Partition<R>>) -> Result<(), EngineError> {
        let id = partition.descriptor.id;
        // A failed flush left its memtable frozen, with the position it was frozen at.
        if partition.frozen_since.get().is_none() {
            let Some(since) = partition.active_since.take() else {
                return Ok(());
            };
            partition.frozen_since.set(Some(since));
            partition
                .frozen_at
                .set((partition.applied.get(), self.last_applied.get()));
            let counts = partition.index_counts.borrow().clone();
            *partition.frozen_index_counts.borrow_mut() = counts;
            partition.tree.freeze();
        }
        let _phase = phase::enter(Phase::Flush);
        let (applied, sequence) = partition.frozen_at.get();
        if canary::is_in(Canary::FlushedFirst) {
            let flushed = Edit::Flushed {
                partition: id,
                sequence,
                commit: applied.floor,
                index: applied.index,
            };
            let first = self.edit(id, &[flushed]).await?;
            self.durable(first).await?;
        }
        let began = self.runtime.now();
        let writes = partition.tree.frozen_entries();
        let prepared = partition.tree.flush(|| self.next_segment()).await;
        let prepared = prepared.map_err(|error| {
            let error = self.read_failed(partition, error);
            self.let_rest(&partition.flush_rest, &error);
            error
        })?;
        partition.flush_rest.succeeded();
        let mut edits = vec![Edit::NextSegment(self.next_segment.get())];
        edits.extend(prepared.added.iter().cloned().map(|segment| Edit::AddSegment {
            partition: id,
            segment,
        }));
        edits.push(Edit::Counters {
            partition: id,
            item_count: applied.item_count,
            item_bytes: applied.item_bytes,
        });
        edits.extend(partition.frozen_index_edits());
        edits.push(Edit::Flushed {
            partition: id,
            sequence,
            commit: applied.floor,
            index: applied.index,
        });
        let durable = match self.edit(id, &edits).await {
            Ok(durable) => durable,
            Err(error) => {
                // The log did not take it, so nothing names the files: on a full drive they must not pile up.
                partition.tree.discard(prepared);
                return unless_dropped(error);
            }
        };
        self.durable(durable).await?;
        if partition.is_dropped() {
            partition.tree.discard(prepared);
        } else {
            let freed = partition.tree.install_flush(prepared);
            partition.frozen_since.set(None);
            self.memory.set(self.memory.get().saturating_sub(freed));
            self.gate.flushed(freed, writes, self.runtime.now().since(began));
        }
        self.set_pace();
        self.counts.add(&self.counts.flushes);
        *self.out_of_space.borrow_mut() = None;
        self.relief.notify_all();
        self.compactable.notify_one();
        Ok(())
    }

    /// Tells compaction how long level 0 has become, and what is due.
    fn set_pace(&self) {
        let partitions = self.partitions.borrow();
        let trees = || partitions.values().map(|partition| &partition.tree);
        let longest = trees().map(Tree::level0_segments).max();
        let debt = trees().map(Tree::compaction_debt).sum();
        self.trees.pace().set_due(longest.unwrap_or(0), debt);
    }

    /// Compacts the tree that is most in need of it; false when none is.
    async fn compact_once(&self) -> Result<bool, EngineError> {
        let indebted = {
            let now = self.runtime.now();
            // It takes room and gives none back.
            let rekeys = !self.room.is_low();
            let partitions = self.partitions.borrow();
            let debts = partitions
                .values()
                .filter(|partition| partition.check_serves().is_ok() && !partition.compaction_rest.lasts(now))
                .filter(|partition| !self.remirror.is_editing(partition.descriptor.id))
                .map(|partition| {
                    let level0 = partition.tree.level0_segments();
                    let urgent = Some(level0).filter(|level0| *level0 >= LEVEL0_URGENT);
                    let old_key = partition.tree.old_key_bytes();
                    (urgent, partition.tree.compaction_debt(), old_key, partition)
                });
            let greatest = debts
                .filter(|(_, debt, old_key, _)| *debt > 0 || rekeys && *old_key > 0)
                .max_by_key(|(urgent, debt, old_key, _)| (*urgent, *debt, *old_key));
            greatest.map(|(.., partition)| Rc::clone(partition))
        };
        let reclaimable = || {
            let partitions = self.partitions.borrow();
            let deleted = partitions
                .values()
                .filter(|partition| partition.check_serves().is_ok())
                .filter(|partition| !self.remirror.is_editing(partition.descriptor.id))
                .map(|partition| (partition.tree.reclaimable(), partition))
                .filter(|(tombstones, _)| *tombstones > 0);
            let most = deleted.max_by_key(|(tombstones, _)| *tombstones);
            most.map(|(_, partition)| Rc::clone(partition))
        };
        let urge = if indebted.is_none() && self.room.is_low() {
            Urge::Reclaim
        } else {
            Urge::Debt
        };
        let Some(partition) = indebted.or_else(|| (urge == Urge::Reclaim).then(reclaimable).flatten()) else {
            return Ok(false);
        };
        let id = partition.descriptor.id;
        let _phase = phase::enter(if partition.tree.compaction_debt() > 0 || urge == Urge::Reclaim {
            Phase::Compaction
        } else {
            Phase::TableKey
        });
        let compaction = partition.tree.compact(urge, || self.next_segment()).await;
        let compaction = compaction.map_err(|error| {
            let error = self.read_failed(&partition, error);
            self.let_rest(&partition.compaction_rest, &error);
            error
        })?;
        partition.compaction_rest.succeeded();
        let Some(compaction) = compaction else {
            return Ok(false);
        };
        let mut edits = vec![Edit::NextSegment(self.next_segment.get())];
        let removed = compaction.removed.iter();
        edits.extend(removed.map(|segment| Edit::RemoveSegment {
            partition: id,
            segment: *segment,
        }));
        if canary::is_in(Canary::RemoveBeforeEdit) {
            let moved = |id: &SegmentId| compaction.added.iter().any(|segment| segment.id == *id);
            let gone: Vec<SegmentId> = compaction
                .removed
                .iter()
                .copied()
                .filter(|id| !moved(id))
                .collect();
            self.trees.store().unlink(&gone).await;
            self.runtime.sleep(RETRY_AFTER / 10).await;
        }
        if canary::is_in(Canary::SplitEdits) {
            let first = self.edit(id, &std::mem::take(&mut edits)).await?;
            self.durable(first).await?;
        }
        let added = compaction.added.iter().cloned();
        edits.extend(added.map(|segment| Edit::AddSegment {
            partition: id,
            segment,
        }));
        let durable = match self.edit(id, &edits).await {
            Ok(durable) => durable,
            Err(error) => {
                partition.tree.discard(compaction);
                return unless_dropped(error).map(|()| true);
            }
        };
        self.durable(durable).await?;
        if partition.is_dropped() {
            partition.tree.discard(compaction);
        } else {
            partition.tree.install_compaction(compaction);
        }
        self.set_pace();
        self.counts.add(&self.counts.compactions);
        self.tell_rekey().await;
        Ok(true)
    }
}

/// That a partition was dropped meanwhile is no failure.
fn unless_dropped(error: EngineError) -> Result<(), EngineError> {
    match error {
        EngineError::NoSuchPartition(_) => Ok(()),
        error => Err(error),
    }
}

/// Flushes and releases until the engine stops.
pub(super) async fn flush<R: Runtime>(inner: Rc<Inner<R>>) {
    while !inner.is_stopped() {
        let work = inner.work.notified();
        match inner.work_once().await {
            Ok(true) => inner.runtime.yield_now().await,
            Ok(false) => inner.wait_for_work(work, |partition| &partition.flush_rest).await,
            Err(error) => inner.rest_after(&error).await,
        }
    }
}

/// Compacts until the engine stops.
pub(super) async fn compact<R: Runtime>(inner: Rc<Inner<R>>) {
    while !inner.is_stopped() {
        let compactable = inner.compactable.notified();
        match inner.compact_once().await {
            Ok(true) => inner.runtime.yield_now().await,
            Ok(false) => {
                inner
                    .wait_for_work(compactable, |partition| &partition.compaction_rest)
                    .await
            }
            Err(error) => inner.rest_after(&error).await,
        }
    }
}

impl<R: Runtime> Inner<R> {
    /// A background failure passes or is retried; a full drive makes writers fail instead of waiting.
    async fn rest_after(&self, error: &EngineError) {
        if let EngineError::OutOfSpace(drive) = error {
            *self.out_of_space.borrow_mut() = Some(Rc::clone(drive));
            self.relief.notify_all();
        }
        self.counts.add(&self.counts.background_failures);
        if !is_of_one_partition(error) {
            self.runtime.sleep(RETRY_AFTER).await;
        }
    }

    fn let_rest(&self, rest: &Rest, error: &EngineError) {
        if is_of_one_partition(error) {
            rest.failed(self.runtime.now());
        }
    }

    /// Waits until there is work; looks again by itself while a partition rests or room is low.
    async fn wait_for_work(&self, work: impl Future<Output = ()>, rest: impl Fn(&Partition<R>) -> &Rest) {
        let now = self.runtime.now();
        let resting = self
            .partitions
            .borrow()
            .values()
            .any(|partition| rest(partition).lasts(now));
        if resting || self.room.is_low() {
            // Either way it looks.
            let _ = timeout(&self.runtime, RETRY_AFTER, work).await;
            self.look_at_space();
        } else {
            work.await;
        }
    }
}
