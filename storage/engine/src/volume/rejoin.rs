//! How a drive becomes a member again, while the node is stopped.
//!
//! 1. [`Offline::open`]: everything is locked, and the in-sync set decided, as a start would.
//! 2. [`Offline::seat`]: a blank directory takes the place of a drive that is missing, under a new drive id. The list
//!    with that id is made durable by an epoch change **before** the id's superblock is written: from then on the
//!    drive that held the place is a stranger, and the new one a stale member. A stale member keeps its identity.
//! 3. Somebody copies everything to it; [`Offline::volume`] shows him the drives.
//! 4. [`Offline::admit`]: an epoch change puts it into the in-sync set and records the epoch it joined in.
//!
//! A crash leaves the node after one of the two epoch changes or before it, and never with a member that was not told
//! complete. **Majorities.** The change of step 2 is written only to members of both the old list and the new one,
//! and needs as many as either's majority; so it meets every majority of the old list, the lost drive's included.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cairn_runtime::{Drive, Queue, Runtime, mailbox};

use super::keeper::{Copy, Request, Task};
use super::member::Member;
use super::open::{self, Outside, Resumed};
use super::shared::Shared;
use super::superblock::{DrivePlace, MemberKind, Superblock};
use super::{
    Attached, DriveIndex, DriveSet, InSync, Volume, VolumeConfig, VolumeError, VolumeHandle, VolumeStatus,
};
use crate::ids::{DriveId, Epoch};
use crate::sealing::RootKey;

/// Questions that may wait; nobody asks more than one at a time.
const REQUESTS_MAX: usize = 16;

/// How long the process may wait for copies that a majority can do without.
const WRITTEN_LIMIT: Duration = Duration::from_secs(5);

/// A stopped node whose drives are locked.
pub(crate) struct Offline<R: Runtime> {
    runtime: R,
    task: Task<R>,
    /// Drives that are there and have a place.
    drives: Vec<Option<R::Drive>>,
    paths: Vec<Option<PathBuf>>,
    outside: Vec<Outside<R>>,
}

/// A configured directory, and its drive when there is one.
type Directory<R> = (PathBuf, Option<<R as Runtime>::Drive>);

/// A drive with a place in the list that is not in sync.
pub(crate) struct Seat<R: Runtime> {
    pub(crate) index: DriveIndex,
    pub(crate) path: PathBuf,
    pub(crate) drive: R::Drive,
}

impl<R: Runtime> Offline<R> {
    /// Opens the node as a start would, and nothing more.
    pub(crate) async fn open(runtime: R, config: &VolumeConfig) -> Result<Offline<R>, VolumeError> {
        let Resumed {
            task,
            drives,
            outside,
        } = open::open_existing(&runtime, config).await?;
        let places = (0..task.content.drives.len()).filter_map(DriveIndex::new);
        let paths = places
            .map(|index| task.shared.path(index).map(Path::to_owned))
            .collect();
        Ok(Offline {
            runtime,
            task,
            drives,
            paths,
            outside,
        })
    }

    /// Directories that are not in sync, and their drives where there are any.
    pub(crate) fn outside(&self) -> Result<Vec<Directory<R>>, VolumeError> {
        let one = |outside: &Outside<R>| match outside {
            Outside::Blank { path, drive } => Ok((path.clone(), drive.clone())),
            Outside::Stale { path, drive, .. } => Ok((path.clone(), Some(drive.clone()))),
            Outside::Unreadable { path, why } => Err(VolumeError::Unusable {
                path: path.clone(),
                why: why.clone(),
            }),
        };
        self.outside.iter().map(one).collect()
    }

    /// Gives the next directory that is not in sync its place; `None` when there is none left.
    pub(crate) async fn seat(&mut self) -> Result<Option<Seat<R>>, VolumeError> {
        if self.outside.is_empty() {
            return Ok(None);
        }
        let (index, path, drive) = match self.outside.remove(0) {
            Outside::Unreadable { path, why } => return Err(VolumeError::Unusable { path, why }),
            Outside::Stale {
                path,
                drive,
                index,
                member,
            } => {
                if let Some(member) = member {
                    let id = self.task.content.drives[index.get()].id;
                    self.task.copies.push(Copy::new(Some((index, id)), member));
                    self.count_again(index, self.task.content.drives.clone()).await?;
                }
                (index, path, drive)
            }
            Outside::Blank { path, drive } => {
                let drive = match drive {
                    Some(drive) => drive,
                    None => open::make_directory(&self.runtime, &path).await?,
                };
                (self.take_place(&path, &drive).await?, path, drive)
            }
        };
        self.drives[index.get()] = Some(drive.clone());
        self.paths[index.get()] = Some(path.clone());
        Ok(Some(Seat { index, path, drive }))
    }

    /// Makes a list durable in which the drive at `index` counts for majorities.
    async fn count_again(&mut self, index: DriveIndex, drives: Vec<DrivePlace>) -> Result<(), VolumeError> {
        let content = &self.task.content;
        let next = Superblock {
            removed: content.removed.without(index),
            drives,
            ..content.clone()
        };
        self.task.change_to(next, 1).await
    }

    async fn take_place(&mut self, path: &Path, drive: &R::Drive) -> Result<DriveIndex, VolumeError> {
        let places = (0..self.drives.len()).filter_map(DriveIndex::new);
        let free = places
            .into_iter()
            .find(|index| self.drives[index.get()].is_none());
        let index = free.ok_or_else(|| VolumeError::NotMember(path.to_owned()))?;
        let id = DriveId(open::random_id(&self.runtime));
        let mut list = self.task.content.drives.clone();
        list[index.get()] = DrivePlace { id, joined: Epoch(0) };
        self.count_again(index, list).await?;
        let superblock = Superblock {
            kind: MemberKind::Drive,
            drive: id,
            ..self.task.content.clone()
        };
        let member = Member::create(&self.runtime, drive, &superblock)
            .await
            .map_err(|error| open::unusable(path, &error))?;
        self.task.copies.push(Copy::new(Some((index, id)), member));
        self.task.devices[index.get()] = Some(drive.device());
        let (mut others, mut other_paths) = (Vec::new(), Vec::new());
        for (other, path) in self.drives.iter().zip(&self.paths) {
            if let (Some(other), Some(path)) = (other, path)
                && other.device() == drive.device()
            {
                others.push(other.clone());
                other_paths.push(path.clone());
            }
        }
        others.truncate(1);
        other_paths.truncate(1);
        others.push(drive.clone());
        other_paths.push(path.to_owned());
        self.task
            .warnings
            .extend(open::shared_devices(&other_paths, &others));
        Ok(index)
    }

    /// The in-sync drives, and those of `more` as if they were. Nothing can be taken out of this set: a drive that
    /// fails ends the rebuild.
    pub(crate) fn volume(&self, more: DriveSet) -> Volume<R> {
        self.view(DriveSet::from_bits(
            self.task.content.in_sync.bits() | more.bits(),
        ))
    }

    /// One drive alone, as if it were in sync.
    pub(crate) fn alone(&self, index: DriveIndex) -> Volume<R> {
        self.view(DriveSet::EMPTY.with(index))
    }

    fn view(&self, set: DriveSet) -> Volume<R> {
        let content = &self.task.content;
        let shared = Arc::new(Shared::new(
            content.node,
            self.task.shared.mirrors,
            self.task.shared.key.clone(),
            self.paths.clone(),
        ));
        let in_sync = InSync {
            epoch: content.epoch,
            set,
        };
        shared.publish(in_sync);
        let (sender, mut requests) = mailbox::mailbox(REQUESTS_MAX);
        let answering = shared.clone();
        // Ends with the last clone of the volume.
        self.runtime.spawn(Queue::Foreground, async move {
            while let Some(request) = requests.recv().await {
                match request {
                    Request::ReportFailed { drive, why, reply } => {
                        let path = answering.path(drive).map_or_else(PathBuf::new, PathBuf::from);
                        reply.send(Err(VolumeError::Unusable { path, why }));
                    }
                    Request::Settled { reply } => reply.send(Ok(in_sync)),
                    Request::Status { reply } => drop(reply),
                    // Nobody asks.
                    Request::Report { .. } => {}
                    Request::Stop => break,
                }
            }
        });
        let keep = |index: usize| DriveIndex::new(index).is_some_and(|index| set.contains(index));
        let drives = self.drives.iter().enumerate();
        let drives = drives
            .map(|(index, drive)| drive.clone().filter(|_| keep(index)))
            .collect();
        let handle = VolumeHandle {
            shared,
            requests: sender,
        };
        Volume {
            inner: Rc::new(Attached { handle, drives }),
        }
    }

    /// Puts a drive that holds everything into the in-sync set: durable when this returns.
    pub(crate) async fn admit(&mut self, index: DriveIndex) -> Result<(), VolumeError> {
        let content = &self.task.content;
        let (set, removed) = (content.in_sync.with(index), content.removed);
        self.task.change(set, removed, 1).await?;
        self.task.why[index.get()].clear();
        // Not needed for what was promised; but the next start finds all copies alike.
        self.task.all_written(WRITTEN_LIMIT).await;
        Ok(())
    }

    /// Wraps the node key with another root key: durable when this returns. Answers how many copies of the wrapped key
    /// have been written; those that have not still open with the old one.
    pub(crate) async fn rewrap(&mut self, root: &RootKey) -> Result<usize, VolumeError> {
        let key = self.task.shared.key.clone();
        let key = key.ok_or(VolumeError::EncryptionMismatch { encrypted: false })?;
        let next = Superblock {
            key: Some(root.wrap(&self.runtime, &key)),
            ..self.task.content.clone()
        };
        self.task.change_to(next, 1).await?;
        self.task.all_written(WRITTEN_LIMIT).await;
        Ok(self.task.written())
    }

    /// The node as it is now.
    pub(crate) fn status(&self) -> VolumeStatus {
        let mut status = self.task.status();
        for (drive, path) in status.drives.iter_mut().zip(&self.paths) {
            drive.path.clone_from(path);
        }
        status
    }
}
