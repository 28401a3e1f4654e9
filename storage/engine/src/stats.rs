//! Plain counters and gauges of one engine, for metrics and tests.

use std::cell::Cell;

use crate::log::LogStats;
use crate::tree::StoreStats;

/// A reading of an engine's counters and gauges. Counters count since [`crate::Engine::open`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Mutations applied.
    pub mutations: u64,
    /// Updates that changed nothing (failed conditions, deletes of nothing).
    pub unchanged: u64,
    /// Point reads that needed a drive.
    pub gets: u64,
    /// Point reads answered without a drive read.
    pub gets_cached: u64,
    /// Writes slowed down by back-pressure.
    pub delays: u64,
    /// Writes that waited for memory or log space.
    pub stalls: u64,
    /// Memtables moved into segments.
    pub flushes: u64,
    /// Compactions.
    pub compactions: u64,
    /// Snapshots of the manifest.
    pub snapshots: u64,
    /// Failures of background work that was then tried again.
    pub background_failures: u64,
    /// Segment files without an owner, deleted at the start.
    pub orphans: u64,
    /// Segment files that an in-sync mirror lacked, copied from another at the start.
    pub restored: u64,
    /// Segment files copied to another drive while serving, so that they have as many holders as there are mirrors.
    pub remirrored: u64,
    /// Complete passes of the scrub.
    pub scrubs: u64,
    /// Bytes that it read, on all mirrors.
    pub scrubbed_bytes: u64,
    /// Places that did not verify on some mirror.
    pub scrub_damaged: u64,
    /// Places among them that no mirror had whole.
    pub scrub_lost: u64,
    /// Batches and file headers of the log that one mirror had lost or damaged, written again at the start.
    pub log_repaired: u64,
    /// Torn batches that were never acknowledged, dropped at the start.
    pub log_dropped: u64,
    /// Clock readings that were too far ahead to be followed.
    pub clock_refused: u64,
    /// Partitions on this engine.
    pub partitions: u64,
    /// Partitions fenced.
    pub partitions_fenced: u64,
    /// Items of all partitions.
    pub item_count: u64,
    /// Their DynamoDB sizes summed, in bytes.
    pub item_bytes: u64,
    /// Bytes of segments, per mirror.
    pub segment_bytes: u64,
    /// Versions in them, tombstones and what newer ones have made obsolete included: against `item_count` it says how
    /// much space is taken in vain.
    pub segment_versions: u64,
    /// Segments in the longest level 0 of a partition.
    pub level0_segments_max: u64,
    /// Bytes that compaction has to move before every tree is in shape.
    pub compaction_debt_bytes: u64,
    /// Bytes per second that compaction may merge at present.
    pub compaction_rate: u64,
    /// Snapshots that are open for readers.
    pub snapshots_open: u64,
    /// Bytes in memtables, active and being flushed.
    pub memtable_bytes: u64,
    /// Their budget.
    pub memtable_bytes_max: u64,
    /// 1 while puts are refused because a drive is nearly full.
    pub room_low: u64,
    /// The log.
    pub log: LogStats,
    /// Segments, cache and repairs.
    pub segments: StoreStats,
    /// Version of the in-sync set.
    pub in_sync_epoch: u64,
    /// Drives in the in-sync set.
    pub in_sync_drives: u64,
}

/// The engine's own counters.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) mutations: Cell<u64>,
    pub(crate) unchanged: Cell<u64>,
    pub(crate) gets: Cell<u64>,
    pub(crate) gets_cached: Cell<u64>,
    pub(crate) delays: Cell<u64>,
    pub(crate) stalls: Cell<u64>,
    pub(crate) flushes: Cell<u64>,
    pub(crate) compactions: Cell<u64>,
    pub(crate) snapshots: Cell<u64>,
    pub(crate) background_failures: Cell<u64>,
    pub(crate) orphans: Cell<u64>,
    pub(crate) restored: Cell<u64>,
    pub(crate) scrubs: Cell<u64>,
    pub(crate) remirrored: Cell<u64>,
}

impl Counts {
    /// Counts one more.
    pub(crate) fn add(&self, count: &Cell<u64>) {
        count.set(count.get() + 1);
    }
}
