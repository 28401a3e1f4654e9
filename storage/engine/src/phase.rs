//! What the engine is at, so that a simulation can tell when it was cut off: at which awaits of which work.
//!
//! Kept per thread, as a simulation runs on one; in a release build nothing is noted.

use std::cell::Cell;

/// Work that a crash may cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A memtable becomes a segment.
    Flush,
    /// Segments are merged.
    Compaction,
    /// Edits of the manifest become durable, or it is restated.
    ManifestChange,
    /// Segments are copied to another drive, or a drive is taken in.
    Rebuild,
    /// A segment is rewritten under another table key.
    TableKey,
    /// The node key is wrapped with another root key.
    RootKey,
    /// The in-sync set changes.
    Epoch,
    /// The next file of the log is made ready.
    LogFile,
    /// The engine is copied while it serves.
    Backup,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 9] = {
        use Phase::*;
        [
            Flush,
            Compaction,
            ManifestChange,
            Rebuild,
            TableKey,
            RootKey,
            Epoch,
            LogFile,
            Backup,
        ]
    };
}

thread_local! {
    static RUNNING: [Cell<u32>; Phase::ALL.len()] = const { [const { Cell::new(0) }; Phase::ALL.len()] };
}

/// Says that the work goes on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Running(Phase);

/// The work begins.
#[inline(always)]
pub(crate) fn enter(phase: Phase) -> Running {
    if cfg!(debug_assertions) {
        RUNNING.with(|running| running[phase as usize].set(running[phase as usize].get() + 1));
    }
    Running(phase)
}

impl Drop for Running {
    #[inline(always)]
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            RUNNING.with(|running| running[self.0 as usize].set(running[self.0 as usize].get() - 1));
        }
    }
}

/// What is under way on this thread.
pub fn running() -> impl Iterator<Item = Phase> {
    Phase::ALL
        .into_iter()
        .filter(|phase| RUNNING.with(|running| running[*phase as usize].get() > 0))
}
