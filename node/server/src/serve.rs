//! A node with its fronts, from the first listener to the last answer.
//!
//! 1. The first shard opens the admin endpoints, so that an operator can watch the recovery.
//! 2. All shards start the core together; nobody can connect before it may serve.
//! 3. The first shard opens the HTTP and native listeners and tells the others where, so that a free port that was
//!    picked is the same for all; then it says where to connect.
//! 4. Told to stop, every shard drains its servers, then closes; the admin endpoints go last. A shard that cannot
//!    listen tells all to stop and goes the same way.
//!
//! Generic over the runtime, so that a whole node runs in the simulator.

use std::cell::{Cell, OnceCell};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use cairn_engine::volume::{VolumeHandle, VolumeStatus};
use cairn_runtime::mailbox::{MailboxReceiver, MailboxSender, mailbox};
use cairn_runtime::{Listener, Queue, Runtime};
use futures_util::future::{Either, join, select};

use crate::admin::{
    Admin, Collector, Inbox, NodeFacts, Readiness, add_engine, add_expiry, add_indexes, add_transactions,
    add_volume,
};
use crate::answers::Answers;
use crate::api::Service;
use crate::backup::Backups;
use crate::credentials::Credentials;
use crate::http::{Dynamodb, Limits, Server};
use crate::logging::{Level, Logger};
use crate::metrics::{Metrics, Snapshot};
use crate::native;
use crate::node::{Node, NodeError, Shard};
use crate::notices::{self, Notices};
use crate::sigv4::Authority;

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The DynamoDB API.
    pub http: SocketAddr,
    /// The native protocol.
    pub native: SocketAddr,
    /// The admin endpoints.
    pub admin: SocketAddr,
}

/// Called once, on the first shard, when the node serves: the addresses with their real ports, and the drives.
pub type OnReady = Box<dyn Fn(Addresses, &VolumeStatus) + Send + Sync>;

/// What the fronts of a node are made with.
pub struct Plan {
    /// The core.
    pub node: Node,
    /// Number of shards.
    pub shards: usize,
    /// Where to listen; port 0 picks a free one.
    pub addresses: Addresses,
    /// Access keys; None: nobody is asked.
    pub credentials: Option<Credentials>,
    /// Whether `/metrics` asks for an access key.
    pub guard_admin: bool,
    /// What each shard's HTTP server allows.
    pub limits: Limits,
    /// Where log lines go.
    pub logger: Logger,
    /// Who is told when the node serves.
    pub on_ready: OnReady,
}

/// A node with its fronts; the same value for all shards. Cheap to clone.
#[derive(Clone)]
pub struct Fronts {
    shared: Arc<Shared>,
}

struct Shared {
    plan: Plan,
    collector: Collector,
    parts: Mutex<Vec<Option<Part>>>,
    addresses: Vec<MailboxSender<Addresses>>,
    stopper: Stopper,
    /// Whether an engine has stopped.
    failed: Arc<AtomicBool>,
}

/// What each shard takes when it starts.
struct Part {
    stop: MailboxReceiver<()>,
    addresses: MailboxReceiver<Addresses>,
    inbox: Inbox,
}

/// Tells all shards to stop. Cheap to clone, and may be used from any thread.
#[derive(Clone)]
pub struct Stopper {
    shards: Vec<MailboxSender<()>>,
}

impl Stopper {
    /// Lets the node drain and end. Further calls change nothing.
    pub fn stop(&self) {
        for shard in &self.shards {
            // Full means told already, closed means ended already.
            let _ = shard.try_send(());
        }
    }
}

/// The whole node's values for a scrape, once it is known.
struct Facts(Rc<OnceCell<(VolumeHandle, Backups)>>);

impl NodeFacts for Facts {
    async fn add(&self, snapshot: &mut Snapshot) {
        if let Some((volume, _)) = self.0.get()
            && let Ok(status) = volume.status().await
        {
            add_volume(snapshot, &status);
        }
    }

    fn volume(&self) -> Option<VolumeHandle> {
        Some(self.0.get()?.0.clone())
    }

    fn backups(&self) -> Option<Backups> {
        Some(self.0.get()?.1.clone())
    }
}

type AdminServer<R> = Server<R, Admin<R, Facts>>;

/// The servers of one shard's clients.
struct ShardServers<R: Runtime> {
    http: Server<R, Dynamodb<R, Service<R>>>,
    native: native::Server<R>,
}

impl Fronts {
    /// Prepares the fronts. Nothing is opened yet.
    #[must_use]
    pub fn new(plan: Plan) -> (Fronts, Stopper) {
        let (collector, inboxes) = Collector::new(plan.shards);
        let (mut parts, mut addresses, mut shards) = (Vec::new(), Vec::new(), Vec::new());
        for inbox in inboxes {
            let (stop_sender, stop) = mailbox(1);
            let (address_sender, address) = mailbox(1);
            shards.push(stop_sender);
            addresses.push(address_sender);
            parts.push(Some(Part {
                stop,
                addresses: address,
                inbox,
            }));
        }
        let stopper = Stopper { shards };
        let shared = Shared {
            plan,
            collector,
            parts: Mutex::new(parts),
            addresses,
            stopper: stopper.clone(),
            failed: Arc::default(),
        };
        (
            Fronts {
                shared: Arc::new(shared),
            },
            stopper,
        )
    }

    /// Runs the shard that `runtime` belongs to until the node is told to stop; called once on every shard.
    ///
    /// # Errors
    /// Why the node could not start, or not be closed as it should. All shards end when one does.
    pub async fn run_shard<R: Runtime>(&self, runtime: R) -> Result<(), NodeError> {
        let index = runtime.shard().0;
        let part = self
            .shared
            .parts
            .lock()
            .expect("nobody panics with it")
            .get_mut(index)
            .and_then(Option::take);
        let part = part.expect("each shard runs once");
        let result = self.run_part(runtime, part).await;
        if result.is_err() {
            self.shared.stopper.stop();
        }
        result
    }

    async fn run_part<R: Runtime>(&self, runtime: R, mut part: Part) -> Result<(), NodeError> {
        let plan = &self.shared.plan;
        let is_first = runtime.shard().0 == 0;
        let readiness = Rc::new(Cell::new(Readiness::Recovering));
        let volume = Rc::new(OnceCell::new());
        let admin = if is_first {
            match self.start_admin(&runtime, Rc::clone(&readiness), Facts(Rc::clone(&volume))) {
                Ok(admin) => Some(admin),
                Err(error) => {
                    plan.node.abort(&error).await;
                    return Err(error);
                }
            }
        } else {
            None
        };
        let shard = Rc::new(plan.node.start_shard(runtime.clone()).await?);
        let (handle, _) = volume.get_or_init(|| (shard.volume(), shard.backups()));
        let mut notices = Notices::new(plan.logger.clone(), Arc::clone(&self.shared.failed));
        notices.look(&shard, runtime.unix_ms());
        let watch = notices::watch(runtime.clone(), notices, Rc::downgrade(&shard), is_first);
        runtime.spawn(Queue::Background, watch);
        let servers = Rc::new(self.start_servers(&runtime, &shard, part.inbox));
        let served = if let Some((_, admin)) = &admin {
            let ready = || readiness.set(Readiness::Ready);
            self.lead(&runtime, &servers, *admin, handle, ready, &mut part.stop)
                .await
        } else {
            self.follow(&runtime, &servers, &mut part.addresses, &mut part.stop)
                .await
        };
        if served.is_err() {
            // No shard closes before all have drained, this one among them.
            self.shared.stopper.stop();
        }
        readiness.set(Readiness::Draining);
        join(servers.http.drain(), servers.native.drain()).await;
        let shard = Rc::into_inner(shard).expect("others hold it weakly, and never across an await");
        let closed = shard.close().await;
        if let Some((admin, _)) = admin {
            admin.drain().await;
        }
        served.and(closed)
    }

    /// Serves on the first shard until the node is told to stop: opens the listeners and says where they are.
    async fn lead<R: Runtime>(
        &self,
        runtime: &R,
        servers: &Rc<ShardServers<R>>,
        admin: SocketAddr,
        volume: &VolumeHandle,
        ready: impl FnOnce(),
        stop: &mut MailboxReceiver<()>,
    ) -> Result<(), NodeError> {
        let plan = &self.shared.plan;
        let addresses = Addresses {
            http: self.listen(runtime, plan.addresses.http, Rc::clone(servers), true)?,
            native: self.listen(runtime, plan.addresses.native, Rc::clone(servers), false)?,
            admin,
        };
        for other in &self.shared.addresses[1..] {
            let _ = other.try_send(addresses);
        }
        let status = volume.status().await;
        let status = status.map_err(|error| NodeError(error.to_string()))?;
        (plan.on_ready)(addresses, &status);
        ready();
        stop.recv().await;
        Ok(())
    }

    /// Serves on another shard until the node is told to stop, which may be before the first shard listens.
    async fn follow<R: Runtime>(
        &self,
        runtime: &R,
        servers: &Rc<ShardServers<R>>,
        addresses: &mut MailboxReceiver<Addresses>,
        stop: &mut MailboxReceiver<()>,
    ) -> Result<(), NodeError> {
        let told = pin!(addresses.recv());
        let stopped = pin!(stop.recv());
        let Either::Left((Some(addresses), stopped)) = select(told, stopped).await else {
            return Ok(());
        };
        self.listen(runtime, addresses.http, Rc::clone(servers), true)?;
        self.listen(runtime, addresses.native, Rc::clone(servers), false)?;
        stopped.await;
        Ok(())
    }

    fn start_admin<R: Runtime>(
        &self,
        runtime: &R,
        readiness: Rc<Cell<Readiness>>,
        facts: Facts,
    ) -> Result<(AdminServer<R>, SocketAddr), NodeError> {
        let plan = &self.shared.plan;
        let listener = bind(runtime, plan.addresses.admin)?;
        let address = listener.address();
        let guards = plan.credentials.clone().filter(|_| plan.guard_admin);
        let admin = Admin::new(
            runtime.clone(),
            self.shared.collector.clone(),
            readiness,
            Arc::clone(&self.shared.failed),
            facts,
            guards,
        );
        let limits = Limits {
            connections: ADMIN_CONNECTIONS_MAX,
            ..plan.limits.clone()
        };
        let server = Server::new(runtime.clone(), admin, limits, Answers::new(ADMIN_ANSWERS_BYTES));
        let running = server.clone();
        let failing = self.failing(runtime, "admin");
        runtime.spawn(Queue::Foreground, async move {
            failing(running.serve(listener).await)
        });
        Ok((server, address))
    }

    fn start_servers<R: Runtime>(&self, runtime: &R, shard: &Rc<Shard<R>>, inbox: Inbox) -> ShardServers<R> {
        let plan = &self.shared.plan;
        let metrics = Rc::new(Metrics::default());
        let authority = plan
            .credentials
            .clone()
            .map(|keys| Authority::new(keys, "dynamodb"));
        let dynamodb = Dynamodb::new(
            runtime.clone(),
            shard.service(),
            authority,
            Rc::clone(&metrics),
            plan.logger.clone(),
            plan.limits.large_bodies_bytes,
        );
        let answers = shard.service().answers().clone();
        let http = Server::new(runtime.clone(), dynamodb, plan.limits.clone(), answers);
        let native = native::Server::new(
            runtime.clone(),
            shard.service(),
            plan.credentials.clone(),
            Rc::clone(&metrics),
            plan.logger.clone(),
            &plan.limits,
        );
        let (counted_http, counted_native) = (http.clone(), native.clone());
        // The inbox outlives the shard by as long as the collector does; it must not keep the shard.
        let shard = Rc::downgrade(shard);
        let snapshot = move || {
            let mut snapshot = metrics.snapshot();
            snapshot.http = counted_http.stats();
            snapshot.native = counted_native.stats();
            if let Some(shard) = shard.upgrade() {
                for (_, stats) in shard.engine_stats() {
                    add_engine(&mut snapshot, &stats);
                }
                add_expiry(&mut snapshot, &shard.expiry_stats());
                add_indexes(&mut snapshot, &shard.index_stats());
                add_transactions(&mut snapshot, &shard.transaction_stats());
            }
            snapshot
        };
        runtime.spawn(Queue::Foreground, inbox.serve(snapshot));
        ShardServers { http, native }
    }

    /// Opens a listener and lets the HTTP or native server accept from it. Gives its address.
    fn listen<R: Runtime>(
        &self,
        runtime: &R,
        address: SocketAddr,
        servers: Rc<ShardServers<R>>,
        is_http: bool,
    ) -> Result<SocketAddr, NodeError> {
        let listener = bind(runtime, address)?;
        let bound = listener.address();
        let failing = self.failing(runtime, if is_http { "http" } else { "native" });
        runtime.spawn(Queue::Foreground, async move {
            failing(if is_http {
                servers.http.serve(listener).await
            } else {
                servers.native.serve(listener).await
            });
        });
        Ok(bound)
    }

    /// What is done when a listener ends: nothing after a drain; without it the node stops.
    fn failing<R: Runtime>(
        &self,
        runtime: &R,
        protocol: &'static str,
    ) -> impl FnOnce(io::Result<()>) + use<R> {
        let (shared, runtime) = (Arc::clone(&self.shared), runtime.clone());
        move |result| {
            if let Err(error) = result {
                let fields: [(&'static str, &dyn std::fmt::Display); 2] =
                    [("protocol", &protocol), ("error", &error)];
                shared
                    .plan
                    .logger
                    .log(Level::Error, runtime.unix_ms(), "a listener failed", &fields);
                shared.stopper.stop();
            }
        }
    }
}

/// Connections of the admin endpoints.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// What large answers of the admin port may take.
const ADMIN_ANSWERS_BYTES: usize = 16 << 20;

fn bind<R: Runtime>(runtime: &R, address: SocketAddr) -> Result<R::Listener, NodeError> {
    runtime
        .listen(address)
        .map_err(|error| NodeError(format!("cannot listen on {address}: {error}")))
}
