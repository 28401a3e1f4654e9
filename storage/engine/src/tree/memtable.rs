//! The memtable: what has been applied and is not yet in a segment.
//!
//! Invariants:
//! - per key the newest version stands in its slot; older ones exist only while a snapshot needs them, newest
//!   first; they die at insert, not at flush;
//! - the slot of a key is in the ordered map, and in the hash index unless another key of the same hash is;
//! - keys and items are shared with readers, so nothing a reader holds changes or moves;
//! - no borrow outlives a call: cursors remember a key, not a place, and so survive any insert.
//!
//! A hash index answers point reads with one probe, and "not here", the usual answer once a tree is larger than its
//! memtable, without touching a key. A `BTreeMap` gives the order; its keys carry their first 16 bytes as a number:
//! engine keys begin with a hash, so comparing the numbers nearly always decides within the node. Index and slots
//! grow in small parts: one large table would stop the shard while it is copied.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::rc::Rc;

use super::filter::KeyHash;
use super::version::{Version, needed};
use crate::ids::{CommitTimestamp, LogSequence};

/// Charged for a key beside its bytes: its slot, its places in the map's node (two thirds full) and in the index, the
/// reference counts and the allocator's headers.
const KEY_OVERHEAD_BYTES: usize = 240;

/// Slots that are allocated together.
const CHUNK_SLOTS: usize = 128;

/// Parts of the hash index, by the top bits of the hash.
const INDEX_PARTS: usize = 64;

/// Slots or keys that [`Memtable::discard`] frees at a time: some 20 us.
const DISCARD_TURN: usize = 256;

/// Charged for a version beside its item.
const VERSION_OVERHEAD_BYTES: usize = 32;

/// Length of the number that a key carries.
const HEAD_BYTES: usize = 16;

/// A key as it is compared: bytes in order, the first of them as a number.
trait Ordered {
    fn head(&self) -> u128;
    fn bytes(&self) -> &[u8];
}

/// Pads with zeros: a shorter key that is a prefix then ties or comes first, and ties are decided by the bytes.
fn head(key: &[u8]) -> u128 {
    if let Some(head) = key.first_chunk::<HEAD_BYTES>() {
        return u128::from_be_bytes(*head);
    }
    let mut bytes = [0; HEAD_BYTES];
    bytes[..key.len()].copy_from_slice(key);
    u128::from_be_bytes(bytes)
}

struct OwnedKey {
    head: u128,
    bytes: Rc<[u8]>,
}

struct AskedKey<'a> {
    head: u128,
    bytes: &'a [u8],
}

impl<'a> AskedKey<'a> {
    fn new(bytes: &'a [u8]) -> AskedKey<'a> {
        AskedKey {
            head: head(bytes),
            bytes,
        }
    }
}

impl Ordered for OwnedKey {
    fn head(&self) -> u128 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Ordered for AskedKey<'_> {
    fn head(&self) -> u128 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

impl<'a> Borrow<dyn Ordered + 'a> for OwnedKey {
    fn borrow(&self) -> &(dyn Ordered + 'a) {
        self
    }
}

impl Ord for dyn Ordered + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head()
            .cmp(&other.head())
            .then_with(|| self.bytes().cmp(other.bytes()))
    }
}

impl PartialOrd for dyn Ordered + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Ordered + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Ordered + '_ {}

impl Ord for OwnedKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let (this, other): (&dyn Ordered, &dyn Ordered) = (self, other);
        this.cmp(other)
    }
}

impl PartialOrd for OwnedKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OwnedKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OwnedKey {}

struct Slot {
    key: Rc<[u8]>,
    newest: Version,
    /// What snapshots still need, newest first.
    older: Vec<Version>,
}

/// Place of a slot.
#[derive(Clone, Copy)]
struct SlotNumber(u32);

/// Passes hashes through: they are hashes already.
#[derive(Default)]
struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("the index's keys are 64-bit numbers");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[expect(
    clippy::disallowed_types,
    reason = "its hasher is fixed, and nothing iterates over it"
)]
type Index = std::collections::HashMap<u64, SlotNumber, BuildHasherDefault<Through>>;

#[derive(Default)]
struct Table {
    ordered: BTreeMap<OwnedKey, SlotNumber>,
    /// Chunks of [`CHUNK_SLOTS`].
    slots: Vec<Vec<Slot>>,
    /// [`INDEX_PARTS`] once there is a slot.
    index: Vec<Index>,
}

impl Table {
    fn slot(&self, number: SlotNumber) -> &Slot {
        let number = number.0 as usize;
        &self.slots[number / CHUNK_SLOTS][number % CHUNK_SLOTS]
    }

    fn find(&self, hash: KeyHash, key: &[u8]) -> Option<SlotNumber> {
        let part = self.index.get(hash.part(INDEX_PARTS))?;
        let number = *part.get(&hash.number())?;
        if *self.slot(number).key == *key {
            return Some(number);
        }
        // Another key of the same hash was first.
        self.ordered.get(&AskedKey::new(key) as &dyn Ordered).copied()
    }

    fn add(&mut self, hash: KeyHash, key: &[u8], newest: Version) {
        if self.index.is_empty() {
            self.index.resize_with(INDEX_PARTS, Index::default);
        }
        if self.slots.last().is_none_or(|chunk| chunk.len() == CHUNK_SLOTS) {
            // The first chunk grows by itself: most partitions are small.
            let slots = if self.slots.is_empty() { 0 } else { CHUNK_SLOTS };
            self.slots.push(Vec::with_capacity(slots));
        }
        let last = self.slots.len() - 1;
        let number = last * CHUNK_SLOTS + self.slots[last].len();
        let number = SlotNumber(u32::try_from(number).expect("memtables hold fewer than 2^32 keys"));
        let key: Rc<[u8]> = key.into();
        self.slots[last].push(Slot {
            key: Rc::clone(&key),
            newest,
            older: Vec::new(),
        });
        self.index[hash.part(INDEX_PARTS)]
            .entry(hash.number())
            .or_insert(number);
        self.ordered.insert(
            OwnedKey {
                head: head(&key),
                bytes: key,
            },
            number,
        );
    }
}

/// The memtable of one tree.
pub struct Memtable {
    table: RefCell<Table>,
    bytes: Cell<usize>,
    entries: Cell<usize>,
    tombstones: Cell<usize>,
    sequences: Cell<Option<(LogSequence, LogSequence)>>,
    commits: Cell<Option<(CommitTimestamp, CommitTimestamp)>>,
}

impl Default for Memtable {
    fn default() -> Memtable {
        Memtable::new()
    }
}

impl Memtable {
    /// An empty memtable; allocates nothing until the first insert.
    #[must_use]
    pub fn new() -> Memtable {
        Memtable {
            table: RefCell::default(),
            bytes: Cell::new(0),
            entries: Cell::new(0),
            tombstones: Cell::new(0),
            sequences: Cell::new(None),
            commits: Cell::new(None),
        }
    }

    /// Inserts a version that log batch `sequence` holds; versions that none of `snapshots` (sorted, least
    /// first) needs die here. The same version again replaces itself.
    pub fn insert(&self, key: &[u8], version: Version, sequence: LogSequence, snapshots: &[CommitTimestamp]) {
        widen(&self.sequences, sequence);
        widen(&self.commits, version.commit);
        self.tombstones
            .set(self.tombstones.get() + usize::from(version.is_tombstone()));
        let mut table = self.table.borrow_mut();
        let hash = KeyHash::of(key);
        let grown = cost(&version);
        let Some(number) = table.find(hash, key) else {
            self.bytes
                .set(self.bytes.get() + grown + key.len() + KEY_OVERHEAD_BYTES);
            self.entries.set(self.entries.get() + 1);
            return table.add(hash, key, version);
        };
        let number = number.0 as usize;
        let slot = &mut table.slots[number / CHUNK_SLOTS][number % CHUNK_SLOTS];
        let before = slot.older.len();
        let shrunk = slot.insert(version, snapshots);
        self.entries.set(self.entries.get() + slot.older.len() - before);
        self.bytes.set(self.bytes.get() + grown - shrunk);
    }

    /// The newest version of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Version> {
        self.get_hashed(KeyHash::of(key), key)
    }

    pub(crate) fn get_hashed(&self, hash: KeyHash, key: &[u8]) -> Option<Version> {
        let table = self.table.borrow();
        let number = table.find(hash, key)?;
        Some(table.slot(number).newest.clone())
    }

    /// The newest version of `key` that is not above `as_of`.
    pub fn get_as_of(&self, key: &[u8], as_of: CommitTimestamp) -> Option<Version> {
        let table = self.table.borrow();
        let number = table.find(KeyHash::of(key), key)?;
        table
            .slot(number)
            .versions()
            .find(|version| version.commit <= as_of)
            .cloned()
    }

    /// Frees a part of a memtable that nobody reads any more; whether there is more. Freeing all at once would
    /// stop the shard: 100,000 items take some 10 ms.
    pub(crate) fn discard(&self) -> bool {
        let mut table = self.table.borrow_mut();
        if table.index.pop().is_some() {
            return true;
        }
        for _ in 0..DISCARD_TURN / CHUNK_SLOTS {
            table.slots.pop();
        }
        (0..DISCARD_TURN).all(|_| table.ordered.pop_last().is_some()) || !table.slots.is_empty()
    }

    /// Bytes in memory, overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Versions held.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.get()
    }

    /// Tombstones that were inserted, gone ones included.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.tombstones.get()
    }

    /// Whether nothing was ever inserted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.get() == 0
    }

    /// First and last log batch that holds an insert.
    #[must_use]
    pub fn sequences(&self) -> Option<(LogSequence, LogSequence)> {
        self.sequences.get()
    }

    /// Least and greatest version inserted.
    #[must_use]
    pub fn commits(&self) -> Option<(CommitTimestamp, CommitTimestamp)> {
        self.commits.get()
    }

    /// Appends to `into`, ascending, at most about `entries_max` versions from `lower` on that `upper`
    /// allows; never a part of a key's versions. Whether that was all of them.
    pub(crate) fn batch_forward(
        &self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        entries_max: usize,
        into: &mut impl Extend<(Rc<[u8]>, Version)>,
    ) -> bool {
        let table = self.table.borrow();
        let mut taken = 0;
        for (key, number) in in_range(&table.ordered, lower, upper) {
            let slot = table.slot(*number);
            if taken >= entries_max {
                return false;
            }
            taken += 1 + slot.older.len();
            into.extend(
                slot.versions()
                    .map(|version| (Rc::clone(&key.bytes), version.clone())),
            );
        }
        true
    }

    /// As [`Memtable::batch_forward`], descending from `upper`, the oldest version of a key first.
    pub(crate) fn batch_backward(
        &self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
        entries_max: usize,
        into: &mut impl Extend<(Rc<[u8]>, Version)>,
    ) -> bool {
        let table = self.table.borrow();
        let mut taken = 0;
        for (key, number) in in_range(&table.ordered, lower, upper).rev() {
            let slot = table.slot(*number);
            if taken >= entries_max {
                return false;
            }
            taken += 1 + slot.older.len();
            let versions = slot.older.iter().rev().chain([&slot.newest]);
            into.extend(versions.map(|version| (Rc::clone(&key.bytes), version.clone())));
        }
        true
    }
}

fn in_range<'a>(
    map: &'a BTreeMap<OwnedKey, SlotNumber>,
    lower: Bound<&[u8]>,
    upper: Bound<&[u8]>,
) -> impl DoubleEndedIterator<Item = (&'a OwnedKey, &'a SlotNumber)> {
    // `BTreeMap::range` refuses ranges that are empty by their bounds.
    let empty = is_empty_range(lower, upper);
    let (lower, upper) = (lower.map(AskedKey::new), upper.map(AskedKey::new));
    let bounds: (Bound<&dyn Ordered>, Bound<&dyn Ordered>) = (as_ordered(&lower), as_ordered(&upper));
    (!empty)
        .then(|| map.range::<dyn Ordered, _>(bounds))
        .into_iter()
        .flatten()
}

fn as_ordered<'a>(bound: &'a Bound<AskedKey<'a>>) -> Bound<&'a dyn Ordered> {
    bound.as_ref().map(|key| key as &dyn Ordered)
}

/// Whether no key can lie between the bounds.
pub(crate) fn is_empty_range(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> bool {
    match (lower, upper) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower >= upper,
    }
}

impl Slot {
    fn versions(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.newest).chain(&self.older)
    }

    /// Puts a version in its place; the cost of those that died because nobody needs them any more.
    fn insert(&mut self, version: Version, snapshots: &[CommitTimestamp]) -> usize {
        // The usual case: newer than all, and no snapshot is open.
        if version.commit >= self.newest.commit && snapshots.is_empty() {
            let died = std::mem::replace(&mut self.newest, version);
            return cost(&died) + self.older.drain(..).map(|died| cost(&died)).sum::<usize>();
        }
        let mut versions = std::mem::take(&mut self.older);
        versions.push(self.newest.clone());
        let same = versions.iter().position(|other| other.commit == version.commit);
        let mut died: Vec<Version> = same.map(|at| versions.swap_remove(at)).into_iter().collect();
        versions.push(version);
        versions.sort_by_key(|version| std::cmp::Reverse(version.commit));
        let mut newer = versions[0].commit;
        let mut kept = Vec::new();
        for version in versions.drain(1..) {
            let keep = needed(snapshots, version.commit, newer);
            newer = version.commit;
            if keep {
                kept.push(version)
            } else {
                died.push(version)
            }
        }
        self.newest = versions.pop().expect("one version was inserted");
        self.older = kept;
        died.iter().map(cost).sum()
    }
}

fn cost(version: &Version) -> usize {
    version.item.len() + VERSION_OVERHEAD_BYTES
}

fn widen<T: Copy + Ord>(range: &Cell<Option<(T, T)>>, value: T) {
    let (least, greatest) = range.get().unwrap_or((value, value));
    range.set(Some((least.min(value), greatest.max(value))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::version::NEWEST;

    fn put(commit: u64) -> Version {
        Version::put(CommitTimestamp(commit), 1, &commit.to_le_bytes()[..])
    }

    fn insert(memtable: &Memtable, key: &str, commit: u64, snapshots: &[u64]) {
        let snapshots: Vec<_> = snapshots.iter().copied().map(CommitTimestamp).collect();
        memtable.insert(key.as_bytes(), put(commit), LogSequence(commit), &snapshots);
    }

    fn versions(memtable: &Memtable, backward: bool) -> String {
        let mut found = Vec::new();
        let (lower, upper) = (Bound::Unbounded, Bound::Unbounded);
        let all = if backward {
            memtable.batch_backward(lower, upper, usize::MAX, &mut found)
        } else {
            memtable.batch_forward(lower, upper, usize::MAX, &mut found)
        };
        assert!(all);
        let show = |(key, version): &(Rc<[u8]>, Version)| {
            format!("{}{}", String::from_utf8_lossy(key), version.commit)
        };
        found.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn versions_that_no_snapshot_needs_die_at_insert() {
        let memtable = Memtable::new();
        for commit in 1..=9 {
            insert(&memtable, "a", commit, &[]);
        }
        assert_eq!(versions(&memtable, false), "a9");
        insert(&memtable, "a", 12, &[10]);
        insert(&memtable, "a", 14, &[10]);
        insert(&memtable, "a", 16, &[10, 15]);
        assert_eq!(versions(&memtable, false), "a16 a14 a9");
        assert_eq!(versions(&memtable, true), "a9 a14 a16");
        let commit = |as_of| {
            memtable
                .get_as_of(b"a", CommitTimestamp(as_of))
                .map(|version| version.commit.0)
        };
        assert_eq!(
            [8, 10, 14, 15, 20].map(commit),
            [None, Some(9), Some(14), Some(14), Some(16)]
        );
        assert_eq!(memtable.get_as_of(b"a", NEWEST), memtable.get(b"a"));
        insert(&memtable, "a", 20, &[]);
        assert_eq!(
            (versions(&memtable, false).as_str(), memtable.entries()),
            ("a20", 1)
        );
    }

    #[test]
    fn the_same_version_again_changes_nothing() {
        let memtable = Memtable::new();
        insert(&memtable, "a", 5, &[]);
        let bytes = memtable.bytes();
        insert(&memtable, "a", 5, &[]);
        insert(&memtable, "a", 5, &[7]);
        assert_eq!(
            (versions(&memtable, false).as_str(), memtable.bytes()),
            ("a5", bytes)
        );
        insert(&memtable, "a", 3, &[]);
        assert_eq!(
            (versions(&memtable, false).as_str(), memtable.bytes()),
            ("a5", bytes)
        );
        assert_eq!(memtable.sequences(), Some((LogSequence(3), LogSequence(5))));
    }

    #[test]
    fn keys_of_one_hash_are_kept_apart() {
        let mut table = Table::default();
        let hash = KeyHash::of(b"any");
        let keys: [&[u8]; 3] = [b"one", b"two", b"three"];
        for (commit, key) in (1..).zip(keys) {
            assert!(table.find(hash, key).is_none());
            table.add(hash, key, put(commit));
        }
        for (commit, key) in (1..).zip(keys) {
            let number = table.find(hash, key).unwrap();
            assert_eq!(table.slot(number).newest, put(commit));
        }
        assert!(table.find(hash, b"four").is_none());
    }

    #[test]
    fn a_memtable_is_freed_in_turns() {
        let memtable = Memtable::new();
        for commit in 1..=5_000 {
            insert(&memtable, &commit.to_string(), commit, &[]);
        }
        let turns = (0..).take_while(|_| memtable.discard()).count();
        assert!((20..200).contains(&turns), "{turns}");
        let table = memtable.table.borrow();
        assert!(table.ordered.is_empty() && table.slots.is_empty() && table.index.is_empty());
    }

    #[test]
    fn keys_are_ordered_as_bytes_whatever_their_length() {
        let mut keys: Vec<Vec<u8>> = vec![b"a".to_vec(), b"a\0".to_vec(), b"a\0\0".to_vec(), b"b".to_vec()];
        for length in [14, 15, 16, 17, 18, 40] {
            keys.push(vec![b'a'; length]);
            keys.push([vec![b'a'; length], vec![0]].concat());
            keys.push([vec![b'a'; length], vec![255]].concat());
        }
        let memtable = Memtable::new();
        for (commit, key) in (1..).zip(&keys) {
            memtable.insert(key, put(commit), LogSequence(1), &[]);
        }
        for (commit, key) in (1..).zip(&keys) {
            assert_eq!(memtable.get(key), Some(put(commit)));
        }
        let mut found: Vec<(Rc<[u8]>, Version)> = Vec::new();
        memtable.batch_forward(Bound::Unbounded, Bound::Unbounded, usize::MAX, &mut found);
        keys.sort();
        assert!(
            found
                .iter()
                .map(|(key, _)| &**key)
                .eq(keys.iter().map(|key| &**key))
        );
        for lower in &keys {
            for upper in &keys {
                let expected = keys.iter().filter(|key| lower < *key && *key <= upper).count();
                let mut found: Vec<(Rc<[u8]>, Version)> = Vec::new();
                memtable.batch_forward(
                    Bound::Excluded(lower),
                    Bound::Included(upper),
                    usize::MAX,
                    &mut found,
                );
                assert_eq!(found.len(), expected);
            }
        }
    }
}
