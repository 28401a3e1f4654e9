//! From the log's records to the state of every partition.
//!
//! 1. Manifest edits are applied, in order, to a [`ManifestState`].
//! 2. Mutations wait in their partition's **chain**. A flush edit drops those that segments hold by then.
//! 3. What is left at the end goes to memtables; counters and floors move on from the manifest's.
//!
//! Snapshots restate partitions, each by a list that drops and creates it again; a chain is not concerned.
//!
//! **What is lost.** A chain's indexes have no gaps. The log says where acknowledged batches are lost, and what they
//! held as far as it knows. A partition is fenced when a loss is known to concern it, when its chain has a gap,
//! or when the log cannot tell and neither a later mutation nor a later flush proves that its chain is whole.
//! Exception: what a later flush covers is in segments, and not lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::ids::{LogSequence, PartitionId, RaftIndex};
use crate::log::{Lost, Record, Replayed};
use crate::manifest::{Edit, ManifestError, ManifestState, PartitionState, decode_edits};
use crate::mutation::{Mutation, MutationError, MutationHeader};
use crate::record::RecordKind;

/// A mutation that no segment holds.
pub(crate) struct Pending {
    pub(crate) sequence: LogSequence,
    pub(crate) index: RaftIndex,
    pub(crate) header: MutationHeader,
    pub(crate) key: Vec<u8>,
    pub(crate) item: Rc<[u8]>,
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
    /// Batches are lost and it is not known whether they concern this partition; what its last index was then.
    unproven: Option<(RaftIndex, String)>,
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
    losses: u64,
}

/// The whole log, replayed.
pub(crate) struct Whole {
    pub(crate) partitions: Vec<Recovered>,
    pub(crate) next_segment: u64,
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
            Some(RecordKind::Mutation) => self
                .mutation(sequence, record.partition, record.raft_index, record.payload)
                .map_err(|error| error.to_string()),
        }
    }

    fn edits(&mut self, edits: &[Edit]) -> Result<(), ManifestError> {
        for edit in edits {
            match self.manifest.apply(edit) {
                Ok(()) => {}
                // The log begins anywhere: what was before is restated by a snapshot behind this edit.
                Err(ManifestError::NoSuchPartition(partition)) => {
                    if !self.dropped.contains(&partition) {
                        self.unstated.insert(partition);
                    }
                }
                // After a loss an edit may contradict what was lost; what still holds is found out at the end.
                Err(_) if self.losses > 0 => {}
                Err(error) => return Err(error),
            }
            match edit {
                Edit::Flushed {
                    partition,
                    commit,
                    index,
                    ..
                } => {
                    let chain = self.chains.entry(*partition).or_default();
                    while chain
                        .pending
                        .front()
                        .is_some_and(|pending| pending.header.commit <= *commit)
                    {
                        chain.pending.pop_front();
                    }
                    chain.last = chain.last.max(*index);
                    chain.lost_up_to.take_if(|(lost, _)| *lost <= *index);
                    chain.unproven.take_if(|(last, _)| *last < *index);
                }
                Edit::DropPartition(partition) => {
                    self.dropped.insert(*partition);
                    self.unstated.remove(partition);
                }
                Edit::CreatePartition(descriptor) => {
                    self.dropped.remove(&descriptor.id);
                    self.unstated.remove(&descriptor.id);
                }
                _ => {}
            }
        }
        for dropped in &self.dropped {
            self.chains.remove(dropped);
        }
        Ok(())
    }

    fn mutation(
        &mut self,
        sequence: LogSequence,
        partition: PartitionId,
        index: RaftIndex,
        payload: &[u8],
    ) -> Result<(), MutationError> {
        if self.dropped.contains(&partition) {
            return Ok(());
        }
        let mutation = Mutation::decode(payload)?;
        let flushed = self
            .manifest
            .partitions
            .get(&partition)
            .map_or(RaftIndex(0), |state| state.flushed_index);
        let chain = self.chains.entry(partition).or_default();
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
        let key = mutation.key.to_vec();
        chain.pending.push_back(Pending {
            sequence,
            index,
            header: mutation.header,
            key,
            item: mutation.item.into(),
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
            self.chains.entry(known.partition).or_default().lost_up_to = Some((known.last, why));
        }
        if !lost.complete {
            for partition in self.manifest.partitions.keys() {
                let chain = self.chains.entry(*partition).or_default();
                chain.unproven.get_or_insert_with(|| (chain.last, why.clone()));
            }
        }
    }

    /// The end of the log.
    ///
    /// # Errors
    /// A record contradicts the others although nothing is known to be lost: nothing may be served.
    pub(crate) fn finish(mut self) -> Result<Whole, String> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let mut partitions = Vec::new();
        for (id, state) in std::mem::take(&mut self.manifest.partitions) {
            let chain = self.chains.remove(&id).unwrap_or_default();
            let mut lost = chain.lost_up_to.or(chain.unproven).map(|(_, why)| why);
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
        if let Some(id) = self.unstated.first()
            && self.losses == 0
        {
            return Err(format!(
                "manifest edits of partition {id}, which was never created"
            ));
        }
        if let Some((id, _)) = self.chains.iter().find(|(_, chain)| !chain.pending.is_empty())
            && self.losses == 0
        {
            return Err(format!("mutations of partition {id}, which was never created"));
        }
        Ok(Whole {
            partitions,
            next_segment: self.manifest.next_segment,
            losses: self.losses,
        })
    }
}
