//! The traits that separate Cairn from the world.
//!
//! Rules that every implementation keeps and the conformance suite checks:
//! - All futures are `!Send` and belong to one shard. Dropping a future of a drive operation does **not** cancel
//!   the operation: its buffer stays alive until the operation has ended, and the write may or may not happen.
//! - A completed `File::write_at` on a file opened with [`Open::durable`] survives a crash; one that has not
//!   completed may be torn at 512-byte granularity or missing. A directory change survives after `Drive::sync`.
//! - `spawn` never runs the future inline; tasks of one queue are run first in, first out.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::{Add, Sub};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::AlignedBuffer;

/// Unit of drive I/O: offsets and lengths of every read and write are multiples of this many bytes.
pub const BLOCK_BYTES: usize = 4096;

/// A point of monotonic time in nanoseconds since an arbitrary origin of this process or simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment {
    /// Nanoseconds since the origin.
    pub nanoseconds: u64,
}

impl Moment {
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.nanoseconds.saturating_sub(earlier.nanoseconds))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Moment {
            nanoseconds: self.nanoseconds.saturating_add(nanoseconds),
        }
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.since(earlier)
    }
}

/// Index of a shard within its node, `0..shards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardIndex(pub usize);

/// Task queues of a shard, with fixed shares of its core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// Requests, log writes, network: latency class 100 us.
    Foreground,
    /// Peer traffic.
    Replication,
    /// Flush, compaction, scrub: yields to the others.
    Background,
}

/// The world as one shard sees it. Cheap to clone.
pub trait Runtime: Clone + 'static {
    /// A drive: one directory on one device.
    type Drive: Drive;
    /// A listening TCP socket.
    type Listener: Listener<Connection = Self::Connection>;
    /// A TCP connection.
    type Connection: Connection;

    /// Monotonic time. Cheap enough to call several times per request.
    fn now(&self) -> Moment;

    /// Wall clock, milliseconds since the Unix epoch. May jump in either direction.
    fn unix_ms(&self) -> u64;

    /// 64 random bits; not for secrets.
    fn random_u64(&self) -> u64;

    /// Fills `bytes` with randomness fit for salts and keys (seeded in the simulator).
    fn random_secret(&self, bytes: &mut [u8]);

    /// The shard this handle belongs to.
    fn shard(&self) -> ShardIndex;

    /// Number of shards of the node.
    fn shards(&self) -> usize;

    /// Starts a detached task on this shard. Its end is observed through [`crate::sync`].
    fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static);

    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;

    /// Lets every other runnable task of the queue run once.
    fn yield_now(&self) -> impl Future<Output = ()> + 'static;

    /// Opens the directory `path` as a drive. `create` makes the directory and its parents when missing;
    /// otherwise a missing directory is `NotFound`.
    fn drive(&self, path: &Path, create: bool) -> impl Future<Output = io::Result<Self::Drive>> + 'static;

    /// Where `path` leads: absolute, without `.`, `..` and links. What is not there, or cannot be looked at, is taken as it is
    /// spelled. Two paths of one directory lead to the same.
    fn resolve(&self, path: &Path) -> PathBuf;

    /// Listens on `address` with `SO_REUSEPORT`, so that every shard can accept on the same port.
    /// Port 0 picks a free port.
    ///
    /// # Errors
    /// The socket's error, such as `AddrInUse`.
    fn listen(&self, address: SocketAddr) -> io::Result<Self::Listener>;

    /// Connects to `address` with `TCP_NODELAY`.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Connection>> + 'static;
}

/// How [`Drive::open`] opens a file. All files are opened for direct I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Open {
    /// Fail with `AlreadyExists` when the file exists, else create it. Without it a missing file is `NotFound`.
    pub create_new: bool,
    /// Every completed write is durable (`O_DSYNC`).
    pub durable: bool,
    /// Refuse writes.
    pub read_only: bool,
}

/// A file's name and length in a drive's directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Name within the drive.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// Space on a drive's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes that this process may still write.
    pub free_bytes: u64,
}

/// Whether an operation of a drive or file failed because the process or the machine has run out of descriptors or
/// memory: that says nothing about the drive, and passes.
#[must_use]
pub fn is_exhaustion(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory
}

/// The kind under which a drive hands an error on, when it adds what was attempted.
pub(crate) fn kind_of(error: &io::Error) -> io::ErrorKind {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => io::ErrorKind::OutOfMemory,
        _ => error.kind(),
    }
}

/// One directory on one device: a flat set of files. Cheap to clone. Names hold no separator.
pub trait Drive: Clone + 'static {
    /// An open file.
    type File: File;

    /// The path an operator would recognise.
    fn path(&self) -> &Path;

    /// Identifies the device: two drives that answer alike share one.
    fn device(&self) -> u64;

    /// Takes the directory's exclusive lock until this process ends or [`Drive::abandon`]; `WouldBlock` when another holds it.
    ///
    /// # Errors
    /// `WouldBlock`, or the file system's error.
    fn lock(&self) -> io::Result<()>;

    /// Gives back the lock that this handle took, and removes what opening and locking it have made: the file of the lock, and
    /// directories, as far as nothing is in them. Nothing may be asked of the handle any more.
    fn abandon(&self);

    /// Opens a file.
    fn open(&self, name: &str, how: Open) -> impl Future<Output = io::Result<Self::File>> + 'static;

    /// All files, sorted by name. The lock file is not listed.
    fn list(&self) -> impl Future<Output = io::Result<Vec<Entry>>> + 'static;

    /// What there is in the directory beside files, sorted: directories, links, what has a name that is no text. It is in no
    /// [`Drive::list`].
    fn strangers(&self) -> impl Future<Output = io::Result<Vec<String>>> + 'static;

    /// Renames a file, replacing `to` atomically. Durable after [`Drive::sync`].
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> + 'static;

    /// Hard-links the file `from` as `to` in the directory `into`, which may be another one of the same file system, else it is
    /// `CrossesDevices`. Durable after [`Drive::sync`] of `into`.
    fn link(&self, from: &str, into: &Self, to: &str) -> impl Future<Output = io::Result<()>> + 'static;

    /// Removes a file. Durable after [`Drive::sync`].
    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + 'static;

    /// Makes every creation, rename, link and removal so far durable.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static;

    /// Size and free space of the file system.
    ///
    /// # Errors
    /// The file system's error.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. Cheap to clone; closed when the last clone is dropped and no operation is in flight.
///
/// Offsets and lengths are multiples of [`BLOCK_BYTES`]. At most one write may be in flight to a block
/// (checked by the simulator).
pub trait File: Clone + 'static {
    /// Reads `bytes` bytes at `offset`. A read that reaches past the end of the file is `UnexpectedEof`.
    fn read_at(&self, offset: u64, bytes: usize)
    -> impl Future<Output = io::Result<AlignedBuffer>> + 'static;

    /// Writes the whole buffer at `offset`; never short. Shared so that one buffer can go to every mirror.
    fn write_at(
        &self,
        offset: u64,
        bytes: Rc<AlignedBuffer>,
    ) -> impl Future<Output = io::Result<()>> + 'static;

    /// Allocates space so that the file is at least `bytes` long, filled with zeros; `StorageFull` when it
    /// does not fit.
    fn allocate(&self, bytes: u64) -> impl Future<Output = io::Result<()>> + 'static;

    /// Makes all completed writes durable (`fdatasync`).
    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static;

    /// Length in bytes.
    ///
    /// # Errors
    /// The file system's error.
    fn bytes(&self) -> io::Result<u64>;
}

/// A listening socket.
pub trait Listener: 'static {
    /// What it accepts.
    type Connection: Connection;

    /// The next connection. Survives `EMFILE`, `ENFILE` and aborted connections; an error is final.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>>;

    /// The bound address, with the real port.
    fn address(&self) -> SocketAddr;
}

/// A TCP connection. Cheap to clone; one receive and one send may be in flight at the same time.
/// Closed when the last clone is dropped.
pub trait Connection: Clone + 'static {
    /// Appends what has arrived to `into`; resolves with the number of bytes, 0 at the peer's end of stream.
    fn receive(&self, into: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>>;

    /// Sends all of `bytes` and gives the buffer back, emptied, for reuse.
    fn send(&self, bytes: Vec<u8>) -> impl Future<Output = io::Result<Vec<u8>>> + 'static;

    /// Ends both directions at once; pending operations resolve.
    fn shutdown(&self);

    /// The peer's address.
    fn peer(&self) -> SocketAddr;
}
