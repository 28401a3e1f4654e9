//! What a read and a write do in memory: memtable, search in a block, filter, cache, codecs.
//!
//! `cargo bench -p cairn-engine`; `cargo test -p cairn-engine --bench tree` runs each once.

use std::hint::black_box;
use std::rc::Rc;

use cairn_engine::ids::{CommitTimestamp, LogSequence};
use cairn_engine::tree::bench::{Block, KeyFilter, Packer, cached, keep};
use cairn_engine::tree::{BlockCache, Codec, Memtable, Version};
use cairn_runtime::sim::Random;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Keys of a memtable and of a filter.
const KEYS: u64 = 100_000;
/// Bytes of an item: a small one, of which a block has some thirty.
const ITEM_BYTES: usize = 200;

/// Like the engine's keys: space byte, hash, partition key and its terminator. Every second one is there.
fn key(number: u64) -> Vec<u8> {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [
        &[0],
        &hash.to_be_bytes()[..],
        format!("user-{number:08}").as_bytes(),
        &[0, 0],
    ]
    .concat()
}

fn keys(parity: u64) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..KEYS).map(|number| key(2 * number + parity)).collect();
    keys.sort_unstable();
    keys
}

/// In an order that no cache of the processor follows.
fn shuffled(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    let mut random = Random::new(1);
    let mut order: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random.index(at + 1));
    }
    order
}

/// Half text, half random: what lz4 makes two thirds of.
fn item(number: u64) -> Vec<u8> {
    let mut item = b"the quick brown fox jumps over the lazy dog ".repeat(ITEM_BYTES / 44 + 1);
    item.truncate(ITEM_BYTES);
    Random::new(number).fill(&mut item[ITEM_BYTES / 2..]);
    item
}

fn fill<'a>(keys: impl IntoIterator<Item = &'a [u8]>, item: &Rc<[u8]>) -> Memtable {
    let memtable = Memtable::new();
    for (number, key) in (1..).zip(keys) {
        let version = Version::put(CommitTimestamp(number), ITEM_BYTES as u32, Rc::clone(item));
        memtable.insert(key, version, LogSequence(number), &[]);
    }
    memtable
}

fn memtable(criterion: &mut Criterion) {
    let (there, missing) = (keys(0), keys(1));
    let item: Rc<[u8]> = item(1).into();
    let (order, others) = (shuffled(&there), shuffled(&missing));
    let mut group = criterion.benchmark_group("memtable");
    group.throughput(Throughput::Elements(1_000));
    group.sample_size(20);
    group.bench_function("insert 1,000", |bencher| {
        bencher.iter_batched(
            || (),
            |()| fill(order[..1_000].iter().copied(), &item),
            BatchSize::LargeInput,
        );
    });
    let memtable = fill(order.iter().copied(), &item);
    group.throughput(Throughput::Elements(1));
    for (name, keys, found) in [("get", &order, true), ("get what is missing", &others, false)] {
        let mut turn = keys.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let version = memtable.get(turn.next().expect("they cycle"));
                assert_eq!(version.is_some(), found);
            });
        });
    }
    let mut number = KEYS;
    let mut turn = order.iter().cycle();
    group.bench_function("overwrite", |bencher| {
        bencher.iter(|| {
            number += 1;
            let version = Version::put(CommitTimestamp(number), ITEM_BYTES as u32, Rc::clone(&item));
            memtable.insert(
                turn.next().expect("they cycle"),
                version,
                LogSequence(number),
                &[],
            );
        });
    });
    group.finish();
}

fn blocks(criterion: &mut Criterion) {
    let keys = keys(0);
    let items: Vec<Vec<u8>> = (0..40).map(item).collect();
    let entries = keys
        .iter()
        .map(Vec::as_slice)
        .zip(items.iter().map(Vec::as_slice));
    let block = Block::of(entries);
    let packer = Packer::default();
    let mut group = criterion.benchmark_group("block");
    let mut turn = (0..items.len()).cycle();
    group.bench_function("search among 40", |bencher| {
        bencher.iter(|| {
            let wanted = turn.next().expect("it cycles");
            assert_eq!(block.lower_bound(black_box(&keys[wanted])), wanted);
        });
    });
    group.throughput(Throughput::Bytes(block.bytes() as u64));
    for (name, codec) in [("none", Codec::None), ("lz4", Codec::Lz4), ("zstd", Codec::Zstd)] {
        group.bench_function(format!("store, {name}"), |bencher| {
            bencher.iter(|| black_box(&block).stored(codec, &packer));
        });
        let (stored, sum) = block.stored(codec, &packer);
        eprintln!("{name}: {} of {} bytes", stored.len(), block.bytes());
        group.bench_function(format!("read, {name}"), |bencher| {
            bencher.iter(|| Block::read(black_box(&stored), sum, &packer).expect("it was stored so"));
        });
    }
    group.finish();
}

fn filters(criterion: &mut Criterion) {
    let (there, missing) = (keys(0), keys(1));
    let bytes = KeyFilter::build(there.iter().map(Vec::as_slice));
    eprintln!(
        "filter: {:.2} bits for each key",
        bytes.len() as f64 * 8.0 / KEYS as f64
    );
    let filter = KeyFilter::parse(&bytes).expect("it was built so");
    let passed = missing.iter().filter(|key| filter.may_contain(key)).count();
    assert!(passed < missing.len() / 100, "{passed} of {} pass", missing.len());
    let (order, others) = (shuffled(&there), shuffled(&missing));
    let mut group = criterion.benchmark_group("filter");
    let mut turn = order.iter().cycle();
    group.bench_function("a key that is there", |bencher| {
        bencher.iter(|| assert!(filter.may_contain(turn.next().expect("they cycle"))));
    });
    let mut turn = others.iter().cycle();
    group.bench_function("a key that is missing", |bencher| {
        bencher.iter(|| filter.may_contain(turn.next().expect("they cycle")));
    });
    let mut turn = others.iter().cycle();
    group.bench_function("a partition key that is missing", |bencher| {
        bencher.iter(|| filter.may_contain_group(turn.next().expect("they cycle")));
    });
    group.sample_size(10);
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("build", |bencher| {
        bencher.iter(|| KeyFilter::build(there.iter().map(Vec::as_slice)));
    });
    group.finish();
}

fn cache(criterion: &mut Criterion) {
    const BLOCKS: u32 = 8_192;
    let block: Rc<[u8]> = vec![1; 8_000].into();
    let cache = BlockCache::new(u64::from(BLOCKS) * 8_192 * 2);
    let place = |number: u32| (u64::from(number % 16), number / 16);
    for number in 0..BLOCKS {
        keep(&cache, place(number), &block);
    }
    let mut random = Random::new(2);
    let mut group = criterion.benchmark_group("cache");
    group.bench_function("hit", |bencher| {
        bencher.iter(|| {
            cached(&cache, place(random.below(u64::from(BLOCKS)) as u32)).expect("it has room for all")
        });
    });
    let mut number = BLOCKS;
    group.bench_function("miss, insert and evict", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(1).max(BLOCKS);
            assert!(cached(&cache, place(number)).is_none());
            keep(&cache, place(number), &block);
        });
    });
    group.finish();
}

criterion_group!(benches, memtable, blocks, filters, cache);
criterion_main!(benches);
