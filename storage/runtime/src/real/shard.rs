//! The world as one real shard sees it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::TaskQueueHandle;

use crate::real::clock;
use crate::real::drive::{self, RealDrive};
use crate::real::network::{self, RealConnection, RealListener};
use crate::real::ring::RingStats;
use crate::real::scheduler::Scheduler;
use crate::real::task::Task;
use crate::real::timers::Sleep;
use crate::{Moment, Queue, Runtime, ShardIndex};

/// A handle on one shard of [`super::run`]. Belongs to the shard's thread.
#[derive(Clone)]
pub struct RealRuntime {
    shard: Rc<Shard>,
}

struct Shard {
    index: ShardIndex,
    shards: usize,
    scheduler: Rc<Scheduler>,
    queues: TaskQueues,
    random: Cell<u64>,
}

/// The glommio queues of a shard.
#[derive(Clone, Copy)]
pub(super) struct TaskQueues {
    pub(super) foreground: TaskQueueHandle,
    pub(super) replication: TaskQueueHandle,
    pub(super) background: TaskQueueHandle,
}

impl RealRuntime {
    pub(super) fn new(
        index: ShardIndex,
        shards: usize,
        scheduler: Rc<Scheduler>,
        queues: TaskQueues,
    ) -> io::Result<RealRuntime> {
        let mut seed = [0; 8];
        fill_random(&mut seed)?;
        let random = Cell::new(u64::from_ne_bytes(seed));
        Ok(RealRuntime {
            shard: Rc::new(Shard {
                index,
                shards,
                scheduler,
                queues,
                random,
            }),
        })
    }

    pub(super) fn scheduler(&self) -> Rc<Scheduler> {
        Rc::clone(&self.shard.scheduler)
    }

    pub(super) fn queues(&self) -> TaskQueues {
        self.shard.queues
    }

    /// Spawns the future whose end is the shard's.
    pub(super) fn start(&self, future: impl Future<Output = ()> + 'static) {
        let scheduler = self.scheduler();
        self.spawn(Queue::Foreground, async move {
            future.await;
            scheduler.request_stop();
        });
    }

    /// What was set up and counted by this shard's ring.
    #[must_use]
    pub fn ring_stats(&self) -> RingStats {
        self.shard.scheduler.ring().stats()
    }

    /// Tasks of this shard that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.shard.scheduler.tasks()
    }
}

impl Runtime for RealRuntime {
    type Drive = RealDrive;
    type Listener = RealListener;
    type Connection = RealConnection;

    fn now(&self) -> Moment {
        clock::now()
    }

    fn unix_ms(&self) -> u64 {
        clock::unix_ms()
    }

    fn random_u64(&self) -> u64 {
        // SplitMix64: one addition and three mixes, seeded by the kernel.
        let state = self.shard.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.shard.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn random_secret(&self, bytes: &mut [u8]) {
        fill_random(bytes).expect("the kernel's random source is never exhausted once it has been seeded");
    }

    fn shard(&self) -> ShardIndex {
        self.shard.index
    }

    fn shards(&self) -> usize {
        self.shard.shards
    }

    fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static) {
        let scheduler = &self.shard.scheduler;
        if scheduler.is_stopping() {
            // As every other task of a shard that has ended.
            return;
        }
        let handle = match queue {
            Queue::Foreground => self.shard.queues.foreground,
            Queue::Replication => self.shard.queues.replication,
            Queue::Background => self.shard.queues.background,
        };
        glommio::spawn_local_into(Task::new(scheduler, queue, future), handle)
            .expect("the queue was made by this executor")
            .detach();
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        Sleep::new(Rc::clone(self.shard.scheduler.timers()), duration)
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        let mut yielded = false;
        poll_fn(move |context| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn drive(&self, path: &Path, create: bool) -> impl Future<Output = io::Result<RealDrive>> + 'static {
        let (ring, path) = (Rc::clone(self.shard.scheduler.ring()), path.to_path_buf());
        async move { drive::open(ring, path, create) }
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        drive::resolve(path)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<RealListener> {
        let scheduler = &self.shard.scheduler;
        network::listen(
            Rc::clone(scheduler.ring()),
            Rc::clone(scheduler.timers()),
            address,
        )
    }

    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<RealConnection>> + 'static {
        network::connect(Rc::clone(self.shard.scheduler.ring()), address)
    }
}

fn fill_random(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(filled) => bytes = &mut bytes[filled..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
