//! When all writes have ended that began before a moment.
//!
//! A write is decided by the definition of its table that its shard has at that moment, but one that began earlier may be decided,
//! or wait for room in the log, much later. Who needs all writes to know of a change waits for those that began before it.
//!
//! Writes are counted in one of two counters. To wait, (1) wait until the counter that is not in use is 0, (2) change over to it, (3)
//! wait until the other one is 0. A writer pays for two additions.

use std::cell::Cell;
use std::time::Duration;

use cairn_runtime::Runtime;

/// How often to look.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The writes of a shard that are in progress.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    in_use: Cell<usize>,
    counts: [Cell<usize>; 2],
}

/// A write in progress.
pub(crate) struct InProgress<'a>(&'a Cell<usize>);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Writes {
    /// A write begins; it ends when what this returns is dropped.
    pub(crate) fn begin(&self) -> InProgress<'_> {
        let count = &self.counts[self.in_use.get()];
        count.set(count.get() + 1);
        InProgress(count)
    }

    /// Resolves when every write has ended that is in progress now.
    pub(crate) async fn passed<R: Runtime>(&self, runtime: &R) {
        // Whoever else waits may have changed over meanwhile: then everything older is in the counter that is awaited here.
        loop {
            let old = self.in_use.get();
            let new = 1 - old;
            if self.counts[new].get() > 0 {
                runtime.sleep(LOOK_AGAIN).await;
                continue;
            }
            self.in_use.set(new);
            while self.counts[old].get() > 0 && self.in_use.get() == new {
                runtime.sleep(LOOK_AGAIN).await;
            }
            return;
        }
    }
}
