//! The lexer of statements.
//!
//! Words are keywords only where the parser looks for them. Space and comments, `-- ..` to the end of the line and `/* .. */`,
//! stand between tokens. Text and quoted names keep their quotes here; a doubled quote inside stands for one.

use std::borrow::Cow;

use super::error::StatementError;
use crate::error::Span;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name.
    Word,
    /// `"name"`
    Quoted,
    /// `'text'`
    Text,
    /// Digits, with a fraction and an exponent if they are there. A sign is a token of its own.
    Number,
    /// A literal of the Ion format, between backticks.
    Ion,
    /// `?`
    Parameter,
    Symbol,
    /// After the last token.
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// Symbols of several characters, before those that they begin with.
const LONG_SYMBOLS: [&str; 8] = ["<<", ">>", "<>", "<=", ">=", "!=", "||", "=="];
const SYMBOLS: &[u8] = b"<>=()[]{}.,:;*+-/%";

/// All tokens of `text`, which is shorter than 64 KiB; the last is [`Kind::End`].
pub(super) fn tokenize(text: &str) -> Result<Vec<Token>, StatementError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(bytes.len() / 4 + 2);
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (kind, length) = match rest[0] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if rest.starts_with(b"--") => {
                at += rest.iter().take_while(|byte| **byte != b'\n').count();
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                let end = text[at + 2..].find("*/");
                at += 4 + end.ok_or_else(|| StatementError::syntax("", span(at, bytes.len())))?;
                continue;
            }
            quote @ (b'\'' | b'"' | b'`') => {
                let length = quoted(rest, quote);
                let length = length.ok_or_else(|| unterminated(quote, span(at, bytes.len())))?;
                let kind = match quote {
                    b'\'' => Kind::Text,
                    b'"' => Kind::Quoted,
                    _ => Kind::Ion,
                };
                (kind, length)
            }
            b'?' => (Kind::Parameter, 1),
            byte if begins_number(byte, rest.get(1), tokens.last()) => (Kind::Number, number(rest)),
            byte if is_word_byte(byte) => (Kind::Word, run(rest, is_word_byte)),
            byte => match LONG_SYMBOLS
                .iter()
                .find(|symbol| rest.starts_with(symbol.as_bytes()))
            {
                Some(symbol) => (Kind::Symbol, symbol.len()),
                None if SYMBOLS.contains(&byte) => (Kind::Symbol, 1),
                None => return Err(StatementError::syntax("", span(at, at))),
            },
        };
        tokens.push(Token {
            kind,
            span: span(at, at + length),
        });
        at += length;
    }
    tokens.push(Token {
        kind: Kind::End,
        span: span(bytes.len(), bytes.len()),
    });
    Ok(tokens)
}

/// What stands between the quotes of a text or a quoted name.
pub(super) fn unquote(token: &str) -> Cow<'_, str> {
    let (quote, inner) = (&token[..1], &token[1..token.len() - 1]);
    if inner.contains(quote) {
        Cow::Owned(inner.replace(&quote.repeat(2), quote))
    } else {
        Cow::Borrowed(inner)
    }
}

/// Where in the text something stands, as DynamoDB says it: line, column and length, in characters from 1.
pub(super) fn position(text: &str, span: Span) -> String {
    let before = &text[..usize::from(span.start)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{line}:{column}:{}", span.of(text).chars().count())
}

fn unterminated(quote: u8, span: Span) -> StatementError {
    let detail = match quote {
        b'\'' => "Unterminated string literal",
        b'"' => "Unterminated quoted identifier",
        _ => "",
    };
    StatementError::syntax(detail, span)
}

/// Length with both quotes; a doubled quote does not end it, but in Ion.
fn quoted(bytes: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        at += bytes[at..].iter().position(|byte| *byte == quote)? + 1;
        if quote == b'`' || bytes.get(at) != Some(&quote) {
            return Some(at);
        }
        at += 1;
    }
}

/// A full stop begins a number where it does not follow something that it could lead on from.
fn begins_number(byte: u8, next: Option<&u8>, before: Option<&Token>) -> bool {
    let leads_on = before.is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted | Kind::Number));
    byte.is_ascii_digit() || byte == b'.' && next.is_some_and(u8::is_ascii_digit) && !leads_on
}

fn number(bytes: &[u8]) -> usize {
    let mut length = run(bytes, |byte| byte.is_ascii_digit());
    if bytes.get(length) == Some(&b'.') {
        length += 1 + run(&bytes[length + 1..], |byte| byte.is_ascii_digit());
    }
    if let Some(b'e' | b'E') = bytes.get(length) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let digits = run(&bytes[(length + 1 + sign).min(bytes.len())..], |byte| {
            byte.is_ascii_digit()
        });
        if digits > 0 {
            length += 1 + sign + digits;
        }
    }
    length
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

fn run(bytes: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| accept(**byte)).count()
}

fn span(start: usize, end: usize) -> Span {
    let offset = |offset| u16::try_from(offset).expect("statements are shorter than 64 KiB");
    Span {
        start: offset(start),
        end: offset(end),
    }
}
