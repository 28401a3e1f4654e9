//! `UpdateExpression`.
//!
//! An update makes a new item from the old one, in which every path and operand means what it meant before:
//! 1. ADD and DELETE must fit what is stored;
//! 2. the values of SET are computed;
//! 3. the item is walked once beside the paths, each level built anew: what no path names is copied; what a path ends at is
//!    set, added to, taken from or left out; what lies on the way must be a map for a name and a list for an index. An index
//!    past the end of a list appends, in the order of the indexes; elements are left out only after every index found its own.
//!
//! Of several problems the first in this order is reported.

use std::cell::Cell;
use std::ops::RangeInclusive;

use cairn_item::{
    Attribute, ITEM_BYTES_MAX, Item, ItemBytes, ItemError, ItemView, ListView, MapView, Value, ValueView,
};

use crate::bind::{Bound, Checker, Place};
use crate::condition::{Evaluation, Operand, check_key_scalar, follow};
use crate::error::{ExpressionError, Parameter, Problem};
use crate::parser::{Grammar, Parser};
use crate::paths::{Entry, Paths, child};
use crate::placeholder::{Names, Values};
use crate::token::TokenKind;
use crate::tree::{Node, NodeId, Operator, PathId, Tree, Types};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActionKind {
    Set,
    Remove,
    Add,
    Delete,
}

impl ActionKind {
    fn name(self) -> &'static str {
        match self {
            ActionKind::Set => "SET",
            ActionKind::Remove => "REMOVE",
            ActionKind::Add => "ADD",
            ActionKind::Delete => "DELETE",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) kind: ActionKind,
    pub(crate) path: PathId,
    /// Root of the action's nodes, which end with it; none for REMOVE.
    pub(crate) value: Option<NodeId>,
    /// First of the action's nodes.
    pub(crate) first_node: NodeId,
}

/// A parsed update. It depends on the text alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    tree: Tree,
    /// In the order of the text.
    actions: Vec<Action>,
    /// The paths of the actions.
    paths: Vec<PathId>,
    legacy: bool,
}

impl Update {
    /// Reads the text.
    ///
    /// # Errors
    /// The text is no update.
    pub fn parse(text: &str) -> Result<Update, ExpressionError> {
        let mut parser = Parser::new(Parameter::Update, text)?;
        let mut actions = Vec::new();
        let mut seen = Vec::new();
        loop {
            let section = parser.span_here();
            let kind = match parser.kind() {
                TokenKind::Set => ActionKind::Set,
                TokenKind::Remove => ActionKind::Remove,
                TokenKind::Add => ActionKind::Add,
                TokenKind::Delete => ActionKind::Delete,
                TokenKind::End if !actions.is_empty() => break,
                _ => return Err(parser.unexpected()),
            };
            parser.advance()?;
            loop {
                actions.push(action(&mut parser, kind)?);
                if parser.kind() != TokenKind::Comma {
                    break;
                }
                parser.advance()?;
            }
            if seen.contains(&kind) {
                parser.note_here(Problem::DuplicateSection(kind.name()), section);
            }
            seen.push(kind);
        }
        Ok(Update::new(parser.finish()?, actions, false))
    }

    pub(crate) fn new(tree: Tree, actions: Vec<Action>, legacy: bool) -> Update {
        let paths = actions.iter().map(|action| action.path).collect();
        Update {
            tree,
            actions,
            paths,
            legacy,
        }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// An update that is not an expression, and is not held to the rules for them.
    pub(crate) fn from_legacy(tree: Tree, actions: Vec<Action>) -> Update {
        Update::new(tree, actions, true)
    }

    /// Fills in names and values and checks them.
    ///
    /// # Errors
    /// A placeholder is undefined, an operand is of the wrong type, two paths meet, or a limit is exceeded.
    pub fn bind<'a>(
        &'a self,
        names: &'a Names,
        values: &'a Values,
    ) -> Result<BoundUpdate<'a>, ExpressionError> {
        let bound = Bound::new(&self.tree, names, Some(values));
        let mut checker = Checker::new(Parameter::Update, &bound);
        let paths = Paths::new(Parameter::Update, &mut checker, &self.paths)?;
        // From the last to the first, as DynamoDB does.
        for action in self.actions.iter().rev().filter(|_| !self.legacy) {
            let Some(value) = action.value else { continue };
            checker.nodes(usize::from(action.first_node)..usize::from(value) + 1)?;
            check_operand(&bound, action.kind, value)?;
        }
        if !self.legacy {
            checker.finish()?;
        }
        Ok(BoundUpdate {
            bound,
            paths,
            update: self,
        })
    }
}

fn action(parser: &mut Parser<'_>, kind: ActionKind) -> Result<Action, ExpressionError> {
    let path = parser.path()?;
    let first_node = NodeId::try_from(parser.tree.nodes.len()).expect("nodes are numbered by it");
    let value = match kind {
        ActionKind::Remove => None,
        ActionKind::Add | ActionKind::Delete => Some(parser.value()?),
        ActionKind::Set => {
            parser.expect(TokenKind::Equal)?;
            Some(parser.expression(Grammar::Value)?)
        }
    };
    Ok(Action {
        kind,
        path,
        value,
        first_node,
    })
}

fn check_operand(bound: &Bound<'_>, kind: ActionKind, value: NodeId) -> Result<(), ExpressionError> {
    let allowed = match kind {
        ActionKind::Add => Types::NUMBER_OR_SET,
        ActionKind::Delete => Types::SET,
        ActionKind::Set | ActionKind::Remove => return Ok(()),
    };
    let Node::Value(slot) = bound.node(value) else {
        unreachable!("the grammar wants a value")
    };
    let value = bound.value(slot);
    if allowed.meets(Types::of(value)) {
        return Ok(());
    }
    let found = match value {
        Value::S(_) => "STRING",
        Value::N(_) => "NUMBER",
        Value::B(_) => "Binary",
        Value::L(_) => "LIST",
        Value::M(_) => "MAP",
        other => other.type_name(),
    };
    // DynamoDB names this set of types for both actions.
    let problem = Problem::ActionOperandType {
        action: kind.name(),
        found,
        allowed: "ALLOWED_FOR_ADD_OPERAND",
    };
    Err(ExpressionError::of(Parameter::Update, problem))
}

impl std::fmt::Display for Update {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut section = None;
        for action in &self.actions {
            if section == Some(action.kind) {
                formatter.write_str(", ")?;
            } else {
                let space = if section.is_some() { " " } else { "" };
                write!(formatter, "{space}{} ", action.kind.name())?;
                section = Some(action.kind);
            }
            self.tree.write_path(formatter, action.path)?;
            if let Some(value) = action.value {
                formatter.write_str(if action.kind == ActionKind::Set {
                    " = "
                } else {
                    " "
                })?;
                self.tree.write(formatter, value)?;
            }
        }
        Ok(())
    }
}

/// An update with the names and values of one request.
#[derive(Debug, Clone)]
pub struct BoundUpdate<'a> {
    bound: Bound<'a>,
    paths: Paths<'a>,
    update: &'a Update,
}

impl<'a> BoundUpdate<'a> {
    /// The attributes that the update changes, in the order of the text, each as often as it is there.
    pub fn attributes(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.update.paths.iter().map(|path| self.bound.head(*path))
    }

    /// Checks that the update leaves the attributes of the key alone; they are given partition before sort.
    ///
    /// # Errors
    /// The first of them that it changes.
    pub fn check_not_on_key(&self, key: &[&str]) -> Result<(), ExpressionError> {
        match key
            .iter()
            .find(|name| self.attributes().any(|attribute| attribute == **name))
        {
            Some(name) => Err(ExpressionError::bare(Problem::UpdatesKey((*name).to_owned()))),
            None => Ok(()),
        }
    }

    /// Checks that no path, read or written, goes into an attribute of the key; `role` is `Key` or `IndexKey`.
    ///
    /// # Errors
    /// The first attribute that one goes into.
    pub fn check_key_scalar(&self, role: &'static str, key: &[&str]) -> Result<(), ExpressionError> {
        let all = 0..self.bound.tree.paths.len();
        let all = all.map(|path| PathId::try_from(path).expect("paths are numbered by it"));
        check_key_scalar(&self.bound, all, role, key)
    }

    /// What DynamoDB charges the request for, in bytes, against the largest size of an item: the paths and the operands as the
    /// request gives them, and nothing that is stored.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        let charge = |action: &Action| {
            let target = self.target_bytes(action.path);
            match (action.kind, action.value) {
                (ActionKind::Set | ActionKind::Add, Some(value)) => {
                    19 + target + self.operand_bytes(action.first_node..=value)
                }
                _ => 1 + target,
            }
        };
        3 + self.update.actions.iter().map(charge).sum::<usize>()
    }

    /// Its first step, and 4 more than each later one.
    fn target_bytes(&self, path: PathId) -> usize {
        self.bound
            .places(path)
            .map(|place| 4 + place_bytes(place))
            .sum::<usize>()
            - 4
    }

    fn operand_bytes(&self, nodes: RangeInclusive<NodeId>) -> usize {
        let charge = |node| match self.bound.node(node) {
            Node::Path(path) => {
                1 + self
                    .bound
                    .places(path)
                    .map(|place| 14 + place_bytes(place))
                    .sum::<usize>()
            }
            Node::Value(slot) => self.bound.value(slot).size(),
            Node::Operator {
                operator: Operator::Add,
                ..
            } => 34,
            Node::Operator {
                operator: Operator::IfNotExists,
                ..
            } => 39,
            Node::Operator { .. } => 37,
        };
        nodes.map(charge).sum()
    }

    /// The item after the update of one that exists.
    ///
    /// # Errors
    /// The update does not fit the item, a sum is out of range, or the new item is too large or too deep.
    pub fn apply(&self, old: ItemView<'_>) -> Result<Item, ExpressionError> {
        let results = self.results(old)?.into_iter().map(Cell::new).collect();
        let work = Work {
            paths: &self.paths,
            results,
        };
        let attributes = work.map(self.paths.entries(), 0, old.attributes())?;
        let item = Item::from_attributes(attributes);
        match item.validate() {
            Ok(()) => Ok(item),
            Err(ItemError::ItemTooLarge) => Err(ItemError::UpdatedItemTooLarge.into()),
            Err(ItemError::NestingTooDeep { .. }) => Err(ExpressionError::bare(Problem::NestingTooDeep)),
            Err(error) => Err(error.into()),
        }
    }

    /// The item after the update of one that does not exist, of which there is only the key.
    ///
    /// # Errors
    /// As [`BoundUpdate::apply`].
    pub fn create(&self, key: &Item) -> Result<Item, ExpressionError> {
        assert!(key.size() <= ITEM_BYTES_MAX, "a key is smaller than an item");
        self.apply(ItemBytes::from_item(key).view())
    }

    /// The parts of an item that the update's paths name: `UPDATED_OLD` of the old item, `UPDATED_NEW` of the new one.
    #[must_use]
    pub fn updated(&self, item: ItemView<'_>) -> Item {
        self.paths.project(item)
    }

    /// Appends [`BoundUpdate::updated`] as DynamoDB's JSON of an item.
    pub fn write_updated_json(&self, out: &mut Vec<u8>, item: ItemView<'_>) {
        self.paths.write_json(out, item);
    }

    /// What each action puts in its place, in the order of the text.
    fn results(&self, old: ItemView<'_>) -> Result<Vec<Option<Value>>, ExpressionError> {
        let actions = &self.update.actions;
        let mut results: Vec<Option<Value>> = vec![None; actions.len()];
        for (action, result) in actions.iter().zip(&mut results) {
            if let (ActionKind::Add | ActionKind::Delete, Some(value)) = (action.kind, action.value) {
                let Node::Value(slot) = self.bound.node(value) else {
                    unreachable!("the grammar wants a value")
                };
                let stored = follow(old, self.bound.places(action.path));
                *result = combine(action.kind, self.update.legacy, stored, self.bound.value(slot))?;
            }
        }
        // A short text can name a large attribute hundreds of times. All values of SET end up in the new item, so what exceeds
        // its size is refused before it is copied; twice the size, for the exact sum is that of the whole item.
        let mut room = 2 * ITEM_BYTES_MAX;
        for (action, result) in actions.iter().zip(&mut results) {
            if let (ActionKind::Set, Some(value)) = (action.kind, action.value) {
                let evaluation = Evaluation {
                    bound: &self.bound,
                    item: Some(old),
                };
                *result = Some(evaluate(&evaluation, value, &mut room).map_err(ExpressionError::bare)?);
            }
        }
        Ok(results)
    }
}

fn place_bytes(place: Place<'_>) -> usize {
    match place {
        Place::Name(name) => name.len(),
        Place::Index(index) => index.checked_ilog10().map_or(1, |log| log as usize + 1),
    }
}

/// What ADD or DELETE makes of what is stored; `None` removes it.
fn combine(
    kind: ActionKind,
    legacy: bool,
    stored: Option<ValueView<'_>>,
    operand: &Value,
) -> Result<Option<Value>, ExpressionError> {
    let Some(stored) = stored else {
        return Ok((kind == ActionKind::Add).then(|| operand.clone()));
    };
    let adds = kind == ActionKind::Add;
    Ok(match (stored, operand) {
        (ValueView::N(left), Value::N(right)) if adds => Some(Value::N(left.checked_add(*right)?)),
        (ValueView::Ss(left), Value::Ss(right)) => {
            merge(adds, left.iter().map(str::to_owned), right).map(Value::Ss)
        }
        (ValueView::Ns(left), Value::Ns(right)) => merge(adds, left.iter(), right).map(Value::Ns),
        (ValueView::Bs(left), Value::Bs(right)) => {
            merge(adds, left.iter().map(<[u8]>::to_vec), right).map(Value::Bs)
        }
        (ValueView::L(left), Value::L(right)) if adds && legacy => Some(Value::L(
            left.iter()
                .map(ValueView::to_value)
                .chain(right.iter().cloned())
                .collect(),
        )),
        _ if legacy => return Err(ExpressionError::bare(Problem::LegacyTypeMismatch)),
        _ => return Err(ExpressionError::bare(Problem::IncorrectDataType)),
    })
}

/// The union or the difference of two sorted sets; `None` when nothing is left.
fn merge<T: Ord + Clone>(union: bool, left: impl Iterator<Item = T>, right: &[T]) -> Option<Vec<T>> {
    let mut merged: Vec<T> = if union {
        left.chain(right.iter().cloned()).collect()
    } else {
        left.filter(|member| right.binary_search(member).is_err())
            .collect()
    };
    merged.sort();
    merged.dedup();
    (!merged.is_empty()).then_some(merged)
}

/// Makes a value of an operand, if there is `room` for it in the new item.
fn owned(operand: Operand<'_>, room: &mut usize) -> Result<Value, Problem> {
    *room = room
        .checked_sub(operand.bytes())
        .ok_or(Problem::Item(ItemError::UpdatedItemTooLarge))?;
    Ok(operand.to_value())
}

/// The value of a SET action.
fn evaluate(evaluation: &Evaluation<'_, '_>, root: NodeId, room: &mut usize) -> Result<Value, Problem> {
    let (operator, first, count) = match evaluation.bound.node(root) {
        Node::Operator {
            operator,
            first,
            count,
        } if operator != Operator::IfNotExists => (operator, first, count),
        _ => {
            let found = operand(evaluation, root)?.ok_or(Problem::AttributeMissing)?;
            return owned(found, room);
        }
    };
    let operands = evaluation.bound.tree.operands(first, count);
    let (left, right) = (
        operand(evaluation, operands[0])?,
        operand(evaluation, operands[1])?,
    );
    let (left, right) = (fitting(operator, left)?, fitting(operator, right)?);
    if let (Operand::View(ValueView::N(left)), Operand::View(ValueView::N(right))) = (left, right) {
        let sum = match operator {
            Operator::Add => left.checked_add(right),
            _ => left.checked_sub(right),
        };
        return owned(Operand::View(ValueView::N(sum.map_err(Problem::Item)?)), room);
    }
    match (owned(left, room)?, owned(right, room)?) {
        (Value::L(mut left), Value::L(mut right)) => {
            left.append(&mut right);
            Ok(Value::L(left))
        }
        _ => unreachable!("the types were checked"),
    }
}

fn fitting(operator: Operator, operand: Option<Operand<'_>>) -> Result<Operand<'_>, Problem> {
    match operand {
        None => Err(Problem::AttributeMissing),
        Some(operand) if !operator.operand_types().meets(operand.types()) => Err(Problem::IncorrectDataType),
        Some(operand) => Ok(operand),
    }
}

/// What an operand of SET stands for. Only `if_not_exists` nests, and only in its last operand, so a chain of them is walked.
fn operand<'e: 'i, 'i>(
    evaluation: &Evaluation<'e, 'i>,
    mut node: NodeId,
) -> Result<Option<Operand<'i>>, Problem> {
    let mut chained = false;
    let mut found = None;
    loop {
        let last = match evaluation.bound.node(node) {
            Node::Path(path) => evaluation.path(path),
            Node::Value(slot) => Some(Operand::of(evaluation.bound.value(slot))),
            Node::Operator { first, count, .. } => {
                let operands = evaluation.bound.tree.operands(first, count);
                let Node::Path(path) = evaluation.bound.node(operands[0]) else {
                    unreachable!("binding wants a path")
                };
                found = found.or_else(|| evaluation.path(path));
                chained = true;
                node = operands[1];
                continue;
            }
        };
        // What it all falls back on must be there even when it is not needed.
        return if chained && last.is_none() {
            Err(Problem::AttributeMissing)
        } else {
            Ok(found.or(last))
        };
    }
}

/// Builds the new item.
struct Work<'w, 'a> {
    paths: &'w Paths<'a>,
    /// By the number of the action, each taken once.
    results: Vec<Cell<Option<Value>>>,
}

impl Work<'_, '_> {
    fn invalid<T>() -> Result<T, ExpressionError> {
        Err(ExpressionError::bare(Problem::InvalidPathForUpdate))
    }

    /// What becomes of the value at a place: what the one path that ends there says, or what those that go on do.
    fn value(
        &self,
        group: &[Entry],
        depth: usize,
        stored: Option<ValueView<'_>>,
    ) -> Result<Option<Value>, ExpressionError> {
        if self.paths.ends(group, depth) {
            return Ok(self.results[group[0].number].take());
        }
        match stored {
            Some(ValueView::M(map)) => Ok(Some(Value::M(self.map(group, depth + 1, map)?))),
            Some(ValueView::L(list)) => Ok(Some(Value::L(self.list(group, depth + 1, list)?))),
            _ => Work::invalid(),
        }
    }

    fn map(
        &self,
        mut entries: &[Entry],
        depth: usize,
        stored: MapView<'_>,
    ) -> Result<Vec<Attribute>, ExpressionError> {
        let mut attributes = Vec::with_capacity(stored.len() + entries.len());
        let mut rest = stored.iter().peekable();
        let keep = |(name, value): (&str, ValueView<'_>)| Attribute {
            name: name.to_owned(),
            value: value.to_value(),
        };
        while let Some((place, group, others)) = self.paths.split(entries, depth) {
            entries = others;
            let Place::Name(name) = place else {
                return Work::invalid();
            };
            while let Some(kept) = rest.next_if(|(other, _)| *other < name) {
                attributes.push(keep(kept));
            }
            let old = rest.next_if(|(other, _)| *other == name).map(|(_, value)| value);
            if let Some(value) = self.value(group, depth, old)? {
                attributes.push(Attribute {
                    name: name.to_owned(),
                    value,
                });
            }
        }
        attributes.extend(rest.map(keep));
        Ok(attributes)
    }

    fn list(
        &self,
        mut entries: &[Entry],
        depth: usize,
        stored: ListView<'_>,
    ) -> Result<Vec<Value>, ExpressionError> {
        let mut elements = Vec::with_capacity(stored.len() + entries.len());
        let mut rest = stored.iter().enumerate().peekable();
        while let Some((place, group, others)) = self.paths.split(entries, depth) {
            entries = others;
            let Place::Index(index) = place else {
                return Work::invalid();
            };
            while let Some((_, kept)) = rest.next_if(|(other, _)| *other < index as usize) {
                elements.push(kept.to_value());
            }
            let _ = rest.next_if(|(other, _)| *other == index as usize);
            let old = child(ValueView::L(stored), place);
            elements.extend(self.value(group, depth, old)?);
        }
        elements.extend(rest.map(|(_, kept)| kept.to_value()));
        Ok(elements)
    }
}
