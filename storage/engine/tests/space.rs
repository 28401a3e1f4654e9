//! A drive that fills up: puts are refused by its name before it is full, and what frees space always runs.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::time::Duration;

use cairn_engine::{Change, Decision, Direction, EngineConfig, EngineError, ErrorKind, StoredRef};
use cairn_runtime::Runtime;
use cairn_runtime::sim::SimRuntime;
use common::*;

const CAPACITY: u64 = 6 << 20;

/// Puts items of 900 bytes under new keys until one is refused; how many were stored.
async fn fill_up(engine: &SimEngine, first: u64) -> (u64, EngineError) {
    for number in first.. {
        match put(engine, P1, &key(number), &item(number, 900)).await {
            Ok(_) | Err(EngineError::Throttled) => {}
            Err(error) => return (number, error),
        }
    }
    unreachable!("the drive is not endless")
}

/// Deletes and demands that none is refused for want of space.
async fn delete_all(engine: &SimEngine, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        loop {
            match delete(engine, P1, &key(number)).await {
                Ok(_) => break,
                Err(EngineError::Throttled) => {}
                Err(error) => panic!("delete {number}: {error}"),
            }
        }
    }
}

/// Waits until an item can be stored again.
async fn wait_for_room(runtime: &SimRuntime, engine: &SimEngine) {
    for _ in 0..600 {
        match put(engine, P2, b"again", b"item").await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Retry, "{error}"),
        }
        runtime.sleep(Duration::from_millis(100)).await;
    }
    panic!("no room after a minute: {:?}", engine.stats());
}

fn limited(seed: u64, config: EngineConfig) -> World {
    let world = World::new(seed, config);
    (0..2).for_each(|at| world.mirror(at).set_capacity(CAPACITY));
    world
}

#[test]
fn a_full_drive_takes_the_deletes_that_empty_it() {
    for seed in 0..2 {
        let world = limited(seed, small());
        let running = world.open();
        let runtime = running.runtime.clone();
        let (one, other) = (world.mirror(0), world.mirror(1));
        world.with(&running, async move |engine| {
            let mut first = 0;
            for round in 0..3 {
                let (end, error) = fill_up(&engine, first).await;
                assert!(
                    end - first > 1_500,
                    "round {round}: {} items were room for",
                    end - first
                );
                assert_eq!(error.kind(), ErrorKind::Retry);
                let words = error.to_string();
                assert!(words.contains("/mirror-"), "{words}");
                // Reads go on, and what the node must remember of itself is written.
                assert_eq!(
                    scan_all(&engine, P1, Direction::Forward).await.len() as u64,
                    end - first
                );
                // Deleted from behind, so that no segment is emptied as a whole too soon.
                delete_all(&engine, (first..end).rev()).await;
                wait_for_room(&runtime, &engine).await;
                assert_eq!(scan_all(&engine, P1, Direction::Forward).await, []);
                first = end;
            }
            for mirror in [&one, &other] {
                assert!(
                    mirror.used_bytes() < CAPACITY / 8 * 7,
                    "{} used",
                    mirror.used_bytes()
                );
            }
            assert_eq!(engine.stats().partitions_fenced, 0);
        });
        world.close(running);
    }
}

/// What others put on the drive counts too, and when it goes writes go on without anybody's help.
#[test]
fn room_that_others_take_and_give_back() {
    let world = limited(3, small());
    let running = world.open();
    let (runtime, mirror) = (running.runtime.clone(), world.mirror(1));
    world.with(&running, async move |engine| {
        fill(&engine, P1, 200, 900).await;
        mirror.set_capacity(mirror.used_bytes() + 1_000);
        runtime.sleep(Duration::from_millis(200)).await;
        // The look that finds out is the one after a commit.
        let refused = async {
            for number in 0..10 {
                if let Err(error) = put(&engine, P1, &key(number), b"x").await {
                    return Some(error);
                }
            }
            None
        };
        let error = refused.await.expect("one of them is refused");
        assert!(error.to_string().contains("/mirror-1"), "{error}");
        assert!(delete(&engine, P1, &key(1)).await.is_ok());
        mirror.set_capacity(CAPACITY);
        wait_for_room(&runtime, &engine).await;
    });
    world.close(running);
}

/// Who accepts something for later asks whether there is room; then it is put however little there is.
#[test]
fn what_was_accepted_before_is_put() {
    let world = World::new(4, small());
    let running = world.open();
    let (runtime, mirror) = (running.runtime.clone(), world.mirror(0));
    world.with(&running, async move |engine| {
        fill(&engine, P1, 200, 900).await;
        engine.check_room(P1).unwrap();
        mirror.set_capacity(mirror.used_bytes() + 1_000);
        runtime.sleep(Duration::from_millis(200)).await;
        // The look that finds out is the one after a commit.
        let mut checked = Ok(());
        for number in 0..10 {
            delete(&engine, P1, &key(number)).await.unwrap();
            checked = checked.and(engine.check_room(P1));
        }
        assert_eq!(checked.unwrap_err().kind(), ErrorKind::Retry);
        assert!(put(&engine, P1, &key(0), b"new").await.is_err());
        let decide = |_: Option<StoredRef<'_>>| Decision {
            change: Change::Put {
                item: b"accepted".to_vec(),
                item_bytes: 8,
            },
            derived: Vec::new(),
            outcome: (),
        };
        engine.update_accepted(P1, &key(0), decide).await.unwrap();
        assert_eq!(&*engine.get(P1, &key(0)).await.unwrap().unwrap(), b"accepted");
    });
    world.close(running);
}
