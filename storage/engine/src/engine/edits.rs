//! Changes of the manifest: appended to the log, and in the same step made to the state in memory.
//!
//! So the order of edits in the log is the order in which they were made, and a snapshot, which is built and
//! appended without an await in between, never restates what an edit before it has changed. An edit that did
//! not become durable is made nevertheless, but then the log has failed and the engine has stopped.

use std::time::Duration;

use cairn_runtime::Runtime;

use super::{Inner, TERM};
use crate::error::EngineError;
use crate::ids::{IndexId, LogSequence, PartitionId, RaftIndex, TableId};
use crate::log::{LogError, Record};
use crate::manifest::{Edit, ManifestState, encode_edits};
use crate::phase::{self, Phase};
use crate::record::RecordKind;

/// Bytes that a record of a snapshot has at most, unless one partition alone has more. Small beside a log file, large
/// beside a usual partition.
pub(super) const SNAPSHOT_RECORD_BYTES: usize = 128 << 10;

/// How long edits wait for the next batch when the one being gathered is full. `Log::ready` is for those who may
/// have to wait for space; edits, which free it, may not.
pub(super) const BATCH_WAIT: Duration = Duration::from_micros(200);

pub(super) fn edits_record(payload: &[u8]) -> Record<'_> {
    Record {
        kind: RecordKind::Edits as u8,
        partition: PartitionId(0),
        table: TableId(0),
        index: IndexId(0),
        term: TERM,
        raft_index: RaftIndex(0),
        payload,
    }
}

impl<R: Runtime> Inner<R> {
    /// Appends `edits` of one partition as one list and makes them. The answer is the batch to wait for.
    ///
    /// # Errors
    /// `NoSuchPartition` when it is gone from the manifest (and the list does not create it), or what the log says.
    pub(super) async fn edit(
        &self,
        partition: PartitionId,
        edits: &[Edit],
    ) -> Result<LogSequence, EngineError> {
        let mut payload = Vec::new();
        encode_edits(edits, &mut payload);
        loop {
            let creates = matches!(edits.first(), Some(Edit::CreatePartition(_)));
            if creates || matches!(edits.first(), Some(Edit::DropPartition(_))) {
                self.not_held().await;
            }
            if !creates && !self.manifest.borrow().partitions.contains_key(&partition) {
                return Err(EngineError::NoSuchPartition(partition));
            }
            match self.append_edits(&payload) {
                Ok(sequence) => {
                    let mut manifest = self.manifest.borrow_mut();
                    for edit in edits {
                        manifest
                            .apply(edit)
                            .expect("the engine makes only edits that hold");
                        if let Edit::AddSegment { segment, .. } = edit {
                            self.trees.store().named(segment.id);
                        }
                    }
                    return Ok(sequence);
                }
                Err(LogError::Full) => {}
                Err(error) => return Err(self.log_refused(&error)),
            }
            self.runtime.sleep(BATCH_WAIT).await;
        }
    }

    /// Resolves when batch `sequence` is durable.
    pub(super) async fn durable(&self, sequence: LogSequence) -> Result<(), EngineError> {
        let _phase = phase::enter(Phase::ManifestChange);
        let durable = self.log.durable(sequence).await;
        durable.map_err(|error| self.log_stopped(&error))?;
        self.look_for_work();
        Ok(())
    }

    pub(super) fn append_edits(&self, payload: &[u8]) -> Result<LogSequence, LogError> {
        let appended = self.log.append_reserved(edits_record(payload));
        appended.map(|position| position.sequence)
    }

    /// As [`Inner::append_edits`], for edits that can be done without: they take none of the space that is kept for those
    /// that free some.
    pub(super) fn append_dispensable_edits(&self, payload: &[u8]) -> Result<LogSequence, LogError> {
        let appended = self.log.append(edits_record(payload));
        appended.map(|position| position.sequence)
    }

    /// Restates every partition behind everything that the log holds now, so that older edits may go.
    pub(super) async fn snapshot(&self) -> Result<(), EngineError> {
        let _phase = phase::enter(Phase::ManifestChange);
        let start = self.log.gathering();
        let begun = self.log.stats().bytes;
        let ids: Vec<PartitionId> = self.manifest.borrow().partitions.keys().copied().collect();
        let mut rest = ids.as_slice();
        let mut last = None;
        let mut payload = Vec::new();
        while !rest.is_empty() {
            // Each record states its partitions as they are when it joins the batch, so that others may edit
            // while this waits for one.
            let stated = self.describe(rest, &mut payload);
            match self.append_edits(&payload) {
                Ok(sequence) => {
                    last = Some(sequence);
                    rest = &rest[stated..];
                }
                Err(LogError::Full) => self.runtime.sleep(BATCH_WAIT).await,
                Err(error) => return Err(self.log_refused(&error)),
            }
        }
        if let Some(last) = last {
            self.durable(last).await?;
        }
        self.snapshot_start.set(start);
        let end = self.log.stats().bytes;
        self.snapshot_cost.set((end - begun, end));
        self.counts.add(&self.counts.snapshots);
        Ok(())
    }

    /// Encodes the edits that restate the first of `ids`, as many as make a record. Answers how many.
    fn describe(&self, ids: &[PartitionId], payload: &mut Vec<u8>) -> usize {
        let bytes_max = SNAPSHOT_RECORD_BYTES.min(self.config.log.batch_bytes / 2);
        describe(&self.manifest.borrow(), ids, bytes_max, payload)
    }
}

/// Encodes the edits that restate the first of `ids`, as many as make a record of some `bytes_max`. Answers how many.
pub(super) fn describe(
    manifest: &ManifestState,
    ids: &[PartitionId],
    bytes_max: usize,
    payload: &mut Vec<u8>,
) -> usize {
    let mut edits = vec![
        Edit::NextSegment(manifest.next_segment),
        Edit::Scrub(manifest.scrub),
    ];
    let mut bytes = 0;
    let mut stated = 0;
    for id in ids {
        // It may have been dropped since.
        if let Some(state) = manifest.partitions.get(id) {
            let before = edits.len();
            edits.push(Edit::DropPartition(*id));
            state.describe(&mut edits);
            payload.clear();
            encode_edits(&edits[before..], payload);
            if bytes > 0 && bytes + payload.len() > bytes_max {
                edits.truncate(before);
                break;
            }
            bytes += payload.len();
        }
        stated += 1;
    }
    payload.clear();
    encode_edits(&edits, payload);
    stated
}
