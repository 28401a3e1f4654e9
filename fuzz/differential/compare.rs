//! Whether two answers are the same, but for what has no order or is given out by chance.

use serde_json::Value;

use crate::client::Answer;
use crate::requests::Request;

/// What differs, if anything does.
pub(crate) fn difference(request: &Request, node: &Answer, peer: &Answer) -> Option<String> {
    if node.status != peer.status {
        return Some(format!("status {} and {}", node.status, peer.status));
    }
    if !node.is_ok() {
        // Local has another name for this one than the service model.
        let is_duplicate = node.error() == "DuplicateItemException" && peer.error() == "DuplicateItem";
        if node.error() != peer.error() && !is_duplicate {
            return Some(format!("{} and {}", node.error(), peer.error()));
        }
        let (left, right) = (ordered(&node.body["Item"]), ordered(&peer.body["Item"]));
        if left != right {
            return Some("another item in the error".to_owned());
        }
        let (left, right) = (reasons(&node.body), reasons(&peer.body));
        return (left != right).then(|| format!("reasons {} and {}", codes(&left), codes(&right)));
    }
    let (left, right) = (comparable(request, &node.body), comparable(request, &peer.body));
    if left == right {
        return None;
    }
    let names = left
        .as_object()
        .into_iter()
        .chain(right.as_object())
        .flat_map(|body| body.keys());
    let mut differing: Vec<&String> = names
        .filter(|name| left[name.as_str()] != right[name.as_str()])
        .collect();
    differing.dedup();
    Some(format!("{differing:?}"))
}

/// The body with its lists in an order, and without what is given out by chance.
fn comparable(request: &Request, body: &Value) -> Value {
    let mut body = body.clone();
    match request.operation {
        "DescribeTable" => return table(&body["Table"]),
        "CreateTable" | "DeleteTable" | "UpdateTable" => return Value::Null,
        _ => {}
    }
    let mut sort = |list: &mut Value| {
        if let Some(list) = list.as_array_mut() {
            for item in list.iter_mut() {
                *item = ordered(item);
            }
            list.sort_by_key(Value::to_string);
        }
    };
    if request.is_followed() {
        if !request.is_ordered() {
            sort(&mut body["Items"]);
        }
        // Pages are cut in other places.
        if !request.body["Limit"].is_null() {
            body["ConsumedCapacity"] = Value::Null;
        }
    }
    if let Some(tables) = body.get_mut("Responses").and_then(Value::as_object_mut) {
        tables.values_mut().for_each(&mut sort);
    }
    if let Some(responses) = body.get_mut("Responses").and_then(Value::as_array_mut) {
        for response in responses {
            let members = response.as_object_mut();
            let error = members.and_then(|members| members.get_mut("Error"));
            if let Some(error) = error.and_then(Value::as_object_mut) {
                error.remove("Message");
            }
        }
    }
    if let Some(list) = body.get_mut("Tags").and_then(Value::as_array_mut) {
        list.sort_by_key(Value::to_string);
    }
    if let Some(list) = body.get_mut("ConsumedCapacity").and_then(Value::as_array_mut) {
        list.sort_by_key(Value::to_string);
    }
    let mut body = ordered(&body);
    // Local says now and then what a delete has taken though nobody asked.
    if request.body["ReturnConsumedCapacity"].is_null() {
        body["ConsumedCapacity"] = Value::Null;
    }
    if let Some(members) = body.as_object_mut() {
        // Some name what is empty, and some do not.
        members
            .retain(|_, value| !value.is_null() && value.as_object().is_none_or(|object| !object.is_empty()));
    }
    body
}

/// Codes and items of the reasons for a cancellation; their words are everybody's own.
fn reasons(body: &Value) -> Vec<(Value, Value)> {
    let reasons = body["CancellationReasons"].as_array();
    let one = |reason: &Value| (reason["Code"].clone(), ordered(&reason["Item"]));
    reasons.into_iter().flatten().map(one).collect()
}

fn codes(reasons: &[(Value, Value)]) -> String {
    let codes: Vec<&str> = reasons
        .iter()
        .map(|(code, _)| code.as_str().unwrap_or("-"))
        .collect();
    format!("{codes:?}")
}

/// What is the same of every table of one definition.
fn table(described: &Value) -> Value {
    let index = |index: &Value| {
        let mut kept = serde_json::Map::new();
        for name in ["IndexName", "KeySchema", "Projection", "IndexStatus"] {
            kept.insert(name.to_owned(), index[name].clone());
        }
        Value::Object(kept)
    };
    let mut kept = serde_json::Map::new();
    for name in [
        "TableName",
        "TableStatus",
        "KeySchema",
        "AttributeDefinitions",
        "ItemCount",
        "StreamSpecification",
    ] {
        kept.insert(name.to_owned(), described[name].clone());
    }
    kept.insert(
        "Billing".to_owned(),
        described["BillingModeSummary"]["BillingMode"].clone(),
    );
    let protected = described["DeletionProtectionEnabled"] == true;
    kept.insert("Protected".to_owned(), protected.into());
    let throughput = &described["ProvisionedThroughput"];
    let units =
        ["ReadCapacityUnits", "WriteCapacityUnits"].map(|name| throughput[name].as_u64().unwrap_or(0));
    kept.insert("Throughput".to_owned(), units.to_vec().into());
    for list in ["LocalSecondaryIndexes", "GlobalSecondaryIndexes"] {
        let mut indexes: Vec<Value> = described[list]
            .as_array()
            .into_iter()
            .flatten()
            .map(index)
            .collect();
        indexes.sort_by_key(Value::to_string);
        kept.insert(list.to_owned(), indexes.into());
    }
    let mut kept = Value::Object(kept);
    if let Some(attributes) = kept["AttributeDefinitions"].as_array_mut() {
        attributes.sort_by_key(Value::to_string);
    }
    kept
}

/// The same number, however it is written: its digits without zeros around them, and the exponent of the first. Local shows
/// numbers within documents as they were given.
fn canonical(number: &str) -> String {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let leading = digits.len() - significant.len();
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    format!(
        "{sign}{significant}@{}",
        whole.len() as i64 - leading as i64 + exponent
    )
}

/// The same with the members of sets in an order, and numbers in one form.
pub(crate) fn ordered(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let one = |(name, value): (&String, &Value)| {
                let mut value = ordered(value);
                match (&mut value, name.as_str()) {
                    (Value::String(number), "N") => *number = canonical(number),
                    (Value::Array(list), "NS") => {
                        for number in list.iter_mut() {
                            *number = canonical(number.as_str().unwrap_or_default()).into();
                        }
                    }
                    _ => {}
                }
                if let (true, Some(list)) =
                    (["SS", "NS", "BS"].contains(&name.as_str()), value.as_array_mut())
                {
                    list.sort_by_key(Value::to_string);
                }
                (name.clone(), value)
            };
            Value::Object(members.iter().map(one).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(ordered).collect()),
        Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), Value::from),
        other => other.clone(),
    }
}

/// A message without what differs from request to request: placeholders, values, names.
pub(crate) fn shape(message: &str) -> String {
    let mut shape = String::new();
    for word in message.split(' ') {
        let is_own = word.contains([':', '#', '"', '{', '[', '\'']) && word.len() > 1 && !word.ends_with(':');
        shape.push_str(if is_own { "_" } else { word });
        shape.push(' ');
    }
    shape.trim_end().to_owned()
}
