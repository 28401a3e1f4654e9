//! Conditions of writes, filters and projections of reads.

use expect_test::expect;

use crate::Machine;

#[test]
fn conditions_decide_about_writes() {
    let machine = Machine::new(60, 3);
    machine.create("tab", &[("pk", "S")]);
    machine.create("two", &[("pk", "S"), ("sk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"1"}},"ConditionExpression":"attribute_not_exists(pk)""##,
        expect!["{}"],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"2"}},"ConditionExpression":"attribute_not_exists(pk)""##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"2"}},"ConditionExpression":"attribute_not_exists(pk)","ReturnValuesOnConditionCheckFailure":"ALL_OLD""##,
        expect![[
            r#"400 ConditionalCheckFailedException: The conditional request failed "Item":{"n":{"N":"1"},"pk":{"S":"a"}}"#
        ]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"2"}},"ConditionExpression":"#n = :one AND attribute_exists(pk)","ExpressionAttributeNames":{"#n":"n"},"ExpressionAttributeValues":{":one":{"N":"1"}},"ReturnValues":"ALL_OLD""##,
        expect![[r#"{"Attributes":{"n":{"N":"1"},"pk":{"S":"a"}}}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}}"##,
        expect![[r#"{"Item":{"n":{"N":"2"},"pk":{"S":"a"}}}"#]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"b"}},"ConditionExpression":"attribute_exists(pk)","ReturnValuesOnConditionCheckFailure":"ALL_OLD""##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}}"##,
        expect!["{}"],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ConditionExpression":"n > :n","ExpressionAttributeValues":{":n":{"N":"2"}},"ReturnValuesOnConditionCheckFailure":"ALL_OLD""##,
        expect![[
            r#"400 ConditionalCheckFailedException: The conditional request failed "Item":{"n":{"N":"2"},"pk":{"S":"a"}}"#
        ]],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"ConditionExpression":"attribute_exists(pk)""##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"ConditionExpression":"attribute_not_exists(pk)","ReturnValues":"ALL_OLD""##,
        expect!["{}"],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ConditionExpression":"n BETWEEN :n AND :n","ExpressionAttributeValues":{":n":{"N":"2"}},"ReturnValues":"ALL_OLD","ReturnConsumedCapacity":"TOTAL""##,
        expect![[
            r#"{"Attributes":{"n":{"N":"2"},"pk":{"S":"a"}},"ConsumedCapacity":{"TableName":"tab","CapacityUnits":1.0}}"#
        ]],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}}"##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"u"}},"UpdateExpression":"SET n = :n","ExpressionAttributeValues":{":n":{"N":"5"}},"ConditionExpression":"attribute_exists(pk)","ReturnValuesOnConditionCheckFailure":"ALL_OLD""##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"u"}}"##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"u"}},"UpdateExpression":"SET n = :n","ExpressionAttributeValues":{":n":{"N":"5"}},"ConditionExpression":"attribute_not_exists(n)","ReturnValues":"ALL_NEW""##,
        expect![[r#"{"Attributes":{"n":{"N":"5"},"pk":{"S":"u"}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"u"}},"UpdateExpression":"SET n = :m","ExpressionAttributeValues":{":n":{"N":"5"},":m":{"N":"6"}},"ConditionExpression":"n <> :n","ReturnValuesOnConditionCheckFailure":"ALL_OLD""##,
        expect![[
            r#"400 ConditionalCheckFailedException: The conditional request failed "Item":{"n":{"N":"5"},"pk":{"S":"u"}}"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"u"}},"UpdateExpression":"SET n = :m","ExpressionAttributeValues":{":n":{"N":"5"},":m":{"N":"6"}},"ConditionExpression":"n = :n AND size(pk) < :m","ReturnValues":"UPDATED_OLD""##,
        expect![[r#"{"Attributes":{"n":{"N":"5"}}}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"u"}}"##,
        expect![[r#"{"Item":{"n":{"N":"6"},"pk":{"S":"u"}}}"#]],
    );
}

#[test]
fn wrong_conditions_store_nothing() {
    let machine = Machine::new(61, 3);
    machine.create("tab", &[("pk", "S")]);
    machine.create("two", &[("pk", "S"), ("sk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: The expression can not be empty;"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = ""##,
        expect![[
            r#"400 ValidationException: 1 validation error detected: Invalid ConditionExpression: Syntax error; token: "<EOF>", near: "= ""#
        ]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: An expression attribute value used in expression is not defined; attribute value: :v"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"#a = :v","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: An expression attribute name used in the document path is not defined; attribute name: #a"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{"S":"x"},":w":{"S":"x"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value provided in ExpressionAttributeValues unused in expressions: keys: {:w}"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"attribute_exists(a)","ExpressionAttributeNames":{"#b":"b","#a":"a"}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value provided in ExpressionAttributeNames unused in expressions: keys: {#a, #b}"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"size = :v","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: Attribute name is a reserved keyword; reserved keyword: size"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"((a = :v))","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: The expression has redundant parentheses;"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a BETWEEN :b AND :a","ExpressionAttributeValues":{":a":{"N":"1"},":b":{"N":"2"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"pk.a = :v","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: pk"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"nope(a)""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: Invalid function name; function: nope"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeValues can only be specified when using expressions"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ExpressionAttributeNames":{"#a":"a"}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeNames can only be specified when using expressions"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeValues must not be empty"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeNames":{},"ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeNames must not be empty"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{"v":{"S":"x"}}"##,
        expect![[
            r#"400 ValidationException: ExpressionAttributeValues contains invalid key: Syntax error; key: "v""#
        ]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeNames":{"a":"b"},"ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![[
            r#"400 ValidationException: ExpressionAttributeNames contains invalid key: Syntax error; key: "a""#
        ]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{"N":"x"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: The parameter cannot be converted to a numeric value: x"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{"SS":[]}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeValues contains invalid value: One or more parameter values were invalid: An string set  may not be empty for key :v"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{}}"##,
        expect![
            "400 ValidationException: Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{"NULL":false}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: Null attribute value types must have the value of true"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{"S":"x"}},"Expected":{"a":{"Exists":false}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {Expected} Expression parameters: {ConditionExpression}"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ReturnValues":"ALL_NEW""##,
        expect![
            "400 ValidationException: 1 validation error detected: ReturnValues can only be ALL_OLD or NONE"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = ","ReturnValues":"ALL_NEW""##,
        expect![[
            r#"400 ValidationException: 1 validation error detected: Invalid ConditionExpression: Syntax error; token: "<EOF>", near: "= ""#
        ]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"px":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Missing the key pk in the item"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"nope","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect!["400 ResourceNotFoundException: Requested resource not found"],
    );
    check(
        "PutItem",
        r##""TableName":"nope","Item":{"pk":{"S":"a"}},"ConditionExpression":"a = :v""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: An expression attribute value used in expression is not defined; attribute value: :v"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ConditionExpression":"a = :v""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: An expression attribute value used in expression is not defined; attribute value: :v"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ConditionExpression":"a = :v","ReturnValues":"UPDATED_OLD""##,
        expect![
            "400 ValidationException: 1 validation error detected: ReturnValues can only be ALL_OLD or NONE"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"N":"x"}},"ConditionExpression":"a = :v""##,
        expect![
            "400 ValidationException: 1 validation error detected: The parameter cannot be converted to a numeric value: x"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"N":"x"}},"ExpressionAttributeNames":{"#a":"a"}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeNames can only be specified when using expressions"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"ReturnValues":"X","ReturnConsumedCapacity":"X","ReturnItemCollectionMetrics":"X","ReturnValuesOnConditionCheckFailure":"X""##,
        expect![
            "400 ValidationException: 4 validation errors detected: Value 'X' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]; Failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATE_NEW, NONE]; Value 'X' at 'returnItemCollectionMetrics' failed to satisfy constraint: Member must satisfy enum value set: [SIZE, NONE]; Value 'X' at 'returnValuesOnConditionCheckFailure' failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, NONE]"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"","Item":{"pk":{"S":"a"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'TableName' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        "PutItem",
        r##""TableName":"a!","Item":{"pk":{"S":"a"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value 'a!' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3"
        ],
    );
    check(
        "Scan",
        r##""TableName":"tab""##,
        expect![[r#"{"Count":0,"Items":[],"ScannedCount":0}"#]],
    );
}

#[test]
fn filters_and_projections_choose_what_is_answered() {
    let machine = Machine::new(62, 3);
    machine.create("tab", &[("pk", "S")]);
    machine.create("two", &[("pk", "S"), ("sk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "PutItem",
        r##""TableName":"two","Item":{"pk":{"S":"p"},"sk":{"S":"0"},"n":{"N":"0"},"m":{"M":{"x":{"L":[{"S":"l0"},{"N":"0"}]},"y":{"BOOL":true}}}}"##,
        expect!["{}"],
    );
    check(
        "PutItem",
        r##""TableName":"two","Item":{"pk":{"S":"p"},"sk":{"S":"1"},"n":{"N":"1"},"m":{"M":{"x":{"L":[{"S":"l1"},{"N":"1"}]},"y":{"BOOL":true}}}}"##,
        expect!["{}"],
    );
    check(
        "PutItem",
        r##""TableName":"two","Item":{"pk":{"S":"p"},"sk":{"S":"2"},"n":{"N":"2"},"m":{"M":{"x":{"L":[{"S":"l2"},{"N":"2"}]},"y":{"BOOL":true}}}}"##,
        expect!["{}"],
    );
    check(
        "PutItem",
        r##""TableName":"two","Item":{"pk":{"S":"p"},"sk":{"S":"3"},"n":{"N":"3"},"m":{"M":{"x":{"L":[{"S":"l3"},{"N":"3"}]},"y":{"BOOL":true}}}}"##,
        expect!["{}"],
    );
    check(
        "PutItem",
        r##""TableName":"two","Item":{"pk":{"S":"p"},"sk":{"S":"4"},"n":{"N":"4"},"m":{"M":{"x":{"L":[{"S":"l4"},{"N":"4"}]},"y":{"BOOL":true}}}}"##,
        expect!["{}"],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"n >= :n","ProjectionExpression":"sk","ExpressionAttributeValues":{":p":{"S":"p"},":n":{"N":"3"}},"ReturnConsumedCapacity":"TOTAL""##,
        expect![[
            r#"{"ConsumedCapacity":{"TableName":"two","CapacityUnits":0.5},"Count":2,"Items":[{"sk":{"S":"3"}},{"sk":{"S":"4"}}],"ScannedCount":5}"#
        ]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"n >= :n","ProjectionExpression":"sk","ExpressionAttributeValues":{":p":{"S":"p"},":n":{"N":"3"}},"Limit":2"##,
        expect![[
            r#"{"Count":0,"Items":[],"LastEvaluatedKey":{"pk":{"S":"p"},"sk":{"S":"1"}},"ScannedCount":2}"#
        ]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"n >= :n","ExpressionAttributeValues":{":p":{"S":"p"},":n":{"N":"3"}},"Select":"COUNT","Limit":4"##,
        expect![[r#"{"Count":1,"LastEvaluatedKey":{"pk":{"S":"p"},"sk":{"S":"3"}},"ScannedCount":4}"#]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"m.x[1], #n, m.zz, zz","ExpressionAttributeNames":{"#n":"n"},"ExpressionAttributeValues":{":p":{"S":"p"}},"Limit":1,"Select":"SPECIFIC_ATTRIBUTES""##,
        expect![[
            r#"{"Count":1,"Items":[{"m":{"M":{"x":{"L":[{"N":"0"}]}}},"n":{"N":"0"}}],"LastEvaluatedKey":{"pk":{"S":"p"},"sk":{"S":"0"}},"ScannedCount":1}"#
        ]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"m.x[1], m.x[0], m.x[7]","ExpressionAttributeValues":{":p":{"S":"p"}},"ScanIndexForward":false,"Limit":1"##,
        expect![[
            r#"{"Count":1,"Items":[{"m":{"M":{"x":{"L":[{"S":"l4"},{"N":"4"}]}}}}],"LastEvaluatedKey":{"pk":{"S":"p"},"sk":{"S":"4"}},"ScannedCount":1}"#
        ]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"zz","ExpressionAttributeValues":{":p":{"S":"p"}},"Limit":1"##,
        expect![[
            r#"{"Count":1,"Items":[{}],"LastEvaluatedKey":{"pk":{"S":"p"},"sk":{"S":"0"}},"ScannedCount":1}"#
        ]],
    );
    check(
        "Scan",
        r##""TableName":"two","FilterExpression":"m.x[0] = :l OR contains(m.x, :n)","ExpressionAttributeValues":{":l":{"S":"l1"},":n":{"N":"3"}},"ProjectionExpression":"sk""##,
        expect![[r#"{"Count":2,"Items":[{"sk":{"S":"1"}},{"sk":{"S":"3"}}],"ScannedCount":5}"#]],
    );
    check(
        "Scan",
        r##""TableName":"two","FilterExpression":"pk = :p AND sk < :s","ExpressionAttributeValues":{":p":{"S":"p"},":s":{"S":"1"}},"Select":"COUNT""##,
        expect![[r#"{"Count":1,"ScannedCount":5}"#]],
    );
    check(
        "Scan",
        r##""TableName":"two","FilterExpression":"attribute_type(m, :t) AND m.y = :y AND NOT n IN (:a, :b)","ExpressionAttributeValues":{":t":{"S":"M"},":y":{"BOOL":true},":a":{"N":"0"},":b":{"N":"1.0"}},"Select":"COUNT""##,
        expect![[r#"{"Count":3,"ScannedCount":5}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"ProjectionExpression":"m.x[0], n, pk""##,
        expect![[r#"{"Item":{"m":{"M":{"x":{"L":[{"S":"l2"}]}}},"n":{"N":"2"},"pk":{"S":"p"}}}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"ProjectionExpression":"zz","ReturnConsumedCapacity":"TOTAL""##,
        expect![[r#"{"Item":{},"ConsumedCapacity":{"TableName":"two","CapacityUnits":0.5}}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"x"}},"ProjectionExpression":"zz""##,
        expect!["{}"],
    );
    check(
        "BatchGetItem",
        r##""RequestItems":{"two":{"Keys":[{"pk":{"S":"p"},"sk":{"S":"2"}},{"pk":{"S":"p"},"sk":{"S":"x"}}],"ProjectionExpression":"#n","ExpressionAttributeNames":{"#n":"n"}}}"##,
        expect![[r#"{"Responses":{"two":[{"n":{"N":"2"}}]},"UnprocessedKeys":{}}"#]],
    );
}

#[test]
fn wrong_filters_and_projections_are_refused() {
    let machine = Machine::new(63, 3);
    machine.create("tab", &[("pk", "S")]);
    machine.create("two", &[("pk", "S"), ("sk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"sk = :p","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Filter Expression can only contain non-primary key attributes: Primary key attribute: sk"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"sk.a = :p","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: sk"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"a = :x","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Invalid FilterExpression: An expression attribute value used in expression is not defined; attribute value: :x"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect!["400 ValidationException: Invalid FilterExpression: The expression can not be empty;"],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect!["400 ValidationException: Invalid ProjectionExpression: The expression can not be empty;"],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"a, a.b","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Invalid ProjectionExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"a, b","ExpressionAttributeNames":{"#c":"c"},"ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Value provided in ExpressionAttributeNames unused in expressions: keys: {#c}"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"sk[0]","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: sk"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"a =","ProjectionExpression":"b,","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![[
            r#"400 ValidationException: Invalid FilterExpression: Syntax error; token: "<EOF>", near: "=""#
        ]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"a","ExpressionAttributeValues":{":p":{"S":"p"}},"Select":"COUNT""##,
        expect![
            "400 ValidationException: 1 validation error detected: Cannot specify the ProjectionExpression when choosing to get only the Count"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ProjectionExpression":"a","ExpressionAttributeValues":{":p":{"S":"p"}},"Select":"ALL_ATTRIBUTES""##,
        expect![
            "400 ValidationException: 1 validation error detected: Cannot specify the ProjectionExpression when choosing to get ALL_ATTRIBUTES"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ExpressionAttributeValues":{":p":{"S":"p"}},"Select":"SPECIFIC_ATTRIBUTES""##,
        expect![
            "400 ValidationException: 1 validation error detected: Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ExpressionAttributeValues":{":p":{"S":"p"}},"Select":"ALL_PROJECTED_ATTRIBUTES""##,
        expect![
            "400 ValidationException: 1 validation error detected: ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ExpressionAttributeValues":{":p":{"S":"p"}},"Select":"SOME""##,
        expect![
            "400 ValidationException: 1 validation error detected: Value 'SOME' at 'select' failed to satisfy constraint: Member must satisfy enum value set: [SPECIFIC_ATTRIBUTES, COUNT, ALL_ATTRIBUTES, ALL_PROJECTED_ATTRIBUTES]"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","ExpressionAttributeValues":{":p":{"S":"p"},":q":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Value provided in ExpressionAttributeValues unused in expressions: keys: {:q}"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","ProjectionExpression":"a","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: ExpressionAttributeValues can only be specified when using expressions: FilterExpression and KeyConditionExpression are null"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: ExpressionAttributeValues can only be specified when using expressions: FilterExpression and KeyConditionExpression are null"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditionExpression":"pk = :p","FilterExpression":"a = :p","ExpressionAttributeValues":{":p":{"S":"p"}},"QueryFilter":{},"AttributesToGet":["a"]"##,
        expect![
            "400 ValidationException: Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {AttributesToGet, QueryFilter} Expression parameters: {FilterExpression, KeyConditionExpression}"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","FilterExpression":"a = :p""##,
        expect![
            "400 ValidationException: Invalid FilterExpression: An expression attribute value used in expression is not defined; attribute value: :p"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","FilterExpression":"pk.a = :p","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: pk"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","ProjectionExpression":"a","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: ExpressionAttributeValues can only be specified when using expressions: FilterExpression is null"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","ExpressionAttributeValues":{":p":{"S":"p"}}"##,
        expect![
            "400 ValidationException: ExpressionAttributeValues can only be specified when using expressions: FilterExpression is null"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","ExpressionAttributeNames":{"#p":"p"}"##,
        expect![
            "400 ValidationException: ExpressionAttributeNames can only be specified when using expressions"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","FilterExpression":"a = :p AND","Segment":3,"TotalSegments":2"##,
        expect![[
            r#"400 ValidationException: Invalid FilterExpression: Syntax error; token: "<EOF>", near: "AND""#
        ]],
    );
    check(
        "Scan",
        r##""TableName":"two","FilterExpression":"a = :p","ExpressionAttributeValues":{":p":{"S":"p"}},"Segment":3,"TotalSegments":2"##,
        expect![
            "400 ValidationException: The Segment parameter is zero-based and must be less than parameter TotalSegments"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","Limit":0,"Segment":-1,"TotalSegments":0"##,
        expect![
            "400 ValidationException: 3 validation errors detected: Value at 'Limit' failed to satisfy constraint: Member must have value greater than or equal to 1; Value at 'Segment' failed to satisfy constraint: Member must have value greater than or equal to 0; Value at 'TotalSegments' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ],
    );
    check(
        "Query",
        r##""Limit":0,"Select":"X""##,
        expect![
            "400 ValidationException: 3 validation errors detected: Value 'X' at 'select' failed to satisfy constraint: Member must satisfy enum value set: [SPECIFIC_ATTRIBUTES, COUNT, ALL_ATTRIBUTES, ALL_PROJECTED_ATTRIBUTES]; Value null at 'tableName' failed to satisfy constraint: Member must not be null; Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ],
    );
    check(
        "Query",
        r##""TableName":"","Limit":0"##,
        expect![
            "400 ValidationException: 2 validation errors detected: Value at 'Limit' failed to satisfy constraint: Member must have value greater than or equal to 1; Value at 'TableName' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"ProjectionExpression":"a[""##,
        expect![[
            r#"400 ValidationException: Invalid ProjectionExpression: Syntax error; token: "<EOF>", near: "[""#
        ]],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"ProjectionExpression":"pk.a""##,
        expect![
            "400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: pk"
        ],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"ExpressionAttributeNames":{"#a":"a"}"##,
        expect![
            "400 ValidationException: ExpressionAttributeNames can only be specified when using expressions"
        ],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"ProjectionExpression":"#b","ExpressionAttributeNames":{"#a":"a"}"##,
        expect![
            "400 ValidationException: Invalid ProjectionExpression: An expression attribute name used in the document path is not defined; attribute name: #b"
        ],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"ProjectionExpression":"a","ExpressionAttributeNames":{"#a":"a"}"##,
        expect![
            "400 ValidationException: Value provided in ExpressionAttributeNames unused in expressions: keys: {#a}"
        ],
    );
    check(
        "BatchGetItem",
        r##""RequestItems":{"tab":{"Keys":[{"pk":{"S":"p"}}],"ProjectionExpression":"a,"}}"##,
        expect![[
            r#"400 ValidationException: Invalid ProjectionExpression: Syntax error; token: "<EOF>", near: ",""#
        ]],
    );
    check(
        "BatchGetItem",
        r##""RequestItems":{"tab":{"Keys":[{"pk":{"S":"p"}}],"ProjectionExpression":"a","ExpressionAttributeNames":{"#a":"a"}}}"##,
        expect![
            "400 ValidationException: Value provided in ExpressionAttributeNames unused in expressions: keys: {#a}"
        ],
    );
    check(
        "BatchGetItem",
        r##""RequestItems":{"tab":{"Keys":[{"pk":{"S":"p"}}],"ProjectionExpression":"a","AttributesToGet":["a"]}}"##,
        expect![
            "400 ValidationException: Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {AttributesToGet} Expression parameters: {ProjectionExpression}"
        ],
    );
}
