//! Compressed bodies.
//!
//! - A compressed request is expanded after its signature was checked, up to the size of a plain one. All that are expanded at
//!   the same time on a shard share a budget, so that many small requests do not become much memory.
//! - An answer is compressed when the client takes that and it pays.
//! - Both go piece by piece, and the shard's other tasks have their turn in between: 64 KiB take well under a
//!   millisecond.

use std::cell::Cell;
use std::io::{self, Read, Write};

use cairn_runtime::Runtime;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::decode::BODY_BYTES_MAX;

/// Answers shorter than this are sent as they are: they fit a packet or two anyway.
pub const GZIP_BYTES_MIN: usize = 1024;
/// Bytes expanded or compressed before others have their turn.
const PIECE_BYTES: usize = 64 * 1024;

/// What expanded requests may take at the same time.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_left: Cell<usize>,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget {
            bytes_left: Cell::new(bytes),
        }
    }
}

/// An expanded body; its share of the budget is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Expanded<'a> {
    pub bytes: Vec<u8>,
    reserved: usize,
    budget: &'a Budget,
}

impl Expanded<'_> {
    fn reserve(&mut self, bytes: usize) -> bool {
        match self.budget.bytes_left.get().checked_sub(bytes) {
            Some(left) => {
                self.budget.bytes_left.set(left);
                self.reserved += bytes;
                true
            }
            None => false,
        }
    }
}

impl Drop for Expanded<'_> {
    fn drop(&mut self) {
        let left = self.budget.bytes_left.get();
        self.budget.bytes_left.set(left + self.reserved);
    }
}

/// Why a body was not expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not what gzip writes.
    Malformed,
    /// It becomes longer than a body may be.
    TooLarge,
    /// Others take all of the budget.
    Busy,
}

/// Expands a body.
pub(super) async fn expand<'a, R: Runtime>(
    runtime: &R,
    budget: &'a Budget,
    body: &[u8],
) -> Result<Expanded<'a>, Refused> {
    let mut expanded = Expanded {
        bytes: Vec::new(),
        reserved: 0,
        budget,
    };
    let mut decoder = MultiGzDecoder::new(body);
    loop {
        let start = expanded.bytes.len();
        if !expanded.reserve(PIECE_BYTES) {
            return Err(Refused::Busy);
        }
        expanded.bytes.reserve(PIECE_BYTES);
        let read = (&mut decoder)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut expanded.bytes)
            .map_err(|_| Refused::Malformed)?;
        assert_eq!(start + read, expanded.bytes.len(), "what was read was appended");
        if expanded.bytes.len() > BODY_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        if read < PIECE_BYTES {
            return Ok(expanded);
        }
        runtime.yield_now().await;
    }
}

/// Compresses an answer.
pub(super) async fn compress<R: Runtime>(runtime: &R, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    for piece in body.chunks(PIECE_BYTES) {
        encoder.write_all(piece)?;
        runtime.yield_now().await;
    }
    encoder.finish()
}

/// Whether the value of an `Accept-Encoding` header takes gzip.
pub(super) fn is_accepted_by(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|coding| {
        let mut parts = coding.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            let weight = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="));
            weight.is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
        });
        name.eq_ignore_ascii_case(b"gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip() {
        for (value, accepted) in [
            ("gzip", true),
            ("identity", false),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, deflate", false),
            ("gzip;q=1.0", true),
            ("x-gzip", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(is_accepted_by(value.as_bytes()), accepted, "{value}");
        }
    }
}
