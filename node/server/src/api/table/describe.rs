//! What answers show of a table: DescribeTable, DeleteTable, ListTables.

use std::collections::BTreeMap;

use cairn_engine::ids::IndexId;
use cairn_item::json::write_string;
use cairn_runtime::Runtime;

use super::super::constraints::{Constraints, NAME_BYTES_MIN};
use super::super::decode;
use super::super::item::Members;
use super::super::{ApiError, Service};
use super::arn::{decode_name, no_table};
use super::describe_index::describe_indexes;
use crate::calendar::Utc;
use crate::catalog::{
    Billing, Ceilings, IndexStatus, KeyAttribute, Order, StreamDefinition, TableDefinition, TableStatus,
    ThroughputHistory, Usage, Warm,
};

/// Tables that one answer of ListTables names at most.
const LIST_MAX: i64 = 100;

pub(in crate::api) async fn describe_table<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let name = decode_name(service, body)?;
    let table = service.catalog().get(&name).cloned();
    let table = table.ok_or_else(|| no_table(&name))?;
    let usage = service.usage(&table).await;
    let mut members = Members::begin(out);
    let shown = Shown {
        usage,
        ..Shown::new(table.definition())
    };
    describe(members.member("Table"), service, &shown);
    members.end();
    Ok(())
}

pub(in crate::api) async fn delete_table<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let name = decode_name(service, body)?;
    let definition = service.order(|reply| Order::Delete { name, reply }).await?;
    let mut members = Members::begin(out);
    describe(
        members.member("TableDescription"),
        service,
        &Shown::new(&definition),
    );
    members.end();
    Ok(())
}

pub(in crate::api) fn list_tables<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut start, mut limit) = (None, None);
    let unsupported = decode::members(body, |member, reader| match member {
        "ExclusiveStartTableName" => decode::text(reader, &mut start),
        "Limit" => decode::integer(reader, &mut limit),
        _ => Ok(false),
    })?;
    let mut constraints = Constraints::new();
    constraints.name(start.as_deref(), "exclusiveStartTableName", NAME_BYTES_MIN);
    constraints.at_least(limit, "limit", 1);
    constraints.at_most(limit, "limit", LIST_MAX);
    constraints.finish()?;
    unsupported.check()?;

    let limit = usize::try_from(limit.unwrap_or(LIST_MAX)).expect("between 1 and 100");
    let catalog = service.catalog();
    let mut names = catalog.names_after(start.as_deref());
    let mut members = Members::begin(out);
    let mut last = None;
    let list = members.member("TableNames");
    list.push(b'[');
    for (index, name) in names.by_ref().take(limit).enumerate() {
        if index > 0 {
            list.push(b',');
        }
        write_string(list, name);
        last = Some(name);
    }
    list.push(b']');
    if let (Some(last), Some(_)) = (last, names.next()) {
        members.string("LastEvaluatedTableName", last);
    }
    members.end();
    Ok(())
}

/// A table as an answer shows it.
pub(super) struct Shown<'a> {
    pub definition: &'a TableDefinition,
    /// TableStatus.
    pub status: &'a str,
    pub usage: Usage,
    /// Indexes that are shown as `UPDATING`.
    pub updating: Vec<IndexId>,
    pub warm: WarmShown,
}

/// Warm throughput by index, the table's as that of index 0, each with its status; what is not here is not shown.
pub(super) type WarmShown = BTreeMap<IndexId, (Warm, &'static str)>;

/// All of a table's, as it stands.
pub(super) fn warm_of(definition: &TableDefinition) -> WarmShown {
    let indexes = definition.indexes.iter().filter_map(|index| {
        let warm = index.global.as_ref()?.warm(definition.billing);
        Some((index.id, (warm, "ACTIVE")))
    });
    std::iter::once((IndexId(0), (definition.warm(), "ACTIVE")))
        .chain(indexes)
        .collect()
}

impl Shown<'_> {
    /// As it stands, without what is in it.
    pub(super) fn new(definition: &TableDefinition) -> Shown<'_> {
        // An index that is being filled is no concern of its table any more.
        let is_unsettled = definition.indexes.iter().any(|index| {
            matches!(
                index.status(),
                Some(IndexStatus::Creating | IndexStatus::Deleting)
            )
        });
        Shown {
            definition,
            status: match definition.status {
                TableStatus::Active if is_unsettled => "UPDATING",
                status => status.name(),
            },
            usage: Usage::default(),
            updating: Vec::new(),
            warm: warm_of(definition),
        }
    }
}

/// Writes a TableDescription.
pub(super) fn describe<R: Runtime>(out: &mut Vec<u8>, service: &Service<R>, shown: &Shown<'_>) {
    let Shown {
        definition,
        status,
        ref usage,
        ..
    } = *shown;
    let settings = &definition.settings;
    let mut members = Members::begin(out);
    let keys: Vec<&KeyAttribute> = std::iter::once(&definition.partition_key)
        .chain(&definition.sort_key)
        .collect();
    if definition.status != TableStatus::Deleting {
        let mut attributes: Vec<&KeyAttribute> = definition.attributes.iter().collect();
        attributes.sort_unstable_by_key(|attribute| &attribute.name);
        write_pairs(
            members.member("AttributeDefinitions"),
            attributes
                .into_iter()
                .map(|key| (key.name.as_str(), "AttributeType", key.kind.name())),
        );
    }
    members.string("TableName", &definition.name);
    if definition.status != TableStatus::Deleting {
        let roles = ["HASH", "RANGE"];
        write_pairs(
            members.member("KeySchema"),
            keys.iter()
                .zip(roles)
                .map(|(key, role)| (key.name.as_str(), "KeyType", role)),
        );
    }
    members.string("TableStatus", status);
    if definition.status != TableStatus::Deleting {
        write_time(members.member("CreationDateTime"), definition.created_ms);
    }
    let now_ms = service.runtime().unix_ms();
    write_throughput(
        members.member("ProvisionedThroughput"),
        &settings.throughput,
        definition.units(),
        now_ms,
    );
    members.number("TableSizeBytes", usage.item_bytes);
    members.number("ItemCount", usage.item_count);
    members.string("TableArn", &arn(service, &definition.name));
    members.string("TableId", &definition.unique);
    let on_demand = definition.billing == Billing::OnDemand;
    if on_demand || settings.on_demand_since_ms.is_some() {
        let mut summary = Members::begin(members.member("BillingModeSummary"));
        summary.string(
            "BillingMode",
            if on_demand {
                "PAY_PER_REQUEST"
            } else {
                "PROVISIONED"
            },
        );
        if let Some(since_ms) = settings.on_demand_since_ms {
            write_time(summary.member("LastUpdateToPayPerRequestDateTime"), since_ms);
        }
        summary.end();
    }
    write_ceilings(&mut members, settings.ceilings);
    if definition.status != TableStatus::Deleting {
        write_warm(&mut members, shown, IndexId(0));
    }
    if let Some(stream) = settings.stream() {
        let mut specification = Members::begin(members.member("StreamSpecification"));
        specification.boolean("StreamEnabled", true);
        specification.string("StreamViewType", stream.view.name());
        specification.end();
    }
    // Also that of one that was disabled.
    if let Some(stream) = settings.streams.last() {
        members.string("LatestStreamLabel", &stream_label(stream));
        members.string("LatestStreamArn", &stream_arn(service, &definition.name, stream));
    }
    if let Some(class) = settings.class {
        let mut summary = Members::begin(members.member("TableClassSummary"));
        summary.string("TableClass", class.name());
        if let Some(changed_ms) = settings.class_changed_ms {
            write_time(summary.member("LastUpdateDateTime"), changed_ms);
        }
        summary.end();
    }
    if definition.status != TableStatus::Deleting {
        describe_indexes(&mut members, service, shown);
    }
    members.boolean("DeletionProtectionEnabled", settings.deletion_protection);
    members.end();
}

/// The table's ARN.
pub(in crate::api) fn arn<R: Runtime>(service: &Service<R>, name: &str) -> String {
    format!(
        "arn:aws:dynamodb:{}:{}:table/{name}",
        service.region(),
        service.account()
    )
}

/// What names a stream within its table.
pub(in crate::api) fn stream_label(stream: &StreamDefinition) -> String {
    let utc = Utc::from_unix_ms(stream.created_ms);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}",
        utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.millisecond
    )
}

/// A stream's ARN.
pub(in crate::api) fn stream_arn<R: Runtime>(
    service: &Service<R>,
    table: &str,
    stream: &StreamDefinition,
) -> String {
    format!("{}/stream/{}", arn(service, table), stream_label(stream))
}

/// Writes a time as DynamoDB does: seconds since the Unix epoch.
pub(in crate::api) fn write_time(out: &mut Vec<u8>, ms: u64) {
    out.extend_from_slice(format!("{}.{:03}", ms / 1000, ms % 1000).as_bytes());
}

/// Writes ProvisionedThroughput: read and write `units`, and what is known of their changes.
pub(super) fn write_throughput(
    out: &mut Vec<u8>,
    history: &ThroughputHistory,
    (read, write): (u64, u64),
    now_ms: u64,
) {
    let mut units = Members::begin(out);
    for (name, time) in [
        ("LastIncreaseDateTime", history.increased_ms),
        ("LastDecreaseDateTime", history.decreased_ms),
    ] {
        if let Some(ms) = time {
            write_time(units.member(name), ms);
        }
    }
    units.number("NumberOfDecreasesToday", history.decreases_today(now_ms));
    units.number("ReadCapacityUnits", read);
    units.number("WriteCapacityUnits", write);
    units.end();
}

/// Writes OnDemandThroughput, when there is any.
pub(super) fn write_ceilings(members: &mut Members<'_>, ceilings: Ceilings) {
    if ceilings.is_none() {
        return;
    }
    let mut written = Members::begin(members.member("OnDemandThroughput"));
    for (name, units) in ceilings.members() {
        if let Some(units) = units {
            written
                .member(name)
                .extend_from_slice(units.to_string().as_bytes());
        }
    }
    written.end();
}

/// Writes WarmThroughput of an index, or of the table as that of index 0, when it is shown.
pub(super) fn write_warm(members: &mut Members<'_>, shown: &Shown<'_>, index: IndexId) {
    let Some((warm, status)) = shown.warm.get(&index) else {
        return;
    };
    let mut written = Members::begin(members.member("WarmThroughput"));
    written.number("ReadUnitsPerSecond", warm.read);
    written.number("WriteUnitsPerSecond", warm.write);
    written.string("Status", status);
    written.end();
}

pub(in crate::api) fn write_pairs<'a>(
    out: &mut Vec<u8>,
    pairs: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) {
    out.push(b'[');
    for (index, (name, kind_name, kind)) in pairs.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let mut members = Members::begin(out);
        members.string("AttributeName", name);
        members.string(kind_name, kind);
        members.end();
    }
    out.push(b']');
}
