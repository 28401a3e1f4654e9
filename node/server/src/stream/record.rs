//! A record of a stream, byte by byte.
//!
//! All integers are little-endian, but for those of the key. Stored like an item, in space Record:
//!
//! ```text
//! key     | 7 u8 | least hash of the partition u64 BE | stream u64 BE | commit timestamp u64 BE |
//! record  | version u8 | event u8 | view u8 | flags u8 | key bytes u16 | 0 u16 |
//!         | old size u32 | old bytes u32 | new size u32 | storage key | old image | new image |
//! ```
//!
//! A stream is named by the millisecond in which it was enabled. Event: 1 INSERT, 2 MODIFY, 3 REMOVE. View: what the stream shows,
//! 1 KEYS_ONLY, 2 NEW_IMAGE, 3 OLD_IMAGE, 4 NEW_AND_OLD_IMAGES. Flags: 1, by the service, because the item had expired; 2, an
//! image is left out, as it was too large. Images are archived items, each with its DynamoDB size; a size of 0xffff_ffff: there is
//! none. The new image stands last, so that in the log the record goes on with the item that the same step puts.

use cairn_engine::mutation::ITEM_ARCHIVE_BYTES_MAX;
use cairn_item::{Space, StorageKey};

use crate::catalog::StreamView;
use crate::index::effects::Image;

/// Version of the layout. History: 1, the first.
const VERSION: u8 = 1;
/// Bytes before the storage key.
const HEADER_BYTES: usize = 20;
const NO_IMAGE: u32 = u32::MAX;
const BY_EXPIRY: u8 = 1;
const CUT: u8 = 2;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Event {
    Insert = 1,
    Modify = 2,
    Remove = 3,
}

impl Event {
    /// DynamoDB's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Event::Insert => "INSERT",
            Event::Modify => "MODIFY",
            Event::Remove => "REMOVE",
        }
    }

    fn from_byte(byte: u8) -> Option<Event> {
        [Event::Insert, Event::Modify, Event::Remove]
            .into_iter()
            .find(|event| *event as u8 == byte)
    }
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub event: Event,
    /// Of its stream.
    pub view: StreamView,
    /// The item was deleted because it had expired.
    pub is_expiry: bool,
    /// An image is left out.
    pub is_cut: bool,
    /// The item's storage key.
    pub key: &'a [u8],
    pub old: Option<Image<'a>>,
    pub new: Option<Image<'a>>,
}

/// What the keys of one stream's records in a partition begin with; `lower` is the least hash that the partition owns.
pub(crate) fn prefix(lower: u64, stream: u64) -> Vec<u8> {
    // Room for the timestamp, which follows.
    let mut key = Vec::with_capacity(25);
    key.push(Space::Record as u8);
    key.extend_from_slice(&lower.to_be_bytes());
    key.extend_from_slice(&stream.to_be_bytes());
    key
}

/// The key of a record.
pub(crate) fn key(lower: u64, stream: u64, commit: u64) -> Vec<u8> {
    let mut key = prefix(lower, stream);
    key.extend_from_slice(&commit.to_be_bytes());
    key
}

/// Where the records of a partition begin.
pub(crate) fn begin(lower: u64) -> Vec<u8> {
    StorageKey::hash_prefix(Space::Record, lower)
}

/// The commit timestamp in a record's key.
pub(crate) fn commit_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(17..)?.try_into().ok()?))
}

impl<'a> Record<'a> {
    /// Whether it is longer than what is stored in one piece.
    pub(crate) fn is_too_large(&self) -> bool {
        let image = |image: Option<Image<'_>>| image.map_or(0, |(item, _)| item.len());
        HEADER_BYTES + self.key.len() + image(self.old) + image(self.new) > ITEM_ARCHIVE_BYTES_MAX
    }

    /// Its bytes but for the new image, which follows them.
    pub(crate) fn encode_but_new(&self) -> Vec<u8> {
        let old = self.old.map_or(&[][..], |(item, _)| item);
        let size = |image: Option<Image<'_>>| image.map_or(NO_IMAGE, |(_, bytes)| bytes);
        let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
        let flags = flag(BY_EXPIRY, self.is_expiry) | flag(CUT, self.is_cut);
        let key_bytes = u16::try_from(self.key.len()).expect("keys are limited");
        let old_bytes = u32::try_from(old.len()).expect("items are limited");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.key.len() + old.len());
        bytes.extend_from_slice(&[VERSION, self.event as u8, self.view as u8, flags]);
        bytes.extend_from_slice(&key_bytes.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&size(self.old).to_le_bytes());
        bytes.extend_from_slice(&old_bytes.to_le_bytes());
        bytes.extend_from_slice(&size(self.new).to_le_bytes());
        bytes.extend_from_slice(self.key);
        bytes.extend_from_slice(old);
        bytes
    }

    /// Reads a record; none when the bytes are not one of a version known here.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Record<'a>> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let [version, event, view, flags, ..] = *header;
        if version != VERSION || flags & !(BY_EXPIRY | CUT) != 0 || header[6..8] != [0; 2] {
            return None;
        }
        let number = |at: usize| Some(u32::from_le_bytes(*header[at..].first_chunk()?));
        let key_bytes = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let old_bytes = usize::try_from(number(12)?).ok()?;
        let (key, rest) = rest.split_at_checked(key_bytes)?;
        let (old, new) = rest.split_at_checked(old_bytes)?;
        let image = |size: u32, item: &'a [u8]| match (size, item.is_empty()) {
            (NO_IMAGE, true) => Some(None),
            (NO_IMAGE, false) | (_, true) => None,
            (size, false) => Some(Some((item, size))),
        };
        Some(Record {
            event: Event::from_byte(event)?,
            view: StreamView::from_byte(view)?,
            is_expiry: flags & BY_EXPIRY != 0,
            is_cut: flags & CUT != 0,
            key,
            old: image(number(8)?, old)?,
            new: image(number(16)?, new)?,
        })
    }

    /// What it counts for in a page: its images and its key.
    pub(crate) fn page_bytes(&self) -> u64 {
        let size = |image: Option<Image<'_>>| image.map_or(0, |(_, bytes)| u64::from(bytes));
        self.key.len() as u64 + size(self.old) + size(self.new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            event: Event::Modify,
            view: StreamView::NewAndOldImages,
            is_expiry: true,
            is_cut: false,
            key: b"key",
            old: Some((b"old", 9)),
            new: Some((b"new!", 10)),
        }
    }

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = record.encode_but_new();
        bytes.extend_from_slice(record.new.map_or(&[][..], |(item, _)| item));
        bytes
    }

    #[test]
    fn the_layout_is_frozen() {
        let mut expected = vec![1, 2, 4, 1, 3, 0, 0, 0, 9, 0, 0, 0, 3, 0, 0, 0, 10, 0, 0, 0];
        expected.extend(b"keyoldnew!");
        assert_eq!(encoded(&record()), expected);
        let mut expected = vec![7];
        expected.extend([
            0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3,
        ]);
        assert_eq!(key(1, 2, 3), expected);
        assert_eq!(commit_of(&expected), Some(3));
        assert_eq!(commit_of(&expected[1..]), None);
        assert!(expected.starts_with(&begin(1)));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let full = record();
        let keys_only = Record {
            event: Event::Insert,
            view: StreamView::KeysOnly,
            is_expiry: false,
            old: None,
            new: None,
            ..full
        };
        let cut = Record {
            event: Event::Remove,
            is_cut: true,
            old: None,
            new: None,
            ..full
        };
        for record in [full, keys_only, cut, Record { old: None, ..full }] {
            assert_eq!(Record::decode(&encoded(&record)), Some(record));
        }
        assert!(!full.is_too_large());
        let large = vec![0; ITEM_ARCHIVE_BYTES_MAX - 26];
        let full = Record {
            old: Some((&large, 1)),
            ..full
        };
        assert!(full.is_too_large());
        assert!(!Record { new: None, ..full }.is_too_large());
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_safely() {
        let good = encoded(&record());
        for bytes in 0..20 + 3 + 3 {
            assert_eq!(Record::decode(&good[..bytes]), None, "{bytes}");
        }
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                if let Some(record) = Record::decode(&bytes) {
                    assert_eq!(encoded(&record), bytes);
                }
            }
        }
    }
}
