//! One run on one core: connections, the pacer, warm-up, progress, and the end.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::sync::{Notify, timeout};
use cairn_runtime::{Moment, Queue, Runtime};

use crate::connection::{Line, Pending, Started, work};
use crate::ledger::{End, Ledger, View};
use crate::look::look;
use crate::options::{Rate, Run};
use crate::ready::Ready;
use crate::record::{Interval, Record};
use crate::schedule::{Due, Schedule};
use crate::wire::{Answer, Outcome, Settings, Wire};
use crate::workload::{Operation, Operations, Reading, generations_begin};

/// Longest time to wait for a connection and its handshake.
pub(crate) const OPEN_MAX: Duration = Duration::from_secs(5);
/// Errors behind which a put has certainly not been carried out.
const REFUSALS: [&str; 7] = [
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ResourceNotFoundException",
    "ThrottlingException",
    "TransactionCanceledException",
    "TransactionConflictException",
    "ValidationException",
];
/// Longest time to wait for outstanding answers after the run's end.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Shortest sleep between two operations of a paced run: a timer and a send for each of 40,000 operations a second would
/// take most of the client's core, and its own queue would be what is measured. What is due meanwhile starts together, and
/// its latency counts from when it was due.
const PACE: Duration = Duration::from_micros(100);
/// Time between two progress lines.
const PROGRESS: Duration = Duration::from_secs(1);

/// What the tasks of a run share.
pub(crate) struct Shared<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) settings: Settings,
    pub(crate) schedule: Schedule,
    pub(crate) operations: RefCell<Operations>,
    pub(crate) record: RefCell<Record>,
    /// With strongly consistent reads.
    ledger: RefCell<Option<Ledger>>,
    address: SocketAddr,
    rate: Rate,
    measure_from: Moment,
    lines: RefCell<Vec<Rc<Line<R>>>>,
    ready: Ready<Line<R>>,
}

/// What a run measured, and how busy the client was.
pub(crate) struct Measured {
    pub(crate) record: Record,
    pub(crate) seconds: f64,
    /// Share of one core that the client used.
    pub(crate) client_cpu: f64,
    /// Latencies second by second.
    pub(crate) intervals: Vec<Interval>,
}

impl<R: Runtime> Shared<R> {
    pub(crate) fn over(&self) -> bool {
        self.runtime.now() >= self.schedule.end()
    }

    /// The pacer starts operations, not the connections.
    pub(crate) fn paced(&self) -> bool {
        self.rate != Rate::Max
    }

    pub(crate) async fn open(&self) -> io::Result<(R::Connection, Wire)> {
        let left = self.schedule.end().since(self.runtime.now());
        open_within(left.min(OPEN_MAX), &self.runtime, self.address, &self.settings).await
    }

    pub(crate) fn joined(&self, line: &Rc<Line<R>>) {
        self.lines.borrow_mut().push(line.clone());
    }

    pub(crate) fn has_free_slot(&self, line: &Rc<Line<R>>) {
        self.ready.push(line);
    }

    /// An operation starts; gives what it may see.
    pub(crate) fn starts(&self, operation: Operation) -> View {
        match &mut *self.ledger.borrow_mut() {
            Some(ledger) => ledger.start(operation),
            None => View::default(),
        }
    }

    pub(crate) fn ended(&self, pending: &Pending, answer: Answer, now: Moment) {
        let outcome = self.judge(pending, answer);
        let mut record = self.record.borrow_mut();
        if pending.intended >= self.measure_from {
            let (latency, service) = (now.since(pending.intended), now.since(pending.sent));
            record.ended(pending.operation, &outcome, latency, service);
        } else if outcome.is_damage() {
            // What began during the warm-up is not measured, but data that is lost is lost at any time.
            record.damage(&outcome);
        }
    }

    /// What came of an operation when the writes before it are looked at.
    fn judge(&self, pending: &Pending, answer: Answer) -> Outcome {
        let mut ledger = self.ledger.borrow_mut();
        let Some(ledger) = &mut *ledger else {
            return answer.outcome;
        };
        match (pending.operation, answer.generation) {
            (Operation::Put { key, generation, .. }, _) => {
                let end = match &answer.outcome {
                    Outcome::Good => End::Acknowledged,
                    Outcome::Failed(name) if REFUSALS.contains(&name.as_str()) => End::Refused,
                    // Its condition was false.
                    Outcome::Missing => End::Refused,
                    _ => End::Unknown,
                };
                ledger.end(key, generation, end);
            }
            // A global index may be behind.
            (
                Operation::Get {
                    how: Reading::Global, ..
                },
                _,
            ) => {}
            (Operation::Get { .. }, Some(generation)) if !ledger.allows(&pending.view, generation) => {
                return Outcome::Stale;
            }
            (Operation::Get { .. }, _) => {}
        }
        answer.outcome
    }

    /// A connection broke or could not be opened: an error of its own while the run is measured.
    pub(crate) fn broke(&self, error: &str) {
        if self.runtime.now() >= self.measure_from && !self.over() {
            self.record.borrow_mut().error(error);
        }
    }

    pub(crate) fn lost(&self, operation: Operation, intended: Moment, now: Moment) {
        if let (Operation::Put { key, generation, .. }, Some(ledger)) =
            (operation, &mut *self.ledger.borrow_mut())
        {
            ledger.end(key, generation, End::Unknown);
        }
        if intended >= self.measure_from {
            self.record.borrow_mut().lost(operation, now.since(intended));
        }
    }

    async fn pace(&self) {
        loop {
            let now = self.runtime.now();
            let Some(line) = self.ready.take() else {
                if self.over() {
                    return;
                }
                self.ready.pushed().await;
                continue;
            };
            match self.schedule.take(now) {
                Due::Now(intended) => {
                    let operation = self.operations.borrow_mut().next();
                    match line.start(operation, intended, now) {
                        Started::No => {
                            // The slot was taken meanwhile, or the connection broke: the operation goes to another.
                            self.restart(operation, intended).await;
                        }
                        Started::AndFree => {
                            line.kick();
                            self.ready.put_back(line);
                        }
                        Started::AndFull => line.kick(),
                    }
                }
                Due::At(moment) => {
                    self.ready.put_back(line);
                    self.runtime.sleep(moment.since(now).max(PACE)).await;
                }
                Due::Never => return,
            }
        }
    }

    /// Finds another line for an operation already taken from the schedule.
    async fn restart(&self, operation: Operation, intended: Moment) {
        loop {
            let now = self.runtime.now();
            match self.ready.take() {
                Some(line) => match line.start(operation, intended, now) {
                    Started::No => {}
                    started => {
                        line.kick();
                        if started == Started::AndFree {
                            self.ready.put_back(line);
                        }
                        return;
                    }
                },
                None if self.over() => {
                    self.lost(operation, intended, now);
                    return;
                }
                None => self.ready.pushed().await,
            }
        }
    }
}

/// Resolves the target once.
///
/// # Errors
/// The resolver's error, or none of its addresses.
pub(crate) fn resolve(settings: &Settings) -> io::Result<SocketAddr> {
    let target = &settings.common.target;
    (target.host.as_str(), target.port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host name has no address"))
}

/// Opens a connection and prepares its protocol.
///
/// # Errors
/// The connection's or the handshake's error, or that it takes longer than [`OPEN_MAX`].
pub(crate) async fn open<R: Runtime>(
    runtime: &R,
    address: SocketAddr,
    settings: &Settings,
) -> io::Result<(R::Connection, Wire)> {
    open_within(OPEN_MAX, runtime, address, settings).await
}

async fn open_within<R: Runtime>(
    limit: Duration,
    runtime: &R,
    address: SocketAddr,
    settings: &Settings,
) -> io::Result<(R::Connection, Wire)> {
    let opening = async {
        let connection = runtime.connect(address).await?;
        let wire = Wire::open(runtime, &connection, settings).await?;
        Ok((connection, wire))
    };
    within(runtime, limit, "connection", opening).await
}

/// What `work` gives, or that it took too long for what was `awaited`.
pub(crate) async fn within<R: Runtime, T>(
    runtime: &R,
    limit: Duration,
    awaited: &str,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(runtime, limit, work).await.unwrap_or_else(|_| {
        let message = format!("no {awaited} within {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

/// Runs a workload.
///
/// # Errors
/// When a connection cannot be opened at the start; `InvalidInput` when there is no table, it is another than the workload is
/// for, or its items are fewer or of another size than the run's.
pub(crate) async fn run<R: Runtime>(
    runtime: R,
    options: &Run,
    mut settings: Settings,
) -> io::Result<Measured> {
    let address = resolve(&settings)?;
    settings.before = generations_begin(runtime.random_u64());
    look(&runtime, address, &settings, options.workload).await?;
    let connections = settings.common.connections;
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(open(&runtime, address, &settings).await?);
    }
    let distribution = options
        .distribution
        .unwrap_or_else(|| options.workload.default_distribution());
    let common = &settings.common;
    let operations = Operations::new(
        options.workload,
        distribution,
        common.items,
        common.seed,
        settings.before,
    );
    let ledger = settings
        .consistent
        .then(|| Ledger::new(common.items, operations.generation()));
    let start = runtime.now();
    let measure_from = start + options.warmup;
    let shared = Rc::new(Shared {
        runtime: runtime.clone(),
        schedule: Schedule::new(start, options.warmup + options.duration, options.rate),
        operations: RefCell::new(operations),
        record: RefCell::new(Record::new()),
        ledger: RefCell::new(ledger),
        address,
        rate: options.rate,
        measure_from,
        lines: RefCell::default(),
        ready: Ready::new(),
        settings,
    });
    let working = Rc::new(std::cell::Cell::new(connections));
    let all_ended = Rc::new(Notify::new());
    for first in opened {
        let (shared, working, all_ended) = (shared.clone(), working.clone(), all_ended.clone());
        runtime.spawn(Queue::Foreground, async move {
            work(shared, first).await;
            working.set(working.get() - 1);
            all_ended.notify_one();
        });
    }
    if shared.paced() {
        let pacer = shared.clone();
        runtime.spawn(Queue::Foreground, async move { pacer.pace().await });
    }
    let (intervals, client_cpu) = watch(&shared, options).await;

    // Idle connections wait for answers that nobody asked for; busy ones get a while.
    let limit = runtime.now() + DRAIN_MAX;
    for line in shared.lines.borrow().iter().filter(|line| line.idle()) {
        line.shutdown();
    }
    while working.get() > 0 && runtime.now() < limit {
        runtime.sleep(Duration::from_millis(10)).await;
        for line in shared.lines.borrow().iter().filter(|line| line.idle()) {
            line.shutdown();
        }
    }
    for line in shared.lines.borrow().iter() {
        line.shutdown();
    }
    while working.get() > 0 {
        all_ended.notified().await;
    }
    // The pacer may wait for a free slot that will not come.
    shared.ready.clear();
    shared.lines.borrow_mut().clear();
    let end = shared.schedule.end();
    for intended in shared
        .schedule
        .never_started()
        .filter(|&intended| intended >= measure_from)
    {
        let operation = shared.operations.borrow_mut().next();
        shared
            .record
            .borrow_mut()
            .never_started(operation, end.since(intended));
    }
    let record = shared.record.replace(Record::new());
    Ok(Measured {
        record,
        seconds: options.duration.as_secs_f64(),
        client_cpu,
        intervals,
    })
}

/// Prints progress until the end; gives the interval histograms and the share of a core that the client used.
async fn watch<R: Runtime>(shared: &Shared<R>, options: &Run) -> (Vec<Interval>, f64) {
    let runtime = &shared.runtime;
    let until = |moment: Moment| runtime.sleep(moment.since(runtime.now()));
    until(shared.measure_from).await;
    let cpu_before = thread_cpu();
    let terminal = io::stderr().is_terminal();
    let mut intervals = Vec::new();
    let mut interval = Record::new().interval;
    let mut from = shared.measure_from;
    while from < shared.schedule.end() {
        let to = (from + PROGRESS).min(shared.schedule.end());
        until(to).await;
        let errors = {
            let mut record = shared.record.borrow_mut();
            interval.reset();
            std::mem::swap(&mut record.interval, &mut interval);
            std::mem::take(&mut record.interval_errors)
        };
        let seconds = to.since(from).as_secs_f64();
        let kept = Interval::new(seconds, &interval, options.hdr.is_some());
        let line = format!(
            "{:>6.0} s  {:>9.0}/s  p50 {:>8.3} ms  p99 {:>8.3} ms  errors {}",
            to.since(shared.measure_from).as_secs_f64(),
            kept.count as f64 / seconds,
            milliseconds(kept.percentiles[0]),
            milliseconds(kept.percentiles[1]),
            errors,
        );
        if terminal {
            eprint!("\r{line}\x1b[K");
            // Progress that cannot be shown does no harm.
            let _ = io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
        intervals.push(kept);
        from = to;
    }
    if terminal {
        eprintln!();
    }
    let client_cpu = (thread_cpu() - cpu_before).as_secs_f64() / options.duration.as_secs_f64();
    (intervals, client_cpu)
}

pub(crate) fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
#[path = "run_test.rs"]
mod tests;
