//! What `cairn rebuild` tells an operator.

use std::path::PathBuf;

use cairn_engine::rebuild::{Progress, Step};
use cairn_engine::volume::VolumeStatus;

use crate::config::Size;

/// A line is written whenever this many percent more are done.
const PERCENT_STEP: u64 = 5;

/// What an operator is told at the end.
///
/// # Errors
/// In words, when one of `drives` is not in sync.
pub fn outcome(drives: &[PathBuf], status: &VolumeStatus) -> Result<String, String> {
    let in_sync = |path: &&PathBuf| {
        let drive = status
            .drives
            .iter()
            .find(|drive| drive.path.as_ref() == Some(path));
        drive.is_some_and(|drive| drive.in_sync)
    };
    match drives.iter().find(|path| !in_sync(path)) {
        Some(path) => Err(format!("{} is not in sync", path.display())),
        None => {
            let (count, epoch) = (drives.len(), status.in_sync.epoch);
            Ok(format!("all {count} drives are in sync, epoch {epoch}"))
        }
    }
}

/// Turns progress into few lines.
#[derive(Debug, Default)]
pub struct Teller {
    last: Option<(Step, u64)>,
}

impl Teller {
    /// A line, when there is something new to say.
    pub fn line(&mut self, progress: &Progress<'_>) -> Option<String> {
        let (done, total) = (progress.bytes_done, progress.bytes_total);
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
        let due = match self.last {
            // Back at the start: the next drive.
            Some((step, last)) if step == progress.step && percent >= last => {
                percent >= last + PERCENT_STEP || (percent == 100 && last < 100)
            }
            _ => true,
        };
        if !due {
            return None;
        }
        self.last = Some((progress.step, percent));
        Some(format!(
            "{}: {}: {} of {} ({percent}%)",
            progress.path.display(),
            progress.step,
            Size(done),
            Size(total)
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn progress_is_told_in_steps() {
        let mut teller = Teller::default();
        let mut told = 0;
        for step in [Step::Verify, Step::Copy, Step::Copy] {
            for bytes_done in 0..=1000 {
                let path = Path::new("/d");
                let bytes_total = 1000;
                told += usize::from(
                    teller
                        .line(&Progress {
                            path,
                            step,
                            bytes_done,
                            bytes_total,
                        })
                        .is_some(),
                );
            }
        }
        assert_eq!(told, 3 * 21);
        let empty = Progress {
            path: Path::new("/d"),
            step: Step::Verify,
            bytes_done: 0,
            bytes_total: 0,
        };
        assert_eq!(
            teller.line(&empty).as_deref(),
            Some("/d: verifying what the other drives have: 0B of 0B (100%)")
        );
    }
}
