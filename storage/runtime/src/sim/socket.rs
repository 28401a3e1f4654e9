//! The seam's listener and connection over [`super::network`].

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::network::SideId;
use super::world::World;
use crate::seam::{Connection, Listener};

/// A simulated listening socket.
pub struct SimListener {
    world: Rc<World>,
    node: usize,
    address: SocketAddr,
    id: u64,
}

impl SimListener {
    pub(super) fn new(world: Rc<World>, node: usize, (address, id): (SocketAddr, u64)) -> SimListener {
        SimListener {
            world,
            node,
            address,
            id,
        }
    }
}

impl Listener for SimListener {
    type Connection = SimConnection;

    async fn accept(&self) -> io::Result<SimConnection> {
        let (side, peer) =
            poll_fn(|context| self.world.poll_accept(self.node, self.address, self.id, context)).await;
        Ok(SimConnection::new(Rc::clone(&self.world), side, peer))
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.world.unlisten(self.node, self.address, self.id);
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimListener({})", self.address)
    }
}

/// A simulated TCP connection.
#[derive(Clone)]
pub struct SimConnection {
    handle: Rc<ConnectionHandle>,
}

struct ConnectionHandle {
    world: Rc<World>,
    side: SideId,
    peer: SocketAddr,
}

impl SimConnection {
    pub(super) fn new(world: Rc<World>, side: SideId, peer: SocketAddr) -> SimConnection {
        SimConnection {
            handle: Rc::new(ConnectionHandle { world, side, peer }),
        }
    }
}

impl Drop for ConnectionHandle {
    fn drop(&mut self) {
        self.world.leave(self.side);
    }
}

/// One direction in use, for as long as its future lives.
struct InUse<'a> {
    handle: &'a ConnectionHandle,
    sending: bool,
}

impl<'a> InUse<'a> {
    fn new(handle: &'a ConnectionHandle, sending: bool) -> InUse<'a> {
        handle.world.use_direction(handle.side, sending, true);
        InUse { handle, sending }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.handle
            .world
            .use_direction(self.handle.side, self.sending, false);
    }
}

impl Connection for SimConnection {
    async fn receive(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        let handle = &*self.handle;
        let _in_use = InUse::new(handle, false);
        poll_fn(|context| handle.world.poll_receive(handle.side, into, context)).await
    }

    fn send(&self, mut bytes: Vec<u8>) -> impl Future<Output = io::Result<Vec<u8>>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            let handle = &*handle;
            let _in_use = InUse::new(handle, true);
            let mut sent = 0;
            poll_fn(|context| handle.world.poll_send(handle.side, &bytes, &mut sent, context)).await?;
            bytes.clear();
            Ok(bytes)
        }
    }

    fn shutdown(&self) {
        self.handle.world.shut_down(self.handle.side);
    }

    fn peer(&self) -> SocketAddr {
        self.handle.peer
    }
}

impl fmt::Debug for SimConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimConnection({})", self.handle.peer)
    }
}
