//! Codecs of data blocks: what turns a block's bytes into fewer, and back.
//!
//! lz4 everywhere by default: it costs a point read some 2 us for an 8 KiB block and a flush little beside its checksums.
//! zstd, where it is asked for, only in the last level, which holds nearly all of the data and is seldom rewritten; what
//! is young stays cheap to write. docs/decisions/0004 has the figures.
//!
//! Invariants:
//! - whoever unpacks says how many bytes it expects, and has bounded that before it allocates;
//! - any input is safe: a codec answers an error, or exactly as many bytes as it was asked for.
//!
//! Contexts are kept from block to block, because making one costs more than a block does. zstd's are made with the
//! first block that needs them: some 1.5 MiB to pack and 160 KiB to unpack, once per engine.

use std::cell::RefCell;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use zstd::bulk::{Compressor, Decompressor};

use crate::manifest::LEVELS_MAX;

/// zstd's level: 1 costs twice what lz4 does for most of what higher levels save on blocks this small.
const ZSTD_LEVEL: i32 = 1;

/// First level that [`Compression::Zstd`] packs with zstd: the last.
const DEEP_LEVEL: usize = LEVELS_MAX - 1;

/// A longer scratch buffer is not kept.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// How the bytes of a block are stored. The number is the codec byte of blocks and file headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    #[default]
    None = 0,
    /// An lz4 block.
    Lz4 = 1,
    /// A zstd frame.
    Zstd = 2,
}

impl Codec {
    /// The codec that a byte stands for.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Codec> {
        [Codec::None, Codec::Lz4, Codec::Zstd]
            .into_iter()
            .find(|codec| *codec as u8 == byte)
    }
}

/// Which codec segments are written with. Segments that exist are read whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None.
    None,
    /// lz4 on all levels.
    #[default]
    Lz4,
    /// zstd on the last level, lz4 on the others.
    Zstd,
}

impl Compression {
    /// Such as `lz4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The codec of new segments in `level`.
    #[must_use]
    pub fn at(self, level: u8) -> Codec {
        match self {
            Compression::None => Codec::None,
            Compression::Zstd if usize::from(level) >= DEEP_LEVEL => Codec::Zstd,
            Compression::Lz4 | Compression::Zstd => Codec::Lz4,
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        [Compression::None, Compression::Lz4, Compression::Zstd]
            .into_iter()
            .find(|compression| compression.name() == text)
            .ok_or_else(|| format!("{text:?} is not one of none, lz4, zstd"))
    }
}

/// The codecs' contexts. One per engine; what reads a file by itself has its own.
#[derive(Default)]
pub(crate) struct Codecs {
    lz4: RefCell<CompressTable>,
    zstd_packs: RefCell<Option<Compressor<'static>>>,
    zstd_unpacks: RefCell<Option<Decompressor<'static>>>,
    /// A block between being opened and being unpacked.
    opened: RefCell<Vec<u8>>,
}

impl std::fmt::Debug for Codecs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Codecs").finish_non_exhaustive()
    }
}

impl Codecs {
    /// Appends the packed form of `bytes` to `into`.
    ///
    /// # Panics
    /// When `codec` is none, which packs nothing.
    pub(crate) fn pack(&self, codec: Codec, bytes: &[u8], into: &mut Vec<u8>) {
        let start = into.len();
        let packed = match codec {
            Codec::None => unreachable!("what is not packed is not handed here"),
            Codec::Lz4 => {
                into.resize(start + get_maximum_output_size(bytes.len()), 0);
                let mut table = self.lz4.borrow_mut();
                if bytes.len() < usize::from(u16::MAX) && matches!(*table, CompressTable::Large(_)) {
                    // A large block has left its table behind, which is slower for the small ones that follow.
                    *table = CompressTable::small();
                }
                compress_into_with_table(bytes, &mut into[start..], &mut table)
                    .expect("there is room for the worst case")
            }
            Codec::Zstd => {
                into.resize(start + zstd::zstd_safe::compress_bound(bytes.len()), 0);
                let mut packs = self.zstd_packs.borrow_mut();
                let compressor = packs.get_or_insert_with(|| {
                    Compressor::new(ZSTD_LEVEL).expect("zstd refuses a level only when it is none")
                });
                compressor
                    .compress_to_buffer(bytes, &mut into[start..])
                    .expect("there is room for the worst case")
            }
        };
        into.truncate(start + packed);
    }

    /// Gives `work` a buffer of so many bytes, whatever they are.
    pub(crate) fn with_scratch<T>(&self, bytes: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut buffer = self.opened.take();
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        let result = work(&mut buffer[..bytes]);
        if buffer.len() <= SCRATCH_BYTES_MAX {
            self.opened.replace(buffer);
        }
        result
    }

    /// Unpacks `packed` into all of `into`.
    ///
    /// # Errors
    /// When it is not what packing that many bytes gives.
    pub(crate) fn unpack(&self, codec: Codec, packed: &[u8], into: &mut [u8]) -> Result<(), &'static str> {
        let unpacked = match codec {
            Codec::None => return Err("the block is not packed"),
            Codec::Lz4 => decompress_into(packed, into).ok(),
            Codec::Zstd => {
                let mut unpacks = self.zstd_unpacks.borrow_mut();
                let decompressor = match &mut *unpacks {
                    Some(decompressor) => decompressor,
                    none => {
                        let made = Decompressor::new().map_err(|_| "zstd has no memory")?;
                        none.insert(made)
                    }
                };
                decompressor.decompress_to_buffer(packed, into).ok()
            }
        };
        match unpacked {
            Some(bytes) if bytes == into.len() => Ok(()),
            Some(_) => Err("the block unpacks to another length"),
            None => Err("the block cannot be unpacked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

    fn samples() -> Vec<Vec<u8>> {
        let random = |length: usize| {
            let mut bytes = vec![0; length];
            cairn_runtime::sim::Random::new(length as u64).fill(&mut bytes);
            bytes
        };
        let mut samples: Vec<Vec<u8>> = [0, 1, 12, 13, 100, 4_000, 70_000].map(random).into();
        samples.extend([1, 40, 9_000, 65_534, 65_535, 100_000].map(|length| vec![7; length]));
        samples.push(b"{\"name\":\"value\"}".repeat(300));
        samples
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let codecs = Codecs::default();
        // Twice, so that a context is used again after a large block and after a small one.
        for sample in samples().iter().chain(&samples()) {
            for codec in CODECS {
                let mut packed = b"before".to_vec();
                codecs.pack(codec, sample, &mut packed);
                let packed = packed.strip_prefix(b"before").unwrap();
                let mut unpacked = vec![1; sample.len()];
                codecs.unpack(codec, packed, &mut unpacked).unwrap();
                assert!(unpacked == *sample);
                for other in [sample.len() + 1, sample.len().saturating_sub(1)] {
                    if other != sample.len() {
                        assert!(codecs.unpack(codec, packed, &mut vec![0; other]).is_err());
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_cut_or_not_packed_is_refused_or_has_the_length() {
        let codecs = Codecs::default();
        let sample = b"{\"name\":\"value\"}".repeat(30);
        for codec in CODECS {
            let mut packed = Vec::new();
            codecs.pack(codec, &sample, &mut packed);
            let mut into = vec![0; sample.len()];
            for cut in 0..packed.len() {
                assert!(
                    codecs.unpack(codec, &packed[..cut], &mut into).is_err(),
                    "{codec:?} {cut}"
                );
            }
            for at in 0..packed.len() {
                for flip in [1, 0x10, 0xff] {
                    let mut bad = packed.clone();
                    bad[at] ^= flip;
                    // Whatever it says, it does not panic: the checksum before it is what finds damage.
                    let _ = codecs.unpack(codec, &bad, &mut into);
                }
            }
        }
        assert!(codecs.unpack(Codec::None, b"", &mut []).is_err());
    }

    #[test]
    fn levels_have_their_codec() {
        let codecs = |compression: Compression| [0, 1, 6, 7].map(|level| compression.at(level));
        assert_eq!(codecs(Compression::None), [Codec::None; 4]);
        assert_eq!(codecs(Compression::Lz4), [Codec::Lz4; 4]);
        assert_eq!(
            codecs(Compression::Zstd),
            [Codec::Lz4, Codec::Lz4, Codec::Lz4, Codec::Zstd]
        );
        assert_eq!([0, 1, 2, 3].map(Codec::from_byte)[3], None);
        for name in ["none", "lz4", "zstd"] {
            assert_eq!(name.parse::<Compression>().unwrap().name(), name);
        }
        assert!("LZ4".parse::<Compression>().is_err());
    }
}
