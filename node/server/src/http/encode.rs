//! HTTP answers, appended to one buffer per connection.
//!
//! The head of a DynamoDB answer has a fixed length, so that the body is written behind it in place and the
//! checksum and length are filled in afterwards: both are padded with spaces on the left, which HTTP allows in
//! front of a value.

use std::fmt;

/// Digits that a request id is made of.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
/// Length of a request id, as DynamoDB's are.
const ID_BYTES: usize = 52;

/// What ties an answer to a log line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u64; 4]);

impl RequestId {
    /// An id spread from one number that is unique on this node.
    #[must_use]
    pub fn spread(seed: u64) -> RequestId {
        let mut state = seed;
        RequestId(std::array::from_fn(|_| {
            // splitmix64
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ (mixed >> 31)
        }))
    }

    /// 52 digits and capital letters.
    #[must_use]
    pub fn text(&self) -> [u8; ID_BYTES] {
        let mut text = [b'0'; ID_BYTES];
        for (word, digits) in self.0.iter().zip(text.chunks_exact_mut(ID_BYTES / 4)) {
            let mut word = *word;
            for digit in digits {
                *digit = DIGITS[(word & 31) as usize];
                word >>= 5;
            }
        }
        text
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// How the connection goes on behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// HTTP/1.1's default: kept, not said.
    Keep,
    /// Kept, and said so to an HTTP/1.0 client.
    KeepSaid,
    /// Closed.
    Close,
}

impl After {
    /// The header that says so.
    #[must_use]
    pub fn header(self) -> &'static [u8] {
        match self {
            After::Keep => b"",
            After::KeepSaid => b"Connection: keep-alive\r\n",
            After::Close => b"Connection: close\r\n",
        }
    }
}

const CHECKSUM_DIGITS: usize = 10;
const LENGTH_DIGITS: usize = 9;
const CHECKSUM: &[u8] = b"\r\nx-amz-crc32: ";
const LENGTH: &[u8] = b"\r\nContent-Length: ";
const END: &[u8] = b"\r\n\r\n";

/// An answer whose body is being written. Made by [`begin`].
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    start: usize,
    checksum: usize,
    body: usize,
}

/// The answer's content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// `application/x-amz-json-1.0`
    AmzJson,
    /// `application/json`
    Json,
}

impl Begun {
    /// Where the body begins.
    #[must_use]
    pub fn body(&self) -> usize {
        self.body
    }
}

/// Appends the head of a DynamoDB answer; the body is appended by the caller, then [`finish`].
/// `headers` are further lines with their ends.
pub fn begin(
    out: &mut Vec<u8>,
    status: u16,
    headers: &str,
    content: Content,
    after: After,
    id: &RequestId,
) -> Begun {
    let start = out.len();
    out.reserve(512);
    let line: &[u8] = match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        403 => b"HTTP/1.1 403 Forbidden\r\n",
        413 => b"HTTP/1.1 413 Request Entity Too Large\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\n",
        _ => b"HTTP/1.1 500 Internal Server Error\r\n",
    };
    out.extend_from_slice(line);
    out.extend_from_slice(headers.as_bytes());
    out.extend_from_slice(after.header());
    out.extend_from_slice(match content {
        Content::AmzJson => b"Content-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: ".as_slice(),
        Content::Json => b"Content-Type: application/json\r\nx-amzn-RequestId: ".as_slice(),
    });
    out.extend_from_slice(&id.text());
    out.extend_from_slice(CHECKSUM);
    let checksum = out.len();
    out.extend_from_slice(&[b' '; CHECKSUM_DIGITS]);
    out.extend_from_slice(LENGTH);
    out.extend_from_slice(&[b' '; LENGTH_DIGITS]);
    out.extend_from_slice(END);
    Begun {
        start,
        checksum,
        body: out.len(),
    }
}

/// Fills in what depends on the body, which is everything behind the head.
pub fn finish(out: &mut [u8], begun: Begun) {
    let (head, body) = out.split_at_mut(begun.body);
    let length = begun.checksum + CHECKSUM_DIGITS + LENGTH.len();
    number(
        &mut head[begun.checksum..begun.checksum + CHECKSUM_DIGITS],
        u64::from(crc32fast::hash(body)),
    );
    number(&mut head[length..length + LENGTH_DIGITS], body.len() as u64);
}

/// Takes back what was begun.
pub fn abandon(out: &mut Vec<u8>, begun: Begun) {
    out.truncate(begun.start);
}

/// Writes `value` into the end of `field`, which is wide enough.
fn number(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return;
        }
    }
    assert_eq!(value, 0, "an answer is shorter than 10^9 bytes");
}

/// Appends a whole answer that is not a DynamoDB operation's. `headers` are lines with their ends. Whoever answers
/// `HEAD` takes the body off again: the length is said all the same.
pub fn plain(
    out: &mut Vec<u8>,
    (status, reason): (u16, &str),
    content_type: &str,
    headers: &str,
    after: After,
    body: &[u8],
) {
    use std::io::Write;
    write!(
        out,
        "HTTP/1.1 {status} {reason}\r\n{headers}Content-Type: {content_type}\r\nContent-Length: {}\r\n",
        body.len()
    )
    .expect("a Vec takes all bytes");
    out.extend_from_slice(after.header());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_filled_in() {
        let mut out = b"before".to_vec();
        let id = RequestId::spread(7);
        let begun = begin(&mut out, 200, "", Content::AmzJson, After::Keep, &id);
        out.extend_from_slice(b"{}");
        finish(&mut out, begun);
        let text = String::from_utf8(out).unwrap();
        expect_test::expect![[r#"
            beforeHTTP/1.1 200 OK
            Content-Type: application/x-amz-json-1.0
            x-amzn-RequestId: NE34JCHS1VI76SGPO3QVQS1J802GA2BT2G026DEBEASJJ1EBNEA9
            x-amz-crc32: 2745614147
            Content-Length:         2

            {}"#]]
        .assert_eq(&text.replace('\r', ""));
    }

    #[test]
    fn ids_are_distinct() {
        let mut seen: Vec<_> = (0..1000).map(|seed| RequestId::spread(seed).text()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn numbers_fill_from_the_right() {
        for (value, text) in [(0, "    0"), (7, "    7"), (42, "   42"), (99_999, "99999")] {
            let mut field = [b' '; 5];
            number(&mut field, value);
            assert_eq!(field, text.as_bytes());
        }
    }
}
