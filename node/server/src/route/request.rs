//! What is asked of the shard that owns a partition, and how that shard does it.
//!
//! The same functions serve a request of the own shard and one that came through the mailbox; only the form of
//! the items in the answer differs (handles at home, copies abroad).

use std::sync::Arc;

use cairn_engine::ids::{IndexId, PartitionId};
use cairn_engine::mutation::TransactionId;
use cairn_engine::{
    Change, Counter, Decision, Derived, Direction, Engine, EngineError, Range, Stored, StoredRef, Updated,
};
use cairn_item::{ItemBytes, StorageKey};
use cairn_runtime::Runtime;
use cairn_runtime::mailbox::ReplySender;

use super::evaluate::{Condition, Filter, Update, condition_failed};
use super::handle::{ItemCopy, stored_view};
use crate::api::{ApiError, Capacity};
use crate::catalog::TableDefinition;
use crate::expiry::{Expiry, Hidden, has_expired};
use crate::index::effects::{Effects, check_keys, effects, image_of};
use crate::index::feed::Feed;
use crate::index::{Indexed, collections};
use crate::stream::read::{ReadDone, ReadRequest};
use crate::stream::{self, ItemChange};
use crate::transact::{Ask, Told, Transactions};

/// A write of one item.
#[derive(Debug)]
pub struct Write {
    /// What to do.
    pub action: Action,
    /// When to do it; none is always.
    pub condition: Option<Condition>,
    /// What to give back.
    pub returns: Returns,
}

/// Items that a write gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Returns {
    /// The item that was there.
    pub old: bool,
    /// The item that is there now; of an update only.
    pub new: bool,
    /// The item of which the condition was false, in the error.
    pub refused: bool,
    /// How large its item collection is.
    pub collection: bool,
}

/// What a write does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Replace the whole item.
    Put {
        /// Archived bytes: validated, or archived by this process.
        item: Vec<u8>,
        /// DynamoDB size in bytes.
        item_bytes: u32,
    },
    /// Remove the item.
    Delete,
    /// Make the new item of the old one.
    Update(Box<Update>),
    /// Leave it: only the condition matters. Of transactions.
    Check,
    /// Carry out what a transaction has decided.
    ByTransaction(Box<ByTransaction>),
    /// Remove the item if its time to live is over.
    Expire {
        /// The attribute that holds it.
        attribute: Arc<str>,
        /// Seconds since the Unix epoch.
        now: u64,
    },
}

impl Action {
    /// The transaction that it is of.
    fn transaction(&self) -> Option<TransactionId> {
        match self {
            Action::ByTransaction(by) => Some(by.transaction),
            _ => None,
        }
    }

    /// What is done in the same step.
    fn take_also(&mut self) -> Vec<Derived> {
        match self {
            Action::ByTransaction(by) => {
                let keys = std::mem::take(&mut by.forgets).into_iter();
                keys.map(record_deleted).collect()
            }
            _ => Vec::new(),
        }
    }

    /// It was not done.
    fn give_back(&mut self, also: Vec<Derived>) {
        if let Action::ByTransaction(by) = self {
            by.forgets = also.into_iter().map(|derived| derived.key).collect();
        }
    }
}

/// The deletion of a record that nothing counts.
pub(crate) fn record_deleted(key: Vec<u8>) -> Derived {
    Derived {
        key,
        stamped: false,
        counter: Counter::Nothing,
        put: None,
        with_item: false,
        old_item_bytes: None,
    }
}

/// What a transaction that holds an item makes of it.
#[derive(Debug, Clone)]
pub struct ByTransaction {
    /// The transaction.
    pub transaction: TransactionId,
    /// The new item, archived, and its DynamoDB size; none removes it.
    pub put: Option<(Vec<u8>, u32)>,
    /// Keys of records of the transaction that go in the same step.
    pub forgets: Vec<Vec<u8>>,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WriteDone {
    pub old: Option<ItemCopy>,
    pub new: Option<ItemCopy>,
    pub old_item_bytes: Option<u32>,
    pub new_item_bytes: Option<u32>,
    /// Whether anything was written.
    pub changed: bool,
    pub indexes: Vec<(IndexId, Capacity)>,
    pub collection_bytes_max: Option<u64>,
}

/// A stretch of a partition to read.
#[derive(Clone)]
pub(crate) struct PageRequest {
    pub range: Range,
    pub direction: Direction,
    /// Items to look at, at most; at least 1.
    pub items_max: u64,
    /// Stop after the item that reaches this sum of sizes.
    pub bytes_max: u64,
    /// Stop after the item that reaches this sum of [`answer_bytes`].
    pub answer_bytes_max: usize,
    /// Items to leave out; they count as looked at.
    pub filter: Option<Filter>,
    /// Count the items, do not give them out.
    pub count_only: bool,
    /// What is special about entries of a local index.
    pub local: Option<LocalPage>,
}

/// A page of entries of a local index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalPage {
    /// The index: entries of others are passed over.
    pub index: IndexId,
    /// Look at the whole items in place of the entries.
    pub fetch: bool,
}

/// What was read of it. `T` is the form of an item.
#[derive(Debug)]
pub(crate) struct PageDone<T> {
    /// Items that passed the filter, unless only their count was wanted.
    pub items: Vec<T>,
    /// Items that passed the filter.
    pub count: u64,
    /// Items looked at.
    pub scanned_count: u64,
    /// Their DynamoDB sizes summed.
    pub scanned_bytes: u64,
    /// [`answer_bytes`] of `items` summed.
    pub answer_bytes: usize,
    /// What it took to fetch whole items, when consistent.
    pub fetched_capacity: Capacity,
    /// The last item looked at, when a limit ended the page; none when the range is exhausted.
    pub last: Option<T>,
}

/// What an item takes in the memory of those who answer with it, and in a native frame. It is not bounded by the item's
/// DynamoDB size: `{"SS":[""]}` counts as 1 byte and is archived in 14.
pub(crate) fn answer_bytes(archived: &[u8]) -> usize {
    4 + archived.len()
}

/// A request of another shard. The slot of the reply is reserved with the request, so replies never wait.
pub(crate) enum Request {
    Get {
        engine: usize,
        partition: PartitionId,
        key: Vec<u8>,
        reply: ReplySender<Result<Option<ItemCopy>, ApiError>>,
    },
    Write {
        engine: usize,
        partition: PartitionId,
        key: Vec<u8>,
        write: Write,
        reply: ReplySender<Result<WriteDone, ApiError>>,
    },
    Feed {
        engine: usize,
        partition: PartitionId,
        feed: Feed,
        reply: ReplySender<Result<(), ApiError>>,
    },
    Records {
        engine: usize,
        partition: PartitionId,
        read: ReadRequest,
        reply: ReplySender<Result<ReadDone, ApiError>>,
    },
    Transact {
        engine: usize,
        partition: PartitionId,
        ask: Ask,
        reply: ReplySender<Result<Told, ApiError>>,
    },
    Page {
        engine: usize,
        partition: PartitionId,
        page: PageRequest,
        reply: ReplySender<Result<PageDone<ItemCopy>, ApiError>>,
    },
}

/// What came of a write of a table without indexes and streams.
pub(crate) enum Plainly {
    Done(WriteDone),
    /// It is such a table no more; nothing was done.
    NotAnyMore(Write),
}

/// Carries out a write on the engine of its partition.
///
/// A table may have been given a stream or an index since the write began. When it is decided `is_plain` says whether it still has
/// none: whatever is decided from then on has to have its record, or a change behind it in the stream would not be behind it.
pub(crate) async fn write<R: Runtime>(
    place: Place<'_, R>,
    engine: &Engine<R>,
    mut write: Write,
    is_plain: impl Fn() -> bool,
) -> Result<Plainly, ApiError> {
    let also = write.action.take_also();
    let (partition, key) = (place.partition, place.key);
    let mut again = None;
    let updated = if write.action.transaction().is_none() {
        let decide = |old: Option<StoredRef<'_>>| {
            if !is_plain() {
                again = Some(write);
                return (Change::Keep, None);
            }
            match place.decide(write, old, |_| Ok(())) {
                Ok((change, done)) => (change, Some(Ok(done))),
                Err(error) => (Change::Keep, Some(Err(error))),
            }
        };
        engine.update(partition, key, decide).await
    } else {
        // Boxed: only transactions come here. What they have decided is done, also when room has become low since.
        let decide = |old: Option<StoredRef<'_>>| {
            let kept = |outcome| Decision {
                change: Change::Keep,
                derived: Vec::new(),
                outcome,
            };
            if !is_plain() {
                write.action.give_back(also);
                again = Some(write);
                return kept(None);
            }
            match place.decide(write, old, |_| Ok(())) {
                Ok((change, done)) => Decision {
                    change,
                    derived: also,
                    outcome: Some(Ok(done)),
                },
                Err(error) => kept(Some(Err(error))),
            }
        };
        Box::pin(engine.update_accepted(partition, key, decide)).await
    };
    if let Some(write) = again {
        return Ok(Plainly::NotAnyMore(write));
    }
    let updated = updated.map(|updated| Updated {
        outcome: updated.outcome.expect("it was decided"),
        commit: updated.commit,
        old_item_bytes: updated.old_item_bytes,
    });
    Ok(Plainly::Done(place.finish(engine, updated).await?))
}

/// The same where the table has indexes or streams: what the write means for them is part of its step.
pub(crate) async fn write_indexed<R: Runtime>(
    place: Place<'_, R>,
    engine: &Engine<R>,
    indexed: &Indexed,
    mut write: Write,
) -> Result<WriteDone, ApiError> {
    // What expires is deleted however far the indexes are behind: nobody would try it again as a client does. Nor is what has
    // been decided held back.
    let is_accepted = matches!(write.action, Action::ByTransaction(_));
    if !is_accepted && !matches!(write.action, Action::Expire { .. }) {
        indexed.admit(place.runtime).await?;
    }
    count_collection(&place, engine, indexed, &write.action).await?;
    let also = write.action.take_also();
    let (partition, key) = (place.partition, place.key);
    let wants_collection = write.returns.collection;
    let progress = indexed.begin_write();
    let collection = indexed.collections.write(key);
    let decide = |old: Option<StoredRef<'_>>| {
        let (change, derived, outcome) = match decide_indexed(&place, indexed, write, old) {
            Ok((change, done, mut effects)) => {
                progress.adds(effects.record_bytes);
                collection.decided(effects.growth);
                if effects.streams {
                    progress.streams();
                }
                effects.derived.extend(also);
                (change, effects.derived, Ok(done))
            }
            Err(error) => (Change::Keep, Vec::new(), Err(error)),
        };
        Decision {
            change,
            derived,
            outcome,
        }
    };
    let updated = if is_accepted {
        engine.update_accepted(partition, key, decide).await
    } else {
        engine.update_with(partition, key, Counter::Items, decide).await
    };
    progress.ended(updated.is_ok());
    drop(progress);
    if let Ok(updated) = &updated {
        collection.applied(updated.commit);
    }
    drop(collection);
    let mut done = place.finish(engine, updated).await?;
    if wants_collection {
        done.collection_bytes_max = partition_bytes(engine, partition);
    }
    Ok(done)
}

/// What a partition holds: items and entries of local indexes.
fn partition_bytes<R: Runtime>(engine: &Engine<R>, partition: PartitionId) -> Option<u64> {
    let info = engine.partition(partition)?;
    let entries = info.indexes.iter().map(|index| index.item_bytes);
    Some(info.item_bytes + entries.sum::<u64>())
}

/// Whether what is written may be refused for the size of its item collection: what a client writes, and what it does not delete.
fn may_grow(action: &Action) -> bool {
    matches!(action, Action::Put { .. } | Action::Update(_))
}

/// Has the item's collection counted if its table limits it, and if the partition holds so much that it may be near the limit.
async fn count_collection<R: Runtime>(
    place: &Place<'_, R>,
    engine: &Engine<R>,
    indexed: &Indexed,
    action: &Action,
) -> Result<(), ApiError> {
    let table = indexed.table();
    let Some(limit) = collections::limit(table.definition()).filter(|_| may_grow(action)) else {
        return Ok(());
    };
    let holds = partition_bytes(engine, place.partition).unwrap_or(0);
    if holds + collections::WRITE_BYTES_MAX < limit / 2 {
        return Ok(());
    }
    let known = indexed.collections.count(
        place.runtime,
        engine,
        place.partition,
        table.definition(),
        place.key,
    );
    Box::pin(known).await
}

/// Refuses what makes the item's collection larger than its table allows.
fn check_collection(
    indexed: &Indexed,
    key: &[u8],
    old: Option<StoredRef<'_>>,
    change: &Change,
) -> Result<(), ApiError> {
    let table = indexed.table();
    let definition = table.definition();
    let (Change::Put { item, item_bytes }, Some(limit)) = (change, collections::limit(definition)) else {
        return Ok(());
    };
    let growth = effects(definition, 0, old.map(image_of), Some((item, *item_bytes))).growth;
    indexed.collections.check(key, growth, limit)
}

/// What would become of an item, or what refuses that.
pub(crate) type Judged = Result<(Change, WriteDone), ApiError>;

/// What would become of the item, or what would refuse it. Nothing is written.
pub(crate) async fn judge<R: Runtime>(
    place: Place<'_, R>,
    engine: &Engine<R>,
    indexed: Option<&Indexed>,
    write: Write,
) -> Result<Judged, ApiError> {
    let updates = matches!(write.action, Action::Update(_));
    let grows = may_grow(&write.action);
    if let Some(indexed) = indexed {
        count_collection(&place, engine, indexed, &write.action).await?;
    }
    let decide = |old: Option<StoredRef<'_>>| {
        let judged = decide(write, place.seen(old)).and_then(|(change, mut done)| {
            if let (true, Some(indexed)) = (updates, indexed) {
                check_update(indexed.table().definition(), old, &change)?;
            }
            if let (true, Some(indexed)) = (grows, indexed) {
                check_collection(indexed, place.key, old, &change)?;
            }
            done.old_item_bytes = old.map(|old| old.item_bytes);
            Ok((change, done))
        });
        (Change::Keep, judged)
    };
    Ok(engine.update(place.partition, place.key, decide).await?.outcome)
}

/// Checks the keys of indexes that an update changes.
fn check_update(
    definition: &TableDefinition,
    old: Option<StoredRef<'_>>,
    change: &Change,
) -> Result<(), ApiError> {
    match change {
        Change::Put { item, .. } => {
            let before = old.map(|old| stored_view(old.item));
            check_keys(definition, Some(before), stored_view(item))
        }
        Change::Keep | Change::Delete => Ok(()),
    }
}

/// As [`Place::decide`], with what follows for the indexes by the definition of this moment.
fn decide_indexed<R: Runtime>(
    place: &Place<'_, R>,
    indexed: &Indexed,
    write: Write,
    old: Option<StoredRef<'_>>,
) -> Result<(Change, (WriteDone, u64), Effects), ApiError> {
    let table = indexed.table();
    let definition = table.definition();
    let updates = matches!(write.action, Action::Update(_));
    let is_expiry = matches!(write.action, Action::Expire { .. });
    let grows = may_grow(&write.action);
    let check = |change: &Change| {
        if updates {
            check_update(definition, old, change)?;
        }
        if grows {
            check_collection(indexed, place.key, old, change)?;
        }
        Ok(())
    };
    let (change, (mut done, round)) = place.decide(write, old, check)?;
    let new = match &change {
        Change::Put { item, item_bytes } => Some((item.as_slice(), *item_bytes)),
        Change::Delete => None,
        Change::Keep => return Ok((change, (done, round), Effects::default())),
    };
    let lower = definition.places[indexed.place].lower;
    let mut effects = effects(definition, lower, old.map(image_of), new);
    done.indexes = std::mem::take(&mut effects.capacity);
    let item = ItemChange {
        key: place.key,
        old: old.map(image_of),
        new,
        is_expiry,
    };
    let record = stream::derived(definition, lower, &item);
    effects.streams = record.is_some();
    effects.derived.extend(record);
    Ok((change, (done, round), effects))
}

/// What was decided, and the round of the expiry in which that was.
type Decided = Result<(WriteDone, u64), ApiError>;

/// Where a write is carried out.
pub(crate) struct Place<'a, R: Runtime> {
    pub runtime: &'a R,
    pub expiry: &'a Expiry,
    pub transactions: &'a Transactions,
    pub partition: PartitionId,
    pub key: &'a [u8],
}

impl<R: Runtime> Place<'_, R> {
    /// What requests see of an item.
    fn seen<'o>(&self, old: Option<StoredRef<'o>>) -> Option<StoredRef<'o>> {
        let hidden = self.expiry.hidden(self.partition, || self.runtime.unix_ms());
        old.filter(|old| !hidden.is_some_and(|hidden| hidden.hides(stored_view(old.item))))
    }

    /// As [`decide`], for what is seen of the item; what becomes of it is watched, unless `check` refuses it.
    fn decide(
        &self,
        write: Write,
        old: Option<StoredRef<'_>>,
        check: impl FnOnce(&Change) -> Result<(), ApiError>,
    ) -> Result<(Change, (WriteDone, u64)), ApiError> {
        let Place {
            expiry,
            transactions,
            partition,
            key,
            ..
        } = *self;
        transactions.check(partition, key, write.action.transaction())?;
        let expire = match &write.action {
            Action::Expire { attribute, now } => Some((Arc::clone(attribute), *now)),
            _ => None,
        };
        // What is hidden has expired; only the expiry itself is to see it.
        let seen = match expire {
            None => self.seen(old),
            Some(_) => old,
        };
        let (change, done) = decide(write, seen)?;
        check(&change)?;
        match (&change, &expire, old) {
            (Change::Put { item, .. }, _, _) => expiry.observe(partition, key, Some(stored_view(item))),
            (Change::Delete, _, _) => expiry.observe(partition, key, None),
            (Change::Keep, Some((attribute, now)), Some(old)) => {
                expiry.kept(partition, key, stored_view(old.item), attribute, *now);
            }
            (Change::Keep, _, _) => {}
        }
        Ok((change, (done, expiry.round())))
    }

    /// What was done, once it is applied.
    async fn finish(
        &self,
        engine: &Engine<R>,
        updated: Result<Updated<Decided>, EngineError>,
    ) -> Result<WriteDone, ApiError> {
        let Place {
            runtime,
            expiry,
            partition,
            key,
            ..
        } = *self;
        if updated.is_err() {
            // What was decided, and observed, may not have come to be.
            expiry.unsure(partition, key, || runtime.unix_ms());
        }
        let updated = updated?;
        let (mut done, round) = updated.outcome?;
        // The write is done, whatever comes of this.
        if round != expiry.round()
            && let Ok(Some(stored)) = engine.get(partition, key).await
        {
            expiry.applied(partition, key, stored_view(&stored));
        }
        done.old_item_bytes = updated.old_item_bytes;
        done.changed = updated.commit.is_some();
        Ok(done)
    }
}

/// What becomes of an item, given its newest proposed state.
fn decide(write: Write, old: Option<StoredRef<'_>>) -> Result<(Change, WriteDone), ApiError> {
    let Write {
        action,
        condition,
        returns,
    } = write;
    let old_view = old.map(|old| stored_view(old.item));
    if let Some(condition) = condition
        && !condition.bound().matches(old_view)
    {
        return Err(condition_failed(old_view.filter(|_| returns.refused)));
    }
    let mut done = WriteDone::default();
    if returns.old {
        done.old = old.map(|old| ItemCopy {
            item: old.item.to_vec(),
            item_bytes: old.item_bytes,
        });
    }
    let change = match action {
        Action::Put { item, item_bytes } => Change::Put { item, item_bytes },
        Action::Delete => Change::Delete,
        Action::Check => Change::Keep,
        Action::ByTransaction(by) => match by.put {
            Some((item, item_bytes)) => Change::Put { item, item_bytes },
            None => Change::Delete,
        },
        Action::Expire { attribute, now } => match old_view {
            Some(item) if has_expired(item, &attribute, now) => Change::Delete,
            _ => Change::Keep,
        },
        Action::Update(update) => {
            let new = update.apply(old_view)?;
            let item_bytes = u32::try_from(new.size()).expect("item sizes are limited");
            let item = ItemBytes::from_item(&new).into_vec();
            if returns.new {
                done.new = Some(ItemCopy {
                    item: item.clone(),
                    item_bytes,
                });
            }
            Change::Put { item, item_bytes }
        }
    };
    done.new_item_bytes = match &change {
        Change::Put { item_bytes, .. } => Some(*item_bytes),
        Change::Keep | Change::Delete => None,
    };
    Ok((change, done))
}

/// Items that are filtered before the other tasks of the shard have their turn. A page of small items has hundreds of thousands
/// of them, and a filter thousands of parts.
const FILTERED_AT_ONCE: u64 = 256;

/// Reads a stretch of a partition; `form` makes of each stored item what the caller needs.
pub(crate) async fn page<R: Runtime, T>(
    runtime: &R,
    engine: &Engine<R>,
    hidden: Option<Hidden>,
    partition: PartitionId,
    page: PageRequest,
    form: impl Fn(Stored) -> T,
) -> Result<PageDone<T>, ApiError> {
    let mut done = PageDone {
        items: Vec::new(),
        count: 0,
        scanned_count: 0,
        scanned_bytes: 0,
        answer_bytes: 0,
        fetched_capacity: Capacity::default(),
        last: None,
    };
    let filter = page.filter.as_ref().map(Filter::bound);
    // What is hidden counts for nothing but the end of the page, so that a page is no longer than another.
    let (mut hidden_count, mut hidden_bytes) = (0_u64, 0);
    let mut scan = engine.scan(partition, page.range, page.direction);
    while let Some((key, entry)) = scan.next().await? {
        let mut stored = entry.clone();
        if let Some(local) = page.local {
            if StorageKey::local_index(&key) != Some(local.index.0) {
                continue;
            }
            if local.fetch {
                let key = StorageKey::of_local_index_entry(&key)
                    .ok_or_else(|| ApiError::internal("an entry of a local index has no item's key"))?;
                // An item that has gone since the scan passed its entry is not in the index any more.
                let Some(item) = engine.get(partition, key.as_bytes()).await? else {
                    continue;
                };
                let capacity = Capacity::of_read(u64::from(item.item_bytes()), true);
                done.fetched_capacity = done.fetched_capacity.plus(capacity);
                stored = item;
            }
        }
        if let Some(hidden) = &hidden
            && hidden.hides(stored_view(&stored))
        {
            hidden_count += 1;
            hidden_bytes += u64::from(entry.item_bytes());
            if hidden_count.is_multiple_of(FILTERED_AT_ONCE) {
                runtime.yield_now().await;
            }
            if done.scanned_bytes + hidden_bytes >= page.bytes_max {
                done.last = Some(form(entry));
                break;
            }
            continue;
        }
        done.scanned_count += 1;
        done.scanned_bytes += u64::from(entry.item_bytes());
        let passes = match &filter {
            Some(filter) => {
                if done.scanned_count.is_multiple_of(FILTERED_AT_ONCE) {
                    runtime.yield_now().await;
                }
                filter.matches(Some(stored_view(&stored)))
            }
            None => true,
        };
        if passes {
            done.count += 1;
            if !page.count_only {
                done.answer_bytes += answer_bytes(&stored);
            }
        }
        let full = done.scanned_count >= page.items_max
            || done.scanned_bytes + hidden_bytes >= page.bytes_max
            || done.answer_bytes >= page.answer_bytes_max;
        match (passes && !page.count_only, full) {
            (true, true) => {
                done.last = Some(form(entry));
                done.items.push(form(stored));
            }
            (true, false) => done.items.push(form(stored)),
            (false, true) => done.last = Some(form(entry)),
            (false, false) => {}
        }
        if full {
            break;
        }
    }
    Ok(done)
}
