//! Transactions: items of any tables and partitions, written or read as if at one moment.
//!
//! - [`record`]: what is kept, byte by byte;
//! - [`participant`]: a partition's part in a transaction that writes;
//! - [`ledger`]: where transactions are decided, and remembered for their tokens;
//! - [`coordinate`]: what leads a transaction from its request to its answer;
//! - [`read`]: transactions that read;
//! - [`oversee`]: what ends transactions that nobody leads any more, and forgets old tokens;
//! - [`stats`]: what is counted.
//!
//! **Writing** (the two-phase protocol of "Distributed Transactions at Scale in Amazon DynamoDB", ATC 2023; docs/decisions/0007
//! says what differs):
//! 1. The ledger is asked about the client's token, if there is one.
//! 2. Every partition concerned *holds* its items, evaluates conditions on their newest proposed state, and logs a *marker*: the
//!    items as they will be. An item that another transaction holds refuses this one at once, so nobody waits for anybody.
//! 3. When all have answered that they are prepared, the decision is one durable write in the ledger; with it goes the token.
//! 4. Every partition makes its items what the marker says, through the same step as plain writes, and lets go of them.
//!    Then the client is answered.
//!
//! **Invariants**
//! 1. An item that is held is changed by the transaction that holds it and nobody else: plain writes are refused.
//! 2. A transaction holds all its items when it is decided, and each of them until its new state is applied. So the order of the
//!    decisions is an order in which the transactions could have been carried out one after the other.
//! 3. What is decided is never taken back. A transaction is committed by its record in the ledger and by nothing else; one
//!    that was given up there is never committed.
//! 4. A marker goes in the step that makes the last of its items what it says, or when its transaction was given up.
//! 5. A record of the ledger that says committed goes only when no marker of the transaction is left.

mod coordinate;
mod ledger;
mod oversee;
mod participant;
mod read;
mod record;
mod stats;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::ids::{LogId, PartitionId};
use cairn_engine::mutation::TransactionId;
use cairn_runtime::mailbox::reply;
use cairn_runtime::sync::Notify;
use cairn_runtime::{Moment, Runtime};

pub(crate) use coordinate::{Changed, Token, TransactWrite, Transacted, write};
pub(crate) use ledger::LEDGER_TABLE;
pub(crate) use oversee::oversee;
pub(crate) use participant::recover;
pub(crate) use read::{TransactRead, read};
pub use stats::{Met, TransactionStats};

use crate::api::ApiError;
use crate::api::error::{THROUGHPUT_EXCEEDED, TRANSACTION_CONFLICT};
use crate::catalog::Table;
use crate::route::{Request, Router, Target, WriteDone};
use ledger::{Begun, Deciding};
use participant::{Prepare, Prepared, Verdict};
use read::Looked;
use record::{Home, Participant};

/// Transactions that may be prepared on one shard.
pub(crate) const PREPARED_MAX: usize = 16_384;
/// Bytes of items that prepared transactions may keep in memory on one shard.
pub(crate) const PREPARED_BYTES_MAX: usize = 64 << 20;
/// Pauses before what failed is tried again: doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// DynamoDB's words for an item that a transaction holds.
pub(crate) const CONFLICT: &str = "Transaction is ongoing for the item";

/// Who holds the items of a partition, by their storage keys.
type Holders = BTreeMap<Rc<[u8]>, TransactionId>;

/// What one shard knows of transactions.
#[derive(Default)]
pub(crate) struct Transactions {
    /// Items that are held, and by whom.
    held: RefCell<BTreeMap<PartitionId, Holders>>,
    /// Transactions that are prepared on partitions of this shard.
    prepared: RefCell<BTreeMap<(PartitionId, TransactionId), Rc<Prepared>>>,
    prepared_bytes: Cell<usize>,
    /// Tokens of partitions of the ledger on this shard whose transactions are under way.
    under_way: RefCell<BTreeMap<u128, (TransactionId, Moment)>>,
    /// The ledger, once it exists.
    ledger: RefCell<Option<Rc<Table>>>,
    /// There is something to oversee.
    wake: Notify,
    /// What was counted; its gauges are filled in when they are asked for.
    counted: RefCell<TransactionStats>,
}

impl Transactions {
    /// Refuses a write, unless it is of the transaction that holds the item.
    pub(crate) fn check(
        &self,
        partition: PartitionId,
        key: &[u8],
        by: Option<TransactionId>,
    ) -> Result<(), ApiError> {
        if self.holder(partition, key) == by {
            Ok(())
        } else {
            self.met(Met::Write);
            Err(conflict())
        }
    }

    /// Who holds the item.
    pub(crate) fn holder(&self, partition: PartitionId, key: &[u8]) -> Option<TransactionId> {
        let held = self.held.borrow();
        if held.is_empty() {
            return None;
        }
        held.get(&partition)?.get(key).copied()
    }

    /// Holds an item, unless another transaction does.
    fn hold(&self, partition: PartitionId, key: &[u8], id: TransactionId) -> bool {
        let mut held = self.held.borrow_mut();
        let keys = held.entry(partition).or_default();
        let holds = *keys.entry(key.into()).or_insert(id) == id;
        if !holds {
            self.met(Met::Transaction);
        }
        holds
    }

    /// Lets go of those of these items that the transaction holds.
    fn release<'k>(&self, partition: PartitionId, keys: impl Iterator<Item = &'k [u8]>, id: TransactionId) {
        let mut held = self.held.borrow_mut();
        let Some(here) = held.get_mut(&partition) else {
            return;
        };
        for key in keys {
            if here.get(key) == Some(&id) {
                here.remove(key);
            }
        }
        if here.is_empty() {
            held.remove(&partition);
        }
    }

    /// A partition has gone, with all that was prepared in it.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let least = (partition, TransactionId(0));
        let most = (partition, TransactionId(u128::MAX));
        let gone: Vec<_> = {
            let prepared = self.prepared.borrow();
            prepared.range(least..=most).map(|(key, _)| *key).collect()
        };
        for key in gone {
            self.remove(key);
        }
        self.held.borrow_mut().remove(&partition);
    }

    /// A prepared transaction has ended.
    fn remove(&self, key: (PartitionId, TransactionId)) {
        if let Some(prepared) = self.prepared.borrow_mut().remove(&key) {
            let bytes = self.prepared_bytes.get();
            self.prepared_bytes.set(bytes.saturating_sub(prepared.bytes));
        }
    }

    fn add(&self, prepared: Prepared) {
        self.prepared_bytes
            .set(self.prepared_bytes.get() + prepared.bytes);
        let key = (prepared.partition, prepared.id);
        self.prepared.borrow_mut().insert(key, Rc::new(prepared));
        self.wake.notify_one();
    }

    /// Takes note of the ledger, if this is it.
    pub(crate) fn watch(&self, table: &Rc<Table>) {
        if table.definition().name == LEDGER_TABLE {
            self.ledger.replace(Some(Rc::clone(table)));
            self.wake.notify_one();
        }
    }

    /// Counts an item that was met while a transaction held it.
    fn met(&self, by: Met) {
        *self.counted.borrow_mut().conflicts.entry(by).or_default() += 1;
    }

    /// Counts a transaction that was cancelled, once for each code among its reasons.
    pub(crate) fn cancelled(&self, codes: impl Iterator<Item = &'static str>) {
        let codes: BTreeSet<&str> = codes.collect();
        let mut counted = self.counted.borrow_mut();
        for code in codes {
            *counted.cancelled.entry(code).or_default() += 1;
        }
    }

    /// Counters and gauges.
    pub(crate) fn stats(&self) -> TransactionStats {
        let mut stats = self.counted.borrow().clone();
        stats.prepared = self.prepared.borrow().len() as u64;
        stats.held_items = self.held.borrow().values().map(|held| held.len() as u64).sum();
        stats
    }

    /// Lets the overseer end.
    pub(crate) fn stop(&self) {
        self.wake.notify_all();
    }
}

/// A plain write met a prepared item.
pub(crate) fn conflict() -> ApiError {
    ApiError::new(TRANSACTION_CONFLICT, CONFLICT)
}

/// What transactions ask of the shard that owns a partition.
pub(crate) enum Ask {
    /// Hold items and say whether the transaction may be committed.
    Prepare(Box<Prepare>),
    /// Carry out what is prepared, or forget it.
    End {
        id: TransactionId,
        committed: bool,
        /// Say how large item collections are.
        collections: bool,
    },
    /// Of the ledger: a transaction with a token begins.
    Begin {
        slot: u128,
        id: TransactionId,
        fingerprint: u128,
    },
    /// Of the ledger: it ends without a decision.
    Withdraw { slot: u128, id: TransactionId },
    /// Of the ledger: commit it.
    Decide(Box<Deciding>),
    /// Of the ledger: all participants have carried it out.
    Settle {
        slot: u128,
        id: TransactionId,
        /// The commit timestamp of its entry in the list of what expires, when that goes too.
        expiry: Option<u64>,
    },
    /// Of the ledger: what was decided; it is given up if nothing was.
    Resolve { slot: u128, id: TransactionId },
    /// Read items.
    Look { keys: Vec<Vec<u8>>, values: bool },
}

/// What is answered.
pub(crate) enum Told {
    Prepared(Vec<Verdict>),
    /// For each item that was written, by its place among those of the partition.
    Ended(Vec<(usize, WriteDone)>),
    Begun(Begun),
    /// Whether it is committed, and the commit timestamp of that decision when it was made now.
    Decided(bool, Option<u64>),
    Looked(Vec<Looked>),
    Done,
}

impl<R: Runtime> Router<R> {
    /// Asks the owner of a partition.
    async fn ask(self: &Rc<Self>, target: Target, ask: Ask) -> Result<Told, ApiError> {
        if target.seat.shard == self.shard {
            return self.told(target.seat.engine, target.partition, ask).await;
        }
        let (sender, answer) = reply();
        let request = Request::Transact {
            engine: target.seat.engine,
            partition: target.partition,
            ask,
            reply: sender,
        };
        self.send(target, request).await?;
        // The other shard is gone, and with it the process; what it did is not known.
        answer
            .await
            .map_err(|_| ApiError::internal("the node stopped during the transaction"))?
    }

    /// Does what is asked about a partition of this shard. Waits for no other shard.
    pub(crate) async fn told(
        &self,
        engine: usize,
        partition: PartitionId,
        ask: Ask,
    ) -> Result<Told, ApiError> {
        match ask {
            Ask::Prepare(prepare) => participant::prepare(self, engine, partition, *prepare).await,
            Ask::End {
                id,
                committed,
                collections,
            } => participant::end(self, partition, id, committed, collections).await,
            Ask::Begin {
                slot,
                id,
                fingerprint,
            } => ledger::begin(self, engine, partition, slot, id, fingerprint).await,
            Ask::Withdraw { slot, id } => {
                ledger::withdraw(self, slot, id);
                Ok(Told::Done)
            }
            Ask::Decide(deciding) => ledger::decide(self, engine, partition, *deciding).await,
            Ask::Settle { slot, id, expiry } => {
                ledger::settle(self, engine, partition, slot, id, expiry).await
            }
            Ask::Resolve { slot, id } => ledger::resolve(self, engine, partition, slot, id).await,
            Ask::Look { keys, values } => read::look(self, engine, partition, keys, values).await,
        }
    }

    /// Where a partition is served that is kept in this log.
    fn target_of(&self, partition: PartitionId, log: LogId) -> Result<Target, ApiError> {
        let seat = self
            .deal
            .seat(log)
            .ok_or_else(|| ApiError::internal(format!("log {log} is on none of the drives")))?;
        Ok(Target { partition, seat })
    }

    fn home_target(&self, home: Home) -> Result<Target, ApiError> {
        self.target_of(home.partition, home.log)
    }

    fn participant_target(&self, participant: Participant) -> Result<Target, ApiError> {
        self.target_of(participant.partition, participant.log)
    }
}

/// An answer to another question: cannot be, as every question has one kind of answer.
fn crossed() -> ApiError {
    ApiError::internal("a transaction was told what it did not ask")
}

/// Whether it may help to ask again.
fn may_pass(error: &ApiError) -> bool {
    error.kind == THROUGHPUT_EXCEEDED
}
