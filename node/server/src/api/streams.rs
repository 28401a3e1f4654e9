//! The operations on streams: ListStreams, DescribeStream, GetShardIterator, GetRecords.
//!
//! They are a service of their own, with a target prefix of its own, on the same port. A shard of a stream is a partition of its
//! table; its id names the partition. Sequence numbers are commit timestamps, in 21 digits.

use std::collections::BTreeMap;
use std::rc::Rc;

use cairn_engine::ids::CommitTimestamp;
use cairn_item::json::{write_item_view, write_string, write_value};
use cairn_item::{KeyValue, StorageKey};
use cairn_runtime::Runtime;

use super::constraints::{Constraints, NAME_BYTES_MIN};
use super::decode::{self, Text, Unsupported};
use super::error::{EXPIRED_ITERATOR, RESOURCE_NOT_FOUND, TRIMMED};
use super::item::Members;
use super::stream_iterator::{LIFE_MS, ShardIterator};
use super::table::{stream_arn, stream_label, write_pairs, write_time};
use super::{ApiError, Service};
use crate::catalog::{KeyAttribute, StreamDefinition, Table, TableDefinition, TableStatus};
use crate::route::stored_view;
use crate::stream::horizon;
use crate::stream::read::{ReadDone, ReadRequest};
use crate::stream::record::Record;

/// Streams or shards of one answer.
const LIST_MAX: i64 = 100;
/// Records of one answer.
const RECORDS_MAX: i64 = 1000;
/// What the records of one answer may count for, but for the first.
const RECORDS_BYTES_MAX: u64 = 1 << 20;
/// Lengths that the service model gives.
const ARN_BYTES: (usize, usize) = (37, 1024);
const SHARD_ID_BYTES: (usize, usize) = (28, 65);
const SEQUENCE_NUMBER_BYTES: (usize, usize) = (21, 40);
const ITERATOR_BYTES: (usize, usize) = (1, 2048);

const ITERATOR_TYPES: [&str; 5] = [
    "AT_SEQUENCE_NUMBER",
    "LATEST",
    "AFTER_SEQUENCE_NUMBER",
    "TRIM_HORIZON",
    "AT_TIMESTAMP",
];
const PAST_THE_OLDEST: &str = "The operation attempted to read past the oldest stream record in a shard.";

/// Whether an operation is one of these.
pub(crate) fn is_of_streams(operation: &str) -> bool {
    matches!(
        operation,
        "ListStreams" | "DescribeStream" | "GetShardIterator" | "GetRecords"
    )
}

/// A stream that can be read.
struct Found {
    table: Rc<Table>,
    stream: StreamDefinition,
    arn: String,
}

impl Found {
    fn definition(&self) -> &TableDefinition {
        self.table.definition()
    }

    /// The partition that a shard's id names, as a place of the table.
    fn place_of(&self, shard: &str) -> Option<usize> {
        let mut places = self.definition().places.iter();
        places.position(|place| shard_id(place.id.0) == shard)
    }

    /// The least sequence number that can be read.
    fn horizon(&self, now_ms: u64) -> u64 {
        horizon(self.definition().settings.streams_kept_ms(), now_ms)
    }

    fn request(&self, place: usize, after: u64) -> ReadRequest {
        ReadRequest {
            stream: self.stream.created_ms,
            lower: self.definition().places[place].lower,
            after,
            newest: false,
            records_max: 0,
            bytes_max: RECORDS_BYTES_MAX,
        }
    }
}

fn shard_id(partition: u64) -> String {
    format!("shardId-{partition:020}")
}

fn sequence_number(commit: u64) -> String {
    format!("{commit:021}")
}

/// Streams that can be read, by their ARNs.
fn all_streams<R: Runtime>(service: &Service<R>) -> BTreeMap<String, (Rc<Table>, StreamDefinition)> {
    let now_ms = service.runtime().unix_ms();
    let mut streams = BTreeMap::new();
    for table in service.tables() {
        let definition = table.definition();
        let kept_ms = definition.settings.streams_kept_ms();
        for stream in &definition.settings.streams {
            if definition.status == TableStatus::Active && !stream.is_gone(kept_ms, now_ms) {
                let arn = stream_arn(service, &definition.name, stream);
                streams.insert(arn, (Rc::clone(&table), *stream));
            }
        }
    }
    streams
}

fn find<R: Runtime>(service: &Service<R>, arn: &str) -> Result<Found, ApiError> {
    let found = named(service, arn).ok_or_else(|| {
        ApiError::new(
            RESOURCE_NOT_FOUND,
            format!("Requested resource not found: Stream: {arn} not found"),
        )
    })?;
    let (table, stream) = found;
    Ok(Found {
        table,
        stream,
        arn: arn.to_owned(),
    })
}

fn named<R: Runtime>(service: &Service<R>, arn: &str) -> Option<(Rc<Table>, StreamDefinition)> {
    let (_, resource) = arn.split_once(":table/")?;
    let (name, _) = resource.split_once("/stream/")?;
    let table = service.table(name).ok()?;
    let settings = &table.definition().settings;
    let (kept_ms, now_ms) = (settings.streams_kept_ms(), service.runtime().unix_ms());
    let is_named = |stream: &&StreamDefinition| stream_arn(service, name, stream) == arn;
    let stream = settings.streams.iter().find(is_named).copied();
    let stream = stream.filter(|stream| !stream.is_gone(kept_ms, now_ms))?;
    Some((table, stream))
}

fn length(constraints: &mut Constraints, value: Option<&str>, path: &str, bounds: (usize, usize)) {
    if let Some(value) = value {
        constraints.length_within(value, path, bounds.0, bounds.1);
    }
}

fn required(constraints: &mut Constraints, value: Option<&str>, path: &str, bounds: (usize, usize)) {
    constraints.required(value.as_ref(), path);
    length(constraints, value, path, bounds);
}

/// As many as a request allows.
fn limit(limit: Option<i64>, most: i64) -> usize {
    usize::try_from(limit.unwrap_or(most)).expect("limits are checked")
}

pub(super) fn list_streams<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut table, mut count, mut start): (Text<'_>, _, Text<'_>) = (None, None, None);
    let unsupported = decode::members(body, |member, reader| match member {
        "TableName" => decode::text(reader, &mut table),
        "Limit" => decode::integer(reader, &mut count),
        "ExclusiveStartStreamArn" => decode::text(reader, &mut start),
        _ => Ok(false),
    })?;
    let mut constraints = Constraints::new();
    constraints.name(table.as_deref(), "tableName", NAME_BYTES_MIN);
    constraints.at_least(count, "limit", 1);
    length(
        &mut constraints,
        start.as_deref(),
        "exclusiveStartStreamArn",
        ARN_BYTES,
    );
    constraints.finish()?;
    unsupported.check()?;
    if count.is_some_and(|count| count > LIST_MAX) {
        return Err(ApiError::parameters(format!(
            "Limit cannot be greater than the maximum allowed size: {LIST_MAX}"
        )));
    }
    let limit = limit(count, LIST_MAX);
    let streams = all_streams(service);
    let mut wanted = streams.iter().filter(|(arn, (of, _))| {
        let is_wanted = |name: &str| of.definition().name == name;
        table.as_deref().is_none_or(is_wanted) && start.as_deref().is_none_or(|start| arn.as_str() > start)
    });
    let mut members = Members::begin(out);
    let list = members.member("Streams");
    list.push(b'[');
    let mut last = None;
    for (index, (arn, (of, stream))) in wanted.by_ref().take(limit).enumerate() {
        if index > 0 {
            list.push(b',');
        }
        let mut shown = Members::begin(list);
        shown.string("StreamArn", arn);
        shown.string("TableName", &of.definition().name);
        shown.string("StreamLabel", &stream_label(stream));
        shown.end();
        last = Some(arn);
    }
    list.push(b']');
    if let (Some(last), Some(_)) = (last, wanted.next()) {
        members.string("LastEvaluatedStreamArn", last);
    }
    members.end();
    Ok(())
}

#[derive(Default)]
struct DescribeStream<'a> {
    arn: Text<'a>,
    limit: Option<i64>,
    start: Text<'a>,
    /// Type and shard.
    filter: Option<(Text<'a>, Text<'a>)>,
}

impl<'a> DescribeStream<'a> {
    fn decode(body: &'a [u8]) -> Result<DescribeStream<'a>, ApiError> {
        let mut request = DescribeStream::default();
        let mut inner = Unsupported::default();
        let mut unsupported = decode::members(body, |member, reader| match member {
            "StreamArn" => decode::text(reader, &mut request.arn),
            "Limit" => decode::integer(reader, &mut request.limit),
            "ExclusiveStartShardId" => decode::text(reader, &mut request.start),
            "ShardFilter" => {
                let (mut kind, mut shard) = (None, None);
                let other = decode::members_of(reader, |member, reader| match member {
                    "Type" => decode::text(reader, &mut kind),
                    "ShardId" => decode::text(reader, &mut shard),
                    _ => Ok(false),
                })?;
                inner.merge(other);
                request.filter = Some((kind, shard));
                Ok(true)
            }
            _ => Ok(false),
        })?;
        unsupported.merge(inner);
        let mut constraints = Constraints::new();
        required(&mut constraints, request.arn.as_deref(), "streamArn", ARN_BYTES);
        constraints.at_least(request.limit, "limit", 1);
        let path = "exclusiveStartShardId";
        length(&mut constraints, request.start.as_deref(), path, SHARD_ID_BYTES);
        if let Some((kind, shard)) = &request.filter {
            constraints.one_of(kind.as_deref(), "shardFilter.type", &["CHILD_SHARDS"]);
            let path = "shardFilter.shardId";
            length(&mut constraints, shard.as_deref(), path, SHARD_ID_BYTES);
        }
        constraints.finish()?;
        unsupported.check()?;
        if request.limit.is_some_and(|limit| limit > LIST_MAX) {
            return Err(ApiError::parameters(format!(
                "Limit cannot be greater than the maximum: {LIST_MAX}"
            )));
        }
        if let Some((kind, shard)) = &request.filter
            && (kind.is_none() || shard.is_none())
        {
            return Err(ApiError::parameters("ShardFilter must have a Type and a ShardId"));
        }
        Ok(request)
    }
}

pub(super) async fn describe_stream<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let request = DescribeStream::decode(body)?;
    let found = find(service, request.arn.as_deref().expect("required"))?;
    let definition = found.definition();
    let limit = limit(request.limit, LIST_MAX);
    // By their ids, which is the order of their partitions' ids. A partition that was never split has no children.
    let mut places: Vec<usize> = match request.filter {
        Some(_) => Vec::new(),
        None => (0..definition.places.len()).collect(),
    };
    places.sort_by_key(|place| definition.places[*place].id);
    if let Some(start) = request.start.as_deref() {
        places.retain(|place| shard_id(definition.places[*place].id.0).as_str() > start);
    }
    let more = places.len() > limit;
    places.truncate(limit);
    let mut ends = Vec::new();
    for place in &places {
        let end = match found.stream.disabled_ms {
            Some(_) => Some(end_of(service, &found, *place).await?),
            None => None,
        };
        ends.push(end.flatten());
    }
    let mut members = Members::begin(out);
    let mut shown = Members::begin(members.member("StreamDescription"));
    shown.string("StreamArn", &found.arn);
    shown.string("StreamLabel", &stream_label(&found.stream));
    let status = match found.stream.disabled_ms {
        None => "ENABLED",
        Some(_) => "DISABLED",
    };
    shown.string("StreamStatus", status);
    shown.string("StreamViewType", found.stream.view.name());
    write_time(shown.member("CreationRequestDateTime"), found.stream.created_ms);
    shown.string("TableName", &definition.name);
    let keys = std::iter::once(&definition.partition_key).chain(&definition.sort_key);
    let keys = keys
        .zip(["HASH", "RANGE"])
        .map(|(key, role)| (key.name.as_str(), "KeyType", role));
    write_pairs(shown.member("KeySchema"), keys);
    let start = sequence_number(CommitTimestamp::from_unix_ms(found.stream.created_ms).0);
    let list = shown.member("Shards");
    list.push(b'[');
    for (index, (place, end)) in places.iter().zip(ends).enumerate() {
        if index > 0 {
            list.push(b',');
        }
        let mut shard = Members::begin(list);
        shard.string("ShardId", &shard_id(definition.places[*place].id.0));
        let mut range = Members::begin(shard.member("SequenceNumberRange"));
        range.string("StartingSequenceNumber", &start);
        if let Some(end) = end {
            range.string("EndingSequenceNumber", &sequence_number(end));
        }
        range.end();
        shard.end();
    }
    list.push(b']');
    if let Some(last) = places.last().filter(|_| more) {
        shown.string("LastEvaluatedShardId", &shard_id(definition.places[*last].id.0));
    }
    shown.end();
    members.end();
    Ok(())
}

/// The last sequence number of a shard that is over; of one without records, the one that it begins with.
async fn end_of<R: Runtime>(
    service: &Service<R>,
    found: &Found,
    place: usize,
) -> Result<Option<u64>, ApiError> {
    let newest = ReadRequest {
        newest: true,
        records_max: 1,
        ..found.request(place, 0)
    };
    let done = service.records(&found.table, place, newest).await?;
    let begin = CommitTimestamp::from_unix_ms(found.stream.created_ms).0;
    let last = done.records.first().map_or(begin, |(commit, _)| *commit);
    Ok(Some(last).filter(|_| done.is_over))
}

pub(super) async fn get_shard_iterator<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut arn, mut shard, mut kind, mut number): (Text<'_>, Text<'_>, Text<'_>, Text<'_>) =
        (None, None, None, None);
    let mut time_ms = None;
    let unsupported = decode::members(body, |member, reader| match member {
        "StreamArn" => decode::text(reader, &mut arn),
        "ShardId" => decode::text(reader, &mut shard),
        "ShardIteratorType" => decode::text(reader, &mut kind),
        "SequenceNumber" => decode::text(reader, &mut number),
        "Timestamp" => {
            time_ms = Some(milliseconds(reader.number()?));
            Ok(true)
        }
        _ => Ok(false),
    })?;
    let mut constraints = Constraints::new();
    required(&mut constraints, arn.as_deref(), "streamArn", ARN_BYTES);
    required(&mut constraints, shard.as_deref(), "shardId", SHARD_ID_BYTES);
    constraints.required(kind.as_ref(), "shardIteratorType");
    constraints.one_of(kind.as_deref(), "shardIteratorType", &ITERATOR_TYPES);
    let path = "sequenceNumber";
    length(&mut constraints, number.as_deref(), path, SEQUENCE_NUMBER_BYTES);
    constraints.finish()?;
    unsupported.check()?;
    let kind = kind.expect("required");
    let number = match (kind.ends_with("_SEQUENCE_NUMBER"), number) {
        (true, Some(number)) => Some(number.parse::<u64>().map_err(|_| invalid_number())?),
        (true, None) => return Err(invalid_number()),
        (false, Some(_)) => {
            return Err(ApiError::parameters(
                "SequenceNumber should not be passed for this iterator type",
            ));
        }
        (false, None) => None,
    };
    let now_ms = service.runtime().unix_ms();
    let time_ms = match (&*kind, time_ms) {
        ("AT_TIMESTAMP", Some(time_ms)) if time_ms <= now_ms => Some(time_ms),
        ("AT_TIMESTAMP", _) => return Err(ApiError::parameters("Invalid Timestamp")),
        (_, Some(_)) => {
            return Err(ApiError::parameters(
                "Timestamp should not be passed for this iterator type",
            ));
        }
        (_, None) => None,
    };
    let found = find(service, &arn.expect("required"))?;
    let shard = shard.expect("required");
    let place = found.place_of(&shard).ok_or_else(|| {
        ApiError::new(
            RESOURCE_NOT_FOUND,
            format!(
                "Requested resource not found: Shard: {shard} in Stream: {} not found",
                found.arn
            ),
        )
    })?;
    let since = time_ms.map(|time_ms| CommitTimestamp::from_unix_ms(time_ms).0);
    // A moment before everything that is kept is the beginning of that, which moves on.
    let since = since.filter(|since| *since > found.horizon(now_ms));
    let from_horizon = since.is_none() && matches!(&*kind, "TRIM_HORIZON" | "AT_TIMESTAMP");
    let after = match (number, &*kind) {
        _ if from_horizon => 0,
        (None, "AT_TIMESTAMP") => since.map_or(0, |since| since - 1),
        (number, kind) => {
            let newest = service
                .records(&found.table, place, found.request(place, 0))
                .await?;
            match number {
                None => newest.floor,
                Some(number) if number < found.horizon(now_ms) => {
                    return Err(ApiError::new(TRIMMED, PAST_THE_OLDEST));
                }
                // Nothing was ever given out that is above all there is, but for the beginning of a shard.
                Some(number) if number > newest.floor.max(begin_of(&found)) => {
                    return Err(invalid_number());
                }
                Some(number) if kind == "AT_SEQUENCE_NUMBER" => number.saturating_sub(1),
                Some(number) => number,
            }
        }
    };
    let iterator = ShardIterator {
        table: found.definition().id.0,
        stream: found.stream.created_ms,
        partition: found.definition().places[place].id.0,
        after,
        from_horizon,
        issued_ms: now_ms,
    };
    let mut members = Members::begin(out);
    members.string("ShardIterator", &iterator.encode(&found.arn));
    members.end();
    Ok(())
}

/// A time of a request, which is in seconds, in milliseconds; 0 for what was before 1970.
fn milliseconds(seconds: &str) -> u64 {
    // Of all times that a clock can have a f64 tells the millisecond; the conversion keeps within the bounds of its result.
    let seconds: f64 = seconds.parse().unwrap_or(f64::INFINITY);
    (seconds * 1000.0).round() as u64
}

/// The number that a shard is said to begin with.
fn begin_of(found: &Found) -> u64 {
    CommitTimestamp::from_unix_ms(found.stream.created_ms).0
}

fn invalid_number() -> ApiError {
    ApiError::parameters("Invalid SequenceNumber")
}

pub(super) async fn get_records<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut iterator, mut count): (Text<'_>, _) = (None, None);
    let unsupported = decode::members(body, |member, reader| match member {
        "ShardIterator" => decode::text(reader, &mut iterator),
        "Limit" => decode::integer(reader, &mut count),
        _ => Ok(false),
    })?;
    let mut constraints = Constraints::new();
    required(
        &mut constraints,
        iterator.as_deref(),
        "shardIterator",
        ITERATOR_BYTES,
    );
    constraints.at_least(count, "limit", 1);
    constraints.finish()?;
    unsupported.check()?;
    if count.is_some_and(|count| count > RECORDS_MAX) {
        return Err(ApiError::parameters(format!(
            "Limit should be less than or equal to {RECORDS_MAX}"
        )));
    }
    let text = iterator.expect("required");
    let (iterator, arn) = ShardIterator::decode(&text)?;
    let now_ms = service.runtime().unix_ms();
    if iterator.issued_ms.saturating_add(LIFE_MS) < now_ms {
        return Err(ApiError::new(
            EXPIRED_ITERATOR,
            "Shard iterator has expired. Use a new shard iterator.",
        ));
    }
    let found = find(service, arn)?;
    let definition = found.definition();
    let is_same = (definition.id.0, found.stream.created_ms) == (iterator.table, iterator.stream);
    let place = definition
        .places
        .iter()
        .position(|place| is_same && place.id.0 == iterator.partition);
    let place = place.ok_or_else(|| ApiError::new(RESOURCE_NOT_FOUND, "Invalid ShardId in ShardIterator"))?;
    let horizon = found.horizon(now_ms);
    let before_horizon = horizon.saturating_sub(1);
    let after = match iterator.from_horizon {
        true => iterator.after.max(before_horizon),
        false => iterator.after,
    };
    let request = ReadRequest {
        records_max: limit(count, RECORDS_MAX),
        ..found.request(place, after)
    };
    let done = service.records(&found.table, place, request).await?;
    if done.records.first().is_some_and(|(commit, _)| *commit < horizon) {
        return Err(ApiError::new(TRIMMED, PAST_THE_OLDEST));
    }
    let mut members = Members::begin(out);
    write_records(
        members.member("Records"),
        service,
        &found,
        iterator.partition,
        &done,
    )?;
    if !(done.is_all && done.is_over) {
        let last = done.records.last().map_or(after, |(commit, _)| *commit);
        let next = ShardIterator {
            // What has passed its time by now was read, or could not be read any more before this page.
            after: last.max(before_horizon),
            from_horizon: false,
            issued_ms: now_ms,
            ..iterator
        };
        members.string("NextShardIterator", &next.encode(&found.arn));
    }
    members.end();
    Ok(())
}

fn write_records<R: Runtime>(
    out: &mut Vec<u8>,
    service: &Service<R>,
    found: &Found,
    partition: u64,
    done: &ReadDone,
) -> Result<(), ApiError> {
    out.push(b'[');
    for (index, (commit, record)) in done.records.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let record = Record::decode(record).expect("it was read by the shard that has it");
        write_record(out, service, found, (partition, *commit), &record)?;
    }
    out.push(b']');
    Ok(())
}

fn write_record<R: Runtime>(
    out: &mut Vec<u8>,
    service: &Service<R>,
    found: &Found,
    (partition, commit): (u64, u64),
    record: &Record<'_>,
) -> Result<(), ApiError> {
    let keys = keys_of(found.definition(), record.key)?;
    let mut members = Members::begin(out);
    // A partition's timestamps are its own, and each is given to one change.
    members.string("eventID", &format!("{partition:016x}{commit:016x}"));
    members.string("eventName", record.event.name());
    members.string("eventVersion", "1.1");
    members.string("eventSource", "aws:dynamodb");
    members.string("awsRegion", service.region());
    let mut change = Members::begin(members.member("dynamodb"));
    let seconds = CommitTimestamp(commit).unix_ms() / 1000;
    change.number("ApproximateCreationDateTime", seconds);
    let list = change.member("Keys");
    list.push(b'{');
    let mut size = 0;
    for (index, (name, value)) in keys.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        write_string(list, name);
        list.push(b':');
        let value = value.to_value();
        write_value(list, &value);
        size += name.len() as u64 + value.size() as u64;
    }
    list.push(b'}');
    for (name, image) in [("NewImage", record.new), ("OldImage", record.old)] {
        if let Some((item, item_bytes)) = image {
            write_item_view(change.member(name), stored_view(item));
            size += u64::from(item_bytes);
        }
    }
    change.string("SequenceNumber", &sequence_number(commit));
    change.number("SizeBytes", size);
    change.string("StreamViewType", record.view.name());
    change.end();
    if record.is_expiry {
        let mut identity = Members::begin(members.member("userIdentity"));
        identity.string("PrincipalId", "dynamodb.amazonaws.com");
        identity.string("Type", "Service");
        identity.end();
    }
    members.end();
    Ok(())
}

/// The key attributes that a storage key holds.
fn keys_of<'a>(definition: &'a TableDefinition, key: &[u8]) -> Result<Vec<(&'a str, KeyValue)>, ApiError> {
    let of = &definition.partition_key;
    let sort = definition.sort_key.as_ref();
    let decoded = StorageKey::decode(key, of.kind, sort.map(|sort| sort.kind));
    let (.., partition_value, sort_value) = decoded
        .ok_or_else(|| ApiError::internal("a record of a stream has a key that its table cannot have"))?;
    let name = |key: &'a KeyAttribute| key.name.as_str();
    let mut keys = vec![(name(of), partition_value)];
    keys.extend(sort.map(name).zip(sort_value));
    Ok(keys)
}
