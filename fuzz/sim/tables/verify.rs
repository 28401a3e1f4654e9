//! What must hold of the tables at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cairn::api::{ApiError, Service};
use cairn_runtime::Runtime;
use cairn_runtime::sim::SimRuntime;
use serde_json::{Value, json};

use super::clients::{Ledger, TABLE, call};
use super::transactions::{self, PLAIN};

pub(super) type Items = BTreeMap<String, Value>;

/// How often it is tried again while items expire or an index is behind.
const TRIES_MAX: usize = 400;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// Seconds after which what has expired must have gone.
const EXPIRED_SECONDS_MAX: u64 = 90;

/// Why it does not hold, or that the node could not say.
pub(super) enum Refusal {
    Wrong(String),
    Unanswered(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Refusal {
        Refusal::Unanswered(error)
    }
}

/// Checks the tables; how many records the stream has. `unfinished` tells of transactions that are not at their end.
pub(super) async fn verify(
    service: &Service<SimRuntime>,
    runtime: &SimRuntime,
    ledger: &Ledger,
    unfinished: impl Fn() -> Option<String>,
) -> Result<usize, Refusal> {
    let acknowledged = ledger.acknowledged.borrow().clone();
    let mut last = String::new();
    for _ in 0..TRIES_MAX {
        // What is found undone is done behind it: the rest is looked at when nothing is.
        let undone = unfinished();
        let records = records(service).await?;
        let items = scan(service, TABLE, None).await?;
        let replayed = replay(ledger, &acknowledged, &records)?;
        let difference = match first_difference(&items, &replayed.items) {
            Some(key) => Some(format!("the replayed stream does not give the table: {key}")),
            None => index_difference(service, &items).await?,
        };
        let difference = difference.or_else(|| long_expired(runtime, &items));
        let difference = match difference.or(undone) {
            None => {
                let plain = scan(service, PLAIN, None).await?;
                by_half(ledger, &replayed.written)
                    .or_else(|| transactions::difference(ledger, &items, &plain))
            }
            difference => difference,
        };
        match difference {
            None => return Ok(records.iter().map(Vec::len).sum()),
            // Items expire meanwhile, global indexes follow, and what a crash has left of transactions is ended.
            Some(difference) => last = difference,
        }
        runtime.sleep(PAUSE).await;
    }
    Err(Refusal::Wrong(last))
}

pub(super) fn key_of(item: &Value) -> String {
    format!("{} {}", item["id"]["S"], item["n"]["N"])
}

fn first_difference(one: &Items, other: &Items) -> Option<String> {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differs = |key: &&&String| one.get(**key) != other.get(**key);
    let key = keys.iter().find(differs)?;
    Some(format!(
        "{key}: {:?} against {:?}",
        one.get(*key),
        other.get(*key)
    ))
}

/// The records of each shard of the stream.
async fn records(service: &Service<SimRuntime>) -> Result<Vec<Vec<Value>>, ApiError> {
    let table = call(service, "DescribeTable", json!({ "TableName": TABLE })).await?;
    let arn = &table["Table"]["LatestStreamArn"];
    let stream = call(service, "DescribeStream", json!({ "StreamArn": arn })).await?;
    let mut all = Vec::new();
    for shard in stream["StreamDescription"]["Shards"]
        .as_array()
        .unwrap_or(&Vec::new())
    {
        let begin =
            json!({"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"});
        let mut iterator = call(service, "GetShardIterator", begin).await?["ShardIterator"].clone();
        let mut records = Vec::new();
        loop {
            let page = call(
                service,
                "GetRecords",
                json!({"ShardIterator": iterator, "Limit": 97}),
            )
            .await?;
            let page_records = page["Records"].as_array().cloned().unwrap_or_default();
            if page_records.is_empty() {
                break;
            }
            records.extend(page_records);
            iterator = page["NextShardIterator"].clone();
        }
        all.push(records);
    }
    Ok(all)
}

/// What a stream says.
struct Replayed {
    /// The items that it leaves.
    items: Items,
    /// Numbers of the writes that it has records of.
    written: BTreeSet<u64>,
}

/// A transaction of which some writes have records, and others none.
fn by_half(ledger: &Ledger, written: &BTreeSet<u64>) -> Option<String> {
    let groups = ledger.groups.borrow();
    let is_half = |group: &&Vec<u64>| {
        let count = group.iter().filter(|number| written.contains(number)).count();
        count > 0 && count < group.len()
    };
    let group = groups.iter().find(is_half)?;
    let left = group.iter().filter(|number| !written.contains(number));
    Some(format!(
        "of the writes {group:?} of one transaction there are no records of {:?}",
        left.collect::<Vec<_>>()
    ))
}

fn replay(ledger: &Ledger, acknowledged: &BTreeSet<u64>, shards: &[Vec<Value>]) -> Result<Replayed, Refusal> {
    let mut items = Items::new();
    let mut seen = BTreeSet::new();
    let mut removed: BTreeMap<String, u64> = BTreeMap::new();
    let wrong = |what: &str, record: &Value| Err(Refusal::Wrong(format!("{what}: {record}")));
    for records in shards {
        let mut last = String::new();
        for record in records {
            let change = &record["dynamodb"];
            let number = change["SequenceNumber"].as_str().unwrap_or_default();
            if number <= last.as_str() {
                return wrong("a record is out of order", record);
            }
            number.clone_into(&mut last);
            let key = key_of(&change["Keys"]);
            let (old, new) = (change.get("OldImage"), change.get("NewImage"));
            if old != items.get(&key) {
                return wrong("an old image is not the item that was there", record);
            }
            let event = match (old, new) {
                (None, Some(_)) => "INSERT",
                (Some(_), Some(_)) => "MODIFY",
                _ => "REMOVE",
            };
            if record["eventName"] != event || old == new {
                return wrong("a record says what was not done", record);
            }
            let is_expiry = record.get("userIdentity").is_some();
            let created = change["ApproximateCreationDateTime"].as_u64().unwrap_or(0);
            let expired = old.and_then(ttl_of).is_some_and(|second| second <= created + 60);
            if is_expiry && (new.is_some() || !expired) {
                return wrong("the service has deleted what had not expired", record);
            }
            match new {
                Some(new) => {
                    let version = new["v"]["N"].as_str().and_then(|text| text.parse::<u64>().ok());
                    let Some(version) = version.filter(|version| ledger.was_asked(*version)) else {
                        return wrong("a record of a write that nobody asked for", record);
                    };
                    if ledger.never.borrow().contains(&version) {
                        return wrong("a record of a write that was refused", record);
                    }
                    if !seen.insert(version) {
                        return wrong("a write was carried out twice", record);
                    }
                    items.insert(key, new.clone());
                }
                None => {
                    if !is_expiry {
                        let count = removed.entry(key.clone()).or_default();
                        *count += 1;
                        if *count > ledger.deletes.borrow().get(&key).copied().unwrap_or(0) {
                            return wrong("a record of a deletion that nobody asked for", record);
                        }
                    }
                    items.remove(&key);
                }
            }
        }
    }
    match acknowledged.difference(&seen).next() {
        Some(lost) => Err(Refusal::Wrong(format!(
            "write {lost} was acknowledged and has no record"
        ))),
        None => Ok(Replayed { items, written: seen }),
    }
}

fn ttl_of(item: &Value) -> Option<u64> {
    item["ttl"]["N"].as_str()?.parse().ok()
}

/// An item that should be gone for long.
fn long_expired(runtime: &SimRuntime, items: &Items) -> Option<String> {
    let now = runtime.unix_ms() / 1000;
    let is_due = |item: &&Value| ttl_of(item).is_some_and(|second| second + EXPIRED_SECONDS_MAX < now);
    let item = items.values().find(is_due)?;
    Some(format!("what has expired is still there: {item}"))
}

async fn scan(service: &Service<SimRuntime>, table: &str, index: Option<&str>) -> Result<Items, ApiError> {
    let mut items = Items::new();
    let mut body = json!({ "TableName": table });
    if let Some(index) = index {
        body["IndexName"] = json!(index);
    }
    loop {
        let page = call(service, "Scan", body.clone()).await?;
        for item in page["Items"].as_array().unwrap_or(&Vec::new()) {
            items.insert(key_of(item), item.clone());
        }
        match page.get("LastEvaluatedKey") {
            Some(key) => body["ExclusiveStartKey"] = key.clone(),
            None => return Ok(items),
        }
    }
}

/// Where an index does not hold what the items say.
async fn index_difference(service: &Service<SimRuntime>, items: &Items) -> Result<Option<String>, ApiError> {
    let mut by_weight = Items::new();
    let mut by_color = Items::new();
    for (key, item) in items {
        if item.get("weight").is_some() {
            let entry = json!({"id": item["id"], "n": item["n"], "weight": item["weight"]});
            by_weight.insert(key.clone(), entry);
            if item.get("color").is_some() {
                by_color.insert(key.clone(), item.clone());
            }
        }
    }
    for (index, expected) in [("by-weight", by_weight), ("by-color", by_color)] {
        let found = scan(service, TABLE, Some(index)).await?;
        if let Some(difference) = first_difference(&found, &expected) {
            return Ok(Some(format!("index {index}: {difference}")));
        }
    }
    Ok(None)
}
