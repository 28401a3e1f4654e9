//! Reads a segment, whatever one of its mirrors has come to.
//!
//! A verified read:
//! 1. choose the mirror with fewer reads in flight, by turns when they tie;
//! 2. read, and verify against what refers to the place;
//! 3. if the drive fails or the bytes do not verify, try the next mirror;
//! 4. good bytes go to the caller at once and, in a task of their own, to the mirrors that were bad;
//! 5. when no mirror has good bytes: [`TreeError::Unreadable`], with what each of them said.

use std::cell::Cell;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, Drive, File, Open, Runtime};

use super::entry::{self, Place};
use super::layout::{FileSeed, SegmentFooter, SegmentHeader, fields_checksum};
use super::{UNIT_BYTES, segment_file_name};
use crate::checksum::checksum;
use crate::ids::{CommitTimestamp, PartitionId, SegmentId};
use crate::manifest::SegmentReference;
use crate::tree::block::{BlockKind, BlockView, verify};
use crate::tree::cache::CacheKey;
use crate::tree::filter::{Filter, KeyHash};
use crate::tree::store::{DriveSlot, SegmentStore, TreeError};
use crate::tree::version::Version;

/// What a search in memory comes to.
pub(crate) enum Found {
    /// The version.
    Version(Version),
    /// No version of the key is visible here.
    Absent,
    /// This block must be read first.
    Needs(Place, BlockKind),
}

/// One copy of a segment's file.
pub(crate) struct Mirror<R: Runtime> {
    pub(crate) slot: Rc<DriveSlot<R::Drive>>,
    pub(crate) file: <R::Drive as Drive>::File,
}

/// An open segment. What it costs in memory is its filter and the top of its index.
pub struct Segment<R: Runtime> {
    store: Rc<SegmentStore<R>>,
    name: String,
    header: SegmentHeader,
    footer: SegmentFooter,
    footer_unit: u32,
    footer_checksum: u64,
    seed: FileSeed,
    mirrors: Vec<Mirror<R>>,
    turn: Cell<usize>,
    filter: Filter,
    top: Rc<[u8]>,
}

/// Files of a segment that is not open yet: what a verified read needs.
struct Files<'a, R: Runtime> {
    store: &'a Rc<SegmentStore<R>>,
    mirrors: &'a [Mirror<R>],
    turn: &'a Cell<usize>,
    name: &'a str,
    reference: (SegmentId, PartitionId),
}

impl<R: Runtime> Segment<R> {
    pub(crate) async fn open(
        store: Rc<SegmentStore<R>>,
        reference: &SegmentReference,
    ) -> Result<Segment<R>, TreeError> {
        let name = segment_file_name(reference.id);
        let mut mirrors = Vec::new();
        for index in reference.mirrors.iter() {
            let Some(slot) = store.drive(index).filter(|_| store.is_live(index)) else {
                continue;
            };
            match slot
                .drive
                .open(
                    &name,
                    Open {
                        read_only: true,
                        ..Open::default()
                    },
                )
                .await
            {
                Ok(file) => mirrors.push(Mirror {
                    slot: Rc::clone(slot),
                    file,
                }),
                Err(_) => store.count(|stats| stats.mirrors_missing += 1),
            }
        }
        if mirrors.is_empty() {
            return Err(TreeError::NoMirror {
                segment: reference.id,
            });
        }
        let turn = Cell::new(usize::from(reference.id.0 % 2 == 1));
        let mut files = Files {
            store: &store,
            mirrors: &mirrors,
            turn: &turn,
            name: &name,
            reference: (reference.id, PartitionId(0)),
        };
        let header = files.read(0, 1, |bytes| {
            let header = SegmentHeader::decode(bytes)?;
            if header.id != reference.id {
                return Err("the header is another segment's");
            }
            Ok((header, fields_checksum(bytes)))
        });
        let (header, header_checksum) = header.await?;
        files.reference.1 = header.partition;
        let seed = header.seed();
        let footer_units = SegmentFooter::units_for(&reference.first_key, &reference.last_key);
        let file_units = u32::try_from(reference.bytes / UNIT_BYTES as u64).unwrap_or(u32::MAX);
        let Some(footer_unit) = file_units.checked_sub(footer_units) else {
            return Err(files.corrupt(0, "the manifest says it is too short"));
        };
        let footer = files.read(footer_unit, footer_units, |bytes| {
            let (footer, sum) = SegmentFooter::decode(bytes, seed, footer_unit)?;
            if sum != reference.footer_checksum || footer.id != reference.id {
                return Err("the footer is not the one that the manifest names");
            }
            Ok(footer)
        });
        let footer = footer.await?;
        if footer.header_checksum != header_checksum {
            return Err(files.corrupt(0, "the header is not the one that the footer names"));
        }
        let filter = files.read(footer.filter.unit, footer.filter.units, |bytes| {
            let (filter, padding) = bytes.split_at(footer.filter_bytes as usize);
            if checksum(seed.at(footer.filter.unit), filter) != footer.filter.checksum {
                return Err("the filter's checksum does not match");
            }
            if padding.iter().any(|byte| *byte != 0) {
                return Err("the filter's padding is not zero");
            }
            Filter::parse(filter)
        });
        let filter = filter.await?;
        let top = files.read(footer.top.unit, footer.top.units, |bytes| {
            check_block(bytes, seed, footer.top, BlockKind::Top, &footer)
        });
        let top = top.await?;
        let segment = Segment {
            store,
            name,
            header,
            footer,
            footer_unit,
            footer_checksum: reference.footer_checksum,
            seed,
            mirrors,
            turn,
            filter,
            top,
        };
        let resident = segment.resident_bytes();
        segment.store.count(|stats| stats.resident_bytes += resident);
        Ok(segment)
    }

    /// The segment's id.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        self.header.id
    }

    /// What the file says it is.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// What the file says it holds.
    #[must_use]
    pub fn footer(&self) -> &SegmentFooter {
        &self.footer
    }

    /// Bytes of filter and index top, in memory for as long as the segment is open.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        (self.filter.resident_bytes() + self.top.len()) as u64
    }

    pub(crate) fn store(&self) -> &Rc<SegmentStore<R>> {
        &self.store
    }

    pub(crate) fn top(&self) -> BlockView<'_> {
        BlockView::new(&self.top)
    }

    /// Whether the key may be here; false is certain.
    pub(crate) fn may_contain(&self, hash: KeyHash) -> bool {
        self.filter.may_contain(hash)
    }

    /// A block or leaf that is in the cache.
    pub(crate) fn cached(&self, place: Place) -> Option<Rc<[u8]>> {
        let block = self.store.cache.get(self.cache_key(place));
        if block.is_some() {
            self.store.count(|stats| stats.cache_hits += 1);
        }
        block
    }

    fn cache_key(&self, place: Place) -> CacheKey {
        CacheKey {
            segment: self.header.id,
            unit: place.unit,
        }
    }

    pub(crate) fn keep(&self, place: Place, block: &Rc<[u8]>) {
        self.store.cache.insert(self.cache_key(place), Rc::clone(block));
    }

    /// Searches the newest version of `key` that is not above `as_of`, with what `block` gives.
    pub(crate) fn search(
        &self,
        key: &[u8],
        as_of: CommitTimestamp,
        mut block: impl FnMut(Place) -> Option<Rc<[u8]>>,
    ) -> Found {
        let top = self.top();
        for leaf_at in top.lower_bound(key)..top.len() {
            let place = Place::decode(top.payload(leaf_at));
            let Some(leaf) = block(place) else {
                return Found::Needs(place, BlockKind::Leaf);
            };
            let leaf = BlockView::new(&leaf);
            for at in leaf.lower_bound(key)..leaf.len() {
                let place = Place::decode(leaf.payload(at));
                let Some(data) = block(place) else {
                    return Found::Needs(place, BlockKind::Data);
                };
                let view = BlockView::new(&data);
                let entry = view.partition_point(key, |order, entry| {
                    order.is_lt() || order.is_eq() && entry::commit_of(view.payload(entry)) > as_of
                });
                if entry < view.len() {
                    let found = view.key_is(entry, key);
                    return if found {
                        Found::Version(entry::version_of(&data, view, entry))
                    } else {
                        Found::Absent
                    };
                }
                // Only the versions of a key that a separator names exactly go on in the next block.
                if !leaf.key_is(at, key) {
                    return Found::Absent;
                }
            }
            if !top.key_is(leaf_at, key) {
                return Found::Absent;
            }
        }
        Found::Absent
    }

    /// As [`Segment::search`], reading what is not in the cache.
    pub(crate) async fn get(&self, key: &[u8], as_of: CommitTimestamp) -> Result<Option<Version>, TreeError> {
        // What this search has read, in case the cache does not keep it.
        let mut read: Vec<(u32, Rc<[u8]>)> = Vec::new();
        loop {
            let found = self.search(key, as_of, |place| {
                let held = read.iter().find(|(unit, _)| *unit == place.unit);
                held.map_or_else(|| self.cached(place), |(_, block)| Some(Rc::clone(block)))
            });
            match found {
                Found::Version(version) => return Ok(Some(version)),
                Found::Absent => return Ok(None),
                Found::Needs(place, kind) => {
                    self.store.count(|stats| stats.cache_misses += 1);
                    let block = self.read_block(place, kind).await?;
                    self.keep(place, &block);
                    read.push((place.unit, block));
                }
            }
        }
    }

    /// Reads one block, verified.
    pub(crate) async fn read_block(&self, place: Place, kind: BlockKind) -> Result<Rc<[u8]>, TreeError> {
        self.files()
            .read(place.unit, place.units, |bytes| self.check(bytes, place, kind))
            .await
    }

    /// Reads `units` from one mirror, unverified: for many blocks at once, each to be checked by
    /// [`Segment::check`] and read again by [`Segment::read_block`] if it fails.
    pub(crate) async fn read_units(&self, unit: u32, units: u32) -> Option<AlignedBuffer> {
        let files = self.files();
        let at = *files.order().first()?;
        let read = files.read_mirror(at, unit, units).await;
        if read.is_err() {
            self.store.count(|stats| stats.read_errors += 1);
        }
        read.ok()
    }

    /// Verifies a block and copies it out of its buffer.
    pub(crate) fn check(
        &self,
        bytes: &[u8],
        place: Place,
        kind: BlockKind,
    ) -> Result<Rc<[u8]>, &'static str> {
        check_block(bytes, self.seed, place, kind, &self.footer)
    }

    fn files(&self) -> Files<'_, R> {
        Files {
            store: &self.store,
            mirrors: &self.mirrors,
            turn: &self.turn,
            name: &self.name,
            reference: (self.header.id, self.header.partition),
        }
    }

    /// Verifies every byte of every mirror, repairing what another mirror still has. How many places were bad.
    ///
    /// # Errors
    /// [`TreeError::Unreadable`] for the first place that no mirror has.
    pub async fn scrub(&self) -> Result<u64, TreeError> {
        let files = self.files();
        let id = self.header.id;
        let header = |bytes: &[u8]| {
            let right = SegmentHeader::decode(bytes)?.id == id
                && fields_checksum(bytes) == self.footer.header_checksum;
            if right {
                Ok(())
            } else {
                Err("the header is not the one that the footer names")
            }
        };
        let mut bad = files.scrub(0, 1, header).await?;
        let units = SegmentFooter::units_for(&self.footer.first_key, &self.footer.last_key);
        let footer = |bytes: &[u8]| {
            let (_, sum) = SegmentFooter::decode(bytes, self.seed, self.footer_unit)?;
            if sum == self.footer_checksum {
                Ok(())
            } else {
                Err("the footer is not the one that the manifest names")
            }
        };
        bad += files.scrub(self.footer_unit, units, footer).await?;
        let place = self.footer.filter;
        let filter = |bytes: &[u8]| {
            let (filter, padding) = bytes.split_at(self.footer.filter_bytes as usize);
            let right = checksum(self.seed.at(place.unit), filter) == place.checksum;
            if right && padding.iter().all(|byte| *byte == 0) {
                Ok(())
            } else {
                Err("the filter does not verify")
            }
        };
        bad += files.scrub(place.unit, place.units, filter).await?;
        bad += self.scrub_block(self.footer.top, BlockKind::Top).await?;
        for leaf_at in 0..self.top().len() {
            let place = Place::decode(self.top().payload(leaf_at));
            bad += self.scrub_block(place, BlockKind::Leaf).await?;
            let leaf = self.read_block(place, BlockKind::Leaf).await?;
            let leaf = BlockView::new(&leaf);
            for at in 0..leaf.len() {
                bad += self
                    .scrub_block(Place::decode(leaf.payload(at)), BlockKind::Data)
                    .await?;
            }
            self.store.runtime.yield_now().await;
        }
        Ok(bad)
    }

    async fn scrub_block(&self, place: Place, kind: BlockKind) -> Result<u64, TreeError> {
        self.files()
            .scrub(place.unit, place.units, |bytes| self.check(bytes, place, kind))
            .await
    }
}

impl<R: Runtime> Drop for Segment<R> {
    fn drop(&mut self) {
        let resident = self.resident_bytes();
        self.store.count(|stats| stats.resident_bytes -= resident);
    }
}

fn check_block(
    bytes: &[u8],
    seed: FileSeed,
    place: Place,
    kind: BlockKind,
    footer: &SegmentFooter,
) -> Result<Rc<[u8]>, &'static str> {
    let used = verify(bytes, seed.at(place.unit), place.checksum, kind)?;
    match kind {
        BlockKind::Data => entry::check_versions(used)?,
        BlockKind::Leaf => entry::check_places(used, footer.data_end)?,
        BlockKind::Top => entry::check_places(used, footer.leaves_end)?,
    }
    Ok(used.into())
}

/// Counts a read in flight, also when its future is dropped.
struct InFlight<'a, D>(&'a DriveSlot<D>);

impl<'a, D> InFlight<'a, D> {
    fn new(slot: &'a DriveSlot<D>) -> InFlight<'a, D> {
        slot.in_flight.set(slot.in_flight.get() + 1);
        InFlight(slot)
    }
}

impl<D> Drop for InFlight<'_, D> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl<R: Runtime> Files<'_, R> {
    /// The live mirrors, the one to ask first first.
    fn order(&self) -> Vec<usize> {
        let count = self.mirrors.len();
        let turn = self.turn.get();
        self.turn.set((turn + 1) % count);
        let mut order: Vec<usize> = (0..count).map(|at| (turn + at) % count).collect();
        order.retain(|at| self.store.is_live(self.mirrors[*at].slot.index));
        order.sort_by_key(|at| self.mirrors[*at].slot.in_flight.get());
        order
    }

    async fn read_mirror(&self, at: usize, unit: u32, units: u32) -> std::io::Result<AlignedBuffer> {
        let mirror = &self.mirrors[at];
        let bytes = units as usize * UNIT_BYTES;
        self.store.count(|stats| {
            stats.device_reads += 1;
            stats.device_read_bytes += bytes as u64;
        });
        let _in_flight = InFlight::new(&mirror.slot);
        mirror
            .file
            .read_at(u64::from(unit) * UNIT_BYTES as u64, bytes)
            .await
    }

    /// Reads from one mirror and checks; what was wrong, in words.
    async fn try_mirror<T>(
        &self,
        at: usize,
        unit: u32,
        units: u32,
        check: &impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Result<(T, AlignedBuffer), String> {
        match self.read_mirror(at, unit, units).await {
            Ok(buffer) => match check(&buffer) {
                Ok(content) => Ok((content, buffer)),
                Err(why) => {
                    self.store.count(|stats| stats.mismatches += 1);
                    Err(why.to_owned())
                }
            },
            Err(error) => {
                self.store.count(|stats| stats.read_errors += 1);
                Err(error.to_string())
            }
        }
    }

    /// A verified read.
    async fn read<T>(
        &self,
        unit: u32,
        units: u32,
        check: impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Result<T, TreeError> {
        let mut bad = Vec::new();
        let mut whys = Vec::new();
        for at in self.order() {
            match self.try_mirror(at, unit, units, &check).await {
                Ok((content, buffer)) => {
                    self.repair(&bad, unit, buffer);
                    return Ok(content);
                }
                Err(why) => {
                    whys.push(format!("drive {}: {why}", self.mirrors[at].slot.index));
                    bad.push(at);
                }
            }
        }
        if whys.is_empty() {
            return Err(TreeError::NoMirror {
                segment: self.reference.0,
            });
        }
        Err(self.corrupt(unit, &whys.join("; ")))
    }

    /// Checks one place on every live mirror and repairs it where it is bad. On how many it was.
    async fn scrub<T>(
        &self,
        unit: u32,
        units: u32,
        check: impl Fn(&[u8]) -> Result<T, &'static str>,
    ) -> Result<u64, TreeError> {
        let mut bad = Vec::new();
        let mut whys = Vec::new();
        let mut good = None;
        for at in self.order() {
            match self.try_mirror(at, unit, units, &check).await {
                Ok((_, buffer)) => good = Some(buffer),
                Err(why) => {
                    whys.push(format!("drive {}: {why}", self.mirrors[at].slot.index));
                    bad.push(at);
                }
            }
        }
        let Some(good) = good else {
            return Err(self.corrupt(unit, &whys.join("; ")));
        };
        self.repair(&bad, unit, good);
        Ok(bad.len() as u64)
    }

    fn corrupt(&self, unit: u32, why: &str) -> TreeError {
        let (segment, partition) = self.reference;
        TreeError::Unreadable {
            segment,
            partition,
            offset: u64::from(unit) * UNIT_BYTES as u64,
            why: why.into(),
        }
    }

    /// Rewrites a place of the mirrors `bad`, each in a task of its own that ends even if the reader goes.
    fn repair(&self, bad: &[usize], unit: u32, good: AlignedBuffer) {
        if bad.is_empty() {
            return;
        }
        let good = Rc::new(good);
        for at in bad {
            let slot = Rc::clone(&self.mirrors[*at].slot);
            if !self.store.is_live(slot.index) {
                continue;
            }
            let place = (self.reference.0, slot.index, unit);
            if !self.store.repairing.borrow_mut().insert(place) {
                continue;
            }
            let store = Rc::clone(self.store);
            let name = self.name.to_owned();
            let good = Rc::clone(&good);
            // Detached: the repair reports to the counters and to the store's hook.
            drop(self.store.task(async move {
                let result = rewrite::<R>(&slot.drive, &name, unit, good).await;
                store.repairing.borrow_mut().remove(&place);
                match result {
                    Ok(()) => store.count(|stats| stats.repairs += 1),
                    Err(error) => {
                        store.count(|stats| stats.repair_failures += 1);
                        // A drive that cannot take its own blocks back must not count as a mirror.
                        let _ = store
                            .report_failed(slot.index, format!("repair of {name}: {error}"))
                            .await;
                    }
                }
            }));
        }
    }
}

async fn rewrite<R: Runtime>(
    drive: &R::Drive,
    name: &str,
    unit: u32,
    good: Rc<AlignedBuffer>,
) -> std::io::Result<()> {
    let file = drive
        .open(
            name,
            Open {
                durable: true,
                ..Open::default()
            },
        )
        .await?;
    file.write_at(u64::from(unit) * UNIT_BYTES as u64, good).await
}
