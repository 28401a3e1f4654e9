//! Warm throughput: recorded and described, of tables and of global indexes.
//!
//! What is expected is what the live service answered (findings DDB-TABLE-028 to DDB-TABLE-459), but for the minutes it takes there.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::Machine;

const OF: [&str; 2] = ["table", "index"];

/// A table with one global index.
fn table(billing: Value) -> Value {
    let mut body = json!({
        "TableName": "orders",
        "KeySchema": [{"AttributeName": "a", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "a", "AttributeType": "S"}, {"AttributeName": "b", "AttributeType": "S"}],
        "GlobalSecondaryIndexes": [
            {"IndexName": "index", "KeySchema": [{"AttributeName": "b", "KeyType": "HASH"}], "Projection": {"ProjectionType": "ALL"}},
        ],
    });
    match billing.as_array() {
        None => body["BillingMode"] = json!("PAY_PER_REQUEST"),
        Some(units) => {
            body["ProvisionedThroughput"] = units_of(&units[0]);
            body["GlobalSecondaryIndexes"][0]["ProvisionedThroughput"] = units_of(&units[1]);
        }
    }
    body
}

fn units_of(units: &Value) -> Value {
    json!({"ReadCapacityUnits": units[0], "WriteCapacityUnits": units[1]})
}

fn warm(read: Value, write: Value) -> Value {
    let mut warm = json!({});
    for (name, units) in [("ReadUnitsPerSecond", read), ("WriteUnitsPerSecond", write)] {
        if !units.is_null() {
            warm[name] = units;
        }
    }
    warm
}

/// What a description says of the table's and of the index's.
fn shown(table: &Value) -> String {
    let one = |value: &Value| match &value["WarmThroughput"] {
        Value::Null => "none".to_owned(),
        warm => format!(
            "{}/{} {}",
            warm["ReadUnitsPerSecond"],
            warm["WriteUnitsPerSecond"],
            warm["Status"].as_str().unwrap()
        ),
    };
    format!(
        "{} {}, index {} {}",
        table["TableStatus"].as_str().unwrap(),
        one(table),
        table["GlobalSecondaryIndexes"][0]["IndexStatus"]
            .as_str()
            .unwrap(),
        one(&table["GlobalSecondaryIndexes"][0])
    )
}

fn described(machine: &Machine, expected: Expect) {
    let answer = machine.ok("DescribeTable", r#"{"TableName":"orders"}"#);
    expected.assert_eq(&shown(&answer["Table"]));
}

fn created(machine: &Machine, body: &Value, expected: Expect) {
    let answer = machine.ok("CreateTable", &body.to_string());
    expected.assert_eq(&shown(&answer["TableDescription"]));
}

/// The body of an UpdateTable with these members.
fn update_of(members: Value) -> String {
    let mut body = json!({"TableName": "orders"});
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}

fn of_index(update: Value) -> Value {
    let mut update = json!({"Update": update});
    update["Update"]["IndexName"] = json!("index");
    json!({"GlobalSecondaryIndexUpdates": [update]})
}

fn updated(machine: &Machine, members: Value, expected: Expect) {
    let answer = machine.ok("UpdateTable", &update_of(members));
    expected.assert_eq(&shown(&answer["TableDescription"]));
}

fn refused(machine: &Machine, members: Value, expected: Expect) {
    machine.check("UpdateTable", &update_of(members), expected);
}

#[test]
fn it_is_always_described_and_never_decreases() {
    let machine = Machine::new(140, 2);
    created(
        &machine,
        &table(json!([[1, 2], [3, 4]])),
        expect!["CREATING none, index CREATING none"],
    );
    described(&machine, expect!["ACTIVE 1/2 ACTIVE, index ACTIVE 3/4 ACTIVE"]);
    let units = |read, write| json!({"ProvisionedThroughput": units_of(&json!([read, write]))});
    updated(
        &machine,
        units(5, 1),
        expect!["UPDATING 1/2 ACTIVE, index ACTIVE 3/4 ACTIVE"],
    );
    described(&machine, expect!["ACTIVE 5/2 ACTIVE, index ACTIVE 3/4 ACTIVE"]);
    machine.ok("UpdateTable", &update_of(units(1, 1)));
    machine.ok("UpdateTable", &update_of(of_index(units(1, 9))));
    described(&machine, expect!["ACTIVE 5/2 ACTIVE, index ACTIVE 3/9 ACTIVE"]);
    // On demand there is more; it stays when the table is provisioned again.
    machine.ok(
        "UpdateTable",
        &update_of(json!({"BillingMode": "PAY_PER_REQUEST"})),
    );
    described(
        &machine,
        expect!["ACTIVE 12000/4000 ACTIVE, index ACTIVE 12000/4000 ACTIVE"],
    );
    let mut provisioned = of_index(units(1, 1));
    provisioned["BillingMode"] = json!("PROVISIONED");
    provisioned["ProvisionedThroughput"] = units_of(&json!([1, 1]));
    machine.ok("UpdateTable", &update_of(provisioned));
    described(
        &machine,
        expect!["ACTIVE 12000/4000 ACTIVE, index ACTIVE 12000/4000 ACTIVE"],
    );
    machine.stop();
    machine.start(1);
    described(
        &machine,
        expect!["ACTIVE 12000/4000 ACTIVE, index ACTIVE 12000/4000 ACTIVE"],
    );
}

#[test]
fn it_is_raised_by_update_table() {
    let machine = Machine::new(141, 2);
    created(
        &machine,
        &table(json!(null)),
        expect!["CREATING none, index CREATING none"],
    );
    let table = |read, write| json!({"WarmThroughput": warm(read, write)});
    updated(
        &machine,
        table(json!(12001), json!(4001)),
        expect!["ACTIVE 12000/4000 UPDATING, index ACTIVE 12000/4000 ACTIVE"],
    );
    described(
        &machine,
        expect!["ACTIVE 12001/4001 ACTIVE, index ACTIVE 12000/4000 ACTIVE"],
    );
    // The same again, and one member alone.
    updated(
        &machine,
        table(json!(12001), json!(4001)),
        expect!["ACTIVE 12001/4001 UPDATING, index ACTIVE 12000/4000 ACTIVE"],
    );
    updated(
        &machine,
        table(json!(null), json!(4002)),
        expect!["ACTIVE 12001/4001 UPDATING, index ACTIVE 12000/4000 ACTIVE"],
    );
    updated(
        &machine,
        of_index(table(json!(12002), json!(null))),
        expect!["ACTIVE 12001/4002 ACTIVE, index ACTIVE 12000/4000 UPDATING"],
    );
    described(
        &machine,
        expect!["ACTIVE 12001/4002 ACTIVE, index ACTIVE 12002/4000 ACTIVE"],
    );
    refused(
        &machine,
        table(json!(12000), json!(4000)),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Requested ReadUnitsPerSecond for WarmThroughput for table is lower than current WarmThroughput, decreasing WarmThroughput is not supported"
        ],
    );
    refused(
        &machine,
        of_index(table(json!(null), json!(-1))),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Requested WriteUnitsPerSecond for WarmThroughput for index index is lower than current WarmThroughput, decreasing WarmThroughput is not supported"
        ],
    );
    refused(
        &machine,
        of_index(table(json!(null), json!(null))),
        expect![
            "400 ValidationException: One or more parameter values were invalid: WarmThroughput must have at least one of ReadUnitsPerSecond or WriteUnitsPerSecond specified for index: index"
        ],
    );
    refused(
        &machine,
        of_index(json!({})),
        expect![
            "400 ValidationException: One or more parameter values were invalid: The only Updates for index: index when TableThroughputMode is PAY_PER_REQUEST can be to OnDemandThroughput, WarmThroughput"
        ],
    );
    refused(
        &machine,
        table(json!(1_000_000_000_001_i64), json!(null)),
        expect![
            "400 LimitExceededException: Subscriber limit exceeded: Requested ReadUnitsPerSecond for WarmThroughput for table exceeds TableMaxReadCapacityUnits of the account in region us-east-1"
        ],
    );
    refused(
        &machine,
        json!({"WarmThroughput": {"Units": 1}}),
        expect![[
            r#"400 ValidationException: At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates, SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, ReplicaTransitRoleArn, MultiRegionConsistency, DeletionProtectionEnabled, OnDemandThroughput, WarmThroughput or TableClass is required"#
        ]],
    );
    refused(
        &machine,
        json!({"WarmThroughput": {"ReadUnitsPerSecond": 13000, "Units": 1}}),
        expect!["400 ValidationException: The parameter Units is not supported"],
    );
}

#[test]
fn it_is_changed_alone() {
    let machine = Machine::new(142, 1);
    machine.ok("CreateTable", &table(json!(null)).to_string());
    let with =
        |name: &str, value: Value| json!({"WarmThroughput": {"ReadUnitsPerSecond": 13000}, name: value});
    for (name, value, expected) in [
        (
            "TableClass",
            json!("STANDARD"),
            expect![
                "400 ValidationException: One or more parameter values were invalid: TableClass modification must be the only operation in the request"
            ],
        ),
        (
            "DeletionProtectionEnabled",
            json!(true),
            expect![
                "400 ValidationException: One or more parameter values were invalid: DeletionProtection modification must be the only operation in the request"
            ],
        ),
        (
            "OnDemandThroughput",
            json!({"MaxReadRequestUnits": 1}),
            expect![
                "400 ValidationException: One or more parameter values were invalid: OnDemandThroughput can only be combined with BillingMode in an UpdateTable request"
            ],
        ),
        (
            "BillingMode",
            json!("PAY_PER_REQUEST"),
            expect![
                "400 ValidationException: One or more parameter values were invalid: WarmThroughput must be the only operation in the request"
            ],
        ),
        (
            "StreamSpecification",
            json!({"StreamEnabled": true, "StreamViewType": "KEYS_ONLY"}),
            expect![
                "400 ValidationException: One or more parameter values were invalid: WarmThroughput must be the only operation in the request"
            ],
        ),
    ] {
        refused(&machine, with(name, value), expected);
    }
    // One without members is none.
    updated(
        &machine,
        json!({"WarmThroughput": {}, "DeletionProtectionEnabled": false}),
        expect!["ACTIVE 12000/4000 ACTIVE, index ACTIVE 12000/4000 ACTIVE"],
    );
}

#[test]
fn create_table_takes_what_is_enough() {
    let machine = Machine::new(143, 2);
    let with = |billing: Value, of: &str, warm: Value| {
        let mut body = table(billing);
        if of == OF[0] {
            body["WarmThroughput"] = warm;
        } else {
            body["GlobalSecondaryIndexes"][0]["WarmThroughput"] = warm;
        }
        body
    };
    for (billing, of, given, expected) in [
        (
            json!(null),
            OF[0],
            warm(json!(1), json!(1)),
            expect![
                "400 ValidationException: One or more parameter values were invalid: Requested ReadUnitsPerSecond for WarmThroughput for table is lower than initial throughput for OnDemand. See: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html#on-demand-capacity-mode-initial"
            ],
        ),
        (
            json!(null),
            OF[1],
            warm(json!(12000), json!(-5)),
            expect![
                "400 ValidationException: One or more parameter values were invalid: Requested WriteUnitsPerSecond for WarmThroughput for index index is lower than initial throughput for OnDemand. See: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html#on-demand-capacity-mode-initial"
            ],
        ),
        (
            json!([[10, 10], [1, 1]]),
            OF[0],
            warm(json!(5), json!(5)),
            expect![
                "400 ValidationException: One or more parameter values were invalid: Requested ReadUnitsPerSecond for WarmThroughput for table is lower than ReadCapacityUnits of ProvisionedThroughput"
            ],
        ),
        (
            json!([[1, 1], [10, 10]]),
            OF[1],
            warm(json!(null), json!(5)),
            expect![
                "400 ValidationException: One or more parameter values were invalid: Requested WriteUnitsPerSecond for WarmThroughput for index index is lower than WriteCapacityUnits of ProvisionedThroughput"
            ],
        ),
        (
            json!(null),
            OF[1],
            warm(json!(null), json!(1_000_000_000_001_i64)),
            expect![
                "400 LimitExceededException: Subscriber limit exceeded: Requested WriteUnitsPerSecond for WarmThroughput for index index exceeds TableMaxWriteCapacityUnits of the account in region us-east-1"
            ],
        ),
    ] {
        machine.check("CreateTable", &with(billing, of, given).to_string(), expected);
    }
    created(
        &machine,
        &with(json!(null), OF[0], warm(json!(12001), json!(null))),
        expect!["CREATING 12001/4000 UPDATING, index CREATING none"],
    );
    described(
        &machine,
        expect!["ACTIVE 12001/4000 ACTIVE, index ACTIVE 12000/4000 ACTIVE"],
    );
    machine.ok("DeleteTable", r#"{"TableName":"orders"}"#);
    created(
        &machine,
        &with(json!([[1, 1], [1, 1]]), OF[1], warm(json!(7), json!(1))),
        expect!["CREATING none, index CREATING 7/1 UPDATING"],
    );
    described(&machine, expect!["ACTIVE 1/1 ACTIVE, index ACTIVE 7/1 ACTIVE"]);
    // Another index, by UpdateTable.
    let mut other = json!({
        "IndexName": "other",
        "KeySchema": [{"AttributeName": "b", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
        "ProvisionedThroughput": units_of(&json!([3, 3])),
        "WarmThroughput": warm(json!(2), json!(3)),
    });
    let create = |other: &Value| {
        json!({
            "AttributeDefinitions": [{"AttributeName": "b", "AttributeType": "S"}],
            "GlobalSecondaryIndexUpdates": [{"Create": other}],
        })
    };
    refused(
        &machine,
        create(&other),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Requested ReadUnitsPerSecond for WarmThroughput for index other is lower than ReadCapacityUnits of ProvisionedThroughput"
        ],
    );
    other["WarmThroughput"] = warm(json!(8), json!(3));
    machine.ok("UpdateTable", &update_of(create(&other)));
    let answer = machine.ok("DescribeTable", r#"{"TableName":"orders"}"#);
    expect![[r#"{"ReadUnitsPerSecond":8,"Status":"ACTIVE","WriteUnitsPerSecond":3}"#]]
        .assert_eq(&answer["Table"]["GlobalSecondaryIndexes"][1]["WarmThroughput"].to_string());
}
