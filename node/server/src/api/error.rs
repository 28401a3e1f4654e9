//! The error that every operation answers with: DynamoDB's status, type and message.

use std::fmt;

use cairn_engine::mutation::ITEM_ARCHIVE_BYTES_MAX;
use cairn_engine::{EngineError, ErrorKind};
use cairn_item::ItemError;
use cairn_item::json::write_string;

/// Namespace of DynamoDB's own exceptions.
macro_rules! dynamodb {
    ($name:literal) => {
        concat!("com.amazonaws.dynamodb.v20120810#", $name)
    };
}

/// The request is understood but wrong.
pub const VALIDATION: &str = "com.amazon.coral.validate#ValidationException";
/// The request's body is not what the operation's shape allows.
pub const SERIALIZATION: &str = "com.amazon.coral.service#SerializationException";
/// No such operation, or one that is not built yet.
pub const UNKNOWN_OPERATION: &str = "com.amazon.coral.service#UnknownOperationException";
/// No such table.
pub const RESOURCE_NOT_FOUND: &str = dynamodb!("ResourceNotFoundException");
/// The table exists, or is being created or deleted.
pub const RESOURCE_IN_USE: &str = dynamodb!("ResourceInUseException");
/// No such table, of the operations on backups.
pub const TABLE_NOT_FOUND: &str = dynamodb!("TableNotFoundException");
/// The resource has no policy.
pub const POLICY_NOT_FOUND: &str = dynamodb!("PolicyNotFoundException");
/// What is asked for is somebody else's.
pub const ACCESS_DENIED: &str = "com.amazon.coral.service#AccessDeniedException";
/// A position in a stream whose records have passed their time.
pub const TRIMMED: &str = dynamodb!("TrimmedDataAccessException");
/// A shard iterator that is too old.
pub const EXPIRED_ITERATOR: &str = dynamodb!("ExpiredIteratorException");
/// DynamoDB's words for a condition that is false.
pub(crate) const CONDITION_FALSE: &str = "The conditional request failed";
/// A condition was false.
pub const CONDITIONAL_CHECK_FAILED: &str = dynamodb!("ConditionalCheckFailedException");
/// An INSERT of an item that exists.
pub const DUPLICATE_ITEM: &str = dynamodb!("DuplicateItemException");
/// An item collection would be larger than its table allows.
pub const COLLECTION_TOO_LARGE: &str = dynamodb!("ItemCollectionSizeLimitExceededException");
/// A plain write met an item that a transaction holds.
pub const TRANSACTION_CONFLICT: &str = dynamodb!("TransactionConflictException");
/// Nothing of a transaction was done; the reasons are with it.
pub const TRANSACTION_CANCELLED: &str = dynamodb!("TransactionCanceledException");
/// Another request with the same token is being carried out.
pub const TRANSACTION_IN_PROGRESS: &str = dynamodb!("TransactionInProgressException");
/// The token was another request's.
pub const IDEMPOTENT_MISMATCH: &str = dynamodb!("IdempotentParameterMismatchException");
/// Slow down; SDKs retry with back-off.
pub const THROUGHPUT_EXCEEDED: &str = dynamodb!("ProvisionedThroughputExceededException");
/// Too many control-plane requests at once.
pub const LIMIT_EXCEEDED: &str = dynamodb!("LimitExceededException");
/// The node could not do it, or does not know whether it did.
pub const INTERNAL: &str = dynamodb!("InternalServerError");
/// Not now; nothing was done. SDKs retry.
pub const UNAVAILABLE: &str = "com.amazon.coral.availability#ServiceUnavailableException";

/// What an operation answers when it does not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status: 400, 500 or 503.
    pub status: u16,
    /// Fully qualified exception type, the body's `__type`.
    pub kind: &'static str,
    /// For people; empty when DynamoDB sends none.
    pub message: String,
    /// Further members of the body, as JSON text `"Name":value`, without a leading comma; empty for none.
    pub extra: String,
}

impl ApiError {
    /// An error of `kind` with its usual status.
    #[must_use]
    pub fn new(kind: &'static str, message: impl Into<String>) -> ApiError {
        let status = match kind {
            INTERNAL => 500,
            UNAVAILABLE => 503,
            _ => 400,
        };
        ApiError {
            status,
            kind,
            message: message.into(),
            extra: String::new(),
        }
    }

    /// `ValidationException`.
    #[must_use]
    pub fn validation(message: impl Into<String>) -> ApiError {
        ApiError::new(VALIDATION, message)
    }

    /// `ValidationException` with the prefix that DynamoDB gives to most of them.
    #[must_use]
    pub fn parameters(message: impl fmt::Display) -> ApiError {
        ApiError::validation(format!("One or more parameter values were invalid: {message}"))
    }

    /// `SerializationException`.
    #[must_use]
    pub fn serialization(message: impl Into<String>) -> ApiError {
        ApiError::new(SERIALIZATION, message)
    }

    /// A parameter of DynamoDB that this node does not implement, or one that nobody knows.
    #[must_use]
    pub fn unsupported(parameter: &str) -> ApiError {
        ApiError::validation(format!("The parameter {parameter} is not supported"))
    }

    /// `InternalServerError`.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(INTERNAL, message)
    }

    /// Whether nothing was done, and the same request may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self.kind,
            THROUGHPUT_EXCEEDED | UNAVAILABLE | LIMIT_EXCEEDED | TRANSACTION_CONFLICT
        )
    }

    /// Whether it tells the client to slow down because of the throughput of a table or an index.
    #[must_use]
    pub(crate) fn is_throttled(&self) -> bool {
        self.kind == THROUGHPUT_EXCEEDED
    }

    /// Says what is throttled, each reason with the ARN of its resource.
    #[must_use]
    pub(crate) fn with_throttling_reasons<'a>(
        mut self,
        reasons: impl Iterator<Item = (&'a str, String)>,
    ) -> ApiError {
        let mut extra = b"\"ThrottlingReasons\":[".to_vec();
        for (place, (reason, resource)) in reasons.enumerate() {
            if place > 0 {
                extra.push(b',');
            }
            extra.extend_from_slice(b"{\"reason\":");
            write_string(&mut extra, reason);
            extra.extend_from_slice(b",\"resource\":");
            write_string(&mut extra, &resource);
            extra.push(b'}');
        }
        extra.push(b']');
        self.extra = String::from_utf8(extra).expect("JSON is UTF-8");
        self
    }

    /// The members that it has where it is the reason of a part of a request: of those a throttled one has none.
    pub(crate) fn extra_of_part(&self) -> &str {
        if self.is_throttled() { "" } else { &self.extra }
    }

    /// The exception's name without its namespace.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kind.rsplit('#').next().unwrap_or(self.kind)
    }

    /// Appends the response body.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"__type\":\"");
        out.extend_from_slice(self.kind.as_bytes());
        out.push(b'"');
        if !self.message.is_empty() {
            // Coral spells it so for the errors it raises before DynamoDB sees the request, and DynamoDB where there are reasons.
            let member: &[u8] = if matches!(self.kind, SERIALIZATION | TRANSACTION_CANCELLED) {
                b",\"Message\":"
            } else {
                b",\"message\":"
            };
            out.extend_from_slice(member);
            write_string(out, &self.message);
        }
        if !self.extra.is_empty() {
            out.push(b',');
            out.extend_from_slice(self.extra.as_bytes());
        }
        out.push(b'}');
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name(), self.message)
    }
}

impl std::error::Error for ApiError {}

/// Refuses an item whose archive is larger than an engine stores, though its DynamoDB size is allowed: hundreds of thousands of
/// sets with one empty member each.
///
/// # Errors
/// As for an item of more than 400 KB.
pub fn check_archive(archived: &[u8]) -> Result<(), ApiError> {
    if archived.len() > ITEM_ARCHIVE_BYTES_MAX {
        return Err(ItemError::ItemTooLarge.into());
    }
    Ok(())
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        let message = error.to_string();
        match error.kind() {
            // Keys are shorter by themselves, and so are items but for what `check_archive` says.
            ErrorKind::Invalid if matches!(error, EngineError::TooLarge { .. }) => {
                ItemError::ItemTooLarge.into()
            }
            ErrorKind::Throttle => ApiError::new(THROUGHPUT_EXCEEDED, message),
            ErrorKind::Retry | ErrorKind::Stopped | ErrorKind::Fenced => ApiError::new(UNAVAILABLE, message),
            // A partition that is gone belonged to a table that is gone.
            ErrorKind::NotFound => ApiError::new(RESOURCE_NOT_FOUND, "Requested resource not found"),
            ErrorKind::Invalid | ErrorKind::Unknown => ApiError::internal(message),
        }
    }
}
