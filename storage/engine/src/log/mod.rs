//! The mirrored group-commit log.

use std::marker::PhantomData;

use cairn_runtime::Runtime;

use crate::ids::{IndexId, LogId, LogSequence, PartitionId, RaftIndex, TableId, Term};
use crate::volume::Volume;

mod config;
mod error;

pub use config::LogConfig;
pub use error::LogError;

/// What is appended and replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the payload is; the log does not interpret it.
    pub kind: u8,
    /// The partition; 0 for the log's own.
    pub partition: PartitionId,
    /// The table.
    pub table: TableId,
    /// The index of the table.
    pub index: IndexId,
    /// Raft term.
    pub term: Term,
    /// Raft index; 0 outside of a partition's chain.
    pub raft_index: RaftIndex,
    /// The content, at most [`LogConfig::record_bytes_max`].
    pub payload: &'a [u8],
}

/// Position of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The batch.
    pub sequence: LogSequence,
    /// The record within it, from 0.
    pub record: u32,
}

/// Raft indexes of one partition within a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionRange {
    /// The partition.
    pub partition: PartitionId,
    /// Lowest index.
    pub first: RaftIndex,
    /// Highest index.
    pub last: RaftIndex,
}

/// Acknowledged batches that no mirror holds any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// First batch lost.
    pub first: LogSequence,
    /// Last batch lost.
    pub last: LogSequence,
    /// What the lost batches held, as far as the batch after them tells (it knows of `last` only).
    pub known: Vec<PartitionRange>,
    /// Whether `known` is all of it. If not, any partition whose index chain is not proven must be fenced.
    pub complete: bool,
}

/// What recovery meets, in the order of the log.
#[derive(Debug, Clone, Copy)]
pub enum Replayed<'a> {
    /// A record.
    Record(LogPosition, Record<'a>),
    /// Acknowledged batches are lost here.
    Lost(&'a Lost),
}

/// What recovery found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// The incarnation now open.
    pub incarnation: u64,
    /// Batches replayed, markers included.
    pub batches: u64,
    /// Records replayed.
    pub records: u64,
    /// Bytes read from all mirrors.
    pub bytes_read: u64,
    /// First batch still there; 0 when there is none.
    pub first: LogSequence,
    /// Last batch; 0 when there never was one.
    pub last: LogSequence,
    /// Batches that were valid on one mirror and written again to another.
    pub repaired: u64,
    /// Torn batches after the last, valid on no mirror and never acknowledged.
    pub dropped: u64,
    /// Acknowledged batches that are lost. Not empty: partitions must be fenced.
    pub lost: Vec<Lost>,
}

/// Counters and gauges of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Batches made durable since the log was opened, markers included.
    pub batches: u64,
    /// Marker batches among them.
    pub markers: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes written per mirror, padding included.
    pub bytes: u64,
    /// Bytes of records, headers included.
    pub record_bytes: u64,
    /// Files opened since.
    pub files_opened: u64,
    /// Files in use.
    pub files_live: u64,
    /// Files in use, at most: beyond it `append` answers [`LogError::Full`].
    pub files_max: u64,
    /// Bytes of the files in use.
    pub live_bytes: u64,
    /// Mirrors that failed or lagged since.
    pub mirror_failures: u64,
    /// Writes of the anchor.
    pub anchor_writes: u64,
}

/// A log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log<R: Runtime>(PhantomData<R>);

impl<R: Runtime> Log<R> {
    /// Recovers the log, or creates it: replays every batch that is still there in order, makes the mirrors alike,
    /// and opens a new incarnation.
    ///
    /// # Errors
    /// [`LogError`]; losses that can be named are no error but in [`Recovery::lost`].
    pub async fn open(
        _runtime: R,
        _volume: Volume<R>,
        _id: LogId,
        _config: LogConfig,
        _replay: impl FnMut(Replayed<'_>),
    ) -> Result<(Log<R>, Recovery), LogError> {
        Err(LogError::Closed)
    }

    /// The log's id.
    #[must_use]
    pub fn id(&self) -> LogId {
        LogId(0)
    }

    /// Queues a record for the batch being gathered; never waits. Resolves nothing: pass the answer's sequence to
    /// [`Log::durable`].
    ///
    /// # Errors
    /// [`LogError::Full`] (nothing queued; await [`Log::ready`]), [`LogError::OutOfSpace`],
    /// [`LogError::TooLarge`], or why the log has stopped.
    pub fn append(&self, _record: Record<'_>) -> Result<LogPosition, LogError> {
        Err(LogError::Closed)
    }

    /// As [`Log::append`], with the payload given in parts.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_parts(&self, _record: Record<'_>, _parts: &[&[u8]]) -> Result<LogPosition, LogError> {
        Err(LogError::Closed)
    }

    /// Resolves when a record of `payload_bytes` may be appended.
    ///
    /// # Errors
    /// Why the log has stopped; [`LogError::OutOfSpace`].
    pub async fn ready(&self, _payload_bytes: usize) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    /// Resolves when batch `sequence` and all before it are durable on every in-sync mirror.
    ///
    /// # Errors
    /// The log stopped before; whether the batch survives is not known.
    pub async fn durable(&self, _sequence: LogSequence) -> Result<(), LogError> {
        Err(LogError::Closed)
    }

    /// The last batch acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> LogSequence {
        LogSequence(0)
    }

    /// The batch that the next `append` joins.
    #[must_use]
    pub fn gathering(&self) -> LogSequence {
        LogSequence(0)
    }

    /// Batches below `sequence` are no longer needed: files that hold only such are reused.
    pub fn release_up_to(&self, _sequence: LogSequence) {}

    /// Why the log has stopped, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        None
    }

    /// The first batch that the oldest file holds: releasing up to the end of that file frees space.
    #[must_use]
    pub fn oldest(&self) -> LogSequence {
        LogSequence(0)
    }

    /// The batch up to which must be released (exclusive) for the oldest file to become free; `None` while there is
    /// only the current file.
    #[must_use]
    pub fn release_wanted(&self) -> Option<LogSequence> {
        None
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats::default()
    }

    /// Waits for everything appended, writes a marker and the anchor, and refuses further records.
    ///
    /// # Errors
    /// Why the log had stopped before.
    pub async fn close(&self) -> Result<(), LogError> {
        Err(LogError::Closed)
    }
}

/// The log that a file of this name belongs to.
pub(crate) fn log_of_name(name: &str) -> Option<LogId> {
    let digits = name.strip_prefix("log-")?.get(..8)?;
    u32::from_str_radix(digits, 16).ok().map(LogId)
}
