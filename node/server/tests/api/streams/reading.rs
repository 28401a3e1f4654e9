//! Streams as their readers see them: where iterators begin, what is missed, how pages end, and that to replay a stream gives its
//! table.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_engine::ids::CommitTimestamp;
use cairn_runtime::Runtime;
use expect_test::expect;
use serde_json::{Value, json};

use super::said;
use crate::Machine;

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
