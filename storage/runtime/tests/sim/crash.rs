//! What survives a power loss: everything that was promised, anything that was not, each in some runs.

use std::collections::BTreeSet;

use cairn_runtime::Queue;
use cairn_runtime::sim::{Fault, FaultKind, Operation};

use super::*;

const SECTOR: usize = 512;

fn names(sim: &Handle) -> Vec<String> {
    sim.drive(NODE, "/drive")
        .image()
        .names()
        .map(str::to_owned)
        .collect()
}

/// Runs `before` on many seeds, crashes, and gives what `look` saw after each.
fn outcomes<T: Ord>(
    seeds: u64,
    before: impl AsyncFn(SimRuntime, SimDrive) -> io::Result<()> + Copy + 'static,
    look: impl Fn(&Handle) -> T,
) -> BTreeSet<T> {
    let run = |seed| {
        let sim = simulation(seed);
        on_drive(&sim, async move |runtime, drive| before(runtime, drive).await).unwrap();
        sim.crash(NODE);
        sim.restart(NODE);
        look(&sim)
    };
    (0..seeds).map(run).collect()
}

#[test]
fn durable_and_synced_writes_survive() {
    let before = async |_: SimRuntime, drive: SimDrive| {
        durable_file(&drive, "durable", 3, 1).await?;
        let file = drive.open("synced", CREATE).await?;
        file.write_at(0, blocks(3, 2)).await?;
        file.allocate(16 * BLOCK_BYTES as u64).await?;
        file.sync().await?;
        drive.sync().await
    };
    let look = |sim: &Handle| {
        let image = sim.drive(NODE, "/drive").image();
        assert_eq!(image.read("durable").unwrap(), [1; 3 * BLOCK_BYTES]);
        let synced = image.read("synced").unwrap();
        assert_eq!(synced.len(), 16 * BLOCK_BYTES);
        assert_eq!(synced[..3 * BLOCK_BYTES], [2; 3 * BLOCK_BYTES]);
        assert!(synced[3 * BLOCK_BYTES..].iter().all(|byte| *byte == 0));
    };
    outcomes(50, before, look);
}

#[test]
fn unsynced_writes_survive_in_any_combination() {
    let before = async |_: SimRuntime, drive: SimDrive| {
        durable_file(&drive, "file", 2, 0xff).await?;
        let file = drive.open("file", EXISTING).await?;
        file.write_at(0, blocks(1, 1)).await?;
        file.write_at(0, blocks(1, 2)).await?;
        file.write_at(BLOCK_BYTES as u64, blocks(1, 3)).await
    };
    let look = |sim: &Handle| {
        let content = sim.drive(NODE, "/drive").image().read("file").unwrap();
        (content[0], content[BLOCK_BYTES])
    };
    let all = [0xff, 1, 2]
        .into_iter()
        .flat_map(|first| [0xff, 3].map(|second| (first, second)));
    assert_eq!(outcomes(200, before, look), all.collect());
}

#[test]
fn a_write_in_flight_is_applied_torn_or_lost() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let sim = simulation(seed);
        on_drive(&sim, async |runtime, drive| {
            durable_file(&drive, "file", 2, 1).await.unwrap();
            let file = drive
                .open(
                    "file",
                    Open {
                        durable: true,
                        ..EXISTING
                    },
                )
                .await
                .unwrap();
            // The future is dropped at once: the write stays in flight.
            let mut write = Box::pin(file.write_at(0, blocks(2, 2)));
            std::future::poll_fn(|context| {
                assert!(write.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            drop((write, file, drive, runtime));
        });
        sim.crash(NODE);
        let content = sim.drive(NODE, "/drive").image().read("file").unwrap();
        let new = content
            .chunks(SECTOR)
            .filter(|sector| **sector == [2; SECTOR])
            .count();
        let old = content
            .chunks(SECTOR)
            .filter(|sector| **sector == [1; SECTOR])
            .count();
        assert_eq!(new + old, 2 * BLOCK_BYTES / SECTOR, "a sector is old or new");
        let expected = match new {
            0 => FaultKind::InFlightLost,
            16 => FaultKind::InFlightApplied,
            _ => FaultKind::InFlightTorn,
        };
        assert_eq!(sim.faults().get(expected), 1);
        seen.insert(expected);
    }
    assert_eq!(seen.len(), 3);
}

#[test]
fn directory_changes_need_a_sync() {
    let before = async |_: SimRuntime, drive: SimDrive| {
        durable_file(&drive, "a", 1, 1).await?;
        drive.rename("a", "b").await?;
        drive.open("c", CREATE).await.map(drop)
    };
    let all = [vec!["a"], vec!["b"], vec!["b", "c"], vec!["a", "c"]];
    assert_eq!(
        outcomes(100, before, names),
        all.map(|names| names.iter().map(|n| n.to_string()).collect())
            .into()
    );

    let synced = async |_: SimRuntime, drive: SimDrive| {
        durable_file(&drive, "a", 1, 1).await?;
        drive.link("a", &drive, "b").await?;
        drive.rename("b", "c").await?;
        drive.remove("a").await?;
        drive.sync().await
    };
    assert_eq!(outcomes(30, synced, names), [vec!["c".to_owned()]].into());
}

#[test]
fn a_removed_file_may_come_back_with_its_content() {
    let before = async |_: SimRuntime, drive: SimDrive| {
        durable_file(&drive, "file", 1, 1).await?;
        drive.remove("file").await
    };
    let look = |sim: &Handle| {
        let drive = sim.drive(NODE, "/drive");
        let content = drive.image().read("file");
        assert_eq!(
            drive.used_bytes(),
            content.as_ref().map_or(0, |content| content.len() as u64)
        );
        content.map(|content| content[0])
    };
    assert_eq!(outcomes(50, before, look), [None, Some(1)].into());
}

#[test]
fn an_unsynced_length_may_be_lost() {
    let before = async |_: SimRuntime, drive: SimDrive| {
        durable_file(&drive, "file", 1, 1).await?;
        drive
            .open("file", EXISTING)
            .await?
            .allocate(8 * BLOCK_BYTES as u64)
            .await
    };
    let look = |sim: &Handle| sim.drive(NODE, "/drive").image().bytes("file").unwrap() / BLOCK_BYTES as u64;
    assert_eq!(outcomes(50, before, look), [1, 8].into());
}

#[test]
fn a_killed_process_loses_nothing_that_completed() {
    for seed in 0..30 {
        let sim = simulation(seed);
        on_drive(&sim, async |_, drive| {
            let file = drive.open("file", CREATE).await.unwrap();
            file.write_at(0, blocks(1, 1)).await.unwrap();
        });
        sim.kill(NODE);
        sim.restart(NODE);
        assert_eq!(
            sim.drive(NODE, "/drive").image().read("file").unwrap(),
            [1; BLOCK_BYTES]
        );
    }
}

#[test]
fn a_failed_sync_may_never_be_made_good() {
    let before = async |_: SimRuntime, drive: SimDrive| {
        durable_file(&drive, "file", 1, 1).await?;
        let file = drive.open("file", EXISTING).await?;
        file.write_at(0, blocks(1, 2)).await?;
        assert!(file.sync().await.is_err());
        file.sync().await
    };
    let run = |seed| {
        let sim = simulation(seed);
        sim.drive(NODE, "/drive")
            .fail_next(Operation::SyncFile, Fault::Error);
        on_drive(&sim, async move |runtime, drive| before(runtime, drive).await).unwrap();
        sim.crash(NODE);
        sim.drive(NODE, "/drive").image().read("file").unwrap()[0]
    };
    assert_eq!((0..30).map(run).collect::<BTreeSet<_>>(), [1, 2].into());
}

#[test]
fn the_lock_ends_with_the_process() {
    let config = Config {
        nodes: 2,
        ..Config::default()
    };
    let sim = Simulation::new(1, config);
    sim.drive(NODE, "/drive").mount(NodeIndex(1), "/drive");
    on_drive(&sim, async |runtime, drive| {
        drive.lock().unwrap();
        let held = drive.clone();
        runtime.spawn(Queue::Background, async move {
            std::future::pending::<()>().await;
            drop(held);
        });
    });
    let lock = async |runtime: SimRuntime| open_drive(&runtime).await.lock().map_err(|error| error.kind());
    assert_eq!(
        sim.block_on(NodeIndex(1), SHARD, lock),
        Err(io::ErrorKind::WouldBlock)
    );
    sim.kill(NODE);
    assert_eq!(sim.block_on(NodeIndex(1), SHARD, lock), Ok(()));
}
