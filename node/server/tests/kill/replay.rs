//! Replays a table's stream and compares what comes of it with the table.

use std::collections::BTreeMap;

use cairn_protocol::client::Client;
use serde_json::{Value, json};

async fn call(client: &Client, operation: &str, body: Value) -> Value {
    let answer = client.json(operation, body.to_string().as_bytes()).await;
    serde_json::from_slice(&answer.unwrap()).unwrap()
}

/// Every change must be of the item that the records before it left; how many records there were.
pub(crate) async fn verify(client: &Client, table: &str) -> u64 {
    let described = call(client, "DescribeTable", json!({ "TableName": table })).await;
    let arn = &described["Table"]["LatestStreamArn"];
    let stream = call(client, "DescribeStream", json!({ "StreamArn": arn })).await;
    let mut items: BTreeMap<String, Value> = BTreeMap::new();
    let mut records = 0;
    for shard in stream["StreamDescription"]["Shards"].as_array().unwrap() {
        let body = json!({
            "StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON",
        });
        let mut iterator = call(client, "GetShardIterator", body).await["ShardIterator"].clone();
        loop {
            let page = call(client, "GetRecords", json!({ "ShardIterator": iterator })).await;
            let changes = page["Records"].as_array().unwrap();
            for record in changes {
                let change = &record["dynamodb"];
                let key = change["Keys"]["p"]["S"].as_str().unwrap().to_owned();
                assert_eq!(change.get("OldImage"), items.get(&key), "{key}");
                match change.get("NewImage") {
                    Some(new) => items.insert(key, new.clone()),
                    None => items.remove(&key),
                };
                records += 1;
            }
            if changes.is_empty() {
                break;
            }
            iterator = page["NextShardIterator"].clone();
        }
    }
    assert_eq!(items, scan(client, table).await);
    records
}

async fn scan(client: &Client, table: &str) -> BTreeMap<String, Value> {
    let mut items = BTreeMap::new();
    let mut body = json!({ "TableName": table });
    loop {
        let page = call(client, "Scan", body.clone()).await;
        for item in page["Items"].as_array().unwrap() {
            items.insert(item["p"]["S"].as_str().unwrap().to_owned(), item.clone());
        }
        match page.get("LastEvaluatedKey") {
            Some(key) => body["ExclusiveStartKey"] = key.clone(),
            None => return items,
        }
    }
}
