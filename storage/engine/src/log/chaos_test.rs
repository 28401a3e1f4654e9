//! Random work, random ends and random faults against the model.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sim::{
    DriveControl, Fault, FaultConfig, FaultKind, Injection, Operation, Random, SimRuntime,
};
use cairn_runtime::{Queue, Runtime};

use super::log_test::{
    LOG, NODE, Process, Replay, SHARD, control, open, payloads, record, small, start, world, write,
};
use super::*;

/// What the model knows.
#[derive(Default)]
struct Model {
    /// Payloads in the order of the log, as far as decided.
    history: Vec<(LogPosition, Vec<u8>)>,
    /// Appended by the process that runs, in order, with whether it was acknowledged.
    appended: Vec<(LogPosition, Vec<u8>, bool)>,
    released: LogSequence,
    counter: u64,
}

impl Model {
    /// Compares a recovery and makes it the new history.
    fn recovered(&mut self, seed: u64, process: &Process) {
        let recovered: Vec<(LogPosition, Vec<u8>)> = process
            .replayed
            .iter()
            .map(|event| match event {
                Replay::Record {
                    position, payload, ..
                } => (*position, payload.clone()),
                Replay::Lost(lost) => panic!("seed {seed}: lost {lost:?}"),
            })
            .collect();
        let first = recovered
            .first()
            .map_or(process.recovery.last.next(), |(position, _)| position.sequence);
        let needed = |(position, _): &&(LogPosition, Vec<u8>)| position.sequence >= self.released;
        let oldest = self
            .history
            .iter()
            .find(needed)
            .map(|(position, _)| position.sequence);
        assert!(
            oldest.is_none_or(|oldest| first <= oldest),
            "seed {seed}: {oldest:?} was still needed"
        );
        let acknowledged = self
            .appended
            .iter()
            .filter(|(_, _, acknowledged)| *acknowledged)
            .count();
        assert!(
            self.appended
                .iter()
                .take(acknowledged)
                .all(|(_, _, acknowledged)| *acknowledged),
            "seed {seed}: acknowledged out of order"
        );
        let mut expected: Vec<(LogPosition, Vec<u8>)> = self
            .history
            .iter()
            .filter(|(position, _)| position.sequence >= first)
            .cloned()
            .collect();
        let new: Vec<_> = self
            .appended
            .drain(..)
            .map(|(position, payload, _)| (position, payload))
            .collect();
        let unneeded = new
            .iter()
            .filter(|(position, _)| position.sequence < first)
            .count();
        let survived = (recovered.len() + unneeded).saturating_sub(expected.len());
        assert!(
            survived >= acknowledged,
            "seed {seed}: {survived} of {acknowledged} acknowledged records are there"
        );
        assert!(survived <= new.len(), "seed {seed}: more than was appended");
        expected.extend(
            new[..survived]
                .iter()
                .filter(|(position, _)| position.sequence >= first)
                .cloned(),
        );
        assert!(
            expected == recovered,
            "seed {seed}: recovered differs from what was appended"
        );
        self.history = expected;
    }
}

struct Chaos {
    drives: usize,
    faults: FaultConfig,
    /// A process may find the exposed drive detached.
    detach: bool,
    rounds: usize,
    crashes: bool,
}

/// Random work and random ends, against the model.
fn chaos(seed: u64, chaos: &Chaos) -> BTreeMap<FaultKind, u64> {
    let sim = world(seed);
    let mut random = Random::new(seed ^ 0x6c_6f_67);
    let drives: Vec<DriveControl> = (0..chaos.drives).map(|drive| control(&sim, drive)).collect();
    let mut config = small();
    if random.one_in(2) {
        config.recover_all_mirrors = false;
    }
    // Nobody is ejected for being slow: the drive that chance spares must stay.
    config.lag_max = Duration::from_secs(600);
    let model = Rc::new(RefCell::new(Model::default()));
    let mut exposed = None;
    for round in 0..chaos.rounds {
        if round == 1 {
            // One drive is at the mercy of chance: with as many mirrors as drives all others have everything.
            let victim = random.index(chaos.drives);
            (0..chaos.drives).for_each(|drive| drives[drive].protect(drive != victim));
            exposed = Some(victim);
            for drive in &drives {
                drive.set_faults(chaos.faults.clone());
            }
        }
        if chaos.detach && round > 2 && random.one_in(4) {
            drives[exposed.expect("chosen in round 1")].detach();
        }
        if !sim.is_up(NODE) {
            sim.restart(NODE);
        }
        let runtime = sim.runtime(NODE, SHARD);
        let (task, shared, count) = (runtime.clone(), model.clone(), chaos.drives);
        let (mut work, ended) = (random.fork(), Rc::new(RefCell::new(None)));
        let end = ended.clone();
        runtime.spawn(Queue::Foreground, async move {
            let process = match start(task.clone(), count, config).await {
                Ok(process) => process,
                Err(error) => {
                    *end.borrow_mut() = Some(Some(error));
                    return;
                }
            };
            shared.borrow_mut().recovered(seed, &process);
            let done = cairn_runtime::sync::WaitGroup::new();
            for _ in 0..1 + work.below(4) {
                let (log, task, shared, token, mut work) = (
                    process.log.clone(),
                    task.clone(),
                    shared.clone(),
                    done.enter(),
                    work.fork(),
                );
                task.clone().spawn(Queue::Foreground, async move {
                    for _ in 0..work.below(60) {
                        let largest = if work.one_in(8) { 4_000 } else { 300 };
                        let mut payload = vec![0; work.index(largest)];
                        work.fill(&mut payload);
                        let partition = work.below(5) + 1;
                        let counter = {
                            let mut model = shared.borrow_mut();
                            model.counter += 1;
                            model.counter
                        };
                        payload.extend_from_slice(&counter.to_le_bytes());
                        let position = match log.append(record(partition, counter, &payload)) {
                            Ok(position) => position,
                            Err(LogError::Full) => {
                                if let Some(wanted) = log.release_wanted() {
                                    shared.borrow_mut().released = wanted;
                                    log.release_up_to(wanted);
                                }
                                if log.ready(payload.len()).await.is_err() {
                                    break;
                                }
                                continue;
                            }
                            Err(LogError::OutOfSpace(_)) => {
                                task.sleep(Duration::from_millis(100)).await;
                                continue;
                            }
                            Err(_) => break,
                        };
                        shared.borrow_mut().appended.push((position, payload, false));
                        if work.one_in(3) {
                            task.sleep(Duration::from_micros(work.below(3_000))).await;
                        }
                        if log.durable(position.sequence).await.is_err() {
                            break;
                        }
                        let mut model = shared.borrow_mut();
                        let appended = &mut model.appended;
                        appended
                            .iter_mut()
                            .filter(|(at, ..)| at.sequence <= position.sequence)
                            .for_each(|(.., acknowledged)| *acknowledged = true);
                    }
                    drop(token);
                });
            }
            done.wait().await;
            if work.one_in(2) {
                let _ = process.log.close().await;
            } else if work.one_in(2) {
                task.sleep(Duration::from_millis(work.below(60))).await;
            }
            *end.borrow_mut() = Some(None);
        });
        let steps = if chaos.crashes && random.one_in(2) {
            1 + random.below(6_000)
        } else {
            u64::MAX
        };
        let mut taken = 0;
        while ended.borrow().is_none() && taken < steps && sim.step() {
            taken += 1;
        }
        if let Some(Some(error)) = ended.borrow_mut().take() {
            assert!(
                matches!(
                    error,
                    LogError::OutOfSpace(_) | LogError::Volume(_) | LogError::Drive(_)
                ),
                "seed {seed}: {error}"
            );
        }
        sim.crash(NODE);
    }
    // The end: no more chance, and everything must be there, twice.
    for drive in &drives {
        drive.set_faults(FaultConfig::NONE);
    }
    for _ in 0..2 {
        sim.restart(NODE);
        let process = open(&sim, chaos.drives, config).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.borrow_mut().recovered(seed, &process);
        // The log that is open makes its next file: a look in the middle of that would miss it.
        sim.run_for(Duration::from_secs(1));
        let volume = process.volume.clone();
        let report = sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
            let all = LogConfig {
                recover_all_mirrors: true,
                ..config
            };
            Log::inspect(runtime, volume, LOG, all, |_| {}).await
        });
        let report = report.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let alike = report.repaired + report.completed == 0 || !config.recover_all_mirrors;
        assert!(
            alike && report.lost.is_empty(),
            "seed {seed}: mirrors differ after recovery: {report:?}"
        );
        sim.crash(NODE);
    }
    sim.faults().iter().collect()
}

fn seeds(count: u64, what: &Chaos) -> BTreeMap<FaultKind, u64> {
    let mut faults = BTreeMap::new();
    for seed in 0..count {
        for (kind, times) in chaos(seed, what) {
            *faults.entry(kind).or_insert(0) += times;
        }
    }
    faults
}

fn assert_met(faults: &BTreeMap<FaultKind, u64>, kinds: &[FaultKind]) {
    for kind in kinds {
        assert!(faults.contains_key(kind), "no seed met {kind:?}: {faults:?}");
    }
}

#[test]
fn crashes_lose_nothing_acknowledged() {
    let what = Chaos {
        drives: 2,
        faults: FaultConfig::NONE,
        detach: false,
        rounds: 6,
        crashes: true,
    };
    let faults = seeds(150, &what);
    assert_met(
        &faults,
        &[
            FaultKind::InFlightTorn,
            FaultKind::InFlightLost,
            FaultKind::InFlightApplied,
        ],
    );
}

#[test]
fn one_lying_drive_loses_nothing_acknowledged() {
    let what = Chaos {
        drives: 2,
        faults: FaultConfig::silent(4_000),
        detach: false,
        rounds: 6,
        crashes: true,
    };
    let faults = seeds(150, &what);
    let kinds = [
        FaultKind::TornWrite,
        FaultKind::LostWrite,
        FaultKind::MisdirectedWrite,
        FaultKind::CorruptWrite,
        FaultKind::CorruptRead,
        FaultKind::Rot,
    ];
    assert_met(&faults, &kinds);
}

#[test]
fn failing_and_vanishing_drives_lose_nothing_acknowledged() {
    for drives in [2, 3] {
        let what = Chaos {
            drives,
            // A log syncs little but when it makes a file.
            faults: FaultConfig {
                sync_error_ppm: 30_000,
                ..FaultConfig::errors(3_000)
            },
            detach: true,
            rounds: 6,
            crashes: true,
        };
        let faults = seeds(80, &what);
        assert_met(
            &faults,
            &[FaultKind::WriteError, FaultKind::ReadError, FaultKind::SyncError],
        );
    }
}

#[test]
fn slow_drives_change_nothing() {
    let faults = FaultConfig {
        slow_ppm: 20_000,
        stall_ppm: 2_000,
        ..FaultConfig::NONE
    };
    let what = Chaos {
        drives: 2,
        faults,
        detach: false,
        rounds: 4,
        crashes: true,
    };
    let faults = seeds(40, &what);
    assert_met(&faults, &[FaultKind::Slow, FaultKind::Stall]);
}

/// Every write of a short life is hit once, on one drive, by every fault.
#[test]
fn every_write_site_survives_every_fault() {
    let faults = [
        Fault::Error,
        Fault::NoSpace,
        Fault::Torn,
        Fault::Lost,
        Fault::Misdirected,
        Fault::Corrupt,
    ];
    for fault in faults {
        for skip in 0.. {
            let sim = world(u64::from(skip));
            let control = control(&sim, 1);
            control.inject(Injection {
                operation: Operation::Write,
                file: None,
                skip,
                count: 1,
                fault,
            });
            let mut written: Vec<Vec<u8>> = Vec::new();
            if let Ok(process) = open(&sim, 2, small()) {
                for value in 0..40_u8 {
                    if write(&sim, &process, &[value; 3000]).is_err() {
                        break;
                    }
                    written.push(vec![value; 3000]);
                }
            }
            sim.crash(NODE);
            let hit = control.clear_injections() == 0;
            sim.restart(NODE);
            match open(&sim, 2, small()) {
                Ok(process) => {
                    let found = payloads(&process);
                    assert!(
                        found.starts_with(&written),
                        "{fault:?} at write {skip}: {} written",
                        written.len()
                    );
                    assert!(process.recovery.lost.is_empty());
                }
                // The very first start was cut short on one drive, before anything was acknowledged.
                Err(error) => assert!(written.is_empty(), "{fault:?} at write {skip}: {error}"),
            }
            if !hit {
                break;
            }
        }
    }
}
