//! Many updates of one key at once.
//!
//! Each is evaluated against the newest proposed state, not the newest durable one, so that as many as there are share a
//! commit, and none is lost. `Machine::log_batches` counts the commits.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use cairn_runtime::sim::SimRuntime;
use cairn_runtime::{Queue, Runtime, ShardIndex};

use crate::{Machine, NODE};

const ADD: &str = r#"{"TableName":"hot","Key":{"id":{"S":"key"}},"UpdateExpression":"ADD n :one","ExpressionAttributeValues":{":one":{"N":"1"}},"ReturnValues":"UPDATED_NEW"}"#;

/// Starts `count` requests at once, dealt to the shards in turn; the answers come together in the list.
fn start(machine: &Machine, shards: usize, count: usize) -> Rc<RefCell<Vec<Result<String, String>>>> {
    let answers = Rc::new(RefCell::new(Vec::new()));
    for index in 0..count {
        let shard = index % shards;
        let service: cairn::api::Service<SimRuntime> = machine.service(shard);
        let answers = Rc::clone(&answers);
        machine
            .sim
            .runtime(NODE, ShardIndex(shard))
            .spawn(Queue::Foreground, async move {
                let mut out = Vec::new();
                let answer = service.call("UpdateItem", ADD.as_bytes(), &mut out).await;
                let answer = answer.map(|()| String::from_utf8(out).expect("UTF-8"));
                answers
                    .borrow_mut()
                    .push(answer.map_err(|error| error.to_string()));
            });
    }
    answers
}

fn counter(machine: &Machine) -> usize {
    let item = machine.ok("GetItem", r#"{"TableName":"hot","Key":{"id":{"S":"key"}}}"#);
    let text = item["Item"]["n"]["N"].as_str().unwrap_or("0");
    text.parse().expect("a number")
}

#[test]
fn updates_at_once_share_commits_and_are_all_counted() {
    const COUNT: usize = 600;
    let machine = Machine::new(70, 3);
    machine.create("hot", &[("id", "S")]);
    let before = machine.log_batches();
    let answers = start(&machine, 3, COUNT);
    while answers.borrow().len() < COUNT {
        assert!(machine.sim.step(), "some updates are never answered");
    }
    let batches = machine.log_batches() - before;
    assert!(batches <= 60, "{COUNT} updates took {batches} log batches");
    // Each saw the one before it.
    let mut seen: Vec<usize> = answers
        .borrow()
        .iter()
        .map(|answer| {
            let answer: serde_json::Value = serde_json::from_str(answer.as_ref().unwrap()).unwrap();
            answer["Attributes"]["n"]["N"].as_str().unwrap().parse().unwrap()
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..=COUNT).collect::<Vec<_>>());
    assert_eq!(counter(&machine), COUNT);
}

#[test]
fn of_conditional_updates_at_once_exactly_one_wins_each_round() {
    let machine = Machine::new(71, 3);
    machine.create("hot", &[("id", "S")]);
    for round in 0..5 {
        let won = Rc::new(Cell::new(0));
        let lost = Rc::new(Cell::new(0));
        let (condition, now) = match round {
            0 => ("attribute_not_exists(n)", String::new()),
            _ => ("n = :now", format!(r#",":now":{{"N":"{round}"}}"#)),
        };
        let body = format!(
            r#"{{"TableName":"hot","Key":{{"id":{{"S":"key"}}}},"UpdateExpression":"SET n = :next","ConditionExpression":"{condition}","ExpressionAttributeValues":{{":next":{{"N":"{}"}}{now}}}}}"#,
            round + 1
        );
        for index in 0..30 {
            let service = machine.service(index % 3);
            let (won, lost, body) = (Rc::clone(&won), Rc::clone(&lost), body.clone());
            machine
                .sim
                .runtime(NODE, ShardIndex(index % 3))
                .spawn(Queue::Foreground, async move {
                    match service.call("UpdateItem", body.as_bytes(), &mut Vec::new()).await {
                        Ok(()) => won.set(won.get() + 1),
                        Err(error) => {
                            assert_eq!(error.name(), "ConditionalCheckFailedException", "{error}");
                            lost.set(lost.get() + 1);
                        }
                    }
                });
        }
        while won.get() + lost.get() < 30 {
            assert!(machine.sim.step(), "some updates are never answered");
        }
        assert_eq!(won.get(), 1, "round {round}");
        assert_eq!(counter(&machine), round + 1);
    }
}

/// Power goes while updates are under way: those acknowledged are there, and nothing is counted twice.
#[test]
fn the_sum_is_exact_through_crashes() {
    const COUNT: usize = 200;
    for seed in 80..86 {
        let machine = Machine::new(seed, 3);
        machine.create("hot", &[("id", "S")]);
        let (mut least, mut most) = (0, 0);
        for round in 0..4 {
            let shards = 1 + (round + usize::try_from(seed).unwrap()) % 3;
            machine.crash();
            machine.start(shards);
            let found = counter(&machine);
            assert!(
                (least..=most).contains(&found),
                "seed {seed} round {round}: {found} is not in {least}..={most}"
            );
            let answers = start(&machine, shards, COUNT);
            // The crash comes at another moment in each round.
            let wanted = [1, COUNT / 2, COUNT, 17][round];
            while answers.borrow().len() < wanted {
                assert!(machine.sim.step(), "some updates are never answered");
            }
            let acknowledged = answers.borrow().iter().filter(|answer| answer.is_ok()).count();
            least = found + acknowledged;
            most = found + COUNT;
        }
    }
}
