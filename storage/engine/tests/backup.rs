//! A backup is the node at one moment, whatever is written, damaged or cut off while it is made.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::check::{CheckOptions, check};
use cairn_engine::engine::backup::HOLD_MAX;
use cairn_engine::ids::{LogId, PartitionId};
use cairn_engine::volume::{CopyTarget, Keeper, VolumeConfig, VolumeError, VolumeHandle};
use cairn_engine::{BackupError, Copied, Direction, Engine};
use cairn_runtime::sim::{DriveControl, SimRuntime};
use cairn_runtime::{Queue, Runtime};
use common::*;

type Items = Vec<(Vec<u8>, Vec<u8>)>;

const DIRECTORY: &str = "/backup";

fn copy_config() -> VolumeConfig {
    VolumeConfig {
        drives: vec![PathBuf::from("/backup/drive")],
        state: PathBuf::from("/backup/state"),
        mirrors: 1,
        ..volume_config()
    }
}

/// Backs one engine up, and answers what it held at the moment of the copy.
async fn backup(
    runtime: SimRuntime,
    engine: &SimEngine,
    volume: &VolumeHandle,
) -> Result<([Items; 2], Copied), BackupError> {
    let target = CopyTarget::create(runtime, volume, Path::new(DIRECTORY)).await?;
    let hold = engine.hold().await?;
    let held = [
        scan_all(engine, P1, Direction::Forward).await,
        scan_all(engine, P2, Direction::Forward).await,
    ];
    let cut = hold.cut()?;
    match cut.copy_to(&target.handle(), &|_| ()).await {
        Ok(copied) => {
            target.complete().await?;
            Ok((held, copied))
        }
        Err(error) => {
            target.abandon().await;
            Err(error)
        }
    }
}

/// Writes and deletes at random until told to stop; answers how often it wrote.
async fn disturb(runtime: SimRuntime, engine: SimEngine, stop: Shared<bool>, least: u64) -> u64 {
    let mut written = 0;
    while !*stop.borrow() || written < least {
        let random = runtime.random_u64();
        let (partition, name) = ([P1, P2][(random % 2) as usize], key(random / 2 % 150));
        let done = match random % 5 {
            0 => delete(&engine, partition, &name).await,
            _ => put(&engine, partition, &name, &item(random, 900)).await,
        };
        if done.is_err() {
            break;
        }
        written += 1;
    }
    written
}

/// Another process: locks end with the one before.
fn restart(world: &World) {
    world.sim.kill(NODE);
    world.sim.restart(NODE);
}

fn is_clean(world: &World, config: VolumeConfig) -> bool {
    let report = world.run(async move |runtime| {
        let options = CheckOptions { items: false };
        check(runtime, &config, options, &mut |_| {}).await
    });
    restart(world);
    let report = report.expect("the node can be looked at");
    assert!(report.is_clean(), "{report}");
    true
}

fn held_by(world: &World, config: VolumeConfig) -> [Items; 2] {
    let running = world.try_open_on(config).unwrap();
    let held = world.with(&running, async |engine| {
        [
            scan_all(&engine, P1, Direction::Forward).await,
            scan_all(&engine, P2, Direction::Forward).await,
        ]
    });
    world.close(running);
    held
}

fn segments(drive: &DriveControl) -> Vec<String> {
    let image = drive.image();
    let names = image.names().filter(|name| name.starts_with("segment-"));
    names.map(str::to_owned).collect()
}

/// A node that has been written to for a while.
fn filled(seed: u64) -> (World, Running) {
    let world = World::new(seed, small());
    let running = world.open();
    world.with(&running, async |engine| {
        fill(&engine, P1, 300, 1_500).await;
        fill(&engine, P2, 150, 700).await;
    });
    (world, running)
}

fn copy(world: &World, running: &Running) -> Result<([Items; 2], Copied), BackupError> {
    let (engine, volume) = (running.engine.clone(), running.volume());
    world.run(async move |runtime| backup(runtime, &engine, &volume).await)
}

#[test]
fn it_is_the_node_at_one_moment_under_any_load() {
    for seed in 0..30 {
        let (world, running) = filled(seed);
        let (engine, volume) = (running.engine.clone(), running.volume());
        let (held, copied, written) = world.run(async move |runtime| {
            let stop: Shared<bool> = Rc::default();
            let (done, waiting) = cairn_runtime::sync::oneshot();
            for _ in 0..4 {
                let disturbing = disturb(runtime.clone(), engine.clone(), Rc::clone(&stop), 0);
                runtime.spawn(Queue::Foreground, async move {
                    disturbing.await;
                });
            }
            let last = disturb(runtime.clone(), engine.clone(), Rc::clone(&stop), 200);
            runtime.spawn(Queue::Foreground, async move {
                let _ = done.send(last.await);
            });
            runtime
                .sleep(Duration::from_millis(runtime.random_u64() % 50))
                .await;
            let (held, copied) = backup(runtime.clone(), &engine, &volume).await.unwrap();
            *stop.borrow_mut() = true;
            (held, copied, waiting.await.unwrap())
        });
        assert!(copied.segments > 2 && copied.linked == 0, "{copied:?}");
        assert!(written >= 200, "writes go on");
        let stats = running.engine.stats();
        assert_eq!((stats.snapshots_open, stats.background_failures), (0, 0));
        world.close(running);
        is_clean(&world, volume_config());
        is_clean(&world, copy_config());
        assert!(held_by(&world, copy_config()) == held, "seed {seed}");
        assert!(held_by(&world, volume_config()) != held, "seed {seed}");
    }
}

#[test]
fn a_copy_goes_on_as_a_node_and_can_be_copied_again() {
    let (world, running) = filled(100);
    let (held, _) = copy(&world, &running).unwrap();
    world.close(running);
    let running = world.try_open_on(copy_config()).unwrap();
    let before = running.engine.partition(P1).unwrap();
    world.with(&running, async move |engine| {
        for (name, _) in &held[0] {
            put(&engine, P1, name, b"newer").await.unwrap();
        }
        fill(&engine, P2, 300, 1_500).await;
    });
    let after = running.engine.partition(P1).unwrap();
    assert_eq!(before.item_count, after.item_count, "counters came along");
    assert!(after.floor > before.floor);
    world.close(running);
    is_clean(&world, copy_config());

    // Of a copy another can be made.
    let running = world.try_open_on(copy_config()).unwrap();
    let (engine, volume) = (running.engine.clone(), running.volume());
    world.run(async move |runtime| {
        let target = CopyTarget::create(runtime, &volume, Path::new("/second"))
            .await
            .unwrap();
        let cut = engine.hold().await.unwrap().cut().unwrap();
        cut.copy_to(&target.handle(), &|_| ()).await.unwrap();
        target.complete().await.unwrap();
    });
    world.close(running);
    let second = VolumeConfig {
        drives: vec!["/second/drive".into()],
        state: "/second/state".into(),
        ..copy_config()
    };
    is_clean(&world, second.clone());
    let [first, _] = held_by(&world, second);
    assert!(first.iter().all(|(_, item)| item == b"newer"));
}

#[test]
fn drives_and_witness_of_node_and_copy_are_never_mixed() {
    let (world, running) = filled(101);
    copy(&world, &running).unwrap();
    world.close(running);
    let node = volume_config();
    let mixed = [
        (vec!["/mirror-0", "/mirror-1"], "/backup/state", "/backup/state"),
        (vec!["/mirror-0", "/backup/drive"], "/state", "/backup/drive"),
        (vec!["/backup/drive", "/mirror-1"], "/state", "/mirror-1"),
        (vec!["/backup/drive"], "/state", "/state"),
        (vec!["/backup/drive", "/mirror-0"], "/backup/state", "/mirror-0"),
    ];
    for (drives, state, stranger) in mixed {
        let config = VolumeConfig {
            mirrors: 1,
            drives: drives.into_iter().map(PathBuf::from).collect(),
            state: state.into(),
            ..node.clone()
        };
        let opened = world.run(async move |runtime| Keeper::open(runtime, config).await.err());
        assert_eq!(opened, Some(VolumeError::AnotherCopy(stranger.into())));
        restart(&world);
    }
    is_clean(&world, node);
    is_clean(&world, copy_config());
}

#[test]
fn one_that_was_cut_off_is_refused_and_leaves_the_node_as_it_was() {
    let (mut whole, mut refused, mut nothing) = (0, 0, 0);
    for after in 0..60 {
        let (world, running) = filled(102);
        let (engine, volume) = (running.engine.clone(), running.volume());
        let acknowledged: Shared<Vec<u64>> = Rc::default();
        let ended: Rc<Cell<bool>> = Rc::default();
        let (noting, marking) = (Rc::clone(&acknowledged), Rc::clone(&ended));
        world.run(async move |runtime| {
            let writer = engine.clone();
            runtime.spawn(Queue::Foreground, async move {
                for number in 1_000.. {
                    if put(&writer, P1, &key(number), &item(number, 100)).await.is_err() {
                        break;
                    }
                    noting.borrow_mut().push(number);
                }
            });
            let copying = runtime.clone();
            runtime.spawn(Queue::Background, async move {
                backup(copying, &engine, &volume).await.unwrap();
                marking.set(true);
            });
        });
        world.sim.run_for(Duration::from_micros(after * 700));
        world.crash(running);
        let opened = world.run(async |runtime| {
            Keeper::open(runtime, copy_config())
                .await
                .map(|keeper| keeper.handle())
        });
        let empty = segments(&world.sim.drive(NODE, "/backup/drive")).is_empty();
        let is_whole = opened.is_ok() && !empty;
        match &opened {
            // Its end may have been durable before anybody was told.
            Ok(_) if is_whole => whole += 1,
            // Cut off before there was anything: a directory as any other.
            Ok(_) => {
                nothing += 1;
                assert!(!ended.get());
            }
            Err(VolumeError::IncompleteBackup(_)) => {
                refused += 1;
                assert!(!ended.get());
            }
            Err(error) => panic!("{error}"),
        }
        drop(opened);
        restart(&world);
        if is_whole {
            is_clean(&world, copy_config());
        }
        is_clean(&world, volume_config());
        let running = world.open();
        let acknowledged = acknowledged.take();
        world.with(&running, async move |engine| {
            for number in acknowledged {
                assert_eq!(get(&engine, P1, &key(number)).await, Some(item(number, 100)));
            }
        });
    }
    assert!(
        whole > 3 && refused > 10,
        "{whole} whole, {refused} refused, {nothing} nothing"
    );
}

#[test]
fn what_one_mirror_has_damaged_comes_from_the_other() {
    for mirror in 0..2 {
        let (world, running) = filled(103 + mirror as u64);
        world.close(running);
        let drive = world.mirror(mirror);
        let names = segments(&drive);
        for name in &names {
            let blocks = drive.image().bytes(name).unwrap() / 4096;
            drive.corrupt(name, blocks / 2 * 4096 + 100..blocks / 2 * 4096 + 200);
        }
        let running = world.open();
        let (held, _) = copy(&world, &running).unwrap();
        assert_eq!(running.engine.stats().partitions_fenced, 0);
        world.close(running);
        is_clean(&world, copy_config());
        assert!(held_by(&world, copy_config()) == held);
    }
}

#[test]
fn what_no_mirror_has_ends_it_by_name() {
    let (world, running) = filled(105);
    world.close(running);
    let drive = world.mirror(0);
    let bytes = |name: &String| drive.image().bytes(name).unwrap();
    // Of the largest, the middle is data: damaged filters and indexes are found before there is anything to copy.
    let name = segments(&drive).into_iter().max_by_key(bytes).unwrap();
    for mirror in 0..2 {
        let drive = world.mirror(mirror);
        let blocks = drive.image().bytes(&name).unwrap() / 4096;
        drive.corrupt(&name, blocks / 2 * 4096 + 100..blocks / 2 * 4096 + 200);
    }
    let running = world.open();
    let (engine, volume) = (running.engine.clone(), running.volume());
    let error = world.run(async move |runtime| {
        let target = CopyTarget::create(runtime, &volume, Path::new(DIRECTORY))
            .await
            .unwrap();
        let cut = engine.hold().await.unwrap().cut().unwrap();
        cut.copy_to(&target.handle(), &|_| ()).await.unwrap_err()
    });
    assert!(error.to_string().contains(&name), "{error}");
    world.crash(running);
    let opened = world.run(async |runtime| Keeper::open(runtime, copy_config()).await.err());
    assert!(
        matches!(opened, Some(VolumeError::IncompleteBackup(_))),
        "{opened:?}"
    );
}

#[test]
fn a_full_directory_ends_it_and_can_be_used_again() {
    let (world, mut running) = filled(106);
    let drive = world.sim.drive(NODE, "/backup/drive");
    let mut failed = 0;
    for capacity in (0..).map(|step| step * (48 << 10)) {
        drive.set_capacity(capacity);
        match copy(&world, &running) {
            Ok(_) => break,
            Err(BackupError::Target(why)) => {
                let told = ["full", "storage", "space"];
                assert!(told.iter().any(|word| why.contains(word)), "{why}");
                failed += 1;
            }
            Err(error) => panic!("{error}"),
        }
        world.with(&running, async |engine| {
            put(&engine, P1, b"k", b"v").await.unwrap();
        });
        world.close(running);
        running = world.open();
    }
    assert!(failed > 3);
    world.close(running);
    is_clean(&world, copy_config());
}

#[test]
fn only_one_is_made_at_a_time_and_only_in_an_empty_directory() {
    let (world, running) = filled(107);
    let (engine, volume) = (running.engine.clone(), running.volume());
    world.run(async move |runtime| {
        let hold = engine.hold().await.unwrap();
        assert!(matches!(engine.hold().await.err(), Some(BackupError::Busy)));
        let cut = hold.cut().unwrap();
        assert!(matches!(engine.hold().await.err(), Some(BackupError::Busy)));
        drop(cut);
        backup(runtime.clone(), &engine, &volume).await.unwrap();
        let inside = CopyTarget::create(runtime, &volume, Path::new("/mirror-0/backup")).await;
        let inside = inside.err().unwrap();
        assert!(inside.to_string().contains("/mirror-0"), "{inside}");
    });
    world.close(running);
    let running = world.open();
    let again = copy(&world, &running).unwrap_err();
    assert!(again.to_string().contains("an empty directory"), "{again}");
    world.close(running);
    is_clean(&world, copy_config());
}

#[test]
fn a_hold_keeps_writes_back_and_ends_by_itself() {
    let (world, running) = filled(108);
    let engine = running.engine.clone();
    world.run(async move |runtime| {
        let hold = engine.hold().await.unwrap();
        let written: Rc<Cell<bool>> = Rc::default();
        let (writer, noting) = (engine.clone(), Rc::clone(&written));
        runtime.spawn(Queue::Foreground, async move {
            put(&writer, P1, b"k", b"v").await.unwrap();
            noting.set(true);
        });
        runtime.sleep(HOLD_MAX / 2).await;
        assert!(!written.get() && get(&engine, P1, b"k").await.is_none());
        runtime.sleep(HOLD_MAX).await;
        assert!(written.get(), "nobody waits longer than that");
        assert!(matches!(hold.cut().err(), Some(BackupError::NotQuiet)));
        let started = runtime.now();
        engine.create_partition(descriptor(PartitionId(9))).await.unwrap();
        drop(engine.hold().await.unwrap());
        engine.drop_partition(PartitionId(9)).await.unwrap();
        put(&engine, P1, b"k", b"w").await.unwrap();
        assert!(runtime.now().since(started) < HOLD_MAX, "dropping it ends it");
    });
}

#[test]
fn writes_that_do_not_end_end_the_hold() {
    let (world, running) = filled(109);
    let engine = running.engine.clone();
    let writer = engine.clone();
    (0..2).for_each(|at| world.mirror(at).stall_for(HOLD_MAX + Duration::from_millis(500)));
    let held = world.run(async move |runtime| {
        let writing = writer.clone();
        runtime.spawn(Queue::Foreground, async move {
            put(&writing, P1, b"k", b"v").await.unwrap();
        });
        runtime.yield_now().await;
        writer.hold().await.err()
    });
    assert!(matches!(held, Some(BackupError::NotQuiet)), "{held:?}");
    world.run(async move |_| {
        put(&engine, P1, b"k", b"w").await.unwrap();
        drop(engine.hold().await.unwrap());
    });
}

/// What is written to one engine only after it was acknowledged by the other is never alone in the copy.
#[test]
fn engines_that_are_held_together_agree() {
    for seed in 200..220 {
        let world = World::new(seed, small());
        let config = world.config.clone();
        world.run(async move |runtime| {
            let keeper = Keeper::open(runtime.clone(), volume_config()).await.unwrap();
            let mut engines = Vec::new();
            for log in 0..2 {
                let volume = keeper.handle().attach(runtime.clone()).await.unwrap();
                let engine = Engine::open(runtime.clone(), volume, LogId(log), config.clone());
                let engine = engine.await.unwrap();
                engine
                    .create_partition(descriptor(PartitionId(u64::from(log) + 1)))
                    .await
                    .unwrap();
                engines.push(engine);
            }
            for writer in 0..3_u64 {
                let engines = engines.clone();
                runtime.spawn(Queue::Foreground, async move {
                    for number in 0.. {
                        for (engine, partition) in engines.iter().zip([P1, P2]) {
                            let name = key(writer * 100_000 + number);
                            if put(engine, partition, &name, b"v").await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
            let wait = Duration::from_micros(5_000 + runtime.random_u64() % 5_000);
            runtime.sleep(wait).await;
            let handle = keeper.handle();
            let target = CopyTarget::create(runtime.clone(), &handle, Path::new(DIRECTORY));
            let target = target.await.unwrap();
            let mut holds = Vec::new();
            for engine in &engines {
                holds.push(engine.hold().await.unwrap());
                runtime.sleep(Duration::from_millis(3)).await;
            }
            let mut cuts = Vec::new();
            for hold in holds {
                cuts.push(hold.cut().unwrap());
                runtime.sleep(Duration::from_millis(3)).await;
            }
            for cut in cuts {
                cut.copy_to(&target.handle(), &|_| ()).await.unwrap();
            }
            target.complete().await.unwrap();
        });
        world.sim.crash(NODE);
        world.sim.restart(NODE);
        is_clean(&world, copy_config());
        let config = world.config.clone();
        world.run(async move |runtime| {
            let keeper = Keeper::open(runtime.clone(), copy_config()).await.unwrap();
            let mut names: Vec<BTreeSet<Vec<u8>>> = Vec::new();
            for (log, partition) in [(0, P1), (1, P2)] {
                let volume = keeper.handle().attach(runtime.clone()).await.unwrap();
                let engine = Engine::open(runtime.clone(), volume, LogId(log), config.clone());
                let items = scan_all(&engine.await.unwrap(), partition, Direction::Forward).await;
                names.push(items.into_iter().map(|(name, _)| name).collect());
            }
            assert!(!names[1].is_empty() && names[1].is_subset(&names[0]), "{names:?}");
            let ahead = names[0].len() - names[1].len();
            assert!(ahead <= 3, "each writer is one step ahead at most: {ahead}");
        });
    }
}
