//! Which keys a statement is about.
//!
//! A SELECT reads by key when every alternative of its WHERE clause pins the partition key with `=` or `IN`; else it scans. The
//! clause is taken apart into alternatives (an OR of ANDs), of which only the conditions on the key are kept: an OR that is not
//! about the key stays whole. Each alternative is one read for each of its partition keys, narrowed by what it says about the
//! sort key. The reads only have to hold everything that the clause is true of: it is evaluated on every item that they give.
//!
//! - No two reads share an item. Where two alternatives would, DynamoDB refuses the statement; where it does not look
//!   (an alternative says two things about the sort key, or what it is not), their reads become one of the whole partition key.
//! - [`ALTERNATIVES_MAX`] bounds what a clause is taken apart into; a clause beyond it scans. One of more than [`READS_MAX`] reads
//!   reads whole partition keys.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use cairn_item::{ItemError, KeyCondition, KeyType, KeyValue, Value};

use super::error::StatementError;
use super::{Action, OrderTerm, Statement, StatementKind};
use crate::KeyAttribute;
use crate::condition::Condition;
use crate::placeholder::Values;
use crate::tree::{Node, NodeId, Operator, Tree};

/// Alternatives that a clause is taken apart into.
const ALTERNATIVES_MAX: usize = 256;
/// Conditions of all alternatives together.
const CONDITIONS_MAX: usize = 4096;
/// Reads of one statement that are narrowed by sort keys.
const READS_MAX: usize = 4096;

const OVERLAPPING: &str = "Overlapping conditions with range keys are not supported in where clause";
const NO_KEY: &str = "Where clause does not contain a mandatory equality on all key attributes";
const ORDER_WITHOUT_WHERE: &str = "Must have WHERE clause in the statement when using ORDER BY clause.";
const ORDER_WITHOUT_KEY: &str =
    "Must have at least one non-optional hash key condition in WHERE clause when using ORDER BY clause.";
const ORDER_OF_SEVERAL: &str = "Must have hash key in ORDER BY clause when more than one hash key condition \
     specified in WHERE clause.";

/// The item that an UPDATE or DELETE writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The partition key.
    pub partition: KeyValue,
    /// The sort key, if the table has one.
    pub sort: Option<KeyValue>,
    /// Whether the clause says nothing else.
    pub alone: bool,
}

/// All items of one partition key that satisfy a condition on the sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The partition key.
    pub partition: KeyValue,
    /// The condition on the sort key.
    pub condition: KeyCondition,
}

/// In which order the items of each read come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOrder {
    /// Ascending sort keys.
    Forward,
    /// Descending sort keys.
    Backward,
}

/// What a SELECT has to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// All items.
    Scan,
    /// These, one after the other.
    Reads(Vec<Read>, ReadOrder),
}

/// A condition of an alternative on an attribute of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Atom {
    /// One of the slots.
    Partition(Vec<NodeId>),
    Sort(Operator, Vec<NodeId>),
    /// Something about the sort key that no read is narrowed by.
    SortOther,
}

/// A clause on its way to being a plan.
struct Planner<'p> {
    tree: &'p Tree,
    condition: &'p Condition,
    values: &'p Values,
    partition: KeyAttribute<'p>,
    sort: Option<KeyAttribute<'p>>,
    /// Whether an IN of one value is as good as an equality.
    reads: bool,
}

/// An alternative with its values.
struct Alternative {
    partitions: Vec<KeyValue>,
    conditions: Vec<KeyCondition>,
    /// Whether the conditions are all that it says about the sort key.
    exact: bool,
}

impl Statement {
    fn planner<'p>(
        &'p self,
        values: &'p Values,
        partition: KeyAttribute<'p>,
        sort: Option<KeyAttribute<'p>>,
    ) -> Option<Planner<'p>> {
        let condition = self.condition.as_deref()?;
        Some(Planner {
            tree: condition.tree(),
            condition,
            values,
            partition,
            sort,
            reads: self.kind() == StatementKind::Select,
        })
    }

    /// Whether a condition that AND alone joins to the others gives the partition key a value, or several to choose from.
    #[must_use]
    pub fn is_keyed(&self, partition: KeyAttribute<'_>) -> bool {
        let values = Values::none();
        let Some(planner) = self.planner(&values, partition, None) else {
            return false;
        };
        let pins = |node: NodeId| {
            let comparison = planner.comparison(node, partition.name);
            comparison.is_some_and(|(operator, _)| matches!(operator, Operator::Equal | Operator::In))
        };
        planner.conjuncts().into_iter().any(pins)
    }

    /// The item that a SELECT is about, when its WHERE clause pins all of the key and says nothing else; `values` are what
    /// [`Statement::bind`] made.
    ///
    /// # Errors
    /// As [`Statement::plan`].
    pub fn key_alone(
        &self,
        values: &Values,
        partition: KeyAttribute<'_>,
        sort: Option<KeyAttribute<'_>>,
    ) -> Result<Option<Key>, StatementError> {
        match self.plan(values, partition, sort)? {
            Plan::Reads(reads, _) if reads.len() == 1 => {}
            _ => return Ok(None),
        }
        let pinned = self.planner(values, partition, sort).is_some_and(|planner| {
            let conjuncts = planner.conjuncts();
            let pins = |attribute: KeyAttribute<'_>| {
                conjuncts
                    .iter()
                    .any(|node| planner.equality(*node, attribute.name).is_some())
            };
            pins(partition) && sort.is_none_or(pins)
        });
        if !pinned {
            return Ok(None);
        }
        // Two values for one attribute pin nothing.
        Ok(self.key(values, partition, sort).ok().filter(|key| key.alone))
    }

    /// The item that an UPDATE or DELETE is about; `values` are what [`Statement::bind`] made.
    ///
    /// # Errors
    /// The WHERE clause does not pin all of the key with equalities that AND alone joins, or not with values that a key can have.
    pub fn key(
        &self,
        values: &Values,
        partition: KeyAttribute<'_>,
        sort: Option<KeyAttribute<'_>>,
    ) -> Result<Key, StatementError> {
        let planner = self.planner(values, partition, sort).ok_or_else(no_key)?;
        let conjuncts = planner.conjuncts();
        let partition_key = planner.pinned(&conjuncts, partition)?;
        let sort_key = sort.map(|sort| planner.pinned(&conjuncts, sort)).transpose()?;
        partition_key.check_partition_key().map_err(item_error)?;
        if let Some(sort_key) = &sort_key {
            sort_key.check_sort_key().map_err(item_error)?;
        }
        let alone = conjuncts.iter().all(|node| {
            planner.equality(*node, partition.name).is_some()
                || sort.is_some_and(|sort| planner.equality(*node, sort.name).is_some())
        });
        Ok(Key {
            partition: partition_key,
            sort: sort_key,
            alone,
        })
    }

    /// What a SELECT reads; `values` are what [`Statement::bind`] made.
    ///
    /// # Errors
    /// A value that the key is compared with is none that it can have, two alternatives share keys, or ORDER BY does not go with
    /// the key and the clause.
    pub fn plan(
        &self,
        values: &Values,
        partition: KeyAttribute<'_>,
        sort: Option<KeyAttribute<'_>>,
    ) -> Result<Plan, StatementError> {
        let order = match &self.action {
            Action::Select { order, .. } => order.as_slice(),
            _ => &[],
        };
        let Some(planner) = self.planner(values, partition, sort) else {
            return if order.is_empty() {
                Ok(Plan::Scan)
            } else {
                Err(refused(ORDER_WITHOUT_WHERE))
            };
        };
        planner.check_order(order)?;
        let alternatives = match planner.alternatives(planner.condition.root(), false) {
            Some(alternatives) => planner.resolve(&alternatives)?,
            None => None,
        };
        let Some(mut alternatives) = alternatives else {
            return if order.is_empty() {
                Ok(Plan::Scan)
            } else {
                Err(refused(ORDER_WITHOUT_KEY))
            };
        };
        let count: usize = alternatives
            .iter()
            .map(|alternative| alternative.partitions.len() * alternative.conditions.len())
            .sum();
        if count > READS_MAX {
            for alternative in &mut alternatives {
                alternative.conditions = vec![KeyCondition::All];
                alternative.exact = false;
            }
        }
        let reads = reads(alternatives)?;
        if order.is_empty() {
            return Ok(Plan::Reads(reads, ReadOrder::Forward));
        }
        planner.ordered(reads, order)
    }
}

impl Planner<'_> {
    /// The conditions that AND alone joins.
    fn conjuncts(&self) -> Vec<NodeId> {
        let mut conjuncts = Vec::new();
        let mut stack = vec![self.condition.root()];
        while let Some(node) = stack.pop() {
            match self.operator(node) {
                Some((Operator::And, operands)) => stack.extend(operands.iter().rev()),
                _ => conjuncts.push(node),
            }
        }
        conjuncts
    }

    fn operator(&self, node: NodeId) -> Option<(Operator, &[NodeId])> {
        match self.tree.nodes[usize::from(node)] {
            Node::Operator {
                operator,
                first,
                count,
            } => Some((operator, self.tree.operands(first, count))),
            _ => None,
        }
    }

    /// The value that a node gives an attribute, if that is all it does.
    fn equality(&self, node: NodeId, name: &str) -> Option<NodeId> {
        match self.comparison(node, name)? {
            (Operator::Equal, values) => Some(values[0]),
            (Operator::In, values) if self.reads && values.len() == 1 => Some(values[0]),
            _ => None,
        }
    }

    /// An operator between an attribute and values.
    fn comparison(&self, node: NodeId, name: &str) -> Option<(Operator, Vec<NodeId>)> {
        let (operator, operands) = self.operator(node)?;
        let is_value = |node: &NodeId| matches!(self.tree.nodes[usize::from(*node)], Node::Value(_));
        let (first, rest) = operands.split_first()?;
        if self.condition.is_name(*first, name) && rest.iter().all(is_value) {
            return Some((operator, rest.to_vec()));
        }
        let mirrored = match operator {
            Operator::Equal | Operator::NotEqual => operator,
            Operator::Less => Operator::Greater,
            Operator::LessOrEqual => Operator::GreaterOrEqual,
            Operator::Greater => Operator::Less,
            Operator::GreaterOrEqual => Operator::LessOrEqual,
            _ => return None,
        };
        (is_value(first) && self.condition.is_name(*rest.first()?, name)).then(|| (mirrored, vec![*first]))
    }

    fn value(&self, node: NodeId) -> &Value {
        let Node::Value(slot) = self.tree.nodes[usize::from(node)] else {
            unreachable!("comparisons keep values only")
        };
        self.values
            .use_of(&self.tree.values[usize::from(slot)])
            .expect("the values are the statement's")
    }

    /// The one value that the conjuncts give a key attribute.
    fn pinned(&self, conjuncts: &[NodeId], attribute: KeyAttribute<'_>) -> Result<KeyValue, StatementError> {
        let mut pinned: Option<KeyValue> = None;
        for node in conjuncts {
            let Some(value) = self.equality(*node, attribute.name) else {
                continue;
            };
            let value = key_value(self.value(value), attribute)?;
            if pinned.as_ref().is_some_and(|pinned| *pinned != value) {
                return Err(refused(format!(
                    "Multiple conditions on same key {}. Only single item Update/Insert/Delete are supported",
                    attribute.name
                )));
            }
            pinned = Some(value);
        }
        pinned.ok_or_else(no_key)
    }

    /// Whether anything below the node is about the key.
    fn about_key(&self, node: NodeId) -> bool {
        let mut stack = vec![node];
        while let Some(node) = stack.pop() {
            let named = |attribute: KeyAttribute<'_>| self.condition.is_name(node, attribute.name);
            if named(self.partition) || self.sort.is_some_and(named) {
                return true;
            }
            if let Some((_, operands)) = self.operator(node) {
                stack.extend(operands);
            }
        }
        false
    }

    /// The alternatives below a node, each with what it says about the key; none when there are too many. The recursion follows
    /// operators, of which binding has counted at most [`crate::OPERATORS_MAX`].
    fn alternatives(&self, node: NodeId, negated: bool) -> Option<Vec<Vec<Atom>>> {
        let Some((operator, operands)) = self.operator(node) else {
            return Some(vec![Vec::new()]);
        };
        match (operator, negated) {
            (Operator::Not, _) => self.alternatives(operands[0], !negated),
            (Operator::Or, false) | (Operator::And, true) => {
                if !self.about_key(node) {
                    return Some(vec![Vec::new()]);
                }
                let mut all = self.alternatives(operands[0], negated)?;
                all.extend(self.alternatives(operands[1], negated)?);
                bounded(all)
            }
            (Operator::And, false) | (Operator::Or, true) => {
                let left = self.alternatives(operands[0], negated)?;
                let right = self.alternatives(operands[1], negated)?;
                if left.len() * right.len() > ALTERNATIVES_MAX {
                    return None;
                }
                let both = left.iter().flat_map(|left| {
                    right
                        .iter()
                        .map(move |right| left.iter().chain(right).cloned().collect())
                });
                bounded(both.collect())
            }
            _ => Some(vec![self.atom(node, negated).into_iter().collect()]),
        }
    }

    /// What a single condition says about the key.
    fn atom(&self, node: NodeId, negated: bool) -> Option<Atom> {
        if let Some((operator, values)) = self.comparison(node, self.partition.name) {
            let pins = matches!(operator, Operator::Equal | Operator::In) && !negated;
            return pins.then_some(Atom::Partition(values));
        }
        let (operator, values) = self.comparison(node, self.sort?.name)?;
        match operator {
            Operator::Equal
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Between
            | Operator::BeginsWith
            | Operator::In
                if !negated =>
            {
                Some(Atom::Sort(operator, values))
            }
            _ => Some(Atom::SortOther),
        }
    }

    /// Fills in the values; none when an alternative does not pin the partition key.
    fn resolve(&self, alternatives: &[Vec<Atom>]) -> Result<Option<Vec<Alternative>>, StatementError> {
        let mut resolved = Vec::with_capacity(alternatives.len());
        for atoms in alternatives {
            let mut partitions: Option<Vec<KeyValue>> = None;
            let mut sorts: Vec<(Operator, Vec<KeyValue>)> = Vec::new();
            let mut exact = true;
            for atom in atoms {
                match atom {
                    Atom::Partition(values) => {
                        let values = self.key_values(values, self.partition)?;
                        partitions = Some(match partitions {
                            None => values,
                            Some(held) => {
                                let values: BTreeSet<KeyValue> = values.into_iter().collect();
                                held.into_iter().filter(|key| values.contains(key)).collect()
                            }
                        });
                    }
                    Atom::Sort(operator, values) => {
                        let sort = self.sort.expect("an atom is about it");
                        let sort = (*operator, self.key_values(values, sort)?);
                        if !sorts.contains(&sort) {
                            sorts.push(sort);
                        }
                    }
                    Atom::SortOther => exact = false,
                }
            }
            let Some(partitions) = partitions else {
                return Ok(None);
            };
            for key in &partitions {
                key.check_partition_key().map_err(item_error)?;
            }
            for key in sorts.iter().flat_map(|(_, values)| values) {
                key.check_sort_key().map_err(item_error)?;
            }
            resolved.push(Alternative {
                partitions,
                exact: exact && sorts.len() < 2,
                conditions: conditions(sorts),
            });
        }
        Ok(Some(resolved))
    }

    /// The values of a comparison as keys, of which none comes twice in an IN.
    fn key_values(
        &self,
        nodes: &[NodeId],
        attribute: KeyAttribute<'_>,
    ) -> Result<Vec<KeyValue>, StatementError> {
        nodes
            .iter()
            .map(|node| key_value(self.value(*node), attribute))
            .collect()
    }

    fn check_order(&self, order: &[OrderTerm]) -> Result<(), StatementError> {
        for term in order {
            if let Some(refusal) = &term.refusal {
                return Err(refusal.clone());
            }
            let key =
                term.name == self.partition.name || self.sort.is_some_and(|sort| term.name == sort.name);
            if !key {
                return Err(refused(format!(
                    "Attribute {} in ORDER BY clause must be part of the primary key",
                    term.name
                )));
            }
        }
        Ok(())
    }

    /// DynamoDB orders the partition keys by themselves, and the items of each by the sort key, which descends unless ORDER BY
    /// names it.
    fn ordered(&self, mut reads: Vec<Read>, order: &[OrderTerm]) -> Result<Plan, StatementError> {
        let term_of = |attribute: KeyAttribute<'_>| order.iter().find(|term| term.name == attribute.name);
        let by_partition = term_of(self.partition);
        let several = reads
            .windows(2)
            .any(|pair| pair[0].partition != pair[1].partition);
        if several && by_partition.is_none() {
            return Err(refused(ORDER_OF_SEVERAL));
        }
        let forward = self.sort.and_then(term_of).is_some_and(|term| !term.descending);
        let partitions_descend = by_partition.is_some_and(|term| term.descending);
        reads.sort_by(|left, right| {
            let partitions = left.partition.cmp(&right.partition);
            let sorts = lower_bytes(&left.condition).cmp(&lower_bytes(&right.condition));
            let partitions = if partitions_descend {
                partitions.reverse()
            } else {
                partitions
            };
            partitions.then(if forward { sorts } else { sorts.reverse() })
        });
        let order = if forward {
            ReadOrder::Forward
        } else {
            ReadOrder::Backward
        };
        Ok(Plan::Reads(reads, order))
    }
}

fn bounded(alternatives: Vec<Vec<Atom>>) -> Option<Vec<Vec<Atom>>> {
    let conditions: usize = alternatives.iter().map(Vec::len).sum();
    (alternatives.len() <= ALTERNATIVES_MAX && conditions <= CONDITIONS_MAX).then_some(alternatives)
}

/// What the sort key conditions of one alternative narrow a read to, which may be more than they allow.
fn conditions(sorts: Vec<(Operator, Vec<KeyValue>)>) -> Vec<KeyCondition> {
    let one_of = |operators: [Operator; 2]| {
        let found = sorts.iter().find(|(operator, _)| operators.contains(operator));
        found.map(|(_, values)| values[0].clone())
    };
    let points = sorts
        .iter()
        .find(|(operator, _)| matches!(operator, Operator::Equal | Operator::In));
    if let Some((_, values)) = points {
        return values.iter().cloned().map(KeyCondition::Equal).collect();
    }
    let lower = one_of([Operator::Greater, Operator::GreaterOrEqual]);
    let upper = one_of([Operator::Less, Operator::LessOrEqual]);
    if let (Some(lower), Some(upper)) = (lower, upper)
        && lower <= upper
    {
        return vec![KeyCondition::Between(lower, upper)];
    }
    let Some((operator, values)) = sorts.into_iter().next() else {
        return vec![KeyCondition::All];
    };
    let mut values = values.into_iter();
    let mut next = || values.next().expect("operators have their operands");
    vec![match operator {
        Operator::Less => KeyCondition::Less(next()),
        Operator::LessOrEqual => KeyCondition::LessOrEqual(next()),
        Operator::Greater => KeyCondition::Greater(next()),
        Operator::GreaterOrEqual => KeyCondition::GreaterOrEqual(next()),
        Operator::BeginsWith => KeyCondition::BeginsWith(next()),
        _ => KeyCondition::Between(next(), next()),
    }]
}

/// One read for each key or range of keys.
fn reads(alternatives: Vec<Alternative>) -> Result<Vec<Read>, StatementError> {
    let exact = alternatives.iter().all(|alternative| alternative.exact);
    let mut reads: Vec<Read> = Vec::new();
    // By partition key: the places of its reads.
    let mut places: BTreeMap<KeyValue, Vec<usize>> = BTreeMap::new();
    for Alternative {
        partitions,
        conditions,
        ..
    } in alternatives
    {
        for partition in partitions {
            for condition in &conditions {
                places.entry(partition.clone()).or_default().push(reads.len());
                reads.push(Read {
                    partition: partition.clone(),
                    condition: condition.clone(),
                });
            }
        }
    }
    let mut merged = Vec::new();
    for places in places.values().filter(|places| places.len() > 1) {
        let mut ranges: Vec<_> = places
            .iter()
            .map(|place| range(&reads[*place].condition))
            .collect();
        ranges.sort_by(|left, right| lower_of(left).cmp(&lower_of(right)));
        if !ranges.windows(2).any(|pair| meet(&pair[0], &pair[1])) {
            continue;
        }
        if exact {
            return Err(refused(OVERLAPPING));
        }
        merged.extend_from_slice(&places[1..]);
        reads[places[0]].condition = KeyCondition::All;
    }
    merged.sort_unstable();
    let mut place = 0..;
    reads.retain(|_| merged.binary_search(&place.next().expect("endless")).is_err());
    Ok(reads)
}

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The sort keys of a read; the bytes of keys of one type are in their order.
fn range(condition: &KeyCondition) -> Range {
    let included = |key: &KeyValue| Bound::Included(key.bytes().to_vec());
    let excluded = |key: &KeyValue| Bound::Excluded(key.bytes().to_vec());
    match condition {
        KeyCondition::All => (Bound::Unbounded, Bound::Unbounded),
        KeyCondition::Equal(key) => (included(key), included(key)),
        KeyCondition::Less(key) => (Bound::Unbounded, excluded(key)),
        KeyCondition::LessOrEqual(key) => (Bound::Unbounded, included(key)),
        KeyCondition::Greater(key) => (excluded(key), Bound::Unbounded),
        KeyCondition::GreaterOrEqual(key) => (included(key), Bound::Unbounded),
        KeyCondition::Between(lower, upper) => (included(lower), included(upper)),
        KeyCondition::BeginsWith(key) => {
            let mut end = key.bytes().to_vec();
            while end.last() == Some(&u8::MAX) {
                end.pop();
            }
            let upper = match end.last_mut() {
                Some(last) => {
                    *last += 1;
                    Bound::Excluded(end)
                }
                None => Bound::Unbounded,
            };
            (included(key), upper)
        }
    }
}

/// For sorting: where a range begins, and whether after that key.
fn lower_of(range: &Range) -> Option<(&[u8], bool)> {
    match &range.0 {
        Bound::Unbounded => None,
        Bound::Included(key) => Some((key, false)),
        Bound::Excluded(key) => Some((key, true)),
    }
}

fn lower_bytes(condition: &KeyCondition) -> Option<Vec<u8>> {
    let range = range(condition);
    lower_of(&range).map(|(key, _)| key.to_vec())
}

/// Whether a range has a key in common with one that begins no later.
fn meet(earlier: &Range, later: &Range) -> bool {
    let Some((lower, open)) = lower_of(later) else {
        return true;
    };
    match &earlier.1 {
        Bound::Unbounded => true,
        Bound::Included(upper) => lower < upper.as_slice() || lower == upper.as_slice() && !open,
        Bound::Excluded(upper) => lower < upper.as_slice(),
    }
}

/// A value that a key attribute is compared with.
fn key_value(value: &Value, attribute: KeyAttribute<'_>) -> Result<KeyValue, StatementError> {
    KeyValue::from_value(attribute.name, value, attribute.kind).map_err(|error| match error {
        ItemError::KeyTypeMismatch { .. } if KeyType::from_name(value.type_name()).is_none() => {
            refused(format!(
                "Key value must be of type S, N, or B. Key name: {}, Key type: {}",
                attribute.name,
                value.type_name()
            ))
        }
        ItemError::KeyTypeMismatch { .. } => type_mismatch(attribute.name),
        error => item_error(error),
    })
}

pub(super) fn type_mismatch(name: &str) -> StatementError {
    refused(format!(
        "Key attribute's data type should match its data type in table's schema: Key {name}"
    ))
}

fn item_error(error: ItemError) -> StatementError {
    refused(error.to_string())
}

fn no_key() -> StatementError {
    refused(NO_KEY)
}

fn refused(message: impl Into<String>) -> StatementError {
    StatementError::refused(message, None)
}
