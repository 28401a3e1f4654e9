//! How operations become bytes of a connection, and bytes become answers.
//!
//! Both protocols answer to the same face: [`Wire::encode`] appends a request for a slot, [`Wire::decode`] takes the
//! first whole answer from what was received and says which slot it belongs to.

mod http;
pub(crate) mod json;
mod native;
mod sign;

use std::io;

use cairn_runtime::{Connection, Runtime};

use crate::options::{Common, Protocol};
use crate::workload::{Operation, Shape};

pub(crate) use http::Http;
pub(crate) use native::Native;

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, and what was read is what must be there.
    Good,
    /// The node answered with an error: its name.
    Failed(String),
    /// The item read is not there.
    Missing,
    /// The item read is not one that was ever written.
    Wrong,
    /// The item read had been overwritten before the read began.
    Stale,
    /// A transaction read a part of what another one had written.
    Torn,
}

impl Outcome {
    /// What went wrong, if anything.
    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Outcome::Good => None,
            Outcome::Failed(name) => Some(name),
            Outcome::Missing => Some("item missing"),
            Outcome::Wrong => Some("item wrong"),
            Outcome::Stale => Some("item stale"),
            Outcome::Torn => Some("transaction torn"),
        }
    }

    /// Data is lost or spoilt: no rate of errors excuses that.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(
            self,
            Outcome::Missing | Outcome::Wrong | Outcome::Stale | Outcome::Torn
        )
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) slot: usize,
    pub(crate) outcome: Outcome,
    /// The generation of an item that was read well.
    pub(crate) generation: Option<u64>,
    /// Bytes of the receive buffer that it took.
    pub(crate) taken: usize,
}

/// One connection's protocol state.
pub(crate) enum Wire {
    Http(Box<Http>),
    Native(Box<Native>),
}

/// What every connection of a run shares.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) common: Common,
    pub(crate) shape: Shape,
    pub(crate) consistent: bool,
    /// The run's generations are greater, by less than 2^32.
    pub(crate) before: u64,
}

impl Wire {
    /// Prepares a fresh connection: the handshake, for the native protocol.
    pub(crate) async fn open<R: Runtime>(
        runtime: &R,
        connection: &R::Connection,
        settings: &Settings,
    ) -> io::Result<Wire> {
        Ok(match settings.common.target.protocol {
            Protocol::Http => Wire::Http(Box::new(Http::new(runtime, settings))),
            Protocol::Native => Wire::Native(Box::new(Native::open(runtime, connection, settings).await?)),
        })
    }

    pub(crate) fn encode(&mut self, into: &mut Vec<u8>, slot: usize, operation: Operation, unix_ms: u64) {
        match self {
            Wire::Http(http) => http.encode(into, slot, operation, unix_ms),
            Wire::Native(native) => native.encode(into, slot, operation),
        }
    }

    /// The first whole answer in `received`; `operation` tells what a slot had asked for. An error ends the
    /// connection.
    pub(crate) fn decode(
        &mut self,
        received: &[u8],
        operation: impl Fn(usize) -> Option<Operation>,
    ) -> io::Result<Option<Answer>> {
        match self {
            Wire::Http(http) => http.decode(received, operation),
            Wire::Native(native) => native.decode(received, operation),
        }
    }

    /// One operation by its DynamoDB name, outside the measured load. Answers with its body, or the error's name.
    pub(crate) async fn call<C: Connection>(
        &mut self,
        connection: &C,
        name: &str,
        body: &str,
        unix_ms: u64,
    ) -> io::Result<Result<Vec<u8>, String>> {
        match self {
            Wire::Http(http) => http.call(connection, name, body, unix_ms).await,
            Wire::Native(native) => native.call(connection, name, body).await,
        }
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// A checked item as outcome and generation.
fn read(checked: Result<u64, Outcome>) -> (Outcome, Option<u64>) {
    match checked {
        Ok(generation) => (Outcome::Good, Some(generation)),
        Err(outcome) => (outcome, None),
    }
}

/// The part of a DynamoDB error type after `#`.
fn error_name(kind: &str) -> String {
    kind.rsplit('#').next().unwrap_or(kind).to_owned()
}
