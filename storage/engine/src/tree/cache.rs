//! The block cache of a shard: verified blocks and index leaves within a budget of bytes. Single items that are asked for are in
//! another, [`super::items`]: a block of which one item is hot leaves this one again, as it is not asked for a second time.
//!
//! `quick_cache` rather than a clock of our own: it resists scans (a block enters the hot part only when it is
//! asked for again), a hit costs 18 ns and allocates nothing, and its weights are ours. Its hasher is fixed,
//! so that the same run evicts the same blocks.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::ids::SegmentId;

/// Charged for each entry beside its bytes: the reference counts, the cache's own slot and the allocator's.
const ENTRY_BYTES: u64 = 96;

/// A block's place: the segment and the 4 KiB unit where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub(crate) segment: SegmentId,
    pub(crate) unit: u32,
}

#[derive(Debug, Clone, Copy)]
struct BlockWeight;

impl Weighter<CacheKey, Rc<[u8]>> for BlockWeight {
    fn weight(&self, _: &CacheKey, block: &Rc<[u8]>) -> u64 {
        block.len() as u64 + ENTRY_BYTES
    }
}

/// Multiplies and folds: keys are ids and counters, not an opponent's choice.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FixedState;

impl BuildHasher for FixedState {
    type Hasher = FixedHasher;

    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(0x2545_f491_4f6c_dd1d)
    }
}

type Blocks = Cache<CacheKey, Rc<[u8]>, BlockWeight, FixedState, DefaultLifecycle<CacheKey, Rc<[u8]>>>;

/// The block cache of a shard.
pub struct BlockCache {
    blocks: RefCell<Blocks>,
}

impl BlockCache {
    /// A cache of at most `budget_bytes`.
    #[must_use]
    pub fn new(budget_bytes: u64) -> BlockCache {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(budget_bytes / 4096).expect("fits memory").max(16))
            .weight_capacity(budget_bytes)
            .build()
            .expect("both capacities are set");
        let blocks = Cache::with_options(options, BlockWeight, FixedState, DefaultLifecycle::default());
        BlockCache {
            blocks: RefCell::new(blocks),
        }
    }

    pub(crate) fn get(&self, key: CacheKey) -> Option<Rc<[u8]>> {
        self.blocks.borrow().get(&key).cloned()
    }

    /// As [`BlockCache::get`], and not counted as being asked for.
    pub(crate) fn peek(&self, key: CacheKey) -> Option<Rc<[u8]>> {
        self.blocks.borrow().peek(&key).cloned()
    }

    pub(crate) fn insert(&self, key: CacheKey, block: Rc<[u8]>) {
        self.blocks.borrow_mut().insert(key, block);
    }

    /// Bytes charged at present.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.borrow().weight()
    }

    /// The budget.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.blocks.borrow().capacity()
    }

    /// Changes the budget, evicting what no longer fits.
    pub fn set_budget(&self, budget_bytes: u64) {
        self.blocks.borrow_mut().set_capacity(budget_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_holds_and_hits_are_shared() {
        let cache = BlockCache::new(1 << 20);
        for unit in 0..10_000 {
            let bytes = if unit % 100 == 0 { 400_000 } else { 4_000 };
            let key = CacheKey {
                segment: SegmentId(u64::from(unit % 7)),
                unit,
            };
            cache.insert(key, vec![0; bytes].into());
            assert!(cache.bytes() <= cache.budget_bytes());
        }
        let key = CacheKey {
            segment: SegmentId(99),
            unit: 1,
        };
        assert_eq!(cache.get(key), None);
        cache.insert(key, vec![7; 10].into());
        let (one, other) = (cache.get(key).unwrap(), cache.get(key).unwrap());
        assert!(Rc::ptr_eq(&one, &other));
        cache.set_budget(0);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn what_is_asked_for_again_outlives_a_scan() {
        let cache = BlockCache::new(1 << 20);
        let key = |segment: u64, unit: u32| CacheKey {
            segment: SegmentId(segment),
            unit,
        };
        let block: Rc<[u8]> = vec![0; 4_000].into();
        let read = |key: CacheKey| {
            let hit = cache.get(key).is_some();
            if !hit {
                cache.insert(key, Rc::clone(&block));
            }
        };
        // Half of the cache is asked for again and again.
        for _ in 0..4 {
            for unit in 0..128 {
                read(key(1, unit));
            }
        }
        // Then forty times the cache passes by, once.
        for unit in 0..10_000 {
            read(key(2, unit));
        }
        let kept = (0..128).filter(|unit| cache.get(key(1, *unit)).is_some()).count();
        assert!(kept > 115, "{kept} of 128 blocks are left");
        // And what is wanted now finds its way in.
        for _ in 0..6 {
            for unit in 0..128 {
                read(key(3, unit));
            }
        }
        let kept = (0..128).filter(|unit| cache.get(key(3, *unit)).is_some()).count();
        assert!(kept > 100, "{kept} of 128 new blocks are there");
    }
}
