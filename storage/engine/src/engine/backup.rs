//! A copy of an engine that goes on serving: its state at one moment, as a log and segments on another volume.
//!
//! 1. [`Engine::hold`]: nothing is proposed from now on, and what was proposed before is applied. Whoever copies several
//!    engines holds all of them, so that there is one moment at which none of them moves: what one of them has of another
//!    (an index of its table) agrees with it. A hold ends by itself after [`HOLD_MAX`]: the backup gives up, never the writes.
//! 2. [`Hold::cut`] remembers that moment, in one synchronous step, and lets writes go on. A snapshot is open; memtables and segments
//!    are held as by a reader.
//! 3. [`Cut::copy_to`] writes what was in the memtables as segments, and lets go of them and of the snapshot; then it copies the
//!    segments one after the other, letting go of each: a hard link where the file systems agree, else bytes. Every block of every
//!    file is read back and verified. One that does not verify is repaired on the node from another mirror, as the scrub would, and the
//!    file is copied again from another one.
//! 4. A new log says what the partitions are, as a snapshot of the manifest does. It holds no mutations, so the log of the node is not
//!    copied, and a backup keeps none of it.
//!
//! **What a backup costs the node**: milliseconds without writes; what is overwritten while memtables are copied; the space
//! of segments that compaction has replaced and that are not copied yet; reads at [`BYTES_PER_SECOND`].
//! **Never**: a hold or a cut that outlives its holder; two of them at once. They are in memory only, so a crash leaves nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::timeout;
use cairn_runtime::{BLOCK_BYTES, Drive, File, Open, Queue, Runtime};

use super::edits::{BATCH_WAIT, SNAPSHOT_RECORD_BYTES, describe, edits_record};
use super::partition::{Applied, Standing};
use super::scrub::{NAP_MIN, Pace};
use super::snapshot::Snapshot;
use super::types::IndexUsage;
use super::{Engine, Inner};
use crate::PartitionDescriptor;
use crate::canary::{self, Canary};
use crate::error::EngineError;
use crate::ids::{LogSequence, PartitionId, SegmentId};
use crate::log::{Log, LogConfig, LogError};
use crate::manifest::{ManifestState, PartitionState, ScrubState, SegmentReference};
use crate::phase::{self, Phase};
use crate::tree::{Segment, SegmentStore, TreeCut, TreeError, segment_file_name};
use crate::volume::{DriveIndex, DriveSet, Volume, VolumeError, VolumeHandle};

/// Longest time for which writes are held back. Usually they are for as long as a group commit takes, some milliseconds.
pub const HOLD_MAX: Duration = Duration::from_secs(1);
/// Bytes that one engine's backup reads in a second, at most.
pub const BYTES_PER_SECOND: u64 = 256 << 20;
/// Bytes read and written at once.
const PIECE_BYTES: usize = 1 << 20;
/// Blocks of the copy that are cached while it is verified: index leaves.
const CACHE_BYTES: u64 = 4 << 20;
/// Files of the copy that are open at once.
const OPEN_FILES_MAX: usize = 8;
/// How often a segment is copied that does not verify.
const ATTEMPTS_MAX: usize = 4;
/// How long to sleep between looks at repairs in flight.
const REPAIR_WAIT: Duration = Duration::from_millis(1);
/// Marks no hold.
const NONE: u64 = 0;
/// Why nothing more can be written.
const FULL: &str = "its file system is full";

/// Why there is no backup. The node goes on as if none had been asked for.
#[derive(Debug, Clone)]
pub enum BackupError {
    /// Another one is under way.
    Busy,
    /// Writes in flight did not end within [`HOLD_MAX`], or the other engines' did not.
    NotQuiet,
    /// A partition cannot be read, so that no backup would be whole.
    Fenced {
        /// The partition.
        partition: PartitionId,
        /// What is lost, in words.
        why: Rc<str>,
    },
    /// A segment does not verify, however it is copied.
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// What is wrong, in words.
        why: Rc<str>,
    },
    /// The engine, or the process, does not do it.
    Engine(EngineError),
    /// The directory of the backup cannot be written, in words.
    Target(Rc<str>),
}

impl fmt::Display for BackupError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Busy => write!(formatter, "another backup is under way"),
            BackupError::NotQuiet => write!(
                formatter,
                "writes in flight did not end within {} ms, and others were not to wait longer: try again",
                HOLD_MAX.as_millis()
            ),
            BackupError::Fenced { partition, why } => write!(
                formatter,
                "partition {partition} cannot be read, so a backup would not be whole: {why}"
            ),
            BackupError::Damaged { segment, why } => write!(
                formatter,
                "segment-{segment} cannot be copied whole: {why}; `cairn drives scrub` finds out whether any mirror has it"
            ),
            BackupError::Engine(error) => write!(formatter, "{error}"),
            BackupError::Target(why) => write!(formatter, "the backup cannot be written: {why}"),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<EngineError> for BackupError {
    fn from(error: EngineError) -> BackupError {
        BackupError::Engine(error)
    }
}

impl From<VolumeError> for BackupError {
    fn from(error: VolumeError) -> BackupError {
        BackupError::Target(error.to_string().into())
    }
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> BackupError {
        if error.kind() == io::ErrorKind::StorageFull {
            return BackupError::Target(FULL.into());
        }
        BackupError::Target(error.to_string().into())
    }
}

/// What the copy of one engine came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// Segment files, those made of memtables included.
    pub segments: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files among them that are hard links.
    pub linked: u64,
}

/// The backup that an engine takes part in.
#[derive(Default)]
pub(super) struct Backing {
    /// Number of the last hold.
    last: Cell<u64>,
    /// The hold that keeps proposals back, or [`NONE`].
    held: Cell<u64>,
    /// Whether a hold or a cut is there.
    busy: Cell<bool>,
}

/// Says for as long as it is there that a backup is under way.
struct Turn<R: Runtime> {
    inner: Rc<Inner<R>>,
    number: u64,
}

impl<R: Runtime> Turn<R> {
    fn take(inner: &Rc<Inner<R>>) -> Result<Turn<R>, BackupError> {
        let backing = &inner.backing;
        if backing.busy.replace(true) {
            return Err(BackupError::Busy);
        }
        let number = backing.last.get() + 1;
        backing.last.set(number);
        Ok(Turn {
            inner: Rc::clone(inner),
            number,
        })
    }
}

impl<R: Runtime> Drop for Turn<R> {
    fn drop(&mut self) {
        self.inner.let_go(self.number);
        self.inner.backing.busy.set(false);
    }
}

impl<R: Runtime> Inner<R> {
    /// Whether nothing may be proposed for now.
    pub(super) fn is_held(&self) -> bool {
        self.backing.held.get() != NONE
    }

    /// Resolves when proposals are let through.
    pub(super) async fn not_held(&self) {
        loop {
            let changed = self.relief.notified();
            if !self.is_held() || self.is_stopped() {
                return;
            }
            changed.await;
        }
    }

    /// Ends a hold, if it is the one of that number.
    fn let_go(&self, number: u64) {
        if self.backing.held.get() == number {
            self.backing.held.set(NONE);
            self.relief.notify_all();
        }
    }
}

/// An engine that proposes nothing. Dropping it lets writes go on.
pub struct Hold<R: Runtime> {
    turn: Turn<R>,
    snapshot: Snapshot<R>,
}

/// An engine at one moment.
pub struct Cut<R: Runtime> {
    turn: Turn<R>,
    snapshot: Option<Snapshot<R>>,
    partitions: Vec<PartitionCut<R>>,
    next_segment: u64,
    pace: Pace,
}

struct PartitionCut<R: Runtime> {
    descriptor: PartitionDescriptor,
    applied: Applied,
    indexes: Vec<IndexUsage>,
    tree: TreeCut<R>,
}

impl<R: Runtime> Engine<R> {
    /// Holds back everything that would be proposed, and resolves when everything proposed before is applied.
    ///
    /// # Errors
    /// [`BackupError::Busy`], [`BackupError::NotQuiet`], or why the engine has stopped. Writes go on then.
    pub async fn hold(&self) -> Result<Hold<R>, BackupError> {
        let _phase = phase::enter(Phase::Backup);
        let inner = &self.inner;
        inner.check_runs()?;
        let turn = Turn::take(inner)?;
        inner.backing.held.set(turn.number);
        let (number, weak) = (turn.number, Rc::downgrade(inner));
        let limit = inner.runtime.sleep(HOLD_MAX);
        inner.runtime.spawn(Queue::Foreground, async move {
            limit.await;
            if let Some(inner) = weak.upgrade() {
                inner.let_go(number);
            }
        });
        let snapshot = timeout(&inner.runtime, HOLD_MAX, self.snapshot(None)).await;
        let snapshot = snapshot.map_err(|_| BackupError::NotQuiet)??;
        Ok(Hold { turn, snapshot })
    }
}

impl<R: Runtime> Hold<R> {
    /// Remembers the engine as it is, and lets writes go on. To be called when all engines of the node are held.
    ///
    /// # Errors
    /// [`BackupError::NotQuiet`] when the hold has ended; [`BackupError::Fenced`].
    pub fn cut(self) -> Result<Cut<R>, BackupError> {
        let Hold { turn, snapshot } = self;
        let inner = Rc::clone(&turn.inner);
        if inner.backing.held.get() != turn.number {
            return Err(BackupError::NotQuiet);
        }
        let mut partitions = Vec::new();
        for partition in inner.partitions.borrow().values() {
            let fenced = |why: &Rc<str>| BackupError::Fenced {
                partition: partition.descriptor.id,
                why: Rc::clone(why),
            };
            if let Standing::Fenced(why) = &*partition.standing.borrow() {
                return Err(fenced(why));
            }
            let tree = partition.tree.cut();
            partitions.push(PartitionCut {
                descriptor: partition.descriptor.clone(),
                applied: partition.applied.get(),
                indexes: partition.index_counts.borrow().all().to_vec(),
                tree: tree.ok_or_else(|| fenced(&"one of its segments is missing".into()))?,
            });
        }
        inner.let_go(turn.number);
        Ok(Cut {
            next_segment: inner.next_segment.get(),
            pace: Pace::new(inner.runtime.now()),
            snapshot: Some(snapshot),
            partitions,
            turn,
        })
    }
}

impl<R: Runtime> Cut<R> {
    /// About how many bytes [`Cut::copy_to`] has to write.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let trees = self.partitions.iter().map(|partition| &partition.tree);
        trees
            .map(|tree| tree.segment_bytes() + tree.memtable_bytes() as u64)
            .sum()
    }

    /// Writes the copy to the one drive of `target`: files are durable when this returns, the directory is not. `advance` is told
    /// the bytes that have been written and verified since it was last called.
    ///
    /// # Errors
    /// [`BackupError`]; what has been written is of no use.
    pub async fn copy_to(
        mut self,
        target: &VolumeHandle,
        advance: &dyn Fn(u64),
    ) -> Result<Copied, BackupError> {
        let _phase = phase::enter(Phase::Backup);
        let inner = Rc::clone(&self.turn.inner);
        let volume = target.attach(inner.runtime.clone()).await?;
        let set = volume.in_sync().set;
        let index = set.iter().next().ok_or(VolumeError::Stopped)?;
        let Some(drive) = volume.drive(index) else {
            return Err(VolumeError::Stopped.into());
        };
        let work = Work {
            inner: &inner,
            store: SegmentStore::over(
                inner.runtime.clone(),
                volume.clone(),
                CACHE_BYTES,
                0,
                OPEN_FILES_MAX,
            ),
            drive: drive.clone(),
            set,
            pace: &self.pace,
            advance,
            copied: RefCell::default(),
        };
        let mut manifest = ManifestState {
            scrub: ScrubState::default(),
            ..ManifestState::default()
        };
        let at = self.snapshot.as_ref().map(Snapshot::at).unwrap_or_default();
        let mut trees = Vec::new();
        let mut counter = self.next_segment;
        for partition in std::mem::take(&mut self.partitions) {
            let PartitionCut {
                descriptor,
                applied,
                indexes,
                mut tree,
            } = partition;
            let id = descriptor.id;
            let mut state = PartitionState {
                item_count: applied.item_count,
                item_bytes: applied.item_bytes,
                indexes: indexes.iter().map(|usage| (usage.index, *usage)).collect(),
                // Nothing up to the moment is given out again.
                floor: applied.floor.max(at),
                flushed_commit: applied.floor,
                flushed_index: applied.index,
                ..PartitionState::new(descriptor)
            };
            work.check()?;
            let bytes = tree.memtable_bytes() as u64;
            let next = || {
                counter += 1;
                SegmentId::new(inner.log.id(), counter - 1).expect("2^40 segments are not used up")
            };
            let written = tree.write_memtables(&work.store, at, next).await;
            for reference in written.map_err(target_refused)? {
                work.verify(&reference)
                    .await?
                    .map_err(|why| BackupError::Damaged {
                        segment: reference.id,
                        why,
                    })?;
                work.count(reference.bytes, false);
                state.segments.insert(reference.id, reference);
            }
            (work.advance)(bytes);
            trees.push((id, tree));
            manifest.partitions.insert(id, state);
        }
        // The memtables are written: from here on only segments are held.
        self.snapshot = None;
        manifest.next_segment = counter;
        let mut there = BTreeSet::new();
        for (id, tree) in trees {
            for (segment, reference) in tree.into_segments() {
                if there.insert(reference.id) {
                    work.copy(&segment, &reference).await?;
                }
                let state = manifest.partitions.get_mut(&id).expect("put there above");
                state.segments.insert(reference.id, work.moved(&reference));
            }
        }
        manifest
            .validate()
            .map_err(|error| EngineError::Corrupt(error.to_string().into()))?;
        write_log(&inner, &volume, &manifest).await?;
        Ok(work.copied.into_inner())
    }
}

/// What a failure of writing a segment of the copy means.
fn target_refused(error: TreeError) -> BackupError {
    match error {
        TreeError::OutOfSpace { .. } => BackupError::Target(FULL.into()),
        error => BackupError::Target(error.to_string().into()),
    }
}

/// The copying of one engine.
struct Work<'a, R: Runtime> {
    inner: &'a Inner<R>,
    /// The segments of the copy.
    store: Rc<SegmentStore<R>>,
    drive: R::Drive,
    set: DriveSet,
    pace: &'a Pace,
    advance: &'a dyn Fn(u64),
    copied: RefCell<Copied>,
}

impl<R: Runtime> Work<'_, R> {
    /// # Errors
    /// When the engine is being closed: the process is not to wait for a backup.
    fn check(&self) -> Result<(), EngineError> {
        self.inner.check_runs()
    }

    fn count(&self, bytes: u64, linked: bool) {
        let mut copied = self.copied.borrow_mut();
        copied.segments += 1;
        copied.bytes += bytes;
        copied.linked += u64::from(linked);
    }

    async fn rest(&self, bytes: u64) {
        let nap = self.pace.spend(self.inner.runtime.now(), bytes, BYTES_PER_SECOND);
        if nap >= NAP_MIN && !self.inner.is_stopped() {
            self.inner.runtime.sleep(nap).await;
        }
    }

    /// How the copy refers to a segment.
    fn moved(&self, reference: &SegmentReference) -> SegmentReference {
        SegmentReference {
            mirrors: self.set,
            ..reference.clone()
        }
    }

    /// Copies a segment and verifies the copy.
    async fn copy(&self, segment: &Rc<Segment<R>>, reference: &SegmentReference) -> Result<(), BackupError> {
        let mut why: Rc<str> = "no drive that holds it is there".into();
        for attempt in 0..ATTEMPTS_MAX {
            self.check()?;
            let linked = attempt == 0 && self.link(segment, reference).await;
            if !linked {
                self.copy_bytes(segment, reference, attempt).await?;
            }
            match self.verify(&self.moved(reference)).await? {
                Ok(()) => {
                    self.count(reference.bytes, linked);
                    (self.advance)(reference.bytes);
                    return Ok(());
                }
                Err(wrong) => why = wrong,
            }
            self.store.remove_files(reference.id).await;
            // What another mirror has whole is repaired, on the node too.
            segment.scrub_paced(&async |bytes| self.rest(bytes).await).await;
            while self.inner.trees.store().is_repairing() {
                self.inner.runtime.sleep(REPAIR_WAIT).await;
            }
        }
        Err(BackupError::Damaged {
            segment: reference.id,
            why,
        })
    }

    /// Gives a segment's file another name on the drive of the copy, when that is on the same file system. Of the links that a
    /// file system refuses none is an error: bytes are copied then.
    async fn link(&self, segment: &Rc<Segment<R>>, reference: &SegmentReference) -> bool {
        let name = segment_file_name(reference.id);
        for index in segment.mirrors().iter() {
            if let Some(source) = self.inner.volume.drive(index)
                && source.device() == self.drive.device()
                && source.link(&name, &self.drive, &name).await.is_ok()
            {
                return true;
            }
        }
        false
    }

    /// Copies a segment's bytes, from another mirror first at every attempt, and makes them durable.
    async fn copy_bytes(
        &self,
        segment: &Rc<Segment<R>>,
        reference: &SegmentReference,
        attempt: usize,
    ) -> Result<(), BackupError> {
        let name = segment_file_name(reference.id);
        let mirrors: Vec<DriveIndex> = segment.mirrors().iter().collect();
        let mut sources = Vec::new();
        for at in 0..mirrors.len() {
            let index = mirrors[(at + attempt) % mirrors.len()];
            let how = Open {
                read_only: true,
                ..Open::default()
            };
            if let Some(drive) = self.inner.volume.drive(index) {
                // One that cannot be opened is one less; what is missing is found when the copy is verified.
                sources.extend(drive.open(&name, how).await);
            }
        }
        let how = Open {
            create_new: true,
            ..Open::default()
        };
        let file = self.drive.open(&name, how).await?;
        file.allocate(reference.bytes).await?;
        let mut at = 0;
        while at < reference.bytes {
            self.check()?;
            let left = usize::try_from(reference.bytes - at).unwrap_or(usize::MAX);
            let piece = left.min(PIECE_BYTES);
            for source in &sources {
                if let Ok(content) = source.read_at(at, piece).await {
                    file.write_at(at, Rc::new(content)).await?;
                    break;
                }
            }
            at += piece as u64;
            self.rest(piece as u64).await;
        }
        file.sync().await?;
        Ok(())
    }

    /// Reads every block of a segment of the copy; what is wrong, if anything is.
    async fn verify(&self, reference: &SegmentReference) -> Result<Result<(), Rc<str>>, BackupError> {
        if canary::is_in(Canary::TrustCopies) {
            return Ok(Ok(()));
        }
        let segment = match self.store.open(reference).await {
            Ok(segment) => segment,
            Err(TreeError::Exhausted { why }) => return Err(EngineError::Exhausted(why).into()),
            Err(TreeError::Volume(error)) => return Err(error.into()),
            Err(error) => return Ok(Err(error.to_string().into())),
        };
        let pace = async |bytes: u64| self.rest(bytes).await;
        let damages = segment.scrub_paced(&pace).await;
        Ok(match damages.first() {
            Some(damage) => Err(format!("byte {}: {}", damage.offset, damage.why).into()),
            None => Ok(()),
        })
    }
}

/// Writes a log that says what `manifest` says.
async fn write_log<R: Runtime>(
    inner: &Inner<R>,
    volume: &Volume<R>,
    manifest: &ManifestState,
) -> Result<(), BackupError> {
    let ids: Vec<PartitionId> = manifest.partitions.keys().copied().collect();
    let mut rest = ids.as_slice();
    let mut payloads = Vec::new();
    loop {
        let mut payload = Vec::new();
        let stated = describe(manifest, rest, SNAPSHOT_RECORD_BYTES, &mut payload);
        rest = &rest[stated..];
        payloads.push(payload);
        if rest.is_empty() {
            break;
        }
    }
    let longest = payloads.iter().map(Vec::len).max().unwrap_or(0);
    let config = LogConfig {
        record_bytes_max: longest,
        ..inner.config.log()
    };
    // One file has room for all of it: each record may be a batch of its own.
    let all: usize = payloads
        .iter()
        .map(|payload| payload.len() + 2 * BLOCK_BYTES)
        .sum();
    let file_bytes = (all + 2 * config.largest_batch_bytes()) as u64;
    let config = LogConfig {
        file_bytes,
        first_file_bytes: file_bytes,
        ..config
    };
    let refused = |error: LogError| match error {
        LogError::OutOfSpace(_) => BackupError::Target(FULL.into()),
        error => BackupError::Target(error.to_string().into()),
    };
    let opened = Log::open(
        inner.runtime.clone(),
        volume.clone(),
        inner.log.id(),
        config,
        |_| {},
    );
    let (log, _) = opened.await.map_err(refused)?;
    let mut last = LogSequence(0);
    for payload in &payloads {
        loop {
            match log.append_reserved(edits_record(payload)) {
                Ok(position) => {
                    last = position.sequence;
                    break;
                }
                Err(LogError::Full) => inner.runtime.sleep(BATCH_WAIT).await,
                Err(error) => return Err(refused(error)),
            }
        }
    }
    log.durable(last).await.map_err(refused)?;
    log.close().await.map_err(refused)
}
