//! Nodes as each format version wrote them are kept, and open. `fixtures/format-N/KIND` is one: a directory for each drive and
//! the state, each file packed with zstd; `mirrors` has those that are the same on both drives.
//!
//! To write the present version's again, which is for as long only as no release has written it:
//! `CAIRN_WRITE_FIXTURES=1 cargo test -p cairn-engine --test formats`.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::check::{self, CheckOptions};
use cairn_engine::checksum::{Place, checksum};
use cairn_engine::ids::LogId;
use cairn_engine::log::file::FileEntry;
use cairn_engine::sealing::Keys;
use cairn_engine::volume::VolumeConfig;
use cairn_engine::{Compression, Direction, EngineConfig};
use cairn_item::{Attribute, Item, ItemView, Number, Value, archive};
use cairn_runtime::sim::DriveControl;
use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Runtime};
use common::*;

/// The present version.
const VERSION: u32 = 1;
/// Directories of a fixture, and those of the node that have what is in it.
const PLACES: [(&str, &[&str]); 4] = [
    ("mirrors", &["/mirror-0", "/mirror-1"]),
    ("mirror-0", &["/mirror-0"]),
    ("mirror-1", &["/mirror-1"]),
    ("state", &["/state"]),
];

/// Bytes of a batch's header, as docs/format-log.md has it.
const BATCH_HEADER_BYTES: usize = 128;

/// Files of a node by directory and name.
type Files = BTreeMap<(String, String), Vec<u8>>;

fn fixture(version: u32, sealed: bool) -> PathBuf {
    let kind = if sealed { "sealed" } else { "plain" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{version}/{kind}"))
}

fn world(sealed: bool) -> World {
    let config = EngineConfig {
        memtable_bytes: 24 << 10,
        log_files_max: 4,
        item_bytes_max: 4 << 10,
        segment_bytes: 16 << 10,
        compression: Compression::Zstd,
        ..small()
    };
    let world = if sealed { World::new } else { World::plain };
    world(u64::from(VERSION), config)
}

fn plain_number(text: &str) -> Number {
    text.parse().unwrap()
}

fn number(text: &str) -> Value {
    Value::N(plain_number(text))
}

/// Item `at`, after it was written `turn` times: every type of value is in one of them.
fn item_of(at: u64, turn: u64) -> Item {
    let value = match at % 8 {
        0 => Value::S(format!("text {at} ключ")),
        1 => number(&format!("-{at}.5e-{}", at % 100)),
        2 => Value::B((0..at as u8).collect()),
        3 => Value::Bool(at % 16 == 3),
        4 => Value::Null,
        5 => Value::L(vec![
            number("1"),
            Value::S("two".to_owned()),
            Value::L(Vec::new()),
        ]),
        6 => Value::string_set(vec!["a".to_owned(), format!("b{at}")]).unwrap(),
        _ => Value::number_set(vec![plain_number("-7"), plain_number(&at.to_string())]).unwrap(),
    };
    let attribute = |name: &str, value| Attribute {
        name: name.to_owned(),
        value,
    };
    Item::from_attributes(vec![
        attribute("at", number(&at.to_string())),
        attribute("turn", number(&turn.to_string())),
        attribute("value", value.clone()),
        attribute("nested", Value::map(vec![attribute("value", value)])),
        attribute("text", Value::S("the quick brown fox ".repeat(at as usize % 12))),
    ])
}

/// Items of each partition.
const ITEMS: [u64; 2] = [150, 20];
const TURNS: u64 = 3;

/// Whether item `at` was deleted last.
fn is_deleted(at: u64) -> bool {
    at % 7 == 3
}

fn expected(partition: usize) -> Vec<(Vec<u8>, Item)> {
    let live = (0..ITEMS[partition]).filter(|at| !is_deleted(*at));
    live.map(|at| (key(at), item_of(at, TURNS - 1))).collect()
}

/// Writes what [`expected`] tells: most of it into segments of several levels, the rest only into the log.
fn write_node(world: &World) {
    let running = world.open();
    let runtime = running.runtime.clone();
    world.with(&running, async move |engine| {
        for turn in 0..TURNS {
            for (id, count) in [P1, P2].into_iter().zip(ITEMS) {
                for at in 0..count {
                    let item = archive(&item_of(at, turn));
                    put(&engine, id, &key(at), &item).await.unwrap();
                }
            }
            runtime.sleep(Duration::from_secs(1)).await;
        }
        assert!(engine.stats().flushes > 2 && engine.stats().compactions > 0);
        for (id, count) in [P1, P2].into_iter().zip(ITEMS) {
            for at in (0..count).filter(|at| is_deleted(*at)) {
                delete(&engine, id, &key(at)).await.unwrap();
            }
        }
        runtime.sleep(Duration::from_secs(1)).await;
    });
    world.close(running);
}

fn directories(world: &World) -> BTreeMap<&'static str, DriveControl> {
    let names = ["/mirror-0", "/mirror-1", "/state"];
    names.map(|name| (name, world.sim.drive(NODE, name))).into()
}

fn files_of(world: &World) -> Files {
    let mut files = Files::new();
    for (directory, drive) in directories(world) {
        let image = drive.image();
        for name in image.names() {
            let content = image.read(name).unwrap();
            files.insert((directory.to_owned(), name.to_owned()), content);
        }
    }
    files
}

fn save(path: &Path, files: &Files) {
    // What was there may have other names.
    let _ = fs::remove_dir_all(path);
    for ((directory, name), content) in files {
        let twin = |other: &str| files.get(&(other.to_owned(), name.clone())) == Some(content);
        let shared = directory != "/state" && twin("/mirror-0") && twin("/mirror-1");
        let place = match directory.as_str() {
            _ if shared => "mirrors",
            directory => &directory[1..],
        };
        fs::create_dir_all(path.join(place)).unwrap();
        let packed = zstd::bulk::compress(content, 19).unwrap();
        fs::write(path.join(place).join(format!("{name}.zst")), packed).unwrap();
    }
}

fn load(path: &Path) -> Files {
    let mut files = Files::new();
    for (place, directories) in PLACES {
        let Ok(entries) = fs::read_dir(path.join(place)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let name = name.strip_suffix(".zst").unwrap();
            let content = zstd::bulk::decompress(&fs::read(entry.path()).unwrap(), 16 << 20).unwrap();
            for directory in directories {
                files.insert(((*directory).to_owned(), name.to_owned()), content.clone());
            }
        }
    }
    files
}

/// Puts the files in place of a node that was never started.
fn put_files(world: &World, files: Files) {
    world.run(async move |runtime| {
        for ((directory, name), content) in files {
            let drive = runtime.drive(Path::new(&directory), true).await.unwrap();
            let how = Open {
                create_new: true,
                durable: true,
                ..Open::default()
            };
            let file = drive.open(&name, how).await.unwrap();
            file.allocate(content.len() as u64).await.unwrap();
            if !content.is_empty() {
                let content = Rc::new(AlignedBuffer::from_slice(&content));
                file.write_at(0, content).await.unwrap();
            }
            drive.sync().await.unwrap();
        }
    });
    world.sim.kill(NODE);
    world.sim.restart(NODE);
}

#[test]
fn a_node_of_every_format_version_opens_and_has_everything() {
    for version in 1..=VERSION {
        for sealed in [false, true] {
            let path = fixture(version, sealed);
            if version == VERSION && std::env::var_os("CAIRN_WRITE_FIXTURES").is_some() {
                let world = world(sealed);
                write_node(&world);
                save(&path, &files_of(&world));
            }
            let files = load(&path);
            let names: Vec<&str> = files.keys().map(|(_, name)| name.as_str()).collect();
            for part in ["superblock", "witness", "anchor", "log-00000000-", "segment-"] {
                assert!(names.iter().any(|name| name.contains(part)), "{part}: {names:?}");
            }
            let shows = |text: &[u8]| {
                let contents = files.values();
                contents
                    .into_iter()
                    .any(|content| content.windows(text.len()).any(|part| part == text))
            };
            assert_eq!(shows(b"the quick brown fox"), !sealed);
            let world = world(sealed);
            put_files(&world, files);
            holds_everything(&world);
            if sealed {
                let without = VolumeConfig {
                    keys: Keys::default(),
                    ..world.volume_config()
                };
                let before = files_of(&world);
                assert!(world.try_open_on(without).is_err());
                assert!(files_of(&world) == before, "a refused start touches nothing");
            }
        }
    }
}

fn holds_everything(world: &World) {
    // Looked at, as it was written; then served, and looked at again.
    for _ in 0..2 {
        let volume = world.volume_config();
        let report = world.run(async move |runtime| {
            let options = CheckOptions { items: false };
            check::check(runtime, &volume, options, &mut |_| {}).await
        });
        // Another process than the one that serves then.
        world.sim.kill(NODE);
        world.sim.restart(NODE);
        let report = report.unwrap();
        assert!(
            report.damage().is_empty() && report.lost().is_empty(),
            "{report:?}"
        );
        assert_eq!(
            (report.partitions, report.items),
            (2, expected(0).len() as u64 + expected(1).len() as u64)
        );
        let running = world.open();
        assert!(running.engine.recovery().lost.is_empty());
        world.with(&running, async |engine| {
            for (at, id) in [P1, P2].into_iter().enumerate() {
                for direction in [Direction::Forward, Direction::Backward] {
                    let mut expected = expected(at);
                    if direction == Direction::Backward {
                        expected.reverse();
                    }
                    let stored = scan_all(&engine, id, direction).await;
                    let stored = stored.into_iter().map(|(key, bytes)| {
                        let item = ItemView::validate(&bytes).unwrap().to_item();
                        (key, item)
                    });
                    assert!(stored.eq(expected));
                }
                let info = engine.partition(id).unwrap();
                assert_eq!((info.fenced, info.item_count), (None, expected(at).len() as u64));
                let stored = get(&engine, id, &key(8)).await.unwrap();
                assert_eq!(
                    ItemView::validate(&stored).unwrap().to_item(),
                    item_of(8, TURNS - 1)
                );
                assert!(get(&engine, id, &key(3)).await.is_none());
            }
        });
        world.close(running);
    }
}

/// Gives the piece at `range` another format version, under a checksum that is right.
fn other_version(content: &mut [u8], sum_at: usize, seed: u64, version_at: usize) {
    content[version_at..version_at + 2].copy_from_slice(&9u16.to_le_bytes());
    let sum = checksum(seed, &content[sum_at + 8..]);
    content[sum_at..sum_at + 8].copy_from_slice(&sum.to_le_bytes());
}

/// What a start says of the present version's node when the files chosen by `wants` have another version.
fn refusal(wants: fn(&str) -> bool, change: fn(&str, &mut [u8])) -> String {
    let world = world(false);
    let mut files = load(&fixture(VERSION, false));
    let mut changed = 0;
    for ((_, name), content) in &mut files {
        if wants(name) {
            change(name, content);
            changed += 1;
        }
    }
    assert!(changed >= 2, "on both drives");
    put_files(&world, files);
    let before = files_of(&world);
    match world.try_open() {
        Ok(running) => {
            let partitions = running.engine.partitions();
            let fenced = partitions.into_iter().filter_map(|info| info.fenced);
            fenced.map(|why| why.to_string()).collect()
        }
        Err(why) => {
            let others = |files: &Files| -> Vec<Vec<u8>> {
                // A start that ends here may have written a new epoch.
                let epoch = |name: &str| name == "superblock" || name == "witness";
                let others = files.iter().filter(|((_, name), _)| !epoch(name));
                others.map(|(_, content)| content.clone()).collect()
            };
            assert!(
                others(&files_of(&world)) == others(&before),
                "{why}: it has touched something"
            );
            why
        }
    }
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    let said = refusal(
        |name| name == "superblock",
        |_, content| {
            let magic: [u8; 8] = content[..8].try_into().unwrap();
            for copy in 0..4 {
                let offset = copy << 16;
                let place = Place {
                    file: u64::from_le_bytes(magic),
                    incarnation: 0,
                    offset: offset as u64,
                };
                other_version(&mut content[offset..offset + BLOCK_BYTES], 8, place.seed(), 16);
            }
        },
    );
    assert!(said.contains("superblock format 9"), "{said}");

    let said = refusal(
        |name| name.ends_with(".anchor"),
        |_, content| {
            for copy in 0..4 {
                let offset = copy << 14;
                let place = Place {
                    file: 0,
                    incarnation: u64::from_le_bytes(*b"CAIRNANC"),
                    offset: offset as u64,
                };
                let copy = &mut content[offset..offset + 2 * BLOCK_BYTES];
                // Of the two versions that it holds, one may never have been written.
                if copy[..8] == *b"CAIRNANC" {
                    other_version(copy, 8, place.seed(), 16);
                }
            }
        },
    );
    assert!(said.contains("log-00000000.anchor (format 9)"), "{said}");

    let said = refusal(
        |name| name.starts_with("log-00000000-"),
        |name, content| {
            let slot = u64::from_str_radix(name.strip_prefix("log-00000000-").unwrap(), 16).unwrap();
            let place = Place {
                file: slot,
                incarnation: 0,
                offset: 0,
            };
            other_version(&mut content[..BLOCK_BYTES], 8, place.seed(), 16);
        },
    );
    assert!(
        said.contains("log-00000000-") && said.contains("(format 9)"),
        "{said}"
    );

    let said = refusal(
        |name| name.starts_with("log-00000000-"),
        |name, content| {
            let slot = u32::from_str_radix(name.strip_prefix("log-00000000-").unwrap(), 16).unwrap();
            let header = FileEntry::decode_header(&content[..BLOCK_BYTES], None, LogId(0), slot);
            // One that was made ready and never written to has batches of no use of it.
            let Some(file) = header else { return };
            for offset in (BLOCK_BYTES..content.len()).step_by(BLOCK_BYTES) {
                let place = Place {
                    file: checksum(file.number, &file.salt),
                    incarnation: file.incarnation,
                    offset: offset as u64,
                };
                let header = &mut content[offset..offset + BATCH_HEADER_BYTES];
                if header[..8] == *b"CAIRNBAT" {
                    other_version(header, 8, place.seed(), 24);
                }
            }
        },
    );
    assert!(
        said.contains("a batch at byte") && said.contains("(format 9)"),
        "{said}"
    );

    let said = refusal(
        |name| name.starts_with("segment-"),
        |_, content| {
            let id = u64::from_le_bytes(content[24..32].try_into().unwrap());
            other_version(&mut content[..BLOCK_BYTES], 0, id, 16);
        },
    );
    assert!(
        said.contains("the segment has a version that this program does not know"),
        "{said}"
    );
}
