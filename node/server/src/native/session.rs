//! One connection: handshake, then requests until it ends.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;

use cairn_protocol::VERSION;
use cairn_protocol::frame::{self, BODY_BYTES_MAX, Frame, Kind};
use cairn_protocol::handshake::{
    Challenge, Hello, PROOF_BYTES, Proof, Refused, Transcript, WELCOME_TABLES_MAX, Welcome, proofs_match,
};
use cairn_protocol::wire::WireError;
use cairn_runtime::sync::{Notify, Permit, Semaphore, timeout};
use cairn_runtime::{Connection, Moment, Queue, Runtime};
use futures_util::future::{Either, select};

use super::{
    HANDSHAKE_BYTES_MAX, HANDSHAKE_MAX, IDLE_PERIODS_MAX, OUTPUT_BYTES_MAX, OWN_BYTES_MAX, PAGES_AT_ONCE_MAX,
    RECEIVE_PERIODS_MAX, SEND_PERIODS_MAX, Shared, TIGHT_SEND_PERIODS_MAX, TIGHT_WINDOW, WINDOW, execute,
};
use crate::answers::{Charge as AnswerCharge, LARGE_ANSWER_BYTES};

/// Buffers that grew beyond this are given back when everything in them is done.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

pub(super) struct Session<R: Runtime> {
    pub(super) shared: Rc<Shared<R>>,
    connection: R::Connection,
    pub(super) output: RefCell<Vec<u8>>,
    in_work: Cell<u32>,
    pages: Semaphore,
    /// Held by the one request that asks for room, so that a connection has one place in the queue of the shard.
    asking: Semaphore,
    /// Rooms of pages being made.
    rooms: Cell<u32>,
    /// Of answers that wait or are being sent, when they are large.
    charge: RefCell<AnswerCharge>,
    /// Bytes being sent.
    sending_bytes: Cell<usize>,
    /// Told when answers have left, or a page has been made.
    drained: Notify,
    /// Bytes of bodies in work that nobody was charged for.
    own_bytes: Cell<usize>,
    reading: Cell<Reading>,
    /// Watchdog periods since the reader got on.
    read_periods: Cell<u32>,
    sending: Cell<bool>,
    /// Watchdog periods since the sender got on.
    send_periods: Cell<u32>,
    /// Told when a request has been answered or answers have left.
    room: Notify,
    /// Told when there is something to send, or the end has come.
    kicked: Notify,
    ended: Cell<bool>,
    /// No further request is begun.
    finishing: Cell<bool>,
}

/// What the reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Nothing that the client does.
    Elsewhere,
    /// The next frame.
    Idle,
    /// The rest of a frame of which so many bytes are there.
    Frame(usize),
}

/// What holds the place of a body in work until it is dropped.
enum Charge<R: Runtime> {
    /// Of the connection's own bytes.
    Own(Rc<Session<R>>, usize),
    /// Of the shard's.
    Shared(#[expect(dead_code, reason = "held, not looked at")] Permit),
}

impl<R: Runtime> Drop for Charge<R> {
    fn drop(&mut self) {
        if let Charge::Own(session, bytes) = self {
            session.own_bytes.set(session.own_bytes.get() - *bytes);
        }
    }
}

/// The turn of a request that may answer with pages, and room for one of them.
pub(super) struct PageTurn<R: Runtime> {
    session: Rc<Session<R>>,
    _turn: Permit,
    _room: AnswerCharge,
}

impl<R: Runtime> Drop for PageTurn<R> {
    fn drop(&mut self) {
        self.session.rooms.set(self.session.rooms.get() - 1);
        self.session.drained.notify_all();
    }
}

/// Why the client is sent away: the error's name and what was wrong.
struct Dismissal {
    name: &'static str,
    message: String,
}

impl Dismissal {
    fn malformed(error: impl std::fmt::Display) -> Dismissal {
        Dismissal {
            name: "SerializationException",
            message: error.to_string(),
        }
    }

    fn unrecognized() -> Dismissal {
        let message = "The security token included in the request is invalid.".to_owned();
        Dismissal {
            name: "UnrecognizedClientException",
            message,
        }
    }
}

impl<R: Runtime> Session<R> {
    pub(super) fn new(shared: Rc<Shared<R>>, connection: R::Connection) -> Session<R> {
        let charge = shared.service.answers().charge(0);
        Session {
            shared,
            connection,
            output: RefCell::default(),
            in_work: Cell::new(0),
            pages: Semaphore::new(PAGES_AT_ONCE_MAX),
            asking: Semaphore::new(1),
            rooms: Cell::new(0),
            charge: RefCell::new(charge),
            sending_bytes: Cell::new(0),
            drained: Notify::new(),
            own_bytes: Cell::new(0),
            reading: Cell::new(Reading::Elsewhere),
            read_periods: Cell::new(0),
            sending: Cell::new(false),
            send_periods: Cell::new(0),
            room: Notify::new(),
            kicked: Notify::new(),
            ended: Cell::new(false),
            finishing: Cell::new(false),
        }
    }

    pub(super) fn peer(&self) -> String {
        self.connection.peer().to_string()
    }

    /// Ends the connection whatever is in work.
    pub(super) fn shutdown(&self) {
        self.ended.set(true);
        self.connection.shutdown();
        self.kicked.notify_one();
        self.room.notify_one();
    }

    /// Counts one period of the watchdog; whether the client has taken too many of them.
    pub(super) fn is_late(&self) -> bool {
        let sends = self.send_periods.get() + 1;
        let reads = self.read_periods.get() + 1;
        self.send_periods.set(sends);
        self.read_periods.set(reads);
        if self.ended.get() {
            return false;
        }
        let tight = self.charge.borrow().bytes() > 0 && self.shared.service.answers().is_tight();
        let sends_max = if tight {
            TIGHT_SEND_PERIODS_MAX
        } else {
            SEND_PERIODS_MAX
        };
        let late_sending = self.sending.get() && sends > sends_max;
        let late_reading = match self.reading.get() {
            Reading::Elsewhere => false,
            Reading::Idle => reads > IDLE_PERIODS_MAX && self.in_work.get() == 0 && !self.sending.get(),
            Reading::Frame(bytes) => reads as usize > RECEIVE_PERIODS_MAX as usize + bytes / (64 * 1024),
        };
        late_sending || late_reading
    }

    fn now_reading(&self, reading: Reading) {
        self.reading.set(reading);
        self.read_periods.set(0);
    }

    /// Ends the connection as soon as nothing is in work.
    pub(super) fn finish(&self) {
        self.finishing.set(true);
        self.kicked.notify_one();
    }

    /// Serves the connection to its end. An error says what the client did wrong.
    pub(super) async fn run(self: &Rc<Session<R>>) -> Result<(), String> {
        let sender = Rc::clone(self);
        self.shared
            .runtime
            .spawn(Queue::Foreground, async move { sender.send_loop().await });
        let mut input = Vec::new();
        let handshake = timeout(&self.shared.runtime, HANDSHAKE_MAX, self.handshake(&mut input)).await;
        let outcome = match handshake {
            Ok(Ok(true)) => self.serve(&mut input).await,
            Ok(Ok(false)) => Ok(()),
            Ok(Err(dismissal)) => Err(dismissal),
            Err(_) => Err(Dismissal::malformed("the handshake took too long")),
        };
        if let Err(Dismissal { name, message }) = &outcome {
            let refused = Refused {
                name: (*name).to_owned(),
                message: message.clone(),
            };
            frame::encode(&mut self.output.borrow_mut(), Kind::Refused, 0, |into| {
                refused.encode(into)
            });
        }
        // What is in work was accepted: it is answered, if the client still listens.
        self.finish();
        while !self.ended.get() {
            self.room.notified().await;
        }
        outcome.map_err(|dismissal| dismissal.message)
    }

    /// Carries out the handshake; false when the client went away.
    async fn handshake(&self, input: &mut Vec<u8>) -> Result<bool, Dismissal> {
        let shared = &self.shared;
        let Some((access_key, client_nonce)) = self.expect(input, Kind::Hello, accept_hello).await? else {
            return Ok(false);
        };
        let mut nonce = [0; PROOF_BYTES];
        shared.runtime.random_secret(&mut nonce);
        let credentials = shared.credentials.as_ref();
        let challenge = Challenge {
            version: VERSION,
            features: 0,
            nonce,
            proof_required: credentials.is_some(),
            body_bytes_max: u32::try_from(BODY_BYTES_MAX).expect("16 MiB"),
            window: WINDOW,
        };
        frame::encode(&mut self.output.borrow_mut(), Kind::Challenge, 0, |into| {
            challenge.encode(into)
        });
        self.kicked.notify_one();
        let given = self
            .expect(input, Kind::Proof, |body| Ok(Proof::decode(body)?.0.to_vec()))
            .await?;
        let Some(given) = given else { return Ok(false) };

        let transcript = Transcript {
            client_nonce: &client_nonce,
            node_nonce: &nonce,
            access_key: &access_key,
        };
        let mut proof = [0; PROOF_BYTES];
        if let Some(credentials) = credentials {
            // An unknown key is compared all the same, so that time does not tell which keys exist.
            let known = credentials.secret(&access_key);
            let secret = known.map_or(&b""[..], |secret| secret.expose().as_bytes());
            let matches = proofs_match(&transcript.client_proof(secret), &given);
            if known.is_none() || !matches {
                return Err(Dismissal::unrecognized());
            }
            proof = transcript.node_proof(secret);
        }
        let tables = shared.service.tables();
        let complete = tables.len() <= WELCOME_TABLES_MAX;
        let described = tables
            .iter()
            .take(WELCOME_TABLES_MAX)
            .map(|table| execute::describe(table))
            .collect();
        let catalog_version = tables
            .iter()
            .map(|table| table.definition().version)
            .max()
            .unwrap_or(0);
        let node = shared.service.node().0.to_be_bytes();
        let welcome = Welcome {
            proof,
            node,
            catalog_version,
            complete,
            tables: described,
        };
        frame::encode(&mut self.output.borrow_mut(), Kind::Welcome, 0, |into| {
            welcome.encode(into)
        });
        self.kicked.notify_one();
        Ok(true)
    }

    /// The next frame, which must be of `kind`; none when the client went away.
    async fn expect<T>(
        &self,
        input: &mut Vec<u8>,
        kind: Kind,
        accept: impl Fn(&[u8]) -> Result<T, Dismissal>,
    ) -> Result<Option<T>, Dismissal> {
        loop {
            if frame::announced(input).is_some_and(|bytes| bytes > HANDSHAKE_BYTES_MAX) {
                return Err(Dismissal::malformed("a frame of the handshake is too long"));
            }
            if let Some((frame, taken)) = frame::decode(input).map_err(Dismissal::malformed)? {
                if frame.kind != kind {
                    let message = format!("{kind:?} was due, {:?} came", frame.kind);
                    return Err(Dismissal::malformed(message));
                }
                let accepted = accept(frame.body)?;
                input.drain(..taken);
                return Ok(Some(accepted));
            }
            match self.connection.receive(input).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    async fn serve(self: &Rc<Session<R>>, input: &mut Vec<u8>) -> Result<(), Dismissal> {
        // What the frame that is being received has been charged for.
        let mut reserved = None;
        loop {
            let received = self.shared.runtime.now();
            let before = self.reading.replace(Reading::Elsewhere);
            let mut taken = 0;
            loop {
                while self.is_full() {
                    self.kicked.notify_one();
                    self.room.notified().await;
                }
                if self.ended.get() || self.finishing.get() {
                    return Ok(());
                }
                match frame::decode(&input[taken..]).map_err(Dismissal::malformed)? {
                    None => break,
                    Some((frame, bytes)) => {
                        self.begin(&frame, received, reserved.take()).await?;
                        taken += bytes;
                    }
                }
            }
            input.drain(..taken);
            // What a large frame needed is given back at once; the rest of a burst is not worth a copy each time.
            let kept = if input.is_empty() {
                BUFFER_BYTES_KEPT
            } else {
                4 * BUFFER_BYTES_KEPT
            };
            if input.len() < BUFFER_BYTES_KEPT && input.capacity() > kept && reserved.is_none() {
                input.shrink_to(0);
            }
            self.kicked.notify_one();
            let announced = frame::announced(input).unwrap_or(0);
            if announced > OWN_BYTES_MAX && reserved.is_none() {
                reserved = self.body_permit(announced).await;
                if reserved.is_none() {
                    return Ok(());
                }
                input.reserve(announced - input.len());
                self.now_reading(Reading::Frame(input.len()));
            } else if input.is_empty() {
                self.now_reading(Reading::Idle);
            } else if taken == 0 && matches!(before, Reading::Frame(_)) {
                self.reading.set(Reading::Frame(input.len()));
            } else {
                self.now_reading(Reading::Frame(input.len()));
            }
            match self.connection.receive(input).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {}
            }
        }
    }

    /// Waits until an answer of a megabyte and more may be made; none when the connection has ended, and nobody will read it.
    pub(super) async fn page_turn(self: &Rc<Session<R>>) -> Option<PageTurn<R>> {
        let turn = self.pages.acquire(1).await;
        let _asking = self.asking.acquire(1).await;
        while self.has_enough() {
            self.drained.notified().await;
        }
        let room = self.shared.service.answers().page().await;
        self.rooms.set(self.rooms.get() + 1);
        let turn = PageTurn {
            session: Rc::clone(self),
            _turn: turn,
            _room: room,
        };
        (!self.ended.get()).then_some(turn)
    }

    /// Whether no page is made until the client has taken more of what there is.
    fn has_enough(&self) -> bool {
        let waiting = self.output.borrow().len();
        let enough = if self.shared.service.answers().is_tight() {
            self.rooms.get() > 0 || waiting + self.sending_bytes.get() > LARGE_ANSWER_BYTES
        } else {
            waiting >= OUTPUT_BYTES_MAX
        };
        enough && !self.ended.get()
    }

    /// Charges what there is to send; when the connection has ended that is nothing, whatever is still in work.
    fn account(&self) {
        if self.ended.get() {
            *self.output.borrow_mut() = Vec::new();
        }
        let bytes = self.output.borrow().len() + self.sending_bytes.get();
        let charged = if bytes > LARGE_ANSWER_BYTES { bytes } else { 0 };
        self.charge.borrow_mut().resize(charged);
    }

    fn is_full(&self) -> bool {
        let (window, bytes_max) = if self.shared.service.answers().is_tight() {
            (TIGHT_WINDOW, LARGE_ANSWER_BYTES)
        } else {
            (WINDOW, OUTPUT_BYTES_MAX)
        };
        let full = self.in_work.get() >= window || self.output.borrow().len() >= bytes_max;
        full && !self.ended.get()
    }

    /// Waits for so many of the shard's bytes; none when the connection ends first.
    async fn body_permit(&self, bytes: usize) -> Option<Permit> {
        let mut acquire = pin!(self.shared.bodies.acquire(bytes));
        while !self.ended.get() {
            let told = pin!(self.room.notified());
            if let Either::Left((permit, _)) = select(acquire.as_mut(), told).await {
                return Some(permit);
            }
        }
        None
    }

    /// A place for a body; waits until there is one. None when the connection ends first.
    async fn charge(self: &Rc<Session<R>>, bytes: usize) -> Option<Charge<R>> {
        let own = self.own_bytes.get() + bytes;
        if own <= OWN_BYTES_MAX {
            self.own_bytes.set(own);
            return Some(Charge::Own(Rc::clone(self), bytes));
        }
        if let Some(permit) = self.shared.bodies.try_acquire(bytes) {
            return Some(Charge::Shared(permit));
        }
        self.kicked.notify_one();
        self.body_permit(bytes).await.map(Charge::Shared)
    }

    async fn begin(
        self: &Rc<Session<R>>,
        frame: &Frame<'_>,
        received: Moment,
        reserved: Option<Permit>,
    ) -> Result<(), Dismissal> {
        if frame.kind != Kind::Request {
            let message = format!("{:?} came where a request was due", frame.kind);
            return Err(Dismissal::malformed(message));
        }
        let arrival = execute::Arrival {
            id: frame.request_id,
            received,
        };
        if execute::at_once(&self.shared, arrival, frame.body, &mut self.output.borrow_mut()) {
            return Ok(());
        }
        let charge = match reserved {
            Some(permit) => Some(Charge::Shared(permit)),
            None => self.charge(frame.body.len()).await,
        };
        let Some(charge) = charge else { return Ok(()) };
        self.in_work.set(self.in_work.get() + 1);
        let (session, body) = (Rc::clone(self), frame.body.to_vec());
        self.shared.runtime.spawn(Queue::Foreground, async move {
            execute::execute(&session, arrival, &body).await;
            session.account();
            drop((body, charge));
            session.in_work.set(session.in_work.get() - 1);
            session.kicked.notify_one();
            session.room.notify_one();
        });
        Ok(())
    }

    async fn send_loop(&self) {
        while !self.ended.get() {
            let bytes = std::mem::take(&mut *self.output.borrow_mut());
            if !bytes.is_empty() {
                self.drained.notify_all();
                self.send_periods.set(0);
                self.sending.set(true);
                self.sending_bytes.set(bytes.len());
                self.account();
                let sent = self.connection.send(bytes).await;
                self.sending_bytes.set(0);
                self.account();
                self.drained.notify_all();
                let Ok(mut spare) = sent else {
                    break;
                };
                self.sending.set(false);
                if spare.capacity() > BUFFER_BYTES_KEPT {
                    spare = Vec::new();
                }
                let mut output = self.output.borrow_mut();
                if output.is_empty() {
                    *output = spare;
                }
                self.room.notify_one();
            } else if self.finishing.get() && self.in_work.get() == 0 {
                break;
            } else {
                self.kicked.notified().await;
            }
        }
        self.ended.set(true);
        self.account();
        self.room.notify_one();
        self.drained.notify_all();
        // The reader may wait for bytes that will not come.
        self.connection.shutdown();
    }
}

impl From<WireError> for Dismissal {
    fn from(error: WireError) -> Dismissal {
        Dismissal::malformed(error)
    }
}

fn accept_hello(body: &[u8]) -> Result<(String, [u8; PROOF_BYTES]), Dismissal> {
    let hello = Hello::decode(body)?;
    if hello.version().is_none() {
        let message = format!(
            "the client speaks versions {} to {} of the native protocol, this node version {VERSION}",
            hello.version_min, hello.version_max
        );
        return Err(Dismissal::malformed(message));
    }
    Ok((hello.access_key.to_owned(), hello.nonce))
}
