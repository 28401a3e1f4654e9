//! Why the drives of a node cannot be used. Every message names the directory and says what to do.

use std::fmt;
use std::path::PathBuf;

use crate::ids::{Epoch, NodeId};
use crate::sealing::RootKeyId;

/// Why the drives cannot be opened, or an epoch change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeError {
    /// The configuration contradicts itself.
    Config(String),
    /// Another process holds the directory.
    InUse(PathBuf),
    /// The directory cannot be read or written.
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        why: String,
    },
    /// The directory holds files that are not ours.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        file: String,
    },
    /// The directory belongs to another node.
    AnotherNode {
        /// The directory.
        path: PathBuf,
        /// The node it belongs to.
        found: NodeId,
        /// This node.
        expected: NodeId,
    },
    /// The directory belongs to a backup of this node, or to the node that this is a backup of.
    AnotherCopy(PathBuf),
    /// The directory belongs to a backup that was cut off.
    IncompleteBackup(PathBuf),
    /// Two directories hold the same drive.
    Duplicate {
        /// The first directory.
        first: PathBuf,
        /// The second.
        second: PathBuf,
    },
    /// The directory is not one of the node's drives.
    NotMember(PathBuf),
    /// The directory was written by a later version.
    TooNew {
        /// The directory.
        path: PathBuf,
        /// What this version does not know.
        what: String,
    },
    /// Fewer than a majority of the copies of the in-sync epoch can be read.
    NoMajority {
        /// Copies that can be read.
        readable: usize,
        /// Copies there are: one per drive and the witness.
        copies: usize,
        /// Directories whose copy cannot be read, and why.
        missing: Vec<(PathBuf, String)>,
        /// The highest epoch that can be read.
        epoch: Epoch,
    },
    /// Every drive of the highest epoch is missing; those that are there are stale.
    OnlyStale {
        /// The highest epoch.
        epoch: Epoch,
        /// Directories of stale drives and the epoch each knows.
        stale: Vec<(PathBuf, Epoch)>,
        /// Directories that cannot be read, and why.
        missing: Vec<(PathBuf, String)>,
    },
    /// `accept_epoch` names an epoch that no readable copy holds.
    WrongAcceptEpoch {
        /// What was asked for.
        asked: Epoch,
        /// The highest epoch that can be read.
        highest: Epoch,
    },
    /// So many in-sync drives are missing that some file may have no holder left.
    HolderMissing {
        /// Directories that cannot be read, and why.
        missing: Vec<(PathBuf, String)>,
        /// The epoch that they are missing of.
        epoch: Epoch,
    },
    /// A drive has failed, and the in-sync drives that are left may not hold every file.
    LastDrive {
        /// The drive's directory.
        path: PathBuf,
        /// What happened to it.
        why: String,
    },
    /// An epoch change could not be made durable on a majority of the copies: nothing may be acknowledged.
    EpochNotDurable(String),
    /// The node is encrypted and no root key was given.
    KeyMissing {
        /// What identifies the root key that is needed.
        needed: RootKeyId,
    },
    /// The node is encrypted under another root key than those that were given.
    WrongKey {
        /// What identifies the root key that is needed.
        needed: RootKeyId,
        /// What identifies those that were given.
        given: Vec<RootKeyId>,
    },
    /// The root key is the one that the drives name, but does not open the node key.
    KeyDamaged(RootKeyId),
    /// The node is encrypted although it was to be plain, or the other way round.
    EncryptionMismatch {
        /// Whether the node is encrypted.
        encrypted: bool,
    },
    /// A change that can be left could not be made durable; nothing has changed.
    NotNow(String),
    /// Another operation is under way; it says which.
    Busy(String),
    /// The keeper's task has ended.
    Stopped,
}

fn list(paths: &[(PathBuf, String)]) -> String {
    let parts: Vec<String> = paths
        .iter()
        .map(|(path, why)| format!("{} ({why})", path.display()))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

impl fmt::Display for VolumeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VolumeError::Config(what) => write!(formatter, "{what}"),
            VolumeError::InUse(path) => write!(
                formatter,
                "{} is in use by another process: stop that node, or give this one directories of its own",
                path.display()
            ),
            VolumeError::Unusable { path, why } => write!(
                formatter,
                "{} cannot be used: {why}; check that it is a directory this user may read and write",
                path.display()
            ),
            VolumeError::Foreign { path, file } => write!(
                formatter,
                "{} is not empty and is no drive of a node (it holds \"{file}\"): name an empty directory",
                path.display()
            ),
            VolumeError::AnotherNode {
                path,
                found,
                expected,
            } => write!(
                formatter,
                "{} belongs to node {found}, this is node {expected}: name this node's own directory",
                path.display()
            ),
            VolumeError::AnotherCopy(path) => write!(
                formatter,
                "{} belongs to another copy of this node: a backup and the node that it was made of have drives and state \
                 directories of their own, which cannot be mixed",
                path.display()
            ),
            VolumeError::IncompleteBackup(path) => write!(
                formatter,
                "{} belongs to a backup that is not complete: it was cut off, or is being made. Delete it and make another",
                path.display()
            ),
            VolumeError::Duplicate { first, second } => write!(
                formatter,
                "{} and {} hold the same drive: one is a copy; remove it from the configuration",
                first.display(),
                second.display()
            ),
            VolumeError::NotMember(path) => write!(
                formatter,
                "{} is not one of this node's drives: remove it from the configuration (`cairn drives add` \
                 takes in a new drive while the node runs)",
                path.display()
            ),
            VolumeError::TooNew { path, what } => write!(
                formatter,
                "{} was written by a later version ({what}): start that version",
                path.display()
            ),
            VolumeError::NoMajority {
                readable,
                copies,
                missing,
                epoch,
            } => write!(
                formatter,
                "only {readable} of {copies} copies of the in-sync epoch can be read, which is no majority, so \
                 writes acknowledged since may be missing; cannot read: {}. Bring them back, or, if they are \
                 lost for good and you accept that, start once with --accept-epoch {epoch}",
                list(missing)
            ),
            VolumeError::OnlyStale {
                epoch,
                stale,
                missing,
            } => {
                let stale: Vec<String> = stale
                    .iter()
                    .map(|(path, known)| format!("{} (stale, epoch {known})", path.display()))
                    .collect();
                write!(
                    formatter,
                    "no drive of the in-sync epoch {epoch} is there; present: {}; cannot read: {}. Bring the \
                     in-sync drive back, or, if it is lost for good and you accept the loss of what was \
                     acknowledged without it, start once with --accept-epoch and the stale drive's epoch",
                    if stale.is_empty() {
                        "none".to_owned()
                    } else {
                        stale.join(", ")
                    },
                    list(missing)
                )
            }
            VolumeError::WrongAcceptEpoch { asked, highest } => write!(
                formatter,
                "--accept-epoch {asked} names an epoch that no present drive holds; the highest readable is \
                 {highest}"
            ),
            VolumeError::LastDrive { path, why } => write!(
                formatter,
                "{} has failed ({why}) and the in-sync drives that are left do not hold every file: stopping before \
                 anything is lost",
                path.display()
            ),
            VolumeError::HolderMissing { missing, epoch } => write!(
                formatter,
                "the in-sync drives that are there do not hold every file; cannot read: {}. Bring them back, or, \
                 if they are lost for good and you accept the loss of what only they held, start once with \
                 --accept-epoch {epoch}",
                list(missing)
            ),
            VolumeError::EpochNotDurable(why) => write!(
                formatter,
                "the new in-sync set could not be written to a majority of drives and witness ({why}): \
                 stopping, nothing is acknowledged"
            ),
            VolumeError::KeyMissing { needed } => write!(
                formatter,
                "the node is encrypted and no root key was given: name the file of root key {needed} with \
                 --root-key-file, or set CAIRN_ROOT_KEY; nothing was changed"
            ),
            VolumeError::WrongKey { needed, given } => {
                let given: Vec<String> = given.iter().map(ToString::to_string).collect();
                write!(
                    formatter,
                    "the node is encrypted under root key {needed}, and {} was given: name the right file with \
                     --root-key-file, or set CAIRN_ROOT_KEY; nothing was changed",
                    given.join(" and ")
                )
            }
            VolumeError::KeyDamaged(root) => write!(
                formatter,
                "root key {root} is the right one, but the node key that the superblocks hold does not open with it: \
                 they were changed by something that is no node; restore one drive's superblock from a backup"
            ),
            VolumeError::EncryptionMismatch { encrypted: true } => write!(
                formatter,
                "the node is encrypted, and --encryption off asks for one that is not: leave the option out. What a \
                 node is was decided when it was created; nothing was changed"
            ),
            VolumeError::EncryptionMismatch { encrypted: false } => write!(
                formatter,
                "the node is not encrypted, and a root key or --encryption on asks for one that is: leave them out, or \
                 say --encryption off. What a node is was decided when it was created; nothing was changed"
            ),
            VolumeError::NotNow(why) => write!(
                formatter,
                "the change could not be written to a majority of drives and witness ({why}); nothing has changed: mend \
                 them and try again"
            ),
            VolumeError::Busy(what) => write!(
                formatter,
                "{what} is under way: wait for its end (`cairn drives list`)"
            ),
            VolumeError::Stopped => write!(formatter, "the volume has been closed"),
        }
    }
}

impl std::error::Error for VolumeError {}
