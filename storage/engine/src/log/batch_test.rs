//! Batch and anchor bytes: a round trip against a plain list, and random damage.

use cairn_runtime::AlignedBuffer;
use cairn_runtime::sim::Random;

use super::anchor::{Anchor, COPIES, COPY_BYTES};
use super::batch::{Batch, BatchHeader, Gather, PARTITIONS_MAX, Seal};
use super::file::FileEntry;
use super::{PartitionRange, Record};
use crate::ids::{Epoch, IndexId, LogId, LogSequence, NodeId, PartitionId, RaftIndex, TableId, Term};
use crate::sealing::{FileCipher, Secret};
use crate::volume::DriveSet;

const LOG: LogId = LogId(3);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Owned {
    kind: u8,
    partition: u64,
    index: u16,
    raft_index: u64,
    payload: Vec<u8>,
}

impl Owned {
    fn random(random: &mut Random) -> Owned {
        let mut payload = vec![0; random.index(700)];
        random.fill(&mut payload);
        Owned {
            kind: random.below(256) as u8,
            partition: random.below(9),
            index: random.below(3) as u16,
            raft_index: random.below(40),
            payload,
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            kind: self.kind,
            partition: PartitionId(self.partition),
            table: TableId(self.partition * 7),
            index: IndexId(self.index),
            term: Term(u64::MAX - self.raft_index),
            raft_index: RaftIndex(self.raft_index),
            payload: &self.payload,
        }
    }
}

fn file() -> FileEntry {
    FileEntry {
        number: 12,
        slot: 3,
        generation: 0,
        incarnation: 4,
        epoch: Epoch(1),
        mirrors: DriveSet::from_bits(3),
        blocks: 32,
        salt: [7; 32],
        first: LogSequence(0),
        last: LogSequence(0),
    }
}

fn seal(offset: u64) -> Seal {
    Seal {
        log: LOG,
        file: file(),
        offset,
        sequence: LogSequence(9),
        acknowledged: LogSequence(8),
        previous: 77,
    }
}

fn build(
    records: &[Owned],
    previous: &[PartitionRange],
    offset: u64,
) -> (AlignedBuffer, Vec<PartitionRange>) {
    let mut gather = Gather::new(None, previous);
    for (place, record) in records.iter().enumerate() {
        let (head, tail) = record.payload.split_at(record.payload.len() / 2);
        assert_eq!(gather.push(&record.record(), &[head, tail]) as usize, place);
    }
    let (bytes, _, ranges) = gather.seal(&seal(offset), None);
    (bytes, ranges)
}

fn decode(bytes: &[u8], offset: u64) -> Option<Batch<'_>> {
    Batch::check(BatchHeader::decode(bytes, LOG, &file(), offset)?, bytes, None)
}

#[test]
fn a_batch_reads_back() {
    let mut random = Random::new(1);
    let mut previous: Vec<PartitionRange> = Vec::new();
    for round in 0..200 {
        let records: Vec<Owned> = (0..random.index(300))
            .map(|_| Owned::random(&mut random))
            .collect();
        let (bytes, ranges) = build(&records, &previous, 4096 * round);
        let batch = decode(&bytes, 4096 * round).expect("as it was built");
        assert_eq!(batch.header.marker, records.is_empty());
        assert_eq!(batch.header.acknowledged, LogSequence(8));
        assert_eq!(batch.header.previous, 77);
        assert_eq!(batch.header.bytes(), bytes.len());
        let read: Vec<Record<'_>> = batch.records().collect();
        assert_eq!(read, records.iter().map(Owned::record).collect::<Vec<_>>());
        assert_eq!(batch.previous_ranges().collect::<Vec<_>>(), previous);
        // The slow way to the ranges.
        let mut partitions: Vec<u64> = records.iter().map(|record| record.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let expected: Vec<PartitionRange> = partitions
            .into_iter()
            .map(|partition| {
                let of = records.iter().filter(|record| record.partition == partition);
                let indexes: Vec<u64> = of
                    .map(|record| record.raft_index)
                    .filter(|index| *index > 0)
                    .collect();
                PartitionRange {
                    partition: PartitionId(partition),
                    first: RaftIndex(indexes.iter().copied().min().unwrap_or(0)),
                    last: RaftIndex(indexes.iter().copied().max().unwrap_or(0)),
                }
            })
            .collect();
        assert_eq!(ranges, expected);
        assert_eq!(batch.ranges(), expected);
        previous = ranges;
    }
}

#[test]
fn a_batch_verifies_only_at_its_place_and_whole() {
    let mut random = Random::new(2);
    let records: Vec<Owned> = (0..20).map(|_| Owned::random(&mut random)).collect();
    let (bytes, _) = build(&records, &[], 8192);
    assert!(decode(&bytes, 8192).is_some());
    assert!(decode(&bytes, 4096).is_none(), "another offset");
    assert!(
        BatchHeader::decode(&bytes, LogId(4), &file(), 8192).is_none(),
        "another log"
    );
    let others = [
        (FileEntry { number: 13, ..file() }, "an earlier use of the file"),
        (
            FileEntry {
                incarnation: 5,
                ..file()
            },
            "an earlier incarnation",
        ),
        (
            FileEntry {
                salt: [8; 32],
                ..file()
            },
            "made up by someone who does not know the salt",
        ),
    ];
    for (other, what) in others {
        assert!(BatchHeader::decode(&bytes, LOG, &other, 8192).is_none(), "{what}");
    }
    assert!(decode(&bytes[..bytes.len() - 4096], 8192).is_none(), "a torn end");
    for _ in 0..3_000 {
        let mut damaged = AlignedBuffer::from_slice(&bytes);
        let at = random.index(bytes.len());
        damaged[at] ^= 1 << random.below(8);
        assert!(decode(&damaged, 8192).is_none(), "byte {at}");
    }
}

#[test]
fn noise_is_never_a_batch_and_never_a_panic() {
    let mut random = Random::new(3);
    let records: Vec<Owned> = (0..30).map(|_| Owned::random(&mut random)).collect();
    let (bytes, _) = build(&records, &[], 4096);
    for _ in 0..2_000 {
        let mut noise = AlignedBuffer::from_slice(&bytes);
        let (start, length) = (random.index(noise.len()), 1 + random.index(600));
        let end = (start + length).min(noise.len());
        random.fill(&mut noise[start..end]);
        let _ = decode(&noise, 4096);
        let _ = FileEntry::decode_header(&noise[..4096], None, LOG, 3);
        for copy in 0..COPIES {
            assert_eq!(
                Anchor::decode(&noise[..COPY_BYTES.min(noise.len())], None, LOG, copy),
                None
            );
        }
    }
}

/// A record whose checksum is right but whose lengths are not, as a hostile or later writer could leave it.
#[test]
fn lengths_that_lie_are_refused() {
    let mut random = Random::new(4);
    for _ in 0..500 {
        let records: Vec<Owned> = (0..4).map(|_| Owned::random(&mut random)).collect();
        let mut gather = Gather::new(None, &[]);
        for record in &records {
            gather.push(&record.record(), &[&record.payload]);
        }
        let lie = random.next_u64() as u32;
        gather.forge(&lie.to_le_bytes());
        let (bytes, _, _) = gather.seal(&seal(4096), None);
        let honest = lie as usize == records[0].payload.len();
        let same_size = super::batch::record_bytes(lie as usize % (1 << 31))
            == super::batch::record_bytes(records[0].payload.len());
        assert!(decode(&bytes, 4096).is_none() || honest || same_size);
    }
}

#[test]
fn a_batch_takes_no_more_than_its_limits() {
    let mut gather = Gather::new(None, &[]);
    assert!(
        gather.has_room(1 << 20, Some(PartitionId(1)), 100),
        "an empty batch takes any record"
    );
    for partition in 0..PARTITIONS_MAX as u64 {
        let owned = Owned {
            kind: 0,
            partition,
            index: 0,
            raft_index: 1,
            payload: Vec::new(),
        };
        assert!(gather.has_room(0, Some(PartitionId(partition)), 1 << 20));
        gather.push(&owned.record(), &[&[]]);
    }
    assert!(
        !gather.has_room(0, Some(PartitionId(1 << 40)), 1 << 20),
        "one partition too many"
    );
    assert!(
        gather.has_room(0, Some(PartitionId(5)), 1 << 20),
        "a known partition"
    );
    assert!(
        !gather.has_room(1 << 20, Some(PartitionId(5)), 1 << 20),
        "too long"
    );
}

#[test]
fn an_anchor_reads_back_only_at_its_place() {
    let entry = |number: u64| FileEntry {
        number,
        slot: number as u32 * 2,
        generation: 1,
        incarnation: 2,
        epoch: Epoch(3),
        mirrors: DriveSet::from_bits(3),
        blocks: 64,
        salt: [number as u8; 32],
        first: LogSequence(number * 10),
        last: LogSequence(number * 10 + 9),
    };
    for count in [0, 1, 5, super::config::FILES_MAX as u64] {
        let anchor = Anchor {
            node: NodeId(5),
            log: LOG,
            version: 8,
            incarnation: 2,
            next_file: 100,
            base: LogSequence(10),
            acknowledged: LogSequence(99),
            files: (1..=count).map(entry).collect(),
        };
        for copy in 0..COPIES {
            let bytes = anchor.encode(copy);
            assert_eq!(
                Anchor::decode(&bytes, Some(NodeId(5)), LOG, copy),
                Some(anchor.clone())
            );
            assert_eq!(Anchor::decode(&bytes, Some(NodeId(6)), LOG, copy), None);
            assert_eq!(Anchor::decode(&bytes, None, LogId(4), copy), None);
            assert_eq!(Anchor::decode(&bytes, None, LOG, (copy + 1) % COPIES), None);
        }
        let mut random = Random::new(count);
        for _ in 0..500 {
            let mut damaged = anchor.encode(0);
            let at = random.index(damaged.len());
            damaged[at] ^= 1 << random.below(8);
            assert_eq!(Anchor::decode(&damaged, None, LOG, 0), None, "byte {at}");
        }
    }
}

#[test]
fn a_sealed_batch_reads_back_under_its_key_and_shows_nothing() {
    let cipher = |byte: u8, id: u32| FileCipher::new(&Secret::new([byte; 32]), id);
    let mut random = Random::new(9);
    let marker = b"a marker that must not be seen";
    let mut records: Vec<Owned> = (0..40).map(|_| Owned::random(&mut random)).collect();
    records[3].payload = marker.to_vec();
    let previous = [PartitionRange {
        partition: PartitionId(0x0123_4567_89ab_cdef),
        first: RaftIndex(1),
        last: RaftIndex(2),
    }];
    let mut gather = Gather::new(None, &previous);
    for record in &records {
        gather.push(&record.record(), &[&record.payload]);
    }
    let (bytes, sum, _) = gather.seal(&seal(4096), Some(&cipher(1, 1)));
    for secret in [marker.as_slice(), &previous[0].partition.0.to_le_bytes()] {
        assert!(bytes.windows(secret.len()).all(|window| window != secret));
    }
    let header = BatchHeader::decode(&bytes, LOG, &file(), 4096).expect("the header is not sealed");
    assert_eq!((header.key_id, header.checksum, header.records), (1, sum, 40));
    let batch = Batch::check(header, &bytes, Some(&cipher(1, 1))).expect("as it was sealed");
    let read: Vec<Record<'_>> = batch.records().collect();
    assert_eq!(read, records.iter().map(Owned::record).collect::<Vec<_>>());
    assert_eq!(batch.previous_ranges().collect::<Vec<_>>(), previous);
    for wrong in [None, Some(cipher(2, 1)), Some(cipher(1, 2))] {
        assert!(
            Batch::check(header, &bytes, wrong.as_ref()).is_none(),
            "{wrong:?}"
        );
    }
    let (plain, _) = build(&records, &previous, 4096);
    let header = BatchHeader::decode(&plain, LOG, &file(), 4096).expect("a plain one");
    assert!(
        Batch::check(header, &plain, Some(&cipher(1, 1))).is_none(),
        "what is not sealed does not count in a sealed file"
    );
}

/// A header that says something else than what was sealed, under checksums that are right.
#[test]
fn the_seal_of_a_batch_holds_for_its_header() {
    let cipher = FileCipher::new(&Secret::new([1; 32]), 1);
    let records: Vec<Owned> = (0..3).map(|_| Owned::random(&mut Random::new(2))).collect();
    let sealed = |acknowledged| {
        let mut gather = Gather::new(None, &[]);
        for record in &records {
            gather.push(&record.record(), &[&record.payload]);
        }
        let seal = Seal {
            acknowledged: LogSequence(acknowledged),
            ..seal(4096)
        };
        gather.seal(&seal, Some(&cipher)).0
    };
    let (one, other) = (sealed(8), sealed(7));
    assert_eq!(one[128..], other[128..], "the body is the same");
    let mut forged = AlignedBuffer::from_slice(&one);
    forged[56..64].copy_from_slice(&7u64.to_le_bytes());
    let place = crate::checksum::Place {
        file: crate::checksum::checksum(u64::from(LOG.0) << 40 ^ file().number, &file().salt),
        incarnation: file().incarnation,
        offset: 4096,
    };
    let sum = crate::checksum::checksum(place.seed(), &forged[16..128]);
    forged[8..16].copy_from_slice(&sum.to_le_bytes());
    let header = BatchHeader::decode(&forged, LOG, &file(), 4096).expect("its checksum is right");
    assert_eq!(header.acknowledged, LogSequence(7));
    assert!(Batch::check(header, &forged, Some(&cipher)).is_none());
}
