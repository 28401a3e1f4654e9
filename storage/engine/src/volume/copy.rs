//! The drive and the witness of a backup: a node of its own with one drive, made beside a node that serves.
//!
//! 1. [`CopyTarget::create`]: `DIR/drive` and `DIR/state`, locked, with superblock and witness that say "a backup, not
//!    complete". They are the first files there, so that whatever else is found beside them is known for what it is.
//! 2. Shards attach through [`CopyTarget::handle`] and write logs and segments.
//! 3. [`CopyTarget::complete`]: everything is durable; witness, then superblock say "complete". A start, a check and a rebuild
//!    refuse either of them while it does not.
//!
//! The copy has the node's id, which its segments and keys are bound to, and a copy number of its own, by which it is told from
//! the node and from other backups. Its list has one drive; others are added while it serves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_runtime::{Drive, Queue, Runtime, mailbox};

use super::keeper::Request;
use super::member::{Member, NEW_SUFFIX};
use super::open::{make_directory, random_id, unusable};
use super::shared::{Seat, Shared};
use super::superblock::{DrivePlace, MemberKind, Superblock};
use super::{DriveIndex, DriveSet, InSync, VolumeError, VolumeHandle};
use crate::canary::{self, Canary};
use crate::ids::{DriveId, Epoch};

/// Name of the drive directory in a backup.
pub const COPY_DRIVE: &str = "drive";
/// Name of the state directory in a backup.
pub const COPY_STATE: &str = "state";

/// Questions that may wait.
const REQUESTS_MAX: usize = 16;

/// The directories of a backup that is being made. Dropped before it is complete it stays one that was cut off.
pub struct CopyTarget<R: Runtime> {
    content: Superblock,
    directory: PathBuf,
    drive: R::Drive,
    state: R::Drive,
    superblock: Member<R>,
    witness: Member<R>,
    handle: VolumeHandle,
}

async fn files_of<D: Drive>(path: &Path, drive: &D) -> Result<Vec<String>, VolumeError> {
    let entries = drive.list().await.map_err(|error| unusable(path, &error))?;
    Ok(entries.into_iter().map(|entry| entry.name).collect())
}

async fn make_empty<R: Runtime>(runtime: &R, path: &Path) -> Result<R::Drive, VolumeError> {
    let drive = make_directory(runtime, path).await?;
    refuse_files(path, &drive).await?;
    Ok(drive)
}

async fn refuse_files<D: Drive>(path: &Path, drive: &D) -> Result<(), VolumeError> {
    // What was left of a file that was being created is made again.
    let own = |file: &String| file.ends_with(NEW_SUFFIX) || file == "lost+found";
    match files_of(path, drive).await?.iter().find(|file| !own(file)) {
        Some(file) => Err(VolumeError::Config(format!(
            "a backup needs a new or an empty directory, and {} holds \"{file}\"",
            path.display()
        ))),
        None => Ok(()),
    }
}

impl<R: Runtime> CopyTarget<R> {
    /// Makes the directories of a backup of `origin` in `directory`, which must be new or empty.
    ///
    /// # Errors
    /// [`VolumeError`], naming the directory.
    pub async fn create(
        runtime: R,
        origin: &VolumeHandle,
        directory: &Path,
    ) -> Result<CopyTarget<R>, VolumeError> {
        let places = (0..super::DRIVES_MAX).filter_map(DriveIndex::new);
        let whole = runtime.resolve(directory);
        for path in places.filter_map(|index| origin.shared.path(index)) {
            let drive = runtime.resolve(&path);
            if whole.starts_with(&drive) || drive.starts_with(whole.join(COPY_DRIVE)) {
                return Err(VolumeError::Config(format!(
                    "{} is on the node's drive {}: a backup needs a directory of its own",
                    directory.display(),
                    path.display()
                )));
            }
        }
        let content = origin.ask(|reply| Request::Content { reply }).await?;
        let top = runtime.drive(directory, true).await;
        let top = top.map_err(|error| unusable(directory, &error))?;
        refuse_files(directory, &top).await?;
        let (drive_path, state_path) = (directory.join(COPY_DRIVE), directory.join(COPY_STATE));
        let drive = make_empty(&runtime, &drive_path).await?;
        let state = make_empty(&runtime, &state_path).await?;

        let epoch = Epoch(content.promised.0 + 1);
        let first = DriveIndex::new(0).expect("there is a first place");
        let id = DriveId(random_id(&runtime));
        let content = Superblock {
            kind: MemberKind::Drive,
            sequence: 0,
            copy: runtime.random_u64().max(1),
            incomplete: !canary::is_in(Canary::CompleteFirst),
            drive: id,
            promised: epoch,
            epoch,
            in_sync: DriveSet::EMPTY.with(first),
            removed: DriveSet::EMPTY,
            retired: DriveSet::EMPTY,
            mirrors: 1,
            guarantee: 1,
            joining: DriveSet::EMPTY,
            drives: vec![DrivePlace { id, joined: epoch }],
            ..content
        };
        let superblock = Member::create(&runtime, &drive, &content).await;
        let superblock = superblock.map_err(|error| unusable(&drive_path, &error))?;
        let witness = Member::create(&runtime, &state, &witness_of(&content)).await;
        let witness = witness.map_err(|error| unusable(&state_path, &error))?;
        sync_parents(&runtime, directory, &top)
            .await
            .map_err(|error| unusable(directory, &error))?;

        let seats = vec![Seat {
            id,
            path: Some(drive_path),
            invitation: 0,
        }];
        let shared = Arc::new(Shared::new(content.node, 1, origin.shared.key.clone(), seats));
        let handle = serve(&runtime, shared, content.epoch, content.in_sync);
        Ok(CopyTarget {
            content,
            directory: directory.to_owned(),
            drive,
            state,
            superblock,
            witness,
            handle,
        })
    }

    /// What shards attach to.
    #[must_use]
    pub fn handle(&self) -> VolumeHandle {
        self.handle.clone()
    }

    /// Everything has been written, and files and directory synced: says so, durably.
    ///
    /// # Errors
    /// [`VolumeError::Unusable`]: whether the backup is complete is not known; it is whole.
    pub async fn complete(mut self) -> Result<(), VolumeError> {
        let path = self.directory.clone();
        let content = Superblock {
            incomplete: false,
            ..self.content.clone()
        };
        let completed = async {
            self.drive.sync().await?;
            self.witness.write(witness_of(&content)).await?;
            self.superblock.write(content).await
        };
        completed.await.map_err(|error| unusable(&path, &error))
    }

    /// Deletes what has been written, the superblock last: the directories can be used again. What cannot be deleted is left,
    /// as a backup that was cut off.
    pub async fn abandon(self) {
        for (drive, own) in [(&self.drive, "superblock"), (&self.state, "witness")] {
            let Ok(entries) = drive.list().await else { continue };
            let mut kept = false;
            for entry in entries.iter().filter(|entry| entry.name != own) {
                kept |= drive.remove(&entry.name).await.is_err();
            }
            // The rest is told from a whole one by this alone.
            if !kept && drive.sync().await.is_ok() {
                let _ = drive.remove(own).await;
            }
        }
    }
}

fn witness_of(content: &Superblock) -> Superblock {
    Superblock {
        kind: MemberKind::Witness,
        drive: DriveId(0),
        ..content.clone()
    }
}

/// Makes the directories themselves durable: each is an entry in the one above.
async fn sync_parents<R: Runtime>(runtime: &R, directory: &Path, top: &R::Drive) -> io::Result<()> {
    top.sync().await?;
    for parent in directory.ancestors().skip(1) {
        // One that cannot be opened for reading was not made by us.
        if let Ok(parent) = runtime.drive(parent, false).await {
            parent.sync().await?;
        }
    }
    Ok(())
}

/// Answers those who write the copy: the one drive is in sync and stays so; what it refuses ends the backup.
fn serve<R: Runtime>(runtime: &R, shared: Arc<Shared>, epoch: Epoch, set: DriveSet) -> VolumeHandle {
    let in_sync = InSync { epoch, set };
    shared.publish(in_sync, DriveSet::EMPTY, 1);
    let (sender, mut requests) = mailbox::mailbox(REQUESTS_MAX);
    let answering = shared.clone();
    // Ends with the last handle.
    runtime.spawn(Queue::Foreground, async move {
        while let Some(request) = requests.recv().await {
            match request {
                Request::ReportFailed { drive, why, reply } => {
                    let path = answering.path(drive).map_or_else(PathBuf::new, PathBuf::from);
                    reply.send(Err(VolumeError::Unusable { path, why }));
                }
                Request::Settled { reply } => reply.send(Ok(in_sync)),
                Request::Status { reply } => drop(reply),
                Request::Content { reply } => drop(reply),
                Request::Begin { reply, .. } => drop(reply),
                Request::Turn { reply, .. } => drop(reply),
                // Nobody asks.
                Request::Report { .. } | Request::Told(_) | Request::Look => {}
                Request::Stop => break,
            }
        }
    });
    VolumeHandle {
        shared,
        requests: sender,
    }
}
