//! Operations and their answers as DynamoDB JSON, which both protocols carry.

use memchr::memmem;

use super::Outcome;
use crate::workload::{Operation, Reading, Shape, Writing, generation_of, push_key};

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
    into.extend_from_slice(br#"{"TableName":""#);
    into.extend_from_slice(table.as_bytes());
    let name = match operation {
        Operation::Get { key, how } => {
            let (before, after, name): (&[u8], &[u8], _) = match how {
                Reading::Get => (br#"","Key":{"p":{"S":""#, br#""}}"#, "DynamoDB_20120810.GetItem"),
                Reading::Query => (
                    br#"","KeyConditionExpression":"p = :p","ExpressionAttributeValues":{":p":{"S":""#,
                    br#""}}"#,
                    "DynamoDB_20120810.Query",
                ),
            };
            into.extend_from_slice(before);
            push_key(into, key);
            into.extend_from_slice(after);
            if consistent {
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
    };
    into.push(b'}');
    name
}

/// The generation of the only item in `body`, which must be one of `key`.
pub(super) fn check(shape: &Shape, scratch: &mut Vec<u8>, key: u64, body: &[u8]) -> Result<u64, Outcome> {
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
        let shape = Shape::new(80);
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
    }
}
