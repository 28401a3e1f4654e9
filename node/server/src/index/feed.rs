//! What takes the changes of a partition to the global indexes of its table.
//!
//! One feeder for each partition of a table with global indexes, on the partition's shard:
//! 1. It reads the next records of the change sequence, in order, at most [`RECORDS_MAX`] and some [`BYTES_MAX`].
//! 2. What they mean for one partition of an index is one message; all go at once, through the routing layer.
//! 3. The index's partition drops what it has applied already, by its **cursor** for this sequence, and makes the rest and
//!    the new cursor one step of its chain ([`apply`]).
//! 4. When all have answered, the feeder goes on. A failure is tried again, all of it, after a pause: what was applied is
//!    dropped by the cursors. Messages of one feeder never overtake each other, as it waits for the answers.
//! 5. Records that all indexes have applied are deleted, many in one step: when enough have come together, or nothing else
//!    is to be done.
//!
//! After a crash the feeder begins with the first record that is left; cursors drop what was applied.
//!
//! A cursor is kept under `| 6 u8 | least hash of the index's partition u64 BE | id of the table's partition u64 BE |`; its content
//! is the commit timestamp of the last record applied, u64 BE.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::ids::PartitionId;
use cairn_engine::{
    Change as EngineChange, Counter, Decision, Derived, Direction, Engine, Range, Stored, StoredRef,
};
use cairn_item::{Space, StorageKey};
use cairn_runtime::Runtime;
use futures_util::future::join_all;

use super::Indexed;
use super::change::{Change, commit_of, prefix};
use crate::api::ApiError;
use crate::catalog::{Table, hash_of};
use crate::route::{Router, Target};

/// Records that are taken at once.
const RECORDS_MAX: usize = 256;
/// Records are taken until they have this many bytes together.
const BYTES_MAX: usize = 1 << 20;
/// Records that are deleted in one step.
const TRIM_MAX: usize = 1024;
/// Pauses after a failure: doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// When to look for a record whose writer has gone away.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const _: () = assert!(2 * RECORDS_MAX < cairn_engine::group::GROUP_CHANGES_MAX);
const _: () = assert!(TRIM_MAX < cairn_engine::group::GROUP_CHANGES_MAX);

/// Changes of one partition of an index that follow from a stretch of one partition's change sequence.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    /// The partition of the table.
    source: PartitionId,
    /// Least hash that the index's partition owns.
    lower: u64,
    /// In the order of the sequence.
    entries: Vec<FedEntry>,
}

/// What becomes of one entry.
#[derive(Debug, Clone)]
struct FedEntry {
    commit: u64,
    key: Vec<u8>,
    put: Option<(Vec<u8>, u32)>,
    old_item_bytes: Option<u32>,
    is_unsure: bool,
}

/// Feeds until the node stops or the table is gone.
pub(crate) async fn run<R: Runtime>(router: Rc<Router<R>>, indexed: Rc<Indexed>) {
    let lower = indexed.table().definition().places[indexed.place].lower;
    let mut feeder = Feeder {
        prefix: prefix(lower),
        last: None,
        applied: Vec::new(),
        applied_bytes: 0,
        router,
        indexed,
    };
    let mut retry = RETRY_MIN;
    feeder.count_what_is_left().await;
    while !feeder.is_over() {
        let changed = feeder.indexed.changed.notified();
        match feeder.step().await {
            Ok(true) => retry = RETRY_MIN,
            Ok(false) => {
                retry = RETRY_MIN;
                if feeder.indexed.found_empty() {
                    feeder.router.runtime.sleep(LOOK_AGAIN).await;
                } else {
                    changed.await;
                }
            }
            Err(_) => {
                // Whatever it is: the records stay, and the backlog holds the writers back when it lasts.
                feeder.router.runtime.sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

struct Feeder<R: Runtime> {
    router: Rc<Router<R>>,
    indexed: Rc<Indexed>,
    /// What the keys of the records begin with.
    prefix: Vec<u8>,
    /// Key of the last record that all indexes have applied.
    last: Option<Vec<u8>>,
    /// Keys of records that all indexes have applied and that are still there.
    applied: Vec<Vec<u8>>,
    applied_bytes: usize,
}

impl<R: Runtime> Feeder<R> {
    fn is_over(&self) -> bool {
        self.indexed.stopped.get() || self.router.is_stopped()
    }

    fn engine(&self) -> &Engine<R> {
        &self.router.engines[self.indexed.engine]
    }

    /// Records behind `last`.
    fn rest(&self) -> Range {
        let mut end = self.prefix.clone();
        end.extend_from_slice(&[0xFF; 8]);
        let lower = match &self.last {
            Some(last) => Bound::Excluded(last.clone()),
            None => Bound::Included(self.prefix.clone()),
        };
        Range {
            lower,
            upper: Bound::Excluded(end),
        }
    }

    /// What a start finds is part of the backlog.
    async fn count_what_is_left(&self) {
        let mut scan = self
            .engine()
            .scan(self.indexed.partition, self.rest(), Direction::Forward);
        // What cannot be read now will be read, or reported, by the first step.
        while let Ok(Some((_, stored))) = scan.next().await {
            self.indexed.found(stored.len());
        }
    }

    /// Takes the next records to the indexes; false when there is nothing to do.
    async fn step(&mut self) -> Result<bool, ApiError> {
        let records = self.read().await?;
        let Some((last, _)) = records.last() else {
            if self.applied.is_empty() {
                return Ok(false);
            }
            self.trim().await?;
            return Ok(true);
        };
        let last = last.clone();
        let table = self.indexed.table();
        let mut feeds: BTreeMap<PartitionId, (Target, Feed)> = BTreeMap::new();
        for (key, record) in &records {
            self.sort_out(&table, key, record, &mut feeds)?;
        }
        let sent = feeds
            .into_values()
            .map(|(target, feed)| self.router.feed(target, feed));
        for answer in join_all(sent).await {
            answer?;
        }
        self.last = Some(last);
        for (key, record) in records {
            self.applied_bytes += record.len();
            self.applied.push(key);
        }
        if self.applied.len() >= TRIM_MAX / 2 {
            self.trim().await?;
        }
        Ok(true)
    }

    async fn read(&self) -> Result<Vec<(Vec<u8>, Stored)>, ApiError> {
        let mut scan = self
            .engine()
            .scan(self.indexed.partition, self.rest(), Direction::Forward);
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < RECORDS_MAX && bytes < BYTES_MAX {
            let Some((key, stored)) = scan.next().await? else {
                break;
            };
            bytes += stored.len();
            records.push((key, stored));
        }
        Ok(records)
    }

    /// Adds what a record means to the messages. An index that is gone, or going, needs nothing.
    fn sort_out(
        &self,
        table: &Table,
        key: &[u8],
        record: &[u8],
        feeds: &mut BTreeMap<PartitionId, (Target, Feed)>,
    ) -> Result<(), ApiError> {
        let (Some(change), Some(commit)) = (Change::decode(record), commit_of(key)) else {
            let partition = self.indexed.partition;
            return Err(ApiError::internal(format!(
                "a record in the change sequence of partition {partition} cannot be read"
            )));
        };
        for operation in &change.operations {
            let mut indexes = table.definition().indexes.iter();
            let index = indexes.find(|index| index.id == operation.index && index.is_fed());
            let Some(index) = index else { continue };
            let hash = hash_of(operation.key);
            let target = table.index_target_of(index, hash);
            let (_, feed) = feeds.entry(target.partition).or_insert_with(|| {
                let places = table.index_places(index).iter();
                let place = places.rev().find(|place| place.lower <= hash);
                let feed = Feed {
                    source: self.indexed.partition,
                    lower: place.expect("the first place begins with hash 0").lower,
                    entries: Vec::new(),
                };
                (target, feed)
            });
            let image = operation.image.map(|image| change.images[image]);
            feed.entries.push(FedEntry {
                commit,
                key: operation.key.to_vec(),
                put: image.map(|(item, item_bytes)| (item.to_vec(), item_bytes)),
                old_item_bytes: operation.old_item_bytes,
                is_unsure: operation.is_unsure,
            });
        }
        Ok(())
    }

    /// Deletes records that all indexes have applied.
    async fn trim(&mut self) -> Result<(), ApiError> {
        let Some((first, others)) = self.applied.split_first() else {
            return Ok(());
        };
        let derived = others.iter().map(|key| Derived {
            key: key.clone(),
            stamped: false,
            counter: Counter::Nothing,
            put: None,
            with_item: false,
            old_item_bytes: None,
        });
        let derived = derived.collect();
        let delete = |_: Option<StoredRef<'_>>| Decision {
            change: EngineChange::Delete,
            derived,
            outcome: (),
        };
        let (engine, partition) = (self.engine(), self.indexed.partition);
        engine
            .update_with(partition, first, Counter::Nothing, delete)
            .await?;
        self.indexed.removed(self.applied.len(), self.applied_bytes);
        self.applied.clear();
        self.applied_bytes = 0;
        Ok(())
    }
}

/// Key of the cursor of an index's partition in the change sequence of partition `source`.
fn cursor_key(lower: u64, source: PartitionId) -> Vec<u8> {
    let mut key = StorageKey::hash_prefix(Space::Cursor, lower);
    key.extend_from_slice(&source.0.to_be_bytes());
    key
}

/// Applies what the index's partition has not applied yet.
pub(crate) async fn apply<R: Runtime>(
    engine: &Engine<R>,
    partition: PartitionId,
    feed: Feed,
) -> Result<(), ApiError> {
    let Some(last) = feed.entries.last().map(|entry| entry.commit) else {
        return Ok(());
    };
    // Nobody else changes these entries, and this feeder waits for the answer: what is applied is what there is.
    let mut found: BTreeMap<Vec<u8>, Option<u32>> = BTreeMap::new();
    for entry in feed.entries.iter().filter(|entry| entry.is_unsure) {
        if !found.contains_key(&entry.key) {
            let stored = engine.get(partition, &entry.key).await?;
            found.insert(entry.key.clone(), stored.map(|stored| stored.item_bytes()));
        }
    }
    let cursor = cursor_key(feed.lower, feed.source);
    let decide = |stored: Option<StoredRef<'_>>| {
        let applied = stored.map_or(0, |stored| {
            let commit = stored.item.first_chunk().expect("a cursor has 8 bytes");
            u64::from_be_bytes(*commit)
        });
        if last <= applied {
            return Decision {
                change: EngineChange::Keep,
                derived: Vec::new(),
                outcome: (),
            };
        }
        let entries = feed.entries.into_iter().filter(|entry| entry.commit > applied);
        Decision {
            change: EngineChange::Put {
                item: last.to_be_bytes().to_vec(),
                item_bytes: 0,
            },
            derived: merged(entries, &found),
            outcome: (),
        }
    };
    engine
        .update_with(partition, &cursor, Counter::Nothing, decide)
        .await?;
    Ok(())
}

/// Of several changes of one entry only the last is made, in place of what was there before the first.
fn merged(entries: impl Iterator<Item = FedEntry>, found: &BTreeMap<Vec<u8>, Option<u32>>) -> Vec<Derived> {
    let mut merged: BTreeMap<Vec<u8>, Derived> = BTreeMap::new();
    for entry in entries {
        let put = entry.put.map(|(item, item_bytes)| (Rc::from(item), item_bytes));
        if let Some(derived) = merged.get_mut(&entry.key) {
            derived.put = put;
            continue;
        }
        let old_item_bytes = found.get(&entry.key).copied().unwrap_or(entry.old_item_bytes);
        let derived = Derived {
            key: entry.key.clone(),
            stamped: false,
            counter: Counter::Items,
            put,
            with_item: false,
            old_item_bytes,
        };
        merged.insert(entry.key, derived);
    }
    let changes = merged.into_values();
    changes
        .filter(|derived| derived.put.is_some() || derived.old_item_bytes.is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &[u8], put: Option<u32>, old: Option<u32>) -> FedEntry {
        FedEntry {
            commit: 1,
            key: key.to_vec(),
            put: put.map(|bytes| (vec![7], bytes)),
            old_item_bytes: old,
            is_unsure: false,
        }
    }

    #[test]
    fn several_changes_of_an_entry_are_one() {
        let entries = [
            entry(b"a", Some(1), None),
            entry(b"b", None, Some(5)),
            entry(b"a", Some(2), Some(1)),
            entry(b"b", Some(6), None),
            entry(b"c", Some(3), None),
            entry(b"c", None, Some(3)),
            entry(b"d", Some(4), None),
        ];
        let found = BTreeMap::from([(b"d".to_vec(), Some(9))]);
        let changes: Vec<_> = merged(entries.into_iter(), &found)
            .into_iter()
            .map(|derived| {
                let new = derived.put.map(|(_, bytes)| bytes);
                (derived.key, derived.old_item_bytes, new)
            })
            .collect();
        assert_eq!(
            changes,
            [
                (b"a".to_vec(), None, Some(2)),
                (b"b".to_vec(), Some(5), Some(6)),
                (b"d".to_vec(), Some(9), Some(4)),
            ]
        );
    }
}
