//! Encryption at rest, from outside: what is on the drives, which keys open it, and another root key at every moment.

mod common;

use std::cell::RefCell;
use std::rc::Rc;

use cairn_engine::Direction;
use cairn_engine::check::{CheckOptions, check};
use cairn_engine::sealing::{Keys, RootKey, audit};
use cairn_engine::volume::{Keeper, Rotated, VolumeConfig, VolumeError, rotate_root_key};
use cairn_runtime::sim::DriveImage;
use cairn_runtime::{Queue, Runtime, ShardIndex};
use common::*;

const PLACES: [&str; 3] = ["/mirror-0", "/mirror-1", "/state"];

fn with_keys(keys: Keys) -> VolumeConfig {
    VolumeConfig {
        keys,
        ..volume_config()
    }
}

fn keys(root: &[&RootKey]) -> Keys {
    Keys {
        root: root.iter().copied().cloned().collect(),
        encrypted: None,
    }
}

fn images(world: &World) -> Vec<DriveImage> {
    PLACES.map(|place| world.sim.drive(NODE, place).image()).to_vec()
}

/// Every file and what it holds.
fn content(world: &World) -> Vec<(String, Vec<u8>)> {
    let of = |image: &DriveImage| {
        let names: Vec<String> = image.names().map(str::to_owned).collect();
        names
            .into_iter()
            .map(|name| (name.clone(), image.read(&name).expect("it is listed")))
            .collect::<Vec<_>>()
    };
    images(world).iter().flat_map(of).collect()
}

const MARKER: &[u8] = b"the marker that nobody may find";

/// A closed node with a marker in keys and items, of which some are in segments and some only in the log.
fn filled(world: &World, volume: VolumeConfig) {
    let running = world.try_open_on(volume).expect("the engine opens");
    world.with(&running, async |engine| {
        fill(&engine, P1, 300, 2_000).await;
        for number in 0..40 {
            let marked = [MARKER, &key(number)].concat();
            put(&engine, P2, &marked, &[MARKER, &item(number, 600)].concat())
                .await
                .expect("there is room");
            fill(&engine, P1, 20, 3_000).await;
        }
        put(&engine, P1, MARKER, MARKER).await.expect("there is room");
    });
    world.close(running);
}

fn holds_marker(content: &[(String, Vec<u8>)]) -> bool {
    let found = |bytes: &[u8]| bytes.windows(MARKER.len()).any(|window| window == MARKER);
    content.iter().any(|(_, bytes)| found(bytes))
}

fn refusal(world: &World, keys: Keys) -> VolumeError {
    let volume = with_keys(keys);
    let opened = world.run(async move |runtime| Keeper::open(runtime, volume).await.map(drop));
    world.sim.kill(NODE);
    world.sim.restart(NODE);
    opened.expect_err("the node must not open")
}

#[test]
fn what_a_client_wrote_is_on_no_drive() {
    let mut config = small();
    // As it is, so that it would be found.
    config.compression = cairn_engine::Compression::None;
    for encrypted in [true, false] {
        let world = World::new(1, config.clone());
        let keys = if encrypted {
            keys(&[&root_key()])
        } else {
            Keys::default()
        };
        filled(&world, with_keys(keys.clone()));
        let content = content(&world);
        let segments = content
            .iter()
            .filter(|(name, _)| name.starts_with("segment-"))
            .count();
        assert!(segments > 2, "{segments}");
        assert_eq!(holds_marker(&content), !encrypted);
        let report = world.run(async move |runtime| {
            let options = CheckOptions { items: false };
            check(runtime, &with_keys(keys), options, &mut |_| {}).await
        });
        let report = report.expect("the node can be looked at");
        assert!(report.is_clean(), "{report}");
    }
}

#[test]
fn a_wrong_or_missing_key_is_refused_and_nothing_is_touched() {
    let world = World::new(2, small());
    filled(&world, volume_config());
    let before = content(&world);
    let (right, wrong) = (root_key(), RootKey::new([8; 32]));
    let said = refusal(&world, keys(&[&wrong]));
    assert_eq!(
        said,
        VolumeError::WrongKey {
            needed: right.id(),
            given: vec![wrong.id()]
        }
    );
    assert!(said.to_string().contains(&right.id().to_string()), "{said}");
    let said = refusal(&world, Keys::default());
    assert_eq!(said, VolumeError::KeyMissing { needed: right.id() });
    let off = Keys {
        encrypted: Some(false),
        ..Keys::default()
    };
    let said = refusal(&world, off);
    assert_eq!(said, VolumeError::EncryptionMismatch { encrypted: true });
    let volume = with_keys(keys(&[&wrong]));
    let rotated =
        world.run(async move |runtime| rotate_root_key(runtime, &volume, &RootKey::new([9; 32])).await);
    assert!(
        matches!(rotated, Err(VolumeError::WrongKey { .. })),
        "{rotated:?}"
    );
    world.sim.kill(NODE);
    world.sim.restart(NODE);
    assert!(content(&world) == before, "not one byte has changed");
    let running = world.open();
    assert_eq!(
        world.with(&running, async |engine| get(&engine, P1, MARKER).await),
        Some(MARKER.to_vec())
    );
}

#[test]
fn a_node_that_is_not_encrypted_is_refused_where_it_should_be() {
    let world = World::new(3, small());
    filled(&world, with_keys(Keys::default()));
    let before = content(&world);
    let on = Keys {
        encrypted: Some(true),
        ..Keys::default()
    };
    for asked in [on.clone(), keys(&[&root_key()])] {
        let said = refusal(&world, asked);
        assert_eq!(said, VolumeError::EncryptionMismatch { encrypted: false });
    }
    assert!(content(&world) == before);
    let world = World::new(4, small());
    let said = refusal(&world, on);
    assert!(matches!(said, VolumeError::Config(_)), "{said}");
}

#[test]
fn a_flipped_bit_is_repaired_from_the_mirror() {
    let world = World::new(5, small());
    filled(&world, volume_config());
    let whole = world.mirror(1).image();
    for name in whole.names().filter(|name| name.starts_with("segment-")) {
        let bytes = whole.bytes(name).expect("it is listed");
        for place in (0..bytes).step_by(4_096) {
            world.mirror(1).flip_bit(name, place + 40 + place % 900, 2);
        }
    }
    let running = world.open();
    let scrubs = running.engine.clone();
    let _ = running.volume().request_scrub();
    world.run(async move |runtime| {
        while scrubs.stats().scrubs == 0 {
            runtime.sleep(std::time::Duration::from_millis(100)).await;
        }
        runtime.sleep(std::time::Duration::from_secs(1)).await;
    });
    let repairs = running.engine.stats().segments.repairs;
    assert!(repairs > 20, "{repairs}");
    world.close(running);
    let (one, other) = (world.mirror(0).image(), world.mirror(1).image());
    for name in one.names().filter(|name| name.starts_with("segment-")) {
        assert!(one.read(name) == other.read(name), "{name}");
    }
}

#[test]
#[cfg(debug_assertions)]
fn no_key_and_nonce_is_used_for_two_contents() {
    audit::begin();
    let world = World::new(6, small());
    for round in 0..6 {
        let running = world.open();
        world.with(&running, async move |engine| {
            fill(&engine, P1, 150 + round, 2_000).await;
            fill(&engine, P2, 50, 300).await;
        });
        // Without an end the tail is torn, and the next start goes on behind it.
        if round % 3 == 2 {
            world.close(running);
        } else {
            world.crash(running);
        }
    }
    let pairs = audit::end();
    assert!(pairs > 1_000, "{pairs}");
}

fn rotate(world: &World, old: &[&RootKey], new: RootKey) -> Rotated {
    let volume = with_keys(keys(old));
    let rotated = world.run(async move |runtime| rotate_root_key(runtime, &volume, &new).await);
    world.sim.kill(NODE);
    world.sim.restart(NODE);
    rotated.expect("all drives are there")
}

#[test]
fn after_a_rotation_only_the_new_root_key_opens_the_node() {
    let world = World::new(7, small());
    filled(&world, volume_config());
    let new = RootKey::new([9; 32]);
    let data = |world: &World| {
        let files = content(world);
        let data = files
            .into_iter()
            .filter(|(name, _)| name != "superblock" && name != "witness");
        data.collect::<Vec<_>>()
    };
    let before = data(&world);
    let rotated = rotate(&world, &[&root_key()], new.clone());
    assert_eq!(
        rotated,
        Rotated {
            old: root_key().id(),
            new: new.id(),
            unwritten: 0
        }
    );
    assert!(data(&world) == before, "nothing is encrypted anew");
    let said = refusal(&world, keys(&[&root_key()]));
    assert!(matches!(said, VolumeError::WrongKey { .. }), "{said}");
    let running = world
        .try_open_on(with_keys(keys(&[&new])))
        .expect("the new key opens it");
    assert_eq!(
        world.with(&running, async |engine| get(&engine, P1, MARKER).await),
        Some(MARKER.to_vec())
    );
    world.close(running);
    // Again, as after a crash: it is the same key already.
    assert_eq!(rotate(&world, &[&root_key()], new.clone()).old, new.id());
}

#[test]
fn a_drive_that_missed_the_rotation_is_told_of_it() {
    let world = World::new(8, small());
    filled(&world, volume_config());
    let new = RootKey::new([9; 32]);
    world.mirror(1).detach();
    assert_eq!(rotate(&world, &[&root_key()], new.clone()).unwritten, 1);
    world.mirror(1).attach();
    let running = world
        .try_open_on(with_keys(keys(&[&new])))
        .expect("the new key opens it");
    world.close(running);
    for at in 0..2 {
        let superblock = world.mirror(at).image().read("superblock").expect("it is there");
        assert_eq!(superblock[1160..1168], new.id().0.to_le_bytes(), "drive {at}");
    }
}

#[test]
fn a_crash_at_any_moment_of_a_rotation_leaves_one_of_the_two_keys() {
    let world = World::new(9, small());
    filled(&world, volume_config());
    let images = images(&world);
    let (old, new) = (root_key(), RootKey::new([9; 32]));
    let attempt = |seed: u64, steps: u64| {
        let world = World::new(seed, small());
        for (place, image) in PLACES.iter().zip(&images) {
            world.sim.drive(NODE, place).restore(image);
        }
        let done = Rc::new(RefCell::new(false));
        let (flag, runtime) = (done.clone(), world.sim.runtime(NODE, ShardIndex(0)));
        let (volume, new) = (with_keys(keys(&[&old])), new.clone());
        runtime.clone().spawn(Queue::Foreground, async move {
            rotate_root_key(runtime, &volume, &new)
                .await
                .expect("all drives are there");
            *flag.borrow_mut() = true;
        });
        let mut taken = 0;
        while taken < steps && !*done.borrow() && world.sim.step() {
            taken += 1;
        }
        world.sim.crash(NODE);
        world.sim.restart(NODE);
        let ended = *done.borrow();
        (world, ended, taken)
    };
    let (_, ended, all) = attempt(999, u64::MAX);
    assert!(ended);
    let mut opened_by = [0, 0];
    for steps in 0..=all {
        let (world, ended, _) = attempt(1_000 + steps, steps);
        let opens = |world: &World, key: &RootKey| {
            let volume = with_keys(keys(&[key]));
            let running = world.try_open_on(volume);
            let opens = running.is_ok();
            if let Ok(running) = running {
                let found = world.with(&running, async |engine| get(&engine, P1, MARKER).await);
                assert_eq!(found.as_deref(), Some(MARKER));
                world.close(running);
            } else {
                world.sim.kill(NODE);
                world.sim.restart(NODE);
            }
            opens
        };
        // One of them, and the same one as long as nobody rotates.
        let by = [opens(&world, &old), opens(&world, &new)];
        assert_eq!(by.iter().filter(|opens| **opens).count(), 1, "{steps}: {by:?}");
        assert!(by[1] || !ended, "{steps}");
        opened_by[usize::from(by[1])] += 1;
        // Who has both need not know; and the same command ends what was cut off.
        let running = world.try_open_on(with_keys(keys(&[&old, &new])));
        world.close(running.expect("one of the two is right"));
        if steps % 8 == 0 {
            rotate(&world, &[&old], new.clone());
            assert!(opens(&world, &new) && !opens(&world, &old), "{steps}");
        }
    }
    assert!(opened_by.iter().all(|count| *count > 0), "{opened_by:?}");
}

/// Which of its table's keys each segment on a drive is sealed with: what its header says.
fn segment_keys(world: &World, mirror: usize) -> Vec<u32> {
    let image = world.mirror(mirror).image();
    let segments = image.names().filter(|name| name.starts_with("segment-"));
    // None yet of a file that has just been made.
    let id = |name: &str| {
        let bytes = image.read(name).expect("it is listed");
        let id = bytes.get(20..24)?;
        Some(u32::from_le_bytes(id.try_into().expect("four bytes")))
    };
    segments.filter_map(id).collect()
}

/// Sleeps until every segment on both drives has key `id`.
fn wait_for_key(world: &World, id: u32) {
    for _ in 0..600 {
        let done = (0..2).all(|mirror| segment_keys(world, mirror).iter().all(|key| *key == id));
        if done {
            return;
        }
        world.run(async |runtime| runtime.sleep(std::time::Duration::from_millis(50)).await);
    }
    panic!("{:?}", segment_keys(world, 0));
}

#[test]
fn tables_get_other_keys_while_the_node_serves() {
    let world = World::new(11, small());
    filled(&world, volume_config());
    let running = world.open();
    let held = world.with(&running, async |engine| {
        scan_all(&engine, P1, Direction::Forward).await
    });
    assert!(segment_keys(&world, 0).iter().all(|key| *key == 1));
    for round in 2..4 {
        let volume = running.volume();
        let number = volume.request_rekey();
        world.with(&running, async move |engine| {
            // Reads and writes go on.
            fill(&engine, P2, 100, 900).await;
            loop {
                let status = volume.status().await.expect("the keeper is there");
                let done = |report: &cairn_engine::volume::LogReport| {
                    report.rekey.answered >= number && report.rekey.old_bytes == 0
                };
                if !status.logs.is_empty() && status.logs.iter().all(|(_, report)| done(report)) {
                    break;
                }
                assert_eq!(get(&engine, P1, MARKER).await.as_deref(), Some(MARKER));
            }
        });
        wait_for_key(&world, round);
        assert!(segment_keys(&world, 1).len() > 2);
    }
    let again = world.with(&running, async |engine| {
        scan_all(&engine, P1, Direction::Forward).await
    });
    assert!(again == held);
    world.close(running);
    let running = world.open();
    let again = world.with(&running, async |engine| {
        scan_all(&engine, P1, Direction::Forward).await
    });
    assert!(again == held);
    assert!(segment_keys(&world, 0).iter().all(|key| *key == 3));
}

#[test]
fn other_keys_for_tables_survive_a_crash_at_any_moment() {
    let world = World::new(12, small());
    filled(&world, volume_config());
    let images = images(&world);
    let mut gone_on = 0;
    for point in 0..40 {
        let world = World::new(2_000 + point, small());
        for (place, image) in PLACES.iter().zip(&images) {
            world.sim.drive(NODE, place).restore(image);
        }
        let running = world.open();
        let _ = running.volume().request_rekey();
        let end = world.sim.elapsed() + std::time::Duration::from_secs(60);
        for _ in 0..point * 60 {
            // When all is done, only timers are left.
            if world.sim.elapsed() > end || !world.sim.step() {
                break;
            }
        }
        world.crash(running);
        let running = world.open();
        let found = world.with(&running, async |engine| get(&engine, P1, MARKER).await);
        assert_eq!(found.as_deref(), Some(MARKER));
        // Where one segment has the new key the others follow, without being asked again.
        if segment_keys(&world, 0).contains(&2) {
            wait_for_key(&world, 2);
            gone_on += 1;
        }
        let found = world.with(&running, async |engine| {
            scan_all(&engine, P1, Direction::Forward).await.len()
        });
        assert_eq!(found, 101, "{point}");
        world.crash(running);
    }
    assert!(gone_on > 3, "{gone_on}");
}
