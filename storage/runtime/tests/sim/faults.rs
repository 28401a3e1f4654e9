//! Each fault of the model, asked for, seen from above and counted; then chance within its limits.

use std::time::Duration;

use cairn_runtime::sim::{
    DriveConfig, DriveControl, Fault, FaultConfig, FaultCounters, FaultKind, Injection, Operation,
};

use super::*;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// A drive with a durable file of 4 blocks of ones.
fn with_file(seed: u64) -> (Simulation, DriveControl) {
    let sim = simulation(seed);
    on_drive(&sim, async |_, drive| durable_file(&drive, "file", 4, 1).await).unwrap();
    let drive = sim.drive(NODE, "/drive");
    (sim, drive)
}

/// Writes twos over all four blocks; gives the result and what is stored.
fn write_over(sim: &Handle) -> (io::Result<()>, Vec<u8>) {
    let result = on_drive(sim, async |_, drive| {
        let file = drive
            .open(
                "file",
                Open {
                    durable: true,
                    ..EXISTING
                },
            )
            .await?;
        file.write_at(0, blocks(4, 2)).await
    });
    (result, sim.drive(NODE, "/drive").image().read("file").unwrap())
}

fn read_all(sim: &Handle) -> io::Result<Vec<u8>> {
    on_drive(sim, async |_, drive| {
        let file = drive.open("file", EXISTING).await?;
        Ok(file.read_at(0, 4 * BLOCK_BYTES).await?.to_vec())
    })
}

fn twos(content: &[u8]) -> usize {
    content.iter().filter(|byte| **byte == 2).count()
}

#[test]
fn writes_that_lie() {
    for seed in 0..20 {
        for (fault, kind) in [
            (Fault::Torn, FaultKind::TornWrite),
            (Fault::Lost, FaultKind::LostWrite),
            (Fault::Corrupt, FaultKind::CorruptWrite),
        ] {
            let (sim, drive) = with_file(seed);
            drive.fail_next_on("file", Operation::Write, fault);
            let (result, content) = write_over(&sim);
            result.unwrap();
            assert_eq!(drive.faults().get(kind), 1);
            let twos = twos(&content);
            match fault {
                Fault::Torn => assert!(twos > 0 && twos < content.len() && twos.is_multiple_of(512)),
                Fault::Lost => assert_eq!(twos, 0),
                _ => assert!(twos < content.len() && twos >= content.len() - 512),
            }
            let (result, content) = write_over(&sim);
            result.unwrap();
            assert_eq!(content, [2; 4 * BLOCK_BYTES], "only one write was to be hit");
        }
    }
}

#[test]
fn a_misdirected_write_lands_elsewhere() {
    let (sim, drive) = with_file(1);
    drive.fail_next(Operation::Write, Fault::Misdirected);
    on_drive(&sim, async |_, drive| {
        let file = drive.open("file", EXISTING).await.unwrap();
        file.write_at(0, blocks(1, 2)).await.unwrap();
    });
    let content = drive.image().read("file").unwrap();
    assert_eq!((content[0], twos(&content)), (1, BLOCK_BYTES));
    assert_eq!(drive.faults().get(FaultKind::MisdirectedWrite), 1);
}

#[test]
fn reads_that_lie() {
    let (sim, drive) = with_file(2);
    drive.fail_next(Operation::Read, Fault::Corrupt);
    assert_ne!(read_all(&sim).unwrap(), [1; 4 * BLOCK_BYTES]);
    assert_eq!(
        read_all(&sim).unwrap(),
        [1; 4 * BLOCK_BYTES],
        "the medium is well"
    );
    drive.fail_next(Operation::Read, Fault::Rot);
    let rotten = read_all(&sim).unwrap();
    assert_ne!(rotten, [1; 4 * BLOCK_BYTES]);
    assert_eq!(read_all(&sim).unwrap(), rotten, "the medium is not");
    sim.crash(NODE);
    assert_eq!(drive.image().read("file").unwrap(), rotten);
    assert_eq!(
        (
            drive.faults().get(FaultKind::CorruptRead),
            drive.faults().get(FaultKind::Rot)
        ),
        (1, 1)
    );
}

#[test]
fn errors_on_every_operation() {
    use Operation::*;
    for operation in [
        Open,
        List,
        Rename,
        Link,
        Remove,
        SyncDirectory,
        Read,
        Write,
        Allocate,
        SyncFile,
    ] {
        let (sim, drive) = with_file(3);
        let skip = u32::from(operation == Open);
        drive.inject(Injection {
            operation,
            file: None,
            skip,
            count: 1,
            fault: Fault::Error,
        });
        let results = on_drive(&sim, async |_, drive| {
            let file = drive.open("file", EXISTING).await.unwrap();
            [
                (Open, drive.open("file", EXISTING).await.map(drop)),
                (List, drive.list().await.map(drop)),
                (Write, file.write_at(0, blocks(1, 2)).await),
                (Read, file.read_at(0, BLOCK_BYTES).await.map(drop)),
                (Allocate, file.allocate(8 * BLOCK).await),
                (SyncFile, file.sync().await),
                (Link, drive.link("file", &drive, "link").await),
                (Rename, drive.rename("file", "renamed").await),
                (Remove, drive.remove("renamed").await),
                (SyncDirectory, drive.sync().await),
            ]
        });
        let failed: Vec<_> = results.iter().filter(|(_, result)| result.is_err()).collect();
        // A rename that failed leaves nothing to remove.
        assert_eq!(
            failed.len(),
            if operation == Rename { 2 } else { 1 },
            "{operation:?}: {results:?}"
        );
        assert_eq!(failed[0].0, operation);
        let message = failed[0].1.as_ref().unwrap_err().to_string();
        assert!(message.contains("os error 5"), "{message}");
        assert_eq!(drive.clear_injections(), 0);
    }
}

#[test]
fn a_full_drive() {
    let (sim, drive) = with_file(4);
    drive.set_capacity(6 * BLOCK);
    let check = async |_: SimRuntime, drive: SimDrive| {
        let full =
            |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        let file = drive.open("file", EXISTING).await.unwrap();
        assert_eq!(drive.space().unwrap().free_bytes, 2 * BLOCK);
        full(file.write_at(4 * BLOCK, blocks(3, 2)).await);
        full(file.allocate(7 * BLOCK).await);
        file.write_at(4 * BLOCK, blocks(2, 2)).await.unwrap();
        full(file.write_at(6 * BLOCK, blocks(1, 2)).await);
        file.write_at(0, blocks(4, 3)).await.unwrap();
        // Space comes back when the name and the last handle are gone.
        drive.remove("file").await.unwrap();
        assert_eq!(drive.space().unwrap().free_bytes, 0);
        drop(file);
        assert_eq!(drive.space().unwrap().free_bytes, 6 * BLOCK);
    };
    on_drive(&sim, check);
}

#[test]
fn slow_and_stalled() {
    let (sim, drive) = with_file(5);
    let before = sim.elapsed();
    drive.fail_next(Operation::Read, Fault::Slow(Duration::from_secs(3)));
    read_all(&sim).unwrap();
    assert!((3..4).contains(&(sim.elapsed() - before).as_secs()));
    let before = sim.elapsed();
    drive.stall_for(Duration::from_secs(7));
    read_all(&sim).unwrap();
    assert!((7..8).contains(&(sim.elapsed() - before).as_secs()));
}

#[test]
fn gone_and_back_again() {
    let (sim, drive) = with_file(6);
    let old = drive.image();
    write_over(&sim).0.unwrap();
    let control = drive.clone();
    on_drive(&sim, async move |runtime, drive| {
        let file = drive.open("file", EXISTING).await.unwrap();
        control.detach();
        let gone = |error: io::Error| assert!(error.to_string().contains("os error 19"), "{error}");
        gone(file.read_at(0, BLOCK_BYTES).await.unwrap_err());
        gone(drive.list().await.unwrap_err());
        gone(drive.space().unwrap_err());
        gone(runtime.drive(Path::new("/drive"), true).await.unwrap_err());
        control.attach();
        gone(file.read_at(0, BLOCK_BYTES).await.unwrap_err());
        let again = open_drive(&runtime).await.open("file", EXISTING).await.unwrap();
        assert_eq!(again.read_at(0, BLOCK_BYTES).await.unwrap()[0], 2);
    });
    drive.detach();
    drive.attach_stale(&old);
    assert_eq!(read_all(&sim).unwrap(), [1; 4 * BLOCK_BYTES]);
    assert_eq!(
        (
            drive.faults().get(FaultKind::Vanish),
            drive.faults().get(FaultKind::Stale)
        ),
        // What it was left with is less than others have by now, too.
        (2, 2)
    );
}

#[test]
fn edits_from_outside() {
    let (sim, drive) = with_file(7);
    drive.corrupt("file", 10..20);
    drive.flip_bit("file", 5_000, 3);
    drive.zero("file", 8_192..8_193);
    drive.overwrite("file", 12_000, &[7, 8]);
    let content = read_all(&sim).unwrap();
    let changed: Vec<usize> = (0..content.len()).filter(|place| content[*place] != 1).collect();
    assert_eq!(
        changed,
        [(10..20).collect(), vec![5_000, 8_192, 12_000, 12_001]].concat()
    );
    assert_eq!((content[5_000], content[8_192], content[12_000]), (1 ^ 8, 0, 7));
    drive.rot("file", 0);
    assert_ne!(read_all(&sim).unwrap()[..BLOCK_BYTES], content[..BLOCK_BYTES]);
    assert!(drive.delete_file("file"));
    assert_eq!(read_all(&sim).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn chance_hits_all_but_the_protected_mirror() {
    let mut total = FaultCounters::default();
    for seed in 0..10 {
        let faults = FaultConfig {
            stall_ppm: 5_000,
            ..FaultConfig::all(30_000)
        };
        let config = DriveConfig {
            faults,
            ..DriveConfig::default()
        };
        let sim = Simulation::new(
            seed,
            Config {
                drive: config,
                ..Config::default()
            },
        );
        let drives = ["/a", "/b"].map(|path| sim.drive(NODE, path));
        let healthy = sim.protect_one_of(&drives);
        let path = ["/a", "/b"][healthy];
        let other = ["/a", "/b"][1 - healthy];
        sim.block_on(NODE, SHARD, async move |runtime| {
            for path in [path, other] {
                let drive = runtime.drive(Path::new(path), true).await.unwrap();
                let Ok(file) = drive.open("file", CREATE_DURABLE).await else {
                    continue;
                };
                for round in 0..200u64 {
                    let offset = round % 10 * BLOCK;
                    let written = file.write_at(offset, blocks(1, round as u8)).await;
                    let read = file.read_at(offset, BLOCK_BYTES).await;
                    let right =
                        written.is_ok() && read.is_ok_and(|read| read[..] == [round as u8; BLOCK_BYTES]);
                    assert!(right || path == other, "seed {seed}: the protected drive failed");
                    let _ = (file.sync().await, drive.sync().await, drive.list().await);
                }
            }
        });
        let harmless = [FaultKind::Slow, FaultKind::Stall];
        assert!(
            drives[healthy]
                .faults()
                .iter()
                .all(|(kind, _)| harmless.contains(&kind))
        );
        total.merge(&drives[1 - healthy].faults());
    }
    use FaultKind::*;
    for kind in [
        ReadError,
        WriteError,
        SyncError,
        MetadataError,
        NoSpace,
        TornWrite,
        LostWrite,
        MisdirectedWrite,
        CorruptWrite,
        CorruptRead,
        Rot,
        Slow,
        Stall,
        Vanish,
    ] {
        assert!(total.get(kind) > 0, "{kind:?} never happened: {total:?}");
    }
}

#[test]
fn a_read_across_a_write_in_flight_may_see_both() {
    let mut mixed = 0;
    for seed in 0..50 {
        let (sim, _) = with_file(seed);
        let content = on_drive(&sim, async |runtime, drive| {
            let file = drive.open("file", EXISTING).await.unwrap();
            let write = cairn_runtime::sync::spawn(
                &runtime,
                cairn_runtime::Queue::Foreground,
                file.write_at(0, blocks(4, 2)),
            );
            let content = file.read_at(0, 4 * BLOCK_BYTES).await.unwrap();
            write.await.unwrap().unwrap();
            content
        });
        assert!(content.iter().all(|byte| matches!(byte, 1 | 2)));
        mixed += usize::from(content.contains(&1) && content.contains(&2));
    }
    assert!(mixed > 0);
}

#[test]
fn calm_after_the_storm() {
    let faults = FaultConfig {
        vanish_ppm: 300_000,
        ..FaultConfig::all(300_000)
    };
    let drive = DriveConfig {
        faults,
        ..DriveConfig::default()
    };
    let sim = Simulation::new(
        1,
        Config {
            drive,
            ..Config::default()
        },
    );
    let work = async |_: SimRuntime, drive: SimDrive| {
        let how = Open {
            durable: true,
            create_new: drive.list().await?.is_empty(),
            read_only: false,
        };
        let file = drive.open("file", how).await?;
        file.write_at(0, blocks(4, 1)).await?;
        assert_eq!(file.read_at(0, 4 * BLOCK_BYTES).await?[..], [1; 4 * BLOCK_BYTES]);
        drive.sync().await
    };
    on_drive(&sim, async |_, drive| while drive.list().await.is_ok() {});
    sim.calm();
    on_drive(&sim, work).unwrap();
}
