//! What takes memory: an empty partition at most 1 KB, a get that needs no drive nothing at all. Measured with an allocator
//! that counts, hence a file of its own.
#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cairn_engine::EngineConfig;
use cairn_engine::ids::PartitionId;
use cairn_engine::tree::StoreStats;
use common::*;

struct Counting;

thread_local! {
    /// Bytes that this thread has allocated and not freed: the simulator runs on its test's thread alone.
    static BYTES: Cell<isize> = const { Cell::new(0) };
    /// How often it has allocated.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get() + layout.size() as isize);
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory of a node that has been opened with `count` empty partitions.
fn opened_bytes(count: u64) -> isize {
    // A log in which nothing has to be released, as releasing takes memory of its own.
    let mut config = EngineConfig {
        log_file_bytes: 16 << 20,
        ..small()
    };
    config.log.first_file_bytes = 16 << 20;
    let world = World::new(1, config);
    let running = world.open();
    let engine = running.engine.clone();
    world.run(async move |_| {
        for id in 1..=count {
            engine
                .create_partition(descriptor(PartitionId(id)))
                .await
                .expect("there is room");
        }
    });
    // Only the engine opened anew counts: the simulated drives keep what was written.
    world.crash(running);
    let before = BYTES.get();
    let running = world.open();
    assert_eq!(running.engine.partitions().len() as u64, count);
    BYTES.get() - before
}

#[test]
fn an_empty_partition_costs_at_most_1_kb() {
    let each = (opened_bytes(2_000) - opened_bytes(500)) / 1_500;
    assert!((100..=1_024).contains(&each), "{each} bytes per empty partition");
}

/// Gets of what is in memory, some of it in segments, with so much of the cache for items.
fn cached_gets(item_cache_eighths: u64) -> StoreStats {
    const COUNT: u64 = 1_000;
    let config = EngineConfig {
        cache_bytes: 4 << 20,
        item_cache_eighths,
        ..small()
    };
    let world = World::new(2, config);
    let running = world.open();
    let stats = world.with(&running, async |engine| {
        for number in 0..COUNT {
            let stored = put(&engine, P1, &key(number), &item(number, 300)).await;
            stored.expect("there is room");
        }
        // Those of segments come into the cache.
        for number in 0..COUNT {
            assert!(get(&engine, P1, &key(number)).await.is_some());
        }
        let stats = engine.stats();
        assert!(stats.flushes > 0, "some of them are in segments");
        let keys: Vec<Vec<u8>> = (0..COUNT).map(key).collect();
        let before = CALLS.get();
        let found = keys.iter().filter(|key| {
            let answer = engine.get_cached(P1, key);
            matches!(answer, Some(Ok(Some(stored))) if !stored.item().is_empty())
        });
        let found = found.count() as u64;
        let calls = CALLS.get() - before;
        assert_eq!(found, COUNT, "all of them are in memory");
        assert_eq!(calls, 0, "allocations of {found} gets");
        let (before, after) = (stats.segments, engine.stats().segments);
        StoreStats {
            segments_searched: after.segments_searched - before.segments_searched,
            item_hits: after.item_hits - before.item_hits,
            ..after
        }
    });
    world.close(running);
    stats
}

#[test]
fn a_get_that_needs_no_drive_allocates_nothing() {
    let blocks_only = cached_gets(0);
    assert!(blocks_only.segments_searched > 0 && blocks_only.item_hits == 0);
    assert_eq!(blocks_only.item_cache_bytes, 0);
    let both = cached_gets(4);
    assert!(
        both.segments_searched > 0,
        "some are found in the blocks of others"
    );
    assert!(both.item_hits > 0, "and some by themselves");
}
