//! Operations on tables and streams.

use serde_json::Value;

use super::Known;
use super::shape::{has, list};

pub(super) static RULES: &[Known] = &[
    Known {
        name: "an empty list of indexes",
        source: "table captures, DDB-TABLE-043: refused; Local takes it for absent",
        is: |request, node, peer| {
            let lists = ["LocalSecondaryIndexes", "GlobalSecondaryIndexes"];
            has(&request.body, &lists, |value| value == &serde_json::json!([]))
                && peer.is_ok()
                && node.message().ends_with("SecondaryIndexes is empty")
        },
    },
    Known {
        name: "throughput of a table that is paid per request",
        source: "table captures: refused; Local takes it",
        is: |request, node, peer| {
            peer.is_ok()
                && request.body["ProvisionedThroughput"].is_object()
                && node
                    .message()
                    .ends_with("can be specified when BillingMode is PAY_PER_REQUEST")
        },
    },
    Known {
        name: "a change of a table beside its protection",
        source: "table captures: it must be the only one; Local takes several",
        is: |request, node, peer| {
            peer.is_ok()
                && request.body["DeletionProtectionEnabled"].is_boolean()
                && request.body.as_object().is_some_and(|members| members.len() > 2)
                && node
                    .message()
                    .ends_with("modification must be the only operation in the request")
        },
    },
    Known {
        name: "throughput of an index of a table that is paid per request",
        source: "table captures: refused; Local takes it",
        is: |request, node, peer| {
            peer.is_ok()
                && has_throughput_of_index(&request.body)
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
                && has(
                    &request.body,
                    &["ReadCapacityUnits", "WriteCapacityUnits"],
                    |units| units == 0,
                )
                && has_throughput_of_index(&request.body)
                && node.message().contains("rovisionedThroughput.")
                && node
                    .message()
                    .ends_with("Member must have value greater than or equal to 1")
        },
    },
    Known {
        name: "throughput for an index that is not there",
        source: "nubo-db/dynoxide, and the live service for the deletion of one: ResourceNotFoundException; Local in words of its own",
        is: |request, node, peer| {
            let updates = list(&request.body["GlobalSecondaryIndexUpdates"]);
            let is_update = |update: &Value| update["Update"]["IndexName"].is_string();
            updates.iter().any(is_update)
                && node.error() == "ResourceNotFoundException"
                && node.message().starts_with("Requested resource not found: Index ")
                && peer.message() == "Invalid global secondary index name"
        },
    },
    Known {
        name: "the billing mode that a table has, without throughput",
        source: "table captures: refused whatever it was; Local takes it",
        is: |request, node, peer| {
            peer.is_ok()
                && request.operation == "UpdateTable"
                && request.body["BillingMode"] == "PROVISIONED"
                && request.body["ProvisionedThroughput"].is_null()
                && node
                    .message()
                    .ends_with("ProvisionedThroughput must be specified when BillingMode is PROVISIONED")
        },
    },
    Known {
        name: "the stream of a deleted table",
        source: "docs/compatibility.md: it goes with its table; Local shows it as that of the next table of the name",
        is: |request, node, peer| {
            request.operation == "GetRecords"
                && request.body[crate::tables::HAD_STREAM] == false
                && node.body["Records"].is_null()
                && peer.is_ok()
        },
    },
    Known {
        name: "tags",
        source: "Local: Tagging is not currently supported in DynamoDB Local",
        is: |request, _, peer| {
            request.operation.contains("Resource")
                && peer.message().starts_with("Tagging is not currently supported")
        },
    },
];

fn has_throughput_of_index(body: &Value) -> bool {
    let given = |index: &Value| has(index, &["ProvisionedThroughput"], |value| value.is_object());
    ["GlobalSecondaryIndexUpdates", "GlobalSecondaryIndexes"]
        .iter()
        .any(|name| list(&body[name]).iter().any(given))
}
