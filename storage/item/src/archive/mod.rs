//! The archived item: the bytes that are stored, sent and answered from, without a copy of anything.
//!
//! An rkyv archive: the root is the last thing in the bytes, what it points to stands before it, every pointer is the
//! distance back from itself. The types are our own, because rkyv's stock ones cost 17 bytes per attribute where these
//! cost 13. All of them have alignment 1, so an archive may start anywhere in a block.
//!
//! ```text
//! span        | distance u24 | length u24 |          `length` elements start `distance` bytes before the span itself
//! name        | UTF-8, padded with FE |              up to 6 bytes stand in the name itself, or
//!             | FF | distance u24 | length u16 |     the bytes start `distance` bytes before the name
//! value       | tag u8 | payload, 6 bytes |
//! attribute   | name, 6 bytes | value, 7 bytes |     13 bytes
//! root        | span of attributes |                 6 bytes
//! ```
//!
//! | tag | type | payload |
//! |---|---|---|
//! | 0, 1, 2 | NULL, BOOL false, BOOL true | six zeros |
//! | 3, 4 | S of up to 6 bytes, longer | text padded with FE; span of bytes |
//! | 5, 6 | N of up to 6 bytes, longer | canonical form padded with 00; span of bytes |
//! | 7, 8 | B of up to 5 bytes, longer | bytes, zeros, length in the sixth byte; span of bytes |
//! | 9, 10, 11, 12 | SS, NS, BS, L | span of values |
//! | 13 | M | span of attributes |
//!
//! Integers are little-endian. Spans without elements are six zeros. An item has exactly one archived form:
//! [`archive()`] writes, for each attribute or element in order, what does not fit in it, then the row of entries.
//!
//! [`ItemView::validate`] checks bytes from anywhere in two passes. bytecheck proves that every tag is known and that
//! every span is inside the bytes and disjoint from the others, with a limit on depth; then the rules of the crate
//! (names, sets, numbers, UTF-8, one form) are checked through the safe accessors. After that access costs nothing.

mod layout;
mod read;
mod validate;
mod write;

pub use read::{
    BinarySetView, ItemBytes, ItemView, ListView, MapView, NumberSetView, StringSetView, ValueView,
};
pub use validate::ArchiveError;
pub use write::archive;
