//! The simulated world: virtual time, seeded randomness, drives and a network that fail on demand.
//!
//! One seed is one run: everything that could differ between two runs is drawn from it, in one thread. Time
//! passes only when nothing can run. A node is a process on a host with drives; nodes crash and come back.
//!
//! ```
//! use cairn_runtime::sim::{Config, NodeIndex, Simulation};
//! use cairn_runtime::{Drive, File, Open, Runtime, ShardIndex};
//! use std::path::Path;
//!
//! let sim = Simulation::new(7, Config::default());
//! let node = NodeIndex(0);
//! sim.block_on(node, ShardIndex(0), async |runtime| {
//!     let drive = runtime.drive(Path::new("/drive"), true).await?;
//!     drive.open("log", Open { create_new: true, ..Open::default() }).await?;
//!     drive.sync().await
//! })?;
//! sim.crash(node);
//! sim.restart(node);
//! assert_eq!(sim.drive(node, "/drive").image().names().count(), 1);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Read in this order: [`fault`] (what can go wrong), [`config`], `executor`, `world`, `disk`, `storage`,
//! `network`.

pub mod config;
pub mod fault;

mod control;
mod disk;
mod drive;
mod executor;
mod image;
mod network;
mod perform;
mod random;
mod runtime;
mod sites;
mod socket;
mod storage;
mod trace;
mod world;

pub use config::{ClockConfig, Config, DriveConfig, NetworkConfig};
pub use control::DriveControl;
pub use drive::{SimDrive, SimFile};
pub use fault::{Fault, FaultConfig, FaultCounters, FaultKind, Injection, Operation};
pub use image::DriveImage;
pub use random::Random;
pub use runtime::SimRuntime;
pub use sites::{Met, Sites};
pub use socket::{SimConnection, SimListener};
pub use trace::{Step, TraceEvent};

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use self::executor::Event;
use self::world::World;
use crate::{Queue, Runtime, ShardIndex};

/// A node of a simulation, from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeIndex(pub usize);

/// Owns a simulated world and ends it when dropped. Everything to do with it is on [`Handle`].
pub struct Simulation {
    handle: Handle,
}

/// A simulated world. Cheap to clone; scenarios inside of [`Handle::run`] get one.
#[derive(Clone)]
pub struct Handle {
    world: Rc<World>,
    /// Where scenarios run: a host of its own that never fails.
    outside: usize,
}

impl Simulation {
    /// A world with the nodes of `config`, all up, at time zero.
    #[must_use]
    pub fn new(seed: u64, config: Config) -> Simulation {
        let (nodes, shards) = (config.nodes, config.shards);
        let world = Rc::new(World::new(seed, config));
        let outside = usize::from(u16::MAX);
        let handle = Handle { world, outside };
        for _ in 0..nodes {
            handle.world.add_node(shards);
        }
        // Behind the nodes, so that these are numbered from zero.
        let outside = handle.world.add_node(1);
        Simulation {
            handle: Handle { outside, ..handle },
        }
    }
}

impl Deref for Simulation {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let world = &self.handle.world;
        if std::thread::panicking() {
            for event in world.trace_tail() {
                eprintln!("{event}");
            }
            eprintln!("{}: failed after {} events", world.name(), world.events());
        }
        world.tear_down();
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(formatter)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.world.name())
    }
}

impl Handle {
    // Running.

    /// Runs `scenario` outside of the nodes, with everything else, until it ends.
    ///
    /// # Panics
    /// When it can never end: nothing is left to happen; or when `virtual_time_max` has passed.
    pub fn run<T: 'static>(&self, scenario: impl AsyncFnOnce(Handle) -> T + 'static) -> T {
        let handle = self.clone();
        self.finish(&self.outside(), async move { scenario(handle).await })
            .expect("the outside never crashes")
    }

    /// Runs `task` on a shard, with everything else, until it ends.
    ///
    /// # Panics
    /// As [`Handle::run`], and when the node crashes before the end.
    pub fn block_on<T: 'static>(
        &self,
        node: NodeIndex,
        shard: ShardIndex,
        task: impl AsyncFnOnce(SimRuntime) -> T + 'static,
    ) -> T {
        self.try_block_on(node, shard, task)
            .unwrap_or_else(|| panic!("{}: node {} crashed under block_on", self.world.name(), node.0))
    }

    /// Like [`Handle::block_on`]; `None` when the node crashes first.
    pub fn try_block_on<T: 'static>(
        &self,
        node: NodeIndex,
        shard: ShardIndex,
        task: impl AsyncFnOnce(SimRuntime) -> T + 'static,
    ) -> Option<T> {
        let runtime = self.runtime(node, shard);
        self.finish(&runtime.clone(), async move { task(runtime).await })
    }

    fn finish<T: 'static>(
        &self,
        runtime: &SimRuntime,
        future: impl Future<Output = T> + 'static,
    ) -> Option<T> {
        let output = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&output);
        runtime.spawn(Queue::Foreground, async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        });
        loop {
            if let Some(value) = output.borrow_mut().take() {
                return Some(value);
            }
            // The task holds the other reference until it is dropped.
            if Rc::strong_count(&output) == 1 {
                return None;
            }
            let alive = self.world.executor.borrow().alive();
            assert!(
                self.world.step(u64::MAX),
                "{}: deadlock: {alive} tasks wait for nothing",
                self.world.name()
            );
        }
    }

    /// Starts `start` on every shard of a node; it runs when the simulation does.
    pub fn start<F: Future<Output = ()> + 'static>(&self, node: NodeIndex, start: impl Fn(SimRuntime) -> F) {
        for shard in 0..self.shards(node) {
            let runtime = self.runtime(node, ShardIndex(shard));
            runtime.spawn(Queue::Foreground, start(runtime.clone()));
        }
    }

    /// Lets `duration` of virtual time pass.
    pub fn run_for(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let until = self.world.now.get().saturating_add(nanoseconds);
        while self.world.now.get() < until && self.world.step(until) {}
        self.world.now.set(self.world.now.get().max(until));
    }

    /// Runs until nothing is left to happen. Never ends when a task sleeps again and again.
    pub fn run_until_idle(&self) {
        while self.world.step(u64::MAX) {}
    }

    /// One event or one poll; false when nothing is left to happen. For tests that crash at every step.
    #[must_use]
    pub fn step(&self) -> bool {
        self.world.step(u64::MAX)
    }

    /// Virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.world.now.get())
    }

    /// The seed that this run can be repeated with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// A source of randomness of its own for the test, drawn from the seed.
    #[must_use]
    pub fn random(&self) -> Random {
        self.world.random.borrow_mut().fork()
    }

    // Nodes.

    /// Adds a node, up. Gives its index.
    #[must_use]
    pub fn add_node(&self, shards: usize) -> NodeIndex {
        NodeIndex(self.world.add_node(shards))
    }

    /// The world as a shard of a node that is up sees it, until the node crashes.
    #[must_use]
    pub fn runtime(&self, node: NodeIndex, shard: ShardIndex) -> SimRuntime {
        let nodes = self.world.nodes.borrow();
        let state = &nodes[node.0];
        assert!(state.up, "{}: node {} is down", self.world.name(), node.0);
        assert!(
            shard.0 < state.shards,
            "node {} has {} shards",
            node.0,
            state.shards
        );
        SimRuntime {
            world: Rc::clone(&self.world),
            node: node.0,
            incarnation: state.incarnation,
            shard: shard.0,
        }
    }

    /// The world as a host sees it that is no node and never fails: for clients and scenarios.
    #[must_use]
    pub fn outside(&self) -> SimRuntime {
        self.runtime(NodeIndex(self.outside), ShardIndex(0))
    }

    /// Shards of a node.
    #[must_use]
    pub fn shards(&self, node: NodeIndex) -> usize {
        self.world.nodes.borrow()[node.0].shards
    }

    /// The address at which other nodes reach this one.
    #[must_use]
    pub fn address(&self, node: NodeIndex) -> IpAddr {
        network::node_address(node.0)
    }

    /// [`Handle::address`] with a port.
    #[must_use]
    pub fn socket_address(&self, node: NodeIndex, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(node), port)
    }

    /// The node's host loses its power: all tasks are dropped where they stand, writes in flight are applied,
    /// torn or lost, and what was not synced may be lost. It stays down until [`Handle::restart`].
    pub fn crash(&self, node: NodeIndex) {
        self.world.end_node(node.0, true);
    }

    /// The node's process is killed: all tasks are dropped, writes in flight happen or not, nothing else is lost.
    pub fn kill(&self, node: NodeIndex) {
        self.world.end_node(node.0, false);
    }

    /// A node that is down is up again, with its drives and no tasks.
    pub fn restart(&self, node: NodeIndex) {
        self.world.restart_node(node.0);
    }

    /// Whether the node is up.
    #[must_use]
    pub fn is_up(&self, node: NodeIndex) -> bool {
        self.world.nodes.borrow()[node.0].up
    }

    /// No task of the node runs for this long, while its drives, connections and clocks go on.
    pub fn pause(&self, node: NodeIndex, duration: Duration) {
        self.world.executor.borrow_mut().pause(node.0, true);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let at = self.world.now.get().saturating_add(nanoseconds);
        self.world
            .agenda
            .borrow_mut()
            .add(at, Event::Resume { node: node.0 });
    }

    /// The node's wall clock jumps.
    pub fn jump_clock(&self, node: NodeIndex, milliseconds: i64) {
        self.world.nodes.borrow_mut()[node.0].skew_ms += milliseconds;
        self.world.counters.borrow_mut().count(FaultKind::ClockJump);
    }

    // Drives.

    /// The drive that a node has at `path`. It need not exist yet: its capacity and faults can be set before
    /// the node makes it.
    #[must_use]
    pub fn drive(&self, node: NodeIndex, path: impl AsRef<Path>) -> DriveControl {
        let disk = self.world.disk_at(node.0, path.as_ref());
        DriveControl {
            world: Rc::clone(&self.world),
            disk,
        }
    }

    /// Keeps chance from damaging one of `drives`, chosen by the seed, and lets it have all the others; gives the
    /// index of the one. With every group of mirrors passed here once, each has a healthy member.
    pub fn protect_one_of(&self, drives: &[DriveControl]) -> usize {
        let chosen = self.world.random.borrow_mut().index(drives.len());
        for (place, drive) in drives.iter().enumerate() {
            drive.protect(place == chosen);
        }
        chosen
    }

    /// Ends all trouble: from now on nothing goes wrong by chance, drives are attached (what was opened before
    /// they vanished stays dead), stalls end, partitions heal. Damage that was done stays. For the second phase
    /// of a liveness test: with one healthy mirror of every pair, everything must now come to an end.
    pub fn calm(&self) {
        self.world.calm.set(true);
        for disk in &mut self.world.storage.borrow_mut().disks {
            disk.calm();
        }
        self.heal_all();
    }

    // Network.

    /// Nothing passes between a node of `left` and one of `right`, in either direction.
    pub fn partition(&self, left: &[NodeIndex], right: &[NodeIndex]) {
        for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
            self.partition_one_way(a, b);
            self.partition_one_way(b, a);
        }
    }

    /// Nothing passes from one node to the other; the way back is open.
    pub fn partition_one_way(&self, from: NodeIndex, to: NodeIndex) {
        self.world.network.borrow_mut().blocked.insert((from.0, to.0));
        self.world.counters.borrow_mut().count(FaultKind::Partition);
    }

    /// Everything passes between two nodes again.
    pub fn heal(&self, a: NodeIndex, b: NodeIndex) {
        self.world
            .unblock(|from, to| (from, to) != (a.0, b.0) && (from, to) != (b.0, a.0));
    }

    /// Everything passes again.
    pub fn heal_all(&self) {
        self.world.unblock(|_, _| false);
    }

    // What happened.

    /// A hash over every event so far and what will be drawn next. The same for the same seed.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.world.trace_hash()
    }

    /// Mixes something of the test's own into the trace.
    pub fn note(&self, subject: u64, detail: u64) {
        self.world.record(Step::Note, subject, detail);
    }

    /// The last events, as many as the configuration keeps.
    #[must_use]
    pub fn trace_tail(&self) -> Vec<TraceEvent> {
        self.world.trace_tail()
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.world.events()
    }

    /// Polls of tasks so far.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.world.polls()
    }

    /// Faults so far, of all drives, the network, clocks and nodes.
    #[must_use]
    pub fn faults(&self) -> FaultCounters {
        let mut faults = *self.world.counters.borrow();
        for disk in &self.world.storage.borrow().disks {
            faults.merge(&disk.counters);
        }
        faults
    }

    /// Where space was refused, and what was in flight when the power failed, on all drives so far.
    #[must_use]
    pub fn sites(&self) -> Sites {
        self.world.storage.borrow().sites.clone()
    }
}

/// Simulated worlds of this thread that are still in memory. One stays for as long as anything holds a handle of it, so
/// after the end of a simulation it shows what was never dropped.
#[must_use]
pub fn worlds_alive() -> usize {
    world::alive()
}
