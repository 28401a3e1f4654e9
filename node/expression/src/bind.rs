//! Puts a request's names and values in a tree's slots and checks them together, in DynamoDB's order.
//!
//! Nodes are checked as they lie, operands before operators and left before right: each placeholder is defined and each path
//! is not too deep; then each operator's number of operands, their types where they are known, that a first operand does not
//! come again, what the operator itself wants, and that there are not too many operators.

use std::ops::Range;

use cairn_item::Value;

use crate::error::{ExpressionError, Parameter, Problem, Span};
use crate::placeholder::{Names, PLACEHOLDER_BYTES_MAX, Values};
use crate::tree::{Node, NodeId, Operator, PathId, Step, Tree, Types};

/// Most operators and functions of an expression.
pub const OPERATORS_MAX: usize = 300;
/// Most steps of a document path.
pub const PATH_STEPS_MAX: usize = 32;
/// Most operands of IN, without the one before it.
pub const IN_OPERANDS_MAX: usize = 100;

/// Every type, in the order and with the names of DynamoDB's own list.
const ALL_TYPES: &str =
    "{S,HDS,N,FS,BS,NULL,DOUBLE,NS,DECIMAL,SS,DECIMALSET,BOOL,HD,DICT,INTSET,M,L,B,FLOAT,INT,DOUBLESET}";
const TYPE_NAMES: [&str; 10] = ["N", "BS", "L", "B", "NULL", "M", "S", "SS", "NS", "BOOL"];

/// A step of a path with its placeholder resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place<'a> {
    Name(&'a str),
    Index(u32),
}

/// A tree with the names and values of one request.
#[derive(Debug, Clone)]
pub(crate) struct Bound<'a> {
    pub(crate) tree: &'a Tree,
    names: Vec<Option<&'a str>>,
    values: Vec<Option<&'a Value>>,
}

impl<'a> Bound<'a> {
    pub(crate) fn new(tree: &'a Tree, names: &'a Names, values: Option<&'a Values>) -> Bound<'a> {
        Bound {
            tree,
            names: tree.names.iter().map(|name| names.use_of(name)).collect(),
            values: tree.values.iter().map(|value| values?.use_of(value)).collect(),
        }
    }

    /// The value of a slot that was checked.
    pub(crate) fn value(&self, slot: u16) -> &'a Value {
        self.values[usize::from(slot)].expect("binding has checked that every value is defined")
    }

    pub(crate) fn node(&self, node: NodeId) -> Node {
        self.tree.nodes[usize::from(node)]
    }

    /// The steps of a path that was checked.
    pub(crate) fn places(&self, path: PathId) -> impl ExactSizeIterator<Item = Place<'a>> + Clone + '_ {
        self.tree.path(path).iter().map(|step| match step {
            Step::Name(name) => Place::Name(name),
            Step::Placeholder(slot) => Place::Name(
                self.names[usize::from(*slot)].expect("binding has checked that every name is defined"),
            ),
            Step::Index(index) => Place::Index(*index),
        })
    }

    /// The attribute that a path begins with.
    pub(crate) fn head(&self, path: PathId) -> &'a str {
        match self.places(path).next() {
            Some(Place::Name(name)) => name,
            _ => unreachable!("paths begin with a name"),
        }
    }

    /// A path as DynamoDB prints it: `[a, [0], b]`.
    pub(crate) fn path_text(&self, path: PathId) -> String {
        places_text(self.places(path))
    }
}

pub(crate) fn places_text<'a>(places: impl Iterator<Item = Place<'a>>) -> String {
    let steps: Vec<String> = places
        .map(|place| match place {
            Place::Name(name) => name.to_owned(),
            Place::Index(index) => format!("[{index}]"),
        })
        .collect();
    format!("[{}]", steps.join(", "))
}

/// Checks the parts of one expression and counts what has a limit.
pub(crate) struct Checker<'b, 'a> {
    parameter: Parameter,
    pub(crate) bound: &'b Bound<'a>,
    operators: usize,
    /// Of the text, and of every use of a name or value.
    bytes: usize,
}

impl<'b, 'a> Checker<'b, 'a> {
    pub(crate) fn new(parameter: Parameter, bound: &'b Bound<'a>) -> Checker<'b, 'a> {
        Checker {
            parameter,
            bound,
            operators: 0,
            bytes: bound.tree.text_bytes,
        }
    }

    fn error<T>(&self, problem: Problem, span: Span) -> Result<T, ExpressionError> {
        Err(ExpressionError::at(self.parameter, problem, span))
    }

    pub(crate) fn path(&mut self, path: PathId) -> Result<(), ExpressionError> {
        let tree = self.bound.tree;
        let span = tree.path_spans[usize::from(path)];
        let steps = tree.path(path);
        if steps.len() > PATH_STEPS_MAX {
            return self.error(Problem::PathTooDeep(steps.len()), span);
        }
        for step in steps {
            let Step::Placeholder(slot) = step else { continue };
            let placeholder = &tree.names[usize::from(*slot)];
            match self.bound.names[usize::from(*slot)] {
                _ if placeholder.starts_with(':') => {
                    return self.error(Problem::ValueInPath(placeholder.to_string()), span);
                }
                Some(name) => self.bytes += name.len(),
                None => return self.error(Problem::UndefinedName(placeholder.to_string()), span),
            }
        }
        Ok(())
    }

    pub(crate) fn nodes(&mut self, nodes: Range<usize>) -> Result<(), ExpressionError> {
        let tree = self.bound.tree;
        for index in nodes {
            let span = tree.spans[index];
            match tree.nodes[index] {
                Node::Path(path) => self.path(path)?,
                Node::Value(slot) => match self.bound.values[usize::from(slot)] {
                    Some(value) => self.bytes += value.size(),
                    None => {
                        let value = tree.values[usize::from(slot)].to_string();
                        return self.error(Problem::UndefinedValue(value), span);
                    }
                },
                Node::Operator {
                    operator,
                    first,
                    count,
                } => {
                    if let Err(problem) = self.operator(operator, tree.operands(first, count)) {
                        return self.error(problem, span);
                    }
                    self.operators += 1;
                    if self.operators > OPERATORS_MAX {
                        return self.error(Problem::TooManyOperators(self.operators), span);
                    }
                }
            }
        }
        Ok(())
    }

    /// The last check of an expression.
    pub(crate) fn finish(self) -> Result<(), ExpressionError> {
        if self.bytes > PLACEHOLDER_BYTES_MAX {
            return Err(ExpressionError::of(self.parameter, Problem::TooLong));
        }
        Ok(())
    }

    fn operator(&self, operator: Operator, operands: &[NodeId]) -> Result<(), Problem> {
        let (name, count) = (operator.name(), operands.len());
        if operator != Operator::In && count != operator.operand_count() {
            return Err(Problem::OperandCount {
                operator: name,
                count,
            });
        }
        for operand in operands {
            let (types, found) = self.types(*operand);
            if !operator.operand_types().meets(types) {
                return Err(Problem::OperandType {
                    operator: name,
                    found,
                });
            }
        }
        if operator.wants_distinct()
            && let Node::Path(first) = self.bound.node(operands[0])
        {
            for operand in &operands[1..] {
                if let Node::Path(later) = self.bound.node(*operand)
                    && self.bound.places(first).eq(self.bound.places(later))
                {
                    let operand = self.bound.path_text(first);
                    return Err(Problem::RepeatedOperand {
                        operator: name,
                        operand,
                    });
                }
            }
        }
        match operator {
            Operator::AttributeExists | Operator::AttributeNotExists | Operator::IfNotExists => {
                match self.bound.node(operands[0]) {
                    Node::Path(_) => Ok(()),
                    _ => Err(Problem::PathRequired(name)),
                }
            }
            Operator::AttributeType => match self.constant(operands[1]) {
                Some(Value::S(text)) if TYPE_NAMES.contains(&text.as_str()) => Ok(()),
                Some(Value::S(text)) => Err(Problem::TypeName(text.clone())),
                _ => Err(Problem::OperandType {
                    operator: name,
                    found: self.types(operands[1]).1,
                }),
            },
            Operator::Between => match (self.constant(operands[1]), self.constant(operands[2])) {
                (Some(lower), Some(upper)) => check_between(lower, upper),
                _ => Ok(()),
            },
            Operator::In if count > IN_OPERANDS_MAX + 1 => Err(Problem::TooManyInOperands(count - 1)),
            _ => Ok(()),
        }
    }

    fn constant(&self, node: NodeId) -> Option<&'a Value> {
        match self.bound.node(node) {
            Node::Value(slot) => Some(self.bound.value(slot)),
            _ => None,
        }
    }

    /// The types that a node can have, and their name.
    fn types(&self, node: NodeId) -> (Types, &'static str) {
        match self.bound.node(node) {
            Node::Path(_) => (Types::ALL, ALL_TYPES),
            Node::Value(slot) => {
                let value = self.bound.value(slot);
                (Types::of(value), value.type_name())
            }
            Node::Operator { operator, .. } => {
                let types = operator.result_types();
                let name = match types {
                    Types::NUMBER => "N",
                    Types::LIST => "L",
                    Types::BOOL => "BOOL",
                    _ => ALL_TYPES,
                };
                (types, name)
            }
        }
    }
}

/// Checks the bounds of BETWEEN where both are in the request.
pub(crate) fn check_between(lower: &Value, upper: &Value) -> Result<(), Problem> {
    let reversed = match (lower, upper) {
        (Value::S(lower), Value::S(upper)) => lower > upper,
        (Value::N(lower), Value::N(upper)) => lower > upper,
        (Value::B(lower), Value::B(upper)) => lower > upper,
        _ => {
            return Err(Problem::BetweenTypes {
                lower: operand_text(lower),
                upper: operand_text(upper),
            });
        }
    };
    if reversed {
        return Err(Problem::BetweenReversed {
            lower: operand_text(lower),
            upper: operand_text(upper),
        });
    }
    Ok(())
}

/// A string, number or binary as DynamoDB prints an operand: `{S:abc}`.
fn operand_text(value: &Value) -> String {
    match value {
        Value::S(text) => format!("{{S:{text}}}"),
        Value::N(number) => format!("{{N:{number}}}"),
        Value::B(bytes) => {
            let mut text = Vec::new();
            cairn_item::json::write_base64(&mut text, bytes);
            format!("{{B:{}}}", String::from_utf8_lossy(&text))
        }
        other => format!("{{{}}}", other.type_name()),
    }
}
