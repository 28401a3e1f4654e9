//! What drives do to segment files, and what the tree makes of it.

use cairn_runtime::sim::{Fault, FaultConfig, Operation, Random};

use super::*;

/// Tiny, usual and huge items in one segment, most of which pack well.
async fn fill(bench: &Bench) {
    for number in 0..120 {
        let length = match number {
            40 => 400_000,
            50..53 => 9_000,
            60..70 => 2_500,
            number if number % 3 == 0 => 10,
            _ => 1_000,
        };
        let item = if number % 4 == 0 { bytes } else { text };
        bench.put(&key(number), &item(number, length));
    }
    bench.delete(&key(119));
    bench.flush().await.unwrap();
    let stats = bench.stats();
    assert!(
        stats.blocks_stored_bytes < stats.blocks_bytes,
        "some blocks are packed"
    );
}

fn file_of(bench: &Bench) -> (String, u64) {
    let manifest = bench.manifest.borrow();
    let segments = &manifest.partitions[&PARTITION].segments;
    assert_eq!(segments.len(), 1);
    let segment = segments.values().next().unwrap();
    (segment_file_name(segment.id), segment.bytes)
}

#[test]
fn one_bad_byte_anywhere_is_found_and_repaired() {
    simulate(1, 1 << 20, SMALL, async |bench, drives, _| {
        fill(&bench).await;
        let (name, length) = file_of(&bench);
        let original = drives[0].image().read(&name).unwrap();
        assert_eq!(original.len() as u64, length);
        assert!(
            original == drives[1].image().read(&name).unwrap(),
            "mirrors are alike"
        );
        let segment = bench.tree.segments().remove(0);
        let mut random = Random::new(1);
        for unit in 0..length / 4096 {
            let at = random.index(2);
            let bad = &drives[at];
            bad.flip_bit(&name, unit * 4096 + random.below(4096), random.below(8) as u8);
            let repairs = bench.stats().repairs;
            let damages = segment.scrub().await;
            assert!(
                damages.len() == 1 && damages[0].drive.get() == at && !damages[0].lost,
                "{damages:?}"
            );
            bench.settle().await;
            assert!(bench.stats().repairs > repairs);
            assert!(
                bad.image().read(&name).unwrap() == original,
                "unit {unit} is whole again"
            );
        }
        assert_eq!(bench.stats().repair_failures, 0);
        for drive in &drives {
            assert!(
                drive.durable_image().read(&name).unwrap() == original,
                "repairs are durable"
            );
        }
    });
}

#[test]
fn a_mirror_bad_in_every_block_does_not_matter() {
    for bad in [0, 1] {
        simulate(2, 1 << 20, SMALL, async move |mut bench, drives, _| {
            fill(&bench).await;
            let expected = bench.everything(Direction::Forward).await;
            assert_eq!(expected.len(), 119);
            let (name, length) = file_of(&bench);
            let original = drives[0].image().read(&name).unwrap();
            for unit in 0..length / 4096 {
                drives[bad].rot(&name, unit * 4096 + unit % 4096);
            }
            bench.reopen().await.unwrap();
            for (key, item) in &expected {
                assert_eq!(bench.item(key).await.as_ref(), Some(item));
            }
            bench.reopen().await.unwrap();
            assert!(bench.everything(Direction::Backward).await == expected);
            assert!(bench.stats().mismatches + bench.stats().repairs > 0);
            drop(bench.tree.segments()[0].scrub().await);
            bench.settle().await;
            assert_eq!(bench.tree.segments()[0].scrub().await, []);
            assert!(drives[bad].image().read(&name).unwrap() == original);
        });
    }
}

#[test]
fn the_same_block_bad_on_both_mirrors_is_an_error_that_names_it() {
    simulate(3, 1 << 20, SMALL, async |mut bench, drives, _| {
        fill(&bench).await;
        let expected = bench.everything(Direction::Forward).await;
        let (name, _) = file_of(&bench);
        // Unit 1 is the first data block.
        drives.iter().for_each(|drive| drive.flip_bit(&name, 5_000, 3));
        bench.reopen().await.unwrap();
        let error = bench.tree.get(&expected[0].0).await.unwrap_err();
        let words = error.to_string();
        assert!(
            matches!(
                error,
                TreeError::Unreadable {
                    partition: PARTITION,
                    offset: 4096,
                    ..
                }
            ),
            "{words}"
        );
        assert!(words.contains(&name) && words.contains("partition 7"), "{words}");
        let mut cursor = bench
            .tree
            .scan(Bound::Unbounded, Bound::Unbounded, Direction::Forward);
        assert!(matches!(cursor.next().await, Err(TreeError::Unreadable { .. })));
        let (last, item) = expected.last().unwrap();
        assert_eq!(
            bench.item(last).await.as_ref(),
            Some(item),
            "other blocks are served"
        );
        for _ in 0..SMALL.level0_segments {
            bench.put(&expected[0].0, b"new");
            bench.flush().await.unwrap();
        }
        assert!(matches!(bench.compact().await, Err(TreeError::Unreadable { .. })));
        assert_eq!(bench.item(&expected[0].0).await.unwrap(), b"new");
        // The header and the footer, without which nothing can be read.
        drives.iter().for_each(|drive| drive.flip_bit(&name, 100, 3));
        assert!(matches!(
            bench.reopen().await,
            Err(TreeError::Unreadable { offset: 0, .. })
        ));
    });
}

#[test]
fn a_missing_or_short_mirror_is_read_around() {
    simulate(4, 1 << 20, SMALL, async |mut bench, drives, _| {
        fill(&bench).await;
        let expected = bench.everything(Direction::Forward).await;
        let (name, _) = file_of(&bench);
        assert!(drives[1].delete_file(&name));
        bench.reopen().await.unwrap();
        assert_eq!(bench.stats().mirrors_missing, 1);
        assert!(bench.everything(Direction::Forward).await == expected);
        assert!(drives[0].delete_file(&name));
        assert!(matches!(bench.reopen().await, Err(TreeError::NoMirror { .. })));
    });
}

#[test]
fn failing_reads_are_answered_by_the_other_mirror() {
    simulate(5, 16 << 10, SMALL, async |bench, drives, _| {
        fill(&bench).await;
        let expected = bench.everything(Direction::Forward).await;
        drives[0].set_faults(FaultConfig {
            read_error_ppm: 300_000,
            corrupt_read_ppm: 200_000,
            ..FaultConfig::NONE
        });
        for _ in 0..3 {
            assert!(bench.everything(Direction::Forward).await == expected);
            assert!(bench.everything(Direction::Backward).await == expected);
        }
        for (key, item) in &expected {
            assert_eq!(bench.item(key).await.as_ref(), Some(item));
        }
        let stats = bench.stats();
        assert!(
            stats.read_errors >= 10 && stats.mismatches >= 3 && stats.repairs >= 10,
            "{stats:?}"
        );
    });
}

#[test]
fn a_drive_that_refuses_writes_is_left_out() {
    for operation in [
        Operation::Open,
        Operation::Write,
        Operation::SyncFile,
        Operation::SyncDirectory,
    ] {
        simulate(6, 1 << 20, SMALL, async move |mut bench, drives, _| {
            drives[1].fail_next(operation, Fault::Error);
            fill(&bench).await;
            let (_, one) = (DriveIndex::new(0).unwrap(), DriveIndex::new(1).unwrap());
            assert!(
                !bench.watch.0.get().contains(one),
                "{operation:?} failed and was reported"
            );
            let segments = bench.manifest.borrow().partitions[&PARTITION].segments.clone();
            assert!(segments.values().all(|segment| segment.mirrors.count() == 1));
            let names: Vec<_> = drives[0].image().names().map(str::to_owned).collect();
            assert_eq!(
                names.iter().filter(|name| name.starts_with("segment-")).count(),
                1,
                "{names:?}"
            );
            bench.reopen().await.unwrap();
            assert_eq!(bench.everything(Direction::Forward).await.len(), 119);
        });
    }
}

#[test]
fn a_full_drive_changes_nothing() {
    simulate(7, 1 << 20, SMALL, async |bench, drives, _| {
        fill(&bench).await;
        let expected = bench.everything(Direction::Forward).await;
        bench.put(&key(500), b"more");
        drives[0].fail_next(Operation::Write, Fault::NoSpace);
        assert!(matches!(bench.flush().await, Err(TreeError::OutOfSpace { .. })));
        assert_eq!(bench.item(&key(500)).await.unwrap(), b"more");
        let names = drives[0]
            .image()
            .names()
            .filter(|name| name.starts_with("segment-"))
            .count();
        assert_eq!(names, 1, "the file that was begun is gone");
        bench.flush().await.unwrap();
        assert_eq!(
            bench.everything(Direction::Forward).await.len(),
            expected.len() + 1
        );
    });
}

/// A segment could not be finished while the next was full: that one's writer was dropped and not abandoned. Its file stayed, and as
/// it counted as begun for ever, the drive's place could be given to no other.
#[test]
fn a_compaction_that_fails_leaves_nothing_behind() {
    simulate(9, 1 << 20, SMALL, async |bench, drives, _| {
        for round in 0..4 {
            for number in 0..100 {
                bench.put(&key(number), &bytes(round * 100 + number, 2_000));
            }
            bench.flush().await.unwrap();
        }
        drives[0].fail_next(Operation::SyncFile, Fault::NoSpace);
        let failed = bench.compact().await;
        assert!(matches!(failed, Err(TreeError::OutOfSpace { .. })), "{failed:?}");
        bench.settle().await;
        let named: Vec<_> = {
            let manifest = bench.manifest.borrow();
            let segments = manifest.partitions[&PARTITION].segments.keys();
            segments.map(|id| segment_file_name(*id)).collect()
        };
        for drive in &drives {
            let image = drive.image();
            let files: Vec<_> = image
                .names()
                .filter(|name| name.starts_with("segment-"))
                .collect();
            assert_eq!(files, named, "no other files");
        }
        bench.compact_all().await;
        assert_eq!(bench.everything(Direction::Forward).await.len(), 100);
    });
}

#[test]
fn silently_bad_writes_are_found_and_repaired() {
    for fault in [Fault::Lost, Fault::Torn, Fault::Misdirected, Fault::Corrupt] {
        simulate(8, 1 << 20, SMALL, async move |mut bench, drives, _| {
            drives[1].fail_next(Operation::Write, fault);
            fill(&bench).await;
            let (name, _) = file_of(&bench);
            let good = drives[0].image().read(&name).unwrap();
            bench.reopen().await.unwrap();
            assert_eq!(bench.everything(Direction::Forward).await.len(), 119);
            drop(bench.tree.segments()[0].scrub().await);
            bench.settle().await;
            assert_eq!(bench.tree.segments()[0].scrub().await, [], "{fault:?}");
            assert!(drives[1].image().read(&name).unwrap() == good, "{fault:?}");
        });
    }
}

#[test]
fn what_a_flush_has_written_survives_a_crash() {
    for seed in 0..20 {
        let simulation = Simulation::new(seed, Config::default());
        let reference = simulation.block_on(NodeIndex(0), ShardIndex(0), async move |runtime| {
            let bench = Bench::new(runtime, 1 << 20, SMALL, false).await;
            fill(&bench).await;
            let manifest = bench.manifest.borrow();
            manifest.clone()
        });
        simulation.crash(NodeIndex(0));
        simulation.restart(NodeIndex(0));
        simulation.block_on(NodeIndex(0), ShardIndex(0), async move |runtime| {
            let mut bench = Bench::new(runtime, 1 << 20, SMALL, false).await;
            *bench.manifest.borrow_mut() = reference;
            bench.reopen().await.unwrap();
            assert_eq!(bench.stats().mirrors_missing, 0);
            assert_eq!(bench.everything(Direction::Forward).await.len(), 119);
            assert_eq!(bench.tree.segments()[0].scrub().await, []);
        });
    }
}

#[test]
fn a_drive_that_cannot_be_repaired_is_reported_unless_its_file_is_gone() {
    for (fault, stays) in [(Fault::Error, false), (Fault::NoSpace, true)] {
        simulate(9, 1 << 20, SMALL, async move |bench, drives, _| {
            fill(&bench).await;
            let (name, _) = file_of(&bench);
            let segment = bench.tree.segments().remove(0);
            drives[1].flip_bit(&name, 5_000, 3);
            drives[1].fail_next(Operation::Write, fault);
            assert_eq!(segment.scrub().await.len(), 1);
            bench.settle().await;
            assert_eq!(bench.stats().repair_failures, 1);
            assert_eq!(
                bench.watch.0.get().contains(DriveIndex::new(1).unwrap()),
                stays,
                "{fault:?}"
            );
        });
    }
    simulate(10, 1 << 20, SMALL, async |bench, drives, _| {
        fill(&bench).await;
        let (name, _) = file_of(&bench);
        let segment = bench.tree.segments().remove(0);
        drives[1].flip_bit(&name, 5_000, 3);
        drives[1].fail_next(
            Operation::Open,
            Fault::Slow(std::time::Duration::from_millis(500)),
        );
        assert_eq!(segment.scrub().await.len(), 1);
        assert!(drives[1].delete_file(&name));
        bench.settle().await;
        assert!(bench.watch.0.get().contains(DriveIndex::new(1).unwrap()));
    });
}

#[test]
fn however_many_segments_few_files_are_open() {
    simulate(31, 0, SMALL, async |bench, _, _| {
        for number in 0..40 {
            bench.put(&key(number), &bytes(number, 500));
            bench.flush().await.unwrap();
        }
        let opened = bench.stats();
        assert_eq!((opened.segments_open, opened.files_open), (40, 6));
        for _ in 0..2 {
            for number in 0..40 {
                assert_eq!(bench.item(&key(number)).await, Some(bytes(number, 500)));
                assert!(bench.stats().files_open <= 6);
            }
        }
        assert_eq!(bench.everything(Direction::Forward).await.len(), 40);
        // Replaced segments close theirs.
        bench.compact_all().await;
        bench.settle().await;
        let stats = bench.stats();
        assert!(stats.files_open <= 2 * stats.segments_open, "{stats:?}");
    });
}

#[test]
fn running_out_of_descriptors_blames_no_drive_and_passes() {
    simulate(32, 0, SMALL, async |bench, drives, _| {
        bench.put(&key(1), b"one");
        // A file to write, one to open again, both mirrors of one to read.
        drives[0].fail_next(Operation::Open, Fault::Exhausted);
        let error = bench.flush().await.unwrap_err();
        assert!(matches!(error, TreeError::Exhausted { .. }), "{error}");
        bench.flush().await.unwrap();
        for drive in &drives {
            drive.fail_next(Operation::Read, Fault::Exhausted);
        }
        let error = bench.tree.get(&key(1)).await.unwrap_err();
        assert!(matches!(error, TreeError::Exhausted { .. }), "{error}");
        drives[1].fail_next(Operation::Read, Fault::Exhausted);
        for _ in 0..2 {
            assert_eq!(bench.item(&key(1)).await.as_deref(), Some(&b"one"[..]));
        }
        bench.settle().await;
        assert_eq!(bench.stats().repairs, 0);
        assert_eq!(bench.watch.0.get().count(), 2);
    });
}
