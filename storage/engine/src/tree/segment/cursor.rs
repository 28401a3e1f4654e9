//! A cursor over a segment in either direction, within bounds, that reads ahead.
//!
//! 1. `seek` finds leaf, block and entry of the first position by the index.
//! 2. `advance` steps within the block; at its end it takes the next block from the window, else from the
//!    cache, else reads a new window: one read of as many neighbouring blocks as the window has grown to.
//! 3. A block of a window that does not verify is read again alone, which repairs it.
//!
//! A query's window begins with one block and grows fourfold with each read, so that a short query reads
//! little and a long one in large pieces; the large pieces pass by the cache. A compaction begins large.

use std::collections::VecDeque;
use std::ops::Bound;
use std::rc::Rc;

use cairn_runtime::Runtime;

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

/// A position in a segment. Versions of one key come newest first going forward, oldest first going backward.
pub(crate) struct SegmentCursor<R: Runtime> {
    segment: Rc<Segment<R>>,
    direction: Direction,
    access: Access,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    state: State,
    leaf_at: usize,
    leaf: Rc<[u8]>,
    block_at: usize,
    block: Rc<[u8]>,
    entry: usize,
    key: Vec<u8>,
    window: VecDeque<(u32, Rc<[u8]>)>,
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
        SegmentCursor {
            segment,
            direction,
            access,
            lower,
            upper,
            state: State::Fresh,
            leaf_at: 0,
            leaf: Rc::clone(&nothing),
            block_at: 0,
            block: nothing,
            entry: 0,
            key: Vec::new(),
            window: VecDeque::new(),
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
        let there = match (self.state, self.direction) {
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
            self.window.clear();
            self.block = Rc::from([]);
            self.leaf = Rc::from([]);
        }
        Ok(())
    }

    fn in_bounds(&self) -> bool {
        match self.direction {
            Direction::Forward => match &self.upper {
                Bound::Included(upper) => self.key <= *upper,
                Bound::Excluded(upper) => self.key < *upper,
                Bound::Unbounded => true,
            },
            Direction::Backward => match &self.lower {
                Bound::Included(lower) => self.key >= *lower,
                Bound::Excluded(lower) => self.key > *lower,
                Bound::Unbounded => true,
            },
        }
    }

    /// First entry of `view` that the start bound lets in, going forward; one behind the last, going backward.
    fn bound_in(&self, view: BlockView<'_>) -> usize {
        let forward = self.direction == Direction::Forward;
        match if forward { &self.lower } else { &self.upper } {
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
        if self.direction == Direction::Forward && at == top_len {
            return Ok(false);
        }
        self.leaf_at = at.min(top_len - 1);
        self.load_leaf().await?;
        let leaf = BlockView::new(&self.leaf);
        let at = self.bound_in(leaf);
        self.block_at = at.min(leaf.len() - 1);
        if self.direction == Direction::Forward && at == leaf.len() {
            // The separator of the leaf is its last block's, so the leaf holds such a block.
            return Ok(false);
        }
        self.load_block().await?;
        let view = BlockView::new(&self.block);
        let at = self.bound_in(view);
        match self.direction {
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
        match self.direction {
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
        let place = Place::decode(self.segment.top().payload(self.leaf_at));
        if let Some(leaf) = self.segment.cached(place) {
            self.leaf = leaf;
            return Ok(());
        }
        self.leaf = self.segment.read_block(place, BlockKind::Leaf).await?;
        if self.access == Access::Query {
            self.segment.store().count(|stats| stats.cache_misses += 1);
            self.segment.keep(place, &self.leaf);
        }
        Ok(())
    }

    async fn load_block(&mut self) -> Result<(), TreeError> {
        let place = Place::decode(BlockView::new(&self.leaf).payload(self.block_at));
        while let Some((unit, block)) = self.window.pop_front() {
            if unit == place.unit {
                self.block = block;
                return Ok(());
            }
        }
        if self.access == Access::Query {
            if let Some(block) = self.segment.cached(place) {
                self.block = block;
                return Ok(());
            }
            self.segment.store().count(|stats| stats.cache_misses += 1);
        }
        self.read_window(place).await
    }

    /// Reads the block at the position and, in the same read, those that will be wanted after it.
    async fn read_window(&mut self, first: Place) -> Result<(), TreeError> {
        let places = self.window_places(first);
        let cached = self.access == Access::Query && self.window_units <= CACHED_WINDOW_UNITS;
        if self.access == Access::Query {
            self.window_units = (self.window_units * 4).min(QUERY_WINDOW_UNITS);
        }
        let start = places
            .iter()
            .map(|place| place.unit)
            .min()
            .expect("the first is among them");
        let units = places.iter().map(|place| place.units).sum();
        let buffer = if places.len() > 1 {
            self.segment.read_units(start, units).await
        } else {
            None
        };
        let mut blocks = VecDeque::new();
        for place in places {
            let block = buffer.as_ref().and_then(|buffer| {
                let at = (place.unit - start) as usize * UNIT_BYTES;
                let bytes = &buffer[at..at + place.units as usize * UNIT_BYTES];
                self.segment.check(bytes, place, BlockKind::Data).ok()
            });
            let block = match block {
                Some(block) => block,
                None if place == first || buffer.is_some() => {
                    self.segment.read_block(place, BlockKind::Data).await?
                }
                None => break,
            };
            if cached {
                self.segment.keep(place, &block);
            }
            blocks.push_back((place.unit, block));
        }
        let (_, block) = blocks.pop_front().expect("the first is among them");
        self.block = block;
        self.window = blocks;
        Ok(())
    }

    /// The block at the position and its neighbours in the direction of travel, within window and bounds.
    fn window_places(&self, first: Place) -> Vec<Place> {
        let leaf = BlockView::new(&self.leaf);
        let mut places = vec![first];
        let mut units = first.units;
        let mut at = self.block_at;
        loop {
            let next = match self.direction {
                Direction::Forward => {
                    // The bound falls into this block: what follows is beyond it.
                    let last = match &self.upper {
                        Bound::Unbounded => false,
                        Bound::Included(upper) | Bound::Excluded(upper) => leaf.lower_bound(upper) <= at,
                    };
                    if last {
                        None
                    } else {
                        Some(at + 1).filter(|next| *next < leaf.len())
                    }
                }
                Direction::Backward => at.checked_sub(1).filter(|next| match &self.lower {
                    Bound::Unbounded => true,
                    // All keys up to this separator are below the bound.
                    Bound::Included(lower) | Bound::Excluded(lower) => leaf.lower_bound(lower) <= *next,
                }),
            };
            let Some(next) = next else { return places };
            let place = Place::decode(leaf.payload(next));
            let previous = places.last().expect("it begins with the first");
            let touching = match self.direction {
                Direction::Forward => previous.unit + previous.units == place.unit,
                Direction::Backward => place.unit + place.units == previous.unit,
            };
            if !touching || units + place.units > self.window_units {
                return places;
            }
            units += place.units;
            places.push(place);
            at = next;
        }
    }
}
