//! Stored items on their way out.
//!
//! Every byte that [`ItemHandle`] holds came out of an engine, and bytes only go into an engine through
//! [`ItemBytes`], which are validated or were archived here; the engine guards them with its checksums. So they are
//! accessed in place without a second look, which is what the one unsafe call of this crate says.
#![expect(
    unsafe_code,
    reason = "the engine's bytes are validated before they are stored, not at each read"
)]

use std::ops::Range;
use std::rc::Rc;

use cairn_engine::Stored;
use cairn_item::ItemView;

/// A stored item. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ItemHandle(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// In the memory of this shard's engine.
    Local(Stored),
    /// A copy that another shard sent, or that outlives the engine's own.
    Copied {
        buffer: Rc<Vec<u8>>,
        range: Range<usize>,
        item_bytes: u32,
    },
}

impl ItemHandle {
    pub(crate) fn local(stored: Stored) -> ItemHandle {
        ItemHandle(Kind::Local(stored))
    }

    /// `range` of `buffer` must be an item that came out of an engine.
    pub(crate) fn copied(buffer: Rc<Vec<u8>>, range: Range<usize>, item_bytes: u32) -> ItemHandle {
        ItemHandle(Kind::Copied {
            buffer,
            range,
            item_bytes,
        })
    }

    /// A copy sent by another shard.
    pub(crate) fn from_copy(copy: ItemCopy) -> ItemHandle {
        let range = 0..copy.item.len();
        ItemHandle::copied(Rc::new(copy.item), range, copy.item_bytes)
    }

    /// Archived bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Local(stored) => stored,
            Kind::Copied { buffer, range, .. } => &buffer[range.clone()],
        }
    }

    /// DynamoDB size in bytes.
    #[must_use]
    pub fn item_bytes(&self) -> u32 {
        match &self.0 {
            Kind::Local(stored) => stored.item_bytes(),
            Kind::Copied { item_bytes, .. } => *item_bytes,
        }
    }

    /// The item.
    #[must_use]
    pub fn view(&self) -> ItemView<'_> {
        stored_view(self.bytes())
    }
}

/// An item that may cross to another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemCopy {
    /// Archived bytes.
    pub item: Vec<u8>,
    /// DynamoDB size in bytes.
    pub item_bytes: u32,
}

impl ItemCopy {
    pub(crate) fn of(stored: &Stored) -> ItemCopy {
        ItemCopy {
            item: stored.to_vec(),
            item_bytes: stored.item_bytes(),
        }
    }
}

/// The item in bytes that came out of an engine.
pub(crate) fn stored_view(bytes: &[u8]) -> ItemView<'_> {
    // SAFETY: what an engine stores was validated or archived by this crate (see the module's opening).
    unsafe { ItemView::from_validated(bytes) }
}
