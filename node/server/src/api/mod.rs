//! The DynamoDB operations: decoding, validation, execution, encoding.

mod error;
mod service;

pub use error::ApiError;
pub use service::Service;
