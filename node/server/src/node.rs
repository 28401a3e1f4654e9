//! A node's life: its volume, engines and shards from start to shutdown.
//!
//! **Start.** Shard 0 leads. (1) It opens the volume, which locks the directories, and finds the logs. (2) It deals the
//! logs to the shards; every shard recovers its own at the same time. (3) Shard 0 reads the catalog; every shard
//! compares it with its partitions and creates those of tables that were being created. (4) All shards serve. When
//! one of them fails, all of them fail with that error.
//!
//! **Shutdown.** A shard that has drained its clients goes on serving the other shards. When all have drained, each
//! closes its engines; shard 0 lets go of the volume last.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use cairn_engine::ids::{LogId, PartitionId};
use cairn_engine::sealing::Keys;
use cairn_engine::volume::{Keeper, VolumeConfig, VolumeHandle};
use cairn_engine::{Engine, EngineConfig, EngineStats};
use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, ReplySender, mailbox, reply};
use cairn_runtime::sync::{OneshotSender, oneshot};
use cairn_runtime::{BLOCK_BYTES, Queue, Runtime};

use crate::answers::Answers;
use crate::api::{ApiError, Service};
use crate::backup::{self, Backups, Step};
use crate::catalog::{Catalog, Change, Order, Store, TableDefinition, TableStatus, Usage};
use crate::expiry::{Expiry, ExpiryStats, sweep};
use crate::index::writes::Writes;
use crate::index::{IndexStats, Indexes};
use crate::route::{Deal, MAILBOX_CAPACITY, Request, Router};
use crate::stream;
use crate::transact::{TransactionStats, Transactions, oversee, recover};

/// Control messages that may wait for a shard.
const CONTROL_CAPACITY: usize = 64;
/// Shares of an engine's memory, in parts of [`MEMORY_PARTS`]; the rest is for requests in flight and for indexes. Of the caches' share
/// [`EngineConfig::item_cache_eighths`] is for items.
const MEMTABLE_PARTS: u64 = 1;
const CACHE_PARTS: u64 = 2;
const MEMORY_PARTS: u64 = 4;
/// Part of a shard's memory that large answers may take.
const ANSWER_PART: u64 = 16;
/// They may always take this much: a batch, or two pages.
const ANSWER_BYTES_MIN: u64 = 4 << 20;

/// All memtables' bytes that a level 0 may hold before it is merged: four flushes of half of them, and what comes meanwhile.
const LEVEL0_MEMTABLES: u64 = 3;

/// A log file is not made shorter than this, however small the budget: it has room for several batches.
const LOG_FILE_BYTES_MIN: u64 = 4 << 20;

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Drive directories, one per mirror at least.
    pub drives: Vec<PathBuf>,
    /// Where the witness lives, off the drives.
    pub state: PathBuf,
    /// Copies of every byte.
    pub mirrors: usize,
    /// The operator's word that this epoch is the newest.
    pub accept_epoch: Option<u64>,
    /// What opens an encrypted node, and whether a new one is encrypted.
    pub keys: Keys,
    /// Memory budget of the whole node in bytes, split by shard.
    pub memory_bytes: u64,
    /// Region in ARNs.
    pub region: String,
    /// Twelve-digit account in ARNs.
    pub account: String,
    /// Limits of each engine; its memory is overridden by `memory_bytes`.
    pub engine: EngineConfig,
    /// A bug to put in, for tests of the checkers.
    #[doc(hidden)]
    pub canary: Canary,
}

/// A bug to put in, so that a test can show that it is found.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Canary {
    /// None.
    #[default]
    None,
    /// Transactions that read look at their items once.
    NoSecondLook,
    /// They do not ask whether what was absent twice has come and gone.
    NoGreatestDelete,
    /// What is prepared is forgotten in a crash.
    ForgetPrepared,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            drives: vec!["cairn-data/drive-0".into(), "cairn-data/drive-1".into()],
            state: "cairn-data/state".into(),
            mirrors: 2,
            accept_epoch: None,
            keys: Keys::default(),
            memory_bytes: 1 << 30,
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            engine: EngineConfig::default(),
            canary: Canary::None,
        }
    }
}

/// What one shard may be told by another. Orders of the catalog come to shard 0 only.
pub(crate) enum Control {
    Open {
        volume: VolumeHandle,
        deal: Deal,
        reply: ReplySender<Result<(), NodeError>>,
    },
    Load {
        tables: Vec<Arc<TableDefinition>>,
        reply: ReplySender<Result<(), NodeError>>,
    },
    Serve,
    Abort(NodeError),
    Apply {
        change: Change,
        reply: ReplySender<Result<(), ApiError>>,
    },
    Usage {
        table: Arc<TableDefinition>,
        reply: ReplySender<Usage>,
    },
    Order(Order),
    Backup(MailboxReceiver<Step>),
    Drained,
    Close {
        reply: ReplySender<Result<(), NodeError>>,
    },
}

/// A node that is being started: shared by all its shards.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    config: NodeConfig,
    control: Vec<MailboxSender<Control>>,
    data: Vec<MailboxSender<Request>>,
    /// What each shard receives from; taken by it when it starts.
    receivers: Mutex<Vec<Option<Receivers>>>,
}

struct Receivers {
    control: MailboxReceiver<Control>,
    data: MailboxReceiver<Request>,
}

impl Node {
    /// Prepares the mailboxes of a node of `shards` shards. Nothing is opened yet.
    #[must_use]
    pub fn new(config: NodeConfig, shards: usize) -> Node {
        let mut shared = Shared {
            config,
            control: Vec::with_capacity(shards),
            data: Vec::with_capacity(shards),
            receivers: Mutex::default(),
        };
        let mut receivers = Vec::with_capacity(shards);
        for _ in 0..shards {
            let (control, control_receiver) = mailbox(CONTROL_CAPACITY);
            let (data, data_receiver) = mailbox(MAILBOX_CAPACITY);
            shared.control.push(control);
            shared.data.push(data);
            receivers.push(Some(Receivers {
                control: control_receiver,
                data: data_receiver,
            }));
        }
        shared.receivers = Mutex::new(receivers);
        Node {
            shared: Arc::new(shared),
        }
    }

    /// Starts the shard that `runtime` belongs to; called once on every shard. Resolves when the whole node may
    /// serve, on all shards alike.
    ///
    /// # Errors
    /// Why the node cannot start; all shards get the same error.
    pub async fn start_shard<R: Runtime>(&self, runtime: R) -> Result<Shard<R>, NodeError> {
        let shard = runtime.shard().0;
        let receivers = {
            let mut receivers = self
                .shared
                .receivers
                .lock()
                .expect("no shard panics while it holds this");
            receivers.get_mut(shard).and_then(Option::take)
        };
        let Some(receivers) = receivers else {
            return Err(NodeError(format!(
                "shard {shard} is not one of this node, or was started before"
            )));
        };
        if shard == 0 {
            let result = self.lead(runtime, receivers).await;
            if let Err(error) = &result {
                self.abort(error).await;
            }
            result
        } else {
            self.follow(runtime, receivers).await
        }
    }

    /// Lets [`Node::start_shard`] fail on all shards but shard 0, which has a reason not to start.
    pub async fn abort(&self, error: &NodeError) {
        for other in &self.shared.control[1..] {
            // A shard that is gone needs no telling.
            let _ = other.send(Control::Abort(error.clone())).await;
        }
    }

    async fn lead<R: Runtime>(&self, runtime: R, receivers: Receivers) -> Result<Shard<R>, NodeError> {
        let shared = &self.shared;
        let config = &shared.config;
        let shards = shared.control.len();
        let volume_config = VolumeConfig {
            drives: config.drives.clone(),
            state: config.state.clone(),
            mirrors: config.mirrors,
            accept_epoch: config.accept_epoch,
            keys: config.keys.clone(),
        };
        let keeper = Keeper::open(runtime.clone(), volume_config)
            .await
            .map_err(node_error)?;
        let handle = keeper.handle();
        let volume = handle.attach(runtime.clone()).await.map_err(node_error)?;
        let deal = Deal::new(&volume.logs().await.map_err(node_error)?, shards);

        let opened = self
            .ask_others(|reply| Control::Open {
                volume: handle.clone(),
                deal: deal.clone(),
                reply,
            })
            .await?;
        let router = self.open_engines(runtime.clone(), &handle, deal).await;
        wait_for(opened).await?;
        let router = router?;

        let store = Store::open(Rc::clone(&router), config.account.clone(), shared.control.clone());
        let store = Rc::new(store.await.map_err(|error| NodeError(error.message))?);
        let tables = store.tables();
        let loaded = self
            .ask_others(|reply| Control::Load {
                tables: tables.clone(),
                reply,
            })
            .await?;
        let catalog = load(&router, tables).await;
        wait_for(loaded).await?;
        let catalog = Rc::new(RefCell::new(catalog?));
        for other in &shared.control[1..] {
            other
                .send(Control::Serve)
                .await
                .map_err(|_| NodeError("a shard stopped".to_owned()))?;
        }
        let leader = Leader {
            store: Rc::clone(&store),
            keeper: Some(keeper),
            drained: 0,
        };
        let shard = self.serve(router, catalog, handle, receivers, Some(leader));
        runtime.spawn(Queue::Background, store.resume());
        Ok(shard)
    }

    async fn follow<R: Runtime>(&self, runtime: R, mut receivers: Receivers) -> Result<Shard<R>, NodeError> {
        let mut opened = None;
        let mut catalog = None;
        while let Some(message) = receivers.control.recv().await {
            match (message, &opened) {
                (Control::Open { volume, deal, reply }, _) => {
                    let router = self.open_engines(runtime.clone(), &volume, deal).await;
                    reply.send(router.as_ref().map(|_| ()).map_err(Clone::clone));
                    opened = router.ok().map(|router| (router, volume));
                }
                (Control::Load { tables, reply }, Some((router, _))) => {
                    let loaded = load(router, tables).await;
                    reply.send(loaded.as_ref().map(|_| ()).map_err(Clone::clone));
                    catalog = loaded.ok().map(|catalog| Rc::new(RefCell::new(catalog)));
                }
                (Control::Serve, _) => {
                    let (Some((router, volume)), Some(catalog)) = (opened, catalog) else {
                        break;
                    };
                    return Ok(self.serve(router, catalog, volume, receivers, None));
                }
                (Control::Abort(error), _) => return Err(error),
                // Nothing else is sent before `Serve`.
                _ => break,
            }
        }
        Err(NodeError(
            "shard 0 stopped while the node was starting".to_owned(),
        ))
    }

    /// Sends a message with a reply to every shard but this one, which is shard 0.
    async fn ask_others(
        &self,
        message: impl Fn(ReplySender<Result<(), NodeError>>) -> Control,
    ) -> Result<Vec<cairn_runtime::mailbox::Reply<Result<(), NodeError>>>, NodeError> {
        let mut replies = Vec::new();
        for other in &self.shared.control[1..] {
            let (sender, answer) = reply();
            other
                .send(message(sender))
                .await
                .map_err(|_| NodeError("a shard stopped".to_owned()))?;
            replies.push(answer);
        }
        Ok(replies)
    }

    /// Recovers the logs of this shard.
    async fn open_engines<R: Runtime>(
        &self,
        runtime: R,
        volume: &VolumeHandle,
        deal: Deal,
    ) -> Result<Rc<Router<R>>, NodeError> {
        let shard = runtime.shard().0;
        let config = &self.shared.config;
        let volume = volume.attach(runtime.clone()).await.map_err(node_error)?;
        let count = deal.logs_of(shard).count();
        let memory = config.memory_bytes / (deal.shards * count) as u64 / MEMORY_PARTS;
        let bytes = |parts: u64| usize::try_from(memory * parts).unwrap_or(usize::MAX);
        let memtable_bytes = bytes(MEMTABLE_PARTS);
        // What only the log holds is in memory at a start: the log's length follows the budget, as the default's does.
        let log_file_bytes = (memtable_bytes as u64 / 4).next_multiple_of(BLOCK_BYTES as u64);
        // What one merge of a whole level 0 may need, on every shard at once.
        let memtables = memory * MEMTABLE_PARTS * (deal.shards * count) as u64;
        let engine_config = EngineConfig {
            memtable_bytes,
            reserve_bytes: config.engine.reserve_bytes + LEVEL0_MEMTABLES * memtables,
            log_file_bytes: log_file_bytes
                .max(LOG_FILE_BYTES_MIN)
                .min(config.engine.log_file_bytes),
            cache_bytes: bytes(CACHE_PARTS),
            // The process's limit is reckoned by shards.
            open_files_max: config.engine.open_files_max / count,
            ..config.engine.clone()
        };
        let mut engines = Vec::with_capacity(count);
        for log in deal.logs_of(shard) {
            let engine = Engine::open(runtime.clone(), volume.clone(), log, engine_config.clone()).await;
            engines.push(engine.map_err(|error| NodeError(format!("log {log}: {error}")))?);
        }
        let mailboxes = self.shared.data.clone();
        Ok(Rc::new(Router {
            runtime,
            shard,
            deal,
            engines,
            mailboxes,
            expiry: Expiry::default(),
            indexes: Indexes::default(),
            writes: Writes::default(),
            leader: self.shared.control[0].clone(),
            transactions: Transactions::default(),
            canary: config.canary,
            stopped: false.into(),
        }))
    }

    fn serve<R: Runtime>(
        &self,
        router: Rc<Router<R>>,
        catalog: Rc<RefCell<Catalog>>,
        volume: VolumeHandle,
        receivers: Receivers,
        leader: Option<Leader<R>>,
    ) -> Shard<R> {
        let runtime = router.runtime.clone();
        let (closed_sender, closed) = oneshot();
        let control = ControlLoop {
            router: Rc::clone(&router),
            catalog: Rc::clone(&catalog),
            shards: self.shared.control.clone(),
            leader,
            closed: Some(closed_sender),
        };
        runtime.spawn(Queue::Foreground, control.run(receivers.control));
        runtime.spawn(Queue::Foreground, Rc::clone(&router).serve(receivers.data));
        runtime.spawn(Queue::Background, sweep(Rc::clone(&router)));
        runtime.spawn(Queue::Background, oversee(Rc::clone(&router)));
        runtime.spawn(Queue::Background, stream::trim::run(Rc::clone(&router)));
        let config = &self.shared.config;
        let answer_bytes = config.memory_bytes / router.deal.shards as u64 / ANSWER_PART;
        let answer_bytes = answer_bytes.max(ANSWER_BYTES_MIN);
        let service = Service::new(
            Rc::clone(&router),
            catalog,
            self.shared.control.clone(),
            config.region.clone(),
            config.account.clone(),
            volume.node(),
            Answers::new(usize::try_from(answer_bytes).unwrap_or(usize::MAX)),
        );
        Shard {
            service,
            router,
            backups: Backups::new(volume.clone(), self.shared.control.clone()),
            volume,
            leader: self.shared.control[0].clone(),
            closed,
        }
    }
}

async fn wait_for(
    replies: Vec<cairn_runtime::mailbox::Reply<Result<(), NodeError>>>,
) -> Result<(), NodeError> {
    let mut result = Ok(());
    for answer in replies {
        let answer = answer
            .await
            .unwrap_or_else(|_| Err(NodeError("a shard stopped".to_owned())));
        result = result.and(answer);
    }
    result
}

/// Compares the catalog with this shard's partitions, creates those that were being created, and keeps a copy.
async fn load<R: Runtime>(
    router: &Rc<Router<R>>,
    tables: Vec<Arc<TableDefinition>>,
) -> Result<Catalog, NodeError> {
    let mut catalog = Catalog::default();
    for definition in tables {
        if definition.status == TableStatus::Active
            && let Some(place) = router.missing_partition(&definition)
        {
            return Err(NodeError(format!(
                "log {} does not know partition {} of table {}, which the catalog says it holds",
                place.log, place.id, definition.name
            )));
        }
        router.watch_expiry(&definition);
        router.pack(&definition).await;
        let table = catalog
            .set(definition, &router.deal)
            .map_err(|error| NodeError(error.message))?;
        if table.definition().status == TableStatus::Active {
            router.watch(&table);
            router.transactions.watch(&table);
            let recovered = recover(router, table.definition()).await;
            recovered.map_err(|error| NodeError(error.message))?;
        }
    }
    Ok(catalog)
}

/// What only shard 0 has.
struct Leader<R: Runtime> {
    store: Rc<Store<R>>,
    keeper: Option<Keeper<R>>,
    drained: usize,
}

/// A shard's ear for control messages.
struct ControlLoop<R: Runtime> {
    router: Rc<Router<R>>,
    catalog: Rc<RefCell<Catalog>>,
    shards: Vec<MailboxSender<Control>>,
    leader: Option<Leader<R>>,
    closed: Option<OneshotSender<Result<(), NodeError>>>,
}

impl<R: Runtime> ControlLoop<R> {
    async fn run(mut self, mut mailbox: MailboxReceiver<Control>) {
        while let Some(message) = mailbox.recv().await {
            match message {
                Control::Apply { change, reply } => reply.send(self.apply(change).await),
                Control::Usage { table, reply } => reply.send(self.router.usage(&table)),
                Control::Order(order) => self.order(order),
                Control::Backup(steps) => {
                    let taking_part = backup::take_part(Rc::clone(&self.router), steps);
                    self.router.runtime.spawn(Queue::Foreground, taking_part);
                }
                Control::Drained => self.drained(),
                Control::Close { reply } => {
                    let result = self.router.close().await.map_err(node_error);
                    self.closed(result.clone());
                    reply.send(result);
                    return;
                }
                // Only sent while the node starts.
                Control::Open { .. } | Control::Load { .. } | Control::Serve | Control::Abort(_) => {}
            }
        }
    }

    fn closed(&mut self, result: Result<(), NodeError>) {
        if let Some(closed) = self.closed.take() {
            // The shard's owner may have gone without waiting.
            let _ = closed.send(result);
        }
    }

    async fn apply(&self, change: Change) -> Result<(), ApiError> {
        match change {
            Change::Set(definition) => {
                self.router.create_partitions(&definition).await?;
                let table = self
                    .catalog
                    .borrow_mut()
                    .set(Arc::clone(&definition), &self.router.deal)?;
                self.router.watch_expiry(&definition);
                self.router.pack(&definition).await;
                if definition.status == TableStatus::Deleting {
                    self.router.forget(&table);
                    self.router.drop_partitions(&definition).await?;
                } else {
                    self.router.watch(&table);
                    if definition.status == TableStatus::Active {
                        self.router.transactions.watch(&table);
                    }
                }
            }
            Change::Dropped(places) => self.router.drop_places(&places).await?,
            Change::Removed(name) => self.catalog.borrow_mut().remove(&name),
        }
        Ok(())
    }

    /// Has an order of the catalog carried out; it tells this loop among others, so the loop must not wait for it.
    fn order(&self, order: Order) {
        let Some(leader) = &self.leader else { return };
        let store = Rc::clone(&leader.store);
        self.router.runtime.spawn(Queue::Foreground, async move {
            match order {
                Order::Create { draft, reply } => reply.send(store.create(*draft).await),
                Order::Delete { name, reply } => reply.send(store.delete(&name).await),
                Order::Change { name, change, reply } => reply.send(store.change(&name, change).await),
                Order::Backfilled {
                    table,
                    index,
                    partition,
                    reply,
                } => reply.send(store.backfilled(table, index, partition).await),
            }
        });
    }

    /// Another shard has drained its clients; after the last one all close.
    fn drained(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        leader.drained += 1;
        if leader.drained < self.shards.len() {
            return;
        }
        let keeper = leader.keeper.take();
        let shards = self.shards.clone();
        self.router.runtime.spawn(Queue::Foreground, async move {
            // The others first: what shard 0 writes for them is over then.
            for shard in shards.iter().rev() {
                let (sender, answer) = reply();
                if shard.send(Control::Close { reply: sender }).await.is_ok() {
                    // Each shard reports its own failure to its owner.
                    let _ = answer.await;
                }
            }
            drop(keeper);
        });
    }
}

/// A shard that serves.
pub struct Shard<R: Runtime> {
    service: Service<R>,
    router: Rc<Router<R>>,
    volume: VolumeHandle,
    backups: Backups,
    leader: MailboxSender<Control>,
    closed: cairn_runtime::sync::OneshotReceiver<Result<(), NodeError>>,
}

impl<R: Runtime> Shard<R> {
    /// Its operations.
    #[must_use]
    pub fn service(&self) -> Service<R> {
        self.service.clone()
    }

    /// The drives, as an operator asks about them. May outlive the shard.
    #[must_use]
    pub fn volume(&self) -> VolumeHandle {
        self.volume.clone()
    }

    /// What makes backups of the node. Those of one shard know of each other only.
    #[must_use]
    pub fn backups(&self) -> Backups {
        self.backups.clone()
    }

    /// Counters and gauges of this shard's engines, by log.
    #[must_use]
    pub fn engine_stats(&self) -> Vec<(cairn_engine::ids::LogId, EngineStats)> {
        let logs = self.router.deal.logs_of(self.router.shard);
        logs.zip(self.router.engines.iter().map(Engine::stats)).collect()
    }

    /// Counters and gauges of the items that expire.
    #[must_use]
    pub fn expiry_stats(&self) -> ExpiryStats {
        self.router.expiry.stats()
    }

    /// Counters and gauges of the indexes.
    #[must_use]
    pub fn index_stats(&self) -> IndexStats {
        self.router.index_stats()
    }

    /// Counters and gauges of the transactions.
    #[must_use]
    pub fn transaction_stats(&self) -> TransactionStats {
        self.router.transactions.stats()
    }

    /// Logs of this shard that take no writes any more, and why.
    pub(crate) fn stopped(&self) -> Vec<(LogId, Rc<str>)> {
        let logs = self.router.deal.logs_of(self.router.shard);
        let engines = logs.zip(&self.router.engines);
        engines
            .filter_map(|(log, engine)| Some((log, engine.stopped()?)))
            .collect()
    }

    /// Partitions of this shard that serve nothing, with the name of their table, and why.
    pub(crate) fn fenced(&self) -> Vec<(PartitionId, String, Rc<str>)> {
        let tables = self.service.tables();
        let name = |id| {
            let table = tables.iter().find(|table| table.definition().id == id);
            table.map_or_else(|| format!("#{id}"), |table| table.definition().name.clone())
        };
        let engines = self.router.engines.iter();
        engines
            .flat_map(Engine::partitions)
            .filter_map(|info| Some((info.id, name(info.table), info.fenced?)))
            .collect()
    }

    /// Closes the shard, whose clients have been drained. It goes on serving the other shards until all of them have
    /// called this.
    ///
    /// # Errors
    /// What kept the logs from being closed; everything acknowledged is durable all the same.
    pub async fn close(self) -> Result<(), NodeError> {
        let stopped = || NodeError("shard 0 stopped first".to_owned());
        self.leader.send(Control::Drained).await.map_err(|_| stopped())?;
        self.closed.await.map_err(|_| stopped())?
    }
}

/// Why a node did not start or did not close, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError(pub String);

fn node_error(error: impl fmt::Display) -> NodeError {
    NodeError(error.to_string())
}

impl fmt::Display for NodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for NodeError {}
