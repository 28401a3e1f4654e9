//! What stands behind a key in a block.
//!
//! ```text
//! data   | flags u8 | commit u64 | item size u32 | origin, 10 bytes if flag 2 | transaction u128 if flag 4 | item |
//!        flags: 1 tombstone, 2 origin timestamp u64 and region u16, 4 transaction; others are refused
//! index  | unit u32 | units u32 | checksum u64 |
//! ```

use std::rc::Rc;

use crate::ids::CommitTimestamp;
use crate::mutation::{MutationKind, OriginTimestamp, Provenance, RegionId, TransactionId};
use crate::tree::block::BlockView;
use crate::tree::version::{ItemHandle, Version};

const TOMBSTONE: u8 = 1;
const ORIGIN: u8 = 2;
const TRANSACTION: u8 = 4;

/// Bytes before the optional fields.
const FIXED_BYTES: usize = 13;

fn flags(version: &Version) -> u8 {
    let mut flags = if version.is_tombstone() { TOMBSTONE } else { 0 };
    if let Some(provenance) = &version.provenance {
        if provenance.timestamp != OriginTimestamp(0) || provenance.region != RegionId(0) {
            flags |= ORIGIN;
        }
        if provenance.transaction != TransactionId(0) {
            flags |= TRANSACTION;
        }
    }
    flags
}

fn stamp_bytes(flags: u8) -> usize {
    FIXED_BYTES + if flags & ORIGIN != 0 { 10 } else { 0 } + if flags & TRANSACTION != 0 { 16 } else { 0 }
}

/// Bytes that [`put_version`] appends.
pub(super) fn version_bytes(version: &Version) -> usize {
    stamp_bytes(flags(version)) + version.item.len()
}

pub(super) fn put_version(version: &Version, into: &mut Vec<u8>) {
    let flags = flags(version);
    into.push(flags);
    into.extend_from_slice(&version.commit.0.to_le_bytes());
    into.extend_from_slice(&version.item_bytes.to_le_bytes());
    if let Some(provenance) = &version.provenance {
        if flags & ORIGIN != 0 {
            into.extend_from_slice(&provenance.timestamp.0.to_le_bytes());
            into.extend_from_slice(&provenance.region.0.to_le_bytes());
        }
        if flags & TRANSACTION != 0 {
            into.extend_from_slice(&provenance.transaction.0.to_le_bytes());
        }
    }
    into.extend_from_slice(&version.item);
}

/// Checks what [`commit_of`] and [`version_of`] trust, for every entry of a data block.
pub(super) fn check_versions(block: &[u8]) -> Result<(), &'static str> {
    let view = BlockView::new(block);
    for entry in 0..view.len() {
        let payload = view.payload(entry);
        let flags = *payload.first().ok_or("a version is too short")?;
        if flags & !(TOMBSTONE | ORIGIN | TRANSACTION) != 0 {
            return Err("a version has unknown flags");
        }
        if payload.len() < stamp_bytes(flags) {
            return Err("a version is too short");
        }
    }
    Ok(())
}

pub(super) fn commit_of(payload: &[u8]) -> CommitTimestamp {
    CommitTimestamp(u64::from_le_bytes(array(payload, 1)))
}

/// A version in place; `block` is what `view` shows.
pub(super) fn version_of(block: &Rc<[u8]>, view: BlockView<'_>, entry: usize) -> Version {
    let (start, end) = view.payload_range(entry);
    let payload = &block[start..end];
    let flags = payload[0];
    let mut at = FIXED_BYTES;
    let mut provenance = Provenance::default();
    if flags & ORIGIN != 0 {
        provenance.timestamp = OriginTimestamp(u64::from_le_bytes(array(payload, at)));
        provenance.region = RegionId(u16::from_le_bytes(array(payload, at + 8)));
        at += 10;
    }
    if flags & TRANSACTION != 0 {
        provenance.transaction = TransactionId(u128::from_le_bytes(array(payload, at)));
        at += 16;
    }
    Version {
        commit: commit_of(payload),
        kind: if flags & TOMBSTONE != 0 {
            MutationKind::Delete
        } else {
            MutationKind::Put
        },
        item_bytes: u32::from_le_bytes(array(payload, 9)),
        provenance: (flags & (ORIGIN | TRANSACTION) != 0).then(|| Rc::new(provenance)),
        item: ItemHandle::part(Rc::clone(block), start + at, end),
    }
}

/// Where a block lies and what it must sum up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// First unit.
    pub(crate) unit: u32,
    /// Number of units.
    pub(crate) units: u32,
    /// The block's checksum.
    pub(crate) checksum: u64,
}

/// Bytes of a [`Place`].
pub(super) const PLACE_BYTES: usize = 16;

impl Place {
    pub(super) fn encode(self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[..4].copy_from_slice(&self.unit.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.units.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    /// `payload` has been through [`check_places`].
    pub(super) fn decode(payload: &[u8]) -> Place {
        Place {
            unit: u32::from_le_bytes(array(payload, 0)),
            units: u32::from_le_bytes(array(payload, 4)),
            checksum: u64::from_le_bytes(array(payload, 8)),
        }
    }
}

/// Checks what [`Place::decode`] trusts, for every entry of an index block: places below unit `end`.
pub(super) fn check_places(block: &[u8], end: u32) -> Result<(), &'static str> {
    let view = BlockView::new(block);
    for entry in 0..view.len() {
        let payload = view.payload(entry);
        if payload.len() != PLACE_BYTES {
            return Err("a place in the index has another length");
        }
        let place = Place::decode(payload);
        if place.units == 0
            || place
                .unit
                .checked_add(place.units)
                .is_none_or(|place_end| place_end > end)
        {
            return Err("a place in the index lies outside of the file");
        }
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("checked when the block was read")
}
