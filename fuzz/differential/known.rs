//! What differs on purpose, with its source. docs/compatibility.md has the same rows in words.

use crate::client::Answer;
use crate::compare;
use crate::requests::Request;

/// A difference that is meant to be.
struct Known {
    name: &'static str,
    source: &'static str,
    is: fn(&Request, &Answer, &Answer) -> bool,
}

const KNOWN: [Known; 17] = [
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
        name: "an UpdateItem that gives an index's key attribute another type",
        source: "nubo-db/dynoxide, and the live service for PutItem: refused; Local stores it",
        is: |request, node, peer| {
            request.operation == "UpdateItem"
                && node.message().contains("Type mismatch for Index Key")
                && !peer.message().contains("Type mismatch")
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
            returns.starts_with("UPDATED_") && update.contains(['.', '[']) && node.is_ok() && peer.is_ok()
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
];

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
