//! Drives that fill up, and transactions: what was accepted is carried out, what is new is refused and leaves nothing behind.

use std::time::Duration;

use cairn_runtime::sim::DriveControl;
use serde_json::{Value, json};

use crate::{Machine, NODE};

const DRIVES: [&str; 2] = ["/drive-a", "/drive-b"];

fn drives(machine: &Machine) -> [DriveControl; 2] {
    DRIVES.map(|drive| machine.sim.drive(NODE, drive))
}

/// A machine with things on it. Nobody has looked at its drives for a while: the next commit does.
fn machine(seed: u64) -> Machine {
    let machine = Machine::new(seed, 2);
    machine.create("things", &[("pk", "S")]);
    machine.ok(
        "CreateTable",
        &json!({
            "TableName": "indexed", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "n", "AttributeType": "N"},
            ],
            "GlobalSecondaryIndexes": [{
                "IndexName": "by-n", "KeySchema": [{"AttributeName": "n", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }],
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        })
        .to_string(),
    );
    // The first transaction makes the ledger.
    let puts: Vec<Value> = (0..8).flat_map(|number| both(number, put)).collect();
    machine.ok(
        "TransactWriteItems",
        &json!({ "TransactItems": puts }).to_string(),
    );
    sleep(&machine, Duration::from_secs(2));
    machine
}

fn sleep(machine: &Machine, duration: Duration) {
    machine.run(async move |service| cairn_runtime::Runtime::sleep(service.runtime(), duration).await);
}

fn put(table: &str, number: u64) -> Value {
    json!({"Put": {"TableName": table, "Item": {"pk": {"S": format!("k{number}")}, "n": {"N": "1"}}}})
}

fn update(table: &str, number: u64) -> Value {
    json!({"Update": {
        "TableName": table, "Key": {"pk": {"S": format!("k{number}")}}, "UpdateExpression": "SET n = n + :n",
        "ExpressionAttributeValues": {":n": {"N": "1"}},
    }})
}

fn delete(table: &str, number: u64) -> Value {
    json!({"Delete": {"TableName": table, "Key": {"pk": {"S": format!("k{number}")}}}})
}

/// The same of both tables.
fn both(number: u64, action: fn(&str, u64) -> Value) -> [Value; 2] {
    ["things", "indexed"].map(|table| action(table, number))
}

/// What there is of an item in both tables.
fn n_of(machine: &Machine, number: u64) -> [Option<String>; 2] {
    ["things", "indexed"].map(|table| {
        let body =
            json!({"TableName": table, "Key": {"pk": {"S": format!("k{number}")}}, "ConsistentRead": true});
        let answer = machine.ok("GetItem", &body.to_string());
        Some(answer["Item"]["n"]["N"].as_str()?.to_owned())
    })
}

/// Leaves so little room that it is low, though there is some.
fn fill(machine: &Machine) {
    for drive in drives(machine) {
        drive.set_capacity(drive.used_bytes() + drive.used_bytes() / 16);
    }
}

fn make_room(machine: &Machine) {
    for drive in drives(machine) {
        drive.set_capacity(64 << 30);
    }
}

/// Asks for deletes of nothing in particular until every shard has seen that room is low.
fn let_all_see(machine: &Machine) {
    for number in 0..200 {
        let item = json!({"TableName": "things", "Item": {"pk": {"S": format!("other-{number}")}}});
        machine.call("PutItem", &item.to_string());
        sleep(machine, Duration::from_millis(20));
    }
    for number in 0..40 {
        let item = json!({"TableName": "things", "Item": {"pk": {"S": format!("other-{number}")}}});
        let answer = machine.call("PutItem", &item.to_string());
        assert!(answer.starts_with("503 ServiceUnavailable"), "{answer}");
    }
}

fn is_at_rest(machine: &Machine) -> bool {
    let stats = machine.transaction_stats();
    stats
        .iter()
        .all(|stats| stats.prepared == 0 && stats.held_items == 0)
}

#[test]
fn what_is_decided_while_room_gets_low_is_carried_out() {
    for seed in 0..4 {
        let machine = machine(900 + seed);
        // The first commit, of the marker, looks at the drives.
        fill(&machine);
        let actions: Vec<Value> = (0..8).flat_map(|number| both(number, update)).collect();
        let answer = machine.call(
            "TransactWriteItems",
            &json!({ "TransactItems": actions }).to_string(),
        );
        assert_eq!(answer, "{}");
        for number in 0..8 {
            assert_eq!(
                n_of(&machine, number),
                [Some("2".to_owned()), Some("2".to_owned())]
            );
        }
        assert!(is_at_rest(&machine));
        let_all_see(&machine);
        let answer = machine.call(
            "PutItem",
            &json!({"TableName": "things", "Item": {"pk": {"S": "k0"}}}).to_string(),
        );
        assert!(answer.starts_with("503 ServiceUnavailable"), "{answer}");
    }
}

#[test]
fn what_is_new_is_refused_and_deletes_are_taken_while_room_is_low() {
    let machine = machine(910);
    fill(&machine);
    let_all_see(&machine);
    let write = |actions: Vec<Value>| {
        machine.call(
            "TransactWriteItems",
            &json!({ "TransactItems": actions }).to_string(),
        )
    };
    // One put is enough, wherever it is.
    for actions in [
        (0..4).flat_map(|number| both(number, update)).collect(),
        vec![delete("things", 0), delete("indexed", 1), put("things", 20)],
        vec![delete("things", 0), delete("things", 1), put("indexed", 20)],
    ] {
        let answer = write(actions);
        assert!(answer.starts_with("503 ServiceUnavailable"), "{answer}");
        assert!(answer.contains("/drive-"), "{answer}");
        sleep(&machine, Duration::from_millis(100));
        assert!(is_at_rest(&machine), "{:?}", machine.transaction_stats());
    }
    // A condition is judged before.
    let mut false_condition = put("things", 0);
    false_condition["Put"]["ConditionExpression"] = json!("attribute_not_exists(pk)");
    let answer = write(vec![false_condition, delete("indexed", 0)]);
    assert!(answer.contains("[ConditionalCheckFailed, None]"), "{answer}");
    for number in 0..8 {
        assert_eq!(
            n_of(&machine, number),
            [Some("1".to_owned()), Some("1".to_owned())]
        );
    }
    // What frees room, and what only looks.
    let deletes = (0..4).flat_map(|number| both(number, delete)).collect();
    assert_eq!(write(deletes), "{}");
    let check = json!({"ConditionCheck": {
        "TableName": "things", "Key": {"pk": {"S": "k5"}}, "ConditionExpression": "attribute_exists(pk)",
    }});
    assert_eq!(write(vec![check, delete("indexed", 4)]), "{}");
    assert!(is_at_rest(&machine));
    for number in 0..4 {
        assert_eq!(n_of(&machine, number), [None, None]);
    }
    assert_eq!(n_of(&machine, 4), [Some("1".to_owned()), None]);
    make_room(&machine);
    sleep(&machine, Duration::from_secs(1));
    let puts = (0..8).flat_map(|number| both(number, put)).collect();
    assert_eq!(write(puts), "{}");
    assert_eq!(n_of(&machine, 0), [Some("1".to_owned()), Some("1".to_owned())]);
}

/// A crash, and a restart on drives that are low on room: what was decided before is carried out.
#[test]
fn what_a_crash_leaves_is_ended_while_room_is_low() {
    let mut left = 0;
    for steps in (40..400).step_by(12) {
        let machine = machine(920 + steps);
        let actions: Vec<Value> = (0..8).flat_map(|number| both(number, update)).collect();
        let body = json!({ "TransactItems": actions }).to_string();
        machine.spawn(async move |service| {
            // The crash may come before the answer.
            let _ = service
                .call("TransactWriteItems", body.as_bytes(), &mut Vec::new())
                .await;
        });
        for _ in 0..steps {
            assert!(machine.sim.step(), "the node does nothing any more");
        }
        machine.crash();
        fill(&machine);
        machine.start(2);
        left += u64::from(!is_at_rest(&machine));
        let_all_see(&machine);
        sleep(&machine, Duration::from_secs(5));
        assert!(is_at_rest(&machine), "{steps}: {:?}", machine.transaction_stats());
        let first = n_of(&machine, 0);
        assert!(first[0].is_some() && first[0] == first[1], "{steps}: {first:?}");
        for number in 1..8 {
            assert_eq!(n_of(&machine, number), first, "{steps}");
        }
    }
    assert!(left > 3, "{left}");
}
