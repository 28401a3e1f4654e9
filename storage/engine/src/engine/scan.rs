//! A scan in progress: the tree's cursor behind the engine's errors.

use std::rc::Rc;

use cairn_runtime::Runtime;

use super::Inner;
use super::partition::Partition;
use super::types::{Direction, Range, Stored};
use crate::error::EngineError;
use crate::ids::{CommitTimestamp, PartitionId};
use crate::tree::Cursor;

/// A scan in progress.
pub struct Scan<R: Runtime> {
    inner: Rc<Inner<R>>,
    state: Result<(Rc<Partition<R>>, Cursor<R>), EngineError>,
}

impl<R: Runtime> Scan<R> {
    /// A scan of what is not above `as_of`.
    pub(super) fn new(
        inner: Rc<Inner<R>>,
        id: PartitionId,
        range: Range,
        direction: Direction,
        as_of: CommitTimestamp,
    ) -> Scan<R> {
        let state = inner.serving(id).map(|partition| {
            let cursor = partition
                .tree
                .scan_as_of(range.lower, range.upper, direction, as_of);
            (partition, cursor)
        });
        Scan { inner, state }
    }

    /// The next item and its key, none at the end.
    ///
    /// # Errors
    /// As [`super::Engine::get`]. The scan is over then.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Stored)>, EngineError> {
        let (partition, cursor) = match &mut self.state {
            Ok(state) => state,
            Err(error) => return Err(error.clone()),
        };
        let next = match partition.check_serves() {
            Ok(()) => cursor
                .next()
                .await
                .map_err(|error| self.inner.read_failed(partition, error)),
            Err(error) => Err(error),
        };
        match next {
            Ok(next) => Ok(next.map(|(key, version)| (key, Stored::new(version)))),
            Err(error) => {
                self.state = Err(error.clone());
                Err(error)
            }
        }
    }
}
