//! The parameters that expressions replaced.

use expect_test::expect;

use crate::Machine;

#[test]
fn expected_and_attribute_updates() {
    let machine = Machine::new(66, 3);
    machine.create("tab", &[("pk", "S")]);
    machine.create("two", &[("pk", "S"), ("sk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"N":"1"},"Action":"ADD"},"l":{"Value":{"L":[{"S":"x"}]},"Action":"ADD"},"s":{"Value":{"S":"s"}}},"ReturnValues":"ALL_NEW""##,
        expect![[r#"{"Attributes":{"l":{"L":[{"S":"x"}]},"n":{"N":"1"},"pk":{"S":"a"},"s":{"S":"s"}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"N":"1"},"Action":"ADD"},"l":{"Value":{"L":[{"S":"y"}]},"Action":"ADD"},"s":{"Action":"DELETE"}},"ReturnValues":"UPDATED_NEW""##,
        expect![[r#"{"Attributes":{"l":{"L":[{"S":"x"},{"S":"y"}]},"n":{"N":"2"}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"SS":["1"]},"Action":"ADD"}}"##,
        expect!["400 ValidationException: Type mismatch for attribute to update"],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"S":"1"},"Action":"ADD"}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: ADD action is not supported for the type S"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Action":"ADD"}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is specified"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Action":"add","Value":{"N":"1"}}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Member must satisfy enum value set: [ADD, DELETE, PUT]' for Action"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Action":"DELETE","Value":{"N":"1"}}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: DELETE action with value is not supported for the type N"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"pk":{"Value":{"S":"1"}}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"N":"x"}}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: The parameter cannot be converted to a numeric value: x"
        ],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"N":"7"}}},"Expected":{"n":{"Value":{"N":"3"}}},"ReturnValuesOnConditionCheckFailure":"ALL_OLD""##,
        expect![[
            r#"400 ConditionalCheckFailedException: The conditional request failed "Item":{"l":{"L":[{"S":"x"},{"S":"y"}]},"n":{"N":"2"},"pk":{"S":"a"}}"#
        ]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"N":"7"}}},"Expected":{"n":{"Value":{"N":"2"}}},"ReturnValues":"UPDATED_OLD""##,
        expect![[r#"{"Attributes":{"n":{"N":"2"}}}"#]],
    );
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{},"ReturnValues":"ALL_NEW""##,
        expect![[r#"{"Attributes":{"l":{"L":[{"S":"x"},{"S":"y"}]},"n":{"N":"7"},"pk":{"S":"a"}}}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}}"##,
        expect![[r#"{"Item":{"l":{"L":[{"S":"x"},{"S":"y"}]},"n":{"N":"7"},"pk":{"S":"a"}}}"#]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"}},"Expected":{"pk":{"Exists":false}}"##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"b"}},"Expected":{"pk":{"Exists":false}}"##,
        expect!["{}"],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"b"},"x":{"N":"1"}},"Expected":{"pk":{"ComparisonOperator":"NOT_NULL"},"x":{"Exists":false}}"##,
        expect!["{}"],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"b"}},"Expected":{"y":{"ComparisonOperator":"NOT_NULL"},"x":{"ComparisonOperator":"GT","AttributeValueList":[{"N":"0"}]}},"ConditionalOperator":"AND""##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"b"},"x":{"N":"2"}},"Expected":{"y":{"ComparisonOperator":"NOT_NULL"},"x":{"ComparisonOperator":"GT","AttributeValueList":[{"N":"0"}]}},"ConditionalOperator":"OR""##,
        expect!["{}"],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"ComparisonOperator":"IN","AttributeValueList":[{"N":"1"},{"N":"3"}]}}"##,
        expect!["400 ConditionalCheckFailedException: The conditional request failed"],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"ComparisonOperator":"IN","AttributeValueList":[{"N":"1"},{"N":"2"}]}},"ReturnValues":"ALL_OLD""##,
        expect![[r#"{"Attributes":{"pk":{"S":"b"},"x":{"N":"2"}}}"#]],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"ComparisonOperator":"XX","AttributeValueList":[{"N":"1"}]}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: Invalid comparison operator"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"ComparisonOperator":"EQ","AttributeValueList":[]}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: Invalid number of argument(s) for the EQ ComparisonOperator"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"ComparisonOperator":"EQ"}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: Value or AttributeValueList must be used with ComparisonOperator: EQ for Attribute: x"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"Exists":true}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: Value must be provided when Exists is true for Attribute: x"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"Exists":false,"Value":{"N":"1"}}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: One or more parameter values were invalid: Value cannot be used when Exists is false for Attribute: x"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"Exists":true,"Value":{"N":"x"}}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: The parameter cannot be converted to a numeric value: x"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"ConditionalOperator":"AND""##,
        expect![
            "400 ValidationException: 1 validation error detected: ConditionalOperator cannot be used without Filter or Expected"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"Exists":false}},"ConditionalOperator":"AND""##,
        expect![
            "400 ValidationException: 1 validation error detected: ConditionalOperator can only be used when Filter or Expected has two or more elements"
        ],
    );
    check(
        "DeleteItem",
        r##""TableName":"tab","Key":{"pk":{"S":"b"}},"Expected":{"x":{"Exists":false},"y":{"Exists":false}},"ConditionalOperator":"XOR""##,
        expect![
            "400 ValidationException: 1 validation error detected: Failed to satisfy constraint: Member must satisfy enum value set: [ALL, OR]"
        ],
    );
}

#[test]
fn filters_and_attributes_to_get() {
    let machine = Machine::new(67, 3);
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
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"QueryFilter":{"n":{"ComparisonOperator":"GE","AttributeValueList":[{"N":"3"}]}},"AttributesToGet":["sk","zz"]"##,
        expect![[r#"{"Count":2,"Items":[{"sk":{"S":"3"}},{"sk":{"S":"4"}}],"ScannedCount":5}"#]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"QueryFilter":{"n":{"ComparisonOperator":"GE","AttributeValueList":[{"N":"3"}]},"sk.":{"ComparisonOperator":"NULL"}},"ConditionalOperator":"OR","Select":"COUNT""##,
        expect![[r#"{"Count":5,"ScannedCount":5}"#]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"QueryFilter":{"sk":{"ComparisonOperator":"NULL"}}"##,
        expect![
            "400 ValidationException: QueryFilter can only contain non-primary key attributes: Primary key attribute: sk"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"QueryFilter":{"n":{"ComparisonOperator":"XX"}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Invalid comparison operator"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"QueryFilter":{"n":{"AttributeValueList":[]}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value null at 'queryFilter.n.member.comparisonOperator' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"QueryFilter":{"n":{"ComparisonOperator":"EQ"}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Invalid number of argument(s) for the EQ ComparisonOperator"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"QueryFilter":{"n":{"ComparisonOperator":"LT","AttributeValueList":[{"SS":["a"]}]}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: ComparisonOperator LT is not valid for SS AttributeValue type"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"ConditionalOperator":"OR""##,
        expect!["400 ValidationException: ConditionalOperator cannot be used without Filter or Expected"],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"AttributesToGet":["a","a"]"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Duplicate value in attribute name: a"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"AttributesToGet":[]"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value '[]' at 'attributesToGet' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"AttributesToGet":["a"],"Select":"COUNT""##,
        expect![
            "400 ValidationException: 1 validation error detected: Cannot specify the AttributesToGet when choosing to get only the Count"
        ],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"p"}]}},"AttributesToGet":["sk"],"Select":"SPECIFIC_ATTRIBUTES","Limit":1"##,
        expect![[
            r#"{"Count":1,"Items":[{"sk":{"S":"0"}}],"LastEvaluatedKey":{"pk":{"S":"p"},"sk":{"S":"0"}},"ScannedCount":1}"#
        ]],
    );
    check(
        "Query",
        r##""TableName":"two","KeyConditions":{"pk":{"ComparisonOperator":"XX","AttributeValueList":[{"S":"p"}]}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Invalid comparison operator"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","ScanFilter":{"sk":{"ComparisonOperator":"BETWEEN","AttributeValueList":[{"S":"1"},{"S":"2"}]}},"AttributesToGet":["sk"]"##,
        expect![[r#"{"Count":2,"Items":[{"sk":{"S":"1"}},{"sk":{"S":"2"}}],"ScannedCount":5}"#]],
    );
    check(
        "Scan",
        r##""TableName":"two","ScanFilter":{"sk":{"ComparisonOperator":"BETWEEN","AttributeValueList":[{"S":"2"},{"S":"1"}]}}"##,
        expect![
            "400 ValidationException: The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
        ],
    );
    check(
        "Scan",
        r##""TableName":"two","ScanFilter":{"n":{"ComparisonOperator":"NE","AttributeValueList":[{"N":"1"}]},"sk":{"ComparisonOperator":"BEGINS_WITH","AttributeValueList":[{"S":"1"}]}},"ConditionalOperator":"AND","Select":"COUNT""##,
        expect![[r#"{"Count":0,"ScannedCount":5}"#]],
    );
    check(
        "Scan",
        r##""TableName":"two","ScanFilter":{},"ConditionalOperator":"OR""##,
        expect!["400 ValidationException: ConditionalOperator cannot be used without Filter or Expected"],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"AttributesToGet":["sk","n"]"##,
        expect![[r#"{"Item":{"n":{"N":"2"},"sk":{"S":"2"}}}"#]],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"AttributesToGet":[]"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value '[]' at 'attributesToGet' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        "GetItem",
        r##""TableName":"two","Key":{"pk":{"S":"p"},"sk":{"S":"2"}},"AttributesToGet":[""]"##,
        expect!["400 ValidationException: Empty attribute name"],
    );
    check(
        "BatchGetItem",
        r##""RequestItems":{"two":{"Keys":[{"pk":{"S":"p"},"sk":{"S":"2"}}],"AttributesToGet":["n"]}}"##,
        expect![[r#"{"Responses":{"two":[{"n":{"N":"2"}}]},"UnprocessedKeys":{}}"#]],
    );
    check(
        "BatchGetItem",
        r##""RequestItems":{"two":{"Keys":[{"pk":{"S":"p"},"sk":{"S":"2"}}],"AttributesToGet":[]}}"##,
        expect![
            "400 ValidationException: 1 validation error detected: Value '[]' at 'requestItems.two.member.attributesToGet' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        "BatchGetItem",
        r##""RequestItems":{"two":{"Keys":[{"pk":{"S":"p"},"sk":{"S":"2"}}],"AttributesToGet":["n","n"]}}"##,
        expect![
            "400 ValidationException: One or more parameter values were invalid: Duplicate value in attribute name: n"
        ],
    );
}

#[test]
fn of_members_of_the_same_name_the_last_counts() {
    let machine = Machine::new(68, 2);
    machine.create("tab", &[("pk", "S")]);
    let check = |operation: &str, request: &str, expected| {
        machine.check(operation, &format!("{{{request}}}"), expected);
    };
    check(
        "UpdateItem",
        r##""TableName":"tab","Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Value":{"N":"1"}},"m":{"Value":{"N":"2"}},"n":{"Value":{"N":"3"}}},"ReturnValues":"ALL_NEW""##,
        expect![[r#"{"Attributes":{"m":{"N":"2"},"n":{"N":"3"},"pk":{"S":"a"}}}"#]],
    );
    check(
        "PutItem",
        r##""TableName":"tab","Item":{"pk":{"S":"a"},"n":{"N":"4"}},"Expected":{"n":{"Value":{"N":"1"}},"n":{"Value":{"N":"3"}}}"##,
        expect!["{}"],
    );
    check(
        "Scan",
        r##""TableName":"tab","ScanFilter":{"n":{"ComparisonOperator":"NULL"},"n":{"ComparisonOperator":"NOT_NULL"}},"Select":"COUNT""##,
        expect![[r#"{"Count":1,"ScannedCount":1}"#]],
    );
}

/// A request of 16 MB has room for half a million members; what takes time for each pair of them stops the shard for minutes.
#[test]
fn many_members_take_no_longer_than_they_are() {
    let machine = Machine::new(69, 2);
    machine.create("tab", &[("pk", "S")]);
    let members = |member: &str| {
        let all: Vec<String> = (0..200_000)
            .map(|index| format!(r#""n{index}":{member}"#))
            .collect();
        format!("{{{}}}", all.join(","))
    };
    let condition = members(r#"{"ComparisonOperator":"NULL"}"#);
    let too_many = "One or more parameter values were invalid: The conditions have too many parts, the maximum is 4096 conditions \
                    and values together";
    let check = |operation: &str, request: String, expected: &str| {
        assert_eq!(
            machine.call(operation, &request),
            format!("400 ValidationException: {expected}")
        );
    };
    check(
        "Scan",
        format!(r#"{{"TableName":"tab","ScanFilter":{condition}}}"#),
        too_many,
    );
    check(
        "PutItem",
        format!(r#"{{"TableName":"tab","Item":{{"pk":{{"S":"a"}}}},"Expected":{condition}}}"#),
        &format!("1 validation error detected: {too_many}"),
    );
    check(
        "Query",
        format!(r#"{{"TableName":"tab","KeyConditions":{condition}}}"#),
        "Conditions can be of length 1 or 2 only",
    );
    let updates = members(r#"{"Action":"DELETE"}"#);
    check(
        "UpdateItem",
        format!(r#"{{"TableName":"tab","Key":{{"pk":{{"S":"a"}}}},"AttributeUpdates":{updates}}}"#),
        "One or more parameter values were invalid: AttributeUpdates has too many members, the maximum is 16384",
    );
}

#[test]
fn members_of_conditions_that_nobody_knows_are_refused_by_name() {
    let machine = Machine::new(70, 2);
    machine.create("tab", &[("pk", "S")]);
    let check = |operation: &str, request: &str| {
        assert_eq!(
            machine.call(operation, &format!(r#"{{"TableName":"tab",{request}}}"#)),
            "400 ValidationException: The parameter Foo is not supported"
        );
    };
    let condition = r#"{"n":{"ComparisonOperator":"NULL","Foo":1}}"#;
    check("Scan", &format!(r#""ScanFilter":{condition}"#));
    let keys = r#""KeyConditions":{"pk":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"a"}]}}"#;
    check("Query", &format!(r#"{keys},"QueryFilter":{condition}"#));
    check(
        "PutItem",
        &format!(r#""Item":{{"pk":{{"S":"a"}}}},"Expected":{condition}"#),
    );
    check(
        "DeleteItem",
        &format!(r#""Key":{{"pk":{{"S":"a"}}}},"Expected":{condition}"#),
    );
    check(
        "UpdateItem",
        r#""Key":{"pk":{"S":"a"}},"AttributeUpdates":{"n":{"Action":"DELETE","Foo":1}}"#,
    );
}
