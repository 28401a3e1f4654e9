//! What ends transactions that nobody leads any more, and forgets old tokens: one task of each shard.
//!
//! - A transaction that is prepared here for longer than [`PATIENCE`], or was found at the start, is resolved at the ledger, and
//!   ended as that says.
//! - Of the ledger's partitions on this shard, the list by age is gone through from its front. What is over is forgotten; of a
//!   committed transaction only when every participant has said that nothing is prepared there any more.
//!
//! It does nothing, and takes nothing, on a node that never had a transaction.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::Direction;
use cairn_engine::ids::PartitionId;
use cairn_runtime::Runtime;
use futures_util::future::join_all;

use super::participant::{self, Prepared};
use super::record::{Expiry, expiries};
use super::{Ask, Told, crossed, ledger};
use crate::api::ApiError;
use crate::route::Router;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a prepared transaction is left to its coordinator.
const PATIENCE: Duration = Duration::from_secs(10);
/// Transactions that are resolved at once.
const RESOLVED_AT_ONCE: usize = 64;
/// How often the ledger is gone through.
const FORGET_PERIOD: Duration = Duration::from_secs(30);
/// Records that are forgotten at once.
const FORGOTTEN_AT_ONCE: usize = 64;

/// Oversees this shard until its engines are closed.
pub(crate) async fn oversee<R: Runtime>(router: Rc<Router<R>>) {
    let mut forgotten = BTreeMap::new();
    let mut forget_at = router.runtime.now();
    while !router.is_stopped() {
        let woken = router.transactions.wake.notified();
        let is_idle =
            router.transactions.prepared.borrow().is_empty() && router.transactions.ledger.borrow().is_none();
        if is_idle {
            woken.await;
            continue;
        }
        resolve_due(&router).await;
        if router.runtime.now() >= forget_at {
            // What fails is tried again when it is time again.
            let _ = forget_old(&router, &mut forgotten).await;
            forget_at = router.runtime.now() + FORGET_PERIOD;
        }
        router.runtime.sleep(PERIOD).await;
    }
}

async fn resolve_due<R: Runtime>(router: &Rc<Router<R>>) {
    let now = router.runtime.now();
    let due: Vec<Rc<Prepared>> = participant::all(&router.transactions)
        .into_iter()
        .filter(|prepared| prepared.since.is_none_or(|since| now.since(since) >= PATIENCE))
        .collect();
    for due in due.chunks(RESOLVED_AT_ONCE) {
        // What fails is due again.
        join_all(due.iter().map(|prepared| resolve(router, prepared))).await;
    }
}

async fn resolve<R: Runtime>(router: &Rc<Router<R>>, prepared: &Prepared) -> Result<(), ApiError> {
    let ask = Ask::Resolve {
        slot: prepared.home.slot,
        id: prepared.id,
    };
    let told = router.ask(router.home_target(prepared.home)?, ask).await?;
    let Told::Decided(committed, _) = told else {
        return Err(crossed());
    };
    participant::end(router, prepared.partition, prepared.id, committed, false).await?;
    let mut counted = router.transactions.counted.borrow_mut();
    match committed {
        true => counted.recovered_committed += 1,
        false => counted.recovered_given_up += 1,
    }
    Ok(())
}

/// Goes through the list by age; `forgotten` says how far it has come in each partition.
async fn forget_old<R: Runtime>(
    router: &Rc<Router<R>>,
    forgotten: &mut BTreeMap<PartitionId, Vec<u8>>,
) -> Result<(), ApiError> {
    let Some(table) = router.transactions.ledger.borrow().clone() else {
        return Ok(());
    };
    let places = &table.definition().places;
    for (place, engine) in router.engines_of(places) {
        let place = places[place];
        while !router.is_stopped() {
            let after = forgotten.get(&place.id).cloned();
            let range = expiries(place.lower, after);
            let mut scan = router.engines[engine].scan(place.id, range, Direction::Forward);
            let mut over = Vec::new();
            while over.len() < FORGOTTEN_AT_ONCE
                && let Some((key, stored)) = scan.next().await?
            {
                let expiry = Expiry::decode(&stored).ok_or_else(|| {
                    ApiError::internal(format!("partition {} holds an unknown record", place.id))
                })?;
                if !ledger::is_over(expiry.decided_ms, router.runtime.unix_ms()) {
                    break;
                }
                over.push((key, expiry));
            }
            drop(scan);
            let Some((last, _)) = over.last() else { break };
            let (last, count) = (last.clone(), over.len());
            let gone = over
                .into_iter()
                .map(|(key, expiry)| forget(router, engine, place.id, key, expiry));
            let gone: Result<Vec<bool>, ApiError> = join_all(gone).await.into_iter().collect();
            if gone?.contains(&false) {
                break;
            }
            forgotten.insert(place.id, last);
            if count < FORGOTTEN_AT_ONCE {
                break;
            }
        }
    }
    Ok(())
}

async fn forget<R: Runtime>(
    router: &Rc<Router<R>>,
    engine: usize,
    partition: PartitionId,
    entry: Vec<u8>,
    expiry: Expiry,
) -> Result<bool, ApiError> {
    let left = ledger::left_of(router, engine, partition, expiry.slot, expiry.id).await?;
    let ends = left.into_iter().map(async |participant| {
        let ask = Ask::End {
            id: expiry.id,
            committed: true,
            collections: false,
        };
        router.ask(router.participant_target(participant)?, ask).await
    });
    let ended: Result<Vec<Told>, ApiError> = join_all(ends).await.into_iter().collect();
    ended?;
    ledger::forget(router, engine, partition, entry, expiry).await
}
