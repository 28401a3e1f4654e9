//! Drives: directories whose files are read and written with direct I/O through the shard ring.
//!
//! - A read or write that the kernel cuts short is continued where it stopped; a write that stops inside a block is
//!   an error, never a success.
//! - Errors name the operation and the file, and keep their kind.
//! - A file system without direct I/O (some overlay and network file systems in containers) is used through the
//!   page cache; durable writes stay durable, because `O_DSYNC` and `fdatasync` mean the same there. That is said
//!   once on the error output and by [`RealDrive::is_direct`].
//! - Opening a drive, listing it and asking for lengths are plain system calls: rare, short, and on metadata that
//!   is in memory.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::fmt;
use std::fs::{DirBuilder, Metadata};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::real::ring::{Operation, Outcome, Resource, Ring, descriptor as owned_descriptor};
use crate::seam::kind_of;
use crate::{AlignedBuffer, BLOCK_BYTES, Drive, Entry, File, Open, Space};

/// Holds the directory's lock; not listed as a file of the drive.
const LOCK_NAME: &str = "cairn.lock";
/// How often the lock's file may go between being opened and being locked: only a process that abandons the directory removes it.
const LOCK_TRIES_MAX: u32 = 16;

/// Written at once when a file system cannot allocate.
const ZEROS_BYTES: usize = 1 << 20;

const DIRECTORY_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// A directory on a real device.
#[derive(Clone)]
pub struct RealDrive {
    directory: Rc<Directory>,
}

struct Directory {
    ring: Rc<Ring>,
    path: PathBuf,
    descriptor: Rc<OwnedFd>,
    device: u64,
    direct: Cell<bool>,
    /// Directories that opening it has made, the deepest first.
    made: Vec<PathBuf>,
    lock: RefCell<Option<Lock>>,
}

/// A lock that is held.
struct Lock {
    file: OwnedFd,
    /// Whether its file was not there before.
    made: bool,
}

/// As [`crate::Runtime::resolve`].
#[must_use]
pub fn resolve(path: &Path) -> PathBuf {
    let Ok(whole) = std::path::absolute(path) else {
        return path.to_owned();
    };
    let mut missing = Vec::new();
    for there in whole.ancestors() {
        if let Ok(mut resolved) = there.canonicalize() {
            for part in missing.into_iter().rev() {
                match part {
                    Component::Normal(name) => resolved.push(name),
                    Component::ParentDir => drop(resolved.pop()),
                    _ => {}
                }
            }
            return resolved;
        }
        missing.extend(there.components().next_back());
    }
    whole
}

pub(super) fn open(ring: Rc<Ring>, path: PathBuf, create: bool) -> io::Result<RealDrive> {
    let named = |error: io::Error| described(error, "open directory", &path);
    let mut made = Vec::new();
    if create {
        let missing = path
            .ancestors()
            .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists());
        made.extend(missing.map(Path::to_owned));
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(&path)
            .map_err(named)?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| named(error.into()))?;
    let device = rustix::fs::fstat(&descriptor)
        .map_err(|error| named(error.into()))?
        .st_dev;
    Ok(RealDrive {
        directory: Rc::new(Directory {
            ring,
            path,
            descriptor: Rc::new(descriptor),
            device,
            direct: Cell::new(true),
            made,
            lock: RefCell::default(),
        }),
    })
}

impl RealDrive {
    /// False once a file of this drive had to be opened without direct I/O.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.directory.direct.get()
    }
}

impl Directory {
    /// Whether `file` is the one that has the lock's name.
    fn is_lock(&self, file: &OwnedFd) -> io::Result<bool> {
        let locked = rustix::fs::fstat(file)?;
        match rustix::fs::statat(&self.descriptor, LOCK_NAME, AtFlags::empty()) {
            Ok(named) => Ok((named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The page cache is used from here on, and the operator hears it once.
    fn fall_back(&self) {
        if self.direct.replace(false) {
            eprintln!(
                "cairn: {} is on a file system without direct I/O; its files go through the page cache \
                 (durability is the same, latency is not)",
                self.path.display()
            );
        }
    }
}

impl Drive for RealDrive {
    type File = RealFile;

    fn path(&self) -> &Path {
        &self.directory.path
    }

    fn device(&self) -> u64 {
        self.directory.device
    }

    fn lock(&self) -> io::Result<()> {
        let directory = &self.directory;
        if directory.lock.borrow().is_some() {
            return Ok(());
        }
        let path = directory.file(LOCK_NAME);
        let open = |flags: OFlags| {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | flags;
            rustix::fs::openat(
                &directory.descriptor,
                LOCK_NAME,
                flags,
                Mode::from_raw_mode(FILE_MODE),
            )
        };
        for _ in 0..LOCK_TRIES_MAX {
            let (opened, made) = match open(OFlags::empty()) {
                Err(Errno::NOENT) => (open(OFlags::CREATE | OFlags::EXCL), true),
                opened => (opened, false),
            };
            let file = match opened {
                Err(Errno::EXIST) => continue,
                opened => opened.map_err(|error| described(error.into(), "open", &path))?,
            };
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|error| described(error.into(), "lock", &path))?;
            // A lock on a file without a name excludes nobody.
            if directory
                .is_lock(&file)
                .map_err(|error| described(error, "lock", &path))?
            {
                *directory.lock.borrow_mut() = Some(Lock { file, made });
                return Ok(());
            }
        }
        Err(described(io::ErrorKind::WouldBlock.into(), "lock", &path))
    }

    fn abandon(&self) {
        let directory = &self.directory;
        let lock = directory.lock.borrow_mut().take();
        if lock
            .as_ref()
            .is_some_and(|lock| lock.made && directory.is_lock(&lock.file).unwrap_or(false))
        {
            // While it is locked: nobody else can have taken it.
            let _ = rustix::fs::unlinkat(&directory.descriptor, LOCK_NAME, AtFlags::empty());
        }
        drop(lock);
        for made in &directory.made {
            if std::fs::remove_dir(made).is_err() {
                break;
            }
        }
    }

    fn open(&self, name: &str, how: Open) -> impl Future<Output = io::Result<RealFile>> + 'static {
        let (directory, name) = (Rc::clone(&self.directory), name.to_owned());
        async move {
            let path = directory.file(&name);
            let mut flags = OFlags::CLOEXEC;
            flags |= if how.read_only {
                OFlags::RDONLY
            } else {
                OFlags::RDWR
            };
            if how.create_new {
                flags |= OFlags::CREATE | OFlags::EXCL;
            }
            if how.durable {
                flags |= OFlags::DSYNC;
            }
            loop {
                let direct = directory.direct.get();
                let wanted = if direct { flags | OFlags::DIRECT } else { flags };
                let wanted = wanted.bits().cast_signed();
                let descriptor = Rc::clone(&directory.descriptor);
                let opening = directory
                    .ring
                    .open(descriptor, file_name(&name)?, wanted, FILE_MODE)?;
                match opening.await.result {
                    Ok(opened) => {
                        let file = Rc::new(OpenFile {
                            ring: Rc::clone(&directory.ring),
                            descriptor: Rc::new(owned_descriptor(opened)),
                            path,
                            read_only: how.read_only,
                        });
                        return Ok(RealFile { file });
                    }
                    // The kernel may have made the file before it refused the flag.
                    Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
                        directory.fall_back();
                        if how.create_new {
                            let descriptor = Rc::clone(&directory.descriptor);
                            let _ = directory.ring.unlink(descriptor, file_name(&name)?)?.await;
                        }
                    }
                    Err(error) => return Err(described(error, "open", &path)),
                }
            }
        }
    }

    fn list(&self) -> impl Future<Output = io::Result<Vec<Entry>>> + 'static {
        let directory = Rc::clone(&self.directory);
        async move { list(&directory.path).map_err(|error| described(error, "list", &directory.path)) }
    }

    fn strangers(&self) -> impl Future<Output = io::Result<Vec<String>>> + 'static {
        let directory = Rc::clone(&self.directory);
        async move {
            let found = strangers(&directory.path);
            found.map_err(|error| described(error, "list", &directory.path))
        }
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> + 'static {
        let (directory, from, to) = (Rc::clone(&self.directory), from.to_owned(), to.to_owned());
        async move {
            let descriptor = Rc::clone(&directory.descriptor);
            let operation = directory
                .ring
                .rename(descriptor, file_name(&from)?, file_name(&to)?)?;
            named(operation, "rename", &directory.file(&from)).await
        }
    }

    fn link(&self, from: &str, into: &Self, to: &str) -> impl Future<Output = io::Result<()>> + 'static {
        let (directory, from, to) = (Rc::clone(&self.directory), from.to_owned(), to.to_owned());
        let into = Rc::clone(&into.directory.descriptor);
        async move {
            let descriptor = Rc::clone(&directory.descriptor);
            let operation = directory
                .ring
                .link(descriptor, file_name(&from)?, into, file_name(&to)?)?;
            named(operation, "link", &directory.file(&from)).await
        }
    }

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + 'static {
        let (directory, name) = (Rc::clone(&self.directory), name.to_owned());
        async move {
            let descriptor = Rc::clone(&directory.descriptor);
            let operation = directory.ring.unlink(descriptor, file_name(&name)?)?;
            named(operation, "remove", &directory.file(&name)).await
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let directory = Rc::clone(&self.directory);
        async move {
            let operation = directory.ring.sync(Rc::clone(&directory.descriptor), true)?;
            named(operation, "sync directory", &directory.path).await
        }
    }

    fn space(&self) -> io::Result<Space> {
        let space = rustix::fs::fstatvfs(&self.directory.descriptor)
            .map_err(|error| described(error.into(), "measure space of", &self.directory.path))?;
        Ok(Space {
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        })
    }
}

impl fmt::Debug for RealDrive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RealDrive({})", self.directory.path.display())
    }
}

fn list(path: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata: Metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // A name that is not text is none of ours.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if metadata.is_file() && name != LOCK_NAME {
            entries.push(Entry {
                name,
                bytes: metadata.len(),
            });
        }
    }
    entries.sort();
    Ok(entries)
}

fn strangers(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_none() || !entry.file_type()?.is_file() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// An open file on a real device.
#[derive(Clone)]
pub struct RealFile {
    file: Rc<OpenFile>,
}

struct OpenFile {
    ring: Rc<Ring>,
    descriptor: Rc<OwnedFd>,
    path: PathBuf,
    read_only: bool,
}

impl OpenFile {
    fn check_range(&self, operation: &str, offset: u64, bytes: usize) -> io::Result<()> {
        let aligned = offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.is_multiple_of(BLOCK_BYTES);
        // The kernel's offsets are signed.
        let in_range = offset
            .checked_add(bytes as u64)
            .is_some_and(|end| i64::try_from(end).is_ok());
        if aligned && in_range && bytes > 0 {
            return Ok(());
        }
        let reason = format!("{bytes} bytes at {offset} are not whole blocks of {BLOCK_BYTES}");
        Err(described(
            io::Error::new(io::ErrorKind::InvalidInput, reason),
            operation,
            &self.path,
        ))
    }

    fn check_writable(&self, operation: &str) -> io::Result<()> {
        if self.read_only {
            let error = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the file was opened for reading only",
            );
            return Err(described(error, operation, &self.path));
        }
        Ok(())
    }

    async fn read(&self, offset: u64, bytes: usize) -> io::Result<AlignedBuffer> {
        self.check_range("read", offset, bytes)?;
        let mut buffer = AlignedBuffer::zeroed(bytes);
        let mut done = 0;
        while done < bytes {
            let at = offset + done as u64;
            let reading = self
                .ring
                .read(Rc::clone(&self.descriptor), buffer, done, bytes, at)?;
            let Outcome { result, resource } = reading.await;
            let Resource::Read { buffer: returned, .. } = resource else {
                unreachable!("a read lends a buffer")
            };
            buffer = returned;
            done += match moved(result).map_err(|error| self.at(error, "read", at))? {
                Moved::Again => 0,
                // A length that is no multiple of a block ends inside one.
                Moved::Bytes(count)
                    if count == 0 || !count.is_multiple_of(BLOCK_BYTES) && done + count < bytes =>
                {
                    let reason = format!("the file ends at {}", at + count as u64);
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, reason);
                    return Err(self.at(error, "read", offset));
                }
                Moved::Bytes(count) => count,
            };
        }
        Ok(buffer)
    }

    async fn write(&self, offset: u64, buffer: Rc<AlignedBuffer>) -> io::Result<()> {
        self.check_writable("write")?;
        self.check_range("write", offset, buffer.len())?;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let descriptor = Rc::clone(&self.descriptor);
            let writing = self.ring.write(descriptor, Rc::clone(&buffer), done, at)?;
            done += match moved(writing.await.result).map_err(|error| self.at(error, "write", at))? {
                Moved::Again => 0,
                Moved::Bytes(count) if count == 0 || !count.is_multiple_of(BLOCK_BYTES) => {
                    let reason = format!("only {count} bytes were written");
                    return Err(self.at(io::Error::new(io::ErrorKind::WriteZero, reason), "write", at));
                }
                Moved::Bytes(count) => count,
            };
        }
        Ok(())
    }

    async fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.check_writable("allocate")?;
        let operation = self.ring.allocate(Rc::clone(&self.descriptor), bytes)?;
        match operation.await.result {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.extend_with_zeros(bytes).await
            }
            Err(error) => Err(described(error, "allocate", &self.path)),
        }
    }

    /// What `allocate` means where the file system cannot: the space is taken by writing it.
    async fn extend_with_zeros(&self, bytes: u64) -> io::Result<()> {
        let mut offset = self.bytes()?;
        while offset < bytes {
            let rest = usize::try_from(bytes - offset)
                .unwrap_or(usize::MAX)
                .min(ZEROS_BYTES);
            let zeros = Rc::new(AlignedBuffer::zeroed(rest));
            let written = zeros.len() as u64;
            self.write(offset, zeros).await?;
            offset += written;
        }
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::fstat(self.descriptor.as_fd())
            .map_err(|error| described(error.into(), "measure", &self.path))?;
        Ok(status.st_size.cast_unsigned())
    }

    fn at(&self, error: io::Error, operation: &str, offset: u64) -> io::Error {
        described(error, &format!("{operation} at {offset} of"), &self.path)
    }
}

impl File for RealFile {
    fn read_at(
        &self,
        offset: u64,
        bytes: usize,
    ) -> impl Future<Output = io::Result<AlignedBuffer>> + 'static {
        let file = Rc::clone(&self.file);
        async move { file.read(offset, bytes).await }
    }

    fn write_at(
        &self,
        offset: u64,
        bytes: Rc<AlignedBuffer>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let file = Rc::clone(&self.file);
        async move { file.write(offset, bytes).await }
    }

    fn allocate(&self, bytes: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let file = Rc::clone(&self.file);
        async move { file.allocate(bytes).await }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let file = Rc::clone(&self.file);
        async move {
            let operation = file.ring.sync(Rc::clone(&file.descriptor), false)?;
            named(operation, "sync", &file.path).await
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
}

impl fmt::Debug for RealFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RealFile({})", self.file.path.display())
    }
}

enum Moved {
    Bytes(usize),
    /// Interrupted before anything was moved.
    Again,
}

fn moved(result: io::Result<i32>) -> io::Result<Moved> {
    match result {
        Ok(count) => Ok(Moved::Bytes(
            usize::try_from(count).expect("a success is not negative"),
        )),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => Ok(Moved::Again),
            _ => Err(error),
        },
    }
}

async fn named(operation: Operation, what: &str, path: &Path) -> io::Result<()> {
    operation
        .await
        .result
        .map(drop)
        .map_err(|error| described(error, what, path))
}

/// A file's name in its directory.
fn file_name(name: &str) -> io::Result<CString> {
    if name.is_empty() || name == "." || name == ".." || name == LOCK_NAME || name.contains('/') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is not the name of a file"),
        ));
    }
    CString::new(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// An I/O error together with what was attempted.
#[derive(Debug)]
struct Described {
    operation: String,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for Described {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {}: {}",
            self.operation,
            self.path.display(),
            self.source
        )
    }
}

impl std::error::Error for Described {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn described(source: io::Error, operation: &str, path: &Path) -> io::Error {
    let kind = kind_of(&source);
    io::Error::new(
        kind,
        Described {
            operation: operation.to_owned(),
            path: path.to_path_buf(),
            source,
        },
    )
}
