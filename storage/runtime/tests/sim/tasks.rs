//! Tasks, time and clocks.

use std::cell::RefCell;
use std::time::Duration;

use cairn_runtime::Queue;
use cairn_runtime::sim::ClockConfig;
use cairn_runtime::sync::{self, Notify};

use super::*;

#[test]
fn tasks_of_one_queue_run_in_order_and_queues_in_any() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let order = simulation(seed).block_on(NODE, SHARD, async |runtime| {
            let order = Rc::new(RefCell::new(Vec::new()));
            for number in 0..3 {
                for queue in [Queue::Foreground, Queue::Background] {
                    let (yielding, order) = (runtime.clone(), Rc::clone(&order));
                    runtime.spawn(queue, async move {
                        order.borrow_mut().push((queue, number));
                        yielding.yield_now().await;
                        order.borrow_mut().push((queue, number + 3));
                    });
                }
            }
            runtime.sleep(Duration::from_secs(1)).await;
            order.take()
        });
        for queue in [Queue::Foreground, Queue::Background] {
            let of_queue: Vec<_> = order
                .iter()
                .filter(|(of, _)| *of == queue)
                .map(|(_, n)| *n)
                .collect();
            assert_eq!(of_queue, [0, 1, 2, 3, 4, 5]);
        }
        orders.insert(order.iter().map(|(queue, _)| *queue as u8).collect::<Vec<_>>());
    }
    assert!(orders.len() > 5, "the seed does not choose between queues");
}

#[test]
fn time_jumps_and_passes_while_a_task_only_yields() {
    let sim = simulation(1);
    sim.block_on(NODE, SHARD, async |runtime| {
        let start = runtime.now();
        runtime.sleep(Duration::from_secs(3600)).await;
        assert!(runtime.now() - start >= Duration::from_secs(3600));
        let start = runtime.now();
        while runtime.now() - start < Duration::from_millis(1) {
            runtime.yield_now().await;
        }
        let slow = sync::timeout(&runtime, Duration::from_secs(1), std::future::pending::<()>());
        assert!(slow.await.is_err());
    });
    assert!(sim.elapsed() < Duration::from_secs(3602));
}

#[test]
fn clocks_drift_skew_and_jump() {
    let clock = ClockConfig {
        skew_ms_max: 1_000,
        drift_ppm_max: 100_000,
        ..ClockConfig::default()
    };
    let sim = Simulation::new(
        3,
        Config {
            nodes: 2,
            clock,
            ..Config::default()
        },
    );
    let read = async |runtime: SimRuntime| {
        let start = runtime.now();
        runtime.sleep(Duration::from_secs(10)).await;
        let slept = runtime.now() - start;
        assert!(
            (Duration::from_secs(10)..Duration::from_millis(10_001)).contains(&slept),
            "{slept:?}"
        );
        (runtime.now(), runtime.unix_ms())
    };
    let (_, first) = sim.block_on(NodeIndex(0), SHARD, read);
    let (_, second) = sim.block_on(NodeIndex(1), SHARD, read);
    assert!(first.abs_diff(second) < 14_000);
    let before = sim.runtime(NODE, SHARD).unix_ms();
    sim.jump_clock(NODE, -5_000);
    assert_eq!(sim.runtime(NODE, SHARD).unix_ms(), before - 5_000);
}

#[test]
fn a_crash_drops_every_task_and_a_restart_runs_again() {
    let sim = simulation(4);
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    sim.start(NODE, move |runtime| {
        let held = Rc::clone(&held);
        async move {
            let forever = Notify::new();
            loop {
                let _ = sync::timeout(&runtime, Duration::from_secs(1), forever.notified()).await;
                assert!(Rc::strong_count(&held) > 0);
            }
        }
    });
    sim.run_for(Duration::from_secs(10));
    assert_eq!(Rc::strong_count(&alive), 2, "one task; the closure is gone");
    sim.crash(NODE);
    assert_eq!(Rc::strong_count(&alive), 1);
    assert!(sim.try_block_on(sim.add_node(1), SHARD, async |_| ()).is_some());
    sim.restart(NODE);
    assert_eq!(sim.block_on(NODE, SHARD, async |runtime| runtime.shards()), 1);
}

#[test]
fn a_crash_ends_block_on_and_a_pause_delays_it() {
    let sim = simulation(5);
    let crash = sim.clone();
    sim.outside().spawn(Queue::Foreground, async move {
        crash.outside().sleep(Duration::from_millis(5)).await;
        crash.crash(NODE);
    });
    let slept = sim.try_block_on(NODE, SHARD, async |runtime| {
        runtime.sleep(Duration::from_secs(1)).await
    });
    assert_eq!(slept, None);
    sim.restart(NODE);
    sim.pause(NODE, Duration::from_secs(2));
    let before = sim.elapsed();
    sim.block_on(NODE, SHARD, async |runtime| runtime.yield_now().await);
    assert!(sim.elapsed() - before >= Duration::from_secs(2));
}
