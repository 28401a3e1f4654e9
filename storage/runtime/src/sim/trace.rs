//! A hash over everything that happened, in order. Two runs are the same run exactly when their hashes are.

use std::collections::VecDeque;
use std::fmt;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Step {
    Spawn,
    Poll,
    TaskEnd,
    Timer,
    Submit,
    Complete,
    Fail,
    Fault,
    Connect,
    Accept,
    Send,
    Deliver,
    Receive,
    Reset,
    Crash,
    Restart,
    Random,
    Note,
}

/// One event of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceEvent {
    /// Virtual time.
    pub nanoseconds: u64,
    /// What happened.
    pub step: Step,
    /// To whom: node, shard, drive or connection, as the step has it.
    pub subject: u64,
    /// A detail: task, offset, bytes.
    pub detail: u64,
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TraceEvent {
            nanoseconds,
            step,
            subject,
            detail,
        } = self;
        write!(
            formatter,
            "{:>12}.{:03} us {step:?} {subject} {detail:#x}",
            nanoseconds / 1000,
            nanoseconds % 1000
        )
    }
}

pub(super) struct Trace {
    hash: u64,
    events: u64,
    tail: VecDeque<TraceEvent>,
    tail_max: usize,
}

impl Trace {
    pub(super) fn new(seed: u64, tail_max: usize) -> Trace {
        Trace {
            hash: seed,
            events: 0,
            tail: VecDeque::with_capacity(tail_max),
            tail_max,
        }
    }

    pub(super) fn record(&mut self, event: TraceEvent) {
        self.fold(event.nanoseconds);
        self.fold((event.step as u64) << 56 ^ event.subject);
        self.fold(event.detail);
        self.events += 1;
        if self.tail_max > 0 {
            if self.tail.len() == self.tail_max {
                self.tail.pop_front();
            }
            self.tail.push_back(event);
        }
    }

    fn fold(&mut self, value: u64) {
        self.hash = (self.hash.rotate_left(23) ^ value).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash ^ (self.hash >> 31)
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn tail(&self) -> Vec<TraceEvent> {
        self.tail.iter().copied().collect()
    }
}
