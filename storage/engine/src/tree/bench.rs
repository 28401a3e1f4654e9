//! Doors for `benches/tree.rs` to what the tree keeps to itself: blocks, filters, codecs, the cache. Nothing else comes in here.

use std::rc::Rc;

use super::block::{At, BlockBuilder, BlockKind, BlockView, close, pack, verify};
use super::cache::{BlockCache, CacheKey};
use super::codec::{Codec, Codecs};
use super::filter::{Filter, FilterBuilder, GroupHash, KeyHash};
use crate::ids::SegmentId;

/// Seed of the blocks' checksums.
const SEED: u64 = 7;

/// The codecs' contexts.
#[derive(Debug, Default)]
pub struct Packer(Codecs);

/// A block of data, laid out as in memory.
#[derive(Debug)]
pub struct Block(Rc<[u8]>);

impl Block {
    /// A block of entries in order.
    pub fn of<'a>(entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Block {
        let mut builder = BlockBuilder::default();
        for (key, payload) in entries {
            builder.push(key, |into| into.extend_from_slice(payload));
        }
        let mut bytes = Vec::new();
        builder.finish(BlockKind::Data, &mut bytes);
        Block(bytes.into())
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Place of the first entry whose key is not below `key`.
    #[must_use]
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        BlockView::new(&self.0).lower_bound(key)
    }

    /// The bytes that are stored, and their checksum: packed if the codec packs, not sealed.
    #[must_use]
    pub fn stored(&self, codec: Codec, packer: &Packer) -> (Vec<u8>, u64) {
        let mut bytes = Vec::new();
        match codec {
            Codec::None => bytes.extend_from_slice(&self.0),
            _ => pack(&self.0, codec, &packer.0, &mut bytes),
        }
        let sum = close(&mut bytes, At::plain(SEED));
        (bytes, sum)
    }

    /// A block that was stored: verified, unpacked and validated.
    ///
    /// # Errors
    /// Names what does not hold.
    pub fn read(stored: &[u8], sum: u64, packer: &Packer) -> Result<Block, &'static str> {
        verify(stored, At::plain(SEED), sum, BlockKind::Data, &packer.0).map(Block)
    }
}

/// A segment's filter.
#[derive(Debug)]
pub struct KeyFilter(Filter);

impl KeyFilter {
    /// The filter's bytes for keys in order.
    pub fn build<'a>(keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut builder = FilterBuilder::default();
        keys.into_iter().for_each(|key| builder.push(key));
        let mut build = builder.build();
        while build.step() {}
        build.finish()
    }

    /// Takes over a filter's bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn parse(bytes: &[u8]) -> Result<KeyFilter, &'static str> {
        Filter::parse(bytes).map(KeyFilter)
    }

    /// Whether the key may be there, from its bytes on.
    #[must_use]
    pub fn may_contain(&self, key: &[u8]) -> bool {
        self.0.may_contain(key, KeyHash::of(key))
    }

    /// Whether a key of the same partition key may be there.
    #[must_use]
    pub fn may_contain_group(&self, key: &[u8]) -> bool {
        self.0.may_contain_group(GroupHash::of(key))
    }
}

fn cache_key((segment, unit): (u64, u32)) -> CacheKey {
    CacheKey {
        segment: SegmentId(segment),
        unit,
    }
}

/// The block of a place, if the cache has it.
#[must_use]
pub fn cached(cache: &BlockCache, place: (u64, u32)) -> Option<Rc<[u8]>> {
    cache.get(cache_key(place))
}

/// Gives the cache a block.
pub fn keep(cache: &BlockCache, place: (u64, u32), block: &Rc<[u8]>) {
    cache.insert(cache_key(place), Rc::clone(block));
}
