//! Requests that failed.

use crate::wire::{Reader, WireError, put_text};

/// What the caller of a failed request should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Retry {
    /// Mend the request: sent again it fails again.
    Never = 0,
    /// Wait, then send it again: nothing was done.
    Later = 1,
    /// Fetch the table's description again, then send the request to the right place: nothing was done.
    Remap = 2,
    /// It is not known whether the request was carried out; only reads may be sent again.
    Unknown = 3,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {message}")]
pub struct Failure {
    /// The HTTP status that the same failure has over HTTP.
    pub status: u16,
    /// What to do.
    pub retry: Retry,
    /// DynamoDB's name of the error, such as `ResourceNotFoundException`, or `WrongPartition`.
    pub name: String,
    /// DynamoDB's message.
    pub message: String,
    /// With `WrongPartition`, the epoch of the node's map; else 0.
    pub epoch: u64,
    /// The error as over HTTP, when that is how the request was written; else empty.
    pub json: Vec<u8>,
}

impl Failure {
    /// Appends the failure.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.status.to_le_bytes());
        into.push(self.retry as u8);
        into.extend_from_slice(&self.epoch.to_le_bytes());
        put_text(into, &self.name);
        put_text(into, &self.message);
        into.extend_from_slice(&self.json);
    }

    /// Reads a failure.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(body: &[u8]) -> Result<Failure, WireError> {
        let mut reader = Reader::new(body);
        let status = reader.u16("status")?;
        let retry = match reader.u8("retry")? {
            0 => Retry::Never,
            1 => Retry::Later,
            2 => Retry::Remap,
            3 => Retry::Unknown,
            other => {
                return Err(WireError::Unknown {
                    field: "retry",
                    value: u64::from(other),
                });
            }
        };
        let epoch = reader.u64("epoch")?;
        let name = reader.text("name")?.to_owned();
        let message = reader.text("message")?.to_owned();
        let json = reader.take_rest().to_vec();
        Ok(Failure {
            status,
            retry,
            name,
            message,
            epoch,
            json,
        })
    }
}
