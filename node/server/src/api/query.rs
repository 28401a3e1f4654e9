//! Query.

use cairn_item::Item;
use cairn_runtime::Runtime;

use super::constraints::Constraints;
use super::decode::{self, Unsupported};
use super::scan::{PageParameters, resolve_start};
use super::{ApiError, Query, Service, key_condition};
use crate::catalog::{PrimaryKey, Table};

pub(super) async fn query<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut common = PageParameters::default();
    let mut forward = None;
    let mut conditions = None;
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |name, reader| match name {
        "ScanIndexForward" => decode::boolean(reader, &mut forward),
        "KeyConditions" => key_condition::decode(reader, &mut inner, &mut conditions),
        _ => common.member(name, reader),
    })?;
    unsupported.merge(inner);
    let mut constraints = Constraints::new();
    common.constraints(&mut constraints);
    key_condition::constraints(&mut constraints, conditions.as_deref().unwrap_or_default());
    constraints.finish()?;
    if common.limit.is_some_and(|limit| limit < 1) {
        // Query words this one differently from Scan.
        return Err(ApiError::validation(
            "1 validation error detected: Value at 'Limit' failed to satisfy constraint: Member must have value \
             greater than or equal to 1",
        ));
    }
    unsupported.check()?;
    let start = common.take_start()?;
    let Some(conditions) = conditions else {
        return Err(ApiError::validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
        ));
    };
    let conditions = key_condition::check(conditions)?;
    let count_only = common.count_only()?;

    let table = service.table(common.table.as_deref().expect("required"))?;
    let start = query_start(&table, start)?;
    let (partition, condition) = key_condition::resolve(&table, &conditions)?;
    let query = Query {
        partition,
        condition,
        forward: forward.unwrap_or(true),
        start,
        limit: common.limit(),
        filter: None,
        count_only,
    };
    let page = service.query(&table, query).await?;
    common.respond(out, &table, &page, count_only);
    Ok(())
}

/// The starting key of a query: unlike Scan, it does not say what about the key's attributes is wrong.
fn query_start(table: &Table, start: Option<Item>) -> Result<Option<PrimaryKey>, ApiError> {
    let definition = table.definition();
    let wrong = start.as_ref().is_some_and(|start| {
        let keys = std::iter::once(&definition.partition_key).chain(&definition.sort_key);
        start.len() != keys.clone().count() || keys.clone().any(|key| start.get(&key.name).is_none())
    });
    if wrong {
        return Err(ApiError::validation("The provided starting key is invalid"));
    }
    resolve_start(table, start)
}
