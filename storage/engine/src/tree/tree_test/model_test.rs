//! Random operations against a map of all versions.

use std::collections::BTreeMap;

use cairn_runtime::sim::Random;

use super::items_test::begun;
use super::*;

/// Reads that wait for a drive while other things happen.
const WAITING_MAX: usize = 6;

type Versions = BTreeMap<u64, Option<Vec<u8>>>;

#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Versions>,
    snapshots: Vec<u64>,
}

impl Model {
    fn set(&mut self, key: &[u8], commit: CommitTimestamp, item: Option<Vec<u8>>) {
        self.keys.entry(key.to_vec()).or_default().insert(commit.0, item);
    }

    fn get(&self, key: &[u8], as_of: u64) -> Option<Vec<u8>> {
        self.keys.get(key)?.range(..=as_of).next_back()?.1.clone()
    }

    fn range(&self, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>, as_of: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let range = KeyRange { lower, upper };
        if range.is_empty() {
            return Vec::new();
        }
        let keys = self.keys.range((range.lower, range.upper)).map(|(key, _)| key);
        keys.filter_map(|key| Some((key.clone(), self.get(key, as_of)?)))
            .collect()
    }
}

fn some_key(random: &mut Random) -> Vec<u8> {
    match random.below(4) {
        0 => key(random.below(40)),
        // One item collection with a long shared prefix.
        1 => [key(1_000), format!("order#{:03}", random.below(60)).into_bytes()].concat(),
        // Short keys that are prefixes of each other.
        2 => vec![1; 1 + random.index(6)],
        _ => bytes(random.below(30), 3 + random.index(2)),
    }
}

fn some_item(random: &mut Random) -> Vec<u8> {
    let length = match random.below(20) {
        0 => 0,
        1 => 30_000 + random.index(40_000),
        2..=5 => 2_000 + random.index(4_000),
        6..=12 => 900 + random.index(400),
        _ => random.index(80),
    };
    let item = if random.one_in(3) { bytes } else { text };
    item(random.next_u64(), length)
}

fn some_bound(random: &mut Random) -> Bound<Vec<u8>> {
    match random.below(5) {
        0 => Bound::Unbounded,
        1 | 2 => Bound::Included(some_key(random)),
        _ => Bound::Excluded(some_key(random)),
    }
}

async fn check_scan(bench: &Bench, model: &Model, random: &mut Random, as_of: u64) {
    let (lower, upper) = (some_bound(random), some_bound(random));
    let expected = model.range(lower.clone(), upper.clone(), as_of);
    for direction in [Direction::Forward, Direction::Backward] {
        let mut cursor =
            bench
                .tree
                .scan_as_of(lower.clone(), upper.clone(), direction, CommitTimestamp(as_of));
        let mut found = Vec::new();
        while let Some((key, version)) = cursor.next().await.unwrap() {
            assert_eq!(version.item_bytes as usize, version.item.len());
            found.push((key, version.item.to_vec()));
        }
        if direction == Direction::Backward {
            found.reverse();
        }
        let keys =
            |items: &[(Vec<u8>, Vec<u8>)]| items.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&found), keys(&expected), "{direction:?} {lower:?} {upper:?}");
        assert!(found == expected);
    }
}

async fn run(mut bench: Bench, seed: u64) {
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let mut waiting = Vec::new();
    for _ in 0..900 {
        let key = some_key(&mut random);
        // A read answers what was there when it began, whatever has been written, flushed and compacted meanwhile, and what it
        // found does not come back afterwards.
        if random.one_in(6)
            && let Some(read) = begun(&bench, &key).await
        {
            waiting.push((read, model.get(&key, u64::MAX)));
        }
        if waiting.len() > WAITING_MAX || !waiting.is_empty() && random.one_in(12) {
            let (read, expected) = waiting.swap_remove(random.index(waiting.len()));
            let found = read.await.unwrap().filter(|version| !version.is_tombstone());
            assert_eq!(found.map(|version| version.item.to_vec()), expected);
        }
        match random.below(100) {
            0..45 => {
                let item = some_item(&mut random);
                let commit = bench.put(&key, &item);
                model.set(&key, commit, Some(item));
            }
            45..58 => {
                let commit = bench.delete(&key);
                model.set(&key, commit, None);
            }
            58..76 => {
                let as_of = random.below(3).checked_sub(1).and_then(|_| {
                    (!model.snapshots.is_empty())
                        .then(|| model.snapshots[random.index(model.snapshots.len())])
                });
                let found = bench
                    .tree
                    .get_as_of(&key, as_of.map_or(NEWEST, CommitTimestamp))
                    .await
                    .unwrap();
                let found = found.filter(|version| !version.is_tombstone());
                let found = found.map(|version| version.item.to_vec());
                assert_eq!(found, model.get(&key, as_of.unwrap_or(u64::MAX)));
                if let Some(cached) = bench.tree.get_cached(&key) {
                    let cached = cached.unwrap().filter(|version| !version.is_tombstone());
                    assert_eq!(
                        cached.map(|version| version.item.to_vec()),
                        model.get(&key, u64::MAX)
                    );
                }
            }
            76..82 => check_scan(&bench, &model, &mut random, u64::MAX).await,
            82..85 => {
                if let Some(snapshot) = model.snapshots.first().copied() {
                    check_scan(&bench, &model, &mut random, snapshot).await;
                }
            }
            85..90 => bench.flush().await.unwrap(),
            90..95 => drop(bench.compact().await.unwrap()),
            95 | 96 => {
                if model.snapshots.len() < 3 {
                    let snapshot = bench.commit.get();
                    model.snapshots.push(snapshot);
                    bench.context.open_snapshot(CommitTimestamp(snapshot));
                } else {
                    let snapshot = model.snapshots.remove(random.index(3));
                    bench.context.close_snapshot(CommitTimestamp(snapshot));
                }
            }
            97 => {
                bench.flush().await.unwrap();
                waiting.clear();
                bench.reopen().await.unwrap();
                for snapshot in &model.snapshots {
                    bench.context.open_snapshot(CommitTimestamp(*snapshot));
                }
            }
            _ => bench.tree.freeze(),
        }
    }
    drop(waiting);
    bench.flush().await.unwrap();
    bench.compact_all().await;
    check_scan(&bench, &model, &mut random, u64::MAX).await;
    let all = model.range(Bound::Unbounded, Bound::Unbounded, u64::MAX);
    assert!(bench.everything(Direction::Forward).await == all);
    assert!(bench.everything(Direction::Backward).await == all);
    for (key, item) in all {
        assert_eq!(bench.item(&key).await, Some(item));
    }
    for segment in bench.tree.segments() {
        assert_eq!(segment.scrub().await, []);
    }
}

#[test]
fn the_tree_is_a_map_of_versions() {
    for seed in 0..24 {
        // A cache that holds everything, and one that holds nearly nothing.
        let cache_bytes = if seed % 2 == 0 { 8 << 20 } else { 16 << 10 };
        let compression = [Compression::Lz4, Compression::Zstd, Compression::None][seed as usize / 2 % 3];
        let config = CompactionConfig { compression, ..SMALL };
        simulate(seed, cache_bytes, config, async move |bench, _, _| {
            run(bench, seed).await
        });
    }
}

#[test]
fn a_scan_is_stable_under_flush_and_compaction() {
    for direction in [Direction::Forward, Direction::Backward] {
        simulate(3, 64 << 10, SMALL, async move |bench, _, _| {
            for number in 0..300 {
                bench.put(&key(number), &bytes(number, 700));
                if number % 50 == 49 {
                    bench.flush().await.unwrap();
                }
            }
            bench.put(&key(7), b"new");
            let mut expected: Vec<_> = (0..300).map(|number| (key(number), bytes(number, 700))).collect();
            expected[7].1 = b"new".to_vec();
            expected.sort();
            let mut cursor = bench.tree.scan(Bound::Unbounded, Bound::Unbounded, direction);
            let mut found = Vec::new();
            while let Some((found_key, version)) = cursor.next().await.unwrap() {
                found.push((found_key, version.item.to_vec()));
                if found.len() % 20 == 0 {
                    bench.flush().await.unwrap();
                    bench.compact().await.unwrap();
                    // Written after the scan began and outside of what it has: must not disturb it.
                    bench.put(&[&[2], &key(found.len() as u64)[..]].concat(), b"later");
                    bench.settle().await;
                }
            }
            found.retain(|(key, _)| key[0] == 1);
            found.sort();
            assert!(found == expected);
            drop(cursor);
            bench.compact_all().await;
            bench.settle().await;
            bench.context.store().sweep().await;
            let stats = bench.stats();
            assert_eq!(
                stats.segments_obsolete, 0,
                "nothing is kept for a reader that is gone"
            );
            let referenced = bench.manifest.borrow().partitions[&PARTITION].segments.len() as u64;
            assert_eq!(stats.segments_open, referenced);
        });
    }
}

#[test]
fn references_clip_what_a_partition_sees() {
    simulate(4, 1 << 20, SMALL, async |mut bench, _, _| {
        for number in 0..100_u64 {
            bench.put(format!("k{number:02}").as_bytes(), &bytes(number, 500));
        }
        bench.flush().await.unwrap();
        let clip = |bench: &Bench| {
            let mut manifest = bench.manifest.borrow_mut();
            let state = manifest.partitions.get_mut(&PARTITION).unwrap();
            for segment in state.segments.values_mut() {
                segment.clip_lower = Some(b"k20".to_vec());
                segment.clip_upper = Some(b"k60".to_vec());
            }
        };
        clip(&bench);
        bench.reopen().await.unwrap();
        let keys = |items: Vec<(Vec<u8>, Vec<u8>)>| items.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let expected: Vec<_> = (20..60)
            .map(|number| format!("k{number:02}").into_bytes())
            .collect();
        assert_eq!(keys(bench.everything(Direction::Forward).await), expected);
        assert_eq!(keys(bench.everything(Direction::Backward).await), expected);
        assert_eq!(bench.item(b"k19").await, None);
        assert!(bench.item(b"k20").await.is_some());
        assert!(bench.item(b"k59").await.is_some());
        assert_eq!(bench.item(b"k60").await, None);
        // What is beyond the clip is not carried on by a compaction.
        for round in 0..3 {
            bench.put(format!("k{}", 30 + round).as_bytes(), b"new");
            bench.flush().await.unwrap();
        }
        bench.compact_all().await;
        let segments = bench.manifest.borrow().partitions[&PARTITION].segments.clone();
        assert!(
            segments
                .values()
                .all(|segment| segment.first_key.as_slice() >= &b"k20"[..])
        );
        assert_eq!(keys(bench.everything(Direction::Forward).await), expected);
    });
}

#[test]
fn provenance_survives_segments() {
    use crate::mutation::{OriginTimestamp, Provenance, RegionId, TransactionId};
    simulate(5, 1 << 20, SMALL, async |bench, _, _| {
        let cases = [
            Provenance::default(),
            Provenance {
                timestamp: OriginTimestamp(9),
                ..Provenance::default()
            },
            Provenance {
                region: RegionId(8),
                ..Provenance::default()
            },
            Provenance {
                transaction: TransactionId(7),
                ..Provenance::default()
            },
            Provenance {
                timestamp: OriginTimestamp(1),
                region: RegionId(2),
                transaction: TransactionId(u128::MAX),
            },
        ];
        for (number, provenance) in (1..).zip(cases) {
            let version = Version::put(CommitTimestamp(number), 77, &b"item"[..]).with_provenance(provenance);
            bench.tree.insert(&key(number), version, LogSequence(1));
        }
        bench.flush().await.unwrap();
        for (number, provenance) in (1..).zip(cases) {
            let version = bench.tree.get(&key(number)).await.unwrap().unwrap();
            assert_eq!(
                (version.commit, version.item_bytes),
                (CommitTimestamp(number), 77)
            );
            assert_eq!(
                version.provenance.as_deref().copied().unwrap_or_default(),
                provenance
            );
            assert_eq!(&*version.item, b"item");
        }
    });
}
