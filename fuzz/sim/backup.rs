//! A backup made while clients work: what it holds is what the model held at the moment of the cut.
//!
//! A decision that waits for the end of the hold is in the model and not in the engine yet, so the model of that moment is
//! held against the backup as after a crash: what was acknowledged is there, and what was not is whole or absent.

use std::path::Path;

use cairn_engine::volume::{CopyTarget, VolumeHandle};
use cairn_engine::{BackupError, Engine, ErrorKind};
use cairn_runtime::Runtime;

use super::model::Model;
use super::workload::Context;

/// Where it is made.
pub const DIRECTORY: &str = "/backup";

/// A backup that was begun.
pub struct Made {
    /// What it holds.
    pub models: Vec<Model>,
    /// Whether it was said to be done.
    pub done: bool,
}

/// Makes a backup, and remembers what it has to hold.
pub async fn back_up<R: Runtime>(context: &Context, engine: &Engine<R>, runtime: &R, volume: &VolumeHandle) {
    if let Err(why) = try_back_up(context, engine, runtime, volume).await {
        let gives_way = match &why {
            BackupError::Busy | BackupError::NotQuiet => true,
            BackupError::Engine(error) => matches!(error.kind(), ErrorKind::Throttle | ErrorKind::Retry),
            // A drive that is lost while its files are copied takes some along.
            BackupError::Damaged { .. } => context.fleet.is_some(),
            BackupError::Fenced { .. } | BackupError::Target(_) => false,
        };
        if !gives_way && context.scenario.damage.is_none() {
            context.fail(format!("backing up: {why}"));
        }
        context.backups_refused.set(context.backups_refused.get() + 1);
    }
}

async fn try_back_up<R: Runtime>(
    context: &Context,
    engine: &Engine<R>,
    runtime: &R,
    volume: &VolumeHandle,
) -> Result<(), BackupError> {
    let target = CopyTarget::create(runtime.clone(), volume, Path::new(DIRECTORY)).await?;
    let cut = engine.hold().await?.cut()?;
    let models = context.models_now();
    context.backup.replace(Some(Made { models, done: false }));
    match cut.copy_to(&target.handle(), &|_| ()).await {
        Ok(_) => {
            target.complete().await?;
            if let Some(made) = &mut *context.backup.borrow_mut() {
                made.done = true;
            }
            Ok(())
        }
        Err(error) => {
            target.abandon().await;
            Err(error)
        }
    }
}
