//! Query.

use cairn_expression::KeyCondition;
use cairn_item::Item;
use cairn_runtime::Runtime;

use super::constraints::Constraints;
use super::decode::{self, Text, Unsupported};
use super::expressions::{Placeholders, check_not_mixed};
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
    let mut expression: Text<'_> = None;
    let mut placeholders = Placeholders::default();
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |name, reader| match name {
        "ScanIndexForward" => decode::boolean(reader, &mut forward),
        "KeyConditions" => key_condition::decode(reader, &mut inner, &mut conditions),
        "KeyConditionExpression" => decode::text(reader, &mut expression),
        _ => Ok(placeholders.member(name, reader)? || common.member(name, reader)?),
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
    if expression.is_some() && conditions.is_some() {
        check_not_mixed(&["KeyConditionExpression"], &["KeyConditions"])?;
    }
    let valued = [
        ("FilterExpression", &None),
        ("KeyConditionExpression", &expression),
    ];
    let (names, values) = placeholders.resolve(expression.is_some(), &valued)?;
    let start = common.take_start()?;
    // What an expression says is found without the table; what a table makes of it comes after the table.
    let parsed = expression.as_deref().map(KeyCondition::parse).transpose()?;
    let clauses = parsed
        .as_ref()
        .map(|parsed| parsed.bind(&names, &values))
        .transpose()?;
    names.check_used()?;
    values.check_used()?;
    let conditions = match (&clauses, conditions) {
        (Some(_), _) => Vec::new(),
        (None, Some(conditions)) => key_condition::check(conditions)?,
        (None, None) => {
            return Err(ApiError::validation(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
            ));
        }
    };
    let count_only = common.count_only()?;

    let table = service.table(common.table.as_deref().expect("required"))?;
    let start = query_start(&table, start)?;
    let (partition, condition) = match clauses {
        Some(clauses) => key_condition::of_expression(&table, &clauses)?,
        None => key_condition::resolve(&table, &conditions)?,
    };
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
