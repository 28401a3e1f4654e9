//! Random PartiQL statements with their parameters, alone, in batches and in transactions.

use cairn_runtime::sim::Random;
use serde_json::{Value, json};

use crate::requests::Request;
use crate::values::{self, NAMES, of_type, pick};
use crate::world::{Shape, TABLES, World};

/// A statement that is being written, and its parameters in the order of their question marks.
#[derive(Default)]
struct Written {
    text: String,
    parameters: Vec<Value>,
}

impl Written {
    /// A value where an expression may have one: written out, or a parameter.
    fn value(&mut self, random: &mut Random, value: &Value) {
        match literal(value).filter(|_| random.one_in(2)) {
            Some(text) => self.text += &text,
            None => {
                self.text.push('?');
                self.parameters.push(value.clone());
            }
        }
    }

    fn any(&mut self, random: &mut Random) {
        let value = values::value(random, 1);
        self.value(random, &value);
    }

    fn path(&mut self, random: &mut Random) {
        let attribute = pick(random, &NAMES);
        self.text += &name(random, attribute);
        match random.below(7) {
            0 => self.text += &format!("[{}]", random.below(4)),
            1 => {
                let member = pick(random, &NAMES);
                let member = name(random, member);
                self.text += &format!(".{member}");
            }
            _ => {}
        }
    }

    fn operand(&mut self, random: &mut Random) {
        match random.below(8) {
            0 => self.path(random),
            1 => {
                self.text += "size(";
                self.path(random);
                self.text.push(')');
            }
            _ => self.any(random),
        }
    }

    /// A condition about attributes that are no keys of the table.
    fn condition(&mut self, random: &mut Random, depth: u32) {
        if depth > 0 {
            match random.below(7) {
                0 => {
                    self.condition(random, depth - 1);
                    self.text += " AND ";
                    return self.condition(random, depth - 1);
                }
                1 => {
                    self.text.push('(');
                    self.condition(random, depth - 1);
                    self.text += " OR ";
                    self.condition(random, depth - 1);
                    return self.text.push(')');
                }
                2 => {
                    self.text += "NOT ";
                    return self.condition(random, depth - 1);
                }
                _ => {}
            }
        }
        match random.below(11) {
            0..4 => {
                self.path(random);
                let operator = pick(random, &["=", "<>", "<", "<=", ">", ">=", "!="]);
                self.text += &format!(" {operator} ");
                self.operand(random);
            }
            4 => {
                self.path(random);
                self.text += " BETWEEN ";
                self.any(random);
                self.text += " AND ";
                self.any(random);
            }
            5 => {
                self.path(random);
                let (open, close) = if random.one_in(2) { ('[', ']') } else { ('(', ')') };
                self.text += &format!(" IN {open}");
                for place in 0..1 + random.below(3) {
                    self.text += if place > 0 { ", " } else { "" };
                    self.any(random);
                }
                self.text.push(close);
            }
            6 | 7 => {
                self.path(random);
                let not = if random.one_in(2) { "NOT " } else { "" };
                let kind = pick(random, &["MISSING", "MISSING", "NULL"]);
                self.text += &format!(" IS {not}{kind}");
            }
            8 => {
                self.text += "attribute_type(";
                self.path(random);
                self.text += ", ";
                let kind = json!({"S": pick(random, &["S", "N", "B", "SS", "L", "M", "BOOL", "NULL"])});
                self.value(random, &kind);
                self.text.push(')');
            }
            _ => {
                let function = pick(random, &["begins_with", "contains"]);
                self.text += &format!("{function}(");
                self.path(random);
                self.text += ", ";
                self.any(random);
                self.text.push(')');
            }
        }
    }

    /// The whole key, each attribute with `=`.
    fn whole_key(&mut self, random: &mut Random, table: &Shape) {
        for (place, (key, kind)) in table.keys.iter().enumerate() {
            if place > 0 && random.one_in(60) {
                break;
            }
            self.text += if place > 0 { " AND " } else { "" };
            self.text += &format!("{} = ", name(random, key));
            let value = of_type(random, kind);
            self.value(random, &value);
        }
    }

    /// What a SELECT asks of these keys.
    fn some_key(&mut self, random: &mut Random, keys: &[(&str, &str)]) {
        let (key, kind) = keys[0];
        self.text += &name(random, key);
        if random.one_in(5) {
            self.text += " IN [";
            for place in 0..1 + random.below(3) {
                self.text += if place > 0 { ", " } else { "" };
                let value = of_type(random, kind);
                self.value(random, &value);
            }
            self.text.push(']');
        } else {
            self.text += " = ";
            let value = of_type(random, kind);
            self.value(random, &value);
        }
        let Some((key, kind)) = keys.get(1) else { return };
        let (first, second) = (of_type(random, kind), of_type(random, kind));
        let key = name(random, key);
        match random.below(7) {
            0..2 => {}
            2 => {
                self.text += &format!(" AND {key} BETWEEN ");
                self.value(random, &first);
                self.text += " AND ";
                self.value(random, &second);
            }
            3 if *kind == "S" => {
                self.text += &format!(" AND begins_with({key}, ");
                self.value(random, &first);
                self.text.push(')');
            }
            _ => {
                let operator = pick(random, &["=", "<", "<=", ">", ">="]);
                self.text += &format!(" AND {key} {operator} ");
                self.value(random, &first);
            }
        }
    }

    /// The statement and its parameters as members of a request.
    fn members(mut self, random: &mut Random) -> Value {
        if random.one_in(40) {
            self.text = spoilt(random, &self.text);
        }
        if random.one_in(80) {
            self.parameters.push(values::text(random));
        }
        let mut body = json!({"Statement": self.text});
        if !self.parameters.is_empty() {
            body["Parameters"] = self.parameters.into();
        }
        body
    }
}

/// A name, in quotation marks where it needs them and now and then where not.
fn name(random: &mut Random, name: &str) -> String {
    let plain = !["name", "size", "list", "map", "x.y"].contains(&name);
    if plain && !random.one_in(4) || random.one_in(80) {
        return name.to_owned();
    }
    format!("\"{name}\"")
}

/// A value written out, if that can be done.
fn literal(value: &Value) -> Option<String> {
    let (kind, content) = value.as_object()?.iter().next()?;
    let list = |items: &mut dyn Iterator<Item = Option<String>>| -> Option<String> {
        Some(items.collect::<Option<Vec<_>>>()?.join(", "))
    };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match kind.as_str() {
        "S" => content.as_str().map(quoted),
        // What is no number is none in a statement either.
        "N" => content
            .as_str()
            .filter(|number| !number.is_empty())
            .map(str::to_owned),
        "BOOL" => Some(if content.as_bool()? { "TRUE" } else { "FALSE" }.to_owned()),
        "NULL" => Some("NULL".to_owned()),
        "SS" => {
            let members = content.as_array()?.iter();
            let text = list(&mut members.map(|member| member.as_str().map(quoted)))?;
            Some(format!("<<{text}>>"))
        }
        "NS" => {
            let members = content.as_array()?.iter();
            let text = list(&mut members.map(|member| member.as_str().map(str::to_owned)))?;
            Some(format!("<<{text}>>"))
        }
        "L" => Some(format!(
            "[{}]",
            list(&mut content.as_array()?.iter().map(literal))?
        )),
        "M" => {
            let members = content.as_object()?.iter();
            let text = list(
                &mut members.map(|(name, value)| Some(format!("{}: {}", quoted(name), literal(value)?))),
            )?;
            Some(format!("{{{text}}}"))
        }
        _ => None,
    }
}

/// A statement with a word too few, twice, or in the place of its neighbour.
fn spoilt(random: &mut Random, text: &str) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    let at = random.index(words.len());
    match random.below(3) {
        0 => drop(words.remove(at)),
        1 => words.insert(at, words[at]),
        _ if at > 0 => words.swap(at - 1, at),
        _ => words.push(")"),
    }
    words.join(" ")
}

fn select(random: &mut Random, table: &Shape, by_key: bool) -> Written {
    let mut written = Written::default();
    written.text += "SELECT ";
    if random.one_in(2) {
        written.text.push('*');
    } else {
        for place in 0..1 + random.below(3) {
            written.text += if place > 0 { ", " } else { "" };
            written.path(random);
        }
    }
    written.text += &format!(" FROM \"{}\"", table.name);
    if by_key {
        written.text += " WHERE ";
        written.whole_key(random, table);
        if random.one_in(40) {
            written.text += " AND ";
            written.condition(random, 0);
        }
        return written;
    }
    let mut keys = table.keys;
    if !table.indexes.is_empty() && random.one_in(3) {
        let index = &table.indexes[random.index(table.indexes.len())];
        keys = index.keys;
        written.text += &format!(".\"{}\"", index.name);
    }
    let pinned = !random.one_in(3);
    let filtered = random.one_in(2);
    if pinned || filtered {
        written.text += " WHERE ";
    }
    if pinned {
        written.some_key(random, keys);
    }
    if filtered {
        written.text += if pinned { " AND " } else { "" };
        written.condition(random, 1);
    }
    if random.one_in(5) {
        let (key, _) = keys[random.index(keys.len())];
        let way = pick(random, &["", " ASC", " DESC"]);
        written.text += &format!(" ORDER BY {}{way}", name(random, key));
    }
    written
}

fn insert(random: &mut Random, table: &Shape) -> Written {
    let mut written = Written::default();
    written.text += &format!("INSERT INTO \"{}\" VALUE {{", table.name);
    let item = values::item(random, table);
    for (place, (name, value)) in item.as_object().into_iter().flatten().enumerate() {
        written.text += if place > 0 { ", " } else { "" };
        written.text += &format!("'{name}': ");
        written.value(random, value);
    }
    written.text.push('}');
    written
}

fn update(random: &mut Random, table: &Shape, alone: bool) -> Written {
    let mut written = Written::default();
    written.text += &format!("UPDATE \"{}\"", table.name);
    for _ in 0..1 + random.below(2) {
        if random.one_in(4) {
            written.text += " REMOVE ";
            written.path(random);
            continue;
        }
        written.text += " SET ";
        match random.below(6) {
            0 => {
                written.text += "num = num + ";
                let number = of_type(random, "N");
                written.value(random, &number);
            }
            1 => {
                let function = pick(random, &["set_add", "set_delete"]);
                written.text += &format!("words = {function}(words, ");
                let words = values::typed(random, "words");
                written.value(random, &words);
                written.text.push(')');
            }
            2 => {
                written.text += "arr = list_append(arr, ";
                let list = values::typed(random, "arr");
                written.value(random, &list);
                written.text.push(')');
            }
            _ => {
                written.path(random);
                written.text += " = ";
                if random.one_in(6) {
                    written.path(random);
                } else {
                    written.any(random);
                }
            }
        }
    }
    written.text += " WHERE ";
    written.whole_key(random, table);
    if random.one_in(3) {
        written.text += " AND ";
        written.condition(random, 1);
    }
    if alone && random.one_in(2) {
        let which = pick(random, &["ALL OLD", "ALL NEW", "MODIFIED OLD", "MODIFIED NEW"]);
        written.text += &format!(" RETURNING {which} *");
    }
    written
}

fn delete(random: &mut Random, table: &Shape, alone: bool) -> Written {
    let mut written = Written::default();
    written.text += &format!("DELETE FROM \"{}\" WHERE ", table.name);
    written.whole_key(random, table);
    if random.one_in(3) {
        written.text += " AND ";
        written.condition(random, 1);
    }
    if alone && random.one_in(3) {
        written.text += " RETURNING ALL OLD *";
    }
    written
}

fn exists(random: &mut Random, table: &Shape) -> Written {
    let mut written = Written::default();
    written.text += &format!("EXISTS(SELECT * FROM \"{}\" WHERE ", table.name);
    written.whole_key(random, table);
    written.text += " AND ";
    written.condition(random, 0);
    written.text.push(')');
    written
}

fn write(random: &mut Random, table: &Shape, alone: bool) -> Written {
    match random.below(5) {
        0..2 => insert(random, table),
        2..4 => update(random, table, alone),
        _ => delete(random, table, alone),
    }
}

pub(crate) fn statement(random: &mut Random, table: &Shape) -> Request {
    let written = match random.one_in(2) {
        true => select(random, table, false),
        false => write(random, table, true),
    };
    let mut body = written.members(random);
    if random.one_in(6) {
        body["Limit"] = (1 + random.below(6)).into();
    }
    if random.one_in(6) {
        body["ConsistentRead"] = true.into();
    }
    let operation = "ExecuteStatement";
    Request::new(operation, body)
}

pub(crate) fn batch(random: &mut Random) -> Request {
    let reads = random.one_in(2);
    let count = if random.one_in(60) {
        26
    } else {
        1 + random.below(4)
    };
    let statements: Vec<Value> = (0..count)
        .map(|_| {
            let table = &TABLES[random.index(TABLES.len())];
            let reads = if random.one_in(60) { !reads } else { reads };
            let written = match reads {
                true => select(random, table, true),
                false => write(random, table, true),
            };
            let mut statement = written.members(random);
            if random.one_in(8) {
                statement["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD".into();
            }
            statement
        })
        .collect();
    let operation = "BatchExecuteStatement";
    let body = json!({"Statements": statements});
    Request::new(operation, body)
}

pub(crate) fn transaction(random: &mut Random, world: &mut World) -> Request {
    let operation = "ExecuteTransaction";
    if let Some(body) = world.repeated(random, operation) {
        return Request::new(operation, body);
    }
    let reads = random.one_in(3);
    let count = if random.one_in(100) {
        101
    } else {
        1 + random.below(4)
    };
    let statements: Vec<Value> = (0..count)
        .map(|_| {
            let table = &TABLES[random.index(TABLES.len())];
            let reads = if random.one_in(60) { !reads } else { reads };
            let written = match (reads, random.one_in(5)) {
                (true, _) => select(random, table, true),
                (false, true) => exists(random, table),
                (false, false) => {
                    let alone = random.one_in(40);
                    write(random, table, alone)
                }
            };
            let mut statement = written.members(random);
            if random.one_in(4) {
                statement["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD".into();
            }
            statement
        })
        .collect();
    let mut body = json!({"TransactStatements": statements});
    world.maybe_token(random, operation, &mut body);
    Request::new(operation, body)
}
