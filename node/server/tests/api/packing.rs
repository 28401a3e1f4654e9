//! What a table's data is packed with, as its tag says.

use std::collections::BTreeMap;

use cairn_engine::tree::Codec;
use cairn_engine::tree::segment::{SegmentHeader, UNIT_BYTES};
use serde_json::json;

use crate::{Machine, NODE};

fn create(machine: &Machine, table: &str, tags: serde_json::Value) {
    let key = json!([{"AttributeName": "k", "KeyType": "HASH"}]);
    let types = json!([{"AttributeName": "k", "AttributeType": "S"}]);
    let body = json!({
        "TableName": table, "BillingMode": "PAY_PER_REQUEST", "KeySchema": key, "AttributeDefinitions": types,
        "Tags": tags,
    });
    machine.ok("CreateTable", &body.to_string());
}

/// Writes so much that both tables are flushed.
fn fill(machine: &Machine) {
    for number in 0..60 {
        for table in ["own", "usual"] {
            let body = "the quick brown fox ".repeat(15_000);
            let item = json!({"k": {"S": format!("{number}")}, "body": {"S": body}});
            machine.ok("PutItem", &json!({"TableName": table, "Item": item}).to_string());
        }
    }
}

/// Codecs of the segments of each of the two tables, the older table first and the older segment first.
fn codecs(machine: &Machine) -> [Vec<Codec>; 2] {
    let image = machine.sim.drive(NODE, "/drive-a").image();
    let mut segments: BTreeMap<_, BTreeMap<_, Codec>> = BTreeMap::new();
    for name in image.names().filter(|name| name.starts_with("segment-")) {
        let content = image.read(name).unwrap();
        // One that is being written has no header yet.
        if content.len() < UNIT_BYTES || content[..UNIT_BYTES].iter().all(|byte| *byte == 0) {
            continue;
        }
        let header = SegmentHeader::decode(&content[..UNIT_BYTES]).unwrap();
        let of_table = segments.entry(header.table).or_default();
        of_table.insert(header.id, header.codec);
    }
    // Those of the node itself are older.
    let mut newest = segments.into_values().rev();
    let mut next = || newest.next().expect("two tables").into_values().collect();
    let usual = next();
    [next(), usual]
}

fn all_are(codecs: &[Codec], codec: Codec) -> bool {
    !codecs.is_empty() && codecs.iter().all(|other| *other == codec)
}

#[test]
fn a_table_is_packed_as_its_tag_says_and_read_whatever_it_says() {
    let machine = Machine::new(31, 1);
    create(
        &machine,
        "own",
        json!([{"Key": "cairn:compression", "Value": "none"}]),
    );
    create(&machine, "usual", json!([]));
    fill(&machine);
    let [own, usual] = codecs(&machine);
    assert!(all_are(&own, Codec::None), "{own:?}");
    assert!(all_are(&usual, Codec::Lz4), "{usual:?}");

    // Also for what a start flushes before it has read the catalog.
    machine.stop();
    machine.start(1);
    fill(&machine);
    let [own, usual] = codecs(&machine);
    assert!(all_are(&own, Codec::None), "{own:?}");
    assert!(all_are(&usual, Codec::Lz4), "{usual:?}");

    let arn = "arn:aws:dynamodb:us-east-1:000000000000:table/own";
    let listed = machine.ok("ListTagsOfResource", &json!({"ResourceArn": arn}).to_string());
    assert_eq!(
        listed["Tags"],
        json!([{"Key": "cairn:compression", "Value": "none"}])
    );
    let untag = json!({"ResourceArn": arn, "TagKeys": ["cairn:compression"]});
    assert_eq!(machine.call("UntagResource", &untag.to_string()), "");
    fill(&machine);
    let [own, usual] = codecs(&machine);
    assert_eq!(own.last(), Some(&Codec::Lz4), "{own:?}");
    assert!(all_are(&usual, Codec::Lz4), "{usual:?}");
    machine.stop();
    machine.start(1);
    for number in 0..60 {
        for table in ["own", "usual"] {
            let body = json!({"TableName": table, "Key": {"k": {"S": format!("{number}")}}});
            let answer = machine.ok("GetItem", &body.to_string());
            assert_eq!(answer["Item"]["body"]["S"].as_str().map(str::len), Some(300_000));
        }
    }
}
