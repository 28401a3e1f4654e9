//! The simulator refuses, by name, what the real world would let corrupt data in silence.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cairn_runtime::sync;
use cairn_runtime::{Connection, Listener, Queue};

use super::*;

/// The message with which `task` panics.
fn panic_of(task: impl AsyncFnOnce(SimRuntime, SimDrive) + 'static) -> String {
    let sim = simulation(1);
    let outcome = catch_unwind(AssertUnwindSafe(|| on_drive(&sim, task)));
    let panic = outcome.expect_err("the misuse went unseen");
    panic
        .downcast_ref::<String>()
        .expect("panics carry a message")
        .clone()
}

fn check(expected: &str, task: impl AsyncFnOnce(SimRuntime, SimDrive) + 'static) {
    let message = panic_of(task);
    assert!(message.contains(expected), "{message}");
    assert!(message.contains("seed 1"), "{message}");
}

#[test]
fn two_writes_in_flight_to_one_block() {
    check(
        "blocks 1..3 of file on /drive while a write to 0..2 is in flight",
        async |runtime, drive| {
            let file = drive.open("file", CREATE).await.unwrap();
            let other = drive.open("file", EXISTING).await.unwrap();
            let first = sync::spawn(&runtime, Queue::Foreground, file.write_at(0, blocks(2, 1)));
            let second = sync::spawn(&runtime, Queue::Foreground, other.write_at(4096, blocks(2, 1)));
            let _ = (first.await, second.await);
        },
    );
}

#[test]
fn a_write_after_one_whose_future_was_dropped() {
    check("is in flight", async |runtime, drive| {
        let file = drive.open("file", CREATE).await.unwrap();
        let nothing = std::time::Duration::ZERO;
        let _ = sync::timeout(&runtime, nothing, file.write_at(0, blocks(1, 1))).await;
        let _ = file.write_at(0, blocks(1, 2)).await;
    });
}

#[test]
fn neighbours_may_be_written_at_once_and_one_block_in_turn() {
    on_drive(&simulation(1), async |runtime, drive| {
        let file = drive.open("file", CREATE).await.unwrap();
        let first = sync::spawn(&runtime, Queue::Foreground, file.write_at(0, blocks(1, 1)));
        file.write_at(4096, blocks(1, 2)).await.unwrap();
        first.await.unwrap().unwrap();
        file.write_at(0, blocks(1, 3)).await.unwrap();
    });
}

#[test]
fn misaligned_access() {
    check("write of 4096 bytes at 512 of file", async |_, drive| {
        let file = drive.open("file", CREATE).await.unwrap();
        let _ = file.write_at(512, blocks(1, 1)).await;
    });
    check("read of 100 bytes at 0 of file", async |_, drive| {
        let file = drive.open("file", CREATE).await.unwrap();
        let _ = file.read_at(0, 100).await;
    });
    check("read of 0 bytes", async |_, drive| {
        let file = drive.open("file", CREATE).await.unwrap();
        let _ = file.read_at(0, 0).await;
    });
}

#[test]
fn names_that_leave_the_drive() {
    check("\"../file\" is no file name", async |_, drive| {
        let _ = drive.open("../file", CREATE).await;
    });
    check("\"a/b\" is no file name", async |_, drive| {
        let _ = drive.rename("file", "a/b").await;
    });
}

#[test]
fn two_receives_on_one_connection() {
    check("two receives in flight", async |runtime, _| {
        let listener = runtime.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = runtime.connect(listener.address()).await.unwrap();
        let _peer = listener.accept().await.unwrap();
        let other = connection.clone();
        runtime.spawn(Queue::Foreground, async move {
            let _ = other.receive(&mut Vec::new()).await;
        });
        runtime.yield_now().await;
        let _ = connection.receive(&mut Vec::new()).await;
    });
}

#[test]
fn waiting_for_nothing() {
    check("deadlock: 1 tasks wait for nothing", async |_, _| {
        std::future::pending().await
    });
}
