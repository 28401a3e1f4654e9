//! Streams: their operations, and what their records say. How they are read, and that to replay one gives its table: [`reading`].

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_runtime::Runtime;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::Machine;

mod reading;

impl Machine {
    fn let_pass(&self, time: Duration) {
        self.run(async move |service| service.runtime().sleep(time).await);
    }

    /// A table with a partition key `id` and a stream of this view.
    fn create_streamed(&self, table: &str, view: &str) -> String {
        let body = json!({
            "TableName": table,
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": view},
        });
        let answer = self.ok("CreateTable", &body.to_string());
        answer["TableDescription"]["LatestStreamArn"]
            .as_str()
            .expect("a table with a stream says which")
            .to_owned()
    }

    fn shard_ids(&self, arn: &str) -> Vec<String> {
        let answer = self.ok("DescribeStream", &json!({ "StreamArn": arn }).to_string());
        let shards = answer["StreamDescription"]["Shards"].as_array().unwrap();
        let id = |shard: &Value| shard["ShardId"].as_str().unwrap().to_owned();
        shards.iter().map(id).collect()
    }

    fn iterator(&self, arn: &str, shard: &str, kind: &str) -> String {
        let body = json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": kind});
        let answer = self.ok("GetShardIterator", &body.to_string());
        answer["ShardIterator"].as_str().unwrap().to_owned()
    }

    /// Records from an iterator to the end, in pages of `limit`; none goes on when the shard is over.
    fn read(&self, iterator: String, limit: u64) -> (Vec<Value>, Option<String>) {
        let mut records = Vec::new();
        let mut next = Some(iterator);
        while let Some(iterator) = &next {
            let body = json!({"ShardIterator": iterator, "Limit": limit});
            let answer = self.ok("GetRecords", &body.to_string());
            let page = answer["Records"].as_array().unwrap().clone();
            assert!(page.len() as u64 <= limit);
            let is_empty = page.is_empty();
            records.extend(page);
            next = answer
                .get("NextShardIterator")
                .map(|next| next.as_str().unwrap().to_owned());
            if is_empty {
                break;
            }
        }
        (records, next)
    }

    /// All records of a stream, shard after shard.
    fn all_records(&self, arn: &str, limit: u64) -> Vec<Value> {
        let mut all = Vec::new();
        for shard in self.shard_ids(arn) {
            all.extend(self.read(self.iterator(arn, &shard, "TRIM_HORIZON"), limit).0);
        }
        all
    }

    /// The items of a table by their `id`.
    fn items(&self, table: &str) -> BTreeMap<String, Value> {
        let mut items = BTreeMap::new();
        let mut body = json!({ "TableName": table });
        loop {
            let answer = self.ok("Scan", &body.to_string());
            for item in answer["Items"].as_array().unwrap() {
                items.insert(item["id"]["S"].as_str().unwrap().to_owned(), item.clone());
            }
            match answer.get("LastEvaluatedKey") {
                Some(key) => body["ExclusiveStartKey"] = key.clone(),
                None => return items,
            }
        }
    }

    fn put(&self, table: &str, id: &str, value: u64) {
        let body = json!({"TableName": table, "Item": {"id": {"S": id}, "n": {"N": value.to_string()}}});
        self.ok("PutItem", &body.to_string());
    }

    fn delete(&self, table: &str, id: &str) {
        let body = json!({"TableName": table, "Key": {"id": {"S": id}}});
        self.ok("DeleteItem", &body.to_string());
    }
}

/// What a record says, but for names and numbers that differ from run to run.
fn said(record: &Value) -> String {
    let change = &record["dynamodb"];
    let image = |name: &str| match change.get(name) {
        Some(image) => image["n"]["N"].as_str().unwrap_or("?").to_owned(),
        None => "-".to_owned(),
    };
    format!(
        "{} {} {} -> {}, {} bytes",
        record["eventName"].as_str().unwrap(),
        change["Keys"]["id"]["S"].as_str().unwrap(),
        image("OldImage"),
        image("NewImage"),
        change["SizeBytes"],
    )
}

#[test]
fn each_view_shows_what_it_says() {
    let machine = Machine::new(71, 2);
    for (view, expected) in [
        (
            "KEYS_ONLY",
            expect![[r#"
                INSERT a - -> -, 3 bytes
                MODIFY a - -> -, 3 bytes
                REMOVE a - -> -, 3 bytes"#]],
        ),
        (
            "NEW_IMAGE",
            expect![[r#"
                INSERT a - -> 1, 9 bytes
                MODIFY a - -> 2, 9 bytes
                REMOVE a - -> -, 3 bytes"#]],
        ),
        (
            "OLD_IMAGE",
            expect![[r#"
                INSERT a - -> -, 3 bytes
                MODIFY a 1 -> -, 9 bytes
                REMOVE a 2 -> -, 9 bytes"#]],
        ),
        (
            "NEW_AND_OLD_IMAGES",
            expect![[r#"
                INSERT a - -> 1, 9 bytes
                MODIFY a 1 -> 2, 15 bytes
                REMOVE a 2 -> -, 9 bytes"#]],
        ),
    ] {
        let arn = machine.create_streamed(view, view);
        machine.put(view, "a", 1);
        // Neither of these changes anything.
        machine.put(view, "a", 1);
        machine.delete(view, "b");
        let body = json!({
            "TableName": view, "Key": {"id": {"S": "a"}}, "UpdateExpression": "SET n = :n",
            "ExpressionAttributeValues": {":n": {"N": "2.0"}},
        });
        machine.ok("UpdateItem", &body.to_string());
        machine.ok("UpdateItem", &body.to_string());
        machine.delete(view, "a");
        let records = machine.all_records(&arn, 2);
        let lines: Vec<String> = records.iter().map(said).collect();
        expected.assert_eq(&lines.join("\n"));
        for record in &records {
            assert_eq!(record["dynamodb"]["StreamViewType"], view);
            assert_eq!(record["eventSource"], "aws:dynamodb");
            assert_eq!(record["eventVersion"], "1.1");
            assert_eq!(record["eventID"].as_str().unwrap().len(), 32);
            assert!(record.get("userIdentity").is_none());
        }
    }
}

#[test]
fn enabling_and_disabling() {
    let machine = Machine::new(72, 2);
    machine.create("plain", &[("id", "S")]);
    let update = |specification: Value, expected: Expect| {
        let body = json!({"TableName": "plain", "StreamSpecification": specification});
        machine.check("UpdateTable", &body.to_string(), expected);
    };
    update(
        json!({"StreamEnabled": false}),
        expect!["400 ValidationException: Table has no stream to disable: TableName: plain"],
    );
    update(
        json!({"StreamEnabled": true}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: If stream is being enabled then UpdateViewType is required"
        ],
    );
    update(
        json!({"StreamEnabled": false, "StreamViewType": "KEYS_ONLY"}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: If stream is being disabled, then UpdateViewType must not be specified"
        ],
    );
    update(
        json!({"StreamViewType": "ALL"}),
        expect![
            "400 ValidationException: 2 validation errors detected: Value null at 'streamSpecification.streamEnabled' failed to satisfy constraint: Member must not be null; Value 'ALL' at 'streamSpecification.streamViewType' failed to satisfy constraint: Member must satisfy enum value set: [NEW_IMAGE, OLD_IMAGE, NEW_AND_OLD_IMAGES, KEYS_ONLY]"
        ],
    );
    let both = json!({
        "TableName": "plain", "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "KEYS_ONLY"},
    });
    machine.check(
        "UpdateTable",
        &both.to_string(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: You cannot modify stream status while updating table IOPS"
        ],
    );
    let streams = |machine: &Machine| {
        let table = machine.ok("DescribeTable", r#"{"TableName":"plain"}"#)["Table"].clone();
        (
            table.get("StreamSpecification").cloned(),
            table.get("LatestStreamArn").cloned(),
        )
    };
    assert_eq!(streams(&machine), (None, None));
    let enable = |view: &str| {
        let body = json!({
            "TableName": "plain", "StreamSpecification": {"StreamEnabled": true, "StreamViewType": view},
        });
        let answer = machine.ok("UpdateTable", &body.to_string());
        assert_eq!(answer["TableDescription"]["TableStatus"], "UPDATING");
        answer["TableDescription"]["LatestStreamArn"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let disable = || {
        let body = json!({"TableName": "plain", "StreamSpecification": {"StreamEnabled": false}});
        machine.ok("UpdateTable", &body.to_string());
    };
    let first = enable("NEW_IMAGE");
    update(
        json!({"StreamEnabled": true, "StreamViewType": "KEYS_ONLY"}),
        expect!["400 ValidationException: Table already has an enabled stream: TableName: plain"],
    );
    let specification = json!({"StreamEnabled": true, "StreamViewType": "NEW_IMAGE"});
    assert_eq!(streams(&machine), (Some(specification), Some(json!(first))));
    for n in 0..20 {
        machine.put("plain", &n.to_string(), n);
    }
    disable();
    assert_eq!(streams(&machine), (None, Some(json!(first))));
    machine.put("plain", "unseen", 1);
    let second = enable("KEYS_ONLY");
    assert_ne!(first, second);
    machine.put("plain", "seen", 1);
    machine.crash();
    machine.start(3);

    // Two streams, the first of them over.
    let list = machine.ok("ListStreams", r#"{"TableName":"plain"}"#);
    let arns: Vec<&str> = list["Streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["StreamArn"].as_str().unwrap())
        .collect();
    assert_eq!(arns, [&first, &second]);
    let describe = |arn: &str| {
        let answer = machine.ok("DescribeStream", &json!({ "StreamArn": arn }).to_string());
        answer["StreamDescription"].clone()
    };
    assert_eq!(describe(&first)["StreamStatus"], "DISABLED");
    assert_eq!(describe(&second)["StreamStatus"], "ENABLED");
    let mut count = 0;
    for shard in describe(&first)["Shards"].as_array().unwrap() {
        let range = &shard["SequenceNumberRange"];
        let id = shard["ShardId"].as_str().unwrap();
        let (records, next) = machine.read(machine.iterator(&first, id, "TRIM_HORIZON"), 3);
        assert_eq!(next, None, "a shard that is over has an end");
        count += records.len();
        if let Some(last) = records.last() {
            assert_eq!(range["EndingSequenceNumber"], last["dynamodb"]["SequenceNumber"]);
            assert!(range["StartingSequenceNumber"].as_str() < range["EndingSequenceNumber"].as_str());
        }
    }
    assert_eq!(count, 20);
    let records = machine.all_records(&second, 10);
    assert_eq!(
        records.iter().map(said).collect::<Vec<_>>(),
        ["INSERT seen - -> -, 6 bytes"]
    );

    // A day later the first is gone, and what the second has seen is not to be read any more.
    machine.let_pass(Duration::from_secs(24 * 3600));
    let list = machine.ok("ListStreams", "{}");
    assert_eq!(list["Streams"].as_array().unwrap().len(), 1);
    assert!(machine.all_records(&second, 10).is_empty());
    let gone = machine.call("DescribeStream", &json!({ "StreamArn": first }).to_string());
    assert_eq!(
        gone,
        format!("400 ResourceNotFoundException: Requested resource not found: Stream: {first} not found")
    );
    // It can be enabled again, and what is gone is forgotten.
    disable();
    let third = enable("OLD_IMAGE");
    assert!(third > second);
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let machine = Machine::new(73, 2);
    let arn = machine.create_streamed("orders", "NEW_IMAGE");
    let shards = machine.shard_ids(&arn);
    assert_eq!(shards.len(), 4);
    let unknown = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000";
    let shard = shards[0].as_str();
    let refused = |operation: &str, body: Value, expected: Expect| {
        machine.check(operation, &body.to_string(), expected);
    };
    refused(
        "DescribeStream",
        json!({}),
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'streamArn' failed to satisfy constraint: Member must not be null"
        ],
    );
    refused(
        "DescribeStream",
        json!({"StreamArn": "arn", "Limit": 0, "ExclusiveStartShardId": "s", "ShardFilter": {"Type": "ALL"}}),
        expect![
            "400 ValidationException: 4 validation errors detected: Value 'arn' at 'streamArn' failed to satisfy constraint: Member must have length greater than or equal to 37; Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1; Value 's' at 'exclusiveStartShardId' failed to satisfy constraint: Member must have length greater than or equal to 28; Value 'ALL' at 'shardFilter.type' failed to satisfy constraint: Member must satisfy enum value set: [CHILD_SHARDS]"
        ],
    );
    refused(
        "DescribeStream",
        json!({"StreamArn": arn, "Limit": 101}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Limit cannot be greater than the maximum: 100"
        ],
    );
    refused(
        "DescribeStream",
        json!({"StreamArn": unknown}),
        expect![
            "400 ResourceNotFoundException: Requested resource not found: Stream: arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000 not found"
        ],
    );
    refused(
        "ListStreams",
        json!({"Limit": 101}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Limit cannot be greater than the maximum allowed size: 100"
        ],
    );
    refused(
        "ListStreams",
        json!({"TableName": "nobody"}),
        expect![[r#"{"Streams":[]}"#]],
    );
    let iterator = |members: Value, expected: Expect| {
        let mut body = json!({"StreamArn": arn, "ShardId": shard});
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        refused("GetShardIterator", body, expected);
    };
    iterator(
        json!({"ShardIteratorType": "OLDEST", "SequenceNumber": "1"}),
        expect![
            "400 ValidationException: 2 validation errors detected: Value 'OLDEST' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set: [AT_SEQUENCE_NUMBER, LATEST, AFTER_SEQUENCE_NUMBER, TRIM_HORIZON, AT_TIMESTAMP]; Value '1' at 'sequenceNumber' failed to satisfy constraint: Member must have length greater than or equal to 21"
        ],
    );
    iterator(
        json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}),
        expect!["400 ValidationException: One or more parameter values were invalid: Invalid SequenceNumber"],
    );
    iterator(
        json!({"ShardIteratorType": "LATEST", "SequenceNumber": "0".repeat(21)}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: SequenceNumber should not be passed for this iterator type"
        ],
    );
    // Without a time, and with one of the next century.
    for members in [json!({}), json!({"Timestamp": 4_102_444_800.5})] {
        let mut members = members;
        members["ShardIteratorType"] = json!("AT_TIMESTAMP");
        iterator(
            members,
            expect!["400 ValidationException: One or more parameter values were invalid: Invalid Timestamp"],
        );
    }
    iterator(
        json!({"ShardIteratorType": "LATEST", "Timestamp": 1}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Timestamp should not be passed for this iterator type"
        ],
    );
    iterator(
        json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "9".repeat(21)}),
        expect!["400 ValidationException: One or more parameter values were invalid: Invalid SequenceNumber"],
    );
    iterator(
        json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "0".repeat(21)}),
        expect![
            "400 TrimmedDataAccessException: The operation attempted to read past the oldest stream record in a shard."
        ],
    );
    iterator(
        json!({"ShardIteratorType": "LATEST", "StreamArn": unknown}),
        expect![
            "400 ResourceNotFoundException: Requested resource not found: Stream: arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000 not found"
        ],
    );
    let other = machine.call(
        "GetShardIterator",
        &json!({"StreamArn": arn, "ShardId": "shardId-00000000000000009999", "ShardIteratorType": "LATEST"})
            .to_string(),
    );
    assert!(
        other.starts_with("400 ResourceNotFoundException: Requested resource not found: Shard:"),
        "{other}"
    );
    refused(
        "GetRecords",
        json!({"ShardIterator": "", "Limit": 0}),
        expect![
            "400 ValidationException: 2 validation errors detected: Value '' at 'shardIterator' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ],
    );
    refused(
        "GetRecords",
        json!({"ShardIterator": format!("{arn}|1|00")}),
        expect!["400 ValidationException: Invalid ShardIterator"],
    );
    let text = machine.iterator(&arn, shard, "LATEST");
    refused(
        "GetRecords",
        json!({"ShardIterator": text, "Limit": 1001}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Limit should be less than or equal to 1000"
        ],
    );
    machine.let_pass(Duration::from_secs(15 * 60 + 1));
    refused(
        "GetRecords",
        json!({"ShardIterator": text}),
        expect!["400 ExpiredIteratorException: Shard iterator has expired. Use a new shard iterator."],
    );
    let last = machine.iterator(&arn, shard, "LATEST");
    machine.ok("DeleteTable", r#"{"TableName":"orders"}"#);
    let gone = machine.call("GetRecords", &json!({"ShardIterator": last}).to_string());
    assert!(gone.starts_with("400 ResourceNotFoundException"), "{gone}");
}

#[test]
fn shards_are_listed_in_pages_and_streams_too() {
    let machine = Machine::new(74, 3);
    let arns: Vec<String> = ["one", "two"]
        .map(|table| machine.create_streamed(table, "KEYS_ONLY"))
        .into();
    let all = machine.shard_ids(&arns[0]);
    let mut paged: Vec<String> = Vec::new();
    let mut body = json!({"StreamArn": arns[0], "Limit": 3});
    loop {
        let answer = machine.ok("DescribeStream", &body.to_string())["StreamDescription"].clone();
        let shards = answer["Shards"].as_array().unwrap();
        assert!((1..=3).contains(&shards.len()));
        paged.extend(
            shards
                .iter()
                .map(|shard| shard["ShardId"].as_str().unwrap().to_owned()),
        );
        match answer.get("LastEvaluatedShardId") {
            Some(last) => body["ExclusiveStartShardId"] = last.clone(),
            None => break,
        }
    }
    assert_eq!(paged, all);
    let filter = json!({"StreamArn": arns[0], "ShardFilter": {"Type": "CHILD_SHARDS", "ShardId": all[0]}});
    let children = machine.ok("DescribeStream", &filter.to_string());
    assert_eq!(
        children["StreamDescription"]["Shards"],
        json!([]),
        "no partition was split"
    );
    let first = machine.ok("ListStreams", r#"{"Limit":1}"#);
    assert_eq!(first["LastEvaluatedStreamArn"], arns[0]);
    let rest = json!({"ExclusiveStartStreamArn": arns[0]}).to_string();
    let rest = machine.ok("ListStreams", &rest);
    assert_eq!(rest["Streams"][0]["StreamArn"], arns[1]);
    assert_eq!(rest.get("LastEvaluatedStreamArn"), None);
}
