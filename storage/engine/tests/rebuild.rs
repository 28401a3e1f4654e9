//! Drives that left the in-sync set come back: what is acknowledged is then on them, whatever crashes on the way.
//!
//! The proof of a rebuild is always the same: the mirror it copied from is lost, and everything is read.

mod common;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use cairn_engine::Direction;
use cairn_engine::rebuild::{RebuildError, rebuild};
use cairn_engine::volume::{VolumeConfig, VolumeError, VolumeStatus};
use cairn_runtime::sim::{DriveImage, Fault, NodeIndex, Operation};
use cairn_runtime::{Drive, Open, Queue, Runtime, ShardIndex};
use common::*;

type Items = Vec<(Vec<u8>, Vec<u8>)>;

fn run(world: &World, config: VolumeConfig) -> Result<VolumeStatus, RebuildError> {
    let result = world.run(async move |runtime| rebuild(runtime, &config, &mut |_| {}).await);
    // The process ends with the command.
    world.sim.kill(NODE);
    world.sim.restart(NODE);
    result
}

/// Why the node does not start.
fn refusal(world: &World) -> String {
    let why = world.try_open().err().expect("the node must not start");
    world.sim.kill(NODE);
    world.sim.restart(NODE);
    why
}

fn rebuilt(world: &World) -> VolumeStatus {
    let status = run(world, volume_config()).expect("an in-sync mirror has everything");
    assert!(status.drives.iter().all(|drive| drive.in_sync), "{status:?}");
    status
}

/// What is stored.
fn items(world: &World, running: &Running) -> Vec<Items> {
    world.with(running, async |engine| {
        vec![
            scan_all(&engine, P1, Direction::Forward).await,
            scan_all(&engine, P2, Direction::Forward).await,
        ]
    })
}

/// How drive 1 comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returns {
    Stale,
    Blank,
}

const BOTH: [Returns; 2] = [Returns::Stale, Returns::Blank];

/// A stopped node that wrote to both mirrors, lost the second, and wrote more; and what it then held.
fn degraded(seed: u64, returns: Returns, closed: bool) -> (World, Vec<Items>) {
    let world = World::new(seed, small());
    let running = world.open();
    world.with(&running, async |engine| {
        fill(&engine, P1, 120, 2_000).await;
        fill(&engine, P2, 40, 300).await;
    });
    world.crash(running);
    world.mirror(1).detach();
    let running = world.open();
    world.with(&running, async |engine| {
        for number in 50..180 {
            put(&engine, P1, &key(number), &item(number + 7, 2_500))
                .await
                .expect("there is room");
        }
        for number in 0..10 {
            delete(&engine, P2, &key(number)).await.expect("there is room");
        }
    });
    let held = items(&world, &running);
    if closed {
        world.close(running)
    } else {
        world.crash(running)
    }
    world.mirror(1).attach();
    if returns == Returns::Blank {
        world.mirror(1).restore(&DriveImage::default());
    }
    (world, held)
}

/// The other mirror is gone for good: is everything there?
fn lose_the_other(world: &World, held: &[Items]) {
    world.sim.crash(NODE);
    world.mirror(0).detach();
    world.sim.restart(NODE);
    let running = world.open();
    assert_eq!(items(world, &running), held);
    world.with(&running, async |engine| {
        put(&engine, P1, b"new", b"new").await.expect("the node goes on");
    });
    world.close(running);
    let running = world.open();
    assert_eq!(
        world.with(&running, async |engine| get(&engine, P1, b"new").await),
        Some(b"new".to_vec())
    );
    world.crash(running);
}

fn assert_identical(world: &World) {
    let (source, copy) = (world.mirror(0).image(), world.mirror(1).image());
    let segments = |image: &DriveImage| -> Vec<String> {
        let names = image.names().filter(|name| name.starts_with("segment-"));
        names.map(str::to_owned).collect()
    };
    let names = segments(&copy);
    assert_eq!(segments(&source), names, "every segment is on both");
    assert!(names.len() > 1);
    for name in names {
        assert!(source.read(&name) == copy.read(&name), "{name} differs");
    }
}

#[test]
fn what_is_acknowledged_is_on_the_rebuilt_drive() {
    for returns in BOTH {
        for seed in 0..6 {
            let (world, held) = degraded(seed, returns, true);
            // Segments that no partition refers to are deleted by a start, and not copied.
            let running = world.open();
            world.close(running);
            let status = rebuilt(&world);
            assert_identical(&world);
            assert_eq!(status.drives.len(), 2, "the same places");
            let again = rebuilt(&world);
            assert_eq!(again.in_sync, status.in_sync, "nothing is left to do");
            if seed % 2 == 0 {
                // Redundancy is back for what the node goes on to write, too.
                let running = world.open();
                assert_eq!(running.engine.recovery().repaired, 0, "mirrors are alike");
                assert_eq!(items(&world, &running), held);
                world.crash(running);
            }
            lose_the_other(&world, &held);
        }
    }
}

#[test]
fn a_node_that_was_killed_is_rebuilt_as_it_is() {
    for returns in BOTH {
        for seed in 20..26 {
            let (world, held) = degraded(seed, returns, false);
            rebuilt(&world);
            lose_the_other(&world, &held);
        }
    }
}

#[test]
fn three_drives_with_two_copies_survive_any_one_after_a_rebuild() {
    let config = || VolumeConfig {
        drives: (0..3).map(|at| PathBuf::from(format!("/mirror-{at}"))).collect(),
        ..volume_config()
    };
    for lost in 0..3 {
        let world = World::new(70 + lost as u64, small());
        let open = |world: &World| world.try_open_on(config()).expect("two drives are there");
        let running = open(&world);
        world.with(&running, async |engine| {
            fill(&engine, P1, 150, 2_000).await;
        });
        world.crash(running);
        world.mirror(2).detach();
        let running = open(&world);
        world.with(&running, async |engine| {
            fill(&engine, P1, 80, 1_500).await;
        });
        let held = items(&world, &running);
        world.crash(running);
        world.mirror(2).attach();
        let status = run(&world, config()).expect("two mirrors have everything");
        assert!(status.drives.iter().all(|drive| drive.in_sync));
        world.mirror(lost).detach();
        let running = open(&world);
        assert_eq!(items(&world, &running), held, "without drive {lost}");
        world.crash(running);
    }
}

#[test]
fn a_crash_at_any_moment_leaves_a_node_that_starts_and_can_be_rebuilt() {
    for returns in BOTH {
        let (world, held) = degraded(40, returns, true);
        let paths = ["/mirror-0", "/mirror-1", "/state"];
        let images: Vec<_> = paths
            .iter()
            .map(|path| world.sim.drive(NODE, path).image())
            .collect();
        // Another seed than the node was made with: it would draw the same drive ids again.
        let attempt = |seed: u64, steps: u64| {
            let world = World::new(seed, small());
            for (path, image) in paths.iter().zip(&images) {
                world.sim.drive(NODE, path).restore(image);
            }
            let done = Rc::new(RefCell::new(false));
            let (flag, runtime) = (done.clone(), world.sim.runtime(NODE, ShardIndex(0)));
            runtime.clone().spawn(Queue::Foreground, async move {
                rebuild(runtime, &volume_config(), &mut |_| {})
                    .await
                    .expect("an in-sync mirror has everything");
                *flag.borrow_mut() = true;
            });
            let mut taken = 0;
            while taken < steps && !*done.borrow() && world.sim.step() {
                taken += 1;
            }
            world.sim.crash(NODE);
            world.sim.restart(NODE);
            let ended = *done.borrow();
            (world, ended, taken)
        };
        let (_, ended, all) = attempt(999, u64::MAX);
        assert!(ended);
        let points = 100;
        for point in 0..points {
            // Dense at the end, where the epoch changes.
            let steps = if point % 3 == 0 {
                all * point / points
            } else {
                all.saturating_sub(point * 3)
            };
            let (world, ..) = attempt(1_000 + point, steps);
            let running = world.open();
            if point % 4 == 0 {
                assert_eq!(items(&world, &running), held, "degraded, {steps} of {all} steps");
            }
            world.crash(running);
            rebuilt(&world);
            if point % 4 == 1 {
                lose_the_other(&world, &held);
            }
        }
    }
}

#[test]
fn a_failing_write_ends_the_rebuild_and_changes_nothing() {
    for returns in BOTH {
        for (skip, operation) in [
            (0, Operation::Write),
            (1, Operation::Write),
            (0, Operation::Allocate),
        ] {
            let (world, held) = degraded(50 + skip, returns, true);
            world.mirror(1).inject(cairn_runtime::sim::Injection {
                operation,
                fault: Fault::Error,
                file: Some("log-00000000.anchor".to_owned()).filter(|_| operation == Operation::Write),
                skip: u32::try_from(skip).expect("small"),
                count: 1,
            });
            let failed = run(&world, volume_config());
            assert!(failed.is_err(), "{failed:?}");
            assert_eq!(world.mirror(1).clear_injections(), 0, "the fault was met");
            let running = world.open();
            assert_eq!(items(&world, &running), held);
            world.crash(running);
            rebuilt(&world);
            lose_the_other(&world, &held);
        }
    }
}

/// The last mirror has a bad block: nothing is deleted, nothing is copied, and the file is named.
#[test]
fn damage_of_the_only_source_is_refused_by_name() {
    for pattern in ["segment-", "log-00000000-"] {
        let mut refused = 0;
        for seed in 60..64 {
            let (world, _) = degraded(seed, Returns::Stale, true);
            let before = world.mirror(1).image();
            let source = world.mirror(0);
            let names: Vec<String> = source.image().names().map(str::to_owned).collect();
            for name in names.iter().filter(|name| name.starts_with(pattern)) {
                let bytes = source.image().bytes(name).expect("it is listed");
                for block in 1..bytes / 4096 {
                    source.corrupt(name, block * 4096 + 16..block * 4096 + 32);
                }
            }
            let error = run(&world, volume_config()).expect_err("it is damaged");
            let words = error.to_string();
            assert!(
                words.contains("/mirror-1") && words.contains("is not rebuilt"),
                "{words}"
            );
            assert!(words.contains("segment-") || words.contains("log"), "{words}");
            let after = world.mirror(1).image();
            for name in before.names().filter(|name| *name != "superblock") {
                assert!(before.read(name) == after.read(name), "{name} was touched");
            }
            refused += 1;
        }
        assert!(refused > 0);
    }
}

/// Of three mirrors one is out and one has bad blocks that the third has whole.
#[test]
fn damage_that_another_mirror_can_mend_is_mended() {
    let config = || VolumeConfig {
        drives: (0..3).map(|at| PathBuf::from(format!("/mirror-{at}"))).collect(),
        mirrors: 3,
        ..volume_config()
    };
    for damaged in 0..2 {
        let world = World::new(80 + damaged as u64, small());
        let running = world.try_open_on(config()).expect("empty directories");
        world.with(&running, async |engine| {
            fill(&engine, P1, 150, 2_000).await;
        });
        let held = items(&world, &running);
        world.crash(running);
        world.mirror(2).restore(&DriveImage::default());
        let source = world.mirror(damaged);
        let names: Vec<String> = source.image().names().map(str::to_owned).collect();
        for name in names
            .iter()
            .filter(|name| !name.starts_with("superblock") && !name.ends_with("anchor"))
        {
            for block in (0..source.image().bytes(name).expect("it is listed") / 4096).step_by(3) {
                source.corrupt(name, block * 4096 + 16..block * 4096 + 32);
            }
        }
        let status = run(&world, config()).expect("the other mirror has everything");
        assert!(status.drives.iter().all(|drive| drive.in_sync));
        (0..2).for_each(|at| {
            if at == 1 - damaged {
                world.mirror(at).detach();
            }
        });
        let running = world.try_open_on(config()).expect("two of three");
        assert_eq!(running.engine.recovery().repaired, 0, "both were mended");
        assert_eq!(items(&world, &running), held);
        world.crash(running);
    }
}

#[test]
fn a_stale_drive_is_not_believed_without_a_rebuild_nor_a_replaced_one_ever() {
    let (world, _) = degraded(90, Returns::Stale, true);
    let stale = world.mirror(1).image();
    world.mirror(0).detach();
    let why = refusal(&world);
    assert!(why.contains("stale"), "{why}");
    let refused = run(&world, volume_config()).expect_err("as a start would");
    assert!(
        matches!(refused, RebuildError::Volume(VolumeError::OnlyStale { .. })),
        "{refused}"
    );
    world.mirror(0).attach();
    // A blank drive takes its place.
    world.mirror(1).restore(&DriveImage::default());
    let before = rebuilt(&world);
    world.mirror(1).restore(&stale);
    let why = refusal(&world);
    assert!(
        why.contains("/mirror-1 is not one of this node's drives"),
        "{why}"
    );
    // Nor when it and the witness are all there is.
    world.mirror(0).detach();
    refusal(&world);
    world.mirror(0).attach();
    world.mirror(1).restore(&DriveImage::default());
    let after = rebuilt(&world);
    assert_ne!(before.drives[1].id, after.drives[1].id);
    assert_eq!(before.drives[0].id, after.drives[0].id);
}

#[test]
fn foreign_files_other_nodes_and_empty_worlds_are_refused() {
    let (world, _) = degraded(91, Returns::Stale, true);
    let before = world.mirror(1).image();
    world.run(async |runtime| {
        let drive = runtime
            .drive(std::path::Path::new("/mirror-1"), false)
            .await
            .expect("there is room");
        let how = Open {
            create_new: true,
            ..Open::default()
        };
        drop(drive.open("holiday.jpg", how).await.unwrap());
        drive.sync().await.expect("there is room");
    });
    let refused = run(&world, volume_config())
        .expect_err("a foreign file")
        .to_string();
    assert!(refused.contains("/mirror-1 holds \"holiday.jpg\""), "{refused}");
    for name in before.names().filter(|name| *name != "superblock") {
        assert!(
            before.read(name) == world.mirror(1).image().read(name),
            "{name} was touched"
        );
    }
    // A drive of another node.
    let (other, _) = degraded(92, Returns::Stale, true);
    world.mirror(1).restore(&other.mirror(1).image());
    let refused = run(&world, volume_config()).expect_err("another node's");
    assert!(
        matches!(refused, RebuildError::Volume(VolumeError::AnotherNode { .. })),
        "{refused}"
    );
    // No node at all.
    let world = World::new(93, small());
    let refused = run(&world, volume_config())
        .expect_err("nothing to rebuild")
        .to_string();
    assert!(refused.contains("no node"), "{refused}");
    // A node that runs.
    let running = world.open();
    let refused = world.run(async |runtime| rebuild(runtime, &volume_config(), &mut |_| {}).await);
    assert!(
        matches!(refused, Err(RebuildError::Volume(VolumeError::InUse(_)))),
        "{refused:?}"
    );
    world.crash(running);
}

#[test]
fn a_drive_given_up_by_the_operator_counts_again_after_a_rebuild() {
    for returns in BOTH {
        let (world, held) = degraded(94, returns, true);
        let away = world.mirror(1).image();
        world.mirror(1).detach();
        let state = world.sim.drive(NodeIndex(0), "/state");
        state.restore(&DriveImage::default());
        let epoch = {
            let why = refusal(&world);
            let number = why.rsplit("--accept-epoch ").next().expect("it is named");
            number.trim_end_matches('.').parse().expect("a number")
        };
        let config = VolumeConfig {
            accept_epoch: Some(epoch),
            ..volume_config()
        };
        let running = world.try_open_on(config).expect("the operator takes the blame");
        world.crash(running);
        world.mirror(1).attach();
        world.mirror(1).restore(&away);
        rebuilt(&world);
        lose_the_other(&world, &held);
    }
}
