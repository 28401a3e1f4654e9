//! What travels on a connection: frames of a 24-byte head and a body.
//!
//! ```text
//!  0        4    5     6        8             16            24
//!  +--------+----+-----+--------+-------------+-------------+------
//!  | length |kind|flags|reserved| request id  | checksum    | body
//!  +--------+----+-----+--------+-------------+-------------+------
//! ```
//! All integers are little-endian. `length` counts the body alone. `checksum` is
//! xxh3-64 of the body, seeded with the xxh3-64 of head bytes 0..16 under [`CHECKSUM_SEED`], so that a damaged
//! length, kind or id shows as well.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 24;

/// Largest body, bytes: a batch of 25 items of 400 KB with room for names and keys, as DynamoDB's own 16 MB.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Seed of the frame checksum: the ASCII bytes `CAIRNFRM`.
pub const CHECKSUM_SEED: u64 = u64::from_le_bytes(*b"CAIRNFRM");

/// What a frame's body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Client: opens the handshake.
    Hello = 1,
    /// Node: answers with its nonce and limits.
    Challenge = 2,
    /// Client: proves its secret.
    Proof = 3,
    /// Node: proves the secret back and gives the partition map.
    Welcome = 4,
    /// Node: ends the connection with a reason.
    Refused = 5,
    /// Client: one request.
    Request = 16,
    /// Node: the answer to a request.
    Response = 17,
    /// Node: the request failed.
    Failure = 18,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Challenge,
            3 => Kind::Proof,
            4 => Kind::Welcome,
            5 => Kind::Refused,
            16 => Kind::Request,
            17 => Kind::Response,
            18 => Kind::Failure,
            _ => return None,
        })
    }
}

/// Why a connection's bytes are no frame. The connection cannot go on: where the next frame begins is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body would be longer than [`BODY_BYTES_MAX`].
    #[error("a frame announces a body of {0} bytes, at most {BODY_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The checksum does not match.
    #[error("the checksum of a frame does not match: bytes changed on the way")]
    Checksum,
    /// The kind is unknown.
    #[error("frame kind {0} is unknown to version {version} of the protocol", version = crate::VERSION)]
    Kind(u8),
    /// Reserved bits are set.
    #[error("reserved bits of a frame are set")]
    Reserved,
}

/// One frame, borrowed from a receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body holds.
    pub kind: Kind,
    /// Chosen by the client, repeated in the answer; 0 in the handshake.
    pub request_id: u64,
    /// The body.
    pub body: &'a [u8],
}

/// Finds the first frame in `received`: the frame and how many bytes it took, or `None` when more must arrive.
///
/// # Errors
/// [`FrameError`]; the connection must be closed.
pub fn decode(received: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some((head, rest)) = received.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if length > BODY_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let stated = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
    if checksum(&head[..16], body) != stated {
        return Err(FrameError::Checksum);
    }
    let kind = Kind::from_byte(head[4]).ok_or(FrameError::Kind(head[4]))?;
    if head[5..8] != [0; 3] {
        return Err(FrameError::Reserved);
    }
    let request_id = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
    Ok(Some((
        Frame {
            kind,
            request_id,
            body,
        },
        HEAD_BYTES + length,
    )))
}

/// Bytes of the whole frame that `received` begins with, once enough of its head is there to say so. Nothing of it has been
/// checked.
#[must_use]
pub fn announced(received: &[u8]) -> Option<usize> {
    let length = received.first_chunk()?;
    Some(HEAD_BYTES + u32::from_le_bytes(*length) as usize)
}

/// Appends a frame whose body `write` appends.
///
/// # Panics
/// When the body exceeds [`BODY_BYTES_MAX`]: for callers that bound what they send.
pub fn encode(into: &mut Vec<u8>, kind: Kind, request_id: u64, write: impl FnOnce(&mut Vec<u8>)) {
    try_encode(into, kind, request_id, write).expect("the caller bounds what it sends");
}

/// As [`encode`], for what only its writing shows the length of.
///
/// # Errors
/// [`FrameError::TooLong`]; nothing was appended.
pub fn try_encode(
    into: &mut Vec<u8>,
    kind: Kind,
    request_id: u64,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), FrameError> {
    let start = into.len();
    into.extend_from_slice(&[0; HEAD_BYTES]);
    write(into);
    let length = into.len() - start - HEAD_BYTES;
    if length > BODY_BYTES_MAX {
        into.truncate(start);
        return Err(FrameError::TooLong(length));
    }
    let (head, body) = into[start..].split_at_mut(HEAD_BYTES);
    head[..4].copy_from_slice(&u32::try_from(length).expect("bounded above").to_le_bytes());
    head[4] = kind as u8;
    head[8..16].copy_from_slice(&request_id.to_le_bytes());
    let sum = checksum(&head[..16], body);
    head[16..].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

fn checksum(head: &[u8], body: &[u8]) -> u64 {
    // Chained instead of joined: hashing head and body as one run would copy the body or set up the streaming state.
    xxh3_64_with_seed(body, xxh3_64_with_seed(head, CHECKSUM_SEED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::Request, 7, |into| into.extend_from_slice(body));
        bytes
    }

    #[test]
    fn frames_survive_the_round_trip_at_every_split() {
        for length in [0, 1, 100, 70_000] {
            let body: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();
            let bytes = frame(&body);
            for split in [0, 1, HEAD_BYTES - 1, HEAD_BYTES, bytes.len() - 1] {
                if split < bytes.len() {
                    assert_eq!(decode(&bytes[..split]), Ok(None));
                }
            }
            let expected = Frame {
                kind: Kind::Request,
                request_id: 7,
                body: &body,
            };
            assert_eq!(decode(&bytes), Ok(Some((expected, bytes.len()))));
        }
    }

    #[test]
    fn what_does_not_fit_a_frame_leaves_nothing_behind() {
        let mut bytes = frame(b"before");
        let before = bytes.clone();
        let write = |length| move |into: &mut Vec<u8>| into.resize(into.len() + length, 7);
        let outcome = try_encode(&mut bytes, Kind::Response, 8, write(BODY_BYTES_MAX + 1));
        assert_eq!(outcome, Err(FrameError::TooLong(BODY_BYTES_MAX + 1)));
        assert_eq!(bytes, before);
        assert_eq!(
            try_encode(&mut bytes, Kind::Response, 8, write(BODY_BYTES_MAX)),
            Ok(())
        );
        assert_eq!(announced(&bytes[..3]), None);
        assert_eq!(announced(&bytes), Some(before.len()));
        assert!(matches!(decode(&bytes[before.len()..]), Ok(Some(_))));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = frame(b"some body");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A longer length only means that more has to arrive; everything else is an error.
            assert!(!matches!(decode(&changed), Ok(Some(_))), "bit {bit}");
        }
    }
}
