//! The catalog's writer, on shard 0.
//!
//! Creating a table: (1) ids are taken from the counter, durably; (2) its entry is written as `CREATING`: from here on
//! the table exists; (3) every shard creates its partitions; (4) the entry becomes `ACTIVE`; (5) every shard hears it.
//! Deleting one: (1) the entry becomes `DELETING`: from here on the table is gone; (2) every shard drops its partitions;
//! (3) the entry goes; (4) every shard hears it.
//!
//! Adding an index: (1) ids are taken; (2) the table's entry names the index as `CREATING`: from here on it exists; (3) every shard
//! creates its partitions, and feeds it; (4) the entry says `BACKFILLING`, and every shard hears it; (5) when all partitions of the
//! table have been entered into it, the entry says `ACTIVE`. Removing one: (1) the entry says `DELETING`, and no shard that has
//! heard it reads or feeds the index; (2) every shard drops its partitions; (3) the entry names it no more. What a crash or a full drive leaves undone is done by
//! [`Store::resume`], and by the shards that fill the index. One order is carried out at a time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::Range;
use cairn_engine::ids::{IndexId, LogId, PartitionId, TableId};
use cairn_item::{Item, ItemView, KeyType, KeyValue};
use cairn_runtime::mailbox::{MailboxSender, reply};
use cairn_runtime::sync::Mutex;
use cairn_runtime::{Queue, Runtime};

use super::change::{TableChange, in_use};
use super::definition::{ACCOUNT, NAME, as_u64, attribute, entry_key, number, text};
use super::{
    Billing, Change, IndexDefinition, IndexStatus, KeyAttribute, PartitionPlace, PrimaryKey,
    SYSTEM_PARTITION, Table, TableDefinition, TableSettings, TableStatus, is_hidden, system_table,
};
use crate::api::ApiError;
use crate::api::error::{LIMIT_EXCEEDED, RESOURCE_IN_USE, RESOURCE_NOT_FOUND, UNAVAILABLE};
use crate::node::Control;
use crate::route::{Action, Returns, Router, Write, stored_view};
use crate::transact::LEDGER_TABLE;

/// Tables of a node. DynamoDB's default limit per account and region.
pub(crate) const TABLES_MAX: usize = 2500;
/// Partitions a new table begins with: at least this many, so that it can spread when shards are added.
const PARTITIONS_MIN: usize = 4;
/// Pause before what failed is tried again.
const RESUME_PAUSE: Duration = Duration::from_secs(1);

/// Key of the counter's item: no account is called so.
const COUNTER: &str = ".";

/// A table that is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableDraft {
    pub name: String,
    pub partition_key: KeyAttribute,
    pub sort_key: Option<KeyAttribute>,
    pub attributes: Vec<KeyAttribute>,
    /// Its indexes: their ids and places are given out when it is created.
    pub indexes: Vec<IndexDefinition>,
    pub billing: Billing,
    pub settings: TableSettings,
}

impl TableDraft {
    /// The table of transactions.
    pub(crate) fn ledger() -> TableDraft {
        let slot = KeyAttribute {
            name: "Slot".to_owned(),
            kind: KeyType::B,
        };
        TableDraft {
            name: LEDGER_TABLE.to_owned(),
            partition_key: slot.clone(),
            sort_key: None,
            attributes: vec![slot],
            indexes: Vec::new(),
            billing: Billing::OnDemand,
            settings: TableSettings::default(),
        }
    }
}

/// A table's entry before and after a change; the same when there was nothing to do.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub before: Arc<TableDefinition>,
    pub after: Arc<TableDefinition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counter {
    version: u64,
    next_table: u64,
    next_partition: u64,
}

/// The catalog's writer.
pub(crate) struct Store<R: Runtime> {
    router: Rc<Router<R>>,
    account: String,
    system: Table,
    shards: Vec<MailboxSender<Control>>,
    /// Held while an order is carried out.
    turn: Mutex<()>,
    counter: Cell<Counter>,
    tables: RefCell<BTreeMap<String, Arc<TableDefinition>>>,
    /// Of each index that is being filled, the partitions of its table that have been entered.
    backfilled: RefCell<BTreeMap<(TableId, IndexId), BTreeSet<PartitionId>>>,
    resuming: Cell<bool>,
}

impl<R: Runtime> Store<R> {
    /// Opens the system partition, creating it at the first start, and reads the catalog.
    pub(crate) async fn open(
        router: Rc<Router<R>>,
        account: String,
        shards: Vec<MailboxSender<Control>>,
    ) -> Result<Store<R>, ApiError> {
        let definition = system_table();
        let existed = router.missing_partition(&definition).is_none();
        if !existed {
            // The catalog comes first in a node's life: partitions without one mean that it was lost.
            let orphans = router
                .engines
                .iter()
                .map(|engine| engine.partitions().len())
                .sum::<usize>();
            if orphans > 0 {
                return Err(ApiError::internal(format!(
                    "log 0 holds no catalog, but {orphans} partitions exist; it must be recovered first"
                )));
            }
            let creating = TableDefinition {
                status: TableStatus::Creating,
                ..definition.clone()
            };
            router.create_partitions(&creating).await?;
        }
        let system = Table::new(Arc::new(definition), &router.deal)?;
        let store = Store {
            router,
            account,
            system,
            shards,
            turn: Mutex::new(()),
            counter: Cell::new(Counter {
                version: 0,
                next_table: 1,
                next_partition: SYSTEM_PARTITION.0 + 1,
            }),
            tables: RefCell::default(),
            backfilled: RefCell::default(),
            resuming: Cell::new(false),
        };
        store.load().await?;
        Ok(store)
    }

    async fn load(&self) -> Result<(), ApiError> {
        let everything = Range {
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
        };
        for stored in self.router.all(self.system.target(0), everything).await? {
            let item = stored_view(&stored);
            if let Some(counter) = Counter::from_item(item) {
                self.counter.set(counter);
                continue;
            }
            let definition = TableDefinition::from_item(item).ok_or_else(|| {
                ApiError::internal(format!(
                    "the catalog holds an entry that this version cannot read: {item:?}"
                ))
            })?;
            self.tables
                .borrow_mut()
                .insert(definition.name.clone(), Arc::new(definition));
        }
        let counter = self.counter.get();
        for table in self.tables.borrow().values() {
            let partitions = table
                .all_places()
                .flat_map(|(_, places)| places)
                .all(|place| place.id.0 < counter.next_partition);
            if table.id.0 >= counter.next_table || !partitions || table.version > counter.version {
                return Err(ApiError::internal(format!(
                    "the catalog's counter is behind its entry of table {}",
                    table.name
                )));
            }
        }
        Ok(())
    }

    /// All entries.
    pub(crate) fn tables(&self) -> Vec<Arc<TableDefinition>> {
        self.tables.borrow().values().cloned().collect()
    }

    /// Creates a table; resolves when its entry is durable and, if nothing fails, all shards serve it.
    pub(crate) async fn create(self: &Rc<Self>, draft: TableDraft) -> Result<Arc<TableDefinition>, ApiError> {
        let _turn = self.turn.lock().await;
        if self.tables.borrow().contains_key(&draft.name) {
            return Err(ApiError::new(
                RESOURCE_IN_USE,
                format!("Table already exists: {}", draft.name),
            ));
        }
        if self.tables.borrow().len() >= TABLES_MAX && !is_hidden(&draft.name) {
            return Err(ApiError::new(
                LIMIT_EXCEEDED,
                format!(
                    "Subscriber limit exceeded: There is a limit of {TABLES_MAX} tables per account and region"
                ),
            ));
        }
        let mut indexes = draft.indexes;
        let partitions = self.partitions();
        let sets = 1 + indexes.iter().filter(|index| index.global.is_some()).count() as u64;
        let counter = self.advance(1, sets * partitions).await?;
        let table = TableId(counter.next_table - 1);
        let mut next_partition = counter.next_partition - sets * partitions;
        // Tables begin at different logs, so that tables of few partitions do not crowd the first.
        let places = self.places(&mut next_partition, table.0);
        let mut next_index = 1;
        for index in &mut indexes {
            index.id = IndexId(next_index);
            next_index += 1;
            if let Some(global) = &mut index.global {
                global.places = self.places(&mut next_partition, table.0 + u64::from(index.id.0));
            }
        }
        let created_ms = self.router.runtime.unix_ms();
        let mut settings = draft.settings;
        if draft.billing == Billing::OnDemand {
            settings.on_demand_since_ms = Some(created_ms);
        }
        for stream in &mut settings.streams {
            stream.created_ms = created_ms;
        }
        let definition = Arc::new(TableDefinition {
            id: table,
            name: draft.name,
            unique: self.unique_name(),
            status: TableStatus::Creating,
            partition_key: draft.partition_key,
            sort_key: draft.sort_key,
            attributes: draft.attributes,
            indexes,
            next_index,
            billing: draft.billing,
            created_ms,
            seed: self.router.runtime.random_u64(),
            settings,
            places,
            version: counter.version,
        });
        self.put(&definition).await?;
        if self.finish(&definition).await.is_err() {
            self.resume_later();
        }
        Ok(definition)
    }

    /// Partitions that a new table or index begins with.
    fn partitions(&self) -> u64 {
        let logs = &self.router.deal.logs;
        logs.len().max(PARTITIONS_MIN).next_power_of_two() as u64
    }

    /// Places for a new table or index, the first of them in the log that `first` leads to.
    fn places(&self, next_partition: &mut u64, first: u64) -> Vec<PartitionPlace> {
        let partitions = self.partitions();
        let ids = *next_partition;
        *next_partition += partitions;
        (0..partitions)
            .map(|index| PartitionPlace {
                id: PartitionId(ids + index),
                log: self.deal_log(index + first),
                lower: (u64::MAX / partitions + 1).wrapping_mul(index),
            })
            .collect()
    }

    fn deal_log(&self, index: u64) -> LogId {
        let logs = &self.router.deal.logs;
        logs[usize::try_from(index % logs.len() as u64).expect("below a length")]
    }

    /// Deletes a table; resolves when its entry is durable as `DELETING` and, if nothing fails, it is gone.
    pub(crate) async fn delete(self: &Rc<Self>, name: &str) -> Result<Arc<TableDefinition>, ApiError> {
        let _turn = self.turn.lock().await;
        let definition = self.find(name)?;
        if let Some(state) = unsettled(definition.status) {
            return Err(in_use(name, state));
        }
        if definition.indexes.iter().any(|index| !index.is_active()) {
            return Err(ApiError::new(
                RESOURCE_IN_USE,
                "Attempt to change a resource which is still in use: Cannot delete table while indexes are being \
                 created, updated, or deleted.",
            ));
        }
        if definition.settings.deletion_protection {
            return Err(ApiError::validation(
                "Resource cannot be deleted as it is currently protected against deletion. Disable deletion \
                 protection first.",
            ));
        }
        let counter = self.advance(0, 0).await?;
        let definition = Arc::new(TableDefinition {
            status: TableStatus::Deleting,
            version: counter.version,
            ..(*definition).clone()
        });
        self.put(&definition).await?;
        if self.finish(&definition).await.is_err() {
            self.resume_later();
        }
        Ok(definition)
    }

    /// Changes what is set about a table; resolves when its new entry is durable and, if nothing fails, all shards have it.
    pub(crate) async fn change(
        self: &Rc<Self>,
        name: &str,
        change: TableChange,
    ) -> Result<Changed, ApiError> {
        let _turn = self.turn.lock().await;
        let before = self.find(name)?;
        if let Some(state) = unsettled(before.status) {
            return Err(change.in_use(name, state));
        }
        let mut after = change.apply(&before, self.router.runtime.unix_ms())?;
        if after == *before {
            let after = Arc::clone(&before);
            return Ok(Changed { before, after });
        }
        let placeless = |index: &&mut IndexDefinition| {
            let global = index.global.as_ref();
            global.is_some_and(|global| global.places.is_empty())
        };
        let added = after.indexes.iter_mut().find(placeless);
        let partitions = if added.is_some() { self.partitions() } else { 0 };
        let counter = self.advance(0, partitions).await?;
        if let Some(index) = added {
            let mut next_partition = counter.next_partition - partitions;
            let places = self.places(&mut next_partition, before.id.0 + u64::from(index.id.0));
            index.global.as_mut().expect("it is placeless").places = places;
        }
        after.version = counter.version;
        let after = Arc::new(after);
        self.put(&after).await?;
        // What a shard cannot do now, such as making partitions on a full drive, is tried again below; a node that stops reads the
        // entry when it starts again.
        let _ = self.tell(Change::Set(Arc::clone(&after))).await;
        if is_unfinished(&after) {
            self.resume_later();
        }
        Ok(Changed { before, after })
    }

    /// Everything in a partition of a table is in an index; when that is so of all partitions, the index serves.
    pub(crate) async fn backfilled(
        &self,
        table: TableId,
        index: IndexId,
        partition: PartitionId,
    ) -> Result<(), ApiError> {
        let _turn = self.turn.lock().await;
        let tables = self.tables();
        let definition = tables.iter().find(|definition| definition.id == table);
        let Some(definition) = definition else {
            return Ok(());
        };
        let mut after = TableDefinition::clone(definition);
        let mut indexes = after.indexes.iter_mut();
        let filled =
            indexes.find(|other| (other.id, other.status()) == (index, Some(IndexStatus::Backfilling)));
        let Some(filled) = filled else { return Ok(()) };
        {
            let mut backfilled = self.backfilled.borrow_mut();
            let entered = backfilled.entry((table, index)).or_default();
            entered.insert(partition);
            if !definition.places.iter().all(|place| entered.contains(&place.id)) {
                return Ok(());
            }
        }
        filled.global.as_mut().expect("it has a status").status = IndexStatus::Active;
        self.replace(after).await?;
        self.backfilled.borrow_mut().remove(&(table, index));
        Ok(())
    }

    /// Stores a newer entry of a table and tells every shard.
    async fn replace(&self, mut definition: TableDefinition) -> Result<(), ApiError> {
        definition.version = self.advance(0, 0).await?.version;
        let definition = Arc::new(definition);
        self.put(&definition).await?;
        self.tell(Change::Set(definition)).await
    }

    /// Does what is left to do for an index that is being created or deleted.
    async fn finish_index(&self, definition: &Arc<TableDefinition>) -> Result<(), ApiError> {
        let Some(position) = definition.indexes.iter().position(is_index_unfinished) else {
            return Ok(());
        };
        self.tell(Change::Set(Arc::clone(definition))).await?;
        let mut after = TableDefinition::clone(definition);
        let index = &mut after.indexes[position];
        let global = index.global.as_mut().expect("it has a status");
        if global.status == IndexStatus::Creating {
            global.status = IndexStatus::Backfilling;
            return self.replace(after).await;
        }
        let places = Arc::from(global.places.as_slice());
        self.backfilled.borrow_mut().remove(&(definition.id, index.id));
        self.tell(Change::Dropped(places)).await?;
        after.indexes.remove(position);
        after.forget_attributes();
        self.replace(after).await
    }

    fn find(&self, name: &str) -> Result<Arc<TableDefinition>, ApiError> {
        let found = self.tables.borrow().get(name).cloned();
        found.filter(|_| !is_hidden(name)).ok_or_else(|| {
            ApiError::new(
                RESOURCE_NOT_FOUND,
                format!("Requested resource not found: Table: {name} not found"),
            )
        })
    }

    /// Does what is left to do for a table that is being created or deleted.
    async fn finish(&self, definition: &Arc<TableDefinition>) -> Result<(), ApiError> {
        match definition.status {
            TableStatus::Active => self.finish_index(definition).await?,
            TableStatus::Creating => {
                self.tell(Change::Set(Arc::clone(definition))).await?;
                let counter = self.advance(0, 0).await?;
                let active = Arc::new(TableDefinition {
                    status: TableStatus::Active,
                    version: counter.version,
                    ..(**definition).clone()
                });
                self.put(&active).await?;
                self.tell(Change::Set(active)).await?;
            }
            TableStatus::Deleting => {
                self.tell(Change::Set(Arc::clone(definition))).await?;
                self.advance(0, 0).await?;
                self.remove(definition).await?;
                self.tell(Change::Removed(definition.name.clone())).await?;
            }
        }
        Ok(())
    }

    /// Finishes every table, and every index, that is being created or deleted, trying until it is done or the node stops.
    pub(crate) async fn resume(self: Rc<Self>) {
        if self.resuming.replace(true) {
            return;
        }
        loop {
            let turn = self.turn.lock().await;
            let unfinished = self.tables().into_iter().filter(|table| is_unfinished(table));
            let mut failed = None;
            for table in unfinished {
                if let Err(error) = self.finish(&table).await {
                    failed = Some(error);
                }
            }
            drop(turn);
            match failed {
                None => break,
                Some(error) if error.kind == UNAVAILABLE && self.router.is_stopped() => break,
                Some(_) => self.router.runtime.sleep(RESUME_PAUSE).await,
            }
        }
        self.resuming.set(false);
    }

    fn resume_later(self: &Rc<Self>) {
        self.router
            .runtime
            .spawn(Queue::Background, Rc::clone(self).resume());
    }

    /// Takes ids, and the next version, durably.
    async fn advance(&self, tables: u64, partitions: u64) -> Result<Counter, ApiError> {
        let counter = self.counter.get();
        let counter = Counter {
            version: counter.version + 1,
            next_table: counter.next_table + tables,
            next_partition: counter.next_partition + partitions,
        };
        let key = (KeyValue::S(COUNTER.to_owned()), KeyValue::S(COUNTER.to_owned()));
        self.write(key, put(&counter.to_item())).await?;
        self.counter.set(counter);
        Ok(counter)
    }

    async fn put(&self, definition: &Arc<TableDefinition>) -> Result<(), ApiError> {
        let key = entry_key(&self.account, &definition.name);
        self.write(key, put(&definition.to_item(&self.account))).await?;
        self.tables
            .borrow_mut()
            .insert(definition.name.clone(), Arc::clone(definition));
        Ok(())
    }

    async fn remove(&self, definition: &TableDefinition) -> Result<(), ApiError> {
        self.write(entry_key(&self.account, &definition.name), Action::Delete)
            .await?;
        self.tables.borrow_mut().remove(&definition.name);
        Ok(())
    }

    async fn write(&self, key: (KeyValue, KeyValue), action: Action) -> Result<(), ApiError> {
        let key = PrimaryKey {
            partition: key.0,
            sort: Some(key.1),
        };
        let (target, storage_key) = self.system.locate(&key);
        let write = Write {
            action,
            condition: None,
            returns: Returns::default(),
        };
        self.router.write(target, storage_key.as_bytes(), write).await?;
        Ok(())
    }

    /// Tells every shard and waits until all have done it.
    async fn tell(&self, change: Change) -> Result<(), ApiError> {
        let mut replies = Vec::new();
        for shard in &self.shards {
            let (sender, answer) = reply();
            shard
                .send(Control::Apply {
                    change: change.clone(),
                    reply: sender,
                })
                .await
                .map_err(|_| ApiError::new(UNAVAILABLE, "the node is stopping"))?;
            replies.push(answer);
        }
        let mut result = Ok(());
        for answer in replies {
            let answer = answer
                .await
                .map_err(|_| ApiError::new(UNAVAILABLE, "the node is stopping"));
            result = result.and(answer.and_then(|applied| applied));
        }
        result
    }

    /// A random UUID (version 4).
    fn unique_name(&self) -> String {
        let (high, low) = (self.router.runtime.random_u64(), self.router.runtime.random_u64());
        let high = high & 0xffff_ffff_ffff_0fff | 0x4000;
        let low = low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

/// Whether something is left to do that does not come about by itself.
fn is_unfinished(table: &TableDefinition) -> bool {
    table.status != TableStatus::Active || table.indexes.iter().any(is_index_unfinished)
}

fn is_index_unfinished(index: &IndexDefinition) -> bool {
    matches!(
        index.status(),
        Some(IndexStatus::Creating | IndexStatus::Deleting)
    )
}

/// What is being done to a table that cannot be changed yet or any more.
fn unsettled(status: TableStatus) -> Option<&'static str> {
    match status {
        TableStatus::Creating => Some("created"),
        TableStatus::Deleting => Some("deleted"),
        TableStatus::Active => None,
    }
}

fn put(item: &Item) -> Action {
    let item_bytes = u32::try_from(item.size()).expect("catalog entries are small");
    Action::Put {
        item: cairn_item::archive(item),
        item_bytes,
    }
}

impl Counter {
    fn to_item(self) -> Item {
        Item::from_attributes(vec![
            attribute(ACCOUNT, text(COUNTER)),
            attribute(NAME, text(COUNTER)),
            attribute("Version", number(self.version)),
            attribute("NextTable", number(self.next_table)),
            attribute("NextPartition", number(self.next_partition)),
        ])
    }

    fn from_item(item: ItemView<'_>) -> Option<Counter> {
        Some(Counter {
            version: as_u64(item.get("Version")?)?,
            next_table: as_u64(item.get("NextTable")?)?,
            next_partition: as_u64(item.get("NextPartition")?)?,
        })
    }
}
