//! A listener when descriptors run out. Alone in its process, whose limit it lowers.
#![allow(
    clippy::disallowed_methods,
    reason = "a plain thread is the outside world here"
)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use cairn_runtime::real::{Config, run};
use cairn_runtime::{Connection, Listener, Queue, Runtime};
use rustix::process::{Resource, Rlimit, setrlimit};

const DESCRIPTORS: u64 = 96;

#[test]
fn a_listener_survives_want_of_descriptors() {
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(DESCRIPTORS),
            maximum: Some(DESCRIPTORS),
        },
    )
    .unwrap();
    let (port, ports) = mpsc::channel::<SocketAddr>();
    let (exhausted, saw_pause) = mpsc::channel::<()>();
    let outside = std::thread::spawn(move || {
        let address = ports.recv().unwrap();
        // All descriptors but one, which the client takes: none is left to accept it with.
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        hoard.pop().unwrap();
        let silent = TcpStream::connect(address).unwrap();
        saw_pause.recv().unwrap();
        drop((hoard, silent));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"still there?").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still there?");
    });
    run(
        Config {
            shards: 1,
            pin: false,
            ..Config::default()
        },
        move |runtime| {
            let (port, exhausted) = (port.clone(), exhausted.clone());
            async move {
                let listener = runtime
                    .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
                    .unwrap();
                port.send(listener.address()).unwrap();
                let own = runtime.clone();
                runtime.spawn(Queue::Foreground, async move {
                    while own.ring_stats().accept_pauses == 0 {
                        own.sleep(Duration::from_millis(5)).await;
                    }
                    exhausted.send(()).unwrap();
                });
                let (done, mut finished) = cairn_runtime::mailbox::mailbox(1);
                let own = runtime.clone();
                runtime.spawn(Queue::Foreground, async move {
                    loop {
                        let connection = listener.accept().await.unwrap();
                        let done = done.clone();
                        own.spawn(Queue::Foreground, async move {
                            let mut bytes = Vec::new();
                            // The first client says nothing; the last client is answered.
                            if connection.receive(&mut bytes).await.is_ok_and(|count| count > 0) {
                                connection.send(bytes).await.unwrap();
                                done.send(()).await.unwrap();
                            }
                        });
                    }
                });
                finished.recv().await;
            }
        },
    )
    .unwrap();
    outside.join().unwrap();
}
