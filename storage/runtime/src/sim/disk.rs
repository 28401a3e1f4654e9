//! The state of one simulated drive: files with a live and a durable image, directory, and what a power loss
//! does to them. No time, no tasks: [`super::storage`] decides when, [`super::fault`] what goes wrong.
//!
//! Invariants:
//! - a file's durable image differs from its live one only in blocks that `unsynced` lists, and in its length.
//! - `used_bytes` is the sum of the live lengths of the files that are named or open.
//! - file ids are never reused, so an operation that outlives its file finds nothing.

mod loss;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::fault::{FaultConfig, FaultCounters, FaultKind, Injector};
use super::image::{Block, BlockMap, SECTORS_ALL, block_from, compose, damage};
use super::random::Random;
use crate::BLOCK_BYTES;
use crate::seam::Entry;

pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;

/// `EIO` as the kernel gives it.
pub(super) fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// `ENODEV`.
pub(super) fn no_device() -> io::Error {
    io::Error::from_raw_os_error(19)
}

/// `ENOSPC`.
pub(super) fn storage_full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(2)
}

fn already_exists() -> io::Error {
    io::Error::from_raw_os_error(17)
}

struct Unsynced {
    sequence: u64,
    block: u64,
    content: Block,
    /// A sync failed to keep it and no later one will.
    abandoned: bool,
}

#[derive(Default)]
pub(super) struct FileState {
    pub(super) live: BlockMap,
    durable: BlockMap,
    pub(super) live_bytes: u64,
    durable_bytes: u64,
    unsynced: Vec<Unsynced>,
    names: u32,
    opens: u32,
    /// Blocks `first..end` of writes in flight, by operation id.
    pub(super) in_flight: Vec<(u64, u64, u64)>,
}

#[derive(Debug, Clone)]
enum DirectoryChange {
    Name { name: String, file: u64 },
    Remove { name: String },
    Rename { from: String, to: String, file: u64 },
}

impl DirectoryChange {
    /// The file that it names.
    fn file(&self) -> Option<u64> {
        match self {
            DirectoryChange::Name { file, .. } | DirectoryChange::Rename { file, .. } => Some(*file),
            DirectoryChange::Remove { .. } => None,
        }
    }
}

pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) device: u64,
    pub(super) exists: bool,
    pub(super) attached: bool,
    /// Rises when the drive comes back: what was opened before is dead.
    pub(super) generation: u32,
    /// Holder of the lock: node and incarnation.
    pub(super) lock: Option<(usize, u32)>,
    pub(super) capacity_bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) stalled_until: u64,
    pub(super) files: BTreeMap<u64, FileState>,
    pub(super) names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    changes: Vec<(u64, DirectoryChange)>,
    /// Rises with every completed change; a sync covers those up to its own submission.
    pub(super) sequence: u64,
    file_next: u64,
    pub(super) injector: Injector,
    pub(super) counters: FaultCounters,
    /// File and block that no read can pass until they are written again.
    unreadable: BTreeSet<(u64, u64)>,
}

impl Disk {
    pub(super) fn new(path: PathBuf, device: u64, capacity_bytes: u64, faults: FaultConfig) -> Disk {
        Disk {
            path,
            device,
            exists: false,
            attached: true,
            generation: 0,
            lock: None,
            capacity_bytes,
            used_bytes: 0,
            stalled_until: 0,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            changes: Vec::new(),
            sequence: 0,
            file_next: 1,
            injector: Injector::new(faults),
            counters: FaultCounters::default(),
            unreadable: BTreeSet::new(),
        }
    }

    /// No more faults by chance or waiting to happen; there if it was gone.
    pub(super) fn calm(&mut self) {
        self.injector.config = FaultConfig::NONE;
        self.injector.directed.clear();
        self.stalled_until = 0;
        if !std::mem::replace(&mut self.attached, true) {
            self.generation += 1;
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn changed(&mut self, change: DirectoryChange) {
        let sequence = self.next_sequence();
        self.changes.push((sequence, change));
    }

    fn file(&mut self, file: u64) -> io::Result<&mut FileState> {
        self.files.get_mut(&file).ok_or_else(input_output_error)
    }

    // Directory.

    /// Opens or creates, and counts the handle. Answers the file's id.
    pub(super) fn open(&mut self, name: &str, create_new: bool) -> io::Result<u64> {
        let file = match (self.names.get(name).copied(), create_new) {
            (Some(_), true) => return Err(already_exists()),
            (None, false) => return Err(not_found()),
            (Some(file), false) => file,
            (None, true) => {
                let file = self.file_next;
                self.file_next += 1;
                self.files.insert(
                    file,
                    FileState {
                        names: 1,
                        ..FileState::default()
                    },
                );
                self.names.insert(name.to_owned(), file);
                self.changed(DirectoryChange::Name {
                    name: name.to_owned(),
                    file,
                });
                file
            }
        };
        self.file(file)?.opens += 1;
        Ok(file)
    }

    /// One handle less.
    pub(super) fn close(&mut self, file: u64) {
        let Some(state) = self.files.get_mut(&file) else {
            return;
        };
        state.opens -= 1;
        let (freed, idle) = (state.live_bytes, state.opens == 0 && state.names == 0);
        if idle {
            self.used_bytes -= freed;
            // No other file has become unreachable.
            if !self.is_named(file) {
                self.files.remove(&file);
            }
        }
    }

    /// Whether a crash may bring a name of the file back.
    fn is_named(&self, file: u64) -> bool {
        let mut pending = self.changes.iter();
        self.names_durable.values().any(|named| *named == file)
            || pending.any(|(_, change)| change.file() == Some(file))
    }

    /// Forgets files that nothing can reach any more.
    fn collect(&mut self) {
        let pending = self.changes.iter().filter_map(|(_, change)| change.file());
        let named: BTreeSet<u64> = self.names_durable.values().copied().chain(pending).collect();
        self.files
            .retain(|id, file| file.names > 0 || file.opens > 0 || named.contains(id));
    }

    pub(super) fn list(&self) -> Vec<Entry> {
        let entry = |(name, file): (&String, &u64)| Entry {
            name: name.clone(),
            bytes: self.files[file].live_bytes,
        };
        self.names.iter().map(entry).collect()
    }

    fn unname(&mut self, name: &str) -> Option<u64> {
        let file = self.names.remove(name)?;
        let state = self.files.get_mut(&file).expect("a named file exists");
        state.names -= 1;
        if state.names == 0 && state.opens == 0 {
            self.used_bytes -= state.live_bytes;
        }
        Some(file)
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.unname(name).ok_or_else(not_found)?;
        self.changed(DirectoryChange::Remove {
            name: name.to_owned(),
        });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = *self.names.get(from).ok_or_else(not_found)?;
        if self.names.get(to) == Some(&file) {
            // POSIX: two names of one file, or one name, and nothing happens.
            return Ok(());
        }
        self.unname(to);
        self.names.remove(from);
        self.names.insert(to.to_owned(), file);
        self.changed(DirectoryChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            file,
        });
        Ok(())
    }

    pub(super) fn link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = *self.names.get(from).ok_or_else(not_found)?;
        if self.names.contains_key(to) {
            return Err(already_exists());
        }
        self.file(file)?.names += 1;
        self.names.insert(to.to_owned(), file);
        self.changed(DirectoryChange::Name {
            name: to.to_owned(),
            file,
        });
        Ok(())
    }

    fn make_durable(&mut self, change: &DirectoryChange) {
        match change {
            DirectoryChange::Name { name, file } => {
                self.names_durable.insert(name.clone(), *file);
            }
            DirectoryChange::Remove { name } => {
                self.names_durable.remove(name);
            }
            DirectoryChange::Rename { from, to, file } => {
                if self.names_durable.get(from) == Some(file) {
                    self.names_durable.remove(from);
                }
                self.names_durable.insert(to.clone(), *file);
            }
        }
    }

    /// Changes up to `sequence` are durable.
    pub(super) fn sync_directory(&mut self, sequence: u64) {
        let covered = self.changes.partition_point(|(change, _)| *change <= sequence);
        let changes: Vec<_> = self.changes.drain(..covered).collect();
        changes.iter().for_each(|(_, change)| self.make_durable(change));
        self.collect();
    }

    // Files.

    /// Makes the file at least `bytes` long.
    fn grow(&mut self, file: u64, bytes: u64) -> io::Result<()> {
        let before = self.file(file)?.live_bytes;
        let growth = bytes.saturating_sub(before);
        if self.used_bytes + growth > self.capacity_bytes {
            self.counters.count(FaultKind::NoSpace);
            return Err(storage_full());
        }
        self.used_bytes += growth;
        self.file(file)?.live_bytes += growth;
        Ok(())
    }

    pub(super) fn allocate(&mut self, file: u64, bytes: u64) -> io::Result<()> {
        self.grow(file, bytes)
    }

    /// Stores those sectors of `content` that `sectors` answers for each block counted from the first.
    pub(super) fn write(
        &mut self,
        file: u64,
        offset: u64,
        content: &[u8],
        durable: bool,
        mut sectors: impl FnMut(u64) -> u8,
    ) -> io::Result<()> {
        let end = offset + content.len() as u64;
        self.grow(file, end)?;
        let sequence = self.next_sequence();
        self.set_unreadable(file, offset / BLOCK, end.div_ceil(BLOCK), false);
        let state = self.file(file)?;
        for (place, bytes) in content.chunks(BLOCK_BYTES).enumerate() {
            let block = offset / BLOCK + place as u64;
            let stored = sectors(place as u64);
            if stored == 0 {
                continue;
            }
            let new = match stored {
                SECTORS_ALL => block_from(bytes),
                _ => compose(state.live.get(block), &block_from(bytes), stored),
            };
            state.live.set(block, new.clone());
            if durable {
                state.unsynced.retain(|write| write.block != block);
                state.durable.set(block, new);
            } else {
                state.unsynced.push(Unsynced {
                    sequence,
                    block,
                    content: new,
                    abandoned: false,
                });
            }
        }
        if durable {
            state.durable_bytes = state.durable_bytes.max(end);
        }
        Ok(())
    }

    /// Completed writes up to `sequence` are durable, and so is the length.
    pub(super) fn sync_file(&mut self, file: u64, sequence: u64) -> io::Result<()> {
        let state = self.file(file)?;
        let mut later = Vec::new();
        for write in state.unsynced.drain(..) {
            if write.sequence <= sequence && !write.abandoned {
                state.durable.set(write.block, write.content);
            } else {
                later.push(write);
            }
        }
        state.unsynced = later;
        state.durable_bytes = state.live_bytes;
        Ok(())
    }

    /// A sync that failed: some of what it should have synced is lost to every later one.
    pub(super) fn fail_sync_file(&mut self, file: u64, random: &mut Random) {
        let Some(state) = self.files.get_mut(&file) else {
            return;
        };
        for write in &mut state.unsynced {
            write.abandoned |= random.one_in(2);
        }
    }

    /// Damages or replaces bytes under the file, in both images. `edit` is given the bytes of `range`.
    pub(super) fn edit(&mut self, file: u64, start: u64, bytes: u64, edit: impl FnOnce(&mut [u8])) {
        let Some(state) = self.files.get_mut(&file) else {
            return;
        };
        let end = (start + bytes).min(state.live_bytes);
        if start >= end {
            return;
        }
        let first = start / BLOCK * BLOCK;
        let length = usize::try_from(end.next_multiple_of(BLOCK) - first).expect("an edit fits memory");
        let mut content = vec![0; length];
        state.live.read(first, &mut content);
        edit(&mut content[(start - first) as usize..(end - first) as usize]);
        for (place, bytes) in content.chunks(BLOCK_BYTES).enumerate() {
            let block = first / BLOCK + place as u64;
            state.live.set(block, block_from(bytes));
            if state.unsynced.iter().all(|write| write.block != block) {
                state.durable.set(block, block_from(bytes));
            }
        }
    }

    /// Damages one sector of the blocks `first..end`.
    pub(super) fn rot(&mut self, file: u64, first: u64, end: u64, random: &mut Random) {
        let block = random.within(&(first..=end - 1));
        self.edit(file, block * BLOCK, BLOCK, |bytes| damage(bytes, random));
    }

    /// Another place that a write of `blocks` blocks could land on, where nothing is in flight.
    pub(super) fn wrong_place(
        &self,
        file: u64,
        offset: u64,
        bytes: u64,
        random: &mut Random,
    ) -> Option<(u64, u64)> {
        for _ in 0..8 {
            let (id, state) = self.files.iter().nth(random.index(self.files.len()))?;
            let Some(last) = state.live_bytes.checked_sub(bytes) else {
                continue;
            };
            let start = random.below(last / BLOCK + 1) * BLOCK;
            let itself = *id == file && start < offset + bytes && offset < start + bytes;
            if !itself {
                return Some((*id, start));
            }
        }
        None
    }

    /// Reads what is stored; the range must lie within the file.
    pub(super) fn read(&mut self, file: u64, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = self.file(file)?;
        if offset + into.len() as u64 > state.live_bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "read past the end of the file",
            ));
        }
        let end = (offset + into.len() as u64).div_ceil(BLOCK);
        if self
            .unreadable
            .range((file, offset / BLOCK)..(file, end))
            .next()
            .is_some()
        {
            self.counters.count(FaultKind::ReadError);
            return Err(input_output_error());
        }
        self.file(file)?.live.read(offset, into);
        Ok(())
    }

    /// Makes blocks `first..end` unreadable, or readable again.
    pub(super) fn set_unreadable(&mut self, file: u64, first: u64, end: u64, unreadable: bool) {
        for block in first..end {
            match unreadable {
                true => self.unreadable.insert((file, block)),
                false => self.unreadable.remove(&(file, block)),
            };
        }
    }

    /// Replaces some sectors of a read by those of a write under way at the same time.
    pub(super) fn mix(offset: u64, into: &mut [u8], write: u64, content: &[u8], random: &mut Random) {
        let start = offset.max(write);
        let end = (offset + into.len() as u64).min(write + content.len() as u64);
        let new_ppm = [0, 500_000, 1_000_000][random.index(3)];
        for sector in (start..end).step_by(super::image::SECTOR_BYTES) {
            if random.chance_ppm(new_ppm) {
                let from = (sector - write) as usize;
                let to = (sector - offset) as usize;
                let length = super::image::SECTOR_BYTES;
                into[to..to + length].copy_from_slice(&content[from..from + length]);
            }
        }
    }
}
