//! Decimal numbers of up to 38 significant digits, exact.
//!
//! A number **is** its canonical byte form, at most 21 bytes. It is the base-100 form that gives DynamoDB numbers their
//! range, and its length is the size DynamoDB counts, so one form serves storage, keys and size:
//!
//! ```text
//! zero       80
//! positive   | C0 + e          | d1 + 1  | d2 + 1  | ... |            value = 0.d1d2d3... x 100^e,  -64 <= e <= 63
//! negative   | NOT (C0 + e)    | 101 - d1 | 101 - d2 | ... | 66 |     66 (102) ends it unless all 20 digits are there
//! ```
//!
//! Each `d` is two decimal digits, 0 to 99; `d1` and the last `d` are not 0. Hence:
//! - equal numbers have equal bytes, and comparing bytes compares numbers (a negative's complement is ended by a byte
//!   above every digit, so that the shorter one, being the greater, sorts later);
//! - no digit byte is 0, so the form can be padded with zeros.

mod arithmetic;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::ItemError;

/// Most decimal digits a number may have.
pub const NUMBER_DIGITS_MAX: usize = 38;
/// Longest canonical form in bytes.
pub const NUMBER_BYTES_MAX: usize = 21;

/// Exponent of the first digit of the largest numbers: 9.99..E+125.
const MAGNITUDE_MAX: i64 = 125;
/// Exponent of the first digit of the smallest numbers: 1E-130.
const MAGNITUDE_MIN: i64 = -130;
/// Most base-100 digits: 38 decimal digits that begin in the middle of a pair.
const PAIRS_MAX: usize = 20;
/// Ends a negative number; above `101 - 0`, the largest digit byte.
const NEGATIVE_END: u8 = 102;
const ZERO_BYTE: u8 = 0x80;
/// Exponent byte of a positive number with `e == 0`.
const EXPONENT_BIAS: i64 = 0xC0;
/// Longest text that `Display` writes: sign, `0.`, 129 zeros, 38 digits.
const TEXT_BYTES_MAX: usize = 1 + 2 + 129 + NUMBER_DIGITS_MAX;

/// A DynamoDB number: zero, or of magnitude 1E-130 to 9.99..E+125 with at most 38 significant digits.
#[derive(Clone, Copy)]
pub struct Number {
    length: u8,
    /// Canonical form, then zeros.
    bytes: [u8; NUMBER_BYTES_MAX],
}

/// Sign, digits and position: value = 0.d1d2.. x 10^(magnitude + 1). No digits means zero.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    negative: bool,
    /// Exponent of the first digit.
    magnitude: i64,
    count: usize,
    /// Values 0 to 9; the first and last are not 0.
    digits: [u8; 2 * PAIRS_MAX],
}

impl Number {
    /// Zero.
    pub const ZERO: Number = {
        let mut bytes = [0; NUMBER_BYTES_MAX];
        bytes[0] = ZERO_BYTE;
        Number { length: 1, bytes }
    };

    /// The canonical form, whose byte order is the order of numbers.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The number of this canonical form, or `None` when the bytes are not one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Number> {
        is_canonical(bytes).then(|| Number::from_canonical(bytes))
    }

    /// The number of bytes already known to be canonical.
    pub(crate) fn from_canonical(canonical: &[u8]) -> Number {
        debug_assert!(is_canonical(canonical));
        let mut bytes = [0; NUMBER_BYTES_MAX];
        bytes[..canonical.len()].copy_from_slice(canonical);
        Number {
            length: canonical.len() as u8,
            bytes,
        }
    }

    /// Size in bytes as DynamoDB counts it: 1 for the exponent, 1 per two digits as they fall around the decimal
    /// point, 1 for a minus, at most 21.
    #[must_use]
    pub fn size(&self) -> usize {
        usize::from(self.length)
    }

    /// Whether it is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.bytes[0] == ZERO_BYTE && self.length == 1
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.bytes[0] < ZERO_BYTE
    }

    /// The number as an integer, when it is one and fits.
    #[must_use]
    pub fn to_i64(&self) -> Option<i64> {
        let decimal = self.decimal();
        let places = decimal.magnitude + 1 - decimal.count as i64;
        if decimal.count == 0 {
            return Some(0);
        }
        if places < 0 || decimal.magnitude > 18 {
            return None;
        }
        let mut value: i128 = 0;
        for digit in &decimal.digits[..decimal.count] {
            value = value * 10 + i128::from(*digit);
        }
        value *= 10_i128.pow(u32::try_from(places).ok()?);
        i64::try_from(if decimal.negative { -value } else { value }).ok()
    }

    /// Appends the decimal text, as [`fmt::Display`] prints it.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut buffer = [0; TEXT_BYTES_MAX];
        let length = self.text(&mut buffer);
        out.extend_from_slice(&buffer[..length]);
    }

    /// Writes the text at the start of `buffer` and returns its length. Never in exponent form, as DynamoDB.
    fn text(&self, buffer: &mut [u8; TEXT_BYTES_MAX]) -> usize {
        let decimal = self.decimal();
        if decimal.count == 0 {
            buffer[0] = b'0';
            return 1;
        }
        let mut length = 0;
        let mut push = |byte: u8| {
            buffer[length] = byte;
            length += 1;
        };
        if decimal.negative {
            push(b'-');
        }
        if decimal.magnitude < 0 {
            push(b'0');
            push(b'.');
            for _ in decimal.magnitude + 1..0 {
                push(b'0');
            }
        }
        for (index, digit) in decimal.digits[..decimal.count].iter().enumerate() {
            if index as i64 == decimal.magnitude + 1 && index > 0 {
                push(b'.');
            }
            push(b'0' + digit);
        }
        for _ in decimal.count as i64..=decimal.magnitude {
            push(b'0');
        }
        length
    }

    fn decimal(&self) -> Decimal {
        let mut decimal = Decimal {
            negative: self.is_negative(),
            magnitude: 0,
            count: 0,
            digits: [0; 2 * PAIRS_MAX],
        };
        if self.is_zero() {
            return decimal;
        }
        let bytes = self.as_bytes();
        let exponent_byte = if decimal.negative { !bytes[0] } else { bytes[0] };
        let exponent = i64::from(exponent_byte) - EXPONENT_BIAS;
        for (index, &byte) in bytes[1..].iter().enumerate() {
            if byte == NEGATIVE_END {
                break;
            }
            let pair = if decimal.negative { 101 - byte } else { byte - 1 };
            if index > 0 || pair >= 10 {
                decimal.digits[decimal.count] = pair / 10;
                decimal.count += 1;
            }
            decimal.digits[decimal.count] = pair % 10;
            decimal.count += 1;
        }
        let first_is_low = decimal.count % 2 == 1;
        decimal.magnitude = 2 * exponent - 1 - i64::from(first_is_low);
        while decimal.count > 0 && decimal.digits[decimal.count - 1] == 0 {
            decimal.count -= 1;
        }
        decimal
    }

    /// Builds the canonical form from decimal digits 0 to 9 whose first and last are not 0.
    fn from_decimal(negative: bool, magnitude: i64, digits: &[u8]) -> Result<Number, ItemError> {
        if digits.is_empty() {
            return Ok(Number::ZERO);
        }
        if magnitude > MAGNITUDE_MAX {
            return Err(ItemError::NumberOverflow);
        }
        if magnitude < MAGNITUDE_MIN {
            return Err(ItemError::NumberUnderflow);
        }
        if digits.len() > NUMBER_DIGITS_MAX {
            return Err(ItemError::NumberPrecision);
        }
        // An even magnitude means that the first digit stands alone: 1, 123, 0.01.
        let first_is_low = magnitude.rem_euclid(2) == 0;
        let exponent = (magnitude + 1 + i64::from(first_is_low)) / 2;
        let exponent_byte = (EXPONENT_BIAS + exponent) as u8;
        let mut bytes = [0; NUMBER_BYTES_MAX];
        bytes[0] = if negative { !exponent_byte } else { exponent_byte };
        let mut length = 1;
        let mut push = |pair: u8| {
            bytes[length] = if negative { 101 - pair } else { pair + 1 };
            length += 1;
        };
        let rest = if first_is_low {
            push(digits[0]);
            &digits[1..]
        } else {
            digits
        };
        for pair in rest.chunks(2) {
            push(pair[0] * 10 + pair.get(1).copied().unwrap_or(0));
        }
        if negative && length <= PAIRS_MAX {
            bytes[length] = NEGATIVE_END;
            length += 1;
        }
        Ok(Number {
            length: length as u8,
            bytes,
        })
    }
}

/// Whether these bytes are the one form of some number in range.
fn is_canonical(bytes: &[u8]) -> bool {
    let Some((&first, rest)) = bytes.split_first() else {
        return false;
    };
    let negative = first < ZERO_BYTE;
    if rest.is_empty() {
        return first == ZERO_BYTE;
    }
    let pairs = match rest.split_last() {
        Some((&NEGATIVE_END, pairs)) if negative => {
            if pairs.len() >= PAIRS_MAX {
                return false;
            }
            pairs
        }
        _ if negative && rest.len() != PAIRS_MAX => return false,
        _ => rest,
    };
    let (Some(&head), Some(&tail)) = (pairs.first(), pairs.last()) else {
        return false;
    };
    if pairs.len() > PAIRS_MAX {
        return false;
    }
    // `x` and `102 - x` are the same pair of digits, in a positive and in a negative number.
    let low_high = if negative { 2..=101 } else { 1..=100 };
    if !pairs.iter().all(|byte| low_high.contains(byte)) {
        return false;
    }
    let pair = |byte: u8| if negative { 101 - byte } else { byte - 1 };
    let (head, tail) = (pair(head), pair(tail));
    let digits = 2 * pairs.len() - usize::from(head < 10) - usize::from(tail % 10 == 0);
    head != 0 && tail != 0 && digits <= NUMBER_DIGITS_MAX
}

impl FromStr for Number {
    type Err = ItemError;

    /// Reads what Java's `BigDecimal` reads: sign, digits with at most one point, exponent; no spaces.
    fn from_str(text: &str) -> Result<Number, ItemError> {
        if text.is_empty() {
            return Err(ItemError::NumberEmpty);
        }
        parse(text.as_bytes()).unwrap_or_else(|| Err(ItemError::NumberSyntax(text.to_owned())))
    }
}

/// `None` is a syntax error.
fn parse(text: &[u8]) -> Option<Result<Number, ItemError>> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mut digits = [0; NUMBER_DIGITS_MAX];
    // Digits from the first that is not 0; `kept` of them end with the last that is not 0.
    let (mut seen, mut kept) = (0_usize, 0_usize);
    let mut digits_any = false;
    // Digits before the point count up, zeros after the point and before the first digit count down.
    let (mut point, mut integer_digits, mut leading_zeros) = (false, 0_i64, 0_i64);
    let mut position = 0;
    while let Some(&byte) = unsigned.get(position) {
        match byte {
            b'0'..=b'9' => {
                digits_any = true;
                let digit = byte - b'0';
                if digit != 0 || seen > 0 {
                    if let Some(slot) = digits.get_mut(seen) {
                        *slot = digit;
                    }
                    seen += 1;
                    if digit != 0 {
                        kept = seen;
                    }
                    integer_digits += i64::from(!point);
                } else {
                    leading_zeros += i64::from(point);
                }
            }
            b'.' if !point => point = true,
            b'e' | b'E' => break,
            _ => return None,
        }
        position += 1;
    }
    if !digits_any {
        return None;
    }
    let exponent = match unsigned.get(position) {
        None => 0,
        Some(_) => parse_exponent(&unsigned[position + 1..])?,
    };
    if kept == 0 {
        return Some(Ok(Number::ZERO));
    }
    let magnitude = exponent
        + if integer_digits > 0 {
            integer_digits - 1
        } else {
            -leading_zeros - 1
        };
    Some(match magnitude {
        i64::MIN..MAGNITUDE_MIN => Err(ItemError::NumberUnderflow),
        MAGNITUDE_MIN..=MAGNITUDE_MAX if kept > NUMBER_DIGITS_MAX => Err(ItemError::NumberPrecision),
        MAGNITUDE_MIN..=MAGNITUDE_MAX => Number::from_decimal(negative, magnitude, &digits[..kept]),
        _ => Err(ItemError::NumberOverflow),
    })
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        // What a BigDecimal cannot have as its scale is no number to it.
        value = value * 10 + i64::from(byte - b'0');
        if value > i64::from(i32::MAX) {
            return None;
        }
    }
    Some(if negative { -value } else { value })
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        let mut digits = [0; 20];
        let mut rest = value.unsigned_abs();
        let mut start = digits.len();
        while rest > 0 {
            start -= 1;
            digits[start] = (rest % 10) as u8;
            rest /= 10;
        }
        let all = &digits[start..];
        let kept = all
            .iter()
            .rposition(|digit| *digit != 0)
            .map_or(0, |last| last + 1);
        Number::from_decimal(value < 0, all.len() as i64 - 1, &all[..kept]).expect("an i64 is in range")
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; TEXT_BYTES_MAX];
        let length = self.text(&mut buffer);
        formatter.pad(std::str::from_utf8(&buffer[..length]).expect("digits are ASCII"))
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Number {}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}
