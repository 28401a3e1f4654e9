//! The operator of a node whose drives come and go while clients work.
//!
//! He takes drives away, at any moment, for good or to bring them back stale or empty; he adds, rebuilds and removes. He
//! takes no more than the node says that it can bear: a drive that files depend on only while every file has another
//! holder and a majority of the votes is left. So whatever he does,
//! 1. the node serves, and everything is there: the model says so;
//! 2. what he asked for is true when the node says that it is done, and it fails for no reason but a loss meanwhile;
//! 3. left alone, the node comes to have every file on as many drives as it can.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_engine::volume::{DriveStatus, Operation, OperationState, VolumeHandle, VolumeStatus};
use cairn_runtime::Runtime;
use cairn_runtime::sim::{DriveControl, DriveImage, Random};

use super::scenario::FleetPlan;

/// Directories that there may be: `/mirror-0` and so on.
pub const DIRECTORIES: usize = 7;
/// How long an operation, or becoming whole, may take; then it makes no progress.
const LOOKS_MAX: u64 = 20_000;
/// Time between two looks at an operation.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Directory number `at`.
pub fn directory(at: usize) -> PathBuf {
    PathBuf::from(format!("/mirror-{at}"))
}

/// What outlives the node.
#[derive(Default)]
pub struct Fleet {
    plan: FleetPlan,
    /// Directories that the configuration names.
    configured: RefCell<Vec<PathBuf>>,
    /// The one that is being taken in.
    changing: RefCell<Option<PathBuf>>,
    /// An empty directory that replaces no lost drive: the node says that it is to be added.
    to_add: RefCell<Option<PathBuf>>,
    /// Drives of which one more may be lost, as the node said after the last loss.
    spare: RefCell<Vec<PathBuf>>,
    /// Drives lost.
    pub lost: Cell<u64>,
    /// Operations that were done.
    pub done: Cell<u64>,
    verbose: bool,
}

impl Fleet {
    /// The drives that there are first.
    pub fn new(plan: FleetPlan, verbose: bool) -> Fleet {
        Fleet {
            plan,
            configured: RefCell::new((0..plan.drives).map(directory).collect()),
            verbose,
            ..Fleet::default()
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("  operator: {}", what());
        }
    }

    /// What the configuration may name at the next start, the likelier first: of a drive that was being taken in when the
    /// node stopped, the operator does not know.
    pub fn configurations(&self) -> Vec<Vec<PathBuf>> {
        let configured = self.configured.borrow().clone();
        let mut with = configured.clone();
        with.extend(
            self.changing
                .borrow()
                .clone()
                .filter(|path| !configured.contains(path)),
        );
        let mut all = vec![configured, with];
        all.dedup();
        all
    }

    /// What the configuration names.
    pub fn configured(&self) -> Vec<PathBuf> {
        self.configured.borrow().clone()
    }

    /// The node says that the directory is not one of its own: another drive has the place of this one.
    pub fn is_stranger(&self, path: &Path) {
        self.note(|| format!("{} is a stranger", path.display()));
        self.configured.borrow_mut().retain(|other| other != path);
    }

    /// This is what the node starts with.
    pub fn configure(&self, drives: Vec<PathBuf>) {
        self.changing.borrow_mut().take();
        *self.configured.borrow_mut() = drives;
    }

    /// While the node is down: drives come back stale, and one is lost.
    pub fn while_down(&self, drives: &[DriveControl], random: &mut Random) {
        for (at, drive) in drives.iter().enumerate() {
            if !drive.is_attached() && random.one_in(3) {
                self.note(|| format!("/mirror-{at} is back, stale"));
                drive.attach();
            }
        }
        if random.one_in(2) {
            self.lose(drives, random);
        }
    }

    /// Loses a drive, if one can be spared.
    fn lose(&self, drives: &[DriveControl], random: &mut Random) {
        let spare = self.spare.take();
        if spare.is_empty() {
            return;
        }
        let path = &spare[random.index(spare.len())];
        let at = (0..DIRECTORIES).find(|at| directory(*at) == *path);
        drives[at.expect("a directory of this fleet")].detach();
        self.lost.set(self.lost.get() + 1);
        self.note(|| format!("{} is lost", path.display()));
    }

    /// What the node says, and what follows from it.
    async fn look(&self, volume: &VolumeHandle, drives: &[DriveControl]) -> Result<VolumeStatus, String> {
        let status = volume.status().await.map_err(|error| error.to_string())?;
        let mut configured = self.configured.borrow_mut();
        for drive in &status.drives {
            match &drive.path {
                Some(path) if !drive.removed && !configured.contains(path) => configured.push(path.clone()),
                _ => {}
            }
        }
        *self.spare.borrow_mut() = spare(&status, drives);
        Ok(status)
    }

    /// What is done in a round.
    ///
    /// # Errors
    /// What is not as it has to be.
    pub async fn operate<R: Runtime>(
        &self,
        runtime: &R,
        volume: &VolumeHandle,
        drives: &[DriveControl],
        mut random: Random,
    ) -> Result<(), String> {
        let random = &mut random;
        for _ in 0..self.plan.actions {
            runtime.sleep(Duration::from_millis(random.below(60))).await;
            let status = self.look(volume, drives).await?;
            match random.below(10) {
                0..4 => self.lose(drives, random),
                4..7 => {
                    if let Some(path) = self.bring_back(&status, drives, random) {
                        self.perform(runtime, volume, drives, Operation::Rebuild(path), random)
                            .await?;
                    }
                    let told = self.to_add.take();
                    if let Some(path) = told {
                        self.perform(runtime, volume, drives, Operation::Add(path), random)
                            .await?;
                    }
                }
                7..9 => {
                    self.empty_removed(&status, drives);
                    if let Some(path) = self.unused(drives) {
                        *self.changing.borrow_mut() = Some(path.clone());
                        self.perform(runtime, volume, drives, Operation::Add(path), random)
                            .await?;
                        self.look(volume, drives).await?;
                        self.changing.borrow_mut().take();
                    }
                }
                _ => {
                    let in_sync: Vec<&DriveStatus> =
                        status.drives.iter().filter(|drive| drive.in_sync).collect();
                    // What a crash has cut off while a drive was taken in goes on.
                    let joining = status.drives.iter().any(|drive| drive.joining);
                    let enough = status.guarantee == self.plan.mirrors && in_sync.len() > self.plan.mirrors;
                    let whole = enough && !joining;
                    if whole && all_there(&status, drives) {
                        let drive = in_sync[random.index(in_sync.len())];
                        let path = drive.path.clone().expect("it is in sync");
                        self.perform(runtime, volume, drives, Operation::Remove(path), random)
                            .await?;
                    }
                }
            }
        }
        self.becomes_whole(runtime, volume, drives).await
    }

    /// Empties the directories of removed drives, so that they can be added again.
    fn empty_removed(&self, status: &VolumeStatus, drives: &[DriveControl]) {
        let removed = status.drives.iter().filter(|drive| drive.retired);
        for path in removed.filter_map(|drive| drive.path.as_ref()) {
            let drive = control(path, drives);
            if drive.is_attached() && drive.image().names().next().is_some() {
                self.note(|| format!("{} is emptied", path.display()));
                drive.restore(&DriveImage::default());
            }
        }
    }

    /// A directory that never held a drive, or nothing any more.
    fn unused(&self, drives: &[DriveControl]) -> Option<PathBuf> {
        let configured = self.configured.borrow();
        let blank = |at: &usize| drives[*at].image().names().next().is_none() && drives[*at].is_attached();
        (0..DIRECTORIES)
            .filter(blank)
            .map(directory)
            .find(|path| !configured.contains(path))
    }

    /// Has a drive that is out of sync there again, stale or empty.
    fn bring_back(
        &self,
        status: &VolumeStatus,
        drives: &[DriveControl],
        random: &mut Random,
    ) -> Option<PathBuf> {
        let mut out: Vec<usize> = Vec::new();
        for at in 0..DIRECTORIES {
            let path = directory(at);
            let known = status
                .drives
                .iter()
                .find(|drive| drive.path.as_ref() == Some(&path));
            let is_out = match known {
                Some(drive) => !drive.in_sync && !drive.retired,
                None => self.configured.borrow().contains(&path),
            };
            if is_out {
                out.push(at);
            }
        }
        if out.is_empty() {
            return None;
        }
        let at = out[random.index(out.len())];
        if !drives[at].is_attached() {
            drives[at].attach();
        }
        if random.one_in(3) {
            drives[at].restore(&DriveImage::default());
        }
        Some(directory(at))
    }

    async fn perform<R: Runtime>(
        &self,
        runtime: &R,
        volume: &VolumeHandle,
        drives: &[DriveControl],
        operation: Operation,
        random: &mut Random,
    ) -> Result<(), String> {
        self.note(|| operation.to_string());
        let lost = self.lost.get();
        let loses = random.one_in(3).then(|| random.below(60));
        let number = volume
            .begin(operation.clone())
            .await
            .map_err(|error| error.to_string())?;
        if let Operation::Rebuild(path) = &operation {
            *self.changing.borrow_mut() = Some(path.clone());
        }
        for turn in 0..LOOKS_MAX {
            let status = self.look(volume, drives).await?;
            if loses == Some(turn) {
                self.lose(drives, random);
            }
            let state = status.operation.as_ref().filter(|known| known.number == number);
            match &state.ok_or("the operation is forgotten")?.state {
                OperationState::Running { .. } => {}
                OperationState::Done(said) => {
                    self.note(|| format!("{operation}: {said}"));
                    self.done.set(self.done.get() + 1);
                    if let Operation::Remove(path) = &operation {
                        self.configured.borrow_mut().retain(|other| other != path);
                    }
                    return match self.lost.get() == lost {
                        true => is_true(&operation, &status),
                        false => Ok(()),
                    };
                }
                OperationState::Failed(why) => {
                    self.note(|| format!("{operation}: {why}"));
                    if let (true, Operation::Rebuild(path)) =
                        (why.contains("empty the directory"), &operation)
                    {
                        control(path, drives).restore(&DriveImage::default());
                        return Ok(());
                    }
                    if let (true, Operation::Rebuild(path)) = (why.contains("`cairn drives add"), &operation)
                    {
                        *self.to_add.borrow_mut() = Some(path.clone());
                        return Ok(());
                    }
                    return match self.lost.get() == lost {
                        true => Err(format!("{operation} fails: {why}")),
                        false => Ok(()),
                    };
                }
            }
            runtime.sleep(LOOK_AGAIN).await;
        }
        Err(format!("{operation} does not end: {:?}", volume.status().await))
    }

    async fn becomes_whole<R: Runtime>(
        &self,
        runtime: &R,
        volume: &VolumeHandle,
        drives: &[DriveControl],
    ) -> Result<(), String> {
        for _ in 0..LOOKS_MAX {
            let status = self.look(volume, drives).await?;
            let in_sync = status.drives.iter().filter(|drive| drive.in_sync).count();
            let whole = status.guarantee >= self.plan.mirrors.min(in_sync);
            // A loss that nobody has met changes nothing yet.
            if !all_there(&status, drives) || whole && !status.drives.iter().any(|drive| drive.joining) {
                return Ok(());
            }
            runtime.sleep(LOOK_AGAIN).await;
        }
        Err(format!("it does not become whole: {:?}", volume.status().await))
    }
}

fn control<'a>(path: &Path, drives: &'a [DriveControl]) -> &'a DriveControl {
    let at = (0..DIRECTORIES).find(|at| directory(*at) == path);
    &drives[at.expect("a directory of this fleet")]
}

/// Whether every drive that is in sync is there.
fn all_there(status: &VolumeStatus, drives: &[DriveControl]) -> bool {
    let mut in_sync = status.drives.iter().filter(|drive| drive.in_sync);
    in_sync.all(|drive| {
        drive
            .path
            .as_ref()
            .is_some_and(|path| control(path, drives).is_attached())
    })
}

/// The drives of which any one may be lost.
fn spare(status: &VolumeStatus, drives: &[DriveControl]) -> Vec<PathBuf> {
    let in_sync: Vec<&DriveStatus> = status.drives.iter().filter(|drive| drive.in_sync).collect();
    let voters = status.drives.iter().filter(|drive| !drive.removed).count() + 1;
    // Those in sync but for one, and the witness.
    if in_sync.len() < voters / 2 + 1 || in_sync.len() < 2 || !all_there(status, drives) {
        return Vec::new();
    }
    in_sync
        .into_iter()
        // One that is joining could be lost as well, but may be needed before that is done.
        .filter(|_| status.guarantee > 1)
        .filter_map(|drive| drive.path.clone())
        .collect()
}

/// Whether what was asked for is true.
fn is_true(operation: &Operation, status: &VolumeStatus) -> Result<(), String> {
    let at = |path: &PathBuf| {
        status
            .drives
            .iter()
            .find(|drive| drive.path.as_ref() == Some(path))
    };
    let holds = match operation {
        Operation::Add(path) | Operation::Rebuild(path) => {
            at(path).is_some_and(|drive| drive.in_sync && !drive.joining)
        }
        Operation::Remove(path) => at(path).is_some_and(|drive| drive.retired && !drive.in_sync),
    };
    if holds {
        Ok(())
    } else {
        Err(format!("{operation} is said to be done: {status:?}"))
    }
}
