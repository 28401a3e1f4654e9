//! Other keys for the tables, while the node serves.
//!
//! 1. Asked to, an engine gives every table of its partitions another key; segments are written with it from then on. What
//!    has no segment needs none: its first one gets a key of its own.
//! 2. Compaction, when nothing else is due, rewrites every segment that has an older key, one by one and in its level.
//!
//! The new key is durable with the first segment that it seals, as any. Before that, a crash leaves the old one, and the request is
//! forgotten; after it, the start finds both, takes the newer one for new segments, and goes on with step 2.

use std::cell::Cell;
use std::collections::BTreeSet;

use cairn_runtime::Runtime;

use super::Inner;
use crate::ids::TableId;
use crate::volume::RekeyReport;

/// The last request that was taken up.
#[derive(Default)]
pub(super) struct Rekey {
    asked: Cell<u64>,
}

impl<R: Runtime> Inner<R> {
    /// Takes up a request for other keys, if there is a new one.
    pub(super) fn heed_rekey(&self) {
        let asked = self.volume.handle().rekey_requested();
        if asked <= self.rekey.asked.get() {
            return;
        }
        self.rekey.asked.set(asked);
        let partitions = self.partitions.borrow();
        let tables: BTreeSet<TableId> = partitions
            .values()
            .map(|partition| partition.descriptor.table)
            .collect();
        let keys = &self.trees.store().keys;
        for table in tables {
            keys.rotate(&self.runtime, table);
        }
        self.compactable.notify_one();
    }

    pub(super) fn rekey_report(&self) -> RekeyReport {
        let partitions = self.partitions.borrow();
        RekeyReport {
            answered: self.rekey.asked.get(),
            old_bytes: partitions
                .values()
                .map(|partition| partition.tree.old_key_bytes())
                .sum(),
        }
    }

    /// Tells the keeper how far it is, when somebody may be waiting for that.
    pub(super) async fn tell_rekey(&self) {
        if self.rekey.asked.get() > 0 {
            self.tell_keeper().await;
        }
    }
}
