//! Transactions and batches of statements: each part has an outcome, and each pair of outcomes that differs has its own cause.

use serde_json::Value;

use super::shape::{
    errors, has, is_part, list, members, names_passing_table, parts, scalars, statement, text,
};
use super::{Known, PATHS_OF_KEYS, TYPE_OF_INDEX};
use crate::client::Answer;
use crate::compare::ordered;
use crate::requests::Request;

const DUPLICATE: &str = "an INSERT of an item that is there, in a transaction";
const BESIDE: &str = "the reasons of a cancellation beside an item that is wrong";
const DELETE: &str =
    "a DELETE with a condition of an item that is not there, in a cancelled ExecuteTransaction";
const EXISTS_ITEM: &str = "the item of an EXISTS that is false";
const EXISTS_WRONG: &str = "an EXISTS that is wrong";
const PATH: &str = "a path into a key of an index, in a part of a transaction or batch";
const INDEX_TYPE: &str =
    "an update that gives an index's key attribute another type, in a part of a transaction or batch";
const NAMES: &str = "names of what a statement reads, in a batch or a transaction";
const TABLE_NAME: &str = "the table's name beside a ValidationError of a batch";
const BATCH_ITEM: &str = "the item of a condition that is false, in a batch of statements";
const MODIFIED: &str = "RETURNING MODIFIED of a path, in a batch of statements";
const KEYWORD: &str = "a statement of a batch with a keyword of PartiQL as a name";

/// The words for two parts of a transaction that are about one item.
const SEVERAL: &str = "Transaction request cannot include multiple operations on one item";

pub(super) static RULES: &[Known] = &[
    Known {
        name: DUPLICATE,
        source: "newer capture: the reason is DuplicateItem; Local: ValidationError",
        is: |request, node, peer| is_caused(request, node, peer, DUPLICATE),
    },
    Known {
        name: BESIDE,
        source: "newer capture: every item has its reason; Local does not look at the others when one is wrong",
        is: |request, node, peer| is_caused(request, node, peer, BESIDE),
    },
    Known {
        name: DELETE,
        source: "newer capture: ConditionalCheckFailed; Local: None",
        is: |request, node, peer| is_caused(request, node, peer, DELETE),
    },
    Known {
        name: EXISTS_ITEM,
        source: "service model: ReturnValuesOnConditionCheckFailure is a statement's; Local leaves it out",
        is: |request, node, peer| is_caused(request, node, peer, EXISTS_ITEM),
    },
    Known {
        name: EXISTS_WRONG,
        source: "newer capture: the reason is ValidationError; Local evaluates it, and it is false",
        is: |request, node, peer| is_caused(request, node, peer, EXISTS_WRONG),
    },
    Known {
        name: PATH,
        source: "Local refuses it everywhere else, and here only when it judges the condition",
        is: |request, node, peer| is_caused(request, node, peer, PATH),
    },
    Known {
        name: INDEX_TYPE,
        source: "nubo-db/dynoxide, and the live service for PutItem: refused; Local stores it",
        is: |request, node, peer| is_caused(request, node, peer, INDEX_TYPE),
    },
    Known {
        name: NAMES,
        source: "newer capture: as ExecuteStatement has them; Local: as a projection has them",
        is: |request, node, peer| is_caused(request, node, peer, NAMES),
    },
    Known {
        name: TABLE_NAME,
        source: "newer capture: it is not there; Local has it when the item has something against the statement",
        is: |request, node, peer| is_caused(request, node, peer, TABLE_NAME),
    },
    Known {
        name: BATCH_ITEM,
        source: "newer capture: the live service takes ReturnValuesOnConditionCheckFailure in a batch and never tells the item",
        is: |request, node, peer| is_caused(request, node, peer, BATCH_ITEM),
    },
    Known {
        name: MODIFIED,
        source: "documentation: what was updated; Local answers with the whole attribute",
        is: |request, node, peer| is_caused(request, node, peer, MODIFIED),
    },
    Known {
        name: KEYWORD,
        source: "nubo-db/dynoxide takes it; Local refuses `list` and `size` as names without quotation marks",
        is: |request, node, peer| is_caused(request, node, peer, KEYWORD),
    },
    Known {
        name: "reasons that Local does not give",
        source: "documentation: every TransactionCanceledException has them; Local leaves them out when a key is wrong",
        is: |request, node, peer| {
            let words = peer.message();
            let words = words.strip_prefix("ValidationError ").unwrap_or(words);
            let cancelled = "TransactionCanceledException";
            ["TransactGetItems", "ExecuteTransaction"].contains(&request.operation)
                && errors(node, peer, [cancelled, cancelled])
                && peer.body["CancellationReasons"].is_null()
                && only_reasons(node, |reason| same_words(text(&reason["Message"]), words))
        },
    },
    Known {
        name: "a key of another type in a statement of a transaction",
        source: "newer capture for actions: a reason; Local: a WHERE clause that lacks a key, and no reasons",
        is: |request, node, peer| {
            let cancelled = "TransactionCanceledException";
            request.operation == "ExecuteTransaction"
                && errors(node, peer, [cancelled, cancelled])
                && peer.message()
                    == "ValidationError Where clause does not contain a mandatory equality on all key attributes"
                && only_reasons(node, |reason| {
                    reason["Message"] == "The provided key element does not match the schema"
                })
        },
    },
    Known {
        name: "a request that is wrong in itself, with items that have something against it",
        source: "documentation: reasons for a cancellation are those of a request that is valid; Local takes item after item",
        is: |_, node, peer| {
            let words = node.message();
            let in_itself = [
                "1 validation error detected: ",
                "Invalid ConditionExpression: ",
                "Invalid ProjectionExpression: ",
                "Invalid UpdateExpression: ",
                "Validation failed in TransactStatements[",
                "ExpressionAttribute",
                "Value provided in ExpressionAttribute",
                PATHS_OF_KEYS,
            ];
            errors(
                node,
                peer,
                ["ValidationException", "TransactionCanceledException"],
            ) && in_itself.iter().any(|begin| words.starts_with(begin))
        },
    },
    Known {
        name: "an empty key of another type, in a transaction",
        source: "newer capture: an empty text or binary as a key refuses the request; Local: a reason",
        is: |request, node, peer| {
            let is_empty = |value: &Value| {
                value == &serde_json::json!({"B": ""}) || value == &serde_json::json!({"S": ""})
            };
            errors(
                node,
                peer,
                ["ValidationException", "TransactionCanceledException"],
            ) && members(&request.body)
                .into_iter()
                .any(|(_, value)| is_empty(value))
                && (node.message() == "The provided key element does not match the schema"
                    || node.message().contains("Type mismatch for key")
                    || node.message().contains("empty"))
        },
    },
    Known {
        name: "two actions on one item, with items that have something against them",
        source: "newer capture: they are told first by the operations that write; Local takes item after item",
        is: |request, node, peer| {
            ["TransactWriteItems", "ExecuteTransaction"].contains(&request.operation)
                && errors(
                    node,
                    peer,
                    ["ValidationException", "TransactionCanceledException"],
                )
                && node.message() == SEVERAL
        },
    },
    Known {
        name: "two reads of one item beside a key that is wrong",
        source: "nubo-db/dynoxide: reasons come first; Local tells it first",
        is: |request, node, peer| {
            request.operation == "TransactGetItems"
                && errors(
                    node,
                    peer,
                    ["TransactionCanceledException", "ValidationException"],
                )
                && has_reason(node, "ValidationError")
                && peer.message() == SEVERAL
        },
    },
    Known {
        name: "names or values without an expression, in a transaction",
        source: "newer capture: ignored; Local refuses them",
        is: |request, node, peer| {
            let is_bare = |part: &Value| {
                let has_any = |names: &[&str]| has(part, names, |value| !value.is_null());
                let expressions = ["ConditionExpression", "UpdateExpression", "ProjectionExpression"];
                has_any(&["ExpressionAttributeNames"]) && !has_any(&expressions)
                    || has_any(&["ExpressionAttributeValues"]) && !has_any(&expressions[..2])
            };
            ["TransactWriteItems", "TransactGetItems"].contains(&request.operation)
                && parts(request).iter().any(is_bare)
                && (node.is_ok() || node.error() == "TransactionCanceledException")
                && peer
                    .message()
                    .contains("can only be specified when using expressions")
        },
    },
    Known {
        name: "a table that is not there, in a transaction with items that have something against it",
        source: "documentation: reasons for a cancellation are those of a request that is valid; Local takes item after item",
        is: |request, node, peer| {
            request.operation == "TransactWriteItems"
                && names_passing_table(request)
                && node.error() == "ResourceNotFoundException"
                && (peer.error() == "TransactionCanceledException"
                    || peer
                        .message()
                        .contains("document path provided in the update expression"))
        },
    },
    Known {
        name: "a token that was used, for a request whose items cannot be",
        source: "docs/compatibility.md, known to be inexact: here the items are looked at first",
        is: |request, node, peer| {
            request.body["ClientRequestToken"].is_string()
                && peer.error() == "IdempotentParameterMismatchException"
                && (node.error() == "ValidationException" || has_reason(node, "ValidationError"))
        },
    },
    Known {
        name: "one token for TransactWriteItems and ExecuteTransaction",
        source: "nubo-db/dynoxide, pull request 125, from the live service: a token is one operation's own; Local has it for both",
        is: |request, node, peer| {
            // Drawn tokens are one operation's; only one that was spoilt can be another's.
            let token = text(&request.body["ClientRequestToken"]);
            ["TransactWriteItems", "ExecuteTransaction"].contains(&request.operation)
                && request.is_spoilt
                && token == "a"
                && peer.error() == "IdempotentParameterMismatchException"
                && (node.is_ok() || node.error() == "TransactionCanceledException")
        },
    },
    Known {
        name: "an empty token",
        source: "service model: none is empty; Local takes it for absent",
        is: |request, node, _| {
            request.body["ClientRequestToken"] == ""
                && node
                    .message()
                    .contains("'clientRequestToken' failed to satisfy constraint")
        },
    },
    Known {
        name: "a table's name that is too short, in a transaction",
        source: "service model: one character is enough for a name or ARN; Local wants three",
        is: |request, node, peer| {
            has(&request.body, &["TableName"], |name| text(name).len() < 3)
                && node.error() == "ResourceNotFoundException"
                && peer.message().starts_with("Invalid table/index name")
        },
    },
    Known {
        name: "what a transaction's items or tables have against it is a reason for its cancellation",
        source: "documentation: ValidationError is among the reasons of TransactWriteItems; Local refuses the request",
        is: |request, node, peer| {
            request.operation.contains("Transact")
                && errors(
                    node,
                    peer,
                    ["TransactionCanceledException", "ValidationException"],
                )
                && only_reasons(node, |reason| {
                    same_words(text(&reason["Message"]), peer.message())
                })
        },
    },
    Known {
        name: "several things wrong with a transaction, of which each tells another",
        source: "docs/compatibility.md: the request is checked before its items; Local takes item after item",
        is: |request, node, peer| {
            // Both refuse it for what is wrong with it, and not for what is stored.
            let is_wrong = |answer: &Answer| {
                answer.error() == "ValidationException"
                    || answer.error() == "TransactionCanceledException"
                        && has_reason(answer, "ValidationError")
            };
            request.operation.contains("Transact")
                && is_wrong(node)
                && is_wrong(peer)
                && node.error() != peer.error()
        },
    },
];

/// Whether a reason of the node's that is a ValidationError is such.
fn only_reasons(node: &Answer, is: impl Fn(&Value) -> bool) -> bool {
    let reasons = list(&node.body["CancellationReasons"]);
    let mut wrong = reasons
        .iter()
        .filter(|reason| reason["Code"] == "ValidationError");
    wrong.any(is)
}

/// Whether the node's words and the peer's are about the same.
fn same_words(node: &str, peer: &str) -> bool {
    // How the node says it, and what Local has for it.
    let pairs: [(&str, &[&str]); 7] = [
        (
            "An operand in the update expression has an incorrect data type",
            &["The document path provided in the update expression is invalid for update"],
        ),
        (
            "The provided key element does not match the schema",
            &[
                "The number of conditions on the keys is invalid",
                "Invalid attribute value type",
                "One or more parameter values were invalid: Type mismatch for key",
                "One of the required keys was not given a value",
            ],
        ),
        (
            "One or more parameter values were invalid: Missing the key",
            &["One of the required keys was not given a value"],
        ),
        (
            "The provided expression refers to an attribute that does not exist in the item",
            &["The document path provided in the update expression is invalid for update"],
        ),
        (
            "One or more parameter values were invalid: Type mismatch for key",
            &[
                "Invalid attribute value type",
                "One or more parameter values were invalid: Type mismatch for key",
            ],
        ),
        (
            "Attempting to store more than 38 significant digits in a Number",
            &[
                "The document path provided in the update expression is invalid for update",
                "DynamoDB only supports precision up to 38 digits",
                // Of an update that is wrong twice.
                "The provided expression refers to an attribute that does not exist in the item",
            ],
        ),
        (
            "One or more parameter values were invalid: Type mismatch for Index Key",
            &["Invalid attribute value type"],
        ),
    ];
    crate::compare::shape(node) == crate::compare::shape(peer)
        || pairs
            .iter()
            .any(|(begin, others)| node.starts_with(begin) && others.contains(&peer))
}

pub(super) fn has_reason(answer: &Answer, code: &str) -> bool {
    list(&answer.body["CancellationReasons"])
        .iter()
        .any(|reason| reason["Code"] == code)
}

/// Whether what differs has causes, of which this is the first.
fn is_caused(request: &Request, node: &Answer, peer: &Answer, cause: &str) -> bool {
    causes(request, node, peer).is_some_and(|causes| causes.first() == Some(&cause))
}

/// Why a pair of outcomes differs: `Some(None)` when it does not, `None` when there is no cause for it.
type Cause = Option<Option<&'static str>>;

/// What each pair of outcomes that differs differs for; nothing when one differs for none of the causes.
fn causes(request: &Request, node: &Answer, peer: &Answer) -> Option<Vec<&'static str>> {
    let parts = parts(request);
    let of_each = |left: &[Value], right: &[Value], cause: &dyn Fn(&Value, &Value, &Value) -> Cause| {
        let outcomes = parts.iter().zip(left).zip(right);
        let causes: Option<Vec<_>> = outcomes
            .map(|((part, node), peer)| cause(part, node, peer))
            .collect();
        causes.filter(|_| [left.len(), right.len()] == [parts.len(); 2])
    };
    let cancelled = |answer: &Answer| answer.error() == "TransactionCanceledException";
    let several = ["BatchExecuteStatement", "ExecuteTransaction"];
    let found = if cancelled(node) && (cancelled(peer) || peer.is_ok()) {
        let none = vec![serde_json::json!({"Code": "None"}); parts.len()];
        let left = list(&node.body["CancellationReasons"]);
        let right = match peer.is_ok() {
            true => &none[..],
            false => list(&peer.body["CancellationReasons"]),
        };
        let wrong = |reason: &Value| reason["Code"] == "ValidationError";
        let has_stopped = left
            .iter()
            .zip(right)
            .any(|(node, peer)| wrong(node) && wrong(peer));
        of_each(left, right, &|part, node, peer| {
            of_reason(part, node, peer, has_stopped)
        })
    } else if several.contains(&request.operation) && node.is_ok() && peer.is_ok() {
        of_each(
            list(&node.body["Responses"]),
            list(&peer.body["Responses"]),
            &of_response,
        )
    } else {
        None
    };
    let found: Vec<_> = found?.into_iter().flatten().collect();
    (!found.is_empty()).then_some(found)
}

/// Why a reason differs.
fn of_reason(part: &Value, node: &Value, peer: &Value, has_stopped: bool) -> Cause {
    let (text_of, said) = (statement(part), text(&node["Message"]));
    let same_item = ordered(&node["Item"]) == ordered(&peer["Item"]);
    let codes = [&node["Code"], &peer["Code"]].map(text);
    let cause = match codes {
        [left, right] if left == right && same_item => return Some(None),
        ["ConditionalCheckFailed", "ConditionalCheckFailed"]
            if text_of.starts_with("EXISTS(") && peer["Item"].is_null() =>
        {
            EXISTS_ITEM
        }
        ["DuplicateItem", "ValidationError"] if text_of.starts_with("INSERT ") => DUPLICATE,
        [_, "None"] if has_stopped => BESIDE,
        ["ConditionalCheckFailed", "None"]
            if text_of.starts_with("DELETE FROM") && text_of.contains(" AND ") && node["Item"].is_null() =>
        {
            DELETE
        }
        ["ValidationError", "None" | "ConditionalCheckFailed"] if said.starts_with(PATHS_OF_KEYS) => PATH,
        ["ValidationError", "None" | "ConditionalCheckFailed"] if said.contains(TYPE_OF_INDEX) => INDEX_TYPE,
        ["ValidationError", "ConditionalCheckFailed"] if text_of.starts_with("EXISTS(") => EXISTS_WRONG,
        _ => return None,
    };
    Some(Some(cause))
}

/// The same of what a statement was answered with.
fn of_response(part: &Value, node: &Value, peer: &Value) -> Cause {
    let error = |response: &Value| text(&response["Error"]["Code"]).to_owned();
    let said = text(&node["Error"]["Message"]);
    let (left, right) = (ordered(&node["Item"]), ordered(&peer["Item"]));
    let same_table = node["TableName"] == peer["TableName"];
    let same_item = ordered(&node["Error"]["Item"]) == ordered(&peer["Error"]["Item"]);
    let codes = [error(node), error(peer)];
    let cause = match codes.each_ref().map(String::as_str) {
        [code, other] if code == other && left == right && same_table && same_item => return Some(None),
        ["ValidationError", "ValidationError"] if left == right && node["TableName"].is_null() => TABLE_NAME,
        ["ValidationError", "ConditionalCheckFailed" | ""] if said.starts_with(PATHS_OF_KEYS) => PATH,
        ["ValidationError", "ConditionalCheckFailed" | ""] if said.contains(TYPE_OF_INDEX) => INDEX_TYPE,
        [_, "ValidationError"] if is_keyword(part, peer) => KEYWORD,
        ["ConditionalCheckFailed", "ConditionalCheckFailed"]
            if part["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"
                && node["Error"]["Item"].is_null() =>
        {
            BATCH_ITEM
        }
        ["", ""] if same_table && is_renamed(part, &left, &right) => NAMES,
        ["", ""] if same_table && is_of_path(part) && (left.is_null() || is_part(&left, &right)) => MODIFIED,
        _ => return None,
    };
    Some(Some(cause))
}

/// Whether it is an update that answers with what it has changed, within a document perhaps.
fn is_of_path(part: &Value) -> bool {
    let text = statement(part);
    text.starts_with("UPDATE ") && text.contains(" RETURNING MODIFIED ") && text.contains(['.', '['])
}

/// Whether both have read the same under other names.
fn is_renamed(part: &Value, node: &Value, peer: &Value) -> bool {
    let selects = statement(part).split(" FROM ").next().unwrap_or_default();
    let is_path = selects.starts_with("SELECT ") && selects.contains(['.', '[']);
    // An empty element of a list is in Local's projection, and not in what the path alone leads to.
    is_path && (scalars(node) == scalars(peer) || is_part(node, peer))
}

/// Whether Local refuses the statement for a name that is a keyword.
pub(super) fn is_keyword(part: &Value, peer: &Value) -> bool {
    let mut words = statement(part).split(|letter: char| !letter.is_alphanumeric() && letter != '"');
    words.any(|word| ["list", "size"].contains(&word))
        && members(peer)
            .into_iter()
            .any(|(_, value)| text(value).starts_with("Statement wasn't well formed"))
}
