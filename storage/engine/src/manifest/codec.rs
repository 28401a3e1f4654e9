//! Bytes of manifest edits. All integers are little-endian.
//!
//! ```text
//! list     | version u8 | 0 u8 | 0 u16 | count u32 | edit ... |
//! edit     | kind u8 | 0 u8 | 0 u16 | body bytes u32 | body |
//! bytes    | length u32 | bytes |            optional bytes: | present u8 | bytes if 1 |
//!
//! kind  body
//!  1 reset              -
//!  2 create partition   id u64 | table u64 | index u16 | lower bytes | upper optional bytes
//!  3 drop partition     id u64
//!  4 add segment        partition u64 | id u64 | level u8 | 0, 3 bytes | mirrors u32 | bytes u64 | footer checksum u64
//!                       | first key bytes | last key bytes | clip lower optional bytes | clip upper optional bytes
//!                       | commit min u64 | commit max u64 | entries u64 | tombstones u64
//!  5 remove segment     partition u64 | id u64
//!  6 counters           partition u64 | items u64 | item bytes u64
//!  7 floor              partition u64 | commit u64
//!  8 flushed            partition u64 | log sequence u64 | commit u64 | raft index u64
//!  9 next segment       counter u64
//! 10 fenced             partition u64 | reason bytes, UTF-8
//! 11 index counters     partition u64 | index u16 | 0, 6 bytes | entries u64 | entry bytes u64
//! 128 scrub             next segment u64 | end segment u64 | started ms u64 | verified ms u64
//! 129 packing           partition u64 | with u8: 0 what the engine packs with, 1 none, 2 lz4, 3 zstd | 0, 7 bytes
//! ```
//!
//! Mirrors are a set of the node's drives, one bit per place in its ordered list. A body may end with bytes that an older version does not know and skips. A kind of 128 or more may be
//! skipped whole by a version that does not know it; any other unknown kind is refused.

use super::{Edit, ManifestError, ScrubState, SegmentReference};
use crate::ids::{CommitTimestamp, IndexId, LogSequence, PartitionId, RaftIndex, SegmentId, TableId};
use crate::mutation::KEY_BYTES_MAX;
use crate::volume::DriveSet;
use crate::{Compression, IndexUsage, PartitionDescriptor};

/// Version of the layout. History: 1, the first.
const VERSION: u8 = 1;

/// Kinds from here on may be skipped.
const KIND_OPTIONAL: u8 = 128;

/// Bytes before the first edit, and before an edit's body.
const HEADER_BYTES: usize = 8;

/// Appends a list of edits to `into`.
///
/// # Panics
/// When the list or an edit exceeds 4 GiB.
pub fn encode_edits(edits: &[Edit], into: &mut Vec<u8>) {
    into.extend_from_slice(&[VERSION, 0, 0, 0]);
    let count = u32::try_from(edits.len()).expect("a list has fewer than 2^32 edits");
    into.extend_from_slice(&count.to_le_bytes());
    for edit in edits {
        let start = into.len();
        into.extend_from_slice(&[kind(edit), 0, 0, 0, 0, 0, 0, 0]);
        encode_body(edit, into);
        let body = u32::try_from(into.len() - start - HEADER_BYTES).expect("an edit is small");
        into[start + 4..start + HEADER_BYTES].copy_from_slice(&body.to_le_bytes());
    }
}

/// Reads a list of edits that fills `bytes` exactly.
///
/// # Errors
/// When the bytes are not a list of a known version; any bytes are safe.
pub fn decode_edits(bytes: &[u8]) -> Result<Vec<Edit>, ManifestError> {
    let mut reader = Reader { bytes };
    let [version, ..] = reader.array::<4>()?;
    if version != VERSION {
        return Err(ManifestError::Version(version));
    }
    let count = reader.u32()?;
    let mut edits = Vec::new();
    for _ in 0..count {
        let [kind, ..] = reader.array::<4>()?;
        let body_bytes = reader.u32()?;
        let mut body = Reader {
            bytes: reader.take(body_bytes)?,
        };
        match decode_body(kind, &mut body) {
            Ok(edit) => edits.push(edit),
            Err(ManifestError::Kind(kind)) if kind >= KIND_OPTIONAL => {}
            Err(error) => return Err(error),
        }
    }
    if reader.bytes.is_empty() {
        Ok(edits)
    } else {
        Err(ManifestError::Invalid("end"))
    }
}

fn kind(edit: &Edit) -> u8 {
    match edit {
        Edit::Reset => 1,
        Edit::CreatePartition(_) => 2,
        Edit::DropPartition(_) => 3,
        Edit::AddSegment { .. } => 4,
        Edit::RemoveSegment { .. } => 5,
        Edit::Counters { .. } => 6,
        Edit::Floor { .. } => 7,
        Edit::Flushed { .. } => 8,
        Edit::NextSegment(_) => 9,
        Edit::Fenced { .. } => 10,
        Edit::IndexCounters { .. } => 11,
        Edit::Scrub(_) => 128,
        Edit::Packing { .. } => 129,
    }
}

fn encode_body(edit: &Edit, into: &mut Vec<u8>) {
    match edit {
        Edit::Reset => {}
        Edit::CreatePartition(descriptor) => {
            put_u64(into, descriptor.id.0);
            put_u64(into, descriptor.table.0);
            into.extend_from_slice(&descriptor.index.0.to_le_bytes());
            put_bytes(into, &descriptor.lower);
            put_optional(into, descriptor.upper.as_deref());
        }
        Edit::DropPartition(partition) => put_u64(into, partition.0),
        Edit::AddSegment { partition, segment } => {
            put_u64(into, partition.0);
            put_segment(into, segment);
        }
        Edit::RemoveSegment { partition, segment } => {
            put_u64(into, partition.0);
            put_u64(into, segment.0);
        }
        Edit::Counters {
            partition,
            item_count,
            item_bytes,
        } => {
            put_u64(into, partition.0);
            put_u64(into, *item_count);
            put_u64(into, *item_bytes);
        }
        Edit::Floor { partition, floor } => {
            put_u64(into, partition.0);
            put_u64(into, floor.0);
        }
        Edit::Flushed {
            partition,
            sequence,
            commit,
            index,
        } => {
            put_u64(into, partition.0);
            put_u64(into, sequence.0);
            put_u64(into, commit.0);
            put_u64(into, index.0);
        }
        Edit::NextSegment(counter) => put_u64(into, *counter),
        Edit::IndexCounters { partition, usage } => {
            put_u64(into, partition.0);
            into.extend_from_slice(&usage.index.0.to_le_bytes());
            into.extend_from_slice(&[0; 6]);
            put_u64(into, usage.item_count);
            put_u64(into, usage.item_bytes);
        }
        Edit::Fenced { partition, why } => {
            put_u64(into, partition.0);
            put_bytes(into, why.as_bytes());
        }
        Edit::Scrub(scrub) => {
            put_u64(into, scrub.next.0);
            put_u64(into, scrub.end.0);
            put_u64(into, scrub.started_ms);
            put_u64(into, scrub.verified_ms);
        }
        Edit::Packing {
            partition,
            compression,
        } => {
            put_u64(into, partition.0);
            into.extend_from_slice(&[packing_byte(*compression), 0, 0, 0, 0, 0, 0, 0]);
        }
    }
}

fn decode_body(kind: u8, body: &mut Reader<'_>) -> Result<Edit, ManifestError> {
    Ok(match kind {
        1 => Edit::Reset,
        2 => Edit::CreatePartition(PartitionDescriptor {
            id: body.partition()?,
            table: TableId(body.u64()?),
            index: IndexId(u16::from_le_bytes(body.array()?)),
            lower: body.key()?,
            upper: body.optional_key()?,
        }),
        3 => Edit::DropPartition(body.partition()?),
        4 => Edit::AddSegment {
            partition: body.partition()?,
            segment: body.segment()?,
        },
        5 => Edit::RemoveSegment {
            partition: body.partition()?,
            segment: SegmentId(body.u64()?),
        },
        6 => Edit::Counters {
            partition: body.partition()?,
            item_count: body.u64()?,
            item_bytes: body.u64()?,
        },
        7 => Edit::Floor {
            partition: body.partition()?,
            floor: CommitTimestamp(body.u64()?),
        },
        8 => Edit::Flushed {
            partition: body.partition()?,
            sequence: LogSequence(body.u64()?),
            commit: CommitTimestamp(body.u64()?),
            index: RaftIndex(body.u64()?),
        },
        9 => Edit::NextSegment(body.u64()?),
        10 => Edit::Fenced {
            partition: body.partition()?,
            why: body.text()?,
        },
        11 => {
            let partition = body.partition()?;
            let [low, high, ..] = body.array::<8>()?;
            Edit::IndexCounters {
                partition,
                usage: IndexUsage {
                    index: IndexId(u16::from_le_bytes([low, high])),
                    item_count: body.u64()?,
                    item_bytes: body.u64()?,
                },
            }
        }
        128 => Edit::Scrub(ScrubState {
            next: SegmentId(body.u64()?),
            end: SegmentId(body.u64()?),
            started_ms: body.u64()?,
            verified_ms: body.u64()?,
        }),
        129 => {
            let partition = body.partition()?;
            let [byte, ..] = body.array::<8>()?;
            Edit::Packing {
                partition,
                compression: packing_of(byte)?,
            }
        }
        _ => return Err(ManifestError::Kind(kind)),
    })
}

/// The byte that stands for what a partition is packed with.
fn packing_byte(compression: Option<Compression>) -> u8 {
    match compression {
        None => 0,
        Some(Compression::None) => 1,
        Some(Compression::Lz4) => 2,
        Some(Compression::Zstd) => 3,
    }
}

fn packing_of(byte: u8) -> Result<Option<Compression>, ManifestError> {
    match byte {
        0 => Ok(None),
        1 => Ok(Some(Compression::None)),
        2 => Ok(Some(Compression::Lz4)),
        3 => Ok(Some(Compression::Zstd)),
        _ => Err(ManifestError::Invalid("packing")),
    }
}

fn put_u64(into: &mut Vec<u8>, value: u64) {
    into.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys are short");
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(bytes);
}

fn put_optional(into: &mut Vec<u8>, bytes: Option<&[u8]>) {
    into.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(into, bytes);
    }
}

fn put_segment(into: &mut Vec<u8>, segment: &SegmentReference) {
    put_u64(into, segment.id.0);
    into.extend_from_slice(&[segment.level, 0, 0, 0]);
    into.extend_from_slice(&segment.mirrors.bits().to_le_bytes());
    put_u64(into, segment.bytes);
    put_u64(into, segment.footer_checksum);
    put_bytes(into, &segment.first_key);
    put_bytes(into, &segment.last_key);
    put_optional(into, segment.clip_lower.as_deref());
    put_optional(into, segment.clip_upper.as_deref());
    put_u64(into, segment.commit_min.0);
    put_u64(into, segment.commit_max.0);
    put_u64(into, segment.entries);
    put_u64(into, segment.tombstones);
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: u32) -> Result<&'a [u8], ManifestError> {
        let bytes = usize::try_from(bytes).map_err(|_| ManifestError::Truncated)?;
        let (taken, rest) = self
            .bytes
            .split_at_checked(bytes)
            .ok_or(ManifestError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(ManifestError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, ManifestError> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, ManifestError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ManifestError> {
        self.array().map(u64::from_le_bytes)
    }

    fn partition(&mut self) -> Result<PartitionId, ManifestError> {
        self.u64().map(PartitionId)
    }

    fn key(&mut self) -> Result<Vec<u8>, ManifestError> {
        let length = self.u32()?;
        let key = self.take(length)?;
        if key.len() > KEY_BYTES_MAX {
            Err(ManifestError::Invalid("key"))
        } else {
            Ok(key.to_vec())
        }
    }

    fn text(&mut self) -> Result<String, ManifestError> {
        let length = self.u32()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| ManifestError::Invalid("text"))?;
        Ok(text.to_owned())
    }

    fn optional_key(&mut self) -> Result<Option<Vec<u8>>, ManifestError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.key().map(Some),
            _ => Err(ManifestError::Invalid("optional key")),
        }
    }

    fn segment(&mut self) -> Result<SegmentReference, ManifestError> {
        let id = SegmentId(self.u64()?);
        let [level, ..] = self.array::<4>()?;
        let mirrors = DriveSet::from_bits(self.u32()?);
        let segment = SegmentReference {
            id,
            level,
            mirrors,
            bytes: self.u64()?,
            footer_checksum: self.u64()?,
            first_key: self.key()?,
            last_key: self.key()?,
            clip_lower: self.optional_key()?,
            clip_upper: self.optional_key()?,
            commit_min: CommitTimestamp(self.u64()?),
            commit_max: CommitTimestamp(self.u64()?),
            entries: self.u64()?,
            tombstones: self.u64()?,
        };
        segment.check()?;
        Ok(segment)
    }
}
