//! A drive that answers, but late: reads go round it, it is told of, and it is used again when it is quick.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use cairn_engine::volume::VolumeConfig;
use cairn_runtime::Runtime;
use cairn_runtime::sim::FaultConfig;
use common::*;

/// Every operation of the drive is late.
fn late() -> FaultConfig {
    FaultConfig {
        slow_ppm: 1_000_000,
        ..FaultConfig::NONE
    }
}

fn is_slow(world: &World, running: &Running) -> Vec<bool> {
    let volume = running.volume();
    let status = world
        .run(async move |_| volume.status().await)
        .expect("the keeper runs");
    status.drives.iter().map(|drive| drive.slow).collect()
}

/// Reads of every drive since the start, as the keeper knows them.
fn reads(world: &World, running: &Running) -> Vec<u64> {
    let volume = running.volume();
    world.run(async move |runtime| {
        // The engine tells every ten seconds.
        runtime.sleep(Duration::from_secs(11)).await;
        let status = volume.status().await.expect("the keeper runs");
        let mut reads = vec![0; status.drives.len()];
        for (_, report) in &status.logs {
            for (drive, counts) in &report.drives {
                reads[drive.get()] += counts.latencies.count();
            }
        }
        reads
    })
}

/// Batches that each drive has written, as the keeper knows them.
fn writes(world: &World, running: &Running) -> Vec<u64> {
    let volume = running.volume();
    world.run(async move |runtime| {
        runtime.sleep(Duration::from_secs(11)).await;
        let status = volume.status().await.expect("the keeper runs");
        let mut writes = vec![0; status.drives.len()];
        for (_, report) in &status.logs {
            for (drive, latencies) in &report.writes {
                writes[drive.get()] += latencies.count();
            }
        }
        writes
    })
}

/// With pauses, in which what a slow drive was asked comes to its end.
fn read(world: &World, running: &Running, turns: u64) {
    let runtime = running.runtime.clone();
    world.with(running, async move |engine| {
        for turn in 0..turns {
            if turn % 10 == 0 {
                runtime.sleep(Duration::from_millis(25)).await;
            }
            let _ = engine.get(P1, &key(turn * 7 % 400)).await.expect("it serves");
        }
    });
}

#[test]
fn reads_go_round_a_slow_drive_until_it_is_quick_again() {
    for victim in 0..2 {
        let world = World::new(80 + victim as u64, small());
        let running = world.open();
        world.with(&running, async |engine| fill(&engine, P1, 400, 2_000).await);
        read(&world, &running, 200);
        assert_eq!(is_slow(&world, &running), [false, false]);

        world.mirror(victim).set_faults(late());
        read(&world, &running, 200);
        let before = reads(&world, &running);
        assert_eq!(is_slow(&world, &running), [victim == 0, victim == 1]);
        read(&world, &running, 400);
        let after = reads(&world, &running);
        let asked: Vec<u64> = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
            .collect();
        assert!(
            asked[victim] * 10 < asked[1 - victim],
            "only now and then, to see whether it is quick: {asked:?}"
        );

        world.mirror(victim).set_faults(FaultConfig::NONE);
        for _ in 0..20 {
            read(&world, &running, 20);
            reads(&world, &running);
        }
        assert_eq!(is_slow(&world, &running), [false, false]);
        let before = reads(&world, &running);
        read(&world, &running, 400);
        let after = reads(&world, &running);
        let asked = |at: usize| after[at] - before[at];
        assert!(asked(victim) * 2 > asked(1 - victim), "{before:?} {after:?}");
        world.crash(running);
    }
}

#[test]
fn no_read_waits_for_a_drive_that_stalls() {
    const STALL: Duration = Duration::from_millis(1_500);
    for victim in 0..2 {
        let world = World::new(90 + victim as u64, small());
        let running = world.open();
        world.with(&running, async |engine| fill(&engine, P1, 400, 2_000).await);
        read(&world, &running, 200);
        for _ in 0..3 {
            world.mirror(victim).stall_for(STALL);
            let runtime = running.runtime.clone();
            let slowest = world.with(&running, async move |engine| {
                let mut slowest = Duration::ZERO;
                for turn in 0..100 {
                    let began = runtime.now();
                    let found = get(&engine, P1, &key(turn * 7 % 100)).await;
                    assert!(found.is_some_and(|item| item.len() == 2_000));
                    slowest = slowest.max(runtime.now().since(began));
                }
                slowest
            });
            assert!(slowest < Duration::from_millis(20), "{slowest:?}");
            read(&world, &running, 100);
        }
        assert!(running.engine.stats().segments.late_reads > 0);
        // It is in sync all the same, and has everything.
        let volume = running.volume();
        let status = world
            .run(async move |_| volume.status().await)
            .expect("the keeper runs");
        assert_eq!(status.in_sync.set.count(), 2);
        world.close(running);
    }
}

#[test]
fn where_both_stall_reads_wait_and_are_answered() {
    let world = World::new(95, small());
    let running = world.open();
    world.with(&running, async |engine| fill(&engine, P1, 400, 2_000).await);
    for at in 0..2 {
        world.mirror(at).stall_for(Duration::from_secs(5));
    }
    read(&world, &running, 100);
    assert_eq!(
        is_slow(&world, &running),
        [false, false],
        "neither is slower than the other"
    );
    world.close(running);
}

#[test]
fn a_drive_that_is_slow_to_write_is_told_of_and_the_log_goes_elsewhere() {
    let world = World::new(97, small());
    let drives = (0..3).map(|at| PathBuf::from(format!("/mirror-{at}")));
    let running = world.try_open_on(VolumeConfig {
        drives: drives.collect(),
        ..world.volume_config()
    });
    let running = running.expect("the engine opens");
    world.with(&running, async |engine| fill(&engine, P1, 400, 500).await);
    let before = writes(&world, &running);
    let victim = (0..3).max_by_key(|at| before[*at]).expect("three drives");
    world.mirror(victim).set_faults(late());
    world.with(&running, async |engine| fill(&engine, P1, 400, 500).await);
    let slow = writes(&world, &running);
    assert!(is_slow(&world, &running)[victim]);
    world.with(&running, async |engine| fill(&engine, P1, 400, 500).await);
    let after = writes(&world, &running);
    let written: Vec<u64> = after
        .iter()
        .zip(&slow)
        .map(|(after, slow)| after - slow)
        .collect();
    assert!(
        (0..3).all(|at| at == victim || written[at] > 2 * written[victim]),
        "{before:?} {slow:?} {after:?}"
    );
    world.close(running);
}
