//! What the shard ring costs without a database on it: answers every HTTP request on 127.0.0.1:8000 with 1.1 KB.
//!
//! `cargo run --release -p cairn-runtime --example echo -- [get|put DIRECTORY DIRECTORY]`, then for example
//! `taskset -c 1 wrk -t1 -c32 -d8 --latency http://127.0.0.1:8000/`. `put` answers after a group commit: whatever
//! asks while a 4 KiB block is on its way to both directories' files shares the next one.
#![allow(clippy::unwrap_used, reason = "a measuring tool")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, ReplySender, mailbox, reply};
use cairn_runtime::real::{Config, RealRuntime, run};
use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Connection, Drive, File, Listener, Open, Queue, Runtime};
use futures_util::future::join_all;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
const BODY_BYTES: usize = 1100;
const LOG_BLOCKS: u64 = 4096;

type Commits = MailboxSender<ReplySender<()>>;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let put = arguments.next().as_deref() == Some("put");
    let directories: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let config = Config {
        shards: 1,
        spin: spin(),
        ..Config::default()
    };
    run(config, move |runtime| {
        let directories = directories.clone();
        async move {
            let (commits, asked) = mailbox(4096);
            if put {
                let log = log(runtime.clone(), directories, asked).await;
                runtime.spawn(Queue::Foreground, log);
            }
            serve(runtime, put.then_some(commits)).await;
        }
    })
    .unwrap();
}

fn spin() -> Duration {
    let micros = std::env::var("SPIN_US").ok().and_then(|text| text.parse().ok());
    Duration::from_micros(micros.unwrap_or(0))
}

async fn serve(runtime: RealRuntime, commits: Option<Commits>) {
    let listener = runtime.listen(ADDRESS).unwrap();
    println!("serving {} with {:?}", listener.address(), runtime.ring_stats());
    loop {
        let connection = listener.accept().await.unwrap();
        runtime.spawn(Queue::Foreground, answer(connection, commits.clone()));
    }
}

async fn answer(connection: impl Connection, commits: Option<Commits>) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let response = [head.as_bytes(), &[b'x'; BODY_BYTES]].concat();
    let (mut received, mut out) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    while let Ok(1..) = connection.receive(&mut received).await {
        let mut begin = 0;
        while let Some(end) = received[begin..]
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        {
            begin += end + 4;
            if let Some(commits) = &commits {
                let (sender, durable) = reply();
                commits.send(sender).await.unwrap();
                durable.await.unwrap();
            }
            out.extend_from_slice(&response);
        }
        received.drain(..begin);
        if out.is_empty() {
            continue;
        }
        match connection.send(out).await {
            Ok(returned) => out = returned,
            Err(_) => return,
        }
    }
}

/// A group-commit log over pre-written files, one in each directory.
async fn log(
    runtime: RealRuntime,
    directories: Vec<PathBuf>,
    mut asked: MailboxReceiver<ReplySender<()>>,
) -> impl Future<Output = ()> {
    let mut files = Vec::new();
    for directory in directories {
        let drive = runtime.drive(&directory, true).await.unwrap();
        let _ = drive.remove("echo.log").await;
        let how = Open {
            create_new: true,
            durable: true,
            read_only: false,
        };
        let file = drive.open("echo.log", how).await.unwrap();
        let zeros = Rc::new(AlignedBuffer::zeroed(LOG_BLOCKS as usize * BLOCK_BYTES));
        file.write_at(0, zeros).await.unwrap();
        files.push(file);
    }
    async move {
        let (mut batch, mut place) = (Vec::new(), 0);
        while let Some(first) = asked.recv().await {
            batch.push(first);
            asked.drain(&mut batch);
            let block = Rc::new(AlignedBuffer::zeroed(BLOCK_BYTES));
            let offset = place % LOG_BLOCKS * BLOCK_BYTES as u64;
            place += 1;
            let writes = files.iter().map(|file| file.write_at(offset, Rc::clone(&block)));
            for result in join_all(writes).await {
                result.unwrap();
            }
            for sender in batch.drain(..) {
                sender.send(());
            }
        }
    }
}
