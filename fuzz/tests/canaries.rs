//! For every kind of fault a bug that lets it do harm is found, and what finds it passes without the bug.
#![cfg(debug_assertions)]

use cairn_fuzz::sim::canaries::{CASES, Case};
use cairn_fuzz::sim::run_caught;

/// Seeds in which a bug has to be found. The rarest shows in one of some fifty, and which those are changes with every change of the engine.
const SEEDS_MAX: u64 = 200;

fn is_found(case: &Case) {
    let failure = case.find(0..SEEDS_MAX);
    let Some(failure) = failure else {
        panic!("{case:?} was not found in {SEEDS_MAX} seeds");
    };
    println!(
        "{:?}: {:?} found by {} seeds: {failure}",
        case.trigger,
        case.canary,
        failure.seed + 1
    );
    // Those before have passed with the bug, so they would without it.
    let passed = run_caught(case.scenario(failure.seed));
    assert!(passed.is_ok(), "without the bug: {case:?}: {passed:?}");
    if case.needs_fault {
        let calm = case.find_calm(failure.seed);
        assert!(calm.is_none(), "without the fault: {case:?}: {calm:?}");
    }
}

/// Every third, so that they run side by side.
fn are_found(first: usize) {
    CASES.iter().skip(first).step_by(3).for_each(is_found);
}

#[test]
fn bugs_are_found_1() {
    are_found(0);
}

#[test]
fn bugs_are_found_2() {
    are_found(1);
}

#[test]
fn bugs_are_found_3() {
    are_found(2);
}
