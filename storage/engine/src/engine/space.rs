//! What is kept free on the drives, so that what frees space can always run.
//!
//! Flushes, compactions and deletes take space before they give any back: on a drive that puts have filled to the last
//! byte nothing could ever be freed. So a **reserve** is kept from puts:
//!
//! 1. Room is **low** from where the drive that bounds it, the fullest of those that a new file needs, has less free
//!    than the reserve, until that and an eighth more are free again: writers must not come and go by the block.
//! 2. While it is low, puts of items are refused and the drive is named. Everything else goes on: deletes, what follows from
//!    what was accepted (entries of indexes, records of the change sequence, items of transactions that are decided: whoever
//!    accepts them asks [`Inner::check_room`] before), the node's own tables, flushes, compactions, the manifest.
//! 3. Background work makes room: memtables that hold tombstones are flushed though they are small, and segments of
//!    which a good part is tombstones are compacted though no level is due.
//!
//! The drives are looked at after commits and before refusals, at most once in [`LOOK_EVERY`]; background work polls them
//! only while room is low.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use cairn_runtime::{Moment, Runtime};

use super::Inner;
use super::partition::Partition;
use crate::error::EngineError;
use crate::group::Counter;
use crate::ids::{IndexId, TableId};
use crate::volume::DriveIndex;

/// Least time between two looks at the drives. At 2 GB/s, 200 MB are written in it, a fifth of the usual reserve.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The reserve is at most this part of a drive: a small one is not all reserve.
const RESERVE_PART_MAX: u64 = 8;

/// Room is low no more when this part of the reserve is free beyond it.
const RELIEF_PART: u64 = 8;

/// What a put claims room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Something new, which can be refused.
    New,
    /// What was accepted before.
    Accepted,
}

/// Whether room is low, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Room {
    low: Cell<bool>,
    looked: Cell<Option<Moment>>,
    /// Directory of the drive that bounds it.
    drive: RefCell<Rc<str>>,
}

impl Room {
    pub(super) fn is_low(&self) -> bool {
        self.low.get()
    }

    /// The drive that bounds the room, by its directory.
    pub(super) fn drive(&self) -> Rc<str> {
        Rc::clone(&self.drive.borrow())
    }

    /// Takes in what a look has found; whether room has become low by it.
    fn saw(&self, drive: &Path, free_bytes: u64, total_bytes: u64, reserve_bytes: u64) -> bool {
        let reserve = reserve_of(total_bytes, reserve_bytes);
        let was_low = self.low.get();
        let needed = if was_low {
            reserve + reserve / RELIEF_PART
        } else {
            reserve
        };
        self.low.set(free_bytes < needed);
        if self.low.get() {
            *self.drive.borrow_mut() = drive.to_string_lossy().into();
        }
        self.low.get() && !was_low
    }
}

/// The reserve of a drive of that size.
pub(super) fn reserve_of(total_bytes: u64, reserve_bytes: u64) -> u64 {
    reserve_bytes.min(total_bytes / RESERVE_PART_MAX)
}

impl<R: Runtime> Inner<R> {
    /// Looks at the drives, unless it has just been done.
    pub(super) fn look_at_space(&self) {
        let now = self.runtime.now();
        let recent = |looked: Moment| now.since(looked) < LOOK_EVERY;
        if self.room.looked.get().is_some_and(recent) {
            return;
        }
        self.room.looked.set(Some(now));
        // A drive that cannot be asked says so when it is written to.
        let Some((drive, space)) = self.volume.bounding_space() else {
            return;
        };
        let path = self.volume.path(drive);
        let reserve = self.config.reserve_bytes;
        if self.room.saw(&path, space.free_bytes, space.total_bytes, reserve) {
            self.work.notify_one();
            self.compactable.notify_one();
        }
    }

    /// Refuses a put of that counter when room is low.
    pub(super) fn check_put(
        &self,
        partition: &Partition<R>,
        counter: Counter,
        claim: Claim,
    ) -> Result<(), EngineError> {
        if claim == Claim::New && counter == Counter::Items {
            self.check_room(partition)
        } else {
            Ok(())
        }
    }

    /// Refuses new items of the partition when room is low.
    pub(super) fn check_room(&self, partition: &Partition<R>) -> Result<(), EngineError> {
        let descriptor = &partition.descriptor;
        if !self.room.is_low() || descriptor.index != IndexId(0) || descriptor.table == TableId::SYSTEM {
            return Ok(());
        }
        self.look_at_space();
        if self.room.is_low() {
            Err(EngineError::OutOfSpace(self.room.drive()))
        } else {
            Ok(())
        }
    }

    /// A drive's directory, for messages.
    pub(super) fn drive_name(&self, drive: DriveIndex) -> Rc<str> {
        self.volume.path(drive).to_string_lossy().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_low_below_the_reserve_and_until_an_eighth_beyond() {
        let room = Room::default();
        let path = Path::new("/a");
        let saw = |free| room.saw(path, free, 10_000, 800);
        assert!(!saw(800) && !room.is_low());
        assert!(saw(799) && room.is_low(), "it has become low");
        assert!(!saw(700) && room.is_low(), "it was before");
        assert_eq!(&*room.drive(), "/a");
        assert!(!saw(899) && room.is_low());
        assert!(!saw(900) && !room.is_low());
        // An eighth of a small drive.
        assert!(!room.saw(path, 125, 1_000, 800));
        assert!(room.saw(path, 124, 1_000, 800));
    }
}
