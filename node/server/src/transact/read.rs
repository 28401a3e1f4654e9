//! Transactions that read: all items as they were at one moment.
//!
//! The items are read twice, without holding anything. (1) All are read; one that a transaction holds is a conflict. (2) When all
//! have been read, all are looked at again: whether a transaction holds them, then their versions. If none is held and none has
//! changed, there was a moment between the two rounds at which all of them were as they were read. Else it is tried
//! again, a few times, and is a conflict then.
//!
//! Why that moment shows no transaction by half: a transaction that has changed one of the items by then, and another one not yet,
//! holds the other from before its decision until its new state is applied; so the second round, which asks who holds an item before it
//! reads it, finds it held or changed.
//!
//! An item has changed when its commit timestamp is another. One that is absent in both rounds may have come and gone between them
//! only if its partition's greatest delete timestamp has risen, from before the first read to behind the second.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::ids::PartitionId;
use cairn_runtime::Runtime;
use futures_util::future::join_all;

use super::{Ask, Met, Told, crossed};
use crate::api::ApiError;
use crate::node::Canary;
use crate::route::{ItemCopy, ItemHandle, Router, Target};

/// Times that it is tried.
const ATTEMPTS: u32 = 6;
/// Pause before the second attempt; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(1);

/// What a look at an item showed.
#[derive(Debug)]
pub(crate) struct Looked {
    is_held: bool,
    /// Its commit timestamp; none when it is absent.
    version: Option<u64>,
    /// The partition's greatest delete timestamp, before it was read and behind that.
    deletes: (u64, u64),
    item: Option<ItemCopy>,
}

impl Looked {
    /// Whether the item may have changed since `first`.
    fn differs(&self, first: &Looked) -> bool {
        self.version != first.version || self.version.is_none() && first.deletes.0 != self.deletes.1
    }
}

/// What came of a read.
#[derive(Debug)]
pub(crate) enum TransactRead {
    Items(Vec<Option<ItemHandle>>),
    /// Which items are to blame.
    Conflicts(Vec<bool>),
}

/// Reads items of partitions of this shard.
pub(super) async fn look<R: Runtime>(
    router: &Router<R>,
    engine: usize,
    partition: PartitionId,
    keys: Vec<Vec<u8>>,
    values: bool,
) -> Result<Told, ApiError> {
    let mut looked = Vec::with_capacity(keys.len());
    let engine = &router.engines[engine];
    let greatest_delete = || match router.canary {
        Canary::NoGreatestDelete => Ok(0),
        _ => engine.greatest_delete(partition).map(|commit| commit.0),
    };
    for key in keys {
        let is_held = router.transactions.holder(partition, &key).is_some();
        if is_held {
            router.transactions.met(Met::Read);
        }
        let before = greatest_delete()?;
        let stored = engine.get(partition, &key).await?;
        let after = greatest_delete()?;
        let version = stored.as_ref().map(|stored| stored.commit().0);
        let item = if values {
            router.visible(partition, stored).as_ref().map(ItemCopy::of)
        } else {
            None
        };
        looked.push(Looked {
            is_held,
            version,
            deletes: (before, after),
            item,
        });
    }
    Ok(Told::Looked(looked))
}

/// Reads all these items as they were at one moment.
///
/// # Errors
/// What keeps a partition from being read.
pub(crate) async fn read<R: Runtime>(
    router: &Rc<Router<R>>,
    keys: &[(Target, Vec<u8>)],
) -> Result<TransactRead, ApiError> {
    let mut pause = PAUSE;
    let mut conflicts = Vec::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            router.runtime.sleep(pause).await;
            pause *= 2;
        }
        let first = look_at_all(router, keys, true).await?;
        conflicts = first.iter().map(|looked| looked.is_held).collect();
        if conflicts.contains(&true) {
            continue;
        }
        // One item is always as it was at one moment.
        if keys.len() > 1 && router.canary != Canary::NoSecondLook {
            let second = look_at_all(router, keys, false).await?;
            let pairs = second.iter().zip(&first);
            conflicts = pairs
                .map(|(second, first)| second.is_held || second.differs(first))
                .collect();
            if conflicts.contains(&true) {
                continue;
            }
        }
        let items = first
            .into_iter()
            .map(|looked| looked.item.map(ItemHandle::from_copy));
        return Ok(TransactRead::Items(items.collect()));
    }
    Ok(TransactRead::Conflicts(conflicts))
}

async fn look_at_all<R: Runtime>(
    router: &Rc<Router<R>>,
    keys: &[(Target, Vec<u8>)],
    values: bool,
) -> Result<Vec<Looked>, ApiError> {
    let mut parts: BTreeMap<PartitionId, (Target, Vec<usize>)> = BTreeMap::new();
    for (place, (target, _)) in keys.iter().enumerate() {
        let part = parts.entry(target.partition).or_insert((*target, Vec::new()));
        part.1.push(place);
    }
    let asks = parts.values().map(|(target, places)| {
        let keys = places.iter().map(|place| keys[*place].1.clone()).collect();
        router.ask(*target, Ask::Look { keys, values })
    });
    let mut all: Vec<Option<Looked>> = (0..keys.len()).map(|_| None).collect();
    for ((_, places), told) in parts.values().zip(join_all(asks).await) {
        let Told::Looked(looked) = told? else {
            return Err(crossed());
        };
        for (place, looked) in places.iter().zip(looked) {
            all[*place] = Some(looked);
        }
    }
    all.into_iter().collect::<Option<Vec<_>>>().ok_or_else(crossed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_went_is_told_by_the_deletes() {
        let looked = |version, deletes| Looked {
            is_held: false,
            version,
            deletes,
            item: None,
        };
        // First look, second look, whether they may differ.
        for (first, second, differs) in [
            ((Some(1), (5, 5)), (Some(1), (6, 6)), false),
            ((Some(1), (5, 5)), (Some(2), (5, 5)), true),
            ((Some(1), (5, 5)), (None, (6, 6)), true),
            ((None, (5, 5)), (Some(2), (5, 5)), true),
            ((None, (5, 5)), (None, (5, 5)), false),
            ((None, (5, 6)), (None, (6, 6)), true),
            ((None, (5, 5)), (None, (5, 6)), true),
        ] {
            let (first, second) = (looked(first.0, first.1), looked(second.0, second.1));
            assert_eq!(second.differs(&first), differs, "{first:?} {second:?}");
        }
    }
}
