//! Why a log does not do what was asked.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use crate::ids::LogId;
use crate::volume::VolumeError;

/// Why a log does not do what was asked. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogError {
    /// Back-pressure: the batch being gathered, or the log, is full. Nothing was queued; retry after `ready`.
    Full,
    /// A drive is full. Nothing was queued; may pass once space is free.
    OutOfSpace(PathBuf),
    /// The record is larger than the limit.
    TooLarge {
        /// Bytes of the payload.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The limits in the configuration contradict each other.
    Config(Rc<str>),
    /// No in-sync drive holds a file of the log.
    NoMirror {
        /// The log.
        log: LogId,
        /// What is missing, in words.
        what: Rc<str>,
    },
    /// The anchor is lost on every in-sync drive although files of the log are there.
    AnchorLost {
        /// The log.
        log: LogId,
        /// What was found, in words.
        what: Rc<str>,
    },
    /// The files were written by a later version.
    TooNew(Rc<str>),
    /// A drive failed and no other can take its place, in words.
    Drive(Rc<str>),
    /// An epoch change failed: nothing is acknowledged any more.
    Volume(Rc<VolumeError>),
    /// The log has been closed.
    Closed,
}

impl LogError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, LogError::Full | LogError::OutOfSpace(_))
    }
}

impl From<VolumeError> for LogError {
    fn from(error: VolumeError) -> LogError {
        LogError::Volume(Rc::new(error))
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Full => write!(formatter, "the log is full; slow down"),
            LogError::OutOfSpace(path) => write!(formatter, "no space left in {}", path.display()),
            LogError::TooLarge { bytes, bytes_max } => {
                write!(
                    formatter,
                    "a record of {bytes} bytes exceeds the limit of {bytes_max}"
                )
            }
            LogError::Config(what) => write!(formatter, "{what}"),
            LogError::NoMirror { log, what } => {
                write!(
                    formatter,
                    "log {log}: no in-sync drive holds {what}; bring the missing drive back"
                )
            }
            LogError::AnchorLost { log, what } => write!(
                formatter,
                "log {log}: its anchor is lost on every in-sync drive, but {what}; restore the drive from a \
                 mirror or a peer, nothing was changed"
            ),
            LogError::TooNew(what) => write!(formatter, "{what} was written by a later version"),
            LogError::Drive(what) => write!(formatter, "{what}"),
            LogError::Volume(error) => write!(formatter, "{error}"),
            LogError::Closed => write!(formatter, "the log is closed"),
        }
    }
}

impl std::error::Error for LogError {}
