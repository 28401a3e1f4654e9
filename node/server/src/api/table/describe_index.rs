//! Secondary indexes in the description of a table.

use cairn_item::json::write_string;
use cairn_runtime::Runtime;

use super::super::Service;
use super::super::item::Members;
use super::describe::{Shown, arn, write_ceilings, write_pairs, write_throughput, write_warm};
use crate::catalog::{Billing, IndexDefinition, IndexProjection, IndexStatus, KeyAttribute, TableStatus};

/// Writes the members of a TableDescription that are about indexes.
pub(super) fn describe_indexes<R: Runtime>(
    members: &mut Members<'_>,
    service: &Service<R>,
    shown: &Shown<'_>,
) {
    for (list, global) in [("LocalSecondaryIndexes", false), ("GlobalSecondaryIndexes", true)] {
        let mut indexes = shown
            .definition
            .indexes
            .iter()
            .filter(|index| index.global.is_some() == global)
            .peekable();
        if indexes.peek().is_none() {
            continue;
        }
        let out = members.member(list);
        out.push(b'[');
        for (place, index) in indexes.enumerate() {
            if place > 0 {
                out.push(b',');
            }
            describe_index(out, service, shown, index);
        }
        out.push(b']');
    }
}

fn describe_index<R: Runtime>(
    out: &mut Vec<u8>,
    service: &Service<R>,
    shown: &Shown<'_>,
    index: &IndexDefinition,
) {
    let table = shown.definition;
    let mut members = Members::begin(out);
    members.string("IndexName", &index.name);
    let role = |keys: &'static str| move |key: &KeyAttribute| (key.name.clone(), keys);
    let hash = index.partition_key.iter().map(role("HASH"));
    let range = index.sort_key.iter().map(role("RANGE"));
    let keys: Vec<(String, &str)> = hash.chain(range).collect();
    write_pairs(
        members.member("KeySchema"),
        keys.iter().map(|(name, role)| (name.as_str(), "KeyType", *role)),
    );
    let mut projection = Members::begin(members.member("Projection"));
    projection.string("ProjectionType", index.projection.name());
    if let IndexProjection::Include(include) = &index.projection {
        let list = projection.member("NonKeyAttributes");
        list.push(b'[');
        let mut include: Vec<&String> = include.iter().collect();
        include.sort_unstable();
        for (place, name) in include.into_iter().enumerate() {
            if place > 0 {
                list.push(b',');
            }
            write_string(list, name);
        }
        list.push(b']');
    }
    projection.end();
    if let Some(global) = &index.global {
        // With its table an index comes into being and goes.
        let status = match table.status {
            TableStatus::Active if shown.updating.contains(&index.id) => "UPDATING",
            TableStatus::Active => global.status.described(),
            status => status.name(),
        };
        members.string("IndexStatus", status);
        match global.status {
            IndexStatus::Creating => members.boolean("Backfilling", false),
            IndexStatus::Backfilling => members.boolean("Backfilling", true),
            IndexStatus::Active | IndexStatus::Deleting => {}
        }
        let units = match table.billing {
            Billing::OnDemand => (0, 0),
            Billing::Provisioned { .. } => global.units,
        };
        let now_ms = service.runtime().unix_ms();
        write_throughput(
            members.member("ProvisionedThroughput"),
            &global.throughput,
            units,
            now_ms,
        );
        write_ceilings(&mut members, global.ceilings);
        write_warm(&mut members, shown, index.id);
    }
    let (item_count, item_bytes) = shown.usage.indexes.get(&index.id).copied().unwrap_or_default();
    members.number("IndexSizeBytes", item_bytes);
    members.number("ItemCount", item_count);
    let arn = format!("{}/index/{}", arn(service, &table.name), index.name);
    members.string("IndexArn", &arn);
    members.end();
}
