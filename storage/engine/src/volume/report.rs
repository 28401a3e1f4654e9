//! What the engines of a node tell the keeper about their files, so that an operator learns it in one place.

use super::DriveIndex;
use crate::ids::LogId;
use crate::tree::DriveCounts;

/// What the engine of one log says of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReport {
    /// How far verifying every block of every segment is.
    pub scrub: ScrubReport,
    /// What happened on each drive since the start.
    pub drives: Vec<(DriveIndex, DriveCounts)>,
}

/// How far the scrub of one log's segments is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// When the last complete pass began, by the wall clock in milliseconds: all that is older has been verified
    /// since, on every mirror. 0 when there was none.
    pub verified_ms: u64,
    /// Whether a pass is under way.
    pub running: bool,
    /// Bytes of the segments that the pass is through with, one mirror counted.
    pub bytes_done: u64,
    /// Bytes of all segments that it has to look at.
    pub bytes_total: u64,
    /// Places that did not verify on some mirror, since the start.
    pub damaged: u64,
    /// Places among them that no mirror had whole.
    pub lost: u64,
    /// The last request ([`super::VolumeHandle::request_scrub`]) that a complete pass has answered.
    pub answered: u64,
}

/// The reports of all logs, as far as they have been given.
pub type LogReports = Vec<(LogId, LogReport)>;
