//! UpdateItem.

use expect_test::expect;

use crate::Machine;

#[test]
fn updates_make_the_new_item_of_the_old_one() {
    let machine = Machine::new(64, 3);
    machine.create("tab", &[("pk", "S")]);
    machine.create("two", &[("pk", "S"), ("sk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}}"##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ReturnValues":"ALL_NEW""##,
        expect![[r#"{"Attributes":{"pk":{"S":"a"}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET n = :one, l = :l, m = :m, s = :s","ExpressionAttributeValues":{":one":{"N":"1"},":l":{"L":[{"S":"x"}]},":m":{"M":{"k":{"N":"1"}}},":s":{"SS":["a","b"]}},"ReturnValues":"ALL_NEW","ReturnConsumedCapacity":"TOTAL""##,
        expect![[
            r#"{"Attributes":{"l":{"L":[{"S":"x"}]},"m":{"M":{"k":{"N":"1"}}},"n":{"N":"1"},"pk":{"S":"a"},"s":{"SS":["a","b"]}},"ConsumedCapacity":{"TableName":"tab","CapacityUnits":1.0}}"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET n = n + :one, #c = n - :one, d = if_not_exists(d, :one), l = list_append(l, :l)","ExpressionAttributeValues":{":one":{"N":"1"},":l":{"L":[{"S":"y"}]}},"ExpressionAttributeNames":{"#c":"c"},"ReturnValues":"UPDATED_NEW""##,
        expect![[
            r#"{"Attributes":{"c":{"N":"0"},"d":{"N":"1"},"l":{"L":[{"S":"x"},{"S":"y"}]},"n":{"N":"2"}}}"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET d = if_not_exists(d, :two)","ExpressionAttributeValues":{":two":{"N":"2"}},"ReturnValues":"UPDATED_OLD""##,
        expect![[r#"{"Attributes":{"d":{"N":"1"}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET l[5] = :v, l[0] = :w, m.k2 = :v REMOVE c","ExpressionAttributeValues":{":v":{"S":"v"},":w":{"S":"w"}},"ReturnValues":"UPDATED_NEW""##,
        expect![[r#"{"Attributes":{"l":{"L":[{"S":"w"}]},"m":{"M":{"k2":{"S":"v"}}}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"REMOVE l[0], m.k, zz","ReturnValues":"UPDATED_OLD""##,
        expect![[r#"{"Attributes":{"l":{"L":[{"S":"w"}]},"m":{"M":{"k":{"N":"1"}}}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"ADD n :five, s :s, fresh :five DELETE zz :s","ExpressionAttributeValues":{":five":{"N":"5"},":s":{"SS":["c","a"]}},"ReturnValues":"ALL_NEW""##,
        expect![[
            r#"{"Attributes":{"d":{"N":"1"},"fresh":{"N":"5"},"l":{"L":[{"S":"y"},{"S":"v"}]},"m":{"M":{"k2":{"S":"v"}}},"n":{"N":"7"},"pk":{"S":"a"},"s":{"SS":["a","b","c"]}}}"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"DELETE s :s","ExpressionAttributeValues":{":s":{"SS":["c","a"]}},"ReturnValues":"UPDATED_NEW""##,
        expect![[r#"{"Attributes":{"s":{"SS":["b"]}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"DELETE s :s","ExpressionAttributeValues":{":s":{"SS":["b"]}},"ReturnValues":"UPDATED_NEW""##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"DELETE s :s","ExpressionAttributeValues":{":s":{"SS":["b"]}},"ReturnValues":"UPDATED_OLD""##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET n = :one","ExpressionAttributeValues":{":one":{"N":"1"}},"ReturnValues":"ALL_OLD","ReturnItemCollectionMetrics":"SIZE""##,
        expect![[
            r#"{"Attributes":{"d":{"N":"1"},"fresh":{"N":"5"},"l":{"L":[{"S":"y"},{"S":"v"}]},"m":{"M":{"k2":{"S":"v"}}},"n":{"N":"7"},"pk":{"S":"a"}}}"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET n = :one","ExpressionAttributeValues":{":one":{"N":"1"}},"ReturnValues":"NONE""##,
        expect!["{}"],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}}"##,
        expect![[
            r#"{"Item":{"d":{"N":"1"},"fresh":{"N":"5"},"l":{"L":[{"S":"y"},{"S":"v"}]},"m":{"M":{"k2":{"S":"v"}}},"n":{"N":"1"},"pk":{"S":"a"}}}"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"new"}},"UpdateExpression":"REMOVE x","ReturnValues":"ALL_OLD""##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"new2"}},"UpdateExpression":"SET x = :v","ExpressionAttributeValues":{":v":{"S":"v"}},"ReturnValues":"ALL_OLD""##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"new3"}},"UpdateExpression":"SET x = :v","ExpressionAttributeValues":{":v":{"S":"v"}},"ReturnValues":"UPDATED_OLD""##,
        expect!["{}"],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"new"}}"##,
        expect![[r#"{"Item":{"pk":{"S":"new"}}}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"new2"}}"##,
        expect![[r#"{"Item":{"pk":{"S":"new2"},"x":{"S":"v"}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"swap"}},"UpdateExpression":"SET a = :a, b = :b","ExpressionAttributeValues":{":a":{"N":"1"},":b":{"N":"2"}}"##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"swap"}},"UpdateExpression":"SET a = b, b = a","ReturnValues":"ALL_NEW""##,
        expect![[r#"{"Attributes":{"a":{"N":"2"},"b":{"N":"1"},"pk":{"S":"swap"}}}"#]],
    );
}

#[test]
fn wrong_updates_store_nothing() {
    let machine = Machine::new(65, 3);
    machine.create("tab", &[("pk", "S")]);
    machine.create("two", &[("pk", "S"), ("sk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"1"},"s":{"S":"x"},"big":{"N":"9.9e125"}}"##,
        expect!["{}"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET pk = :v","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET pk.a = :v","ExpressionAttributeValues":{":v":{"S":"x"}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"REMOVE pk""##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET pk = :v","ExpressionAttributeValues":{":v":{"S":"x"}},"ConditionExpression":"attribute_exists(zz)""##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = pk.a""##,
        expect![
            "400 ValidationException: Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: pk"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = zz""##,
        expect![
            "400 ValidationException: The provided expression refers to an attribute that does not exist in the item"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = zz + :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: The provided expression refers to an attribute that does not exist in the item"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = s + :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect!["400 ValidationException: An operand in the update expression has an incorrect data type"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET big = big + big""##,
        expect![
            "400 ValidationException: Number overflow. Attempting to store a number with magnitude larger than supported range"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x.y = :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: The document path provided in the update expression is invalid for update"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET n.y = :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: The document path provided in the update expression is invalid for update"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET n[0] = :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: The document path provided in the update expression is invalid for update"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"ADD s :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect!["400 ValidationException: An operand in the update expression has an incorrect data type"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"ADD n :v","ExpressionAttributeValues":{":v":{"S":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"DELETE n :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: Incorrect operand type for operator or function; operator: DELETE, operand type: NUMBER, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"DELETE n :v","ExpressionAttributeValues":{":v":{"SS":["1"]}}"##,
        expect!["400 ValidationException: An operand in the update expression has an incorrect data type"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = list_append(n, :v)","ExpressionAttributeValues":{":v":{"L":[]}}"##,
        expect!["400 ValidationException: An operand in the update expression has an incorrect data type"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v, x = :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [x], path two: [x]"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v, x.y = :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [x], path two: [x, y]"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v SET y = :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![[
            r#"400 ValidationException: 1 validation error detected: Invalid UpdateExpression: The "SET" section can only be used once in an update expression;"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: The expression can not be empty;"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"","ConditionExpression":"""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid ConditionExpression: The expression can not be empty;"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"INVALID SYNTAX HERE","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![[
            r#"400 ValidationException: 1 validation error detected: Invalid UpdateExpression: Syntax error; token: "INVALID", near: "INVALID SYNTAX""#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: An expression attribute value used in expression is not defined; attribute value: :v"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v","ExpressionAttributeValues":{":v":{"N":"1"},":w":{"N":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value provided in ExpressionAttributeValues unused in expressions: keys: {:w}"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v","ExpressionAttributeValues":{":v":{"N":"1"}},"ExpressionAttributeNames":{"#x":"x"}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value provided in ExpressionAttributeNames unused in expressions: keys: {#x}"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = #v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: An expression attribute name used in the document path is not defined; attribute name: #v"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET name = :v","ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: Attribute name is a reserved keyword; reserved keyword: name"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v","ExpressionAttributeValues":{":v":{"N":"1"}},"ConditionExpression":"a =""##,
        expect![[
            r#"400 ValidationException: 1 validation error detected: Invalid ConditionExpression: Syntax error; token: "<EOF>", near: "=""#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :w","ExpressionAttributeValues":{":v":{"N":"1"}},"ConditionExpression":"a =""##,
        expect![
            "400 ValidationException: 1 validation error detected: Invalid UpdateExpression: An expression attribute value used in expression is not defined; attribute value: :w"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET x = :v","ExpressionAttributeValues":{":v":{"N":"1"}},"AttributeUpdates":{"x":{"Value":{"N":"1"}}},"ConditionalOperator":"AND""##,
        expect![
            "400 ValidationException: 1 validation error detected: Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {AttributeUpdates, ConditionalOperator} Expression parameters: {UpdateExpression}"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ExpressionAttributeValues":{":v":{"N":"1"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeValues can only be specified when using expressions"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ExpressionAttributeNames":{"#v":"v"}"##,
        expect![
            "400 ValidationException: 1 validation error detected: ExpressionAttributeNames can only be specified when using expressions"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"},"x":{"S":"b"}},"UpdateExpression":"REMOVE x""##,
        expect!["400 ValidationException: The provided key element does not match the schema"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":""}},"UpdateExpression":"REMOVE x""##,
        expect![
            "400 ValidationException: One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"N":"x"}},"UpdateExpression":"REMOVE""##,
        expect![
            "400 ValidationException: 1 validation error detected: The parameter cannot be converted to a numeric value: x"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"nope","Key":{"pk":{"S":"a"}},"UpdateExpression":"SET pk = :v","ExpressionAttributeValues":{":v":{"S":"a"}}"##,
        expect!["400 ResourceNotFoundException: Requested resource not found"],
    );
    check(
        "UpdateItem",
        r##""##,
        expect![
            "400 ValidationException: 2 validation errors detected: Value null at 'tableName' failed to satisfy constraint: Member must not be null; Value null at 'key' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab""##,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'key' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"","Key":{}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value at 'TableName' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"x!","Key":{}"##,
        expect![
            "400 ValidationException: 2 validation errors detected: Value 'x!' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value 'x!' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3"
        ],
    );
    check(
        "UpdateItem",
        r##""Key":{},"ReturnValues":"X""##,
        expect![
            "400 ValidationException: 2 validation errors detected: Value null at 'tableName' failed to satisfy constraint: Member must not be null; Value 'X' at 'returnValues' failed to satisfy constraint: Member must satisfy enum value set: [ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ReturnValues":"X","ReturnConsumedCapacity":"X""##,
        expect![
            "400 ValidationException: 1 validation error detected: Failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, UPDATED_OLD, ALL_NEW, UPDATE_NEW, NONE]"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ReturnValuesOnConditionCheckFailure":"X","ReturnConsumedCapacity":"X""##,
        expect![
            "400 ValidationException: Value 'X' at 'returnValuesOnConditionCheckFailure' failed to satisfy constraint: Member must satisfy enum value set: [ALL_OLD, NONE]"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ReturnItemCollectionMetrics":"X","ReturnConsumedCapacity":"X""##,
        expect![
            "400 ValidationException: 1 validation error detected: Value 'X' at 'returnItemCollectionMetrics' failed to satisfy constraint: Member must satisfy enum value set: [SIZE, NONE]"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"ReturnConsumedCapacity":"X""##,
        expect![
            "400 ValidationException: Value 'X' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"Nonsense":1"##,
        expect!["400 ValidationException: The parameter Nonsense is not supported"],
    );
    check(
        "Scan",
        r##""TableName":"tab""##,
        expect![[
            r#"{"Count":1,"Items":[{"big":{"N":"990000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"},"n":{"N":"1"},"pk":{"S":"a"},"s":{"S":"x"}}],"ScannedCount":1}"#
        ]],
    );
}
