//! What replay makes of losses, in a small notation: one batch after the other, and in the end for every partition
//! whether it serves and what it still has to apply.

use std::fmt::Write;

use super::*;
use crate::PartitionDescriptor;
use crate::ids::{CommitTimestamp, IndexId, SegmentId, TableId, Term};
use crate::log::{LogPosition, PartitionRange};
use crate::manifest::{SegmentReference, encode_edits};
use crate::mutation::{MutationKind, Provenance, RequestToken};
use crate::volume::DriveSet;

/// A batch of the log.
enum Met {
    Edits(Vec<Edit>),
    /// Mutation of a partition, by its index in the chain.
    Mutation(u64, u64),
    /// Batches from here on are lost: how many, and the ranges of the last.
    Lost(u64, Vec<(u64, u64)>),
}
use Met::{Edits, Lost as Gone, Mutation as Put};

fn descriptor(id: u64) -> PartitionDescriptor {
    PartitionDescriptor {
        id: PartitionId(id),
        table: TableId(1),
        index: IndexId(0),
        lower: Vec::new(),
        upper: None,
    }
}

fn create(id: u64) -> Edit {
    Edit::CreatePartition(descriptor(id))
}

/// A flush of everything up to a batch and a mutation into one segment.
fn flush(id: u64, segment: u64, sequence: u64, index: u64) -> Vec<Edit> {
    vec![add(id, segment), flushed(id, sequence, index)]
}

fn flushed(id: u64, sequence: u64, index: u64) -> Edit {
    Edit::Flushed {
        partition: PartitionId(id),
        sequence: LogSequence(sequence),
        commit: CommitTimestamp(index),
        index: RaftIndex(index),
    }
}

fn add(id: u64, segment: u64) -> Edit {
    Edit::AddSegment {
        partition: PartitionId(id),
        segment: SegmentReference {
            id: SegmentId(segment),
            level: 0,
            mirrors: DriveSet::from_bits(3),
            bytes: 8192,
            footer_checksum: 1,
            first_key: b"a".to_vec(),
            last_key: b"z".to_vec(),
            clip_lower: None,
            clip_upper: None,
            commit_min: CommitTimestamp(1),
            commit_max: CommitTimestamp(1),
            entries: 1,
            tombstones: 0,
        },
    }
}

fn remove(id: u64, segment: u64) -> Edit {
    Edit::RemoveSegment {
        partition: PartitionId(id),
        segment: SegmentId(segment),
    }
}

/// What a snapshot says of a partition with one segment.
fn restate(id: u64, segment: u64, sequence: u64, index: u64) -> Vec<Edit> {
    let mut edits = vec![Edit::DropPartition(PartitionId(id)), create(id)];
    edits.extend(flush(id, segment, sequence, index));
    edits
}

fn drop_partition(id: u64) -> Vec<Edit> {
    vec![Edit::DropPartition(PartitionId(id))]
}

fn replayed(batches: Vec<Met>) -> String {
    let mut replay = Replay::default();
    let mut sequence = 1;
    for batch in batches {
        let mut payload = Vec::new();
        let mut record = Record {
            kind: RecordKind::Edits as u8,
            partition: PartitionId(0),
            table: TableId(1),
            index: IndexId(0),
            term: Term(1),
            raft_index: RaftIndex(0),
            payload: &[],
        };
        match batch {
            Gone(count, known) => {
                let known = known.into_iter().map(|(partition, index)| PartitionRange {
                    partition: PartitionId(partition),
                    first: RaftIndex(index),
                    last: RaftIndex(index),
                });
                let known: Vec<PartitionRange> = known.collect();
                replay.meet(Replayed::Lost(&Lost {
                    first: LogSequence(sequence),
                    last: LogSequence(sequence + count - 1),
                    complete: count == 1 && !known.is_empty(),
                    known,
                }));
                sequence += count;
                continue;
            }
            Edits(edits) => encode_edits(&edits, &mut payload),
            Put(partition, index) => {
                let header = MutationHeader {
                    kind: MutationKind::Delete,
                    commit: CommitTimestamp(index),
                    provenance: Provenance::default(),
                    token: RequestToken::default(),
                    old_item_bytes: None,
                    new_item_bytes: None,
                };
                record.kind = RecordKind::Mutation as u8;
                record.partition = PartitionId(partition);
                record.raft_index = RaftIndex(index);
                let mutation = crate::mutation::Mutation {
                    header,
                    extension: &[],
                    key: b"key",
                    item: &[],
                };
                mutation.encode(&mut payload);
            }
        }
        record.payload = &payload;
        let position = LogPosition {
            sequence: LogSequence(sequence),
            record: 0,
        };
        replay.meet(Replayed::Record(position, record));
        sequence += 1;
    }
    let whole = match replay.finish() {
        Ok(whole) => whole,
        Err(why) => return why,
    };
    let mut told = String::new();
    for recovered in whole.partitions {
        let standing = if recovered.lost.is_some() {
            "fenced"
        } else {
            "serves"
        };
        let (id, pending) = (recovered.state.descriptor.id, recovered.pending.len());
        let segments = recovered.state.segments.len();
        write!(told, "{id} {standing} {segments}+{pending}, ").expect("strings grow");
    }
    told
}

fn check(batches: Vec<Met>, expected: &str) {
    assert_eq!(replayed(batches), expected);
}

#[test]
fn without_a_loss_everything_serves() {
    let batches = vec![
        Edits(vec![create(1), create(2)]),
        Put(1, 1),
        Put(2, 1),
        Put(1, 2),
        Edits(flush(1, 1, 3, 1)),
    ];
    check(batches, "1 serves 1+1, 2 serves 0+1, ");
}

#[test]
fn a_lost_batch_concerns_the_chains_that_it_held() {
    let begin = || vec![Edits(vec![create(1), create(2)]), Put(1, 1), Put(2, 1)];
    let then = |mut batches: Vec<Met>, rest: Vec<Met>| {
        batches.extend(rest);
        batches
    };
    check(
        then(begin(), vec![Gone(1, vec![(2, 2)]), Put(1, 2)]),
        "1 serves 0+2, 2 fenced 0+1, ",
    );
    let covered = Edits(flush(2, 1, 5, 3));
    check(
        then(begin(), vec![Gone(1, vec![(2, 2)]), Put(2, 3), covered]),
        "1 serves 0+1, 2 serves 1+0, ",
    );
}

/// Two flushes; the edit of the first is lost. The mutations of the second flush mark are gone from the chain, and
/// what the first segment held is served by nobody: the partition must not serve.
#[test]
fn lost_edits_fence_every_partition_that_is_not_restated_behind_them() {
    let begin = || {
        vec![
            Edits(vec![create(1), create(2)]),
            Put(1, 1),
            Gone(1, vec![(0, 0)]),
            Put(1, 2),
            Edits(flush(1, 2, 4, 2)),
            Put(1, 3),
        ]
    };
    check(begin(), "1 fenced 1+1, 2 fenced 0+0, ");
    let mut restated = begin();
    restated.push(Edits(restate(1, 2, 4, 2)));
    check(restated, "1 serves 1+1, 2 fenced 0+0, ");
    let mut dropped = begin();
    dropped.push(Edits(drop_partition(1)));
    check(dropped, "2 fenced 0+0, ");
    let mut born_later = begin();
    born_later.extend([Edits(vec![create(3)]), Put(3, 1)]);
    check(born_later, "1 fenced 1+1, 2 fenced 0+0, 3 serves 0+1, ");
}

#[test]
fn no_index_proves_that_edits_are_whole() {
    let batches = vec![
        Edits(vec![create(1)]),
        Put(1, 1),
        Gone(2, vec![(1, 3)]),
        Put(1, 4),
        Edits(flush(1, 2, 5, 4)),
    ];
    check(batches, "1 fenced 1+0, ");
}

#[test]
fn an_edit_may_contradict_what_is_lost_and_only_that() {
    let batches = |lost: Met| {
        vec![
            Edits(vec![create(1), create(2)]),
            lost,
            Edits(vec![remove(1, 1), add(1, 2)]),
        ]
    };
    check(batches(Gone(1, vec![(0, 0)])), "1 fenced 1+0, 2 fenced 0+0, ");
    let told = replayed(batches(Gone(1, vec![(2, 1)])));
    assert!(told.contains("removed without being there"), "{told}");
}

#[test]
fn a_partition_whose_creation_is_lost_stops_everything() {
    let lost = "mutations of partition 2, whose creation is lost";
    let batches = vec![Edits(vec![create(1)]), Gone(1, vec![(0, 0)]), Put(2, 1)];
    check(batches, lost);
    let batches = vec![Edits(vec![create(1)]), Gone(1, vec![(0, 0), (2, 1)])];
    check(batches, lost);
    let batches = vec![Gone(1, vec![(0, 0)]), Edits(flush(2, 1, 1, 1))];
    check(batches, "manifest edits of partition 2, whose creation is lost");
    let batches = vec![Edits(vec![create(1)]), Put(2, 1)];
    check(batches, "mutations of partition 2, which was never created");
}

/// The log begins in the middle; the loss lies before the snapshot that states the partitions for the first time.
#[test]
fn a_partition_stated_behind_an_unknown_loss_may_have_lost_what_others_may() {
    let restated = || Edits([restate(1, 1, 0, 0), restate(2, 2, 0, 0)].concat());
    check(
        vec![Put(1, 1), Gone(2, vec![(1, 3)]), restated()],
        "1 fenced 1+1, 2 fenced 1+0, ",
    );
    // A mutation, or a flush of everything up to the loss, proves a chain.
    check(
        vec![Gone(2, vec![]), Put(2, 1), restated()],
        "1 fenced 1+0, 2 serves 1+1, ",
    );
    check(
        vec![Gone(2, vec![]), restated(), Edits(flush(2, 3, 2, 2))],
        "1 fenced 1+0, 2 serves 2+0, ",
    );
    // A flush of an earlier moment does not, although its mark is new.
    check(
        vec![Gone(2, vec![]), restated(), Edits(flush(2, 3, 1, 1))],
        "1 fenced 1+0, 2 fenced 2+0, ",
    );
    check(
        vec![Gone(2, vec![]), restated(), Edits(vec![create(3)]), Put(3, 1)],
        "1 fenced 1+0, 2 fenced 1+0, 3 serves 0+1, ",
    );
}
