//! Another root key for a stopped node: its node key is wrapped anew, and nothing else is written.
//!
//! 1. Open the node as a start would, with either of the two root keys.
//! 2. Make an epoch change whose record has the node key under the new root key. Every copy that is there is written.
//!
//! A start goes on from the record of the highest epoch, and what that says is what it needs: the old root key as
//! long as no copy of the new epoch can be read, the new one from then on. So at every point one of the two opens the node, and
//! who has both never has to know which. What a copy that was not there still says, it says under the old root key.

use std::time::Duration;

use cairn_runtime::Runtime;

use super::keeper::{Copy, Task};
use super::superblock::Superblock;
use super::{VolumeConfig, VolumeError, open};
use crate::phase::{self, Phase};
use crate::sealing::{RootKey, RootKeyId};

/// How long the process may wait for copies that a majority can do without.
const WRITTEN_LIMIT: Duration = Duration::from_secs(5);
/// How long to sleep between looks at writes in flight.
const WRITTEN_WAIT: Duration = Duration::from_millis(1);

/// What a rotation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The root key before.
    pub old: RootKeyId,
    /// The root key from now on.
    pub new: RootKeyId,
    /// Copies of the wrapped node key, one on each drive and one in the state directory, that could not be written and so
    /// still open with the old root key; the next start with the drive writes them.
    pub unwritten: usize,
}

/// Wraps the node key of a stopped node with `new`. `config` has the root key that it is wrapped with; it may have been rotated
/// to `new` already, as when this was cut off. Durable when it returns.
///
/// # Errors
/// [`VolumeError`]; the node opens with one of the two root keys.
pub async fn rotate_root_key<R: Runtime>(
    runtime: R,
    config: &VolumeConfig,
    new: &RootKey,
) -> Result<Rotated, VolumeError> {
    let _phase = phase::enter(Phase::RootKey);
    let mut config = config.clone();
    config.keys.root.push(new.clone());
    let mut node = open::task(&runtime, &config, false).await?;
    let status = node.status();
    let Some(old) = status.root_key else {
        return Err(VolumeError::EncryptionMismatch { encrypted: false });
    };
    let counted = status.drives.iter().filter(|drive| !drive.removed);
    let written = node.rewrap(new).await?;
    Ok(Rotated {
        old,
        new: new.id(),
        unwritten: (counted.count() + 1).saturating_sub(written),
    })
}

impl<R: Runtime> Task<R> {
    /// Wraps the node key with another root key: durable when this returns. Answers how many copies of the wrapped key
    /// have been written; those that have not still open with the old one.
    async fn rewrap(&mut self, root: &RootKey) -> Result<usize, VolumeError> {
        let key = self.shared.key.clone();
        let key = key.ok_or(VolumeError::EncryptionMismatch { encrypted: false })?;
        let next = Superblock {
            key: Some(root.wrap(&self.runtime, &key)),
            ..self.content.clone()
        };
        self.change_to(next, 1).await?;
        // The majority is durable without the rest.
        let end = self.runtime.now() + WRITTEN_LIMIT;
        while self.copies.iter().any(Copy::is_writing) && self.runtime.now() < end {
            self.runtime.sleep(WRITTEN_WAIT).await;
        }
        Ok(self.written())
    }
}
