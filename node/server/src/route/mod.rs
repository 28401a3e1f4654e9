//! How a request reaches the shard that owns its partition.
//!
//! A partition lives in one log, a log is served by one engine, an engine belongs to one shard: logs are dealt to
//! the shards in order, the next to the next, so a restart with another number of shards deals them anew.
//!
//! 1. Partitions of this shard are served in place, without a mailbox.
//! 2. Others go through the owner's bounded mailbox with a reserved slot for the reply. A mailbox that stays full for
//!    [`MAILBOX_WAIT_MAX`] is answered with `ProvisionedThroughputExceededException`: nothing was sent then.
//! 3. An owner carries out at most [`REMOTE_REQUESTS_MAX`] requests of other shards at once; when there are more it
//!    stops receiving, and its mailbox fills. Nothing it does for them waits for another shard, so two full mailboxes
//!    cannot wait for each other.

mod evaluate;
mod handle;
mod request;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cairn_engine::ids::{IndexId, LogId, PartitionId};
use cairn_engine::{Engine, Range, Stored};
use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, Refused, reply};
use cairn_runtime::sync::{Semaphore, timeout};
use cairn_runtime::{Queue, Runtime};

pub use evaluate::{Condition, Filter, Operands, Update, UpdateParts};
pub use handle::ItemHandle;
pub use request::{Action, ByTransaction, Returns, Write};

pub(crate) use handle::{ItemCopy, stored_view};
use request::Place;
pub(crate) use request::{Judged, LocalPage, PageDone, PageRequest, Request, WriteDone, record_deleted};

use crate::api::error::{RESOURCE_NOT_FOUND, THROUGHPUT_EXCEEDED, UNAVAILABLE};
use crate::api::{ApiError, Capacity};
use crate::expiry::{Expiry, Hidden};
use crate::index::Indexes;
use crate::index::feed::{self, Feed};
use crate::index::writes::Writes;
use crate::node::{Canary, Control};
use crate::stream::read::{self as stream_read, ReadDone, ReadRequest};
use crate::transact::Transactions;
use request::Plainly;

/// Requests that may wait in a shard's mailbox.
pub(crate) const MAILBOX_CAPACITY: usize = 1024;
/// Requests of other shards that a shard carries out at once.
pub(crate) const REMOTE_REQUESTS_MAX: usize = 4096;
/// Longest wait for room in another shard's mailbox.
pub(crate) const MAILBOX_WAIT_MAX: Duration = Duration::from_secs(1);

/// Where a log is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The shard.
    pub shard: usize,
    /// Which of that shard's engines.
    pub engine: usize,
}

/// The deal of a node's logs to its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deal {
    /// In ascending order.
    pub logs: Vec<LogId>,
    pub shards: usize,
}

impl Deal {
    /// Deals the logs found on the drives, and as many new ones as it takes to give every shard one.
    pub(crate) fn new(found: &[LogId], shards: usize) -> Deal {
        let mut logs = found.to_vec();
        let least = u32::try_from(shards).expect("shards are cores");
        logs.extend((0..least).map(LogId));
        logs.sort_unstable();
        logs.dedup();
        Deal { logs, shards }
    }

    pub(crate) fn seat(&self, log: LogId) -> Option<Seat> {
        let position = self.logs.binary_search(&log).ok()?;
        Some(Seat {
            shard: position % self.shards,
            engine: position / self.shards,
        })
    }

    /// The log that is served there.
    pub(crate) fn log_of(&self, seat: Seat) -> LogId {
        self.logs[seat.engine * self.shards + seat.shard]
    }

    /// The logs of one shard, in the order of its engines.
    pub(crate) fn logs_of(&self, shard: usize) -> impl Iterator<Item = LogId> + '_ {
        self.logs.iter().copied().skip(shard).step_by(self.shards)
    }
}

/// A partition and where it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub partition: PartitionId,
    pub seat: Seat,
}

/// What a write did.
#[derive(Debug, Clone)]
pub struct Written {
    /// The item that was there, when it was asked for.
    pub old: Option<ItemHandle>,
    /// The item that is there now, when it was asked for.
    pub new: Option<ItemHandle>,
    /// DynamoDB size of the item that was there.
    pub old_item_bytes: Option<u32>,
    /// DynamoDB size of the item that is there now.
    pub new_item_bytes: Option<u32>,
    /// Capacity taken by the indexes that changed.
    pub indexes: Vec<(IndexId, Capacity)>,
    /// What the item collection takes at most, in bytes, when it was asked for.
    pub collection_bytes_max: Option<u64>,
}

/// One shard's way to every partition.
pub(crate) struct Router<R: Runtime> {
    pub runtime: R,
    pub shard: usize,
    pub deal: Deal,
    /// The engines of this shard.
    pub engines: Vec<Engine<R>>,
    /// The mailboxes of all shards, this one's included.
    pub mailboxes: Vec<MailboxSender<Request>>,
    /// The items of this shard that expire.
    pub expiry: Expiry,
    /// The partitions of this shard that belong to tables with indexes.
    pub indexes: Indexes,
    /// The writes of this shard's items that are in progress.
    pub writes: Writes,
    /// Where orders for the catalog go.
    pub leader: MailboxSender<Control>,
    /// What this shard knows of transactions.
    pub transactions: Transactions,
    /// A bug put in.
    pub canary: Canary,
    /// Whether the engines have been closed.
    pub stopped: Cell<bool>,
}

impl<R: Runtime> Router<R> {
    /// The engine of a partition of this shard.
    fn local(&self, target: Target) -> Option<&Engine<R>> {
        if target.seat.shard == self.shard {
            self.engines.get(target.seat.engine)
        } else {
            None
        }
    }

    /// Reads an item without waiting, when its partition is here and no drive is needed.
    pub(crate) fn get_cached(
        &self,
        target: Target,
        key: &[u8],
    ) -> Option<Result<Option<ItemHandle>, ApiError>> {
        let read = self.local(target)?.get_cached(target.partition, key)?;
        let read = read.map(|stored| self.visible(target.partition, stored).map(ItemHandle::local));
        Some(read.map_err(ApiError::from))
    }

    /// Which items of a partition of this shard are not to be seen.
    fn hidden(&self, partition: PartitionId) -> Option<Hidden> {
        self.expiry.hidden(partition, || self.runtime.unix_ms())
    }

    /// An item of this shard, unless it is not to be seen.
    pub(crate) fn visible(&self, partition: PartitionId, stored: Option<Stored>) -> Option<Stored> {
        let stored = stored?;
        match self.hidden(partition) {
            Some(hidden) if hidden.hides(stored_view(&stored)) => None,
            _ => Some(stored),
        }
    }

    /// A write of a partition of this shard.
    pub(crate) async fn write_here(
        &self,
        engine: usize,
        partition: PartitionId,
        key: &[u8],
        write: Write,
    ) -> Result<WriteDone, ApiError> {
        let engine = &self.engines[engine];
        // From before the table's definition is looked at until the write is applied.
        let _in_progress = self.writes.begin();
        let place = || Place {
            runtime: &self.runtime,
            expiry: &self.expiry,
            transactions: &self.transactions,
            partition,
            key,
        };
        let mut write = write;
        if !self.indexes.has(partition) {
            let is_plain = || !self.indexes.has(partition);
            match request::write(place(), engine, write, is_plain).await? {
                Plainly::Done(done) => return Ok(done),
                Plainly::NotAnyMore(again) => write = again,
            }
        }
        let indexed = self.indexes.get(partition);
        let indexed =
            indexed.ok_or_else(|| ApiError::new(RESOURCE_NOT_FOUND, "Requested resource not found"))?;
        // Boxed, so that its state does not make every write's future larger.
        Box::pin(request::write_indexed(place(), engine, &indexed, write)).await
    }

    /// What would become of an item of a partition of this shard, in its newest proposed state, or what would refuse it. Resolves
    /// when that state is durable and applied.
    pub(crate) async fn judge(
        &self,
        engine: usize,
        partition: PartitionId,
        key: &[u8],
        write: Write,
    ) -> Result<Judged, ApiError> {
        let place = Place {
            runtime: &self.runtime,
            expiry: &self.expiry,
            transactions: &self.transactions,
            partition,
            key,
        };
        let indexed = self.indexes.get(partition);
        request::judge(place, &self.engines[engine], indexed.as_deref(), write).await
    }

    /// Reads an item.
    pub(crate) async fn get(&self, target: Target, key: &[u8]) -> Result<Option<ItemHandle>, ApiError> {
        if let Some(engine) = self.local(target) {
            let stored = engine.get(target.partition, key).await?;
            return Ok(self.visible(target.partition, stored).map(ItemHandle::local));
        }
        let (sender, answer) = reply();
        let (engine, partition, key) = (target.seat.engine, target.partition, key.to_vec());
        self.send(
            target,
            Request::Get {
                engine,
                partition,
                key,
                reply: sender,
            },
        )
        .await?;
        Ok(answer.await.map_err(|_| gone())??.map(ItemHandle::from_copy))
    }

    /// Writes an item; resolves when that is durable and applied.
    pub(crate) async fn write(&self, target: Target, key: &[u8], write: Write) -> Result<Written, ApiError> {
        let done = match self.local(target) {
            Some(_) => {
                self.write_here(target.seat.engine, target.partition, key, write)
                    .await?
            }
            None => {
                let (sender, answer) = reply();
                let (engine, partition, key) = (target.seat.engine, target.partition, key.to_vec());
                self.send(
                    target,
                    Request::Write {
                        engine,
                        partition,
                        key,
                        write,
                        reply: sender,
                    },
                )
                .await?;
                // The other shard is gone, and with it the process; whether it wrote is not known.
                answer
                    .await
                    .map_err(|_| ApiError::internal("the node stopped during the write"))??
            }
        };
        Ok(Written {
            old: done.old.map(ItemHandle::from_copy),
            new: done.new.map(ItemHandle::from_copy),
            old_item_bytes: done.old_item_bytes,
            new_item_bytes: done.new_item_bytes,
            indexes: done.indexes,
            collection_bytes_max: done.collection_bytes_max,
        })
    }

    /// Takes changes to a partition of an index; resolves when they are durable and applied.
    pub(crate) async fn feed(&self, target: Target, feed: Feed) -> Result<(), ApiError> {
        if let Some(engine) = self.local(target) {
            return feed::apply(engine, target.partition, feed).await;
        }
        let (sender, answer) = reply();
        let (engine, partition) = (target.seat.engine, target.partition);
        self.send(
            target,
            Request::Feed {
                engine,
                partition,
                feed,
                reply: sender,
            },
        )
        .await?;
        answer.await.map_err(|_| gone())?
    }

    /// Reads records of a stream.
    pub(crate) async fn records(&self, target: Target, read: ReadRequest) -> Result<ReadDone, ApiError> {
        let (engine, partition) = (target.seat.engine, target.partition);
        if self.local(target).is_some() {
            return stream_read::read(self, engine, partition, read).await;
        }
        let (sender, answer) = reply();
        self.send(
            target,
            Request::Records {
                engine,
                partition,
                read,
                reply: sender,
            },
        )
        .await?;
        answer.await.map_err(|_| gone())?
    }

    /// Reads a stretch of a partition.
    pub(crate) async fn page(
        &self,
        target: Target,
        page: PageRequest,
    ) -> Result<PageDone<ItemHandle>, ApiError> {
        if let Some(engine) = self.local(target) {
            let hidden = self.hidden(target.partition);
            return request::page(
                &self.runtime,
                engine,
                hidden,
                target.partition,
                page,
                ItemHandle::local,
            )
            .await;
        }
        let (sender, answer) = reply();
        let (engine, partition) = (target.seat.engine, target.partition);
        self.send(
            target,
            Request::Page {
                engine,
                partition,
                page,
                reply: sender,
            },
        )
        .await?;
        let done = answer.await.map_err(|_| gone())??;
        Ok(PageDone {
            items: done.items.into_iter().map(ItemHandle::from_copy).collect(),
            count: done.count,
            scanned_count: done.scanned_count,
            scanned_bytes: done.scanned_bytes,
            answer_bytes: done.answer_bytes,
            fetched_capacity: done.fetched_capacity,
            last: done.last.map(ItemHandle::from_copy),
        })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Closes the engines.
    pub(crate) async fn close(&self) -> Result<(), cairn_engine::EngineError> {
        self.stopped.set(true);
        self.expiry.wake();
        self.indexes.stop();
        self.transactions.stop();
        let mut result = Ok(());
        for engine in &self.engines {
            result = result.and(engine.close().await);
        }
        result
    }

    pub(crate) async fn send(&self, target: Target, request: Request) -> Result<(), ApiError> {
        let Some(mailbox) = self.mailboxes.get(target.seat.shard) else {
            return Err(ApiError::internal("the partition's log is not on this node"));
        };
        let request = match mailbox.try_send(request) {
            Ok(()) => return Ok(()),
            Err(Refused::Closed(_)) => return Err(gone()),
            Err(Refused::Full(request)) => request,
        };
        match timeout(&self.runtime, MAILBOX_WAIT_MAX, mailbox.send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(ApiError::new(
                THROUGHPUT_EXCEEDED,
                "The shard that owns the key has more requests than it can take; slow down",
            )),
        }
    }

    /// Serves the requests of the other shards until they are gone.
    pub(crate) async fn serve(self: Rc<Router<R>>, mut mailbox: MailboxReceiver<Request>) {
        let slots = Rc::new(Semaphore::new(REMOTE_REQUESTS_MAX));
        while let Some(request) = mailbox.recv().await {
            let Some(request) = self.answer_cached(request) else {
                continue;
            };
            let slot = slots.acquire(1).await;
            let router = Rc::clone(&self);
            self.runtime.spawn(Queue::Foreground, async move {
                router.answer(request).await;
                drop(slot);
            });
        }
    }

    /// Answers what needs no waiting; gives back what does.
    fn answer_cached(&self, request: Request) -> Option<Request> {
        let Request::Get {
            engine,
            partition,
            key,
            reply,
        } = request
        else {
            return Some(request);
        };
        match self
            .engines
            .get(engine)
            .and_then(|engine| engine.get_cached(partition, &key))
        {
            Some(read) => {
                reply.send(copied(read.map(|stored| self.visible(partition, stored))));
                None
            }
            None => Some(Request::Get {
                engine,
                partition,
                key,
                reply,
            }),
        }
    }

    async fn answer(&self, request: Request) {
        // The sender knows the deal as well as we do, so the engine exists.
        match request {
            Request::Get {
                engine,
                partition,
                key,
                reply,
            } => {
                let read = self.engines[engine].get(partition, &key).await;
                reply.send(copied(read.map(|stored| self.visible(partition, stored))));
            }
            Request::Write {
                engine,
                partition,
                key,
                write,
                reply,
            } => {
                reply.send(self.write_here(engine, partition, &key, write).await);
            }
            Request::Feed {
                engine,
                partition,
                feed,
                reply,
            } => {
                reply.send(feed::apply(&self.engines[engine], partition, feed).await);
            }
            Request::Transact {
                engine,
                partition,
                ask,
                reply,
            } => {
                reply.send(self.told(engine, partition, ask).await);
            }
            Request::Records {
                engine,
                partition,
                read,
                reply,
            } => {
                reply.send(stream_read::read(self, engine, partition, read).await);
            }
            Request::Page {
                engine,
                partition,
                page,
                reply,
            } => {
                let form = |stored: Stored| ItemCopy::of(&stored);
                let (runtime, engine) = (&self.runtime, &self.engines[engine]);
                let hidden = self.hidden(partition);
                reply.send(request::page(runtime, engine, hidden, partition, page, form).await);
            }
        }
    }

    /// Everything there is in a partition of this shard; for the catalog.
    pub(crate) async fn all(&self, target: Target, range: Range) -> Result<Vec<Stored>, ApiError> {
        let engine = self
            .local(target)
            .ok_or_else(|| ApiError::internal("not on this shard"))?;
        let mut scan = engine.scan(target.partition, range, cairn_engine::Direction::Forward);
        let mut all = Vec::new();
        while let Some((_, stored)) = scan.next().await? {
            all.push(stored);
        }
        Ok(all)
    }
}

fn copied(read: Result<Option<Stored>, cairn_engine::EngineError>) -> Result<Option<ItemCopy>, ApiError> {
    Ok(read?.as_ref().map(ItemCopy::of))
}

fn gone() -> ApiError {
    ApiError::new(UNAVAILABLE, "the node is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_dealt_in_turn_whatever_the_number_of_shards() {
        let found = [LogId(0), LogId(2), LogId(5), LogId(6)];
        for shards in 1..8 {
            let deal = Deal::new(&found, shards);
            let mut dealt = Vec::new();
            for shard in 0..shards {
                let logs: Vec<LogId> = deal.logs_of(shard).collect();
                assert!(!logs.is_empty(), "shard {shard} of {shards} has no log");
                for (engine, log) in logs.iter().enumerate() {
                    assert_eq!(deal.seat(*log), Some(Seat { shard, engine }));
                    assert_eq!(deal.log_of(Seat { shard, engine }), *log);
                }
                dealt.extend(logs);
            }
            dealt.sort_unstable();
            assert_eq!(dealt, deal.logs);
            assert!(found.iter().all(|log| deal.logs.contains(log)));
            assert_eq!(deal.seat(LogId(0)), Some(Seat { shard: 0, engine: 0 }));
        }
    }
}
