//! The cache of items: what it saves, and that it is never behind.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::*;

type Read = Pin<Box<dyn Future<Output = Result<Option<Version>, TreeError>>>>;

/// A read of a key that waits for a drive, and goes on when it is awaited.
pub(super) async fn begun(bench: &Bench, key: &[u8]) -> Option<Read> {
    let (tree, key) = (Rc::clone(&bench.tree), key.to_vec());
    let mut read: Read = Box::pin(async move { tree.get(&key).await });
    let waits = poll_fn(|context| Poll::Ready(read.as_mut().poll(context).is_pending())).await;
    waits.then_some(read)
}

fn hits(bench: &Bench) -> u64 {
    bench.stats().item_hits
}

/// Whether the cache of items answers for a key.
fn is_kept(bench: &Bench, key: &[u8]) -> bool {
    let before = hits(bench);
    drop(bench.tree.get_cached(key));
    hits(bench) > before
}

/// A tree of 300 items in segments, nothing of which is cached.
async fn filled(bench: &mut Bench) {
    for number in 0..300 {
        bench.put(&key(number), &bytes(number, 900));
    }
    bench.flush().await.unwrap();
    bench.reopen().await.unwrap();
}

#[test]
fn what_was_read_outlives_a_compaction_and_an_overwrite() {
    simulate(61, 1 << 20, SMALL, async |mut bench, _, _| {
        filled(&mut bench).await;
        for number in 0..20 {
            bench.item(&key(number)).await.unwrap();
        }
        assert_eq!(bench.stats().item_misses, 20);
        for number in 0..10 {
            bench.put(&key(number), &bytes(number + 500, 700));
        }
        bench.delete(&key(10));
        for _ in 0..3 {
            bench.put(&key(1_000), b"another");
            bench.flush().await.unwrap();
        }
        bench.compact_all().await;
        bench.settle().await;
        let before = bench.stats();
        for number in 0..20 {
            let expected = match number {
                0..10 => Some(bytes(number + 500, 700)),
                10 => None,
                _ => Some(bytes(number, 900)),
            };
            assert_eq!(bench.item(&key(number)).await, expected);
        }
        let after = bench.stats();
        assert_eq!(after.item_hits - before.item_hits, 19);
        assert_eq!(after.item_misses, before.item_misses);
        assert!(after.device_reads <= before.device_reads + 2);
        assert!(after.item_cache_bytes > 19 * 700);
    });
}

#[test]
fn what_is_large_or_scanned_or_read_as_of_a_time_is_not_kept() {
    simulate(62, 4 << 20, SMALL, async |mut bench, _, _| {
        bench.put(&key(1_000), &bytes(1, CACHED_ITEM_BYTES_MAX + 1));
        bench.put(&key(1_001), &bytes(1, CACHED_ITEM_BYTES_MAX));
        filled(&mut bench).await;
        let at = CommitTimestamp(bench.commit.get());
        assert_eq!(bench.everything(Direction::Forward).await.len(), 302);
        assert!(bench.tree.get_as_of(&key(3), at).await.unwrap().is_some());
        assert!(bench.tree.get_as_of(&key(3), NEWEST).await.unwrap().is_some());
        bench.item(&key(1_000)).await.unwrap();
        bench.tree.get(&key(5_000)).await.unwrap();
        assert_eq!(bench.stats().item_cache_bytes, 0);
        bench.item(&key(1_001)).await.unwrap();
        assert!(is_kept(&bench, &key(1_001)));
    });
}

#[test]
fn a_read_that_a_write_and_a_flush_overtake_keeps_nothing() {
    // What happens while the read waits.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Meanwhile {
        Nothing,
        Written,
        Frozen,
        Flushed,
        Compacted,
        Deleted,
        DeletedAndCompacted,
        Dropped,
    }
    use Meanwhile::*;
    for meanwhile in [
        Nothing,
        Written,
        Frozen,
        Flushed,
        Compacted,
        Deleted,
        DeletedAndCompacted,
        Dropped,
    ] {
        simulate(63, 1 << 20, SMALL, async move |mut bench, _, _| {
            filled(&mut bench).await;
            let asked = key(7);
            let old = bytes(7, 900);
            let read = begun(&bench, &asked).await.expect("nothing is cached");
            match meanwhile {
                Nothing | Dropped => {}
                Deleted | DeletedAndCompacted => drop(bench.delete(&asked)),
                Written | Frozen | Flushed | Compacted => drop(bench.put(&asked, b"new")),
            }
            match meanwhile {
                Nothing | Written => {}
                Frozen => bench.tree.freeze(),
                Flushed | Deleted => bench.flush().await.unwrap(),
                Compacted | DeletedAndCompacted => {
                    for _ in 0..3 {
                        bench.flush().await.unwrap();
                        bench.put(&key(1_000), b"another");
                    }
                    bench.flush().await.unwrap();
                    bench.compact_all().await;
                }
                Dropped => bench.tree.remove_all(),
            }
            let found = read.await.unwrap().unwrap();
            assert_eq!(
                *found.item, *old,
                "{meanwhile:?}: it reads what was there when it began"
            );
            let kept = bench.stats().item_cache_bytes > 0;
            assert_eq!(kept, meanwhile == Nothing, "{meanwhile:?}");
            // Whatever the memtables still hide comes to light.
            if meanwhile != Dropped {
                bench.flush().await.unwrap();
            }
            let now = match meanwhile {
                Nothing => Some(old),
                Written | Frozen | Flushed | Compacted => Some(b"new".to_vec()),
                Deleted | DeletedAndCompacted | Dropped => None,
            };
            assert_eq!(bench.item(&asked).await, now, "{meanwhile:?}");
            assert_eq!(bench.item(&asked).await, now, "{meanwhile:?}");
        });
    }
}

#[test]
fn a_dropped_tree_is_not_answered_for() {
    simulate(64, 1 << 20, SMALL, async |mut bench, _, _| {
        filled(&mut bench).await;
        bench.item(&key(7)).await.unwrap();
        assert!(is_kept(&bench, &key(7)));
        bench.tree.remove_all();
        assert!(!is_kept(&bench, &key(7)));
        assert_eq!(bench.item(&key(7)).await, None);
        // Nor is another of the same partition.
        bench.tree = Rc::new(Tree::new(&bench.context, &descriptor()));
        assert_eq!(bench.item(&key(7)).await, None);
    });
}

#[test]
fn what_is_trimmed_is_neither_answered_nor_kept() {
    simulate(65, 1 << 20, SMALL, async |mut bench, _, _| {
        for number in 0..300_u64 {
            bench.put(&[&[7][..], &number.to_be_bytes()].concat(), &bytes(number, 900));
        }
        filled(&mut bench).await;
        let record = |number: u64| [&[7][..], &number.to_be_bytes()].concat();
        for number in [5, 200] {
            bench.item(&record(number)).await.unwrap();
            assert!(is_kept(&bench, &record(number)));
        }
        bench.tree.trim(vec![7], record(100));
        assert!(!is_kept(&bench, &record(5)) && is_kept(&bench, &record(200)));
        drop(bench.item(&record(6)).await);
        assert!(!is_kept(&bench, &record(6)));
        for _ in 0..8 {
            bench.put(&key(1), b"another");
            bench.put(&record(400), b"another");
            bench.flush().await.unwrap();
        }
        bench.compact_all().await;
        assert_eq!(bench.item(&record(5)).await, None);
        assert_eq!(bench.item(&record(200)).await, Some(bytes(200, 900)));
    });
}

#[test]
fn items_that_are_asked_for_take_less_room_than_their_blocks() {
    simulate(66, 600 << 10, SMALL, async |mut bench, _, _| {
        for number in 0..4_000 {
            bench.put(&key(number), &bytes(number, 900));
        }
        bench.flush().await.unwrap();
        bench.compact_all().await;
        bench.reopen().await.unwrap();
        // One item of every fourteenth: their blocks would take 1.2 MB.
        for _ in 0..6 {
            for number in (0..4_000).step_by(20) {
                bench.item(&key(number)).await.unwrap();
            }
        }
        let before = bench.stats();
        for number in (0..4_000).step_by(20) {
            bench.item(&key(number)).await.unwrap();
        }
        let reads = bench.stats().device_reads - before.device_reads;
        assert!(reads < 20, "{reads} reads for 200 hot items");
    });
}

#[test]
fn reads_of_what_is_eight_times_the_cache_cost_one_drive_read() {
    simulate(67, 900 << 10, SMALL, async |mut bench, _, _| {
        const ITEMS: u64 = 8_000;
        const GETS: u64 = 12_000;
        for number in 0..ITEMS {
            bench.put(&key(number), &bytes(number, 900));
            if number % 1_000 == 999 {
                bench.flush().await.unwrap();
            }
        }
        bench.compact_all().await;
        bench.reopen().await.unwrap();
        let mut random = cairn_runtime::sim::Random::new(67);
        let mut get = async || {
            let number = random.below(ITEMS);
            assert!(bench.tree.get(&key(number)).await.unwrap().is_some());
        };
        for _ in 0..GETS {
            get().await;
        }
        let before = bench.stats().device_reads;
        for _ in 0..GETS {
            get().await;
        }
        let reads = bench.stats().device_reads - before;
        println!("{reads} reads for {GETS} gets, {:?}", bench.stats());
        assert!(reads * 10 <= GETS * 11, "{reads} reads for {GETS} gets");
    });
}
