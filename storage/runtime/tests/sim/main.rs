//! The simulator: that it keeps the seam's contract, that its faults really happen, that it catches misuse, and
//! that one seed is one run.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod conformance;
mod crash;
mod determinism;
mod faults;
mod misuse;
mod network;
mod tasks;

use std::io;
use std::path::Path;
use std::rc::Rc;

use cairn_runtime::sim::{Config, Handle, NodeIndex, SimDrive, SimRuntime, Simulation};
use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Runtime, ShardIndex};

const NODE: NodeIndex = NodeIndex(0);
const SHARD: ShardIndex = ShardIndex(0);
const CREATE: Open = Open {
    create_new: true,
    durable: false,
    read_only: false,
};
const CREATE_DURABLE: Open = Open {
    create_new: true,
    durable: true,
    read_only: false,
};
const EXISTING: Open = Open {
    create_new: false,
    durable: false,
    read_only: false,
};

fn simulation(seed: u64) -> Simulation {
    Simulation::new(
        seed,
        Config {
            trace_tail: 20,
            ..Config::default()
        },
    )
}

async fn open_drive(runtime: &SimRuntime) -> SimDrive {
    runtime.drive(Path::new("/drive"), true).await.unwrap()
}

/// Runs `task` with the drive of the first node.
fn on_drive<T: 'static>(sim: &Handle, task: impl AsyncFnOnce(SimRuntime, SimDrive) -> T + 'static) -> T {
    sim.block_on(NODE, SHARD, async move |runtime| {
        let drive = open_drive(&runtime).await;
        task(runtime, drive).await
    })
}

fn blocks(count: usize, byte: u8) -> Rc<AlignedBuffer> {
    Rc::new(AlignedBuffer::from_slice(&vec![byte; count * BLOCK_BYTES]))
}

/// A file of `count` blocks of `byte`, durable with its name.
async fn durable_file(drive: &SimDrive, name: &str, count: usize, byte: u8) -> io::Result<()> {
    let file = drive.open(name, CREATE_DURABLE).await?;
    file.write_at(0, blocks(count, byte)).await?;
    drive.sync().await
}
