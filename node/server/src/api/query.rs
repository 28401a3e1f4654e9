//! Query.

use std::sync::Arc;

use cairn_runtime::Runtime;

use super::constraints::Constraints;
use super::decode::{self, Text, Unsupported};
use super::expressions::{Style, check_used, present};
use super::index::{
    IndexConditions, IndexRead, IndexStart, check_consistency, check_scalars, fetches, index_of,
};
use super::scan::{PageParameters, resolve_start};
use super::{ApiError, Query, Service, key_condition};
use crate::route::Filter;

pub(super) async fn query<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut common = PageParameters::default();
    let mut forward = None;
    let mut conditions = None;
    let mut expression: Text<'_> = None;
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |name, reader| match name {
        "ScanIndexForward" => decode::boolean(reader, &mut forward),
        "KeyConditions" => key_condition::decode(reader, &mut inner, &mut conditions),
        "KeyConditionExpression" => decode::text(reader, &mut expression),
        _ => common.member(name, "QueryFilter", reader),
    })?;
    unsupported.merge(inner);
    unsupported.merge(common.legacy.take_unsupported());
    check(&common, conditions.as_deref().unwrap_or_default())?;
    unsupported.check()?;
    let expressions = [
        present("ProjectionExpression", &common.projection),
        present("FilterExpression", &common.filter),
        present("KeyConditionExpression", &expression),
    ];
    let mut others = common.legacy.given().to_vec();
    others.push(("KeyConditions", conditions.is_some()));
    let placeholders = std::mem::take(&mut common.placeholders);
    let operands = Arc::new(placeholders.resolve(Style::Bare, &expressions, &others)?);
    let mut constraints = Constraints::new();
    common.check_select(&mut constraints);
    constraints.finish()?;
    common.legacy.check(Style::Bare)?;
    let start = common.take_start()?;
    // What expressions say is found without the table; what a table makes of it comes after the table.
    let legacy_filter = common.filter.is_none();
    let filter = common.filter(service, &operands)?;
    let projection = common.projection(service, &operands)?;
    common.check_select_use()?;
    let parsed = expression
        .as_deref()
        .map(|text| service.parsed().key_condition(text))
        .transpose()?;
    let clauses = parsed
        .as_ref()
        .map(|parsed| parsed.bind(&operands.names, &operands.values))
        .transpose()?;
    check_used(Style::Bare, &operands)?;
    let conditions = match (&clauses, conditions) {
        (Some(_), _) => Vec::new(),
        (None, Some(conditions)) => key_condition::check(conditions)?,
        (None, None) => {
            return Err(ApiError::validation(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
            ));
        }
    };

    let table = service.table(common.table.as_deref().expect("required"))?;
    if let Some(name) = common.index.as_deref() {
        let index = index_of(&table, name)?;
        check_consistency(index, common.consistent.unwrap_or(false))?;
        let start = start.map(|start| IndexStart::of(&table, index, &start, false));
        let start = start.transpose()?;
        let conditions = match clauses {
            Some(clauses) => IndexConditions::of_expression(index, &clauses)?,
            None => IndexConditions::of_legacy(index, &conditions)?,
        };
        if let Some(filter) = &filter {
            let names: Vec<&str> = index.key_names().collect();
            check_not_on_key(&names, filter, legacy_filter)?;
        }
        check_scalars(&table, filter.as_ref(), projection.as_ref())?;
        let fetch = fetches(
            table.definition(),
            index,
            common.select.as_deref(),
            filter.as_ref(),
            projection.as_ref(),
        )?;
        let read = IndexRead {
            start,
            limit: common.limit(),
            filter,
            count_only: common.count_only(),
            fetch,
        };
        let forward = forward.unwrap_or(true);
        let page = service
            .query_index(&table, index, &conditions, forward, read)
            .await?;
        common.respond(out, &table, Some(index), &page, projection.as_ref());
        return Ok(());
    }
    let start = resolve_start(&table, start)?;
    check_scalars(&table, filter.as_ref(), projection.as_ref())?;
    let (partition, condition) = match clauses {
        Some(clauses) => key_condition::of_expression(&table, &clauses)?,
        None => {
            let definition = table.definition();
            let partition_key = std::slice::from_ref(&definition.partition_key);
            key_condition::resolve(partition_key, definition.sort_key.as_slice(), &conditions)?
        }
    };
    if let Some(filter) = &filter {
        check_not_on_key(&table.key_names(), filter, legacy_filter)?;
    }
    let query = Query {
        partition,
        condition,
        forward: forward.unwrap_or(true),
        start,
        limit: common.limit(),
        filter,
        count_only: common.count_only(),
    };
    let page = service.query(&table, query).await?;
    common.respond(out, &table, None, &page, projection.as_ref());
    Ok(())
}

/// A filter looks at items after the key has chosen them, so it is not about the key.
fn check_not_on_key(key: &[&str], filter: &Filter, legacy: bool) -> Result<(), ApiError> {
    let filter = filter.bound();
    if !legacy {
        return Ok(filter.check_not_on_key(key)?);
    }
    match key
        .iter()
        .find(|name| filter.attributes().any(|other| other == **name))
    {
        Some(name) => Err(ApiError::validation(format!(
            "QueryFilter can only contain non-primary key attributes: Primary key attribute: {name}"
        ))),
        None => Ok(()),
    }
}

/// The constraints of a Query. Without a table's name it is judged by an older layer, which reports all of them together.
fn check(common: &PageParameters<'_>, conditions: &[key_condition::Written]) -> Result<(), ApiError> {
    let mut constraints = Constraints::new();
    if common.table.is_none() {
        common.check_select(&mut constraints);
        common.check_capacity(&mut constraints);
        constraints.missing("tableName");
        key_condition::constraints(&mut constraints, "keyConditions", conditions);
        constraints.at_least(common.limit, "limit", 1);
        return constraints.finish();
    }
    constraints.within(common.limit, "Limit", 1, i64::MAX);
    constraints.no_empty_table_name(common.table.as_deref());
    constraints.finish()?;
    let mut constraints = Constraints::new();
    constraints.item_table_name(common.table.as_deref());
    common.check_capacity(&mut constraints);
    key_condition::constraints(&mut constraints, "keyConditions", conditions);
    common.legacy.constraints(&mut constraints, "queryFilter");
    constraints.finish()
}
