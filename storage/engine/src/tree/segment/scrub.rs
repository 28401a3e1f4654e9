//! Verifying a whole segment, and looking into one without its manifest.

use cairn_runtime::{Drive, File, Open, Runtime};

use super::entry::{self, Place};
use super::layout::{SegmentFooter, SegmentHeader, fields_checksum};
use super::reader::Segment;
use super::{UNIT_BYTES, segment_file_name, segment_of_file_name};
use crate::manifest::SegmentReference;
use crate::sealing::TableKeys;
use crate::tree::block::{BlockKind, BlockView};
use crate::tree::store::TreeError;
use crate::tree::version::Version;
use crate::volume::DriveIndex;

/// A place of a segment's file that does not verify on one drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The drive.
    pub drive: DriveIndex,
    /// Where the place begins, in bytes.
    pub offset: u64,
    /// What is wrong, in words.
    pub why: String,
    /// Whether no mirror has the place whole.
    pub lost: bool,
}

impl<R: Runtime> Segment<R> {
    /// Verifies every byte of every live mirror and changes nothing. What a damaged leaf refers to on all mirrors
    /// cannot be found and is not looked at.
    pub async fn verify(&self) -> Vec<Damage> {
        self.scrub_all(false, &async |_| ()).await
    }

    /// As [`Segment::verify`], and rewrites bad places from another mirror, in tasks of their own.
    pub async fn scrub(&self) -> Vec<Damage> {
        self.scrub_all(true, &async |_| ()).await
    }

    /// As [`Segment::verify`], at the pace of [`Segment::scrub_paced`].
    pub async fn verify_paced(&self, pace: &impl AsyncFn(u64)) -> Vec<Damage> {
        self.scrub_all(false, pace).await
    }

    /// As [`Segment::scrub`]; awaits `pace` with the bytes read since it was last called, after every block.
    pub async fn scrub_paced(&self, pace: &impl AsyncFn(u64)) -> Vec<Damage> {
        self.scrub_all(true, pace).await
    }

    async fn scrub_all(&self, repair: bool, pace: &impl AsyncFn(u64)) -> Vec<Damage> {
        let files = self.files();
        let mirrors = self.mirrors().count() as u64;
        let bytes = |place: Place| u64::from(place.units) * UNIT_BYTES as u64 * mirrors;
        let id = self.header.id;
        let header = |bytes: &[u8]| {
            let whole = fields_checksum(bytes) == self.footer.header_checksum;
            let right = SegmentHeader::decode(bytes)?.id == id && whole;
            if right {
                Ok(())
            } else {
                Err("the header is not the one that the footer names")
            }
        };
        let mut damages = files.scrub(0, 1, repair, header).await;
        let units = SegmentFooter::units_for(&self.footer.first_key, &self.footer.last_key);
        let footer = |bytes: &[u8]| {
            let (_, sum) = SegmentFooter::decode(bytes, &self.guard, self.footer_unit)?;
            let right = sum == self.footer_checksum;
            if right {
                Ok(())
            } else {
                Err("the footer is not the one that the manifest names")
            }
        };
        damages.extend(files.scrub(self.footer_unit, units, repair, footer).await);
        let place = self.footer.filter;
        let filter = |bytes: &[u8]| {
            let opened = self.guard.open(place, self.footer.filter_bytes, bytes);
            opened.map(drop)
        };
        damages.extend(files.scrub(place.unit, place.units, repair, filter).await);
        pace(bytes(place)).await;
        damages.extend(self.scrub_block(self.footer.top, BlockKind::Top, repair).await);
        for leaf_at in 0..self.top().len() {
            let place = Place::decode(self.top().payload(leaf_at));
            damages.extend(self.scrub_block(place, BlockKind::Leaf, repair).await);
            pace(bytes(place)).await;
            // A leaf that is lost has been noted; what it refers to cannot be found.
            let Ok(leaf) = self.read_block(place, BlockKind::Leaf).await else {
                continue;
            };
            let leaf = BlockView::new(&leaf);
            for at in 0..leaf.len() {
                let place = Place::decode(leaf.payload(at));
                damages.extend(self.scrub_block(place, BlockKind::Data, repair).await);
                pace(bytes(place)).await;
            }
            self.store.runtime.yield_now().await;
        }
        damages
    }

    async fn scrub_block(&self, place: Place, kind: BlockKind, repair: bool) -> Vec<Damage> {
        let check = |bytes: &[u8]| self.check(bytes, place, kind);
        self.files().scrub(place.unit, place.units, repair, check).await
    }

    /// Hands every version of the file, tombstones included, to `see`, in order.
    ///
    /// # Errors
    /// [`TreeError::Unreadable`] at the first block that no mirror has.
    pub async fn for_each_version(&self, mut see: impl FnMut(&[u8], &Version)) -> Result<(), TreeError> {
        let mut key = Vec::new();
        for leaf_at in 0..self.top().len() {
            let leaf = self
                .read_block(Place::decode(self.top().payload(leaf_at)), BlockKind::Leaf)
                .await?;
            let leaf = BlockView::new(&leaf);
            for at in 0..leaf.len() {
                let block = self
                    .read_block(Place::decode(leaf.payload(at)), BlockKind::Data)
                    .await?;
                let view = BlockView::new(&block);
                for entry in 0..view.len() {
                    view.key_into(entry, &mut key);
                    see(&key, &entry::version_of(&block, view, entry));
                }
            }
        }
        Ok(())
    }
}

/// A reference to the segment file `name`, made from the file itself, to look into it without a manifest. What only the
/// manifest knows is made up: it has level 0, no clip, and names only the mirror `index`, where `drive` stands in the store
/// that opens it.
///
/// # Errors
/// What is wrong with the file, in words.
pub(crate) async fn reference_of_file<D: Drive>(
    drive: &D,
    index: DriveIndex,
    name: &str,
    keys: &TableKeys,
) -> Result<SegmentReference, String> {
    let id = segment_of_file_name(name).ok_or_else(|| format!("{name} is not named as a segment"))?;
    let words = |error: std::io::Error| format!("{name}: {error}");
    let file = drive
        .open(
            &segment_file_name(id),
            Open {
                read_only: true,
                ..Open::default()
            },
        )
        .await;
    let file = file.map_err(words)?;
    let bytes = file.bytes().map_err(words)?;
    let units = u32::try_from(bytes / UNIT_BYTES as u64).unwrap_or(u32::MAX);
    if units < 2 || u64::from(units) * UNIT_BYTES as u64 != bytes {
        return Err(format!("{name}: {bytes} bytes are no segment"));
    }
    let header = SegmentHeader::decode(&file.read_at(0, UNIT_BYTES).await.map_err(words)?)?;
    let guard = header.guard(keys)?;
    let last = file
        .read_at(bytes - UNIT_BYTES as u64, UNIT_BYTES)
        .await
        .map_err(words)?;
    let footer_units = SegmentFooter::units(&last)?;
    let footer_unit = units
        .checked_sub(footer_units)
        .ok_or("the footer is longer than the file")?;
    let footer = file.read_at(
        u64::from(footer_unit) * UNIT_BYTES as u64,
        footer_units as usize * UNIT_BYTES,
    );
    let (footer, sum) = SegmentFooter::decode(&footer.await.map_err(words)?, &guard, footer_unit)?;
    Ok(SegmentReference {
        id,
        level: 0,
        mirrors: [index].into_iter().collect(),
        bytes,
        footer_checksum: sum,
        first_key: footer.first_key,
        last_key: footer.last_key,
        clip_lower: None,
        clip_upper: None,
        commit_min: footer.commit_min,
        commit_max: footer.commit_max,
        entries: footer.entries,
        tombstones: footer.tombstones,
    })
}
