//! Every case is decoded whole, and split at every byte: both must agree.

use std::fmt::Write as _;
use std::mem::MaybeUninit;

use expect_test::{Expect, expect};

use super::*;

/// Decodes `pieces` as they would arrive and says what came out.
fn decode_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut said = String::new();
    let mut input = Vec::new();
    let mut decoder = Decoder::default();
    let mut pending = false;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            let progress = decoder
                .join(&mut input)
                .and_then(|()| decoder.decode(&input, &mut room));
            let consumed = match progress {
                Ok(Progress::Complete(Request { head, body, consumed })) => {
                    let keep = if head.keep_alive { "keep" } else { "close" };
                    let body = String::from_utf8_lossy(body);
                    write!(said, "[{} {} {keep} {body:?}]", head.method, head.target).unwrap();
                    consumed
                }
                Ok(Progress::Chunked { head }) => {
                    if head.expects_continue {
                        said.push_str("[continue]");
                    }
                    continue;
                }
                Ok(Progress::Incomplete { head, total }) => {
                    if head.is_some_and(|head| head.expects_continue) {
                        said.push_str("[continue]");
                    }
                    assert!(total == 0 || total > input.len());
                    pending = !input.is_empty();
                    break;
                }
                Err(malformed) => {
                    write!(said, "[{} {malformed}]", malformed.status().0).unwrap();
                    return said;
                }
            };
            input.drain(..consumed);
        }
    }
    if pending {
        said.push_str("[incomplete]");
    }
    said
}

fn check(input: &str, expected: Expect) {
    let input = input.as_bytes();
    let whole = decode_pieces([input].into_iter());
    expected.assert_eq(&whole);
    assert_eq!(decode_pieces(input.chunks(1)), whole, "byte by byte");
    for at in 0..input.len() {
        let (left, right) = input.split_at(at);
        assert_eq!(
            decode_pieces([left, right].into_iter()).replace("[continue]", ""),
            whole.replace("[continue]", ""),
            "split at {at}"
        );
    }
}

#[test]
fn requests() {
    check(
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        expect![[r#"[GET / keep ""]"#]],
    );
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        expect![[r#"[POST / keep "{}"]"#]],
    );
    check(
        "POST / HTTP/1.1\nHost: a\nContent-Length: 2\n\n{}",
        expect![[r#"[POST / keep "{}"]"#]],
    );
    check(
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        expect![[r#"[GET / keep ""]"#]],
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Foo, Close\r\n\r\n",
        expect![[r#"[GET / close ""]"#]],
    );
    check("GET / HTTP/1.0\r\n\r\n", expect![[r#"[GET / close ""]"#]]);
    check(
        "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        expect![[r#"[GET / keep ""]"#]],
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nX: \r\nY:\t z \r\n\r\n",
        expect![[r#"[GET / keep ""]"#]],
    );
}

#[test]
fn pipelines() {
    check(
        "GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.1\r\nHost: a\r\n\r\nGET /d",
        expect![[r#"[GET /a keep ""][POST /b keep "abc"][GET /c keep ""][incomplete]"#]],
    );
    check(
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\nd\r\n00\r\nTrailer: x\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n",
        expect![[r#"[POST /a keep "abc"][POST /b keep "d"][GET /c keep ""]"#]],
    );
}

#[test]
fn chunks() {
    let chunked =
        |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    check(&chunked("0\r\n\r\n"), expect![[r#"[POST / keep ""]"#]]);
    check(
        &chunked("5;x=y\r\nhello\r\nA \r\n, chunked!\r\n0\r\n\r\n"),
        expect![[r#"[POST / keep "hello, chunked!"]"#]],
    );
    check(&chunked("5\r\nhello"), expect!["[incomplete]"]);
    check(
        &chunked("5\r\nhelloo\r\n"),
        expect!["[400 a chunk is longer than it says]"],
    );
    check(&chunked("\r\n"), expect!["[400 a chunk's size is missing]"]);
    check(
        &chunked("-1\r\n"),
        expect!["[400 a chunk's size is not a number]"],
    );
    check(
        &chunked("0x5\r\n"),
        expect!["[400 a chunk's size is not a number]"],
    );
    check(
        &chunked("5\nhello"),
        expect!["[400 a chunk's line does not end as it should]"],
    );
    check(
        &chunked("1000001\r\n"),
        expect!["[413 the body exceeds 16777216 bytes]"],
    );
    check(
        &chunked("fffffffffffffffffffffff\r\n"),
        expect!["[413 the body exceeds 16777216 bytes]"],
    );
    check(
        &chunked("1\r\na\r\n1000000\r\n"),
        expect!["[413 the body exceeds 16777216 bytes]"],
    );
    check(
        &chunked(&format!("1;{}", "x".repeat(1100))),
        expect!["[400 a chunk's line is too long]"],
    );
    let trailers = "a: b\r\n".repeat(1100);
    check(
        &chunked(&format!("0\r\n{trailers}\r\n")),
        expect!["[431 the head exceeds 16384 bytes or 64 headers]"],
    );
}

#[test]
fn ambiguity_is_malformed() {
    let post = |headers: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
    check(
        &post("Content-Length: 1\r\nTransfer-Encoding: chunked"),
        expect!["[400 both Content-Length and Transfer-Encoding are given]"],
    );
    check(
        &post("Content-Length: 1\r\nContent-Length: 1"),
        expect!["[400 Content-Length is given twice]"],
    );
    check(
        &post("Content-Length: +1"),
        expect!["[400 Content-Length is not a number]"],
    );
    check(
        &post("Content-Length: 1, 1"),
        expect!["[400 Content-Length is not a number]"],
    );
    check(
        &post("Content-Length: "),
        expect!["[400 Content-Length is not a number]"],
    );
    check(
        &post("Content-Length: 16777217"),
        expect!["[413 the body exceeds 16777216 bytes]"],
    );
    check(
        &post("Content-Length: 99999999999999999999999999"),
        expect!["[413 the body exceeds 16777216 bytes]"],
    );
    check(
        &post("Transfer-Encoding: gzip"),
        expect!["[501 the transfer encoding is not chunked]"],
    );
    check(
        &post("Transfer-Encoding: gzip, chunked"),
        expect!["[501 the transfer encoding is not chunked]"],
    );
    check(
        &post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        expect!["[400 Transfer-Encoding is not allowed here]"],
    );
    check(&post("Host: b"), expect!["[400 Host is given twice]"]);
    check(
        &post("X-Amz-Target: a\r\nx-amz-target: b"),
        expect!["[400 a header that may occur once is given twice]"],
    );
    check(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        expect!["[400 Transfer-Encoding is not allowed here]"],
    );
}

#[test]
fn what_is_not_http() {
    check("GET / HTTP/1.1\r\n\r\n", expect!["[400 Host is missing]"]);
    check(
        "GET / HTTP/2.0\r\n\r\n",
        expect!["[505 the version is neither HTTP/1.0 nor HTTP/1.1]"],
    );
    check(
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        expect!["[505 the version is neither HTTP/1.0 nor HTTP/1.1]"],
    );
    check("GET /\r\n\r\n", expect!["[400 the request line is invalid]"]);
    check(
        "\u{16}\u{3}\u{1}\u{2}\r\n\r\n",
        expect!["[400 the request line is invalid]"],
    );
    check(
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        expect!["[400 a header's name is invalid]"],
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        expect!["[400 a header's name is invalid]"],
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\u{0}b\r\n\r\n",
        expect!["[400 a header's value is invalid]"],
    );
}

#[test]
fn heads_are_bounded() {
    let head = |bytes: usize| {
        let empty = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n";
        empty.replace("X: ", &format!("X: {}", "x".repeat(bytes - empty.len())))
    };
    let whole = |text: &str| decode_pieces([text.as_bytes()].into_iter());
    assert_eq!(whole(&head(HEAD_BYTES_MAX)), "[GET / keep \"\"]");
    assert!(whole(&head(HEAD_BYTES_MAX + 1)).starts_with("[431"));
    // An endless head is refused before its end.
    assert!(decode_pieces(head(1 << 20).as_bytes().chunks(100)).starts_with("[431"));
    let lines = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(5000));
    assert!(decode_pieces(lines.as_bytes().chunks(1)).starts_with("[431"));
    // Empty lines in front of a head are skipped, but not for ever.
    assert!(decode_pieces(["\r\n".repeat(10_000).as_bytes()].into_iter()).starts_with("[431"));
    let headers = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "A: b\r\n".repeat(count - 1)
        )
    };
    assert_eq!(whole(&headers(HEADERS_MAX)), "[GET / keep \"\"]");
    assert!(whole(&headers(HEADERS_MAX + 1)).starts_with("[431"));
}

#[test]
fn continue_is_said_once() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}";
    let (head, _) = request.split_at(request.len() - 2);
    let pieces = [head.as_bytes(), b"{", b"}"];
    assert_eq!(
        decode_pieces(pieces.into_iter()),
        "[continue][POST / keep \"{}\"]"
    );
    // Nobody waits for it when the body came along.
    assert_eq!(
        decode_pieces([request.as_bytes()].into_iter()),
        "[POST / keep \"{}\"]"
    );
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        decode_pieces([chunked.as_bytes(), b"1\r\na\r\n", b"0\r\n\r\n"].into_iter()),
        "[continue][POST / keep \"a\"]"
    );
}
