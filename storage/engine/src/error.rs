//! What can go wrong, and what the caller must do about it.
//!
//! [`EngineError`] says what happened, in words for an operator; [`EngineError::kind`] says what to do:
//! retry, slow down, fix the request, or give up on a partition.

use std::fmt;
use std::rc::Rc;

use crate::ids::PartitionId;

/// Why the engine did not do what was asked. Cheap to clone: one failed batch fails all that waited on it.
#[derive(Debug, Clone)]
pub enum EngineError {
    /// Back-pressure lasted longer than the configured wait. Nothing was written.
    Throttled,
    /// A drive, which is named, is full or nearly so. Nothing was written. Reads go on, and so do deletes as long as the
    /// reserve lasts; writes succeed again once space is free.
    OutOfSpace(Rc<str>),
    /// The process has run out of descriptors or memory. Nothing was written.
    Exhausted(Rc<str>),
    /// Acknowledged data of this partition could not be repaired; the others go on serving.
    Fenced {
        /// The partition.
        partition: PartitionId,
        /// What is lost, in words.
        why: Rc<str>,
    },
    /// No such partition on this engine.
    NoSuchPartition(PartitionId),
    /// The key lies outside the partition's range.
    KeyOutOfRange(PartitionId),
    /// A partition of that id exists with another table, index or range.
    PartitionConflict(PartitionId),
    /// Key or item is larger than the engine's limit.
    TooLarge {
        /// Bytes of what was offered.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A snapshot cannot be had at that timestamp.
    SnapshotRefused(Rc<str>),
    /// So many snapshots are open already.
    TooManySnapshots(usize),
    /// Bytes on every mirror fail their checksum or contradict each other.
    Corrupt(Rc<str>),
    /// The write may or may not have been made durable: the log failed while it was in flight.
    Unknown(Rc<str>),
    /// The engine has been closed, or has stopped because it could not keep its promises.
    Stopped(Rc<str>),
}

/// What the caller must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// Slow down and try again.
    Throttle,
    /// Try again later: the condition may pass by itself. Nothing was written.
    Retry,
    /// The outcome of this write is not known; a retry must be idempotent.
    Unknown,
    /// The request addresses something that is not here.
    NotFound,
    /// The request is wrong.
    Invalid,
    /// This partition cannot serve until an operator or a peer repairs it.
    Fenced,
    /// This engine serves nothing any more.
    Stopped,
}

impl EngineError {
    /// What the caller must do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            EngineError::Throttled => ErrorKind::Throttle,
            EngineError::OutOfSpace(_) | EngineError::Exhausted(_) | EngineError::TooManySnapshots(_) => {
                ErrorKind::Retry
            }
            EngineError::Fenced { .. } | EngineError::Corrupt(_) => ErrorKind::Fenced,
            EngineError::NoSuchPartition(_) => ErrorKind::NotFound,
            EngineError::KeyOutOfRange(_)
            | EngineError::PartitionConflict(_)
            | EngineError::SnapshotRefused(_)
            | EngineError::TooLarge { .. } => ErrorKind::Invalid,
            EngineError::Unknown(_) => ErrorKind::Unknown,
            EngineError::Stopped(_) => ErrorKind::Stopped,
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Throttled => write!(
                formatter,
                "writes arrive faster than they can be stored; slow down"
            ),
            EngineError::OutOfSpace(drive) => write!(
                formatter,
                "the drive of {drive} is full: items can be read and deleted, and stored again once space is free"
            ),
            EngineError::Exhausted(why) => write!(formatter, "{why}"),
            EngineError::Fenced { partition, why } => {
                write!(formatter, "partition {partition} is fenced: {why}")
            }
            EngineError::NoSuchPartition(partition) => write!(formatter, "no partition {partition} here"),
            EngineError::KeyOutOfRange(partition) => {
                write!(
                    formatter,
                    "the key lies outside the range of partition {partition}"
                )
            }
            EngineError::PartitionConflict(partition) => {
                write!(
                    formatter,
                    "partition {partition} exists with another table, index or range"
                )
            }
            EngineError::TooLarge { bytes, bytes_max } => {
                write!(formatter, "{bytes} bytes are more than the limit of {bytes_max}")
            }
            EngineError::SnapshotRefused(why) => write!(formatter, "no snapshot: {why}"),
            EngineError::TooManySnapshots(open) => {
                write!(
                    formatter,
                    "{open} snapshots are open; try again when one has been released"
                )
            }
            EngineError::Corrupt(what) => write!(formatter, "corrupt beyond repair: {what}"),
            EngineError::Unknown(why) => write!(formatter, "the outcome of the write is unknown: {why}"),
            EngineError::Stopped(why) => write!(formatter, "the engine has stopped: {why}"),
        }
    }
}

impl std::error::Error for EngineError {}
