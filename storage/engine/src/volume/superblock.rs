//! The superblock of a drive and the witness: one layout, two magics.
//!
//! ```text
//!    0  8  magic "CAIRNSUP" (drive) or "CAIRNWIT" (witness)
//!    8  8  checksum: xxh3 of bytes 16..4096, seeded with {magic, 0, offset of the copy}
//!   16  2  format version
//!   18  1  copy, 0..4
//!   19  1  zero
//!   20  2  mirrors: drives that hold each file
//!   22  2  number of drives in the ordered list
//!   24  8  sequence: rises with every write of this member
//!   32 16  node id
//!   48 16  drive id; zero in the witness
//!   64  8  promised epoch
//!   72  8  epoch; 0 until the creation of the node is complete
//!   80  4  in-sync set, one bit per place in the list
//!   84  4  removed set: drives that no longer count for a majority
//!   88  8  feature bits: compatible (may be ignored)
//!   96  8  feature bits: incompatible (refuse to open when unknown)
//!  104  8  feature bits: read-only (refuse to write when unknown)
//!  112  2  guarantee: every file has as many holders in sync that are not joining
//!  114  2  zero
//!  116  4  joining set: in sync, but files from before lack a copy there
//!  120  8  copy: 0 in the node itself, random in a backup of it
//!  128 1024  ordered list, 32 places of 32 bytes: drive id 16, epoch it joined 8, zero 8
//! 1152  4  id of the node key; 0 when the node is not encrypted, and the next 92 bytes are zero
//! 1156  4  cipher: 1 AES-256-GCM
//! 1160  8  id of the root key that wraps the node key
//! 1168 80  wrapped node key: salt 32, sealed key 32, tag 16
//! 1248  4  retired set: of the removed, those that an operator has taken off the list
//! 1252 2844  zero
//! ```
//!
//! Of the incompatible features bit 0 says that the node is encrypted, bit 1 that this is a backup that is not complete.
//!
//! All integers are little-endian. The checksum comes first so that everything behind it is covered; the copy's
//! number and the seed both name the place, so a copy written to another copy's place does not verify.

use std::borrow::Cow;

use cairn_runtime::{AlignedBuffer, BLOCK_BYTES};

use super::{DRIVES_MAX, DriveIndex, DriveSet};
use crate::canary::{self, Canary};
use crate::checksum::{Place, checksum};
use crate::ids::{DriveId, Epoch, NodeId};
use crate::sealing::{RootKeyId, WRAPPED_BYTES, Wrapped, WrappedNodeKey};

/// Version 1: the first.
pub(super) const FORMAT_VERSION: u16 = 1;
/// Copies per member.
pub(super) const COPIES: usize = 4;
/// Distance of the copies: no single bad erase page or torn large write takes two.
pub(super) const COPY_STRIDE: u64 = 64 << 10;
/// Length of the file.
pub(super) const FILE_BYTES: u64 = COPY_STRIDE * COPIES as u64;

const MAGIC_DRIVE: [u8; 8] = *b"CAIRNSUP";
const MAGIC_WITNESS: [u8; 8] = *b"CAIRNWIT";
const LIST_AT: usize = 128;
const PLACE_BYTES: usize = 32;
const KEY_AT: usize = LIST_AT + DRIVES_MAX * PLACE_BYTES;
const KEY_BYTES: usize = 16 + WRAPPED_BYTES;
const RETIRED_AT: usize = KEY_AT + KEY_BYTES;
const _: () = assert!(RETIRED_AT == 1248 && RETIRED_AT + 4 <= BLOCK_BYTES);
/// The incompatible feature of a node that is encrypted.
const ENCRYPTED: u64 = 1;
/// AES-256-GCM, the only cipher so far.
const CIPHER: u32 = 1;

/// The incompatible feature of a backup that is being made, or was cut off.
const INCOMPLETE: u64 = 2;

/// Whose block it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A drive's superblock.
    Drive,
    /// The witness in the state directory.
    Witness,
}

impl MemberKind {
    fn magic(self) -> [u8; 8] {
        match self {
            MemberKind::Drive => MAGIC_DRIVE,
            MemberKind::Witness => MAGIC_WITNESS,
        }
    }
}

/// A drive in the ordered list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrivePlace {
    /// Identity.
    pub id: DriveId,
    /// Epoch in which it joined, complete, the in-sync set.
    pub joined: Epoch,
}

/// What superblock and witness say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Whose it is.
    pub kind: MemberKind,
    /// Rises with every write of this member.
    pub sequence: u64,
    /// The node.
    pub node: NodeId,
    /// 0 in the node itself; a backup of it has another number, so that their drives are never mixed.
    pub copy: u64,
    /// Whether this is a backup that is not complete: nothing starts from it.
    pub incomplete: bool,
    /// The drive; zero in the witness.
    pub drive: DriveId,
    /// Highest epoch number promised: no lower one may be given to a new set.
    pub promised: Epoch,
    /// Version of the in-sync set; 0 while the node is being created.
    pub epoch: Epoch,
    /// The in-sync set.
    pub in_sync: DriveSet,
    /// Drives that do not count for a majority: given up, retired, not yet taken in, or not to be written when the others went
    /// on without them.
    pub removed: DriveSet,
    /// Of them those that an operator has taken off the list: nobody waits for them.
    pub retired: DriveSet,
    /// Drives that hold each file.
    pub mirrors: u16,
    /// Every file that is referred to has as many holders among the in-sync drives that are not joining. 0 after an
    /// operator has given up drives that may have been the last to hold some file.
    pub guarantee: u16,
    /// In-sync drives that nothing may depend on yet: what is new goes to them, what is old is being copied.
    pub joining: DriveSet,
    /// Feature bits that may be ignored when unknown.
    pub compatible: u64,
    /// Feature bits that forbid opening when unknown.
    pub incompatible: u64,
    /// Feature bits that forbid writing when unknown.
    pub read_only: u64,
    /// The key that the node's files are sealed with; none when they are not.
    pub key: Option<WrappedNodeKey>,
    /// All drives the node has had, in order.
    pub drives: Vec<DrivePlace>,
}

/// Why a copy does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyError {
    /// No magic: never written, or overwritten.
    Blank,
    /// The checksum or a field is wrong.
    Corrupt,
    /// A later format, in words.
    TooNew(String),
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("N bytes were taken")
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
    fn u128(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.array(at))
    }
}

fn seed(magic: [u8; 8], copy: usize) -> u64 {
    Place {
        file: u64::from_le_bytes(magic),
        incarnation: 0,
        offset: COPY_STRIDE * copy as u64,
    }
    .seed()
}

impl Superblock {
    /// The drives that count for a majority.
    #[must_use]
    pub fn counted(&self) -> DriveSet {
        (0..self.drives.len())
            .filter_map(DriveIndex::new)
            .collect::<DriveSet>()
            .minus(self.removed)
    }

    /// The drives that the node has, in sync or not.
    #[must_use]
    pub fn expected(&self) -> DriveSet {
        let all = (0..self.drives.len()).filter_map(DriveIndex::new);
        all.collect::<DriveSet>().minus(self.retired)
    }

    /// The in-sync drives that files may depend on.
    #[must_use]
    pub fn settled(&self) -> DriveSet {
        self.in_sync.minus(self.joining)
    }

    /// Whether every file has a holder among `drives`: some file may be on all settled drives that are missing as soon
    /// as there are as many as it surely has holders.
    #[must_use]
    pub fn hold_everything(&self, drives: DriveSet) -> bool {
        self.settled().minus(drives).count() < usize::from(self.guarantee)
    }

    /// Whether only `drives` may stay in sync of those that are.
    #[must_use]
    pub fn may_shrink_to(&self, drives: DriveSet) -> bool {
        !self.in_sync.and(drives).is_empty()
            && (self.settled().is_within(drives) || self.hold_everything(drives))
    }

    /// The same with only `drives` in sync of those that are: what left took its copies along.
    #[must_use]
    pub fn reduced_to(&self, drives: DriveSet) -> Superblock {
        let gone = u16::try_from(self.settled().minus(drives).count()).expect("at most DRIVES_MAX");
        Superblock {
            in_sync: self.in_sync.and(drives),
            joining: self.joining.and(drives),
            guarantee: self.guarantee.saturating_sub(gone),
            ..self.clone()
        }
    }

    /// As a start takes it; a bug that is put in has every drive in sync that is there.
    pub(super) fn as_believed(&self, present: DriveSet) -> Cow<'_, Superblock> {
        if !canary::is_in(Canary::BelieveStale) {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Superblock {
            in_sync: present,
            guarantee: self
                .mirrors
                .min(u16::try_from(present.count()).expect("at most DRIVES_MAX")),
            joining: DriveSet::EMPTY,
            ..self.clone()
        })
    }

    fn is_sane(&self) -> bool {
        let kept = self.epoch == Epoch(0) || usize::from(self.guarantee) <= self.settled().count();
        self.in_sync.is_within(self.counted())
            && self.retired.is_within(self.removed)
            && self.joining.is_within(self.in_sync)
            && self.guarantee <= self.mirrors
            && kept
            && self.epoch <= self.promised
            && self.mirrors > 0
            && self.key.as_ref().is_none_or(|key| key.id > 0)
    }

    /// Place of a drive in the list.
    #[must_use]
    pub fn index_of(&self, drive: DriveId) -> Option<DriveIndex> {
        self.drives
            .iter()
            .position(|place| place.id == drive)
            .and_then(DriveIndex::new)
    }

    /// Copy number `copy` as written.
    #[must_use]
    pub fn encode(&self, copy: usize) -> AlignedBuffer {
        assert!(copy < COPIES && !self.drives.is_empty() && self.drives.len() <= DRIVES_MAX);
        assert!(
            self.is_sane(),
            "in sync and listed, promised before used: {self:?}"
        );
        let mut block = AlignedBuffer::zeroed(BLOCK_BYTES);
        let magic = self.kind.magic();
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &magic);
        put(16, &FORMAT_VERSION.to_le_bytes());
        put(18, &[u8::try_from(copy).expect("below COPIES"), 0]);
        put(20, &self.mirrors.to_le_bytes());
        put(
            22,
            &u16::try_from(self.drives.len())
                .expect("at most DRIVES_MAX")
                .to_le_bytes(),
        );
        put(24, &self.sequence.to_le_bytes());
        put(32, &self.node.0.to_le_bytes());
        put(48, &self.drive.0.to_le_bytes());
        put(64, &self.promised.0.to_le_bytes());
        put(72, &self.epoch.0.to_le_bytes());
        put(80, &self.in_sync.bits().to_le_bytes());
        put(84, &self.removed.bits().to_le_bytes());
        put(88, &self.compatible.to_le_bytes());
        let encrypted = if self.key.is_some() { ENCRYPTED } else { 0 };
        let incomplete = if self.incomplete { INCOMPLETE } else { 0 };
        put(96, &(self.incompatible | encrypted | incomplete).to_le_bytes());
        put(104, &self.read_only.to_le_bytes());
        put(112, &self.guarantee.to_le_bytes());
        put(RETIRED_AT, &self.retired.bits().to_le_bytes());
        put(116, &self.joining.bits().to_le_bytes());
        put(120, &self.copy.to_le_bytes());
        if let Some(key) = &self.key {
            assert!(key.id > 0, "0 is no key");
            put(KEY_AT, &key.id.to_le_bytes());
            put(KEY_AT + 4, &CIPHER.to_le_bytes());
            put(KEY_AT + 8, &key.root.0.to_le_bytes());
            put(KEY_AT + 16, key.wrapped.bytes());
        }
        for (index, place) in self.drives.iter().enumerate() {
            put(LIST_AT + index * PLACE_BYTES, &place.id.0.to_le_bytes());
            put(LIST_AT + index * PLACE_BYTES + 16, &place.joined.0.to_le_bytes());
        }
        let sum = checksum(seed(magic, copy), &block[16..]);
        block[8..16].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads copy number `copy`.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn decode(kind: MemberKind, copy: usize, block: &[u8]) -> Result<Superblock, CopyError> {
        if block.len() != BLOCK_BYTES {
            return Err(CopyError::Corrupt);
        }
        let magic = kind.magic();
        if block[..8] != magic {
            return Err(CopyError::Blank);
        }
        let fields = Fields(block);
        if fields.u64(8) != checksum(seed(magic, copy), &block[16..]) || usize::from(block[18]) != copy {
            return Err(CopyError::Corrupt);
        }
        let version = fields.u16(16);
        if version != FORMAT_VERSION {
            return Err(CopyError::TooNew(format!("superblock format {version}")));
        }
        let count = usize::from(fields.u16(22));
        if count == 0 || count > DRIVES_MAX {
            return Err(CopyError::Corrupt);
        }
        let drives = (0..count)
            .map(|index| LIST_AT + index * PLACE_BYTES)
            .map(|at| DrivePlace {
                id: DriveId(fields.u128(at)),
                joined: Epoch(fields.u64(at + 16)),
            })
            .collect();
        let superblock = Superblock {
            kind,
            sequence: fields.u64(24),
            node: NodeId(fields.u128(32)),
            copy: fields.u64(120),
            incomplete: fields.u64(96) & INCOMPLETE != 0,
            drive: DriveId(fields.u128(48)),
            promised: Epoch(fields.u64(64)),
            epoch: Epoch(fields.u64(72)),
            in_sync: DriveSet::from_bits(fields.u32(80)),
            removed: DriveSet::from_bits(fields.u32(84)),
            retired: DriveSet::from_bits(fields.u32(RETIRED_AT)),
            mirrors: fields.u16(20),
            guarantee: fields.u16(112),
            joining: DriveSet::from_bits(fields.u32(116)),
            compatible: fields.u64(88),
            incompatible: fields.u64(96) & !(ENCRYPTED | INCOMPLETE),
            read_only: fields.u64(104),
            key: (fields.u64(96) & ENCRYPTED != 0).then(|| WrappedNodeKey {
                id: fields.u32(KEY_AT),
                root: RootKeyId(fields.u64(KEY_AT + 8)),
                wrapped: Wrapped::from_bytes(fields.array(KEY_AT + 16)),
            }),
            drives,
        };
        if superblock.incompatible != 0 || superblock.read_only != 0 {
            return Err(CopyError::TooNew(format!(
                "feature bits {:x}/{:x}",
                superblock.incompatible, superblock.read_only
            )));
        }
        if superblock.key.is_some() && fields.u32(KEY_AT + 4) != CIPHER {
            return Err(CopyError::TooNew(format!("cipher {}", fields.u32(KEY_AT + 4))));
        }
        let listed = kind == MemberKind::Witness || superblock.index_of(superblock.drive).is_some();
        if listed && superblock.is_sane() {
            Ok(superblock)
        } else {
            Err(CopyError::Corrupt)
        }
    }
}

/// What the four copies of a member say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quorum {
    /// At least two copies agree on the newest version that two copies agree on.
    Valid {
        /// That version.
        superblock: Superblock,
        /// Whether all four copies hold it.
        complete: bool,
        /// The highest sequence on any copy: the next write must exceed it.
        sequence_max: u64,
    },
    /// Written by a later version, in words.
    TooNew(String),
    /// No two copies agree.
    Damaged,
}

/// Decides what a member says. A write goes to copies 0 and 1, then, when these are durable, to 2 and 3: at any
/// crash two copies hold the version before or the version after.
#[must_use]
pub fn decide(copies: &[Result<Superblock, CopyError>]) -> Quorum {
    let valid: Vec<&Superblock> = copies.iter().filter_map(|copy| copy.as_ref().ok()).collect();
    let agreed = valid
        .iter()
        .filter(|one| valid.iter().filter(|other| other == one).count() >= 2)
        .max_by_key(|superblock| superblock.sequence);
    if let Some(superblock) = agreed {
        return Quorum::Valid {
            superblock: (*superblock).clone(),
            complete: valid.iter().filter(|other| *other == superblock).count() == COPIES,
            sequence_max: valid
                .iter()
                .map(|superblock| superblock.sequence)
                .max()
                .unwrap_or(0),
        };
    }
    let too_new = copies.iter().find_map(|copy| match copy {
        Err(CopyError::TooNew(what)) => Some(what.clone()),
        _ => None,
    });
    too_new.map_or(Quorum::Damaged, Quorum::TooNew)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(sequence: u64) -> Superblock {
        Superblock {
            kind: MemberKind::Drive,
            sequence,
            node: NodeId(7),
            copy: 0,
            incomplete: false,
            drive: DriveId(9),
            promised: Epoch(5),
            epoch: Epoch(4),
            in_sync: DriveSet::from_bits(0b11),
            removed: DriveSet::EMPTY,
            retired: DriveSet::EMPTY,
            mirrors: 2,
            guarantee: 1,
            joining: DriveSet::from_bits(0b10),
            compatible: 1,
            incompatible: 0,
            read_only: 0,
            key: None,
            drives: vec![
                DrivePlace {
                    id: DriveId(9),
                    joined: Epoch(1),
                },
                DrivePlace {
                    id: DriveId(10),
                    joined: Epoch(1),
                },
            ],
        }
    }

    #[test]
    fn a_copy_reads_back_only_at_its_place() {
        for kind in [MemberKind::Drive, MemberKind::Witness] {
            let superblock = Superblock { kind, ..example(3) };
            for copy in 0..COPIES {
                let block = superblock.encode(copy);
                assert_eq!(Superblock::decode(kind, copy, &block), Ok(superblock.clone()));
                assert_eq!(
                    Superblock::decode(kind, (copy + 1) % COPIES, &block),
                    Err(CopyError::Corrupt)
                );
            }
        }
        assert_eq!(
            Superblock::decode(MemberKind::Witness, 0, &example(3).encode(0)),
            Err(CopyError::Blank)
        );
    }

    #[test]
    fn the_layout_is_frozen() {
        let block = example(3).encode(1);
        assert_eq!(&block[..8], b"CAIRNSUP");
        assert_eq!(block[18], 1, "the copy");
        assert_eq!(&block[80..88], [3, 0, 0, 0, 0, 0, 0, 0], "in sync, removed");
        assert_eq!(&block[112..128], [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(checksum(0, &block), 12_442_690_179_275_932_742, "every byte");
    }

    #[test]
    fn a_drive_that_an_operator_removed_is_told_from_one_that_is_lost() {
        let superblock = Superblock {
            in_sync: DriveSet::from_bits(0b1),
            joining: DriveSet::EMPTY,
            removed: DriveSet::from_bits(0b10),
            retired: DriveSet::from_bits(0b10),
            ..example(3)
        };
        let block = superblock.encode(1);
        assert_eq!(block[84..88], [2, 0, 0, 0], "removed");
        assert_eq!(block[1244..1256], [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], "retired");
        assert_eq!(
            Superblock::decode(MemberKind::Drive, 1, &block),
            Ok(superblock.clone())
        );
        assert_eq!(superblock.expected(), DriveSet::from_bits(0b1));
        let lost = Superblock {
            retired: DriveSet::EMPTY,
            ..superblock
        };
        assert_eq!(lost.expected(), DriveSet::from_bits(0b11));
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let block = example(3).encode(0);
        for at in (0..1260).chain(BLOCK_BYTES - 8..BLOCK_BYTES) {
            for bit in 0..8 {
                let mut flipped = AlignedBuffer::from_slice(&block);
                flipped[at] ^= 1 << bit;
                assert!(
                    Superblock::decode(MemberKind::Drive, 0, &flipped).is_err(),
                    "byte {at} bit {bit}"
                );
            }
        }
    }

    #[test]
    fn unknown_features_and_versions_are_refused_by_name() {
        let newer = Superblock {
            incompatible: 4,
            ..example(1)
        }
        .encode(0);
        assert!(matches!(
            Superblock::decode(MemberKind::Drive, 0, &newer),
            Err(CopyError::TooNew(_))
        ));
        let ignored = Superblock {
            compatible: u64::MAX,
            ..example(1)
        }
        .encode(0);
        assert!(Superblock::decode(MemberKind::Drive, 0, &ignored).is_ok());
    }

    #[test]
    fn a_backup_says_whose_copy_it_is_and_whether_it_is_complete() {
        let incomplete = Superblock {
            copy: 0x1122_3344_5566_7788,
            incomplete: true,
            ..example(3)
        };
        let block = incomplete.encode(1);
        assert_eq!(block[120..128], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(block[96..104], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Superblock::decode(MemberKind::Drive, 1, &block), Ok(incomplete));
        assert_eq!(example(3).encode(1)[96..104], [0; 8]);
    }

    /// Copies as digits of their sequence, 0 for a torn one; the answer, or 0 for damaged.
    fn check(copies: [u64; 4], expected: u64) {
        let copies: Vec<_> = copies
            .iter()
            .map(|sequence| {
                if *sequence == 0 {
                    Err(CopyError::Corrupt)
                } else {
                    Ok(example(*sequence))
                }
            })
            .collect();
        let answer = match decide(&copies) {
            Quorum::Valid { superblock, .. } => superblock.sequence,
            Quorum::Damaged | Quorum::TooNew(_) => 0,
        };
        assert_eq!(answer, expected, "{copies:?}");
    }

    #[test]
    fn two_copies_decide() {
        check([2, 2, 2, 2], 2);
        check([3, 2, 2, 2], 2); // the first pair was being written
        check([0, 0, 2, 2], 2);
        check([3, 0, 2, 2], 2);
        check([3, 3, 2, 2], 3); // the first pair was durable
        check([3, 3, 0, 0], 3);
        check([3, 3, 3, 0], 3);
        check([0, 2, 2, 2], 2);
        check([2, 0, 0, 0], 0);
        check([0, 0, 0, 0], 0);
        check([1, 2, 3, 4], 0);
    }
}
