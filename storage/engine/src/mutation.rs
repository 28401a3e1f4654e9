//! What one write says: the payload of a mutation record in the log, laid out by hand.
//!
//! The header is outside of the item's own form because the engine, replication and streams need it without
//! looking into the item. All integers are little-endian.
//!
//! ```text
//!  0        1        2                 4                 6                 8
//!  | version| kind   | origin region   | key bytes       | extension bytes |
//!  8        | commit timestamp                                            |
//! 16        | origin timestamp (0: the commit timestamp)                  |
//! 24        | transaction id, 16 bytes (0: none)                          |
//! 40        | request token, 16 bytes (0: none)                           |
//! 56        | old item size             | new item size                   |   0xffff_ffff: no item
//! 64        | extension | key | item, to the end of the payload
//! ```
//!
//! The fields that every reader wants stand first. The extension is skipped by a reader that does not know
//! it; a reader refuses a version or a kind that it does not know.

use std::fmt;

use crate::ids::CommitTimestamp;

/// Version of the layout. History: 1, the first.
const VERSION: u8 = 1;

/// Bytes before the extension.
pub const MUTATION_HEADER_BYTES: usize = 64;

/// Longest key, in bytes: partition keys and sort keys of an index and its table, of 2,048 and 1,024 bytes, every byte escaped, and the
/// space, hash and terminators, rounded up.
pub const KEY_BYTES_MAX: usize = 16_384;

/// Longest archived item, in bytes. DynamoDB's 400 KB are at most about 2.4 MB archived: a list of nulls takes
/// 2 bytes of the limit and 9 archived, a map of one-letter names 3 and 17.
pub const ITEM_ARCHIVE_BYTES_MAX: usize = 4 << 20;

/// Stands for "no item" where a size is expected.
const NO_ITEM: u32 = u32::MAX;

const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize);

/// What a mutation does with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum MutationKind {
    /// Stores the item.
    Put = 1,
    /// Leaves a tombstone.
    Delete = 2,
}

impl MutationKind {
    /// The kind of this byte, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<MutationKind> {
        match byte {
            1 => Some(MutationKind::Put),
            2 => Some(MutationKind::Delete),
            _ => None,
        }
    }
}

/// When a write was accepted in the region it came from. Never a version: see [`CommitTimestamp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OriginTimestamp(pub u64);

/// The region a write came from; 0 is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RegionId(pub u16);

/// A transaction; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TransactionId(pub u128);

/// Identifies a client's request for idempotency; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestToken(pub u128);

/// Where a version comes from, kept with it for as long as it lives. All zeros for a plain local write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Provenance {
    /// When the origin region accepted the write; 0 where that is the commit timestamp.
    pub timestamp: OriginTimestamp,
    /// The origin region.
    pub region: RegionId,
    /// The transaction that wrote it.
    pub transaction: TransactionId,
}

/// The fixed part of a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MutationHeader {
    /// What is done.
    pub kind: MutationKind,
    /// The version it creates.
    pub commit: CommitTimestamp,
    /// Where it comes from.
    pub provenance: Provenance,
    /// The request that asked for it.
    pub token: RequestToken,
    /// DynamoDB size of the item that was there.
    pub old_item_bytes: Option<u32>,
    /// DynamoDB size of the item that is there afterwards; none exactly for a delete.
    pub new_item_bytes: Option<u32>,
}

/// A mutation as it travels in a log record; borrows from the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutation<'a> {
    /// The fixed part.
    pub header: MutationHeader,
    /// Reserved for later versions.
    pub extension: &'a [u8],
    /// Engine key without version; 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// Archived item, at most [`ITEM_ARCHIVE_BYTES_MAX`]; empty for a delete.
    pub item: &'a [u8],
}

/// Why bytes are not a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MutationError {
    /// Shorter than its own lengths say.
    Truncated,
    /// Written by a later version.
    Version(u8),
    /// A kind that this version does not know.
    Kind(u8),
    /// Fields contradict each other or a limit; names the field.
    Invalid(&'static str),
}

impl fmt::Display for MutationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MutationError::Truncated => write!(formatter, "a mutation is shorter than its lengths say"),
            MutationError::Version(version) => {
                write!(
                    formatter,
                    "mutation of version {version}; this program knows version {VERSION}"
                )
            }
            MutationError::Kind(kind) => write!(formatter, "mutation of unknown kind {kind}"),
            MutationError::Invalid(field) => write!(formatter, "mutation with an impossible {field}"),
        }
    }
}

impl std::error::Error for MutationError {}

impl<'a> Mutation<'a> {
    /// Bytes that [`Mutation::encode`] appends.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        MUTATION_HEADER_BYTES + self.extension.len() + self.key.len() + self.item.len()
    }

    /// Appends the mutation to `into`.
    ///
    /// # Panics
    /// When a field breaks its documented limit: the caller has checked them.
    pub fn encode(&self, into: &mut Vec<u8>) {
        self.check()
            .expect("the writer of a mutation has checked its limits");
        let header = &self.header;
        let mut bytes = [0; MUTATION_HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = header.kind as u8;
        bytes[2..4].copy_from_slice(&header.provenance.region.0.to_le_bytes());
        let key_bytes = u16::try_from(self.key.len()).expect("checked against KEY_BYTES_MAX");
        bytes[4..6].copy_from_slice(&key_bytes.to_le_bytes());
        let extension_bytes = u16::try_from(self.extension.len()).expect("checked above");
        bytes[6..8].copy_from_slice(&extension_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&header.commit.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&header.provenance.timestamp.0.to_le_bytes());
        bytes[24..40].copy_from_slice(&header.provenance.transaction.0.to_le_bytes());
        bytes[40..56].copy_from_slice(&header.token.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&header.old_item_bytes.unwrap_or(NO_ITEM).to_le_bytes());
        bytes[60..64].copy_from_slice(&header.new_item_bytes.unwrap_or(NO_ITEM).to_le_bytes());
        into.reserve(self.encoded_bytes());
        into.extend_from_slice(&bytes);
        into.extend_from_slice(self.extension);
        into.extend_from_slice(self.key);
        into.extend_from_slice(self.item);
    }

    /// Reads a mutation that fills `bytes` exactly. Copies nothing.
    ///
    /// # Errors
    /// When the bytes are not a mutation of a known version; any bytes are safe.
    pub fn decode(bytes: &'a [u8]) -> Result<Mutation<'a>, MutationError> {
        let version = *bytes.first().ok_or(MutationError::Truncated)?;
        if version != VERSION {
            return Err(MutationError::Version(version));
        }
        let (fixed, rest) = bytes
            .split_first_chunk::<MUTATION_HEADER_BYTES>()
            .ok_or(MutationError::Truncated)?;
        let kind = MutationKind::from_byte(fixed[1]).ok_or(MutationError::Kind(fixed[1]))?;
        let key_bytes = usize::from(u16::from_le_bytes(field(fixed, 4)));
        let extension_bytes = usize::from(u16::from_le_bytes(field(fixed, 6)));
        let (extension, rest) = rest
            .split_at_checked(extension_bytes)
            .ok_or(MutationError::Truncated)?;
        let (key, item) = rest.split_at_checked(key_bytes).ok_or(MutationError::Truncated)?;
        let size = |at| Some(u32::from_le_bytes(field(fixed, at))).filter(|size| *size != NO_ITEM);
        let header = MutationHeader {
            kind,
            commit: CommitTimestamp(u64::from_le_bytes(field(fixed, 8))),
            provenance: Provenance {
                timestamp: OriginTimestamp(u64::from_le_bytes(field(fixed, 16))),
                region: RegionId(u16::from_le_bytes(field(fixed, 2))),
                transaction: TransactionId(u128::from_le_bytes(field(fixed, 24))),
            },
            token: RequestToken(u128::from_le_bytes(field(fixed, 40))),
            old_item_bytes: size(56),
            new_item_bytes: size(60),
        };
        let mutation = Mutation {
            header,
            extension,
            key,
            item,
        };
        mutation.check()?;
        Ok(mutation)
    }

    fn check(&self) -> Result<(), MutationError> {
        let put = self.header.kind == MutationKind::Put;
        let facts = [
            (!self.key.is_empty() && self.key.len() <= KEY_BYTES_MAX, "key"),
            (self.extension.len() <= usize::from(u16::MAX), "extension"),
            (self.item.len() <= ITEM_ARCHIVE_BYTES_MAX, "item"),
            (put || self.item.is_empty(), "item of a delete"),
            (put == self.header.new_item_bytes.is_some(), "new item size"),
            (self.header.commit != CommitTimestamp(0), "commit timestamp"),
        ];
        let broken = facts.iter().find(|(holds, _)| !holds);
        broken.map_or(Ok(()), |(_, field)| Err(MutationError::Invalid(field)))
    }
}

/// `N` bytes of a fixed header.
fn field<const N: usize>(fixed: &[u8; MUTATION_HEADER_BYTES], at: usize) -> [u8; N] {
    *fixed[at..].first_chunk().expect("fields lie within the header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put() -> Mutation<'static> {
        Mutation {
            header: MutationHeader {
                kind: MutationKind::Put,
                commit: CommitTimestamp(0x0102_0304_0506_0708),
                provenance: Provenance {
                    timestamp: OriginTimestamp(9),
                    region: RegionId(10),
                    transaction: TransactionId(11),
                },
                token: RequestToken(12),
                old_item_bytes: None,
                new_item_bytes: Some(13),
            },
            extension: b"ext",
            key: b"key",
            item: b"item",
        }
    }

    fn encoded(mutation: Mutation<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        mutation.encode(&mut bytes);
        assert_eq!(bytes.len(), mutation.encoded_bytes());
        bytes
    }

    #[test]
    fn the_layout_is_frozen() {
        let bytes = encoded(put());
        let mut expected = vec![
            1, 1, 10, 0, 3, 0, 3, 0, 8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 11,
        ];
        expected.extend([0; 15]);
        expected.push(12);
        expected.extend([0; 15]);
        expected.extend([255, 255, 255, 255, 13, 0, 0, 0]);
        expected.extend(b"extkeyitem");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let put = put();
        let delete = Mutation {
            header: MutationHeader {
                kind: MutationKind::Delete,
                old_item_bytes: Some(0),
                new_item_bytes: None,
                ..put.header
            },
            extension: b"",
            item: b"",
            ..put
        };
        for mutation in [put, delete, Mutation { item: b"", ..put }] {
            assert_eq!(Mutation::decode(&encoded(mutation)), Ok(mutation));
        }
    }

    #[test]
    fn hostile_bytes_are_refused_by_name() {
        let good = encoded(put());
        let broken = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Mutation::decode(&bytes).map(|mutation| mutation.header.kind)
        };
        assert_eq!(broken(0, 2), Err(MutationError::Version(2)));
        assert_eq!(broken(1, 9), Err(MutationError::Kind(9)));
        assert_eq!(broken(1, 2), Err(MutationError::Invalid("item of a delete")));
        assert_eq!(broken(4, 0), Err(MutationError::Invalid("key")));
        assert_eq!(broken(5, 1), Err(MutationError::Truncated));
        assert_eq!(broken(6, 255), Err(MutationError::Truncated));
        for bytes in 0..MUTATION_HEADER_BYTES + 6 {
            assert_eq!(
                Mutation::decode(&good[..bytes]),
                Err(MutationError::Truncated),
                "{bytes}"
            );
        }
    }

    #[test]
    fn any_single_byte_may_change() {
        let good = encoded(put());
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                if let Ok(mutation) = Mutation::decode(&bytes) {
                    assert_eq!(encoded(mutation), bytes);
                }
            }
        }
    }
}
