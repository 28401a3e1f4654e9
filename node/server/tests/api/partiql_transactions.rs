//! ExecuteTransaction.

use expect_test::expect;

use crate::Machine;

fn machine(seed: u64) -> Machine {
    let machine = Machine::new(seed, 3);
    machine.create("things", &[("pk", "S")]);
    machine.create("pairs", &[("pk", "S"), ("sk", "N")]);
    machine
}

fn statements(statements: &[&str]) -> String {
    let texts = statements
        .iter()
        .map(|text| serde_json::json!({ "Statement": text }));
    serde_json::json!({ "TransactStatements": texts.collect::<Vec<_>>() }).to_string()
}

#[test]
fn statements_that_write_are_carried_out_together() {
    let machine = machine(720);
    machine.check(
        "ExecuteTransaction",
        &statements(&[
            "INSERT INTO things VALUE {'pk': 'a', 'n': 1}",
            "INSERT INTO pairs VALUE {'pk': 'p', 'sk': 1, 'n': 1}",
        ]),
        expect![[r#"{"Responses":[]}"#]],
    );
    let body = r#"{"TransactStatements":[
        {"Statement":"EXISTS(SELECT * FROM things WHERE pk = 'a' AND n = ?)","Parameters":[{"N":"1"}]},
        {"Statement":"UPDATE pairs SET n = n + 1 WHERE pk = 'p' AND sk = 1"},
        {"Statement":"DELETE FROM things WHERE pk = 'none'"},
        {"Statement":"INSERT INTO things VALUE {'pk': ?}","Parameters":[{"S":"b"}]}
    ],"ReturnConsumedCapacity":"TOTAL","ClientRequestToken":"token"}"#;
    machine.check("ExecuteTransaction", body, expect![[r#"{"ConsumedCapacity":[{"TableName":"things","CapacityUnits":6.0,"WriteCapacityUnits":6.0},{"TableName":"pairs","CapacityUnits":2.0,"WriteCapacityUnits":2.0}],"Responses":[]}"#]]);
    machine.check("ExecuteTransaction", body, expect![[r#"{"ConsumedCapacity":[{"TableName":"things","CapacityUnits":6.0,"ReadCapacityUnits":6.0},{"TableName":"pairs","CapacityUnits":2.0,"ReadCapacityUnits":2.0}],"Responses":[]}"#]]);
    machine.check(
        "ExecuteTransaction",
        &body.replace("n + 1", "n + 2"),
        expect!["400 IdempotentParameterMismatchException: DynamoDB rejected the request because you retried a request with a different payload but with an idempotent token that was already used"],
    );
    machine.check(
        "ExecuteTransaction",
        &statements(&[
            "SELECT * FROM things WHERE pk = 'a'",
            "SELECT n FROM pairs WHERE pk = 'p' AND sk = 1",
            "SELECT * FROM things WHERE pk = 'none'",
        ])
        .replace("}]}", r#"}],"ReturnConsumedCapacity":"INDEXES"}"#),
        expect![[r#"{"ConsumedCapacity":[{"TableName":"things","CapacityUnits":4.0,"ReadCapacityUnits":4.0,"Table":{"CapacityUnits":4.0,"ReadCapacityUnits":4.0}},{"TableName":"pairs","CapacityUnits":2.0,"ReadCapacityUnits":2.0,"Table":{"CapacityUnits":2.0,"ReadCapacityUnits":2.0}}],"Responses":[{"Item":{"n":{"N":"1"},"pk":{"S":"a"}}},{"Item":{"n":{"N":"2"}}},{}]}"#]],
    );
    // One is refused: nothing is done.
    machine.check(
        "ExecuteTransaction",
        &statements(&[
            "INSERT INTO things VALUE {'pk': 'a'}",
            "INSERT INTO things VALUE {'pk': 'c'}",
            "EXISTS(SELECT * FROM things WHERE pk = 'b' AND n = 1)",
            "UPDATE pairs SET n = m + 1 WHERE pk = 'p' AND sk = 1",
            "UPDATE absent SET n = 1 WHERE pk = 'p'",
            // Alone it passes.
            "DELETE FROM things WHERE pk = 'none' AND n = 1",
            "DELETE FROM things WHERE pk = 'nothing'",
        ]),
        expect![[r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [DuplicateItem, None, ConditionalCheckFailed, ValidationError, ResourceNotFound, ConditionalCheckFailed, None] "CancellationReasons":[{"Code":"DuplicateItem","Message":"Duplicate primary key exists in table"},{"Code":"None"},{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},{"Code":"ValidationError","Message":"The provided expression refers to an attribute that does not exist in the item"},{"Code":"ResourceNotFound","Message":"Requested resource not found"},{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"},{"Code":"None"}]"#]],
    );
    machine.check(
        "GetItem",
        r#"{"TableName":"things","Key":{"pk":{"S":"c"}}}"#,
        expect![["{}"]],
    );
}

#[test]
fn what_is_wrong_with_statements_is_said_in_order() {
    let machine = machine(721);
    for (body, expected) in [
        (
            "{}".to_owned(),
            expect![
                "400 ValidationException: 1 validation error detected: Value null at 'transactStatements' failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            r#"{"TransactStatements":[]}"#.to_owned(),
            expect![
                "400 ValidationException: 1 validation error detected: Value '[]' at 'transactStatements' failed to satisfy constraint: Member must have length greater than or equal to 1"
            ],
        ),
        (
            r#"{"TransactStatements":[{"Statement":"","Parameters":[]}],"ReturnConsumedCapacity":"x"}"#
                .to_owned(),
            expect![
                "400 ValidationException: 3 validation errors detected: Value '' at 'transactStatements.1.member.statement' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '[]' at 'transactStatements.1.member.parameters' failed to satisfy constraint: Member must have length greater than or equal to 1; Value 'x' at 'returnConsumedCapacity' failed to satisfy constraint: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]"
            ],
        ),
        (
            statements(&["DELETE FROM things WHERE pk = 'a'", "SELEC"]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[1]: Unsupported operation: Id"
            ],
        ),
        (
            statements(&["DELETE FROM things WHERE pk = 'a' RETURNING ALL OLD *"]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[0]: RETURNING clause is not supported in ExecuteTransaction."
            ],
        ),
        (
            statements(&[r#"SELECT * FROM "things"."i" WHERE pk = 'a'"#]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[0]: Reads on indices are not supported within transactions."
            ],
        ),
        (
            statements(&[
                "SELECT * FROM things WHERE pk = 'a'",
                "DELETE FROM things WHERE pk = 'b'",
            ]),
            expect![
                "400 ValidationException: ExecuteTransaction API does not support both read and write operations in the same request."
            ],
        ),
        (
            statements(&["SELECT * FROM things WHERE n = 1"]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[0]: Select statements within ExecuteTransaction must specify the primary key in the where clause."
            ],
        ),
        (
            statements(&[
                "SELECT * FROM things WHERE pk = 'a'",
                "SELECT * FROM things WHERE pk = 'a'",
            ]),
            expect![
                "400 ValidationException: Transaction request cannot include multiple operations on one item"
            ],
        ),
        (
            statements(&[
                "DELETE FROM things WHERE pk = 'a'",
                "UPDATE things SET n = 1 WHERE pk = 'a'",
            ]),
            expect![
                "400 ValidationException: Transaction request cannot include multiple operations on one item"
            ],
        ),
        (
            statements(&[
                "SELECT * FROM absent WHERE pk = 'a'",
                "SELECT * FROM things WHERE pk = 'a'",
            ]),
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ResourceNotFound, None] "CancellationReasons":[{"Code":"ResourceNotFound","Message":"Requested resource not found"},{"Code":"None"}]"#
            ]],
        ),
        (
            statements(&["SELECT * FROM things WHERE pk = 1"]),
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError] "CancellationReasons":[{"Code":"ValidationError","Message":"The provided key element does not match the schema"}]"#
            ]],
        ),
        (
            statements(&[
                "DELETE FROM things WHERE pk = 1",
                "INSERT INTO things VALUE {'pk': 'a'}",
            ]),
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError, None] "CancellationReasons":[{"Code":"ValidationError","Message":"The provided key element does not match the schema"},{"Code":"None"}]"#
            ]],
        ),
        (
            statements(&["DELETE FROM things WHERE pk = {'a': 1}"]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[0]: Key value must be of type S, N, or B. Key name: pk, Key type: M"
            ],
        ),
        (
            statements(&["INSERT INTO things VALUE {'pk': 1}"]),
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError] "CancellationReasons":[{"Code":"ValidationError","Message":"One or more parameter values were invalid: Type mismatch for key pk expected: S actual: N"}]"#
            ]],
        ),
        (
            statements(&["DELETE FROM things WHERE n = 1"]),
            expect![[
                r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError] "CancellationReasons":[{"Code":"ValidationError","Message":"Where clause does not contain a mandatory equality on all key attributes"}]"#
            ]],
        ),
        (
            statements(&[
                "EXISTS(SELECT * FROM things WHERE pk = 'a' AND pk.x = 1)",
                "DELETE FROM things WHERE pk = 'a'",
            ]),
            expect![
                "400 ValidationException: Transaction request cannot include multiple operations on one item"
            ],
        ),
        (
            statements(&["EXISTS(SELECT * FROM things WHERE n = 1)"]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[0]: EXISTS() must contain a single item read with additional condition"
            ],
        ),
        (
            statements(&["EXISTS(SELECT n FROM things WHERE pk = 'a')"]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[0]: EXISTS takes SELECT * of a table with a WHERE clause"
            ],
        ),
        (
            statements(&["EXISTS(SELECT * FROM things WHERE pk = 'a'"]),
            expect![
                "400 ValidationException: Validation failed in TransactStatements[0]: Statement wasn't well formed, can't be processed: Expected RIGHT_PAREN"
            ],
        ),
    ] {
        machine.check("ExecuteTransaction", &body, expected);
    }
    machine.check(
        "ExecuteStatement",
        r#"{"Statement":"EXISTS(SELECT * FROM things WHERE pk = 'a')"}"#,
        expect!["400 ValidationException: EXISTS can only be used in ExecuteTransaction write requests."],
    );
    machine.check(
        "BatchExecuteStatement",
        r#"{"Statements":[{"Statement":"EXISTS(SELECT * FROM things WHERE pk = 'a')"}]}"#,
        expect![[r#"{"Responses":[{"Error":{"Code":"ValidationError","Message":"EXISTS can only be used in ExecuteTransaction write requests."}}]}"#]],
    );
}

/// The key of an index is checked before it is known whether the item is there, and by every way to insert it.
#[test]
fn an_insert_has_keys_of_indexes_that_can_be() {
    let machine = machine(727);
    machine.ok(
        "CreateTable",
        r#"{"TableName":"indexed","AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"},{"AttributeName":"color","AttributeType":"S"}],
            "KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST","GlobalSecondaryIndexes":[
            {"IndexName":"by-color","KeySchema":[{"AttributeName":"color","KeyType":"HASH"}],"Projection":{"ProjectionType":"ALL"}}]}"#,
    );
    machine.ok(
        "PutItem",
        r#"{"TableName":"indexed","Item":{"pk":{"S":"there"}}}"#,
    );
    for key in ["there", "new"] {
        machine.check(
            "ExecuteTransaction",
            &statements(&[&format!(
                "INSERT INTO indexed VALUE {{'pk': '{key}', 'color': 1}}"
            )]),
            expect![[r#"400 TransactionCanceledException: Transaction cancelled, please refer cancellation reasons for specific reasons [ValidationError] "CancellationReasons":[{"Code":"ValidationError","Message":"One or more parameter values were invalid: Type mismatch for Index Key color Expected: S Actual: N IndexName: by-color"}]"#]],
        );
        machine.check(
            "ExecuteStatement",
            &format!(r#"{{"Statement":"INSERT INTO indexed VALUE {{'pk': '{key}', 'color': 1}}"}}"#),
            expect!["400 ValidationException: One or more parameter values were invalid: Type mismatch for Index Key color Expected: S Actual: N IndexName: by-color"],
        );
    }
    machine.check(
        "Scan",
        r#"{"TableName":"indexed"}"#,
        expect![[r#"{"Count":1,"Items":[{"pk":{"S":"there"}}],"ScannedCount":1}"#]],
    );
}
