//! Listeners and connections of one shard.
//!
//! - A connection is one task that reads, answers in order and writes. All answers to requests that arrived
//!   together leave in one send. At most one request of a connection is executed at a time.
//! - Time limits cost nothing per request: a connection notes what it is doing and since when, and one watchdog
//!   task per server shuts down those that take too long. A request that is being executed has no limit here.
//! - Everything is bounded: connections, bytes of a head and body, bytes of all large bodies together, bytes of
//!   answers gathered before they are sent, bytes of all large answers together ([`Answers`]).
//! - Where the client may still be sending when its connection is closed, the last answer is followed by reading
//!   and discarding for a while: unread bytes would reset the connection before the answer is read.
//! - Draining: nobody is accepted, idle connections end at once, the others with their next answer.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::{Gate, Pass};
use cairn_runtime::{Connection, Listener, Moment, Queue, Runtime};
use futures_util::future::{Either, select};

use super::decode::{BODY_BYTES_MAX, Decoder, HEADERS_MAX, Head, Malformed, Progress, Request};
use super::encode::{After, RequestId};
use crate::answers::{Answers, Charge, LARGE_ANSWER_BYTES, TIGHT_SEND_MAX};

/// What a server allows. Per shard where not said otherwise.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; more are closed as they arrive.
    pub connections: usize,
    /// Bytes of request bodies above [`LARGE_BODY_BYTES`] being received or executed at the same time.
    pub large_bodies_bytes: usize,
    /// A connection without a request is closed after this time.
    pub idle: Duration,
    /// A request must arrive within this time, plus one second per 64 KiB of it.
    pub receive: Duration,
    /// A batch of answers must be taken within this time.
    pub send: Duration,
    /// How long a connection that is being closed may go on sending.
    pub linger: Duration,
    /// How long draining waits for requests that are being executed; for those that are still arriving as long as
    /// [`Limits::linger`].
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            large_bodies_bytes: 64 * 1024 * 1024,
            // Longer than SDKs keep idle connections (Go 90 s), so that they close first and never find a
            // connection closed that they are about to use.
            idle: Duration::from_secs(120),
            receive: Duration::from_secs(30),
            send: Duration::from_secs(60),
            linger: Duration::from_secs(2),
            drain: Duration::from_secs(20),
        }
    }
}

/// Bodies up to this size are not counted against [`Limits::large_bodies_bytes`].
pub const LARGE_BODY_BYTES: usize = 64 * 1024;
/// Answers are sent when this many bytes have gathered, even when more requests wait: so none of them is charged while
/// the next request waits for room.
const BATCH_BYTES: usize = LARGE_ANSWER_BYTES;
/// Buffers of a connection that grew beyond this are given back when it becomes idle: enough for requests and answers
/// of items of 1 KiB, and 80 MB for as many idle connections as a shard has room for.
const BUFFER_BYTES_KEPT: usize = 4 * 1024;
/// Most bytes discarded from a connection that is being closed.
const LINGER_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
/// How often the watchdog looks; no limit is kept more exactly.
const WATCHDOG_PERIOD: Duration = Duration::from_secs(1);

const _: () = assert!(
    Limits::LARGE_MIN >= BODY_BYTES_MAX,
    "one body of the greatest size must fit"
);

impl Limits {
    /// Least useful value of [`Limits::large_bodies_bytes`].
    pub const LARGE_MIN: usize = BODY_BYTES_MAX;
}

/// What an [`Application`] needs to know of the exchange that a request opens.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Unique, for the answer's header and the log.
    pub id: RequestId,
    /// To be said in the answer.
    pub after: After,
    /// When the request had arrived.
    pub received: Moment,
}

/// What a server serves.
pub trait Application: 'static {
    /// Appends the answer to `request`, a whole HTTP message, to `out`. What comes before the first await may
    /// look at the headers; the future keeps the bytes of the request only.
    fn answer<'a>(
        &'a self,
        request: &Request<'_, 'a>,
        exchange: Exchange,
        out: &'a mut Vec<u8>,
    ) -> impl Future<Output = ()> + use<'a, Self>;

    /// Appends the answer to a request whose head alone tells that its body need not be received; else nothing.
    /// Asked before a body takes of [`Limits::large_bodies_bytes`], so that strangers cannot use that up. The
    /// connection is closed behind the answer.
    fn turn_away(&self, head: &Head<'_, '_>, exchange: Exchange, out: &mut Vec<u8>);

    /// Appends the answer to what is not a request. The connection is closed behind it.
    fn refuse(&self, malformed: Malformed, exchange: Exchange, out: &mut Vec<u8>);

    /// Appends the answer to a request that there is no room for now. The connection is closed behind it.
    fn overloaded(&self, exchange: Exchange, out: &mut Vec<u8>);
}

/// Counters of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Connections open now.
    pub open: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections closed on arrival because of [`Limits::connections`].
    pub refused: u64,
    /// Connections shut down by the watchdog.
    pub timed_out: u64,
    /// Connections closed because of what they sent.
    pub malformed: u64,
}

impl ServerStats {
    /// Adds another server's counters.
    pub fn add(&mut self, other: &ServerStats) {
        self.open += other.open;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.malformed += other.malformed;
    }
}

/// One shard's server. Cheap to clone.
pub struct Server<R: Runtime, A> {
    shared: Rc<Shared<R, A>>,
}

impl<R: Runtime, A> Clone for Server<R, A> {
    fn clone(&self) -> Server<R, A> {
        Server {
            shared: Rc::clone(&self.shared),
        }
    }
}

struct Shared<R: Runtime, A> {
    runtime: R,
    application: A,
    limits: Limits,
    answers: Answers,
    /// Open connections; closed when the server drains.
    gate: Gate,
    /// By number; the numbers of connections that have ended are in `free`.
    places: RefCell<Vec<Taken<R::Connection>>>,
    free: RefCell<Vec<usize>>,
    large_bodies_bytes: Cell<usize>,
    stats: Cell<ServerStats>,
    next_id: Cell<u64>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Idle,
    Receiving,
    Executing,
    Sending,
    Lingering,
}

/// A connection as the watchdog sees it.
struct Place<C> {
    connection: C,
    doing: Cell<Doing>,
    since: Cell<Moment>,
    /// Bytes of the request that is being received.
    received: Cell<usize>,
    /// Whether what is being sent is charged.
    charged: Cell<bool>,
}

/// A place, unless its connection has ended.
type Taken<C> = Option<Rc<Place<C>>>;

impl<C> Place<C> {
    fn now_doing(&self, doing: Doing, since: Moment) {
        self.doing.set(doing);
        self.since.set(since);
    }
}

impl<R: Runtime, A: Application> Server<R, A> {
    /// A server that listens nowhere yet. Large answers are charged to `answers`.
    pub fn new(runtime: R, application: A, limits: Limits, answers: Answers) -> Server<R, A> {
        let next_id = Cell::new(runtime.random_u64());
        Server {
            shared: Rc::new(Shared {
                runtime,
                application,
                limits,
                answers,
                gate: Gate::new(),
                places: RefCell::new(Vec::new()),
                free: RefCell::new(Vec::new()),
                large_bodies_bytes: Cell::new(0),
                stats: Cell::new(ServerStats::default()),
                next_id,
            }),
        }
    }

    /// What it serves.
    pub fn application(&self) -> &A {
        &self.shared.application
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
        let shared = &self.shared;
        shared.runtime.spawn(Queue::Foreground, watch(Rc::clone(shared)));
        let closed = shared.gate.closed();
        let mut closed = std::pin::pin!(closed);
        loop {
            let accept = std::pin::pin!(listener.accept());
            let connection = match select(accept, closed.as_mut()).await {
                Either::Left((accepted, _)) => accepted?,
                Either::Right(_) => return Ok(()),
            };
            self.take(connection);
        }
    }

    /// Serves one connection in a task of its own.
    pub fn take(&self, connection: R::Connection) {
        let shared = &self.shared;
        let Ok(pass) = shared.gate.enter() else { return };
        if shared.stats.get().open >= shared.limits.connections as u64 {
            shared.count(|stats| stats.refused += 1);
            return;
        }
        shared.count(|stats| {
            stats.accepted += 1;
            stats.open += 1;
        });
        shared.runtime.spawn(
            Queue::Foreground,
            serve_connection(Rc::clone(shared), connection, pass),
        );
    }

    /// Stops accepting and resolves when every connection has ended; those that are still busy after
    /// [`Limits::drain`] are shut down.
    pub async fn drain(&self) {
        let shared = &self.shared;
        let left = std::pin::pin!(shared.gate.close());
        shared.shut_down(|place| place.doing.get() == Doing::Idle);
        let patience = std::pin::pin!(shared.runtime.sleep(shared.limits.linger));
        let Either::Right(((), left)) = select(left, patience).await else {
            return;
        };
        shared.shut_down(|place| matches!(place.doing.get(), Doing::Idle | Doing::Receiving));
        let patience = shared.limits.drain.saturating_sub(shared.limits.linger);
        let patience = std::pin::pin!(shared.runtime.sleep(patience));
        if let Either::Right(((), left)) = select(left, patience).await {
            shared.shut_down(|_| true);
            let patience = std::pin::pin!(shared.runtime.sleep(shared.limits.linger));
            select(left, patience).await;
        }
    }
}

impl<R: Runtime, A: Application> Shared<R, A> {
    fn count(&self, change: impl FnOnce(&mut ServerStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    fn exchange(&self, after: After, received: Moment) -> Exchange {
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1));
        Exchange {
            id: RequestId::spread(id),
            after,
            received,
        }
    }

    /// Shuts down the connections chosen; their tasks end by themselves. Returns how many.
    fn shut_down(&self, chosen: impl Fn(&Place<R::Connection>) -> bool) -> u64 {
        let mut count = 0;
        for place in self
            .places
            .borrow()
            .iter()
            .flatten()
            .filter(|place| chosen(place))
        {
            place.connection.shutdown();
            count += 1;
        }
        count
    }

    fn is_late(&self, place: &Place<R::Connection>, now: Moment) -> bool {
        let limits = &self.limits;
        let allowed = match place.doing.get() {
            Doing::Idle => limits.idle,
            Doing::Receiving => {
                limits.receive + Duration::from_secs((place.received.get() / (64 * 1024)) as u64)
            }
            Doing::Executing => return false,
            Doing::Sending if place.charged.get() && self.answers.is_tight() => TIGHT_SEND_MAX,
            Doing::Sending => limits.send,
            Doing::Lingering => limits.linger,
        };
        now.since(place.since.get()) > allowed
    }

    fn reserve_body(&self, bytes: usize) -> bool {
        let taken = self.large_bodies_bytes.get() + bytes;
        let fits = taken <= self.limits.large_bodies_bytes;
        if fits {
            self.large_bodies_bytes.set(taken);
        }
        fits
    }

    fn release_body(&self, bytes: usize) {
        self.large_bodies_bytes.set(self.large_bodies_bytes.get() - bytes);
    }
}

/// The watchdog: ends with the server's last connection once it drains.
async fn watch<R: Runtime, A: Application>(shared: Rc<Shared<R, A>>) {
    while !shared.gate.is_closed() || shared.stats.get().open > 0 {
        shared.runtime.sleep(WATCHDOG_PERIOD).await;
        let now = shared.runtime.now();
        let late = shared.shut_down(|place| shared.is_late(place, now));
        shared.count(|stats| stats.timed_out += late);
    }
}

/// A connection's place among those that the watchdog sees, until dropped.
struct Seat<R: Runtime, A: Application> {
    shared: Rc<Shared<R, A>>,
    place: Rc<Place<R::Connection>>,
    index: usize,
    /// Bytes reserved for a large body.
    reserved: Cell<usize>,
    /// What is answered instead of receiving a large body; empty when it may be received.
    refusal: RefCell<Vec<u8>>,
    _pass: Pass,
}

impl<R: Runtime, A: Application> Seat<R, A> {
    fn new(shared: Rc<Shared<R, A>>, connection: R::Connection, pass: Pass) -> Seat<R, A> {
        let place = Rc::new(Place {
            connection,
            doing: Cell::new(Doing::Idle),
            since: Cell::new(shared.runtime.now()),
            received: Cell::new(0),
            charged: Cell::new(false),
        });
        let mut places = shared.places.borrow_mut();
        let index = shared.free.borrow_mut().pop().unwrap_or_else(|| {
            places.push(None);
            places.len() - 1
        });
        places[index] = Some(Rc::clone(&place));
        drop(places);
        Seat {
            shared,
            place,
            index,
            reserved: Cell::new(0),
            refusal: RefCell::default(),
            _pass: pass,
        }
    }

    /// Notes whether a body may become large.
    fn judge(&self, head: &Head<'_, '_>, received: Moment) {
        let exchange = self.shared.exchange(After::Close, received);
        let mut refusal = self.refusal.borrow_mut();
        refusal.clear();
        self.shared.application.turn_away(head, exchange, &mut refusal);
    }

    fn release_body(&self) {
        self.shared.release_body(self.reserved.take());
        self.refusal.take();
    }

    /// Reserves room for a large request that has `bytes` bytes so far or announces as many.
    fn reserve_body(&self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.reserved.get());
        if more == 0 {
            return true;
        }
        let fits = self.shared.reserve_body(more);
        if fits {
            self.reserved.set(self.reserved.get() + more);
        }
        fits
    }
}

impl<R: Runtime, A: Application> Drop for Seat<R, A> {
    fn drop(&mut self) {
        self.release_body();
        self.shared.places.borrow_mut()[self.index] = None;
        self.shared.free.borrow_mut().push(self.index);
        self.shared.count(|stats| stats.open -= 1);
    }
}

async fn serve_connection<R: Runtime, A: Application>(
    shared: Rc<Shared<R, A>>,
    connection: R::Connection,
    pass: Pass,
) {
    let seat = Seat::new(shared, connection.clone(), pass);
    // An error here is a connection that is gone; whoever was on it knows.
    if converse(&seat, &connection).await.unwrap_or(false) {
        linger(&seat, &connection).await;
    }
    connection.shutdown();
}

/// Answers requests until the connection ends. True when the client may still be sending.
async fn converse<R: Runtime, A: Application>(
    seat: &Seat<R, A>,
    connection: &R::Connection,
) -> std::io::Result<bool> {
    let Seat { shared, place, .. } = seat;
    let mut input = Vec::new();
    let mut output = Vec::new();
    let mut decoder = Decoder::default();
    loop {
        match connection.receive(&mut input).await {
            Ok(0) | Err(_) => return Ok(false),
            Ok(_) => {}
        }
        let mut received = shared.runtime.now();
        if place.doing.get() == Doing::Idle {
            place.now_doing(Doing::Receiving, received);
        }
        let mut start = 0;
        let close = loop {
            match advance(seat, &mut decoder, &mut input[start..], received, &mut output).await {
                Advance::Answered { consumed } => {
                    start += consumed;
                    if start == input.len() {
                        break None;
                    }
                    received = shared.runtime.now();
                    if output.len() >= BATCH_BYTES {
                        output = send(seat, connection, output, received).await?;
                        received = shared.runtime.now();
                    }
                    place.now_doing(Doing::Receiving, received);
                }
                Advance::Waiting { total } => {
                    // A known length is reserved at once, not grown into.
                    input.reserve((start + total).saturating_sub(input.len()));
                    break None;
                }
                Advance::Last { linger } => break Some(linger),
            }
        };
        if !output.is_empty() {
            output = send(seat, connection, output, received).await?;
        }
        if let Some(linger) = close {
            return Ok(linger);
        }
        input.drain(..start);
        if decoder.is_within() || !input.is_empty() {
            place.received.set(input.len());
            if start > 0 || place.doing.get() == Doing::Sending {
                place.now_doing(Doing::Receiving, shared.runtime.now());
            }
            continue;
        }
        if shared.gate.is_closed() {
            return Ok(false);
        }
        if input.capacity() > BUFFER_BYTES_KEPT {
            input = Vec::new();
        }
        if output.capacity() > BUFFER_BYTES_KEPT {
            output = Vec::new();
        }
        place.received.set(0);
        place.now_doing(Doing::Idle, received);
    }
}

/// Sends answers, which are charged while that lasts.
async fn send<R: Runtime, A: Application>(
    seat: &Seat<R, A>,
    connection: &R::Connection,
    output: Vec<u8>,
    now: Moment,
) -> std::io::Result<Vec<u8>> {
    let place = &seat.place;
    let charge: Option<Charge> =
        (output.len() > LARGE_ANSWER_BYTES).then(|| seat.shared.answers.charge(output.len()));
    place.charged.set(charge.is_some());
    place.now_doing(Doing::Sending, now);
    connection.send(output).await
}

enum Advance {
    /// One request was answered.
    Answered { consumed: usize },
    /// More bytes are needed.
    Waiting { total: usize },
    /// The last answer was given; whether the client may still be sending.
    Last { linger: bool },
}

/// Takes one step with what has arrived.
async fn advance<R: Runtime, A: Application>(
    seat: &Seat<R, A>,
    decoder: &mut Decoder,
    input: &mut [u8],
    received: Moment,
    output: &mut Vec<u8>,
) -> Advance {
    let shared = &seat.shared;
    let application = &shared.application;
    let (answer, after, consumed) = loop {
        let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let joined = decoder.join(input);
        match joined.and_then(|()| decoder.decode(&*input, &mut room)) {
            Ok(Progress::Complete(request)) => {
                let after = match (
                    request.head.keep_alive && !shared.gate.is_closed(),
                    request.head.old,
                ) {
                    (false, _) => After::Close,
                    (true, false) => After::Keep,
                    (true, true) => After::KeepSaid,
                };
                seat.place.doing.set(Doing::Executing);
                let exchange = shared.exchange(after, received);
                break (
                    application.answer(&request, exchange, output),
                    after,
                    request.consumed,
                );
            }
            Ok(Progress::Chunked { head }) => {
                seat.judge(&head, received);
                if head.expects_continue {
                    output.extend_from_slice(CONTINUE);
                }
            }
            Ok(Progress::Incomplete { total, head }) => {
                let bytes = total.max(input.len());
                if bytes > LARGE_BODY_BYTES {
                    if let Some(head) = &head {
                        seat.judge(head, received);
                    }
                    let refusal = seat.refusal.borrow();
                    if !refusal.is_empty() {
                        output.extend_from_slice(&refusal);
                        return Advance::Last { linger: true };
                    }
                    if !seat.reserve_body(bytes) {
                        application.overloaded(shared.exchange(After::Close, received), output);
                        return Advance::Last { linger: true };
                    }
                }
                if head.is_some_and(|head| head.expects_continue) {
                    output.extend_from_slice(CONTINUE);
                }
                return Advance::Waiting { total };
            }
            Err(malformed) => {
                shared.count(|stats| stats.malformed += 1);
                application.refuse(malformed, shared.exchange(After::Close, received), output);
                return Advance::Last { linger: true };
            }
        }
    };
    answer.await;
    seat.release_body();
    if after == After::Close {
        Advance::Last {
            linger: consumed < input.len(),
        }
    } else {
        Advance::Answered { consumed }
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Reads and discards until the client has read the last answer and closed, or the watchdog has enough.
async fn linger<R: Runtime, A: Application>(seat: &Seat<R, A>, connection: &R::Connection) {
    seat.place.now_doing(Doing::Lingering, seat.shared.runtime.now());
    let mut discarded = Vec::new();
    let mut bytes = 0;
    while let Ok(count @ 1..) = connection.receive(&mut discarded).await {
        bytes += count;
        discarded.clear();
        if bytes > LINGER_BYTES_MAX {
            return;
        }
    }
}
