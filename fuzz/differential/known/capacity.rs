//! What Local charges otherwise, table by table.
//!
//! 1. Reads that find nothing cost nothing there, and half a unit at least (a whole one when strongly consistent) by the
//!    documentation. There can be as many of them as keys or pages found nothing.
//! 2. A delete of nothing in a batch costs two there, and one by the documentation.
//! 3. Entries of indexes that a transaction writes cost twice as much there; by the capture in nubo-db/dynoxide
//!    (`index_capacity`) a transaction doubles what the table's item costs and leaves the rest. Items here are below 1 KB, so that
//!    each costs the table two units. An action that changes nothing costs one unit there, or none.
//! 4. A write that takes one of an index's two keys away and adds the other costs one there, though the index has held no entry
//!    and holds none.
//! 5. Which kind of units a transaction consumed is not said there, and nothing at all of statements.

use std::collections::BTreeMap;

use serde_json::Value;

use super::shape::{has, is_about, list, parts, statement, without_capacity};
use crate::client::Answer;
use crate::compare;
use crate::requests::Request;
use crate::world::TABLES;

pub(super) fn is_explained(request: &Request, node: &Answer, peer: &Answer) -> bool {
    let same = || {
        let (node, peer) = (without_capacity(node), without_capacity(peer));
        compare::difference(request, &node, &peer).is_none()
    };
    let (Some(left), Some(right)) = (units(request, node), units(request, peer)) else {
        return false;
    };
    let mut tables = left.keys().chain(right.keys());
    let units = |units: &BTreeMap<String, f64>, table: &String| units.get(table).copied().unwrap_or(0.0);
    let silent = request.operation.contains("Execute") && peer.body["ConsumedCapacity"].is_null();
    node.is_ok()
        && peer.is_ok()
        && tables.all(|table| {
            let about: Vec<&Value> = parts(request)
                .iter()
                .filter(|part| is_about(part, table))
                .collect();
            let units = [units(&left, table), units(&right, table)];
            silent && !about.is_empty() || of_table(request, &about, node, table, units)
        })
        && same()
}

/// Units by table; nothing when kinds of units are said that do not add up.
fn units(request: &Request, answer: &Answer) -> Option<BTreeMap<String, f64>> {
    let consumed = &answer.body["ConsumedCapacity"];
    let all = match consumed {
        Value::Object(_) => std::slice::from_ref(consumed),
        _ => list(consumed),
    };
    let is_transaction = request.operation.contains("Transact");
    let mut units = BTreeMap::new();
    for one in all {
        let total = one["CapacityUnits"].as_f64()?;
        for kind in ["ReadCapacityUnits", "WriteCapacityUnits"] {
            let said = one[kind].as_f64();
            if said.is_some_and(|said| said != total || !is_transaction) {
                return None;
            }
        }
        units.insert(one["TableName"].as_str()?.to_owned(), total);
    }
    Some(units)
}

/// Whether these units, of the node and the peer, are explained; `about` are the parts of the request that are about the table.
fn of_table(request: &Request, about: &[&Value], answer: &Answer, table: &str, units: [f64; 2]) -> bool {
    let [node, peer] = units;
    if node == peer {
        return true;
    }
    let is_transaction = request.operation.contains("Transact");
    if is_transaction {
        let indexed = TABLES
            .iter()
            .any(|standing| standing.name == table && !standing.indexes.is_empty());
        let actions = about.len() as f64;
        // What Local charges less for actions that change nothing.
        let less = 2.0 * (node - actions) - peer;
        return node >= 2.0 * actions
            && (indexed || node == 2.0 * actions)
            && (0.0..=2.0 * actions).contains(&less);
    }
    if node > peer {
        let unit = match has(&request.body, &["ConsistentRead"], |value| value == true) {
            true => 1.0,
            false => 0.5,
        };
        return node - peer <= unit * found_nothing(request, answer, table) as f64;
    }
    let deletes = match request.operation {
        "BatchWriteItem" => list(&request.body["RequestItems"][table])
            .iter()
            .filter(|write| write["DeleteRequest"].is_object())
            .count(),
        "BatchExecuteStatement" => about
            .iter()
            .filter(|part| statement(part).starts_with("DELETE"))
            .count(),
        _ => 0,
    };
    peer - node <= (deletes + crossed(request, answer, table)) as f64
}

/// How many items of a table may have lost one key of an index of two global keys, and got the other.
fn crossed(request: &Request, answer: &Answer, table: &str) -> usize {
    let standing = TABLES.iter().find(|standing| standing.name == table);
    let pairs = standing
        .into_iter()
        .flat_map(|standing| standing.indexes)
        .filter_map(|index| match index.keys {
            [(left, _), (right, _)] if index.global => Some([*left, *right]),
            _ => None,
        });
    let body = &request.body;
    pairs
        .map(|keys| {
            let has_one = |item: &Value| keys.iter().filter(|key| !item[**key].is_null()).count() == 1;
            let old = &answer.body["Attributes"];
            match request.operation {
                // The old item is known only when it was asked for.
                "PutItem" => {
                    let apart = keys
                        .iter()
                        .all(|key| old[*key].is_null() || body["Item"][*key].is_null());
                    usize::from(has_one(&body["Item"]) && (old.is_null() || has_one(old) && apart))
                }
                "UpdateItem" => {
                    let text = body.to_string();
                    usize::from(keys.iter().all(|key| text.contains(key)))
                }
                "BatchWriteItem" => list(&body["RequestItems"][table])
                    .iter()
                    .filter(|write| has_one(&write["PutRequest"]["Item"]))
                    .count(),
                _ => 0,
            }
        })
        .sum()
}

/// How many reads of a table have found nothing.
fn found_nothing(request: &Request, answer: &Answer, table: &str) -> usize {
    let body = &answer.body;
    match request.operation {
        "Query" | "Scan" => usize::from(body["ScannedCount"] == 0),
        "GetItem" => usize::from(body["Item"].is_null()),
        "BatchGetItem" => {
            let keys = list(&request.body["RequestItems"][table]["Keys"]).len();
            keys.saturating_sub(list(&body["Responses"][table]).len())
        }
        _ => 0,
    }
}
