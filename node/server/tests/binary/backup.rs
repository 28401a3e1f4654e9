//! A backup of a node that is being written to, by the real binary: made, checked, served, compared.
#![allow(clippy::disallowed_methods, reason = "clients of the node are threads")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Node, anywhere, command, failing_tool, start, tool};

const WRITERS: usize = 4;
/// Puts of each writer before the backup; large enough that memtables are flushed meanwhile.
const PUTS_BEFORE: u64 = 250;
const ITEM_BYTES: usize = 40_000;

/// The root key of the node, which no backup has.
const KEY: &str = "cairn-data/state/root.key";

/// What `cairn check` says of these directories.
fn check(home: &Path, directories: &[&str]) -> String {
    tool(home, &[&["check", "--root-key-file", KEY], directories].concat())
}

fn put(node: &Node, writer: usize, number: u64) -> String {
    let padding = "x".repeat(ITEM_BYTES);
    node.call(
        "PutItem",
        &format!(
            "{{\"TableName\":\"orders\",\"Item\":{{\"id\":{{\"S\":\"{writer}-{number}\"}},\"of\":{{\"S\":\"w{writer}\"}},\
             \"n\":{{\"N\":\"{number}\"}},\"padding\":{{\"S\":\"{padding}\"}}}}}}"
        ),
    )
}

/// How many of a writer's items there are: in the table, and in its index.
fn count(node: &Node, writer: usize) -> (u64, u64) {
    let mut table = 0;
    while node
        .call(
            "GetItem",
            &format!(
                "{{\"TableName\":\"orders\",\"Key\":{{\"id\":{{\"S\":\"{writer}-{table}\"}}}},\
                 \"ProjectionExpression\":\"n\"}}"
            ),
        )
        .contains("Item")
    {
        table += 1;
    }
    let (mut index, mut from) = (0, String::new());
    loop {
        let page = node.call(
            "Query",
            &format!(
                "{{\"TableName\":\"orders\",\"IndexName\":\"by-of\",\"KeyConditionExpression\":\"#o = :o\",\
                 \"ExpressionAttributeNames\":{{\"#o\":\"of\"}},\
                 \"ExpressionAttributeValues\":{{\":o\":{{\"S\":\"w{writer}\"}}}}{from}}}"
            ),
        );
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        index += page["Count"].as_u64().unwrap();
        match page.get("LastEvaluatedKey") {
            Some(key) => from = format!(",\"ExclusiveStartKey\":{key}"),
            None => return (table, index),
        }
    }
}

fn copy_of(home: &Path, directory: &str) -> Vec<String> {
    let path = |name: &str| -> PathBuf { home.join(directory).join(name) };
    vec![
        "--drive".to_owned(),
        path("drive").display().to_string(),
        "--state".to_owned(),
        path("state").display().to_string(),
        "--root-key-file".to_owned(),
        home.join(KEY).display().to_string(),
    ]
}

#[test]
fn a_backup_under_load_is_the_node_at_one_moment() {
    let home = tempfile::tempdir().unwrap();
    let node = Arc::new(start(anywhere(&mut command(home.path()))));
    let created = node.call(
        "CreateTable",
        "{\"TableName\":\"orders\",\"KeySchema\":[{\"AttributeName\":\"id\",\"KeyType\":\"HASH\"}],\
         \"AttributeDefinitions\":[{\"AttributeName\":\"id\",\"AttributeType\":\"S\"},\
         {\"AttributeName\":\"of\",\"AttributeType\":\"S\"}],\"BillingMode\":\"PAY_PER_REQUEST\",\
         \"GlobalSecondaryIndexes\":[{\"IndexName\":\"by-of\",\"KeySchema\":[{\"AttributeName\":\"of\",\"KeyType\":\"HASH\"}],\
         \"Projection\":{\"ProjectionType\":\"KEYS_ONLY\"}}]}",
    );
    assert!(created.contains("\"TableName\":\"orders\""), "{created}");
    let stop = Arc::new(AtomicBool::new(false));
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (node, stop) = (Arc::clone(&node), Arc::clone(&stop));
            let (sent, acknowledged) = (Arc::clone(&sent), Arc::clone(&acknowledged));
            std::thread::spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    sent[writer].store(number + 1, Ordering::SeqCst);
                    assert_eq!(put(&node, writer, number), "{}");
                    acknowledged[writer].store(number + 1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let read = |counts: &[AtomicU64]| -> Vec<u64> {
        counts.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    };
    while read(&acknowledged).iter().any(|count| *count < PUTS_BEFORE) {
        std::thread::yield_now();
    }

    let admin = ["--admin", &node.addresses["admin"]];
    let before = read(&acknowledged);
    let said = tool(home.path(), &["backup", "a copy", admin[0], admin[1]]);
    let after = read(&sent);
    assert!(said.contains("is complete and verified"), "{said}");
    assert!(!said.contains(" 0 of them hard links"), "{said}");
    let again = failing_tool(home.path(), &["backup", "a copy", admin[0], admin[1]]);
    assert!(again.contains("an empty directory"), "{again}");
    // Where nothing can be written there is no backup, and the node goes on.
    std::fs::write(home.path().join("file"), "").unwrap();
    let refused = failing_tool(home.path(), &["backup", "file", admin[0], admin[1]]);
    assert!(refused.contains("there is no backup in"), "{refused}");
    stop.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.join().unwrap();
    }
    let page = node.ask(
        "admin",
        "POST /backup?directory=/tmp/x HTTP/1.1\r\nHost: a\r\nOrigin: http://evil\r\nConnection: close\r\n\r\n",
    );
    assert!(page.starts_with("HTTP/1.1 403 "), "{page}");

    let checked = check(home.path(), &["a copy/drive"]);
    assert!(checked.contains("everything verifies"), "{checked}");
    let keyless = failing_tool(home.path(), &["check", "a copy/drive"]);
    assert!(keyless.contains("no root key was given"), "{keyless}");
    // Beside the node it was made of, which goes on too.
    let options = copy_of(home.path(), "a copy");
    let copy = start(anywhere(command(home.path()).args(&options)));
    for writer in 0..WRITERS {
        let (table, index) = count(&copy, writer);
        assert!(
            before[writer] <= table && table <= after[writer],
            "{} <= {table} <= {}",
            before[writer],
            after[writer]
        );
        assert_eq!(table, index, "the index equals its table");
        assert_eq!(put(&copy, writer, table), "{}");
        assert!(put(&node, writer, 1_000_000) == "{}");
    }
    assert_eq!(copy.stop("-TERM"), Some(0));
    let node = Arc::into_inner(node).unwrap();
    assert_eq!(node.stop("-TERM"), Some(0));
    for drives in [
        &["a copy/drive"][..],
        &["cairn-data/drive-a", "cairn-data/drive-b"],
    ] {
        let checked = check(home.path(), drives);
        assert!(checked.contains("everything verifies"), "{checked}");
    }

    // Its drives are no drives of the node.
    let mixed = failing_tool(
        home.path(),
        &[
            "check",
            "--state",
            "cairn-data/state",
            "cairn-data/drive-a",
            "a copy/drive",
        ],
    );
    assert!(mixed.contains("another copy of this node"), "{mixed}");
}

#[test]
fn a_node_killed_in_the_middle_leaves_no_backup_that_starts() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let node = start(anywhere(&mut command(home.path())));
        let directory = home.path().join(format!("copy-{round}"));
        let admin = node.addresses["admin"].clone();
        let path = format!("/backup?directory={}", directory.display());
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let accepted = node.ask("admin", &request);
        assert!(accepted.starts_with("HTTP/1.1 202 "), "{accepted}");
        let second = node.ask("admin", &request);
        // The directories and the mark come first.
        while !directory.join("state/witness").exists() {
            std::thread::yield_now();
        }
        assert_eq!(node.stop("-KILL"), None);
        let nowhere = failing_tool(home.path(), &["backup", "copy", "--admin", &admin]);
        assert!(nowhere.contains("no node answers"), "{nowhere}");
        let drive = format!("copy-{round}/drive");
        let check = std::process::Command::new(super::CAIRN)
            .args(["check", "--root-key-file", KEY, &drive])
            .current_dir(home.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&check.stderr).into_owned();
        if check.status.success() {
            continue;
        }
        assert!(second.contains("another backup is under way"), "{second}");
        assert!(said.contains("a backup that is not complete"), "{said}");
        let served = anywhere(command(home.path()).args(copy_of(home.path(), &format!("copy-{round}"))))
            .output()
            .unwrap();
        assert_eq!(served.status.code(), Some(1));
        let said = String::from_utf8_lossy(&served.stderr).into_owned();
        assert!(said.contains("a backup that is not complete"), "{said}");
    }
    let checked = check(home.path(), &["cairn-data/drive-a", "cairn-data/drive-b"]);
    assert!(checked.contains("everything verifies"), "{checked}");
}
