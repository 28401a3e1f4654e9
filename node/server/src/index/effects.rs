//! What a write of an item means for the indexes of its table, and what that costs.
//!
//! | before | after | what is done | write units |
//! |---|---|---|---|
//! | no entry | no entry | nothing | - |
//! | no entry | entry | put | of the new entry |
//! | entry | no entry | delete | of the old entry |
//! | entry | the same | nothing | - |
//! | entry | other content, same key | put | of the larger |
//! | entry | other key | delete, put | of both |

use std::rc::Rc;

use cairn_engine::ids::IndexId;
use cairn_engine::{Counter, Derived, StoredRef};
use cairn_item::{ItemView, KeyType, ValueView};

use super::change::{self, Change, Operation};
use super::entry::{Entry, entry};
use crate::api::{ApiError, Capacity};
use crate::catalog::{IndexDefinition, IndexStatus, KeyAttribute, TableDefinition};
use crate::route::stored_view;

/// What follows from a write.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Changes to be made in the same step.
    pub derived: Vec<Derived>,
    /// Capacity taken by each index that changes.
    pub capacity: Vec<(IndexId, Capacity)>,
    /// Length of the record for the change sequence; 0 when there is none.
    pub record_bytes: usize,
    /// One of the changes is a record of a stream.
    pub streams: bool,
    /// By how many bytes the item's collection grows: the item and its entries in local indexes.
    pub growth: i64,
}

/// An item: archived bytes and DynamoDB size.
pub(crate) type Image<'a> = (&'a [u8], u32);

/// An item that a write found, as an image.
pub(crate) fn image_of(stored: StoredRef<'_>) -> Image<'_> {
    (stored.item, stored.item_bytes)
}

/// What replacing `old` by `new` means. `lower` is the least hash that the item's partition owns.
pub(crate) fn effects(
    table: &TableDefinition,
    lower: u64,
    old: Option<Image<'_>>,
    new: Option<Image<'_>>,
) -> Effects {
    let grows =
        |old: Option<u32>, new: Option<u32>| i64::from(new.unwrap_or(0)) - i64::from(old.unwrap_or(0));
    let size = |image: Option<Image<'_>>| image.map(|(_, bytes)| bytes);
    let mut effects = Effects {
        growth: grows(size(old), size(new)),
        ..Effects::default()
    };
    let mut owned = Record::default();
    for index in table.indexes.iter().filter(|index| index.is_fed()) {
        let old = old.and_then(|(item, bytes)| one_entry(table, index, item, bytes));
        let new = new.and_then(|(item, bytes)| one_entry(table, index, item, bytes));
        if index.global.is_none() {
            let size = |entry: &Option<Entry<'_>>| entry.as_ref().map(|entry| entry.item_bytes);
            effects.growth += grows(size(&old), size(&new));
        }
        if let Some(capacity) = capacity(old.as_ref(), new.as_ref()) {
            effects.capacity.push((index.id, capacity));
        } else {
            continue;
        }
        let is_moved = match (&old, &new) {
            (Some(old), Some(new)) => old.key != new.key,
            _ => false,
        };
        match &index.global {
            None => local(&mut effects.derived, index.id, old, new, is_moved),
            Some(global) => {
                let is_unsure = global.status != IndexStatus::Active;
                owned.add(index.id, old, new, is_moved, is_unsure);
            }
        }
    }
    if !owned.operations.is_empty() {
        let record = owned.encode();
        effects.record_bytes = record.len();
        effects.derived.push(record_of(lower, record));
    }
    effects
}

/// The record that enters an item into a global index that is being filled; none when it does not belong there.
pub(crate) fn entered(
    table: &TableDefinition,
    index: &IndexDefinition,
    lower: u64,
    (item, item_bytes): Image<'_>,
) -> Option<Derived> {
    let entry = one_entry(table, index, item, item_bytes)?;
    let mut owned = Record::default();
    owned.add(index.id, None, Some(entry), false, true);
    Some(record_of(lower, owned.encode()))
}

fn one_entry<'a>(
    table: &TableDefinition,
    index: &IndexDefinition,
    item: &'a [u8],
    item_bytes: u32,
) -> Option<Entry<'a>> {
    entry(table, index, stored_view(item), item_bytes)
}

fn record_of(lower: u64, record: Vec<u8>) -> Derived {
    Derived {
        key: change::prefix(lower),
        stamped: true,
        counter: Counter::Nothing,
        put: Some((record.into(), 0)),
        with_item: false,
        old_item_bytes: None,
    }
}

fn capacity(old: Option<&Entry<'_>>, new: Option<&Entry<'_>>) -> Option<Capacity> {
    let bytes = |entry: Option<&Entry<'_>>| entry.map_or(0, |entry| entry.item_bytes);
    match (old, new) {
        (None, None) => None,
        (Some(old), Some(new)) if old.key != new.key => {
            let of = |entry: &Entry<'_>| Capacity::of_write(entry.item_bytes, 0);
            Some(of(old).plus(of(new)))
        }
        (Some(old), Some(new)) if old.item == new.item => None,
        (old, new) => Some(Capacity::of_write(bytes(old), bytes(new))),
    }
}

fn local(
    derived: &mut Vec<Derived>,
    index: IndexId,
    old: Option<Entry<'_>>,
    new: Option<Entry<'_>>,
    is_moved: bool,
) {
    let mut old_item_bytes = old.as_ref().map(|old| old.item_bytes);
    let counter = Counter::Index(index);
    if let Some(old) = old.filter(|_| is_moved || new.is_none()) {
        derived.push(Derived {
            key: old.key,
            stamped: false,
            counter,
            put: None,
            with_item: false,
            old_item_bytes: old_item_bytes.take(),
        });
    }
    if let Some(new) = new {
        derived.push(Derived {
            key: new.key,
            stamped: false,
            counter,
            put: Some((Rc::from(&*new.item), new.item_bytes)),
            with_item: false,
            old_item_bytes,
        });
    }
}

/// A record of the change sequence in the making.
#[derive(Default)]
struct Record {
    images: Vec<(Vec<u8>, u32)>,
    operations: Vec<OwnedOperation>,
}

/// An [`Operation`] with a key of its own.
struct OwnedOperation {
    index: IndexId,
    key: Vec<u8>,
    image: Option<usize>,
    old_item_bytes: Option<u32>,
    is_unsure: bool,
}

impl Record {
    fn add(
        &mut self,
        index: IndexId,
        old: Option<Entry<'_>>,
        new: Option<Entry<'_>>,
        is_moved: bool,
        is_unsure: bool,
    ) {
        let mut old_item_bytes = old.as_ref().map(|old| old.item_bytes);
        if let Some(old) = old.filter(|_| is_moved || new.is_none()) {
            self.operations.push(OwnedOperation {
                index,
                key: old.key,
                image: None,
                old_item_bytes: old_item_bytes.take(),
                is_unsure,
            });
        }
        if let Some(new) = new {
            let known = self.images.iter().position(|(item, _)| **item == *new.item);
            let image = known.unwrap_or_else(|| {
                self.images.push((new.item.into_owned(), new.item_bytes));
                self.images.len() - 1
            });
            self.operations.push(OwnedOperation {
                index,
                key: new.key,
                image: Some(image),
                old_item_bytes,
                is_unsure,
            });
        }
    }

    fn encode(&self) -> Vec<u8> {
        let images = self.images.iter().map(|(item, bytes)| (item.as_slice(), *bytes));
        let operations = self.operations.iter().map(|operation| Operation {
            index: operation.index,
            key: &operation.key,
            image: operation.image,
            old_item_bytes: operation.old_item_bytes,
            is_unsure: operation.is_unsure,
        });
        Change {
            images: images.collect(),
            operations: operations.collect(),
        }
        .encode()
    }
}

/// Refuses an item whose attributes cannot be keys of an index though they are its key attributes. Of an update, which `before`
/// tells, only what it changed is looked at. Of several wrong ones the index is named whose name comes first.
///
/// # Errors
/// DynamoDB's words.
pub(crate) fn check_keys(
    table: &TableDefinition,
    before: Option<Option<ItemView<'_>>>,
    item: ItemView<'_>,
) -> Result<(), ApiError> {
    let mut wrong: Option<(&IndexDefinition, &KeyAttribute, ValueView<'_>)> = None;
    for index in table.indexes.iter().filter(|index| index.is_fed()) {
        let own = index.keys().skip(usize::from(index.global.is_none()));
        for key in own {
            let Some(value) = item.get(&key.name) else {
                continue;
            };
            let unchanged = before.flatten().and_then(|before| before.get(&key.name)) == Some(value);
            let first = wrong.is_none_or(|(other, _, _)| index.name < other.name);
            if !unchanged && first && !can_be_key(index, key, value) {
                wrong = Some((index, key, value));
            }
        }
    }
    match wrong {
        Some((index, key, value)) => Err(refusal(index, key, value, before.is_some())),
        None => Ok(()),
    }
}

fn length(value: ValueView<'_>) -> usize {
    match value {
        ValueView::S(text) => text.len(),
        ValueView::B(bytes) => bytes.len(),
        _ => 1,
    }
}

fn bytes_max(index: &IndexDefinition, key: &KeyAttribute) -> usize {
    if index.partition_key.contains(key) {
        cairn_item::PARTITION_KEY_BYTES_MAX
    } else {
        cairn_item::SORT_KEY_BYTES_MAX
    }
}

fn is_of_type(key: &KeyAttribute, value: ValueView<'_>) -> bool {
    matches!(
        (value, key.kind),
        (ValueView::S(_), KeyType::S) | (ValueView::N(_), KeyType::N) | (ValueView::B(_), KeyType::B)
    )
}

fn can_be_key(index: &IndexDefinition, key: &KeyAttribute, value: ValueView<'_>) -> bool {
    is_of_type(key, value) && (1..=bytes_max(index, key)).contains(&length(value))
}

fn refusal(index: &IndexDefinition, key: &KeyAttribute, value: ValueView<'_>, of_update: bool) -> ApiError {
    let (name, index_name) = (&key.name, &index.name);
    if !is_of_type(key, value) {
        let (expected, actual) = (key.kind.name(), value.type_name());
        return ApiError::parameters(format!(
            "Type mismatch for Index Key {name} Expected: {expected} Actual: {actual} IndexName: {index_name}"
        ));
    }
    if length(value) > 0 {
        let (actual, most) = (length(value), bytes_max(index, key));
        return ApiError::parameters(format!(
            "Size limit exceeded for Index Key {name} Actual Size: {actual} bytes Max Size: {most} bytes IndexName: \
             {index_name}"
        ));
    }
    let kind = if key.kind == KeyType::S {
        "string"
    } else {
        "binary"
    };
    ApiError::validation(if of_update {
        format!(
            "One or more parameter values are not valid. The update expression attempted to update a secondary index key \
             to a value that is not supported. The AttributeValue for a key attribute cannot contain an empty {kind} value."
        )
    } else {
        format!(
            "One or more parameter values are not valid. A value specified for a secondary index key is not supported. The \
             AttributeValue for a key attribute cannot contain an empty {kind} value. IndexName: {index_name}, IndexKey: \
             {name}"
        )
    })
}
