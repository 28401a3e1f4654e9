//! Literals: numbers, texts, lists, maps and sets.
//!
//! A literal is a constant: only a whole operand can be a parameter. What is wrong inside of one is reported with the way to it
//! from `root`, which is the literal itself.

use cairn_item::{Attribute, ItemError, Number, Value};

use super::Operand;
use super::lexer::Kind;
use super::parser::{Parsed, Parser};
use crate::error::Span;

/// Levels of lists and maps within a literal; DynamoDB allows 32 to an item, of which an attribute is the first.
const LEVELS_MAX: usize = 31;

const BAG: &str = "Unsupported data type in Bag. DynamoDB only supports either numbers or strings in bags";

impl Parser<'_> {
    /// Whether a literal or a parameter begins here.
    pub(super) fn is_operand(&self) -> bool {
        let signed = self.is("-") || self.is("+");
        match self.token().kind {
            Kind::Text | Kind::Number | Kind::Ion | Kind::Parameter => true,
            Kind::Symbol if signed => self.is_kind_then(Kind::Number),
            Kind::Symbol => ["[", "{", "<<"].iter().any(|symbol| self.is(symbol)),
            Kind::Word => ["TRUE", "FALSE", "NULL"].iter().any(|word| self.is_word(word)),
            _ => false,
        }
    }

    /// A literal or a parameter.
    pub(super) fn operand(&mut self) -> Parsed<(Operand, Span)> {
        let start = self.span();
        if self.token().kind == Kind::Parameter {
            self.advance();
            let number = self.parameters;
            self.parameters += 1;
            return Ok((Operand::Parameter(number), start));
        }
        let mut way = String::new();
        let (value, span) = self.literal(&mut way, 0)?;
        Ok((Operand::Literal(value), span))
    }

    /// A literal whose value does not matter.
    pub(super) fn constant(&mut self) -> Parsed<()> {
        self.literal(&mut String::new(), 0).map(drop)
    }

    /// A literal, `level` lists and maps deep; `way` leads to it.
    fn literal(&mut self, way: &mut String, level: usize) -> Parsed<(Value, Span)> {
        let token = self.token();
        let mut span = token.span;
        let shown = self.shown();
        let value = match token.kind {
            Kind::Text => {
                self.advance();
                Value::S(self.unquoted(token))
            }
            Kind::Number => {
                self.advance();
                Value::N(self.number(shown, way, span))
            }
            Kind::Symbol if (self.is("-") || self.is("+")) && self.is_kind_then(Kind::Number) => {
                self.advance();
                span = span.to(self.span());
                let text = format!("{}{}", shown.trim_start_matches('+'), self.shown());
                self.advance();
                Value::N(self.number(&text, way, span))
            }
            Kind::Symbol if self.is("[") || self.is("{") => {
                if level >= LEVELS_MAX {
                    let message = format!("Nesting Levels have exceeded supported limits under root{way}");
                    self.note(message, span);
                }
                let value = self.nested(|parser| {
                    if parser.is("[") {
                        parser.list(way, level)
                    } else {
                        parser.map(way, level)
                    }
                })?;
                span = span.to(value.1);
                value.0
            }
            Kind::Symbol if self.is("<<") => {
                let (value, end) = self.nested(|parser| parser.bag(way))?;
                span = span.to(end);
                value
            }
            Kind::Word if self.is_word("TRUE") || self.is_word("FALSE") || self.is_word("NULL") => {
                self.advance();
                match shown.as_bytes()[0] {
                    b't' | b'T' => Value::Bool(true),
                    b'f' | b'F' => Value::Bool(false),
                    _ => Value::Null,
                }
            }
            Kind::Ion => {
                self.advance();
                self.note_at(
                    &format!("Ion Literals are not supported under key root{way}"),
                    span,
                );
                Value::Null
            }
            Kind::Parameter => {
                self.advance();
                self.parameters += 1;
                self.note_unsupported("Parameter", way, span);
                Value::Null
            }
            Kind::Word if self.is_word("MISSING") => {
                self.advance();
                self.note_unsupported("MISSING", way, span);
                Value::Null
            }
            _ if self.is_name() && !self.is_then("(") => {
                let (_, span) = self.path()?;
                self.note_unsupported("VariableReference", way, span);
                Value::Null
            }
            _ if self.is_name() => {
                let name = shown.to_ascii_lowercase();
                return Err(self.refused_at(
                    &format!("Unsupported data type: {name} under key root{way}"),
                    span,
                ));
            }
            _ => return Err(self.no_term()),
        };
        Ok((value, span))
    }

    fn note_unsupported(&mut self, what: &str, way: &str, span: Span) {
        self.note_at(
            &format!("Unsupported data type: {what} under key root{way}"),
            span,
        );
    }

    fn number(&mut self, text: &str, way: &str, span: Span) -> Number {
        match text.parse::<Number>() {
            Ok(number) => number,
            Err(error) => {
                let message = match error {
                    // Its exponent is too long to be one.
                    ItemError::NumberSyntax(_) => {
                        "Statement wasn't well formed, can't be processed: ".to_owned()
                    }
                    error => format!("{error} under root{way}"),
                };
                self.note(message, span);
                Number::from(0)
            }
        }
    }

    fn list(&mut self, way: &mut String, level: usize) -> Parsed<(Value, Span)> {
        self.advance();
        let mut elements = Vec::new();
        while !self.is("]") {
            let before = way.len();
            way.push_str(&format!("[{}]", elements.len()));
            elements.push(self.literal(way, level + 1)?.0);
            way.truncate(before);
            if !self.take(",") {
                break;
            }
        }
        let end = self.expect("]", "Expected RIGHT_BRACKET")?.span;
        Ok((Value::L(elements), end))
    }

    fn map(&mut self, way: &mut String, level: usize) -> Parsed<(Value, Span)> {
        let mut attributes = Vec::new();
        let end = self.members(way, |parser, way, name, _| {
            let value = parser.literal(way, level + 1)?.0;
            attributes.push(Attribute { name, value });
            Ok(())
        })?;
        Ok((Value::map(attributes), end))
    }

    /// The members of `{ .. }`. `member` reads a value and gets its name and where that stands.
    pub(super) fn members(
        &mut self,
        way: &mut String,
        mut member: impl FnMut(&mut Self, &mut String, String, Span) -> Parsed<()>,
    ) -> Parsed<Span> {
        self.expect("{", "Expected LEFT_CURLY")?;
        let mut names = std::collections::BTreeSet::new();
        while !self.is("}") {
            let token = self.advance();
            let name = match token.kind {
                Kind::Text => self.unquoted(token),
                _ => {
                    let found = if token.kind == Kind::Parameter {
                        "Parameter"
                    } else {
                        "VariableReference"
                    };
                    return Err(self.refused_at(
                        &format!("Tuple keys must be of type String. Actual type: {found} under root{way}"),
                        token.span,
                    ));
                }
            };
            self.expect(":", "Expected COLON")?;
            if name.is_empty() {
                self.note("Empty attribute name", token.span);
            }
            if !names.insert(name.clone()) {
                self.note_at(
                    &format!("Duplicate keys in tuple. Key: {name} under root{way}"),
                    token.span,
                );
            }
            let before = way.len();
            way.push('.');
            way.push_str(&name);
            member(self, way, name, token.span)?;
            way.truncate(before);
            if !self.take(",") {
                break;
            }
        }
        Ok(self.expect("}", "Expected RIGHT_CURLY")?.span)
    }

    fn bag(&mut self, way: &mut String) -> Parsed<(Value, Span)> {
        let start = self.advance().span;
        let mut members = Vec::new();
        let mut mixed = None;
        while !self.is(">>") {
            let (value, span) = self.literal(way, 0)?;
            let fits = match (&value, members.first()) {
                (Value::S(_) | Value::N(_), None) => true,
                (value, Some(first)) => std::mem::discriminant(value) == std::mem::discriminant(first),
                _ => false,
            };
            if !fits {
                mixed.get_or_insert((value.clone(), span, members.is_empty()));
            }
            members.push(value);
            if !self.take(",") {
                break;
            }
        }
        let end = self.expect(">>", "Expected RIGHT_DOUBLE_ANGLE_BRACKET")?.span;
        if members.is_empty() {
            self.note("Empty bags are not supported", start.to(end));
        }
        if let Some((value, span, first)) = mixed {
            let numeric = !first && matches!(members[0], Value::N(_));
            match value {
                Value::Null if numeric => self.note(
                    format!(
                        "One or more parameter values were invalid: Numeric sets may not contain null under root{way}"
                    ),
                    span,
                ),
                _ if numeric => self.note(BAG, span),
                _ => self.note_at(BAG, span),
            }
            members.clear();
        }
        Ok((self.set_of(members, way, start.to(end)), end))
    }

    fn set_of(&mut self, members: Vec<Value>, way: &str, span: Span) -> Value {
        let mut texts = Vec::new();
        let mut numbers = Vec::new();
        for member in members {
            match member {
                Value::S(text) => texts.push(text),
                Value::N(number) => numbers.push(number),
                _ => {}
            }
        }
        let shown: Vec<String> = numbers.iter().map(Number::to_string).collect();
        let set = match (texts.is_empty(), numbers.is_empty()) {
            (false, _) => Value::string_set(texts).map_err(|error| error.to_string()),
            (true, false) => Value::number_set(numbers).map_err(|_| {
                format!(
                    "One or more parameter values were invalid: Input collection [{}] contains duplicates! under root{way}",
                    shown.join(", ")
                )
            }),
            // What it was has been noted.
            (true, true) => Ok(Value::Null),
        };
        set.unwrap_or_else(|message| {
            self.note(message, span);
            Value::Null
        })
    }
}
