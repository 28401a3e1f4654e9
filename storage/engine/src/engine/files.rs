//! Segment files at the start: what nobody refers to goes, what a mirror lacks is copied.
//!
//! - A file that no partition refers to, or not on this drive, was left by a flush, compaction, copy or removal that was cut
//!   off, and is deleted.
//!   Exception: after a loss nothing is deleted, since the lost edits may have named it.
//! - A file that is missing on an in-sync drive of its mirror set, or is too short there, is copied from another
//!   under a name of its own and renamed when it is whole. A mirror that cannot take it, a full one too, leaves the
//!   in-sync set: whoever is in sync holds everything.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, Entry, File, Open, Runtime};

use crate::error::EngineError;
use crate::ids::{LogId, SegmentId};
use crate::manifest::SegmentReference;
use crate::tree::{segment_file_name, segment_of_file_name};
use crate::volume::{DriveIndex, Volume};

/// Bytes copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Ends the name of a copy that is not whole yet.
const PART_SUFFIX: &str = ".part";

/// What the drives hold.
#[derive(Default)]
pub(super) struct Survey {
    /// Referenced segments that are there in full.
    present: BTreeMap<DriveIndex, BTreeSet<SegmentId>>,
    /// Files that nobody refers to.
    orphans: Vec<(DriveIndex, String)>,
    /// Copies that were cut off.
    parts: Vec<(DriveIndex, String)>,
    /// Above every segment that a file is there of.
    pub(super) next_segment: u64,
}

#[derive(Default)]
pub(super) struct Tidied {
    /// Files deleted.
    pub(super) orphans: u64,
    /// Files copied.
    pub(super) restored: u64,
}

/// Looks at the segment files of the in-sync drives; changes nothing.
pub(super) async fn survey<R: Runtime>(
    volume: &Volume<R>,
    log: LogId,
    references: &BTreeMap<SegmentId, SegmentReference>,
) -> Result<Survey, EngineError> {
    let mut survey = Survey::default();
    for index in volume.in_sync().set.iter() {
        let Some(drive) = volume.drive(index) else {
            continue;
        };
        match drive.list().await {
            Ok(entries) => survey.take(index, log, references, &entries),
            Err(error) => report(volume, index, "listing it", &error).await?,
        }
    }
    Ok(survey)
}

impl Survey {
    fn take(
        &mut self,
        index: DriveIndex,
        log: LogId,
        references: &BTreeMap<SegmentId, SegmentReference>,
        entries: &[Entry],
    ) {
        let found = self.present.entry(index).or_default();
        for entry in entries {
            let whole_name = entry.name.strip_suffix(PART_SUFFIX).unwrap_or(&entry.name);
            let Some(segment) = segment_of_file_name(whole_name).filter(|id| id.log() == log) else {
                continue;
            };
            self.next_segment = self.next_segment.max(segment.counter() + 1);
            match references.get(&segment) {
                // Copied, but not named there before a crash; or struck, and not deleted yet.
                Some(reference) if whole_name == entry.name && !reference.mirrors.contains(index) => {
                    self.orphans.push((index, entry.name.clone()));
                }
                Some(reference) if whole_name == entry.name => {
                    if entry.bytes >= reference.bytes {
                        found.insert(segment);
                    }
                }
                Some(_) => self.parts.push((index, entry.name.clone())),
                None => self.orphans.push((index, entry.name.clone())),
            }
        }
    }
}

/// Deletes what is not needed, orphans only when `delete` says so, and copies what a drive lacks.
pub(super) async fn tidy<R: Runtime>(
    volume: &Volume<R>,
    references: &BTreeMap<SegmentId, SegmentReference>,
    survey: Survey,
    delete: bool,
) -> Result<Tidied, EngineError> {
    let mut tidied = Tidied::default();
    let orphans = survey.orphans.iter().filter(|_| delete);
    for (index, name) in orphans.chain(&survey.parts) {
        // A file that cannot be removed now is met again at the next start.
        if let Some(drive) = volume.drive(*index) {
            tidied.orphans += u64::from(drive.remove(name).await.is_ok());
        }
    }
    if tidied.orphans > 0 {
        for drive in survey.present.keys().filter_map(|index| volume.drive(*index)) {
            // Not needed for correctness: an orphan that comes back is deleted again.
            let _ = drive.sync().await;
        }
    }
    let present = survey.present;
    for (id, reference) in references {
        let on = |index: &DriveIndex| present.get(index).is_some_and(|found| found.contains(id));
        let holders = volume.holders(reference.mirrors);
        let (have, lack): (Vec<_>, Vec<_>) = holders.iter().partition(|index| on(index));
        for to in lack {
            match copy_from_any(volume, &have, to, *id, reference.bytes, &async |_| ()).await {
                Ok(copied) => tidied.restored += u64::from(copied),
                Err(error) => report(volume, to, "copying a segment to it", &error).await?,
            }
        }
    }
    Ok(tidied)
}

pub(super) async fn report<R: Runtime>(
    volume: &Volume<R>,
    index: DriveIndex,
    doing: &str,
    error: &io::Error,
) -> Result<(), EngineError> {
    let reported = volume.report_failed(index, format!("{doing}: {error}")).await;
    reported
        .map(drop)
        .map_err(|error| EngineError::Stopped(error.to_string().into()))
}

/// Copies a segment from those of `sources` that can be opened; false when none can, or `to` is gone. `pace` is awaited
/// with the bytes of every piece. The copy is durable under its name when this returns.
pub(super) async fn copy_from_any<R: Runtime>(
    volume: &Volume<R>,
    sources: &[DriveIndex],
    to: DriveIndex,
    segment: SegmentId,
    bytes: u64,
    pace: &impl AsyncFn(u64),
) -> io::Result<bool> {
    let _writing = volume.writing(to);
    let Some(to) = volume.drive(to) else {
        return Ok(false);
    };
    let how = Open {
        read_only: true,
        ..Open::default()
    };
    let mut opened = Vec::new();
    for source in sources.iter().filter_map(|index| volume.drive(*index)) {
        opened.extend(source.open(&segment_file_name(segment), how).await);
    }
    if opened.is_empty() {
        return Ok(false);
    }
    copy::<R>(&opened, &to, segment, bytes, pace).await?;
    Ok(true)
}

/// Copies a segment. What no source can read becomes zeros, which do not verify, so that a read of it is
/// answered from elsewhere or refused; nothing is made up.
async fn copy<R: Runtime>(
    sources: &[<R::Drive as Drive>::File],
    to: &R::Drive,
    segment: SegmentId,
    bytes: u64,
    pace: &impl AsyncFn(u64),
) -> io::Result<()> {
    let name = segment_file_name(segment);
    let part = format!("{name}{PART_SUFFIX}");
    match to.remove(&part).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let target = to
        .open(
            &part,
            Open {
                create_new: true,
                ..Open::default()
            },
        )
        .await?;
    target.allocate(bytes).await?;
    let mut at = 0;
    while at < bytes {
        let piece = usize::try_from(PIECE_BYTES.min(bytes - at)).expect("a piece fits in memory");
        let piece = piece.next_multiple_of(BLOCK_BYTES);
        target
            .write_at(at, Rc::new(read(sources, at, piece).await))
            .await?;
        at += piece as u64;
        pace(piece as u64).await;
    }
    target.sync().await?;
    to.rename(&part, &name).await?;
    to.sync().await
}

/// Reads a piece from the first source that has it; block by block when none has all of it. What none can read is
/// zeros.
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
