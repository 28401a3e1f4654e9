//! How many entries a data block takes, and how it is stored.
//!
//! A block is read whole, by one device read of whole units, so what counts is its stored length: as few units as are
//! well filled. What a codec will make of the entries is known only afterwards, so:
//!
//! 1. The **ratio** of the blocks before foretells what the open one will be stored as. It takes entries until that
//!    foretold length fills its unit; when the unit is badly filled by then, because items are large, it grows by
//!    units. Without a codec the foretold length is the true one.
//! 2. A block that is full is packed. If it came out longer than foretold and its last unit is nearly empty, its
//!    last entries are left to the next block and it is packed again.
//! 3. It is stored packed only if that saves a unit and an eighth of its bytes: a point read pays for unpacking.
//!    While blocks do not shrink, only one of [`SAMPLE_EVERY`] is tried, so that random bytes cost next to nothing.

use super::UNIT_BYTES;
use crate::tree::block::{BlockBuilder, BlockKind, UNPACKED_BYTES_MAX, pack};
use crate::tree::codec::{Codec, Codecs};

/// A block that holds several items is stored in at most this many units.
const BLOCK_UNITS_MAX: usize = 4;

/// A block is closed when it is at least this full, in percent; below, it grows by a unit instead. What is wasted is
/// written again with every compaction: items of 1,050 bytes that do not shrink fill a unit to 77 %, and two of them to
/// 90 %; a read of two units costs a drive hardly more than one of one.
const BLOCK_FILL_PERCENT_MIN: usize = 85;

/// Ratios are stored bytes in so many unpacked ones.
const WHOLE: usize = 1024;

/// Greatest ratio that counts as shrinking.
const RATIO_MAX: usize = WHOLE / 8 * 7;

/// Blocks of which one is packed for the ratio alone while they do not shrink.
const SAMPLE_EVERY: u32 = 16;

/// What a foretold length is lengthened by, in WHOLE: neighbours differ by a few percent, and a block that comes out
/// too long is packed twice.
const MARGIN: usize = WHOLE / 40;

/// A block to be stored.
pub(super) struct Closed {
    /// How many entries it holds, from the first.
    pub(super) entries: usize,
    /// Its bytes as stored; seal and checksum are missing.
    pub(super) block: Vec<u8>,
    /// Its length unpacked.
    pub(super) unpacked_bytes: usize,
}

/// Fills the blocks of one segment.
pub(super) struct Packing {
    codec: Codec,
    /// Bytes that a stored block is longer for being sealed.
    tag_bytes: usize,
    /// Of the blocks before, the last counting for a quarter; in WHOLE.
    ratio: usize,
    /// Blocks until one is packed for the ratio alone.
    sample_in: u32,
    /// Units that the open block is to fill.
    units: usize,
    /// Buffers that are used again: unpacked, packed.
    spare: [Vec<u8>; 2],
}

impl Packing {
    pub(super) fn new(codec: Codec, tag_bytes: usize) -> Packing {
        Packing {
            codec,
            tag_bytes,
            ratio: WHOLE,
            sample_in: 0,
            units: 1,
            spare: Default::default(),
        }
    }

    fn shrinks(&self) -> bool {
        self.codec != Codec::None && self.ratio <= RATIO_MAX
    }

    /// What so many bytes will be stored as.
    fn foretold(&self, bytes: usize) -> usize {
        let stored = if self.shrinks() {
            bytes * (self.ratio + MARGIN) / WHOLE
        } else {
            bytes
        };
        stored + self.tag_bytes
    }

    /// Whether the open block takes the entry, perhaps by growing; an empty one takes any.
    pub(super) fn takes(&mut self, open: &BlockBuilder, key: &[u8], payload_bytes: usize) -> bool {
        let bytes = open.used_with(key, payload_bytes);
        let stored = self.foretold(bytes);
        if open.is_empty() {
            self.units = stored.div_ceil(UNIT_BYTES);
            return true;
        }
        if open.is_full() || bytes > UNPACKED_BYTES_MAX {
            return false;
        }
        if stored <= self.units * UNIT_BYTES {
            return true;
        }
        let units = stored.div_ceil(UNIT_BYTES);
        if units > BLOCK_UNITS_MAX || is_filled(self.foretold(open.used()), self.units) {
            return false;
        }
        self.units = units;
        true
    }

    /// The block that is to be stored now: of all entries, or of the first of them.
    pub(super) fn close(&mut self, open: &BlockBuilder, codecs: &Codecs) -> Closed {
        let mut entries = open.len();
        let mut tries = 0;
        loop {
            let (block, unpacked_bytes) = self.store(open, entries, codecs);
            let stored = block.len() + self.tag_bytes;
            let units = stored.div_ceil(UNIT_BYTES);
            let fits = units <= self.units || units <= BLOCK_UNITS_MAX && is_filled(stored, units);
            if fits || entries == 1 {
                return Closed {
                    entries,
                    block,
                    unpacked_bytes,
                };
            }
            tries += 1;
            let room = self.units.min(BLOCK_UNITS_MAX) * UNIT_BYTES - self.tag_bytes;
            // Shrinks with every turn, by half when foretelling fails.
            let fewer = if tries < 3 {
                entries * room * (WHOLE - MARGIN) / (block.len() * WHOLE)
            } else {
                entries / 2
            };
            entries = fewer.clamp(1, entries - 1);
            self.reuse(block);
        }
    }

    /// The first `entries` as they are to be stored, and their length unpacked.
    fn store(&mut self, open: &BlockBuilder, entries: usize, codecs: &Codecs) -> (Vec<u8>, usize) {
        let [mut plain, mut packed] = std::mem::take(&mut self.spare);
        plain.clear();
        open.lay_out(entries, BlockKind::Data, &mut plain);
        let bytes = plain.len();
        if self.codec == Codec::None || !self.is_tried() {
            self.spare = [Vec::new(), packed];
            return (plain, bytes);
        }
        packed.clear();
        pack(&plain, self.codec, codecs, &mut packed);
        self.learn(packed.len(), bytes);
        let units = |bytes: usize| (bytes + self.tag_bytes).div_ceil(UNIT_BYTES);
        let saves_units = units(packed.len()) < units(bytes);
        if saves_units && packed.len() * WHOLE <= bytes * RATIO_MAX {
            self.spare = [plain, Vec::new()];
            (packed, bytes)
        } else {
            self.spare = [Vec::new(), packed];
            (plain, bytes)
        }
    }

    /// Whether this block is packed, be it only for the ratio.
    fn is_tried(&mut self) -> bool {
        if self.shrinks() {
            return true;
        }
        let now = self.sample_in == 0;
        self.sample_in = if now { SAMPLE_EVERY - 1 } else { self.sample_in - 1 };
        now
    }

    fn learn(&mut self, stored: usize, bytes: usize) {
        let ratio = (stored * WHOLE).div_ceil(bytes);
        self.ratio = if self.ratio >= WHOLE {
            ratio
        } else {
            (self.ratio * 3 + ratio) / 4
        };
    }

    /// Takes back a buffer that has been written.
    pub(super) fn reuse(&mut self, buffer: Vec<u8>) {
        if let Some(spare) = self.spare.iter_mut().find(|spare| spare.capacity() == 0) {
            *spare = buffer;
        }
    }
}

fn is_filled(bytes: usize, units: usize) -> bool {
    bytes * 100 >= units * UNIT_BYTES * BLOCK_FILL_PERCENT_MIN
}
