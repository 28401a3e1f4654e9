//! The suite that the real runtime passes too, on many seeds.

use std::path::PathBuf;
use std::time::Duration;

use cairn_runtime::Queue;
use cairn_runtime::conformance;
use cairn_runtime::mailbox::mailbox;

use super::*;

/// They move tens of megabytes: once is enough.
const SLOW: [&str; 4] = [
    "large_sends_arrive_whole",
    "both_directions_flow_at_once",
    "a_slow_reader_holds_its_peer_back",
    "shutdown_resolves_what_waits",
];

/// Takes one receive to give all that was sent, which TCP does not promise.
const WHOLE_RECEIVES: &str = "an_abandoned_connect_does_no_harm";

fn run_suite(seeds: std::ops::Range<u64>, config: impl Fn() -> Config) {
    for seed in seeds {
        for case in conformance::cases::<SimRuntime>() {
            let name = case.name;
            if seed > 0 && SLOW.contains(&name) {
                continue;
            }
            let mut config = Config {
                misuse_panics: false,
                ..config()
            };
            if name == WHOLE_RECEIVES {
                config.network.split_ppm = 0;
            }
            let sim = Simulation::new(seed, config);
            let directory = PathBuf::from("/").join(name);
            sim.block_on(NODE, SHARD, async move |runtime| {
                case.run(runtime, directory).await
            });
        }
    }
}

#[test]
fn the_simulator_conforms() {
    run_suite(0..5, Config::default);
}

#[test]
fn the_simulator_conforms_on_slow_drives() {
    run_suite(5..10, || {
        let mut config = Config {
            shards: 2,
            nodes: 2,
            ..Config::default()
        };
        // The suite takes an operation to end within 50 ms.
        let faults = &mut config.drive.faults;
        (faults.slow_ppm, faults.stall_ppm, faults.stall_ms) = (50_000, 5_000, 1..=20);
        config
    });
}

#[test]
fn mailboxes_join_shards() {
    let run = |seed| {
        let sim = Simulation::new(
            seed,
            Config {
                shards: 2,
                ..Config::default()
            },
        );
        let (sender, receiver) = mailbox(4);
        let other = sim.runtime(NODE, ShardIndex(1));
        sim.runtime(NODE, ShardIndex(1))
            .spawn(Queue::Foreground, async move {
                conformance::ask(other, sender, 8, 20).await;
            });
        let answered = sim.block_on(NODE, SHARD, async move |runtime| {
            runtime.sleep(Duration::from_millis(1)).await;
            conformance::serve(receiver).await
        });
        assert_eq!(answered, 8 * 20);
        sim.trace_hash()
    };
    (0..20).for_each(|seed| assert_eq!(run(seed), run(seed)));
}
