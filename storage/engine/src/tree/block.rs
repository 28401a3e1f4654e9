//! Blocks: sorted entries that are found by binary search, the unit of reading, checking and caching.
//!
//! ```text
//!  0 | checksum u64: xxh3 of what follows, seeded with the file and the block's offset
//!  8 | used bytes u32, from 0 to the end of the entries; the rest of the last 4 KiB is zero
//! 12 | kind u8 | codec u8 | entries u16
//! 16 | prefix bytes u16 | 0 u16
//! 20 | key id u32
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
//! A block that has been verified and validated once is never checked again: [`BlockView`] trusts it.

use crate::checksum::checksum;

/// Bytes before the prefix.
pub(crate) const BLOCK_HEADER_BYTES: usize = 24;

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
        let start = self
            .ends
            .len()
            .checked_sub(2)
            .map_or(0, |before| self.ends[before].1);
        self.ends
            .last()
            .map_or(&[], |(key_end, _)| &self.bytes[start..*key_end])
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
        let shared = self.first_key()[..self.prefix].iter().zip(key);
        shared.take_while(|(one, other)| one == other).count()
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

    /// Appends the block to `into` and starts afresh. Its checksum is still missing: see [`seal`].
    pub(crate) fn finish(&mut self, kind: BlockKind, into: &mut Vec<u8>) {
        let start = into.len();
        let used = self.used();
        let narrow = |bytes: usize| u16::try_from(bytes).expect("keys and counts are short");
        into.reserve(used);
        into.extend_from_slice(&[0; 8]);
        into.extend_from_slice(&u32::try_from(used).expect("blocks are small").to_le_bytes());
        into.extend_from_slice(&[kind as u8, 0]);
        into.extend_from_slice(&narrow(self.len()).to_le_bytes());
        into.extend_from_slice(&narrow(self.prefix).to_le_bytes());
        into.extend_from_slice(&[0; 6]);
        let mut offset = BLOCK_HEADER_BYTES + offset_bytes(used) * self.len() + self.prefix;
        let mut at = 0;
        for (_, end) in &self.ends {
            if used > NARROW_BYTES_MAX {
                into.extend_from_slice(&u32::try_from(offset).expect("blocks are small").to_le_bytes());
            } else {
                into.extend_from_slice(&narrow(offset).to_le_bytes());
            }
            offset += 2 + (end - at) - self.prefix;
            at = *end;
        }
        into.extend_from_slice(&self.first_key()[..self.prefix]);
        let mut at = 0;
        for (key_end, end) in &self.ends {
            let suffix = &self.bytes[at + self.prefix..*key_end];
            into.extend_from_slice(&narrow(suffix.len()).to_le_bytes());
            into.extend_from_slice(suffix);
            into.extend_from_slice(&self.bytes[*key_end..*end]);
            at = *end;
        }
        assert_eq!(into.len() - start, used, "the size of a block is foreseen");
        self.bytes.clear();
        self.ends.clear();
        self.prefix = 0;
        self.key_bytes = 0;
    }
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

/// Completes a block, exactly its used bytes, with the checksum of its place.
pub(crate) fn seal(block: &mut [u8], seed: u64) -> u64 {
    let sum = checksum(seed, &block[8..]);
    block[..8].copy_from_slice(&sum.to_le_bytes());
    sum
}

/// Checks what was read against its place and the index, and validates its structure. Returns the used bytes.
///
/// # Errors
/// Names what does not hold.
pub(crate) fn verify(bytes: &[u8], seed: u64, expected: u64, kind: BlockKind) -> Result<&[u8], &'static str> {
    let used = used_bytes(bytes)?;
    if u64::from_le_bytes(array(used, 0)) != expected {
        return Err("the block is not the one that the index names");
    }
    if checksum(seed, &used[8..]) != expected {
        return Err("the block's checksum does not match");
    }
    if bytes[used.len()..].iter().any(|byte| *byte != 0) {
        return Err("the block's padding is not zero");
    }
    if used[12] != kind as u8 {
        return Err("the block is of another kind");
    }
    validate(used)?;
    Ok(used)
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
    if used[13] != 0 {
        return Err("the block's codec is unknown");
    }
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
