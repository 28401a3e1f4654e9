//! Secondary indexes.
//!
//! - [`entry`]: which entry an item has in an index, if any;
//! - [`effects`]: what a write of an item means for the indexes of its table;
//! - [`change`]: the records of a partition's change sequence;
//! - [`feed`]: what takes changes from there to the global indexes;
//! - [`backfill`]: what enters the items that were there before an index;
//! - [`collections`]: how large item collections are, for tables that limit them;
//! - [`writes`]: when all writes have ended that began before a moment;
//! - [`check`]: whether they equal their table, on a stopped node.
//!
//! **Invariants**
//! 1. An entry of a local index is in the partition of its item and changes in the same step of that partition's chain. So local
//!    indexes are as consistent as the table, always.
//! 2. What a write means for global indexes is one record of the partition's change sequence, in the same step as the write,
//!    under a key that ends with its commit timestamp.
//! 3. A partition of a global index applies the changes of each partition of the table in order, and notes with them, in one
//!    step, how far it has come: what reaches it again changes nothing.
//! 4. Records of the change sequence go when every index has applied them, and not before.
//! 5. An index serves when everything that was there before it has gone through the change sequence as well.
//!
//! The shard that owns a partition decides by its own copy of the catalog, at the moment of the decision: an index that all
//! shards have heard of misses no later write.

mod backfill;
pub(crate) mod change;
mod check;
pub(crate) mod collections;
pub(crate) mod effects;
pub(crate) mod entry;
pub(crate) mod feed;
pub(crate) mod writes;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

pub use check::IndexCheck;

use cairn_engine::ids::{IndexId, PartitionId, TableId};
use cairn_runtime::mailbox::reply;
use cairn_runtime::sync::Notify;
use cairn_runtime::{Queue, Runtime};

use collections::Collections;

use crate::api::ApiError;
use crate::api::error::{THROUGHPUT_EXCEEDED, UNAVAILABLE};
use crate::catalog::{Order, Table};
use crate::node::Control;
use crate::route::Router;

/// Records of a partition's change sequence that may wait for its indexes.
pub(crate) const BACKLOG_RECORDS_MAX: u64 = 16_384;
/// Bytes of records of a partition's change sequence that may wait for its indexes.
pub(crate) const BACKLOG_BYTES_MAX: u64 = 64 << 20;
/// How long a write is held back when the backlog is nearly full; less below, and not at all below half.
const BACKLOG_DELAY_MAX: Duration = Duration::from_millis(20);

/// DynamoDB's words for an index that takes less than the table gives it.
const BACKLOG_FULL: &str = "The level of configured provisioned throughput for one or more global secondary indexes of the \
     table was exceeded. Consider increasing your provisioning level for the under-provisioned global secondary indexes with \
     the UpdateTable API";

/// Counters and gauges of a shard's indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexStats {
    /// Records of change sequences that wait for global indexes now.
    pub backlog_records: u64,
    /// Bytes of them.
    pub backlog_bytes: u64,
    /// Items gone through to fill indexes.
    pub examined: u64,
    /// Failures of filling indexes, tried again since.
    pub failures: u64,
    /// Indexes that are being filled, by the names of table and index.
    pub filling: BTreeMap<(String, String), Filling>,
}

/// How far an index is filled from a shard's partitions of its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filling {
    /// Items gone through.
    pub examined: u64,
    /// Items that there are now.
    pub items: u64,
}

/// The partitions of this shard that belong to tables with indexes or streams.
#[derive(Default)]
pub(crate) struct Indexes {
    partitions: RefCell<BTreeMap<PartitionId, Rc<Indexed>>>,
    /// A stream was enabled, or it is over.
    pub(crate) streams_changed: Notify,
    /// What has been counted for partitions that are gone.
    gone: Cell<Counts>,
}

/// What a partition counts of its backfills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    examined: u64,
    failures: u64,
}

/// A partition of a table with indexes or streams.
pub(crate) struct Indexed {
    pub(crate) partition: PartitionId,
    /// Which of the shard's engines has it.
    pub(crate) engine: usize,
    /// Which of the table's places it is.
    pub(crate) place: usize,
    table: RefCell<Rc<Table>>,
    /// There are new records in its change sequence, or it is over.
    pub(crate) changed: Notify,
    pub(crate) stopped: Cell<bool>,
    /// There is a newer definition, or it is over.
    defined: Notify,
    is_fed: Cell<bool>,
    /// The index that is being filled, and items gone through.
    filling: Cell<Option<(IndexId, u64)>>,
    counts: Cell<Counts>,
    /// What waits: records and bytes.
    backlog: Cell<(u64, u64)>,
    /// Writes in progress.
    writes: Cell<usize>,
    /// A write was given up by its client, and nobody knows when it is applied.
    unsure: Cell<bool>,
    /// Writes in progress that have a record of a stream.
    streaming: Cell<usize>,
    pub(crate) collections: Collections,
}

/// A write in progress on a partition of a table with indexes or streams.
pub(crate) struct IndexedWrite<'a> {
    indexed: &'a Indexed,
    record_bytes: Cell<usize>,
    ended: Cell<bool>,
    streams: Cell<bool>,
}

impl IndexedWrite<'_> {
    /// A record of `bytes` bytes is about to join the change sequence.
    pub(crate) fn adds(&self, bytes: usize) {
        if bytes > 0 {
            self.record_bytes.set(bytes);
            let (records, waiting) = self.indexed.backlog.get();
            self.indexed.backlog.set((records + 1, waiting + bytes as u64));
        }
    }

    /// It was decided that the write has a record of a stream.
    pub(crate) fn streams(&self) {
        if !self.streams.replace(true) {
            self.indexed.streaming.set(self.indexed.streaming.get() + 1);
        }
    }

    /// The write is applied, or failed and left nothing.
    pub(crate) fn ended(&self, is_applied: bool) {
        self.ended.set(true);
        if !is_applied && self.record_bytes.get() > 0 {
            self.indexed.removed(1, self.record_bytes.get());
        }
    }
}

impl Drop for IndexedWrite<'_> {
    fn drop(&mut self) {
        self.indexed.writes.set(self.indexed.writes.get() - 1);
        if self.streams.get() {
            self.indexed.streaming.set(self.indexed.streaming.get() - 1);
        }
        if self.record_bytes.get() > 0 {
            if !self.ended.get() {
                self.indexed.unsure.set(true);
            }
            self.indexed.changed.notify_one();
        }
    }
}

impl Indexes {
    /// Whether the partition's table has indexes or streams.
    pub(crate) fn has(&self, partition: PartitionId) -> bool {
        let partitions = self.partitions.borrow();
        !partitions.is_empty() && partitions.contains_key(&partition)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Rc<Indexed>> {
        self.partitions.borrow().values().cloned().collect()
    }

    /// Whether any of their tables has, or had, a stream.
    pub(crate) fn has_streams(&self) -> bool {
        let partitions = self.partitions.borrow();
        let mut tables = partitions.values().map(|indexed| indexed.table());
        tables.any(|table| !table.definition().settings.streams.is_empty())
    }

    /// The partition, when its table has indexes or streams.
    pub(crate) fn get(&self, partition: PartitionId) -> Option<Rc<Indexed>> {
        let partitions = self.partitions.borrow();
        if partitions.is_empty() {
            return None;
        }
        partitions.get(&partition).cloned()
    }

    /// Lets all feeding end.
    pub(crate) fn stop(&self) {
        self.streams_changed.notify_all();
        for indexed in self.partitions.borrow().values() {
            indexed.stop();
        }
    }
}

impl Indexed {
    /// The newest definition of its table.
    pub(crate) fn table(&self) -> Rc<Table> {
        Rc::clone(&self.table.borrow())
    }

    fn stop(&self) {
        self.stopped.set(true);
        self.changed.notify_all();
        self.defined.notify_all();
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    /// Whether no record of this stream, by its creation, will be proposed any more.
    pub(crate) fn is_stream_over(&self, stream: u64) -> bool {
        let table = self.table();
        let enabled = table.definition().settings.stream();
        enabled.is_none_or(|enabled| enabled.created_ms != stream) && self.streaming.get() == 0
    }

    /// Whether this is what a write is told while the indexes are behind.
    pub(crate) fn is_behind(error: &ApiError) -> bool {
        error.kind == THROUGHPUT_EXCEEDED && error.message == BACKLOG_FULL
    }

    /// Holds a write back while the indexes are behind; smoothly before it refuses it.
    pub(crate) async fn admit<R: Runtime>(&self, runtime: &R) -> Result<(), ApiError> {
        let (records, bytes) = self.backlog.get();
        let (records, bytes) = (
            records * 100 / BACKLOG_RECORDS_MAX,
            bytes * 100 / BACKLOG_BYTES_MAX,
        );
        let percent = u32::try_from(records.max(bytes)).unwrap_or(u32::MAX);
        if percent >= 100 {
            return Err(ApiError::new(THROUGHPUT_EXCEEDED, BACKLOG_FULL));
        }
        if percent > 50 {
            runtime.sleep(BACKLOG_DELAY_MAX * (percent - 50) / 50).await;
        }
        Ok(())
    }

    /// A write begins.
    pub(crate) fn begin_write(&self) -> IndexedWrite<'_> {
        self.writes.set(self.writes.get() + 1);
        IndexedWrite {
            indexed: self,
            record_bytes: Cell::new(0),
            ended: Cell::new(false),
            streams: Cell::new(false),
        }
    }

    /// A record of `bytes` bytes was found in the change sequence.
    pub(crate) fn found(&self, bytes: usize) {
        let (records, waiting) = self.backlog.get();
        self.backlog.set((records + 1, waiting + bytes as u64));
    }

    /// The change sequence was found empty. Answers whether it must be looked at again though nobody may say so.
    pub(crate) fn found_empty(&self) -> bool {
        if self.writes.get() == 0 && !self.unsure.get() {
            self.backlog.set((0, 0));
        }
        self.unsure.replace(false)
    }

    /// Records have left it, or never joined it.
    pub(crate) fn removed(&self, count: usize, bytes: usize) {
        let (records, waiting) = self.backlog.get();
        self.backlog.set((
            records.saturating_sub(count as u64),
            waiting.saturating_sub(bytes as u64),
        ));
    }
}

impl<R: Runtime> Router<R> {
    /// Takes note of a table's newest definition, and begins to feed its global indexes.
    pub(crate) fn watch(self: &Rc<Self>, table: &Rc<Table>) {
        let definition = table.definition();
        for (place, engine) in self.engines_of(&definition.places) {
            let partition = definition.places[place].id;
            let mut partitions = self.indexes.partitions.borrow_mut();
            let is_plain = definition.indexes.is_empty() && definition.settings.streams.is_empty();
            if is_plain && !partitions.contains_key(&partition) {
                continue;
            }
            let indexed = partitions.entry(partition).or_insert_with(|| {
                Rc::new(Indexed {
                    partition,
                    engine,
                    place,
                    table: RefCell::new(Rc::clone(table)),
                    changed: Notify::new(),
                    stopped: Cell::new(false),
                    defined: Notify::new(),
                    is_fed: Cell::new(false),
                    filling: Cell::new(None),
                    counts: Cell::default(),
                    backlog: Cell::default(),
                    writes: Cell::new(0),
                    unsure: Cell::new(false),
                    streaming: Cell::new(0),
                    collections: Collections::default(),
                })
            });
            let indexed = Rc::clone(indexed);
            drop(partitions);
            indexed.table.replace(Rc::clone(table));
            indexed.changed.notify_one();
            indexed.defined.notify_one();
            self.indexes.streams_changed.notify_all();
            let is_global = definition.indexes.iter().any(|index| index.global.is_some());
            if is_global && !indexed.is_fed.replace(true) {
                let feed = feed::run(Rc::clone(self), Rc::clone(&indexed));
                self.runtime.spawn(Queue::Foreground, feed);
                let backfill = backfill::run(Rc::clone(self), indexed);
                self.runtime.spawn(Queue::Background, backfill);
            }
        }
    }

    /// A table is being deleted: its partitions feed nothing any more, and no transaction is prepared in them.
    pub(crate) fn forget(&self, table: &Table) {
        for place in &table.definition().places {
            let indexed = self.indexes.partitions.borrow_mut().remove(&place.id);
            if let Some(indexed) = indexed {
                indexed.stop();
                let (mut gone, counts) = (self.indexes.gone.get(), indexed.counts.get());
                gone.examined += counts.examined;
                gone.failures += counts.failures;
                self.indexes.gone.set(gone);
            }
            self.transactions.forget(place.id);
        }
    }

    /// Tells the catalog that everything in a partition of a table is in an index.
    async fn tell_backfilled(
        &self,
        table: TableId,
        index: IndexId,
        partition: PartitionId,
    ) -> Result<(), ApiError> {
        let (sender, answer) = reply();
        let order = Order::Backfilled {
            table,
            index,
            partition,
            reply: sender,
        };
        let stopping = || ApiError::new(UNAVAILABLE, "the node is stopping");
        let sent = self.leader.send(Control::Order(order)).await;
        sent.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Counters and gauges.
    pub(crate) fn index_stats(&self) -> IndexStats {
        let gone = self.indexes.gone.get();
        let mut stats = IndexStats {
            examined: gone.examined,
            failures: gone.failures,
            ..IndexStats::default()
        };
        for indexed in self.indexes.partitions.borrow().values() {
            let ((records, bytes), counts) = (indexed.backlog.get(), indexed.counts.get());
            stats.backlog_records += records;
            stats.backlog_bytes += bytes;
            stats.examined += counts.examined;
            stats.failures += counts.failures;
            let Some((id, examined)) = indexed.filling.get() else {
                continue;
            };
            let table = indexed.table();
            let definition = table.definition();
            let Some(index) = definition.indexes.iter().find(|index| index.id == id) else {
                continue;
            };
            let key = (definition.name.clone(), index.name.clone());
            let filling = stats.filling.entry(key).or_default();
            let info = self.engines[indexed.engine].partition(indexed.partition);
            filling.examined += examined;
            filling.items += info.map_or(0, |info| info.item_count);
        }
        stats
    }
}
