//! The volume on simulated drives: creation, refusals, and the epoch under crashes and missing members.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sim::{
    Config, DriveControl, Fault, FaultConfig, NodeIndex, Operation, Random, SimRuntime, Simulation,
};
use cairn_runtime::{Drive, Open, Queue, Runtime, ShardIndex};

use super::superblock::COPY_STRIDE;
use super::*;

const NODE: NodeIndex = NodeIndex(0);
const SHARD: ShardIndex = ShardIndex(0);

fn config(drives: usize) -> VolumeConfig {
    VolumeConfig {
        drives: (0..drives)
            .map(|drive| PathBuf::from(format!("/drive-{drive}")))
            .collect(),
        state: PathBuf::from("/state"),
        mirrors: drives.min(2),
        accept_epoch: None,
        keys: Keys::default(),
    }
}

fn world(seed: u64) -> Simulation {
    Simulation::new(seed, Config::default())
}

fn open(sim: &Simulation, config: VolumeConfig) -> Result<Keeper<SimRuntime>, VolumeError> {
    sim.block_on(NODE, SHARD, async move |runtime| {
        Keeper::open(runtime, config).await
    })
}

fn status(sim: &Simulation, keeper: &Keeper<SimRuntime>) -> VolumeStatus {
    let handle = keeper.handle();
    sim.block_on(NODE, SHARD, async move |_| handle.status().await)
        .expect("the keeper lives")
}

fn eject(sim: &Simulation, keeper: &Keeper<SimRuntime>, drive: usize) -> Result<InSync, VolumeError> {
    let handle = keeper.handle();
    sim.block_on(NODE, SHARD, async move |runtime| {
        let volume = handle.attach(runtime).await?;
        volume
            .report_failed(index(drive), "a test says so".to_owned())
            .await
    })
}

fn index(drive: usize) -> DriveIndex {
    DriveIndex::new(drive).expect("a small number")
}

fn set(drives: &[usize]) -> DriveSet {
    drives.iter().map(|drive| index(*drive)).collect()
}

fn control(sim: &Simulation, drive: usize) -> DriveControl {
    sim.drive(NODE, format!("/drive-{drive}"))
}

/// Ends the process and starts it again.
fn restart(sim: &Simulation) {
    sim.crash(NODE);
    sim.restart(NODE);
}

#[test]
fn the_first_start_creates_and_the_second_finds() {
    let sim = world(1);
    let keeper = open(&sim, config(2)).expect("empty directories");
    let first = status(&sim, &keeper);
    assert!(
        first.created
            && first.in_sync
                == InSync {
                    epoch: Epoch(1),
                    set: set(&[0, 1])
                }
    );
    assert!(first.warnings.is_empty(), "{:?}", first.warnings);
    restart(&sim);
    let keeper = open(&sim, config(2)).expect("the same directories");
    let second = status(&sim, &keeper);
    assert_eq!(
        second,
        VolumeStatus {
            created: false,
            ..first
        },
        "nothing changed, no new epoch"
    );
}

#[test]
fn a_crash_at_any_step_of_the_creation_is_repeated_from() {
    for steps in (0..).step_by(3) {
        let sim = world(steps);
        let done = Rc::new(RefCell::new(false));
        let (flag, runtime) = (done.clone(), sim.runtime(NODE, SHARD));
        runtime.clone().spawn(Queue::Foreground, async move {
            let _keeper = Keeper::open(runtime, config(2)).await.expect("empty directories");
            *flag.borrow_mut() = true;
        });
        for _ in 0..steps {
            if !sim.step() {
                break;
            }
        }
        restart(&sim);
        let keeper = open(&sim, config(2)).expect("whatever the crash left");
        assert_eq!(
            status(&sim, &keeper).in_sync.set,
            set(&[0, 1]),
            "after {steps} steps"
        );
        if *done.borrow() {
            return;
        }
    }
}

#[test]
fn a_missing_drive_leaves_the_set_before_anything_is_served() {
    let sim = world(2);
    drop(open(&sim, config(2)).expect("empty directories"));
    control(&sim, 1).detach();
    restart(&sim);
    let keeper = open(&sim, config(2)).expect("drive 0 and the witness are a majority");
    let degraded = status(&sim, &keeper);
    assert_eq!(
        degraded.in_sync,
        InSync {
            epoch: Epoch(2),
            set: set(&[0])
        }
    );
    assert!(
        degraded
            .warnings
            .iter()
            .any(|warning| warning.contains("/drive-1")),
        "{:?}",
        degraded.warnings
    );
    // It comes back stale: it is named and left out.
    control(&sim, 1).attach();
    restart(&sim);
    let keeper = open(&sim, config(2)).expect("drive 0 is in sync");
    let back = status(&sim, &keeper);
    assert_eq!(back.in_sync.set, set(&[0]));
    assert!(
        back.warnings
            .iter()
            .any(|warning| warning.contains("/drive-1") && warning.contains("cairn drives rebuild")),
        "{:?}",
        back.warnings
    );
}

#[test]
fn a_drive_that_nobody_named_is_missed_by_name() {
    let sim = world(2);
    drop(open(&sim, config(3)).expect("empty directories"));
    restart(&sim);
    let refused = open(&sim, config(2)).err().map(|error| error.to_string());
    let refused = refused.expect("a drive is forgotten");
    assert!(refused.contains("3 drives and 2 are named"), "{refused}");
    restart(&sim);
    let keeper = open(&sim, config(3)).expect("nothing has changed");
    assert_eq!(status(&sim, &keeper).in_sync.set, set(&[0, 1, 2]));
}

#[test]
fn a_witness_is_on_no_drive_and_a_new_one_is_told_of() {
    let sim = world(2);
    let on_drive = VolumeConfig {
        state: PathBuf::from("/drive-1/state"),
        ..config(2)
    };
    let refused = open(&sim, on_drive).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|refused| refused.contains("off the drives")));
    drop(open(&sim, config(2)).expect("empty directories"));
    restart(&sim);
    let elsewhere = VolumeConfig {
        state: PathBuf::from("/other"),
        ..config(2)
    };
    let keeper = open(&sim, elsewhere).expect("the drives are a majority");
    let warnings = status(&sim, &keeper).warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("/other held no witness")),
        "{warnings:?}"
    );
}

#[test]
fn a_stale_mirror_alone_is_never_believed() {
    let sim = world(3);
    let keeper = open(&sim, config(2)).expect("empty directories");
    assert_eq!(
        eject(&sim, &keeper, 1),
        Ok(InSync {
            epoch: Epoch(2),
            set: set(&[0])
        })
    );
    control(&sim, 0).detach();
    restart(&sim);
    let refused = open(&sim, config(2))
        .err()
        .expect("only the stale drive is there");
    let VolumeError::OnlyStale { epoch: Epoch(2), .. } = &refused else {
        panic!("{refused}")
    };
    assert!(refused.to_string().contains("/drive-1") && refused.to_string().contains("--accept-epoch"));
    // The stale drive's own superblock learnt of epoch 2; its older image does not know, and is alone.
    sim.drive(NODE, "/state").detach();
    restart(&sim);
    let refused = open(&sim, config(2)).err().expect("one of three copies");
    assert!(
        matches!(
            refused,
            VolumeError::NoMajority {
                readable: 1,
                copies: 3,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn an_operator_can_accept_an_epoch_by_its_number_only() {
    let sim = world(4);
    drop(open(&sim, config(2)).expect("empty directories"));
    control(&sim, 0).detach();
    let lost = sim.drive(NODE, "/state");
    let names: Vec<String> = lost.image().names().map(str::to_owned).collect();
    for name in names {
        assert!(lost.delete_file(&name));
    }
    restart(&sim);
    assert!(matches!(
        open(&sim, config(2)).err(),
        Some(VolumeError::NoMajority { epoch: Epoch(1), .. })
    ));
    restart(&sim);
    let wrong = VolumeConfig {
        accept_epoch: Some(7),
        ..config(2)
    };
    assert!(matches!(
        open(&sim, wrong.clone()).err(),
        Some(VolumeError::WrongAcceptEpoch { .. })
    ));
    restart(&sim);
    let right = VolumeConfig {
        accept_epoch: Some(1),
        ..config(2)
    };
    let keeper = open(&sim, right.clone()).expect("the operator takes the blame");
    let accepted = status(&sim, &keeper);
    assert_eq!(accepted.in_sync.set, set(&[1]));
    assert!(
        accepted.in_sync.epoch > Epoch(1000),
        "above anything the lost drive can know"
    );
    // The accepted drive and the new witness are a majority from now on; the other comes back and is stale.
    control(&sim, 0).attach();
    restart(&sim);
    let keeper = open(&sim, config(2)).expect("a majority");
    assert_eq!(status(&sim, &keeper).in_sync.set, set(&[1]));
    drop(keeper);
    restart(&sim);
    let keeper = open(&sim, right).expect("a flag left behind changes nothing");
    assert_eq!(status(&sim, &keeper).in_sync, accepted.in_sync);
}

#[test]
fn directories_that_are_not_ours_are_refused_by_name() {
    let sim = world(5);
    sim.block_on(NODE, SHARD, async |runtime: SimRuntime| {
        let drive = runtime
            .drive(std::path::Path::new("/drive-1"), true)
            .await
            .expect("a directory");
        drive
            .open(
                "holiday.jpg",
                Open {
                    create_new: true,
                    ..Open::default()
                },
            )
            .await
            .expect("a file");
        drive.sync().await.expect("a healthy drive");
    });
    let refused = open(&sim, config(2)).err().expect("a foreign file");
    assert!(
        matches!(&refused, VolumeError::Foreign { file, .. } if file == "holiday.jpg"),
        "{refused}"
    );
    assert!(refused.to_string().contains("/drive-1"));

    // A drive of another node.
    let sim = world(6);
    let other = VolumeConfig {
        drives: vec!["/drive-9".into()],
        state: "/other".into(),
        ..config(1)
    };
    drop(open(&sim, other).expect("empty directories"));
    drop(open(&sim, config(2)).expect("empty directories"));
    control(&sim, 1).restore(&control(&sim, 9).image());
    restart(&sim);
    let refused = open(&sim, config(2)).err().expect("another node's drive");
    assert!(
        matches!(&refused, VolumeError::AnotherNode { path, .. } if path == &PathBuf::from("/drive-1")),
        "{refused}"
    );

    // A copy of a drive.
    control(&sim, 1).restore(&control(&sim, 0).image());
    restart(&sim);
    let refused = open(&sim, config(2)).err().expect("a duplicate");
    assert!(matches!(&refused, VolumeError::Duplicate { .. }), "{refused}");
}

#[test]
fn directories_that_are_in_one_another_make_no_node() {
    let refused = |drives: [&str; 2], state: &str, needle: &str| {
        let sim = world(7);
        let config = VolumeConfig {
            drives: drives.map(PathBuf::from).into(),
            state: state.into(),
            ..config(2)
        };
        let refused = open(&sim, config).err().expect("they cannot be used together");
        assert!(refused.to_string().contains(needle), "{refused}");
        for path in drives.into_iter().chain([state]) {
            let path = PathBuf::from(path);
            let opened = sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
                runtime.drive(&path, false).await.map(drop)
            });
            assert!(opened.is_err(), "nothing was made");
        }
    };
    refused(["/drive-0", "/drive-0"], "/state", "are the same directory");
    refused(
        ["/drive-0", "/x/../drive-0"],
        "/state",
        "are the same directory, /drive-0",
    );
    refused(
        ["/drive-0", "/drive-0/b"],
        "/state",
        "/drive-0/b is inside the drive /drive-0",
    );
    refused(["/x/../a/b", "/a"], "/state", "/x/../a/b is inside the drive /a");
    refused(["/a", "/b"], "/x/../b/state", "/x/../b/state is on the drive /b");
}

#[test]
fn a_refused_directory_is_left_as_it_was() {
    let sim = world(8);
    sim.block_on(NODE, SHARD, async |runtime: SimRuntime| {
        for path in ["/drive-0", "/drive-1/pictures"] {
            let made = runtime.drive(std::path::Path::new(path), true).await;
            made.expect("it can be made");
        }
        runtime
            .drive(std::path::Path::new("/drive-1"), true)
            .await
            .expect("it can be made");
    });
    let refused = open(&sim, config(2)).err().expect("a directory in a drive's");
    assert!(
        matches!(&refused, VolumeError::Foreign { file, .. } if file == "pictures"),
        "{refused}"
    );
    for drive in 0..2 {
        let free = sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
            let path = format!("/drive-{drive}");
            let drive = runtime.drive(std::path::Path::new(&path), false).await;
            drive.expect("it is still there").lock()
        });
        free.expect("the lock was given back");
    }
}

#[test]
fn a_second_node_on_the_same_directory_is_refused() {
    let sim = world(7);
    let _keeper = open(&sim, config(2)).expect("empty directories");
    let refused = open(&sim, config(2)).err().expect("the first still runs");
    assert!(matches!(refused, VolumeError::InUse(_)), "{refused}");
}

#[test]
fn an_additional_drive_is_refused_by_name() {
    let sim = world(8);
    drop(open(&sim, config(2)).expect("empty directories"));
    restart(&sim);
    let refused = open(&sim, config(3)).err().expect("one more than the node has");
    assert!(
        matches!(&refused, VolumeError::NotMember(path) if path == &PathBuf::from("/drive-2")),
        "{refused}"
    );
}

#[test]
fn damaged_copies_are_outvoted_and_healed_by_the_next_version() {
    for damaged in 1..=3_u64 {
        let sim = world(9);
        drop(open(&sim, config(2)).expect("empty directories"));
        for copy in 0..damaged {
            control(&sim, 0).rot("superblock", copy * COPY_STRIDE);
            control(&sim, 0).zero("superblock", copy * COPY_STRIDE..copy * COPY_STRIDE + 4096);
        }
        restart(&sim);
        let keeper = open(&sim, config(2)).expect("two copies, or the other drive and the witness");
        let expected = if damaged == 3 { set(&[1]) } else { set(&[0, 1]) };
        assert_eq!(
            status(&sim, &keeper).in_sync.set,
            expected,
            "{damaged} copies damaged"
        );
        assert_eq!(status(&sim, &keeper).in_sync.epoch, Epoch(2));
    }
}

#[test]
fn a_torn_copy_of_the_witness_is_written_again_by_the_next_start() {
    let sim = world(9);
    drop(open(&sim, config(2)).expect("a new node"));
    restart(&sim);
    let state = sim.drive(NODE, "/state");
    state.rot(member::WITNESS_NAME, 2 * COPY_STRIDE);
    let damaged = state.image().read(member::WITNESS_NAME);
    drop(open(&sim, config(2)).expect("three copies are whole"));
    assert_ne!(state.image().read(member::WITNESS_NAME), damaged);
    restart(&sim);
    let whole = sim.block_on(NODE, SHARD, async |runtime| {
        let drive = runtime
            .drive("/state".as_ref(), false)
            .await
            .expect("it is there");
        let opened = member::Member::open(&runtime, &drive, superblock::MemberKind::Witness).await;
        matches!(
            opened.expect("it opens").1,
            superblock::Quorum::Valid { complete: true, .. }
        )
    });
    assert!(whole);
}

#[test]
fn a_stalled_drive_does_not_hold_up_its_own_ejection() {
    let sim = world(10);
    let keeper = open(&sim, config(2)).expect("empty directories");
    control(&sim, 1).stall_for(Duration::from_secs(60));
    let before = sim.elapsed();
    let handle = keeper.handle();
    let in_sync = sim.block_on(NODE, SHARD, async move |_| {
        handle
            .ask(|reply| Request::ReportFailed {
                drive: index(1),
                why: "stalls".to_owned(),
                reply,
            })
            .await?
    });
    assert_eq!(in_sync.map(|in_sync| in_sync.set), Ok(set(&[0])));
    assert!(sim.elapsed() - before < Duration::from_secs(1));
}

#[test]
fn while_a_change_cannot_be_written_nothing_is_acknowledged() {
    let sim = world(11);
    let keeper = open(&sim, config(2)).expect("empty directories");
    let handle = keeper.handle();
    let volume = sim.block_on(NODE, SHARD, async move |runtime| handle.attach(runtime).await);
    let volume: Volume<SimRuntime> = volume.expect("both drives are there");
    assert!(volume.in_sync_settled().is_some());
    control(&sim, 1).detach();
    sim.drive(NODE, "/state").detach();
    let asked = volume.clone();
    let refused = sim.block_on(NODE, SHARD, async move |_| {
        asked.report_failed(index(1), "gone".to_owned()).await
    });
    assert!(
        matches!(refused, Err(VolumeError::EpochNotDurable(_))),
        "{refused:?}"
    );
    assert_eq!(volume.in_sync_settled(), None);
    let asked = volume.clone();
    let settled = sim.block_on(NODE, SHARD, async move |_| asked.settled().await);
    assert!(
        matches!(settled, Err(VolumeError::EpochNotDurable(_))),
        "{settled:?}"
    );
}

#[test]
fn the_last_drive_is_never_ejected() {
    let sim = world(12);
    let keeper = open(&sim, config(2)).expect("empty directories");
    eject(&sim, &keeper, 0).expect("the other remains");
    assert!(matches!(
        eject(&sim, &keeper, 1),
        Err(VolumeError::LastDrive { .. })
    ));
}

#[test]
fn a_drive_that_is_gone_before_a_shard_opens_it_leaves_the_set() {
    let sim = world(17);
    let keeper = open(&sim, config(2)).expect("empty directories");
    control(&sim, 1).detach();
    let handle = keeper.handle();
    let in_sync = sim.block_on(NODE, SHARD, async move |runtime| {
        let volume = handle.attach(runtime).await?;
        assert!(volume.drive(index(1)).is_none());
        Ok::<_, VolumeError>(volume.in_sync())
    });
    assert_eq!(in_sync.map(|in_sync| in_sync.set), Ok(set(&[0])));
}

/// Each file is on as many drives as there are mirrors: when that many are out, some file may be on none.
#[test]
fn no_drive_leaves_that_may_be_the_last_to_hold_a_file() {
    for (drives, mirrors, leave) in [(2, 1, 0), (3, 1, 0), (2, 2, 1), (3, 2, 1), (4, 3, 2), (3, 3, 2)] {
        let config = VolumeConfig {
            mirrors,
            ..config(drives)
        };
        let sim = world(15);
        let keeper = open(&sim, config.clone()).expect("empty directories");
        for drive in 0..leave {
            eject(&sim, &keeper, drive).expect("every file has another holder");
        }
        let refused = eject(&sim, &keeper, leave);
        assert!(
            matches!(refused, Err(VolumeError::LastDrive { .. })),
            "{drives} drives, {mirrors} mirrors: {refused:?}"
        );
        // So it is when the drive is missing at a start.
        drop(keeper);
        control(&sim, leave).detach();
        restart(&sim);
        let refused = open(&sim, config.clone()).err().expect("it is missing");
        let last = drives == leave + 1;
        assert!(
            last || matches!(refused, VolumeError::HolderMissing { .. }),
            "{refused}"
        );
        control(&sim, leave).attach();
        restart(&sim);
        drop(open(&sim, config).expect("it is back"));
    }
}

/// Drive 0 leaves, and is detached; then drive 1 is lost. What was on these two is on drive 0 only, as far as that is not
/// too old: the operator takes the epoch that drive 0 knows.
#[test]
fn an_operator_can_go_back_to_a_drive_that_has_what_the_others_lack() {
    let sim = world(16);
    drop(open(&sim, config(3)).expect("empty directories"));
    control(&sim, 0).detach();
    restart(&sim);
    drop(open(&sim, config(3)).expect("every file has another holder"));
    control(&sim, 0).attach();
    control(&sim, 1).detach();
    let accept = |epoch| VolumeConfig {
        accept_epoch: Some(epoch),
        ..config(3)
    };
    for (epoch, expected) in [(1, set(&[0, 2])), (2, set(&[2]))] {
        let images: Vec<_> = [0, 2].map(|drive| control(&sim, drive).image()).into();
        let witness = sim.drive(NODE, "/state").image();
        restart(&sim);
        let refused = open(&sim, config(3)).err().expect("drive 1 is missing");
        assert!(refused.to_string().contains("--accept-epoch 2"), "{refused}");
        restart(&sim);
        let keeper = open(&sim, accept(epoch)).expect("the operator takes the blame");
        assert_eq!(status(&sim, &keeper).in_sync.set, expected);
        drop(keeper);
        restart(&sim);
        let keeper = open(&sim, config(3)).expect("the lost drive no longer counts");
        assert_eq!(status(&sim, &keeper).in_sync.set, expected);
        drop(keeper);
        sim.crash(NODE);
        for (drive, image) in [0, 2].into_iter().zip(&images) {
            control(&sim, drive).restore(image);
        }
        sim.drive(NODE, "/state").restore(&witness);
        sim.restart(NODE);
    }
}

#[test]
fn a_lost_witness_is_made_anew_by_a_majority_of_the_drives() {
    let sim = world(13);
    drop(open(&sim, config(2)).expect("empty directories"));
    assert!(sim.drive(NODE, "/state").delete_file("witness"));
    restart(&sim);
    drop(open(&sim, config(2)).expect("two drives of three copies"));
    control(&sim, 0).detach();
    restart(&sim);
    let keeper = open(&sim, config(2)).expect("the new witness counts");
    assert_eq!(status(&sim, &keeper).in_sync.set, set(&[1]));
}

/// What a member says, read from the medium; none when no two copies agree.
fn said(sim: &Simulation, path: &str, kind: superblock::MemberKind) -> Option<superblock::Superblock> {
    let name = if kind == superblock::MemberKind::Drive {
        "superblock"
    } else {
        "witness"
    };
    let bytes = sim.drive(NODE, path).image().read(name)?;
    let copies: Vec<_> = (0..superblock::COPIES)
        .map(|copy| superblock::Superblock::decode(kind, copy, &bytes[copy * COPY_STRIDE as usize..][..4096]))
        .collect();
    match superblock::decide(&copies) {
        superblock::Quorum::Valid { superblock, .. } => Some(superblock),
        _ => None,
    }
}

/// A node dies while it takes drive 1 out, when only drive 0 has the new set. The next start sees drive 1 and the
/// witness only, and takes drive 0 out. Both sets are "the one after epoch 1": without the round of promises they
/// would carry the same number, and nobody could tell any more which of the two was acted on.
#[test]
fn one_epoch_never_names_two_sets() {
    let mut met = 0;
    for seed in 0..400 {
        let sim = world(seed);
        let keeper = open(&sim, config(2)).expect("empty directories");
        sim.run_for(Duration::from_millis(20));
        let handle = keeper.handle();
        let runtime = sim.runtime(NODE, SHARD);
        runtime.clone().spawn(Queue::Foreground, async move {
            let volume = handle.attach(runtime).await.expect("both drives are there");
            let _ = volume.report_failed(index(1), "a test says so".to_owned()).await;
        });
        let steps = sim.random().below(120);
        for _ in 0..steps {
            let _ = sim.step();
        }
        restart(&sim);
        let epoch = |path, kind| said(&sim, path, kind).map(|superblock| superblock.epoch);
        let ahead = epoch("/drive-0", superblock::MemberKind::Drive) == Some(Epoch(2))
            && epoch("/drive-1", superblock::MemberKind::Drive) == Some(Epoch(1))
            && epoch("/state", superblock::MemberKind::Witness) == Some(Epoch(1));
        if !ahead {
            continue;
        }
        met += 1;
        control(&sim, 0).detach();
        drop(open(&sim, config(2)).expect("drive 1 and the witness know epoch 1"));
        sim.run_for(Duration::from_millis(20));
        control(&sim, 0).attach();
        control(&sim, 1).detach();
        restart(&sim);
        let refused = open(&sim, config(2))
            .err()
            .expect("drive 0 missed what drive 1 acknowledged");
        assert!(
            matches!(refused, VolumeError::OnlyStale { epoch: Epoch(3), .. }),
            "seed {seed}: {refused}"
        );
        control(&sim, 1).attach();
        restart(&sim);
        let keeper = open(&sim, config(2)).expect("all are there");
        assert_eq!(status(&sim, &keeper).in_sync.set, set(&[1]), "seed {seed}");
    }
    assert!(met > 0, "no seed met the case");
}

/// Members come and go, the node crashes in the middle of epoch changes; tokens stand for acknowledged data: one is
/// given to every in-sync drive. A drive that is in sync must hold every token ever given out.
fn tokens(seed: u64) {
    let sim = world(seed);
    let mut random = Random::new(seed ^ 0x70_6b_65_6e);
    let drives = 2 + random.index(2);
    let mut held = vec![0_u64; drives];
    let mut given = 0_u64;
    let mut opened = 0;
    // Members that are far apart in time.
    let slow = FaultConfig {
        slow_ppm: 200_000,
        ..FaultConfig::NONE
    };
    (0..drives).for_each(|drive| control(&sim, drive).set_faults(slow.clone()));
    sim.drive(NODE, "/state").set_faults(slow);
    // Few rounds and many seeds: the set only ever shrinks.
    for _ in 0..10 {
        for drive in 0..drives {
            if random.one_in(4) {
                control(&sim, drive).detach()
            } else {
                control(&sim, drive).attach()
            }
        }
        let state = sim.drive(NODE, "/state");
        if opened > 0 && random.one_in(6) {
            state.detach()
        } else {
            state.attach()
        }
        if opened == 0 {
            (0..drives).for_each(|drive| control(&sim, drive).attach());
        }
        if !sim.is_up(NODE) {
            sim.restart(NODE);
        }
        // A crash may come at any step of what follows.
        let steps = if random.one_in(2) {
            random.below(400)
        } else {
            u64::MAX
        };
        let (runtime, log) = (sim.runtime(NODE, SHARD), Rc::new(RefCell::new(Vec::new())));
        let (writes, victim, ended) = (log.clone(), random.index(drives), Rc::new(RefCell::new(false)));
        let (end, task) = (ended.clone(), runtime.clone());
        runtime.spawn(Queue::Foreground, async move {
            if let Ok(keeper) = Keeper::open(task.clone(), config(drives)).await {
                let volume = keeper
                    .handle()
                    .attach(task)
                    .await
                    .expect("in-sync drives are there");
                writes.borrow_mut().push(volume.in_sync().set);
                let ejected = volume
                    .report_failed(index(victim), "a test says so".to_owned())
                    .await;
                if let Ok(in_sync) = ejected {
                    writes.borrow_mut().push(in_sync.set);
                }
            }
            *end.borrow_mut() = true;
        });
        let mut taken = 0;
        while !*ended.borrow() && taken < steps && sim.step() {
            taken += 1;
        }
        sim.crash(NODE);
        for in_sync in log.borrow().iter() {
            opened += 1;
            for drive in in_sync.iter() {
                assert_eq!(
                    held[drive.get()],
                    given,
                    "seed {seed}: drive {drive} is stale and believed in sync"
                );
            }
            given += 1;
            for drive in in_sync.iter() {
                held[drive.get()] = given;
            }
        }
    }
    assert!(opened > 0, "seed {seed}: the node never started");
}

#[test]
fn an_in_sync_drive_holds_every_token() {
    for seed in 0..1_500 {
        tokens(seed);
    }
}

#[test]
fn an_error_while_reading_is_a_missing_drive_not_a_new_node() {
    let sim = world(14);
    drop(open(&sim, config(2)).expect("empty directories"));
    restart(&sim);
    control(&sim, 0).fail_next(Operation::Open, Fault::Error);
    let keeper = open(&sim, config(2)).expect("drive 1 and the witness");
    assert_eq!(status(&sim, &keeper).in_sync.set, set(&[1]));
}
