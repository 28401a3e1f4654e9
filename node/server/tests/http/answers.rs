//! What is answered to what.

use std::time::Duration;

use cairn::http::Limits;
use expect_test::{Expect, expect};

use crate::{request, with_server};

/// The answer to a request with these lines behind the request line and `Host`.
fn check(line: &'static str, rest: &'static str, expected: Expect) {
    with_server(Limits::default(), None, async move |world| {
        let answer = world.ask(&format!("{line}\r\nHost: node\r\n{rest}")).await;
        expected.assert_eq(&answer);
    });
}

const POST: &str = "POST / HTTP/1.1";

#[test]
fn what_is_not_an_operation() {
    check(
        "GET / HTTP/1.1",
        "\r\n",
        expect![[r#"
        HTTP/1.1 200 OK
        Content-Type: text/plain
        healthy: dynamodb.cairn.local "#]],
    );
    check(
        "PUT / HTTP/1.1",
        "\r\n",
        expect![[r#"
        HTTP/1.1 404 Not Found
        Content-Type: text/xml
        <UnknownOperationException/>
    "#]],
    );
    check(
        "OPTIONS / HTTP/1.1",
        "\r\n",
        expect![[r#"
        HTTP/1.1 404 Not Found
        Content-Type: text/xml
        <UnknownOperationException/>
    "#]],
    );
    check(
        POST,
        "Content-Length: 2\r\n\r\nhi",
        expect![[r#"
        HTTP/1.1 404 Not Found
        Content-Type: text/xml
        <UnknownOperationException/>
    "#]],
    );
    check(
        POST,
        "Content-Type: whatever\r\nContent-Length: 2\r\n\r\nhi",
        expect![[r#"
        HTTP/1.1 404 Not Found
        Content-Type: text/xml
        <UnknownOperationException/>
    "#]],
    );
    check(
        POST,
        "Content-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\n\r\n{}",
        expect![[r#"
        HTTP/1.1 404 Not Found
        Content-Type: text/xml
        <UnknownOperationException/>
    "#]],
    );
    check(
        POST,
        "Content-Type: application/json; charset=x\r\nContent-Length: 2\r\n\r\n{}",
        expect![[r#"
        HTTP/1.1 400 Bad Request
        Content-Type: application/json
        {"__type":"com.amazon.coral.service#UnknownOperationException"}"#]],
    );
    check(
        POST,
        "X-Amz-Target: whatever\r\n\r\n",
        expect![[r#"
        HTTP/1.1 400 Bad Request
        Content-Type: application/json
        {"__type":"com.amazon.coral.service#UnknownOperationException"}"#]],
    );
    check(
        POST,
        "X-Amz-Target: DynamoDB_20120810.\r\n\r\n",
        expect![[r#"
        HTTP/1.1 400 Bad Request
        Content-Type: application/json
        {"__type":"com.amazon.coral.service#UnknownOperationException"}"#]],
    );
    check(
        POST,
        "X-Amz-Target: DynamoDB_20120810.Nonsense\r\nContent-Type: application/x-amz-json-1.0\r\n\r\n",
        expect![[r#"
        HTTP/1.1 400 Bad Request
        Content-Type: application/x-amz-json-1.0
        {"__type":"com.amazon.coral.validate#ValidationException","message":"no \"Nonsense\""}"#]],
    );
    check(
        POST,
        "Origin: http://evil\r\nX-Amz-Target: DynamoDB_20120810.GetItem\r\n\r\n",
        expect![[r#"
        HTTP/1.1 403 Forbidden
        Content-Type: application/x-amz-json-1.0
        {"__type":"com.amazon.coral.service#AccessDeniedException","message":"A node without credentials does not serve web pages (the request has an Origin)"}"#]],
    );
    check(
        "nonsense",
        "\r\n",
        expect![[r#"
        HTTP/1.1 400 Bad Request
        Content-Type: text/plain
        Connection: close
        the request line is invalid
    "#]],
    );
    check(
        "GET / HTTP/1.0",
        "Connection: keep-alive\r\n\r\n",
        expect![[r#"
        HTTP/1.1 200 OK
        Content-Type: text/plain
        Connection: keep-alive
        healthy: dynamodb.cairn.local "#]],
    );
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    with_server(Limits::default(), None, async |world| {
        let mut client = world.connect().await;
        let both = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.send(both.as_bytes()).await;
        while client.receive().await {}
        let text = String::from_utf8(client.received).unwrap();
        let comparable = |head: &str| {
            let lines = head
                .lines()
                .filter(|line| !line.contains("RequestId") && *line != "Connection: close");
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let parts: Vec<_> = text.split("\r\n\r\n").collect();
        assert_eq!(parts.len(), 3, "{text}");
        assert_eq!(comparable(parts[0]), comparable(parts[1]));
        assert_eq!(parts[2], "healthy: dynamodb.cairn.local ");
    });
}

#[test]
fn without_a_signature_nothing_is_called() {
    let keys = "[[key]]\naccess_key_id = 'a'\nsecret_access_key = 's'";
    with_server(Limits::default(), Some(keys), async |world| {
        expect![[r#"
            HTTP/1.1 400 Bad Request
            Content-Type: application/x-amz-json-1.0
            {"__type":"com.amazon.coral.service#MissingAuthenticationTokenException","message":"Request is missing Authentication Token"}"#]].assert_eq(&world.ask(&request("GetItem", "{}")).await);
        let signed = request("GetItem", "{}").replace(
            "\r\n\r\n",
            "\r\nX-Amz-Date: 19700101T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 Credential=a/1/r/dynamodb/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-target, Signature=0\r\n\r\n",
        );
        assert!(world.ask(&signed).await.contains("InvalidSignatureException"));
        // Browsers may come where signatures are checked.
        let options = "OPTIONS / HTTP/1.1\r\nHost: node\r\nOrigin: http://page\r\nAccess-Control-Request-Method: POST\r\n\
                       Access-Control-Request-Headers: authorization\r\n\r\n";
        expect![[r#"
            HTTP/1.1 200 OK
            Access-Control-Allow-Origin: *
            Access-Control-Allow-Headers: authorization
            Access-Control-Allow-Methods: POST
            Access-Control-Max-Age: 172800
            Content-Type: text/plain
        "#]]
        .assert_eq(&world.ask(options).await);
        let post = request("GetItem", "{}").replace("Host", "Origin: http://page\r\nHost");
        expect![[r#"
            HTTP/1.1 400 Bad Request
            Access-Control-Allow-Origin: *
            Content-Type: application/x-amz-json-1.0
            {"__type":"com.amazon.coral.service#MissingAuthenticationTokenException","message":"Request is missing Authentication Token"}"#]].assert_eq(&world.ask(&post).await);
        assert_eq!(world.calls.get(), 0);
    });
}

#[test]
fn operations_answer_in_place() {
    with_server(Limits::default(), None, async |world| {
        expect![[r#"
            HTTP/1.1 200 OK
            Content-Type: application/x-amz-json-1.0
            {"a":1}"#]]
        .assert_eq(&world.ask(&request("GetItem", "{\"a\":1}")).await);
        expect![[r#"
            HTTP/1.1 200 OK
            Content-Type: application/x-amz-json-1.0
        "#]]
        .assert_eq(&world.ask(&request("GetItem", "")).await);
        expect![[r#"
            HTTP/1.1 200 OK
            Content-Type: application/x-amz-json-1.0
            {"late":true}"#]]
        .assert_eq(&world.ask(&request("PutItem", "{}")).await);
        expect![[r#"
            HTTP/1.1 400 Bad Request
            Content-Type: application/x-amz-json-1.0
            {"__type":"com.amazon.coral.validate#ValidationException","message":"no \"Scan\""}"#]]
        .assert_eq(&world.ask(&request("Scan", "{}")).await);
    });
}

#[test]
fn split_anywhere_the_answer_is_the_same() {
    with_server(Limits::default(), None, async |world| {
        let plain = request("GetItem", "{\"key\":\"value\"}");
        let chunked = plain
            .replace("Content-Length: 15", "Transfer-Encoding: chunked")
            .replace(
                "{\"key\":\"value\"}",
                "7\r\n{\"key\":\r\n8;x\r\n\"value\"}\r\n0\r\nTrailer: t\r\n\r\n",
            );
        let whole = world.ask(&plain).await;
        assert!(whole.ends_with("\n{\"key\":\"value\"}"));
        for text in [plain, chunked] {
            let mut client = world.connect().await;
            for at in 1..text.len() {
                let (left, right) = text.split_at(at);
                client.send(left.as_bytes()).await;
                client.sleep(Duration::from_millis(5)).await;
                client.send(right.as_bytes()).await;
                assert_eq!(client.answer().await, whole, "split at {at}");
            }
            for byte in text.as_bytes() {
                client.send(&[*byte]).await;
                client.sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(client.answer().await, whole);
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    with_server(Limits::default(), None, async |world| {
        let mut client = world.connect().await;
        let mut batch = String::new();
        for number in 0..200 {
            batch += &request(
                if number % 50 == 7 { "PutItem" } else { "GetItem" },
                &number.to_string(),
            );
        }
        batch += "GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
        batch += &request("GetItem", "never answered");
        client.send(batch.as_bytes()).await;
        for number in 0..200 {
            let answer = client.answer().await;
            let expected = if number % 50 == 7 {
                "{\"late\":true}".to_owned()
            } else {
                number.to_string()
            };
            assert!(answer.ends_with(&format!("\n{expected}")), "{number}: {answer}");
        }
        assert!(client.answer().await.contains("Connection: close"));
        assert!(client.is_closed().await);
        assert_eq!(world.calls.get(), 200);
    });
}

#[test]
fn what_is_malformed_ends_the_connection_only() {
    with_server(Limits::default(), None, async |world| {
        let mut client = world.connect().await;
        let good = request("GetItem", "1");
        client
            .send(format!("{good}POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n{good}").as_bytes())
            .await;
        assert!(client.answer().await.ends_with("\n1"));
        expect![[r#"
            HTTP/1.1 400 Bad Request
            Content-Type: text/plain
            Connection: close
            Content-Length is not a number
        "#]]
        .assert_eq(&client.answer().await);
        assert!(client.is_closed().await);
        assert!(world.ask(&good).await.ends_with("\n1"));
        assert_eq!(world.calls.get(), 2);
        assert_eq!(world.server.stats().malformed, 1);
    });
}

#[test]
fn continue_is_said_to_who_waits() {
    with_server(Limits::default(), None, async |world| {
        let mut client = world.connect().await;
        let text = request("GetItem", "body").replace("Host", "Expect: 100-continue\r\nHost");
        let (head, body) = text.split_at(text.len() - 4);
        client.send(head.as_bytes()).await;
        expect![[r#"
            HTTP/1.1 100 Continue
        "#]]
        .assert_eq(&client.answer().await);
        client.send(body.as_bytes()).await;
        assert!(client.answer().await.ends_with("\nbody"));
    });
}
