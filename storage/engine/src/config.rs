//! Limits of one engine. Every queue, cache and buffer of this room is bounded by a field here or in
//! [`LogConfig`].

use std::time::Duration;

use crate::log::LogConfig;
use crate::mutation::{ITEM_ARCHIVE_BYTES_MAX, KEY_BYTES_MAX};
use crate::tree::{CompactionConfig, Compression, TreeConfig};

/// Segment files that an engine keeps open: 8 GiB of data in two mirrors of 32 MiB each.
pub const OPEN_FILES_MAX: usize = 512;

/// How the segments are verified in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubConfig {
    /// Bytes read in a second, on all mirrors together.
    pub bytes_per_second: u64,
    /// The same for a pass that an operator asked for.
    pub bytes_per_second_asked: u64,
    /// From the beginning of one pass to that of the next, at least.
    pub interval: Duration,
    /// How long a process leaves the drives alone after its start.
    pub delay: Duration,
}

impl Default for ScrubConfig {
    /// At 8 MiB/s, under a hundredth of what one NVMe drive reads, 300 GB in two mirrors take a day.
    fn default() -> ScrubConfig {
        ScrubConfig {
            bytes_per_second: 8 << 20,
            bytes_per_second_asked: 256 << 20,
            interval: Duration::from_secs(24 * 3600),
            delay: Duration::from_secs(60),
        }
    }
}

/// Limits of one engine (one log). The defaults suit one shard with 1 GiB.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Budget of all memtables together, in bytes: active, and those being flushed.
    pub memtable_bytes: usize,
    /// Budget of the caches of blocks and items together with filters and index tops, in bytes.
    pub cache_bytes: usize,
    /// Eighths of it that the cache of items has: at most 7, as the index is in the other; 0 for none.
    pub item_cache_eighths: u64,
    /// Length of one log file, in bytes. A multiple of 4 KiB.
    pub log_file_bytes: u64,
    /// Log files that may exist at once; from half of it, the tree that pins the oldest is flushed.
    pub log_files_max: usize,
    /// Longest one write may be held back by back-pressure before it is refused.
    pub write_wait_max: Duration,
    /// Largest step forward of the wall clock, between two readings, that commit timestamps follow. Beyond it
    /// they follow monotonic time from the last reading believed, until the next restart.
    pub clock_step_max: Duration,
    /// Longest archived item, in bytes.
    pub item_bytes_max: usize,
    /// Segment files open at once, each mirror's counted.
    pub open_files_max: usize,
    /// Size at which a segment file is closed and the next begun, in bytes.
    pub segment_bytes: u64,
    /// What new segments are packed with.
    pub compression: Compression,
    /// Bytes of each drive that puts of items leave free, so that deletes and compactions can run; at most an eighth of
    /// the drive.
    pub reserve_bytes: u64,
    /// How the segments are verified in the background.
    pub scrub: ScrubConfig,
    /// Other limits of the log; its sizes above win.
    pub log: LogConfig,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            memtable_bytes: 128 << 20,
            cache_bytes: 512 << 20,
            item_cache_eighths: 4,
            log_file_bytes: 32 << 20,
            log_files_max: 24,
            write_wait_max: Duration::from_secs(2),
            clock_step_max: Duration::from_secs(60),
            item_bytes_max: ITEM_ARCHIVE_BYTES_MAX,
            open_files_max: OPEN_FILES_MAX,
            segment_bytes: 32 << 20,
            compression: Compression::default(),
            reserve_bytes: 1 << 30,
            scrub: ScrubConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl EngineConfig {
    /// The trees' limits.
    pub(crate) fn tree(&self) -> TreeConfig {
        let default = CompactionConfig::default();
        let compaction = CompactionConfig {
            segment_bytes: self.segment_bytes,
            level1_bytes_min: default.level1_bytes_min.min(self.segment_bytes.saturating_mul(2)),
            compression: self.compression,
            ..default
        };
        TreeConfig {
            cache_bytes: self.cache_bytes as u64,
            item_cache_eighths: self.item_cache_eighths,
            open_files_max: self.open_files_max,
            compaction,
        }
    }

    /// The log's limits.
    pub(crate) fn log(&self) -> LogConfig {
        // A snapshot restates a partition in one record, with two keys for each of its segments: an eighth of 32 MiB has
        // room for some 15,000 segments with usual keys and 250 with the longest.
        let restated_bytes_max = usize::try_from(self.log_file_bytes / 8).unwrap_or(usize::MAX);
        let record_bytes_max = (self.item_bytes_max + KEY_BYTES_MAX + 4096).max(restated_bytes_max);
        let config = LogConfig {
            file_bytes: self.log_file_bytes,
            first_file_bytes: self.log.first_file_bytes.min(self.log_file_bytes),
            files_max: self.log_files_max,
            record_bytes_max,
            ..self.log
        };
        let least = config.largest_batch_bytes() as u64 + 4 * 4096;
        LogConfig {
            file_bytes: config.file_bytes.max(least),
            first_file_bytes: config.first_file_bytes.max(least),
            ..config
        }
    }
}
