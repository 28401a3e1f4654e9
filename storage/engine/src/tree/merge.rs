//! Merges sorted sources of versions into one order.
//!
//! 1. Every source stands at its next version. A heap holds the sources that are not at their end.
//! 2. The root is the source whose version comes first: by key in the direction of travel, then going
//!    forward the newest version first, going backward the oldest; of the same version, the younger source's.
//! 3. Taking a version advances the root's source and sifts it down: about log2 of the sources comparisons.
//!
//! Sources: each memtable, each segment of level 0, and each further level as one chain of segments, of which
//! only one is open at a time.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Bound;
use std::rc::Rc;

use cairn_runtime::Runtime;

use super::memtable::Memtable;
use super::segment::{Access, SegmentCursor};
use super::store::TreeError;
use super::version::Version;
use super::view::{KeyRange, Placed};
use crate::Direction;
use crate::ids::CommitTimestamp;

/// Versions that a memtable's cursor takes at a time: between two batches any insert may happen.
const MEMTABLE_BATCH: usize = 32;

/// A position in a memtable.
pub(crate) struct MemtableCursor {
    memtable: Rc<Memtable>,
    direction: Direction,
    range: KeyRange,
    batch: VecDeque<(Rc<[u8]>, Version)>,
    complete: bool,
    fresh: bool,
}

impl MemtableCursor {
    pub(crate) fn new(memtable: Rc<Memtable>, direction: Direction, range: KeyRange) -> MemtableCursor {
        MemtableCursor {
            memtable,
            direction,
            range,
            batch: VecDeque::new(),
            complete: false,
            fresh: true,
        }
    }

    fn head(&self) -> Option<(&[u8], CommitTimestamp)> {
        self.batch.front().map(|(key, version)| (&**key, version.commit))
    }

    fn advance(&mut self) {
        if !std::mem::take(&mut self.fresh) {
            let Some((key, _)) = self.batch.pop_front() else {
                return;
            };
            if self.batch.is_empty() {
                // A batch holds whole keys, so what comes next lies beyond this one.
                match self.direction {
                    Direction::Forward => self.range.lower = Bound::Excluded(key.to_vec()),
                    Direction::Backward => self.range.upper = Bound::Excluded(key.to_vec()),
                }
            }
        }
        if self.batch.is_empty() && !self.complete {
            let (lower, upper) = self.range.as_ref();
            self.complete = match self.direction {
                Direction::Forward => {
                    self.memtable
                        .batch_forward(lower, upper, MEMTABLE_BATCH, &mut self.batch)
                }
                Direction::Backward => {
                    self.memtable
                        .batch_backward(lower, upper, MEMTABLE_BATCH, &mut self.batch)
                }
            };
        }
    }
}

/// A position in a level: segments that do not overlap, in the direction of travel.
pub(crate) struct LevelCursor<R: Runtime> {
    rest: VecDeque<Placed<R>>,
    direction: Direction,
    access: Access,
    range: KeyRange,
    current: Option<SegmentCursor<R>>,
}

impl<R: Runtime> LevelCursor<R> {
    /// `segments` in ascending order.
    pub(crate) fn new(
        segments: impl DoubleEndedIterator<Item = Placed<R>>,
        direction: Direction,
        access: Access,
        range: KeyRange,
    ) -> LevelCursor<R> {
        let rest = match direction {
            Direction::Forward => segments.collect(),
            Direction::Backward => segments.rev().collect(),
        };
        LevelCursor {
            rest,
            direction,
            access,
            range,
            current: None,
        }
    }

    async fn advance(&mut self) -> Result<(), TreeError> {
        loop {
            if let Some(current) = &mut self.current {
                current.advance().await?;
                if current.head().is_some() {
                    return Ok(());
                }
            }
            let Some(placed) = self.rest.pop_front() else {
                self.current = None;
                return Ok(());
            };
            self.current = Some(placed.cursor(self.direction, self.access, &self.range));
        }
    }
}

/// One source of versions.
pub(crate) enum Source<R: Runtime> {
    Memtable(MemtableCursor),
    Level(Box<LevelCursor<R>>),
}

impl<R: Runtime> Source<R> {
    fn head(&self) -> Option<(&[u8], CommitTimestamp)> {
        match self {
            Source::Memtable(cursor) => cursor.head(),
            Source::Level(cursor) => cursor.current.as_ref().and_then(SegmentCursor::head),
        }
    }

    fn version(&self) -> Version {
        match self {
            Source::Memtable(cursor) => cursor
                .batch
                .front()
                .map(|(_, version)| version.clone())
                .expect("a position has a version"),
            Source::Level(cursor) => cursor
                .current
                .as_ref()
                .expect("a position has a segment")
                .version(),
        }
    }

    async fn advance(&mut self) -> Result<(), TreeError> {
        match self {
            Source::Memtable(cursor) => {
                cursor.advance();
                Ok(())
            }
            Source::Level(cursor) => cursor.advance().await,
        }
    }
}

/// All versions of all sources in one order.
pub(crate) struct Merge<R: Runtime> {
    /// Younger sources first.
    sources: Vec<Source<R>>,
    direction: Direction,
    /// Sources that are not at their end, as a heap; the root comes first.
    heap: Vec<usize>,
    fresh: bool,
}

impl<R: Runtime> Merge<R> {
    /// `sources`, younger ones first.
    pub(crate) fn new(sources: Vec<Source<R>>, direction: Direction) -> Merge<R> {
        Merge {
            sources,
            direction,
            heap: Vec::new(),
            fresh: true,
        }
    }

    /// Key and number of the version that comes next.
    pub(crate) fn head(&self) -> Option<(&[u8], CommitTimestamp)> {
        self.heap.first().map(|root| self.head_of(*root))
    }

    /// The version that comes next.
    pub(crate) fn version(&self) -> Version {
        self.sources[*self.heap.first().expect("there is a next version")].version()
    }

    /// Moves to the first or the next version.
    pub(crate) async fn advance(&mut self) -> Result<(), TreeError> {
        if self.fresh {
            for at in 0..self.sources.len() {
                self.sources[at].advance().await?;
                if self.sources[at].head().is_some() {
                    self.heap.push(at);
                }
            }
            self.fresh = false;
            for at in (0..self.heap.len() / 2).rev() {
                self.sift_down(at);
            }
            return Ok(());
        }
        let Some(root) = self.heap.first().copied() else {
            return Ok(());
        };
        self.sources[root].advance().await?;
        if self.sources[root].head().is_none() {
            self.heap.swap_remove(0);
        }
        self.sift_down(0);
        Ok(())
    }

    fn head_of(&self, source: usize) -> (&[u8], CommitTimestamp) {
        self.sources[source]
            .head()
            .expect("sources in the heap are not at their end")
    }

    fn comes_first(&self, one: usize, other: usize) -> bool {
        let ((one_key, one_commit), (other_key, other_commit)) = (self.head_of(one), self.head_of(other));
        let order = match self.direction {
            Direction::Forward => one_key.cmp(other_key).then(other_commit.cmp(&one_commit)),
            Direction::Backward => other_key.cmp(one_key).then(one_commit.cmp(&other_commit)),
        };
        order.then(one.cmp(&other)) == Ordering::Less
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut first = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.comes_first(self.heap[child], self.heap[first]) {
                    first = child;
                }
            }
            if first == at {
                return;
            }
            self.heap.swap(at, first);
            at = first;
        }
    }
}
