//! Whole nodes under simulation, as part of the tests. `cargo run -p cairn-fuzz --bin sim -- --tables` runs more.

use cairn::node::Canary;
use cairn_fuzz::sim::tables::{TableScenario, TableSummary, run_tables};

/// Runs seeds `from` to `to`.
fn survives(from: u64, to: u64) -> TableSummary {
    let mut total = TableSummary::default();
    for seed in from..to {
        match run_tables(TableScenario::of(seed), false) {
            Ok(summary) => total.add(&summary),
            Err(failure) => panic!(
                "{failure}\nrepeat with: cargo run -p cairn-fuzz --bin sim -- --tables --replay {seed}"
            ),
        }
    }
    total
}

#[test]
fn indexes_and_streams_equal_their_table() {
    use cairn_runtime::sim::FaultKind::*;
    let total = survives(0, 60);
    let kinds = [Crash, Kill, NoSpace, TornWrite, LostWrite, CorruptRead, Slow];
    for kind in kinds {
        assert!(total.faults.get(kind) > 0, "{kind:?} never happened: {total:#?}");
    }
    assert!(
        total.records > 1_000 && total.expired > 0 && total.flushes > 0,
        "{total:#?}"
    );
    let transactions = &total.transactions;
    let counts = [
        transactions.done,
        transactions.conflicts,
        transactions.refused,
        transactions.again,
        transactions.reads,
        total.room_low,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{total:#?}");
}

/// The checker proves itself: without what is prepared, a crash leaves transactions by half. Of these runs most find it, so that one
/// of a few does whatever else moves.
#[test]
fn a_bug_put_in_is_found() {
    let seeds = 0..8;
    let run = |seed, canary| run_tables(TableScenario::transacting(seed).with_canary(canary), false);
    let found = seeds
        .clone()
        .filter(|seed| run(*seed, Canary::ForgetPrepared).is_err());
    assert!(found.count() >= 4, "too few of the runs find it to rely on them");
    for seed in seeds {
        let whole = run(seed, Canary::None);
        assert!(whole.is_ok(), "without the bug: {whole:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 7] {
        let runs =
            [0, 1].map(|_| run_tables(TableScenario::of(seed), false).expect("it is among those above"));
        assert_eq!(runs[0].trace, runs[1].trace, "seed {seed}");
    }
}
