//! What streams say: all records that are new since the last look, of each item in their order.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::compare::ordered;

/// Pages of one shard at one look, at most.
const PAGES_MAX: usize = 1_000;

/// How far the streams of one server have been read.
#[derive(Default)]
pub(crate) struct Cursors {
    /// The last sequence number seen, by stream and shard.
    seen: BTreeMap<(String, String), String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Cursors {
    /// The records that are new, by item; `None` when the table has no stream.
    pub(crate) fn read(
        &mut self,
        client: &mut Client,
        table: &str,
        into: &mut Option<BTreeMap<String, Vec<Value>>>,
    ) -> Result<(), String> {
        let described = client.call("DescribeTable", &json!({"TableName": table}))?;
        let arn = &described.body["Table"]["LatestStreamArn"];
        let Some(arn) = arn.as_str().map(str::to_owned) else {
            return Ok(());
        };
        let into = into.get_or_insert_default();
        let mut ask = json!({"StreamArn": arn});
        loop {
            let stream = good(client.call("DescribeStream", &ask)?)?;
            for shard in stream["StreamDescription"]["Shards"]
                .as_array()
                .into_iter()
                .flatten()
            {
                self.read_shard(client, &arn, &text(&shard["ShardId"]), into)?;
            }
            match &stream["StreamDescription"]["LastEvaluatedShardId"] {
                Value::String(last) => ask["ExclusiveStartShardId"] = last.as_str().into(),
                _ => return Ok(()),
            }
        }
    }

    fn read_shard(
        &mut self,
        client: &mut Client,
        arn: &str,
        shard: &str,
        into: &mut BTreeMap<String, Vec<Value>>,
    ) -> Result<(), String> {
        let place = (arn.to_owned(), shard.to_owned());
        let mut ask = json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"});
        if let Some(seen) = self.seen.get(&place) {
            ask["ShardIteratorType"] = "AFTER_SEQUENCE_NUMBER".into();
            ask["SequenceNumber"] = seen.as_str().into();
        }
        let mut iterator = good(client.call("GetShardIterator", &ask)?)?["ShardIterator"].take();
        for _ in 0..PAGES_MAX {
            if !iterator.is_string() {
                return Ok(());
            }
            let mut page = good(client.call("GetRecords", &json!({"ShardIterator": iterator}))?)?;
            iterator = page["NextShardIterator"].take();
            let records = page["Records"].as_array_mut().map(std::mem::take);
            let records = records.unwrap_or_default();
            if records.is_empty() {
                return Ok(());
            }
            for record in records {
                let change = &record["dynamodb"];
                self.seen.insert(place.clone(), text(&change["SequenceNumber"]));
                let key = ordered(&change["Keys"]).to_string();
                into.entry(key).or_default().push(comparable(&record));
            }
        }
        Err(format!("shard {shard} of {arn} does not end"))
    }
}

/// What is the same of two servers' records of one change.
fn comparable(record: &Value) -> Value {
    let change = &record["dynamodb"];
    let mut kept = serde_json::Map::new();
    for name in ["eventName", "eventVersion", "eventSource", "userIdentity"] {
        kept.insert(name.to_owned(), record[name].clone());
    }
    for name in ["OldImage", "NewImage", "StreamViewType", "SizeBytes"] {
        kept.insert(name.to_owned(), whole(&ordered(&change[name])));
    }
    kept.into()
}

/// Local's streams show an empty map within a document as `{}`.
fn whole(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let one = |(name, value): (&String, &Value)| {
                let is_content = ["M", "N", "S"].contains(&name.as_str());
                let value = match value.as_object() {
                    Some(empty) if empty.is_empty() && !is_content => json!({"M": {}}),
                    _ => whole(value),
                };
                (name.clone(), value)
            };
            Value::Object(members.iter().map(one).collect())
        }
        Value::Array(list) => {
            let one = |value: &Value| match value.as_object() {
                Some(empty) if empty.is_empty() => json!({"M": {}}),
                _ => whole(value),
            };
            Value::Array(list.iter().map(one).collect())
        }
        other => other.clone(),
    }
}

fn good(answer: Answer) -> Result<Value, String> {
    match answer.is_ok() {
        true => Ok(answer.body),
        false => Err(format!("a stream cannot be read: {answer}")),
    }
}

/// The same as an answer.
pub(crate) fn answer(records: &Option<BTreeMap<String, Vec<Value>>>) -> Answer {
    Answer {
        status: 200,
        body: json!({"Records": records}),
    }
}

/// Leaves the items out of which both say the same: what is left is what is to be looked at.
pub(crate) fn leave_out_same(node: &mut Answer, peer: &mut Answer) {
    let (left, right) = (&mut node.body["Records"], &mut peer.body["Records"]);
    if let (Some(left), Some(right)) = (left.as_object_mut(), right.as_object_mut()) {
        let same: Vec<String> = left
            .iter()
            .filter(|(key, records)| right.get(*key) == Some(*records))
            .map(|(key, _)| key.clone())
            .collect();
        for key in same {
            left.remove(&key);
            right.remove(&key);
        }
    }
}
