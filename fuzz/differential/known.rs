//! What differs on purpose, with its source. docs/compatibility.md has the same rows in words.

use serde_json::Value;

use crate::client::Answer;
use crate::compare;
use crate::requests::Request;

/// A difference that is meant to be.
struct Known {
    name: &'static str,
    source: &'static str,
    is: fn(&Request, &Answer, &Answer) -> bool,
}

const KNOWN: [Known; 56] = [
    Known {
        name: "a member of another JSON type",
        source: "the live service's answers in dynalite's tests: SerializationException; Local converts or ignores it",
        is: |_, node, peer| {
            node.error() == "SerializationException" && peer.error() != "SerializationException"
        },
    },
    Known {
        name: "Local fails",
        source: "Local: InternalFailure",
        is: |_, _, peer| peer.status == 500,
    },
    Known {
        name: "capacity",
        source: "documentation: half a unit at least for a read; Local charges none, or a delete of nothing twice",
        is: |request, node, peer| {
            let (node, peer) = (without_capacity(node), without_capacity(peer));
            node.is_ok() && compare::difference(request, &node, &peer).is_none()
        },
    },
    Known {
        name: "SIZE is a reserved word",
        source: "documentation: list of reserved words; Local takes it as a name where it cannot be the function",
        is: |_, node, peer| {
            node.message().ends_with("reserved keyword: size") && !peer.message().contains("size")
        },
    },
    Known {
        name: "an update that gives an index's key attribute another type",
        source: "nubo-db/dynoxide, and the live service for PutItem: refused; Local stores it",
        is: |request, node, peer| {
            let (node, peer) = (node.body.to_string(), peer.body.to_string());
            let words = "Type mismatch for Index Key";
            request.writes() && node.contains(words) && !peer.contains(words)
        },
    },
    Known {
        name: "NOT_CONTAINS of an attribute that is not there",
        source: "dynalite, and the documented meaning of NOT contains(..): true; Local: false",
        is: |request, _, _| request.body.to_string().contains("NOT_CONTAINS"),
    },
    Known {
        name: "what is wrong with AttributeUpdates is said whatever is stored",
        source: "dynalite: the request is checked first; Local evaluates its condition first",
        is: |request, node, peer| {
            !request.body["AttributeUpdates"].is_null()
                && node.error() == "ValidationException"
                && peer.error() == "ConditionalCheckFailedException"
        },
    },
    Known {
        name: "what is wrong with the paths of an update is said whatever is stored",
        source: "documentation: a condition is evaluated for a request that is valid; Local evaluates it first",
        is: |_, node, peer| {
            node.message().starts_with("Key attributes must be scalars")
                && peer.error() == "ConditionalCheckFailedException"
        },
    },
    Known {
        name: "an ADD or DELETE of another type to an index's key attribute that is not there",
        source: "nothing is stored under the key by it; Local refuses it in words of its own",
        is: |_, _, peer| {
            peer.message()
                .starts_with("Updates on index keys must be of the same data type")
        },
    },
    Known {
        name: "the last key of a page that ends with a table's only item of that key",
        source: "documentation: a page that Limit ended says where; Local knows that nothing follows",
        is: |request, node, peer| {
            let (mut node, mut peer) = (node.clone(), peer.clone());
            let (last, none) = (node.take_last(), peer.take_last());
            request.operation == "Query"
                && last.is_some()
                && none.is_none()
                && compare::difference(request, &node, &peer).is_none()
        },
    },
    Known {
        name: "a Scan of an index with a filter about attributes that it does not hold",
        source: "documentation: a filter sees what is read; Local looks at the table's items",
        is: |request, node, peer| {
            let projected = ["global-size"]
                .iter()
                .any(|name| request.body["IndexName"] == *name);
            let filters =
                request.body["FilterExpression"].is_string() || request.body["ScanFilter"].is_object();
            request.operation == "Scan"
                && projected
                && filters
                && node.is_ok()
                && node.body["ScannedCount"] == peer.body["ScannedCount"]
        },
    },
    Known {
        name: "an empty text where one of several words belongs",
        source: "service model: none of them is empty; Local takes it for absent",
        is: |_, node, peer| {
            node.message().contains("Member must satisfy enum value set")
                && peer.error() != "ValidationException"
        },
    },
    Known {
        name: "UPDATED_OLD and UPDATED_NEW of a path into a document",
        source: "documentation: what was updated; Local answers with the whole attribute",
        is: |request, node, peer| {
            let returns = request.body["ReturnValues"].as_str().unwrap_or_default();
            let update = request.body["UpdateExpression"].as_str().unwrap_or_default();
            let of_update = returns.starts_with("UPDATED_") && update.contains(['.', '[']);
            let statement = request.body["Statement"].as_str().unwrap_or_default();
            let of_statement = statement.starts_with("UPDATE ") && statement.contains(" RETURNING MODIFIED ");
            (of_update || of_statement && statement.contains(['.', '['])) && node.is_ok() && peer.is_ok()
        },
    },
    Known {
        name: "an empty ExclusiveStartKey",
        source: "dynalite: no key of the table; Local takes it for absent",
        is: |request, node, _| {
            let start = request.body["ExclusiveStartKey"].as_object();
            start.is_some_and(|start| start.is_empty()) && node.error() == "ValidationException"
        },
    },
    Known {
        name: "an empty list of local indexes",
        source: "table captures, DDB-TABLE-043: refused; Local takes it for absent",
        is: |_, node, _| node.message().ends_with("SecondaryIndexes is empty"),
    },
    Known {
        name: "a start at the end of the range that is read",
        source: "docs/compatibility.md, known to be inexact: Local refuses it, and here nothing follows",
        is: |_, node, peer| {
            let refused = "The provided starting key does not match the range key predicate";
            node.body["ScannedCount"] == 0 && peer.message() == refused
        },
    },
    Known {
        name: "a parameter that the operation does not have",
        source: "docs/compatibility.md: refused by name, nothing of a request is ignored",
        is: |_, node, _| {
            node.message().starts_with("The parameter ") && node.message().ends_with(" is not supported")
        },
    },
    Known {
        name: "what is wrong with a request about a table that is not there",
        source: "dynalite: the request is checked first; Local looks for the table first",
        is: |request, node, peer| {
            !request.operation.starts_with("Execute")
                && node.error() == "ValidationException"
                && peer.error() == "ResourceNotFoundException"
        },
    },
    Known {
        name: "reasons that Local does not give",
        source: "documentation: every TransactionCanceledException has them; Local leaves them out when a key is wrong",
        is: |_, node, peer| {
            both_cancelled(node, peer)
                && has_reason(node, "ValidationError")
                && peer.body["CancellationReasons"].is_null()
        },
    },
    Known {
        name: "a request that is wrong in itself, with items that have something against it",
        source: "documentation: reasons for a cancellation are those of a request that is valid; Local takes item after item",
        is: |_, node, peer| {
            node.error() == "ValidationException" && peer.error() == "TransactionCanceledException"
        },
    },
    Known {
        name: "an INSERT of an item that is there, in a transaction",
        source: "newer capture: the reason is DuplicateItem; Local: ValidationError",
        is: |_, node, peer| {
            both_cancelled(node, peer)
                && reasons_agree(node, peer, |node, peer| {
                    node == peer || node == "DuplicateItem" && peer == "ValidationError" || peer == "None"
                })
                && has_reason(node, "DuplicateItem")
        },
    },
    Known {
        name: "the reasons of a cancellation behind the first item that is wrong",
        source: "newer capture: every item has its reason; Local stops at what is wrong with one",
        is: |_, node, peer| {
            both_cancelled(node, peer)
                && has_reason(node, "ValidationError")
                && reasons_agree(node, peer, |node, peer| node == peer || peer == "None")
        },
    },
    Known {
        name: "a DELETE with a condition of an item that is not there, in a cancelled ExecuteTransaction",
        source: "newer capture: ConditionalCheckFailed; Local: None",
        is: |request, node, peer| {
            request.operation == "ExecuteTransaction"
                && both_cancelled(node, peer)
                && request.body.to_string().contains("DELETE FROM")
                && reasons_agree(node, peer, |node, peer| {
                    node == peer || node == "ConditionalCheckFailed" && peer == "None"
                })
        },
    },
    Known {
        name: "the item of an EXISTS that is false",
        source: "service model: ReturnValuesOnConditionCheckFailure is a statement's; Local leaves it out",
        is: |request, node, peer| {
            both_cancelled(node, peer)
                && request.body.to_string().contains("EXISTS(")
                && reasons_agree(node, peer, |node, peer| node == peer)
        },
    },
    Known {
        name: "a path into a key of an index, in a transaction's condition",
        source: "Local refuses it everywhere else, and here only when it judges the condition",
        is: |_, node, peer| {
            let said = node.body["CancellationReasons"].to_string();
            node.error() == "TransactionCanceledException"
                && said.contains("Key attributes must be scalars")
                && (peer.is_ok()
                    || reasons_agree(node, peer, |node, peer| node == peer || node == "ValidationError"))
        },
    },
    Known {
        name: "names or values without an expression, in a transaction",
        source: "newer capture: ignored; Local refuses them",
        is: |request, _, peer| {
            request.operation == "TransactWriteItems"
                && peer
                    .message()
                    .contains("can only be specified when using expressions")
        },
    },
    Known {
        name: "names of what a statement reads, in a batch or a transaction",
        source: "newer capture: as ExecuteStatement has them; Local: as a projection has them",
        is: |request, node, peer| {
            let selects = request.body.to_string().contains("\"SELECT ");
            let several = ["BatchExecuteStatement", "ExecuteTransaction"].contains(&request.operation);
            selects
                && several
                && node.is_ok()
                && peer.is_ok()
                && responses_agree(node, peer, |node, peer| {
                    node["Error"] == peer["Error"] && node["Item"].is_object() == peer["Item"].is_object()
                })
        },
    },
    Known {
        name: "the table's name beside a ValidationError of a batch",
        source: "newer capture: it is not there; Local has it when the item has something against the statement",
        is: |request, node, peer| {
            request.operation == "BatchExecuteStatement"
                && responses_agree(node, peer, |node, peer| {
                    let code = &node["Error"]["Code"];
                    code == &peer["Error"]["Code"]
                        && (code == "ValidationError" || node["TableName"] == peer["TableName"])
                        && node["Item"] == peer["Item"]
                })
        },
    },
    Known {
        name: "what is wrong with the paths of a statement of a batch is said whatever is stored",
        source: "documentation: a condition is evaluated for a request that is valid; Local evaluates it first",
        is: |request, node, peer| {
            request.operation == "BatchExecuteStatement"
                && responses_agree(node, peer, |node, peer| {
                    let is_path = node["Error"]["Message"]
                        .as_str()
                        .is_some_and(|message| message.starts_with("Key attributes must be scalars"));
                    is_path || node["Error"]["Code"] == peer["Error"]["Code"]
                })
        },
    },
    Known {
        name: "alternatives of a WHERE clause that share a key",
        source: "newer capture: refused; Local reads them once",
        is: |_, node, peer| {
            peer.is_ok()
                && node
                    .message()
                    .starts_with("Overlapping conditions with range keys")
        },
    },
    Known {
        name: "an ORDER BY of several partition keys that does not name it",
        source: "newer capture: refused; Local takes it when there is a sort key",
        is: |_, node, peer| {
            peer.is_ok()
                && node
                    .message()
                    .starts_with("Must have hash key in ORDER BY clause")
        },
    },
    Known {
        name: "a SELECT of an index with a filter about attributes that it does not hold",
        source: "newer capture: refused; Local looks at the table's items",
        is: |_, node, peer| {
            peer.is_ok()
                && node
                    .message()
                    .contains("does not project one or more filter attributes")
        },
    },
    Known {
        name: "a WHERE clause that compares a key with a value of another type",
        source: "docs/compatibility.md, known to be inexact: Local refuses it, and here it is false",
        is: |request, _, peer| {
            request.operation == "ExecuteStatement"
                && peer
                    .message()
                    .ends_with("Condition parameter type does not match schema type")
        },
    },
    Known {
        name: "throughput of a table that is paid per request",
        source: "table captures: refused; Local takes it",
        is: |_, node, peer| {
            peer.is_ok()
                && node
                    .message()
                    .ends_with("can be specified when BillingMode is PAY_PER_REQUEST")
        },
    },
    Known {
        name: "an ORDER BY of the partition key alone",
        source: "newer capture: the sort key falls, whatever is said of the partition key; Local: it rises",
        is: |request, node, peer| {
            let (Some(left), Some(right)) = (node.body["Items"].as_array(), peer.body["Items"].as_array())
            else {
                return false;
            };
            let statement = request.body["Statement"].as_str().unwrap_or_default();
            let order = statement.split("ORDER BY").nth(1).unwrap_or_default();
            let by_partition = order.split_whitespace().next();
            let by_partition = by_partition.is_some_and(|name| ["id", "b"].contains(&name.trim_matches('"')));
            let ordered = |items: &[Value]| items.iter().map(compare::ordered).collect::<Vec<_>>();
            let (left, mut right) = (ordered(left), ordered(right));
            right.reverse();
            by_partition && left == right
        },
    },
    Known {
        name: "an EXISTS that is wrong",
        source: "newer capture: the reason is ValidationError; Local evaluates it, and it is false",
        is: |request, node, peer| {
            both_cancelled(node, peer)
                && request.body.to_string().contains("EXISTS(")
                && reasons_agree(node, peer, |node, peer| {
                    node == peer || node == "ValidationError" && peer == "ConditionalCheckFailed"
                })
        },
    },
    Known {
        name: "reasons of an ExecuteTransaction that differ for several of the causes above",
        source: "those of the causes",
        is: |request, node, peer| {
            let (Some(statements), Some(left), Some(right)) = (
                request.body["TransactStatements"].as_array(),
                node.body["CancellationReasons"].as_array(),
                peer.body["CancellationReasons"].as_array(),
            ) else {
                return false;
            };
            let said = left.iter().zip(right);
            both_cancelled(node, peer)
                && [left.len(), right.len()] == [statements.len(); 2]
                && statements
                    .iter()
                    .zip(said)
                    .all(|(statement, (node, peer))| reason_is_known(statement, node, peer))
        },
    },
    Known {
        name: "a table that is not there, in a transaction with items that have something against it",
        source: "documentation: reasons for a cancellation are those of a request that is valid; Local takes item after item",
        is: |request, node, peer| {
            request.operation == "TransactWriteItems"
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
        is: |_, node, peer| {
            peer.error() == "IdempotentParameterMismatchException"
                && (node.error() == "ValidationException" || has_reason(node, "ValidationError"))
        },
    },
    Known {
        name: "no names or no values, without an expression",
        source: "nubo-db/dynoxide: only when using expressions, as for some of them; Local takes an empty map for absent",
        is: |request, node, peer| {
            let is_empty = |member: &str| {
                request.body[member]
                    .as_object()
                    .is_some_and(serde_json::Map::is_empty)
            };
            peer.is_ok()
                && (is_empty("ExpressionAttributeNames") || is_empty("ExpressionAttributeValues"))
                && node
                    .message()
                    .ends_with("can only be specified when using expressions")
        },
    },
    Known {
        name: "a set in AttributeUpdates without an action",
        source: "documentation: the action is PUT then; Local does nothing",
        is: |request, node, peer| {
            let updates = request.body["AttributeUpdates"].as_object();
            let is_set = |value: &Value| ["SS", "NS", "BS"].iter().any(|kind| value[kind].is_array());
            node.is_ok()
                && peer.is_ok()
                && updates
                    .into_iter()
                    .flatten()
                    .any(|(_, update)| update["Action"].is_null() && is_set(&update["Value"]))
        },
    },
    Known {
        name: "pages of a SELECT of several partition keys",
        source: "documentation: a page goes on where the last one ended; Local begins again with the first key",
        is: |request, node, peer| {
            let (Some(left), Some(right)) = (node.body["Items"].as_array(), peer.body["Items"].as_array())
            else {
                return false;
            };
            let of = |items: &[Value]| {
                items
                    .iter()
                    .map(|item| compare::ordered(item).to_string())
                    .collect::<Vec<_>>()
            };
            let (left, mut right) = (of(left), of(right));
            let repeated = right.len() > left.len();
            right.sort();
            right.dedup();
            let mut once = left.clone();
            once.sort();
            once.dedup();
            request.operation == "ExecuteStatement"
                && request.body["Limit"].is_number()
                && repeated
                && once.len() == left.len()
                && once == right
        },
    },
    Known {
        name: "pages of a SELECT in falling order",
        source: "documentation: DESC is the order of all that is read; Local begins pages anew with it",
        is: |request, node, peer| {
            let (Some(left), Some(right)) = (node.body["Items"].as_array(), peer.body["Items"].as_array())
            else {
                return false;
            };
            let statement = request.body["Statement"].as_str().unwrap_or_default();
            let sorted = |items: &[Value]| {
                let mut items: Vec<String> = items
                    .iter()
                    .map(|item| compare::ordered(item).to_string())
                    .collect();
                items.sort();
                items
            };
            request.operation == "ExecuteStatement"
                && request.body["Limit"].is_number()
                && statement.ends_with(" DESC")
                && sorted(left) == sorted(right)
        },
    },
    Known {
        name: "an empty token",
        source: "service model: none is empty; Local takes it for absent",
        is: |_, node, _| {
            node.message()
                .contains("'clientRequestToken' failed to satisfy constraint")
        },
    },
    Known {
        name: "a parameter of a batch's statement that no value can be",
        source: "newer capture: it is the statement's error; Local refuses the batch",
        is: |request, node, peer| {
            let value = |message: &str| {
                message.starts_with("One or more parameter values were invalid: ")
                    || message.starts_with("A value provided cannot be converted")
                    || message.starts_with("Supplied AttributeValue")
                    || message.contains("precision up to 38 digits")
                    || message.starts_with("Number ")
                    || message == "Input collection contains duplicates"
            };
            request.operation == "BatchExecuteStatement"
                && has_error(node, "ValidationError")
                && peer.error() == "ValidationException"
                && value(peer.message())
        },
    },
    Known {
        name: "a change of a table beside its protection",
        source: "table captures: it must be the only one; Local takes several",
        is: |_, node, peer| {
            peer.is_ok()
                && node
                    .message()
                    .ends_with("modification must be the only operation in the request")
        },
    },
    Known {
        name: "a table whose protection was to be taken off together with another change",
        source: "table captures: protection must be the only change, so that it is still there; Local took several",
        is: |request, node, peer| {
            request.operation == "DeleteTable"
                && peer.is_ok()
                && node.message().contains("currently protected against deletion")
        },
    },
    Known {
        name: "throughput of an index of a table that is paid per request",
        source: "table captures: refused; Local takes it",
        is: |_, node, peer| {
            peer.is_ok()
                && node
                    .message()
                    .contains("ProvisionedThroughput should not be specified for index")
        },
    },
    Known {
        name: "no throughput for an index of a table that is paid per request",
        source: "service model: 1 at least; Local looks at no throughput of such a table",
        is: |request, node, peer| {
            request.operation == "UpdateTable"
                && peer.is_ok()
                && node.message().contains("rovisionedThroughput.")
                && node
                    .message()
                    .ends_with("Member must have value greater than or equal to 1")
        },
    },
    Known {
        name: "the stream of a deleted table",
        source: "docs/compatibility.md: it goes with its table; Local shows it as that of the next table of the name",
        is: |request, node, peer| {
            request.operation == "GetRecords" && node.body["Records"].is_null() && peer.is_ok()
        },
    },
    Known {
        name: "a batch that reads and writes, with a literal that no value can be",
        source: "such a statement is none here; Local counts it",
        is: |request, node, peer| {
            request.operation == "BatchExecuteStatement"
                && has_error(node, "ValidationError")
                && peer.message().starts_with("Read and write requests together")
        },
    },
    Known {
        name: "a statement with a keyword of PartiQL as a name",
        source: "nubo-db/dynoxide takes it; Local refuses `list` and `size` as names without quotation marks",
        is: |request, node, peer| {
            let text = request.body.to_string();
            // Another statement of the batch may be refused by both.
            let refused = |text: &str| text.matches("Statement wasn't well formed").count();
            let mut words =
                text.split(|letter: char| !letter.is_alphanumeric() && letter != '"' && letter != '\\');
            words.any(|word| ["list", "size"].contains(&word))
                && refused(&peer.body.to_string()) > refused(&node.body.to_string())
        },
    },
    Known {
        name: "the billing mode that a table has, without throughput",
        source: "table captures: refused whatever it was; Local takes it",
        is: |_, node, peer| {
            peer.is_ok()
                && node
                    .message()
                    .ends_with("ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
        },
    },
    Known {
        name: "a table's name that is too short, in a transaction",
        source: "service model: one character is enough for a name or ARN; Local wants three",
        is: |_, node, peer| {
            node.error() == "ResourceNotFoundException"
                && peer.message().starts_with("Invalid table/index name")
        },
    },
    Known {
        name: "tags",
        source: "Local: Tagging is not currently supported in DynamoDB Local",
        is: |_, _, peer| peer.message().starts_with("Tagging is not currently supported"),
    },
    Known {
        name: "what a transaction's items or tables have against it is a reason for its cancellation",
        source: "documentation: ValidationError is among the reasons of TransactWriteItems; Local refuses the request",
        is: |_, node, peer| {
            node.error() == "TransactionCanceledException"
                && has_reason(node, "ValidationError")
                && peer.error() == "ValidationException"
        },
    },
];

fn has_reason(answer: &Answer, code: &str) -> bool {
    let reasons = answer.body["CancellationReasons"].as_array();
    reasons.into_iter().flatten().any(|reason| reason["Code"] == code)
}

/// Whether a statement of a batch ended with this code.
fn has_error(answer: &Answer, code: &str) -> bool {
    let responses = answer.body["Responses"].as_array();
    responses
        .into_iter()
        .flatten()
        .any(|response| response["Error"]["Code"] == code)
}

fn both_cancelled(node: &Answer, peer: &Answer) -> bool {
    [node, peer]
        .iter()
        .all(|answer| answer.error() == "TransactionCanceledException")
}

/// Whether the reasons of one statement are the same, or differ for one of the causes that are known of statements alone.
fn reason_is_known(statement: &Value, node: &Value, peer: &Value) -> bool {
    let text = statement["Statement"].as_str().unwrap_or_default();
    let said = node["Message"].as_str().unwrap_or_default();
    match [node, peer].map(|reason| reason["Code"].as_str().unwrap_or_default()) {
        [node, peer] if node == peer => true,
        ["DuplicateItem", "ValidationError"] => true,
        ["ConditionalCheckFailed", "None"] => text.starts_with("DELETE FROM"),
        ["ValidationError", "ConditionalCheckFailed"] if text.starts_with("EXISTS(") => true,
        ["ValidationError", "ConditionalCheckFailed" | "None"] => {
            said.starts_with("Key attributes must be scalars")
        }
        _ => false,
    }
}

/// Whether both have as many reasons, and each pair of codes is such.
fn reasons_agree(node: &Answer, peer: &Answer, agree: impl Fn(&str, &str) -> bool) -> bool {
    pairs_agree(
        &node.body["CancellationReasons"],
        &peer.body["CancellationReasons"],
        |node, peer| {
            let code = |reason: &Value| reason["Code"].as_str().unwrap_or_default().to_owned();
            agree(&code(node), &code(peer))
        },
    )
}

/// Whether both have as many responses, and each pair is such.
fn responses_agree(node: &Answer, peer: &Answer, agree: impl Fn(&Value, &Value) -> bool) -> bool {
    pairs_agree(&node.body["Responses"], &peer.body["Responses"], |node, peer| {
        agree(&compare::ordered(node), &compare::ordered(peer))
    })
}

fn pairs_agree(node: &Value, peer: &Value, agree: impl Fn(&Value, &Value) -> bool) -> bool {
    let (Some(node), Some(peer)) = (node.as_array(), peer.as_array()) else {
        return false;
    };
    node.len() == peer.len() && node.iter().zip(peer).all(|(node, peer)| agree(node, peer))
}

fn without_capacity(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    if let Some(members) = answer.body.as_object_mut() {
        members.remove("ConsumedCapacity");
    }
    answer
}

/// The name of the difference between these answers, when it is on purpose.
pub(crate) fn explanation(request: &Request, node: &Answer, peer: &Answer) -> Option<&'static str> {
    KNOWN
        .iter()
        .find(|known| (known.is)(request, node, peer))
        .map(|known| known.name)
}

/// Where it is written that it should be so.
pub(crate) fn source(name: &str) -> &'static str {
    KNOWN
        .iter()
        .find(|known| known.name == name)
        .map_or("", |known| known.source)
}
