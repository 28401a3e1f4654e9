//! Plain counters and gauges of one engine, for metrics and tests.

/// A reading of an engine's counters and gauges. Counters count since [`crate::Engine::open`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Mutations applied.
    pub mutations: u64,
    /// Updates that changed nothing (failed conditions, deletes of nothing).
    pub unchanged: u64,
    /// Point reads.
    pub gets: u64,
    /// Point reads answered without a drive read.
    pub gets_cached: u64,
    /// Partitions on this engine.
    pub partitions: u64,
    /// Partitions fenced.
    pub partitions_fenced: u64,
    /// Bytes in memtables, active and being flushed.
    pub memtable_bytes: u64,
}
