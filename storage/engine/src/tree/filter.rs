//! Filters: whether a segment can hold a key, or any key of an item collection, at all.
//!
//! A key is known by the hash of its bytes without its version. What all keys of one partition key begin with, space and
//! the partition key's own hash, is its **group**: a Query asks for it and skips the segments that have none of it. Where
//! every key is all of its group, as in a table without sort key, the groups alone are in the filter and answer for
//! keys as well; else both are, and cost both.
//!
//! Binary fuse filters with 8-bit fingerprints: 9 to 10 bits per key, 0.4 % false positives, three loads per
//! question. Building one takes 28 ns per key without a pause, so the hashes are cut by their top bits into parts of
//! at most [`PART_KEYS`] and the builder yields between parts.
//!
//! ```text
//!  0 | part bits u8 | holds u8: 1 keys, 2 groups, 3 both | 0, 6 bytes
//!  8 | per part: seed u64 | segment length u32 | segment count length u32 | fingerprints u32 | 0 u32
//!    | fingerprints of the parts, one after the other
//! ```
//!
//! A part without fingerprints answers "perhaps" (it could not be built); a part whose segment length is 0
//! holds no key and answers no.

use xorf::{BinaryFuse8, DmaSerializable};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

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

/// Bytes of a group: space and hash of the partition key, see `cairn_item::StorageKey`.
const GROUP_BYTES: usize = 9;

/// Ends a component of a key.
const TERMINATOR: [u8; 2] = [0x00, 0x01];

/// Keeps the hashes of groups apart from those of keys.
const GROUP_SEED: u64 = 1;

const HOLDS_KEYS: u8 = 1;
const HOLDS_GROUPS: u8 = 2;

/// What filters know a group by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHash(u64);

impl GroupHash {
    /// Of the group that `key` is in. What is shorter than a group is one by itself.
    pub(crate) fn of(key: &[u8]) -> GroupHash {
        GroupHash(xxh3_64_with_seed(group(key), GROUP_SEED))
    }

    /// Of the one group that every key from `lower` to `upper` is in, if there is one.
    pub(crate) fn of_range(lower: &[u8], upper: &[u8]) -> Option<GroupHash> {
        let same = lower.len() >= GROUP_BYTES && upper.get(..GROUP_BYTES) == lower.get(..GROUP_BYTES);
        same.then(|| GroupHash::of(lower))
    }
}

fn group(key: &[u8]) -> &[u8] {
    &key[..key.len().min(GROUP_BYTES)]
}

/// Whether no other key of its partition key can be: it ends with the partition key.
fn is_whole_group(key: &[u8]) -> bool {
    let Some(components) = key.get(GROUP_BYTES..) else {
        return false;
    };
    let first_end = components.windows(2).position(|pair| pair == TERMINATOR);
    first_end.is_some_and(|at| at + TERMINATOR.len() == components.len())
}

/// Gathers the hashes of a segment's keys.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    keys: Vec<u64>,
    groups: Vec<u64>,
    last_group: Vec<u8>,
    /// Every key so far is all of its group.
    whole_groups: bool,
}

impl Default for FilterBuilder {
    fn default() -> FilterBuilder {
        FilterBuilder {
            keys: Vec::new(),
            groups: Vec::new(),
            last_group: Vec::new(),
            whole_groups: true,
        }
    }
}

impl FilterBuilder {
    /// Adds a key; they come in order.
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.keys.push(KeyHash::of(key).0);
        if self.groups.is_empty() || self.last_group != group(key) {
            self.groups.push(GroupHash::of(key).0);
            self.last_group.clear();
            self.last_group.extend_from_slice(group(key));
        }
        self.whole_groups = self.whole_groups && is_whole_group(key);
    }

    /// The work of building, part by part.
    pub(crate) fn build(self) -> FilterBuild {
        let mut hashes = self.groups;
        let mut holds = HOLDS_GROUPS;
        if !self.whole_groups {
            hashes.extend(self.keys);
            holds |= HOLDS_KEYS;
        }
        hashes.sort_unstable();
        hashes.dedup();
        let parts = hashes.len().div_ceil(PART_KEYS).next_power_of_two();
        let bits = parts.trailing_zeros().min(PART_BITS_MAX);
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = u8::try_from(bits).expect("at most PART_BITS_MAX");
        bytes[1] = holds;
        FilterBuild {
            hashes,
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
    holds: u8,
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
        let holds = *bytes.get(1).ok_or(impossible)?;
        if bits > PART_BITS_MAX || !(HOLDS_KEYS..=HOLDS_KEYS | HOLDS_GROUPS).contains(&holds) {
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
            holds,
            parts: parts.into(),
            bytes: bytes.into(),
        })
    }

    /// Whether `key`, of which `hash` is, may be there; false is certain.
    pub(crate) fn may_contain(&self, key: &[u8], hash: KeyHash) -> bool {
        if self.holds & HOLDS_KEYS == 0 {
            self.may_hold(GroupHash::of(key).0)
        } else {
            self.may_hold(hash.0)
        }
    }

    /// Whether any key of the group may be there; false is certain.
    pub(crate) fn may_contain_group(&self, group: GroupHash) -> bool {
        self.holds & HOLDS_GROUPS == 0 || self.may_hold(group.0)
    }

    fn may_hold(&self, hash: u64) -> bool {
        let part = &self.parts[part_of(hash, self.bits)];
        if part.bytes == 0 {
            return part.segment_length != 0;
        }
        let fingerprints = &self.bytes[part.start..part.start + part.bytes];
        let hash = mix(hash.wrapping_add(part.seed));
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

    fn build(keys: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut builder = FilterBuilder::default();
        keys.for_each(|key| builder.push(&key));
        let mut build = builder.build();
        while build.step() {}
        build.finish()
    }

    fn hashed(number: u64) -> Vec<u8> {
        [&[1], &xxh3_64(&number.to_le_bytes()).to_be_bytes()[..]].concat()
    }

    /// A key without a sort key.
    fn whole(number: u64) -> Vec<u8> {
        [
            &hashed(number),
            &number.to_le_bytes().map(|byte| byte | 1)[..],
            &TERMINATOR,
        ]
        .concat()
    }

    /// A key of a collection of `items`.
    fn of_collection(number: u64, items: u64) -> Vec<u8> {
        let sort = format!("{:08}", number % items);
        [&whole(number / items), sort.as_bytes(), &TERMINATOR].concat()
    }

    fn parse(bytes: &[u8]) -> Filter {
        Filter::parse(bytes).unwrap()
    }

    #[test]
    fn no_key_and_no_group_is_missed_and_few_strangers_pass() {
        type Key = fn(u64) -> Vec<u8>;
        let shapes: [(Key, f64); 3] = [
            (whole, 12.0),
            (|number| of_collection(number, 1), 24.0),
            (|number| of_collection(number, 100), 13.0),
        ];
        for (key, bits_max) in shapes {
            for keys in [0, 1, 2, 3, 10, 1_000, 32_768, 32_769, 100_000] {
                let bytes = build((0..keys).map(key));
                let filter = parse(&bytes);
                let asked = |number: u64| filter.may_contain(&key(number), KeyHash::of(&key(number)));
                let group = |number: u64| filter.may_contain_group(GroupHash::of(&key(number)));
                assert!((0..keys).all(|number| asked(number) && group(number)), "{keys}");
                let passed = (keys + 100..keys + 100_000).filter(|key| asked(*key)).count();
                assert!(passed < 800, "{passed} of 100,000 strangers pass at {keys} keys");
                let groups = (keys + 100..keys + 1_000_000).step_by(100);
                let passed = groups.filter(|number| group(*number)).count();
                assert!(
                    passed < 120,
                    "{passed} of 10,000 strange groups pass at {keys} keys"
                );
                if keys >= 1_000 {
                    let bits = bytes.len() as f64 * 8.0 / keys as f64;
                    assert!(bits < bits_max, "{bits} bits per key at {keys} keys");
                }
            }
        }
    }

    #[test]
    fn a_strange_sort_key_of_a_known_partition_key_does_not_pass() {
        let even = (0..10_000).map(|number| of_collection(number * 2, 1_000));
        let filter = parse(&build(even));
        let odd = (0..10_000).map(|number| of_collection(number * 2 + 1, 1_000));
        let passed = odd
            .filter(|key| filter.may_contain(key, KeyHash::of(key)))
            .count();
        assert!(passed < 100, "{passed}");
    }

    #[test]
    fn one_group_is_all_of_a_range_or_none() {
        let (one, other) = (whole(1), whole(2));
        let end = |key: &[u8]| [&key[..key.len() - 1], &[2][..]].concat();
        assert_eq!(GroupHash::of_range(&one, &end(&one)), Some(GroupHash::of(&one)));
        assert_eq!(
            GroupHash::of_range(&hashed(1), &end(&one)),
            Some(GroupHash::of(&one))
        );
        assert_eq!(GroupHash::of_range(&one, &other), None);
        assert_eq!(GroupHash::of_range(&one[..8], &one), None);
        assert_eq!(GroupHash::of_range(&one, &one[..8]), None);
        assert_eq!(GroupHash::of_range(b"", b""), None);
    }

    #[test]
    fn what_ends_with_its_partition_key_is_all_of_its_group() {
        let escaped = [&hashed(1), &[b'a', 0, 0xff, 1][..], &TERMINATOR].concat();
        for (key, expected) in [
            (whole(3), true),
            (escaped, true),
            (of_collection(3, 10), false),
            (hashed(1), false),
            (b"short".to_vec(), false),
            (Vec::new(), false),
            ([&hashed(1), &b"open"[..]].concat(), false),
        ] {
            assert_eq!(is_whole_group(&key), expected, "{}", key.escape_ascii());
        }
    }

    #[test]
    fn versions_of_a_key_count_once() {
        let twice = (0..100).flat_map(|number| [whole(number), whole(number)]);
        assert_eq!(build(twice), build((0..100).map(whole)));
    }

    #[test]
    fn the_layout_is_frozen() {
        let sums = [
            xxh3_64(&build((0..1_000).map(whole))),
            xxh3_64(&build((0..1_000).map(|number| of_collection(number, 10)))),
        ];
        assert_eq!(sums, [10_005_344_182_120_464_092, 2_203_319_403_382_876_813]);
    }

    #[test]
    fn hostile_bytes_are_safe() {
        let good = build((0..500).map(whole));
        for at in 0..40 {
            for byte in [0, 1, 2, 3, 4, 7, 17, 128, 255] {
                let mut bytes = good.clone();
                bytes[at] = byte;
                if let Ok(filter) = Filter::parse(&bytes) {
                    for number in 0..1_000 {
                        let key = whole(number);
                        let _ = filter.may_contain(&key, KeyHash::of(&key));
                        let _ = filter.may_contain_group(GroupHash::of(&key));
                    }
                }
            }
        }
        assert!((0..good.len()).all(|bytes| Filter::parse(&good[..bytes]).is_err()));
    }
}
