//! What the parser makes of an expression's text.
//!
//! - Nodes lie in one row, operands before their operator, from left to right: the order in which DynamoDB checks them. The
//!   last node of an expression is its root. Nothing is boxed, so deep nesting costs no stack to build, compare or drop.
//! - Placeholders are slots: the tree depends on the text alone and serves every request that sends the same text.

use std::fmt;

use cairn_item::{Value, ValueView};

use crate::error::Span;

/// Index into [`Tree::nodes`].
pub(crate) type NodeId = u16;
/// Index into [`Tree::paths`].
pub(crate) type PathId = u16;
/// Index into [`Tree::names`] or [`Tree::values`].
pub(crate) type Slot = u16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// An attribute named in the text.
    Name(Box<str>),
    /// An attribute named by a placeholder.
    Placeholder(Slot),
    /// An element of a list.
    Index(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Path(PathId),
    Value(Slot),
    /// Its operands are `operands[first..first + count]` of the tree.
    Operator {
        operator: Operator,
        first: u16,
        count: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Between,
    In,
    AttributeExists,
    AttributeNotExists,
    AttributeType,
    BeginsWith,
    Contains,
    Size,
    Not,
    And,
    Or,
    Add,
    Subtract,
    IfNotExists,
    ListAppend,
}

impl Operator {
    /// As DynamoDB writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operator::Equal => "=",
            Operator::NotEqual => "<>",
            Operator::Less => "<",
            Operator::LessOrEqual => "<=",
            Operator::Greater => ">",
            Operator::GreaterOrEqual => ">=",
            Operator::Between => "BETWEEN",
            Operator::In => "IN",
            Operator::AttributeExists => "attribute_exists",
            Operator::AttributeNotExists => "attribute_not_exists",
            Operator::AttributeType => "attribute_type",
            Operator::BeginsWith => "begins_with",
            Operator::Contains => "contains",
            Operator::Size => "size",
            Operator::Not => "NOT",
            Operator::And => "AND",
            Operator::Or => "OR",
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::IfNotExists => "if_not_exists",
            Operator::ListAppend => "list_append",
        }
    }

    /// The function of this name.
    pub(crate) fn function(name: &str) -> Option<Operator> {
        [
            Operator::AttributeExists,
            Operator::AttributeNotExists,
            Operator::AttributeType,
            Operator::BeginsWith,
            Operator::Contains,
            Operator::Size,
            Operator::IfNotExists,
            Operator::ListAppend,
        ]
        .into_iter()
        .find(|operator| operator.name() == name)
    }

    /// Whether a function computes a value that an update can store.
    pub(crate) fn is_value_function(self) -> bool {
        matches!(self, Operator::IfNotExists | Operator::ListAppend)
    }

    /// How many operands it takes; [`Operator::In`] takes any number above it too.
    pub(crate) fn operand_count(self) -> usize {
        match self {
            Operator::Not
            | Operator::In
            | Operator::Size
            | Operator::AttributeExists
            | Operator::AttributeNotExists => 1,
            Operator::Between => 3,
            _ => 2,
        }
    }

    /// Types of value it works on. A stored value of another type makes a condition false and an update fail.
    pub(crate) fn operand_types(self) -> Types {
        match self {
            Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual
            | Operator::Between => Types::ORDERED,
            Operator::BeginsWith => Types::STRING_OR_BINARY,
            Operator::Size => Types::SIZED,
            Operator::Not | Operator::And | Operator::Or => Types::BOOL,
            Operator::Add | Operator::Subtract => Types::NUMBER,
            Operator::ListAppend => Types::LIST,
            _ => Types::ALL,
        }
    }

    /// Types of value it may result in.
    pub(crate) fn result_types(self) -> Types {
        match self {
            Operator::Size | Operator::Add | Operator::Subtract => Types::NUMBER,
            Operator::ListAppend => Types::LIST,
            Operator::IfNotExists => Types::ALL,
            _ => Types::BOOL,
        }
    }

    /// Whether its first operand may not come again among the others.
    pub(crate) fn wants_distinct(self) -> bool {
        !matches!(
            self,
            Operator::Not
                | Operator::And
                | Operator::Or
                | Operator::Add
                | Operator::Subtract
                | Operator::ListAppend
        )
    }
}

/// A set of types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Types(u16);

impl Types {
    const S: u16 = 1;
    const N: u16 = 2;
    const B: u16 = 4;
    const L: u16 = 8;
    const M: u16 = 16;
    const SETS: u16 = 32;
    const BOOLEAN: u16 = 64;
    const NULL: u16 = 128;

    pub(crate) const ALL: Types = Types(255);
    pub(crate) const ORDERED: Types = Types(Types::S | Types::N | Types::B);
    pub(crate) const STRING_OR_BINARY: Types = Types(Types::S | Types::B);
    pub(crate) const SIZED: Types = Types(Types::S | Types::B | Types::L | Types::M | Types::SETS);
    pub(crate) const BOOL: Types = Types(Types::BOOLEAN);
    pub(crate) const NUMBER: Types = Types(Types::N);
    pub(crate) const LIST: Types = Types(Types::L);
    pub(crate) const NUMBER_OR_SET: Types = Types(Types::N | Types::SETS);
    pub(crate) const SET: Types = Types(Types::SETS);

    pub(crate) fn of(value: &Value) -> Types {
        Types(match value {
            Value::S(_) => Types::S,
            Value::N(_) => Types::N,
            Value::B(_) => Types::B,
            Value::Bool(_) => Types::BOOLEAN,
            Value::Null => Types::NULL,
            Value::Ss(_) | Value::Ns(_) | Value::Bs(_) => Types::SETS,
            Value::L(_) => Types::L,
            Value::M(_) => Types::M,
        })
    }

    pub(crate) fn of_view(value: ValueView<'_>) -> Types {
        Types(match value {
            ValueView::S(_) => Types::S,
            ValueView::N(_) => Types::N,
            ValueView::B(_) => Types::B,
            ValueView::Bool(_) => Types::BOOLEAN,
            ValueView::Null => Types::NULL,
            ValueView::Ss(_) | ValueView::Ns(_) | ValueView::Bs(_) => Types::SETS,
            ValueView::L(_) => Types::L,
            ValueView::M(_) => Types::M,
        })
    }

    /// Whether the two have a type in common.
    pub(crate) fn meets(self, other: Types) -> bool {
        self.0 & other.0 != 0
    }
}

/// A parsed expression. Two are equal when they mean the same, wherever in the text it stood.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// Placeholders of names, with their `#`, in the order of their first use.
    pub(crate) names: Vec<Box<str>>,
    /// Placeholders of values, with their `:`, in the order of their first use.
    pub(crate) values: Vec<Box<str>>,
    pub(crate) paths: Vec<Box<[Step]>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) operands: Vec<NodeId>,
    /// Where each node stood in the text.
    pub(crate) spans: Vec<Span>,
    /// Where each path stood in the text.
    pub(crate) path_spans: Vec<Span>,
    /// Length of the text.
    pub(crate) text_bytes: usize,
}

impl PartialEq for Tree {
    fn eq(&self, other: &Tree) -> bool {
        self.names == other.names
            && self.values == other.values
            && self.paths == other.paths
            && self.nodes == other.nodes
            && self.operands == other.operands
    }
}

impl Eq for Tree {}

impl Tree {
    /// The root of an expression that is the whole tree.
    pub(crate) fn root(&self) -> NodeId {
        index(self.nodes.len() - 1)
    }

    pub(crate) fn operands(&self, first: u16, count: u16) -> &[NodeId] {
        &self.operands[usize::from(first)..usize::from(first) + usize::from(count)]
    }

    pub(crate) fn path(&self, path: PathId) -> &[Step] {
        &self.paths[usize::from(path)]
    }

    pub(crate) fn add_path(&mut self, steps: Vec<Step>, span: Span) -> PathId {
        self.paths.push(steps.into_boxed_slice());
        self.path_spans.push(span);
        index(self.paths.len() - 1)
    }

    pub(crate) fn add_node(&mut self, node: Node, span: Span) -> NodeId {
        self.nodes.push(node);
        self.spans.push(span);
        index(self.nodes.len() - 1)
    }

    pub(crate) fn add_operator(&mut self, operator: Operator, operands: &[NodeId], span: Span) -> NodeId {
        let first = index(self.operands.len());
        self.operands.extend_from_slice(operands);
        self.add_node(
            Node::Operator {
                operator,
                first,
                count: index(operands.len()),
            },
            span,
        )
    }

    pub(crate) fn name_slot(&mut self, placeholder: &str) -> Slot {
        slot(&mut self.names, placeholder)
    }

    pub(crate) fn value_slot(&mut self, placeholder: &str) -> Slot {
        slot(&mut self.values, placeholder)
    }

    /// The slot of a placeholder that is not there yet.
    pub(crate) fn add_value(&mut self, placeholder: &str) -> Slot {
        self.values.push(placeholder.into());
        index(self.values.len() - 1)
    }

    pub(crate) fn write_path(&self, out: &mut dyn fmt::Write, path: PathId) -> fmt::Result {
        for (position, step) in self.path(path).iter().enumerate() {
            match step {
                Step::Index(index) => write!(out, "[{index}]")?,
                Step::Name(_) | Step::Placeholder(_) => {
                    if position > 0 {
                        out.write_char('.')?;
                    }
                    out.write_str(match step {
                        Step::Placeholder(slot) => &self.names[usize::from(*slot)],
                        Step::Name(name) => name,
                        Step::Index(_) => "",
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Writes the expression whose root is `root`, with no more parentheses than it needs.
    ///
    /// Pieces still to be written wait on a stack of their own, so depth costs no call stack.
    pub(crate) fn write(&self, out: &mut dyn fmt::Write, root: NodeId) -> fmt::Result {
        enum Piece {
            Text(&'static str),
            Node(NodeId),
        }
        let mut pieces = vec![Piece::Node(root)];
        while let Some(piece) = pieces.pop() {
            let node = match piece {
                Piece::Text(text) => {
                    out.write_str(text)?;
                    continue;
                }
                Piece::Node(node) => self.nodes[usize::from(node)],
            };
            let (operator, operands) = match node {
                Node::Path(path) => {
                    self.write_path(out, path)?;
                    continue;
                }
                Node::Value(slot) => {
                    out.write_str(&self.values[usize::from(slot)])?;
                    continue;
                }
                Node::Operator {
                    operator,
                    first,
                    count,
                } => (operator, self.operands(first, count)),
            };
            // In reverse, for the stack.
            let infix = |pieces: &mut Vec<Piece>, between: &[&'static str], wrap: &dyn Fn(usize) -> bool| {
                for (position, operand) in operands.iter().enumerate().rev() {
                    let wrapped = wrap(position);
                    if wrapped {
                        pieces.push(Piece::Text(")"));
                    }
                    pieces.push(Piece::Node(*operand));
                    if wrapped {
                        pieces.push(Piece::Text("("));
                    }
                    if position > 0 {
                        pieces.push(Piece::Text(between[(position - 1).min(between.len() - 1)]));
                    }
                }
            };
            let binding = |node: NodeId| match self.nodes[usize::from(node)] {
                Node::Operator {
                    operator: Operator::Or,
                    ..
                } => 1,
                Node::Operator {
                    operator: Operator::And,
                    ..
                } => 2,
                _ => 3,
            };
            match operator {
                Operator::Equal => infix(&mut pieces, &[" = "], &|_| false),
                Operator::NotEqual => infix(&mut pieces, &[" <> "], &|_| false),
                Operator::Less => infix(&mut pieces, &[" < "], &|_| false),
                Operator::LessOrEqual => infix(&mut pieces, &[" <= "], &|_| false),
                Operator::Greater => infix(&mut pieces, &[" > "], &|_| false),
                Operator::GreaterOrEqual => infix(&mut pieces, &[" >= "], &|_| false),
                Operator::Add => infix(&mut pieces, &[" + "], &|_| false),
                Operator::Subtract => infix(&mut pieces, &[" - "], &|_| false),
                Operator::Between => infix(&mut pieces, &[" BETWEEN ", " AND "], &|_| false),
                Operator::And => infix(&mut pieces, &[" AND "], &|position| {
                    binding(operands[position]) < if position == 0 { 2 } else { 3 }
                }),
                Operator::Or => infix(&mut pieces, &[" OR "], &|position| {
                    binding(operands[position]) < if position == 0 { 1 } else { 2 }
                }),
                Operator::Not => {
                    infix(&mut pieces, &[""], &|position| binding(operands[position]) < 3);
                    pieces.push(Piece::Text("NOT "));
                }
                Operator::In => {
                    pieces.push(Piece::Text(")"));
                    infix(&mut pieces, &[" IN (", ", "], &|_| false);
                }
                _ => {
                    pieces.push(Piece::Text(")"));
                    infix(&mut pieces, &[", "], &|_| false);
                    pieces.push(Piece::Text("("));
                    pieces.push(Piece::Text(operator.name()));
                }
            }
        }
        Ok(())
    }
}

fn slot(slots: &mut Vec<Box<str>>, placeholder: &str) -> Slot {
    let position = slots
        .iter()
        .position(|slot| **slot == *placeholder)
        .unwrap_or_else(|| {
            slots.push(placeholder.into());
            slots.len() - 1
        });
    index(position)
}

fn index(index: usize) -> u16 {
    u16::try_from(index)
        .expect("an expression of 4 KB has fewer parts than that, and the legacy parameters are limited")
}
