//! What a snapshot shows, whatever is written, flushed and compacted behind it.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::engine::snapshot::SNAPSHOTS_MAX;
use cairn_engine::ids::{CommitTimestamp, PartitionId};
use cairn_engine::{Direction, EngineError, ErrorKind, Range, Snapshot};
use cairn_runtime::sim::SimRuntime;
use cairn_runtime::{Queue, Runtime};
use common::*;

type Items = Vec<(Vec<u8>, Vec<u8>)>;

async fn items(snapshot: &Snapshot<SimRuntime>, partition: PartitionId, direction: Direction) -> Items {
    let range = Range {
        lower: Bound::Unbounded,
        upper: Bound::Unbounded,
    };
    let mut scan = snapshot.scan(partition, range, direction);
    let mut items = Vec::new();
    while let Some((key, stored)) = scan.next().await.unwrap() {
        items.push((key, stored.to_vec()));
    }
    if direction == Direction::Backward {
        items.reverse();
    }
    items
}

/// Scans both ways and gets of every key agree with `expected`.
async fn shows(snapshot: &Snapshot<SimRuntime>, expected: &Items) {
    for direction in [Direction::Forward, Direction::Backward] {
        assert!(items(snapshot, P1, direction).await == *expected, "{direction:?}");
    }
    for number in 0..120 {
        let found = snapshot.get(P1, &key(number)).await.unwrap();
        let expected = expected.iter().find(|(found, _)| *found == key(number));
        assert!(found.map(|stored| stored.to_vec()) == expected.map(|(_, item)| item.clone()));
    }
}

#[test]
fn it_stays_as_it_was_while_everything_is_written_again() {
    let world = World::new(1, small());
    let running = world.open();
    world.with(&running, async |engine| {
        let mut held: Vec<(Snapshot<SimRuntime>, Items)> = Vec::new();
        for round in 0..14_u64 {
            for number in 0..100 {
                if (number + round) % 7 == 0 {
                    delete(&engine, P1, &key(number)).await.unwrap();
                } else {
                    put(&engine, P1, &key(number), &item(round * 1_000 + number, 700))
                        .await
                        .unwrap();
                }
            }
            let snapshot = engine.snapshot(None).await.unwrap();
            let now = scan_all(&engine, P1, Direction::Forward).await;
            held.push((snapshot, now));
            if round % 3 == 2 {
                held.remove(0).0.release();
            }
            for (snapshot, expected) in &held {
                shows(snapshot, expected).await;
            }
        }
        let stats = engine.stats();
        assert!(stats.flushes > 10 && stats.compactions > 2, "{stats:?}");
        assert_eq!(stats.snapshots_open, held.len() as u64);
        drop(held);
        assert_eq!(engine.stats().snapshots_open, 0);
    });
}

#[test]
fn what_is_in_flight_when_it_is_opened_is_in_it() {
    let world = World::new(2, small());
    let running = world.open();
    world.with(&running, async |engine| {
        put(&engine, P1, b"k", b"old").await.unwrap();
    });
    (0..2).for_each(|at| world.mirror(at).stall_for(Duration::from_secs(1)));
    let opened: Shared<Option<Snapshot<SimRuntime>>> = Rc::default();
    let (engine, slot) = (running.engine.clone(), Rc::clone(&opened));
    world.run(async move |runtime| {
        let writer = engine.clone();
        runtime.spawn(Queue::Foreground, async move {
            put(&writer, P1, b"k", b"new").await.unwrap();
        });
        runtime.yield_now().await;
        let opener = engine.clone();
        runtime.spawn(Queue::Foreground, async move {
            let snapshot = opener.snapshot(None).await.unwrap();
            *slot.borrow_mut() = Some(snapshot);
        });
        runtime.yield_now().await;
        runtime.spawn(Queue::Foreground, async move {
            put(&engine, P1, b"k", b"later").await.unwrap();
        });
    });
    world.sim.run_for(Duration::from_millis(200));
    assert!(opened.borrow().is_none(), "it waits for what is in flight");
    world.sim.run_for(Duration::from_secs(3));
    let snapshot = opened.borrow_mut().take().unwrap();
    world.with(&running, async move |engine| {
        assert_eq!(get(&engine, P1, b"k").await.as_deref(), Some(&b"later"[..]));
        assert_eq!(snapshot.get(P1, b"k").await.unwrap().unwrap().item(), b"new");
    });
}

#[test]
fn engines_opened_at_one_timestamp_show_nothing_newer() {
    let world = World::new(3, small());
    let running = world.open();
    world.with(&running, async |engine| {
        let newest = put(&engine, P1, b"k", b"old").await.unwrap().commit.unwrap();
        // Half a minute ahead of every clock.
        let at = CommitTimestamp::from_unix_ms(newest.unix_ms() + 30_000);
        let snapshot = engine.snapshot(Some(at)).await.unwrap();
        assert_eq!(snapshot.at(), at);
        engine.create_partition(descriptor(PartitionId(9))).await.unwrap();
        for partition in [P1, P2, PartitionId(9)] {
            let written = put(&engine, partition, b"k", b"new").await.unwrap();
            assert!(written.commit.unwrap() > at, "floors are raised");
        }
        assert_eq!(
            items(&snapshot, P1, Direction::Forward).await,
            [(b"k".to_vec(), b"old".to_vec())]
        );
        for partition in [P2, PartitionId(9)] {
            assert!(snapshot.get(partition, b"k").await.unwrap().is_none());
        }
        // The same moment again, for another reader, is past now.
        assert!(engine.snapshot(Some(at)).await.is_err());
    });
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let world = World::new(4, small());
    let running = world.open();
    world.with(&running, async |engine| {
        let first = put(&engine, P1, b"k", b"old").await.unwrap().commit.unwrap();
        put(&engine, P1, b"k", b"new").await.unwrap();
        let ahead = CommitTimestamp::from_unix_ms(first.unix_ms() + 120_000);
        for at in [CommitTimestamp(1), first, ahead] {
            let refused = engine.snapshot(Some(at)).await.err().unwrap();
            assert!(matches!(refused, EngineError::SnapshotRefused(_)), "{refused}");
            assert_eq!(refused.kind(), ErrorKind::Invalid);
        }
        let mut held = Vec::new();
        for _ in 0..SNAPSHOTS_MAX {
            held.push(engine.snapshot(None).await.unwrap());
        }
        let refused = engine.snapshot(None).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Retry, "{refused}");
        held.pop();
        held.push(engine.snapshot(None).await.unwrap());
        engine.drop_partition(P1).await.unwrap();
        assert!(matches!(
            held[0].get(P1, b"k").await,
            Err(EngineError::NoSuchPartition(P1))
        ));
        drop(held);
        engine.close().await.unwrap();
        assert!(engine.snapshot(None).await.is_err());
    });
}
