//! What the catalog knows about the secondary indexes of a table, as members of the table's entry:
//!
//! ```text
//! Attributes  L   [M {Name S, Type S}, ..]: AttributeDefinitions, in the order in which they were given
//! NextIndex   N   the next index's id; none is used twice within a table
//! Indexes     L   [M, ..] in the order in which they were created:
//!                   Id         N   1 to 65,534
//!                   Name       S
//!                   Hash       L   [S, ..] names of the partition key's attributes
//!                   Range      L   [S, ..] names of the sort key's attributes
//!                   Projection S   ALL | KEYS_ONLY | INCLUDE
//!                   Include    L   [S, ..] non-key attributes, of INCLUDE
//!                   of a global index also:
//!                   Status     S   CREATING | BACKFILLING | ACTIVE | DELETING
//!                   Read       N   provisioned read capacity units; 0 on demand
//!                   Write      N   provisioned write capacity units; 0 on demand
//!                   Places     L   as the table's
//!                   Throughput M   as the table's, see `settings`
//!                   Ceilings   M   as the table's, see `settings`
//!                   Warm       M   as the table's, see `warm`
//! ```

use cairn_engine::ids::IndexId;
use cairn_item::{KeyType, Value, ValueView};

use super::definition::{
    Billing, KeyAttribute, PartitionPlace, as_text, as_u64, attribute, number, place_value, places_of, text,
};
use super::settings::{Ceilings, ThroughputHistory};
use super::warm::Warm;

/// An index of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDefinition {
    /// Never reused within the table.
    pub id: IndexId,
    /// Unique within the table.
    pub name: String,
    /// One attribute, or up to four of a global index.
    pub partition_key: Vec<KeyAttribute>,
    /// One attribute of a local index; none or up to four of a global one.
    pub sort_key: Vec<KeyAttribute>,
    /// What its entries hold besides the keys.
    pub projection: IndexProjection,
    /// What only a global index has.
    pub global: Option<GlobalIndex>,
}

/// What the entries of an index hold besides the keys of the index and the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexProjection {
    /// Everything.
    All,
    /// Nothing.
    KeysOnly,
    /// These attributes.
    Include(Vec<String>),
}

impl IndexProjection {
    /// DynamoDB's name for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            IndexProjection::All => "ALL",
            IndexProjection::KeysOnly => "KEYS_ONLY",
            IndexProjection::Include(_) => "INCLUDE",
        }
    }
}

/// What only a global index has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalIndex {
    /// Where it is in its life.
    pub status: IndexStatus,
    /// Provisioned read and write capacity units; zeros on demand.
    pub units: (u64, u64),
    /// Changes of its provisioned throughput.
    pub throughput: ThroughputHistory,
    /// Its own ceilings while the table is paid for by request.
    pub ceilings: Ceilings,
    /// Warm throughput beyond what the billing explains; see [`GlobalIndex::warm`].
    pub warm: Warm,
    /// Its partitions, by `lower`, never empty.
    pub places: Vec<PartitionPlace>,
}

impl GlobalIndex {
    /// Its warm throughput, where its table is paid for in this way.
    #[must_use]
    pub fn warm(&self, billing: Billing) -> Warm {
        self.warm.max(Warm::of_billing(billing, self.units))
    }
}

/// Where a global index is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexStatus {
    /// Its partitions are being created.
    Creating,
    /// Changes reach it; the items that were there before it are being entered.
    Backfilling,
    /// It serves.
    Active,
    /// Its partitions are being dropped.
    Deleting,
}

impl IndexStatus {
    const ALL: [(IndexStatus, &'static str); 4] = [
        (IndexStatus::Creating, "CREATING"),
        (IndexStatus::Backfilling, "BACKFILLING"),
        (IndexStatus::Active, "ACTIVE"),
        (IndexStatus::Deleting, "DELETING"),
    ];

    fn name(self) -> &'static str {
        let known = IndexStatus::ALL.iter().find(|(status, _)| *status == self);
        known.expect("all of them are listed").1
    }

    /// What `IndexStatus` of DescribeTable says.
    #[must_use]
    pub fn described(self) -> &'static str {
        match self {
            IndexStatus::Backfilling => "CREATING",
            status => status.name(),
        }
    }
}

impl IndexDefinition {
    /// Names of its key attributes, the partition key's first.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.name.as_str())
    }

    /// Its key attributes, the partition key's first.
    pub fn keys(&self) -> impl Iterator<Item = &KeyAttribute> {
        self.partition_key.iter().chain(&self.sort_key)
    }

    /// Whether changes of items are to reach it.
    #[must_use]
    pub fn is_fed(&self) -> bool {
        self.global
            .as_ref()
            .is_none_or(|global| global.status != IndexStatus::Deleting)
    }

    /// Whether its entries may be read.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.global
            .as_ref()
            .is_none_or(|global| global.status == IndexStatus::Active)
    }

    /// Where it is in its life; none of a local index, which lives as long as its table.
    #[must_use]
    pub fn status(&self) -> Option<IndexStatus> {
        self.global.as_ref().map(|global| global.status)
    }

    pub(super) fn to_value(&self) -> Value {
        let names = |keys: &[KeyAttribute]| Value::L(keys.iter().map(|key| text(&key.name)).collect());
        let mut members = vec![
            attribute("Id", number(u64::from(self.id.0))),
            attribute("Name", text(&self.name)),
            attribute("Hash", names(&self.partition_key)),
            attribute("Range", names(&self.sort_key)),
            attribute("Projection", text(self.projection.name())),
        ];
        if let IndexProjection::Include(include) = &self.projection {
            let include = include.iter().map(|name| text(name)).collect();
            members.push(attribute("Include", Value::L(include)));
        }
        if let Some(global) = &self.global {
            members.push(attribute("Status", text(global.status.name())));
            members.push(attribute("Read", number(global.units.0)));
            members.push(attribute("Write", number(global.units.1)));
            let places = global.places.iter().map(place_value).collect();
            members.push(attribute("Places", Value::L(places)));
            members.extend(global.throughput.attribute());
            members.extend(global.ceilings.attribute());
            members.extend(global.warm.attribute());
        }
        Value::map(members)
    }

    /// Reads it back; `attributes` are the table's.
    pub(super) fn from_view(value: ValueView<'_>, attributes: &[KeyAttribute]) -> Option<IndexDefinition> {
        let ValueView::M(members) = value else { return None };
        let get = |name| members.get(name);
        let keys = |name| {
            let names = texts(get(name)?)?;
            let keys = names.iter().map(|name| {
                let mut known = attributes.iter();
                known.find(|attribute| attribute.name == *name).cloned()
            });
            keys.collect::<Option<Vec<_>>>()
        };
        let (partition_key, sort_key) = (keys("Hash")?, keys("Range")?);
        let projection = match as_text(get("Projection")?)? {
            "ALL" => IndexProjection::All,
            "KEYS_ONLY" => IndexProjection::KeysOnly,
            "INCLUDE" => IndexProjection::Include(texts(get("Include")?)?),
            _ => return None,
        };
        let global = match get("Status") {
            None => None,
            Some(status) => {
                let name = as_text(status)?;
                let (status, _) = IndexStatus::ALL.into_iter().find(|(_, known)| *known == name)?;
                Some(GlobalIndex {
                    status,
                    units: (as_u64(get("Read")?)?, as_u64(get("Write")?)?),
                    throughput: ThroughputHistory::from_attribute(get("Throughput"))?,
                    ceilings: Ceilings::from_attribute(get("Ceilings"))?,
                    warm: Warm::from_attribute(get("Warm"))?,
                    places: places_of(get("Places")?)?,
                })
            }
        };
        let id = u16::try_from(as_u64(get("Id")?)?).ok()?;
        if partition_key.is_empty() || id == 0 || id == u16::MAX {
            return None;
        }
        Some(IndexDefinition {
            id: IndexId(id),
            name: as_text(get("Name")?)?.to_owned(),
            partition_key,
            sort_key,
            projection,
            global,
        })
    }
}

fn texts(value: ValueView<'_>) -> Option<Vec<String>> {
    let ValueView::L(list) = value else { return None };
    list.iter()
        .map(|value| as_text(value).map(str::to_owned))
        .collect()
}

/// `AttributeDefinitions`.
pub(super) fn attributes_value(attributes: &[KeyAttribute]) -> Value {
    let one = |key: &KeyAttribute| {
        Value::map(vec![
            attribute("Name", text(&key.name)),
            attribute("Type", text(key.kind.name())),
        ])
    };
    Value::L(attributes.iter().map(one).collect())
}

pub(super) fn attributes_of(value: ValueView<'_>) -> Option<Vec<KeyAttribute>> {
    let ValueView::L(list) = value else { return None };
    let one = |key| {
        let ValueView::M(key) = key else { return None };
        Some(KeyAttribute {
            name: as_text(key.get("Name")?)?.to_owned(),
            kind: KeyType::from_name(as_text(key.get("Type")?)?)?,
        })
    };
    list.iter().map(one).collect()
}
