//! `KeyConditionExpression`: what a Query says of the keys it wants.
//!
//! The expression is read and checked like any condition ([`KeyCondition::bind`], which needs no table), taken apart into one
//! clause per attribute, and then held against the key of the table or index ([`KeyClauses::resolve`]):
//! 1. no more clauses than the key has attributes;
//! 2. an equality for every partition key attribute;
//! 3. no clause for an attribute outside the key;
//! 4. of several sort key attributes, equalities for all before the last that has a clause;
//! 5. values of the attributes' types, not empty, not too long.

use cairn_item::{KeyCondition as SortCondition, KeyType, KeyValue, Value};

use crate::bind::{Bound, Checker};
use crate::error::{ExpressionError, Parameter, Problem};
use crate::parser::{Grammar, Parser};
use crate::placeholder::{Names, Values};
use crate::tree::{Node, NodeId, Operator, Tree};

/// A key attribute of a table or index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAttribute<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type.
    pub kind: KeyType,
}

/// The key of a table or index.
#[derive(Debug, Clone, Copy)]
pub struct KeySchema<'a> {
    /// One; a global index may have up to four.
    pub partition: &'a [KeyAttribute<'a>],
    /// None or one; a global index may have up to four.
    pub sort: &'a [KeyAttribute<'a>],
}

/// A parsed key condition. It depends on the text alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCondition {
    tree: Tree,
}

/// What a key condition says of each attribute, in the order of the text, with the request's values.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyClauses<'a>(Vec<Clause<'a>>);

#[derive(Debug, Clone, PartialEq)]
struct Clause<'a> {
    name: &'a str,
    comparison: Comparison<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison<'a> {
    Equal(&'a Value),
    Less(&'a Value),
    LessOrEqual(&'a Value),
    Greater(&'a Value),
    GreaterOrEqual(&'a Value),
    Between(&'a Value, &'a Value),
    BeginsWith(&'a Value),
}

/// A key condition on a key with one partition key attribute and at most one sort key attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConditions {
    /// The partition key.
    pub partition: KeyValue,
    /// The condition on the sort key.
    pub sort: SortCondition,
}

/// A key condition on any key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompositeKeyConditions {
    /// One value per partition key attribute, in the order of the key.
    pub partition: Vec<KeyValue>,
    /// Values of the leading sort key attributes that must be equal.
    pub equal: Vec<KeyValue>,
    /// The condition on the sort key attribute after those, never [`SortCondition::Equal`].
    pub last: SortCondition,
}

/// Reads, binds and resolves in one go, for a simple key.
///
/// # Errors
/// Everything that [`KeyCondition::parse`], [`KeyCondition::bind`] and [`KeyClauses::resolve`] refuse.
pub fn parse(
    expression: &str,
    names: &Names,
    values: &Values,
    key: KeySchema<'_>,
) -> Result<KeyConditions, ExpressionError> {
    KeyCondition::parse(expression)?.bind(names, values)?.resolve(key)
}

impl KeyCondition {
    /// Reads the text.
    ///
    /// # Errors
    /// The text is no expression.
    pub fn parse(text: &str) -> Result<KeyCondition, ExpressionError> {
        let mut parser = Parser::new(Parameter::KeyCondition, text)?;
        parser.expression(Grammar::Condition)?;
        Ok(KeyCondition {
            tree: parser.finish()?,
        })
    }

    /// Fills in names and values and checks everything that needs no table.
    ///
    /// # Errors
    /// A placeholder is undefined, an operand is of the wrong type, a limit is exceeded, or the expression is more than
    /// comparisons of attributes with values.
    pub fn bind<'a>(
        &'a self,
        names: &'a Names,
        values: &'a Values,
    ) -> Result<KeyClauses<'a>, ExpressionError> {
        let bound = Bound::new(&self.tree, names, Some(values));
        let mut checker = Checker::new(Parameter::KeyCondition, &bound);
        checker.nodes(0..self.tree.nodes.len())?;
        checker.finish()?;
        clauses(&bound)
    }
}

impl std::fmt::Display for KeyCondition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tree.write(formatter, self.tree.root())
    }
}

/// Takes the expression apart from left to right; AND may nest to any depth, so what is still to be seen waits in a row.
fn clauses<'a>(bound: &Bound<'a>) -> Result<KeyClauses<'a>, ExpressionError> {
    let mut clauses: Vec<Clause<'a>> = Vec::new();
    let mut waiting = vec![bound.tree.root()];
    while let Some(node) = waiting.pop() {
        let Node::Operator {
            operator,
            first,
            count,
        } = bound.node(node)
        else {
            unreachable!("the grammar makes operators of all conditions");
        };
        let operands = bound.tree.operands(first, count);
        if operator == Operator::And {
            waiting.extend(operands.iter().rev());
            continue;
        }
        let clause = clause(bound, operator, operands)?;
        if clauses.iter().any(|other| other.name == clause.name) {
            return Err(ExpressionError::of(Parameter::KeyCondition, Problem::KeyRepeated));
        }
        clauses.push(clause);
    }
    Ok(KeyClauses(clauses))
}

fn clause<'a>(
    bound: &Bound<'a>,
    operator: Operator,
    operands: &[NodeId],
) -> Result<Clause<'a>, ExpressionError> {
    if !matches!(
        operator,
        Operator::Equal
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Between
            | Operator::BeginsWith
    ) {
        return Err(ExpressionError::bare(Problem::KeyOperator(operator.name())));
    }
    let mut name = None;
    let mut values = [None; 2];
    let mut count = 0;
    let mut reversed = false;
    for operand in operands {
        match bound.node(*operand) {
            Node::Path(path) => {
                if name.is_some() {
                    return Err(ExpressionError::bare(Problem::KeySeveralNames));
                }
                if bound.places(path).len() > 1 {
                    return Err(ExpressionError::of(
                        Parameter::KeyCondition,
                        Problem::KeyNestedAttribute,
                    ));
                }
                name = Some(bound.head(path));
            }
            Node::Value(slot) => {
                if name.is_none() {
                    if matches!(operator, Operator::Between | Operator::BeginsWith) {
                        return Err(ExpressionError::bare(Problem::KeyNotFirst(operator.name())));
                    }
                    reversed = !reversed;
                }
                if let Some(value) = values.get_mut(count) {
                    *value = Some(bound.value(slot));
                }
                count += 1;
            }
            Node::Operator { .. } => return Err(ExpressionError::bare(Problem::KeyNestedOperation)),
        }
    }
    let (Some(name), Some(value)) = (name, values[0]) else {
        return Err(ExpressionError::bare(Problem::KeyNoName));
    };
    let comparison = match (operator, reversed) {
        (Operator::Equal, _) => Comparison::Equal(value),
        (Operator::Less, false) | (Operator::Greater, true) => Comparison::Less(value),
        (Operator::LessOrEqual, false) | (Operator::GreaterOrEqual, true) => Comparison::LessOrEqual(value),
        (Operator::Greater, false) | (Operator::Less, true) => Comparison::Greater(value),
        (Operator::GreaterOrEqual, false) | (Operator::LessOrEqual, true) => {
            Comparison::GreaterOrEqual(value)
        }
        (Operator::BeginsWith, _) => Comparison::BeginsWith(value),
        _ => Comparison::Between(
            value,
            values[1].expect("BETWEEN has two bounds, and the first operand is no value"),
        ),
    };
    Ok(Clause { name, comparison })
}

impl<'a> KeyClauses<'a> {
    fn of(&self, name: &str) -> Option<Comparison<'a>> {
        self.0
            .iter()
            .find(|clause| clause.name == name)
            .map(|clause| clause.comparison)
    }

    fn equal(&self, name: &str) -> Option<&'a Value> {
        match self.of(name) {
            Some(Comparison::Equal(value)) => Some(value),
            _ => None,
        }
    }

    /// Holds the clauses against a key with one partition key attribute and at most one sort key attribute.
    ///
    /// # Errors
    /// The clauses do not fit the key; see the module.
    pub fn resolve(&self, key: KeySchema<'_>) -> Result<KeyConditions, ExpressionError> {
        assert!(
            key.partition.len() == 1 && key.sort.len() <= 1,
            "longer keys are resolved by resolve_composite"
        );
        let mut conditions = self.resolve_composite(key)?;
        Ok(KeyConditions {
            partition: conditions.partition.remove(0),
            sort: match conditions.equal.pop() {
                Some(value) => SortCondition::Equal(value),
                None => conditions.last,
            },
        })
    }

    /// Holds the clauses against any key.
    ///
    /// # Errors
    /// The clauses do not fit the key; see the module.
    pub fn resolve_composite(&self, key: KeySchema<'_>) -> Result<CompositeKeyConditions, ExpressionError> {
        let bare = |problem| Err(ExpressionError::bare(problem));
        let (given, defined) = (self.0.len(), key.partition.len() + key.sort.len());
        if given > defined {
            return bare(Problem::KeyTooManyConditions { given, defined });
        }
        self.check_partition(key)?;
        let outside = |clause: &Clause<'_>| {
            !key.partition
                .iter()
                .chain(key.sort)
                .any(|attribute| attribute.name == clause.name)
        };
        if self.0.iter().any(outside) {
            let missed = key
                .sort
                .iter()
                .find(|attribute| self.of(attribute.name).is_none());
            return bare(Problem::KeyMissed(
                missed.map_or(String::new(), |attribute| attribute.name.to_owned()),
            ));
        }
        let last = key
            .sort
            .iter()
            .rposition(|attribute| self.of(attribute.name).is_some());
        if let Some(last) = last {
            let missing = self.without_equality(&key.sort[..last]);
            if !missing.is_empty() {
                let last = key.sort[last].name.to_owned();
                return bare(Problem::KeySortEquality { missing, last });
            }
        }
        let mut conditions = CompositeKeyConditions {
            partition: Vec::new(),
            equal: Vec::new(),
            last: SortCondition::All,
        };
        for attribute in key.partition {
            let value = key_value(*attribute, self.equal(attribute.name).expect("checked above"))?;
            value.check_partition_key()?;
            conditions.partition.push(value);
        }
        for attribute in key.sort {
            let sort_value = |value| {
                let value = key_value(*attribute, value)?;
                value.check_sort_key()?;
                Ok::<_, ExpressionError>(value)
            };
            conditions.last = match self.of(attribute.name) {
                None => break,
                Some(Comparison::Equal(value)) => {
                    conditions.equal.push(sort_value(value)?);
                    continue;
                }
                Some(Comparison::Less(value)) => SortCondition::Less(sort_value(value)?),
                Some(Comparison::LessOrEqual(value)) => SortCondition::LessOrEqual(sort_value(value)?),
                Some(Comparison::Greater(value)) => SortCondition::Greater(sort_value(value)?),
                Some(Comparison::GreaterOrEqual(value)) => SortCondition::GreaterOrEqual(sort_value(value)?),
                Some(Comparison::BeginsWith(value)) => SortCondition::BeginsWith(sort_value(value)?),
                Some(Comparison::Between(lower, upper)) => {
                    SortCondition::Between(sort_value(lower)?, sort_value(upper)?)
                }
            };
        }
        Ok(conditions)
    }

    fn check_partition(&self, key: KeySchema<'_>) -> Result<(), ExpressionError> {
        if key.partition.len() > 1 || key.sort.len() > 1 {
            let missing = self.without_equality(key.partition);
            if !missing.is_empty() {
                return Err(ExpressionError::bare(Problem::KeyPartitionEquality(missing)));
            }
            return Ok(());
        }
        for attribute in key.partition {
            match self.of(attribute.name) {
                Some(Comparison::Equal(_)) => {}
                Some(_) => return Err(ExpressionError::bare(Problem::KeyUnsupported)),
                None => {
                    return Err(ExpressionError::bare(Problem::KeyMissed(
                        attribute.name.to_owned(),
                    )));
                }
            }
        }
        Ok(())
    }

    fn without_equality(&self, attributes: &[KeyAttribute<'_>]) -> String {
        let missing: Vec<&str> = attributes
            .iter()
            .map(|attribute| attribute.name)
            .filter(|name| self.equal(name).is_none())
            .collect();
        missing.join(", ")
    }
}

fn key_value(attribute: KeyAttribute<'_>, value: &Value) -> Result<KeyValue, ExpressionError> {
    let of_type = matches!(
        (value, attribute.kind),
        (Value::S(_), KeyType::S) | (Value::N(_), KeyType::N) | (Value::B(_), KeyType::B)
    );
    if !of_type {
        return Err(ExpressionError::bare(Problem::KeyType));
    }
    Ok(KeyValue::from_value(attribute.name, value, attribute.kind)?)
}
