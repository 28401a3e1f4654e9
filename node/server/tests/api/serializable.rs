//! Transactions against a checker, through crashes, drives that fail and clocks that jump.
//!
//! Items are accounts that each hold a balance and the list of all who ever wrote to them. Clients move money between accounts,
//! of several tables and partitions, by transactions, append to single ones by plain updates, and read several at once. Other
//! items come in pairs of which always exactly one exists, and transactions make the one of the other.
//!
//! As every write leaves its name in the list of what it wrote to, the lists tell the order of the writes of each item, and each read
//! says between which of them it was. The checker takes these orders, and that of real time, for edges between operations: where
//! they have a cycle, no order of the operations explains what was seen.
//!
//! `CAIRN_TRANSACTION_SEEDS=first..last` runs other seeds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use cairn::api::{ApiError, Service};
use cairn_runtime::sim::{FaultConfig, SimRuntime};
use cairn_runtime::{Queue, Runtime, ShardIndex};
use serde_json::{Value, json};

use crate::{Machine, NODE};

const ACCOUNTS: usize = 7;
const PAIRS: usize = 2;
const BALANCE: i64 = 100;
const CLIENTS: usize = 5;
const OPERATIONS: usize = 8;
const ROUNDS: usize = 3;

/// What a seed chooses.
#[derive(Clone)]
pub(crate) struct Chance(Rc<Cell<u64>>);

impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(Rc::new(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)))
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        usize::try_from(state >> 33).unwrap() % bound
    }

    /// Several different numbers below `bound`, at least two.
    fn several(&self, bound: usize) -> Vec<usize> {
        let count = 2 + self.below(3.min(bound - 1));
        let mut chosen = Vec::new();
        while chosen.len() < count.min(bound) {
            let one = self.below(bound);
            if !chosen.contains(&one) {
                chosen.push(one);
            }
        }
        chosen
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Refused,
    /// The node crashed, or did not know.
    Unknown,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Appends its name to these accounts.
    Append(Vec<usize>),
    /// Reads these accounts: their lists, and their balances.
    Read(Vec<(usize, Vec<String>, i64)>),
}

#[derive(Debug, Clone)]
struct Operation {
    name: String,
    kind: Kind,
    begun: u64,
    ended: u64,
    end: End,
}

/// What all clients have done, by name.
#[derive(Clone, Default)]
struct History {
    operations: Rc<RefCell<BTreeMap<String, Operation>>>,
    clock: Rc<Cell<u64>>,
}

impl History {
    fn now(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    fn begin(&self, name: &str, kind: Kind) {
        let operation = Operation {
            name: name.to_owned(),
            kind,
            begun: self.now(),
            ended: u64::MAX,
            end: End::Unknown,
        };
        self.operations.borrow_mut().insert(name.to_owned(), operation);
    }

    fn end(&self, name: &str, end: End) {
        let now = self.now();
        let mut operations = self.operations.borrow_mut();
        let operation = operations.get_mut(name).unwrap();
        operation.end = end;
        if end != End::Unknown {
            operation.ended = now;
        }
    }

    fn saw(&self, name: &str, read: Vec<(usize, Vec<String>, i64)>) {
        self.operations.borrow_mut().get_mut(name).unwrap().kind = Kind::Read(read);
        self.end(name, End::Done);
    }
}

fn table_of(account: usize) -> &'static str {
    if account.is_multiple_of(2) { "even" } else { "odd" }
}

fn key(account: usize) -> Value {
    json!({ "pk": { "S": format!("account-{account}") } })
}

fn append(account: usize, name: &str, amount: i64) -> Value {
    json!({
        "TableName": table_of(account), "Key": key(account),
        "UpdateExpression": "SET h = list_append(h, :h), n = n + :n",
        "ExpressionAttributeValues": { ":h": { "L": [{ "S": name }] }, ":n": { "N": amount.to_string() } },
    })
}

fn side(pair: usize, side: usize) -> Value {
    json!({ "pk": { "S": format!("pair-{pair}-{side}") } })
}

fn account_of(item: &Value) -> (Vec<String>, i64) {
    let list = item["h"]["L"].as_array().unwrap();
    let names = list.iter().map(|name| name["S"].as_str().unwrap().to_owned());
    (names.collect(), item["n"]["N"].as_str().unwrap().parse().unwrap())
}

pub(crate) async fn call(
    service: &Service<SimRuntime>,
    operation: &str,
    body: &Value,
) -> Result<Value, ApiError> {
    let mut out = Vec::new();
    service
        .call(operation, body.to_string().as_bytes(), &mut out)
        .await?;
    Ok(serde_json::from_slice(&out).unwrap())
}

fn ended(result: &Result<Value, ApiError>) -> End {
    match result {
        Ok(_) => End::Done,
        Err(error) if error.status == 500 => End::Unknown,
        Err(error) => {
            let expected = [
                "TransactionCanceledException",
                "TransactionConflictException",
                "TransactionInProgressException",
                "ProvisionedThroughputExceededException",
                "ServiceUnavailableException",
            ];
            assert!(expected.contains(&error.name()), "{error}");
            End::Refused
        }
    }
}

struct Client {
    service: Service<SimRuntime>,
    chance: Chance,
    history: History,
    name: String,
}

impl Client {
    async fn run(self) {
        for number in 0..OPERATIONS {
            let name = format!("{}.{number}", self.name);
            let pause = Duration::from_micros(self.chance.below(800) as u64);
            self.service.runtime().sleep(pause).await;
            match self.chance.below(10) {
                0..4 => self.transfer(&name).await,
                4 => self.append_alone(&name).await,
                5..8 => self.read(&name).await,
                8 => self.swap().await,
                _ => self.look_at_pair().await,
            }
        }
    }

    async fn transfer(&self, name: &str) {
        let accounts = self.chance.several(ACCOUNTS);
        let amount = self.chance.below(20) as i64;
        let mut items: Vec<Value> = accounts
            .iter()
            .enumerate()
            .map(|(place, account)| {
                let amount = [-amount, amount].get(place).copied().unwrap_or(0);
                json!({ "Update": append(*account, name, amount) })
            })
            .collect();
        if self.chance.below(4) == 0
            && let Some(other) = (0..ACCOUNTS).find(|other| !accounts.contains(other))
        {
            // A condition on another account; sometimes it is false.
            items.push(json!({ "ConditionCheck": {
                "TableName": table_of(other), "Key": key(other),
                "ConditionExpression": "n > :n", "ExpressionAttributeValues": { ":n": { "N": "90" } },
            }}));
        }
        let mut body = json!({ "TransactItems": items });
        let has_token = self.chance.below(2) == 0;
        if has_token {
            body["ClientRequestToken"] = json!(name);
        }
        self.history.begin(name, Kind::Append(accounts));
        let mut result = call(&self.service, "TransactWriteItems", &body).await;
        if has_token && result.is_ok() && self.chance.below(2) == 0 {
            // Again: nothing more may happen.
            result = call(&self.service, "TransactWriteItems", &body).await;
        }
        self.history.end(name, ended(&result));
    }

    async fn append_alone(&self, name: &str) {
        let account = self.chance.below(ACCOUNTS);
        self.history.begin(name, Kind::Append(vec![account]));
        let result = call(&self.service, "UpdateItem", &append(account, name, 0)).await;
        self.history.end(name, ended(&result));
    }

    async fn read(&self, name: &str) {
        let accounts = if self.chance.below(3) == 0 {
            (0..ACCOUNTS).collect()
        } else {
            self.chance.several(ACCOUNTS)
        };
        let gets: Vec<Value> = accounts
            .iter()
            .map(|account| json!({ "Get": { "TableName": table_of(*account), "Key": key(*account) } }))
            .collect();
        self.history.begin(name, Kind::Read(Vec::new()));
        let result = call(
            &self.service,
            "TransactGetItems",
            &json!({ "TransactItems": gets }),
        )
        .await;
        let Ok(answer) = &result else {
            return self.history.end(name, ended(&result));
        };
        let responses = answer["Responses"].as_array().unwrap();
        let read = accounts.into_iter().zip(responses).map(|(account, response)| {
            let (names, balance) = account_of(&response["Item"]);
            (account, names, balance)
        });
        self.history.saw(name, read.collect());
    }

    /// Makes of the one side of a pair the other.
    async fn swap(&self) {
        let pair = self.chance.below(PAIRS);
        let from = self.chance.below(2);
        let mut to = side(pair, 1 - from);
        to["x"] = json!({ "S": "y" });
        let body = json!({ "TransactItems": [
            { "Delete": { "TableName": "even", "Key": side(pair, from), "ConditionExpression": "attribute_exists(pk)" } },
            { "Put": { "TableName": "even", "Item": to, "ConditionExpression": "attribute_not_exists(pk)" } },
        ]});
        ended(&call(&self.service, "TransactWriteItems", &body).await);
    }

    async fn look_at_pair(&self) {
        let pair = self.chance.below(PAIRS);
        let gets = [0, 1].map(|one| json!({ "Get": { "TableName": "even", "Key": side(pair, one) } }));
        let result = call(
            &self.service,
            "TransactGetItems",
            &json!({ "TransactItems": gets }),
        )
        .await;
        ended(&result);
        if let Ok(answer) = result {
            check_pair(&answer);
        }
    }
}

fn check_pair(answer: &Value) {
    let responses = answer["Responses"].as_array().unwrap();
    let there = responses.iter().filter(|response| response.get("Item").is_some());
    assert_eq!(there.count(), 1, "of a pair exactly one exists: {answer}");
}

/// What goes wrong in a round besides its end. One of the two drives is always a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Both drives are slow at times.
    Slow,
    /// One of them answers with errors, or lies.
    Bad,
    /// It is taken away.
    Gone,
}

const DRIVES: [&str; 2] = ["/drive-a", "/drive-b"];
/// How often a bad drive does something bad, in operations of a million.
const BAD_PPM: u32 = 3000;

fn trouble(machine: &Machine, chance: &Chance) -> Trouble {
    if chance.below(4) == 0 {
        let jump = chance.below(4000) as i64 - 2000;
        machine.sim.jump_clock(NODE, jump);
    }
    let set = |drive: &str, faults| machine.sim.drive(NODE, drive).set_faults(faults);
    match chance.below(8) {
        0..3 => Trouble::None,
        3..5 => {
            for drive in DRIVES {
                set(drive, FaultConfig::timing());
            }
            Trouble::Slow
        }
        5 => {
            set(DRIVES[1], FaultConfig::errors(BAD_PPM));
            Trouble::Bad
        }
        6 => {
            set(DRIVES[1], FaultConfig::silent(BAD_PPM));
            Trouble::Bad
        }
        _ => Trouble::Gone,
    }
}

fn run(seed: u64) -> History {
    let chance = Chance::new(seed);
    let machine = Machine::new(seed, 1 + chance.below(3));
    for table in ["even", "odd"] {
        machine.create(table, &[("pk", "S")]);
    }
    let mut items: Vec<Value> = (0..ACCOUNTS)
        .map(|account| {
            let mut item = key(account);
            item["h"] = json!({ "L": [] });
            item["n"] = json!({ "N": BALANCE.to_string() });
            json!({ "Put": { "TableName": table_of(account), "Item": item } })
        })
        .collect();
    items.extend((0..PAIRS).map(|pair| json!({ "Put": { "TableName": "even", "Item": side(pair, 0) } })));
    machine.ok(
        "TransactWriteItems",
        &json!({ "TransactItems": items }).to_string(),
    );

    let history = History::default();
    for round in 0..ROUNDS {
        let running = Rc::new(Cell::new(CLIENTS));
        for client in 0..CLIENTS {
            let shard = chance.below(machine.shards());
            let client = Client {
                service: machine.service(shard),
                chance: chance.clone(),
                history: history.clone(),
                name: format!("{round}.{client}"),
            };
            let running = Rc::clone(&running);
            let runtime = machine.sim.runtime(NODE, ShardIndex(shard));
            runtime.spawn(Queue::Foreground, async move {
                client.run().await;
                running.set(running.get() - 1);
            });
        }
        // The last round comes to its end; the others may be cut short.
        let mut steps = match round + 1 < ROUNDS && chance.below(4) > 0 {
            true => 50 + chance.below(3000),
            false => usize::MAX,
        };
        let trouble = trouble(&machine, &chance);
        while running.get() > 0 && steps > 0 {
            assert!(machine.sim.step(), "seed {seed}: nothing happens any more");
            steps -= 1;
            if trouble == Trouble::Gone && steps == 40 {
                machine.sim.drive(NODE, "/drive-b").detach();
            }
        }
        for drive in DRIVES {
            machine.sim.drive(NODE, drive).set_faults(FaultConfig::NONE);
        }
        if round + 1 < ROUNDS {
            machine.crash();
            machine.start(1 + chance.below(4));
        }
    }
    finish(&machine, &history);
    history
}

/// Reads everything at the end, when all that was left undone has been ended.
fn finish(machine: &Machine, history: &History) {
    machine.run(async |service| service.runtime().sleep(Duration::from_secs(30)).await);
    let gets: Vec<Value> = (0..ACCOUNTS)
        .map(|account| json!({ "Get": { "TableName": table_of(account), "Key": key(account) } }))
        .collect();
    let answer = machine.ok("TransactGetItems", &json!({ "TransactItems": gets }).to_string());
    let responses = answer["Responses"].as_array().unwrap();
    let read = responses.iter().enumerate().map(|(account, response)| {
        let (names, balance) = account_of(&response["Item"]);
        (account, names, balance)
    });
    history.begin("last", Kind::Read(Vec::new()));
    history.saw("last", read.collect());
    for pair in 0..PAIRS {
        let gets = [0, 1].map(|one| json!({ "Get": { "TableName": "even", "Key": side(pair, one) } }));
        check_pair(&machine.ok("TransactGetItems", &json!({ "TransactItems": gets }).to_string()));
    }
    // Nothing is held any more.
    for account in 0..ACCOUNTS {
        machine.ok("UpdateItem", &append(account, "nobody", 0).to_string());
    }
    let count = |table| {
        machine.ok("DescribeTable", &json!({ "TableName": table }).to_string())["Table"]["ItemCount"].take()
    };
    assert_eq!(count("even"), ACCOUNTS.div_ceil(2) + PAIRS);
    assert_eq!(count("odd"), ACCOUNTS / 2);
}

/// Checks that one order of the operations explains everything.
fn check(history: &History) {
    let operations = history.operations.borrow();
    let Kind::Read(last) = &operations["last"].kind else {
        panic!("the last operation is a read")
    };
    let orders: Vec<&Vec<String>> = last.iter().map(|(_, names, _)| names).collect();
    assert_eq!(
        last.iter().map(|(_, _, balance)| balance).sum::<i64>(),
        BALANCE * ACCOUNTS as i64
    );
    // What was done is everywhere or nowhere, and once.
    for operation in operations.values() {
        let Kind::Append(accounts) = &operation.kind else {
            continue;
        };
        let count = |account: usize| {
            orders[account]
                .iter()
                .filter(|name| **name == operation.name)
                .count()
        };
        let counts: Vec<usize> = accounts.iter().map(|account| count(*account)).collect();
        let expected = match operation.end {
            End::Done => 1,
            End::Refused => 0,
            End::Unknown => counts[0].min(1),
        };
        assert!(
            counts.iter().all(|count| *count == expected),
            "{operation:?}: {counts:?}"
        );
    }
    // Edges: from an operation to those that come behind it.
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for order in &orders {
        for pair in order.windows(2) {
            edges.entry(&pair[0]).or_default().insert(&pair[1]);
        }
    }
    for operation in operations.values() {
        let Kind::Read(read) = &operation.kind else {
            continue;
        };
        if read.len() == ACCOUNTS {
            let sum: i64 = read.iter().map(|(_, _, balance)| balance).sum();
            assert_eq!(sum, BALANCE * ACCOUNTS as i64, "{operation:?}");
        }
        for (account, names, _) in read {
            let order = orders[*account];
            assert_eq!(names[..], order[..names.len()], "{operation:?}");
            if let Some(before) = names.last() {
                edges.entry(before).or_default().insert(&operation.name);
            }
            if let Some(behind) = order.get(names.len()) {
                edges.entry(&operation.name).or_default().insert(behind);
            }
        }
    }
    for one in operations.values().filter(|one| one.end == End::Done) {
        for other in operations.values().filter(|other| one.ended < other.begun) {
            if other.end == End::Done {
                edges.entry(&one.name).or_default().insert(&other.name);
            }
        }
    }
    // Takes away what nothing comes before, until nothing is left.
    let mut before: BTreeMap<&str, usize> = operations.keys().map(|name| (name.as_str(), 0)).collect();
    for behind in edges.values().flatten() {
        *before.entry(behind).or_default() += 1;
    }
    let mut free: Vec<&str> = before
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(name, _)| *name)
        .collect();
    let mut taken = 0;
    while let Some(name) = free.pop() {
        taken += 1;
        for behind in edges.get(name).into_iter().flatten() {
            let count = before.get_mut(behind).unwrap();
            *count -= 1;
            if *count == 0 {
                free.push(behind);
            }
        }
    }
    let cycle: Vec<_> = before.iter().filter(|(_, count)| **count > 0).collect();
    assert_eq!(
        taken,
        before.len(),
        "no order explains these: {cycle:?}\n{operations:#?}"
    );
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(seeds) = std::env::var("CAIRN_TRANSACTION_SEEDS") else {
        return 0..SEEDS;
    };
    let (first, last) = seeds.split_once("..").expect("first..last");
    first.parse().unwrap()..last.parse().unwrap()
}

/// Seeds that the test suite runs.
const SEEDS: u64 = 100;
/// Tests that share them, so that they run at the same time.
const SHARES: u64 = 2;

fn check_share(share: u64) {
    let (mut done, mut refused, mut unknown) = (0, 0, 0);
    for seed in seeds().filter(|seed| seed % SHARES == share) {
        let history = run(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&history)));
        if let Err(panic) = result {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
        for operation in history.operations.borrow().values() {
            match operation.end {
                End::Done => done += 1,
                End::Refused => refused += 1,
                End::Unknown => unknown += 1,
            }
        }
    }
    eprintln!("{done} done, {refused} refused, {unknown} cut short");
    assert!(done > refused && refused > 0, "{done} {refused}");
}

#[test]
fn transactions_are_serializable_on_even_seeds() {
    check_share(0);
}

#[test]
fn transactions_are_serializable_on_odd_seeds() {
    check_share(1);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| format!("{:?}", run(seed).operations.borrow());
    assert_eq!(history(7), history(7));
}

#[test]
fn the_checker_finds_what_no_order_explains() {
    let history = History::default();
    let both = vec![0, 1];
    history.begin("a", Kind::Append(both.clone()));
    history.begin("b", Kind::Append(both));
    history.end("a", End::Done);
    history.end("b", End::Done);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let read = |first: &[&str], second: &[&str]| {
        let mut read = vec![(0, names(first), BALANCE), (1, names(second), BALANCE)];
        read.extend((2..ACCOUNTS).map(|account| (account, Vec::new(), BALANCE)));
        read
    };
    history.begin("half", Kind::Read(Vec::new()));
    history.saw("half", read(&["a"], &["a"]));
    history.begin("last", Kind::Read(Vec::new()));
    history.saw("last", read(&["a", "b"], &["a", "b"]));
    // Both had ended before the read that shows one of them.
    let checks =
        |history: &History| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(history)));
    assert!(checks(&history).is_err());
    history.operations.borrow_mut().get_mut("half").unwrap().begun = 0;
    assert!(checks(&history).is_ok());
    // One of the two by half.
    history.saw("half", read(&["a"], &["a", "b"]));
    history.operations.borrow_mut().get_mut("half").unwrap().begun = 0;
    assert!(checks(&history).is_err());
    // Written in two orders.
    history.saw("half", read(&[], &[]));
    history.saw("last", read(&["a", "b"], &["b", "a"]));
    assert!(checks(&history).is_err());
}
