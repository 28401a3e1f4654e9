//! `ConditionExpression` and `FilterExpression`.
//!
//! A condition is evaluated on the archived item in place. The recursion follows operators, of which binding has counted at most
//! [`crate::OPERATORS_MAX`].
//!
//! - An operand that the item does not have makes every comparison and function false, but `<>` and
//!   `attribute_not_exists` true.
//! - Values of different types are not equal and have no order; only strings, numbers and binaries have an order.
//! - `size` of a number, boolean or null is as if it were not there.

use std::cmp::Ordering;

use cairn_item::{ItemView, ListView, MapView, Number, Value, ValueView};
use memchr::memmem;

use crate::bind::{Bound, Checker, Place};
use crate::error::{ExpressionError, Parameter, Problem};
use crate::parser::{Grammar, Parser};
use crate::placeholder::{Names, Values};
use crate::tree::{Node, NodeId, Operator, PathId, Tree, Types};

/// A parsed condition or filter. It depends on the text alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    parameter: Parameter,
    tree: Tree,
    root: NodeId,
    legacy: bool,
}

impl Condition {
    /// Reads the text; `parameter` is where it came in.
    ///
    /// # Errors
    /// The text is no condition.
    pub fn parse(parameter: Parameter, text: &str) -> Result<Condition, ExpressionError> {
        let mut parser = Parser::new(parameter, text)?;
        let root = parser.expression(Grammar::Condition)?;
        Ok(Condition {
            parameter,
            tree: parser.finish()?,
            root,
            legacy: false,
        })
    }

    /// A condition that was parsed from a statement.
    pub(crate) fn new(parameter: Parameter, tree: Tree, root: NodeId) -> Condition {
        Condition {
            parameter,
            tree,
            root,
            legacy: false,
        }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn root(&self) -> NodeId {
        self.root
    }

    /// A condition that is not an expression, and is not held to the rules for them.
    pub(crate) fn from_legacy(parameter: Parameter, tree: Tree, root: NodeId) -> Condition {
        Condition {
            parameter,
            tree,
            root,
            legacy: true,
        }
    }

    /// Fills in names and values and checks them.
    ///
    /// # Errors
    /// A placeholder is undefined, an operand is of the wrong type, or a limit is exceeded.
    pub fn bind<'a>(
        &'a self,
        names: &'a Names,
        values: &'a Values,
    ) -> Result<BoundCondition<'a>, ExpressionError> {
        let bound = Bound::new(&self.tree, names, Some(values));
        if !self.legacy {
            let mut checker = Checker::new(self.parameter, &bound);
            checker.nodes(0..self.tree.nodes.len())?;
            checker.finish()?;
        }
        Ok(BoundCondition {
            bound,
            root: self.root,
        })
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tree.write(formatter, self.root)
    }
}

/// A condition with the names and values of one request, to be evaluated on any number of items.
#[derive(Debug, Clone)]
pub struct BoundCondition<'a> {
    bound: Bound<'a>,
    root: NodeId,
}

impl<'a> BoundCondition<'a> {
    /// Whether the condition is true of the item; without one, of an item that has no attributes.
    #[must_use]
    pub fn matches(&self, item: Option<ItemView<'_>>) -> bool {
        Evaluation {
            bound: &self.bound,
            item,
        }
        .truth(self.root)
    }

    /// The attributes that the condition's paths begin with, from left to right, each as often as it is there.
    pub fn attributes(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.paths().map(|path| self.bound.head(path))
    }

    fn paths(&self) -> impl Iterator<Item = PathId> + '_ {
        self.bound.tree.nodes.iter().filter_map(|node| match node {
            Node::Path(path) => Some(*path),
            _ => None,
        })
    }

    /// Checks that a filter of a Query is not about the attributes of the key, which are given partition before sort.
    ///
    /// # Errors
    /// The first of them that it is about.
    pub fn check_not_on_key(&self, key: &[&str]) -> Result<(), ExpressionError> {
        match key
            .iter()
            .find(|name| self.attributes().any(|attribute| attribute == **name))
        {
            Some(name) => Err(ExpressionError::bare(Problem::FilterOnKey((*name).to_owned()))),
            None => Ok(()),
        }
    }

    /// Checks that no path goes into an attribute of the key; `role` is `Key` or `IndexKey`.
    ///
    /// # Errors
    /// The first attribute that one goes into.
    pub fn check_key_scalar(&self, role: &'static str, key: &[&str]) -> Result<(), ExpressionError> {
        check_key_scalar(&self.bound, self.paths(), role, key)
    }
}

pub(crate) fn check_key_scalar(
    bound: &Bound<'_>,
    mut paths: impl Iterator<Item = PathId>,
    role: &'static str,
    key: &[&str],
) -> Result<(), ExpressionError> {
    let into_key = |path: &PathId| bound.places(*path).len() > 1 && key.contains(&bound.head(*path));
    match paths.find(into_key) {
        Some(path) => {
            let name = bound.head(path).to_owned();
            Err(ExpressionError::bare(Problem::KeyNotScalar { role, name }))
        }
        None => Ok(()),
    }
}

/// What an operand stands for.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'i> {
    /// A value of the item, or a scalar of the request.
    View(ValueView<'i>),
    /// A set, list or map of the request.
    Value(&'i Value),
}

impl<'i> Operand<'i> {
    pub(crate) fn of(value: &'i Value) -> Operand<'i> {
        Operand::View(match value {
            Value::S(text) => ValueView::S(text),
            Value::N(number) => ValueView::N(*number),
            Value::B(bytes) => ValueView::B(bytes),
            Value::Bool(truth) => ValueView::Bool(*truth),
            Value::Null => ValueView::Null,
            _ => return Operand::Value(value),
        })
    }

    pub(crate) fn types(self) -> Types {
        match self {
            Operand::View(view) => Types::of_view(view),
            Operand::Value(value) => Types::of(value),
        }
    }

    /// Size in bytes as DynamoDB counts it, of what [`Operand::to_value`] would make.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Operand::View(view) => view.size(),
            Operand::Value(value) => value.size(),
        }
    }

    fn type_name(self) -> &'static str {
        match self {
            Operand::View(view) => view.type_name(),
            Operand::Value(value) => value.type_name(),
        }
    }

    fn equals(self, other: Operand<'_>) -> bool {
        match (self, other) {
            (Operand::View(left), Operand::View(right)) => left == right,
            (Operand::View(view), Operand::Value(value)) | (Operand::Value(value), Operand::View(view)) => {
                view == *value
            }
            (Operand::Value(left), Operand::Value(right)) => left == right,
        }
    }

    fn order(self, other: Operand<'_>) -> Option<Ordering> {
        let (Operand::View(left), Operand::View(right)) = (self, other) else {
            return None;
        };
        match (left, right) {
            (ValueView::S(left), ValueView::S(right)) => Some(left.cmp(right)),
            (ValueView::N(left), ValueView::N(right)) => Some(left.cmp(&right)),
            (ValueView::B(left), ValueView::B(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }

    fn begins_with(self, prefix: Operand<'_>) -> bool {
        match (self, prefix) {
            (Operand::View(ValueView::S(text)), Operand::View(ValueView::S(prefix))) => {
                text.starts_with(prefix)
            }
            (Operand::View(ValueView::B(bytes)), Operand::View(ValueView::B(prefix))) => {
                bytes.starts_with(prefix)
            }
            _ => false,
        }
    }

    fn contains(self, part: Operand<'_>) -> bool {
        match self {
            Operand::View(ValueView::L(elements)) => {
                return elements.iter().any(|element| Operand::View(element).equals(part));
            }
            Operand::Value(Value::L(elements)) => {
                return elements.iter().any(|element| Operand::of(element).equals(part));
            }
            _ => {}
        }
        // Of the rest only scalars can be a part.
        let Operand::View(part) = part else { return false };
        match (self, part) {
            (Operand::View(ValueView::S(text)), ValueView::S(part)) => {
                memmem::find(text.as_bytes(), part.as_bytes()).is_some()
            }
            (Operand::View(ValueView::B(bytes)), ValueView::B(part)) => memmem::find(bytes, part).is_some(),
            (Operand::View(ValueView::Ss(set)), ValueView::S(part)) => set.contains(part),
            (Operand::View(ValueView::Ns(set)), ValueView::N(part)) => set.contains(&part),
            (Operand::View(ValueView::Bs(set)), ValueView::B(part)) => set.contains(part),
            (Operand::Value(Value::Ss(set)), ValueView::S(part)) => {
                set.binary_search_by(|member| member.as_str().cmp(part)).is_ok()
            }
            (Operand::Value(Value::Ns(set)), ValueView::N(part)) => set.binary_search(&part).is_ok(),
            (Operand::Value(Value::Bs(set)), ValueView::B(part)) => {
                set.binary_search_by(|member| member.as_slice().cmp(part)).is_ok()
            }
            _ => false,
        }
    }

    /// Strings by UTF-16 code units, binaries by bytes, the rest by their members.
    fn size(self) -> Option<usize> {
        Some(match self {
            Operand::View(ValueView::S(text)) => text.encode_utf16().count(),
            Operand::View(ValueView::B(bytes)) => bytes.len(),
            Operand::View(ValueView::Ss(set)) => set.len(),
            Operand::View(ValueView::Ns(set)) => set.len(),
            Operand::View(ValueView::Bs(set)) => set.len(),
            Operand::View(ValueView::L(elements)) => elements.len(),
            Operand::View(ValueView::M(attributes)) => attributes.len(),
            Operand::Value(Value::Ss(set)) => set.len(),
            Operand::Value(Value::Ns(set)) => set.len(),
            Operand::Value(Value::Bs(set)) => set.len(),
            Operand::Value(Value::L(elements)) => elements.len(),
            Operand::Value(Value::M(attributes)) => attributes.len(),
            _ => return None,
        })
    }

    pub(crate) fn to_value(self) -> Value {
        match self {
            Operand::View(view) => view.to_value(),
            Operand::Value(value) => value.clone(),
        }
    }
}

/// The value at the end of a path, if every step is there.
pub(crate) fn follow<'i, 'p>(
    item: ItemView<'i>,
    places: impl IntoIterator<Item = Place<'p>>,
) -> Option<ValueView<'i>> {
    let mut places = places.into_iter();
    let Some(Place::Name(name)) = places.next() else {
        return None;
    };
    let mut value = item.get(name)?;
    for place in places {
        value = match (value, place) {
            (ValueView::M(map), Place::Name(name)) => MapView::get(map, name)?,
            (ValueView::L(list), Place::Index(index)) => ListView::get(list, usize::try_from(index).ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

pub(crate) struct Evaluation<'e, 'i> {
    pub(crate) bound: &'e Bound<'e>,
    pub(crate) item: Option<ItemView<'i>>,
}

impl<'e: 'i, 'i> Evaluation<'e, 'i> {
    pub(crate) fn path(&self, path: PathId) -> Option<Operand<'i>> {
        follow(self.item?, self.bound.places(path)).map(Operand::View)
    }

    fn operand(&self, node: NodeId) -> Option<Operand<'i>> {
        match self.bound.node(node) {
            Node::Path(path) => self.path(path),
            Node::Value(slot) => Some(Operand::of(self.bound.value(slot))),
            Node::Operator { first, count, .. } => {
                // The grammar lets no other function be an operand of a condition.
                let size = self.operand(self.bound.tree.operands(first, count)[0])?.size()?;
                let size = i64::try_from(size).expect("items are smaller than that");
                Some(Operand::View(ValueView::N(Number::from(size))))
            }
        }
    }

    /// Kept small, for it is what recurs.
    fn truth(&self, node: NodeId) -> bool {
        let Node::Operator {
            operator,
            first,
            count,
        } = self.bound.node(node)
        else {
            unreachable!("the grammar makes operators of all conditions");
        };
        let operands = self.bound.tree.operands(first, count);
        match operator {
            Operator::And => self.truth(operands[0]) && self.truth(operands[1]),
            Operator::Or => self.truth(operands[0]) || self.truth(operands[1]),
            Operator::Not => !self.truth(operands[0]),
            _ => self.holds(operator, operands),
        }
    }

    /// A comparison or a function.
    #[inline(never)]
    fn holds(&self, operator: Operator, operands: &[NodeId]) -> bool {
        let operand = |index: usize| self.operand(operands[index]);
        let ordered = |accept: fn(Ordering) -> bool| match (operand(0), operand(1)) {
            (Some(left), Some(right)) => left.order(right).is_some_and(accept),
            _ => false,
        };
        let equal = || match (operand(0), operand(1)) {
            (Some(left), Some(right)) => left.equals(right),
            _ => false,
        };
        match operator {
            Operator::Equal => equal(),
            Operator::NotEqual => !equal(),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::LessOrEqual => ordered(Ordering::is_le),
            Operator::Greater => ordered(Ordering::is_gt),
            Operator::GreaterOrEqual => ordered(Ordering::is_ge),
            Operator::Between => match (operand(0), operand(1), operand(2)) {
                (Some(value), Some(lower), Some(upper)) => {
                    value.order(lower).is_some_and(Ordering::is_ge)
                        && value.order(upper).is_some_and(Ordering::is_le)
                }
                _ => false,
            },
            Operator::In => operand(0).is_some_and(|value| {
                operands[1..]
                    .iter()
                    .any(|other| self.operand(*other).is_some_and(|other| value.equals(other)))
            }),
            Operator::AttributeExists => operand(0).is_some(),
            Operator::AttributeNotExists => operand(0).is_none(),
            Operator::AttributeType => match (operand(0), operand(1)) {
                (Some(value), Some(Operand::View(ValueView::S(name)))) => value.type_name() == name,
                _ => false,
            },
            Operator::BeginsWith => match (operand(0), operand(1)) {
                (Some(value), Some(prefix)) => value.begins_with(prefix),
                _ => false,
            },
            Operator::Contains => match (operand(0), operand(1)) {
                (Some(value), Some(part)) => value.contains(part),
                _ => false,
            },
            Operator::And
            | Operator::Or
            | Operator::Not
            | Operator::Size
            | Operator::Add
            | Operator::Subtract
            | Operator::IfNotExists
            | Operator::ListAppend => {
                unreachable!("the caller has the first, the parser refuses the others as conditions")
            }
        }
    }
}
