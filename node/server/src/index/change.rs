//! Records of a partition's change sequence: what one write means for the global indexes of its table.
//!
//! All integers are little-endian. Stored like an item, in space Stream, under a key that ends with the commit timestamp:
//!
//! ```text
//! key     | 3 u8 | least hash of the partition u64 BE | commit timestamp u64 BE |
//! record  | version u8 | 0 u8 | images u16 | operations u16 | 0 u16 | image ... | operation ... |
//! image   | item size u32 | length u32 | archived item |
//! op.     | index u16 | flags u8 | 0 u8 | image u16 | 0 u16 | old size u32 | key bytes u32 | key |
//!           flags: 1 it is not known whether the entry was there; image 0xffff: the entry goes; old size 0xffff_ffff: was not there
//! ```
//!
//! An image that several indexes project alike is in the record once.

use cairn_engine::ids::IndexId;
use cairn_item::{Space, StorageKey};

/// Version of the layout. History: 1, the first.
const VERSION: u8 = 1;
const NO_IMAGE: u16 = u16::MAX;
const NO_ITEM: u32 = u32::MAX;
const UNSURE: u8 = 1;

/// What the keys of a partition's records begin with; `lower` is the least hash that the partition owns.
pub(crate) fn prefix(lower: u64) -> Vec<u8> {
    StorageKey::hash_prefix(Space::Stream, lower)
}

/// The commit timestamp in a record's key.
pub(crate) fn commit_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(9..)?.first_chunk()?))
}

/// What a write means for one entry of one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub index: IndexId,
    pub key: &'a [u8],
    /// The image that it is to hold; none when it goes.
    pub image: Option<usize>,
    /// Size of the entry that was there.
    pub old_item_bytes: Option<u32>,
    /// It is not known whether there was one: `old_item_bytes` says nothing.
    pub is_unsure: bool,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Change<'a> {
    /// Archived items and their DynamoDB sizes.
    pub images: Vec<(&'a [u8], u32)>,
    pub operations: Vec<Operation<'a>>,
}

impl<'a> Change<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let short = |length: usize| u16::try_from(length).expect("two for each of at most 20 indexes");
        let long = |length: usize| u32::try_from(length).expect("items are small");
        let mut bytes = vec![VERSION, 0];
        bytes.extend_from_slice(&short(self.images.len()).to_le_bytes());
        bytes.extend_from_slice(&short(self.operations.len()).to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        for (item, item_bytes) in &self.images {
            bytes.extend_from_slice(&item_bytes.to_le_bytes());
            bytes.extend_from_slice(&long(item.len()).to_le_bytes());
            bytes.extend_from_slice(item);
        }
        for operation in &self.operations {
            let flags = if operation.is_unsure { UNSURE } else { 0 };
            bytes.extend_from_slice(&operation.index.0.to_le_bytes());
            bytes.extend_from_slice(&[flags, 0]);
            let image = operation.image.map_or(NO_IMAGE, short);
            bytes.extend_from_slice(&image.to_le_bytes());
            bytes.extend_from_slice(&[0; 2]);
            let old = operation.old_item_bytes.unwrap_or(NO_ITEM);
            bytes.extend_from_slice(&old.to_le_bytes());
            bytes.extend_from_slice(&long(operation.key.len()).to_le_bytes());
            bytes.extend_from_slice(operation.key);
        }
        bytes
    }

    /// Reads a record; none when the bytes are not one of a version known here.
    pub(crate) fn decode(mut bytes: &'a [u8]) -> Option<Change<'a>> {
        let rest = &mut bytes;
        let [version, _] = take(rest)?;
        if version != VERSION {
            return None;
        }
        let images = u16::from_le_bytes(take(rest)?);
        let operations = u16::from_le_bytes(take(rest)?);
        let [_, _] = take(rest)?;
        let mut change = Change::default();
        for _ in 0..images {
            let item_bytes = u32::from_le_bytes(take(rest)?);
            change.images.push((take_bytes(rest)?, item_bytes));
        }
        for _ in 0..operations {
            let index = IndexId(u16::from_le_bytes(take(rest)?));
            let [flags, _] = take(rest)?;
            let image = u16::from_le_bytes(take(rest)?);
            let [_, _] = take(rest)?;
            let old = u32::from_le_bytes(take(rest)?);
            let key = take_bytes(rest)?;
            let image = (image != NO_IMAGE).then_some(usize::from(image));
            if image.is_some_and(|image| image >= change.images.len()) || flags & !UNSURE != 0 {
                return None;
            }
            change.operations.push(Operation {
                index,
                key,
                image,
                old_item_bytes: (old != NO_ITEM).then_some(old),
                is_unsure: flags & UNSURE != 0,
            });
        }
        rest.is_empty().then_some(change)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change<'static> {
        Change {
            images: vec![(b"item", 9)],
            operations: vec![
                Operation {
                    index: IndexId(2),
                    key: b"old",
                    image: None,
                    old_item_bytes: Some(7),
                    is_unsure: false,
                },
                Operation {
                    index: IndexId(2),
                    key: b"new",
                    image: Some(0),
                    old_item_bytes: None,
                    is_unsure: true,
                },
            ],
        }
    }

    #[test]
    fn the_layout_is_frozen() {
        let mut expected = vec![1, 0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0];
        expected.extend(b"item");
        expected.extend([2, 0, 0, 0, 255, 255, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0]);
        expected.extend(b"old");
        expected.extend([2, 0, 1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 3, 0, 0, 0]);
        expected.extend(b"new");
        assert_eq!(change().encode(), expected);
        let mut key = prefix(1);
        key.extend_from_slice(&5_u64.to_be_bytes());
        assert_eq!(key, [3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(commit_of(&key), Some(5));
    }

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else() {
        let good = change().encode();
        assert_eq!(Change::decode(&good), Some(change()));
        assert_eq!(
            Change::decode(&Change::default().encode()),
            Some(Change::default())
        );
        for bytes in 0..good.len() {
            assert_eq!(Change::decode(&good[..bytes]), None, "{bytes}");
        }
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                // Any bytes are safe.
                let _ = Change::decode(&bytes);
            }
        }
    }
}
