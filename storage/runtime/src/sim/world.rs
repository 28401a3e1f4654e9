//! Everything that the handles of one simulation share, and the loop that drives it.
//!
//! Nothing is borrowed while a task is polled, a future is dropped or a waker is called: each of them may call
//! back into the world.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;

use super::config::Config;
use super::executor::{Agenda, Event, Executor, TaskFuture, TaskId, Woken};
use super::fault::{FaultCounters, FaultKind};
use super::network::Network;
use super::random::Random;
use super::storage::Storage;
use super::trace::{Step, Trace, TraceEvent};
use crate::{Moment, Queue};

/// What the world knows of a node.
pub(super) struct Node {
    pub(super) shards: usize,
    pub(super) up: bool,
    /// Rises with every crash: handles of an earlier one are dead.
    pub(super) incarnation: u32,
    /// The monotonic clock: where it starts and by how much it runs fast.
    pub(super) origin_ns: u64,
    pub(super) drift_ppm: i64,
    /// The wall clock's error.
    pub(super) skew_ms: i64,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) config: Config,
    pub(super) now: Cell<u64>,
    pub(super) executor: RefCell<Executor>,
    pub(super) agenda: RefCell<Agenda>,
    pub(super) nodes: RefCell<Vec<Node>>,
    pub(super) storage: RefCell<Storage>,
    pub(super) network: RefCell<Network>,
    /// What the application draws.
    pub(super) random: RefCell<Random>,
    trace: RefCell<Trace>,
    /// Faults that belong to no drive.
    pub(super) counters: RefCell<FaultCounters>,
    scratch: RefCell<Vec<TaskId>>,
    polls: Cell<u64>,
    /// Nothing goes wrong by chance any more.
    pub(super) calm: Cell<bool>,
}

thread_local! {
    static ALIVE: Cell<usize> = const { Cell::new(0) };
}

/// Worlds of this thread that have not been dropped.
pub(super) fn alive() -> usize {
    ALIVE.get()
}

impl Drop for World {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get() - 1);
    }
}

/// Wall clock at the start: 2026-01-01.
const UNIX_MS_START: i64 = 1_767_225_600_000;

impl World {
    pub(super) fn new(seed: u64, config: Config) -> World {
        let mut random = Random::new(seed);
        let woken: Woken = Arc::new(Mutex::new(Vec::new()));
        ALIVE.set(ALIVE.get() + 1);
        World {
            seed,
            now: Cell::new(0),
            executor: RefCell::new(Executor::new(random.fork(), woken)),
            agenda: RefCell::default(),
            nodes: RefCell::default(),
            storage: RefCell::new(Storage::new(random.fork())),
            network: RefCell::new(Network::new(random.fork())),
            random: RefCell::new(random.fork()),
            trace: RefCell::new(Trace::new(seed, config.trace_tail)),
            counters: RefCell::default(),
            scratch: RefCell::default(),
            polls: Cell::new(0),
            calm: Cell::new(false),
            config,
        }
    }

    pub(super) fn add_node(&self, shards: usize) -> usize {
        let clock = &self.config.clock;
        let mut random = self.random.borrow_mut();
        let spread = |random: &mut Random, most: u64| {
            let most = i64::try_from(most).expect("clock errors are small");
            random.within(&(0..=2 * most as u64)) as i64 - most
        };
        let node = Node {
            shards,
            up: true,
            incarnation: 0,
            origin_ns: random.within(&(1_000_000_000..=1_000_000_000_000)),
            drift_ppm: spread(&mut random, u64::from(clock.drift_ppm_max)),
            skew_ms: spread(&mut random, clock.skew_ms_max),
        };
        self.executor.borrow_mut().add_node(shards);
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        nodes.len() - 1
    }

    // Clocks.

    /// A node's monotonic clock at a moment of the simulation's.
    pub(super) fn monotonic(&self, node: usize) -> Moment {
        let node = &self.nodes.borrow()[node];
        let now = self.now.get();
        let drift = i128::from(now) * i128::from(node.drift_ppm) / 1_000_000;
        let nanoseconds = i128::from(node.origin_ns) + i128::from(now) + drift;
        Moment {
            nanoseconds: u64::try_from(nanoseconds).expect("drift is a small part of the time passed"),
        }
    }

    /// The simulation's moment at which `duration` will have passed on a node's clock.
    pub(super) fn after(&self, node: usize, duration: Duration) -> u64 {
        let drift = self.nodes.borrow()[node].drift_ppm;
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let stretched = match drift {
            0 => nanoseconds,
            _ => {
                let rate = u128::try_from(1_000_000 + drift).expect("a drift is less than a million ppm");
                // One more covers the rounding of both conversions.
                u64::try_from(u128::from(nanoseconds) * 1_000_000 / rate + 2).unwrap_or(u64::MAX / 4)
            }
        };
        self.now.get().saturating_add(stretched)
    }

    pub(super) fn unix_ms(&self, node: usize) -> u64 {
        let clock = &self.config.clock;
        let mut nodes = self.nodes.borrow_mut();
        if clock.jump_ppm > 0 && !self.calm.get() {
            let mut random = self.random.borrow_mut();
            if random.chance_ppm(clock.jump_ppm) {
                let most = clock.jump_ms_max;
                nodes[node].skew_ms += random.within(&(0..=2 * most)) as i64 - most as i64;
                self.counters.borrow_mut().count(FaultKind::ClockJump);
            }
        }
        let passed = i64::try_from(self.now.get() / 1_000_000).expect("a simulation is short");
        u64::try_from(UNIX_MS_START + passed + nodes[node].skew_ms).unwrap_or(0)
    }

    pub(super) fn alive(&self, node: usize, incarnation: u32) -> bool {
        let nodes = self.nodes.borrow();
        nodes[node].up && nodes[node].incarnation == incarnation
    }

    // Trace.

    pub(super) fn record(&self, step: Step, subject: u64, detail: u64) {
        self.trace.borrow_mut().record(TraceEvent {
            nanoseconds: self.now.get(),
            step,
            subject,
            detail,
        });
    }

    pub(super) fn trace_hash(&self) -> u64 {
        let fingerprints = self.random.borrow().fingerprint()
            ^ self.executor.borrow().random.fingerprint().rotate_left(16)
            ^ self.storage.borrow().random.fingerprint().rotate_left(32)
            ^ self.network.borrow().random.fingerprint().rotate_left(48);
        self.trace.borrow().hash() ^ fingerprints
    }

    pub(super) fn trace_tail(&self) -> Vec<TraceEvent> {
        self.trace.borrow().tail()
    }

    pub(super) fn events(&self) -> u64 {
        self.trace.borrow().events()
    }

    // Tasks.

    pub(super) fn spawn(
        &self,
        node: usize,
        incarnation: u32,
        shard: usize,
        queue: Queue,
        future: TaskFuture,
    ) {
        if !self.alive(node, incarnation) {
            // A destructor of a crashed node: its world has ended.
            return;
        }
        let id = self.executor.borrow_mut().spawn(node, shard, queue, future);
        self.record(Step::Spawn, node as u64, u64::from(id.place));
    }

    /// One event or one poll. False when nothing can ever happen again before `until`.
    pub(super) fn step(self: &Rc<World>, until: u64) -> bool {
        self.executor
            .borrow_mut()
            .enqueue_woken(&mut self.scratch.borrow_mut());
        let due = self.agenda.borrow_mut().next(self.now.get().min(until));
        if let Some((_, event)) = due {
            self.happen(event);
            return true;
        }
        let picked = self.executor.borrow_mut().pick();
        if let Some(picked) = picked {
            self.record(
                Step::Poll,
                (picked.node as u64) << 16 | picked.shard as u64,
                u64::from(picked.id.place),
            );
            let mut future = picked.future;
            let ended = future
                .as_mut()
                .poll(&mut Context::from_waker(&picked.waker))
                .is_ready();
            let cost = {
                let mut executor = self.executor.borrow_mut();
                executor.random.within(&self.config.poll_ns)
            };
            self.now.set(self.now.get() + cost);
            self.polls.set(self.polls.get() + 1);
            let rest = self.executor.borrow_mut().put_back(picked.id, future, ended);
            drop(rest);
            return true;
        }
        let next = self.agenda.borrow_mut().next(until);
        let Some((at, event)) = next else { return false };
        let limit = u64::try_from(self.config.virtual_time_max.as_nanos()).unwrap_or(u64::MAX);
        assert!(
            at <= limit,
            "{}: ran for {:?} of virtual time",
            self.name(),
            self.config.virtual_time_max
        );
        self.now.set(self.now.get().max(at));
        self.happen(event);
        true
    }

    fn happen(self: &Rc<World>, event: Event) {
        match event {
            Event::Timer { place, generation } => {
                let waker = self.agenda.borrow_mut().take_timer((place, generation));
                if let Some(waker) = waker {
                    self.record(Step::Timer, u64::from(place), 0);
                    waker.wake();
                }
            }
            Event::Operation { place, id } => self.complete(place, id),
            Event::Deliver { place, id, from } => self.deliver(place, id, usize::from(from)),
            Event::Reset { place, id, side } => self.reset_side(place, id, usize::from(side)),
            Event::Expire { place, id } => self.expire(place, id),
            Event::Resume { node } => self.executor.borrow_mut().pause(node, false),
        }
    }

    pub(super) fn polls(&self) -> u64 {
        self.polls.get()
    }

    pub(super) fn name(&self) -> String {
        format!("simulation seed {} at {} us", self.seed, self.now.get() / 1000)
    }

    /// The error for a call that breaks the seam's rules.
    ///
    /// # Panics
    /// Unless the configuration wants errors.
    pub(super) fn misuse(&self, what: &str) -> io::Error {
        assert!(!self.config.misuse_panics, "{}: misuse: {what}", self.name());
        io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
    }

    /// Ends a node: `power` decides what happens to its drives.
    pub(super) fn end_node(self: &Rc<World>, node: usize, power: bool) {
        {
            let mut nodes = self.nodes.borrow_mut();
            assert!(nodes[node].up, "{}: node {node} is down already", self.name());
            nodes[node].up = false;
            nodes[node].incarnation += 1;
        }
        self.record(Step::Crash, node as u64, u64::from(power));
        self.counters
            .borrow_mut()
            .count(if power { FaultKind::Crash } else { FaultKind::Kill });
        // First what was in flight, by the state of the drives now; then the tasks, whose handles close files.
        let dropped = self.abort_operations(node, power);
        self.abandon_connections(node, power);
        let futures = self.executor.borrow_mut().take_node(node);
        drop(futures);
        drop(dropped);
        if power {
            self.lose_power(node);
        }
        self.unlock(node);
    }

    /// Drops whatever holds the world, at the end of the simulation.
    pub(super) fn tear_down(self: &Rc<World>) {
        let nodes = {
            let mut nodes = self.nodes.borrow_mut();
            nodes.iter_mut().for_each(|node| {
                node.up = false;
                node.incarnation += 1;
            });
            nodes.len()
        };
        for node in 0..nodes {
            let operations = self.abort_operations(node, false);
            let futures = self.executor.borrow_mut().take_node(node);
            drop(futures);
            drop(operations);
        }
        drop(self.agenda.take());
        let network = self.network.replace(Network::new(Random::new(0)));
        drop(network);
    }

    pub(super) fn restart_node(&self, node: usize) {
        let mut nodes = self.nodes.borrow_mut();
        assert!(!nodes[node].up, "{}: node {node} is up already", self.name());
        nodes[node].up = true;
        // Another process has another origin.
        nodes[node].origin_ns = self
            .random
            .borrow_mut()
            .within(&(1_000_000_000..=1_000_000_000_000));
        drop(nodes);
        self.executor.borrow_mut().pause(node, false);
        self.record(Step::Restart, node as u64, 0);
    }
}
