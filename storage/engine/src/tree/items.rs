//! The cache of items of a shard: the newest versions that point reads have found in segments, each by itself.
//!
//! A block holds one item that is asked for among others that are not, and a compaction puts other blocks in the place of all that are
//! cached. An item by itself takes its own bytes and stays what it is whatever segment it moves to.
//!
//! **An entry is the newest version of its key that its tree has applied.** Three things keep it so:
//! 1. *A version that is applied takes the entry's place*, or removes it when it is a tombstone or too large:
//!    [`ItemCache::applied`], in the same step in which it enters the active memtable. So flush and compaction change nothing: what
//!    they write is what was applied. A key that has no entry gets none: only reads say what is worth keeping.
//! 2. *A read that has waited for a drive may be late.* What it found was the newest when it began: no memtable had the key. It
//!    enters only if the tree's view is still the one it began with and the active memtable does not have the key. A
//!    memtable begins to be flushed, ends, and is dropped with its partition by another view, and by nothing else; so with the same view
//!    everything that was applied meanwhile is in the active memtable.
//! 3. *A tree's entries are under a number that no other tree ever has*, and it takes another number when its partition is dropped.
//!
//! So it does not matter whether the memtables or the cache are asked first; the memtables are, as what they have is then not
//! counted as worth keeping. What is trimmed ([`super::Tree::trim`]) is neither answered nor kept, as if there were no cache. A read as of
//! a timestamp, a scan, a flush and a compaction neither ask nor fill it. Absence is not kept: filters tell it. An incomplete tree may
//! keep a version that one of its missing segments has a newer one of, as it answers it: it does not serve.
//!
//! The key of an entry is the key's 64-bit hash; the bytes of the key stand before the item's and are compared, so that two keys of one
//! hash only take the place from each other. A hit is one probe and allocates nothing.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::cache::FixedState;
use super::filter::KeyHash;
use super::version::{ItemHandle, Version};
use crate::canary::{self, Canary};
use crate::ids::CommitTimestamp;
use crate::mutation::{MutationKind, Provenance};

/// Longest item that is kept, in bytes, archived: of a longer one a read costs no more than the drive's work for its bytes, and it would
/// take the place of many.
pub const CACHED_ITEM_BYTES_MAX: usize = 16 << 10;

/// Charged for an entry beside its key and its item: its slot, its place in the table, what is remembered of one that has gone, the
/// reference counts and the allocator's header.
const ENTRY_BYTES: u64 = 160;

/// Bytes of a usual entry, by which the table is sized: more entries only make it grow.
const USUAL_BYTES: u64 = 1_280;

/// What a tree's entries are found under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TreeNumber(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct EntryKey {
    tree: TreeNumber,
    hash: u64,
}

/// A version that is not a tombstone.
struct Entry {
    /// The key, then the archived item.
    bytes: Rc<[u8]>,
    key_bytes: u32,
    item_bytes: u32,
    commit: CommitTimestamp,
    provenance: Option<Rc<Provenance>>,
}

impl Entry {
    /// None of what is not kept. The bytes come together in `scratch`.
    fn of(scratch: &mut Vec<u8>, key: &[u8], version: &Version) -> Option<Entry> {
        if version.is_tombstone() || version.item.len() > CACHED_ITEM_BYTES_MAX {
            return None;
        }
        scratch.clear();
        scratch.extend_from_slice(key);
        scratch.extend_from_slice(&version.item);
        Some(Entry {
            bytes: Rc::from(scratch.as_slice()),
            key_bytes: u32::try_from(key.len()).ok()?,
            item_bytes: version.item_bytes,
            commit: version.commit,
            provenance: version.provenance.clone(),
        })
    }

    fn is_of(&self, key: &[u8]) -> bool {
        self.bytes[..self.key_bytes as usize] == *key
    }

    fn version(&self) -> Version {
        let (start, end) = (self.key_bytes as usize, self.bytes.len());
        Version {
            commit: self.commit,
            kind: MutationKind::Put,
            item_bytes: self.item_bytes,
            provenance: self.provenance.clone(),
            item: ItemHandle::part(Rc::clone(&self.bytes), start, end),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct EntryWeight;

impl Weighter<EntryKey, Entry> for EntryWeight {
    fn weight(&self, _: &EntryKey, entry: &Entry) -> u64 {
        entry.bytes.len() as u64 + ENTRY_BYTES
    }
}

type Entries = Cache<EntryKey, Entry, EntryWeight, FixedState, DefaultLifecycle<EntryKey, Entry>>;

/// The cache of items of a shard.
pub struct ItemCache {
    entries: RefCell<Entries>,
    /// Of a key and an item, at most.
    scratch: RefCell<Vec<u8>>,
    trees: Cell<u64>,
}

impl ItemCache {
    /// A cache of at most `budget_bytes`; with none it keeps nothing.
    #[must_use]
    pub fn new(budget_bytes: u64) -> ItemCache {
        let usual = usize::try_from(budget_bytes / USUAL_BYTES).expect("fits memory");
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usual.max(16))
            .weight_capacity(budget_bytes)
            .build()
            .expect("both capacities are set");
        let mut entries = Cache::with_options(options, EntryWeight, FixedState, DefaultLifecycle::default());
        // A table of many entries that has to grow would stop the shard while it is copied.
        entries.reserve(usual);
        ItemCache {
            entries: RefCell::new(entries),
            scratch: RefCell::default(),
            trees: Cell::new(0),
        }
    }

    /// A number that no tree has had.
    pub(crate) fn number_tree(&self) -> TreeNumber {
        self.trees.set(self.trees.get() + 1);
        TreeNumber(self.trees.get())
    }

    /// The newest version of `key`, if it is kept.
    pub(crate) fn get(&self, tree: TreeNumber, hash: KeyHash, key: &[u8]) -> Option<Version> {
        let entries = self.entries.borrow();
        let hash = hash.number();
        let entry = entries.get(&EntryKey { tree, hash })?;
        entry.is_of(key).then(|| entry.version())
    }

    /// Keeps the newest version of `key`, which a read has found; a tombstone and what is too large it does not.
    pub(crate) fn keep(&self, tree: TreeNumber, hash: KeyHash, key: &[u8], version: &Version) {
        let mut entries = self.entries.borrow_mut();
        if entries.capacity() > 0
            && let Some(entry) = Entry::of(&mut self.scratch.borrow_mut(), key, version)
        {
            let hash = hash.number();
            entries.insert(EntryKey { tree, hash }, entry);
        }
    }

    /// `version` of `key` is applied: what was kept of the key is not the newest any more.
    pub(crate) fn applied(&self, tree: TreeNumber, key: &[u8], version: &Version) {
        let mut entries = self.entries.borrow_mut();
        if entries.is_empty() || canary::is_in(Canary::StaleCachedItem) {
            return;
        }
        let hash = KeyHash::of(key).number();
        let place = EntryKey { tree, hash };
        let Some(entry) = entries.peek(&place) else { return };
        // Of two keys of one hash, and were a version ever older, nothing is kept.
        let newer = entry.is_of(key) && entry.commit <= version.commit;
        match newer
            .then(|| Entry::of(&mut self.scratch.borrow_mut(), key, version))
            .flatten()
        {
            Some(entry) => entries.insert(place, entry),
            None => drop(entries.remove(&place)),
        }
    }

    /// Bytes charged at present.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.borrow().weight()
    }

    /// The budget.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.entries.borrow().capacity()
    }

    /// Changes the budget, evicting what no longer fits.
    pub fn set_budget(&self, budget_bytes: u64) {
        self.entries.borrow_mut().set_capacity(budget_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(commit: u64, length: usize) -> Version {
        Version::put(CommitTimestamp(commit), 7, &vec![commit as u8; length][..])
    }

    fn get(cache: &ItemCache, tree: TreeNumber, key: &[u8]) -> Option<Version> {
        cache.get(tree, KeyHash::of(key), key)
    }

    fn keep(cache: &ItemCache, tree: TreeNumber, key: &[u8], version: &Version) {
        cache.keep(tree, KeyHash::of(key), key, version);
    }

    #[test]
    fn what_is_applied_takes_the_place_of_what_was_kept() {
        let cache = ItemCache::new(1 << 20);
        let (tree, other) = (cache.number_tree(), cache.number_tree());
        cache.applied(tree, b"a", &version(1, 100));
        assert_eq!(get(&cache, tree, b"a"), None, "only reads say what is kept");
        keep(&cache, tree, b"a", &version(1, 100));
        assert_eq!(get(&cache, tree, b"a"), Some(version(1, 100)));
        assert_eq!(get(&cache, other, b"a"), None);
        assert_eq!(get(&cache, tree, b""), None);
        cache.applied(other, b"a", &version(2, 100));
        assert_eq!(get(&cache, tree, b"a"), Some(version(1, 100)));
        cache.applied(tree, b"a", &version(3, 0));
        assert_eq!(get(&cache, tree, b"a"), Some(version(3, 0)));
        cache.applied(tree, b"a", &Version::tombstone(CommitTimestamp(4)));
        assert_eq!((get(&cache, tree, b"a"), cache.bytes()), (None, 0));
        keep(&cache, tree, b"a", &Version::tombstone(CommitTimestamp(4)));
        keep(&cache, tree, b"a", &version(4, CACHED_ITEM_BYTES_MAX + 1));
        assert_eq!((get(&cache, tree, b"a"), cache.bytes()), (None, 0));
        keep(&cache, tree, b"a", &version(4, CACHED_ITEM_BYTES_MAX));
        assert!(get(&cache, tree, b"a").is_some());
        cache.applied(tree, b"a", &version(5, CACHED_ITEM_BYTES_MAX + 1));
        assert_eq!(get(&cache, tree, b"a"), None);
        // An older one is not believed, and what it contradicts is not either.
        keep(&cache, tree, b"a", &version(9, 10));
        cache.applied(tree, b"a", &version(8, 10));
        assert_eq!(get(&cache, tree, b"a"), None);
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let cache = ItemCache::new(1 << 20);
        let tree = cache.number_tree();
        let hash = KeyHash::of(b"one");
        cache.keep(tree, hash, b"one", &version(1, 10));
        assert_eq!(cache.get(tree, hash, b"other"), None);
        assert_eq!(cache.get(tree, hash, b"on"), None);
        cache.keep(tree, hash, b"other", &version(2, 10));
        assert_eq!(cache.get(tree, hash, b"one"), None);
        assert_eq!(cache.get(tree, hash, b"other"), Some(version(2, 10)));
        // What is kept under the hash of a key that changes goes, whichever key's it is.
        cache.applied(tree, b"one", &version(3, 10));
        assert_eq!(cache.get(tree, hash, b"one"), None);
        assert_eq!(cache.get(tree, hash, b"other"), None);
    }

    #[test]
    fn provenance_is_kept() {
        let cache = ItemCache::new(1 << 20);
        let tree = cache.number_tree();
        let provenance = Provenance {
            region: crate::mutation::RegionId(8),
            ..Provenance::default()
        };
        let with = version(1, 10).with_provenance(provenance);
        keep(&cache, tree, b"key", &with);
        assert_eq!(get(&cache, tree, b"key"), Some(with));
    }

    #[test]
    fn the_budget_holds_and_hits_are_shared() {
        let cache = ItemCache::new(1 << 20);
        let tree = cache.number_tree();
        for number in 0..20_000_u64 {
            let length = [10, 900, 16_000][number as usize % 3];
            keep(&cache, tree, &number.to_le_bytes(), &version(number, length));
            cache.applied(tree, &number.to_le_bytes(), &version(number + 1, length / 2));
            assert!(cache.bytes() <= cache.budget_bytes());
        }
        keep(&cache, tree, b"key", &version(1, 10));
        let pointer = || get(&cache, tree, b"key").unwrap().item.as_ptr();
        assert_eq!(pointer(), pointer());
        cache.set_budget(0);
        assert_eq!(cache.bytes(), 0);
        keep(&cache, tree, b"key", &version(1, 10));
        assert_eq!((get(&cache, tree, b"key"), cache.bytes()), (None, 0));
    }

    #[test]
    fn what_is_asked_for_again_outlives_what_is_asked_for_once() {
        let cache = ItemCache::new(1 << 20);
        let tree = cache.number_tree();
        let read = |key: u64| {
            let hit = get(&cache, tree, &key.to_le_bytes()).is_some();
            if !hit {
                keep(&cache, tree, &key.to_le_bytes(), &version(key, 900));
            }
            hit
        };
        for _ in 0..4 {
            assert_eq!((0..400).filter(|key| read(*key)).count() % 400, 0);
        }
        assert_eq!((1_000..40_000).filter(|key| read(*key)).count(), 0);
        let kept = (0..400).filter(|key| read(*key)).count();
        assert!(kept > 360, "{kept} of 400 items are left");
    }
}
