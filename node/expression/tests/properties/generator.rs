//! Random expressions, as trees of the test's own and as text, and random values.

use std::fmt::Write;

use cairn_expression::{Names, Values};
use cairn_item::testing::Random;
use cairn_item::{Attribute, Item, Number, Value};

/// Attributes of the random items, and the placeholders that stand for some of them.
pub(crate) const ATTRIBUTES: [&str; 6] = ["a", "b", "c", "d", "e", "f.g"];
pub(crate) const PLACEHOLDERS: [(&str, &str); 3] = [("#a", "a"), ("#b", "b"), ("#f", "f.g")];

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Name(&'static str),
    Index(usize),
}

#[derive(Debug, Clone)]
pub(crate) enum Operand {
    Path(Vec<Step>),
    /// Index into the values.
    Value(usize),
    Size(Box<Operand>),
}

#[derive(Debug, Clone)]
pub(crate) enum Tree {
    Compare(&'static str, Operand, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(Vec<Step>, bool),
    Type(Operand, &'static str),
    Call(&'static str, Operand, Operand),
    Not(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
}

pub(crate) const TYPES: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"];

pub(crate) struct Generator {
    pub(crate) random: Random,
    pub(crate) values: Vec<Value>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        let mut random = Random::new(seed);
        // The first ten are names of types.
        let mut values: Vec<Value> = TYPES.iter().map(|name| Value::S((*name).to_owned())).collect();
        values.extend((0..20).map(|_| small(&mut random, 2)));
        Generator { random, values }
    }

    pub(crate) fn names(&self) -> Names {
        let names = PLACEHOLDERS.map(|(placeholder, name)| (placeholder.to_owned(), name.to_owned()));
        Names::new(names.to_vec()).unwrap()
    }

    pub(crate) fn placeholders(&self) -> Values {
        let values = self.values.iter().enumerate();
        Values::new(
            values
                .map(|(index, value)| (format!(":v{index}"), value.clone()))
                .collect(),
        )
        .unwrap()
    }

    pub(crate) fn item(&mut self) -> Item {
        let mut item = Item::new();
        for name in ATTRIBUTES {
            if !self.random.one_in(4) {
                item.insert(name, small(&mut self.random, 3));
            }
        }
        item
    }

    pub(crate) fn path(&mut self) -> Vec<Step> {
        let mut steps = vec![Step::Name(self.random.pick(&ATTRIBUTES))];
        while self.random.one_in(3) {
            steps.push(if self.random.one_in(2) {
                Step::Index(self.random.below(3))
            } else {
                Step::Name(self.random.pick(&ATTRIBUTES))
            });
        }
        steps
    }

    pub(crate) fn operand(&mut self) -> Operand {
        match self.random.below(5) {
            0 | 1 => Operand::Path(self.path()),
            2 | 3 => Operand::Value(self.random.below(self.values.len())),
            _ => Operand::Size(Box::new(Operand::Path(self.path()))),
        }
    }

    pub(crate) fn tree(&mut self, depth: usize) -> Tree {
        match self.random.below(if depth == 0 { 7 } else { 12 }) {
            0..=2 => {
                let operator = self.random.pick(&["=", "<>", "<", "<=", ">", ">="]);
                Tree::Compare(operator, self.operand(), self.operand())
            }
            3 => Tree::Between(self.operand(), self.operand(), self.operand()),
            4 => {
                let count = 1 + self.random.below(3);
                Tree::In(self.operand(), (0..count).map(|_| self.operand()).collect())
            }
            5 => match self.random.below(3) {
                0 => Tree::Type(Operand::Path(self.path()), self.random.pick(&TYPES)),
                _ => Tree::Exists(self.path(), self.random.one_in(2)),
            },
            6 => Tree::Call(
                self.random.pick(&["begins_with", "contains"]),
                self.operand(),
                self.operand(),
            ),
            7 | 8 => Tree::Not(Box::new(self.tree(depth - 1))),
            9 | 10 => Tree::And(Box::new(self.tree(depth - 1)), Box::new(self.tree(depth - 1))),
            _ => Tree::Or(Box::new(self.tree(depth - 1)), Box::new(self.tree(depth - 1))),
        }
    }

    /// Writes a path, sometimes with placeholders.
    pub(crate) fn write_path(&mut self, out: &mut String, path: &[Step]) {
        for (position, step) in path.iter().enumerate() {
            match step {
                Step::Index(index) => write!(out, "[{index}]").unwrap(),
                Step::Name(name) => {
                    let dot = if position > 0 { "." } else { "" };
                    let placeholder = PLACEHOLDERS.iter().find(|(_, known)| known == name);
                    match placeholder {
                        Some((placeholder, _)) if name.contains('.') || self.random.one_in(2) => {
                            write!(out, "{dot}{placeholder}").unwrap();
                        }
                        _ => write!(out, "{dot}{name}").unwrap(),
                    }
                }
            }
        }
    }

    pub(crate) fn write_operand(&mut self, out: &mut String, operand: &Operand) {
        let grouped = self.random.one_in(8);
        if grouped {
            out.push('(');
        }
        match operand {
            Operand::Path(path) => self.write_path(out, path),
            Operand::Value(index) => write!(out, ":v{index}").unwrap(),
            Operand::Size(inner) => {
                out.push_str("size(");
                self.write_operand(out, inner);
                out.push(')');
            }
        }
        if grouped {
            out.push(')');
        }
    }

    pub(crate) fn write_list(&mut self, out: &mut String, operands: &[Operand]) {
        for (position, operand) in operands.iter().enumerate() {
            if position > 0 {
                out.push_str(self.random.pick(&[",", " , "]));
            }
            self.write_operand(out, operand);
        }
    }

    /// Writes a tree; `binding` is that of what is around it.
    pub(crate) fn write_tree(&mut self, out: &mut String, tree: &Tree, binding: u8) {
        let own = match tree {
            Tree::Or(..) => 1,
            Tree::And(..) => 2,
            Tree::Not(..) => 3,
            _ => 4,
        };
        let grouped = own < binding || self.random.one_in(10);
        if grouped {
            out.push('(');
        }
        match tree {
            Tree::Compare(operator, left, right) => {
                self.write_operand(out, left);
                out.push_str(self.random.pick(&["", " ", "\t\n"]));
                out.push_str(operator);
                self.write_operand(out, right);
            }
            Tree::Between(value, lower, upper) => {
                self.write_operand(out, value);
                out.push_str(self.random.pick(&[" BETWEEN ", " between\n"]));
                self.write_operand(out, lower);
                out.push_str(" AND ");
                self.write_operand(out, upper);
            }
            Tree::In(value, operands) => {
                self.write_operand(out, value);
                out.push_str(" IN (");
                self.write_list(out, operands);
                out.push(')');
            }
            Tree::Exists(path, exists) => {
                out.push_str(if *exists {
                    "attribute_exists ("
                } else {
                    "attribute_not_exists("
                });
                self.write_path(out, path);
                out.push(')');
            }
            Tree::Type(operand, name) => {
                let index = TYPES.iter().position(|known| known == name).unwrap();
                out.push_str("attribute_type(");
                self.write_list(out, &[operand.clone(), Operand::Value(index)]);
                out.push(')');
            }
            Tree::Call(function, left, right) => {
                write!(out, "{function}(").unwrap();
                self.write_list(out, &[left.clone(), right.clone()]);
                out.push(')');
            }
            Tree::Not(inner) => {
                out.push_str(self.random.pick(&["NOT ", "not "]));
                self.write_tree(out, inner, 3);
            }
            Tree::And(left, right) | Tree::Or(left, right) => {
                let word = if own == 2 { " AND " } else { " or " };
                self.write_tree(out, left, own);
                out.push_str(word);
                self.write_tree(out, right, own + 1);
            }
        }
        if grouped {
            out.push(')');
        }
    }
}

/// A value that is often equal to, or a part of, another.
pub(crate) fn small(random: &mut Random, levels: usize) -> Value {
    let text = |random: &mut Random| random.pick(&["", "x", "xy", "y", "xyz"]).to_owned();
    let number = |random: &mut Random| Number::from(random.below(4) as i64 - 1);
    let count = random.below(3);
    match random.below(if levels == 0 { 8 } else { 11 }) {
        0 => Value::S(text(random)),
        1 => Value::N(number(random)),
        2 => Value::B(text(random).into_bytes()),
        3 => Value::Bool(random.one_in(2)),
        4 => Value::Null,
        5 => Value::string_set(
            (0..=count)
                .map(|index| ["x", "y", "xy"][index].to_owned())
                .collect(),
        )
        .unwrap(),
        6 => Value::number_set((0..=count).map(|index| Number::from(index as i64)).collect()).unwrap(),
        7 => Value::binary_set((0..=count).map(|index| vec![b"xyz"[index]]).collect()).unwrap(),
        8 => Value::L((0..count).map(|_| small(random, levels - 1)).collect()),
        _ => Value::map(
            (0..count + 1)
                .map(|_| {
                    let name = random.pick(&ATTRIBUTES).to_owned();
                    Attribute {
                        name,
                        value: small(random, levels - 1),
                    }
                })
                .collect(),
        ),
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Set(Vec<Step>, Term),
    Remove(Vec<Step>),
    Add(Vec<Step>, usize),
    Delete(Vec<Step>, usize),
}

#[derive(Debug, Clone)]
pub(crate) enum Term {
    Path(Vec<Step>),
    Value(usize),
    IfNotExists(Vec<Step>, Box<Term>),
    Append(Box<Term>, Box<Term>),
    Sum(bool, Box<Term>, Box<Term>),
}

impl Generator {
    pub(crate) fn term(&mut self, depth: usize) -> Term {
        match self.random.below(if depth == 0 { 4 } else { 8 }) {
            0 | 1 => Term::Path(self.path()),
            2 | 3 => Term::Value(self.random.below(self.values.len())),
            4 => Term::IfNotExists(self.path(), Box::new(self.leaf())),
            5 => Term::Append(Box::new(self.leaf()), Box::new(self.leaf())),
            _ => Term::Sum(
                self.random.one_in(2),
                Box::new(self.leaf()),
                Box::new(self.leaf()),
            ),
        }
    }

    /// What may stand inside a function or a sum.
    pub(crate) fn leaf(&mut self) -> Term {
        match self.random.below(5) {
            0 => Term::IfNotExists(self.path(), Box::new(self.term(0))),
            _ => self.term(0),
        }
    }

    pub(crate) fn write_term(&mut self, out: &mut String, term: &Term) {
        match term {
            Term::Path(path) => self.write_path(out, path),
            Term::Value(index) => write!(out, ":v{index}").unwrap(),
            Term::IfNotExists(path, other) => {
                out.push_str("if_not_exists(");
                self.write_path(out, path);
                out.push(',');
                self.write_term(out, other);
                out.push(')');
            }
            Term::Append(left, right) => {
                out.push_str("list_append(");
                self.write_term(out, left);
                out.push_str(", ");
                self.write_term(out, right);
                out.push(')');
            }
            Term::Sum(plus, left, right) => {
                let grouped = self.random.one_in(4);
                out.push_str(if grouped { "(" } else { "" });
                self.write_term(out, left);
                out.push_str(if *plus { "+" } else { " - " });
                self.write_term(out, right);
                out.push_str(if grouped { ")" } else { "" });
            }
        }
    }

    pub(crate) fn update(&mut self) -> (String, Vec<Change>) {
        let mut sections = [0, 1, 2, 3];
        for index in (1..4).rev() {
            sections.swap(index, self.random.below(index + 1));
        }
        let (mut text, mut changes) = (String::new(), Vec::new());
        for section in &sections[..=self.random.below(3)] {
            write!(text, "{} ", ["SET", "remove", "ADD", "Delete"][*section]).unwrap();
            for position in 0..=self.random.below(3) {
                text.push_str(if position > 0 { ", " } else { "" });
                let path = self.path();
                let value = self.random.below(self.values.len());
                self.write_path(&mut text, &path);
                changes.push(match section {
                    0 => {
                        let term = self.term(1);
                        text.push_str(" = ");
                        self.write_term(&mut text, &term);
                        Change::Set(path, term)
                    }
                    1 => Change::Remove(path),
                    _ => {
                        write!(text, " :v{value}").unwrap();
                        if *section == 2 {
                            Change::Add(path, value)
                        } else {
                            Change::Delete(path, value)
                        }
                    }
                });
            }
            text.push(' ');
        }
        (text, changes)
    }
}
