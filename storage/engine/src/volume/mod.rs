//! The drives of a node: who they are, and which of them hold everything that was acknowledged.
//!
//! **Invariants**
//! 1. {epoch, in-sync set} is kept on every drive (superblock) and on a witness off the drives (state
//!    directory). It changes in two rounds, each durable on a majority of these copies before the next step:
//!    a *promise* of a new epoch number, then the set under that number. So two sets never carry one epoch, and
//!    the highest epoch among any majority of copies is the last that anyone acted on, or a later one.
//! 2. A new epoch becomes visible to the shards only after the second round. While a change is being written
//!    nothing is acknowledged on any shard; if it cannot be written, nothing ever is.
//! 3. Every drive of the in-sync set of the highest epoch holds every file that names it, and every file that is
//!    referred to is on `guarantee` settled drives at least: in sync and not joining. A drive leaves the set only while that
//!    is two or more, and takes one away; it is given back when the engines have copied what was on it elsewhere.
//! 4. Superblock and witness have one writer, the [`Keeper`].
//! 5. A node is encrypted from its creation or never. The key of its files is in every copy, wrapped by the root key, and
//!    changes with an epoch change only; so the record that a start goes on from says which root key it needs.
//! 6. A drive that was away comes back empty, when no file of any log names its place any more and every shard has
//!    forgotten its old files ([`online`]). It is then joining, and nothing depends on it, until copies are complete.
//!
//! **Start** ([`Keeper::open`]): lock and read every directory; refuse what is not ours; take the highest epoch
//! among a majority of copies; if one of its drives is missing, or the copies differ, make a new epoch durable
//! first. Exception: `accept_epoch` lets an operator who knows that the missing copies are lost name the epoch
//! to continue from; drives missing then no longer count.

mod census;
mod copy;
mod directories;
mod error;
mod keeper;
mod member;
mod online;
mod open;
mod place;
mod report;
mod rotate;
mod seats;
mod set;
mod shared;
pub mod superblock;
#[cfg(test)]
mod volume_test;

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, ReplySender, mailbox, reply};
use cairn_runtime::{Drive, Runtime, Space};

use keeper::Request;
use shared::Shared;

use crate::ids::{DriveId, Epoch, LogId, NodeId};
use crate::sealing::{Keys, NodeKey, RootKeyId};

/// A drive that is slow to answer counts as if it had this part of its free space.
const SLOW_PART: u64 = 4;

pub use copy::{COPY_DRIVE, COPY_STATE, CopyTarget};
pub use directories::check_directories;
pub use error::VolumeError;
pub use online::{Operation, OperationState, OperationStatus, Step};
pub use place::Placement;
pub use report::{LogReport, LogReports, PlacesReport, RekeyReport, ScrubReport};
pub use rotate::{Rotated, rotate_root_key};
pub use set::{DRIVES_MAX, DriveIndex, DriveSet};

/// Where a node keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeConfig {
    /// One directory per drive.
    pub drives: Vec<PathBuf>,
    /// Directory of the witness; not on one of the drives, if it can be helped. Empty: nobody knows where it is, and
    /// the node goes without, for [`crate::check`].
    pub state: PathBuf,
    /// Drives that hold each file.
    pub mirrors: usize,
    /// Continue from this epoch although a majority of its copies cannot be read.
    pub accept_epoch: Option<u64>,
    /// What opens an encrypted node, and whether a new one is encrypted.
    pub keys: Keys,
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
    /// Size and free space of its file system, when they can be had.
    pub space: Option<Space>,
    /// In sync, but files from before are still being copied to it.
    pub joining: bool,
    /// In sync, and being emptied.
    pub leaving: bool,
    /// In sync, but others answer so much sooner that reads go to them.
    pub slow: bool,
    /// Out of sync, and without a vote: it was removed, or could not be written when the others went on without it.
    pub removed: bool,
    /// An operator has taken it off the list: it is no drive of the node any more.
    pub retired: bool,
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
    /// The root key that its keys are wrapped with; none when the node is not encrypted.
    pub root_key: Option<RootKeyId>,
    /// Whether this start created the node.
    pub created: bool,
    /// What an operator should know: missing drives, drives that share a device, a lost witness.
    pub warnings: Vec<String>,
    /// In-sync drives that every file is on at least, those that are joining not counted.
    pub guarantee: usize,
    /// What the engines say, by log.
    pub logs: LogReports,
    /// The last thing an operator asked for.
    pub operation: Option<OperationStatus>,
}

/// Hears that something about the drives has changed, or been asked for.
pub struct Changes(MailboxReceiver<()>);

impl Changes {
    /// Resolves when something has changed since the last call; false when nothing ever will again.
    pub async fn changed(&mut self) -> bool {
        self.0.recv().await.is_some()
    }
}

/// Owner of superblocks and witness. Lives on one shard; dropping it ends its task and later reports fail.
pub struct Keeper<R: Runtime> {
    handle: VolumeHandle,
    runtime: PhantomData<R>,
}

impl<R: Runtime> Keeper<R> {
    /// Locks and opens the directories; creates everything at the first start.
    ///
    /// # Errors
    /// [`VolumeError`] with a message that names the directory and says what to do.
    pub async fn open(runtime: R, config: VolumeConfig) -> Result<Keeper<R>, VolumeError> {
        open::open(runtime, config, true).await
    }

    /// As [`Keeper::open`], but creates no node.
    ///
    /// # Errors
    /// [`VolumeError::Config`] when there is none.
    pub async fn open_existing(runtime: R, config: VolumeConfig) -> Result<Keeper<R>, VolumeError> {
        open::open(runtime, config, false).await
    }

    /// What shards attach to.
    #[must_use]
    pub fn handle(&self) -> VolumeHandle {
        self.handle.clone()
    }
}

impl<R: Runtime> Drop for Keeper<R> {
    fn drop(&mut self) {
        // A full mailbox has askers; the task then ends with the process.
        let _ = self.handle.requests.try_send(Request::Stop);
    }
}

/// The volume for any shard: cheap to clone, may cross threads.
#[derive(Clone)]
pub struct VolumeHandle {
    shared: Arc<Shared>,
    requests: MailboxSender<Request>,
}

impl VolumeHandle {
    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Opens the in-sync drives on the calling shard. One that cannot be opened leaves the in-sync set.
    ///
    /// # Errors
    /// As [`Volume::report_failed`].
    pub async fn attach<R: Runtime>(&self, runtime: R) -> Result<Volume<R>, VolumeError> {
        let (in_sync, _) = self.shared.load();
        let seats = self.shared.seats();
        let mut drives = Vec::with_capacity(seats.len());
        for (index, seat) in seats.iter().enumerate() {
            let wanted = DriveIndex::new(index).filter(|index| in_sync.set.contains(*index));
            let opened = match (&seat.path, wanted) {
                (Some(path), Some(drive)) => match runtime.drive(path, false).await {
                    Ok(opened) => Some(opened),
                    Err(error) => {
                        self.report_failed(drive, format!("opening it: {error}")).await?;
                        None
                    }
                },
                _ => None,
            };
            drives.push(opened.map(|drive| (seat.invitation, drive)));
        }
        Ok(Volume {
            inner: Rc::new(Attached {
                handle: self.clone(),
                drives: RefCell::new(drives),
                writing: Default::default(),
            }),
        })
    }

    /// The volume as an operator sees it, now.
    ///
    /// # Errors
    /// [`VolumeError::Stopped`] when the keeper is gone.
    pub async fn status(&self) -> Result<VolumeStatus, VolumeError> {
        self.ask(|reply| Request::Status { reply }).await
    }

    /// From now on hears of changes.
    #[must_use]
    pub fn subscribe(&self) -> Changes {
        let (sender, receiver) = mailbox(1);
        self.shared.listen(sender);
        Changes(receiver)
    }

    /// Asks every engine to verify all that it has, now. Answers the request's number, which
    /// [`ScrubReport::answered`] reaches when that is done.
    #[must_use]
    pub fn request_scrub(&self) -> u64 {
        let number = self.shared.scrubs.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.tell();
        number
    }

    /// The last request of a scrub; 0 when there was none.
    #[must_use]
    pub fn scrub_requested(&self) -> u64 {
        self.shared.scrubs.load(Ordering::SeqCst)
    }

    /// Whether what is written is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.shared.key.is_some()
    }

    /// Asks every engine to give its tables other keys, and to rewrite what is sealed with those before. Answers the request's
    /// number: it is done when every log's [`RekeyReport::answered`] has reached it and no old bytes are left.
    #[must_use]
    pub fn request_rekey(&self) -> u64 {
        let number = self.shared.rekeys.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.tell();
        number
    }

    /// The last request for other keys; 0 when there was none.
    #[must_use]
    pub fn rekey_requested(&self) -> u64 {
        self.shared.rekeys.load(Ordering::SeqCst)
    }

    /// Has every engine look at the drives again.
    pub(crate) fn tell_engines(&self) {
        self.shared.tell();
    }

    /// Tells the keeper about a log's files.
    pub async fn report(&self, log: LogId, report: LogReport) {
        // A keeper that is gone needs no telling.
        let _ = self.requests.send(Request::Report { log, report }).await;
    }

    async fn report_failed(&self, drive: DriveIndex, why: String) -> Result<InSync, VolumeError> {
        self.ask(|reply| Request::ReportFailed { drive, why, reply })
            .await?
    }

    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(ReplySender<T>) -> Request,
    ) -> Result<T, VolumeError> {
        let (sender, answer) = reply();
        self.requests
            .send(request(sender))
            .await
            .map_err(|_| VolumeError::Stopped)?;
        answer.await.map_err(|_| VolumeError::Stopped)
    }
}

/// A drive, and the invitation it was opened under.
type Invited<R> = (u64, <R as Runtime>::Drive);

struct Attached<R: Runtime> {
    handle: VolumeHandle,
    /// By place.
    drives: RefCell<Vec<Option<Invited<R>>>>,
    /// Writes of the log in flight, by place.
    writing: [Rc<Cell<u32>>; DRIVES_MAX],
}

/// Counts a write in flight, also when its task is dropped.
pub(crate) struct Writing(Rc<Cell<u32>>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One shard's view of the node's drives. Cheap to clone.
pub struct Volume<R: Runtime> {
    inner: Rc<Attached<R>>,
}

impl<R: Runtime> Clone for Volume<R> {
    fn clone(&self) -> Volume<R> {
        Volume {
            inner: self.inner.clone(),
        }
    }
}

impl<R: Runtime> Volume<R> {
    /// The node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.handle.shared.node
    }

    /// What other shards attach to.
    #[must_use]
    pub fn handle(&self) -> VolumeHandle {
        self.inner.handle.clone()
    }

    /// The drive at a place; `None` when it was not in sync at the start nor opened since.
    #[must_use]
    pub fn drive(&self, index: DriveIndex) -> Option<R::Drive> {
        let drives = self.inner.drives.borrow();
        let (_, drive) = drives.get(index.get())?.as_ref()?;
        Some(drive.clone())
    }

    /// The places that every shard is invited to open, and the invitations' numbers.
    pub(crate) fn invitations(&self) -> Vec<(DriveIndex, u64)> {
        let shared = &self.inner.handle.shared;
        let (_, invited) = shared.look();
        let seats = shared.seats();
        let number = |index: DriveIndex| Some((index, seats.get(index.get())?.invitation));
        invited.iter().filter_map(number).collect()
    }

    /// Opens the drive of a place under the invitation there is, once for all engines of the shard; nothing when there is
    /// none. Whoever used the drive that had the place before must have forgotten it.
    pub(crate) async fn open_invited(
        &self,
        runtime: &R,
        index: DriveIndex,
    ) -> std::io::Result<Option<(u64, R::Drive)>> {
        let seats = self.inner.handle.shared.seats();
        let invited = self.invitations();
        let Some((_, number)) = invited.into_iter().find(|(other, _)| *other == index) else {
            return Ok(None);
        };
        let known = {
            let mut drives = self.inner.drives.borrow_mut();
            if drives.len() < seats.len() {
                drives.resize_with(seats.len(), || None);
            }
            drives[index.get()].clone()
        };
        if let Some((_, drive)) = known.filter(|(opened, _)| *opened == number) {
            return Ok(Some((number, drive)));
        }
        let Some(path) = seats.get(index.get()).and_then(|seat| seat.path.clone()) else {
            return Ok(None);
        };
        let drive = runtime.drive(&path, false).await?;
        self.inner.drives.borrow_mut()[index.get()] = Some((number, drive.clone()));
        Ok(Some((number, drive)))
    }

    /// To be held for as long as a write to the drive is in flight: its place is given to nobody until then.
    pub(crate) fn writing(&self, index: DriveIndex) -> Writing {
        let count = Rc::clone(&self.inner.writing[index.get()]);
        count.set(count.get() + 1);
        Writing(count)
    }

    /// Whether a write of this shard's logs to the drive is in flight.
    pub(crate) fn is_writing(&self, index: DriveIndex) -> bool {
        self.inner.writing[index.get()].get() > 0
    }

    /// Its directory, for messages; empty when unknown.
    #[must_use]
    pub fn path(&self, index: DriveIndex) -> PathBuf {
        self.inner.handle.shared.path(index).unwrap_or_default()
    }

    /// What new files may be placed on, and the places that are to be opened.
    #[must_use]
    pub fn placement(&self) -> (Placement, DriveSet) {
        self.inner.handle.shared.look()
    }

    /// The current in-sync set.
    #[must_use]
    pub fn in_sync(&self) -> InSync {
        self.inner.handle.shared.load().0
    }

    /// The current in-sync set, unless a change of it is being written: then await [`Volume::settled`].
    #[must_use]
    pub fn in_sync_settled(&self) -> Option<InSync> {
        let (in_sync, changing) = self.inner.handle.shared.load();
        (!changing).then_some(in_sync)
    }

    /// Drives that hold each file.
    #[must_use]
    pub fn mirrors(&self) -> usize {
        self.inner.handle.shared.mirrors
    }

    /// What seals the node's files; none when they are not.
    pub(crate) fn key(&self) -> Option<&Arc<NodeKey>> {
        self.inner.handle.shared.key.as_ref()
    }

    /// The in-sync drives a new file goes to; `salt` (a file's number) spreads files over the drives, those in `slow`
    /// less likely.
    #[must_use]
    pub fn choose(&self, salt: u64, slow: DriveSet) -> DriveSet {
        let (placement, _) = self.placement();
        placement.choose(salt, |index| {
            let free_bytes = self.drive(index)?.space().ok()?.free_bytes;
            Some(if slow.contains(index) {
                free_bytes / SLOW_PART
            } else {
                free_bytes
            })
        })
    }

    /// The in-sync drives that hold a file whose recorded mirror set is `named`. A drive that is not in sync holds
    /// nothing, and one that comes back is no longer named by anything.
    #[must_use]
    pub fn holders(&self, named: DriveSet) -> DriveSet {
        named.and(self.in_sync().set)
    }

    /// Waits until no epoch change is being written. To be awaited between "durable on all in-sync mirrors" and
    /// the acknowledgement.
    ///
    /// # Errors
    /// [`VolumeError`] when the change cannot be made durable: nothing may be acknowledged any more.
    pub async fn settled(&self) -> Result<InSync, VolumeError> {
        if let Some(in_sync) = self.in_sync_settled() {
            return Ok(in_sync);
        }
        self.inner.handle.ask(|reply| Request::Settled { reply }).await?
    }

    /// Takes a drive out of the in-sync set. Resolves once the change is durable; at once if it was out already.
    ///
    /// # Errors
    /// [`VolumeError::LastDrive`] and [`VolumeError::EpochNotDurable`]: nothing may be acknowledged any more.
    pub async fn report_failed(&self, drive: DriveIndex, why: String) -> Result<InSync, VolumeError> {
        self.inner.handle.report_failed(drive, why).await
    }

    /// The logs that exist, in order.
    ///
    /// # Errors
    /// [`VolumeError::Unusable`] when no in-sync drive can be listed.
    pub async fn logs(&self) -> Result<Vec<LogId>, VolumeError> {
        let mut logs = std::collections::BTreeSet::new();
        let (mut listed, mut failed) = (0, None);
        for index in self.in_sync().set.iter() {
            let Some(drive) = self.drive(index) else { continue };
            match drive.list().await {
                Ok(entries) => {
                    listed += 1;
                    logs.extend(
                        entries
                            .iter()
                            .filter_map(|entry| crate::log::log_of_name(&entry.name)),
                    );
                }
                Err(error) => failed = Some((index, error)),
            }
        }
        match failed {
            Some((index, error)) if listed == 0 => Err(VolumeError::Unusable {
                path: self.path(index),
                why: error.to_string(),
            }),
            _ => Ok(logs.into_iter().collect()),
        }
    }

    /// The in-sync drive whose room bounds what can be stored, and that room: of the drives with the most room that a
    /// new file needs, the fullest. None when no drive tells.
    #[must_use]
    pub fn bounding_space(&self) -> Option<(DriveIndex, Space)> {
        let space = |index: DriveIndex| Some((index, self.drive(index)?.space().ok()?));
        let mut spaces: Vec<_> = self.in_sync().set.iter().filter_map(space).collect();
        spaces.sort_by_key(|(_, space)| std::cmp::Reverse(space.free_bytes));
        let last = self.mirrors().min(spaces.len()).checked_sub(1)?;
        Some(spaces[last])
    }
}
