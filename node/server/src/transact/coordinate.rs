//! What leads a transaction from its request to its answer.
//!
//! It runs as a task of its own, so that a client who goes away leaves nothing half done. It keeps nothing: a coordinator that is
//! gone before the decision has not committed, and what it prepared is given up; one that is gone behind it has, and the
//! participants find out at the ledger ([`super::oversee`]).

use std::collections::BTreeMap;
use std::rc::Rc;

use cairn_engine::ids::{IndexId, PartitionId};
use cairn_engine::mutation::TransactionId;
use cairn_runtime::{Queue, Runtime};
use futures_util::future::join_all;

use super::ledger::{Begun, Deciding};
use super::participant::{Prepare, Verdict};
use super::record::{Home, Participant, hash_of_slot};
use super::{Ask, RETRY_MAX, RETRY_MIN, Told, crossed};
use crate::api::error::{IDEMPOTENT_MISMATCH, INTERNAL, THROUGHPUT_EXCEEDED, UNAVAILABLE};
use crate::api::{ApiError, Capacity};
use crate::catalog::Table;
use crate::route::{Router, Target, Write, WriteDone};

/// Times that it is tried to have the ledger forget a decision that is carried out; then its age does it.
const SETTLE_ATTEMPTS: usize = 5;

const MISMATCH: &str = "DynamoDB rejected the request because you retried a request with a different payload but with an \
     idempotent token that was already used";

/// A client's token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    /// A digest of the token and of the operation it is for.
    pub slot: u128,
    /// A digest of the request.
    pub fingerprint: u128,
}

/// A transaction that writes.
#[derive(Debug)]
pub(crate) struct TransactWrite {
    /// Storage keys, no two alike, where they are, and what is wanted of their items.
    pub operations: Vec<(Target, Vec<u8>, Write)>,
    pub token: Option<Token>,
    /// Say how large item collections are.
    pub collections: bool,
    /// Only say what would be refused: something of the request is refused already.
    pub only_judge: bool,
}

/// DynamoDB sizes of the items that a transaction writes, summed.
const WRITTEN_BYTES_MAX: u64 = 4 << 20;

/// What became of one item.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changed {
    pub old_item_bytes: Option<u32>,
    pub new_item_bytes: Option<u32>,
    /// Capacity taken by the indexes that changed.
    pub indexes: Vec<(IndexId, Capacity)>,
    pub collection_bytes_max: Option<u64>,
}

/// What became of a transaction. Lists are in the order of the request.
#[derive(Debug)]
pub(crate) enum Transacted {
    Done(Vec<Changed>),
    /// It was done before, for the same token, with items of these sizes.
    Again(Vec<u32>),
    /// Nothing was done: the items would be too large together.
    TooLarge,
    /// Nothing was done.
    Cancelled {
        /// Why, for the items that are to blame.
        reasons: Vec<Option<ApiError>>,
        /// Which of the others were not there.
        absent: Vec<bool>,
    },
}

/// The part of one partition.
struct Part {
    target: Target,
    participant: Participant,
    /// Which of the request's items it has.
    places: Vec<usize>,
    operations: Vec<(Vec<u8>, Write)>,
}

/// Leads a transaction.
///
/// # Errors
/// The token is another request's, or its transaction is under way; what keeps the partitions or the ledger from being written.
/// `InternalServerError` when it is not known whether it was committed, or it is and is not carried out everywhere yet.
pub(crate) async fn write<R: Runtime>(
    router: Rc<Router<R>>,
    ledger: Rc<Table>,
    request: TransactWrite,
) -> Result<Transacted, ApiError> {
    let random = || u128::from(router.runtime.random_u64()) << 64 | u128::from(router.runtime.random_u64());
    let id = TransactionId(random());
    let slot = request.token.map_or_else(random, |token| token.slot);
    let place = ledger.definition().place_of(hash_of_slot(slot));
    let home = Home {
        partition: ledger.definition().places[place].id,
        log: ledger.definition().places[place].log,
        slot,
    };
    let lead = Lead {
        begun_ms: router.runtime.unix_ms(),
        home_target: ledger.target(place),
        router,
        id,
        home,
    };
    let token = request.token.filter(|_| !request.only_judge);
    if let Some(token) = token
        && let Some(known) = lead.begin(token).await?
    {
        return Ok(known);
    }
    let result = lead.counted(request).await;
    let is_over = match &result {
        // Settling says so.
        Ok(Transacted::Done(_)) => false,
        Ok(_) => true,
        // It may be committed: the token is under way until that is surely known.
        Err(error) => error.kind != INTERNAL,
    };
    if token.is_some() && is_over {
        lead.withdraw();
    }
    result
}

struct Lead<R: Runtime> {
    router: Rc<Router<R>>,
    id: TransactionId,
    home: Home,
    home_target: Target,
    begun_ms: u64,
}

impl<R: Runtime> Lead<R> {
    /// Looks the token up: what is known of it, if it is.
    async fn begin(&self, token: Token) -> Result<Option<Transacted>, ApiError> {
        let ask = Ask::Begin {
            slot: token.slot,
            id: self.id,
            fingerprint: token.fingerprint,
        };
        let Told::Begun(begun) = self.router.ask(self.home_target, ask).await? else {
            return Err(crossed());
        };
        match begun {
            Begun::New => Ok(None),
            Begun::Mismatch => Err(ApiError::new(IDEMPOTENT_MISMATCH, MISMATCH)),
            Begun::Committed { id, sizes, left } => {
                let ends = left.iter().map(async |participant| {
                    let target = self.router.participant_target(*participant)?;
                    self.end(target, id, true, false).await
                });
                let ended: Result<Vec<_>, ApiError> = join_all(ends).await.into_iter().collect();
                ended?;
                Ok(Some(Transacted::Again(sizes)))
            }
        }
    }

    /// Leads, and counts.
    async fn counted(&self, request: TransactWrite) -> Result<Transacted, ApiError> {
        let counted = &self.router.transactions.counted;
        counted.borrow_mut().in_flight += 1;
        let result = self.lead(request).await;
        let mut counted = counted.borrow_mut();
        counted.in_flight -= 1;
        counted.committed += u64::from(matches!(result, Ok(Transacted::Done(_))));
        result
    }

    async fn lead(&self, request: TransactWrite) -> Result<Transacted, ApiError> {
        let count = request.operations.len();
        let (collections, only_judge) = (request.collections, request.only_judge);
        let mut parts = self.parts(request.operations);
        let mut reasons: Vec<Option<ApiError>> = (0..count).map(|_| None).collect();
        let mut changed = vec![Changed::default(); count];

        let prepares = parts.values_mut().map(|part| {
            let prepare = Ask::Prepare(Box::new(Prepare {
                id: self.id,
                home: self.home,
                operations: std::mem::take(&mut part.operations),
                only_judge,
            }));
            self.router.ask(part.target, prepare)
        });
        let told = join_all(prepares).await;
        let mut failed = None;
        let mut prepared = Vec::new();
        for (part, told) in parts.values().zip(told) {
            match told {
                Ok(Told::Prepared(verdicts)) => {
                    if self.note(part, verdicts, &mut reasons, &mut changed) && !only_judge {
                        prepared.push(part);
                    }
                }
                Ok(_) => failed = Some(crossed()),
                Err(error) if error.kind == THROUGHPUT_EXCEEDED => {
                    for place in &part.places {
                        reasons[*place] = Some(error.clone());
                    }
                }
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_some() || only_judge || reasons.iter().any(Option::is_some) {
            self.give_up(&prepared).await;
            return match failed {
                // Whatever it is, nothing was committed.
                Some(error) if error.kind == INTERNAL => Err(ApiError::new(UNAVAILABLE, error.message)),
                Some(error) => Err(error),
                None => {
                    let places = reasons.iter().zip(&changed);
                    let absent =
                        places.map(|(why, changed)| why.is_none() && changed.old_item_bytes.is_none());
                    let absent = absent.collect();
                    Ok(Transacted::Cancelled { reasons, absent })
                }
            };
        }
        let sizes = changed.iter().filter_map(|changed| changed.new_item_bytes);
        if sizes.map(u64::from).sum::<u64>() > WRITTEN_BYTES_MAX {
            self.give_up(&prepared).await;
            return Ok(Transacted::TooLarge);
        }
        let decided_at = self.decide(&prepared, request.token, &changed).await?;
        let ends = prepared
            .iter()
            .map(|part| self.end(part.target, self.id, true, collections));
        for (part, ended) in prepared.iter().zip(join_all(ends).await) {
            for (place, done) in ended? {
                let changed = &mut changed[part.places[place]];
                changed.indexes = done.indexes;
                changed.collection_bytes_max = done.collection_bytes_max;
            }
        }
        self.settle(decided_at.filter(|_| request.token.is_none()));
        Ok(Transacted::Done(changed))
    }

    /// The operations by partition.
    fn parts(&self, operations: Vec<(Target, Vec<u8>, Write)>) -> BTreeMap<PartitionId, Part> {
        let mut parts = BTreeMap::new();
        for (place, (target, key, write)) in operations.into_iter().enumerate() {
            let part = parts.entry(target.partition).or_insert_with(|| Part {
                target,
                participant: Participant {
                    partition: target.partition,
                    log: self.router.deal.log_of(target.seat),
                },
                places: Vec::new(),
                operations: Vec::new(),
            });
            part.places.push(place);
            part.operations.push((key, write));
        }
        parts
    }

    /// Takes note of what a partition said; whether it is prepared.
    fn note(
        &self,
        part: &Part,
        verdicts: Vec<Verdict>,
        reasons: &mut [Option<ApiError>],
        changed: &mut [Changed],
    ) -> bool {
        let mut is_prepared = true;
        for (place, verdict) in part.places.iter().zip(verdicts) {
            match verdict {
                Verdict::Ready {
                    old_item_bytes,
                    new_item_bytes,
                } => {
                    changed[*place].old_item_bytes = old_item_bytes;
                    changed[*place].new_item_bytes = new_item_bytes;
                }
                Verdict::Refused(error) => {
                    reasons[*place] = Some(error);
                    is_prepared = false;
                }
            }
        }
        is_prepared
    }

    /// Commits the transaction, durably; or all is given up. The commit timestamp of the decision.
    async fn decide(
        &self,
        prepared: &[&Part],
        token: Option<Token>,
        changed: &[Changed],
    ) -> Result<Option<u64>, ApiError> {
        let larger = |changed: &Changed| changed.old_item_bytes.max(changed.new_item_bytes).unwrap_or(0);
        let deciding = Deciding {
            slot: self.home.slot,
            id: self.id,
            begun_ms: self.begun_ms,
            participants: prepared.iter().map(|part| part.participant).collect(),
            token: token.map(|token| (token.fingerprint, changed.iter().map(larger).collect())),
        };
        let told = self
            .router
            .ask(self.home_target, Ask::Decide(Box::new(deciding)))
            .await;
        match told {
            Ok(Told::Decided(true, decided_at)) => Ok(decided_at),
            Ok(Told::Decided(false, _)) => {
                self.give_up(prepared).await;
                Err(ApiError::new(
                    UNAVAILABLE,
                    "the transaction took too long and was given up",
                ))
            }
            Ok(_) => Err(crossed()),
            // Whether it is committed is not known: the participants find out.
            Err(error) if error.kind == INTERNAL => Err(error),
            Err(error) => {
                self.give_up(prepared).await;
                Err(error)
            }
        }
    }

    /// Lets go of what is prepared. What cannot be told now is found by the overseers.
    async fn give_up(&self, prepared: &[&Part]) {
        let ends = prepared.iter().map(|part| {
            let ask = Ask::End {
                id: self.id,
                committed: false,
                collections: false,
            };
            self.router.ask(part.target, ask)
        });
        join_all(ends).await;
    }

    /// Has a committed transaction carried out, trying until it is or the node stops.
    async fn end(
        &self,
        target: Target,
        id: TransactionId,
        committed: bool,
        collections: bool,
    ) -> Result<Vec<(usize, WriteDone)>, ApiError> {
        let mut pause = RETRY_MIN;
        loop {
            let ask = Ask::End {
                id,
                committed,
                collections,
            };
            match self.router.ask(target, ask).await {
                Ok(Told::Ended(done)) => return Ok(done),
                Ok(_) => return Err(crossed()),
                Err(error) if self.router.is_stopped() => {
                    let why = format!(
                        "the transaction is committed and will be carried out, but the node is stopping: {}",
                        error.message
                    );
                    return Err(ApiError::internal(why));
                }
                Err(_) => {}
            }
            self.router.runtime.sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Has the ledger forget the decision, in the background.
    fn settle(&self, expiry: Option<u64>) {
        let (router, target) = (Rc::clone(&self.router), self.home_target);
        let (slot, id) = (self.home.slot, self.id);
        self.router.runtime.spawn(Queue::Foreground, async move {
            let mut pause = RETRY_MIN;
            for _ in 0..SETTLE_ATTEMPTS {
                if router.ask(target, Ask::Settle { slot, id, expiry }).await.is_ok() {
                    return;
                }
                router.runtime.sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        });
    }

    /// The transaction is not under way any more.
    fn withdraw(&self) {
        let (router, target) = (Rc::clone(&self.router), self.home_target);
        let (slot, id) = (self.home.slot, self.id);
        self.router.runtime.spawn(Queue::Foreground, async move {
            // What is not told is known to be over when it is old.
            let _ = router.ask(target, Ask::Withdraw { slot, id }).await;
        });
    }
}
