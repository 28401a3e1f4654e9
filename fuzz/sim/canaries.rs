//! The simulator proves itself: for every kind of fault a bug that lets this fault do harm, and runs that find it.
//!
//! A bug is looked for where its fault is the only one ([`Scenario::only`]). Three things hold of each:
//! 1. with the bug and the fault some run fails;
//! 2. without the bug the same runs pass, so it is the bug that was found;
//! 3. with the bug and without the fault they pass too, so it is the fault that has shown it. Some bugs are met in any run: those say
//!    so by [`Case::needs_fault`].

use cairn_engine::canary::{Canary, put_in};
use cairn_engine::phase::Phase;
use cairn_runtime::sim::FaultKind;

use super::run::{Failure, run_caught};
use super::scenario::{End, Scenario};

/// What lets a bug do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A fault of the drives, the clocks or the power.
    Fault(FaultKind),
    /// A crash while this is under way.
    CutOff(Phase),
}

/// A bug, and what shows it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The fault.
    pub trigger: Trigger,
    /// The bug.
    pub canary: Canary,
    /// Whether nothing shows the bug without the fault.
    pub needs_fault: bool,
}

const fn fault(kind: FaultKind, canary: Canary) -> Case {
    Case {
        trigger: Trigger::Fault(kind),
        canary,
        needs_fault: true,
    }
}

const fn cut_off(phase: Phase, canary: Canary) -> Case {
    Case {
        trigger: Trigger::CutOff(phase),
        canary,
        needs_fault: true,
    }
}

/// All of them.
pub const CASES: &[Case] = &[
    fault(FaultKind::TornWrite, Canary::TrustBatches),
    fault(FaultKind::LostWrite, Canary::BelieveFirstMirror),
    fault(FaultKind::MisdirectedWrite, Canary::TrustBlocks),
    fault(FaultKind::CorruptWrite, Canary::TrustBlocks),
    fault(FaultKind::TornRead, Canary::TrustBatches),
    fault(FaultKind::LostRead, Canary::GiveUpOnBadBytes),
    fault(FaultKind::MisdirectedRead, Canary::TrustBlocks),
    fault(FaultKind::CorruptRead, Canary::TrustCopies),
    fault(FaultKind::Rot, Canary::RepairWrongWay),
    fault(FaultKind::ReadError, Canary::GiveUpOnReadError),
    fault(FaultKind::WriteError, Canary::ForgiveWriteError),
    fault(FaultKind::SyncError, Canary::ForgiveSyncError),
    fault(FaultKind::MetadataError, Canary::GiveUpOnMetadataError),
    fault(FaultKind::NoSpace, Canary::ForgiveNoSpace),
    fault(FaultKind::ShortWrite, Canary::ForgiveShortWrite),
    fault(FaultKind::Slow, Canary::AcknowledgeFirstMirror),
    fault(FaultKind::Stall, Canary::GiveUpOnStall),
    fault(FaultKind::Vanish, Canary::ForgiveVanished),
    fault(FaultKind::Stale, Canary::BelieveStale),
    fault(FaultKind::Crash, Canary::AcknowledgeBeforeDurable),
    fault(FaultKind::Kill, Canary::AnswerUnchangedAtOnce),
    fault(FaultKind::UnsyncedLost, Canary::ForgetSync),
    fault(FaultKind::DirectoryChangeLost, Canary::ForgetDirectorySync),
    fault(FaultKind::InFlightTorn, Canary::TrustBatches),
    fault(FaultKind::InFlightLost, Canary::AcknowledgeFirstMirror),
    Case {
        // A floor of nothing is seen at once, though it does no harm while clocks are right.
        needs_fault: false,
        ..fault(FaultKind::ClockJump, Canary::ForgetFloor)
    },
    cut_off(Phase::Flush, Canary::FlushedFirst),
    cut_off(Phase::Compaction, Canary::RemoveBeforeEdit),
    cut_off(Phase::ManifestChange, Canary::SplitEdits),
    Case {
        // Drives are lost either way.
        needs_fault: false,
        ..cut_off(Phase::Rebuild, Canary::PromiseBeforeCopied)
    },
    Case {
        // A node that is closed before it is through has two keys as well.
        needs_fault: false,
        ..cut_off(Phase::TableKey, Canary::ForgetOldTableKey)
    },
    cut_off(Phase::RootKey, Canary::TryFirstRootOnly),
    cut_off(Phase::Backup, Canary::CompleteFirst),
    Case {
        // What a flush makes of it is seen whether that is cut off or not.
        needs_fault: false,
        ..cut_off(Phase::Flush, Canary::StaleCachedItem)
    },
];

impl Case {
    /// The run of a seed, with the fault.
    #[must_use]
    pub fn scenario(&self, seed: u64) -> Scenario {
        let (kind, phase) = match self.trigger {
            Trigger::Fault(kind) => (kind, None),
            Trigger::CutOff(phase) => (FaultKind::Crash, Some(phase)),
        };
        let mut scenario = match phase {
            Some(Phase::Rebuild) => Scenario::fleet(seed),
            _ => Scenario::only(seed, Some(kind)),
        };
        let rounds = scenario.rounds.len();
        if phase == Some(Phase::Backup) || kind == FaultKind::CorruptRead {
            scenario.backups = (0..rounds)
                .map(|round| Some(10_000 * (1 + (seed + round as u64) % 6)))
                .collect();
        }
        if matches!(
            kind,
            FaultKind::TornRead | FaultKind::TornWrite | FaultKind::InFlightTorn
        ) {
            // Batches of more than one block.
            scenario.item_bytes = 16..=6_000;
        }
        if self.canary == Canary::StaleCachedItem {
            scenario.engine.item_cache_eighths = 4;
        }
        if matches!(phase, Some(Phase::TableKey | Phase::RootKey)) {
            scenario.encrypted = true;
            scenario.rekeys = phase == Some(Phase::TableKey);
        }
        if phase == Some(Phase::RootKey) {
            scenario.rounds = vec![End::Close; rounds];
            scenario.rotations = (0..rounds)
                .map(|round| (round + 1 < rounds).then(|| (seed * 37 + round as u64 * 101) % 400))
                .collect();
        }
        scenario
    }

    /// The same run without the fault.
    #[must_use]
    pub fn calm(&self, seed: u64) -> Scenario {
        let scenario = self.scenario(seed);
        let rounds = scenario.rounds.len();
        Scenario {
            rounds: vec![End::Close; rounds],
            rotations: scenario
                .rotations
                .iter()
                .map(|cut| cut.map(|_| u64::MAX))
                .collect(),
            clock_jumps: false,
            fault: Scenario::only(seed, None).fault,
            ..scenario
        }
    }

    /// How the bug shows itself in the run without the fault, if it does.
    #[must_use]
    pub fn find_calm(&self, seed: u64) -> Option<Failure> {
        let _bug = put_in(self.canary);
        run_caught(self.calm(seed)).err()
    }

    /// The first of the seeds that shows the bug, and how.
    #[must_use]
    pub fn find(&self, seeds: std::ops::Range<u64>) -> Option<Failure> {
        let _bug = put_in(self.canary);
        seeds
            .into_iter()
            .find_map(|seed| run_caught(self.scenario(seed)).err())
    }
}
