//! Why a transaction was cancelled: one reason for each of its items, in their order.

use cairn_item::json::write_string;
use cairn_runtime::Runtime;

use super::error::{
    COLLECTION_TOO_LARGE, CONDITIONAL_CHECK_FAILED, DUPLICATE_ITEM, LIMIT_EXCEEDED, RESOURCE_NOT_FOUND,
    THROUGHPUT_EXCEEDED, TRANSACTION_CANCELLED, TRANSACTION_CONFLICT, VALIDATION,
};
use super::{ApiError, Service};

/// DynamoDB's words for two of a transaction's parts that are about one item.
pub(super) const SEVERAL_OPERATIONS: &str =
    "Transaction request cannot include multiple operations on one item";
/// And for items that are larger than that together.
pub(super) const TOO_LARGE: &str = "Collection size of items exceeded, which can also be caused by the aggregate size of the \
     items in the transaction exceeding the 4MB limit";
/// Items of one transaction.
pub(super) const ITEMS_MAX: usize = 100;

/// A reason's code.
fn code(kind: &str) -> &'static str {
    match kind {
        VALIDATION => "ValidationError",
        CONDITIONAL_CHECK_FAILED => "ConditionalCheckFailed",
        TRANSACTION_CONFLICT => "TransactionConflict",
        COLLECTION_TOO_LARGE => "ItemCollectionSizeLimitExceeded",
        DUPLICATE_ITEM => "DuplicateItem",
        RESOURCE_NOT_FOUND => "ResourceNotFound",
        THROUGHPUT_EXCEEDED | LIMIT_EXCEEDED => "ThrottlingError",
        _ => "InternalServerError",
    }
}

impl<R: Runtime> Service<R> {
    /// As [`cancelled`], and counted.
    pub(super) fn cancelled(&self, reasons: &[Option<ApiError>]) -> ApiError {
        let codes = reasons.iter().flatten().map(|error| code(error.kind));
        self.transactions().cancelled(codes);
        cancelled(reasons)
    }
}

/// The error that gives these reasons; the items without one are not to blame.
fn cancelled(reasons: &[Option<ApiError>]) -> ApiError {
    let codes: Vec<&str> = reasons
        .iter()
        .map(|reason| reason.as_ref().map_or("None", |error| code(error.kind)))
        .collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let mut extra = b"\"CancellationReasons\":[".to_vec();
    for (place, (reason, code)) in reasons.iter().zip(codes).enumerate() {
        if place > 0 {
            extra.push(b',');
        }
        extra.extend_from_slice(b"{\"Code\":");
        write_string(&mut extra, code);
        if let Some(error) = reason {
            if !error.extra_of_part().is_empty() {
                extra.push(b',');
                extra.extend_from_slice(error.extra_of_part().as_bytes());
            }
            extra.extend_from_slice(b",\"Message\":");
            write_string(&mut extra, &error.message);
        }
        extra.push(b'}');
    }
    extra.push(b']');
    let mut error = ApiError::new(TRANSACTION_CANCELLED, message);
    error.extra = String::from_utf8(extra).expect("JSON is UTF-8");
    error
}
