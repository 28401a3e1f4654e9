//! Tables and items outlive the process.

use crate::Machine;

fn put(machine: &Machine, table: &str, id: usize) {
    let body = format!(r#"{{"TableName":"{table}","Item":{{"id":{{"S":"i{id}"}},"n":{{"N":"{id}"}}}}}}"#);
    machine.ok("PutItem", &body);
}

fn check_all(machine: &Machine, table: &str, count: usize) {
    for id in 0..count {
        let body = format!(r#"{{"TableName":"{table}","Key":{{"id":{{"S":"i{id}"}}}}}}"#);
        let answer = machine.ok("GetItem", &body);
        assert_eq!(answer["Item"]["n"]["N"], id.to_string(), "{table} {id}: {answer}");
    }
    let answer = machine.ok("Scan", &format!(r#"{{"TableName":"{table}"}}"#));
    assert_eq!(answer["Count"], count);
    let answer = machine.ok("DescribeTable", &format!(r#"{{"TableName":"{table}"}}"#));
    assert_eq!(answer["Table"]["ItemCount"], count);
    assert_eq!(answer["Table"]["TableStatus"], "ACTIVE");
}

#[test]
fn tables_and_items_survive_stops_and_crashes_at_any_number_of_shards() {
    let machine = Machine::new(40, 2);
    machine.create("kept", &[("id", "S")]);
    machine.create("dropped", &[("id", "S")]);
    put(&machine, "dropped", 0);
    machine.ok("DeleteTable", r#"{"TableName":"dropped"}"#);
    let mut count = 0;
    for (round, shards) in [3, 1, 4, 2, 2, 4].into_iter().enumerate() {
        for _ in 0..10 {
            put(&machine, "kept", count);
            count += 1;
        }
        if round % 2 == 0 {
            machine.crash()
        } else {
            machine.stop()
        }
        machine.start(shards);
        check_all(&machine, "kept", count);
        // A table created now is spread over the shards that there are now.
        let extra = format!("extra-{round}");
        machine.create(&extra, &[("id", "S")]);
        put(&machine, &extra, 0);
        check_all(&machine, &extra, 1);
    }
    let tables = machine.ok("ListTables", "{}");
    assert_eq!(
        tables["TableNames"].to_string(),
        r#"["extra-0","extra-1","extra-2","extra-3","extra-4","extra-5","kept"]"#
    );
}

#[test]
fn a_recreated_table_is_empty_and_has_new_ids() {
    let machine = Machine::new(41, 2);
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..5 {
        machine.create("phoenix", &[("id", "S")]);
        let ids = machine.run(async |service| {
            let table = service.table("phoenix").unwrap();
            let partitions = table.partitions().map(|(place, _)| place.id.0);
            (table.definition().id.0, partitions.collect::<Vec<_>>())
        });
        assert!(seen.insert(format!("table {}", ids.0)));
        for partition in ids.1 {
            assert!(
                seen.insert(format!("partition {partition}")),
                "partition {partition} is used again"
            );
        }
        assert_eq!(machine.ok("Scan", r#"{"TableName":"phoenix"}"#)["Count"], 0);
        put(&machine, "phoenix", round);
        machine.ok("DeleteTable", r#"{"TableName":"phoenix"}"#);
        if round == 2 {
            machine.crash();
            machine.start(3);
        }
    }
}

/// A crash at any step of creating and deleting tables leaves each of them there or not, and the node starts.
#[test]
fn tables_are_created_and_deleted_whole() {
    for seed in 0..12 {
        let machine = Machine::new(100 + seed, 2);
        machine.create("deleted", &[("id", "S")]);
        put(&machine, "deleted", 0);
        let mut random = machine.sim.random();
        for (operation, body) in [
            (
                "CreateTable",
                r#"{"TableName":"created","BillingMode":"PAY_PER_REQUEST","KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}]}"#,
            ),
            ("DeleteTable", r#"{"TableName":"deleted"}"#),
        ] {
            let service = machine.service(1);
            let runtime = machine.sim.runtime(crate::NODE, cairn_runtime::ShardIndex(1));
            cairn_runtime::Runtime::spawn(&runtime, cairn_runtime::Queue::Foreground, async move {
                let _ = service.call(operation, body.as_bytes(), &mut Vec::new()).await;
            });
        }
        for _ in 0..random.below(120) {
            let _ = machine.sim.step();
        }
        machine.crash();
        machine.start(2);
        // What was begun is finished in the background.
        machine.sim.run_for(std::time::Duration::from_secs(2));
        for (table, count) in [("created", 0), ("deleted", 1)] {
            let described = machine.call("DescribeTable", &format!(r#"{{"TableName":"{table}"}}"#));
            if described.starts_with('{') {
                assert!(described.contains("ACTIVE"), "seed {seed}: {described}");
                assert_eq!(
                    machine.ok("Scan", &format!(r#"{{"TableName":"{table}"}}"#))["Count"],
                    count
                );
                put(&machine, table, 7);
            } else {
                assert!(
                    described.contains("ResourceNotFoundException"),
                    "seed {seed}: {described}"
                );
                machine.create(table, &[("id", "S")]);
            }
        }
    }
}
