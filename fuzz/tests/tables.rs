//! Whole nodes under simulation, as part of the tests. `cargo run -p cairn-fuzz --bin sim -- --tables` runs more.

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
    for kind in [Crash, Kill, LostWrite, CorruptRead] {
        assert!(total.faults.get(kind) > 0, "{kind:?} never happened: {total:#?}");
    }
    assert!(
        total.records > 1_000 && total.expired > 0 && total.flushes > 0,
        "{total:#?}"
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 7] {
        let runs =
            [0, 1].map(|_| run_tables(TableScenario::of(seed), false).expect("it is among those above"));
        assert_eq!(runs[0].trace, runs[1].trace, "seed {seed}");
    }
}
