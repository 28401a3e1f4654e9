//! Which tables and partitions exist.
//!
//! **Invariants**
//! 1. The truth is the system table (table 0) in the system partition (partition 1) of log 0, on shard 0; only the
//!    [`Store`] there writes it. Every shard holds a copy, [`Catalog`], and looks names up in nothing else.
//! 2. Ids of tables and partitions come from a durable counter that moves before they are used: none is used twice, and
//!    a crash wastes some.
//! 3. An entry is durable before its first partition is created and goes after its last partition is dropped. So a
//!    partition that no entry names does not arise, and an entry that is `CREATING` or `DELETING` says what is left to
//!    do after a crash ([`Store::resume`]).
//! 4. A partition of an `ACTIVE` table is never created anew: if its log does not know it, data is missing and the node
//!    says so instead of serving an empty partition.

mod change;
mod definition;
mod index;
mod index_change;
mod settings;
mod store;
mod stream;
mod warm;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cairn_engine::PartitionDescriptor;
use cairn_engine::ids::{IndexId, PartitionId, TableId};
use cairn_item::{Item, ItemError, ItemView, KeyType, KeyValue, Space, StorageKey, Value};
use cairn_runtime::Runtime;
use cairn_runtime::mailbox::ReplySender;

pub use definition::{Billing, KeyAttribute, PartitionPlace, TableDefinition, TableStatus};
pub use index::{GlobalIndex, IndexDefinition, IndexProjection, IndexStatus};
pub use settings::{Ceilings, TableClass, TableSettings, ThroughputHistory};
pub use stream::{StreamDefinition, StreamView};
pub use warm::Warm;

pub(crate) use change::{
    BillingMode, StreamChange, TableChange, TableUpdate, check_ceilings, check_own_tag, check_tag_count,
    units_on_demand,
};
pub(crate) use index_change::{GLOBAL_MAX, IndexUpdate, check_index_ceilings};
pub(crate) use store::{Changed, Store, TABLES_MAX, TableDraft};
pub(crate) use warm::WarmRequest;

use crate::api::ApiError;
use crate::route::{Deal, Router, Seat, Target};

/// The system table.
pub const SYSTEM_TABLE: TableId = TableId::SYSTEM;
/// Its only partition.
pub const SYSTEM_PARTITION: PartitionId = PartitionId(1);

/// A primary key: the values of a table's key attributes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrimaryKey {
    /// The partition key's value.
    pub partition: KeyValue,
    /// The sort key's value, when the table has one.
    pub sort: Option<KeyValue>,
}

/// A table as one shard knows it.
#[derive(Debug)]
pub struct Table {
    definition: Arc<TableDefinition>,
    /// Where each of the definition's places is served.
    seats: Vec<Seat>,
    /// The same of its global indexes, in the order of their definitions; nothing of local ones.
    index_seats: Vec<Vec<Seat>>,
}

impl Table {
    fn new(definition: Arc<TableDefinition>, deal: &Deal) -> Result<Table, ApiError> {
        let seat = |place: &PartitionPlace| {
            deal.seat(place.log).ok_or_else(|| {
                let PartitionPlace { id, log, .. } = place;
                ApiError::internal(format!(
                    "partition {id} of table {} is in log {log}, which is on none of the drives",
                    definition.name
                ))
            })
        };
        let seats = definition.places.iter().map(seat).collect::<Result<_, _>>()?;
        let index_seats = definition.indexes.iter().map(|index| {
            let places = index.global.as_ref().map_or(&[][..], |global| &global.places);
            places.iter().map(seat).collect::<Result<_, _>>()
        });
        let index_seats = index_seats.collect::<Result<_, _>>()?;
        Ok(Table {
            definition,
            seats,
            index_seats,
        })
    }

    /// What the catalog knows about it.
    #[must_use]
    pub fn definition(&self) -> &TableDefinition {
        &self.definition
    }

    /// Whether it is the node's own: its name is one that no request can have.
    #[must_use]
    pub(crate) fn is_hidden(&self) -> bool {
        is_hidden(&self.definition.name)
    }

    /// Whether requests may read and write it.
    pub(crate) fn is_open(&self) -> bool {
        self.definition.status == TableStatus::Active && !self.is_hidden()
    }

    /// Its partitions in the order of their hashes, each with the shard that serves it.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = (PartitionPlace, usize)> + '_ {
        self.definition
            .places
            .iter()
            .zip(&self.seats)
            .map(|(place, seat)| (*place, seat.shard))
    }

    pub(crate) fn target(&self, place: usize) -> Target {
        Target {
            partition: self.definition.places[place].id,
            seat: self.seats[place],
        }
    }

    /// Partitions of an index, in the order of their hashes: the global index's own, or the table's.
    pub(crate) fn index_places<'a>(&'a self, index: &'a IndexDefinition) -> &'a [PartitionPlace] {
        let places = index.global.as_ref().map(|global| &global.places);
        places.unwrap_or(&self.definition.places)
    }

    /// One of [`Table::index_places`].
    pub(crate) fn index_target(&self, index: &IndexDefinition, place: usize) -> Target {
        let Some(global) = &index.global else {
            return self.target(place);
        };
        let mut indexes = self.definition.indexes.iter();
        let position = indexes.position(|other| other.id == index.id);
        Target {
            partition: global.places[place].id,
            seat: self.index_seats[position.expect("an index of this table")][place],
        }
    }

    /// As [`Table::index_target`], by hash.
    pub(crate) fn index_target_of(&self, index: &IndexDefinition, hash: u64) -> Target {
        self.index_target(index, definition::place_in(self.index_places(index), hash))
    }

    /// The storage key of a primary key, and the partition that owns it.
    pub(crate) fn locate(&self, key: &PrimaryKey) -> (Target, StorageKey) {
        let storage_key = StorageKey::new(
            Space::Base,
            self.definition.seed,
            &key.partition,
            key.sort.as_ref(),
        );
        (
            self.target(self.definition.place_of(hash_of(storage_key.as_bytes()))),
            storage_key,
        )
    }

    /// As [`Table::locate`], for key values of these bytes; the storage key is appended to `into`.
    pub(crate) fn locate_into(&self, into: &mut Vec<u8>, partition: &[u8], sort: Option<&[u8]>) -> Target {
        let start = into.len();
        StorageKey::write(into, Space::Base, self.definition.seed, partition, sort);
        self.target(self.definition.place_of(hash_of(&into[start..])))
    }

    /// The names of the key attributes, the partition key's first.
    #[must_use]
    pub fn key_names(&self) -> Vec<&str> {
        let keys = std::iter::once(&self.definition.partition_key).chain(&self.definition.sort_key);
        keys.map(|key| key.name.as_str()).collect()
    }

    /// The primary key of a whole item.
    ///
    /// # Errors
    /// A key attribute is missing, of another type, empty or too long: DynamoDB's words for items.
    pub fn key_of_item(&self, item: &Item) -> Result<PrimaryKey, ApiError> {
        self.key_with(|key| KeyValue::from_item(item, &key.name, key.kind))
            .map_err(|error| ApiError::validation(error.to_string()))
    }

    /// As [`Table::key_of_item`], of a batch: a value of another type is reported as in a key.
    ///
    /// # Errors
    /// As [`Table::key_of_key`].
    pub(crate) fn key_of_batched_item(&self, item: &Item) -> Result<PrimaryKey, ApiError> {
        self.key_with(|key| KeyValue::from_item(item, &key.name, key.kind))
            .map_err(|error| match error {
                ItemError::KeyTypeMismatch { .. } => ApiError::validation(KEY_MISMATCH),
                error => ApiError::validation(error.to_string()),
            })
    }

    /// As [`Table::key_of_item`], for an archived item.
    ///
    /// # Errors
    /// As there.
    pub fn key_of_item_view(&self, item: ItemView<'_>) -> Result<PrimaryKey, ApiError> {
        self.key_with(|key| KeyValue::from_item_view(item, &key.name, key.kind))
            .map_err(|error| ApiError::validation(error.to_string()))
    }

    /// The primary key given by `key`, which holds the key attributes and nothing else.
    ///
    /// # Errors
    /// It does not: DynamoDB's words for keys.
    pub fn key_of_key(&self, key: &Item) -> Result<PrimaryKey, ApiError> {
        self.check_key_length(key.len())?;
        self.key_with(|schema| KeyValue::from_item(key, &schema.name, schema.kind))
            .map_err(key_error)
    }

    /// As [`Table::key_of_key`], without copying the values.
    ///
    /// # Errors
    /// As there.
    pub fn key_from_key(&self, mut key: Item) -> Result<PrimaryKey, ApiError> {
        self.check_key_length(key.len())?;
        self.key_with(|schema| match (key.remove(&schema.name), schema.kind) {
            (Some(Value::S(text)), KeyType::S) if !text.is_empty() => Ok(KeyValue::S(text)),
            (Some(Value::N(number)), KeyType::N) => Ok(KeyValue::N(number)),
            (Some(Value::B(bytes)), KeyType::B) if !bytes.is_empty() => Ok(KeyValue::B(bytes)),
            (Some(value), kind) => KeyValue::from_value(&schema.name, &value, kind),
            (None, _) => Err(ItemError::KeyMissing(schema.name.clone())),
        })
        .map_err(key_error)
    }

    /// As [`Table::key_of_key`], for an archived key.
    ///
    /// # Errors
    /// As there.
    pub fn key_of_key_view(&self, key: ItemView<'_>) -> Result<PrimaryKey, ApiError> {
        self.check_key_length(key.len())?;
        self.key_with(|schema| KeyValue::from_item_view(key, &schema.name, schema.kind))
            .map_err(key_error)
    }

    fn check_key_length(&self, attributes: usize) -> Result<(), ApiError> {
        let wanted = 1 + usize::from(self.definition.sort_key.is_some());
        if attributes == wanted {
            Ok(())
        } else {
            Err(ApiError::validation(KEY_MISMATCH))
        }
    }

    fn key_with(
        &self,
        mut value_of: impl FnMut(&KeyAttribute) -> Result<KeyValue, ItemError>,
    ) -> Result<PrimaryKey, ItemError> {
        let partition = value_of(&self.definition.partition_key)?;
        partition.check_partition_key()?;
        let sort = self.definition.sort_key.as_ref().map(value_of).transpose()?;
        if let Some(sort) = &sort {
            sort.check_sort_key()?;
        }
        Ok(PrimaryKey { partition, sort })
    }
}

/// Whether a table of this name is the node's own.
fn is_hidden(name: &str) -> bool {
    name.starts_with(':')
}

/// The hash in a storage key.
pub(crate) fn hash_of(storage_key: &[u8]) -> u64 {
    u64::from_be_bytes(
        storage_key[1..9]
            .try_into()
            .expect("a storage key begins with a space and a hash"),
    )
}

pub(crate) const KEY_MISMATCH: &str = "The provided key element does not match the schema";

fn key_error(error: ItemError) -> ApiError {
    match error {
        ItemError::KeyMissing(_) | ItemError::KeyTypeMismatch { .. } => ApiError::validation(KEY_MISMATCH),
        error => ApiError::validation(error.to_string()),
    }
}

/// One change of the catalog, as the shards are told.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// This is the table's entry now.
    Set(Arc<TableDefinition>),
    /// These partitions of an index that nobody reads or feeds any more are to go.
    Dropped(Arc<[PartitionPlace]>),
    /// The table is gone.
    Removed(String),
}

/// One shard's copy.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    tables: BTreeMap<String, Rc<Table>>,
    /// Names by id, for clients that have looked a name up already.
    names: BTreeMap<TableId, String>,
}

impl Catalog {
    pub(crate) fn get(&self, name: &str) -> Option<&Rc<Table>> {
        self.tables.get(name)
    }

    pub(crate) fn get_by_id(&self, id: TableId) -> Option<&Rc<Table>> {
        self.tables.get(self.names.get(&id)?)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Rc<Table>> {
        self.tables.values()
    }

    /// Names after `start`, in order.
    pub(crate) fn names_after(&self, start: Option<&str>) -> impl Iterator<Item = &str> {
        use std::ops::Bound;
        let lower = start.map_or(Bound::Unbounded, Bound::Excluded);
        self.tables
            .range::<str, _>((lower, Bound::Unbounded))
            .map(|(name, _)| name.as_str())
            .filter(|name| !is_hidden(name))
    }

    pub(crate) fn set(
        &mut self,
        definition: Arc<TableDefinition>,
        deal: &Deal,
    ) -> Result<Rc<Table>, ApiError> {
        let table = Rc::new(Table::new(definition, deal)?);
        let name = table.definition.name.clone();
        self.names.insert(table.definition.id, name.clone());
        self.tables.insert(name, Rc::clone(&table));
        Ok(table)
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Some(table) = self.tables.remove(name) {
            self.names.remove(&table.definition.id);
        }
    }
}

/// Items and bytes that a table holds on one shard, or on all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub item_count: u64,
    pub item_bytes: u64,
    /// Entries and bytes of its indexes, by id.
    pub indexes: BTreeMap<IndexId, (u64, u64)>,
}

impl Usage {
    fn add_index(&mut self, index: IndexId, (item_count, item_bytes): (u64, u64)) {
        let usage = self.indexes.entry(index).or_default();
        usage.0 += item_count;
        usage.1 += item_bytes;
    }

    /// Adds what another shard holds.
    pub(crate) fn add(&mut self, other: Usage) {
        self.item_count += other.item_count;
        self.item_bytes += other.item_bytes;
        for (index, usage) in other.indexes {
            self.add_index(index, usage);
        }
    }
}

/// What shards ask of the store on shard 0.
pub(crate) enum Order {
    Create {
        draft: Box<TableDraft>,
        reply: ReplySender<Result<Arc<TableDefinition>, ApiError>>,
    },
    Delete {
        name: String,
        reply: ReplySender<Result<Arc<TableDefinition>, ApiError>>,
    },
    Change {
        name: String,
        change: TableChange,
        reply: ReplySender<Result<Changed, ApiError>>,
    },
    /// Everything in a partition of a table is in an index.
    Backfilled {
        table: TableId,
        index: IndexId,
        partition: PartitionId,
        reply: ReplySender<Result<(), ApiError>>,
    },
}

impl<R: Runtime> Router<R> {
    /// The places that this shard serves, with the engine of each.
    pub(crate) fn engines_of<'a>(
        &'a self,
        places: &'a [PartitionPlace],
    ) -> impl Iterator<Item = (usize, usize)> + 'a {
        places.iter().enumerate().filter_map(|(index, place)| {
            let seat = self
                .deal
                .seat(place.log)
                .filter(|seat| seat.shard == self.shard)?;
            Some((index, seat.engine))
        })
    }

    /// Creates this shard's partitions of a table that is being created, and of an index that is; those that exist stay as
    /// they are.
    pub(crate) async fn create_partitions(&self, definition: &TableDefinition) -> Result<(), ApiError> {
        let is_new = |id| {
            let mut indexes = definition.indexes.iter();
            let index = indexes.find(|index| index.id == id);
            index.is_some_and(|index| index.status() == Some(IndexStatus::Creating))
        };
        for (index, places) in definition.all_places() {
            if definition.status != TableStatus::Creating && !is_new(index) {
                continue;
            }
            for (place, engine) in self.engines_of(places) {
                let upper = match places.get(place + 1) {
                    Some(next) => StorageKey::hash_prefix(Space::Base, next.lower),
                    None => vec![Space::Base as u8 + 1],
                };
                let descriptor = PartitionDescriptor {
                    id: places[place].id,
                    table: definition.id,
                    index,
                    lower: StorageKey::hash_prefix(Space::Base, places[place].lower),
                    upper: Some(upper),
                };
                self.engines[engine].create_partition(descriptor).await?;
            }
        }
        Ok(())
    }

    /// Drops this shard's partitions of a table and of its indexes.
    pub(crate) async fn drop_partitions(&self, definition: &TableDefinition) -> Result<(), ApiError> {
        for (_, places) in definition.all_places() {
            self.drop_places(places).await?;
        }
        Ok(())
    }

    /// Has the items of this shard's partitions of a table expire as the table says.
    pub(crate) fn watch_expiry(&self, definition: &TableDefinition) {
        let settings = &definition.settings;
        let attribute = match definition.status {
            TableStatus::Deleting => None,
            TableStatus::Creating | TableStatus::Active => settings.expiry_attribute.as_deref(),
        };
        for (place, engine) in self.engines_of(&definition.places) {
            let partition = definition.places[place].id;
            self.expiry
                .watch(partition, engine, attribute, settings.hides_expired());
        }
    }

    /// Has what is written of this shard's partitions of a table, and of its indexes, be packed as the table says.
    pub(crate) async fn pack(&self, definition: &TableDefinition) {
        let compression = definition.settings.compression();
        for (_, places) in definition.all_places() {
            for (place, engine) in self.engines_of(places) {
                // One that is fenced or gone has nothing to pack, one to come is told when it is there, and whatever else has
                // failed the next start makes up for.
                let _ = self.engines[engine]
                    .pack_with(places[place].id, compression)
                    .await;
            }
        }
    }

    /// Drops those of these partitions that this shard has.
    pub(crate) async fn drop_places(&self, places: &[PartitionPlace]) -> Result<(), ApiError> {
        for (place, engine) in self.engines_of(places) {
            self.engines[engine].drop_partition(places[place].id).await?;
        }
        Ok(())
    }

    /// The first of this shard's partitions of a table, or of an index of it that serves, that its engine does not have.
    pub(crate) fn missing_partition(&self, definition: &TableDefinition) -> Option<PartitionPlace> {
        let exists = |index| {
            let mut indexes = definition.indexes.iter();
            let index = indexes.find(|other| other.id == index)?.global.as_ref()?;
            Some(matches!(
                index.status,
                IndexStatus::Backfilling | IndexStatus::Active
            ))
        };
        let mut places = definition
            .all_places()
            .filter(|(index, _)| exists(*index).unwrap_or(true));
        places.find_map(|(_, places)| {
            let mut engines = self.engines_of(places);
            let missing = |(place, engine): &(usize, usize)| {
                self.engines[*engine].partition(places[*place].id).is_none()
            };
            engines.find(missing).map(|(place, _)| places[place])
        })
    }

    /// What this shard holds of a table.
    pub(crate) fn usage(&self, definition: &TableDefinition) -> Usage {
        let mut usage = Usage::default();
        for (index, places) in definition.all_places() {
            for (place, engine) in self.engines_of(places) {
                let Some(info) = self.engines[engine].partition(places[place].id) else {
                    continue;
                };
                if index != IndexId(0) {
                    usage.add_index(index, (info.item_count, info.item_bytes));
                    continue;
                }
                usage.item_count += info.item_count;
                usage.item_bytes += info.item_bytes;
                for local in &info.indexes {
                    usage.add_index(local.index, (local.item_count, local.item_bytes));
                }
            }
        }
        usage
    }
}

/// The system table, as far as it is a table.
pub(crate) fn system_table() -> TableDefinition {
    TableDefinition {
        id: SYSTEM_TABLE,
        name: String::new(),
        unique: String::new(),
        status: TableStatus::Active,
        partition_key: KeyAttribute {
            name: definition::ACCOUNT.to_owned(),
            kind: KeyType::S,
        },
        sort_key: Some(KeyAttribute {
            name: definition::NAME.to_owned(),
            kind: KeyType::S,
        }),
        attributes: Vec::new(),
        indexes: Vec::new(),
        next_index: 1,
        billing: Billing::OnDemand,
        created_ms: 0,
        seed: 0,
        settings: TableSettings::default(),
        places: vec![PartitionPlace {
            id: SYSTEM_PARTITION,
            log: cairn_engine::ids::LogId(0),
            lower: 0,
        }],
        version: 0,
    }
}
