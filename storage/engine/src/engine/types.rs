//! What callers hand in and get back.

use std::ops::{Bound, Deref};
use std::rc::Rc;

use crate::group::Counter;
use crate::ids::{CommitTimestamp, IndexId, PartitionId, TableId};
use crate::tree::Version;

/// What a partition is: ids that are never reused, and the range of keys it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescriptor {
    /// Its id.
    pub id: PartitionId,
    /// The table it belongs to.
    pub table: TableId,
    /// The index it belongs to; zero is the base table.
    pub index: IndexId,
    /// Least key it owns.
    pub lower: Vec<u8>,
    /// Least key beyond it; none is the end of the key space.
    pub upper: Option<Vec<u8>>,
}

/// A partition as it stands: applied state only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its id.
    pub id: PartitionId,
    /// The table it belongs to.
    pub table: TableId,
    /// The index it belongs to; zero is the base table.
    pub index: IndexId,
    /// Least key it owns.
    pub lower: Vec<u8>,
    /// Least key beyond it.
    pub upper: Option<Vec<u8>>,
    /// Items it holds.
    pub item_count: u64,
    /// Their DynamoDB sizes summed, in bytes.
    pub item_bytes: u64,
    /// What it holds of local indexes, by id: those of which something was ever counted.
    pub indexes: Vec<IndexUsage>,
    /// Greatest commit timestamp applied; zero when nothing was ever written.
    pub floor: CommitTimestamp,
    /// Why it does not serve, when it is fenced.
    pub fenced: Option<Rc<str>>,
}

/// What a partition holds of one local index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexUsage {
    /// The index.
    pub index: IndexId,
    /// Its entries.
    pub item_count: u64,
    /// Their DynamoDB sizes summed, in bytes.
    pub item_bytes: u64,
}

/// What `decide` wants done with the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// Store this item.
    Put {
        /// Archived bytes, opaque to the engine.
        item: Vec<u8>,
        /// Its DynamoDB size in bytes.
        item_bytes: u32,
    },
    /// Remove the item. Of nothing, it changes nothing.
    Delete,
}

/// A further change of the same partition, made in the same step as the item's own: an entry of a local index, or a record of
/// the change sequence. Nobody else writes its key but by deciding on the same item, or never again; no two of one decision
/// have the same key.
#[derive(Debug, Clone)]
pub struct Derived {
    /// Engine key, in any space: of the partition's own hashes.
    pub key: Vec<u8>,
    /// Append the commit timestamp to the key: 8 bytes, big-endian.
    pub stamped: bool,
    /// Which counter it moves.
    pub counter: Counter,
    /// Archived bytes and their size for the counter; none deletes.
    pub put: Option<(Rc<[u8]>, u32)>,
    /// What is put goes on with the item that the decision itself puts: in the log that is there once.
    pub with_item: bool,
    /// The size for the counter of what was there.
    pub old_item_bytes: Option<u32>,
}

/// What `decide` of [`super::Engine::update_with`] answers.
#[derive(Debug)]
pub struct Decision<T> {
    /// What becomes of the item.
    pub change: Change,
    /// What is changed with it, in one step; also when the item itself is kept.
    pub derived: Vec<Derived>,
    /// What the caller wants to know.
    pub outcome: T,
}

/// The newest proposed state of a key, lent to `decide`.
#[derive(Debug, Clone, Copy)]
pub struct StoredRef<'a> {
    /// Archived bytes.
    pub item: &'a [u8],
    /// DynamoDB size in bytes.
    pub item_bytes: u32,
    /// The version.
    pub commit: CommitTimestamp,
}

/// A stored item: a handle to its bytes in memory. Cheap to clone. Derefs to the archived bytes.
#[derive(Debug, Clone)]
pub struct Stored {
    version: Version,
}

impl Stored {
    pub(super) fn new(version: Version) -> Stored {
        debug_assert!(!version.is_tombstone(), "a tombstone is no item");
        Stored { version }
    }

    /// Archived bytes.
    #[must_use]
    pub fn item(&self) -> &[u8] {
        &self.version.item
    }

    /// DynamoDB size in bytes.
    #[must_use]
    pub fn item_bytes(&self) -> u32 {
        self.version.item_bytes
    }

    /// The version.
    #[must_use]
    pub fn commit(&self) -> CommitTimestamp {
        self.version.commit
    }
}

impl Deref for Stored {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.version.item
    }
}

/// What an update did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated<T> {
    /// What `decide` returned beside the change.
    pub outcome: T,
    /// The new version; none when nothing changed.
    pub commit: Option<CommitTimestamp>,
    /// DynamoDB size of the item that was there.
    pub old_item_bytes: Option<u32>,
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub lower: Bound<Vec<u8>>,
    /// Where it ends.
    pub upper: Bound<Vec<u8>>,
}

/// Order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}
