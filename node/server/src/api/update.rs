//! UpdateItem.

use std::sync::Arc;

use cairn_item::json::write_item_view;
use cairn_item::{ITEM_BYTES_MAX, ItemError, ItemView};
use cairn_runtime::Runtime;

use super::constraints::Constraints;
use super::expressions::{Style, check_used, envelope};
use super::item::Members;
use super::write::{RETURN_VALUES, RETURN_VALUES_REFUSED, WriteItem, check_condition};
use super::{ApiError, Service};
use crate::catalog::Table;
use crate::route::{Action, Operands, Update, UpdateParts, Write};

/// UpdateItem reports one wrong value at a time, not all constraints together, once it has a table's name and a key.
fn check(request: &WriteItem<'_>) -> Result<(), ApiError> {
    let table = request.table.as_deref();
    Constraints::table_name_given(table)?;
    let return_values = request.return_values.as_deref();
    let unknown = return_values.filter(|value| !RETURN_VALUES.contains(value));
    let mut constraints = Constraints::new();
    if request.item.is_none() {
        request.check_capacity(&mut constraints);
        constraints.required(table.as_ref(), "tableName");
        constraints.one_of(return_values, "returnValues", &RETURN_VALUES);
        request.check_on_failure(&mut constraints);
        request.check_metrics(&mut constraints);
        constraints.missing("key");
        return constraints.finish();
    }
    if table.is_none() {
        constraints.missing("tableName");
        constraints.one_of(return_values, "returnValues", &RETURN_VALUES);
        return constraints.finish();
    }
    constraints.whole_table_name(table);
    constraints.finish()?;
    if unknown.is_some() {
        return Err(envelope(RETURN_VALUES_REFUSED));
    }
    let mut constraints = Constraints::new();
    request.check_on_failure(&mut constraints);
    constraints.finish_bare()?;
    let mut constraints = Constraints::new();
    request.check_metrics(&mut constraints);
    constraints.finish()?;
    let mut constraints = Constraints::new();
    request.check_capacity(&mut constraints);
    constraints.finish_bare()
}

/// The expression, checked as far as it can be without the table.
fn update_of<R: Runtime>(
    service: &Service<R>,
    request: &WriteItem<'_>,
    operands: Option<&Arc<Operands>>,
) -> Result<Option<UpdateParts>, ApiError> {
    let (Some(text), Some(operands)) = (&request.update, operands) else {
        return Ok(None);
    };
    let refuse = |error| Style::Enveloped.refuse(error);
    let parsed = service.parsed().update(text).map_err(refuse)?;
    parsed.bind(&operands.names, &operands.values).map_err(refuse)?;
    Ok(Some((parsed, Arc::clone(operands))))
}

pub(super) async fn update_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut request, unsupported) = WriteItem::decode(body, "Key", true)?;
    check(&request)?;
    let operands = request.take_operands()?;
    unsupported.check()?;
    request.legacy.check(Style::Enveloped)?;
    let key = request.item.take().expect("required");
    let key = key.map_err(|error| Style::Enveloped.refuse_value(&error))?;
    let legacy_update = request.legacy.take_update()?;
    let legacy_condition = request.legacy.take_condition()?;
    // Of two expressions that are empty the condition is reported, else what is wrong with the update comes first.
    if request.condition.as_deref() == Some("") {
        request.condition(service, operands.as_ref())?;
    }
    let expression = update_of(service, &request, operands.as_ref())?;
    let condition = request.condition(service, operands.as_ref())?;
    if let Some(operands) = &operands {
        check_used(Style::Enveloped, operands)?;
    }

    let condition = condition.or(legacy_condition);
    let table = service.table(request.table.as_deref().expect("required"))?;
    let primary = table.key_of_key(&key)?;
    check_condition(&table, condition.as_ref())?;
    // Only an expression is charged for what it says.
    let charged = expression.is_some();
    let mut update = Update::new(expression.or(legacy_update), key);
    check_update(&table, &mut update, charged)?;
    let returns = request.returns();
    // The expression stays here for the answer; what is sent shares its parts.
    let write = Write {
        action: Action::Update(Box::new(update.clone())),
        condition,
        returns,
    };
    let written = service.write(&table, &primary, write).await?;

    let mut members = Members::begin(out);
    let whole = !matches!(
        request.return_values.as_deref(),
        Some("UPDATED_OLD" | "UPDATED_NEW")
    );
    if let Some(item) = written.old.as_ref().or(written.new.as_ref()) {
        write_attributes(&mut members, &update, item.view(), whole);
    }
    request.respond_capacity(&mut members, &table, &written);
    request.respond_collection(&mut members, &table, &primary, &written);
    members.end();
    Ok(())
}

/// What an update says of the table's key, and how large it is.
pub(super) fn check_update(table: &Table, update: &mut Update, charged: bool) -> Result<(), ApiError> {
    let names = table.key_names();
    let Some(bound) = update.bound() else {
        return Ok(());
    };
    let refused = bound
        .attributes()
        .find(|name| names.contains(name))
        .map(str::to_owned);
    if refused.is_none() {
        bound.check_key_scalar("Key", &names)?;
        for index in &table.definition().indexes {
            let names: Vec<&str> = index.key_names().collect();
            bound.check_key_scalar("IndexKey", &names)?;
        }
    }
    if charged && bound.request_bytes() > ITEM_BYTES_MAX {
        return Err(ItemError::UpdatedItemTooLarge.into());
    }
    drop(bound);
    update.refuse(refused);
    Ok(())
}

/// Writes the item, or the parts of it that the update is about, if there are any.
fn write_attributes(members: &mut Members<'_>, update: &Update, item: ItemView<'_>, whole: bool) {
    if whole {
        write_item_view(members.member("Attributes"), item);
    } else if let Some(bound) = update.bound()
        && !bound.updated(item).is_empty()
    {
        bound.write_updated_json(members.member("Attributes"), item);
    }
}
