//! The write path: propose → log → commit → apply.
//!
//! 1. [`Inner::admit`] slows a write down while memory or log space is short, and so does a level 0 that has grown long.
//! 2. The newest **proposed** state of the key is found: in flight, else in memtable or segments. Only when a
//!    drive must be read for it (or the log is full, step 4) is the key's latch held, first in, first out.
//! 3. `decide` runs synchronously on it.
//! 4. The outcome, a pure put or delete, gets the partition's next index and timestamp and joins the batch that
//!    the log gathers. A proposal that does not fit, or meets a hold ([`super::backup`]), waits, holding the latch, and is
//!    refused when that lasts. What is derived
//!    from it for other keys (entries of local indexes, records of the change sequence) is in the same record.
//! 5. [`commit`] follows the log: what is durable is committed (one replica; raft will say so later) and is applied
//!    in log order: memtable, counters, then the writers are woken.
//! 6. An answer that changes nothing waits for the proposal it was decided on, if that is still in flight.
//!
//! Invariants: between step 2 and joining the batch nobody else can propose for the key, as there is either no
//! await in between or the latch is held; indexes and timestamps are taken in the same synchronous step as the
//! place in the batch, so all three ascend together; reads see only what step 5 has applied.

use std::rc::Rc;

use cairn_runtime::Runtime;
use cairn_runtime::sync::timeout;

use super::partition::{Newest, Partition};
use super::pressure::{LEVEL0_SLOW, Pressure, level0_delay, pressure};
use super::replay::joined;
use super::space::Claim;
use super::types::{Change, Decision, Derived, StoredRef, Updated};
use super::{Inner, TERM};
use crate::canary::{self, Canary};
use crate::error::EngineError;
use crate::group::{Counter, GROUP_CHANGES_MAX, encode_change, encode_header, group_bytes};
use crate::ids::{CommitTimestamp, LogSequence, PartitionId, RaftIndex};
use crate::log::{LogError, Record};
use crate::mutation::{
    ITEM_ARCHIVE_BYTES_MAX, KEY_BYTES_MAX, MUTATION_HEADER_BYTES, Mutation, MutationHeader, MutationKind,
    Provenance, RequestToken,
};
use crate::record::RecordKind;
use crate::tree::Version;

/// A step of a partition's chain that has joined the log and is not applied yet.
pub(super) struct Proposal<R: Runtime> {
    pub(super) partition: Rc<Partition<R>>,
    /// Counts all proposals of the engine; what waiters wait for.
    pub(super) number: u64,
    pub(super) sequence: LogSequence,
    pub(super) index: RaftIndex,
    pub(super) commit: CommitTimestamp,
    /// The change of the key that was decided on; none when only derived ones were made.
    pub(super) own: Option<ProposedChange>,
    pub(super) further: Vec<ProposedChange>,
}

/// One change of a step.
pub(super) struct ProposedChange {
    pub(super) key: Rc<[u8]>,
    pub(super) counter: Counter,
    pub(super) old_item_bytes: Option<u32>,
    pub(super) version: Version,
}

/// What is to be proposed.
struct Outcome {
    counter: Counter,
    /// What becomes of the item; none keeps it.
    own: Option<Own>,
    derived: Vec<Derived>,
}

struct Own {
    /// The item and its DynamoDB size; none for a delete.
    put: Option<(Rc<[u8]>, u32)>,
    old_item_bytes: Option<u32>,
}

impl Outcome {
    /// Whether it is logged as a plain mutation.
    fn is_plain(&self) -> bool {
        self.derived.is_empty() && self.counter == Counter::Items
    }

    /// Bytes of its record's payload.
    fn payload_bytes(&self, key: &[u8]) -> usize {
        let put_bytes = |put: &Option<(Rc<[u8]>, u32)>| put.as_ref().map_or(0, |(item, _)| item.len());
        let own = self.own.as_ref();
        let own = own.map(|own| MUTATION_HEADER_BYTES + key.len() + put_bytes(&own.put));
        if self.is_plain() {
            return own.unwrap_or(0);
        }
        let derived = self.derived.iter();
        let derived = derived
            .map(|derived| MUTATION_HEADER_BYTES + derived.key.len() + STAMP_BYTES + put_bytes(&derived.put));
        group_bytes(own.into_iter().chain(derived))
    }
}

/// Bytes of a commit timestamp behind a derived key.
const STAMP_BYTES: usize = 8;

/// A mutation of the local region, outside of any transaction.
fn mutation<'a>(
    commit: CommitTimestamp,
    key: &'a [u8],
    put: Option<&'a (Rc<[u8]>, u32)>,
    old_item_bytes: Option<u32>,
) -> Mutation<'a> {
    let (kind, item, new_item_bytes) = match put {
        Some((item, item_bytes)) => (MutationKind::Put, &**item, Some(*item_bytes)),
        None => (MutationKind::Delete, &[][..], None),
    };
    Mutation {
        header: MutationHeader {
            kind,
            commit,
            provenance: Provenance::default(),
            token: RequestToken::default(),
            old_item_bytes,
            new_item_bytes,
        },
        extension: b"",
        key,
        item,
    }
}

/// The version that a change leaves behind.
fn version(commit: CommitTimestamp, put: Option<&(Rc<[u8]>, u32)>) -> Version {
    match put {
        Some((item, item_bytes)) => Version::put(commit, *item_bytes, Rc::clone(item)),
        None => Version::tombstone(commit),
    }
}

/// Why a proposal did not join the log.
enum ProposeError {
    Partition(EngineError),
    Log(LogError),
}

impl From<LogError> for ProposeError {
    fn from(error: LogError) -> ProposeError {
        ProposeError::Log(error)
    }
}

impl<R: Runtime> Inner<R> {
    pub(super) async fn update<T>(
        &self,
        id: PartitionId,
        key: &[u8],
        counter: Counter,
        claim: Claim,
        decide: impl FnOnce(Option<StoredRef<'_>>) -> Decision<T>,
    ) -> Result<Updated<T>, EngineError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(EngineError::TooLarge {
                bytes: key.len(),
                bytes_max: KEY_BYTES_MAX,
            });
        }
        if self.is_tight() {
            self.admit().await?;
        }
        let partition = self.serving(id)?;
        partition.check_owns(key)?;
        let level0 = partition.tree.level0_segments();
        if level0 > LEVEL0_SLOW {
            self.counts.add(&self.counts.delays);
            self.runtime.sleep(level0_delay(level0)).await;
        }
        let mut latch = None;
        if partition.latches.is_taken(key) {
            latch = Some(partition.latches.acquire(key).await);
        }
        let newest = match partition.newest_in_memory(key) {
            Some(newest) => newest.map_err(|error| self.read_failed(&partition, error))?,
            None => {
                if latch.is_none() {
                    latch = Some(partition.latches.acquire(key).await);
                }
                self.newest_on_drive(&partition, key).await?
            }
        };
        let Decision {
            change,
            derived,
            outcome,
        } = decide(newest.as_stored());
        let old_item_bytes = newest.item_bytes();
        let own = match change {
            Change::Put { item, .. } if item.len() > self.config.item_bytes_max => {
                return Err(EngineError::TooLarge {
                    bytes: item.len(),
                    bytes_max: self.config.item_bytes_max,
                });
            }
            Change::Put { item, item_bytes } => {
                self.check_put(&partition, counter, claim)?;
                Some(Own {
                    put: Some((item.into(), item_bytes)),
                    old_item_bytes,
                })
            }
            Change::Delete if old_item_bytes.is_some() => Some(Own {
                put: None,
                old_item_bytes,
            }),
            Change::Delete | Change::Keep if !derived.is_empty() => None,
            Change::Delete | Change::Keep => {
                drop(latch);
                if !canary::is_in(Canary::AnswerUnchangedAtOnce) {
                    self.wait_applied(newest.number).await?;
                }
                self.counts.add(&self.counts.unchanged);
                return Ok(Updated {
                    outcome,
                    commit: None,
                    old_item_bytes,
                });
            }
        };
        drop(newest);
        let proposal = Outcome {
            counter,
            own,
            derived,
        };
        self.check_derived(&partition, key, &proposal)?;
        let (number, commit) = match self.propose(&partition, key, &proposal) {
            Err(ProposeError::Log(LogError::Full)) => {
                if latch.is_none() {
                    latch = Some(partition.latches.acquire(key).await);
                }
                self.propose_when_ready(&partition, key, &proposal).await?
            }
            proposed => proposed.map_err(|error| self.refused(error))?,
        };
        drop(latch);
        self.wait_applied(Some(number)).await?;
        Ok(Updated {
            outcome,
            commit: Some(commit),
            old_item_bytes,
        })
    }

    /// The state of a key that is not in memory. The caller holds the latch.
    async fn newest_on_drive(&self, partition: &Rc<Partition<R>>, key: &[u8]) -> Result<Newest, EngineError> {
        // Another writer may have proposed, or a reader filled the cache, while the latch was awaited.
        let found = match partition.newest_in_memory(key) {
            Some(newest) => newest,
            None => partition.tree.get(key).await.map(Newest::applied),
        };
        found.map_err(|error| self.read_failed(partition, error))
    }

    /// Joins the batch being gathered. Synchronous: see the invariants above.
    fn propose(
        &self,
        partition: &Rc<Partition<R>>,
        key: &[u8],
        outcome: &Outcome,
    ) -> Result<(u64, CommitTimestamp), ProposeError> {
        self.check_runs().map_err(ProposeError::Partition)?;
        partition.check_serves().map_err(ProposeError::Partition)?;
        if self.is_held() {
            return Err(LogError::Full.into());
        }
        let now = self.runtime.now();
        let commit =
            self.clock
                .borrow_mut()
                .next(now, self.runtime.unix_ms(), partition.proposed_commit.get());
        let index = RaftIndex(partition.proposed_index.get().0 + 1);
        let mut payload = self.scratch.borrow_mut();
        payload.clear();
        let own = outcome
            .own
            .as_ref()
            .map(|own| mutation(commit, key, own.put.as_ref(), own.old_item_bytes));
        let (kind, stamped) = match own {
            Some(own) if outcome.is_plain() => {
                own.encode(&mut payload);
                (RecordKind::Mutation, Vec::new())
            }
            own => (
                RecordKind::Group,
                encode_group(outcome, commit, own.as_ref(), &mut payload),
            ),
        };
        let position = self.log.append(Record {
            kind: kind as u8,
            partition: partition.descriptor.id,
            table: partition.descriptor.table,
            index: partition.descriptor.index,
            term: TERM,
            raft_index: index,
            payload: &payload,
        })?;
        partition.proposed_commit.set(commit);
        partition.proposed_index.set(index);
        let number = self.proposals.get() + 1;
        self.proposals.set(number);
        let own = outcome.own.as_ref().map(|own| ProposedChange {
            key: key.into(),
            counter: outcome.counter,
            old_item_bytes: own.old_item_bytes,
            version: version(commit, own.put.as_ref()),
        });
        if let Some(own) = &own {
            let mut in_flight = partition.in_flight.borrow_mut();
            in_flight.insert(Rc::clone(&own.key), number, own.version.clone());
        }
        let item = outcome.own.as_ref().and_then(|own| own.put.as_ref());
        let further = stamped.into_iter().zip(&outcome.derived);
        let further = further.map(|(key, derived)| ProposedChange {
            key,
            counter: derived.counter,
            old_item_bytes: derived.old_item_bytes,
            version: match (&derived.put, item) {
                (Some((begin, bytes)), Some((item, _))) if derived.with_item => {
                    Version::put(commit, *bytes, joined(begin, item))
                }
                (put, _) => version(commit, put.as_ref()),
            },
        });
        self.queue.borrow_mut().push_back(Proposal {
            partition: Rc::clone(partition),
            number,
            sequence: position.sequence,
            index,
            commit,
            own,
            further: further.collect(),
        });
        self.proposed.notify_one();
        Ok((number, commit))
    }

    /// Proposes as soon as the log has room. The caller holds the key's latch, so the decision stays valid.
    async fn propose_when_ready(
        &self,
        partition: &Rc<Partition<R>>,
        key: &[u8],
        outcome: &Outcome,
    ) -> Result<(u64, CommitTimestamp), EngineError> {
        self.counts.add(&self.counts.stalls);
        let payload_bytes = outcome.payload_bytes(key);
        let deadline = self.runtime.now() + self.config.write_wait_max;
        loop {
            let left = deadline.since(self.runtime.now());
            let ready = async {
                self.not_held().await;
                self.log.ready(payload_bytes).await
            };
            let Ok(ready) = timeout(&self.runtime, left, ready).await else {
                return Err(EngineError::Throttled);
            };
            ready.map_err(|error| self.refused(error.into()))?;
            match self.propose(partition, key, outcome) {
                Err(ProposeError::Log(LogError::Full)) => {}
                proposed => return proposed.map_err(|error| self.refused(error)),
            }
        }
    }

    /// Checks the limits of derived keys, and that the partition owns them.
    fn check_derived(
        &self,
        partition: &Partition<R>,
        key: &[u8],
        outcome: &Outcome,
    ) -> Result<(), EngineError> {
        let derived = &outcome.derived;
        let item = outcome.own.as_ref().and_then(|own| own.put.as_ref());
        if derived.len() >= GROUP_CHANGES_MAX {
            return Err(EngineError::TooLarge {
                bytes: derived.len(),
                bytes_max: GROUP_CHANGES_MAX,
            });
        }
        for derived in derived {
            let bytes = derived.key.len() + if derived.stamped { STAMP_BYTES } else { 0 };
            if bytes > KEY_BYTES_MAX {
                return Err(EngineError::TooLarge {
                    bytes,
                    bytes_max: KEY_BYTES_MAX,
                });
            }
            if derived.with_item {
                let begin = derived.put.as_ref().map_or(0, |(begin, _)| begin.len());
                let bytes = begin + item.expect("what goes on with an item is put with one").0.len();
                if bytes > ITEM_ARCHIVE_BYTES_MAX {
                    return Err(EngineError::TooLarge {
                        bytes,
                        bytes_max: ITEM_ARCHIVE_BYTES_MAX,
                    });
                }
            }
            partition.check_owns(&derived.key)?;
            debug_assert!(derived.key != key, "a derived key is another key");
        }
        Ok(())
    }

    /// What a refusal by the log means: nothing was written.
    fn refused(&self, error: ProposeError) -> EngineError {
        match error {
            ProposeError::Partition(error) => error,
            ProposeError::Log(error) => self.log_refused(&error),
        }
    }

    /// Resolves when the proposal is applied; at once without one.
    pub(super) async fn wait_applied(&self, number: Option<u64>) -> Result<(), EngineError> {
        let Some(number) = number else { return Ok(()) };
        self.applied
            .wait(number)
            .await
            .map_err(|_| EngineError::Unknown(self.stop_reason()))
    }

    /// Whether a write has to ask [`Inner::admit`].
    fn is_tight(&self) -> bool {
        self.stopped.borrow().is_some()
            || self.log_tight.get()
            || pressure(self.memory.get(), self.config.memtable_bytes) != Pressure::None
    }

    /// Slows down, smoothly, while memory is short; waits while there is none, or no log space.
    async fn admit(&self) -> Result<(), EngineError> {
        let deadline = self.runtime.now() + self.config.write_wait_max;
        loop {
            if let Some(why) = &*self.stopped.borrow() {
                return Err(EngineError::Stopped(Rc::clone(why)));
            }
            let left = deadline.since(self.runtime.now());
            if self.log_tight.get() {
                self.counts.add(&self.counts.stalls);
                self.work.notify_one();
                match timeout(&self.runtime, left, self.log.ready(MUTATION_HEADER_BYTES)).await {
                    Ok(Ok(())) => self.log_tight.set(false),
                    Ok(Err(error)) => return Err(self.log_refused(&error)),
                    Err(_) => return Err(self.no_relief()),
                }
            }
            let relief = self.relief.notified();
            match pressure(self.memory.get(), self.config.memtable_bytes) {
                Pressure::None => return Ok(()),
                Pressure::Slow => {
                    self.counts.add(&self.counts.delays);
                    let now = self.runtime.now();
                    let wait = self.gate.wait(now, self.memory.get(), self.config.memtable_bytes);
                    self.runtime.sleep(wait).await;
                    return Ok(());
                }
                Pressure::Stall => {
                    if let Some(drive) = &*self.out_of_space.borrow() {
                        return Err(EngineError::OutOfSpace(Rc::clone(drive)));
                    }
                    self.counts.add(&self.counts.stalls);
                    self.work.notify_one();
                    if timeout(&self.runtime, left, relief).await.is_err() {
                        return Err(self.no_relief());
                    }
                }
            }
        }
    }

    /// What it means that a wait was in vain.
    fn no_relief(&self) -> EngineError {
        match &*self.out_of_space.borrow() {
            Some(drive) => EngineError::OutOfSpace(Rc::clone(drive)),
            None => EngineError::Throttled,
        }
    }

    /// Applies every proposal up to batch `sequence`, in log order, then wakes their writers.
    fn apply_up_to(&self, sequence: LogSequence) {
        let mut last = None;
        loop {
            let proposal = {
                let mut queue = self.queue.borrow_mut();
                if queue.front().is_none_or(|front| front.sequence > sequence) {
                    break;
                }
                queue.pop_front().expect("a front was there")
            };
            last = Some(proposal.number);
            self.apply(proposal);
        }
        self.last_applied.set(self.last_applied.get().max(sequence));
        if let Some(number) = last {
            self.applied.advance(number);
        }
    }

    fn apply(&self, proposal: Proposal<R>) {
        let partition = Rc::clone(&proposal.partition);
        if let Some(own) = &proposal.own {
            let mut in_flight = partition.in_flight.borrow_mut();
            in_flight.remove(&own.key, proposal.number);
        }
        self.counts.add(&self.counts.mutations);
        let grown = partition.apply(proposal, self.runtime.now());
        self.memory.set(self.memory.get().saturating_add_signed(grown));
    }
}

/// Appends a group to `payload`; answers the derived keys, with their stamps.
fn encode_group(
    outcome: &Outcome,
    commit: CommitTimestamp,
    own: Option<&Mutation<'_>>,
    payload: &mut Vec<u8>,
) -> Vec<Rc<[u8]>> {
    encode_header(usize::from(own.is_some()) + outcome.derived.len(), payload);
    if let Some(own) = own {
        encode_change(outcome.counter, false, own, payload);
    }
    let mut keys = Vec::with_capacity(outcome.derived.len());
    for derived in &outcome.derived {
        let mut key = derived.key.clone();
        if derived.stamped {
            key.extend_from_slice(&commit.0.to_be_bytes());
        }
        let change = mutation(commit, &key, derived.put.as_ref(), derived.old_item_bytes);
        encode_change(derived.counter, derived.with_item, &change, payload);
        keys.push(key.into());
    }
    keys
}

/// Follows the log and applies what is committed, until the engine stops.
pub(super) async fn commit<R: Runtime>(inner: Rc<Inner<R>>) {
    loop {
        let proposed = inner.proposed.notified();
        let front = inner.queue.borrow().front().map(|proposal| proposal.sequence);
        let Some(sequence) = front else {
            if inner.is_stopped() {
                return;
            }
            proposed.await;
            continue;
        };
        if canary::is_in(Canary::AcknowledgeBeforeDurable) {
            inner.apply_up_to(sequence);
            continue;
        }
        let asked = inner.runtime.now();
        match inner.log.durable(sequence).await {
            Ok(()) => {
                inner.trees.pace().felt(inner.runtime.now().since(asked));
                inner.apply_up_to(inner.log.acknowledged().max(sequence));
            }
            Err(error) => return inner.stop(&error.to_string()),
        }
        inner.look_for_work();
    }
}
