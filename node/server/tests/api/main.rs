//! The operations, from request body to response body, on a whole node of several shards in the simulator.
//!
//! Each test is rows of `check(operation, request, expected answer)`. Requests go to the shards in turn, so that most of
//! them arrive at another shard than the one that owns their key.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test; its helpers are not marked as such"
)]

mod batches;
mod collections;
mod expiry;
mod expressions;
mod faults;
mod hot_key;
mod index_updates;
mod indexes;
mod items;
mod legacy;
mod packing;
mod pages;
mod partiql;
mod partiql_transactions;
mod restart;
mod serializable;
mod settings;
mod slow_reads;
mod space;
mod streams;
mod tables;
mod transactions;
mod updates;
mod warm;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use cairn::api::Service;
use cairn::expiry::ExpiryStats;
use cairn::index::IndexStats;
use cairn::node::{Node, NodeConfig, NodeError, Shard};
use cairn::transact::TransactionStats;
use cairn_engine::EngineConfig;
use cairn_runtime::ShardIndex;
use cairn_runtime::sim::{Config, NodeIndex, SimRuntime, Simulation};
use expect_test::Expect;

pub(crate) const NODE: NodeIndex = NodeIndex(0);

type Shards = Rc<RefCell<Vec<Option<Result<Shard<SimRuntime>, NodeError>>>>>;

/// A simulated machine with one node of several shards on it.
pub(crate) struct Machine {
    pub sim: Simulation,
    shards: Shards,
    turn: Cell<usize>,
    /// What is special about its configuration.
    configure: Box<dyn Fn(&mut NodeConfig)>,
}

impl Machine {
    /// A node of `shards` shards, at its first start.
    pub(crate) fn new(seed: u64, shards: usize) -> Machine {
        Machine::configured(seed, shards, |_| {})
    }

    /// As [`Machine::new`], with what `configure` makes of the configuration.
    pub(crate) fn configured(
        seed: u64,
        shards: usize,
        configure: impl Fn(&mut NodeConfig) + 'static,
    ) -> Machine {
        let sim = Simulation::new(
            seed,
            Config {
                shards: 4,
                trace_tail: 20,
                virtual_time_max: Duration::from_secs(30 * 24 * 3600),
                ..Config::default()
            },
        );
        let machine = Machine {
            sim,
            shards: Shards::default(),
            turn: Cell::new(0),
            configure: Box::new(configure),
        };
        machine.start(shards);
        machine
    }

    /// Starts the node on the first `shards` cores.
    pub(crate) fn start(&self, shards: usize) {
        if let Err(error) = self.try_start(shards) {
            panic!("the node does not start: {error}");
        }
    }

    /// As [`Machine::start`]; answers why it does not start.
    pub(crate) fn try_start(&self, shards: usize) -> Result<(), String> {
        let mut config = NodeConfig {
            drives: vec!["/drive-a".into(), "/drive-b".into()],
            state: "/state".into(),
            memory_bytes: 64 << 20,
            engine: EngineConfig {
                log_file_bytes: 1 << 20,
                ..EngineConfig::default()
            },
            ..NodeConfig::default()
        };
        (self.configure)(&mut config);
        let node = Node::new(config, shards);
        *self.shards.borrow_mut() = (0..shards).map(|_| None).collect();
        for shard in 0..shards {
            let (node, slots) = (node.clone(), Rc::clone(&self.shards));
            let runtime = self.sim.runtime(NODE, ShardIndex(shard));
            cairn_runtime::Runtime::spawn(&runtime.clone(), cairn_runtime::Queue::Foreground, async move {
                let started = node.start_shard(runtime).await;
                slots.borrow_mut()[shard] = Some(started);
            });
        }
        while self.shards.borrow().iter().any(Option::is_none) {
            assert!(self.sim.step(), "the node neither starts nor fails");
        }
        let slots = self.shards.borrow();
        let results = slots.iter().flatten();
        let errors: Vec<String> = results
            .filter_map(|shard| Some(shard.as_ref().err()?.to_string()))
            .collect();
        match errors.first() {
            None => Ok(()),
            Some(first) => {
                assert_eq!(errors, vec![first.clone(); shards], "all shards fail alike");
                Err(first.clone())
            }
        }
    }

    /// Stops the node as on SIGTERM.
    pub(crate) fn stop(&self) {
        let shards = std::mem::take(&mut *self.shards.borrow_mut());
        let closed = Rc::new(RefCell::new(Vec::new()));
        let count = shards.len();
        for (index, shard) in shards.into_iter().enumerate() {
            let shard = shard.expect("started").expect("started well");
            let closed = Rc::clone(&closed);
            let runtime = self.sim.runtime(NODE, ShardIndex(index));
            cairn_runtime::Runtime::spawn(&runtime, cairn_runtime::Queue::Foreground, async move {
                let result = shard.close().await;
                closed.borrow_mut().push(result);
            });
        }
        while closed.borrow().len() < count {
            assert!(self.sim.step(), "the node does not stop");
        }
        assert!(closed.borrow().iter().all(Result::is_ok), "{closed:?}");
        // What is left of the process goes with it.
        self.sim.kill(NODE);
        self.sim.restart(NODE);
    }

    /// Kills the node and lets its machine lose power.
    pub(crate) fn crash(&self) {
        self.shards.borrow_mut().clear();
        self.sim.crash(NODE);
        self.sim.restart(NODE);
    }

    pub(crate) fn service(&self, shard: usize) -> Service<SimRuntime> {
        let shards = self.shards.borrow();
        shards[shard]
            .as_ref()
            .expect("started")
            .as_ref()
            .expect("started well")
            .service()
    }

    /// Shards of the running node.
    pub(crate) fn shards(&self) -> usize {
        self.shards.borrow().len()
    }

    /// Batches that all logs of the node have written since its start.
    pub(crate) fn log_batches(&self) -> u64 {
        let shards = self.shards.borrow();
        let shards = shards.iter().flatten().flatten();
        let stats = shards.flat_map(Shard::engine_stats);
        stats.map(|(_, stats)| stats.log.batches).sum()
    }

    /// What the shards count of items that expire.
    pub(crate) fn expiry_stats(&self) -> Vec<ExpiryStats> {
        let shards = self.shards.borrow();
        let shards = shards.iter().flatten().flatten();
        shards.map(Shard::expiry_stats).collect()
    }

    /// What the shards count of global indexes.
    pub(crate) fn index_stats(&self) -> Vec<IndexStats> {
        let shards = self.shards.borrow();
        let shards = shards.iter().flatten().flatten();
        shards.map(Shard::index_stats).collect()
    }

    /// What the shards count of transactions.
    pub(crate) fn transaction_stats(&self) -> Vec<TransactionStats> {
        let shards = self.shards.borrow();
        let shards = shards.iter().flatten().flatten();
        shards.map(Shard::transaction_stats).collect()
    }

    /// Runs `task` on the next shard in turn.
    pub(crate) fn run<T: 'static>(&self, task: impl AsyncFnOnce(Service<SimRuntime>) -> T + 'static) -> T {
        let shards = self.shards.borrow().len();
        let shard = self.turn.replace((self.turn.get() + 1) % shards) % shards;
        let service = self.service(shard);
        self.sim
            .block_on(NODE, ShardIndex(shard), async move |_| task(service).await)
    }

    /// Has `task` run on the next shard in turn, as far as the node lives.
    pub(crate) fn spawn(&self, task: impl AsyncFnOnce(Service<SimRuntime>) + 'static) {
        let shards = self.shards.borrow().len();
        let shard = self.turn.replace((self.turn.get() + 1) % shards) % shards;
        let service = self.service(shard);
        let runtime = self.sim.runtime(NODE, ShardIndex(shard));
        cairn_runtime::Runtime::spawn(&runtime, cairn_runtime::Queue::Foreground, async move {
            task(service).await;
        });
    }

    /// The answer to a request: the body, or the error's status, name and message.
    pub(crate) fn call(&self, operation: &str, body: &str) -> String {
        let (operation, body) = (operation.to_owned(), body.to_owned());
        self.run(async move |service| {
            let mut out = Vec::new();
            match service.call(&operation, body.as_bytes(), &mut out).await {
                Ok(()) => String::from_utf8(out).expect("answers are UTF-8"),
                Err(error) => {
                    assert!(out.is_empty(), "an error leaves no answer behind");
                    let space = if error.extra.is_empty() { "" } else { " " };
                    format!("{} {error}{space}{}", error.status, error.extra)
                }
            }
        })
    }

    /// As [`Machine::call`], and the answer must be the expected one.
    pub(crate) fn check(&self, operation: &str, body: &str, expected: Expect) {
        expected.assert_eq(&self.call(operation, body));
    }

    /// Calls what must succeed.
    pub(crate) fn ok(&self, operation: &str, body: &str) -> serde_json::Value {
        let answer = self.call(operation, body);
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{operation} {body}: {answer}"))
    }

    /// Creates a table with these key attributes: name and type, the sort key last.
    pub(crate) fn create(&self, table: &str, keys: &[(&str, &str)]) {
        let pairs = |roles: [&str; 2], member: &str| {
            let pair = |(index, (name, kind)): (usize, &(&str, &str))| {
                let value = if member == "KeyType" { roles[index] } else { kind };
                format!(r#"{{"AttributeName":"{name}","{member}":"{value}"}}"#)
            };
            keys.iter().enumerate().map(pair).collect::<Vec<_>>().join(",")
        };
        let roles = ["HASH", "RANGE"];
        let body = format!(
            r#"{{"TableName":"{table}","BillingMode":"PAY_PER_REQUEST","KeySchema":[{}],"AttributeDefinitions":[{}]}}"#,
            pairs(roles, "KeyType"),
            pairs(roles, "AttributeType")
        );
        self.ok("CreateTable", &body);
    }
}
