//! Limits of a log.

use std::time::Duration;

use cairn_runtime::BLOCK_BYTES;

use super::batch::{OVERHEAD_BYTES_MAX, record_bytes};

/// Limits of a log. Every value may differ between two starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Size of a log file. Rounded up to whole blocks.
    pub file_bytes: u64,
    /// Size of the very first file of a log, small so that the first start is quick.
    pub first_file_bytes: u64,
    /// Files in use at most; beyond it `append` answers [`super::LogError::Full`]. At least 3.
    pub files_max: usize,
    /// A batch stops growing here; what comes later waits for the next.
    pub batch_bytes: usize,
    /// Largest payload of a record. A record larger than `batch_bytes` gets a batch of its own.
    pub record_bytes_max: usize,
    /// Idle time after which a marker batch carries the acknowledged sequence.
    pub marker_delay: Duration,
    /// A mirror that has not finished a batch this long after another has leaves the in-sync set.
    pub lag_max: Duration,
    /// Recovery reads every mirror in full, not only one and the tail of the others.
    pub recover_all_mirrors: bool,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            file_bytes: 32 << 20,
            first_file_bytes: 4 << 20,
            files_max: 32,
            batch_bytes: 1 << 20,
            record_bytes_max: 1 << 20,
            marker_delay: Duration::from_millis(20),
            lag_max: Duration::from_secs(2),
            recover_all_mirrors: true,
        }
    }
}

/// Files a log can list in its anchor.
pub(super) const FILES_MAX: usize = 64;

impl LogConfig {
    /// Says what is wrong with the limits.
    ///
    /// # Errors
    /// The limit and its bounds, in words.
    pub fn validate(&self) -> Result<(), String> {
        let block = BLOCK_BYTES as u64;
        if self.files_max < 3 || self.files_max > FILES_MAX - 8 {
            return Err(format!(
                "log files must be 3 to {}, not {}",
                FILES_MAX - 8,
                self.files_max
            ));
        }
        let needed = self.largest_batch_bytes() as u64 + 2 * block;
        if self.file_bytes.min(self.first_file_bytes) < needed {
            return Err(format!(
                "a log file must hold the largest batch, {needed} bytes; it has {}",
                self.file_bytes.min(self.first_file_bytes)
            ));
        }
        if self.file_bytes.max(self.first_file_bytes) > 1 << 40 {
            return Err("a log file may have at most 1 TiB".to_owned());
        }
        Ok(())
    }
}

impl LogConfig {
    /// Bytes of the largest batch these limits allow, header and padding included.
    #[must_use]
    pub fn largest_batch_bytes(&self) -> usize {
        let alone = OVERHEAD_BYTES_MAX + record_bytes(self.record_bytes_max);
        self.batch_bytes.max(alone).next_multiple_of(BLOCK_BYTES)
    }
}
