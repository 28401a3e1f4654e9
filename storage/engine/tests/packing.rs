//! What a partition is packed with is known before anything of it is flushed, also by an engine that nobody has told.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use cairn_engine::ids::PartitionId;
use cairn_engine::tree::Codec;
use cairn_engine::tree::segment::{SegmentHeader, UNIT_BYTES};
use cairn_engine::{Compression, EngineConfig, ErrorKind};
use cairn_runtime::Runtime;
use common::*;

/// Codecs of a partition's segments, the older first.
fn codecs(world: &World, partition: PartitionId) -> Vec<Codec> {
    let image = world.mirror(0).image();
    let mut codecs = BTreeMap::new();
    for name in image.names().filter(|name| name.starts_with("segment-")) {
        let content = image.read(name).unwrap();
        // One that is being written has no header yet.
        if content.len() < UNIT_BYTES || content[..UNIT_BYTES].iter().all(|byte| *byte == 0) {
            continue;
        }
        let header = SegmentHeader::decode(&content[..UNIT_BYTES]).unwrap();
        if header.partition == partition {
            codecs.insert(header.id, header.codec);
        }
    }
    codecs.into_values().collect()
}

/// Opens the engine with so small a budget for memtables that what it has replayed is flushed, before anybody says anything.
fn open_and_flush(world: &mut World) -> Running {
    world.config.memtable_bytes = small().memtable_bytes;
    let running = world.open();
    let (engine, runtime) = (running.engine.clone(), running.runtime.clone());
    world.run(async move |_| {
        for _ in 0..100 {
            if engine.stats().flushes >= 2 {
                return;
            }
            runtime.sleep(Duration::from_millis(100)).await;
        }
        panic!("nothing is flushed: {:?}", engine.stats());
    });
    running
}

/// An engine that flushes nothing by itself.
fn roomy() -> EngineConfig {
    EngineConfig {
        memtable_bytes: 64 << 20,
        log_files_max: 48,
        ..small()
    }
}

#[test]
fn what_is_replayed_is_flushed_as_the_partition_is_packed() {
    for crashes in [false, true] {
        let mut world = World::new(1, roomy());
        let running = world.open();
        let runtime = running.runtime.clone();
        world.with(&running, async move |engine| {
            engine.pack_with(P1, Some(Compression::None)).await.unwrap();
            // Until the log has its files: before that it may be made short.
            runtime.sleep(Duration::from_secs(1)).await;
            for partition in [P1, P2] {
                fill(&engine, partition, 30, 3_000).await;
            }
            assert_eq!(engine.stats().flushes, 0);
        });
        if crashes {
            world.crash(running);
        } else {
            world.close(running);
        }
        let running = open_and_flush(&mut world);
        assert_eq!(codecs(&world, P1), [Codec::None]);
        assert_eq!(codecs(&world, P2), [Codec::Lz4]);
        world.close(running);
    }
}

#[test]
fn it_outlives_the_log_it_was_written_to_and_can_be_taken_back() {
    let mut world = World::new(2, small());
    let running = world.open();
    world.with(&running, async move |engine| {
        engine.pack_with(P1, Some(Compression::None)).await.unwrap();
        // All of the log is used anew some times over.
        fill(&engine, P2, 3_000, 900).await;
        assert!(engine.stats().snapshots > 2, "{:?}", engine.stats());
    });
    world.close(running);
    world.config = roomy();
    let running = world.open();
    world.with(&running, async move |engine| {
        for partition in [P1, P2] {
            fill(&engine, partition, 30, 3_000).await;
        }
    });
    world.crash(running);
    let running = open_and_flush(&mut world);
    assert_eq!(codecs(&world, P1), [Codec::None]);
    world.with(&running, async move |engine| {
        let edits = engine.stats().log.records;
        engine.pack_with(P1, Some(Compression::None)).await.unwrap();
        assert_eq!(engine.stats().log.records, edits, "it is packed so already");
        engine.pack_with(P1, None).await.unwrap();
        engine.pack_with(P2, Some(Compression::Zstd)).await.unwrap();
    });
    world.close(running);
    world.config = roomy();
    let running = world.open();
    world.with(&running, async move |engine| {
        fill(&engine, P1, 30, 3_000).await;
        fill(&engine, P2, 30, 3_000).await;
        engine.drop_partition(P2).await.unwrap();
        let gone = engine.pack_with(P2, None).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    });
    world.crash(running);
    world.config.memtable_bytes = small().memtable_bytes;
    let running = world.open();
    let (engine, runtime) = (running.engine.clone(), running.runtime.clone());
    world.run(async move |_| {
        while engine.stats().flushes < 1 {
            runtime.sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(codecs(&world, P1).last(), Some(&Codec::Lz4));
    world.close(running);
}
