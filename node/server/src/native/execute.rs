//! One request: from its body to the frame that answers it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::ids::TableId;
use cairn_item::{
    ITEM_BYTES_MAX, Item, ItemBytes, ItemError, KeyCondition, KeyType, KeyValue, Number,
    PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX, Space, StorageKey,
};
use cairn_protocol::frame::{self, FrameError, Kind};
use cairn_protocol::message::{
    self, BatchGetStatus, Failure, Key, KeyPart, Operation, Request, Retry, SortCondition, Write, response,
};
use cairn_runtime::{Moment, Runtime};
use futures_util::future::join_all;

use super::Shared;
use super::session::Session;
use crate::api::error::{INTERNAL, check_archive};
use crate::api::{ApiError, Capacity, Page, Query, Scan, Service};
use crate::catalog::{KEY_MISMATCH, KeyAttribute, PrimaryKey, Table};
use crate::logging::Level;
use crate::metrics::{Operation as Counted, Protocol};
use crate::route::ItemHandle;

/// Archived bytes of the items that one BatchGet answers with; the rest is given back as unprocessed.
const BATCH_GET_BYTES_MAX: usize = frame::BODY_BYTES_MAX / 2;

/// More than an answer of one item takes beside the item.
const RESPONSE_BYTES: usize = 64;

/// A request's id and when it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) id: u64,
    pub(super) received: Moment,
}

/// What the metrics and the log say of a request.
#[derive(Clone, Copy)]
struct About {
    arrival: Arrival,
    operation: Counted,
    trace: [u8; 16],
}

/// Why a request was not carried out.
enum Refusal {
    Api(ApiError),
    /// As over HTTP.
    Json(ApiError),
    /// The client routed by an old map: the epoch of the map now.
    Moved(u64),
    /// Its time was over before it could begin.
    Late,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Refusal {
        Refusal::Api(error)
    }
}

impl From<ItemError> for Refusal {
    fn from(error: ItemError) -> Refusal {
        Refusal::Api(ApiError::validation(error.to_string()))
    }
}

impl From<FrameError> for Refusal {
    fn from(_: FrameError) -> Refusal {
        ApiError::internal("the answer does not fit a frame; ask for less at once").into()
    }
}

/// Answers a Get of an item that is in memory; false when the request needs more than that.
pub(super) fn at_once<R: Runtime>(
    shared: &Shared<R>,
    arrival: Arrival,
    body: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let Ok(request) = Request::decode(body) else {
        return false;
    };
    let Operation::Get { consistent, key } = request.operation else {
        return false;
    };
    let cached = (|| {
        let table = table_of(&shared.service, &request).ok()?;
        let definition = table.definition();
        let partition = KeyBytes::of(&definition.partition_key, key.partition, PARTITION_KEY_BYTES_MAX)?;
        let sort = match (&definition.sort_key, key.sort) {
            (Some(attribute), Some(part)) => Some(KeyBytes::of(attribute, part, SORT_KEY_BYTES_MAX)?),
            (None, None) => None,
            _ => return None,
        };
        let bytes = (partition.bytes(), sort.as_ref().map(KeyBytes::bytes));
        let scratch = &mut shared.scratch.borrow_mut();
        shared.service.get_cached(&table, bytes, scratch)?.ok()
    })();
    let Some(item) = cached else { return false };
    write_got(out, arrival.id, item.as_ref(), consistent);
    let about = About {
        arrival,
        operation: Counted::GetItem,
        trace: request.trace,
    };
    record(shared, about, None);
    true
}

/// The bytes of a key's value, where they are.
enum KeyBytes<'a> {
    Text(&'a [u8]),
    Number(Number),
}

impl<'a> KeyBytes<'a> {
    /// None of a value that is refused: [`key_value`] says why.
    fn of(attribute: &KeyAttribute, part: KeyPart<'a>, bytes_max: usize) -> Option<KeyBytes<'a>> {
        let value = match (part, attribute.kind) {
            (KeyPart::S(text), KeyType::S) => KeyBytes::Text(text.as_bytes()),
            (KeyPart::N(text), KeyType::N) => KeyBytes::Number(text.parse().ok()?),
            (KeyPart::B(bytes), KeyType::B) => KeyBytes::Text(bytes),
            _ => return None,
        };
        (1..=bytes_max).contains(&value.bytes().len()).then_some(value)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            KeyBytes::Text(bytes) => bytes,
            KeyBytes::Number(number) => number.as_bytes(),
        }
    }
}

/// Carries out any request and appends the frame that answers it.
pub(super) async fn execute<R: Runtime>(session: &Rc<Session<R>>, arrival: Arrival, body: &[u8]) {
    let (shared, out) = (&session.shared, &session.output);
    let mut about = About {
        arrival,
        operation: Counted::Other,
        trace: [0; 16],
    };
    let outcome = match Request::decode(body) {
        Ok(request) => {
            about.operation = counted_as(&request.operation);
            about.trace = request.trace;
            let _turn = if answers_with_pages(&request.operation) {
                match session.page_turn().await {
                    Some(turn) => Some(turn),
                    None => return,
                }
            } else {
                None
            };
            carry_out(shared, arrival, request, out).await
        }
        Err(error) => Err(ApiError::serialization(error.to_string()).into()),
    };
    let Err(refusal) = outcome else {
        return record(shared, about, None);
    };
    let (mut failure, name) = failure_of(refusal);
    record(shared, about, Some((name, &failure)));
    let out = &mut out.borrow_mut();
    if frame::try_encode(out, Kind::Failure, arrival.id, |into| failure.encode(into)).is_err() {
        // A request of 16 MB can be told at greater length what is wrong with it. Name and message always fit.
        failure.json = Vec::new();
        frame::encode(out, Kind::Failure, arrival.id, |into| failure.encode(into));
    }
}

/// Counts an answer, and logs it where that is wanted.
fn record<R: Runtime>(shared: &Shared<R>, about: About, failure: Option<(&'static str, &Failure)>) {
    let latency = shared.runtime.now().since(about.arrival.received);
    shared.metrics.record(Protocol::Native, about.operation, latency);
    if let Some((name, failure)) = failure {
        shared
            .metrics
            .record_error(Protocol::Native, about.operation, name);
        if failure.status >= 500 {
            log(shared, Level::Warn, "request failed", about, latency, failure);
        }
    }
    if shared.logger.is_enabled(Level::Debug) {
        match failure {
            Some((_, failure)) => log(shared, Level::Debug, "request", about, latency, failure),
            None => log(shared, Level::Debug, "request", about, latency, &"OK"),
        }
    }
}

#[cold]
fn log<R: Runtime>(
    shared: &Shared<R>,
    level: Level,
    message: &str,
    about: About,
    latency: Duration,
    result: &dyn std::fmt::Display,
) {
    let trace = format!("{:032x}", u128::from_be_bytes(about.trace));
    let fields: [(&'static str, &dyn std::fmt::Display); 5] = [
        ("request_id", &about.arrival.id),
        ("trace_id", &trace),
        ("operation", &about.operation.name()),
        ("latency_us", &latency.as_micros()),
        ("result", result),
    ];
    shared
        .logger
        .log(level, shared.runtime.unix_ms(), message, &fields);
}

async fn carry_out<R: Runtime>(
    shared: &Rc<Shared<R>>,
    arrival: Arrival,
    request: Request<'_>,
    out: &RefCell<Vec<u8>>,
) -> Result<(), Refusal> {
    let service = &shared.service;
    let budget = Duration::from_micros(u64::from(request.budget_us));
    if !budget.is_zero() && shared.runtime.now().since(arrival.received) >= budget {
        return Err(Refusal::Late);
    }
    let respond = |write: &dyn Fn(&mut Vec<u8>)| {
        frame::try_encode(&mut out.borrow_mut(), Kind::Response, arrival.id, |into| {
            write(into)
        })
    };
    match request.operation {
        Operation::Ping => respond(&|into| response::encode_head(into, 0))?,
        Operation::OpenTable { name } => {
            let table = describe(&*service.table(name)?);
            respond(&|into| response::encode_table(into, &table))?;
        }
        Operation::Json { name, body } => {
            let mut answer = Vec::new();
            service
                .call(name, body, &mut answer)
                .await
                .map_err(Refusal::Json)?;
            respond(&|into| response::encode_json(into, &answer))?;
        }
        Operation::Get { consistent, key } => {
            let table = table_of(service, &request)?;
            let item = service.get(&table, &primary_key(&table, key)?).await?;
            write_got(&mut out.borrow_mut(), arrival.id, item.as_ref(), consistent);
        }
        Operation::Put { return_old, item } => {
            let table = table_of(service, &request)?;
            let (key, item) = item_to_put(&table, item)?;
            let bytes = u32::try_from(item.view().size_bytes()).expect("checked");
            let written = service.put(&table, &key, item, None, return_old).await?;
            let capacity = Capacity::of_write(written.old_item_bytes.unwrap_or(0), bytes).tenths();
            respond(&|into| {
                response::encode_item(into, capacity, written.old.as_ref().map(ItemHandle::bytes))
            })?;
        }
        Operation::Delete { return_old, key } => {
            let table = table_of(service, &request)?;
            let key = primary_key(&table, key)?;
            let written = service.delete(&table, &key, None, return_old).await?;
            let capacity = Capacity::of_write(written.old_item_bytes.unwrap_or(0), 0).tenths();
            respond(&|into| {
                response::encode_item(into, capacity, written.old.as_ref().map(ItemHandle::bytes))
            })?;
        }
        Operation::BatchGet { consistent, ref keys } => {
            let table = table_of(service, &request)?;
            let (capacity, items) = batch_get(service, &table, keys, consistent).await?;
            respond(&|into| {
                let statuses = items.iter().map(|item| match item {
                    Some(Some(item)) => BatchGetStatus::Found(item.bytes()),
                    Some(None) => BatchGetStatus::Missing,
                    None => BatchGetStatus::Unprocessed,
                });
                response::encode_batch_get(into, capacity, statuses);
            })?;
        }
        Operation::BatchWrite { ref writes } => {
            let table = table_of(service, &request)?;
            let (capacity, done) = batch_write(service, &table, writes).await?;
            respond(&|into| response::encode_batch_write(into, capacity, &done))?;
        }
        Operation::Query {
            consistent,
            backward,
            limit,
            partition,
            sort,
            cursor,
        } => {
            let table = table_of(service, &request)?;
            let query = Query {
                partition: key_value(&table.definition().partition_key, partition)?,
                condition: sort_condition(&table, sort)?,
                forward: !backward,
                start: cursor_key(&table, cursor)?,
                limit: (limit > 0).then_some(u64::from(limit)),
                filter: None,
                count_only: false,
            };
            query.partition.check_partition_key()?;
            let page = service.query(&table, query).await?;
            write_page(out, arrival.id, &table, &page, consistent)?;
        }
        Operation::Scan {
            consistent,
            limit,
            segment,
            segments,
            cursor,
        } => {
            let table = table_of(service, &request)?;
            if segments == 0 || segment >= segments || segments > 1_000_000 {
                let message =
                    format!("segment {segment} of {segments}: segments count from 0, to a million at most");
                return Err(ApiError::validation(message).into());
            }
            let scan = Scan {
                segment: Some((segment, segments)),
                start: cursor_key(&table, cursor)?,
                limit: (limit > 0).then_some(u64::from(limit)),
                filter: None,
                count_only: false,
            };
            let page = service.scan(&table, scan).await?;
            write_page(out, arrival.id, &table, &page, consistent)?;
        }
    }
    Ok(())
}

async fn batch_get<R: Runtime>(
    service: &Service<R>,
    table: &Table,
    keys: &[Key<'_>],
    consistent: bool,
) -> Result<(u32, Vec<Option<Option<ItemHandle>>>), Refusal> {
    let keys = keys
        .iter()
        .map(|&key| primary_key(table, key))
        .collect::<Result<Vec<_>, _>>()?;
    let mut bytes = 0;
    let mut capacity = 0;
    let mut items = Vec::with_capacity(keys.len());
    let (mut processed, mut refused) = (0, None);
    for got in join_all(keys.iter().map(|key| service.get(table, key))).await {
        items.push(match got {
            Ok(item) => {
                processed += 1;
                let size = item.as_ref().map_or(0, |item| item.bytes().len());
                let fits = bytes + size <= BATCH_GET_BYTES_MAX;
                if fits {
                    bytes += size;
                    let read = u64::from(item.as_ref().map_or(0, ItemHandle::item_bytes));
                    capacity += Capacity::of_read(read, consistent).tenths();
                }
                fits.then_some(item)
            }
            Err(error) if error.is_passing() => {
                refused = Some(error);
                None
            }
            Err(error) => return Err(error.into()),
        });
    }
    match (processed, refused) {
        (0, Some(error)) => Err(error.into()),
        _ => Ok((capacity, items)),
    }
}

async fn batch_write<R: Runtime>(
    service: &Service<R>,
    table: &Table,
    writes: &[Write<'_>],
) -> Result<(u32, Vec<bool>), Refusal> {
    // Everything is checked before anything is written.
    let mut checked = Vec::with_capacity(writes.len());
    for write in writes {
        checked.push(match *write {
            Write::Put(item) => item_to_put(table, item).map(|(key, item)| (key, Some(item)))?,
            Write::Delete(key) => (primary_key(table, key)?, None),
        });
    }
    let mut keys: Vec<&PrimaryKey> = checked.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ApiError::validation("Provided list of item keys contains duplicates").into());
    }
    let write = async |(key, item): (PrimaryKey, Option<ItemBytes>)| match item {
        Some(item) => {
            let bytes = u32::try_from(item.view().size_bytes()).expect("checked");
            let written = service.put(table, &key, item, None, false).await;
            written.map(|written| Capacity::of_write(written.old_item_bytes.unwrap_or(0), bytes))
        }
        None => {
            let written = service.delete(table, &key, None, false).await;
            written.map(|written| Capacity::of_write(written.old_item_bytes.unwrap_or(0), 0))
        }
    };
    let mut capacity = 0;
    let mut done = Vec::with_capacity(checked.len());
    let mut refused = None;
    for outcome in join_all(checked.into_iter().map(write)).await {
        done.push(match outcome {
            Ok(consumed) => {
                capacity += consumed.tenths();
                true
            }
            Err(error) if error.is_passing() => {
                refused = Some(error);
                false
            }
            Err(error) => return Err(error.into()),
        });
    }
    match refused {
        Some(error) if !done.contains(&true) => Err(error.into()),
        _ => Ok((capacity, done)),
    }
}

fn write_got(out: &mut Vec<u8>, id: u64, item: Option<&ItemHandle>, consistent: bool) {
    let bytes = u64::from(item.map_or(0, ItemHandle::item_bytes));
    let capacity = Capacity::of_read(bytes, consistent).tenths();
    // At once, or the answer would outgrow its buffer several times.
    out.reserve(frame::HEAD_BYTES + RESPONSE_BYTES + item.map_or(0, |item| item.bytes().len()));
    frame::encode(out, Kind::Response, id, |into| {
        response::encode_item(into, capacity, item.map(ItemHandle::bytes));
    });
}

fn write_page(
    out: &RefCell<Vec<u8>>,
    id: u64,
    table: &Table,
    page: &Page,
    consistent: bool,
) -> Result<(), Refusal> {
    let capacity = Capacity::of_read(page.scanned_bytes, consistent).tenths();
    let scanned = u32::try_from(page.scanned_count).unwrap_or(u32::MAX);
    let cursor = match &page.last {
        Some(last) => table.locate(&table.key_of_item_view(last.view())?).1.into_bytes(),
        None => Vec::new(),
    };
    let items = page.items.iter().map(ItemHandle::bytes);
    frame::try_encode(&mut out.borrow_mut(), Kind::Response, id, |into| {
        response::encode_page(into, capacity, scanned, items, &cursor);
    })?;
    Ok(())
}

fn table_of<R: Runtime>(service: &Service<R>, request: &Request<'_>) -> Result<Rc<Table>, Refusal> {
    let table = service.table_by_id(TableId(request.table))?;
    let epoch = table.definition().version;
    if request.epoch != 0 && request.epoch != epoch {
        Err(Refusal::Moved(epoch))
    } else {
        Ok(table)
    }
}

/// A table's description for clients. The address of every partition is this node's own, said by an empty one.
pub(super) fn describe(table: &Table) -> message::Table {
    let definition = table.definition();
    let attribute = |key: &KeyAttribute| message::KeyAttribute {
        name: key.name.clone(),
        kind: key.kind.name().as_bytes()[0],
    };
    let partitions = table.partitions().map(|(place, _)| message::Partition {
        id: place.id.0,
        lower: place.lower,
        address: String::new(),
    });
    message::Table {
        id: definition.id.0,
        epoch: definition.version,
        seed: definition.seed,
        name: definition.name.clone(),
        partition_key: attribute(&definition.partition_key),
        sort_key: definition.sort_key.as_ref().map(attribute),
        partitions: partitions.collect(),
    }
}

fn item_to_put(table: &Table, archived: &[u8]) -> Result<(PrimaryKey, ItemBytes), Refusal> {
    let item = ItemBytes::new(archived.to_vec())
        .map_err(|error| ApiError::validation(format!("the item is not a valid archive: {error}")))?;
    if item.view().size_bytes() > ITEM_BYTES_MAX {
        return Err(ApiError::validation("Item size has exceeded the maximum allowed size").into());
    }
    check_archive(archived)?;
    Ok((table.key_of_item_view(item.view())?, item))
}

fn primary_key(table: &Table, key: Key<'_>) -> Result<PrimaryKey, Refusal> {
    let definition = table.definition();
    let partition = key_value(&definition.partition_key, key.partition)?;
    partition.check_partition_key()?;
    let sort = match (&definition.sort_key, key.sort) {
        (Some(attribute), Some(part)) => Some(key_value(attribute, part)?),
        (None, None) => None,
        _ => return Err(ApiError::validation(KEY_MISMATCH).into()),
    };
    if let Some(sort) = &sort {
        sort.check_sort_key()?;
    }
    Ok(PrimaryKey { partition, sort })
}

/// The value of a key attribute, refused empty or of another type just as over HTTP.
fn key_value(attribute: &KeyAttribute, part: KeyPart<'_>) -> Result<KeyValue, Refusal> {
    let value = match (part, attribute.kind) {
        (KeyPart::S(text), KeyType::S) => KeyValue::S(text.to_owned()),
        (KeyPart::N(text), KeyType::N) => KeyValue::N(text.parse()?),
        (KeyPart::B(bytes), KeyType::B) => KeyValue::B(bytes.to_vec()),
        _ => return Err(ApiError::validation(KEY_MISMATCH).into()),
    };
    if value.bytes().is_empty() {
        let item = Item::from_attributes(vec![cairn_item::Attribute {
            name: attribute.name.clone(),
            value: value.to_value(),
        }]);
        // The same check that a key over HTTP goes through, for the same words.
        return Ok(KeyValue::from_item(&item, &attribute.name, attribute.kind)?);
    }
    Ok(value)
}

fn sort_condition(table: &Table, condition: SortCondition<'_>) -> Result<KeyCondition, Refusal> {
    if condition == SortCondition::All {
        return Ok(KeyCondition::All);
    }
    let Some(attribute) = &table.definition().sort_key else {
        return Err(ApiError::validation("Query key condition not supported").into());
    };
    let value = |part| key_value(attribute, part);
    Ok(match condition {
        SortCondition::All => KeyCondition::All,
        SortCondition::Equal(part) => KeyCondition::Equal(value(part)?),
        SortCondition::Less(part) => KeyCondition::Less(value(part)?),
        SortCondition::LessOrEqual(part) => KeyCondition::LessOrEqual(value(part)?),
        SortCondition::Greater(part) => KeyCondition::Greater(value(part)?),
        SortCondition::GreaterOrEqual(part) => KeyCondition::GreaterOrEqual(value(part)?),
        SortCondition::Between(low, high) => KeyCondition::Between(value(low)?, value(high)?),
        SortCondition::BeginsWith(part) => KeyCondition::BeginsWith(value(part)?),
    })
}

/// The key that a page ended with.
fn cursor_key(table: &Table, cursor: &[u8]) -> Result<Option<PrimaryKey>, Refusal> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let definition = table.definition();
    let sort = definition.sort_key.as_ref().map(|key| key.kind);
    let key = StorageKey::decode(cursor, definition.partition_key.kind, sort)
        .filter(|(space, ..)| *space == Space::Base)
        .map(|(_, _, partition, sort)| PrimaryKey { partition, sort })
        .filter(|key| table.locate(key).1.as_bytes() == cursor);
    match key {
        Some(key) => Ok(Some(key)),
        None => Err(ApiError::validation("The provided starting key is invalid").into()),
    }
}

/// The failure that the client sees, and its name for the metrics.
fn failure_of(refusal: Refusal) -> (Failure, &'static str) {
    let failure = |status, retry, name: &'static str, message: String, epoch| {
        (
            Failure {
                status,
                retry,
                name: name.to_owned(),
                message,
                epoch,
                json: Vec::new(),
            },
            name,
        )
    };
    let of_error = |error: ApiError| {
        let retry = match error.kind {
            INTERNAL => Retry::Unknown,
            _ if error.is_passing() => Retry::Later,
            _ => Retry::Never,
        };
        failure(error.status, retry, error.name(), error.message, 0)
    };
    match refusal {
        Refusal::Moved(epoch) => {
            let message = "the table's partition map has changed; fetch its description again".to_owned();
            failure(400, Retry::Remap, "WrongPartition", message, epoch)
        }
        Refusal::Late => {
            let message =
                "the time that the client would wait was over before the request could begin".to_owned();
            failure(400, Retry::Never, "RequestTimeout", message, 0)
        }
        Refusal::Api(error) => of_error(error),
        Refusal::Json(error) => {
            let mut json = Vec::new();
            error.write_json(&mut json);
            let (failure, name) = of_error(error);
            (Failure { json, ..failure }, name)
        }
    }
}

fn answers_with_pages(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::Query { .. } | Operation::Scan { .. } | Operation::BatchGet { .. } => true,
        Operation::Json { name, .. } => {
            matches!(*name, "Query" | "Scan" | "BatchGetItem" | "TransactGetItems")
        }
        _ => false,
    }
}

fn counted_as(operation: &Operation<'_>) -> Counted {
    match operation {
        Operation::Get { .. } => Counted::GetItem,
        Operation::Put { .. } => Counted::PutItem,
        Operation::Delete { .. } => Counted::DeleteItem,
        Operation::BatchGet { .. } => Counted::BatchGetItem,
        Operation::BatchWrite { .. } => Counted::BatchWriteItem,
        Operation::Query { .. } => Counted::Query,
        Operation::Scan { .. } => Counted::Scan,
        Operation::Json { name, .. } => Counted::named(name),
        Operation::Ping | Operation::OpenTable { .. } => Counted::Other,
    }
}
