//! How connections begin and end, and what they may take.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cairn::metrics::{Operation as Counted, Protocol};

use cairn_protocol::frame::{self, BODY_BYTES_MAX, Kind};
use cairn_protocol::handshake::Refused;
use cairn_protocol::message::{Operation, Request};
use cairn_runtime::{Connection, Queue, Runtime, ShardIndex};

use crate::{ANSWER_BYTES_MAX, Client, NODE, archived, key, with_node};

const SECOND: Duration = Duration::from_secs(1);

/// The message of the refusal that ends the connection.
async fn refusal(client: &mut Client) -> String {
    let (kind, _, body) = client.frame().await.expect("a refusal");
    assert_eq!(kind, Kind::Refused);
    assert!(client.frame().await.is_none(), "the connection goes on");
    Refused::decode(&body).unwrap().message
}

#[test]
fn draining_answers_what_was_accepted_even_if_more_comes() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let (mut client, mut idle) = (world.client().await, world.client().await);
        let item = archived(r#"{"pk":{"S":"p"},"sk":{"S":"a"}}"#);
        let put = || Operation::Put {
            return_old: false,
            item: &item,
        };
        let (server, metrics) = (world.server.clone(), Rc::clone(&world.metrics));
        let puts = move || {
            let snapshot = metrics.snapshot();
            snapshot.latencies(Protocol::Native, Counted::PutItem).count()
        };
        let carried_out = Rc::new(Cell::new(None));
        let at_the_end = Rc::clone(&carried_out);
        let runtime = world.handle.runtime(NODE, ShardIndex(0));
        runtime.clone().spawn(Queue::Foreground, async move {
            while puts() < 100 {
                runtime.sleep(Duration::from_micros(10)).await;
            }
            server.drain().await;
            // Now the process would end.
            at_the_end.set(Some(puts()));
        });
        // There are always some in work, and some on the way.
        for id in 0..1000 {
            client.request(id, table, put()).await;
            world.sleep(Duration::from_micros(10)).await;
        }
        let mut answered = Vec::new();
        while let Some((kind, id, _)) = client.frame().await {
            assert_eq!(kind, Kind::Response);
            answered.push(id);
        }
        answered.sort_unstable();
        let count = answered.len() as u64;
        assert!(count >= 100, "{answered:?}");
        assert!(answered.iter().copied().eq(0..count), "{answered:?}");
        assert!(idle.frame().await.is_none());
        world.sleep(SECOND).await;
        assert_eq!(carried_out.get(), Some(count));
        assert_eq!(world.server.stats().open, 0);
    });
}

#[test]
fn a_handshake_has_no_room_for_large_frames() {
    with_node(None, async |world| {
        let mut client = world.connect().await;
        // The head alone is enough.
        let mut head = vec![0; 24];
        head[..4].copy_from_slice(&u32::try_from(BODY_BYTES_MAX).unwrap().to_le_bytes());
        client.connection.send(head).await.unwrap();
        assert_eq!(refusal(&mut client).await, "a frame of the handshake is too long");
        let mut client = world.connect().await;
        client.hello(&"k".repeat(2000)).await;
        assert_eq!(refusal(&mut client).await, "a frame of the handshake is too long");
    });
}

#[test]
fn large_bodies_wait_for_each_other() {
    with_node(None, async |world| {
        world.create("tab").await;
        let (mut first, mut second) = (world.client().await, world.client().await);
        let mut body = vec![b' '; BODY_BYTES_MAX - 100];
        body[..2].copy_from_slice(b"{}");
        let json = Operation::Json {
            name: "ListTables",
            body: &body,
        };
        // The shard has room for one of them, which is not sent to its end.
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, Kind::Request, 1, |into| {
            let request = Request {
                budget_us: 0,
                table: 0,
                epoch: 0,
                trace: [0; 16],
                operation: json.clone(),
            };
            request.encode(into);
        });
        let rest = bytes.split_off(1000);
        first.connection.send(bytes.clone()).await.unwrap();
        world.sleep(SECOND).await;
        let sending = second.connection.clone();
        let (whole, sent) = ([bytes, rest.clone()].concat(), Rc::new(Cell::new(false)));
        let when_sent = Rc::clone(&sent);
        world.handle.outside().spawn(Queue::Foreground, async move {
            sending.send(whole).await.unwrap();
            when_sent.set(true);
        });
        // Small ones do not wait.
        let mut third = world.client().await;
        third.ask(0, Operation::Ping).await.unwrap();
        world.sleep(SECOND).await;
        assert!(!sent.get(), "the node takes more than it has room for");
        first.connection.send(rest).await.unwrap();
        assert_eq!(first.frame().await.unwrap().0, Kind::Response);
        assert_eq!(second.frame().await.unwrap().0, Kind::Response);
        assert!(sent.get());
    });
}

#[test]
fn clients_that_stand_still_are_let_go() {
    with_node(None, async |world| {
        let (mut stalled, mut idle) = (world.client().await, world.client().await);
        stalled.connection.send(vec![1, 0, 0]).await.unwrap();
        let begun = world.handle.elapsed();
        assert!(stalled.frame().await.is_none());
        let waited = world.handle.elapsed() - begun;
        assert!((30..35).contains(&waited.as_secs()), "{waited:?}");
        idle.ask(0, Operation::Ping).await.unwrap();
        let begun = world.handle.elapsed();
        assert!(idle.frame().await.is_none());
        let waited = world.handle.elapsed() - begun;
        assert!((900..905).contains(&waited.as_secs()), "{waited:?}");
        assert_eq!(world.server.stats().timed_out, 2);
        assert_eq!(world.server.stats().open, 0);
    });
}

#[test]
fn answers_that_nobody_takes_are_let_go() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        let value = "x".repeat(300_000);
        let item = archived(&format!(
            r#"{{"pk":{{"S":"p"}},"sk":{{"S":"a"}},"v":{{"S":"{value}"}}}}"#
        ));
        let put = Operation::Put {
            return_old: false,
            item: &item,
        };
        client.ask(table, put).await.unwrap();
        for id in 0..200 {
            let get = Operation::Get {
                consistent: true,
                key: key("p", "a"),
            };
            client.request(id, table, get).await;
        }
        assert_eq!(world.server.stats().open, 1);
        world.sleep(SECOND * 70).await;
        assert_eq!(world.server.stats().timed_out, 1);
    });
}

#[test]
fn pages_are_not_made_for_a_client_that_takes_none() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        let value = "x".repeat(350_000);
        for sort in ["a", "b", "c"] {
            let json = format!(r#"{{"pk":{{"S":"p"}},"sk":{{"S":"{sort}"}},"v":{{"S":"{value}"}}}}"#);
            let put = Operation::Put {
                return_old: false,
                item: &archived(&json),
            };
            client.ask(table, put).await.unwrap();
        }
        const SCANS: u64 = 200;
        for id in 0..SCANS {
            let scan = Operation::Scan {
                consistent: true,
                limit: 0,
                segment: 0,
                segments: 1,
                cursor: &[],
            };
            client.request(id, table, scan).await;
        }
        world.sleep(SECOND).await;
        let made = || {
            let snapshot = world.metrics.snapshot();
            snapshot.latencies(Protocol::Native, Counted::Scan).count()
        };
        assert!(made() < 40, "{} pages wait to be taken", made());
        for _ in 0..SCANS {
            assert_eq!(client.frame().await.unwrap().0, Kind::Response);
        }
        assert_eq!(made(), SCANS);
    });
}

#[test]
fn clients_that_take_nothing_leave_room_for_one_that_does() {
    with_node(None, async |world| {
        let table = world.create("tab").await;
        let mut client = world.client().await;
        let value = "x".repeat(350_000);
        for sort in ["a", "b", "c"] {
            let json = format!(r#"{{"pk":{{"S":"p"}},"sk":{{"S":"{sort}"}},"v":{{"S":"{value}"}}}}"#);
            let put = Operation::Put {
                return_old: false,
                item: &archived(&json),
            };
            client.ask(table, put).await.unwrap();
        }
        let scan = || Operation::Scan {
            consistent: true,
            limit: 0,
            segment: 0,
            segments: 1,
            cursor: &[],
        };
        let mut others = Vec::new();
        for _ in 0..30 {
            let mut other = world.client().await;
            for id in 0..20 {
                other.request(id, table, scan()).await;
            }
            others.push(other);
        }
        world.sleep(SECOND).await;
        let most = world.answer_bytes();
        assert!(most < 2 * ANSWER_BYTES_MAX, "{most} bytes of answers wait");
        let begun = world.handle.elapsed();
        client.ask(table, scan()).await.unwrap();
        assert!(world.handle.elapsed() - begun < SECOND * 20);
        assert!(world.answer_bytes() < 2 * ANSWER_BYTES_MAX);
        assert!(world.server.stats().timed_out > 0);
    });
}

#[test]
fn draining_does_not_wait_for_room_that_nobody_gives_back() {
    with_node(None, async |world| {
        let (holder, waiter) = (world.client().await, world.client().await);
        let mut head = vec![0; 24];
        head[..4].copy_from_slice(&u32::try_from(BODY_BYTES_MAX).unwrap().to_le_bytes());
        for client in [&holder, &waiter] {
            client.connection.send(head.clone()).await.unwrap();
            world.sleep(SECOND).await;
        }
        let begun = world.handle.elapsed();
        world.server.drain().await;
        let waited = world.handle.elapsed() - begun;
        assert!(waited < SECOND, "{waited:?}");
    });
}
