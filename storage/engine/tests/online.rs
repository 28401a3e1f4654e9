//! Drives are lost, come back, are added and removed while the engine serves.
//!
//! The proof is always the same: another drive is lost, and everything is read.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use cairn_engine::Direction;
use cairn_engine::ids::LogSequence;
use cairn_engine::volume::{DriveStatus, Operation, OperationState, VolumeConfig, VolumeStatus};
use cairn_runtime::sim::DriveImage;
use cairn_runtime::{Drive, Open, Runtime};
use common::*;

type Items = Vec<Vec<(Vec<u8>, Vec<u8>)>>;

fn config(drives: usize, mirrors: usize) -> VolumeConfig {
    VolumeConfig {
        drives: (0..drives)
            .map(|at| PathBuf::from(format!("/mirror-{at}")))
            .collect(),
        mirrors,
        ..volume_config()
    }
}

fn open(world: &World, config: VolumeConfig) -> Running {
    world.try_open_on(config).expect("enough drives are there")
}

fn status(world: &World, running: &Running) -> VolumeStatus {
    let volume = running.volume();
    world
        .run(async move |_| volume.status().await)
        .expect("the keeper runs")
}

fn drive(status: &VolumeStatus, at: usize) -> &DriveStatus {
    &status.drives[at]
}

fn items(world: &World, running: &Running) -> Items {
    world.with(running, async |engine| {
        vec![
            scan_all(&engine, P1, Direction::Forward).await,
            scan_all(&engine, P2, Direction::Forward).await,
        ]
    })
}

/// Writes while `operation` is carried out, and gives its end.
fn operate(world: &World, running: &Running, operation: Operation) -> Result<String, String> {
    let volume = running.volume();
    let engine = running.engine.clone();
    world.run(async move |runtime| {
        let number = volume.begin(operation).await.map_err(|error| error.to_string())?;
        for turn in 0.. {
            assert!(turn < 100_000, "it does not end: {:?}", volume.status().await);
            let status = volume.status().await.map_err(|error| error.to_string())?;
            let state = status.operation.filter(|operation| operation.number == number);
            match state.expect("it is under way").state {
                OperationState::Running { .. } => {}
                OperationState::Done(said) => return Ok(said),
                OperationState::Failed(why) => return Err(why),
            }
            let _ = put(&engine, P2, &key(turn % 30), &item(turn, 700)).await;
            runtime.sleep(Duration::from_millis(5)).await;
        }
        unreachable!("bounded above")
    })
}

/// Waits until every file has as many holders as there are mirrors.
fn until_whole(world: &World, running: &Running) {
    let volume = running.volume();
    world.run(async move |runtime| {
        for _ in 0..2_000 {
            let status = volume.status().await.expect("the keeper runs");
            if status.guarantee == status.mirrors {
                return;
            }
            runtime.sleep(Duration::from_millis(50)).await;
        }
        panic!("it never becomes whole: {:?}", volume.status().await);
    });
}

fn filled(seed: u64, drives: usize, mirrors: usize) -> (World, Running) {
    let world = World::new(seed, small());
    let running = open(&world, config(drives, mirrors));
    world.with(&running, async |engine| {
        fill(&engine, P1, 150, 2_000).await;
        fill(&engine, P2, 40, 300).await;
    });
    (world, running)
}

fn write_some(world: &World, running: &Running) {
    world.with(running, async |engine| {
        for number in 50..120 {
            put(&engine, P1, &key(number), &item(number + 7, 2_500))
                .await
                .expect("there is room");
        }
    });
}

/// Reads everything with every drive but one, for each drive that may be missing.
fn survives_any_one(world: &World, config: &VolumeConfig, held: &Items) {
    let lost: Vec<usize> = (0..config.drives.len()).collect();
    let paths = config.drives.iter().chain([&config.state]);
    let images: Vec<_> = paths
        .clone()
        .map(|path| world.sim.drive(NODE, path).image())
        .collect();
    for lost in lost {
        for (path, image) in paths.clone().zip(&images) {
            world.sim.drive(NODE, path).restore(image);
        }
        let path = &config.drives[lost];
        world.sim.drive(NODE, path).detach();
        let running = world.try_open_on(config.clone()).expect("one may be missing");
        assert_eq!(items(world, &running), *held, "without {}", path.display());
        world.crash(running);
        world.sim.drive(NODE, path).attach();
    }
}

#[test]
fn what_a_lost_drive_held_is_copied_to_the_others() {
    for lost in 0..3 {
        let (world, running) = filled(10 + lost as u64, 3, 2);
        world.mirror(lost).detach();
        write_some(&world, &running);
        until_whole(&world, &running);
        let held = items(&world, &running);
        assert!(!drive(&status(&world, &running), lost).in_sync);
        world.close(running);
        let rest: Vec<usize> = (0..3).filter(|at| *at != lost).collect();
        // The second to be lost: without the copies, it would have been the last holder of some file.
        for second in &rest {
            let images: Vec<_> = (0..3).map(|at| world.mirror(at).image()).collect();
            let witness = world.sim.drive(NODE, "/state").image();
            world.mirror(*second).detach();
            let running = open(&world, config(3, 2));
            assert_eq!(items(&world, &running), held);
            world.crash(running);
            world.sim.kill(NODE);
            world.sim.restart(NODE);
            world.mirror(*second).attach();
            for (at, image) in images.iter().enumerate() {
                world.mirror(at).restore(image);
            }
            world.sim.drive(NODE, "/state").restore(&witness);
        }
    }
}

#[test]
fn a_stale_drive_is_taken_in_anew_while_clients_write() {
    for blank in [false, true] {
        for seed in 20..24 {
            let (world, running) = filled(seed, 2, 2);
            world.mirror(1).detach();
            write_some(&world, &running);
            assert!(!drive(&status(&world, &running), 1).in_sync);
            world.mirror(1).attach();
            if blank {
                world.mirror(1).restore(&DriveImage::default());
            }
            let said = operate(&world, &running, Operation::Rebuild("/mirror-1".into()));
            assert!(
                said.as_ref()
                    .is_ok_and(|said| said.contains("/mirror-1 is in sync")),
                "{said:?}"
            );
            let after = status(&world, &running);
            assert!(drive(&after, 1).in_sync && !drive(&after, 1).joining);
            assert_eq!(after.guarantee, 2);
            write_some(&world, &running);
            let held = items(&world, &running);
            if seed % 2 == 0 {
                world.close(running);
            } else {
                world.crash(running);
            }
            survives_any_one(&world, &config(2, 2), &held);
        }
    }
}

#[test]
fn a_new_drive_is_added_and_an_old_one_removed() {
    for seed in 30..33 {
        let (world, running) = filled(seed, 2, 2);
        operate(&world, &running, Operation::Add("/mirror-2".into())).expect("an empty directory");
        write_some(&world, &running);
        let refused = operate(&world, &running, Operation::Add("/mirror-2".into()));
        assert!(refused.is_ok_and(|said| said.contains("already")));
        operate(&world, &running, Operation::Remove("/mirror-0".into())).expect("two are left");
        let after = status(&world, &running);
        assert!(drive(&after, 0).removed && !drive(&after, 0).in_sync);
        let refused = operate(&world, &running, Operation::Remove("/mirror-1".into()));
        assert!(
            refused
                .as_ref()
                .is_err_and(|why| why.contains("first add a drive")),
            "{refused:?}"
        );
        write_some(&world, &running);
        let held = items(&world, &running);
        world.close(running);
        // The removed drive is gone for good.
        world.mirror(0).restore(&DriveImage::default());
        let left = VolumeConfig {
            drives: vec!["/mirror-1".into(), "/mirror-2".into()],
            ..config(2, 2)
        };
        survives_any_one(&world, &left, &held);
    }
}

#[test]
fn a_drive_that_is_lost_while_it_is_filled_costs_nothing() {
    let (world, running) = filled(40, 2, 2);
    world.mirror(1).detach();
    write_some(&world, &running);
    world.mirror(1).attach();
    world.mirror(1).restore(&DriveImage::default());
    let volume = running.volume();
    let victim = world.mirror(1);
    world.run(async move |runtime| {
        volume
            .begin(Operation::Rebuild("/mirror-1".into()))
            .await
            .expect("nothing else is under way");
        loop {
            let status = volume.status().await.expect("the keeper runs");
            if status.drives[1].joining {
                break;
            }
            runtime.sleep(Duration::from_millis(1)).await;
        }
        victim.detach();
    });
    write_some(&world, &running);
    let after = status(&world, &running);
    assert!(!drive(&after, 1).in_sync);
    assert!(running.engine.stats().log.batches > 0);
    let held = items(&world, &running);
    world.crash(running);
    let running = open(&world, config(2, 2));
    assert_eq!(items(&world, &running), held);
    assert!(running.engine.recovery().last > LogSequence(0));
    world.crash(running);
}

/// The blank drive took the place of the removed one, so that until everything was copied there was one drive more than directories,
/// and a node that stopped then could not be started.
#[test]
fn a_blank_drive_replaces_the_lost_one_and_not_the_removed() {
    let (world, running) = filled(41, 3, 2);
    operate(&world, &running, Operation::Remove("/mirror-1".into())).expect("two others are there");
    world.crash(running);
    let left = || VolumeConfig {
        drives: vec!["/mirror-0".into(), "/mirror-2".into()],
        ..config(2, 2)
    };
    let running = open(&world, left());
    world.mirror(2).detach();
    write_some(&world, &running);
    world.crash(running);
    let running = open(&world, left());
    world.mirror(2).attach();
    world.mirror(2).restore(&DriveImage::default());
    let volume = running.volume();
    world.run(async move |runtime| {
        let begun = volume.begin(Operation::Rebuild("/mirror-2".into())).await;
        begun.expect("nothing else is under way");
        while !volume.status().await.expect("the keeper runs").drives[2].in_sync {
            runtime.sleep(Duration::from_millis(1)).await;
        }
    });
    let held = items(&world, &running);
    world.crash(running);
    let running = open(&world, left());
    assert_eq!(items(&world, &running), held);
    world.crash(running);
}

/// Has the node notice that mirror 1 hangs: it leaves the set while a write to its superblock is in flight, for `stall`. Then
/// the drive is taken out and put in again, and a rebuild asked for at once.
fn rebuild_behind_a_stalled_write(stall: Duration) -> Result<String, String> {
    let (world, running) = filled(42, 2, 2);
    world.mirror(1).stall_for(stall);
    write_some(&world, &running);
    assert!(!drive(&status(&world, &running), 1).in_sync);
    world.mirror(1).detach();
    world.mirror(1).attach();
    let said = operate(&world, &running, Operation::Rebuild("/mirror-1".into()));
    world.crash(running);
    said
}

/// It was refused, and worked when it was asked for again.
#[test]
fn a_write_to_the_superblock_that_is_still_under_way_is_waited_for() {
    let said = rebuild_behind_a_stalled_write(Duration::from_secs(8));
    assert!(said.is_ok_and(|said| said.contains("/mirror-1 is in sync")));
}

#[test]
fn a_write_to_the_superblock_that_never_ends_is_told_of() {
    let said = rebuild_behind_a_stalled_write(Duration::from_secs(600));
    let why = said.expect_err("the write never ends");
    assert!(
        why.contains("/mirror-1 is not taken in") && why.contains("under way for 10 s"),
        "{why}"
    );
}

fn refused(world: &World, running: &Running, operation: Operation, needles: &[&str]) {
    let why = operate(world, running, operation.clone()).expect_err("it is refused");
    for needle in needles {
        assert!(why.contains(needle), "{operation}: {why}");
    }
}

/// Makes a directory, with a file in it if that has a name.
fn make(world: &World, directory: &str, file: &str) {
    let (directory, file) = (PathBuf::from(directory), file.to_owned());
    world.run(async move |runtime| {
        let drive = runtime.drive(&directory, true).await.expect("it can be made");
        let how = Open {
            create_new: true,
            ..Open::default()
        };
        if !file.is_empty() {
            drop(drive.open(&file, how).await.expect("it can be made"));
        }
        drive.sync().await.expect("a healthy drive");
    });
}

/// Whether a directory is there that nobody holds.
fn is_free(world: &World, directory: &str) -> Option<bool> {
    let directory = PathBuf::from(directory);
    world.run(async move |runtime| {
        let drive = runtime.drive(&directory, false).await.ok()?;
        let free = drive.lock().is_ok();
        drive.abandon();
        Some(free)
    })
}

#[test]
fn a_directory_that_cannot_be_a_drive_beside_the_others_is_refused_and_left_alone() {
    let (world, running) = filled(50, 2, 2);
    let before = status(&world, &running);
    make(&world, "/pictures", "");
    make(&world, "/pictures/2024", "");
    make(&world, "/mixed", "holiday.jpg");
    for (directory, needles) in [
        (
            "/mirror-0/deeper",
            &["/mirror-0/deeper is inside the drive /mirror-0"][..],
        ),
        ("/x/../mirror-0/./deeper", &["is inside the drive /mirror-0"]),
        ("/", &["is inside the drive /:"]),
        ("/state", &["the state directory /state is on the drive /state"]),
        (
            "/x/../state",
            &["the state directory /state is on the drive /x/../state"],
        ),
        ("/pictures", &["/pictures holds \"2024\""]),
        ("/mixed", &["/mixed holds \"holiday.jpg\""]),
    ] {
        for operation in [
            Operation::Add(directory.into()),
            Operation::Rebuild(directory.into()),
        ] {
            refused(&world, &running, operation, needles);
        }
    }
    for there in ["/pictures", "/mixed", "/pictures/2024"] {
        assert_eq!(is_free(&world, there), Some(true), "{there}");
    }
    assert_eq!(is_free(&world, "/mirror-0/deeper"), None, "nothing was made");
    let after = status(&world, &running);
    assert_eq!((after.drives.len(), after.in_sync), (2, before.in_sync));
    // A drive of the node is known however its directory is spelled.
    let said = operate(&world, &running, Operation::Add("/x/../mirror-1".into()));
    assert_eq!(said.as_deref(), Ok("/mirror-1 is in sync already"));
    world.crash(running);
    drop(open(&world, config(2, 2)));
}

#[test]
fn an_empty_directory_is_rebuilt_only_in_the_place_of_a_lost_drive() {
    let (world, running) = filled(51, 2, 2);
    let before = status(&world, &running).in_sync;
    let rebuild = || Operation::Rebuild("/mirror-2".into());
    refused(
        &world,
        &running,
        rebuild(),
        &[
            "/mirror-2",
            "no drive of this node is lost",
            "`cairn drives add /mirror-2`",
        ],
    );
    assert_eq!(is_free(&world, "/mirror-2"), None, "what was made for it is gone");
    assert_eq!(status(&world, &running).in_sync, before);
    // One that has failed since the start is lost, whether its directory is there or not.
    world.mirror(1).detach();
    write_some(&world, &running);
    operate(&world, &running, rebuild()).expect("a drive is lost");
    let after = status(&world, &running);
    assert_eq!(after.drives.len(), 2, "it has its place");
    assert_eq!(drive(&after, 1).path, Some(PathBuf::from("/mirror-2")));
    let held = items(&world, &running);
    world.crash(running);
    let left = VolumeConfig {
        drives: vec!["/mirror-0".into(), "/mirror-2".into()],
        ..config(2, 2)
    };
    survives_any_one(&world, &left, &held);
}

#[test]
fn a_removed_drive_stays_removed_until_it_is_added_empty() {
    let (world, running) = filled(52, 3, 2);
    operate(&world, &running, Operation::Remove("/x/../mirror-2".into())).expect("two are left");
    let again = || {
        [
            Operation::Rebuild("/mirror-2".into()),
            Operation::Add("/mirror-2".into()),
        ]
    };
    let needles = [
        "/mirror-2 was removed from this node",
        "empty the directory, then `cairn drives add /mirror-2`",
    ];
    for operation in again() {
        refused(&world, &running, operation, &needles);
    }
    let said = operate(&world, &running, Operation::Remove("/mirror-2".into()));
    assert!(said.is_ok_and(|said| said.contains("removed already")));
    // After a start that names it still, one that does not, and one that names nothing but an empty directory.
    world.close(running);
    let running = open(&world, config(3, 2));
    let named = status(&world, &running);
    assert!(drive(&named, 2).retired && drive(&named, 2).why == "it was removed");
    let warned = |status: &VolumeStatus, what: &str| {
        let mut warnings = status.warnings.iter();
        assert!(
            warnings.any(|warning| warning.contains(what)),
            "{:?}",
            status.warnings
        );
    };
    warned(
        &named,
        "/mirror-2 is not used: it was removed; take it out of the configuration",
    );
    for operation in again() {
        refused(&world, &running, operation, &needles);
    }
    world.close(running);
    let running = open(&world, config(2, 2));
    let unnamed = status(&world, &running);
    assert!(drive(&unnamed, 2).retired && drive(&unnamed, 2).why == "it was removed");
    assert!(unnamed.warnings.is_empty(), "{:?}", unnamed.warnings);
    world.close(running);
    world.mirror(2).restore(&DriveImage::default());
    let running = open(&world, config(3, 2));
    warned(&status(&world, &running), "no drive of this node is missing");
    refused(
        &world,
        &running,
        Operation::Rebuild("/mirror-2".into()),
        &["`cairn drives add /mirror-2`"],
    );
    operate(&world, &running, Operation::Add("/mirror-2".into())).expect("it is empty");
    let added = status(&world, &running);
    assert_eq!(
        added
            .drives
            .iter()
            .filter(|drive| drive.in_sync && !drive.retired)
            .count(),
        3
    );
    world.close(running);
    let running = open(&world, config(3, 2));
    assert_eq!(status(&world, &running).in_sync.set.count(), 3);
    world.crash(running);
}

/// It had lost its vote, which was taken for having been removed.
#[test]
fn a_lost_drive_without_a_vote_can_be_taken_off_the_list() {
    let (world, running) = filled(53, 3, 2);
    world.mirror(2).detach();
    write_some(&world, &running);
    until_whole(&world, &running);
    let lost = status(&world, &running);
    assert!(drive(&lost, 2).removed && !drive(&lost, 2).retired);
    operate(&world, &running, Operation::Remove("/mirror-2".into())).expect("two are left");
    assert!(drive(&status(&world, &running), 2).retired);
    world.crash(running);
    let running = open(&world, config(2, 2));
    assert!(drive(&status(&world, &running), 2).retired);
    world.crash(running);
}
