//! The tables that requests are about.

use std::time::Duration;

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

pub(crate) struct Index {
    pub name: &'static str,
    pub keys: &'static [(&'static str, &'static str)],
    pub global: bool,
    pub projection: &'static str,
}

pub(crate) const TABLES: [Shape; 3] = [
    Shape {
        name: "diff-hash",
        keys: &[("id", "S")],
        indexes: &[],
    },
    Shape {
        name: "diff-range",
        keys: &[("id", "S"), ("n", "N")],
        indexes: &[
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
        ],
    },
    Shape {
        name: "diff-binary",
        keys: &[("b", "B"), ("s", "S")],
        indexes: &[],
    },
];

/// Names of tables that come and go.
pub(crate) const PASSING: [&str; 3] = ["diff-one", "diff-two", "diff-three"];

/// What is known of both servers' state.
#[derive(Default)]
pub(crate) struct World {
    /// Which of [`PASSING`] exist.
    pub passing: [bool; 3],
}

impl World {
    /// Takes note of what a request that both answered alike has done.
    pub(crate) fn note(&mut self, request: &Request, is_ok: bool) {
        let name = request.body["TableName"].as_str().unwrap_or_default();
        let Some(place) = PASSING.iter().position(|passing| *passing == name) else {
            return;
        };
        match request.operation {
            "CreateTable" if is_ok => self.passing[place] = true,
            "DeleteTable" if is_ok => self.passing[place] = false,
            _ => {}
        }
    }
}

/// The request that makes a table of these keys.
pub(crate) fn creation(name: &str, keys: &[(&str, &str)], indexes: &[Index]) -> Value {
    let schema = |keys: &[(&str, &str)]| -> Value {
        let roles = keys.iter().zip(["HASH", "RANGE"]);
        roles
            .map(|((name, _), role)| json!({"AttributeName": name, "KeyType": role}))
            .collect()
    };
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
                    "Projection": {"ProjectionType": index.projection}
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
        let answer = client.call("CreateTable", &creation(table.name, table.keys, table.indexes))?;
        if !answer.is_ok() {
            return Err(format!("{} cannot be created: {answer}", table.name));
        }
        wait(client, table.name, |answer| {
            answer.body["Table"]["TableStatus"] == "ACTIVE"
        })?;
    }
    Ok(())
}

/// Deletes all tables of a run.
pub(crate) fn clear(client: &mut Client) -> Result<(), String> {
    let names = TABLES.iter().map(|table| table.name).chain(PASSING);
    for name in names {
        let body = json!({"TableName": name});
        if client.call("DescribeTable", &body)?.is_ok() {
            let protection = json!({"TableName": name, "DeletionProtectionEnabled": false});
            client.call("UpdateTable", &protection)?;
            // What is still being created or changed cannot be deleted yet.
            for _ in 0..400 {
                if client.call("DeleteTable", &body)?.error() != "ResourceInUseException" {
                    break;
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            wait(client, name, |answer| !answer.is_ok())?;
        }
    }
    Ok(())
}

fn wait(client: &mut Client, name: &str, until: impl Fn(&Answer) -> bool) -> Result<(), String> {
    for _ in 0..400 {
        let answer = client.call("DescribeTable", &json!({"TableName": name}))?;
        if until(&answer) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Err(format!("table {name} does not settle within 10 s"))
}
