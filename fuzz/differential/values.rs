//! Random attribute values, keys and items. The pools are small, so that requests meet each other's items.

use cairn_runtime::sim::Random;
use serde_json::{Value, json};

use crate::world::Shape;

/// Names of attributes that are no keys of a table. The last four have values of one type only, so that updates find what they fit.
pub(crate) const NAMES: [&str; 14] = [
    "color", "size", "a", "c", "list", "map", "tags", "numbers", "name", "x.y", "num", "words", "doc", "arr",
];

const TEXTS: [&str; 12] = [
    "", "a", "b", "ab", "abc", "red", "green", "blue", "A", "é", "10", "red blue",
];
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "10",
    "1.5",
    "-0.25",
    "100",
    "1e3",
    "007",
    "1.50",
    "12345678901234567890123456789012345678",
    "1E-130",
    "-7",
    "42",
];
const BROKEN_NUMBERS: [&str; 6] = [
    "",
    "x",
    "1e126",
    "1e-140",
    "123456789012345678901234567890123456789",
    "1 ",
];
const BINARIES: [&str; 5] = ["", "AA==", "AQI=", "YQ==", "//8="];

pub(crate) fn pick<'a, T: ?Sized>(random: &mut Random, of: &[&'a T]) -> &'a T {
    of[random.index(of.len())]
}

pub(crate) fn text(random: &mut Random) -> Value {
    json!({"S": pick(random, &TEXTS)})
}

pub(crate) fn number(random: &mut Random) -> Value {
    if random.one_in(60) {
        return json!({"N": pick(random, &BROKEN_NUMBERS)});
    }
    json!({"N": pick(random, &NUMBERS)})
}

fn set(random: &mut Random) -> Value {
    let mut members: Vec<&str> = Vec::new();
    let (name, pool): (&str, &[&str]) = match random.below(3) {
        0 => ("SS", &TEXTS),
        1 => ("NS", &NUMBERS),
        _ => ("BS", &BINARIES),
    };
    // An empty set, or twice the same member, now and then.
    let count = if random.one_in(40) { 0 } else { 1 + random.below(3) };
    for _ in 0..count {
        let member = pick(random, pool);
        if !members.contains(&member) || random.one_in(40) {
            members.push(member);
        }
    }
    json!({name: members})
}

pub(crate) fn value(random: &mut Random, depth: u32) -> Value {
    match random.below(if depth == 0 { 9 } else { 12 }) {
        0..3 => text(random),
        3..6 => number(random),
        6 => json!({"B": pick(random, &BINARIES)}),
        7 => json!({"BOOL": random.one_in(2)}),
        8 => match random.one_in(3) {
            true => json!({"NULL": true}),
            false => set(random),
        },
        9 => set(random),
        10 => json!({"L": (0..random.below(4)).map(|_| value(random, depth - 1)).collect::<Vec<_>>()}),
        _ => {
            let members =
                (0..random.below(4)).map(|_| (pick(random, &NAMES).to_owned(), value(random, depth - 1)));
            json!({"M": members.collect::<serde_json::Map<_, _>>()})
        }
    }
}

/// A value for one of the attributes that have one type only.
pub(crate) fn typed(random: &mut Random, name: &str) -> Value {
    match name {
        "num" => json!({"N": pick(random, &NUMBERS)}),
        "words" => {
            let mut words = ["a", "b", "c", "d"];
            random.shuffle(&mut words);
            json!({"SS": words[..1 + random.index(3)]})
        }
        "doc" => json!({"M": {"a": value(random, 1), "c": {"M": {"a": text(random)}}}}),
        _ => json!({"L": [text(random), number(random), {"L": [text(random)]}]}),
    }
}

/// A value of a type; now and then of another.
pub(crate) fn of_type(random: &mut Random, kind: &str) -> Value {
    if random.one_in(50) {
        return value(random, 1);
    }
    match kind {
        "S" => json!({"S": pick(random, &["a", "b", "ab", "red", "green", "é"])}),
        "N" => json!({"N": pick(random, &["0", "1", "2", "3", "-1", "1.5", "10"])}),
        _ => json!({"B": pick(random, &["AA==", "AQI=", "YQ=="])}),
    }
}

/// A key; now and then with an attribute too few or too many.
pub(crate) fn key(random: &mut Random, table: &Shape) -> Value {
    let mut key = serde_json::Map::new();
    for (name, kind) in table.keys {
        if !random.one_in(80) {
            key.insert((*name).to_owned(), of_type(random, kind));
        }
    }
    if random.one_in(80) {
        key.insert("more".to_owned(), text(random));
    }
    key.into()
}

pub(crate) fn item(random: &mut Random, table: &Shape) -> Value {
    let mut item = serde_json::Map::new();
    for (name, kind) in table.keys {
        if !random.one_in(100) {
            item.insert((*name).to_owned(), of_type(random, kind));
        }
    }
    for _ in 0..random.below(5) {
        let name = pick(random, &NAMES);
        let value = match name {
            "color" if !random.one_in(15) => of_type(random, "S"),
            "size" if !random.one_in(15) => of_type(random, "N"),
            "list" => json!({"L": (0..random.below(4)).map(|_| value(random, 1)).collect::<Vec<_>>()}),
            "tags" => set(random),
            "num" | "words" | "doc" | "arr" => typed(random, name),
            _ => value(random, 2),
        };
        item.insert(name.to_owned(), value);
    }
    item.into()
}
