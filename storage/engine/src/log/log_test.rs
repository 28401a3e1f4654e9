//! The log on simulated drives.
//!
//! The model is the list of everything appended. Whatever happens: what was acknowledged is recovered; what is recovered
//! is what was appended, in order, without gaps; and what recovery once dropped never comes back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sim::{
    Config, DriveControl, Fault, FaultKind, NodeIndex, Operation, SimRuntime, Simulation,
};
use cairn_runtime::{BLOCK_BYTES, Queue, Runtime, ShardIndex};

use super::anchor::{Anchor, COPIES, COPY_BYTES, anchor_name, copy_offset};
use super::batch::BatchHeader;
use super::file::slot_name;
use super::*;
use crate::sealing::{Keys, RootKey};
use crate::volume::{Keeper, VolumeConfig};

pub(super) const NODE: NodeIndex = NodeIndex(0);
pub(super) const SHARD: ShardIndex = ShardIndex(0);
pub(super) const LOG: LogId = LogId(7);

pub(super) fn small() -> LogConfig {
    LogConfig {
        file_bytes: 96 << 10,
        first_file_bytes: 64 << 10,
        files_max: 8,
        batch_bytes: 12 << 10,
        record_bytes_max: 4 << 10,
        marker_delay: Duration::from_millis(20),
        lag_max: Duration::from_secs(2),
        recover_all_mirrors: true,
    }
}

/// Everything of one process: dropped when it ends.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) log: Log<SimRuntime>,
    pub(super) volume: Volume<SimRuntime>,
    _keeper: Rc<Keeper<SimRuntime>>,
    pub(super) recovery: Recovery,
    pub(super) replayed: Rc<Vec<Replay>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replay {
    Record {
        position: LogPosition,
        partition: u64,
        raft_index: u64,
        payload: Vec<u8>,
    },
    Lost(Lost),
}

fn volume_config(drives: usize) -> VolumeConfig {
    VolumeConfig {
        drives: (0..drives)
            .map(|drive| PathBuf::from(format!("/drive-{drive}")))
            .collect(),
        state: PathBuf::from("/state"),
        mirrors: drives.min(2),
        accept_epoch: None,
        // With one drive it is plain, so that both kinds are met.
        keys: if drives > 1 {
            Keys::of(RootKey::new([7; 32]))
        } else {
            Keys::default()
        },
    }
}

pub(super) async fn start(
    runtime: SimRuntime,
    drives: usize,
    config: LogConfig,
) -> Result<Process, LogError> {
    let keeper = Rc::new(Keeper::open(runtime.clone(), volume_config(drives)).await?);
    let volume = keeper.handle().attach(runtime.clone()).await?;
    let mut replayed = Vec::new();
    let (log, recovery) = Log::open(runtime, volume.clone(), LOG, config, |event| {
        replayed.push(match event {
            Replayed::Record(position, record) => Replay::Record {
                position,
                partition: record.partition.0,
                raft_index: record.raft_index.0,
                payload: record.payload.to_vec(),
            },
            Replayed::Lost(lost) => Replay::Lost(lost.clone()),
        });
    })
    .await?;
    Ok(Process {
        log,
        volume,
        _keeper: keeper,
        recovery,
        replayed: Rc::new(replayed),
    })
}

pub(super) fn record(partition: u64, raft_index: u64, payload: &[u8]) -> Record<'_> {
    Record {
        kind: 1,
        partition: PartitionId(partition),
        table: TableId(1),
        index: IndexId(0),
        term: Term(1),
        raft_index: RaftIndex(raft_index),
        payload,
    }
}

pub(super) fn open(sim: &Simulation, drives: usize, config: LogConfig) -> Result<Process, LogError> {
    sim.block_on(NODE, SHARD, async move |runtime| {
        start(runtime, drives, config).await
    })
}

pub(super) fn world(seed: u64) -> Simulation {
    Simulation::new(seed, Config::default())
}

pub(super) fn restart(sim: &Simulation) {
    sim.crash(NODE);
    sim.restart(NODE);
}

pub(super) fn control(sim: &Simulation, drive: usize) -> DriveControl {
    sim.drive(NODE, format!("/drive-{drive}"))
}

/// Appends one record and waits until it is durable: one batch each.
pub(super) fn write(sim: &Simulation, process: &Process, payload: &[u8]) -> Result<LogSequence, LogError> {
    write_to(sim, process, 1, 0, payload)
}

pub(super) fn write_to(
    sim: &Simulation,
    process: &Process,
    partition: u64,
    raft_index: u64,
    payload: &[u8],
) -> Result<LogSequence, LogError> {
    let (log, payload) = (process.log.clone(), payload.to_vec());
    sim.block_on(NODE, SHARD, async move |_| {
        let position = log.append(record(partition, raft_index, &payload))?;
        log.durable(position.sequence).await?;
        Ok(position.sequence)
    })
}

pub(super) fn payloads(process: &Process) -> Vec<Vec<u8>> {
    let payload = |event: &Replay| match event {
        Replay::Record { payload, .. } => Some(payload.clone()),
        Replay::Lost(_) => None,
    };
    process.replayed.iter().filter_map(payload).collect()
}

/// The newest anchor on a drive.
fn anchor(sim: &Simulation, drive: usize) -> Anchor {
    let bytes = control(sim, drive)
        .image()
        .read(&anchor_name(LOG))
        .expect("the log exists");
    let copy = |copy| {
        Anchor::decode(
            &bytes[copy_offset(copy) as usize..][..COPY_BYTES],
            None,
            LOG,
            copy,
        )
    };
    (0..COPIES)
        .filter_map(copy)
        .max_by_key(|anchor| anchor.version)
        .expect("a valid copy")
}

/// Where each batch lies on a drive: file, offset and header by sequence.
pub(super) fn batches(sim: &Simulation, drive: usize) -> BTreeMap<u64, (String, u64, BatchHeader)> {
    let image = control(sim, drive).image();
    let mut found = BTreeMap::new();
    for entry in anchor(sim, drive).files {
        let name = slot_name(LOG, entry.slot);
        let Some(bytes) = image.read(&name) else { continue };
        for offset in (BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES) {
            let block = &bytes[offset..offset + BLOCK_BYTES];
            let header = BatchHeader::decode(block, LOG, &entry, offset as u64);
            if let Some(header) = header {
                found.insert(header.sequence.0, (name.clone(), offset as u64, header));
            }
        }
    }
    found
}

/// Destroys a batch on a drive.
pub(super) fn destroy(sim: &Simulation, drive: usize, sequence: u64) {
    let (name, offset, header) = batches(sim, drive).remove(&sequence).expect("the batch is there");
    control(sim, drive).zero(&name, offset..offset + header.bytes() as u64);
}

#[test]
fn what_was_appended_is_replayed_in_order() {
    let sim = world(1);
    let process = open(&sim, 2, small()).expect("a first start");
    assert_eq!((process.recovery.incarnation, process.recovery.batches), (1, 0));
    for value in 0..50_u8 {
        write(&sim, &process, &[value; 100]).expect("healthy drives");
    }
    let stats = process.log.stats();
    assert_eq!((stats.batches, stats.records), (50, 50));
    assert!(stats.files_opened > 2, "several files: {stats:?}");
    drop(process);
    restart(&sim);
    let process = open(&sim, 2, small()).expect("healthy drives");
    assert_eq!(
        payloads(&process),
        (0..50).map(|value| vec![value; 100]).collect::<Vec<_>>()
    );
    let recovery = &process.recovery;
    assert_eq!(
        (recovery.incarnation, recovery.repaired, recovery.dropped),
        (2, 0, 0)
    );
    assert!(recovery.lost.is_empty());
}

#[test]
fn what_queues_while_a_batch_is_written_shares_the_next() {
    let sim = world(2);
    let process = open(&sim, 2, small()).expect("a first start");
    let log = process.log.clone();
    sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
        let done = cairn_runtime::sync::WaitGroup::new();
        for value in 0..30_u8 {
            let (log, token, task) = (log.clone(), done.enter(), runtime.clone());
            runtime.spawn(Queue::Foreground, async move {
                // The first ten at once, the others while the first batch is being written.
                task.sleep(Duration::from_micros(if value < 10 { 0 } else { 3 }))
                    .await;
                let position = log.append(record(1, 0, &[value])).expect("there is room");
                log.durable(position.sequence).await.expect("healthy drives");
                drop(token);
            });
        }
        done.wait().await;
    });
    assert_eq!(process.log.stats().batches, 2, "{:?}", process.log.stats());
}

#[test]
fn a_marker_follows_when_idle_and_at_close() {
    let sim = world(3);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"one").expect("healthy drives");
    assert_eq!(process.log.stats().markers, 0);
    sim.run_for(Duration::from_millis(100));
    assert_eq!(process.log.stats().markers, 1, "idle, and only once");
    write(&sim, &process, b"two").expect("healthy drives");
    let log = process.log.clone();
    sim.block_on(NODE, SHARD, async move |_| log.close().await)
        .expect("healthy drives");
    let last = batches(&sim, 0).into_values().next_back().expect("batches").2;
    assert!(last.marker && last.acknowledged == LogSequence(last.sequence.0 - 1));
    assert_eq!(write(&sim, &process, b"three"), Err(LogError::Closed));
    assert!(
        anchor(&sim, 0)
            .files
            .iter()
            .all(|entry| entry.last != LogSequence(0)),
        "all files are sealed"
    );
}

#[test]
fn damage_on_one_mirror_is_repaired_and_counted() {
    for damaged in 0..2 {
        let sim = world(7);
        let process = open(&sim, 2, small()).expect("a first start");
        for value in 0..12_u8 {
            write(&sim, &process, &[value; 2000]).expect("healthy drives");
        }
        sim.crash(NODE);
        for sequence in [2, 3, 8] {
            destroy(&sim, damaged, sequence);
        }
        sim.restart(NODE);
        let process = open(&sim, 2, small()).expect("the other mirror has them");
        assert_eq!(payloads(&process).len(), 12);
        assert_eq!(process.recovery.repaired, 3);
        drop(process);
        restart(&sim);
        let process = open(&sim, 2, small()).expect("healthy drives");
        assert_eq!((payloads(&process).len(), process.recovery.repaired), (12, 0));
    }
}

#[test]
fn a_log_file_deleted_on_one_mirror_is_restored() {
    let sim = world(8);
    let process = open(&sim, 2, small()).expect("a first start");
    for value in 0..40_u8 {
        write(&sim, &process, &[value; 2000]).expect("healthy drives");
    }
    sim.crash(NODE);
    let names: Vec<String> = control(&sim, 1).image().names().map(str::to_owned).collect();
    for name in names.iter().filter(|name| name.starts_with("log-")) {
        assert!(control(&sim, 1).delete_file(name));
    }
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("the other mirror has everything");
    assert_eq!(payloads(&process).len(), 40);
    assert!(process.recovery.repaired >= 39, "{:?}", process.recovery);
    drop(process);
    control(&sim, 0).detach();
    restart(&sim);
    let process = open(&sim, 2, small()).expect("the restored mirror alone");
    assert_eq!(payloads(&process).len(), 40);
}

#[test]
fn a_batch_on_one_mirror_only_is_completed_before_anything_is_served() {
    let sim = world(9);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"both").expect("healthy drives");
    let tail = write(&sim, &process, b"one mirror").expect("healthy drives");
    sim.crash(NODE);
    destroy(&sim, 1, tail.0);
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("valid on one mirror");
    assert_eq!(payloads(&process), [b"both".to_vec(), b"one mirror".to_vec()]);
    assert_eq!((process.recovery.completed, process.recovery.repaired), (1, 0));
    assert_eq!(
        batches(&sim, 0).keys().collect::<Vec<_>>(),
        batches(&sim, 1).keys().collect::<Vec<_>>()
    );
    // Served from here on; the mirror that had it goes away, and it is still there.
    drop(process);
    control(&sim, 0).detach();
    restart(&sim);
    let process = open(&sim, 2, small()).expect("the completed mirror");
    assert_eq!(payloads(&process).len(), 2);
}

/// A tail is torn on both mirrors and dropped; new batches follow; then the old tail reappears whole where it was.
#[test]
fn a_batch_of_an_earlier_incarnation_never_revives() {
    let sim = world(10);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"kept").expect("healthy drives");
    let victim = write(&sim, &process, b"victim").expect("healthy drives");
    let stale = write(&sim, &process, b"stale").expect("healthy drives");
    sim.crash(NODE);
    let (name, offset, _) = batches(&sim, 0).remove(&victim.0).expect("there");
    let files: Vec<Vec<u8>> = (0..2)
        .map(|drive| control(&sim, drive).image().read(&name).expect("there"))
        .collect();
    for drive in 0..2 {
        destroy(&sim, drive, victim.0);
        destroy(&sim, drive, stale.0);
    }
    sim.restart(NODE);
    let process = open(&sim, 2, small()).expect("a torn tail");
    assert_eq!(payloads(&process), [b"kept".to_vec()]);
    assert_eq!(
        write(&sim, &process, b"new"),
        Ok(victim),
        "the sequence is given again"
    );
    for (drive, bytes) in files.iter().enumerate() {
        let offset = offset as usize;
        control(&sim, drive).overwrite(&name, offset as u64, &bytes[offset..offset + 2 * BLOCK_BYTES]);
    }
    drop(process);
    restart(&sim);
    let process = open(&sim, 2, small()).expect("healthy drives");
    assert_eq!(payloads(&process), [b"kept".to_vec(), b"new".to_vec()]);
}

#[test]
fn a_failed_mirror_leaves_by_a_durable_epoch_before_the_acknowledgement() {
    let sim = world(11);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"both").expect("healthy drives");
    control(&sim, 1).detach();
    write(&sim, &process, b"one").expect("drive 0 goes on alone");
    let in_sync = process.volume.in_sync();
    assert_eq!((in_sync.epoch.0, in_sync.set.bits()), (2, 0b01));
    write(&sim, &process, b"more").expect("drive 0 goes on alone");
    assert!(process.log.stats().mirror_failures >= 1);
    let last = anchor(&sim, 0).files.pop();
    assert_eq!(
        last.expect("a file").mirrors.bits(),
        0b01,
        "the file was sealed, the next names the healthy set"
    );
    // The failed drive comes back, stale, and is not read.
    control(&sim, 1).attach();
    restart(&sim);
    let process = open(&sim, 2, small()).expect("drive 0 is in sync");
    assert_eq!(
        payloads(&process),
        [b"both".to_vec(), b"one".to_vec(), b"more".to_vec()]
    );
}

#[test]
fn with_a_third_drive_the_redundancy_returns_at_once() {
    let sim = world(12);
    let process = open(&sim, 3, small()).expect("a first start");
    write(&sim, &process, b"first").expect("healthy drives");
    let mirrors = anchor(&sim, 0).files[0].mirrors;
    let victim = mirrors.iter().next().expect("two mirrors").get();
    control(&sim, victim).detach();
    write(&sim, &process, b"second").expect("the other mirror");
    write(&sim, &process, b"third").expect("a new file");
    let other = (0..3).find(|drive| *drive != victim).expect("three drives");
    let last = anchor(&sim, other).files.pop();
    assert_eq!(
        last.map(|entry| entry.mirrors.count()),
        Some(2),
        "two healthy mirrors again"
    );
    restart(&sim);
    let process = open(&sim, 3, small()).expect("three of four copies");
    assert_eq!(payloads(&process).len(), 3);
}

#[test]
fn a_laggard_is_ejected_only_when_another_has_finished() {
    let sim = world(13);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"before").expect("healthy drives");
    // All stall: nobody is ejected, the write waits.
    control(&sim, 0).stall_for(Duration::from_secs(10));
    control(&sim, 1).stall_for(Duration::from_secs(10));
    let start = sim.elapsed();
    write(&sim, &process, b"both stall").expect("they come back");
    assert!(sim.elapsed() - start >= Duration::from_secs(9));
    assert_eq!(process.volume.in_sync().epoch.0, 1);
    // One stalls: it goes.
    control(&sim, 1).stall_for(Duration::from_secs(60));
    let start = sim.elapsed();
    write(&sim, &process, b"one stalls").expect("the other has it");
    let waited = sim.elapsed() - start;
    assert!(
        waited >= Duration::from_secs(2) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
    assert_eq!(process.volume.in_sync().set.bits(), 0b01);
    write(&sim, &process, b"alone").expect("one mirror");
}

/// Drive 0 hangs and is taken out by another shard: the batch in flight is then decided by drive 1 alone.
#[test]
fn a_batch_does_not_wait_for_a_mirror_that_has_left() {
    for fails in [false, true] {
        let sim = world(23);
        let process = open(&sim, 2, small()).expect("a first start");
        write(&sim, &process, b"before").expect("healthy drives");
        control(&sim, 0).stall_for(Duration::from_secs(600));
        if fails {
            let name = slot_name(LOG, anchor(&sim, 1).files[0].slot);
            control(&sim, 1).fail_next_on(&name, Operation::Write, Fault::Error);
        }
        let (log, volume) = (process.log.clone(), process.volume.clone());
        let start = sim.elapsed();
        let durable = sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
            let position = log.append(record(1, 0, b"in flight"))?;
            runtime.sleep(Duration::from_millis(1)).await;
            let drive = crate::volume::DriveIndex::new(0).expect("a small number");
            volume
                .report_failed(drive, "another shard says so".to_owned())
                .await?;
            log.durable(position.sequence).await
        });
        assert!(
            sim.elapsed() - start < Duration::from_secs(5),
            "{:?}",
            sim.elapsed()
        );
        match durable {
            Ok(()) => assert!(!fails),
            Err(error) => assert!(fails && matches!(error, LogError::Drive(_)), "{error}"),
        }
    }
}

#[test]
fn nothing_is_acknowledged_while_an_epoch_change_cannot_be_written() {
    let sim = world(14);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"both").expect("healthy drives");
    sim.drive(NODE, "/state").detach();
    control(&sim, 1).detach();
    let refused = write(&sim, &process, b"one").expect_err("no majority for the smaller set");
    assert!(matches!(refused, LogError::Volume(_)), "{refused}");
    assert!(write(&sim, &process, b"two").is_err());
    assert_eq!(process.log.acknowledged(), LogSequence(1));
}

/// A node that was killed again and again, with a file for each start, came up with more files than it may have. What was released
/// while its next file was being made ready missed the anchor of that file, and nobody wrote another: writers waited for ever.
#[test]
fn a_release_while_the_next_file_is_made_ready_lets_go_on() {
    for step in 0..100 {
        let sim = world(16);
        let mut process = open(&sim, 2, small()).expect("a first start");
        for _ in 0..=small().files_max {
            if write(&sim, &process, &[1; 100]).is_err() {
                break;
            }
            drop(process);
            restart(&sim);
            process = open(&sim, 2, small()).expect("healthy drives");
        }
        let stats = process.log.stats();
        assert!(stats.files_live > stats.files_max, "{stats:?}");
        let log = process.log.clone();
        sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
            runtime.sleep(Duration::from_micros(step * 100)).await;
            let wanted = log.release_wanted().expect("full files");
            log.release_up_to(log.acknowledged().max(wanted));
            cairn_runtime::sync::timeout(&runtime, Duration::from_secs(10), log.ready(100))
                .await
                .unwrap_or_else(|_| panic!("released after {step} steps, and nobody may write"))
                .expect("there is room");
        });
    }
}

#[test]
fn released_files_are_used_again_and_the_log_is_bounded() {
    let sim = world(15);
    let process = open(&sim, 2, small()).expect("a first start");
    let payload = [1; 3000];
    let mut refused = None;
    for _ in 0..2_000 {
        match write(&sim, &process, &payload) {
            Ok(_) => {}
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert_eq!(refused, Some(LogError::Full), "the log is bounded");
    let stats = process.log.stats();
    assert_eq!(stats.files_live, stats.files_max + 1);
    let used = control(&sim, 0).used_bytes();
    // What frees space may still be written.
    let log = process.log.clone();
    sim.block_on(NODE, SHARD, async move |_| {
        let position = log.append_reserved(record(0, 0, b"manifest")).expect("reserved");
        log.durable(position.sequence).await.expect("healthy drives");
    });
    // Someone waits for room; a release lets go on.
    let (log, release) = (
        process.log.clone(),
        process.log.release_wanted().expect("full files"),
    );
    sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
        let waiting = log.clone();
        let ready =
            cairn_runtime::sync::spawn(
                &runtime,
                Queue::Foreground,
                async move { waiting.ready(100).await },
            );
        runtime.sleep(Duration::from_millis(1)).await;
        log.release_up_to(release);
        ready.await.expect("the task ends").expect("there is room");
    });
    for _ in 0..500 {
        let log = process.log.clone();
        sim.block_on(NODE, SHARD, async move |_| log.ready(payload.len()).await)
            .expect("releases keep up");
        write(&sim, &process, &payload).expect("there is room");
        process.log.release_up_to(process.log.acknowledged());
    }
    sim.run_for(Duration::from_millis(100));
    assert!(
        control(&sim, 0).used_bytes() <= used + small().file_bytes * 2,
        "files are used again"
    );
    let oldest = process.log.oldest();
    drop(process);
    restart(&sim);
    let process = open(&sim, 2, small()).expect("healthy drives");
    assert!(
        process.recovery.first >= oldest && process.recovery.lost.is_empty(),
        "{:?}",
        process.recovery
    );
}

#[test]
fn a_full_drive_is_a_typed_error_that_passes() {
    let sim = world(16);
    let process = open(&sim, 2, small()).expect("a first start");
    sim.run_for(Duration::from_millis(50));
    let capacity = control(&sim, 1).used_bytes();
    control(&sim, 1).set_capacity(capacity);
    let mut refused = None;
    for _ in 0..200 {
        let (log, payload) = (process.log.clone(), [2; 3000]);
        let written = sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
            let position = log.append(record(1, 0, &payload))?;
            // A batch that waits for a file is not lost, only late.
            let waiting = log.durable(position.sequence);
            match cairn_runtime::sync::timeout(&runtime, Duration::from_millis(300), waiting).await {
                Ok(durable) => durable.map(|()| true),
                Err(_) => Ok(false),
            }
        });
        if let Err(error) = written {
            refused = Some(error);
            break;
        }
    }
    assert!(
        matches!(refused, Some(LogError::OutOfSpace(ref path)) if path.ends_with("drive-1")),
        "{refused:?}"
    );
    assert_eq!(
        process.volume.in_sync().epoch.0,
        1,
        "a full drive is not a failed drive"
    );
    // It is tried now and then, not all the time.
    let tries = control(&sim, 1).faults().get(FaultKind::NoSpace);
    sim.run_for(Duration::from_secs(20));
    let tries = control(&sim, 1).faults().get(FaultKind::NoSpace) - tries;
    assert!((10..=41).contains(&tries), "{tries}");
    control(&sim, 1).set_capacity(64 << 30);
    sim.run_for(Duration::from_secs(2));
    write(&sim, &process, b"again").expect("space is back");
}

#[test]
fn a_lost_anchor_is_an_error_never_an_empty_log() {
    let sim = world(17);
    let process = open(&sim, 2, small()).expect("a first start");
    write(&sim, &process, b"something").expect("healthy drives");
    sim.crash(NODE);
    let name = anchor_name(LOG);
    let images: Vec<_> = (0..2).map(|drive| control(&sim, drive).image()).collect();
    for drive in 0..2 {
        control(&sim, drive).corrupt(&name, 0..64 << 10);
    }
    sim.restart(NODE);
    assert!(matches!(
        open(&sim, 2, small()).err(),
        Some(LogError::AnchorLost { .. })
    ));
    // Only the newest version is lost: the one before does not know the newest file, whose header says so.
    sim.crash(NODE);
    for (drive, image) in images.iter().enumerate() {
        control(&sim, drive).restore(image);
        let newest = anchor(&sim, drive).version;
        let pair = if newest.is_multiple_of(2) { 0..2 } else { 2..4 };
        for copy in pair {
            control(&sim, drive).corrupt(&name, copy_offset(copy)..copy_offset(copy) + COPY_BYTES as u64);
        }
    }
    sim.restart(NODE);
    let refused = open(&sim, 2, small()).err();
    assert!(
        matches!(refused, Some(LogError::AnchorLost { .. })),
        "{refused:?}"
    );
}

#[test]
fn inspecting_changes_nothing() {
    let sim = world(18);
    let process = open(&sim, 2, small()).expect("a first start");
    for value in 0..6_u8 {
        write(&sim, &process, &[value]).expect("healthy drives");
    }
    drop(process);
    sim.crash(NODE);
    destroy(&sim, 1, 3);
    sim.restart(NODE);
    let before: Vec<_> = (0..2).map(|drive| control(&sim, drive).image()).collect();
    let report = sim.block_on(NODE, SHARD, async move |runtime: SimRuntime| {
        let keeper = Keeper::open(runtime.clone(), volume_config(2)).await?;
        let volume = keeper.handle().attach(runtime.clone()).await?;
        Log::inspect(runtime, volume, LOG, small(), |_| {}).await
    });
    let report = report.expect("readable");
    assert_eq!((report.batches, report.repaired), (6, 1));
    for (drive, before) in before.iter().enumerate() {
        let after = control(&sim, drive).image();
        for name in before.names().filter(|name| name.starts_with("log-")) {
            assert_eq!(before.read(name), after.read(name), "{name}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let sim = world(seed);
        let process = open(&sim, 2, small()).expect("a first start");
        for value in 0..20_u8 {
            write(&sim, &process, &[value; 500]).expect("healthy drives");
        }
        sim.trace_hash()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

/// A batch that is whole, at its place and of the expected sequence, but was not written after the one before it.
#[test]
fn a_batch_that_does_not_follow_its_predecessor_is_not_believed() {
    for forged in [false, true] {
        let sim = world(19);
        let process = open(&sim, 2, small()).expect("a first start");
        write(&sim, &process, b"first").expect("healthy drives");
        let second = write(&sim, &process, b"second").expect("healthy drives");
        sim.crash(NODE);
        let (name, offset, header) = batches(&sim, 0).remove(&second.0).expect("there");
        let files = anchor(&sim, 0).files;
        let file = files.into_iter().find(|file| file.number == header.file_number);
        let mut gather = super::batch::Gather::new(None, &[]);
        gather.push(&record(1, 0, b"other"), &[b"other"]);
        let file = file.expect("listed");
        let key = process.volume.key().expect("two drives are sealed");
        let cipher = key.log_cipher(LOG, file.number, &file.salt);
        let seal = super::batch::Seal {
            log: LOG,
            file,
            offset,
            sequence: header.sequence,
            acknowledged: header.acknowledged,
            previous: header.previous ^ u64::from(forged),
        };
        let (bytes, _, _) = gather.seal(&seal, Some(&cipher));
        for drive in 0..2 {
            control(&sim, drive).overwrite(&name, offset, &bytes);
        }
        sim.restart(NODE);
        let process = open(&sim, 2, small()).expect("a tail");
        let expected = if forged { 1 } else { 2 };
        assert_eq!(payloads(&process).len(), expected, "forged {forged}");
    }
}
