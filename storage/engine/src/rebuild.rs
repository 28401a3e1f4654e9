//! `rebuild`: every configured drive of a stopped node becomes an in-sync mirror again.
//!
//! 1. Open the node as a start would; refuse directories that cannot be read or that hold files which are not ours.
//! 2. For one drive after the other: give it its place ([`crate::volume::rejoin`]), and find what belongs on it:
//!    the log files and segments that it would be a holder of ([`DriveSet::holders`]) if it were in sync.
//! 3. Read the sources in full. What acknowledged data needs and no in-sync drive has whole ends the rebuild here,
//!    by name, before anything is deleted: the stale drive may be the last to have it.
//! 4. Delete the files on the drive, copy what belongs there byte by byte, and make it durable.
//! 5. Read the copies in full, against every checksum. What does not verify is a source's bad block that another
//!    mirror has whole: it is repaired, on all drives, as recovery and scrub would, and everything is read again.
//! 6. Only then make the drive a member of a new in-sync epoch.
//!
//! Nothing but repairs is written to in-sync drives before step 6, and files on the drive count for nothing until
//! then; so a crash leaves the node as it was, and the rebuild begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Queue, Runtime, sync};

use crate::config::EngineConfig;
use crate::config::OPEN_FILES_MAX;
use crate::engine::replay::Replay;
use crate::ids::{LogId, SegmentId};
use crate::log::{Log, LogConfig, LogFiles, Lost, anchor, log_of_name};
use crate::manifest::SegmentReference;
use crate::tree::{SegmentStore, segment_file_name, segment_of_file_name};
use crate::volume::rejoin::{Offline, Seat};
use crate::volume::{DriveSet, Volume, VolumeConfig, VolumeError, VolumeStatus};

/// Bytes read and written at once.
const PIECE_BYTES: u64 = 4 << 20;
/// Blocks cached while segments are verified: index leaves.
const CACHE_BYTES: u64 = 8 << 20;
/// How long to sleep between looks at repairs in flight.
const REPAIR_WAIT: Duration = Duration::from_millis(1);
/// The one file that stays while a drive is emptied: it counts for the majority.
const SUPERBLOCK: &str = "superblock";

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading what is to be copied.
    Verify,
    /// Copying.
    Copy,
    /// Reading the copies.
    VerifyCopies,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Directory of the drive being rebuilt.
    pub path: &'a Path,
    /// What is being done.
    pub step: Step,
    /// Bytes done in this step.
    pub bytes_done: u64,
    /// Bytes to do in this step.
    pub bytes_total: u64,
}

/// Why a drive cannot be rebuilt. It stays out of sync and the node as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebuildError {
    /// The node cannot be opened, or an epoch change not be made durable.
    Volume(VolumeError),
    /// A directory holds a file that is not ours.
    ForeignFile {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: String,
    },
    /// No in-sync drive has something whole.
    Damaged {
        /// Directory of the drive being rebuilt.
        path: PathBuf,
        /// What is damaged, in words.
        what: String,
    },
    /// A file cannot be written, or not be read back.
    Drive {
        /// Directory of the drive being rebuilt.
        path: PathBuf,
        /// What failed, in words.
        why: String,
    },
}

impl fmt::Display for RebuildError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RebuildError::Volume(error) => write!(formatter, "{error}"),
            RebuildError::ForeignFile { path, file } => write!(
                formatter,
                "{} holds \"{file}\", which is no file of this node: a rebuild empties the directory, so move it \
                 elsewhere first",
                path.display()
            ),
            RebuildError::Damaged { path, what } => write!(
                formatter,
                "{} is not rebuilt, and nothing on it was changed, as no in-sync drive has everything: {what}. \
                 `cairn check` lists all damage",
                path.display()
            ),
            RebuildError::Drive { path, why } => {
                write!(formatter, "{} is not rebuilt: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for RebuildError {}

impl From<VolumeError> for RebuildError {
    fn from(error: VolumeError) -> RebuildError {
        RebuildError::Volume(error)
    }
}

/// Makes every configured drive an in-sync mirror; answers the node as it is then.
///
/// # Errors
/// [`RebuildError`]; drives rebuilt before are in sync.
pub async fn rebuild<R: Runtime>(
    runtime: R,
    config: &VolumeConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<VolumeStatus, RebuildError> {
    let mut node = Offline::open(runtime.clone(), config).await?;
    for (path, drive) in node.outside()? {
        if let Some(drive) = drive {
            refuse_foreign(&path, &drive).await?;
        }
    }
    while let Some(seat) = node.seat().await? {
        let mut work = Work {
            runtime: runtime.clone(),
            node: &node,
            seat: &seat,
            progress,
            step: Step::Verify,
            done: 0,
            total: 0,
        };
        let plan = work.plan().await?;
        work.empty().await?;
        work.copy(&plan).await?;
        work.verify_copies(&plan).await?;
        node.admit(seat.index).await?;
    }
    Ok(node.status())
}

/// Whether a node writes files of this name to its drives.
fn is_ours(name: &str) -> bool {
    let whole = name
        .strip_suffix(".new")
        .or(name.strip_suffix(".part"))
        .unwrap_or(name);
    whole == SUPERBLOCK || log_of_name(whole).is_some() || segment_of_file_name(whole).is_some()
}

async fn refuse_foreign<D: Drive>(path: &Path, drive: &D) -> Result<(), RebuildError> {
    let unusable = |error: io::Error| VolumeError::Unusable {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let entries = drive.list().await.map_err(unusable)?;
    match entries
        .into_iter()
        .find(|entry| !is_ours(&entry.name) && entry.name != "lost+found")
    {
        Some(entry) => Err(RebuildError::ForeignFile {
            path: path.to_owned(),
            file: entry.name,
        }),
        None => Ok(()),
    }
}

/// What belongs on the drive.
#[derive(Default)]
struct Plan {
    logs: Vec<(LogId, LogFiles)>,
    segments: BTreeMap<SegmentId, SegmentReference>,
    /// Name, length and sources of every file to copy.
    files: Vec<(String, u64, DriveSet)>,
}

/// The rebuild of one drive.
struct Work<'a, R: Runtime> {
    runtime: R,
    node: &'a Offline<R>,
    seat: &'a Seat<R>,
    progress: &'a mut dyn FnMut(Progress<'_>),
    step: Step,
    done: u64,
    total: u64,
}

fn log_config() -> LogConfig {
    LogConfig {
        recover_all_mirrors: true,
        ..EngineConfig::default().log()
    }
}

fn describe(log: LogId, lost: &[Lost]) -> Option<String> {
    let lost = lost.first()?;
    let (first, last) = (lost.first, lost.last);
    Some(format!(
        "acknowledged batches {first} to {last} of log {log} cannot be read anywhere"
    ))
}

impl<R: Runtime> Work<'_, R> {
    fn damaged(&self, what: String) -> RebuildError {
        RebuildError::Damaged {
            path: self.seat.path.clone(),
            what,
        }
    }

    fn failed(&self, what: &str, error: &dyn fmt::Display) -> RebuildError {
        RebuildError::Drive {
            path: self.seat.path.clone(),
            why: format!("{what}: {error}"),
        }
    }

    fn begin(&mut self, step: Step, total: u64) {
        (self.step, self.done, self.total) = (step, 0, total);
        self.advance(0);
    }

    fn advance(&mut self, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        let (bytes_done, bytes_total) = (self.done, self.total);
        (self.progress)(Progress {
            path: &self.seat.path,
            step: self.step,
            bytes_done,
            bytes_total,
        });
    }

    /// The drives from which everything is read.
    fn sources(&self) -> Volume<R> {
        self.node.volume(DriveSet::EMPTY)
    }

    /// Whether a file with this recorded mirror set is to be on the drive.
    fn belongs(&self, named: DriveSet) -> bool {
        let volume = self.node.volume(DriveSet::EMPTY.with(self.seat.index));
        volume.holders(named).contains(self.seat.index)
    }

    /// Finds what belongs on the drive, and reads all of it.
    async fn plan(&mut self) -> Result<Plan, RebuildError> {
        let volume = self.sources();
        let mut plan = Plan::default();
        let mut references = BTreeMap::new();
        for log in volume.logs().await? {
            let mut replay = Replay::default();
            let config = log_config();
            let inspected = Log::inspect(self.runtime.clone(), volume.clone(), log, config, |event| {
                replay.meet(event)
            });
            let recovery = inspected.await.map_err(|error| self.damaged(error.to_string()))?;
            if let Some(what) = describe(log, &recovery.lost) {
                return Err(self.damaged(what));
            }
            let whole = replay
                .finish()
                .map_err(|why| self.damaged(format!("log {log}: {why}")))?;
            references.extend(
                whole
                    .partitions
                    .into_iter()
                    .flat_map(|recovered| recovered.state.segments),
            );
            let files = Log::files(self.runtime.clone(), volume.clone(), log, config).await;
            let files = files.map_err(|error| self.damaged(error.to_string()))?;
            // A log whose creation was cut off holds nothing.
            if files.anchor.version > 0 {
                plan.logs.push((log, files));
            }
        }
        for (log, found) in &plan.logs {
            let anchor_bytes = anchor::FILE_BYTES as u64;
            plan.files
                .push((anchor::anchor_name(*log), anchor_bytes, found.anchor_on));
            for (name, bytes, named, on) in &found.files {
                if self.belongs(*named) && !on.is_empty() {
                    plan.files.push((name.clone(), *bytes, *on));
                }
            }
        }
        self.verify_sources(&volume, references, &mut plan).await?;
        Ok(plan)
    }

    async fn verify_sources(
        &mut self,
        volume: &Volume<R>,
        references: BTreeMap<SegmentId, SegmentReference>,
        plan: &mut Plan,
    ) -> Result<(), RebuildError> {
        let bytes = |(_, reference): (&SegmentId, &SegmentReference)| reference.bytes;
        self.begin(Step::Verify, references.iter().map(bytes).sum());
        let store = SegmentStore::over(self.runtime.clone(), volume.clone(), CACHE_BYTES, OPEN_FILES_MAX);
        for (id, reference) in references {
            let segment = store
                .open(&reference)
                .await
                .map_err(|error| self.damaged(error.to_string()))?;
            // What does not belong on the drive was looked for all the same: the drive may hold its last copy.
            if self.belongs(reference.mirrors) {
                let damages = segment.verify().await;
                if let Some(damage) = damages.iter().find(|damage| damage.lost) {
                    let what = format!("segment-{id} at byte {}: {}", damage.offset, damage.why);
                    return Err(self.damaged(what));
                }
                plan.files.push((
                    segment_file_name(id),
                    reference.bytes,
                    volume.holders(reference.mirrors),
                ));
                plan.segments.insert(id, reference.clone());
            }
            self.advance(reference.bytes);
        }
        settle(&self.runtime, &store).await;
        Ok(())
    }

    /// Deletes everything on the drive but the superblock.
    async fn empty(&mut self) -> Result<(), RebuildError> {
        let drive = &self.seat.drive;
        let emptied = async {
            for entry in drive.list().await? {
                if is_ours(&entry.name) && entry.name != SUPERBLOCK {
                    drive.remove(&entry.name).await?;
                }
            }
            drive.sync().await
        };
        emptied.await.map_err(|error| self.failed("emptying it", &error))
    }

    async fn copy(&mut self, plan: &Plan) -> Result<(), RebuildError> {
        self.begin(Step::Copy, plan.files.iter().map(|(_, bytes, _)| bytes).sum());
        let volume = self.sources();
        for (name, bytes, on) in &plan.files {
            let mut sources = Vec::new();
            for drive in on.iter().filter_map(|index| volume.drive(index)) {
                let how = Open {
                    read_only: true,
                    ..Open::default()
                };
                // A source that cannot be opened is one less: what it lacks is found when the copy is verified.
                sources.extend(drive.open(name, how).await);
            }
            let copied = self.copy_file(&sources, name, *bytes).await;
            copied.map_err(|error| self.failed(&format!("copying {name}"), &error))?;
        }
        let synced = self.seat.drive.sync().await;
        synced.map_err(|error| self.failed("making its files durable", &error))
    }

    /// Copies a file; the next piece is read while one is written.
    async fn copy_file(
        &mut self,
        sources: &[<R::Drive as Drive>::File],
        name: &str,
        bytes: u64,
    ) -> io::Result<()> {
        let how = Open {
            create_new: true,
            ..Open::default()
        };
        let target = self.seat.drive.open(name, how).await?;
        target.allocate(bytes).await?;
        let mut writing: Option<sync::OneshotReceiver<io::Result<()>>> = None;
        let mut at = 0;
        while at < bytes {
            let piece = usize::try_from(PIECE_BYTES.min(bytes - at)).expect("a piece fits in memory");
            let content = Rc::new(read(sources, at, piece).await);
            if let Some(writing) = writing.take() {
                writing
                    .await
                    .unwrap_or_else(|_| Err(io::Error::other("the task was dropped")))?;
            }
            writing = Some(sync::spawn(
                &self.runtime,
                Queue::Background,
                target.write_at(at, content),
            ));
            at += piece as u64;
            self.advance(piece as u64);
        }
        if let Some(writing) = writing {
            writing
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the task was dropped")))?;
        }
        target.sync().await
    }

    async fn verify_copies(&mut self, plan: &Plan) -> Result<(), RebuildError> {
        self.begin(
            Step::VerifyCopies,
            plan.files.iter().map(|(_, bytes, _)| bytes).sum(),
        );
        for (log, files) in &plan.logs {
            self.verify_log(*log, files).await?;
        }
        let both = self.node.volume(DriveSet::EMPTY.with(self.seat.index));
        let healing = SegmentStore::over(self.runtime.clone(), both, CACHE_BYTES, OPEN_FILES_MAX);
        let mut damaged = BTreeSet::new();
        for (id, reference) in &plan.segments {
            if self.damage(reference).await.is_some() {
                damaged.insert(*id);
            }
            self.advance(reference.bytes);
        }
        for id in damaged {
            let reference = &plan.segments[&id];
            let segment = healing
                .open(reference)
                .await
                .map_err(|error| self.failed("verifying its segments", &error))?;
            segment.scrub().await;
            settle(&self.runtime, &healing).await;
            if let Some(why) = self.damage(reference).await {
                return Err(self.failed(&format!("verifying the copy of segment-{id}"), &why));
            }
        }
        Ok(())
    }

    /// What is wrong with the copy of a segment, if anything is.
    async fn damage(&self, reference: &SegmentReference) -> Option<String> {
        // A store of the one drive: nothing can be answered from another, nor from a cache.
        let store = SegmentStore::over(
            self.runtime.clone(),
            self.node.alone(self.seat.index),
            CACHE_BYTES,
            OPEN_FILES_MAX,
        );
        match store.open(reference).await {
            Err(error) => Some(error.to_string()),
            Ok(segment) => segment
                .verify()
                .await
                .first()
                .map(|damage| format!("byte {}: {}", damage.offset, damage.why)),
        }
    }

    /// Holds the copies of a log against its mirrors: recovery must find nothing to do.
    async fn verify_log(&mut self, log: LogId, files: &LogFiles) -> Result<(), RebuildError> {
        let index = self.seat.index;
        let both = self.node.volume(DriveSet::EMPTY.with(index));
        for mended in [false, true] {
            let inspected = Log::inspect(self.runtime.clone(), both.clone(), log, log_config(), |_| {}).await;
            let recovery = inspected.map_err(|error| self.failed("verifying the log", &error))?;
            if let Some(what) = describe(log, &recovery.lost) {
                return Err(self.failed("verifying the log", &what));
            }
            let copied = anchor::open::<R>(&self.seat.drive, both.node(), log).await;
            let newest = matches!(copied, Ok((_, Some(copied))) if copied == files.anchor);
            if recovery.repaired + recovery.completed == 0 && newest {
                self.advance(files.files.iter().map(|(_, bytes, ..)| bytes).sum());
                return Ok(());
            }
            if !mended {
                let mended = Log::mend(self.runtime.clone(), both.clone(), log, log_config()).await;
                mended.map_err(|error| self.failed("repairing the log", &error))?;
            }
        }
        let what = format!("verifying the copy of log {log}");
        Err(self.failed(&what, &"it differs from its mirrors, also after a repair"))
    }
}

/// Waits until no repair of a store is in flight.
async fn settle<R: Runtime>(runtime: &R, store: &SegmentStore<R>) {
    while store.is_repairing() {
        runtime.sleep(REPAIR_WAIT).await;
    }
}

/// Reads a piece from the first source that has it; block by block when none has all of it. What none can read is
/// zeros, which verify nowhere.
async fn read<F: File>(sources: &[F], at: u64, bytes: usize) -> AlignedBuffer {
    for source in sources {
        if let Ok(content) = source.read_at(at, bytes).await {
            return content;
        }
    }
    let mut content = AlignedBuffer::zeroed(bytes);
    for offset in (0..bytes).step_by(BLOCK_BYTES) {
        for source in sources {
            if let Ok(block) = source.read_at(at + offset as u64, BLOCK_BYTES).await {
                content[offset..offset + BLOCK_BYTES].copy_from_slice(&block);
                break;
            }
        }
    }
    content
}
