//! Several keys changed in one step: together or not at all, counted apart, through flushes, crashes and restarts.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::rc::Rc;
use std::time::Duration;

use cairn_engine::ids::{IndexId, PartitionId, TableId};
use cairn_engine::{
    Change, Counter, Decision, Derived, Direction, EngineError, IndexUsage, PartitionDescriptor, Updated,
};
use cairn_runtime::{Queue, Runtime};
use common::*;

const P3: PartitionId = PartitionId(3);
/// What a record begins with that goes on with the item of its step.
const RECORD: &[u8] = b"record of ";

/// A partition of the hashes from 1 << 56 to before 2 << 56.
fn hashed() -> PartitionDescriptor {
    PartitionDescriptor {
        id: P3,
        table: TableId(1),
        index: IndexId(0),
        lower: vec![1, 1, 0, 0, 0, 0, 0, 0, 0],
        upper: Some(vec![1, 2, 0, 0, 0, 0, 0, 0, 0]),
    }
}

/// A key of the hash `1, second, 0, ..` in a space.
fn in_space(space: u8, second: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = vec![space, 1, second, 0, 0, 0, 0, 0, 0];
    key.extend_from_slice(rest);
    key
}

fn derived(key: Vec<u8>, counter: Counter, put: Option<&[u8]>, old: Option<u32>) -> Derived {
    Derived {
        key,
        stamped: false,
        counter,
        put: put.map(|item| (Rc::from(item), u32::try_from(item.len()).unwrap())),
        with_item: false,
        old_item_bytes: old,
    }
}

fn put_change(item: &[u8]) -> Change {
    Change::Put {
        item: item.to_vec(),
        item_bytes: u32::try_from(item.len()).unwrap(),
    }
}

/// Stores `item` under a key, and with it its copies: an entry of index 7, which replaces the one of the old item, and a record
/// under the commit timestamp.
async fn put_with_copies(engine: &SimEngine, number: u8, item: &[u8]) -> Result<Updated<()>, EngineError> {
    let key = in_space(1, number, b"item");
    engine
        .update_with(P3, &key, Counter::Items, |old| {
            let index = Counter::Index(IndexId(7));
            let mut further = Vec::new();
            if let Some(old) = old.filter(|old| old.item != item) {
                let entry = in_space(2, number, old.item);
                further.push(derived(entry, index, None, Some(old.item_bytes)));
            }
            let old_bytes = old.filter(|old| old.item == item).map(|old| old.item_bytes);
            further.push(derived(in_space(2, number, item), index, Some(item), old_bytes));
            further.push(Derived {
                stamped: true,
                ..derived(in_space(3, 0, b""), Counter::Nothing, Some(item), None)
            });
            further.push(Derived {
                stamped: true,
                with_item: true,
                ..derived(in_space(7, 0, b""), Counter::Nothing, Some(RECORD), None)
            });
            Decision {
                change: put_change(item),
                derived: further,
                outcome: (),
            }
        })
        .await
}

/// What there is must be whole: to each item its entry, and as many records as there were steps.
async fn check_whole(engine: &SimEngine) -> usize {
    let mut items = Vec::new();
    let mut entries = Vec::new();
    let mut records = Vec::new();
    let mut going_on = Vec::new();
    let mut bytes = 0;
    for (key, item) in scan_all(engine, P3, Direction::Forward).await {
        match key[0] {
            1 => {
                bytes += item.len() as u64;
                items.push((key[2], item));
            }
            2 => {
                assert_eq!(key[9..], item);
                entries.push((key[2], item));
            }
            3 => records.push((key[9..].to_vec(), item)),
            _ => going_on.push((key[9..].to_vec(), item)),
        }
    }
    // The other records of the same steps go on with the same items.
    let whole = records
        .iter()
        .map(|(commit, item)| (commit.clone(), [RECORD, item.as_slice()].concat()));
    assert_eq!(going_on, whole.collect::<Vec<_>>());
    assert_eq!(items, entries);
    let info = engine.partition(P3).unwrap();
    let count = items.len() as u64;
    assert_eq!((info.item_count, info.item_bytes), (count, bytes));
    let usage = IndexUsage {
        index: IndexId(7),
        item_count: count,
        item_bytes: bytes,
    };
    assert!(count == 0 || info.indexes == [usage], "{:?}", info.indexes);
    records.len()
}

#[test]
fn what_belongs_together_is_there_together_after_any_crash() {
    for seed in 0..40 {
        let world = World::new(seed, small());
        let mut acknowledged = 0;
        for round in 0..4_u8 {
            let running = world.open();
            let before: Shared<usize> = Rc::default();
            let (engine, count) = (running.engine.clone(), Rc::clone(&before));
            world.run(async move |_| {
                engine.create_partition(hashed()).await.unwrap();
                *count.borrow_mut() = check_whole(&engine).await;
            });
            assert!(*before.borrow() >= acknowledged, "seed {seed} round {round}");
            let done: Shared<usize> = Rc::default();
            let (engine, count) = (running.engine.clone(), Rc::clone(&done));
            world.run(async move |runtime| {
                for writer in 0..8_u8 {
                    let (engine, count) = (engine.clone(), Rc::clone(&count));
                    runtime.spawn(Queue::Foreground, async move {
                        for step in 0..30_u8 {
                            let item = item(u64::from(round) << 16 | u64::from(step / 2), 300);
                            put_with_copies(&engine, writer, &item).await.unwrap();
                            *count.borrow_mut() += 1;
                        }
                    });
                }
            });
            let mut random = world.sim.random();
            world.sim.run_for(Duration::from_micros(random.below(40_000)));
            acknowledged = *before.borrow() + *done.borrow();
            if round % 2 == 0 {
                world.crash(running);
            } else {
                drop(running);
                world.sim.kill(NODE);
                world.sim.restart(NODE);
            }
        }
        let running = world.open();
        let engine = running.engine.clone();
        let records = world.run(async move |_| check_whole(&engine).await);
        assert!(records >= acknowledged, "seed {seed}");
    }
}

#[test]
fn counters_of_indexes_survive_flush_and_restart() {
    let world = World::new(1, small());
    let running = world.open();
    let engine = running.engine.clone();
    world.run(async move |_| {
        engine.create_partition(hashed()).await.unwrap();
        for number in 0..200_u16 {
            let item = item(u64::from(number), 800);
            put_with_copies(&engine, u8::try_from(number % 50).unwrap(), &item)
                .await
                .unwrap();
        }
        assert!(engine.stats().flushes > 0);
        assert_eq!(check_whole(&engine).await, 200);
    });
    world.close(running);
    let running = world.open();
    let engine = running.engine.clone();
    world.run(async move |_| assert_eq!(check_whole(&engine).await, 200));
}

#[test]
fn derived_changes_alone_keep_the_item_and_change_nothing_else() {
    let world = World::new(2, small());
    let running = world.open();
    let engine = running.engine.clone();
    world.run(async move |_| {
        engine.create_partition(hashed()).await.unwrap();
        put_with_copies(&engine, 5, b"item").await.unwrap();
        let before = engine.partition(P3).unwrap();
        let key = in_space(1, 5, b"item");
        let commit = engine.get(P3, &key).await.unwrap().unwrap().commit();
        let kept = engine.update_with(P3, &key, Counter::Items, |old| Decision {
            change: Change::Keep,
            derived: vec![derived(in_space(3, 9, b"x"), Counter::Nothing, Some(b"y"), None)],
            outcome: old.map(|old| old.item.to_vec()),
        });
        let kept = kept.await.unwrap();
        assert_eq!(kept.outcome.as_deref(), Some(&b"item"[..]));
        assert!(kept.commit > Some(commit));
        assert_eq!(engine.get(P3, &key).await.unwrap().unwrap().commit(), commit);
        assert_eq!(
            get(&engine, P3, &in_space(3, 9, b"x")).await.as_deref(),
            Some(&b"y"[..])
        );
        let after = engine.partition(P3).unwrap();
        assert_eq!(
            (after.item_count, &after.indexes),
            (before.item_count, &before.indexes)
        );
        // A key that no counter has heard of.
        let cursor = in_space(6, 5, b"");
        let own = engine.update_with(P3, &cursor, Counter::Nothing, |_| Decision {
            change: put_change(b"cursor"),
            derived: Vec::new(),
            outcome: (),
        });
        own.await.unwrap();
        assert_eq!(engine.partition(P3).unwrap().item_count, before.item_count);
    });
}

#[test]
fn a_partition_owns_its_hashes_in_every_space_and_no_others() {
    let world = World::new(3, small());
    let running = world.open();
    let engine = running.engine.clone();
    world.run(async move |_| {
        engine.create_partition(hashed()).await.unwrap();
        for (key, owned) in [
            (in_space(2, 0, b"x"), true),
            (in_space(3, 255, b"x"), true),
            (vec![2, 0, 255, 255, 255, 255, 255, 255, 255, 9], false),
            (vec![2, 2, 0, 0, 0, 0, 0, 0, 0], false),
            (vec![1, 2, 0, 0, 0, 0, 0, 0, 0], false),
            (vec![2, 1], false),
        ] {
            let further = derived(key.clone(), Counter::Nothing, Some(b"y"), None);
            let own = in_space(1, 0, b"item");
            let update = engine.update_with(P3, &own, Counter::Items, |_| Decision {
                change: put_change(b"item"),
                derived: vec![further],
                outcome: (),
            });
            match update.await {
                Ok(_) => assert!(owned, "{key:?}"),
                Err(error) => {
                    let named = matches!(error, EngineError::KeyOutOfRange(P3));
                    assert!(!owned && named, "{key:?} {error}");
                }
            }
        }
    });
}

#[test]
fn a_step_that_no_record_holds_is_refused_whole() {
    let world = World::new(4, small());
    let running = world.open();
    let engine = running.engine.clone();
    world.run(async move |_| {
        engine.create_partition(hashed()).await.unwrap();
        let item = item(1, 10 << 10);
        let further = (0..6).map(|number| {
            let key = in_space(2, number, b"x");
            derived(key, Counter::Index(IndexId(1)), Some(&item), None)
        });
        let further = further.collect();
        let key = in_space(1, 0, b"item");
        let update = engine.update_with(P3, &key, Counter::Items, |_| Decision {
            change: put_change(&item),
            derived: further,
            outcome: (),
        });
        let refused = update.await;
        assert!(
            matches!(refused, Err(EngineError::TooLarge { .. })),
            "{refused:?}"
        );
        assert_eq!(scan_all(&engine, P3, Direction::Forward).await, []);
    });
}
