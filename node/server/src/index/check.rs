//! `cairn check`: whether the indexes of every table equal it.
//!
//! For each index two sums are made, over what it must hold by the table's items and over what it holds: the number of entries, and
//! the sum of a hash of each entry's key and content. An index equals its table when the sums are equal, for an entry that is in one
//! only, or differs, changes one sum alone. A global index of which changes still wait in the change sequence is not compared,
//! nor one of which some partition could not be read; that is said. Records of streams must be readable.

use std::collections::{BTreeMap, BTreeSet};

use cairn_engine::PartitionDescriptor;
use cairn_engine::check::Inspector;
use cairn_engine::checksum::checksum;
use cairn_engine::ids::{IndexId, PartitionId, TableId};
use cairn_item::{ItemView, Space, StorageKey};

use super::change::{Change, commit_of};
use super::entry::entry;
use crate::catalog::{PartitionPlace, SYSTEM_TABLE, TableDefinition, TableStatus, hash_of};
use crate::stream::record::{self, Record};

/// Entries and their hashes, summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    entries: u64,
    hash: u64,
}

impl Sum {
    fn add(&mut self, key: &[u8], item: &[u8]) {
        self.entries += 1;
        let hash = checksum(checksum(0, key), item);
        self.hash = self.hash.wrapping_add(hash);
    }
}

/// An operation in the change sequence of a partition.
struct Waiting {
    table: TableId,
    index: IndexId,
    source: PartitionId,
    commit: u64,
    hash: u64,
}

/// Sees everything that a check reads, the catalog first.
#[derive(Default)]
pub struct IndexCheck {
    tables: BTreeMap<TableId, TableDefinition>,
    seen: BTreeSet<PartitionId>,
    current: Option<PartitionDescriptor>,
    expected: BTreeMap<(TableId, IndexId), Sum>,
    found: BTreeMap<(TableId, IndexId), Sum>,
    waiting: Vec<Waiting>,
    /// By the index's partition and the table's: the last commit applied.
    cursors: BTreeMap<(PartitionId, PartitionId), u64>,
    unreadable: Vec<String>,
}

impl IndexCheck {
    fn table_entry(&mut self, item: &[u8]) {
        // The counter, which is no table's entry, is left out.
        let definition = ItemView::validate(item).ok().and_then(TableDefinition::from_item);
        if let Some(definition) = definition {
            self.tables.insert(definition.id, definition);
        }
    }

    fn item(&mut self, table: TableId, item: &[u8], item_bytes: u32) {
        let (Some(definition), Ok(view)) = (self.tables.get(&table), ItemView::validate(item)) else {
            return;
        };
        for index in &definition.indexes {
            if let Some(entry) = entry(definition, index, view, item_bytes) {
                let sum = self.expected.entry((table, index.id)).or_default();
                sum.add(&entry.key, &entry.item);
            }
        }
    }

    fn record(&mut self, partition: &PartitionDescriptor, key: &[u8], record: &[u8]) {
        let (Some(change), Some(commit)) = (Change::decode(record), commit_of(key)) else {
            self.unreadable.push(format!(
                "partition {}: a record of its change sequence cannot be read",
                partition.id
            ));
            return;
        };
        for operation in change.operations {
            self.waiting.push(Waiting {
                table: partition.table,
                index: operation.index,
                source: partition.id,
                commit,
                hash: hash_of(operation.key),
            });
        }
    }

    fn stream_record(&mut self, partition: &PartitionDescriptor, key: &[u8], record: &[u8]) {
        if Record::decode(record).is_none() || record::commit_of(key).is_none() {
            self.unreadable.push(format!(
                "partition {}: a record of a stream cannot be read",
                partition.id
            ));
        }
    }

    fn cursor(&mut self, partition: PartitionId, key: &[u8], item: &[u8]) {
        let source = key.get(9..).and_then(<[u8]>::first_chunk);
        if let (Some(source), Some(commit)) = (source, item.first_chunk()) {
            let source = PartitionId(u64::from_be_bytes(*source));
            self.cursors
                .insert((partition, source), u64::from_be_bytes(*commit));
        }
    }

    /// Changes that wait for an index.
    fn waiting_for(&self, table: TableId, index: IndexId, places: &[PartitionPlace]) -> usize {
        let waits = |waiting: &&Waiting| {
            let place = places.iter().rev().find(|place| place.lower <= waiting.hash);
            let cursor = place.and_then(|place| self.cursors.get(&(place.id, waiting.source)));
            (waiting.table, waiting.index) == (table, index)
                && cursor.is_none_or(|cursor| waiting.commit > *cursor)
        };
        self.waiting.iter().filter(waits).count()
    }
}

impl Inspector for IndexCheck {
    fn partition(&mut self, partition: &PartitionDescriptor) {
        self.seen.insert(partition.id);
        self.current = Some(partition.clone());
    }

    fn entry(&mut self, key: &[u8], item: &[u8], item_bytes: u32) {
        let Some(partition) = self.current.clone() else {
            return;
        };
        let (table, index) = (partition.table, partition.index);
        match (key.first().copied().and_then(Space::from_byte), table, index) {
            (Some(Space::Base), SYSTEM_TABLE, _) => self.table_entry(item),
            (Some(Space::Base), _, IndexId(0)) => self.item(table, item, item_bytes),
            (Some(Space::Base), _, _) => self.found.entry((table, index)).or_default().add(key, item),
            (Some(Space::LocalIndex), _, _) => {
                if let Some(index) = StorageKey::local_index(key) {
                    let sum = self.found.entry((table, IndexId(index))).or_default();
                    sum.add(key, item);
                }
            }
            (Some(Space::Stream), _, IndexId(0)) => self.record(&partition, key, item),
            (Some(Space::Record), _, IndexId(0)) => self.stream_record(&partition, key, item),
            (Some(Space::Cursor), _, _) => self.cursor(partition.id, key, item),
            _ => {}
        }
    }

    fn finish(&mut self, lost: &mut Vec<String>, notes: &mut Vec<String>) {
        lost.append(&mut self.unreadable);
        for definition in self.tables.values() {
            if definition.status != TableStatus::Active {
                continue;
            }
            for index in definition.indexes.iter().filter(|index| index.is_active()) {
                let name = format!("index {} of table {}", index.name, definition.name);
                let own = index.global.as_ref().map_or(&[][..], |global| &global.places);
                let mut places = definition.places.iter().chain(own);
                if !places.all(|place| self.seen.contains(&place.id)) {
                    notes.push(format!("{name}: not compared, as a partition could not be read"));
                    continue;
                }
                let waiting = self.waiting_for(definition.id, index.id, own);
                if waiting > 0 {
                    notes.push(format!("{name}: not compared, as {waiting} changes wait for it"));
                    continue;
                }
                let sum = |sums: &BTreeMap<(TableId, IndexId), Sum>| {
                    sums.get(&(definition.id, index.id)).copied().unwrap_or_default()
                };
                let (expected, found) = (sum(&self.expected), sum(&self.found));
                if expected != found {
                    let (must, has) = (expected.entries, found.entries);
                    lost.push(format!(
                        "{name}: it does not equal its table; it must have {must} entries and has {has}"
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_engine::ids::LogId;
    use cairn_item::{Attribute, Item, KeyType, Value};

    use super::super::change::{Operation, prefix};
    use super::*;
    use crate::catalog::{
        Ceilings, GlobalIndex, IndexDefinition, IndexProjection, IndexStatus, KeyAttribute, SYSTEM_PARTITION,
        ThroughputHistory, Warm, system_table,
    };

    const TABLE: PartitionId = PartitionId(2);
    const GLOBAL: PartitionId = PartitionId(3);

    fn key(name: &str) -> KeyAttribute {
        KeyAttribute {
            name: name.to_owned(),
            kind: KeyType::S,
        }
    }

    fn place(id: PartitionId) -> Vec<PartitionPlace> {
        vec![PartitionPlace {
            id,
            log: LogId(0),
            lower: 0,
        }]
    }

    fn table() -> TableDefinition {
        let index = |id, partition: &str, sort: Option<&str>, global| IndexDefinition {
            id: IndexId(id),
            name: format!("index-{id}"),
            partition_key: vec![key(partition)],
            sort_key: sort.map(key).into_iter().collect(),
            projection: IndexProjection::KeysOnly,
            global,
        };
        let global = GlobalIndex {
            status: IndexStatus::Active,
            units: (0, 0),
            throughput: ThroughputHistory::default(),
            ceilings: Ceilings::default(),
            warm: Warm::default(),
            places: place(GLOBAL),
        };
        TableDefinition {
            id: TableId(1),
            name: "checked".to_owned(),
            partition_key: key("id"),
            sort_key: Some(key("n")),
            attributes: vec![key("id"), key("n"), key("color")],
            indexes: vec![
                index(1, "id", Some("color"), None),
                index(2, "color", None, Some(global)),
            ],
            next_index: 3,
            places: place(TABLE),
            ..system_table()
        }
    }

    fn item(color: &str) -> Vec<u8> {
        let members = [("id", "i"), ("n", "1"), ("color", color), ("more", "m")];
        let item: Item = members
            .iter()
            .map(|(name, text)| Attribute {
                name: (*name).to_owned(),
                value: Value::S((*text).to_owned()),
            })
            .collect();
        cairn_item::archive(&item)
    }

    /// What is said of a table with one red item, when its indexes hold entries of items of these colours.
    fn said(local: Option<&str>, global: Option<&str>, waiting: bool) -> (Vec<String>, Vec<String>) {
        let table = table();
        let mut check = IndexCheck::default();
        let begin = |check: &mut IndexCheck, id, table, index| {
            check.partition(&PartitionDescriptor {
                id,
                table,
                index: IndexId(index),
                lower: vec![1; 9],
                upper: None,
            });
        };
        begin(&mut check, SYSTEM_PARTITION, SYSTEM_TABLE, 0);
        check.entry(&[1; 9], &cairn_item::archive(&table.to_item("a")), 0);
        let entry_of = |place: usize, item: &[u8]| {
            let view = ItemView::validate(item).unwrap();
            let entry = entry(&table, &table.indexes[place], view, 9).unwrap();
            (entry.key, entry.item.into_owned())
        };
        begin(&mut check, TABLE, table.id, 0);
        check.entry(&[1; 9], &item("red"), 9);
        if let Some(color) = local {
            let (key, entry) = entry_of(0, &item(color));
            check.entry(&key, &entry, 9);
        }
        if waiting {
            let (key, _) = entry_of(1, &item("red"));
            let change = Change {
                images: Vec::new(),
                operations: vec![Operation {
                    index: IndexId(2),
                    key: &key,
                    image: None,
                    old_item_bytes: None,
                    is_unsure: false,
                }],
            };
            let mut record_key = prefix(0);
            record_key.extend_from_slice(&7_u64.to_be_bytes());
            check.entry(&record_key, &change.encode(), 0);
        }
        begin(&mut check, GLOBAL, table.id, 2);
        if let Some(color) = global {
            let (key, entry) = entry_of(1, &item(color));
            check.entry(&key, &entry, 9);
        }
        let (mut lost, mut notes) = (Vec::new(), Vec::new());
        check.finish(&mut lost, &mut notes);
        (lost, notes)
    }

    #[test]
    fn an_index_that_does_not_equal_its_table_is_named() {
        let red = Some("red");
        assert_eq!(said(red, red, false), (Vec::new(), Vec::new()));
        for (local, global, index) in [
            (None, red, 1),
            (Some("blue"), red, 1),
            (red, None, 2),
            (red, Some("blue"), 2),
        ] {
            let (lost, notes) = said(local, global, false);
            assert_eq!((lost.len(), notes.len()), (1, 0), "{lost:?}");
            assert!(lost[0].starts_with(&format!(
                "index index-{index} of table checked: it does not equal"
            )));
        }
        let (lost, notes) = said(red, None, true);
        assert_eq!(lost, Vec::<String>::new());
        assert_eq!(
            notes,
            ["index index-2 of table checked: not compared, as 1 changes wait for it"]
        );
    }
}
