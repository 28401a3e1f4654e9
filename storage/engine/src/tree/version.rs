//! A version of an item as readers hold it: a few words and a shared handle to the bytes.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use crate::ids::CommitTimestamp;
use crate::mutation::{MutationKind, Provenance};

/// Greater than every version: reads the newest.
pub const NEWEST: CommitTimestamp = CommitTimestamp(u64::MAX);

/// Shared bytes of an item: a whole allocation in a memtable, a part of a block elsewhere. Cloning counts a
/// reference; nothing is copied. Whoever holds one keeps the whole block in memory.
#[derive(Clone)]
pub struct ItemHandle {
    bytes: Rc<[u8]>,
    start: u32,
    end: u32,
}

impl ItemHandle {
    /// A part of a block.
    ///
    /// # Panics
    /// When the range does not lie within `bytes`.
    #[must_use]
    pub fn part(bytes: Rc<[u8]>, start: usize, end: usize) -> ItemHandle {
        assert!(
            start <= end && end <= bytes.len(),
            "an item lies within its block"
        );
        let narrow = |at: usize| u32::try_from(at).expect("blocks are smaller than 4 GiB");
        ItemHandle {
            start: narrow(start),
            end: narrow(end),
            bytes,
        }
    }
}

impl Deref for ItemHandle {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }
}

impl From<Rc<[u8]>> for ItemHandle {
    fn from(bytes: Rc<[u8]>) -> ItemHandle {
        let end = bytes.len();
        ItemHandle::part(bytes, 0, end)
    }
}

impl From<&[u8]> for ItemHandle {
    fn from(bytes: &[u8]) -> ItemHandle {
        ItemHandle::from(Rc::<[u8]>::from(bytes))
    }
}

impl fmt::Debug for ItemHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ItemHandle({} bytes)", self.len())
    }
}

impl PartialEq for ItemHandle {
    fn eq(&self, other: &ItemHandle) -> bool {
        **self == **other
    }
}

/// One version of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The version's number.
    pub commit: CommitTimestamp,
    /// Item or tombstone.
    pub kind: MutationKind,
    /// DynamoDB size of the item; 0 for a tombstone.
    pub item_bytes: u32,
    /// Where it comes from; none for a plain local write, so that those pay nothing for it.
    pub provenance: Option<Rc<Provenance>>,
    /// Archived item; empty for a tombstone.
    pub item: ItemHandle,
}

impl Version {
    /// A plain local item.
    #[must_use]
    pub fn put(commit: CommitTimestamp, item_bytes: u32, item: impl Into<ItemHandle>) -> Version {
        Version {
            commit,
            kind: MutationKind::Put,
            item_bytes,
            provenance: None,
            item: item.into(),
        }
    }

    /// A plain local tombstone.
    #[must_use]
    pub fn tombstone(commit: CommitTimestamp) -> Version {
        let item = ItemHandle::from(&[][..]);
        Version {
            commit,
            kind: MutationKind::Delete,
            item_bytes: 0,
            provenance: None,
            item,
        }
    }

    /// Adds where the version comes from.
    #[must_use]
    pub fn with_provenance(mut self, provenance: Provenance) -> Version {
        self.provenance = (provenance != Provenance::default()).then(|| Rc::new(provenance));
        self
    }

    /// Whether it says that there is no item.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.kind == MutationKind::Delete
    }
}

/// Whether a version that was followed by another one is still needed: some snapshot reads it.
/// `snapshots` is sorted, least first.
pub(crate) fn needed(
    snapshots: &[CommitTimestamp],
    commit: CommitTimestamp,
    followed_by: CommitTimestamp,
) -> bool {
    let first = snapshots.partition_point(|snapshot| *snapshot < commit);
    snapshots
        .get(first)
        .is_some_and(|snapshot| *snapshot < followed_by)
}
