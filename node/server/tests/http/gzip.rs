//! Compressed requests and answers.

use std::io::{Read, Write};

use cairn::http::{GZIP_BYTES_MIN, Limits};
use expect_test::expect;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::{World, with_server};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A request to GetItem, which answers with its body.
fn request(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: node\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\n\
         Content-Type: application/x-amz-json-1.0\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl World {
    async fn send(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }
}

#[test]
fn a_compressed_request_is_expanded() {
    with_server(Limits::default(), None, async |world| {
        let long = "a".repeat(300_000);
        for body in ["{}", long.as_str()] {
            let sent = gzip(body.as_bytes());
            let answer = world.send(&request("Content-Encoding: gzip\r\n", &sent)).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\n"), "{answer}");
            assert_eq!(answer.split_once('\n').unwrap().1.lines().last(), Some(body));
        }
        // In two parts, and chunked.
        let parts = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
        let answer = world.send(&request("Content-Encoding: GZIP\r\n", &parts)).await;
        assert!(answer.ends_with("{\"a\":1}"), "{answer}");
        let mut chunked = b"POST / HTTP/1.1\r\nHost: node\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\n\
            Content-Type: application/x-amz-json-1.0\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
        for piece in parts.chunks(7) {
            chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let answer = world.send(&chunked).await;
        assert!(answer.ends_with("{\"a\":1}"), "{answer}");
        let answer = world
            .send(&request("Content-Encoding: identity\r\n", b"{}"))
            .await;
        assert!(answer.ends_with("{}"), "{answer}");
    });
}

#[test]
fn what_cannot_be_expanded_is_refused() {
    with_server(Limits::default(), None, async |world| {
        let truncated = &gzip(&vec![b'x'; 200_000])[..100];
        for (encoding, body) in [("gzip", b"{}".as_slice()), ("gzip", truncated), ("br", b"{}")] {
            let headers = format!("Content-Encoding: {encoding}\r\n");
            let answer = world.send(&request(&headers, body)).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\n"), "{answer}");
            assert!(answer.contains("SerializationException"), "{answer}");
        }
        assert_eq!(world.calls.get(), 0);
        // Small on the wire, too large as a body.
        let bomb = gzip(&vec![0; 17 << 20]);
        assert!(bomb.len() < 1 << 20);
        let answer = world.send(&request("Content-Encoding: gzip\r\n", &bomb)).await;
        expect![[r#"
            HTTP/1.1 413 Request Entity Too Large
            Content-Type: application/x-amz-json-1.0
            {"__type":"com.amazon.coral.service#RequestEntityTooLargeException","message":"the body exceeds 16777216 bytes"}"#]].assert_eq(&answer);
    });
}

#[test]
fn expanded_requests_share_a_budget() {
    let limits = Limits {
        large_bodies_bytes: Limits::LARGE_MIN,
        ..Limits::default()
    };
    with_server(limits, None, async |world| {
        let large = gzip(&vec![b' '; 15 << 20]);
        let sent = request("Content-Encoding: gzip\r\n", &large);
        let mut first = world.connect().await;
        let mut second = world.connect().await;
        first.send(&sent).await;
        second.send(&sent).await;
        let answers = [first.answer().await, second.answer().await];
        let lines: Vec<_> = answers
            .iter()
            .map(|answer| answer.lines().next().unwrap())
            .collect();
        assert!(lines.contains(&"HTTP/1.1 200 OK"), "{lines:?}");
        assert!(lines.contains(&"HTTP/1.1 503 Service Unavailable"), "{lines:?}");
        // And it is given back.
        assert!(world.send(&sent).await.starts_with("HTTP/1.1 200 OK\n"));
    });
}

#[test]
fn answers_are_compressed_when_that_pays() {
    with_server(Limits::default(), None, async |world| {
        let long = "{\"S\":\"0123456789\"}".repeat(20_000);
        for (accept, body, compressed) in [
            ("Accept-Encoding: gzip, deflate\r\n", long.as_str(), true),
            (
                "Accept-Encoding: deflate\r\nAccept-Encoding: gzip\r\n",
                long.as_str(),
                true,
            ),
            ("Accept-Encoding: gzip\r\n", &long[..GZIP_BYTES_MIN - 1], false),
            ("Accept-Encoding: identity\r\n", long.as_str(), false),
            ("", long.as_str(), false),
        ] {
            let mut client = world.connect().await;
            client.send(&request(accept, body.as_bytes())).await;
            let (head, answer) = client.whole_answer().await;
            assert_eq!(head.contains("Content-Encoding: gzip\r\n"), compressed, "{head}");
            let mut plain = Vec::new();
            if compressed {
                assert!(answer.len() < body.len() / 10);
                MultiGzDecoder::new(answer.as_slice())
                    .read_to_end(&mut plain)
                    .unwrap();
            } else {
                plain = answer;
            }
            assert!(plain == body.as_bytes());
        }
    });
}
