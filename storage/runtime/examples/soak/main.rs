//! Stress of the real runtime: drives, network, timers, wakes between shards and busy background tasks at once, with
//! operations dropped at random, at several lengths of a slice, each ended in full flight. Then silence, which must cost
//! nothing.
//!
//! `cargo run --release -p cairn-runtime --example soak -- --minutes N [--directory PATH]`. Prints the longest gap
//! between a timer's deadline and its task's run. Exits with 1 when one kind of work has stood still for
//! [`STALL_LIMIT`] or an idle process uses more than [`IDLE_PERCENT_MAX`] of a core.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test tool that watches from outside"
)]

mod load;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::exit;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_runtime::mailbox::mailbox;
use cairn_runtime::real::{Config, run};
use cairn_runtime::{Listener, Runtime};

use load::Load;
use watch::Watch;

const SHARDS: usize = 2;
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const STALL_LIMIT: Duration = Duration::from_secs(20);
const IDLE_PERCENT_MAX: f64 = 1.0;
const IDLE_CONNECTIONS: usize = 32;

/// Slice and spin of each phase.
const PHASES: [(Duration, Duration); 5] = [
    (Duration::from_micros(200), Duration::ZERO),
    (Duration::from_micros(1), Duration::ZERO),
    (Duration::from_micros(20), Duration::from_micros(10)),
    (Duration::from_millis(1), Duration::from_micros(20)),
    (Duration::from_millis(20), Duration::ZERO),
];

fn main() {
    let (minutes, directory) = arguments();
    let watch = Arc::new(Watch::default());
    watch.guard(STALL_LIMIT);
    // Rounds of short phases: ending and starting under load is part of the test.
    let phase = Duration::from_secs_f64(minutes * 60.0 / PHASES.len() as f64).min(Duration::from_secs(20));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    while Instant::now() < end {
        for (slice, spin) in PHASES {
            let config = Config {
                shards: SHARDS,
                slice,
                spin,
                receive_buffers: 64,
                ..Config::default()
            };
            watch.begin_phase();
            stress(config, phase, &directory, &watch);
            println!("slice {slice:?}, spin {spin:?}: {}", watch.end_phase());
        }
    }
    println!("all phases: {}", watch.total());
    let idle = idle_percent();
    println!("idle, {SHARDS} shards, {IDLE_CONNECTIONS} open connections: {idle:.3} % of a core");
    let _ = std::fs::remove_dir_all(&directory);
    if idle > IDLE_PERCENT_MAX {
        exit(1);
    }
}

fn arguments() -> (f64, PathBuf) {
    let mut minutes = 1.0;
    let mut directory = PathBuf::from("target/soak");
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next();
        match (argument.as_str(), value) {
            ("--minutes", Some(value)) => minutes = value.parse().expect("--minutes takes a number"),
            ("--directory", Some(value)) => directory = PathBuf::from(value),
            _ => {
                eprintln!("usage: soak [--minutes N] [--directory PATH]");
                exit(2);
            }
        }
    }
    (minutes, directory)
}

/// Runs everything at once on every shard for `duration`.
fn stress(config: Config, duration: Duration, directory: &std::path::Path, watch: &Arc<Watch>) {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| mailbox(16)).unzip();
    let receivers = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>()));
    let (watch, directory) = (Arc::clone(watch), directory.to_path_buf());
    run(config, move |runtime| {
        let shard = runtime.shard().0;
        let load = Load {
            runtime: runtime.clone(),
            watch: Arc::clone(&watch),
            directory: directory.join(format!("shard-{shard}")),
            to_neighbour: senders[(shard + 1) % SHARDS].clone(),
        };
        let receiver = receivers.lock().unwrap()[shard].take().unwrap();
        async move {
            load.start(receiver).await;
            // The shards end one after the other, in the midst of everything.
            runtime
                .sleep(duration + Duration::from_millis(100) * u32::try_from(shard).unwrap())
                .await;
        }
    })
    .unwrap();
}

/// Percent of one core that shards with open connections and nothing to do use.
fn idle_percent() -> f64 {
    const SILENCE: Duration = Duration::from_secs(5);
    let result = Arc::new(Mutex::new(0.0));
    let measured = Arc::clone(&result);
    run(
        Config {
            shards: SHARDS,
            ..Config::default()
        },
        move |runtime| {
            let measured = Arc::clone(&measured);
            async move {
                let listener = runtime.listen(ANY_PORT).unwrap();
                let mut connections = Vec::new();
                for _ in 0..IDLE_CONNECTIONS {
                    let connected = runtime.connect(listener.address()).await.unwrap();
                    connections.push((connected, listener.accept().await.unwrap()));
                }
                for (connected, accepted) in connections.clone() {
                    for connection in [connected, accepted] {
                        runtime.spawn(cairn_runtime::Queue::Foreground, load::wait_for_end(connection));
                    }
                }
                runtime.sleep(Duration::from_millis(500)).await;
                let before = watch::processor_time();
                runtime.sleep(SILENCE).await;
                let used = watch::processor_time() - before;
                *measured.lock().unwrap() = 100.0 * used.as_secs_f64() / SILENCE.as_secs_f64();
            }
        },
    )
    .unwrap();
    *result.lock().unwrap()
}
