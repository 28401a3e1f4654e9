//! The one writer of superblocks and witness.
//!
//! **An epoch change**, on the keeper's task:
//! 1. Mark the volume as changing: from here no shard acknowledges anything.
//! 2. Write `promised = p`, one above every number seen, to every member; go on when a majority has it.
//! 3. Write `{epoch = p, in-sync set}` to every member; go on when a majority has it.
//! 4. Publish epoch and set to the shards and lift the mark.
//!
//! Where the change gives or takes votes, both steps need a majority of those who have a vote before it and one of those
//! who have a vote after it: so any two majorities that may ever be asked meet.
//!
//! When a majority cannot be reached the mark stays for ever. A member that stalls holds up nobody: its write
//! stays in flight, and what it should say next waits for it.
//!
//! A change that nobody waits for ([`Task::try_change`]) asks for a promise first, unmarked and for a limited time: where
//! no majority answers, nothing has changed and the node serves on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::mailbox::{MailboxReceiver, ReplySender};
use cairn_runtime::{Drive, Queue, Runtime, sync};

use super::member::Member;
use super::online::{self, Handed, Operation, OperationState, OperationStatus, Seated, Turn};
use super::shared::Shared;
use super::superblock::{MemberKind, Superblock};
use super::{
    DriveIndex, DriveSet, DriveStatus, InSync, LogReport, VolumeConfig, VolumeError, VolumeHandle,
    VolumeStatus,
};
use crate::canary::{self, Canary};
use crate::ids::{DriveId, Epoch, LogId};
use crate::phase::{self, Phase};

/// How long a change that can be left may wait for a majority.
const PROMISE_MAX: Duration = Duration::from_secs(1);
/// When to try again to write that everything has enough copies.
const COMPLETE_AGAIN: Duration = Duration::from_secs(1);

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
    /// Do something about a drive; the answer is the operation's number.
    Begin {
        operation: Operation,
        reply: ReplySender<Result<u64, VolumeError>>,
    },
    /// A turn of the operation under way; see [`super::online`].
    Turn {
        turn: Turn,
        reply: ReplySender<Result<Seated, VolumeError>>,
    },
    /// How far the operation is.
    Told(OperationState),
    /// Look again whether everything has enough copies.
    Look,
    /// What the superblocks say.
    Content { reply: ReplySender<Superblock> },
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

/// The end of a copy: what may still be written to it.
pub(super) struct Ending<R: Runtime>(pub(super) DriveIndex, Rc<RefCell<Writer<R>>>);

impl<R: Runtime> Ending<R> {
    /// Whether a write is still in flight.
    pub(super) fn is_writing(&self) -> bool {
        self.1.borrow().member.is_none()
    }
}

struct Writer<R: Runtime> {
    /// Absent while a write is in flight.
    member: Option<Member<R>>,
    /// What it should say, and the round that asks for it.
    wanted: Option<(u64, Superblock)>,
    /// Whether the last write failed.
    failed: bool,
}

impl<R: Runtime> Copy<R> {
    pub(super) fn new(drive: Option<(DriveIndex, DriveId)>, member: Member<R>) -> Copy<R> {
        Copy {
            drive,
            writer: Rc::new(RefCell::new(Writer {
                member: Some(member),
                wanted: None,
                failed: false,
            })),
        }
    }

    /// Whether the last write succeeded and none is in flight.
    pub(super) fn is_writable(&self) -> bool {
        !self.is_writing() && !self.writer.borrow().failed
    }

    /// Whether a write to it is in flight.
    pub(super) fn is_writing(&self) -> bool {
        self.writer.borrow().member.is_none()
    }

    /// Nothing more is written to it, but for what is in flight.
    pub(super) fn end(&self) -> Option<Ending<R>> {
        let (drive, _) = self.drive?;
        self.writer.borrow_mut().wanted = None;
        Some(Ending(drive, Rc::clone(&self.writer)))
    }
}

/// Answers to the current round.
#[derive(Default)]
struct Tally {
    round: u64,
    written: Voters,
    failed: Voters,
    /// Why the first one failed.
    why: Option<String>,
}

/// Drives, and the witness or not.
#[derive(Debug, Clone, Copy, Default)]
struct Voters {
    drives: DriveSet,
    witness: bool,
}

impl Voters {
    fn add(&mut self, drive: Option<DriveIndex>) {
        match drive {
            Some(drive) => self.drives = self.drives.with(drive),
            None => self.witness = true,
        }
    }

    fn minus(self, other: Voters) -> Voters {
        Voters {
            drives: self.drives.minus(other.drives),
            witness: self.witness && !other.witness,
        }
    }

    /// Whether they are a majority of those who have a vote by `content`.
    fn decide(self, content: &Superblock) -> bool {
        self.drives.and(content.counted()).count() + usize::from(self.witness) >= majority(content)
    }
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
    /// Configured directories without a drive in them, held for their locks.
    pub(super) blanks: Vec<(PathBuf, R::Drive)>,
    /// Directories that the configuration names, whatever is there.
    pub(super) configured: Vec<PathBuf>,
    /// The witness's directory, as the configuration names it.
    pub(super) state_path: PathBuf,
    /// The witness's directory, held for its lock.
    pub(super) state: Option<R::Drive>,
    tally: Rc<RefCell<Tally>>,
    answered: sync::Notify,
    pub(super) failed: Option<VolumeError>,
    /// The logs that there were when the drives were opened.
    pub(super) logs: BTreeSet<LogId>,
    /// What the engines said last.
    pub(super) reports: BTreeMap<LogId, LogReport>,
    operation: Option<OperationStatus>,
    /// What an operation hands over: it runs on the keeper's shard.
    pub(super) handed: Rc<RefCell<Option<Handed<R>>>>,
    /// Copies that no longer count and may still be written.
    pub(super) endings: Vec<Ending<R>>,
    /// A [`Request::Look`] is on its way.
    looks_again: bool,
}

impl<R: Runtime> Task<R> {
    pub(super) fn new(
        runtime: R,
        shared: std::sync::Arc<Shared>,
        copies: Vec<Copy<R>>,
        content: Superblock,
        config: &VolumeConfig,
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
            blanks: Vec::new(),
            configured: config.drives.clone(),
            state_path: config.state.clone(),
            state: None,
            tally: Rc::default(),
            answered: sync::Notify::new(),
            failed: None,
            logs: BTreeSet::new(),
            reports: BTreeMap::new(),
            operation: None,
            handed: Rc::default(),
            endings: Vec::new(),
            looks_again: false,
        }
    }

    /// Leaves of the in-sync set only what `set` has, under a new epoch, `jump` above every number seen. With a jump of
    /// more than one `removed` drives no longer count for the majority that this change needs already.
    pub(super) async fn change(
        &mut self,
        set: DriveSet,
        removed: DriveSet,
        jump: u64,
    ) -> Result<(), VolumeError> {
        let content = &self.content;
        let next = if content.epoch == Epoch(0) {
            // The first set of all: nothing is on any drive.
            Superblock {
                in_sync: set,
                guarantee: content.mirrors,
                ..content.clone()
            }
        } else {
            content.reduced_to(set)
        };
        self.change_to(Superblock { removed, ..next }, jump).await
    }

    /// As [`Task::change`], for whatever else the epoch carries.
    pub(super) async fn change_to(&mut self, next: Superblock, jump: u64) -> Result<(), VolumeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let _phase = phase::enter(Phase::Epoch);
        self.shared.begin_change();
        let promised = self.promise(&next, jump).await;
        let voters_before = (jump == 1).then(|| self.content.clone());
        match promised {
            Ok(()) => self.commit(next, voters_before).await,
            Err(why) => Err(self.fail(why)),
        }
    }

    /// As [`Task::change_to`], for a change that can be left: with [`VolumeError::NotNow`] nothing has changed.
    pub(super) async fn try_change(&mut self, next: Superblock) -> Result<(), VolumeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let _phase = phase::enter(Phase::Epoch);
        let runtime = self.runtime.clone();
        match sync::timeout(&runtime, PROMISE_MAX, self.promise(&next, 1)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(VolumeError::NotNow(why)),
            Err(_) => return Err(VolumeError::NotNow("some do not answer".to_owned())),
        }
        self.shared.begin_change();
        let voters_before = Some(self.content.clone());
        self.commit(next, voters_before).await
    }

    fn fail(&mut self, why: String) -> VolumeError {
        let error = VolumeError::EpochNotDurable(why);
        self.failed = Some(error.clone());
        error
    }

    /// Has an epoch number promised. It repeats the old set under the old epoch: one epoch never names two sets.
    async fn promise(&mut self, next: &Superblock, jump: u64) -> Result<(), String> {
        assert!(jump > 0);
        self.content.promised = Epoch(self.content.promised.0 + jump);
        match jump {
            1 => self.round(&self.content, &[&self.content, next]).await,
            // Those who were given up are not asked.
            _ => self.round(&self.content, &[next]).await,
        }
    }

    /// Writes and publishes what the promised epoch stands for.
    async fn commit(
        &mut self,
        next: Superblock,
        voters_before: Option<Superblock>,
    ) -> Result<(), VolumeError> {
        assert!(!next.in_sync.is_empty());
        let mut next = Superblock {
            epoch: self.content.promised,
            promised: self.content.promised,
            ..next
        };
        for drive in next.in_sync.minus(self.content.in_sync).iter() {
            next.drives[drive.get()].joined = next.epoch;
        }
        let mut voters = vec![&next];
        voters.extend(&voters_before);
        match self.round(&next, &voters).await {
            Ok(()) => {
                self.content = next;
                self.publish();
                Ok(())
            }
            Err(why) => Err(self.fail(why)),
        }
    }

    /// Lets the shards see what is durable.
    pub(super) fn publish(&self) {
        let content = &self.content;
        let in_sync = self.in_sync();
        self.shared
            .publish(in_sync, content.joining, usize::from(content.guarantee));
    }

    /// Writes `content` to every copy; returns when a majority by each of `votes` has it, or when that has become
    /// impossible.
    async fn round(&self, content: &Superblock, votes: &[&Superblock]) -> Result<(), String> {
        let round = {
            let mut tally = self.tally.borrow_mut();
            *tally = Tally {
                round: tally.round + 1,
                ..Tally::default()
            };
            tally.round
        };
        let mut asked = Voters::default();
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
            asked.add(copy.drive.map(|(index, _)| index));
            self.start(copy);
        }
        loop {
            let answered = self.answered.notified();
            {
                let tally = self.tally.borrow();
                if votes.iter().all(|content| tally.written.decide(content)) {
                    return Ok(());
                }
                let left = asked.minus(tally.failed);
                if !votes.iter().all(|content| left.decide(content)) {
                    let missing = "too few drives are present".to_owned();
                    return Err(tally.why.clone().unwrap_or(missing));
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
        let drive = copy.drive.map(|(index, _)| index);
        self.runtime.spawn(Queue::Foreground, async move {
            loop {
                let wanted = writer.borrow_mut().wanted.take();
                let Some((round, superblock)) = wanted else { break };
                let result = member.write(superblock).await;
                writer.borrow_mut().failed = result.is_err();
                let mut tally = tally.borrow_mut();
                if tally.round == round {
                    match result {
                        Ok(()) => tally.written.add(drive),
                        Err(error) => {
                            tally.failed.add(drive);
                            tally.why.get_or_insert_with(|| error.to_string());
                        }
                    }
                    answered.notify_all();
                }
            }
            writer.borrow_mut().member = Some(member);
        });
    }

    /// Copies that hold what the last change wrote.
    pub(super) fn written(&self) -> usize {
        let written = self.tally.borrow().written;
        written.drives.count() + usize::from(written.witness)
    }

    pub(super) async fn serve(mut self, mut requests: MailboxReceiver<Request>, handle: VolumeHandle) {
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
                    self.complete(&handle).await;
                }
                Request::Look => {
                    self.looks_again = false;
                    self.complete(&handle).await;
                }
                Request::Begin { operation, reply } => reply.send(self.begin(operation, &handle)),
                Request::Turn { turn, reply } => reply.send(self.turn(turn).await),
                Request::Told(state) => {
                    if let Some(operation) = &mut self.operation {
                        operation.state = state;
                    }
                }
                Request::Content { reply } => reply.send(self.content.clone()),
                Request::Status { reply } => {
                    reply.send(self.status());
                }
                Request::Stop => break,
            }
        }
    }

    pub(super) fn in_sync(&self) -> InSync {
        InSync {
            epoch: self.content.epoch,
            set: self.content.in_sync,
        }
    }

    fn begin(&mut self, operation: Operation, handle: &VolumeHandle) -> Result<u64, VolumeError> {
        let last = self.operation.as_ref();
        if let Some(OperationStatus {
            operation,
            state: OperationState::Running { .. },
            ..
        }) = last
        {
            return Err(VolumeError::Busy(operation.to_string()));
        }
        let number = last.map_or(0, |last| last.number) + 1;
        self.operation = Some(OperationStatus {
            number,
            operation: operation.clone(),
            state: OperationState::begun(),
        });
        let work = online::run(
            self.runtime.clone(),
            handle.clone(),
            operation,
            Rc::clone(&self.handed),
        );
        self.runtime.spawn(Queue::Background, work);
        Ok(number)
    }

    /// Whether every log has said something of the set that is in sync now, and `holds` of all of it.
    pub(super) fn all_say(&self, holds: impl Fn(&LogReport) -> bool) -> bool {
        let in_sync = self.in_sync();
        let said = |report: &LogReport| report.places.is_of(in_sync) && holds(report);
        // A log that no engine has opened says nothing, and its files count all the same.
        let known = self.logs.iter().all(|log| self.reports.contains_key(log));
        known && !self.reports.is_empty() && self.reports.values().all(said)
    }

    /// Promises as many holders as there can be, once every engine says that all its files have as many; nothing is
    /// joining any more then.
    async fn complete(&mut self, handle: &VolumeHandle) {
        let content = &self.content;
        let wanted = usize::from(content.mirrors).min(content.in_sync.count());
        let complete = usize::from(content.guarantee) >= wanted && content.joining.is_empty();
        let copied = |task: &Task<R>| {
            canary::is_in(Canary::PromiseBeforeCopied)
                || task.all_say(|report| report.places.holders >= wanted)
        };
        if complete || self.failed.is_some() || !copied(self) {
            return;
        }
        let next = Superblock {
            guarantee: u16::try_from(wanted).expect("at most DRIVES_MAX"),
            joining: DriveSet::EMPTY,
            removed: content.removed.or(self.unwritable()),
            ..content.clone()
        };
        // Any other error stays in `failed`, and whoever writes meets it.
        let changed = self.try_change(next).await;
        if matches!(changed, Err(VolumeError::NotNow(_))) && !self.looks_again {
            self.looks_again = true;
            let (runtime, requests) = (self.runtime.clone(), handle.requests.clone());
            self.runtime.spawn(Queue::Background, async move {
                runtime.sleep(COMPLETE_AGAIN).await;
                // A full mailbox has reports to come, which look too.
                let _ = requests.try_send(Request::Look);
            });
        }
    }

    /// Drives that are out of sync, have a vote, and cannot be written.
    fn unwritable(&self) -> DriveSet {
        let written = self.copies.iter().filter(|copy| copy.is_writable());
        let written: DriveSet = written
            .filter_map(|copy| copy.drive.map(|(index, _)| index))
            .collect();
        let content = &self.content;
        content.counted().minus(content.in_sync).minus(written)
    }

    async fn eject(&mut self, drive: DriveIndex, why: String) -> Result<InSync, VolumeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if !self.content.in_sync.contains(drive) {
            return Ok(self.in_sync());
        }
        let rest = self.content.in_sync.without(drive);
        if !self.content.may_shrink_to(rest) {
            let path = self.shared.path(drive).unwrap_or_default();
            return Err(VolumeError::LastDrive { path, why });
        }
        self.why[drive.get()] = why;
        self.change(rest, self.content.removed, 1).await?;
        Ok(self.in_sync())
    }

    pub(super) fn status(&self) -> VolumeStatus {
        let places = (0..self.content.drives.len()).filter_map(DriveIndex::new);
        let (placement, _) = self.shared.look();
        VolumeStatus {
            node: self.content.node,
            in_sync: self.in_sync(),
            drives: places
                .map(|index| DriveStatus {
                    index,
                    id: self.content.drives[index.get()].id,
                    path: self.shared.path(index),
                    in_sync: self.content.in_sync.contains(index),
                    why: self.why[index.get()].clone(),
                    device: self.devices[index.get()],
                    space: self.drives[index.get()]
                        .as_ref()
                        .and_then(|drive| drive.space().ok()),
                    joining: self.content.joining.contains(index),
                    leaving: placement.leaving.contains(index),
                    slow: self.content.in_sync.contains(index)
                        && self
                            .reports
                            .values()
                            .any(|report| report.places.slow.contains(index)),
                    removed: self.content.removed.contains(index),
                    retired: self.content.retired.contains(index),
                })
                .collect(),
            mirrors: self.shared.mirrors,
            root_key: self.content.key.as_ref().map(|key| key.root),
            guarantee: usize::from(self.content.guarantee),
            operation: self.operation.clone(),
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
