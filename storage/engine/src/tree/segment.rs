//! Segment files: sorted versions of items, written once, mirrored, read in 4 KiB units.
//!
//! The whole format with its diagrams is docs/format-segment.md. In short, all at multiples of 4 KiB:
//!
//! ```text
//! header | data block ... | filter | index leaf ... | index top | footer
//! ```
//!
//! Invariants:
//! - a data block is stored in 1 to 4 units, or as many as its one item needs: it is read by one device read;
//! - every byte is covered by a checksum that something else holds: data blocks' by the leaves, leaves' by
//!   the top, the top's, the filter's and the header's by the footer, the footer's by the manifest; and each is
//!   seeded with the file's salt and its offset, so lost, stale and misdirected writes do not verify;
//! - in an encrypted node everything but the header and the first fields of footer and blocks is sealed;
//! - entries are ordered by key, then from the newest version to the oldest;
//! - a separator of the index is not below the last key of its block and not above the first of the next.

mod cursor;
mod entry;
mod layout;
mod mirrors;
mod packing;
mod reader;
mod scrub;
mod walk;
mod writer;

pub(crate) use cursor::{Access, SegmentCursor};
pub use layout::{SegmentFooter, SegmentHeader};
pub(crate) use reader::Found;
pub use reader::Segment;
pub use scrub::Damage;
pub(crate) use scrub::reference_of_file;
#[doc(hidden)]
pub use walk::read_data_block;
pub use walk::{Piece, walk};
pub use writer::{SegmentFacts, SegmentWriter};

/// Bytes of a unit: what places in a segment count in.
pub const UNIT_BYTES: usize = cairn_runtime::BLOCK_BYTES;

/// The file name of a segment.
#[must_use]
pub fn segment_file_name(id: crate::ids::SegmentId) -> String {
    format!("segment-{id}")
}

/// The segment that a file name stands for, if it is one.
#[must_use]
pub fn segment_of_file_name(name: &str) -> Option<crate::ids::SegmentId> {
    let digits = name
        .strip_prefix("segment-")
        .filter(|digits| digits.len() == 16)?;
    let id = crate::ids::SegmentId(u64::from_str_radix(digits, 16).ok()?);
    (segment_file_name(id) == name).then_some(id)
}
