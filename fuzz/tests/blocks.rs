//! Data blocks of segments, plain and packed, with a checksum that is right: what damage never shows, and a hostile
//! file would. A decoder must never panic nor allocate more than an item's worth.

use bolero::check;
use cairn_engine::tree::segment::read_data_block;

const ITERATIONS: usize = 3_000;

/// Edits of a valid block: places (taken modulo its length) and what is xor-ed there, then a cut.
type Edits = (Vec<(u32, u8)>, Option<u16>);

/// A block of three versions by docs/format-segment.md, and the same behind the header of a packed one.
fn plain() -> Vec<u8> {
    let entry = |suffix: u8, commit: u64| {
        let mut entry = vec![1, 0, suffix, 0];
        entry.extend_from_slice(&commit.to_le_bytes());
        entry.extend_from_slice(&40_u32.to_le_bytes());
        entry.extend_from_slice(b"name, value; name, value; name, value; !");
        entry
    };
    let entries = [entry(b'a', 7), entry(b'a', 6), entry(b'b', 9)];
    let mut block = vec![0; 8];
    let offsets_at = 24;
    let first = offsets_at + 2 * entries.len() + 3;
    let used = first + entries.iter().map(Vec::len).sum::<usize>();
    block.extend_from_slice(&(used as u32).to_le_bytes());
    block.extend_from_slice(&[1, 0, 3, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    let mut at = first;
    for entry in &entries {
        block.extend_from_slice(&(at as u16).to_le_bytes());
        at += entry.len();
    }
    block.extend_from_slice(b"key");
    block.extend(entries.concat());
    block
}

fn packed(codec: u8) -> Vec<u8> {
    let plain = plain();
    let mut block = plain[..24].to_vec();
    block.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    match codec {
        1 => block.extend(lz4_flex::block::compress(&plain[24..])),
        _ => block.extend(zstd::bulk::compress(&plain[24..], 1).expect("zstd packs anything")),
    }
    let used = block.len() as u32;
    block[8..12].copy_from_slice(&used.to_le_bytes());
    block[13] = codec;
    block
}

fn edited(valid: &[u8], edits: &Edits) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for (place, flip) in edits.0.iter().take(8) {
        let place = *place as usize % bytes.len();
        bytes[place] ^= flip;
    }
    if let Some(cut) = edits.1 {
        bytes.truncate(usize::from(cut) % (bytes.len() + 1));
    }
    bytes
}

#[test]
fn the_valid_ones_are_read() {
    assert_eq!(read_data_block(&plain()), Ok(3));
    assert_eq!(read_data_block(&packed(1)), Ok(3));
    assert_eq!(read_data_block(&packed(2)), Ok(3));
}

#[test]
fn block_of_any_bytes() {
    check!().with_iterations(ITERATIONS).for_each(|bytes: &[u8]| {
        let _ = read_data_block(bytes);
    });
}

#[test]
fn plain_block_of_edited_bytes() {
    let valid = plain();
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<Edits>()
        .for_each(|edits| {
            let _ = read_data_block(&edited(&valid, edits));
        });
}

#[test]
fn lz4_block_of_edited_bytes() {
    let valid = packed(1);
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<Edits>()
        .for_each(|edits| {
            let _ = read_data_block(&edited(&valid, edits));
        });
}

#[test]
fn zstd_block_of_edited_bytes() {
    let valid = packed(2);
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<Edits>()
        .for_each(|edits| {
            let _ = read_data_block(&edited(&valid, edits));
        });
}
