//! TransactGetItems.

use std::collections::BTreeSet;
use std::sync::Arc;

use cairn_item::json::{Reader, write_item_view};
use cairn_runtime::Runtime;

use super::cancellation::{SEVERAL_OPERATIONS, TOO_LARGE};
use super::capacity::ReturnCapacity;
use super::constraints::Constraints;
use super::decode::{self, CheckedItem, Text, Unsupported};
use super::expressions::{Placeholders, Style, check_used, present};
use super::item::Members;
use super::legacy::Legacy;
use super::projection::{Projection, check_projection};
use super::transact_write::{BYTES_MAX, check_count, read_units};
use super::{ApiError, Service};
use crate::route::ItemHandle;
use crate::transact::{TransactRead, conflict};

/// A read as it stands in the request.
#[derive(Default)]
struct Asked<'a> {
    table: Text<'a>,
    key: CheckedItem,
    projection: Text<'a>,
    placeholders: Placeholders,
}

impl<'a> Asked<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<(Asked<'a>, Unsupported), ApiError> {
        let mut asked = Asked::default();
        let unsupported = decode::members_of(reader, |name, reader| match name {
            "TableName" => decode::text(reader, &mut asked.table),
            "Key" => decode::item(reader, &mut asked.key),
            "ProjectionExpression" => decode::text(reader, &mut asked.projection),
            _ => asked.placeholders.names_member(name, reader),
        })?;
        Ok((asked, unsupported))
    }
}

/// A request, its `Get`s in order.
#[derive(Default)]
struct Request<'a> {
    items: Option<Vec<Option<Asked<'a>>>>,
    capacity: Text<'a>,
}

impl<'a> Request<'a> {
    fn decode(body: &'a [u8]) -> Result<(Request<'a>, Unsupported), ApiError> {
        let mut request = Request::default();
        let mut inner = Unsupported::default();
        let mut unsupported = decode::members(body, |name, reader| match name {
            "TransactItems" => {
                let mut items = Vec::new();
                decode::list(reader, |reader| {
                    let mut get = None;
                    let mut within = Unsupported::default();
                    let other = decode::members_of(reader, |name, reader| {
                        if name != "Get" {
                            return Ok(false);
                        }
                        let (asked, other) = Asked::decode(reader)?;
                        within.merge(other);
                        get = Some(asked);
                        Ok(true)
                    })?;
                    inner.merge(within);
                    inner.merge(other);
                    items.push(get);
                    Ok(())
                })?;
                request.items = Some(items);
                Ok(true)
            }
            "ReturnConsumedCapacity" => decode::text(reader, &mut request.capacity),
            _ => Ok(false),
        })?;
        unsupported.merge(inner);
        Ok((request, unsupported))
    }

    fn check(&self) -> Result<(), ApiError> {
        let mut constraints = Constraints::new();
        check_count(&mut constraints, "transactItems", self.items.as_deref());
        constraints.finish()?;
        let items = self.items.as_deref().expect("required");
        let mut constraints = Constraints::new();
        for (place, get) in items.iter().enumerate() {
            let path = format!("transactItems.{}.member.get", place + 1);
            match get {
                None => constraints.missing(&path),
                Some(asked) => {
                    constraints.required(asked.key.as_ref(), &format!("{path}.key"));
                    constraints.required(asked.table.as_ref(), &format!("{path}.tableName"));
                }
            }
        }
        constraints.finish()?;
        let mut constraints = Constraints::new();
        constraints.one_of(
            self.capacity.as_deref(),
            "returnConsumedCapacity",
            &ReturnCapacity::ALLOWED,
        );
        constraints.finish()?;
        let mut constraints = Constraints::new();
        for (place, asked) in items.iter().flatten().enumerate() {
            let path = format!("transactItems.{}.member.get.tableName", place + 1);
            constraints.name_or_arn(asked.table.as_deref(), &path, 1);
        }
        constraints.finish()
    }
}

pub(super) async fn transact_get_items<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (request, unsupported) = Request::decode(body)?;
    request.check()?;
    unsupported.check()?;
    let mut gets = Vec::new();
    for asked in request.items.expect("required").into_iter().flatten() {
        let key = asked.key.expect("required")?;
        let mut projection = None;
        if asked.projection.is_some() || !asked.placeholders.none() {
            let expressions = [present("ProjectionExpression", &asked.projection)];
            let operands = Arc::new(asked.placeholders.resolve(Style::Bare, &expressions, &[])?);
            let legacy = Legacy::default();
            projection = Projection::of(service, asked.projection.as_deref(), &legacy, &operands)?;
            check_used(Style::Bare, &operands)?;
        }
        gets.push((asked.table.expect("required"), key, projection));
    }

    let mut tables = Vec::with_capacity(gets.len());
    let mut keys = Vec::with_capacity(gets.len());
    let mut reasons = Vec::with_capacity(gets.len());
    let mut projections = Vec::with_capacity(gets.len());
    for (name, key, projection) in gets {
        let table = service.table(&name)?;
        check_projection(&table, projection.as_ref())?;
        match table.key_from_key(key) {
            Ok(key) => {
                keys.push(key);
                reasons.push(None);
            }
            Err(error) => reasons.push(Some(error)),
        }
        tables.push(table);
        projections.push(projection);
    }
    if reasons.iter().any(Option::is_some) {
        return Err(service.cancelled(&reasons));
    }
    let mut seen = BTreeSet::new();
    for (table, key) in tables.iter().zip(&keys) {
        if !seen.insert((table.definition().id, key)) {
            return Err(ApiError::validation(SEVERAL_OPERATIONS));
        }
    }
    let items = match service.transact_read(&tables, &keys).await? {
        TransactRead::Items(items) => items,
        TransactRead::Conflicts(conflicts) => {
            let reasons: Vec<Option<ApiError>> = conflicts
                .into_iter()
                .map(|conflicts| conflicts.then(conflict))
                .collect();
            return Err(service.cancelled(&reasons));
        }
    };
    let sizes: Vec<u32> = items
        .iter()
        .map(|item| item.as_ref().map_or(0, ItemHandle::item_bytes))
        .collect();
    if sizes.iter().map(|bytes| u64::from(*bytes)).sum::<u64>() > BYTES_MAX as u64 {
        return Err(ApiError::validation(TOO_LARGE));
    }
    let mut members = Members::begin(out);
    let wanted = ReturnCapacity::parse(request.capacity.as_deref());
    read_units(&mut members, wanted, &tables, &sizes);
    let list = members.member("Responses");
    list.push(b'[');
    for (place, (item, projection)) in items.iter().zip(&projections).enumerate() {
        if place > 0 {
            list.push(b',');
        }
        let mut response = Members::begin(list);
        if let Some(item) = item {
            let out = response.member("Item");
            match projection {
                Some(projection) => projection.bound().write_json(out, item.view()),
                None => write_item_view(out, item.view()),
            }
        }
        response.end();
    }
    list.push(b']');
    members.end();
    Ok(())
}
