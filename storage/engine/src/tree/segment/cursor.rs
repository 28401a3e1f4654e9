//! A cursor over a segment in either direction, within bounds, that reads ahead.
//!
//! 1. `seek` finds leaf, block and entry of the first position by the index.
//! 2. `advance` steps within the block; at its end it takes the next block from the window, else from the
//!    cache, else reads a new window: one read of as many neighbouring blocks as the window may have.
//! 3. Once windows have grown to their full size, the next one is read by a task of its own while this one is used, over
//!    the end of a leaf too: a long scan, or a compaction, does not wait for the drive.
//! 4. A block of a window is verified and unpacked when the cursor comes to it. One that does not verify is read again
//!    alone, which repairs it.
//!
//! A query's window begins with one block and grows fourfold with each read, so that a short query reads
//! little and a long one in large pieces; the large pieces pass by the cache. A compaction begins large. A cursor
//! holds two windows at most.
//!
//! What is asked for again stays in the cache; a scan that goes on behind an item, as the next page of one does, asks for
//! what the page before has just left there, and that must not count: it takes blocks from the cache without a mark.

use std::collections::VecDeque;
use std::ops::Bound;
use std::rc::Rc;

use cairn_runtime::sync::{OneshotReceiver, spawn};
use cairn_runtime::{AlignedBuffer, Queue, Runtime};

use super::UNIT_BYTES;
use super::entry::{self, Place};
use super::reader::Segment;
use crate::Direction;
use crate::ids::CommitTimestamp;
use crate::tree::block::{BlockKind, BlockView};
use crate::tree::store::TreeError;
use crate::tree::version::Version;

/// Largest read-ahead of a query: 256 KiB.
const QUERY_WINDOW_UNITS: u32 = 64;

/// Read-ahead of a compaction: 512 KiB.
const COMPACTION_WINDOW_UNITS: u32 = 128;

/// Windows up to this size go into the cache: 64 KiB.
const CACHED_WINDOW_UNITS: u32 = 16;

/// What the cursor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A scan: through the cache.
    Query,
    /// Reads everything once, in large pieces, past the cache.
    Compaction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    At,
    Ended,
}

/// What a cursor reads, and in which order: all that reading ahead needs to know.
struct Span {
    direction: Direction,
    access: Access,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    /// Whether taking a block from the cache counts as asking for it again.
    marks: bool,
}

/// Neighbouring blocks that were read together.
struct Window {
    leaf_at: usize,
    leaf: Rc<[u8]>,
    /// Blocks that the cursor has not come to, in the direction of travel.
    places: VecDeque<Place>,
    /// Where the bytes begin.
    start: u32,
    /// None when there is only one block, or the read failed: blocks are read one by one then.
    bytes: Option<AlignedBuffer>,
    /// Whether its blocks go into the cache.
    cached: bool,
    /// Place of the block behind the last one in the direction of travel, counted within the leaf; none beyond its end.
    next_block_at: Option<usize>,
}

/// A window that is being read.
struct Ahead {
    leaf_at: usize,
    read: OneshotReceiver<Option<Window>>,
}

/// A position in a segment. Versions of one key come newest first going forward, oldest first going backward.
pub(crate) struct SegmentCursor<R: Runtime> {
    segment: Rc<Segment<R>>,
    span: Rc<Span>,
    state: State,
    leaf_at: usize,
    leaf: Rc<[u8]>,
    block_at: usize,
    block: Rc<[u8]>,
    entry: usize,
    key: Vec<u8>,
    window: Option<Window>,
    ahead: Option<Ahead>,
    window_units: u32,
}

impl<R: Runtime> SegmentCursor<R> {
    pub(crate) fn new(
        segment: Rc<Segment<R>>,
        direction: Direction,
        access: Access,
        lower: Bound<Vec<u8>>,
        upper: Bound<Vec<u8>>,
    ) -> SegmentCursor<R> {
        let window_units = match access {
            Access::Query => 1,
            Access::Compaction => COMPACTION_WINDOW_UNITS,
        };
        let nothing: Rc<[u8]> = Rc::from([]);
        let from = match direction {
            Direction::Forward => &lower,
            Direction::Backward => &upper,
        };
        let marks = access == Access::Query && !matches!(from, Bound::Excluded(_));
        SegmentCursor {
            segment,
            span: Rc::new(Span {
                direction,
                access,
                lower,
                upper,
                marks,
            }),
            state: State::Fresh,
            leaf_at: 0,
            leaf: Rc::clone(&nothing),
            block_at: 0,
            block: nothing,
            entry: 0,
            key: Vec::new(),
            window: None,
            ahead: None,
            window_units,
        }
    }

    /// Key and version number at the position; none before the first `advance` and after the end.
    pub(crate) fn head(&self) -> Option<(&[u8], CommitTimestamp)> {
        if self.state != State::At {
            return None;
        }
        let payload = BlockView::new(&self.block).payload(self.entry);
        Some((&self.key, entry::commit_of(payload)))
    }

    /// The version at the position.
    pub(crate) fn version(&self) -> Version {
        assert_eq!(self.state, State::At, "a position has a version");
        entry::version_of(&self.block, BlockView::new(&self.block), self.entry)
    }

    /// Moves to the first or the next position.
    pub(crate) async fn advance(&mut self) -> Result<(), TreeError> {
        let there = match (self.state, self.span.direction) {
            (State::Ended, _) => return Ok(()),
            (State::Fresh, _) => self.seek().await?,
            (State::At, Direction::Forward) => {
                self.entry += 1;
                self.entry < BlockView::new(&self.block).len() || self.next_block().await?
            }
            (State::At, Direction::Backward) => {
                let within = self.entry > 0;
                self.entry = self.entry.wrapping_sub(1);
                within || self.next_block().await?
            }
        };
        self.state = State::Ended;
        if there {
            BlockView::new(&self.block).key_into(self.entry, &mut self.key);
            if self.in_bounds() {
                self.state = State::At;
            }
        }
        if self.state == State::Ended {
            // A cursor that is done holds no memory.
            self.window = None;
            self.ahead = None;
            self.block = Rc::from([]);
            self.leaf = Rc::from([]);
        }
        Ok(())
    }

    fn in_bounds(&self) -> bool {
        match self.span.direction {
            Direction::Forward => match &self.span.upper {
                Bound::Included(upper) => self.key <= *upper,
                Bound::Excluded(upper) => self.key < *upper,
                Bound::Unbounded => true,
            },
            Direction::Backward => match &self.span.lower {
                Bound::Included(lower) => self.key >= *lower,
                Bound::Excluded(lower) => self.key > *lower,
                Bound::Unbounded => true,
            },
        }
    }

    /// First entry of `view` that the start bound lets in, going forward; one behind the last, going backward.
    fn bound_in(&self, view: BlockView<'_>) -> usize {
        let forward = self.span.direction == Direction::Forward;
        match if forward {
            &self.span.lower
        } else {
            &self.span.upper
        } {
            Bound::Unbounded if forward => 0,
            Bound::Unbounded => view.len(),
            Bound::Included(key) if forward => view.lower_bound(key),
            Bound::Excluded(key) if !forward => view.lower_bound(key),
            Bound::Included(key) | Bound::Excluded(key) => view.upper_bound(key),
        }
    }

    /// Finds the first position. The index's separators are found like keys: the block that a bound falls
    /// into is the first whose separator the bound does not exclude, the last block where there is none.
    async fn seek(&mut self) -> Result<bool, TreeError> {
        let top_len = self.segment.top().len();
        let at = self.bound_in(self.segment.top());
        if self.span.direction == Direction::Forward && at == top_len {
            return Ok(false);
        }
        self.leaf_at = at.min(top_len - 1);
        self.load_leaf().await?;
        let leaf = BlockView::new(&self.leaf);
        let at = self.bound_in(leaf);
        self.block_at = at.min(leaf.len() - 1);
        if self.span.direction == Direction::Forward && at == leaf.len() {
            // The separator of the leaf is its last block's, so the leaf holds such a block.
            return Ok(false);
        }
        self.load_block().await?;
        let view = BlockView::new(&self.block);
        let at = self.bound_in(view);
        match self.span.direction {
            Direction::Forward => {
                self.entry = at;
                if at < view.len() {
                    Ok(true)
                } else {
                    self.next_block().await
                }
            }
            Direction::Backward => {
                self.entry = at.wrapping_sub(1);
                if at > 0 { Ok(true) } else { self.next_block().await }
            }
        }
    }

    /// Moves to the neighbouring block and its first entry in the direction of travel.
    async fn next_block(&mut self) -> Result<bool, TreeError> {
        match self.span.direction {
            Direction::Forward => {
                self.block_at += 1;
                if self.block_at == BlockView::new(&self.leaf).len() {
                    self.leaf_at += 1;
                    if self.leaf_at == self.segment.top().len() {
                        return Ok(false);
                    }
                    self.load_leaf().await?;
                    self.block_at = 0;
                }
                self.load_block().await?;
                self.entry = 0;
            }
            Direction::Backward => {
                if self.block_at == 0 {
                    if self.leaf_at == 0 {
                        return Ok(false);
                    }
                    self.leaf_at -= 1;
                    self.load_leaf().await?;
                    self.block_at = BlockView::new(&self.leaf).len();
                }
                self.block_at -= 1;
                self.load_block().await?;
                self.entry = BlockView::new(&self.block).len() - 1;
            }
        }
        Ok(true)
    }

    async fn load_leaf(&mut self) -> Result<(), TreeError> {
        if self
            .ahead
            .as_ref()
            .is_some_and(|ahead| ahead.leaf_at == self.leaf_at)
        {
            self.take_ahead().await;
        }
        if let Some(window) = self
            .window
            .as_ref()
            .filter(|window| window.leaf_at == self.leaf_at)
        {
            self.leaf = Rc::clone(&window.leaf);
            return Ok(());
        }
        self.leaf = self.segment.leaf(self.leaf_at, &self.span).await?;
        Ok(())
    }

    async fn load_block(&mut self) -> Result<(), TreeError> {
        let place = Place::decode(BlockView::new(&self.leaf).payload(self.block_at));
        let mut found = self.take_from_window(place).await?;
        if found.is_none() && self.ahead.is_some() {
            self.take_ahead().await;
            found = self.take_from_window(place).await?;
        }
        if found.is_none() && self.span.access == Access::Query {
            found = self.segment.cached_for_scan(place, self.span.marks);
            if found.is_some() {
                // What was read lies behind.
                self.window = None;
            }
        }
        if found.is_none() {
            let window = self.segment.read_window(
                &self.span,
                (self.leaf_at, Rc::clone(&self.leaf)),
                self.block_at,
                self.window_units,
            );
            self.window = Some(window.await);
            if self.span.access == Access::Query {
                self.window_units = (self.window_units * 4).min(QUERY_WINDOW_UNITS);
            }
            found = self.take_from_window(place).await?;
        }
        self.block = found.expect("a window begins with the block that it is read for");
        self.look_ahead();
        Ok(())
    }

    /// The window that was being read takes the place of the one that has been used.
    async fn take_ahead(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            // Without an answer the blocks are read when they are needed, and errors met then.
            self.window = ahead.read.await.ok().flatten();
        }
    }

    /// The block at `place`, if the window has it; blocks before it are given up.
    async fn take_from_window(&mut self, place: Place) -> Result<Option<Rc<[u8]>>, TreeError> {
        let Some(window) = &mut self.window else {
            return Ok(None);
        };
        while let Some(first) = window.places.pop_front() {
            if first != place {
                continue;
            }
            let whole = window.bytes.as_ref().and_then(|bytes| {
                let at = (place.unit - window.start) as usize * UNIT_BYTES;
                let bytes = &bytes[at..at + place.units as usize * UNIT_BYTES];
                self.segment.check(bytes, place, BlockKind::Data).ok()
            });
            let cached = window.cached;
            let block = match whole {
                Some(block) => block,
                None => self.segment.read_block(place, BlockKind::Data).await?,
            };
            if cached {
                self.segment.keep(place, &block);
            }
            return Ok(Some(block));
        }
        Ok(None)
    }

    /// Begins to read the next window, once they are large: then it is a long way.
    fn look_ahead(&mut self) {
        let (units_max, queue) = match self.span.access {
            Access::Query => (QUERY_WINDOW_UNITS, Queue::Foreground),
            Access::Compaction => (COMPACTION_WINDOW_UNITS, Queue::Background),
        };
        let Some(window) = &self.window else { return };
        if self.ahead.is_some() || self.window_units < units_max || window.bytes.is_none() {
            return;
        }
        let forward = self.span.direction == Direction::Forward;
        let (leaf_at, from) = match window.next_block_at {
            Some(block_at) => (window.leaf_at, Some((Rc::clone(&window.leaf), block_at))),
            None if forward => (window.leaf_at + 1, None),
            None => (window.leaf_at.wrapping_sub(1), None),
        };
        let leaf = BlockView::new(&window.leaf);
        if leaf_at >= self.segment.top().len()
            || self.span.ends_within(leaf, from.as_ref().map(|(_, at)| *at))
        {
            return;
        }
        let (segment, span) = (Rc::clone(&self.segment), Rc::clone(&self.span));
        let read = spawn(&self.segment.store().runtime, queue, async move {
            let (leaf, block_at) = match from {
                Some(from) => from,
                None => {
                    let leaf = segment.leaf(leaf_at, &span).await.ok()?;
                    let last = BlockView::new(&leaf).len() - 1;
                    (leaf, if forward { 0 } else { last })
                }
            };
            Some(
                segment
                    .read_window(&span, (leaf_at, leaf), block_at, units_max)
                    .await,
            )
        });
        self.ahead = Some(Ahead { leaf_at, read });
    }
}

impl Span {
    /// Whether nothing beyond block `next` of a leaf can be in bounds; without it, nothing beyond the leaf.
    fn ends_within(&self, leaf: BlockView<'_>, next: Option<usize>) -> bool {
        match self.direction {
            Direction::Forward => match &self.upper {
                Bound::Unbounded => false,
                // The bound falls into a block before.
                Bound::Included(upper) | Bound::Excluded(upper) => {
                    leaf.lower_bound(upper) < next.unwrap_or(leaf.len())
                }
            },
            Direction::Backward => match &self.lower {
                Bound::Unbounded => false,
                // All keys up to the separator of `next` are below the bound. What a leaf before this one ends with
                // is not known here.
                Bound::Included(lower) | Bound::Excluded(lower) => {
                    next.is_some_and(|next| leaf.lower_bound(lower) > next)
                }
            },
        }
    }

    /// The block at `block_at` and its neighbours in the direction of travel, within `units_max` and bounds; and the
    /// block that follows them in the leaf.
    fn places(&self, leaf: BlockView<'_>, block_at: usize, units_max: u32) -> (Vec<Place>, Option<usize>) {
        let first = Place::decode(leaf.payload(block_at));
        let mut places = vec![first];
        let mut units = first.units;
        let mut at = block_at;
        loop {
            let next = match self.direction {
                Direction::Forward => Some(at + 1).filter(|next| *next < leaf.len()),
                Direction::Backward => at.checked_sub(1),
            };
            let Some(next) = next.filter(|next| !self.ends_within(leaf, Some(*next))) else {
                return (places, next);
            };
            let place = Place::decode(leaf.payload(next));
            let previous = places.last().expect("it begins with the first");
            let touching = match self.direction {
                Direction::Forward => previous.unit + previous.units == place.unit,
                Direction::Backward => place.unit + place.units == previous.unit,
            };
            if !touching || units + place.units > units_max {
                return (places, Some(next));
            }
            units += place.units;
            places.push(place);
            at = next;
        }
    }
}

impl<R: Runtime> Segment<R> {
    /// A leaf, from the cache or a drive; a query leaves it in the cache.
    async fn leaf(&self, leaf_at: usize, span: &Span) -> Result<Rc<[u8]>, TreeError> {
        let place = Place::decode(self.top().payload(leaf_at));
        if let Some(leaf) = self.cached_for_scan(place, span.marks) {
            return Ok(leaf);
        }
        let leaf = self.read_block(place, BlockKind::Leaf).await?;
        if span.access == Access::Query {
            self.store.count(|stats| stats.cache_misses += 1);
            self.keep(place, &leaf);
        }
        Ok(leaf)
    }

    /// Reads the block at `block_at` of a leaf and, in the same read, those that will be wanted after it. A single
    /// block, and what cannot be read, is left to be read alone.
    async fn read_window(
        &self,
        span: &Span,
        (leaf_at, leaf): (usize, Rc<[u8]>),
        block_at: usize,
        units_max: u32,
    ) -> Window {
        let (places, next_block_at) = span.places(BlockView::new(&leaf), block_at, units_max);
        let start = places
            .iter()
            .map(|place| place.unit)
            .min()
            .expect("the first is among them");
        let units = places.iter().map(|place| place.units).sum();
        let bytes = if places.len() > 1 {
            self.read_units(start, units).await
        } else {
            None
        };
        if span.access == Access::Query {
            self.store.count(|stats| stats.cache_misses += 1);
        }
        Window {
            leaf_at,
            leaf,
            places: places.into(),
            start,
            bytes,
            cached: span.access == Access::Query && units_max <= CACHED_WINDOW_UNITS,
            next_block_at,
        }
    }
}
