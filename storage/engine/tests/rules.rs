//! The rules of the design's section 9 that this room keeps, each by a test that fails without it. Where a rule
//! can be broken (`Canary`), the test also shows that it then would fail.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::canary::{Canary, put_in};
use cairn_engine::ids::CommitTimestamp;
use cairn_engine::{Change, EngineConfig, EngineError};
use cairn_runtime::sim::{Fault, Injection, Operation};
use cairn_runtime::{Queue, Runtime};
use common::*;

/// Both mirrors stall; a put is in flight, and behind it an answer that depends on it; then the power goes. Was
/// the answer given although what it saw is gone?
fn answers_early(canary: Option<Canary>, change: fn(Option<&[u8]>) -> Change) -> bool {
    // Whether a write in flight survives is chance: some of these worlds lose it.
    let outcomes: Vec<(bool, bool)> = (0..48)
        .map(|seed| answered_and_lost(seed, canary, change))
        .collect();
    assert!(outcomes.iter().any(|(_, lost)| *lost));
    outcomes.iter().any(|(answered, lost)| *answered && *lost)
}

fn answered_and_lost(seed: u64, canary: Option<Canary>, change: fn(Option<&[u8]>) -> Change) -> (bool, bool) {
    let _bug = canary.map(put_in);
    let world = World::new(seed, small());
    let running = world.open();
    world.with(&running, async |engine| {
        put(&engine, P1, b"k", b"old").await.unwrap();
    });
    (0..2).for_each(|at| world.mirror(at).stall_for(Duration::from_secs(1)));
    let answered: Shared<Vec<Option<Vec<u8>>>> = Rc::default();
    let (engine, answers) = (running.engine.clone(), Rc::clone(&answered));
    world.run(async move |runtime| {
        let writer = engine.clone();
        runtime.spawn(Queue::Foreground, async move {
            // Not answered before the crash.
            let _ = put(&writer, P1, b"k", b"new").await;
        });
        runtime.yield_now().await;
        runtime.spawn(Queue::Foreground, async move {
            let seen = engine.update(P1, b"k", |old| {
                let old = old.map(|old| old.item.to_vec());
                (change(old.as_deref()), old)
            });
            let seen = seen.await.unwrap().outcome;
            answers.borrow_mut().push(seen);
        });
    });
    world.sim.run_for(Duration::from_millis(200));
    let early = answered.borrow().clone();
    world.crash(running);
    let running = world.open();
    let stored = world.with(&running, async |engine| get(&engine, P1, b"k").await);
    (!early.is_empty(), stored.as_deref() == Some(&b"old"[..]))
}

#[test]
fn a_failed_condition_waits_for_what_it_saw() {
    let keep = |_: Option<&[u8]>| Change::Keep;
    assert!(!answers_early(None, keep));
    assert!(
        answers_early(Some(Canary::AnswerUnchangedAtOnce), keep),
        "the test would notice"
    );
}

#[test]
fn a_delete_of_nothing_waits_for_the_delete_it_saw() {
    let world = World::new(2, small());
    let running = world.open();
    world.with(&running, async |engine| {
        put(&engine, P1, b"k", b"old").await.unwrap();
    });
    (0..2).for_each(|at| world.mirror(at).stall_for(Duration::from_secs(1)));
    let done: Shared<u32> = Rc::default();
    let (engine, count) = (running.engine.clone(), Rc::clone(&done));
    world.run(async move |runtime| {
        for _ in 0..2 {
            let (engine, count) = (engine.clone(), Rc::clone(&count));
            runtime.spawn(Queue::Foreground, async move {
                delete(&engine, P1, b"k").await.unwrap();
                *count.borrow_mut() += 1;
            });
        }
    });
    world.sim.run_for(Duration::from_millis(200));
    assert_eq!(*done.borrow(), 0);
    world.sim.run_for(Duration::from_secs(10));
    assert_eq!(*done.borrow(), 2);
}

#[test]
fn an_old_image_waits_until_it_is_durable() {
    let overwrite = |_: Option<&[u8]>| Change::Put {
        item: b"newest".to_vec(),
        item_bytes: 6,
    };
    assert!(!answers_early(None, overwrite));
    assert!(
        answers_early(Some(Canary::AcknowledgeBeforeDurable), overwrite),
        "the test would notice"
    );
}

#[test]
fn reads_see_applied_state_only() {
    let world = World::new(3, small());
    let running = world.open();
    world.with(&running, async |engine| {
        put(&engine, P1, b"k", b"old").await.unwrap();
    });
    (0..2).for_each(|at| world.mirror(at).stall_for(Duration::from_millis(100)));
    let seen: Shared<Vec<Option<Vec<u8>>>> = Rc::default();
    let (engine, reads) = (running.engine.clone(), Rc::clone(&seen));
    world.run(async move |runtime| {
        let writer = engine.clone();
        runtime.spawn(Queue::Foreground, async move {
            put(&writer, P1, b"k", b"new").await.unwrap();
        });
        runtime.sleep(Duration::from_millis(50)).await;
        let read = get(&engine, P1, b"k").await;
        reads.borrow_mut().push(read);
        runtime.sleep(Duration::from_millis(500)).await;
        let read = get(&engine, P1, b"k").await;
        reads.borrow_mut().push(read);
    });
    assert_eq!(*seen.borrow(), [Some(b"old".to_vec()), Some(b"new".to_vec())]);
}

/// Writes, goes away, comes back with a clock an hour behind and writes again: the two timestamps.
fn timestamps_over_a_restart(canary: Option<Canary>, writes: u64) -> (CommitTimestamp, CommitTimestamp) {
    let world = World::new(4, small());
    let running = world.open();
    let before = world.with(&running, async move |engine| fill(&engine, P1, writes, 500).await);
    world.close(running);
    world.sim.jump_clock(NODE, -3_600_000);
    let _bug = canary.map(put_in);
    let running = world.open();
    let after = world.with(&running, async |engine| {
        assert!(put(&engine, P2, b"k", b"other").await.unwrap().commit.is_some());
        put(&engine, P1, b"k", b"new").await.unwrap().commit.unwrap()
    });
    (before, after)
}

#[test]
fn the_timestamp_floor_comes_from_the_log_and_never_from_the_clock() {
    // From the log's mutations, and from the manifest once those are flushed and recycled.
    for writes in [1, 2_000] {
        let (before, after) = timestamps_over_a_restart(None, writes);
        assert!(after > before, "{writes} writes: {after} after {before}");
        assert!(
            after.unix_ms() - before.unix_ms() < 1_000,
            "counted up from the floor"
        );
    }
    let (before, after) = timestamps_over_a_restart(Some(Canary::ForgetFloor), 1);
    assert!(after < before, "the test would notice");
}

#[test]
fn a_clock_far_ahead_is_not_followed_but_writes_go_on() {
    let world = World::new(5, small());
    let running = world.open();
    let commits = Rc::new(RefCell::new(Vec::new()));
    for jump in [0, 30_000, 400 * 24 * 3_600_000, -400 * 24 * 3_600_000] {
        world.sim.jump_clock(NODE, jump);
        let commits = Rc::clone(&commits);
        world.with(&running, async move |engine| {
            let put = put(&engine, P1, b"k", b"item").await.unwrap();
            commits.borrow_mut().push(put.commit.unwrap().unix_ms());
        });
    }
    let steps: Vec<u64> = commits
        .borrow()
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(
        (30_000..31_000).contains(&steps[0]),
        "a small step is followed: {steps:?}"
    );
    assert!(
        steps[1] < 1_000 && steps[2] < 1_000,
        "a year is not, in either direction: {steps:?}"
    );
    assert_eq!(running.engine.stats().clock_refused, 1);
    // An idle year is no step at all.
    world.sim.run_for(Duration::from_secs(3_600));
    world.with(&running, async move |engine| {
        let put = put(&engine, P1, b"k", b"item").await.unwrap();
        let idle = put.commit.unwrap().unix_ms() - commits.borrow()[3];
        assert!((3_590_000..3_620_000).contains(&idle), "{idle}");
    });
    assert_eq!(running.engine.stats().clock_refused, 1);
}

/// A write that still reads a drive for its decision when the engine is closed learns that it came too late.
#[test]
fn a_write_behind_a_close_is_refused() {
    let world = World::new(
        8,
        EngineConfig {
            cache_bytes: 0,
            ..small()
        },
    );
    let running = world.open();
    world.with(&running, async |engine| {
        fill(&engine, P1, 200, 900).await;
    });
    // A flush that takes a while holds up the close.
    for mirror in [world.mirror(0), world.mirror(1)] {
        mirror.inject(Injection {
            operation: Operation::SyncFile,
            file: None,
            skip: 0,
            count: 10,
            fault: Fault::Slow(Duration::from_secs(1)),
        });
    }
    world.with(&running, async |engine| {
        let mut number = 1_000;
        while engine.stats().memtable_bytes <= engine.stats().memtable_bytes_max / 2 {
            put(&engine, P1, &key(number), &item(number, 900)).await.unwrap();
            number += 1;
        }
    });
    let answer: Shared<Option<Result<(), EngineError>>> = Rc::default();
    let (engine, into) = (running.engine.clone(), Rc::clone(&answer));
    world.run(async move |runtime| {
        let writer = engine.clone();
        runtime.spawn(Queue::Foreground, async move {
            let put = put(&writer, P1, &key(10), b"late").await;
            *into.borrow_mut() = Some(put.map(drop));
        });
        runtime.yield_now().await;
        engine.close().await.unwrap();
    });
    world.sim.run_for(Duration::from_secs(5));
    let answer = answer.borrow_mut().take();
    assert!(matches!(answer, Some(Err(EngineError::Stopped(_)))), "{answer:?}");
}

#[test]
fn a_hot_key_is_not_limited_to_one_update_per_commit() {
    let world = World::new(6, small());
    let running = world.open();
    let batches = running.engine.stats().log.batches;
    let engine = running.engine.clone();
    world.with(&running, async |_| ());
    world.run(async move |runtime| {
        let done = cairn_runtime::sync::WaitGroup::new();
        for _ in 0..500 {
            let (engine, token) = (engine.clone(), done.enter());
            runtime.spawn(Queue::Foreground, async move {
                let add = |old: Option<cairn_engine::StoredRef<'_>>| {
                    let old = old.map_or(0, |old| u64::from_le_bytes(old.item.try_into().unwrap()));
                    (
                        Change::Put {
                            item: (old + 1).to_le_bytes().to_vec(),
                            item_bytes: 8,
                        },
                        old,
                    )
                };
                engine.update(P1, b"hot", add).await.unwrap();
                drop(token);
            });
        }
        done.wait().await;
        let sum = get(&engine, P1, b"hot").await.unwrap();
        assert_eq!(u64::from_le_bytes(sum.try_into().unwrap()), 500);
    });
    let stats = running.engine.stats();
    assert_eq!(stats.mutations, 500);
    assert!(
        stats.log.batches - batches < 50,
        "{} batches",
        stats.log.batches - batches
    );
}

#[test]
fn keys_outside_of_a_partition_are_refused() {
    let world = World::new(7, small());
    let running = world.open();
    let engine = running.engine.clone();
    world.run(async move |_| {
        let range = cairn_engine::PartitionDescriptor {
            lower: b"b".to_vec(),
            upper: Some(b"d".to_vec()),
            ..descriptor(P1)
        };
        engine.create_partition(range.clone()).await.unwrap();
        engine.create_partition(range).await.unwrap();
        let other = engine.create_partition(descriptor(P1)).await;
        assert!(
            matches!(other, Err(EngineError::PartitionConflict(P1))),
            "{other:?}"
        );
        for (key, inside) in [
            ("a", false),
            ("b", true),
            ("czz", true),
            ("d", false),
            ("", false),
        ] {
            let put = put(&engine, P1, key.as_bytes(), b"item").await;
            assert_eq!(put.is_ok(), inside, "{key}: {put:?}");
        }
        let none = put(&engine, P2, b"c", b"item").await;
        assert!(matches!(none, Err(EngineError::NoSuchPartition(P2))), "{none:?}");
    });
}
