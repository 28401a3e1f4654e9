//! Requests and responses, borrowed from the frames that hold them.
//!
//! A request opens with a head that is the same for every operation (see [`Request`]); items travel as
//! `cairn-item` archives, which the receiver validates before it looks inside.

mod failure;
mod request;
pub mod response;
mod table;

pub use failure::{Failure, Retry};
pub use request::{
    Key, KeyPart, Operation, OperationCode, Request, SortCondition, WRITE_DELETE, WRITE_PUT, Write,
};
pub use response::{BatchGetStatus, Page};
pub use table::{KeyAttribute, Partition, Table};

/// Keys of one BatchGet, as DynamoDB's limit.
pub const BATCH_GET_KEYS_MAX: usize = 100;

/// Writes of one BatchWrite, as DynamoDB's limit.
pub const BATCH_WRITES_MAX: usize = 25;

/// Bytes of a page cursor.
pub const CURSOR_BYTES_MAX: usize = 8192;

#[cfg(test)]
pub(crate) mod tests;
