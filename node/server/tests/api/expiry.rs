//! The time to live: its operations, and that what has expired goes, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_runtime::Runtime;
use expect_test::{Expect, expect};

use crate::Machine;

fn create(machine: &Machine, table: &str) {
    machine.create(table, &[("id", "S")]);
}

fn enable(machine: &Machine, table: &str, attribute: &str) {
    let body = format!(
        r#"{{"TableName":"{table}","TimeToLiveSpecification":{{"AttributeName":"{attribute}","Enabled":true}}}}"#
    );
    machine.ok("UpdateTimeToLive", &body);
}

fn put(machine: &Machine, table: &str, id: &str, ttl: u64) {
    let body = format!(r#"{{"TableName":"{table}","Item":{{"id":{{"S":"{id}"}},"ttl":{{"N":"{ttl}"}}}}}}"#);
    assert_eq!(machine.call("PutItem", &body), "{}");
}

/// The keys of a table's items, sorted.
fn ids(machine: &Machine, table: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut start = String::new();
    loop {
        let answer = machine.ok("Scan", &format!(r#"{{"TableName":"{table}"{start}}}"#));
        let items = answer["Items"].as_array().unwrap();
        ids.extend(
            items
                .iter()
                .map(|item| item["id"]["S"].as_str().unwrap().to_owned()),
        );
        match answer.get("LastEvaluatedKey") {
            Some(key) => start = format!(r#","ExclusiveStartKey":{key}"#),
            None => break,
        }
    }
    ids.sort();
    ids
}

impl Machine {
    /// Seconds since the Unix epoch.
    fn now(&self) -> u64 {
        self.run(async |service| service.runtime().unix_ms() / 1000)
    }

    fn pass(&self, seconds: u64) {
        self.run(async move |service| service.runtime().sleep(Duration::from_secs(seconds)).await);
    }
}

#[test]
fn update_time_to_live() {
    let machine = Machine::new(41, 2);
    create(&machine, "orders");
    let describe =
        |expected: Expect| machine.check("DescribeTimeToLive", r#"{"TableName":"orders"}"#, expected);
    let update = |specification: &str, expected: Expect| {
        let body = format!(r#"{{"TableName":"orders","TimeToLiveSpecification":{specification}}}"#);
        machine.check("UpdateTimeToLive", &body, expected);
    };
    describe(expect![[
        r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"DISABLED"}}"#
    ]]);
    update(
        "{}",
        expect![
            "400 ValidationException: 2 validation errors detected: Value null at 'timeToLiveSpecification.attributeName' failed to satisfy constraint: Member must not be null; Value null at 'timeToLiveSpecification.enabled' failed to satisfy constraint: Member must not be null"
        ],
    );
    update(
        r#"{"AttributeName":"","Enabled":true}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value '' at 'timeToLiveSpecification.attributeName' failed to satisfy constraint: Member must have length greater than or equal to 1"
        ],
    );
    update(
        &format!(r#"{{"AttributeName":"{}","Enabled":true}}"#, "a".repeat(256)),
        expect![
            "400 ValidationException: 1 validation error detected: Value 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' at 'timeToLiveSpecification.attributeName' failed to satisfy constraint: Member must have length less than or equal to 255"
        ],
    );
    update(
        r#"{"AttributeName":"ttl","Enabled":false}"#,
        expect!["400 ValidationException: TimeToLive is already disabled"],
    );
    update(
        r#"{"AttributeName":"ttl","Enabled":true}"#,
        expect![[r#"{"TimeToLiveSpecification":{"AttributeName":"ttl","Enabled":true}}"#]],
    );
    describe(expect![[
        r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"ENABLED","AttributeName":"ttl"}}"#
    ]]);
    update(
        r#"{"AttributeName":"ttl","Enabled":true}"#,
        expect!["400 ValidationException: TimeToLive is already enabled"],
    );
    update(
        r#"{"AttributeName":"other","Enabled":true}"#,
        expect![
            "400 ValidationException: TimeToLive is active on a different AttributeName: current AttributeName is ttl"
        ],
    );
    update(
        r#"{"AttributeName":"other","Enabled":false}"#,
        expect![
            "400 ValidationException: TimeToLive is active on a different AttributeName: current AttributeName is ttl"
        ],
    );
    machine.crash();
    machine.start(2);
    describe(expect![[
        r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"ENABLED","AttributeName":"ttl"}}"#
    ]]);
    update(
        r#"{"AttributeName":"ttl","Enabled":false}"#,
        expect![[r#"{"TimeToLiveSpecification":{"AttributeName":"ttl","Enabled":false}}"#]],
    );
    update(
        r#"{"AttributeName":"id","Enabled":true}"#,
        expect![[r#"{"TimeToLiveSpecification":{"AttributeName":"id","Enabled":true}}"#]],
    );
    describe(expect![[
        r#"{"TimeToLiveDescription":{"TimeToLiveStatus":"ENABLED","AttributeName":"id"}}"#
    ]]);
    let check = |operation: &str, body: &str, expected: Expect| machine.check(operation, body, expected);
    check(
        "UpdateTimeToLive",
        "{}",
        expect![
            "400 ValidationException: The parameter 'TableName' is required but was not present in the request"
        ],
    );
    check(
        "UpdateTimeToLive",
        r#"{"TableName":"ab"}"#,
        expect![
            "400 ValidationException: 2 validation errors detected: Value 'ab' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3; Value null at 'timeToLiveSpecification' failed to satisfy constraint: Member must not be null"
        ],
    );
    check(
        "UpdateTimeToLive",
        r#"{"TableName":"none","TimeToLiveSpecification":{"AttributeName":"ttl","Enabled":true}}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: none not found"],
    );
    check(
        "DescribeTimeToLive",
        r#"{"TableName":"none"}"#,
        expect!["400 ResourceNotFoundException: Requested resource not found: Table: none not found"],
    );
    check(
        "DescribeTimeToLive",
        r#"{"TableName":"ab"}"#,
        expect![
            "400 ValidationException: 1 validation error detected: Value 'ab' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3"
        ],
    );
}

#[test]
fn expired_items_go_and_no_others() {
    let machine = Machine::new(42, 3);
    create(&machine, "orders");
    let now = machine.now();
    for n in 0..40 {
        // Half of them have expired already, when the time to live is turned on.
        let ttl = if n % 2 == 0 { now - 10 } else { now + 100 };
        put(&machine, "orders", &format!("{n:02}"), ttl);
    }
    for other in [
        r#"{"id":{"S":"none"}}"#,
        r#"{"id":{"S":"text"},"ttl":{"S":"1"}}"#,
        r#"{"id":{"S":"long ago"},"ttl":{"N":"1000"}}"#,
    ] {
        machine.ok("PutItem", &format!(r#"{{"TableName":"orders","Item":{other}}}"#));
    }
    machine.pass(60);
    assert_eq!(ids(&machine, "orders").len(), 43, "the time to live is off");
    enable(&machine, "orders", "ttl");
    machine.pass(3);
    let left = ids(&machine, "orders");
    assert_eq!(left.len(), 23);
    assert!(
        left.iter()
            .all(|id| id.parse::<u32>().is_ok_and(|n| n % 2 == 1) || id.parse::<u32>().is_err())
    );

    // Before the others expire: one is to live longer, one for ever, one is gone, one comes.
    put(&machine, "orders", "01", now + 1000);
    machine.ok(
        "UpdateItem",
        r##"{"TableName":"orders","Key":{"id":{"S":"03"}},"UpdateExpression":"REMOVE #t","ExpressionAttributeNames":{"#t":"ttl"}}"##,
    );
    machine.ok("DeleteItem", r#"{"TableName":"orders","Key":{"id":{"S":"05"}}}"#);
    put(&machine, "orders", "soon", now + 80);
    put(&machine, "orders", "sooner", now + 70);
    machine.pass(now + 75 - machine.now());
    let left = ids(&machine, "orders");
    assert!(
        left.contains(&"soon".to_owned()) && !left.contains(&"sooner".to_owned()),
        "{left:?}"
    );
    machine.pass(now + 110 - machine.now());
    expect!["01 03 long ago none text"].assert_eq(&ids(&machine, "orders").join(" "));
    let deleted: u64 = machine.expiry_stats().iter().map(|stats| stats.deleted).sum();
    assert_eq!(deleted, 20 + 17 + 2);
    assert!(machine.expiry_stats().iter().all(|stats| stats.failures == 0));
}

#[test]
fn a_restart_forgets_nothing() {
    let machine = Machine::new(43, 3);
    create(&machine, "orders");
    enable(&machine, "orders", "ttl");
    let now = machine.now();
    for n in 0..30 {
        put(&machine, "orders", &format!("{n:02}"), now + 50 + n);
    }
    machine.crash();
    machine.start(2);
    machine.pass((now + 65).saturating_sub(machine.now()));
    let left = ids(&machine, "orders");
    assert!(left.len() < 20 && left.len() >= 13, "{left:?}");
    machine.stop();
    machine.start(3);
    machine.pass((now + 100).saturating_sub(machine.now()));
    assert_eq!(ids(&machine, "orders"), Vec::<String>::new());
    // A table of the same name is another table, and one without a time to live keeps its items.
    machine.ok("DeleteTable", r#"{"TableName":"orders"}"#);
    create(&machine, "orders");
    put(&machine, "orders", "kept", now);
    enable(&machine, "orders", "other");
    machine.pass(60);
    assert_eq!(ids(&machine, "orders"), ["kept"]);
}

#[test]
fn expired_items_can_be_hidden_at_once() {
    let machine = Machine::new(44, 3);
    create(&machine, "orders");
    machine.check(
        "TagResource",
        r#"{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/orders","Tags":[{"Key":"cairn:expired-items","Value":"hidden"}]}"#,
        expect![""],
    );
    let now = machine.now();
    for n in 0..20 {
        put(&machine, "orders", &format!("{n:02}"), now - 5);
    }
    put(&machine, "orders", "alive", now + 1000);
    assert_eq!(ids(&machine, "orders").len(), 21, "the time to live is off");
    // From here on they are not to be seen, whether they have been deleted yet or not.
    enable(&machine, "orders", "ttl");
    assert_eq!(ids(&machine, "orders"), ["alive"]);
    let check = |operation: &str, body: &str, expected: Expect| machine.check(operation, body, expected);
    put(&machine, "orders", "07", now - 5);
    check(
        "GetItem",
        r#"{"TableName":"orders","Key":{"id":{"S":"07"}}}"#,
        expect!["{}"],
    );
    put(&machine, "orders", "07", now - 5);
    check(
        "PutItem",
        r#"{"TableName":"orders","Item":{"id":{"S":"07"}},"ConditionExpression":"attribute_not_exists(id)","ReturnValues":"ALL_OLD"}"#,
        expect!["{}"],
    );
    put(&machine, "orders", "08", now - 5);
    check(
        "UpdateItem",
        r#"{"TableName":"orders","Key":{"id":{"S":"08"}},"UpdateExpression":"SET n = if_not_exists(n, :one)","ExpressionAttributeValues":{":one":{"N":"1"}},"ReturnValues":"ALL_NEW"}"#,
        expect![[r#"{"Attributes":{"id":{"S":"08"},"n":{"N":"1"}}}"#]],
    );
    put(&machine, "orders", "09", now - 5);
    check(
        "Query",
        r#"{"TableName":"orders","KeyConditionExpression":"id = :id","ExpressionAttributeValues":{":id":{"S":"09"}}}"#,
        expect![[r#"{"Count":0,"Items":[],"ScannedCount":0}"#]],
    );
    put(&machine, "orders", "09", now - 5);
    check(
        "DeleteItem",
        r#"{"TableName":"orders","Key":{"id":{"S":"09"}},"ReturnValues":"ALL_OLD"}"#,
        expect!["{}"],
    );
    // Shown again.
    machine.check(
        "UntagResource",
        r#"{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/orders","TagKeys":["cairn:expired-items"]}"#,
        expect![""],
    );
    put(&machine, "orders", "10", now - 5);
    check(
        "GetItem",
        r#"{"TableName":"orders","Key":{"id":{"S":"10"}}}"#,
        expect![[r#"{"Item":{"id":{"S":"10"},"ttl":{"N":"1767225595"}}}"#]],
    );
}

/// Counters whose last use is long ago: each session writes its item again and again, and none may be deleted while it is
/// alive, whatever the order in which writes and deletions meet.
#[test]
fn what_is_written_again_is_not_deleted() {
    let machine = Machine::new(45, 2);
    create(&machine, "sessions");
    enable(&machine, "sessions", "ttl");
    for round in 0..60 {
        let now = machine.now();
        for n in 0..6 {
            put(&machine, "sessions", &format!("{n}"), now + 2);
        }
        assert_eq!(ids(&machine, "sessions").len(), 6, "round {round}");
        machine.pass(1);
    }
    machine.pass(5);
    assert_eq!(ids(&machine, "sessions"), Vec::<String>::new());
}

/// Whatever happens to the node: in the end the living are there as they were written last, and nobody else.
#[test]
fn random_lives_with_crashes() {
    for seed in 0..12 {
        let machine = Machine::new(1000 + seed, 3);
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        create(&machine, "lives");
        enable(&machine, "lives", "ttl");
        // By key: when it expires, if ever.
        let mut model: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for _ in 0..120 {
            let id = format!("{:02}", random(25));
            let key = format!(r#""TableName":"lives","Key":{{"id":{{"S":"{id}"}}}}"#);
            let ttl = machine.now() + 1 + random(30);
            match random(12) {
                0..=4 => {
                    put(&machine, "lives", &id, ttl);
                    model.insert(id, Some(ttl));
                }
                5 => {
                    let body = format!(r#"{{"TableName":"lives","Item":{{"id":{{"S":"{id}"}}}}}}"#);
                    machine.ok("PutItem", &body);
                    model.insert(id, None);
                }
                6 | 7 => {
                    let update =
                        r##","UpdateExpression":"SET #t = :t","ExpressionAttributeNames":{"#t":"ttl"}"##;
                    let values = format!(r#","ExpressionAttributeValues":{{":t":{{"N":"{ttl}"}}}}"#);
                    machine.ok("UpdateItem", &format!("{{{key}{update}{values}}}"));
                    model.insert(id, Some(ttl));
                }
                8 => {
                    machine.ok("DeleteItem", &format!("{{{key}}}"));
                    model.remove(&id);
                }
                9 => machine.pass(1 + random(6)),
                10 => {
                    machine.crash();
                    machine.start(1 + random(4) as usize);
                }
                _ => {
                    let now = machine.now();
                    let there = ids(&machine, "lives");
                    let after = machine.now();
                    for (id, ttl) in &model {
                        let alive = ttl.is_none_or(|ttl| ttl >= after);
                        assert!(!alive || there.contains(id), "seed {seed}: {id} is gone at {now}");
                    }
                    let known = |id: &String| model.contains_key(id);
                    assert!(there.iter().all(known), "seed {seed}: {there:?}");
                }
            }
        }
        machine.pass(60);
        let forever: Vec<String> = model
            .iter()
            .filter(|(_, ttl)| ttl.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        assert_eq!(ids(&machine, "lives"), forever, "seed {seed}");
    }
}

#[test]
fn pages_pass_over_what_is_hidden() {
    let machine = Machine::new(46, 2);
    machine.create("pages", &[("id", "S"), ("n", "N")]);
    let tag = r#"{"ResourceArn":"arn:aws:dynamodb:us-east-1:000000000000:table/pages","Tags":[{"Key":"cairn:expired-items","Value":"hidden"}]}"#;
    machine.check("TagResource", tag, expect![""]);
    let now = machine.now();
    let text = "x".repeat(20_000);
    for n in 0..120 {
        let ttl = if n % 10 == 0 { now + 1000 } else { now - 5 };
        let item = format!(
            r#"{{"id":{{"S":"a"}},"n":{{"N":"{n}"}},"ttl":{{"N":"{ttl}"}},"text":{{"S":"{text}"}}}}"#
        );
        machine.ok("PutItem", &format!(r#"{{"TableName":"pages","Item":{item}}}"#));
    }
    enable(&machine, "pages", "ttl");
    let (mut found, mut start) = (Vec::new(), String::new());
    for page in 0.. {
        assert!(page < 10, "it ends");
        let body = format!(
            r#"{{"TableName":"pages","KeyConditionExpression":"id = :a","ExpressionAttributeValues":{{":a":{{"S":"a"}}}},"Limit":5{start}}}"#
        );
        let answer = machine.ok("Query", &body);
        assert_eq!(answer["Count"], answer["ScannedCount"]);
        let items = answer["Items"].as_array().unwrap();
        assert!(items.len() <= 5);
        found.extend(
            items
                .iter()
                .map(|item| item["n"]["N"].as_str().unwrap().to_owned()),
        );
        match answer.get("LastEvaluatedKey") {
            Some(key) => start = format!(r#","ExclusiveStartKey":{key}"#),
            None => break,
        }
    }
    assert_eq!(found, (0..12).map(|n| (n * 10).to_string()).collect::<Vec<_>>());
}
