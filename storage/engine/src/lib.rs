//! The durable engine: a mirrored log, one LSM tree per partition, and their recovery.
//!
//! Read in this order:
//! - [`ids`] and [`checksum`]: the vocabulary and the sums that every persisted structure carries; [`latency`]: how long
//!   drives take;
//! - [`sealing`]: encryption at rest and its keys;
//! - [`volume`]: the node's drives, their superblocks and the in-sync epoch;
//! - [`log`]: the mirrored group-commit log;
//! - [`mutation`], [`group`] and [`manifest`]: what the log's records say;
//! - [`tree`]: memtable, segments, cache, merge, compaction;
//! - [`engine`]: the write path, reads, background work and recovery, made of the above;
//! - [`check`] and [`dump`]: what an operator holds against the files of a stopped node; [`rebuild`]: how a drive
//!   of a stopped node becomes a mirror again.
//!
//! What never happens here: the engine names no clock, no thread, no socket and no file system; it never
//! looks into an item's bytes (only `check` and `dump` do); and it never answers before the log position the
//! answer was computed against is durable and applied.

pub mod ids;

#[doc(hidden)]
pub mod canary;
pub mod check;
pub mod checksum;
pub mod config;
pub mod dump;
pub mod engine;
pub mod error;
pub mod group;
pub mod latency;
pub mod log;
pub mod manifest;
pub mod mutation;
#[doc(hidden)]
pub mod phase;
pub mod rebuild;
pub mod record;
pub mod sealing;
pub mod stats;
pub mod tree;
pub mod volume;

pub use config::EngineConfig;
pub use engine::backup::{BackupError, Copied, Cut, Hold};
pub use engine::{
    Change, Decision, Derived, Direction, Engine, IndexUsage, PartitionDescriptor, PartitionInfo, Range,
    Scan, Snapshot, Stored, StoredRef, Updated,
};
pub use error::{EngineError, ErrorKind};
pub use group::Counter;
pub use stats::EngineStats;
pub use tree::Compression;
