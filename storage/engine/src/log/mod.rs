//! The mirrored group-commit log.
//!
//! What it buys: one durable write per batch and mirror, whatever the number of records and partitions in it; records
//! are copied once. What it costs: a partition's records lie among those of others, so that reading one partition's
//! back means reading the log, which only recovery does.
//!
//! Read in this order: [`batch`] and [`file`] and [`anchor`] (the bytes), `recovery` (what a start makes of them),
//! `writer` (the write side), `space` (files in and out of use).
//!
//! **What never happens**: a batch is acknowledged before every in-sync mirror of its file holds it; batches are
//! acknowledged out of sequence; a block is written twice in one use of a file; a batch of an earlier incarnation, or
//! of an earlier use of a file, is taken for a newer one; an acknowledged batch disappears without being named.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use cairn_runtime::{Runtime, sync};

use crate::ids::{IndexId, LogId, LogSequence, PartitionId, RaftIndex, TableId, Term};
use crate::latency::{Latencies, Speed};
use crate::volume::{DriveIndex, DriveSet, Placement, Volume};

pub mod anchor;
pub mod batch;
#[cfg(test)]
mod batch_test;
#[cfg(test)]
mod chaos_test;
mod config;
mod error;
pub mod file;
#[cfg(test)]
mod log_test;
#[cfg(test)]
mod loss_test;
mod mirrored;
mod recovery;
mod space;
mod walk;
mod writer;

pub use config::LogConfig;
pub use error::LogError;

use config::FILES_MAX;
use recovery::Context;
use writer::{Begin, Inner, OpenFile, Prepared, State};

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
    /// Batches and file headers that were valid on one mirror and written again to another.
    pub repaired: u64,
    /// Of the last batch, which was valid on some mirrors only and not known to be acknowledged: copies written.
    pub completed: u64,
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

/// Where the files of a log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogPlaces {
    /// Drives that a file names, or may be about to name.
    pub(crate) named: DriveSet,
    /// In-sync drives that every file is on at least; 0 when the anchor is not on all that are in sync.
    pub(crate) holders: usize,
    /// Every file that is written to is placed as one made now would be.
    pub(crate) proper: bool,
}

/// A log. Cheap to clone.
pub struct Log<R: Runtime> {
    inner: Rc<Inner<R>>,
}

impl<R: Runtime> Clone for Log<R> {
    fn clone(&self) -> Log<R> {
        Log {
            inner: self.inner.clone(),
        }
    }
}

impl<R: Runtime> fmt::Debug for Log<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Log({}, acknowledged {})",
            self.id(),
            self.acknowledged()
        )
    }
}

impl<R: Runtime> Log<R> {
    /// Recovers the log, or creates it: replays every batch that is still there in order, makes the mirrors alike,
    /// and opens a new incarnation.
    ///
    /// # Errors
    /// [`LogError`]; losses that can be named are no error but in [`Recovery::lost`].
    pub async fn open(
        runtime: R,
        volume: Volume<R>,
        id: LogId,
        config: LogConfig,
        replay: impl FnMut(Replayed<'_>),
    ) -> Result<(Log<R>, Recovery), LogError> {
        config.validate().map_err(|what| LogError::Config(what.into()))?;
        let context = Context {
            runtime,
            volume,
            log: id,
            config,
            repair: true,
        };
        let recovered = recovery::recover(&context, replay).await?;
        let mut report = recovered.report;
        report.incarnation = recovered.anchor.incarnation + 1;
        let begin = Begin {
            incarnation: report.incarnation,
            next: recovered.next,
            chain: recovered.chain,
            files: recovered.anchor.files,
            slots: recovered.slots,
            next_file: recovered.anchor.next_file,
            anchor_version: recovered.anchor.version,
        };
        let state = State::new(begin, &recovered.ranges, context.runtime.now());
        let inner = Rc::new(Inner {
            progress: sync::Progress::new(state.acknowledged.0),
            context,
            state: state.into(),
            room: sync::Notify::new(),
            anchors: recovered.anchors.into(),
            speeds: RefCell::default(),
            avoided: Cell::new(DriveSet::EMPTY),
            anchor_lock: sync::Mutex::new(()),
        });
        loop {
            let file = inner.prepare(FILES_MAX).await?;
            let in_sync = inner.context.volume.settled().await?.set;
            let switched = {
                let mut state = inner.state.borrow_mut();
                state.prepared = Prepared::Ready(file);
                inner.switch(&mut state, in_sync)
            };
            if switched {
                break;
            }
            // A drive has just left: the background task would race with this one, so it is awaited.
            while matches!(inner.state.borrow().prepared, Prepared::InProgress) {
                inner.context.runtime.yield_now().await;
            }
            inner.drop_prepared();
        }
        Ok((Log { inner }, report))
    }

    /// Reads a log without changing anything: what [`Log::open`] would find. `Recovery::repaired` counts what it
    /// would repair.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub async fn inspect(
        runtime: R,
        volume: Volume<R>,
        id: LogId,
        config: LogConfig,
        replay: impl FnMut(Replayed<'_>),
    ) -> Result<Recovery, LogError> {
        let context = Context {
            runtime,
            volume,
            log: id,
            config,
            repair: false,
        };
        recovery::recover(&context, replay)
            .await
            .map(|recovered| recovered.report)
    }

    /// The log's id.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.inner.context.log
    }

    /// Queues a record for the batch being gathered; never waits. Pass the answer's sequence to [`Log::durable`].
    ///
    /// # Errors
    /// [`LogError::Full`] (nothing queued; await [`Log::ready`]), [`LogError::OutOfSpace`],
    /// [`LogError::TooLarge`], or why the log has stopped.
    pub fn append(&self, record: Record<'_>) -> Result<LogPosition, LogError> {
        self.append_parts(record, &[record.payload])
    }

    /// As [`Log::append`], with the payload given in parts; `record.payload` is ignored.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_parts(&self, record: Record<'_>, parts: &[&[u8]]) -> Result<LogPosition, LogError> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let mut state = self.inner.state.borrow_mut();
        self.admit(&state, bytes, Some(record.partition), false)?;
        Ok(self.push(&mut state, &record, parts))
    }

    /// As [`Log::append`], but also when the log is as full as [`LogConfig::files_max`] allows: for the records that
    /// free space, such as the manifest's.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_reserved(&self, record: Record<'_>) -> Result<LogPosition, LogError> {
        let mut state = self.inner.state.borrow_mut();
        self.admit(&state, record.payload.len(), Some(record.partition), true)?;
        Ok(self.push(&mut state, &record, &[record.payload]))
    }

    fn push(&self, state: &mut State<R>, record: &Record<'_>, parts: &[&[u8]]) -> LogPosition {
        let place = state.gather.push(record, parts);
        self.inner.schedule(state);
        LogPosition {
            sequence: state.next,
            record: place,
        }
    }

    fn admit(
        &self,
        state: &State<R>,
        payload_bytes: usize,
        partition: Option<PartitionId>,
        reserved: bool,
    ) -> Result<(), LogError> {
        if let Some(error) = &state.failure {
            return Err(error.clone());
        }
        if state.closing {
            return Err(LogError::Closed);
        }
        let config = &self.inner.context.config;
        if payload_bytes > config.record_bytes_max {
            return Err(LogError::TooLarge {
                bytes: payload_bytes,
                bytes_max: config.record_bytes_max,
            });
        }
        if !state
            .gather
            .has_room(payload_bytes, partition, config.batch_bytes)
        {
            return Err(state
                .full_drive
                .clone()
                .map_or(LogError::Full, LogError::OutOfSpace));
        }
        if !reserved && state.live_files() > config.files_max {
            return Err(LogError::Full);
        }
        if let Some(path) = &state.full_drive
            && !state.has_file_room(payload_bytes)
        {
            return Err(LogError::OutOfSpace(path.clone()));
        }
        Ok(())
    }

    /// Resolves when a record of `payload_bytes` may be appended.
    ///
    /// # Errors
    /// Why the log has stopped; [`LogError::OutOfSpace`]; [`LogError::TooLarge`].
    pub async fn ready(&self, payload_bytes: usize) -> Result<(), LogError> {
        loop {
            let changed = self.inner.room.notified();
            let admitted = self.admit(&self.inner.state.borrow(), payload_bytes, None, false);
            match admitted {
                Err(LogError::Full) => changed.await,
                other => return other,
            }
        }
    }

    /// Resolves when batch `sequence` and all before it are durable on every in-sync mirror.
    ///
    /// # Errors
    /// The log stopped before; whether the batch survives is not known.
    pub async fn durable(&self, sequence: LogSequence) -> Result<(), LogError> {
        match self.inner.progress.wait(sequence.0).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().unwrap_or(LogError::Closed)),
        }
    }

    /// The last batch acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> LogSequence {
        self.inner.state.borrow().acknowledged
    }

    /// The batch that the next `append` joins.
    #[must_use]
    pub fn gathering(&self) -> LogSequence {
        self.inner.state.borrow().next
    }

    /// Batches below `sequence` are no longer needed: files that hold only such are reused.
    pub fn release_up_to(&self, sequence: LogSequence) {
        {
            let mut state = self.inner.state.borrow_mut();
            // Nobody can be done with what is not even acknowledged.
            let sequence = sequence.min(state.acknowledged.next());
            if sequence <= state.released {
                return;
            }
            state.released = sequence;
            self.inner.release(&mut state);
        }
        self.inner.room.notify_all();
    }

    /// Where the files are.
    pub(crate) fn places(&self, placement: &Placement) -> LogPlaces {
        let state = self.inner.state.borrow();
        // What is being prepared has its drives already, and no entry yet.
        if matches!(state.prepared, Prepared::InProgress) {
            return LogPlaces {
                named: DriveSet::from_bits(u32::MAX),
                holders: 0,
                proper: true,
            };
        }
        let in_sync = placement.in_sync.set;
        let mirrors = || state.files.iter().map(|entry| entry.mirrors);
        let written =
            |entry: Option<&OpenFile<R>>| entry.is_none_or(|file| placement.is_proper(file.entry.mirrors));
        let ready = match &state.prepared {
            Prepared::Ready(file) => Some(file),
            _ => None,
        };
        LogPlaces {
            named: mirrors().fold(DriveSet::EMPTY, DriveSet::or),
            holders: match in_sync.is_within(state.anchor_on) {
                true => mirrors()
                    .map(|named| named.and(in_sync).count())
                    .min()
                    .unwrap_or(in_sync.count()),
                false => 0,
            },
            proper: in_sync.is_within(state.anchor_on) && written(state.current.as_ref()) && written(ready),
        }
    }

    /// Goes on to a file that is placed as one made now would be, if the current one is not, and has the anchor written
    /// to every in-sync drive. What was written before stays where it is until it is released.
    pub(crate) fn renew(&self, placement: &Placement) {
        let inner = &self.inner;
        {
            let mut state = inner.state.borrow_mut();
            let state = &mut *state;
            if state.failure.is_some() || state.closing || matches!(state.prepared, Prepared::InProgress) {
                return;
            }
            let unfit = |file: &OpenFile<R>| !placement.is_proper(file.entry.mirrors);
            let incomplete = !placement.in_sync.set.is_within(state.anchor_on);
            if incomplete || matches!(&state.prepared, Prepared::Ready(file) if unfit(file)) {
                inner.drop_prepared_of(state);
            }
            if state.full_drive.is_none() && !state.exhausted {
                inner.prepare_in_background(state);
            }
            if state.current.as_ref().is_some_and(unfit) {
                state.renew = true;
                state.want_marker();
            }
        }
        inner.start();
    }

    /// Takes released files out of the table now, and not with the next file.
    pub(crate) fn shrink(&self) {
        let released = {
            let state = self.inner.state.borrow();
            state.failure.is_none() && !state.closing && self.inner.has_released(&state)
        };
        if released {
            self.inner.shrink_in_background();
        }
    }

    /// Another drive gets the place: what is known of the one before is not of it.
    pub(crate) fn forget(&self, drive: DriveIndex) {
        self.inner.anchors.borrow_mut().remove(&drive);
        self.inner.speeds.borrow_mut().remove(&drive);
        let mut state = self.inner.state.borrow_mut();
        for slot in state.slots.values_mut() {
            slot.bytes.remove(&drive);
        }
        state.anchor_on = state.anchor_on.without(drive);
    }

    /// How long writes of batches took, by drive.
    pub(crate) fn write_latencies(&self) -> Vec<(DriveIndex, Latencies)> {
        let speeds = self.inner.speeds.borrow();
        let latencies = |(drive, speed): (&DriveIndex, &Rc<Speed>)| (*drive, speed.latencies());
        speeds.iter().map(latencies).collect()
    }

    /// The in-sync drives that batches wait for much longer than for the others.
    pub(crate) fn slow_drives(&self) -> DriveSet {
        let now = self.inner.context.runtime.now();
        let speeds = self.inner.speeds.borrow();
        let slow = speeds.iter().filter(|(_, speed)| {
            speed.forget(now);
            speed.is_slow(now)
        });
        let slow: DriveSet = slow.map(|(drive, _)| *drive).collect();
        slow.and(self.inner.context.volume.in_sync().set)
    }

    /// New files go to other drives than these, if there are others.
    pub(crate) fn avoid(&self, drives: DriveSet) {
        self.inner.avoided.set(drives);
    }

    /// Why the log has stopped, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.inner.state.borrow().failure.clone()
    }

    /// The first batch that the oldest file holds.
    #[must_use]
    pub fn oldest(&self) -> LogSequence {
        let state = self.inner.state.borrow();
        state.files.first().map_or(state.next, |entry| entry.first)
    }

    /// Below this must be released for the oldest file to become free; `None` while there is only the current file.
    #[must_use]
    pub fn release_wanted(&self) -> Option<LogSequence> {
        let state = self.inner.state.borrow();
        state
            .files
            .first()
            .filter(|entry| entry.last != LogSequence(0))
            .map(|entry| entry.last.next())
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let state = self.inner.state.borrow();
        LogStats {
            files_live: state.live_files() as u64,
            files_max: self.inner.context.config.files_max as u64,
            live_bytes: state.files.iter().map(file::FileEntry::bytes).sum(),
            ..state.stats
        }
    }

    /// Waits for everything appended, writes a marker and the anchor, and refuses further records.
    ///
    /// # Errors
    /// Why the log had stopped before.
    pub async fn close(&self) -> Result<(), LogError> {
        self.inner.close().await
    }
}

/// The log that a file of this name belongs to.
pub(crate) fn log_of_name(name: &str) -> Option<LogId> {
    match name.strip_suffix(".anchor") {
        Some(stem) => {
            let digits = stem.strip_prefix("log-").filter(|digits| digits.len() == 8)?;
            u32::from_str_radix(digits, 16).ok().map(LogId)
        }
        None => file::slot_of_name(name).map(|(log, _)| log),
    }
}
