//! Building and submitting operations.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, opcode, squeue};
use rustix::net::SocketAddrAny;

use super::provided::GROUP;
use super::{IGNORED, Key, Operation, Resource, Ring, Sink};
use crate::AlignedBuffer;

/// The kernel moves at most this many bytes in one operation; a multiple of every block.
const TRANSFER_BYTES_MAX: usize = 1 << 30;

impl Ring {
    /// Submits all that is queued and collects what has finished. `wait` sleeps until there is a completion, at
    /// most for the given time (`None`: without limit).
    pub(in crate::real) fn enter(self: &Rc<Ring>, wait: Option<Option<Duration>>) {
        let mut io = self.io.borrow_mut();
        {
            let mut backlog = self.backlog.borrow_mut();
            let mut submission = io.submission();
            while let Some(entry) = backlog.front() {
                // SAFETY: what the entry points to is in the slab, and stays there until it has completed.
                if unsafe { submission.push(entry) }.is_err() {
                    break;
                }
                backlog.pop_front();
            }
        }
        let submit = io.submission().len();
        let deadline = wait.flatten().map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(deadline) = &deadline {
            arguments = arguments.timespec(deadline);
        }
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // With a backlog there is more to submit first.
        let sleeps = wait.is_some() && self.backlog.borrow().is_empty();
        // SAFETY: the arguments outlive the call; the entries' memory is in the slab.
        let entered = unsafe {
            io.submitter()
                .enter(submit as u32, u32::from(sleeps), flags.bits(), Some(&arguments))
        };
        self.queued
            .set(io.submission().len() + self.backlog.borrow().len());
        drop(io);
        let submitted = match entered {
            Ok(submitted) => submitted,
            Err(error) => match error.raw_os_error() {
                // A signal; the time is up; no memory or completion room now: what is queued stays queued.
                Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => 0,
                _ => panic!("the shard ring cannot be entered: {error}"),
            },
        };
        self.count(|stats| {
            stats.enters += 1;
            stats.sleeps += u64::from(sleeps);
            stats.submitted += submitted as u64;
        });
    }

    fn push(&self, entry: squeue::Entry) {
        self.queued.set(self.queued.get() + 1);
        let mut backlog = self.backlog.borrow_mut();
        // What waits in the backlog goes first.
        // SAFETY: what the entry points to is in the slab, and stays there until it has completed.
        if !backlog.is_empty() || unsafe { self.io.borrow_mut().submission().push(&entry) }.is_err() {
            backlog.push_back(entry);
        }
    }

    fn start(
        self: &Rc<Ring>,
        resource: Resource,
        cancellable: bool,
        entry: squeue::Entry,
    ) -> io::Result<Operation> {
        self.refuse_when_closing()?;
        let key = self.slab.borrow_mut().insert(resource, cancellable);
        self.push(entry.user_data(key.user_data()));
        Ok(Operation::new(Rc::clone(self), key))
    }

    /// Asks the kernel to end an operation; its completion still comes.
    pub(in crate::real) fn cancel(&self, key: Key) {
        if self.slab.borrow_mut().is_running(key) {
            self.push(
                opcode::AsyncCancel::new(key.user_data())
                    .build()
                    .user_data(IGNORED),
            );
        }
    }

    /// Receives into provided buffers until the peer ends, an error, or want of buffers.
    pub(in crate::real) fn receive(&self, socket: &OwnedFd, sink: Rc<dyn Sink>) -> io::Result<Key> {
        self.refuse_when_closing()?;
        let key = self.slab.borrow_mut().insert_multishot(sink);
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build();
        self.push(entry.user_data(key.user_data()));
        Ok(key)
    }

    /// Accepts connections until an error.
    pub(in crate::real) fn accept(&self, socket: &OwnedFd, sink: Rc<dyn Sink>) -> io::Result<Key> {
        self.refuse_when_closing()?;
        let key = self.slab.borrow_mut().insert_multishot(sink);
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.push(entry.user_data(key.user_data()));
        Ok(key)
    }

    /// Sends `bytes[from..]`, all of it unless the connection ends.
    pub(in crate::real) fn send(
        self: &Rc<Ring>,
        socket: Rc<OwnedFd>,
        bytes: Vec<u8>,
        from: usize,
    ) -> io::Result<Operation> {
        let rest = &bytes[from..];
        let length = rest.len().min(TRANSFER_BYTES_MAX) as u32;
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), rest.as_ptr(), length)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.start(Resource::Send { socket, bytes }, true, entry)
    }

    pub(in crate::real) fn connect(
        self: &Rc<Ring>,
        socket: Rc<OwnedFd>,
        address: SocketAddrAny,
    ) -> io::Result<Operation> {
        let address = Box::new(address);
        let entry = opcode::Connect::new(
            Fd(socket.as_raw_fd()),
            address.as_ptr().cast(),
            address.addr_len(),
        )
        .build();
        self.start(Resource::Connect { socket, address }, true, entry)
    }

    /// Reads the eventfd's count, once it is not zero.
    pub(in crate::real) fn wakeup(self: &Rc<Ring>, eventfd: Rc<OwnedFd>) -> io::Result<Operation> {
        let mut count = Box::new([0; 8]);
        let entry = opcode::Read::new(Fd(eventfd.as_raw_fd()), count.as_mut_ptr(), 8).build();
        self.start(Resource::Wakeup { eventfd, count }, true, entry)
    }

    /// Reads into `buffer[from..upto]` at `offset`.
    pub(in crate::real) fn read(
        self: &Rc<Ring>,
        file: Rc<OwnedFd>,
        mut buffer: AlignedBuffer,
        from: usize,
        upto: usize,
        offset: u64,
    ) -> io::Result<Operation> {
        let rest = &mut buffer[from..upto];
        let length = rest.len().min(TRANSFER_BYTES_MAX) as u32;
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), rest.as_mut_ptr(), length)
            .offset(offset)
            .build();
        self.start(Resource::Read { file, buffer }, false, entry)
    }

    /// Writes `buffer[from..]` at `offset`.
    pub(in crate::real) fn write(
        self: &Rc<Ring>,
        file: Rc<OwnedFd>,
        buffer: Rc<AlignedBuffer>,
        from: usize,
        offset: u64,
    ) -> io::Result<Operation> {
        let rest = &buffer[from..];
        let length = rest.len().min(TRANSFER_BYTES_MAX) as u32;
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), rest.as_ptr(), length)
            .offset(offset)
            .build();
        self.start(Resource::Write { file, buffer }, false, entry)
    }

    /// Makes data durable; with `metadata` everything about the file or directory.
    pub(in crate::real) fn sync(
        self: &Rc<Ring>,
        descriptor: Rc<OwnedFd>,
        metadata: bool,
    ) -> io::Result<Operation> {
        let flags = if metadata {
            FsyncFlags::empty()
        } else {
            FsyncFlags::DATASYNC
        };
        let entry = opcode::Fsync::new(Fd(descriptor.as_raw_fd()))
            .flags(flags)
            .build();
        self.start(Resource::Descriptor(descriptor), false, entry)
    }

    pub(in crate::real) fn allocate(self: &Rc<Ring>, file: Rc<OwnedFd>, bytes: u64) -> io::Result<Operation> {
        let entry = opcode::Fallocate::new(Fd(file.as_raw_fd()), bytes).build();
        self.start(Resource::Descriptor(file), false, entry)
    }

    pub(in crate::real) fn open(
        self: &Rc<Ring>,
        directory: Rc<OwnedFd>,
        name: CString,
        flags: i32,
        mode: u32,
    ) -> io::Result<Operation> {
        let entry = opcode::OpenAt::new(Fd(directory.as_raw_fd()), name.as_ptr())
            .flags(flags)
            .mode(mode)
            .build();
        self.start(
            Resource::Names {
                directory,
                into: None,
                first: name,
                second: None,
                opens: true,
            },
            false,
            entry,
        )
    }

    pub(in crate::real) fn rename(
        self: &Rc<Ring>,
        directory: Rc<OwnedFd>,
        from: CString,
        to: CString,
    ) -> io::Result<Operation> {
        let fd = Fd(directory.as_raw_fd());
        let entry = opcode::RenameAt::new(fd, from.as_ptr(), fd, to.as_ptr()).build();
        self.start(
            Resource::Names {
                directory,
                into: None,
                first: from,
                second: Some(to),
                opens: false,
            },
            false,
            entry,
        )
    }

    pub(in crate::real) fn link(
        self: &Rc<Ring>,
        directory: Rc<OwnedFd>,
        from: CString,
        into: Rc<OwnedFd>,
        to: CString,
    ) -> io::Result<Operation> {
        let (fd, into_fd) = (Fd(directory.as_raw_fd()), Fd(into.as_raw_fd()));
        let entry = opcode::LinkAt::new(fd, from.as_ptr(), into_fd, to.as_ptr()).build();
        self.start(
            Resource::Names {
                directory,
                into: Some(into),
                first: from,
                second: Some(to),
                opens: false,
            },
            false,
            entry,
        )
    }

    pub(in crate::real) fn unlink(
        self: &Rc<Ring>,
        directory: Rc<OwnedFd>,
        name: CString,
    ) -> io::Result<Operation> {
        let entry = opcode::UnlinkAt::new(Fd(directory.as_raw_fd()), name.as_ptr()).build();
        self.start(
            Resource::Names {
                directory,
                into: None,
                first: name,
                second: None,
                opens: false,
            },
            false,
            entry,
        )
    }
}
