//! Random values from a seed, for property tests, load and fuzzing. The same seed gives the same values on every machine.

use crate::{Attribute, DEPTH_MAX, Item, KeyType, KeyValue, Number, Value};

/// A small generator of random numbers (splitmix64); not for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// True once in `n` calls, on average.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A length that is mostly small and sometimes up to `max`.
    pub fn length(&mut self, max: usize) -> usize {
        let bound = self.pick(&[2, 4, 8, 16, max + 1]).min(max + 1);
        self.below(bound)
    }
}

/// Text with ASCII, escapes, control characters, and characters of two to four bytes.
pub fn text(random: &mut Random, length_max: usize) -> String {
    let length = random.length(length_max);
    let plain = !random.one_in(3);
    (0..length)
        .map(|_| {
            if plain {
                char::from(b'a' + random.below(26) as u8)
            } else {
                random.pick(&[
                    'a', 'Z', '0', '"', '\\', '/', '\0', '\u{1}', '\n', '\u{7f}', 'é', 'ß', '漢', '\u{ffff}',
                    '😀',
                ])
            }
        })
        .collect()
}

/// Bytes, often 00 and FF.
pub fn bytes(random: &mut Random, length_max: usize) -> Vec<u8> {
    let length = random.length(length_max);
    let sharp = random.one_in(2);
    (0..length)
        .map(|_| {
            if sharp {
                random.pick(&[0, 1, 2, 0xFE, 0xFF])
            } else {
                random.below(256) as u8
            }
        })
        .collect()
}

/// Text of a number that is in range, in any of the ways it may be written.
pub fn number_text(random: &mut Random) -> String {
    let digits = 1 + random.length(37);
    let mut text = String::new();
    text.push_str(random.pick(&["", "", "-", "+"]));
    for _ in 0..random.below(3) {
        text.push('0');
    }
    let point = random.below(digits + 1);
    for index in 0..digits {
        if index == point && random.one_in(2) {
            text.push('.');
        }
        text.push(char::from(
            b'0' + if random.one_in(3) {
                0
            } else {
                random.below(10) as u8
            },
        ));
    }
    if random.one_in(2) {
        // A first digit is at most 38 places from the exponent.
        let exponent = random.below(176) as i64 - 90;
        text.push_str(&format!("{}{exponent}", random.pick(&["e", "E"])));
    }
    text
}

/// A number in range.
pub fn number(random: &mut Random) -> Number {
    number_text(random)
        .parse()
        .expect("the generated text is a number in range")
}

/// A value of any type, nested up to `levels` below its own.
pub fn value(random: &mut Random, levels: usize) -> Value {
    let members = 1 + random.length(5);
    match random.below(if levels == 0 { 8 } else { 12 }) {
        0 => Value::S(text(random, 40)),
        1 => Value::N(number(random)),
        2 => Value::B(bytes(random, 40)),
        3 => Value::Bool(random.one_in(2)),
        4 => Value::Null,
        5 => {
            let mut members: Vec<_> = (0..members).map(|_| text(random, 12)).collect();
            members.sort();
            members.dedup();
            Value::Ss(members)
        }
        6 => {
            let mut members: Vec<_> = (0..members).map(|_| number(random)).collect();
            members.sort();
            members.dedup();
            Value::Ns(members)
        }
        7 => {
            let mut members: Vec<_> = (0..members).map(|_| bytes(random, 12)).collect();
            members.sort();
            members.dedup();
            Value::Bs(members)
        }
        8 | 9 => {
            let length = random.length(6);
            Value::L((0..length).map(|_| value(random, levels - 1)).collect())
        }
        _ => {
            let length = random.length(6);
            Value::map((0..length).map(|_| attribute(random, levels - 1)).collect())
        }
    }
}

fn attribute(random: &mut Random, levels: usize) -> Attribute {
    let mut name = text(random, 20);
    if name.is_empty() {
        name.push('n');
    }
    Attribute {
        name,
        value: value(random, levels),
    }
}

/// An item, small most of the time, now and then nested to the limit.
pub fn item(random: &mut Random) -> Item {
    let length = random.length(10);
    let mut item: Item = (0..length).map(|_| attribute(random, 3)).collect();
    if random.one_in(10) {
        let depth = random.below(DEPTH_MAX);
        let mut nested = value(random, 0);
        for _ in 0..depth {
            nested = if random.one_in(2) {
                Value::L(vec![nested])
            } else {
                Value::M(vec![Attribute {
                    name: "m".to_owned(),
                    value: nested,
                }])
            };
        }
        item.insert("deep", nested);
    }
    item
}

/// A key value of this type, not empty.
pub fn key_value(random: &mut Random, key_type: KeyType) -> KeyValue {
    match key_type {
        KeyType::S => KeyValue::S(format!("{}{}", random.pick(&["a", "\0", "b"]), text(random, 10))),
        KeyType::N => KeyValue::N(number(random)),
        KeyType::B => {
            let mut bytes = bytes(random, 10);
            bytes.push(random.pick(&[0, 1, 0xFF]));
            KeyValue::B(bytes)
        }
    }
}
