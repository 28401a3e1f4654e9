//! Items: what a table holds, and every byte form of them.
//!
//! An item is a set of named attribute values of ten types. This room owns the values and their limits, the
//! 38-digit [`Number`], the order-preserving [`StorageKey`], DynamoDB's item size, the archived form that is stored
//! and sent ([`archive()`], [`ItemView`]), and DynamoDB's JSON ([`json`]). It uses nothing else of this workspace.
//!
//! Invariants of every [`Item`], whether owned or archived; the constructors and [`ItemView::validate`] enforce them:
//! - Attributes of an item and of a map are sorted by name (as UTF-8 bytes), names are unique, 1 to 65,535 bytes.
//! - Sets are never empty, sorted (strings and binaries as bytes, numbers by value) and without duplicates.
//! - Numbers are canonical: equal numbers have equal bytes, and the order of the bytes is the order of the numbers.
//! - Values are nested at most [`DEPTH_MAX`] levels deep.
//!
//! Errors carry DynamoDB's message text; their [`ErrorKind`] says which exception the client must be given.

mod archive;
mod error;
pub mod json;
mod key;
mod number;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod value;

pub use archive::{
    ArchiveError, BinarySetView, ItemBytes, ItemView, ListView, MapView, NumberSetView, StringSetView,
    ValueView, archive,
};
pub use error::{ErrorKind, ItemError};
pub use key::{
    KeyCondition, KeyRange, KeyType, KeyValue, PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX, Space, StorageKey,
};
pub use number::{NUMBER_BYTES_MAX, NUMBER_DIGITS_MAX, Number};
pub use value::{Attribute, DEPTH_FAR, DEPTH_MAX, ITEM_BYTES_MAX, Item, NAME_BYTES_MAX, Value, item_size};
