//! The future of one operation.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{Key, Resource, Ring};

/// An operation's result and what was lent to it.
pub(in crate::real) struct Outcome {
    /// As the kernel gave it: bytes, a descriptor or zero.
    pub(in crate::real) result: io::Result<i32>,
    pub(in crate::real) resource: Resource,
}

/// Resolves when the operation has ended. Dropped earlier, it is orphaned: its memory stays in the ring until the
/// kernel has let go of it.
#[must_use = "an operation that is dropped is orphaned"]
pub(in crate::real) struct Operation {
    ring: Rc<Ring>,
    key: Option<Key>,
}

impl Operation {
    pub(super) fn new(ring: Rc<Ring>, key: Key) -> Operation {
        Operation { ring, key: Some(key) }
    }
}

impl Future for Operation {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let key = self
            .key
            .expect("an operation is not polled after it has resolved");
        let polled = self.ring.slab.borrow_mut().poll(key, context);
        polled.map(|(result, resource)| {
            self.key = None;
            let result = if result < 0 {
                Err(io::Error::from_raw_os_error(-result))
            } else {
                Ok(result)
            };
            Outcome { result, resource }
        })
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let (cancel, ended) = self.ring.slab.borrow_mut().orphan(key);
        if cancel {
            self.ring.cancel(key);
        }
        if let Some((result, resource)) = ended {
            resource.discard(result);
        }
    }
}
