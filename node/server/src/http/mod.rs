//! The DynamoDB HTTP API on the wire.
//!
//! Read in this order: [`decode`] (bytes to requests, without I/O), [`encode`] (answers), [`server`] (listeners,
//! connections, limits and time-outs), `gzip` (compressed bodies), [`dynamodb`] (what a request to the API is), and
//! [`health`](dynamodb::Dynamodb) for what is not a request to the API.

pub mod decode;
pub mod encode;
mod gzip;
pub mod server;

pub mod dynamodb;

pub use dynamodb::{Dynamodb, Handler};
pub use gzip::GZIP_BYTES_MIN;
pub use server::{Application, Exchange, Limits, Server};
