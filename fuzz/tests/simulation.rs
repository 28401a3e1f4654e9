//! The engine under simulation, as part of the tests. `cargo run -p cairn-fuzz --bin sim` runs more.
//!
//! The seeds are split over several tests so that they run side by side.

use cairn_fuzz::sim::{Scenario, Summary, run};

/// Runs seeds `from` to `to` and shows that the work and the faults that matter happened.
fn survives(from: u64, to: u64) -> Summary {
    let mut total = Summary::default();
    for seed in from..to {
        match run(Scenario::of(seed), false) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                panic!("{failure}\nrepeat with: cargo run -p cairn-fuzz --bin sim -- --replay {seed}")
            }
        }
    }
    total
}

fn check(total: &Summary) {
    use cairn_runtime::sim::FaultKind::*;
    for kind in [
        Crash,
        Kill,
        TornWrite,
        LostWrite,
        MisdirectedWrite,
        CorruptWrite,
        CorruptRead,
        TornRead,
        LostRead,
        MisdirectedRead,
        Rot,
        ReadError,
        WriteError,
        MetadataError,
        NoSpace,
        ShortWrite,
        Slow,
        Stall,
        Vanish,
        Stale,
        UnsyncedLost,
        DirectoryChangeLost,
        ClockJump,
    ] {
        assert!(total.faults.get(kind) > 0, "{kind:?} never happened: {total:#?}");
    }
    let work = [
        total.flushes,
        total.compactions,
        total.snapshots,
        total.log_files,
        total.repairs,
        total.rotations,
        total.rotations_cut_off,
        total.backups,
        total.backups_cut_off,
        total.alone,
        total.stale_refused,
        // Without debug assertions nobody counts.
        if cfg!(debug_assertions) { total.sealed } else { 1 },
    ];
    assert!(work.iter().all(|count| *count > 0), "{total:#?}");
}

#[test]
fn seeds_0_to_500() {
    check(&survives(0, 500));
}

#[test]
fn seeds_500_to_1000() {
    check(&survives(500, 1_000));
}

/// Drives are lost, added, rebuilt and removed while clients work.
#[test]
fn drives_come_and_go() {
    let mut total = Summary::default();
    for seed in 0..200 {
        match run(Scenario::fleet(seed), false) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                panic!("{failure}\nrepeat with: cargo run -p cairn-fuzz --bin sim -- --fleet --replay {seed}")
            }
        }
    }
    let work = [total.drives_lost, total.drive_operations, total.remirrored];
    assert!(work.iter().all(|count| *count > 20), "{total:#?}");
}

/// Runs that have found defects, each with what was wrong.
#[test]
fn drives_come_and_go_in_runs_that_failed_once() {
    for seed in [1_164, 1_408, 1_429] {
        if let Err(failure) = run(Scenario::fleet(seed), false) {
            panic!("{failure}\nrepeat with: cargo run -p cairn-fuzz --bin sim -- --fleet --replay {seed}");
        }
    }
}

/// Both mirrors damaged: partitions may refuse to serve, nothing wrong may be answered.
#[test]
fn damage_on_both_mirrors_is_never_an_answer() {
    let mut total = Summary::default();
    for seed in 0..300 {
        match run(Scenario::damaged(seed), false) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                panic!(
                    "{failure}\nrepeat with: cargo run -p cairn-fuzz --bin sim -- --safety --replay {seed}"
                )
            }
        }
    }
    assert!(total.partitions_refused > 0 && total.answered > 0, "{total:#?}");
}

/// What a run has used is free again when it is over, however it was cut off.
#[test]
fn nothing_is_left_of_a_run() {
    for scenario in [Scenario::of, Scenario::fleet, Scenario::damaged] {
        for seed in 0..20 {
            drop(run(scenario(seed), false).expect("this seed is among those above"));
            assert_eq!(cairn_runtime::sim::worlds_alive(), 0, "seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 7, 10, 42] {
        let runs = [0, 1].map(|_| run(Scenario::of(seed), false).expect("this seed is among those above"));
        assert_eq!(runs[0].trace, runs[1].trace, "seed {seed}");
        assert_eq!(runs[0].events, runs[1].events, "seed {seed}");
    }
    let traces = [3, 7].map(|seed| run(Scenario::of(seed), false).expect("as above").trace);
    assert_ne!(traces[0], traces[1]);
}
