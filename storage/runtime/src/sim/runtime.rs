//! The seam's [`Runtime`] for one shard of one simulated node.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::disk::no_device;
use super::drive::SimDrive;
use super::network::Attempt;
use super::socket::{SimConnection, SimListener};
use super::storage::Origin;
use super::trace::Step;
use super::world::World;

use crate::seam::{Moment, Queue, Runtime, ShardIndex};

/// The simulated world as one shard sees it, until its node crashes.
#[derive(Clone)]
pub struct SimRuntime {
    pub(super) world: Rc<World>,
    pub(super) node: usize,
    pub(super) incarnation: u32,
    pub(super) shard: usize,
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimRuntime(node {}, shard {})", self.node, self.shard)
    }
}

impl Runtime for SimRuntime {
    type Drive = SimDrive;
    type Listener = SimListener;
    type Connection = SimConnection;

    fn now(&self) -> Moment {
        self.world.monotonic(self.node)
    }

    fn unix_ms(&self) -> u64 {
        self.world.unix_ms(self.node)
    }

    fn random_u64(&self) -> u64 {
        self.world.random.borrow_mut().next_u64()
    }

    fn random_secret(&self, bytes: &mut [u8]) {
        self.world.random.borrow_mut().fill(bytes);
        self.world
            .record(Step::Random, self.node as u64, bytes.len() as u64);
    }

    fn shard(&self) -> ShardIndex {
        ShardIndex(self.shard)
    }

    fn shards(&self) -> usize {
        self.world.nodes.borrow()[self.node].shards
    }

    fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static) {
        self.world
            .spawn(self.node, self.incarnation, self.shard, queue, Box::pin(future));
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let at = self.world.after(self.node, duration);
        Sleep {
            world: Rc::clone(&self.world),
            at,
            timer: None,
        }
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        let mut yielded = false;
        std::future::poll_fn(move |context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn drive(&self, path: &Path, create: bool) -> impl Future<Output = io::Result<SimDrive>> + 'static {
        let (runtime, path) = (self.clone(), path.to_owned());
        async move {
            let SimRuntime {
                ref world,
                node,
                incarnation,
                ..
            } = runtime;
            let disk = world.disk_at(node, &path);
            let delay = {
                let mut storage = world.storage.borrow_mut();
                storage.random.within(&world.config.drive.metadata_us)
            };
            runtime.sleep(Duration::from_micros(delay)).await;
            let (generation, made) = {
                let disk = &mut world.storage.borrow_mut().disks[disk];
                if !disk.attached {
                    return Err(no_device());
                }
                if !disk.exists && !create {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let made = !std::mem::replace(&mut disk.exists, true);
                (disk.generation, made)
            };
            let origin = Origin {
                node,
                incarnation,
                disk,
                generation,
            };
            Ok(SimDrive::new(Rc::clone(world), origin, path, made))
        }
    }

    /// There are no links.
    fn resolve(&self, path: &Path) -> PathBuf {
        let mut resolved = PathBuf::from("/");
        for part in path.components() {
            match part {
                Component::Normal(name) => resolved.push(name),
                Component::ParentDir => drop(resolved.pop()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        resolved
    }

    fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        if !self.world.alive(self.node, self.incarnation) {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        let bound = self.world.listen(self.node, address)?;
        Ok(SimListener::new(Rc::clone(&self.world), self.node, bound))
    }

    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<SimConnection>> + 'static {
        let runtime = self.clone();
        async move {
            let world = &runtime.world;
            let mut retry_after = Duration::from_millis(200);
            let mut waited = Duration::ZERO;
            loop {
                let delay = Duration::from_nanos(world.connect_delay_ns(runtime.node, address));
                runtime.sleep(delay).await;
                match world.attempt(runtime.node, address) {
                    Attempt::Connected(side, peer) => {
                        let connection = SimConnection::new(Rc::clone(world), side, peer);
                        runtime.sleep(delay).await;
                        return Ok(connection);
                    }
                    Attempt::Refused => {
                        runtime.sleep(delay).await;
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    Attempt::Silence if waited >= world.config.network.timeout => {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    Attempt::Silence => {
                        runtime.sleep(retry_after).await;
                        waited += retry_after;
                        retry_after *= 2;
                    }
                }
            }
        }
    }
}

/// Resolves at a moment of the simulation's clock.
struct Sleep {
    world: Rc<World>,
    at: u64,
    timer: Option<(u32, u32)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now.get() >= self.at {
            return Poll::Ready(());
        }
        let mut agenda = self.world.agenda.borrow_mut();
        match self.timer {
            Some(timer) => agenda.set_timer_waker(timer, context.waker()),
            None => {
                let timer = agenda.add_timer(self.at, context.waker().clone());
                drop(agenda);
                self.timer = Some(timer);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let waker = self.world.agenda.borrow_mut().take_timer(timer);
            drop(waker);
        }
    }
}
