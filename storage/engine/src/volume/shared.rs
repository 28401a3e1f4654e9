//! What all shards of a node see of the in-sync set: one atomic word.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{DriveIndex, DriveSet, InSync};
use crate::ids::{Epoch, NodeId};

const CHANGING: u64 = 1 << 63;
/// Epochs are stored in 31 bits of the word.
pub(super) const EPOCH_MAX: u64 = (1 << 31) - 1;

/// Shared by all shards.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) mirrors: usize,
    /// Directories by place; none for a drive that is not there.
    pub(super) paths: Vec<Option<PathBuf>>,
    /// Bit 63: a change is being written; then 31 bits of epoch, 32 of set.
    word: AtomicU64,
}

impl Shared {
    pub(super) fn new(node: NodeId, mirrors: usize, paths: Vec<Option<PathBuf>>) -> Shared {
        Shared {
            node,
            mirrors,
            paths,
            word: AtomicU64::new(CHANGING),
        }
    }

    pub(super) fn begin_change(&self) {
        self.word.fetch_or(CHANGING, Ordering::SeqCst);
    }

    pub(super) fn publish(&self, in_sync: InSync) {
        assert!(in_sync.epoch.0 <= EPOCH_MAX, "two thousand million epoch changes");
        self.word.store(
            in_sync.epoch.0 << 32 | u64::from(in_sync.set.bits()),
            Ordering::SeqCst,
        );
    }

    /// The in-sync set and whether a change is being written.
    pub(super) fn load(&self) -> (InSync, bool) {
        let word = self.word.load(Ordering::SeqCst);
        let bits = u32::try_from(word & u64::from(u32::MAX)).expect("masked to 32 bits");
        let epoch = Epoch((word & !CHANGING) >> 32);
        (
            InSync {
                epoch,
                set: DriveSet::from_bits(bits),
            },
            word & CHANGING != 0,
        )
    }

    pub(super) fn path(&self, drive: DriveIndex) -> Option<&Path> {
        self.paths.get(drive.get()).and_then(|path| path.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_holds_epoch_set_and_mark() {
        let shared = Shared::new(NodeId(1), 2, Vec::new());
        assert!(
            shared.load().1,
            "nothing is acknowledged before the first publication"
        );
        let in_sync = InSync {
            epoch: Epoch(EPOCH_MAX),
            set: DriveSet::from_bits(u32::MAX),
        };
        shared.publish(in_sync);
        assert_eq!(shared.load(), (in_sync, false));
        shared.begin_change();
        assert_eq!(shared.load(), (in_sync, true));
    }
}
