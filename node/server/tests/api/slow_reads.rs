//! Transactions that read while others write, where a read takes longer than a transaction that writes.
//!
//! The two sides of a pair are asked for among items of the same partition that only drives hold, so that time passes between the reads of
//! one look, and between the two looks. Meanwhile a writer makes of the one side the other, again and again. Whatever a read shows, exactly
//! one side exists.
//!
//! The test proves itself: two bugs put into TransactGetItems are found by it. The first shows the sides at two moments; the second takes
//! one that has come and gone between the looks for one that was never there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use cairn::api::Service;
use cairn::node::Canary;
use cairn_runtime::Runtime;
use cairn_runtime::sim::SimRuntime;
use serde_json::{Value, json};

use crate::Machine;
use crate::serializable::{Chance, call};

/// Items that only drives hold, and their bytes: each fills a block.
const COLD: usize = 120;
const COLD_BYTES: usize = 3_500;
/// Of them, those read before, between and behind the others: together more than the cache holds.
const GAP: usize = 14;
/// Memory of the node in bytes, of which half is cache.
const MEMORY_BYTES: u64 = 192 << 10;
const READS: usize = 12;
/// Longest pause of the writer; a swap takes about 700 us.
const PAUSE_US_MAX: usize = 2_500;

#[derive(Default)]
struct Seen {
    reads: Cell<usize>,
    refused: Cell<usize>,
    reader_is_done: Cell<bool>,
    writer_is_done: Cell<bool>,
    wrong: RefCell<Option<String>>,
}

fn key(name: &str) -> Value {
    json!({ "pk": { "S": "all" }, "sk": { "S": name } })
}

fn get(name: &str) -> Value {
    json!({ "Get": { "TableName": "things", "Key": key(name) } })
}

fn cold(number: usize) -> String {
    format!("cold-{number}")
}

async fn write(service: &Service<SimRuntime>, items: Value) -> bool {
    match call(service, "TransactWriteItems", &json!({ "TransactItems": items })).await {
        Ok(_) => true,
        Err(error) => {
            let expected = [
                "ProvisionedThroughputExceededException",
                "ServiceUnavailableException",
            ];
            assert!(expected.contains(&error.name()), "{error}");
            false
        }
    }
}

/// Makes of the one side the other until the reader has ended.
async fn swap(service: Service<SimRuntime>, chance: Chance, seen: Rc<Seen>) {
    let mut from = 0;
    while !seen.reader_is_done.get() {
        let sides = [from, 1 - from].map(|side| format!("side-{side}"));
        let items = json!([
            { "Delete": { "TableName": "things", "Key": key(&sides[0]) } },
            { "Put": { "TableName": "things", "Item": key(&sides[1]) } },
        ]);
        if write(&service, items).await {
            from = 1 - from;
        }
        let pause = Duration::from_micros(chance.below(PAUSE_US_MAX) as u64);
        service.runtime().sleep(pause).await;
    }
    seen.writer_is_done.set(true);
}

async fn read(service: Service<SimRuntime>, chance: Chance, seen: Rc<Seen>) {
    for _ in 0..READS {
        let first = chance.below(COLD);
        let gap = |place: usize| (0..GAP).map(move |number| cold((first + place * GAP + number) % COLD));
        let mut names: Vec<String> = gap(0).collect();
        names.push("side-0".to_owned());
        names.extend(gap(1));
        names.push("side-1".to_owned());
        names.extend(gap(2));
        let gets: Vec<Value> = names.iter().map(|name| get(name)).collect();
        match call(&service, "TransactGetItems", &json!({ "TransactItems": gets })).await {
            Ok(answer) => {
                let item = |place: usize| &answer["Responses"][place]["Item"];
                let (one, other) = (item(GAP), item(2 * GAP + 1));
                if one.is_null() == other.is_null() {
                    let wrong = format!("no moment had these: {one} {other}");
                    seen.wrong.borrow_mut().get_or_insert(wrong);
                }
                seen.reads.set(seen.reads.get() + 1);
            }
            Err(error) => {
                assert_eq!(error.name(), "TransactionCanceledException", "{error}");
                seen.refused.set(seen.refused.get() + 1);
            }
        }
    }
    seen.reader_is_done.set(true);
}

fn run(seed: u64, canary: Canary) -> Rc<Seen> {
    let chance = Chance::new(seed);
    let machine = Machine::configured(seed, 1 + chance.below(2), move |config| {
        config.memory_bytes = MEMORY_BYTES;
        config.canary = canary;
    });
    machine.create("things", &[("pk", "S"), ("sk", "S")]);
    let text = "x".repeat(COLD_BYTES);
    for number in 0..COLD {
        let mut item = key(&cold(number));
        item["text"] = json!({ "S": text });
        machine.ok(
            "PutItem",
            &json!({ "TableName": "things", "Item": item }).to_string(),
        );
    }
    let first = json!({ "TableName": "things", "Item": key("side-0") });
    machine.ok("PutItem", &first.to_string());

    let seen = Rc::new(Seen::default());
    let (chances, seens) = ([chance.clone(), chance], [Rc::clone(&seen), Rc::clone(&seen)]);
    let ([of_reader, of_writer], [seen_by_reader, seen_by_writer]) = (chances, seens);
    machine.spawn(async move |service| read(service, of_reader, seen_by_reader).await);
    machine.spawn(async move |service| swap(service, of_writer, seen_by_writer).await);
    while !(seen.reader_is_done.get() && seen.writer_is_done.get()) {
        assert!(machine.sim.step(), "seed {seed}: nothing happens any more");
    }
    seen
}

#[test]
fn slow_reads_show_one_moment() {
    let (mut reads, mut refused) = (0, 0);
    for seed in 0..12 {
        let seen = run(seed, Canary::None);
        assert_eq!(*seen.wrong.borrow(), None, "seed {seed}");
        reads += seen.reads.get();
        refused += seen.refused.get();
    }
    eprintln!("{reads} reads, {refused} refused");
    assert!(reads > 10 && refused > 10, "{reads} reads, {refused} refused");
}

#[test]
fn bugs_put_into_reads_are_found() {
    for (canary, seeds) in [(Canary::NoSecondLook, 10), (Canary::NoGreatestDelete, 60)] {
        let found = (0..seeds).find(|seed| run(*seed, canary).wrong.borrow().is_some());
        eprintln!("{canary:?}: seed {found:?}");
        assert!(found.is_some(), "{canary:?} was not found in {seeds} seeds");
    }
}
