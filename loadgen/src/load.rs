//! `loadgen load`: the table, then every item of the key space, each until it is stored.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::Notify;
use cairn_runtime::{Connection, Queue, Runtime};

use crate::run::{open, resolve, within};
use crate::table;
use crate::wire::{Outcome, Settings, Wire};
use crate::workload::{Operation, Writing};

/// Generation of loaded items; those of runs are larger.
const LOADED: u64 = 0;
/// Longest wait for the table to be created and become active.
const TABLE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest wait for anything to arrive on a connection that waits for answers.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);
/// Times in a row that an item may fail before the load gives up.
const FAILURES_MAX: u32 = 200;

struct Shared {
    settings: Settings,
    next: Cell<u64>,
    again: RefCell<VecDeque<u64>>,
    stored: Cell<u64>,
    failures: Cell<u32>,
    errors: RefCell<BTreeMap<String, u64>>,
    failure: RefCell<Option<io::Error>>,
}

impl Shared {
    fn take(&self) -> Option<u64> {
        if let Some(key) = self.again.borrow_mut().pop_front() {
            return Some(key);
        }
        let key = self.next.get();
        self.next.set(key + 1);
        (key < self.settings.common.items).then_some(key)
    }
}

/// Loads the table, which has `indexes` or not.
///
/// # Errors
/// When the node cannot be reached, or goes on refusing; `InvalidInput` when there is a table of this name that is another.
pub(crate) async fn load<R: Runtime>(runtime: R, settings: Settings, indexes: bool) -> io::Result<()> {
    let address = resolve(&settings)?;
    let (connection, mut wire) = open(&runtime, address, &settings).await?;
    let wanted = (settings.common.table.as_str(), indexes);
    let created = table::create(&runtime, &connection, &mut wire, wanted);
    within(&runtime, TABLE_WAIT_MAX, "active table", created).await?;
    connection.shutdown();

    let (items, connections) = (settings.common.items, settings.common.connections);
    let shared = Rc::new(Shared {
        settings,
        next: Cell::new(0),
        again: RefCell::default(),
        stored: Cell::new(0),
        failures: Cell::new(0),
        errors: RefCell::default(),
        failure: RefCell::default(),
    });
    let working = Rc::new(Cell::new(connections));
    let ended = Rc::new(Notify::new());
    let start = runtime.now();
    for _ in 0..connections {
        let opened = open(&runtime, address, &shared.settings).await?;
        let (shared, working, ended, clock) =
            (shared.clone(), working.clone(), ended.clone(), runtime.clone());
        runtime.spawn(Queue::Foreground, async move {
            if let Err(error) = store(&clock, &shared, opened).await {
                *shared.failure.borrow_mut() = Some(error);
            }
            working.set(working.get() - 1);
            ended.notify_one();
        });
    }
    let progress = (shared.clone(), working.clone(), runtime.clone());
    runtime.spawn(Queue::Foreground, async move {
        let (shared, working, runtime) = progress;
        while working.get() > 0 {
            runtime.sleep(Duration::from_secs(1)).await;
            eprintln!("{} of {items} items stored", shared.stored.get());
        }
    });
    while working.get() > 0 {
        ended.notified().await;
    }
    for (name, count) in shared.errors.borrow().iter() {
        eprintln!("{count:>10} {name}, tried again");
    }
    if let Some(error) = shared.failure.take() {
        return Err(error);
    }
    let seconds = runtime.now().since(start).as_secs_f64();
    println!(
        "{items} items of {} B stored in table {} in {seconds:.1} s, {:.0}/s",
        shared.settings.common.item_size,
        shared.settings.common.table,
        items as f64 / seconds
    );
    Ok(())
}

async fn store<R: Runtime>(
    runtime: &R,
    shared: &Shared,
    (connection, mut wire): (R::Connection, Wire),
) -> io::Result<()> {
    let slots = shared.settings.common.in_flight as usize;
    let mut pending: Vec<Option<u64>> = vec![None; slots];
    let mut received = Vec::new();
    let mut outgoing = Vec::new();
    loop {
        for (slot, holds) in pending.iter_mut().enumerate() {
            if holds.is_none()
                && let Some(key) = shared.take()
            {
                *holds = Some(key);
                let operation = Operation::Put {
                    key,
                    generation: LOADED,
                    how: Writing::Put,
                };
                wire.encode(&mut outgoing, slot, operation, runtime.unix_ms());
            }
        }
        if pending.iter().all(Option::is_none) {
            return Ok(());
        }
        let exchange = async {
            let spare = connection.send(outgoing).await?;
            match connection.receive(&mut received).await? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(spare),
            }
        };
        outgoing = within(runtime, ANSWER_WAIT_MAX, "answer", exchange).await?;
        let mut taken = 0;
        loop {
            let asked = |slot: usize| {
                Some(Operation::Put {
                    key: pending.get(slot).copied().flatten()?,
                    generation: LOADED,
                    how: Writing::Put,
                })
            };
            let Some(answer) = wire.decode(&received[taken..], asked)? else {
                break;
            };
            taken += answer.taken;
            let key = pending[answer.slot]
                .take()
                .expect("the wire answers what was asked");
            match answer.outcome {
                Outcome::Good => {
                    shared.stored.set(shared.stored.get() + 1);
                    shared.failures.set(0);
                }
                Outcome::Failed(name) => {
                    shared.failures.set(shared.failures.get() + 1);
                    if shared.failures.get() > FAILURES_MAX {
                        return Err(io::Error::other(format!(
                            "the node goes on refusing items: {name}"
                        )));
                    }
                    *shared.errors.borrow_mut().entry(name).or_default() += 1;
                    shared.again.borrow_mut().push_back(key);
                    runtime.sleep(Duration::from_millis(10)).await;
                }
                Outcome::Missing | Outcome::Wrong | Outcome::Stale | Outcome::Torn => {
                    unreachable!("puts read nothing")
                }
            }
        }
        received.drain(..taken);
    }
}
