//! The memtable: what has been applied and is not yet in a segment.
//!
//! Invariants:
//! - per key the newest version stands in the map itself; older ones exist only while a snapshot needs them,
//!   newest first; they die at insert, not at flush;
//! - keys and items are shared with readers, so nothing a reader holds changes or moves;
//! - no borrow outlives a call: cursors remember a key, not a place, and so survive any insert.
//!
//! A `BTreeMap` whose keys carry their first 16 bytes as a number: engine keys begin with a hash, so comparing
//! the numbers nearly always decides, within the node, without following the key's pointer.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::version::{Version, needed};
use crate::ids::{CommitTimestamp, LogSequence};

/// Charged for a key beside its bytes: the slot in the map's node at two thirds full, and the reference counts.
const KEY_OVERHEAD_BYTES: usize = 176;

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
    newest: Version,
    /// What snapshots still need, newest first.
    older: Vec<Version>,
}

/// The memtable of one tree.
pub struct Memtable {
    map: RefCell<BTreeMap<OwnedKey, Slot>>,
    bytes: Cell<usize>,
    entries: Cell<usize>,
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
            map: RefCell::new(BTreeMap::new()),
            bytes: Cell::new(0),
            entries: Cell::new(0),
            sequences: Cell::new(None),
            commits: Cell::new(None),
        }
    }

    /// Inserts a version that log batch `sequence` holds; versions that none of `snapshots` (sorted, least
    /// first) needs die here. The same version again replaces itself.
    pub fn insert(&self, key: &[u8], version: Version, sequence: LogSequence, snapshots: &[CommitTimestamp]) {
        widen(&self.sequences, sequence);
        widen(&self.commits, version.commit);
        let mut map = self.map.borrow_mut();
        let asked = AskedKey::new(key);
        let mut grown = 0;
        let mut shrunk = 0;
        match map.get_mut(&asked as &dyn Ordered) {
            None => {
                grown = cost(&version) + key.len() + KEY_OVERHEAD_BYTES;
                self.entries.set(self.entries.get() + 1);
                map.insert(
                    OwnedKey {
                        head: asked.head,
                        bytes: key.into(),
                    },
                    Slot {
                        newest: version,
                        older: Vec::new(),
                    },
                );
            }
            Some(slot) => {
                grown += cost(&version);
                let before = slot.older.len();
                for died in slot.insert(version, snapshots) {
                    shrunk += cost(&died);
                }
                self.entries.set(self.entries.get() + slot.older.len() - before);
            }
        }
        self.bytes.set(self.bytes.get() + grown - shrunk);
    }

    /// The newest version of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Version> {
        let map = self.map.borrow();
        map.get(&AskedKey::new(key) as &dyn Ordered)
            .map(|slot| slot.newest.clone())
    }

    /// The newest version of `key` that is not above `as_of`.
    pub fn get_as_of(&self, key: &[u8], as_of: CommitTimestamp) -> Option<Version> {
        let map = self.map.borrow();
        let slot = map.get(&AskedKey::new(key) as &dyn Ordered)?;
        slot.versions().find(|version| version.commit <= as_of).cloned()
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
        let map = self.map.borrow();
        let mut taken = 0;
        for (key, slot) in in_range(&map, lower, upper) {
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
        let map = self.map.borrow();
        let mut taken = 0;
        for (key, slot) in in_range(&map, lower, upper).rev() {
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
    map: &'a BTreeMap<OwnedKey, Slot>,
    lower: Bound<&[u8]>,
    upper: Bound<&[u8]>,
) -> impl DoubleEndedIterator<Item = (&'a OwnedKey, &'a Slot)> {
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

    /// Puts a version in its place; gives back those that nobody needs any more.
    fn insert(&mut self, version: Version, snapshots: &[CommitTimestamp]) -> Vec<Version> {
        // The usual case: newer than all, and no snapshot is open.
        if version.commit >= self.newest.commit && snapshots.is_empty() {
            let mut died = std::mem::take(&mut self.older);
            died.push(std::mem::replace(&mut self.newest, version));
            return died;
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
        died
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
