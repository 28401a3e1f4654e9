//! One connection: a writer task that gathers requests into as few sends as there is load, and a reader task that
//! hands each answer to its caller.
//!
//! Invariant: a request's reply is registered before its bytes can leave, and every registered reply is resolved:
//! by an answer, or with [`Lost`] when the connection ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Error, Options};
use crate::VERSION;
use crate::frame::{self, Kind};
use crate::handshake::{Challenge, Hello, PROOF_BYTES, Proof, Refused, Transcript, Welcome, proofs_match};
use crate::message::{Failure, Request};

/// Bytes of requests gathered into one send.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Bytes asked of the socket at a time.
const RECEIVE_BYTES: usize = 64 * 1024;

/// An answer.
pub(super) enum Reply {
    /// The body of a response.
    Response(Vec<u8>),
    /// The request failed.
    Failure(Failure),
}

/// Why there was no answer.
#[derive(Debug, Clone)]
pub(super) enum Lost {
    /// The request never left: it can be sent again.
    Unsent(Arc<str>),
    /// The request may have been carried out.
    Sent(Arc<str>),
    /// The request does not fit a frame.
    TooLong(Arc<str>),
}

type Waiter = oneshot::Sender<Result<Reply, Lost>>;

struct Outgoing {
    frame: Vec<u8>,
    id: u64,
    waiter: Waiter,
}

/// A handle; the tasks end when the last one is dropped or the peer closes.
#[derive(Clone)]
pub(super) struct Connection {
    outgoing: mpsc::Sender<Outgoing>,
    window: Arc<Semaphore>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Set under the lock of `waiting`: what is registered there before may have left, nothing leaves after.
    closed: AtomicBool,
    next_id: std::sync::atomic::AtomicU64,
    waiting: Mutex<BTreeMap<u64, Waiter>>,
}

impl State {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiter>> {
        // Insertions and removals are single calls, so a panic elsewhere leaves the map whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    fn close(&self, reason: &str) {
        let waiting = {
            let mut waiting = self.waiting();
            self.closed.store(true, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        let reason: Arc<str> = reason.into();
        for (_, waiter) in waiting {
            // A caller that gave up does not listen any more.
            let _ = waiter.send(Err(Lost::Sent(reason.clone())));
        }
    }
}

impl Connection {
    pub(super) fn is_open(&self) -> bool {
        self.state.is_open()
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn request(&self, request: &Request<'_>) -> Result<Reply, Lost> {
        let unsent = || Lost::Unsent("the connection was closed".into());
        let _in_window = self.window.acquire().await.map_err(|_| unsent())?;
        let id = self.state.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut frame = Vec::with_capacity(256);
        if let Err(error) = frame::try_encode(&mut frame, Kind::Request, id, |into| request.encode(into)) {
            return Err(Lost::TooLong(error.to_string().into()));
        }
        let (waiter, reply) = oneshot::channel();
        self.outgoing
            .send(Outgoing { frame, id, waiter })
            .await
            .map_err(|_| unsent())?;
        // The writer drops what it had not begun to send.
        reply.await.unwrap_or_else(|_| Err(unsent()))
    }
}

/// Opens a connection and carries out the handshake.
pub(super) async fn open(address: &str, options: &Options) -> Result<(Connection, Welcome), Error> {
    let unreachable = |reason: String| Error::Unreachable {
        address: address.to_owned(),
        reason,
    };
    match timeout(options.connect_timeout, connect(address, options)).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(Handshake::Io(error))) => Err(unreachable(error.to_string())),
        Ok(Err(Handshake::Refused(refused))) => Err(Error::Refused {
            address: address.to_owned(),
            name: refused.name,
            message: refused.message,
        }),
        Ok(Err(Handshake::Protocol(what))) => Err(Error::Protocol(what)),
        Err(_) => Err(unreachable(format!(
            "no handshake within {:?}",
            options.connect_timeout
        ))),
    }
}

enum Handshake {
    Io(std::io::Error),
    Refused(Refused),
    Protocol(String),
}

impl From<std::io::Error> for Handshake {
    fn from(error: std::io::Error) -> Handshake {
        Handshake::Io(error)
    }
}

async fn connect(address: &str, options: &Options) -> Result<(Connection, Welcome), Handshake> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.into_split();
    let mut received = Vec::with_capacity(RECEIVE_BYTES);

    let mut nonce = [0; PROOF_BYTES];
    aws_lc_rs::rand::fill(&mut nonce)
        .map_err(|_| Handshake::Protocol("the system has no randomness for a nonce".into()))?;
    let (access_key, secret) = match &options.credentials {
        Some(credentials) => (
            credentials.access_key.as_str(),
            Some(credentials.secret.as_bytes()),
        ),
        None => ("", None),
    };
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        features: 0,
        nonce,
        access_key,
    };
    send(&mut to, Kind::Hello, |into| hello.encode(into)).await?;

    let challenge = expect(&mut from, &mut received, Kind::Challenge, |body| {
        Challenge::decode(body)
    })
    .await?;
    let transcript = Transcript {
        client_nonce: &nonce,
        node_nonce: &challenge.nonce,
        access_key: hello.access_key,
    };
    let proof = secret.map(|secret| transcript.client_proof(secret));
    let proof = proof.as_ref().map_or(&[][..], |proof| proof);
    send(&mut to, Kind::Proof, |into| Proof(proof).encode(into)).await?;

    let welcome = expect(&mut from, &mut received, Kind::Welcome, |body| {
        Welcome::decode(body)
    })
    .await?;
    // Whatever the node says it requires: an impostor would say that it requires nothing.
    if let Some(secret) = secret
        && !proofs_match(&transcript.node_proof(secret), &welcome.proof)
    {
        return Err(Handshake::Protocol(
            "the node does not know the secret: it is not the one we mean".into(),
        ));
    }

    let state = Arc::new(State::default());
    let window = usize::try_from(challenge.window)
        .unwrap_or(1)
        .clamp(1, Semaphore::MAX_PERMITS);
    let (outgoing, requests) = mpsc::channel(window);
    tokio::spawn(read_loop(from, received, state.clone()));
    tokio::spawn(write_loop(to, requests, state.clone()));
    Ok((
        Connection {
            outgoing,
            window: Arc::new(Semaphore::new(window)),
            state,
        },
        welcome,
    ))
}

async fn send(to: &mut OwnedWriteHalf, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, kind, 0, write);
    to.write_all(&bytes).await
}

async fn expect<T>(
    from: &mut OwnedReadHalf,
    received: &mut Vec<u8>,
    kind: Kind,
    decode: impl Fn(&[u8]) -> Result<T, crate::wire::WireError>,
) -> Result<T, Handshake> {
    let protocol = |error: &dyn std::fmt::Display| Handshake::Protocol(error.to_string());
    loop {
        if let Some((frame, taken)) = frame::decode(received).map_err(|error| protocol(&error))? {
            if frame.kind == Kind::Refused {
                let refused = Refused::decode(frame.body).map_err(|error| protocol(&error))?;
                return Err(Handshake::Refused(refused));
            }
            if frame.kind != kind {
                return Err(Handshake::Protocol(format!(
                    "{kind:?} was due, {:?} came",
                    frame.kind
                )));
            }
            let message = decode(frame.body).map_err(|error| protocol(&error))?;
            received.drain(..taken);
            return Ok(message);
        }
        if from.read_buf(received).await? == 0 {
            return Err(Handshake::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

async fn write_loop(mut to: OwnedWriteHalf, mut requests: mpsc::Receiver<Outgoing>, state: Arc<State>) {
    let mut bytes = Vec::with_capacity(SEND_BYTES_MAX);
    while let Some(first) = requests.recv().await {
        bytes.clear();
        let mut next = Some(first);
        {
            let mut waiting = state.waiting();
            if !state.is_open() {
                // Nothing of this batch leaves, nor of what waits behind it: whose waiter is dropped is told so.
                return;
            }
            while let Some(request) = next {
                bytes.extend_from_slice(&request.frame);
                waiting.insert(request.id, request.waiter);
                next = if bytes.len() < SEND_BYTES_MAX {
                    requests.try_recv().ok()
                } else {
                    None
                };
            }
        }
        if let Err(error) = to.write_all(&bytes).await {
            state.close(&error.to_string());
            return;
        }
    }
    state.close("the client was dropped");
}

async fn read_loop(mut from: OwnedReadHalf, mut received: Vec<u8>, state: Arc<State>) {
    let reason = loop {
        let mut taken = 0;
        let outcome = loop {
            match frame::decode(&received[taken..]) {
                Ok(Some((frame, bytes))) => {
                    if let Err(reason) = deliver(&frame, &state) {
                        break Err(reason);
                    }
                    taken += bytes;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        received.drain(..taken);
        if let Err(reason) = outcome {
            break reason;
        }
        received.reserve(RECEIVE_BYTES);
        match from.read_buf(&mut received).await {
            Ok(0) => break "the node closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    state.close(&reason);
}

fn deliver(frame: &frame::Frame<'_>, state: &State) -> Result<(), String> {
    let reply = match frame.kind {
        Kind::Response => Reply::Response(frame.body.to_vec()),
        Kind::Failure => Reply::Failure(Failure::decode(frame.body).map_err(|error| error.to_string())?),
        Kind::Refused => {
            return Err(
                Refused::decode(frame.body).map_or_else(|error| error.to_string(), |it| it.to_string())
            );
        }
        other => return Err(format!("{other:?} came where an answer was due")),
    };
    let waiter = state.waiting().remove(&frame.request_id);
    match waiter {
        Some(waiter) => {
            // A caller that gave up does not listen any more.
            let _ = waiter.send(Ok(reply));
            Ok(())
        }
        None => Err(format!(
            "an answer to request {}, which nobody waits for",
            frame.request_id
        )),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_comes_after_the_end_has_not_been_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (_from, to) = TcpStream::connect(address)
            .await
            .expect("it listens")
            .into_split();
        let state = Arc::new(State::default());
        let (outgoing, requests) = mpsc::channel(4);
        let mut replies = Vec::new();
        for id in [1, 2] {
            let (waiter, reply) = oneshot::channel();
            let frame = vec![0];
            outgoing.send(Outgoing { frame, id, waiter }).await.expect("room");
            replies.push(reply);
        }
        state.close("the node closed the connection");
        write_loop(to, requests, state).await;
        for reply in replies {
            // A waiter that is dropped is how `Connection::request` learns that its request never left.
            assert!(reply.await.is_err());
        }
    }
}
