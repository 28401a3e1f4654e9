//! One connection of a run: slots, each of which holds one operation at a time.
//!
//! At full speed the receiver itself starts an operation in every slot that an answer has freed. With a rate, the
//! run's one pacer does ([`crate::run`]): it asks a line that has a free slot to [`Line::start`] what is due, and
//! the line's sender task sends what has gathered since its last send.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::Notify;
use cairn_runtime::{Connection, Moment, Queue, Runtime};

use crate::ledger::View;
use crate::ready::Member;
use crate::run::Shared;
use crate::schedule::Due;
use crate::wire::Wire;
use crate::workload::Operation;

/// Pause before a broken connection is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// An operation that waits for its answer.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) operation: Operation,
    pub(crate) intended: Moment,
    pub(crate) sent: Moment,
    /// What a strongly consistent read may see.
    pub(crate) view: View,
}

struct Slots {
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
}

/// One open connection.
pub(crate) struct Line<R: Runtime> {
    shared: Rc<Shared<R>>,
    connection: R::Connection,
    wire: RefCell<Wire>,
    slots: RefCell<Slots>,
    outgoing: RefCell<Vec<u8>>,
    /// Told when there is something to send, or the line ends.
    kicked: Notify,
    ended: Cell<bool>,
    /// It stands in the run's queue of lines with a free slot.
    queued: Cell<bool>,
}

/// Keeps one connection at work until the run is over, opening it again when it breaks.
pub(crate) async fn work<R: Runtime>(shared: Rc<Shared<R>>, first: (R::Connection, Wire)) {
    let mut opened = Some(first);
    while !shared.over() {
        let (connection, wire) = match opened.take() {
            Some(opened) => opened,
            None => match shared.open().await {
                Ok(opened) => opened,
                Err(error) => {
                    shared.broke(&format!("cannot connect: {error}"));
                    shared.runtime.sleep(RECONNECT_PAUSE).await;
                    continue;
                }
            },
        };
        let line = Rc::new(Line::new(shared.clone(), connection, wire));
        shared.joined(&line);
        let sender = line.clone();
        shared
            .runtime
            .spawn(Queue::Foreground, async move { sender.send_loop().await });
        let outcome = line.receive().await;
        line.end(&outcome);
    }
}

impl<R: Runtime> Member for Line<R> {
    fn queued(&self) -> &Cell<bool> {
        &self.queued
    }
}

impl<R: Runtime> Line<R> {
    fn new(shared: Rc<Shared<R>>, connection: R::Connection, wire: Wire) -> Line<R> {
        let count = shared.settings.common.in_flight as usize;
        Line {
            shared,
            connection,
            wire: RefCell::new(wire),
            slots: RefCell::new(Slots {
                pending: vec![None; count],
                free: (0..count).rev().collect(),
            }),
            outgoing: RefCell::default(),
            kicked: Notify::new(),
            ended: Cell::new(false),
            queued: Cell::new(false),
        }
    }

    async fn receive(self: &Rc<Line<R>>) -> io::Result<()> {
        let mut received = Vec::with_capacity(64 * 1024);
        loop {
            if self.shared.paced() {
                self.shared.has_free_slot(self);
            } else {
                self.fill();
                self.send().await?;
            }
            if self.shared.over() && self.idle() {
                return Ok(());
            }
            if self.connection.receive(&mut received).await? == 0 {
                return if self.idle() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            let mut taken = 0;
            while let Some(answer) = self.decode(&received[taken..])? {
                taken += answer;
            }
            received.drain(..taken);
        }
    }

    /// Takes one answer from `received`; `None` when it holds no whole one.
    fn decode(&self, received: &[u8]) -> io::Result<Option<usize>> {
        let mut slots = self.slots.borrow_mut();
        let asked = |slot: usize| {
            let pending = slots.pending.get(slot)?.as_ref()?;
            Some(pending.operation)
        };
        let Some(answer) = self.wire.borrow_mut().decode(received, asked)? else {
            return Ok(None);
        };
        let pending = slots.pending[answer.slot]
            .take()
            .expect("the wire answers what was asked");
        slots.free.push(answer.slot);
        drop(slots);
        let now = self.shared.runtime.now();
        let taken = answer.taken;
        self.shared.ended(&pending, answer, now);
        Ok(Some(taken))
    }

    /// Starts an operation when a slot is free; tells whether another is.
    pub(crate) fn start(&self, operation: Operation, intended: Moment, now: Moment) -> Started {
        let mut slots = self.slots.borrow_mut();
        if self.ended.get() {
            return Started::No;
        }
        let Some(slot) = slots.free.pop() else {
            return Started::No;
        };
        slots.pending[slot] = Some(Pending {
            operation,
            intended,
            sent: now,
            view: self.shared.starts(operation),
        });
        let unix_ms = self.shared.runtime.unix_ms();
        self.wire
            .borrow_mut()
            .encode(&mut self.outgoing.borrow_mut(), slot, operation, unix_ms);
        if slots.free.is_empty() {
            Started::AndFull
        } else {
            Started::AndFree
        }
    }

    /// Lets the sender task send what has been started.
    pub(crate) fn kick(&self) {
        self.kicked.notify_one();
    }

    /// Ends the connection from outside.
    pub(crate) fn shutdown(&self) {
        self.connection.shutdown();
    }

    async fn send_loop(&self) {
        while !self.ended.get() {
            if self.send().await.is_err() {
                // The receiver sees the broken connection and accounts for it.
                self.connection.shutdown();
                return;
            }
            self.kicked.notified().await;
        }
    }

    async fn send(&self) -> io::Result<()> {
        while !self.outgoing.borrow().is_empty() {
            let bytes = std::mem::take(&mut *self.outgoing.borrow_mut());
            let spare = self.connection.send(bytes).await?;
            let mut outgoing = self.outgoing.borrow_mut();
            if outgoing.is_empty() {
                *outgoing = spare;
            }
        }
        Ok(())
    }

    /// At full speed: an operation into every free slot.
    fn fill(&self) {
        let now = self.shared.runtime.now();
        while !self.slots.borrow().free.is_empty() {
            let Due::Now(intended) = self.shared.schedule.take(now) else {
                return;
            };
            let operation = self.shared.operations.borrow_mut().next();
            self.start(operation, intended, now);
        }
    }

    /// Nothing is outstanding.
    pub(crate) fn idle(&self) -> bool {
        self.slots.borrow().pending.iter().all(Option::is_none)
    }

    /// Counts what got no answer.
    fn end(&self, outcome: &io::Result<()>) {
        self.ended.set(true);
        self.kicked.notify_all();
        let now = self.shared.runtime.now();
        for pending in self
            .slots
            .borrow_mut()
            .pending
            .iter_mut()
            .filter_map(Option::take)
        {
            self.shared.lost(pending.operation, pending.intended, now);
        }
        if let Err(error) = outcome {
            self.shared.broke(&format!("connection broke: {error}"));
        }
    }
}

/// What became of [`Line::start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// There was no free slot, or the connection has ended.
    No,
    /// Started, and another slot is free.
    AndFree,
    /// Started, in the last free slot.
    AndFull,
}
