//! Writes values as DynamoDB's JSON, compact, attributes in the order of their names.

use super::scan::find_special;
use super::write_base64;
use crate::{Item, ItemView, Number, Value, ValueView};

/// Appends a JSON string with its quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut start = 0;
    loop {
        let position = find_special(bytes, start);
        out.extend_from_slice(&bytes[start..position]);
        let Some(&byte) = bytes.get(position) else {
            break;
        };
        write_escape(out, byte);
        start = position + 1;
    }
    out.push(b'"');
}

#[cold]
fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
    let letter = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0C => b'f',
        _ => return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]),
    };
    out.extend_from_slice(&[b'\\', letter]);
}

/// Appends an archived item: `{"id":{"S":"..."},...}`.
pub fn write_item_view(out: &mut Vec<u8>, item: ItemView<'_>) {
    write_attributes(out, item.iter(), write_value_view);
}

/// Appends an owned item.
pub fn write_item(out: &mut Vec<u8>, item: &Item) {
    write_attributes(
        out,
        item.iter()
            .map(|attribute| (attribute.name.as_str(), &attribute.value)),
        write_value,
    );
}

/// Appends an archived value: `{"S":"..."}`.
pub fn write_value_view(out: &mut Vec<u8>, value: ValueView<'_>) {
    match value {
        ValueView::S(text) => write_typed(out, b"{\"S\":", |out| write_string(out, text)),
        ValueView::N(number) => write_typed(out, b"{\"N\":", |out| write_number(out, number)),
        ValueView::B(bytes) => write_typed(out, b"{\"B\":", |out| write_binary(out, bytes)),
        ValueView::Bool(truth) => write_bool(out, truth),
        ValueView::Null => write_null(out),
        ValueView::Ss(members) => {
            write_typed(out, b"{\"SS\":", |out| {
                write_array(out, members.iter(), write_string)
            });
        }
        ValueView::Ns(members) => {
            write_typed(out, b"{\"NS\":", |out| {
                write_array(out, members.iter(), write_number)
            });
        }
        ValueView::Bs(members) => {
            write_typed(out, b"{\"BS\":", |out| {
                write_array(out, members.iter(), write_binary)
            });
        }
        ValueView::L(elements) => {
            write_typed(out, b"{\"L\":", |out| {
                write_array(out, elements.iter(), write_value_view)
            });
        }
        ValueView::M(attributes) => {
            write_typed(out, b"{\"M\":", |out| {
                write_attributes(out, attributes.iter(), write_value_view)
            });
        }
    }
}

/// Appends an owned value.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::S(text) => write_typed(out, b"{\"S\":", |out| write_string(out, text)),
        Value::N(number) => write_typed(out, b"{\"N\":", |out| write_number(out, *number)),
        Value::B(bytes) => write_typed(out, b"{\"B\":", |out| write_binary(out, bytes)),
        Value::Bool(truth) => write_bool(out, *truth),
        Value::Null => write_null(out),
        Value::Ss(members) => {
            write_typed(out, b"{\"SS\":", |out| {
                write_array(out, members.iter(), |out, text| write_string(out, text))
            });
        }
        Value::Ns(members) => {
            write_typed(out, b"{\"NS\":", |out| {
                write_array(out, members.iter().copied(), write_number)
            });
        }
        Value::Bs(members) => {
            write_typed(out, b"{\"BS\":", |out| {
                write_array(out, members.iter(), |out, bytes| write_binary(out, bytes))
            });
        }
        Value::L(elements) => {
            write_typed(out, b"{\"L\":", |out| {
                write_array(out, elements.iter(), write_value)
            });
        }
        Value::M(attributes) => write_typed(out, b"{\"M\":", |out| {
            let attributes = attributes
                .iter()
                .map(|attribute| (attribute.name.as_str(), &attribute.value));
            write_attributes(out, attributes, write_value);
        }),
    }
}

fn write_typed(out: &mut Vec<u8>, head: &[u8], body: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(head);
    body(out);
    out.push(b'}');
}

fn write_bool(out: &mut Vec<u8>, truth: bool) {
    out.extend_from_slice(if truth {
        b"{\"BOOL\":true}"
    } else {
        b"{\"BOOL\":false}"
    });
}

fn write_null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"NULL\":true}");
}

fn write_number(out: &mut Vec<u8>, number: Number) {
    out.push(b'"');
    number.write_to(out);
    out.push(b'"');
}

fn write_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    write_base64(out, bytes);
    out.push(b'"');
}

fn write_array<T>(out: &mut Vec<u8>, elements: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

fn write_attributes<'a, T>(
    out: &mut Vec<u8>,
    attributes: impl Iterator<Item = (&'a str, T)>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    out.push(b'{');
    for (index, (name, value)) in attributes.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}
