//! Keys that nobody reads any more go without being deleted.

use super::*;

/// The key of a record: behind all items, in the order of the numbers.
fn record(number: u64) -> Vec<u8> {
    [&[7][..], &number.to_be_bytes()].concat()
}

fn records(from: u64, to: u64) -> Vec<Vec<u8>> {
    (from..to).map(record).collect()
}

async fn keys_of_records(bench: &Bench) -> Vec<Vec<u8>> {
    let everything = bench.everything(Direction::Forward).await;
    let keys = everything.into_iter().map(|(key, _)| key);
    keys.filter(|key| key[0] == 7).collect()
}

#[test]
fn what_is_trimmed_goes_and_nothing_else() {
    simulate(71, 1 << 20, SMALL, async |mut bench, _, _| {
        for number in 0..3_000 {
            bench.put(&key(number % 400), &bytes(number, 300));
            bench.put(&record(number), &bytes(number, 500));
            if number % 250 == 249 {
                bench.flush().await.unwrap();
                bench.compact_all().await;
            }
        }
        let items: Vec<_> = bench.everything(Direction::Forward).await;
        let whole = bench.tree.space();
        assert_eq!(keys_of_records(&bench).await, records(0, 3_000));

        // Most of it is in segments of its own, which go without a byte being written.
        let written = bench.stats().compacted_bytes;
        bench.tree.trim(vec![7], record(2_000));
        assert!(bench.tree.compaction_debt() > 0);
        bench.compact_all().await;
        bench.settle().await;
        let left = bench.tree.space();
        assert!(left.bytes < whole.bytes / 2, "{left:?} of {whole:?}");
        assert!(
            bench.stats().compacted_bytes < written + (300 << 10),
            "little is rewritten"
        );
        let kept = keys_of_records(&bench).await;
        assert!(kept.ends_with(&records(2_000, 3_000)));
        assert!(kept.len() < 1_500, "{}", kept.len());

        // What is left of it goes with merges, and what is flushed now is not written at all.
        let late = [record(5), vec![1]].concat();
        bench.put(&late, b"late");
        for number in 0..1_200 {
            bench.put(&key(number % 400), &bytes(number, 300));
            if number % 100 == 99 {
                bench.flush().await.unwrap();
            }
        }
        assert_eq!(bench.item(&late).await, None);
        bench.tree.trim(vec![7], record(2_990));
        bench.compact_all().await;
        bench.reopen().await.unwrap();
        let kept = keys_of_records(&bench).await;
        assert!(kept.ends_with(&records(2_990, 3_000)));
        let now = bench.everything(Direction::Forward).await;
        let count = |all: &[(Vec<u8>, Vec<u8>)]| all.iter().filter(|(key, _)| key[0] != 7).count();
        assert_eq!(count(&now), count(&items));
    });
}

#[test]
fn a_memtable_of_what_is_trimmed_leaves_no_file() {
    simulate(72, 1 << 20, SMALL, async |bench, _, _| {
        for number in 0..100 {
            bench.put(&record(number), b"record");
        }
        bench.tree.trim(vec![7], record(100));
        bench.flush().await.unwrap();
        assert_eq!(bench.tree.space(), TreeSpace::default());
        assert_eq!(bench.tree.compaction_debt(), 0);
        bench.put(&record(100), b"record");
        bench.flush().await.unwrap();
        assert_eq!(keys_of_records(&bench).await, records(100, 101));
    });
}
