//! What enters the items that were there before an index into it.
//!
//! One task for each partition of a table with global indexes, on the partition's shard; it sleeps while no index is being
//! filled:
//! 1. It waits for the writes that had begun before this shard heard of the index: they know nothing of it. Then it marks its
//!    beginning durably, so that all of them are applied.
//! 2. It goes through the partition's items in the order of their keys, [`ITEMS_AT_ONCE`] at a time. Of each it decides, on the
//!    newest state, a record of the change sequence that puts the item's entry, and changes nothing else. So the record is in
//!    order with the writes of the item: it never brings an older state back, and what is deleted behind it is deleted in the
//!    index behind it. Whether the entry is there already nobody knows; such a record says so, and those of writes too, until
//!    the index is filled.
//! 3. Every [`ITEMS_PER_MARK`] items it marks how far it has come, durably. A restart goes on behind the last mark; what it enters
//!    again changes nothing.
//! 4. Behind the last item it marks the end. When no record up to that mark's commit timestamp is left in the change sequence, all
//!    of them have been applied, and the catalog is told. It makes the index `ACTIVE` when every partition has said so.
//! 5. Marks of indexes that are filled or gone are deleted.
//!
//! Records of a backfill take less than half of what may wait for the indexes: writers are not held back by them.
//!
//! A mark is kept under `| 6 u8 | least hash of the partition u64 BE | index u64 BE |`:
//!
//! ```text
//! | version u8, 1 | flags u8: 1 everything is entered | 0 u16 | 0 u32 | items gone through u64 LE | key of the last one |
//! ```

use std::collections::BTreeSet;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::ids::IndexId;
use cairn_engine::{
    Change as EngineChange, Counter, Decision, Direction, Engine, EngineError, Range, StoredRef,
};
use cairn_item::{Space, StorageKey};
use cairn_runtime::Runtime;
use futures_util::future::join_all;

use super::change::prefix;
use super::effects::{entered, image_of};
use super::{BACKLOG_BYTES_MAX, BACKLOG_RECORDS_MAX, Indexed};
use crate::api::ApiError;
use crate::catalog::{IndexDefinition, IndexStatus, Table};
use crate::route::Router;

/// Items that are decided upon at once.
const ITEMS_AT_ONCE: usize = 64;
/// Bytes of items that are decided upon at once, but for the last.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Items gone through between two marks.
const ITEMS_PER_MARK: u64 = 256;
/// Part of the change sequence's limits that leaves no room for records of a backfill.
const BACKLOG_PARTS: u64 = 4;
/// How often to look whether there is room, or whether what was entered is applied.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Pauses after a failure: doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Version of a mark's layout. History: 1, the first.
const VERSION: u8 = 1;
const DONE: u8 = 1;

/// How far a partition's backfill has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Mark {
    is_done: bool,
    examined: u64,
    /// Key of the last item gone through.
    last: Option<Vec<u8>>,
}

impl Mark {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, if self.is_done { DONE } else { 0 }, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&self.examined.to_le_bytes());
        bytes.extend_from_slice(self.last.as_deref().unwrap_or_default());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Mark> {
        let (head, last) = bytes.split_first_chunk::<16>()?;
        let (kind, examined) = head.split_first_chunk::<8>()?;
        let [VERSION, flags, 0, 0, 0, 0, 0, 0] = *kind else {
            return None;
        };
        (flags & !DONE == 0).then_some(Mark {
            is_done: flags == DONE,
            examined: u64::from_le_bytes(*examined.first_chunk()?),
            last: (!last.is_empty()).then(|| last.to_vec()),
        })
    }
}

/// Fills indexes until the node stops or the table is gone.
pub(super) async fn run<R: Runtime>(router: Rc<Router<R>>, indexed: Rc<Indexed>) {
    let lower = indexed.table().definition().places[indexed.place].lower;
    let mut backfill = Backfill {
        lower,
        told: BTreeSet::new(),
        has_marks: true,
        router,
        indexed,
    };
    let mut retry = RETRY_MIN;
    while !backfill.is_over() {
        let defined = backfill.indexed.defined.notified();
        match backfill.step().await {
            Ok(true) => retry = RETRY_MIN,
            Ok(false) => {
                retry = RETRY_MIN;
                defined.await;
            }
            Err(_) => {
                // Whatever it is, the mark says where to go on.
                backfill.indexed.count(|stats| stats.failures += 1);
                backfill.router.runtime.sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

struct Backfill<R: Runtime> {
    router: Rc<Router<R>>,
    indexed: Rc<Indexed>,
    /// Least hash that the partition owns.
    lower: u64,
    /// Indexes of which the catalog knows that they are filled here.
    told: BTreeSet<IndexId>,
    /// There may be marks.
    has_marks: bool,
}

impl<R: Runtime> Backfill<R> {
    fn is_over(&self) -> bool {
        self.indexed.stopped.get() || self.router.is_stopped()
    }

    fn engine(&self) -> &Engine<R> {
        &self.router.engines[self.indexed.engine]
    }

    /// Does what there is to do; false when that is nothing.
    async fn step(&mut self) -> Result<bool, ApiError> {
        let table = self.indexed.table();
        let mut indexes = table.definition().indexes.iter();
        let index = indexes.find(|index| is_filling(index) && !self.told.contains(&index.id));
        let Some(index) = index else {
            self.indexed.filling.set(None);
            self.forget_marks(&table).await?;
            return Ok(false);
        };
        let id = index.id;
        if self.fill(id).await? && self.wait_applied(id).await? {
            let (table, partition) = (table.definition().id, self.indexed.partition);
            self.router.tell_backfilled(table, id, partition).await?;
            self.told.insert(id);
        }
        Ok(true)
    }

    /// Whether the index is still to be filled.
    fn fills(&self, index: IndexId) -> bool {
        let table = self.indexed.table();
        let mut indexes = table.definition().indexes.iter();
        !self.is_over() && indexes.any(|other| other.id == index && is_filling(other))
    }

    /// Enters what there is behind the mark; false when the index is not to be filled any more.
    async fn fill(&mut self, index: IndexId) -> Result<bool, ApiError> {
        let key = mark_key(self.lower, index);
        let stored = self.engine().get(self.indexed.partition, &key).await?;
        let mark = stored.map(|stored| Mark::decode(&stored));
        let Some(mut mark) = mark.unwrap_or_else(|| Some(Mark::default())) else {
            let partition = self.indexed.partition;
            return Err(ApiError::internal(format!(
                "the mark of a backfill in partition {partition} cannot be read"
            )));
        };
        self.has_marks = true;
        self.indexed.filling.set(Some((index, mark.examined)));
        if mark.last.is_none() && !mark.is_done {
            self.router.writes.passed(&self.router.runtime).await;
            self.put_mark(index, &mark).await?;
        }
        while !mark.is_done {
            if !self.fill_to_next_mark(index, &mut mark).await? {
                return Ok(false);
            }
            self.put_mark(index, &mark).await?;
        }
        Ok(true)
    }

    /// The same up to the next mark.
    async fn fill_to_next_mark(&self, index: IndexId, mark: &mut Mark) -> Result<bool, ApiError> {
        let lower = match mark.last.take() {
            Some(last) => Bound::Excluded(last),
            None => Bound::Included(vec![Space::Base as u8]),
        };
        let range = Range {
            lower,
            upper: Bound::Excluded(vec![Space::Base as u8 + 1]),
        };
        let mut scan = self
            .engine()
            .scan(self.indexed.partition, range, Direction::Forward);
        let mut examined = 0;
        while examined < ITEMS_PER_MARK && !mark.is_done {
            let (mut keys, mut bytes) = (Vec::new(), 0);
            while keys.len() < ITEMS_AT_ONCE && bytes < BYTES_AT_ONCE {
                let Some((key, stored)) = scan.next().await? else {
                    mark.is_done = true;
                    break;
                };
                bytes += stored.len();
                keys.push(key);
            }
            self.make_room().await;
            if !self.fills(index) {
                return Ok(false);
            }
            for entered in join_all(keys.iter().map(|key| self.enter(index, key))).await {
                entered?;
            }
            examined += keys.len() as u64;
            self.indexed.count(|stats| stats.examined += keys.len() as u64);
            let all = Some((index, mark.examined + examined));
            self.indexed.filling.set(all);
            mark.last = keys.pop().or(mark.last.take());
        }
        mark.examined += examined;
        Ok(true)
    }

    /// Waits until writers would not notice more records.
    async fn make_room(&self) {
        loop {
            let (records, bytes) = self.indexed.backlog.get();
            let is_room =
                records * BACKLOG_PARTS < BACKLOG_RECORDS_MAX && bytes * BACKLOG_PARTS < BACKLOG_BYTES_MAX;
            if is_room || self.is_over() {
                return;
            }
            self.router.runtime.sleep(LOOK_AGAIN).await;
        }
    }

    /// Enters one item as it is now, if it belongs into the index.
    async fn enter(&self, index: IndexId, key: &[u8]) -> Result<(), EngineError> {
        let progress = self.indexed.begin_write();
        let decide = |stored: Option<StoredRef<'_>>| {
            let table = self.indexed.table();
            let definition = table.definition();
            let mut indexes = definition.indexes.iter();
            let index = indexes.find(|other| other.id == index && is_filling(other));
            let record = index
                .zip(stored)
                .and_then(|(index, stored)| entered(definition, index, self.lower, image_of(stored)));
            let bytes = record.as_ref().and_then(|record| record.put.as_ref());
            progress.adds(bytes.map_or(0, |(record, _)| record.len()));
            Decision {
                change: EngineChange::Keep,
                derived: record.into_iter().collect(),
                outcome: (),
            }
        };
        let engine = self.engine();
        let updated = engine
            .update_with(self.indexed.partition, key, Counter::Items, decide)
            .await;
        progress.ended(updated.is_ok());
        updated.map(|_| ())
    }

    /// Waits until all indexes have applied what was entered; false when the index is not to be filled any more.
    async fn wait_applied(&self, index: IndexId) -> Result<bool, ApiError> {
        // Marked anew: after a restart nobody knows the commit timestamp of the mark that was found.
        let done = Mark {
            is_done: true,
            examined: self.indexed.filling.get().map_or(0, |(_, examined)| examined),
            last: None,
        };
        let commit = self.put_mark(index, &done).await?;
        let mut last = prefix(self.lower);
        last.extend_from_slice(&commit.to_be_bytes());
        while self.fills(index) {
            let range = Range {
                lower: Bound::Included(prefix(self.lower)),
                upper: Bound::Included(last.clone()),
            };
            let mut scan = self
                .engine()
                .scan(self.indexed.partition, range, Direction::Forward);
            if scan.next().await?.is_none() {
                return Ok(true);
            }
            drop(scan);
            self.router.runtime.sleep(LOOK_AGAIN).await;
        }
        Ok(false)
    }

    /// Stores a mark; answers its commit timestamp.
    async fn put_mark(&self, index: IndexId, mark: &Mark) -> Result<u64, ApiError> {
        let key = mark_key(self.lower, index);
        let put = |_: Option<StoredRef<'_>>| Decision {
            change: EngineChange::Put {
                item: mark.encode(),
                item_bytes: 0,
            },
            derived: Vec::new(),
            outcome: (),
        };
        let (engine, partition) = (self.engine(), self.indexed.partition);
        let updated = engine.update_with(partition, &key, Counter::Nothing, put).await?;
        Ok(updated.commit.expect("a put changes something").0)
    }

    /// Deletes the marks of indexes that are filled or gone.
    async fn forget_marks(&mut self, table: &Table) -> Result<(), ApiError> {
        if !self.has_marks {
            return Ok(());
        }
        let range = Range {
            lower: Bound::Included(StorageKey::hash_prefix(Space::Cursor, self.lower)),
            upper: Bound::Excluded(vec![Space::Cursor as u8 + 1]),
        };
        let (engine, partition) = (self.engine(), self.indexed.partition);
        let mut scan = engine.scan(partition, range, Direction::Forward);
        let mut marks = Vec::new();
        while let Some((key, _)) = scan.next().await? {
            marks.push(key);
        }
        drop(scan);
        let filling = table
            .definition()
            .indexes
            .iter()
            .filter(|index| is_filling(index));
        let kept: Vec<Vec<u8>> = filling.map(|index| mark_key(self.lower, index.id)).collect();
        for mark in marks.iter().filter(|mark| !kept.contains(mark)) {
            let delete = |_: Option<StoredRef<'_>>| Decision {
                change: EngineChange::Delete,
                derived: Vec::new(),
                outcome: (),
            };
            engine
                .update_with(partition, mark, Counter::Nothing, delete)
                .await?;
        }
        self.has_marks = !kept.is_empty();
        Ok(())
    }
}

fn is_filling(index: &IndexDefinition) -> bool {
    index.status() == Some(IndexStatus::Backfilling)
}

/// Key of an index's mark in the partition of the table that begins with the hash `lower`.
fn mark_key(lower: u64, index: IndexId) -> Vec<u8> {
    let mut key = StorageKey::hash_prefix(Space::Cursor, lower);
    key.extend_from_slice(&u64::from(index.0).to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_a_mark_is_frozen() {
        let mark = Mark {
            is_done: false,
            examined: 258,
            last: Some(b"key".to_vec()),
        };
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, b'k', b'e', b'y'];
        assert_eq!(mark.encode(), bytes);
        let done = Mark {
            is_done: true,
            examined: 1,
            last: None,
        };
        assert_eq!(done.encode(), [1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            mark_key(1, IndexId(5)),
            [6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]
        );
        for mark in [mark, done, Mark::default()] {
            assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        }
    }

    #[test]
    fn what_is_no_mark_is_refused() {
        let good = Mark::default().encode();
        for length in 0..good.len() {
            assert_eq!(Mark::decode(&good[..length]), None, "{length}");
        }
        for (at, byte) in [(0, 2), (1, 2), (2, 1), (7, 1)] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            assert_eq!(Mark::decode(&bytes), None, "{at}");
        }
    }
}
