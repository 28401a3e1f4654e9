//! PutItem and DeleteItem, and what UpdateItem has in common with them.

use std::sync::Arc;

use cairn_item::json::{write_item_view, write_value};
use cairn_item::{ItemBytes, ItemError};
use cairn_runtime::Runtime;

use super::capacity::{Consumed, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, CheckedItem, Text, Unsupported};
use super::expressions::{Placeholders, Style, check_used, envelope, present};
use super::item::Members;
use super::legacy::Legacy;
use super::{ApiError, Service};
use crate::catalog::{PrimaryKey, Table};
use crate::route::{Action, Condition, Operands, Returns, Write, Written};

/// The parameters of a write of one item.
#[derive(Default)]
pub(super) struct WriteItem<'a> {
    pub table: Text<'a>,
    /// The item, or the key.
    pub item: CheckedItem,
    pub update: Text<'a>,
    pub condition: Text<'a>,
    pub placeholders: Placeholders,
    pub legacy: Legacy,
    pub return_values: Text<'a>,
    pub capacity: Text<'a>,
    pub metrics: Text<'a>,
    pub on_failure: Text<'a>,
}

pub(super) const RETURN_VALUES: [&str; 5] = ["ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"];
pub(super) const METRICS: [&str; 2] = ["SIZE", "NONE"];
pub(super) const ON_FAILURE: [&str; 2] = ["ALL_OLD", "NONE"];

/// DynamoDB's own list, with its own mistake in it.
pub(super) const RETURN_VALUES_REFUSED: &str = "Failed to satisfy constraint: Member must satisfy enum value set: \
     [ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATE_NEW, NONE]";
const RETURN_VALUES_NOT_HERE: &str = "ReturnValues can only be ALL_OLD or NONE";

impl<'a> WriteItem<'a> {
    pub(super) fn decode(
        body: &'a [u8],
        item: &str,
        updates: bool,
    ) -> Result<(WriteItem<'a>, Unsupported), ApiError> {
        let mut request = WriteItem::default();
        let mut unsupported = decode::members(body, |name, reader| match name {
            "TableName" => decode::text(reader, &mut request.table),
            "ReturnValues" => decode::text(reader, &mut request.return_values),
            "ReturnConsumedCapacity" => decode::text(reader, &mut request.capacity),
            "ReturnItemCollectionMetrics" => decode::text(reader, &mut request.metrics),
            "ReturnValuesOnConditionCheckFailure" => decode::text(reader, &mut request.on_failure),
            "ConditionExpression" => decode::text(reader, &mut request.condition),
            "UpdateExpression" if updates => decode::text(reader, &mut request.update),
            _ if name == item => decode::item(reader, &mut request.item),
            _ => Ok(request.placeholders.member(name, reader)?
                || request.legacy.write_member(name, updates, reader)?),
        })?;
        unsupported.merge(request.legacy.take_unsupported());
        Ok((request, unsupported))
    }

    /// The constraints of PutItem and DeleteItem; `item` is the path of the item or key.
    fn check(&self, item: &str, deletes: bool) -> Result<(), ApiError> {
        Constraints::table_name_given(self.table.as_deref())?;
        let mut constraints = Constraints::new();
        constraints.item_table_name(self.table.as_deref());
        constraints.required(self.item.as_ref(), item);
        self.check_capacity(&mut constraints);
        let return_values = self.return_values.as_deref();
        if return_values.is_some_and(|value| !RETURN_VALUES.contains(&value)) {
            constraints.add_text(RETURN_VALUES_REFUSED);
        }
        self.check_metrics(&mut constraints);
        self.check_on_failure(&mut constraints);
        let elsewhere = |value| RETURN_VALUES.contains(&value) && !ON_FAILURE.contains(&value);
        if deletes && self.item.is_some() && return_values.is_some_and(elsewhere) {
            constraints.add_text(RETURN_VALUES_NOT_HERE);
        }
        constraints.finish()
    }

    pub(super) fn check_capacity(&self, constraints: &mut Constraints) {
        constraints.one_of(
            self.capacity.as_deref(),
            "returnConsumedCapacity",
            &ReturnCapacity::ALLOWED,
        );
    }

    pub(super) fn check_metrics(&self, constraints: &mut Constraints) {
        constraints.one_of(self.metrics.as_deref(), "returnItemCollectionMetrics", &METRICS);
    }

    pub(super) fn check_on_failure(&self, constraints: &mut Constraints) {
        constraints.one_of(
            self.on_failure.as_deref(),
            "returnValuesOnConditionCheckFailure",
            &ON_FAILURE,
        );
    }

    /// The names and values, after the checks of the parameters with each other; none when there are no expressions.
    pub(super) fn take_operands(&mut self) -> Result<Option<Arc<Operands>>, ApiError> {
        let placeholders = std::mem::take(&mut self.placeholders);
        if self.update.is_none() && self.condition.is_none() && placeholders.none() && self.legacy.none() {
            return Ok(None);
        }
        let expressions = [
            present("UpdateExpression", &self.update),
            present("ConditionExpression", &self.condition),
        ];
        let operands = placeholders.resolve(Style::Enveloped, &expressions, &self.legacy.given())?;
        Ok(Some(Arc::new(operands)))
    }

    /// The condition, checked as far as it can be without the table.
    pub(super) fn condition<R: Runtime>(
        &self,
        service: &Service<R>,
        operands: Option<&Arc<Operands>>,
    ) -> Result<Option<Condition>, ApiError> {
        let (Some(text), Some(operands)) = (&self.condition, operands) else {
            return Ok(None);
        };
        let refuse = |error| Style::Enveloped.refuse(error);
        let parsed = service.parsed().condition(text).map_err(refuse)?;
        parsed.bind(&operands.names, &operands.values).map_err(refuse)?;
        Ok(Some(Condition::new(parsed, Arc::clone(operands))))
    }

    /// As [`WriteItem::condition`], when it is the only expression.
    fn only_condition<R: Runtime>(
        &self,
        service: &Service<R>,
        operands: Option<&Arc<Operands>>,
    ) -> Result<Option<Condition>, ApiError> {
        let condition = self.condition(service, operands)?;
        if let Some(operands) = operands {
            check_used(Style::Enveloped, operands)?;
        }
        Ok(condition)
    }

    pub(super) fn returns(&self) -> Returns {
        Returns {
            old: matches!(self.return_values.as_deref(), Some("ALL_OLD" | "UPDATED_OLD")),
            new: matches!(self.return_values.as_deref(), Some("ALL_NEW" | "UPDATED_NEW")),
            refused: self.on_failure.as_deref() == Some("ALL_OLD"),
            collection: self.wants_collection(),
        }
    }

    /// Ends the answer.
    pub(super) fn respond_capacity(&self, members: &mut Members<'_>, table: &Table, written: &Written) {
        let definition = table.definition();
        members.consumed(
            ReturnCapacity::parse(self.capacity.as_deref()),
            &definition.name,
            &Consumed::of_write(definition, written),
        );
    }

    /// What is asked for about the item collection; tables without local indexes have none.
    pub(super) fn respond_collection(
        &self,
        members: &mut Members<'_>,
        table: &Table,
        key: &PrimaryKey,
        written: &Written,
    ) {
        if self.wants_collection() && has_collections(table) {
            let metrics = members.member("ItemCollectionMetrics");
            write_collection(metrics, table, key, written.collection_bytes_max);
        }
    }

    fn wants_collection(&self) -> bool {
        self.metrics.as_deref() == Some("SIZE")
    }
}

/// Whether the items of one partition key are a collection that is accounted for.
pub(super) fn has_collections(table: &Table) -> bool {
    let indexes = &table.definition().indexes;
    indexes.iter().any(|index| index.global.is_none())
}

/// Writes the metrics of an item collection: bounds of its size. The upper one is what all collections of its partition take.
pub(super) fn write_collection(out: &mut Vec<u8>, table: &Table, key: &PrimaryKey, bytes_max: Option<u64>) {
    let mut metrics = Members::begin(out);
    let name = &table.definition().partition_key.name;
    let mut collection = Members::begin(metrics.member("ItemCollectionKey"));
    write_value(collection.member(name), &key.partition.to_value());
    collection.end();
    let gigabytes = bytes_max.unwrap_or(0).div_ceil(1 << 30).max(1);
    let range = format!("[0.0,{gigabytes}.0]");
    metrics
        .member("SizeEstimateRangeGB")
        .extend_from_slice(range.as_bytes());
    metrics.end();
}

/// Checks that a condition does not go into the key of the table or of an index.
pub(super) fn check_condition(table: &Table, condition: Option<&Condition>) -> Result<(), ApiError> {
    let Some(condition) = condition else {
        return Ok(());
    };
    condition.bound().check_key_scalar("Key", &table.key_names())?;
    for index in &table.definition().indexes {
        let names: Vec<&str> = index.key_names().collect();
        condition.bound().check_key_scalar("IndexKey", &names)?;
    }
    Ok(())
}

/// DynamoDB gives an envelope to these refusals of the values of an item that is put.
fn put_refusal(error: &ItemError) -> ApiError {
    match error {
        ItemError::StringSetEmpty
        | ItemError::NumberSetEmpty
        | ItemError::BinarySetEmpty
        | ItemError::StringSetDuplicates(_)
        | ItemError::NumberSetDuplicates
        | ItemError::BinarySetDuplicates(_)
        | ItemError::NestingTooDeep { far: false } => envelope(error),
        _ => ApiError::validation(error.to_string()),
    }
}

pub(super) async fn put_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut request, unsupported) = WriteItem::decode(body, "Item", false)?;
    request.check("item", false)?;
    let item = request.item.take().expect("required");
    // The size of an item is judged last.
    let item = match item {
        Err(error) if error != ItemError::ItemTooLarge => return Err(put_refusal(&error)),
        item => item,
    };
    let operands = request.take_operands()?;
    unsupported.check()?;
    request.legacy.check(Style::Enveloped)?;
    // What is wrong with the text alone comes before what is wrong with it and its operands.
    if let Some(text) = &request.condition {
        let parsed = service.parsed().condition(text);
        parsed.map_err(|error| Style::Enveloped.refuse(error))?;
    }
    if !matches!(request.return_values.as_deref(), None | Some("NONE" | "ALL_OLD")) {
        return Err(envelope(RETURN_VALUES_NOT_HERE));
    }
    let legacy = request.legacy.take_condition()?;
    let item = item?;
    let condition = request.only_condition(service, operands.as_ref())?.or(legacy);

    let table = service.table(request.table.as_deref().expect("required"))?;
    let key = table.key_of_item(&item)?;
    check_condition(&table, condition.as_ref())?;
    let item_bytes = u32::try_from(item.size()).expect("item sizes are limited");
    let action = Action::Put {
        item: ItemBytes::from_item(&item).into_vec(),
        item_bytes,
    };
    let write = Write {
        action,
        condition,
        returns: request.returns(),
    };
    let written = service.write(&table, &key, write).await?;
    respond(out, &request, &table, &key, &written);
    Ok(())
}

pub(super) async fn delete_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut request, unsupported) = WriteItem::decode(body, "Key", false)?;
    request.check("key", true)?;
    let key = request.item.take().expect("required");
    let operands = request.take_operands()?;
    unsupported.check()?;
    request.legacy.check(Style::Enveloped)?;
    let key = key.map_err(|error| Style::Enveloped.refuse_value(&error))?;
    let legacy = request.legacy.take_condition()?;
    let condition = request.only_condition(service, operands.as_ref())?.or(legacy);

    let table = service.table(request.table.as_deref().expect("required"))?;
    let key = table.key_from_key(key)?;
    check_condition(&table, condition.as_ref())?;
    let write = Write {
        action: Action::Delete,
        condition,
        returns: request.returns(),
    };
    let written = service.write(&table, &key, write).await?;
    respond(out, &request, &table, &key, &written);
    Ok(())
}

fn respond(out: &mut Vec<u8>, request: &WriteItem<'_>, table: &Table, key: &PrimaryKey, written: &Written) {
    let mut members = Members::begin(out);
    if let Some(old) = &written.old {
        write_item_view(members.member("Attributes"), old.view());
    }
    request.respond_capacity(&mut members, table, written);
    request.respond_collection(&mut members, table, key, written);
    members.end();
}
