//! The manifest: which partitions a log holds, which segments hold their data, and what has been flushed.
//!
//! It is a sequence of [`Edit`]s in the log. One record's payload is a list of edits that take effect
//! together. A snapshot restates the partitions one after the other, each dropped and created again within one list, so
//! that it can be spread over many records. Recovery applies all lists it meets, in order, to a [`ManifestState`].
//!
//! Invariants of a state, checked by [`ManifestState::validate`]:
//! - a partition's segments of one level from 1 on do not overlap, clip ranges taken into account;
//! - segment ids are below the next id;
//! - nothing is flushed beyond the floor.

mod codec;
#[cfg(test)]
mod manifest_test;

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::{CommitTimestamp, IndexId, LogSequence, PartitionId, RaftIndex, SegmentId};
use crate::mutation::KEY_BYTES_MAX;
use crate::volume::DriveSet;
use crate::{Compression, IndexUsage, PartitionDescriptor};

pub use codec::{decode_edits, encode_edits};

/// Most levels of a tree, level 0 included.
pub const LEVELS_MAX: usize = 8;

/// A segment as a partition refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReference {
    /// The file `segment-<id>`.
    pub id: SegmentId,
    /// Level in the partition's tree; level 0 may overlap itself.
    pub level: u8,
    /// The drives that hold the file.
    pub mirrors: DriveSet,
    /// Length of the file.
    pub bytes: u64,
    /// Checksum of the file's footer, which holds those of everything else.
    pub footer_checksum: u64,
    /// First key in the file.
    pub first_key: Vec<u8>,
    /// Last key in the file.
    pub last_key: Vec<u8>,
    /// Least key that this partition sees of the file; none is no clip. Set where a split shares the file.
    pub clip_lower: Option<Vec<u8>>,
    /// Least key beyond what this partition sees of the file.
    pub clip_upper: Option<Vec<u8>>,
    /// Least version in the file.
    pub commit_min: CommitTimestamp,
    /// Greatest version in the file.
    pub commit_max: CommitTimestamp,
    /// Versions in the file, tombstones included.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
}

impl SegmentReference {
    /// Whether this partition may find `key` in the file.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        self.first_key.as_slice() <= key
            && key <= self.last_key.as_slice()
            && self.clip_lower.as_deref().is_none_or(|lower| lower <= key)
            && self.clip_upper.as_deref().is_none_or(|upper| key < upper)
    }

    /// Least key that this partition may find in the file.
    #[must_use]
    pub fn lower(&self) -> &[u8] {
        let first = self.first_key.as_slice();
        self.clip_lower.as_deref().map_or(first, |clip| clip.max(first))
    }

    /// Whether every key that this partition may find in the file is below `key`.
    #[must_use]
    pub fn ends_before(&self, key: &[u8]) -> bool {
        self.last_key.as_slice() < key || self.clip_upper.as_deref().is_some_and(|upper| upper <= key)
    }

    /// Whether the two references may show versions of one key.
    #[must_use]
    pub fn overlaps(&self, other: &SegmentReference) -> bool {
        !self.ends_before(other.lower()) && !other.ends_before(self.lower())
    }
}

impl ScrubState {
    /// Whether a pass has begun and not ended.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.started_ms != self.verified_ms
    }
}

/// One change of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Forget everything: a whole state follows in the same list.
    Reset,
    /// A partition exists.
    CreatePartition(PartitionDescriptor),
    /// A partition and its references are gone.
    DropPartition(PartitionId),
    /// A segment belongs to a partition.
    AddSegment {
        /// The partition.
        partition: PartitionId,
        /// The segment.
        segment: SegmentReference,
    },
    /// A segment no longer belongs to a partition. To move one to another level, remove and add it in one list.
    RemoveSegment {
        /// The partition.
        partition: PartitionId,
        /// The segment.
        segment: SegmentId,
    },
    /// Counters of a partition as of its last flush.
    Counters {
        /// The partition.
        partition: PartitionId,
        /// Items.
        item_count: u64,
        /// Their DynamoDB sizes summed, in bytes.
        item_bytes: u64,
    },
    /// Counters of a local index in a partition, as of its last flush.
    IndexCounters {
        /// The partition.
        partition: PartitionId,
        /// The counters.
        usage: IndexUsage,
    },
    /// No version up to `floor` may be given out again.
    Floor {
        /// The partition.
        partition: PartitionId,
        /// The floor; a lower one than before changes nothing.
        floor: CommitTimestamp,
    },
    /// What segments hold: mutations that are at or below either mark need not be replayed.
    Flushed {
        /// The partition.
        partition: PartitionId,
        /// Every mutation of the partition in batches up to this one is in segments.
        sequence: LogSequence,
        /// Every version up to this one is in segments.
        commit: CommitTimestamp,
        /// Raft index of the last of these mutations: the chain goes on behind it.
        index: RaftIndex,
    },
    /// Acknowledged data of a partition is lost for good; recycling the log must not make us forget it.
    Fenced {
        /// The partition.
        partition: PartitionId,
        /// What is lost, in words.
        why: String,
    },
    /// What a partition's new segments are packed with. It is here because a start flushes before anybody can have told it.
    Packing {
        /// The partition.
        partition: PartitionId,
        /// None is what the engine packs with.
        compression: Option<Compression>,
    },
    /// Counter of the next segment id of this log. Never goes back.
    NextSegment(u64),
    /// How far the scrub is. Lost with its batch it costs nothing but reading again.
    Scrub(ScrubState),
}

/// How far the scrub of a log's segments is. It goes through them by ascending id, and those that are made meanwhile
/// have higher ids than all that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubState {
    /// Every segment below this one has been verified in the pass.
    pub next: SegmentId,
    /// The pass ends at this one.
    pub end: SegmentId,
    /// When the pass began, by the wall clock in milliseconds.
    pub started_ms: u64,
    /// When the last complete pass began: whatever is older has been verified since. 0 when there was none. The same as
    /// `started_ms` when none is under way.
    pub verified_ms: u64,
}

/// What a partition's edits amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// What the partition is.
    pub descriptor: PartitionDescriptor,
    /// Its segments.
    pub segments: BTreeMap<SegmentId, SegmentReference>,
    /// Items as of the last flush.
    pub item_count: u64,
    /// Their DynamoDB sizes summed, in bytes.
    pub item_bytes: u64,
    /// Entries of local indexes as of the last flush.
    pub indexes: BTreeMap<IndexId, IndexUsage>,
    /// No version up to this one may be given out again.
    pub floor: CommitTimestamp,
    /// Every mutation in batches up to this one is in segments.
    pub flushed_sequence: LogSequence,
    /// Every version up to this one is in segments.
    pub flushed_commit: CommitTimestamp,
    /// Raft index of the last mutation in segments.
    pub flushed_index: RaftIndex,
    /// What is lost, when acknowledged data is.
    pub fenced: Option<String>,
    /// What its new segments are packed with, if not with what the engine's are.
    pub compression: Option<Compression>,
}

/// What all edits amount to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManifestState {
    /// Partitions by id.
    pub partitions: BTreeMap<PartitionId, PartitionState>,
    /// Counter of the next segment id.
    pub next_segment: u64,
    /// How far the scrub is.
    pub scrub: ScrubState,
}

/// Why edits cannot be read or applied, or a state is impossible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// Shorter than its own lengths say.
    Truncated,
    /// Written by a later version.
    Version(u8),
    /// An edit that this version may neither know nor skip.
    Kind(u8),
    /// A field breaks a limit; names it.
    Invalid(&'static str),
    /// An edit names a partition that does not exist.
    NoSuchPartition(PartitionId),
    /// A partition exists already with another description.
    PartitionConflict(PartitionId),
    /// A segment is added twice, or removed without being there.
    SegmentConflict(PartitionId, SegmentId),
    /// A flush mark goes back.
    FlushedBackwards(PartitionId),
    /// Two segments of one level overlap.
    Overlap(PartitionId, SegmentId, SegmentId),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::Truncated => write!(formatter, "a manifest edit is shorter than its lengths say"),
            ManifestError::Version(version) => {
                write!(formatter, "manifest edits of unknown version {version}")
            }
            ManifestError::Kind(kind) => write!(formatter, "manifest edit of unknown kind {kind}"),
            ManifestError::Invalid(field) => write!(formatter, "manifest edit with an impossible {field}"),
            ManifestError::NoSuchPartition(partition) => {
                write!(
                    formatter,
                    "a manifest edit names partition {partition}, which does not exist"
                )
            }
            ManifestError::PartitionConflict(partition) => {
                write!(formatter, "partition {partition} is created twice, differently")
            }
            ManifestError::SegmentConflict(partition, segment) => write!(
                formatter,
                "segment {segment} of partition {partition} is added twice or removed without being there"
            ),
            ManifestError::FlushedBackwards(partition) => {
                write!(formatter, "the flush mark of partition {partition} goes back")
            }
            ManifestError::Overlap(partition, one, other) => {
                write!(
                    formatter,
                    "segments {one} and {other} of partition {partition} overlap in one level"
                )
            }
        }
    }
}

impl std::error::Error for ManifestError {}

impl ManifestState {
    /// Applies one edit. A failed edit changes nothing.
    ///
    /// # Errors
    /// When the edit contradicts the state.
    pub fn apply(&mut self, edit: &Edit) -> Result<(), ManifestError> {
        match edit {
            Edit::Reset => *self = ManifestState::default(),
            Edit::CreatePartition(descriptor) => match self.partitions.get(&descriptor.id) {
                Some(existing) if existing.descriptor == *descriptor => {}
                Some(_) => return Err(ManifestError::PartitionConflict(descriptor.id)),
                None => {
                    self.partitions
                        .insert(descriptor.id, PartitionState::new(descriptor.clone()));
                }
            },
            Edit::DropPartition(partition) => {
                self.partitions.remove(partition);
            }
            Edit::AddSegment { partition, segment } => {
                let state = self.partition(*partition)?;
                if state.segments.contains_key(&segment.id) {
                    return Err(ManifestError::SegmentConflict(*partition, segment.id));
                }
                state.segments.insert(segment.id, segment.clone());
                state.floor = state.floor.max(segment.commit_max);
            }
            Edit::RemoveSegment { partition, segment } => {
                if self.partition(*partition)?.segments.remove(segment).is_none() {
                    return Err(ManifestError::SegmentConflict(*partition, *segment));
                }
            }
            Edit::Counters {
                partition,
                item_count,
                item_bytes,
            } => {
                let state = self.partition(*partition)?;
                state.item_count = *item_count;
                state.item_bytes = *item_bytes;
            }
            Edit::IndexCounters { partition, usage } => {
                self.partition(*partition)?.indexes.insert(usage.index, *usage);
            }
            Edit::Floor { partition, floor } => {
                let state = self.partition(*partition)?;
                state.floor = state.floor.max(*floor);
            }
            Edit::Flushed {
                partition,
                sequence,
                commit,
                index,
            } => {
                let state = self.partition(*partition)?;
                if *sequence < state.flushed_sequence
                    || *commit < state.flushed_commit
                    || *index < state.flushed_index
                {
                    return Err(ManifestError::FlushedBackwards(*partition));
                }
                state.flushed_sequence = *sequence;
                state.flushed_commit = *commit;
                state.flushed_index = *index;
                state.floor = state.floor.max(*commit);
            }
            Edit::Fenced { partition, why } => self.partition(*partition)?.fenced = Some(why.clone()),
            Edit::Packing {
                partition,
                compression,
            } => self.partition(*partition)?.compression = *compression,
            Edit::NextSegment(counter) => self.next_segment = self.next_segment.max(*counter),
            Edit::Scrub(scrub) => self.scrub = *scrub,
        }
        Ok(())
    }

    /// The edits that lead from nothing to this state.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Edit> {
        let mut edits = vec![
            Edit::Reset,
            Edit::NextSegment(self.next_segment),
            Edit::Scrub(self.scrub),
        ];
        for state in self.partitions.values() {
            state.describe(&mut edits);
        }
        edits
    }

    /// Checks the invariants.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), ManifestError> {
        self.partitions.values().try_for_each(PartitionState::validate)
    }

    fn partition(&mut self, partition: PartitionId) -> Result<&mut PartitionState, ManifestError> {
        self.partitions
            .get_mut(&partition)
            .ok_or(ManifestError::NoSuchPartition(partition))
    }
}

impl PartitionState {
    /// An empty partition.
    #[must_use]
    pub fn new(descriptor: PartitionDescriptor) -> PartitionState {
        PartitionState {
            descriptor,
            segments: BTreeMap::new(),
            item_count: 0,
            item_bytes: 0,
            indexes: BTreeMap::new(),
            floor: CommitTimestamp(0),
            flushed_sequence: LogSequence(0),
            flushed_commit: CommitTimestamp(0),
            flushed_index: RaftIndex(0),
            fenced: None,
            compression: None,
        }
    }

    /// Appends the edits that lead from nothing to this state.
    pub fn describe(&self, edits: &mut Vec<Edit>) {
        let partition = self.descriptor.id;
        edits.push(Edit::CreatePartition(self.descriptor.clone()));
        for segment in self.segments.values() {
            edits.push(Edit::AddSegment {
                partition,
                segment: segment.clone(),
            });
        }
        edits.push(Edit::Counters {
            partition,
            item_count: self.item_count,
            item_bytes: self.item_bytes,
        });
        edits.extend(self.indexes.values().map(|usage| Edit::IndexCounters {
            partition,
            usage: *usage,
        }));
        edits.push(Edit::Flushed {
            partition,
            sequence: self.flushed_sequence,
            commit: self.flushed_commit,
            index: self.flushed_index,
        });
        edits.push(Edit::Floor {
            partition,
            floor: self.floor,
        });
        if let Some(why) = &self.fenced {
            edits.push(Edit::Fenced {
                partition,
                why: why.clone(),
            });
        }
        if self.compression.is_some() {
            edits.push(Edit::Packing {
                partition,
                compression: self.compression,
            });
        }
    }

    /// Checks the invariants.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let partition = self.descriptor.id;
        if self
            .descriptor
            .upper
            .as_ref()
            .is_some_and(|upper| *upper <= self.descriptor.lower)
        {
            return Err(ManifestError::Invalid("partition range"));
        }
        if self.flushed_commit > self.floor {
            return Err(ManifestError::Invalid("floor"));
        }
        let mut levels: [Vec<&SegmentReference>; LEVELS_MAX] = Default::default();
        for segment in self.segments.values() {
            segment.check()?;
            levels[usize::from(segment.level)].push(segment);
        }
        for level in &mut levels[1..] {
            level.sort_by(|one, other| one.lower().cmp(other.lower()));
            for pair in level.windows(2) {
                if pair[0].overlaps(pair[1]) {
                    return Err(ManifestError::Overlap(partition, pair[0].id, pair[1].id));
                }
            }
        }
        Ok(())
    }
}

impl SegmentReference {
    /// Checks the limits of a single reference.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let key = |key: &[u8]| !key.is_empty() && key.len() <= KEY_BYTES_MAX;
        let clip = |key: &Option<Vec<u8>>| key.as_ref().is_none_or(|key| key.len() <= KEY_BYTES_MAX);
        let facts = [
            (usize::from(self.level) < LEVELS_MAX, "segment level"),
            (!self.mirrors.is_empty(), "segment mirror set"),
            (key(&self.first_key) && key(&self.last_key), "segment key"),
            (self.first_key <= self.last_key, "segment key range"),
            (
                clip(&self.clip_lower) && clip(&self.clip_upper),
                "segment clip range",
            ),
            (self.commit_min <= self.commit_max, "segment commit range"),
            (
                self.entries > 0 && self.tombstones <= self.entries,
                "segment entry count",
            ),
        ];
        let broken = facts.iter().find(|(holds, _)| !holds);
        broken.map_or(Ok(()), |(_, field)| Err(ManifestError::Invalid(field)))
    }
}
