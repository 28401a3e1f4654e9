use expect_test::expect;

use crate::Machine;

#[test]
fn create_table_refuses_in_order() {
    let machine = Machine::new(1, 2);
    let check = |body: &str, expected| machine.check("CreateTable", body, expected);
    check(
        "",
        expect![
            "400 ValidationException: The parameter 'TableName' is required but was not present in the request"
        ],
    );
    check("{", expect!["400 SerializationException: "]);
    check(
        "[]",
        expect!["400 SerializationException: Start of list found where not expected"],
    );
    check(
        r#"{"TableName":7}"#,
        expect!["400 SerializationException: NUMBER_VALUE cannot be converted to String"],
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
        r#"{"TableName":"abc"}"#,
        expect![
            "400 ValidationException: 2 validation errors detected: Value null at 'keySchema' failed to satisfy constraint: Member must not be null; Value null at 'attributeDefinitions' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        r#"{"TableName":"abc","KeySchema":[],"AttributeDefinitions":[],"BillingMode":"FREE"}"#,
        expect![
            "400 ValidationException: 2 validation errors detected: Value 'FREE' at 'billingMode' failed to satisfy constraint: Member must satisfy enum value set: [PROVISIONED, PAY_PER_REQUEST]; Value '[]' at 'keySchema' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    check(
        r#"{"TableName":"abc","KeySchema":[{"AttributeName":"a","KeyType":"HASH"},{"KeyType":"X"},{"AttributeName":"c"}],"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"SS"}],"ProvisionedThroughput":{"ReadCapacityUnits":0}}"#,
        expect![
            "400 ValidationException: 7 validation errors detected: Value null at 'provisionedThroughput.writeCapacityUnits' failed to satisfy constraint: Member must not be null; Value '0' at 'provisionedThroughput.readCapacityUnits' failed to satisfy constraint: Member must have value greater than or equal to 1; Value '[KeySchemaElement(attributeName=a, keyType=HASH), KeySchemaElement(attributeName=null, keyType=X), KeySchemaElement(attributeName=c, keyType=null)]' at 'keySchema' failed to satisfy constraint: Member must have length less than or equal to 2; Value null at 'keySchema.2.member.attributeName' failed to satisfy constraint: Member must not be null; Value 'X' at 'keySchema.2.member.keyType' failed to satisfy constraint: Member must satisfy enum value set: [HASH, RANGE]; Value null at 'keySchema.3.member.keyType' failed to satisfy constraint: Member must not be null; Value 'SS' at 'attributeDefinitions.1.member.attributeType' failed to satisfy constraint: Member must satisfy enum value set: [B, N, S]"
        ],
    );
    let keyed = |rest: &str| {
        format!(
            r#"{{"TableName":"abc","KeySchema":[{{"AttributeName":"a","KeyType":"HASH"}}],"AttributeDefinitions":[{{"AttributeName":"a","AttributeType":"S"}}]{rest}}}"#
        )
    };
    check(
        &keyed(""),
        expect![
            "400 ValidationException: One or more parameter values were invalid: ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED"
        ],
    );
    check(
        &keyed(
            r#","BillingMode":"PAY_PER_REQUEST","ProvisionedThroughput":{"ReadCapacityUnits":1,"WriteCapacityUnits":1}"#,
        ),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
        ],
    );
    check(
        &keyed(r#","ProvisionedThroughput":{"ReadCapacityUnits":1000000000001,"WriteCapacityUnits":1}"#),
        expect!["400 ValidationException: Given value 1000000000001 for ReadCapacityUnits is out of bounds"],
    );
    check(
        &keyed(r#","BillingMode":"PAY_PER_REQUEST","LocalSecondaryIndexes":[]"#),
        expect![
            "400 ValidationException: One or more parameter values were invalid: List of LocalSecondaryIndexes is empty"
        ],
    );
    check(
        &keyed(r#","BillingMode":"PAY_PER_REQUEST","SSESpecification":{"Enabled":true}"#),
        expect!["400 ValidationException: The parameter SSESpecification is not supported"],
    );
    check(
        &keyed(
            r#","BillingMode":"PAY_PER_REQUEST","Tags":[{"Key":"a","Value":"1"},{"Key":"a","Value":"2"}]"#,
        ),
        expect!["400 ValidationException: Duplicate Tag Keys provided as input: Duplicate Tag Key found a"],
    );
    check(
        &keyed(r#","BillingMode":"PAY_PER_REQUEST","Tags":[{"Key":"aws:a","Value":"1"}]"#),
        expect!["400 ValidationException: Tag Key cannot be prefixed with aws:, Key: aws:a"],
    );

    let schema = |keys: &str, attributes: &str| {
        let split = |pairs: &str, member: &str| {
            let pair = |pair: &str| {
                let (name, value) = pair.split_once(' ').unwrap();
                format!(r#"{{"AttributeName":"{name}","{member}":"{value}"}}"#)
            };
            pairs.split(',').map(pair).collect::<Vec<_>>().join(",")
        };
        format!(
            r#"{{"TableName":"abc","BillingMode":"PAY_PER_REQUEST","KeySchema":[{}],"AttributeDefinitions":[{}]}}"#,
            split(keys, "KeyType"),
            split(attributes, "AttributeType")
        )
    };
    check(
        &schema("a HASH,b RANGE", "a S"),
        expect!["400 ValidationException: Invalid KeySchema: Some index key attribute have no definition"],
    );
    check(
        &schema("a HASH,b RANGE", "a S,c S"),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Some index key attributes are not defined in AttributeDefinitions. Keys: [a, b], AttributeDefinitions: [a, c]"
        ],
    );
    check(
        &schema("a HASH,a RANGE", "a S,b S"),
        expect![
            "400 ValidationException: Both the Hash Key and the Range Key element in the KeySchema have the same name"
        ],
    );
    check(
        &schema("a RANGE", "a S"),
        expect![
            "400 ValidationException: Invalid KeySchema: The first KeySchemaElement is not a HASH key type"
        ],
    );
    check(
        &schema("a HASH,b HASH", "a S,b S"),
        expect![
            "400 ValidationException: Invalid KeySchema: The second KeySchemaElement is not a RANGE key type"
        ],
    );
    check(
        &schema("a HASH", "a S,b S"),
        expect![
            "400 ValidationException: One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions"
        ],
    );
    machine.check("ListTables", "{}", expect![[r#"{"TableNames":[]}"#]]);
}

#[test]
fn a_table_lives_and_dies() {
    let machine = Machine::new(2, 3);
    let unknown = r#"{"TableName":"orders"}"#;
    machine.check(
        "DescribeTable",
        unknown,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: orders not found"],
    );
    machine.check(
        "DeleteTable",
        unknown,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: orders not found"],
    );
    let create = r#"{"TableName":"orders","ProvisionedThroughput":{"ReadCapacityUnits":5,"WriteCapacityUnits":6},"KeySchema":[{"AttributeName":"customer","KeyType":"HASH"},{"AttributeName":"placed","KeyType":"RANGE"}],"AttributeDefinitions":[{"AttributeName":"placed","AttributeType":"N"},{"AttributeName":"customer","AttributeType":"S"}],"TableClass":"STANDARD","DeletionProtectionEnabled":false}"#;
    let stable = |answer: serde_json::Value| {
        let mut answer = answer;
        let table = answer.as_object_mut().unwrap().values_mut().next().unwrap();
        if let Some(unique) = table.get_mut("TableId") {
            assert_eq!(unique.as_str().unwrap().len(), 36);
            *unique = "UNIQUE".into();
        }
        if let Some(created) = table.get_mut("CreationDateTime") {
            assert!(created.as_f64().unwrap() > 1e9);
            *created = 0.into();
        }
        answer.to_string()
    };
    expect![[r#"{"TableDescription":{"AttributeDefinitions":[{"AttributeName":"customer","AttributeType":"S"},{"AttributeName":"placed","AttributeType":"N"}],"CreationDateTime":0,"DeletionProtectionEnabled":false,"ItemCount":0,"KeySchema":[{"AttributeName":"customer","KeyType":"HASH"},{"AttributeName":"placed","KeyType":"RANGE"}],"ProvisionedThroughput":{"NumberOfDecreasesToday":0,"ReadCapacityUnits":5,"WriteCapacityUnits":6},"TableArn":"arn:aws:dynamodb:us-east-1:000000000000:table/orders","TableClassSummary":{"TableClass":"STANDARD"},"TableId":"UNIQUE","TableName":"orders","TableSizeBytes":0,"TableStatus":"CREATING"}}"#]].assert_eq(&stable(machine.ok("CreateTable", create)));
    machine.check(
        "CreateTable",
        create,
        expect!["400 ResourceInUseException: Table already exists: orders"],
    );
    machine.check(
        "PutItem",
        r#"{"TableName":"orders","Item":{"customer":{"S":"c1"},"placed":{"N":"1"},"what":{"S":"tea"}}}"#,
        expect!["{}"],
    );
    expect![[r#"{"Table":{"AttributeDefinitions":[{"AttributeName":"customer","AttributeType":"S"},{"AttributeName":"placed","AttributeType":"N"}],"CreationDateTime":0,"DeletionProtectionEnabled":false,"ItemCount":1,"KeySchema":[{"AttributeName":"customer","KeyType":"HASH"},{"AttributeName":"placed","KeyType":"RANGE"}],"ProvisionedThroughput":{"NumberOfDecreasesToday":0,"ReadCapacityUnits":5,"WriteCapacityUnits":6},"TableArn":"arn:aws:dynamodb:us-east-1:000000000000:table/orders","TableClassSummary":{"TableClass":"STANDARD"},"TableId":"UNIQUE","TableName":"orders","TableSizeBytes":25,"TableStatus":"ACTIVE","WarmThroughput":{"ReadUnitsPerSecond":5,"Status":"ACTIVE","WriteUnitsPerSecond":6}}}"#]].assert_eq(&stable(machine.ok("DescribeTable", unknown)));
    expect![[r#"{"TableDescription":{"DeletionProtectionEnabled":false,"ItemCount":0,"ProvisionedThroughput":{"NumberOfDecreasesToday":0,"ReadCapacityUnits":5,"WriteCapacityUnits":6},"TableArn":"arn:aws:dynamodb:us-east-1:000000000000:table/orders","TableClassSummary":{"TableClass":"STANDARD"},"TableId":"UNIQUE","TableName":"orders","TableSizeBytes":0,"TableStatus":"DELETING"}}"#]].assert_eq(&stable(machine.ok("DeleteTable", unknown)));
    machine.check(
        "DescribeTable",
        unknown,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: orders not found"],
    );
    machine.check(
        "GetItem",
        r#"{"TableName":"orders","Key":{"customer":{"S":"c1"},"placed":{"N":"1"}}}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found"],
    );
    // A table of the same name is another table.
    machine.create("orders", &[("customer", "S"), ("placed", "N")]);
    machine.check(
        "GetItem",
        r#"{"TableName":"orders","Key":{"customer":{"S":"c1"},"placed":{"N":"1"}}}"#,
        expect!["{}"],
    );
}

#[test]
fn tables_are_listed_in_pages() {
    let machine = Machine::new(3, 2);
    for name in ["cherry", "apple", "banana", "date"] {
        machine.create(name, &[("id", "S")]);
    }
    let check = |body: &str, expected| machine.check("ListTables", body, expected);
    check(
        "{}",
        expect![[r#"{"TableNames":["apple","banana","cherry","date"]}"#]],
    );
    check(
        "",
        expect![[r#"{"TableNames":["apple","banana","cherry","date"]}"#]],
    );
    check(
        r#"{"Limit":4}"#,
        expect![[r#"{"TableNames":["apple","banana","cherry","date"]}"#]],
    );
    check(
        r#"{"Limit":2}"#,
        expect![[r#"{"TableNames":["apple","banana"],"LastEvaluatedTableName":"banana"}"#]],
    );
    check(
        r#"{"Limit":2,"ExclusiveStartTableName":"banana"}"#,
        expect![[r#"{"TableNames":["cherry","date"]}"#]],
    );
    check(
        r#"{"ExclusiveStartTableName":"blueberry"}"#,
        expect![[r#"{"TableNames":["cherry","date"]}"#]],
    );
    check(
        r#"{"ExclusiveStartTableName":"zebra"}"#,
        expect![[r#"{"TableNames":[]}"#]],
    );
    check(
        r#"{"Limit":0}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ],
    );
    check(
        r#"{"Limit":101,"ExclusiveStartTableName":"*"}"#,
        expect![
            "400 ValidationException: 3 validation errors detected: Value '*' at 'exclusiveStartTableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value '*' at 'exclusiveStartTableName' failed to satisfy constraint: Member must have length greater than or equal to 3; Value '101' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 100"
        ],
    );
    check(
        r#"{"Limit":"2"}"#,
        expect!["400 SerializationException: STRING_VALUE cannot be converted to Integer"],
    );
    machine.check("DescribeTable", "{}", expect!["400 ValidationException: The parameter 'TableName' is required but was not present in the request"]);
    machine.check("DescribeTable", r#"{"TableName":"ab"}"#, expect!["400 ValidationException: TableName must be at least 3 characters long and at most 255 characters long"]);
    machine.check("DeleteTable", r#"{"TableName":"a/b"}"#, expect!["400 ValidationException: 1 validation error detected: Value 'a/b' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"]);
}
