//! One run: rounds of starting a node, work and an end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use cairn::api::Service;
use cairn::node::{Canary, Node, NodeConfig, NodeError, Shard};
use cairn_engine::EngineConfig;
use cairn_runtime::sim::{
    ClockConfig, Config, DriveConfig, FaultConfig, FaultCounters, NodeIndex, Random, SimRuntime, Simulation,
};
use cairn_runtime::sync::WaitGroup;
use cairn_runtime::{Queue, Runtime, ShardIndex};
use serde_json::json;

use super::super::run::Failure;
use super::super::scenario::{End, MirrorFault};
use super::clients::{Ledger, Plan, Room, TABLE, call, client, plain_table, table};
use super::transactions::{TransactionCounts, Transactor};
use super::verify::{Refusal, verify};

/// Longest a round may take in virtual time; then it makes no progress.
const ROUND_MAX: Duration = Duration::from_secs(1800);
const NODE: NodeIndex = NodeIndex(0);
const SHARDS_MAX: usize = 3;
const MIRRORS: [&str; 2] = ["/mirror-0", "/mirror-1"];
const CAPACITY_BYTES: u64 = 4 << 30;
/// A drive is low on room when this part of what is on it is free: less than the eighth of a drive that is the reserve.
const LOW_PART: u64 = 16;
/// Times that the first transaction of a round is tried while it is refused, and the pause between.
const CREATE_TRIES_MAX: usize = 200;
const CREATE_PAUSE: Duration = Duration::from_millis(250);
/// Longer than items live, what clocks jump, and how late the expiry may be.
const ALL_EXPIRED: Duration = Duration::from_secs(150);

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
    /// Whether all that clients ask for is transactions, and rounds are cut off so many events after the clients have begun; else
    /// one operation in three is, and the events count from the start of the node.
    pub transacts: bool,
    /// A bug put in.
    pub canary: Canary,
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
            0..6 => MirrorFault::None,
            6..10 => MirrorFault::Silent([200, 2_000, 20_000][random.index(3)]),
            10..13 => MirrorFault::Errors([50, 500, 5_000][random.index(3)]),
            13..15 => MirrorFault::Timing,
            15..18 => MirrorFault::Vanishes(random.below(20_000)),
            _ => MirrorFault::Full,
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
            transacts: false,
            canary: Canary::None,
        }
    }

    /// A run of transactions over several shards, cut off in the midst of them again and again: most crashes find one that is
    /// decided and not yet carried out everywhere.
    #[must_use]
    pub fn transacting(seed: u64) -> TableScenario {
        let mut random = Random::new(seed ^ 0x7a45_ac70_0000_0000);
        let mut rounds: Vec<(End, usize)> = (0..4)
            .map(|_| (End::Crash(200 + random.below(1_800)), SHARDS_MAX))
            .collect();
        rounds.push((End::Close, SHARDS_MAX));
        TableScenario {
            rounds,
            clients: 6,
            operations: 60,
            keys: 10,
            fault: MirrorFault::None,
            memory_bytes: 2 << 20,
            transacts: true,
            ..TableScenario::of(seed)
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
                capacity_bytes: CAPACITY_BYTES,
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

    /// The same run with a bug put in.
    #[must_use]
    pub fn with_canary(mut self, canary: Canary) -> TableScenario {
        self.canary = canary;
        self
    }

    fn node(&self) -> NodeConfig {
        NodeConfig {
            canary: self.canary,
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
    /// Simulated time.
    pub elapsed: Duration,
    /// Answers to clients.
    pub answered: u64,
    /// Of them, plain writes that were refused.
    pub refused: u64,
    /// Transactions.
    pub transactions: TransactionCounts,
    /// Records of the stream at the end.
    pub records: u64,
    /// Times that everything was checked.
    pub verified: u64,
    /// Flushes, over all rounds that ended by themselves.
    pub flushes: u64,
    /// Items that expired, likewise.
    pub expired: u64,
    /// Times that an engine found room low on the drives, likewise.
    pub room_low: u64,
    /// Faults that happened.
    pub faults: FaultCounters,
}

impl TableSummary {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &TableSummary) {
        self.trace ^= other.trace.rotate_left(self.events as u32 % 64);
        self.events += other.events;
        self.elapsed += other.elapsed;
        self.answered += other.answered;
        self.refused += other.refused;
        self.transactions.add(&other.transactions);
        self.records += other.records;
        self.verified += other.verified;
        self.flushes += other.flushes;
        self.expired += other.expired;
        self.room_low += other.room_low;
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
    summary.elapsed = sim.elapsed();
    summary.transactions = run.ledger.transactions.get();
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
        self.ledger.room.take();
        self.set_room(Room::Plenty);
        // What there is at the end must be looked at.
        if round + 1 == self.scenario.rounds.len() {
            victim.set_faults(FaultConfig::NONE);
        }
    }

    fn set_room(&self, room: Room) {
        for mirror in MIRRORS.map(|mirror| self.sim.drive(NODE, mirror)) {
            mirror.set_capacity(match room {
                Room::Low => mirror.used_bytes() + mirror.used_bytes() / LOW_PART,
                Room::Plenty => CAPACITY_BYTES,
            });
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
        let from_now = || match end {
            End::Crash(events) | End::Kill(events) => sim.events() + events,
            End::Close | End::Leave => u64::MAX,
        };
        self.ledger.is_at_work.set(false);
        let mut until = Some(from_now()).filter(|_| !self.scenario.transacts);
        let vanishes = match self.scenario.fault {
            MirrorFault::Vanishes(events) if round == 0 => sim.events() + 2_000 + events,
            _ => u64::MAX,
        };
        let deadline = sim.elapsed() + ROUND_MAX;
        let mut vanished = false;
        while !done.get() && until.is_none_or(|until| sim.events() < until) && self.ledger.failure().is_none()
        {
            if until.is_none() && self.ledger.is_at_work.get() {
                until = Some(from_now());
            }
            if !vanished && sim.events() >= vanishes {
                vanished = true;
                sim.drive(NODE, MIRRORS[self.scenario.victim]).detach();
            }
            if !has_begun && shards.borrow().iter().all(Option::is_some) {
                has_begun = true;
                let is_last = round + 1 == self.scenario.rounds.len();
                self.drive(&shards, end, is_last, Rc::clone(&done));
            }
            if let Some(room) = self.ledger.room.take() {
                self.set_room(room);
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
    fn drive(&self, shards: &Shards, end: End, is_last: bool, done: Rc<Cell<bool>>) {
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
            shards: Rc::clone(shards),
            waits: is_last || self.scenario.seed.is_multiple_of(3),
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
    shards: Shards,
    /// Wait until all that can expire has, and look again.
    waits: bool,
}

impl Work {
    async fn round(&self, mut random: Random) -> Result<(), Refusal> {
        self.create().await?;
        self.verify().await?;
        let is_full = self.scenario.fault == MirrorFault::Full;
        if is_full {
            self.ledger.room.set(Some(Room::Low));
        }
        self.ledger.is_at_work.set(true);
        let clients = WaitGroup::new();
        for index in 0..self.scenario.clients {
            let shard = index % self.services.len();
            let (service, runtime) = (self.services[shard].clone(), self.runtimes[shard].clone());
            let work = client(
                Rc::clone(&self.ledger),
                service,
                runtime.clone(),
                random.fork(),
                Plan {
                    operations: self.scenario.operations,
                    keys: self.scenario.keys,
                    transacts: self.scenario.transacts,
                },
            );
            let token = clients.enter();
            runtime.spawn(Queue::Foreground, async move {
                work.await;
                drop(token);
            });
        }
        clients.wait().await;
        if is_full {
            self.count_room();
            self.ledger.room.set(Some(Room::Plenty));
        }
        self.verify().await?;
        if self.waits {
            // By then everything that was given a time to live has expired.
            self.runtimes[0].sleep(ALL_EXPIRED).await;
            self.verify().await?;
        }
        Ok(())
    }

    /// A crash may have come before, or between.
    async fn create(&self) -> Result<(), Refusal> {
        let ttl =
            json!({"TableName": TABLE, "TimeToLiveSpecification": {"AttributeName": "ttl", "Enabled": true}});
        for (operation, body, known) in [
            ("CreateTable", table(), "Table already exists"),
            ("CreateTable", plain_table(), "Table already exists"),
            ("UpdateTimeToLive", ttl, "TimeToLive is already enabled"),
        ] {
            match call(&self.services[0], operation, body).await {
                Err(error) if !error.message.contains(known) => return Err(error.into()),
                _ => {}
            }
        }
        let transactor = Transactor {
            ledger: &self.ledger,
            service: &self.services[0],
            runtime: &self.runtimes[0],
        };
        let mut tries = 0;
        while let Err(error) = transactor.create().await {
            tries += 1;
            if tries == CREATE_TRIES_MAX {
                return Err(error.into());
            }
            // What the round before has left may hold them.
            self.runtimes[0].sleep(CREATE_PAUSE).await;
        }
        transactor.find_out().await;
        Ok(())
    }

    /// Transactions that are not at their end, after which nothing is held.
    fn unfinished(&self) -> Option<String> {
        let shards = self.shards.borrow();
        let stats = shards.iter().flatten().flatten().map(Shard::transaction_stats);
        let (prepared, held) = stats.fold((0, 0), |(prepared, held), stats| {
            (prepared + stats.prepared, held + stats.held_items)
        });
        (prepared + held > 0).then(|| {
            format!("{prepared} transactions are prepared and {held} items held, and nobody ends it")
        })
    }

    async fn verify(&self) -> Result<(), Refusal> {
        let unfinished = || self.unfinished();
        let verified = verify(&self.services[0], &self.runtimes[0], &self.ledger, unfinished);
        let records = verified.await?;
        let mut summary = self.summary.borrow_mut();
        summary.records = records as u64;
        summary.verified += 1;
        Ok(())
    }

    fn count_room(&self) {
        let shards = self.shards.borrow();
        let stats = shards.iter().flatten().flatten().flat_map(Shard::engine_stats);
        self.summary.borrow_mut().room_low += stats.map(|(_, stats)| stats.room_low).sum::<u64>();
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
