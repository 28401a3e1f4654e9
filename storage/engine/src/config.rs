//! Limits of one engine. Every queue, cache and buffer of this room is bounded by a field here.

use std::time::Duration;

/// Limits of one engine (one log). The defaults suit one shard with 1 GiB.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Budget of all memtables together, in bytes: active, and those being flushed.
    pub memtable_bytes: usize,
    /// Budget of the block cache, in bytes.
    pub cache_bytes: usize,
    /// Length of one log file, in bytes. A multiple of 4 KiB.
    pub log_file_bytes: u64,
    /// Log files that may exist at once; the tree that pins the oldest is flushed before this is reached.
    pub log_files_max: usize,
    /// Longest one write may be slowed down by back-pressure before it proceeds or is refused.
    pub write_wait_max: Duration,
    /// Largest step forward of the wall clock, between two readings, that commit timestamps follow. See
    /// `engine/timestamps.rs` for what happens beyond it.
    pub clock_step_max: Duration,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            memtable_bytes: 128 << 20,
            cache_bytes: 512 << 20,
            log_file_bytes: 64 << 20,
            log_files_max: 8,
            write_wait_max: Duration::from_secs(2),
            clock_step_max: Duration::from_secs(60),
        }
    }
}
