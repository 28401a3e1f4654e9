//! Blocks: sorted entries that are found by binary search, the unit of reading, checking and caching.
//!
//! ```text
//!  0 | checksum u64: xxh3 of what follows, seeded with the file and the block's offset
//!  8 | used bytes u32, from 0 to the end of the entries; the rest of the last 4 KiB is zero
//! 12 | kind u8 | codec u8 | entries u16
//! 16 | prefix bytes u16 | 0 u16
//! 20 | key id u32: of the table key that seals it, 0 when it is not sealed
//! 24 | offset of each entry: u16, or u32 when used bytes > 65,535
//!    | prefix: what all keys of the block begin with
//!    | entry: suffix bytes u16 | suffix | payload, to the next entry or the end
//! ```
//!
//! One prefix and an array of offsets instead of restart points with runs of deltas: a 4 KiB block holds 3 to 40
//! items, their keys begin with a hash and share nothing unless they are one item collection, and then they
//! share the partition key, which the one prefix takes. What it buys: search without decoding, both
//! directions alike, keys and items borrowed from the block. The offsets stand in front, so that header, offsets and
//! prefix of a block with few items are one cache line.
//!
//! A data block may be **packed** by a codec; header and checksum are then of what is stored:
//!
//! ```text
//! 13 | codec u8, not 0
//! 24 | bytes of the block unpacked, from 0 to the end of its entries, u32
//! 28 | packed: what follows the header of the block unpacked
//! ```
//!
//! A block may be **sealed**, which comes last: what is at 24 and behind, packed or not, is encrypted in place, the tag
//! stands behind it, and used bytes end behind the tag. The tag vouches for bytes 8..24 too.
//!
//! In memory, and so in the cache, every block is opened and unpacked.
//!
//! A block that has been verified and validated once is never checked again: [`BlockView`] trusts it.

use std::rc::Rc;

use super::codec::{Codec, Codecs};
use crate::canary::{self, Canary};
use crate::checksum::checksum;
use crate::mutation::{ITEM_ARCHIVE_BYTES_MAX, KEY_BYTES_MAX};
use crate::sealing::{FileCipher, TAG_BYTES};

/// Bytes before the prefix.
pub(crate) const BLOCK_HEADER_BYTES: usize = 24;

/// Bytes before what is packed.
const PACKED_HEADER_BYTES: usize = 28;

/// Most bytes, unpacked, of a block with several entries that was packed. A point read unpacks all of it.
pub(crate) const UNPACKED_BYTES_MAX: usize = 32 << 10;

/// Most bytes, unpacked, of a block with one entry: the largest item, its key, its stamp, and what surrounds them.
const UNPACKED_ALONE_BYTES_MAX: usize = ITEM_ARCHIVE_BYTES_MAX + KEY_BYTES_MAX + 128;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockKind {
    /// Versions of items.
    Data = 1,
    /// Places of data blocks.
    Leaf = 2,
    /// Places of leaves.
    Top = 3,
}

/// Largest offset table that fits into two bytes per entry.
const NARROW_BYTES_MAX: usize = u16::MAX as usize;

/// Bytes of an entry's offset in a block of this length.
fn offset_bytes(used: usize) -> usize {
    if used > NARROW_BYTES_MAX { 4 } else { 2 }
}

/// Most entries of a block.
const ENTRIES_MAX: usize = u16::MAX as usize;

/// Gathers entries in order and lays them out.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    /// Keys and payloads, one after the other.
    bytes: Vec<u8>,
    /// End of key and end of payload of each entry in `bytes`.
    ends: Vec<(usize, usize)>,
    /// Bytes that all keys share.
    prefix: usize,
    /// Sum of the keys' lengths.
    key_bytes: usize,
}

impl BlockBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn first_key(&self) -> &[u8] {
        self.ends
            .first()
            .map_or(&[], |(key_end, _)| &self.bytes[..*key_end])
    }

    pub(crate) fn last_key(&self) -> &[u8] {
        self.len().checked_sub(1).map_or(&[], |last| self.key(last))
    }

    /// Used bytes of the block as it is.
    pub(crate) fn used(&self) -> usize {
        used(
            self.len(),
            self.prefix,
            self.key_bytes,
            self.bytes.len() - self.key_bytes,
        )
    }

    /// Used bytes of the block with one entry more.
    pub(crate) fn used_with(&self, key: &[u8], payload_bytes: usize) -> usize {
        let payloads = self.bytes.len() - self.key_bytes + payload_bytes;
        used(
            self.len() + 1,
            self.prefix_with(key),
            self.key_bytes + key.len(),
            payloads,
        )
    }

    /// Whether the block has room for another entry in its count.
    pub(crate) fn is_full(&self) -> bool {
        self.len() == ENTRIES_MAX
    }

    fn prefix_with(&self, key: &[u8]) -> usize {
        if self.is_empty() {
            return key.len();
        }
        shared(&self.first_key()[..self.prefix], key)
    }

    /// Adds an entry; its key is not below the last one's.
    pub(crate) fn push(&mut self, key: &[u8], payload: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.last_key() <= key, "entries come in order");
        self.prefix = self.prefix_with(key);
        self.key_bytes += key.len();
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        payload(&mut self.bytes);
        self.ends.push((key_end, self.bytes.len()));
    }

    /// Appends a block of the first `count` entries to `into`, and keeps them. Its checksum is still missing: see
    /// [`seal`].
    pub(crate) fn lay_out(&self, count: usize, kind: BlockKind, into: &mut Vec<u8>) {
        let start = into.len();
        let ends = &self.ends[..count];
        let prefix = shared(self.first_key(), self.key(count - 1));
        let mut at = 0;
        let mut key_bytes = 0;
        for (key_end, end) in ends {
            key_bytes += key_end - at;
            at = *end;
        }
        let used = used(count, prefix, key_bytes, at - key_bytes);
        let narrow = |bytes: usize| u16::try_from(bytes).expect("keys and counts are short");
        into.reserve(used);
        into.extend_from_slice(&[0; 8]);
        into.extend_from_slice(&u32::try_from(used).expect("blocks are small").to_le_bytes());
        into.extend_from_slice(&[kind as u8, Codec::None as u8]);
        into.extend_from_slice(&narrow(count).to_le_bytes());
        into.extend_from_slice(&narrow(prefix).to_le_bytes());
        into.extend_from_slice(&[0; 6]);
        let mut offset = BLOCK_HEADER_BYTES + offset_bytes(used) * count + prefix;
        let mut at = 0;
        for (_, end) in ends {
            if used > NARROW_BYTES_MAX {
                into.extend_from_slice(&u32::try_from(offset).expect("blocks are small").to_le_bytes());
            } else {
                into.extend_from_slice(&narrow(offset).to_le_bytes());
            }
            offset += 2 + (end - at) - prefix;
            at = *end;
        }
        into.extend_from_slice(&self.first_key()[..prefix]);
        let mut at = 0;
        for (key_end, end) in ends {
            let suffix = &self.bytes[at + prefix..*key_end];
            into.extend_from_slice(&narrow(suffix.len()).to_le_bytes());
            into.extend_from_slice(suffix);
            into.extend_from_slice(&self.bytes[*key_end..*end]);
            at = *end;
        }
        assert_eq!(into.len() - start, used, "the size of a block is foreseen");
    }

    /// Takes the first `count` entries away.
    pub(crate) fn take(&mut self, count: usize) {
        let end = self.ends[count - 1].1;
        self.bytes.drain(..end);
        self.ends.drain(..count);
        let mut at = 0;
        self.key_bytes = 0;
        for (key_end, payload_end) in &mut self.ends {
            *key_end -= end;
            *payload_end -= end;
            self.key_bytes += *key_end - at;
            at = *payload_end;
        }
        self.prefix = shared(self.first_key(), self.last_key());
    }

    /// Appends the block of all entries to `into` and starts afresh.
    pub(crate) fn finish(&mut self, kind: BlockKind, into: &mut Vec<u8>) {
        self.lay_out(self.len(), kind, into);
        self.take(self.len());
    }

    /// Key of an entry.
    pub(crate) fn key(&self, entry: usize) -> &[u8] {
        let start = entry.checked_sub(1).map_or(0, |before| self.ends[before].1);
        &self.bytes[start..self.ends[entry].0]
    }
}

/// Bytes that two keys begin with alike: in order, all keys between them do as well.
fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

fn used(entries: usize, prefix: usize, key_bytes: usize, payload_bytes: usize) -> usize {
    let content = BLOCK_HEADER_BYTES + prefix + 2 * entries + (key_bytes - entries * prefix) + payload_bytes;
    let narrow = content + 2 * entries;
    if narrow > NARROW_BYTES_MAX {
        content + 4 * entries
    } else {
        narrow
    }
}

/// Appends the packed form of a data block to `into`, when `codec` packs at all.
pub(crate) fn pack(block: &[u8], codec: Codec, codecs: &Codecs, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&block[..BLOCK_HEADER_BYTES]);
    into.extend_from_slice(
        &u32::try_from(block.len())
            .expect("blocks are small")
            .to_le_bytes(),
    );
    codecs.pack(codec, &block[BLOCK_HEADER_BYTES..], into);
    let stored = u32::try_from(into.len() - start).expect("blocks are small");
    into[start + 8..start + 12].copy_from_slice(&stored.to_le_bytes());
    into[start + 13] = codec as u8;
}

/// What the bytes at one place of a file are held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    /// Seed of the checksum.
    pub(crate) seed: u64,
    /// The place.
    pub(crate) unit: u32,
    /// What seals the file; none when it is not sealed.
    pub(crate) cipher: Option<&'a FileCipher>,
}

impl At<'static> {
    /// A place of a file that is not sealed.
    pub(crate) fn plain(seed: u64) -> At<'static> {
        At {
            seed,
            unit: 0,
            cipher: None,
        }
    }
}

/// Completes a block, exactly its used bytes: seals it if its file is, and gives it the checksum of its place.
pub(crate) fn close(block: &mut Vec<u8>, at: At<'_>) -> u64 {
    if let Some(cipher) = at.cipher {
        let used = u32::try_from(block.len() + TAG_BYTES).expect("blocks are small");
        block[8..12].copy_from_slice(&used.to_le_bytes());
        block[20..24].copy_from_slice(&cipher.key_id().to_le_bytes());
        let (header, content) = block.split_at_mut(BLOCK_HEADER_BYTES);
        let tag = cipher.seal(u64::from(at.unit), &header[8..], content);
        block.extend_from_slice(&tag);
    }
    seal(block, at.seed)
}

/// Completes a block that is not sealed, exactly its used bytes, with the checksum of its place.
pub(crate) fn seal(block: &mut [u8], seed: u64) -> u64 {
    let sum = checksum(seed, &block[8..]);
    block[..8].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// Checks what was read against its place and the index, opens and unpacks it, and validates its structure. Returns the
/// used bytes of the block as it was laid out.
///
/// # Errors
/// Names what does not hold.
pub(crate) fn verify(
    bytes: &[u8],
    at: At<'_>,
    expected: u64,
    kind: BlockKind,
    codecs: &Codecs,
) -> Result<Rc<[u8]>, &'static str> {
    let used = used_bytes(bytes)?;
    let trusted = kind == BlockKind::Data && canary::is_in(Canary::TrustBlocks);
    if u64::from_le_bytes(array(used, 0)) != expected && !trusted {
        return Err("the block is not the one that the index names");
    }
    if checksum(at.seed, &used[8..]) != expected && !trusted {
        return Err("the block's checksum does not match");
    }
    if bytes[used.len()..].iter().any(|byte| *byte != 0) {
        return Err("the block's padding is not zero");
    }
    if used[12] != kind as u8 {
        return Err("the block is of another kind");
    }
    let codec = Codec::from_byte(used[13]).ok_or("the block's codec is unknown")?;
    if codec != Codec::None && kind != BlockKind::Data {
        return Err("a block of the index is packed");
    }
    let key_id = u32::from_le_bytes(array(used, 20));
    let block = match at.cipher {
        None if key_id != 0 => return Err("the block is sealed and its file is not"),
        None if codec == Codec::None => used.into(),
        None => unpack(used, codec, codecs)?,
        Some(cipher) if key_id != cipher.key_id() => {
            return Err("the block is not sealed with the key of its file");
        }
        Some(cipher) if codec == Codec::None => {
            let mut block: Rc<[u8]> = std::iter::repeat_n(0, opened_bytes(used)?).collect();
            let into = Rc::get_mut(&mut block).expect("nobody else has it yet");
            open(used, cipher, at.unit, into)?;
            block
        }
        Some(cipher) => codecs.with_scratch(opened_bytes(used)?, |packed| {
            open(used, cipher, at.unit, packed)?;
            unpack(packed, codec, codecs)
        })?,
    };
    validate(&block)?;
    Ok(block)
}

/// Length of a sealed block once it is opened.
fn opened_bytes(used: &[u8]) -> Result<usize, &'static str> {
    let bytes = used.len().checked_sub(TAG_BYTES);
    bytes
        .filter(|bytes| *bytes >= BLOCK_HEADER_BYTES)
        .ok_or("the block is too short")
}

/// Opens a sealed block into all of `into`, which has [`opened_bytes`]. Its checksum field still is what was stored.
fn open(used: &[u8], cipher: &FileCipher, unit: u32, into: &mut [u8]) -> Result<(), &'static str> {
    let (header, content) = into.split_at_mut(BLOCK_HEADER_BYTES);
    header.copy_from_slice(&used[..BLOCK_HEADER_BYTES]);
    let (sealed, tag) = used[BLOCK_HEADER_BYTES..].split_at(content.len());
    cipher.open(
        u64::from(unit),
        &used[8..BLOCK_HEADER_BYTES],
        sealed,
        tag,
        content,
    )?;
    let bytes = u32::try_from(into.len()).expect("shorter than what was stored");
    into[8..12].copy_from_slice(&bytes.to_le_bytes());
    Ok(())
}

/// The block that `stored` is packed from. Its checksum field still is what `stored` says.
fn unpack(stored: &[u8], codec: Codec, codecs: &Codecs) -> Result<Rc<[u8]>, &'static str> {
    if stored.len() < PACKED_HEADER_BYTES {
        return Err("the block is too short");
    }
    let bytes = u32::from_le_bytes(array(stored, BLOCK_HEADER_BYTES));
    let entries = u16::from_le_bytes(array(stored, 14));
    let bytes_max = if entries == 1 {
        UNPACKED_ALONE_BYTES_MAX
    } else {
        UNPACKED_BYTES_MAX
    };
    // Before anything is allocated. Nothing is packed that does not shrink by it.
    let length = bytes as usize;
    if length <= stored.len() || length > bytes_max {
        return Err("the block's unpacked length is impossible");
    }
    let mut block: Rc<[u8]> = std::iter::repeat_n(0, length).collect();
    let into = Rc::get_mut(&mut block).expect("nobody else has it yet");
    into[..BLOCK_HEADER_BYTES].copy_from_slice(&stored[..BLOCK_HEADER_BYTES]);
    into[8..12].copy_from_slice(&bytes.to_le_bytes());
    into[13] = Codec::None as u8;
    codecs.unpack(
        codec,
        &stored[PACKED_HEADER_BYTES..],
        &mut into[BLOCK_HEADER_BYTES..],
    )?;
    Ok(block)
}

/// The used part of a block, with nothing checked but its length.
pub(crate) fn used_bytes(bytes: &[u8]) -> Result<&[u8], &'static str> {
    if bytes.len() < BLOCK_HEADER_BYTES {
        return Err("the block is too short");
    }
    let used = u32::from_le_bytes(array(bytes, 8)) as usize;
    if used < BLOCK_HEADER_BYTES || used > bytes.len() {
        return Err("the block's length is impossible");
    }
    Ok(&bytes[..used])
}

/// Walks the structure so that [`BlockView`] cannot go astray.
fn validate(used: &[u8]) -> Result<(), &'static str> {
    let impossible = Err("the block's structure is impossible");
    let count = usize::from(u16::from_le_bytes(array(used, 14)));
    let prefix = usize::from(u16::from_le_bytes(array(used, 16)));
    let mut at = BLOCK_HEADER_BYTES + offset_bytes(used.len()) * count + prefix;
    if count == 0 || at > used.len() {
        return impossible;
    }
    let view = BlockView::new(used);
    for entry in 0..count {
        let start = view.offset(entry);
        let end = view.end(entry);
        let expected = if entry == 0 { at } else { start };
        if start != expected || start < at || end > used.len() || start + 2 > end {
            return impossible;
        }
        let suffix = usize::from(u16::from_le_bytes(array(used, start)));
        if start + 2 + suffix > end {
            return impossible;
        }
        at = start + 2 + suffix;
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("checked against the block's length")
}

/// A verified block in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockView<'a> {
    used: &'a [u8],
    prefix: &'a [u8],
    count: usize,
}

impl<'a> BlockView<'a> {
    /// `used` has been through [`verify`].
    pub(crate) fn new(used: &'a [u8]) -> BlockView<'a> {
        let count = usize::from(u16::from_le_bytes(array(used, 14)));
        let prefix = usize::from(u16::from_le_bytes(array(used, 16)));
        let prefix_at = BLOCK_HEADER_BYTES + offset_bytes(used.len()) * count;
        let prefix = &used[prefix_at..prefix_at + prefix];
        BlockView { used, prefix, count }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    fn offset(&self, entry: usize) -> usize {
        if self.used.len() > NARROW_BYTES_MAX {
            u32::from_le_bytes(array(self.used, BLOCK_HEADER_BYTES + 4 * entry)) as usize
        } else {
            usize::from(u16::from_le_bytes(array(
                self.used,
                BLOCK_HEADER_BYTES + 2 * entry,
            )))
        }
    }

    fn end(&self, entry: usize) -> usize {
        if entry + 1 < self.count {
            self.offset(entry + 1)
        } else {
            self.used.len()
        }
    }

    fn suffix_end(&self, entry: usize) -> (usize, usize) {
        let start = self.offset(entry);
        let suffix = usize::from(u16::from_le_bytes(array(self.used, start)));
        (start + 2, start + 2 + suffix)
    }

    fn suffix(&self, entry: usize) -> &'a [u8] {
        let (start, end) = self.suffix_end(entry);
        &self.used[start..end]
    }

    /// Where an entry's payload lies in the block.
    pub(crate) fn payload_range(&self, entry: usize) -> (usize, usize) {
        (self.suffix_end(entry).1, self.end(entry))
    }

    pub(crate) fn payload(&self, entry: usize) -> &'a [u8] {
        let (start, end) = self.payload_range(entry);
        &self.used[start..end]
    }

    /// Replaces `into` with an entry's key.
    pub(crate) fn key_into(&self, entry: usize, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(self.prefix);
        into.extend_from_slice(self.suffix(entry));
    }

    /// Whether an entry's key is `key`.
    pub(crate) fn key_is(&self, entry: usize, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix)
            .is_some_and(|rest| rest == self.suffix(entry))
    }

    /// First entry of which `before(key order against `key`, entry)` does not hold.
    pub(crate) fn partition_point(
        &self,
        key: &[u8],
        before: impl Fn(std::cmp::Ordering, usize) -> bool,
    ) -> usize {
        let (mut low, mut high) = (0, self.count);
        let shared = key.len().min(self.prefix.len());
        let order = self.prefix[..shared].cmp(&key[..shared]);
        // A key that ends within the prefix is below every key of the block.
        let order = if shared < self.prefix.len() {
            order.then(std::cmp::Ordering::Greater)
        } else {
            order
        };
        let rest = &key[shared..];
        while low < high {
            let middle = usize::midpoint(low, high);
            let order = order.then_with(|| self.suffix(middle).cmp(rest));
            if before(order, middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// First entry whose key is not below `key`.
    pub(crate) fn lower_bound(&self, key: &[u8]) -> usize {
        self.partition_point(key, |order, _| order.is_lt())
    }

    /// First entry whose key is above `key`.
    pub(crate) fn upper_bound(&self, key: &[u8]) -> usize {
        self.partition_point(key, |order, _| order.is_le())
    }
}

#[cfg(test)]
mod block_test;
