//! What the answers of one shard may take in memory.
//!
//! An answer is made in memory and stays there until its client has taken it; ten thousand clients that do not read may
//! ask for a page each. So answers have a budget, and:
//!
//! 1. A request that may be answered with pages waits until there is room for one ([`Answers::room`]).
//! 2. What a connection has to send, when it is large, is charged until it has left ([`Answers::charge`]): never waiting,
//!    because it is there already.
//! 3. While the budget is exceeded or somebody waits ([`Answers::is_tight`]), connections begin less, and a client that does
//!    not take a large answer within [`TIGHT_SEND_MAX`] loses its connection: room comes from those who do not read,
//!    not from those who wait.
//!
//! Nobody who waits for room holds any, so that waiting always ends.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::Notify;

/// Answers that wait to be sent are charged beyond this many bytes of a connection.
pub(crate) const LARGE_ANSWER_BYTES: usize = 64 * 1024;
/// Time to take a large answer while others wait for room.
pub(crate) const TIGHT_SEND_MAX: Duration = Duration::from_secs(2);
/// Room for a page of Query or Scan: its items and their JSON.
const PAGE_ROOM: usize = 2 << 20;
/// Room for the answer of a batch, which may be 16 MB long and rarely is.
const BATCH_ROOM: usize = 4 << 20;

/// The budget of one shard. Cheap to clone.
#[derive(Clone)]
pub struct Answers {
    inner: Rc<Inner>,
}

struct Inner {
    bytes_max: usize,
    taken: Cell<usize>,
    waiting: Cell<usize>,
    freed: Notify,
}

impl Answers {
    /// A budget of so many bytes. One answer is always let through, however large.
    #[must_use]
    pub fn new(bytes_max: usize) -> Answers {
        Answers {
            inner: Rc::new(Inner {
                bytes_max,
                taken: Cell::new(0),
                waiting: Cell::new(0),
                freed: Notify::new(),
            }),
        }
    }

    /// Waits for room for what `operation`, a name of DynamoDB's, may answer; none is needed for one item.
    pub(crate) async fn room_for(&self, operation: &str) -> Option<Charge> {
        let bytes = match operation {
            "Query" | "Scan" | "ExecuteStatement" | "GetRecords" => PAGE_ROOM,
            "BatchGetItem" | "TransactGetItems" | "BatchExecuteStatement" | "ExecuteTransaction" => {
                BATCH_ROOM
            }
            _ => return None,
        };
        Some(self.room(bytes).await)
    }

    /// Waits for room for a page.
    pub(crate) async fn page(&self) -> Charge {
        self.room(PAGE_ROOM).await
    }

    async fn room(&self, bytes: usize) -> Charge {
        let inner = &self.inner;
        if !inner.fits(bytes) {
            let _waiting = Waiting::new(inner);
            loop {
                let freed = inner.freed.notified();
                if inner.fits(bytes) {
                    break;
                }
                freed.await;
            }
        }
        let charge = self.charge(bytes);
        if inner.waiting.get() > 0 {
            // The next may fit as well.
            inner.freed.notify_one();
        }
        charge
    }

    /// Takes so many bytes, whether or not there is room.
    pub(crate) fn charge(&self, bytes: usize) -> Charge {
        self.inner.taken.set(self.inner.taken.get() + bytes);
        Charge {
            inner: Rc::clone(&self.inner),
            bytes,
        }
    }

    /// Bytes taken now.
    #[must_use]
    pub fn taken_bytes(&self) -> usize {
        self.inner.taken.get()
    }

    /// Whether room is wanted.
    pub(crate) fn is_tight(&self) -> bool {
        self.inner.waiting.get() > 0 || self.inner.taken.get() > self.inner.bytes_max
    }
}

impl Inner {
    fn fits(&self, bytes: usize) -> bool {
        let taken = self.taken.get();
        taken == 0 || taken + bytes <= self.bytes_max
    }
}

struct Waiting(Rc<Inner>);

impl Waiting {
    fn new(inner: &Rc<Inner>) -> Waiting {
        inner.waiting.set(inner.waiting.get() + 1);
        Waiting(Rc::clone(inner))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// Bytes taken of a budget, until it is dropped.
pub(crate) struct Charge {
    inner: Rc<Inner>,
    bytes: usize,
}

impl Charge {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges so many bytes instead.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        let inner = &self.inner;
        inner.taken.set(inner.taken.get() - self.bytes + bytes);
        let freed = bytes < self.bytes;
        self.bytes = bytes;
        if freed && inner.waiting.get() > 0 {
            inner.freed.notify_one();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.resize(0);
    }
}
