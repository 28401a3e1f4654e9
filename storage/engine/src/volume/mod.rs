//! The drives of a node: who they are, and which of them hold everything that was acknowledged.
//!
//! **Invariants**
//! 1. {epoch, in-sync set} is kept on every drive (superblock) and on a witness off the drives (state
//!    directory). It changes in two rounds, each durable on a majority of these copies before the next step:
//!    a *promise* of a new epoch number, then the set under that number. So two sets never carry one epoch, and
//!    the highest epoch among any majority of copies is the last that anyone acted on, or a later one.
//! 2. A new epoch becomes visible to the shards only after the second round. While a change is being written
//!    nothing is acknowledged on any shard; if it cannot be written, nothing ever is.
//! 3. Every drive of the in-sync set of the highest epoch holds everything that was acknowledged. A drive leaves
//!    the set online; it does not come back online.
//! 4. Superblock and witness have one writer, the [`Keeper`].
//!
//! **Start** ([`Keeper::open`]): lock and read every directory; refuse what is not ours; take the highest epoch
//! among a majority of copies; if one of its drives is missing, or the copies differ, make a new epoch durable
//! first. Exception: `accept_epoch` lets an operator who knows that the missing copies are lost name the epoch
//! to continue from; drives missing then no longer count.

mod error;
mod set;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use cairn_runtime::Runtime;

use crate::ids::{DriveId, Epoch, LogId, NodeId};

pub use error::VolumeError;
pub use set::{DRIVES_MAX, DriveIndex, DriveSet};

/// Where a node keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// One directory per drive.
    pub drives: Vec<PathBuf>,
    /// Directory of the witness; not on one of the drives, if it can be helped.
    pub state: PathBuf,
    /// Drives that hold each file.
    pub mirrors: usize,
    /// Continue from this epoch although a majority of its copies cannot be read.
    pub accept_epoch: Option<u64>,
}

/// The drives that hold everything acknowledged, and the version of that set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InSync {
    /// The version.
    pub epoch: Epoch,
    /// The drives.
    pub set: DriveSet,
}

/// A drive as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveStatus {
    /// Place in the node's ordered list.
    pub index: DriveIndex,
    /// Identity.
    pub id: DriveId,
    /// Directory, when the configuration names it.
    pub path: Option<PathBuf>,
    /// Whether it holds everything acknowledged.
    pub in_sync: bool,
    /// Why not, in words; empty when in sync.
    pub why: String,
    /// Identifies the device under it: two drives that answer alike share one.
    pub device: Option<u64>,
}

/// The volume as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatus {
    /// The node.
    pub node: NodeId,
    /// Version and members of the in-sync set.
    pub in_sync: InSync,
    /// Every drive.
    pub drives: Vec<DriveStatus>,
    /// Drives that hold each file.
    pub mirrors: usize,
    /// Whether this start created the node.
    pub created: bool,
    /// What an operator should know: missing drives, drives that share a device, a lost witness.
    pub warnings: Vec<String>,
}

/// Owner of superblocks and witness. Lives on one shard; dropping it ends its task and later reports fail.
#[derive(Debug)]
pub struct Keeper<R: Runtime>(PhantomData<R>);

impl<R: Runtime> Keeper<R> {
    /// Locks and opens the directories; creates everything at the first start.
    ///
    /// # Errors
    /// [`VolumeError`] with a message that names the directory and says what to do.
    pub async fn open(_runtime: R, _config: VolumeConfig) -> Result<Keeper<R>, VolumeError> {
        Err(VolumeError::Stopped)
    }

    /// What shards attach to.
    #[must_use]
    pub fn handle(&self) -> VolumeHandle {
        VolumeHandle {}
    }
}

/// The volume for any shard: cheap to clone, may cross threads.
#[derive(Debug, Clone)]
pub struct VolumeHandle {}

impl VolumeHandle {
    /// Opens the drives on the calling shard.
    ///
    /// # Errors
    /// [`VolumeError::Unusable`] when no in-sync drive can be opened.
    pub async fn attach<R: Runtime>(&self, _runtime: R) -> Result<Volume<R>, VolumeError> {
        Err(VolumeError::Stopped)
    }

    /// The volume as an operator sees it, now.
    ///
    /// # Errors
    /// [`VolumeError::Stopped`] when the keeper is gone.
    pub async fn status(&self) -> Result<VolumeStatus, VolumeError> {
        Err(VolumeError::Stopped)
    }
}

/// One shard's view of the node's drives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volume<R: Runtime>(PhantomData<R>);

impl<R: Runtime> Volume<R> {
    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(0)
    }

    /// The drive at a place; `None` when its directory could not be opened at the start.
    #[must_use]
    pub fn drive(&self, _index: DriveIndex) -> Option<&R::Drive> {
        None
    }

    /// Its directory, for messages; empty when unknown.
    #[must_use]
    pub fn path(&self, _index: DriveIndex) -> &Path {
        Path::new("")
    }

    /// The current in-sync set.
    #[must_use]
    pub fn in_sync(&self) -> InSync {
        InSync {
            epoch: Epoch(0),
            set: DriveSet::EMPTY,
        }
    }

    /// Drives that hold each file.
    #[must_use]
    pub fn mirrors(&self) -> usize {
        0
    }

    /// The in-sync drives a new file goes to; `salt` (a file's number) spreads files over the drives.
    #[must_use]
    pub fn choose(&self, salt: u64) -> DriveSet {
        self.in_sync().set.choose(self.mirrors(), salt)
    }

    /// Waits until no epoch change is being written. To be awaited between "durable on all in-sync mirrors" and
    /// the acknowledgement.
    ///
    /// # Errors
    /// [`VolumeError`] when the change cannot be made durable: nothing may be acknowledged any more.
    pub async fn settled(&self) -> Result<InSync, VolumeError> {
        Err(VolumeError::Stopped)
    }

    /// Takes a drive out of the in-sync set. Resolves once the change is durable; at once if it was out already.
    ///
    /// # Errors
    /// [`VolumeError::LastDrive`] and [`VolumeError::EpochNotDurable`]: nothing may be acknowledged any more.
    pub async fn report_failed(&self, _drive: DriveIndex, _why: String) -> Result<InSync, VolumeError> {
        Err(VolumeError::Stopped)
    }

    /// The logs that exist, in order.
    ///
    /// # Errors
    /// [`VolumeError::Unusable`] when no in-sync drive can be listed.
    pub async fn logs(&self) -> Result<Vec<LogId>, VolumeError> {
        Err(VolumeError::Stopped)
    }

    /// Bytes that still fit on the fullest in-sync drive.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        0
    }
}
