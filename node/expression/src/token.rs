//! The lexer.
//!
//! Every character is part of some token: what begins none is a token of its own that no rule accepts, so lexing never
//! fails and errors name what the parser stopped at. Space, tab, line feed and carriage return stand between tokens.
//! Keywords are tokens in every kind of expression, in any case: an attribute called `set` needs a placeholder even in a
//! projection. An index is `0` or begins with another digit, so that `[01]` is two tokens.

use crate::error::{Problem, Span};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Comma,
    Open,
    Close,
    Dot,
    OpenBracket,
    CloseBracket,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    In,
    Between,
    Not,
    And,
    Or,
    Set,
    Add,
    Delete,
    Remove,
    /// A number in brackets.
    Index,
    Identifier,
    /// `#name`
    Name,
    /// `:value`
    Value,
    /// A character that begins no token.
    Unknown,
    /// After the last token.
    End,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

/// All tokens of `text`, which is shorter than 64 KiB; the last is [`TokenKind::End`].
pub(crate) fn tokenize(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(bytes.len() / 3 + 2);
    let mut position = 0;
    while position < bytes.len() {
        let start = position;
        let next = bytes.get(position + 1).copied();
        let (kind, length) = match bytes[position] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                position += 1;
                continue;
            }
            b',' => (TokenKind::Comma, 1),
            b'(' => (TokenKind::Open, 1),
            b')' => (TokenKind::Close, 1),
            b'.' => (TokenKind::Dot, 1),
            b'[' => (TokenKind::OpenBracket, 1),
            b']' => (TokenKind::CloseBracket, 1),
            b'+' => (TokenKind::Plus, 1),
            b'-' => (TokenKind::Minus, 1),
            b'=' => (TokenKind::Equal, 1),
            b'<' if next == Some(b'>') => (TokenKind::NotEqual, 2),
            b'<' if next == Some(b'=') => (TokenKind::LessOrEqual, 2),
            b'<' => (TokenKind::Less, 1),
            b'>' if next == Some(b'=') => (TokenKind::GreaterOrEqual, 2),
            b'>' => (TokenKind::Greater, 1),
            b'0' => (TokenKind::Index, 1),
            b'1'..=b'9' => (
                TokenKind::Index,
                run(bytes, position, |byte| byte.is_ascii_digit()),
            ),
            b'#' if next.is_some_and(is_name_byte) => {
                (TokenKind::Name, 1 + run(bytes, position + 1, is_name_byte))
            }
            b':' if next.is_some_and(is_name_byte) => {
                (TokenKind::Value, 1 + run(bytes, position + 1, is_name_byte))
            }
            b'a'..=b'z' | b'A'..=b'Z' => {
                let length = run(bytes, position, is_name_byte);
                (keyword(&bytes[position..position + length]), length)
            }
            _ => {
                let character = text[position..]
                    .chars()
                    .next()
                    .expect("the position is inside the text");
                (TokenKind::Unknown, character.len_utf8())
            }
        };
        position += length;
        tokens.push(Token {
            kind,
            span: span(start, position),
        });
    }
    tokens.push(Token {
        kind: TokenKind::End,
        span: span(bytes.len(), bytes.len()),
    });
    tokens
}

/// DynamoDB's complaint about token `index`: the token, and the text from the token before it to the one after it.
pub(crate) fn syntax_error(text: &str, tokens: &[Token], index: usize) -> (Problem, Span) {
    let token = tokens[index];
    let start = index
        .checked_sub(1)
        .map_or(0, |before| usize::from(tokens[before].span.start));
    let end = match tokens.get(index + 1) {
        Some(next) if next.kind != TokenKind::End => usize::from(next.span.end),
        _ => text.len(),
    };
    let shown = if token.kind == TokenKind::End {
        "<EOF>"
    } else {
        token.span.of(text)
    };
    let problem = Problem::Syntax {
        token: shown.to_owned(),
        near: text[start..end].to_owned(),
    };
    (problem, token.span)
}

/// Whether `key` is a placeholder: `sigil` and at least one letter, digit or underscore.
pub(crate) fn is_placeholder(key: &str, sigil: u8) -> bool {
    let bytes = key.as_bytes();
    bytes.len() > 1 && bytes[0] == sigil && bytes[1..].iter().all(|byte| is_name_byte(*byte))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn run(bytes: &[u8], start: usize, accept: impl Fn(u8) -> bool) -> usize {
    bytes[start..].iter().take_while(|byte| accept(**byte)).count()
}

fn keyword(word: &[u8]) -> TokenKind {
    const KEYWORDS: [(&[u8], TokenKind); 9] = [
        (b"in", TokenKind::In),
        (b"between", TokenKind::Between),
        (b"not", TokenKind::Not),
        (b"and", TokenKind::And),
        (b"or", TokenKind::Or),
        (b"set", TokenKind::Set),
        (b"add", TokenKind::Add),
        (b"delete", TokenKind::Delete),
        (b"remove", TokenKind::Remove),
    ];
    KEYWORDS
        .iter()
        .find(|(keyword, _)| keyword.eq_ignore_ascii_case(word))
        .map_or(TokenKind::Identifier, |(_, kind)| *kind)
}

fn span(start: usize, end: usize) -> Span {
    let offset = |offset| u16::try_from(offset).expect("expressions are shorter than 64 KiB");
    Span {
        start: offset(start),
        end: offset(end),
    }
}
