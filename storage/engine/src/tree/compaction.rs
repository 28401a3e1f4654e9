//! Leveled compaction: what keeps the cost of reading and of space bounded.
//!
//! Level 0 holds flushed memtables, which overlap; every deeper level is one sorted run. The **last** level holds nearly
//! everything, the one above it a tenth of that, and so on up to the **base**, the first level that level 0 is merged
//! into; between them and level 0 there is nothing. Targets are reckoned from the size of the last level upwards, not
//! from a fixed first level downwards: so whatever the size of the tree, the levels above the last hold a ninth of it
//! at most, and what they have made obsolete there is no more than that. A small tree is level 0 and the last level.
//!
//! A point read consults at most [`CompactionConfig::level0_segments`] segments (some more while a compaction is due)
//! and one per deeper level, and filters turn nearly all of them away.
//!
//! 0. Segments whose keys have all been trimmed ([`Tree::trim`]) go, by an edit of the manifest and no byte written.
//! 1. **Pick** the level with the highest score: for level 0 its segments, for the others their bytes, against
//!    their targets. All of level 0, or the one segment of the level that overlaps the least, relative to its size,
//!    with the next level. A tombstone counts as much as an item: it stands for one below that takes space in vain.
//! 2. Segments that overlap nothing below **move**: an edit of the manifest and no byte written. Those that are
//!    tombstones for a good part do not: rewriting frees them of those that hide nothing any more.
//! 3. Else **merge** them with what they overlap in the next level into new segments there ([`super::flush`]), no faster
//!    than [`super::pace`] lets it.
//! 4. When nothing is due, a segment that is sealed with an older key of its table than new ones are is rewritten in its level.
//! 5. The caller makes the edit durable and **installs** it. Replaced files go with their last readers.
//!
//! The base's target follows the size of flushes: with 128 small partitions on a shard their flushes are small,
//! and so must their levels be, or every flush would rewrite the whole tree.

use std::cell::Cell;
use std::rc::Rc;

use cairn_runtime::Runtime;

use super::codec::Compression;
use super::flush::Rewrite;
use super::memtable::Memtable;
use super::merge::{LevelCursor, Merge, Source};
use super::segment::Access;
use super::store::TreeError;
use super::version::NEWEST;
use super::view::{KeyRange, Placed, View};
use super::{Tree, Trimmed};
use crate::Direction;
use crate::ids::SegmentId;
use crate::manifest::{LEVELS_MAX, SegmentReference};

/// When and how trees are compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionConfig {
    /// Length at which a compaction begins another segment, in bytes.
    pub segment_bytes: u64,
    /// Segments in level 0 from which it is compacted.
    pub level0_segments: usize,
    /// Least that a level above the last may hold before it is compacted, in bytes; so much, beside a ninth of the
    /// data, obsolete bytes may take.
    pub level1_bytes_min: u64,
    /// Target of a level relative to the one above.
    pub level_ratio: u64,
    /// What new segments are written with.
    pub compression: Compression,
}

impl Default for CompactionConfig {
    fn default() -> CompactionConfig {
        CompactionConfig {
            segment_bytes: 32 << 20,
            level0_segments: 4,
            level1_bytes_min: 4 << 20,
            level_ratio: 10,
            compression: Compression::default(),
        }
    }
}

/// Segments written and not yet in the tree: to be installed when the edits are durable.
pub struct Prepared<R: Runtime> {
    /// To be added to the manifest.
    pub added: Vec<SegmentReference>,
    /// To be removed from the manifest, before the additions: a segment that moves is in both.
    pub removed: Vec<SegmentId>,
    pub(super) placed: Vec<Placed<R>>,
    pub(super) flushed: Option<Rc<Memtable>>,
    /// Held while a compaction is under way.
    under_way: Option<Compacting>,
}

impl<R: Runtime> Prepared<R> {
    pub(super) fn nothing() -> Prepared<R> {
        Prepared {
            added: Vec::new(),
            removed: Vec::new(),
            placed: Vec::new(),
            flushed: None,
            under_way: None,
        }
    }
}

struct Compacting(Rc<Cell<bool>>);

impl Drop for Compacting {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A segment moves as it is only if fewer than one in so many of its versions are tombstones.
const TOMBSTONES_MOVE_PART: u64 = 8;

/// Whether a good part of a segment is tombstones.
fn is_dead(reference: &SegmentReference) -> bool {
    reference.tombstones > 0 && reference.tombstones.saturating_mul(TOMBSTONES_MOVE_PART) >= reference.entries
}

/// Why there is a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urge {
    /// A level holds more than its target, or else a segment is sealed with an old key.
    Debt,
    /// Space is wanted: what is deleted goes, whatever levels hold.
    Reclaim,
}

/// What the levels may hold.
struct Targets {
    /// Where level 0 goes.
    base: usize,
    /// Bytes; no limit for the last, none of its own for level 0.
    bytes: [u64; LEVELS_MAX],
    /// What a tombstone counts as.
    entry_bytes: u64,
}

/// The level that holds nearly everything.
const LAST: usize = LEVELS_MAX - 1;

/// What a compaction takes.
struct Pick<R: Runtime> {
    level: usize,
    /// Where it goes.
    to: usize,
    /// Of `level`, newest first or in order.
    upper: Vec<Placed<R>>,
    /// What lies between them in the next level, in order: also what none of them overlaps, because a new segment
    /// may span it.
    lower: Vec<Placed<R>>,
    /// For another key: then nothing moves as it is.
    rekeys: bool,
}

impl<R: Runtime> Tree<R> {
    /// Whether a compaction is under way, from its choice of segments until its result is installed or given up.
    #[must_use]
    pub fn is_compacting(&self) -> bool {
        self.compacting.get()
    }

    /// Bytes that compaction has to move before every level is within its target; 0 when there is nothing to do,
    /// or nothing that may be done.
    #[must_use]
    pub fn compaction_debt(&self) -> u64 {
        if !self.complete.get() {
            return 0;
        }
        let view = self.view.borrow();
        let level0 = if view.levels[0].len() < self.context.config.level0_segments {
            0
        } else {
            view.bytes(0)
        };
        let targets = self.targets(&view);
        let deeper = (1..LAST).map(|level| targets.weight(&view, level).saturating_sub(targets.bytes[level]));
        let trimmed = self.trimmed_segments(&view).map(|placed| placed.reference.bytes);
        level0 + deeper.sum::<u64>() + trimmed.sum::<u64>()
    }

    /// Segments that hold nothing but what has been trimmed.
    fn trimmed_segments<'a>(&self, view: &'a View<R>) -> impl Iterator<Item = &'a Placed<R>> {
        let trimmed = self.trimmed.borrow().clone();
        let all = trimmed.is_some().then(|| view.levels.iter().flatten());
        let covers = move |placed: &&Placed<R>| {
            let covers = |trimmed: &Trimmed| trimmed.covers(&placed.reference);
            trimmed.as_ref().is_some_and(covers)
        };
        all.into_iter().flatten().filter(covers)
    }

    fn targets(&self, view: &View<R>) -> Targets {
        let config = &self.context.config;
        let flushes = self
            .flush_bytes
            .get()
            .saturating_mul(config.level0_segments as u64);
        // Between a ratio-th of this and this much lies the base's size when the tree is in shape.
        let base_bytes_max = flushes.max(config.level1_bytes_min);
        let base_bytes_min = base_bytes_max / config.level_ratio;
        let filled = || (1..LEVELS_MAX).filter(|level| !view.levels[*level].is_empty());
        let first = filled().next().unwrap_or(LAST);
        let deepest = filled().next_back().unwrap_or(0);
        let entries: u64 = view.levels[deepest]
            .iter()
            .map(|placed| placed.reference.entries)
            .sum();
        let largest = (1..LEVELS_MAX).map(|level| view.bytes(level)).max().unwrap_or(0);
        let mut base = first;
        // What the first level would hold if the largest were the last.
        let mut base_bytes = (first..LAST).fold(largest, |bytes, _| bytes / config.level_ratio);
        while base > 1 && base_bytes > base_bytes_max {
            base -= 1;
            base_bytes /= config.level_ratio;
        }
        // The tree is too small for its first level, which empties itself into the next; by half, so that it does
        // not come and go.
        let superfluous = first < LAST && base == first && base_bytes <= base_bytes_min / 2;
        let mut bytes = [0; LEVELS_MAX];
        let mut target = base_bytes.clamp(base_bytes_min, base_bytes_max);
        for level_bytes in &mut bytes[base..LAST] {
            *level_bytes = target.max(base_bytes_max);
            target = target.saturating_mul(config.level_ratio);
        }
        if superfluous {
            bytes[first] = 0;
        }
        bytes[LAST] = u64::MAX;
        Targets {
            base,
            bytes,
            entry_bytes: view.bytes(deepest) / entries.max(1),
        }
    }

    /// Makes the compaction that is most due, if one is. `next` gives ids for new segments. A drive that fails is
    /// reported and left out.
    ///
    /// # Errors
    /// [`TreeError::OutOfSpace`], [`TreeError::Volume`], [`TreeError::NoMirror`], or
    /// [`TreeError::Unreadable`] when an input is damaged on every mirror; nothing has changed.
    pub async fn compact(
        &self,
        urge: Urge,
        mut next: impl FnMut() -> SegmentId,
    ) -> Result<Option<Prepared<R>>, TreeError> {
        if self.compacting.get() || !self.complete.get() {
            return Ok(None);
        }
        let view = Rc::clone(&self.view.borrow());
        let trimmed: Vec<SegmentId> = self.trimmed_segments(&view).map(Placed::id).collect();
        if !trimmed.is_empty() {
            self.compacting.set(true);
            return Ok(Some(Prepared {
                removed: trimmed,
                under_way: Some(Compacting(Rc::clone(&self.compacting))),
                ..Prepared::nothing()
            }));
        }
        let pick = match urge {
            Urge::Debt => self.pick(&view).or_else(|| self.pick_old_key(&view)),
            Urge::Reclaim => self.pick_reclaimable(&view),
        };
        let Some(pick) = pick else {
            return Ok(None);
        };
        self.compacting.set(true);
        let under_way = Compacting(Rc::clone(&self.compacting));
        let mut prepared = if pick.moves() {
            pick.moved()
        } else {
            self.merge(&view, &pick, &mut next).await?
        };
        prepared.under_way = Some(under_way);
        Ok(Some(prepared))
    }

    fn pick(&self, view: &View<R>) -> Option<Pick<R>> {
        let config = &self.context.config;
        let targets = self.targets(view);
        // Scores in percent: 100 is due.
        let level0 = view.levels[0].len() as u64 * 100 / config.level0_segments.max(1) as u64;
        let deeper = (1..LAST).map(|level| {
            let (weight, target) = (targets.weight(view, level), targets.bytes[level]);
            let percent = u128::from(weight) * 100 / u128::from(target).max(1);
            // Within its target, a level is not due, however close the rounding.
            let due = weight > target;
            let least = if due { 100 } else { 0 };
            (u64::try_from(percent).unwrap_or(u64::MAX).max(least), level, due)
        });
        let scores = std::iter::once((level0, 0, level0 >= 100)).chain(deeper);
        // Of equal scores the upper level: it is what reads wait for.
        let due = scores.filter(|(.., due)| *due);
        let (_, level, _) = due.max_by_key(|(score, level, _)| (*score, std::cmp::Reverse(*level)))?;
        if level == 0 {
            let upper = view.levels[0].clone();
            let to = targets.base;
            let lower = view.between(to, &upper);
            return Some(Pick {
                level,
                to,
                upper,
                lower,
                rekeys: false,
            });
        }
        let picks = view.levels[level].iter().map(|placed| {
            let upper = vec![placed.clone()];
            let to = level + 1;
            let lower = view.between(to, &upper);
            let overlap: u64 = lower.iter().map(|placed| placed.reference.bytes).sum();
            let percent = overlap * 100 / targets.weight_of(&placed.reference).max(1);
            let pick = Pick {
                level,
                to,
                upper,
                lower,
                rekeys: false,
            };
            (percent, placed.id(), pick)
        });
        picks
            .min_by_key(|(percent, id, _)| (*percent, *id))
            .map(|(.., pick)| pick)
    }

    /// Tombstones in segments that [`Urge::Reclaim`] would rewrite.
    #[must_use]
    pub fn reclaimable(&self) -> u64 {
        if !self.complete.get() {
            return 0;
        }
        let view = self.view.borrow();
        let above_last = view.levels[..LAST].iter().flatten();
        let dead = above_last.filter(|placed| is_dead(&placed.reference));
        dead.map(|placed| placed.reference.tombstones).sum()
    }

    /// The upmost level with segments that are tombstones for a good part: all of level 0, or the first such segment.
    fn pick_reclaimable(&self, view: &View<R>) -> Option<Pick<R>> {
        let dead = |level: &usize| {
            view.levels[*level]
                .iter()
                .any(|placed| is_dead(&placed.reference))
        };
        let level = (0..LAST).find(dead)?;
        let (to, upper) = if level == 0 {
            (self.targets(view).base, view.levels[0].clone())
        } else {
            let mut segments = view.levels[level].iter();
            let first = segments.find(|placed| is_dead(&placed.reference))?;
            (level + 1, vec![first.clone()])
        };
        let lower = view.between(to, &upper);
        Some(Pick {
            level,
            to,
            upper,
            lower,
            rekeys: false,
        })
    }

    /// Bytes of segments that are sealed with an older key of their table than new ones are.
    #[must_use]
    pub fn old_key_bytes(&self) -> u64 {
        if !self.complete.get() {
            return 0;
        }
        let view = self.view.borrow();
        let old = view
            .levels
            .iter()
            .flatten()
            .filter(|placed| self.has_old_key(placed));
        old.map(|placed| placed.reference.bytes).sum()
    }

    fn has_old_key(&self, placed: &Placed<R>) -> bool {
        let header = placed.segment.header();
        self.context.store.keys.is_old(header.table, header.key_id)
    }

    fn pick_old_key(&self, view: &View<R>) -> Option<Pick<R>> {
        let is_old = |placed: &&Placed<R>| self.has_old_key(placed);
        if view.levels[0].iter().any(|placed| is_old(&placed)) {
            // They overlap one another, so they go down together.
            let to = self.targets(view).base;
            let upper = view.levels[0].clone();
            let lower = view.between(to, &upper);
            return Some(Pick {
                level: 0,
                to,
                upper,
                lower,
                rekeys: true,
            });
        }
        let old = |level: usize| Some((level, view.levels[level].iter().find(is_old)?.clone()));
        let (level, placed) = (1..LEVELS_MAX).find_map(old)?;
        Some(Pick {
            level,
            to: level,
            upper: vec![placed],
            lower: Vec::new(),
            rekeys: true,
        })
    }

    async fn merge(
        &self,
        view: &View<R>,
        pick: &Pick<R>,
        next: &mut impl FnMut() -> SegmentId,
    ) -> Result<Prepared<R>, TreeError> {
        let snapshots = self.context.snapshots.borrow().clone();
        let rewrite = Rewrite {
            store: &self.context.store,
            facts: self.facts(pick.to),
            snapshots: &snapshots,
            view,
            complete: self.complete.get(),
            older_from: pick.to + 1,
            up_to: NEWEST,
            trimmed: self.trimmed.borrow().clone(),
            segment_bytes: self.context.config.segment_bytes,
            pace: Some(&self.context.pace),
        };
        let added = self.write_until_taken(&rewrite, || pick.sources(), next).await?;
        let bytes: u64 = added.iter().map(|reference| reference.bytes).sum();
        self.context.store.count(|stats| stats.compacted_bytes += bytes);
        let mut prepared = self.open_added(added).await?;
        prepared.removed = pick.upper.iter().chain(&pick.lower).map(Placed::id).collect();
        Ok(prepared)
    }

    /// The compaction's edit is durable: its segments take the place of those it removes.
    pub fn install_compaction(&self, prepared: Prepared<R>) {
        let store = &self.context.store;
        self.change_view(|view| {
            let stay: Vec<SegmentId> = prepared.placed.iter().map(Placed::id).collect();
            for id in &prepared.removed {
                let removed = view.remove(*id).expect("what is compacted stays until then");
                if !stay.contains(id) {
                    store.retire(removed.segment);
                }
            }
            prepared.placed.iter().for_each(|placed| view.add(placed.clone()));
        });
        drop(prepared);
        self.sweep_soon();
    }

    /// Gives up what was prepared, because its edit will never be made: its new files go.
    pub fn discard(&self, prepared: Prepared<R>) {
        for placed in prepared
            .placed
            .iter()
            .filter(|placed| !prepared.removed.contains(&placed.id()))
        {
            self.context.store.retire(Rc::clone(&placed.segment));
        }
        drop(prepared);
        self.sweep_soon();
    }

    pub(super) fn sweep_soon(&self) {
        let store = Rc::clone(&self.context.store);
        // Detached: what cannot be removed now is removed later.
        drop(self.context.store.task(async move { store.sweep().await }));
    }
}

impl Targets {
    /// Bytes of a level, each tombstone counted as an item.
    fn weight<R: Runtime>(&self, view: &View<R>, level: usize) -> u64 {
        let placed = view.levels[level].iter();
        placed.map(|placed| self.weight_of(&placed.reference)).sum()
    }

    fn weight_of(&self, reference: &SegmentReference) -> u64 {
        let tombstones = reference.tombstones.saturating_mul(self.entry_bytes);
        reference.bytes.saturating_add(tombstones)
    }
}

impl<R: Runtime> Pick<R> {
    /// Whether the segments can move down as they are.
    fn moves(&self) -> bool {
        if self.rekeys || self.upper.iter().any(|placed| is_dead(&placed.reference)) {
            return false;
        }
        let apart = |(at, one): (usize, &Placed<R>)| {
            let mut others = self.upper[at + 1..].iter().chain(&self.lower);
            others.all(|other| !one.reference.overlaps(&other.reference))
        };
        self.upper.iter().enumerate().all(apart)
    }

    fn moved(&self) -> Prepared<R> {
        let mut prepared = Prepared::nothing();
        for placed in &self.upper {
            let mut reference = SegmentReference::clone(&placed.reference);
            reference.level = u8::try_from(self.to).expect("few levels");
            prepared.removed.push(placed.id());
            prepared.added.push(reference.clone());
            prepared.placed.push(Placed {
                segment: Rc::clone(&placed.segment),
                reference: Rc::new(reference),
            });
        }
        prepared
    }

    fn sources(&self) -> Merge<R> {
        let range = KeyRange::all();
        let run = |segments: Vec<Placed<R>>| {
            let cursor = LevelCursor::new(
                segments.into_iter(),
                Direction::Forward,
                Access::Compaction,
                range.clone(),
            );
            Source::Level(Box::new(cursor))
        };
        let mut sources = Vec::new();
        if self.level == 0 {
            sources.extend(self.upper.iter().map(|placed| run(vec![placed.clone()])));
        } else {
            sources.push(run(self.upper.clone()));
        }
        sources.push(run(self.lower.clone()));
        Merge::new(sources, Direction::Forward)
    }
}
