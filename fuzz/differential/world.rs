//! The tables that requests are about.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_runtime::sim::Random;
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::requests::Request;

/// A table that is always there.
pub(crate) struct Shape {
    pub name: &'static str,
    /// Name and type of the partition key and, if there is one, the sort key.
    pub keys: &'static [(&'static str, &'static str)],
    pub indexes: &'static [Index],
}

#[derive(Clone, Copy)]
pub(crate) struct Index {
    pub name: &'static str,
    pub keys: &'static [(&'static str, &'static str)],
    pub global: bool,
    /// One that includes attributes includes [`INCLUDED`].
    pub projection: &'static str,
}

/// What indexes that include attributes include.
const INCLUDED: [&str; 2] = ["a", "doc"];

impl Index {
    pub(crate) fn projection(&self) -> Value {
        let mut projection = json!({"ProjectionType": self.projection});
        if self.projection == "INCLUDE" {
            projection["NonKeyAttributes"] = json!(INCLUDED);
        }
        projection
    }
}

const INDEXES: [Index; 3] = [
    Index {
        name: "local-color",
        keys: &[("id", "S"), ("color", "S")],
        global: false,
        projection: "ALL",
    },
    Index {
        name: "global-color",
        keys: &[("color", "S"), ("size", "N")],
        global: true,
        projection: "ALL",
    },
    Index {
        name: "global-size",
        keys: &[("size", "N")],
        global: true,
        projection: "KEYS_ONLY",
    },
];

/// Indexes that are added to tables later.
pub(crate) const EXTRA: [Index; 3] = [
    Index {
        name: "extra-num",
        keys: &[("num", "N")],
        global: true,
        projection: "INCLUDE",
    },
    Index {
        name: "extra-id",
        keys: &[("id", "S"), ("num", "N")],
        global: true,
        projection: "ALL",
    },
    Index {
        name: "extra-color",
        keys: &[("color", "S")],
        global: true,
        projection: "KEYS_ONLY",
    },
];

static ALL_INDEXES: [Index; 6] = [INDEXES[0], INDEXES[1], INDEXES[2], EXTRA[0], EXTRA[1], EXTRA[2]];

pub(crate) static TABLES: [Shape; 3] = [
    Shape {
        name: "diff-hash",
        keys: &[("id", "S")],
        indexes: &[],
    },
    Shape {
        name: "diff-range",
        keys: &[("id", "S"), ("n", "N")],
        indexes: &INDEXES,
    },
    Shape {
        name: "diff-binary",
        keys: &[("b", "B"), ("s", "S")],
        indexes: &[],
    },
];

/// Tables that come and go, with all indexes that they ever have.
pub(crate) static PASSING: [Shape; 3] = [passing("diff-one"), passing("diff-two"), passing("diff-three")];

const fn passing(name: &'static str) -> Shape {
    Shape {
        name,
        keys: &[("id", "S"), ("n", "N")],
        indexes: &ALL_INDEXES,
    }
}

/// Time between two looks at a table that is being changed.
const SETTLE_WAIT: Duration = Duration::from_millis(5);

/// How an ARN of a table begins that is filled in for each server.
pub(crate) const ARN_OF: &str = "arn of ";

/// What is known of both servers' state.
#[derive(Default)]
pub(crate) struct World {
    /// Which of [`PASSING`] exist.
    pub passing: [bool; 3],
    /// Which of them have ever had a stream since they were made.
    pub streamed: [bool; 3],
    /// Transactions with tokens, the last of each operation.
    tokens: BTreeMap<&'static str, Value>,
}

impl World {
    /// Gives a transaction a token now and then, and remembers it.
    pub(crate) fn maybe_token(&mut self, random: &mut Random, operation: &'static str, body: &mut Value) {
        if random.one_in(4) {
            body["ClientRequestToken"] = format!("token-{:016x}", random.next_u64()).into();
            self.tokens.insert(operation, body.clone());
        }
    }

    /// A transaction that was sent before, or another one under its token.
    pub(crate) fn repeated(&self, random: &mut Random, operation: &str) -> Option<Value> {
        let mut body = self.tokens.get(operation)?.clone();
        if !random.one_in(12) {
            return None;
        }
        if random.one_in(3) {
            let list = body.as_object_mut()?.values_mut().find_map(Value::as_array_mut)?;
            let first = list.first()?.clone();
            list.push(first);
            list.remove(0);
            if list.len() < 2 {
                list.clear();
            }
        }
        Some(body)
    }

    /// Takes note of what a request that both answered alike has done.
    pub(crate) fn note(&mut self, request: &Request, is_ok: bool) {
        let name = request.body["TableName"].as_str().unwrap_or_default();
        let Some(place) = PASSING.iter().position(|passing| passing.name == name) else {
            return;
        };
        match request.operation {
            "CreateTable" if is_ok => {
                self.passing[place] = true;
                self.streamed[place] = request.body["StreamSpecification"]["StreamEnabled"] == true;
            }
            "DeleteTable" if is_ok => self.passing[place] = false,
            "UpdateTable" if is_ok && request.body["StreamSpecification"]["StreamEnabled"] == true => {
                self.streamed[place] = true;
            }
            _ => {}
        }
    }
}

pub(crate) fn schema(keys: &[(&str, &str)]) -> Value {
    let roles = keys.iter().zip(["HASH", "RANGE"]);
    roles
        .map(|((name, _), role)| json!({"AttributeName": name, "KeyType": role}))
        .collect()
}

/// The request that makes a table of these keys.
pub(crate) fn creation(name: &str, keys: &[(&str, &str)], indexes: &[Index]) -> Value {
    let mut attributes: Vec<(&str, &str)> = Vec::new();
    for key in keys.iter().chain(indexes.iter().flat_map(|index| index.keys)) {
        if !attributes.contains(key) {
            attributes.push(*key);
        }
    }
    let mut body = json!({"TableName": name, "BillingMode": "PAY_PER_REQUEST", "KeySchema": schema(keys)});
    body["AttributeDefinitions"] = attributes
        .iter()
        .map(|(name, kind)| json!({"AttributeName": name, "AttributeType": kind}))
        .collect();
    for (list, global) in [("LocalSecondaryIndexes", false), ("GlobalSecondaryIndexes", true)] {
        let of_kind = indexes.iter().filter(|index| index.global == global);
        let listed: Vec<Value> = of_kind
            .map(|index| {
                json!({
                    "IndexName": index.name, "KeySchema": schema(index.keys),
                    "Projection": index.projection()
                })
            })
            .collect();
        if !listed.is_empty() {
            body[list] = listed.into();
        }
    }
    body
}

pub(crate) fn create(client: &mut Client) -> Result<(), String> {
    for table in &TABLES {
        let mut body = creation(table.name, table.keys, table.indexes);
        // The first two have streams, which are compared.
        if table.keys[0].0 == "id" {
            body["StreamSpecification"] =
                json!({"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"});
        }
        let answer = client.call("CreateTable", &body)?;
        if !answer.is_ok() {
            return Err(format!("{} cannot be created: {answer}", table.name));
        }
        settle(client, table.name)?;
    }
    Ok(())
}

/// Deletes all tables of a run.
pub(crate) fn clear(client: &mut Client) -> Result<(), String> {
    let names = TABLES.iter().chain(&PASSING).map(|table| table.name);
    for name in names {
        let body = json!({"TableName": name});
        if !client.call("DescribeTable", &body)?.is_ok() {
            continue;
        }
        // What is still being created or changed can neither be changed nor deleted.
        let described = settle(client, name)?;
        if described.body["Table"]["DeletionProtectionEnabled"] == true {
            let protection = json!({"TableName": name, "DeletionProtectionEnabled": false});
            let answer = client.call("UpdateTable", &protection)?;
            if !answer.is_ok() {
                return Err(format!("{name} remains protected: {answer}"));
            }
            settle(client, name)?;
        }
        let answer = client.call("DeleteTable", &body)?;
        if !answer.is_ok() {
            return Err(format!("{name} cannot be deleted: {answer}"));
        }
        wait(client, name, |answer| !answer.is_ok())?;
    }
    Ok(())
}

/// The ARN of a table; of one that is not there, what it would be.
pub(crate) fn arn(client: &mut Client, name: &str) -> Result<Value, String> {
    let mut described = client.call("DescribeTable", &json!({"TableName": name}))?;
    if described.is_ok() {
        return Ok(described.body["Table"]["TableArn"].take());
    }
    // Whose it is, is learned from one that is there.
    let known = TABLES[0].name;
    let mut described = client.call("DescribeTable", &json!({"TableName": known}))?;
    let arn = described.body["Table"]["TableArn"].take();
    Ok(arn.as_str().unwrap_or_default().replace(known, name).into())
}

/// Waits until a table and its indexes are what they are to be, if there is one; gives its description.
pub(crate) fn settle(client: &mut Client, name: &str) -> Result<Answer, String> {
    wait(client, name, |answer| {
        let table = &answer.body["Table"];
        let is_busy = |status: &Value| status.is_string() && status != "ACTIVE";
        let indexes = table["GlobalSecondaryIndexes"].as_array();
        !is_busy(&table["TableStatus"])
            && !indexes
                .into_iter()
                .flatten()
                .any(|index| is_busy(&index["IndexStatus"]))
    })
}

fn wait(client: &mut Client, name: &str, until: impl Fn(&Answer) -> bool) -> Result<Answer, String> {
    let mut answer = client.call("DescribeTable", &json!({"TableName": name}))?;
    for _ in 0..client.settle_waits {
        if until(&answer) {
            return Ok(answer);
        }
        std::thread::sleep(SETTLE_WAIT);
        answer = client.call("DescribeTable", &json!({"TableName": name}))?;
    }
    Err(format!("table {name} does not settle: {answer}"))
}
