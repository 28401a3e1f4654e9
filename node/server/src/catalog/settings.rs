//! What is set about a table beside its keys, places and indexes, and how that is stored.
//!
//! Each setting is an attribute of the table's entry (see `definition`), absent while nothing was set:
//!
//! ```text
//! Class      M     {Name S STANDARD | STANDARD_INFREQUENT_ACCESS, Changed N}: as asked for; Changed is absent until UpdateTable
//! Protected  BOOL  deletion protection
//! Tags       M     {key S value, ..}
//! Throughput M     {Increased N, Decreased N, Decreases N}: Decreases of the UTC day of Decreased
//! OnDemand   N     when it last became PAY_PER_REQUEST
//! Ceilings   M     {Read N, Write N}: most request units on demand, as asked for
//! Expiry     M     {Attribute S}: the time to live is on
//! Warm       M     see `warm`
//! Streams    L     see `stream`
//! ```
//!
//! Times are milliseconds since the Unix epoch.

use std::collections::BTreeMap;

use cairn_engine::Compression;
use cairn_item::{Attribute, ItemView, MapView, Value, ValueView};

use super::definition::{as_text, as_u64, attribute, number, text};
use super::stream::{HOUR_MS, STREAM_HOURS, STREAM_HOURS_MAX, StreamDefinition, attribute_of, streams_of};
use super::warm::Warm;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Tag that makes expired items invisible at once; its only value is [`HIDDEN`].
pub(crate) const EXPIRED_ITEMS: &str = "cairn:expired-items";
/// See [`EXPIRED_ITEMS`].
pub(crate) const HIDDEN: &str = "hidden";

/// Tag that tells how many hours the records of a table's streams are kept: [`STREAM_HOURS`] to [`STREAM_HOURS_MAX`].
pub(crate) const STREAM_HOURS_TAG: &str = "cairn:stream-hours";

/// A number as it is written in one way only: without a sign, and without zeros before it.
fn canonical(value: &str) -> Option<u64> {
    let number: u64 = value.parse().ok()?;
    (number.to_string() == value).then_some(number)
}

/// Hours that a value of [`STREAM_HOURS_TAG`] means.
pub(crate) fn stream_hours(value: &str) -> Option<u64> {
    let hours = canonical(value)?;
    (STREAM_HOURS..=STREAM_HOURS_MAX)
        .contains(&hours)
        .then_some(hours)
}

/// Tag that tells how many bytes an item collection may come to: 1 to [`COLLECTION_BYTES_MAX`].
pub(crate) const COLLECTION_BYTES_TAG: &str = "cairn:item-collection-bytes-max";
/// See [`COLLECTION_BYTES_TAG`].
pub(crate) const COLLECTION_BYTES_MAX: u64 = 1 << 50;

/// Bytes that a value of [`COLLECTION_BYTES_TAG`] means.
pub(crate) fn collection_bytes(value: &str) -> Option<u64> {
    let bytes = canonical(value)?;
    (1..=COLLECTION_BYTES_MAX).contains(&bytes).then_some(bytes)
}

/// Tag that tells what a table's data is packed with when it is written: [`Compression::name`]. Without it as the node is
/// configured.
pub(crate) const COMPRESSION: &str = "cairn:compression";

/// DynamoDB's price class of a table. Recorded and described; nothing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableClass {
    /// `STANDARD`
    Standard,
    /// `STANDARD_INFREQUENT_ACCESS`
    InfrequentAccess,
}

impl TableClass {
    /// DynamoDB's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TableClass::Standard => "STANDARD",
            TableClass::InfrequentAccess => "STANDARD_INFREQUENT_ACCESS",
        }
    }

    /// The class of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<TableClass> {
        [TableClass::Standard, TableClass::InfrequentAccess]
            .into_iter()
            .find(|class| class.name() == name)
    }
}

/// When provisioned throughput was changed. Times in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThroughputHistory {
    /// The last increase.
    pub increased_ms: Option<u64>,
    /// The last decrease.
    pub decreased_ms: Option<u64>,
    /// Decreases on the UTC day of the last one.
    pub decreases: u64,
}

impl ThroughputHistory {
    /// Decreases on the UTC day of `now_ms` so far.
    #[must_use]
    pub fn decreases_today(&self, now_ms: u64) -> u64 {
        match self.decreased_ms {
            Some(decreased_ms) if decreased_ms / DAY_MS == now_ms / DAY_MS => self.decreases,
            _ => 0,
        }
    }

    /// The history after units (read, write) were changed.
    #[must_use]
    pub(crate) fn after(mut self, old: (u64, u64), new: (u64, u64), now_ms: u64) -> ThroughputHistory {
        if new.0 > old.0 || new.1 > old.1 {
            self.increased_ms = Some(now_ms);
        }
        if new.0 < old.0 || new.1 < old.1 {
            self.decreases = self.decreases_today(now_ms) + 1;
            self.decreased_ms = Some(now_ms);
        }
        self
    }

    /// `Throughput`, unless nothing was ever changed.
    pub(super) fn attribute(&self) -> Option<Attribute> {
        if *self == ThroughputHistory::default() {
            return None;
        }
        let ThroughputHistory {
            increased_ms,
            decreased_ms,
            decreases,
        } = *self;
        let mut members = vec![attribute("Decreases", number(decreases))];
        members.extend(increased_ms.map(|ms| attribute("Increased", number(ms))));
        members.extend(decreased_ms.map(|ms| attribute("Decreased", number(ms))));
        Some(attribute("Throughput", Value::map(members)))
    }

    /// Reads it back.
    pub(super) fn from_attribute(value: Option<ValueView<'_>>) -> Option<ThroughputHistory> {
        let Some(value) = value else {
            return Some(ThroughputHistory::default());
        };
        let throughput = as_map(value)?;
        Some(ThroughputHistory {
            increased_ms: optional(throughput.get("Increased"), as_u64)?,
            decreased_ms: optional(throughput.get("Decreased"), as_u64)?,
            decreases: as_u64(throughput.get("Decreases")?)?,
        })
    }
}

/// Most request units that a table on demand is to be charged. Recorded and described; nothing is throttled by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ceilings {
    /// `MaxReadRequestUnits`; none is no ceiling.
    pub read: Option<i64>,
    /// `MaxWriteRequestUnits`.
    pub write: Option<i64>,
}

impl Ceilings {
    /// Both, with DynamoDB's names.
    pub(crate) fn members(self) -> [(&'static str, Option<i64>); 2] {
        [
            ("MaxReadRequestUnits", self.read),
            ("MaxWriteRequestUnits", self.write),
        ]
    }

    /// Whether there is neither.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Ceilings::default()
    }

    /// Takes over the members that are given; -1 is no ceiling any more.
    pub(super) fn change(&mut self, given: Ceilings) {
        for (given, current) in [(given.read, &mut self.read), (given.write, &mut self.write)] {
            if let Some(units) = given {
                *current = Some(units).filter(|units| *units > 0);
            }
        }
    }

    /// `Ceilings`, when there are any.
    pub(super) fn attribute(self) -> Option<Attribute> {
        if self.is_none() {
            return None;
        }
        let members = [("Read", self.read), ("Write", self.write)];
        let members = members.into_iter().filter_map(|(name, units)| {
            let units = u64::try_from(units?).expect("ceilings are positive");
            Some(attribute(name, number(units)))
        });
        Some(attribute("Ceilings", Value::map(members.collect())))
    }

    /// Reads them back.
    pub(super) fn from_attribute(value: Option<ValueView<'_>>) -> Option<Ceilings> {
        let Some(value) = value else {
            return Some(Ceilings::default());
        };
        let ceilings = as_map(value)?;
        let units = |name| optional(ceilings.get(name), |value| i64::try_from(as_u64(value)?).ok());
        Some(Ceilings {
            read: units("Read")?,
            write: units("Write")?,
        })
    }
}

/// What is set about a table; the default is what CreateTable sets when it is asked for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSettings {
    /// None: never asked for, which is `STANDARD` and not described.
    pub class: Option<TableClass>,
    /// When UpdateTable changed the class, in milliseconds since the Unix epoch.
    pub class_changed_ms: Option<u64>,
    /// DeleteTable is refused.
    pub deletion_protection: bool,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
    /// Changes of the provisioned throughput.
    pub throughput: ThroughputHistory,
    /// When the table last became `PAY_PER_REQUEST`, in milliseconds since the Unix epoch.
    pub on_demand_since_ms: Option<u64>,
    /// Ceilings of a table that is paid for by request.
    pub ceilings: Ceilings,
    /// Warm throughput beyond what the table's billing explains; see [`TableDefinition::warm`](super::TableDefinition::warm).
    pub warm: Warm,
    /// The attribute that holds the second after which an item is expired; none while the time to live is off.
    pub expiry_attribute: Option<String>,
    /// Its streams, oldest first.
    pub streams: Vec<StreamDefinition>,
}

impl TableSettings {
    /// Whether expired items are to be seen by nobody although they are not deleted yet.
    #[must_use]
    pub fn hides_expired(&self) -> bool {
        self.tags.get(EXPIRED_ITEMS).is_some_and(|value| value == HIDDEN)
    }

    /// Most bytes that an item collection may come to, where that is limited.
    #[must_use]
    pub fn collection_bytes_max(&self) -> Option<u64> {
        let bytes = self.tags.get(COLLECTION_BYTES_TAG)?;
        collection_bytes(bytes)
    }

    /// What its data and that of its indexes is packed with, if not with what the node's is.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        self.tags.get(COMPRESSION)?.parse().ok()
    }

    /// The stream that is enabled.
    #[must_use]
    pub fn stream(&self) -> Option<StreamDefinition> {
        let newest = self.streams.last().copied();
        newest.filter(|stream| stream.disabled_ms.is_none())
    }

    /// How long the records of its streams are kept, in milliseconds.
    #[must_use]
    pub fn streams_kept_ms(&self) -> u64 {
        let hours = self.tags.get(STREAM_HOURS_TAG);
        hours
            .and_then(|hours| stream_hours(hours))
            .unwrap_or(STREAM_HOURS)
            * HOUR_MS
    }

    /// The attributes of the table's entry that hold them.
    pub(crate) fn attributes(&self) -> Vec<Attribute> {
        let mut attributes = Vec::new();
        if let Some(class) = self.class {
            let mut members = vec![attribute("Name", text(class.name()))];
            members.extend(self.class_changed_ms.map(|ms| attribute("Changed", number(ms))));
            attributes.push(attribute("Class", Value::map(members)));
        }
        if self.deletion_protection {
            attributes.push(attribute("Protected", Value::Bool(true)));
        }
        if !self.tags.is_empty() {
            let tags = self.tags.iter().map(|(key, value)| attribute(key, text(value)));
            attributes.push(attribute("Tags", Value::map(tags.collect())));
        }
        attributes.extend(self.throughput.attribute());
        attributes.extend(
            self.on_demand_since_ms
                .map(|ms| attribute("OnDemand", number(ms))),
        );
        attributes.extend(self.ceilings.attribute());
        attributes.extend(self.warm.attribute());
        if let Some(name) = &self.expiry_attribute {
            attributes.push(attribute(
                "Expiry",
                Value::map(vec![attribute("Attribute", text(name))]),
            ));
        }
        attributes.extend(attribute_of(&self.streams));
        attributes
    }

    /// Reads them back from a table's entry. `None` when they are not what this version writes.
    pub(crate) fn from_item(item: ItemView<'_>) -> Option<TableSettings> {
        let mut settings = TableSettings::default();
        if let Some(class) = item.get("Class") {
            let class = as_map(class)?;
            settings.class = Some(TableClass::from_name(as_text(class.get("Name")?)?)?);
            settings.class_changed_ms = optional(class.get("Changed"), as_u64)?;
        }
        if let Some(protected) = item.get("Protected") {
            let ValueView::Bool(protected) = protected else {
                return None;
            };
            settings.deletion_protection = protected;
        }
        if let Some(tags) = item.get("Tags") {
            for (key, value) in as_map(tags)?.iter() {
                settings.tags.insert(key.to_owned(), as_text(value)?.to_owned());
            }
        }
        settings.throughput = ThroughputHistory::from_attribute(item.get("Throughput"))?;
        settings.on_demand_since_ms = optional(item.get("OnDemand"), as_u64)?;
        settings.ceilings = Ceilings::from_attribute(item.get("Ceilings"))?;
        settings.warm = Warm::from_attribute(item.get("Warm"))?;
        if let Some(expiry) = item.get("Expiry") {
            settings.expiry_attribute = Some(as_text(as_map(expiry)?.get("Attribute")?)?.to_owned());
        }
        settings.streams = streams_of(item)?;
        Some(settings)
    }
}

fn as_map(value: ValueView<'_>) -> Option<MapView<'_>> {
    let ValueView::M(map) = value else { return None };
    Some(map)
}

/// Absent is well; present must be readable.
fn optional<'a, T>(
    value: Option<ValueView<'a>>,
    read: impl FnOnce(ValueView<'a>) -> Option<T>,
) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => read(value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_item::Item;

    fn read_back(settings: &TableSettings) -> Option<TableSettings> {
        let bytes = cairn_item::archive(&Item::from_attributes(settings.attributes()));
        TableSettings::from_item(ItemView::validate(&bytes).unwrap())
    }

    #[test]
    fn settings_survive_their_attributes() {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let all = TableSettings {
            class: Some(TableClass::InfrequentAccess),
            class_changed_ms: Some(1_700_000_000_001),
            deletion_protection: true,
            tags: [tag("owner", "ключ"), tag("empty", "")].into(),
            throughput: ThroughputHistory {
                increased_ms: Some(3),
                decreased_ms: Some(4),
                decreases: 2,
            },
            on_demand_since_ms: Some(5),
            ceilings: Ceilings {
                read: Some(i64::MAX),
                write: None,
            },
            warm: Warm { read: 9, write: 8 },
            expiry_attribute: Some("ttl".to_owned()),
            streams: vec![StreamDefinition {
                created_ms: 7,
                view: crate::catalog::StreamView::NewImage,
                disabled_ms: Some(8),
            }],
        };
        let mut some = all.clone();
        some.class_changed_ms = None;
        some.throughput.decreased_ms = None;
        for settings in [TableSettings::default(), all, some] {
            assert_eq!(read_back(&settings), Some(settings));
        }
        assert!(TableSettings::default().attributes().is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            attribute("Class", Value::map(vec![attribute("Name", text("GLACIER"))])),
            attribute("Protected", text("yes")),
            attribute("Tags", Value::map(vec![attribute("a", number(1))])),
            attribute("Throughput", Value::map(vec![])),
            attribute("OnDemand", text("today")),
            attribute("Ceilings", Value::map(vec![attribute("Read", text("many"))])),
            attribute("Expiry", text("ttl")),
            attribute("Warm", text("hot")),
        ] {
            let bytes = cairn_item::archive(&Item::from_attributes(vec![wrong]));
            let view = ItemView::validate(&bytes).unwrap();
            assert_eq!(TableSettings::from_item(view), None, "{view:?}");
        }
    }

    #[test]
    fn decreases_are_counted_by_day() {
        let noon = 20_000 * DAY_MS + DAY_MS / 2;
        let history = ThroughputHistory::default().after((5, 5), (6, 5), noon);
        assert_eq!((history.increased_ms, history.decreased_ms), (Some(noon), None));
        let history = history
            .after((6, 5), (1, 1), noon + 1)
            .after((1, 1), (1, 2), noon + 2);
        assert_eq!(history.decreases_today(noon + 3), 1);
        let mixed = history.after((1, 2), (2, 1), noon + 4);
        assert_eq!(
            (
                mixed.increased_ms,
                mixed.decreased_ms,
                mixed.decreases_today(noon + 4)
            ),
            (Some(noon + 4), Some(noon + 4), 2)
        );
        assert_eq!(mixed.decreases_today(noon + DAY_MS), 0);
        assert_eq!(mixed.after((2, 1), (1, 1), noon + DAY_MS).decreases, 1);
    }
}
