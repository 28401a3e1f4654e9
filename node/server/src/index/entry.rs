//! The entry that an item has in an index.
//!
//! An item is in an index exactly if it has all the index's key attributes, of the types that the table defines, neither empty nor
//! too long. Its entry holds the keys of index and table, and what the index projects; its key begins with the index's and ends
//! with the table's, so that every item has a key of its own.

use std::borrow::Cow;

use cairn_item::{Attribute, Item, ItemBytes, ItemView, KeyValue, StorageKey};

use crate::catalog::{IndexDefinition, IndexProjection, KeyAttribute, TableDefinition};

/// An entry of an index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Its storage key.
    pub key: Vec<u8>,
    /// Archived bytes: the item's own when everything is projected.
    pub item: Cow<'a, [u8]>,
    /// DynamoDB size in bytes.
    pub item_bytes: u32,
}

/// The entry of an item of `item_bytes` bytes.
pub(crate) fn entry<'a>(
    table: &TableDefinition,
    index: &IndexDefinition,
    item: ItemView<'a>,
    item_bytes: u32,
) -> Option<Entry<'a>> {
    let key = key(table, index, item)?;
    if index.projection == IndexProjection::All {
        return Some(Entry {
            key,
            item: Cow::Borrowed(item.as_bytes()),
            item_bytes,
        });
    }
    let projected = item.iter().filter(|(name, _)| projects(table, index, name));
    let projected: Item = projected
        .map(|(name, value)| Attribute {
            name: name.to_owned(),
            value: value.to_value(),
        })
        .collect();
    Some(Entry {
        key,
        item_bytes: u32::try_from(projected.size()).expect("not larger than the item"),
        item: Cow::Owned(ItemBytes::from_item(&projected).into_vec()),
    })
}

/// Whether the entries of an index hold the attribute `name`.
pub(crate) fn projects(table: &TableDefinition, index: &IndexDefinition, name: &str) -> bool {
    let of_table = std::iter::once(&table.partition_key).chain(&table.sort_key);
    let is_key = index.keys().chain(of_table).any(|key| key.name == name);
    is_key
        || match &index.projection {
            IndexProjection::All => true,
            IndexProjection::KeysOnly => false,
            IndexProjection::Include(names) => names.iter().any(|other| other == name),
        }
}

fn key(table: &TableDefinition, index: &IndexDefinition, item: ItemView<'_>) -> Option<Vec<u8>> {
    let value = |key: &KeyAttribute| KeyValue::from_item_view(item, &key.name, key.kind).ok();
    let partition: Option<Vec<KeyValue>> = index
        .partition_key
        .iter()
        .map(|key| value(key).filter(|value| value.check_partition_key().is_ok()))
        .collect();
    let partition = partition?;
    let mut bytes = match index.global {
        Some(_) => StorageKey::global_index_prefix(table.seed, &partition),
        None => StorageKey::local_index_prefix(table.seed, index.id.0, &partition[0]),
    };
    for key in &index.sort_key {
        let value = value(key).filter(|value| value.check_sort_key().is_ok())?;
        StorageKey::push(&mut bytes, &value);
    }
    if index.global.is_some() {
        StorageKey::push(&mut bytes, &value(&table.partition_key)?);
    }
    if let Some(sort_key) = &table.sort_key {
        StorageKey::push(&mut bytes, &value(sort_key)?);
    }
    // Only several values of the greatest lengths, most of their bytes zeros, come to this.
    (bytes.len() <= cairn_engine::mutation::KEY_BYTES_MAX).then_some(bytes)
}
