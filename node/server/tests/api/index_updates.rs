//! Global indexes that come and go while their table is in use.

use std::time::Duration;

use cairn_runtime::sim::Random;
use cairn_runtime::{Queue, Runtime, ShardIndex};
use expect_test::expect;
use serde_json::{Value, json};

use crate::indexes::{INDEXES, Row, check_these, put, random_item, random_write};
use crate::{Machine, NODE};

const ATTRIBUTES: &str = r#"[{"AttributeName":"color","AttributeType":"S"},{"AttributeName":"size","AttributeType":"N"},{"AttributeName":"n","AttributeType":"N"}]"#;

/// One element of GlobalSecondaryIndexUpdates that creates one of the indexes of `INDEXES`.
fn creation((name, keys, included): Row) -> Value {
    let keys: Vec<Value> = keys
        .iter()
        .zip(["HASH", "RANGE"])
        .map(|(name, role)| json!({"AttributeName": name, "KeyType": role}))
        .collect();
    let projection = match included {
        None => json!({"ProjectionType": "ALL"}),
        Some([]) => json!({"ProjectionType": "KEYS_ONLY"}),
        Some(included) => json!({"ProjectionType": "INCLUDE", "NonKeyAttributes": included}),
    };
    json!({"Create": {"IndexName": name, "KeySchema": keys, "Projection": projection}})
}

fn update_of(updates: &Value) -> String {
    let attributes: Value = serde_json::from_str(ATTRIBUTES).unwrap();
    json!({"TableName": "things", "AttributeDefinitions": attributes, "GlobalSecondaryIndexUpdates": updates})
        .to_string()
}

fn delete_of(name: &str) -> String {
    json!({"TableName": "things", "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": name}}]})
        .to_string()
}

/// TableStatus, and of each global index its name, IndexStatus and Backfilling.
fn standing(machine: &Machine) -> String {
    let described = machine.ok("DescribeTable", r#"{"TableName":"things"}"#);
    standing_of(&described["Table"])
}

fn standing_of(table: &Value) -> String {
    let mut said = vec![table["TableStatus"].as_str().unwrap().to_owned()];
    for index in table["GlobalSecondaryIndexes"].as_array().into_iter().flatten() {
        let name = index["IndexName"].as_str().unwrap();
        let status = index["IndexStatus"].as_str().unwrap();
        let filling = index
            .get("Backfilling")
            .map_or(String::new(), |filling| format!(" {filling}"));
        said.push(format!("{name} {status}{filling}"));
    }
    said.join(", ")
}

/// Waits until the table and its indexes are settled.
fn settle(machine: &Machine) {
    for _ in 0..10_000 {
        let standing = standing(machine);
        if !["CREATING", "DELETING", "UPDATING"]
            .iter()
            .any(|word| standing.contains(word))
        {
            return;
        }
        machine.sim.run_for(Duration::from_millis(20));
    }
    panic!("it never settles: {}", standing(machine));
}

fn fill(machine: &Machine, random: &mut Random, count: u64) {
    for _ in 0..count {
        put(machine, "things", &random_item(random));
    }
}

const GLOBAL: [Row; 3] = [INDEXES[3], INDEXES[4], INDEXES[5]];

#[test]
fn an_index_is_made_filled_read_and_deleted() {
    let machine = Machine::new(80, 3);
    machine.create("things", &[("id", "S"), ("n", "N")]);
    let mut random = machine.sim.random();
    fill(&machine, &mut random, 60);
    let answer = machine.ok("UpdateTable", &update_of(&json!([creation(GLOBAL[0])])));
    expect!["UPDATING, global-all CREATING false"].assert_eq(&standing_of(&answer["TableDescription"]));
    let query = r#"{"TableName":"things","IndexName":"global-all","KeyConditionExpression":"color = :c","ExpressionAttributeValues":{":c":{"S":"red"}},"Select":"COUNT"}"#;
    machine.check(
        "Query",
        query,
        expect!["400 ValidationException: Cannot read from backfilling global secondary index: global-all"],
    );
    machine.check(
        "Scan",
        r#"{"TableName":"things","IndexName":"global-all"}"#,
        expect!["400 ValidationException: Cannot read from backfilling global secondary index: global-all"],
    );
    machine.check("DeleteTable", r#"{"TableName":"things"}"#, expect!["400 ResourceInUseException: Attempt to change a resource which is still in use: Cannot delete table while indexes are being created, updated, or deleted."]);
    machine.check("UpdateTable", &update_of(&json!([creation(GLOBAL[1])])), expect!["400 LimitExceededException: Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table"]);
    settle(&machine);
    expect!["ACTIVE, global-all ACTIVE"].assert_eq(&standing(&machine));
    check_these(&machine, "things", &GLOBAL[..1]);
    let examined: u64 = machine.index_stats().iter().map(|stats| stats.examined).sum();
    assert_eq!(
        machine.ok("Scan", r#"{"TableName":"things","Select":"COUNT"}"#)["Count"],
        examined
    );
    assert!(machine.index_stats().iter().all(|stats| stats.filling.is_empty()));

    let answer = machine.ok("UpdateTable", &delete_of("global-all"));
    expect!["UPDATING, global-all DELETING"].assert_eq(&standing_of(&answer["TableDescription"]));
    machine.check(
        "Query",
        query,
        expect!["400 ValidationException: The table does not have the specified index: global-all"],
    );
    settle(&machine);
    let described = machine.ok("DescribeTable", r#"{"TableName":"things"}"#);
    assert_eq!(described["Table"].get("GlobalSecondaryIndexes"), None);
    expect![[r#"[{"AttributeName":"id","AttributeType":"S"},{"AttributeName":"n","AttributeType":"N"}]"#]]
        .assert_eq(&described["Table"]["AttributeDefinitions"].to_string());
    // The name is free again.
    machine.ok("UpdateTable", &update_of(&json!([creation(GLOBAL[0])])));
    settle(&machine);
    check_these(&machine, "things", &GLOBAL[..1]);
}

/// Items that cannot be in the index are left out; those written since are checked.
#[test]
fn items_without_a_fitting_key_are_left_out() {
    let machine = Machine::new(81, 2);
    machine.create("things", &[("id", "S"), ("n", "N")]);
    for (n, color) in [
        json!({"S": "red"}),
        json!({"N": "1"}),
        json!({"S": ""}),
        json!({"S": "x".repeat(2049)}),
    ]
    .into_iter()
    .enumerate()
    {
        put(
            &machine,
            "things",
            &json!({"id": {"S": "a"}, "n": {"N": n.to_string()}, "color": color}),
        );
    }
    machine.ok("UpdateTable", &update_of(&json!([creation(GLOBAL[0])])));
    settle(&machine);
    let answer = machine.ok("Scan", r#"{"TableName":"things","IndexName":"global-all"}"#);
    assert_eq!(answer["Count"], 1);
    machine.check(
        "PutItem",
        r#"{"TableName":"things","Item":{"id":{"S":"b"},"n":{"N":"1"},"color":{"N":"1"}}}"#,
        expect!["400 ValidationException: One or more parameter values were invalid: Type mismatch for Index Key color Expected: S Actual: N IndexName: global-all"],
    );
    // What cannot be a key may be replaced, and comes in.
    put(
        &machine,
        "things",
        &json!({"id": {"S": "a"}, "n": {"N": "1"}, "color": {"S": "blue"}}),
    );
    machine.sim.run_for(Duration::from_millis(200));
    let answer = machine.ok("Scan", r#"{"TableName":"things","IndexName":"global-all"}"#);
    assert_eq!(answer["Count"], 2);
}

fn write_at_once(machine: &Machine, random: &mut Random, writers: usize) {
    let running = machine.shards();
    for writer in 0..writers {
        let shard = writer % running;
        let service = machine.service(shard);
        let runtime = machine.sim.runtime(NODE, ShardIndex(shard));
        let writes: Vec<_> = (0..30).map(|_| random_write(random, "things")).collect();
        runtime.spawn(Queue::Foreground, async move {
            for (operation, body) in writes {
                // Refused or cut off, all the same.
                let _ = service.call(operation, body.as_bytes(), &mut Vec::new()).await;
            }
        });
    }
}

/// Calls an operation without waiting for its answer.
fn begin(machine: &Machine, operation: &'static str, body: String) {
    let service = machine.service(0);
    let runtime = machine.sim.runtime(NODE, ShardIndex(0));
    runtime.spawn(Queue::Foreground, async move {
        // The crash may come first.
        let _ = service.call(operation, body.as_bytes(), &mut Vec::new()).await;
    });
}

#[test]
fn an_index_that_is_filled_while_items_are_written_equals_its_table() {
    for seed in 0..6 {
        let machine = Machine::new(800 + seed, 1 + usize::try_from(seed % 3).unwrap());
        machine.create("things", &[("id", "S"), ("n", "N")]);
        let mut random = machine.sim.random();
        fill(&machine, &mut random, 40);
        for count in 1..=GLOBAL.len() {
            write_at_once(&machine, &mut random, 10);
            machine.sim.run_for(Duration::from_micros(random.below(20_000)));
            machine.ok("UpdateTable", &update_of(&json!([creation(GLOBAL[count - 1])])));
            write_at_once(&machine, &mut random, 10);
            settle(&machine);
            machine.sim.run_for(Duration::from_secs(1));
            check_these(&machine, "things", &GLOBAL[..count]);
        }
    }
}

/// A crash in any moment of the life of an index, a restart with another number of shards, and what is left to do is done.
#[test]
fn an_index_equals_its_table_after_crashes_while_it_is_filled() {
    for seed in 0..5 {
        let machine = Machine::new(900 + seed, 2);
        machine.create("things", &[("id", "S"), ("n", "N")]);
        let mut random = machine.sim.random();
        fill(&machine, &mut random, 50);
        let mut left = GLOBAL.to_vec();
        for shards in [3, 1, 4, 2, 3, 2] {
            let described = machine.ok("DescribeTable", r#"{"TableName":"things"}"#);
            let indexes = described["Table"]["GlobalSecondaryIndexes"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let names: Vec<String> = indexes
                .iter()
                .map(|index| index["IndexName"].as_str().unwrap().to_owned())
                .collect();
            left.retain(|(name, _, _)| !names.iter().any(|other| other == name));
            if random.below(4) == 0 && !names.is_empty() {
                begin(&machine, "UpdateTable", delete_of(&names[0]));
            } else if let Some(row) = left.first() {
                begin(&machine, "UpdateTable", update_of(&json!([creation(*row)])));
            }
            write_at_once(&machine, &mut random, 8);
            machine.sim.run_for(Duration::from_micros(random.below(40_000)));
            machine.crash();
            machine.start(shards);
            if random.below(2) == 0 {
                // Another crash before everything is done.
                machine.sim.run_for(Duration::from_micros(random.below(10_000)));
                machine.crash();
                machine.start(shards);
            }
            settle(&machine);
            machine.sim.run_for(Duration::from_secs(2));
            let described = machine.ok("DescribeTable", r#"{"TableName":"things"}"#);
            let indexes = described["Table"]["GlobalSecondaryIndexes"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let there: Vec<Row> = GLOBAL
                .into_iter()
                .filter(|(name, _, _)| indexes.iter().any(|index| index["IndexName"] == *name))
                .collect();
            check_these(&machine, "things", &there);
            left = GLOBAL.to_vec();
        }
    }
}

/// A restart goes on where the last mark is, and does not begin again.
#[test]
fn filling_goes_on_after_a_crash() {
    let machine = Machine::new(84, 2);
    machine.create("things", &[("id", "S"), ("n", "N")]);
    let items = 4_000;
    for batch in 0..items / 25 {
        let puts: Vec<Value> = (0..25)
            .map(|place| {
                let n = batch * 25 + place;
                let color = ["red", "green", "blue"][n % 3];
                json!({"PutRequest": {"Item": {
                    "id": {"S": format!("i{n}")}, "n": {"N": "1"}, "color": {"S": color}, "note": {"S": "x".repeat(400)}
                }}})
            })
            .collect();
        machine.ok(
            "BatchWriteItem",
            &json!({"RequestItems": {"things": puts}}).to_string(),
        );
    }
    machine.ok("UpdateTable", &update_of(&json!([creation(GLOBAL[0])])));
    let examined = || -> u64 { machine.index_stats().iter().map(|stats| stats.examined).sum() };
    let mut crashes = 0;
    while standing(&machine) != "ACTIVE, global-all ACTIVE" {
        machine.sim.run_for(Duration::from_millis(1));
        if crashes < 3 && examined() > 1_000 {
            crashes += 1;
            machine.crash();
            machine.start(2);
        }
    }
    assert_eq!(crashes, 3);
    assert!(
        examined() < items as u64,
        "the last start went through all items again"
    );
    check_these(&machine, "things", &GLOBAL[..1]);
}

#[test]
fn update_table_checks_indexes_in_order() {
    let machine = Machine::new(82, 2);
    machine.create("things", &[("id", "S"), ("n", "N")]);
    machine.ok("UpdateTable", &update_of(&json!([creation(GLOBAL[0])])));
    settle(&machine);
    let check = |updates: Value, extra: Value, expected: expect_test::Expect| {
        let mut body: Value = serde_json::from_str(&update_of(&updates)).unwrap();
        for (name, value) in extra.as_object().unwrap() {
            if value.is_null() {
                body.as_object_mut().unwrap().remove(name);
            } else {
                body[name] = value.clone();
            }
        }
        machine.check("UpdateTable", &body.to_string(), expected);
    };
    let none = || json!({});
    let (create, keys) = (creation(GLOBAL[1]), creation(GLOBAL[2]));
    let delete = json!({"Delete": {"IndexName": "global-all"}});
    let units = |name: &str| json!({"Update": {"IndexName": name, "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}}});
    check(
        json!([]),
        none(),
        expect![
            "400 ValidationException: At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates, SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, ReplicaTransitRoleArn, MultiRegionConsistency, DeletionProtectionEnabled, OnDemandThroughput, WarmThroughput or TableClass is required"
        ],
    );
    check(
        json!([]),
        json!({"DeletionProtectionEnabled": true}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: List of GlobalSecondaryIndexUpdates is empty"
        ],
    );
    check(
        json!([{}]),
        none(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must not be null"
        ],
    );
    let both = json!({"Update": units("global-all")["Update"], "Delete": delete["Delete"]});
    check(
        json!([both]),
        none(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Only one global secondary index action is allowed per GlobalSecondaryIndexUpdate object"
        ],
    );
    check(
        json!([delete, creation(GLOBAL[0])]),
        none(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Only one global secondary index update per index is allowed simultaneously. Index: global-all"
        ],
    );
    check(
        json!([{"Delete": {"IndexName": "a"}}]),
        none(),
        expect![
            "400 ValidationException: 1 validation error detected: Value 'a' at 'globalSecondaryIndexUpdates.1.member.delete.indexName' failed to satisfy constraint: Member must have length greater than or equal to 3"
        ],
    );
    check(
        json!([create]),
        json!({"TableClass": "STANDARD"}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: TableClass modification must be the only operation in the request"
        ],
    );
    check(
        json!([create]),
        json!({"DeletionProtectionEnabled": true}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: DeletionProtection modification must be the only operation in the request"
        ],
    );
    check(
        json!([create]),
        json!({"ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: You cannot create or delete index while updating table IOPS"
        ],
    );
    check(
        json!([create]),
        json!({"AttributeDefinitions": null}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: AttributeDefinitions is not specified for index: global-keys"
        ],
    );
    check(
        json!([create]),
        json!({"AttributeDefinitions": [{"AttributeName": "color", "AttributeType": "S"}, {"AttributeName": "n", "AttributeType": "N"}]}),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [color, size], AttributeDefinitions: [color, n]"
        ],
    );
    check(
        json!([create, keys]),
        none(),
        expect![
            "400 LimitExceededException: Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table"
        ],
    );
    check(
        json!([creation(GLOBAL[0])]),
        none(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Index already exists: global-all"
        ],
    );
    check(
        json!([{"Delete": {"IndexName": "nothing"}}]),
        none(),
        expect![
            "400 ResourceNotFoundException: Requested resource not found: Index nothing for table things"
        ],
    );
    check(
        json!([units("nothing")]),
        none(),
        expect![
            "400 ResourceNotFoundException: Requested resource not found: Index nothing for table things"
        ],
    );
    check(
        json!([units("global-all")]),
        none(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: The only Updates for index: global-all when TableThroughputMode is PAY_PER_REQUEST can be to OnDemandThroughput, WarmThroughput"
        ],
    );
    let mut ceilings = creation(GLOBAL[1]);
    ceilings["Create"]["OnDemandThroughput"] = json!({"MaxReadRequestUnits": 0});
    check(
        json!([ceilings]),
        none(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Requested MaxReadRequestUnits for OnDemandThroughput for index : global-keys is outside of valid range"
        ],
    );
    let mut provisioned = creation(GLOBAL[1]);
    provisioned["Create"]["ProvisionedThroughput"] = json!({"ReadCapacityUnits": 1, "WriteCapacityUnits": 1});
    check(
        json!([provisioned]),
        none(),
        expect![
            "400 ValidationException: One or more parameter values were invalid: ProvisionedThroughput should not be specified for index: global-keys when BillingMode is PAY_PER_REQUEST"
        ],
    );
    // Nothing of all that was done.
    expect!["ACTIVE, global-all ACTIVE"].assert_eq(&standing(&machine));
}

#[test]
fn throughput_of_indexes_follows_the_billing_of_their_table() {
    let machine = Machine::new(83, 2);
    machine.create("things", &[("id", "S"), ("n", "N")]);
    machine.ok("UpdateTable", &update_of(&json!([creation(GLOBAL[0])])));
    settle(&machine);
    let units = |units: u64| json!({"ReadCapacityUnits": units, "WriteCapacityUnits": units});
    let update =
        |count: u64| json!([{"Update": {"IndexName": "global-all", "ProvisionedThroughput": units(count)}}]);
    let ceilings =
        json!([{"Update": {"IndexName": "global-all", "OnDemandThroughput": {"MaxReadRequestUnits": 50}}}]);
    machine.ok("UpdateTable", &update_of(&ceilings));
    let index = |member: &str| {
        let described = machine.ok("DescribeTable", r#"{"TableName":"things"}"#);
        described["Table"]["GlobalSecondaryIndexes"][0][member].to_string()
    };
    expect![[r#"{"MaxReadRequestUnits":50}"#]].assert_eq(&index("OnDemandThroughput"));
    let switch = |body: Value| {
        let mut switch =
            json!({"TableName": "things", "BillingMode": "PROVISIONED", "ProvisionedThroughput": units(5)});
        for (name, value) in body.as_object().unwrap() {
            switch[name] = value.clone();
        }
        machine.call("UpdateTable", &switch.to_string())
    };
    expect!["400 ValidationException: One or more parameter values were invalid: ProvisionedThroughput must be specified for index: global-all"]
        .assert_eq(&switch(json!({})));
    let answer: Value =
        serde_json::from_str(&switch(json!({"GlobalSecondaryIndexUpdates": update(7)}))).unwrap();
    let shown = &answer["TableDescription"]["GlobalSecondaryIndexes"][0];
    expect![[r#"{"NumberOfDecreasesToday":0,"ReadCapacityUnits":7,"WriteCapacityUnits":7}"#]]
        .assert_eq(&shown["ProvisionedThroughput"].to_string());
    assert_eq!(index("OnDemandThroughput"), "null");
    machine.check("UpdateTable", &update_of(&update(7)), expect!["400 ValidationException: The provisioned throughput for the index global-all will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for index global-all: 7. Requested ReadCapacityUnits: 7. Current WriteCapacityUnits provisioned for index global-all: 7. Requested WriteCapacityUnits: 7. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."]);
    machine.check("UpdateTable", &update_of(&ceilings), expect!["400 ValidationException: One or more parameter values were invalid: MaxReadRequestUnits for OnDemandThroughput for index : global-all cannot be specified when the table BillingMode is PROVISIONED"]);
    machine.check("UpdateTable", &update_of(&json!([creation(GLOBAL[1])])), expect!["400 ValidationException: One or more parameter values were invalid: Both ReadCapacityUnits and WriteCapacityUnits must be specified for index: global-keys"]);
    // The answer shows what was, and that it changes.
    let answer = machine.ok("UpdateTable", &update_of(&update(3)));
    expect!["ACTIVE, global-all UPDATING"].assert_eq(&standing_of(&answer["TableDescription"]));
    let shown = &answer["TableDescription"]["GlobalSecondaryIndexes"][0];
    assert_eq!(shown["ProvisionedThroughput"]["ReadCapacityUnits"], 7);
    let now: Value = serde_json::from_str(&index("ProvisionedThroughput")).unwrap();
    assert_eq!(
        (&now["ReadCapacityUnits"], &now["NumberOfDecreasesToday"]),
        (&json!(3), &json!(1))
    );
    machine.ok(
        "UpdateTable",
        r#"{"TableName":"things","BillingMode":"PAY_PER_REQUEST"}"#,
    );
    let now: Value = serde_json::from_str(&index("ProvisionedThroughput")).unwrap();
    assert_eq!(
        (&now["ReadCapacityUnits"], &now["NumberOfDecreasesToday"]),
        (&json!(0), &json!(2))
    );
}
