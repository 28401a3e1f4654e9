use super::*;
use crate::ids::{IndexId, TableId};

fn descriptor(id: u64) -> PartitionDescriptor {
    PartitionDescriptor {
        id: PartitionId(id),
        table: TableId(7),
        index: IndexId(1),
        lower: b"a".to_vec(),
        upper: Some(b"z".to_vec()),
    }
}

fn segment(id: u64, level: u8, first: &str, last: &str) -> SegmentReference {
    SegmentReference {
        id: SegmentId(id),
        level,
        mirrors: DriveSet::from_bits(0b101),
        bytes: 8192,
        footer_checksum: 99,
        first_key: first.into(),
        last_key: last.into(),
        clip_lower: None,
        clip_upper: None,
        commit_min: CommitTimestamp(3),
        commit_max: CommitTimestamp(5),
        entries: 2,
        tombstones: 1,
    }
}

fn add(segment: SegmentReference) -> Edit {
    Edit::AddSegment {
        partition: PartitionId(1),
        segment,
    }
}

fn every_kind() -> Vec<Edit> {
    let partition = PartitionId(1);
    let clipped = SegmentReference {
        clip_lower: Some(b"c".to_vec()),
        clip_upper: Some(Vec::new()),
        ..segment(3, 2, "b", "d")
    };
    vec![
        Edit::Reset,
        Edit::NextSegment(9),
        Edit::CreatePartition(descriptor(1)),
        Edit::CreatePartition(PartitionDescriptor {
            upper: None,
            ..descriptor(2)
        }),
        add(segment(2, 0, "b", "d")),
        add(clipped),
        Edit::RemoveSegment {
            partition,
            segment: SegmentId(2),
        },
        Edit::Counters {
            partition,
            item_count: 4,
            item_bytes: 5,
        },
        Edit::Flushed {
            partition,
            sequence: LogSequence(6),
            commit: CommitTimestamp(7),
            index: RaftIndex(8),
        },
        Edit::Floor {
            partition,
            floor: CommitTimestamp(8),
        },
        Edit::DropPartition(PartitionId(2)),
        Edit::Fenced {
            partition,
            why: "batches 3 to 4 are lost".to_owned(),
        },
        Edit::Scrub(ScrubState {
            next: SegmentId(3),
            end: SegmentId(9),
            started_ms: 1_700_000_000_000,
            verified_ms: 1_600_000_000_000,
        }),
        Edit::IndexCounters {
            partition,
            usage: IndexUsage {
                index: IndexId(3),
                item_count: 10,
                item_bytes: 11,
            },
        },
        Edit::Packing {
            partition,
            compression: None,
        },
        Edit::Packing {
            partition,
            compression: Some(Compression::Zstd),
        },
    ]
}

fn encoded(edits: &[Edit]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_edits(edits, &mut bytes);
    bytes
}

fn state(edits: &[Edit]) -> ManifestState {
    let mut state = ManifestState::default();
    for edit in edits {
        state.apply(edit).unwrap();
    }
    state
}

#[test]
fn what_is_encoded_is_decoded() {
    assert_eq!(decode_edits(&encoded(&every_kind())), Ok(every_kind()));
    assert_eq!(decode_edits(&encoded(&[])), Ok(Vec::new()));
}

#[test]
fn the_layout_is_frozen() {
    let bytes = encoded(&[Edit::RemoveSegment {
        partition: PartitionId(1),
        segment: SegmentId(2),
    }]);
    let expected = [
        1, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes, expected);
    for (with, compression) in [
        (0, None),
        (1, Some(Compression::None)),
        (2, Some(Compression::Lz4)),
        (3, Some(Compression::Zstd)),
    ] {
        let mut bytes = encoded(&[Edit::Packing {
            partition: PartitionId(7),
            compression,
        }]);
        let expected = [
            1, 0, 0, 0, 1, 0, 0, 0, 129, 0, 0, 0, 16, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, with, 0, 0, 0, 0, 0,
            0, 0,
        ];
        assert_eq!(bytes, expected);
        bytes[24] = 4;
        assert_eq!(decode_edits(&bytes), Err(ManifestError::Invalid("packing")));
    }
    // The whole vocabulary, so that no kind changes by accident.
    assert_eq!(
        crate::checksum::checksum(0, &encoded(&every_kind())),
        0xdcc03e08975c1f16
    );
}

#[test]
fn hostile_bytes_are_safe() {
    let good = encoded(&every_kind());
    for bytes in 0..good.len() {
        assert!(decode_edits(&good[..bytes]).is_err(), "{bytes}");
    }
    for at in 0..good.len() {
        for byte in [0, 1, 2, 127, 128, 254, 255, good[at] ^ 1, good[at] ^ 0x80] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            if let Ok(edits) = decode_edits(&bytes) {
                assert_eq!(decode_edits(&encoded(&edits)), Ok(edits), "byte {at} = {byte}");
            }
        }
    }
}

#[test]
fn unknown_kinds_are_skipped_only_when_they_allow_it() {
    let mut bytes = encoded(&[Edit::Reset, Edit::NextSegment(4)]);
    bytes[8] = 200;
    assert_eq!(decode_edits(&bytes), Ok(vec![Edit::NextSegment(4)]));
    bytes[8] = 100;
    assert_eq!(decode_edits(&bytes), Err(ManifestError::Kind(100)));
}

#[test]
fn a_snapshot_leads_to_the_same_state() {
    let mut edits = every_kind();
    edits.push(add(segment(4, 0, "a", "b")));
    let whole = state(&edits);
    whole.validate().unwrap();
    assert_eq!(state(&whole.snapshot()), whole);
    let mut dirty = state(&[Edit::CreatePartition(descriptor(5))]);
    for edit in whole.snapshot() {
        dirty.apply(&edit).unwrap();
    }
    assert_eq!(dirty, whole, "a snapshot forgets what was before");
}

#[test]
fn edits_that_contradict_the_state_are_refused() {
    let partition = PartitionId(1);
    let good = state(&[Edit::CreatePartition(descriptor(1)), add(segment(1, 1, "b", "d"))]);
    let flushed = |commit| Edit::Flushed {
        partition,
        sequence: LogSequence(1),
        commit: CommitTimestamp(commit),
        index: RaftIndex(1),
    };
    let cases = [
        (
            vec![Edit::Counters {
                partition: PartitionId(9),
                item_count: 0,
                item_bytes: 0,
            }],
            false,
        ),
        (vec![Edit::CreatePartition(descriptor(1))], true),
        (
            vec![Edit::CreatePartition(PartitionDescriptor {
                upper: None,
                ..descriptor(1)
            })],
            false,
        ),
        (vec![Edit::DropPartition(PartitionId(9))], true),
        (vec![add(segment(1, 1, "e", "f"))], false),
        (
            vec![Edit::RemoveSegment {
                partition,
                segment: SegmentId(9),
            }],
            false,
        ),
        (
            vec![
                Edit::RemoveSegment {
                    partition,
                    segment: SegmentId(1),
                },
                add(segment(1, 2, "b", "d")),
            ],
            true,
        ),
        (vec![flushed(9), flushed(9)], true),
        (vec![flushed(9), flushed(8)], false),
    ];
    for (edits, accepted) in cases {
        let mut state = good.clone();
        let result = edits.iter().try_for_each(|edit| state.apply(edit));
        assert_eq!(result.is_ok(), accepted, "{edits:?}: {result:?}");
        state.validate().unwrap();
    }
}

#[test]
fn levels_do_not_overlap_except_the_first() {
    let clip = |lower: &str, upper: &str, segment| SegmentReference {
        clip_lower: Some(lower.into()),
        clip_upper: Some(upper.into()),
        ..segment
    };
    let cases = [
        (segment(1, 0, "a", "f"), segment(2, 0, "b", "c"), true),
        (segment(1, 1, "a", "f"), segment(2, 1, "b", "c"), false),
        (segment(1, 1, "a", "b"), segment(2, 1, "b", "c"), false),
        (segment(1, 1, "a", "b"), segment(2, 1, "c", "d"), true),
        (segment(1, 1, "a", "f"), segment(2, 2, "b", "c"), true),
        (
            clip("a", "c", segment(1, 1, "a", "f")),
            clip("c", "f", segment(2, 1, "a", "f")),
            true,
        ),
        (
            clip("a", "d", segment(1, 1, "a", "f")),
            clip("c", "f", segment(2, 1, "a", "f")),
            false,
        ),
    ];
    for (one, other, valid) in cases {
        let state = state(&[Edit::CreatePartition(descriptor(1)), add(other), add(one)]);
        assert_eq!(state.validate().is_ok(), valid, "{state:?}");
    }
}
