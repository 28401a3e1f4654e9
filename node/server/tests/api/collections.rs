//! The limit of item collections, which a table may have: what is refused, and that what is known of a collection is what it holds.

use std::cell::Cell;
use std::rc::Rc;

use expect_test::expect;
use serde_json::{Value, json};

use crate::Machine;

const LIMIT: usize = 10_000;
const ARN: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/albums";

/// A table with local indexes, one of whole items and one of keys, whose collections come to `LIMIT` bytes at most.
fn create(machine: &Machine) {
    let local = |name: &str, sort: &str, projection: &str| {
        json!({
            "IndexName": name,
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": projection},
        })
    };
    let attribute = |name: &str| json!({"AttributeName": name, "AttributeType": "S"});
    let body = json!({
        "TableName": "albums",
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "n", "KeyType": "RANGE"}],
        "AttributeDefinitions": [attribute("id"), attribute("n"), attribute("color"), attribute("shape")],
        "LocalSecondaryIndexes": [local("colors", "color", "ALL"), local("shapes", "shape", "KEYS_ONLY")],
        "Tags": [{"Key": "cairn:item-collection-bytes-max", "Value": LIMIT.to_string()}],
    });
    machine.ok("CreateTable", &body.to_string());
}

fn item(id: &str, n: usize, color: Option<&str>, shape: Option<&str>, bytes: usize) -> Value {
    let mut item = json!({"id": {"S": id}, "n": {"S": n.to_string()}, "v": {"S": "v".repeat(bytes)}});
    for (name, value) in [("color", color), ("shape", shape)] {
        if let Some(value) = value {
            item[name] = json!({"S": value});
        }
    }
    item
}

/// What an item adds to its collection.
fn adds(item: &Value) -> usize {
    let size = |names: &[&str]| -> usize {
        let sizes = names
            .iter()
            .filter_map(|name| Some(name.len() + item[*name]["S"].as_str()?.len()));
        sizes.sum()
    };
    let whole = size(&["id", "n", "v", "color", "shape"]);
    let colors = if item["color"].is_null() { 0 } else { whole };
    let shapes = if item["shape"].is_null() {
        0
    } else {
        size(&["id", "n", "shape"])
    };
    whole + colors + shapes
}

/// What the collection holds.
fn holds(machine: &Machine, id: &str) -> usize {
    let body = json!({
        "TableName": "albums", "ConsistentRead": true,
        "KeyConditionExpression": "id = :i", "ExpressionAttributeValues": {":i": {"S": id}},
    });
    let answer = machine.ok("Query", &body.to_string());
    answer["Items"].as_array().unwrap().iter().map(adds).sum()
}

fn put_of(item: &Value) -> String {
    json!({"TableName": "albums", "Item": item}).to_string()
}

const TOO_LARGE: &str = "400 ItemCollectionSizeLimitExceededException: Collection size exceeded.";

/// Fills the collection with items of 1,000 bytes and their entries as far as that goes.
fn fill(machine: &Machine, id: &str) -> usize {
    let mut count = 0;
    loop {
        let item = item(id, count, Some("red"), Some("round"), 1000);
        let holds = adds(&item) * (count + 1);
        let answer = machine.call("PutItem", &put_of(&item));
        if holds > LIMIT {
            assert_eq!(answer, TOO_LARGE);
            return count;
        }
        assert_eq!(answer, "{}");
        count += 1;
    }
}

#[test]
fn what_makes_a_collection_too_large_is_refused() {
    let machine = Machine::new(160, 2);
    create(&machine);
    let count = fill(&machine, "a");
    assert_eq!(count, 4);
    assert_eq!(fill(&machine, "b"), 4);
    let large = item("a", 9, Some("red"), None, 1000);
    let batch =
        |put: &Value| json!({"RequestItems": {"albums": [{"PutRequest": {"Item": put}}]}}).to_string();
    assert_eq!(machine.call("BatchWriteItem", &batch(&large)), TOO_LARGE);
    let transaction = json!({"TransactItems": [{"Put": {"TableName": "albums", "Item": large}}]});
    machine.check("TransactWriteItems", &transaction.to_string(), expect![[r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ItemCollectionSizeLimitExceeded] "CancellationReasons":[{"Code":"ItemCollectionSizeLimitExceeded","Message":"Collection size exceeded."}]"#]]);
    let insert = format!(
        "INSERT INTO albums VALUE {{'id': 'a', 'n': '9', 'color': 'red', 'v': '{}'}}",
        "v".repeat(1000)
    );
    assert_eq!(
        machine.call("ExecuteStatement", &json!({"Statement": insert}).to_string()),
        TOO_LARGE
    );
    let statements = json!({"Statements": [{"Statement": insert}]});
    machine.check("BatchExecuteStatement", &statements.to_string(), expect![[r#"{"Responses":[{"Error":{"Code":"ItemCollectionSizeLimitExceeded","Message":"Collection size exceeded."},"TableName":"albums"}]}"#]]);
    let update = |bytes: usize| {
        json!({
            "TableName": "albums", "Key": {"id": {"S": "a"}, "n": {"S": "0"}},
            "UpdateExpression": "SET v = :v", "ExpressionAttributeValues": {":v": {"S": "v".repeat(bytes)}},
        })
        .to_string()
    };
    assert_eq!(machine.call("UpdateItem", &update(3000)), TOO_LARGE);
    // Nothing of this was stored, and what has become known is not told by a start.
    machine.crash();
    machine.start(1);
    assert_eq!(machine.call("UpdateItem", &update(3000)), TOO_LARGE);
    assert_eq!(machine.call("PutItem", &put_of(&large)), TOO_LARGE);
    // What is smaller than before, or does not grow, is taken; so is what has room again.
    assert_eq!(machine.call("UpdateItem", &update(1000)), "{}");
    assert_eq!(machine.call("UpdateItem", &update(10)), "{}");
    assert_eq!(machine.call("PutItem", &put_of(&large)), "{}");
    assert_eq!(machine.call("UpdateItem", &update(1000)), TOO_LARGE);
    let key = json!({"TableName": "albums", "Key": {"id": {"S": "a"}, "n": {"S": "1"}}});
    assert_eq!(machine.call("DeleteItem", &key.to_string()), "{}");
    assert_eq!(machine.call("UpdateItem", &update(1000)), "{}");
    // Without the tag there is no limit.
    let untag = json!({"ResourceArn": ARN, "TagKeys": ["cairn:item-collection-bytes-max"]});
    machine.call("UntagResource", &untag.to_string());
    assert_eq!(machine.call("UpdateItem", &update(30_000)), "{}");
    let tag = |value: &str| {
        let tags = [json!({"Key": "cairn:item-collection-bytes-max", "Value": value})];
        machine.call(
            "TagResource",
            &json!({"ResourceArn": ARN, "Tags": tags}).to_string(),
        )
    };
    for wrong in ["0", "-1", "10 GB", "1125899906842625"] {
        assert!(
            tag(wrong).contains("with a Value from 1 to 1125899906842624"),
            "{wrong}"
        );
    }
    assert_eq!(tag("1000"), "");
    assert_eq!(machine.call("UpdateItem", &update(30_001)), TOO_LARGE);
    assert_eq!(machine.call("UpdateItem", &update(29_000)), "{}");
}

/// Writes at the same time, crashes, and then: a put is taken exactly if the collection has room for it.
#[test]
fn what_is_known_of_a_collection_is_what_it_holds() {
    for seed in 161..165 {
        let machine = Machine::new(seed, 3);
        create(&machine);
        let mut random = seed;
        let mut draw = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((random >> 33) % below).unwrap()
        };
        for round in 0..12 {
            let (left, mut spawned) = (Rc::new(Cell::new(0)), 0);
            for _ in 0..draw(60) {
                let id = ["a", "b"][draw(2)];
                let color = [None, Some("red"), Some("green")][draw(3)];
                let shape = [None, Some("round")][draw(2)];
                let item = item(id, draw(16), color, shape, draw(900));
                let key = json!({"id": item["id"], "n": item["n"]});
                let (operation, body) = match draw(5) {
                    0 => ("DeleteItem", json!({"TableName": "albums", "Key": key})),
                    1 => (
                        "TransactWriteItems",
                        json!({"TransactItems": [{"Put": {"TableName": "albums", "Item": item}}]}),
                    ),
                    2 => (
                        "UpdateItem",
                        json!({
                            "TableName": "albums", "Key": key, "UpdateExpression": "SET v = :v",
                            "ExpressionAttributeValues": {":v": item["v"]},
                        }),
                    ),
                    _ => ("PutItem", json!({"TableName": "albums", "Item": item})),
                };
                spawned += 1;
                let left = Rc::clone(&left);
                machine.spawn(async move |service| {
                    let _ = service
                        .call(operation, body.to_string().as_bytes(), &mut Vec::new())
                        .await;
                    left.set(left.get() + 1);
                });
            }
            if round % 5 == 4 {
                machine.crash();
                machine.start(1 + draw(3));
            } else {
                while left.get() < spawned {
                    assert!(machine.sim.step(), "some writes are never answered");
                }
            }
            for id in ["a", "b"] {
                let before = holds(&machine, id);
                let new = item(id, 99, Some("blue"), None, draw(3000));
                let taken = machine.call("PutItem", &put_of(&new));
                let has_room = before + adds(&new) <= LIMIT;
                assert_eq!(
                    taken,
                    if has_room { "{}" } else { TOO_LARGE },
                    "seed {seed}: {before} and {}",
                    adds(&new)
                );
                let key = json!({"TableName": "albums", "Key": {"id": {"S": id}, "n": {"S": "99"}}});
                machine.ok("DeleteItem", &key.to_string());
            }
        }
    }
}
