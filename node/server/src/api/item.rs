//! GetItem, PutItem, DeleteItem.

use cairn_item::json::{write_item_view, write_string};
use cairn_item::{ItemBytes, ItemError};
use cairn_runtime::Runtime;

use super::capacity::{Capacity, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, CheckedItem, Text, Unsupported};
use super::{ApiError, Service};
use crate::route::{Action, Write};

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

    pub(super) fn number(&mut self, name: &str, value: u64) {
        self.member(name).extend_from_slice(value.to_string().as_bytes());
    }

    pub(super) fn capacity(&mut self, wanted: ReturnCapacity, table: &str, capacity: Capacity) {
        if wanted != ReturnCapacity::None {
            capacity.write_json(self.member("ConsumedCapacity"), table, wanted);
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
        _ => Ok(false),
    })?;
    let GetItem {
        table,
        key,
        consistent,
        capacity,
    } = request;

    let mut constraints = Constraints::new();
    constraints.required(key.as_ref(), "key");
    constraints.table_name(table.as_deref());
    constraints.one_of(
        capacity.as_deref(),
        "returnConsumedCapacity",
        &ReturnCapacity::ALLOWED,
    );
    constraints.finish()?;
    unsupported.check()?;
    let (table, key) = (table.expect("required"), key.expect("required")?);

    let wanted = ReturnCapacity::parse(capacity.as_deref());
    let table = service.table(&table)?;
    let key = table.key_from_key(key)?;
    let item = service.get(&table, &key).await?;

    let mut members = Members::begin(out);
    if let Some(item) = &item {
        write_item_view(members.member("Item"), item.view());
    }
    let bytes = item.as_ref().map_or(0, |item| u64::from(item.item_bytes()));
    let capacity = Capacity::of_read(bytes, consistent.unwrap_or(false));
    members.capacity(wanted, &table.definition().name, capacity);
    members.end();
    Ok(())
}

/// What PutItem and DeleteItem have in common.
#[derive(Default)]
struct WriteItem<'a> {
    table: Text<'a>,
    /// The item, or the key.
    item: CheckedItem,
    return_values: Text<'a>,
    capacity: Text<'a>,
    metrics: Text<'a>,
    on_failure: Text<'a>,
}

const RETURN_VALUES: [&str; 5] = ["ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"];

impl<'a> WriteItem<'a> {
    fn decode(body: &'a [u8], item: &str) -> Result<(WriteItem<'a>, Unsupported), ApiError> {
        let mut request = WriteItem::default();
        let unsupported = decode::members(body, |name, reader| match name {
            "TableName" => decode::text(reader, &mut request.table),
            "ReturnValues" => decode::text(reader, &mut request.return_values),
            "ReturnConsumedCapacity" => decode::text(reader, &mut request.capacity),
            "ReturnItemCollectionMetrics" => decode::text(reader, &mut request.metrics),
            "ReturnValuesOnConditionCheckFailure" => decode::text(reader, &mut request.on_failure),
            _ if name == item => decode::item(reader, &mut request.item),
            _ => Ok(false),
        })?;
        Ok((request, unsupported))
    }

    /// `item` is the path of the item or key.
    fn check(&self, item: &str) -> Result<(), ApiError> {
        let mut name = Constraints::new();
        name.table_name(self.table.as_deref());
        name.finish()?;
        let mut constraints = Constraints::new();
        constraints.required(self.item.as_ref(), item);
        constraints.one_of(
            self.capacity.as_deref(),
            "returnConsumedCapacity",
            &ReturnCapacity::ALLOWED,
        );
        constraints.one_of(self.return_values.as_deref(), "returnValues", &RETURN_VALUES);
        constraints.one_of(
            self.metrics.as_deref(),
            "returnItemCollectionMetrics",
            &["SIZE", "NONE"],
        );
        constraints.one_of(
            self.on_failure.as_deref(),
            "returnValuesOnConditionCheckFailure",
            &["ALL_OLD", "NONE"],
        );
        constraints.finish()
    }

    /// Whether the old item is wanted; on a whole item nothing else can be.
    fn return_old(&self) -> Result<bool, ApiError> {
        match self.return_values.as_deref() {
            None | Some("NONE") => Ok(false),
            Some("ALL_OLD") => Ok(true),
            Some(_) => Err(ApiError::validation("ReturnValues can only be ALL_OLD or NONE")),
        }
    }
}

/// DynamoDB wraps these refusals of PutItem the way it does constraints, and no others.
fn put_refusal(error: ItemError) -> ApiError {
    let wrapped = matches!(
        error,
        ItemError::StringSetEmpty
            | ItemError::NumberSetEmpty
            | ItemError::BinarySetEmpty
            | ItemError::StringSetDuplicates(_)
            | ItemError::NumberSetDuplicates
            | ItemError::BinarySetDuplicates(_)
    );
    if wrapped { wrap(error.into()) } else { error.into() }
}

fn wrap(mut error: ApiError) -> ApiError {
    error.message = format!("1 validation error detected: {}", error.message);
    error
}

pub(super) async fn put_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (request, unsupported) = WriteItem::decode(body, "Item")?;
    request.check("item")?;
    unsupported.check()?;
    let return_old = request.return_old().map_err(wrap);
    let item = request.item.expect("required").map_err(put_refusal)?;
    let return_old = return_old?;

    let table = service.table(&request.table.expect("required"))?;
    let key = table.key_of_item(&item)?;
    let item_bytes = u32::try_from(item.size()).expect("item sizes are limited");
    let action = Action::Put {
        item: ItemBytes::from_item(&item).into_vec(),
        item_bytes,
    };
    let written = service
        .write(
            &table,
            &key,
            Write {
                action,
                condition: None,
                return_old,
            },
        )
        .await?;

    let mut members = Members::begin(out);
    if let Some(old) = &written.old {
        write_item_view(members.member("Attributes"), old.view());
    }
    let capacity = Capacity::of_write(written.old_item_bytes.unwrap_or(0), item_bytes);
    members.capacity(
        ReturnCapacity::parse(request.capacity.as_deref()),
        &table.definition().name,
        capacity,
    );
    members.end();
    Ok(())
}

pub(super) async fn delete_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (request, unsupported) = WriteItem::decode(body, "Key")?;
    request.check("key")?;
    unsupported.check()?;
    let return_old = request.return_old();
    let key = request.item.expect("required")?;
    let return_old = return_old?;

    let table = service.table(&request.table.expect("required"))?;
    let key = table.key_from_key(key)?;
    let written = service.delete(&table, &key, None, return_old).await?;

    let mut members = Members::begin(out);
    if let Some(old) = &written.old {
        write_item_view(members.member("Attributes"), old.view());
    }
    let capacity = Capacity::of_write(written.old_item_bytes.unwrap_or(0), 0);
    members.capacity(
        ReturnCapacity::parse(request.capacity.as_deref()),
        &table.definition().name,
        capacity,
    );
    members.end();
    Ok(())
}
