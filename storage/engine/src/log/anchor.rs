//! The anchor of a log: which files it is made of, and its incarnation. How recovery finds the newest of both.
//!
//! One file "log-LLLLLLLL.anchor" on every in-sync drive, with four copies of 8 KiB, 16 KiB apart. Version v of the
//! anchor is written to copies 0 and 1 when v is even, to 2 and 3 when it is odd, so that the version before stays
//! whole; recovery takes the highest valid version on any in-sync drive.
//!
//! ```text
//!    0  8  magic "CAIRNANC"
//!    8  8  checksum: xxh3 of bytes 16..8192, seeded with {log id, 0, offset of the copy}
//!   16  2  format version
//!   18  2  number of entries
//!   20  4  log id
//!   24  8  anchor version
//!   32  8  incarnation
//!   40  8  next file number: no file with this number or a higher one has been used
//!   48  8  base: the first batch that the first file must hold
//!   56  8  acknowledged when this was written
//!   64 16  node id
//!   80 48  zero
//!  128 88n entries of the files in use, in order of their number; see file.rs
//!        zeros
//! ```
//!
//! A file is listed before its header is written, and its header is written before its first batch. So a header
//! whose number is not below "next file number" proves that the anchor read is not the newest.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Queue, Runtime, sync};

use super::config::FILES_MAX;
use super::file::{ENTRY_BYTES, FileEntry};
use crate::checksum::{Place, checksum};
use crate::ids::{LogId, LogSequence, NodeId};
use crate::volume::DriveIndex;

/// Version 1: the first.
const FORMAT_VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"CAIRNANC";
/// Bytes of a copy.
pub(super) const COPY_BYTES: usize = 2 * BLOCK_BYTES;
/// Copies in the file.
pub(super) const COPIES: usize = 4;
const COPY_STRIDE: u64 = 16 << 10;
/// Length of the file.
pub(crate) const FILE_BYTES: usize = COPIES * COPY_STRIDE as usize;
const LIST_AT: usize = 128;
const _: () = assert!(LIST_AT + FILES_MAX * ENTRY_BYTES <= COPY_BYTES);

/// What the anchor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The node.
    pub node: NodeId,
    /// The log.
    pub log: LogId,
    /// Rises with every write.
    pub version: u64,
    /// Incarnation of the log.
    pub incarnation: u64,
    /// No file with this number or a higher one has been used.
    pub next_file: u64,
    /// The first batch that the first file must hold.
    pub base: LogSequence,
    /// Acknowledged when this was written.
    pub acknowledged: LogSequence,
    /// The files in use, in order.
    pub files: Vec<FileEntry>,
}

/// Name of the anchor's file.
#[must_use]
pub fn anchor_name(log: LogId) -> String {
    format!("log-{:08x}.anchor", log.0)
}

/// Offset of a copy.
pub(super) fn copy_offset(copy: usize) -> u64 {
    COPY_STRIDE * copy as u64
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were taken")
}

fn seed(log: LogId, copy: usize) -> u64 {
    Place {
        file: u64::from(log.0),
        incarnation: u64::from_le_bytes(MAGIC),
        offset: copy_offset(copy),
    }
    .seed()
}

impl Anchor {
    /// Bytes of a copy.
    #[must_use]
    pub fn encode(&self, copy: usize) -> AlignedBuffer {
        assert!(self.files.len() <= FILES_MAX);
        assert!(self.files.is_sorted_by(|one, other| one.number < other.number));
        assert!(self.files.iter().all(|entry| entry.number < self.next_file));
        let mut bytes = AlignedBuffer::zeroed(COPY_BYTES);
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(16, &FORMAT_VERSION.to_le_bytes());
        put(
            18,
            &u16::try_from(self.files.len())
                .expect("at most FILES_MAX")
                .to_le_bytes(),
        );
        put(20, &self.log.0.to_le_bytes());
        put(24, &self.version.to_le_bytes());
        put(32, &self.incarnation.to_le_bytes());
        put(40, &self.next_file.to_le_bytes());
        put(48, &self.base.0.to_le_bytes());
        put(56, &self.acknowledged.0.to_le_bytes());
        put(64, &self.node.0.to_le_bytes());
        for (index, entry) in self.files.iter().enumerate() {
            let at = LIST_AT + index * ENTRY_BYTES;
            entry.encode_into(&mut bytes[at..at + ENTRY_BYTES]);
        }
        let sum = checksum(seed(self.log, copy), &bytes[16..]);
        bytes[8..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The format version of a whole copy that this program does not know.
    #[must_use]
    pub fn unknown_version(bytes: &[u8], log: LogId, copy: usize) -> Option<u16> {
        let whole = bytes.len() == COPY_BYTES
            && bytes[..8] == MAGIC
            && array(bytes, 8) == checksum(seed(log, copy), &bytes[16..]).to_le_bytes();
        whole
            .then(|| u16::from_le_bytes(array(bytes, 16)))
            .filter(|version| *version != FORMAT_VERSION)
    }

    /// Reads a copy; `None` when it is not valid.
    #[must_use]
    pub fn decode(bytes: &[u8], node: Option<NodeId>, log: LogId, copy: usize) -> Option<Anchor> {
        if bytes.len() != COPY_BYTES || bytes[..8] != MAGIC {
            return None;
        }
        if array(bytes, 8) != checksum(seed(log, copy), &bytes[16..]).to_le_bytes()
            || array(bytes, 16) != FORMAT_VERSION.to_le_bytes()
        {
            return None;
        }
        let count = usize::from(u16::from_le_bytes(array(bytes, 18)));
        if count > FILES_MAX {
            return None;
        }
        let entry = |index| FileEntry::decode_from(&bytes[LIST_AT + index * ENTRY_BYTES..][..ENTRY_BYTES]);
        let anchor = Anchor {
            node: NodeId(u128::from_le_bytes(array(bytes, 64))),
            log: LogId(u32::from_le_bytes(array(bytes, 20))),
            version: u64::from_le_bytes(array(bytes, 24)),
            incarnation: u64::from_le_bytes(array(bytes, 32)),
            next_file: u64::from_le_bytes(array(bytes, 40)),
            base: LogSequence(u64::from_le_bytes(array(bytes, 48))),
            acknowledged: LogSequence(u64::from_le_bytes(array(bytes, 56))),
            files: (0..count).map(entry).collect(),
        };
        let right = anchor.log == log && node.is_none_or(|node| anchor.node == node);
        let sorted = anchor.files.is_sorted_by(|one, other| one.number < other.number);
        let below = anchor
            .files
            .iter()
            .all(|entry| entry.number < anchor.next_file && entry.blocks > 1);
        (right && sorted && below).then_some(anchor)
    }
}

/// Open anchor files by drive.
pub(super) type AnchorFiles<R> = BTreeMap<DriveIndex, <<R as Runtime>::Drive as Drive>::File>;

/// A drive's anchor file and what is in it.
pub(crate) struct Opened<F> {
    pub(super) file: F,
    /// The newest valid version.
    pub(super) newest: Option<Anchor>,
    /// The format version of a copy that this program does not know.
    pub(super) unknown: Option<u16>,
}

/// Opens a drive's anchor and reads its newest valid version; `NotFound` when there is no file.
pub(crate) async fn open<R: Runtime>(
    drive: &R::Drive,
    node: NodeId,
    log: LogId,
) -> io::Result<Opened<<R::Drive as Drive>::File>> {
    let file = drive
        .open(
            &anchor_name(log),
            Open {
                durable: true,
                ..Open::default()
            },
        )
        .await?;
    let mut newest: Option<Anchor> = None;
    let mut unknown = None;
    for copy in 0..COPIES {
        // A copy that cannot be read is one less; another drive or the version before has its say.
        let Ok(bytes) = file.read_at(copy_offset(copy), COPY_BYTES).await else {
            continue;
        };
        unknown = unknown.or(Anchor::unknown_version(&bytes, log, copy));
        let Some(anchor) = Anchor::decode(&bytes, Some(node), log, copy) else {
            continue;
        };
        if newest
            .as_ref()
            .is_none_or(|newest| newest.version < anchor.version)
        {
            newest = Some(anchor);
        }
    }
    Ok(Opened {
        file,
        newest,
        unknown,
    })
}

/// Creates a drive's anchor file without content.
pub(super) async fn create<R: Runtime>(
    runtime: &R,
    drive: &R::Drive,
    log: LogId,
) -> io::Result<<R::Drive as Drive>::File> {
    let name = anchor_name(log);
    super::file::create_filled(runtime, drive, &name, FILE_BYTES as u64).await?;
    drive
        .open(
            &name,
            Open {
                durable: true,
                ..Open::default()
            },
        )
        .await
}

/// Writes one version to one drive: both copies of its pair.
pub(super) async fn write<R: Runtime>(
    runtime: R,
    file: <R::Drive as Drive>::File,
    anchor: Rc<Anchor>,
) -> io::Result<()> {
    let pair = if anchor.version.is_multiple_of(2) {
        [0, 1]
    } else {
        [2, 3]
    };
    let writes = pair.map(|copy| {
        let write = file.write_at(copy_offset(copy), Rc::new(anchor.encode(copy)));
        sync::spawn(&runtime, Queue::Foreground, write)
    });
    let mut result = Ok(());
    for write in writes {
        let ended = write
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the task was dropped")));
        result = result.and(ended);
    }
    result
}
