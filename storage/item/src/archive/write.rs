//! Writes the archived form.
//!
//! 1. For each entry of a row, in order: what does not fit in the entry (name, text, or the row of a nested value) goes
//!    to the output, and the entry, with the place of that, on a stack of entries.
//! 2. Then the entries of the row leave the stack for the output; only now are their distances known.
//!
//! rkyv's own serializer would do the same through a resolver per entry; this order is what its validator asks for.

use super::layout::{ATTRIBUTE_BYTES, INLINE_BYTES, NAME_ELSEWHERE, TEXT_PAD, VALUE_BYTES};
use crate::{Attribute, DEPTH_MAX, ITEM_BYTES_MAX, Item, Value};

/// Distances and lengths have 24 bits.
const ARCHIVE_BYTES_MAX: usize = 1 << 24;
// Nothing DynamoDB counts as n bytes takes more than 13 n here (an attribute with a 1-byte name and an empty string).
const _: () = assert!(ITEM_BYTES_MAX * ATTRIBUTE_BYTES + INLINE_BYTES < ARCHIVE_BYTES_MAX);

/// Marks an entry's field that needs no distance.
const INLINE: u32 = u32::MAX;

/// One value on its way into a row.
#[derive(Clone, Copy)]
struct Slot {
    tag: u8,
    payload: [u8; INLINE_BYTES],
    /// Position of the out-of-line bytes, or [`INLINE`].
    position: u32,
}

/// One name and value on their way into a row.
struct Entry {
    name: [u8; INLINE_BYTES],
    name_position: u32,
    value: Slot,
}

/// The archived form of an item.
///
/// # Panics
/// The item breaks an invariant of the crate: nested too deep, attributes or sets out of order, or so far above
/// [`ITEM_BYTES_MAX`] that its archive would pass 16 MiB. [`Item::validate`] and [`crate::json`] refuse such items.
#[must_use]
pub fn archive(item: &Item) -> Vec<u8> {
    let mut writer = Writer {
        out: Vec::with_capacity(64 + item.size() + 16 * item.len()),
        values: Vec::new(),
    };
    let slot = writer.attributes(13, item.attributes(), 1);
    writer.push_payload(&slot);
    assert!(
        writer.out.len() < ARCHIVE_BYTES_MAX,
        "an item within its size limit has a small archive"
    );
    writer.out
}

struct Writer {
    out: Vec<u8>,
    /// Entries of the rows under way, innermost last.
    values: Vec<Entry>,
}

impl Writer {
    fn value(&mut self, value: &Value, level: usize) -> Slot {
        assert!(level <= DEPTH_MAX, "values are nested at most DEPTH_MAX levels");
        match value {
            Value::Null => Slot {
                tag: 0,
                payload: [0; INLINE_BYTES],
                position: INLINE,
            },
            Value::Bool(truth) => Slot {
                tag: 1 + u8::from(*truth),
                payload: [0; INLINE_BYTES],
                position: INLINE,
            },
            Value::S(text) => self.text(text),
            Value::N(number) => self.number(number.as_bytes()),
            Value::B(bytes) => self.binary(bytes),
            Value::Ss(members) => self.row(9, members, |writer, member| writer.text(member)),
            Value::Ns(members) => self.row(10, members, |writer, member| writer.number(member.as_bytes())),
            Value::Bs(members) => self.row(11, members, |writer, member| writer.binary(member)),
            Value::L(elements) => {
                let base = self.values.len();
                for element in elements {
                    let value = self.value(element, level + 1);
                    self.values.push(Entry {
                        name: [0; INLINE_BYTES],
                        name_position: INLINE,
                        value,
                    });
                }
                self.flush_values(12, base)
            }
            Value::M(attributes) => self.attributes(13, attributes, level + 1),
        }
    }

    fn row<T: Ord>(&mut self, tag: u8, members: &[T], slot: impl Fn(&mut Writer, &T) -> Slot) -> Slot {
        assert!(!members.is_empty(), "sets are never empty");
        assert!(
            members.windows(2).all(|pair| pair[0] < pair[1]),
            "sets are kept sorted and unique"
        );
        let base = self.values.len();
        for member in members {
            let value = slot(self, member);
            self.values.push(Entry {
                name: [0; INLINE_BYTES],
                name_position: INLINE,
                value,
            });
        }
        self.flush_values(tag, base)
    }

    fn attributes(&mut self, tag: u8, attributes: &[Attribute], level: usize) -> Slot {
        assert!(
            attributes.windows(2).all(|pair| pair[0].name < pair[1].name),
            "attributes are kept sorted by name and unique"
        );
        let base = self.values.len();
        for attribute in attributes {
            let name_bytes = attribute.name.as_bytes();
            let mut name = [TEXT_PAD; INLINE_BYTES];
            let mut name_position = INLINE;
            if name_bytes.len() <= INLINE_BYTES {
                name[..name_bytes.len()].copy_from_slice(name_bytes);
            } else {
                let length = u16::try_from(name_bytes.len()).expect("names are at most NAME_BYTES_MAX long");
                name_position = self.append(name_bytes);
                name = [
                    NAME_ELSEWHERE,
                    0,
                    0,
                    0,
                    length.to_le_bytes()[0],
                    length.to_le_bytes()[1],
                ];
            }
            let value = self.value(&attribute.value, level);
            self.values.push(Entry {
                name,
                name_position,
                value,
            });
        }
        let position = self.out.len() as u32;
        let mut entries = std::mem::take(&mut self.values);
        self.out.reserve((entries.len() - base) * ATTRIBUTE_BYTES);
        for entry in entries.drain(base..) {
            let mut name = entry.name;
            if entry.name_position != INLINE {
                name[1..4].copy_from_slice(&self.distance(entry.name_position));
            }
            self.out.extend_from_slice(&name);
            self.out.push(entry.value.tag);
            self.push_payload(&entry.value);
        }
        self.values = entries;
        span(tag, position, attributes.len())
    }

    fn flush_values(&mut self, tag: u8, base: usize) -> Slot {
        let position = self.out.len() as u32;
        let mut entries = std::mem::take(&mut self.values);
        let count = entries.len() - base;
        self.out.reserve(count * VALUE_BYTES);
        for entry in entries.drain(base..) {
            self.out.push(entry.value.tag);
            self.push_payload(&entry.value);
        }
        self.values = entries;
        span(tag, position, count)
    }

    fn text(&mut self, text: &str) -> Slot {
        let bytes = text.as_bytes();
        if bytes.len() > INLINE_BYTES {
            return self.elsewhere(4, bytes);
        }
        let mut payload = [TEXT_PAD; INLINE_BYTES];
        payload[..bytes.len()].copy_from_slice(bytes);
        Slot {
            tag: 3,
            payload,
            position: INLINE,
        }
    }

    fn number(&mut self, bytes: &[u8]) -> Slot {
        if bytes.len() > INLINE_BYTES {
            return self.elsewhere(6, bytes);
        }
        let mut payload = [0; INLINE_BYTES];
        payload[..bytes.len()].copy_from_slice(bytes);
        Slot {
            tag: 5,
            payload,
            position: INLINE,
        }
    }

    fn binary(&mut self, bytes: &[u8]) -> Slot {
        if bytes.len() >= INLINE_BYTES {
            return self.elsewhere(8, bytes);
        }
        let mut payload = [0; INLINE_BYTES];
        payload[..bytes.len()].copy_from_slice(bytes);
        payload[INLINE_BYTES - 1] = bytes.len() as u8;
        Slot {
            tag: 7,
            payload,
            position: INLINE,
        }
    }

    fn elsewhere(&mut self, tag: u8, bytes: &[u8]) -> Slot {
        let position = self.append(bytes);
        span(tag, position, bytes.len())
    }

    fn append(&mut self, bytes: &[u8]) -> u32 {
        let position = self.out.len() as u32;
        assert!(
            self.out.len() + bytes.len() < ARCHIVE_BYTES_MAX,
            "an item within its size limit has a small archive"
        );
        self.out.extend_from_slice(bytes);
        position
    }

    /// From the end of the output back to `position`.
    fn distance(&self, position: u32) -> [u8; 3] {
        u24(self.out.len() - position as usize)
    }

    fn push_payload(&mut self, slot: &Slot) {
        let mut payload = slot.payload;
        if slot.position != INLINE {
            payload[..3].copy_from_slice(&self.distance(slot.position));
        }
        self.out.extend_from_slice(&payload);
    }
}

fn span(tag: u8, position: u32, length: usize) -> Slot {
    if length == 0 {
        return Slot {
            tag,
            payload: [0; INLINE_BYTES],
            position: INLINE,
        };
    }
    let [low, middle, high] = u24(length);
    Slot {
        tag,
        payload: [0, 0, 0, low, middle, high],
        position,
    }
}

fn u24(value: usize) -> [u8; 3] {
    assert!(
        value < ARCHIVE_BYTES_MAX,
        "an item within its size limit has a small archive"
    );
    let [low, middle, high, _] = (value as u32).to_le_bytes();
    [low, middle, high]
}
