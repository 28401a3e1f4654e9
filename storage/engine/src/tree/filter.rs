//! Filters: whether a segment can hold a key at all, asked by the hash of the key without its version.
//!
//! Binary fuse filters with 8-bit fingerprints: 9 to 10 bits per key, 0.4 % false positives, three loads per
//! question. Building one takes 28 ns per key without a pause, so the keys are cut by the top bits of
//! their hashes into parts of at most [`PART_KEYS`] and the builder yields between parts.
//!
//! ```text
//!  0 | part bits u8 | 0, 7 bytes
//!  8 | per part: seed u64 | segment length u32 | segment count length u32 | fingerprints u32 | 0 u32
//!    | fingerprints of the parts, one after the other
//! ```
//!
//! A part without fingerprints answers "perhaps" (it could not be built); a part whose segment length is 0
//! holds no key and answers no.

use xorf::{BinaryFuse8, DmaSerializable};
use xxhash_rust::xxh3::xxh3_64;

/// Most keys of a part, on average: about 1 ms of building.
pub(crate) const PART_KEYS: usize = 32_768;

const HEADER_BYTES: usize = 8;
const PART_BYTES: usize = 24;

/// Most part bits: 2^16 parts of 2^15 keys.
const PART_BITS_MAX: u32 = 16;

/// What filters and caches know a key by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64(key))
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// Which of `parts`, a power of two, the key falls into: by bits from the middle, because hash tables use the
    /// others.
    pub(crate) fn part(self, parts: usize) -> usize {
        debug_assert!(parts.is_power_of_two());
        (self.0 >> 40) as usize & (parts - 1)
    }
}

/// Gathers the hashes of a segment's keys.
#[derive(Debug, Default)]
pub(crate) struct FilterBuilder {
    hashes: Vec<u64>,
}

impl FilterBuilder {
    pub(crate) fn push(&mut self, hash: KeyHash) {
        self.hashes.push(hash.0);
    }

    /// The work of building, part by part.
    pub(crate) fn build(mut self) -> FilterBuild {
        self.hashes.sort_unstable();
        self.hashes.dedup();
        let parts = self.hashes.len().div_ceil(PART_KEYS).next_power_of_two();
        let bits = parts.trailing_zeros().min(PART_BITS_MAX);
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = u8::try_from(bits).expect("at most PART_BITS_MAX");
        FilterBuild {
            hashes: self.hashes,
            bits,
            part: 0,
            at: 0,
            bytes,
            fingerprints: Vec::new(),
        }
    }
}

/// A filter under construction.
#[derive(Debug)]
pub(crate) struct FilterBuild {
    /// Sorted, so that each part is a range.
    hashes: Vec<u64>,
    bits: u32,
    part: usize,
    at: usize,
    bytes: Vec<u8>,
    fingerprints: Vec<u8>,
}

impl FilterBuild {
    /// Builds one part; whether there are more.
    pub(crate) fn step(&mut self) -> bool {
        let rest = &self.hashes[self.at..];
        let part = &rest[..rest.partition_point(|hash| part_of(*hash, self.bits) == self.part)];
        self.at += part.len();
        self.part += 1;
        let mut descriptor = [0; PART_BYTES];
        if !part.is_empty() {
            match BinaryFuse8::try_from(part) {
                Ok(filter) => {
                    let mut dma = [0; 20];
                    filter.dma_copy_descriptor_to(&mut dma);
                    // The mask between the two lengths is the segment length less one.
                    descriptor[..12].copy_from_slice(&dma[..12]);
                    descriptor[12..16].copy_from_slice(&dma[16..20]);
                    let length = u32::try_from(filter.fingerprints.len()).expect("a part is small");
                    descriptor[16..20].copy_from_slice(&length.to_le_bytes());
                    self.fingerprints.extend_from_slice(&filter.fingerprints);
                }
                // Has not been seen with distinct hashes; answering "perhaps" is always right.
                Err(_) => descriptor[8..12].copy_from_slice(&1_u32.to_le_bytes()),
            }
        }
        self.bytes.extend_from_slice(&descriptor);
        self.part < 1 << self.bits
    }

    /// The filter's bytes, after the last step.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        assert_eq!(self.part, 1 << self.bits, "every part has been built");
        self.bytes.append(&mut self.fingerprints);
        self.bytes
    }
}

fn part_of(hash: u64, bits: u32) -> usize {
    // Shifting by 64 is no shift at all, so the single part is its own case.
    if bits == 0 {
        0
    } else {
        (hash >> (64 - bits)) as usize
    }
}

#[derive(Debug, Clone, Copy)]
struct Part {
    seed: u64,
    segment_length: u32,
    segment_count_length: u32,
    start: usize,
    bytes: usize,
}

/// A filter in memory.
#[derive(Debug)]
pub(crate) struct Filter {
    bits: u32,
    parts: Box<[Part]>,
    bytes: Box<[u8]>,
}

impl Filter {
    /// Takes over a filter's bytes.
    ///
    /// # Errors
    /// When they are none; any bytes are safe.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Filter, &'static str> {
        let impossible = "the filter's structure is impossible";
        let bits = u32::from(*bytes.first().ok_or(impossible)?);
        if bits > PART_BITS_MAX {
            return Err(impossible);
        }
        let table_end = HEADER_BYTES + PART_BYTES * (1 << bits);
        let table = bytes.get(HEADER_BYTES..table_end).ok_or(impossible)?;
        let mut start = table_end;
        let mut parts = Vec::with_capacity(1 << bits);
        for entry in table.chunks_exact(PART_BYTES) {
            let word = |at: usize| u32::from_le_bytes(*entry[at..].first_chunk().expect("within the entry"));
            let (segment_length, segment_count_length) = (word(8), word(12));
            let part = Part {
                seed: u64::from_le_bytes(*entry.first_chunk().expect("within the entry")),
                segment_length,
                segment_count_length,
                start,
                bytes: word(16) as usize,
            };
            let needed = u64::from(segment_count_length) + 2 * u64::from(segment_length);
            let shaped = segment_length.is_power_of_two() && segment_count_length > 0;
            if part.bytes > 0 && (!shaped || needed != part.bytes as u64) {
                return Err(impossible);
            }
            start += part.bytes;
            parts.push(part);
        }
        if start != bytes.len() {
            return Err(impossible);
        }
        Ok(Filter {
            bits,
            parts: parts.into(),
            bytes: bytes.into(),
        })
    }

    /// Whether the key may be there; false is certain.
    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        let part = &self.parts[part_of(hash.0, self.bits)];
        if part.bytes == 0 {
            return part.segment_length != 0;
        }
        let fingerprints = &self.bytes[part.start..part.start + part.bytes];
        let hash = mix(hash.0.wrapping_add(part.seed));
        let high = ((u128::from(hash) * u128::from(part.segment_count_length)) >> 64) as usize;
        let length = part.segment_length as usize;
        let mask = length - 1;
        let second = (high + length) ^ ((hash >> 18) as usize & mask);
        let third = (high + 2 * length) ^ (hash as usize & mask);
        let print = (hash ^ (hash >> 32)) as u8;
        print ^ fingerprints[high] ^ fingerprints[second] ^ fingerprints[third] == 0
    }

    /// Bytes it keeps in memory.
    pub(crate) fn resident_bytes(&self) -> usize {
        self.bytes.len() + self.parts.len() * size_of::<Part>()
    }
}

/// The 64-bit finaliser of murmur 3, which the fuse filter's construction uses.
fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(keys: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut builder = FilterBuilder::default();
        keys.for_each(|key| builder.push(KeyHash::of(&key.to_le_bytes())));
        let mut build = builder.build();
        while build.step() {}
        build.finish()
    }

    #[test]
    fn no_key_is_missed_and_few_strangers_pass() {
        for keys in [0, 1, 2, 3, 10, 1_000, 32_768, 32_769, 150_000] {
            let bytes = build(0..keys);
            let filter = Filter::parse(&bytes).unwrap();
            let asked = |key: u64| filter.may_contain(KeyHash::of(&key.to_le_bytes()));
            assert!((0..keys).all(asked), "{keys}");
            let passed = (keys..keys + 100_000).filter(|key| asked(*key)).count();
            assert!(passed < 800, "{passed} of 100,000 strangers pass at {keys} keys");
            if keys >= 1_000 {
                let bits = bytes.len() as f64 * 8.0 / keys as f64;
                assert!(bits < 12.0, "{bits} bits per key at {keys} keys");
            }
        }
    }

    #[test]
    fn versions_of_a_key_count_once() {
        assert_eq!(build((0..100).chain(0..100)), build(0..100));
    }

    #[test]
    fn the_layout_is_frozen() {
        assert_eq!(xxh3_64(&build(0..1_000)), 5_212_631_473_266_071_883);
    }

    #[test]
    fn hostile_bytes_are_safe() {
        let good = build(0..500);
        for at in 0..40 {
            for byte in [0, 1, 7, 17, 128, 255] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                if let Ok(filter) = Filter::parse(&bytes) {
                    for key in 0_u64..1_000 {
                        let _ = filter.may_contain(KeyHash::of(&key.to_le_bytes()));
                    }
                }
            }
        }
        assert!((0..good.len()).all(|bytes| Filter::parse(&good[..bytes]).is_err()));
    }
}
