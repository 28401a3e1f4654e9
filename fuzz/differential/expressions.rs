//! Random expressions, with the names and values that they need.

use cairn_runtime::sim::Random;
use serde_json::{Map, Value, json};

use crate::values::{NAMES, of_type, pick, typed, value};

/// The names and values that expressions of one request use.
#[derive(Default)]
pub(crate) struct Operands {
    names: Map<String, Value>,
    values: Map<String, Value>,
}

impl Operands {
    fn name(&mut self, random: &mut Random, name: &str) -> String {
        // `x.y` and reserved words need a placeholder; now and then they go without.
        let plain =
            name.chars().all(char::is_alphanumeric) && name != "name" && name != "size" && name != "list";
        if plain && !random.one_in(4) || random.one_in(60) {
            return name.to_owned();
        }
        let placeholder = format!("#n{}", self.names.len());
        if let Some((known, _)) = self.names.iter().find(|(_, known)| *known == name) {
            return known.clone();
        }
        self.names.insert(placeholder.clone(), name.into());
        placeholder
    }

    pub(crate) fn value(&mut self, random: &mut Random, value: Value) -> String {
        let placeholder = format!(":v{}", self.values.len());
        if random.one_in(150) {
            return placeholder;
        }
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    fn attribute(&mut self, random: &mut Random) -> String {
        let name = pick(random, &NAMES);
        self.name(random, name)
    }

    fn any(&mut self, random: &mut Random) -> String {
        let value = value(random, 1);
        self.value(random, value)
    }

    /// Adds them to a request.
    pub(crate) fn give(mut self, random: &mut Random, body: &mut Value) {
        if random.one_in(80) {
            self.names.insert("#unused".to_owned(), "a".into());
        }
        if random.one_in(80) {
            self.values.insert(":unused".to_owned(), json!({"S": "a"}));
        }
        if !self.names.is_empty() {
            body["ExpressionAttributeNames"] = self.names.into();
        }
        if !self.values.is_empty() {
            body["ExpressionAttributeValues"] = self.values.into();
        }
    }
}

pub(crate) fn path(random: &mut Random, operands: &mut Operands) -> String {
    let mut path = operands.attribute(random);
    for _ in 0..2 {
        match random.below(7) {
            0 => path += &format!("[{}]", random.below(4)),
            1 => {
                let name = operands.attribute(random);
                path = format!("{path}.{name}");
            }
            _ => {}
        }
    }
    path
}

fn operand(random: &mut Random, operands: &mut Operands) -> String {
    match random.below(8) {
        0..3 => path(random, operands),
        3 => format!("size({})", path(random, operands)),
        _ => operands.any(random),
    }
}

pub(crate) fn condition(random: &mut Random, operands: &mut Operands, depth: u32) -> String {
    if depth > 0 {
        match random.below(6) {
            0 => {
                let (left, right) = (
                    condition(random, operands, depth - 1),
                    condition(random, operands, depth - 1),
                );
                return format!("{left} AND {right}");
            }
            1 => {
                let (left, right) = (
                    condition(random, operands, depth - 1),
                    condition(random, operands, depth - 1),
                );
                return format!("({left}) OR {right}");
            }
            2 => return format!("NOT {}", condition(random, operands, depth - 1)),
            _ => {}
        }
    }
    match random.below(10) {
        0..4 => {
            let operator = pick(random, &["=", "<>", "<", "<=", ">", ">="]);
            let (left, right) = (path(random, operands), operand(random, operands));
            format!("{left} {operator} {right}")
        }
        4 => {
            let (name, low, high) = (
                path(random, operands),
                operand(random, operands),
                operand(random, operands),
            );
            format!("{name} BETWEEN {low} AND {high}")
        }
        5 => {
            let name = path(random, operands);
            let list: Vec<String> = (0..1 + random.below(3))
                .map(|_| operand(random, operands))
                .collect();
            format!("{name} IN ({})", list.join(", "))
        }
        6 => format!("attribute_exists({})", path(random, operands)),
        7 => format!("attribute_not_exists({})", path(random, operands)),
        8 => {
            let kind = json!({"S": pick(random, &["S", "N", "B", "SS", "L", "M", "BOOL", "NULL"])});
            let (name, kind) = (path(random, operands), operands.value(random, kind));
            format!("attribute_type({name}, {kind})")
        }
        _ => {
            let (name, value) = (path(random, operands), operands.any(random));
            let function = pick(random, &["begins_with", "contains"]);
            format!("{function}({name}, {value})")
        }
    }
}

pub(crate) fn projection(random: &mut Random, operands: &mut Operands) -> String {
    let paths: Vec<String> = (0..1 + random.below(3)).map(|_| path(random, operands)).collect();
    paths.join(", ")
}

/// An update of attributes of one type, which mostly fits the item.
fn fitting_update(random: &mut Random, operands: &mut Operands) -> String {
    let typed = |random: &mut Random, operands: &mut Operands, name: &str| {
        let value = typed(random, name);
        operands.value(random, value)
    };
    let mut sets = Vec::new();
    let mut others = Vec::new();
    if random.one_in(2) {
        sets.push(match random.below(3) {
            0 => format!("num = num + {}", typed(random, operands, "num")),
            1 => format!(
                "num = if_not_exists(num, {}) - {}",
                typed(random, operands, "num"),
                typed(random, operands, "num")
            ),
            _ => format!("num = {}", typed(random, operands, "num")),
        });
    } else if random.one_in(3) {
        others.push(format!("ADD num {}", typed(random, operands, "num")));
    }
    if random.one_in(2) {
        sets.push(match random.below(4) {
            0 => format!("arr[{}] = {}", random.below(5), operands.any(random)),
            1 => format!("arr = list_append(arr, {})", typed(random, operands, "arr")),
            2 => format!(
                "arr = list_append({}, if_not_exists(arr, {}))",
                typed(random, operands, "arr"),
                typed(random, operands, "arr")
            ),
            _ => format!("arr = {}", typed(random, operands, "arr")),
        });
    } else if random.one_in(4) {
        others.push(format!("REMOVE arr[{}]", random.below(4)));
    }
    if random.one_in(2) {
        sets.push(match random.below(3) {
            0 => format!("doc.a = {}", operands.any(random)),
            1 => format!("doc.c.a = {}", operands.any(random)),
            _ => format!("doc = {}", typed(random, operands, "doc")),
        });
    } else if random.one_in(4) {
        others.push("REMOVE doc.a".to_owned());
    }
    if random.one_in(2) || sets.is_empty() && others.is_empty() {
        let action = pick(random, &["ADD", "DELETE"]);
        let clause = format!("words {}", typed(random, operands, "words"));
        match others.iter_mut().find(|other| other.starts_with(action)) {
            Some(other) => *other = format!("{other}, {clause}"),
            None => others.push(format!("{action} {clause}")),
        }
    }
    // Two clauses of one kind are one.
    let mut merged: Vec<String> = Vec::new();
    for other in others {
        let (kind, rest) = other.split_once(' ').unwrap_or((&other, ""));
        match merged.iter_mut().find(|merged| merged.starts_with(kind)) {
            Some(known) => *known = format!("{known}, {rest}"),
            None => merged.push(other.clone()),
        }
    }
    if !sets.is_empty() {
        merged.insert(0, format!("SET {}", sets.join(", ")));
    }
    merged.join(" ")
}

pub(crate) fn update(random: &mut Random, operands: &mut Operands) -> String {
    if random.one_in(2) {
        return fitting_update(random, operands);
    }
    let mut clauses = Vec::new();
    if !random.one_in(3) {
        let actions: Vec<String> = (0..1 + random.below(2))
            .map(|_| format!("{} = {}", path(random, operands), assigned(random, operands)))
            .collect();
        clauses.push(format!("SET {}", actions.join(", ")));
    }
    if random.one_in(4) {
        clauses.push(format!("REMOVE {}", path(random, operands)));
    }
    if random.one_in(4) || clauses.is_empty() {
        let name = operands.attribute(random);
        clauses.push(format!("ADD {name} {}", operands.any(random)));
    }
    if random.one_in(6) {
        let name = operands.attribute(random);
        clauses.push(format!("DELETE {name} {}", operands.any(random)));
    }
    clauses.join(" ")
}

fn assigned(random: &mut Random, operands: &mut Operands) -> String {
    match random.below(8) {
        0..4 => operands.any(random),
        4 => path(random, operands),
        5 => format!(
            "if_not_exists({}, {})",
            path(random, operands),
            operands.any(random)
        ),
        6 => {
            let number = of_type(random, "N");
            let sign = pick(random, &["+", "-"]);
            format!(
                "{} {sign} {}",
                path(random, operands),
                operands.value(random, number)
            )
        }
        _ => {
            let list = json!({"L": [value(random, 1)]});
            format!(
                "list_append({}, {})",
                path(random, operands),
                operands.value(random, list)
            )
        }
    }
}

/// A condition on keys of these names and types.
pub(crate) fn key_condition(random: &mut Random, operands: &mut Operands, keys: &[(&str, &str)]) -> String {
    let mut conditions = Vec::new();
    for (place, (name, kind)) in keys.iter().enumerate() {
        if place > 0 && random.one_in(3) {
            continue;
        }
        let (first, second) = (of_type(random, kind), of_type(random, kind));
        let name = operands.name(random, name);
        let first = operands.value(random, first);
        conditions.push(match if place == 0 { 0 } else { random.below(8) } {
            1 => format!("{name} < {first}"),
            2 => format!("{name} <= {first}"),
            3 => format!("{name} > {first}"),
            4 => format!("{name} >= {first}"),
            5 => format!("{name} BETWEEN {first} AND {}", operands.value(random, second)),
            6 => format!("begins_with({name}, {first})"),
            _ if random.one_in(60) => format!("{name} <> {first}"),
            _ => format!("{name} = {first}"),
        });
    }
    if random.one_in(10) {
        conditions.reverse();
    }
    conditions.join(" AND ")
}
