use expect_test::expect;

use crate::Machine;

#[test]
fn an_item_comes_and_goes() {
    let machine = Machine::new(10, 3);
    machine.create("things", &[("id", "S")]);
    let check = |operation: &str, rest: &str, expected| {
        machine.check(
            operation,
            &format!(r#"{{"TableName":"things",{rest}}}"#),
            expected,
        );
    };
    check("GetItem", r#""Key":{"id":{"S":"a"}}"#, expect!["{}"]);
    check(
        "GetItem",
        r#""Key":{"id":{"S":"a"}},"ReturnConsumedCapacity":"TOTAL""#,
        expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":0.5}}"#]],
    );
    check(
        "PutItem",
        r#""Item":{"id":{"S":"a"},"n":{"N":"1.50"}},"ReturnValues":"ALL_OLD""#,
        expect!["{}"],
    );
    check(
        "GetItem",
        r#""Key":{"id":{"S":"a"}},"ConsistentRead":true,"ReturnConsumedCapacity":"INDEXES""#,
        expect![[
            r#"{"Item":{"id":{"S":"a"},"n":{"N":"1.5"}},"ConsumedCapacity":{"TableName":"things","CapacityUnits":1.0,"Table":{"CapacityUnits":1.0}}}"#
        ]],
    );
    check(
        "PutItem",
        r#""Item":{"id":{"S":"a"},"l":{"L":[{"BOOL":true},{"NULL":true}]},"m":{"M":{"x":{"B":"AAE="}}}},"ReturnValues":"ALL_OLD","ReturnConsumedCapacity":"TOTAL""#,
        expect![[
            r#"{"Attributes":{"id":{"S":"a"},"n":{"N":"1.5"}},"ConsumedCapacity":{"TableName":"things","CapacityUnits":1.0}}"#
        ]],
    );
    check(
        "GetItem",
        r#""Key":{"id":{"S":"a"}}"#,
        expect![[
            r#"{"Item":{"id":{"S":"a"},"l":{"L":[{"BOOL":true},{"NULL":true}]},"m":{"M":{"x":{"B":"AAE="}}}}}"#
        ]],
    );
    check(
        "DeleteItem",
        r#""Key":{"id":{"S":"a"}},"ReturnValues":"ALL_OLD","ReturnItemCollectionMetrics":"SIZE""#,
        expect![[
            r#"{"Attributes":{"id":{"S":"a"},"l":{"L":[{"BOOL":true},{"NULL":true}]},"m":{"M":{"x":{"B":"AAE="}}}}}"#
        ]],
    );
    check(
        "DeleteItem",
        r#""Key":{"id":{"S":"a"}},"ReturnValues":"ALL_OLD","ReturnConsumedCapacity":"TOTAL""#,
        expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":1.0}}"#]],
    );
    check("GetItem", r#""Key":{"id":{"S":"a"}}"#, expect!["{}"]);
}

#[test]
fn capacity_counts_started_blocks() {
    let machine = Machine::new(11, 2);
    machine.create("things", &[("id", "S")]);
    let big = "x".repeat(5000);
    machine.check(
        "PutItem",
        &format!(r#"{{"TableName":"things","Item":{{"id":{{"S":"a"}},"t":{{"S":"{big}"}}}},"ReturnConsumedCapacity":"TOTAL"}}"#),
        expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":5.0}}"#]],
    );
    let get = |consistent: bool| {
        let body = format!(
            r#"{{"TableName":"things","Key":{{"id":{{"S":"a"}}}},"ConsistentRead":{consistent},"ReturnConsumedCapacity":"TOTAL"}}"#
        );
        machine.ok("GetItem", &body)["ConsumedCapacity"].to_string()
    };
    expect![[r#"{"CapacityUnits":1.0,"TableName":"things"}"#]].assert_eq(&get(false));
    expect![[r#"{"CapacityUnits":2.0,"TableName":"things"}"#]].assert_eq(&get(true));
    // The larger of the old and the new item counts.
    machine.check(
        "PutItem",
        r#"{"TableName":"things","Item":{"id":{"S":"a"}},"ReturnConsumedCapacity":"TOTAL"}"#,
        expect![[r#"{"ConsumedCapacity":{"TableName":"things","CapacityUnits":5.0}}"#]],
    );
}

#[test]
fn bad_requests_are_refused_and_store_nothing() {
    let machine = Machine::new(12, 2);
    machine.create("things", &[("id", "S"), ("n", "N")]);
    let check = |operation: &str, body: &str, expected| machine.check(operation, body, expected);
    let put = |item: &str, expected| {
        machine.check(
            "PutItem",
            &format!(r#"{{"TableName":"things","Item":{item}}}"#),
            expected,
        );
    };
    let get = |key: &str, expected| {
        machine.check(
            "GetItem",
            &format!(r#"{{"TableName":"things","Key":{key}}}"#),
            expected,
        );
    };

    check(
        "GetItem",
        "",
        expect![
            "400 ValidationException: 2 validation errors detected: Value null at 'key' failed to satisfy constraint: Member must not be null; Value null at 'tableName' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "GetItem",
        "nonsense",
        expect!["400 SerializationException: Unexpected value type in payload"],
    );
    check(
        "GetItem",
        r#"{"TableName":"things","Key":{}} x"#,
        expect!["400 SerializationException: "],
    );
    check(
        "GetItem",
        r#"{"TableName":["things"]}"#,
        expect!["400 SerializationException: Start of list found where not expected"],
    );
    check(
        "GetItem",
        r#"{"TableName":"","Key":{}}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'TableName' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        "GetItem",
        r#"{"TableName":"th ings","Key":{},"ReturnConsumedCapacity":"SOME"}"#,
        expect![
            "400 ValidationException: 2 validation errors detected: Value 'th ings' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value 'SOME' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]"
        ],
    );
    check(
        "GetItem",
        r#"{"TableName":"things","Key":{"id":{"S":"a"}},"ConsistentRead":"yes"}"#,
        expect!["400 SerializationException: STRING_VALUE cannot be converted to Boolean"],
    );
    check(
        "GetItem",
        r#"{"TableName":"nothing","Key":{"id":{"S":"a"}}}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found"],
    );
    check(
        "GetItem",
        r#"{"TableName":"things","Key":{"id":{"S":"a"}},"AttributesToGet":["id"]}"#,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    check(
        "GetItem",
        r#"{"TableName":"things","Key":{"id":{"S":"a"}},"Colour":"red"}"#,
        expect!["400 ValidationException: The parameter Colour is not supported"],
    );

    get(
        "{}",
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    get(
        r#"{"id":{"S":"a"}}"#,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    get(
        r#"{"id":{"S":"a"},"m":{"N":"1"}}"#,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    get(
        r#"{"id":{"S":"a"},"n":{"N":"1"},"x":{"S":""}}"#,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    get(
        r#"{"id":{"N":"1"},"n":{"N":"1"}}"#,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    get(
        r#"{"id":{"S":""},"n":{"N":"1"}}"#,
        expect![
            "400 ValidationException: One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: id"
        ],
    );
    get(
        r#"{"id":{"S":"a"},"n":{"N":"one"}}"#,
        expect!["400 ValidationException: The parameter cannot be converted to a numeric value: one"],
    );
    get(
        r#"{"id":{},"n":{"N":"1"}}"#,
        expect![
            "400 ValidationException: Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
        ],
    );
    get(
        r#"{"id":{"S":"a","N":"1"},"n":{"N":"1"}}"#,
        expect![
            "400 ValidationException: Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
        ],
    );
    get(
        r#"{"id":"a","n":{"N":"1"}}"#,
        expect!["400 SerializationException: Unexpected value type in payload"],
    );
    get(
        &format!(r#"{{"id":{{"S":"{}"}},"n":{{"N":"1"}}}}"#, "k".repeat(2049)),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes"
        ],
    );

    check(
        "PutItem",
        r#"{"TableName":"things"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'item' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "PutItem",
        r#"{"Item":{},"ReturnValues":"ALL_NEW"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'tableName' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "PutItem",
        r#"{"TableName":"things","Item":{},"ReturnValues":"EVERYTHING","ReturnItemCollectionMetrics":"MAYBE"}"#,
        expect![
            "400 ValidationException: 2 validation errors detected: Failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATE_NEW, NONE]; Value 'MAYBE' at 'returnItemCollectionMetrics' failed to satisfy constraint: Member must satisfy enum value set: [SIZE, NONE]"
        ],
    );
    check(
        "PutItem",
        r#"{"TableName":"things","Item":{},"ReturnValues":"ALL_NEW"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: ReturnValues can only be ALL_OLD or NONE"
        ],
    );
    check(
        "PutItem",
        r#"{"TableName":"things","Item":{},"Expected":{}}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Missing the key id in the item"
        ],
    );
    check(
        "DeleteItem",
        r#"{"TableName":"things","Key":{},"ReturnValues":"ALL_NEW"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: ReturnValues can only be ALL_OLD or NONE"
        ],
    );
    put(
        "{}",
        expect![
            "400 ValidationException: One or more parameter values were invalid: Missing the key id in the item"
        ],
    );
    put(
        r#"{"id":{"S":"a"}}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Missing the key n in the item"
        ],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"S":"1"}}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Type mismatch for key n expected: N actual: S"
        ],
    );
    put(
        r#"{"id":{"S":""},"n":{"N":"1"}}"#,
        expect![
            "400 ValidationException: One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: id"
        ],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"N":"1"},"s":{"SS":[]}}"#,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: An string set  may not be empty"
        ],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"N":"1"},"s":{"SS":["x","y","x"]}}"#,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: Input collection [x, y, x] contains duplicates."
        ],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"N":"1"},"s":{"NS":["1","1.0"]}}"#,
        expect!["400 ValidationException: 1 validation error detected: Input collection contains duplicates"],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"N":"1"},"s":{"NULL":false}}"#,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Null attribute value types must have the value of true"
        ],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"N":"1E126"}}"#,
        expect![
            "400 ValidationException: Number overflow. Attempting to store a number with magnitude larger than supported range"
        ],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"N":"123456789012345678901234567890123456789"}}"#,
        expect!["400 ValidationException: Attempting to store more than 38 significant digits in a Number"],
    );
    put(
        r#"{"id":{"S":"a"},"n":{"N":"1"},"b":{"B":"?"}}"#,
        expect![
            "400 SerializationException: '?' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 1"
        ],
    );
    put(
        &format!(r#"{{"id":{{"S":"{}"}},"n":{{"N":"1"}}}}"#, "k".repeat(2049)),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes"
        ],
    );
    put(
        &format!(
            r#"{{"id":{{"S":"a"}},"n":{{"N":"1"}},"t":{{"S":"{}"}}}}"#,
            "x".repeat(409_600)
        ),
        expect!["400 ValidationException: Item size has exceeded the maximum allowed size"],
    );
    let deep = format!("{}{{\"NULL\":true}}{}", r#"{"L":["#.repeat(32), "]}".repeat(32));
    put(
        &format!(r#"{{"id":{{"S":"a"}},"n":{{"N":"1"}},"d":{deep}}}"#),
        expect![
            "400 ValidationException: 1 validation error detected: Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
        ],
    );
    let far = format!("{}{{\"NULL\":true}}{}", r#"{"L":["#.repeat(63), "]}".repeat(63));
    put(
        &format!(r#"{{"id":{{"S":"a"}},"n":{{"N":"1"}},"d":{far}}}"#),
        expect![
            "400 ValidationException: Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
        ],
    );
    machine.check(
        "UpdateItem",
        &format!(
            r#"{{"TableName":"things","Key":{{"id":{{"S":"a"}},"n":{{"N":"1"}}}},"UpdateExpression":"SET d = :d","ExpressionAttributeValues":{{":d":{far}}}}}"#
        ),
        expect![
            "400 ValidationException: ExpressionAttributeValues contains invalid value: Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit for key :d"
        ],
    );

    assert_eq!(machine.ok("Scan", r#"{"TableName":"things"}"#)["Count"], 0);
}

#[test]
fn equal_numbers_are_one_key() {
    let machine = Machine::new(13, 2);
    machine.create("numbers", &[("n", "N")]);
    machine.ok(
        "PutItem",
        r#"{"TableName":"numbers","Item":{"n":{"N":"100"},"v":{"S":"first"}}}"#,
    );
    machine.check(
        "PutItem",
        r#"{"TableName":"numbers","Item":{"n":{"N":"1.0E2"},"v":{"S":"second"}},"ReturnValues":"ALL_OLD"}"#,
        expect![[r#"{"Attributes":{"n":{"N":"100"},"v":{"S":"first"}}}"#]],
    );
    machine.check(
        "GetItem",
        r#"{"TableName":"numbers","Key":{"n":{"N":"+100.00"}}}"#,
        expect![[r#"{"Item":{"n":{"N":"100"},"v":{"S":"second"}}}"#]],
    );
}
