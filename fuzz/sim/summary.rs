//! What runs came to, in numbers: work, faults, and what was cut off where. The same seeds give the same numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cairn_engine::Engine;
use cairn_engine::phase::{self, Phase};
use cairn_runtime::sim::{FaultCounters, FaultKind, Met, SimRuntime, Sites};

/// A run that went well, or several.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs.
    pub seeds: u64,
    /// Hash of everything that happened.
    pub trace: u64,
    /// Simulated events.
    pub events: u64,
    /// Simulated time.
    pub elapsed: Duration,
    /// Answers that the model allowed.
    pub answered: u64,
    /// Writes refused for back-pressure or space.
    pub refused: u64,
    /// Faults that happened.
    pub faults: FaultCounters,
    /// Where space was refused, and what was in flight when the power failed.
    pub sites: Sites,
    /// Crashes and kills by what was under way; counted in debug builds.
    pub cut_off: BTreeMap<Phase, u64>,
    /// Flushes, compactions, manifest snapshots and log files opened, over all rounds that ended by themselves.
    pub flushes: u64,
    /// Compactions.
    pub compactions: u64,
    /// Manifest snapshots.
    pub snapshots: u64,
    /// Log files opened.
    pub log_files: u64,
    /// Passes of the scrub.
    pub scrubs: u64,
    /// Log batches and segment places repaired from the other mirror.
    pub repairs: u64,
    /// Root keys that have taken the place of another, and rotations that were cut off.
    pub rotations: u64,
    /// Rotations that were cut off by a crash.
    pub rotations_cut_off: u64,
    /// Backups that were opened and held what they had to.
    pub backups: u64,
    /// Backups that were cut off and are refused.
    pub backups_cut_off: u64,
    /// Backups that were given up for what else went on.
    pub backups_refused: u64,
    /// Mirrors that were opened without the other and held everything.
    pub alone: u64,
    /// Mirrors that were out of sync and not believed.
    pub stale_refused: u64,
    /// Pairs of key and nonce that were used, each for one content; counted in debug builds.
    pub sealed: u64,
    /// Drives lost, where they come and go.
    pub drives_lost: u64,
    /// Drives added, rebuilt and removed.
    pub drive_operations: u64,
    /// Segments copied to other drives while serving.
    pub remirrored: u64,
    /// Safety mode: starts that were refused.
    pub starts_refused: u64,
    /// Safety mode: partitions that would not serve.
    pub partitions_refused: u64,
    /// Moments at which work of a kind was under way: round, and events since it began. Where a scenario asks for them.
    pub points: BTreeMap<Phase, Vec<(usize, u64)>>,
}

impl Summary {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Summary) {
        self.seeds += other.seeds;
        self.trace ^= other.trace.rotate_left(self.events as u32 % 64);
        self.events += other.events;
        self.elapsed += other.elapsed;
        self.answered += other.answered;
        self.refused += other.refused;
        self.faults.merge(&other.faults);
        self.sites.merge(&other.sites);
        for (phase, count) in &other.cut_off {
            *self.cut_off.entry(*phase).or_default() += count;
        }
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.snapshots += other.snapshots;
        self.scrubs += other.scrubs;
        self.log_files += other.log_files;
        self.repairs += other.repairs;
        self.rotations += other.rotations;
        self.rotations_cut_off += other.rotations_cut_off;
        self.backups += other.backups;
        self.backups_cut_off += other.backups_cut_off;
        self.backups_refused += other.backups_refused;
        self.alone += other.alone;
        self.stale_refused += other.stale_refused;
        self.sealed += other.sealed;
        self.drives_lost += other.drives_lost;
        self.drive_operations += other.drive_operations;
        self.remirrored += other.remirrored;
        self.starts_refused += other.starts_refused;
        self.partitions_refused += other.partitions_refused;
    }

    /// Adds what an engine has done in a round.
    pub fn take_in(&mut self, engine: &Engine<SimRuntime>) {
        let stats = engine.stats();
        self.flushes += stats.flushes;
        self.compactions += stats.compactions;
        self.snapshots += stats.snapshots;
        self.scrubs += stats.scrubs;
        self.remirrored += stats.remirrored;
        self.log_files += stats.log.files_opened;
        self.repairs += engine.recovery().repaired + stats.segments.repairs;
    }

    /// The node is about to be cut off.
    pub fn cut_off(&mut self) {
        for phase in phase::running() {
            *self.cut_off.entry(phase).or_default() += 1;
        }
    }

    /// Notes what is under way after `events` of a round.
    pub fn note_points(&mut self, round: usize, events: u64) {
        for phase in phase::running() {
            self.points.entry(phase).or_default().push((round, events));
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.elapsed.as_secs_f64() / 3600.0;
        writeln!(
            formatter,
            "{} seeds passed: {hours:.2} simulated hours, {} events, {} operations answered, {} refused; trace {:016x}",
            self.seeds, self.events, self.answered, self.refused, self.trace
        )?;
        writeln!(formatter, "\n{:<20} {:>10} {:>10}", "fault", "injected", "hit")?;
        for kind in FaultKind::ALL {
            let (injected, hit) = (self.faults.injected(kind), self.faults.get(kind));
            if injected > 0 {
                writeln!(formatter, "{:<20} {injected:>10} {hit:>10}", format!("{kind:?}"))?;
            }
        }
        writeln!(formatter, "\ncut off by a crash or kill while under way:")?;
        for (phase, count) in &self.cut_off {
            writeln!(formatter, "{:<20} {count:>10}", format!("{phase:?}"))?;
        }
        for (met, what) in [
            (Met::NoSpace, "refused for want of space"),
            (Met::PowerLoss, "in flight when the power failed"),
        ] {
            writeln!(formatter, "\n{what}:")?;
            for (operation, class, count) in self.sites.of(met) {
                writeln!(formatter, "{:<32} {count:>10}", format!("{operation:?} {class}"))?;
            }
        }
        writeln!(formatter, "\nwork:")?;
        let work = [
            ("flushes", self.flushes),
            ("compactions", self.compactions),
            ("manifest snapshots", self.snapshots),
            ("log files", self.log_files),
            ("scrubs", self.scrubs),
            ("repairs", self.repairs),
            ("root key rotations", self.rotations),
            ("rotations cut off", self.rotations_cut_off),
            ("backups", self.backups),
            ("backups cut off", self.backups_cut_off),
            ("backups refused", self.backups_refused),
            ("mirrors alone", self.alone),
            ("stale mirrors", self.stale_refused),
            ("nonces", self.sealed),
            ("drives lost", self.drives_lost),
            ("drive operations", self.drive_operations),
            ("segments remirrored", self.remirrored),
            ("starts refused", self.starts_refused),
            ("partitions refused", self.partitions_refused),
        ];
        for (what, count) in work {
            writeln!(formatter, "{what:<20} {count:>10}")?;
        }
        Ok(())
    }
}
