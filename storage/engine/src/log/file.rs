//! Log files: their names, their header, and how they are made.
//!
//! ```text
//! header, block 0 of the file
//!    0  8  magic "CAIRNLOG"
//!    8  8  checksum: xxh3 of bytes 16..4096, seeded with {log id and slot, 0, 0}
//!   16  2  format version
//!   18  2  zero
//!   20  4  log id
//!   24 16  node id
//!   40 88  entry
//!  128     zeros to the end of the block
//! entry, 88 bytes (in the anchor too)
//!    0  8  file number: rises with every use of any file of the log
//!    8  4  slot: names the file, "log-LLLLLLLL-SSSSSSSS" in hexadecimal
//!   12  4  generation: uses of the slot before this one
//!   16  8  incarnation of the log that opened the file
//!   24  8  in-sync epoch when it was opened
//!   32  4  mirror set, one bit per drive
//!   36  4  length in blocks, this header included
//!   40 32  salt: random; seeds the batches' checksums, and the file's sealing key is derived from it
//!   72  8  first batch, 0 while not known (in the header: always)
//!   80  8  last batch, 0 while open (in the header: always)
//! ```
//!
//! A file belongs to one incarnation only. It is made in full before it gets its name: allocated, written with
//! zeros, synced; reused as it is, because a batch verifies only under its own file number.

use std::io;
use std::rc::Rc;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES, Drive, File, Open, Runtime};

use crate::checksum::{Place, checksum};
use crate::ids::{Epoch, LogId, LogSequence, NodeId};
use crate::volume::DriveSet;

/// Version 1: the first.
const FORMAT_VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"CAIRNLOG";
const ENTRY_AT: usize = 40;
/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 88;
/// A new file is written in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// One use of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    /// Rises with every use of any file of the log.
    pub number: u64,
    /// Names the file.
    pub slot: u32,
    /// Uses of the slot before this one.
    pub generation: u32,
    /// Incarnation of the log that opened the file.
    pub incarnation: u64,
    /// In-sync epoch when it was opened.
    pub epoch: Epoch,
    /// Drives that hold it.
    pub mirrors: DriveSet,
    /// Length in blocks, header included.
    pub blocks: u32,
    /// Random: seeds the batches' checksums, and the file's sealing key is derived from it.
    pub salt: [u8; 32],
    /// First batch; 0 while not known.
    pub first: LogSequence,
    /// Last batch; 0 while open.
    pub last: LogSequence,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes were taken")
}

impl FileEntry {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES as u64
    }

    pub(super) fn encode_into(&self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.mirrors.bits().to_le_bytes());
        bytes[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[40..72].copy_from_slice(&self.salt);
        bytes[72..80].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[80..88].copy_from_slice(&self.last.0.to_le_bytes());
    }

    pub(super) fn decode_from(bytes: &[u8]) -> FileEntry {
        FileEntry {
            number: u64::from_le_bytes(array(bytes, 0)),
            slot: u32::from_le_bytes(array(bytes, 8)),
            generation: u32::from_le_bytes(array(bytes, 12)),
            incarnation: u64::from_le_bytes(array(bytes, 16)),
            epoch: Epoch(u64::from_le_bytes(array(bytes, 24))),
            mirrors: DriveSet::from_bits(u32::from_le_bytes(array(bytes, 32))),
            blocks: u32::from_le_bytes(array(bytes, 36)),
            salt: array(bytes, 40),
            first: LogSequence(u64::from_le_bytes(array(bytes, 72))),
            last: LogSequence(u64::from_le_bytes(array(bytes, 80))),
        }
    }

    /// The header block of the file.
    #[must_use]
    pub fn encode_header(&self, node: NodeId, log: LogId) -> AlignedBuffer {
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        block[..8].copy_from_slice(&MAGIC);
        block[16..18].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[20..24].copy_from_slice(&log.0.to_le_bytes());
        block[24..40].copy_from_slice(&node.0.to_le_bytes());
        // What is learnt later lives in the anchor; the header is written once.
        let entry = FileEntry {
            first: LogSequence(0),
            last: LogSequence(0),
            ..*self
        };
        entry.encode_into(&mut block[ENTRY_AT..ENTRY_AT + ENTRY_BYTES]);
        let sum = checksum(header_seed(log, self.slot), &block[16..]);
        block[8..16].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// The format version of a whole header block that this program does not know.
    #[must_use]
    pub fn unknown_version(block: &[u8], log: LogId, slot: u32) -> Option<u16> {
        let sum = |block: &[u8]| checksum(header_seed(log, slot), &block[16..]).to_le_bytes();
        let whole = block.len() == BLOCK_BYTES && block[..8] == MAGIC && block[8..16] == sum(block);
        whole
            .then(|| u16::from_le_bytes(array(block, 16)))
            .filter(|version| *version != FORMAT_VERSION)
    }

    /// Reads the header block of a slot; `None` when it is not valid.
    #[must_use]
    pub fn decode_header(block: &[u8], node: Option<NodeId>, log: LogId, slot: u32) -> Option<FileEntry> {
        let sum = |block: &[u8]| checksum(header_seed(log, slot), &block[16..]).to_le_bytes();
        if block.len() != BLOCK_BYTES || block[..8] != MAGIC || block[8..16] != sum(block) {
            return None;
        }
        let right = block[16..18] == FORMAT_VERSION.to_le_bytes()
            && block[20..24] == log.0.to_le_bytes()
            && node.is_none_or(|node| block[24..40] == node.0.to_le_bytes());
        let entry = FileEntry::decode_from(&block[ENTRY_AT..ENTRY_AT + ENTRY_BYTES]);
        (right && entry.slot == slot).then_some(entry)
    }
}

fn header_seed(log: LogId, slot: u32) -> u64 {
    Place {
        file: u64::from(log.0) << 32 | u64::from(slot),
        incarnation: 0,
        offset: 0,
    }
    .seed()
}

/// Name of a slot's file.
#[must_use]
pub fn slot_name(log: LogId, slot: u32) -> String {
    format!("log-{:08x}-{slot:08x}", log.0)
}

/// Log and slot of a file name.
#[must_use]
pub fn slot_of_name(name: &str) -> Option<(LogId, u32)> {
    let (log, slot) = name.strip_prefix("log-")?.split_once('-')?;
    if log.len() != 8 || slot.len() != 8 {
        return None;
    }
    Some((
        LogId(u32::from_str_radix(log, 16).ok()?),
        u32::from_str_radix(slot, 16).ok()?,
    ))
}

/// Creates a file of `bytes`, filled with zeros that were really written; there in full or not at all.
pub(super) async fn create_filled<R: Runtime>(
    runtime: &R,
    drive: &R::Drive,
    name: &str,
    bytes: u64,
) -> io::Result<()> {
    let new = format!("{name}.new");
    match drive.remove(&new).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = async {
        let file = drive
            .open(
                &new,
                Open {
                    create_new: true,
                    durable: false,
                    read_only: false,
                },
            )
            .await?;
        file.allocate(bytes).await?;
        let piece = Rc::new(AlignedBuffer::zeroed(PIECE_BYTES));
        let mut offset = 0;
        while offset < bytes {
            let left = usize::try_from(bytes - offset)
                .unwrap_or(usize::MAX)
                .min(PIECE_BYTES);
            let piece = match left {
                PIECE_BYTES => piece.clone(),
                _ => Rc::new(AlignedBuffer::zeroed(left)),
            };
            file.write_at(offset, piece).await?;
            offset += left as u64;
            runtime.yield_now().await;
        }
        file.sync().await
    };
    let made = made.await;
    if let Err(error) = made {
        // The error that matters is the first; a rest that stays is removed by the next attempt.
        let _ = drive.remove(&new).await;
        return Err(error);
    }
    drive.rename(&new, name).await?;
    drive.sync().await
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn example() -> FileEntry {
        FileEntry {
            number: 17,
            slot: 3,
            generation: 2,
            incarnation: 5,
            epoch: Epoch(4),
            mirrors: DriveSet::from_bits(3),
            blocks: 32,
            salt: [7; 32],
            first: LogSequence(0),
            last: LogSequence(0),
        }
    }

    #[test]
    fn a_header_reads_back_only_in_its_slot_log_and_node() {
        let (entry, node, log) = (example(), NodeId(9), LogId(1));
        let block = entry.encode_header(node, log);
        assert_eq!(FileEntry::decode_header(&block, Some(node), log, 3), Some(entry));
        assert_eq!(FileEntry::decode_header(&block, Some(NodeId(8)), log, 3), None);
        assert_eq!(FileEntry::decode_header(&block, None, LogId(2), 3), None);
        assert_eq!(FileEntry::decode_header(&block, None, log, 4), None);
        for at in 0..256 {
            let mut flipped = AlignedBuffer::from_slice(&block);
            flipped[at] ^= 1;
            assert_eq!(
                FileEntry::decode_header(&flipped, None, log, 3),
                None,
                "byte {at}"
            );
        }
    }

    #[test]
    fn names_read_back() {
        assert_eq!(
            slot_of_name(&slot_name(LogId(0xabc), 0x12)),
            Some((LogId(0xabc), 0x12))
        );
        for name in [
            "log-00000001-00000002.new",
            "log-00000001.anchor",
            "log-1-2",
            "superblock",
            "log-",
        ] {
            assert_eq!(slot_of_name(name), None, "{name}");
        }
    }
}
