//! The one writer of superblocks and witness.
//!
//! **An epoch change**, on the keeper's task:
//! 1. Mark the volume as changing: from here no shard acknowledges anything.
//! 2. Write `promised = p`, one above every number seen, to every member; go on when a majority has it.
//! 3. Write `{epoch = p, in-sync set}` to every member; go on when a majority has it.
//! 4. Publish epoch and set to the shards and lift the mark.
//!
//! When a majority cannot be reached the mark stays for ever. A member that stalls holds up nobody: its write
//! stays in flight, and what it should say next waits for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::mailbox::{MailboxReceiver, ReplySender};
use cairn_runtime::{Drive, Queue, Runtime, sync};

use super::member::Member;
use super::shared::Shared;
use super::superblock::{MemberKind, Superblock};
use super::{DriveIndex, DriveSet, DriveStatus, InSync, LogReport, VolumeError, VolumeStatus};
use crate::ids::{DriveId, Epoch, LogId};

/// How long to sleep between looks at writes in flight.
const WRITTEN_WAIT: Duration = Duration::from_millis(1);

/// What shards ask of the keeper.
pub(super) enum Request {
    /// Take a drive out of the in-sync set.
    ReportFailed {
        drive: DriveIndex,
        why: String,
        reply: ReplySender<Result<InSync, VolumeError>>,
    },
    /// Answer once no change is in progress.
    Settled {
        reply: ReplySender<Result<InSync, VolumeError>>,
    },
    /// What the engine of a log says.
    Report { log: LogId, report: LogReport },
    /// Describe the volume.
    Status { reply: ReplySender<VolumeStatus> },
    /// End the task.
    Stop,
}

/// One copy of the epoch: a drive's superblock or the witness.
pub(super) struct Copy<R: Runtime> {
    /// The drive; none for the witness.
    pub(super) drive: Option<(DriveIndex, DriveId)>,
    writer: Rc<RefCell<Writer<R>>>,
}

struct Writer<R: Runtime> {
    /// Absent while a write is in flight.
    member: Option<Member<R>>,
    /// What it should say, and the round that asks for it.
    wanted: Option<(u64, Superblock)>,
}

impl<R: Runtime> Copy<R> {
    pub(super) fn new(drive: Option<(DriveIndex, DriveId)>, member: Member<R>) -> Copy<R> {
        Copy {
            drive,
            writer: Rc::new(RefCell::new(Writer {
                member: Some(member),
                wanted: None,
            })),
        }
    }
}

/// Answers to the current round.
#[derive(Default)]
struct Tally {
    round: u64,
    written: usize,
    failures: Vec<String>,
}

/// The keeper's task.
pub(super) struct Task<R: Runtime> {
    pub(super) runtime: R,
    pub(super) shared: std::sync::Arc<Shared>,
    /// Copies that can be written; missing drives have none.
    pub(super) copies: Vec<Copy<R>>,
    /// What the copies say, but for kind, drive and sequence.
    pub(super) content: Superblock,
    /// Why each drive is not in sync.
    pub(super) why: Vec<String>,
    /// Devices, for the status.
    pub(super) devices: Vec<Option<u64>>,
    pub(super) warnings: Vec<String>,
    pub(super) created: bool,
    /// The drives that are there, by place.
    pub(super) drives: Vec<Option<R::Drive>>,
    /// The witness's directory, held for its lock.
    pub(super) state: Option<R::Drive>,
    tally: Rc<RefCell<Tally>>,
    answered: sync::Notify,
    failed: Option<VolumeError>,
    /// What the engines said last.
    reports: BTreeMap<LogId, LogReport>,
}

impl<R: Runtime> Task<R> {
    pub(super) fn new(
        runtime: R,
        shared: std::sync::Arc<Shared>,
        copies: Vec<Copy<R>>,
        content: Superblock,
    ) -> Task<R> {
        let places = content.drives.len();
        Task {
            runtime,
            shared,
            copies,
            content,
            why: vec![String::new(); places],
            devices: vec![None; places],
            warnings: Vec::new(),
            created: false,
            drives: vec![None; places],
            state: None,
            tally: Rc::default(),
            answered: sync::Notify::new(),
            failed: None,
            reports: BTreeMap::new(),
        }
    }

    /// Makes `set` the in-sync set under a new epoch, `jump` above every number seen; `removed` drives no longer
    /// count for the majority that this change needs already.
    pub(super) async fn change(
        &mut self,
        set: DriveSet,
        removed: DriveSet,
        jump: u64,
    ) -> Result<(), VolumeError> {
        let next = Superblock {
            in_sync: set,
            removed,
            ..self.content.clone()
        };
        self.change_to(next, jump).await
    }

    /// As [`Task::change`], for a new list of drives too.
    pub(super) async fn change_to(&mut self, next: Superblock, jump: u64) -> Result<(), VolumeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.shared.begin_change();
        let written = self.write_change(next, jump).await;
        match written {
            Ok(()) => {
                self.shared.publish(InSync {
                    epoch: self.content.epoch,
                    set: self.content.in_sync,
                });
                Ok(())
            }
            Err(why) => {
                let error = VolumeError::EpochNotDurable(why);
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn write_change(&mut self, next: Superblock, jump: u64) -> Result<(), String> {
        assert!(!next.in_sync.is_empty() && jump > 0);
        self.content.promised = Epoch(self.content.promised.0 + jump);
        let mut next = Superblock {
            epoch: self.content.promised,
            promised: self.content.promised,
            ..next
        };
        for drive in next.in_sync.minus(self.content.in_sync).iter() {
            next.drives[drive.get()].joined = next.epoch;
        }
        // The promise repeats the old set under the old epoch: one epoch never names two sets.
        self.round(&self.content, majority(&next)).await?;
        self.round(&next, majority(&next)).await?;
        self.content = next;
        Ok(())
    }

    /// Writes `content` to every copy; returns when a majority has it, or when that has become impossible.
    async fn round(&self, content: &Superblock, majority: usize) -> Result<(), String> {
        let round = {
            let mut tally = self.tally.borrow_mut();
            *tally = Tally {
                round: tally.round + 1,
                ..Tally::default()
            };
            tally.round
        };
        for copy in &self.copies {
            let kind = if copy.drive.is_some() {
                MemberKind::Drive
            } else {
                MemberKind::Witness
            };
            let drive = copy.drive.map_or(DriveId(0), |(_, id)| id);
            copy.writer.borrow_mut().wanted = Some((
                round,
                Superblock {
                    kind,
                    drive,
                    ..content.clone()
                },
            ));
            self.start(copy);
        }
        loop {
            let answered = self.answered.notified();
            {
                let tally = self.tally.borrow();
                if tally.written >= majority {
                    return Ok(());
                }
                if self.copies.len() - tally.failures.len() < majority {
                    let missing = "too few drives are present".to_owned();
                    return Err(tally.failures.first().cloned().unwrap_or(missing));
                }
            }
            answered.await;
        }
    }

    /// Starts writing what a copy should say, unless an earlier write is still in flight.
    fn start(&self, copy: &Copy<R>) {
        let Some(mut member) = copy.writer.borrow_mut().member.take() else {
            return;
        };
        let (writer, tally, answered) = (copy.writer.clone(), self.tally.clone(), self.answered.clone());
        self.runtime.spawn(Queue::Foreground, async move {
            loop {
                let wanted = writer.borrow_mut().wanted.take();
                let Some((round, superblock)) = wanted else { break };
                let result = member.write(superblock).await;
                let mut tally = tally.borrow_mut();
                if tally.round == round {
                    match result {
                        Ok(()) => tally.written += 1,
                        Err(error) => tally.failures.push(error.to_string()),
                    }
                    answered.notify_all();
                }
            }
            writer.borrow_mut().member = Some(member);
        });
    }

    /// Waits until every copy has been written or has failed, but no longer than `limit`: the majority is durable
    /// without the rest.
    pub(super) async fn all_written(&self, limit: Duration) {
        let end = self.runtime.now() + limit;
        while self
            .copies
            .iter()
            .any(|copy| copy.writer.borrow().member.is_none())
            && self.runtime.now() < end
        {
            self.runtime.sleep(WRITTEN_WAIT).await;
        }
    }

    /// Copies that hold what the last change wrote.
    pub(super) fn written(&self) -> usize {
        self.tally.borrow().written
    }

    pub(super) async fn serve(mut self, requests: MailboxReceiver<Request>) {
        let mut requests = requests;
        while let Some(request) = requests.recv().await {
            match request {
                Request::ReportFailed { drive, why, reply } => {
                    reply.send(self.eject(drive, why).await);
                }
                Request::Settled { reply } => {
                    reply.send(self.failed.clone().map_or(Ok(self.in_sync()), Err));
                }
                Request::Report { log, report } => {
                    self.reports.insert(log, report);
                }
                Request::Status { reply } => {
                    reply.send(self.status());
                }
                Request::Stop => break,
            }
        }
    }

    fn in_sync(&self) -> InSync {
        InSync {
            epoch: self.content.epoch,
            set: self.content.in_sync,
        }
    }

    async fn eject(&mut self, drive: DriveIndex, why: String) -> Result<InSync, VolumeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.content.in_sync.contains(drive) {
            return Ok(self.in_sync());
        }
        let rest = self.content.in_sync.without(drive);
        if !self.content.hold_everything(rest) {
            let path = self.shared.path(drive).map_or_else(PathBuf::new, PathBuf::from);
            return Err(VolumeError::LastDrive { path, why });
        }
        self.why[drive.get()] = why;
        self.change(rest, self.content.removed, 1).await?;
        Ok(self.in_sync())
    }

    pub(super) fn status(&self) -> VolumeStatus {
        let places = (0..self.content.drives.len()).filter_map(DriveIndex::new);
        VolumeStatus {
            node: self.content.node,
            in_sync: self.in_sync(),
            drives: places
                .map(|index| DriveStatus {
                    index,
                    id: self.content.drives[index.get()].id,
                    path: self.shared.path(index).map(PathBuf::from),
                    in_sync: self.content.in_sync.contains(index),
                    why: self.why[index.get()].clone(),
                    device: self.devices[index.get()],
                    space: self.drives[index.get()]
                        .as_ref()
                        .and_then(|drive| drive.space().ok()),
                })
                .collect(),
            mirrors: self.shared.mirrors,
            root_key: self.content.key.as_ref().map(|key| key.root),
            created: self.created,
            warnings: self.warnings.clone(),
            logs: self.reports.clone().into_iter().collect(),
        }
    }
}

/// More than half of the counted drives and the witness.
pub(super) fn majority(content: &Superblock) -> usize {
    let copies = content.counted().count() + 1;
    copies / 2 + 1
}
