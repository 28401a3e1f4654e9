//! From the log's records to the state of every partition.
//!
//! 1. Manifest edits are applied, in order, to a [`ManifestState`].
//! 2. Mutations wait in their partition's **chain**. A flush edit drops those that segments hold by then.
//! 3. What is left at the end goes to memtables; counters and floors move on from the manifest's.
//!
//! Snapshots restate partitions, each by a list that drops and creates it again; a chain is not concerned.
//!
//! **What is lost.** The log says where acknowledged batches are lost, and what they held as far as it knows.
//! - Mutations: a chain's indexes have no gaps. A partition is fenced when a loss is known to concern it, when its
//!   chain has a gap, or when the log cannot tell and neither a later mutation nor a later flush proves that
//!   its chain is whole. Exception: what a later flush covers is in segments, and not lost.
//! - Manifest edits: they are in no chain, so no index proves that none is missing. When a loss may have held any,
//!   every partition known by then is fenced, unless a snapshot behind the loss restates it.
//!
//! A partition that is named but never stated cannot be fenced, for nobody knows its range: then nothing is served.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::partition::{Applied, IndexCounts};
use crate::group::{Counter, GroupChange, decode_group};
use crate::ids::{CommitTimestamp, LogSequence, PartitionId, RaftIndex};
use crate::log::{Lost, Record, Replayed};
use crate::manifest::{Edit, ManifestError, ManifestState, PartitionState, ScrubState, decode_edits};
use crate::mutation::{Mutation, MutationError, MutationHeader, MutationKind};
use crate::record::RecordKind;
use crate::tree::Version;

#[cfg(test)]
mod replay_test;

/// A mutation that no segment holds.
pub(crate) struct Pending {
    pub(crate) sequence: LogSequence,
    pub(crate) index: RaftIndex,
    pub(crate) commit: CommitTimestamp,
    pub(crate) first: PendingChange,
    /// The others of a group.
    pub(crate) further: Vec<PendingChange>,
}

/// One change of a step of a chain.
pub(crate) struct PendingChange {
    pub(crate) counter: Counter,
    pub(crate) header: MutationHeader,
    pub(crate) key: Vec<u8>,
    pub(crate) item: Rc<[u8]>,
}

impl PendingChange {
    fn of(change: &GroupChange<'_>) -> PendingChange {
        let mutation = &change.mutation;
        PendingChange {
            counter: change.counter,
            header: mutation.header,
            key: mutation.key.to_vec(),
            item: joined(mutation.item, change.tail),
        }
    }

    /// What it leaves behind.
    pub(crate) fn version(&self) -> Version {
        let header = &self.header;
        let version = match header.new_item_bytes {
            Some(item_bytes) if header.kind == MutationKind::Put => {
                Version::put(header.commit, item_bytes, Rc::clone(&self.item))
            }
            _ => Version::tombstone(header.commit),
        };
        version.with_provenance(header.provenance)
    }
}

/// An item that goes on with `tail`.
pub(super) fn joined(item: &[u8], tail: &[u8]) -> Rc<[u8]> {
    if tail.is_empty() {
        return item.into();
    }
    let mut whole = Vec::with_capacity(item.len() + tail.len());
    whole.extend_from_slice(item);
    whole.extend_from_slice(tail);
    whole.into()
}

impl Pending {
    /// Every change of the step.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &PendingChange> {
        std::iter::once(&self.first).chain(&self.further)
    }

    /// Moves what was counted before it; none when that cannot have stood so.
    pub(crate) fn count(&self, applied: &mut Applied, indexes: &RefCell<IndexCounts>) -> Option<()> {
        applied.advance(self.index, self.commit);
        self.changes().try_for_each(|change| {
            let header = &change.header;
            applied.try_count(
                change.counter,
                indexes,
                header.old_item_bytes,
                header.new_item_bytes,
            )
        })
    }
}

/// What a partition was recovered to.
pub(crate) struct Recovered {
    pub(crate) state: PartitionState,
    pub(crate) pending: VecDeque<Pending>,
    /// Last index of the chain.
    pub(crate) last_index: RaftIndex,
    /// What is lost, when that is newly found.
    pub(crate) lost: Option<String>,
}

#[derive(Default)]
struct Chain {
    pending: VecDeque<Pending>,
    last: RaftIndex,
    /// Mutations up to this one are lost unless a flush covers them, and why.
    lost_up_to: Option<(RaftIndex, String)>,
    /// Batches up to this one are lost and it is not known whether they concern this partition.
    unproven: Option<(LogSequence, String)>,
    /// Manifest edits are lost that may have been this partition's.
    edits_unproven: Option<String>,
}

/// Collects what the log replays.
#[derive(Default)]
pub(crate) struct Replay {
    manifest: ManifestState,
    chains: BTreeMap<PartitionId, Chain>,
    dropped: BTreeSet<PartitionId>,
    /// Partitions that edits have named and no list has created so far.
    unstated: BTreeSet<PartitionId>,
    /// The first record that contradicts what was before it, in words.
    broken: Option<String>,
    /// The last loss of which it is not known what it held: it may concern partitions met only later.
    incomplete: Option<(LogSequence, String)>,
    losses: u64,
}

/// The whole log, replayed.
pub(crate) struct Whole {
    pub(crate) partitions: Vec<Recovered>,
    pub(crate) next_segment: u64,
    pub(crate) scrub: ScrubState,
    /// Whether acknowledged batches were lost: nothing may be deleted then.
    pub(crate) losses: u64,
}

impl Replay {
    pub(crate) fn meet(&mut self, replayed: Replayed<'_>) {
        match replayed {
            Replayed::Record(position, record) => {
                if let Err(why) = self.record(position.sequence, &record) {
                    let at = format!("record {} of batch {}: {why}", position.record, position.sequence);
                    self.broken.get_or_insert(at);
                }
            }
            Replayed::Lost(lost) => self.lost(lost),
        }
    }

    fn record(&mut self, sequence: LogSequence, record: &Record<'_>) -> Result<(), String> {
        match RecordKind::from_byte(record.kind) {
            None => Err(format!("unknown kind {}", record.kind)),
            Some(RecordKind::Edits) => {
                let edits = decode_edits(record.payload).map_err(|error| error.to_string())?;
                self.edits(&edits).map_err(|error| error.to_string())
            }
            Some(RecordKind::Mutation | RecordKind::Group) => {
                self.mutation(sequence, record).map_err(|error| error.to_string())
            }
        }
    }

    fn edits(&mut self, edits: &[Edit]) -> Result<(), ManifestError> {
        for edit in edits {
            let known = match edit {
                Edit::CreatePartition(descriptor) => self.manifest.partitions.contains_key(&descriptor.id),
                _ => true,
            };
            match self.manifest.apply(edit) {
                Ok(()) => {}
                // The log begins anywhere: what was before is restated by a snapshot behind this edit.
                Err(ManifestError::NoSuchPartition(partition)) => {
                    if !self.dropped.contains(&partition) {
                        self.unstated.insert(partition);
                    }
                }
                // An edit may contradict what was lost; its partition is fenced unless it is restated.
                Err(
                    ManifestError::PartitionConflict(partition)
                    | ManifestError::SegmentConflict(partition, _)
                    | ManifestError::FlushedBackwards(partition),
                ) if self.are_edits_unproven(partition) => {}
                Err(error) => return Err(error),
            }
            match edit {
                Edit::Flushed {
                    partition,
                    sequence,
                    commit,
                    index,
                } => {
                    let chain = self.chain(*partition);
                    while chain
                        .pending
                        .front()
                        .is_some_and(|pending| pending.commit <= *commit)
                    {
                        chain.pending.pop_front();
                    }
                    chain.last = chain.last.max(*index);
                    chain.lost_up_to.take_if(|(lost, _)| *lost <= *index);
                    chain.unproven.take_if(|(lost, _)| *lost <= *sequence);
                }
                Edit::DropPartition(partition) => {
                    self.dropped.insert(*partition);
                    self.unstated.remove(partition);
                }
                Edit::CreatePartition(descriptor) if !known => self.created(descriptor.id),
                _ => {}
            }
        }
        for dropped in &self.dropped {
            self.chains.remove(dropped);
        }
        Ok(())
    }

    /// A partition is stated in full: dropped and created by one list, or, as ids are never reused, new.
    fn created(&mut self, partition: PartitionId) {
        self.unstated.remove(&partition);
        if self.dropped.remove(&partition) {
            self.chain(partition).edits_unproven = None;
        } else {
            // Nothing lost before can have concerned it.
            self.chains.entry(partition).or_default();
        }
    }

    /// The chain of a partition. One that is met for the first time may have lost what any other may have.
    fn chain(&mut self, partition: PartitionId) -> &mut Chain {
        self.chains.entry(partition).or_insert_with(|| Chain {
            unproven: self.incomplete.clone(),
            ..Chain::default()
        })
    }

    fn are_edits_unproven(&self, partition: PartitionId) -> bool {
        let chain = self.chains.get(&partition);
        chain.is_some_and(|chain| chain.edits_unproven.is_some())
    }

    /// One step of a chain: a mutation, or a group of them.
    fn mutation(&mut self, sequence: LogSequence, record: &Record<'_>) -> Result<(), MutationError> {
        let (partition, index) = (record.partition, record.raft_index);
        if self.dropped.contains(&partition) {
            return Ok(());
        }
        let (first, further) = if record.kind == RecordKind::Group as u8 {
            let mut changes = decode_group(record.payload)?;
            let first = changes.remove(0);
            (first, changes)
        } else {
            let first = GroupChange {
                counter: Counter::Items,
                mutation: Mutation::decode(record.payload)?,
                tail: &[],
            };
            (first, Vec::new())
        };
        let flushed = self
            .manifest
            .partitions
            .get(&partition)
            .map_or(RaftIndex(0), |state| state.flushed_index);
        let chain = self.chain(partition);
        if index <= flushed {
            return Ok(());
        }
        // The log begins anywhere: the first index seen is proven by the flush mark at the end.
        let expected = RaftIndex(chain.last.0 + 1);
        if index == expected {
            chain.unproven = None;
        } else if index > expected {
            let why = format!("mutations {expected} to {} are missing", index.0 - 1);
            chain.lost_up_to = Some((RaftIndex(index.0 - 1), why));
        }
        chain.last = chain.last.max(index);
        chain.pending.push_back(Pending {
            sequence,
            index,
            commit: first.mutation.header.commit,
            first: PendingChange::of(&first),
            further: further.iter().map(PendingChange::of).collect(),
        });
        Ok(())
    }

    fn lost(&mut self, lost: &Lost) {
        self.losses += 1;
        let why = format!(
            "acknowledged batches {} to {} are lost on every mirror",
            lost.first, lost.last
        );
        for known in &lost.known {
            if known.last == RaftIndex(0) || self.dropped.contains(&known.partition) {
                continue;
            }
            let why = format!("{why}, with its mutations {} to {}", known.first, known.last);
            self.chain(known.partition).lost_up_to = Some((known.last, why));
        }
        let edits = lost.known.iter().any(|known| known.partition == PartitionId(0));
        if lost.complete && !edits {
            return;
        }
        if !lost.complete {
            self.incomplete = Some((lost.last, why.clone()));
        }
        for partition in self.manifest.partitions.keys() {
            self.chains.entry(*partition).or_default();
        }
        for chain in self.chains.values_mut() {
            chain
                .edits_unproven
                .get_or_insert_with(|| format!("{why}, with changes of the manifest"));
            if !lost.complete {
                chain.unproven = self.incomplete.clone();
            }
        }
    }

    /// The end of the log.
    ///
    /// # Errors
    /// A record contradicts the others, or names a partition that none states: nothing may be served.
    pub(crate) fn finish(mut self) -> Result<Whole, String> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let mut partitions = Vec::new();
        for (id, state) in std::mem::take(&mut self.manifest.partitions) {
            let chain = self.chains.remove(&id).unwrap_or_default();
            let mut lost = chain.lost_up_to.map(|(_, why)| why);
            lost = lost
                .or(chain.unproven.map(|(_, why)| why))
                .or(chain.edits_unproven);
            if let Err(error) = state.validate() {
                lost.get_or_insert(error.to_string());
            }
            let last_index = chain.last.max(state.flushed_index);
            partitions.push(Recovered {
                state,
                pending: chain.pending,
                last_index,
                lost,
            });
        }
        // Its creation is lost, or it was dropped and that is: without its range it can be neither served nor fenced.
        let unknown = self.unstated.first().map(|id| (id, "manifest edits"));
        let unknown = unknown.or_else(|| {
            let mut chains = self.chains.iter();
            let (id, _) =
                chains.find(|(_, chain)| !chain.pending.is_empty() || chain.lost_up_to.is_some())?;
            Some((id, "mutations"))
        });
        if let Some((id, what)) = unknown {
            return Err(match self.losses {
                0 => format!("{what} of partition {id}, which was never created"),
                _ => format!("{what} of partition {id}, whose creation is lost"),
            });
        }
        Ok(Whole {
            partitions,
            next_segment: self.manifest.next_segment,
            scrub: self.manifest.scrub,
            losses: self.losses,
        })
    }
}
