use expect_test::expect;

use crate::Machine;

#[test]
fn batches_write_and_read_several_tables() {
    let machine = Machine::new(20, 3);
    machine.create("one", &[("id", "S")]);
    machine.create("two", &[("id", "N"), ("at", "B")]);
    let write = |body: &str, expected| machine.check("BatchWriteItem", body, expected);
    let read = |body: &str, expected| machine.check("BatchGetItem", body, expected);
    write(
        r#"{"RequestItems":{"one":[{"PutRequest":{"Item":{"id":{"S":"a"},"v":{"N":"1"}}}},{"PutRequest":{"Item":{"id":{"S":"b"}}}}],"two":[{"PutRequest":{"Item":{"id":{"N":"7"},"at":{"B":"AA=="}}}}]},"ReturnConsumedCapacity":"TOTAL"}"#,
        expect![[
            r#"{"ConsumedCapacity":[{"TableName":"one","CapacityUnits":2.0},{"TableName":"two","CapacityUnits":1.0}],"UnprocessedItems":{}}"#
        ]],
    );
    read(
        r#"{"RequestItems":{"one":{"Keys":[{"id":{"S":"a"}},{"id":{"S":"nobody"}},{"id":{"S":"b"}}],"ConsistentRead":true},"two":{"Keys":[{"id":{"N":"7.0"},"at":{"B":"AA=="}}]}},"ReturnConsumedCapacity":"INDEXES"}"#,
        expect![[
            r#"{"ConsumedCapacity":[{"TableName":"one","CapacityUnits":3.0,"Table":{"CapacityUnits":3.0}},{"TableName":"two","CapacityUnits":0.5,"Table":{"CapacityUnits":0.5}}],"Responses":{"one":[{"id":{"S":"a"},"v":{"N":"1"}},{"id":{"S":"b"}}],"two":[{"at":{"B":"AA=="},"id":{"N":"7"}}]},"UnprocessedKeys":{}}"#
        ]],
    );
    write(
        r#"{"RequestItems":{"one":[{"DeleteRequest":{"Key":{"id":{"S":"a"}}}},{"PutRequest":{"Item":{"id":{"S":"c"}}}}]}}"#,
        expect![[r#"{"UnprocessedItems":{}}"#]],
    );
    read(
        r#"{"RequestItems":{"one":{"Keys":[{"id":{"S":"a"}},{"id":{"S":"b"}},{"id":{"S":"c"}}]}}}"#,
        expect![[r#"{"Responses":{"one":[{"id":{"S":"b"}},{"id":{"S":"c"}}]},"UnprocessedKeys":{}}"#]],
    );
}

#[test]
fn bad_batches_are_refused_and_store_nothing() {
    let machine = Machine::new(21, 2);
    machine.create("one", &[("id", "S")]);
    let write = |items: &str, expected| {
        machine.check(
            "BatchWriteItem",
            &format!(r#"{{"RequestItems":{items}}}"#),
            expected,
        );
    };
    let read = |items: &str, expected| {
        machine.check(
            "BatchGetItem",
            &format!(r#"{{"RequestItems":{items}}}"#),
            expected,
        );
    };
    let put = |id: &str| format!(r#"{{"PutRequest":{{"Item":{{"id":{{"S":"{id}"}}}}}}}}"#);
    let many = |count: usize, one: &dyn Fn(&str) -> String| {
        (0..count)
            .map(|index| one(&format!("i{index}")))
            .collect::<Vec<_>>()
            .join(",")
    };

    machine.check("BatchWriteItem", "{}", expect!["400 ValidationException: 1 validation error detected: Value null at 'requestItems' failed to satisfy constraint: Member must not be null"]);
    write(
        "{}",
        expect!["400 ValidationException: The requestItems parameter is required for BatchWriteItem"],
    );
    write(
        "[]",
        expect!["400 SerializationException: Start of list found where not expected"],
    );
    write(
        r#"{"one":[]}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value '{one=[0 requests]}' at 'requestItems' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 25, Member must have length greater than or equal to 1]"
        ],
    );
    write(
        &format!(r#"{{"one":[{}]}}"#, many(26, &put)),
        expect![
            "400 ValidationException: 1 validation error detected: Value '{one=[26 requests]}' at 'requestItems' failed to satisfy constraint: Map value must satisfy constraint: [Member must have length less than or equal to 25, Member must have length greater than or equal to 1]"
        ],
    );
    write(
        &format!(r#"{{"one":[{}],"two":[{}]}}"#, many(13, &put), many(13, &put)),
        expect!["400 ValidationException: Too many items requested for the BatchWriteItem call"],
    );
    write(
        r#"{"one":[{}]}"#,
        expect![
            "400 ValidationException: Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
        ],
    );
    write(
        r#"{"one":[{"PutRequest":{}}]}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'requestItems.one.member.1.member.putRequest.item' failed to satisfy constraint: Member must not be null"
        ],
    );
    write(
        &format!(
            r#"{{"one":[{},{}]}}"#,
            put("a"),
            r#"{"DeleteRequest":{"Key":{"id":{"S":"a"}}}}"#
        ),
        expect!["400 ValidationException: Provided list of item keys contains duplicates"],
    );
    write(
        &format!(
            r#"{{"one":[{},{}]}}"#,
            put("a"),
            r#"{"PutRequest":{"Item":{"di":{"S":"a"}}}}"#
        ),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Missing the key id in the item"
        ],
    );
    write(
        &format!(r#"{{"one":[{}],"nothing":[{}]}}"#, put("a"), put("a")),
        expect!["400 ResourceNotFoundException: Requested resource not found"],
    );
    write(
        r#"{"one":[{"PutRequest":{"Item":{"id":{"L":[]}}}}]}"#,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    write(
        r#"{"one":[{"PutRequest":{"Item":{"id":{"S":"a"},"n":{"N":"x"}}}}]}"#,
        expect!["400 ValidationException: The parameter cannot be converted to a numeric value: x"],
    );

    let key = |id: &str| format!(r#"{{"id":{{"S":"{id}"}}}}"#);
    machine.check("BatchGetItem", "{}", expect!["400 ValidationException: 1 validation error detected: Value null at 'requestItems' failed to satisfy constraint: Member must not be null"]);
    read(
        "{}",
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'RequestItems' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    read(
        r#"{"bad!name":{"Keys":[{"pk":{"S":"a"}}]}}"#,
        expect![[
            r#"400 ValidationException: 1 validation error detected: Value '{"bad!name":{"Keys":[{"pk":{"S":"a"}}]}}' at 'requestItems' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 255, Member must have length greater than or equal to 3, Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+]"#
        ]],
    );
    read(
        r#"{"one":{"Keys":[{"id":{"S":"a"}}],"ProjectionExpression":"id"},"two":{"Keys":[{"id":{"S":"a"}}],"AttributesToGet":["id"]}}"#,
        expect![
            "400 ValidationException: Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {AttributesToGet} Expression parameters: {ProjectionExpression}"
        ],
    );
    read(
        r#"{"one":{}}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'requestItems.one.member.keys' failed to satisfy constraint: Member must not be null"
        ],
    );
    read(
        r#"{"one":{"Keys":[]}}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'RequestItems.one.member.Keys' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    read(
        &format!(r#"{{"one":{{"Keys":[{}]}}}}"#, many(101, &key)),
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'RequestItems.one.member.Keys' failed to satisfy constraint: Member must have length less than or equal to 100"
        ],
    );
    read(
        &format!(
            r#"{{"one":{{"Keys":[{0}]}},"two":{{"Keys":[{0}]}}}}"#,
            many(51, &key)
        ),
        expect!["400 ValidationException: Too many items requested for the BatchGetItem call"],
    );
    read(
        &format!(r#"{{"one":{{"Keys":[{},{}]}}}}"#, key("a"), key("a")),
        expect!["400 ValidationException: Provided list of item keys contains duplicates"],
    );
    read(
        r#"{"one":{"Keys":[{"di":{"S":"a"}}]}}"#,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    read(
        r#"{"nothing":{"Keys":[{"id":{"S":"a"}}]}}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found"],
    );
    read(
        r#"{"o":{"Keys":[{"id":{"S":"a"}}],"ProjectionExpression":"id"}}"#,
        expect![[
            r#"400 ValidationException: 1 validation error detected: Value '{"o":{"Keys":[{"id":{"S":"a"}}],"ProjectionExpression":"id"}}' at 'requestItems' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 255, Member must have length greater than or equal to 3, Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+]"#
        ]],
    );

    assert_eq!(machine.ok("Scan", r#"{"TableName":"one"}"#)["Count"], 0);
}

#[test]
fn an_answer_of_more_than_16_mb_leaves_keys_unprocessed() {
    let machine = Machine::new(22, 2);
    machine.create("big", &[("id", "S")]);
    let text = "x".repeat(399_000);
    for index in 0..45 {
        machine.ok(
            "PutItem",
            &format!(r#"{{"TableName":"big","Item":{{"id":{{"S":"i{index}"}},"t":{{"S":"{text}"}}}}}}"#),
        );
    }
    let keys = |range: std::ops::Range<usize>| {
        range
            .map(|index| format!(r#"{{"id":{{"S":"i{index}"}}}}"#))
            .collect::<Vec<_>>()
            .join(",")
    };
    let body = format!(
        r#"{{"RequestItems":{{"big":{{"Keys":[{}],"ConsistentRead":true}}}}}}"#,
        keys(0..45)
    );
    let answer = machine.ok("BatchGetItem", &body);
    let items = answer["Responses"]["big"].as_array().unwrap();
    let unprocessed = &answer["UnprocessedKeys"]["big"];
    assert_eq!(items.len(), 42);
    assert_eq!(unprocessed["ConsistentRead"], true);
    assert_eq!(unprocessed["Keys"].to_string(), format!("[{}]", keys(42..45)));
}

/// The members of an answer are names of tables: a second one of the same name would hide the first.
#[test]
fn a_table_is_named_once() {
    let machine = Machine::new(28, 2);
    machine.create("one", &[("id", "S")]);
    let arn = "arn:aws:dynamodb:us-east-1:000000000000:table/one";
    let refused = || {
        expect![
            "400 ValidationException: The table one is named more than once in RequestItems, by its name and by its ARN"
        ]
    };
    machine.check(
        "BatchWriteItem",
        &format!(
            r#"{{"RequestItems":{{"one":[{{"PutRequest":{{"Item":{{"id":{{"S":"a"}}}}}}}}],"{arn}":[{{"PutRequest":{{"Item":{{"id":{{"S":"b"}}}}}}}}]}}}}"#
        ),
        refused(),
    );
    machine.check(
        "BatchGetItem",
        &format!(
            r#"{{"RequestItems":{{"one":{{"Keys":[{{"id":{{"S":"a"}}}}]}},"{arn}":{{"Keys":[{{"id":{{"S":"b"}}}}]}}}}}}"#
        ),
        refused(),
    );
    machine.check(
        "Scan",
        r#"{"TableName":"one"}"#,
        expect![[r#"{"Count":0,"Items":[],"ScannedCount":0}"#]],
    );
}
