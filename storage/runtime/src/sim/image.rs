//! Contents of files: sparse, and cheap to copy. Blocks are shared, never changed in place.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::random::Random;
use crate::BLOCK_BYTES;

/// The unit that survives or not, whole, when a write is torn.
pub(super) const SECTOR_BYTES: usize = 512;
/// Sectors of a block; a set of them is the bits of a `u8`.
pub(super) const BLOCK_SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;
/// All sectors of a block.
pub(super) const SECTORS_ALL: u8 = u8::MAX;
const _: () = assert!(BLOCK_SECTORS == u8::BITS as usize);

/// One block; `None` is a block of zeros.
pub(super) type Block = Option<Rc<[u8]>>;

static ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// A block with this content.
pub(super) fn block_from(content: &[u8]) -> Block {
    if content == ZEROS {
        None
    } else {
        Some(Rc::from(content))
    }
}

/// The content of a block.
pub(super) fn block_bytes(block: &Block) -> &[u8] {
    block.as_deref().unwrap_or(&ZEROS)
}

/// `old` with the sectors in `sectors` taken from `new`.
pub(super) fn compose(old: &Block, new: &Block, sectors: u8) -> Block {
    match sectors {
        SECTORS_ALL => new.clone(),
        0 => old.clone(),
        _ => {
            let mut mixed = block_bytes(old).to_vec();
            for sector in (0..BLOCK_SECTORS).filter(|sector| sectors & (1 << sector) != 0) {
                let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
                mixed[range.clone()].copy_from_slice(&block_bytes(new)[range]);
            }
            block_from(&mixed)
        }
    }
}

/// Damages `bytes`, a whole number of sectors, in one sector. Never leaves them as they were.
pub(super) fn damage(bytes: &mut [u8], random: &mut Random) {
    let start = random.index(bytes.len() / SECTOR_BYTES) * SECTOR_BYTES;
    let sector = &mut bytes[start..start + SECTOR_BYTES];
    match random.below(4) {
        0 if sector.iter().any(|byte| *byte != 0) => sector.fill(0),
        1 => {
            let first = sector[0];
            random.fill(sector);
            sector[0] = !first;
        }
        _ => sector[random.index(SECTOR_BYTES)] ^= 1 << random.below(8),
    }
}

/// Blocks in one piece of the map: 1 MiB.
const PIECE_BLOCKS: usize = 256;

/// A file's blocks by number.
#[derive(Clone, Default)]
pub(super) struct BlockMap {
    pieces: Vec<Option<Rc<Vec<Block>>>>,
}

impl BlockMap {
    fn place(block: u64) -> (usize, usize) {
        let block = usize::try_from(block).expect("a simulated file fits the address space");
        (block / PIECE_BLOCKS, block % PIECE_BLOCKS)
    }

    pub(super) fn get(&self, block: u64) -> &Block {
        let (piece, place) = BlockMap::place(block);
        match self.pieces.get(piece) {
            Some(Some(piece)) => &piece[place],
            _ => &None,
        }
    }

    pub(super) fn set(&mut self, block: u64, content: Block) {
        let (piece, place) = BlockMap::place(block);
        if piece >= self.pieces.len() {
            if content.is_none() {
                return;
            }
            self.pieces.resize(piece + 1, None);
        }
        let piece = &mut self.pieces[piece];
        if piece.is_none() && content.is_none() {
            return;
        }
        let piece = piece.get_or_insert_with(|| Rc::new(vec![None; PIECE_BLOCKS]));
        Rc::make_mut(piece)[place] = content;
    }

    /// Zeros everything from `block` on.
    pub(super) fn truncate(&mut self, block: u64) {
        let (first, place) = BlockMap::place(block);
        if let Some(Some(piece)) = self.pieces.get_mut(first) {
            Rc::make_mut(piece)[place..].fill(None);
        }
        self.pieces.truncate(first + 1);
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        let first = offset / BLOCK_BYTES as u64;
        for (block, part) in (first..).zip(into.chunks_mut(BLOCK_BYTES)) {
            // The buffer may hold something already: zeros are copied too.
            part.copy_from_slice(&block_bytes(self.get(block))[..part.len()]);
        }
    }
}

/// A copy of a drive's files at one moment. Cheap: blocks are shared with the drive.
#[derive(Clone, Default)]
pub struct DriveImage {
    /// Names, and which file each names: two names of one file are hard links.
    pub(super) names: BTreeMap<String, u64>,
    pub(super) files: BTreeMap<u64, FileImage>,
}

#[derive(Clone, Default)]
pub(super) struct FileImage {
    pub(super) blocks: BlockMap,
    pub(super) bytes: u64,
}

impl DriveImage {
    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Length of a file.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<u64> {
        Some(self.files[self.names.get(name)?].bytes)
    }

    /// A file's whole content.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let file = &self.files[self.names.get(name)?];
        let mut content = vec![0; usize::try_from(file.bytes).expect("an image fits memory")];
        file.blocks.read(0, &mut content);
        Some(content)
    }
}

impl std::fmt::Debug for DriveImage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_map()
            .entries(self.names().map(|name| (name, self.bytes(name))))
            .finish()
    }
}
