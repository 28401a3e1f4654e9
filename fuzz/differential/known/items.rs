//! Reads and writes of items.

use serde_json::Value;

use super::shape::{
    canonical, errors, has, is_part, list, names_in_expressions, names_passing_table, text, without,
};
use super::{Known, PATHS_OF_KEYS, TYPE_OF_INDEX, capacity};
use crate::compare;

/// Members whose value is one of several words.
const WORDS: [&str; 8] = [
    "ReturnValues",
    "ReturnConsumedCapacity",
    "ReturnValuesOnConditionCheckFailure",
    "ReturnItemCollectionMetrics",
    "Select",
    "ConditionalOperator",
    "ComparisonOperator",
    "Action",
];

pub(super) static RULES: &[Known] = &[
    Known {
        name: "a member of another JSON type",
        source: "the live service's answers in dynalite's tests: SerializationException; Local converts or ignores it",
        is: |request, node, peer| {
            request.is_spoilt
                && node.error() == "SerializationException"
                && peer.error() != "SerializationException"
        },
    },
    Known {
        name: "Local fails at a request that is wrong",
        source: "Local: InternalFailure",
        is: |request, node, peer| {
            let fails = request.is_spoilt || ["ExecuteStatement", "UpdateTable"].contains(&request.operation);
            let wrong = ["ValidationException", "ResourceNotFoundException"];
            fails && wrong.contains(&node.error()) && peer.status == 500
        },
    },
    Known {
        name: "capacity",
        source: "documentation: half a unit at least for a read; Local charges none, a delete of nothing in a batch twice, and \
                 the indexes of a transaction twice",
        is: capacity::is_explained,
    },
    Known {
        name: "SIZE is a reserved word",
        source: "documentation: list of reserved words; Local takes it as a name where it cannot be the function",
        is: |request, node, peer| {
            names_in_expressions(request, "size")
                && node.error() == "ValidationException"
                && node
                    .message()
                    .ends_with("Attribute name is a reserved keyword; reserved keyword: size")
                && !peer.message().contains("size")
        },
    },
    Known {
        name: "an update that gives an index's key attribute another type",
        source: "nubo-db/dynoxide, and the live service for PutItem: refused; Local stores it",
        is: |request, node, peer| {
            let is_update =
                request.operation == "UpdateItem" || text(&request.body["Statement"]).starts_with("UPDATE ");
            is_update
                && node.error() == "ValidationException"
                && node.message().contains(TYPE_OF_INDEX)
                && (peer.is_ok() || peer.error() == "ConditionalCheckFailedException")
        },
    },
    Known {
        name: "NOT_CONTAINS of an attribute that is not there, in a condition",
        source: "dynalite, and the documented meaning of NOT contains(..): true; Local: false",
        is: |request, node, peer| {
            is_absent_not_contained(&request.body["Expected"])
                && peer.error() == "ConditionalCheckFailedException"
                && (node.is_ok() || node.error() == "ValidationException")
        },
    },
    Known {
        name: "NOT_CONTAINS of an attribute that is not there, in a filter",
        source: "dynalite, and the documented meaning of NOT contains(..): true; Local: false",
        is: |request, node, peer| {
            let filter = match request.operation {
                "Scan" => &request.body["ScanFilter"],
                _ => &request.body["QueryFilter"],
            };
            let named: Vec<&String> = not_contained(filter);
            let left = list(&node.body["Items"]);
            let right = canonical(list(&peer.body["Items"]));
            // What Local leaves out has no such attribute.
            let more = left
                .iter()
                .filter(|item| !right.contains(&compare::ordered(item).to_string()));
            let more: Vec<&Value> = more.collect();
            !named.is_empty()
                && node.is_ok()
                && peer.is_ok()
                && node.body["ScannedCount"] == peer.body["ScannedCount"]
                && more.len() + right.len() == left.len()
                && more
                    .iter()
                    .all(|item| named.iter().any(|name| item[name.as_str()].is_null()))
        },
    },
    Known {
        name: "what is wrong with AttributeUpdates is said whatever is stored",
        source: "dynalite: the request is checked first; Local evaluates its condition first",
        is: |request, node, peer| {
            let words = [
                // Of an action, or a set.
                "One or more parameter values were invalid: ",
                // Of a number, or a set.
                "1 validation error detected: Number ",
                "1 validation error detected: One or more parameter values were invalid: ",
                "1 validation error detected: Supplied AttributeValue ",
                "Supplied AttributeValue ",
                "The parameter cannot be converted to a numeric value",
                "Input collection ",
            ];
            request.body["AttributeUpdates"].is_object()
                && errors(
                    node,
                    peer,
                    ["ValidationException", "ConditionalCheckFailedException"],
                )
                && words.iter().any(|begin| node.message().starts_with(begin))
        },
    },
    Known {
        name: "what is wrong with the paths of an update is said whatever is stored",
        source: "documentation: a condition is evaluated for a request that is valid; Local evaluates it first",
        is: |_, node, peer| {
            errors(
                node,
                peer,
                ["ValidationException", "ConditionalCheckFailedException"],
            ) && node.message().starts_with(PATHS_OF_KEYS)
        },
    },
    Known {
        name: "an ADD or DELETE of another type to an index's key attribute that is not there",
        source: "nothing is stored under the key by it; Local refuses it in words of its own",
        is: |request, node, peer| {
            request.operation == "UpdateItem"
                && (node.is_ok() || node.message().contains(TYPE_OF_INDEX))
                && peer
                    .message()
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
                && node.body["ScannedCount"] == request.body["Limit"]
                && last.is_some()
                && none.is_none()
                && compare::difference(request, &node, &peer).is_none()
        },
    },
    Known {
        name: "a Scan of an index with a filter about attributes that it does not hold",
        source: "documentation: a filter sees what is read; Local looks at the table's items",
        is: |request, node, peer| {
            let filters =
                request.body["FilterExpression"].is_string() || request.body["ScanFilter"].is_object();
            request.operation == "Scan"
                && request.body["IndexName"] == "global-size"
                && filters
                && node.is_ok()
                && peer.is_ok()
                && node.body["ScannedCount"] == peer.body["ScannedCount"]
        },
    },
    Known {
        name: "an empty text where one of several words belongs",
        source: "service model: none of them is empty; Local takes it for absent",
        is: |request, node, peer| {
            has(&request.body, &WORDS, |value| value == "")
                && node.error() == "ValidationException"
                && node.message().contains("Member must satisfy enum value set")
                && peer.error() != "ValidationException"
        },
    },
    Known {
        name: "UPDATED_OLD and UPDATED_NEW of a path into a document",
        source: "documentation: what was updated; Local answers with the whole attribute",
        is: |request, node, peer| {
            let returns = text(&request.body["ReturnValues"]);
            let update = text(&request.body["UpdateExpression"]);
            let statement = text(&request.body["Statement"]);
            let is_update = returns.starts_with("UPDATED_") && update.contains(['.', '[']);
            let is_statement = statement.starts_with("UPDATE ")
                && statement.contains(" RETURNING MODIFIED ")
                && statement.contains(['.', '[']);
            let what = ["Attributes", "Items"];
            let part = what.iter().all(|name| {
                is_part(
                    &compare::ordered(&node.body[name]),
                    &compare::ordered(&peer.body[name]),
                ) || node.body[name].is_null()
                    || is_empty_items(&node.body[name])
            });
            let rest =
                [node, peer].map(|answer| without(answer, &["Attributes", "Items", "ConsumedCapacity"]));
            (is_update || is_statement)
                && node.is_ok()
                && peer.is_ok()
                && part
                && compare::difference(request, &rest[0], &rest[1]).is_none()
        },
    },
    Known {
        name: "one key twice, with its number in two ways",
        source: "documentation: numbers are compared as numbers; Local compares how they are written",
        is: |request, node, peer| {
            let tables = request.body["RequestItems"].as_object();
            let keys: Vec<&Value> = tables
                .into_iter()
                .flat_map(|tables| tables.values())
                .flat_map(|table| list(&table["Keys"]))
                .collect();
            let number = |key: &Value| text(&key["n"]["N"]).parse::<f64>().ok();
            let same = |left: &Value, right: &Value| {
                left["id"] == right["id"] && left["n"] != right["n"] && number(left) == number(right)
            };
            let has_same = keys
                .iter()
                .enumerate()
                .any(|(at, left)| keys[..at].iter().any(|right| same(left, right)));
            request.operation == "BatchGetItem"
                && node.message() == "Provided list of item keys contains duplicates"
                && peer.is_ok()
                && has_same
        },
    },
    Known {
        name: "an empty ExclusiveStartKey",
        source: "dynalite: no key of the table; Local takes it for absent",
        is: |request, node, peer| {
            let start = request.body["ExclusiveStartKey"].as_object();
            start.is_some_and(|start| start.is_empty())
                && node.error() == "ValidationException"
                && node.message().to_lowercase().contains("starting key")
                && peer.is_ok()
        },
    },
    Known {
        name: "a start at the end of the range that is read",
        source: "docs/compatibility.md, known to be inexact: Local refuses it, and here nothing follows",
        is: |request, node, peer| {
            let refused = "The provided starting key does not match the range key predicate";
            request.body["ExclusiveStartKey"].is_object()
                && node.body["ScannedCount"] == 0
                && peer.message() == refused
        },
    },
    Known {
        name: "what is wrong with a request about a table that is not there",
        source: "dynalite: the request is checked first; Local looks for the table first",
        is: |request, node, peer| {
            !request.operation.starts_with("Execute")
                && names_passing_table(request)
                && errors(node, peer, ["ValidationException", "ResourceNotFoundException"])
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
        name: super::SET_WITHOUT_ACTION,
        source: "documentation: the action is PUT then; Local does nothing",
        is: |request, node, peer| {
            let is_set = |value: &Value| ["SS", "NS", "BS"].iter().any(|kind| value[kind].is_array());
            let updates = request.body["AttributeUpdates"].as_object();
            let of_sets: Vec<&str> = updates
                .into_iter()
                .flatten()
                .filter(|(_, update)| update["Action"].is_null() && is_set(&update["Value"]))
                .map(|(name, _)| name.as_str())
                .collect();
            let rest = [node, peer].map(|answer| {
                let mut answer = answer.clone();
                if let Some(attributes) = answer.body.get_mut("Attributes").and_then(Value::as_object_mut) {
                    attributes.retain(|name, _| !of_sets.contains(&name.as_str()));
                }
                answer
            });
            !of_sets.is_empty()
                && node.is_ok()
                && peer.is_ok()
                && compare::difference(request, &rest[0], &rest[1]).is_none()
        },
    },
];

/// Attributes that a legacy condition says do not contain something.
fn not_contained(conditions: &Value) -> Vec<&String> {
    let all = conditions.as_object().into_iter().flatten();
    let named = all.filter(|(_, condition)| condition["ComparisonOperator"] == "NOT_CONTAINS");
    named.map(|(name, _)| name).collect()
}

fn is_absent_not_contained(conditions: &Value) -> bool {
    !not_contained(conditions).is_empty()
}

/// An answer without anything that was updated.
fn is_empty_items(items: &Value) -> bool {
    let is_empty = |item: &Value| item.as_object().is_some_and(serde_json::Map::is_empty);
    items.as_array().is_some_and(|items| items.iter().all(is_empty))
}
