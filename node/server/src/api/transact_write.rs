//! TransactWriteItems.
//!
//! The order of the checks: the number of items; the constraints of all members; one action for each item; the names of the
//! tables; item after item its values and expressions; then the tables; no item twice; the sizes. What is found against a
//! table's schema is a reason of the cancellation, as is what the items say to it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use cairn_item::json::Reader;
use cairn_item::{Item, ItemBytes, Value};
use cairn_runtime::Runtime;

use super::cancellation::{ITEMS_MAX, SEVERAL_OPERATIONS, TOO_LARGE};
use super::capacity::{Capacity, Consumed, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, CheckedItem, Text, Unsupported};
use super::error::check_archive;
use super::expressions::{Placeholders, Style, check_used, present};
use super::item::Members;
use super::update::check_update;
use super::write::{METRICS, ON_FAILURE, check_condition, has_collections, write_collection};
use super::{ApiError, Service};
use crate::catalog::{KeyAttribute, PrimaryKey, Table};
use crate::index::effects::check_keys;
use crate::route::{Action, Condition, Returns, Update, UpdateParts, Write, stored_view};
use crate::transact::{Changed, Token, Transacted};

/// Sizes of the items of one transaction, summed.
pub(super) const BYTES_MAX: usize = 4 << 20;
/// Longest token in bytes.
const TOKEN_BYTES_MAX: usize = 36;

/// What is done with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    Update,
    Delete,
    Check,
}

impl Kind {
    fn of_member(name: &str) -> Option<Kind> {
        match name {
            "Put" => Some(Kind::Put),
            "Update" => Some(Kind::Update),
            "Delete" => Some(Kind::Delete),
            "ConditionCheck" => Some(Kind::Check),
            _ => None,
        }
    }

    /// As constraints name it.
    fn path(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Update => "update",
            Kind::Delete => "delete",
            Kind::Check => "conditionCheck",
        }
    }
}

/// An action as it stands in the request.
struct Asked<'a> {
    kind: Kind,
    table: Text<'a>,
    /// The item, or its key.
    item: CheckedItem,
    update: Text<'a>,
    condition: Text<'a>,
    placeholders: Placeholders,
    on_failure: Text<'a>,
}

impl<'a> Asked<'a> {
    fn decode(kind: Kind, reader: &mut Reader<'a>) -> Result<(Asked<'a>, Unsupported), ApiError> {
        let mut asked = Asked {
            kind,
            table: None,
            item: None,
            update: None,
            condition: None,
            placeholders: Placeholders::default(),
            on_failure: None,
        };
        let item = if kind == Kind::Put { "Item" } else { "Key" };
        let unsupported = decode::members_of(reader, |name, reader| match name {
            "TableName" => decode::text(reader, &mut asked.table),
            "ConditionExpression" => decode::text(reader, &mut asked.condition),
            "UpdateExpression" if kind == Kind::Update => decode::text(reader, &mut asked.update),
            "ReturnValuesOnConditionCheckFailure" => decode::text(reader, &mut asked.on_failure),
            _ if name == item => decode::item(reader, &mut asked.item),
            _ => asked.placeholders.member(name, reader),
        })?;
        Ok((asked, unsupported))
    }

    fn check_members(&self, path: &str, constraints: &mut Constraints) {
        let path = format!("{path}.{}.", self.kind.path());
        let item = if self.kind == Kind::Put { "item" } else { "key" };
        constraints.required(self.item.as_ref(), &format!("{path}{item}"));
        constraints.required(self.table.as_ref(), &format!("{path}tableName"));
        if self.kind == Kind::Update {
            constraints.required(self.update.as_ref(), &format!("{path}updateExpression"));
        }
        if self.kind == Kind::Check {
            constraints.required(self.condition.as_ref(), &format!("{path}conditionExpression"));
        }
        let on_failure = format!("{path}returnValuesOnConditionCheckFailure");
        constraints.one_of(self.on_failure.as_deref(), &on_failure, &ON_FAILURE);
    }

    /// Appends what makes it the same as another.
    fn fingerprint(&self, item: &Item, out: &mut Vec<u8>) {
        let mut part = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        part(self.kind.path().as_bytes());
        part(&cairn_item::archive(item));
        for text in [&self.table, &self.update, &self.condition, &self.on_failure] {
            part(text.as_deref().unwrap_or_default().as_bytes());
        }
        let mut placeholders = Vec::new();
        self.placeholders.fingerprint(&mut placeholders);
        part(&placeholders);
    }

    /// Checks what needs no table.
    fn check<R: Runtime>(mut self, service: &Service<R>, digest: &mut Vec<u8>) -> Result<Checked, ApiError> {
        let item = self.item.take().expect("required")?;
        self.fingerprint(&item, digest);
        let (mut condition, mut update) = (None, None);
        if self.condition.is_some() || self.update.is_some() {
            let expressions = [
                present("UpdateExpression", &self.update),
                present("ConditionExpression", &self.condition),
            ];
            let placeholders = std::mem::take(&mut self.placeholders);
            let operands = Arc::new(placeholders.resolve(Style::Bare, &expressions, &[])?);
            if let Some(text) = &self.update {
                let parsed = service.parsed().update(text)?;
                parsed.bind(&operands.names, &operands.values)?;
                update = Some((parsed, Arc::clone(&operands)));
            }
            if let Some(text) = &self.condition {
                let parsed = service.parsed().condition(text)?;
                parsed.bind(&operands.names, &operands.values)?;
                condition = Some(Condition::new(parsed, Arc::clone(&operands)));
            }
            check_used(Style::Bare, &operands)?;
        }
        Ok(Checked {
            kind: self.kind,
            table: self.table.expect("required").into_owned(),
            item,
            update,
            condition,
            returns_refused: self.on_failure.as_deref() == Some("ALL_OLD"),
        })
    }
}

/// An action that is right as far as it can be told without its table.
struct Checked {
    kind: Kind,
    table: String,
    item: Item,
    update: Option<UpdateParts>,
    condition: Option<Condition>,
    returns_refused: bool,
}

impl Checked {
    fn key(&self, table: &Table) -> Result<PrimaryKey, ApiError> {
        match self.kind {
            Kind::Put => table.key_of_item(&self.item),
            _ => table.key_of_key(&self.item),
        }
    }

    /// What the partition is asked to do.
    fn write(self, table: &Table) -> Result<Write, ApiError> {
        check_condition(table, self.condition.as_ref())?;
        let action = match self.kind {
            Kind::Put => {
                let item_bytes = u32::try_from(self.item.size()).expect("item sizes are limited");
                let item = ItemBytes::from_item(&self.item).into_vec();
                check_archive(&item)?;
                check_keys(table.definition(), None, stored_view(&item))?;
                Action::Put { item, item_bytes }
            }
            Kind::Update => {
                let mut update = Update::new(self.update, self.item);
                check_update(table, &mut update, true)?;
                Action::Update(Box::new(update))
            }
            Kind::Delete => Action::Delete,
            Kind::Check => Action::Check,
        };
        Ok(Write {
            action,
            condition: self.condition,
            returns: Returns {
                refused: self.returns_refused,
                ..Returns::default()
            },
        })
    }
}

/// Whether a key attribute is empty, which is told before anything else about keys.
fn has_empty_key(table: &Table, item: &Item) -> bool {
    let definition = table.definition();
    let is_empty = |key: &KeyAttribute| match item.get(&key.name) {
        Some(Value::S(text)) => text.is_empty(),
        Some(Value::B(bytes)) => bytes.is_empty(),
        _ => false,
    };
    std::iter::once(&definition.partition_key)
        .chain(&definition.sort_key)
        .any(is_empty)
}

/// The parameters of a request.
#[derive(Default)]
struct Request<'a> {
    items: Option<Vec<Vec<Asked<'a>>>>,
    token: Text<'a>,
    capacity: Text<'a>,
    metrics: Text<'a>,
}

impl<'a> Request<'a> {
    fn decode(body: &'a [u8]) -> Result<(Request<'a>, Unsupported), ApiError> {
        let mut request = Request::default();
        let mut inner = Unsupported::default();
        let mut unsupported = decode::members(body, |name, reader| match name {
            "TransactItems" => {
                let mut items = Vec::new();
                decode::list(reader, |reader| {
                    let mut actions = Vec::new();
                    let mut within = Unsupported::default();
                    let other = decode::members_of(reader, |name, reader| {
                        let Some(kind) = Kind::of_member(name) else {
                            return Ok(false);
                        };
                        let (asked, other) = Asked::decode(kind, reader)?;
                        within.merge(other);
                        actions.push(asked);
                        Ok(true)
                    })?;
                    inner.merge(within);
                    inner.merge(other);
                    items.push(actions);
                    Ok(())
                })?;
                request.items = Some(items);
                Ok(true)
            }
            "ClientRequestToken" => decode::text(reader, &mut request.token),
            "ReturnConsumedCapacity" => decode::text(reader, &mut request.capacity),
            "ReturnItemCollectionMetrics" => decode::text(reader, &mut request.metrics),
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
        for (place, actions) in items.iter().enumerate() {
            for action in actions {
                let path = format!("transactItems.{}.member", place + 1);
                action.check_members(&path, &mut constraints);
            }
        }
        check_token(self.token.as_deref(), &mut constraints);
        constraints.one_of(
            self.capacity.as_deref(),
            "returnConsumedCapacity",
            &ReturnCapacity::ALLOWED,
        );
        constraints.one_of(self.metrics.as_deref(), "returnItemCollectionMetrics", &METRICS);
        constraints.finish()?;
        for actions in items {
            match actions.len() {
                0 => {
                    return Err(ApiError::validation(
                        "Invalid Request: TransactWriteRequest should contain Delete or Put or Update request",
                    ));
                }
                1 => {}
                _ => {
                    return Err(ApiError::validation(
                        "TransactItems can only contain one of Check, Put, Update or Delete",
                    ));
                }
            }
        }
        let mut constraints = Constraints::new();
        for (place, action) in items.iter().flatten().enumerate() {
            let path = format!(
                "transactItems.{}.member.{}.tableName",
                place + 1,
                action.kind.path()
            );
            constraints.name_or_arn(action.table.as_deref(), &path, 1);
        }
        constraints.finish()
    }
}

/// The number of a transaction's items or statements.
pub(super) fn check_count<T>(constraints: &mut Constraints, path: &str, items: Option<&[T]>) {
    let Some(items) = items else {
        constraints.missing(path);
        return;
    };
    if items.is_empty() {
        constraints.add("[]", path, "Member must have length greater than or equal to 1");
    }
    if items.len() > ITEMS_MAX {
        let constraint = format!("Member must have length less than or equal to {ITEMS_MAX}");
        constraints.add(&format!("[{} items]", items.len()), path, &constraint);
    }
}

pub(super) fn check_token(token: Option<&str>, constraints: &mut Constraints) {
    if let Some(token) = token {
        constraints.length_within(token, "clientRequestToken", 1, TOKEN_BYTES_MAX);
    }
}

/// The token of an operation whose request has this fingerprint.
pub(super) fn token_of(operation: &str, token: &str, fingerprint: &[u8]) -> Token {
    let digest = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(part);
        }
        let digest = context.finish();
        let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        u128::from_be_bytes(*first)
    };
    Token {
        slot: digest(&[operation.as_bytes(), b"\0", token.as_bytes()]),
        fingerprint: digest(&[fingerprint]),
    }
}

/// An action against its table.
struct Placed {
    table: Rc<Table>,
    key: Result<PrimaryKey, ApiError>,
    checked: Checked,
}

pub(super) async fn transact_write_items<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (request, unsupported) = Request::decode(body)?;
    request.check()?;
    unsupported.check()?;
    let Request {
        items,
        token,
        capacity,
        metrics,
    } = request;
    let mut fingerprint = Vec::new();
    let mut actions = Vec::new();
    for asked in items.expect("required").into_iter().flatten() {
        actions.push(asked.check(service, &mut fingerprint)?);
    }
    let placed = place(service, actions)?;
    let token = token.map(|token| token_of("TransactWriteItems", &token, &fingerprint));
    let mut writes = Vec::with_capacity(placed.len());
    let mut tables = Vec::with_capacity(placed.len());
    for Placed { table, key, checked } in placed {
        let write = key.and_then(|key| Ok((key, checked.write(&table)?)));
        writes.push((Rc::clone(&table), write));
        tables.push(table);
    }
    let keys: Vec<Option<PrimaryKey>> = writes
        .iter()
        .map(|(_, write)| write.as_ref().ok().map(|(key, _)| key.clone()))
        .collect();
    let collections = metrics.as_deref() == Some("SIZE");
    let transacted = service.transact_write(writes, token, collections, false).await?;
    let wanted = ReturnCapacity::parse(capacity.as_deref());
    let mut members = Members::begin(out);
    match transacted {
        Transacted::Done(changed) => {
            write_units(&mut members, wanted, &tables, &changed);
            if collections {
                write_collections(&mut members, &tables, &keys, &changed);
            }
        }
        Transacted::Again(sizes) => read_units(&mut members, wanted, &tables, &sizes),
        Transacted::TooLarge => return Err(ApiError::validation(TOO_LARGE)),
        Transacted::Cancelled { reasons, .. } => return Err(service.cancelled(&reasons)),
    }
    members.end();
    Ok(())
}

/// Finds the tables and keys; refuses an item that is there twice, and items that are too large together.
fn place<R: Runtime>(service: &Service<R>, actions: Vec<Checked>) -> Result<Vec<Placed>, ApiError> {
    let mut placed = Vec::with_capacity(actions.len());
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for checked in actions {
        let table = service.table(&checked.table)?;
        let key = checked.key(&table);
        if let Ok(key) = &key
            && !seen.insert((table.definition().id, key.clone()))
        {
            return Err(ApiError::validation(SEVERAL_OPERATIONS));
        }
        bytes += checked.item.size();
        placed.push(Placed { table, key, checked });
    }
    if bytes > BYTES_MAX {
        return Err(ApiError::validation(TOO_LARGE));
    }
    for placed in &placed {
        if let Err(error) = &placed.key
            && has_empty_key(&placed.table, &placed.checked.item)
        {
            return Err(error.clone());
        }
    }
    Ok(placed)
}

/// Sums by table, in the order in which the tables come first.
fn by_table<'t, T>(
    tables: &'t [Rc<Table>],
    each: impl Iterator<Item = T>,
    one: impl Fn(&'t Table, T) -> Consumed<'t>,
) -> Vec<(&'t Table, Consumed<'t>)> {
    let mut sums: Vec<(&Table, Consumed<'_>)> = Vec::new();
    for (table, one_of) in tables.iter().zip(each) {
        let consumed = one(table, one_of);
        let id = table.definition().id;
        match sums.iter_mut().find(|(other, _)| other.definition().id == id) {
            Some((_, sum)) => sum.merge(consumed),
            None => sums.push((table, consumed)),
        }
    }
    sums
}

fn write_sums(
    members: &mut Members<'_>,
    wanted: ReturnCapacity,
    sums: &[(&Table, Consumed<'_>)],
    units: &str,
) {
    if wanted == ReturnCapacity::None {
        return;
    }
    let list = members.member("ConsumedCapacity");
    list.push(b'[');
    for (place, (table, consumed)) in sums.iter().enumerate() {
        if place > 0 {
            list.push(b',');
        }
        consumed.write_transacted_json(list, &table.definition().name, wanted, units);
    }
    list.push(b']');
}

/// What a transaction that wrote took: twice what the writes take by themselves, but once for the indexes.
pub(super) fn write_units(
    members: &mut Members<'_>,
    wanted: ReturnCapacity,
    tables: &[Rc<Table>],
    changed: &[Changed],
) {
    let sums = by_table(tables, changed.iter(), |table, changed| {
        let (old, new) = (changed.old_item_bytes, changed.new_item_bytes);
        let one = Capacity::of_write(old.unwrap_or(0), new.unwrap_or(0));
        let mut consumed = Consumed::of_table(one.plus(one));
        consumed.add_all(table.definition(), &changed.indexes);
        consumed
    });
    write_sums(members, wanted, &sums, "WriteCapacityUnits");
}

/// What a transaction that read items of these sizes took: twice what strongly consistent reads take.
pub(super) fn read_units(
    members: &mut Members<'_>,
    wanted: ReturnCapacity,
    tables: &[Rc<Table>],
    sizes: &[u32],
) {
    let sums = by_table(tables, sizes.iter(), |_, bytes| {
        let one = Capacity::of_read(u64::from(*bytes), true);
        Consumed::of_table(one.plus(one))
    });
    write_sums(members, wanted, &sums, "ReadCapacityUnits");
}

/// A table, a key of the collection, and bytes that it takes at most.
type Collection<'a> = (&'a Table, &'a PrimaryKey, Option<u64>);

/// The item collections that were written to, by table.
fn write_collections(
    members: &mut Members<'_>,
    tables: &[Rc<Table>],
    keys: &[Option<PrimaryKey>],
    changed: &[Changed],
) {
    let mut collections: BTreeMap<&str, Vec<Collection<'_>>> = BTreeMap::new();
    for ((table, key), changed) in tables.iter().zip(keys).zip(changed) {
        let (Some(key), true) = (key, has_collections(table)) else {
            continue;
        };
        let bytes_max = changed.collection_bytes_max;
        if bytes_max.is_none() {
            continue;
        }
        let of_table = collections.entry(&table.definition().name).or_default();
        if !of_table
            .iter()
            .any(|(_, other, _)| other.partition == key.partition)
        {
            of_table.push((table, key, bytes_max));
        }
    }
    if collections.is_empty() {
        return;
    }
    let mut by_table = Members::begin(members.member("ItemCollectionMetrics"));
    for (name, keys) in collections {
        let list = by_table.member(name);
        list.push(b'[');
        for (place, (table, key, bytes_max)) in keys.into_iter().enumerate() {
            if place > 0 {
                list.push(b',');
            }
            write_collection(list, table, key, bytes_max);
        }
        list.push(b']');
    }
    by_table.end();
}
