//! Random requests.

use cairn_runtime::sim::Random;
use serde_json::{Value, json};

use crate::expressions::{self, Operands};
use crate::values;
use crate::world::{Shape, TABLES, World};
use crate::{statements, tables, transactions};

/// One request.
#[derive(Clone)]
pub(crate) struct Request {
    pub operation: &'static str,
    pub body: Value,
    /// Whether it was changed in one place, to be wrong.
    pub is_spoilt: bool,
}

impl Request {
    pub(crate) fn new(operation: &'static str, body: Value) -> Request {
        Request {
            operation,
            body,
            is_spoilt: false,
        }
    }

    /// Whether it may change something.
    pub(crate) fn writes(&self) -> bool {
        let reads = [
            "GetItem",
            "Query",
            "Scan",
            "BatchGetItem",
            "DescribeTable",
            "DescribeTimeToLive",
            "ListTagsOfResource",
            "TransactGetItems",
            "GetRecords",
        ];
        let statement = self.body["Statement"].as_str().unwrap_or_default();
        !reads.contains(&self.operation) && !statement.starts_with("SELECT")
    }

    /// Whether the answer may be behind.
    pub(crate) fn may_lag(&self) -> bool {
        self.operation == "DescribeTable" || !self.body["IndexName"].is_null() || self.is_statement_of_index()
    }

    /// Whether it is a read of pages whose borders say nothing: a hash's or an index's order is everybody's own.
    pub(crate) fn is_followed(&self) -> bool {
        self.operation == "Scan"
            || (self.operation == "Query" && !self.body["IndexName"].is_null())
            || self.operation == "ExecuteStatement"
    }

    /// Whether what is read has an order, however many pages it has.
    pub(crate) fn is_ordered(&self) -> bool {
        let statement = self.body["Statement"].as_str().unwrap_or_default();
        statement.contains("ORDER BY") && !statement.contains(" IN ") && !self.is_statement_of_index()
    }

    fn is_statement_of_index(&self) -> bool {
        let statement = self.body["Statement"].as_str().unwrap_or_default();
        statement.starts_with("SELECT") && statement.contains("\".\"")
    }

    /// The table that this changes as such, if it does.
    pub(crate) fn changed_table(&self) -> Option<&str> {
        let changes = ["CreateTable", "UpdateTable", "DeleteTable"];
        let name = self.body["TableName"].as_str();
        name.filter(|_| changes.contains(&self.operation))
    }
}

pub(crate) fn draw(random: &mut Random, world: &mut World) -> Request {
    let mut table = &TABLES[[0, 1, 1, 1, 2][random.index(5)]];
    if random.one_in(12) {
        table = tables::passing(random, world);
    }
    let mut request = match random.below(100) {
        0..13 => put(random, table),
        13..29 => update(random, table),
        29..33 => delete(random, table),
        33..40 => get(random, table),
        40..50 => query(random, table),
        50..57 => scan(random, table),
        57..60 => batch_get(random),
        60..64 => batch_write(random),
        64..70 => legacy(random, table),
        70..75 => tables::draw(random, world),
        75..77 => tables::put(random, world),
        77..82 => transactions::write(random, world),
        82..84 => transactions::get(random),
        84..94 => statements::statement(random, table),
        94..96 => statements::batch(random),
        96..98 => statements::transaction(random, world),
        _ => return tables::records(random, world),
    };
    if random.one_in(25) {
        spoil(random, &mut request.body);
        request.is_spoilt = true;
    }
    let of_items = ["Item", "Query", "Scan", "Execute"];
    if of_items.iter().any(|name| request.operation.contains(name)) && random.one_in(10) {
        request.body["ReturnConsumedCapacity"] = "TOTAL".into();
    }
    request
}

fn of(table: &Shape) -> Value {
    json!({"TableName": table.name})
}

fn maybe_condition(random: &mut Random, operands: &mut Operands, body: &mut Value) {
    if random.one_in(3) {
        let expression = expressions::condition(random, operands, 2);
        body["ConditionExpression"] = expression.into();
        if random.one_in(4) {
            body["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD".into();
        }
    }
}

fn put(random: &mut Random, table: &Shape) -> Request {
    let mut body = of(table);
    body["Item"] = values::item(random, table);
    let mut operands = Operands::default();
    maybe_condition(random, &mut operands, &mut body);
    operands.give(random, &mut body);
    if random.one_in(3) {
        body["ReturnValues"] = values::pick(random, &["ALL_OLD", "NONE", "ALL_OLD"]).into();
    }
    let operation = "PutItem";
    Request::new(operation, body)
}

fn delete(random: &mut Random, table: &Shape) -> Request {
    let mut body = of(table);
    body["Key"] = values::key(random, table);
    let mut operands = Operands::default();
    maybe_condition(random, &mut operands, &mut body);
    operands.give(random, &mut body);
    if random.one_in(2) {
        body["ReturnValues"] = "ALL_OLD".into();
    }
    let operation = "DeleteItem";
    Request::new(operation, body)
}

fn update(random: &mut Random, table: &Shape) -> Request {
    let mut body = of(table);
    body["Key"] = values::key(random, table);
    let mut operands = Operands::default();
    if !random.one_in(30) {
        body["UpdateExpression"] = expressions::update(random, &mut operands).into();
    }
    maybe_condition(random, &mut operands, &mut body);
    operands.give(random, &mut body);
    if random.one_in(2) {
        let kinds = ["ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW", "NONE"];
        body["ReturnValues"] = values::pick(random, &kinds).into();
    }
    let operation = "UpdateItem";
    Request::new(operation, body)
}

fn get(random: &mut Random, table: &Shape) -> Request {
    let mut body = of(table);
    body["Key"] = values::key(random, table);
    if random.one_in(3) {
        let mut operands = Operands::default();
        body["ProjectionExpression"] = expressions::projection(random, &mut operands).into();
        operands.give(random, &mut body);
        // No operation that only projects takes values.
        body.as_object_mut()
            .expect("an object")
            .remove("ExpressionAttributeValues");
    }
    if random.one_in(2) {
        body["ConsistentRead"] = true.into();
    }
    let operation = "GetItem";
    Request::new(operation, body)
}

/// What Query and Scan have in common.
fn read(random: &mut Random, operands: &mut Operands, body: &mut Value) {
    if random.one_in(2) {
        body["FilterExpression"] = expressions::condition(random, operands, 1).into();
    }
    if random.one_in(3) {
        body["ProjectionExpression"] = expressions::projection(random, operands).into();
    } else if random.one_in(6) {
        body["Select"] =
            values::pick(random, &["COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"]).into();
    }
    if random.one_in(3) {
        body["Limit"] = (1 + random.below(6)).into();
    }
    if random.one_in(4) {
        body["ConsistentRead"] = true.into();
    }
}

fn query(random: &mut Random, table: &Shape) -> Request {
    let mut body = of(table);
    let mut keys = table.keys;
    if !table.indexes.is_empty() && random.one_in(2) {
        let index = &table.indexes[random.index(table.indexes.len())];
        keys = index.keys;
        body["IndexName"] = index.name.into();
    }
    let mut operands = Operands::default();
    body["KeyConditionExpression"] = expressions::key_condition(random, &mut operands, keys).into();
    read(random, &mut operands, &mut body);
    operands.give(random, &mut body);
    if random.one_in(3) {
        body["ScanIndexForward"] = random.one_in(2).into();
    }
    if random.one_in(12) {
        body["ExclusiveStartKey"] = values::key(random, table);
    }
    let operation = "Query";
    Request::new(operation, body)
}

fn scan(random: &mut Random, table: &Shape) -> Request {
    let mut body = of(table);
    if !table.indexes.is_empty() && random.one_in(3) {
        body["IndexName"] = table.indexes[random.index(table.indexes.len())].name.into();
    }
    let mut operands = Operands::default();
    read(random, &mut operands, &mut body);
    operands.give(random, &mut body);
    let operation = "Scan";
    Request::new(operation, body)
}

fn batch_get(random: &mut Random) -> Request {
    let mut items = serde_json::Map::new();
    for _ in 0..1 + random.below(2) {
        let table = &TABLES[random.index(TABLES.len())];
        let keys: Vec<Value> = (0..1 + random.below(4))
            .map(|_| values::key(random, table))
            .collect();
        let mut wanted = json!({"Keys": keys});
        if random.one_in(4) {
            let mut operands = Operands::default();
            wanted["ProjectionExpression"] = expressions::projection(random, &mut operands).into();
            operands.give(random, &mut wanted);
            wanted
                .as_object_mut()
                .expect("an object")
                .remove("ExpressionAttributeValues");
        }
        items.insert(table.name.to_owned(), wanted);
    }
    let operation = "BatchGetItem";
    let body = json!({"RequestItems": items});
    Request::new(operation, body)
}

fn batch_write(random: &mut Random) -> Request {
    let mut items = serde_json::Map::new();
    for _ in 0..1 + random.below(2) {
        let table = &TABLES[random.index(TABLES.len())];
        let writes: Vec<Value> = (0..1 + random.below(4))
            .map(|_| match random.one_in(3) {
                true => json!({"DeleteRequest": {"Key": values::key(random, table)}}),
                false => json!({"PutRequest": {"Item": values::item(random, table)}}),
            })
            .collect();
        items.insert(table.name.to_owned(), writes.into());
    }
    let operation = "BatchWriteItem";
    let body = json!({"RequestItems": items});
    Request::new(operation, body)
}

/// A condition of the legacy parameters.
fn comparison(random: &mut Random) -> Value {
    let operators = [
        "EQ",
        "NE",
        "LE",
        "LT",
        "GE",
        "GT",
        "NOT_NULL",
        "NULL",
        "CONTAINS",
        "NOT_CONTAINS",
        "BEGINS_WITH",
        "IN",
        "BETWEEN",
    ];
    let operator = values::pick(random, &operators);
    let count = match operator {
        "NOT_NULL" | "NULL" => 0,
        "BETWEEN" => 2,
        "IN" => 1 + random.below(3),
        _ => 1,
    };
    let count = if random.one_in(40) { count + 1 } else { count };
    let list: Vec<Value> = (0..count).map(|_| values::value(random, 0)).collect();
    let mut condition = json!({"ComparisonOperator": operator});
    if !list.is_empty() {
        condition["AttributeValueList"] = list.into();
    }
    condition
}

fn comparisons(random: &mut Random) -> Value {
    let pairs = (0..1 + random.below(2)).map(|_| {
        (
            values::pick(random, &values::NAMES).to_owned(),
            comparison(random),
        )
    });
    pairs.collect::<serde_json::Map<_, _>>().into()
}

fn legacy(random: &mut Random, table: &Shape) -> Request {
    let mut body = of(table);
    match random.below(5) {
        0 => {
            body["Item"] = values::item(random, table);
            body["Expected"] = comparisons(random);
            let operation = "PutItem";
            Request::new(operation, body)
        }
        1 => {
            body["Key"] = values::key(random, table);
            let updates = (0..1 + random.below(2)).map(|_| {
                let mut update = json!({"Action": values::pick(random, &["PUT", "ADD", "DELETE"])});
                if !random.one_in(5) {
                    update["Value"] = values::value(random, 1);
                }
                (values::pick(random, &values::NAMES).to_owned(), update)
            });
            body["AttributeUpdates"] = updates.collect::<serde_json::Map<_, _>>().into();
            if random.one_in(3) {
                body["Expected"] = comparisons(random);
            }
            body["ReturnValues"] = "ALL_NEW".into();
            let operation = "UpdateItem";
            Request::new(operation, body)
        }
        2 => {
            body["ScanFilter"] = comparisons(random);
            if random.one_in(2) {
                body["ConditionalOperator"] = values::pick(random, &["AND", "OR"]).into();
            }
            let operation = "Scan";
            Request::new(operation, body)
        }
        3 => {
            let (name, kind) = table.keys[0];
            let value = values::of_type(random, kind);
            body["KeyConditions"] =
                json!({name: {"ComparisonOperator": "EQ", "AttributeValueList": [value]}});
            if random.one_in(2) {
                body["QueryFilter"] = comparisons(random);
            }
            let operation = "Query";
            Request::new(operation, body)
        }
        _ => {
            body["Key"] = values::key(random, table);
            body["AttributesToGet"] = json!([values::pick(random, &values::NAMES), "id"]);
            let operation = "GetItem";
            Request::new(operation, body)
        }
    }
}

/// Changes one place of a request: a member goes, or has another value.
fn spoil(random: &mut Random, body: &mut Value) {
    let mut place = body;
    loop {
        // An empty container has nowhere to go on to.
        let deeper = match &*place {
            Value::Object(members) => !members.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => false,
        };
        if !deeper {
            return;
        }
        let ends = random.one_in(2);
        match place {
            Value::Object(members) => {
                let names: Vec<String> = members.keys().cloned().collect();
                let name = &names[random.index(names.len())];
                if ends || !(members[name].is_object() || members[name].is_array()) {
                    match random.below(5) {
                        0 => {
                            members.remove(name);
                        }
                        1 => members[name] = "".into(),
                        2 => members[name] = Value::Null,
                        3 => members[name] = "a".into(),
                        _ => members[name] = 1.into(),
                    }
                    return;
                }
                place = members
                    .get_mut(&names[random.index(names.len())])
                    .expect("a member");
            }
            Value::Array(list) => {
                let length = list.len();
                let at = random.index(length);
                if ends {
                    list.remove(at);
                    return;
                }
                place = &mut list[at];
            }
            _ => return,
        }
    }
}
