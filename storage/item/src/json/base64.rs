//! Base64 as in RFC 4648 section 4: padded, and strict about the bits behind the last byte.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const INVALID: u8 = 0xFF;

/// Value of each character.
const VALUES: [u8; 256] = {
    let mut values = [INVALID; 256];
    let mut index = 0;
    while index < 64 {
        values[ALPHABET[index] as usize] = index as u8;
        index += 1;
    }
    values
};

/// Appends `bytes` in base64.
pub fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = [
            chunk[0],
            chunk.get(1).copied().unwrap_or(0),
            chunk.get(2).copied().unwrap_or(0),
        ];
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        let mut text = [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63]);
        text[chunk.len() + 1..].fill(b'=');
        out.extend_from_slice(&text);
    }
}

/// Decodes base64.
///
/// # Errors
/// The message with which DynamoDB refuses the text.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes();
    let refuse = |why: String| Err(format!("'{text}' can not be converted to a Blob: {why}"));
    if !bytes.len().is_multiple_of(4) {
        return refuse(format!(
            "Base64 encoded length is expected a multiple of 4 bytes but found: {}",
            bytes.len()
        ));
    }
    let padding = bytes
        .iter()
        .rev()
        .take(2)
        .take_while(|byte| **byte == b'=')
        .count();
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let (digits, _) = bytes.split_at(bytes.len() - padding);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for byte in group {
            let value = VALUES[usize::from(*byte)];
            if value == INVALID {
                let character = text
                    .chars()
                    .find(|c| !c.is_ascii() || VALUES[*c as usize] == INVALID)
                    .unwrap_or('=');
                return refuse(format!("Invalid Base64 character: '{character}'"));
            }
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        let [_, first, second, third] = bits.to_be_bytes();
        let whole = [first, second, third];
        if whole[group.len() - 1..].iter().any(|rest| *rest != 0) {
            return refuse("Invalid last non-pad Base64 character dectected".to_owned());
        }
        out.extend_from_slice(&whole[..group.len() - 1]);
    }
    Ok(out)
}
