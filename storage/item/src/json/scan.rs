//! Finds the characters that a JSON string cannot hold as they are.

/// Bytes looked at together by the loop that the compiler turns into vector instructions.
const WIDE: usize = 32;

/// Position of the next quote, backslash or control character at or behind `from`, or the length of the text.
///
/// Most strings are short, so the first 16 bytes go word by word; a longer one goes on 32 bytes at a time.
pub(super) fn find_special(bytes: &[u8], from: usize) -> usize {
    let mut position = from;
    for _ in 0..2 {
        let Some(chunk) = bytes.get(position..position + 8) else {
            return find_slowly(bytes, position);
        };
        let marks = marks_of(chunk);
        if marks != 0 {
            return position + (marks.trailing_zeros() / 8) as usize;
        }
        position += 8;
    }
    while let Some(chunk) = bytes.get(position..position + WIDE) {
        if chunk.iter().fold(false, |any, byte| any | is_special(*byte)) {
            break;
        }
        position += WIDE;
    }
    while let Some(chunk) = bytes.get(position..position + 8) {
        let marks = marks_of(chunk);
        if marks != 0 {
            return position + (marks.trailing_zeros() / 8) as usize;
        }
        position += 8;
    }
    find_slowly(bytes, position)
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn find_slowly(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or(&[]);
    from + rest
        .iter()
        .position(|byte| is_special(*byte))
        .unwrap_or(rest.len())
}

/// The high bit of every special byte of eight; bytes above the lowest one marked may be marked falsely.
///
/// A byte is below a bound, or equal to another after XOR, when subtracting borrows from it.
fn marks_of(chunk: &[u8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let word = u64::from_le_bytes(chunk.try_into().expect("the chunk has eight bytes"));
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn agrees_with_looking_at_each_byte() {
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let length = random.below(120);
            let rare = 1 + random.below(100);
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    if random.one_in(rare) {
                        random.next_u64() as u8
                    } else {
                        random.pick(&[b'!', b'#', b' ', b'[', b']', 0x7F, 0x80, 0xA2, 0xDC, 0xFF, b'a'])
                    }
                })
                .collect();
            let from = random.below(length + 1);
            assert_eq!(
                find_special(&bytes, from),
                find_slowly(&bytes, from),
                "{bytes:?} from {from}"
            );
        }
    }
}
