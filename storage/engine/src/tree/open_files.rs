//! The segment files that are open: at most so many, whatever the tree holds. A file is opened when it is read,
//! and closed when others have been asked for since and the limit is reached. Filters and index tops stay.

use std::cell::RefCell;

use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, UnitWeighter};

use super::cache::FixedState;
use crate::ids::SegmentId;
use crate::volume::DriveIndex;

/// A segment's file on one of its mirrors.
type FileKey = (SegmentId, DriveIndex);

type Files<F> = Cache<FileKey, F, UnitWeighter, FixedState, DefaultLifecycle<FileKey, F>>;

/// Files open for reading. One that is closed here while it is read stays open until that read has ended.
pub(crate) struct OpenFiles<F> {
    files: RefCell<Files<F>>,
}

impl<F: Clone> OpenFiles<F> {
    pub(crate) fn new(files_max: usize) -> OpenFiles<F> {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(files_max)
            .weight_capacity(files_max as u64)
            .build()
            .expect("both capacities are set");
        let files = Cache::with_options(options, UnitWeighter, FixedState, DefaultLifecycle::default());
        OpenFiles {
            files: RefCell::new(files),
        }
    }

    pub(crate) fn get(&self, segment: SegmentId, drive: DriveIndex) -> Option<F> {
        self.files.borrow().get(&(segment, drive)).cloned()
    }

    pub(crate) fn insert(&self, segment: SegmentId, drive: DriveIndex, file: F) {
        self.files.borrow_mut().insert((segment, drive), file);
    }

    pub(crate) fn close(&self, segment: SegmentId, drive: DriveIndex) {
        self.files.borrow_mut().remove(&(segment, drive));
    }

    pub(crate) fn clear(&self) {
        self.files.borrow_mut().clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.files.borrow().len()
    }
}
