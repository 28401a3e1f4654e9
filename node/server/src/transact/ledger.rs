//! Where transactions are decided, and remembered for their tokens.
//!
//! The ledger is a table that no request can name, made before the first transaction. A transaction's records are in the partition
//! that its *slot* leads to: a digest of the client's token, or a random number.
//! - A **decision** is written once: committed by the coordinator, or given up by whoever asks for one that is not there. The step of
//!   the partition's chain that writes it writes the token, and an entry of a list by age, with it.
//! - A transaction with a token is *under way* here, in memory, from its beginning to its end. Only one that is under way is
//!   committed, so of two requests with one token one waits for its turn; and after a restart none is, so that what was begun before
//!   cannot be committed behind the back of the one that tries again.
//! - A transaction without a token is committed within [`DECISION_WAIT_MAX`] of its beginning or not at all, and what was given
//!   up is remembered much longer than that.
//! - Tokens are forgotten after [`TOKEN_LIFE`].

use std::time::Duration;

use cairn_engine::ids::PartitionId;
use cairn_engine::mutation::TransactionId;
use cairn_engine::{Change, Counter, Decision as Step, Derived, StoredRef};
use cairn_runtime::Runtime;

use super::Told;
use super::record::{Decision, Expiry, Participant, TokenRecord, decision_key, expiry_prefix, token_key};
use crate::api::ApiError;
use crate::api::error::{THROUGHPUT_EXCEEDED, TRANSACTION_IN_PROGRESS};
use crate::catalog::hash_of;
use crate::route::{Router, record_deleted};

/// The ledger's name: one that no request can have.
pub(crate) const LEDGER_TABLE: &str = ":transactions";

/// How long a token is remembered.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(600);
/// A transaction that is not decided by then is given up.
pub(super) const DECISION_WAIT_MAX: Duration = Duration::from_secs(60);
/// Tokens that may be under way on one shard.
const UNDER_WAY_MAX: usize = 65_536;

const _: () = assert!(DECISION_WAIT_MAX.as_secs() * 2 < TOKEN_LIFE.as_secs());

const IN_PROGRESS: &str = "A transaction with the same client request token is in progress";

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Nothing: the transaction is under way from now on.
    New,
    /// Another request has had it.
    Mismatch,
    /// The same request was committed, with items of these sizes; where it is still being carried out, in these
    /// partitions.
    Committed {
        id: TransactionId,
        sizes: Vec<u32>,
        left: Vec<Participant>,
    },
}

/// A transaction that is to be committed: all its participants are prepared.
#[derive(Debug)]
pub(crate) struct Deciding {
    pub slot: u128,
    pub id: TransactionId,
    /// When it began, by the coordinator's clock.
    pub begun_ms: u64,
    pub participants: Vec<Participant>,
    /// The fingerprint of the request and the sizes of its items, when the client gave a token.
    pub token: Option<(u128, Vec<u32>)>,
}

fn unreadable(partition: PartitionId) -> ApiError {
    ApiError::internal(format!(
        "partition {partition} of the ledger holds a record that this version cannot read"
    ))
}

/// Looks a token up; one that is new is under way from now on.
pub(super) async fn begin<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    slot: u128,
    id: TransactionId,
    fingerprint: u128,
) -> Result<Told, ApiError> {
    let now = router.runtime.now();
    {
        let mut under_way = router.transactions.under_way.borrow_mut();
        let stale = |since| now.since(since) > DECISION_WAIT_MAX;
        if under_way.get(&slot).is_some_and(|(_, since)| !stale(*since)) {
            return Err(ApiError::new(TRANSACTION_IN_PROGRESS, IN_PROGRESS));
        }
        if under_way.len() >= UNDER_WAY_MAX {
            under_way.retain(|_, (_, since)| !stale(*since));
        }
        if under_way.len() >= UNDER_WAY_MAX {
            return Err(ApiError::new(
                THROUGHPUT_EXCEEDED,
                "too many transactions are under way; slow down",
            ));
        }
        under_way.insert(slot, (id, now));
    }
    let begun = known(router, engine, partition, slot, fingerprint).await;
    if !matches!(begun, Ok(Begun::New)) {
        withdraw(router, slot, id);
    }
    begun.map(Told::Begun)
}

async fn known<R: Runtime>(
    router: &Router<R>,
    engine_index: usize,
    partition: PartitionId,
    slot: u128,
    fingerprint: u128,
) -> Result<Begun, ApiError> {
    let engine = &router.engines[engine_index];
    let Some(stored) = engine.get(partition, &token_key(slot)).await? else {
        return Ok(Begun::New);
    };
    let token = TokenRecord::decode(&stored).ok_or_else(|| unreadable(partition))?;
    if is_over(token.decided_ms, router.runtime.unix_ms()) {
        return Ok(Begun::New);
    }
    if token.fingerprint != fingerprint {
        return Ok(Begun::Mismatch);
    }
    Ok(Begun::Committed {
        id: token.id,
        sizes: token.sizes,
        left: left_of(router, engine_index, partition, slot, token.id).await?,
    })
}

/// Whether what was decided then is forgotten now.
pub(super) fn is_over(decided_ms: u64, now_ms: u64) -> bool {
    Duration::from_millis(now_ms.saturating_sub(decided_ms)) >= TOKEN_LIFE
}

/// A transaction is not under way any more.
pub(super) fn withdraw<R: Runtime>(router: &Router<R>, slot: u128, id: TransactionId) {
    let mut under_way = router.transactions.under_way.borrow_mut();
    if under_way.get(&slot).is_some_and(|(other, _)| *other == id) {
        under_way.remove(&slot);
    }
}

/// What a record needs so that it is found when it is old.
fn expiry_of(lower: u64, slot: u128, id: TransactionId, decided_ms: u64) -> Derived {
    let expiry = Expiry { decided_ms, slot, id };
    Derived {
        key: expiry_prefix(lower),
        stamped: true,
        counter: Counter::Nothing,
        put: Some((expiry.encode().into(), 0)),
        with_item: false,
        old_item_bytes: None,
    }
}

fn put(bytes: Vec<u8>) -> Change {
    Change::Put {
        item: bytes,
        item_bytes: 0,
    }
}

fn lower_of<R: Runtime>(router: &Router<R>, engine: usize, partition: PartitionId) -> Result<u64, ApiError> {
    let info = router.engines[engine]
        .partition(partition)
        .ok_or_else(|| ApiError::internal("a partition of the ledger is missing"))?;
    Ok(hash_of(&info.lower))
}

/// Commits a transaction, unless it was given up.
pub(super) async fn decide<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    deciding: Deciding,
) -> Result<Told, ApiError> {
    let Deciding {
        slot,
        id,
        begun_ms,
        participants,
        token,
    } = deciding;
    let lower = lower_of(router, engine, partition)?;
    let key = decision_key(slot, id);
    let step = |stored: Option<StoredRef<'_>>| {
        let now_ms = router.runtime.unix_ms();
        let under_way = router.transactions.under_way.borrow();
        let may_commit = match &token {
            Some(_) => under_way.get(&slot).is_some_and(|(other, _)| *other == id),
            None => Duration::from_millis(now_ms.saturating_sub(begun_ms)) <= DECISION_WAIT_MAX,
        };
        if stored.is_some() || !may_commit {
            // What is stored can only be that it was given up: a coordinator asks once.
            return Step {
                change: Change::Keep,
                derived: Vec::new(),
                outcome: false,
            };
        }
        let mut derived = vec![expiry_of(lower, slot, id, now_ms)];
        if let Some((fingerprint, sizes)) = token {
            let record = TokenRecord {
                id,
                fingerprint,
                decided_ms: now_ms,
                sizes,
            };
            derived.push(Derived {
                key: token_key(slot),
                stamped: false,
                counter: Counter::Nothing,
                put: Some((record.encode().into(), 0)),
                with_item: false,
                old_item_bytes: None,
            });
        }
        Step {
            change: put(Decision::Committed(participants).encode()),
            derived,
            outcome: true,
        }
    };
    let engine = &router.engines[engine];
    let updated = engine
        .update_with(partition, &key, Counter::Nothing, step)
        .await?;
    let commit = updated.commit.map(|commit| commit.0);
    Ok(Told::Decided(updated.outcome, commit))
}

/// Forgets a decision that all participants have carried out; `expiry` is when its entry in the list by age was made, if
/// that is not needed for a token.
pub(super) async fn settle<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    slot: u128,
    id: TransactionId,
    expiry: Option<u64>,
) -> Result<Told, ApiError> {
    withdraw(router, slot, id);
    let lower = lower_of(router, engine, partition)?;
    let entry =
        expiry.map(|commit| record_deleted([expiry_prefix(lower), commit.to_be_bytes().to_vec()].concat()));
    let step = |_: Option<StoredRef<'_>>| Step {
        change: Change::Delete,
        derived: entry.into_iter().collect(),
        outcome: (),
    };
    let key = decision_key(slot, id);
    router.engines[engine]
        .update_with(partition, &key, Counter::Nothing, step)
        .await?;
    Ok(Told::Done)
}

/// What was decided about a transaction. If nothing was, it is given up: that is a decision as well.
pub(super) async fn resolve<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    slot: u128,
    id: TransactionId,
) -> Result<Told, ApiError> {
    let lower = lower_of(router, engine, partition)?;
    let step = |stored: Option<StoredRef<'_>>| match stored {
        Some(stored) => Step {
            change: Change::Keep,
            derived: Vec::new(),
            outcome: Decision::decode(stored.item),
        },
        None => Step {
            change: put(Decision::GivenUp.encode()),
            derived: vec![expiry_of(lower, slot, id, router.runtime.unix_ms())],
            outcome: Some(Decision::GivenUp),
        },
    };
    let key = decision_key(slot, id);
    let updated = router.engines[engine]
        .update_with(partition, &key, Counter::Nothing, step)
        .await?;
    match updated.outcome {
        Some(Decision::Committed(_)) => Ok(Told::Decided(true, None)),
        Some(Decision::GivenUp) => Ok(Told::Decided(false, None)),
        None => Err(unreadable(partition)),
    }
}

/// Forgets what `expiry`, under `entry`, says is over: its decision, which all participants have carried out, the entry, and the
/// token if it is not used anew. False when that must wait, because just now it may be.
pub(super) async fn forget<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    entry: Vec<u8>,
    expiry: Expiry,
) -> Result<bool, ApiError> {
    let step = |stored: Option<StoredRef<'_>>| {
        if router.transactions.under_way.borrow().contains_key(&expiry.slot) {
            return Step {
                change: Change::Keep,
                derived: Vec::new(),
                outcome: false,
            };
        }
        let token = stored.and_then(|stored| TokenRecord::decode(stored.item));
        let is_its = token.is_some_and(|token| token.id == expiry.id);
        Step {
            change: if is_its { Change::Delete } else { Change::Keep },
            derived: vec![
                record_deleted(entry),
                record_deleted(decision_key(expiry.slot, expiry.id)),
            ],
            outcome: true,
        }
    };
    let key = token_key(expiry.slot);
    let engine = &router.engines[engine];
    let updated = engine
        .update_with(partition, &key, Counter::Nothing, step)
        .await?;
    Ok(updated.outcome)
}

/// Where a committed transaction has to be carried out still; none when it is known to be, or was given up.
pub(super) async fn left_of<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    slot: u128,
    id: TransactionId,
) -> Result<Vec<Participant>, ApiError> {
    let stored = router.engines[engine]
        .get(partition, &decision_key(slot, id))
        .await?;
    match stored.map(|stored| Decision::decode(&stored)) {
        None | Some(Some(Decision::GivenUp)) => Ok(Vec::new()),
        Some(Some(Decision::Committed(participants))) => Ok(participants),
        Some(None) => Err(unreadable(partition)),
    }
}
