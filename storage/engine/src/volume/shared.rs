//! What all shards of a node see of the drives: one atomic word for every write, and the rest behind a lock for what is
//! seldom asked.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_runtime::mailbox::{MailboxSender, Refused};

use super::{DriveIndex, DriveSet, InSync, Placement};
use crate::ids::{DriveId, Epoch, NodeId};
use crate::sealing::NodeKey;

const CHANGING: u64 = 1 << 63;
/// Epochs are stored in 31 bits of the word.
pub(super) const EPOCH_MAX: u64 = (1 << 31) - 1;

/// A place of the node's list as the shards know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    /// The drive that has the place; another one may get it.
    pub(super) id: DriveId,
    /// Its directory; none when it is not there.
    pub(super) path: Option<PathBuf>,
    /// Number of the last invitation to open the drive at this place; 0: since the start.
    pub(super) invitation: u64,
}

/// What changes seldom.
#[derive(Debug, Clone, Default)]
pub(super) struct Slow {
    pub(super) joining: DriveSet,
    /// Drives that an operator has emptied.
    pub(super) leaving: DriveSet,
    /// Places whose new or emptied drive every shard is to open, forgetting the one before.
    pub(super) invited: DriveSet,
    pub(super) guarantee: usize,
    pub(super) seats: Vec<Seat>,
}

/// Shared by all shards.
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) mirrors: usize,
    /// Seals everything; none when the node is not encrypted.
    pub(super) key: Option<Arc<NodeKey>>,
    /// Bit 63: a change is being written; then 31 bits of epoch, 32 of set.
    word: AtomicU64,
    slow: Mutex<Slow>,
    /// Requests of a scrub so far.
    pub(super) scrubs: AtomicU64,
    /// Requests of other keys for the tables so far.
    pub(super) rekeys: AtomicU64,
    /// Who hears of changes: an engine each.
    listeners: Mutex<Vec<MailboxSender<()>>>,
}

impl Shared {
    pub(super) fn new(node: NodeId, mirrors: usize, key: Option<Arc<NodeKey>>, seats: Vec<Seat>) -> Shared {
        Shared {
            node,
            mirrors,
            key,
            word: AtomicU64::new(CHANGING),
            slow: Mutex::new(Slow {
                seats,
                ..Slow::default()
            }),
            scrubs: AtomicU64::new(0),
            rekeys: AtomicU64::new(0),
            listeners: Mutex::default(),
        }
    }

    pub(super) fn begin_change(&self) {
        self.word.fetch_or(CHANGING, Ordering::SeqCst);
    }

    pub(super) fn publish(&self, in_sync: InSync, joining: DriveSet, guarantee: usize) {
        assert!(in_sync.epoch.0 <= EPOCH_MAX, "two thousand million epoch changes");
        {
            let mut slow = self.slow.lock().expect("nobody panics with it");
            slow.joining = joining;
            slow.guarantee = guarantee;
            slow.leaving = slow.leaving.and(in_sync.set);
            slow.invited = slow.invited.minus(in_sync.set);
            self.word.store(
                in_sync.epoch.0 << 32 | u64::from(in_sync.set.bits()),
                Ordering::SeqCst,
            );
        }
        self.tell();
    }

    /// Changes what is not part of an epoch, and tells everybody.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Slow) -> T) -> T {
        let changed = change(&mut self.slow.lock().expect("nobody panics with it"));
        self.tell();
        changed
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

    /// One consistent view for whoever places files, and the places to open.
    pub(super) fn look(&self) -> (Placement, DriveSet) {
        let slow = self.slow.lock().expect("nobody panics with it");
        let placement = Placement {
            in_sync: self.load().0,
            joining: slow.joining,
            leaving: slow.leaving,
            guarantee: slow.guarantee,
            mirrors: self.mirrors,
        };
        (placement, slow.invited)
    }

    pub(super) fn seats(&self) -> Vec<Seat> {
        self.slow.lock().expect("nobody panics with it").seats.clone()
    }

    pub(super) fn path(&self, drive: DriveIndex) -> Option<PathBuf> {
        let slow = self.slow.lock().expect("nobody panics with it");
        slow.seats.get(drive.get()).and_then(|seat| seat.path.clone())
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
        shared.publish(in_sync, DriveSet::EMPTY, 2);
        assert_eq!(shared.load(), (in_sync, false));
        shared.begin_change();
        assert_eq!(shared.load(), (in_sync, true));
    }
}
