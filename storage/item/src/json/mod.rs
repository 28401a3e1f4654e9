//! DynamoDB's JSON without a DOM: a pull parser for request bodies and a writer for answers.
//!
//! The parser makes one pass over the body and allocates only what ends up in values. It reads JSON as RFC 8259 has it:
//! any whitespace, all escapes, surrogate pairs, UTF-8 checked once for the whole body. Nesting is limited to
//! [`JSON_DEPTH_MAX`], so that neither its stack nor its caller's is in the hands of a client.
//!
//! Two kinds of errors, as in DynamoDB: what is not the expected JSON is a [`JsonError`] (`SerializationException`), ends
//! the parse and comes first even when it stands last; a value that is not allowed is an [`ItemError`]
//! (`ValidationException`). [`Reader::checked_item`] and [`Reader::checked_value`] report the latter separately and go on
//! behind the value, so that the caller can finish the body and judge its other parameters first.

mod attribute;
mod base64;
mod reader;
mod scan;
mod writer;

pub use base64::{decode_base64, write_base64};
pub use reader::{JSON_DEPTH_MAX, JsonKind, Reader};
pub use writer::{write_item, write_item_view, write_string, write_value, write_value_view};

use thiserror::Error;

use crate::{ErrorKind, ItemError};

/// A body that is not the JSON that was expected: `SerializationException`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct JsonError {
    /// DynamoDB's message text, or a description where DynamoDB sends none.
    pub message: String,
    /// Byte position in the body.
    pub position: usize,
    /// Whether the body is not JSON at all; DynamoDB then answers without a message.
    pub malformed: bool,
}

/// Whatever can be wrong with a value in a body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// Not the expected JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not an allowed value.
    #[error(transparent)]
    Item(#[from] ItemError),
}

impl Error {
    /// Which exception the client must be given.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Json(_) => ErrorKind::Serialization,
            Error::Item(_) => ErrorKind::Validation,
        }
    }
}
