//! Where operations live while the kernel works on them.
#![expect(
    unsafe_code,
    reason = "a descriptor that arrives as an operation's result is owned from there on"
)]

use std::ffi::CString;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::net::SocketAddrAny;

use super::Sink;
use crate::AlignedBuffer;

/// A slot and which of its uses is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::real) struct Key {
    slot: u32,
    generation: u32,
}

impl Key {
    pub(super) fn user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of the word")]
    pub(super) fn from_user_data(user_data: u64) -> Key {
        Key {
            slot: user_data as u32,
            generation: (user_data >> 32) as u32,
        }
    }
}

/// What an operation needs to stay alive. The descriptor is part of it: a number that is closed too early may
/// may already name another file.
#[expect(dead_code, reason = "most fields are only kept alive")]
pub(in crate::real) enum Resource {
    Descriptor(Rc<OwnedFd>),
    /// The names that an operation on the directory takes; `opens` when its result is a descriptor.
    Names {
        directory: Rc<OwnedFd>,
        /// Another directory, which the second name is in.
        into: Option<Rc<OwnedFd>>,
        first: CString,
        second: Option<CString>,
        opens: bool,
    },
    Read {
        file: Rc<OwnedFd>,
        buffer: AlignedBuffer,
    },
    Write {
        file: Rc<OwnedFd>,
        buffer: Rc<AlignedBuffer>,
    },
    Send {
        socket: Rc<OwnedFd>,
        bytes: Vec<u8>,
    },
    Connect {
        socket: Rc<OwnedFd>,
        address: Box<SocketAddrAny>,
    },
    /// The eventfd by which other threads wake the shard, and where its count is read to.
    Wakeup {
        eventfd: Rc<OwnedFd>,
        count: Box<[u8; 8]>,
    },
}

impl Resource {
    /// The operation ended and nobody waits for it.
    pub(super) fn discard(self, result: i32) {
        if let Resource::Names { opens: true, .. } = self
            && result >= 0
        {
            drop(descriptor(result));
        }
    }
}

/// Takes ownership of a descriptor that the kernel has just given as a result.
pub(in crate::real) fn descriptor(result: i32) -> OwnedFd {
    assert!(result >= 0, "a descriptor is not negative");
    // SAFETY: the caller passes the result of an operation that opens a descriptor, once.
    unsafe { OwnedFd::from_raw_fd(result) }
}

enum State {
    Vacant {
        next: Option<u32>,
    },
    /// In the kernel, its future waiting (or not polled yet).
    Running {
        resource: Resource,
        waker: Option<Waker>,
        cancellable: bool,
    },
    /// In the kernel, its future dropped.
    Orphan {
        resource: Resource,
        cancellable: bool,
    },
    /// Ended; the future has not asked yet.
    Ended {
        resource: Resource,
        result: i32,
    },
    /// A multishot in the kernel.
    Multishot {
        sink: Rc<dyn Sink>,
    },
}

struct Slot {
    generation: u32,
    state: State,
}

/// What to do about a completion, once the slab is no longer borrowed.
pub(super) enum Completed {
    Wake(Option<Waker>),
    Orphan(Resource),
    Sink(Rc<dyn Sink>),
    Unknown,
}

#[derive(Default)]
pub(super) struct Slab {
    slots: Vec<Slot>,
    vacant: Option<u32>,
    occupied: usize,
    in_kernel: usize,
}

impl Slab {
    pub(super) fn occupied(&self) -> usize {
        self.occupied
    }

    /// Operations whose last completion has not been seen.
    pub(super) fn in_kernel(&self) -> usize {
        self.in_kernel
    }

    pub(super) fn insert(&mut self, resource: Resource, cancellable: bool) -> Key {
        self.occupy(State::Running {
            resource,
            waker: None,
            cancellable,
        })
    }

    pub(super) fn insert_multishot(&mut self, sink: Rc<dyn Sink>) -> Key {
        self.occupy(State::Multishot { sink })
    }

    fn occupy(&mut self, state: State) -> Key {
        self.occupied += 1;
        self.in_kernel += 1;
        let slot = match self.vacant {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot {
                    generation: 0,
                    state: State::Vacant { next: None },
                });
                u32::try_from(self.slots.len() - 1).expect("fewer operations than 2^32")
            }
        };
        let entry = &mut self.slots[slot as usize];
        let State::Vacant { next } = mem::replace(&mut entry.state, state) else {
            unreachable!("the free list names vacant slots only");
        };
        self.vacant = next;
        Key {
            slot,
            generation: entry.generation,
        }
    }

    fn vacate(&mut self, key: Key) -> State {
        let slot = &mut self.slots[key.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let state = mem::replace(&mut slot.state, State::Vacant { next: self.vacant });
        self.vacant = Some(key.slot);
        self.occupied -= 1;
        state
    }

    fn state(&mut self, key: Key) -> Option<&mut State> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation).then_some(&mut slot.state)
    }

    pub(super) fn complete(&mut self, key: Key, result: i32, last: bool) -> Completed {
        let Some(state) = self.state(key) else {
            return Completed::Unknown;
        };
        match state {
            State::Multishot { sink } => {
                let sink = Rc::clone(sink);
                if last {
                    self.in_kernel -= 1;
                    self.vacate(key);
                }
                Completed::Sink(sink)
            }
            State::Running { .. } => {
                let ended = State::Vacant { next: None };
                let State::Running { resource, waker, .. } = mem::replace(state, ended) else {
                    unreachable!("matched above");
                };
                *state = State::Ended { resource, result };
                self.in_kernel -= 1;
                Completed::Wake(waker)
            }
            State::Orphan { .. } => {
                self.in_kernel -= 1;
                let State::Orphan { resource, .. } = self.vacate(key) else {
                    unreachable!("matched above")
                };
                Completed::Orphan(resource)
            }
            State::Ended { .. } | State::Vacant { .. } => Completed::Unknown,
        }
    }

    /// Gives the outcome, once, or remembers the waker.
    pub(super) fn poll(&mut self, key: Key, context: &mut Context<'_>) -> Poll<(i32, Resource)> {
        match self.state(key).expect("a future polls its own operation") {
            State::Running { waker, .. } => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Ended { .. } => {
                let State::Ended { resource, result } = self.vacate(key) else {
                    unreachable!("matched above")
                };
                Poll::Ready((result, resource))
            }
            _ => unreachable!("a future polls its own operation, and only until it has ended"),
        }
    }

    /// The future is gone. Gives the key back when the operation is to be cancelled, and the resource when it had
    /// ended already.
    pub(super) fn orphan(&mut self, key: Key) -> (bool, Option<(i32, Resource)>) {
        let state = self.state(key).expect("a future drops its own operation");
        match mem::replace(state, State::Vacant { next: None }) {
            State::Running {
                resource,
                cancellable,
                ..
            } => {
                *state = State::Orphan {
                    resource,
                    cancellable,
                };
                (cancellable, None)
            }
            State::Ended { resource, result } => {
                self.vacate(key);
                (false, Some((result, resource)))
            }
            _ => unreachable!("a future drops its own operation, once"),
        }
    }

    /// Everything that may be cancelled when the shard ends: all but drive operations.
    pub(super) fn cancellable(&self) -> Vec<Key> {
        let keyed = self.slots.iter().zip(0u32..);
        keyed
            .filter(|(slot, _)| match &slot.state {
                State::Running { cancellable, .. } | State::Orphan { cancellable, .. } => *cancellable,
                State::Multishot { .. } => true,
                State::Ended { .. } | State::Vacant { .. } => false,
            })
            .map(|(slot, index)| Key {
                slot: index,
                generation: slot.generation,
            })
            .collect()
    }

    /// True while the key's operation is in the kernel.
    pub(super) fn is_running(&mut self, key: Key) -> bool {
        matches!(
            self.state(key),
            Some(State::Running { .. } | State::Orphan { .. } | State::Multishot { .. })
        )
    }
}
