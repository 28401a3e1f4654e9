//! What a seed stands for: limits of the engine, size of the work, and which faults there are.

use std::ops::RangeInclusive;
use std::time::Duration;

use cairn_engine::config::ScrubConfig;
use cairn_engine::{Compression, EngineConfig};
use cairn_runtime::sim::{ClockConfig, Config, DriveConfig, FaultConfig, FaultKind, Random};

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The host loses its power after this many simulated events.
    Crash(u64),
    /// The process is killed after this many simulated events.
    Kill(u64),
    /// The clients finish and the engine is closed.
    Close,
    /// The clients finish and the process goes away without closing.
    Leave,
}

/// What happens to one of the two mirrors; the other is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorFault {
    /// Nothing.
    None,
    /// It lies and rots, each way at so many parts per million.
    Silent(u32),
    /// Operations fail.
    Errors(u32),
    /// Both drives stall and are slow; nothing is wrong otherwise.
    Timing,
    /// As that, and they stall for up to seconds at so many parts per million of their operations.
    Stalls(u32),
    /// It stalls now and then, for up to six seconds each time: no read waits for it.
    OneStalls,
    /// It vanishes after this many events of the first round, and comes back stale.
    Vanishes(u64),
    /// Both drives are full for a while.
    Full,
    /// Faults of this kind alone, at so many parts per million of what can have them; those of time on both mirrors.
    Only(FaultKind, u32),
}

impl MirrorFault {
    /// Whether what the mirror holds may be wrong, or missing, though it never said so.
    #[must_use]
    pub fn is_silent(self) -> bool {
        use FaultKind::*;
        match self {
            MirrorFault::Silent(_) => true,
            MirrorFault::Only(kind, _) => matches!(
                kind,
                TornWrite
                    | LostWrite
                    | MisdirectedWrite
                    | CorruptWrite
                    | CorruptRead
                    | TornRead
                    | LostRead
                    | MisdirectedRead
                    | Rot
            ),
            _ => false,
        }
    }

    /// Whether the mirror may have to leave the set.
    #[must_use]
    pub fn is_loud(self) -> bool {
        use FaultKind::*;
        match self {
            MirrorFault::Errors(_) | MirrorFault::Vanishes(_) => true,
            MirrorFault::Only(kind, _) => matches!(
                kind,
                ReadError | WriteError | SyncError | MetadataError | NoSpace | ShortWrite | Vanish
            ),
            _ => false,
        }
    }

    /// Whether nothing is wrong but how long things take.
    #[must_use]
    pub fn is_of_time(self) -> bool {
        use FaultKind::{Slow, Stall};
        matches!(
            self,
            MirrorFault::Timing
                | MirrorFault::Stalls(_)
                | MirrorFault::OneStalls
                | MirrorFault::Only(Slow | Stall, _)
        )
    }

    /// Faults that both drives have from the beginning.
    #[must_use]
    pub fn everywhere(self) -> FaultConfig {
        match self {
            MirrorFault::Timing => FaultConfig::timing(),
            MirrorFault::Stalls(ppm) => FaultConfig {
                stall_ppm: ppm,
                stall_ms: 50..=10_000,
                ..FaultConfig::timing()
            },
            MirrorFault::Only(kind, ppm) if self.is_of_time() => FaultConfig {
                stall_ms: 1_000..=20_000,
                ..FaultConfig::only(kind, ppm)
            },
            _ => FaultConfig::NONE,
        }
    }
}

/// Drives that come and go ([`super::operator`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FleetPlan {
    /// Drives that there are first.
    pub drives: usize,
    /// Copies of each file.
    pub mirrors: usize,
    /// What is done to them in a round.
    pub actions: u64,
}

/// A run, drawn from its seed.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// How each round ends; the last always by closing.
    pub rounds: Vec<End>,
    /// Tasks that read and write at the same time.
    pub clients: usize,
    /// Operations of each client in a round.
    pub operations: u64,
    /// Partitions.
    pub partitions: u64,
    /// Keys of a partition.
    pub keys: u64,
    /// Sizes of items in bytes.
    pub item_bytes: RangeInclusive<u64>,
    /// Which mirror suffers, 0 or 1.
    pub victim: usize,
    /// What it suffers.
    pub fault: MirrorFault,
    /// Safety mode: places damaged, most of them on both mirrors, whenever the node is down. Partitions may then
    /// refuse to serve and nodes to start; what is answered must still be right.
    pub damage: Option<u32>,
    /// Safety mode: operations of both mirrors and of the state directory fail, at so many parts per million.
    pub fails: Option<u32>,
    /// Drives that come and go; if not, there are two that stay.
    pub fleet: Option<FleetPlan>,
    /// Longest pause of a client, in microseconds.
    pub pause_us_max: u64,
    /// Limits of the engine.
    pub engine: EngineConfig,
    /// Whether what is written is encrypted.
    pub encrypted: bool,
    /// After each round: another root key, with a crash after so many events if it is not through by then.
    pub rotations: Vec<Option<u64>>,
    /// Whether the tables get other keys in every round, while clients work.
    pub rekeys: bool,
    /// Rounds in which the engine is copied while clients work: after so many microseconds.
    pub backups: Vec<Option<u64>>,
    /// Rounds after which each mirror is looked at alone.
    pub looks: Vec<bool>,
    /// Whether a mirror that has vanished is back for the next round; else for the last.
    pub back_soon: bool,
    /// Whether wall clocks jump.
    pub clock_jumps: bool,
    /// Whether the moments are noted at which the engine could be cut off; see [`super::sweep`].
    pub notes_points: bool,
}

const SMALL_ITEM: u64 = 16;

/// Events of a round before any drive vanishes in it.
pub const VANISHES_AFTER: u64 = 2_000;

impl Scenario {
    /// The run that `seed` stands for.
    #[must_use]
    pub fn of(seed: u64) -> Scenario {
        let mut random = Random::new(seed ^ 0x5ce0_a210_0000_0000);
        let random = &mut random;
        let count = 1 + random.index(4);
        let mut rounds: Vec<End> = (0..count)
            .map(|_| match random.below(10) {
                0..5 => End::Crash(500 + random.below(20_000)),
                5..7 => End::Kill(200 + random.below(30_000)),
                7..9 => End::Close,
                _ => End::Leave,
            })
            .collect();
        rounds.push(End::Close);
        let fault = match random.below(20) {
            0..7 => MirrorFault::None,
            7..11 => MirrorFault::Silent([200, 2_000, 20_000][random.index(3)]),
            11..14 => MirrorFault::Errors([50, 500, 5_000][random.index(3)]),
            14..16 => MirrorFault::Timing,
            16..18 => MirrorFault::Vanishes(random.below(20_000)),
            _ => MirrorFault::Full,
        };
        // From a stream of its own as well.
        let fault = match Random::new(seed ^ 0x57a1_1500_0000_0000).below(8) {
            0 if fault == MirrorFault::None => MirrorFault::OneStalls,
            _ => fault,
        };
        let largest = [64, 400, 2_000, 6_000][random.index(4)];
        let memtable_bytes = [32 << 10, 64 << 10, 256 << 10][random.index(3)];
        let mut engine = EngineConfig {
            memtable_bytes,
            cache_bytes: [32 << 10, 256 << 10, 4 << 20][random.index(3)],
            log_file_bytes: [64 << 10, 128 << 10, 512 << 10][random.index(3)],
            log_files_max: 4 + random.index(6),
            write_wait_max: Duration::from_secs(5),
            item_bytes_max: 16 << 10,
            segment_bytes: [16 << 10, 64 << 10, 1 << 20][random.index(3)],
            ..EngineConfig::default()
        };
        engine.log.first_file_bytes = 64 << 10;
        // One pass after the other, while clients work.
        engine.scrub = ScrubConfig {
            bytes_per_second: [100 << 10, 10 << 20][random.index(2)],
            interval: Duration::from_millis(500),
            delay: Duration::from_millis(random.below(300)),
            ..ScrubConfig::default()
        };
        engine.log.batch_bytes = [8 << 10, 32 << 10][random.index(2)];
        engine.item_cache_eighths = [0, 2, 4, 7][Random::new(seed ^ 0x17e3_5000_0000_0000).index(4)];
        // From a stream of its own, so that what the seed stood for before stays as it was.
        let mut random_storage = Random::new(seed ^ 0x57a6_e000_0000_0000);
        engine.compression =
            [Compression::None, Compression::Lz4, Compression::Zstd][random_storage.index(3)];
        let encrypted = random_storage.below(2) == 0;
        // Not after the last round: what it leaves is looked at byte by byte.
        let rotations = (1..=rounds.len())
            .map(|round| {
                (round < rounds.len() && encrypted && random_storage.below(3) == 0)
                    .then(|| random_storage.below(600))
            })
            .collect();
        let rekeys = encrypted && random_storage.below(3) == 0;
        let mut random_rest = Random::new(seed ^ 0xbac0_0b00_0000_0000);
        let fault = match (fault, random_rest.below(6)) {
            // Each kind that a drive tells of, by itself and often.
            (MirrorFault::Errors(_), 0..3) => {
                let kinds = [
                    FaultKind::ReadError,
                    FaultKind::WriteError,
                    FaultKind::SyncError,
                    FaultKind::MetadataError,
                    FaultKind::NoSpace,
                    FaultKind::ShortWrite,
                    FaultKind::Vanish,
                ];
                let kind = kinds[random_rest.index(kinds.len())];
                MirrorFault::Only(kind, [300, 3_000, 20_000][random_rest.index(3)])
            }
            (MirrorFault::Timing, 0..2) => MirrorFault::Stalls(500),
            (MirrorFault::Timing, 2..4) => MirrorFault::Stalls(5_000),
            (fault, _) => fault,
        };
        let backups = (0..rounds.len())
            .map(|_| random_rest.one_in(3).then(|| random_rest.below(200_000)))
            .collect();
        let looks = (0..rounds.len()).map(|_| random_rest.one_in(3)).collect();
        Scenario {
            seed,
            rounds,
            clients: 1 + random.index(6),
            operations: 20 + random.below(120),
            partitions: 1 + random.below(4),
            keys: [3, 20, 200][random.index(3)],
            item_bytes: SMALL_ITEM..=largest,
            victim: random.index(2),
            fault,
            damage: None,
            fails: None,
            fleet: None,
            pause_us_max: 3_000,
            engine,
            encrypted,
            rotations,
            rekeys,
            backups,
            looks,
            back_soon: random_rest.one_in(2),
            clock_jumps: true,
            notes_points: false,
        }
    }

    /// The run that `seed` stands for in safety mode.
    #[must_use]
    pub fn damaged(seed: u64) -> Scenario {
        let mut random = Random::new(seed ^ 0xda3a_6ed0_0000_0000);
        let fault = match Scenario::of(seed).fault {
            MirrorFault::Full => MirrorFault::None,
            fault => fault,
        };
        Scenario {
            fault,
            damage: Some(random.below(5) as u32),
            fails: random.one_in(2).then(|| [20, 200, 2_000][random.index(3)]),
            ..Scenario::of(seed)
        }
    }

    /// The run that `seed` stands for when drives come and go.
    #[must_use]
    pub fn fleet(seed: u64) -> Scenario {
        let mut random = Random::new(seed ^ 0xf1ee_7000_0000_0000);
        let mirrors = [1, 2, 2, 2, 3][random.index(5)];
        let mut scenario = Scenario::of(seed);
        // Drives take time to come and go.
        for end in &mut scenario.rounds {
            if let End::Crash(events) | End::Kill(events) = end {
                *events *= 1 + random.below(4);
            }
        }
        // To look at what the last round has left, without one of its drives.
        scenario.rounds.push(End::Close);
        scenario.rotations.push(None);
        // Backups of a node whose drives come and go are not tried yet.
        scenario.backups = vec![None; scenario.rounds.len()];
        scenario.looks.push(false);
        Scenario {
            fault: MirrorFault::None,
            fleet: Some(FleetPlan {
                drives: (mirrors + random.index(3)).max(2),
                mirrors,
                actions: 1 + random.below(6),
            }),
            pause_us_max: 30_000,
            ..scenario
        }
    }

    /// A run whose one fault is of this kind, and happens often: for bugs that only it reveals. Kinds that are no matter of
    /// chance say how the rounds end; without any, nothing happens to the node.
    #[must_use]
    pub fn only(seed: u64, kind: Option<FaultKind>) -> Scenario {
        use FaultKind::*;
        let whole = Scenario::of(seed);
        let mut random = Random::new(seed ^ 0x0a11_0000_0000_0000);
        let end = |random: &mut Random| match kind {
            // Long enough to have written something to segments.
            Some(
                Crash | UnsyncedLost | DirectoryChangeLost | InFlightTorn | InFlightLost | SyncError | Vanish,
            ) => End::Crash(2_000 + random.below(10_000)),
            Some(Kill) => End::Kill(2_000 + random.below(10_000)),
            _ => End::Close,
        };
        let mut rounds: Vec<End> = (0..3).map(|_| end(&mut random)).collect();
        rounds.push(End::Close);
        let fault = match kind {
            Some(kind @ (Slow | Stall)) => MirrorFault::Only(kind, 10_000),
            Some(Vanish | Stale) => MirrorFault::Vanishes(random.below(2_000)),
            Some(kind @ (SyncError | MetadataError | TornRead | CorruptRead)) => {
                MirrorFault::Only(kind, 100_000)
            }
            Some(kind) if MirrorFault::Only(kind, 1).is_silent() || MirrorFault::Only(kind, 1).is_loud() => {
                MirrorFault::Only(kind, 20_000)
            }
            _ => MirrorFault::None,
        };
        match (kind, fault) {
            // Cut off before anybody else has met it.
            (Some(Vanish), MirrorFault::Vanishes(after)) => {
                rounds[0] = End::Crash(VANISHES_AFTER + after + random.below(100));
            }
            // Cut off before it has been made whole.
            (Some(Stale), _) => rounds[1] = End::Crash(200 + random.below(1_000)),
            _ => {}
        }
        let count = rounds.len();
        Scenario {
            rounds,
            fault,
            clients: 4,
            operations: 60,
            partitions: 1,
            keys: 40,
            item_bytes: SMALL_ITEM..=2_000,
            encrypted: false,
            rotations: vec![None; count],
            rekeys: false,
            backups: vec![None; count],
            looks: vec![true; count],
            back_soon: true,
            clock_jumps: kind == Some(ClockJump),
            ..whole.with_small_engine()
        }
    }

    /// So small that a few dozen writes flush and compact.
    #[must_use]
    pub fn with_small_engine(mut self) -> Scenario {
        self.engine.memtable_bytes = 32 << 10;
        self.engine.cache_bytes = 32 << 10;
        self.engine.item_cache_eighths = 0;
        self.engine.log_file_bytes = 64 << 10;
        self.engine.segment_bytes = 16 << 10;
        self.engine.log.batch_bytes = 8 << 10;
        self
    }

    /// The world it runs in.
    #[must_use]
    pub fn world(&self, trace_tail: usize) -> Config {
        Config {
            trace_tail,
            drive: DriveConfig {
                capacity_bytes: 256 << 20,
                faults: self.fault.everywhere(),
                ..DriveConfig::default()
            },
            clock: ClockConfig {
                skew_ms_max: 5_000,
                drift_ppm_max: 100,
                jump_ppm: if self.clock_jumps { 200 } else { 0 },
                jump_ms_max: 30_000,
            },
            virtual_time_max: Duration::from_secs(4 * 3600),
            ..Config::default()
        }
    }
}
