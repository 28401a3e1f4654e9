//! Walking through the bytes of a whole segment file, without drives and without a manifest.

use std::rc::Rc;

use super::UNIT_BYTES;
use super::entry::{self, Place};
use super::layout::{Guard, SegmentFooter, SegmentHeader, fields_checksum};
use crate::sealing::TableKeys;
use crate::tree::block::{At, BlockKind, BlockView};
use crate::tree::codec::Codecs;
use crate::tree::filter::Filter;
use crate::tree::segment::reader::check_block;
use crate::tree::version::Version;

/// What a walk meets, in this order: header, footer, then each data block and its versions.
#[derive(Debug)]
pub enum Piece<'a> {
    /// What the file says it is.
    Header(&'a SegmentHeader),
    /// What the file says it holds.
    Footer(&'a SegmentFooter),
    /// A data block begins.
    Block {
        /// Its first unit.
        unit: u32,
        /// Its units.
        units: u32,
    },
    /// A version, tombstones included.
    Version {
        /// The key.
        key: &'a [u8],
        /// The version.
        version: &'a Version,
    },
}

/// Verifies the bytes of a segment file and hands what they hold to `see`.
///
/// # Errors
/// The first thing that does not verify, in words with its place; any bytes are safe.
pub fn walk(bytes: &[u8], see: &mut dyn FnMut(Piece<'_>)) -> Result<(), String> {
    let file = Bytes {
        bytes,
        codecs: Codecs::default(),
    };
    let units = u32::try_from(bytes.len() / UNIT_BYTES).map_err(|_| "the file is too long".to_owned())?;
    if units < 2 || !bytes.len().is_multiple_of(UNIT_BYTES) {
        return Err(format!("{} bytes are no segment", bytes.len()));
    }
    let header = SegmentHeader::decode(file.units(0, 1)?)?;
    see(Piece::Header(&header));
    // Without drives there is no key: what is sealed is not looked into.
    let guard = header.guard(&TableKeys::default())?;
    let footer_units = SegmentFooter::units(file.units(units - 1, 1)?)?;
    let footer_unit = units
        .checked_sub(footer_units)
        .ok_or("the footer is longer than the file")?;
    let (footer, _) = SegmentFooter::decode(file.units(footer_unit, footer_units)?, &guard, footer_unit)?;
    see(Piece::Footer(&footer));
    if footer.header_checksum != fields_checksum(bytes) {
        return Err("the header is not the one that the footer names".to_owned());
    }
    let place = footer.filter;
    Filter::parse(&guard.open(place, footer.filter_bytes, file.units(place.unit, place.units)?)?)?;
    let top = file.block(footer.top, BlockKind::Top, &guard, &footer)?;
    let mut key = Vec::new();
    for place in places(&top) {
        let leaf = file.block(place, BlockKind::Leaf, &guard, &footer)?;
        for place in places(&leaf) {
            see(Piece::Block {
                unit: place.unit,
                units: place.units,
            });
            let block = file.block(place, BlockKind::Data, &guard, &footer)?;
            let view = BlockView::new(&block);
            for entry in 0..view.len() {
                view.key_into(entry, &mut key);
                let version = entry::version_of(&block, view, entry);
                see(Piece::Version {
                    key: &key,
                    version: &version,
                });
            }
        }
    }
    Ok(())
}

/// For fuzzing: reads `bytes` as a data block whose checksum is right, whatever they are; how many versions it has.
#[doc(hidden)]
pub fn read_data_block(bytes: &[u8]) -> Result<usize, &'static str> {
    let mut block = bytes.to_vec();
    let used = crate::tree::block::used_bytes(&block)?.len();
    let sum = crate::tree::block::seal(&mut block[..used], 1);
    let codecs = Codecs::default();
    let block = crate::tree::block::verify(&block, At::plain(1), sum, BlockKind::Data, &codecs)?;
    entry::check_versions(&block)?;
    let view = BlockView::new(&block);
    let mut key = Vec::new();
    for entry in 0..view.len() {
        view.key_into(entry, &mut key);
        let version = entry::version_of(&block, view, entry);
        assert!(version.item.len() <= block.len() && key.len() <= block.len());
    }
    Ok(view.len())
}

fn places(block: &[u8]) -> impl Iterator<Item = Place> {
    let view = BlockView::new(block);
    (0..view.len()).map(move |at| Place::decode(view.payload(at)))
}

struct Bytes<'a> {
    bytes: &'a [u8],
    codecs: Codecs,
}

impl<'a> Bytes<'a> {
    fn units(&self, unit: u32, units: u32) -> Result<&'a [u8], String> {
        let start = unit as usize * UNIT_BYTES;
        let found = self.bytes.get(start..start + units as usize * UNIT_BYTES);
        found.ok_or_else(|| format!("unit {unit} lies beyond the end of the file"))
    }

    fn block(
        &self,
        place: Place,
        kind: BlockKind,
        guard: &Guard,
        footer: &SegmentFooter,
    ) -> Result<Rc<[u8]>, String> {
        let bytes = self.units(place.unit, place.units)?;
        let checked = check_block(bytes, guard, place, kind, footer, &self.codecs);
        checked.map_err(|why| format!("unit {}: {why}", place.unit))
    }
}
