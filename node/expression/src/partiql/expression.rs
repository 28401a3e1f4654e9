//! The WHERE clause, and the values of SET.
//!
//! A Pratt parser: [`Parser::term`] reads what begins an expression, [`Parser::expression`] the operators that bind at least
//! as strongly as asked for. What it makes are the nodes that expressions are made of, so binding checks them and evaluation
//! means the same; what PartiQL writes in another way is written in that one:
//! - `x IS MISSING` is `attribute_not_exists(x)`, `x IS NULL` is `attribute_type(x, 'NULL')`;
//! - `x NOT IN [..]` is `NOT x IN (..)`;
//! - a condition compared with `TRUE` or `FALSE` is the condition or its negation.
//!
//! Runs of NOT and chains of operators are loops; only what is in parentheses or a call nests.

use cairn_item::Value;

use super::Operand;
use super::lexer::Kind;
use super::parser::{Parsed, Parser};
use crate::error::Span;
use crate::tree::{Node, NodeId, Operator};

const NOT_BOOLEAN: &str = "WHERE clause must contain an expression that resolves to a boolean";
const NOT_EXPRESSIONS: &str = "The arguments to AND/OR must be Expressions";
const IN_WITHOUT_LIST: &str = "IN operator must have a left hand argument of type Variable Reference and right hand \
     argument of type Seq with at least one member";
const MISSING_COMPARED: &str = "MISSING must be compared using IS operator";
const NO_RIGHT_HAND: &str = "Missing right-hand side expression of infix operator";
pub(super) const UNSUPPORTED_TOKEN: &str = "Unsupported token in expression";

/// How strongly operators bind.
mod binding {
    pub(super) const OR: u8 = 1;
    pub(super) const AND: u8 = 2;
    pub(super) const NOT: u8 = 3;
    pub(super) const COMPARISON: u8 = 4;
    pub(super) const SUM: u8 = 5;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A path, a literal, a parameter, or the size of one.
    Operand,
    /// `TRUE` or `FALSE`, which is no node yet: compared with a condition it never is.
    Truth(bool),
    Condition,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    node: NodeId,
    span: Span,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Infix {
    Or,
    And,
    Compare(Operator),
    In {
        negated: bool,
    },
    Between {
        negated: bool,
    },
    Is,
    /// One that conditions do not have.
    Unsupported,
}

impl Infix {
    fn binding(self) -> u8 {
        match self {
            Infix::Or => binding::OR,
            Infix::And => binding::AND,
            Infix::Unsupported => binding::SUM,
            _ => binding::COMPARISON,
        }
    }
}

impl Parser<'_> {
    /// What follows WHERE.
    pub(super) fn condition(&mut self) -> Parsed<NodeId> {
        let part = self.nested(|parser| parser.expression(binding::OR))?;
        if part.shape != Shape::Condition {
            self.note(NOT_BOOLEAN, part.span);
        }
        Ok(self.settled(part).node)
    }

    fn expression(&mut self, least: u8) -> Parsed<Part> {
        let mut left = self.term()?;
        while let Some(infix) = self.infix() {
            if infix.binding() < least {
                break;
            }
            left = self.after(left, infix)?;
        }
        Ok(left)
    }

    /// The operator that stands here.
    fn infix(&self) -> Option<Infix> {
        if self.token().kind == Kind::Symbol {
            return Some(match self.shown() {
                "=" => Infix::Compare(Operator::Equal),
                "<>" | "!=" => Infix::Compare(Operator::NotEqual),
                "<" => Infix::Compare(Operator::Less),
                "<=" => Infix::Compare(Operator::LessOrEqual),
                ">" => Infix::Compare(Operator::Greater),
                ">=" => Infix::Compare(Operator::GreaterOrEqual),
                "+" | "-" | "*" | "/" | "%" | "||" => Infix::Unsupported,
                _ => return None,
            });
        }
        let negated = self.is_word("NOT");
        let is = |word: &str| {
            if negated {
                self.is_word_then(word)
            } else {
                self.is_word(word)
            }
        };
        if is("IN") {
            Some(Infix::In { negated })
        } else if is("BETWEEN") {
            Some(Infix::Between { negated })
        } else if is("LIKE") {
            Some(Infix::Unsupported)
        } else if negated {
            None
        } else if is("OR") {
            Some(Infix::Or)
        } else if is("AND") {
            Some(Infix::And)
        } else if is("IS") {
            Some(Infix::Is)
        } else {
            None
        }
    }

    /// Reads an operator and what follows it.
    fn after(&mut self, left: Part, infix: Infix) -> Parsed<Part> {
        if self.is_word("NOT") {
            self.advance();
        }
        let operator = self.advance();
        match infix {
            Infix::Or | Infix::And => {
                let (operator, least) = if infix == Infix::Or {
                    (Operator::Or, binding::AND)
                } else {
                    (Operator::And, binding::NOT)
                };
                let right = self.right(least)?;
                for part in [left, right] {
                    self.check_logical(part);
                }
                Ok(self.condition_of(operator, &[left, right]))
            }
            Infix::Compare(operator) => {
                let right = self.right(binding::SUM)?;
                Ok(self.comparison(operator, left, right))
            }
            Infix::In { negated } => {
                let mut operands = vec![left];
                self.in_list(&mut operands)?;
                let part = self.checked(Operator::In, &operands);
                Ok(self.negated(part, negated))
            }
            Infix::Between { negated } => {
                let lower = self.right(binding::SUM)?;
                self.expect_word("AND", "Expected AND keyword")?;
                if self.at_end() {
                    return Err(self.syntax("Expected expression after AND"));
                }
                let upper = self.expression(binding::SUM)?;
                let part = self.checked(Operator::Between, &[left, lower, upper]);
                Ok(self.negated(part, negated))
            }
            Infix::Is => self.is_type(left),
            Infix::Unsupported => {
                let shown = operator.span.of(self.text).to_ascii_lowercase();
                let message = format!("Unsupported operator in Condition Expression. Operator: {shown}");
                self.note(message, operator.span);
                self.right(binding::SUM + 1)
            }
        }
    }

    fn right(&mut self, least: u8) -> Parsed<Part> {
        if self.at_end() {
            return Err(self.syntax(NO_RIGHT_HAND));
        }
        self.expression(least)
    }

    /// The part, as a node of the tree.
    fn settled(&mut self, part: Part) -> Part {
        let Shape::Truth(truth) = part.shape else {
            return part;
        };
        Part {
            node: self.add_operand(Operand::Literal(Value::Bool(truth)), part.span),
            shape: Shape::Operand,
            ..part
        }
    }

    /// What AND, OR or NOT is about must be a condition; of a size that is said when its type is checked.
    fn check_logical(&mut self, part: Part) {
        let size = matches!(
            self.tree.nodes.get(usize::from(part.node)),
            Some(Node::Operator {
                operator: Operator::Size,
                ..
            })
        );
        if part.shape != Shape::Condition && !size {
            self.note(NOT_EXPRESSIONS, part.span);
        }
    }

    fn comparison(&mut self, operator: Operator, left: Part, right: Part) -> Part {
        let (condition, truth) = match (left.shape, right.shape) {
            (Shape::Condition, Shape::Truth(truth)) => (left, truth),
            (Shape::Truth(truth), Shape::Condition) => (right, truth),
            _ => return self.checked(operator, &[left, right]),
        };
        let condition = Part {
            span: left.span.to(right.span),
            ..condition
        };
        match operator {
            Operator::Equal => self.negated(condition, !truth),
            Operator::NotEqual => self.negated(condition, truth),
            _ => self.checked(operator, &[left, right]),
        }
    }

    /// An operator whose operands may not be conditions.
    fn checked(&mut self, operator: Operator, operands: &[Part]) -> Part {
        if let Some(part) = operands.iter().find(|part| part.shape == Shape::Condition) {
            let name = operator.name();
            let message = format!(
                "Incorrect operand type for operator or function; operator or function: {name}, operand type: BOOL"
            );
            self.note(message, part.span);
        }
        self.condition_of(operator, operands)
    }

    fn condition_of(&mut self, operator: Operator, operands: &[Part]) -> Part {
        let (first, last) = (operands[0], operands[operands.len() - 1]);
        let span = first.span.to(last.span);
        let nodes: Vec<NodeId> = operands.iter().map(|part| self.settled(*part).node).collect();
        Part {
            node: self.tree.add_operator(operator, &nodes, span),
            span,
            shape: Shape::Condition,
        }
    }

    fn negated(&mut self, part: Part, negated: bool) -> Part {
        if !negated {
            return part;
        }
        let part = self.settled(part);
        Part {
            node: self.tree.add_operator(Operator::Not, &[part.node], part.span),
            shape: Shape::Condition,
            ..part
        }
    }

    /// The operands of IN, in brackets or parentheses.
    fn in_list(&mut self, operands: &mut Vec<Part>) -> Parsed<()> {
        let open = self.span();
        let (close, detail) = match self.shown() {
            "(" => (")", "Expected RIGHT_PAREN"),
            "[" => ("]", "Expected RIGHT_BRACKET"),
            _ => {
                self.right(binding::SUM)?;
                self.note(IN_WITHOUT_LIST, open);
                return Ok(());
            }
        };
        self.advance();
        while !self.is(close) {
            let part = self.nested(|parser| parser.expression(binding::SUM))?;
            operands.push(part);
            if !self.take(",") {
                break;
            }
        }
        let end = self.expect(close, detail)?.span;
        if operands.len() == 1 {
            self.note(IN_WITHOUT_LIST, open.to(end));
        }
        Ok(())
    }

    /// The rest of `x IS [NOT] type`.
    fn is_type(&mut self, left: Part) -> Parsed<Part> {
        let left = self.settled(left);
        let negated = self.take_word("NOT");
        let span = left.span.to(self.span());
        let name = self.shown().to_ascii_uppercase();
        if self.token().kind != Kind::Word {
            return Err(self.syntax("Expected type name"));
        }
        let simple = !matches!(self.tree.nodes[usize::from(left.node)], Node::Operator { .. });
        if !simple {
            let message = "The left hand side argument to IS must be a Variable Reference, Literal, or Path";
            self.note(message, left.span);
        }
        let stored = match name.as_str() {
            "MISSING" => {
                self.advance();
                let exists = if negated {
                    Operator::AttributeExists
                } else {
                    Operator::AttributeNotExists
                };
                return Ok(Part {
                    node: self.tree.add_operator(exists, &[left.node], span),
                    span,
                    shape: Shape::Condition,
                });
            }
            "NULL" => "NULL",
            "BOOL" | "BOOLEAN" => "BOOL",
            "BLOB" => "B",
            "STRING" => "S",
            "NUMERIC" => "N",
            "STRUCT" | "TUPLE" => "M",
            "LIST" => "L",
            _ => {
                let Some(known) = unsupported_type(&name) else {
                    return Err(self.syntax("Expected type name"));
                };
                let message = format!(
                    "Unsupported data type for IS operator: {known}. Supported data types are [MISSING, NULL, \
                     BOOLEAN, BLOB, STRING, NUMERIC, STRUCT, TUPLE, LIST]"
                );
                self.note_at(&message, left.span);
                "NULL"
            }
        };
        self.advance();
        let stored = self.add_text(stored, span);
        let part = Part {
            node: self
                .tree
                .add_operator(Operator::AttributeType, &[left.node, stored], span),
            span,
            shape: Shape::Condition,
        };
        Ok(self.negated(part, negated))
    }

    /// What begins an expression.
    fn term(&mut self) -> Parsed<Part> {
        let mut negations = 0_usize;
        let start = self.span();
        while self.take_word("NOT") {
            negations += 1;
        }
        if negations > 0 {
            let mut part = self.nested(|parser| parser.expression(binding::NOT))?;
            self.check_logical(part);
            part.span = start.to(part.span);
            for _ in 0..negations {
                part = self.negated(part, true);
            }
            return Ok(part);
        }
        if self.take("(") {
            let part = self.nested(|parser| parser.expression(binding::OR))?;
            let end = self.expect(")", "Expected RIGHT_PAREN")?.span;
            return Ok(Part {
                span: start.to(end),
                ..part
            });
        }
        if self.is_operand() {
            let (operand, span) = self.operand()?;
            let (node, shape) = match operand {
                Operand::Literal(Value::Bool(truth)) => (NodeId::MAX, Shape::Truth(truth)),
                operand => (self.add_operand(operand, span), Shape::Operand),
            };
            return Ok(Part { node, span, shape });
        }
        if self.is("-") || self.is("+") {
            let sign = self.advance().span.of(self.text);
            let message = format!("Unsupported operator in Condition Expression. Operator: {sign}");
            self.note(message, start);
            return self.nested(|parser| parser.expression(binding::SUM));
        }
        if self.is_word("MISSING") {
            self.advance();
            self.note(MISSING_COMPARED, start);
            return Ok(Part {
                node: self.add_text("", start),
                span: start,
                shape: Shape::Operand,
            });
        }
        if self.is_word("CASE") || self.is_word("SELECT") {
            let word = self.shown().to_ascii_uppercase();
            return Err(self.refused_at(&format!("{UNSUPPORTED_TOKEN}: {word}"), start));
        }
        if self.is_then("(") && (self.is_name() || self.is_word("EXISTS")) {
            return self.call();
        }
        let (path, span) = self.path()?;
        Ok(Part {
            node: self.tree.add_node(Node::Path(path), span),
            span,
            shape: Shape::Operand,
        })
    }

    /// A call of a function.
    fn call(&mut self) -> Parsed<Part> {
        let name = self.advance().span;
        let shown = name.of(self.text).trim_matches('"').to_ascii_lowercase();
        self.advance();
        if self.is_word("SELECT") {
            return Err(self.refused_at(&format!("{UNSUPPORTED_TOKEN}: SELECT"), self.span()));
        }
        let mut operands = Vec::new();
        while !self.is(")") {
            let part = self.nested(|parser| parser.expression(binding::OR))?;
            operands.push(part);
            if !self.take(",") {
                break;
            }
        }
        let end = self.expect(")", "Expected RIGHT_PAREN")?.span;
        let operator = match Operator::function(&shown) {
            Some(operator) if !operator.is_value_function() => operator,
            _ => {
                self.note_at(&format!("Unrecognized function: {shown}"), name);
                Operator::Size
            }
        };
        let span = name.to(end);
        if operands.is_empty() {
            let message = format!(
                "Incorrect number of operands for operator or function; operator or function: {}, number of operands: 0",
                operator.name()
            );
            self.note(message, span);
            operands.push(Part {
                node: self.add_text("", span),
                span,
                shape: Shape::Operand,
            });
        }
        let part = self.checked(operator, &operands);
        let shape = if operator == Operator::Size {
            Shape::Operand
        } else {
            Shape::Condition
        };
        Ok(Part { span, shape, ..part })
    }

    /// The value of SET.
    pub(super) fn set_value(&mut self) -> Parsed<NodeId> {
        let mut left = self.nested(Self::set_operand)?;
        while let Some(operator) = self.sum_operator() {
            let token = self.advance();
            if self.at_end() {
                return Err(self.syntax(NO_RIGHT_HAND));
            }
            let right = self.nested(Self::set_operand)?;
            let simple = |node: NodeId| match self.tree.nodes[usize::from(node)] {
                Node::Operator { operator, .. } => operator == Operator::IfNotExists,
                _ => true,
            };
            let operator = operator.filter(|_| simple(left) && simple(right));
            if operator.is_none() {
                let shown = token.span.of(self.text);
                let message = format!("Unsupported operator in Update Expression. Operator: {shown}");
                self.note(message, token.span);
            }
            let span = self.tree.spans[usize::from(left)].to(self.tree.spans[usize::from(right)]);
            let operator = operator.unwrap_or(Operator::Add);
            left = self.tree.add_operator(operator, &[left, right], span);
        }
        Ok(left)
    }

    /// An operator of sums, or another that updates do not have.
    fn sum_operator(&self) -> Option<Option<Operator>> {
        if self.token().kind != Kind::Symbol {
            return None;
        }
        match self.shown() {
            "+" => Some(Some(Operator::Add)),
            "-" => Some(Some(Operator::Subtract)),
            "*" | "/" | "%" | "||" => Some(None),
            _ => None,
        }
    }

    fn set_operand(&mut self) -> Parsed<NodeId> {
        let start = self.span();
        if self.take("(") {
            let node = self.nested(Self::set_value)?;
            self.expect(")", "Expected RIGHT_PAREN")?;
            return Ok(node);
        }
        if self.is_operand() {
            let (operand, span) = self.operand()?;
            return Ok(self.add_operand(operand, span));
        }
        if self.is("-") || self.is("+") {
            let sign = self.advance().span.of(self.text);
            let message = format!(
                "Incorrect number of operands for operator or function; operator or function: {sign}, number of operands: 1"
            );
            self.note(message, start);
            return self.nested(Self::set_operand);
        }
        if self.is_word("MISSING") {
            self.advance();
            self.note(MISSING_COMPARED, start);
            return Ok(self.add_text("", start));
        }
        if self.is_name() && self.is_then("(") {
            return self.set_call();
        }
        let (path, span) = self.path()?;
        Ok(self.tree.add_node(Node::Path(path), span))
    }

    fn set_call(&mut self) -> Parsed<NodeId> {
        let name = self.advance().span;
        let shown = name.of(self.text).trim_matches('"').to_ascii_lowercase();
        self.advance();
        let mut operands = Vec::new();
        while !self.is(")") {
            let operand = self.nested(Self::set_value)?;
            operands.push(operand);
            if !self.take(",") {
                break;
            }
        }
        let span = name.to(self.expect(")", "Expected RIGHT_PAREN")?.span);
        let operator = match Operator::function(&shown) {
            Some(operator) if operator.is_value_function() => operator,
            Some(_) => {
                let message =
                    format!("The function is not allowed in an update expression; function: {shown}");
                self.note(message, name);
                Operator::ListAppend
            }
            None => {
                self.note_at(&format!("Unrecognized function: {shown}"), name);
                Operator::ListAppend
            }
        };
        // What computes a value is not computed with, but for the fallback of a missing attribute.
        let computed = operands
            .iter()
            .find(|node| match self.tree.nodes[usize::from(**node)] {
                Node::Operator { operator, .. } => operator != Operator::IfNotExists,
                _ => false,
            });
        if let Some(node) = computed {
            let at = self.tree.spans[usize::from(*node)];
            let message = format!(
                "The function is not allowed to be used this way in an expression; function: {shown}"
            );
            self.note(message, at);
        }
        Ok(self.tree.add_operator(operator, &operands, span))
    }
}

/// A type that PartiQL has and conditions do not test for, as it is called where it is refused.
fn unsupported_type(name: &str) -> Option<&'static str> {
    Some(match name {
        "SMALLINT" => "SmallintType",
        "INT" | "INTEGER" => "IntegerType",
        "INT4" => "Integer4Type",
        "INT8" | "BIGINT" => "Integer8Type",
        "FLOAT" => "FloatType",
        "REAL" => "RealType",
        "DECIMAL" => "DecimalType",
        "TIMESTAMP" => "TimestampType",
        "DATE" => "DateType",
        "TIME" => "TimeType",
        "CHAR" | "CHARACTER" => "CharacterType",
        "VARCHAR" => "CharacterVaryingType",
        "SYMBOL" => "SymbolType",
        "CLOB" => "ClobType",
        "SEXP" => "SexpType",
        "BAG" => "BagType",
        "ANY" => "AnyType",
        _ => return None,
    })
}
