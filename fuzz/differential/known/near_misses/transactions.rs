//! Of the rules about transactions and batches.

use serde_json::{Value, json};

use super::{
    Case, PATHS_OF_KEYS, TYPE_OF_INDEX, action, batch, cancelled, case, executes, failed_condition, invalid,
    ok, reason, refused, response, transact,
};

pub(super) fn of_reasons() -> Vec<Case> {
    let update = "UPDATE \"diff-hash\" SET a = 1 WHERE id = 'a'";
    let exists = "EXISTS(SELECT * FROM \"diff-hash\" WHERE id = 'a' AND a = 1)";
    let delete = "DELETE FROM \"diff-hash\" WHERE id = 'a' AND a = 1";
    let item = |n: &str| json!({"id": {"S": "a"}, "n": {"N": n}});
    let with_item = |n: &str| {
        let mut reason = failed_condition();
        reason["Item"] = item(n);
        reason
    };
    let none = || json!({"Code": "None"});
    let path = format!("{PATHS_OF_KEYS}size");
    let index = format!("One or more parameter values were invalid: {TYPE_OF_INDEX} size");
    vec![
        case(
            "an INSERT of an item that is there, in a transaction",
            executes(&["INSERT INTO \"diff-hash\" VALUE {'id': 'a'}"]),
            [
                cancelled(json!([reason("DuplicateItem", "Duplicate")])),
                cancelled(json!([reason("ValidationError", "Duplicate")])),
            ],
            |case| case.node.body["CancellationReasons"][0]["Code"] = "TransactionConflict".into(),
        ),
        case(
            "the reasons of a cancellation beside an item that is wrong",
            transact(json!([action(), action()])),
            [
                cancelled(json!([reason("ValidationError", "wrong"), failed_condition()])),
                cancelled(json!([reason("ValidationError", "wrong"), none()])),
            ],
            |case| {
                for answer in [&mut case.node, &mut case.peer] {
                    answer.body["CancellationReasons"][0] = json!({"Code": "None"});
                }
            },
        ),
        case(
            "a DELETE with a condition of an item that is not there, in a cancelled ExecuteTransaction",
            executes(&[delete, update]),
            [
                cancelled(json!([failed_condition(), failed_condition()])),
                cancelled(json!([none(), failed_condition()])),
            ],
            |case| case.node.body["CancellationReasons"][0]["Item"] = json!({"id": {"S": "a"}}),
        ),
        case(
            "the item of an EXISTS that is false",
            executes(&[exists]),
            [
                cancelled(json!([with_item("1")])),
                cancelled(json!([failed_condition()])),
            ],
            |case| case.peer.body["CancellationReasons"][0]["Item"] = json!({"id": {"S": "b"}}),
        ),
        case(
            "an EXISTS that is wrong",
            executes(&[exists]),
            [
                cancelled(json!([reason("ValidationError", "wrong")])),
                cancelled(json!([failed_condition()])),
            ],
            |case| {
                let delete = "DELETE FROM \"diff-hash\" WHERE id = 'a'";
                case.request.body["TransactStatements"][0]["Statement"] = delete.into();
            },
        ),
        case(
            "a path into a key of an index, in a part of a transaction or batch",
            transact(json!([action()])),
            [
                cancelled(json!([reason("ValidationError", &path)])),
                ok(json!({})),
            ],
            |case| case.node.body["CancellationReasons"][0]["Message"] = "wrong".into(),
        ),
        case(
            "an update that gives an index's key attribute another type, in a part of a transaction or batch",
            transact(json!([action()])),
            [
                cancelled(json!([reason("ValidationError", &index)])),
                ok(json!({})),
            ],
            |case| case.node.body["CancellationReasons"][0]["Message"] = "Type mismatch for key id".into(),
        ),
    ]
}

pub(super) fn of_responses() -> Vec<Case> {
    let named = |item: Value| json!({"TableName": "diff-hash", "Item": item});
    let failed = |code: &str| json!({"Error": {"Code": code, "Message": "it failed"}});
    let mut wants_item = batch("DELETE FROM \"diff-hash\" WHERE id = 'a' AND a = 1");
    wants_item.1["Statements"][0]["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD".into();
    let mut with_table = failed("ValidationError");
    with_table["TableName"] = "diff-hash".into();
    let mut with_item = failed("ConditionalCheckFailed");
    with_item["Error"]["Item"] = json!({"id": {"S": "a"}});
    let malformed = json!({"Error": {"Code": "ValidationError", "Message": "Statement wasn't well formed, can't be processed"}});
    vec![
        case(
            "names of what a statement reads, in a batch or a transaction",
            batch("SELECT doc.a FROM \"diff-hash\" WHERE id = 'a'"),
            [
                response(named(json!({"a": {"N": "1"}}))),
                response(named(json!({"doc": {"M": {"a": {"N": "1"}}}}))),
            ],
            |case| case.peer.body["Responses"][0]["Item"]["doc"]["M"]["a"]["N"] = "2".into(),
        ),
        case(
            "the table's name beside a ValidationError of a batch",
            batch("DELETE FROM \"diff-hash\" WHERE id = 'a'"),
            [response(failed("ValidationError")), response(with_table)],
            |case| case.node.body["Responses"][0]["TableName"] = "diff-range".into(),
        ),
        case(
            "the item of a condition that is false, in a batch of statements",
            wants_item,
            [response(failed("ConditionalCheckFailed")), response(with_item)],
            |case| {
                case.request.body["Statements"][0]["ReturnValuesOnConditionCheckFailure"] = "NONE".into();
            },
        ),
        case(
            "RETURNING MODIFIED of a path, in a batch of statements",
            batch("UPDATE \"diff-hash\" SET doc.a = 1 WHERE id = 'a' RETURNING MODIFIED NEW *"),
            [
                response(named(json!({"doc": {"M": {"a": {"N": "1"}}}}))),
                response(named(json!({"doc": {"M": {"a": {"N": "1"}, "b": {"N": "2"}}}}))),
            ],
            |case| case.node.body["Responses"][0]["Item"]["doc"]["M"]["a"]["N"] = "3".into(),
        ),
        case(
            "a statement of a batch with a keyword of PartiQL as a name",
            batch("SELECT size FROM \"diff-hash\" WHERE id = 'a'"),
            [response(named(json!({}))), response(malformed)],
            |case| {
                let quoted = "SELECT \"size\" FROM \"diff-hash\" WHERE id = 'a'";
                case.request.body["Statements"][0]["Statement"] = quoted.into();
            },
        ),
    ]
}

pub(super) fn of_whole() -> Vec<Case> {
    let several = "Transaction request cannot include multiple operations on one item";
    let key = "The provided key element does not match the schema";
    let mismatch = || refused("IdempotentParameterMismatchException", "");
    let cancelled_in_words = |message: &str| refused("TransactionCanceledException", message);
    let wrong_key = || cancelled(json!([reason("ValidationError", key)]));
    let gets = |table: &str| {
        let get = json!({"Get": {"TableName": table, "Key": {"id": {"S": "a"}}}});
        ("TransactGetItems", json!({ "TransactItems": [get] }))
    };
    let with = |member: &str, value: Value| {
        let (operation, mut body) = transact(json!([action()]));
        body[member] = value;
        (operation, body)
    };
    let condition_failed = || cancelled(json!([failed_condition()]));
    let empty_key = json!([{"Delete": {"TableName": "diff-hash", "Key": {"id": {"S": ""}}}}]);
    let bare = json!([{"Delete": {"TableName": "diff-hash", "ExpressionAttributeNames": {"#a": "a"}}}]);
    let passing = json!([{"Put": {"TableName": "diff-one", "Item": {"id": {"S": "a"}}}}]);
    let mut shared_token = case(
        "one token for TransactWriteItems and ExecuteTransaction",
        with("ClientRequestToken", "a".into()),
        [ok(json!({})), mismatch()],
        |case| case.request.is_spoilt = false,
    );
    shared_token.request.is_spoilt = true;
    vec![
        shared_token,
        case(
            "reasons that Local does not give",
            gets("diff-hash"),
            [
                wrong_key(),
                cancelled_in_words("The number of conditions on the keys is invalid"),
            ],
            |case| case.peer.body["message"] = "Invalid KeyConditionExpression".into(),
        ),
        case(
            "a key of another type in a statement of a transaction",
            executes(&["DELETE FROM \"diff-hash\" WHERE id = 1"]),
            [
                wrong_key(),
                cancelled_in_words(
                    "ValidationError Where clause does not contain a mandatory equality on all key attributes",
                ),
            ],
            |case| case.node.body["CancellationReasons"][0]["Message"] = "wrong".into(),
        ),
        case(
            "a request that is wrong in itself, with items that have something against it",
            transact(json!([action()])),
            [
                invalid("Invalid UpdateExpression: Syntax error"),
                condition_failed(),
            ],
            |case| case.node.body["message"] = "The provided key element does not match the schema".into(),
        ),
        case(
            "an empty key of another type, in a transaction",
            transact(empty_key),
            [invalid(key), condition_failed()],
            |case| case.request.body["TransactItems"][0]["Delete"]["Key"]["id"]["S"] = "a".into(),
        ),
        case(
            "two actions on one item, with items that have something against them",
            transact(json!([action(), action()])),
            [
                invalid(several),
                cancelled(json!([failed_condition(), failed_condition()])),
            ],
            |case| case.request.operation = "TransactGetItems",
        ),
        case(
            "two reads of one item beside a key that is wrong",
            gets("diff-hash"),
            [wrong_key(), invalid(several)],
            |case| case.node.body["CancellationReasons"][0]["Code"] = "TransactionConflict".into(),
        ),
        case(
            "names or values without an expression, in a transaction",
            transact(bare),
            [
                ok(json!({})),
                invalid("ExpressionAttributeNames can only be specified when using expressions"),
            ],
            |case| case.request.body["TransactItems"][0]["Delete"]["ConditionExpression"] = "#a = #a".into(),
        ),
        case(
            "a table that is not there, in a transaction with items that have something against it",
            transact(passing),
            [refused("ResourceNotFoundException", ""), condition_failed()],
            |case| case.request.body["TransactItems"][0]["Put"]["TableName"] = "diff-hash".into(),
        ),
        case(
            "a token that was used, for a request whose items cannot be",
            with("ClientRequestToken", "token-1".into()),
            [invalid("wrong"), mismatch()],
            |case| case.node = ok(json!({})),
        ),
        case(
            "an empty token",
            with("ClientRequestToken", "".into()),
            [
                invalid(
                    "Value '' at 'clientRequestToken' failed to satisfy constraint: Member must have length",
                ),
                ok(json!({})),
            ],
            |case| case.request.body["ClientRequestToken"] = "token-1".into(),
        ),
        case(
            "a table's name that is too short, in a transaction",
            gets("ab"),
            [
                refused("ResourceNotFoundException", ""),
                invalid("Invalid table/index name. Names are 3 to 255"),
            ],
            |case| case.request.body["TransactItems"][0]["Get"]["TableName"] = "diff-hash".into(),
        ),
        case(
            "what a transaction's items or tables have against it is a reason for its cancellation",
            transact(json!([action()])),
            [
                wrong_key(),
                invalid("The number of conditions on the keys is invalid"),
            ],
            |case| case.node.body["CancellationReasons"][0]["Code"] = "TransactionConflict".into(),
        ),
        case(
            "several things wrong with a transaction, of which each tells another",
            transact(json!([action()])),
            [invalid("wrong"), wrong_key()],
            |case| case.peer.body["CancellationReasons"][0]["Code"] = "ConditionalCheckFailed".into(),
        ),
    ]
}
