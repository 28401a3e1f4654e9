//! One run: rounds of opening, work and an end, then a look at the files.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::sealing::{Keys, RootKey, audit};
use cairn_engine::volume::{Keeper, VolumeConfig, VolumeError, rotate_root_key};
use cairn_engine::{Engine, check, ids::LogId};
use cairn_runtime::sim::{DriveControl, DriveImage, FaultConfig, NodeIndex, SimRuntime, Simulation};
use cairn_runtime::sync::WaitGroup;
use cairn_runtime::{Queue, Runtime, ShardIndex};

use super::backup::{self, DIRECTORY};
use super::operator::{DIRECTORIES, Fleet, directory};
use super::scenario::{End, MirrorFault, Scenario, VANISHES_AFTER};
use super::summary::Summary;
use super::workload::Context;

/// Longest a round may take in virtual time; then it makes no progress.
const ROUND_MAX: Duration = Duration::from_secs(900);

/// Events between two stalls of a drive, at most.
const STALL_EVERY_MAX: u64 = 20_000;
/// How long a drive stalls, in milliseconds: longer than the log waits for a mirror, too.
const STALL_MS_MAX: u64 = 6_000;

const NODE: NodeIndex = NodeIndex(0);
/// The state directory.
const STATE: &str = "/state";

/// Why a node that is only looked at does not open.
enum Refusal {
    Volume(VolumeError),
    Engine(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Volume(error) => error.fmt(formatter),
            Refusal::Engine(error) => error.fmt(formatter),
        }
    }
}

/// A run that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Repeats it.
    pub seed: u64,
    /// In which round.
    pub round: usize,
    /// What was wrong.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "seed {}, round {}: {}",
            self.seed, self.round, self.why
        )
    }
}

fn volume_config(context: &Context, roots: &[RootKey], drives: Option<Vec<PathBuf>>) -> VolumeConfig {
    let plan = context.scenario.fleet;
    let configured = context.fleet.as_ref().map(Fleet::configured);
    VolumeConfig {
        drives: drives
            .or(configured)
            .unwrap_or_else(|| (0..2).map(directory).collect()),
        state: PathBuf::from(STATE),
        mirrors: plan.map_or(2, |plan| plan.mirrors),
        accept_epoch: None,
        keys: Keys {
            root: roots.to_vec(),
            encrypted: Some(!roots.is_empty()),
        },
    }
}

/// Runs a scenario to its end.
///
/// # Errors
/// The first thing that the model does not allow.
pub fn run(scenario: Scenario, verbose: bool) -> Result<Summary, Failure> {
    let seed = scenario.seed;
    if verbose {
        eprintln!("{scenario:#?}");
    }
    let sim = Simulation::new(seed, scenario.world(if verbose { 100 } else { 0 }));
    let context = Rc::new(Context::new(scenario.clone(), verbose));
    let mut run = Run {
        sim: &sim,
        context: Rc::clone(&context),
        summary: Rc::default(),
        roots: Vec::new(),
    };
    if scenario.encrypted {
        run.roots.push(RootKey::new([1; 32]));
    }
    audit::begin();
    for (round, end) in scenario.rounds.iter().enumerate() {
        match &context.fleet {
            Some(fleet) => run.arrange_fleet(fleet, round),
            None => run.arrange_faults(round, round + 1 == scenario.rounds.len()),
        }
        run.round(round, *end);
        if context.failure().is_none() {
            run.look_at_backup();
        }
        if scenario.looks[round] && context.failure().is_none() {
            run.look_at_each_mirror(*end);
        }
        if let (Some(events), None) = (scenario.rotations[round], context.failure()) {
            run.rotate(round, events);
        }
        run.damage(*end == End::Close);
        context.backup.take();
        if let Some(why) = context.failure() {
            return Err(Failure { seed, round, why });
        }
    }
    run.check_files();
    if let Some(why) = context.failure() {
        return Err(Failure {
            seed,
            round: scenario.rounds.len(),
            why,
        });
    }
    let mut summary = run.summary.borrow().clone();
    summary.sealed = audit::end() as u64;
    summary.trace = sim.trace_hash();
    summary.events = sim.events();
    summary.elapsed = sim.elapsed();
    summary.answered = context.answered.get();
    summary.refused = context.refused.get();
    summary.seeds = 1;
    summary.partitions_refused = context.given_up();
    summary.faults = sim.faults();
    summary.sites = sim.sites();
    if let Some(fleet) = &context.fleet {
        summary.drives_lost = fleet.lost.get();
        summary.drive_operations = fleet.done.get();
    }
    Ok(summary)
}

/// As [`run`]; a panic of the code under test is a failure too, and does not end the test.
///
/// # Errors
/// As [`run`].
pub fn run_caught(scenario: Scenario) -> Result<Summary, Failure> {
    let seed = scenario.seed;
    let caught = catch_unwind(AssertUnwindSafe(|| run(scenario, false)));
    caught.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        Err(Failure {
            seed,
            round: 0,
            why: format!("panic: {}", words.unwrap_or_default()),
        })
    })
}

struct Run<'a> {
    sim: &'a Simulation,
    context: Rc<Context>,
    summary: Rc<RefCell<Summary>>,
    /// The node's root key; where a rotation was cut off, those that it may be.
    roots: Vec<RootKey>,
}

impl Run<'_> {
    fn mirror(&self, at: usize) -> DriveControl {
        self.sim.drive(NODE, format!("/mirror-{at}"))
    }

    fn fleet_drives(&self) -> Vec<DriveControl> {
        (0..DIRECTORIES).map(|at| self.mirror(at)).collect()
    }

    /// Drives are lost and come back, and the operator finds the configuration that the node starts with.
    fn arrange_fleet(&self, fleet: &Fleet, round: usize) {
        if round == 0 {
            return;
        }
        fleet.while_down(&self.fleet_drives(), &mut self.sim.random());
        let mut refused = Vec::new();
        let mut configurations = fleet.configurations();
        configurations.reverse();
        while let Some(drives) = configurations.pop() {
            let config = volume_config(&self.context, &self.roots, Some(drives.clone()));
            if !self.sim.is_up(NODE) {
                self.sim.restart(NODE);
            }
            let opened = self.sim.block_on(NODE, ShardIndex(0), async move |runtime| {
                Keeper::open(runtime, config).await.map(drop)
            });
            self.sim.kill(NODE);
            match opened {
                Ok(()) => return fleet.configure(drives),
                Err(VolumeError::NotMember(path)) if drives.len() > 1 => {
                    fleet.is_stranger(&path);
                    configurations.push(drives.into_iter().filter(|drive| *drive != path).collect());
                }
                Err(why) => refused.push(why.to_string()),
            }
        }
        self.context
            .fail(format!("no configuration will do: {}", refused.join("; ")));
    }

    fn arrange_faults(&mut self, round: usize, last: bool) {
        if let Some(ppm) = self.context.scenario.fails {
            let state = self.sim.drive(NODE, STATE);
            for drive in [self.mirror(0), self.mirror(1), state] {
                drive.set_faults(FaultConfig::errors(ppm));
                if !drive.is_attached() {
                    drive.attach();
                }
            }
            return;
        }
        let victim = self.mirror(self.context.scenario.victim);
        let faults = match self.context.scenario.fault {
            // The first start is spared: a node that cannot be created is no test.
            fault if round == 0 => fault.everywhere(),
            MirrorFault::Silent(ppm) => FaultConfig::silent(ppm),
            MirrorFault::Errors(ppm) => FaultConfig::errors(ppm),
            fault @ MirrorFault::Only(kind, ppm) if fault.is_silent() || fault.is_loud() => {
                FaultConfig::only(kind, ppm)
            }
            _ => return self.arrange_space(last),
        };
        victim.set_faults(faults);
        if round.is_multiple_of(2) {
            victim.attach();
        }
    }

    fn arrange_space(&self, last: bool) {
        let victim = self.mirror(self.context.scenario.victim);
        let back_soon = self.context.scenario.back_soon;
        match self.context.scenario.fault {
            MirrorFault::Full => (0..2).for_each(|at| {
                let mirror = self.mirror(at);
                let room = if last {
                    256 << 20
                } else {
                    mirror.used_bytes() + (64 << 10)
                };
                mirror.set_capacity(room);
            }),
            MirrorFault::Vanishes(_) if !victim.is_attached() && (last || back_soon) => victim.attach(),
            _ => {}
        }
    }

    /// Damages bytes of the stopped node, at the same place of both mirrors or on one. The log only once, and only behind a
    /// marker: a last batch that nobody bears witness to looks like one that was never acknowledged.
    fn damage(&self, mut log_too: bool) {
        let mut random = self.sim.random();
        for _ in 0..self.context.scenario.damage.unwrap_or(0) {
            let at = random.index(2);
            let image = self.mirror(at).image();
            let names: Vec<&str> = image.names().collect();
            if names.is_empty() {
                continue;
            }
            let name = names[random.index(names.len())];
            let bytes = image.bytes(name).unwrap_or(0);
            let is_log = name.starts_with("log-");
            if bytes == 0 || is_log && !std::mem::take(&mut log_too) {
                continue;
            }
            let (offset, bit) = (random.below(bytes), random.below(8) as u8);
            self.mirror(at).flip_bit(name, offset, bit);
            let other = self.mirror(1 - at);
            let both = random.below(4) > 0 && other.image().bytes(name).is_some_and(|bytes| offset < bytes);
            if both {
                other.flip_bit(name, offset, bit);
            }
            if self.context.verbose {
                eprintln!("  damaged: bit {bit} at {offset} of {name}, mirror {at}, both: {both}");
            }
        }
    }

    fn round(&mut self, round: usize, end: End) {
        let sim = self.sim;
        if !sim.is_up(NODE) {
            sim.restart(NODE);
        }
        let runtime = sim.runtime(NODE, ShardIndex(0));
        let done = Rc::new(Cell::new(false));
        let (context, summary) = (Rc::clone(&self.context), Rc::clone(&self.summary));
        let safety = self.context.scenario.damage.is_some();
        let finished = Rc::clone(&done);
        let refusals = Rc::clone(&self.summary);
        let random_seed = sim.random().next_u64();
        let drives = self.fleet_drives();
        let volume = volume_config(&self.context, &self.roots, None);
        context.round.set(round);
        runtime.clone().spawn(Queue::Foreground, async move {
            if let Err(why) = node(
                Rc::clone(&context),
                runtime,
                volume,
                random_seed,
                end == End::Close,
                summary,
                drives,
            )
            .await
            {
                if safety {
                    refusals.borrow_mut().starts_refused += 1;
                } else {
                    context.fail(why);
                }
            }
            finished.set(true);
        });
        let until = match end {
            End::Crash(events) | End::Kill(events) => sim.events() + events,
            End::Close | End::Leave => u64::MAX,
        };
        let vanishes = match self.context.scenario.fault {
            MirrorFault::Vanishes(events) if round == 0 => sim.events() + VANISHES_AFTER + events,
            _ => u64::MAX,
        };
        let deadline = sim.elapsed() + ROUND_MAX;
        let begun = sim.events();
        let mut vanished = false;
        let mut stalls = match self.context.scenario.fault {
            MirrorFault::OneStalls => sim.events() + sim.random().below(STALL_EVERY_MAX),
            _ => u64::MAX,
        };
        while !done.get() && sim.events() < until && self.context.failure().is_none() {
            if self.context.wants_space.take() {
                (0..2).for_each(|at| self.mirror(at).set_capacity(256 << 20));
            }
            if !vanished && sim.events() >= vanishes {
                vanished = true;
                self.mirror(self.context.scenario.victim).detach();
            }
            if sim.events() >= stalls {
                let mut random = sim.random();
                let length = Duration::from_millis(random.below(STALL_MS_MAX));
                self.mirror(self.context.scenario.victim).stall_for(length);
                stalls = sim.events() + random.below(STALL_EVERY_MAX);
            }
            if !sim.step() {
                self.context.fail("deadlock: nothing is left to happen");
            }
            if self.context.scenario.notes_points {
                self.summary.borrow_mut().note_points(round, sim.events() - begun);
            }
            if sim.elapsed() > deadline {
                self.context.fail("no end: the round takes longer than it may");
            }
        }
        if matches!(end, End::Crash(_) | End::Kill(_)) {
            self.summary.borrow_mut().cut_off();
        }
        match end {
            End::Crash(_) => sim.crash(NODE),
            _ => sim.kill(NODE),
        }
    }

    /// What the round has left as a backup: whole and right when it was said to be done, and else either that or refused.
    fn look_at_backup(&mut self) {
        let Some(made) = self.context.backup.take() else {
            return self.clear_backup();
        };
        let context = Rc::new(self.context.at(made.models));
        let config = VolumeConfig {
            drives: vec![Path::new(DIRECTORY).join("drive")],
            state: Path::new(DIRECTORY).join("state"),
            mirrors: 1,
            ..volume_config(&self.context, &self.roots, None)
        };
        self.sim.restart(NODE);
        match self.look(&context, config) {
            Ok(()) => self.summary.borrow_mut().backups += 1,
            Err(_) if !made.done => self.summary.borrow_mut().backups_cut_off += 1,
            Err(why) => self.context.fail(format!("the backup does not open: {why}")),
        }
        if let Some(why) = context.failure() {
            self.context.fail(format!("the backup: {why}"));
        }
        self.sim.kill(NODE);
        self.clear_backup();
    }

    fn clear_backup(&self) {
        for part in ["", "/drive", "/state"] {
            self.sim
                .drive(NODE, format!("{DIRECTORY}{part}"))
                .restore(&DriveImage::default());
        }
    }

    /// Nothing was acknowledged before every mirror in sync had it, so each of them has everything without the other. For
    /// mirrors that do not lie; what is done to them here is undone again.
    fn look_at_each_mirror(&mut self, end: End) {
        let scenario = &self.context.scenario;
        // An image does not know what was not synced yet.
        let settled = !matches!(end, End::Kill(_) | End::Leave);
        let honest = !scenario.fault.is_silent() && scenario.damage.is_none() && scenario.fleet.is_none();
        if !settled || !honest || !self.context.has_answered() {
            return;
        }
        let drives = [self.mirror(0), self.mirror(1), self.sim.drive(NODE, STATE)];
        let before: Vec<_> = drives
            .iter()
            .map(|drive| (drive.image(), drive.chances()))
            .collect();
        drives
            .iter()
            .for_each(|drive| drive.set_faults(FaultConfig::NONE));
        let room: Vec<u64> = drives.iter().map(DriveControl::capacity_bytes).collect();
        drives.iter().for_each(|drive| drive.set_capacity(256 << 20));
        for at in 0..2 {
            let is_back = !drives[at].is_attached();
            if is_back {
                drives[at].attach();
            }
            drives[1 - at].restore(&DriveImage::default());
            let context = Rc::new(self.context.at(self.context.models_now()));
            self.sim.restart(NODE);
            let looked = self.look(&context, volume_config(&self.context, &self.roots, None));
            self.sim.kill(NODE);
            match looked {
                Ok(()) => self.summary.borrow_mut().alone += 1,
                // Out of sync, and never believed.
                Err(Refusal::Volume(VolumeError::OnlyStale { .. } | VolumeError::HolderMissing { .. })) => {
                    self.summary.borrow_mut().stale_refused += 1;
                }
                Err(why) => self
                    .context
                    .fail(format!("mirror {at} alone does not open: {why}")),
            }
            if let Some(why) = context.failure() {
                self.context.fail(format!("mirror {at} alone: {why}"));
            }
            for (drive, (image, _)) in drives.iter().zip(&before) {
                drive.restore(image);
            }
            if is_back {
                drives[at].detach();
            }
        }
        for ((drive, (_, chances)), room) in drives.iter().zip(before).zip(room) {
            drive.set_faults(chances);
            drive.set_capacity(room);
        }
    }

    /// Opens a node and holds what it has against the model.
    fn look(&self, context: &Rc<Context>, config: VolumeConfig) -> Result<(), Refusal> {
        let context = Rc::clone(context);
        self.sim.block_on(NODE, ShardIndex(0), async move |runtime| {
            let keeper = Keeper::open(runtime.clone(), config)
                .await
                .map_err(Refusal::Volume)?;
            let volume = keeper.handle().attach(runtime.clone()).await;
            let volume = volume.map_err(Refusal::Volume)?;
            let config = context.scenario.engine.clone();
            let engine = Engine::open(runtime.clone(), volume, LogId(0), config).await;
            let engine = engine.map_err(|error| Refusal::Engine(error.to_string()))?;
            context.verify_recovered(&engine).await;
            Ok(())
        })
    }

    /// Another root key for the stopped node, perhaps cut off by a crash: then it is one of two, and whoever opens the node
    /// has both.
    fn rotate(&mut self, round: usize, events: u64) {
        let sim = self.sim;
        sim.restart(NODE);
        let new = RootKey::new([u8::try_from(round).unwrap_or(u8::MAX).wrapping_add(2); 32]);
        let (volume, fresh, runtime) = (
            volume_config(&self.context, &self.roots, None),
            new.clone(),
            sim.runtime(NODE, ShardIndex(0)),
        );
        let outcome = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&outcome);
        runtime.clone().spawn(Queue::Foreground, async move {
            let rotated = rotate_root_key(runtime, &volume, &fresh).await;
            *slot.borrow_mut() = Some(rotated);
        });
        let until = sim.events().saturating_add(events);
        while outcome.borrow().is_none() && sim.events() < until && sim.step() {}
        if outcome.borrow().is_none() {
            self.summary.borrow_mut().cut_off();
        }
        sim.crash(NODE);
        let outcome = outcome.borrow_mut().take();
        let mut summary = self.summary.borrow_mut();
        match outcome {
            Some(Ok(_)) => {
                self.roots = vec![new];
                summary.rotations += 1;
                return;
            }
            // A node whose creation was cut off has nothing to rotate; nor is a damaged one held to anything; and where
            // drives come and go, the configuration may not be right before the next start.
            Some(Err(_))
                if round == 0 || self.context.scenario.damage.is_some() || self.context.fleet.is_some() => {}
            Some(Err(error)) => self.context.fail(format!("rotating the root key: {error}")),
            None => summary.rotations_cut_off += 1,
        }
        self.roots.push(new);
    }

    /// The node is stopped: every byte is looked at.
    fn check_files(&mut self) {
        let fault = self.context.scenario.fault;
        let faulty = fault.is_silent() || fault.is_loud();
        let victim = self.mirror(self.context.scenario.victim);
        victim.set_faults(FaultConfig::NONE);
        if self.context.fleet.is_none() {
            victim.attach();
        }
        self.sim.restart(NODE);
        let context = Rc::clone(&self.context);
        let volume = volume_config(&self.context, &self.roots, None);
        let report = self.sim.block_on(NODE, ShardIndex(0), async move |runtime| {
            let options = check::CheckOptions { items: false };
            check::check(runtime, &volume, options, &mut |_| {}).await
        });
        match report {
            // Damage is what there is to find.
            _ if context.scenario.damage.is_some() => {}
            Err(error) => context.fail(format!("check: {error}")),
            Ok(report) if !report.lost().is_empty() => {
                context.fail(format!("check: data is lost: {}", report.lost().join("; ")));
            }
            // Damage on the mirror that suffers may not have been met yet; what counts is that nothing is lost.
            Ok(_) if faulty => {}
            Ok(report) => {
                // A mirror that lagged is a mirror less, and no damage.
                let lagged = fault.is_of_time();
                let lost = context.fleet.is_some();
                let path = |damage: &str| damage.split([' ', ':']).next().unwrap_or_default().to_owned();
                let out: Vec<String> = report
                    .damage()
                    .iter()
                    .filter(|damage| damage.contains("out of sync"))
                    .map(|damage| path(damage))
                    .collect();
                // A drive that went away while its superblock was being written has a torn copy.
                let torn = |damage: &str| damage.contains("of its superblock") && out.contains(&path(damage));
                let damage = report.damage().iter();
                let damage: Vec<_> = damage
                    .filter(|damage| !((lagged || lost) && damage.contains("out of sync")))
                    .filter(|damage| !(lost && torn(damage)))
                    .filter(|damage| !(lost && damage.contains("its superblock cannot be read")))
                    .map(String::as_str)
                    .collect();
                if !damage.is_empty() {
                    context.fail(format!("check: {}", damage.join("; ")));
                }
            }
        }
    }
}

/// The node's life in one round.
async fn node(
    context: Rc<Context>,
    runtime: SimRuntime,
    volume: VolumeConfig,
    seed: u64,
    close: bool,
    summary: Rc<RefCell<Summary>>,
    drives: Vec<DriveControl>,
) -> Result<(), String> {
    let keeper = Keeper::open(runtime.clone(), volume)
        .await
        .map_err(|error| format!("open: {error}"))?;
    let volume = keeper
        .handle()
        .attach(runtime.clone())
        .await
        .map_err(|error| format!("attach: {error}"))?;
    let engine = loop {
        let config = context.scenario.engine.clone();
        match Engine::open(runtime.clone(), volume.clone(), LogId(0), config).await {
            Ok(engine) => break engine,
            // A log that finds no room for its next file says so and can be opened once there is some.
            Err(error) if error.to_string().contains("no space") => {
                runtime.sleep(Duration::from_millis(500)).await;
                context.wants_space.set(true);
            }
            Err(error) => return Err(format!("engine open: {error}")),
        }
    };
    loop {
        match context.create(&engine).await {
            Ok(()) => break,
            Err(cairn_engine::EngineError::OutOfSpace(_)) => runtime.sleep(Duration::from_millis(100)).await,
            Err(error) => return Err(format!("creating: {error}")),
        }
    }
    context.verify_recovered(&engine).await;
    let clients = WaitGroup::new();
    let mut random = cairn_runtime::sim::Random::new(seed);
    for _ in 0..context.scenario.clients {
        let (context, engine, runtime) = (Rc::clone(&context), engine.clone(), runtime.clone());
        let (random, token) = (random.fork(), clients.enter());
        runtime.clone().spawn(Queue::Foreground, async move {
            context.client(&engine, &runtime, random).await;
            drop(token);
        });
    }
    if context.fleet.is_some() {
        let (context, runtime, volume) = (Rc::clone(&context), runtime.clone(), keeper.handle());
        let (random, token) = (random.fork(), clients.enter());
        runtime.clone().spawn(Queue::Foreground, async move {
            let fleet = context.fleet.as_ref().expect("looked at above");
            if let Err(why) = fleet.operate(&runtime, &volume, &drives, random).await {
                context.fail(format!("operator: {why}"));
            }
            drop(token);
        });
    }
    if let Some(after) = context.scenario.backups[context.round.get()] {
        let (context, engine, runtime) = (Rc::clone(&context), engine.clone(), runtime.clone());
        let (volume, token) = (keeper.handle(), clients.enter());
        runtime.clone().spawn(Queue::Foreground, async move {
            runtime.sleep(Duration::from_micros(after)).await;
            backup::back_up(&context, &engine, &runtime, &volume).await;
            drop(token);
        });
    }
    if context.scenario.rekeys {
        let _ = keeper.handle().request_rekey();
    }
    clients.wait().await;
    context.verify_quiet(&engine).await;
    summary.borrow_mut().take_in(&engine);
    summary.borrow_mut().backups_refused += context.backups_refused.take();
    if close {
        match engine.close().await {
            // A mirror has left and the other is full: there is no place for the last marker, and close says so.
            Err(error) if error.to_string().contains("no space") => {}
            closed => closed.map_err(|error| format!("close: {error}"))?,
        }
    }
    drop(keeper);
    Ok(())
}
