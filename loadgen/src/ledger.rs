//! Whether a strongly consistent read may have seen what it saw.
//!
//! Puts get their generations in the order in which they are started, so a generation is also a moment of the run. A
//! put that was started behind the end of another one on its key overwrites it; of two that overlapped, either may be
//! the last. The ledger knows of each key the newest put that was acknowledged and the puts that overlapped it, and a
//! read takes a copy of that along when it starts. It may see
//!
//! 1. that newest put, and any put with a later generation,
//! 2. a put that overlapped the newest one,
//! 3. a put of which nobody knows whether, and so not when, it was carried out,
//! 4. what was there before the run, as long as no put of the run was acknowledged.
//!
//! Everything else had been overwritten before the read began. No read that is right is refused, and no overwritten
//! item passes, provided that nobody else writes to the table. A key costs eight bytes; a get costs one look at them
//! when it starts, and a comparison at its end.

use std::collections::{HashMap, HashSet};

use crate::workload::Operation;

/// Writes of one run.
pub(crate) struct Ledger {
    /// The run's generations are greater.
    before: u64,
    /// The newest generation that was started.
    last: u64,
    /// By key: the generation of the newest acknowledged put, or 0; and, in the lowest bit, whether there are
    /// [`Ledger::others`] of it.
    keys: Vec<u64>,
    /// By key: puts in flight, and ended ones that were in flight together with the newest one or with those.
    others: HashMap<u64, Vec<Put>>,
    /// Puts that were perhaps carried out, or will be.
    unknown: HashSet<u64>,
}

#[derive(Clone, Copy)]
struct Put {
    generation: u64,
    /// The newest generation that had been started when this one was acknowledged.
    ended: Option<u64>,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Acknowledged,
    Refused,
    Unknown,
}

/// What a read that starts now may see.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// The newest acknowledged put, or 0.
    newest: u64,
    /// Generations below it that may be seen all the same.
    older: Box<[u64]>,
}

impl Ledger {
    /// The ledger of a run over `items` keys whose generations are greater than `before`.
    pub(crate) fn new(items: u64, before: u64) -> Ledger {
        Ledger {
            before,
            last: before,
            keys: vec![0; usize::try_from(items).expect("as many keys as fit into memory")],
            others: HashMap::new(),
            unknown: HashSet::new(),
        }
    }

    /// Notes that an operation starts; gives what it may see.
    pub(crate) fn start(&mut self, operation: Operation) -> View {
        match operation {
            Operation::Get { key, .. } => {
                let noted = self.keys[key as usize];
                let newest = noted >> 1;
                let mut older = Vec::new();
                if noted & 1 == 1 {
                    let generations = self.others[&key].iter().map(|put| put.generation);
                    older.extend(generations.filter(|&generation| generation < newest));
                }
                View {
                    newest,
                    older: older.into(),
                }
            }
            Operation::Put { key, generation, .. } => {
                self.last = self.last.max(generation);
                self.keys[key as usize] |= 1;
                let put = Put {
                    generation,
                    ended: None,
                };
                self.others.entry(key).or_default().push(put);
                View::default()
            }
        }
    }

    /// Notes the end of a put; one that was never started changes nothing.
    pub(crate) fn end(&mut self, key: u64, generation: u64, end: End) {
        let mut newest = self.keys[key as usize] >> 1;
        let Some(puts) = self.others.get_mut(&key) else {
            return;
        };
        let Some(place) = puts.iter().position(|put| put.generation == generation) else {
            return;
        };
        match end {
            End::Acknowledged => {
                puts[place].ended = Some(self.last);
                newest = newest.max(generation);
            }
            End::Refused => drop(puts.swap_remove(place)),
            End::Unknown => {
                puts.swap_remove(place);
                self.unknown.insert(generation);
            }
        }
        let in_flight = puts.iter().any(|put| put.ended.is_none());
        puts.retain(|put| match put.ended {
            None => true,
            // Nothing that starts from now on overlaps it.
            Some(_) if put.generation == newest => in_flight,
            Some(ended) => ended >= newest,
        });
        let has_others = !puts.is_empty();
        if !has_others {
            self.others.remove(&key);
        }
        self.keys[key as usize] = newest << 1 | u64::from(has_others);
    }

    /// Whether a read that started with this view may end with this generation.
    pub(crate) fn allows(&self, view: &View, generation: u64) -> bool {
        let of_this_run = generation > self.before && generation <= self.last;
        if !of_this_run {
            return view.newest == 0;
        }
        generation >= view.newest || view.older.contains(&generation) || self.unknown.contains(&generation)
    }
}

#[cfg(test)]
#[path = "ledger_test.rs"]
mod tests;
