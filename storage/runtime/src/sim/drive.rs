//! The seam's drive and file over [`super::storage`], and the checks that their caller keeps the seam's rules.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::disk::{BLOCK, no_device};
use super::storage::{Completed, Origin, Request, Response};
use super::world::World;
use crate::AlignedBuffer;
use crate::seam::{BLOCK_BYTES, Drive, Entry, File, Open, Space};

/// A simulated drive.
#[derive(Clone)]
pub struct SimDrive {
    handle: Rc<DriveHandle>,
}

struct DriveHandle {
    world: Rc<World>,
    origin: Origin,
    path: PathBuf,
    /// Whether opening it has made the directory.
    made: bool,
    /// Whether it was this handle that took the lock.
    locked: Cell<bool>,
}

fn expect_done(response: Response) {
    assert!(
        matches!(response, Response::Done),
        "this request is answered with nothing"
    );
}

async fn done(completed: Completed) -> io::Result<()> {
    completed.await.map(expect_done)
}

impl SimDrive {
    pub(super) fn new(world: Rc<World>, origin: Origin, path: PathBuf, made: bool) -> SimDrive {
        SimDrive {
            handle: Rc::new(DriveHandle {
                world,
                origin,
                path,
                made,
                locked: Cell::new(false),
            }),
        }
    }

    fn check_names(&self, names: &[&str]) -> io::Result<()> {
        for name in names {
            let valid = !name.is_empty() && *name != "." && *name != ".." && !name.contains(['/', '\0']);
            if !valid {
                return Err(self.handle.world.misuse(&format!("{name:?} is no file name")));
            }
        }
        Ok(())
    }

    /// A future that submits when first polled, as the real drive's does.
    fn request(
        &self,
        name: &str,
        checked: io::Result<()>,
        request: impl FnOnce(&World) -> Request + 'static,
    ) -> impl Future<Output = io::Result<Response>> + 'static {
        let (handle, name) = (Rc::clone(&self.handle), name.to_owned());
        async move {
            checked?;
            let request = request(&handle.world);
            handle.world.submit(handle.origin, request, &name, None).await
        }
    }
}

impl fmt::Debug for SimDrive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimDrive({})", self.handle.path.display())
    }
}

impl Drive for SimDrive {
    type File = SimFile;

    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn device(&self) -> u64 {
        self.handle.world.storage.borrow().disks[self.handle.origin.disk].device
    }

    fn lock(&self) -> io::Result<()> {
        let Origin {
            node,
            incarnation,
            disk,
            generation,
        } = self.handle.origin;
        let disk = &mut self.handle.world.storage.borrow_mut().disks[disk];
        if !disk.attached || disk.generation != generation {
            return Err(no_device());
        }
        if disk.lock.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        disk.lock = Some((node, incarnation));
        self.handle.locked.set(true);
        Ok(())
    }

    fn abandon(&self) {
        let Origin {
            node,
            incarnation,
            disk,
            generation,
        } = self.handle.origin;
        let disk = &mut self.handle.world.storage.borrow_mut().disks[disk];
        if self.handle.locked.replace(false) && disk.lock == Some((node, incarnation)) {
            disk.lock = None;
        }
        if self.handle.made && disk.generation == generation && disk.names.is_empty() {
            disk.exists = false;
        }
    }

    fn open(&self, name: &str, how: Open) -> impl Future<Output = io::Result<SimFile>> + 'static {
        let owned = name.to_owned();
        let request = self.request(name, self.check_names(&[name]), move |_| Request::Open {
            name: owned,
            how,
        });
        async move {
            match request.await? {
                Response::Opened(handle) => Ok(SimFile { handle }),
                _ => unreachable!("an open is answered with a handle"),
            }
        }
    }

    fn list(&self) -> impl Future<Output = io::Result<Vec<Entry>>> + 'static {
        let request = self.request("", Ok(()), |_| Request::List);
        async move {
            match request.await? {
                Response::Entries(entries) => Ok(entries),
                _ => unreachable!("a list is answered with entries"),
            }
        }
    }

    /// The drives whose directories are in this one.
    fn strangers(&self) -> impl Future<Output = io::Result<Vec<String>>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            let storage = handle.world.storage.borrow();
            let disk = &storage.disks[handle.origin.disk];
            if !disk.attached || disk.generation != handle.origin.generation {
                return Err(no_device());
            }
            let mounted = storage.mounts.iter();
            let inside = mounted
                .filter(|((node, _), place)| *node == handle.origin.node && storage.disks[**place].exists);
            let names = inside.filter_map(|((_, path), _)| {
                let part = path.strip_prefix(&handle.path).ok()?.components().next()?;
                Some(part.as_os_str().to_string_lossy().into_owned())
            });
            let names: BTreeSet<String> = names.collect();
            Ok(names.into_iter().collect())
        }
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = io::Result<()>> + 'static {
        let checked = self.check_names(&[from, to]);
        let (source, to) = (from.to_owned(), to.to_owned());
        let request = self.request(from, checked, move |_| Request::Rename { from: source, to });
        async move { request.await.map(expect_done) }
    }

    fn link(&self, from: &str, into: &Self, to: &str) -> impl Future<Output = io::Result<()>> + 'static {
        let same = self.handle.origin.disk == into.handle.origin.disk;
        let checked = if same {
            self.check_names(&[from, to])
        } else {
            Err(io::ErrorKind::CrossesDevices.into())
        };
        let (source, to) = (from.to_owned(), to.to_owned());
        let request = self.request(from, checked, move |_| Request::Link { from: source, to });
        async move { request.await.map(expect_done) }
    }

    fn remove(&self, name: &str) -> impl Future<Output = io::Result<()>> + 'static {
        let owned = name.to_owned();
        let request = self.request(name, self.check_names(&[name]), move |_| Request::Remove {
            name: owned,
        });
        async move { request.await.map(expect_done) }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let disk = self.handle.origin.disk;
        // What completes after the submission is not covered.
        let request = self.request("", Ok(()), move |world| Request::SyncDirectory {
            sequence: world.storage.borrow().disks[disk].sequence,
        });
        async move { request.await.map(expect_done) }
    }

    fn space(&self) -> io::Result<Space> {
        let Origin { disk, generation, .. } = self.handle.origin;
        let disk = &self.handle.world.storage.borrow().disks[disk];
        if !disk.attached || disk.generation != generation {
            return Err(no_device());
        }
        let free_bytes = disk.capacity_bytes.saturating_sub(disk.used_bytes);
        Ok(Space {
            total_bytes: disk.capacity_bytes,
            free_bytes,
        })
    }
}

/// A simulated file.
#[derive(Clone)]
pub struct SimFile {
    handle: Rc<FileHandle>,
}

/// What keeps a file open: clones of the [`SimFile`] and operations in flight.
pub(super) struct FileHandle {
    world: Rc<World>,
    origin: Origin,
    file: u64,
    name: String,
    how: Open,
}

impl FileHandle {
    pub(super) fn new(world: Rc<World>, origin: Origin, file: u64, name: String, how: Open) -> FileHandle {
        FileHandle {
            world,
            origin,
            file,
            name,
            how,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn check_range(&self, what: &str, offset: u64, bytes: usize) -> io::Result<()> {
        if offset.is_multiple_of(BLOCK) && bytes.is_multiple_of(BLOCK_BYTES) && bytes > 0 {
            return Ok(());
        }
        let name = &self.name;
        Err(self.world.misuse(&format!(
            "{what} of {bytes} bytes at {offset} of {name}: not whole blocks"
        )))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.how.read_only {
            let reason = format!("{} is open for reading only", self.name);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        Ok(())
    }
}

impl Drop for FileHandle {
    fn drop(&mut self) {
        let disk = &mut self.world.storage.borrow_mut().disks[self.origin.disk];
        if disk.generation == self.origin.generation {
            disk.close(self.file);
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimFile({})", self.handle.name)
    }
}

impl File for SimFile {
    fn read_at(
        &self,
        offset: u64,
        bytes: usize,
    ) -> impl Future<Output = io::Result<AlignedBuffer>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            handle.check_range("read", offset, bytes)?;
            let request = Request::Read {
                file: handle.file,
                offset,
                bytes,
            };
            let completed =
                handle
                    .world
                    .submit(handle.origin, request, &handle.name, Some(Rc::clone(&handle)));
            match completed.await? {
                Response::Bytes(buffer) => Ok(buffer),
                _ => unreachable!("a read is answered with bytes"),
            }
        }
    }

    fn write_at(
        &self,
        offset: u64,
        bytes: Rc<AlignedBuffer>,
    ) -> impl Future<Output = io::Result<()>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            handle.check_range("write", offset, bytes.len())?;
            handle.check_writable()?;
            let request = Request::Write {
                file: handle.file,
                offset,
                content: bytes,
                durable: handle.how.durable,
            };
            done(
                handle
                    .world
                    .submit(handle.origin, request, &handle.name, Some(Rc::clone(&handle))),
            )
            .await
        }
    }

    fn allocate(&self, bytes: u64) -> impl Future<Output = io::Result<()>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            handle.check_writable()?;
            let request = Request::Allocate {
                file: handle.file,
                bytes,
            };
            done(
                handle
                    .world
                    .submit(handle.origin, request, &handle.name, Some(Rc::clone(&handle))),
            )
            .await
        }
    }

    fn sync(&self) -> impl Future<Output = io::Result<()>> + 'static {
        let handle = Rc::clone(&self.handle);
        async move {
            let sequence = handle.world.storage.borrow().disks[handle.origin.disk].sequence;
            let request = Request::SyncFile {
                file: handle.file,
                sequence,
            };
            done(
                handle
                    .world
                    .submit(handle.origin, request, &handle.name, Some(Rc::clone(&handle))),
            )
            .await
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        let disk = &self.handle.world.storage.borrow().disks[self.handle.origin.disk];
        if !disk.attached || disk.generation != self.handle.origin.generation {
            return Err(no_device());
        }
        disk.files
            .get(&self.handle.file)
            .map(|file| file.live_bytes)
            .ok_or_else(no_device)
    }
}
