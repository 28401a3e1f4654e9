//! Writing sorted versions into new segments: what flush and compaction have in common, and the flush.
//!
//! For each key, its versions come newest first:
//! 1. the newest stays, and of the others those that an open snapshot reads;
//! 2. tombstones at the old end go when no older source can hold the key: there is nothing to hide;
//! 3. what has been trimmed goes;
//! 4. what is left is written; segments are split between keys, never within one.
//!
//! When a drive refuses a write, it leaves the in-sync set, durably, and everything is written again to the
//! drives that are left.

use std::rc::Rc;

use cairn_runtime::Runtime;
use cairn_runtime::sync::OneshotReceiver;

use super::compaction::Prepared;
use super::filter::KeyHash;
use super::memtable::Memtable;
use super::merge::{MemtableCursor, Merge, Source};
use super::pace::Pace;
use super::segment::{SegmentFacts, SegmentWriter};
use super::store::{SegmentStore, TreeError};
use super::version::{NEWEST, Version, needed};
use super::view::{KeyRange, Placed, View};
use super::{Tree, Trimmed};
use crate::Direction;
use crate::ids::{CommitTimestamp, SegmentId};
use crate::manifest::{LEVELS_MAX, SegmentReference};
use crate::volume::DRIVES_MAX;

/// Bytes merged before other tasks get their turn: about 64 items of 1 KB, some 50 us.
const TURN_BYTES: usize = 64 << 10;

/// So much of a merge goes as fast as it can, whatever is due: some 20 ms of a core, which is not worth making longer.
const UNPACED_BYTES: usize = 8 << 20;

/// What new segments are made of.
pub(super) struct Rewrite<'a, R: Runtime> {
    pub(super) store: &'a Rc<SegmentStore<R>>,
    pub(super) facts: SegmentFacts,
    /// Open snapshots, least first.
    pub(super) snapshots: &'a [CommitTimestamp],
    /// What the tree consisted of when the work began.
    pub(super) view: &'a View<R>,
    /// Whether the view is all of the tree; if not, any key may have older versions.
    pub(super) complete: bool,
    /// Sources of this level and deeper ones may hold older versions.
    pub(super) older_from: usize,
    /// Newer versions than this are passed over.
    pub(super) up_to: CommitTimestamp,
    /// Keys that nobody reads any more.
    pub(super) trimmed: Option<Trimmed>,
    /// Length at which a segment ends.
    pub(super) segment_bytes: u64,
    /// What holds the work back; none for a flush, which writers wait for.
    pub(super) pace: Option<&'a Pace>,
}

/// A segment that is being made whole; its files are gone when that fails.
type Finishing = OneshotReceiver<Result<SegmentReference, TreeError>>;

/// What has become of the work so far.
struct Output<R: Runtime> {
    written: Vec<SegmentReference>,
    /// At most one, so that memory is bounded.
    finishing: Option<Finishing>,
    writer: Option<SegmentWriter<R>>,
}

impl<R: Runtime> Output<R> {
    /// Waits for the segment that is being finished, if there is one.
    async fn finished(&mut self) -> Result<(), TreeError> {
        if let Some(finishing) = self.finishing.take() {
            let finished = finishing.await.map_err(|_| TreeError::Stopped)?;
            self.written.push(finished?);
        }
        Ok(())
    }
}

impl<R: Runtime> Rewrite<'_, R> {
    /// Writes everything that `merge` yields and is still needed.
    pub(super) async fn write(
        &self,
        merge: Merge<R>,
        next: &mut impl FnMut() -> SegmentId,
    ) -> Result<Vec<SegmentReference>, TreeError> {
        let mut output = Output {
            written: Vec::new(),
            finishing: None,
            writer: None,
        };
        let mut result = self.write_all(merge, next, &mut output).await;
        // A segment that is being finished is waited for whatever has happened: its files are to be kept or removed.
        result = result.and(output.finished().await);
        if let Err(error) = result {
            if let Some(writer) = output.writer {
                SegmentWriter::abandon(writer).await;
            }
            for reference in output.written {
                self.store.remove_files(reference.id).await;
            }
            return Err(error);
        }
        Ok(output.written)
    }

    async fn write_all(
        &self,
        mut merge: Merge<R>,
        next: &mut impl FnMut() -> SegmentId,
        output: &mut Output<R>,
    ) -> Result<(), TreeError> {
        let mut key = Vec::new();
        let mut kept = Vec::new();
        let (mut turn, mut merged) = (0, 0);
        merge.advance().await?;
        while let Some((head, _)) = merge.head() {
            key.clear();
            key.extend_from_slice(head);
            turn += self.take_key(&mut merge, &key, &mut kept).await?;
            if !kept.is_empty() {
                let is_full = |writer: &SegmentWriter<R>| writer.bytes() >= self.segment_bytes;
                if output.writer.as_ref().is_some_and(is_full) {
                    self.go_on(output).await?;
                }
                if output.writer.is_none() {
                    output.writer = Some(SegmentWriter::create(self.store, next(), self.facts).await?);
                }
                let writer = output.writer.as_mut().expect("made just before");
                for version in &kept {
                    writer.push(&key, version).await?;
                }
            }
            if turn >= TURN_BYTES {
                let runtime = &self.store.runtime;
                merged += turn;
                let by_debt = merged > UNPACED_BYTES;
                let spend = |pace: &Pace| pace.spend(runtime.now(), turn as u64, by_debt);
                match self.pace.and_then(spend) {
                    Some(wait) => runtime.sleep(wait).await,
                    None => runtime.yield_now().await,
                }
                turn = 0;
            }
        }
        self.go_on(output).await
    }

    /// Begins to finish what is being filled, once what was before it is finished. If that fails the writer stays, to be abandoned: one
    /// that was merely dropped would leave its files, and count as begun for ever.
    async fn go_on(&self, output: &mut Output<R>) -> Result<(), TreeError> {
        output.finished().await?;
        output.finishing = output.writer.take().map(|full| self.finish(full));
        Ok(())
    }

    /// Makes a segment whole and durable while the next is being filled.
    fn finish(&self, mut full: SegmentWriter<R>) -> Finishing {
        self.store.task(async move {
            let finished = full.finish().await;
            if finished.is_err() {
                full.abandon().await;
            }
            finished
        })
    }

    /// Takes all versions of `key` and keeps the needed ones, newest first. How many bytes were looked at.
    async fn take_key(
        &self,
        merge: &mut Merge<R>,
        key: &[u8],
        kept: &mut Vec<Version>,
    ) -> Result<usize, TreeError> {
        kept.clear();
        let mut bytes = 0;
        let mut newer: Option<CommitTimestamp> = None;
        while let Some((head, commit)) = merge.head()
            && head == key
        {
            let version = merge.version();
            bytes += key.len() + version.item.len() + 64;
            if commit > self.up_to {
                merge.advance().await?;
                continue;
            }
            // A version may be there twice: replayed from the log after it was flushed.
            let again = newer == Some(commit);
            if newer.is_none_or(|newer| !again && needed(self.snapshots, commit, newer)) {
                kept.push(version);
            }
            newer = Some(commit);
            merge.advance().await?;
        }
        if self.trimmed.as_ref().is_some_and(|trimmed| trimmed.contains(key)) {
            kept.clear();
        }
        while kept.last().is_some_and(Version::is_tombstone) && !self.is_older_somewhere(key) {
            kept.pop();
        }
        Ok(bytes)
    }

    /// Whether a source older than what is merged can hold the key: filters know it all but certainly.
    fn is_older_somewhere(&self, key: &[u8]) -> bool {
        let hash = KeyHash::of(key);
        let mut older = self.view.levels[self.older_from..].iter().flatten();
        !self.complete || older.any(|placed| placed.may_contain(key, hash))
    }
}

impl<R: Runtime> Tree<R> {
    /// Ends the active memtable, which is then only read, and begins another.
    pub fn freeze(&self) {
        if self.active.borrow().is_empty() {
            return;
        }
        let frozen = self.active.take();
        self.change_view(|view| view.flushing.insert(0, frozen));
    }

    /// Writes the oldest frozen memtable into a segment of level 0; nothing when there is none or nothing in it is
    /// needed. `next` gives ids for new segments. A drive that fails is reported and left out.
    ///
    /// # Errors
    /// [`TreeError::OutOfSpace`], [`TreeError::Volume`], [`TreeError::NoMirror`]: the memtable is still there.
    ///
    /// # Panics
    /// When a flush of this tree is under way.
    pub async fn flush(&self, mut next: impl FnMut() -> SegmentId) -> Result<Prepared<R>, TreeError> {
        assert!(!self.flushing.replace(true), "a tree makes one flush at a time");
        let _under_way = UnderWay(&self.flushing);
        let view = Rc::clone(&self.view.borrow());
        let Some(memtable) = view.flushing.last() else {
            return Ok(Prepared::nothing());
        };
        let snapshots = self.context.snapshots.borrow().clone();
        let rewrite = Rewrite {
            store: &self.context.store,
            facts: self.facts(0),
            snapshots: &snapshots,
            view: &view,
            complete: self.complete.get(),
            older_from: 0,
            up_to: NEWEST,
            trimmed: self.trimmed.borrow().clone(),
            segment_bytes: u64::MAX,
            pace: None,
        };
        let source = |memtable: &Rc<Memtable>| {
            let cursor = MemtableCursor::new(Rc::clone(memtable), Direction::Forward, KeyRange::all());
            Merge::new(vec![Source::Memtable(cursor)], Direction::Forward)
        };
        let added = self
            .write_until_taken(&rewrite, || source(memtable), &mut next)
            .await?;
        let bytes: u64 = added.iter().map(|reference| reference.bytes).sum();
        self.context.store.count(|stats| stats.flushed_bytes += bytes);
        let mut prepared = self.open_added(added).await?;
        prepared.flushed = Some(Rc::clone(memtable));
        Ok(prepared)
    }

    /// Writes, and begins again without the drive when one refuses.
    pub(super) async fn write_until_taken(
        &self,
        rewrite: &Rewrite<'_, R>,
        sources: impl Fn() -> Merge<R>,
        next: &mut impl FnMut() -> SegmentId,
    ) -> Result<Vec<SegmentReference>, TreeError> {
        for _ in 0..DRIVES_MAX {
            match rewrite.write(sources(), next).await {
                Err(TreeError::Write { drive, why }) => {
                    self.context.store.report_failed(drive, why.to_string()).await?;
                }
                result => return result,
            }
        }
        Err(TreeError::Stopped)
    }

    /// Opens what was written, which reads it for the first time. What cannot be opened is removed: it will be written
    /// again.
    pub(super) async fn open_added(&self, added: Vec<SegmentReference>) -> Result<Prepared<R>, TreeError> {
        let mut prepared = Prepared::nothing();
        for reference in &added {
            let segment = match self.context.store.open(reference).await {
                Ok(segment) => segment,
                Err(error) => {
                    drop(prepared);
                    for reference in &added {
                        self.context.store.remove_files(reference.id).await;
                    }
                    return Err(error);
                }
            };
            prepared.placed.push(Placed {
                segment,
                reference: Rc::new(reference.clone()),
            });
        }
        prepared.added = added;
        Ok(prepared)
    }

    /// The flush's edit is durable: its segments take the memtable's place. Bytes of memory that frees.
    pub fn install_flush(&self, mut prepared: Prepared<R>) -> usize {
        let flushed = prepared.flushed.as_ref().map_or(0, |memtable| memtable.bytes());
        self.change_view(|view| {
            if let Some(memtable) = &prepared.flushed {
                view.flushing.retain(|other| !Rc::ptr_eq(other, memtable));
            }
            prepared.placed.iter().for_each(|placed| view.add(placed.clone()));
        });
        if let Some(memtable) = prepared.flushed.take() {
            let runtime = self.context.store.runtime.clone();
            // Detached. A scan that still reads it frees it when it ends.
            drop(self.context.store.task(async move {
                while Rc::strong_count(&memtable) == 1 && memtable.discard() {
                    runtime.yield_now().await;
                }
            }));
        }
        flushed
    }

    pub(super) fn facts(&self, level: usize) -> SegmentFacts {
        assert!(level < LEVELS_MAX, "the last level has no next");
        let level = u8::try_from(level).expect("few levels");
        let compression = self.compression.get().unwrap_or(self.context.config.compression);
        SegmentFacts {
            table: self.descriptor.table,
            partition: self.descriptor.id,
            index: self.descriptor.index,
            level,
            codec: compression.at(level),
        }
    }
}

/// Clears a mark when the work ends, however it ends.
struct UnderWay<'a>(&'a std::cell::Cell<bool>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
