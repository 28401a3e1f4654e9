//! An open segment: what it keeps in memory, and how a key is found in it.
//!
//! 1. The filter, resident, turns away nearly every key that is not there.
//! 2. The top of the index, resident, gives the leaf; the leaf, cached, gives the data block.
//! 3. The data block is searched in place; a version is handed out as a part of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, Runtime, is_exhaustion};

use super::entry::{self, Place};
use super::layout::{Guard, SegmentFooter, SegmentHeader, fields_checksum};
use super::mirrors::{Files, Mirrors};
use super::{UNIT_BYTES, segment_file_name};
use crate::canary::{self, Canary};
use crate::ids::{CommitTimestamp, PartitionId, SegmentId};
use crate::manifest::SegmentReference;
use crate::tree::block::{BlockKind, BlockView, verify};
use crate::tree::cache::CacheKey;
use crate::tree::codec::Codecs;
use crate::tree::filter::{Filter, GroupHash, KeyHash};
use crate::tree::store::{SegmentStore, TreeError};
use crate::tree::version::Version;
use crate::volume::DriveSet;

/// What a search in memory comes to.
pub(crate) enum Found {
    /// The version.
    Version(Version),
    /// No version of the key is visible here.
    Absent,
    /// This block must be read first.
    Needs(Place, BlockKind),
}

/// An open segment. What it costs in memory is its filter and the top of its index; its files are opened when they
/// are read.
pub struct Segment<R: Runtime> {
    pub(super) store: Rc<SegmentStore<R>>,
    pub(super) name: String,
    pub(super) header: SegmentHeader,
    pub(super) footer: SegmentFooter,
    pub(super) footer_unit: u32,
    pub(super) footer_checksum: u64,
    pub(super) guard: Guard,
    mirrors: RefCell<Mirrors<R>>,
    turn: Cell<usize>,
    filter: Filter,
    top: Rc<[u8]>,
}

impl<R: Runtime> Segment<R> {
    pub(crate) async fn open(
        store: Rc<SegmentStore<R>>,
        reference: &SegmentReference,
    ) -> Result<Segment<R>, TreeError> {
        let name = segment_file_name(reference.id);
        let mut mirrors = Vec::new();
        for index in store.holders(reference.mirrors).iter() {
            let Some(slot) = store.drive(index) else { continue };
            match store.file(reference.id, &slot).await {
                Ok(_) => mirrors.push(slot),
                Err(error) if is_exhaustion(&error) => return Err(TreeError::exhausted(&name, &error)),
                Err(_) if canary::is_in(Canary::GiveUpOnMetadataError) => {
                    return Err(TreeError::NoMirror {
                        segment: reference.id,
                    });
                }
                Err(_) => store.count(|stats| stats.mirrors_missing += 1),
            }
        }
        if mirrors.is_empty() {
            return Err(TreeError::NoMirror {
                segment: reference.id,
            });
        }
        let mirrors: Mirrors<R> = mirrors.into();
        let turn = Cell::new(usize::from(reference.id.0 % 2 == 1));
        let mut files = Files {
            store: &store,
            mirrors: Rc::clone(&mirrors),
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
        let guard = header.guard(&store.keys).map_err(|why| files.corrupt(0, why))?;
        let footer_units = SegmentFooter::units_for(&reference.first_key, &reference.last_key);
        let file_units = u32::try_from(reference.bytes / UNIT_BYTES as u64).unwrap_or(u32::MAX);
        let Some(footer_unit) = file_units.checked_sub(footer_units) else {
            return Err(files.corrupt(0, "the manifest says it is too short"));
        };
        let footer = files.read(footer_unit, footer_units, |bytes| {
            let (footer, sum) = SegmentFooter::decode(bytes, &guard, footer_unit)?;
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
            Filter::parse(&guard.open(footer.filter, footer.filter_bytes, bytes)?)
        });
        let filter = filter.await?;
        let top = files.read(footer.top.unit, footer.top.units, |bytes| {
            check_block(bytes, &guard, footer.top, BlockKind::Top, &footer, &store.codecs)
        });
        let top = top.await?;
        let segment = Segment {
            store,
            name,
            header,
            footer,
            footer_unit,
            footer_checksum: reference.footer_checksum,
            guard,
            mirrors: RefCell::new(mirrors),
            turn,
            filter,
            top,
        };
        let resident = segment.resident_bytes();
        segment.store.charge(|bytes| bytes + resident);
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

    /// Bytes of filter, index top and cipher, in memory for as long as the segment is open.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        (self.filter.resident_bytes() + self.top.len() + self.guard.resident_bytes()) as u64
    }

    pub(crate) fn store(&self) -> &Rc<SegmentStore<R>> {
        &self.store
    }

    pub(crate) fn top(&self) -> BlockView<'_> {
        BlockView::new(&self.top)
    }

    /// Whether the key may be here; false is certain.
    pub(crate) fn may_contain(&self, key: &[u8], hash: KeyHash) -> bool {
        self.filter.may_contain(key, hash)
    }

    /// Whether any key of the group may be here; false is certain.
    pub(crate) fn may_contain_group(&self, group: GroupHash) -> bool {
        self.filter.may_contain_group(group)
    }

    /// A block or leaf that is in the cache.
    pub(crate) fn cached(&self, place: Place) -> Option<Rc<[u8]>> {
        self.cached_for_scan(place, true)
    }

    /// As [`Segment::cached`]; it counts as being asked for only if `marks`.
    pub(super) fn cached_for_scan(&self, place: Place, marks: bool) -> Option<Rc<[u8]>> {
        let key = self.cache_key(place);
        let block = if marks {
            self.store.cache.get(key)
        } else {
            self.store.cache.peek(key)
        };
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
        self.files().read_any(unit, units).await
    }

    /// Verifies a block and copies it, opened and unpacked, out of its buffer.
    pub(crate) fn check(
        &self,
        bytes: &[u8],
        place: Place,
        kind: BlockKind,
    ) -> Result<Rc<[u8]>, &'static str> {
        check_block(bytes, &self.guard, place, kind, &self.footer, &self.store.codecs)
    }

    /// The drives whose file is read.
    pub(crate) fn mirrors(&self) -> DriveSet {
        self.mirrors.borrow().iter().map(|slot| slot.index).collect()
    }

    /// From now on the file is read on those of these drives that are in sync.
    pub(crate) fn hold_on(&self, named: DriveSet) {
        let holders = self.store.holders(named);
        let mirrors: Mirrors<R> = holders
            .iter()
            .filter_map(|index| self.store.drive(index))
            .collect();
        // Without any it fails as before, with what each mirror says.
        if !mirrors.is_empty() {
            *self.mirrors.borrow_mut() = mirrors;
        }
    }

    pub(super) fn files(&self) -> Files<'_, R> {
        Files {
            store: &self.store,
            mirrors: Rc::clone(&self.mirrors.borrow()),
            turn: &self.turn,
            name: &self.name,
            reference: (self.header.id, self.header.partition),
        }
    }
}

impl<R: Runtime> Drop for Segment<R> {
    fn drop(&mut self) {
        let resident = self.resident_bytes();
        self.store.charge(|bytes| bytes - resident);
    }
}

pub(super) fn check_block(
    bytes: &[u8],
    guard: &Guard,
    place: Place,
    kind: BlockKind,
    footer: &SegmentFooter,
    codecs: &Codecs,
) -> Result<Rc<[u8]>, &'static str> {
    let block = verify(bytes, guard.at(place.unit), place.checksum, kind, codecs)?;
    match kind {
        BlockKind::Data => entry::check_versions(&block)?,
        BlockKind::Leaf => entry::check_places(&block, footer.data_end)?,
        BlockKind::Top => entry::check_places(&block, footer.leaves_end)?,
    }
    Ok(block)
}
