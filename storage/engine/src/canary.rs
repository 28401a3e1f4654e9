//! Bugs to put in, so that tests can show that the simulator finds them: for every kind of fault one that this fault reveals.
//!
//! One at a time, and for one thread, as a simulation with all its restarts runs on one. Never in a release build: there
//! [`is_in`] is the constant `false`, and what hangs on it is not compiled. Nothing but a test puts one in: no option, no message
//! and no file does.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Canary {
    /// Acknowledges what is not durable yet.
    AcknowledgeBeforeDurable,
    /// Answers what changed nothing at once.
    AnswerUnchangedAtOnce,
    /// Forgets the recovered timestamp floor.
    ForgetFloor,
    /// Takes a batch of the log whose body's checksum does not match.
    TrustBatches,
    /// Takes a data block whose checksum does not match.
    TrustBlocks,
    /// Takes a copy of a segment into a backup without having read it.
    TrustCopies,
    /// What the first mirror of the log lacks is taken not to have been written.
    BelieveFirstMirror,
    /// Fails a read when the first mirror's bytes do not verify.
    GiveUpOnBadBytes,
    /// Fails a read when the first mirror fails it.
    GiveUpOnReadError,
    /// Repairs the mirror that was whole with the bytes of the one that was not.
    RepairWrongWay,
    /// A mirror that refuses a write with `EIO` stays in sync.
    ForgiveWriteError,
    /// A mirror that has stored a part of a write stays in sync.
    ForgiveShortWrite,
    /// A mirror that had no room for a write stays in sync.
    ForgiveNoSpace,
    /// A mirror that was gone when it was to be written stays in sync.
    ForgiveVanished,
    /// A mirror that could not sync a segment stays in sync.
    ForgiveSyncError,
    /// A segment that cannot be opened on one mirror is taken to be on none.
    GiveUpOnMetadataError,
    /// Does not sync a segment.
    ForgetSync,
    /// Does not sync the directory that a segment is in.
    ForgetDirectorySync,
    /// Acknowledges when the first mirror has a batch.
    AcknowledgeFirstMirror,
    /// Gives up drives that are all slow.
    GiveUpOnStall,
    /// Takes every drive that is there at a start to be in sync.
    BelieveStale,
    /// Says that a memtable is in a segment before it is.
    FlushedFirst,
    /// Removes what was compacted before the edit is durable.
    RemoveBeforeEdit,
    /// Says in one edit what is gone, and in the next what has taken its place.
    SplitEdits,
    /// Says that files are on a drive that they are still copied to.
    PromiseBeforeCopied,
    /// Of several root keys that are given, tries the first only.
    TryFirstRootOnly,
    /// Takes the first key of a table that it has met for the only one.
    ForgetOldTableKey,
    /// Says of a backup that it is complete from its first byte on.
    CompleteFirst,
    /// Keeps in the cache of items what a newer version has been applied of.
    StaleCachedItem,
}

impl Canary {
    /// All of them.
    pub const ALL: [Canary; 29] = {
        use Canary::*;
        [
            AcknowledgeBeforeDurable,
            AnswerUnchangedAtOnce,
            ForgetFloor,
            TrustBatches,
            TrustBlocks,
            TrustCopies,
            BelieveFirstMirror,
            GiveUpOnBadBytes,
            GiveUpOnReadError,
            RepairWrongWay,
            ForgiveWriteError,
            ForgiveShortWrite,
            ForgiveNoSpace,
            ForgiveVanished,
            ForgiveSyncError,
            GiveUpOnMetadataError,
            ForgetSync,
            ForgetDirectorySync,
            AcknowledgeFirstMirror,
            GiveUpOnStall,
            BelieveStale,
            FlushedFirst,
            RemoveBeforeEdit,
            SplitEdits,
            PromiseBeforeCopied,
            TryFirstRootOnly,
            ForgetOldTableKey,
            CompleteFirst,
            StaleCachedItem,
        ]
    };
}

thread_local! {
    static IN: Cell<Option<Canary>> = const { Cell::new(None) };
}

/// Puts the bug into everything that this thread does, until the answer is dropped. A release build has no bugs to put in.
#[must_use]
pub fn put_in(canary: Canary) -> PutIn {
    IN.set(Some(canary));
    PutIn(PhantomData)
}

/// Takes the bug out again when it is dropped.
#[derive(Debug)]
pub struct PutIn(PhantomData<*const ()>);

impl Drop for PutIn {
    fn drop(&mut self) {
        IN.set(None);
    }
}

/// Whether the bug is in.
#[inline(always)]
pub(crate) fn is_in(canary: Canary) -> bool {
    cfg!(debug_assertions) && IN.get() == Some(canary)
}

/// How many of several to look at: by a bug, the first only.
#[inline(always)]
pub(crate) fn first_of(canary: Canary, count: usize) -> usize {
    if is_in(canary) { 1 } else { count }
}

/// Whether a mirror's refusal of a read is the end of it, by the bug that is in.
#[inline(always)]
pub(crate) fn gives_up(why: &str) -> bool {
    let failed = || why.contains("os error");
    is_in(Canary::GiveUpOnReadError) && failed() || is_in(Canary::GiveUpOnBadBytes) && !failed()
}

/// What a sync came to, as the bug that is in would have it.
#[inline(always)]
pub(crate) fn of_sync(result: io::Result<()>) -> io::Result<()> {
    if is_in(Canary::ForgiveSyncError) {
        Ok(())
    } else {
        result
    }
}

/// What a write to a drive came to, as the bug that is in would have it.
#[inline(always)]
pub(crate) fn of_write(result: io::Result<()>) -> io::Result<()> {
    if !cfg!(debug_assertions) {
        return result;
    }
    let forgiven = match &result {
        Ok(()) => return result,
        Err(error) if error.kind() == io::ErrorKind::StorageFull => is_in(Canary::ForgiveNoSpace),
        Err(error) if error.kind() == io::ErrorKind::WriteZero => is_in(Canary::ForgiveShortWrite),
        Err(error) if error.to_string().contains("No such device") => is_in(Canary::ForgiveVanished),
        Err(_) => is_in(Canary::ForgiveWriteError),
    };
    if forgiven { Ok(()) } else { result }
}
