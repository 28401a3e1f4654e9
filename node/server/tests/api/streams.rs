//! Streams: their operations, what their records say, and that to replay a stream gives its table.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_engine::ids::CommitTimestamp;
use cairn_runtime::Runtime;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::Machine;

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

/// Replays records on items that there were before; sequence numbers must ascend, and images be those of the items.
fn replay(records: &[Value], items: &mut BTreeMap<String, Value>) {
    let mut last = String::new();
    for record in records {
        let change = &record["dynamodb"];
        let number = change["SequenceNumber"].as_str().unwrap().to_owned();
        assert!(number > last, "{number} behind {last}");
        last = number;
        let id = change["Keys"]["id"]["S"].as_str().unwrap().to_owned();
        let old = items.get(&id).cloned();
        assert_eq!(change.get("OldImage").cloned(), old, "{record}");
        let event = match (&old, change.get("NewImage")) {
            (None, Some(_)) => "INSERT",
            (Some(_), Some(_)) => "MODIFY",
            (Some(_), None) => "REMOVE",
            (None, None) => panic!("a record of nothing: {record}"),
        };
        assert_eq!(record["eventName"], event);
        match change.get("NewImage") {
            Some(new) => items.insert(id, new.clone()),
            None => items.remove(&id),
        };
    }
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

#[test]
fn iterators_begin_where_they_say() {
    let machine = Machine::new(75, 2);
    let arn = machine.create_streamed("steps", "NEW_IMAGE");
    for n in 1..=5 {
        machine.put("steps", "a", n);
    }
    let shards = machine.shard_ids(&arn);
    let of_shard = |shard: &String| {
        machine
            .read(machine.iterator(&arn, shard, "TRIM_HORIZON"), 1000)
            .0
    };
    let shard = shards.iter().find(|shard| !of_shard(shard).is_empty()).unwrap();
    let records = of_shard(shard);
    let number = |at: usize| records[at]["dynamodb"]["SequenceNumber"].clone();
    let begin = |kind: &str, at: usize| {
        let body = json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": kind, "SequenceNumber": number(at)});
        let answer = machine.ok("GetShardIterator", &body.to_string());
        answer["ShardIterator"].as_str().unwrap().to_owned()
    };
    assert_eq!(machine.read(begin("AT_SEQUENCE_NUMBER", 2), 10).0, records[2..]);
    assert_eq!(
        machine.read(begin("AFTER_SEQUENCE_NUMBER", 2), 10).0,
        records[3..]
    );
    assert!(machine.read(begin("AFTER_SEQUENCE_NUMBER", 4), 10).0.is_empty());
    let since = |time: Value| {
        let body = json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": time});
        let answer = machine.ok("GetShardIterator", &body.to_string());
        let iterator = answer["ShardIterator"].as_str().unwrap().to_owned();
        machine.read(iterator, 10).0
    };
    let time = |at: usize| {
        let number: u64 = number(at).as_str().unwrap().parse().unwrap();
        CommitTimestamp(number).unix_ms()
    };
    for at in 0..5 {
        // Those of the same millisecond are there as well.
        let first = (0..5).find(|other| time(*other) >= time(at)).unwrap();
        let seconds = Duration::from_millis(time(at)).as_secs_f64();
        assert_eq!(since(json!(seconds)), records[first..]);
    }
    let behind = Duration::from_millis(time(4) + 1).as_secs_f64();
    machine.let_pass(Duration::from_millis(5));
    assert!(since(json!(behind)).is_empty());
    for long_ago in [json!(-1), json!(0), json!(1_500_000_000)] {
        assert_eq!(since(long_ago), records);
    }
    let latest = machine.iterator(&arn, shard, "LATEST");
    let (none, next) = machine.read(latest.clone(), 10);
    assert!(none.is_empty());
    machine.put("steps", "a", 6);
    for iterator in [latest, next.unwrap()] {
        let (records, _) = machine.read(iterator, 10);
        assert_eq!(
            records.iter().map(said).collect::<Vec<_>>(),
            ["MODIFY a - -> 6, 9 bytes"]
        );
    }
}

#[test]
fn what_has_passed_its_time_is_missed_and_an_idle_reader_misses_nothing() {
    let machine = Machine::new(76, 2);
    let arn = machine.create_streamed("days", "NEW_IMAGE");
    machine.put("days", "a", 1);
    let shards = machine.shard_ids(&arn);
    let read = |shard: &String| machine.read(machine.iterator(&arn, shard, "TRIM_HORIZON"), 10).0;
    let shard = shards.iter().find(|shard| !read(shard).is_empty()).unwrap();
    let minutes = |minutes: u64| machine.let_pass(Duration::from_secs(60 * minutes));
    minutes(24 * 60 - 5);
    machine.put("days", "a", 2);
    // One reader stands before the first record, the other behind the second.
    let sequence = read(shard)[0]["dynamodb"]["SequenceNumber"].clone();
    let body = json!({"StreamArn": arn, "ShardId": shard, "ShardIteratorType": "AT_SEQUENCE_NUMBER", "SequenceNumber": sequence});
    let slow = machine.ok("GetShardIterator", &body.to_string())["ShardIterator"].clone();
    let (_, idle) = machine.read(machine.iterator(&arn, shard, "LATEST"), 10);
    minutes(10);
    machine.check(
        "GetRecords",
        &json!({"ShardIterator": slow}).to_string(),
        expect!["400 TrimmedDataAccessException: The operation attempted to read past the oldest stream record in a shard."],
    );
    machine.check(
        "GetShardIterator",
        &body.to_string(),
        expect!["400 TrimmedDataAccessException: The operation attempted to read past the oldest stream record in a shard."],
    );
    let lines = |records: Vec<Value>| records.iter().map(said).collect::<Vec<_>>();
    assert_eq!(lines(read(shard)), ["MODIFY a - -> 2, 9 bytes"]);
    // It goes on asking for two days, and then there is something.
    let mut idle = idle.unwrap();
    for _ in 0..2 * 24 * 6 {
        let (records, next) = machine.read(idle, 10);
        assert!(records.is_empty());
        idle = next.unwrap();
        minutes(10);
    }
    machine.put("days", "a", 3);
    assert_eq!(lines(machine.read(idle, 10).0), ["MODIFY a - -> 3, 9 bytes"]);

    // Longer, where the table says so.
    let tag = |value: &str| {
        let table = arn.split_once("/stream/").unwrap().0;
        let body = json!({"ResourceArn": table, "Tags": [{"Key": "cairn:stream-hours", "Value": value}]});
        machine.call("TagResource", &body.to_string())
    };
    for wrong in ["23", "8785", "1d", "", "+24", "024", " 24", "-24", "24.0"] {
        let answer = tag(wrong);
        assert!(
            answer.contains("cairn:stream-hours with a Value from 24 to 8784"),
            "{answer}"
        );
    }
    assert_eq!(tag("72"), "");
    minutes(60 * 60);
    assert_eq!(lines(read(shard)), ["MODIFY a - -> 3, 9 bytes"]);
    minutes(13 * 60);
    assert!(read(shard).is_empty());
}

#[test]
fn whatever_changes_items_has_records() {
    let machine = Machine::new(77, 3);
    let arn = machine.create_streamed("all", "NEW_AND_OLD_IMAGES");
    let put =
        |id: &str, n: u64| json!({"PutRequest": {"Item": {"id": {"S": id}, "n": {"N": n.to_string()}}}});
    let batch = json!({"RequestItems": {"all": [put("a", 1), put("b", 2), put("c", 3)]}});
    machine.ok("BatchWriteItem", &batch.to_string());
    let delete = json!({"RequestItems": {"all": [{"DeleteRequest": {"Key": {"id": {"S": "a"}}}}]}});
    machine.ok("BatchWriteItem", &delete.to_string());
    for statement in [
        r#"INSERT INTO "all" VALUE {'id': 'd', 'n': 4}"#,
        r#"UPDATE "all" SET n = 5 WHERE id = 'd'"#,
        r#"DELETE FROM "all" WHERE id = 'b'"#,
    ] {
        machine.ok("ExecuteStatement", &json!({ "Statement": statement }).to_string());
    }
    let transaction = json!({"TransactItems": [
        {"Put": {"TableName": "all", "Item": {"id": {"S": "t"}, "n": {"N": "6"}}}},
        {"Update": {"TableName": "all", "Key": {"id": {"S": "c"}}, "UpdateExpression": "SET n = :n",
            "ExpressionAttributeValues": {":n": {"N": "7"}}}},
    ]});
    machine.ok("TransactWriteItems", &transaction.to_string());
    // What is refused changes nothing.
    let refused = json!({
        "TableName": "all", "Item": {"id": {"S": "c"}}, "ConditionExpression": "attribute_not_exists(id)",
    });
    assert!(
        machine
            .call("PutItem", &refused.to_string())
            .starts_with("400 Conditional")
    );
    let ttl = json!({"TableName": "all", "TimeToLiveSpecification": {"AttributeName": "n", "Enabled": true}});
    let now = machine.run(async |service| service.runtime().unix_ms() / 1000);
    machine.put("all", "e", now + 5);
    machine.ok("UpdateTimeToLive", &ttl.to_string());
    machine.let_pass(Duration::from_secs(30));
    let mut expired = 0;
    let records = machine.all_records(&arn, 1000);
    for record in &records {
        let by_service = json!({"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"});
        let is_expiry = record["eventName"] == "REMOVE" && record["dynamodb"]["Keys"]["id"]["S"] == "e";
        assert_eq!(record.get("userIdentity"), is_expiry.then_some(&by_service));
        expired += u64::from(is_expiry);
    }
    assert_eq!(expired, 1);
    let mut lines: Vec<String> = records
        .iter()
        .filter(|record| record["dynamodb"]["Keys"]["id"]["S"] != "e")
        .map(said)
        .collect();
    lines.sort();
    expect![[r#"
        INSERT a - -> 1, 9 bytes
        INSERT b - -> 2, 9 bytes
        INSERT c - -> 3, 9 bytes
        INSERT d - -> 4, 9 bytes
        INSERT t - -> 6, 9 bytes
        MODIFY c 3 -> 7, 15 bytes
        MODIFY d 4 -> 5, 15 bytes
        REMOVE a 1 -> -, 9 bytes
        REMOVE b 2 -> -, 9 bytes"#]]
    .assert_eq(&lines.join("\n"));
    let mut items = BTreeMap::new();
    for shard in machine.shard_ids(&arn) {
        let records = machine.read(machine.iterator(&arn, &shard, "TRIM_HORIZON"), 2).0;
        replay(&records, &mut items);
    }
    assert_eq!(items, machine.items("all"));
}

#[test]
fn pages_end_at_a_megabyte() {
    let machine = Machine::new(78, 2);
    let arn = machine.create_streamed("large", "NEW_AND_OLD_IMAGES");
    for n in 0..6 {
        let text = n.to_string().repeat(200_000);
        let body =
            json!({"TableName": "large", "Item": {"id": {"S": "a"}, "n": {"N": "1"}, "text": {"S": text}}});
        machine.ok("PutItem", &body.to_string());
    }
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    for shard in machine.shard_ids(&arn) {
        let mut iterator = machine.iterator(&arn, &shard, "TRIM_HORIZON");
        loop {
            let answer = machine.ok("GetRecords", &json!({"ShardIterator": iterator}).to_string());
            let records = answer["Records"].as_array().unwrap();
            if records.is_empty() {
                break;
            }
            sizes.push(records.len());
            all.extend(records.clone());
            iterator = answer["NextShardIterator"].as_str().unwrap().to_owned();
        }
    }
    // 200 KB, then 400 KB each.
    assert_eq!(sizes, [3, 2, 1]);
    let mut items = BTreeMap::new();
    replay(&all, &mut items);
    assert_eq!(items, machine.items("large"));
}

/// Writers that are cut off by crashes, in tables with and without indexes: what the stream says is what the table holds.
#[test]
fn a_replayed_stream_is_its_table_after_any_crash() {
    for seed in 0..12 {
        let machine = Machine::new(700 + seed, 1 + usize::try_from(seed).unwrap() % 3);
        let arn = machine.create_streamed("replayed", "NEW_AND_OLD_IMAGES");
        let mut random = machine.sim.random();
        for round in 0..4 {
            for writer in 0..6_u64 {
                let mut choices: Vec<(u64, u64)> = Vec::new();
                for _ in 0..40 {
                    choices.push((random.below(12), random.below(4)));
                }
                machine.spawn(async move |service| {
                    for (id, value) in choices {
                        let key = json!({"id": {"S": id.to_string()}});
                        let (operation, body) = match (value, writer % 3) {
                            (0, _) => ("DeleteItem", json!({"TableName": "replayed", "Key": key})),
                            (_, 0) => (
                                "UpdateItem",
                                json!({
                                    "TableName": "replayed", "Key": key, "UpdateExpression": "ADD n :n",
                                    "ExpressionAttributeValues": {":n": {"N": value.to_string()}},
                                }),
                            ),
                            _ => (
                                "PutItem",
                                json!({
                                    "TableName": "replayed",
                                    "Item": {"id": {"S": id.to_string()}, "n": {"N": value.to_string()}},
                                }),
                            ),
                        };
                        let mut out = Vec::new();
                        // The node may stop at any moment.
                        let _ = service
                            .call(operation, body.to_string().as_bytes(), &mut out)
                            .await;
                    }
                });
            }
            machine.sim.run_for(Duration::from_micros(random.below(30_000)));
            if round % 2 == 0 {
                machine.crash();
            } else {
                machine.sim.run_for(Duration::from_secs(2));
                machine.stop();
            }
            machine.start(1 + usize::try_from(random.below(4)).unwrap());
            let mut items = BTreeMap::new();
            for shard in machine.shard_ids(&arn) {
                let limit = 1 + random.below(50);
                replay(
                    &machine
                        .read(machine.iterator(&arn, &shard, "TRIM_HORIZON"), limit)
                        .0,
                    &mut items,
                );
            }
            assert_eq!(items, machine.items("replayed"), "seed {seed} round {round}");
        }
    }
}
