//! What a seed stands for: limits of the engine, size of the work, and which faults there are.

use std::ops::RangeInclusive;
use std::time::Duration;

use cairn_engine::config::{Canary, ScrubConfig};
use cairn_engine::{Compression, EngineConfig};
use cairn_runtime::sim::{ClockConfig, Config, DriveConfig, FaultConfig, Random};

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
    /// It vanishes after this many events of the first round, and comes back stale two rounds later.
    Vanishes(u64),
    /// Both drives are full for a while.
    Full,
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
}

const SMALL_ITEM: u64 = 16;

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
            fleet: None,
            pause_us_max: 3_000,
            engine,
            encrypted,
            rotations,
            rekeys: encrypted && random_storage.below(3) == 0,
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
            damage: Some(1 + random.below(4) as u32),
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

    /// The same run with a bug put in.
    #[must_use]
    pub fn with_canary(mut self, canary: Canary) -> Scenario {
        self.engine.canary = canary;
        self
    }

    /// The world it runs in.
    #[must_use]
    pub fn world(&self, trace_tail: usize) -> Config {
        let faults = if self.fault == MirrorFault::Timing {
            FaultConfig::timing()
        } else {
            FaultConfig::NONE
        };
        Config {
            trace_tail,
            drive: DriveConfig {
                capacity_bytes: 256 << 20,
                faults,
                ..DriveConfig::default()
            },
            clock: ClockConfig {
                skew_ms_max: 5_000,
                drift_ppm_max: 100,
                jump_ppm: 200,
                jump_ms_max: 30_000,
            },
            virtual_time_max: Duration::from_secs(4 * 3600),
            ..Config::default()
        }
    }
}
