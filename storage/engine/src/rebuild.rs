//! `rebuild`: every configured drive of a stopped node becomes an in-sync mirror again.
//!
//! The node is opened, engines and all, but serves nobody; what is done to each drive that is out of sync is what is done
//! on a node that serves ([`crate::volume::Operation::Rebuild`]). A crash leaves the node as it was or with the drive joining;
//! the next start, or the next rebuild, goes on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_runtime::Runtime;

use crate::config::EngineConfig;
use crate::engine::Engine;
use crate::volume::{
    Keeper, Operation, OperationState, VolumeConfig, VolumeError, VolumeHandle, VolumeStatus,
};

pub use crate::volume::Step;

/// How often it is asked how far an operation is.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Directory of the drive being rebuilt.
    pub path: &'a Path,
    /// What is being done.
    pub step: Step,
    /// Bytes done in this step.
    pub bytes_done: u64,
    /// Bytes to do in this step.
    pub bytes_total: u64,
}

/// Why a drive is not rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebuildError {
    /// The node cannot be opened, or an epoch change not be made durable.
    Volume(VolumeError),
    /// In words that name the drive.
    Failed(String),
}

impl fmt::Display for RebuildError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RebuildError::Volume(error) => write!(formatter, "{error}"),
            RebuildError::Failed(why) => formatter.write_str(why),
        }
    }
}

impl std::error::Error for RebuildError {}

impl From<VolumeError> for RebuildError {
    fn from(error: VolumeError) -> RebuildError {
        RebuildError::Volume(error)
    }
}

/// Makes every configured drive an in-sync mirror; answers the node as it is then.
///
/// # Errors
/// [`RebuildError`]; drives rebuilt before are in sync.
pub async fn rebuild<R: Runtime>(
    runtime: R,
    config: &VolumeConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<VolumeStatus, RebuildError> {
    let keeper = Keeper::open_existing(runtime.clone(), config.clone()).await?;
    let handle = keeper.handle();
    let volume = handle.attach(runtime.clone()).await?;
    let out = outside(config, &handle.status().await?);
    let mut engines = Vec::new();
    if let Some(first) = out.first() {
        for log in volume.logs().await? {
            let opened = Engine::open(runtime.clone(), volume.clone(), log, EngineConfig::default()).await;
            engines.push(opened.map_err(|error| {
                RebuildError::Failed(format!(
                    "{} is not rebuilt, and nothing on it was changed: log {log}: {error}",
                    first.display()
                ))
            })?);
        }
    }
    let mut result = Ok(());
    for path in out {
        result = restore(&runtime, &handle, &path, progress).await;
        if result.is_err() {
            break;
        }
    }
    for engine in engines {
        // What is durable is recovered at the next start all the same.
        let _ = engine.close().await;
    }
    result?;
    let status = handle.status().await?;
    drop(keeper);
    Ok(status)
}

/// Configured directories that are not in sync, or not yet complete.
fn outside(config: &VolumeConfig, status: &VolumeStatus) -> Vec<PathBuf> {
    let whole = |path: &PathBuf| {
        let mut drives = status.drives.iter();
        drives.any(|drive| drive.path.as_ref() == Some(path) && drive.in_sync && !drive.joining)
    };
    config
        .drives
        .iter()
        .filter(|path| !whole(path))
        .cloned()
        .collect()
}

async fn restore<R: Runtime>(
    runtime: &R,
    handle: &VolumeHandle,
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), RebuildError> {
    let number = handle.begin(Operation::Rebuild(path.to_owned())).await?;
    loop {
        let status = handle.status().await?;
        let Some(operation) = status.operation.filter(|operation| operation.number == number) else {
            return Err(RebuildError::Volume(VolumeError::Stopped));
        };
        match operation.state {
            OperationState::Running {
                step,
                bytes_done,
                bytes_total,
            } => progress(Progress {
                path,
                step,
                bytes_done,
                bytes_total,
            }),
            OperationState::Done(_) => return Ok(()),
            OperationState::Failed(why) => return Err(RebuildError::Failed(why)),
        }
        runtime.sleep(LOOK_AGAIN).await;
    }
}
