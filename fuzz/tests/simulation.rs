//! The engine under simulation, as part of the tests. `cargo run -p cairn-fuzz --bin sim` runs more.
//!
//! The seeds are split over several tests so that they run side by side.

use cairn_engine::config::Canary;
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
        Rot,
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

/// The checker proves itself: a bug put into the engine is found within so many seeds.
#[test]
fn a_bug_put_in_is_found() {
    let bugs = [
        (Canary::AcknowledgeBeforeDurable, 100),
        (Canary::AnswerUnchangedAtOnce, 600),
        (Canary::ForgetFloor, 100),
    ];
    for (canary, seeds) in bugs {
        let found = (0..seeds).find_map(|seed| run(Scenario::of(seed).with_canary(canary), false).err());
        assert!(found.is_some(), "{canary:?} was not found in {seeds} seeds");
    }
}
