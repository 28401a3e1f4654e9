//! What all parts of a statement are read with: tokens, names, paths and the refusals that wait.
//!
//! - What makes the text no statement is an error at once. What the statement says wrongly is **noted** and reported when all of
//!   the text was read and was a statement, the first of several.
//! - Whatever nests (parentheses, calls, lists, maps) goes through [`Parser::nested`], which refuses more than
//!   [`NESTING_MAX`] levels: no statement exhausts the stack.

use cairn_item::Value;

use super::error::StatementError;
use super::lexer::{self, Kind, Token, position, tokenize, unquote};
use super::{Operand, STATEMENT_CHARACTERS_MAX};
use crate::error::{Problem, Span};
use crate::placeholder::Values;
use crate::tree::{Node, NodeId, PathId, Step, Tree};

/// Levels of parentheses, calls, lists and maps within each other.
const NESTING_MAX: usize = 64;

/// Words that neither begin a term nor name anything.
const KEYWORDS: [&str; 25] = [
    "SELECT",
    "FROM",
    "WHERE",
    "INSERT",
    "INTO",
    "VALUE",
    "VALUES",
    "UPDATE",
    "DELETE",
    "SET",
    "REMOVE",
    "ORDER",
    "BY",
    "GROUP",
    "HAVING",
    "LIMIT",
    "AS",
    "AT",
    "ON",
    "RETURNING",
    "UNION",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
];
const OPERATORS: [&str; 7] = ["AND", "OR", "NOT", "IS", "IN", "LIKE", "BETWEEN"];
const LITERALS: [&str; 4] = ["TRUE", "FALSE", "NULL", "MISSING"];

pub(super) type Parsed<T> = Result<T, StatementError>;

pub(super) struct Parser<'t> {
    pub(super) text: &'t str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    /// Parameters so far.
    pub(super) parameters: u16,
    /// Literals and parameters so far, in the order of the text.
    pub(super) operands: Vec<Operand>,
    /// What the clause that is being read is made of.
    pub(super) tree: Tree,
    noted: Option<StatementError>,
}

impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Parsed<Parser<'t>> {
        if text.chars().count() > STATEMENT_CHARACTERS_MAX {
            let message = format!("Statements may have at most {STATEMENT_CHARACTERS_MAX} characters");
            return Err(StatementError::refused(message, None));
        }
        Ok(Parser {
            text,
            tokens: tokenize(text)?,
            next: 0,
            depth: 0,
            parameters: 0,
            operands: Vec::new(),
            tree: Tree::default(),
            noted: None,
        })
    }

    /// What was read of the clause.
    pub(super) fn take_tree(&mut self) -> Tree {
        let mut tree = std::mem::take(&mut self.tree);
        tree.text_bytes = self.text.len();
        tree
    }

    /// The last step: the first of the refusals that were noted.
    pub(super) fn finish(self) -> Parsed<(u16, Vec<Operand>)> {
        match self.noted {
            Some(noted) => Err(noted),
            None => Ok((self.parameters, self.operands)),
        }
    }

    pub(super) fn token(&self) -> Token {
        self.tokens[self.next]
    }

    fn token_after(&self, count: usize) -> Token {
        self.tokens[(self.next + count).min(self.tokens.len() - 1)]
    }

    pub(super) fn span(&self) -> Span {
        self.token().span
    }

    /// The text of the token.
    pub(super) fn shown(&self) -> &'t str {
        self.span().of(self.text)
    }

    pub(super) fn advance(&mut self) -> Token {
        let token = self.token();
        if token.kind != Kind::End {
            self.next += 1;
        }
        token
    }

    pub(super) fn is(&self, symbol: &str) -> bool {
        self.token().kind == Kind::Symbol && self.shown() == symbol
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.token().kind == Kind::Word && self.shown().eq_ignore_ascii_case(word)
    }

    /// Whether the token after the next is this symbol.
    pub(super) fn is_then(&self, symbol: &str) -> bool {
        self.token_after(1).span.of(self.text) == symbol
    }

    pub(super) fn is_word_then(&self, word: &str) -> bool {
        let token = self.token_after(1);
        token.kind == Kind::Word && token.span.of(self.text).eq_ignore_ascii_case(word)
    }

    pub(super) fn is_kind_then(&self, kind: Kind) -> bool {
        self.token_after(1).kind == kind
    }

    /// Whether nothing of the statement is left.
    pub(super) fn at_end(&self) -> bool {
        self.token().kind == Kind::End || self.is(";")
    }

    pub(super) fn take(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect(&mut self, symbol: &str, detail: &str) -> Parsed<Token> {
        if !self.is(symbol) {
            return Err(self.syntax(detail));
        }
        Ok(self.advance())
    }

    pub(super) fn expect_word(&mut self, word: &str, detail: &str) -> Parsed<()> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.syntax(detail))
        }
    }

    pub(super) fn syntax(&self, detail: &str) -> StatementError {
        StatementError::syntax(detail, self.span())
    }

    /// What is wrong with the token as the beginning of a term.
    pub(super) fn no_term(&self) -> StatementError {
        let one_of = |words: &[&str]| words.iter().any(|word| self.is_word(word));
        let comparison = ["=", "<>", "!=", "<", "<=", ">", ">="];
        self.syntax(
            if one_of(&OPERATORS) || comparison.iter().any(|symbol| self.is(symbol)) {
                "Unexpected operator"
            } else if one_of(&KEYWORDS) {
                "Unexpected keyword"
            } else {
                "Unexpected term"
            },
        )
    }

    /// `message` with the place.
    pub(super) fn refused_at(&self, message: &str, span: Span) -> StatementError {
        StatementError::refused(format!("{message} at {}", position(self.text, span)), Some(span))
    }

    pub(super) fn note_at(&mut self, message: &str, span: Span) {
        let error = self.refused_at(message, span);
        self.noted.get_or_insert(error);
    }

    pub(super) fn note(&mut self, message: impl Into<String>, span: Span) {
        self.noted
            .get_or_insert_with(|| StatementError::refused(message, Some(span)));
    }

    /// Reads something that may contain others of its kind.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= NESTING_MAX {
            return Err(self.syntax("Statement is nested too deeply to parse"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Whether the token can name something.
    pub(super) fn is_name(&self) -> bool {
        let reserved = [&KEYWORDS[..], &OPERATORS, &LITERALS, &["CASE"]];
        match self.token().kind {
            Kind::Quoted => true,
            Kind::Word => {
                let begins = !self.shown().starts_with(|first: char| first.is_ascii_digit());
                begins
                    && !reserved
                        .iter()
                        .any(|words| words.iter().any(|word| self.is_word(word)))
            }
            _ => false,
        }
    }

    pub(super) fn name(&mut self) -> Parsed<String> {
        if !self.is_name() {
            return Err(self.no_term());
        }
        let token = self.advance();
        let shown = token.span.of(self.text);
        Ok(match token.kind {
            Kind::Quoted => unquote(shown).into_owned(),
            _ => shown.to_owned(),
        })
    }

    /// A document path, and where it stands.
    pub(super) fn path(&mut self) -> Parsed<(PathId, Span)> {
        let mut span = self.span();
        let mut steps = vec![Step::Name(self.name()?.into_boxed_str())];
        loop {
            if self.take(".") {
                if !self.is_name() {
                    return Err(self.syntax("Invalid path dot component"));
                }
                span = span.to(self.span());
                steps.push(Step::Name(self.name()?.into_boxed_str()));
            } else if self.take("[") {
                let step = self.step_in_brackets()?;
                span = span.to(self.expect("]", "Expected RIGHT_BRACKET")?.span);
                steps.push(step);
            } else {
                return Ok((self.tree.add_path(steps, span), span));
            }
        }
    }

    fn step_in_brackets(&mut self) -> Parsed<Step> {
        let negative = self.take("-");
        let token = self.advance();
        let shown = token.span.of(self.text);
        match token.kind {
            Kind::Text if !negative => Ok(Step::Name(unquote(shown).into())),
            Kind::Number => {
                let index = shown.parse().ok();
                // DynamoDB's indexes are 32-bit signed.
                let index = index.filter(|index| !negative && *index <= i32::MAX.cast_unsigned());
                if index.is_none() {
                    let sign = if negative { "-" } else { "" };
                    let problem = Problem::ListIndex(format!("{sign}{shown}"));
                    self.note_at(&problem.to_string(), token.span);
                }
                Ok(Step::Index(index.unwrap_or(0)))
            }
            _ => Err(self.refused_at("Unexpected path component", token.span)),
        }
    }

    /// A literal or parameter as a node of the tree.
    pub(super) fn add_operand(&mut self, operand: Operand, span: Span) -> NodeId {
        let slot = self.tree.add_value(&Values::number(self.operands.len()));
        self.operands.push(operand);
        self.tree.add_node(Node::Value(slot), span)
    }

    pub(super) fn add_text(&mut self, text: &str, span: Span) -> NodeId {
        self.add_operand(Operand::Literal(Value::S(text.to_owned())), span)
    }

    /// The text of a token that is a text.
    pub(super) fn unquoted(&self, token: Token) -> String {
        lexer::unquote(token.span.of(self.text)).into_owned()
    }
}
