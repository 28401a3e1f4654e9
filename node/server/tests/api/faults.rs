//! Drives that go, too many requests at once, and the same run twice.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{Queue, Runtime, ShardIndex};

use crate::{Machine, NODE};

fn put(machine: &Machine, id: usize) {
    machine.ok(
        "PutItem",
        &format!(r#"{{"TableName":"things","Item":{{"id":{{"S":"i{id}"}},"n":{{"N":"{id}"}}}}}}"#),
    );
}

fn check_all(machine: &Machine, count: usize) {
    for id in 0..count {
        let answer = machine.ok(
            "GetItem",
            &format!(r#"{{"TableName":"things","Key":{{"id":{{"S":"i{id}"}}}}}}"#),
        );
        assert_eq!(answer["Item"]["n"]["N"], id.to_string());
    }
}

#[test]
fn one_drive_less_is_degraded_and_serving() {
    let machine = Machine::new(50, 3);
    machine.create("things", &[("id", "S")]);
    for id in 0..20 {
        put(&machine, id);
    }
    machine.sim.drive(NODE, "/drive-b").detach();
    for id in 20..40 {
        put(&machine, id);
    }
    check_all(&machine, 40);
    machine.crash();
    machine.start(2);
    check_all(&machine, 40);
    put(&machine, 40);
    // The stale mirror alone is not believed.
    machine.crash();
    machine.sim.drive(NODE, "/drive-b").attach();
    machine.sim.drive(NODE, "/drive-a").detach();
    let refused = machine.try_start(2).unwrap_err();
    assert!(
        refused.contains("/drive-a") || refused.contains("/drive-b"),
        "{refused}"
    );
    machine.sim.drive(NODE, "/drive-a").attach();
    machine.crash();
    machine.start(4);
    check_all(&machine, 41);
}

#[test]
fn a_second_node_on_the_same_drives_is_refused() {
    let machine = Machine::new(51, 2);
    let second = machine.try_start(2).unwrap_err();
    assert!(
        second.contains("/drive-a") || second.contains("/state"),
        "{second}"
    );
}

/// Every shard asks every other for more than their mailboxes hold, all at once.
#[test]
fn floods_in_both_directions_are_answered() {
    const EACH: usize = 3000;
    let machine = Machine::new(52, 2);
    machine.create("things", &[("id", "S")]);
    let (stored, refused) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for shard in 0..2 {
        let runtime = machine.sim.runtime(NODE, ShardIndex(shard));
        for index in 0..EACH {
            let (stored, refused) = (Rc::clone(&stored), Rc::clone(&refused));
            let service = machine.service(shard);
            runtime.spawn(Queue::Foreground, async move {
                let body = format!(
                    r#"{{"TableName":"things","Item":{{"id":{{"S":"i{}"}},"n":{{"N":"1"}}}}}}"#,
                    shard * EACH + index
                );
                match service.call("PutItem", body.as_bytes(), &mut Vec::new()).await {
                    Ok(()) => stored.set(stored.get() + 1),
                    Err(error) => {
                        assert_eq!(error.name(), "ProvisionedThroughputExceededException", "{error}");
                        refused.set(refused.get() + 1);
                    }
                }
            });
        }
    }
    while stored.get() + refused.get() < 2 * EACH {
        assert!(machine.sim.step(), "some requests are never answered");
    }
    let mut count = 0;
    let mut start = String::new();
    loop {
        let page = machine.ok(
            "Scan",
            &format!(r#"{{"TableName":"things","Select":"COUNT"{start}}}"#),
        );
        count += page["Count"].as_u64().unwrap();
        match page.get("LastEvaluatedKey") {
            Some(key) => start = format!(r#","ExclusiveStartKey":{key}"#),
            None => break,
        }
    }
    assert_eq!(count, stored.get() as u64);
    assert!(stored.get() > 0);
}

/// More waits for a shard whose drives stand still than its mailbox holds: who is refused is told which table is throttled.
#[test]
fn what_is_throttled_is_told() {
    const WRITES: usize = 11_500;
    let machine = Machine::new(55, 2);
    machine.create("things", &[("id", "S")]);
    for drive in ["/drive-a", "/drive-b"] {
        machine.sim.drive(NODE, drive).stall_for(Duration::from_secs(3));
    }
    let (stored, refused) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let runtime = machine.sim.runtime(NODE, ShardIndex(0));
    for id in 0..WRITES {
        let (stored, refused) = (Rc::clone(&stored), Rc::clone(&refused));
        let service = machine.service(0);
        runtime.spawn(Queue::Foreground, async move {
            let body = format!(r#"{{"TableName":"things","Item":{{"id":{{"S":"i{id}"}}}}}}"#);
            match service.call("PutItem", body.as_bytes(), &mut Vec::new()).await {
                Ok(()) => stored.set(stored.get() + 1),
                Err(error) => {
                    assert_eq!(error.name(), "ProvisionedThroughputExceededException", "{error}");
                    assert_eq!(
                        error.extra,
                        r#""ThrottlingReasons":[{"reason":"TableWriteKeyRangeThroughputExceeded","resource":"arn:aws:dynamodb:us-east-1:000000000000:table/things"}]"#
                    );
                    refused.set(refused.get() + 1);
                }
            }
        });
    }
    while stored.get() + refused.get() < WRITES {
        assert!(machine.sim.step(), "some requests are never answered");
    }
    assert!(stored.get() > 0);
    assert!(refused.get() > 0, "there was room for all of them");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed: u64| {
        let machine = Machine::new(seed, 3);
        machine.create("things", &[("id", "S")]);
        for id in 0..30 {
            put(&machine, id);
        }
        machine.crash();
        machine.start(2);
        check_all(&machine, 30);
        machine.sim.trace_hash()
    };
    assert_eq!(run(53), run(53));
    assert_ne!(run(53), run(54));
}

#[test]
fn catalog_orders_at_once_are_carried_out_one_by_one() {
    let machine = Machine::new(55, 3);
    let body = r#"{"TableName":"things","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}]}"#;
    let answers = Rc::new(std::cell::RefCell::new(Vec::new()));
    for index in 0..6 {
        let shard = index % 3;
        let runtime = machine.sim.runtime(NODE, ShardIndex(shard));
        let (service, answers) = (machine.service(shard), Rc::clone(&answers));
        let operation = if index < 3 { "CreateTable" } else { "DeleteTable" };
        let body = if index < 3 {
            body
        } else {
            r#"{"TableName":"things"}"#
        };
        runtime.spawn(Queue::Foreground, async move {
            let result = service.call(operation, body.as_bytes(), &mut Vec::new()).await;
            let answer = result.map_or_else(|error| error.to_string(), |()| "done".to_owned());
            answers.borrow_mut().push(format!("{operation}: {answer}"));
        });
    }
    while answers.borrow().len() < 6 {
        assert!(machine.sim.step(), "some orders are never answered");
    }
    // Whatever their order was: a table is made when there is none, and goes when there is one.
    let answers = answers.borrow();
    let count = |answer: &str| answers.iter().filter(|given| *given == answer).count();
    let (made, gone) = (count("CreateTable: done"), count("DeleteTable: done"));
    let exists = count("CreateTable: ResourceInUseException: Table already exists: things");
    let missing = count(
        "DeleteTable: ResourceNotFoundException: Requested resource not found: Table: things not found",
    );
    assert_eq!((made + exists, gone + missing), (3, 3), "{answers:?}");
    assert!(made >= 1 && made - gone <= 1, "{answers:?}");
    let left = machine.call("ListTables", "{}");
    let named = if made > gone { "[\"things\"]" } else { "[]" };
    assert_eq!(left, format!("{{\"TableNames\":{named}}}"));
}
