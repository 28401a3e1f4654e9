//! Listeners and connections.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use super::tasks::{poll_once, until};
use crate::{Connection, Listener, Queue, Runtime};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// More than sockets and receive buffers hold together.
const LARGE_BYTES: usize = 24 << 20;

/// Bytes that tell their place: no buffer's length is a multiple of their period.
fn pattern(bytes: usize) -> Vec<u8> {
    const PERIOD: usize = 4093;
    let mut content = Vec::with_capacity(bytes);
    let scrambled = |place: usize| (place.wrapping_mul(2_654_435_761) >> 13) as u8;
    content.extend((0..PERIOD.min(bytes)).map(scrambled));
    while content.len() < bytes {
        let more = content.len().min(bytes - content.len());
        content.extend_from_within(..more);
    }
    content
}

/// Two ends of one connection: the one that connected and the one that accepted.
async fn pair<R: Runtime>(runtime: &R) -> (R::Connection, R::Connection) {
    let listener = runtime.listen(ANY_PORT).unwrap();
    let connected = runtime.connect(listener.address()).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    assert_eq!(connected.peer(), listener.address());
    (connected, accepted)
}

async fn receive_exactly(connection: &impl Connection, bytes: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < bytes {
        let count = connection.receive(&mut received).await.unwrap();
        assert!(
            count > 0,
            "the stream ended after {} of {bytes} bytes",
            received.len()
        );
    }
    assert_eq!(received.len(), bytes);
    received
}

async fn echo(connection: impl Connection) {
    let mut bytes = Vec::new();
    while connection.receive(&mut bytes).await.unwrap() > 0 {
        bytes = connection.send(bytes).await.unwrap();
        assert!(bytes.is_empty(), "the buffer comes back emptied");
    }
}

pub(super) async fn bytes_are_echoed<R: Runtime>(runtime: R, _: PathBuf) {
    let (client, server) = pair(&runtime).await;
    runtime.spawn(Queue::Foreground, echo(server));
    for bytes in [1, 2, 100, 4095, 4096, 4097, 70_000] {
        let content = pattern(bytes);
        client.send(content.clone()).await.unwrap();
        assert!(receive_exactly(&client, bytes).await == content, "{bytes} bytes");
    }
    assert!(client.send(Vec::new()).await.unwrap().is_empty());
    // Received bytes are appended.
    client.send(b"more".to_vec()).await.unwrap();
    let mut received = b"and ".to_vec();
    while received.len() < 8 {
        client.receive(&mut received).await.unwrap();
    }
    assert_eq!(received, b"and more");
}

pub(super) async fn large_sends_arrive_whole<R: Runtime>(runtime: R, _: PathBuf) {
    let (client, server) = pair(&runtime).await;
    runtime.spawn(Queue::Foreground, async move {
        server.send(pattern(LARGE_BYTES)).await.unwrap();
    });
    assert!(receive_exactly(&client, LARGE_BYTES).await == pattern(LARGE_BYTES));
    assert_eq!(client.receive(&mut Vec::new()).await.unwrap(), 0);
}

pub(super) async fn both_directions_flow_at_once<R: Runtime>(runtime: R, _: PathBuf) {
    // Both ends send more than the path holds before either has read everything: it ends only if sending and
    // receiving go on independently.
    let (client, server) = pair(&runtime).await;
    let ended = Rc::new(Cell::new(0));
    for end in [client, server] {
        let (sender, sent) = (end.clone(), Rc::clone(&ended));
        runtime.spawn(Queue::Foreground, async move {
            sender.send(pattern(LARGE_BYTES)).await.unwrap();
            sent.set(sent.get() + 1);
        });
        let received = Rc::clone(&ended);
        runtime.spawn(Queue::Foreground, async move {
            assert!(receive_exactly(&end, LARGE_BYTES).await == pattern(LARGE_BYTES));
            received.set(received.get() + 1);
        });
    }
    until(&runtime, || ended.get() == 4).await;
}

pub(super) async fn a_slow_reader_holds_its_peer_back<R: Runtime>(runtime: R, _: PathBuf) {
    let (client, server) = pair(&runtime).await;
    let sent = Rc::new(Cell::new(false));
    let flag = Rc::clone(&sent);
    runtime.spawn(Queue::Foreground, async move {
        client.send(pattern(8 * LARGE_BYTES)).await.unwrap();
        flag.set(true);
    });
    let mut received = Vec::new();
    server.receive(&mut received).await.unwrap();
    runtime.sleep(std::time::Duration::from_millis(100)).await;
    assert!(
        !sent.get(),
        "what is not read is not taken from the peer without bound"
    );
    let rest = receive_exactly(&server, 8 * LARGE_BYTES - received.len()).await;
    received.extend_from_slice(&rest);
    assert!(received == pattern(8 * LARGE_BYTES));
    until(&runtime, || sent.get()).await;
}

pub(super) async fn the_end_of_the_stream_is_seen<R: Runtime>(runtime: R, _: PathBuf) {
    let (client, server) = pair(&runtime).await;
    let kept = client.clone();
    drop(client);
    assert!(
        poll_once(server.receive(&mut Vec::new())).await.is_none(),
        "a clone keeps it open"
    );
    drop(kept);
    assert_eq!(server.receive(&mut Vec::new()).await.unwrap(), 0);
    assert_eq!(
        server.receive(&mut Vec::new()).await.unwrap(),
        0,
        "the end stays the end"
    );
}

pub(super) async fn what_was_sent_before_closing_arrives<R: Runtime>(runtime: R, _: PathBuf) {
    for bytes in [10, 100_000] {
        let (client, server) = pair(&runtime).await;
        client.send(pattern(bytes)).await.unwrap();
        drop(client);
        assert!(receive_exactly(&server, bytes).await == pattern(bytes));
        assert_eq!(server.receive(&mut Vec::new()).await.unwrap(), 0);
    }
}

pub(super) async fn shutdown_resolves_what_waits<R: Runtime>(runtime: R, _: PathBuf) {
    let (client, server) = pair(&runtime).await;
    let resolved = Rc::new(RefCell::new(Vec::new()));
    let (receiving, list) = (client.clone(), Rc::clone(&resolved));
    runtime.spawn(Queue::Foreground, async move {
        // Zero or an error: the stream is over either way.
        let result = receiving.receive(&mut Vec::new()).await;
        assert!(!matches!(result, Ok(1..)));
        list.borrow_mut().push("receive");
    });
    let (sending, list) = (client.clone(), Rc::clone(&resolved));
    runtime.spawn(Queue::Foreground, async move {
        sending.send(pattern(8 * LARGE_BYTES)).await.unwrap_err();
        list.borrow_mut().push("send");
    });
    runtime.sleep(std::time::Duration::from_millis(20)).await;
    assert!(resolved.borrow().is_empty());
    client.shutdown();
    until(&runtime, || resolved.borrow().len() == 2).await;
    client.send(b"late".to_vec()).await.unwrap_err();
    client.shutdown();
    let mut bytes = Vec::new();
    while let Ok(1..) = server.receive(&mut bytes).await {}
}

pub(super) async fn dropped_receives_lose_nothing<R: Runtime>(runtime: R, _: PathBuf) {
    let (client, server) = pair(&runtime).await;
    let mut received = Vec::new();
    for round in 0..50u8 {
        let _ = poll_once(server.receive(&mut received)).await;
        client.send(vec![round; 100]).await.unwrap();
        let _ = poll_once(server.receive(&mut received)).await;
    }
    let rest = receive_exactly(&server, 5000 - received.len()).await;
    received.extend_from_slice(&rest);
    assert!(
        received
            .chunks(100)
            .zip(0..)
            .all(|(chunk, round)| chunk == [round; 100])
    );
}

pub(super) async fn connecting_to_nobody_is_refused<R: Runtime>(runtime: R, _: PathBuf) {
    let listener = runtime.listen(ANY_PORT).unwrap();
    let address = listener.address();
    drop(listener);
    // A dropped listener may take a moment to let go of its port.
    runtime.sleep(std::time::Duration::from_millis(20)).await;
    let error = runtime.connect(address).await.err().expect("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

pub(super) async fn many_connections_at_once<R: Runtime>(runtime: R, _: PathBuf) {
    const CONNECTIONS: usize = 300;
    let listener = runtime.listen(ANY_PORT).unwrap();
    let address = listener.address();
    let server = runtime.clone();
    runtime.spawn(Queue::Foreground, async move {
        for _ in 0..CONNECTIONS {
            let connection = listener.accept().await.unwrap();
            server.spawn(Queue::Foreground, echo(connection));
        }
    });
    let ended = Rc::new(Cell::new(0));
    for index in 0..CONNECTIONS {
        let (own, ended) = (runtime.clone(), Rc::clone(&ended));
        runtime.spawn(Queue::Foreground, async move {
            let connection = own.connect(address).await.unwrap();
            for round in 0..5 {
                let content = pattern(index * 37 + round + 1);
                connection.send(content.clone()).await.unwrap();
                assert!(receive_exactly(&connection, content.len()).await == content);
            }
            ended.set(ended.get() + 1);
        });
    }
    until(&runtime, || ended.get() == CONNECTIONS).await;
}

pub(super) async fn a_dropped_accept_loses_nothing<R: Runtime>(runtime: R, _: PathBuf) {
    let listener = runtime.listen(ANY_PORT).unwrap();
    assert!(poll_once(listener.accept()).await.is_none());
    let client = runtime.connect(listener.address()).await.unwrap();
    let server = listener.accept().await.unwrap();
    client.send(b"hello".to_vec()).await.unwrap();
    assert_eq!(receive_exactly(&server, 5).await, b"hello");
}

pub(super) async fn an_abandoned_connect_does_no_harm<R: Runtime>(runtime: R, _: PathBuf) {
    let listener = runtime.listen(ANY_PORT).unwrap();
    for _ in 0..20 {
        let _ = poll_once(runtime.connect(listener.address())).await;
    }
    let client = runtime.connect(listener.address()).await.unwrap();
    client.send(b"here".to_vec()).await.unwrap();
    // Some of the abandoned ones may have come through; they end without a byte.
    loop {
        let server = listener.accept().await.unwrap();
        let mut received = Vec::new();
        if matches!(server.receive(&mut received).await, Ok(1..)) {
            assert_eq!(received, b"here");
            break;
        }
    }
}
