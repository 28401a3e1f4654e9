//! `cairn backup`: a copy of a running node at one moment.
//!
//! 1. The copy's directories are made, marked as incomplete.
//! 2. Every engine of every shard is held: nothing is proposed, and what was proposed is applied. When all are, each is cut, and
//!    goes on. So nothing in the copy of one engine has come from a state of another that its copy lacks.
//! 3. Every shard copies its engines, in the background.
//! 4. When everything is durable and has been verified, the copy is marked as complete. When anything has failed, it is deleted.
//!
//! One backup is made at a time. It goes on when whoever asked for it is gone, and ends with the process.

pub mod client;

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_engine::volume::{CopyTarget, VolumeHandle};
use cairn_engine::{Copied, Cut, Hold};
use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, ReplySender, mailbox, reply};
use cairn_runtime::{Queue, Runtime};
use serde::{Deserialize, Serialize};

use crate::node::Control;
use crate::route::Router;

/// What is being done about a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// None has been asked for since the start.
    #[default]
    None,
    /// It is being made.
    Running,
    /// It is there, durable and marked as complete.
    Complete,
    /// There is none.
    Failed,
}

/// The last backup that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupStatus {
    /// Counts them.
    pub number: u64,
    /// What is being done.
    pub state: State,
    /// Where it is.
    pub directory: String,
    /// Bytes that have been copied and verified.
    pub bytes_done: u64,
    /// About how many there are.
    pub bytes_total: u64,
    /// Of a complete one: its segment files.
    pub segments: u64,
    /// Those among them that are hard links.
    pub linked: u64,
    /// Why it has failed.
    pub why: String,
}

/// What a shard does for a backup. Dropping the sender gives it up.
pub(crate) enum Step {
    /// Hold all engines.
    Hold { reply: ReplySender<Result<(), String>> },
    /// Cut them; answers about how many bytes there are to copy.
    Cut { reply: ReplySender<Result<u64, String>> },
    /// Copy them.
    Copy {
        target: VolumeHandle,
        done: Arc<AtomicU64>,
        reply: ReplySender<Result<Copied, String>>,
    },
}

/// Steps that may wait for a shard: they are taken one after the other.
const STEPS_WAITING_MAX: usize = 1;

/// Makes backups. Cheap to clone.
#[derive(Clone)]
pub struct Backups {
    volume: VolumeHandle,
    shards: Vec<MailboxSender<Control>>,
    status: Arc<Mutex<BackupStatus>>,
    done: Arc<AtomicU64>,
}

impl Backups {
    pub(crate) fn new(volume: VolumeHandle, shards: Vec<MailboxSender<Control>>) -> Backups {
        Backups {
            volume,
            shards,
            status: Arc::default(),
            done: Arc::default(),
        }
    }

    /// The last one that was asked for.
    #[must_use]
    pub fn status(&self) -> BackupStatus {
        let status = self.change(|status| status.clone());
        BackupStatus {
            bytes_done: self.done.load(Ordering::Relaxed).min(status.bytes_total),
            ..status
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BackupStatus) -> T) -> T {
        change(&mut self.status.lock().expect("nobody panics with it"))
    }

    /// Begins one in `directory`, which must be new or empty; answers its number.
    ///
    /// # Errors
    /// In words, when another is under way or the directory is not named in full.
    pub fn start<R: Runtime>(&self, runtime: &R, directory: PathBuf) -> Result<u64, String> {
        if !directory.is_absolute() {
            return Err(format!(
                "{} is no absolute path, and the node has another working directory",
                directory.display()
            ));
        }
        let number = self.change(|status| {
            if status.state == State::Running {
                return Err(format!("another backup is under way, to {}", status.directory));
            }
            *status = BackupStatus {
                number: status.number + 1,
                state: State::Running,
                directory: directory.display().to_string(),
                ..BackupStatus::default()
            };
            Ok(status.number)
        })?;
        self.done.store(0, Ordering::Relaxed);
        let (backups, running) = (self.clone(), runtime.clone());
        runtime.spawn(Queue::Background, async move {
            let made = backups.make(running, directory).await;
            backups.change(|status| match made {
                Ok(copied) => {
                    status.state = State::Complete;
                    status.segments = copied.segments;
                    status.linked = copied.linked;
                    status.bytes_total = copied.bytes;
                    backups.done.store(copied.bytes, Ordering::Relaxed);
                }
                Err(why) => {
                    status.state = State::Failed;
                    status.why = why;
                }
            });
        });
        Ok(number)
    }

    async fn make<R: Runtime>(&self, runtime: R, directory: PathBuf) -> Result<Copied, String> {
        let words = |error: cairn_engine::volume::VolumeError| error.to_string();
        let target = CopyTarget::create(runtime, &self.volume, &directory)
            .await
            .map_err(words)?;
        match self.copy(&target.handle()).await {
            Ok(copied) => target.complete().await.map_err(words).map(|()| copied),
            Err(why) => {
                target.abandon().await;
                Err(why)
            }
        }
    }

    async fn copy(&self, target: &VolumeHandle) -> Result<Copied, String> {
        let mut shards = Vec::with_capacity(self.shards.len());
        for control in &self.shards {
            let (sender, steps) = mailbox(STEPS_WAITING_MAX);
            control
                .send(Control::Backup(steps))
                .await
                .map_err(|_| stopping())?;
            shards.push(sender);
        }
        ask_all(&shards, |reply| Step::Hold { reply }).await?;
        let bytes = ask_all(&shards, |reply| Step::Cut { reply }).await?;
        self.change(|status| status.bytes_total = bytes.iter().sum());
        let copied = ask_all(&shards, |reply| Step::Copy {
            target: target.clone(),
            done: Arc::clone(&self.done),
            reply,
        });
        let mut sum = Copied::default();
        for copied in copied.await? {
            sum.segments += copied.segments;
            sum.bytes += copied.bytes;
            sum.linked += copied.linked;
        }
        Ok(sum)
    }
}

fn stopping() -> String {
    "the node is stopping".to_owned()
}

/// Has every shard take a step; waits for all of them, also when one fails.
async fn ask_all<T: Send + 'static>(
    shards: &[MailboxSender<Step>],
    step: impl Fn(ReplySender<Result<T, String>>) -> Step,
) -> Result<Vec<T>, String> {
    let mut replies = Vec::with_capacity(shards.len());
    for shard in shards {
        let (sender, answer) = reply();
        shard.send(step(sender)).await.map_err(|_| stopping())?;
        replies.push(answer);
    }
    let mut answers = Ok(Vec::with_capacity(shards.len()));
    for reply in replies {
        let answer = reply.await.unwrap_or_else(|_| Err(stopping()));
        answers = answers.and_then(|mut answers: Vec<T>| {
            answers.push(answer?);
            Ok(answers)
        });
    }
    answers
}

/// A shard's part in a backup: until the sender of the steps is dropped.
pub(crate) async fn take_part<R: Runtime>(router: Rc<Router<R>>, mut steps: MailboxReceiver<Step>) {
    let mut holds: Vec<Hold<R>> = Vec::new();
    let mut cuts: Vec<Cut<R>> = Vec::new();
    while let Some(step) = steps.recv().await {
        match step {
            Step::Hold { reply } => reply.send(hold_all(&router, &mut holds).await),
            Step::Cut { reply } => {
                let cut = holds.drain(..).map(Hold::cut).collect::<Result<Vec<_>, _>>();
                reply.send(cut.map_err(|error| error.to_string()).map(|cut| {
                    cuts = cut;
                    cuts.iter().map(Cut::bytes).sum()
                }));
            }
            Step::Copy { target, done, reply } => {
                let cuts = std::mem::take(&mut cuts);
                router.runtime.spawn(Queue::Background, async move {
                    reply.send(copy_all(cuts, &target, &done).await);
                });
            }
        }
    }
}

async fn hold_all<R: Runtime>(router: &Router<R>, holds: &mut Vec<Hold<R>>) -> Result<(), String> {
    for engine in &router.engines {
        holds.push(engine.hold().await.map_err(|error| error.to_string())?);
    }
    Ok(())
}

async fn copy_all<R: Runtime>(
    cuts: Vec<Cut<R>>,
    target: &VolumeHandle,
    done: &AtomicU64,
) -> Result<Copied, String> {
    let mut sum = Copied::default();
    let advance = |bytes| {
        done.fetch_add(bytes, Ordering::Relaxed);
    };
    for cut in cuts {
        let copied = cut.copy_to(target, &advance).await;
        let copied = copied.map_err(|error| error.to_string())?;
        sum.segments += copied.segments;
        sum.bytes += copied.bytes;
        sum.linked += copied.linked;
    }
    Ok(sum)
}
