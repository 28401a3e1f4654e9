//! Query.

use cairn_item::{KeyCondition, KeyValue};
use cairn_runtime::Runtime;

use super::constraints::Constraints;
use super::decode::{self, Text};
use super::scan::{PageParameters, resolve_start};
use super::{ApiError, Query, Service};
use crate::catalog::Table;

pub(super) async fn query<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut common = PageParameters::default();
    let mut forward = None;
    let mut condition: Text<'_> = None;
    let unsupported = decode::members(body, |name, reader| match name {
        "ScanIndexForward" => decode::boolean(reader, &mut forward),
        "KeyConditionExpression" => decode::text(reader, &mut condition),
        _ => common.member(name, reader),
    })?;
    let mut constraints = Constraints::new();
    common.constraints(&mut constraints);
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
    let Some(condition) = condition else {
        return Err(ApiError::validation(
            "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
        ));
    };
    let count_only = common.count_only()?;

    let table = service.table(common.table.as_deref().expect("required"))?;
    let (partition, condition) = key_condition(&table, &condition)?;
    let start = resolve_start(&table, start)?;
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

/// The partition key and the condition on the sort key that an expression says.
fn key_condition(table: &Table, expression: &str) -> Result<(KeyValue, KeyCondition), ApiError> {
    let _ = (table, expression);
    Err(ApiError::unsupported("KeyConditionExpression"))
}
