//! The task that deletes what has expired.

use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cairn_engine::ids::PartitionId;
use cairn_engine::{Direction, Range};
use cairn_item::Space;
use cairn_runtime::Runtime;
use futures_util::future::join_all;

use super::schedule::ItemId;
use super::{Expiry, Progress, RETRY_SECONDS, due_from, has_expired};
use crate::route::{Action, Returns, Router, Write, stored_view};

/// How often the task looks what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// Deletions under way at once.
const DELETIONS_AT_ONCE: usize = 32;
/// Most items deleted in one period.
const DELETIONS_MAX: usize = 10_000;
/// Most bytes of items gone through in one period, so that requests keep their drives and cache.
const EXAMINED_BYTES_MAX: usize = 16 << 20;
/// Bytes of items gone through before the other tasks of the shard have their turn.
const SLICE_BYTES: usize = 256 << 10;
/// What an item counts for besides its bytes.
const ITEM_BYTES: usize = 64;
/// Everything is gone through again this long before the schedule's horizon.
const LEAD_SECONDS: u64 = 30;

/// Deletes expired items of this shard until its engines are closed.
pub(crate) async fn sweep<R: Runtime>(router: Rc<Router<R>>) {
    let expiry = &router.expiry;
    while !router.is_stopped() {
        if expiry.watching.get() == 0 {
            expiry.wake.notified().await;
            continue;
        }
        delete_due(&router).await;
        examine(&router).await;
        router.runtime.sleep(PERIOD).await;
    }
}

fn now<R: Runtime>(router: &Router<R>) -> u64 {
    router.runtime.unix_ms() / 1000
}

async fn delete_due<R: Runtime>(router: &Router<R>) {
    let mut deleted = 0;
    while deleted < DELETIONS_MAX && !router.is_stopped() {
        let now = now(router);
        let due: Vec<ItemId> = {
            let mut schedule = router.expiry.schedule.borrow_mut();
            std::iter::from_fn(|| schedule.take_due(now))
                .take(DELETIONS_AT_ONCE)
                .collect()
        };
        if due.is_empty() {
            return;
        }
        deleted += due.len();
        delete(router, due).await;
    }
}

/// Deletes those of the items that have expired.
async fn delete<R: Runtime>(router: &Router<R>, items: Vec<ItemId>) {
    join_all(items.into_iter().map(|item| delete_one(router, item))).await;
    router.runtime.yield_now().await;
}

async fn delete_one<R: Runtime>(router: &Router<R>, (partition, key): ItemId) {
    let expiry = &router.expiry;
    let now = now(router);
    let watch = expiry
        .watched
        .borrow()
        .get(&partition)
        .map(|watch| (watch.engine, Arc::clone(&watch.attribute)));
    let Some((engine, attribute)) = watch else { return };
    let write = Write {
        action: Action::Expire { attribute, now },
        condition: None,
        returns: Returns::default(),
    };
    match router.write_here(engine, partition, &key, write).await {
        Ok(done) if done.changed => expiry.count(|stats| stats.deleted += 1),
        Ok(_) => {}
        Err(_) => {
            expiry.count(|stats| stats.failures += 1);
            if expiry.watched.borrow().contains_key(&partition) {
                let later = Some(now + RETRY_SECONDS);
                expiry.schedule.borrow_mut().set(partition, &key, later);
            }
        }
    }
}

/// Goes through what has to be gone through, within a period's bound, partition after partition.
async fn examine<R: Runtime>(router: &Router<R>) {
    let expiry = &router.expiry;
    expiry.begin_again(now(router));
    let mut bytes = 0;
    let mut after = None;
    while bytes < EXAMINED_BYTES_MAX && !router.is_stopped() {
        let Some((slice, from)) = expiry.next_to_examine(after) else {
            return;
        };
        match slice.examine(router, from).await {
            Ok((progress, examined)) => {
                bytes += examined.max(1);
                expiry.examined(&slice, progress);
            }
            // It is tried again in the next period.
            Err(_) => {
                expiry.count(|stats| stats.failures += 1);
                if let Some(watch) = expiry.watched.borrow_mut().get_mut(&slice.partition) {
                    watch.failing = true;
                }
                after = Some(slice.partition);
            }
        }
    }
}

struct Slice {
    partition: PartitionId,
    engine: usize,
    attribute: Arc<str>,
}

impl Slice {
    /// Goes through a few items and deletes those that have expired; how far it came, and bytes gone through.
    async fn examine<R: Runtime>(
        &self,
        router: &Router<R>,
        from: Bound<Vec<u8>>,
    ) -> Result<(Progress, usize), cairn_engine::EngineError> {
        let expiry = &router.expiry;
        let lower = match from {
            Bound::Unbounded => Bound::Included(vec![Space::Base as u8]),
            bound => bound,
        };
        let range = Range {
            lower,
            upper: Bound::Excluded(vec![Space::Base as u8 + 1]),
        };
        let now = now(router);
        let engine = &router.engines[self.engine];
        let mut scan = engine.scan(self.partition, range, Direction::Forward);
        let (mut bytes, mut examined) = (0, 0);
        let mut expired: Vec<ItemId> = Vec::new();
        let mut progress = Progress::Done;
        while let Some((key, stored)) = scan.next().await? {
            let item = stored_view(&stored);
            if has_expired(item, &self.attribute, now) {
                expired.push((self.partition, Rc::from(key.as_slice())));
            } else if let Some(due) = due_from(item, &self.attribute).filter(|due| *due > now) {
                expiry.found(self, &key, due);
            }
            bytes += ITEM_BYTES + stored.len();
            examined += 1;
            if bytes >= SLICE_BYTES || expired.len() >= DELETIONS_AT_ONCE {
                progress = Progress::Behind(Bound::Excluded(key));
                break;
            }
        }
        drop(scan);
        expiry.count(|stats| stats.examined += examined);
        delete(router, expired).await;
        Ok((progress, bytes))
    }
}

impl Expiry {
    /// Has everything gone through again when the schedule is about to end.
    fn begin_again(&self, now: u64) {
        let mut schedule = self.schedule.borrow_mut();
        if schedule.horizon() > now.saturating_add(LEAD_SECONDS) {
            return;
        }
        let mut watched = self.watched.borrow_mut();
        // One round ends before the next begins, or the first partitions would be all that is ever gone through.
        if watched
            .values()
            .all(|watch| watch.failing || watch.progress == Progress::Done)
        {
            schedule.forget_horizon();
            self.round.set(self.round.get() + 1);
            for watch in watched.values_mut() {
                watch.progress = Progress::Behind(Bound::Unbounded);
            }
        }
    }

    /// The first partition behind `after` that has not been gone through, and where to go on.
    fn next_to_examine(&self, after: Option<PartitionId>) -> Option<(Slice, Bound<Vec<u8>>)> {
        let watched = self.watched.borrow();
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = watched.range((lower, Bound::Unbounded));
        behind.find_map(|(&partition, watch)| {
            let Progress::Behind(from) = &watch.progress else {
                return None;
            };
            let slice = Slice {
                partition,
                engine: watch.engine,
                attribute: Arc::clone(&watch.attribute),
            };
            Some((slice, from.clone()))
        })
    }

    /// An item was found that will expire, unless the partition is watched no more, or by another attribute.
    fn found(&self, slice: &Slice, key: &[u8], due: u64) {
        if self.is_watched_as(slice) {
            let mut schedule = self.schedule.borrow_mut();
            schedule.set_no_later(slice.partition, key, due);
        }
    }

    fn examined(&self, slice: &Slice, progress: Progress) {
        if self.is_watched_as(slice)
            && let Some(watch) = self.watched.borrow_mut().get_mut(&slice.partition)
        {
            watch.progress = progress;
            watch.failing = false;
        }
    }

    fn is_watched_as(&self, slice: &Slice) -> bool {
        let watched = self.watched.borrow();
        let watch = watched.get(&slice.partition);
        watch.is_some_and(|watch| Arc::ptr_eq(&watch.attribute, &slice.attribute))
    }
}
