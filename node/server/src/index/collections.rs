//! How large the item collections of a table are that limits them.
//!
//! The items of one partition key and their entries in local indexes are an item collection. By a tag of the table none grows beyond a
//! limit, as in DynamoDB none grows beyond 10 GB; without the tag nothing here is done.
//!
//! 1. While a whole partition holds less than about half of the limit, none of its collections is near it, and nothing is counted.
//! 2. Else, before a put or an update is decided, its collection is counted unless it is known: (a) it is entered, (b) a snapshot is
//!    opened, (c) what that shows is summed up. A write that is applied meanwhile adds what it changed if it is not in the snapshot,
//!    by its commit timestamp.
//! 3. From then on every write of the collection adds what it changed when it is applied. If nobody learns whether a write is applied the
//!    collection is forgotten.
//! 4. A put or an update that makes its collection larger, and larger than the limit, is refused when it is decided. Writes that are
//!    under way then are not counted: a collection is larger than its limit by those at most.
//!
//! Collections that are counted at the same moment need a snapshot each: beyond 64 of a log, the engine's limit, a write is told
//! to come again.
//!
//! **Invariant** What is known of a collection is the sum of what is applied of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use cairn_engine::ids::{CommitTimestamp, PartitionId};
use cairn_engine::{Direction, Engine, Range};
use cairn_item::{KeyCondition, StorageKey};
use cairn_runtime::Runtime;
use cairn_runtime::sync::Notify;

use crate::api::ApiError;
use crate::api::error::COLLECTION_TOO_LARGE;
use crate::catalog::TableDefinition;

/// Collections of a partition that are known at once; beyond that the one counted first is forgotten.
const COLLECTIONS_MAX: usize = 4096;
/// More than a write adds to a collection: an item and its entries are in one record of the log.
pub(crate) const WRITE_BYTES_MAX: u64 = 8 << 20;
/// Entries that are summed up before the other tasks of the shard have their turn.
const SUMMED_AT_ONCE: u64 = 256;

/// Most bytes that a collection of the table may come to; none when it has no such limit, or no local index.
pub(crate) fn limit(table: &TableDefinition) -> Option<u64> {
    let limit = table.settings.collection_bytes_max()?;
    let has_local = table.indexes.iter().any(|index| index.global.is_none());
    has_local.then_some(limit)
}

/// What is known of the collections of a partition.
#[derive(Default)]
pub(crate) struct Collections {
    /// By the beginning of their items' keys.
    entered: RefCell<BTreeMap<Vec<u8>, Collection>>,
    /// Those that are known, in the order in which they were counted; some may be forgotten since.
    order: RefCell<VecDeque<(Vec<u8>, u64)>>,
    /// Collections entered so far.
    count: Cell<u64>,
    /// One is known, or forgotten.
    changed: Notify,
}

struct Collection {
    /// Tells it from one of the same key that was entered before or after it.
    id: u64,
    state: State,
}

enum State {
    /// The snapshot is being opened; what has been applied since, as many as were under way.
    Opening(Vec<(CommitTimestamp, i64)>),
    /// Its snapshot is being summed up; what changed since it.
    Counting { at: CommitTimestamp, changed: i64 },
    /// Its bytes, which may be below zero for a moment: writes need not be heard of in the order in which they are applied.
    Known { at: CommitTimestamp, bytes: i64 },
}

impl State {
    fn add(&mut self, commit: CommitTimestamp, growth: i64) {
        match self {
            State::Opening(applied) => applied.push((commit, growth)),
            State::Counting { at, changed: bytes } | State::Known { at, bytes } => {
                if commit > *at {
                    *bytes += growth;
                }
            }
        }
    }
}

/// A collection that is being counted. Dropped before it is known, it is forgotten.
struct Counting<'a> {
    collections: &'a Collections,
    collection: &'a [u8],
    id: u64,
    is_known: bool,
}

impl Counting<'_> {
    /// Changes its state, unless it has been forgotten. Answers whether it has not.
    fn change(&self, change: impl FnOnce(&mut State)) -> bool {
        let mut entered = self.collections.entered.borrow_mut();
        let found = entered.get_mut(self.collection);
        let found = found.filter(|found| found.id == self.id);
        let is_there = found.is_some();
        if let Some(found) = found {
            change(&mut found.state);
        }
        is_there
    }

    fn opened(&self, at: CommitTimestamp) -> bool {
        self.change(|state| {
            if let State::Opening(applied) = state {
                let since = applied.iter().filter(|(commit, _)| *commit > at);
                let changed = since.map(|(_, growth)| growth).sum();
                *state = State::Counting { at, changed };
            }
        })
    }

    fn counted(mut self, sum: i64) {
        self.is_known = self.change(|state| {
            if let State::Counting { at, changed } = *state {
                *state = State::Known {
                    at,
                    bytes: sum + changed,
                };
            }
        });
        if self.is_known {
            let mut order = self.collections.order.borrow_mut();
            order.push_back((self.collection.to_vec(), self.id));
            while order.len() > COLLECTIONS_MAX {
                let (oldest, id) = order.pop_front().expect("it is longer than that");
                self.collections.forget(&oldest, id);
            }
        }
        self.collections.changed.notify_all();
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if !self.is_known {
            self.collections.forget(self.collection, self.id);
        }
    }
}

/// A write in progress of an item of a collection. Dropped while what came of it is not known, the collection is forgotten.
pub(crate) struct Growth<'a> {
    collections: &'a Collections,
    collection: &'a [u8],
    /// The collection that was entered when the write was decided, and what it changes.
    decided: Cell<Option<(u64, i64)>>,
}

impl Growth<'_> {
    /// It was decided that the write makes the collection so much larger.
    pub(crate) fn decided(&self, growth: i64) {
        let entered = self.collections.entered.borrow();
        let entered = entered.get(self.collection);
        self.decided.set(entered.map(|entered| (entered.id, growth)));
    }

    /// The write is applied; without a commit timestamp it changed nothing.
    pub(crate) fn applied(&self, commit: Option<CommitTimestamp>) {
        let Some((id, growth)) = self.decided.take() else {
            return;
        };
        let mut entered = self.collections.entered.borrow_mut();
        let entered = entered
            .get_mut(self.collection)
            .filter(|entered| entered.id == id);
        if let (Some(entered), Some(commit)) = (entered, commit) {
            entered.state.add(commit, growth);
        }
    }
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        if let Some((id, _)) = self.decided.get() {
            self.collections.forget(self.collection, id);
        }
    }
}

impl Collections {
    /// A write of the item with this key begins; none where no such key can be.
    pub(crate) fn write<'a>(&'a self, key: &'a [u8]) -> Growth<'a> {
        Growth {
            collections: self,
            collection: StorageKey::collection(key).unwrap_or(key),
            decided: Cell::new(None),
        }
    }

    /// Refuses a write that makes the collection of the item with this key larger than `limit` bytes.
    pub(crate) fn check(&self, key: &[u8], growth: i64, limit: u64) -> Result<(), ApiError> {
        let entered = self.entered.borrow();
        let collection = StorageKey::collection(key).and_then(|collection| entered.get(collection));
        match collection.map(|collection| &collection.state) {
            Some(State::Known { bytes, .. })
                if growth > 0 && bytes.saturating_add(growth) > limit.try_into().unwrap_or(i64::MAX) =>
            {
                Err(ApiError::new(COLLECTION_TOO_LARGE, "Collection size exceeded."))
            }
            _ => Ok(()),
        }
    }

    /// Resolves when the collection of the item with this key is known.
    ///
    /// # Errors
    /// The engine's; nothing is known then.
    pub(crate) async fn count<R: Runtime>(
        &self,
        runtime: &R,
        engine: &Engine<R>,
        partition: PartitionId,
        table: &TableDefinition,
        key: &[u8],
    ) -> Result<(), ApiError> {
        let Some(collection) = StorageKey::collection(key) else {
            return Ok(());
        };
        loop {
            let changed = self.changed.notified();
            let entered = self
                .entered
                .borrow()
                .get(collection)
                .map(|entered| match entered.state {
                    State::Known { .. } => true,
                    State::Opening(_) | State::Counting { .. } => false,
                });
            match entered {
                Some(true) => return Ok(()),
                Some(false) => changed.await,
                None => {
                    let counting = self.enter(collection);
                    let snapshot = engine.snapshot(None).await?;
                    if !counting.opened(snapshot.at()) {
                        continue;
                    }
                    let mut sum = 0;
                    let mut entries = 0_u64;
                    let local = table.indexes.iter().filter(|index| index.global.is_none());
                    let prefixes =
                        local.map(|index| StorageKey::local_index_prefix_of(collection, index.id.0));
                    for prefix in std::iter::once(collection.to_vec()).chain(prefixes) {
                        let (lower, upper) = KeyCondition::All.range_in(prefix)?;
                        let range = Range { lower, upper };
                        let mut scan = snapshot.scan(partition, range, Direction::Forward);
                        while let Some((_, entry)) = scan.next().await? {
                            sum += i64::from(entry.item_bytes());
                            entries += 1;
                            if entries.is_multiple_of(SUMMED_AT_ONCE) {
                                runtime.yield_now().await;
                            }
                        }
                    }
                    snapshot.release();
                    counting.counted(sum);
                }
            }
        }
    }

    fn enter<'a>(&'a self, collection: &'a [u8]) -> Counting<'a> {
        let id = self.count.get() + 1;
        self.count.set(id);
        let state = State::Opening(Vec::new());
        self.entered
            .borrow_mut()
            .insert(collection.to_vec(), Collection { id, state });
        Counting {
            collections: self,
            collection,
            id,
            is_known: false,
        }
    }

    fn forget(&self, collection: &[u8], id: u64) {
        let mut entered = self.entered.borrow_mut();
        if entered.get(collection).is_some_and(|entered| entered.id == id) {
            entered.remove(collection);
            self.changed.notify_all();
        }
    }
}
