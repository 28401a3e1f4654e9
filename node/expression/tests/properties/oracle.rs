//! What expressions mean, straight from the documentation, slowly.

use std::cmp::Ordering;

use cairn_item::{Attribute, Item, Number, Value};

use crate::generator::{Change, Operand, Step, Term, Tree};

/// What a tree says of an item, straight from the documentation.
pub(crate) struct Oracle<'a> {
    pub(crate) item: &'a Item,
    pub(crate) values: &'a [Value],
}

impl Oracle<'_> {
    pub(crate) fn path(&self, path: &[Step]) -> Option<Value> {
        let Step::Name(name) = path[0] else { unreachable!() };
        path[1..]
            .iter()
            .try_fold(self.item.get(name)?.clone(), |value, step| match (value, step) {
                (Value::L(elements), Step::Index(index)) => elements.get(*index).cloned(),
                (Value::M(attributes), Step::Name(name)) => attributes
                    .into_iter()
                    .find(|attribute| attribute.name == *name)
                    .map(|attribute| attribute.value),
                _ => None,
            })
    }

    pub(crate) fn operand(&self, operand: &Operand) -> Option<Value> {
        match operand {
            Operand::Path(path) => self.path(path),
            Operand::Value(index) => Some(self.values[*index].clone()),
            Operand::Size(inner) => {
                let size = match self.operand(inner)? {
                    Value::S(text) => text.encode_utf16().count(),
                    Value::B(bytes) => bytes.len(),
                    Value::Ss(members) => members.len(),
                    Value::Ns(members) => members.len(),
                    Value::Bs(members) => members.len(),
                    Value::L(elements) => elements.len(),
                    Value::M(attributes) => attributes.len(),
                    _ => return None,
                };
                Some(Value::N(Number::from(size as i64)))
            }
        }
    }

    pub(crate) fn order(left: &Value, right: &Value) -> Option<Ordering> {
        match (left, right) {
            (Value::S(left), Value::S(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
            (Value::N(left), Value::N(right)) => Some(left.cmp(right)),
            (Value::B(left), Value::B(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }

    pub(crate) fn truth(&self, tree: &Tree) -> bool {
        match tree {
            Tree::And(left, right) => self.truth(left) && self.truth(right),
            Tree::Or(left, right) => self.truth(left) || self.truth(right),
            Tree::Not(inner) => !self.truth(inner),
            Tree::Exists(path, exists) => self.path(path).is_some() == *exists,
            Tree::Type(operand, name) => self
                .operand(operand)
                .is_some_and(|value| value.type_name() == *name),
            Tree::In(value, operands) => {
                let value = self.operand(value);
                value.is_some() && operands.iter().any(|other| self.operand(other) == value)
            }
            Tree::Compare(operator, left, right) => match (self.operand(left), self.operand(right)) {
                (Some(left), Some(right)) => match *operator {
                    "=" => left == right,
                    "<>" => left != right,
                    "<" => Oracle::order(&left, &right) == Some(Ordering::Less),
                    ">" => Oracle::order(&left, &right) == Some(Ordering::Greater),
                    "<=" => matches!(
                        Oracle::order(&left, &right),
                        Some(Ordering::Less | Ordering::Equal)
                    ),
                    _ => matches!(
                        Oracle::order(&left, &right),
                        Some(Ordering::Greater | Ordering::Equal)
                    ),
                },
                _ => *operator == "<>",
            },
            Tree::Between(value, lower, upper) => {
                let at_least = Tree::Compare(">=", value.clone(), lower.clone());
                let at_most = Tree::Compare("<=", value.clone(), upper.clone());
                self.truth(&at_least) && self.truth(&at_most)
            }
            Tree::Call(function, left, right) => {
                let (Some(left), Some(right)) = (self.operand(left), self.operand(right)) else {
                    return false;
                };
                match (*function, left, right) {
                    ("begins_with", Value::S(text), Value::S(prefix)) => text.starts_with(&prefix),
                    ("begins_with", Value::B(bytes), Value::B(prefix)) => bytes.starts_with(&prefix),
                    ("begins_with", ..) => false,
                    (_, Value::S(text), Value::S(part)) => text.contains(&part),
                    (_, Value::B(bytes), Value::B(part)) => {
                        (0..=bytes.len()).any(|start| bytes[start..].starts_with(&part))
                    }
                    (_, Value::Ss(set), Value::S(part)) => set.contains(&part),
                    (_, Value::Ns(set), Value::N(part)) => set.contains(&part),
                    (_, Value::Bs(set), Value::B(part)) => set.contains(&part),
                    (_, Value::L(elements), part) => elements.contains(&part),
                    _ => false,
                }
            }
        }
    }
}

impl Oracle<'_> {
    pub(crate) fn term(&self, term: &Term) -> Option<Value> {
        match term {
            Term::Path(path) => self.path(path),
            Term::Value(index) => Some(self.values[*index].clone()),
            Term::IfNotExists(path, other) => {
                let other = self.term(other)?;
                Some(self.path(path).unwrap_or(other))
            }
            Term::Append(left, right) => match (self.term(left)?, self.term(right)?) {
                (Value::L(mut left), Value::L(right)) => {
                    left.extend(right);
                    Some(Value::L(left))
                }
                _ => None,
            },
            Term::Sum(plus, left, right) => match (self.term(left)?, self.term(right)?) {
                (Value::N(left), Value::N(right)) if *plus => left.checked_add(right).ok().map(Value::N),
                (Value::N(left), Value::N(right)) => left.checked_sub(right).ok().map(Value::N),
                _ => None,
            },
        }
    }

    /// The new item, step by step on a copy: sets in the order of their paths, then removals from the last path to the first.
    /// `None` when the update does not fit.
    pub(crate) fn update(&self, changes: &[Change]) -> Option<Item> {
        let mut writes: Vec<(Vec<Step>, Value)> = Vec::new();
        let mut removals: Vec<Vec<Step>> = Vec::new();
        let mut item = self.item.clone();
        for change in changes {
            match change {
                Change::Set(path, term) => writes.push((path.clone(), self.term(term)?)),
                Change::Remove(path) => removals.push(path.clone()),
                Change::Add(path, index) => {
                    let value = match (self.path(path), &self.values[*index]) {
                        (None, value) => value.clone(),
                        (Some(Value::N(left)), Value::N(right)) => Value::N(left.checked_add(*right).ok()?),
                        (Some(Value::Ss(mut left)), Value::Ss(right)) => {
                            left.extend(
                                right
                                    .iter()
                                    .filter(|member| !left.contains(member))
                                    .cloned()
                                    .collect::<Vec<_>>(),
                            );
                            Value::string_set(left).unwrap()
                        }
                        (Some(Value::Ns(mut left)), Value::Ns(right)) => {
                            left.extend(
                                right
                                    .iter()
                                    .filter(|member| !left.contains(member))
                                    .copied()
                                    .collect::<Vec<_>>(),
                            );
                            Value::number_set(left).unwrap()
                        }
                        (Some(Value::Bs(mut left)), Value::Bs(right)) => {
                            left.extend(
                                right
                                    .iter()
                                    .filter(|member| !left.contains(member))
                                    .cloned()
                                    .collect::<Vec<_>>(),
                            );
                            Value::binary_set(left).unwrap()
                        }
                        _ => return None,
                    };
                    writes.push((path.clone(), value));
                }
                Change::Delete(path, index) => {
                    let value = match (self.path(path), &self.values[*index]) {
                        (None, _) => None,
                        (Some(Value::Ss(left)), Value::Ss(right)) => Value::string_set(
                            left.into_iter()
                                .filter(|member| !right.contains(member))
                                .collect(),
                        )
                        .ok(),
                        (Some(Value::Ns(left)), Value::Ns(right)) => Value::number_set(
                            left.into_iter()
                                .filter(|member| !right.contains(member))
                                .collect(),
                        )
                        .ok(),
                        (Some(Value::Bs(left)), Value::Bs(right)) => Value::binary_set(
                            left.into_iter()
                                .filter(|member| !right.contains(member))
                                .collect(),
                        )
                        .ok(),
                        _ => return None,
                    };
                    match value {
                        Some(value) => writes.push((path.clone(), value)),
                        None => removals.push(path.clone()),
                    }
                }
            }
        }
        let key = |path: &[Step]| -> Vec<(String, usize)> {
            path.iter()
                .map(|step| match step {
                    Step::Name(name) => ((*name).to_owned(), 0),
                    Step::Index(index) => (String::new(), *index),
                })
                .collect()
        };
        writes.sort_by_key(|(path, _)| key(path));
        removals.sort_by_key(|path| std::cmp::Reverse(key(path)));
        for (path, value) in writes {
            *slot(&mut item, &path, true)? = value;
        }
        for path in removals {
            let (last, parent) = path.split_last().unwrap();
            // An element that was appended a moment ago is not the one that the removal means.
            let there = self.path(&path).is_some();
            match (parent.is_empty(), last) {
                (true, Step::Name(name)) => drop(item.remove(name)),
                _ => match (slot(&mut item, parent, false)?, last) {
                    (Value::M(attributes), Step::Name(name)) => {
                        attributes.retain(|attribute| attribute.name != *name);
                    }
                    (Value::L(elements), Step::Index(index)) => {
                        if there {
                            elements.remove(*index);
                        }
                    }
                    _ => return None,
                },
            }
        }
        Some(item)
    }
}

/// The place of a path; `create`: its last step may be new.
pub(crate) fn slot<'i>(item: &'i mut Item, path: &[Step], create: bool) -> Option<&'i mut Value> {
    let Step::Name(first) = path[0] else {
        unreachable!()
    };
    if create && path.len() == 1 && item.get(first).is_none() {
        item.insert(first, Value::Null);
    }
    let mut value = item.get_mut(first)?;
    for (position, step) in path.iter().enumerate().skip(1) {
        let create = create && position + 1 == path.len();
        value = match (value, step) {
            (Value::L(elements), Step::Index(index)) => {
                let index = if *index >= elements.len() && create {
                    elements.push(Value::Null);
                    elements.len() - 1
                } else {
                    *index
                };
                elements.get_mut(index)?
            }
            (Value::M(attributes), Step::Name(name)) => {
                if create && !attributes.iter().any(|attribute| attribute.name == *name) {
                    attributes.push(Attribute {
                        name: (*name).to_owned(),
                        value: Value::Null,
                    });
                    attributes.sort_by(|left, right| left.name.cmp(&right.name));
                }
                &mut attributes
                    .iter_mut()
                    .find(|attribute| attribute.name == *name)?
                    .value
            }
            _ => return None,
        };
    }
    Some(value)
}
