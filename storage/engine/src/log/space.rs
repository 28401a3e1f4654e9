//! Files of the log: one is always made ready before it is needed, and what is released is used again.
//!
//! **The order in which a file comes into use** (each step durable before the next):
//! 1. the slot exists, in full length, on every mirror;
//! 2. the anchor lists the file under a new number, and no longer lists what was released;
//! 3. the file's header, with a new salt, is on every mirror (an earlier use of the slot ends here);
//! 4. batches.
//!
//! A file is never taken out of the table while a batch in it is needed: it goes when its last batch lies below
//! what the engine released. Released slots are used again, lowest first.

use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{BLOCK_BYTES, Drive, File, Open, Queue, Runtime, is_exhaustion};

use super::LogError;
use super::anchor::{self, Anchor};
use super::config::FILES_MAX;
use super::file::{FileEntry, create_filled, slot_name};
use super::mirrored::on_all;
use super::writer::{Inner, OpenFile, Prepared, State};
use crate::ids::LogSequence;
use crate::phase::{self, Phase};
use crate::volume::{DriveIndex, DriveSet};

/// How long to wait before a full drive is tried again.
const FULL_DRIVE_RETRY: Duration = Duration::from_millis(500);
/// Places of the anchor's table that only recovery may fill: one per start that finds the log full.
const RECOVERY_FILES: usize = 4;

/// A slot chosen for the next file.
struct Plan {
    slot: u32,
    generation: u32,
    bytes: u64,
    mirrors: DriveSet,
    /// Mirrors on which the slot must be made first.
    missing: DriveSet,
}

impl<R: Runtime> Inner<R> {
    /// Starts to make the next file ready, unless that is being done.
    pub(super) fn prepare_in_background(self: &Rc<Self>, state: &mut State<R>) {
        if !matches!(state.prepared, Prepared::None) || state.failure.is_some() {
            return;
        }
        state.prepared = Prepared::InProgress;
        let inner = self.clone();
        self.context.runtime.spawn(Queue::Foreground, async move {
            let result = inner.prepare(FILES_MAX - RECOVERY_FILES).await;
            {
                let mut state = inner.state.borrow_mut();
                state.full_drive = None;
                state.exhausted = false;
                let closing = state.closing && (state.unmarked || !state.is_idle());
                match result {
                    // Nobody will free space any more.
                    Err(error) if closing => {
                        state.prepared = Prepared::None;
                        drop(state);
                        inner.fail(error);
                        return;
                    }
                    Ok(file) => {
                        state.prepared = Prepared::Ready(file);
                        // What was released meanwhile may have missed the file's anchor.
                        if state
                            .files
                            .first()
                            .is_some_and(|oldest| inner.is_released(&state, oldest))
                        {
                            inner.release(&mut state);
                        }
                    }
                    Err(LogError::Full) => {
                        state.prepared = Prepared::None;
                        state.exhausted = true;
                    }
                    Err(LogError::OutOfSpace(path)) => {
                        state.prepared = Prepared::None;
                        state.full_drive = Some(path);
                        inner.retry_later(&mut state);
                    }
                    Err(error) => {
                        state.prepared = Prepared::None;
                        drop(state);
                        inner.fail(error);
                        return;
                    }
                }
            }
            inner.room.notify_all();
            inner.start();
        });
    }

    /// Tries a full drive again after a while; one task waits for that, however often it is found full.
    fn retry_later(self: &Rc<Self>, state: &mut State<R>) {
        if std::mem::replace(&mut state.retrying, true) {
            return;
        }
        let inner = self.clone();
        self.context.runtime.spawn(Queue::Background, async move {
            inner.context.runtime.sleep(FULL_DRIVE_RETRY).await;
            let mut state = inner.state.borrow_mut();
            state.retrying = false;
            inner.prepare_in_background(&mut state);
        });
    }

    /// Makes a file ready: see the head of this file.
    pub(super) async fn prepare(&self, files_max: usize) -> Result<OpenFile<R>, LogError> {
        let _phase = phase::enter(Phase::LogFile);
        let context = &self.context;
        loop {
            let in_sync = context.volume.settled().await?;
            let plan = self.plan()?;
            let name = slot_name(context.log, plan.slot);
            let name = name.as_str();
            if !plan.missing.is_empty() {
                self.make_slot(&plan, name).await?;
            }
            let mut salt = [0; 32];
            context.runtime.random_secret(&mut salt);
            let entry = {
                let mut state = self.state.borrow_mut();
                let number = state.next_file;
                state.next_file += 1;
                FileEntry {
                    number,
                    slot: plan.slot,
                    generation: plan.generation,
                    incarnation: state.incarnation,
                    epoch: in_sync.epoch,
                    mirrors: plan.mirrors,
                    blocks: u32::try_from(plan.bytes / BLOCK_BYTES as u64).unwrap_or(u32::MAX),
                    salt,
                    first: LogSequence(0),
                    last: LogSequence(0),
                }
            };
            self.write_anchor(Some(entry), files_max).await?;
            let mut mirrors = Vec::new();
            for index in plan.mirrors.iter() {
                let Some(drive) = context.volume.drive(index) else {
                    continue;
                };
                match drive
                    .open(
                        name,
                        Open {
                            durable: true,
                            ..Open::default()
                        },
                    )
                    .await
                {
                    Ok(file) => mirrors.push((index, file)),
                    // That does not blame the drive: it is tried again as a full one is.
                    Err(error) if is_exhaustion(&error) => {
                        return Err(LogError::OutOfSpace(context.volume.path(index).to_owned()));
                    }
                    Err(error) => {
                        context
                            .volume
                            .report_failed(index, format!("opening a log file: {error}"))
                            .await?;
                    }
                }
            }
            let header = Rc::new(entry.encode_header(context.volume.node(), context.log));
            let opened: DriveSet = mirrors.iter().map(|(index, _)| *index).collect();
            let done = on_all(
                &context.runtime,
                &context.volume,
                context.config.lag_max,
                opened,
                "writing a log file's header",
                |index| {
                    let file = mirrors
                        .iter()
                        .find(|(other, _)| *other == index)
                        .map(|(_, file)| file);
                    file.expect("of the set just opened").write_at(0, header.clone())
                },
            )
            .await;
            let mut state = self.state.borrow_mut();
            if done.as_ref().is_ok_and(|done| *done == plan.mirrors) {
                if let Some(slot) = state.slots.get_mut(&plan.slot) {
                    slot.generation = plan.generation + 1;
                }
                let cipher = context.cipher(&entry);
                return Ok(OpenFile {
                    entry,
                    mirrors,
                    cipher,
                });
            }
            // A mirror has failed: again, with a whole set.
            state.files.retain(|other| other.number != entry.number);
            drop(state);
            done?;
        }
    }

    fn plan(&self) -> Result<Plan, LogError> {
        let state = self.state.borrow();
        let config = &self.context.config;
        let mirrors = self.context.volume.choose(state.next_file, self.avoided.get());
        let block = BLOCK_BYTES as u64;
        let needed = (config.largest_batch_bytes() as u64 + block).next_multiple_of(block);
        let used = |slot: u32| {
            state
                .files
                .iter()
                .any(|entry| entry.slot == slot && !self.is_released(&state, entry))
        };
        let mut best: Option<Plan> = None;
        for (&number, slot) in state.slots.iter().filter(|(number, _)| !used(**number)) {
            let there: DriveSet = slot.bytes.keys().copied().collect();
            let missing = mirrors.minus(there);
            let bytes = mirrors
                .iter()
                .filter_map(|index| slot.bytes.get(&index))
                .min()
                .copied();
            let Some(bytes) = bytes.filter(|bytes| *bytes >= needed) else {
                continue;
            };
            if best
                .as_ref()
                .is_none_or(|best| missing.count() < best.missing.count())
            {
                best = Some(Plan {
                    slot: number,
                    generation: slot.generation,
                    bytes,
                    mirrors,
                    missing,
                });
            }
        }
        if let Some(plan) = best {
            return Ok(plan);
        }
        let slot = (0..)
            .find(|slot| !state.slots.contains_key(slot))
            .ok_or(LogError::Full)?;
        let bytes = if state.slots.is_empty() {
            config.first_file_bytes
        } else {
            config.file_bytes
        };
        let bytes = bytes.next_multiple_of(block);
        Ok(Plan {
            slot,
            generation: 0,
            bytes,
            mirrors,
            missing: mirrors,
        })
    }

    async fn make_slot(&self, plan: &Plan, name: &str) -> Result<(), LogError> {
        let context = &self.context;
        let mut created = DriveSet::EMPTY;
        for index in plan.missing.iter() {
            let Some(drive) = context.volume.drive(index) else {
                continue;
            };
            let _writing = context.volume.writing(index);
            match create_filled(&context.runtime, &drive, name, plan.bytes).await {
                Ok(()) => created = created.with(index),
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull || is_exhaustion(&error) => {
                    return Err(LogError::OutOfSpace(context.volume.path(index)));
                }
                Err(error) => {
                    context
                        .volume
                        .report_failed(index, format!("making a log file: {error}"))
                        .await?;
                }
            }
        }
        let mut state = self.state.borrow_mut();
        let slot = state.slots.entry(plan.slot).or_default();
        slot.bytes.extend(created.iter().map(|index| (index, plan.bytes)));
        Ok(())
    }

    fn is_released(&self, state: &State<R>, entry: &FileEntry) -> bool {
        entry.last != LogSequence(0) && entry.last < state.released
    }

    /// Writes a new version of the anchor, without the released files and with `extra`, to every in-sync drive.
    ///
    /// # Errors
    /// [`LogError::Full`] when more than `files_max` would be in use: nothing was written.
    pub(super) async fn write_anchor(
        &self,
        extra: Option<FileEntry>,
        files_max: usize,
    ) -> Result<(), LogError> {
        let context = &self.context;
        let _changing = self.anchor_lock.lock().await;
        let anchor = {
            let mut state = self.state.borrow_mut();
            let mut files = state.files.clone();
            // From the front only: the files of a log are consecutive.
            let released = files
                .iter()
                .take_while(|entry| self.is_released(&state, entry))
                .count();
            files.drain(..released);
            files.extend(extra);
            if files.len() > files_max {
                return Err(LogError::Full);
            }
            state.anchor_version += 1;
            state.stats.anchor_writes += 1;
            let base = files.first().map_or(state.next, |entry| match entry.first {
                LogSequence(0) => state.acknowledged.next(),
                first => first,
            });
            Rc::new(Anchor {
                node: context.volume.node(),
                log: context.log,
                version: state.anchor_version,
                incarnation: state.incarnation,
                next_file: state.next_file,
                base,
                acknowledged: state.acknowledged,
                files,
            })
        };
        self.complete_anchor_files().await?;
        let files = self.anchors.borrow().clone();
        let set: DriveSet = files.keys().copied().collect();
        let done = on_all(
            &context.runtime,
            &context.volume,
            context.config.lag_max,
            set.and(context.volume.in_sync().set),
            "writing the anchor",
            |index| anchor::write(context.runtime.clone(), files[&index].clone(), anchor.clone()),
        )
        .await?;
        let mut state = self.state.borrow_mut();
        state.anchor_on = done;
        let kept = |entry: &FileEntry| {
            anchor.files.iter().any(|listed| listed.number == entry.number)
                || !self.is_released(&state, entry)
        };
        let mut files: Vec<FileEntry> = state.files.iter().filter(|entry| kept(entry)).copied().collect();
        files.extend(extra);
        state.files = files;
        Ok(())
    }

    async fn complete_anchor_files(&self) -> Result<(), LogError> {
        let context = &self.context;
        let missing: Vec<DriveIndex> = {
            let anchors = self.anchors.borrow();
            context
                .volume
                .in_sync()
                .set
                .iter()
                .filter(|index| !anchors.contains_key(index))
                .collect()
        };
        for index in missing {
            let Some(drive) = context.volume.drive(index) else {
                continue;
            };
            match anchor::create(&context.runtime, &drive, context.log).await {
                Ok(file) => {
                    self.anchors.borrow_mut().insert(index, file);
                }
                Err(error) if is_exhaustion(&error) => {
                    return Err(LogError::OutOfSpace(context.volume.path(index).to_owned()));
                }
                Err(error) => {
                    context
                        .volume
                        .report_failed(index, format!("creating the anchor: {error}"))
                        .await?;
                }
            }
        }
        Ok(())
    }

    /// Takes released files out of use, if the next file waits for that; else the next anchor does.
    pub(super) fn release(self: &Rc<Self>, state: &mut State<R>) {
        let waiting = state.exhausted || state.full_drive.is_some();
        if waiting || state.live_files() > self.context.config.files_max {
            // The prepared file, if there is one, is as good as a new one: only the table must shrink.
            match state.prepared {
                Prepared::None => self.prepare_in_background(state),
                Prepared::InProgress => {}
                Prepared::Ready(_) => self.shrink_in_background(),
            }
        }
    }

    pub(super) fn has_released(&self, state: &State<R>) -> bool {
        state.files.iter().any(|entry| self.is_released(state, entry))
    }

    pub(super) fn shrink_in_background(self: &Rc<Self>) {
        let inner = self.clone();
        self.context.runtime.spawn(Queue::Foreground, async move {
            match inner.write_anchor(None, FILES_MAX).await {
                Ok(()) | Err(LogError::Full | LogError::OutOfSpace(_)) => inner.room.notify_all(),
                Err(error) => inner.fail(error),
            }
        });
    }

    /// Forgets a prepared file that was never used.
    pub(super) fn drop_prepared(&self) {
        self.drop_prepared_of(&mut self.state.borrow_mut());
    }

    pub(super) fn drop_prepared_of(&self, state: &mut State<R>) {
        match std::mem::replace(&mut state.prepared, Prepared::None) {
            Prepared::Ready(file) => state.files.retain(|entry| entry.number != file.entry.number),
            other => state.prepared = other,
        }
    }

    /// Ends the log: everything durable, a marker, and an anchor that seals the last file.
    pub(super) async fn close(self: &Rc<Self>) -> Result<(), LogError> {
        {
            let mut state = self.state.borrow_mut();
            if let Some(error) = &state.failure {
                return match error {
                    LogError::Closed => Ok(()),
                    error => Err(error.clone()),
                };
            }
            state.closing = true;
        }
        let stopped = || self.state.borrow().failure.clone().unwrap_or(LogError::Closed);
        loop {
            let wait = {
                let mut state = self.state.borrow_mut();
                if state.is_idle() && !state.unmarked {
                    break;
                }
                if state.is_idle() {
                    state.want_marker();
                }
                // The batch gathered or the marker, whichever comes, is the one after the last acknowledged or the
                // one in flight.
                state.acknowledged.next()
            };
            self.start();
            self.progress.wait(wait.0).await.map_err(|_| stopped())?;
        }
        while matches!(self.state.borrow().prepared, Prepared::InProgress) {
            self.room.notified().await;
        }
        self.drop_prepared();
        {
            let mut state = self.state.borrow_mut();
            if let Some(error) = &state.failure {
                return Err(error.clone());
            }
            let (last, next) = (state.acknowledged, state.next);
            if let Some(current) = state.current.take() {
                if current.entry.first == next {
                    state.files.retain(|entry| entry.number != current.entry.number);
                } else if let Some(entry) = state.entry_mut(current.entry.number) {
                    entry.last = last;
                }
            }
        }
        let written = self.write_anchor(None, FILES_MAX).await;
        self.fail(written.clone().err().unwrap_or(LogError::Closed));
        written
    }
}
