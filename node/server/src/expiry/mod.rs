//! Items that expire: a table's time to live.
//!
//! An item expires after the second (of the Unix epoch) that its attribute holds as a number; a number that is more than
//! five years old is taken for a mistake, as DynamoDB does. Every shard deletes the expired items of its own partitions:
//!
//! 1. A partition whose table has its time to live on is **watched**. It is gone through once, at a bounded pace; what has expired
//!    is deleted on the way, and what will expire is noted in a [`schedule`] of bounded size.
//! 2. Every write of a watched partition corrects the schedule at the moment when it is decided, so nothing has to
//!    be gone through again to learn of it.
//! 3. Each second the items that are due are deleted. Each deletion is an update that looks at the newest state of the item:
//!    what was changed since, and has not expired, stays, and is scheduled anew.
//! 4. Where more items will expire than the schedule holds, it knows those up to its horizon; shortly before that second all watched
//!    partitions are gone through again.
//!
//! The schedule is not stored: after a restart the partitions are gone through again. A table may hide its expired items
//! from the second in which they expire on; the owner of the partition then answers as if they were not there.

mod schedule;
mod sweep;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use cairn_engine::ids::PartitionId;
use cairn_item::{ItemView, Number, ValueView};
use cairn_runtime::sync::Notify;

use schedule::Schedule;

pub(crate) use sweep::sweep;

/// Memory of a shard's schedule.
const SCHEDULE_BYTES_MAX: usize = 8 << 20;
/// Pause after what failed.
const RETRY_SECONDS: u64 = 10;
/// Five years in seconds; what is older does not expire.
const OLDEST_SECONDS: u64 = 5 * 365 * 24 * 60 * 60 + 24 * 60 * 60;

/// How far the going through a partition has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// Behind this key.
    Behind(Bound<Vec<u8>>),
    Done,
}

#[derive(Debug)]
struct Watch {
    attribute: Arc<str>,
    hides: bool,
    /// Which of the shard's engines has it.
    engine: usize,
    progress: Progress,
    /// The last attempt to go on failed.
    failing: bool,
}

/// Counters and gauges of a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpiryStats {
    /// Items deleted because they had expired.
    pub deleted: u64,
    /// Items gone through to find them.
    pub examined: u64,
    /// Deletions that failed and were tried again.
    pub failures: u64,
    /// Items in the schedule now.
    pub scheduled: u64,
}

/// What one shard knows of the items of its partitions that expire.
pub(crate) struct Expiry {
    watched: RefCell<BTreeMap<PartitionId, Watch>>,
    schedule: RefCell<Schedule>,
    /// Watched partitions; a write of any other table need not look further.
    watching: Cell<usize>,
    /// Those of them that hide expired items.
    hiding: Cell<usize>,
    /// Changes whenever partitions are to be gone through from their beginning.
    round: Cell<u64>,
    stats: Cell<ExpiryStats>,
    /// There is something to watch, or an end of it.
    wake: Notify,
}

impl Default for Expiry {
    fn default() -> Expiry {
        Expiry {
            watched: RefCell::default(),
            schedule: RefCell::new(Schedule::new(SCHEDULE_BYTES_MAX)),
            watching: Cell::new(0),
            hiding: Cell::new(0),
            round: Cell::new(0),
            stats: Cell::default(),
            wake: Notify::new(),
        }
    }
}

/// Which items of a partition are not to be seen.
#[derive(Debug, Clone)]
pub(crate) struct Hidden {
    attribute: Arc<str>,
    now: u64,
}

impl Hidden {
    pub(crate) fn hides(&self, item: ItemView<'_>) -> bool {
        has_expired(item, &self.attribute, self.now)
    }
}

impl Expiry {
    /// Counters and gauges.
    pub(crate) fn stats(&self) -> ExpiryStats {
        ExpiryStats {
            scheduled: self.schedule.borrow().len() as u64,
            ..self.stats.get()
        }
    }

    fn count(&self, change: impl FnOnce(&mut ExpiryStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// From now on the partition's items expire by `attribute`, or by none.
    pub(crate) fn watch(&self, partition: PartitionId, engine: usize, attribute: Option<&str>, hides: bool) {
        let mut watched = self.watched.borrow_mut();
        match (attribute, watched.get_mut(&partition)) {
            (Some(attribute), Some(watch)) if *watch.attribute == *attribute => watch.hides = hides,
            (Some(attribute), _) => {
                let watch = Watch {
                    attribute: Arc::from(attribute),
                    hides,
                    engine,
                    progress: Progress::Behind(Bound::Unbounded),
                    failing: false,
                };
                watched.insert(partition, watch);
                self.schedule.borrow_mut().remove_partition(partition);
                self.round.set(self.round.get() + 1);
                self.wake.notify_all();
            }
            (None, Some(_)) => {
                watched.remove(&partition);
                self.schedule.borrow_mut().remove_partition(partition);
            }
            (None, None) => {}
        }
        self.watching.set(watched.len());
        self.hiding
            .set(watched.values().filter(|watch| watch.hides).count());
    }

    /// The newest state of an item, as it is decided: it is about to be stored, or removed.
    pub(crate) fn observe(&self, partition: PartitionId, key: &[u8], item: Option<ItemView<'_>>) {
        if self.watching.get() == 0 {
            return;
        }
        if let Some(watch) = self.watched.borrow().get(&partition) {
            let due = item.and_then(|item| due_from(item, &watch.attribute));
            self.schedule.borrow_mut().set(partition, key, due);
        }
    }

    /// An item whose time had come is kept. One whose time is too long ago is not looked at again.
    pub(crate) fn kept(
        &self,
        partition: PartitionId,
        key: &[u8],
        item: ItemView<'_>,
        attribute: &str,
        now: u64,
    ) {
        let due = due_from(item, attribute).filter(|due| *due > now);
        if let (Some(due), true) = (due, self.watched.borrow().contains_key(&partition)) {
            self.schedule.borrow_mut().set_no_later(partition, key, due);
        }
    }

    /// To be asked when a write is decided, and again when it is applied: if the answers differ, the partition may have been gone
    /// through in between without the item being found, see [`Expiry::applied`].
    pub(crate) fn round(&self) -> u64 {
        self.round.get()
    }

    /// The state of an item that was applied while a round began.
    pub(crate) fn applied(&self, partition: PartitionId, key: &[u8], item: ItemView<'_>) {
        if let Some(watch) = self.watched.borrow().get(&partition)
            && let Some(due) = due_from(item, &watch.attribute)
        {
            self.schedule.borrow_mut().set_no_later(partition, key, due);
        }
    }

    /// A write failed after it was decided: the item is looked at soon, and then it is known what it is.
    pub(crate) fn unsure(&self, partition: PartitionId, key: &[u8], now_ms: impl FnOnce() -> u64) {
        if self.watched.borrow().contains_key(&partition) {
            let soon = now_ms() / 1000 + RETRY_SECONDS;
            self.schedule.borrow_mut().set_no_later(partition, key, soon);
        }
    }

    /// Lets the task that deletes look whether it is to end.
    pub(crate) fn wake(&self) {
        self.wake.notify_all();
    }

    /// Which items of a partition are not to be seen at `now_ms` (milliseconds since the Unix epoch).
    pub(crate) fn hidden(&self, partition: PartitionId, now_ms: impl FnOnce() -> u64) -> Option<Hidden> {
        if self.hiding.get() == 0 {
            return None;
        }
        let watched = self.watched.borrow();
        let watch = watched.get(&partition).filter(|watch| watch.hides)?;
        Some(Hidden {
            attribute: Arc::clone(&watch.attribute),
            now: now_ms() / 1000,
        })
    }
}

/// Whether an item has expired in the second `now` of the Unix epoch.
pub(crate) fn has_expired(item: ItemView<'_>, attribute: &str, now: u64) -> bool {
    expires_after(item, attribute)
        .is_some_and(|second| second < now && second >= now.saturating_sub(OLDEST_SECONDS))
}

/// The first second of the Unix epoch in which an item is expired.
fn due_from(item: ItemView<'_>, attribute: &str) -> Option<u64> {
    expires_after(item, attribute).map(|second| second.saturating_add(1))
}

/// The second of the Unix epoch after which an item is expired.
fn expires_after(item: ItemView<'_>, attribute: &str) -> Option<u64> {
    match item.get(attribute)? {
        ValueView::N(number) => whole_seconds(&number),
        _ => None,
    }
}

fn whole_seconds(number: &Number) -> Option<u64> {
    if let Some(seconds) = number.to_i64() {
        return u64::try_from(seconds).ok();
    }
    if number.is_negative() {
        return None;
    }
    let mut text = Vec::new();
    number.write_to(&mut text);
    let whole = text.split(|&digit| digit == b'.').next().unwrap_or_default();
    std::str::from_utf8(whole).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_item::{Attribute, Item, Value};

    #[test]
    fn what_expires_when() {
        let check = |value: Value, now: u64, expected: bool| {
            let item = Item::from_attributes(vec![Attribute {
                name: "ttl".to_owned(),
                value,
            }]);
            let bytes = cairn_item::archive(&item);
            let view = ItemView::validate(&bytes).unwrap();
            assert_eq!(has_expired(view, "ttl", now), expected, "{item:?} at {now}");
            assert!(!has_expired(view, "other", now));
        };
        let number = |text: &str| Value::N(text.parse().unwrap());
        let now = 1_700_000_000;
        check(number("1699999999"), now, true);
        check(number("1700000000"), now, false);
        check(number("1699999999.5"), now, true);
        check(number("1700000000.5"), now, false);
        check(number("1.7E9"), now + 1, true);
        check(number("-1"), now, false);
        check(number("-0.5"), now, false);
        check(number("0"), now, false);
        check(number("0"), 1, true);
        check(number("1E+40"), now, false);
        check(number("0.001"), 1, true);
        // Five years.
        check(number("1542320000"), now, true);
        check(number("1542230000"), now, false);
        check(Value::S("1".to_owned()), now, false);
        check(Value::Null, now, false);
    }
}
