//! A tree at one moment, held for a copy of it: what a reader of that moment would read.
//!
//! The segments are held as a reader holds them, so that their files stay. The memtables are held too; the active one is still
//! written to, and what is newer than the moment is passed over. A snapshot that is open at the moment keeps what it had.

use std::rc::Rc;

use cairn_runtime::Runtime;

use super::Tree;
use super::flush::Rewrite;
use super::memtable::Memtable;
use super::merge::{MemtableCursor, Merge, Source};
use super::segment::{Segment, SegmentFacts};
use super::store::{SegmentStore, TreeError};
use super::view::{KeyRange, View};
use crate::Direction;
use crate::ids::{CommitTimestamp, SegmentId};
use crate::manifest::SegmentReference;

/// A tree at one moment.
pub(crate) struct TreeCut<R: Runtime> {
    facts: SegmentFacts,
    /// Younger ones first.
    memtables: Vec<Rc<Memtable>>,
    view: Rc<View<R>>,
}

impl<R: Runtime> Tree<R> {
    /// The tree now; none when it lacks one of its segments.
    pub(crate) fn cut(&self) -> Option<TreeCut<R>> {
        if !self.complete.get() {
            return None;
        }
        let view = Rc::clone(&self.view.borrow());
        let active = Rc::clone(&self.active.borrow());
        let memtables = std::iter::once(active).chain(view.flushing.iter().cloned());
        Some(TreeCut {
            facts: self.facts(0),
            memtables: memtables.filter(|memtable| !memtable.is_empty()).collect(),
            view,
        })
    }
}

/// A segment that is held, and how the tree refers to it.
pub(crate) type Held<R> = (Rc<Segment<R>>, Rc<SegmentReference>);

impl<R: Runtime> TreeCut<R> {
    /// Bytes of its memtables.
    pub(crate) fn memtable_bytes(&self) -> usize {
        self.memtables.iter().map(|memtable| memtable.bytes()).sum()
    }

    /// What the segments take, in bytes.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let segments = self.view.levels.iter().flatten();
        segments.map(|placed| placed.reference.bytes).sum()
    }

    /// Writes what the memtables hold up to `up_to` into a segment of `target`, and lets go of them.
    ///
    /// # Errors
    /// As [`super::segment::SegmentWriter`]'s; no file is left behind.
    pub(crate) async fn write_memtables(
        &mut self,
        target: &Rc<SegmentStore<R>>,
        up_to: CommitTimestamp,
        mut next: impl FnMut() -> SegmentId,
    ) -> Result<Vec<SegmentReference>, TreeError> {
        let rewrite = Rewrite {
            store: target,
            facts: self.facts,
            snapshots: &[],
            view: &self.view,
            complete: true,
            older_from: 0,
            up_to,
            // It is copied as it is: whoever opens the copy names it again.
            trimmed: None,
            segment_bytes: u64::MAX,
            pace: None,
        };
        let cursor = |memtable: &Rc<Memtable>| {
            let memtable = Rc::clone(memtable);
            Source::Memtable(MemtableCursor::new(memtable, Direction::Forward, KeyRange::all()))
        };
        let merge = Merge::new(self.memtables.iter().map(cursor).collect(), Direction::Forward);
        let written = rewrite.write(merge, &mut next).await?;
        let mut view = View::clone(&self.view);
        view.flushing.clear();
        self.view = Rc::new(view);
        for memtable in self.memtables.drain(..) {
            // Flushed since: nobody else will free it.
            while Rc::strong_count(&memtable) == 1 && memtable.discard() {
                target.runtime.yield_now().await;
            }
        }
        Ok(written)
    }

    /// Gives up the tree for its segments; whoever has copied one lets go of it.
    pub(crate) fn into_segments(self) -> Vec<Held<R>> {
        let held = self.view.levels.iter().flatten();
        held.map(|placed| (Rc::clone(&placed.segment), Rc::clone(&placed.reference)))
            .collect()
    }
}
