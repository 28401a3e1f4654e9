//! Connections between nodes: order, backpressure, partitions, crashes.

use std::time::Duration;

use cairn_runtime::sim::SimConnection;
use cairn_runtime::sync;
use cairn_runtime::{Connection, Listener, Queue};

use super::*;

const SERVER: NodeIndex = NodeIndex(0);
const CLIENT: NodeIndex = NodeIndex(1);

fn pair_of_nodes(seed: u64) -> Simulation {
    Simulation::new(
        seed,
        Config {
            nodes: 2,
            trace_tail: 20,
            ..Config::default()
        },
    )
}

/// A server that counts what it receives after `pause`, and answers with the sum of the bytes at the end.
fn serve(sim: &Handle, pause: Duration) {
    sim.start(SERVER, move |runtime| async move {
        let listener = runtime.listen("0.0.0.0:80".parse().unwrap()).unwrap();
        loop {
            let connection = listener.accept().await.unwrap();
            let task = runtime.clone();
            runtime.spawn(Queue::Foreground, async move {
                task.sleep(pause).await;
                let mut bytes = Vec::new();
                while !bytes.ends_with(&[0xff]) {
                    match connection.receive(&mut bytes).await {
                        Ok(1..) => {}
                        _ => return,
                    }
                }
                let ordered = bytes
                    .windows(2)
                    .all(|pair| pair[1] == 0xff || pair[1] == pair[0].wrapping_add(1) % 250);
                let _ = connection.send(vec![u8::from(ordered)]).await;
            });
        }
    });
}

async fn ask(connection: &SimConnection, bytes: usize) -> io::Result<u8> {
    let mut question: Vec<u8> = (0..bytes).map(|place| (place % 250) as u8).collect();
    question.push(0xff);
    let empty = connection.send(question).await?;
    assert!(
        empty.is_empty() && empty.capacity() > bytes,
        "the buffer comes back for reuse"
    );
    let mut answer = Vec::new();
    if connection.receive(&mut answer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer[0])
}

fn client<T: 'static>(sim: &Handle, task: impl AsyncFnOnce(SimRuntime, SimConnection) -> T + 'static) -> T {
    let address = sim.socket_address(SERVER, 80);
    sim.block_on(CLIENT, SHARD, async move |runtime| {
        // The server may not listen yet.
        runtime.sleep(Duration::from_millis(1)).await;
        let connection = runtime.connect(address).await.unwrap();
        task(runtime, connection).await
    })
}

#[test]
fn bytes_arrive_in_order_and_a_slow_reader_holds_the_sender_back() {
    for seed in 0..10 {
        let sim = pair_of_nodes(seed);
        serve(&sim, Duration::from_secs(2));
        client(&sim, async |runtime, connection| {
            let start = runtime.now();
            assert_eq!(ask(&connection, 1_000_000).await.unwrap(), 1);
            assert!(runtime.now() - start > Duration::from_secs(2));
        });
    }
}

#[test]
fn connections_overtake_each_other() {
    let mut overtaken = 0;
    for seed in 0..20 {
        let sim = pair_of_nodes(seed);
        serve(&sim, Duration::ZERO);
        let address = sim.socket_address(SERVER, 80);
        overtaken += client(&sim, async move |runtime, first| {
            let second = runtime.connect(address).await.unwrap();
            let earlier = sync::spawn(&runtime, Queue::Foreground, async move {
                ask(&first, 10).await.unwrap();
            });
            runtime.yield_now().await;
            ask(&second, 10).await.unwrap();
            let overtaken = { earlier }.try_receive().is_none();
            usize::from(overtaken)
        });
    }
    assert!((1..20).contains(&overtaken), "{overtaken}");
}

#[test]
fn a_partition_delays_and_then_breaks() {
    for (pause, expected) in [(3, Ok(1)), (60, Err(io::ErrorKind::TimedOut))] {
        let sim = pair_of_nodes(3);
        serve(&sim, Duration::ZERO);
        let control = sim.clone();
        let answer = client(&sim, async move |runtime, connection| {
            control.partition(&[CLIENT], &[SERVER]);
            let outside = control.outside();
            runtime.spawn(Queue::Background, async move {
                outside.sleep(Duration::from_secs(pause)).await;
                control.heal_all();
            });
            ask(&connection, 10).await.map_err(|error| error.kind())
        });
        assert_eq!(answer, expected);
    }
}

#[test]
fn connecting_fails_in_each_way() {
    let sim = pair_of_nodes(4);
    let nobody = sim.socket_address(SERVER, 81);
    let connect = move |sim: &Handle| {
        sim.block_on(CLIENT, SHARD, async move |runtime| {
            runtime
                .connect(nobody)
                .await
                .map(drop)
                .map_err(|error| error.kind())
        })
    };
    assert_eq!(connect(&sim), Err(io::ErrorKind::ConnectionRefused));
    sim.partition_one_way(SERVER, CLIENT);
    assert_eq!(connect(&sim), Err(io::ErrorKind::TimedOut));
    sim.heal(CLIENT, SERVER);
    sim.crash(SERVER);
    let down = connect(&sim).unwrap_err();
    assert!(matches!(
        down,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut
    ));
}

#[test]
fn a_crash_breaks_connections_sooner_or_later() {
    for seed in 0..20 {
        let sim = pair_of_nodes(seed);
        serve(&sim, Duration::from_secs(1));
        let control = sim.clone();
        let answer = client(&sim, async move |runtime, connection| {
            let crash = control.clone();
            control.outside().spawn(Queue::Foreground, async move {
                crash.outside().sleep(Duration::from_millis(500)).await;
                crash.crash(SERVER);
            });
            runtime.sleep(Duration::from_millis(600)).await;
            ask(&connection, 10).await.map_err(|error| error.kind())
        });
        assert_eq!(answer, Err(io::ErrorKind::ConnectionReset), "seed {seed}");
    }
}

#[test]
fn the_end_comes_after_the_bytes_and_dropping_everything_frees_it() {
    let sim = pair_of_nodes(5);
    sim.block_on(SERVER, SHARD, async |runtime| {
        let listener = runtime.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        for _ in 0..100 {
            let connection = runtime.connect(listener.address()).await.unwrap();
            let peer = listener.accept().await.unwrap();
            connection.send(vec![1; 1_000]).await.unwrap();
            drop(connection);
            let mut bytes = Vec::new();
            while peer.receive(&mut bytes).await.unwrap() > 0 {}
            assert_eq!(bytes, [1; 1_000]);
            peer.shutdown();
            assert!(peer.send(vec![1]).await.is_err());
            assert_eq!(peer.receive(&mut bytes).await.unwrap(), 0);
        }
    });
}
