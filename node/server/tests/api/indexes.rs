//! Secondary indexes: what they hold, how they are read, and that they equal their table after anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use expect_test::expect;
use serde_json::{Value, json};

use crate::Machine;

/// A table with an index of every kind. `local` and `global` are sparse: not every item has their keys.
pub(crate) fn create(machine: &Machine, table: &str) {
    let key = |names: &[(&str, &str)]| -> Value {
        let pairs = names.iter();
        pairs
            .map(|(name, role)| json!({"AttributeName": name, "KeyType": role}))
            .collect()
    };
    let index = |name: &str, keys: &[(&str, &str)], projection: Value| json!({"IndexName": name, "KeySchema": key(keys), "Projection": projection});
    let (all, keys) = (
        json!({"ProjectionType": "ALL"}),
        json!({"ProjectionType": "KEYS_ONLY"}),
    );
    let include = json!({"ProjectionType": "INCLUDE", "NonKeyAttributes": ["size", "note"]});
    let body = json!({
        "TableName": table,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": key(&[("id", "HASH"), ("n", "RANGE")]),
        "AttributeDefinitions": [
            {"AttributeName": "color", "AttributeType": "S"},
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "n", "AttributeType": "N"},
            {"AttributeName": "size", "AttributeType": "N"},
        ],
        "LocalSecondaryIndexes": [
            index("local-all", &[("id", "HASH"), ("color", "RANGE")], all.clone()),
            index("local-keys", &[("id", "HASH"), ("size", "RANGE")], keys.clone()),
            index("local-some", &[("id", "HASH"), ("color", "RANGE")], include.clone()),
        ],
        "GlobalSecondaryIndexes": [
            index("global-all", &[("color", "HASH")], all),
            index("global-keys", &[("color", "HASH"), ("size", "RANGE")], keys),
            index("global-some", &[("size", "HASH"), ("n", "RANGE")], include),
        ],
    });
    machine.ok("CreateTable", &body.to_string());
}

pub(crate) fn put(machine: &Machine, table: &str, item: &Value) {
    let body = json!({"TableName": table, "Item": item});
    machine.ok("PutItem", &body.to_string());
}

/// All items of a table or index, page by page.
fn scan(machine: &Machine, table: &str, index: Option<&str>, limit: u64) -> Vec<Value> {
    let mut all = Vec::new();
    let mut start = Value::Null;
    loop {
        let mut body = json!({"TableName": table, "Limit": limit});
        if let Some(index) = index {
            body["IndexName"] = json!(index);
        }
        if !start.is_null() {
            body["ExclusiveStartKey"] = start;
        }
        let mut answer = machine.ok("Scan", &body.to_string());
        assert!(answer["ScannedCount"].as_u64().unwrap() <= limit);
        all.extend(answer["Items"].as_array().unwrap().iter().cloned());
        start = answer["LastEvaluatedKey"].take();
        if start.is_null() {
            return all;
        }
    }
}

fn sorted(items: impl IntoIterator<Item = Value>) -> Vec<String> {
    let items: BTreeSet<String> = items.into_iter().map(|item| item.to_string()).collect();
    items.into_iter().collect()
}

/// What an index must hold of these items.
fn projected(items: &[Value], keys: &[&str], attributes: Option<&[&str]>) -> Vec<Value> {
    let of_index = |item: &&Value| keys.iter().all(|key| item.get(key).is_some());
    let project = |item: &Value| match attributes {
        None => item.clone(),
        Some(attributes) => {
            let members = item.as_object().unwrap().iter();
            let kept = members.filter(|(name, _)| {
                let name = name.as_str();
                attributes.contains(&name) || keys.contains(&name) || ["id", "n"].contains(&name)
            });
            kept.map(|(name, value)| (name.clone(), value.clone())).collect()
        }
    };
    items.iter().filter(of_index).map(project).collect()
}

/// A name, the keys, and what is projected beside them: none is everything.
pub(crate) type Row = (
    &'static str,
    &'static [&'static str],
    Option<&'static [&'static str]>,
);

/// Every index.
pub(crate) const INDEXES: [Row; 6] = [
    ("local-all", &["id", "color"], None),
    ("local-keys", &["id", "size"], Some(&[])),
    ("local-some", &["id", "color"], Some(&["size", "note"])),
    ("global-all", &["color"], None),
    ("global-keys", &["color", "size"], Some(&[])),
    ("global-some", &["size", "n"], Some(&["size", "note"])),
];

/// Every index equals the table, and their counts say so.
fn check_indexes(machine: &Machine, table: &str) {
    check_these(machine, table, &INDEXES);
}

/// The same of some indexes.
pub(crate) fn check_these(machine: &Machine, table: &str, indexes: &[Row]) {
    let items = scan(machine, table, None, 1000);
    let described = machine.ok("DescribeTable", &json!({"TableName": table}).to_string());
    let described = &described["Table"];
    assert_eq!(described["ItemCount"], items.len());
    for &(name, keys, attributes) in indexes {
        let expected = projected(&items, keys, attributes);
        let limit = if expected.len() > 40 { 17 } else { 3 };
        let found = scan(machine, table, Some(name), limit);
        assert_eq!(found.len(), expected.len(), "{name}");
        let count = expected.len();
        assert_eq!(sorted(found), sorted(expected), "{name}");
        let lists = ["LocalSecondaryIndexes", "GlobalSecondaryIndexes"];
        let indexes = lists
            .iter()
            .filter_map(|list| described[list].as_array())
            .flatten();
        let index = indexes
            .into_iter()
            .find(|index| index["IndexName"] == name)
            .unwrap();
        assert_eq!(index["ItemCount"], count, "{name}");
        assert_eq!(index["IndexSizeBytes"] == 0, count == 0, "{name}");
    }
}

pub(crate) fn random_item(random: &mut cairn_runtime::sim::Random) -> Value {
    let mut item = json!({
        "id": {"S": format!("p{}", random.below(5))},
        "n": {"N": random.below(12).to_string()},
        "note": {"S": "x".repeat(usize::try_from(random.below(200)).unwrap())},
    });
    if random.below(4) > 0 {
        let color = ["red", "green", "blue"][usize::try_from(random.below(3)).unwrap()];
        item["color"] = json!({"S": color});
    }
    if random.below(3) > 0 {
        item["size"] = json!({"N": (random.below(7) as i64 - 3).to_string()});
    }
    if random.below(3) == 0 {
        item["more"] = json!({"L": [{"BOOL": true}]});
    }
    item
}

/// A random write.
pub(crate) fn random_write(random: &mut cairn_runtime::sim::Random, table: &str) -> (&'static str, String) {
    let item = random_item(random);
    let key = json!({"id": item["id"], "n": item["n"]});
    let (operation, body) = match random.below(6) {
        0..3 => ("PutItem", json!({"TableName": table, "Item": item})),
        3 => ("DeleteItem", json!({"TableName": table, "Key": key})),
        4 => {
            let colored = json!({
                "TableName": table, "Key": key, "UpdateExpression": "SET color = :c REMOVE #s",
                "ExpressionAttributeNames": {"#s": "size"},
                "ExpressionAttributeValues": {":c": {"S": "red"}}
            });
            ("UpdateItem", colored)
        }
        _ => {
            let sized = json!({
                "TableName": table, "Key": key, "UpdateExpression": "ADD #s :one REMOVE more",
                "ExpressionAttributeNames": {"#s": "size"},
                "ExpressionAttributeValues": {":one": {"N": "1"}}
            });
            ("UpdateItem", sized)
        }
    };
    (operation, body.to_string())
}

#[test]
fn indexes_equal_their_table() {
    let machine = Machine::new(60, 3);
    create(&machine, "things");
    let mut random = machine.sim.random();
    for _ in 0..6 {
        for _ in 0..60 {
            let (operation, body) = random_write(&mut random, "things");
            machine.ok(operation, &body);
        }
        machine.sim.run_for(Duration::from_millis(500));
        check_indexes(&machine, "things");
    }
}

#[test]
fn indexes_equal_their_table_after_crashes_at_any_number_of_shards() {
    for seed in 0..8 {
        let machine = Machine::new(600 + seed, 2);
        create(&machine, "things");
        let mut random = machine.sim.random();
        for shards in [3, 1, 4, 2] {
            // Many at once, some of them cut off by the crash.
            let running = machine.shards();
            for writer in 0..12 {
                let shard = writer % running;
                let service = machine.service(shard);
                let runtime = machine.sim.runtime(crate::NODE, cairn_runtime::ShardIndex(shard));
                let writes: Vec<_> = (0..20).map(|_| random_write(&mut random, "things")).collect();
                let task = async move {
                    for (operation, body) in writes {
                        // Refused or cut off, all the same.
                        let _ = service.call(operation, body.as_bytes(), &mut Vec::new()).await;
                    }
                };
                cairn_runtime::Runtime::spawn(&runtime, cairn_runtime::Queue::Foreground, task);
            }
            machine.sim.run_for(Duration::from_micros(random.below(60_000)));
            machine.crash();
            machine.start(shards);
            machine.sim.run_for(Duration::from_secs(3));
            check_indexes(&machine, "things");
        }
    }
}

#[test]
fn a_local_index_is_consistent_at_once() {
    let machine = Machine::new(61, 3);
    create(&machine, "things");
    for n in 0..20 {
        let color = if n % 2 == 0 { "red" } else { "blue" };
        put(
            &machine,
            "things",
            &json!({"id": {"S": "a"}, "n": {"N": n.to_string()}, "color": {"S": color}}),
        );
        let query = json!({
            "TableName": "things", "IndexName": "local-all", "ConsistentRead": true, "Select": "COUNT",
            "KeyConditionExpression": "id = :a AND color = :c",
            "ExpressionAttributeValues": {":a": {"S": "a"}, ":c": {"S": color}}
        });
        let answer = machine.ok("Query", &query.to_string());
        assert_eq!(answer["Count"], n / 2 + 1);
    }
}

#[test]
fn a_query_of_an_index_goes_by_its_order() {
    let machine = Machine::new(62, 2);
    create(&machine, "things");
    let mut model: BTreeMap<(i64, i64), String> = BTreeMap::new();
    let mut random = machine.sim.random();
    for _ in 0..60 {
        let (n, size) = (random.below(40) as i64, random.below(9) as i64 - 4);
        let id = format!("p{}", random.below(3));
        let item = json!({
            "id": {"S": id}, "n": {"N": n.to_string()},
            "size": {"N": size.to_string()}, "color": {"S": "red"}
        });
        model.retain(|(_, other), of| !(other == &n && of == &id));
        // One id for each pair, so that the order is the model's.
        if model.contains_key(&(size, n)) {
            machine.ok(
                "DeleteItem",
                &json!({"TableName": "things", "Key": {"id": {"S": id}, "n": {"N": n.to_string()}}})
                    .to_string(),
            );
            continue;
        }
        put(&machine, "things", &item);
        model.insert((size, n), id);
    }
    machine.sim.run_for(Duration::from_millis(500));
    for (forward, limit, from) in [(true, 3, -4), (false, 4, -2), (true, 100, 1), (false, 1, 0)] {
        let mut sizes = Vec::new();
        let mut start = Value::Null;
        loop {
            let mut query = json!({
                "TableName": "things", "IndexName": "global-keys", "ScanIndexForward": forward, "Limit": limit,
                "KeyConditionExpression": "color = :c AND #s >= :s", "ExpressionAttributeNames": {"#s": "size"},
                "ExpressionAttributeValues": {":c": {"S": "red"}, ":s": {"N": from.to_string()}}
            });
            if !start.is_null() {
                query["ExclusiveStartKey"] = start;
            }
            let mut answer = machine.ok("Query", &query.to_string());
            for item in answer["Items"].as_array().unwrap() {
                sizes.push(item["size"]["N"].as_str().unwrap().parse::<i64>().unwrap());
            }
            start = answer["LastEvaluatedKey"].take();
            if start.is_null() {
                break;
            }
            assert_eq!(start.as_object().unwrap().len(), 4);
        }
        let mut expected: Vec<i64> = model.keys().map(|(size, _)| *size).collect();
        expected.retain(|size| *size >= from);
        if !forward {
            expected.reverse();
        }
        assert_eq!(sizes, expected, "{forward} {limit} {from}");
    }
}

#[test]
fn whole_items_are_fetched_by_a_local_index_only() {
    let machine = Machine::new(63, 2);
    create(&machine, "things");
    put(
        &machine,
        "things",
        &json!({"id": {"S": "a"}, "n": {"N": "1"}, "color": {"S": "red"}, "size": {"N": "2"}, "more": {"S": "m"}}),
    );
    machine.sim.run_for(Duration::from_millis(200));
    let query = |index: &str, key: &str, value: Value, extra: Value| {
        let mut query = json!({
            "TableName": "things", "IndexName": index, "ReturnConsumedCapacity": "INDEXES",
            "KeyConditionExpression": format!("{key} = :v"), "ExpressionAttributeValues": {":v": value}
        });
        for (name, value) in extra.as_object().unwrap() {
            query[name] = value.clone();
        }
        machine.call("Query", &query.to_string())
    };
    let id = json!({"S": "a"});
    expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":0.5,"Table":{"CapacityUnits":0.0},"LocalSecondaryIndexes":{"local-keys":{"CapacityUnits":0.5}}},"Count":1,"Items":[{"id":{"S":"a"},"n":{"N":"1"},"size":{"N":"2"}}],"ScannedCount":1}"#]]
        .assert_eq(&query("local-keys", "id", id.clone(), json!({})));
    expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":1.0,"Table":{"CapacityUnits":0.5},"LocalSecondaryIndexes":{"local-keys":{"CapacityUnits":0.5}}},"Count":1,"Items":[{"color":{"S":"red"},"id":{"S":"a"},"more":{"S":"m"},"n":{"N":"1"},"size":{"N":"2"}}],"ScannedCount":1}"#]]
        .assert_eq(&query("local-keys", "id", id.clone(), json!({"Select": "ALL_ATTRIBUTES"})));
    expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":2.0,"Table":{"CapacityUnits":1.0},"LocalSecondaryIndexes":{"local-keys":{"CapacityUnits":1.0}}},"Count":1,"Items":[{"more":{"S":"m"}}],"ScannedCount":1}"#]]
        .assert_eq(&query("local-keys", "id", id, json!({"ProjectionExpression": "more", "ConsistentRead": true})));
    let color = json!({"S": "red"});
    expect![[r#"400 ValidationException: One or more parameter values were invalid: Select type ALL_ATTRIBUTES is not supported for global secondary index global-keys because its projection type is not ALL"#]]
        .assert_eq(&query("global-keys", "color", color.clone(), json!({"Select": "ALL_ATTRIBUTES"})));
    expect![[r#"400 ValidationException: One or more parameter values were invalid: Global secondary index global-keys does not project [more]"#]]
        .assert_eq(&query("global-keys", "color", color.clone(), json!({"ProjectionExpression": "more, id"})));
    expect![[r#"400 ValidationException: One or more parameter values were invalid: Secondary index global-keys does not project one or more filter attributes: [more]"#]]
        .assert_eq(&query("global-keys", "color", color.clone(), json!({"FilterExpression": "attribute_exists(more) OR id = :v"})));
    expect![[r#"400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: IndexKey: color"#]]
        .assert_eq(&machine.call("Scan", r#"{"TableName":"things","ProjectionExpression":"color[0]"}"#));
    expect![[r#"400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: IndexKey: color"#]]
        .assert_eq(&machine.call("GetItem", r#"{"TableName":"things","Key":{"id":{"S":"a"},"n":{"N":"1"}},"ProjectionExpression":"id, color.a"}"#));
    expect![[r#"400 ValidationException: Consistent reads are not supported on global secondary indexes"#]]
        .assert_eq(&query(
            "global-all",
            "color",
            color.clone(),
            json!({"ConsistentRead": true}),
        ));
    expect![[r#"400 ValidationException: The table does not have the specified index: nothing"#]]
        .assert_eq(&query("nothing", "color", color, json!({})));
}

#[test]
fn keys_of_indexes_are_checked_when_items_are_written() {
    let machine = Machine::new(64, 2);
    create(&machine, "things");
    let put = |color: &str| {
        format!(r#"{{"TableName":"things","Item":{{"id":{{"S":"a"}},"n":{{"N":"1"}},"color":{color}}}}}"#)
    };
    machine.check("PutItem", &put(r#"{"N":"1"}"#), expect![[r#"400 ValidationException: One or more parameter values were invalid: Type mismatch for Index Key color Expected: S Actual: N IndexName: global-all"#]]);
    machine.check("PutItem", &put(r#"{"S":""}"#), expect![[r#"400 ValidationException: One or more parameter values are not valid. A value specified for a secondary index key is not supported. The AttributeValue for a key attribute cannot contain an empty string value. IndexName: global-all, IndexKey: color"#]]);
    let long = "x".repeat(2049);
    machine.check("PutItem", &put(&format!(r#"{{"S":"{long}"}}"#)), expect![[r#"400 ValidationException: One or more parameter values were invalid: Size limit exceeded for Index Key color Actual Size: 2049 bytes Max Size: 2048 bytes IndexName: global-all"#]]);
    let update = |color: &str| {
        format!(
            r#"{{"TableName":"things","Key":{{"id":{{"S":"a"}},"n":{{"N":"1"}}}},"UpdateExpression":"SET color = :c","ExpressionAttributeValues":{{":c":{color}}}}}"#
        )
    };
    machine.check("UpdateItem", &update(r#"{"S":""}"#), expect![[r#"400 ValidationException: One or more parameter values are not valid. The update expression attempted to update a secondary index key to a value that is not supported. The AttributeValue for a key attribute cannot contain an empty string value."#]]);
    machine.check("UpdateItem", &update(r#"{"BOOL":true}"#), expect![[r#"400 ValidationException: One or more parameter values were invalid: Type mismatch for Index Key color Expected: S Actual: BOOL IndexName: global-all"#]]);
    let batch = r#"{"RequestItems":{"things":[{"PutRequest":{"Item":{"id":{"S":"b"},"n":{"N":"1"}}}},{"PutRequest":{"Item":{"id":{"S":"c"},"n":{"N":"1"},"size":{"S":"x"}}}}]}}"#;
    machine.check("BatchWriteItem", batch, expect![[r#"400 ValidationException: One or more parameter values were invalid: Type mismatch for Index Key size Expected: N Actual: S IndexName: global-keys"#]]);
    assert_eq!(machine.ok("Scan", r#"{"TableName":"things"}"#)["Count"], 0);
}

#[test]
fn writes_say_what_they_took_of_each_index() {
    let machine = Machine::new(65, 2);
    create(&machine, "things");
    let put = |color: &str, note: usize| {
        let note = "x".repeat(note);
        format!(
            r#"{{"TableName":"things","ReturnConsumedCapacity":"INDEXES","ReturnItemCollectionMetrics":"SIZE","Item":{{"id":{{"S":"a"}},"n":{{"N":"1"}},"color":{{"S":"{color}"}},"note":{{"S":"{note}"}}}}}}"#
        )
    };
    machine.check("PutItem", &put("red", 10), expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":4.0,"Table":{"CapacityUnits":1.0},"LocalSecondaryIndexes":{"local-all":{"CapacityUnits":1.0},"local-some":{"CapacityUnits":1.0}},"GlobalSecondaryIndexes":{"global-all":{"CapacityUnits":1.0}}},"ItemCollectionMetrics":{"ItemCollectionKey":{"id":{"S":"a"}},"SizeEstimateRangeGB":[0.0,1.0]}}"#]]);
    // The same again changes no index.
    machine.check("PutItem", &put("red", 10), expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":1.0,"Table":{"CapacityUnits":1.0}},"ItemCollectionMetrics":{"ItemCollectionKey":{"id":{"S":"a"}},"SizeEstimateRangeGB":[0.0,1.0]}}"#]]);
    // Another key: the old entry goes, the new one comes.
    machine.check("PutItem", &put("blue", 1500), expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":11.0,"Table":{"CapacityUnits":2.0},"LocalSecondaryIndexes":{"local-all":{"CapacityUnits":3.0},"local-some":{"CapacityUnits":3.0}},"GlobalSecondaryIndexes":{"global-all":{"CapacityUnits":3.0}}},"ItemCollectionMetrics":{"ItemCollectionKey":{"id":{"S":"a"}},"SizeEstimateRangeGB":[0.0,1.0]}}"#]]);
    machine.check(
        "DeleteItem",
        r#"{"TableName":"things","ReturnConsumedCapacity":"TOTAL","Key":{"id":{"S":"a"},"n":{"N":"1"}}}"#,
        expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":8.0}}"#]],
    );
}

#[test]
fn starting_keys_of_indexes_are_checked() {
    let machine = Machine::new(66, 2);
    create(&machine, "things");
    let query = |start: &str| {
        format!(
            r##"{{"TableName":"things","IndexName":"global-keys","KeyConditionExpression":"color = :c AND #s > :s","ExpressionAttributeNames":{{"#s":"size"}},"ExpressionAttributeValues":{{":c":{{"S":"red"}},":s":{{"N":"1"}}}},"ExclusiveStartKey":{start}}}"##
        )
    };
    let key = |color: &str, size: &str| {
        format!(r#"{{"color":{{"S":"{color}"}},"size":{{"N":"{size}"}},"id":{{"S":"a"}},"n":{{"N":"1"}}}}"#)
    };
    machine.check(
        "Query",
        &query(&key("red", "2")),
        expect![[r#"{"Count":0,"Items":[],"ScannedCount":0}"#]],
    );
    machine.check(
        "Query",
        &query(&key("red", "1")),
        expect![[
            r#"400 ValidationException: The provided starting key does not match the range key predicate"#
        ]],
    );
    machine.check(
        "Query",
        &query(&key("blue", "2")),
        expect![[r#"400 ValidationException: The query can return at most one row and cannot be restarted"#]],
    );
    machine.check(
        "Query",
        &query(r#"{"color":{"S":"red"},"size":{"N":"2"}}"#),
        expect![[r#"400 ValidationException: The provided starting key is invalid"#]],
    );
    machine.check("Scan", r#"{"TableName":"things","IndexName":"global-all","ExclusiveStartKey":{"color":{"N":"1"},"id":{"S":"a"},"n":{"N":"1"}}}"#, expect![[r#"400 ValidationException: One or more parameter values were invalid: Type mismatch for Index Key color Expected: S Actual: N IndexName: global-all"#]]);
}

#[test]
fn scans_of_an_index_in_segments_are_the_whole() {
    let machine = Machine::new(67, 3);
    create(&machine, "things");
    let mut random = machine.sim.random();
    for _ in 0..80 {
        put(&machine, "things", &random_item(&mut random));
    }
    machine.sim.run_for(Duration::from_millis(500));
    for index in ["local-keys", "global-some"] {
        let whole = sorted(scan(&machine, "things", Some(index), 1000));
        let mut parts = Vec::new();
        for segment in 0..5 {
            let body =
                json!({"TableName": "things", "IndexName": index, "Segment": segment, "TotalSegments": 5});
            let answer = machine.ok("Scan", &body.to_string());
            parts.extend(answer["Items"].as_array().unwrap().iter().cloned());
        }
        assert_eq!(parts.len(), whole.len(), "{index}");
        assert_eq!(sorted(parts), whole, "{index}");
    }
}

/// Each row: what is wrong, the indexes, the answer.
#[test]
fn create_table_checks_indexes_in_order() {
    let machine = Machine::new(68, 1);
    let create = |indexes: &str, attributes: &[&str]| {
        let attributes: Vec<Value> = attributes
            .iter()
            .map(|name| json!({"AttributeName": name, "AttributeType": "S"}))
            .collect();
        format!(
            r#"{{"TableName":"badly","BillingMode":"PAY_PER_REQUEST","KeySchema":[{{"AttributeName":"a","KeyType":"HASH"}},{{"AttributeName":"b","KeyType":"RANGE"}}],"AttributeDefinitions":{},{indexes}}}"#,
            Value::from(attributes)
        )
    };
    let index = |name: &str, hash: &str, range: &str| {
        format!(
            r#"{{"IndexName":"{name}","KeySchema":[{{"AttributeName":"{hash}","KeyType":"HASH"}},{{"AttributeName":"{range}","KeyType":"RANGE"}}],"Projection":{{"ProjectionType":"ALL"}}}}"#
        )
    };
    let local = |list: &str| format!(r#""LocalSecondaryIndexes":[{list}]"#);
    let global = |list: &str| format!(r#""GlobalSecondaryIndexes":[{list}]"#);
    let abc = ["a", "b", "c"];
    machine.check("CreateTable", &create(&local(""), &abc), expect![[r#"400 ValidationException: One or more parameter values were invalid: List of LocalSecondaryIndexes is empty"#]]);
    machine.check("CreateTable", &create(&global(""), &abc), expect![[r#"400 ValidationException: One or more parameter values were invalid: List of GlobalSecondaryIndexes is empty"#]]);
    machine.check("CreateTable", &create(&local(&index("one", "a", "d")), &abc), expect!["400 ValidationException: One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [d, a], AttributeDefinitions: [a, b, c]"]);
    machine.check("CreateTable", &create(&local(&index("one", "c", "b")), &abc), expect![[r#"400 ValidationException: One or more parameter values were invalid: Index KeySchema does not have the same leading hash key as table KeySchema for index: one. index hash key: c, table hash key: a"#]]);
    machine.check(
        "CreateTable",
        &create(
            &local(&[index("one", "a", "c"), index("one", "a", "c")].join(",")),
            &abc,
        ),
        expect![[
            r#"400 ValidationException: One or more parameter values were invalid: Duplicate index name: one"#
        ]],
    );
    machine.check(
        "CreateTable",
        &create(
            &format!(
                "{},{}",
                local(&index("one", "a", "c")),
                global(&index("one", "c", "a"))
            ),
            &abc,
        ),
        expect![[
            r#"400 ValidationException: One or more parameter values were invalid: Duplicate index name: one"#
        ]],
    );
    machine.check("CreateTable", &create(&global(&index("one", "c", "c")), &abc), expect![[r#"400 ValidationException: Both the Hash Key and the Range Key element in the KeySchema have the same name"#]]);
    machine.check("CreateTable", &create(&global(&index("one", "a", "b")), &abc), expect![[r#"400 ValidationException: One or more parameter values were invalid: Some AttributeDefinitions are not used. AttributeDefinitions: [a, b, c], keys used: [a, b]"#]]);
    machine.check("CreateTable", &create(&global(&index("1", "c", "b")), &abc), expect![[r#"400 ValidationException: 1 validation error detected: Value '1' at 'globalSecondaryIndexes.1.member.indexName' failed to satisfy constraint: Member must have length greater than or equal to 3"#]]);
    let six: Vec<String> = (0..6)
        .map(|number| index(&format!("index-{number}"), "a", "c"))
        .collect();
    machine.check("CreateTable", &create(&local(&six.join(",")), &abc), expect![[r#"400 ValidationException: One or more parameter values were invalid: Number of LocalSecondaryIndexes exceeds per-table limit of 5"#]]);
    machine.check("CreateTable", &create(r#""GlobalSecondaryIndexes":[{"IndexName":"one","KeySchema":[{"AttributeName":"c","KeyType":"HASH"}],"Projection":{"ProjectionType":"INCLUDE"}}]"#, &abc), expect![[r#"400 ValidationException: One or more parameter values were invalid: ProjectionType is INCLUDE, but NonKeyAttributes is not specified"#]]);
}

/// Several attributes make a key of a global index; its order is theirs, one after the other.
#[test]
fn an_index_may_have_keys_of_several_attributes() {
    let machine = Machine::new(69, 2);
    let names = ["id", "a", "b", "c", "d"];
    let attributes: Vec<Value> = names
        .iter()
        .map(|name| json!({"AttributeName": name, "AttributeType": "S"}))
        .collect();
    let keys: Vec<Value> = [("a", "HASH"), ("b", "HASH"), ("c", "RANGE"), ("d", "RANGE")]
        .iter()
        .map(|(name, role)| json!({"AttributeName": name, "KeyType": role}))
        .collect();
    let body = json!({
        "TableName": "many", "BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": attributes,
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [
            {"IndexName": "wide", "KeySchema": keys, "Projection": {"ProjectionType": "KEYS_ONLY"}}
        ]
    });
    machine.ok("CreateTable", &body.to_string());
    for number in 0..24 {
        let b = ["y", "z"][number % 2];
        let item = json!({
            "id": {"S": format!("i{number}")}, "a": {"S": "x"}, "b": {"S": b},
            "c": {"S": format!("c{}", number % 3)}, "d": {"S": format!("d{number:02}")}
        });
        put(&machine, "many", &item);
    }
    put(
        &machine,
        "many",
        &json!({"id": {"S": "sparse"}, "a": {"S": "x"}, "b": {"S": "y"}, "c": {"S": "c"}}),
    );
    machine.sim.run_for(Duration::from_millis(500));
    let query = |condition: &str, values: Value, limit: u64| {
        let mut found = Vec::new();
        let mut start = Value::Null;
        loop {
            let mut body = json!({
                "TableName": "many", "IndexName": "wide", "Limit": limit,
                "KeyConditionExpression": condition, "ExpressionAttributeValues": values
            });
            if !start.is_null() {
                body["ExclusiveStartKey"] = start;
            }
            let mut answer = machine.ok("Query", &body.to_string());
            for item in answer["Items"].as_array().unwrap() {
                let (c, d) = (item["c"]["S"].as_str().unwrap(), item["d"]["S"].as_str().unwrap());
                found.push(format!("{c}{d}"));
            }
            start = answer["LastEvaluatedKey"].take();
            if start.is_null() {
                return found.join(" ");
            }
        }
    };
    let (x, y) = (json!({"S": "x"}), json!({"S": "y"}));
    for limit in [1, 5, 100] {
        expect![[r#"c0d00 c0d06 c0d12 c0d18 c1d04 c1d10 c1d16 c1d22 c2d02 c2d08 c2d14 c2d20"#]]
            .assert_eq(&query("a = :x AND b = :y", json!({":x": x, ":y": y}), limit));
        expect![[r#"c1d10 c1d16"#]].assert_eq(&query(
            "a = :x AND b = :y AND c = :c AND d BETWEEN :l AND :h",
            json!({":x": x, ":y": y, ":c": {"S": "c1"}, ":l": {"S": "d05"}, ":h": {"S": "d16"}}),
            limit,
        ));
        expect![[r#"c2d02 c2d08 c2d14 c2d20"#]].assert_eq(&query(
            "a = :x AND b = :y AND c > :c",
            json!({":x": x, ":y": y, ":c": {"S": "c1"}}),
            limit,
        ));
    }
    let refused = json!({
        "TableName": "many", "IndexName": "wide", "KeyConditionExpression": "a = :x",
        "ExpressionAttributeValues": {":x": x}
    });
    machine.check("Query", &refused.to_string(), expect!["400 ValidationException: HASH key attributes b must have equality conditions specified in the query"]);
}

#[test]
fn a_local_index_cannot_be_deleted() {
    let machine = Machine::new(62, 2);
    create(&machine, "things");
    let body = |name: &str| {
        let updates = json!([{"Delete": {"IndexName": name}}]);
        json!({"TableName": "things", "GlobalSecondaryIndexUpdates": updates}).to_string()
    };
    machine.check(
        "UpdateTable",
        &body("local-all"),
        expect!["400 ValidationException: Cannot delete an index that is not a GlobalSecondaryIndex"],
    );
    machine.ok("UpdateTable", &body("global-all"));
}
