//! TCP through the shard ring: one multishot receive per connection, one multishot accept per listener.
//!
//! Invariants:
//! - A socket's descriptor is closed only after the last operation on it has completed; the slab holds it until
//!   then, so its number cannot name another socket meanwhile.
//! - What has arrived is kept in order, in the kernel's buffers while those are plentiful, else copied, so that
//!   connections that are slow to read never starve the others of buffers.
//! - At most about [`RECEIVE_AHEAD_BYTES_MAX`] is received before it is asked for: then the receive is cancelled,
//!   and armed again when the reader has caught up. TCP does the rest.
//! - A dropped receive or accept future loses nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use io_uring::cqueue::buffer_select;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::real::ring::{Key, Outcome, Resource, Ring, Sink, descriptor};
use crate::real::timers::{Sleep, Timers};
use crate::{Connection, Listener};

/// Bytes of one connection received ahead of its reader: several requests of usual size, or most of one item of
/// the greatest size.
const RECEIVE_AHEAD_BYTES_MAX: usize = 256 << 10;

/// Connections accepted ahead of the listener's user.
const ACCEPT_AHEAD_MAX: usize = 256;

/// Pause of a listener when descriptors or memory have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel completes before they are accepted; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A TCP connection on the shard that accepted or opened it.
#[derive(Clone)]
pub struct RealConnection {
    handle: Rc<Handle>,
}

/// What clones of a connection share; dropped with the last of them.
struct Handle {
    ring: Rc<Ring>,
    socket: Rc<Socket>,
}

/// What the ring knows of a connection.
struct Socket {
    descriptor: Rc<OwnedFd>,
    peer: SocketAddr,
    inbound: RefCell<Inbound>,
}

#[derive(Default)]
struct Inbound {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks`.
    bytes: usize,
    end: Option<End>,
    armed: Option<Key>,
    cancelled: bool,
    /// The connection is closed: what still arrives is dropped.
    orphan: bool,
    waker: Option<Waker>,
}

enum Chunk {
    Provided { buffer: u16, bytes: usize },
    Copied(Vec<u8>),
}

#[derive(Clone, Copy)]
enum End {
    Peer,
    Error(i32),
}

impl RealConnection {
    fn new(ring: Rc<Ring>, descriptor: OwnedFd, peer: SocketAddr) -> RealConnection {
        let (descriptor, inbound) = (Rc::new(descriptor), RefCell::default());
        let socket = Rc::new(Socket {
            descriptor,
            peer,
            inbound,
        });
        RealConnection {
            handle: Rc::new(Handle { ring, socket }),
        }
    }
}

impl Connection for RealConnection {
    fn receive(&self, into: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |context| {
            let Handle { ring, socket } = &*self.handle;
            let mut inbound = socket.inbound.borrow_mut();
            if !inbound.chunks.is_empty() {
                return Poll::Ready(Ok(inbound.take(ring, into)));
            }
            match inbound.end {
                Some(End::Peer) => return Poll::Ready(Ok(0)),
                Some(End::Error(error)) => return Poll::Ready(Err(io::Error::from_raw_os_error(error))),
                None => {}
            }
            match &mut inbound.waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => inbound.waker = Some(context.waker().clone()),
            }
            if inbound.armed.is_none()
                && let Err(error) = socket.arm(ring, &mut inbound)
            {
                return Poll::Ready(Err(error));
            }
            Poll::Pending
        })
    }

    fn send(&self, bytes: Vec<u8>) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        let handle = Rc::clone(&self.handle);
        let mut bytes = bytes;
        async move {
            let mut sent = 0;
            while sent < bytes.len() {
                let sending = handle
                    .ring
                    .send(Rc::clone(&handle.socket.descriptor), bytes, sent)?;
                let Outcome { result, resource } = sending.await;
                let Resource::Send { bytes: returned, .. } = resource else {
                    unreachable!("a send lends its bytes")
                };
                bytes = returned;
                match result {
                    Ok(count) => sent += usize::try_from(count).expect("a success is not negative"),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            bytes.clear();
            Ok(bytes)
        }
    }

    fn shutdown(&self) {
        // Fails only when the connection is already down. Operations in the kernel resolve by themselves.
        let _ = rustix::net::shutdown(&self.handle.socket.descriptor, rustix::net::Shutdown::Both);
    }

    fn peer(&self) -> SocketAddr {
        self.handle.socket.peer
    }
}

impl fmt::Debug for RealConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RealConnection({})", self.handle.socket.peer)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut inbound = self.socket.inbound.borrow_mut();
        inbound.orphan = true;
        inbound.discard(&self.ring);
        inbound.waker = None;
        if let Some(key) = inbound.armed
            && !mem::replace(&mut inbound.cancelled, true)
        {
            self.ring.cancel(key);
        }
    }
}

impl Inbound {
    /// Moves everything that has arrived to `into`; gives its length.
    fn take(&mut self, ring: &Ring, into: &mut Vec<u8>) -> usize {
        let taken = mem::take(&mut self.bytes);
        into.reserve(taken);
        for chunk in self.chunks.drain(..) {
            match chunk {
                Chunk::Provided { buffer, bytes } => {
                    ring.provided().copy(buffer, bytes, into);
                    ring.provided().give_back(buffer);
                }
                Chunk::Copied(content) => into.extend_from_slice(&content),
            }
        }
        taken
    }

    fn discard(&mut self, ring: &Ring) {
        self.bytes = 0;
        for chunk in self.chunks.drain(..) {
            if let Chunk::Provided { buffer, .. } = chunk {
                ring.provided().give_back(buffer);
            }
        }
    }

    /// Keeps what the kernel has put into `buffer`.
    fn keep(&mut self, ring: &Ring, buffer: u16, bytes: usize) {
        let provided = ring.provided();
        provided.lend();
        if self.orphan || bytes == 0 {
            provided.give_back(buffer);
            return;
        }
        self.bytes += bytes;
        if provided.scarce() {
            let mut content = Vec::with_capacity(bytes);
            provided.copy(buffer, bytes, &mut content);
            provided.give_back(buffer);
            self.chunks.push_back(Chunk::Copied(content));
        } else {
            self.chunks.push_back(Chunk::Provided { buffer, bytes });
        }
    }
}

impl Socket {
    fn arm(self: &Rc<Socket>, ring: &Ring, inbound: &mut Inbound) -> io::Result<()> {
        let sink: Rc<dyn Sink> = Rc::clone(self) as Rc<dyn Sink>;
        inbound.armed = Some(ring.receive(&self.descriptor, sink)?);
        inbound.cancelled = false;
        Ok(())
    }
}

impl Sink for Socket {
    fn completed(self: Rc<Socket>, ring: &Rc<Ring>, result: i32, flags: u32, last: bool) {
        let waker = {
            let mut inbound = self.inbound.borrow_mut();
            if let Some(buffer) = buffer_select(flags) {
                inbound.keep(ring, buffer, usize::try_from(result).unwrap_or(0));
            }
            match -result {
                0 => inbound.end = Some(End::Peer),
                // Not ends: the receive was ours to cancel, or is armed again below.
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                libc::ENOBUFS => ring.count(|stats| stats.buffers_exhausted += 1),
                error if error > 0 => inbound.end = Some(End::Error(error)),
                _ => {}
            }
            if last {
                inbound.armed = None;
                // Somebody waits for more: go on. Otherwise the next receive arms it.
                if inbound.end.is_none()
                    && inbound.chunks.is_empty()
                    && inbound.waker.is_some()
                    && !inbound.orphan
                    && let Err(error) = self.arm(ring, &mut inbound)
                {
                    inbound.end = Some(End::Error(error.raw_os_error().unwrap_or(libc::ECONNABORTED)));
                }
            } else if inbound.bytes > RECEIVE_AHEAD_BYTES_MAX
                && !mem::replace(&mut inbound.cancelled, true)
                && let Some(key) = inbound.armed
            {
                ring.cancel(key);
            }
            if inbound.chunks.is_empty() && inbound.end.is_none() {
                None
            } else {
                inbound.waker.take()
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A listening socket of one shard. One accept at a time.
pub struct RealListener {
    ring: Rc<Ring>,
    timers: Rc<Timers>,
    acceptor: Rc<Acceptor>,
    address: SocketAddr,
}

struct Acceptor {
    descriptor: Rc<OwnedFd>,
    state: RefCell<Accepting>,
    pause: Cell<bool>,
}

#[derive(Default)]
struct Accepting {
    accepted: VecDeque<OwnedFd>,
    error: Option<i32>,
    armed: Option<Key>,
    cancelled: bool,
    orphan: bool,
    waker: Option<Waker>,
}

enum Accepted {
    Socket(OwnedFd),
    Pause,
}

pub(super) fn listen(ring: Rc<Ring>, timers: Rc<Timers>, address: SocketAddr) -> io::Result<RealListener> {
    let named = |error: rustix::io::Errno| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("listen on {address}: {error}"))
    };
    let descriptor = stream_socket(address).map_err(named)?;
    sockopt::set_socket_reuseaddr(&descriptor, true).map_err(named)?;
    sockopt::set_socket_reuseport(&descriptor, true).map_err(named)?;
    // Accepted sockets inherit it.
    sockopt::set_tcp_nodelay(&descriptor, true).map_err(named)?;
    rustix::net::bind(&descriptor, &address).map_err(named)?;
    rustix::net::listen(&descriptor, BACKLOG).map_err(named)?;
    let bound = rustix::net::getsockname(&descriptor).map_err(named)?;
    let address = SocketAddr::try_from(bound).map_err(named)?;
    let (descriptor, state, pause) = (Rc::new(descriptor), RefCell::default(), Cell::new(false));
    let acceptor = Rc::new(Acceptor {
        descriptor,
        state,
        pause,
    });
    Ok(RealListener {
        ring,
        timers,
        acceptor,
        address,
    })
}

pub(super) async fn connect(ring: Rc<Ring>, address: SocketAddr) -> io::Result<RealConnection> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("connect to {address}: {error}"));
    let socket = stream_socket(address).map_err(|error| named(error.into()))?;
    sockopt::set_tcp_nodelay(&socket, true).map_err(|error| named(error.into()))?;
    let connecting = ring.connect(Rc::new(socket), address.as_any())?;
    let Outcome { result, resource } = connecting.await;
    result.map_err(named)?;
    let Resource::Connect { socket, .. } = resource else {
        unreachable!("a connect lends its socket")
    };
    let socket = Rc::into_inner(socket).expect("the operation has ended");
    Ok(RealConnection::new(ring, socket, address))
}

fn stream_socket(address: SocketAddr) -> Result<OwnedFd, rustix::io::Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )
}

impl RealListener {
    async fn next(&self) -> io::Result<Accepted> {
        poll_fn(|context| {
            let mut state = self.acceptor.state.borrow_mut();
            if let Some(socket) = state.accepted.pop_front() {
                return Poll::Ready(Ok(Accepted::Socket(socket)));
            }
            if self.acceptor.pause.replace(false) {
                return Poll::Ready(Ok(Accepted::Pause));
            }
            if let Some(error) = state.error {
                return Poll::Ready(Err(io::Error::from_raw_os_error(error)));
            }
            match &mut state.waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => state.waker = Some(context.waker().clone()),
            }
            if state.armed.is_none() {
                let sink: Rc<dyn Sink> = Rc::clone(&self.acceptor) as Rc<dyn Sink>;
                match self.ring.accept(&self.acceptor.descriptor, sink) {
                    Ok(key) => state.armed = Some(key),
                    Err(error) => return Poll::Ready(Err(error)),
                }
                state.cancelled = false;
            }
            Poll::Pending
        })
        .await
    }
}

impl Listener for RealListener {
    type Connection = RealConnection;

    async fn accept(&self) -> io::Result<RealConnection> {
        loop {
            match self.next().await? {
                Accepted::Pause => Sleep::new(Rc::clone(&self.timers), ACCEPT_PAUSE).await,
                Accepted::Socket(socket) => {
                    // A peer that is gone already has no address: as if it had never come.
                    let peer = rustix::net::getpeername(&socket).ok();
                    let peer = peer.flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
                    if let Some(peer) = peer {
                        return Ok(RealConnection::new(Rc::clone(&self.ring), socket, peer));
                    }
                }
            }
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RealListener {
    fn drop(&mut self) {
        let mut state = self.acceptor.state.borrow_mut();
        state.orphan = true;
        state.waker = None;
        state.accepted.clear();
        if let Some(key) = state.armed
            && !mem::replace(&mut state.cancelled, true)
        {
            self.ring.cancel(key);
        }
    }
}

impl fmt::Debug for RealListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RealListener({})", self.address)
    }
}

impl Sink for Acceptor {
    fn completed(self: Rc<Acceptor>, ring: &Rc<Ring>, result: i32, _flags: u32, last: bool) {
        let waker = {
            let mut state = self.state.borrow_mut();
            if last {
                state.armed = None;
            }
            match -result {
                socket if socket <= 0 => {
                    let socket = descriptor(result);
                    if !state.orphan {
                        state.accepted.push_back(socket);
                    }
                }
                // Nothing lost: the next accept arms it again.
                libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
                // The network's fault, not the listener's (accept(2), "Error handling").
                libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM => {}
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => {
                    ring.count(|stats| stats.accept_pauses += 1);
                    self.pause.set(true);
                }
                error => state.error = Some(error),
            }
            if state.accepted.len() >= ACCEPT_AHEAD_MAX
                && !mem::replace(&mut state.cancelled, true)
                && let Some(key) = state.armed
            {
                ring.cancel(key);
            }
            // Also woken to arm the accept again.
            if state.accepted.is_empty() && !last {
                None
            } else {
                state.waker.take()
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
