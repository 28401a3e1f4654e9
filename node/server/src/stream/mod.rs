//! Streams: every change of a table's items, in order, for those who read them.
//!
//! - [`record`]: the records;
//! - [`read`]: how they are read, on the shard that has the partition;
//! - [`trim`]: how they go.
//!
//! **Invariants**
//! 1. What a change of an item means for the stream is a record in the same step of the partition's chain as the change, under a key
//!    that ends with its commit timestamp: it is there once when the change is, and never without it.
//! 2. A change that leaves the item as it was has no record, nor has a deletion of nothing.
//! 3. The shard that owns a partition decides by its own copy of the catalog, at the moment of the decision, whether there is a record
//!    and of which stream: a stream that all shards have heard of misses no later change.
//! 4. Records are applied in the order of their timestamps, so that whoever has read up to one has missed none below it.
//! 5. A record that is older than its time is read by nobody, wherever it still is.
//!
//! A partition's records of one stream are a **shard** of the stream, in DynamoDB's words. Shards have no parents as long as
//! partitions are not split.

pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod trim;

use cairn_engine::ids::CommitTimestamp;
use cairn_engine::{Counter, Derived};

use crate::catalog::TableDefinition;
use crate::index::effects::Image;
use record::{Event, Record};

/// A change of an item, as a stream sees it.
pub(crate) struct ItemChange<'a> {
    /// The item's storage key.
    pub key: &'a [u8],
    pub old: Option<Image<'a>>,
    pub new: Option<Image<'a>>,
    /// The item was deleted because it had expired.
    pub is_expiry: bool,
}

/// The record that a change is to have in the table's stream; none without one, or when nothing is changed. `lower` is the least
/// hash that the item's partition owns. The change itself must put `new`: the record goes on with it.
/// No write fails for its record: images that are too large to be stored in one piece are left out of it, the old one first.
pub(crate) fn derived(table: &TableDefinition, lower: u64, change: &ItemChange<'_>) -> Option<Derived> {
    let stream = table.settings.stream()?;
    let (event, old, new) = match (change.old, change.new) {
        (None, None) => return None,
        (Some(old), Some(new)) if old.0 == new.0 => return None,
        (None, new) => (Event::Insert, None, new),
        (old, None) => (Event::Remove, old, None),
        (old, new) => (Event::Modify, old, new),
    };
    let mut record = Record {
        event,
        view: stream.view,
        is_expiry: change.is_expiry,
        is_cut: false,
        key: change.key,
        old: old.filter(|_| stream.view.has_old()),
        new: new.filter(|_| stream.view.has_new()),
    };
    if record.is_too_large() {
        record.old = None;
        record.is_cut = true;
    }
    if record.is_too_large() {
        record.new = None;
    }
    Some(Derived {
        key: record::prefix(lower, stream.created_ms),
        stamped: true,
        counter: Counter::Nothing,
        put: Some((record.encode_but_new().into(), 0)),
        with_item: record.new.is_some(),
        old_item_bytes: None,
    })
}

/// The least commit timestamp of records that are not older than `kept_ms`.
pub(crate) fn horizon(kept_ms: u64, now_ms: u64) -> u64 {
    CommitTimestamp::from_unix_ms(now_ms.saturating_sub(kept_ms)).0
}
