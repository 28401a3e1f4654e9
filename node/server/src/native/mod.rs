//! The native server: what docs/protocol.md describes, over the typed operations of [`Service`].
//!
//! - A connection has a reader, a sender, and one task for each request that has to wait. A read that is in memory is
//!   answered by the reader itself. Whatever has been answered when the sender is free leaves in one send.
//! - At most [`WINDOW`] requests of a connection are in work, and at most [`OUTPUT_BYTES_MAX`] of answers wait to be
//!   sent, plus one answer for each request in work: beyond that the reader stops, and TCP slows the client down. Of
//!   requests that may answer with pages [`PAGES_AT_ONCE_MAX`] are carried out at once, and none begins beyond that. All
//!   large answers of the shard have one budget ([`crate::answers`]); while it is short a connection has [`TIGHT_WINDOW`] requests in
//!   work and 64 KiB of answers.
//! - Of the bodies in work a connection has [`OWN_BYTES_MAX`] bytes free of charge. The others, and each frame larger than
//!   that before it is received, take their bytes from what the shard has for them; when there are none the reader waits.
//! - Time limits cost a request nothing: once a second a watchdog counts up what each connection waits for, and whoever gets
//!   on begins at 0 again.
//! - Bytes that are no frame end the connection, because where the next frame begins is unknown. A frame whose body
//!   cannot be read is answered with a failure.

mod execute;
mod session;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use cairn_protocol::frame::{BODY_BYTES_MAX, HEAD_BYTES};
use cairn_runtime::sync::{Gate, Semaphore, timeout};
use cairn_runtime::{Listener, Queue, Runtime};
use futures_util::future::{Either, select};

use crate::answers::TIGHT_SEND_MAX;
use crate::api::Service;
use crate::credentials::Credentials;
use crate::http::Limits;
use crate::http::server::ServerStats;
use crate::logging::{Level, Logger};
use crate::metrics::Metrics;
use session::Session;

/// Requests of one connection in work at once.
pub const WINDOW: u32 = 1024;
/// Bytes of answers that wait for a client before the reader stops.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// Requests of one connection in work at once while answers are short of room.
const TIGHT_WINDOW: u32 = 16;
/// Requests of one connection that may answer with pages, and are carried out at once.
const PAGES_AT_ONCE_MAX: usize = 16;
/// A handshake takes no longer.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Largest frame of a handshake; the longest part of one is the access key's id.
const HANDSHAKE_BYTES_MAX: usize = 1024;
/// Bytes of bodies in work that a connection is not charged for.
const OWN_BYTES_MAX: usize = 64 * 1024;
/// How often the watchdog looks.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(1);
/// Watchdog periods in which a client takes answers, or sends a frame but for one period per 64 KiB of it.
const SEND_PERIODS_MAX: u32 = 60;
const TIGHT_SEND_PERIODS_MAX: u32 = TIGHT_SEND_MAX.as_secs() as u32;
const RECEIVE_PERIODS_MAX: u32 = 30;
/// Watchdog periods of a connection without a request: long, for a client only learns that its connection is gone when it
/// sends the next one.
const IDLE_PERIODS_MAX: u32 = 15 * 60;
/// How long draining waits for requests in work.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// One shard's server. Cheap to clone.
pub struct Server<R: Runtime> {
    shared: Rc<Shared<R>>,
}

impl<R: Runtime> Clone for Server<R> {
    fn clone(&self) -> Server<R> {
        Server {
            shared: Rc::clone(&self.shared),
        }
    }
}

struct Shared<R: Runtime> {
    runtime: R,
    service: Service<R>,
    /// None: every handshake is accepted.
    credentials: Option<Credentials>,
    metrics: Rc<Metrics>,
    logger: Logger,
    /// Bytes for bodies.
    bodies: Semaphore,
    connections_max: usize,
    /// Open connections; closed when the server drains.
    gate: Gate,
    sessions: RefCell<BTreeMap<u64, Rc<Session<R>>>>,
    next: Cell<u64>,
    stats: Cell<ServerStats>,
    /// Where the storage keys of gets come together.
    scratch: RefCell<Vec<u8>>,
}

impl<R: Runtime> Shared<R> {
    fn count(&self, change: impl FnOnce(&mut ServerStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

impl<R: Runtime> Server<R> {
    /// A server that listens nowhere yet. Of `limits` those of connections and large bodies count; what bodies may take is
    /// beyond what each connection has of its own, and one of the largest always fits.
    pub fn new(
        runtime: R,
        service: Service<R>,
        credentials: Option<Credentials>,
        metrics: Rc<Metrics>,
        logger: Logger,
        limits: &Limits,
    ) -> Server<R> {
        let shared = Shared {
            runtime,
            service,
            credentials,
            metrics,
            logger,
            bodies: Semaphore::new(limits.large_bodies_bytes.max(HEAD_BYTES + BODY_BYTES_MAX)),
            connections_max: limits.connections,
            gate: Gate::new(),
            sessions: RefCell::default(),
            next: Cell::new(0),
            stats: Cell::default(),
            scratch: RefCell::default(),
        };
        Server {
            shared: Rc::new(shared),
        }
    }

    /// Its counters.
    pub fn stats(&self) -> ServerStats {
        self.shared.stats.get()
    }

    /// Accepts connections until the server is drained or the listener fails.
    ///
    /// # Errors
    /// The listener's.
    pub async fn serve(&self, listener: R::Listener) -> std::io::Result<()> {
        let shared = Rc::clone(&self.shared);
        self.shared
            .runtime
            .spawn(Queue::Foreground, async move { watch(&shared).await });
        let mut closed = std::pin::pin!(self.shared.gate.closed());
        loop {
            let accept = std::pin::pin!(listener.accept());
            match select(accept, closed.as_mut()).await {
                Either::Left((accepted, _)) => self.take(accepted?),
                Either::Right(_) => return Ok(()),
            }
        }
    }

    /// Serves one connection in tasks of its own.
    pub fn take(&self, connection: R::Connection) {
        let shared = &self.shared;
        let Ok(pass) = shared.gate.enter() else { return };
        if shared.sessions.borrow().len() >= shared.connections_max {
            shared.count(|stats| stats.refused += 1);
            return;
        }
        shared.count(|stats| {
            stats.accepted += 1;
            stats.open += 1;
        });
        let number = shared.next.replace(shared.next.get() + 1);
        let session = Rc::new(Session::new(Rc::clone(shared), connection));
        shared.sessions.borrow_mut().insert(number, Rc::clone(&session));
        let shared = Rc::clone(shared);
        shared.runtime.clone().spawn(Queue::Foreground, async move {
            let outcome = session.run().await;
            if let Err(reason) = &outcome {
                shared.count(|stats| stats.malformed += 1);
                let fields: [(&'static str, &dyn std::fmt::Display); 2] =
                    [("peer", &session.peer()), ("reason", reason)];
                let now = shared.runtime.unix_ms();
                shared
                    .logger
                    .log(Level::Debug, now, "native connection closed", &fields);
            }
            shared.sessions.borrow_mut().remove(&number);
            shared.count(|stats| stats.open -= 1);
            drop(pass);
        });
    }

    /// Stops accepting and resolves when every connection has ended: idle ones at once, the others when what is in
    /// work has been answered, but no later than [`DRAIN_MAX`].
    pub async fn drain(&self) {
        let shared = &self.shared;
        let left = shared.gate.close();
        for session in shared.sessions.borrow().values() {
            session.finish();
        }
        let mut left = std::pin::pin!(left);
        if timeout(&shared.runtime, DRAIN_MAX, left.as_mut()).await.is_err() {
            for session in shared.sessions.borrow().values() {
                session.shutdown();
            }
            left.await;
        }
    }
}

/// The watchdog: ends with the server's last connection once it drains.
async fn watch<R: Runtime>(shared: &Shared<R>) {
    while !shared.gate.is_closed() || !shared.sessions.borrow().is_empty() {
        shared.runtime.sleep(WATCHDOG_PERIOD).await;
        for session in shared.sessions.borrow().values() {
            if session.is_late() {
                session.shutdown();
                shared.count(|stats| stats.timed_out += 1);
            }
        }
    }
}
