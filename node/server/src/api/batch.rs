//! BatchGetItem and BatchWriteItem.
//!
//! The requests of a batch are carried out at the same time and independently of each other. Those that were not carried out
//! but may be later are given back as unprocessed; when all of them were, the batch fails so.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use cairn_item::json::{Reader, write_item, write_item_view, write_string};
use cairn_item::{Item, ItemBytes};
use cairn_runtime::Runtime;
use futures_util::future::join_all;

use super::capacity::{Capacity, Consumed, ReturnCapacity};
use super::constraints::{Constraints, NAME_BYTES_MAX, NAME_BYTES_MIN, is_arn, is_name};
use super::decode::{self, CheckedItem, Text, Unsupported};
use super::error::check_archive;
use super::expressions::{Placeholders, Style, check_used, present};
use super::item::Members;
use super::legacy::Legacy;
use super::projection::{Projection, check_projection};
use super::write::{has_collections, write_collection};
use super::{ApiError, Service};
use crate::catalog::{PrimaryKey, Table};
use crate::index::effects::check_keys;
use crate::route::{Action, Operands, Returns, Write, stored_view};

/// Keys of one BatchGetItem.
const GETS_MAX: usize = 100;
/// Requests of one BatchWriteItem.
const WRITES_MAX: usize = 25;
/// Sizes of the items that one BatchGetItem answers with, summed.
const GET_BYTES_MAX: u64 = 16 << 20;
/// Sizes of the items of one BatchWriteItem, summed.
const WRITE_BYTES_MAX: usize = 16 << 20;

const DUPLICATES: &str = "Provided list of item keys contains duplicates";

/// What is asked of one table.
#[derive(Default)]
struct Keys<'a> {
    table: String,
    keys: Option<Vec<CheckedItem>>,
    consistent: Option<bool>,
    projection: Text<'a>,
    placeholders: Placeholders,
    legacy: Legacy,
}

fn table_name(name: &str) -> Result<(), ApiError> {
    let mut constraints = Constraints::new();
    constraints.table_name(Some(name));
    constraints.finish()
}

/// The names of a BatchGetItem's tables; `given` is the map as the request has it.
fn get_names(constraints: &mut Constraints, asked: &[Keys<'_>], given: &str) {
    let is_wrong = |asked: &&Keys<'_>| {
        let name = asked.table.as_str();
        let is_right = is_name(name) && (NAME_BYTES_MIN..=NAME_BYTES_MAX).contains(&name.len());
        !(is_right || is_arn(name))
    };
    if !asked.iter().any(|asked| is_wrong(&asked)) {
        return;
    }
    constraints.add(
        given,
        "requestItems",
        "Map keys must satisfy constraint: [Member must have length less than or equal to 255, Member must have length \
         greater than or equal to 3, Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+]",
    );
}

/// Reads the map of tables; `one` reads what is asked of a table.
fn decode_tables<'a, T>(
    reader: &mut Reader<'a>,
    into: &mut Option<Vec<T>>,
    mut one: impl FnMut(String, &mut Reader<'a>) -> Result<T, ApiError>,
) -> Result<bool, ApiError> {
    let mut tables = Vec::new();
    reader.begin_object()?;
    while let Some(name) = reader.next_key()? {
        tables.push(one(name.into_owned(), reader)?);
    }
    *into = Some(tables);
    Ok(true)
}

fn decode_keys<'a>(
    table: String,
    reader: &mut Reader<'a>,
    unsupported: &mut Unsupported,
) -> Result<Keys<'a>, ApiError> {
    let mut asked = Keys {
        table,
        ..Keys::default()
    };
    let other = decode::members_of(reader, |name, reader| match name {
        "Keys" => {
            let mut keys = Vec::new();
            decode::list(reader, |reader| {
                let mut key = None;
                decode::item(reader, &mut key)?;
                keys.push(key);
                Ok(())
            })?;
            asked.keys = Some(keys);
            Ok(true)
        }
        "ConsistentRead" => decode::boolean(reader, &mut asked.consistent),
        "ProjectionExpression" => decode::text(reader, &mut asked.projection),
        _ => Ok(asked.placeholders.names_member(name, reader)? || asked.legacy.get_member(name, reader)?),
    })?;
    unsupported.merge(other);
    Ok(asked)
}

/// Gives the items of a list whose values are all allowed.
fn allowed(items: Vec<CheckedItem>) -> Result<Vec<Item>, ApiError> {
    items
        .into_iter()
        .map(|item| Ok(item.expect("every element was read")?))
        .collect()
}

/// Refuses the same primary key twice.
fn check_duplicates<'a>(keys: impl Iterator<Item = &'a PrimaryKey>) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(ApiError::validation(DUPLICATES));
        }
    }
    Ok(())
}

/// Refuses a table that is named twice, by its name and by its ARN: the answer, whose members are names of tables, could hold
/// one of the two only. No source has recorded the words.
fn check_named_once<'a>(tables: impl Iterator<Item = &'a Rc<Table>>) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for table in tables {
        if !seen.insert(table.definition().id) {
            return Err(ApiError::validation(format!(
                "The table {} is named more than once in RequestItems, by its name and by its ARN",
                table.definition().name
            )));
        }
    }
    Ok(())
}

/// One table's part of a BatchGetItem.
struct Gets {
    table: Rc<Table>,
    consistent: bool,
    projection: Option<Projection>,
    /// The parameters that ask for it as they are given back with unprocessed keys: `,"Name":value` for each.
    chosen: Vec<u8>,
    /// As the client wrote them, and resolved.
    keys: Vec<(Item, PrimaryKey)>,
}

/// A table's part of a request whose parameters are all allowed.
struct CheckedKeys<'a> {
    asked: Keys<'a>,
    keys: Vec<Item>,
    operands: Option<Arc<Operands>>,
    chosen: Vec<u8>,
}

fn check_gets(asked: Vec<Keys<'_>>) -> Result<Vec<CheckedKeys<'_>>, ApiError> {
    for Keys { table, keys, .. } in &asked {
        let Some(keys) = keys else {
            let mut constraints = Constraints::new();
            constraints.missing(&format!("requestItems.{table}.member.keys"));
            return Err(constraints.finish().expect_err("one is missing"));
        };
        if keys.is_empty() {
            return Err(ApiError::validation(format!(
                "1 validation error detected: Value at 'RequestItems.{table}.member.Keys' failed to satisfy \
                 constraint: Member must have length greater than or equal to 1"
            )));
        }
        if keys.len() > GETS_MAX {
            return Err(ApiError::validation(format!(
                "1 validation error detected: Value at 'RequestItems.{table}.member.Keys' failed to satisfy \
                 constraint: Member must have length less than or equal to {GETS_MAX}"
            )));
        }
    }
    let mut constraints = Constraints::new();
    for asked in &asked {
        let path = format!("requestItems.{}.member.", asked.table);
        asked.legacy.attributes_constraints(&mut constraints, &path);
    }
    constraints.finish()?;
    let count: usize = asked
        .iter()
        .filter_map(|asked| asked.keys.as_ref())
        .map(Vec::len)
        .sum();
    if count > GETS_MAX {
        return Err(ApiError::validation(
            "Too many items requested for the BatchGetItem call",
        ));
    }
    let checked = asked
        .into_iter()
        .map(check_asked)
        .collect::<Result<Vec<_>, _>>()?;
    let is_projected = |part: &CheckedKeys<'_>| part.asked.projection.is_some();
    let is_legacy = |part: &CheckedKeys<'_>| part.asked.legacy.attributes().is_some();
    if checked.iter().any(is_projected) && checked.iter().any(is_legacy) {
        return Err(ApiError::validation(
            "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: \
             {AttributesToGet} Expression parameters: {ProjectionExpression}",
        ));
    }
    Ok(checked)
}

fn check_asked(mut asked: Keys<'_>) -> Result<CheckedKeys<'_>, ApiError> {
    let mut chosen = Vec::new();
    let mut operands = None;
    if asked.projection.is_some() || !asked.placeholders.none() || !asked.legacy.none() {
        write_chosen(&mut chosen, &asked);
        let expressions = [present("ProjectionExpression", &asked.projection)];
        let placeholders = std::mem::take(&mut asked.placeholders);
        let operands_given = placeholders.resolve(Style::Bare, &expressions, &asked.legacy.given())?;
        operands = Some(Arc::new(operands_given));
    }
    asked.legacy.check(Style::Bare)?;
    Ok(CheckedKeys {
        keys: allowed(asked.keys.take().expect("checked above"))?,
        asked,
        operands,
        chosen,
    })
}

fn write_chosen(out: &mut Vec<u8>, asked: &Keys<'_>) {
    let mut begun = Vec::new();
    let mut members = Members::begin(&mut begun);
    if let Some(projection) = &asked.projection {
        members.string("ProjectionExpression", projection);
    }
    if let Some(names) = asked.placeholders.names() {
        let mut map = Members::begin(members.member("ExpressionAttributeNames"));
        for (placeholder, name) in names {
            map.string(placeholder, name);
        }
        map.end();
    }
    if let Some(attributes) = asked.legacy.attributes() {
        write_list(
            members.member("AttributesToGet"),
            attributes.iter(),
            |out, name| {
                write_string(out, name);
            },
        );
    }
    // The object's opening brace becomes the comma behind the keys.
    out.push(b',');
    out.extend_from_slice(&begun[1..]);
}

pub(super) async fn batch_get_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut asked: Option<Vec<Keys<'_>>> = None;
    let mut capacity: Text<'_> = None;
    let mut given = 0..0;
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |name, reader| match name {
        "RequestItems" => {
            let begin = reader.position();
            decode_tables(reader, &mut asked, |table, reader| {
                decode_keys(table, reader, &mut inner)
            })?;
            given = begin..reader.position();
            Ok(true)
        }
        "ReturnConsumedCapacity" => decode::text(reader, &mut capacity),
        _ => Ok(false),
    })?;
    unsupported.merge(inner);
    let mut constraints = Constraints::new();
    constraints.required(asked.as_ref(), "requestItems");
    let asked = asked.unwrap_or_default();
    get_names(
        &mut constraints,
        &asked,
        String::from_utf8_lossy(&body[given]).trim(),
    );
    constraints.one_of(
        capacity.as_deref(),
        "returnConsumedCapacity",
        &ReturnCapacity::ALLOWED,
    );
    constraints.finish()?;
    if asked.is_empty() {
        return Err(ApiError::validation(
            "1 validation error detected: Value at 'RequestItems' failed to satisfy constraint: Member must have length \
             greater than or equal to 1",
        ));
    }
    let asked = check_gets(asked)?;
    unsupported.check()?;

    let mut gets = Vec::with_capacity(asked.len());
    for part in asked {
        let table = service.table(&part.asked.table)?;
        let mut keys = Vec::with_capacity(part.keys.len());
        for item in part.keys {
            let key = table.key_of_key(&item)?;
            keys.push((item, key));
        }
        check_duplicates(keys.iter().map(|(_, key)| key))?;
        let mut projection = None;
        if let Some(operands) = &part.operands {
            let Keys {
                projection: text,
                legacy,
                ..
            } = &part.asked;
            projection = Projection::of(service, text.as_deref(), legacy, operands)?;
            check_used(Style::Bare, operands)?;
            check_projection(&table, projection.as_ref())?;
        }
        gets.push(Gets {
            table,
            consistent: part.asked.consistent.unwrap_or(false),
            projection,
            chosen: part.chosen,
            keys,
        });
    }

    check_named_once(gets.iter().map(|gets| &gets.table))?;

    let reads = gets
        .iter()
        .flat_map(|gets| gets.keys.iter().map(|(_, key)| service.get(&gets.table, key)));
    let mut reads = join_all(reads).await.into_iter();
    let mut answers = Vec::with_capacity(gets.len());
    let mut bytes = 0;
    let (mut processed, mut refused) = (0, None);
    for gets in &gets {
        let mut answer = Answer::default();
        for (key, _) in &gets.keys {
            match reads.next().expect("one for each key") {
                Ok(item) => {
                    let item_bytes = item.as_ref().map_or(0, |item| u64::from(item.item_bytes()));
                    if bytes + item_bytes > GET_BYTES_MAX {
                        answer.unprocessed.push(key);
                        continue;
                    }
                    bytes += item_bytes;
                    processed += 1;
                    answer.capacity = answer
                        .capacity
                        .plus(Capacity::of_read(item_bytes, gets.consistent));
                    answer.items.extend(item);
                }
                Err(error) if error.is_passing() => {
                    answer.unprocessed.push(key);
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        answers.push((gets, answer));
    }
    if let (0, Some(error)) = (processed, refused) {
        return Err(error);
    }
    write_gets(out, &answers, ReturnCapacity::parse(capacity.as_deref()));
    Ok(())
}

/// What one table's part of a batch came to.
#[derive(Default)]
struct Answer<'a> {
    items: Vec<crate::route::ItemHandle>,
    unprocessed: Vec<&'a Item>,
    capacity: Capacity,
}

fn write_gets(out: &mut Vec<u8>, answers: &[(&Gets, Answer<'_>)], wanted: ReturnCapacity) {
    let mut members = Members::begin(out);
    let capacities = answers
        .iter()
        .map(|(gets, answer)| (&*gets.table, Consumed::of_table(answer.capacity)));
    write_capacities(&mut members, capacities, wanted);
    let mut responses = Members::begin(members.member("Responses"));
    for (gets, answer) in answers {
        let list = responses.member(&gets.table.definition().name);
        let projection = gets.projection.as_ref().map(Projection::bound);
        write_list(list, answer.items.iter(), |out, item| match &projection {
            Some(projection) => projection.write_json(out, item.view()),
            None => write_item_view(out, item.view()),
        });
    }
    responses.end();
    let mut unprocessed = Members::begin(members.member("UnprocessedKeys"));
    for (gets, answer) in answers
        .iter()
        .filter(|(_, answer)| !answer.unprocessed.is_empty())
    {
        let mut table = Members::begin(unprocessed.member(&gets.table.definition().name));
        write_list(table.member("Keys"), answer.unprocessed.iter(), |out, key| {
            write_item(out, key)
        });
        table.raw(&gets.chosen);
        if gets.consistent {
            table.member("ConsistentRead").extend_from_slice(b"true");
        }
        table.end();
    }
    unprocessed.end();
    members.end();
}

fn write_list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn write_capacities<'a>(
    members: &mut Members<'_>,
    capacities: impl Iterator<Item = (&'a Table, Consumed<'a>)>,
    wanted: ReturnCapacity,
) {
    if wanted != ReturnCapacity::None {
        write_list(
            members.member("ConsumedCapacity"),
            capacities,
            |out, (table, capacity)| {
                capacity.write_json(out, &table.definition().name, wanted);
            },
        );
    }
}

/// One member of a table's list of writes.
#[derive(Default)]
struct WriteRequest {
    put: Option<CheckedItem>,
    delete: Option<CheckedItem>,
}

fn decode_writes(
    table: String,
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
) -> Result<(String, Vec<WriteRequest>), ApiError> {
    let mut writes = Vec::new();
    decode::list(reader, |reader| {
        let mut write = WriteRequest::default();
        let other = decode::members_of(reader, |name, reader| {
            let (member, into) = match name {
                "PutRequest" => ("Item", &mut write.put),
                "DeleteRequest" => ("Key", &mut write.delete),
                _ => return Ok(false),
            };
            let mut item = None;
            let other = decode::members_of(reader, |name, reader| {
                if name == member {
                    decode::item(reader, &mut item)
                } else {
                    Ok(false)
                }
            })?;
            unsupported.merge(other);
            *into = Some(item);
            Ok(true)
        })?;
        unsupported.merge(other);
        writes.push(write);
        Ok(())
    })?;
    Ok((table, writes))
}

/// A write whose values are allowed.
enum Wanted {
    Put(Item),
    Delete(Item),
}

fn check_writes(asked: Vec<(String, Vec<WriteRequest>)>) -> Result<Vec<(String, Vec<Wanted>)>, ApiError> {
    let mut constraints = Constraints::new();
    for (table, writes) in &asked {
        table_name(table)?;
        if writes.is_empty() || writes.len() > WRITES_MAX {
            constraints.add(
                &format!("{{{table}=[{} requests]}}", writes.len()),
                "requestItems",
                "Map value must satisfy constraint: [Member must have length less than or equal to 25, Member \
                 must have length greater than or equal to 1]",
            );
        }
        for (index, write) in writes.iter().enumerate() {
            let path = format!("requestItems.{table}.member.{}.member", index + 1);
            if let Some(None) = write.put {
                constraints.missing(&format!("{path}.putRequest.item"));
            }
            if let Some(None) = write.delete {
                constraints.missing(&format!("{path}.deleteRequest.key"));
            }
        }
    }
    constraints.finish()?;
    let count: usize = asked.iter().map(|(_, writes)| writes.len()).sum();
    if count > WRITES_MAX {
        return Err(ApiError::validation(
            "Too many items requested for the BatchWriteItem call",
        ));
    }
    let wanted = |write: WriteRequest| {
        Ok(match (write.put, write.delete) {
            (Some(item), None) => Wanted::Put(item.expect("checked above")?),
            (None, Some(key)) => Wanted::Delete(key.expect("checked above")?),
            _ => {
                return Err(ApiError::validation(
                    "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the \
                     supported datatypes",
                ));
            }
        })
    };
    let mut bytes = 0;
    let mut checked = Vec::with_capacity(asked.len());
    for (table, writes) in asked {
        let writes = writes
            .into_iter()
            .map(wanted)
            .collect::<Result<Vec<_>, ApiError>>()?;
        bytes += writes
            .iter()
            .map(|(Wanted::Put(item) | Wanted::Delete(item))| item.size())
            .sum::<usize>();
        checked.push((table, writes));
    }
    if bytes > WRITE_BYTES_MAX {
        return Err(ApiError::validation(
            "Item collection too large: aggregate size of items in BatchWriteItem exceeds 16MB limit",
        ));
    }
    Ok(checked)
}

/// One table's part of a BatchWriteItem.
struct Writes {
    table: Rc<Table>,
    writes: Vec<(Wanted, PrimaryKey)>,
}

/// What a write is for the engine.
fn action(wanted: &Wanted) -> Result<Action, ApiError> {
    Ok(match wanted {
        Wanted::Put(item) => {
            let archived = ItemBytes::from_item(item).into_vec();
            check_archive(&archived)?;
            Action::Put {
                item: archived,
                item_bytes: item_bytes(item),
            }
        }
        Wanted::Delete(_) => Action::Delete,
    })
}

pub(super) async fn batch_write_item<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut asked: Option<Vec<(String, Vec<WriteRequest>)>> = None;
    let (mut capacity, mut metrics) = (None, None);
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |name, reader| match name {
        "RequestItems" => decode_tables(reader, &mut asked, |table, reader| {
            decode_writes(table, reader, &mut inner)
        }),
        "ReturnConsumedCapacity" => decode::text(reader, &mut capacity),
        "ReturnItemCollectionMetrics" => decode::text(reader, &mut metrics),
        _ => Ok(false),
    })?;
    unsupported.merge(inner);
    let mut constraints = Constraints::new();
    constraints.required(asked.as_ref(), "requestItems");
    constraints.one_of(
        capacity.as_deref(),
        "returnConsumedCapacity",
        &ReturnCapacity::ALLOWED,
    );
    constraints.one_of(
        metrics.as_deref(),
        "returnItemCollectionMetrics",
        &["SIZE", "NONE"],
    );
    constraints.finish()?;
    let asked = asked.expect("required");
    if asked.is_empty() {
        return Err(ApiError::validation(
            "The requestItems parameter is required for BatchWriteItem",
        ));
    }
    let asked = check_writes(asked)?;
    unsupported.check()?;

    let mut batch = Vec::with_capacity(asked.len());
    let mut actions = Vec::new();
    for (name, wanted) in asked {
        let table = service.table(&name)?;
        let mut writes = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let key = match &wanted {
                Wanted::Put(item) => table.key_of_batched_item(item)?,
                Wanted::Delete(key) => table.key_of_key(key)?,
            };
            let action = action(&wanted)?;
            if let Action::Put { item, .. } = &action {
                check_keys(table.definition(), None, stored_view(item))?;
            }
            actions.push(action);
            writes.push((wanted, key));
        }
        check_duplicates(writes.iter().map(|(_, key)| key))?;
        batch.push(Writes { table, writes });
    }
    check_named_once(batch.iter().map(|part| &part.table))?;

    let wants_collections = metrics.as_deref() == Some("SIZE");
    let returns = Returns {
        collection: wants_collections,
        ..Returns::default()
    };
    let targets = batch
        .iter()
        .flat_map(|part| part.writes.iter().map(|(_, key)| (&part.table, key)));
    let running = targets.zip(actions).map(|((table, key), action)| {
        let write = Write {
            action,
            condition: None,
            returns,
        };
        service.write(table, key, write)
    });
    let mut done = join_all(running).await.into_iter();
    let mut answers = Vec::with_capacity(batch.len());
    let (mut processed, mut refused) = (0, None);
    let mut collections = Collections::default();
    for part in &batch {
        let mut total = Consumed::default();
        let mut unprocessed = Vec::new();
        for (wanted, key) in &part.writes {
            match done.next().expect("one for each write") {
                Ok(written) => {
                    processed += 1;
                    total.merge(Consumed::of_write(part.table.definition(), &written));
                    if wants_collections && has_collections(&part.table) {
                        collections.add(part, key, written.collection_bytes_max);
                    }
                }
                Err(error) if error.is_passing() => {
                    unprocessed.push(wanted);
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        answers.push((part, total, unprocessed));
    }
    if let (0, Some(error)) = (processed, refused) {
        return Err(error);
    }

    let mut members = Members::begin(out);
    let capacities = answers
        .iter()
        .map(|(part, total, _)| (&*part.table, total.clone()));
    write_capacities(
        &mut members,
        capacities,
        ReturnCapacity::parse(capacity.as_deref()),
    );
    collections.write(&mut members);
    let mut tables = Members::begin(members.member("UnprocessedItems"));
    for (part, _, unprocessed) in answers
        .iter()
        .filter(|(_, _, unprocessed)| !unprocessed.is_empty())
    {
        let list = tables.member(&part.table.definition().name);
        write_list(list, unprocessed.iter(), |out, wanted| {
            let (request, member, item) = match wanted {
                Wanted::Put(item) => ("PutRequest", "Item", item),
                Wanted::Delete(key) => ("DeleteRequest", "Key", key),
            };
            out.push(b'{');
            write_string(out, request);
            out.extend_from_slice(b":{");
            write_string(out, member);
            out.push(b':');
            write_item(out, item);
            out.extend_from_slice(b"}}");
        });
    }
    tables.end();
    members.end();
    Ok(())
}

/// The item collections that a batch has written to, by table.
#[derive(Default)]
struct Collections<'a>(Vec<(&'a Writes, Vec<Collection<'a>>)>);

/// A key of the collection, and bytes that it takes at most.
type Collection<'a> = (&'a PrimaryKey, Option<u64>);

impl<'a> Collections<'a> {
    fn add(&mut self, part: &'a Writes, key: &'a PrimaryKey, bytes_max: Option<u64>) {
        if self.0.last().is_none_or(|(last, _)| !std::ptr::eq(*last, part)) {
            self.0.push((part, Vec::new()));
        }
        let (_, keys) = self.0.last_mut().expect("just made sure of");
        if !keys.iter().any(|(other, _)| other.partition == key.partition) {
            keys.push((key, bytes_max));
        }
    }

    fn write(&self, members: &mut Members<'_>) {
        if self.0.is_empty() {
            return;
        }
        let mut tables = Members::begin(members.member("ItemCollectionMetrics"));
        for (part, keys) in &self.0 {
            let list = tables.member(&part.table.definition().name);
            write_list(list, keys.iter(), |out, (key, bytes_max)| {
                write_collection(out, &part.table, key, *bytes_max);
            });
        }
        tables.end();
    }
}

fn item_bytes(item: &Item) -> u32 {
    u32::try_from(item.size()).expect("item sizes are limited")
}
