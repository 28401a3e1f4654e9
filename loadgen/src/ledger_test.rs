use super::*;
use crate::workload::{Random, Reading, Writing};

fn put(key: u64, generation: u64) -> Operation {
    let how = Writing::Put;
    Operation::Put { key, generation, how }
}

const GET: Operation = Operation::Get {
    key: 0,
    how: Reading::Get,
};

#[test]
fn what_was_overwritten_is_not_seen_again() {
    let mut ledger = Ledger::new(2, 100);
    let first = ledger.start(GET);
    assert!(
        ledger.allows(&first, 0)
            && ledger.allows(&first, 7)
            && !ledger.allows(
                &View {
                    newest: 101,
                    ..first.clone()
                },
                7
            )
    );
    ledger.start(put(0, 101));
    let during = ledger.start(GET);
    ledger.end(0, 101, End::Acknowledged);
    let behind = ledger.start(GET);
    assert!(ledger.allows(&during, 0) && ledger.allows(&during, 101));
    assert!(!ledger.allows(&behind, 0) && ledger.allows(&behind, 101));
    // Others of other keys change nothing.
    ledger.start(put(1, 102));
    ledger.end(1, 102, End::Acknowledged);
    // Two that overlap, ended in the other order; then one behind both.
    ledger.start(put(0, 103));
    ledger.start(put(0, 104));
    ledger.end(0, 104, End::Acknowledged);
    ledger.end(0, 103, End::Acknowledged);
    let either = ledger.start(GET);
    ledger.start(put(0, 105));
    ledger.end(0, 105, End::Acknowledged);
    let last = ledger.start(GET);
    for (generation, expected) in [(0, false), (101, false), (103, true), (104, true), (105, true)] {
        assert_eq!(ledger.allows(&either, generation), expected, "{generation}");
    }
    for (generation, expected) in [(103, false), (104, false), (105, true)] {
        assert_eq!(ledger.allows(&last, generation), expected, "{generation}");
    }
    assert!(ledger.others.is_empty());
}

#[test]
fn what_nobody_knows_may_always_be_seen() {
    let mut ledger = Ledger::new(1, 0);
    ledger.start(put(0, 1));
    ledger.end(0, 1, End::Unknown);
    let view = ledger.start(GET);
    assert!(ledger.allows(&view, 0) && ledger.allows(&view, 1));
    for generation in [2, 3] {
        ledger.start(put(0, generation));
        ledger.end(0, generation, End::Acknowledged);
    }
    ledger.start(put(0, 4));
    ledger.end(0, 4, End::Refused);
    let view = ledger.start(GET);
    assert!(ledger.allows(&view, 1) && ledger.allows(&view, 3) && !ledger.allows(&view, 2));
    assert!(ledger.others.is_empty());
}

/// Every operation with the step of its start and of its end: slow, and plainly right.
#[derive(Default)]
struct Oracle {
    puts: Vec<(u64, u64, Option<u64>, Option<End>)>,
}

impl Oracle {
    /// Whether a read from `start` to now may see `generation`.
    fn allows(&self, start: u64, generation: u64) -> bool {
        let overwritten = |seen_end: Option<u64>| {
            self.puts.iter().any(|&(_, began, ended, end)| {
                end == Some(End::Acknowledged)
                    && ended.is_some_and(|ended| ended < start)
                    && seen_end.is_none_or(|seen_end| began > seen_end)
            })
        };
        if generation == 0 {
            return !overwritten(None);
        }
        match self.puts.iter().find(|put| put.0 == generation) {
            Some((_, _, Some(ended), Some(End::Acknowledged))) => !overwritten(Some(*ended)),
            Some((_, _, _, end)) => *end != Some(End::Refused),
            None => false,
        }
    }
}

#[test]
fn it_agrees_with_an_oracle() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let (mut ledger, mut oracle) = (Ledger::new(1, 0), Oracle::default());
        let (mut reads, mut in_flight) = (Vec::new(), Vec::new());
        for step in 1..200 {
            match random.below(4) {
                0 if in_flight.len() < 4 => {
                    let generation = oracle.puts.len() as u64 + 1;
                    ledger.start(put(0, generation));
                    oracle.puts.push((generation, step, None, None));
                    in_flight.push(generation);
                }
                1 if !in_flight.is_empty() => {
                    let place = random.below(in_flight.len() as u64) as usize;
                    let generation = in_flight.swap_remove(place);
                    let end = match random.below(20) {
                        0 => End::Unknown,
                        _ => End::Acknowledged,
                    };
                    ledger.end(0, generation, end);
                    let put = &mut oracle.puts[generation as usize - 1];
                    (put.2, put.3) = (Some(step), Some(end));
                }
                2 if reads.len() < 4 => reads.push((step, ledger.start(GET))),
                3 if !reads.is_empty() => {
                    let (start, view) = reads.swap_remove(random.below(reads.len() as u64) as usize);
                    for generation in 0..=oracle.puts.len() as u64 {
                        let expected = oracle.allows(start, generation);
                        let got = ledger.allows(&view, generation);
                        assert_eq!(got, expected, "seed {seed} step {step} generation {generation}");
                    }
                }
                _ => {}
            }
        }
    }
}
