//! The write side: one batch in flight, one being gathered.
//!
//! **Invariants**
//! 1. At most one batch is in flight. It was sealed under the sequence that follows the acknowledged one, so batches
//!    become durable, and are acknowledged, in sequence.
//! 2. A batch is acknowledged when every in-sync mirror of its file has finished it, and at least one has, while no
//!    change of the in-sync set is being written.
//! 3. A block of a file is written once per use of the file.
//!
//! **A turn** ([`Inner::start`]): seal what was gathered, hand it to one task per mirror, begin to gather anew. The end
//! of the last mirror's write acknowledges and takes the next turn itself. **Exception**: a mirror that failed, or
//! lags `lag_max` behind another, is reported to the volume by [`Inner::settle`], which acknowledges once the smaller
//! in-sync set is durable; the file is then sealed and the next batch goes to a file on a whole set of mirrors.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Moment, Queue, Runtime, sync};

use super::anchor::AnchorFiles;
use super::batch::{Gather, Seal};
use super::file::FileEntry;
use super::recovery::{Context, Slot};
use super::{LogError, LogStats};
use crate::canary::{self, Canary};
use crate::ids::LogSequence;
use crate::latency::Speed;
use crate::sealing::FileCipher;
use crate::volume::{DriveIndex, DriveSet};

/// Buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 3;

/// A file that batches can be written to.
pub(super) struct OpenFile<R: Runtime> {
    pub(super) entry: FileEntry,
    pub(super) mirrors: Vec<(DriveIndex, <R::Drive as Drive>::File)>,
    /// Seals its batches; none when the node is not encrypted.
    pub(super) cipher: Option<FileCipher>,
}

/// The file after the current one.
pub(super) enum Prepared<R: Runtime> {
    None,
    /// A task is making it ready.
    InProgress,
    Ready(OpenFile<R>),
}

/// The batch being written.
struct Flight {
    sequence: LogSequence,
    buffer: Rc<AlignedBuffer>,
    mirrors: DriveSet,
    done: DriveSet,
    failed: DriveSet,
    /// Failures not yet reported to the volume.
    reports: Vec<(DriveIndex, String)>,
    first_done: Option<Moment>,
    settling: bool,
    records: u32,
}

impl Flight {
    fn ended(&self) -> DriveSet {
        DriveSet::from_bits(self.done.bits() | self.failed.bits())
    }
}

pub(super) struct State<R: Runtime> {
    pub(super) incarnation: u64,
    pub(super) gather: Gather,
    /// Sequence of the batch being gathered.
    pub(super) next: LogSequence,
    /// Header checksum of the batch sealed last.
    pub(super) chain: u64,
    pub(super) acknowledged: LogSequence,
    flight: Option<Flight>,
    pub(super) current: Option<OpenFile<R>>,
    /// Where the next batch goes in the current file.
    pub(super) offset: u64,
    pub(super) prepared: Prepared<R>,
    /// Files in use in order of their number, the current one and a prepared one included.
    pub(super) files: Vec<FileEntry>,
    pub(super) slots: BTreeMap<u32, Slot>,
    pub(super) next_file: u64,
    pub(super) anchor_version: u64,
    /// Drives that have the newest anchor.
    pub(super) anchor_on: DriveSet,
    /// The next batch goes to another file, on other drives.
    pub(super) renew: bool,
    pub(super) released: LogSequence,
    pub(super) failure: Option<LogError>,
    pub(super) closing: bool,
    /// The drive that was full when the next file was to be made.
    pub(super) full_drive: Option<PathBuf>,
    /// A task waits until the full drive is tried again.
    pub(super) retrying: bool,
    /// The next file waits for files to be released.
    pub(super) exhausted: bool,
    /// A turn has been queued.
    scheduled: bool,
    marker_wanted: bool,
    marker_timer: bool,
    /// Acknowledged batches with records that no later batch bears witness to.
    pub(super) unmarked: bool,
    acknowledged_at: Moment,
    watchdog: bool,
    spare: Vec<AlignedBuffer>,
    pub(super) stats: LogStats,
}

pub(super) struct Inner<R: Runtime> {
    pub(super) context: Context<R>,
    pub(super) state: RefCell<State<R>>,
    pub(super) progress: sync::Progress,
    /// Something changed that `append` may have refused for.
    pub(super) room: sync::Notify,
    pub(super) anchors: RefCell<AnchorFiles<R>>,
    /// How long writes of batches take.
    pub(super) speeds: RefCell<BTreeMap<DriveIndex, Rc<Speed>>>,
    /// Drives that new files had better not go to.
    pub(super) avoided: Cell<DriveSet>,
    /// Held while the anchor, and with it the table of files, changes.
    pub(super) anchor_lock: sync::Mutex<()>,
}

/// Where a log begins to write.
pub(super) struct Begin {
    pub(super) incarnation: u64,
    pub(super) next: LogSequence,
    pub(super) chain: u64,
    pub(super) files: Vec<FileEntry>,
    pub(super) slots: BTreeMap<u32, Slot>,
    pub(super) next_file: u64,
    pub(super) anchor_version: u64,
}

impl<R: Runtime> State<R> {
    pub(super) fn new(begin: Begin, ranges: &[super::PartitionRange], now: Moment) -> State<R> {
        State {
            incarnation: begin.incarnation,
            gather: Gather::new(None, ranges),
            next: begin.next,
            chain: begin.chain,
            acknowledged: LogSequence(begin.next.0 - 1),
            flight: None,
            current: None,
            offset: 0,
            prepared: Prepared::None,
            files: begin.files,
            slots: begin.slots,
            next_file: begin.next_file,
            anchor_version: begin.anchor_version,
            anchor_on: DriveSet::EMPTY,
            renew: false,
            released: LogSequence(0),
            failure: None,
            closing: false,
            full_drive: None,
            retrying: false,
            exhausted: false,
            scheduled: false,
            marker_wanted: false,
            marker_timer: false,
            unmarked: false,
            acknowledged_at: now,
            watchdog: false,
            spare: Vec::new(),
            stats: LogStats::default(),
        }
    }

    /// Files in use that hold or will hold batches: a prepared one is not yet one of them.
    pub(super) fn live_files(&self) -> usize {
        let spare = usize::from(matches!(self.prepared, Prepared::Ready(_)));
        self.files.len() - spare
    }

    /// Whether the batch being gathered still fits the current file with one more record.
    pub(super) fn has_file_room(&self, payload_bytes: usize) -> bool {
        let bytes = self.gather.bytes() + super::batch::record_bytes(payload_bytes) + BLOCK_BYTES;
        self.current
            .as_ref()
            .is_some_and(|current| self.offset + bytes as u64 <= current.entry.bytes())
    }

    pub(super) fn entry_mut(&mut self, number: u64) -> Option<&mut FileEntry> {
        self.files.iter_mut().find(|entry| entry.number == number)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_none() && self.gather.is_empty() && !self.marker_wanted
    }

    pub(super) fn want_marker(&mut self) {
        self.marker_wanted = true;
    }
}

impl<R: Runtime> Inner<R> {
    /// Stops the log for good.
    pub(super) fn fail(&self, error: LogError) {
        {
            let mut state = self.state.borrow_mut();
            if state.failure.is_some() {
                return;
            }
            state.failure = Some(error);
        }
        self.progress.close();
        self.room.notify_all();
    }

    /// Queues a turn. Tasks that are runnable now append to the same batch first.
    pub(super) fn schedule(self: &Rc<Self>, state: &mut State<R>) {
        if !state.scheduled && state.flight.is_none() {
            state.scheduled = true;
            let inner = self.clone();
            self.context.runtime.spawn(Queue::Foreground, async move {
                inner.state.borrow_mut().scheduled = false;
                inner.start();
            });
        }
    }

    /// Takes a turn, if there is anything to write and nothing in flight.
    pub(super) fn start(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let wanted = !state.gather.is_empty() || state.marker_wanted;
        if state.failure.is_some() || state.flight.is_some() || !wanted {
            return;
        }
        let in_sync = self.context.volume.in_sync().set;
        let bytes = state.gather.bytes() as u64;
        let fits = state.current.as_ref().is_some_and(|current| {
            current.entry.mirrors.is_within(in_sync) && state.offset + bytes <= current.entry.bytes()
        });
        // Where there is no room for another file the present one has to do.
        let fits = fits && !(state.renew && state.full_drive.is_none() && !state.exhausted);
        if !fits && !self.switch(state, in_sync) {
            return;
        }
        let current = state.current.as_ref().expect("a switch leaves a current file");
        assert!(
            state.offset + bytes <= current.entry.bytes(),
            "a file holds the largest batch"
        );
        let seal = Seal {
            log: self.context.log,
            file: current.entry,
            offset: state.offset,
            sequence: state.next,
            acknowledged: state.acknowledged,
            previous: state.chain,
        };
        assert_eq!(seal.sequence, seal.acknowledged.next(), "one batch at a time");
        let records = state.gather.records();
        state.stats.record_bytes += state.gather.record_bytes() as u64;
        let empty = Gather::new(Some(AlignedBuffer::zeroed(BLOCK_BYTES)), &[]);
        let (buffer, chain, ranges) =
            std::mem::replace(&mut state.gather, empty).seal(&seal, current.cipher.as_ref());
        state.gather = Gather::new(state.spare.pop(), &ranges);
        let buffer = Rc::new(buffer);
        for (drive, file) in &current.mirrors {
            let (inner, drive) = (self.clone(), *drive);
            let write = file.write_at(state.offset, buffer.clone());
            let writing = self.context.volume.writing(drive);
            let speed = Rc::clone(self.speeds.borrow_mut().entry(drive).or_default());
            let (mirrors, began) = (current.entry.mirrors, self.context.runtime.now());
            speed.began(began);
            self.context.runtime.spawn(Queue::Foreground, async move {
                let result = write.await;
                drop(writing);
                let now = inner.context.runtime.now();
                speed.answered(now);
                speed.left();
                if result.is_ok() {
                    inner.took(drive, &speed, mirrors, now.since(began));
                }
                inner.written(seal.sequence, drive, result);
            });
        }
        state.flight = Some(Flight {
            sequence: seal.sequence,
            buffer,
            mirrors: current.entry.mirrors,
            done: DriveSet::EMPTY,
            failed: DriveSet::EMPTY,
            reports: Vec::new(),
            first_done: None,
            settling: false,
            records,
        });
        state.chain = chain;
        state.next = state.next.next();
        state.offset += bytes;
        state.marker_wanted = false;
        self.watch(state);
        self.room.notify_all();
    }

    /// A mirror of a batch has written it. It is compared with those that had the same batches to write.
    fn took(&self, drive: DriveIndex, speed: &Speed, mirrors: DriveSet, took: Duration) {
        speed.count(took);
        let others = {
            let speeds = self.speeds.borrow();
            let others = mirrors.without(drive).and(self.context.volume.in_sync().set);
            let estimates = others
                .iter()
                .filter_map(|other| Some(speeds.get(&other)?.estimate()));
            estimates.filter(|estimate| !estimate.is_zero()).min()
        };
        if speed.took(self.context.runtime.now(), took, others) {
            self.context.volume.handle().tell_engines();
        }
    }

    /// Goes on to the prepared file. False when there is none that will do: it is then being prepared.
    pub(super) fn switch(self: &Rc<Self>, state: &mut State<R>, in_sync: DriveSet) -> bool {
        match std::mem::replace(&mut state.prepared, Prepared::None) {
            Prepared::Ready(file)
                if file.entry.mirrors.is_within(in_sync)
                    && (!state.renew || self.context.volume.placement().0.is_proper(file.entry.mirrors)) =>
            {
                state.renew = false;
                if let Some(old) = state.current.take() {
                    let last = LogSequence(state.next.0 - 1);
                    let empty = old.entry.first == state.next;
                    if empty {
                        state.files.retain(|entry| entry.number != old.entry.number);
                    } else if let Some(entry) = state.entry_mut(old.entry.number) {
                        entry.last = last;
                    }
                }
                let first = state.next;
                state
                    .entry_mut(file.entry.number)
                    .expect("a prepared file is listed")
                    .first = first;
                state.current = Some(OpenFile {
                    entry: FileEntry { first, ..file.entry },
                    ..file
                });
                state.offset = BLOCK_BYTES as u64;
                state.stats.files_opened += 1;
                self.prepare_in_background(state);
                true
            }
            Prepared::Ready(file) => {
                // A drive has left or come since: the file was never used.
                state.files.retain(|entry| entry.number != file.entry.number);
                self.prepare_in_background(state);
                false
            }
            Prepared::InProgress => {
                state.prepared = Prepared::InProgress;
                false
            }
            Prepared::None => {
                // Without space it is tried again when there may be some; at the end there will be none.
                if state.closing || (state.full_drive.is_none() && !state.exhausted) {
                    self.prepare_in_background(state);
                }
                false
            }
        }
    }

    /// A mirror has ended its write.
    fn written(self: &Rc<Self>, sequence: LogSequence, drive: DriveIndex, result: io::Result<()>) {
        let settled = self.context.volume.in_sync_settled();
        let now = self.context.runtime.now();
        let settle = {
            let mut state = self.state.borrow_mut();
            // A mirror that was given up may end its write much later.
            let Some(flight) = state.flight.as_mut().filter(|flight| flight.sequence == sequence) else {
                return;
            };
            match canary::of_write(result) {
                Ok(()) => {
                    flight.done = flight.done.with(drive);
                    flight.first_done.get_or_insert(now);
                }
                Err(error) if !flight.failed.contains(drive) => {
                    flight.failed = flight.failed.with(drive);
                    flight.reports.push((drive, format!("writing the log: {error}")));
                }
                Err(_) => {}
            }
            let in_sync = self.context.volume.in_sync().set;
            let first = canary::is_in(Canary::AcknowledgeFirstMirror) && !flight.done.is_empty();
            if flight.settling || !first && !flight.mirrors.and(in_sync).is_within(flight.ended()) {
                return;
            }
            let needed = flight.mirrors.and(in_sync);
            let healthy = settled.is_some() && flight.failed.is_empty() && !needed.is_empty();
            flight.settling = !healthy;
            !healthy
        };
        if settle {
            let inner = self.clone();
            self.context
                .runtime
                .spawn(Queue::Foreground, async move { inner.settle().await });
        } else {
            self.acknowledge();
        }
    }

    /// Acknowledges the batch in flight and takes the next turn.
    fn acknowledge(self: &Rc<Self>) {
        let sequence = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let flight = state.flight.take().expect("acknowledging the batch in flight");
            assert_eq!(flight.sequence, state.acknowledged.next(), "in sequence");
            state.acknowledged = flight.sequence;
            state.acknowledged_at = self.context.runtime.now();
            state.unmarked = flight.records > 0;
            state.stats.batches += 1;
            state.stats.markers += u64::from(flight.records == 0);
            state.stats.records += u64::from(flight.records);
            state.stats.bytes += flight.buffer.len() as u64;
            if state.spare.len() < SPARE_BUFFERS_MAX
                && let Ok(buffer) = Rc::try_unwrap(flight.buffer)
            {
                state.spare.push(buffer);
            }
            if state.gather.is_empty() && state.unmarked {
                self.arm_marker(state);
            }
            flight.sequence
        };
        self.progress.advance(sequence.0);
        self.start();
    }

    /// Takes failed and lagging mirrors out of the in-sync set, then acknowledges if the rest has finished.
    async fn settle(self: &Rc<Self>) {
        loop {
            let reports = {
                let mut state = self.state.borrow_mut();
                let Some(flight) = state.flight.as_mut() else {
                    return;
                };
                let in_sync = self.context.volume.in_sync().set;
                // One that has finished and left the set since is nobody to go on with.
                if flight.done.and(in_sync).is_empty() {
                    if !flight.mirrors.and(in_sync).is_within(flight.failed) {
                        // Another mirror may still finish: without one nobody is ejected.
                        flight.settling = false;
                        return;
                    }
                    let why = flight.reports.first().map_or_else(String::new, |(drive, why)| {
                        format!("{}: {why}", self.context.volume.path(*drive).display())
                    });
                    drop(state);
                    self.fail(LogError::Drive(
                        format!("every mirror of the log has failed: {why}").into(),
                    ));
                    return;
                }
                std::mem::take(&mut flight.reports)
            };
            for (drive, why) in reports {
                self.state.borrow_mut().stats.mirror_failures += 1;
                if let Err(error) = self.context.volume.report_failed(drive, why).await {
                    self.fail(error.into());
                    return;
                }
            }
            let in_sync = match self.context.volume.settled().await {
                Ok(in_sync) => in_sync.set,
                Err(error) => {
                    self.fail(error.into());
                    return;
                }
            };
            let mut state = self.state.borrow_mut();
            let Some(flight) = state.flight.as_mut() else {
                return;
            };
            let needed = flight.mirrors.and(in_sync);
            if needed.is_empty() {
                drop(state);
                self.fail(LogError::Drive(
                    "every mirror of the log has left the in-sync set".into(),
                ));
                return;
            }
            if needed.is_within(flight.done) {
                drop(state);
                self.acknowledge();
                return;
            }
            if flight.reports.is_empty() {
                flight.settling = false;
                return;
            }
        }
    }

    /// Keeps an eye on mirrors that lag, for as long as there is something to write.
    fn watch(self: &Rc<Self>, state: &mut State<R>) {
        if state.watchdog {
            return;
        }
        state.watchdog = true;
        let inner = self.clone();
        self.context.runtime.spawn(Queue::Foreground, async move {
            let lag_max = inner.context.config.lag_max;
            loop {
                inner.context.runtime.sleep(lag_max / 2).await;
                let now = inner.context.runtime.now();
                let settle = {
                    let mut state = inner.state.borrow_mut();
                    let in_sync = inner.context.volume.in_sync().set;
                    let Some(flight) = state.flight.as_mut() else {
                        state.watchdog = false;
                        return;
                    };
                    let ahead = !flight.done.and(in_sync).is_empty();
                    let late = ahead && flight.first_done.is_some_and(|first| now.since(first) >= lag_max);
                    let laggards = flight.mirrors.and(in_sync).minus(flight.ended());
                    // Nobody is waited for when another shard has taken the last laggard out.
                    let settle = !flight.settling && (late || laggards.is_empty());
                    if settle {
                        flight.settling = true;
                        for drive in laggards.iter() {
                            flight.failed = flight.failed.with(drive);
                            flight
                                .reports
                                .push((drive, "lagging behind another mirror".to_owned()));
                        }
                    }
                    settle
                };
                if settle {
                    inner.settle().await;
                }
            }
        });
    }

    /// Sees to it that the last acknowledgement is on the drives once the log has been idle for a while.
    fn arm_marker(self: &Rc<Self>, state: &mut State<R>) {
        if state.marker_timer || state.closing {
            return;
        }
        state.marker_timer = true;
        let inner = self.clone();
        self.context.runtime.spawn(Queue::Foreground, async move {
            let delay = inner.context.config.marker_delay;
            let mut left = delay;
            loop {
                inner.context.runtime.sleep(left).await;
                let now = inner.context.runtime.now();
                let mut state = inner.state.borrow_mut();
                let due = state.is_idle() && state.unmarked && !state.closing && state.failure.is_none();
                if !due {
                    state.marker_timer = false;
                    return;
                }
                left = delay.saturating_sub(now.since(state.acknowledged_at));
                if left.is_zero() {
                    state.marker_timer = false;
                    state.marker_wanted = true;
                    drop(state);
                    inner.start();
                    return;
                }
            }
        });
    }
}
