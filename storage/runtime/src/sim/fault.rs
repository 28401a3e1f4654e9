//! # The fault model
//!
//! A drive is a set of files of 4096-byte blocks made of 512-byte sectors, and a directory. The simulator keeps
//! a *live* image (what a read sees) and a *durable* one (what a power loss leaves) of both.
//!
//! **At a power loss** ([`super::Simulation::crash`]):
//! - a write in flight is, independently of all others, applied, torn or lost. A torn write keeps some of its
//!   sectors: a prefix, whole blocks at random, or sectors at random. Sectors themselves are atomic.
//! - a completed write to a file opened `durable`, or followed by a completed `File::sync`, stays.
//! - any other completed write stays or is lost independently; of two to one block the newer may be lost and
//!   the older stay. A file's new length may be lost like a write.
//! - directory changes after the last completed `Drive::sync` survive as a prefix, or as an arbitrary subset.
//! - a killed process ([`super::Simulation::kill`]) loses no completed write; one in flight happens or not.
//!
//! **By chance or on demand**, while the drive works:
//!
//! | fault | what happens |
//! |---|---|
//! | read, write, sync, metadata error | `EIO`; a failed write is applied, torn or lost; a failed sync may drop what it should have synced for good |
//! | no space | `StorageFull` though there was room, on a write, an allocation or a creation; also whenever the capacity is really exceeded |
//! | short write | a first part is stored, then `WriteZero`: what the seam makes of a write that stops inside a block |
//! | torn write | acknowledged, but only some sectors are stored |
//! | lost write | acknowledged, nothing is stored |
//! | misdirected write | acknowledged, stored at another block of this or another file of the drive |
//! | corrupt write | acknowledged, stored with damage in one sector |
//! | corrupt read | the answer is damaged, the medium is not |
//! | torn read | some sectors of the answer are those of another place of the drive |
//! | lost read | acknowledged, nothing was read: the answer is zeros |
//! | misdirected read | the answer is another place's |
//! | unreadable | on demand only: reads of a block fail until it is written again |
//! | rot | a stored sector that is read is found damaged, now and ever after |
//! | slow | this operation takes 10 to 200 times as long |
//! | stall | every operation of the drive waits for up to seconds |
//! | vanish | every operation fails with `ENODEV` until the drive is attached again; open files stay dead |
//! | stale | the drive comes back with what it had when it vanished, or less ([`super::DriveControl::attach_stale`]) |
//!
//! Damage is one flipped bit, a zeroed sector or a sector of garbage.
//!
//! A fault of an operation is *injected* when the operation is submitted, and *hits* when it completes with it: a crash, or the
//! drive's end, may come first. [`FaultCounters`] has both.
//!
//! **Not modelled**: sectors that change while being written, two drives failing together by a common cause,
//! silent truncation of files, and damage to the directory itself.
//!
//! **Liveness**: chance never damages a drive that is protected ([`super::Simulation::protect_one_of`]); it
//! may still be slow or stall.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::random::Random;

/// Chances of faults, in parts per million of the operations that can have them. None by default.
#[derive(Debug, Clone)]
pub struct FaultConfig {
    /// `EIO` on a read.
    pub read_error_ppm: u32,
    /// `EIO` on a write.
    pub write_error_ppm: u32,
    /// `EIO` on a sync of a file or the directory.
    pub sync_error_ppm: u32,
    /// `EIO` on open, list, rename, link, remove and allocate.
    pub metadata_error_ppm: u32,
    /// `StorageFull` on a write, an allocation or a creation.
    pub no_space_ppm: u32,
    /// Writes of which a first part is stored, and that fail.
    pub short_write_ppm: u32,
    /// Writes acknowledged and stored in part.
    pub torn_write_ppm: u32,
    /// Writes acknowledged and not stored.
    pub lost_write_ppm: u32,
    /// Writes stored elsewhere.
    pub misdirected_write_ppm: u32,
    /// Writes stored with damage.
    pub corrupt_write_ppm: u32,
    /// Reads answered with damage.
    pub corrupt_read_ppm: u32,
    /// Reads answered in part from elsewhere.
    pub torn_read_ppm: u32,
    /// Reads answered with zeros.
    pub lost_read_ppm: u32,
    /// Reads answered from elsewhere.
    pub misdirected_read_ppm: u32,
    /// Reads that find the medium damaged.
    pub rot_ppm: u32,
    /// Operations 10 to 200 times as slow.
    pub slow_ppm: u32,
    /// Operations at which the whole drive stalls for `stall_ms`.
    pub stall_ppm: u32,
    /// How long it stalls.
    pub stall_ms: RangeInclusive<u64>,
    /// Operations at which the drive vanishes.
    pub vanish_ppm: u32,
}

impl Default for FaultConfig {
    fn default() -> FaultConfig {
        FaultConfig::NONE
    }
}

impl FaultConfig {
    /// A healthy drive.
    pub const NONE: FaultConfig = FaultConfig {
        read_error_ppm: 0,
        write_error_ppm: 0,
        sync_error_ppm: 0,
        metadata_error_ppm: 0,
        no_space_ppm: 0,
        short_write_ppm: 0,
        torn_write_ppm: 0,
        lost_write_ppm: 0,
        misdirected_write_ppm: 0,
        corrupt_write_ppm: 0,
        corrupt_read_ppm: 0,
        torn_read_ppm: 0,
        lost_read_ppm: 0,
        misdirected_read_ppm: 0,
        rot_ppm: 0,
        slow_ppm: 0,
        stall_ppm: 0,
        stall_ms: 50..=4_000,
        vanish_ppm: 0,
    };

    /// Correct but unpredictable: slow operations and stalls.
    #[must_use]
    pub fn timing() -> FaultConfig {
        FaultConfig {
            slow_ppm: 2_000,
            stall_ppm: 50,
            ..FaultConfig::NONE
        }
    }

    /// A drive that lies and rots: every silent fault at `ppm`, and [`FaultConfig::timing`].
    #[must_use]
    pub fn silent(ppm: u32) -> FaultConfig {
        FaultConfig {
            torn_write_ppm: ppm,
            lost_write_ppm: ppm,
            misdirected_write_ppm: ppm,
            corrupt_write_ppm: ppm,
            corrupt_read_ppm: ppm,
            torn_read_ppm: ppm,
            lost_read_ppm: ppm,
            misdirected_read_ppm: ppm,
            rot_ppm: ppm,
            ..FaultConfig::timing()
        }
    }

    /// A dying drive: every error at `ppm`, vanishing at a tenth of it, and [`FaultConfig::timing`].
    #[must_use]
    pub fn errors(ppm: u32) -> FaultConfig {
        FaultConfig {
            read_error_ppm: ppm,
            write_error_ppm: ppm,
            sync_error_ppm: ppm,
            metadata_error_ppm: ppm,
            no_space_ppm: ppm,
            short_write_ppm: ppm,
            vanish_ppm: ppm / 10,
            ..FaultConfig::timing()
        }
    }

    /// Faults of one kind alone, at `ppm`; none for a kind that is no matter of chance.
    #[must_use]
    pub fn only(kind: FaultKind, ppm: u32) -> FaultConfig {
        let mut config = FaultConfig::NONE;
        let chance = match kind {
            FaultKind::ReadError => &mut config.read_error_ppm,
            FaultKind::WriteError => &mut config.write_error_ppm,
            FaultKind::SyncError => &mut config.sync_error_ppm,
            FaultKind::MetadataError => &mut config.metadata_error_ppm,
            FaultKind::NoSpace => &mut config.no_space_ppm,
            FaultKind::ShortWrite => &mut config.short_write_ppm,
            FaultKind::TornWrite => &mut config.torn_write_ppm,
            FaultKind::LostWrite => &mut config.lost_write_ppm,
            FaultKind::MisdirectedWrite => &mut config.misdirected_write_ppm,
            FaultKind::CorruptWrite => &mut config.corrupt_write_ppm,
            FaultKind::CorruptRead => &mut config.corrupt_read_ppm,
            FaultKind::TornRead => &mut config.torn_read_ppm,
            FaultKind::LostRead => &mut config.lost_read_ppm,
            FaultKind::MisdirectedRead => &mut config.misdirected_read_ppm,
            FaultKind::Rot => &mut config.rot_ppm,
            FaultKind::Slow => &mut config.slow_ppm,
            FaultKind::Stall => &mut config.stall_ppm,
            FaultKind::Vanish => &mut config.vanish_ppm,
            _ => return config,
        };
        *chance = ppm;
        config
    }

    /// [`FaultConfig::silent`] and [`FaultConfig::errors`] together.
    #[must_use]
    pub fn all(ppm: u32) -> FaultConfig {
        let errors = FaultConfig::errors(ppm);
        FaultConfig {
            read_error_ppm: errors.read_error_ppm,
            write_error_ppm: errors.write_error_ppm,
            sync_error_ppm: errors.sync_error_ppm,
            metadata_error_ppm: errors.metadata_error_ppm,
            no_space_ppm: errors.no_space_ppm,
            short_write_ppm: errors.short_write_ppm,
            vanish_ppm: errors.vanish_ppm,
            ..FaultConfig::silent(ppm)
        }
    }
}

/// Operations of a drive, for directed faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are those of the seam")]
pub enum Operation {
    Open,
    List,
    Rename,
    Link,
    Remove,
    SyncDirectory,
    Read,
    Write,
    Allocate,
    SyncFile,
}

/// What a directed fault does to an operation. One that makes no sense for the operation is a plain error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `EIO`.
    Error,
    /// `StorageFull`.
    NoSpace,
    /// The process has no descriptor or no memory left: `EMFILE` or `ENOMEM`. On demand only.
    Exhausted,
    /// Write: a first part is stored, then `WriteZero`.
    Short,
    /// Write: stored in part, acknowledged. Read: answered in part from elsewhere.
    Torn,
    /// Write: not stored, acknowledged. Read: answered with zeros.
    Lost,
    /// Write: stored elsewhere, acknowledged. Read: answered from elsewhere.
    Misdirected,
    /// Write: stored with damage. Read: answered with damage.
    Corrupt,
    /// Read: the medium is damaged.
    Rot,
    /// Takes this much longer.
    Slow(Duration),
    /// The whole drive waits for this long.
    Stall(Duration),
    /// The drive is gone.
    Vanish,
}

/// A directed fault: hits `count` operations after letting `skip` pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Which operations.
    pub operation: Operation,
    /// Only those on files opened under, or naming, this name.
    pub file: Option<String>,
    /// How many to let pass.
    pub skip: u32,
    /// How many to hit.
    pub count: u32,
    /// What happens to them.
    pub fault: Fault,
}

/// Kinds of faults that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the module documentation describes each")]
pub enum FaultKind {
    ReadError,
    WriteError,
    SyncError,
    MetadataError,
    NoSpace,
    ShortWrite,
    TornWrite,
    LostWrite,
    MisdirectedWrite,
    CorruptWrite,
    CorruptRead,
    TornRead,
    LostRead,
    MisdirectedRead,
    Rot,
    Slow,
    Stall,
    Vanish,
    Stale,
    Edited,
    Crash,
    Kill,
    InFlightApplied,
    InFlightTorn,
    InFlightLost,
    UnsyncedLost,
    DirectoryChangeLost,
    ConnectionReset,
    Partition,
    DelayedSegment,
    ClockJump,
}

impl FaultKind {
    /// All kinds, in order.
    pub const ALL: [FaultKind; 31] = {
        use FaultKind::*;
        [
            ReadError,
            WriteError,
            SyncError,
            MetadataError,
            NoSpace,
            ShortWrite,
            TornWrite,
            LostWrite,
            MisdirectedWrite,
            CorruptWrite,
            CorruptRead,
            TornRead,
            LostRead,
            MisdirectedRead,
            Rot,
            Slow,
            Stall,
            Vanish,
            Stale,
            Edited,
            Crash,
            Kill,
            InFlightApplied,
            InFlightTorn,
            InFlightLost,
            UnsyncedLost,
            DirectoryChangeLost,
            ConnectionReset,
            Partition,
            DelayedSegment,
            ClockJump,
        ]
    };
}

/// How often each kind of fault happened.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounters {
    injected: [u64; FaultKind::ALL.len()],
    hit: [u64; FaultKind::ALL.len()],
}

impl FaultCounters {
    /// How often `kind` happened.
    #[must_use]
    pub fn get(&self, kind: FaultKind) -> u64 {
        self.hit[kind as usize]
    }

    /// How often `kind` was injected: what it was to hit may have been cut off before.
    #[must_use]
    pub fn injected(&self, kind: FaultKind) -> u64 {
        self.injected[kind as usize]
    }

    /// Kinds that happened, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64)> + '_ {
        FaultKind::ALL
            .into_iter()
            .map(|kind| (kind, self.get(kind)))
            .filter(|(_, count)| *count > 0)
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &FaultCounters) {
        let mine = self.injected.iter_mut().chain(&mut self.hit);
        for (count, more) in mine.zip(other.injected.into_iter().chain(other.hit)) {
            *count += more;
        }
    }

    /// A fault that is chosen and happens at once.
    pub(super) fn count(&mut self, kind: FaultKind) {
        self.inject(kind);
        self.hit(kind);
    }

    /// A fault is chosen for an operation.
    pub(super) fn inject(&mut self, kind: FaultKind) {
        self.injected[kind as usize] += 1;
    }

    /// A fault that was chosen happens.
    pub(super) fn hit(&mut self, kind: FaultKind) {
        self.hit[kind as usize] += 1;
    }
}

impl fmt::Debug for FaultCounters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl Fault {
    /// As what it is counted when it is injected into such an operation; none for what is counted elsewhere or not at all.
    pub(super) fn kind(self, operation: Operation) -> Option<FaultKind> {
        let kind = match (self, operation) {
            (Fault::Exhausted | Fault::Slow(_) | Fault::Stall(_) | Fault::Vanish, _) => return None,
            (Fault::Corrupt, Operation::Read) => FaultKind::CorruptRead,
            (Fault::Torn, Operation::Read) => FaultKind::TornRead,
            (Fault::Lost, Operation::Read) => FaultKind::LostRead,
            (Fault::Misdirected, Operation::Read) => FaultKind::MisdirectedRead,
            (Fault::Rot, Operation::Read) => FaultKind::Rot,
            (Fault::Error | Fault::NoSpace | Fault::Short, Operation::Read) => FaultKind::ReadError,
            (Fault::Error, Operation::Write) => FaultKind::WriteError,
            (Fault::NoSpace, _) => FaultKind::NoSpace,
            (Fault::Short, Operation::Write) => FaultKind::ShortWrite,
            (Fault::Torn, Operation::Write) => FaultKind::TornWrite,
            (Fault::Lost, Operation::Write) => FaultKind::LostWrite,
            (Fault::Misdirected, Operation::Write) => FaultKind::MisdirectedWrite,
            (Fault::Corrupt | Fault::Rot, Operation::Write) => FaultKind::CorruptWrite,
            (_, Operation::SyncFile | Operation::SyncDirectory) => FaultKind::SyncError,
            _ => FaultKind::MetadataError,
        };
        Some(kind)
    }
}

/// Decides which fault, if any, hits an operation.
pub(super) struct Injector {
    pub(super) config: FaultConfig,
    /// Chance may not damage this drive.
    pub(super) protected: bool,
    pub(super) directed: VecDeque<Injection>,
}

impl Injector {
    pub(super) fn new(config: FaultConfig) -> Injector {
        Injector {
            config,
            protected: false,
            directed: VecDeque::new(),
        }
    }

    /// `creates`: the operation is an open that makes a file.
    pub(super) fn decide(
        &mut self,
        operation: Operation,
        name: &str,
        creates: bool,
        random: &mut Random,
    ) -> Option<Fault> {
        if !self.directed.is_empty()
            && let Some(fault) = self.directed_fault(operation, name)
        {
            return Some(fault);
        }
        self.chance_fault(operation, creates, random)
    }

    fn directed_fault(&mut self, operation: Operation, name: &str) -> Option<Fault> {
        let matching = |injection: &Injection| {
            injection.operation == operation && injection.file.as_deref().is_none_or(|file| file == name)
        };
        for place in 0..self.directed.len() {
            let injection = &mut self.directed[place];
            if !matching(injection) {
                continue;
            }
            if injection.skip > 0 {
                injection.skip -= 1;
                continue;
            }
            let fault = injection.fault;
            injection.count = injection.count.saturating_sub(1);
            if injection.count == 0 {
                self.directed.remove(place);
            }
            return Some(fault);
        }
        None
    }

    fn chance_fault(&mut self, operation: Operation, creates: bool, random: &mut Random) -> Option<Fault> {
        let config = &self.config;
        if random.chance_ppm(config.slow_ppm) {
            return Some(Fault::Slow(Duration::from_micros(
                random.within(&(1_000..=20_000)),
            )));
        }
        if random.chance_ppm(config.stall_ppm) {
            return Some(Fault::Stall(Duration::from_millis(
                random.within(&config.stall_ms),
            )));
        }
        if self.protected {
            return None;
        }
        if random.chance_ppm(config.vanish_ppm) {
            return Some(Fault::Vanish);
        }
        let chances: &[(u32, Fault)] = match operation {
            Operation::Read => &[
                (config.read_error_ppm, Fault::Error),
                (config.corrupt_read_ppm, Fault::Corrupt),
                (config.torn_read_ppm, Fault::Torn),
                (config.lost_read_ppm, Fault::Lost),
                (config.misdirected_read_ppm, Fault::Misdirected),
                (config.rot_ppm, Fault::Rot),
            ],
            Operation::Write => &[
                (config.write_error_ppm, Fault::Error),
                (config.no_space_ppm, Fault::NoSpace),
                (config.short_write_ppm, Fault::Short),
                (config.torn_write_ppm, Fault::Torn),
                (config.lost_write_ppm, Fault::Lost),
                (config.misdirected_write_ppm, Fault::Misdirected),
                (config.corrupt_write_ppm, Fault::Corrupt),
            ],
            Operation::SyncFile | Operation::SyncDirectory => &[(config.sync_error_ppm, Fault::Error)],
            Operation::Open if creates => &[
                (config.metadata_error_ppm, Fault::Error),
                (config.no_space_ppm, Fault::NoSpace),
            ],
            Operation::Allocate => &[
                (config.metadata_error_ppm, Fault::Error),
                (config.no_space_ppm, Fault::NoSpace),
            ],
            Operation::Open | Operation::List | Operation::Rename | Operation::Link | Operation::Remove => {
                &[(config.metadata_error_ppm, Fault::Error)]
            }
        };
        chances
            .iter()
            .find(|(ppm, _)| random.chance_ppm(*ppm))
            .map(|(_, fault)| *fault)
    }
}
