//! What is asked of the shard that owns a partition, and how that shard does it.
//!
//! The same functions serve a request of the own shard and one that came through the mailbox; only the form of
//! the items in the answer differs (handles at home, copies abroad).

use std::sync::Arc;

use cairn_engine::ids::PartitionId;
use cairn_engine::{Change, Direction, Engine, Range, Stored, StoredRef};
use cairn_item::ItemBytes;
use cairn_runtime::Runtime;
use cairn_runtime::mailbox::ReplySender;

use super::evaluate::{Condition, Filter, Update, condition_failed};
use super::handle::{ItemCopy, stored_view};
use crate::api::ApiError;
use crate::expiry::{Expiry, Hidden, has_expired};

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
    let expire = match &write.action {
        Action::Expire { attribute, now } => Some((Arc::clone(attribute), *now)),
        _ => None,
    };
    let decide = |old: Option<StoredRef<'_>>| {
        // What is hidden has expired; only the expiry itself is to see it.
        let hidden = match expire {
            None => expiry.hidden(partition, || runtime.unix_ms()),
            Some(_) => None,
        };
        let seen = old.filter(|old| !hidden.is_some_and(|hidden| hidden.hides(stored_view(old.item))));
        match decide(write, seen) {
            Ok((change, done)) => {
                match (&change, &expire, old) {
                    (Change::Put { item, .. }, _, _) => {
                        expiry.observe(partition, key, Some(stored_view(item)))
                    }
                    (Change::Delete, _, _) => expiry.observe(partition, key, None),
                    (Change::Keep, Some((attribute, now)), Some(old)) => {
                        expiry.kept(partition, key, stored_view(old.item), attribute, *now);
                    }
                    (Change::Keep, _, _) => {}
                }
                (change, Ok((done, expiry.round())))
            }
            Err(error) => (Change::Keep, Err(error)),
        }
    };
    let updated = engine.update(partition, key, decide).await;
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
        last: None,
    };
    let filter = page.filter.as_ref().map(Filter::bound);
    // What is hidden counts for nothing but the end of the page, so that a page is no longer than another.
    let (mut hidden_count, mut hidden_bytes) = (0_u64, 0);
    let mut scan = engine.scan(partition, page.range, page.direction);
    while let Some((_, stored)) = scan.next().await? {
        if let Some(hidden) = &hidden
            && hidden.hides(stored_view(&stored))
        {
            hidden_count += 1;
            hidden_bytes += u64::from(stored.item_bytes());
            if hidden_count.is_multiple_of(FILTERED_AT_ONCE) {
                runtime.yield_now().await;
            }
            if done.scanned_bytes + hidden_bytes >= page.bytes_max {
                done.last = Some(form(stored));
                break;
            }
            continue;
        }
        done.scanned_count += 1;
        done.scanned_bytes += u64::from(stored.item_bytes());
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
                done.last = Some(form(stored.clone()));
                done.items.push(form(stored));
            }
            (true, false) => done.items.push(form(stored)),
            (false, true) => done.last = Some(form(stored)),
            (false, false) => {}
        }
        if full {
            break;
        }
    }
    Ok(done)
}
