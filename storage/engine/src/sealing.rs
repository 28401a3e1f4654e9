//! Encryption at rest: AES-256-GCM of everything that a client wrote, and the keys that it takes.
//!
//! ```text
//! root key          32 bytes, in a file or a variable off the drives
//!  └ wraps the node key         in every superblock and in the witness
//!     ├ HKDF(node key, salt of a log file)         seals the batches of that use of the file
//!     └ wraps the table keys    in the header of every segment of the table
//!        └ HKDF(table key, salt of a segment)      seals the blocks of that segment
//! ```
//!
//! **Nonces.** The key of a file is derived from 32 random bytes of its own, drawn anew for every use of a log file and
//! every segment, and durable before anything that needs the key counts: a log file's in the anchor and in its header
//! before the first batch, a segment's in its header before the manifest names the segment. Within a file the nonce is the number
//! of the 4 KiB block where the sealed bytes begin. So one pair of key and nonce would be used for two contents only if
//! one block of one use of a file were written with two contents. That never happens:
//! - a batch is sealed when it is given its place, the place behind it is the next one's, and a retry, a repair and a copy
//!   write the bytes that were sealed then; a start seals the file that it finds open and goes on in another;
//! - a segment is written once from front to back by one writer; what is abandoned is begun again under another salt;
//! - a wrapped key has a wrapping key of its own, derived from a salt drawn for it.
//!
//! [`audit`] holds a run of the simulator against this.
//!
//! **What a tag vouches for**: the bytes and the fields of their header that a reader acts on, at that block of that file.
//! A checksum over what is stored stands around it and is looked at first, so damage is found and repaired without a key.
//!
//! **What is not hidden**: ids of node, tables and partitions, numbers and lengths of batches and blocks, time of writing. Nor does
//! sealing keep somebody who can write to the drives from putting back what was there before.

pub mod audit;
mod keys;
#[cfg(test)]
mod sealing_test;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

pub use keys::{Keys, RootKey, RootKeyId, WrappedNodeKey};
pub(crate) use keys::{NodeKey, TableKey, TableKeys, WRAPPED_BYTES, Wrapped};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes that make the key of a file its own.
pub(crate) const SALT_BYTES: usize = 32;
/// Bytes of a tag.
pub(crate) const TAG_BYTES: usize = 16;

/// 32 bytes that nobody is to see. Overwritten when they are no longer needed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; KEY_BYTES]);

impl Secret {
    pub(crate) fn new(bytes: [u8; KEY_BYTES]) -> Secret {
        Secret(bytes)
    }

    /// The key that `salt` and what it is for make of this one. The parts of `info` have fixed lengths.
    pub(crate) fn derive(&self, salt: &[u8; SALT_BYTES], info: &[&[u8]]) -> Secret {
        let extracted = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let mut bytes = [0; KEY_BYTES];
        extracted
            .expand(info, HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut bytes))
            .expect("HKDF-SHA256 gives 32 bytes");
        Secret(bytes)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Or the compiler might see that nobody looks.
        std::hint::black_box(&self.0);
    }
}

/// Seals and opens the blocks of one file.
pub(crate) struct FileCipher {
    key: LessSafeKey,
    key_id: u32,
    /// Stands for the key in [`audit`].
    mark: u64,
}

impl FileCipher {
    /// What it takes in memory, roughly: the expanded key and the tables of its authenticator.
    pub(crate) const RESIDENT_BYTES: usize = 1024;

    pub(crate) fn new(secret: &Secret, key_id: u32) -> FileCipher {
        let key = UnboundKey::new(&AES_256_GCM, &secret.0).expect("a key of 32 bytes");
        FileCipher {
            key: LessSafeKey::new(key),
            key_id,
            mark: audit::mark(&secret.0),
        }
    }

    /// The key that the file's is derived from: what its headers say.
    pub(crate) fn key_id(&self) -> u32 {
        self.key_id
    }

    /// Seals `content`, which begins at `block` of the file, in place. `about` is vouched for too.
    pub(crate) fn seal(&self, block: u64, about: &[u8], content: &mut [u8]) -> [u8; TAG_BYTES] {
        audit::note(self.mark, block, about, content);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(block), Aad::from(about), content)
            .expect("a batch or block is far below AES-GCM's 64 GiB");
        tag.as_ref().try_into().expect("tags of AES-GCM have 16 bytes")
    }

    /// Opens `sealed` into all of `into`.
    ///
    /// # Errors
    /// When the tag is not that of these bytes at this place under this key; `into` holds nothing then.
    pub(crate) fn open(
        &self,
        block: u64,
        about: &[u8],
        sealed: &[u8],
        tag: &[u8],
        into: &mut [u8],
    ) -> Result<(), &'static str> {
        self.key
            .open_separate_gather(nonce(block), Aad::from(about), sealed, tag, into)
            .map_err(|_| "the seal is broken")
    }
}

impl std::fmt::Debug for FileCipher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FileCipher(key {})", self.key_id)
    }
}

/// | block u64 LE | 0 u32 |
fn nonce(block: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
