//! Statements as text.
//!
//! Names are always quoted, and what a clause was parsed to is printed as expressions are, with each operand's text in the place
//! of its placeholder.

use std::fmt::{self, Write};

use cairn_item::Value;

use super::{Action, Operand, Statement};
use crate::tree::{Step, Tree};
use crate::update::ActionKind;

impl fmt::Display for Statement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match &self.index {
            None => quoted(&self.table),
            Some(index) => format!("{}.{}", quoted(&self.table), quoted(index)),
        };
        match &self.action {
            Action::Select { list, .. } => {
                formatter.write_str("SELECT ")?;
                match list {
                    None => formatter.write_char('*')?,
                    Some(list) => {
                        let tree = readable(&list.paths, &self.operands);
                        for (place, id) in list.ids.iter().enumerate() {
                            formatter.write_str(if place > 0 { ", " } else { "" })?;
                            tree.write_path(formatter, *id)?;
                        }
                    }
                }
                write!(formatter, " FROM {table}")?;
            }
            Action::Insert(names) => {
                write!(formatter, "INSERT INTO {table} VALUE {{")?;
                for (place, name) in names.iter().enumerate() {
                    let comma = if place > 0 { ", " } else { "" };
                    let operand = operand_text(&self.operands[place]);
                    write!(formatter, "{comma}{}: {operand}", text(name))?;
                }
                formatter.write_char('}')?;
            }
            Action::Update { update, .. } => {
                // WHERE before SET has its operands before it, too.
                let first = update.tree().values.first();
                let before = first.is_some_and(|slot| **slot != *":00000000") && self.condition.is_some();
                let verb = if before { "FROM" } else { "UPDATE" };
                write!(formatter, "{verb} {table}")?;
                if before {
                    self.write_where(formatter)?;
                }
                let tree = readable(update.tree(), &self.operands);
                for action in update.actions() {
                    let mut path = String::new();
                    tree.write_path(&mut path, action.path)?;
                    let Some(value) = action.value else {
                        write!(formatter, " REMOVE {path}")?;
                        continue;
                    };
                    let function = match action.kind {
                        ActionKind::Add => Some("set_add"),
                        ActionKind::Delete => Some("set_delete"),
                        _ => None,
                    };
                    write!(formatter, " SET {path} = ")?;
                    if let Some(function) = function {
                        write!(formatter, "{function}({path}, ")?;
                    }
                    tree.write(formatter, value)?;
                    formatter.write_str(if function.is_some() { ")" } else { "" })?;
                }
                if before {
                    return self.write_returning(formatter);
                }
            }
            Action::Delete => write!(formatter, "DELETE FROM {table}")?,
            Action::Exists => write!(formatter, "EXISTS(SELECT * FROM {table}")?,
        }
        self.write_where(formatter)?;
        if self.action == Action::Exists {
            return formatter.write_char(')');
        }
        if let Action::Select { order, .. } = &self.action {
            for (place, term) in order.iter().enumerate() {
                let before = if place > 0 { ", " } else { " ORDER BY " };
                let name = match &term.refusal {
                    None => quoted(&term.name),
                    Some(_) if term.name.is_empty() => "\"a\".\"b\"".to_owned(),
                    Some(_) => text(&term.name),
                };
                let direction = if term.descending { " DESC" } else { "" };
                write!(formatter, "{before}{name}{direction}")?;
            }
        }
        self.write_returning(formatter)
    }
}

impl Statement {
    fn write_where(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(condition) = &self.condition else {
            return Ok(());
        };
        formatter.write_str(" WHERE ")?;
        readable(condition.tree(), &self.operands).write(formatter, condition.root())
    }

    fn write_returning(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.returning {
            Some(returning) => write!(formatter, " {returning}"),
            None => Ok(()),
        }
    }
}

/// The tree with the texts of its operands and with quoted names.
fn readable(tree: &Tree, operands: &[Operand]) -> Tree {
    let mut tree = tree.clone();
    for value in &mut tree.values {
        let number: usize = value[1..].parse().expect("placeholders are numbers");
        *value = operand_text(&operands[number]).into();
    }
    for path in &mut tree.paths {
        for step in path.iter_mut() {
            if let Step::Name(name) = step {
                *name = quoted(name).into();
            }
        }
    }
    tree
}

fn operand_text(operand: &Operand) -> String {
    match operand {
        Operand::Parameter(_) => "?".to_owned(),
        Operand::Literal(value) => {
            let mut out = String::new();
            write_value(&mut out, value);
            out
        }
    }
}

/// The recursion follows the levels of a literal, which the parser has counted.
fn write_value(out: &mut String, value: &Value) {
    fn row<T>(out: &mut String, around: [&str; 2], row: &[T], write: impl Fn(&mut String, &T)) {
        out.push_str(around[0]);
        for (place, element) in row.iter().enumerate() {
            out.push_str(if place > 0 { ", " } else { "" });
            write(out, element);
        }
        out.push_str(around[1]);
    }
    match value {
        Value::S(content) => out.push_str(&text(content)),
        Value::N(number) => out.push_str(&number.to_string()),
        Value::Bool(true) => out.push_str("TRUE"),
        Value::Bool(false) => out.push_str("FALSE"),
        Value::Null => out.push_str("NULL"),
        Value::Ss(set) => row(out, ["<<", ">>"], set, |out, member| out.push_str(&text(member))),
        Value::Ns(set) => row(out, ["<<", ">>"], set, |out, number| {
            out.push_str(&number.to_string());
        }),
        Value::L(elements) => row(out, ["[", "]"], elements, write_value),
        Value::M(attributes) => row(out, ["{", "}"], attributes, |out, attribute| {
            out.push_str(&text(&attribute.name));
            out.push_str(": ");
            write_value(out, &attribute.value);
        }),
        Value::B(_) | Value::Bs(_) => unreachable!("there are no literals of binaries"),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(content: &str) -> String {
    format!("'{}'", content.replace('\'', "''"))
}
