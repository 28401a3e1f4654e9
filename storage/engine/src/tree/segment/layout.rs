//! Header and footer of a segment file; docs/format-segment.md has the diagrams.

use std::borrow::Cow;
use std::rc::Rc;

use super::UNIT_BYTES;
use super::entry::Place;
use crate::checksum::{self, checksum};
use crate::ids::{CommitTimestamp, IndexId, NodeId, PartitionId, SegmentId, TableId};
use crate::mutation::KEY_BYTES_MAX;
use crate::sealing::{FileCipher, SALT_BYTES, TAG_BYTES, TableKey, TableKeys, WRAPPED_BYTES, Wrapped};
use crate::tree::block::At;
use crate::tree::codec::Codec;
use crate::volume::DriveSet;

const HEADER_MAGIC: [u8; 8] = *b"CAIRNSEG";
const FOOTER_MAGIC: [u8; 8] = *b"CAIRNEND";

/// Version of the layout. History: 1, the first.
const VERSION: u16 = 1;

/// The first unit of a segment file: what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The segment.
    pub id: SegmentId,
    /// The node that wrote it.
    pub node: NodeId,
    /// The table it was written for.
    pub table: TableId,
    /// The partition it was written for; a split may share it with others.
    pub partition: PartitionId,
    /// The index it was written for.
    pub index: IndexId,
    /// The drives it was written to.
    pub mirrors: DriveSet,
    /// Random bytes that make the checksums and, when sealed, the key of each file its own.
    pub salt: [u8; SALT_BYTES],
    /// What the writer was told to pack with; each block names its own.
    pub codec: Codec,
    /// Which of the table's keys seals it; 0 is none.
    pub key_id: u32,
    /// That key, wrapped with the node's; none when it is not sealed.
    pub(crate) key: Option<Wrapped>,
}

/// Where the wrapped key stands in the header.
const KEY_AT: usize = 104;

/// Seeds of the checksums in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSeed(u64);

impl FileSeed {
    pub(crate) fn new(id: SegmentId, salt: &[u8; SALT_BYTES]) -> FileSeed {
        FileSeed(checksum(id.0, salt))
    }

    /// The seed of what begins at `unit`.
    pub(crate) fn at(self, unit: u32) -> u64 {
        checksum::Place {
            file: self.0,
            incarnation: 0,
            offset: u64::from(unit) * UNIT_BYTES as u64,
        }
        .seed()
    }
}

/// What the bytes of one file are written and held against: the seeds of its checksums, and the cipher if it is sealed.
#[derive(Debug)]
pub(crate) struct Guard {
    seed: FileSeed,
    cipher: Option<FileCipher>,
    /// Held so that the table's key stays known as long as it is in use.
    _key: Option<Rc<TableKey>>,
}

impl From<FileSeed> for Guard {
    /// The guard of a file that is not sealed.
    fn from(seed: FileSeed) -> Guard {
        Guard {
            seed,
            cipher: None,
            _key: None,
        }
    }
}

impl Guard {
    /// What holds for bytes that begin at `unit`.
    pub(crate) fn at(&self, unit: u32) -> At<'_> {
        At {
            seed: self.seed.at(unit),
            unit,
            cipher: self.cipher.as_ref(),
        }
    }

    /// Bytes by which everything that is stored by itself is longer than what it holds.
    pub(crate) fn tag_bytes(&self) -> usize {
        if self.cipher.is_some() { TAG_BYTES } else { 0 }
    }

    /// What it takes in memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        if self.cipher.is_some() {
            FileCipher::RESIDENT_BYTES
        } else {
            0
        }
    }

    /// Completes bytes that are stored at `unit` without a header of their own; their checksum.
    pub(crate) fn close(&self, unit: u32, bytes: &mut Vec<u8>) -> u64 {
        let at = self.at(unit);
        if let Some(cipher) = at.cipher {
            let tag = cipher.seal(u64::from(unit), &[], bytes);
            bytes.extend_from_slice(&tag);
        }
        checksum(at.seed, bytes)
    }

    /// What [`Guard::close`] completed, `stored` bytes long and zero from there on.
    ///
    /// # Errors
    /// Names what does not hold.
    pub(crate) fn open<'a>(
        &self,
        place: Place,
        stored: u32,
        bytes: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, &'static str> {
        let (stored, padding) = bytes.split_at(stored as usize);
        let at = self.at(place.unit);
        if checksum(at.seed, stored) != place.checksum {
            return Err("the filter's checksum does not match");
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the filter's padding is not zero");
        }
        let Some(cipher) = at.cipher else {
            return Ok(stored.into());
        };
        let (sealed, tag) = stored
            .split_last_chunk::<TAG_BYTES>()
            .ok_or("the filter is too short")?;
        let mut opened = vec![0; sealed.len()];
        cipher.open(u64::from(place.unit), &[], sealed, tag, &mut opened)?;
        Ok(opened.into())
    }
}

impl SegmentHeader {
    pub(crate) fn seed(&self) -> FileSeed {
        FileSeed::new(self.id, &self.salt)
    }

    /// What the file's bytes are held against.
    ///
    /// # Errors
    /// When its key is not to be had, in words.
    pub(crate) fn guard(&self, keys: &TableKeys) -> Result<Guard, &'static str> {
        let key = keys.of(self.table, self.key.as_ref().map(|key| (self.key_id, key)))?;
        Ok(self.guarded_by(key))
    }

    /// What the file's bytes are written against, with the key that is in the header.
    pub(crate) fn guarded_by(&self, key: Option<Rc<TableKey>>) -> Guard {
        Guard {
            seed: self.seed(),
            cipher: key.as_ref().map(|key| key.segment_cipher(self.id, &self.salt)),
            _key: key,
        }
    }

    /// The first unit.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&HEADER_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.index.0.to_le_bytes());
        bytes.extend_from_slice(&self.key_id.to_le_bytes());
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.table.0.to_le_bytes());
        bytes.extend_from_slice(&self.partition.0.to_le_bytes());
        bytes.extend_from_slice(&self.node.0.to_le_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&[self.codec as u8, 0, 0, 0]);
        bytes.extend_from_slice(&self.mirrors.bits().to_le_bytes());
        if let Some(key) = &self.key {
            bytes.extend_from_slice(key.bytes());
        }
        bytes.resize(UNIT_BYTES, 0);
        // The header holds the salt, so its own sum is seeded with the id alone.
        let sum = checksum(self.id.0, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the first unit.
    ///
    /// # Errors
    /// Names what does not hold; any bytes are safe.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, &'static str> {
        if bytes.len() != UNIT_BYTES {
            return Err("the header has another length");
        }
        if bytes[8..16] != HEADER_MAGIC {
            return Err("the file does not begin as a segment");
        }
        let mut fields = Fields(&bytes[16..]);
        let version = u16::from_le_bytes(fields.array());
        let index = IndexId(u16::from_le_bytes(fields.array()));
        let key_id = u32::from_le_bytes(fields.array());
        let id = SegmentId(fields.u64());
        if fields_checksum(bytes) != checksum(id.0, &bytes[8..]) {
            return Err("the header's checksum does not match");
        }
        if version != VERSION {
            return Err("the segment has a version that this program does not know");
        }
        let table = TableId(fields.u64());
        let partition = PartitionId(fields.u64());
        let node = NodeId(u128::from_le_bytes(fields.array()));
        let salt = fields.array();
        let [codec, ..] = fields.array::<4>();
        let mirrors = DriveSet::from_bits(u32::from_le_bytes(fields.array()));
        let codec =
            Codec::from_byte(codec).ok_or("the segment's codec is one that this program does not know")?;
        let wrapped = bytes[KEY_AT..].first_chunk::<WRAPPED_BYTES>();
        let key = wrapped.filter(|_| key_id != 0).copied().map(Wrapped::from_bytes);
        if mirrors.is_empty() {
            return Err("the header's mirror set is impossible");
        }
        Ok(SegmentHeader {
            id,
            node,
            table,
            partition,
            index,
            mirrors,
            salt,
            codec,
            key_id,
            key,
        })
    }
}

/// The last units of a segment file: where everything is and what it must sum up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFooter {
    /// The segment, again.
    pub id: SegmentId,
    /// Versions, tombstones included.
    pub entries: u64,
    /// Distinct keys.
    pub keys: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// DynamoDB sizes of the items summed, in bytes.
    pub item_bytes: u64,
    /// Data blocks.
    pub blocks: u64,
    /// Least version.
    pub commit_min: CommitTimestamp,
    /// Greatest version.
    pub commit_max: CommitTimestamp,
    /// Checksum of the header.
    pub(crate) header_checksum: u64,
    /// The filter; its checksum covers exactly [`SegmentFooter::filter_bytes`].
    pub(crate) filter: Place,
    /// Length of the filter.
    pub(crate) filter_bytes: u32,
    /// First unit behind the data: no data block reaches beyond.
    pub(crate) data_end: u32,
    /// First unit behind the leaves.
    pub(crate) leaves_end: u32,
    /// The top of the index.
    pub(crate) top: Place,
    /// First key.
    pub first_key: Vec<u8>,
    /// Last key.
    pub last_key: Vec<u8>,
}

/// Bytes of the footer's fixed part, checksum included.
const FOOTER_FIXED_BYTES: usize = 8 + 8 + 2 + 2 + 4 + 8 * 9 + 16 + 16 + 3 * 4 + 4;

/// The last bytes of the file: units of the footer and the magic once more.
const TAIL_BYTES: usize = 16;

/// Bytes of the footer that are never sealed: checksum, magic, version, lengths of the keys.
const FOOTER_OPEN_BYTES: usize = 24;

/// Units of the longest footer.
const FOOTER_UNITS_MAX: u32 =
    ((FOOTER_FIXED_BYTES + 2 * KEY_BYTES_MAX + TAG_BYTES + TAIL_BYTES) as u32).div_ceil(UNIT_BYTES as u32);

impl SegmentFooter {
    /// Units of a footer with these keys.
    pub(crate) fn units_for(first_key: &[u8], last_key: &[u8]) -> u32 {
        let bytes = FOOTER_FIXED_BYTES + first_key.len() + last_key.len() + TAG_BYTES + TAIL_BYTES;
        u32::try_from(bytes.div_ceil(UNIT_BYTES)).expect("keys are short")
    }

    /// The footer's units, to begin at `unit`; and its checksum.
    pub(crate) fn encode(&self, guard: &Guard, unit: u32) -> (Vec<u8>, u64) {
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(&FOOTER_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let key_bytes = |key: &[u8]| u16::try_from(key.len()).expect("keys are short").to_le_bytes();
        bytes.extend_from_slice(&key_bytes(&self.first_key));
        bytes.extend_from_slice(&key_bytes(&self.last_key));
        bytes.extend_from_slice(&[0; 2]);
        let words = [
            self.id.0,
            self.entries,
            self.keys,
            self.tombstones,
            self.item_bytes,
            self.blocks,
            self.commit_min.0,
            self.commit_max.0,
            self.header_checksum,
        ];
        words
            .iter()
            .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(&self.filter.encode());
        bytes.extend_from_slice(&self.top.encode());
        let words = [self.filter_bytes, self.data_end, self.leaves_end, 0];
        words
            .iter()
            .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        assert_eq!(bytes.len(), FOOTER_FIXED_BYTES);
        bytes.extend_from_slice(&self.first_key);
        bytes.extend_from_slice(&self.last_key);
        let units = SegmentFooter::units_for(&self.first_key, &self.last_key) as usize;
        bytes.resize(units * UNIT_BYTES - TAIL_BYTES, 0);
        let at = guard.at(unit);
        if let Some(cipher) = at.cipher {
            let (open, rest) = bytes.split_at_mut(FOOTER_OPEN_BYTES);
            let (content, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
            tag.copy_from_slice(&cipher.seal(u64::from(unit), &open[8..], content));
        }
        bytes.extend_from_slice(&u64::try_from(units).expect("few units").to_le_bytes());
        bytes.extend_from_slice(&FOOTER_MAGIC);
        let sum = checksum(at.seed, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        (bytes, sum)
    }

    /// How many units the footer has, from the file's last unit.
    ///
    /// # Errors
    /// When the file does not end as a segment.
    pub(crate) fn units(last_unit: &[u8]) -> Result<u32, &'static str> {
        let tail = &last_unit[last_unit.len() - TAIL_BYTES..];
        let units = u64::from_le_bytes(*tail.first_chunk().expect("16 bytes"));
        let units = u32::try_from(units).unwrap_or(0);
        if tail[8..] != FOOTER_MAGIC || units == 0 || units > FOOTER_UNITS_MAX {
            return Err("the file does not end as a segment");
        }
        Ok(units)
    }

    /// Reads the footer that begins at `unit` and fills `bytes`; its checksum is beside it.
    ///
    /// # Errors
    /// Names what does not hold; any bytes are safe.
    pub(crate) fn decode(
        bytes: &[u8],
        guard: &Guard,
        unit: u32,
    ) -> Result<(SegmentFooter, u64), &'static str> {
        if bytes.len() < UNIT_BYTES || bytes[8..16] != FOOTER_MAGIC {
            return Err("the footer does not begin as one");
        }
        let sum = fields_checksum(bytes);
        let at = guard.at(unit);
        if sum != checksum(at.seed, &bytes[8..]) {
            return Err("the footer's checksum does not match");
        }
        let mut opened;
        let bytes = if let Some(cipher) = at.cipher {
            opened = bytes.to_vec();
            let sealed = &bytes[FOOTER_OPEN_BYTES..bytes.len() - TAIL_BYTES];
            let (content, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
            let into = &mut opened[FOOTER_OPEN_BYTES..][..content.len()];
            let about = &bytes[8..FOOTER_OPEN_BYTES];
            cipher.open(u64::from(unit), about, content, tag, into)?;
            &opened
        } else {
            bytes
        };
        let mut fields = Fields(&bytes[16..FOOTER_FIXED_BYTES]);
        if u16::from_le_bytes(fields.array()) != VERSION {
            return Err("the segment has a version that this program does not know");
        }
        let first = usize::from(u16::from_le_bytes(fields.array()));
        let last = usize::from(u16::from_le_bytes(fields.array()));
        let _reserved: [u8; 2] = fields.array();
        let keys = bytes.get(FOOTER_FIXED_BYTES..FOOTER_FIXED_BYTES + first + last);
        let (first_key, last_key) = keys.ok_or("the footer's keys are too long")?.split_at(first);
        let footer = SegmentFooter {
            id: SegmentId(fields.u64()),
            entries: fields.u64(),
            keys: fields.u64(),
            tombstones: fields.u64(),
            item_bytes: fields.u64(),
            blocks: fields.u64(),
            commit_min: CommitTimestamp(fields.u64()),
            commit_max: CommitTimestamp(fields.u64()),
            header_checksum: fields.u64(),
            filter: Place::decode(&fields.array::<16>()),
            top: Place::decode(&fields.array::<16>()),
            filter_bytes: u32::from_le_bytes(fields.array()),
            data_end: u32::from_le_bytes(fields.array()),
            leaves_end: u32::from_le_bytes(fields.array()),
            first_key: first_key.to_vec(),
            last_key: last_key.to_vec(),
        };
        let end = |place: Place| u64::from(place.unit) + u64::from(place.units);
        let facts = [
            footer.data_end > 1,
            footer.filter.unit == footer.data_end,
            u64::from(footer.filter_bytes) <= u64::from(footer.filter.units) * UNIT_BYTES as u64,
            end(footer.filter) <= u64::from(footer.leaves_end),
            footer.top.unit == footer.leaves_end,
            end(footer.top) == u64::from(unit),
            footer.first_key <= footer.last_key,
        ];
        if facts.iter().all(|holds| *holds) {
            Ok((footer, sum))
        } else {
            Err("the footer's places are impossible")
        }
    }
}

/// The checksum that a structure begins with.
pub(crate) fn fields_checksum(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("longer than a checksum"))
}

/// Fixed fields, one after the other; lengths have been checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk().expect("the fixed part is long enough");
        self.0 = rest;
        *taken
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cairn_runtime::ShardIndex;
    use cairn_runtime::sim::{Config, NodeIndex, Simulation};

    use super::*;
    use crate::sealing::RootKey;

    fn header() -> SegmentHeader {
        SegmentHeader {
            id: SegmentId(0x0102),
            node: NodeId(3),
            table: TableId(4),
            partition: PartitionId(5),
            index: IndexId(6),
            mirrors: DriveSet::from_bits(0b11),
            salt: [7; SALT_BYTES],
            codec: Codec::None,
            key_id: 0,
            key: None,
        }
    }

    fn guard() -> Guard {
        header().seed().into()
    }

    fn footer(key_bytes: usize) -> SegmentFooter {
        SegmentFooter {
            id: SegmentId(0x0102),
            entries: 10,
            keys: 9,
            tombstones: 1,
            item_bytes: 1_000,
            blocks: 2,
            commit_min: CommitTimestamp(1),
            commit_max: CommitTimestamp(2),
            header_checksum: 99,
            filter: Place {
                unit: 3,
                units: 1,
                checksum: 5,
            },
            filter_bytes: 100,
            data_end: 3,
            leaves_end: 5,
            top: Place {
                unit: 5,
                units: 1,
                checksum: 6,
            },
            first_key: vec![1; key_bytes],
            last_key: vec![2; key_bytes],
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_and_frozen() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        assert_eq!(checksum(0, &bytes), 12_956_192_643_156_786_529);
        let codec = Codec::Lz4;
        let packed = SegmentHeader { codec, ..header() };
        assert_eq!(packed.encode()[96], 1);
        assert_eq!(SegmentHeader::decode(&packed.encode()), Ok(packed));
        for key_bytes in [1, 100, 2_000, KEY_BYTES_MAX] {
            let (bytes, sum) = footer(key_bytes).encode(&guard(), 6);
            let units = SegmentFooter::units(&bytes[bytes.len() - UNIT_BYTES..]).unwrap();
            assert_eq!(bytes.len(), units as usize * UNIT_BYTES);
            let decoded = SegmentFooter::decode(&bytes, &guard(), 6);
            assert_eq!(decoded, Ok((footer(key_bytes), sum)));
            assert!(
                SegmentFooter::decode(&bytes, &guard(), 7).is_err(),
                "another place"
            );
        }
        assert_eq!(
            checksum(0, &footer(10).encode(&guard(), 6).0),
            5_974_777_635_630_230_587
        );
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let bytes = header().encode();
        let (end, _) = footer(10).encode(&guard(), 6);
        for at in 0..UNIT_BYTES {
            let (mut header_bytes, mut end) = (bytes.clone(), end.clone());
            header_bytes[at] ^= 0x10;
            assert!(SegmentHeader::decode(&header_bytes).is_err(), "header byte {at}");
            end[at] ^= 0x10;
            assert!(
                SegmentFooter::decode(&end, &guard(), 6).is_err(),
                "footer byte {at}"
            );
        }
        assert!(SegmentHeader::decode(&[]).is_err());
    }

    #[test]
    fn hostile_footers_with_a_good_checksum_are_safe() {
        let (good, _) = footer(10).encode(&guard(), 6);
        for at in 8..FOOTER_FIXED_BYTES {
            for byte in [0, 1, 127, 128, 255] {
                let mut bad = good.clone();
                bad[at] = byte;
                let sum = checksum(header().seed().at(6), &bad[8..]);
                bad[..8].copy_from_slice(&sum.to_le_bytes());
                drop(SegmentFooter::decode(&bad, &guard(), 6));
            }
        }
    }

    #[test]
    fn a_sealed_footer_shows_no_key_and_reads_back_under_its_own() {
        let simulation = Simulation::new(1, Config::default());
        let (keys, key) = simulation.block_on(NodeIndex(0), ShardIndex(0), async |runtime| {
            let (node, _) = RootKey::new([1; 32]).make_node_key(&runtime, NodeId(3));
            let keys = TableKeys::new(Some(Arc::new(node)));
            let key = keys.newest(&runtime, TableId(4));
            (keys, key.expect("it is sealed"))
        });
        let sealed = SegmentHeader {
            key_id: key.id,
            key: Some(key.wrapped.clone()),
            ..header()
        };
        let read = SegmentHeader::decode(&sealed.encode());
        assert_eq!(read, Ok(sealed.clone()));
        let guard = sealed.guard(&keys).unwrap();
        for key_bytes in [1, 20, 16_384] {
            let footer = footer(key_bytes);
            let (bytes, sum) = footer.encode(&guard, 6);
            assert_eq!(bytes.len() % UNIT_BYTES, 0);
            assert_eq!(
                SegmentFooter::decode(&bytes, &guard, 6),
                Ok((footer.clone(), sum))
            );
            assert!(SegmentFooter::decode(&bytes, &guard, 7).is_err());
            assert!(key_bytes == 1 || bytes.windows(8).all(|window| *window != footer.last_key[..8]));
            let mut forged = bytes.clone();
            forged[32] ^= 1;
            let sum = checksum(guard.at(6).seed, &forged[8..]);
            forged[..8].copy_from_slice(&sum.to_le_bytes());
            assert!(SegmentFooter::decode(&forged, &guard, 6).is_err());
        }
        let mut filter = vec![1, 2, 3];
        let sum = guard.close(9, &mut filter);
        let place = Place {
            unit: 9,
            units: 1,
            checksum: sum,
        };
        let stored = u32::try_from(filter.len()).unwrap();
        filter.resize(UNIT_BYTES, 0);
        assert_eq!(guard.open(place, stored, &filter).unwrap(), [1, 2, 3].as_slice());
        assert!(header().guard(&keys).is_err(), "not sealed, and this node seals");
        assert!(sealed.guard(&TableKeys::default()).is_err());
    }
}
