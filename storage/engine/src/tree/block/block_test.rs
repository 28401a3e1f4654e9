use super::*;
use crate::sealing::Secret;

fn plain(seed: u64) -> At<'static> {
    At::plain(seed)
}

/// Sums of what the codecs make of a small block.
const LZ4_SUM: u64 = 11_348_339_584_104_111_176;
const ZSTD_SUM: u64 = 12_727_358_460_436_726_789;

fn build(keys: &[&[u8]], payload_bytes: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    for (number, key) in keys.iter().enumerate() {
        let foreseen = builder.used_with(key, payload_bytes);
        builder.push(key, |into| into.resize(into.len() + payload_bytes, number as u8));
        assert_eq!(builder.used(), foreseen);
    }
    let mut block = Vec::new();
    builder.finish(BlockKind::Data, &mut block);
    assert!(builder.is_empty());
    block
}

fn padded(mut block: Vec<u8>, seed: u64) -> (Vec<u8>, u64) {
    let sum = seal(&mut block, seed);
    block.resize(block.len().next_multiple_of(4096), 0);
    (block, sum)
}

#[test]
fn the_layout_is_frozen() {
    let (block, sum) = padded(build(&[b"ab", b"acd"], 1), 7);
    let expected: [&[u8]; 8] = [
        &sum.to_le_bytes(),
        &[38, 0, 0, 0, 1, 0, 2, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[29, 0, 33, 0],
        b"a",
        &[1, 0, b'b', 0],
        &[2, 0, b'c', b'd', 1],
        &[0; 4096 - 38][..],
    ];
    assert_eq!(block, expected.concat());
    assert_eq!(sum, checksum(7, &block[8..38]));
}

#[test]
fn keys_are_found_wherever_they_stand() {
    let cases: [&[&[u8]]; 6] = [
        &[b"a"],
        &[b"a", b"a", b"a"],
        &[b"", b"a", b"ab", b"b"],
        &[b"prefix", b"prefix1", b"prefix11", b"prefix2"],
        &[b"same-a", b"same-b", b"same-b", b"same-c"],
        &[b"\x01\xff", b"\x01\xff\x00", b"\x01\xff\xff"],
    ];
    let asked: [&[u8]; 14] = [
        b"",
        b"a",
        b"aa",
        b"ab",
        b"b",
        b"c",
        b"pre",
        b"prefix",
        b"prefix1",
        b"prefix3",
        b"same-b",
        b"same-bb",
        b"\x01",
        b"\x01\xff\x01",
    ];
    for keys in cases {
        for payload_bytes in [0, 5, 3_000] {
            let block = build(keys, payload_bytes);
            let view = BlockView::new(&block);
            assert_eq!(view.len(), keys.len());
            let mut key = Vec::new();
            for (entry, expected) in keys.iter().enumerate() {
                view.key_into(entry, &mut key);
                assert_eq!(key, *expected);
                assert!(view.key_is(entry, expected));
                assert_eq!(view.payload(entry), vec![entry as u8; payload_bytes]);
            }
            for key in asked.iter().chain(keys) {
                assert_eq!(
                    view.lower_bound(key),
                    keys.partition_point(|other| other < key),
                    "{keys:?} {key:?}"
                );
                assert_eq!(
                    view.upper_bound(key),
                    keys.partition_point(|other| other <= key),
                    "{keys:?} {key:?}"
                );
            }
        }
    }
}

#[test]
fn large_blocks_have_wide_offsets() {
    for payload_bytes in [65_400, 65_500, 65_506, 65_507, 65_508, 65_510, 70_000] {
        let block = build(&[b"a", b"b"], payload_bytes / 2);
        let view = BlockView::new(&block);
        assert_eq!([view.lower_bound(b"a"), view.lower_bound(b"b")], [0, 1]);
        assert_eq!(view.payload(1).len(), payload_bytes / 2);
        let (block, sum) = padded(block, 1);
        verify(&block, plain(1), sum, BlockKind::Data, &Codecs::default()).unwrap();
    }
}

#[test]
fn any_changed_byte_and_any_other_place_is_refused() {
    let (block, sum) = padded(build(&[b"key-1", b"key-2", b"key-3"], 100), 9);
    let codecs = Codecs::default();
    verify(&block, plain(9), sum, BlockKind::Data, &codecs).unwrap();
    assert!(
        verify(&block, plain(8), sum, BlockKind::Data, &codecs).is_err(),
        "another place"
    );
    assert!(
        verify(&block, plain(9), sum ^ 1, BlockKind::Data, &codecs).is_err(),
        "an older block of this place"
    );
    assert!(
        verify(&block, plain(9), sum, BlockKind::Leaf, &codecs).is_err(),
        "another kind"
    );
    assert!(verify(&vec![0; 4096], plain(9), sum, BlockKind::Data, &codecs).is_err());
    assert!(verify(&[], plain(9), sum, BlockKind::Data, &codecs).is_err());
    for at in 0..block.len() {
        for change in [1, 0x80, 0xff] {
            let mut bad = block.clone();
            bad[at] ^= change;
            assert!(
                verify(&bad, plain(9), sum, BlockKind::Data, &codecs).is_err(),
                "byte {at}"
            );
        }
    }
}

#[test]
fn a_hostile_block_with_a_good_checksum_is_safe() {
    let codecs = Codecs::default();
    let good = build(&[b"key-1", b"key-22", b"key-333"], 4);
    for at in 8..good.len() {
        for byte in 0..=255 {
            let mut bad = good.clone();
            bad[at] = byte;
            let sum = seal(&mut bad, 3);
            // Its length may lie; then the checksum is of something else.
            let Ok(used) = verify(&bad, plain(3), sum, BlockKind::Data, &codecs) else {
                continue;
            };
            let view = BlockView::new(&used);
            let mut key = Vec::new();
            for entry in 0..view.len() {
                view.key_into(entry, &mut key);
                let _ = (
                    view.payload(entry),
                    view.lower_bound(&key),
                    view.upper_bound(b"key-3"),
                );
            }
        }
    }
}

/// A block that packs well.
fn text_block(entries: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    for number in 0..entries {
        let key = format!("user#{number:05}");
        builder.push(key.as_bytes(), |into| {
            into.extend_from_slice(
                format!("{{name: {number}, kind: customer}} ")
                    .repeat(4)
                    .as_bytes(),
            );
        });
    }
    let mut block = Vec::new();
    builder.finish(BlockKind::Data, &mut block);
    block
}

fn packed(block: &[u8], codec: Codec, codecs: &Codecs) -> Vec<u8> {
    let mut packed = Vec::new();
    pack(block, codec, codecs, &mut packed);
    packed
}

#[test]
fn a_part_of_the_entries_is_a_block_and_the_rest_another() {
    let keys: Vec<String> = (0..40)
        .map(|number| format!("key-{}-{number:02}", number / 20))
        .collect();
    let whole = |keys: &[String]| build(&keys.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(), 5);
    for count in [1, 7, 20, 39, 40] {
        let mut builder = BlockBuilder::default();
        for key in &keys {
            builder.push(key.as_bytes(), |into| into.extend_from_slice(&[0; 5]));
        }
        let mut first = Vec::new();
        builder.lay_out(count, BlockKind::Data, &mut first);
        builder.take(count);
        let zeroed = |keys: &[String]| {
            let mut builder = BlockBuilder::default();
            for key in keys {
                builder.push(key.as_bytes(), |into| into.extend_from_slice(&[0; 5]));
            }
            let mut block = Vec::new();
            builder.finish(BlockKind::Data, &mut block);
            block
        };
        assert_eq!(first, zeroed(&keys[..count]));
        assert_eq!(first.len(), whole(&keys[..count]).len());
        assert_eq!(builder.len(), keys.len() - count);
        if count < keys.len() {
            assert_eq!(builder.key(0), keys[count].as_bytes());
            assert_eq!(builder.last_key(), keys[39].as_bytes());
            let mut rest = Vec::new();
            let used = builder.used();
            builder.finish(BlockKind::Data, &mut rest);
            assert_eq!((rest.len(), &rest), (used, &zeroed(&keys[count..])));
        }
    }
}

#[test]
fn the_packed_layout_is_frozen() {
    let codecs = Codecs::default();
    let block = build(&[b"ab", b"acd"], 30);
    for (codec, byte, sum_of_packed) in [(Codec::Lz4, 1, LZ4_SUM), (Codec::Zstd, 2, ZSTD_SUM)] {
        let packed = packed(&block, codec, &codecs);
        let length = u32::try_from(packed.len()).unwrap().to_le_bytes();
        assert_eq!(packed[..8], [0; 8]);
        assert_eq!(packed[8..12], length);
        assert_eq!(packed[12..24], [1, byte, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(packed[24..28], u32::try_from(block.len()).unwrap().to_le_bytes());
        // The formats of the codecs are frozen; what their encoders choose is not, but does not change unnoticed.
        assert_eq!(checksum(0, &packed[28..]), sum_of_packed, "{codec:?}");
    }
}

#[test]
fn a_packed_block_is_what_it_was_packed_from_and_damage_is_found() {
    let codecs = Codecs::default();
    let block = text_block(60);
    for codec in [Codec::Lz4, Codec::Zstd] {
        let packed_block = packed(&block, codec, &codecs);
        assert!(
            packed_block.len() < block.len() / 4,
            "{codec:?}: {}",
            packed_block.len()
        );
        let (stored, sum) = padded(packed_block, 9);
        let unpacked = verify(&stored, plain(9), sum, BlockKind::Data, &codecs).unwrap();
        // All but the checksum, which is of what is stored.
        assert_eq!(unpacked[8..], block[8..]);
        assert!(
            verify(&stored, plain(8), sum, BlockKind::Data, &codecs).is_err(),
            "another place"
        );
        for at in 0..stored.len() {
            for change in [1, 0x80, 0xff] {
                let mut bad = stored.clone();
                bad[at] ^= change;
                assert!(
                    verify(&bad, plain(9), sum, BlockKind::Data, &codecs).is_err(),
                    "byte {at}"
                );
            }
        }
        let mut index = packed(&block, codec, &codecs);
        index[12] = BlockKind::Leaf as u8;
        let (index, sum) = padded(index, 9);
        assert!(
            verify(&index, plain(9), sum, BlockKind::Leaf, &codecs).is_err(),
            "an index is never packed"
        );
    }
}

#[test]
fn a_hostile_packed_block_with_a_good_checksum_is_safe_and_allocates_little() {
    let codecs = Codecs::default();
    for (entries, codec) in [
        (1, Codec::Lz4),
        (20, Codec::Lz4),
        (1, Codec::Zstd),
        (20, Codec::Zstd),
    ] {
        let good = packed(&text_block(entries), codec, &codecs);
        for at in 8..good.len() {
            for byte in [0, 1, 2, 3, 0x0f, 0x7f, 0x80, 0xf0, 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let sum = seal(&mut bad, 3);
                let Ok(used) = verify(&bad, plain(3), sum, BlockKind::Data, &codecs) else {
                    continue;
                };
                assert!(used.len() <= UNPACKED_ALONE_BYTES_MAX);
                let view = BlockView::new(&used);
                let mut key = Vec::new();
                for entry in 0..view.len() {
                    view.key_into(entry, &mut key);
                    let _ = (view.payload(entry), view.lower_bound(&key));
                }
            }
        }
        // A length that nobody would pack: more than an item, more than a block of many, or no shrinking.
        for length in [
            0,
            23,
            28,
            good.len(),
            UNPACKED_ALONE_BYTES_MAX + 1,
            usize::from(u16::MAX) << 16,
        ] {
            let mut bad = good.clone();
            bad[24..28].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            let sum = seal(&mut bad, 3);
            let refused = verify(&bad, plain(3), sum, BlockKind::Data, &codecs);
            assert_eq!(
                refused.err(),
                Some("the block's unpacked length is impossible"),
                "{length}"
            );
        }
        let mut cut = good[..26].to_vec();
        cut[8..12].copy_from_slice(&26_u32.to_le_bytes());
        let sum = seal(&mut cut, 3);
        assert!(verify(&cut, plain(3), sum, BlockKind::Data, &codecs).is_err());
    }
}

#[test]
fn a_sealed_block_reads_back_at_its_place_under_its_key() {
    let codecs = Codecs::default();
    let cipher = |byte: u8, id: u32| FileCipher::new(&Secret::new([byte; 32]), id);
    let (right, others) = (cipher(1, 3), [cipher(2, 3), cipher(1, 4)]);
    let at = |cipher, unit| At {
        seed: 9,
        unit,
        cipher: Some(cipher),
    };
    let keys: Vec<Vec<u8>> = (0..40)
        .map(|number| format!("key-{number:04}").into_bytes())
        .collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let laid_out = build(&keys, 90);
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        let mut block = Vec::new();
        match codec {
            Codec::None => block.clone_from(&laid_out),
            codec => pack(&laid_out, codec, &codecs, &mut block),
        }
        let before = block.len();
        let sum = close(&mut block, at(&right, 5));
        assert_eq!(block.len(), before + TAG_BYTES);
        assert_eq!(block[20..24], [3, 0, 0, 0]);
        for secret in [b"key-".as_slice(), &[7; 20]] {
            assert!(block.windows(secret.len()).all(|window| window != secret));
        }
        block.resize(block.len().next_multiple_of(4096), 0);
        let read = verify(&block, at(&right, 5), sum, BlockKind::Data, &codecs).unwrap();
        assert_eq!(read[24..], laid_out[24..]);
        assert_eq!(read[8..12], laid_out[8..12]);
        for wrong in [at(&right, 6), at(&others[0], 5), at(&others[1], 5), plain(9)] {
            assert!(
                verify(&block, wrong, sum, BlockKind::Data, &codecs).is_err(),
                "{wrong:?}"
            );
        }
        for place in (8..before + TAG_BYTES).step_by(7) {
            // Damage that the checksum does not tell, as of somebody who can write checksums.
            let mut bad = block.clone();
            bad[place] ^= 1;
            let Ok(used) = used_bytes(&bad).map(<[u8]>::len) else {
                continue;
            };
            let sum = seal(&mut bad[..used], 9);
            let refused = verify(&bad, at(&right, 5), sum, BlockKind::Data, &codecs);
            assert!(refused.is_err(), "byte {place}");
        }
    }
    for short in [24, 30, 39] {
        let mut block = laid_out[..short].to_vec();
        block[8..12].copy_from_slice(&(short as u32).to_le_bytes());
        block[20..24].copy_from_slice(&[3, 0, 0, 0]);
        let sum = seal(&mut block, 9);
        assert!(verify(&block, at(&right, 5), sum, BlockKind::Data, &codecs).is_err());
    }
}
