//! Clients of a simulated node: what they ask for, and what they were told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use cairn::api::{ApiError, Service};
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Random, SimRuntime};
use serde_json::{Value, json};

pub(super) const TABLE: &str = "simulated";
const COLORS: [&str; 3] = ["red", "green", "blue"];

/// What all rounds of a run know.
#[derive(Default)]
pub(super) struct Ledger {
    /// Every write that was asked for has a number of its own.
    next: Cell<u64>,
    /// Numbers of writes that were acknowledged and left their number in the item.
    pub(super) acknowledged: RefCell<BTreeSet<u64>>,
    /// Answers, refusals counted.
    pub(super) answered: Cell<u64>,
    pub(super) refused: Cell<u64>,
    failure: RefCell<Option<String>>,
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

    fn take(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
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

/// Asks for `operations` writes, one after the other.
pub(super) async fn client(
    ledger: Rc<Ledger>,
    service: Service<SimRuntime>,
    runtime: SimRuntime,
    mut random: Random,
    operations: u64,
    keys: u64,
) {
    for _ in 0..operations {
        let number = ledger.take();
        let (operation, body, leaves) = write(&mut random, &runtime, number, keys);
        let answer = call(&service, operation, body).await;
        ledger.answered.set(ledger.answered.get() + 1);
        match answer {
            Ok(_) if leaves => {
                ledger.acknowledged.borrow_mut().insert(number);
            }
            Ok(_) => {}
            Err(error) => match error.name() {
                "ConditionalCheckFailedException" => {}
                "ProvisionedThroughputExceededException"
                | "ServiceUnavailableException"
                | "InternalServerError" => {
                    ledger.refused.set(ledger.refused.get() + 1);
                }
                _ => ledger.fail(format!("{operation}: {error}")),
            },
        }
        if random.below(8) == 0 {
            let pause = std::time::Duration::from_millis(random.below(200));
            runtime.sleep(pause).await;
        }
    }
}

/// A write, and whether it leaves its number behind when it is acknowledged.
fn write(random: &mut Random, runtime: &SimRuntime, number: u64, keys: u64) -> (&'static str, Value, bool) {
    let key = json!({
        "id": {"S": format!("i{}", random.below(keys))}, "n": {"N": random.below(3).to_string()},
    });
    match random.below(10) {
        0 | 1 => ("DeleteItem", json!({"TableName": TABLE, "Key": key}), false),
        2..5 => {
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
            let body = json!({
                "TableName": TABLE, "Key": key, "UpdateExpression": change[which],
                "ExpressionAttributeValues": values,
            });
            ("UpdateItem", body, true)
        }
        kind => {
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
