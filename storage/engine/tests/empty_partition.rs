//! An empty partition costs at most 1 KB of memory. Measured with an allocator that counts, hence a file of its own.
#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use cairn_engine::EngineConfig;
use cairn_engine::ids::PartitionId;
use common::*;

struct Counting;

static ALLOCATED: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as isize, Ordering::Relaxed);
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
    let before = ALLOCATED.load(Ordering::Relaxed);
    let running = world.open();
    assert_eq!(running.engine.partitions().len() as u64, count);
    ALLOCATED.load(Ordering::Relaxed) - before
}

#[test]
fn an_empty_partition_costs_at_most_1_kb() {
    let each = (opened_bytes(2_000) - opened_bytes(500)) / 1_500;
    assert!((100..=1_024).contains(&each), "{each} bytes per empty partition");
}
