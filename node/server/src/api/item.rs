//! GetItem, and writing answers.

use std::sync::Arc;

use cairn_item::json::{write_item_view, write_string};
use cairn_runtime::Runtime;

use super::capacity::{Capacity, Consumed, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, CheckedItem, Text};
use super::expressions::{Placeholders, Style, check_used, present};
use super::legacy::Legacy;
use super::projection::{Projection, check_projection};
use super::{ApiError, Service};

/// Writes the members of a response object, with the commas between them.
pub(super) struct Members<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Members<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Members<'a> {
        out.push(b'{');
        Members { out, empty: true }
    }

    /// Writes the name; the caller writes the value.
    pub(super) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    pub(super) fn string(&mut self, name: &str, value: &str) {
        write_string(self.member(name), value);
    }

    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        let text: &[u8] = if value { b"true" } else { b"false" };
        self.member(name).extend_from_slice(text);
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.member(name).extend_from_slice(value.to_string().as_bytes());
    }

    /// Members after the first one, written elsewhere with the commas before them.
    pub(super) fn raw(&mut self, members: &[u8]) {
        assert!(
            !self.empty || members.is_empty(),
            "a comma needs a member before it"
        );
        self.out.extend_from_slice(members);
    }

    pub(super) fn capacity(&mut self, wanted: ReturnCapacity, table: &str, capacity: Capacity) {
        if wanted != ReturnCapacity::None {
            capacity.write_json(self.member("ConsumedCapacity"), table, wanted);
        }
    }

    pub(super) fn consumed(&mut self, wanted: ReturnCapacity, table: &str, consumed: &Consumed<'_>) {
        if wanted != ReturnCapacity::None {
            consumed.write_json(self.member("ConsumedCapacity"), table, wanted);
        }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }
}

#[derive(Default)]
struct GetItem<'a> {
    table: Text<'a>,
    key: CheckedItem,
    consistent: Option<bool>,
    capacity: Text<'a>,
    projection: Text<'a>,
    placeholders: Placeholders,
    legacy: Legacy,
}

pub(super) async fn get_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut request = GetItem::default();
    let unsupported = decode::members(body, |name, reader| match name {
        "TableName" => decode::text(reader, &mut request.table),
        "Key" => decode::item(reader, &mut request.key),
        "ConsistentRead" => decode::boolean(reader, &mut request.consistent),
        "ReturnConsumedCapacity" => decode::text(reader, &mut request.capacity),
        "ProjectionExpression" => decode::text(reader, &mut request.projection),
        _ => Ok(request.placeholders.names_member(name, reader)? || request.legacy.get_member(name, reader)?),
    })?;
    let GetItem {
        table,
        key,
        consistent,
        capacity,
        projection,
        placeholders,
        legacy,
    } = request;

    Constraints::table_name_given(table.as_deref())?;
    let mut constraints = Constraints::new();
    constraints.required(key.as_ref(), "key");
    constraints.item_table_name(table.as_deref());
    constraints.one_of(
        capacity.as_deref(),
        "returnConsumedCapacity",
        &ReturnCapacity::ALLOWED,
    );
    legacy.constraints(&mut constraints, "");
    constraints.finish()?;
    unsupported.check()?;
    let mut operands = None;
    if projection.is_some() || !placeholders.none() || !legacy.none() {
        let expressions = [present("ProjectionExpression", &projection)];
        operands = Some(Arc::new(placeholders.resolve(
            Style::Bare,
            &expressions,
            &legacy.given(),
        )?));
    }
    legacy.check(Style::Bare)?;
    let (table, key) = (table.expect("required"), key.expect("required")?);

    let wanted = ReturnCapacity::parse(capacity.as_deref());
    let table = service.table(&table)?;
    let key = table.key_from_key(key)?;
    let mut chosen = None;
    if let Some(operands) = &operands {
        chosen = Projection::of(service, projection.as_deref(), &legacy, operands)?;
        check_used(Style::Bare, operands)?;
    }
    check_projection(&table, chosen.as_ref())?;
    let item = service.get(&table, &key).await?;

    let mut members = Members::begin(out);
    if let Some(item) = &item {
        let out = members.member("Item");
        match &chosen {
            Some(chosen) => chosen.bound().write_json(out, item.view()),
            None => write_item_view(out, item.view()),
        }
    }
    let bytes = item.as_ref().map_or(0, |item| u64::from(item.item_bytes()));
    let capacity = Capacity::of_read(bytes, consistent.unwrap_or(false));
    members.capacity(wanted, &table.definition().name, capacity);
    members.end();
    Ok(())
}
