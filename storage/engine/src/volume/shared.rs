//! What all shards of a node see of the in-sync set: one atomic word.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_runtime::mailbox::{MailboxSender, Refused};

use super::{DriveIndex, DriveSet, InSync};
use crate::ids::{Epoch, NodeId};
use crate::sealing::NodeKey;

const CHANGING: u64 = 1 << 63;
/// Epochs are stored in 31 bits of the word.
pub(super) const EPOCH_MAX: u64 = (1 << 31) - 1;

/// Shared by all shards.
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) mirrors: usize,
    /// Seals everything; none when the node is not encrypted.
    pub(super) key: Option<Arc<NodeKey>>,
    /// Directories by place; none for a drive that is not there.
    pub(super) paths: Vec<Option<PathBuf>>,
    /// Bit 63: a change is being written; then 31 bits of epoch, 32 of set.
    word: AtomicU64,
    /// Requests of a scrub so far.
    pub(super) scrubs: AtomicU64,
    /// Who hears of changes: an engine each.
    listeners: Mutex<Vec<MailboxSender<()>>>,
}

impl Shared {
    pub(super) fn new(
        node: NodeId,
        mirrors: usize,
        key: Option<Arc<NodeKey>>,
        paths: Vec<Option<PathBuf>>,
    ) -> Shared {
        Shared {
            node,
            mirrors,
            key,
            paths,
            word: AtomicU64::new(CHANGING),
            scrubs: AtomicU64::new(0),
            listeners: Mutex::default(),
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
        self.tell();
    }

    pub(super) fn listen(&self, listener: MailboxSender<()>) {
        let mut listeners = self.listeners.lock().expect("nobody panics with it");
        listeners.push(listener);
    }

    /// Lets all listeners look.
    pub(super) fn tell(&self) {
        let mut listeners = self.listeners.lock().expect("nobody panics with it");
        // One that has not looked since the last time will see this too.
        listeners.retain(|listener| !matches!(listener.try_send(()), Err(Refused::Closed(()))));
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
        let shared = Shared::new(NodeId(1), 2, None, Vec::new());
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
