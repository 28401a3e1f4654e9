//! Listening and connecting.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use super::super::trace::Step;
use super::super::world::World;
use super::{Backlog, Network, Pair, Side, SideId, node_address};

/// What a try to connect came to.
pub(in crate::sim) enum Attempt {
    Connected(SideId, SocketAddr),
    Refused,
    /// Nobody answered; try again until the timeout.
    Silence,
}

impl World {
    pub(in crate::sim) fn listen(&self, node: usize, address: SocketAddr) -> io::Result<(SocketAddr, u64)> {
        let local =
            address.ip().is_loopback() || address.ip().is_unspecified() || address.ip() == node_address(node);
        if !local {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut network = self.network.borrow_mut();
        let mut address = address;
        while address.port() == 0 {
            let candidate = SocketAddr::new(address.ip(), network.next_port());
            if network.listening_at(node, candidate).is_none() {
                address = candidate;
            }
        }
        let id = network.id_next;
        network.id_next += 1;
        let backlog = Backlog {
            waiting: VecDeque::new(),
            wakers: Vec::new(),
            id,
        };
        network
            .listeners
            .entry((node, address))
            .or_default()
            .push(backlog);
        Ok((address, id))
    }

    pub(in crate::sim) fn unlisten(&self, node: usize, address: SocketAddr, id: u64) {
        let waiting = {
            let mut network = self.network.borrow_mut();
            let Some(backlogs) = network.listeners.get_mut(&(node, address)) else {
                return;
            };
            let Some(place) = backlogs.iter().position(|backlog| backlog.id == id) else {
                return;
            };
            let backlog = backlogs.remove(place);
            if backlogs.is_empty() {
                network.listeners.remove(&(node, address));
            }
            backlog.waiting
        };
        for side in waiting {
            self.break_pair(side, io::ErrorKind::ConnectionReset);
            self.leave(side);
        }
    }

    /// The packet that opens a connection arrives.
    pub(in crate::sim) fn attempt(&self, from: usize, to: SocketAddr) -> Attempt {
        let nodes = self.nodes.borrow();
        let Some(target) = Network::node_of(from, to.ip(), nodes.len()) else {
            return Attempt::Silence;
        };
        let mut network = self.network.borrow_mut();
        let network = &mut *network;
        if network.blocked.contains(&(from, target)) || network.blocked.contains(&(target, from)) {
            return Attempt::Silence;
        }
        if !nodes[target].up {
            return if network.random.one_in(2) {
                Attempt::Refused
            } else {
                Attempt::Silence
            };
        }
        let Some(listening) = network.listening_at(target, to) else {
            return Attempt::Refused;
        };
        let id = network.id_next;
        network.id_next += 1;
        let port = network.next_port();
        let source = if to.ip().is_loopback() {
            to.ip()
        } else {
            node_address(from)
        };
        let source = SocketAddr::new(source, port);

        let backlogs = network
            .listeners
            .get_mut(&(target, listening))
            .expect("found above");
        let choice = network.random.index(backlogs.len());
        if backlogs[choice].waiting.len() >= self.config.network.backlog {
            return Attempt::Silence;
        }
        let place = network.free.pop().unwrap_or_else(|| {
            network.pairs.push(None);
            u32::try_from(network.pairs.len() - 1).expect("fewer than 2^32 connections")
        });
        let client = Side {
            node: from,
            address: Some(source),
            ..Side::default()
        };
        let server = Side {
            node: target,
            address: Some(to),
            ..Side::default()
        };
        network.pairs[place as usize] = Some(Pair {
            id,
            sides: [client, server],
            held_up: None,
        });
        let backlog = &mut backlogs[choice];
        backlog.waiting.push_back(SideId { place, id, side: 1 });
        std::mem::take(&mut backlog.wakers)
            .into_iter()
            .for_each(Waker::wake);
        self.record(Step::Connect, (from as u64) << 16 | target as u64, id);
        Attempt::Connected(SideId { place, id, side: 0 }, to)
    }

    /// The next connection of a listener, with the peer's address.
    pub(in crate::sim) fn poll_accept(
        &self,
        node: usize,
        address: SocketAddr,
        id: u64,
        context: &mut Context<'_>,
    ) -> Poll<(SideId, SocketAddr)> {
        let mut network = self.network.borrow_mut();
        let network = &mut *network;
        let backlogs = network.listeners.get_mut(&(node, address));
        let Some(backlog) = backlogs.and_then(|all| all.iter_mut().find(|backlog| backlog.id == id)) else {
            return Poll::Pending;
        };
        if let Some(side) = backlog.waiting.pop_front() {
            let pair = network.pairs[side.place as usize]
                .as_ref()
                .expect("a waiting side keeps its pair");
            let peer = pair.sides[0].address.expect("both sides have addresses");
            self.record(Step::Accept, node as u64, id);
            return Poll::Ready((side, peer));
        }
        backlog.wakers.retain(|waker| !waker.will_wake(context.waker()));
        backlog.wakers.push(context.waker().clone());
        Poll::Pending
    }
}
