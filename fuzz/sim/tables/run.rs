//! One run: rounds of starting a node, work and an end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use cairn::api::Service;
use cairn::node::{Node, NodeConfig, NodeError, Shard};
use cairn_engine::EngineConfig;
use cairn_runtime::sim::{
    ClockConfig, Config, DriveConfig, FaultConfig, FaultCounters, NodeIndex, Random, SimRuntime, Simulation,
};
use cairn_runtime::sync::WaitGroup;
use cairn_runtime::{Queue, Runtime, ShardIndex};
use serde_json::json;

use super::super::run::Failure;
use super::super::scenario::{End, MirrorFault};
use super::clients::{Ledger, TABLE, call, client, table};
use super::verify::{Refusal, verify};

/// Longest a round may take in virtual time; then it makes no progress.
const ROUND_MAX: Duration = Duration::from_secs(1800);
const NODE: NodeIndex = NodeIndex(0);
const SHARDS_MAX: usize = 3;
const MIRRORS: [&str; 2] = ["/mirror-0", "/mirror-1"];

/// A run, drawn from its seed.
#[derive(Debug, Clone)]
pub struct TableScenario {
    /// The seed.
    pub seed: u64,
    /// How each round ends, and with how many shards it begins; the last always by closing.
    pub rounds: Vec<(End, usize)>,
    /// Tasks that write at the same time.
    pub clients: usize,
    /// Operations of each client in a round.
    pub operations: u64,
    /// Partition keys.
    pub keys: u64,
    /// Which mirror suffers.
    pub victim: usize,
    /// What it suffers.
    pub fault: MirrorFault,
    /// Memory of the node.
    pub memory_bytes: u64,
}

impl TableScenario {
    /// The run that `seed` stands for.
    #[must_use]
    pub fn of(seed: u64) -> TableScenario {
        let mut random = Random::new(seed ^ 0x7ab1_e500_0000_0000);
        let random = &mut random;
        let count = 1 + random.index(3);
        let mut rounds: Vec<(End, usize)> = (0..count)
            .map(|_| {
                let end = match random.below(10) {
                    0..5 => End::Crash(2_000 + random.below(40_000)),
                    5..8 => End::Kill(2_000 + random.below(40_000)),
                    _ => End::Close,
                };
                (end, 1 + random.index(SHARDS_MAX))
            })
            .collect();
        rounds.push((End::Close, 1 + random.index(SHARDS_MAX)));
        let fault = match random.below(20) {
            0..8 => MirrorFault::None,
            8..12 => MirrorFault::Silent([200, 2_000, 20_000][random.index(3)]),
            12..15 => MirrorFault::Errors([50, 500, 5_000][random.index(3)]),
            15..17 => MirrorFault::Timing,
            _ => MirrorFault::Vanishes(random.below(20_000)),
        };
        TableScenario {
            seed,
            rounds,
            clients: 1 + random.index(5),
            operations: 10 + random.below(60),
            keys: [2, 10, 60][random.index(3)],
            victim: random.index(2),
            fault,
            memory_bytes: [512 << 10, 2 << 20, 64 << 20][random.index(3)],
        }
    }

    fn world(&self, trace_tail: usize) -> Config {
        let faults = match self.fault {
            MirrorFault::Timing => FaultConfig::timing(),
            _ => FaultConfig::NONE,
        };
        Config {
            shards: SHARDS_MAX,
            trace_tail,
            drive: DriveConfig {
                faults,
                ..DriveConfig::default()
            },
            clock: ClockConfig {
                skew_ms_max: 5_000,
                drift_ppm_max: 100,
                jump_ppm: 50,
                jump_ms_max: 10_000,
            },
            virtual_time_max: Duration::from_secs(8 * 3600),
            ..Config::default()
        }
    }

    fn node(&self) -> NodeConfig {
        NodeConfig {
            drives: MIRRORS.map(Into::into).into(),
            state: "/state".into(),
            memory_bytes: self.memory_bytes,
            engine: EngineConfig {
                log_file_bytes: 1 << 20,
                ..EngineConfig::default()
            },
            ..NodeConfig::default()
        }
    }
}

/// A run that went well.
#[derive(Debug, Clone, Default)]
pub struct TableSummary {
    /// Hash of everything that happened.
    pub trace: u64,
    /// Simulated events.
    pub events: u64,
    /// Answers to clients.
    pub answered: u64,
    /// Of them, writes that were refused.
    pub refused: u64,
    /// Records of the stream at the end.
    pub records: u64,
    /// Times that everything was checked.
    pub verified: u64,
    /// Flushes, over all rounds that ended by themselves.
    pub flushes: u64,
    /// Items that expired, likewise.
    pub expired: u64,
    /// Faults that happened.
    pub faults: FaultCounters,
}

impl TableSummary {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &TableSummary) {
        self.trace ^= other.trace.rotate_left(self.events as u32 % 64);
        self.events += other.events;
        self.answered += other.answered;
        self.refused += other.refused;
        self.records += other.records;
        self.verified += other.verified;
        self.flushes += other.flushes;
        self.expired += other.expired;
        self.faults.merge(&other.faults);
    }
}

/// Runs a scenario to its end.
///
/// # Errors
/// The first thing that does not hold.
pub fn run_tables(scenario: TableScenario, verbose: bool) -> Result<TableSummary, Failure> {
    let seed = scenario.seed;
    if verbose {
        eprintln!("{scenario:#?}");
    }
    let sim = Simulation::new(seed, scenario.world(if verbose { 100 } else { 0 }));
    let run = Run {
        sim: &sim,
        scenario: Rc::new(scenario),
        ledger: Rc::default(),
        summary: Rc::default(),
        verbose,
    };
    let rounds = run.scenario.rounds.clone();
    for (round, (end, shards)) in rounds.into_iter().enumerate() {
        run.arrange_faults(round);
        run.round(round, end, shards);
        if let Some(why) = run.ledger.failure() {
            return Err(Failure { seed, round, why });
        }
    }
    let mut summary = run.summary.borrow().clone();
    summary.trace = sim.trace_hash();
    summary.events = sim.events();
    summary.answered = run.ledger.answered.get();
    summary.refused = run.ledger.refused.get();
    summary.faults = sim.faults();
    Ok(summary)
}

fn fail(ledger: &Ledger, scenario: &TableScenario, what: &str, why: &str) {
    let may_be_full = matches!(scenario.fault, MirrorFault::Errors(_));
    if !(may_be_full && why.contains("no space")) {
        ledger.fail(format!("{what}: {why}"));
    }
}

type Shards = Rc<RefCell<Vec<Option<Result<Shard<SimRuntime>, NodeError>>>>>;

struct Run<'a> {
    sim: &'a Simulation,
    scenario: Rc<TableScenario>,
    ledger: Rc<Ledger>,
    summary: Rc<RefCell<TableSummary>>,
    verbose: bool,
}

impl Run<'_> {
    fn arrange_faults(&self, round: usize) {
        let victim = self.sim.drive(NODE, MIRRORS[self.scenario.victim]);
        match self.scenario.fault {
            // The first start is spared: a node that cannot be created is no test.
            _ if round == 0 => {}
            MirrorFault::Silent(ppm) => victim.set_faults(FaultConfig::silent(ppm)),
            MirrorFault::Errors(ppm) => victim.set_faults(FaultConfig::errors(ppm)),
            _ => {}
        }
        if round.is_multiple_of(2) {
            victim.attach();
        }
        // What there is at the end must be looked at.
        if round + 1 == self.scenario.rounds.len() {
            victim.set_faults(FaultConfig::NONE);
        }
    }

    /// Fails, unless it is the drive's fault: one that says it is full may be the only one left, and says so.
    fn failed(&self, what: &str, why: &str) {
        fail(&self.ledger, &self.scenario, what, why);
    }

    fn round(&self, round: usize, end: End, count: usize) {
        let sim = self.sim;
        if !sim.is_up(NODE) {
            sim.restart(NODE);
        }
        if self.verbose {
            eprintln!("round {round}: {count} shards, then {end:?}");
        }
        let shards = self.start(count);
        let done = Rc::new(Cell::new(false));
        let mut has_begun = false;
        let until = match end {
            End::Crash(events) | End::Kill(events) => sim.events() + events,
            End::Close | End::Leave => u64::MAX,
        };
        let vanishes = match self.scenario.fault {
            MirrorFault::Vanishes(events) if round == 0 => sim.events() + 2_000 + events,
            _ => u64::MAX,
        };
        let deadline = sim.elapsed() + ROUND_MAX;
        let mut vanished = false;
        while !done.get() && sim.events() < until && self.ledger.failure().is_none() {
            if !vanished && sim.events() >= vanishes {
                vanished = true;
                sim.drive(NODE, MIRRORS[self.scenario.victim]).detach();
            }
            if !has_begun && shards.borrow().iter().all(Option::is_some) {
                has_begun = true;
                self.drive(&shards, end, Rc::clone(&done));
            }
            if !sim.step() {
                self.ledger.fail("deadlock: nothing is left to happen");
            }
            if sim.elapsed() > deadline {
                self.ledger.fail("no end: the round takes longer than it may");
            }
        }
        shards.borrow_mut().clear();
        match end {
            End::Crash(_) => sim.crash(NODE),
            _ => sim.kill(NODE),
        }
    }

    /// Begins to start a node.
    fn start(&self, count: usize) -> Shards {
        let node = Node::new(self.scenario.node(), count);
        let shards: Shards = Rc::new(RefCell::new((0..count).map(|_| None).collect()));
        for shard in 0..count {
            let (node, slots) = (node.clone(), Rc::clone(&shards));
            let runtime = self.sim.runtime(NODE, ShardIndex(shard));
            runtime.clone().spawn(Queue::Foreground, async move {
                let started = node.start_shard(runtime).await;
                if let Some(slot) = slots.borrow_mut().get_mut(shard) {
                    *slot = Some(started);
                }
            });
        }
        shards
    }

    /// Begins the work of a round on a node that has started.
    fn drive(&self, shards: &Shards, end: End, done: Rc<Cell<bool>>) {
        let mut services = Vec::new();
        for shard in shards.borrow().iter().flatten() {
            match shard {
                Ok(shard) => services.push(shard.service()),
                Err(error) => {
                    done.set(true);
                    return self.failed("the node does not start", &error.to_string());
                }
            }
        }
        let work = Work {
            services,
            runtimes: (0..SHARDS_MAX)
                .map(|shard| self.sim.runtime(NODE, ShardIndex(shard)))
                .collect(),
            scenario: Rc::clone(&self.scenario),
            ledger: Rc::clone(&self.ledger),
            summary: Rc::clone(&self.summary),
        };
        let random = Random::new(self.sim.random().next_u64());
        let (shards, ledger, scenario) = (
            Rc::clone(shards),
            Rc::clone(&self.ledger),
            Rc::clone(&self.scenario),
        );
        let runtime = self.sim.runtime(NODE, ShardIndex(0));
        runtime.spawn(Queue::Foreground, async move {
            match work.round(random).await {
                Ok(()) => {}
                Err(Refusal::Wrong(why)) => ledger.fail(why),
                Err(Refusal::Unanswered(error)) => fail(&ledger, &scenario, "no answer", &error.to_string()),
            }
            work.count(&shards);
            if end == End::Close {
                let closing: Vec<_> = shards.borrow_mut().drain(..).flatten().flatten().collect();
                let closed = futures_util::future::join_all(closing.into_iter().map(Shard::close));
                for result in closed.await {
                    if let Err(error) = result {
                        fail(&ledger, &scenario, "close", &error.to_string());
                    }
                }
            }
            done.set(true);
        });
    }
}

/// The work of one round.
struct Work {
    services: Vec<Service<SimRuntime>>,
    runtimes: Vec<SimRuntime>,
    scenario: Rc<TableScenario>,
    ledger: Rc<Ledger>,
    summary: Rc<RefCell<TableSummary>>,
}

impl Work {
    async fn round(&self, mut random: Random) -> Result<(), Refusal> {
        self.create().await?;
        self.verify().await?;
        let clients = WaitGroup::new();
        for index in 0..self.scenario.clients {
            let shard = index % self.services.len();
            let (service, runtime) = (self.services[shard].clone(), self.runtimes[shard].clone());
            let work = client(
                Rc::clone(&self.ledger),
                service,
                runtime.clone(),
                random.fork(),
                self.scenario.operations,
                self.scenario.keys,
            );
            let token = clients.enter();
            runtime.spawn(Queue::Foreground, async move {
                work.await;
                drop(token);
            });
        }
        clients.wait().await;
        self.verify().await
    }

    /// A crash may have come before, or between.
    async fn create(&self) -> Result<(), Refusal> {
        let ttl =
            json!({"TableName": TABLE, "TimeToLiveSpecification": {"AttributeName": "ttl", "Enabled": true}});
        for (operation, body, known) in [
            ("CreateTable", table(), "Table already exists"),
            ("UpdateTimeToLive", ttl, "TimeToLive is already enabled"),
        ] {
            match call(&self.services[0], operation, body).await {
                Err(error) if !error.message.contains(known) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn verify(&self) -> Result<(), Refusal> {
        let records = verify(&self.services[0], &self.runtimes[0], &self.ledger).await?;
        let mut summary = self.summary.borrow_mut();
        summary.records = records as u64;
        summary.verified += 1;
        Ok(())
    }

    fn count(&self, shards: &Shards) {
        let mut summary = self.summary.borrow_mut();
        for shard in shards.borrow().iter().flatten().flatten() {
            for (_, stats) in shard.engine_stats() {
                summary.flushes += stats.flushes;
            }
            summary.expired += shard.expiry_stats().deleted;
        }
    }
}
