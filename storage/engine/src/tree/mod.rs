//! The tree: one LSM tree per partition.
//!
//! Read in this order:
//! - [`version`]: what a reader gets; [`memtable`]: what is not yet in a segment;
//! - [`codec`], [`block`], [`filter`], [`segment`]: the files, written and read;
//! - [`store`], [`cache`] and [`items`]: what the trees of one engine share;
//! - [`view`], [`merge`], [`scan`]: many sources as one;
//! - [`compaction`] and [`pace`]: what keeps the cost of reading and of space bounded.
//!
//! Invariants:
//! - **first hit wins**: whatever a younger source says about a key is newer than what all older sources say.
//!   Younger to older: active memtable, frozen memtable, level 0 from the newest, level 1, 2 and on;
//! - what a flush or a compaction has written is invisible until `install_*`, which is called when its edit of
//!   the manifest is durable; what it replaces is removed after that, with the last reader;
//! - a tree makes one flush and one compaction at a time, and both at once;
//! - a tree that lacks one of its segments is not compacted, and its flushes keep every tombstone: the one missing
//!   may hold what they hide.

#[doc(hidden)]
pub mod bench;
mod block;
mod cache;
mod codec;
mod compaction;
mod copy;
mod filter;
mod flush;
mod items;
mod memtable;
mod merge;
mod open_files;
pub mod pace;
mod scan;
pub mod segment;
mod store;
#[cfg(test)]
mod tree_test;
mod version;
mod view;

use std::cell::{Cell, RefCell};
use std::ops::Bound;
use std::rc::Rc;

use cairn_runtime::Runtime;

pub use cache::BlockCache;
pub use codec::{Codec, Compression};
pub use compaction::{CompactionConfig, Prepared, Urge};
pub use items::{CACHED_ITEM_BYTES_MAX, ItemCache};
pub use memtable::Memtable;
pub use pace::Pace;
pub use scan::Cursor;
pub(crate) use segment::reference_of_file;
pub use segment::{Damage, Segment, segment_file_name, segment_of_file_name};
pub use store::{DriveCounts, DriveWatch, Reported, SegmentStore, StoreConfig, StoreStats, TreeError};
pub use version::{ItemHandle, NEWEST, Version};

pub(crate) use self::copy::TreeCut;
pub(crate) use self::filter::KeyHash;
use self::items::TreeNumber;
use self::merge::{LevelCursor, MemtableCursor, Merge, Source};
use self::segment::{Access, Found};
use self::view::{KeyRange, Placed, View};
use crate::canary::{self, Canary};
use crate::ids::{CommitTimestamp, LogSequence, SegmentId};
use crate::manifest::{LEVELS_MAX, SegmentReference};
use crate::volume::{DriveSet, Volume};
use crate::{Direction, PartitionDescriptor};

/// What the trees of one engine share. Cheap to clone.
pub struct TreeContext<R: Runtime> {
    store: Rc<SegmentStore<R>>,
    config: CompactionConfig,
    snapshots: Rc<RefCell<Vec<CommitTimestamp>>>,
    pace: Rc<Pace>,
    /// Shared by all trees that have no segments, so that they cost little.
    nothing: Rc<View<R>>,
}

impl<R: Runtime> Clone for TreeContext<R> {
    fn clone(&self) -> TreeContext<R> {
        TreeContext {
            store: Rc::clone(&self.store),
            config: self.config,
            snapshots: Rc::clone(&self.snapshots),
            pace: Rc::clone(&self.pace),
            nothing: Rc::clone(&self.nothing),
        }
    }
}

/// Limits of an engine's trees.
#[derive(Debug, Clone, Copy)]
pub struct TreeConfig {
    /// Budget of the caches of blocks and items together with filters and index tops, in bytes.
    pub cache_bytes: u64,
    /// Eighths of it that the cache of items has: at most 7, as the index is in the other; 0 for none.
    pub item_cache_eighths: u64,
    /// Segment files open at once.
    pub open_files_max: usize,
    /// When and how trees are compacted.
    pub compaction: CompactionConfig,
}

impl<R: Runtime> TreeContext<R> {
    /// The context of an engine over `volume`.
    #[must_use]
    pub fn new(runtime: R, volume: Volume<R>, config: TreeConfig) -> TreeContext<R> {
        let TreeConfig {
            cache_bytes,
            item_cache_eighths,
            open_files_max,
            compaction,
        } = config;
        let store = SegmentStore::over(runtime, volume, cache_bytes, item_cache_eighths, open_files_max);
        TreeContext::over(store, compaction)
    }

    /// The context of trees in `store`.
    #[must_use]
    pub fn over(store: Rc<SegmentStore<R>>, config: CompactionConfig) -> TreeContext<R> {
        TreeContext {
            store,
            config,
            snapshots: Rc::default(),
            pace: Rc::default(),
            nothing: Rc::new(View::empty()),
        }
    }

    /// The segments.
    #[must_use]
    pub fn store(&self) -> &Rc<SegmentStore<R>> {
        &self.store
    }

    /// How fast compaction goes.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// A snapshot is open from now on: at insert, flush and compaction, the versions that it reads stay. One timestamp
    /// may be opened several times.
    pub fn open_snapshot(&self, at: CommitTimestamp) {
        let mut snapshots = self.snapshots.borrow_mut();
        let place = snapshots.partition_point(|other| *other < at);
        snapshots.insert(place, at);
    }

    /// It is open once less.
    ///
    /// # Panics
    /// When it is not open.
    pub fn close_snapshot(&self, at: CommitTimestamp) {
        let mut snapshots = self.snapshots.borrow_mut();
        let place = snapshots.binary_search(&at).expect("what is closed was opened");
        snapshots.remove(place);
    }

    /// Snapshots that are open.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.snapshots.borrow().len()
    }

    /// The newest snapshot that is open.
    #[must_use]
    pub fn newest_snapshot(&self) -> Option<CommitTimestamp> {
        self.snapshots.borrow().last().copied()
    }
}

/// What segments take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeSpace {
    /// Bytes of their files, per mirror.
    pub bytes: u64,
    /// Versions in them, tombstones included.
    pub versions: u64,
}

impl TreeSpace {
    /// Adds another's.
    pub fn add(&mut self, other: TreeSpace) {
        self.bytes += other.bytes;
        self.versions += other.versions;
    }
}

/// Keys that nobody reads any more: from `lower` to before `upper`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trimmed {
    lower: Vec<u8>,
    upper: Vec<u8>,
}

impl Trimmed {
    fn contains(&self, key: &[u8]) -> bool {
        self.lower.as_slice() <= key && key < self.upper.as_slice()
    }

    /// Whether it contains every key of a segment.
    fn covers(&self, reference: &SegmentReference) -> bool {
        self.contains(reference.lower()) && reference.ends_before(&self.upper)
    }
}

/// The tree of one partition.
pub struct Tree<R: Runtime> {
    context: TreeContext<R>,
    descriptor: PartitionDescriptor,
    active: RefCell<Rc<Memtable>>,
    view: RefCell<Rc<View<R>>>,
    flushing: Cell<bool>,
    compacting: Rc<Cell<bool>>,
    /// Whether every segment that the manifest names is in the view.
    complete: Cell<bool>,
    /// Bytes of the largest segment in level 0 so far: what the levels' targets follow.
    flush_bytes: Cell<u64>,
    /// Keys that nobody reads any more.
    trimmed: RefCell<Option<Trimmed>>,
    /// What its new segments are packed with, if not with what the engine's are.
    compression: Cell<Option<Compression>>,
    /// What its items are cached under.
    number: Cell<TreeNumber>,
}

impl<R: Runtime> Tree<R> {
    /// An empty tree.
    #[must_use]
    pub fn new(context: &TreeContext<R>, descriptor: &PartitionDescriptor) -> Tree<R> {
        Tree {
            context: context.clone(),
            descriptor: descriptor.clone(),
            active: RefCell::default(),
            view: RefCell::new(Rc::clone(&context.nothing)),
            flushing: Cell::new(false),
            compacting: Rc::default(),
            complete: Cell::new(true),
            flush_bytes: Cell::new(0),
            trimmed: RefCell::default(),
            compression: Cell::new(None),
            number: Cell::new(context.store.items.number_tree()),
        }
    }

    /// Adds the segments that the manifest names, at start.
    ///
    /// # Errors
    /// [`TreeError::Unreadable`] or [`TreeError::NoMirror`] of the first that cannot be opened. The tree is
    /// incomplete then: it must not serve, and only grows until it is opened again.
    pub async fn open_segments(
        &self,
        references: impl IntoIterator<Item = &SegmentReference>,
    ) -> Result<(), TreeError> {
        let mut result = Ok(());
        for reference in references {
            match self.context.store.open(reference).await {
                Ok(segment) => self.change_view(|view| {
                    view.add(Placed {
                        segment,
                        reference: Rc::new(reference.clone()),
                    })
                }),
                Err(error) => {
                    self.complete.set(false);
                    result = result.and(Err(error));
                }
            }
        }
        result
    }

    /// Applies a version that log batch `sequence` holds. By how many bytes the memtable grew or shrank.
    pub fn insert(&self, key: &[u8], version: Version, sequence: LogSequence) -> isize {
        self.context.store.items.applied(self.number.get(), key, &version);
        let active = self.active.borrow();
        let before = active.bytes();
        active.insert(key, version, sequence, &self.context.snapshots.borrow());
        let difference = |more: usize, less: usize| isize::try_from(more - less).expect("memory is smaller");
        let after = active.bytes();
        if after >= before {
            difference(after, before)
        } else {
            -difference(before, after)
        }
    }

    /// Has flushes and compactions leave out the keys of a range, each of which was put once and never deleted, whatever snapshots
    /// are open; a segment that holds no others goes as a whole. It replaces the range before it, and is forgotten with the tree.
    pub fn trim(&self, lower: Vec<u8>, upper: Vec<u8>) {
        *self.trimmed.borrow_mut() = Some(Trimmed { lower, upper });
    }

    /// Has flushes and compactions pack what they write so; without it as the engine is configured. What is stored stays as it
    /// is until it is rewritten. It is forgotten with the tree.
    pub fn pack_with(&self, compression: Option<Compression>) {
        self.compression.set(compression);
    }

    /// Bytes in the active memtable.
    #[must_use]
    pub fn memtable_bytes(&self) -> usize {
        self.active.borrow().bytes()
    }

    /// Bytes in memtables that are being flushed.
    #[must_use]
    pub fn frozen_bytes(&self) -> usize {
        self.view
            .borrow()
            .flushing
            .iter()
            .map(|memtable| memtable.bytes())
            .sum()
    }

    /// Versions in memtables that are being flushed.
    #[must_use]
    pub fn frozen_entries(&self) -> u64 {
        let view = self.view.borrow();
        let entries = view.flushing.iter().map(|memtable| memtable.entries() as u64);
        entries.sum()
    }

    /// Tombstones that were inserted since the last flush began.
    #[must_use]
    pub fn unflushed_tombstones(&self) -> usize {
        self.active.borrow().tombstones()
    }

    /// The newest version of `key`, which may be a tombstone, when no drive has to be asked; else none.
    #[must_use]
    pub fn get_cached(&self, key: &[u8]) -> Option<Result<Option<Version>, TreeError>> {
        let hash = KeyHash::of(key);
        let view = self.view.borrow();
        if let Some(version) = self.at_hand(&view, hash, key) {
            return Some(Ok(Some(version)));
        }
        let mut searched = 0;
        let mut result = Some(Ok(None));
        for placed in view.holding(key).filter(|placed| placed.may_contain(key, hash)) {
            match placed
                .segment
                .search(key, NEWEST, |place| placed.segment.cached(place))
            {
                Found::Absent => searched += 1,
                Found::Version(version) => {
                    result = Some(Ok(Some(version)));
                    break;
                }
                // The whole search is made again, and counted, by `get`.
                Found::Needs(..) => return None,
            }
        }
        self.count_search(searched, matches!(result, Some(Ok(Some(_)))), NEWEST);
        result
    }

    /// The newest version, if a memtable or the cache of items has it.
    fn at_hand(&self, view: &View<R>, hash: KeyHash, key: &[u8]) -> Option<Version> {
        if let Some(version) = self.active.borrow().get_hashed(hash, key) {
            return Some(version);
        }
        for memtable in &view.flushing {
            if let Some(version) = memtable.get_hashed(hash, key) {
                return Some(version);
            }
        }
        let store = &self.context.store;
        let cached = store.items.get(self.number.get(), hash, key);
        let cached = cached.filter(|_| !self.is_trimmed(key))?;
        store.count(|stats| stats.item_hits += 1);
        Some(cached)
    }

    /// Caches what a read that began with `began` has found to be the newest version, unless it may not be any more: see [`items`].
    fn keep_item(&self, began: &Rc<View<R>>, hash: KeyHash, key: &[u8], version: &Version) {
        let is_newest = Rc::ptr_eq(began, &self.view.borrow())
            && self.active.borrow().get_hashed(hash, key).is_none()
            || canary::is_in(Canary::StaleCachedItem);
        if is_newest && !self.is_trimmed(key) {
            let items = &self.context.store.items;
            items.keep(self.number.get(), hash, key, version);
        }
    }

    fn is_trimmed(&self, key: &[u8]) -> bool {
        let trimmed = self.trimmed.borrow();
        trimmed.as_ref().is_some_and(|trimmed| trimmed.contains(key))
    }

    fn count_search(&self, absent: u64, found: bool, as_of: CommitTimestamp) {
        if absent > 0 || found {
            self.context.store.count(|stats| {
                stats.segments_searched += absent + u64::from(found);
                stats.filter_false_positives += absent;
                stats.item_misses += u64::from(found && as_of == NEWEST);
            });
        }
    }

    /// The newest version of `key`, which may be a tombstone.
    ///
    /// # Errors
    /// [`TreeError::Unreadable`] when what holds the key is damaged on every mirror.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Version>, TreeError> {
        let hash = KeyHash::of(key);
        let view = Rc::clone(&self.view.borrow());
        if let Some(version) = self.at_hand(&view, hash, key) {
            return Ok(Some(version));
        }
        let found = self.get_in_segments(&view, hash, key, NEWEST).await?;
        if let Some(version) = &found {
            self.keep_item(&view, hash, key, version);
        }
        Ok(found)
    }

    /// The newest version of `key` that is not above `as_of`, which may be a tombstone.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub async fn get_as_of(&self, key: &[u8], as_of: CommitTimestamp) -> Result<Option<Version>, TreeError> {
        let in_memory = self.active.borrow().get_as_of(key, as_of);
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        let view = Rc::clone(&self.view.borrow());
        let in_memory = view
            .flushing
            .iter()
            .find_map(|memtable| memtable.get_as_of(key, as_of));
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        self.get_in_segments(&view, KeyHash::of(key), key, as_of).await
    }

    async fn get_in_segments(
        &self,
        view: &View<R>,
        hash: KeyHash,
        key: &[u8],
        as_of: CommitTimestamp,
    ) -> Result<Option<Version>, TreeError> {
        let mut absent = 0;
        for placed in view.holding(key).filter(|placed| placed.may_contain(key, hash)) {
            if let Some(version) = placed.segment.get(key, as_of).await? {
                self.count_search(absent, true, as_of);
                return Ok(Some(version));
            }
            absent += 1;
        }
        self.count_search(absent, false, as_of);
        Ok(None)
    }

    /// The newest items of a range.
    #[must_use]
    pub fn scan(&self, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>, direction: Direction) -> Cursor<R> {
        self.scan_as_of(lower, upper, direction, NEWEST)
    }

    /// The newest items of a range that are not above `as_of`.
    #[must_use]
    pub fn scan_as_of(
        &self,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
        direction: Direction,
        as_of: CommitTimestamp,
    ) -> Cursor<R> {
        let range = KeyRange { lower, upper };
        let view = Rc::clone(&self.view.borrow());
        let mut sources = Vec::new();
        if !range.is_empty() {
            let memtables =
                std::iter::once(Rc::clone(&self.active.borrow())).chain(view.flushing.iter().cloned());
            for memtable in memtables.filter(|memtable| !memtable.is_empty()) {
                sources.push(Source::Memtable(MemtableCursor::new(
                    memtable,
                    direction,
                    range.clone(),
                )));
            }
            let level = |segments: Vec<Placed<R>>| {
                Source::Level(Box::new(LevelCursor::new(
                    segments.into_iter(),
                    direction,
                    Access::Query,
                    range.clone(),
                )))
            };
            let group = range.group();
            let mut skipped = 0;
            let mut holds = |placed: &Placed<R>| {
                let holds = group.is_none_or(|group| placed.segment.may_contain_group(group));
                skipped += u64::from(!holds);
                holds
            };
            sources.extend(
                view.meeting(0, &range)
                    .filter(&mut holds)
                    .map(|placed| level(vec![placed])),
            );
            for number in 1..LEVELS_MAX {
                let segments: Vec<_> = view.meeting(number, &range).filter(&mut holds).collect();
                if !segments.is_empty() {
                    sources.push(level(segments));
                }
            }
            self.context
                .store
                .count(|stats| stats.segments_skipped += skipped);
        }
        Cursor::new(Merge::new(sources, direction), direction, as_of)
    }

    /// What its segments take.
    #[must_use]
    pub fn space(&self) -> TreeSpace {
        let view = self.view.borrow();
        let mut space = TreeSpace::default();
        for placed in view.levels.iter().flatten() {
            space.add(TreeSpace {
                bytes: placed.reference.bytes,
                versions: placed.reference.entries,
            });
        }
        space
    }

    /// Segments in level 0.
    #[must_use]
    pub fn level0_segments(&self) -> usize {
        self.view.borrow().levels[0].len()
    }

    /// Segments per level.
    #[must_use]
    pub fn segments_per_level(&self) -> [usize; LEVELS_MAX] {
        std::array::from_fn(|level| self.view.borrow().levels[level].len())
    }

    /// The segments, for scrubbing: hold them only as long as needed.
    #[must_use]
    pub fn segments(&self) -> Vec<Rc<Segment<R>>> {
        let view = self.view.borrow();
        view.levels
            .iter()
            .flatten()
            .map(|placed| Rc::clone(&placed.segment))
            .collect()
    }

    /// Whether the tree has the segment: what a flush or compaction has written may be in the manifest before.
    #[must_use]
    pub fn has_segment(&self, segment: SegmentId) -> bool {
        let view = self.view.borrow();
        let mut placed = view.levels.iter().flatten();
        placed.any(|placed| placed.reference.id == segment)
    }

    /// The manifest names other mirrors of some segments.
    pub fn set_mirrors(&self, changed: &[(SegmentId, DriveSet)]) {
        self.change_view(|view| {
            for placed in view.levels.iter_mut().flatten() {
                let id = placed.reference.id;
                if let Some((_, mirrors)) = changed.iter().find(|(changed, _)| *changed == id) {
                    let mut reference = SegmentReference::clone(&placed.reference);
                    reference.mirrors = *mirrors;
                    placed.reference = Rc::new(reference);
                    placed.segment.hold_on(*mirrors);
                }
            }
        });
    }

    /// The partition is dropped, durably: its files go with their last readers.
    pub fn remove_all(&self) {
        let view = self.view.replace(Rc::new(View::empty()));
        for placed in view.levels.iter().flatten() {
            self.context.store.retire(Rc::clone(&placed.segment));
        }
        *self.active.borrow_mut() = Rc::default();
        self.number.set(self.context.store.items.number_tree());
        drop(view);
        self.sweep_soon();
    }

    /// Replaces the view; readers keep theirs.
    fn change_view(&self, change: impl FnOnce(&mut View<R>)) {
        let mut view = View::clone(&self.view.borrow());
        change(&mut view);
        view.validate();
        let flushed = view.levels[0].iter().map(|placed| placed.reference.bytes).max();
        self.flush_bytes
            .set(self.flush_bytes.get().max(flushed.unwrap_or(0)));
        *self.view.borrow_mut() = Rc::new(view);
    }
}
