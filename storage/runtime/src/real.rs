//! The real world: one glommio executor per shard, each with a shard ring.
//!
//! glommio gives the thread, its core and the task queues with their shares. Everything that reaches outside the
//! thread (drives, network, timers, wakes from other shards) goes through the shard's own ring, because
//! completions collected there cost two thirds of what they cost through glommio's sockets. Read in this order:
//! [`ring`], [`driver`], [`task`], [`scheduler`], [`signal`], then what stands on them: [`drive`], [`network`].
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the edge of the world: the one place that reads the machine's clocks"
)]

mod clock;
mod drive;
mod driver;
mod network;
mod ring;
mod scheduler;
mod shard;
mod signal;
mod start;
mod task;
mod timers;

pub use drive::{RealDrive, RealFile, resolve};
pub use network::{RealConnection, RealListener};
pub use ring::RingStats;
pub use shard::RealRuntime;
pub use start::{Config, Error, run};
