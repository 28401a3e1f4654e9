//! What requests and answers look like, for rules to be as narrow as what they explain.

use serde_json::Value;

use crate::client::Answer;
use crate::compare::ordered;
use crate::requests::Request;
use crate::world::TABLES;

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Every member of the request, wherever it is, with its name.
pub(super) fn members(body: &Value) -> Vec<(&str, &Value)> {
    let mut all = Vec::new();
    match body {
        Value::Object(members_of) => {
            for (name, value) in members_of {
                all.push((name.as_str(), value));
                all.extend(members(value));
            }
        }
        Value::Array(list) => all.extend(list.iter().flat_map(members)),
        _ => {}
    }
    all
}

/// Whether a member of one of these names has such a value, wherever it is.
pub(super) fn has(body: &Value, names: &[&str], is: impl Fn(&Value) -> bool) -> bool {
    members(body)
        .into_iter()
        .any(|(name, value)| names.contains(&name) && is(value))
}

/// Whether an expression of the request has this word as a name.
pub(super) fn names_in_expressions(request: &Request, word: &str) -> bool {
    let expressions = members(&request.body)
        .into_iter()
        .filter(|(name, _)| name.ends_with("Expression"));
    expressions.into_iter().any(|(_, value)| {
        let mut words =
            text(value).split(|letter: char| !letter.is_alphanumeric() && !"#:_".contains(letter));
        words.any(|found| found.eq_ignore_ascii_case(word))
    })
}

/// The parts of a request that have an outcome each: statements, or the actions of a transaction.
pub(super) fn parts(request: &Request) -> &[Value] {
    match request.operation {
        "BatchExecuteStatement" => list(&request.body["Statements"]),
        "ExecuteTransaction" => list(&request.body["TransactStatements"]),
        "TransactWriteItems" | "TransactGetItems" => list(&request.body["TransactItems"]),
        _ => std::slice::from_ref(&request.body),
    }
}

/// The text of a statement; none for another part.
pub(super) fn statement(part: &Value) -> &str {
    text(&part["Statement"])
}

/// Whether a part is about this table.
pub(super) fn is_about(part: &Value, table: &str) -> bool {
    has(part, &["TableName"], |name| name == table) || statement(part).contains(&format!("\"{table}\""))
}

/// Whether the request names a table that need not be there.
pub(super) fn names_passing_table(request: &Request) -> bool {
    let is_standing = |name: &str| TABLES.iter().any(|table| table.name == name);
    let named = members(&request.body)
        .into_iter()
        .filter(|(name, _)| *name == "TableName")
        .map(|(_, value)| text(value));
    let listed = request.body["RequestItems"].as_object().into_iter().flatten();
    let of_arn = request.body["ResourceArn"].as_str();
    let mut all = named.chain(listed.map(|(name, _)| name.as_str())).chain(of_arn);
    all.any(|name| !is_standing(name))
}

/// Whether the errors are of these types.
pub(super) fn errors(node: &Answer, peer: &Answer, expected: [&str; 2]) -> bool {
    [node.error(), peer.error()] == expected
}

/// Whether a part of a document is what is left of the whole when members and elements are taken away.
pub(super) fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|whole| is_part(value, whole))),
        (Value::Array(part), Value::Array(whole)) => {
            let mut rest = whole.iter();
            part.iter()
                .all(|value| rest.any(|candidate| is_part(value, candidate)))
        }
        _ => part == whole,
    }
}

/// The scalars of a document, in an order, without the names on the way to them.
pub(super) fn scalars(value: &Value) -> Vec<String> {
    fn gather(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    match value {
                        Value::Object(_) | Value::Array(_) => gather(value, into),
                        scalar => into.push(format!("{name} {scalar}")),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|value| gather(value, into)),
            scalar => into.push(scalar.to_string()),
        }
    }
    let mut all = Vec::new();
    gather(&ordered(value), &mut all);
    all.sort();
    all
}

/// Items in a form that can be compared and sorted.
pub(super) fn canonical(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| ordered(item).to_string()).collect()
}

/// Without what was consumed.
pub(super) fn without_capacity(answer: &Answer) -> Answer {
    without(answer, &["ConsumedCapacity"])
}

/// Without these members.
pub(super) fn without(answer: &Answer, names: &[&str]) -> Answer {
    let mut answer = answer.clone();
    if let Some(members) = answer.body.as_object_mut() {
        members.retain(|name, _| !names.contains(&name.as_str()));
    }
    answer
}
