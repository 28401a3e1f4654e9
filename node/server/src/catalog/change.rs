//! Changes of what is set about a table, decided on its newest entry.
//!
//! A change travels to the store on shard 0 as data and is applied there between two other changes, so it is a
//! compare-and-set: what it refuses, it refuses because of the entry that it would have replaced.

use cairn_engine::Compression;

use super::definition::{Billing, TableDefinition};
use super::index_change::{self, IndexUpdate};
use super::settings::{
    COLLECTION_BYTES_MAX, COLLECTION_BYTES_TAG, COMPRESSION, Ceilings, EXPIRED_ITEMS, HIDDEN,
    STREAM_HOURS_TAG, TableClass, collection_bytes, stream_hours,
};
use super::stream::{STREAM_HOURS, STREAM_HOURS_MAX, STREAMS_MAX, StreamView, with_enabled};
use super::warm::{Warm, WarmRequest};
use crate::api::ApiError;
use crate::api::error::{LIMIT_EXCEEDED, RESOURCE_IN_USE};

/// Tags of a table.
const TAGS_MAX: usize = 50;

/// A change of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TableChange {
    /// UpdateTable.
    Update(TableUpdate),
    /// TagResource: key and value, each key once.
    Tag(Vec<(String, String)>),
    /// UntagResource: keys.
    Untag(Vec<String>),
    /// UpdateTimeToLive.
    TimeToLive {
        /// The attribute that holds the time.
        attribute: String,
        /// On, else off.
        enabled: bool,
    },
}

/// How throughput is to be paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BillingMode {
    OnDemand,
    Provisioned,
}

/// What UpdateTable changes; none is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TableUpdate {
    /// Changes of global indexes, each of another one.
    pub indexes: Vec<IndexUpdate>,
    pub billing: Option<BillingMode>,
    /// Read and write capacity units.
    pub units: Option<(u64, u64)>,
    pub class: Option<TableClass>,
    pub deletion_protection: Option<bool>,
    /// Members that are given; -1 is no ceiling any more.
    pub ceilings: Ceilings,
    /// Members that are given; never less than what there is.
    pub warm: WarmRequest,
    pub stream: Option<StreamChange>,
}

/// What becomes of a table's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamChange {
    /// A new one is enabled.
    Enable(StreamView),
    /// The one that is enabled no longer is.
    Disable,
}

impl TableChange {
    /// The table's entry after the change, but for its version. The same entry: there is nothing to do.
    pub(crate) fn apply(self, table: &TableDefinition, now_ms: u64) -> Result<TableDefinition, ApiError> {
        let mut after = table.clone();
        match self {
            TableChange::Update(update) => update.apply(&mut after, now_ms)?,
            TableChange::Tag(tags) => {
                after.settings.tags.extend(tags);
                check_tag_count(after.settings.tags.len())?;
            }
            TableChange::Untag(keys) => {
                for key in keys {
                    after.settings.tags.remove(&key);
                }
            }
            TableChange::TimeToLive { attribute, enabled } => {
                let current = &mut after.settings.expiry_attribute;
                match (&current, enabled) {
                    (Some(name), _) if *name != attribute => {
                        return Err(ApiError::validation(format!(
                            "TimeToLive is active on a different AttributeName: current AttributeName is {name}"
                        )));
                    }
                    (Some(_), true) => return Err(ApiError::validation("TimeToLive is already enabled")),
                    (None, false) => return Err(ApiError::validation("TimeToLive is already disabled")),
                    (Some(_), false) => *current = None,
                    (None, true) => *current = Some(attribute),
                }
            }
        }
        Ok(after)
    }

    /// The answer while the table is being `state` ("created" or "deleted").
    pub(crate) fn in_use(&self, name: &str, state: &str) -> ApiError {
        match self {
            TableChange::TimeToLive { .. } => ApiError::new(
                RESOURCE_IN_USE,
                format!("Attempt to change a resource which is still in use: Table {name} is being {state}"),
            ),
            _ => in_use(name, state),
        }
    }
}

/// The answer while a table is being `state`.
pub(crate) fn in_use(name: &str, state: &str) -> ApiError {
    ApiError::new(
        RESOURCE_IN_USE,
        format!("Attempt to change a resource which is still in use: Table is being {state}: {name}"),
    )
}

/// Refuses more tags than a table may have.
pub(crate) fn check_tag_count(count: usize) -> Result<(), ApiError> {
    if count > TAGS_MAX {
        return Err(ApiError::validation(
            "Number of Tags exceed the current limit for the provided ResourceArn",
        ));
    }
    Ok(())
}

/// Tags whose keys begin so are settings of this database's own; an unknown one would promise what nothing keeps.
pub(crate) fn check_own_tag(key: &str, value: &str) -> Result<(), ApiError> {
    let known = match key {
        EXPIRED_ITEMS => value == HIDDEN,
        STREAM_HOURS_TAG => stream_hours(value).is_some(),
        COLLECTION_BYTES_TAG => collection_bytes(value).is_some(),
        COMPRESSION => value.parse::<Compression>().is_ok(),
        _ => !key.starts_with("cairn:"),
    };
    if known {
        return Ok(());
    }
    Err(ApiError::validation(format!(
        "Tag Keys prefixed with cairn: are settings of the table, and there are only {EXPIRED_ITEMS} with the \
         Value {HIDDEN}, {STREAM_HOURS_TAG} with a Value from {STREAM_HOURS} to {STREAM_HOURS_MAX}, \
         {COLLECTION_BYTES_TAG} with a Value from 1 to {COLLECTION_BYTES_MAX} and {COMPRESSION} with the Value none, \
         lz4 or zstd: Key: {key}, Value: {value}"
    )))
}

impl TableUpdate {
    fn apply(self, table: &mut TableDefinition, now_ms: u64) -> Result<(), ApiError> {
        index_change::check(table, &self.indexes)?;
        let before = table.billing;
        let warm = table.warm();
        self.change_billing(table, now_ms)?;
        let warm = self.warm.raise("table", warm)?;
        table.settings.warm = warm.beyond(Warm::of_billing(table.billing, table.units()));
        self.change_stream(table, now_ms)?;
        index_change::apply(table, self.indexes, before, now_ms)?;
        match table.billing {
            Billing::Provisioned { .. } => {
                if let Some((name, _)) = self
                    .ceilings
                    .members()
                    .into_iter()
                    .find(|(_, units)| units.is_some())
                {
                    return Err(ApiError::parameters(format!(
                        "{name} for OnDemandThroughput cannot be specified when the table BillingMode is PROVISIONED"
                    )));
                }
                table.settings.ceilings = Ceilings::default();
            }
            Billing::OnDemand => {
                check_ceilings(self.ceilings, -1, "table")?;
                if !self.ceilings.is_none() {
                    index_change::check_table_ceilings(table)?;
                }
                table.settings.ceilings.change(self.ceilings);
            }
        }
        if let Some(protection) = self.deletion_protection {
            table.settings.deletion_protection = protection;
        }
        if let Some(class) = self.class
            && class != table.settings.class.unwrap_or(TableClass::Standard)
        {
            table.settings.class = Some(class);
            table.settings.class_changed_ms = Some(now_ms);
        }
        Ok(())
    }

    fn change_stream(&self, table: &mut TableDefinition, now_ms: u64) -> Result<(), ApiError> {
        let settings = &mut table.settings;
        match (self.stream, settings.stream()) {
            (None, _) => {}
            (Some(StreamChange::Enable(_)), Some(_)) => {
                return Err(ApiError::validation(format!(
                    "Table already has an enabled stream: TableName: {}",
                    table.name
                )));
            }
            (Some(StreamChange::Enable(view)), None) => {
                settings.streams = with_enabled(&settings.streams, view, settings.streams_kept_ms(), now_ms);
                if settings.streams.len() > STREAMS_MAX {
                    return Err(ApiError::new(
                        LIMIT_EXCEEDED,
                        format!(
                            "Subscriber limit exceeded: {STREAMS_MAX} streams of the table are still kept: TableName: {}",
                            table.name
                        ),
                    ));
                }
            }
            (Some(StreamChange::Disable), Some(_)) => {
                let newest = settings.streams.last_mut().expect("one is enabled");
                newest.disabled_ms = Some(now_ms);
            }
            (Some(StreamChange::Disable), None) => {
                return Err(ApiError::validation(format!(
                    "Table has no stream to disable: TableName: {}",
                    table.name
                )));
            }
        }
        Ok(())
    }

    fn change_billing(&self, table: &mut TableDefinition, now_ms: u64) -> Result<(), ApiError> {
        let is_switched = matches!(
            (table.billing, self.billing),
            (Billing::OnDemand, Some(BillingMode::Provisioned))
                | (Billing::Provisioned { .. }, Some(BillingMode::OnDemand))
        );
        if is_switched || self.units.is_some() {
            index_change::check_table_units(table)?;
        }
        match (table.billing, self.billing, self.units) {
            (Billing::OnDemand, None, Some(_)) => Err(units_on_demand()),
            // No increase: there was nothing to increase.
            (Billing::OnDemand, Some(BillingMode::Provisioned), Some((read_units, write_units))) => {
                table.billing = Billing::Provisioned {
                    read_units,
                    write_units,
                };
                Ok(())
            }
            (Billing::Provisioned { .. }, Some(BillingMode::OnDemand), None) => {
                table.billing = Billing::OnDemand;
                table.settings.on_demand_since_ms = Some(now_ms);
                Ok(())
            }
            (
                Billing::Provisioned {
                    read_units,
                    write_units,
                },
                _,
                Some(units),
            ) => {
                let old = (read_units, write_units);
                if old == units {
                    return Err(unchanged_units("the table", "the table", old));
                }
                table.settings.throughput = table.settings.throughput.after(old, units, now_ms);
                table.billing = Billing::Provisioned {
                    read_units: units.0,
                    write_units: units.1,
                };
                Ok(())
            }
            (_, Some(BillingMode::Provisioned), None) => Err(ApiError::parameters(
                "ProvisionedThroughput must be specified when BillingMode is PROVISIONED",
            )),
            // The mode that the table has already, or none.
            (Billing::OnDemand, _, _) | (Billing::Provisioned { .. }, None, None) => Ok(()),
        }
    }
}

/// The answer to a change of throughput that is none.
pub(super) fn unchanged_units(of: &str, provisioned_for: &str, (read, write): (u64, u64)) -> ApiError {
    ApiError::validation(format!(
        "The provisioned throughput for {of} will not change. The requested value equals the current value. Current \
         ReadCapacityUnits provisioned for {provisioned_for}: {read}. Requested ReadCapacityUnits: {read}. Current \
         WriteCapacityUnits provisioned for {provisioned_for}: {write}. Requested WriteCapacityUnits: {write}. Refer to \
         the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."
    ))
}

/// Refuses ceilings that are none, of the table or "index : name"; `least` may be given besides positive numbers.
pub(crate) fn check_ceilings(ceilings: Ceilings, least: i64, of: &str) -> Result<(), ApiError> {
    for (name, units) in ceilings.members() {
        if units.is_some_and(|units| units < least || units == 0) {
            return Err(ApiError::parameters(format!(
                "Requested {name} for OnDemandThroughput for {of} is outside of valid range"
            )));
        }
    }
    Ok(())
}

/// Capacity units for a table that is paid for by request.
pub(crate) fn units_on_demand() -> ApiError {
    ApiError::parameters(
        "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST",
    )
}
