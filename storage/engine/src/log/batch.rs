//! Bytes of a batch: built in place, checked whole.
//!
//! ```text
//! header, 128 bytes
//!    0  8  magic "CAIRNBAT"
//!    8  8  header checksum: xxh3 of bytes 16..128, seeded with the place
//!   16  8  body checksum: xxh3 of byte 128 to the end of the last block, seeded with the place
//!   24  2  format version
//!   26  1  codec: 0, as records are not packed
//!   27  1  kind: 0 records, 1 marker
//!   28  4  id of the node key that the body is sealed with; 0: not sealed
//!   32  4  log id
//!   36  4  blocks: length of the batch
//!   40  8  incarnation
//!   48  8  sequence
//!   56  8  acknowledged: the last batch known to be durable on all in-sync mirrors when this one was written
//!   64  8  header checksum of the batch before
//!   72  4  bytes of records
//!   76  4  number of records
//!   80  4  number of partition ranges of the batch before
//!   84  4  zero
//!   88  8  file number
//!   96 16  tag of the sealed body; zero when it is not sealed
//!  112 16  zero
//! body, sealed as a whole when the node is encrypted
//!  128 24n partition ranges of the batch before: partition 8, lowest raft index 8, highest 8
//!        records, each a multiple of 8 bytes: payload length 4, kind 1, zero 1, index 2, partition 8, table 8,
//!        term 8, raft index 8, payload, zeros
//!        zeros to the end of the block
//! ```
//!
//! The place is {log and file number and salt of the file, its incarnation, offset}: what an earlier use of the file left,
//! what was written elsewhere, or what a client made up, which does not know the salt, does not verify. The header checksum covers the body's, so the chain over header checksums
//! covers everything. The tag also vouches for bytes 24..96 of the header; the body's checksum is over the body as it is stored. Ranges repeat what the batch before held, so that a lost batch can be attributed.

use std::borrow::Cow;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES};

use super::file::FileEntry;
use super::{PartitionRange, Record};
use crate::canary::{self, Canary};
use crate::checksum::{Place, checksum};
use crate::ids::{IndexId, LogId, LogSequence, PartitionId, RaftIndex, TableId, Term};
use crate::sealing::{FileCipher, TAG_BYTES};

/// Version 1: the first.
const FORMAT_VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"CAIRNBAT";
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 128;
const RANGE_BYTES: usize = 24;
/// Where the tag stands.
const TAG_AT: usize = 96;
/// What of the header the tag vouches for.
const SEALED_ABOUT: std::ops::Range<usize> = 24..TAG_AT;
/// Bytes of a record besides its payload and padding.
pub(super) const RECORD_HEADER_BYTES: usize = 40;
/// Partitions a batch can touch: their ranges must leave room for records in the batch after.
pub(super) const PARTITIONS_MAX: usize = 1024;
/// Most bytes that header and ranges take.
pub(super) const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + PARTITIONS_MAX * RANGE_BYTES;
/// A buffer begins with this many bytes and doubles.
const BUFFER_BYTES_FIRST: usize = 64 << 10;

/// Bytes a record takes in a batch.
pub(super) fn record_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

/// Seed of the checksums at `offset` of a file.
fn seed(log: LogId, file: &FileEntry, offset: u64) -> u64 {
    let salted = checksum(u64::from(log.0) << 40 ^ file.number, &file.salt);
    let place = Place {
        file: salted,
        incarnation: file.incarnation,
        offset,
    };
    place.seed()
}

/// What a batch says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Whether it is a marker: no records, only the acknowledged sequence.
    pub marker: bool,
    /// How the body is compressed; 0 is not at all.
    pub codec: u8,
    /// The key that the body is sealed with; 0 is none.
    pub key_id: u32,
    /// The log.
    pub log: LogId,
    /// Length in blocks.
    pub blocks: u32,
    /// Incarnation of the log.
    pub incarnation: u64,
    /// Sequence.
    pub sequence: LogSequence,
    /// The last batch known durable everywhere when this one was written.
    pub acknowledged: LogSequence,
    /// Header checksum of the batch before.
    pub previous: u64,
    /// Bytes of records.
    pub record_bytes: u32,
    /// Number of records.
    pub records: u32,
    /// Number of ranges of the batch before.
    pub ranges: u32,
    /// The file it was written to.
    pub file_number: u64,
    /// Checksum of the header: what the batch after repeats.
    pub checksum: u64,
    body_checksum: u64,
    seed: u64,
    /// Block of the file where it begins.
    block: u64,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were taken")
}

impl BatchHeader {
    /// The format version of a whole header at this place that this program does not know.
    #[must_use]
    pub fn unknown_version(block: &[u8], log: LogId, file: &FileEntry, offset: u64) -> Option<u16> {
        let sum = || checksum(seed(log, file, offset), &block[16..HEADER_BYTES]).to_le_bytes();
        let whole = block.len() >= BLOCK_BYTES && block[..8] == MAGIC && array(block, 8) == sum();
        whole
            .then(|| u16::from_le_bytes(array(block, 24)))
            .filter(|version| *version != FORMAT_VERSION)
    }

    /// Reads a header from the first block of a batch; `None` when it is not a valid batch of this place.
    #[must_use]
    pub fn decode(block: &[u8], log: LogId, file: &FileEntry, offset: u64) -> Option<BatchHeader> {
        if block.len() < BLOCK_BYTES || block[..8] != MAGIC {
            return None;
        }
        let seed = seed(log, file, offset);
        let sum = u64::from_le_bytes(array(block, 8));
        if sum != checksum(seed, &block[16..HEADER_BYTES]) || array(block, 24) != FORMAT_VERSION.to_le_bytes()
        {
            return None;
        }
        let header = BatchHeader {
            marker: block[27] == 1,
            codec: block[26],
            key_id: u32::from_le_bytes(array(block, 28)),
            log: LogId(u32::from_le_bytes(array(block, 32))),
            blocks: u32::from_le_bytes(array(block, 36)),
            incarnation: u64::from_le_bytes(array(block, 40)),
            sequence: LogSequence(u64::from_le_bytes(array(block, 48))),
            acknowledged: LogSequence(u64::from_le_bytes(array(block, 56))),
            previous: u64::from_le_bytes(array(block, 64)),
            record_bytes: u32::from_le_bytes(array(block, 72)),
            records: u32::from_le_bytes(array(block, 76)),
            ranges: u32::from_le_bytes(array(block, 80)),
            file_number: u64::from_le_bytes(array(block, 88)),
            checksum: sum,
            body_checksum: u64::from_le_bytes(array(block, 16)),
            seed,
            block: offset / BLOCK_BYTES as u64,
        };
        header.is_sane(log, file).then_some(header)
    }

    fn is_sane(&self, log: LogId, file: &FileEntry) -> bool {
        let needed = HEADER_BYTES + self.ranges as usize * RANGE_BYTES + self.record_bytes as usize;
        self.log == log
            && self.file_number == file.number
            && self.incarnation == file.incarnation
            && self.codec == 0
            && self.acknowledged < self.sequence
            && self.ranges as usize <= PARTITIONS_MAX
            && needed.div_ceil(BLOCK_BYTES) == self.blocks as usize
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blocks as usize * BLOCK_BYTES
    }
}

/// A batch whose every byte was checked.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// Its header.
    pub header: BatchHeader,
    /// What follows the header, not sealed.
    body: Cow<'a, [u8]>,
}

impl<'a> Batch<'a> {
    /// Checks, and opens, the body that belongs to a header; `bytes` begin with the header. A file that has a cipher holds
    /// batches that are sealed with it, and none else.
    #[must_use]
    pub(crate) fn check(
        header: BatchHeader,
        bytes: &'a [u8],
        cipher: Option<&FileCipher>,
    ) -> Option<Batch<'a>> {
        if bytes.len() < header.bytes() {
            return None;
        }
        let bytes = &bytes[..header.bytes()];
        let whole = checksum(header.seed, &bytes[HEADER_BYTES..]) == header.body_checksum;
        if !whole && !canary::is_in(Canary::TrustBatches) {
            return None;
        }
        let stored = &bytes[HEADER_BYTES..];
        let body = match cipher {
            None if header.key_id == 0 => Cow::Borrowed(stored),
            Some(cipher) if header.key_id == cipher.key_id() => {
                let mut opened = vec![0; stored.len()];
                let tag = &bytes[TAG_AT..TAG_AT + TAG_BYTES];
                let about = &bytes[SEALED_ABOUT];
                cipher.open(header.block, about, stored, tag, &mut opened).ok()?;
                Cow::Owned(opened)
            }
            _ => return None,
        };
        let batch = Batch { header, body };
        let mut records = batch.records();
        let counted = records.by_ref().count();
        let whole = counted == header.records as usize && records.rest.is_empty();
        whole.then_some(batch)
    }

    /// What the batch before held.
    pub fn previous_ranges(&self) -> impl Iterator<Item = PartitionRange> + '_ {
        let bytes = &*self.body;
        (0..self.header.ranges as usize).map(move |index| {
            let at = index * RANGE_BYTES;
            PartitionRange {
                partition: PartitionId(u64::from_le_bytes(array(bytes, at))),
                first: RaftIndex(u64::from_le_bytes(array(bytes, at + 8))),
                last: RaftIndex(u64::from_le_bytes(array(bytes, at + 16))),
            }
        })
    }

    /// Its records, in order.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let start = self.header.ranges as usize * RANGE_BYTES;
        Records {
            rest: &self.body[start..start + self.header.record_bytes as usize],
        }
    }

    /// What the batch itself holds, as the batch after it will repeat.
    pub(super) fn ranges(&self) -> Vec<PartitionRange> {
        let mut ranges = Vec::new();
        for record in self.records() {
            note(&mut ranges, &record);
        }
        ranges
    }
}

/// Records of a batch; ends early at a malformed one.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let bytes = self.rest;
        if bytes.len() < RECORD_HEADER_BYTES {
            return None;
        }
        let payload_bytes = u32::from_le_bytes(array(bytes, 0)) as usize;
        let total = record_bytes(payload_bytes);
        if total > bytes.len() {
            return None;
        }
        self.rest = &bytes[total..];
        Some(Record {
            kind: bytes[4],
            index: IndexId(u16::from_le_bytes(array(bytes, 6))),
            partition: PartitionId(u64::from_le_bytes(array(bytes, 8))),
            table: TableId(u64::from_le_bytes(array(bytes, 16))),
            term: Term(u64::from_le_bytes(array(bytes, 24))),
            raft_index: RaftIndex(u64::from_le_bytes(array(bytes, 32))),
            payload: &bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes],
        })
    }
}

/// Widens the sorted `ranges` by a record.
fn note(ranges: &mut Vec<PartitionRange>, record: &Record<'_>) {
    match ranges.binary_search_by_key(&record.partition, |range| range.partition) {
        Ok(at) if record.raft_index.0 != 0 => {
            let range = &mut ranges[at];
            if range.first.0 == 0 || record.raft_index < range.first {
                range.first = record.raft_index;
            }
            range.last = range.last.max(record.raft_index);
        }
        Ok(_) => {}
        Err(at) => ranges.insert(
            at,
            PartitionRange {
                partition: record.partition,
                first: record.raft_index,
                last: record.raft_index,
            },
        ),
    }
}

/// What a batch gets when it is closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal {
    pub(super) log: LogId,
    pub(super) file: FileEntry,
    pub(super) offset: u64,
    pub(super) sequence: LogSequence,
    pub(super) acknowledged: LogSequence,
    pub(super) previous: u64,
}

/// A batch being gathered: records are copied once, to where they will be written from.
pub(super) struct Gather {
    buffer: AlignedBuffer,
    used: usize,
    records_at: usize,
    records: u32,
    previous_ranges: u32,
    ranges: Vec<PartitionRange>,
}

impl Gather {
    /// Begins a batch that repeats the ranges of the batch before.
    pub(super) fn new(buffer: Option<AlignedBuffer>, previous: &[PartitionRange]) -> Gather {
        assert!(previous.len() <= PARTITIONS_MAX);
        let mut buffer = buffer.unwrap_or_else(|| AlignedBuffer::zeroed(BUFFER_BYTES_FIRST));
        buffer.set_bytes(buffer.capacity());
        for (index, range) in previous.iter().enumerate() {
            let at = HEADER_BYTES + index * RANGE_BYTES;
            buffer[at..at + 8].copy_from_slice(&range.partition.0.to_le_bytes());
            buffer[at + 8..at + 16].copy_from_slice(&range.first.0.to_le_bytes());
            buffer[at + 16..at + 24].copy_from_slice(&range.last.0.to_le_bytes());
        }
        let records_at = HEADER_BYTES + previous.len() * RANGE_BYTES;
        Gather {
            buffer,
            used: records_at,
            records_at,
            records: 0,
            previous_ranges: u32::try_from(previous.len()).expect("at most PARTITIONS_MAX"),
            ranges: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// Bytes of records so far.
    pub(super) fn record_bytes(&self) -> usize {
        self.used - self.records_at
    }

    /// Length if it were closed now.
    pub(super) fn bytes(&self) -> usize {
        self.used.next_multiple_of(BLOCK_BYTES)
    }

    /// Whether a record of this size and partition may join a batch that stops growing at `bytes_max`. An empty
    /// batch takes any record.
    pub(super) fn has_room(
        &self,
        payload_bytes: usize,
        partition: Option<PartitionId>,
        bytes_max: usize,
    ) -> bool {
        if self.is_empty() {
            return true;
        }
        let known = partition.is_some_and(|partition| {
            self.ranges
                .binary_search_by_key(&partition, |range| range.partition)
                .is_ok()
        });
        self.used + record_bytes(payload_bytes) <= bytes_max && (known || self.ranges.len() < PARTITIONS_MAX)
    }

    /// Copies a record in; returns its place in the batch. `parts` make up the payload.
    pub(super) fn push(&mut self, record: &Record<'_>, parts: &[&[u8]]) -> u32 {
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let total = record_bytes(payload_bytes);
        self.reserve(total);
        let bytes = &mut self.buffer[self.used..self.used + total];
        bytes[..4].copy_from_slice(
            &u32::try_from(payload_bytes)
                .expect("limited by the log")
                .to_le_bytes(),
        );
        bytes[4] = record.kind;
        bytes[5] = 0;
        bytes[6..8].copy_from_slice(&record.index.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&record.partition.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&record.table.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&record.term.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&record.raft_index.0.to_le_bytes());
        let mut at = RECORD_HEADER_BYTES;
        for part in parts {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        bytes[at..].fill(0);
        self.used += total;
        note(&mut self.ranges, record);
        let place = self.records;
        self.records += 1;
        place
    }

    /// Overwrites the length of the first record.
    #[cfg(test)]
    pub(super) fn forge(&mut self, length: &[u8; 4]) {
        self.buffer[self.records_at..self.records_at + 4].copy_from_slice(length);
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.used + more;
        if needed > self.buffer.len() {
            let mut larger = AlignedBuffer::zeroed(needed.max(self.buffer.len() * 2));
            larger[..self.used].copy_from_slice(&self.buffer[..self.used]);
            self.buffer = larger;
        }
    }

    /// Completes the batch: the bytes to write, their header checksum, and the ranges the next batch repeats.
    /// With a cipher the body is sealed in place.
    pub(super) fn seal(
        mut self,
        seal: &Seal,
        cipher: Option<&FileCipher>,
    ) -> (AlignedBuffer, u64, Vec<PartitionRange>) {
        assert!(seal.acknowledged < seal.sequence);
        let bytes = self.bytes();
        self.buffer[self.used..bytes].fill(0);
        self.buffer.set_bytes(bytes);
        let seed = seed(seal.log, &seal.file, seal.offset);
        let blocks = u32::try_from(bytes / BLOCK_BYTES).expect("limited by the log");
        let record_bytes = u32::try_from(self.record_bytes()).expect("limited by the log");
        let (header, body) = self.buffer.split_at_mut(HEADER_BYTES);
        header.fill(0);
        header[..8].copy_from_slice(&MAGIC);
        header[24..26].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[27] = u8::from(self.records == 0);
        header[32..36].copy_from_slice(&seal.log.0.to_le_bytes());
        header[36..40].copy_from_slice(&blocks.to_le_bytes());
        header[40..48].copy_from_slice(&seal.file.incarnation.to_le_bytes());
        header[48..56].copy_from_slice(&seal.sequence.0.to_le_bytes());
        header[56..64].copy_from_slice(&seal.acknowledged.0.to_le_bytes());
        header[64..72].copy_from_slice(&seal.previous.to_le_bytes());
        header[72..76].copy_from_slice(&record_bytes.to_le_bytes());
        header[76..80].copy_from_slice(&self.records.to_le_bytes());
        header[80..84].copy_from_slice(&self.previous_ranges.to_le_bytes());
        header[88..96].copy_from_slice(&seal.file.number.to_le_bytes());
        if let Some(cipher) = cipher {
            header[28..32].copy_from_slice(&cipher.key_id().to_le_bytes());
            let tag = cipher.seal(seal.offset / BLOCK_BYTES as u64, &header[SEALED_ABOUT], body);
            header[TAG_AT..TAG_AT + TAG_BYTES].copy_from_slice(&tag);
        }
        let body = checksum(seed, body);
        header[16..24].copy_from_slice(&body.to_le_bytes());
        let sum = checksum(seed, &header[16..]);
        header[8..16].copy_from_slice(&sum.to_le_bytes());
        (self.buffer, sum, self.ranges)
    }
}
