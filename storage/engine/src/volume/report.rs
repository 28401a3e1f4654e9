//! What the engines of a node tell the keeper about their files: an operator learns it in one place, and the keeper
//! learns when no file depends on a drive any more.

use super::{DriveIndex, DriveSet, InSync};
use crate::ids::{Epoch, LogId};
use crate::latency::Latencies;
use crate::tree::DriveCounts;

/// What the engine of one log says of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogReport {
    /// How far verifying every block of every segment is.
    pub scrub: ScrubReport,
    /// How far it is with other keys for its tables.
    pub rekey: RekeyReport,
    /// What happened on each drive since the start.
    pub drives: Vec<(DriveIndex, DriveCounts)>,
    /// Where its files are.
    pub places: PlacesReport,
    /// How long writes of the log took, by drive.
    pub writes: Vec<(DriveIndex, Latencies)>,
}

/// How far one log's segments are being sealed with other keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RekeyReport {
    /// The last request ([`super::VolumeHandle::request_rekey`]) that has been taken up.
    pub answered: u64,
    /// Bytes of segments that are still sealed with an older key of their table.
    pub old_bytes: u64,
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

/// Where the files of one log are, its own and its segments, as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlacesReport {
    /// The in-sync epoch it was seen under; of another it says nothing.
    pub epoch: Epoch,
    /// Drives that were being emptied then: no file begun since goes there.
    pub avoided: DriveSet,
    /// Drives that some file names, or may be about to name.
    pub named: DriveSet,
    /// In-sync drives that every file is on at least, up to the number of mirrors; 0 while that is not known. The
    /// log's anchor has to be on every one of them.
    pub holders: usize,
    /// Invitations by number: places whose new drive this log's shard has opened, having forgotten the one before.
    pub opened: Vec<(DriveIndex, u64)>,
    /// Bytes of segments that have still to be copied.
    pub bytes_left: u64,
    /// Acknowledged data that is known to be lost, in words.
    pub lost: Option<String>,
    /// Why a place cannot be opened.
    pub refused: Option<String>,
    /// Drives that reads go round because others answer much sooner.
    pub slow: DriveSet,
}

impl PlacesReport {
    /// Whether it is of the set that is in sync now.
    pub(super) fn is_of(&self, in_sync: InSync) -> bool {
        self.epoch == in_sync.epoch
    }
}

/// The reports of all logs, as far as they have been given.
pub type LogReports = Vec<(LogId, LogReport)>;
