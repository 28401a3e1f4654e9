//! Drives come and go while the node serves; a stopped node is opened for it ([`crate::rebuild`]). One operation at a time.
//!
//! **A drive is taken in** ([`Operation::Add`], [`Operation::Rebuild`]):
//! 1. *Look*: what is in the directory? Anything that is not ours is refused, and drives of other nodes, those that an operator
//!    has removed, a directory that is in another drive's or has one in it, and an empty one that is to replace a drive when
//!    none is lost. What is refused is left as it was found.
//! 2. *Verify*, if the drive holds anything: every block of every segment is read on the in-sync drives. What none of them
//!    has ends the operation before anything is deleted: the stale drive may be the last to have it.
//! 3. *Open*: a blank drive gets a place, under a new drive id that is made durable by an epoch change **before** the
//!    id's superblock is written; a drive that had the place is a stranger from then on. A stale drive keeps its own.
//!    All engines are invited to open the place. One answers when no file of its log names the place any more, nothing
//!    it wrote there is in flight, and every handle of the old drive is forgotten.
//! 4. *Empty*: everything but the superblock is deleted. Nobody knows of a file there any more.
//! 5. An epoch change puts the drive, empty, into the in-sync set as **joining**: new files go to it, nothing depends on it.
//! 6. *Copy*: the engines give it copies of what has too few ([`crate::engine`], `remirror`). When all say that every file has
//!    as many holders as there are mirrors, the next epoch makes it a drive like the others.
//!
//! A crash leaves the node after one of the epoch changes or before it. Until step 6 has ended the drive may be lost again at
//! no cost.
//!
//! **A drive is removed** ([`Operation::Remove`]): it is marked as leaving, so that no new file goes to it; the engines
//! copy what it holds elsewhere; when no file names it any more, an epoch change takes it out of set and majority. One
//! that is out of sync is taken off at once: every file has a holder among those in sync.
//!
//! **Votes.** A new drive has none until it is taken into the set, so that a node that loses a drive meanwhile is no
//! worse off. When the others have copied what a lost drive held, it loses its vote if it cannot be written: it neither
//! stands in the way of the one that replaces it, nor makes the next loss one too many; a rebuild gives the vote back. If
//! no majority can be written, nothing changes.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{Drive, Runtime};

use super::keeper::Request;
use super::member::{Member, NEW_SUFFIX, SUPERBLOCK_NAME};
use super::open;
use super::superblock::{MemberKind, Quorum, Superblock};
use super::{DriveIndex, DriveStatus, VolumeError, VolumeHandle, VolumeStatus};
use crate::ids::DriveId;
use crate::log::log_of_name;
use crate::phase::{self, Phase};
use crate::tree::segment_of_file_name;

/// How often an operation looks how far the engines are.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a place may still be busy with a write to the superblock of the drive that had it: one that was begun before that
/// failed ends soon, unless the device hangs.
const SEAT_WAIT: Duration = Duration::from_secs(10);

/// What an operator may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Take in an empty directory.
    Add(PathBuf),
    /// Take in a drive that is out of sync, or an empty directory.
    Rebuild(PathBuf),
    /// Empty a drive and take it off the list; for one without a directory its place in the list.
    Remove(PathBuf),
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Add(path) => write!(formatter, "adding {}", path.display()),
            Operation::Rebuild(path) => write!(formatter, "rebuilding {}", path.display()),
            Operation::Remove(drive) => write!(formatter, "removing {}", drive.display()),
        }
    }
}

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Looking at the directory.
    Look,
    /// Verifying what the other drives have.
    Verify,
    /// Waiting until nothing depends on the drive that had the place.
    Open,
    /// Deleting what is on the drive.
    Empty,
    /// Copying to the drive.
    Copy,
    /// Copying to other drives.
    Move,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Step::Look => "looking at the directory",
            Step::Verify => "verifying what the other drives have",
            Step::Open => "waiting until no file names the place",
            Step::Empty => "emptying the directory",
            Step::Copy => "copying to the drive",
            Step::Move => "copying to other drives",
        })
    }
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperationState {
    /// It goes on.
    Running {
        /// What is being done.
        step: Step,
        /// Bytes done in this step.
        bytes_done: u64,
        /// Bytes to do in this step, as far as is known.
        bytes_total: u64,
    },
    /// What was asked for is true.
    Done(String),
    /// It is not, and why.
    Failed(String),
}

impl OperationState {
    pub(super) fn begun() -> OperationState {
        OperationState::Running {
            step: Step::Look,
            bytes_done: 0,
            bytes_total: 0,
        }
    }
}

/// The last operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationStatus {
    /// Counts the operations since the start.
    pub number: u64,
    /// What was asked for.
    pub operation: Operation,
    /// How far it is.
    pub state: OperationState,
}

/// What an operation gives to the keeper, beside its mailbox: it cannot leave the shard.
pub(super) struct Handed<R: Runtime> {
    pub(super) drive: R::Drive,
    /// Whether this handle holds the lock; else the keeper's does.
    pub(super) locked: bool,
    pub(super) member: Option<Member<R>>,
}

/// What an operation asks of the keeper.
#[derive(Debug)]
pub(super) enum Turn {
    /// The directory by the name that the node has for it; it may be a `new` drive's.
    Name { path: PathBuf, new: bool },
    /// Is the directory on this device locked by the keeper?
    Holds { path: PathBuf, device: u64 },
    /// A place for the drive handed over; one with this id is known. A new one may replace a drive that is not there. `No` while
    /// a write of the drive that had the place is in flight; what was handed over then waits for the next turn.
    Seat {
        path: PathBuf,
        known: Option<DriveId>,
        replaces: bool,
    },
    /// The member handed over has been written.
    Written { index: DriveIndex },
    /// Have every engine open the place.
    Invite { index: DriveIndex },
    /// Not after all.
    Withdraw { index: DriveIndex },
    /// Has every engine answered?
    Ready { index: DriveIndex },
    /// Take the drive into the set.
    Admit { index: DriveIndex },
    /// Nothing new goes to the drive.
    Leave { index: DriveIndex },
    /// Not after all.
    Stay { index: DriveIndex },
    /// Take the drive off the list.
    Retire { index: DriveIndex },
}

/// What the keeper answers.
#[derive(Debug)]
pub(super) enum Seated {
    /// The place, and what a new superblock there says.
    At(DriveIndex, Option<Box<Superblock>>),
    /// The directory.
    Named(PathBuf),
    /// Done.
    Yes,
    /// Not yet.
    No,
}

/// Whether a node writes files of this name to its drives.
pub(crate) fn is_ours(name: &str) -> bool {
    let whole = name
        .strip_suffix(NEW_SUFFIX)
        .or(name.strip_suffix(".part"))
        .unwrap_or(name);
    whole == SUPERBLOCK_NAME || log_of_name(whole).is_some() || segment_of_file_name(whole).is_some()
}

/// Carries out an operation, and tells the keeper how it ended.
pub(super) async fn run<R: Runtime>(
    runtime: R,
    handle: VolumeHandle,
    operation: Operation,
    handed: Rc<RefCell<Option<Handed<R>>>>,
) {
    let _phase = phase::enter(Phase::Rebuild);
    let work = Work {
        runtime,
        handle,
        handed,
    };
    let result = match operation {
        Operation::Add(path) => work.restore(&path, true).await,
        Operation::Rebuild(path) => work.restore(&path, false).await,
        Operation::Remove(drive) => work.remove(&drive).await,
    };
    let state = match result {
        Ok(done) => OperationState::Done(done),
        Err(why) => OperationState::Failed(why),
    };
    work.handle.tell(state).await;
}

struct Work<R: Runtime> {
    runtime: R,
    handle: VolumeHandle,
    handed: Rc<RefCell<Option<Handed<R>>>>,
}

/// What a directory to be taken in holds.
struct Directory<R: Runtime> {
    drive: R::Drive,
    locked: bool,
    /// The drive it is, and its superblock.
    member: Option<(DriveId, Member<R>)>,
    /// Whether anything is to be deleted.
    has_files: bool,
}

fn words(error: VolumeError) -> String {
    error.to_string()
}

impl<R: Runtime> Work<R> {
    async fn turn(&self, turn: Turn) -> Result<Seated, String> {
        self.handle.turn(turn).await.map_err(words)
    }

    async fn status(&self) -> Result<VolumeStatus, String> {
        self.handle.status().await.map_err(words)
    }

    async fn tell(&self, step: Step, bytes_done: u64, bytes_total: u64) {
        let state = OperationState::Running {
            step,
            bytes_done,
            bytes_total,
        };
        self.handle.tell(state).await;
    }

    async fn named(&self, path: &Path, new: bool) -> Result<PathBuf, String> {
        let path = path.to_owned();
        match self.turn(Turn::Name { path, new }).await? {
            Seated::Named(path) => Ok(path),
            other => unreachable!("a name is answered with a name: {other:?}"),
        }
    }

    async fn restore(&self, asked: &Path, only_blank: bool) -> Result<String, String> {
        let path = &*self.named(asked, true).await?;
        let shown = path.display();
        let status = self.status().await?;
        let at_path = |status: &VolumeStatus| {
            let mut drives = status.drives.iter().cloned();
            drives.find(|drive| drive.path.as_deref() == Some(path))
        };
        let known = at_path(&status);
        let index = if let Some(drive) = known.as_ref().filter(|drive| drive.in_sync) {
            if !drive.joining {
                return Ok(format!("{shown} is in sync already"));
            }
            drive.index
        } else {
            let directory = self.look(path, &status, only_blank).await?;
            if directory.has_files {
                self.verify(path).await?;
            }
            let (drive, has_files) = (directory.drive.clone(), directory.has_files);
            let index = self.seat(path, directory, !only_blank).await?;
            let admitted = self.admit(path, index, &drive, has_files).await;
            if admitted.is_err() {
                self.turn(Turn::Withdraw { index }).await?;
            }
            admitted?;
            index
        };
        self.copied(path, index).await?;
        let status = self.status().await?;
        let epoch = status.in_sync.epoch;
        Ok(format!("{shown} is in sync, epoch {epoch}"))
    }

    /// Opens and locks a directory, and refuses what may not be overwritten.
    async fn look(
        &self,
        path: &Path,
        status: &VolumeStatus,
        only_blank: bool,
    ) -> Result<Directory<R>, String> {
        let drive = self.runtime.drive(path, true).await;
        let drive = drive.map_err(|error| words(open::unusable(path, &error)))?;
        let looked = self.look_into(drive.clone(), path, status, only_blank).await;
        if looked.is_err() {
            drive.abandon();
        }
        looked
    }

    async fn look_into(
        &self,
        drive: R::Drive,
        path: &Path,
        status: &VolumeStatus,
        only_blank: bool,
    ) -> Result<Directory<R>, String> {
        let unusable = |error: io::Error| words(open::unusable(path, &error));
        let locked = match drive.lock() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let (path, device) = (path.to_owned(), drive.device());
                let holds = Turn::Holds {
                    path: path.clone(),
                    device,
                };
                if matches!(self.turn(holds).await?, Seated::No) {
                    return Err(words(VolumeError::InUse(path)));
                }
                false
            }
            Err(error) => return Err(unusable(error)),
        };
        let names = open::names_in(&drive).await.map_err(unusable)?;
        if let Some(foreign) = names.iter().find(|name| !is_ours(name)) {
            return Err(format!(
                "{} holds \"{foreign}\", which is no file of this node: the directory will be emptied, so move it elsewhere \
                 first",
                path.display()
            ));
        }
        let opened = Member::open(&self.runtime, &drive, MemberKind::Drive).await;
        let member = match opened {
            Ok((member, Quorum::Valid { superblock, .. })) => {
                if superblock.node != status.node {
                    return Err(words(VolumeError::AnotherNode {
                        path: path.to_owned(),
                        found: superblock.node,
                        expected: status.node,
                    }));
                }
                Some((superblock.drive, member))
            }
            Ok((_, Quorum::TooNew(what))) => {
                let path = path.to_owned();
                return Err(words(VolumeError::TooNew { path, what }));
            }
            Ok((_, Quorum::Damaged)) => {
                return Err(format!(
                    "the superblock in {} is damaged in all copies: empty the directory to have it taken as a new drive",
                    path.display()
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unusable(error)),
        };
        if let Some((id, _)) = &member {
            let shown = path.display();
            let place = status.drives.iter().find(|drive| drive.id == *id);
            match place {
                None => {
                    return Err(format!(
                        "{shown} holds a drive whose place another one has taken: empty the directory to have it taken as a \
                         new drive"
                    ));
                }
                Some(place) if place.retired => {
                    return Err(format!(
                        "{shown} was removed from this node: to have it taken in again, empty the directory, then `cairn \
                         drives add {shown}`"
                    ));
                }
                Some(_) if only_blank => {
                    return Err(format!(
                        "{shown} is a drive of this node that is out of sync: `cairn drives rebuild {shown}` makes it a \
                         mirror again"
                    ));
                }
                Some(_) => {}
            }
        }
        let new = format!("{SUPERBLOCK_NAME}{NEW_SUFFIX}");
        let data = |name: &str| name != SUPERBLOCK_NAME && name != new && is_ours(name);
        let file = names.into_iter().find(|name| data(name));
        match (file, &member) {
            (Some(file), None) => Err(words(VolumeError::Foreign {
                path: path.to_owned(),
                file,
            })),
            (file, _) => Ok(Directory {
                drive,
                locked,
                member,
                has_files: file.is_some(),
            }),
        }
    }

    /// What acknowledged data needs and no in-sync drive has, in words.
    fn lost(path: &Path, status: &VolumeStatus) -> Option<String> {
        let what = status
            .logs
            .iter()
            .find_map(|(_, report)| report.places.lost.clone())?;
        Some(not_rebuilt(path, &what))
    }

    /// Has everything read that the in-sync drives hold.
    async fn verify(&self, path: &Path) -> Result<(), String> {
        let lost =
            |status: &VolumeStatus| -> u64 { status.logs.iter().map(|(_, report)| report.scrub.lost).sum() };
        let before = lost(&self.status().await?);
        let number = self.handle.request_scrub();
        loop {
            let status = self.status().await?;
            if let Some(why) = Self::lost(path, &status) {
                return Err(why);
            }
            if lost(&status) > before {
                let what = "segments are damaged on every one of them";
                return Err(not_rebuilt(path, what));
            }
            let scrubs = || status.logs.iter().map(|(_, report)| report.scrub);
            if !status.logs.is_empty() && scrubs().all(|scrub| scrub.answered >= number) {
                return Ok(());
            }
            let done = scrubs().map(|scrub| scrub.bytes_done).sum();
            let total = scrubs().map(|scrub| scrub.bytes_total).sum();
            self.tell(Step::Verify, done, total).await;
            self.runtime.sleep(LOOK_AGAIN).await;
        }
    }

    async fn seat(&self, path: &Path, directory: Directory<R>, replaces: bool) -> Result<DriveIndex, String> {
        let Directory {
            drive,
            locked,
            member,
            ..
        } = directory;
        let (known, member) = match member {
            Some((id, member)) => (Some(id), Some(member)),
            None => (None, None),
        };
        *self.handed.borrow_mut() = Some(Handed {
            drive: drive.clone(),
            locked,
            member,
        });
        let given = self.place(path, known, replaces).await;
        if given.is_err() {
            // No place names it.
            self.handed.borrow_mut().take();
            drive.abandon();
        }
        let (index, written) = given?;
        if let Some(superblock) = written {
            // When that fails, the place has no vote, and the next attempt has it again.
            let member = Member::create(&self.runtime, &drive, &superblock).await;
            let member = member.map_err(|error| words(open::unusable(path, &error)))?;
            *self.handed.borrow_mut() = Some(Handed {
                drive,
                locked,
                member: Some(member),
            });
            self.turn(Turn::Written { index }).await?;
        }
        Ok(index)
    }

    /// Waits for a place for what has been handed over, and gives what a new superblock there says.
    async fn place(
        &self,
        path: &Path,
        known: Option<DriveId>,
        replaces: bool,
    ) -> Result<(DriveIndex, Option<Box<Superblock>>), String> {
        let begun = self.runtime.now();
        loop {
            let seat = Turn::Seat {
                path: path.to_owned(),
                known,
                replaces,
            };
            match self.turn(seat).await? {
                Seated::At(index, written) => return Ok((index, written)),
                Seated::No if self.runtime.now().since(begun) < SEAT_WAIT => {
                    self.runtime.sleep(LOOK_AGAIN).await;
                }
                Seated::No => {
                    return Err(format!(
                        "{} is not taken in: a write to the superblock of the drive that had its place has been under way \
                         for {} s; try again when the device answers, or restart the node",
                        path.display(),
                        SEAT_WAIT.as_secs()
                    ));
                }
                other => unreachable!("a seat is a place, or none yet: {other:?}"),
            }
        }
    }

    /// Steps 3 to 5.
    async fn admit(
        &self,
        path: &Path,
        index: DriveIndex,
        drive: &R::Drive,
        has_files: bool,
    ) -> Result<(), String> {
        self.turn(Turn::Invite { index }).await?;
        self.tell(Step::Open, 0, 0).await;
        while matches!(self.turn(Turn::Ready { index }).await?, Seated::No) {
            let status = self.status().await?;
            // From a drive that holds nothing, nothing can be taken.
            if let Some(why) = Self::lost(path, &status).filter(|_| has_files) {
                return Err(why);
            }
            let mut reports = status.logs.iter();
            if let Some(why) = reports.find_map(|(_, report)| report.places.refused.clone()) {
                return Err(format!(
                    "{} is not rebuilt: a shard cannot open {why}",
                    path.display()
                ));
            }
            self.runtime.sleep(LOOK_AGAIN).await;
        }
        self.tell(Step::Empty, 0, 0).await;
        let emptied = async {
            for entry in drive.list().await? {
                if is_ours(&entry.name) && entry.name != SUPERBLOCK_NAME {
                    drive.remove(&entry.name).await?;
                }
            }
            drive.sync().await
        };
        let emptied: io::Result<()> = emptied.await;
        emptied.map_err(|error| format!("{} is not rebuilt: emptying it: {error}", path.display()))?;
        while matches!(self.turn(Turn::Admit { index }).await?, Seated::No) {
            self.runtime.sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Waits until the drive is one like the others.
    async fn copied(&self, path: &Path, index: DriveIndex) -> Result<(), String> {
        let mut total = 0;
        loop {
            let status = self.status().await?;
            let drive = status.drives.iter().find(|drive| drive.index == index);
            let drive = drive.expect("a place stays in the list");
            if !drive.in_sync {
                return Err(format!("{} is not rebuilt: {}", path.display(), drive.why));
            }
            if !drive.joining {
                return Ok(());
            }
            let lost = status
                .logs
                .iter()
                .find_map(|(_, report)| report.places.lost.as_ref());
            if let Some(lost) = lost {
                return Err(format!(
                    "{} takes new files, but what is on it is not complete, as no drive has everything: {lost}. \
                     `cairn check` on the stopped node lists all damage",
                    path.display()
                ));
            }
            let left = status.logs.iter().map(|(_, report)| report.places.bytes_left);
            let left: u64 = left.sum();
            total = total.max(left);
            self.tell(Step::Copy, total - left, total).await;
            self.runtime.sleep(LOOK_AGAIN).await;
        }
    }

    async fn remove(&self, asked: &Path) -> Result<String, String> {
        let status = self.status().await?;
        let which = asked.display();
        let path = &*self.named(asked, false).await?;
        let named = |drive: &&DriveStatus| match &drive.path {
            Some(known) => known == path,
            None => Path::new(&drive.index.to_string()) == asked,
        };
        let Some(drive) = status.drives.iter().find(named) else {
            return Err(format!(
                "{which} is neither a drive's directory nor its place: see `cairn drives list`"
            ));
        };
        let index = drive.index;
        if drive.retired {
            return Ok(format!("{which} is removed already"));
        }
        let failed = |why: String| format!("{which} is not removed: {why}");
        if drive.in_sync {
            self.turn(Turn::Leave { index }).await.map_err(failed)?;
        }
        let left = self.wait_empty(index, drive.in_sync).await;
        if left.is_err() {
            self.turn(Turn::Stay { index }).await?;
        }
        left.map_err(failed)?;
        Ok(format!(
            "{which} is no drive of this node any more; take it out of the configuration before the next start"
        ))
    }

    async fn wait_empty(&self, index: DriveIndex, in_sync: bool) -> Result<(), String> {
        let mut total = 0;
        while matches!(self.turn(Turn::Retire { index }).await?, Seated::No) {
            let status = self.status().await?;
            let drive = status.drives.iter().find(|drive| drive.index == index);
            let drive = drive.expect("a place stays in the list");
            if in_sync && !drive.in_sync {
                return Err(format!("it has failed: {}", drive.why));
            }
            let rest = status
                .drives
                .iter()
                .filter(|other| other.in_sync && other.index != index);
            if in_sync && rest.count() < status.mirrors {
                return Err("another drive was lost, and it is needed".to_owned());
            }
            let left = status.logs.iter().map(|(_, report)| report.places.bytes_left);
            let left: u64 = left.sum();
            total = total.max(left);
            self.tell(Step::Move, total - left, total).await;
            self.runtime.sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

fn not_rebuilt(path: &Path, what: &str) -> String {
    format!(
        "{} is not rebuilt, and nothing on it was changed, as no in-sync drive has everything: {what}. `cairn check` on \
         the stopped node lists all damage; to give up what only this drive may have, empty the directory",
        path.display()
    )
}

impl VolumeHandle {
    /// Begins an operation; [`VolumeStatus::operation`] says how far it is. The answer is its number.
    ///
    /// # Errors
    /// [`VolumeError::Busy`] while another is under way.
    pub async fn begin(&self, operation: Operation) -> Result<u64, VolumeError> {
        self.ask(|reply| Request::Begin { operation, reply }).await?
    }

    async fn turn(&self, turn: Turn) -> Result<Seated, VolumeError> {
        self.ask(|reply| Request::Turn { turn, reply }).await?
    }

    async fn tell(&self, state: OperationState) {
        // A keeper that is gone needs no telling.
        let _ = self.requests.send(Request::Told(state)).await;
    }
}
