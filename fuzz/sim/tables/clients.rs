//! Clients of a simulated node: what they ask for, and what they were told.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cairn::api::{ApiError, Service};
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Random, SimRuntime};
use serde_json::{Value, json};

use super::transactions::{PLAIN, TransactionCounts, Transactor, Unresolved};
use super::verify::key_of;

pub(super) const TABLE: &str = "simulated";
pub(super) const COLORS: [&str; 3] = ["red", "green", "blue"];

/// What all rounds of a run know.
#[derive(Default)]
pub(super) struct Ledger {
    /// Every write that was asked for has a number of its own.
    next: Cell<u64>,
    /// Numbers of writes that were acknowledged and left their number in the item.
    pub(super) acknowledged: RefCell<BTreeSet<u64>>,
    /// Numbers of writes that were refused, and must not have been carried out.
    pub(super) never: RefCell<BTreeSet<u64>>,
    /// Numbers of the writes of one transaction each: all of them are carried out, or none.
    pub(super) groups: RefCell<Vec<Vec<u64>>>,
    /// How often the deletion of an item was asked for.
    pub(super) deletes: RefCell<BTreeMap<String, u64>>,
    /// The clients of this round have begun.
    pub(super) is_at_work: Cell<bool>,
    /// The accounts and pairs are there.
    pub(super) created: Cell<bool>,
    /// Transactions with tokens that have not been answered, by number.
    pub(super) unresolved: RefCell<BTreeMap<u64, Unresolved>>,
    pub(super) transactions: Cell<TransactionCounts>,
    /// What the run is to do about the room on the drives.
    pub(super) room: Cell<Option<Room>>,
    /// Answers, refusals counted.
    pub(super) answered: Cell<u64>,
    pub(super) refused: Cell<u64>,
    failure: RefCell<Option<String>>,
}

/// What becomes of the room on the drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Little is left.
    Low,
    /// Plenty.
    Plenty,
}

impl Ledger {
    pub(super) fn fail(&self, why: impl Into<String>) {
        self.failure.borrow_mut().get_or_insert(why.into());
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Whether a write of this number was ever asked for.
    pub(super) fn was_asked(&self, number: u64) -> bool {
        number < self.next.get()
    }

    pub(super) fn take(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// These are written together or not at all.
    pub(super) fn grouped(&self, numbers: &[u64]) {
        if numbers.len() > 1 {
            self.groups.borrow_mut().push(numbers.to_vec());
        }
    }

    pub(super) fn asked_delete(&self, key: &Value) {
        *self.deletes.borrow_mut().entry(key_of(key)).or_default() += 1;
    }

    pub(super) fn count(&self, with: impl FnOnce(&mut TransactionCounts)) {
        let mut counts = self.transactions.get();
        with(&mut counts);
        self.transactions.set(counts);
    }

    /// Takes note of the answer to a plain write; `leaves` says whether it leaves its number behind.
    pub(super) fn settle(&self, operation: &str, answer: Result<Value, ApiError>, number: u64, leaves: bool) {
        self.answered.set(self.answered.get() + 1);
        let error = match answer {
            Ok(_) if leaves => {
                self.acknowledged.borrow_mut().insert(number);
                return;
            }
            Ok(_) => return,
            Err(error) => error,
        };
        match error.name() {
            "ConditionalCheckFailedException" | "TransactionConflictException" => {
                self.never.borrow_mut().insert(number);
            }
            "ProvisionedThroughputExceededException" | "ServiceUnavailableException" => {
                self.never.borrow_mut().insert(number);
                self.refused.set(self.refused.get() + 1);
            }
            "InternalServerError" => self.refused.set(self.refused.get() + 1),
            _ => self.fail(format!("{operation}: {error}")),
        }
    }
}

/// One call.
pub(super) async fn call(
    service: &Service<SimRuntime>,
    operation: &str,
    body: Value,
) -> Result<Value, ApiError> {
    let mut out = Vec::new();
    service
        .call(operation, body.to_string().as_bytes(), &mut out)
        .await?;
    Ok(serde_json::from_slice(&out).unwrap_or(Value::Null))
}

/// The table without indexes, as it is created.
pub(super) fn plain_table() -> Value {
    json!({
        "TableName": PLAIN,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "n", "KeyType": "RANGE"}],
        "AttributeDefinitions": [
            {"AttributeName": "id", "AttributeType": "S"}, {"AttributeName": "n", "AttributeType": "N"},
        ],
    })
}

/// The table, as it is created.
pub(super) fn table() -> Value {
    let attribute = |name: &str, kind: &str| json!({"AttributeName": name, "AttributeType": kind});
    let keys = |partition: &str, sort: &str| json!([{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]);
    json!({
        "TableName": TABLE,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": keys("id", "n"),
        "AttributeDefinitions": [
            attribute("id", "S"), attribute("n", "N"), attribute("color", "S"), attribute("weight", "N"),
        ],
        "LocalSecondaryIndexes": [
            {"IndexName": "by-weight", "KeySchema": keys("id", "weight"), "Projection": {"ProjectionType": "KEYS_ONLY"}},
        ],
        "GlobalSecondaryIndexes": [
            {"IndexName": "by-color", "KeySchema": keys("color", "weight"), "Projection": {"ProjectionType": "ALL"}},
        ],
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    })
}

/// What a client does in a round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How many writes and transactions it asks for.
    pub(super) operations: u64,
    /// Partition keys.
    pub(super) keys: u64,
    /// Whether all of them are transactions.
    pub(super) transacts: bool,
}

/// Asks for writes and transactions, one after the other.
pub(super) async fn client(
    ledger: Rc<Ledger>,
    service: Service<SimRuntime>,
    runtime: SimRuntime,
    mut random: Random,
    plan: Plan,
) {
    let keys = plan.keys;
    let transactor = Transactor {
        ledger: &ledger,
        service: &service,
        runtime: &runtime,
    };
    for _ in 0..plan.operations {
        if plan.transacts || random.below(3) == 0 {
            transactor.transact(&mut random, keys).await;
        } else {
            let number = ledger.take();
            let (operation, body, leaves) = write(&ledger, &mut random, &runtime, number, keys);
            let answer = call(&service, operation, body).await;
            ledger.settle(operation, answer, number, leaves);
        }
        if random.below(8) == 0 {
            let pause = std::time::Duration::from_millis(random.below(200));
            runtime.sleep(pause).await;
        }
    }
}

pub(super) fn random_key(random: &mut Random, keys: u64) -> Value {
    json!({
        "id": {"S": format!("i{}", random.below(keys))}, "n": {"N": random.below(3).to_string()},
    })
}

/// An update of an item.
pub(super) fn change(random: &mut Random, key: Value, number: u64) -> Value {
    let change = [
        "SET v = :v ADD weight :one",
        "SET v = :v, color = :c",
        "SET v = :v REMOVE color",
    ];
    let which = random.index(3);
    let mut values = json!({":v": {"N": number.to_string()}});
    match which {
        0 => values[":one"] = json!({"N": "1"}),
        1 => values[":c"] = json!({"S": COLORS[random.index(3)]}),
        _ => {}
    }
    json!({
        "TableName": TABLE, "Key": key, "UpdateExpression": change[which],
        "ExpressionAttributeValues": values,
    })
}

/// A whole item.
pub(super) fn item_of(random: &mut Random, runtime: &SimRuntime, key: Value, number: u64) -> Value {
    let mut item = key;
    item["v"] = json!({"N": number.to_string()});
    item["text"] = json!({"S": "x".repeat(random.index(400))});
    if random.below(3) > 0 {
        item["color"] = json!({"S": COLORS[random.index(3)]});
    }
    if random.below(3) > 0 {
        item["weight"] = json!({"N": random.below(5).to_string()});
    }
    if random.below(6) == 0 {
        let second = runtime.unix_ms() / 1000 + random.below(30);
        item["ttl"] = json!({"N": second.to_string()});
    }
    item
}

/// A write, and whether it leaves its number behind when it is acknowledged.
fn write(
    ledger: &Ledger,
    random: &mut Random,
    runtime: &SimRuntime,
    number: u64,
    keys: u64,
) -> (&'static str, Value, bool) {
    let key = random_key(random, keys);
    match random.below(10) {
        0 | 1 => {
            ledger.asked_delete(&key);
            ("DeleteItem", json!({"TableName": TABLE, "Key": key}), false)
        }
        2..5 => ("UpdateItem", change(random, key, number), true),
        kind => {
            let item = item_of(random, runtime, key, number);
            match kind {
                5 => {
                    let put = json!({"PutRequest": {"Item": item}});
                    ("BatchWriteItem", json!({"RequestItems": {TABLE: [put]}}), false)
                }
                6 => {
                    let body = json!({
                        "TableName": TABLE, "Item": item, "ConditionExpression": "attribute_not_exists(color)",
                    });
                    ("PutItem", body, true)
                }
                _ => ("PutItem", json!({"TableName": TABLE, "Item": item}), true),
            }
        }
    }
}
