//! The power fails at moments all over each piece of work. `cargo xtask sim --sweep` takes every moment.
#![cfg(debug_assertions)]

use cairn_engine::phase::Phase;
use cairn_fuzz::sim::Scenario;
use cairn_fuzz::sim::sweep::sweep;

/// Moments of each piece of work.
const MOMENTS_MAX: usize = 40;
/// Seeds among which there is one with the work.
const SEEDS_MAX: u64 = 20;

fn survives(phase: Phase) {
    for seed in 0..SEEDS_MAX {
        match sweep(&Scenario::with_work(seed, phase), phase, MOMENTS_MAX) {
            Ok(total) if total.seeds > 5 => {
                assert!(
                    total.cut_off.get(&phase).is_some_and(|count| *count > 5),
                    "{phase:?}: {total}"
                );
                return;
            }
            Ok(_) => {}
            Err(failure) => panic!("{phase:?}: {failure}"),
        }
    }
    panic!("{phase:?} in none of {SEEDS_MAX} seeds");
}

#[test]
fn of_flushes_and_compactions() {
    survives(Phase::Flush);
    survives(Phase::Compaction);
    survives(Phase::ManifestChange);
}

#[test]
fn of_keys_epochs_and_the_log() {
    survives(Phase::TableKey);
    survives(Phase::RootKey);
    survives(Phase::Epoch);
    survives(Phase::LogFile);
}

#[test]
fn of_rebuilds_and_backups() {
    survives(Phase::Rebuild);
    survives(Phase::Backup);
}
