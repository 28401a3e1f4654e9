//! What is asked of the shard that owns a partition, and how that shard does it.
//!
//! The same functions serve a request of the own shard and one that came through the mailbox; only the form of
//! the items in the answer differs (handles at home, copies abroad).

use std::sync::Arc;

use cairn_engine::ids::{IndexId, PartitionId};
use cairn_engine::{
    Change, Counter, Decision, Direction, Engine, EngineError, Range, Stored, StoredRef, Updated,
};
use cairn_item::{ItemBytes, StorageKey};
use cairn_runtime::Runtime;
use cairn_runtime::mailbox::ReplySender;

use super::evaluate::{Condition, Filter, Update, condition_failed};
use super::handle::{ItemCopy, stored_view};
use crate::api::{ApiError, Capacity};
use crate::expiry::{Expiry, Hidden, has_expired};
use crate::index::Indexed;
use crate::index::effects::{Effects, check_keys, effects, image_of};
use crate::index::feed::Feed;

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
    /// Remove the item if its time to live is over.
    Expire {
        /// The attribute that holds it.
        attribute: Arc<str>,
        /// Seconds since the Unix epoch.
        now: u64,
    },
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
    Page {
        engine: usize,
        partition: PartitionId,
        page: PageRequest,
        reply: ReplySender<Result<PageDone<ItemCopy>, ApiError>>,
    },
}

/// Carries out a write on the engine of its partition.
pub(crate) async fn write<R: Runtime>(
    runtime: &R,
    engine: &Engine<R>,
    expiry: &Expiry,
    partition: PartitionId,
    key: &[u8],
    write: Write,
) -> Result<WriteDone, ApiError> {
    let place = Place {
        runtime,
        expiry,
        partition,
        key,
    };
    let decide = |old: Option<StoredRef<'_>>| match place.decide(write, old, |_| Ok(())) {
        Ok((change, done)) => (change, Ok(done)),
        Err(error) => (Change::Keep, Err(error)),
    };
    let updated = engine.update(partition, key, decide).await;
    place.finish(engine, updated).await
}

/// The same where the table has indexes: what the write means for them is part of its step.
pub(crate) async fn write_indexed<R: Runtime>(
    runtime: &R,
    engine: &Engine<R>,
    expiry: &Expiry,
    indexed: &Indexed,
    key: &[u8],
    write: Write,
) -> Result<WriteDone, ApiError> {
    // What expires is deleted however far the indexes are behind: nobody would try it again as a client does.
    if !matches!(write.action, Action::Expire { .. }) {
        indexed.admit(runtime).await?;
    }
    let partition = indexed.partition;
    let place = Place {
        runtime,
        expiry,
        partition,
        key,
    };
    let wants_collection = write.returns.collection;
    let progress = indexed.begin_write();
    let decide = |old: Option<StoredRef<'_>>| {
        let (change, derived, outcome) = match decide_indexed(&place, indexed, write, old) {
            Ok((change, done, effects)) => {
                progress.adds(effects.record_bytes);
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
    let updated = engine.update_with(partition, key, Counter::Items, decide).await;
    progress.ended(updated.is_ok());
    drop(progress);
    let mut done = place.finish(engine, updated).await?;
    if wants_collection {
        let info = engine.partition(partition);
        done.collection_bytes_max = info.map(|info| {
            let entries = info.indexes.iter().map(|index| index.item_bytes);
            info.item_bytes + entries.sum::<u64>()
        });
    }
    Ok(done)
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
    let check = |change: &Change| match change {
        Change::Put { item, .. } if updates => {
            let before = old.map(|old| stored_view(old.item));
            check_keys(definition, Some(before), stored_view(item))
        }
        _ => Ok(()),
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
    Ok((change, (done, round), effects))
}

/// What was decided, and the round of the expiry in which that was.
type Decided = Result<(WriteDone, u64), ApiError>;

/// Where a write is carried out.
struct Place<'a, R: Runtime> {
    runtime: &'a R,
    expiry: &'a Expiry,
    partition: PartitionId,
    key: &'a [u8],
}

impl<R: Runtime> Place<'_, R> {
    /// As [`decide`], for what is seen of the item; what becomes of it is watched, unless `check` refuses it.
    fn decide(
        &self,
        write: Write,
        old: Option<StoredRef<'_>>,
        check: impl FnOnce(&Change) -> Result<(), ApiError>,
    ) -> Result<(Change, (WriteDone, u64)), ApiError> {
        let Place {
            runtime,
            expiry,
            partition,
            key,
        } = *self;
        let expire = match &write.action {
            Action::Expire { attribute, now } => Some((Arc::clone(attribute), *now)),
            _ => None,
        };
        // What is hidden has expired; only the expiry itself is to see it.
        let hidden = match expire {
            None => expiry.hidden(partition, || runtime.unix_ms()),
            Some(_) => None,
        };
        let seen = old.filter(|old| !hidden.is_some_and(|hidden| hidden.hides(stored_view(old.item))));
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
