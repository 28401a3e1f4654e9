//! Remembers which contents were sealed under which key and nonce, for tests: one pair is never used for two.
//!
//! Kept per thread, as a simulation with all its restarts runs on one; off until [`begin`], and never in a release build.

use std::cell::RefCell;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

thread_local! {
    /// The content by key and nonce; none while nobody looks.
    static SEEN: RefCell<Option<BTreeMap<(u64, u64), u64>>> = const { RefCell::new(None) };
}

/// From now on a pair that is used for a second content ends the process.
pub fn begin() {
    SEEN.with_borrow_mut(|seen| *seen = Some(BTreeMap::new()));
}

/// Ends what [`begin`] began. Answers how many pairs were used.
#[must_use]
pub fn end() -> usize {
    SEEN.take().map_or(0, |seen| seen.len())
}

pub(super) fn mark(key: &[u8]) -> u64 {
    if cfg!(debug_assertions) { xxh3_64(key) } else { 0 }
}

pub(super) fn note(key: u64, nonce: u64, about: &[u8], content: &[u8]) {
    if !cfg!(debug_assertions) {
        return;
    }
    SEEN.with_borrow_mut(|seen| {
        let Some(seen) = seen else { return };
        let content = xxh3_64_with_seed(content, xxh3_64(about));
        let before = seen.insert((key, nonce), content);
        assert!(
            before.is_none_or(|before| before == content),
            "nonce {nonce} of one key was used for two contents"
        );
    });
}
