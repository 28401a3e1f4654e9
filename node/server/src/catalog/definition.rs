//! What the catalog knows about one table, and how that is stored.
//!
//! Entries are items of the system table, so that the tools which read items read the catalog as well:
//!
//! ```text
//! partition key  Account   S   the account that owns the table
//! sort key       Name      S   the table's name
//!                Format    N   1
//!                Id        N   never reused
//!                Unique    S   DescribeTable's TableId
//!                Status    S   CREATING | ACTIVE | DELETING
//!                Keys      L   [M {Name S, Type S}, ..]: partition key, sort key
//!                Billing   S   PROVISIONED | PAY_PER_REQUEST
//!                Read      N   provisioned read capacity units; 0 on demand
//!                Write     N   provisioned write capacity units; 0 on demand
//!                Created   N   milliseconds since the Unix epoch
//!                Seed      B   8 bytes, big-endian: seed of the partition keys' hash
//!                Places    L   [M {Id N, Log N, Lower B 8 bytes big-endian}, ..] by Lower
//!                Version   N   the catalog's version when this entry was written
//! ```
//!
//! and what is known of its indexes, and what is set about the table beside these: see `index` and `settings`.

use cairn_engine::ids::{IndexId, LogId, PartitionId, TableId};
use cairn_item::{Attribute, Item, ItemView, KeyType, KeyValue, Number, Value, ValueView};

use super::index::{IndexDefinition, attributes_of, attributes_value};
use super::settings::TableSettings;
use super::warm::Warm;

/// Version of the entry's format.
const FORMAT: u64 = 1;

/// A key attribute of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttribute {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: KeyType,
}

/// Where a table is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableStatus {
    /// Its entry is durable, its partitions are being created.
    Creating,
    /// It serves.
    Active,
    /// Its partitions are being dropped; the entry goes last.
    Deleting,
}

impl TableStatus {
    /// DynamoDB's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TableStatus::Creating => "CREATING",
            TableStatus::Active => "ACTIVE",
            TableStatus::Deleting => "DELETING",
        }
    }

    fn from_name(name: &str) -> Option<TableStatus> {
        [TableStatus::Creating, TableStatus::Active, TableStatus::Deleting]
            .into_iter()
            .find(|status| status.name() == name)
    }
}

/// How a table's throughput is paid for. Recorded and described; nothing is throttled by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// `PAY_PER_REQUEST`.
    OnDemand,
    /// `PROVISIONED`.
    Provisioned {
        /// Read capacity units.
        read_units: u64,
        /// Write capacity units.
        write_units: u64,
    },
}

/// One partition: the hashes from `lower` to the next partition's `lower`, kept in one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionPlace {
    /// Never reused.
    pub id: PartitionId,
    /// The log that holds it.
    pub log: LogId,
    /// Least hash it owns; the first partition's is 0.
    pub lower: u64,
}

/// A table's entry in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDefinition {
    /// Never reused; what keys, logs and segments carry.
    pub id: TableId,
    /// Unique within the account.
    pub name: String,
    /// A random name for this table that no other table, before or after, has.
    pub unique: String,
    /// Where it is in its life.
    pub status: TableStatus,
    /// Places an item in a partition.
    pub partition_key: KeyAttribute,
    /// Orders the items of one partition key.
    pub sort_key: Option<KeyAttribute>,
    /// `AttributeDefinitions`: the key attributes of the table and its indexes, in the order that clients compare.
    pub attributes: Vec<KeyAttribute>,
    /// Its indexes, in the order in which they were created: at creation of the table the local ones first.
    pub indexes: Vec<IndexDefinition>,
    /// Id of the next index.
    pub next_index: u16,
    /// How its throughput is paid for.
    pub billing: Billing,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Seed of the partition keys' hash.
    pub seed: u64,
    /// What is set about it beside these.
    pub settings: TableSettings,
    /// By `lower`, never empty.
    pub places: Vec<PartitionPlace>,
    /// The catalog's version when this entry was written.
    pub version: u64,
}

/// Key attributes of the system table.
pub(crate) const ACCOUNT: &str = "Account";
pub(crate) const NAME: &str = "Name";

impl TableDefinition {
    /// Partition of `hash`, as an index into `places`.
    #[must_use]
    pub fn place_of(&self, hash: u64) -> usize {
        place_in(&self.places, hash)
    }

    /// Read and write capacity units; zeros on demand.
    #[must_use]
    pub fn units(&self) -> (u64, u64) {
        match self.billing {
            Billing::OnDemand => (0, 0),
            Billing::Provisioned {
                read_units,
                write_units,
            } => (read_units, write_units),
        }
    }

    /// Its warm throughput.
    #[must_use]
    pub fn warm(&self) -> Warm {
        self.settings
            .warm
            .max(Warm::of_billing(self.billing, self.units()))
    }

    /// The index of this name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<&IndexDefinition> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// Forgets attributes that are keys of nothing any more.
    pub(crate) fn forget_attributes(&mut self) {
        let of_table = std::iter::once(&self.partition_key).chain(&self.sort_key);
        let of_indexes = self.indexes.iter().flat_map(IndexDefinition::keys);
        let used: Vec<String> = of_table.chain(of_indexes).map(|key| key.name.clone()).collect();
        self.attributes.retain(|attribute| used.contains(&attribute.name));
    }

    /// Places of the table and of its global indexes, each with the index that it belongs to.
    pub(crate) fn all_places(&self) -> impl Iterator<Item = (IndexId, &[PartitionPlace])> {
        let global = self.indexes.iter().filter_map(|index| {
            let global = index.global.as_ref()?;
            Some((index.id, global.places.as_slice()))
        });
        std::iter::once((IndexId(0), self.places.as_slice())).chain(global)
    }

    /// The entry as an item of the system table.
    #[must_use]
    pub(crate) fn to_item(&self, account: &str) -> Item {
        let (billing, read, write) = match self.billing {
            Billing::OnDemand => ("PAY_PER_REQUEST", 0, 0),
            Billing::Provisioned {
                read_units,
                write_units,
            } => ("PROVISIONED", read_units, write_units),
        };
        let key = |key: &KeyAttribute| {
            Value::map(vec![
                attribute("Name", text(&key.name)),
                attribute("Type", text(key.kind.name())),
            ])
        };
        let keys = std::iter::once(&self.partition_key).chain(&self.sort_key);
        let mut attributes = vec![
            attribute(ACCOUNT, text(account)),
            attribute(NAME, text(&self.name)),
            attribute("Format", number(FORMAT)),
            attribute("Id", number(self.id.0)),
            attribute("Unique", text(&self.unique)),
            attribute("Status", text(self.status.name())),
            attribute("Keys", Value::L(keys.map(key).collect())),
            attribute("Attributes", attributes_value(&self.attributes)),
            attribute("NextIndex", number(u64::from(self.next_index))),
            attribute(
                "Indexes",
                Value::L(self.indexes.iter().map(IndexDefinition::to_value).collect()),
            ),
            attribute("Billing", text(billing)),
            attribute("Read", number(read)),
            attribute("Write", number(write)),
            attribute("Created", number(self.created_ms)),
            attribute("Seed", Value::B(self.seed.to_be_bytes().to_vec())),
            attribute("Places", Value::L(self.places.iter().map(place_value).collect())),
            attribute("Version", number(self.version)),
        ];
        attributes.extend(self.settings.attributes());
        Item::from_attributes(attributes)
    }

    /// Reads an entry back. `None` when it is not one that this version understands.
    #[must_use]
    pub(crate) fn from_item(item: ItemView<'_>) -> Option<TableDefinition> {
        let get = |name| item.get(name);
        if as_u64(get("Format")?)? != FORMAT {
            return None;
        }
        let mut keys = Vec::new();
        let ValueView::L(list) = get("Keys")? else {
            return None;
        };
        for key in list.iter() {
            let ValueView::M(key) = key else { return None };
            let kind = KeyType::from_name(as_text(key.get("Type")?)?)?;
            keys.push(KeyAttribute {
                name: as_text(key.get("Name")?)?.to_owned(),
                kind,
            });
        }
        let places = places_of(get("Places")?)?;
        if keys.len() > 2 {
            return None;
        }
        let attributes = attributes_of(get("Attributes")?)?;
        let ValueView::L(list) = get("Indexes")? else {
            return None;
        };
        let indexes = list
            .iter()
            .map(|index| IndexDefinition::from_view(index, &attributes));
        let indexes = indexes.collect::<Option<Vec<_>>>()?;
        let next_index = as_u64(get("NextIndex")?)?.try_into().ok()?;
        if indexes.iter().any(|index| index.id.0 >= next_index) {
            return None;
        }
        let billing = match as_text(get("Billing")?)? {
            "PAY_PER_REQUEST" => Billing::OnDemand,
            "PROVISIONED" => Billing::Provisioned {
                read_units: as_u64(get("Read")?)?,
                write_units: as_u64(get("Write")?)?,
            },
            _ => return None,
        };
        let mut keys = keys.into_iter();
        Some(TableDefinition {
            id: TableId(as_u64(get("Id")?)?),
            name: as_text(get(NAME)?)?.to_owned(),
            unique: as_text(get("Unique")?)?.to_owned(),
            status: TableStatus::from_name(as_text(get("Status")?)?)?,
            partition_key: keys.next()?,
            sort_key: keys.next(),
            attributes,
            indexes,
            next_index,
            billing,
            created_ms: as_u64(get("Created")?)?,
            seed: as_bytes_u64(get("Seed")?)?,
            settings: TableSettings::from_item(item)?,
            places,
            version: as_u64(get("Version")?)?,
        })
    }
}

pub(super) fn place_value(place: &PartitionPlace) -> Value {
    Value::map(vec![
        attribute("Id", number(place.id.0)),
        attribute("Log", number(u64::from(place.log.0))),
        attribute("Lower", Value::B(place.lower.to_be_bytes().to_vec())),
    ])
}

/// Reads places back: not none, ascending from 0.
pub(super) fn places_of(value: ValueView<'_>) -> Option<Vec<PartitionPlace>> {
    let ValueView::L(list) = value else { return None };
    let mut places = Vec::new();
    for place in list.iter() {
        let ValueView::M(place) = place else { return None };
        places.push(PartitionPlace {
            id: PartitionId(as_u64(place.get("Id")?)?),
            log: LogId(as_u64(place.get("Log")?)?.try_into().ok()?),
            lower: as_bytes_u64(place.get("Lower")?)?,
        });
    }
    let ascending = places.is_sorted_by(|left, right| left.lower < right.lower);
    (ascending && places.first()?.lower == 0).then_some(places)
}

/// The place of `hash` among places.
pub(super) fn place_in(places: &[PartitionPlace], hash: u64) -> usize {
    places.partition_point(|place| place.lower <= hash) - 1
}

/// The system table's key of a table's entry.
pub(crate) fn entry_key(account: &str, name: &str) -> (KeyValue, KeyValue) {
    (KeyValue::S(account.to_owned()), KeyValue::S(name.to_owned()))
}

pub(crate) fn attribute(name: &str, value: Value) -> Attribute {
    Attribute {
        name: name.to_owned(),
        value,
    }
}

pub(crate) fn text(text: &str) -> Value {
    Value::S(text.to_owned())
}

pub(crate) fn number(number: u64) -> Value {
    Value::N(
        number
            .to_string()
            .parse::<Number>()
            .expect("twenty digits are a number"),
    )
}

pub(crate) fn as_u64(value: ValueView<'_>) -> Option<u64> {
    let ValueView::N(number) = value else { return None };
    number.to_i64()?.try_into().ok()
}

pub(crate) fn as_text(value: ValueView<'_>) -> Option<&str> {
    let ValueView::S(text) = value else { return None };
    Some(text)
}

fn as_bytes_u64(value: ValueView<'_>) -> Option<u64> {
    let ValueView::B(bytes) = value else { return None };
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::index::{GlobalIndex, IndexProjection, IndexStatus};
    use super::super::settings::{Ceilings, ThroughputHistory};
    use super::*;

    fn string(name: &str) -> KeyAttribute {
        KeyAttribute {
            name: name.to_owned(),
            kind: KeyType::S,
        }
    }

    fn table() -> TableDefinition {
        TableDefinition {
            id: TableId(7),
            name: "orders".to_owned(),
            unique: "00000000-0000-4000-8000-000000000007".to_owned(),
            status: TableStatus::Creating,
            partition_key: KeyAttribute {
                name: "customer".to_owned(),
                kind: KeyType::S,
            },
            sort_key: Some(KeyAttribute {
                name: "placed".to_owned(),
                kind: KeyType::N,
            }),
            attributes: ["placed", "customer", "state"]
                .map(|name| KeyAttribute {
                    name: name.to_owned(),
                    kind: if name == "placed" { KeyType::N } else { KeyType::S },
                })
                .to_vec(),
            indexes: vec![
                IndexDefinition {
                    id: IndexId(1),
                    name: "by-state".to_owned(),
                    partition_key: vec![string("customer")],
                    sort_key: vec![string("state")],
                    projection: IndexProjection::Include(vec!["total".to_owned()]),
                    global: None,
                },
                IndexDefinition {
                    id: IndexId(3),
                    name: "all-by-state".to_owned(),
                    partition_key: vec![string("state"), string("customer")],
                    sort_key: Vec::new(),
                    projection: IndexProjection::KeysOnly,
                    global: Some(GlobalIndex {
                        status: IndexStatus::Backfilling,
                        units: (1, 2),
                        throughput: ThroughputHistory {
                            increased_ms: Some(7),
                            ..ThroughputHistory::default()
                        },
                        ceilings: Ceilings {
                            read: None,
                            write: Some(9),
                        },
                        warm: Warm { read: 3, write: 4 },
                        places: vec![PartitionPlace {
                            id: PartitionId(20),
                            log: LogId(1),
                            lower: 0,
                        }],
                    }),
                },
            ],
            next_index: 4,
            billing: Billing::Provisioned {
                read_units: 5,
                write_units: 1_000_000_000_000,
            },
            created_ms: 1_700_000_000_123,
            seed: u64::MAX - 3,
            settings: TableSettings {
                deletion_protection: true,
                ..TableSettings::default()
            },
            places: (0..4)
                .map(|index| PartitionPlace {
                    id: PartitionId(10 + index),
                    log: LogId(u32::try_from(index % 2).unwrap()),
                    lower: index << 62,
                })
                .collect(),
            version: 99,
        }
    }

    #[test]
    fn an_entry_survives_its_item() {
        let mut hash_only = table();
        hash_only.sort_key = None;
        hash_only.attributes.truncate(2);
        hash_only.indexes.clear();
        hash_only.billing = Billing::OnDemand;
        hash_only.status = TableStatus::Active;
        for table in [table(), hash_only] {
            let bytes = cairn_item::archive(&table.to_item("000000000000"));
            let view = ItemView::validate(&bytes).unwrap();
            assert_eq!(TableDefinition::from_item(view), Some(table));
        }
    }

    #[test]
    fn every_hash_has_one_place() {
        let table = table();
        for (hash, place) in [
            (0, 0),
            (1, 0),
            ((1 << 62) - 1, 0),
            (1 << 62, 1),
            (3 << 62, 3),
            (u64::MAX, 3),
        ] {
            assert_eq!(table.place_of(hash), place, "{hash:x}");
        }
    }
}
