//! One operation on several drives at once, and what becomes of the drives that fail or lag.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{Queue, Runtime, sync};

use super::LogError;
use crate::canary::{self, Canary};
use crate::volume::{DriveIndex, DriveSet, Volume};

#[derive(Default)]
struct Progress {
    done: DriveSet,
    failed: Vec<(DriveIndex, io::Error)>,
}

/// Whether a drive that is in sync has finished: the others may lag behind it, but never behind one that has left.
fn is_ahead<R: Runtime>(progress: &Progress, volume: &Volume<R>) -> bool {
    !progress.done.and(volume.in_sync().set).is_empty()
}

/// Runs `operation` on every drive of `set`, each as its own task. Returns once each drive has finished, or has left
/// the in-sync set for having failed or for lagging `lag_max` behind another; the answer holds those that finished.
///
/// # Errors
/// [`LogError::OutOfSpace`] when a drive is full: no reason to leave the set. [`LogError::Drive`] when all failed,
/// [`LogError::Volume`] when an epoch change did.
pub(super) async fn on_all<R, F>(
    runtime: &R,
    volume: &Volume<R>,
    lag_max: Duration,
    set: DriveSet,
    what: &str,
    operation: impl Fn(DriveIndex) -> F,
) -> Result<DriveSet, LogError>
where
    R: Runtime,
    F: Future<Output = io::Result<()>> + 'static,
{
    let progress: Rc<RefCell<Progress>> = Rc::default();
    let changed = sync::Notify::new();
    for drive in set.iter() {
        let (future, progress, changed) = (operation(drive), progress.clone(), changed.clone());
        let writing = volume.writing(drive);
        runtime.spawn(Queue::Foreground, async move {
            let result = future.await;
            drop(writing);
            let mut progress = progress.borrow_mut();
            match canary::of_write(result) {
                Ok(()) => progress.done = progress.done.with(drive),
                Err(error) => progress.failed.push((drive, error)),
            }
            changed.notify_all();
        });
    }
    let mut lagging = false;
    loop {
        let notified = changed.notified();
        let (ended, some_done) = {
            let progress = progress.borrow();
            (
                progress.done.count() + progress.failed.len(),
                is_ahead(&progress, volume),
            )
        };
        if ended == set.count() || lagging {
            break;
        }
        if some_done || canary::is_in(Canary::GiveUpOnStall) {
            let late = sync::timeout(runtime, lag_max, notified).await.is_err();
            lagging = late && (is_ahead(&progress.borrow(), volume) || canary::is_in(Canary::GiveUpOnStall));
        } else {
            // When all stall, wait: there is nobody to go on with.
            notified.await;
        }
    }
    let (done, mut failed) = {
        let mut progress = progress.borrow_mut();
        (progress.done, std::mem::take(&mut progress.failed))
    };
    if let Some((drive, _)) = failed
        .iter()
        .find(|(_, error)| error.kind() == io::ErrorKind::StorageFull)
    {
        return Err(LogError::OutOfSpace(volume.path(*drive)));
    }
    let known: DriveSet = failed.iter().map(|(drive, _)| *drive).collect();
    for drive in set.minus(done).minus(known).iter() {
        failed.push((
            drive,
            io::Error::new(io::ErrorKind::TimedOut, "lagging behind another drive"),
        ));
    }
    if done.is_empty() {
        let words = failed.first().map_or_else(
            || "no drive is left".to_owned(),
            |(drive, error)| format!("{}: {what}: {error}", volume.path(*drive).display()),
        );
        return Err(LogError::Drive(words.into()));
    }
    for (drive, error) in failed {
        volume.report_failed(drive, format!("{what}: {error}")).await?;
    }
    Ok(done)
}
