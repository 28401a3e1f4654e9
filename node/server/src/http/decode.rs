//! HTTP/1 requests from a growing buffer, without I/O.
//!
//! 1. The head is parsed by `httparse` as soon as the buffer can hold a whole one. While it is incomplete, only
//!    new bytes are searched for its end, so that a head sent byte by byte costs linear time.
//! 2. A head says how its body is framed. What could be understood in two ways, and so smuggle a request past a
//!    proxy (both `Content-Length` and `Transfer-Encoding`, or one of them twice), is malformed.
//! 3. A body with a length is waited for; a chunked one is joined in place, right behind its head.
//! 4. A complete request borrows from the buffer; nothing is copied.

use std::fmt;
use std::mem::MaybeUninit;

use httparse::Header;
use memchr::memchr;

use super::gzip;

/// Longest request head in bytes, request line included.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request; SDKs send about fifteen.
pub const HEADERS_MAX: usize = 64;
/// Longest request body in bytes: DynamoDB's limit.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest line that announces a chunk, and longest line of a trailer.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Most bytes of trailers behind a chunked body.
const TRAILER_BYTES_MAX: usize = 4096;

/// Uninitialised room for the headers of one request.
pub type HeaderRoom<'b> = [MaybeUninit<Header<'b>>; HEADERS_MAX];

/// A complete request; everything is borrowed from the input buffer.
#[derive(Debug)]
pub struct Request<'h, 'b> {
    /// The request line and headers.
    pub head: Head<'h, 'b>,
    /// The whole body.
    pub body: &'b [u8],
    /// Bytes of the input that the request took up; the next request begins behind them.
    pub consumed: usize,
}

/// A request line and its headers. Headers that the server itself acts on are looked up once.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    /// Such as `POST`.
    pub method: &'b str,
    /// Path and query as sent.
    pub target: &'b str,
    /// All headers in the order sent.
    pub headers: &'h [Header<'b>],
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// HTTP/1.0: the answer must say when the connection is kept.
    pub old: bool,
    /// `X-Amz-Target`.
    pub operation: Option<&'b [u8]>,
    /// `Content-Type`.
    pub content_type: Option<&'b [u8]>,
    /// `Authorization`.
    pub authorization: Option<&'b [u8]>,
    /// `Origin`: the request comes from a web page.
    pub origin: Option<&'b [u8]>,
    /// `Content-Encoding`
    pub content_encoding: Option<&'b [u8]>,
    /// The client takes compressed answers.
    pub accepts_gzip: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    framing: Framing,
}

impl<'b> Head<'_, 'b> {
    /// The value of the first header of that name, which is compared without regard to case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

/// What the input holds so far.
#[derive(Debug)]
pub enum Progress<'h, 'b> {
    /// Wait for more bytes. `total` is how long the input will be at least, where that is known.
    Incomplete {
        /// Bytes from the start of the request; 0 when unknown.
        total: usize,
        /// The head, when its body is awaited from now on. Said once per request.
        head: Option<Head<'h, 'b>>,
    },
    /// A chunked body begins, said once per request: call [`Decoder::join`], then decode again.
    Chunked {
        /// The head.
        head: Head<'h, 'b>,
    },
    /// A request.
    Complete(Request<'h, 'b>),
}

/// Why a connection cannot go on. The status is answered and the connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not HTTP/1, or a head that breaks its grammar.
    Syntax(&'static str),
    /// The head is longer than [`HEAD_BYTES_MAX`] or has more than [`HEADERS_MAX`] headers.
    HeadTooLarge,
    /// The body is longer than [`BODY_BYTES_MAX`].
    BodyTooLarge,
    /// A transfer encoding other than `chunked`.
    Encoding,
    /// HTTP, but neither 1.0 nor 1.1.
    Version,
}

impl Malformed {
    /// The status and its reason.
    #[must_use]
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Malformed::Syntax(_) => (400, "Bad Request"),
            Malformed::HeadTooLarge => (431, "Request Header Fields Too Large"),
            Malformed::BodyTooLarge => (413, "Request Entity Too Large"),
            Malformed::Encoding => (501, "Not Implemented"),
            Malformed::Version => (505, "HTTP Version Not Supported"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Syntax(what) => formatter.write_str(what),
            Malformed::HeadTooLarge => {
                write!(
                    formatter,
                    "the head exceeds {HEAD_BYTES_MAX} bytes or {HEADERS_MAX} headers"
                )
            }
            Malformed::BodyTooLarge => write!(formatter, "the body exceeds {BODY_BYTES_MAX} bytes"),
            Malformed::Encoding => formatter.write_str("the transfer encoding is not chunked"),
            Malformed::Version => formatter.write_str("the version is neither HTTP/1.0 nor HTTP/1.1"),
        }
    }
}

/// Where one connection stands between calls of [`Decoder::decode`].
#[derive(Debug, Default)]
pub struct Decoder {
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    /// At the start of a request.
    #[default]
    Fresh,
    /// The head is incomplete; its end is not within the first `searched` bytes.
    Head {
        searched: usize,
    },
    /// The request is complete when the input has `total` bytes.
    Length {
        total: usize,
    },
    Chunked(Chunks),
}

/// A chunked body that is being joined.
#[derive(Debug, Clone, Copy)]
struct Chunks {
    /// End of the joined body.
    joined: usize,
    /// First byte not yet looked at.
    next: usize,
    /// Where the joined body begins.
    head: usize,
    state: ChunkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Size,
    Data(usize),
    DataEnd,
    Trailer { bytes: usize },
    Done,
}

impl Decoder {
    /// Joins what has arrived of a chunked body; to be called before every [`Decoder::decode`].
    ///
    /// # Errors
    /// [`Malformed`]; the decoder is of no further use.
    pub fn join(&mut self, input: &mut [u8]) -> Result<(), Malformed> {
        if let Phase::Chunked(chunks) = &mut self.phase {
            chunks.join(input)?;
        }
        Ok(())
    }

    /// Whether a request has begun that is not complete.
    #[must_use]
    pub fn is_within(&self) -> bool {
        !matches!(self.phase, Phase::Fresh)
    }

    /// Reads the request at the start of `input`, which holds everything received since the request before it.
    /// After [`Progress::Complete`] call again with what follows `consumed`; else with the same bytes and more.
    ///
    /// # Errors
    /// [`Malformed`]; the decoder is of no further use.
    pub fn decode<'h, 'b>(
        &mut self,
        input: &'b [u8],
        room: &'h mut HeaderRoom<'b>,
    ) -> Result<Progress<'h, 'b>, Malformed> {
        match &mut self.phase {
            Phase::Head { searched } => {
                let may_be_complete = head_may_be_complete(input, searched)?;
                if !may_be_complete {
                    return Ok(INCOMPLETE);
                }
            }
            Phase::Length { total } if input.len() < *total => {
                return Ok(Progress::Incomplete {
                    total: *total,
                    head: None,
                });
            }
            Phase::Chunked(chunks) if chunks.state != ChunkState::Done => return Ok(INCOMPLETE),
            _ => {}
        }
        let Some((head, head_bytes)) = parse_head(input, room)? else {
            if input.len() > HEAD_BYTES_MAX {
                return Err(Malformed::HeadTooLarge);
            }
            if !input.is_empty() && !self.is_within() {
                self.phase = Phase::Head { searched: 0 };
            }
            return Ok(INCOMPLETE);
        };
        let (body, consumed) = match head.framing {
            Framing::Length(length) => {
                let total = head_bytes + length;
                if input.len() < total {
                    self.phase = Phase::Length { total };
                    return Ok(Progress::Incomplete {
                        total,
                        head: Some(head),
                    });
                }
                (&input[head_bytes..total], total)
            }
            Framing::Chunked => match &self.phase {
                Phase::Chunked(chunks) => (&input[head_bytes..chunks.joined], chunks.next),
                _ => {
                    self.phase = Phase::Chunked(Chunks::behind(head_bytes));
                    return Ok(Progress::Chunked { head });
                }
            },
        };
        self.phase = Phase::Fresh;
        Ok(Progress::Complete(Request { head, body, consumed }))
    }
}

const INCOMPLETE: Progress<'static, 'static> = Progress::Incomplete { total: 0, head: None };

/// Searches the bytes not yet searched for the empty line that ends a head.
fn head_may_be_complete(input: &[u8], searched: &mut usize) -> Result<bool, Malformed> {
    while let Some(found) = memchr(b'\n', &input[*searched..]) {
        let next = *searched + found + 1;
        match &input[next..] {
            [b'\n', ..] | [b'\r', b'\n', ..] => return Ok(true),
            // The line after this one has not arrived: look at this line's end again.
            [] | [b'\r'] => break,
            _ => *searched = next,
        }
    }
    if input.len() > HEAD_BYTES_MAX {
        return Err(Malformed::HeadTooLarge);
    }
    Ok(false)
}

/// The head and its length; None while it is incomplete.
fn parse_head<'h, 'b>(
    input: &'b [u8],
    room: &'h mut HeaderRoom<'b>,
) -> Result<Option<(Head<'h, 'b>, usize)>, Malformed> {
    let mut parsed = httparse::Request::new(&mut []);
    let head_bytes = match parsed.parse_with_uninit_headers(input, room) {
        Ok(httparse::Status::Complete(bytes)) if bytes > HEAD_BYTES_MAX => {
            return Err(Malformed::HeadTooLarge);
        }
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refuse(error)),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed::Syntax("the request line is incomplete"));
    };
    let mut head = Head {
        method,
        target,
        headers: parsed.headers,
        keep_alive: minor == 1,
        old: minor == 0,
        operation: None,
        content_type: None,
        authorization: None,
        origin: None,
        content_encoding: None,
        accepts_gzip: false,
        framing: Framing::Length(0),
        expects_continue: false,
    };
    head.recognise()?;
    Ok(Some((head, head_bytes)))
}

fn refuse(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::HeadTooLarge,
        httparse::Error::Version => Malformed::Version,
        httparse::Error::HeaderName => Malformed::Syntax("a header's name is invalid"),
        httparse::Error::HeaderValue => Malformed::Syntax("a header's value is invalid"),
        httparse::Error::NewLine => Malformed::Syntax("a line does not end as it should"),
        _ => Malformed::Syntax("the request line is invalid"),
    }
}

impl Head<'_, '_> {
    /// Looks up the headers that decide how the connection goes on, and those that every request needs.
    fn recognise(&mut self) -> Result<(), Malformed> {
        let mut length = None;
        let mut chunked = false;
        let mut host = false;
        for header in self.headers {
            let (name, value) = (header.name, header.value);
            let slot = match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    if host {
                        return Err(Malformed::Syntax("Host is given twice"));
                    }
                    host = true;
                    continue;
                }
                6 if name.eq_ignore_ascii_case("expect") => {
                    self.expects_continue = !self.old && value.eq_ignore_ascii_case(b"100-continue");
                    continue;
                }
                6 if name.eq_ignore_ascii_case("origin") => &mut self.origin,
                10 if name.eq_ignore_ascii_case("connection") => {
                    for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                        if option.eq_ignore_ascii_case(b"close") {
                            self.keep_alive = false;
                        } else if self.old && option.eq_ignore_ascii_case(b"keep-alive") {
                            self.keep_alive = true;
                        }
                    }
                    continue;
                }
                12 if name.eq_ignore_ascii_case("x-amz-target") => &mut self.operation,
                12 if name.eq_ignore_ascii_case("content-type") => &mut self.content_type,
                13 if name.eq_ignore_ascii_case("authorization") => &mut self.authorization,
                15 if name.eq_ignore_ascii_case("accept-encoding") => {
                    self.accepts_gzip |= gzip::is_accepted_by(value);
                    continue;
                }
                16 if name.eq_ignore_ascii_case("content-encoding") => &mut self.content_encoding,
                14 if name.eq_ignore_ascii_case("content-length") => {
                    if length.is_some() {
                        return Err(Malformed::Syntax("Content-Length is given twice"));
                    }
                    length = Some(parse_length(value)?);
                    continue;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if chunked || self.old {
                        return Err(Malformed::Syntax("Transfer-Encoding is not allowed here"));
                    }
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed::Encoding);
                    }
                    chunked = true;
                    continue;
                }
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(Malformed::Syntax("a header that may occur once is given twice"));
            }
        }
        if !host && !self.old {
            return Err(Malformed::Syntax("Host is missing"));
        }
        self.framing = match (length, chunked) {
            (Some(_), true) => {
                return Err(Malformed::Syntax(
                    "both Content-Length and Transfer-Encoding are given",
                ));
            }
            (_, true) => Framing::Chunked,
            (length, false) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(())
    }
}

/// Digits only: no sign, no list, no space.
fn parse_length(value: &[u8]) -> Result<usize, Malformed> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::Syntax("Content-Length is not a number"));
    }
    let mut length = 0usize;
    for &digit in value {
        length = length * 10 + usize::from(digit - b'0');
        if length > BODY_BYTES_MAX {
            return Err(Malformed::BodyTooLarge);
        }
    }
    Ok(length)
}

impl Chunks {
    fn behind(head: usize) -> Chunks {
        Chunks {
            head,
            joined: head,
            next: head,
            state: ChunkState::Size,
        }
    }

    /// Moves the data of the chunks that have arrived together.
    fn join(&mut self, input: &mut [u8]) -> Result<(), Malformed> {
        loop {
            match self.state {
                ChunkState::Size => {
                    let Some(line) = self.line(input)? else {
                        return Ok(());
                    };
                    let size = chunk_size(line)?;
                    self.state = match size {
                        0 => ChunkState::Trailer { bytes: 0 },
                        _ if self.joined - self.head + size > BODY_BYTES_MAX => {
                            return Err(Malformed::BodyTooLarge);
                        }
                        _ => ChunkState::Data(size),
                    };
                }
                ChunkState::Data(left) => {
                    let here = left.min(input.len() - self.next);
                    input.copy_within(self.next..self.next + here, self.joined);
                    self.next += here;
                    self.joined += here;
                    if here < left {
                        self.state = ChunkState::Data(left - here);
                        return Ok(());
                    }
                    self.state = ChunkState::DataEnd;
                }
                ChunkState::DataEnd => match &input[self.next..] {
                    [b'\r', b'\n', ..] => {
                        self.next += 2;
                        self.state = ChunkState::Size;
                    }
                    [] | [b'\r'] => return Ok(()),
                    _ => return Err(Malformed::Syntax("a chunk is longer than it says")),
                },
                ChunkState::Trailer { bytes } => {
                    let Some(line) = self.line(input)? else {
                        return Ok(());
                    };
                    let bytes = bytes + line.len();
                    if bytes > TRAILER_BYTES_MAX {
                        return Err(Malformed::HeadTooLarge);
                    }
                    self.state = if line.is_empty() {
                        ChunkState::Done
                    } else {
                        ChunkState::Trailer { bytes }
                    };
                }
                ChunkState::Done => return Ok(()),
            }
        }
    }

    /// The next line without its CRLF; None until it has arrived.
    fn line<'b>(&mut self, input: &'b [u8]) -> Result<Option<&'b [u8]>, Malformed> {
        let rest = &input[self.next..];
        let window = &rest[..rest.len().min(CHUNK_LINE_BYTES_MAX)];
        let Some(end) = memchr(b'\n', window) else {
            return if window.len() == CHUNK_LINE_BYTES_MAX {
                Err(Malformed::Syntax("a chunk's line is too long"))
            } else {
                Ok(None)
            };
        };
        let Some(line) = rest[..end].strip_suffix(b"\r") else {
            return Err(Malformed::Syntax("a chunk's line does not end as it should"));
        };
        self.next += end + 1;
        Ok(Some(line))
    }
}

/// The size in front of a chunk; extensions behind a semicolon are ignored.
fn chunk_size(line: &[u8]) -> Result<usize, Malformed> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    if digits.is_empty() {
        return Err(Malformed::Syntax("a chunk's size is missing"));
    }
    let mut size = 0usize;
    for &digit in digits {
        let value = char::from(digit)
            .to_digit(16)
            .ok_or(Malformed::Syntax("a chunk's size is not a number"))?;
        size = size * 16 + value as usize;
        if size > BODY_BYTES_MAX {
            return Err(Malformed::BodyTooLarge);
        }
    }
    Ok(size)
}

#[cfg(test)]
#[path = "decode_test.rs"]
mod tests;
