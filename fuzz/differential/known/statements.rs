//! Single statements.

use serde_json::Value;

use super::Known;
use super::shape::{canonical, has, list, parts, statement, text};
use super::transactions::is_keyword;
use crate::client::Answer;
use crate::requests::Request;

pub(super) static RULES: &[Known] = &[
    Known {
        name: "Local fails at a SELECT",
        source: "Local: InternalFailure",
        is: |request, node, peer| {
            request.operation == "ExecuteStatement"
                && text(&request.body["Statement"]).starts_with("SELECT ")
                && node.is_ok()
                && peer.status == 500
        },
    },
    Known {
        name: "alternatives of a WHERE clause that share a key",
        source: "newer capture: refused; Local reads them once",
        is: |request, node, peer| {
            let text = text(&request.body["Statement"]);
            peer.is_ok()
                && (text.contains(" IN ") || text.contains(" OR "))
                && node
                    .message()
                    .starts_with("Overlapping conditions with range keys")
        },
    },
    Known {
        name: "an ORDER BY of several partition keys that does not name it",
        source: "newer capture: refused; Local takes it when there is a sort key",
        is: |request, node, peer| {
            let text = text(&request.body["Statement"]);
            peer.is_ok()
                && text.contains(" ORDER BY ")
                && (text.contains(" IN ") || text.contains(" OR "))
                && node
                    .message()
                    .starts_with("Must have hash key in ORDER BY clause")
        },
    },
    Known {
        name: "a SELECT of an index with a filter about attributes that it does not hold",
        source: "newer capture: refused; Local looks at the table's items",
        is: |request, node, peer| {
            let text = text(&request.body["Statement"]);
            let partial = ["\".\"global-size\"", "\".\"extra-num\"", "\".\"extra-color\""];
            peer.is_ok()
                && partial.iter().any(|index| text.contains(index))
                && node
                    .message()
                    .contains("does not project one or more filter attributes")
        },
    },
    Known {
        name: "a WHERE clause that compares a key with a value of another type",
        source: "docs/compatibility.md, known to be inexact: Local refuses it, and here it is false",
        is: |request, node, peer| {
            request.operation == "ExecuteStatement"
                && (node.is_ok() || node.error() == "ConditionalCheckFailedException")
                && peer
                    .message()
                    .ends_with("Condition parameter type does not match schema type")
        },
    },
    Known {
        name: "an ORDER BY of the partition key alone",
        source: "newer capture: the sort key falls, whatever is said of the partition key; Local: it rises",
        is: |request, node, peer| {
            let Some((left, mut right)) = items(node, peer) else {
                return false;
            };
            let order = order(request);
            let by_partition = order.split_whitespace().next();
            let by_partition = by_partition.is_some_and(|name| ["id", "b"].contains(&name.trim_matches('"')));
            right.reverse();
            by_partition && left == right
        },
    },
    Known {
        name: "a statement with a keyword of PartiQL as a name",
        source: "nubo-db/dynoxide takes it; Local refuses `list` and `size` as names without quotation marks",
        is: |request, node, peer| {
            let only_here = request.operation == "ExecuteStatement"
                && !node.message().starts_with("Statement wasn't well formed");
            // Of several statements one is enough, and Local refuses them all.
            let of_several = request.operation == "ExecuteTransaction";
            (only_here || of_several)
                && peer.error() == "ValidationException"
                && parts(request)
                    .iter()
                    .any(|part| is_keyword(part, &peer.body) || is_keyword_of(part, peer))
        },
    },
    Known {
        name: "ReturnValuesOnConditionCheckFailure of a statement that reads",
        source: "service model: one of its words all the same; Local does not look at it",
        is: |request, node, peer| {
            let no_word = "eturnValuesOnConditionCheckFailure' failed to satisfy constraint: Member must satisfy enum value set";
            ["ExecuteStatement", "BatchExecuteStatement"].contains(&request.operation)
                && node.error() == "ValidationException"
                && node.message().contains(no_word)
                && peer.is_ok()
        },
    },
    Known {
        name: "a parameter of a batch's statement that no value can be",
        source: "newer capture: it is the statement's error; Local refuses the batch",
        is: |request, node, peer| {
            let value = |message: &str| {
                message.starts_with("One or more parameter values were invalid: ")
                    || message.starts_with("A value provided cannot be converted")
                    || message.starts_with("The parameter cannot be converted to a numeric value")
                    || message.starts_with("Supplied AttributeValue")
                    || message.contains("precision up to 38 digits")
                    || message.starts_with("Attempting to store more than 38 significant digits")
                    || message.starts_with("Number ")
                    || message == "Input collection contains duplicates"
            };
            request.operation == "BatchExecuteStatement"
                && has_error(node, value)
                && peer.error() == "ValidationException"
                && value(peer.message())
        },
    },
    Known {
        name: "an empty list of parameters",
        source: "service model: one at least; Local takes it for absent",
        is: |request, node, _| {
            has(&request.body, &["Parameters"], |list| {
                list == &serde_json::json!([])
            }) && node.message().contains(
                "arameters' failed to satisfy constraint: Member must have length greater than or equal to 1",
            )
        },
    },
    Known {
        name: "a batch that reads and writes, with a literal that no value can be",
        source: "such a statement is none here; Local counts it",
        is: |request, node, peer| {
            request.operation == "BatchExecuteStatement"
                && has_error(node, |_| true)
                && peer.message().starts_with("Read and write requests together")
        },
    },
];

/// The items of both, when both have read some.
fn items(node: &Answer, peer: &Answer) -> Option<(Vec<String>, Vec<String>)> {
    let of = |answer: &Answer| answer.body["Items"].as_array().map(|items| canonical(items));
    Some((of(node)?, of(peer)?))
}

/// What follows ORDER BY.
fn order(request: &Request) -> &str {
    let text = text(&request.body["Statement"]);
    text.split(" ORDER BY ").nth(1).unwrap_or_default()
}

/// Whether a statement of a batch ended with a ValidationError of such words.
fn has_error(answer: &Answer, is: impl Fn(&str) -> bool) -> bool {
    list(&answer.body["Responses"]).iter().any(|response| {
        response["Error"]["Code"] == "ValidationError" && is(text(&response["Error"]["Message"]))
    })
}

/// Whether Local's message quotes this statement as one that is not well formed.
fn is_keyword_of(part: &Value, peer: &Answer) -> bool {
    let quoted = peer.message().contains(statement(part));
    quoted
        && is_keyword(
            part,
            &serde_json::json!({"Message": "Statement wasn't well formed"}),
        )
        && peer.message().contains("Statement wasn't well formed")
}
