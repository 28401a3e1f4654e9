//! The scrub finds what nobody reads, and repairs it; and it does so slowly, and remembers how far it is.

mod common;

use std::time::Duration;

use cairn_engine::EngineConfig;
use cairn_engine::check::{CheckOptions, check};
use cairn_engine::config::ScrubConfig;
use cairn_engine::volume::ScrubReport;
use cairn_runtime::Runtime;
use cairn_runtime::sim::DriveControl;
use common::*;

const HOUR: Duration = Duration::from_secs(3600);

fn config(scrub: ScrubConfig) -> EngineConfig {
    EngineConfig { scrub, ..small() }
}

fn quick() -> ScrubConfig {
    ScrubConfig {
        interval: HOUR,
        delay: Duration::from_secs(1),
        ..ScrubConfig::default()
    }
}

fn segments(drive: &DriveControl) -> Vec<String> {
    let image = drive.image();
    let names = image.names().filter(|name| name.starts_with("segment-"));
    names.map(str::to_owned).collect()
}

/// A closed node with a number of segments.
fn filled(seed: u64, scrub: ScrubConfig) -> World {
    let world = World::new(seed, config(scrub));
    let running = world.open();
    world.with(&running, async |engine| {
        fill(&engine, P1, 400, 2_000).await;
        fill(&engine, P2, 200, 700).await;
    });
    world.close(running);
    assert!(segments(&world.mirror(0)).len() > 3);
    world
}

/// Lets `duration` pass.
fn pass(world: &World, duration: Duration) {
    world.run(async move |runtime| runtime.sleep(duration).await);
}

fn report(world: &World, running: &Running) -> ScrubReport {
    let volume = running.volume();
    let status = world.run(async move |_| volume.status().await).expect("it runs");
    status.logs.first().expect("the engine has reported").1.scrub
}

/// Scrambles a block in the middle of each of `names`.
fn damage(drive: &DriveControl, names: &[String]) {
    for name in names {
        let blocks = drive.image().bytes(name).expect("it is listed") / 4096;
        let at = blocks / 2 * 4096;
        drive.corrupt(name, at + 100..at + 200);
    }
}

fn is_clean(world: &World) -> bool {
    let report = world.run(async |runtime| {
        let options = CheckOptions { items: false };
        check(runtime, &volume_config(), options, &mut |_| {}).await
    });
    report.expect("the node can be looked at").is_clean()
}

#[test]
fn what_nobody_reads_is_found_and_repaired_on_each_mirror() {
    for mirror in 0..2 {
        let world = filled(1 + mirror as u64, quick());
        let names = segments(&world.mirror(mirror));
        let (missing, damaged) = names.split_first().expect("there are segments");
        damage(&world.mirror(mirror), damaged);
        let running = world.open();
        // Gone while the node runs: a start would have copied it.
        assert!(world.mirror(mirror).delete_file(missing));
        pass(&world, Duration::from_secs(60));
        let found = report(&world, &running);
        // A compaction may have met some of it first.
        assert!(found.damaged > 0, "{found:?}");
        assert_eq!(found.lost, 0);
        assert!(found.verified_ms > 0 && !found.running);
        let stats = running.engine.stats();
        assert_eq!(stats.scrubs, 1, "one pass an hour");
        assert!(stats.segments.repairs > 0);
        world.close(running);
        assert_eq!(
            segments(&world.mirror(mirror)),
            segments(&world.mirror(1 - mirror))
        );
        assert!(is_clean(&world), "mirror {mirror}");
    }
}

#[test]
fn what_no_mirror_has_is_counted_and_only_its_readers_suffer() {
    let world = filled(5, quick());
    let drive = world.mirror(0);
    let bytes = |name: &String| drive.image().bytes(name).expect("it is listed");
    // Of the largest, the middle is data.
    let largest = segments(&drive)
        .into_iter()
        .max_by_key(bytes)
        .expect("there are some");
    for mirror in 0..2 {
        damage(&world.mirror(mirror), std::slice::from_ref(&largest));
    }
    let running = world.open();
    pass(&world, Duration::from_secs(60));
    let found = report(&world, &running);
    assert_eq!((found.lost, found.damaged), (1, 2), "{found:?}");
    assert_eq!(running.engine.stats().partitions_fenced, 0, "nobody has read it");
    world.crash(running);
}

#[test]
fn the_rate_is_kept() {
    let scrub = ScrubConfig {
        bytes_per_second: 20_000,
        ..quick()
    };
    let world = filled(6, scrub);
    let bytes: u64 = segments(&world.mirror(0))
        .iter()
        .map(|name| world.mirror(0).image().bytes(name).expect("it is listed"))
        .sum();
    let running = world.open();
    let seconds = 2 * bytes / 20_000;
    pass(&world, Duration::from_secs(seconds / 2));
    let halfway = report(&world, &running);
    assert!(
        halfway.running && halfway.bytes_done < bytes * 3 / 4,
        "{halfway:?}"
    );
    assert!(halfway.bytes_done > bytes / 8, "{halfway:?}");
    // An operator does not want to wait that long.
    let (asked, volume) = (running.volume().request_scrub(), running.volume());
    pass(&world, Duration::from_secs(5));
    let status = world.run(async move |_| volume.status().await).expect("it runs");
    let answered = status.logs[0].1.scrub;
    assert_eq!(answered.answered, asked);
    assert!(!answered.running && answered.verified_ms > 0);
    assert_eq!(
        answered.bytes_done, answered.bytes_total,
        "what was cut short does not count"
    );
    world.crash(running);
}

#[test]
fn a_restart_goes_on_where_the_scrub_was() {
    for crash in [false, true] {
        let scrub = ScrubConfig {
            bytes_per_second: 50_000,
            ..quick()
        };
        let world = filled(7, scrub);
        let running = world.open();
        pass(&world, Duration::from_secs(4));
        let before = report(&world, &running);
        assert!(before.running && before.bytes_done > 0, "{before:?}");
        world.close(running);
        let running = world.open();
        pass(&world, Duration::from_secs(3));
        let after = report(&world, &running);
        assert!(
            after.bytes_total < before.bytes_total,
            "what was read is not read again"
        );
        pass(&world, Duration::from_secs(120));
        let done = report(&world, &running);
        assert!(done.verified_ms > 0 && !done.running, "{done:?}");
        // A while for the last edit to become durable by itself.
        if crash {
            world.crash(running);
        } else {
            world.close(running);
        }
        let running = world.open();
        pass(&world, Duration::from_secs(10));
        let later = report(&world, &running);
        assert_eq!(later.verified_ms, done.verified_ms);
        assert_eq!(running.engine.stats().scrubs, 0, "it is not due");
        pass(&world, 2 * HOUR);
        assert!(report(&world, &running).verified_ms > done.verified_ms);
        world.crash(running);
    }
}
