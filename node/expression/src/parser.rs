//! The parser of all expressions.
//!
//! One loop climbs operators by their binding (comparison, NOT, AND, OR) with a stack of its own, so that nesting is bounded
//! by the length of the text and never by the call stack. A parenthesis may turn out to hold an operand, `(a) = :b`, or a whole
//! condition, `(a = :b)`; the loop carries what it has as a [`Class`] and so stops at the first token that nothing can
//! follow, which is the token that DynamoDB names.
//!
//! DynamoDB reads an expression in two passes, and reports in this order:
//! 1. syntax errors and redundant parentheses, whichever comes first in the text;
//! 2. then, from left to right, reserved words, functions that do not exist or do not belong, list indexes out of range, and
//!    sections given twice.
//!
//! What the second pass would find is noted during the first, with its place, and reported at the end.

use crate::error::{ExpressionError, Parameter, Problem, Span};
use crate::reserved::is_reserved;
use crate::token::{Token, TokenKind, syntax_error, tokenize};
use crate::tree::{Node, NodeId, Operator, PathId, Step, Tree};

/// Longest expression in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// Which of the two kinds of expression with operators is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grammar {
    Condition,
    /// The right side of a SET action.
    Value,
}

/// What a finished part of an expression can be used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// A path or a value, only an operand.
    Operand,
    /// A function call, an operand or a condition.
    Call,
    /// A condition or a sum, not an operand.
    Whole,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    node: NodeId,
    class: Class,
    span: Span,
    /// Whether it stands in parentheses.
    grouped: bool,
    /// The name of a function whose permission to stand where it does is still to be decided.
    call: Option<usize>,
}

#[derive(Debug)]
enum Frame {
    /// `(`; `whole`: it may hold a condition or a sum.
    Group {
        open: Span,
        whole: bool,
    },
    Call {
        name: usize,
        operator: Operator,
        operands: Vec<NodeId>,
    },
    Binary {
        operator: Operator,
        left: Part,
    },
    Between {
        value: Part,
        lower: Option<NodeId>,
    },
    In {
        value: Part,
        operands: Vec<NodeId>,
    },
    Not {
        span: Span,
    },
}

impl Frame {
    /// Whether a function inside it is nested.
    fn nests(&self) -> bool {
        match self {
            Frame::Call { .. } | Frame::Between { .. } | Frame::In { .. } => true,
            Frame::Binary { operator, .. } => !matches!(operator, Operator::And | Operator::Or),
            Frame::Group { .. } | Frame::Not { .. } => false,
        }
    }
}

pub(crate) struct Parser<'t> {
    parameter: Parameter,
    text: &'t str,
    tokens: Vec<Token>,
    position: usize,
    pub(crate) tree: Tree,
    /// Redundant parentheses that have been seen.
    redundant: Option<Span>,
    /// How many frames there were where it became undecided which rule is read; see [`Parser::decide`].
    undecided: Option<usize>,
    /// The leftmost problem of the second pass, with its token.
    noted: Option<(usize, Problem, Span)>,
}

impl<'t> Parser<'t> {
    pub(crate) fn new(parameter: Parameter, text: &'t str) -> Result<Parser<'t>, ExpressionError> {
        if text.is_empty() {
            return Err(ExpressionError::of(parameter, Problem::Empty));
        }
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionError::of(parameter, Problem::TooLong));
        }
        Ok(Parser {
            parameter,
            text,
            tokens: tokenize(text),
            position: 0,
            tree: Tree {
                text_bytes: text.len(),
                ..Tree::default()
            },
            redundant: None,
            undecided: None,
            noted: None,
        })
    }

    pub(crate) fn kind(&self) -> TokenKind {
        self.tokens[self.position].kind
    }

    fn kind_after(&self) -> TokenKind {
        self.tokens
            .get(self.position + 1)
            .map_or(TokenKind::End, |token| token.kind)
    }

    /// Takes the next token, which must be one that may stand here.
    pub(crate) fn advance(&mut self) -> Result<Token, ExpressionError> {
        let token = self.tokens[self.position];
        self.position += 1;
        Ok(token)
    }

    pub(crate) fn expect(&mut self, kind: TokenKind) -> Result<Token, ExpressionError> {
        if self.kind() == kind {
            self.advance()
        } else {
            Err(self.unexpected())
        }
    }

    /// The next token may not stand here.
    pub(crate) fn unexpected(&self) -> ExpressionError {
        let (problem, span) = syntax_error(self.text, &self.tokens, self.position);
        ExpressionError::at(self.parameter, problem, span)
    }

    /// DynamoDB's parser looks ahead until it knows which rule it is in, and finds redundant parentheses only when it then
    /// reads what it has looked at: a syntax error on the way comes first. At the beginning of a condition, `(` may begin an
    /// operand or a condition, and a function may be either; an operator after it, or its end, decides.
    fn decide(&mut self) -> Result<(), ExpressionError> {
        self.undecided = None;
        match self.redundant {
            Some(span) => Err(ExpressionError::at(
                self.parameter,
                Problem::RedundantParentheses,
                span,
            )),
            None => Ok(()),
        }
    }

    fn note(&mut self, token: usize, problem: Problem, span: Span) {
        if self.noted.as_ref().is_none_or(|(noted, ..)| token < *noted) {
            self.noted = Some((token, problem, span));
        }
    }

    /// Notes a problem of the part of the text that ends before the next token.
    pub(crate) fn note_here(&mut self, problem: Problem, span: Span) {
        self.note(self.position, problem, span);
    }

    /// The tree, once the whole text has been read.
    pub(crate) fn finish(self) -> Result<Tree, ExpressionError> {
        if self.kind() != TokenKind::End {
            return Err(self.unexpected());
        }
        match self.noted {
            Some((_, problem, span)) => Err(ExpressionError::at(self.parameter, problem, span)),
            None => Ok(self.tree),
        }
    }

    pub(crate) fn span_here(&self) -> Span {
        self.tokens[self.position].span
    }

    /// A document path.
    pub(crate) fn path(&mut self) -> Result<PathId, ExpressionError> {
        let start = self.span_here();
        let mut end = start;
        let mut steps = vec![self.name()?];
        loop {
            match self.kind() {
                TokenKind::Dot => {
                    self.advance()?;
                    end = self.span_here();
                    // DynamoDB's grammar takes a value here, to refuse it when it is bound.
                    if self.kind() == TokenKind::Value {
                        let token = self.advance()?;
                        steps.push(Step::Placeholder(self.tree.name_slot(token.span.of(self.text))));
                    } else {
                        steps.push(self.name()?);
                    }
                }
                TokenKind::OpenBracket => {
                    self.advance()?;
                    let token = self.expect(TokenKind::Index)?;
                    let digits = token.span.of(self.text);
                    // DynamoDB's indexes are 32-bit signed.
                    let index = digits
                        .parse()
                        .ok()
                        .filter(|index| *index <= i32::MAX.cast_unsigned());
                    if index.is_none() {
                        self.note_here(Problem::ListIndex(digits.to_owned()), token.span);
                    }
                    steps.push(Step::Index(index.unwrap_or(0)));
                    end = self.expect(TokenKind::CloseBracket)?.span;
                }
                _ => break,
            }
        }
        Ok(self.tree.add_path(steps, start.to(end)))
    }

    fn name(&mut self) -> Result<Step, ExpressionError> {
        match self.kind() {
            TokenKind::Identifier => {
                let at = self.position;
                let token = self.advance()?;
                let name = token.span.of(self.text);
                if is_reserved(name) {
                    self.note(at, Problem::Reserved(name.to_owned()), token.span);
                }
                Ok(Step::Name(name.into()))
            }
            TokenKind::Name => {
                let token = self.advance()?;
                Ok(Step::Placeholder(self.tree.name_slot(token.span.of(self.text))))
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A value's placeholder.
    pub(crate) fn value(&mut self) -> Result<NodeId, ExpressionError> {
        let token = self.expect(TokenKind::Value)?;
        let slot = self.tree.value_slot(token.span.of(self.text));
        Ok(self.tree.add_node(Node::Value(slot), token.span))
    }

    /// An expression with operators, up to the first token that is no part of it.
    pub(crate) fn expression(&mut self, grammar: Grammar) -> Result<NodeId, ExpressionError> {
        let mut frames: Vec<Frame> = Vec::new();
        loop {
            let whole = takes_whole(frames.last());
            let span = self.span_here();
            let node = match self.kind() {
                TokenKind::Open => {
                    self.advance()?;
                    if whole {
                        self.undecided.get_or_insert(frames.len());
                    }
                    frames.push(Frame::Group { open: span, whole });
                    continue;
                }
                TokenKind::Not if whole && grammar == Grammar::Condition => {
                    self.advance()?;
                    self.decide()?;
                    frames.push(Frame::Not { span });
                    continue;
                }
                TokenKind::Identifier if self.kind_after() == TokenKind::Open => {
                    let name = self.position;
                    let operator = self.function(grammar, name);
                    self.advance()?;
                    self.advance()?;
                    if whole {
                        self.undecided.get_or_insert(frames.len());
                    }
                    frames.push(Frame::Call {
                        name,
                        operator,
                        operands: Vec::new(),
                    });
                    continue;
                }
                TokenKind::Value => self.value()?,
                _ => {
                    let path = self.path()?;
                    let span = self.tree.path_spans[usize::from(path)];
                    self.tree.add_node(Node::Path(path), span)
                }
            };
            let span = self.tree.spans[usize::from(node)];
            let part = Part {
                node,
                class: Class::Operand,
                span,
                grouped: false,
                call: None,
            };
            if let Some(root) = self.after(grammar, &mut frames, part)? {
                return Ok(root);
            }
        }
    }

    /// Continues after a finished part. `None` when an operand must follow, else the root.
    fn after(
        &mut self,
        grammar: Grammar,
        frames: &mut Vec<Frame>,
        mut part: Part,
    ) -> Result<Option<NodeId>, ExpressionError> {
        loop {
            let kind = self.kind();
            if !takes_whole(frames.last()) {
                let frame = frames.pop().expect("the bottom takes a whole expression");
                match self.after_operand(frames, frame, part)? {
                    Some(next) => part = next,
                    None => return Ok(None),
                }
                continue;
            }
            let complete = part.class != Class::Operand || grammar == Grammar::Value;
            if complete && self.undecided == Some(frames.len()) {
                self.decide()?;
            }
            if part.class != Class::Whole
                && let Some(frame) = self.begin_operator(grammar, part)?
            {
                frames.push(frame);
                return Ok(None);
            }
            let group = matches!(frames.last(), Some(Frame::Group { .. }));
            if group && kind == TokenKind::Close {
                let Some(Frame::Group { open, .. }) = frames.pop() else {
                    unreachable!("just seen")
                };
                part = self.close(open, part)?;
                continue;
            }
            if grammar == Grammar::Value {
                // Only the bottom is left: groups end with a parenthesis.
                return if group {
                    Err(self.unexpected())
                } else {
                    Ok(Some(part.node))
                };
            }
            if part.class == Class::Operand {
                return Err(self.unexpected());
            }
            match (frames.last(), kind) {
                (Some(Frame::Not { .. }), _)
                | (
                    Some(Frame::Binary {
                        operator: Operator::And,
                        ..
                    }),
                    _,
                )
                | (
                    Some(Frame::Binary {
                        operator: Operator::Or,
                        ..
                    }),
                    TokenKind::Or,
                ) => {
                    let frame = frames.pop().expect("just seen");
                    part = self.logical(frame, part);
                }
                (_, TokenKind::And | TokenKind::Or) => {
                    self.decide()?;
                    self.advance()?;
                    self.settle(part, false, true);
                    let operator = if kind == TokenKind::And {
                        Operator::And
                    } else {
                        Operator::Or
                    };
                    frames.push(Frame::Binary {
                        operator,
                        left: Part { call: None, ..part },
                    });
                    return Ok(None);
                }
                (Some(Frame::Binary { .. }), _) => {
                    let frame = frames.pop().expect("just seen");
                    part = self.logical(frame, part);
                }
                (None, _) => {
                    self.settle(part, false, true);
                    return Ok(Some(part.node));
                }
                (Some(_), _) => return Err(self.unexpected()),
            }
        }
    }

    /// Gives an operand to the frame that waits for it. `None` when another operand must follow.
    fn after_operand(
        &mut self,
        frames: &mut Vec<Frame>,
        mut frame: Frame,
        part: Part,
    ) -> Result<Option<Part>, ExpressionError> {
        let kind = self.kind();
        // Parentheses do not nest a call; what they stand in does.
        let nested = frame.nests() || frames.iter().any(Frame::nests);
        if nested {
            self.settle(part, true, false);
        }
        let part = Part {
            call: if nested { None } else { part.call },
            ..part
        };
        let whole = |tree: &mut Tree, operator, operands: &[NodeId], span| Part {
            node: tree.add_operator(operator, operands, span),
            class: Class::Whole,
            span,
            grouped: false,
            call: None,
        };
        match &mut frame {
            Frame::Group { open, .. } if kind == TokenKind::Close => {
                return self.close(*open, part).map(Some);
            }
            Frame::Group { .. } => return Err(self.unexpected()),
            Frame::Binary { operator, left } => {
                let (operands, span) = ([left.node, part.node], left.span.to(part.span));
                return Ok(Some(whole(&mut self.tree, *operator, &operands, span)));
            }
            Frame::Between {
                value,
                lower: Some(lower),
            } => {
                let (operands, span) = ([value.node, *lower, part.node], value.span.to(part.span));
                return Ok(Some(whole(&mut self.tree, Operator::Between, &operands, span)));
            }
            Frame::Between { lower, .. } => {
                self.expect(TokenKind::And)?;
                *lower = Some(part.node);
            }
            Frame::In { operands, .. } | Frame::Call { operands, .. } if kind == TokenKind::Comma => {
                self.advance()?;
                operands.push(part.node);
            }
            Frame::In { value, operands } if kind == TokenKind::Close => {
                let span = value.span.to(self.advance()?.span);
                operands.push(part.node);
                return Ok(Some(whole(&mut self.tree, Operator::In, operands, span)));
            }
            Frame::Call {
                name,
                operator,
                operands,
            } if kind == TokenKind::Close => {
                let span = self.tokens[*name].span.to(self.advance()?.span);
                operands.push(part.node);
                let call = whole(&mut self.tree, *operator, operands, span);
                return Ok(Some(Part {
                    class: Class::Call,
                    call: Some(*name),
                    ..call
                }));
            }
            Frame::In { .. } | Frame::Call { .. } => return Err(self.unexpected()),
            Frame::Not { .. } => unreachable!("NOT takes a whole condition"),
        }
        frames.push(frame);
        Ok(None)
    }

    /// The operator that follows an operand, if one does.
    fn begin_operator(&mut self, grammar: Grammar, part: Part) -> Result<Option<Frame>, ExpressionError> {
        let operator = match (grammar, self.kind()) {
            (Grammar::Condition, TokenKind::Equal) => Operator::Equal,
            (Grammar::Condition, TokenKind::NotEqual) => Operator::NotEqual,
            (Grammar::Condition, TokenKind::Less) => Operator::Less,
            (Grammar::Condition, TokenKind::LessOrEqual) => Operator::LessOrEqual,
            (Grammar::Condition, TokenKind::Greater) => Operator::Greater,
            (Grammar::Condition, TokenKind::GreaterOrEqual) => Operator::GreaterOrEqual,
            (Grammar::Condition, TokenKind::Between) => Operator::Between,
            (Grammar::Condition, TokenKind::In) => Operator::In,
            (Grammar::Value, TokenKind::Plus) => Operator::Add,
            (Grammar::Value, TokenKind::Minus) => Operator::Subtract,
            _ => return Ok(None),
        };
        self.decide()?;
        self.advance()?;
        self.settle(part, true, false);
        let left = Part { call: None, ..part };
        Ok(Some(match operator {
            Operator::Between => Frame::Between {
                value: left,
                lower: None,
            },
            Operator::In => {
                self.expect(TokenKind::Open)?;
                Frame::In {
                    value: left,
                    operands: vec![left.node],
                }
            }
            _ => Frame::Binary { operator, left },
        }))
    }

    /// Closes a group; parentheses around nothing but parentheses are refused.
    fn close(&mut self, open: Span, part: Part) -> Result<Part, ExpressionError> {
        let span = open.to(self.advance()?.span);
        if part.grouped {
            self.redundant = Some(span);
            if self.undecided.is_none() {
                self.decide()?;
            }
        }
        Ok(Part {
            span,
            grouped: true,
            ..part
        })
    }

    /// Finishes a NOT, AND or OR.
    fn logical(&mut self, frame: Frame, part: Part) -> Part {
        self.settle(part, false, true);
        let (node, span) = match frame {
            Frame::Not { span } => {
                let span = span.to(part.span);
                (self.tree.add_operator(Operator::Not, &[part.node], span), span)
            }
            Frame::Binary { operator, left } => {
                let span = left.span.to(part.span);
                (
                    self.tree.add_operator(operator, &[left.node, part.node], span),
                    span,
                )
            }
            _ => unreachable!("the caller looks"),
        };
        Part {
            node,
            class: Class::Whole,
            span,
            grouped: false,
            call: None,
        }
    }

    /// The function of this name; what is wrong with it is noted.
    fn function(&mut self, grammar: Grammar, token: usize) -> Operator {
        let span = self.tokens[token].span;
        let name = span.of(self.text);
        let Some(operator) = Operator::function(name) else {
            self.note(token, Problem::UnknownFunction(name.to_owned()), span);
            return Operator::Size;
        };
        match (grammar, operator.is_value_function()) {
            (Grammar::Condition, true) => {
                self.note(token, Problem::NotAConditionFunction(name.to_owned()), span);
            }
            (Grammar::Value, false) => self.note(token, Problem::NotAValueFunction(name.to_owned()), span),
            _ => {}
        }
        operator
    }

    /// Decides whether a call may stand where it does: as an operand only `size` and `if_not_exists`, as a condition all but
    /// `size`.
    fn settle(&mut self, part: Part, nested: bool, condition: bool) {
        let Some(token) = part.call else { return };
        let span = self.tokens[token].span;
        let name = span.of(self.text);
        let misused = (nested && !matches!(name, "size" | "if_not_exists")) || (condition && name == "size");
        // An unknown function was noted at the same place before.
        if misused {
            self.note(token, Problem::MisusedFunction(name.to_owned()), span);
        }
    }
}

/// Whether a condition or a sum may stand where an operand of this frame is read.
fn takes_whole(frame: Option<&Frame>) -> bool {
    match frame {
        None | Some(Frame::Not { .. } | Frame::Group { whole: true, .. }) => true,
        Some(Frame::Binary { operator, .. }) => matches!(operator, Operator::And | Operator::Or),
        Some(_) => false,
    }
}
