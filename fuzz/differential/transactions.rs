//! Random transactions, and the same again under one token.

use cairn_runtime::sim::Random;
use serde_json::{Value, json};

use crate::expressions::{self, Operands};
use crate::requests::Request;
use crate::values;
use crate::world::{TABLES, World};

fn action(random: &mut Random) -> Value {
    let table = &TABLES[random.index(TABLES.len())];
    let mut body = json!({"TableName": table.name});
    let mut operands = Operands::default();
    let kind = values::pick(
        random,
        &["Put", "Put", "Update", "Update", "Delete", "ConditionCheck"],
    );
    match kind {
        "Put" => body["Item"] = values::item(random, table),
        _ => body["Key"] = values::key(random, table),
    }
    if kind == "Update" {
        body["UpdateExpression"] = expressions::update(random, &mut operands).into();
    }
    if kind == "ConditionCheck" || random.one_in(3) {
        body["ConditionExpression"] = match random.one_in(2) {
            // Of conditions on anything few are true.
            true => format!(
                "attribute_not_exists({})",
                expressions::path(random, &mut operands)
            ),
            false => expressions::condition(random, &mut operands, 1),
        }
        .into();
        if random.one_in(3) {
            body["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD".into();
        }
    }
    operands.give(random, &mut body);
    json!({kind: body})
}

pub(crate) fn write(random: &mut Random, world: &mut World) -> Request {
    let operation = "TransactWriteItems";
    if let Some(body) = world.repeated(random, operation) {
        return Request::new(operation, body);
    }
    let mut items: Vec<Value> = match random.below(150) {
        0 => Vec::new(),
        // As many as there may be, and one more.
        1 => (0..100 + random.below(2))
            .map(|number| json!({"Put": {"TableName": TABLES[0].name, "Item": {"id": {"S": format!("t{number}")}}}}))
            .collect(),
        _ => (0..1 + random.below(4)).map(|_| action(random)).collect(),
    };
    if random.one_in(60) && items.len() > 1 {
        // Two actions in one place.
        let second = items.pop().expect("more than one");
        if let (Some(first), Some(second)) = (items[0].as_object_mut(), second.as_object()) {
            first.extend(second.clone());
        }
    }
    let mut body = json!({"TransactItems": items});
    world.maybe_token(random, operation, &mut body);
    Request::new(operation, body)
}

pub(crate) fn get(random: &mut Random) -> Request {
    let count = if random.one_in(100) {
        101
    } else {
        1 + random.below(5)
    };
    let items: Vec<Value> = (0..count)
        .map(|_| {
            let table = &TABLES[random.index(TABLES.len())];
            let mut get = json!({"TableName": table.name, "Key": values::key(random, table)});
            if random.one_in(3) {
                let mut operands = Operands::default();
                get["ProjectionExpression"] = expressions::projection(random, &mut operands).into();
                operands.give(random, &mut get);
                get.as_object_mut()
                    .expect("an object")
                    .remove("ExpressionAttributeValues");
            }
            json!({"Get": get})
        })
        .collect();
    let operation = "TransactGetItems";
    let body = json!({"TransactItems": items});
    Request::new(operation, body)
}
