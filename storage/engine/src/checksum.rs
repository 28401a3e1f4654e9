//! Checksums of persisted bytes: xxh3, seeded with the place the bytes belong to, so that a block written to
//! another place, or left over from an earlier use of a file, does not verify.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Where persisted bytes belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The file: an id that no other file, nor an earlier use of the same file, has.
    pub file: u64,
    /// The incarnation of the log that wrote it; 0 where there is none.
    pub incarnation: u64,
    /// Offset in bytes.
    pub offset: u64,
}

impl Place {
    /// The seed of checksums at this place.
    #[must_use]
    pub fn seed(self) -> u64 {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.file.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[16..].copy_from_slice(&self.offset.to_le_bytes());
        xxh3_64_with_seed(&bytes, 0)
    }
}

/// xxh3 of `bytes`, seeded.
#[must_use]
pub fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_place_counts() {
        let place = Place {
            file: 1,
            incarnation: 2,
            offset: 4096,
        };
        let others = [
            Place { file: 2, ..place },
            Place {
                incarnation: 3,
                ..place
            },
            Place {
                offset: 8192,
                ..place
            },
            Place {
                file: 2,
                incarnation: 1,
                offset: 4096,
            },
        ];
        for other in others {
            assert_ne!(checksum(place.seed(), b"bytes"), checksum(other.seed(), b"bytes"));
        }
    }

    #[test]
    fn the_function_is_frozen() {
        assert_eq!(checksum(0, b""), 0x2d06_8005_38d3_94c2);
    }
}
