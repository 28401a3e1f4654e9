//! What reading costs, and how trees keep it so.

use super::segment::{Piece, walk};
use super::*;
use crate::sealing::TableKeys;

#[test]
fn a_point_read_is_one_device_read_and_a_miss_none() {
    simulate(1, 1 << 20, SMALL, async |mut bench, _, _| {
        let lengths = [
            0, 1, 60, 1_100, 2_500, 4_000, 4_060, 4_096, 8_192, 20_000, 400_000,
        ];
        for number in 0..220 {
            bench.put(
                &key(number),
                &bytes(number, lengths[number as usize % lengths.len()]),
            );
        }
        bench.flush().await.unwrap();
        bench.reopen().await.unwrap();
        // The leaves come into the cache with the first reads; there are few.
        for number in (0..220).step_by(5) {
            bench.item(&key(number)).await.unwrap();
        }
        let (mut reads, mut cold) = (0, 0);
        for number in 0..220 {
            let asked = key(number);
            if let Some(found) = bench.tree.get_cached(&asked) {
                assert_eq!(
                    *found.unwrap().unwrap().item,
                    *bytes(number, lengths[number as usize % lengths.len()])
                );
                continue;
            }
            let before = bench.stats().device_reads;
            assert_eq!(
                bench.item(&asked).await.unwrap().len(),
                lengths[number as usize % lengths.len()]
            );
            reads += bench.stats().device_reads - before;
            cold += 1;
        }
        assert!(
            cold > 40 && reads <= cold + 2,
            "{reads} reads for {cold} cold items"
        );
        let before = bench.stats().device_reads;
        let absent = (1_000..3_000)
            .filter(|number| bench.tree.get_cached(&key(*number)).is_some())
            .count();
        assert!(absent > 1_950, "{absent} of 2,000 misses needed no drive");
        assert_eq!(bench.stats().device_reads, before);
    });
}

/// Files of 2,000 items in one level: their bytes, and those of the items.
async fn stored(bench: &mut Bench, item: fn(u64, usize) -> Vec<u8>, length: usize) -> f64 {
    for number in 0..2_000 {
        bench.put(&key(number), &item(number, length));
    }
    bench.flush().await.unwrap();
    bench.reopen().await.unwrap();
    let (mut reads, mut cold) = (0, 0);
    for number in 0..2_000 {
        let before = bench.stats().device_reads;
        if bench.tree.get_cached(&key(number)).is_none() {
            cold += 1;
        }
        assert_eq!(bench.item(&key(number)).await, Some(item(number, length)));
        reads += bench.stats().device_reads - before;
    }
    let leaves = 60;
    assert!(reads <= cold + leaves, "{reads} reads for {cold} cold items");
    let manifest = bench.manifest.borrow();
    let files = manifest.partitions[&PARTITION].segments.values();
    let bytes: u64 = files.map(|segment| segment.bytes).sum();
    bytes as f64 / (2_000 * length) as f64
}

#[test]
fn what_packs_is_packed_and_still_one_device_read() {
    for (compression, text_max) in [
        (Compression::None, 1.35),
        (Compression::Lz4, 0.60),
        (Compression::Zstd, 0.60),
    ] {
        let config = CompactionConfig { compression, ..SMALL };
        for length in [100, 1_000, 3_000, 20_000] {
            simulate(21, 256 << 10, config, async move |mut bench, _, _| {
                let shrunk = stored(&mut bench, text, length).await;
                // Small items have their keys, stamps and filters beside them.
                let beside = if length == 100 { 0.75 } else { 0.1 };
                assert!(
                    shrunk < text_max + beside,
                    "{compression:?}, {length} bytes of text: {shrunk}"
                );
            });
            simulate(22, 256 << 10, config, async move |mut bench, _, _| {
                let plain = stored(&mut bench, bytes, length).await;
                assert!(plain < 1.8, "{compression:?}, {length} random bytes: {plain}");
            });
        }
    }
}

#[test]
fn what_does_not_pack_costs_nothing_on_the_drive() {
    let lengths = |compression: Compression| {
        let config = CompactionConfig { compression, ..SMALL };
        simulate(23, 1 << 20, config, async move |bench, _, _| {
            for number in 0..1_500 {
                bench.put(&key(number), &bytes(number, 700));
            }
            bench.flush().await.unwrap();
            bench.stats().blocks_stored_bytes
        })
    };
    assert_eq!(lengths(Compression::Lz4), lengths(Compression::None));
}

#[test]
fn a_tree_may_be_packed_otherwise_and_all_kinds_are_read_side_by_side() {
    simulate(24, 1 << 20, SMALL, async |mut bench, _, _| {
        let codecs = |bench: &Bench| -> Vec<Codec> {
            let view = bench.tree.view.borrow();
            let placed = view.levels.iter().flatten();
            placed.map(|placed| placed.segment.header().codec).collect()
        };
        let expected = |count: u64| -> Vec<(Vec<u8>, Vec<u8>)> {
            let items = (0..count).map(|number| (key(number), text(number, 1_000)));
            items
                .collect::<std::collections::BTreeMap<_, _>>()
                .into_iter()
                .collect()
        };
        let write = |bench: &Bench, numbers: std::ops::Range<u64>| {
            for number in numbers {
                bench.put(&key(number), &text(number, 1_000));
            }
        };
        write(&bench, 0..50);
        bench.flush().await.unwrap();
        bench.tree.pack_with(Some(Compression::None));
        write(&bench, 40..80);
        bench.flush().await.unwrap();
        let side_by_side = codecs(&bench);
        assert!(side_by_side.contains(&Codec::Lz4) && side_by_side.contains(&Codec::None));
        bench.reopen().await.unwrap();
        for direction in [Direction::Forward, Direction::Backward] {
            assert!(bench.everything(direction).await == expected(80));
        }
        // With zstd it is lz4 at first, and zstd in the last level.
        bench.tree.pack_with(Some(Compression::Zstd));
        write(&bench, 70..200);
        bench.flush().await.unwrap();
        write(&bench, 150..200);
        bench.flush().await.unwrap();
        bench.compact_all().await;
        bench.settle().await;
        let codecs = codecs(&bench);
        assert!(
            codecs.contains(&Codec::Zstd) && !codecs.contains(&Codec::None),
            "{codecs:?}"
        );
        assert!(bench.everything(Direction::Forward).await == expected(200));
    });
}

#[test]
fn cached_items_are_served_in_place() {
    simulate(2, 1 << 20, SMALL, async |mut bench, _, _| {
        bench.put(&key(1), b"one");
        bench.flush().await.unwrap();
        bench.reopen().await.unwrap();
        assert!(bench.tree.get_cached(&key(1)).is_none(), "nothing is cached yet");
        bench.item(&key(1)).await.unwrap();
        let (one, other) = (bench.tree.get_cached(&key(1)), bench.tree.get_cached(&key(1)));
        let pointer = |found: Option<Result<Option<Version>, TreeError>>| {
            found.unwrap().unwrap().unwrap().item.as_ptr()
        };
        assert_eq!(pointer(one), pointer(other));
    });
}

#[test]
fn compaction_bounds_what_a_read_consults() {
    simulate(3, 1 << 20, SMALL, async |bench, _, _| {
        for round in 0..60_u64 {
            for number in 0..40 {
                bench.put(&key(round * 17 % 900 + number * 23), &bytes(round * number, 600));
            }
            bench.flush().await.unwrap();
            while bench.compact().await.unwrap() {}
            let levels = bench.tree.segments_per_level();
            assert!(levels[0] < SMALL.level0_segments, "{levels:?}");
        }
        let levels = bench.tree.segments_per_level();
        assert!(
            levels[6] > 0 && levels[7] > 0,
            "the tree has grown levels: {levels:?}"
        );
        let before = bench.stats();
        let mut found = 0;
        for number in 0..900 {
            found += u64::from(bench.item(&key(number)).await.is_some());
        }
        let searched = bench.stats().segments_searched - before.segments_searched;
        assert!(searched <= found + 30, "{searched} segments for {found} items");
        let stats = bench.stats();
        let amplification = (stats.flushed_bytes + stats.compacted_bytes) as f64 / stats.flushed_bytes as f64;
        assert!(amplification < 12.0, "write amplification {amplification}");
    });
}

#[test]
fn tombstones_die_with_what_they_hide() {
    simulate(4, 1 << 20, SMALL, async |bench, _, _| {
        for number in 0..500 {
            bench.put(&key(number), &bytes(number, 300));
        }
        bench.flush().await.unwrap();
        for number in 0..500 {
            bench.delete(&key(number));
        }
        bench.flush().await.unwrap();
        assert_eq!(bench.everything(Direction::Forward).await.len(), 0);
        let state = bench.manifest.borrow().partitions[&PARTITION].clone();
        assert_eq!(
            state
                .segments
                .values()
                .map(|segment| segment.tombstones)
                .sum::<u64>(),
            500
        );
        // The third segment makes the compaction due.
        bench.put(&key(1_000), b"one");
        bench.flush().await.unwrap();
        bench.compact_all().await;
        let state = bench.manifest.borrow().partitions[&PARTITION].clone();
        assert_eq!(
            state
                .segments
                .values()
                .map(|segment| segment.entries)
                .sum::<u64>(),
            1
        );
        // Deleting what is not there leaves nothing at all, not even a segment.
        bench.delete(&[9]);
        bench.flush().await.unwrap();
        assert_eq!(bench.tree.segments_per_level()[0], 0);
    });
}

/// Versions in segments for each item, at its worst over many rounds of overwriting and deleting.
fn space_taken(items: u64, change: fn(&Bench, u64, u64)) -> f64 {
    simulate(31, 1 << 20, SMALL, async move |bench, _, _| {
        for number in 0..items {
            bench.put(&key(number), &bytes(number, 500));
            if number % 200 == 199 {
                bench.flush().await.unwrap();
            }
        }
        bench.flush().await.unwrap();
        bench.compact_all().await;
        let mut random = cairn_runtime::sim::Random::new(9);
        let mut worst: f64 = 0.0;
        for round in 0..60 {
            for _ in 0..150 {
                change(&bench, random.below(items), round);
            }
            bench.flush().await.unwrap();
            bench.compact_all().await;
            let live = bench.everything(Direction::Forward).await.len();
            let space = bench.tree.space();
            let level0: u64 = 150 * SMALL.level0_segments as u64;
            worst = worst.max(space.versions.saturating_sub(level0) as f64 / live as f64);
        }
        worst
    })
}

#[test]
fn what_is_obsolete_takes_a_bounded_part_of_the_space() {
    // 6,000 items of 500 bytes are 24 times what a base level may hold with these limits; with a ratio of 4 the
    // levels above the last hold a third of it.
    let overwritten = space_taken(6_000, |bench, number, round| {
        bench.put(&key(number), &bytes(round, 500));
    });
    assert!(overwritten < 1.45, "{overwritten} versions per item");
    // Tombstones count as what they hide, so that there is a third of both at most, and fewer items than before.
    let deleted = space_taken(12_000, |bench, number, _| {
        bench.delete(&key(number));
    });
    assert!(deleted < 1.8, "{deleted} versions per item");
}

#[test]
fn a_tree_of_an_older_shape_falls_into_place() {
    simulate(32, 1 << 20, SMALL, async |bench, _, _| {
        for round in 0..20_u64 {
            for number in 0..40 {
                bench.put(&key(round * 40 + number), &bytes(number, 600));
            }
            bench.flush().await.unwrap();
            while bench.compact().await.unwrap() {}
        }
        // As if a level above the base had been used: by hand, all of the last level goes there.
        let levels = bench.tree.segments_per_level();
        assert!(levels[7] > 0 && levels[1] == 0, "{levels:?}");
        bench.tree.change_view(|view| {
            for level in 1..8 {
                for placed in std::mem::take(&mut view.levels[level]) {
                    let reference = SegmentReference {
                        level: if level == 7 { 2 } else { 1 },
                        ..SegmentReference::clone(&placed.reference)
                    };
                    view.add(Placed {
                        reference: Rc::new(reference),
                        ..placed
                    });
                }
            }
        });
        let partition = PARTITION;
        for level in 1..3 {
            for placed in bench.tree.view.borrow().levels[level].iter() {
                let segment = SegmentReference::clone(&placed.reference);
                let mut manifest = bench.manifest.borrow_mut();
                manifest
                    .apply(&Edit::RemoveSegment {
                        partition,
                        segment: segment.id,
                    })
                    .unwrap();
                manifest.apply(&Edit::AddSegment { partition, segment }).unwrap();
            }
        }
        bench.compact_all().await;
        let levels = bench.tree.segments_per_level();
        assert!(levels[1] == 0 && levels[2] == 0 && levels[7] > 0, "{levels:?}");
        assert_eq!(bench.everything(Direction::Backward).await.len(), 800);
    });
}

#[test]
fn a_tombstone_that_hides_nothing_dies_at_once() {
    simulate(33, 1 << 20, SMALL, async |bench, _, _| {
        for number in 0..400 {
            bench.put(&key(number), &bytes(number, 300));
        }
        bench.flush().await.unwrap();
        // Within the range of keys that the segment covers, but not among them.
        for number in 1_000..1_400 {
            bench.delete(&key(number));
        }
        bench.flush().await.unwrap();
        let tombstones: u64 = bench.manifest.borrow().partitions[&PARTITION]
            .segments
            .values()
            .map(|segment| segment.tombstones)
            .sum();
        assert!(tombstones < 12, "{tombstones} of 400 pass the filter");
    });
}

#[test]
fn ascending_keys_move_without_being_rewritten() {
    simulate(5, 1 << 20, SMALL, async |bench, _, _| {
        for round in 0..30_u64 {
            for number in 0..40 {
                bench.put(
                    format!("log#{:06}", round * 40 + number).as_bytes(),
                    &bytes(number, 600),
                );
            }
            bench.flush().await.unwrap();
            while bench.compact().await.unwrap() {}
        }
        assert_eq!(bench.stats().compacted_bytes, 0);
        assert_eq!(bench.everything(Direction::Backward).await.len(), 1_200);
    });
}

#[test]
fn replaced_and_dropped_files_go() {
    simulate(6, 1 << 20, SMALL, async |bench, drives, _| {
        let files = |drive: &DriveControl| {
            drive
                .image()
                .names()
                .filter(|name| name.starts_with("segment-"))
                .count()
        };
        for round in 0..12 {
            for number in 0..50 {
                bench.put(&key(number), &bytes(round + number, 900));
            }
            bench.flush().await.unwrap();
            bench.compact_all().await;
        }
        bench.settle().await;
        let referenced = bench.manifest.borrow().partitions[&PARTITION].segments.len();
        assert_eq!([files(&drives[0]), files(&drives[1])], [referenced; 2]);
        bench.put(&key(1), b"never");
        bench.tree.freeze();
        let prepared = bench.tree.flush(|| bench.next_segment()).await.unwrap();
        bench.tree.discard(prepared);
        bench.settle().await;
        assert_eq!(files(&drives[0]), referenced, "what is given up leaves no file");
        bench.tree.remove_all();
        bench.settle().await;
        assert_eq!([files(&drives[0]), files(&drives[1])], [0; 2]);
    });
}

#[test]
fn a_long_scan_reads_in_large_pieces() {
    simulate(7, 64 << 10, SMALL, async |mut bench, _, _| {
        for number in 0..4_000 {
            bench.put(&key(number), &bytes(number, 1_000));
        }
        bench.flush().await.unwrap();
        bench.reopen().await.unwrap();
        let before = bench.stats();
        assert_eq!(bench.everything(Direction::Forward).await.len(), 4_000);
        let after = bench.stats();
        let (reads, bytes) = (
            after.device_reads - before.device_reads,
            after.device_read_bytes - before.device_read_bytes,
        );
        assert!(bytes / reads > 100_000, "{} bytes per read", bytes / reads);
        let mut cursor = bench
            .tree
            .scan(Bound::Included(key(5)), Bound::Unbounded, Direction::Forward);
        let before = bench.stats().device_read_bytes;
        cursor.next().await.unwrap().unwrap();
        assert!(
            bench.stats().device_read_bytes - before <= 3 * 4096,
            "a short scan reads little"
        );
    });
}

/// Reads everything, by scans of a whole tree or of a few items each.
async fn scan_all(bench: &Bench, items_each: usize, direction: Direction) {
    let mut lower = Bound::Unbounded;
    loop {
        let (from, to) = match direction {
            Direction::Forward => (lower.clone(), Bound::Unbounded),
            Direction::Backward => (Bound::Unbounded, lower.clone()),
        };
        let mut cursor = bench.tree.scan(from, to, direction);
        let mut seen = 0;
        while seen < items_each
            && let Some((key, _)) = cursor.next().await.unwrap()
        {
            lower = Bound::Excluded(key);
            seen += 1;
        }
        if seen < items_each {
            return;
        }
    }
}

#[test]
fn scans_do_not_wash_out_what_point_reads_need() {
    for items_each in [3, 50, usize::MAX] {
        for direction in [Direction::Forward, Direction::Backward] {
            simulate(24, 300 << 10, SMALL, async move |mut bench, _, _| {
                for number in 0..3_000 {
                    bench.put(&key(number), &bytes(number, 900));
                }
                bench.flush().await.unwrap();
                bench.compact_all().await;
                bench.reopen().await.unwrap();
                for _ in 0..4 {
                    for hot in 0..30 {
                        bench.item(&key(hot)).await.unwrap();
                    }
                }
                scan_all(&bench, items_each, direction).await;
                let cached = (0..30)
                    .filter(|hot| bench.tree.get_cached(&key(*hot)).is_some())
                    .count();
                assert!(
                    cached >= 26,
                    "{cached} of 30 after scans of {items_each} items {direction:?}"
                );
            });
        }
    }
}

#[test]
fn a_long_scan_and_a_compaction_read_ahead() {
    for direction in [Direction::Forward, Direction::Backward] {
        simulate(25, 64 << 10, SMALL, async move |mut bench, _, _| {
            for number in 0..4_000 {
                bench.put(&key(number), &bytes(number, 1_000));
            }
            bench.flush().await.unwrap();
            bench.reopen().await.unwrap();
            let mut cursor = bench.tree.scan(Bound::Unbounded, Bound::Unbounded, direction);
            for _ in 0..300 {
                cursor.next().await.unwrap().unwrap();
            }
            let before = bench.stats().device_read_bytes;
            bench.settle().await;
            cursor.next().await.unwrap().unwrap();
            bench.settle().await;
            assert!(
                bench.stats().device_read_bytes - before <= 300 << 10,
                "one window at most is read beyond what is used"
            );
            let mut left = 301;
            while cursor.next().await.unwrap().is_some() {
                left += 1;
            }
            assert_eq!(left, 4_000);
        });
    }
}

#[test]
fn a_query_skips_segments_without_its_partition_key() {
    simulate(26, 1 << 20, SMALL, async |mut bench, _, _| {
        let of = |user: u64, order: u64| {
            [
                &key(user)[..],
                &[0, 1],
                format!("order#{order:04}").as_bytes(),
                &[0, 1],
            ]
            .concat()
        };
        // Twenty flushes that are not compacted: each user is in one of them, its keys between those of the others.
        for flush in 0..20 {
            for user in 0..10 {
                for order in 0..5 {
                    bench.put(&of(flush * 10 + user, order), &bytes(order, 400));
                }
            }
            bench.flush().await.unwrap();
        }
        bench.reopen().await.unwrap();
        let before = bench.stats();
        for user in 0..200 {
            for direction in [Direction::Forward, Direction::Backward] {
                let mut cursor = bench.tree.scan(
                    Bound::Included(of(user, 0)),
                    Bound::Included(of(user, 9)),
                    direction,
                );
                let mut seen = 0;
                while cursor.next().await.unwrap().is_some() {
                    seen += 1;
                }
                assert_eq!(seen, 5);
            }
        }
        let after = bench.stats();
        let skipped = after.segments_skipped - before.segments_skipped;
        // Of 19 segments without the user, some end before it or begin behind it.
        assert!(
            skipped > 400 * 15,
            "{skipped} of {} segments are skipped",
            400 * 19
        );
        let mut cursor = bench.tree.scan(
            Bound::Included(of(1_000, 0)),
            Bound::Included(of(1_000, 9)),
            Direction::Forward,
        );
        let before = bench.stats().device_reads;
        assert!(cursor.next().await.unwrap().is_none());
        assert!(
            bench.stats().device_reads - before <= 2,
            "a miss reads next to nothing"
        );
    });
}

#[test]
fn an_empty_tree_costs_little() {
    simulate(8, 1 << 20, SMALL, async |bench, drives, _| {
        assert!(
            size_of::<Tree<SimRuntime>>() + size_of::<View<SimRuntime>>() + size_of::<Memtable>() < 1_024
        );
        bench.flush().await.unwrap();
        assert_eq!(drives[0].image().names().count(), 0);
        assert_eq!(bench.everything(Direction::Backward).await.len(), 0);
        assert!(!bench.compact().await.unwrap());
        assert_eq!(bench.tree.compaction_debt(), 0);
    });
}

#[test]
fn a_file_can_be_looked_into_without_its_manifest() {
    simulate(12, 1 << 20, SMALL, async |bench, drives, _| {
        for number in 0..50 {
            bench.put(&key(number), &bytes(number, 1_000));
        }
        bench.delete(&key(50));
        bench.flush().await.unwrap();
        let first = DriveIndex::new(0).unwrap();
        let drive = bench.runtime.drive(Path::new(PATHS[0]), false).await.unwrap();
        let known = bench.manifest.borrow().partitions[&PARTITION]
            .segments
            .values()
            .next()
            .unwrap()
            .clone();
        // What was deleted was never there, but the segment could not know.
        let name = segment_file_name(known.id);
        let found = reference_of_file(&drive, first, &name, &TableKeys::default())
            .await
            .unwrap();
        assert_eq!(
            found,
            SegmentReference {
                mirrors: [first].into_iter().collect(),
                ..known.clone()
            }
        );
        let store = StoreConfig {
            node: NodeId(3),
            mirrors: 1,
            cache_bytes: 0,
            item_cache_eighths: 0,
            open_files_max: 2,
        };
        let store = SegmentStore::new(
            bench.runtime.clone(),
            store,
            &[(first, drive.clone())],
            bench.watch.clone(),
        );
        let segment = store.open(&found).await.unwrap();
        let mut seen = Vec::new();
        let mut see = |key: &[u8], version: &Version| seen.push((key.to_vec(), version.item.to_vec()));
        segment.for_each_version(&mut see).await.unwrap();
        assert!(seen == bench.everything(Direction::Forward).await);
        assert_eq!(segment.verify().await, []);
        let whole = drives[0].image().read(&name).unwrap();
        let mut walked = Vec::new();
        let mut blocks = 0;
        let mut see = |piece: Piece<'_>| match piece {
            Piece::Header(header) => assert_eq!(header.id, known.id),
            Piece::Footer(footer) => assert_eq!(footer.entries, known.entries),
            Piece::Block { .. } => blocks += 1,
            Piece::Version { key, version } => walked.push((key.to_vec(), version.item.to_vec())),
        };
        walk(&whole, &mut see).unwrap();
        assert!(walked == seen && blocks > 5);
        for unit in 0..whole.len() / 4_096 {
            let mut bad = whole.clone();
            bad[unit * 4_096 + unit * 31 % 4_096] ^= 4;
            assert!(walk(&bad, &mut |_| ()).is_err(), "unit {unit}");
            assert!(walk(&whole[..unit * 4_096], &mut |_| ()).is_err());
        }
        drives[0].flip_bit(&name, 4_096 + 300, 1);
        let damages = segment.verify().await;
        assert!(
            damages.len() == 1 && damages[0].offset == 4_096 && damages[0].lost,
            "{damages:?}"
        );
        let damages = bench.tree.segments()[0].verify().await;
        assert!(damages.len() == 1 && !damages[0].lost, "{damages:?}");
        bench.settle().await;
        assert_eq!(bench.stats().repairs, 0, "looking changes nothing");
        for bad in ["segment-1", "segment-00000000000000zz", "log-1"] {
            assert!(
                reference_of_file(&drive, first, bad, &TableKeys::default())
                    .await
                    .is_err()
            );
        }
    });
}

#[test]
fn filters_and_index_tops_come_out_of_the_cache_budget() {
    for budget in [1 << 20, 16 << 10] {
        simulate(41, budget, SMALL, async move |bench, _, _| {
            let step = budget / 64;
            // At most what it is to be, and not two steps less.
            let is_near = |bytes: u64, wanted: u64| bytes <= wanted && wanted < bytes + 2 * step;
            let check = |bench: &Bench| {
                let resident = bench.stats().resident_bytes;
                assert!(resident > 0);
                let store = bench.context.store();
                let (blocks, items) = (store.cache().budget_bytes(), store.items().budget_bytes());
                let half = budget.saturating_sub(resident) / 2;
                assert!(is_near(blocks, half.max(budget / 8)), "{blocks}, {resident}");
                assert!(is_near(items, half.max(step)), "{items}, {resident}");
                blocks
            };
            let mut least = budget;
            for round in 0..12 {
                for number in 0..2_000 {
                    bench.put(&key(number), &bytes(number + round, 10));
                }
                bench.flush().await.unwrap();
                least = least.min(check(&bench));
            }
            assert_eq!(least == budget / 8, budget < 1 << 20, "{least}");
            bench.compact_all().await;
            bench.settle().await;
            check(&bench);
        });
    }
}
