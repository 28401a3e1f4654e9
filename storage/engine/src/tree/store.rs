//! Where a shard's segments live: its drives, its caches, the segments it has open.
//!
//! Invariants:
//! - a segment is open once, however many partitions refer to it;
//! - a file is removed only when its removal is durable in the manifest ([`SegmentStore::retire`] is called after
//!   that) and no reader holds the segment any more;
//! - repairs of one place of one file never overlap.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use cairn_runtime::sync::{OneshotReceiver, spawn};
use cairn_runtime::{Drive, Open, Queue, Runtime, is_exhaustion};

use super::cache::BlockCache;
use super::codec::Codecs;
use super::items::ItemCache;
use super::open_files::OpenFiles;
use super::segment::{Segment, segment_file_name};
use crate::ids::{NodeId, PartitionId, SegmentId};
use crate::latency::{ESTIMATED_BYTES_MAX, Latencies, Speed};
use crate::manifest::SegmentReference;
use crate::sealing::TableKeys;
use crate::volume::{DriveIndex, DriveSet, Volume, VolumeError};

/// The block cache keeps this part of the budget, an eighth, however much filters and index tops take: without any index
/// leaf in memory every read would be two.
const CACHE_FLOOR_PART: u64 = 8;

/// Most eighths of the budget that the cache of items gets: the index is in the other.
const ITEM_CACHE_EIGHTHS_MAX: u64 = 7;

/// The caches' budgets change by whole parts of the whole, and grow again only by two at once: a cache forgets a little of what
/// it has seen with every change, and filters come and go all the time.
const CACHE_STEPS: u64 = 64;

/// What a store is made with.
#[derive(Debug, Clone, Copy)]
pub struct StoreConfig {
    /// The node, written into every segment.
    pub node: NodeId,
    /// Drives that each new segment is written to, at most.
    pub mirrors: usize,
    /// Budget of the caches of blocks and items together with filters and index tops, in bytes.
    pub cache_bytes: u64,
    /// Eighths of it that the cache of items has: at most 7, as the index is in the other; 0 for none.
    pub item_cache_eighths: u64,
    /// Segment files open at once.
    pub open_files_max: usize,
}

impl StoreConfig {
    /// What the cache of items has of so many bytes.
    fn item_cache_bytes(&self, bytes: u64) -> u64 {
        bytes / 8 * self.item_cache_eighths.min(ITEM_CACHE_EIGHTHS_MAX)
    }
}

/// The budget that a cache gets in place of the one it has, if it should: whole steps, and never more than `wanted`.
fn stepped(now: u64, wanted: u64, step: u64) -> Option<u64> {
    let whole = wanted / step * step;
    (wanted < now || whole > now + step).then_some(whole)
}

/// Answer of [`DriveWatch::report_failed`].
pub type Reported = Pin<Box<dyn Future<Output = Result<(), VolumeError>>>>;

/// Who knows which drives are in sync.
pub trait DriveWatch {
    /// The drives that may be read and written.
    fn live(&self) -> DriveSet;

    /// The drives that a new file goes to, at most `mirrors`; its number spreads files over the drives. Those in `slow` had
    /// better be left out.
    fn choose(&self, mirrors: usize, number: u64, slow: DriveSet) -> DriveSet {
        let by_turns = |drives: DriveSet| {
            let drives: Vec<DriveIndex> = drives.iter().collect();
            let start = usize::try_from(number % drives.len().max(1) as u64).expect("few drives");
            (0..drives.len()).map(move |at| drives[(start + at) % drives.len()])
        };
        let live = self.live();
        let turn = by_turns(live.minus(slow)).chain(by_turns(live.and(slow)));
        turn.take(mirrors).collect()
    }

    /// A drive has become slow, or has ceased to be.
    fn speed_changed(&self) {}

    /// Takes a drive out of the in-sync set; resolves when that is durable.
    fn report_failed(&self, drive: DriveIndex, why: String) -> Reported;
}

/// Counters and gauges of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Reads asked of drives.
    pub device_reads: u64,
    /// Bytes of them.
    pub device_read_bytes: u64,
    /// Blocks and leaves found in the cache.
    pub cache_hits: u64,
    /// Blocks and leaves read because they were not there.
    pub cache_misses: u64,
    /// Bytes charged to the block cache.
    pub cache_bytes: u64,
    /// Point reads of the newest version that the cache of items answered.
    pub item_hits: u64,
    /// Those that found it in a segment, because it was not there.
    pub item_misses: u64,
    /// Bytes charged to the cache of items.
    pub item_cache_bytes: u64,
    /// Bytes of filters and index tops in memory.
    pub resident_bytes: u64,
    /// Point reads that a filter let pass though the key was not there.
    pub filter_false_positives: u64,
    /// Segments searched by point reads: those whose filter said "perhaps".
    pub segments_searched: u64,
    /// Segments that ranges within one partition key did not look into, because their filters said "no".
    pub segments_skipped: u64,
    /// Blocks whose content did not verify.
    pub mismatches: u64,
    /// Reads that a drive failed.
    pub read_errors: u64,
    /// Places rewritten from another mirror.
    pub repairs: u64,
    /// Rewrites that failed.
    pub repair_failures: u64,
    /// Reads that were asked of another drive as well, because the first was late.
    pub late_reads: u64,
    /// Mirrors of segments that could not be opened.
    pub mirrors_missing: u64,
    /// Bytes of segments written by flushes, per mirror.
    pub flushed_bytes: u64,
    /// Bytes of segments written by compactions, per mirror.
    pub compacted_bytes: u64,
    /// Bytes of data blocks written by either, per mirror, before they were packed.
    pub blocks_bytes: u64,
    /// Bytes that they took on a drive.
    pub blocks_stored_bytes: u64,
    /// Segments open.
    pub segments_open: u64,
    /// Segment files open for reading.
    pub files_open: u64,
    /// Segments that wait for their last reader before their files are removed.
    pub segments_obsolete: u64,
}

/// What has happened on one drive, as far as segments are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriveCounts {
    /// Reads asked of it.
    pub reads: u64,
    /// Reads that it failed.
    pub read_errors: u64,
    /// Reads whose content did not verify.
    pub mismatches: u64,
    /// Places of it rewritten from another mirror.
    pub repairs: u64,
    /// How long reads took.
    pub latencies: Latencies,
    /// What the next read of a block is expected to take; zero before the first.
    pub expected: Duration,
}

/// Why the tree could not do something.
#[derive(Debug, Clone)]
pub enum TreeError {
    /// No mirror holds the bytes any more.
    Unreadable {
        /// The file.
        segment: SegmentId,
        /// The partition it was written for.
        partition: PartitionId,
        /// Offset of the damage in bytes.
        offset: u64,
        /// What each mirror said.
        why: Rc<str>,
    },
    /// No drive of the mirror set is there.
    NoMirror {
        /// The file.
        segment: SegmentId,
    },
    /// A drive is full.
    OutOfSpace {
        /// The drive.
        drive: DriveIndex,
    },
    /// A drive refused a write. [`super::Tree`] reports it and begins again; only a bare writer shows it.
    Write {
        /// The drive.
        drive: DriveIndex,
        /// The error, with the file.
        why: Rc<str>,
    },
    /// The process has run out of descriptors or memory. No drive is to blame; it may be tried again.
    Exhausted {
        /// The error, with the file.
        why: Rc<str>,
    },
    /// A drive that failed could not be taken out of the in-sync set: nothing may be acknowledged any more.
    Volume(VolumeError),
    /// The task that did the work was dropped: the shard is stopping.
    Stopped,
}

impl fmt::Display for TreeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TreeError::Unreadable {
                segment,
                partition,
                offset,
                why,
            } => write!(
                formatter,
                "segment-{segment} of partition {partition} is damaged at byte {offset} on every mirror: {why}"
            ),
            TreeError::NoMirror { segment } => {
                write!(formatter, "no drive that holds segment-{segment} is there")
            }
            TreeError::OutOfSpace { drive } => write!(formatter, "drive {drive} is full"),
            TreeError::Write { drive, why } => write!(formatter, "drive {drive} refused a write: {why}"),
            TreeError::Exhausted { why } => write!(formatter, "out of descriptors or memory: {why}"),
            TreeError::Volume(error) => write!(formatter, "{error}"),
            TreeError::Stopped => write!(formatter, "the shard is stopping"),
        }
    }
}

impl std::error::Error for TreeError {}

impl TreeError {
    pub(crate) fn write(drive: DriveIndex, file: &str, error: &io::Error) -> TreeError {
        if error.kind() == io::ErrorKind::StorageFull {
            return TreeError::OutOfSpace { drive };
        }
        if is_exhaustion(error) {
            return TreeError::exhausted(file, error);
        }
        TreeError::Write {
            drive,
            why: format!("{file}: {error}").into(),
        }
    }

    pub(crate) fn exhausted(file: &str, error: &io::Error) -> TreeError {
        TreeError::Exhausted {
            why: format!("{file}: {error}").into(),
        }
    }
}

/// A drive as the segments on it share it.
pub(crate) struct DriveSlot<D> {
    pub(crate) index: DriveIndex,
    pub(crate) drive: D,
    /// How busy it is, and how fast: by which a mirror is chosen for a read.
    pub(crate) speed: Speed,
    /// Writes in flight: another drive gets the place only when there are none.
    pub(crate) writing: Cell<u32>,
    counts: Cell<DriveCounts>,
}

impl<D> DriveSlot<D> {
    fn new(index: DriveIndex, drive: D) -> DriveSlot<D> {
        DriveSlot {
            index,
            drive,
            speed: Speed::default(),
            writing: Cell::new(0),
            counts: Cell::default(),
        }
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut DriveCounts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }
}

/// Counts a write in flight, also when its task is dropped.
struct Writing<D>(Rc<DriveSlot<D>>);

impl<D> Writing<D> {
    fn begin(slot: &Rc<DriveSlot<D>>) -> Writing<D> {
        slot.writing.set(slot.writing.get() + 1);
        Writing(Rc::clone(slot))
    }
}

impl<D> Drop for Writing<D> {
    fn drop(&mut self) {
        self.0.writing.set(self.0.writing.get() - 1);
    }
}

/// The segments of one engine on their drives.
pub struct SegmentStore<R: Runtime> {
    pub(crate) runtime: R,
    config: StoreConfig,
    drives: RefCell<Vec<Rc<DriveSlot<R::Drive>>>>,
    watch: Box<dyn DriveWatch>,
    pub(crate) cache: BlockCache,
    pub(crate) items: ItemCache,
    pub(crate) codecs: Codecs,
    pub(crate) keys: TableKeys,
    files: OpenFiles<<R::Drive as Drive>::File>,
    stats: RefCell<StoreStats>,
    open: RefCell<BTreeMap<SegmentId, Weak<Segment<R>>>>,
    /// Held by their readers alone: a segment holds its store, which must not hold it.
    obsolete: RefCell<Vec<(SegmentId, Weak<Segment<R>>)>>,
    pub(crate) repairing: RefCell<BTreeSet<(SegmentId, DriveIndex, u32)>>,
    /// Segments that are being written, or that the manifest does not name yet, and their drives.
    begun: RefCell<BTreeMap<SegmentId, DriveSet>>,
    /// Drives that are slow for another reason than their reads.
    avoided: Cell<DriveSet>,
}

impl<R: Runtime> SegmentStore<R> {
    /// A store over `drives`, of which `watch` tells the live ones; nothing in it is sealed.
    #[must_use]
    pub fn new(
        runtime: R,
        config: StoreConfig,
        drives: &[(DriveIndex, R::Drive)],
        watch: impl DriveWatch + 'static,
    ) -> Rc<SegmentStore<R>> {
        SegmentStore::sealed(runtime, config, TableKeys::default(), drives, watch)
    }

    /// As [`SegmentStore::new`], with the keys that seal everything in it.
    pub(crate) fn sealed(
        runtime: R,
        config: StoreConfig,
        keys: TableKeys,
        drives: &[(DriveIndex, R::Drive)],
        watch: impl DriveWatch + 'static,
    ) -> Rc<SegmentStore<R>> {
        let slot = |(index, drive): &(DriveIndex, R::Drive)| Rc::new(DriveSlot::new(*index, drive.clone()));
        Rc::new(SegmentStore {
            runtime,
            config,
            drives: RefCell::new(drives.iter().map(slot).collect()),
            watch: Box::new(watch),
            cache: BlockCache::new(config.cache_bytes - config.item_cache_bytes(config.cache_bytes)),
            items: ItemCache::new(config.item_cache_bytes(config.cache_bytes)),
            codecs: Codecs::default(),
            keys,
            files: OpenFiles::new(config.open_files_max),
            stats: RefCell::default(),
            open: RefCell::default(),
            obsolete: RefCell::default(),
            repairing: RefCell::default(),
            begun: RefCell::default(),
            avoided: Cell::new(DriveSet::EMPTY),
        })
    }

    /// The block cache.
    #[must_use]
    pub fn cache(&self) -> &BlockCache {
        &self.cache
    }

    /// The cache of items.
    #[must_use]
    pub fn items(&self) -> &ItemCache {
        &self.items
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            cache_bytes: self.cache.bytes(),
            item_cache_bytes: self.items.bytes(),
            segments_open: self
                .open
                .borrow()
                .values()
                .filter(|open| open.strong_count() > 0)
                .count() as u64,
            files_open: self.files.len() as u64,
            segments_obsolete: self.obsolete.borrow().len() as u64,
            ..*self.stats.borrow()
        }
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut StoreStats)) {
        change(&mut self.stats.borrow_mut());
    }

    /// Changes the bytes of filters and index tops in memory. They come out of the caches' budget, down to their floors.
    pub(crate) fn charge(&self, change: impl FnOnce(u64) -> u64) {
        let resident = change(self.stats.borrow().resident_bytes);
        self.stats.borrow_mut().resident_bytes = resident;
        let budget = self.config.cache_bytes;
        let left = budget.saturating_sub(resident);
        let items = self.config.item_cache_bytes(left);
        let blocks = (left - items).max(budget / CACHE_FLOOR_PART);
        let step = (budget / CACHE_STEPS).max(1);
        if let Some(blocks) = stepped(self.cache.budget_bytes(), blocks, step) {
            self.cache.set_budget(blocks);
        }
        // Never quite nothing: what has had no budget knows nothing of what it has seen.
        let items = items.max(step.min(self.config.item_cache_bytes(budget)));
        if let Some(items) = stepped(self.items.budget_bytes(), items, step) {
            self.items.set_budget(items);
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn is_live(&self, drive: DriveIndex) -> bool {
        self.watch.live().contains(drive)
    }

    pub(crate) async fn report_failed(&self, drive: DriveIndex, why: String) -> Result<(), TreeError> {
        self.watch
            .report_failed(drive, why)
            .await
            .map_err(TreeError::Volume)
    }

    pub(crate) fn drive(&self, index: DriveIndex) -> Option<Rc<DriveSlot<R::Drive>>> {
        let drives = self.drives.borrow();
        drives.iter().find(|slot| slot.index == index).cloned()
    }

    /// Whether the drive still has its place.
    pub(crate) fn has(&self, slot: &Rc<DriveSlot<R::Drive>>) -> bool {
        self.drive(slot.index).is_some_and(|now| Rc::ptr_eq(&now, slot))
    }

    /// What has happened on each drive.
    #[must_use]
    pub fn drive_counts(&self) -> Vec<(DriveIndex, DriveCounts)> {
        let drives = self.drives.borrow();
        let counts = |slot: &Rc<DriveSlot<R::Drive>>| DriveCounts {
            latencies: slot.speed.latencies(),
            expected: slot.speed.estimate(),
            ..slot.counts.get()
        };
        drives.iter().map(|slot| (slot.index, counts(slot))).collect()
    }

    /// The live drives that reads go round.
    pub(crate) fn slow_drives(&self) -> DriveSet {
        let now = self.runtime.now();
        let drives = self.drives.borrow();
        let slow = drives.iter().filter(|slot| slot.speed.is_slow(now));
        slow.map(|slot| slot.index)
            .filter(|index| self.is_live(*index))
            .collect()
    }

    /// New segments go to other drives than these, if there are others.
    pub(crate) fn avoid(&self, drives: DriveSet) {
        self.avoided.set(drives);
    }

    /// A read of so many bytes of a drive has taken so long.
    pub(crate) fn took(&self, slot: &DriveSlot<R::Drive>, took: Duration, bytes: usize) {
        slot.speed.count(took);
        if bytes > ESTIMATED_BYTES_MAX {
            return;
        }
        let others = {
            let drives = self.drives.borrow();
            let others = drives.iter().filter(|other| {
                other.index != slot.index && self.is_live(other.index) && !other.speed.estimate().is_zero()
            });
            others.map(|other| other.speed.estimate()).min()
        };
        if slot.speed.took(self.runtime.now(), took, others) {
            self.watch.speed_changed();
        }
    }

    /// A drive lets reads wait that another one answers.
    pub(crate) fn stalls(&self, slot: &DriveSlot<R::Drive>) {
        if slot.speed.stalls(self.runtime.now()) {
            self.watch.speed_changed();
        }
    }

    /// The live drives that hold a segment whose recorded mirror set is `named`.
    pub(crate) fn holders(&self, named: DriveSet) -> DriveSet {
        named.and(self.watch.live())
    }

    /// The drives for a new segment: live ones, by turns when there are more than mirrors.
    pub(crate) fn drives_for(&self, segment: SegmentId) -> Vec<Rc<DriveSlot<R::Drive>>> {
        let slow = self.slow_drives().or(self.avoided.get());
        let chosen = self.watch.choose(self.config.mirrors, segment.counter(), slow);
        self.begun.borrow_mut().insert(segment, chosen);
        chosen.iter().filter_map(|index| self.drive(index)).collect()
    }

    /// The manifest names the segment now.
    pub(crate) fn named(&self, segment: SegmentId) {
        self.begun.borrow_mut().remove(&segment);
    }

    /// The drives of each segment that the manifest does not name yet.
    pub(crate) fn begun(&self) -> Vec<DriveSet> {
        self.begun.borrow().values().copied().collect()
    }

    /// Whether a repair is in flight.
    pub(crate) fn is_repairing(&self) -> bool {
        !self.repairing.borrow().is_empty()
    }

    /// Whether a write to the drive is in flight.
    pub(crate) fn is_writing(&self, index: DriveIndex) -> bool {
        self.drive(index).is_some_and(|slot| slot.writing.get() > 0)
    }

    /// Another drive has the place. No segment names the one before any more.
    pub(crate) fn replace_drive(&self, index: DriveIndex, drive: R::Drive) {
        self.files.clear();
        let mut drives = self.drives.borrow_mut();
        drives.retain(|slot| slot.index != index);
        drives.push(Rc::new(DriveSlot::new(index, drive)));
    }

    /// Removes the file of a segment from one drive, that no reader asks for it any more.
    pub(crate) async fn remove_copy(&self, segment: SegmentId, index: DriveIndex) {
        self.files.close(segment, index);
        if let Some(slot) = self.drive(index).filter(|_| self.is_live(index)) {
            // What cannot be removed now is named by nothing and goes at the next start.
            let _ = slot.drive.remove(&segment_file_name(segment)).await;
        }
    }

    /// Opens the segment that `reference` names, or gives the one that is open already.
    ///
    /// # Errors
    /// [`TreeError::NoMirror`], or [`TreeError::Unreadable`] when no mirror is whole enough.
    pub async fn open(self: &Rc<Self>, reference: &SegmentReference) -> Result<Rc<Segment<R>>, TreeError> {
        let open = self.open.borrow().get(&reference.id).and_then(Weak::upgrade);
        if let Some(segment) = open {
            return Ok(segment);
        }
        let segment = Rc::new(Segment::open(Rc::clone(self), reference).await?);
        let mut open = self.open.borrow_mut();
        // Another task may have been faster.
        if let Some(segment) = open.get(&reference.id).and_then(Weak::upgrade) {
            return Ok(segment);
        }
        let mut obsolete = self.obsolete.borrow_mut();
        if let Some((_, reader)) = obsolete.iter_mut().find(|(id, _)| *id == reference.id) {
            *reader = Rc::downgrade(&segment);
        }
        open.retain(|_, segment| segment.strong_count() > 0);
        open.insert(reference.id, Rc::downgrade(&segment));
        Ok(segment)
    }

    /// A segment's file on one drive, open for reading.
    pub(crate) async fn file(
        &self,
        segment: SegmentId,
        slot: &Rc<DriveSlot<R::Drive>>,
    ) -> io::Result<<R::Drive as Drive>::File> {
        if let Some(file) = self.files.get(segment, slot.index) {
            return Ok(file);
        }
        let how = Open {
            read_only: true,
            ..Open::default()
        };
        let file = slot.drive.open(&segment_file_name(segment), how).await?;
        // Another drive may have got the place meanwhile.
        if self
            .drive(slot.index)
            .is_some_and(|current| Rc::ptr_eq(&current, slot))
        {
            self.files.insert(segment, slot.index, file.clone());
        }
        Ok(file)
    }

    /// Whether a drive has a segment's file under its name; a file that is gone is no longer read, however open it is.
    pub(crate) async fn is_there(&self, segment: SegmentId, index: DriveIndex) -> bool {
        let Some(slot) = self.drive(index) else {
            return false;
        };
        let how = Open {
            read_only: true,
            ..Open::default()
        };
        let opened = slot.drive.open(&segment_file_name(segment), how).await;
        let gone = opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if gone {
            self.files.close(segment, index);
        }
        !gone
    }

    /// The segment's removal is durable and no partition refers to it: its files go with its last reader.
    pub fn retire(&self, segment: Rc<Segment<R>>) {
        let mut obsolete = self.obsolete.borrow_mut();
        if !obsolete.iter().any(|(id, _)| *id == segment.id()) {
            obsolete.push((segment.id(), Rc::downgrade(&segment)));
        }
    }

    /// Removes the files of retired segments that nobody reads any more; how many segments. To be called now and
    /// then. A file that cannot be removed is left to the next start.
    pub async fn sweep(&self) -> usize {
        let mut unread = Vec::new();
        self.obsolete.borrow_mut().retain(|(id, segment)| {
            let read = segment.strong_count() > 0;
            if !read {
                unread.push(*id);
            }
            read
        });
        for id in &unread {
            self.open.borrow_mut().remove(id);
            self.remove_files(*id).await;
        }
        unread.len()
    }

    /// Removes a segment's file from every live drive.
    pub(crate) async fn remove_files(&self, segment: SegmentId) {
        self.begun.borrow_mut().remove(&segment);
        let name = segment_file_name(segment);
        let drives = self.drives.borrow().clone();
        drives
            .iter()
            .for_each(|slot| self.files.close(segment, slot.index));
        for slot in drives.iter().filter(|slot| self.is_live(slot.index)) {
            // What cannot be removed now is not referred to and goes at the next start.
            let _ = slot.drive.remove(&name).await;
        }
    }

    /// Removes the names of files that are still read, as a bug does that is put in.
    pub(crate) async fn unlink(&self, segments: &[SegmentId]) {
        for segment in segments {
            let drives = self.drives.borrow().clone();
            for slot in drives {
                let _ = slot.drive.remove(&segment_file_name(*segment)).await;
                let _ = slot.drive.sync().await;
            }
        }
    }

    /// Runs a write to a drive as a background task of its own; the drive's place is given to nobody until it has ended.
    pub(crate) fn write_task<T: 'static>(
        &self,
        slot: &Rc<DriveSlot<R::Drive>>,
        work: impl Future<Output = T> + 'static,
    ) -> OneshotReceiver<T> {
        let writing = Writing::begin(slot);
        self.task(async move {
            let result = work.await;
            drop(writing);
            result
        })
    }

    /// Runs `work` as a background task of its own, which ends even if nobody waits for it.
    pub(crate) fn task<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> OneshotReceiver<T> {
        spawn(&self.runtime, Queue::Background, work)
    }
}

struct VolumeWatch<R: Runtime>(Volume<R>);

impl<R: Runtime> DriveWatch for VolumeWatch<R> {
    fn live(&self) -> DriveSet {
        self.0.in_sync().set
    }

    fn choose(&self, _: usize, number: u64, slow: DriveSet) -> DriveSet {
        self.0.choose(number, slow)
    }

    fn speed_changed(&self) {
        self.0.handle().tell_engines();
    }

    fn report_failed(&self, drive: DriveIndex, why: String) -> Reported {
        let volume = self.0.clone();
        Box::pin(async move { volume.report_failed(drive, why).await.map(drop) })
    }
}

impl<R: Runtime> SegmentStore<R> {
    /// A store over the drives of a volume.
    #[must_use]
    pub fn over(
        runtime: R,
        volume: Volume<R>,
        cache_bytes: u64,
        item_cache_eighths: u64,
        open_files_max: usize,
    ) -> Rc<SegmentStore<R>> {
        let config = StoreConfig {
            node: volume.node(),
            mirrors: volume.mirrors(),
            cache_bytes,
            item_cache_eighths,
            open_files_max,
        };
        let indexes = (0..crate::volume::DRIVES_MAX).filter_map(DriveIndex::new);
        let drives: Vec<_> = indexes
            .filter_map(|index| Some((index, volume.drive(index)?)))
            .collect();
        let keys = TableKeys::new(volume.key().cloned());
        SegmentStore::sealed(runtime, config, keys, &drives, VolumeWatch(volume))
    }
}

#[cfg(test)]
mod tests {
    use super::stepped;

    #[test]
    fn budgets_follow_in_steps_and_do_not_swing() {
        assert_eq!(stepped(640, 640, 10), None);
        assert_eq!(stepped(640, 639, 10), Some(630));
        assert_eq!(stepped(630, 641, 10), None);
        assert_eq!(stepped(630, 649, 10), None);
        assert_eq!(stepped(630, 650, 10), Some(650));
        assert_eq!(stepped(0, 0, 1), None);
    }
}
