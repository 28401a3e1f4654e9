//! Operations and their answers as DynamoDB JSON, which both protocols carry.

use memchr::memmem;

use super::Outcome;
use crate::workload::{
    GROUP, Operation, Reading, Shape, Writing, generation_of, group, push_key, push_owner,
};

/// What precedes DynamoDB's name of an operation.
pub(super) const PREFIX: &str = "DynamoDB_20120810.";

/// The condition that the item is there.
const EXISTS: &[u8] = br#","ConditionExpression":"attribute_exists(p)""#;

/// Appends the request's body; gives the operation as HTTP names it.
pub(super) fn write_body(
    into: &mut Vec<u8>,
    (table, shape, consistent): (&str, &Shape, bool),
    operation: Operation,
) -> &'static str {
    if let Operation::Get {
        key,
        how: Reading::Group,
    }
    | Operation::Put {
        key,
        how: Writing::Group,
        ..
    } = operation
    {
        return write_transaction(into, (table, shape), operation, key);
    }
    into.extend_from_slice(br#"{"TableName":""#);
    into.extend_from_slice(table.as_bytes());
    let name = match operation {
        Operation::Get { key, how } => {
            let (before, after, name): (&[u8], &[u8], _) = match how {
                Reading::Local => (
                    br#"","IndexName":"local","KeyConditionExpression":"p = :p","ExpressionAttributeValues":{":p":{"S":""#,
                    br#""}}"#,
                    "DynamoDB_20120810.Query",
                ),
                Reading::Global => (
                    br#"","IndexName":"global","KeyConditionExpression":"o = :o","ExpressionAttributeValues":{":o":{"S":""#,
                    br#""}}"#,
                    "DynamoDB_20120810.Query",
                ),
                Reading::Group => unreachable!("a transaction"),
                Reading::Get => (br#"","Key":{"p":{"S":""#, br#""}}"#, "DynamoDB_20120810.GetItem"),
                Reading::Query => (
                    br#"","KeyConditionExpression":"p = :p","ExpressionAttributeValues":{":p":{"S":""#,
                    br#""}}"#,
                    "DynamoDB_20120810.Query",
                ),
            };
            into.extend_from_slice(before);
            match how {
                Reading::Global => push_owner(into, key),
                _ => push_key(into, key),
            }
            into.extend_from_slice(after);
            if consistent && how != Reading::Global {
                into.extend_from_slice(br#","ConsistentRead":true"#);
            }
            name
        }
        Operation::Put {
            key,
            generation,
            how: how @ (Writing::Put | Writing::Conditional),
        } => {
            into.extend_from_slice(br#"","Item":"#);
            shape.write_json(into, key, generation);
            if how == Writing::Conditional {
                into.extend_from_slice(EXISTS);
            }
            "DynamoDB_20120810.PutItem"
        }
        Operation::Put {
            key,
            generation,
            how: how @ (Writing::Update | Writing::ConditionalUpdate | Writing::Add),
        } => {
            into.extend_from_slice(br#"","Key":{"p":{"S":""#);
            push_key(into, key);
            into.extend_from_slice(br#""}},"#);
            if how == Writing::Add {
                into.extend_from_slice(
                    br#""UpdateExpression":"ADD n :n","ExpressionAttributeValues":{":n":{"N":"1"}}"#,
                );
            } else {
                shape.write_update(into, key, generation);
            }
            if how == Writing::ConditionalUpdate {
                into.extend_from_slice(EXISTS);
            }
            "DynamoDB_20120810.UpdateItem"
        }
        Operation::Put {
            how: Writing::Group, ..
        } => unreachable!("a transaction"),
    };
    into.push(b'}');
    name
}

/// Appends the body of a transaction about the group that begins with `first`.
fn write_transaction(
    into: &mut Vec<u8>,
    (table, shape): (&str, &Shape),
    operation: Operation,
    first: u64,
) -> &'static str {
    into.extend_from_slice(br#"{"TransactItems":["#);
    for key in group(first) {
        if key > first {
            into.push(b',');
        }
        let action: &[u8] = match operation {
            Operation::Get { .. } => br#"{"Get":{"TableName":""#,
            Operation::Put { .. } => br#"{"Put":{"TableName":""#,
        };
        into.extend_from_slice(action);
        into.extend_from_slice(table.as_bytes());
        match operation {
            Operation::Get { .. } => {
                into.extend_from_slice(br#"","Key":{"p":{"S":""#);
                push_key(into, key);
                into.extend_from_slice(br#""}}"#);
            }
            Operation::Put { generation, .. } => {
                into.extend_from_slice(br#"","Item":"#);
                shape.write_json(into, key, generation);
            }
        }
        into.extend_from_slice(b"}}");
    }
    into.extend_from_slice(b"]}");
    match operation {
        Operation::Get { .. } => "DynamoDB_20120810.TransactGetItems",
        Operation::Put { .. } => "DynamoDB_20120810.TransactWriteItems",
    }
}

/// The generation of what an operation has read, which must be what its key asks for. `before` is where the run's
/// generations begin.
pub(super) fn check_read(
    shape: &Shape,
    scratch: &mut Vec<u8>,
    (key, how): (u64, Reading),
    before: u64,
    body: &[u8],
) -> Result<u64, Outcome> {
    match how {
        Reading::Group => check_group(shape, scratch, key, before, body),
        _ => check(shape, scratch, key, body),
    }
}

/// The generation of a group's first item. When one of them is this run's, it is that of all: the run writes none without
/// the others, and a transaction sees all of another one or nothing.
fn check_group(
    shape: &Shape,
    scratch: &mut Vec<u8>,
    first: u64,
    before: u64,
    body: &[u8],
) -> Result<u64, Outcome> {
    let starts: Vec<usize> = memmem::find_iter(body, br#""Item":"#).collect();
    if starts.len() as u64 != GROUP {
        return Err(Outcome::Missing);
    }
    let mut generations = [0; GROUP as usize];
    for (place, key) in group(first).enumerate() {
        let end = starts.get(place + 1).copied().unwrap_or(body.len());
        generations[place] = check(shape, scratch, key, &body[starts[place]..end])?;
    }
    let is_of_run = |generation: &u64| {
        let behind = generation.wrapping_sub(before);
        behind > 0 && behind < 1 << 32
    };
    let torn = generations.iter().any(|generation| *generation != generations[0]);
    if torn && generations.iter().any(is_of_run) {
        return Err(Outcome::Torn);
    }
    Ok(generations[0])
}

/// The generation of the only item in `body`, which must be one of `key`.
fn check(shape: &Shape, scratch: &mut Vec<u8>, key: u64, body: &[u8]) -> Result<u64, Outcome> {
    let text_after = |marker: &[u8]| {
        let start = memmem::find(body, marker)? + marker.len();
        let length = memchr::memchr(b'"', &body[start..])?;
        Some(&body[start..start + length])
    };
    scratch.clear();
    push_key(scratch, key);
    let Some(found) = text_after(br#""p":{"S":""#) else {
        return Err(Outcome::Missing);
    };
    let generation = text_after(br#""g":{"N":""#)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(generation_of);
    let Some(generation) = generation.filter(|_| found == *scratch) else {
        return Err(Outcome::Wrong);
    };
    let payload = |index: usize| {
        let mut marker = *br#""f0":{"S":""#;
        marker[2] += index as u8;
        text_after(&marker)
    };
    if shape.payloads_match(key, generation, scratch, payload) {
        Ok(generation)
    } else {
        Err(Outcome::Wrong)
    }
}

/// What an error means: the condition of a conditional write is that the item is there.
pub(super) fn failed(operation: Option<Operation>, name: String) -> Outcome {
    match operation {
        Some(Operation::Put {
            how: Writing::Conditional | Writing::ConditionalUpdate,
            ..
        }) if name == "ConditionalCheckFailedException" => Outcome::Missing,
        _ => Outcome::Failed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_what_the_api_takes() {
        let shape = Shape::new(80, false);
        let body = |operation| {
            let mut body = Vec::new();
            let name = write_body(&mut body, ("t", &shape, true), operation);
            let name = name.strip_prefix(PREFIX).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            (name, value)
        };
        let get = |how| body(Operation::Get { key: 7, how });
        let put = |how| {
            body(Operation::Put {
                key: 7,
                generation: 3,
                how,
            })
        };
        let (name, value) = get(Reading::Get);
        assert_eq!(
            (name, &value["Key"]["p"]["S"]),
            ("GetItem", &"user000000000007".into())
        );
        let (name, value) = get(Reading::Query);
        assert_eq!(name, "Query");
        assert_eq!(value["ExpressionAttributeValues"][":p"]["S"], "user000000000007");
        assert_eq!(value["ConsistentRead"], true);
        let (name, whole) = put(Writing::Put);
        assert_eq!(name, "PutItem");
        assert_eq!(whole["Item"]["g"]["N"], "100000000000000031");
        let (_, conditional) = put(Writing::Conditional);
        assert_eq!(conditional["Item"], whole["Item"]);
        assert_eq!(conditional["ConditionExpression"], "attribute_exists(p)");
        // An update leaves what a put would.
        let (name, update) = put(Writing::Update);
        assert_eq!((name, &update["Key"]["p"]), ("UpdateItem", &whole["Item"]["p"]));
        let item = whole["Item"].as_object().unwrap();
        let values = update["ExpressionAttributeValues"].as_object().unwrap();
        assert_eq!(values.len(), item.len() - 1);
        for (name, value) in item.iter().filter(|(name, _)| *name != "p") {
            assert_eq!(&values[&format!(":{name}")], value);
            let expression = update["UpdateExpression"].as_str().unwrap();
            assert!(expression.contains(&format!("{name} = :{name}")), "{expression}");
        }
        let (_, conditional) = put(Writing::ConditionalUpdate);
        assert_eq!(conditional["UpdateExpression"], update["UpdateExpression"]);
        assert_eq!(conditional["ConditionExpression"], "attribute_exists(p)");
        let (name, add) = put(Writing::Add);
        assert_eq!((name, &add["Key"]["p"]), ("UpdateItem", &whole["Item"]["p"]));
        assert_eq!(add["UpdateExpression"], "ADD n :n");
        assert_eq!(add["ExpressionAttributeValues"][":n"]["N"], "1");
        let (name, local) = get(Reading::Local);
        assert_eq!((name, &local["IndexName"]), ("Query", &"local".into()));
        assert_eq!(local["ConsistentRead"], true);
        let (_, global) = get(Reading::Global);
        assert_eq!(
            global["ExpressionAttributeValues"][":o"]["S"],
            "owner000000000007"
        );
        assert!(global.get("ConsistentRead").is_none());
        let (name, transaction) = get(Reading::Group);
        assert_eq!(name, "TransactGetItems");
        let last = &transaction["TransactItems"][3]["Get"];
        assert_eq!(
            (&last["TableName"], &last["Key"]["p"]["S"]),
            (&"t".into(), &"user000000000010".into())
        );
        let (name, transaction) = put(Writing::Group);
        assert_eq!(name, "TransactWriteItems");
        assert_eq!(transaction["TransactItems"][0]["Put"]["Item"], whole["Item"]);
        assert_eq!(transaction["TransactItems"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_transaction_that_saw_a_part_is_torn() {
        let shape = Shape::new(80, false);
        let read = |generations: [u64; 4], before| {
            let mut body = br#"{"Responses":["#.to_vec();
            for (key, generation) in (8..).zip(generations) {
                body.extend_from_slice(if key > 8 { br#","# } else { b"" });
                body.extend_from_slice(br#"{"Item":"#);
                shape.write_json(&mut body, key, generation);
                body.push(b'}');
            }
            body.extend_from_slice(b"]}");
            check_read(&shape, &mut Vec::new(), (8, Reading::Group), before, &body)
        };
        let before = 7 << 32;
        assert_eq!(read([before + 3; 4], before), Ok(before + 3));
        let mixed = [before + 3, before + 3, before + 2, before + 3];
        assert_eq!(read(mixed, before), Err(Outcome::Torn));
        assert_eq!(read([0, 0, before + 1, 0], before), Err(Outcome::Torn));
        // Whatever was there before the run.
        assert_eq!(read(mixed, 9 << 32), Ok(before + 3));
        let missing = br#"{"Responses":[{},{},{},{}]}"#;
        let checked = check_read(&shape, &mut Vec::new(), (8, Reading::Group), before, missing);
        assert_eq!(checked, Err(Outcome::Missing));
    }
}
