//! The DynamoDB operations.
//!
//! An operation decodes its request, refuses what is wrong with it in DynamoDB's order and words, carries it out through
//! the typed operations of [`Service`], and writes the answer straight from the stored items. Nothing is stored
//! before everything about the request has been checked; nothing of a request is ignored: a parameter that is not
//! built is refused by name.
//!
//! The order is DynamoDB's: the body's JSON and types, then the constraints of its shape together, then values and
//! combinations of parameters, then the table, then keys against the table's schema, then the condition.

pub mod error;

mod constraints;
mod decode;

mod service;
mod throttled;

mod capacity;
mod item;
mod table;

mod expressions;
mod legacy;
mod parsed;
mod projection;

mod update;
mod write;

mod batch;
mod cancellation;
mod index;
mod key_condition;
mod partiql;
mod partiql_batch;
mod partiql_select;
mod partiql_transaction;
mod query;
mod scan;
mod transact_get;
mod transact_write;

mod stream_iterator;
mod streams;

pub use capacity::{Capacity, ReturnCapacity};
pub(crate) use decode::no_parameters;
pub use error::ApiError;
pub use service::{PAGE_BYTES_MAX, Page, Query, Scan, Service};
pub(crate) use streams::is_of_streams;
