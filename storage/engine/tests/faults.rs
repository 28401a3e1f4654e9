//! Directed faults: what a node does when a drive is full, gone, damaged, or has lost what was acknowledged.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::rc::Rc;
use std::time::Duration;

use cairn_engine::check::{CheckOptions, Report, check};
use cairn_engine::{Direction, EngineConfig, EngineError, ErrorKind, dump};
use cairn_runtime::sim::{DriveControl, Fault, Injection, Operation};
use cairn_runtime::{Queue, Runtime};
use common::*;

/// What `check` says, in a process of its own.
fn looked_at(world: &World) -> Report {
    let volume = world.volume_config();
    let report = world.run(async move |runtime| {
        let options = CheckOptions { items: false };
        check(runtime, &volume, options, &mut |_| {})
            .await
            .expect("there is a node")
    });
    world.sim.kill(NODE);
    world.sim.restart(NODE);
    report
}

fn files(drive: &DriveControl, prefix: &str) -> Vec<String> {
    let image = drive.image();
    image
        .names()
        .filter(|name| name.starts_with(prefix))
        .map(ToString::to_string)
        .collect()
}

/// Damages, on both mirrors, what the log holds of some bytes.
fn damage_both(world: &World, bytes: &[u8]) {
    for at in 0..2 {
        let mirror = world.mirror(at);
        let mut hit = false;
        for name in files(&mirror, "log-00000000-") {
            let content = mirror.image().read(&name).expect("listed just now");
            let found = content.windows(bytes.len()).position(|window| window == bytes);
            if let Some(place) = found {
                mirror.corrupt(&name, place as u64..(place + bytes.len()) as u64);
                hit = true;
            }
        }
        assert!(hit);
    }
}

/// A closed node with data in segments and in the log.
fn filled(seed: u64) -> World {
    let world = World::new(seed, small());
    let running = world.open();
    world.with(&running, async |engine| {
        fill(&engine, P1, 600, 900).await;
        put(&engine, P2, b"k", b"item").await.unwrap();
        let stats = engine.stats();
        assert!(stats.flushes > 2 && stats.log.files_opened > 5, "{stats:?}");
    });
    world.close(running);
    world
}

async fn is_as_filled(engine: &SimEngine) {
    for number in 0..100 {
        let stored = get(engine, P1, &key(number)).await;
        assert_eq!(stored, Some(item(500 + number, 900)), "key {number}");
    }
    assert_eq!(get(engine, P2, b"k").await.as_deref(), Some(&b"item"[..]));
    let info = engine.partition(P1).unwrap();
    assert_eq!((info.item_count, info.item_bytes), (100, 90_000));
    let mut forward = scan_all(engine, P1, Direction::Forward).await;
    assert_eq!(forward.len(), 100);
    assert!(forward.is_sorted());
    forward.reverse();
    assert_eq!(scan_all(engine, P1, Direction::Backward).await, forward);
}

#[test]
fn everything_comes_back_and_the_log_stays_bounded() {
    let world = filled(1);
    let report = looked_at(&world);
    assert!(report.is_clean(), "{report}");
    assert!(report.items == 101 && report.segment_files > 0, "{report}");
    let running = world.open();
    world.with(&running, async |engine| is_as_filled(&engine).await);
    let stats = running.engine.stats();
    assert!(stats.log.files_live <= stats.log.files_max, "{stats:?}");
    // Close and open again, and once more after a power loss.
    world.close(running);
    let running = world.open();
    world.crash(running);
    let running = world.open();
    world.with(&running, async |engine| is_as_filled(&engine).await);
}

#[test]
fn a_flipped_bit_is_named_and_read_around_and_repaired() {
    for (seed, prefix) in [(2, "segment-"), (3, "superblock"), (4, "log-00000000-")] {
        let world = filled(seed);
        let mirror = world.mirror(1);
        for name in files(&mirror, prefix) {
            // In a log file, the first batch; elsewhere the second block, or the first copy.
            let offset = if prefix == "superblock" { 100 } else { 4096 + 20 };
            mirror.flip_bit(&name, offset, 3);
        }
        let report = looked_at(&world);
        assert!(
            !report.damage().is_empty() && report.lost().is_empty(),
            "{prefix}: {report}"
        );
        assert!(
            report
                .damage()
                .iter()
                .any(|line| line.contains("mirror-1") || line.contains("log 0")),
            "{report}"
        );
        let running = world.open();
        world.with(&running, async |engine| is_as_filled(&engine).await);
        // Reads choose a mirror by turns: after several all places have been asked of the damaged one.
        world.with(&running, async |engine| {
            for _ in 0..4 {
                is_as_filled(&engine).await;
            }
        });
        world.sim.run_for(Duration::from_secs(1));
        let repaired = running.engine.stats().segments.repairs + running.engine.recovery().repaired;
        assert!(repaired > 0 || prefix == "superblock", "{prefix}");
        world.close(running);
    }
}

#[test]
fn a_missing_segment_file_is_copied_and_an_orphan_deleted() {
    let world = filled(5);
    let mirror = world.mirror(0);
    let names = files(&mirror, "segment-");
    assert!(names.iter().all(|name| mirror.delete_file(name)));
    assert!(!looked_at(&world).damage().is_empty());
    let running = world.open();
    // A compaction that was under way may have left a file that nobody refers to.
    let restored = running.engine.stats().restored;
    assert!(
        restored > 0 && restored <= names.len() as u64,
        "{restored} of {names:?}"
    );
    world.with(&running, async |engine| is_as_filled(&engine).await);
    world.close(running);
    let report = looked_at(&world);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_lost_partition_is_fenced_by_name_and_the_others_go_on() {
    let world = World::plain(6, small());
    let running = world.open();
    world.with(&running, async |engine| {
        put(&engine, P1, b"k", b"kept").await.unwrap();
        put(&engine, P2, b"k", b"lost").await.unwrap();
        put(&engine, P1, b"k", b"kept too").await.unwrap();
        put(&engine, P1, b"k", b"newest").await.unwrap();
    });
    world.close(running);
    // The batch that holds "lost" goes on both mirrors.
    damage_both(&world, b"lost");
    let report = looked_at(&world);
    assert!(
        report.lost().iter().any(|line| line.contains("partition 2")),
        "{report}"
    );
    // Fenced at this start, and for good: the log may be recycled.
    for _ in 0..2 {
        let running = world.open();
        world.run({
            let engine = running.engine.clone();
            async move |_| {
                assert_eq!(get(&engine, P1, b"k").await.as_deref(), Some(&b"newest"[..]));
                let read = engine.get(P2, b"k").await;
                let Err(error) = read else {
                    panic!("partition 2 serves what it does not have")
                };
                assert_eq!(error.kind(), ErrorKind::Fenced);
                assert!(
                    error.to_string().starts_with("partition 2 is fenced: "),
                    "{error}"
                );
                assert!(put(&engine, P2, b"other", b"item").await.is_err());
                fill(&engine, P1, 600, 900).await;
                put(&engine, P1, b"k", b"newest").await.unwrap();
            }
        });
        assert_eq!(running.engine.stats().partitions_fenced, 1);
        world.close(running);
    }
}

/// A flush is cut off after it has begun a file; the start that deletes the file is cut off as well.
#[test]
fn the_id_of_a_deleted_orphan_is_not_given_again() {
    let world = World::new(14, small());
    let running = world.open();
    let first_segments = |running: &Running| {
        let engine = running.engine.clone();
        world.with(running, async |_| ());
        world.run(async move |runtime| {
            runtime.spawn(Queue::Foreground, async move {
                fill(&engine, P1, 600, 900).await;
            });
        });
        while files(&world.mirror(0), "segment-").is_empty() {
            assert!(world.sim.step());
        }
        files(&world.mirror(0), "segment-")
    };
    let orphans = first_segments(&running);
    let end = |running: Running| {
        drop(running);
        world.sim.kill(NODE);
        world.sim.restart(NODE);
    };
    end(running);
    let running = world.open();
    assert!(running.engine.stats().orphans > 0);
    end(running);
    assert!(files(&world.mirror(0), "segment-").is_empty());
    let running = world.open();
    assert!(first_segments(&running) > orphans);
}

/// It cannot be given what it lacks, so it is not in sync: alone, it would not have everything.
#[test]
fn a_full_mirror_that_lacks_a_segment_leaves_the_set() {
    let world = filled(13);
    let mirror = world.mirror(1);
    let names = files(&mirror, "segment-");
    assert!(names.iter().all(|name| mirror.delete_file(name)));
    mirror.set_capacity(mirror.used_bytes());
    let running = world.open();
    let stats = running.engine.stats();
    assert_eq!((stats.in_sync_drives, stats.restored), (1, 0));
    world.with(&running, async |engine| is_as_filled(&engine).await);
    world.crash(running);
    world.mirror(0).detach();
    assert!(world.try_open().is_err(), "the other is never believed");
}

/// One mirror lacks the newest anchor, and fails when it is written there again: the other has it.
#[test]
fn a_mirror_that_cannot_take_the_anchor_at_the_start_leaves_the_set() {
    let world = filled(14);
    let mirror = world.mirror(1);
    let anchor = "log-00000000.anchor";
    let bytes = mirror.image().bytes(anchor).expect("every log has one");
    mirror.corrupt(anchor, 0..bytes);
    mirror.inject(Injection {
        operation: Operation::Write,
        fault: Fault::Error,
        file: Some(anchor.to_owned()),
        skip: 0,
        count: 1,
    });
    let running = world.open();
    assert_eq!(mirror.clear_injections(), 0, "the fault was met");
    assert_eq!(running.engine.stats().in_sync_drives, 1);
    world.with(&running, async |engine| is_as_filled(&engine).await);
    world.close(running);
}

/// The creation of partition 2 is lost. As far as anyone can tell the same batch held edits of partition 1.
#[test]
fn lost_manifest_edits_fence_whom_they_may_have_concerned() {
    for written in [false, true] {
        let world = World::plain(12, small());
        let running = world.open();
        let engine = running.engine.clone();
        world.run(async move |_| {
            engine.create_partition(descriptor(P1)).await.unwrap();
            put(&engine, P1, b"k", b"item").await.unwrap();
            let mut second = descriptor(P2);
            second.lower = b"find me".to_vec();
            engine.create_partition(second).await.unwrap();
            put(&engine, P1, b"k", b"newer").await.unwrap();
            if written {
                put(&engine, P2, b"k", b"item").await.unwrap();
            }
        });
        world.close(running);
        damage_both(&world, b"find me");
        if written {
            let refused = world.try_open().err().unwrap();
            assert!(
                refused.contains("partition 2, whose creation is lost"),
                "{refused}"
            );
            continue;
        }
        for _ in 0..2 {
            let running = world.open();
            let engine = running.engine.clone();
            world.run(async move |_| {
                let read = engine.get(P1, b"k").await;
                let fenced = matches!(&read, Err(error) if error.kind() == ErrorKind::Fenced);
                assert!(fenced, "{read:?}");
            });
            world.close(running);
        }
    }
}

/// A segment that cannot be opened, for whatever passing reason, holds old versions that the rest of its tree knows
/// nothing of. The background may not act as if they were not there.
#[test]
fn a_tree_without_one_of_its_segments_forgets_no_tombstone_and_is_not_compacted() {
    let segments = |world: &World| files(&world.mirror(0), "segment-");
    let prepared = || {
        let world = World::new(12, small());
        let running = world.open();
        world.with(&running, async |engine| {
            fill(&engine, P1, 600, 900).await;
            for number in 0..10 {
                delete(&engine, P1, &key(number)).await.unwrap();
            }
        });
        world.close(running);
        world
    };
    let count = segments(&prepared()).len();
    assert!(count > 1);
    for at in 0..count {
        let world = prepared();
        for mirror in [world.mirror(0), world.mirror(1)] {
            mirror.fail_next_on(&segments(&world)[at], Operation::Open, Fault::Error);
        }
        let running = world.open();
        assert_eq!(running.engine.stats().partitions_fenced, 1);
        world.with(&running, async |engine| {
            fill(&engine, P2, 1_000, 900).await;
            let stats = engine.stats();
            assert!(stats.log.files_live <= stats.log.files_max, "{stats:?}");
        });
        world.close(running);
        let running = world.open();
        world.with(&running, async |engine| {
            for number in 0..100 {
                let expected = (number >= 10).then(|| item(500 + number, 900));
                assert_eq!(get(&engine, P1, &key(number)).await, expected, "key {number}");
            }
        });
    }
}

/// A flush fails, and its partition gets no more writes: it must be tried again, or the log is pinned for good.
#[test]
fn a_failed_flush_of_an_idle_partition_is_tried_again() {
    let world = World::new(13, small());
    let running = world.open();
    let first = "segment-0000000000000000";
    for mirror in [world.mirror(0), world.mirror(1)] {
        mirror.fail_next_on(first, Operation::Open, Fault::NoSpace);
    }
    let written = world.with(&running, async |engine| {
        let mut number = 0;
        while engine.stats().memtable_bytes <= engine.stats().memtable_bytes_max / 2 {
            put(&engine, P1, &key(number), &item(number, 900)).await.unwrap();
            number += 1;
        }
        number
    });
    world.sim.run_for(Duration::from_millis(20));
    assert_eq!(running.engine.stats().background_failures, 1);
    world.sim.run_for(Duration::from_secs(1));
    world.with(&running, async move |engine| {
        fill(&engine, P2, 1_000, 900).await;
        for number in 0..written {
            assert_eq!(get(&engine, P1, &key(number)).await, Some(item(number, 900)));
        }
    });
    let stats = running.engine.stats();
    assert!(stats.log.files_live <= stats.log.files_max, "{stats:?}");
}

#[test]
fn full_drives_refuse_writes_keep_reads_and_recover() {
    let world = World::new(
        7,
        EngineConfig {
            write_wait_max: Duration::from_millis(500),
            ..small()
        },
    );
    let running = world.open();
    world.with(&running, async |engine| {
        fill(&engine, P1, 100, 900).await;
    });
    for at in 0..2 {
        let mirror = world.mirror(at);
        mirror.set_capacity(mirror.used_bytes());
    }
    let refused = world.with(&running, async |engine| {
        let mut number = 100;
        loop {
            match put(&engine, P1, &key(number % 100), &item(number, 900)).await {
                Ok(_) => number += 1,
                Err(error) => {
                    break (
                        number,
                        error.kind(),
                        get(&engine, P1, &key((number - 1) % 100)).await,
                    );
                }
            }
            assert!(number < 100_000, "the drives are full");
        }
    });
    let (number, kind, read) = refused;
    assert!(matches!(kind, ErrorKind::Retry | ErrorKind::Throttle), "{kind:?}");
    assert_eq!(read, Some(item(number - 1, 900)));
    (0..2).for_each(|at| world.mirror(at).set_capacity(64 << 30));
    world.sim.run_for(Duration::from_secs(5));
    world.with(&running, async |engine| {
        fill(&engine, P1, 600, 900).await;
        put(&engine, P2, b"k", b"item").await.unwrap();
        is_as_filled(&engine).await;
    });
    world.close(running);
    assert!(looked_at(&world).is_clean());
}

#[test]
fn a_mirror_that_vanishes_is_left_out_and_nothing_is_lost() {
    let world = World::new(8, small());
    let running = world.open();
    let epoch = running.engine.stats().in_sync_epoch;
    let engine = running.engine.clone();
    world.with(&running, async |_| ());
    let writing = Rc::new(std::cell::Cell::new(true));
    let done = Rc::clone(&writing);
    world.run(async move |runtime| {
        runtime.spawn(Queue::Foreground, async move {
            fill(&engine, P1, 600, 900).await;
            put(&engine, P2, b"k", b"item").await.unwrap();
            done.set(false);
        });
    });
    world.sim.run_for(Duration::from_millis(20));
    assert!(writing.get());
    world.mirror(0).detach();
    while writing.get() {
        assert!(world.sim.step());
    }
    let stats = running.engine.stats();
    assert!(
        stats.in_sync_epoch > epoch && stats.in_sync_drives == 1,
        "{stats:?}"
    );
    world.with(&running, async |engine| is_as_filled(&engine).await);
    world.crash(running);
    // It comes back stale: it is not believed.
    world.mirror(0).attach();
    let running = world.open();
    world.with(&running, async |engine| is_as_filled(&engine).await);
}

#[test]
fn a_dropped_partition_leaves_nothing_behind() {
    let world = filled(9);
    let running = world.open();
    world.with(&running, async |engine| {
        put(&engine, P1, b"in memory", &item(1, 900)).await.unwrap();
        engine.drop_partition(P1).await.unwrap();
        engine.drop_partition(P1).await.unwrap();
        let read = engine.get(P1, b"k").await;
        assert!(matches!(read, Err(EngineError::NoSuchPartition(P1))), "{read:?}");
    });
    world.sim.run_for(Duration::from_secs(1));
    assert!(running.engine.stats().memtable_bytes < 1_000);
    assert_eq!(
        files(&world.mirror(0), "segment-"),
        files(&world.mirror(1), "segment-")
    );
    assert!(
        files(&world.mirror(0), "segment-").len() <= 1,
        "only partition 2 may have one"
    );
    world.crash(running);
    let running = world.open();
    assert!(running.engine.partition(P1).is_none());
    assert!(running.engine.partition(P2).is_some());
    world.close(running);
    let report = looked_at(&world);
    assert!(report.is_clean(), "{report}");
}

/// The node ends while a drop is in the log and not durable: the partition is back, with everything in it.
#[test]
fn a_drop_that_is_not_durable_takes_nothing() {
    let (mut back, mut flushed) = (0, 0);
    for step in 0..200 {
        let world = World::new(100 + step, small());
        let running = world.open();
        let written = world.with(&running, async |engine| {
            let mut number = 0;
            while engine.stats().memtable_bytes <= engine.stats().memtable_bytes_max / 2 {
                put(&engine, P1, &key(number), &item(number, 900)).await.unwrap();
                number += 1;
            }
            number
        });
        // A flush of it begins. What is in flight ends, the batch with the drop does not.
        world.sim.run_for(Duration::from_micros(1_600 + 20 * (step % 40)));
        for mirror in [world.mirror(0), world.mirror(1)] {
            mirror.inject(Injection {
                operation: Operation::Write,
                file: None,
                skip: 0,
                count: 1_000,
                fault: Fault::Slow(Duration::from_secs(10)),
            });
        }
        let engine = running.engine.clone();
        world.run(async move |runtime| {
            runtime.spawn(Queue::Foreground, async move {
                // Not answered before the end.
                let _ = engine.drop_partition(P1).await;
            });
        });
        world.sim.run_for(Duration::from_millis(50));
        flushed += running.engine.stats().flushes;
        for mirror in [world.mirror(0), world.mirror(1)] {
            let _ = mirror.clear_injections();
        }
        // A file that was removed stays so; a write in flight happens or not.
        drop(running);
        world.sim.kill(NODE);
        world.sim.restart(NODE);
        let running = world.open();
        if running.engine.partition(P1).is_some() {
            back += 1;
            world.with(&running, async move |engine| {
                for number in 0..written {
                    assert_eq!(get(&engine, P1, &key(number)).await, Some(item(number, 900)));
                }
            });
        }
    }
    assert!(
        back > 20 && flushed > 20,
        "{back} came back, {flushed} were flushed"
    );
}

/// The partition with the greatest debt cannot be compacted: it is fenced by name, and the others get their turn.
#[test]
fn a_partition_that_cannot_be_compacted_does_not_starve_the_others() {
    let world = World::new(
        15,
        EngineConfig {
            cache_bytes: 0,
            ..small()
        },
    );
    // Flushes overlap, so that a compaction reads them.
    let scattered = |number: u64| key(number * 7919 % 100_003);
    let running = world.open();
    world.with(&running, async move |engine| {
        let mut number = 0;
        while engine.stats().flushes < 3 {
            put(&engine, P1, &scattered(number), &item(number, 900))
                .await
                .unwrap();
            number += 1;
        }
    });
    for mirror in [world.mirror(0), world.mirror(1)] {
        for name in files(&mirror, "segment-") {
            mirror.corrupt(&name, 4096..mirror.image().bytes(&name).unwrap());
        }
    }
    world.with(&running, async move |engine| {
        // Beyond what the damaged segments cover: no read of a put may be what finds the damage.
        let beyond = |number: u64| [b"z", &scattered(number)[..]].concat();
        for number in 5_000..5_400 {
            if put(&engine, P1, &beyond(number), &item(number, 900))
                .await
                .is_err()
            {
                break;
            }
        }
        for number in 0..400 {
            put(&engine, P2, &scattered(number), &item(number, 900))
                .await
                .unwrap();
        }
    });
    world.sim.run_for(Duration::from_secs(2));
    let stats = running.engine.stats();
    assert!(
        stats.compactions > 0 && stats.background_failures == 1,
        "{stats:?}"
    );
    let fenced = running.engine.partition(P1).unwrap().fenced.unwrap();
    assert!(fenced.contains("is damaged at byte"), "{fenced}");
    assert!(running.engine.partition(P2).unwrap().fenced.is_none());
}

/// What a partition takes in a snapshot follows its segments and their keys, and may be more than any item.
#[test]
fn a_partition_with_long_keys_is_restated_and_the_log_released() {
    let mut config = EngineConfig {
        log_file_bytes: 1 << 20,
        ..small()
    };
    config.log.first_file_bytes = 1 << 20;
    let world = World::new(15, config);
    let running = world.open();
    let long = |number: u64| [key(number), vec![b'x'; 8_000]].concat();
    world.with(&running, async move |engine| {
        for number in 0..30 {
            put(&engine, P1, &long(number), &item(number, 900)).await.unwrap();
        }
        fill(&engine, P2, 4_000, 900).await;
    });
    let stats = running.engine.stats();
    assert!(stats.snapshots > 0 && stats.background_failures == 0, "{stats:?}");
    assert!(stats.log.files_live <= stats.log.files_max, "{stats:?}");
    world.close(running);
    let running = world.open();
    world.with(&running, async move |engine| {
        for number in 0..30 {
            assert_eq!(get(&engine, P1, &long(number)).await, Some(item(number, 900)));
        }
    });
}

/// What `dump` shows of a file, and what of it does not verify.
fn dumped(world: &World, directory: &str, name: &str) -> (String, Vec<String>) {
    let path = std::path::Path::new(directory).join(name);
    world.run(async move |runtime| {
        let mut text = String::new();
        let dumped = dump::dump(runtime, &path, &[root_key()], &mut text).await;
        let damage = dumped.unwrap();
        (text, damage)
    })
}

#[test]
fn dump_names_what_is_damaged() {
    let world = filled(12);
    let mirror = world.mirror(0);
    // Each with a place that something is stored at.
    for (prefix, offset, said) in [
        ("superblock", 100, "copy 0: does not verify"),
        ("segment-", 4096 + 100, "damaged at"),
        ("log-", 4096 + 100, "the header of no batch verifies"),
    ] {
        let names = files(&mirror, prefix);
        let name = names.iter().find(|name| !name.ends_with(".anchor")).unwrap();
        mirror.flip_bit(name, offset, 3);
        let (text, damage) = dumped(&world, "/mirror-0", name);
        assert!(
            damage.iter().any(|what| what.contains(said)),
            "{name}: {damage:?}"
        );
        assert!(damage.iter().all(|what| text.contains(what)), "{name}: {text}");
    }
}

#[test]
fn dump_shows_every_file() {
    let world = filled(10);
    let mut shown = String::new();
    for path in ["/mirror-0", "/mirror-1", "/state"] {
        for name in files(&world.sim.drive(NODE, path), "") {
            let (text, damage) = dumped(&world, path, &name);
            assert!(damage.is_empty(), "{name}: {damage:?}");
            assert!(!text.is_empty(), "{name}");
            if let Some(id) = name.strip_prefix("segment-") {
                let says = |part: &str| assert!(text.contains(part), "{name}: {part} is not in {text}");
                says(&format!("segment {id} of table 1, partition "));
                says("to drives {0, 1}");
                says("packed with Lz4");
                // The level is in the manifest alone: a segment moves without being written again.
                assert!(!text.contains("level"), "{name}: {text}");
            }
            shown.push_str(&text);
        }
    }
    for part in ["in_sync", "key key-000042", "AddSegment", "marker", "Flushed"] {
        assert!(shown.contains(part), "{part} is not shown");
    }
}

#[test]
fn an_empty_partition_costs_no_file_and_little_log() {
    let world = World::new(11, small());
    let running = world.open();
    let engine = running.engine.clone();
    let before = files(&world.mirror(0), "").len();
    world.run(async move |_| {
        for id in 1..=500 {
            engine
                .create_partition(descriptor(cairn_engine::ids::PartitionId(id)))
                .await
                .unwrap();
        }
    });
    assert!(files(&world.mirror(0), "segment-").is_empty());
    assert!(files(&world.mirror(0), "").len() <= before + 10, "only log files");
    world.crash(running);
    let running = world.open();
    assert_eq!(running.engine.partitions().len(), 500);
    assert_eq!(running.engine.stats().memtable_bytes, 0);
}
