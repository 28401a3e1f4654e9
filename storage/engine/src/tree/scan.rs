//! A scan: the newest visible version of each key of a range, in either direction.
//!
//! A scan keeps the view and the memtable it began with, so that flush and compaction change nothing under it.
//! Writes to that memtable are seen or not, key by key; every write applied before the scan began is seen.

use cairn_runtime::Runtime;

use super::merge::Merge;
use super::store::TreeError;
use super::version::Version;
use crate::Direction;
use crate::ids::CommitTimestamp;

/// A scan in progress. To resume it later, begin another one beyond the last key.
pub struct Cursor<R: Runtime> {
    merge: Merge<R>,
    direction: Direction,
    as_of: CommitTimestamp,
    key: Vec<u8>,
    /// Whether `key` has been dealt with: later versions of it are older.
    settled: bool,
    started: bool,
}

impl<R: Runtime> Cursor<R> {
    pub(crate) fn new(merge: Merge<R>, direction: Direction, as_of: CommitTimestamp) -> Cursor<R> {
        Cursor {
            merge,
            direction,
            as_of,
            key: Vec::new(),
            settled: false,
            started: false,
        }
    }

    /// The next item and its key; none at the end. Tombstones are passed over.
    ///
    /// # Errors
    /// [`TreeError::Unreadable`]; the scan is over then.
    pub async fn next(&mut self) -> Result<Option<(Vec<u8>, Version)>, TreeError> {
        if !std::mem::replace(&mut self.started, true) {
            self.merge.advance().await?;
        }
        let found = match self.direction {
            Direction::Forward => self.next_forward().await?,
            Direction::Backward => self.next_backward().await?,
        };
        Ok(found.map(|version| (self.key.clone(), version)))
    }

    /// Forward, the newest version of a key comes first.
    async fn next_forward(&mut self) -> Result<Option<Version>, TreeError> {
        loop {
            let Some((key, commit)) = self.merge.head() else {
                return Ok(None);
            };
            let known = self.settled && self.key == key;
            if !known && commit <= self.as_of {
                self.key.clear();
                self.key.extend_from_slice(key);
                self.settled = true;
                let version = self.merge.version();
                if !version.is_tombstone() {
                    // Moving on, which may read, is left to the next call: there may be none.
                    return Ok(Some(version));
                }
            }
            self.merge.advance().await?;
        }
    }

    /// Backward, the last visible version before the key changes is the newest.
    async fn next_backward(&mut self) -> Result<Option<Version>, TreeError> {
        loop {
            let Some((key, _)) = self.merge.head() else {
                return Ok(None);
            };
            self.key.clear();
            self.key.extend_from_slice(key);
            let mut newest = None;
            while let Some((key, commit)) = self.merge.head()
                && key == self.key
            {
                if commit <= self.as_of {
                    newest = Some(self.merge.version());
                }
                self.merge.advance().await?;
            }
            if let Some(version) = newest.filter(|version| !version.is_tombstone()) {
                return Ok(Some(version));
            }
        }
    }
}
