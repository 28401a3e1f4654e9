//! Starting and ending the shards of a process.

use std::fmt;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};

use crate::ShardIndex;
use crate::real::driver::Driver;
use crate::real::ring::{KernelRefusal, Ring, RingConfig, check_kernel};
use crate::real::scheduler::Scheduler;
use crate::real::shard::{RealRuntime, TaskQueues};
use crate::real::signal::Signal;
use crate::real::task;

/// glommio's preempt timer, out of reach on purpose: when it fires at the wrong moment glommio parks with runnable
/// tasks and would hang a shard (see [`super::driver`]); what it is for is done by [`Config::slice`].
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);

/// How many shards there are and how each is set up. The defaults are those of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of shards, at least one. Default: the processors this process may use.
    pub shards: usize,
    /// Pin each shard to a processor of its own, when there are enough of them. Default: true.
    pub pin: bool,
    /// How long one task queue runs while another has runnable tasks. Default: 200 us.
    pub slice: Duration,
    /// How long an idle shard spins for a completion before it sleeps. More than 20 us starves the kernel's own
    /// workers on the core. Default: 0.
    pub spin: Duration,
    /// Shares of the core of the foreground, replication and background queues while all have work.
    /// Default: 1000, 400, 100.
    pub shares: [usize; 3],
    /// Entries of the ring's submission queue; more than that queued at once is submitted in several calls.
    /// Default: 1,024.
    pub submission_entries: u32,
    /// Entries of the ring's completion queue. Default: 8,192.
    pub completion_entries: u32,
    /// Receive buffers of 4 KiB per shard, a power of two up to 32,768. Default: 1,024.
    pub receive_buffers: u16,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            shards: processors().len().max(1),
            pin: true,
            slice: Duration::from_micros(200),
            spin: Duration::ZERO,
            shares: [1000, 400, 100],
            submission_entries: 1024,
            completion_entries: 8192,
            receive_buffers: 1024,
        }
    }
}

/// Why the shards cannot run here.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Linux 6.1 or newer is required.
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// This process may not use io_uring.
    RingForbidden(io::Error),
    /// The configuration is impossible; the text says which value.
    Config(&'static str),
    /// A shard could not be set up.
    Shard {
        /// Which one.
        shard: ShardIndex,
        /// What failed.
        reason: String,
    },
    /// The kernel refused a ring for another reason.
    Ring(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::KernelTooOld { release } => {
                write!(formatter, "Linux 6.1 or newer is required; this is {release}")
            }
            Error::RingForbidden(error) => write!(
                formatter,
                "io_uring is forbidden to this process ({error}): a container's seccomp profile or the sysctl \
                 kernel.io_uring_disabled blocks it, and Cairn needs it"
            ),
            Error::Config(reason) => formatter.write_str(reason),
            Error::Shard { shard, reason } => write!(formatter, "shard {} cannot start: {reason}", shard.0),
            Error::Ring(error) => write!(formatter, "the kernel refuses an io_uring: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::RingForbidden(error) | Error::Ring(error) => Some(error),
            _ => None,
        }
    }
}

impl From<KernelRefusal> for Error {
    fn from(refusal: KernelRefusal) -> Error {
        match refusal {
            KernelRefusal::TooOld { release } => Error::KernelTooOld { release },
            KernelRefusal::Forbidden(error) => Error::RingForbidden(error),
            KernelRefusal::Other(error) => Error::Ring(error),
        }
    }
}

/// Runs `start` on every shard and blocks until all the futures it gave have ended.
///
/// A shard ends with its start future: its other tasks are dropped where they wait, its network operations
/// cancelled, and its drive operations waited for. No shard starts before all are set up.
///
/// # Errors
/// When the kernel is too old or forbids io_uring, the configuration is impossible, or a shard cannot be set up;
/// then `start` has not been called.
pub fn run<F, Fut>(config: Config, start: F) -> Result<(), Error>
where
    F: Fn(RealRuntime) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    check(&config)?;
    check_kernel()?;
    let processors = processors();
    let pin = config.pin && config.shards <= processors.len();
    let (ready, set_up) = mpsc::channel();
    let mut begins = Vec::new();
    let mut threads = Vec::new();
    let mut failure = None;
    for index in 0..config.shards {
        let shard = ShardIndex(index);
        let (begin, begun) = mpsc::channel::<()>();
        let (config, start, ready) = (config.clone(), start.clone(), ready.clone());
        let placement = match processors.get(index) {
            Some(&processor) if pin => Placement::Fixed(processor),
            _ => Placement::Unbound,
        };
        let spawned = LocalExecutorBuilder::new(placement)
            .name("shard")
            .preempt_timer(PREEMPT_TIMER)
            // Unused: files and sockets go through the shard ring.
            .io_memory(64 << 10)
            .ring_depth(32)
            .spawn(move || shard_main(config, shard, start, ready, begun));
        match spawned {
            Ok(thread) => {
                threads.push(thread);
                begins.push(begin);
            }
            Err(error) => {
                failure = Some(Error::Shard {
                    shard,
                    reason: error.to_string(),
                });
                break;
            }
        }
    }
    drop(ready);
    // Each shard reports once; one whose executor could not be made reports nothing and fails when joined.
    let reports: Vec<Result<(), Error>> = set_up.iter().take(begins.len()).collect();
    let complete = reports.len() == config.shards;
    failure = failure.or_else(|| reports.into_iter().find_map(Result::err));
    if failure.is_none() && complete {
        for begin in &begins {
            // A shard that has gone meanwhile is noticed when it is joined.
            let _ = begin.send(());
        }
    }
    drop(begins);
    for (thread, index) in threads.into_iter().zip(0..) {
        if let Err(error) = thread.join() {
            failure = failure.or(Some(Error::Shard {
                shard: ShardIndex(index),
                reason: error.to_string(),
            }));
        }
    }
    failure.map_or(Ok(()), Err)
}

/// One shard's thread, from its set-up to its end.
async fn shard_main<F, Fut>(
    config: Config,
    shard: ShardIndex,
    start: F,
    ready: mpsc::Sender<Result<(), Error>>,
    begun: mpsc::Receiver<()>,
) where
    F: Fn(RealRuntime) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let (runtime, driver) = match set_up(&config, shard) {
        Ok(made) => made,
        Err(reason) => {
            let _ = ready.send(Err(Error::Shard { shard, reason }));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    drop(ready);
    // Blocks the thread: nothing else runs on it yet.
    if begun.recv().is_err() {
        return;
    }
    let scheduler = runtime.scheduler();
    task::enter(Some(Rc::clone(&scheduler)));
    let queues = runtime.queues();
    let driver = glommio::spawn_local_into(driver.run(), queues.foreground)
        .expect("the queue was made by this executor")
        .detach();
    runtime.start(start(runtime.clone()));
    driver.await;
    task::enter(None);
    scheduler.signal().close();
}

fn set_up(config: &Config, shard: ShardIndex) -> Result<(RealRuntime, Driver), String> {
    let ring = Ring::new(RingConfig {
        submission_entries: config.submission_entries,
        completion_entries: config.completion_entries,
        receive_buffers: config.receive_buffers,
    })
    .map_err(|error| format!("no ring: {error}"))?;
    let signal = Signal::new().map_err(|error| format!("no eventfd: {error}"))?;
    let eventfd = signal
        .descriptor()
        .map_err(|error| format!("no eventfd: {error}"))?;
    let scheduler = Rc::new(Scheduler::new(Arc::new(signal), ring, config.slice));
    // The latency class would shorten glommio's preempt timer, which is not what ends a slice here.
    let queue = |name, shares| {
        glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
    };
    let [foreground, replication, background] = config.shares;
    let queues = TaskQueues {
        foreground: queue("foreground", foreground),
        replication: queue("replication", replication),
        background: queue("background", background),
    };
    let driver = Driver::new(Rc::clone(&scheduler), eventfd, config.spin);
    let runtime =
        RealRuntime::new(shard, config.shards, scheduler, queues).map_err(|error| error.to_string())?;
    Ok((runtime, driver))
}

fn check(config: &Config) -> Result<(), Error> {
    if config.shards == 0 {
        return Err(Error::Config("a node has at least one shard"));
    }
    if !config.receive_buffers.is_power_of_two() || config.receive_buffers > 1 << 15 {
        return Err(Error::Config(
            "the number of receive buffers is a power of two up to 32,768",
        ));
    }
    if config.submission_entries == 0 || config.completion_entries < config.submission_entries {
        return Err(Error::Config(
            "the completion queue is at least as long as the submission queue",
        ));
    }
    if config.shares.contains(&0) {
        return Err(Error::Config("every task queue has a share of at least 1"));
    }
    Ok(())
}

/// The processors that this process may use.
fn processors() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&processor| set.is_set(processor))
        .collect()
}
