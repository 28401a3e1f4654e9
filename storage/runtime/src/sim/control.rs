//! Hands on a simulated drive, for directed tests: look at it, damage it, take it away.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::fault::{Fault, FaultConfig, FaultCounters, FaultKind, Injection, Operation};
use super::image::{DriveImage, damage};
use super::storage::Storage;
use super::trace::Step;
use super::world::World;
use super::{NodeIndex, disk::Disk};

/// A drive from the outside. Cheap to clone; stays valid across crashes.
#[derive(Clone)]
pub struct DriveControl {
    pub(super) world: Rc<World>,
    pub(super) disk: usize,
}

impl fmt::Debug for DriveControl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|disk| write!(formatter, "DriveControl({})", disk.path.display()))
    }
}

impl DriveControl {
    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.world.storage.borrow_mut().disks[self.disk])
    }

    fn with_storage<T>(&self, act: impl FnOnce(&mut Storage) -> T) -> T {
        act(&mut self.world.storage.borrow_mut())
    }

    fn edit(&self, name: &str, range: Range<u64>, edit: impl FnOnce(&mut [u8])) {
        self.world.record(Step::Fault, self.disk as u64, range.start);
        self.with(|disk| {
            let file = *disk
                .names
                .get(name)
                .unwrap_or_else(|| panic!("no file {name} to edit"));
            disk.counters.count(FaultKind::Edited);
            disk.edit(file, range.start, range.end - range.start, edit);
        });
    }

    // Faults by chance.

    /// Replaces the chances of faults.
    pub fn set_faults(&self, faults: FaultConfig) {
        self.with(|disk| disk.injector.config = faults);
    }

    /// The chances of faults.
    #[must_use]
    pub fn chances(&self) -> FaultConfig {
        self.with(|disk| disk.injector.config.clone())
    }

    /// Whether chance may damage this drive or not.
    pub fn protect(&self, protected: bool) {
        self.with(|disk| disk.injector.protected = protected);
    }

    /// Faults of this drive so far.
    #[must_use]
    pub fn faults(&self) -> FaultCounters {
        self.with(|disk| disk.counters)
    }

    // Directed faults.

    /// Hits the next `operation` with `fault`.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.inject(Injection {
            operation,
            file: None,
            skip: 0,
            count: 1,
            fault,
        });
    }

    /// Hits the next `operation` on the file `name` with `fault`.
    pub fn fail_next_on(&self, name: &str, operation: Operation, fault: Fault) {
        self.inject(Injection {
            operation,
            file: Some(name.to_owned()),
            skip: 0,
            count: 1,
            fault,
        });
    }

    /// Adds a directed fault behind those that wait.
    pub fn inject(&self, injection: Injection) {
        self.with(|disk| disk.injector.directed.push_back(injection));
    }

    /// Forgets directed faults that have not hit; answers how many.
    #[must_use]
    pub fn clear_injections(&self) -> usize {
        self.with(|disk| std::mem::take(&mut disk.injector.directed).len())
    }

    /// Size of the file system; may be below what is used.
    pub fn set_capacity(&self, bytes: u64) {
        self.with(|disk| disk.capacity_bytes = bytes);
    }

    /// Size of the file system.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.with(|disk| disk.capacity_bytes)
    }

    /// Bytes that files take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.with(|disk| disk.used_bytes)
    }

    /// Every operation completes this much later at the earliest, those in flight included.
    pub fn stall_for(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4);
        let until = self.world.now.get().saturating_add(nanoseconds);
        self.with(|disk| {
            disk.counters.count(FaultKind::Stall);
            disk.stalled_until = disk.stalled_until.max(until);
        });
    }

    // Presence.

    /// The drive vanishes: writes in flight are cut off, everything fails with `ENODEV`.
    pub fn detach(&self) {
        self.world.record(Step::Fault, self.disk as u64, 10);
        self.with_storage(|storage| storage.detach(self.disk));
    }

    /// The drive is there again, as it was left; what was opened before stays dead.
    pub fn attach(&self) {
        self.with(|disk| {
            if !std::mem::replace(&mut disk.attached, true) {
                disk.counters.count(FaultKind::Stale);
            }
            disk.generation += 1;
        });
    }

    /// The drive is there again with an older image.
    pub fn attach_stale(&self, image: &DriveImage) {
        self.with(|disk| {
            disk.restore(image);
            disk.attached = true;
            disk.exists = true;
            disk.counters.count(FaultKind::Stale);
        });
    }

    /// Whether the drive is there.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.with(|disk| disk.attached)
    }

    /// The same drive at a path of another node too, as for two processes on one host.
    pub fn mount(&self, node: NodeIndex, path: impl AsRef<Path>) {
        let before = self.with_storage(|storage| {
            storage
                .mounts
                .insert((node.0, path.as_ref().to_owned()), self.disk)
        });
        assert!(
            before.is_none_or(|disk| disk == self.disk),
            "another drive is there"
        );
    }

    /// Makes two drives answer alike to [`crate::Drive::device`].
    pub fn set_device(&self, device: u64) {
        self.with(|disk| disk.device = device);
    }

    // Content.

    /// The files as reads see them.
    #[must_use]
    pub fn image(&self) -> DriveImage {
        self.with(|disk| disk.image(false))
    }

    /// The files that a power loss could at worst leave.
    #[must_use]
    pub fn durable_image(&self) -> DriveImage {
        self.with(|disk| disk.image(true))
    }

    /// Puts an image in place of everything; what was opened before is dead.
    pub fn restore(&self, image: &DriveImage) {
        self.with(|disk| {
            disk.restore(image);
            disk.exists = true;
        });
    }

    /// Changes every byte of the range. Cut at the end of the file.
    pub fn corrupt(&self, name: &str, range: Range<u64>) {
        let mut random = self.with_storage(|storage| storage.random.fork());
        self.edit(name, range, |bytes| {
            for byte in bytes {
                *byte ^= 1 + random.below(255) as u8;
            }
        });
    }

    /// Flips one bit: bit 0 to 7 of the byte at `offset`.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        self.edit(name, offset..offset + 1, |bytes| {
            bytes.iter_mut().for_each(|byte| *byte ^= 1 << (bit % 8))
        });
    }

    /// Damages one sector of the 4096-byte block that holds `offset`, as rot does.
    pub fn rot(&self, name: &str, offset: u64) {
        let mut random = self.with_storage(|storage| storage.random.fork());
        let start = offset / crate::BLOCK_BYTES as u64 * crate::BLOCK_BYTES as u64;
        self.edit(name, start..start + crate::BLOCK_BYTES as u64, |bytes| {
            damage(bytes, &mut random)
        });
    }

    /// Makes the blocks of the range fail to be read, until they are written, or readable again.
    pub fn set_unreadable(&self, name: &str, range: Range<u64>, unreadable: bool) {
        let block = crate::BLOCK_BYTES as u64;
        self.with(|disk| {
            let file = *disk
                .names
                .get(name)
                .unwrap_or_else(|| panic!("no file {name} to damage"));
            disk.set_unreadable(file, range.start / block, range.end.div_ceil(block), unreadable);
        });
    }

    /// Zeros the range.
    pub fn zero(&self, name: &str, range: Range<u64>) {
        self.edit(name, range, |bytes| bytes.fill(0));
    }

    /// Overwrites the bytes at `offset`; never makes the file longer.
    pub fn overwrite(&self, name: &str, offset: u64, content: &[u8]) {
        self.edit(name, offset..offset + content.len() as u64, |bytes| {
            bytes.copy_from_slice(&content[..bytes.len()]);
        });
    }

    /// Removes a file from the medium; an open handle keeps seeing it. False when there is none.
    #[must_use]
    pub fn delete_file(&self, name: &str) -> bool {
        self.with(|disk| {
            disk.counters.count(FaultKind::Edited);
            disk.delete(name)
        })
    }
}
