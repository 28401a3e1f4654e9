//! The simulated network: TCP as its users see it.
//!
//! Bytes of one direction arrive in order, in segments of random size, after a random delay; connections
//! overtake each other freely. A sender has at most a window of bytes under way and unread. A partition holds
//! segments up; a connection held up for longer than the timeout breaks at both ends. The peers of a killed
//! process see a reset; those of a host that lost its power a reset, or nothing until they send.

mod listen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::executor::Event;
use super::fault::FaultKind;
use super::random::Random;
use super::trace::Step;
use super::world::World;

pub(super) use listen::Attempt;

/// Largest segment; smaller ones are drawn.
const SEGMENT_BYTES: usize = 16 << 10;

/// Which side of which connection: place, id, side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SideId {
    pub(super) place: u32,
    pub(super) id: u64,
    pub(super) side: usize,
}

enum Segment {
    Bytes(Vec<u8>),
    End,
}

#[derive(Default)]
struct Side {
    node: usize,
    address: Option<SocketAddr>,
    /// Under way from this side: moment of arrival and content.
    outbox: VecDeque<(u64, Segment)>,
    outbox_bytes: usize,
    /// Arrived at this side, not received; read from `inbox_start`.
    inbox: Vec<u8>,
    inbox_start: usize,
    /// The peer's end has arrived.
    ended: bool,
    /// This side has shut down.
    closed: bool,
    /// No handle is left, or its node is gone.
    gone: bool,
    broken: Option<io::ErrorKind>,
    receiving: bool,
    sending: bool,
    receive_waker: Option<Waker>,
    send_waker: Option<Waker>,
}

impl Side {
    fn unread(&self) -> usize {
        self.inbox.len() - self.inbox_start
    }

    fn wakers(&mut self) -> [Option<Waker>; 2] {
        [self.receive_waker.take(), self.send_waker.take()]
    }
}

struct Pair {
    id: u64,
    sides: [Side; 2],
    /// Since when a partition holds segments up.
    held_up: Option<u64>,
}

struct Backlog {
    waiting: VecDeque<SideId>,
    wakers: Vec<Waker>,
    id: u64,
}

pub(super) struct Network {
    pub(super) random: Random,
    pairs: Vec<Option<Pair>>,
    free: Vec<u32>,
    id_next: u64,
    /// By node and port: every listener with its own backlog.
    listeners: BTreeMap<(usize, SocketAddr), Vec<Backlog>>,
    port_next: u16,
    /// Directions in which nothing passes.
    pub(super) blocked: BTreeSet<(usize, usize)>,
}

fn wake_all(wakers: impl IntoIterator<Item = Option<Waker>>) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// The address under which other nodes reach this one.
pub(super) fn node_address(node: usize) -> IpAddr {
    let [high, low] = u16::try_from(node).expect("fewer than 65536 nodes").to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 1, high, low))
}

impl Network {
    pub(super) fn new(random: Random) -> Network {
        Network {
            random,
            pairs: Vec::new(),
            free: Vec::new(),
            id_next: 1,
            listeners: BTreeMap::new(),
            port_next: 32_768,
            blocked: BTreeSet::new(),
        }
    }

    fn pair(&mut self, place: u32, id: u64) -> Option<&mut Pair> {
        self.pairs[place as usize].as_mut().filter(|pair| pair.id == id)
    }

    fn free_when_gone(&mut self, place: u32) {
        let slot = &mut self.pairs[place as usize];
        if slot
            .as_ref()
            .is_some_and(|pair| pair.sides.iter().all(|side| side.gone))
        {
            *slot = None;
            self.free.push(place);
        }
    }

    fn next_port(&mut self) -> u16 {
        let port = self.port_next;
        self.port_next = if port == u16::MAX { 32_768 } else { port + 1 };
        port
    }

    /// Which node an address of a packet from `node` leads to.
    fn node_of(node: usize, address: IpAddr, nodes: usize) -> Option<usize> {
        if address.is_loopback() || address.is_unspecified() {
            return Some(node);
        }
        (0..nodes).find(|candidate| node_address(*candidate) == address)
    }

    fn listening_at(&self, node: usize, address: SocketAddr) -> Option<SocketAddr> {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
        let any6 = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), address.port());
        [address, any, any6]
            .into_iter()
            .find(|candidate| self.listeners.contains_key(&(node, *candidate)))
    }
}

impl World {
    fn delay(&self, network: &mut Network, from: usize, to: usize) -> u64 {
        let config = &self.config.network;
        let range = if from == to {
            &config.loopback_us
        } else {
            &config.latency_us
        };
        let mut microseconds = network.random.within(range);
        if from != to && !self.calm.get() && network.random.chance_ppm(config.spike_ppm) {
            microseconds += 1_000 * network.random.within(&config.spike_ms);
            self.counters.borrow_mut().count(FaultKind::DelayedSegment);
        }
        microseconds * 1_000
    }

    /// One way's delay, for a connect.
    pub(super) fn connect_delay_ns(&self, from: usize, to: SocketAddr) -> u64 {
        let nodes = self.nodes.borrow().len();
        let to = Network::node_of(from, to.ip(), nodes).unwrap_or(usize::MAX);
        self.delay(&mut self.network.borrow_mut(), from, to)
    }

    // Bytes.

    /// Puts as much of `bytes` as the window takes under way; ready when nothing is left.
    pub(super) fn poll_send(
        &self,
        side: SideId,
        bytes: &[u8],
        sent: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut guard = self.network.borrow_mut();
        let network = &mut *guard;
        let SideId { place, id, side } = side;
        let Some(pair) = network.pair(place, id) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let other = 1 - side;
        if let Some(kind) = pair.sides[side].broken {
            return Poll::Ready(Err(kind.into()));
        }
        if pair.sides[side].closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let (from, to) = (pair.sides[side].node, pair.sides[other].node);
        let window = self.config.network.window_bytes;
        while *sent < bytes.len() {
            let pair = network.pair(place, id).expect("looked up above");
            let used = pair.sides[side].outbox_bytes + pair.sides[other].unread();
            let room = window.saturating_sub(used).min(bytes.len() - *sent);
            if room == 0 {
                pair.sides[side].send_waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let limit = room.min(SEGMENT_BYTES);
            let length = if network.random.chance_ppm(self.config.network.split_ppm) {
                1 + network.random.index(limit)
            } else {
                limit
            };
            let delay = self.delay(network, from, to);
            if from != to && !self.calm.get() && network.random.chance_ppm(self.config.network.reset_ppm) {
                drop(guard);
                self.break_pair(SideId { place, id, side }, io::ErrorKind::ConnectionReset);
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let content = bytes[*sent..*sent + length].to_vec();
            *sent += length;
            self.enqueue_segment(
                network,
                SideId { place, id, side },
                delay,
                Segment::Bytes(content),
            );
        }
        self.record(Step::Send, id << 1 | side as u64, bytes.len() as u64);
        Poll::Ready(Ok(()))
    }

    fn enqueue_segment(&self, network: &mut Network, side: SideId, delay: u64, segment: Segment) {
        let SideId { place, id, side } = side;
        let Some(pair) = network.pair(place, id) else {
            return;
        };
        let sender = &mut pair.sides[side];
        let earliest = sender.outbox.back().map_or(0, |(at, _)| *at);
        let at = (self.now.get() + delay).max(earliest);
        if let Segment::Bytes(bytes) = &segment {
            sender.outbox_bytes += bytes.len();
        }
        sender.outbox.push_back((at, segment));
        self.agenda.borrow_mut().add(
            at,
            Event::Deliver {
                place,
                id,
                from: side as u8,
            },
        );
    }

    /// Moves what has arrived into `into`: all of it, or sometimes a part.
    pub(super) fn poll_receive(
        &self,
        side: SideId,
        into: &mut Vec<u8>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut network = self.network.borrow_mut();
        let network = &mut *network;
        let split_ppm = self.config.network.split_ppm;
        let part = network
            .random
            .chance_ppm(split_ppm)
            .then(|| network.random.next_u64());
        let SideId { place, id, side } = side;
        let Some(pair) = network.pair(place, id) else {
            return Poll::Ready(Ok(0));
        };
        let own = &mut pair.sides[side];
        if own.closed {
            return Poll::Ready(Ok(0));
        }
        let unread = own.unread();
        if unread > 0 {
            let length = part.map_or(unread, |random| 1 + (random as usize % unread));
            into.extend_from_slice(&own.inbox[own.inbox_start..own.inbox_start + length]);
            own.inbox_start += length;
            // What was read is given up when it is at least half, so that the copying stays in proportion.
            if own.inbox_start * 2 >= own.inbox.len() {
                own.inbox.drain(..own.inbox_start);
                own.inbox_start = 0;
            }
            let waker = pair.sides[1 - side].send_waker.take();
            wake_all([waker]);
            self.record(Step::Receive, id << 1 | side as u64, length as u64);
            return Poll::Ready(Ok(length));
        }
        if let Some(kind) = own.broken {
            return Poll::Ready(Err(kind.into()));
        }
        if own.ended {
            return Poll::Ready(Ok(0));
        }
        own.receive_waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Marks a direction as in use or not; a second use at the same time is misuse.
    pub(super) fn use_direction(&self, side: SideId, sending: bool, in_use: bool) {
        let mut network = self.network.borrow_mut();
        let Some(pair) = network.pair(side.place, side.id) else {
            return;
        };
        let own = &mut pair.sides[side.side];
        let flag = if sending {
            &mut own.sending
        } else {
            &mut own.receiving
        };
        let before = std::mem::replace(flag, in_use);
        drop(network);
        let what = if sending { "sends" } else { "receives" };
        assert!(
            !(before && in_use),
            "{}: misuse: two {what} in flight on one connection",
            self.name()
        );
    }

    /// Segments arrive.
    pub(super) fn deliver(self: &Rc<World>, place: u32, id: u64, from: usize) {
        let now = self.now.get();
        let mut guard = self.network.borrow_mut();
        let network = &mut *guard;
        let Some(pair) = network.pairs[place as usize]
            .as_mut()
            .filter(|pair| pair.id == id)
        else {
            return;
        };
        let (sender, receiver) = (pair.sides[from].node, pair.sides[1 - from].node);
        if network.blocked.contains(&(sender, receiver)) {
            if pair.held_up.is_none() {
                pair.held_up = Some(now);
                let timeout = u64::try_from(self.config.network.timeout.as_nanos()).unwrap_or(u64::MAX / 4);
                self.agenda
                    .borrow_mut()
                    .add(now.saturating_add(timeout), Event::Expire { place, id });
            }
            return;
        }
        let mut answer_with_reset = false;
        let mut delivered = 0;
        while pair.sides[from].outbox.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, segment)) = pair.sides[from].outbox.pop_front() else {
                break;
            };
            let target = &mut pair.sides[1 - from];
            match segment {
                Segment::Bytes(bytes) => {
                    delivered += bytes.len();
                    if target.closed || target.gone {
                        answer_with_reset = true;
                    } else {
                        target.inbox.extend_from_slice(&bytes);
                    }
                    pair.sides[from].outbox_bytes -= bytes.len();
                }
                Segment::End => target.ended = true,
            }
        }
        let waker = pair.sides[1 - from].receive_waker.take();
        self.record(Step::Deliver, id << 1 | from as u64, delivered as u64);
        wake_all([waker]);
        // A host whose process is gone answers once it is back; until then the bytes meet silence.
        let host_up = self.nodes.borrow()[receiver].up;
        if answer_with_reset && pair.sides[from].broken.is_none() {
            let delay = if host_up {
                self.delay(network, receiver, sender)
            } else {
                u64::try_from(self.config.network.timeout.as_nanos()).unwrap_or(u64::MAX / 4)
            };
            self.agenda.borrow_mut().add(
                now.saturating_add(delay),
                Event::Reset {
                    place,
                    id,
                    side: from as u8,
                },
            );
        }
    }

    /// One side learns that the connection is broken.
    pub(super) fn reset_side(&self, place: u32, id: u64, side: usize) {
        let mut network = self.network.borrow_mut();
        let Some(pair) = network.pair(place, id) else {
            return;
        };
        let own = &mut pair.sides[side];
        if own.broken.is_some() || own.gone {
            return;
        }
        own.broken = Some(io::ErrorKind::ConnectionReset);
        own.outbox.clear();
        own.outbox_bytes = 0;
        let wakers = own.wakers();
        drop(network);
        self.record(Step::Reset, id << 1 | side as u64, 0);
        self.counters.borrow_mut().count(FaultKind::ConnectionReset);
        wake_all(wakers);
    }

    /// Breaks a connection for both sides at once; bytes under way and unread are gone.
    pub(super) fn break_pair(&self, side: SideId, kind: io::ErrorKind) {
        let mut network = self.network.borrow_mut();
        let Some(pair) = network.pair(side.place, side.id) else {
            return;
        };
        let mut wakers = Vec::new();
        for own in &mut pair.sides {
            own.broken.get_or_insert(kind);
            own.outbox.clear();
            own.outbox_bytes = 0;
            own.inbox.clear();
            own.inbox_start = 0;
            wakers.extend(own.wakers());
        }
        drop(network);
        self.record(Step::Reset, side.id << 1, 1);
        self.counters.borrow_mut().count(FaultKind::ConnectionReset);
        wake_all(wakers);
    }

    pub(super) fn expire(&self, place: u32, id: u64) {
        let timeout = u64::try_from(self.config.network.timeout.as_nanos()).unwrap_or(u64::MAX / 4);
        let expired = {
            let mut network = self.network.borrow_mut();
            let Some(pair) = network.pair(place, id) else {
                return;
            };
            pair.held_up
                .is_some_and(|since| since.saturating_add(timeout) <= self.now.get())
        };
        if expired {
            self.break_pair(SideId { place, id, side: 0 }, io::ErrorKind::TimedOut);
        }
    }

    // Ends.

    /// Shuts one side down: what it sent still arrives, followed by the end.
    pub(super) fn shut_down(&self, side: SideId) {
        let mut guard = self.network.borrow_mut();
        let network = &mut *guard;
        let Some(pair) = network.pair(side.place, side.id) else {
            return;
        };
        let own = &mut pair.sides[side.side];
        if std::mem::replace(&mut own.closed, true) {
            return;
        }
        let wakers = own.wakers();
        let (from, to) = (own.node, pair.sides[1 - side.side].node);
        if pair.sides[side.side].broken.is_none() {
            let delay = self.delay(network, from, to);
            self.enqueue_segment(network, side, delay, Segment::End);
        }
        drop(guard);
        wake_all(wakers);
    }

    /// The last handle of a side is gone.
    pub(super) fn leave(&self, side: SideId) {
        self.shut_down(side);
        let mut network = self.network.borrow_mut();
        let Some(pair) = network.pair(side.place, side.id) else {
            return;
        };
        pair.sides[side.side].gone = true;
        network.free_when_gone(side.place);
    }

    /// A dead node's connections: the peers see a reset, or silence when the whole host may have died.
    pub(super) fn abandon_connections(&self, node: usize, may_be_silent: bool) {
        let mut guard = self.network.borrow_mut();
        let network = &mut *guard;
        network.listeners.retain(|(listening, _), _| *listening != node);
        for place in 0..network.pairs.len() {
            let Some(pair) = &mut network.pairs[place] else {
                continue;
            };
            let id = pair.id;
            for side in 0..2 {
                let pair = network.pairs[place].as_mut().expect("not freed in this loop");
                if pair.sides[side].node != node {
                    continue;
                }
                let own = &mut pair.sides[side];
                own.closed = true;
                own.gone = true;
                own.outbox.clear();
                own.outbox_bytes = 0;
                own.inbox.clear();
                own.inbox_start = 0;
                let to = pair.sides[1 - side].node;
                if to != node && !(may_be_silent && network.random.one_in(2)) {
                    let delay = self.delay(network, node, to);
                    let place = u32::try_from(place).expect("places are u32");
                    let event = Event::Reset {
                        place,
                        id,
                        side: 1 - side as u8,
                    };
                    self.agenda.borrow_mut().add(self.now.get() + delay, event);
                }
            }
            network.free_when_gone(u32::try_from(place).expect("places are u32"));
        }
    }

    /// Lets everything pass that `still_blocked` does not name, and what was held up move on.
    pub(super) fn unblock(&self, still_blocked: impl Fn(usize, usize) -> bool) {
        let mut network = self.network.borrow_mut();
        let network = &mut *network;
        network.blocked.retain(|(from, to)| still_blocked(*from, *to));
        let now = self.now.get();
        for (place, slot) in network.pairs.iter_mut().enumerate() {
            let Some(pair) = slot else { continue };
            if pair.held_up.take().is_none() {
                continue;
            }
            for from in 0..2u8 {
                let delay = 1_000 * network.random.within(&self.config.network.latency_us);
                let place = u32::try_from(place).expect("places are u32");
                self.agenda.borrow_mut().add(
                    now + delay,
                    Event::Deliver {
                        place,
                        id: pair.id,
                        from,
                    },
                );
            }
        }
    }
}
