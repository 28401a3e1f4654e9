//! What is set about a table: UpdateTable, tags, and what is the same for all tables.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::Machine;

const ARN: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/orders";

/// The parts of a description that UpdateTable has to do with, and of its times only whether they are there.
fn settings_of(table: &Value) -> String {
    let mut shown = serde_json::Map::new();
    for name in [
        "TableStatus",
        "ProvisionedThroughput",
        "BillingModeSummary",
        "TableClassSummary",
        "DeletionProtectionEnabled",
    ] {
        if let Some(value) = table.get(name) {
            shown.insert(name.to_owned(), value.clone());
        }
    }
    for value in shown.values_mut() {
        let Some(members) = value.as_object_mut() else {
            continue;
        };
        for (name, member) in members.iter_mut() {
            if name.ends_with("DateTime") {
                assert!(member.as_f64().unwrap() > 1e9);
                *member = json!("then");
            }
        }
    }
    Value::Object(shown).to_string()
}

fn create(machine: &Machine, rest: &str) {
    let body = format!(
        r#"{{"TableName":"orders","KeySchema":[{{"AttributeName":"a","KeyType":"HASH"}}],"AttributeDefinitions":[{{"AttributeName":"a","AttributeType":"S"}}],{rest}}}"#
    );
    machine.ok("CreateTable", &body);
}

const PROVISIONED: &str = r#""ProvisionedThroughput":{"ReadCapacityUnits":5,"WriteCapacityUnits":5}"#;
const ON_DEMAND: &str = r#""BillingMode":"PAY_PER_REQUEST""#;

#[test]
fn update_table_refuses_in_order() {
    let machine = Machine::new(21, 2);
    let check = |body: &str, expected: Expect| machine.check("UpdateTable", body, expected);
    check(
        "{}",
        expect![
            "400 ValidationException: The parameter 'TableName' is required but was not present in the request"
        ],
    );
    check(
        r#"{"TableName":"ab"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value 'ab' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3"
        ],
    );
    check(
        r#"{"TableName":"a b"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value 'a b' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        ],
    );
    check(
        r#"{"TableName":"abc","ProvisionedThroughput":{"ReadCapacityUnits":0},"BillingMode":"FREE","TableClass":"COLD","AttributeDefinitions":[{"AttributeName":"a","AttributeType":"X"}]}"#,
        expect![
            "400 ValidationException: 5 validation errors detected: Value null at 'provisionedThroughput.writeCapacityUnits' failed to satisfy constraint: Member must not be null; Value '0' at 'provisionedThroughput.readCapacityUnits' failed to satisfy constraint: Member must have value greater than or equal to 1; Value 'FREE' at 'billingMode' failed to satisfy constraint: Member must satisfy enum value set: [PROVISIONED, PAY_PER_REQUEST]; Value 'X' at 'attributeDefinitions.1.member.attributeType' failed to satisfy constraint: Member must satisfy enum value set: [B, N, S]; Value 'COLD' at 'tableClass' failed to satisfy constraint: Member must satisfy enum value set: [STANDARD, STANDARD_INFREQUENT_ACCESS]"
        ],
    );
    check(
        r#"{"TableName":"abc"}"#,
        expect![
            "400 ValidationException: At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates, SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, ReplicaTransitRoleArn, MultiRegionConsistency, DeletionProtectionEnabled, OnDemandThroughput, WarmThroughput or TableClass is required"
        ],
    );
    check(
        r#"{"TableName":"abc","GlobalSecondaryIndexUpdates":[],"AttributeDefinitions":[]}"#,
        expect![
            "400 ValidationException: At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates, SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, ReplicaTransitRoleArn, MultiRegionConsistency, DeletionProtectionEnabled, OnDemandThroughput, WarmThroughput or TableClass is required"
        ],
    );
    check(
        r#"{"TableName":"abc","GlobalSecondaryIndexUpdates":[{"Delete":{"IndexName":"abc"}}]}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: abc not found"],
    );
    check(
        r#"{"TableName":"abc","SSESpecification":{"Enabled":true}}"#,
        expect!["400 ValidationException: The parameter SSESpecification is not supported"],
    );
    check(
        r#"{"TableName":"abc","TableClass":"STANDARD","DeletionProtectionEnabled":true}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: TableClass modification must be the only operation in the request"
        ],
    );
    check(
        r#"{"TableName":"abc","BillingMode":"PAY_PER_REQUEST","DeletionProtectionEnabled":true}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: DeletionProtection modification must be the only operation in the request"
        ],
    );
    check(
        r#"{"TableName":"abc","BillingMode":"PROVISIONED"}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: abc not found"],
    );
    check(
        r#"{"TableName":"abc","BillingMode":"PAY_PER_REQUEST","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1}}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
        ],
    );
    check(
        r#"{"TableName":"abc","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1000000000001}}"#,
        expect!["400 ValidationException: Given value 1000000000001 for WriteCapacityUnits is out of bounds"],
    );
    check(
        r#"{"TableName":"abc","BillingMode":"PAY_PER_REQUEST"}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: abc not found"],
    );
    create(&machine, ON_DEMAND);
    check(
        r#"{"TableName":"orders","BillingMode":"PROVISIONED"}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
        ],
    );
    check(
        r#"{"TableName":"orders","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1}}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
        ],
    );
    check(
        r#"{"TableName":"orders","BillingMode":"PROVISIONED","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1},"Extra":1}"#,
        expect!["400 ValidationException: The parameter Extra is not supported"],
    );
}

#[test]
fn throughput_billing_and_class_change() {
    let machine = Machine::new(22, 3);
    create(&machine, PROVISIONED);
    let update = |change: &str, answered: Expect, described: Expect| {
        let body = format!(r#"{{"TableName":"orders",{change}}}"#);
        let answer = machine.ok("UpdateTable", &body);
        answered.assert_eq(&settings_of(&answer["TableDescription"]));
        let answer = machine.ok("DescribeTable", r#"{"TableName":"orders"}"#);
        described.assert_eq(&settings_of(&answer["Table"]));
    };
    let units = |read: u32, write: u32| {
        format!(r#""ProvisionedThroughput":{{"ReadCapacityUnits":{read},"WriteCapacityUnits":{write}}}"#)
    };
    machine.check(
        "UpdateTable",
        &format!(r#"{{"TableName":"orders",{}}}"#, units(5, 5)),
        expect!["400 ValidationException: The provisioned throughput for the table will not change. The requested value equals the current value. Current ReadCapacityUnits provisioned for the table: 5. Requested ReadCapacityUnits: 5. Current WriteCapacityUnits provisioned for the table: 5. Requested WriteCapacityUnits: 5. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."],
    );
    update(
        &units(10, 5),
        expect![[
            r#"{"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastIncreaseDateTime":"then","NumberOfDecreasesToday":0,"ReadCapacityUnits":5,"WriteCapacityUnits":5},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastIncreaseDateTime":"then","NumberOfDecreasesToday":0,"ReadCapacityUnits":10,"WriteCapacityUnits":5},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        &units(1, 1),
        expect![[
            r#"{"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":0,"ReadCapacityUnits":10,"WriteCapacityUnits":5},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":1,"WriteCapacityUnits":1},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        &format!(r#""BillingMode":"PROVISIONED",{}"#, units(1, 2)),
        expect![[
            r#"{"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":1,"WriteCapacityUnits":1},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":1,"WriteCapacityUnits":2},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        r#""BillingMode":"PAY_PER_REQUEST""#,
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PAY_PER_REQUEST"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":0,"WriteCapacityUnits":0},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PAY_PER_REQUEST","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":0,"WriteCapacityUnits":0},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        r#""BillingMode":"PAY_PER_REQUEST""#,
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PAY_PER_REQUEST","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":0,"WriteCapacityUnits":0},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PAY_PER_REQUEST","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":0,"WriteCapacityUnits":0},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        &format!(r#""BillingMode":"PROVISIONED",{}"#, units(7, 8)),
        expect![[
            r#"{"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PROVISIONED","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        r#""TableClass":"STANDARD""#,
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PROVISIONED","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PROVISIONED","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        r#""TableClass":"STANDARD_INFREQUENT_ACCESS""#,
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PROVISIONED","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PROVISIONED","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableClassSummary":{"LastUpdateDateTime":"then","TableClass":"STANDARD_INFREQUENT_ACCESS"},"TableStatus":"ACTIVE"}"#
        ]],
    );
    update(
        r#""TableClass":"STANDARD""#,
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PROVISIONED","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableClassSummary":{"LastUpdateDateTime":"then","TableClass":"STANDARD_INFREQUENT_ACCESS"},"TableStatus":"UPDATING"}"#
        ]],
        expect![[
            r#"{"BillingModeSummary":{"BillingMode":"PROVISIONED","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"LastDecreaseDateTime":"then","LastIncreaseDateTime":"then","NumberOfDecreasesToday":1,"ReadCapacityUnits":7,"WriteCapacityUnits":8},"TableClassSummary":{"LastUpdateDateTime":"then","TableClass":"STANDARD"},"TableStatus":"ACTIVE"}"#
        ]],
    );
}

#[test]
fn ceilings_on_demand() {
    let machine = Machine::new(27, 2);
    let refused = |rest: &str, expected: Expect| {
        let body = format!(
            r#"{{"TableName":"orders","KeySchema":[{{"AttributeName":"a","KeyType":"HASH"}}],"AttributeDefinitions":[{{"AttributeName":"a","AttributeType":"S"}}],{rest}}}"#
        );
        machine.check("CreateTable", &body, expected);
    };
    let ceilings = |members: &str| format!(r#""OnDemandThroughput":{{{members}}}"#);
    let read = |units: i64| ceilings(&format!(r#""MaxReadRequestUnits":{units}"#));
    let write = |units: i64| ceilings(&format!(r#""MaxWriteRequestUnits":{units}"#));
    refused(
        &format!("{PROVISIONED},{}", write(5)),
        expect![
            "400 ValidationException: One or more parameter values were invalid: MaxWriteRequestUnits for OnDemandThroughput cannot be specified when table BillingMode is PROVISIONED."
        ],
    );
    refused(
        &format!("{ON_DEMAND},{}", read(-1)),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Requested MaxReadRequestUnits for OnDemandThroughput for table is outside of valid range"
        ],
    );
    create(&machine, &format!("{ON_DEMAND},{}", read(1000)));
    let described = |expected: &str| {
        let table = machine.ok("DescribeTable", r#"{"TableName":"orders"}"#);
        assert_eq!(table["Table"]["OnDemandThroughput"].to_string(), expected);
    };
    described(r#"{"MaxReadRequestUnits":1000}"#);
    let update = |change: &str, expected: &str| {
        let table = machine.ok("UpdateTable", &format!(r#"{{"TableName":"orders",{change}}}"#));
        let table = &table["TableDescription"];
        assert_eq!(
            format!(
                "{} {}",
                table["TableStatus"].as_str().unwrap(),
                table["OnDemandThroughput"]
            ),
            expected
        );
    };
    update(
        &write(7),
        r#"ACTIVE {"MaxReadRequestUnits":1000,"MaxWriteRequestUnits":7}"#,
    );
    update(
        &read(-1),
        r#"ACTIVE {"MaxReadRequestUnits":-1,"MaxWriteRequestUnits":7}"#,
    );
    machine.crash();
    machine.start(2);
    described(r#"{"MaxWriteRequestUnits":7}"#);
    let refused = |change: &str, expected: Expect| {
        machine.check(
            "UpdateTable",
            &format!(r#"{{"TableName":"orders",{change}}}"#),
            expected,
        );
    };
    refused(
        &read(0),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Requested MaxReadRequestUnits for OnDemandThroughput for table is outside of valid range"
        ],
    );
    refused(
        &format!("{},{PROVISIONED}", read(1)),
        expect![
            "400 ValidationException: One or more parameter values were invalid: OnDemandThroughput can only be combined with BillingMode in an UpdateTable request"
        ],
    );
    refused(
        &format!(r#"{},"DeletionProtectionEnabled":true"#, read(1)),
        expect![
            "400 ValidationException: One or more parameter values were invalid: DeletionProtection modification must be the only operation in the request"
        ],
    );
    update(
        &format!(r#""BillingMode":"PROVISIONED",{PROVISIONED}"#),
        "UPDATING null",
    );
    refused(
        &read(1),
        expect![
            "400 ValidationException: One or more parameter values were invalid: MaxReadRequestUnits for OnDemandThroughput cannot be specified when the table BillingMode is PROVISIONED"
        ],
    );
    update(
        &format!("{ON_DEMAND},{}", read(9)),
        r#"UPDATING {"MaxReadRequestUnits":9}"#,
    );
}

#[test]
fn a_protected_table_is_not_deleted() {
    let machine = Machine::new(23, 2);
    create(
        &machine,
        &format!(r#"{ON_DEMAND},"DeletionProtectionEnabled":true,"TableClass":"STANDARD_INFREQUENT_ACCESS""#),
    );
    let name = r#"{"TableName":"orders"}"#;
    expect![[r#"{"BillingModeSummary":{"BillingMode":"PAY_PER_REQUEST","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":true,"ProvisionedThroughput":{"NumberOfDecreasesToday":0,"ReadCapacityUnits":0,"WriteCapacityUnits":0},"TableClassSummary":{"TableClass":"STANDARD_INFREQUENT_ACCESS"},"TableStatus":"ACTIVE"}"#]].assert_eq(&settings_of(&machine.ok("DescribeTable", name)["Table"]));
    machine.check("DeleteTable", name, expect!["400 ValidationException: Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first."]);
    // It is protected after a restart, too.
    machine.stop();
    machine.start(3);
    machine.check("DeleteTable", name, expect!["400 ValidationException: Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first."]);
    let off = r#"{"TableName":"orders","DeletionProtectionEnabled":false}"#;
    expect![[r#"{"BillingModeSummary":{"BillingMode":"PAY_PER_REQUEST","LastUpdateToPayPerRequestDateTime":"then"},"DeletionProtectionEnabled":false,"ProvisionedThroughput":{"NumberOfDecreasesToday":0,"ReadCapacityUnits":0,"WriteCapacityUnits":0},"TableClassSummary":{"TableClass":"STANDARD_INFREQUENT_ACCESS"},"TableStatus":"ACTIVE"}"#]].assert_eq(&settings_of(&machine.ok("UpdateTable", off)["TableDescription"]));
    machine.ok("UpdateTable", off);
    machine.ok("DeleteTable", name);
    machine.check(
        "UpdateTable",
        off,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: orders not found"],
    );
}

#[test]
fn tags_are_kept() {
    let machine = Machine::new(24, 2);
    create(
        &machine,
        &format!(r#"{ON_DEMAND},"Tags":[{{"Key":"team","Value":"blue"}},{{"Key":"empty","Value":""}}]"#),
    );
    let arn = format!(r#""ResourceArn":"{ARN}""#);
    let list = |expected: Expect| machine.check("ListTagsOfResource", &format!("{{{arn}}}"), expected);
    let tag = |tags: &str, expected: Expect| {
        machine.check("TagResource", &format!(r#"{{{arn},"Tags":[{tags}]}}"#), expected);
    };
    let untag = |keys: &str, expected: Expect| {
        machine.check(
            "UntagResource",
            &format!(r#"{{{arn},"TagKeys":[{keys}]}}"#),
            expected,
        );
    };
    list(expect![[
        r#"{"Tags":[{"Key":"empty","Value":""},{"Key":"team","Value":"blue"}]}"#
    ]]);
    tag(
        r#"{"Key":"team","Value":"red"},{"Key":"ключ 1","Value":"a+b-c=d.e_f:g/h@i"}"#,
        expect![""],
    );
    untag(r#""empty","never""#, expect![""]);
    list(expect![[
        r#"{"Tags":[{"Key":"team","Value":"red"},{"Key":"ключ 1","Value":"a+b-c=d.e_f:g/h@i"}]}"#
    ]]);
    machine.crash();
    machine.start(1);
    list(expect![[
        r#"{"Tags":[{"Key":"team","Value":"red"},{"Key":"ключ 1","Value":"a+b-c=d.e_f:g/h@i"}]}"#
    ]]);

    let key = "k".repeat(129);
    tag(
        "",
        expect!["400 ValidationException: Atleast one Tag needs to be provided as Input."],
    );
    tag(
        "{}",
        expect!["400 ValidationException: The Tag Key provided is invalid, Key: null"],
    );
    tag(
        r#"{"Key":"a"}"#,
        expect!["400 ValidationException: The Tag Value provided is invalid, Value: null"],
    );
    tag(
        r#"{"Key":"","Value":""}"#,
        expect!["400 ValidationException: The Tag Key provided is invalid, Key: "],
    );
    tag(
        &format!(r#"{{"Key":"{key}","Value":""}}"#),
        expect![
            "400 ValidationException: The Tag Key provided is invalid, Key: kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
        ],
    );
    tag(
        r#"{"Key":"a#b","Value":""}"#,
        expect!["400 ValidationException: The Tag Key provided is invalid, Key: a#b"],
    );
    tag(
        r#"{"Key":"a","Value":"100%"}"#,
        expect!["400 ValidationException: The Tag Value provided is invalid, Value: 100%"],
    );
    tag(
        r#"{"Key":"good","Value":"x"},{"Key":"AWS:foo","Value":""}"#,
        expect!["400 ValidationException: Tag Key cannot be prefixed with aws:, Key: AWS:foo"],
    );
    tag(
        r#"{"Key":"a","Value":"1"},{"Key":"a","Value":"2"}"#,
        expect!["400 ValidationException: Duplicate Tag Keys provided as input: Duplicate Tag Key found a"],
    );
    tag(
        r#"{"Key":"cairn:colour","Value":"blue"}"#,
        expect![
            "400 ValidationException: Tag Keys prefixed with cairn: are settings of the table, and there are only cairn:expired-items with the Value hidden, cairn:stream-hours with a Value from 24 to 8784, cairn:item-collection-bytes-max with a Value from 1 to 1125899906842624 and cairn:compression with the Value none, lz4 or zstd: Key: cairn:colour, Value: blue"
        ],
    );
    tag(
        r#"{"Key":"cairn:expired-items","Value":"shown"}"#,
        expect![
            "400 ValidationException: Tag Keys prefixed with cairn: are settings of the table, and there are only cairn:expired-items with the Value hidden, cairn:stream-hours with a Value from 24 to 8784, cairn:item-collection-bytes-max with a Value from 1 to 1125899906842624 and cairn:compression with the Value none, lz4 or zstd: Key: cairn:expired-items, Value: shown"
        ],
    );
    tag(
        r#"{"Key":"cairn:compression","Value":"ZSTD"}"#,
        expect![
            "400 ValidationException: Tag Keys prefixed with cairn: are settings of the table, and there are only cairn:expired-items with the Value hidden, cairn:stream-hours with a Value from 24 to 8784, cairn:item-collection-bytes-max with a Value from 1 to 1125899906842624 and cairn:compression with the Value none, lz4 or zstd: Key: cairn:compression, Value: ZSTD"
        ],
    );
    untag(
        "",
        expect!["400 ValidationException: Atleast one Tag Key needs to be provided as Input."],
    );
    untag(
        r#""aws:foo""#,
        expect!["400 ValidationException: Tag Key cannot be prefixed with aws:, Key: aws:foo"],
    );
    let many = |count: usize| {
        let tags: Vec<_> = (0..count)
            .map(|n| format!(r#"{{"Key":"t{n}","Value":"v"}}"#))
            .collect();
        tags.join(",")
    };
    tag(
        &many(51),
        expect![
            "400 ValidationException: Number of Tags exceed the current limit for the provided ResourceArn"
        ],
    );
    tag(&many(48), expect![""]);
    tag(
        r#"{"Key":"one more","Value":""}"#,
        expect![
            "400 ValidationException: Number of Tags exceed the current limit for the provided ResourceArn"
        ],
    );
    tag(&many(48), expect![""]);

    let check = |operation: &str, body: &str, expected: Expect| machine.check(operation, body, expected);
    check(
        "TagResource",
        "{}",
        expect!["400 ValidationException: Invalid TableArn"],
    );
    check(
        "TagResource",
        r#"{"ResourceArn":"abc"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'tags' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "UntagResource",
        r#"{"ResourceArn":"abc"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "UntagResource",
        r#"{"ResourceArn":"abc","TagKeys":7}"#,
        expect!["400 SerializationException: Expected list or null"],
    );
    let mut answers = Vec::new();
    for arn in [
        "abc",
        "arn:aws:dynamodb",
        "arn:aws:s3:::bucket",
        "arn:aws:dynamodb:eu-west-1:000000000000:table/orders",
        "arn:aws:dynamodb:us-east-1:000000000000:table/ab",
        "arn:aws:dynamodb:us-east-1:000000000000:table/orders/index/abc",
        "arn:aws:dynamodb:us-east-1:000000000001:table/orders",
        "arn:aws:dynamodb:us-east-1:000000000000:table/none",
    ] {
        let body = format!(r#"{{"ResourceArn":"{arn}"}}"#);
        let answer = machine.call("ListTagsOfResource", &body);
        let tags = format!(r#"{{"ResourceArn":"{arn}","Tags":[{{"Key":"a","Value":"b"}}]}}"#);
        let expected = answer.replace("ListTagsOfResource", "TagResource");
        assert_eq!(machine.call("TagResource", &tags), expected);
        answers.push(answer);
    }
    expect![[r#"
        400 ValidationException: One or more parameter values were invalid: ARNs must start with 'arn:': abc
        400 ValidationException: Invalid TableArn: Invalid ResourceArn provided as input arn:aws:dynamodb
        400 ValidationException: One or more parameter values were invalid: Provided Arn is not a DynamoDB resource arn: arn:aws:s3:::bucket
        400 ValidationException: Invalid TableArn: Invalid ResourceArn provided as input arn:aws:dynamodb:eu-west-1:000000000000:table/orders
        400 ValidationException: Invalid TableArn: Invalid ResourceArn provided as input arn:aws:dynamodb:us-east-1:000000000000:table/ab
        400 ValidationException: One or more parameter values were invalid: Invalid resource arn provided, only table or stream is accepted. Provided resource arn: arn:aws:dynamodb:us-east-1:000000000000:table/orders/index/abc
        400 AccessDeniedException: User: arn:aws:iam::000000000000:root is not authorized to perform: dynamodb:ListTagsOfResource on resource: arn:aws:dynamodb:us-east-1:000000000001:table/orders
        400 ResourceNotFoundException: Requested resource not found: ResourceArn: arn:aws:dynamodb:us-east-1:000000000000:table/none not found"#]].assert_eq(&answers.join("\n"));
}

#[test]
fn a_table_is_found_by_its_arn() {
    let machine = Machine::new(25, 2);
    create(&machine, ON_DEMAND);
    let item = |operation: &str, table: &str, rest: &str| {
        machine.call(operation, &format!(r#"{{"TableName":"{table}"{rest}}}"#))
    };
    let key = r#","Key":{"a":{"S":"x"}}"#;
    assert_eq!(item("PutItem", ARN, r#","Item":{"a":{"S":"x"}}"#), "{}");
    let found = r#"{"Item":{"a":{"S":"x"}}}"#;
    assert_eq!(item("GetItem", ARN, key), found);
    assert_eq!(item("GetItem", "orders", key), found);
    assert_eq!(item("UpdateItem", ARN, key), "{}");
    assert!(item("Scan", ARN, "").contains(r#""Count":1"#));
    assert!(item("DescribeTable", ARN, "").contains(r#""TableName":"orders""#));
    assert!(item("DescribeTimeToLive", ARN, "").contains("DISABLED"));
    let batch = format!(r#"{{"RequestItems":{{"{ARN}":{{"Keys":[{{"a":{{"S":"x"}}}}]}}}}}}"#);
    machine.check(
        "BatchGetItem",
        &batch,
        expect![[r#"{"Responses":{"orders":[{"a":{"S":"x"}}]},"UnprocessedKeys":{}}"#]],
    );
    let mut answers = Vec::new();
    for arn in [
        "arn:aws:dynamodb",
        "arn:cloud:dynamodb:us-east-1:000000000000:table/orders",
        "arn:aws:dynamodb:eu-west-1:000000000000:table/orders",
        "arn:aws:dynamodb:us-east-1:000000000000:stream/orders",
        "arn:aws:dynamodb:us-east-1:000000000000:table/or",
        "arn:aws:dynamodb:us-east-1:000000000000:table/orders/index/abc",
        "arn:aws:dynamodb:us-east-1:000000000001:table/orders",
        "arn:aws:dynamodb:us-east-1:000000000000:table/none",
    ] {
        let answer = item("GetItem", arn, key);
        answers.push(answer);
    }
    expect![[r#"
        400 ValidationException: 1 validation error detected: Value 'arn:aws:dynamodb' at 'tableName' failed to satisfy constraint: Valid ARN format is 'arn:<awsPartition>:<vendor>:<region>:<subscriber>:resourceType/resourceName', where Resource name must have length less than or equal to 255, Resource name must have length greater than or equal to 3, Resource name must satisfy regular expression pattern: [a-zA-Z0-9_.-]+
        400 ValidationException: 1 validation error detected: Invalid AWS partition in 'arn:cloud:dynamodb:us-east-1:000000000000:table/orders'
        400 ValidationException: 1 validation error detected: Invalid AWS region in 'arn:aws:dynamodb:eu-west-1:000000000000:table/orders'
        400 ValidationException: 1 validation error detected: Invalid resource type in 'arn:aws:dynamodb:us-east-1:000000000000:stream/orders'
        400 ValidationException: 1 validation error detected: Value 'arn:aws:dynamodb:us-east-1:000000000000:table/or' at 'tableName' failed to satisfy constraint: Valid ARN format is 'arn:<awsPartition>:<vendor>:<region>:<subscriber>:resourceType/resourceName', where Resource name must have length less than or equal to 255, Resource name must have length greater than or equal to 3, Resource name must satisfy regular expression pattern: [a-zA-Z0-9_.-]+
        400 ValidationException: 1 validation error detected: Value 'arn:aws:dynamodb:us-east-1:000000000000:table/orders/index/abc' at 'tableName' failed to satisfy constraint: Valid ARN format is 'arn:<awsPartition>:<vendor>:<region>:<subscriber>:resourceType/resourceName', where Resource name must have length less than or equal to 255, Resource name must have length greater than or equal to 3, Resource name must satisfy regular expression pattern: [a-zA-Z0-9_.-]+
        400 ResourceNotFoundException: Requested resource not found
        400 ResourceNotFoundException: Requested resource not found"#]].assert_eq(&answers.join("\n"));
    assert!(item("DeleteTable", ARN, "").contains("DELETING"));
}

#[test]
fn what_there_is_none_of() {
    let machine = Machine::new(26, 2);
    create(&machine, ON_DEMAND);
    let check = |operation: &str, body: &str, expected: Expect| machine.check(operation, body, expected);
    let orders = r#"{"TableName":"orders"}"#;
    let none = r#"{"TableName":"none"}"#;
    check(
        "DescribeLimits",
        "{}",
        expect![[
            r#"{"AccountMaxReadCapacityUnits":2500000000000000,"AccountMaxWriteCapacityUnits":2500000000000000,"TableMaxReadCapacityUnits":1000000000000,"TableMaxWriteCapacityUnits":1000000000000}"#
        ]],
    );
    check(
        "DescribeLimits",
        r#"{"TableName":"orders"}"#,
        expect!["400 ValidationException: The parameter TableName is not supported"],
    );
    check(
        "DescribeContinuousBackups",
        orders,
        expect![[
            r#"{"ContinuousBackupsDescription":{"ContinuousBackupsStatus":"DISABLED","PointInTimeRecoveryDescription":{"PointInTimeRecoveryStatus":"DISABLED"}}}"#
        ]],
    );
    check(
        "DescribeContinuousBackups",
        none,
        expect!["400 TableNotFoundException: Table not found: none"],
    );
    check(
        "DescribeContinuousBackups",
        "{}",
        expect![
            "400 ValidationException: The parameter 'TableName' is required but was not present in the request"
        ],
    );
    check(
        "UpdateContinuousBackups",
        r#"{"TableName":"orders","PointInTimeRecoverySpecification":{"PointInTimeRecoveryEnabled":false}}"#,
        expect![[
            r#"{"ContinuousBackupsDescription":{"ContinuousBackupsStatus":"DISABLED","PointInTimeRecoveryDescription":{"PointInTimeRecoveryStatus":"DISABLED"}}}"#
        ]],
    );
    check(
        "UpdateContinuousBackups",
        r#"{"TableName":"orders","PointInTimeRecoverySpecification":{"PointInTimeRecoveryEnabled":true}}"#,
        expect!["400 ValidationException: The parameter PointInTimeRecoveryEnabled is not supported"],
    );
    check(
        "UpdateContinuousBackups",
        r#"{"TableName":"orders","PointInTimeRecoverySpecification":{}}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'pointInTimeRecoverySpecification.pointInTimeRecoveryEnabled' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "DescribeContributorInsights",
        orders,
        expect![[r#"{"TableName":"orders","ContributorInsightsStatus":"DISABLED"}"#]],
    );
    check(
        "DescribeContributorInsights",
        none,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: none not found"],
    );
    check(
        "DescribeContributorInsights",
        r#"{"TableName":"orders","IndexName":"abc"}"#,
        expect![
            "400 ResourceNotFoundException: Requested resource not found: Index: abc not found for table: orders"
        ],
    );
    check(
        "ListContributorInsights",
        r#"{"MaxResults":3}"#,
        expect![[r#"{"ContributorInsightsSummaries":[]}"#]],
    );
    check(
        "ListContributorInsights",
        r#"{"MaxResults":101}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value '101' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 100"
        ],
    );
    check(
        "ListContributorInsights",
        none,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: none not found"],
    );
    check(
        "DescribeKinesisStreamingDestination",
        orders,
        expect![[r#"{"TableName":"orders","KinesisDataStreamDestinations":[]}"#]],
    );
    check(
        "DescribeKinesisStreamingDestination",
        none,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: none not found"],
    );
    check(
        "GetResourcePolicy",
        &format!(r#"{{"ResourceArn":"{ARN}"}}"#),
        expect![
            "400 PolicyNotFoundException: Resource-based policy not found for the provided ResourceArn: Requested policy not found for: arn:aws:dynamodb:us-east-1:000000000000:table/orders"
        ],
    );
    check(
        "ListBackups",
        r#"{"TableName":"none","Limit":100,"TimeRangeLowerBound":1.5e9}"#,
        expect![[r#"{"BackupSummaries":[]}"#]],
    );
    check(
        "ListBackups",
        r#"{"Limit":0}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ],
    );
    check(
        "ListBackups",
        r#"{"Colour":"blue"}"#,
        expect!["400 ValidationException: The parameter Colour is not supported"],
    );
    check("ListExports", "{}", expect![[r#"{"ExportSummaries":[]}"#]]);
    check(
        "ListImports",
        r#"{"PageSize":26}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value '26' at 'pageSize' failed to satisfy constraint: Member must have value less than or equal to 25"
        ],
    );
    check("ListImports", "", expect![[r#"{"ImportSummaryList":[]}"#]]);
    check(
        "ListGlobalTables",
        r#"{"RegionName":"us-east-1"}"#,
        expect![[r#"{"GlobalTables":[]}"#]],
    );
    check("CreateBackup", orders, expect!["400 UnknownOperationException: "]);
}
