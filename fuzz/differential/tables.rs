//! Random operations on tables that come and go: their indexes, streams, capacity, times to live and tags.

use cairn_runtime::sim::Random;
use serde_json::{Value, json};

use crate::requests::Request;
use crate::values::{self, pick};
use crate::world::{self, EXTRA, Index, PASSING, TABLES, World};

fn projection(random: &mut Random, index: &Index) -> Value {
    match random.below(6) {
        0 => json!({"ProjectionType": "INCLUDE"}),
        1 => json!({"ProjectionType": index.projection, "NonKeyAttributes": ["a"]}),
        _ => index.projection(),
    }
}

fn throughput(random: &mut Random) -> Value {
    json!({"ReadCapacityUnits": random.below(4), "WriteCapacityUnits": 1 + random.below(3)})
}

/// A change of the table's indexes.
fn of_indexes(random: &mut Random, body: &mut Value) {
    let all: Vec<&Index> = EXTRA.iter().chain(TABLES[1].indexes).collect();
    let index = all[random.index(all.len())];
    let change = match random.below(8) {
        0..4 => {
            let mut create = json!({"IndexName": index.name, "KeySchema": world::schema(index.keys)});
            create["Projection"] = match random.one_in(10) {
                true => projection(random, index),
                false => index.projection(),
            };
            if random.one_in(6) {
                create["ProvisionedThroughput"] = throughput(random);
            }
            if !random.one_in(20) {
                let keys = TABLES[1].keys.iter().chain(index.keys);
                let mut attributes: Vec<Value> = Vec::new();
                for (name, kind) in keys {
                    let attribute = json!({"AttributeName": name, "AttributeType": kind});
                    if !attributes.contains(&attribute) {
                        attributes.push(attribute);
                    }
                }
                body["AttributeDefinitions"] = attributes.into();
            }
            json!({"Create": create})
        }
        4..7 => json!({"Delete": {"IndexName": index.name}}),
        _ => {
            json!({"Update": {"IndexName": index.name, "ProvisionedThroughput": throughput(random)}})
        }
    };
    body["GlobalSecondaryIndexUpdates"] = json!([change]);
}

fn change(random: &mut Random, name: &str) -> Request {
    let mut body = json!({"TableName": name});
    match random.below(10) {
        0..5 => of_indexes(random, &mut body),
        5 => {
            body["BillingMode"] = pick(random, &["PAY_PER_REQUEST", "PROVISIONED"]).into();
            if random.one_in(2) {
                body["ProvisionedThroughput"] = throughput(random);
            }
        }
        6 => body["ProvisionedThroughput"] = throughput(random),
        7 => body["DeletionProtectionEnabled"] = random.one_in(3).into(),
        8 => {
            body["StreamSpecification"] = match random.below(4) {
                0 => json!({"StreamEnabled": false}),
                1 => json!({"StreamEnabled": true}),
                _ => {
                    let kinds = ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"];
                    json!({"StreamEnabled": true, "StreamViewType": pick(random, &kinds)})
                }
            }
        }
        _ => {}
    }
    if random.one_in(30) {
        body["DeletionProtectionEnabled"] = random.one_in(2).into();
    }
    let operation = "UpdateTable";
    Request::new(operation, body)
}

/// A request about the tags of a table; its ARN is filled in for each server.
fn tags(random: &mut Random, name: &str) -> Request {
    let mut body = json!({"ResourceArn": format!("{}{name}", world::ARN_OF)});
    let keys = ["a", "b", "team", ""];
    let operation = match random.below(3) {
        0 => {
            let tags: Vec<Value> = (0..random.below(3))
                .map(|_| json!({"Key": pick(random, &keys), "Value": pick(random, &["", "x", "y z"])}))
                .collect();
            body["Tags"] = tags.into();
            "TagResource"
        }
        1 => {
            let keys: Vec<&str> = (0..random.below(3)).map(|_| pick(random, &keys)).collect();
            body["TagKeys"] = json!(keys);
            "UntagResource"
        }
        _ => "ListTagsOfResource",
    };
    Request::new(operation, body)
}

/// A request about tables.
pub(crate) fn draw(random: &mut Random, world: &World) -> Request {
    let place = random.index(PASSING.len());
    let name = PASSING[place].name;
    let described = match random.one_in(2) {
        true => name,
        false => TABLES[random.index(TABLES.len())].name,
    };
    let plain = |operation| Request::new(operation, json!({"TableName": described}));
    match random.below(16) {
        0..3 if !world.passing[place] => {
            let indexes = if random.one_in(2) { TABLES[1].indexes } else { &[] };
            let operation = "CreateTable";
            let mut body = world::creation(name, TABLES[1].keys, indexes);
            if random.one_in(4) {
                body["BillingMode"] = "PROVISIONED".into();
                if !random.one_in(3) {
                    body["ProvisionedThroughput"] = throughput(random);
                }
            }
            Request::new(operation, body)
        }
        0 => Request::new("DeleteTable", json!({"TableName": name})),
        1..6 => change(random, name),
        6 => {
            let attribute = pick(random, &["expires", "until", ""]);
            let operation = "UpdateTimeToLive";
            let body = json!({
                "TableName": name,
                "TimeToLiveSpecification": {"Enabled": random.one_in(2), "AttributeName": attribute}
            });
            Request::new(operation, body)
        }
        7..9 => tags(random, name),
        9..11 => plain("DescribeTimeToLive"),
        _ => plain("DescribeTable"),
    }
}

/// The member of a read of streams that says whether the table that is there now ever had one; it is not sent.
pub(crate) const HAD_STREAM: &str = "HadStream";

/// What a stream says, all that is new of it.
pub(crate) fn records(random: &mut Random, world: &World) -> Request {
    let (name, had) = match random.one_in(4) {
        true => {
            let place = random.index(PASSING.len());
            (PASSING[place].name, world.passing[place] && world.streamed[place])
        }
        false => (TABLES[random.index(2)].name, true),
    };
    let operation = "GetRecords";
    let body = json!({"TableName": name, HAD_STREAM: had});
    Request::new(operation, body)
}

/// The items and keys of a table that may not be there.
pub(crate) fn passing(random: &mut Random, world: &World) -> &'static crate::world::Shape {
    let present: Vec<usize> = (0..PASSING.len()).filter(|place| world.passing[*place]).collect();
    if present.is_empty() || random.one_in(40) {
        return &PASSING[random.index(PASSING.len())];
    }
    &PASSING[present[random.index(present.len())]]
}

/// A put to such a table, so that indexes that are added find something.
pub(crate) fn put(random: &mut Random, world: &World) -> Request {
    let table = passing(random, world);
    let operation = "PutItem";
    let body = json!({"TableName": table.name, "Item": values::item(random, table)});
    Request::new(operation, body)
}
