//! For every rule a pair of answers that it explains, and one that differs from it in one place and that nothing explains: a rule
//! that takes more than it says hides what is really wrong.

mod transactions;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{PATHS_OF_KEYS, TYPE_OF_INDEX, all, explanation};
use crate::client::Answer;
use crate::compare;
use crate::requests::Request;

#[derive(Clone)]
struct Case {
    rule: &'static str,
    request: Request,
    node: Answer,
    peer: Answer,
    /// Makes the near miss of it.
    near: fn(&mut Case),
}

fn case(
    rule: &'static str,
    (operation, body): (&'static str, Value),
    [node, peer]: [Answer; 2],
    near: fn(&mut Case),
) -> Case {
    Case {
        rule,
        request: Request::new(operation, body),
        node,
        peer,
        near,
    }
}

fn ok(body: Value) -> Answer {
    Answer { status: 200, body }
}

fn refused(kind: &str, message: &str) -> Answer {
    Answer {
        status: 400,
        body: json!({"__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": message}),
    }
}

fn invalid(message: &str) -> Answer {
    refused("ValidationException", message)
}

fn unconditional() -> Answer {
    refused(
        "ConditionalCheckFailedException",
        "The conditional request failed",
    )
}

fn failed() -> Answer {
    Answer {
        status: 500,
        ..refused("InternalFailure", "")
    }
}

/// A transaction that is cancelled for these reasons.
fn cancelled(reasons: Value) -> Answer {
    let mut answer = refused("TransactionCanceledException", "Transaction cancelled");
    answer.body["CancellationReasons"] = reasons;
    answer
}

/// A reason for that.
fn reason(code: &str, message: &str) -> Value {
    json!({"Code": code, "Message": message})
}

fn failed_condition() -> Value {
    reason("ConditionalCheckFailed", "The conditional request failed")
}

/// One action of a transaction, on a table that stands.
fn action() -> Value {
    json!({"Put": {"TableName": "diff-hash", "Item": {"id": {"S": "a"}}}})
}

fn transact(actions: Value) -> (&'static str, Value) {
    ("TransactWriteItems", json!({ "TransactItems": actions }))
}

fn execute(statement: &str) -> (&'static str, Value) {
    ("ExecuteStatement", json!({ "Statement": statement }))
}

/// A transaction of these statements.
fn executes(statements: &[&str]) -> (&'static str, Value) {
    let statements: Vec<Value> = statements
        .iter()
        .map(|text| json!({ "Statement": text }))
        .collect();
    ("ExecuteTransaction", json!({ "TransactStatements": statements }))
}

/// A batch of one statement.
fn batch(statement: &str) -> (&'static str, Value) {
    (
        "BatchExecuteStatement",
        json!({"Statements": [{"Statement": statement}]}),
    )
}

fn response(response: Value) -> Answer {
    ok(json!({ "Responses": [response] }))
}

fn consumed(table: &str, units: f64) -> Answer {
    ok(json!({"ConsumedCapacity": {"TableName": table, "CapacityUnits": units}}))
}

fn all_consumed(table: &str, units: f64) -> Answer {
    ok(json!({"ConsumedCapacity": [{"TableName": table, "CapacityUnits": units}]}))
}

fn of_items() -> Vec<Case> {
    let table = "diff-hash";
    let updates =
        json!({"TableName": table, "AttributeUpdates": {"a": {"Action": "ADD", "Value": {"S": "x"}}}});
    let mut spoilt = case(
        "a member of another JSON type",
        ("GetItem", json!({"TableName": 7})),
        [refused("SerializationException", ""), invalid("wrong")],
        |case| case.request.is_spoilt = false,
    );
    spoilt.request.is_spoilt = true;
    vec![
        spoilt,
        case(
            "Local fails at a request that is wrong",
            ("UpdateTable", json!({"TableName": table})),
            [invalid("wrong"), failed()],
            |case| case.node = ok(json!({})),
        ),
        case(
            "SIZE is a reserved word",
            (
                "GetItem",
                json!({"TableName": table, "ProjectionExpression": "a, size"}),
            ),
            [
                invalid(
                    "Invalid ProjectionExpression: Attribute name is a reserved keyword; reserved keyword: size",
                ),
                ok(json!({})),
            ],
            |case| case.request.body["ProjectionExpression"] = "a, sizes".into(),
        ),
        case(
            "an update that gives an index's key attribute another type",
            ("UpdateItem", json!({"TableName": "diff-range"})),
            [
                invalid(&format!(
                    "One or more parameter values were invalid: {TYPE_OF_INDEX} size"
                )),
                ok(json!({})),
            ],
            |case| case.request.operation = "PutItem",
        ),
        case(
            "NOT_CONTAINS of an attribute that is not there, in a condition",
            (
                "PutItem",
                json!({"TableName": table, "Expected": {"a": {"ComparisonOperator": "NOT_CONTAINS"}}}),
            ),
            [ok(json!({})), unconditional()],
            |case| case.request.body["Expected"]["a"]["ComparisonOperator"] = "CONTAINS".into(),
        ),
        case(
            "NOT_CONTAINS of an attribute that is not there, in a filter",
            (
                "Scan",
                json!({"TableName": table, "ScanFilter": {"a": {"ComparisonOperator": "NOT_CONTAINS"}}}),
            ),
            [
                ok(
                    json!({"ScannedCount": 2, "Items": [{"id": {"S": "1"}}, {"id": {"S": "2"}, "a": {"S": "x"}}]}),
                ),
                ok(json!({"ScannedCount": 2, "Items": [{"id": {"S": "2"}, "a": {"S": "x"}}]})),
            ],
            |case| case.node.body["Items"][0]["a"] = json!({"S": "y"}),
        ),
        case(
            "what is wrong with AttributeUpdates is said whatever is stored",
            ("UpdateItem", updates),
            [
                invalid("One or more parameter values were invalid: ADD of S"),
                unconditional(),
            ],
            |case| case.node = invalid("The provided key element does not match the schema"),
        ),
        case(
            "what is wrong with the paths of an update is said whatever is stored",
            ("UpdateItem", json!({"TableName": table})),
            [invalid(&format!("{PATHS_OF_KEYS}a")), unconditional()],
            |case| case.node = invalid("The provided key element does not match the schema"),
        ),
        case(
            "an ADD or DELETE of another type to an index's key attribute that is not there",
            ("UpdateItem", json!({"TableName": "diff-range"})),
            [
                ok(json!({})),
                invalid("Updates on index keys must be of the same data type: size"),
            ],
            |case| case.request.operation = "PutItem",
        ),
        case(
            "the last key of a page that ends with a table's only item of that key",
            ("Query", json!({"TableName": table, "Limit": 1})),
            [
                ok(json!({"ScannedCount": 1, "Items": [], "LastEvaluatedKey": {"id": {"S": "a"}}})),
                ok(json!({"ScannedCount": 1, "Items": []})),
            ],
            |case| case.request.body["Limit"] = 2.into(),
        ),
        case(
            "a Scan of an index with a filter about attributes that it does not hold",
            (
                "Scan",
                json!({"TableName": "diff-range", "IndexName": "global-size", "FilterExpression": "a = :a"}),
            ),
            [
                ok(json!({"ScannedCount": 1, "Items": []})),
                ok(json!({"ScannedCount": 1, "Items": [{"id": {"S": "a"}}]})),
            ],
            |case| case.request.body["IndexName"] = "global-color".into(),
        ),
        case(
            "an empty text where one of several words belongs",
            (
                "GetItem",
                json!({"TableName": table, "ReturnConsumedCapacity": ""}),
            ),
            [
                invalid("1 validation error: Member must satisfy enum value set: [INDEXES, TOTAL, NONE]"),
                ok(json!({})),
            ],
            |case| case.request.body["ReturnConsumedCapacity"] = "TOTALS".into(),
        ),
        case(
            "UPDATED_OLD and UPDATED_NEW of a path into a document",
            (
                "UpdateItem",
                json!({"TableName": table, "ReturnValues": "UPDATED_NEW", "UpdateExpression": "SET doc.a = :a"}),
            ),
            [
                ok(json!({"Attributes": {"doc": {"M": {"a": {"N": "1"}}}}})),
                ok(json!({"Attributes": {"doc": {"M": {"a": {"N": "1"}, "b": {"N": "2"}}}}})),
            ],
            |case| case.node.body["Attributes"]["doc"]["M"]["a"]["N"] = "3".into(),
        ),
        case(
            "UPDATED_OLD and UPDATED_NEW of a path into a document",
            execute("UPDATE \"diff-hash\" SET doc.a = 1 WHERE id = 'a' RETURNING MODIFIED OLD *"),
            [
                ok(json!({"Items": [{}]})),
                ok(json!({"Items": [{"doc": {"M": {"b": {"N": "2"}}}}]})),
            ],
            |case| case.node.body["Items"] = json!([{"doc": {"M": {"b": {"N": "3"}}}}]),
        ),
        case(
            "one key twice, with its number in two ways",
            (
                "BatchGetItem",
                json!({"RequestItems": {"diff-range": {"Keys": [
                    {"id": {"S": "a"}, "n": {"N": "1"}}, {"id": {"S": "a"}, "n": {"N": "1.0"}},
                ]}}}),
            ),
            [
                invalid("Provided list of item keys contains duplicates"),
                ok(json!({"Responses": {}})),
            ],
            |case| case.request.body["RequestItems"]["diff-range"]["Keys"][1]["n"]["N"] = "1.5".into(),
        ),
        case(
            "an empty ExclusiveStartKey",
            ("Scan", json!({"TableName": table, "ExclusiveStartKey": {}})),
            [
                invalid("The provided starting key is invalid"),
                ok(json!({"Items": []})),
            ],
            |case| case.request.body["ExclusiveStartKey"] = json!({"id": {"S": "a"}}),
        ),
        case(
            "a start at the end of the range that is read",
            (
                "Query",
                json!({"TableName": table, "ExclusiveStartKey": {"id": {"S": "a"}}}),
            ),
            [
                ok(json!({"ScannedCount": 0, "Items": []})),
                invalid("The provided starting key does not match the range key predicate"),
            ],
            |case| case.node.body["ScannedCount"] = 1.into(),
        ),
        case(
            "what is wrong with a request about a table that is not there",
            ("GetItem", json!({"TableName": "diff-one"})),
            [invalid("wrong"), refused("ResourceNotFoundException", "")],
            |case| case.request.body["TableName"] = "diff-hash".into(),
        ),
        case(
            "no names or no values, without an expression",
            (
                "GetItem",
                json!({"TableName": table, "ExpressionAttributeNames": {}}),
            ),
            [
                invalid("ExpressionAttributeNames can only be specified when using expressions"),
                ok(json!({})),
            ],
            |case| case.request.body["ExpressionAttributeNames"] = json!({"#a": "a"}),
        ),
        case(
            super::SET_WITHOUT_ACTION,
            (
                "UpdateItem",
                json!({"TableName": table, "AttributeUpdates": {"a": {"Value": {"SS": ["x"]}}}}),
            ),
            [
                ok(json!({"Attributes": {"id": {"S": "a"}, "a": {"SS": ["x"]}}})),
                ok(json!({"Attributes": {"id": {"S": "a"}}})),
            ],
            |case| case.request.body["AttributeUpdates"]["a"]["Action"] = "PUT".into(),
        ),
    ]
}

fn of_capacity() -> Vec<Case> {
    let rule = "capacity";
    let read = json!({"TableName": "diff-hash", "ReturnConsumedCapacity": "TOTAL"});
    let write = |write: Value| {
        let body = json!({"RequestItems": {"diff-hash": [write]}, "ReturnConsumedCapacity": "TOTAL"});
        ("BatchWriteItem", body)
    };
    let mut transaction = transact(json!([{"Put": {"TableName": "diff-range"}}]));
    transaction.1["ReturnConsumedCapacity"] = "TOTAL".into();
    let update = "SET color = :c REMOVE size";
    let update =
        json!({"TableName": "diff-range", "UpdateExpression": update, "ReturnConsumedCapacity": "TOTAL"});
    let mut silent = batch("DELETE FROM \"diff-hash\" WHERE id = 'a'");
    silent.1["ReturnConsumedCapacity"] = "TOTAL".into();
    vec![
        case(
            rule,
            ("GetItem", read.clone()),
            [consumed("diff-hash", 0.5), consumed("diff-hash", 0.0)],
            |case| case.node = consumed("diff-hash", 1.0),
        ),
        // It has found something.
        case(
            rule,
            ("GetItem", read),
            [consumed("diff-hash", 0.5), consumed("diff-hash", 0.0)],
            |case| {
                for answer in [&mut case.node, &mut case.peer] {
                    answer.body["Item"] = json!({"id": {"S": "a"}});
                }
            },
        ),
        case(
            rule,
            write(json!({"DeleteRequest": {"Key": {"id": {"S": "a"}}}})),
            [all_consumed("diff-hash", 1.0), all_consumed("diff-hash", 2.0)],
            |case| {
                let item = json!({"PutRequest": {"Item": {"id": {"S": "a"}}}});
                case.request.body["RequestItems"]["diff-hash"][0] = item;
            },
        ),
        case(
            rule,
            transaction,
            [all_consumed("diff-range", 4.0), all_consumed("diff-range", 6.0)],
            |case| case.peer = all_consumed("diff-range", 7.0),
        ),
        case(
            rule,
            ("UpdateItem", update),
            [consumed("diff-range", 1.0), consumed("diff-range", 2.0)],
            |case| case.request.body["UpdateExpression"] = "SET color = :c".into(),
        ),
        case(
            rule,
            silent,
            [
                ok(
                    json!({"Responses": [{}], "ConsumedCapacity": [{"TableName": "diff-hash", "CapacityUnits": 1.0}]}),
                ),
                ok(json!({"Responses": [{}]})),
            ],
            |case| case.node.body["ConsumedCapacity"][0]["TableName"] = "diff-range".into(),
        ),
    ]
}

fn of_statements() -> Vec<Case> {
    let read = || ok(json!({"Items": []}));
    let literal = "Number overflow. Attempting to store a number with magnitude larger than supported range";
    let word_wanted = "Value 'ALL' at 'returnValuesOnConditionCheckFailure' failed to satisfy constraint: Member must satisfy enum \
                       value set: [ALL_OLD, NONE]";
    let no_parameters = "Value '[]' at 'parameters' failed to satisfy constraint: Member must have length greater than or equal to 1";
    vec![
        case(
            "Local fails at a SELECT",
            execute("SELECT * FROM \"diff-hash\""),
            [read(), failed()],
            |case| case.request.body["Statement"] = "DELETE FROM \"diff-hash\" WHERE id = 'a'".into(),
        ),
        case(
            "alternatives of a WHERE clause that share a key",
            execute("SELECT * FROM \"diff-hash\" WHERE id IN ['a', 'a']"),
            [
                invalid("Overlapping conditions with range keys are not supported"),
                read(),
            ],
            |case| case.request.body["Statement"] = "SELECT * FROM \"diff-hash\" WHERE id = 'a'".into(),
        ),
        case(
            "an ORDER BY of several partition keys that does not name it",
            execute("SELECT * FROM \"diff-range\" WHERE id IN ['a', 'b'] ORDER BY n"),
            [invalid("Must have hash key in ORDER BY clause"), read()],
            |case| {
                case.request.body["Statement"] =
                    "SELECT * FROM \"diff-range\" WHERE id = 'a' ORDER BY n".into()
            },
        ),
        case(
            "a SELECT of an index with a filter about attributes that it does not hold",
            execute("SELECT * FROM \"diff-range\".\"global-size\" WHERE a = 1"),
            [
                invalid("Index global-size does not project one or more filter attributes"),
                read(),
            ],
            |case| {
                case.request.body["Statement"] =
                    "SELECT * FROM \"diff-range\".\"global-color\" WHERE a = 1".into()
            },
        ),
        case(
            "a WHERE clause that compares a key with a value of another type",
            execute("SELECT * FROM \"diff-hash\" WHERE id = 1"),
            [
                read(),
                invalid("Condition parameter type does not match schema type"),
            ],
            |case| case.peer.body["message"] = "Statement wasn't well formed".into(),
        ),
        case(
            "an ORDER BY of the partition key alone",
            execute("SELECT * FROM \"diff-range\" WHERE id = 'a' ORDER BY id DESC"),
            [
                ok(json!({"Items": [{"n": {"N": "2"}}, {"n": {"N": "1"}}]})),
                ok(json!({"Items": [{"n": {"N": "1"}}, {"n": {"N": "2"}}]})),
            ],
            |case| {
                case.request.body["Statement"] =
                    "SELECT * FROM \"diff-range\" WHERE id = 'a' ORDER BY n DESC".into()
            },
        ),
        case(
            "a statement with a keyword of PartiQL as a name",
            execute("SELECT list FROM \"diff-hash\""),
            [
                read(),
                invalid("Statement wasn't well formed, can't be processed"),
            ],
            |case| case.request.body["Statement"] = "SELECT \"list\" FROM \"diff-hash\"".into(),
        ),
        case(
            "ReturnValuesOnConditionCheckFailure of a statement that reads",
            execute("SELECT * FROM \"diff-hash\""),
            [invalid(word_wanted), read()],
            |case| case.node = invalid("'returnConsumedCapacity' failed to satisfy constraint"),
        ),
        case(
            "a parameter of a batch's statement that no value can be",
            batch("SELECT * FROM \"diff-hash\" WHERE id = ?"),
            [
                response(json!({"Error": {"Code": "ValidationError", "Message": literal}})),
                invalid(literal),
            ],
            |case| case.peer = invalid("Transactions are not supported"),
        ),
        case(
            "an empty list of parameters",
            (
                "ExecuteStatement",
                json!({"Statement": "SELECT * FROM \"diff-hash\"", "Parameters": []}),
            ),
            [invalid(no_parameters), read()],
            |case| case.request.body["Parameters"] = json!([{"S": "a"}]),
        ),
        case(
            "a batch that reads and writes, with a literal that no value can be",
            batch("SELECT * FROM \"diff-hash\" WHERE id = 'a'"),
            [
                response(json!({"Error": {"Code": "ValidationError", "Message": "wrong"}})),
                invalid("Read and write requests together are not supported"),
            ],
            |case| case.node = response(json!({"Item": {}})),
        ),
    ]
}

fn of_tables() -> Vec<Case> {
    let table = "diff-one";
    let indexes = |change: Value| {
        let body = json!({"TableName": table, "GlobalSecondaryIndexUpdates": [change]});
        ("UpdateTable", body)
    };
    let throughput = |reads: u64| json!({"ReadCapacityUnits": reads, "WriteCapacityUnits": 1});
    let update =
        |reads: u64| json!({"Update": {"IndexName": "i", "ProvisionedThroughput": throughput(reads)}});
    let done = || ok(json!({}));
    vec![
        case(
            "an empty list of indexes",
            (
                "CreateTable",
                json!({"TableName": table, "GlobalSecondaryIndexes": []}),
            ),
            [invalid("List of GlobalSecondaryIndexes is empty"), done()],
            |case| case.request.body["GlobalSecondaryIndexes"] = json!([{"IndexName": "i"}]),
        ),
        case(
            "throughput of a table that is paid per request",
            (
                "CreateTable",
                json!({"TableName": table, "ProvisionedThroughput": throughput(1)}),
            ),
            [
                invalid("Neither can be specified when BillingMode is PAY_PER_REQUEST"),
                done(),
            ],
            |case| case.request.body["ProvisionedThroughput"] = Value::Null,
        ),
        case(
            "a change of a table beside its protection",
            (
                "UpdateTable",
                json!({"TableName": table, "DeletionProtectionEnabled": true, "BillingMode": "PAY_PER_REQUEST"}),
            ),
            [
                invalid("DeletionProtection modification must be the only operation in the request"),
                done(),
            ],
            |case| case.request.body = json!({"TableName": "diff-one", "DeletionProtectionEnabled": true}),
        ),
        case(
            "throughput of an index of a table that is paid per request",
            indexes(update(1)),
            [
                invalid("ProvisionedThroughput should not be specified for index: i"),
                done(),
            ],
            |case| {
                let update = &mut case.request.body["GlobalSecondaryIndexUpdates"][0]["Update"];
                update["ProvisionedThroughput"] = Value::Null;
            },
        ),
        case(
            "no throughput for an index of a table that is paid per request",
            indexes(update(0)),
            [
                invalid(
                    "Value '0' at 'provisionedThroughput.readCapacityUnits': Member must have value greater than or equal to 1",
                ),
                done(),
            ],
            |case| {
                let update = &mut case.request.body["GlobalSecondaryIndexUpdates"][0]["Update"];
                update["ProvisionedThroughput"]["ReadCapacityUnits"] = 1.into();
            },
        ),
        case(
            "throughput for an index that is not there",
            indexes(update(1)),
            [
                refused(
                    "ResourceNotFoundException",
                    "Requested resource not found: Index i",
                ),
                invalid("Invalid global secondary index name"),
            ],
            |case| {
                case.request.body["GlobalSecondaryIndexUpdates"] = json!([{"Delete": {"IndexName": "i"}}]);
            },
        ),
        case(
            "the billing mode that a table has, without throughput",
            (
                "UpdateTable",
                json!({"TableName": table, "BillingMode": "PROVISIONED"}),
            ),
            [
                invalid("ProvisionedThroughput must be specified when BillingMode is PROVISIONED"),
                done(),
            ],
            |case| case.request.body["ProvisionedThroughput"] = json!({"ReadCapacityUnits": 1}),
        ),
        case(
            "the stream of a deleted table",
            (
                "GetRecords",
                json!({"TableName": table, crate::tables::HAD_STREAM: false}),
            ),
            [done(), ok(json!({"Records": [{"eventName": "INSERT"}]}))],
            |case| case.request.body[crate::tables::HAD_STREAM] = true.into(),
        ),
        case(
            "tags",
            ("TagResource", json!({"ResourceArn": "arn of diff-one"})),
            [
                done(),
                invalid("Tagging is not currently supported in DynamoDB Local."),
            ],
            |case| case.peer.body["message"] = "Too many tags".into(),
        ),
    ]
}

fn cases() -> Vec<Case> {
    let lists = [
        of_items(),
        of_capacity(),
        of_statements(),
        transactions::of_reasons(),
        transactions::of_responses(),
        transactions::of_whole(),
        of_tables(),
    ];
    lists.into_iter().flatten().collect()
}

#[test]
fn a_rule_explains_what_it_says_and_nothing_beside_it() {
    for mut case in cases() {
        let mut rules = all().filter(|known| known.name == case.rule);
        let rule = rules.next().unwrap_or_else(|| panic!("no rule {:?}", case.rule));
        let differs = |case: &Case| compare::difference(&case.request, &case.node, &case.peer).is_some();
        assert!(differs(&case), "{}: there is nothing to explain", case.rule);
        assert!(
            (rule.is)(&case.request, &case.node, &case.peer),
            "{}: not explained",
            case.rule
        );
        (case.near)(&mut case);
        let (request, node, peer) = (&case.request, &case.node, &case.peer);
        assert!(differs(&case), "{}: the near miss is none", case.rule);
        assert_eq!(
            explanation(request, node, peer),
            None,
            "{}: {} {}\n{node}\n{peer}",
            case.rule,
            request.operation,
            request.body
        );
    }
}

#[test]
fn every_rule_has_a_near_miss() {
    let tried: BTreeSet<&str> = cases().iter().map(|case| case.rule).collect();
    let rules: Vec<&str> = all().map(|known| known.name).collect();
    let unique: BTreeSet<&str> = rules.iter().copied().collect();
    assert_eq!(unique.len(), rules.len(), "two rules of one name");
    assert_eq!(tried, unique);
}
