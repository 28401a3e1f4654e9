//! Runs against a small node of every kind of fault, in the simulator.

use std::collections::HashMap;

use cairn_runtime::sim::{Config, Handle, NodeIndex, SimConnection, SimRuntime, Simulation};
use cairn_runtime::{Connection, Listener, ShardIndex};
use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::load::load;
use crate::options::{Cli, Command, Workload};
use crate::report::Report;
use crate::table::definition;
use crate::workload::Shape;

const NODE: NodeIndex = NodeIndex(0);
const ITEMS: u64 = 50;
const SECOND: Duration = Duration::from_secs(1);

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It acknowledges every hundredth put without carrying it out.
    LosesPuts,
    /// It carries out a half of every transaction.
    TearsTransactions,
    /// It has no items.
    Empty,
    /// It has the first twenty items.
    LoadedInPart,
    /// It has the first and the last item, and has lost those between them.
    Hollow,
    /// It accepts connections and says nothing.
    Silent,
    /// It has no table.
    NoTable,
    /// It refuses every tenth put.
    Throttles,
    /// It closes connections with every answer, for the first 300 ms.
    ClosesEarly,
}

struct Fake {
    fault: Fault,
    runtime: SimRuntime,
    /// Its table has indexes.
    indexed: bool,
    items: RefCell<HashMap<String, Value>>,
    puts: std::cell::Cell<u64>,
    started: Moment,
}

impl Fake {
    fn answer(&self, operation: &str, body: &Value) -> Value {
        let key = |holder: &str| body[holder]["p"]["S"].as_str().unwrap_or_default().to_owned();
        match operation {
            "PutItem" => {
                if body.get("ConditionExpression").is_some()
                    && !self.items.borrow().contains_key(&key("Item"))
                {
                    return json!({"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"});
                }
                self.store(key("Item"), body["Item"].clone());
                if self.fault == Fault::Throttles && self.puts.get().is_multiple_of(10) {
                    return json!({"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException"});
                }
                json!({})
            }
            "UpdateItem" => {
                let mut item = body["Key"].clone();
                for (name, value) in body["ExpressionAttributeValues"].as_object().unwrap() {
                    item[&name[1..]] = value.clone();
                }
                self.store(key("Key"), item);
                json!({})
            }
            "Query" => {
                let values = &body["ExpressionAttributeValues"];
                let key = match values[":o"]["S"].as_str() {
                    Some(owner) => owner.replace("owner", "user"),
                    None => values[":p"]["S"].as_str().unwrap_or_default().to_owned(),
                };
                let items: Vec<Value> = self.items.borrow().get(&key).cloned().into_iter().collect();
                json!({ "Count": items.len(), "Items": items })
            }
            "TransactWriteItems" => {
                let puts: Vec<Value> = body["TransactItems"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|action| action["Put"]["Item"].clone())
                    .collect();
                let kept = if self.fault == Fault::TearsTransactions {
                    2
                } else {
                    puts.len()
                };
                self.puts.set(self.puts.get() + 1);
                if self.fault != Fault::LosesPuts || !self.puts.get().is_multiple_of(100) {
                    for item in puts.into_iter().take(kept) {
                        let key = item["p"]["S"].as_str().unwrap().to_owned();
                        self.items.borrow_mut().insert(key, item);
                    }
                }
                json!({})
            }
            "TransactGetItems" => {
                let gets = body["TransactItems"].as_array().unwrap().iter();
                let responses: Vec<Value> = gets
                    .map(|action| {
                        let key = action["Get"]["Key"]["p"]["S"].as_str().unwrap();
                        match self.items.borrow().get(key) {
                            Some(item) => json!({ "Item": item }),
                            None => json!({}),
                        }
                    })
                    .collect();
                json!({ "Responses": responses })
            }
            "GetItem" => match self.items.borrow().get(&key("Key")) {
                Some(item) => json!({ "Item": item }),
                None => json!({}),
            },
            "DescribeTable" if self.fault == Fault::NoTable => {
                json!({"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"})
            }
            "DescribeTable" => {
                let mut table = definition("loadgen", self.indexed);
                table["TableStatus"] = "ACTIVE".into();
                json!({ "Table": table })
            }
            "CreateTable" => {
                json!({"__type": "com.amazonaws.dynamodb.v20120810#ResourceInUseException"})
            }
            _ => panic!("{operation}"),
        }
    }

    fn store(&self, key: String, item: Value) {
        self.puts.set(self.puts.get() + 1);
        if self.fault != Fault::LosesPuts || !self.puts.get().is_multiple_of(100) {
            self.items.borrow_mut().insert(key, item);
        }
    }

    async fn serve(&self, connection: SimConnection) {
        let mut input = Vec::new();
        while let Ok(1..) = connection.receive(&mut input).await {
            while let Some((operation, body, taken)) = request(&input) {
                input.drain(..taken);
                if self.fault == Fault::Silent {
                    continue;
                }
                let answer = self.answer(&operation, &body);
                let status = if answer.get("__type").is_some() {
                    "400 Bad Request"
                } else {
                    "200 OK"
                };
                let answer = answer.to_string();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
                if connection.send((head + &answer).into_bytes()).await.is_err() {
                    return;
                }
                let early = self.runtime.now().since(self.started) < SECOND * 3 / 10;
                if self.fault == Fault::ClosesEarly && early {
                    connection.shutdown();
                }
            }
        }
    }
}

fn request(input: &[u8]) -> Option<(String, Value, usize)> {
    let head_bytes = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&input[..head_bytes]).ok()?;
    let header = |name: &str| Some(head.split_once(name)?.1.split_once("\r\n")?.0.to_owned());
    let end = head_bytes + header("Content-Length: ")?.parse::<usize>().ok()?;
    let body = serde_json::from_slice(input.get(head_bytes..end)?).ok()?;
    Some((header("DynamoDB_20120810.")?, body, end))
}

/// Starts a node and gives the command line to `scenario`.
fn with_node(
    fault: Fault,
    scheme: &'static str,
    arguments: &str,
    scenario: impl AsyncFnOnce(Handle, Command) + 'static,
) {
    let words: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
    Simulation::new(3, Config::default()).run(async move |handle| {
        let runtime = handle.runtime(NODE, ShardIndex(0));
        let listener = runtime.listen(handle.socket_address(NODE, 8000)).unwrap();
        let indexed = |word: &String| ["--workload=index", "--indexes"].contains(&word.as_str());
        let indexed = words.iter().any(indexed);
        let fake = Rc::new(Fake {
            fault,
            indexed,
            items: RefCell::default(),
            puts: std::cell::Cell::default(),
            started: runtime.now(),
            runtime: runtime.clone(),
        });
        let shape = Shape::new(100, indexed);
        let is_there = |key: &u64| match fault {
            Fault::Empty => false,
            Fault::LoadedInPart => *key < 20,
            Fault::Hollow => [0, ITEMS - 1].contains(key),
            _ => true,
        };
        for key in (0..ITEMS).filter(is_there) {
            let mut text = Vec::new();
            shape.write_json(&mut text, key, 0);
            let item: Value = serde_json::from_slice(&text).unwrap();
            let key = item["p"]["S"].as_str().unwrap().to_owned();
            fake.items.borrow_mut().insert(key, item);
        }
        let spawner = runtime.clone();
        runtime.spawn(Queue::Foreground, async move {
            while let Ok(connection) = listener.accept().await {
                let fake = Rc::clone(&fake);
                spawner.spawn(Queue::Foreground, async move { fake.serve(connection).await });
            }
        });
        let target = format!("--target={scheme}://{}", handle.socket_address(NODE, 8000));
        let fixed = [
            "loadgen",
            words[0].as_str(),
            &target,
            "--item-size=100",
            "--connections=4",
            "--in-flight=4",
        ];
        let items = format!("--items={ITEMS}");
        let given = fixed
            .into_iter()
            .chain([items.as_str()])
            .chain(words[1..].iter().map(String::as_str));
        scenario(handle, Cli::try_parse_from(given).unwrap().command).await;
    });
}

fn settings(common: &crate::options::Common, consistent: bool, indexed: bool) -> Settings {
    Settings {
        common: common.clone(),
        shape: Shape::new(common.item_size, indexed),
        consistent,
        before: 0,
    }
}

/// Runs, and gives the report to `look`.
fn check(fault: Fault, arguments: &str, look: impl FnOnce(&Report<'_>, &Record) + 'static) {
    with_node(fault, "http", arguments, async |handle, command| {
        let Command::Run(options) = command else {
            panic!("not a run")
        };
        let indexed = options.workload == crate::options::Workload::Index;
        let settings = settings(&options.common, options.consistent, indexed);
        let measured = run(handle.outside(), &options, settings).await.unwrap();
        look(&Report::new(&options, &measured), &measured.record);
    });
}

const CONSISTENT: &str = "run --workload=a --duration=400ms --warmup=100ms --consistent";

#[test]
fn a_node_that_keeps_everything_passes() {
    for arguments in [
        CONSISTENT,
        "run --workload=b --duration=2s --warmup=1s --consistent --rate=500",
        "run --workload=update --duration=400ms --warmup=100ms --consistent",
        "run --workload=conditional --duration=400ms --warmup=100ms --consistent",
        "run --workload=query --duration=400ms --warmup=100ms --consistent",
        "run --workload=index --duration=400ms --warmup=100ms --consistent",
        "run --workload=transact --duration=400ms --warmup=100ms --consistent",
    ] {
        check(Fault::None, arguments, |report, record| {
            assert!(report.passed() && record.errors.is_empty(), "{:?}", record.errors);
        });
    }
}

#[test]
fn a_lost_put_is_found_by_consistent_reads() {
    for workload in ["a", "update", "conditional", "index", "transact"] {
        let arguments = CONSISTENT.replace("=a", &format!("={workload}"));
        check(Fault::LosesPuts, &arguments, |report, record| {
            assert!(!report.passed() && !report.unusable());
            let stale = record.errors["item stale"];
            assert!(stale > 0 && record.good > stale, "{:?}", record.errors);
        });
    }
}

#[test]
fn a_transaction_in_part_is_damage() {
    let arguments = "run --workload=transact --duration=200ms --warmup=100ms";
    check(Fault::TearsTransactions, arguments, |report, record| {
        assert!(!report.passed() && record.errors["transaction torn"] > 0);
    });
}

#[test]
fn items_of_another_size_are_not_damage() {
    let arguments = "run --workload=c --duration=200ms --warmup=100ms";
    with_node(Fault::None, "http", arguments, async |handle, command| {
        let Command::Run(options) = command else {
            panic!("not a run")
        };
        let mut settings = settings(&options.common, false, false);
        settings.common.item_size = 200;
        let error = run(handle.outside(), &options, settings)
            .await
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "the items of table loadgen have 100 B and --item-size says 200: give `run` what `load` was given"
        );
    });
}

/// What is said to a run that cannot begin.
fn refused(fault: Fault, arguments: &'static str, workload: Workload, expected: &'static str) {
    with_node(fault, "http", arguments, async move |handle, command| {
        let Command::Run(mut options) = command else {
            panic!("not a run")
        };
        options.workload = workload;
        let settings = settings(&options.common, false, workload == Workload::Index);
        let error = run(handle.outside(), &options, settings)
            .await
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(expected), "{error}");
    });
}

#[test]
fn a_run_on_another_table_does_not_begin() {
    let missing = "there is no table loadgen: make and fill it with `loadgen load`";
    refused(Fault::NoTable, "run --workload=a", Workload::A, missing);
    let plain =
        "table loadgen has no indexes, and what was asked for is about one that was loaded with --indexes";
    refused(Fault::None, "run --workload=a", Workload::Index, plain);
    let indexed = "table loadgen has the indexes of `load --indexes`";
    for workload in [
        Workload::A,
        Workload::Query,
        Workload::Counter,
        Workload::Transact,
    ] {
        refused(Fault::None, "run --workload=index", workload, indexed);
    }
}

#[test]
fn items_that_were_never_loaded_are_not_damage() {
    for (fault, expected) in [
        (
            Fault::LoadedInPart,
            "table loadgen has the first 20 items and --items says 50: give `run` what `load` was given",
        ),
        (
            Fault::Empty,
            "table loadgen has neither the first nor the last of --items 50: fill it with `loadgen load`",
        ),
    ] {
        for workload in [
            Workload::A,
            Workload::Query,
            Workload::Conditional,
            Workload::Transact,
            Workload::Updates,
        ] {
            refused(fault, "run --workload=a", workload, expected);
        }
        refused(fault, "run --workload=index", Workload::Index, expected);
        // What these find missing they store.
        for workload in ["put", "counter"] {
            let arguments = format!("run --workload={workload} --duration=100ms --warmup=0s");
            check(fault, &arguments, |report, record| {
                assert!(report.passed(), "{:?}", record.errors);
            });
        }
    }
}

#[test]
fn a_load_into_another_table_does_not_begin() {
    for (arguments, indexes) in [("load", true), ("load --indexes", false)] {
        with_node(Fault::None, "http", arguments, async move |handle, command| {
            let Command::Load(options) = command else {
                panic!("not a load")
            };
            let settings = settings(&options.common, false, indexes);
            let error = load(handle.outside(), settings, indexes).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        });
    }
}

#[test]
fn many_errors_fail_a_run_unless_they_are_allowed() {
    let arguments = "run --workload=put --duration=400ms --warmup=100ms";
    check(Fault::Throttles, arguments, |report, record| {
        assert!(record.errors["ThrottlingException"] > 0);
        assert!(!report.passed() && !report.unusable());
    });
    let allowed = format!("{arguments} --slo=errors<50%");
    check(Fault::Throttles, &allowed, |report, _| assert!(report.passed()));
}

#[test]
fn a_missing_item_is_damage() {
    check(
        Fault::Hollow,
        "run --workload=c --duration=100ms --warmup=100ms",
        |report, record| {
            assert!(!report.passed() && !report.unusable());
            assert_eq!(record.errors.keys().collect::<Vec<_>>(), ["item missing"]);
        },
    );
    for workload in ["query", "conditional", "index", "transact"] {
        let arguments = format!("run --workload={workload} --duration=100ms --warmup=100ms");
        check(Fault::Hollow, &arguments, |report, record| {
            assert!(!report.passed() && record.errors["item missing"] > 0);
        });
    }
    // Also one that only the warm-up sees.
    check(
        Fault::Hollow,
        "run --workload=a --duration=200ms --warmup=200ms",
        |report, record| {
            assert!(record.damaged && !report.passed());
        },
    );
}

#[test]
fn a_silent_node_is_unusable() {
    for rate in ["max", "100"] {
        let arguments = format!("run --duration=2s --warmup=1s --rate={rate}");
        check(Fault::Silent, &arguments, |report, _| {
            assert!(report.unusable() && !report.passed());
        });
    }
    for scheme in ["http", "cairn"] {
        with_node(Fault::Silent, scheme, "load", async |handle, command| {
            let Command::Load(options) = command else {
                panic!("not a load")
            };
            let error = load(handle.outside(), settings(&options.common, false, false), false)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(handle.elapsed() < 70 * SECOND);
        });
    }
}

#[test]
fn a_node_that_goes_does_not_hold_the_run() {
    with_node(
        Fault::None,
        "http",
        "run --duration=2s --warmup=100ms",
        async |handle, command| {
            let Command::Run(options) = command else {
                panic!("not a run")
            };
            let (breaker, outside) = (handle.clone(), handle.outside());
            outside.clone().spawn(Queue::Foreground, async move {
                outside.sleep(SECOND / 2).await;
                // Nobody refuses: connections are opened for ever.
                breaker.crash(NODE);
            });
            let settings = settings(&options.common, false, false);
            let measured = run(handle.outside(), &options, settings).await.unwrap();
            assert!(handle.elapsed() < 8 * SECOND, "{:?}", handle.elapsed());
            assert!(measured.record.good > 0 && !measured.record.damaged);
        },
    );
}

#[test]
fn connections_that_break_before_the_measurement_are_not_measured() {
    check(
        Fault::ClosesEarly,
        "run --duration=200ms --warmup=400ms",
        |report, record| {
            assert!(report.passed() && record.errors.is_empty(), "{:?}", record.errors);
        },
    );
}
