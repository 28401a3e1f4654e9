//! What a tree consists of at one moment. A view never changes: flush and compaction install another one, and
//! whoever reads goes on with the one it began with, whose segments stay on the drives that long.

use std::ops::Bound;
use std::rc::Rc;

use cairn_runtime::Runtime;

use super::filter::{GroupHash, KeyHash};
use super::memtable::{Memtable, is_empty_range};
use super::segment::{Access, Segment, SegmentCursor};
use crate::Direction;
use crate::ids::SegmentId;
use crate::manifest::{LEVELS_MAX, SegmentReference};

/// A range of keys, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    /// Where it begins.
    pub(crate) lower: Bound<Vec<u8>>,
    /// Where it ends.
    pub(crate) upper: Bound<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub(crate) fn all() -> KeyRange {
        KeyRange {
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
        }
    }

    /// Whether no key can lie in it.
    pub(crate) fn is_empty(&self) -> bool {
        let (lower, upper) = self.as_ref();
        is_empty_range(lower, upper)
    }

    /// The group that every key of the range is in, if there is one: of a Query, its partition key's.
    pub(crate) fn group(&self) -> Option<GroupHash> {
        match (&self.lower, &self.upper) {
            (
                Bound::Included(lower) | Bound::Excluded(lower),
                Bound::Included(upper) | Bound::Excluded(upper),
            ) => GroupHash::of_range(lower, upper),
            _ => None,
        }
    }

    pub(crate) fn as_ref(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            self.lower.as_ref().map(Vec::as_slice),
            self.upper.as_ref().map(Vec::as_slice),
        )
    }
}

/// A segment and how a partition refers to it.
pub(crate) struct Placed<R: Runtime> {
    pub(crate) segment: Rc<Segment<R>>,
    pub(crate) reference: Rc<SegmentReference>,
}

impl<R: Runtime> Clone for Placed<R> {
    fn clone(&self) -> Placed<R> {
        Placed {
            segment: Rc::clone(&self.segment),
            reference: Rc::clone(&self.reference),
        }
    }
}

impl<R: Runtime> Placed<R> {
    pub(crate) fn id(&self) -> SegmentId {
        self.reference.id
    }

    pub(crate) fn may_contain(&self, key: &[u8], hash: KeyHash) -> bool {
        self.reference.covers(key) && self.segment.may_contain(key, hash)
    }

    /// A cursor over what both the range and the reference let through.
    pub(crate) fn cursor(&self, direction: Direction, access: Access, range: &KeyRange) -> SegmentCursor<R> {
        let clip_lower = self.reference.clip_lower.as_ref();
        let lower = match (&range.lower, clip_lower) {
            (Bound::Included(key) | Bound::Excluded(key), Some(clip)) if clip > key => {
                Bound::Included(clip.clone())
            }
            (Bound::Unbounded, Some(clip)) => Bound::Included(clip.clone()),
            (lower, _) => lower.clone(),
        };
        let clip_upper = self.reference.clip_upper.as_ref();
        let upper = match (&range.upper, clip_upper) {
            (Bound::Included(key) | Bound::Excluded(key), Some(clip)) if clip <= key => {
                Bound::Excluded(clip.clone())
            }
            (Bound::Unbounded, Some(clip)) => Bound::Excluded(clip.clone()),
            (upper, _) => upper.clone(),
        };
        SegmentCursor::new(Rc::clone(&self.segment), direction, access, lower, upper)
    }

    /// Whether a cursor over `range` can find anything.
    fn meets(&self, range: &KeyRange) -> bool {
        let below = match &range.lower {
            Bound::Unbounded => false,
            Bound::Included(lower) | Bound::Excluded(lower) => self.reference.ends_before(lower),
        };
        let above = match &range.upper {
            Bound::Unbounded => false,
            Bound::Included(upper) | Bound::Excluded(upper) => upper.as_slice() < self.reference.lower(),
        };
        !below && !above
    }
}

/// Everything of a tree but the active memtable.
pub(crate) struct View<R: Runtime> {
    /// Memtables being flushed, newest first.
    pub(crate) flushing: Vec<Rc<Memtable>>,
    /// Level 0 newest first; the others in ascending order, without overlap.
    pub(crate) levels: [Vec<Placed<R>>; LEVELS_MAX],
}

impl<R: Runtime> Clone for View<R> {
    fn clone(&self) -> View<R> {
        View {
            flushing: self.flushing.clone(),
            levels: self.levels.clone(),
        }
    }
}

impl<R: Runtime> View<R> {
    pub(crate) fn empty() -> View<R> {
        View {
            flushing: Vec::new(),
            levels: Default::default(),
        }
    }

    pub(crate) fn add(&mut self, placed: Placed<R>) {
        let level = usize::from(placed.reference.level);
        self.levels[level].push(placed);
        self.sort(level);
    }

    fn sort(&mut self, level: usize) {
        if level == 0 {
            // Flushes come in the order of their versions, and their ranges of versions do not overlap.
            let newest = |placed: &Placed<R>| std::cmp::Reverse((placed.reference.commit_max, placed.id()));
            self.levels[0].sort_by_key(newest);
        } else {
            self.levels[level].sort_by(|one, other| one.reference.lower().cmp(other.reference.lower()));
        }
    }

    pub(crate) fn remove(&mut self, id: SegmentId) -> Option<Placed<R>> {
        self.levels.iter_mut().find_map(|level| {
            let at = level.iter().position(|placed| placed.id() == id)?;
            Some(level.remove(at))
        })
    }

    /// Segments that may hold `key`, those with newer versions first; the filter is not asked.
    pub(crate) fn holding<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Placed<R>> {
        let deeper = self.levels[1..].iter().filter_map(move |level| find(level, key));
        self.levels[0].iter().chain(deeper)
    }

    /// The segments of a level that overlap what lies between the least and the greatest key of `others`.
    pub(crate) fn between(&self, level: usize, others: &[Placed<R>]) -> Vec<Placed<R>> {
        let Some(lower) = others.iter().map(|other| other.reference.lower()).min() else {
            return Vec::new();
        };
        let within = |placed: &&Placed<R>| {
            let begins_within = others
                .iter()
                .any(|other| !other.reference.ends_before(placed.reference.lower()));
            begins_within && !placed.reference.ends_before(lower)
        };
        self.levels[level].iter().filter(within).cloned().collect()
    }

    /// The segments of a level that `range` meets.
    pub(crate) fn meeting<'a>(
        &'a self,
        level: usize,
        range: &'a KeyRange,
    ) -> impl DoubleEndedIterator<Item = Placed<R>> + 'a {
        self.levels[level]
            .iter()
            .filter(|placed| placed.meets(range))
            .cloned()
    }

    /// Bytes of a level's files.
    pub(crate) fn bytes(&self, level: usize) -> u64 {
        self.levels[level]
            .iter()
            .map(|placed| placed.reference.bytes)
            .sum()
    }

    /// The invariants of a view; a broken one is a broken program.
    pub(crate) fn validate(&self) {
        for pair in self.levels[0].windows(2) {
            let newer = pair[0].reference.commit_max >= pair[1].reference.commit_max;
            assert!(newer, "level 0 is ordered by version");
        }
        for (number, level) in self.levels.iter().enumerate() {
            assert!(
                level
                    .iter()
                    .all(|placed| usize::from(placed.reference.level) == number),
                "levels agree"
            );
            for pair in level.windows(2).filter(|_| number > 0) {
                assert!(
                    !pair[0].reference.overlaps(&pair[1].reference),
                    "segments of a level do not overlap"
                );
            }
        }
    }
}

/// The segment of a level from 1 on that may hold `key`.
fn find<'a, R: Runtime>(level: &'a [Placed<R>], key: &[u8]) -> Option<&'a Placed<R>> {
    let at = level.partition_point(|placed| placed.reference.lower() <= key);
    level.get(at.checked_sub(1)?)
}
