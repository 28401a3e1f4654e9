//! The real runtime: the conformance suite, and what only real threads and sockets show.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(
    clippy::disallowed_methods,
    reason = "plain threads and sockets stand for the outside world here"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_runtime::conformance;
use cairn_runtime::mailbox::{Closed, mailbox, reply};
use cairn_runtime::real::{Config, RealRuntime, run};
use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Connection, Drive, File, Listener, Open, Queue, Runtime};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn shards(shards: usize) -> Config {
    Config {
        shards,
        pin: false,
        receive_buffers: 64,
        ..Config::default()
    }
}

/// Runs `future` on one shard.
fn on_one_shard<F, Fut>(config: Config, start: F)
where
    F: Fn(RealRuntime, PathBuf) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    run(config, move |runtime| {
        let future = start(runtime, path.clone());
        let count = Arc::clone(&count);
        async move {
            future.await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
}

#[test]
fn conforms() {
    on_one_shard(shards(1), |runtime, path| async move {
        conformance::run_all(runtime, &path).await
    });
}

#[test]
fn conforms_with_tiny_queues_and_timers() {
    let config = Config {
        submission_entries: 4,
        completion_entries: 8,
        receive_buffers: 2,
        slice: Duration::from_micros(1),
        spin: Duration::from_micros(10),
        ..shards(1)
    };
    on_one_shard(config, |runtime, path| async move {
        conformance::run_all(runtime, &path).await
    });
}

#[test]
fn shards_ask_each_other() {
    let (to_zero, at_zero) = mailbox(4);
    let (to_one, at_one) = mailbox(4);
    let ends = Arc::new(Mutex::new([Some((to_one, at_zero)), Some((to_zero, at_one))]));
    let answered = Arc::new(AtomicUsize::new(0));
    let total = Arc::clone(&answered);
    run(shards(2), move |runtime| {
        let (sender, receiver) = ends.lock().unwrap()[runtime.shard().0].take().unwrap();
        let total = Arc::clone(&total);
        async move {
            let (end, ended) = reply();
            runtime.spawn(Queue::Foreground, async move {
                end.send(conformance::serve(receiver).await)
            });
            conformance::ask(runtime, sender, 32, 200).await;
            // The shard ends with this future: only when the other has nothing left to ask.
            total.fetch_add(ended.await.unwrap() as usize, Ordering::Relaxed);
        }
    })
    .unwrap();
    assert_eq!(answered.load(Ordering::Relaxed), 2 * 32 * 200);
}

#[test]
fn threads_outside_wake_a_sleeping_shard() {
    let (sender, receiver) = mailbox(1);
    let outside = std::thread::spawn(move || {
        for number in 0..100u64 {
            let (asked, answer) = reply();
            // A thread without an executor of its own.
            glommio_free_block_on(async {
                sender.send((number, asked)).await.unwrap();
                assert_eq!(answer.await, Ok(number + 1));
            });
        }
    });
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    run(shards(1), move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move { assert_eq!(conformance::serve(receiver).await, 100) }
    })
    .unwrap();
    outside.join().unwrap();
}

/// Polls by parking the thread.
fn glommio_free_block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Unpark>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_shard_ends_with_its_start_and_closes_what_it_held() {
    let (sender, receiver) = mailbox::<conformance::Asked>(8);
    let (sender, receiver) = (
        Arc::new(Mutex::new(Some(sender))),
        Arc::new(Mutex::new(Some(receiver))),
    );
    run(shards(2), move |runtime| {
        let (sender, receiver) = (sender.clone(), receiver.clone());
        async move {
            if runtime.shard().0 == 0 {
                let mut receiver = receiver.lock().unwrap().take().unwrap();
                let listener = runtime.listen(ANY_PORT).unwrap();
                let connection = runtime.connect(listener.address()).await.unwrap();
                // Tasks that would wait for ever, holding all kinds of things.
                runtime.spawn(Queue::Background, async move {
                    let held = receiver.recv().await;
                    connection.receive(&mut Vec::new()).await.unwrap();
                    drop((held, connection));
                });
                runtime.spawn(Queue::Replication, async move { drop(listener.accept().await) });
                let own = runtime.clone();
                runtime.spawn(Queue::Foreground, async move {
                    loop {
                        own.yield_now().await;
                    }
                });
                runtime.sleep(Duration::from_millis(50)).await;
            } else {
                let sender = sender.lock().unwrap().take().unwrap();
                let (asked, answer) = reply();
                sender.send((1, asked)).await.unwrap();
                assert_eq!(answer.await, Err(Closed));
            }
        }
    })
    .unwrap();
}

#[test]
fn a_peer_that_closes_one_direction_still_hears() {
    let (port, ports) = std::sync::mpsc::channel();
    let outside = std::thread::spawn(move || {
        let address: SocketAddr = ports.recv().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer to question");
    });
    on_one_shard(shards(1), move |runtime, _| {
        let port = port.clone();
        async move {
            let listener = runtime.listen(ANY_PORT).unwrap();
            port.send(listener.address()).unwrap();
            let connection = listener.accept().await.unwrap();
            let mut received = Vec::new();
            while connection.receive(&mut received).await.unwrap() > 0 {}
            connection
                .send([b"answer to ", &received[..]].concat())
                .await
                .unwrap();
        }
    });
    outside.join().unwrap();
}

#[test]
fn every_shard_accepts_on_one_port() {
    let port = Arc::new(Mutex::new(None::<SocketAddr>));
    run(shards(2), move |runtime| {
        let port = Arc::clone(&port);
        async move {
            let listener = {
                let mut port = port.lock().unwrap();
                let listener = runtime.listen(port.unwrap_or(ANY_PORT)).unwrap();
                *port = Some(listener.address());
                listener
            };
            drop(listener);
        }
    })
    .unwrap();
}

#[test]
fn an_ended_shard_leaves_no_write_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    run(shards(1), move |runtime| {
        let path = path.clone();
        async move {
            let drive = runtime.drive(&path, true).await.unwrap();
            let how = Open {
                create_new: true,
                durable: true,
                read_only: false,
            };
            let file = drive.open("file", how).await.unwrap();
            for place in 0..64u64 {
                let file = file.clone();
                runtime.spawn(Queue::Foreground, async move {
                    let block = std::rc::Rc::new(AlignedBuffer::from_slice(&[7; BLOCK_BYTES]));
                    file.write_at(place * BLOCK_BYTES as u64, block).await.unwrap();
                });
            }
            // The writes have been handed over but have not completed when the shard ends.
            runtime.yield_now().await;
        }
    })
    .unwrap();
    let content = std::fs::read(directory.path().join("file")).unwrap();
    assert_eq!(content.len(), 64 * BLOCK_BYTES);
    assert!(content.iter().all(|&byte| byte == 7));
}

#[test]
fn impossible_configurations_are_refused() {
    for config in [
        Config {
            shards: 0,
            ..shards(1)
        },
        Config {
            receive_buffers: 3,
            ..shards(1)
        },
        Config {
            completion_entries: 1,
            ..shards(1)
        },
        Config {
            shares: [1, 0, 1],
            ..shards(1)
        },
    ] {
        let error = run(config, |_| async {}).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn links_are_followed_where_they_lead() {
    on_one_shard(shards(1), |runtime, path| async move {
        let root = path.canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("broken")).unwrap();
        for (spelled, whole) in [
            ("link", "real"),
            ("link/deep", "real/deep"),
            ("link/deep/..", "real"),
            ("link/../link/new/er", "real/new/er"),
            ("new/../link", "link"),
            ("broken", "broken"),
            ("broken/new", "broken/new"),
        ] {
            assert_eq!(
                runtime.resolve(&root.join(spelled)),
                root.join(whole),
                "{spelled}"
            );
        }
        // A link is no file of a drive, and not what a drive is emptied of.
        let drive = runtime.drive(&root, false).await.unwrap();
        assert_eq!(drive.strangers().await.unwrap(), ["broken", "link", "real"]);
    });
}

#[test]
fn a_lock_is_on_the_file_that_has_its_name() {
    on_one_shard(shards(1), |runtime, path| async move {
        let first = runtime.drive(&path, false).await.unwrap();
        first.lock().unwrap();
        std::fs::remove_file(path.join("cairn.lock")).unwrap();
        let second = runtime.drive(&path, false).await.unwrap();
        second.lock().expect("nobody holds the file that is there now");
        assert!(path.join("cairn.lock").exists());
        first.abandon();
        assert!(path.join("cairn.lock").exists(), "it is the other's");
        second.abandon();
        assert!(!path.join("cairn.lock").exists());
    });
}
