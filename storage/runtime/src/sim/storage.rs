//! Drive operations in virtual time: submitted, delayed, hit by a fault or not, completed.
//!
//! An operation takes effect when it completes, so operations in flight at the same time happen in any order.
//! Dropping the future changes nothing: the operation and its buffer live here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::disk::{BLOCK, Disk, no_device};
use super::drive::FileHandle;
use super::executor::Event;
use super::fault::{Fault, FaultKind, Operation};
use super::perform::{cut_off, perform_other, perform_read, perform_write};
use super::random::Random;
use super::sites::{Met, Sites};
use super::trace::Step;
use super::world::World;
use crate::AlignedBuffer;
use crate::seam::{Entry, Open, kind_of};

/// Who asks for an operation, and of which drive.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) node: usize,
    pub(super) incarnation: u32,
    pub(super) disk: usize,
    pub(super) generation: u32,
}

pub(super) enum Request {
    Open {
        name: String,
        how: Open,
    },
    List,
    Rename {
        from: String,
        to: String,
    },
    Link {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    SyncDirectory {
        sequence: u64,
    },
    Read {
        file: u64,
        offset: u64,
        bytes: usize,
    },
    Write {
        file: u64,
        offset: u64,
        content: Rc<AlignedBuffer>,
        durable: bool,
    },
    Allocate {
        file: u64,
        bytes: u64,
    },
    SyncFile {
        file: u64,
        sequence: u64,
    },
}

impl Request {
    fn operation(&self) -> Operation {
        match self {
            Request::Open { .. } => Operation::Open,
            Request::List => Operation::List,
            Request::Rename { .. } => Operation::Rename,
            Request::Link { .. } => Operation::Link,
            Request::Remove { .. } => Operation::Remove,
            Request::SyncDirectory { .. } => Operation::SyncDirectory,
            Request::Read { .. } => Operation::Read,
            Request::Write { .. } => Operation::Write,
            Request::Allocate { .. } => Operation::Allocate,
            Request::SyncFile { .. } => Operation::SyncFile,
        }
    }

    fn detail(&self) -> u64 {
        match self {
            Request::Read { offset, bytes, .. } => *offset << 16 ^ *bytes as u64,
            Request::Write { offset, content, .. } => {
                let first = content
                    .first_chunk()
                    .map_or(0, |bytes: &[u8; 8]| u64::from_le_bytes(*bytes));
                *offset << 16 ^ content.len() as u64 ^ first.rotate_left(40)
            }
            Request::Allocate { bytes, .. } => *bytes,
            _ => 0,
        }
    }
}

pub(super) enum Response {
    Done,
    Opened(Rc<FileHandle>),
    Entries(Vec<Entry>),
    Bytes(AlignedBuffer),
}

/// Where an operation leaves its result and whom it wakes.
#[derive(Default)]
pub(super) struct Completion {
    result: RefCell<Option<io::Result<Response>>>,
    waker: RefCell<Option<Waker>>,
}

impl Completion {
    fn finish(&self, result: io::Result<Response>) {
        *self.result.borrow_mut() = Some(result);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for a completion.
pub(super) struct Completed(pub(super) Rc<Completion>);

impl Future for Completed {
    type Output = io::Result<Response>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.0.result.borrow_mut().take() {
            return Poll::Ready(result);
        }
        let previous = self.0.waker.borrow_mut().replace(context.waker().clone());
        drop(previous);
        Poll::Pending
    }
}

/// An operation in flight.
pub(super) struct InFlight {
    id: u64,
    origin: Origin,
    request: Request,
    fault: Option<Fault>,
    completion: Rc<Completion>,
    /// Keeps the file open. Dropping it borrows the storage.
    handle: Option<Rc<FileHandle>>,
}

pub(super) struct Storage {
    pub(super) random: Random,
    pub(super) disks: Vec<Disk>,
    pub(super) mounts: BTreeMap<(usize, PathBuf), usize>,
    operations: Vec<Option<InFlight>>,
    free: Vec<u32>,
    id_next: u64,
    pub(super) sites: Sites,
}

impl InFlight {
    /// The file it is about, for messages.
    fn name(&self) -> &str {
        match &self.request {
            Request::Open { name, .. } | Request::Remove { name } => name,
            Request::Rename { from, .. } | Request::Link { from, .. } => from,
            _ => self.handle.as_ref().map_or("", |handle| handle.name()),
        }
    }
}

impl Storage {
    pub(super) fn new(random: Random) -> Storage {
        Storage {
            random,
            disks: Vec::new(),
            mounts: BTreeMap::new(),
            operations: Vec::new(),
            free: Vec::new(),
            id_next: 1,
            sites: Sites::default(),
        }
    }

    fn insert(&mut self, operation: InFlight) -> u32 {
        if let Some(place) = self.free.pop() {
            self.operations[place as usize] = Some(operation);
            return place;
        }
        self.operations.push(Some(operation));
        u32::try_from(self.operations.len() - 1).expect("fewer than 2^32 operations in flight")
    }

    /// The drive vanishes; writes under way are cut off, everything under way fails when it completes.
    pub(super) fn detach(&mut self, place: usize) {
        let disk = &mut self.disks[place];
        if !disk.attached {
            return;
        }
        let current = disk.generation;
        for operation in self.operations.iter().flatten() {
            let origin = operation.origin;
            if origin.disk == place && origin.generation == current && operation.fault != Some(Fault::Lost) {
                cut_off(disk, &operation.request, true, &mut self.random);
            }
        }
        disk.attached = false;
        disk.lock = None;
        disk.stalled_until = 0;
        disk.files.values_mut().for_each(|file| file.in_flight.clear());
        disk.counters.count(FaultKind::Vanish);
    }

    fn perform(&mut self, operation: &InFlight) -> io::Result<Response> {
        let random = &mut self.random;
        let disk = &mut self.disks[operation.origin.disk];
        if !disk.attached || disk.generation != operation.origin.generation {
            return Err(no_device());
        }
        match &operation.request {
            Request::Write {
                file,
                offset,
                content,
                durable,
            } => {
                let fault = operation.fault;
                perform_write(disk, fault, (*file, *offset), content, *durable, random)?;
                Ok(Response::Done)
            }
            Request::Read { file, offset, bytes } => {
                let mut buffer = AlignedBuffer::zeroed(*bytes);
                perform_read(disk, operation.fault, *file, *offset, &mut buffer, random)?;
                let under_way = &disk.files[file].in_flight;
                if !under_way.is_empty() {
                    let end = offset + *bytes as u64;
                    for (id, first, last) in under_way {
                        if *first * BLOCK >= end || last * BLOCK <= *offset {
                            continue;
                        }
                        let write = self
                            .operations
                            .iter()
                            .flatten()
                            .find(|operation| operation.id == *id);
                        if let Some(Request::Write {
                            offset: start,
                            content,
                            ..
                        }) = write.map(|w| &w.request)
                        {
                            Disk::mix(*offset, &mut buffer, *start, content, random);
                        }
                    }
                }
                Ok(Response::Bytes(buffer))
            }
            request => perform_other(disk, operation.fault, request, random),
        }
    }
}

impl World {
    /// The drive that a node has at `path`; made, not yet existing, when there was none.
    pub(super) fn disk_at(&self, node: usize, path: &Path) -> usize {
        let mut storage = self.storage.borrow_mut();
        if let Some(disk) = storage.mounts.get(&(node, path.to_owned())) {
            return *disk;
        }
        let place = storage.disks.len();
        let config = &self.config.drive;
        let device = 0x5100 + place as u64;
        storage.disks.push(Disk::new(
            path.to_owned(),
            device,
            config.capacity_bytes,
            config.faults.clone(),
        ));
        storage.mounts.insert((node, path.to_owned()), place);
        place
    }

    /// Starts an operation. A dead process's operation never starts and never completes.
    ///
    /// # Panics
    /// When a write overlaps one in flight.
    pub(super) fn submit(
        &self,
        origin: Origin,
        request: Request,
        name: &str,
        handle: Option<Rc<FileHandle>>,
    ) -> Completed {
        let completion = Rc::new(Completion::default());
        if !self.alive(origin.node, origin.incarnation) {
            return Completed(completion);
        }
        let operation = request.operation();
        let detail = request.detail();
        let now = self.now.get();
        let mut storage = self.storage.borrow_mut();
        let storage = &mut *storage;
        let id = storage.id_next;
        storage.id_next += 1;

        let random = &mut storage.random;
        let disk = &mut storage.disks[origin.disk];
        let usable = disk.attached && disk.generation == origin.generation;
        if let (
            true,
            Request::Write {
                file,
                offset,
                content,
                ..
            },
        ) = (usable, &request)
        {
            let (first, end) = (offset / BLOCK, (offset + content.len() as u64) / BLOCK);
            if let Some(state) = disk.files.get_mut(file) {
                let clash = state
                    .in_flight
                    .iter()
                    .find(|(_, start, stop)| *start < end && first < *stop);
                if let Some((_, start, stop)) = clash {
                    let (name_of_run, drive) = (self.name(), disk.path.display());
                    panic!(
                        "{name_of_run}: misuse: write to blocks {first}..{end} of {name} on {drive} while a write to \
                         {start}..{stop} is in flight"
                    );
                }
                state.in_flight.push((id, first, end));
            }
        }

        let fault = if usable {
            let creates = matches!(&request, Request::Open { how, .. } if how.create_new);
            disk.injector.decide(operation, name, creates, random)
        } else {
            None
        };
        if let Some(kind) = fault.and_then(|fault| fault.kind(operation)) {
            disk.counters.inject(kind);
        }
        let mut at = now + 1_000 * latency(self.latency_us(operation), random);
        match fault {
            Some(Fault::Slow(longer)) => {
                disk.counters.count(FaultKind::Slow);
                at += u64::try_from(longer.as_nanos()).unwrap_or(u64::MAX / 4);
            }
            Some(Fault::Stall(length)) => {
                disk.counters.count(FaultKind::Stall);
                let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX / 4);
                disk.stalled_until = disk.stalled_until.max(now.saturating_add(length));
            }
            _ => {}
        }
        let vanish = fault == Some(Fault::Vanish);
        let place = storage.insert(InFlight {
            id,
            origin,
            request,
            fault,
            completion: Rc::clone(&completion),
            handle,
        });
        if vanish {
            storage.detach(origin.disk);
        }
        self.agenda.borrow_mut().add(at, Event::Operation { place, id });
        self.record(Step::Submit, (origin.disk as u64) << 8 | operation as u64, detail);
        if let Some(fault) = fault {
            self.record(Step::Fault, origin.disk as u64, fault_code(fault));
        }
        Completed(completion)
    }

    fn latency_us(&self, operation: Operation) -> &RangeInclusive<u64> {
        let drive = &self.config.drive;
        match operation {
            Operation::Read => &drive.read_us,
            Operation::Write => &drive.write_us,
            Operation::SyncFile | Operation::SyncDirectory => &drive.sync_us,
            _ => &drive.metadata_us,
        }
    }

    /// An operation's moment has come.
    pub(super) fn complete(self: &Rc<World>, place: u32, id: u64) {
        let mut storage_guard = self.storage.borrow_mut();
        let storage = &mut *storage_guard;
        let slot = &mut storage.operations[place as usize];
        if slot.as_ref().is_none_or(|operation| operation.id != id) {
            return;
        }
        let operation = slot.take().expect("checked above");
        let disk = &mut storage.disks[operation.origin.disk];
        if disk.attached && disk.stalled_until > self.now.get() {
            let at = disk.stalled_until + 1_000 * storage.random.within(&(1..=200));
            storage.operations[place as usize] = Some(operation);
            self.agenda.borrow_mut().add(at, Event::Operation { place, id });
            return;
        }
        storage.free.push(place);
        if let Request::Write { file, .. } = &operation.request
            && let Some(state) = disk.files.get_mut(file)
            && let Some(found) = state.in_flight.iter().position(|(write, ..)| *write == id)
        {
            state.in_flight.swap_remove(found);
        }
        let mut result = storage.perform(&operation);
        let mut opened = None;
        if let (Ok(_), Request::Open { name, how }) = (&result, &operation.request) {
            match storage.disks[operation.origin.disk].open(name, how.create_new) {
                Ok(file) => opened = Some((file, name.clone(), *how)),
                Err(error) => result = Err(error),
            }
        }
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::StorageFull)
        {
            let what = operation.request.operation();
            storage.sites.count(Met::NoSpace, what, operation.name());
        }
        let mut result = result.map_err(|error| {
            let path = storage.disks[operation.origin.disk].path.join(operation.name());
            let what = operation.request.operation();
            io::Error::new(kind_of(&error), format!("{what:?} {}: {error}", path.display()))
        });
        drop(storage_guard);
        if let Some((file, name, how)) = opened {
            let handle = FileHandle::new(Rc::clone(self), operation.origin, file, name, how);
            result = Ok(Response::Opened(Rc::new(handle)));
        }
        let step = if result.is_ok() {
            Step::Complete
        } else {
            Step::Fail
        };
        self.record(
            step,
            (operation.origin.disk as u64) << 8 | operation.request.operation() as u64,
            id,
        );
        operation.completion.finish(result);
    }

    /// Ends what a node had in flight, with or without effect. The caller drops it while nothing is borrowed.
    pub(super) fn abort_operations(&self, node: usize, power: bool) -> Vec<InFlight> {
        let mut storage = self.storage.borrow_mut();
        let storage = &mut *storage;
        let mut aborted = Vec::new();
        for (place, slot) in storage.operations.iter_mut().enumerate() {
            if slot
                .as_ref()
                .is_none_or(|operation| operation.origin.node != node)
            {
                continue;
            }
            let operation = slot.take().expect("checked above");
            storage.free.push(u32::try_from(place).expect("places are u32"));
            if power {
                let what = operation.request.operation();
                storage.sites.count(Met::PowerLoss, what, operation.name());
            }
            let disk = &mut storage.disks[operation.origin.disk];
            if disk.attached && disk.generation == operation.origin.generation {
                if let Request::Write { file, .. } = &operation.request
                    && let Some(state) = disk.files.get_mut(file)
                {
                    state.in_flight.retain(|(write, ..)| *write != operation.id);
                }
                if operation.fault != Some(Fault::Lost) {
                    cut_off(disk, &operation.request, power, &mut storage.random);
                }
            }
            aborted.push(operation);
        }
        aborted
    }

    /// The drives of a node lose their power.
    pub(super) fn lose_power(&self, node: usize) {
        let mut storage = self.storage.borrow_mut();
        let storage = &mut *storage;
        for ((_, _), place) in storage
            .mounts
            .range((node, PathBuf::new())..)
            .take_while(|((n, _), _)| *n == node)
        {
            let disk = &mut storage.disks[*place];
            if disk.attached {
                disk.lose_power(&mut storage.random);
            }
        }
    }

    pub(super) fn unlock(&self, node: usize) {
        for disk in &mut self.storage.borrow_mut().disks {
            if disk.lock.is_some_and(|(holder, _)| holder == node) {
                disk.lock = None;
            }
        }
    }
}

fn latency(range: &RangeInclusive<u64>, random: &mut Random) -> u64 {
    let usual = random.within(range);
    if random.one_in(100) { usual * 8 } else { usual }
}

fn fault_code(fault: Fault) -> u64 {
    match fault {
        Fault::Error => 1,
        Fault::NoSpace => 2,
        Fault::Torn => 3,
        Fault::Lost => 4,
        Fault::Misdirected => 5,
        Fault::Corrupt => 6,
        Fault::Rot => 7,
        Fault::Slow(_) => 8,
        Fault::Stall(_) => 9,
        Fault::Vanish => 10,
        Fault::Exhausted => 11,
        Fault::Short => 12,
    }
}
