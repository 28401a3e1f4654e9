//! Several mutations of one partition that are one step of its chain: they have one index, one commit timestamp and one
//! record of the log, so that no crash shows some of them without the others.
//!
//! The payload of a record of kind group. All integers are little-endian.
//!
//! ```text
//! group    | version u8 | 0 u8 | count u16 | 0 u32 | change ... |
//! change   | counter u16 | flags u16 | mutation bytes u32 | mutation, see mutation.rs |
//! counter  0: the partition's items | 0xffff: nothing | else the entries of the local index of this id
//! flags    1: its item goes on with the item of the group's first change
//! ```
//!
//! A record of a stream holds the image of the item that the same group stores: by the flag that image is in the log once.
//!
//! Invariants, checked by the reader: at least one change, all of one commit timestamp; what goes on with an item is a put
//! behind a put. The writer also sees to it that no two changes have the same key.

use crate::ids::IndexId;
use crate::mutation::{ITEM_ARCHIVE_BYTES_MAX, Mutation, MutationError, MutationKind};

/// Version of the layout. History: 1, the first.
const VERSION: u8 = 1;

/// Bytes before the first change, and before a change's mutation.
const HEADER_BYTES: usize = 8;

/// Flag: the item goes on with the item of the group's first change.
const WITH_FIRST_ITEM: u16 = 1;

/// Changes of one group, at most. An item has entries in 5 local indexes, each of which may move, and one change of the change
/// sequence; what feeds an index applies some hundreds at once.
pub const GROUP_CHANGES_MAX: usize = 4096;

const _: () = assert!(GROUP_CHANGES_MAX <= u16::MAX as usize);

/// Which of a partition's counters a change moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counter {
    /// The partition's items.
    #[default]
    Items,
    /// The entries of a local index; its id is neither 0 nor 65,535.
    Index(IndexId),
    /// None.
    Nothing,
}

impl Counter {
    fn code(self) -> u16 {
        match self {
            Counter::Items => 0,
            Counter::Index(index) => index.0,
            Counter::Nothing => u16::MAX,
        }
    }

    fn of_code(code: u16) -> Counter {
        match code {
            0 => Counter::Items,
            u16::MAX => Counter::Nothing,
            index => Counter::Index(IndexId(index)),
        }
    }
}

/// A change as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupChange<'a> {
    /// Which counter it moves.
    pub counter: Counter,
    /// What is changed; of a put, how its item begins.
    pub mutation: Mutation<'a>,
    /// How its item goes on: empty, or the item of the group's first change.
    pub tail: &'a [u8],
}

/// Bytes of a group of changes whose mutations have these lengths.
pub(crate) fn group_bytes(mutations: impl Iterator<Item = usize>) -> usize {
    HEADER_BYTES + mutations.map(|bytes| HEADER_BYTES + bytes).sum::<usize>()
}

/// Appends a group of `count` changes to `into`: its header; the changes follow by [`encode_change`].
///
/// # Panics
/// When there are none or more than [`GROUP_CHANGES_MAX`].
pub(crate) fn encode_header(count: usize, into: &mut Vec<u8>) {
    assert!(
        (1..=GROUP_CHANGES_MAX).contains(&count),
        "a group has 1 to {GROUP_CHANGES_MAX} changes"
    );
    let count = u16::try_from(count).expect("at most GROUP_CHANGES_MAX");
    into.extend_from_slice(&[VERSION, 0]);
    into.extend_from_slice(&count.to_le_bytes());
    into.extend_from_slice(&[0; 4]);
}

/// Appends the next change of a group; `with_first_item`: its item goes on with that of the first change.
pub(crate) fn encode_change(
    counter: Counter,
    with_first_item: bool,
    mutation: &Mutation<'_>,
    into: &mut Vec<u8>,
) {
    let bytes = u32::try_from(mutation.encoded_bytes()).expect("limited by the log");
    let flags = if with_first_item { WITH_FIRST_ITEM } else { 0 };
    into.extend_from_slice(&counter.code().to_le_bytes());
    into.extend_from_slice(&flags.to_le_bytes());
    into.extend_from_slice(&bytes.to_le_bytes());
    mutation.encode(into);
}

/// Reads a group that fills `bytes` exactly. Copies no item.
///
/// # Errors
/// When the bytes are not a group of a known version; any bytes are safe.
pub fn decode_group(bytes: &[u8]) -> Result<Vec<GroupChange<'_>>, MutationError> {
    let (header, mut rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(MutationError::Truncated)?;
    if header[0] != VERSION {
        return Err(MutationError::Version(header[0]));
    }
    let count = u16::from_le_bytes([header[2], header[3]]);
    if count == 0 || usize::from(count) > GROUP_CHANGES_MAX {
        return Err(MutationError::Invalid("number of changes"));
    }
    let mut changes: Vec<GroupChange<'_>> = Vec::new();
    for _ in 0..count {
        let (head, behind) = rest
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(MutationError::Truncated)?;
        let counter = Counter::of_code(u16::from_le_bytes([head[0], head[1]]));
        let flags = u16::from_le_bytes([head[2], head[3]]);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let length = usize::try_from(length).map_err(|_| MutationError::Truncated)?;
        let (mutation, behind) = behind.split_at_checked(length).ok_or(MutationError::Truncated)?;
        let mutation = Mutation::decode(mutation)?;
        let first = changes.first().map(|first| first.mutation);
        if first.is_some_and(|first| first.header.commit != mutation.header.commit) {
            return Err(MutationError::Invalid("commit timestamp within its group"));
        }
        let tail = match (flags, first) {
            (0, _) => &[][..],
            (WITH_FIRST_ITEM, Some(first))
                if first.header.kind == MutationKind::Put
                    && mutation.header.kind == MutationKind::Put
                    && first.item.len() + mutation.item.len() <= ITEM_ARCHIVE_BYTES_MAX =>
            {
                first.item
            }
            _ => return Err(MutationError::Invalid("flag within its group")),
        };
        changes.push(GroupChange {
            counter,
            mutation,
            tail,
        });
        rest = behind;
    }
    if rest.is_empty() {
        Ok(changes)
    } else {
        Err(MutationError::Invalid("end of its group"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CommitTimestamp;
    use crate::mutation::{MUTATION_HEADER_BYTES, MutationHeader, MutationKind, Provenance, RequestToken};

    fn mutation(key: &'static [u8], item: Option<&'static [u8]>) -> Mutation<'static> {
        Mutation {
            header: MutationHeader {
                kind: item.map_or(MutationKind::Delete, |_| MutationKind::Put),
                commit: CommitTimestamp(7),
                provenance: Provenance::default(),
                token: RequestToken::default(),
                old_item_bytes: None,
                new_item_bytes: item.map(|_| 3),
            },
            extension: b"",
            key,
            item: item.unwrap_or_default(),
        }
    }

    fn encoded(changes: &[GroupChange<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_header(changes.len(), &mut bytes);
        for change in changes {
            encode_change(
                change.counter,
                !change.tail.is_empty(),
                &change.mutation,
                &mut bytes,
            );
        }
        let lengths = changes.iter().map(|change| change.mutation.encoded_bytes());
        assert_eq!(bytes.len(), group_bytes(lengths));
        bytes
    }

    fn change(counter: Counter, mutation: Mutation<'static>) -> GroupChange<'static> {
        GroupChange {
            counter,
            mutation,
            tail: b"",
        }
    }

    fn changes() -> Vec<GroupChange<'static>> {
        vec![
            change(Counter::Items, mutation(b"item", Some(b"abc"))),
            change(Counter::Index(IndexId(3)), mutation(b"entry", None)),
            change(Counter::Nothing, mutation(b"change", Some(b""))),
            GroupChange {
                tail: b"abc",
                ..change(Counter::Nothing, mutation(b"record", Some(b"head")))
            },
        ]
    }

    #[test]
    fn the_layout_is_frozen() {
        let bytes = encoded(&changes()[1..3]);
        let (key_bytes, of_entry) = (5, MUTATION_HEADER_BYTES + 5);
        let of_change = MUTATION_HEADER_BYTES + 6;
        assert_eq!(bytes[..8], [1, 0, 2, 0, 0, 0, 0, 0]);
        assert_eq!(
            bytes[8..16],
            [3, 0, 0, 0, u8::try_from(of_entry).unwrap(), 0, 0, 0]
        );
        assert_eq!(bytes[16..24], [1, 2, 0, 0, key_bytes, 0, 0, 0]);
        let next = 16 + of_entry;
        assert_eq!(
            bytes[next..next + 8],
            [255, 255, 0, 0, u8::try_from(of_change).unwrap(), 0, 0, 0]
        );
        assert_eq!(bytes.len(), next + 8 + of_change);
        let with_tail = encoded(&changes());
        let record = with_tail.len() - (8 + MUTATION_HEADER_BYTES + 10);
        assert_eq!(with_tail[record..record + 4], [255, 255, 1, 0]);
        assert!(with_tail.ends_with(b"recordhead"));
    }

    #[test]
    fn an_item_goes_on_with_a_put_only() {
        let mut bytes = encoded(&changes()[1..3]);
        let second = 8 + 8 + MUTATION_HEADER_BYTES + 5;
        for flags in [1, 2] {
            bytes[second + 2] = flags;
            assert_eq!(
                decode_group(&bytes),
                Err(MutationError::Invalid("flag within its group"))
            );
        }
        let mut bytes = encoded(&changes()[..1]);
        bytes[8 + 2] = 1;
        assert!(
            decode_group(&bytes).is_err(),
            "the first change goes on with nothing"
        );
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for count in 1..=4 {
            let changes = &changes()[..count];
            assert_eq!(decode_group(&encoded(changes)).unwrap(), changes);
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_safely() {
        let good = encoded(&changes());
        for bytes in 0..good.len() {
            assert!(decode_group(&good[..bytes]).is_err(), "{bytes}");
        }
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                if let Ok(changes) = decode_group(&bytes) {
                    let commits = changes.iter().map(|change| change.mutation.header.commit);
                    assert!(
                        commits
                            .clone()
                            .all(|commit| Some(commit) == commits.clone().next())
                    );
                }
            }
        }
        let mut other = good.clone();
        other[16 + 8] = 8;
        assert_eq!(
            decode_group(&other),
            Err(MutationError::Invalid("commit timestamp within its group"))
        );
    }
}
