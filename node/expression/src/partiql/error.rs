//! What can be wrong with a statement, in DynamoDB's words.

use std::fmt;

use crate::error::{ExpressionError, Span};

/// A statement, or its use of a request's parameters, is refused. `Display` is the message of DynamoDB's
/// `ValidationException`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementError {
    message: String,
    /// Where, if it is one place of the statement's text.
    pub span: Option<Span>,
}

impl StatementError {
    /// The text is no statement; `detail` is what DynamoDB adds to saying so.
    pub(super) fn syntax(detail: &str, span: Span) -> StatementError {
        StatementError {
            message: format!("Statement wasn't well formed, can't be processed: {detail}"),
            span: Some(span),
        }
    }

    /// The statement says something that is not allowed.
    pub(super) fn refused(message: impl Into<String>, span: Option<Span>) -> StatementError {
        StatementError {
            message: message.into(),
            span,
        }
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for StatementError {}

/// Statements have no parameters such as `ConditionExpression` to name.
impl From<ExpressionError> for StatementError {
    fn from(error: ExpressionError) -> StatementError {
        StatementError {
            message: error.problem.to_string(),
            span: error.span,
        }
    }
}
