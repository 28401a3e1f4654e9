//! The drives as an operator sees them: what `GET /drives` of the admin address answers, and what `cairn drives` reads.
//!
//! One JSON object. Numbers are integers; bytes, microseconds and milliseconds since 1970 as their names say.

pub mod client;

use std::fmt::Write;
use std::path::PathBuf;

use cairn_engine::volume::{
    DriveStatus, Operation, OperationState, OperationStatus, VolumeHandle, VolumeStatus,
};
use serde::{Deserialize, Serialize};

use crate::calendar::Utc;
use crate::config::Size;

/// A node's drives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drives {
    /// The node's id.
    pub node: String,
    /// Version of the set of drives in sync.
    pub epoch: u64,
    /// Copies of every byte, as configured.
    pub mirrors: u64,
    /// The last scrub asked for.
    pub scrub_requested: u64,
    /// By place in the node's list.
    pub drives: Vec<DriveLine>,
    /// What the engines say.
    pub logs: Vec<LogLine>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// In-sync drives that every file is on at least.
    pub guarantee: u64,
    /// The last operation.
    pub operation: Option<OperationLine>,
}

/// The last thing that was done about a drive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationLine {
    /// Counts the operations since the start.
    pub number: u64,
    /// Such as `adding /mnt/c`.
    pub what: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// What is being done, or how it ended.
    pub said: String,
    /// Bytes done in this step.
    pub bytes_done: u64,
    /// Bytes to do in it.
    pub bytes_total: u64,
}

/// One drive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveLine {
    /// Place in the node's list.
    pub place: u64,
    /// Directory; empty when it is not known, as the drive was not there at the start.
    pub path: String,
    /// Such as `in sync`.
    pub state: String,
    /// Why it is not in sync.
    pub why: String,
    /// Size of its file system.
    pub total_bytes: u64,
    /// What may still be written there.
    pub free_bytes: u64,
    /// Reads of segments since the start.
    pub reads: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Reads whose content did not verify.
    pub mismatches: u64,
    /// Places rewritten from another mirror.
    pub repairs: u64,
    /// What a read of it is expected to take, in microseconds; 0 before the first.
    pub read_us: u64,
}

/// The scrub of one log's segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// The log.
    pub log: u64,
    /// When the last complete pass began; 0: never.
    pub verified_ms: u64,
    /// Whether a pass is under way.
    pub running: bool,
    /// Bytes it is through with.
    pub bytes_done: u64,
    /// Bytes it has to look at.
    pub bytes_total: u64,
    /// Places that did not verify on some mirror.
    pub damaged: u64,
    /// Those that no mirror had.
    pub lost: u64,
    /// The last request answered.
    pub answered: u64,
    /// The last request for other keys that was taken up.
    pub rekey_answered: u64,
    /// Bytes that are still sealed with an older key of their table.
    pub old_key_bytes: u64,
}

impl Drives {
    /// What the keeper says.
    #[must_use]
    pub fn new(handle: &VolumeHandle, status: &VolumeStatus) -> Drives {
        let drive = |drive: &DriveStatus| {
            let mut line = DriveLine {
                place: drive.index.get() as u64,
                path: drive
                    .path
                    .as_ref()
                    .map_or_else(String::new, |path| path.display().to_string()),
                state: match drive {
                    DriveStatus { retired: true, .. } => "removed",
                    DriveStatus { removed: true, .. } => "not counted",
                    DriveStatus { in_sync: false, .. } => "OUT OF SYNC",
                    DriveStatus { joining: true, .. } => "in sync, being filled",
                    DriveStatus { leaving: true, .. } => "in sync, being emptied",
                    DriveStatus { slow: true, .. } => "in sync, SLOW",
                    _ => "in sync",
                }
                .to_owned(),
                why: match drive {
                    DriveStatus {
                        retired: true,
                        path: Some(_),
                        ..
                    } => "take it out of the configuration".to_owned(),
                    DriveStatus { retired: true, .. } => String::new(),
                    _ => drive.why.clone(),
                },
                total_bytes: drive.space.map_or(0, |space| space.total_bytes),
                free_bytes: drive.space.map_or(0, |space| space.free_bytes),
                ..DriveLine::default()
            };
            let counts = status
                .logs
                .iter()
                .flat_map(|(_, report)| &report.drives)
                .filter(|(index, _)| *index == drive.index);
            for (_, counts) in counts {
                line.reads += counts.reads;
                line.read_errors += counts.read_errors;
                line.mismatches += counts.mismatches;
                line.repairs += counts.repairs;
                let expected_us = u64::try_from(counts.expected.as_micros()).unwrap_or(u64::MAX);
                line.read_us = line.read_us.max(expected_us);
            }
            line
        };
        let log = |(log, report): &(cairn_engine::ids::LogId, cairn_engine::volume::LogReport)| LogLine {
            log: u64::from(log.0),
            verified_ms: report.scrub.verified_ms,
            running: report.scrub.running,
            bytes_done: report.scrub.bytes_done,
            bytes_total: report.scrub.bytes_total,
            damaged: report.scrub.damaged,
            lost: report.scrub.lost,
            answered: report.scrub.answered,
            rekey_answered: report.rekey.answered,
            old_key_bytes: report.rekey.old_bytes,
        };
        Drives {
            node: status.node.to_string(),
            epoch: status.in_sync.epoch.0,
            mirrors: status.mirrors as u64,
            scrub_requested: handle.scrub_requested(),
            drives: status.drives.iter().map(drive).collect(),
            logs: status.logs.iter().map(log).collect(),
            warnings: status.warnings.clone(),
            guarantee: status.guarantee as u64,
            operation: status.operation.as_ref().map(OperationLine::new),
        }
    }

    /// When the pass began since which everything was verified; 0 when some log never was.
    #[must_use]
    pub fn verified_ms(&self) -> u64 {
        self.logs.iter().map(|log| log.verified_ms).min().unwrap_or(0)
    }

    /// Bytes done and bytes to do of the passes under way.
    #[must_use]
    pub fn progress(&self) -> Option<(u64, u64)> {
        let mut running = self.logs.iter().filter(|log| log.running).peekable();
        running.peek()?;
        let sum = running.fold((0, 0), |(done, total), log| {
            (done + log.bytes_done, total + log.bytes_total)
        });
        Some(sum)
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("plain fields");
        text.push('\n');
        text
    }

    /// Reads what [`Drives::to_json`] wrote; fields that are not known are skipped.
    ///
    /// # Errors
    /// In words, when it is something else.
    pub fn from_json(bytes: &[u8]) -> Result<Drives, String> {
        serde_json::from_slice(bytes).map_err(|error| format!("the node's answer cannot be read: {error}"))
    }

    /// As a table for people, at `now_ms`.
    #[must_use]
    pub fn to_text(&self, now_ms: u64) -> String {
        let mut out = format!(
            "node {}, epoch {}, {} copies of every byte\n",
            self.node, self.epoch, self.mirrors
        );
        for drive in &self.drives {
            let path = if drive.path.is_empty() {
                "(directory unknown)"
            } else {
                &drive.path
            };
            let _ = write!(out, "  {} {path}: {}", drive.place, drive.state);
            if !drive.why.is_empty() {
                let _ = write!(out, ": {}", drive.why);
            }
            if drive.total_bytes > 0 {
                let used = drive.total_bytes.saturating_sub(drive.free_bytes);
                let _ = write!(out, ", {} of {} used", Size(used), Size(drive.total_bytes));
            }
            if drive.read_us > 0 {
                let _ = write!(out, ", a read takes {} us", drive.read_us);
            }
            let _ = writeln!(
                out,
                ", {} reads, {} failed, {} did not verify, {} repaired",
                drive.reads, drive.read_errors, drive.mismatches, drive.repairs
            );
        }
        let _ = match self.verified_ms() {
            0 => writeln!(out, "scrub: not all has been verified yet"),
            verified => writeln!(
                out,
                "scrub: everything older than {} ({} ago) has been verified",
                Utc::from_unix_ms(verified).basic(),
                span(now_ms.saturating_sub(verified))
            ),
        };
        if let Some((done, total)) = self.progress() {
            let _ = writeln!(
                out,
                "scrub: a pass is under way, {} of {}",
                Size(done),
                Size(total)
            );
        }
        let damaged: u64 = self.logs.iter().map(|log| log.damaged).sum();
        let lost: u64 = self.logs.iter().map(|log| log.lost).sum();
        if damaged > 0 {
            let _ = writeln!(
                out,
                "scrub: {damaged} places did not verify since the start, {lost} of them on no mirror"
            );
        }
        if let Some(operation) = &self.operation {
            let _ = writeln!(out, "{}: {}: {}", operation.what, operation.state, operation.said);
        }
        if self.guarantee < self.mirrors && self.epoch > 0 {
            let _ = writeln!(
                out,
                "warning: some files have {} of {} copies",
                self.guarantee, self.mirrors
            );
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "warning: {warning}");
        }
        out
    }
}

impl OperationLine {
    fn new(status: &OperationStatus) -> OperationLine {
        let (state, said, bytes_done, bytes_total) = match &status.state {
            OperationState::Running {
                step,
                bytes_done,
                bytes_total,
            } => ("running", step.to_string(), *bytes_done, *bytes_total),
            OperationState::Done(said) => ("done", said.clone(), 0, 0),
            OperationState::Failed(why) => ("failed", why.clone(), 0, 0),
        };
        OperationLine {
            number: status.number,
            what: status.operation.to_string(),
            state: state.to_owned(),
            said,
            bytes_done,
            bytes_total,
        }
    }
}

/// What may be done about a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A new drive is taken in.
    Add,
    /// One that is out of sync is made a mirror again.
    Rebuild,
    /// One is emptied and taken off the list.
    Remove,
}

/// Begins an operation on the drive that `named` names, by its directory or by its place in the list; the answer is the
/// operation's number.
///
/// # Errors
/// In words, when there is no such drive, or another operation is under way.
pub async fn begin(volume: &VolumeHandle, action: Action, named: &str) -> Result<u64, String> {
    let status = volume.status().await.map_err(|error| error.to_string())?;
    let path = directory(named, &status)?;
    let operation = match action {
        Action::Add => Operation::Add(path),
        Action::Rebuild => Operation::Rebuild(path),
        Action::Remove => Operation::Remove(path),
    };
    volume.begin(operation).await.map_err(|error| error.to_string())
}

/// The directory that is meant, as the node names it.
fn directory(named: &str, status: &VolumeStatus) -> Result<PathBuf, String> {
    if let Ok(place) = named.parse::<usize>() {
        let drive = status.drives.get(place);
        let path = drive.map(|drive| drive.path.clone().unwrap_or_else(|| PathBuf::from(named)));
        return path.ok_or_else(|| format!("the node has no drive {place}: see `cairn drives list`"));
    }
    let path = PathBuf::from(named);
    let same =
        |known: &PathBuf| *known == path || std::path::absolute(known).is_ok_and(|known| known == path);
    let known = status
        .drives
        .iter()
        .filter_map(|drive| drive.path.clone())
        .find(same);
    match known {
        Some(known) => Ok(known),
        None if path.is_absolute() => Ok(path),
        None => Err(
            "name the drive's directory by its whole path, or its place in `cairn drives list`".to_owned(),
        ),
    }
}

/// A time span in the largest unit that fits.
fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    for (unit, of) in [("d", 86_400), ("h", 3_600), ("min", 60)] {
        if seconds >= of {
            return format!("{} {unit}", seconds / of);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
#[path = "drives/drives_test.rs"]
mod tests;
