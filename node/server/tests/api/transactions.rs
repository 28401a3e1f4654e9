//! TransactWriteItems and TransactGetItems: what they answer, and what they leave behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use cairn::transact::Met;
use cairn_runtime::{Queue, Runtime, ShardIndex};
use expect_test::expect;
use serde_json::Value;

use crate::{Machine, NODE};

fn machine(seed: u64) -> Machine {
    let machine = Machine::new(seed, 3);
    machine.create("things", &[("pk", "S")]);
    machine.create("pairs", &[("pk", "S"), ("sk", "N")]);
    machine
}

fn write(actions: &[&str]) -> String {
    format!(r#"{{"TransactItems":[{}]}}"#, actions.join(","))
}

fn put(id: &str, n: i64) -> String {
    format!(r#"{{"Put":{{"TableName":"things","Item":{{"pk":{{"S":"{id}"}},"n":{{"N":"{n}"}}}}}}}}"#)
}

fn get(machine: &Machine, id: &str) -> Value {
    let key = format!(r#"{{"TableName":"things","Key":{{"pk":{{"S":"{id}"}}}},"ConsistentRead":true}}"#);
    machine.ok("GetItem", &key)["Item"].take()
}

#[test]
fn what_becomes_of_transactions_is_counted() {
    let machine = machine(720);
    machine.ok("TransactWriteItems", &write(&[&put("a", 1), &put("b", 2)]));
    machine.ok("TransactWriteItems", &write(&[&put("c", 3)]));
    let absent = |id: &str| {
        format!(
            r#"{{"ConditionCheck":{{"TableName":"things","Key":{{"pk":{{"S":"{id}"}}}},"ConditionExpression":"attribute_not_exists(pk)"}}}}"#
        )
    };
    // Two reasons of one code count once.
    machine.call(
        "TransactWriteItems",
        &write(&[&absent("a"), &absent("b"), &put("d", 4)]),
    );
    let text = r#"{"Put":{"TableName":"things","Item":{"pk":{"N":"1"}}}}"#;
    machine.call("TransactWriteItems", &write(&[&absent("a"), text]));
    let mut cancelled = BTreeMap::new();
    let (mut committed, mut under_way) = (0, 0);
    for stats in machine.transaction_stats() {
        committed += stats.committed;
        under_way += stats.in_flight + stats.prepared + stats.held_items;
        for (code, count) in stats.cancelled {
            *cancelled.entry(code).or_insert(0) += count;
        }
    }
    assert_eq!((committed, under_way), (2, 0));
    let expected = [("ConditionalCheckFailed", 2), ("ValidationError", 1)];
    assert_eq!(cancelled, BTreeMap::from(expected));
}

#[test]
fn all_actions_are_done_or_none() {
    let machine = machine(700);
    machine.ok(
        "TransactWriteItems",
        &write(&[&put("a", 1), &put("b", 2), &put("c", 3)]),
    );
    machine.check(
        "TransactWriteItems",
        &write(&[
            r#"{"Update":{"TableName":"things","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET n = n + :n",
                "ExpressionAttributeValues":{":n":{"N":"10"}}}}"#,
            r#"{"Delete":{"TableName":"things","Key":{"pk":{"S":"b"}},"ConditionExpression":"n = :n",
                "ExpressionAttributeValues":{":n":{"N":"2"}}}}"#,
            r#"{"ConditionCheck":{"TableName":"things","Key":{"pk":{"S":"c"}},"ConditionExpression":"attribute_exists(pk)"}}"#,
            r#"{"Put":{"TableName":"pairs","Item":{"pk":{"S":"p"},"sk":{"N":"1"}}}}"#,
        ]),
        expect![["{}"]],
    );
    machine.check(
        "TransactGetItems",
        r#"{"TransactItems":[
            {"Get":{"TableName":"things","Key":{"pk":{"S":"a"}}}},
            {"Get":{"TableName":"things","Key":{"pk":{"S":"b"}}}},
            {"Get":{"TableName":"things","Key":{"pk":{"S":"c"}},"ProjectionExpression":"n"}},
            {"Get":{"TableName":"pairs","Key":{"pk":{"S":"p"},"sk":{"N":"1.0"}}}}
        ],"ReturnConsumedCapacity":"INDEXES"}"#,
        expect![[r#"{"ConsumedCapacity":[{"TableName":"things","CapacityUnits":6.0,"ReadCapacityUnits":6.0,"Table":{"CapacityUnits":6.0,"ReadCapacityUnits":6.0}},{"TableName":"pairs","CapacityUnits":2.0,"ReadCapacityUnits":2.0,"Table":{"CapacityUnits":2.0,"ReadCapacityUnits":2.0}}],"Responses":[{"Item":{"n":{"N":"11"},"pk":{"S":"a"}}},{},{"Item":{"n":{"N":"3"}}},{"Item":{"pk":{"S":"p"},"sk":{"N":"1"}}}]}"#]],
    );
    // One condition is false: nothing is done.
    machine.check(
        "TransactWriteItems",
        &write(&[
            &put("a", 0),
            r#"{"ConditionCheck":{"TableName":"things","Key":{"pk":{"S":"c"}},"ConditionExpression":"n > :n",
                "ExpressionAttributeValues":{":n":{"N":"3"}},"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}}"#,
            r#"{"Delete":{"TableName":"things","Key":{"pk":{"S":"none"}},"ConditionExpression":"attribute_exists(pk)",
                "ReturnValuesOnConditionCheckFailure":"ALL_OLD"}}"#,
            r#"{"Put":{"TableName":"pairs","Item":{"pk":{"S":"p"},"sk":{"N":"2"}}}}"#,
        ]),
        expect![[r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [None, ConditionalCheckFailed, ConditionalCheckFailed, None] "CancellationReasons":[{"Code":"None"},{"Code":"ConditionalCheckFailed","Item":{"n":{"N":"3"},"pk":{"S":"c"}},"Message":"The conditional request failed"},{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},{"Code":"None"}]"#]],
    );
    assert_eq!(get(&machine, "a")["n"]["N"], "11");
    let scanned = machine.ok("Scan", r#"{"TableName":"pairs"}"#);
    assert_eq!(scanned["Count"], 1);
    // What was let go can be written.
    machine.ok("PutItem", r#"{"TableName":"things","Item":{"pk":{"S":"a"}}}"#);
    machine.ok("TransactWriteItems", &write(&[&put("a", 5), &put("c", 6)]));
    let described = machine.ok("DescribeTable", r#"{"TableName":"things"}"#);
    assert_eq!(described["Table"]["ItemCount"], 2);
    assert_eq!(
        machine.ok("ListTables", "{}")["TableNames"].to_string(),
        r#"["pairs","things"]"#
    );
}

#[test]
fn capacity_is_doubled_but_for_indexes() {
    let machine = machine(701);
    machine.ok(
        "CreateTable",
        r#"{"TableName":"indexed","BillingMode":"PAY_PER_REQUEST",
            "KeySchema":[{"AttributeName":"pk","KeyType":"HASH"},{"AttributeName":"sk","KeyType":"RANGE"}],
            "AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"},{"AttributeName":"sk","AttributeType":"S"},
                {"AttributeName":"a","AttributeType":"S"},{"AttributeName":"b","AttributeType":"S"}],
            "LocalSecondaryIndexes":[{"IndexName":"local","KeySchema":[{"AttributeName":"pk","KeyType":"HASH"},
                {"AttributeName":"a","KeyType":"RANGE"}],"Projection":{"ProjectionType":"ALL"}}],
            "GlobalSecondaryIndexes":[{"IndexName":"global","KeySchema":[{"AttributeName":"b","KeyType":"HASH"}],
                "Projection":{"ProjectionType":"KEYS_ONLY"}}]}"#,
    );
    let body = r#"{"TransactItems":[
        {"Put":{"TableName":"indexed","Item":{"pk":{"S":"p"},"sk":{"S":"1"},"a":{"S":"q"},"b":{"S":"r"}}}},
        {"Put":{"TableName":"indexed","Item":{"pk":{"S":"p"},"sk":{"S":"2"},"a":{"S":"q"},"b":{"S":"r"}}}},
        {"Put":{"TableName":"things","Item":{"pk":{"S":"p"},"sk":{"S":"1"}}}}],
        "ReturnConsumedCapacity":"MODE","ReturnItemCollectionMetrics":"SIZE","ClientRequestToken":"TOKEN"}"#;
    let body = |mode, token| body.replace("MODE", mode).replace("TOKEN", token);
    machine.check("TransactWriteItems", &body("INDEXES", "one"), expect![[r#"{"ConsumedCapacity":[{"TableName":"indexed","CapacityUnits":8.0,"WriteCapacityUnits":8.0,"Table":{"CapacityUnits":4.0,"WriteCapacityUnits":4.0},"LocalSecondaryIndexes":{"local":{"CapacityUnits":2.0,"WriteCapacityUnits":2.0}},"GlobalSecondaryIndexes":{"global":{"CapacityUnits":2.0,"WriteCapacityUnits":2.0}}},{"TableName":"things","CapacityUnits":2.0,"WriteCapacityUnits":2.0,"Table":{"CapacityUnits":2.0,"WriteCapacityUnits":2.0}}],"ItemCollectionMetrics":{"indexed":[{"ItemCollectionKey":{"pk":{"S":"p"}},"SizeEstimateRangeGB":[0.0,1.0]}]}}"#]]);
    machine.check("TransactWriteItems", &body("TOTAL", "one"), expect![[r#"{"ConsumedCapacity":[{"TableName":"indexed","CapacityUnits":4.0,"ReadCapacityUnits":4.0},{"TableName":"things","CapacityUnits":2.0,"ReadCapacityUnits":2.0}]}"#]]);
    machine.check("TransactWriteItems", &body("TOTAL", "two"), expect![[r#"{"ConsumedCapacity":[{"TableName":"indexed","CapacityUnits":4.0,"WriteCapacityUnits":4.0},{"TableName":"things","CapacityUnits":2.0,"WriteCapacityUnits":2.0}],"ItemCollectionMetrics":{"indexed":[{"ItemCollectionKey":{"pk":{"S":"p"}},"SizeEstimateRangeGB":[0.0,1.0]}]}}"#]]);
    // The indexes have what the table has.
    for (index, key) in [("local", "pk"), ("global", "b")] {
        let value = if key == "pk" { "p" } else { "r" };
        let query = format!(
            r#"{{"TableName":"indexed","IndexName":"{index}","KeyConditionExpression":"{key} = :v",
                "ExpressionAttributeValues":{{":v":{{"S":"{value}"}}}}}}"#
        );
        let mut count = Value::Null;
        for _ in 0..100 {
            count = machine.ok("Query", &query)["Count"].take();
            if count == 2 {
                break;
            }
            machine.run(async |service| service.runtime().sleep(std::time::Duration::from_millis(5)).await);
        }
        assert_eq!(count, 2, "{index}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_order() {
    let machine = machine(702);
    machine.ok("PutItem", r#"{"TableName":"things","Item":{"pk":{"S":"x"}}}"#);
    for (body, expected) in [
        (
            r#"{}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value null at 'transactItems' failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            r#"{"TransactItems":[]}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value '[]' at 'transactItems' failed to satisfy constraint: Member must have length greater than or equal to 1"
            ],
        ),
        (
            r#"{"TransactItems":[{}]}"#,
            expect![
                "400 ValidationException: Invalid Request: TransactWriteRequest should contain Delete or Put or Update request"
            ],
        ),
        (
            r#"{"TransactItems":[{"Put":{}}]}"#,
            expect![
                "400 ValidationException: 2 validation errors detected: Value null at 'transactItems.1.member.put.item' failed to satisfy constraint: Member must not be null; Value null at 'transactItems.1.member.put.tableName' failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"S":"a"}}},"Delete":{"TableName":"things","Key":{"pk":{"S":"a"}}}}]}"#,
            expect![
                "400 ValidationException: TransactItems can only contain one of Check, Put, Update or Delete"
            ],
        ),
        (
            r#"{"TransactItems":[{"Update":{"TableName":"things","Key":{"pk":{"S":"a"}}}},{"ConditionCheck":{"TableName":"things","Key":{"pk":{"S":"a"}}}}]}"#,
            expect![
                "400 ValidationException: 2 validation errors detected: Value null at 'transactItems.1.member.update.updateExpression' failed to satisfy constraint: Member must not be null; Value null at 'transactItems.2.member.conditionCheck.conditionExpression' failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            r#"{"TransactItems":[{"Delete":{"TableName":"things","Key":{"pk":{"S":"q"}},"ReturnValuesOnConditionCheckFailure":"X"}}],
                "ReturnConsumedCapacity":"Y","ClientRequestToken":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","ReturnItemCollectionMetrics":"z"}"#,
            expect![
                "400 ValidationException: 4 validation errors detected: Value 'X' at 'transactItems.1.member.delete.returnValuesOnConditionCheckFailure' failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, NONE]; Value 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' at 'clientRequestToken' failed to satisfy constraint: Member must have length less than or equal to 36; Value 'Y' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]; Value 'z' at 'returnItemCollectionMetrics' failed to satisfy constraint: Member must satisfy enum value set: [SIZE, NONE]"
            ],
        ),
        (
            r#"{"TransactItems":[{"Delete":{"TableName":"things","Key":{"pk":{"S":"q"}}}},{"Delete":{"TableName":"a*b","Key":{"pk":{"S":"q"}}}}]}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value 'a*b' at 'transactItems.2.member.delete.tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            ],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"S":"q"}}}},{"Put":{"TableName":"things","Item":{"pk":{"S":"q"},"s":{"SS":[]}}}}]}"#,
            expect![
                "400 ValidationException: One or more parameter values were invalid: An string set  may not be empty"
            ],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"S":"q"}}}},{"Delete":{"TableName":"things","Key":{"pk":{"S":"q"}}}}]}"#,
            expect![
                "400 ValidationException: Transaction request cannot include multiple operations on one item"
            ],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"none","Item":{"pk":{"S":"q"}}}}]}"#,
            expect!["400 ResourceNotFoundException: Requested resource not found"],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":":transactions","Item":{"Slot":{"B":"qqqq"}}}}]}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value ':transactions' at 'transactItems.1.member.put.tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            ],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"S":"q"}},"ConditionExpression":"a ="}}]}"#,
            expect![[
                r#"400 ValidationException: Invalid ConditionExpression: Syntax error; token: "<EOF>", near: "=""#
            ]],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"S":"q"}},"ConditionExpression":""}}]}"#,
            expect!["400 ValidationException: Invalid ConditionExpression: The expression can not be empty;"],
        ),
        (
            r#"{"TransactItems":[{"Update":{"TableName":"things","Key":{"pk":{"S":"q"}},"UpdateExpression":"SET a = :b, c = :c",
                "ExpressionAttributeValues":{":b":{"S":"b"},":c":{"S":"b"},":d":{"S":"b"}}}}]}"#,
            expect![
                "400 ValidationException: Value provided in ExpressionAttributeValues unused in expressions: keys: {:d}"
            ],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"S":""}}}}]}"#,
            expect![
                "400 ValidationException: One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk"
            ],
        ),
        // From here on they are reasons, beside what the other items say.
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"N":"1"}}}},
                {"Put":{"TableName":"things","Item":{"pk":{"S":"x"}},"ConditionExpression":"attribute_not_exists(pk)"}},
                {"Put":{"TableName":"things","Item":{"pk":{"S":"y"}},"ConditionExpression":"attribute_not_exists(pk)"}}]}"#,
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError, ConditionalCheckFailed, None] "CancellationReasons":[{"Code":"ValidationError","Message":"One or more parameter values were invalid: Type mismatch for key pk expected: S actual: N"},{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},{"Code":"None"}]"#
            ]],
        ),
        (
            r#"{"TransactItems":[{"Put":{"TableName":"things","Item":{"a":{"N":"1"}}}},
                {"Delete":{"TableName":"things","Key":{"pk":{"S":"x"},"b":{"S":"x"}}}},
                {"Update":{"TableName":"things","Key":{"pk":{"S":"x"}},"UpdateExpression":"SET a = a + :b","ExpressionAttributeValues":{":b":{"N":"1"}}}},
                {"Update":{"TableName":"things","Key":{"pk":{"S":"y"}},"UpdateExpression":"SET pk = :b","ExpressionAttributeValues":{":b":{"S":"1"}}}}]}"#,
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError, ValidationError, ValidationError, ValidationError] "CancellationReasons":[{"Code":"ValidationError","Message":"One or more parameter values were invalid: Missing the key pk in the item"},{"Code":"ValidationError","Message":"The provided key element does not match the schema"},{"Code":"ValidationError","Message":"The provided expression refers to an attribute that does not exist in the item"},{"Code":"ValidationError","Message":"One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"}]"#
            ]],
        ),
    ] {
        machine.check("TransactWriteItems", body, expected);
    }
    let many: Vec<String> = (0..101).map(|id| put(&format!("i{id}"), id)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    machine.check("TransactWriteItems", &write(&many), expect!["400 ValidationException: 1 validation error detected: Value '[101 items]' at 'transactItems' failed to satisfy constraint: Member must have length less than or equal to 100"]);
    machine.ok("TransactWriteItems", &write(&many[..100]));
    let large: Vec<String> = (0..11)
        .map(|id| {
            let text = "x".repeat(390_000);
            format!(
                r#"{{"Put":{{"TableName":"things","Item":{{"pk":{{"S":"l{id}"}},"x":{{"S":"{text}"}}}}}}}}"#
            )
        })
        .collect();
    let large: Vec<&str> = large.iter().map(String::as_str).collect();
    machine.check("TransactWriteItems", &write(&large), expect!["400 ValidationException: Collection size of items exceeded, which can also be caused by the aggregate size of the items in the transaction exceeding the 4MB limit"]);
    machine.ok("TransactWriteItems", &write(&large[..10]));
    // What is there already makes it too large.
    let grow: Vec<String> = (0..11)
        .map(|id| {
            format!(
                r#"{{"Update":{{"TableName":"things","Key":{{"pk":{{"S":"l{id}"}}}},"UpdateExpression":"SET y = :y",
                    "ExpressionAttributeValues":{{":y":{{"S":"{}"}}}}}}}}"#,
                "y".repeat(15_000)
            )
        })
        .collect();
    let grow: Vec<&str> = grow.iter().map(String::as_str).collect();
    machine.ok(
        "TransactWriteItems",
        &write(&[&large[0].replace("\"l0\"", "\"l10\"")]),
    );
    machine.check("TransactWriteItems", &write(&grow), expect!["400 ValidationException: Collection size of items exceeded, which can also be caused by the aggregate size of the items in the transaction exceeding the 4MB limit"]);
}

#[test]
fn what_is_wrong_with_a_read_is_said_in_order() {
    let machine = machine(703);
    for (body, expected) in [
        (
            r#"{}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value null at 'transactItems' failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            r#"{"TransactItems":[]}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value '[]' at 'transactItems' failed to satisfy constraint: Member must have length greater than or equal to 1"
            ],
        ),
        (
            r#"{"TransactItems":[{}]}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value null at 'transactItems.1.member.get' failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            r#"{"TransactItems":[{"Get":{}}]}"#,
            expect![
                "400 ValidationException: 2 validation errors detected: Value null at 'transactItems.1.member.get.key' failed to satisfy constraint: Member must not be null; Value null at 'transactItems.1.member.get.tableName' failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            r#"{"TransactItems":[{"Get":{"TableName":"things","Key":{"pk":{"S":"x"}}}}],"ReturnConsumedCapacity":"q"}"#,
            expect![
                "400 ValidationException: 1 validation error detected: Value 'q' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]"
            ],
        ),
        (
            r#"{"TransactItems":[{"Get":{"TableName":"none","Key":{"pk":{"S":"x"}}}}]}"#,
            expect!["400 ResourceNotFoundException: Requested resource not found"],
        ),
        (
            r#"{"TransactItems":[{"Get":{"TableName":"things","Key":{"pk":{"S":"x"}},"ProjectionExpression":"!!!"}}]}"#,
            expect![[
                r#"400 ValidationException: Invalid ProjectionExpression: Syntax error; token: "!", near: "!!""#
            ]],
        ),
        (
            r#"{"TransactItems":[{"Get":{"TableName":"things","Key":{}}},{"Get":{"TableName":"things","Key":{"pk":{"S":""}}}},
                {"Get":{"TableName":"things","Key":{"pk":{"S":"x"}}}}]}"#,
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError, ValidationError, None] "CancellationReasons":[{"Code":"ValidationError","Message":"The provided key element does not match the schema"},{"Code":"ValidationError","Message":"One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk"},{"Code":"None"}]"#
            ]],
        ),
        (
            r#"{"TransactItems":[{"Get":{"TableName":"things","Key":{"pk":{"S":"x"}}}},{"Get":{"TableName":"things","Key":{"pk":{"S":"x"}}}}]}"#,
            expect![
                "400 ValidationException: Transaction request cannot include multiple operations on one item"
            ],
        ),
    ] {
        machine.check("TransactGetItems", body, expected);
    }
}

#[test]
fn a_token_makes_a_transaction_happen_once_also_over_crashes() {
    let machine = machine(704);
    machine.ok("TransactWriteItems", &write(&[&put("n", 0)]));
    let add = |token: &str, n: u64| {
        format!(
            r#"{{"ClientRequestToken":"{token}","TransactItems":[{{"Update":{{"TableName":"things","Key":{{"pk":{{"S":"n"}}}},
                "UpdateExpression":"ADD n :n","ExpressionAttributeValues":{{":n":{{"N":"{n}"}}}}}}}}]}}"#
        )
    };
    for round in 0..3_u64 {
        let token = format!("round-{round}");
        for attempt in 0..4 {
            machine.ok("TransactWriteItems", &add(&token, 1));
            if attempt == 1 {
                machine.crash();
                machine.start(1 + usize::try_from(round).unwrap());
            }
            assert_eq!(get(&machine, "n")["n"]["N"], (round + 1).to_string());
        }
        machine.check("TransactWriteItems", &add(&token, 2), expect![[
            "400 IdempotentParameterMismatchException: DynamoDB rejected the request because you retried a request with a different payload but with an idempotent token that was already used"
        ]]);
    }
    // One that was cancelled may be tried again.
    let body = r#"{"ClientRequestToken":"later","TransactItems":[{"Put":{"TableName":"things","Item":{"pk":{"S":"later"}},
        "ConditionExpression":"attribute_not_exists(pk)"}}]}"#;
    machine.ok("PutItem", r#"{"TableName":"things","Item":{"pk":{"S":"later"}}}"#);
    assert!(
        machine
            .call("TransactWriteItems", body)
            .contains("TransactionCanceledException")
    );
    machine.ok(
        "DeleteItem",
        r#"{"TableName":"things","Key":{"pk":{"S":"later"}}}"#,
    );
    machine.ok("TransactWriteItems", body);
    machine.ok("TransactWriteItems", body);
    // Ten minutes later it is a new one.
    machine.run(async |service| service.runtime().sleep(std::time::Duration::from_secs(700)).await);
    assert!(
        machine
            .call("TransactWriteItems", body)
            .contains("ConditionalCheckFailed")
    );
    // And what was remembered is gone.
    machine.run(async |service| service.runtime().sleep(std::time::Duration::from_secs(700)).await);
    machine.ok("TransactWriteItems", &add("round-0", 1));
    assert_eq!(get(&machine, "n")["n"]["N"], "4");
}

#[test]
fn of_two_transactions_at_once_on_an_item_one_conflicts_and_so_does_a_plain_write() {
    let machine = machine(705);
    machine.ok("TransactWriteItems", &write(&[&put("a", 0), &put("b", 0)]));
    let answers = Rc::new(RefCell::new(Vec::new()));
    let done = Rc::new(Cell::new(0));
    let add = |id: &str| {
        format!(
            r#"{{"Update":{{"TableName":"things","Key":{{"pk":{{"S":"{id}"}}}},"UpdateExpression":"ADD n :n",
                "ExpressionAttributeValues":{{":n":{{"N":"1"}}}}}}}}"#
        )
    };
    let plain: Value = serde_json::from_str(&add("a")).unwrap();
    let plain = plain["Update"].to_string();
    let mut tasks = 0;
    for round in 0..40 {
        for (operation, body) in [
            ("TransactWriteItems", write(&[&add("a"), &add("b")])),
            ("UpdateItem", plain.clone()),
            (
                "TransactGetItems",
                r#"{"TransactItems":[{"Get":{"TableName":"things","Key":{"pk":{"S":"a"}}}},{"Get":{"TableName":"things","Key":{"pk":{"S":"b"}}}}]}"#
                    .to_owned(),
            ),
        ] {
            let shard = (tasks + round) % machine.shards();
            let service = machine.service(shard);
            let (answers, done) = (Rc::clone(&answers), Rc::clone(&done));
            let runtime = machine.sim.runtime(NODE, ShardIndex(shard));
            let pause = std::time::Duration::from_micros(100 * round as u64);
            tasks += 1;
            runtime.clone().spawn(Queue::Foreground, async move {
                runtime.sleep(pause).await;
                let mut out = Vec::new();
                let answer = service.call(operation, body.as_bytes(), &mut out).await;
                let answer = answer.map(|()| String::from_utf8(out).unwrap());
                answers.borrow_mut().push((operation, answer));
                done.set(done.get() + 1);
            });
        }
    }
    while done.get() < tasks {
        assert!(machine.sim.step());
    }
    let (mut both, mut alone, mut conflicts, mut plain_conflicts) = (0, 0, 0, 0);
    for (operation, answer) in answers.borrow().iter() {
        match (*operation, answer) {
            ("TransactWriteItems", Ok(_)) => both += 1,
            ("UpdateItem", Ok(_)) => alone += 1,
            ("TransactGetItems", Ok(answer)) => {
                // Both were added to together, and `a` by itself besides.
                let answer: Value = serde_json::from_str(answer).unwrap();
                let n = |place: usize| -> i64 {
                    let n = answer["Responses"][place]["Item"]["n"]["N"].as_str().unwrap();
                    n.parse().unwrap()
                };
                assert!(n(0) >= n(1), "{answer}");
            }
            ("UpdateItem", Err(error)) => {
                assert_eq!(
                    error.to_string(),
                    "TransactionConflictException: Transaction is ongoing for the item"
                );
                plain_conflicts += 1;
            }
            (_, Err(error)) => {
                assert_eq!(error.name(), "TransactionCanceledException", "{error}");
                assert!(error.message.contains("TransactionConflict"), "{error}");
                conflicts += 1;
            }
            (operation, answer) => panic!("{operation}: {answer:?}"),
        }
    }
    assert!(
        both > 0 && alone > 0 && conflicts > 0 && plain_conflicts > 0,
        "{both} {alone} {conflicts} {plain_conflicts}"
    );
    let met = |by| {
        let stats = machine.transaction_stats();
        stats
            .iter()
            .filter_map(|stats| stats.conflicts.get(&by))
            .sum::<u64>()
    };
    assert_eq!(met(Met::Write), plain_conflicts);
    assert!(met(Met::Transaction) > 0);
    assert_eq!(get(&machine, "b")["n"]["N"], both.to_string());
    assert_eq!(get(&machine, "a")["n"]["N"], (both + alone).to_string());
}

#[test]
fn a_table_that_goes_takes_its_part_with_it() {
    let machine = machine(706);
    machine.ok("TransactWriteItems", &write(&[&put("a", 0)]));
    let done = Rc::new(Cell::new(0));
    for round in 0..20 {
        let service = machine.service(round % machine.shards());
        let done = Rc::clone(&done);
        let runtime = machine.sim.runtime(NODE, ShardIndex(round % machine.shards()));
        runtime.clone().spawn(Queue::Foreground, async move {
            runtime
                .sleep(std::time::Duration::from_micros(50 * round as u64))
                .await;
            let body = format!(
                r#"{{"TransactItems":[{{"Put":{{"TableName":"things","Item":{{"pk":{{"S":"k{round}"}}}}}}}},
                    {{"Put":{{"TableName":"pairs","Item":{{"pk":{{"S":"k{round}"}},"sk":{{"N":"1"}}}}}}}}]}}"#
            );
            // It is done or refused; it does not hang.
            let _ = service
                .call("TransactWriteItems", body.as_bytes(), &mut Vec::new())
                .await;
            done.set(done.get() + 1);
        });
    }
    machine.ok("DeleteTable", r#"{"TableName":"pairs"}"#);
    while done.get() < 20 {
        assert!(machine.sim.step());
    }
    machine.create("pairs", &[("pk", "S"), ("sk", "N")]);
    for round in 0..20 {
        machine.ok("TransactWriteItems", &write(&[&put(&format!("k{round}"), 1)]));
    }
    machine.crash();
    machine.start(2);
    assert_eq!(machine.ok("Scan", r#"{"TableName":"things"}"#)["Count"], 21);
    assert_eq!(machine.ok("Scan", r#"{"TableName":"pairs"}"#)["Count"], 0);
}
