//! Pages of Query and Scan, put together again, are what a sorted map says: at any limit, in both directions.

use std::collections::BTreeMap;
use std::rc::Rc;

use cairn::api::{Page, Query, Scan, Service};
use cairn::catalog::{PrimaryKey, Table};
use cairn_item::{KeyCondition, KeyValue, Number};
use cairn_runtime::sim::SimRuntime;
use expect_test::expect;

use crate::Machine;

/// Sort keys of each partition key.
type Model = BTreeMap<String, Vec<i64>>;

fn number(number: i64) -> KeyValue {
    KeyValue::N(number.to_string().parse::<Number>().unwrap())
}

fn fill(machine: &Machine) -> Model {
    machine.create("pages", &[("id", "S"), ("n", "N")]);
    let mut model = Model::new();
    let mut random = machine.sim.random();
    for _ in 0..150 {
        let id = format!("p{}", random.below(7));
        let n = i64::try_from(random.below(200)).unwrap() - 100;
        machine.ok(
            "PutItem",
            &format!(r#"{{"TableName":"pages","Item":{{"id":{{"S":"{id}"}},"n":{{"N":"{n}"}}}}}}"#),
        );
        model.entry(id).or_default().push(n);
    }
    for keys in model.values_mut() {
        keys.sort_unstable();
        keys.dedup();
    }
    model
}

fn key_of(table: &Table, page: &Page) -> Option<PrimaryKey> {
    page.last
        .as_ref()
        .map(|last| table.key_of_item_view(last.view()).unwrap())
}

fn keys_of(table: &Table, page: &Page) -> Vec<PrimaryKey> {
    page.items
        .iter()
        .map(|item| table.key_of_item_view(item.view()).unwrap())
        .collect()
}

/// All pages of a query with this limit.
async fn query_all(
    service: &Service<SimRuntime>,
    table: &Rc<Table>,
    id: &str,
    condition: &KeyCondition,
    forward: bool,
    limit: u64,
) -> Vec<PrimaryKey> {
    let mut all = Vec::new();
    let mut start = None;
    loop {
        let query = Query {
            partition: KeyValue::S(id.to_owned()),
            condition: condition.clone(),
            forward,
            start,
            limit: Some(limit),
            filter: None,
            count_only: false,
        };
        let page = service.query(table, query).await.unwrap();
        assert!(page.scanned_count <= limit);
        assert_eq!(
            (page.count, page.scanned_count),
            (page.items.len() as u64, page.items.len() as u64)
        );
        all.extend(keys_of(table, &page));
        start = key_of(table, &page);
        if start.is_none() {
            return all;
        }
    }
}

#[test]
fn query_pages_are_the_sorted_map() {
    let machine = Machine::new(30, 3);
    let model = fill(&machine);
    let conditions = |n: i64, m: i64| {
        let (low, high) = (n.min(m), n.max(m));
        type Holds = Box<dyn Fn(i64) -> bool>;
        let rows: Vec<(KeyCondition, Holds)> = vec![
            (KeyCondition::All, Box::new(|_| true)),
            (KeyCondition::Equal(number(n)), Box::new(move |k| k == n)),
            (KeyCondition::Less(number(n)), Box::new(move |k| k < n)),
            (KeyCondition::LessOrEqual(number(n)), Box::new(move |k| k <= n)),
            (KeyCondition::Greater(number(n)), Box::new(move |k| k > n)),
            (KeyCondition::GreaterOrEqual(number(n)), Box::new(move |k| k >= n)),
            (
                KeyCondition::Between(number(low), number(high)),
                Box::new(move |k| (low..=high).contains(&k)),
            ),
        ];
        rows
    };
    let mut random = machine.sim.random();
    for round in 0..40 {
        let mut pick = || i64::try_from(random.below(220)).unwrap() - 110;
        let (n, m) = (pick(), pick());
        let id = format!("p{}", round % 8);
        let limit = [1, 2, 3, 7, 1000][round % 5];
        let forward = round % 2 == 0;
        for (condition, holds) in conditions(n, m) {
            let mut expected: Vec<PrimaryKey> = model
                .get(&id)
                .into_iter()
                .flatten()
                .filter(|key| holds(**key))
                .map(|key| PrimaryKey {
                    partition: KeyValue::S(id.clone()),
                    sort: Some(number(*key)),
                })
                .collect();
            if !forward {
                expected.reverse();
            }
            let (id, described) = (
                id.clone(),
                format!("{id} {condition:?} forward {forward} limit {limit}"),
            );
            let pages = machine.run(async move |service| {
                let table = service.table("pages").unwrap();
                query_all(&service, &table, &id, &condition, forward, limit).await
            });
            assert_eq!(pages, expected, "{described}");
        }
    }
}

#[test]
fn scan_pages_and_segments_are_the_whole_table() {
    let machine = Machine::new(31, 4);
    let model = fill(&machine);
    let mut expected: Vec<PrimaryKey> = model
        .iter()
        .flat_map(|(id, keys)| {
            keys.iter().map(|key| PrimaryKey {
                partition: KeyValue::S(id.clone()),
                sort: Some(number(*key)),
            })
        })
        .collect();
    expected.sort();
    for limit in [1, 2, 5, 1000] {
        for total in [1, 2, 3, 64] {
            let mut all = machine.run(async move |service| {
                let table = service.table("pages").unwrap();
                let mut all = Vec::new();
                for segment in 0..total {
                    let mut start = None;
                    loop {
                        let scan = Scan {
                            segment: Some((segment, total)),
                            start,
                            limit: Some(limit),
                            filter: None,
                            count_only: false,
                        };
                        let page = service.scan(&table, scan).await.unwrap();
                        assert!(page.scanned_count <= limit);
                        all.extend(keys_of(&table, &page));
                        start = key_of(&table, &page);
                        if start.is_none() {
                            break;
                        }
                    }
                }
                all
            });
            all.sort();
            assert_eq!(all, expected, "limit {limit}, {total} segments");
        }
    }
}

#[test]
fn a_page_ends_at_1_mb() {
    let machine = Machine::new(32, 2);
    machine.create("big", &[("id", "S"), ("n", "N")]);
    let text = "x".repeat(300_000);
    for n in 0..8 {
        machine.ok(
            "PutItem",
            &format!(
                r#"{{"TableName":"big","Item":{{"id":{{"S":"a"}},"n":{{"N":"{n}"}},"t":{{"S":"{text}"}}}}}}"#
            ),
        );
    }
    let first = machine.ok(
        "Scan",
        r#"{"TableName":"big","Select":"COUNT","ReturnConsumedCapacity":"TOTAL"}"#,
    );
    expect![[r#"{"ConsumedCapacity":{"CapacityUnits":146.5,"TableName":"big"},"Count":4,"LastEvaluatedKey":{"id":{"S":"a"},"n":{"N":"3"}},"ScannedCount":4}"#]].assert_eq(&first.to_string());
    let second = machine.ok(
        "Scan",
        r#"{"TableName":"big","Select":"COUNT","ExclusiveStartKey":{"id":{"S":"a"},"n":{"N":"3"}},"ConsistentRead":true,"ReturnConsumedCapacity":"TOTAL"}"#,
    );
    expect![[r#"{"ConsumedCapacity":{"CapacityUnits":293.0,"TableName":"big"},"Count":4,"LastEvaluatedKey":{"id":{"S":"a"},"n":{"N":"7"}},"ScannedCount":4}"#]].assert_eq(&second.to_string());
    let third = machine.ok(
        "Scan",
        r#"{"TableName":"big","Select":"COUNT","ExclusiveStartKey":{"id":{"S":"a"},"n":{"N":"7"}}}"#,
    );
    expect![[r#"{"Count":0,"ScannedCount":0}"#]].assert_eq(&third.to_string());
}

#[test]
fn scan_speaks_json() {
    let machine = Machine::new(33, 3);
    machine.create("things", &[("id", "S")]);
    let check = |rest: &str, expected| {
        machine.check("Scan", &format!(r#"{{"TableName":"things"{rest}}}"#), expected);
    };
    check("", expect![[r#"{"Count":0,"Items":[],"ScannedCount":0}"#]]);
    for id in ["a", "b", "c"] {
        machine.ok(
            "PutItem",
            &format!(r#"{{"TableName":"things","Item":{{"id":{{"S":"{id}"}}}}}}"#),
        );
    }
    check(
        "",
        expect![[
            r#"{"Count":3,"Items":[{"id":{"S":"a"}},{"id":{"S":"c"}},{"id":{"S":"b"}}],"ScannedCount":3}"#
        ]],
    );
    check(
        r#","Limit":2"#,
        expect![[
            r#"{"Count":2,"Items":[{"id":{"S":"a"}},{"id":{"S":"c"}}],"LastEvaluatedKey":{"id":{"S":"c"}},"ScannedCount":2}"#
        ]],
    );
    check(
        r#","Limit":3"#,
        expect![[
            r#"{"Count":3,"Items":[{"id":{"S":"a"}},{"id":{"S":"c"}},{"id":{"S":"b"}}],"LastEvaluatedKey":{"id":{"S":"b"}},"ScannedCount":3}"#
        ]],
    );
    check(
        r#","Select":"COUNT""#,
        expect![[r#"{"Count":3,"ScannedCount":3}"#]],
    );
    check(
        r#","Limit":0"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'Limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ],
    );
    check(
        r#","Limit":2.9"#,
        expect![[
            r#"{"Count":2,"Items":[{"id":{"S":"a"}},{"id":{"S":"c"}}],"LastEvaluatedKey":{"id":{"S":"c"}},"ScannedCount":2}"#
        ]],
    );
    check(
        r#","Select":"SOME","Segment":-1,"TotalSegments":1000001"#,
        expect![
            "400 ValidationException: 2 validation errors detected: Value at 'Segment' failed to satisfy constraint: Member must have value greater than or equal to 0; Value at 'TotalSegments' failed to satisfy constraint: Member must have value less than or equal to 1000000"
        ],
    );
    check(
        r#","Select":"SPECIFIC_ATTRIBUTES""#,
        expect![
            "400 ValidationException: 1 validation error detected: Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"
        ],
    );
    check(
        r#","Select":"ALL_PROJECTED_ATTRIBUTES""#,
        expect![
            "400 ValidationException: 1 validation error detected: ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName"
        ],
    );
    check(
        r#","Segment":0"#,
        expect![
            "400 ValidationException: The TotalSegments parameter is required but was not present in the request when Segment parameter is present"
        ],
    );
    check(
        r#","TotalSegments":2"#,
        expect![
            "400 ValidationException: The Segment parameter is required but was not present in the request when parameter TotalSegments is present"
        ],
    );
    check(
        r#","Segment":2,"TotalSegments":2"#,
        expect![
            "400 ValidationException: The Segment parameter is zero-based and must be less than parameter TotalSegments"
        ],
    );
    check(
        r#","ExclusiveStartKey":{}"#,
        expect!["400 ValidationException: The provided starting key is invalid"],
    );
    check(
        r#","ExclusiveStartKey":{"id":{"N":"1"}}"#,
        expect![
            "400 ValidationException: The provided starting key is invalid: The provided key element does not match the schema"
        ],
    );
    check(
        r#","ExclusiveStartKey":{"id":{"SS":[]}}"#,
        expect![
            "400 ValidationException: The provided starting key is invalid: One or more parameter values were invalid: An string set  may not be empty"
        ],
    );
    check(
        r#","ExclusiveStartKey":{"id":{"N":"x"}}"#,
        expect!["400 ValidationException: The parameter cannot be converted to a numeric value: x"],
    );
    check(
        r#","ScanFilter":{}"#,
        expect![[
            r#"{"Count":3,"Items":[{"id":{"S":"a"}},{"id":{"S":"c"}},{"id":{"S":"b"}}],"ScannedCount":3}"#
        ]],
    );
    check(
        r#","IndexName":"by-date""#,
        expect!["400 ValidationException: The table does not have the specified index: by-date"],
    );
    machine.check(
        "Scan",
        r#"{"TableName":"nothing"}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found"],
    );

    // The key of an item is outside of all segments but one.
    let outside = (0..8)
        .map(|segment| {
            machine.call(
                "Scan",
                &format!(
                    r#"{{"TableName":"things","ExclusiveStartKey":{{"id":{{"S":"a"}}}},"TotalSegments":8,"Segment":{segment}}}"#
                ),
            )
        })
        .filter(|answer| answer.contains("Please use ExclusiveStartKey with correct Segment."));
    assert_eq!(outside.count(), 7);
}

#[test]
fn query_speaks_json() {
    let machine = Machine::new(34, 3);
    machine.create("things", &[("id", "S"), ("n", "S")]);
    machine.create("alone", &[("id", "B")]);
    for n in ["ab", "abc", "b", "c"] {
        let item = format!(r#"{{"id":{{"S":"x"}},"n":{{"S":"{n}"}}}}"#);
        machine.ok("PutItem", &format!(r#"{{"TableName":"things","Item":{item}}}"#));
    }
    machine.ok(
        "PutItem",
        r#"{"TableName":"alone","Item":{"id":{"B":"AAA="},"v":{"N":"1"}}}"#,
    );
    let check = |rest: &str, expected| {
        machine.check("Query", &format!(r#"{{"TableName":"things"{rest}}}"#), expected);
    };
    let of = |conditions: &[(&str, &str, &str)], rest: &str, expected| {
        let condition = |(attribute, operator, values): &(&str, &str, &str)| {
            format!(r#""{attribute}":{{"ComparisonOperator":"{operator}","AttributeValueList":[{values}]}}"#)
        };
        let conditions = conditions.iter().map(condition).collect::<Vec<_>>().join(",");
        check(&format!(r#","KeyConditions":{{{conditions}}}{rest}"#), expected);
    };
    const X: (&str, &str, &str) = ("id", "EQ", r#"{"S":"x"}"#);
    of(
        &[X],
        "",
        expect![[
            r#"{"Count":4,"Items":[{"id":{"S":"x"},"n":{"S":"ab"}},{"id":{"S":"x"},"n":{"S":"abc"}},{"id":{"S":"x"},"n":{"S":"b"}},{"id":{"S":"x"},"n":{"S":"c"}}],"ScannedCount":4}"#
        ]],
    );
    of(
        &[X],
        r#","ScanIndexForward":false,"Limit":3,"ReturnConsumedCapacity":"TOTAL""#,
        expect![[
            r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":0.5},"Count":3,"Items":[{"id":{"S":"x"},"n":{"S":"c"}},{"id":{"S":"x"},"n":{"S":"b"}},{"id":{"S":"x"},"n":{"S":"abc"}}],"LastEvaluatedKey":{"id":{"S":"x"},"n":{"S":"abc"}},"ScannedCount":3}"#
        ]],
    );
    of(
        &[X],
        r#","Select":"COUNT","ExclusiveStartKey":{"id":{"S":"x"},"n":{"S":"abc"}}"#,
        expect![[r#"{"Count":2,"ScannedCount":2}"#]],
    );
    of(
        &[X, ("n", "BEGINS_WITH", r#"{"S":"ab"}"#)],
        "",
        expect![[
            r#"{"Count":2,"Items":[{"id":{"S":"x"},"n":{"S":"ab"}},{"id":{"S":"x"},"n":{"S":"abc"}}],"ScannedCount":2}"#
        ]],
    );
    of(
        &[X, ("n", "BETWEEN", r#"{"S":"abc"},{"S":"b"}"#)],
        r#","ConsistentRead":true"#,
        expect![[
            r#"{"Count":2,"Items":[{"id":{"S":"x"},"n":{"S":"abc"}},{"id":{"S":"x"},"n":{"S":"b"}}],"ScannedCount":2}"#
        ]],
    );
    of(
        &[X, ("n", "GT", r#"{"S":"b"}"#)],
        "",
        expect![[r#"{"Count":1,"Items":[{"id":{"S":"x"},"n":{"S":"c"}}],"ScannedCount":1}"#]],
    );
    of(
        &[X, ("n", "LT", r#"{"S":"a"}"#)],
        "",
        expect![[r#"{"Count":0,"Items":[],"ScannedCount":0}"#]],
    );
    of(
        &[("id", "EQ", r#"{"S":"nobody"}"#)],
        r#","ReturnConsumedCapacity":"TOTAL""#,
        expect![[
            r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":0.5},"Count":0,"Items":[],"ScannedCount":0}"#
        ]],
    );
    machine.check(
        "Query",
        r#"{"TableName":"alone","KeyConditions":{"id":{"ComparisonOperator":"EQ","AttributeValueList":[{"B":"AAA="}]}}}"#,
        expect![[r#"{"Count":1,"Items":[{"id":{"B":"AAA="},"v":{"N":"1"}}],"ScannedCount":1}"#]],
    );

    check(
        "",
        expect![
            "400 ValidationException: Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."
        ],
    );
    check(
        r#","Limit":0"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'Limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ],
    );
    of(
        &[],
        "",
        expect!["400 ValidationException: Conditions can be of length 1 or 2 only"],
    );
    of(
        &[X, X, ("m", "EQ", r#"{"S":"x"}"#)],
        "",
        expect!["400 ValidationException: Query condition missed key schema element: n"],
    );
    of(
        &[("id", "IS", "")],
        "",
        expect![
            "400 ValidationException: One or more parameter values were invalid: Invalid comparison operator"
        ],
    );
    of(
        &[("id", "EQ", "")],
        "",
        expect![
            "400 ValidationException: One or more parameter values were invalid: Invalid number of argument(s) for the EQ ComparisonOperator"
        ],
    );
    of(
        &[("id", "EQ", r#"{"N":"1"}"#)],
        "",
        expect![
            "400 ValidationException: One or more parameter values were invalid: Condition parameter type does not match schema type"
        ],
    );
    of(
        &[("id", "EQ", r#"{"S":""}"#)],
        "",
        expect![
            "400 ValidationException: One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: id"
        ],
    );
    of(
        &[("id", "GT", r#"{"S":"x"}"#)],
        "",
        expect!["400 ValidationException: Query key condition not supported"],
    );
    of(
        &[("n", "EQ", r#"{"S":"x"}"#)],
        "",
        expect!["400 ValidationException: Query condition missed key schema element: id"],
    );
    of(
        &[X, ("m", "EQ", r#"{"S":"x"}"#)],
        "",
        expect!["400 ValidationException: Query condition missed key schema element: n"],
    );
    of(
        &[X, ("n", "CONTAINS", r#"{"S":"x"}"#)],
        "",
        expect!["400 ValidationException: Attempted conditional constraint is not an indexable operation"],
    );
    of(
        &[X, ("n", "BEGINS_WITH", r#"{"N":"1"}"#)],
        "",
        expect![
            "400 ValidationException: One or more parameter values were invalid: ComparisonOperator BEGINS_WITH is not valid for N AttributeValue type"
        ],
    );
    of(
        &[X, ("n", "BETWEEN", r#"{"S":"b"},{"S":"a"}"#)],
        "",
        expect![
            "400 ValidationException: The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
        ],
    );
    of(
        &[X, ("n", "BETWEEN", r#"{"S":"b"},{"N":"1"}"#)],
        "",
        expect![
            "400 ValidationException: One or more parameter values were invalid: AttributeValues inside AttributeValueList must be of same type"
        ],
    );
    of(
        &[X],
        r#","ExclusiveStartKey":{"id":{"S":"x"}}"#,
        expect!["400 ValidationException: The provided starting key is invalid"],
    );
    of(
        &[X],
        r#","ExclusiveStartKey":{"id":{"S":"x"},"n":{"N":"1"}}"#,
        expect![
            "400 ValidationException: The provided starting key is invalid: The provided key element does not match the schema"
        ],
    );
    of(
        &[X],
        r#","ExclusiveStartKey":{"id":{"S":"y"},"n":{"S":"b"}}"#,
        expect![
            "400 ValidationException: The provided starting key is outside query boundaries based on provided conditions"
        ],
    );
    of(
        &[X, ("n", "GT", r#"{"S":"b"}"#)],
        r#","ExclusiveStartKey":{"id":{"S":"x"},"n":{"S":"a"}}"#,
        expect!["400 ValidationException: The provided starting key does not match the range key predicate"],
    );
    of(
        &[X],
        r#","FilterExpression":"n = :n""#,
        expect![
            "400 ValidationException: Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {KeyConditions} Expression parameters: {FilterExpression}"
        ],
    );
    machine.check("Query", r#"{"TableName":"nothing","KeyConditions":{"id":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"x"}]}}}"#, expect!["400 ResourceNotFoundException: Requested resource not found"]);
}

#[test]
fn query_speaks_expressions() {
    let machine = Machine::new(35, 3);
    machine.create("things", &[("id", "S"), ("n", "N")]);
    for n in [-5, 0, 3, 20] {
        let item = format!(r#"{{"id":{{"S":"x"}},"n":{{"N":"{n}"}}}}"#);
        machine.ok("PutItem", &format!(r#"{{"TableName":"things","Item":{item}}}"#));
    }
    let check = |expression: &str, values: &str, rest: &str, expected| {
        machine.check(
            "Query",
            &format!(
                r#"{{"TableName":"things","KeyConditionExpression":"{expression}","ExpressionAttributeValues":{{{values}}}{rest}}}"#
            ),
            expected,
        );
    };
    const X: &str = r#"":x":{"S":"x"}"#;
    let with = |more: &str| format!("{X},{more}");
    check(
        "id = :x",
        X,
        r#","Select":"COUNT""#,
        expect![[r#"{"Count":4,"ScannedCount":4}"#]],
    );
    check(
        "#i = :x AND n > :n",
        &with(r#"":n":{"N":"0"}"#),
        r##","ExpressionAttributeNames":{"#i":"id"}"##,
        expect![[
            r#"{"Count":2,"Items":[{"id":{"S":"x"},"n":{"N":"3"}},{"id":{"S":"x"},"n":{"N":"20"}}],"ScannedCount":2}"#
        ]],
    );
    check(
        "n BETWEEN :a AND :b AND id = :x",
        &with(r#"":a":{"N":"-1"},":b":{"N":"3.0"}"#),
        r#","ScanIndexForward":false"#,
        expect![[
            r#"{"Count":2,"Items":[{"id":{"S":"x"},"n":{"N":"3"}},{"id":{"S":"x"},"n":{"N":"0"}}],"ScannedCount":2}"#
        ]],
    );
    check(
        "id = :x",
        X,
        r#","Limit":1,"ExclusiveStartKey":{"id":{"S":"x"},"n":{"N":"0"}}"#,
        expect![[
            r#"{"Count":1,"Items":[{"id":{"S":"x"},"n":{"N":"3"}}],"LastEvaluatedKey":{"id":{"S":"x"},"n":{"N":"3"}},"ScannedCount":1}"#
        ]],
    );

    check(
        "",
        X,
        "",
        expect!["400 ValidationException: Invalid KeyConditionExpression: The expression can not be empty;"],
    );
    check(
        "id = ",
        X,
        "",
        expect![[
            r#"400 ValidationException: Invalid KeyConditionExpression: Syntax error; token: "<EOF>", near: "= ""#
        ]],
    );
    check(
        "id = :y",
        X,
        "",
        expect![
            "400 ValidationException: Invalid KeyConditionExpression: An expression attribute value used in expression is not defined; attribute value: :y"
        ],
    );
    check(
        "id = :x",
        &with(r#"":y":{"S":"y"}"#),
        "",
        expect![
            "400 ValidationException: Value provided in ExpressionAttributeValues unused in expressions: keys: {:y}"
        ],
    );
    check(
        "id = :x",
        X,
        r##","ExpressionAttributeNames":{"#n":"n"}"##,
        expect![
            "400 ValidationException: Value provided in ExpressionAttributeNames unused in expressions: keys: {#n}"
        ],
    );
    check(
        "id = :x",
        r#"":x":{"N":"one"}"#,
        "",
        expect!["400 ValidationException: The parameter cannot be converted to a numeric value: one"],
    );
    check(
        "id = :x",
        r#"":x":{"N":"1"}"#,
        "",
        expect![
            "400 ValidationException: One or more parameter values were invalid: Condition parameter type does not match schema type"
        ],
    );
    check(
        "id = :x AND m = :x",
        X,
        "",
        expect!["400 ValidationException: Query condition missed key schema element: n"],
    );
    check(
        "n = :n",
        r#"":n":{"N":"1"}"#,
        "",
        expect!["400 ValidationException: Query condition missed key schema element: id"],
    );
    check(
        "id > :x",
        X,
        "",
        expect!["400 ValidationException: Query key condition not supported"],
    );
    check(
        "id = :x",
        "",
        "",
        expect!["400 ValidationException: ExpressionAttributeValues must not be empty"],
    );
    check(
        "id = :x",
        X,
        r#","KeyConditions":{}"#,
        expect![
            "400 ValidationException: Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {KeyConditions} Expression parameters: {KeyConditionExpression}"
        ],
    );
    machine.check(
        "Query",
        r#"{"TableName":"things","ExpressionAttributeNames":{}}"#,
        expect![
            "400 ValidationException: ExpressionAttributeNames can only be specified when using expressions"
        ],
    );
    machine.check("Query", r#"{"TableName":"things","ExpressionAttributeValues":{}}"#, expect!["400 ValidationException: ExpressionAttributeValues can only be specified when using expressions: FilterExpression and KeyConditionExpression are null"]);
    machine.check("Query", r#"{"TableName":"nothing","KeyConditionExpression":"id = :x","ExpressionAttributeValues":{":x":{"S":"x"}}}"#, expect!["400 ResourceNotFoundException: Requested resource not found"]);
}

#[test]
fn a_filter_of_many_items_lets_others_have_their_turn() {
    let machine = Machine::new(71, 1);
    machine.create("many", &[("pk", "S"), ("sk", "S")]);
    for batch in 0..40 {
        let puts: Vec<String> = (0..25)
            .map(|index| {
                let sort = batch * 25 + index;
                format!(r#"{{"PutRequest":{{"Item":{{"pk":{{"S":"p"}},"sk":{{"S":"{sort:04}"}}}}}}}}"#)
            })
            .collect();
        machine.ok(
            "BatchWriteItem",
            &format!(r#"{{"RequestItems":{{"many":[{}]}}}}"#, puts.join(",")),
        );
    }
    let turns = machine.run(async |service| {
        let body = br#"{"TableName":"many","FilterExpression":"attribute_exists(x)"}"#;
        let mut answer = Vec::new();
        let mut scan = std::pin::pin!(service.call("Scan", body, &mut answer));
        let mut turns = 0;
        // Whoever polls it gets the thread back between the items.
        std::future::poll_fn(|context| {
            turns += 1;
            std::future::Future::poll(scan.as_mut(), context)
        })
        .await
        .unwrap();
        turns
    });
    assert!(turns > 3, "1000 items in {turns} turns");
}
