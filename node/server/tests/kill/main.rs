//! Kill -9 under load, again and again: nothing that was acknowledged may be lost, nothing else may appear.
//!
//! Eight writers put and delete keys of their own through the native client and note, in an expected-state file,
//! every write before it is sent and again when it is acknowledged. The node is killed at a random moment and
//! started again; then every key must hold its last acknowledged write, or the one that was in flight. Meanwhile indexes of the
//! table are created and deleted; at the end they equal it, says `cairn check`.
//!
//! The table has a stream: every few rounds, and at the end, all of it is replayed, and that must give the table.
//!
//! This proves the process, not the drive: what the kernel was given survives a kill. Drives that lose their cache
//! are the simulator's part.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "drives a real process from outside"
)]

mod expected;
mod node;
mod replay;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_item::{Attribute, Item, ItemView, Value, ValueView, archive};
use cairn_protocol::client::{Client, Error, Options};
use cairn_protocol::message::{Key, KeyPart, Table};

use expected::Expected;
use node::Node;

const ROUNDS: u64 = 50;
const WRITERS: u64 = 8;
/// Few keys, so that most are written in every round.
const KEYS_OF_WRITER: u64 = 24;
const TABLE: &str = r#"{"TableName":"kills","BillingMode":"PAY_PER_REQUEST",
    "KeySchema":[{"AttributeName":"p","KeyType":"HASH"}],
    "AttributeDefinitions":[{"AttributeName":"p","AttributeType":"S"}],
    "StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_AND_OLD_IMAGES"}}"#;
/// The stream is replayed after so many rounds.
const REPLAYED_EVERY: u64 = 17;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let expected = Arc::new(Mutex::new(Expected::create(home.path().join("expected-state"))));
    let mut random = 0x5eed;
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let node = Node::start(home.path());
        let options = Options {
            retries_max: 0,
            ..Options::default()
        };
        let client = Client::connect(&node.native, options).await.unwrap();
        if round == 0 {
            client.json("CreateTable", TABLE.as_bytes()).await.unwrap();
        }
        let table = client.table("kills").await.unwrap();
        verify(&client, &table, &expected).await;
        if round % REPLAYED_EVERY == REPLAYED_EVERY - 1 {
            replay::verify(&client, "kills").await;
        }
        let changing = tokio::spawn(change_index(client.clone(), next(&mut random)));

        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (client, table, expected, stop) =
                    (client.clone(), table.clone(), expected.clone(), stop.clone());
                let seed = round * WRITERS + writer;
                tokio::spawn(async move { write(writer, seed, &client, &table, &expected, &stop).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20 + next(&mut random) % 130)).await;
        node.kill();
        stop.store(true, Ordering::Relaxed);
        changing.await.unwrap();
        for writer in writers {
            acknowledged += writer.await.unwrap();
        }
    }
    let node = Node::start(home.path());
    let client = Client::connect(&node.native, Options::default()).await.unwrap();
    let table = client.table("kills").await.unwrap();
    verify(&client, &table, &expected).await;
    settle(&client).await;
    // What a round was killed in the middle of has been carried out since; with this one there is an index in any case.
    let created = client.json("UpdateTable", CREATE_LAST.as_bytes()).await;
    created.unwrap();
    settle(&client).await;
    // An orderly stop comes when nothing waits for an index: nobody writes any more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let records = replay::verify(&client, "kills").await;
    // A deletion of nothing is acknowledged and has none.
    assert!(
        records > acknowledged / 2,
        "{records} records of {acknowledged} writes"
    );
    assert_eq!(node.stop(), Some(0));
    let checked = node::check(home.path());
    assert!(checked.contains("everything verifies"), "{checked}");
    assert!(!checked.contains("not compared"), "{checked}");
    // A loop that wrote nothing would prove nothing.
    assert!(
        acknowledged > ROUNDS * 20,
        "only {acknowledged} writes were acknowledged"
    );
    println!("{ROUNDS} kills, {acknowledged} acknowledged writes, none lost, {records} records");
}

/// Indexes that come and go; the last one comes at the end.
const INDEXES: [&str; 2] = ["whole", "keys"];
const CREATE_LAST: &str = r#"{"TableName":"kills","AttributeDefinitions":[{"AttributeName":"version","AttributeType":"S"}],
    "GlobalSecondaryIndexUpdates":[{"Create":{"IndexName":"last","KeySchema":[{"AttributeName":"version","KeyType":"HASH"}],
    "Projection":{"ProjectionType":"KEYS_ONLY"}}}]}"#;

/// Creates or deletes an index, if that is possible now. Whatever comes of it, the node is about to be killed.
async fn change_index(client: Client, random: u64) {
    tokio::time::sleep(Duration::from_millis(random % 60)).await;
    let name = INDEXES[(random >> 8) as usize % INDEXES.len()];
    let body = if (random >> 16).is_multiple_of(3) {
        format!(
            r#"{{"TableName":"kills","GlobalSecondaryIndexUpdates":[{{"Delete":{{"IndexName":"{name}"}}}}]}}"#
        )
    } else {
        let projection = if name == INDEXES[0] { "ALL" } else { "KEYS_ONLY" };
        format!(
            r#"{{"TableName":"kills","AttributeDefinitions":[{{"AttributeName":"version","AttributeType":"S"}}],
            "GlobalSecondaryIndexUpdates":[{{"Create":{{"IndexName":"{name}","Projection":{{"ProjectionType":"{projection}"}},
            "KeySchema":[{{"AttributeName":"version","KeyType":"HASH"}}]}}}}]}}"#
        )
    };
    // It may exist, or not exist, or another may be under way.
    let _ = client.json("UpdateTable", body.as_bytes()).await;
}

/// Waits until the table and its indexes are what they are to be.
async fn settle(client: &Client) {
    for _ in 0..600 {
        let described = client
            .json("DescribeTable", br#"{"TableName":"kills"}"#)
            .await
            .unwrap();
        let described = String::from_utf8(described).unwrap();
        if !["CREATING", "DELETING", "UPDATING"]
            .iter()
            .any(|word| described.contains(word))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("an index is neither there nor gone after half a minute");
}

/// Writes until the node dies; gives the number of acknowledged writes.
async fn write(
    writer: u64,
    seed: u64,
    client: &Client,
    table: &Table,
    expected: &Mutex<Expected>,
    stop: &AtomicBool,
) -> u64 {
    let mut random = seed;
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let index = next(&mut random) % KEYS_OF_WRITER;
        let name = format!("w{writer}-{index}");
        let key = Key {
            partition: KeyPart::S(&name),
            sort: None,
        };
        let delete = next(&mut random).is_multiple_of(5);
        let version = expected.lock().unwrap().begin(&name, delete);
        let outcome = if delete {
            client.delete(table, key, false).await
        } else {
            client
                .put(table, key, &archive(&item(&name, version)), false)
                .await
        };
        match outcome {
            Ok(_) => {
                expected.lock().unwrap().acknowledge(&name);
                acknowledged += 1;
            }
            // In flight when the node died: either outcome is right, and the key rests until the next round.
            Err(Error::Unknown { .. } | Error::Unreachable { .. }) => break,
            Err(error) => panic!("{name}: {error}"),
        }
    }
    acknowledged
}

async fn verify(client: &Client, table: &Table, expected: &Mutex<Expected>) {
    let names: Vec<String> = expected.lock().unwrap().names();
    for name in names {
        let key = Key {
            partition: KeyPart::S(&name),
            sort: None,
        };
        let found = client.get(table, key, true).await.unwrap();
        let version = found.map(|bytes| {
            let view = ItemView::validate(&bytes).expect("what is read is an item");
            let version = version_of(view);
            assert_eq!(
                view.to_item(),
                item(&name, version),
                "{name} is not as it was written"
            );
            version
        });
        expected.lock().unwrap().observe(&name, version);
    }
}

/// The whole item follows from its key and version.
fn item(name: &str, version: u64) -> Item {
    let bytes = usize::try_from(version * 37 % 3000).unwrap();
    let text = |text: &str| Value::S(text.to_owned());
    Item::from_attributes(vec![
        Attribute {
            name: "p".into(),
            value: text(name),
        },
        Attribute {
            name: "payload".into(),
            value: Value::B(vec![version as u8; bytes]),
        },
        Attribute {
            name: "version".into(),
            value: text(&version.to_string()),
        },
    ])
}

fn version_of(view: ItemView<'_>) -> u64 {
    match view.get("version") {
        Some(ValueView::S(text)) => text.parse().expect("versions are numbers"),
        other => panic!("an item without a version: {other:?}"),
    }
}

/// A small generator (xorshift*): when the node is killed must differ from round to round, no more.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}
