//! Transactions of the clients, and what must be true of the items that only they write.
//!
//! - **Accounts** hold a balance; transactions move it between them, so that its sum stays. Those of odd number are in [`PLAIN`], a
//!   table without indexes and streams. Plain updates change their other attributes.
//! - Of the two items of a **pair** exactly one exists; transactions make the one of the other.
//! - **Twins** are items of the same key in both tables: both say by which transaction they were written, or neither exists.
//! - Others write, delete and check the items that plain writes change too.
//!
//! All of it is created by one transaction, so it is all there or nothing is. Half of the transactions have a token; some of these are sent
//! again: at once, when the answer left their fate open, and after a crash.

use std::time::Duration;

use cairn::api::{ApiError, Service};
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Random, SimRuntime};
use serde_json::{Value, json};

use super::clients::{COLORS, Ledger, TABLE, call, change, item_of, random_key};
use super::verify::{Items, key_of};

/// The table without indexes and streams.
pub(super) const PLAIN: &str = "plain";

const ACCOUNTS: u64 = 6;
const BALANCE: i64 = 100;
const PAIRS: u64 = 2;
const TWINS: u64 = 3;

const CONDITIONS: [&str; 2] = ["attribute_exists(id)", "attribute_not_exists(color)"];

/// How old a transaction may be that is sent again with its token: half of what the node remembers it for.
const AGAIN_MS_MAX: u64 = 300_000;
/// Times that one is sent again of which it is not known whether it was done, and the pause before.
const AGAIN_MAX: usize = 3;
const AGAIN_PAUSE: Duration = Duration::from_millis(700);

/// A transaction of which it is not known whether it was carried out; with its token that can be found out.
#[derive(Clone)]
pub(super) struct Unresolved {
    body: Value,
    numbers: Vec<u64>,
    sent_ms: u64,
}

/// What came of transactions.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransactionCounts {
    /// Carried out.
    pub done: u64,
    /// Refused because an item was held.
    pub conflicts: u64,
    /// Refused for other reasons: conditions, space, load.
    pub refused: u64,
    /// Their fate was not told.
    pub unknown: u64,
    /// Answered for their token, being done already.
    pub again: u64,
    /// Reads of several items.
    pub reads: u64,
    /// Such reads refused because an item was held or changed.
    pub reads_refused: u64,
}

impl TransactionCounts {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &TransactionCounts) {
        self.done += other.done;
        self.conflicts += other.conflicts;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.again += other.again;
        self.reads += other.reads;
        self.reads_refused += other.reads_refused;
    }
}

fn table_of(account: u64) -> &'static str {
    if account.is_multiple_of(2) { TABLE } else { PLAIN }
}

fn account(account: u64) -> Value {
    json!({"id": {"S": format!("account-{account}")}, "n": {"N": "0"}})
}

fn side(pair: u64, side: u64) -> Value {
    json!({"id": {"S": format!("pair-{pair}-{side}")}, "n": {"N": "0"}})
}

fn twin(twin: u64) -> Value {
    json!({"id": {"S": format!("twin-{twin}")}, "n": {"N": "0"}})
}

fn balance_of(item: &Value) -> Option<i64> {
    item["balance"]["N"].as_str()?.parse().ok()
}

/// One client's way to the node.
pub(super) struct Transactor<'a> {
    pub ledger: &'a Ledger,
    pub service: &'a Service<SimRuntime>,
    pub runtime: &'a SimRuntime,
}

impl Transactor<'_> {
    /// Creates what transactions write; a crash may have come before, or another has.
    pub(super) async fn create(&self) -> Result<(), ApiError> {
        let mut numbers = Vec::new();
        let mut put = |table: &str, mut item: Value, name: &str, value: String| {
            let number = self.ledger.take();
            if table == TABLE {
                numbers.push(number);
            }
            item["v"] = json!({"N": number.to_string()});
            item[name] = json!({"N": value});
            json!({"Put": {"TableName": table, "Item": item, "ConditionExpression": "attribute_not_exists(id)"}})
        };
        let mut items: Vec<Value> = (0..ACCOUNTS)
            .map(|number| put(table_of(number), account(number), "balance", BALANCE.to_string()))
            .collect();
        items.extend((0..PAIRS).map(|pair| put(TABLE, side(pair, 0), "pair", pair.to_string())));
        let body = json!({ "TransactItems": items });
        self.ledger.grouped(&numbers);
        match call(self.service, "TransactWriteItems", body).await {
            Ok(_) => self.ledger.acknowledged.borrow_mut().extend(numbers),
            Err(error) if error.message.contains("ConditionalCheckFailed") => {}
            Err(error) => return Err(error),
        }
        self.ledger.created.set(true);
        Ok(())
    }

    /// Asks for what it is not known of whether it was carried out before the crash.
    pub(super) async fn find_out(&self) {
        let unresolved = std::mem::take(&mut *self.ledger.unresolved.borrow_mut());
        for (_, transaction) in unresolved {
            self.again(&transaction).await;
        }
    }

    /// One transaction.
    pub(super) async fn transact(&self, random: &mut Random, keys: u64) {
        match random.below(12) {
            0..3 => self.transfer(random).await,
            3 => self.swap(random).await,
            4 => self.write_twins(random).await,
            5..8 => self.mix(random, keys).await,
            8 => self.touch(random).await,
            9 => self.read_accounts().await,
            10 => self.read_pairs_and_twins(random).await,
            _ => self.read_some(random, keys).await,
        }
    }

    async fn transfer(&self, random: &mut Random) {
        let (from, amount) = (random.below(ACCOUNTS), random.below(20) as i64);
        let mut numbers = Vec::new();
        let items: Vec<Value> = (0..2 + random.below(3))
            .map(|place| {
                let amount = [-amount, amount].get(place as usize).copied().unwrap_or(0);
                let other = (from + place) % ACCOUNTS;
                let number = self.ledger.take();
                if table_of(other) == TABLE {
                    numbers.push(number);
                }
                json!({"Update": {
                    "TableName": table_of(other), "Key": account(other),
                    "UpdateExpression": "SET v = :v, balance = balance + :a",
                    "ExpressionAttributeValues": {":v": {"N": number.to_string()}, ":a": {"N": amount.to_string()}},
                }})
            })
            .collect();
        self.write(random, items, numbers).await;
    }

    /// Makes of the one side of a pair the other.
    async fn swap(&self, random: &mut Random) {
        let (pair, from) = (random.below(PAIRS), random.below(2));
        let number = self.ledger.take();
        let mut to = side(pair, 1 - from);
        to["v"] = json!({"N": number.to_string()});
        to["color"] = json!({"S": COLORS[random.index(3)]});
        to["weight"] = json!({"N": random.below(5).to_string()});
        let items = vec![
            json!({"Delete": {"TableName": TABLE, "Key": side(pair, from), "ConditionExpression": "attribute_exists(id)"}}),
            json!({"Put": {"TableName": TABLE, "Item": to, "ConditionExpression": "attribute_not_exists(id)"}}),
        ];
        self.ledger.asked_delete(&side(pair, from));
        self.write(random, items, vec![number]).await;
    }

    async fn write_twins(&self, random: &mut Random) {
        let key = twin(random.below(TWINS));
        if random.below(4) == 0 {
            self.ledger.asked_delete(&key);
            let items = [TABLE, PLAIN].map(|table| json!({"Delete": {"TableName": table, "Key": key}}));
            return self.write(random, items.into(), Vec::new()).await;
        }
        let number = self.ledger.take();
        let mut item = key;
        item["v"] = json!({"N": number.to_string()});
        item["text"] = json!({"S": "x".repeat(random.index(2_000))});
        let items = [TABLE, PLAIN].map(|table| json!({"Put": {"TableName": table, "Item": item}}));
        self.write(random, items.into(), vec![number]).await;
    }

    /// Writes, deletes and checks what plain writes change too.
    async fn mix(&self, random: &mut Random, keys: u64) {
        let mut chosen: Vec<Value> = Vec::new();
        for _ in 0..1 + random.below(6) {
            let key = random_key(random, keys);
            if !chosen.contains(&key) {
                chosen.push(key);
            }
        }
        let mut numbers = Vec::new();
        let items = chosen.into_iter().map(|key| match random.below(8) {
            0 => json!({"ConditionCheck": {
                "TableName": TABLE, "Key": key,
                "ConditionExpression": CONDITIONS[random.index(2)],
            }}),
            1 | 2 => {
                self.ledger.asked_delete(&key);
                json!({"Delete": {"TableName": TABLE, "Key": key}})
            }
            kind => {
                let number = self.ledger.take();
                numbers.push(number);
                if kind < 5 {
                    let mut update = change(random, key, number);
                    if random.below(4) == 0 {
                        update["ConditionExpression"] = json!("attribute_exists(id)");
                    }
                    json!({ "Update": update })
                } else {
                    let item = item_of(random, self.runtime, key, number);
                    json!({"Put": {"TableName": TABLE, "Item": item}})
                }
            }
        });
        let items = items.collect();
        self.write(random, items, numbers).await;
    }

    /// A plain write of an item that transactions hold.
    async fn touch(&self, random: &mut Random) {
        let other = random.below(ACCOUNTS);
        let number = self.ledger.take();
        let body = json!({
            "TableName": table_of(other), "Key": account(other),
            "UpdateExpression": "SET v = :v, color = :c",
            "ConditionExpression": "attribute_exists(id)",
            "ExpressionAttributeValues": {":v": {"N": number.to_string()}, ":c": {"S": COLORS[random.index(3)]}},
        });
        let leaves = table_of(other) == TABLE;
        let answer = call(self.service, "UpdateItem", body).await;
        self.ledger.settle("UpdateItem", answer, number, leaves);
    }

    /// Sends a transaction that writes; `numbers` are those that it leaves in the stream.
    async fn write(&self, random: &mut Random, items: Vec<Value>, numbers: Vec<u64>) {
        let mut body = json!({ "TransactItems": items });
        let token = self.ledger.take();
        let has_token = random.below(2) == 0;
        if has_token {
            body["ClientRequestToken"] = json!(format!("token-{token}"));
        }
        self.ledger.grouped(&numbers);
        let transaction = Unresolved {
            body: body.clone(),
            numbers: numbers.clone(),
            sent_ms: self.runtime.unix_ms(),
        };
        if has_token {
            // What a crash leaves open is found out behind it.
            let mut unresolved = self.ledger.unresolved.borrow_mut();
            unresolved.insert(token, transaction.clone());
        }
        let answer = call(self.service, "TransactWriteItems", body).await;
        self.ledger.unresolved.borrow_mut().remove(&token);
        self.ledger.answered.set(self.ledger.answered.get() + 1);
        match answer {
            Ok(_) => {
                self.ledger.count(|counts| counts.done += 1);
                self.ledger.acknowledged.borrow_mut().extend(numbers);
                if has_token && random.below(3) == 0 {
                    self.again(&transaction).await;
                }
            }
            Err(error) => match error.name() {
                "TransactionCanceledException" => {
                    self.ledger.never.borrow_mut().extend(numbers);
                    let held = error.message.contains("TransactionConflict");
                    self.ledger.count(|counts| {
                        *(if held {
                            &mut counts.conflicts
                        } else {
                            &mut counts.refused
                        }) += 1;
                    });
                }
                "ProvisionedThroughputExceededException" | "ServiceUnavailableException" => {
                    self.ledger.never.borrow_mut().extend(numbers);
                    self.ledger.count(|counts| counts.refused += 1);
                }
                "InternalServerError" => {
                    self.ledger.count(|counts| counts.unknown += 1);
                    for _ in 0..if has_token { AGAIN_MAX } else { 0 } {
                        self.runtime.sleep(AGAIN_PAUSE).await;
                        if self.again(&transaction).await {
                            break;
                        }
                    }
                }
                _ => self.ledger.fail(format!("TransactWriteItems: {error}")),
            },
        }
    }

    /// Sends a transaction again with its token: what was done is not done twice. Whether it is known to be done.
    async fn again(&self, transaction: &Unresolved) -> bool {
        if self.runtime.unix_ms() >= transaction.sent_ms + AGAIN_MS_MAX {
            return false;
        }
        let answer = call(self.service, "TransactWriteItems", transaction.body.clone()).await;
        self.ledger.answered.set(self.ledger.answered.get() + 1);
        match answer {
            Ok(_) => {
                self.ledger.count(|counts| counts.again += 1);
                let mut acknowledged = self.ledger.acknowledged.borrow_mut();
                acknowledged.extend(&transaction.numbers);
                true
            }
            Err(error) => {
                // That this attempt was refused says nothing of the one before.
                let expected = [
                    "TransactionCanceledException",
                    "TransactionInProgressException",
                    "ProvisionedThroughputExceededException",
                    "ServiceUnavailableException",
                    "InternalServerError",
                ];
                if !expected.contains(&error.name()) {
                    self.ledger.fail(format!("TransactWriteItems again: {error}"));
                }
                false
            }
        }
    }

    /// The items, as they are at one moment; none when that is refused.
    async fn read(&self, gets: Vec<(&str, Value)>) -> Option<Vec<Value>> {
        let items = gets
            .into_iter()
            .map(|(table, key)| json!({"Get": {"TableName": table, "Key": key}}));
        let body = json!({ "TransactItems": items.collect::<Vec<_>>() });
        let answer = call(self.service, "TransactGetItems", body).await;
        self.ledger.answered.set(self.ledger.answered.get() + 1);
        self.ledger.count(|counts| counts.reads += 1);
        match answer {
            Ok(answer) => {
                let responses = answer["Responses"].as_array().cloned().unwrap_or_default();
                Some(
                    responses
                        .into_iter()
                        .map(|mut response| response["Item"].take())
                        .collect(),
                )
            }
            Err(error) => {
                let expected = [
                    "TransactionCanceledException",
                    "ProvisionedThroughputExceededException",
                    "ServiceUnavailableException",
                    "InternalServerError",
                ];
                if !expected.contains(&error.name()) {
                    self.ledger.fail(format!("TransactGetItems: {error}"));
                }
                self.ledger.count(|counts| counts.reads_refused += 1);
                None
            }
        }
    }

    async fn read_accounts(&self) {
        let gets = (0..ACCOUNTS).map(|number| (table_of(number), account(number)));
        if let Some(items) = self.read(gets.collect()).await {
            let sum: Option<i64> = items.iter().map(balance_of).sum();
            if sum != Some(ACCOUNTS as i64 * BALANCE) {
                self.ledger
                    .fail(format!("no moment had these balances: {items:?}"));
            }
        }
    }

    async fn read_pairs_and_twins(&self, random: &mut Random) {
        let (pair, key) = (random.below(PAIRS), twin(random.below(TWINS)));
        let gets = vec![
            (TABLE, side(pair, 0)),
            (TABLE, key.clone()),
            (PLAIN, key),
            (TABLE, side(pair, 1)),
        ];
        if let Some(items) = self.read(gets).await {
            if items[0].is_null() == items[3].is_null() {
                self.ledger
                    .fail(format!("of a pair exactly one exists: {items:?}"));
            }
            if items[1] != items[2] {
                self.ledger.fail(format!("no moment had these twins: {items:?}"));
            }
        }
    }

    async fn read_some(&self, random: &mut Random, keys: u64) {
        let mut gets: Vec<(&str, Value)> = Vec::new();
        for _ in 0..1 + random.below(6) {
            let key = random_key(random, keys);
            if gets.iter().all(|(_, other)| *other != key) {
                gets.push((TABLE, key));
            }
        }
        for item in self.read(gets).await.unwrap_or_default() {
            let number = item["v"]["N"].as_str().and_then(|text| text.parse().ok());
            if !item.is_null() && !number.is_some_and(|number| self.ledger.was_asked(number)) {
                self.ledger
                    .fail(format!("an item that nobody has written: {item}"));
            }
        }
    }
}

/// What must be true of the items of both tables when nothing is under way.
pub(super) fn difference(ledger: &Ledger, items: &Items, plain: &Items) -> Option<String> {
    let of = |table: &str| if table == TABLE { items } else { plain };
    let at = |table: &str, key: Value| of(table).get(&key_of(&key));
    let balances: Vec<Option<i64>> = (0..ACCOUNTS)
        .map(|number| at(table_of(number), account(number)).and_then(balance_of))
        .collect();
    let pairs: Vec<usize> = (0..PAIRS)
        .map(|pair| {
            [0, 1]
                .iter()
                .filter(|one| at(TABLE, side(pair, **one)).is_some())
                .count()
        })
        .collect();
    let is_nothing = balances.iter().all(Option::is_none) && pairs.iter().all(|count| *count == 0);
    if is_nothing && !ledger.created.get() {
        return None;
    }
    let sum: Option<i64> = balances.iter().copied().sum();
    if sum != Some(ACCOUNTS as i64 * BALANCE) {
        return Some(format!("the sum of these balances has changed: {balances:?}"));
    }
    if pairs.iter().any(|count| *count != 1) {
        return Some(format!(
            "of each pair exactly one exists, and these are: {pairs:?}"
        ));
    }
    let differs = |key: &Value| at(TABLE, key.clone()) != at(PLAIN, key.clone());
    let key = (0..TWINS).map(twin).find(differs)?;
    Some(format!(
        "of two twins only one was written: {:?}, {:?}",
        at(TABLE, key.clone()),
        at(PLAIN, key)
    ))
}
