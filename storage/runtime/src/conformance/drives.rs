//! Drives and files.

use std::cell::Cell;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;

use super::tasks::{poll_once, until};
use crate::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Queue, Runtime};

const BLOCK: u64 = BLOCK_BYTES as u64;
const NEW: Open = Open {
    create_new: true,
    durable: false,
    read_only: false,
};
const NEW_DURABLE: Open = Open {
    create_new: true,
    durable: true,
    read_only: false,
};
const EXISTING: Open = Open {
    create_new: false,
    durable: false,
    read_only: false,
};
const READ_ONLY: Open = Open {
    create_new: false,
    durable: false,
    read_only: true,
};

/// A buffer whose every word tells its place and `seed`.
fn pattern(seed: u64, bytes: usize) -> Rc<AlignedBuffer> {
    let mut buffer = AlignedBuffer::zeroed(bytes);
    for (word, place) in buffer.chunks_exact_mut(8).zip(1u64..) {
        word.copy_from_slice(&(place ^ (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
    }
    Rc::new(buffer)
}

async fn names(drive: &impl Drive) -> Vec<String> {
    drive
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}

pub(super) async fn a_missing_directory_is_not_found<R: Runtime>(runtime: R, directory: PathBuf) {
    let error = runtime
        .drive(&directory, false)
        .await
        .err()
        .expect("nothing is there");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

pub(super) async fn a_directory_is_created_with_its_parents<R: Runtime>(runtime: R, directory: PathBuf) {
    let path = directory.join("some").join("where");
    let drive = runtime.drive(&path, true).await.unwrap();
    assert_eq!(drive.path(), path);
    assert_eq!(drive.list().await.unwrap(), []);
    runtime.drive(&path, true).await.unwrap();
    runtime.drive(&path, false).await.unwrap();
}

pub(super) async fn blocks_come_back_as_written<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    for (name, how) in [("plain", NEW), ("durable", NEW_DURABLE)] {
        let file = drive.open(name, how).await.unwrap();
        assert_eq!(file.bytes().unwrap(), 0);
        for (seed, place) in [(1, 0), (2, 2), (3, 1), (4, 0)] {
            file.write_at(place * BLOCK, pattern(seed, BLOCK_BYTES))
                .await
                .unwrap();
        }
        file.sync().await.unwrap();
        drive.sync().await.unwrap();
        assert_eq!(file.bytes().unwrap(), 3 * BLOCK);
        let again = drive.open(name, READ_ONLY).await.unwrap();
        for (seed, place) in [(4, 0), (3, 1), (2, 2)] {
            let read = again.read_at(place * BLOCK, BLOCK_BYTES).await.unwrap();
            assert!(
                read[..] == pattern(seed, BLOCK_BYTES)[..],
                "block {place} of {name}"
            );
        }
        let all = again.read_at(0, 3 * BLOCK_BYTES).await.unwrap();
        assert!(all[BLOCK_BYTES..2 * BLOCK_BYTES] == pattern(3, BLOCK_BYTES)[..]);
    }
}

pub(super) async fn large_transfers_are_whole<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let file = drive.open("large", NEW).await.unwrap();
    let content = pattern(9, 8 << 20);
    file.write_at(BLOCK, Rc::clone(&content)).await.unwrap();
    let read = file.read_at(BLOCK, content.len()).await.unwrap();
    assert!(read[..] == content[..]);
    let hole = file.read_at(0, BLOCK_BYTES).await.unwrap();
    assert!(
        hole.iter().all(|&byte| byte == 0),
        "what was never written is zero"
    );
}

pub(super) async fn reading_past_the_end_is_an_error<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let file = drive.open("short", NEW).await.unwrap();
    file.write_at(0, pattern(1, 2 * BLOCK_BYTES)).await.unwrap();
    for (offset, bytes) in [(0, 3), (1, 2), (2, 1), (100, 1)] {
        let error = file
            .read_at(offset * BLOCK, bytes * BLOCK_BYTES)
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::UnexpectedEof,
            "{bytes} blocks at block {offset}"
        );
        assert!(error.to_string().contains("short"), "{error} names the file");
    }
}

pub(super) async fn unaligned_transfers_are_refused<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let file = drive.open("aligned", NEW).await.unwrap();
    file.write_at(0, pattern(1, 2 * BLOCK_BYTES)).await.unwrap();
    for (offset, bytes) in [
        (1, BLOCK_BYTES),
        (512, BLOCK_BYTES),
        (0, 512),
        (0, BLOCK_BYTES + 1),
        (0, 0),
    ] {
        let error = file.read_at(offset, bytes).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bytes} bytes at {offset}");
    }
    let error = file.write_at(512, pattern(1, BLOCK_BYTES)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

pub(super) async fn creating_twice_is_refused<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let missing = drive
        .open("file", EXISTING)
        .await
        .err()
        .expect("it is not there yet");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("file"), "{missing} names the file");
    drive.open("file", NEW).await.unwrap();
    let second = drive.open("file", NEW).await.err().expect("it is there");
    assert_eq!(second.kind(), ErrorKind::AlreadyExists);
    drive.open("file", EXISTING).await.unwrap();
}

pub(super) async fn a_read_only_file_refuses_writes<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    drive.open("file", NEW).await.unwrap();
    let file = drive.open("file", READ_ONLY).await.unwrap();
    file.write_at(0, pattern(1, BLOCK_BYTES)).await.unwrap_err();
    file.allocate(BLOCK).await.unwrap_err();
    assert_eq!(file.bytes().unwrap(), 0);
}

pub(super) async fn names_are_checked<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    for name in ["", ".", "..", "a/b", "/etc/passwd"] {
        let error = drive.open(name, NEW).await.err().expect("not a name");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    assert_eq!(names(&drive).await, [""; 0]);
}

pub(super) async fn listing_sees_renames_links_and_removals<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    for (name, blocks) in [("c", 1), ("a", 2), ("b", 3)] {
        let file = drive.open(name, NEW).await.unwrap();
        file.write_at(0, pattern(blocks, blocks as usize * BLOCK_BYTES))
            .await
            .unwrap();
    }
    let entries = drive.list().await.unwrap();
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.bytes / BLOCK)
            .collect::<Vec<_>>(),
        [2, 3, 1]
    );
    assert_eq!(names(&drive).await, ["a", "b", "c"]);
    drive.rename("a", "d").await.unwrap();
    drive.rename("b", "c").await.unwrap();
    drive.link("d", &drive, "e").await.unwrap();
    drive.sync().await.unwrap();
    assert_eq!(names(&drive).await, ["c", "d", "e"]);
    let replaced = drive.open("c", READ_ONLY).await.unwrap();
    assert_eq!(
        replaced.bytes().unwrap(),
        3 * BLOCK,
        "a rename replaces its target"
    );
    let linked = drive.open("e", EXISTING).await.unwrap();
    linked.write_at(0, pattern(7, BLOCK_BYTES)).await.unwrap();
    let original = drive.open("d", READ_ONLY).await.unwrap();
    let read = original.read_at(0, BLOCK_BYTES).await.unwrap();
    assert!(
        read[..] == pattern(7, BLOCK_BYTES)[..],
        "links share their content"
    );
    drive.remove("d").await.unwrap();
    assert_eq!(names(&drive).await, ["c", "e"]);
    for error in [
        drive.remove("d").await.unwrap_err(),
        drive.rename("d", "f").await.unwrap_err(),
        drive.link("d", &drive, "f").await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(
        drive.link("c", &drive, "e").await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let other = runtime.drive(&directory.join("other"), true).await.unwrap();
    match drive.link("c", &other, "g").await {
        Ok(()) => assert_eq!(names(&other).await, ["g"]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::CrossesDevices),
    }
    assert_eq!(names(&drive).await, ["c", "e"], "directories are not listed");
}

pub(super) async fn a_removed_file_can_still_be_read<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let file = drive.open("file", NEW).await.unwrap();
    file.write_at(0, pattern(1, BLOCK_BYTES)).await.unwrap();
    drive.remove("file").await.unwrap();
    let read = file.read_at(0, BLOCK_BYTES).await.unwrap();
    assert!(read[..] == pattern(1, BLOCK_BYTES)[..]);
}

pub(super) async fn allocation_extends_with_zeros<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let file = drive.open("file", NEW_DURABLE).await.unwrap();
    file.write_at(0, pattern(1, BLOCK_BYTES)).await.unwrap();
    file.allocate(16 * BLOCK).await.unwrap();
    assert_eq!(file.bytes().unwrap(), 16 * BLOCK);
    let read = file.read_at(0, 16 * BLOCK_BYTES).await.unwrap();
    assert!(
        read[..BLOCK_BYTES] == pattern(1, BLOCK_BYTES)[..],
        "what was there stays"
    );
    assert!(read[BLOCK_BYTES..].iter().all(|&byte| byte == 0));
    file.allocate(4 * BLOCK).await.unwrap();
    assert_eq!(file.bytes().unwrap(), 16 * BLOCK, "allocating never shortens");
}

pub(super) async fn many_operations_at_once<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let file = drive.open("file", NEW).await.unwrap();
    file.allocate(256 * BLOCK).await.unwrap();
    let ended = Rc::new(Cell::new(0));
    for place in 0..256 {
        let (file, ended) = (file.clone(), Rc::clone(&ended));
        runtime.spawn(Queue::Foreground, async move {
            file.write_at(place * BLOCK, pattern(place, BLOCK_BYTES))
                .await
                .unwrap();
            let read = file.read_at(place * BLOCK, BLOCK_BYTES).await.unwrap();
            assert!(read[..] == pattern(place, BLOCK_BYTES)[..], "block {place}");
            ended.set(ended.get() + 1);
        });
    }
    until(&runtime, || ended.get() == 256).await;
}

pub(super) async fn dropped_operations_do_no_harm<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let file = drive.open("file", NEW).await.unwrap();
    file.write_at(0, pattern(0, 64 * BLOCK_BYTES)).await.unwrap();
    for round in 1..=32u64 {
        // The buffer of a dropped write is the implementation's until it has ended.
        let _ = poll_once(file.write_at(round * BLOCK, pattern(round, BLOCK_BYTES))).await;
        let _ = poll_once(file.read_at(0, 8 * BLOCK_BYTES)).await;
        let _ = poll_once(drive.open(&format!("dropped{round}"), NEW)).await;
        let _ = poll_once(file.sync()).await;
    }
    // Barrier: everything above has ended before a write to another block and a sync have.
    runtime.sleep(std::time::Duration::from_millis(50)).await;
    file.sync().await.unwrap();
    let read = file.read_at(0, 64 * BLOCK_BYTES).await.unwrap();
    for place in 1..=32u64 {
        let at = place as usize * BLOCK_BYTES;
        let found = &read[at..at + BLOCK_BYTES];
        let before = &pattern(0, 64 * BLOCK_BYTES)[at..at + BLOCK_BYTES];
        assert!(
            *found == pattern(place, BLOCK_BYTES)[..] || *found == *before,
            "block {place} is the dropped write's or what was there"
        );
    }
    for name in names(&drive).await {
        drive.remove(&name).await.unwrap();
    }
    assert_eq!(names(&drive).await, [""; 0]);
}

pub(super) async fn one_buffer_goes_to_many_files<R: Runtime>(runtime: R, directory: PathBuf) {
    let content = pattern(5, 4 * BLOCK_BYTES);
    let ended = Rc::new(Cell::new(0));
    for mirror in ["left", "middle", "right"] {
        let drive = runtime.drive(&directory.join(mirror), true).await.unwrap();
        let file = drive.open("mirror", NEW_DURABLE).await.unwrap();
        let (content, ended) = (Rc::clone(&content), Rc::clone(&ended));
        runtime.spawn(Queue::Foreground, async move {
            file.write_at(0, Rc::clone(&content)).await.unwrap();
            let read = file.read_at(0, content.len()).await.unwrap();
            assert!(read[..] == content[..]);
            ended.set(ended.get() + 1);
        });
    }
    until(&runtime, || ended.get() == 3).await;
}

pub(super) async fn a_lock_excludes_others<R: Runtime>(runtime: R, directory: PathBuf) {
    let first = runtime.drive(&directory, true).await.unwrap();
    let second = runtime.drive(&directory, false).await.unwrap();
    first.lock().unwrap();
    assert_eq!(second.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(
        names(&first).await,
        [""; 0],
        "the lock is not a file of the drive"
    );
}

pub(super) async fn an_abandoned_directory_is_as_it_was<R: Runtime>(runtime: R, directory: PathBuf) {
    let made = runtime.drive(&directory, true).await.unwrap();
    made.lock().unwrap();
    made.abandon();
    let error = runtime
        .drive(&directory, false)
        .await
        .err()
        .expect("it was made for the lock");
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let owner = runtime.drive(&directory, true).await.unwrap();
    let file = owner.open("kept", NEW).await.unwrap();
    drop(file);
    let guest = runtime.drive(&directory, true).await.unwrap();
    guest.lock().unwrap();
    guest.abandon();
    assert_eq!(names(&owner).await, ["kept"]);
    owner.lock().expect("the lock was given back");
    // What another handle holds is not given back.
    let guest = runtime.drive(&directory, true).await.unwrap();
    assert_eq!(guest.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    guest.abandon();
    let guest = runtime.drive(&directory, true).await.unwrap();
    assert_eq!(guest.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    // A directory with something in it stays.
    owner.abandon();
    let again = runtime.drive(&directory, false).await.unwrap();
    assert_eq!(names(&again).await, ["kept"]);
}

pub(super) async fn what_is_no_file_is_told_apart<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    drop(drive.open("file", NEW).await.unwrap());
    drive.lock().unwrap();
    assert_eq!(drive.strangers().await.unwrap(), [""; 0]);
    for inside in ["two/deep", "one"] {
        runtime.drive(&directory.join(inside), true).await.unwrap();
    }
    assert_eq!(drive.strangers().await.unwrap(), ["one", "two"]);
    assert_eq!(names(&drive).await, ["file"]);
}

pub(super) async fn paths_of_one_directory_lead_to_the_same<R: Runtime>(runtime: R, directory: PathBuf) {
    for there in [false, true] {
        let whole = runtime.resolve(&directory.join("drive"));
        assert!(whole.is_absolute() && whole.ends_with("drive"));
        for spelled in [
            "./drive",
            "other/../drive",
            "drive/.",
            "drive/",
            "drive/a/b/../..",
        ] {
            let spelled = directory.join(spelled);
            assert_eq!(
                runtime.resolve(&spelled),
                whole,
                "{}, there: {there}",
                spelled.display()
            );
        }
        for other in ["drive/a", "drive-2", "drive/..", ""] {
            assert_ne!(runtime.resolve(&directory.join(other)), whole, "{other:?}");
        }
        for inside in ["drive/a/b", "other"] {
            runtime.drive(&directory.join(inside), true).await.unwrap();
        }
    }
}

pub(super) async fn space_and_device_are_told<R: Runtime>(runtime: R, directory: PathBuf) {
    let drive = runtime.drive(&directory, true).await.unwrap();
    let same = runtime.drive(&directory, false).await.unwrap();
    assert_eq!(drive.device(), same.device());
    let space = drive.space().unwrap();
    assert!(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
}
