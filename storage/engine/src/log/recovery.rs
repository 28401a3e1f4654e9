//! What a start makes of the log's files: decided once, then made so on every mirror.
//!
//! 1. The newest anchor on any in-sync drive says which files there are; on which drives, see [`DriveSet::holders`]. A file header that the anchor cannot know
//!    proves that the anchor is lost; nothing is guessed then.
//! 2. The files are walked in order. At each place the expected batch (next sequence, chained to the batch before) is
//!    looked for on every in-sync mirror of the file; found on one, it is replayed and written, identically, to those
//!    mirrors where it was not.
//! 3. Found on none, the rest of the file is searched for a later batch. If a later batch, the anchor, or the end of a
//!    sealed file shows that the missing one was acknowledged, it is *lost*: named, with what the batch after it
//!    repeats about it, and the walk goes on behind it. Else it was the *torn tail*: dropped, and nothing behind it
//!    counts any more. Exception: where no mirror can be read the missing batch may have been acknowledged, and is lost.
//! 4. The last file is sealed at the last batch. The caller opens a new file under a new incarnation, and makes both
//!    durable in the anchor before the first append; whatever lies behind the seal can never count again.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Queue, Runtime, sync};

use super::anchor::{self, Anchor, AnchorFiles, Opened, anchor_name};
use super::batch::{Batch, BatchHeader};
use super::file::{FileEntry, slot_of_name};
use super::mirrored::on_all;
use super::walk::{Told, Walk, open_mirrors};
use super::{LogConfig, LogError, LogPosition, Lost, PartitionRange, Recovery, Replayed};
use crate::canary::{self, Canary};
use crate::ids::{LogId, LogSequence};
use crate::sealing::FileCipher;
use crate::volume::{DriveIndex, DriveSet, Volume};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A slot's files.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    /// Uses so far.
    pub(super) generation: u32,
    /// Length by drive.
    pub(super) bytes: BTreeMap<DriveIndex, u64>,
}

/// What recovery hands to the writer.
pub(super) struct Recovered<R: Runtime> {
    /// With the files that hold something, all of them sealed.
    pub(super) anchor: Anchor,
    pub(super) anchors: AnchorFiles<R>,
    pub(super) slots: BTreeMap<u32, Slot>,
    /// Sequence of the next batch.
    pub(super) next: LogSequence,
    /// Header checksum of the last batch; 0 when there is none or it is lost.
    pub(super) chain: u64,
    /// What the last batch held.
    pub(super) ranges: Vec<PartitionRange>,
    pub(super) report: Recovery,
}

/// What both phases need to know.
pub(super) struct Context<R: Runtime> {
    pub(super) runtime: R,
    pub(super) volume: Volume<R>,
    pub(super) log: LogId,
    pub(super) config: LogConfig,
    /// Whether mirrors are made alike; off to look only.
    pub(super) repair: bool,
}

impl<R: Runtime> Context<R> {
    pub(super) async fn eject(
        &self,
        drive: DriveIndex,
        what: &str,
        error: &io::Error,
    ) -> Result<(), LogError> {
        self.volume
            .report_failed(drive, format!("{what}: {error}"))
            .await?;
        Ok(())
    }

    /// Seals and opens the batches of one use of a file; none when the node is not encrypted.
    pub(super) fn cipher(&self, entry: &FileEntry) -> Option<FileCipher> {
        let key = self.volume.key()?;
        Some(key.log_cipher(self.log, entry.number, &entry.salt))
    }

    pub(super) fn drive(&self, index: DriveIndex) -> Result<R::Drive, LogError> {
        self.volume.drive(index).ok_or_else(|| LogError::NoMirror {
            log: self.log,
            what: format!("drive {index}, which is not open on this shard").into(),
        })
    }
}

/// What the drives hold of a log.
struct Located<R: Runtime> {
    anchor: Anchor,
    files: AnchorFiles<R>,
    slots: BTreeMap<u32, Slot>,
    /// Drives whose anchor is not the newest version.
    stale: DriveSet,
}

fn too_new(file: &str, version: u16) -> LogError {
    LogError::TooNew(format!("{file} (format {version})").into())
}

/// Finds the newest anchor, and all slots. Creates the anchor of a log that does not exist.
async fn locate<R: Runtime>(context: &Context<R>) -> Result<Located<R>, LogError> {
    let node = context.volume.node();
    let mut newest: Option<Anchor> = None;
    let mut versions: BTreeMap<DriveIndex, u64> = BTreeMap::new();
    let mut files: AnchorFiles<R> = BTreeMap::new();
    let mut slots: BTreeMap<u32, Slot> = BTreeMap::new();
    let mut file_number_max = None;
    let in_sync = context.volume.settled().await?.set;
    for index in in_sync.iter() {
        let drive = context.drive(index)?;
        let entries = match drive.list().await {
            Ok(entries) => entries,
            Err(error) => {
                context.eject(index, "listing", &error).await?;
                continue;
            }
        };
        for entry in entries {
            let Some((log, number)) = slot_of_name(&entry.name) else {
                continue;
            };
            if log != context.log || entry.bytes < 2 * BLOCK {
                continue;
            }
            let slot = slots.entry(number).or_default();
            slot.bytes.insert(index, entry.bytes / BLOCK * BLOCK);
            let header = async {
                let file = drive
                    .open(
                        &entry.name,
                        Open {
                            read_only: true,
                            ..Open::default()
                        },
                    )
                    .await?;
                file.read_at(0, BLOCK_BYTES).await
            };
            let Ok(block) = header.await else { continue };
            if let Some(version) = FileEntry::unknown_version(&block, log, number) {
                return Err(too_new(&entry.name, version));
            }
            if let Some(header) = FileEntry::decode_header(&block, Some(node), log, number) {
                slot.generation = slot.generation.max(header.generation + 1);
                file_number_max = file_number_max.max(Some(header.number));
            }
        }
        match anchor::open::<R>(&drive, node, context.log).await {
            Ok(Opened {
                unknown: Some(version),
                ..
            }) => return Err(too_new(&anchor_name(context.log), version)),
            Ok(Opened {
                file, newest: found, ..
            }) => {
                files.insert(index, file);
                versions.insert(index, found.as_ref().map_or(0, |found| found.version));
                if let Some(found) = found
                    && newest
                        .as_ref()
                        .is_none_or(|newest| newest.version < found.version)
                {
                    newest = Some(found);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => context.eject(index, "opening the anchor", &error).await?,
        }
    }
    let lost = |what: String| LogError::AnchorLost {
        log: context.log,
        what: what.into(),
    };
    let anchor = match newest {
        None if !slots.is_empty() => return Err(lost(format!("{} log files are there", slots.len()))),
        None => Anchor {
            node,
            log: context.log,
            version: 0,
            incarnation: 0,
            next_file: 1,
            base: LogSequence(1),
            acknowledged: LogSequence(0),
            files: Vec::new(),
        },
        Some(anchor) => match file_number_max {
            Some(number) if number >= anchor.next_file => {
                return Err(lost(format!(
                    "file {number} was opened after the newest anchor that can be read, which knows files below {}",
                    anchor.next_file
                )));
            }
            _ => anchor,
        },
    };
    let stale = versions.iter().filter(|(_, version)| **version < anchor.version);
    let stale = stale.map(|(index, _)| *index).collect();
    Ok(Located {
        anchor,
        files,
        slots,
        stale,
    })
}

/// Opens the anchor's file on every in-sync drive that lacks it, and writes the newest version to those that do not
/// hold it: the next version replaces the one before. A fresh anchor is written before any log file is
/// made, so that log files without an anchor always mean a loss.
async fn complete_anchors<R: Runtime>(
    context: &Context<R>,
    anchor: &mut Anchor,
    files: &mut AnchorFiles<R>,
    mut stale: DriveSet,
) -> Result<(), LogError> {
    let in_sync = context.volume.in_sync().set;
    files.retain(|index, _| in_sync.contains(*index));
    for index in in_sync.iter() {
        if files.contains_key(&index) {
            continue;
        }
        stale = stale.with(index);
        match anchor::create(&context.runtime, &context.drive(index)?, context.log).await {
            Ok(file) => {
                files.insert(index, file);
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(LogError::OutOfSpace(context.volume.path(index)));
            }
            Err(error) => context.eject(index, "creating the anchor", &error).await?,
        }
    }
    let mut set: DriveSet = files
        .keys()
        .copied()
        .filter(|index| stale.contains(*index))
        .collect();
    let shared = |anchor: &Anchor| Rc::new(anchor.clone());
    if anchor.version > 0 {
        // Another drive holds this version: one that cannot take it is a mirror less, and no reason to stop.
        let anchor = shared(anchor);
        for index in set.iter() {
            let write = anchor::write(context.runtime.clone(), files[&index].clone(), anchor.clone());
            let written = sync::spawn(&context.runtime, Queue::Foreground, write)
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the task was dropped")));
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(LogError::OutOfSpace(context.volume.path(index).to_owned()));
                }
                Err(error) => context.eject(index, "writing the anchor", &error).await?,
            }
        }
        set = DriveSet::EMPTY;
    } else {
        anchor.version = 1;
        set = files.keys().copied().collect();
    }
    if !set.is_empty() {
        let shared = shared(anchor);
        let lag_max = context.config.lag_max;
        on_all(
            &context.runtime,
            &context.volume,
            lag_max,
            set,
            "writing the anchor",
            |index| anchor::write(context.runtime.clone(), files[&index].clone(), shared.clone()),
        )
        .await?;
    }
    Ok(())
}

/// The walk over all files.
struct Scan<F> {
    next: LogSequence,
    /// Header checksum of the batch before; none where it is not known.
    chain: Option<u64>,
    ranges: Vec<PartitionRange>,
    report: Recovery,
    /// Found since the last batch.
    pending: Option<Lost>,
    replay: F,
}

impl<F: FnMut(Replayed<'_>)> Scan<F> {
    fn lose(&mut self, to: LogSequence) {
        if to < self.next {
            return;
        }
        let lost = self.pending.get_or_insert_with(|| Lost {
            first: self.next,
            last: to,
            known: Vec::new(),
            complete: false,
        });
        lost.last = to;
        self.next = to.next();
        self.chain = None;
        self.ranges.clear();
    }

    fn settle_loss(&mut self, after: Option<&Batch<'_>>) {
        let Some(mut lost) = self.pending.take() else {
            return;
        };
        if let Some(batch) = after {
            lost.known = batch.previous_ranges().collect();
            // What follows a loss at the end of an earlier log was written without knowing what that had held.
            lost.complete = lost.first == lost.last && batch.header.previous != 0;
        }
        (self.replay)(Replayed::Lost(&lost));
        self.report.lost.push(lost);
    }

    fn accept(&mut self, batch: &Batch<'_>) {
        self.settle_loss(Some(batch));
        let sequence = batch.header.sequence;
        for (record, place) in batch.records().zip(0..) {
            (self.replay)(Replayed::Record(
                LogPosition {
                    sequence,
                    record: place,
                },
                record,
            ));
            self.report.records += 1;
        }
        self.report.batches += 1;
        if self.report.first == LogSequence(0) {
            self.report.first = sequence;
        }
        self.next = sequence.next();
        self.chain = Some(batch.header.checksum);
        self.ranges = batch.ranges();
    }
}

/// What became of one file.
struct Walked {
    /// The first batch found in it.
    first: Option<LogSequence>,
    /// The tail was found: nothing behind it counts.
    ended: bool,
    /// Mirrors that lacked the last batch found.
    lacking: u64,
    /// The place behind the last batch found can be read on no mirror.
    unreadable: bool,
}

/// What became of the expected batch.
enum Step {
    /// It was there, with this length.
    Taken(u64),
    /// A mirror shows that it is not there.
    Absent,
    /// No mirror can be read there.
    Unreadable,
}

/// Recovers the log: see the head of this file.
pub(super) async fn recover<R: Runtime>(
    context: &Context<R>,
    replay: impl FnMut(Replayed<'_>),
) -> Result<Recovered<R>, LogError> {
    let Located {
        mut anchor,
        files: mut anchors,
        mut slots,
        stale,
    } = locate(context).await?;
    if context.repair {
        complete_anchors(context, &mut anchor, &mut anchors, stale).await?;
    }
    let mut scan = Scan {
        next: anchor.base,
        chain: None,
        ranges: Vec::new(),
        report: Recovery::default(),
        pending: None,
        replay,
    };
    let mut kept: Vec<FileEntry> = Vec::new();
    let mut tail_lacking = 0;
    let mut unreadable = None;
    for entry in anchor.files.clone() {
        let walked = walk(context, entry, &mut slots, &mut scan).await?;
        if walked.unreadable {
            unreadable = Some((scan.next, entry.number));
        }
        if walked.first.is_some() {
            tail_lacking = walked.lacking;
        }
        if walked.first.is_some() || entry.last != LogSequence(0) {
            let first = walked
                .first
                .filter(|_| entry.first == LogSequence(0))
                .unwrap_or(entry.first);
            // Whatever this file still lacked was found in the next one, or is lost: the seal covers both.
            kept.push(FileEntry {
                first,
                last: LogSequence(scan.next.0 - 1),
                ..entry
            });
        }
        if walked.ended {
            break;
        }
    }
    // Acknowledged by the anchor's word, and nowhere to be found.
    let acknowledged = anchor.acknowledged;
    scan.lose(acknowledged);
    // A batch that no file holds, and one may: whether it was acknowledged, nobody can tell.
    if let Some((next, number)) = unreadable
        && next == scan.next
    {
        if kept.is_empty() {
            return Err(LogError::NoMirror {
                log: context.log,
                what: format!("the first batch of file {number}").into(),
            });
        }
        scan.lose(next);
    }
    if let Some(entry) = kept.last_mut() {
        entry.last = LogSequence(scan.next.0 - 1);
    }
    if scan.next.0 > 1 && scan.pending.is_none() && tail_lacking > 0 && acknowledged.next() < scan.next {
        // The last batch was not known to be acknowledged: completing it is no repair of damage.
        scan.report.repaired -= tail_lacking;
        scan.report.completed += tail_lacking;
    }
    scan.settle_loss(None);
    scan.report.last = LogSequence(scan.next.0 - 1);
    anchor.base = kept.first().map_or(scan.next, |entry| entry.first);
    anchor.acknowledged = scan.report.last;
    anchor.files = kept;
    Ok(Recovered {
        anchor,
        anchors,
        slots,
        next: scan.next,
        chain: scan.chain.unwrap_or(0),
        ranges: scan.ranges,
        report: scan.report,
    })
}

async fn walk<R: Runtime, F: FnMut(Replayed<'_>)>(
    context: &Context<R>,
    entry: FileEntry,
    slots: &mut BTreeMap<u32, Slot>,
    scan: &mut Scan<F>,
) -> Result<Walked, LogError> {
    let mirrors = open_mirrors(context, &entry, slots).await?;
    let mut walk = Walk {
        context,
        entry,
        mirrors,
        cipher: context.cipher(&entry),
    };
    let mut walked = Walked {
        first: None,
        ended: false,
        lacking: 0,
        unreadable: false,
    };
    let sealed = entry.last != LogSequence(0);
    let mut offset = BLOCK;
    while offset + BLOCK <= entry.bytes() && !(sealed && scan.next > entry.last) {
        let unreadable = match step(&mut walk, offset, scan, &mut walked).await? {
            Step::Taken(bytes) => {
                offset += bytes;
                continue;
            }
            Step::Absent => false,
            Step::Unreadable => true,
        };
        let torn = tail_header(&mut walk, offset, scan.next).await;
        let Some((later, at)) = walk.look_ahead(offset, scan.next).await else {
            walked.unreadable = unreadable && !sealed;
            scan.report.dropped += u64::from(torn && !sealed && !unreadable);
            break;
        };
        let acknowledged = later.acknowledged.max(entry.last);
        if later.sequence > scan.next && acknowledged < scan.next {
            // Written before its predecessor was acknowledged: both are the torn tail.
            scan.report.dropped += 1 + u64::from(torn);
            walked.ended = true;
            break;
        }
        scan.lose(LogSequence(later.sequence.0 - 1));
        offset = at;
    }
    if sealed {
        scan.lose(entry.last);
    }
    if walked.first.is_some() {
        let block = entry.encode_header(context.volume.node(), context.log);
        let lacking = lacking_header(&mut walk, &block).await;
        if !lacking.is_empty() {
            scan.report.repaired += lacking.len() as u64;
            if context.repair {
                walk.repair(&lacking, 0, block).await?;
            }
        }
    }
    for mirror in &walk.mirrors {
        scan.report.bytes_read += mirror.bytes_read;
        if mirror.file.is_some()
            && let Some(slot) = slots.get_mut(&entry.slot)
        {
            let bytes = slot.bytes.entry(mirror.drive).or_insert(entry.bytes());
            *bytes = (*bytes).max(entry.bytes());
        }
    }
    Ok(walked)
}

/// Takes the expected batch at `offset`, if any mirror has it, and gives it to those that lack it. Answers its length.
async fn step<R: Runtime, F: FnMut(Replayed<'_>)>(
    walk: &mut Walk<'_, R>,
    offset: u64,
    scan: &mut Scan<F>,
    walked: &mut Walked,
) -> Result<Step, LogError> {
    let mut absent = false;
    let mut source: Option<(usize, BatchHeader)> = None;
    let mut lacking = Vec::new();
    for mirror in 0..walk.mirrors.len() {
        let all = walk.context.config.recover_all_mirrors || walk.entry.last == LogSequence(0);
        if source.is_some() && !all {
            break;
        }
        match walk.candidate(mirror, offset, scan.next, scan.chain).await? {
            Told::Batch(header) if source.is_none() => source = Some((mirror, header)),
            Told::Batch(header) if source.is_some_and(|(_, first)| header.checksum == first.checksum) => {}
            told => {
                absent |= matches!(told, Told::Nothing);
                lacking.push(mirror);
            }
        }
        if canary::is_in(Canary::BelieveFirstMirror) {
            break;
        }
    }
    let Some((source, header)) = source else {
        return Ok(if absent { Step::Absent } else { Step::Unreadable });
    };
    let copy = {
        let batch = walk
            .batch(source, header, offset)
            .expect("checked as a candidate");
        scan.accept(&batch);
        let bytes = walk.mirrors[source]
            .get(offset, header.bytes())
            .expect("loaded as a candidate");
        (!lacking.is_empty()).then(|| AlignedBuffer::from_slice(bytes))
    };
    walked.first = walked.first.or(Some(header.sequence));
    walked.lacking = lacking.len() as u64;
    scan.report.repaired += lacking.len() as u64;
    if let Some(copy) = copy
        && walk.context.repair
    {
        walk.repair(&lacking, offset, copy).await?;
    }
    Ok(Step::Taken(header.bytes() as u64))
}

/// Whether a mirror holds the header, but not the body, of the expected batch.
async fn tail_header<R: Runtime>(walk: &mut Walk<'_, R>, offset: u64, next: LogSequence) -> bool {
    for mirror in 0..walk.mirrors.len() {
        if walk
            .header(mirror, offset)
            .await
            .is_some_and(|header| header.sequence == next)
        {
            return true;
        }
    }
    false
}

async fn lacking_header<R: Runtime>(walk: &mut Walk<'_, R>, block: &[u8]) -> Vec<usize> {
    let end = walk.entry.bytes();
    let mut lacking = Vec::new();
    for (place, mirror) in walk.mirrors.iter_mut().enumerate() {
        let same = mirror.load(0, BLOCK_BYTES, end).await && mirror.get(0, BLOCK_BYTES) == Some(block);
        if !same {
            lacking.push(place);
        }
    }
    lacking
}
