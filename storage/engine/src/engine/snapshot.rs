//! Snapshots: every partition of an engine as it was at one commit timestamp, for as long as somebody holds it.
//!
//! 1. Opening one at T raises the floor of every partition to T, so that whatever is proposed from then on is newer, and
//!    registers T, in one synchronous step.
//! 2. It then waits until everything proposed before is applied. What a snapshot reads never changes after that.
//! 3. While T is registered, memtables, flushes and compactions keep the newest version up to T of every key. One that
//!    began before has none but older sources, whose newest versions stay anyway.
//! 4. Released, the versions that no other snapshot needs die with the next insert, flush or compaction.
//!
//! A snapshot lives in memory: it ends with the process. It costs what is overwritten while it is open.

use std::rc::Rc;

use cairn_runtime::Runtime;

use super::scan::Scan;
use super::types::{Direction, Range, Stored};
use super::{Engine, Inner, stored};
use crate::error::EngineError;
use crate::ids::{CommitTimestamp, PartitionId};

/// Snapshots of one engine that are open at once: every insert and every rewrite looks at them.
pub const SNAPSHOTS_MAX: usize = 64;

/// A snapshot. Dropping it releases it.
pub struct Snapshot<R: Runtime> {
    inner: Rc<Inner<R>>,
    at: CommitTimestamp,
}

impl<R: Runtime> Engine<R> {
    /// Opens a snapshot at `at`, or at the present moment; resolves when everything up to then is applied. Engines
    /// that are opened at the same timestamp show the same moment.
    ///
    /// # Errors
    /// `SnapshotRefused` when a partition has newer versions already, or `at` is further ahead of the clock than the
    /// engine follows one; `TooManySnapshots`; the log's errors.
    pub async fn snapshot(&self, at: Option<CommitTimestamp>) -> Result<Snapshot<R>, EngineError> {
        let inner = &self.inner;
        inner.check_runs()?;
        if inner.trees.snapshots() >= SNAPSHOTS_MAX {
            return Err(EngineError::TooManySnapshots(SNAPSHOTS_MAX));
        }
        let snapshot = {
            let partitions = inner.partitions.borrow();
            let proposed = partitions
                .values()
                .map(|partition| partition.proposed_commit.get());
            let newest = proposed.max().unwrap_or_default();
            let present = inner
                .clock
                .borrow_mut()
                .next(inner.runtime.now(), inner.runtime.unix_ms(), newest);
            let at = at.unwrap_or(present);
            if at < newest {
                let why = format!("{at} is past, {newest} has been written: what it overwrote is gone");
                return Err(EngineError::SnapshotRefused(why.into()));
            }
            let step_ms = u64::try_from(inner.config.clock_step_max.as_millis()).unwrap_or(u64::MAX);
            if at.unix_ms() > present.unix_ms().saturating_add(step_ms) {
                let why = format!("{at} is more than {step_ms} ms ahead of the clock");
                return Err(EngineError::SnapshotRefused(why.into()));
            }
            for partition in partitions.values() {
                partition.proposed_commit.set(at);
            }
            inner.trees.open_snapshot(at);
            Snapshot {
                inner: Rc::clone(inner),
                at,
            }
        };
        let proposals = inner.proposals.get();
        inner.wait_applied((proposals > 0).then_some(proposals)).await?;
        Ok(snapshot)
    }
}

impl<R: Runtime> Snapshot<R> {
    /// Its moment: it shows every version up to this one, and none above.
    #[must_use]
    pub fn at(&self) -> CommitTimestamp {
        self.at
    }

    /// Reads `key` as it was.
    ///
    /// # Errors
    /// As [`Engine::get`].
    pub async fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Stored>, EngineError> {
        let inner = &self.inner;
        let partition = inner.serving(partition)?;
        let found = partition.tree.get_as_of(key, self.at).await;
        stored(found.map_err(|error| inner.read_failed(&partition, error))?)
    }

    /// The items of `range` as they were, in order. It may go on after the snapshot is released only as far as what it
    /// has begun to read: hold the snapshot until the scan has ended.
    #[must_use]
    pub fn scan(&self, partition: PartitionId, range: Range, direction: Direction) -> Scan<R> {
        Scan::new(Rc::clone(&self.inner), partition, range, direction, self.at)
    }

    /// Lets go of it.
    pub fn release(self) {
        drop(self);
    }
}

impl<R: Runtime> Drop for Snapshot<R> {
    fn drop(&mut self) {
        self.inner.trees.close_snapshot(self.at);
    }
}
