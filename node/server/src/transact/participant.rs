//! A partition's part in a transaction that writes.
//!
//! Preparing: (1) the items are held in memory, so that no later write decides on them; (2) each is read in its newest proposed
//! state, behind every write that was decided before, and judged; (3) while room is low on the drives, what puts items is refused;
//! (4) what becomes of the items is logged as a marker. When anything is refused the items are let go, and nothing is left behind.
//!
//! Ending one that is committed: all items but the last are written, as plain writes are; then the last, and the marker goes in the
//! same step. Doing it again, after a failure or a crash, writes the same items again, which changes nothing: nobody else can
//! have written them. Ending one that was given up: the items are let go, and the marker is deleted.
//!
//! After a restart markers are found again, their items are held before anybody is served, and the overseer asks the ledger.

use std::collections::BTreeMap;
use std::rc::Rc;

use cairn_engine::ids::PartitionId;
use cairn_engine::mutation::TransactionId;
use cairn_engine::{Change, Counter, Decision, Direction, Engine, EngineError, ErrorKind, StoredRef};
use cairn_runtime::sync::Semaphore;
use cairn_runtime::{Moment, Runtime};
use futures_util::future::join_all;

use super::record::{
    Home, Marker, Operation, Outcome, PIECE_BYTES_MAX, decode_marker, encode_marker, marker_key, markers,
    piece_of,
};
use super::{PREPARED_BYTES_MAX, PREPARED_MAX, RETRY_MAX, RETRY_MIN, Told, Transactions, conflict, may_pass};
use crate::api::ApiError;
use crate::api::error::THROUGHPUT_EXCEEDED;
use crate::catalog::{TableDefinition, hash_of};
use crate::node::Canary;
use crate::route::{Action, ByTransaction, Judged, Returns, Router, Write, WriteDone, record_deleted};

/// What is asked of a partition.
#[derive(Debug)]
pub(crate) struct Prepare {
    pub id: TransactionId,
    pub home: Home,
    /// Storage keys, no two alike, and what is wanted of their items.
    pub operations: Vec<(Vec<u8>, Write)>,
    /// Only say what would be refused: another partition refuses already.
    pub only_judge: bool,
}

/// What a partition says of one item.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It may be committed; DynamoDB sizes before and after.
    Ready {
        old_item_bytes: Option<u32>,
        new_item_bytes: Option<u32>,
    },
    Refused(ApiError),
}

/// A transaction that is prepared on a partition.
pub(super) struct Prepared {
    pub(super) id: TransactionId,
    pub(super) partition: PartitionId,
    pub(super) engine: usize,
    pub(super) home: Home,
    /// Least hash of the partition.
    lower: u64,
    operations: Vec<Operation>,
    /// Pieces of its marker.
    pieces: u16,
    /// When it was prepared; none when it was found at the start.
    pub(super) since: Option<Moment>,
    /// What it keeps in memory.
    pub(super) bytes: usize,
    /// One at a time ends it.
    turn: Semaphore,
}

impl Prepared {
    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.operations.iter().map(|operation| operation.key.as_slice())
    }
}

/// Items that are held, and let go unless they are kept.
struct Held<'a> {
    transactions: &'a Transactions,
    partition: PartitionId,
    keys: Vec<Vec<u8>>,
    id: TransactionId,
}

impl Held<'_> {
    fn keep(mut self) {
        self.keys.clear();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let keys = self.keys.iter().map(Vec::as_slice);
        self.transactions.release(self.partition, keys, self.id);
    }
}

/// Least hash of a partition of this engine.
fn lower_of<R: Runtime>(engine: &Engine<R>, partition: PartitionId) -> Result<u64, ApiError> {
    let info = engine
        .partition(partition)
        .ok_or(EngineError::NoSuchPartition(partition))?;
    Ok(hash_of(&info.lower))
}

/// Prepares a transaction, or says what keeps it from being committed.
pub(super) async fn prepare<R: Runtime>(
    router: &Router<R>,
    engine_index: usize,
    partition: PartitionId,
    prepare: Prepare,
) -> Result<Told, ApiError> {
    let transactions = &router.transactions;
    let engine = &router.engines[engine_index];
    let Prepare {
        id,
        home,
        operations,
        only_judge,
    } = prepare;
    let full = transactions.prepared.borrow().len() >= PREPARED_MAX
        || transactions.prepared_bytes.get() >= PREPARED_BYTES_MAX;
    if full {
        return Err(ApiError::new(
            THROUGHPUT_EXCEEDED,
            "too many transactions are under way; slow down",
        ));
    }
    if let Some(indexed) = router.indexes.get(partition) {
        indexed.admit(&router.runtime).await?;
    }
    let lower = lower_of(engine, partition)?;
    let holds: Vec<bool> = operations
        .iter()
        .map(|(key, _)| transactions.hold(partition, key, id))
        .collect();
    let mine = operations.iter().zip(&holds).filter(|(_, holds)| **holds);
    let held = Held {
        transactions,
        partition,
        keys: mine.map(|((key, _), _)| key.clone()).collect(),
        id,
    };
    let judging = operations
        .into_iter()
        .zip(holds)
        .map(async |((key, write), holds)| {
            if !holds {
                return Ok((key, Err(conflict())));
            }
            let judged = router.judge(engine_index, partition, &key, write).await?;
            Ok::<_, ApiError>((key, judged))
        });
    let judged = join_all(judging).await.into_iter();
    let judged: Vec<(Vec<u8>, Judged)> = judged.collect::<Result<_, _>>()?;
    let is_refused = judged.iter().any(|(_, judged)| judged.is_err());
    let mut operations = Vec::with_capacity(judged.len());
    let mut verdicts = Vec::with_capacity(judged.len());
    for (key, judged) in judged {
        let (change, done) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                verdicts.push(Verdict::Refused(error));
                continue;
            }
        };
        verdicts.push(Verdict::Ready {
            old_item_bytes: done.old_item_bytes,
            new_item_bytes: done.new_item_bytes,
        });
        let outcome = match change {
            Change::Put { item, item_bytes } => Outcome::Put(item, item_bytes),
            Change::Delete => Outcome::Delete,
            Change::Keep => Outcome::Check,
        };
        operations.push(Operation { key, outcome });
    }
    if is_refused || only_judge {
        return Ok(Told::Prepared(verdicts));
    }
    let puts = |operation: &Operation| matches!(operation.outcome, Outcome::Put(..));
    if operations.iter().any(puts) {
        // From here on it is carried out, whatever room is left then.
        engine.check_room(partition)?;
    }
    let marker = encode_marker(home, &operations);
    let pieces = log_marker(engine, partition, lower, id, &marker).await?;
    transactions.add(Prepared {
        id,
        partition,
        engine: engine_index,
        home,
        lower,
        operations,
        pieces,
        since: Some(router.runtime.now()),
        bytes: marker.len(),
        turn: Semaphore::new(1),
    });
    held.keep();
    Ok(Told::Prepared(verdicts))
}

/// Writes a marker; the number of its pieces. Resolves when all of them are durable, or all are gone again.
async fn log_marker<R: Runtime>(
    engine: &Engine<R>,
    partition: PartitionId,
    lower: u64,
    id: TransactionId,
    marker: &[u8],
) -> Result<u16, ApiError> {
    let pieces: Vec<&[u8]> = marker.chunks(PIECE_BYTES_MAX).collect();
    let count = u16::try_from(pieces.len()).expect("a transaction is limited");
    let writing = (0..count).zip(pieces).map(async |(number, piece)| {
        let key = marker_key(lower, id, number);
        let decide = |_: Option<StoredRef<'_>>| Decision {
            change: Change::Put {
                item: piece.to_vec(),
                item_bytes: 0,
            },
            derived: Vec::new(),
            outcome: (),
        };
        engine
            .update_with(partition, &key, Counter::Nothing, decide)
            .await
    });
    let written = join_all(writing).await;
    let result: Result<Vec<_>, EngineError> = written.into_iter().collect();
    if let Err(error) = result {
        // What is left of it is incomplete, and means nothing after a restart.
        let _ = remove_marker(engine, partition, lower, id, count).await;
        return Err(error.into());
    }
    Ok(count)
}

/// The keys of the pieces of a marker.
fn marker_keys(lower: u64, id: TransactionId, pieces: u16) -> impl Iterator<Item = Vec<u8>> {
    (0..pieces).map(move |number| marker_key(lower, id, number))
}

async fn remove_marker<R: Runtime>(
    engine: &Engine<R>,
    partition: PartitionId,
    lower: u64,
    id: TransactionId,
    pieces: u16,
) -> Result<(), EngineError> {
    let first = marker_key(lower, id, 0);
    let decide = |_: Option<StoredRef<'_>>| Decision {
        change: Change::Delete,
        derived: marker_keys(lower, id, pieces)
            .skip(1)
            .map(record_deleted)
            .collect(),
        outcome: (),
    };
    engine
        .update_with(partition, &first, Counter::Nothing, decide)
        .await?;
    Ok(())
}

/// As [`remove_marker`], again and again while that may help.
async fn remove_marker_surely<R: Runtime>(
    runtime: &R,
    engine: &Engine<R>,
    partition: PartitionId,
    lower: u64,
    (id, pieces): (TransactionId, u16),
) -> Result<(), EngineError> {
    let mut pause = RETRY_MIN;
    loop {
        match remove_marker(engine, partition, lower, id, pieces).await {
            Err(error) if matches!(error.kind(), ErrorKind::Throttle | ErrorKind::Retry) => {}
            result => return result,
        }
        runtime.sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Ends a transaction on a partition. One that is not prepared there has ended already.
pub(super) async fn end<R: Runtime>(
    router: &Router<R>,
    partition: PartitionId,
    id: TransactionId,
    committed: bool,
    collections: bool,
) -> Result<Told, ApiError> {
    let transactions = &router.transactions;
    let find = || transactions.prepared.borrow().get(&(partition, id)).cloned();
    let Some(prepared) = find() else {
        return Ok(Told::Ended(Vec::new()));
    };
    let _turn = prepared.turn.acquire(1).await;
    if find().is_none() {
        return Ok(Told::Ended(Vec::new()));
    }
    let mut written = None;
    if committed {
        written = carry_out(router, &prepared, collections).await?;
    }
    if written.is_none() {
        // Before the items are let go: at no moment does the log hold markers of two transactions for one item.
        let marker = (id, prepared.pieces);
        let engine = &router.engines[prepared.engine];
        remove_marker_surely(&router.runtime, engine, partition, prepared.lower, marker).await?;
    }
    transactions.remove((partition, id));
    transactions.release(partition, prepared.keys(), id);
    Ok(Told::Ended(written.unwrap_or_default()))
}

/// Makes the items what the marker says; none when it only checked them, and the marker is left.
async fn carry_out<R: Runtime>(
    router: &Router<R>,
    prepared: &Prepared,
    collections: bool,
) -> Result<Option<Vec<(usize, WriteDone)>>, ApiError> {
    let operations = prepared.operations.iter().enumerate();
    let writes: Vec<(usize, &Operation)> = operations
        .filter(|(_, operation)| operation.outcome != Outcome::Check)
        .collect();
    let Some((last, others)) = writes.split_last() else {
        return Ok(None);
    };
    let others = others
        .iter()
        .map(|(place, operation)| write_one(router, prepared, *place, operation, false, collections));
    let mut done: Vec<(usize, WriteDone)> = join_all(others).await.into_iter().collect::<Result<_, _>>()?;
    done.push(write_one(router, prepared, last.0, last.1, true, collections).await?);
    Ok(Some(done))
}

/// Writes one item of a committed transaction; with the last the marker goes.
async fn write_one<R: Runtime>(
    router: &Router<R>,
    prepared: &Prepared,
    place: usize,
    operation: &Operation,
    is_last: bool,
    collections: bool,
) -> Result<(usize, WriteDone), ApiError> {
    let Prepared {
        id,
        partition,
        engine,
        lower,
        pieces,
        ..
    } = *prepared;
    let mut pause = RETRY_MIN;
    loop {
        let put = match &operation.outcome {
            Outcome::Put(item, item_bytes) => Some((item.clone(), *item_bytes)),
            Outcome::Delete | Outcome::Check => None,
        };
        let pieces = if is_last { pieces } else { 0 };
        let write = Write {
            action: Action::ByTransaction(Box::new(ByTransaction {
                transaction: id,
                put,
                forgets: marker_keys(lower, id, pieces).collect(),
            })),
            condition: None,
            returns: Returns {
                collection: collections,
                ..Returns::default()
            },
        };
        match router.write_here(engine, partition, &operation.key, write).await {
            Ok(done) => return Ok((place, done)),
            Err(error) if may_pass(&error) => {}
            Err(error) => return Err(error),
        }
        router.runtime.sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Finds the transactions that are prepared in this shard's partitions of a table, and holds their items.
pub(crate) async fn recover<R: Runtime>(
    router: &Router<R>,
    definition: &TableDefinition,
) -> Result<(), ApiError> {
    if router.canary == Canary::ForgetPrepared {
        return Ok(());
    }
    for (place, engine) in router.engines_of(&definition.places) {
        let place = definition.places[place];
        let mut found: BTreeMap<TransactionId, Vec<(u16, Vec<u8>)>> = BTreeMap::new();
        let mut scan = router.engines[engine].scan(place.id, markers(place.lower), Direction::Forward);
        loop {
            match scan.next().await {
                Ok(Some((key, piece))) => {
                    let (id, number) = piece_of(&key).ok_or_else(|| unreadable(place.id))?;
                    found.entry(id).or_default().push((number, piece.to_vec()));
                }
                Ok(None) => break,
                // It serves nothing, so nobody meets its items.
                Err(error) if error.kind() == ErrorKind::Fenced => break,
                Err(error) => return Err(error.into()),
            }
        }
        drop(scan);
        for (id, pieces) in found {
            let count = 1 + pieces.last().map_or(0, |(number, _)| *number);
            let is_gapless = usize::from(count) == pieces.len();
            let bytes: Vec<u8> = pieces.into_iter().flat_map(|(_, piece)| piece).collect();
            let marker = if is_gapless {
                decode_marker(&bytes).ok_or_else(|| unreadable(place.id))?
            } else {
                Marker::Incomplete
            };
            let Marker::Whole(home, operations) = marker else {
                let engine = &router.engines[engine];
                // It means nothing: if it cannot go now, it goes at the next start.
                let _ = remove_marker(engine, place.id, place.lower, id, count).await;
                continue;
            };
            for operation in &operations {
                if !router.transactions.hold(place.id, &operation.key, id) {
                    return Err(ApiError::internal(format!(
                        "two transactions hold one item of partition {}",
                        place.id
                    )));
                }
            }
            router.transactions.add(Prepared {
                id,
                partition: place.id,
                engine,
                home,
                lower: place.lower,
                operations,
                pieces: count,
                since: None,
                bytes: bytes.len(),
                turn: Semaphore::new(1),
            });
        }
    }
    Ok(())
}

fn unreadable(partition: PartitionId) -> ApiError {
    ApiError::internal(format!(
        "partition {partition} holds a marker of a transaction that this version cannot read"
    ))
}

/// The transactions that are prepared on this shard.
pub(super) fn all(transactions: &Transactions) -> Vec<Rc<Prepared>> {
    transactions.prepared.borrow().values().cloned().collect()
}
