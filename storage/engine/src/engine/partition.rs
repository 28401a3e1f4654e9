//! One partition as the engine holds it: its tree, what is in flight, and its counters.
//!
//! An empty partition costs its struct and its descriptor's keys, and no file: every collection here starts
//! without memory, and the tree makes its first memtable with the first mutation.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{Moment, Runtime};
use hashbrown::HashTable;

use super::latch::Latches;
use super::types::{IndexUsage, PartitionDescriptor, PartitionInfo, StoredRef};
use super::write::Proposal;
use crate::error::EngineError;
use crate::group::Counter;
use crate::ids::{CommitTimestamp, IndexId, LogSequence, RaftIndex};
use crate::manifest::Edit;
use crate::tree::{KeyHash, Tree, TreeError, Version};

/// Length of a space and a hash, which a key begins with where tables are concerned.
pub(crate) const HASH_PREFIX_BYTES: usize = 9;

/// Counters and positions at one applied index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    pub(crate) index: RaftIndex,
    /// Greatest timestamp applied.
    pub(crate) floor: CommitTimestamp,
    pub(crate) item_count: u64,
    pub(crate) item_bytes: u64,
}

/// What a partition holds of its local indexes, by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct IndexCounts(Vec<IndexUsage>);

impl IndexCounts {
    pub(crate) fn of(indexes: &[IndexUsage]) -> IndexCounts {
        IndexCounts(indexes.to_vec())
    }

    pub(crate) fn all(&self) -> &[IndexUsage] {
        &self.0
    }

    /// Moves an index's counter by one change; none, and nothing changed, when it cannot have stood so before it.
    fn count(&mut self, index: IndexId, old: Option<u32>, new: Option<u32>) -> Option<()> {
        let place = self.0.binary_search_by_key(&index, |usage| usage.index);
        let usage = match place {
            Ok(place) => &mut self.0[place],
            Err(place) => {
                let (item_count, item_bytes) = (0, 0);
                self.0.insert(
                    place,
                    IndexUsage {
                        index,
                        item_count,
                        item_bytes,
                    },
                );
                &mut self.0[place]
            }
        };
        (usage.item_count, usage.item_bytes) = moved((usage.item_count, usage.item_bytes), old, new)?;
        Some(())
    }
}

/// A count and its bytes, after a change.
fn moved((count, bytes): (u64, u64), old: Option<u32>, new: Option<u32>) -> Option<(u64, u64)> {
    let size = |size: Option<u32>| u64::from(size.unwrap_or(0));
    let count = (count + u64::from(new.is_some())).checked_sub(u64::from(old.is_some()))?;
    let bytes = (bytes + size(new)).checked_sub(size(old))?;
    Some((count, bytes))
}

/// Whether a partition serves.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    Serving,
    Fenced(Rc<str>),
    /// Its drop is in the log and not durable: until then a crash brings it back, so that everything of it stays.
    Dropping,
    /// Durably: its files may go.
    Dropped,
}

/// How long background work on one partition waits after a failure that is its own: twice as long after each, so
/// that it takes nothing from the others.
#[derive(Default)]
pub(super) struct Rest(Cell<Option<(u32, Moment)>>);

impl Rest {
    /// The first wait, and how often it doubles: 200 ms to 25 s.
    const FIRST: Duration = Duration::from_millis(200);
    const DOUBLINGS_MAX: u32 = 7;

    pub(super) fn failed(&self, now: Moment) {
        let failures = self.0.get().map_or(0, |(failures, _)| failures);
        let wait = Rest::FIRST * (1 << failures.min(Rest::DOUBLINGS_MAX));
        self.0.set(Some((failures + 1, now + wait)));
    }

    pub(super) fn succeeded(&self) {
        self.0.set(None);
    }

    pub(super) fn lasts(&self, now: Moment) -> bool {
        self.0.get().is_some_and(|(_, until)| now < until)
    }
}

/// The newest proposal of a key, while it is not applied.
struct InFlight {
    hash: KeyHash,
    key: Rc<[u8]>,
    number: u64,
    version: Version,
}

/// The newest proposals of all keys that have one in flight. Nothing asks for their order.
#[derive(Default)]
pub(super) struct InFlights(HashTable<InFlight>);

impl InFlights {
    fn get(&self, key: &[u8]) -> Option<&InFlight> {
        if self.0.is_empty() {
            return None;
        }
        self.0
            .find(KeyHash::of(key).number(), |in_flight| *in_flight.key == *key)
    }

    /// Takes the place of an older proposal of the key.
    pub(super) fn insert(&mut self, key: Rc<[u8]>, number: u64, version: Version) {
        let hash = KeyHash::of(&key);
        let entry = self.0.entry(
            hash.number(),
            |in_flight| in_flight.key == key,
            |in_flight| in_flight.hash.number(),
        );
        entry.insert(InFlight {
            hash,
            key,
            number,
            version,
        });
    }

    /// Forgets proposal `number`, unless a newer one has taken its place.
    pub(super) fn remove(&mut self, key: &[u8], number: u64) {
        let entry = self.0.find_entry(KeyHash::of(key).number(), |in_flight| {
            in_flight.number == number && *in_flight.key == *key
        });
        if let Ok(entry) = entry {
            entry.remove();
        }
    }
}

/// The newest proposed state of a key.
pub(super) struct Newest {
    version: Option<Version>,
    /// The proposal it comes from, when that is not applied yet.
    pub(super) number: Option<u64>,
}

impl Newest {
    pub(super) fn applied(version: Option<Version>) -> Newest {
        Newest {
            version: version.filter(|version| !version.is_tombstone()),
            number: None,
        }
    }

    pub(super) fn as_stored(&self) -> Option<StoredRef<'_>> {
        self.version.as_ref().map(|version| StoredRef {
            item: &version.item,
            item_bytes: version.item_bytes,
            commit: version.commit,
        })
    }

    pub(super) fn item_bytes(&self) -> Option<u32> {
        self.version.as_ref().map(|version| version.item_bytes)
    }
}

pub(super) struct Partition<R: Runtime> {
    pub(super) descriptor: PartitionDescriptor,
    pub(super) tree: Tree<R>,
    pub(super) latches: Latches,
    pub(super) in_flight: RefCell<InFlights>,
    pub(super) proposed_index: Cell<RaftIndex>,
    pub(super) proposed_commit: Cell<CommitTimestamp>,
    pub(super) applied: Cell<Applied>,
    /// Greatest timestamp of a delete of an item that was applied since the start; zero before the first.
    pub(super) greatest_delete: Cell<CommitTimestamp>,
    pub(super) index_counts: RefCell<IndexCounts>,
    /// First batch whose mutation is in the active memtable, and when it got there.
    pub(super) active_since: Cell<Option<(LogSequence, Moment)>>,
    /// The same of the memtable that is being flushed, or whose flush has failed and will be tried again.
    pub(super) frozen_since: Cell<Option<(LogSequence, Moment)>>,
    /// Counters, and the last batch applied, when it was frozen.
    pub(super) frozen_at: Cell<(Applied, LogSequence)>,
    pub(super) frozen_index_counts: RefCell<IndexCounts>,
    pub(super) standing: RefCell<Standing>,
    pub(super) flush_rest: Rest,
    pub(super) compaction_rest: Rest,
}

impl<R: Runtime> Partition<R> {
    /// A partition with nothing in its memtable.
    pub(super) fn new(descriptor: PartitionDescriptor, tree: Tree<R>, applied: Applied) -> Partition<R> {
        Partition {
            descriptor,
            tree,
            latches: Latches::default(),
            in_flight: RefCell::default(),
            proposed_index: Cell::new(applied.index),
            proposed_commit: Cell::new(applied.floor),
            applied: Cell::new(applied),
            greatest_delete: Cell::default(),
            index_counts: RefCell::default(),
            active_since: Cell::new(None),
            frozen_since: Cell::new(None),
            frozen_at: Cell::default(),
            frozen_index_counts: RefCell::default(),
            standing: RefCell::new(Standing::Serving),
            flush_rest: Rest::default(),
            compaction_rest: Rest::default(),
        }
    }

    /// The counters of local indexes, as they were when the memtable was frozen.
    pub(super) fn frozen_index_edits(&self) -> Vec<Edit> {
        let counts = self.frozen_index_counts.borrow();
        let edit = |usage: &IndexUsage| Edit::IndexCounters {
            partition: self.descriptor.id,
            usage: *usage,
        };
        counts.all().iter().map(edit).collect()
    }

    pub(super) fn info(&self) -> PartitionInfo {
        let PartitionDescriptor {
            id,
            table,
            index,
            lower,
            upper,
        } = self.descriptor.clone();
        let Applied {
            floor,
            item_count,
            item_bytes,
            ..
        } = self.applied.get();
        let fenced = match &*self.standing.borrow() {
            Standing::Fenced(why) => Some(Rc::clone(why)),
            Standing::Serving | Standing::Dropping | Standing::Dropped => None,
        };
        PartitionInfo {
            id,
            table,
            index,
            lower,
            upper,
            item_count,
            item_bytes,
            indexes: self.index_counts.borrow().all().to_vec(),
            floor,
            fenced,
        }
    }

    /// # Errors
    /// `Fenced`, or `NoSuchPartition` once it is dropped.
    pub(super) fn check_serves(&self) -> Result<(), EngineError> {
        match &*self.standing.borrow() {
            Standing::Serving => Ok(()),
            Standing::Fenced(why) => Err(EngineError::Fenced {
                partition: self.descriptor.id,
                why: Rc::clone(why),
            }),
            Standing::Dropping | Standing::Dropped => Err(EngineError::NoSuchPartition(self.descriptor.id)),
        }
    }

    pub(super) fn is_dropped(&self) -> bool {
        matches!(&*self.standing.borrow(), Standing::Dropped)
    }

    /// # Errors
    /// `KeyOutOfRange`.
    pub(super) fn check_owns(&self, key: &[u8]) -> Result<(), EngineError> {
        let descriptor = &self.descriptor;
        let below = descriptor.upper.as_deref().is_none_or(|upper| key < upper);
        if below && descriptor.lower.as_slice() <= key || self.owns_in_other_space(key) {
            Ok(())
        } else {
            Err(EngineError::KeyOutOfRange(descriptor.id))
        }
    }

    /// A range that begins with a space and a hash owns the same hashes in all the other spaces: what belongs to an item is
    /// where the item is.
    fn owns_in_other_space(&self, key: &[u8]) -> bool {
        let PartitionDescriptor { lower, upper, .. } = &self.descriptor;
        if lower.len() != HASH_PREFIX_BYTES || key.len() < HASH_PREFIX_BYTES || key[0] == lower[0] {
            return false;
        }
        let below = match upper.as_deref() {
            // The end of the space is the end of the hashes.
            Some([space, rest @ ..]) => *space > lower[0] || key[1..] < *rest,
            Some([]) | None => true,
        };
        lower[1..] <= key[1..] && below
    }

    /// The newest proposed state, when no drive has to be asked for it.
    pub(super) fn newest_in_memory(&self, key: &[u8]) -> Option<Result<Newest, TreeError>> {
        if let Some(in_flight) = self.in_flight.borrow().get(key) {
            let mut newest = Newest::applied(Some(in_flight.version.clone()));
            newest.number = Some(in_flight.number);
            return Some(Ok(newest));
        }
        self.tree.get_cached(key).map(|found| found.map(Newest::applied))
    }

    /// Moves a mutation from the log into the applied state. Answers by how much memory grew.
    pub(super) fn apply(&self, proposal: Proposal<R>, now: Moment) -> isize {
        let Proposal {
            sequence,
            index,
            commit,
            own,
            further,
            ..
        } = proposal;
        let mut applied = self.applied.get();
        assert_eq!(
            applied.index.0 + 1,
            index.0,
            "a partition is applied in the order of its chain"
        );
        assert!(commit > applied.floor, "timestamps ascend along a chain");
        applied.advance(index, commit);
        for change in own.iter().chain(&further) {
            let (old, new) = (change.old_item_bytes, new_item_bytes(&change.version));
            applied
                .try_count(change.counter, &self.index_counts, old, new)
                .expect("what a mutation removes was counted before");
            if change.version.is_tombstone() && change.counter == Counter::Items {
                self.greatest_delete.set(commit);
            }
        }
        self.applied.set(applied);
        if self.is_dropped() {
            return 0;
        }
        if self.active_since.get().is_none() {
            self.active_since.set(Some((sequence, now)));
        }
        let changes = own.into_iter().chain(further);
        changes
            .map(|change| self.tree.insert(&change.key, change.version, sequence))
            .sum()
    }

    /// First batch that only the log and a memtable hold, and since when.
    pub(super) fn unflushed_since(&self) -> Option<(LogSequence, Moment)> {
        self.frozen_since.get().or(self.active_since.get())
    }

    /// Bytes in memtables, active and being flushed.
    pub(super) fn unflushed_bytes(&self) -> usize {
        self.tree.memtable_bytes() + self.tree.frozen_bytes()
    }
}

/// DynamoDB size of the item that a version leaves behind.
fn new_item_bytes(version: &Version) -> Option<u32> {
    (!version.is_tombstone()).then_some(version.item_bytes)
}

impl Applied {
    /// Goes one step on in the chain.
    pub(crate) fn advance(&mut self, index: RaftIndex, commit: CommitTimestamp) {
        self.index = index;
        self.floor = commit;
    }

    /// Moves a counter by one change; none, and nothing changed, when it cannot have stood so before it.
    pub(crate) fn try_count(
        &mut self,
        counter: Counter,
        indexes: &RefCell<IndexCounts>,
        old: Option<u32>,
        new: Option<u32>,
    ) -> Option<()> {
        match counter {
            Counter::Items => {
                (self.item_count, self.item_bytes) = moved((self.item_count, self.item_bytes), old, new)?;
            }
            Counter::Index(index) => indexes.borrow_mut().count(index, old, new)?,
            Counter::Nothing => {}
        }
        Some(())
    }
}
