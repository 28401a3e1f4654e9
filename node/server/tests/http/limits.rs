//! What is bounded, and what time does.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use cairn::calendar::Utc;
use cairn::http::Limits;
use cairn::http::decode::BODY_BYTES_MAX;
use cairn::http::server::LARGE_BODY_BYTES;
use cairn_runtime::{Queue, Runtime, ShardIndex};
use expect_test::expect;

use crate::{ANSWERS_BYTES, NODE, request, with_server};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn bodies_up_to_dynamodbs_limit() {
    with_server(Limits::default(), None, async |world| {
        let body = "x".repeat(BODY_BYTES_MAX);
        let answer = world.ask(&request("GetItem", &body)).await;
        assert!(answer.len() > BODY_BYTES_MAX && answer.starts_with("HTTP/1.1 200 OK"));
        // One more byte is refused before it is read, and the client gets to read why.
        let mut client = world.connect().await;
        client
            .send(request("GetItem", &(body.clone() + "x")).as_bytes())
            .await;
        expect![[r#"
            HTTP/1.1 413 Request Entity Too Large
            Connection: close
            Content-Type: application/x-amz-json-1.0
            {"__type":"com.amazon.coral.service#RequestEntityTooLargeException","message":"the body exceeds 16777216 bytes"}"#]].assert_eq(&client.answer().await);
        let chunks = format!(
            "{}ffffff\r\n{}\r\n2\r\n",
            request("GetItem", "").replace("Content-Length: 0", "Transfer-Encoding: chunked"),
            &body[1..]
        );
        assert!(world.ask(&chunks).await.starts_with("HTTP/1.1 413 "));
        assert_eq!(world.calls.get(), 1);
    });
}

#[test]
fn large_bodies_share_a_budget() {
    let limits = Limits {
        large_bodies_bytes: BODY_BYTES_MAX,
        ..Limits::default()
    };
    with_server(limits, None, async |world| {
        let large = request("GetItem", &"x".repeat(BODY_BYTES_MAX / 2 + 1));
        let (most, last) = large.as_bytes().split_at(large.len() - 1);
        let mut first = world.connect().await;
        first.send(most).await;
        world.sleep(SECOND).await;
        expect![[r#"
            HTTP/1.1 503 Service Unavailable
            Connection: close
            Content-Type: application/x-amz-json-1.0
            {"__type":"com.amazon.coral.availability#ServiceUnavailableException","message":"Too many large requests at the same time; try again"}"#]].assert_eq(&world.ask(&large).await);
        // Small ones pass all the same, and the room comes back.
        assert!(
            world
                .ask(&request("GetItem", "{}"))
                .await
                .starts_with("HTTP/1.1 200 OK")
        );
        first.send(last).await;
        assert!(first.answer().await.starts_with("HTTP/1.1 200 OK"));
        assert!(world.ask(&large).await.starts_with("HTTP/1.1 200 OK"));
    });
}

/// Who has no key of this node cannot use up the room for large bodies: the head alone tells.
#[test]
fn strangers_get_no_room_for_large_bodies() {
    let limits = Limits {
        large_bodies_bytes: BODY_BYTES_MAX,
        ..Limits::default()
    };
    let keys = "[[key]]\naccess_key_id = 'known'\nsecret_access_key = 's'";
    with_server(limits, Some(keys), async |world| {
        let date = Utc::from_unix_ms(world.handle.runtime(NODE, ShardIndex(0)).unix_ms()).basic();
        let head = |key: &str, framing: &str| {
            let day = &date[..8];
            let named = request("GetItem", "").replace("Content-Length: 0", framing);
            named.replace(
                "Host",
                &format!(
                    "X-Amz-Date: {date}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={key}/{day}/r/dynamodb/aws4_request, \
                     SignedHeaders=host;x-amz-date;x-amz-target, Signature=00\r\nHost"
                ),
            )
        };
        let length = format!("Content-Length: {}", BODY_BYTES_MAX - 2048);
        let continued = format!("Expect: 100-continue\r\n{length}");
        let chunks = "Transfer-Encoding: chunked";
        let begun = format!(
            "{}ffffff\r\n{}",
            head("unknown", chunks),
            "x".repeat(LARGE_BODY_BYTES)
        );
        let unsigned = request("GetItem", "").replace("Content-Length: 0", &length);
        for (stranger, name) in [
            (head("unknown", &length), "UnrecognizedClientException"),
            (head("unknown", &continued), "UnrecognizedClientException"),
            (begun, "UnrecognizedClientException"),
            (unsigned, "MissingAuthenticationTokenException"),
        ] {
            // Nothing more is sent, and yet it is answered.
            let answer = world.ask(&stranger).await;
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains(name),
                "{answer}"
            );
            assert!(answer.contains("Connection: close"), "{answer}");
        }
        // What is small is received first, so that the connection can be kept.
        let mut small = world.connect().await;
        small
            .send(format!("{}2\r\n{{}}\r\n", head("unknown", chunks)).as_bytes())
            .await;
        world.sleep(SECOND).await;
        small.send(b"0\r\n\r\n").await;
        let answer = small.answer().await;
        assert!(
            answer.contains("Unrecognized") && !answer.contains("close"),
            "{answer}"
        );

        let mut known = world.connect().await;
        known.send(head("known", &continued).as_bytes()).await;
        assert!(known.answer().await.starts_with("HTTP/1.1 100 Continue"));
        let second = world.ask(&head("known", &length)).await;
        assert!(second.starts_with("HTTP/1.1 503 "), "{second}");
    });
}

#[test]
fn connections_are_counted() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    with_server(limits, None, async |world| {
        let (first, mut second) = (world.connect().await, world.connect().await);
        world.sleep(SECOND).await;
        assert!(world.connect().await.is_closed().await);
        drop(first);
        world.sleep(SECOND).await;
        assert!(
            world
                .ask(&request("GetItem", "{}"))
                .await
                .starts_with("HTTP/1.1 200 OK")
        );
        second.send(request("GetItem", "{}").as_bytes()).await;
        assert!(second.answer().await.starts_with("HTTP/1.1 200 OK"));
        let stats = world.server.stats();
        assert_eq!((stats.accepted, stats.refused), (3, 1));
    });
}

#[test]
fn idle_and_slow_connections_are_closed() {
    with_server(Limits::default(), None, async |world| {
        let mut idle = world.connect().await;
        idle.send(request("GetItem", "{}").as_bytes()).await;
        idle.answer().await;
        // A head that never ends, a byte every five seconds.
        let slow_runtime = world.handle.outside();
        let slow = Rc::new(RefCell::new(None));
        let (noted, mut slow_client, started) = (Rc::clone(&slow), world.connect().await, slow_runtime.now());
        slow_runtime.clone().spawn(Queue::Foreground, async move {
            slow_client.send(b"POST / HTTP/1.1\r\nHost: a\r\n").await;
            for _ in 0..20 {
                slow_client.send(b"X: y\r\n").await;
                slow_client.sleep(5 * SECOND).await;
            }
            assert!(slow_client.is_closed().await);
            *noted.borrow_mut() = Some(slow_runtime.now().since(started));
        });
        // One who executes is not late, however long it takes.
        let mut busy = world.connect().await;
        busy.send(request("Query", "{}").as_bytes()).await;
        world.sleep(60 * SECOND).await;
        assert_eq!(world.server.stats().timed_out, 1, "the slow one");
        idle.send(request("GetItem", "{}").as_bytes()).await;
        assert!(idle.answer().await.starts_with("HTTP/1.1 200 OK"));
        world.sleep(119 * SECOND).await;
        assert_eq!(world.server.stats().timed_out, 1);
        world.sleep(3 * SECOND).await;
        assert_eq!(world.server.stats().timed_out, 2, "the idle one");
        assert!(idle.is_closed().await);
        assert!(slow.borrow().is_some());
        assert_eq!(world.server.stats().open, 1);
    });
}

#[test]
fn a_steady_body_may_take_its_time() {
    with_server(Limits::default(), None, async |world| {
        let text = request("GetItem", &"x".repeat(4 << 20));
        let mut client = world.connect().await;
        // 80 KiB a second: 52 seconds.
        for piece in text.as_bytes().chunks(80 * 1024) {
            client.send(piece).await;
            client.sleep(SECOND).await;
        }
        assert!(client.answer().await.starts_with("HTTP/1.1 200 OK"));
    });
}

#[test]
fn draining_answers_who_has_asked() {
    with_server(Limits::default(), None, async |world| {
        let (mut idle, mut busy) = (world.connect().await, world.connect().await);
        busy.send(request("PutItem", "{}").as_bytes()).await;
        world.sleep(SECOND / 10).await;
        let begin = world.handle.elapsed();
        world.server.drain().await;
        assert!(world.handle.elapsed() - begin < SECOND);
        assert!(idle.is_closed().await);
        let answer = busy.answer().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(busy.is_closed().await);
        assert_eq!(world.server.stats().open, 0);
    });
}

#[test]
fn draining_waits_little_for_what_is_still_arriving() {
    with_server(Limits::default(), None, async |world| {
        let (mut half_head, mut half_body) = (world.connect().await, world.connect().await);
        let whole = request("GetItem", "{}");
        half_head.send(b"POST / HTTP/1.1\r\nHost: a\r\n").await;
        half_body.send(&whole.as_bytes()[..whole.len() - 1]).await;
        world.sleep(SECOND).await;
        let begin = world.handle.elapsed();
        world.server.drain().await;
        let took = world.handle.elapsed() - begin;
        assert!(took <= Limits::default().linger + SECOND, "{took:?}");
        assert!(half_head.is_closed().await && half_body.is_closed().await);
    });
}

#[test]
fn draining_does_not_wait_for_ever() {
    with_server(Limits::default(), None, async |world| {
        let mut stuck = world.connect().await;
        stuck.send(request("Query", "{}").as_bytes()).await;
        world.sleep(SECOND).await;
        let begin = world.handle.elapsed();
        world.server.drain().await;
        let took = world.handle.elapsed() - begin;
        let limits = Limits::default();
        assert!(
            took >= limits.drain && took <= limits.drain + limits.linger + SECOND,
            "{took:?}"
        );
    });
}

#[test]
fn who_takes_no_large_answer_makes_room_for_others() {
    with_server(Limits::default(), None, async |world| {
        let text = |bytes| request("GetItem", &format!("\"{}\"", "x".repeat(bytes)));
        let patient = Limits::default().send;
        // Alone it may take its time.
        let mut small = world.connect().await;
        small.send(text(ANSWERS_BYTES / 2).as_bytes()).await;
        world.sleep(patient / 2).await;
        assert_eq!(world.server.stats().timed_out, 0);
        let mut large = world.connect().await;
        large.send(text(4 * ANSWERS_BYTES).as_bytes()).await;
        world.sleep(6 * SECOND).await;
        assert_eq!(world.server.stats().timed_out, 2);
        let mut other = world.connect().await;
        other.send(text(ANSWERS_BYTES / 2).as_bytes()).await;
        assert!(other.answer().await.starts_with("HTTP/1.1 200 OK"));
    });
}
