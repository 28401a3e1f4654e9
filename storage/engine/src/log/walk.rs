//! One log file as recovery reads it: its mirrors, and what they say of a place.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Runtime};

use super::LogError;
use super::batch::{Batch, BatchHeader};
use super::file::{FileEntry, create_filled, slot_name};
use super::recovery::{Context, Slot};
use crate::ids::LogSequence;
use crate::sealing::FileCipher;
use crate::volume::DriveIndex;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// What one mirror says about the place of the expected batch.
pub(super) enum Told {
    /// It is there.
    Batch(BatchHeader),
    /// It is not there: had it been acknowledged, this mirror would hold it.
    Nothing,
    /// The place cannot be read.
    Unreadable,
}

/// Opens a file on the drives that hold it.
pub(super) async fn open_mirrors<R: Runtime>(
    context: &Context<R>,
    entry: &FileEntry,
    slots: &BTreeMap<u32, Slot>,
) -> Result<Vec<Mirror<R>>, LogError> {
    let set = context.volume.holders(entry.mirrors);
    if set.is_empty() {
        return Err(LogError::NoMirror {
            log: context.log,
            what: format!("file {} (mirrors {})", entry.number, entry.mirrors).into(),
        });
    }
    let mut mirrors = Vec::new();
    for index in set.iter() {
        let drive = context.drive(index)?;
        let there = slots.get(&entry.slot).and_then(|slot| slot.bytes.get(&index));
        let how = Open {
            durable: context.repair,
            read_only: !context.repair,
            ..Open::default()
        };
        let opened = match there {
            Some(bytes) if *bytes >= entry.bytes() => {
                drive.open(&slot_name(context.log, entry.slot), how).await
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let file = match opened {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if context.repair {
                    context.eject(index, "opening a log file", &error).await?;
                }
                continue;
            }
        };
        mirrors.push(Mirror {
            drive: index,
            file,
            chunk_at: 0,
            chunk: None,
            bytes_read: 0,
        });
    }
    Ok(mirrors)
}

/// One mirror of a file, read in large pieces.
pub(super) struct Mirror<R: Runtime> {
    pub(super) drive: DriveIndex,
    /// None when the file is not there.
    pub(super) file: Option<<R::Drive as Drive>::File>,
    chunk_at: u64,
    chunk: Option<AlignedBuffer>,
    pub(super) bytes_read: u64,
}

impl<R: Runtime> Mirror<R> {
    /// Makes `bytes` at `offset` available to [`Mirror::get`]; false when they cannot be read.
    pub(super) async fn load(&mut self, offset: u64, bytes: usize, end: u64) -> bool {
        if self.get(offset, bytes).is_some() {
            return true;
        }
        let Some(file) = &self.file else { return false };
        if offset + bytes as u64 > end {
            return false;
        }
        let ahead = usize::try_from(end - offset)
            .unwrap_or(usize::MAX)
            .min(CHUNK_BYTES)
            .max(bytes);
        // A bad block must not hide its neighbours: after an error only what is asked for is read.
        for length in [ahead, bytes] {
            if let Ok(chunk) = file.read_at(offset, length).await {
                self.bytes_read += length as u64;
                self.chunk_at = offset;
                self.chunk = Some(chunk);
                return true;
            }
        }
        false
    }

    pub(super) fn get(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.chunk_at)?).ok()?;
        self.chunk.as_ref()?.get(at..at + bytes)
    }
}

/// A file being walked.
pub(super) struct Walk<'a, R: Runtime> {
    pub(super) context: &'a Context<R>,
    pub(super) entry: FileEntry,
    pub(super) mirrors: Vec<Mirror<R>>,
    /// Opens its batches; none when the node is not encrypted.
    pub(super) cipher: Option<FileCipher>,
}

impl<R: Runtime> Walk<'_, R> {
    pub(super) async fn header(&mut self, mirror: usize, offset: u64) -> Option<BatchHeader> {
        let (log, end) = (self.context.log, self.entry.bytes());
        let mirror = &mut self.mirrors[mirror];
        if !mirror.load(offset, BLOCK_BYTES, end).await {
            return None;
        }
        let block = mirror.get(offset, BLOCK_BYTES)?;
        BatchHeader::decode(block, log, &self.entry, offset)
    }

    /// What one mirror says about the batch that is expected at `offset`. Fails when it has one of a version that this
    /// program does not know.
    pub(super) async fn candidate(
        &mut self,
        mirror: usize,
        offset: u64,
        next: LogSequence,
        chain: Option<u64>,
    ) -> Result<Told, LogError> {
        let (log, end) = (self.context.log, self.entry.bytes());
        if !self.mirrors[mirror].load(offset, BLOCK_BYTES, end).await {
            return Ok(Told::Unreadable);
        }
        let Some(header) = self.header(mirror, offset).await else {
            let block = self.mirrors[mirror].get(offset, BLOCK_BYTES);
            let unknown = |block| BatchHeader::unknown_version(block, log, &self.entry, offset);
            let Some(version) = block.and_then(unknown) else {
                return Ok(Told::Nothing);
            };
            let file = slot_name(log, self.entry.slot);
            return Err(LogError::TooNew(
                format!("a batch at byte {offset} of {file} (format {version})").into(),
            ));
        };
        // A batch that follows a lost one repeats no checksum, also when the lost one can be read again.
        let follows = chain.is_none_or(|chain| header.previous == chain || header.previous == 0);
        if header.sequence != next || !follows || offset + header.bytes() as u64 > end {
            return Ok(Told::Nothing);
        }
        if !self.mirrors[mirror].load(offset, header.bytes(), end).await {
            return Ok(Told::Unreadable);
        }
        let batch = self.batch(mirror, header, offset);
        Ok(batch.map_or(Told::Nothing, |batch| Told::Batch(batch.header)))
    }

    pub(super) fn batch(&self, mirror: usize, header: BatchHeader, offset: u64) -> Option<Batch<'_>> {
        let bytes = self.mirrors[mirror].get(offset, header.bytes())?;
        Batch::check(header, bytes, self.cipher.as_ref())
    }

    /// The first batch header, on any mirror, from `offset` on that is `next` or later; at `offset` itself only a
    /// later one.
    pub(super) async fn look_ahead(
        &mut self,
        mut offset: u64,
        next: LogSequence,
    ) -> Option<(BatchHeader, u64)> {
        let start = offset;
        while offset + BLOCK <= self.entry.bytes() {
            for mirror in 0..self.mirrors.len() {
                let Some(header) = self.header(mirror, offset).await else {
                    continue;
                };
                if header.sequence > next || (header.sequence == next && offset > start) {
                    return Some((header, offset));
                }
            }
            offset += BLOCK;
        }
        None
    }

    /// Writes `bytes` at `offset` of the mirrors that lack them.
    pub(super) async fn repair(
        &mut self,
        lacking: &[usize],
        offset: u64,
        bytes: AlignedBuffer,
    ) -> Result<(), LogError> {
        let context = self.context;
        let name = slot_name(context.log, self.entry.slot);
        let bytes = Rc::new(bytes);
        for place in lacking {
            let mirror = &mut self.mirrors[*place];
            let index = mirror.drive;
            if !context.volume.in_sync().set.contains(index) {
                continue;
            }
            let drive = context.drive(index)?;
            let written = async {
                let file = match &mirror.file {
                    Some(file) => file.clone(),
                    None => {
                        create_filled(&context.runtime, &drive, &name, self.entry.bytes()).await?;
                        drive
                            .open(
                                &name,
                                Open {
                                    durable: true,
                                    ..Open::default()
                                },
                            )
                            .await?
                    }
                };
                mirror.file = Some(file.clone());
                // Its own task: a durable write is never dropped half-way.
                let write = file.write_at(offset, bytes.clone());
                cairn_runtime::sync::spawn(&context.runtime, cairn_runtime::Queue::Foreground, write)
                    .await
                    .unwrap_or_else(|_| Err(io::Error::other("the task was dropped")))
            };
            match written.await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(LogError::OutOfSpace(context.volume.path(index)));
                }
                Err(error) => context.eject(index, "repairing the log", &error).await?,
            }
        }
        Ok(())
    }
}
