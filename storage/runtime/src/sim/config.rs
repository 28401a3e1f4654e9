//! What a simulated world is made of. The defaults are a fast, healthy one: every fault is asked for by name.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fault::FaultConfig;

/// A simulated world.
#[derive(Debug, Clone)]
pub struct Config {
    /// Nodes at the start; [`super::Simulation::add_node`] adds more.
    pub nodes: usize,
    /// Shards of each node.
    pub shards: usize,
    /// What one poll of a task costs, so that a loop that only yields still lets time pass.
    pub poll_ns: RangeInclusive<u64>,
    /// Every new drive.
    pub drive: DriveConfig,
    /// All connections.
    pub network: NetworkConfig,
    /// All clocks.
    pub clock: ClockConfig,
    /// Virtual time after which the simulation panics instead of running on.
    pub virtual_time_max: Duration,
    /// Whether misaligned transfers and bad names panic, as they should where correct code runs, or are refused
    /// with `InvalidInput` as the real drive does. Overlapping writes in flight always panic.
    pub misuse_panics: bool,
    /// How many of the last events are kept to be shown when a test fails.
    pub trace_tail: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            nodes: 1,
            shards: 1,
            poll_ns: 200..=2_000,
            drive: DriveConfig::default(),
            network: NetworkConfig::default(),
            clock: ClockConfig::default(),
            virtual_time_max: Duration::from_secs(24 * 3600),
            misuse_panics: true,
            trace_tail: 0,
        }
    }
}

/// A simulated drive. Latencies are drawn evenly from their range; one in a hundred is eight times as long.
#[derive(Debug, Clone)]
pub struct DriveConfig {
    /// Size of the file system.
    pub capacity_bytes: u64,
    /// A read.
    pub read_us: RangeInclusive<u64>,
    /// A write, durable or not.
    pub write_us: RangeInclusive<u64>,
    /// A sync of a file or of the directory.
    pub sync_us: RangeInclusive<u64>,
    /// Open, list, rename, link, remove, allocate.
    pub metadata_us: RangeInclusive<u64>,
    /// Faults by chance; see [`super::fault`].
    pub faults: FaultConfig,
}

impl Default for DriveConfig {
    fn default() -> DriveConfig {
        DriveConfig {
            capacity_bytes: 64 << 30,
            read_us: 60..=140,
            write_us: 15..=250,
            sync_us: 100..=600,
            metadata_us: 5..=100,
            faults: FaultConfig::default(),
        }
    }
}

/// The network between and within nodes.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// One way, within a node.
    pub loopback_us: RangeInclusive<u64>,
    /// One way, between nodes.
    pub latency_us: RangeInclusive<u64>,
    /// Segments that take `spike_ms` longer.
    pub spike_ppm: u32,
    /// How much longer.
    pub spike_ms: RangeInclusive<u64>,
    /// Segments and receives cut short at a random byte, so that receivers meet every partial frame.
    pub split_ppm: u32,
    /// Segments whose connection is reset instead.
    pub reset_ppm: u32,
    /// Bytes that a sender may have under way and unread; then it waits.
    pub window_bytes: usize,
    /// Connections that a listener holds before they are accepted.
    pub backlog: usize,
    /// How long a connect tries, and how long an established connection waits for a partition to heal.
    pub timeout: Duration,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            loopback_us: 5..=30,
            latency_us: 50..=300,
            spike_ppm: 0,
            spike_ms: 1..=200,
            split_ppm: 200_000,
            reset_ppm: 0,
            window_bytes: 256 << 10,
            backlog: 128,
            timeout: Duration::from_secs(15),
        }
    }
}

/// The clocks of the nodes.
#[derive(Debug, Clone)]
pub struct ClockConfig {
    /// Each node's wall clock is off by up to this, either way.
    pub skew_ms_max: u64,
    /// Each node's monotonic clock runs faster or slower by up to this.
    pub drift_ppm_max: u32,
    /// Readings of the wall clock at which it jumps by up to `jump_ms_max`, either way.
    pub jump_ppm: u32,
    /// How far it jumps.
    pub jump_ms_max: u64,
}

impl Default for ClockConfig {
    fn default() -> ClockConfig {
        ClockConfig {
            skew_ms_max: 0,
            drift_ppm_max: 0,
            jump_ppm: 0,
            jump_ms_max: 10_000,
        }
    }
}
