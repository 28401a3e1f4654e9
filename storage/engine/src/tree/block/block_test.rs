use super::*;

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
        verify(&block, 1, sum, BlockKind::Data).unwrap();
    }
}

#[test]
fn any_changed_byte_and_any_other_place_is_refused() {
    let (block, sum) = padded(build(&[b"key-1", b"key-2", b"key-3"], 100), 9);
    verify(&block, 9, sum, BlockKind::Data).unwrap();
    assert!(verify(&block, 8, sum, BlockKind::Data).is_err(), "another place");
    assert!(
        verify(&block, 9, sum ^ 1, BlockKind::Data).is_err(),
        "an older block of this place"
    );
    assert!(verify(&block, 9, sum, BlockKind::Leaf).is_err(), "another kind");
    assert!(verify(&vec![0; 4096], 9, sum, BlockKind::Data).is_err());
    assert!(verify(&[], 9, sum, BlockKind::Data).is_err());
    for at in 0..block.len() {
        for change in [1, 0x80, 0xff] {
            let mut bad = block.clone();
            bad[at] ^= change;
            assert!(verify(&bad, 9, sum, BlockKind::Data).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_hostile_block_with_a_good_checksum_is_safe() {
    let good = build(&[b"key-1", b"key-22", b"key-333"], 4);
    for at in 8..good.len() {
        for byte in 0..=255 {
            let mut bad = good.clone();
            bad[at] = byte;
            let sum = seal(&mut bad, 3);
            // Its length may lie; then the checksum is of something else.
            let Ok(used) = verify(&bad, 3, sum, BlockKind::Data) else {
                continue;
            };
            let view = BlockView::new(used);
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
