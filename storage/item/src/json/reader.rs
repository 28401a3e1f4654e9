//! The pull parser.
//!
//! The caller asks for what it expects and the reader fails when something else stands there. Containers are read as
//!
//! ```text
//! reader.begin_object()?;
//! while let Some(key) = reader.next_key()? {
//!     match &*key {
//!         "TableName" => table = reader.string()?.into_owned(),
//!         "Item" => item = reader.checked_item()?,
//!         _ => reader.skip()?,
//!     }
//! }
//! ```
//!
//! and arrays with [`Reader::begin_array`] and [`Reader::next_element`]. Each key must be followed by reading or
//! skipping exactly one value.

use std::borrow::Cow;

use super::JsonError;
use super::scan::find_special;

/// Deepest nesting of objects and arrays in a body. The deepest item DynamoDB takes has 2 x 32 levels.
pub const JSON_DEPTH_MAX: usize = 512;

/// What stands next in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// A string.
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

/// The types of [`Reader::plain_scalar`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlainScalar {
    /// String.
    S,
    /// Number.
    N,
}

/// A cursor over a JSON text.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
    /// Whether a container was just entered, so that no comma may stand before its first element.
    entered: bool,
}

impl<'a> Reader<'a> {
    /// Reads this body, which must be UTF-8.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn new(body: &'a [u8]) -> Result<Reader<'a>, JsonError> {
        match std::str::from_utf8(body) {
            Ok(text) => Ok(Reader {
                text,
                position: 0,
                depth: 0,
                entered: false,
            }),
            Err(error) => Err(JsonError {
                message: "the body is not UTF-8".to_owned(),
                position: error.valid_up_to(),
                malformed: true,
            }),
        }
    }

    /// Byte position of the cursor.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    #[cold]
    pub(super) fn malformed(&self, what: &str) -> JsonError {
        JsonError {
            message: format!("malformed JSON at byte {}: {what}", self.position),
            position: self.position,
            malformed: true,
        }
    }

    /// The error for a value of another type than expected, in DynamoDB's words.
    #[cold]
    pub(super) fn unexpected(&self, expected: &'static str, kind: JsonKind) -> JsonError {
        let message = match (kind, expected) {
            (JsonKind::Array, _) => "Start of list found where not expected".to_owned(),
            (JsonKind::Object, _) => "Start of structure or map found where not expected.".to_owned(),
            (JsonKind::String, _) => format!("STRING_VALUE cannot be converted to {expected}"),
            (JsonKind::Number, _) => format!("NUMBER_VALUE cannot be converted to {expected}"),
            (JsonKind::Bool, _) if self.bytes()[self.position] == b't' => {
                format!("TRUE_VALUE cannot be converted to {expected}")
            }
            (JsonKind::Bool, _) => format!("FALSE_VALUE cannot be converted to {expected}"),
            (JsonKind::Null, _) => format!("NULL_VALUE cannot be converted to {expected}"),
        };
        JsonError {
            message,
            position: self.position,
            malformed: false,
        }
    }

    fn skip_space(&mut self) {
        let bytes = self.bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.position) {
            self.position += 1;
        }
    }

    /// The next byte that is not whitespace, without taking it.
    #[inline]
    fn peek_byte(&mut self) -> Option<u8> {
        let byte = self.bytes().get(self.position).copied();
        if matches!(byte, Some(byte) if byte > b' ') {
            return byte;
        }
        self.skip_space();
        self.bytes().get(self.position).copied()
    }

    /// What kind of value stands next.
    ///
    /// # Errors
    /// No value stands next.
    pub fn peek(&mut self) -> Result<JsonKind, JsonError> {
        match self.peek_byte() {
            Some(b'{') => Ok(JsonKind::Object),
            Some(b'[') => Ok(JsonKind::Array),
            Some(b'"') => Ok(JsonKind::String),
            Some(b'-' | b'0'..=b'9') => Ok(JsonKind::Number),
            Some(b't' | b'f') => Ok(JsonKind::Bool),
            Some(b'n') => Ok(JsonKind::Null),
            Some(_) => Err(self.malformed("a value was expected")),
            None => Err(self.malformed("the text ends where a value was expected")),
        }
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        if self.depth > JSON_DEPTH_MAX {
            return Err(self.malformed("nested too deep"));
        }
        self.position += 1;
        self.entered = true;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.position += 1;
        self.entered = false;
    }

    /// Enters an object.
    ///
    /// # Errors
    /// Something else stands there, or it is nested too deep.
    pub fn begin_object(&mut self) -> Result<(), JsonError> {
        match self.peek_byte() {
            Some(b'{') => self.enter(),
            _ => Err(match self.peek()? {
                JsonKind::Array => self.unexpected("map", JsonKind::Array),
                _ => JsonError {
                    message: "Unexpected value type in payload".to_owned(),
                    position: self.position,
                    malformed: false,
                },
            }),
        }
    }

    /// The next key of the object, or `None` at its end, which is taken.
    ///
    /// # Errors
    /// Malformed JSON.
    pub fn next_key(&mut self) -> Result<Option<Cow<'a, str>>, JsonError> {
        if !self.next_in(b'}')? {
            return Ok(None);
        }
        if self.peek_byte() != Some(b'"') {
            return Err(self.malformed("a key was expected"));
        }
        let key = self.string_token()?;
        if self.peek_byte() != Some(b':') {
            return Err(self.malformed("a colon was expected"));
        }
        self.position += 1;
        Ok(Some(key))
    }

    /// Enters an array.
    ///
    /// # Errors
    /// Something else stands there, or it is nested too deep.
    pub fn begin_array(&mut self) -> Result<(), JsonError> {
        match self.peek_byte() {
            Some(b'[') => self.enter(),
            _ => Err(match self.peek()? {
                JsonKind::Object => self.unexpected("list", JsonKind::Object),
                _ => JsonError {
                    message: "Expected list or null".to_owned(),
                    position: self.position,
                    malformed: false,
                },
            }),
        }
    }

    /// Whether the array has another element; at its end, which is taken, `false`.
    ///
    /// # Errors
    /// Malformed JSON.
    pub fn next_element(&mut self) -> Result<bool, JsonError> {
        self.next_in(b']')
    }

    /// Moves to the next element of a container, or takes its end.
    fn next_in(&mut self, end: u8) -> Result<bool, JsonError> {
        match self.peek_byte() {
            Some(byte) if byte == end && self.depth > 0 => {
                self.leave();
                Ok(false)
            }
            Some(b',') if !self.entered => {
                self.position += 1;
                if self.peek_byte() == Some(end) {
                    return Err(self.malformed("an element was expected behind the comma"));
                }
                Ok(true)
            }
            Some(_) if self.entered => {
                self.entered = false;
                Ok(true)
            }
            _ => Err(self.malformed("a comma or the end was expected")),
        }
    }

    /// Takes a string.
    ///
    /// # Errors
    /// Something else stands there, or the string is malformed.
    pub fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek_byte() != Some(b'"') {
            let kind = self.peek()?;
            return Err(self.unexpected("String", kind));
        }
        self.string_token()
    }

    /// Takes `true` or `false`.
    ///
    /// # Errors
    /// Something else stands there.
    pub fn bool(&mut self) -> Result<bool, JsonError> {
        match self.peek()? {
            JsonKind::Bool if self.bytes()[self.position] == b't' => self.word("true").map(|()| true),
            JsonKind::Bool => self.word("false").map(|()| false),
            kind => Err(self.unexpected("Boolean", kind)),
        }
    }

    /// Takes `null` if it stands next, and says whether it did.
    ///
    /// # Errors
    /// Malformed JSON.
    pub fn null(&mut self) -> Result<bool, JsonError> {
        if self.peek_byte() != Some(b'n') {
            return Ok(false);
        }
        self.word("null").map(|()| true)
    }

    /// Takes a number and returns its text.
    ///
    /// # Errors
    /// Something else stands there, or the number is malformed.
    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        match self.peek()? {
            JsonKind::Number => self.number_token(),
            kind => Err(self.unexpected("Number", kind)),
        }
    }

    /// Takes a number as an integer; a fraction is cut off, as DynamoDB does.
    ///
    /// # Errors
    /// Something else stands there, or the number does not fit.
    pub fn integer(&mut self) -> Result<i64, JsonError> {
        let kind = self.peek()?;
        if kind != JsonKind::Number {
            return Err(self.unexpected("Integer", kind));
        }
        let text = self.number_token()?;
        if let Ok(value) = text.parse::<i64>() {
            return Ok(value);
        }
        let value = text.parse::<f64>().unwrap_or(f64::NAN).trunc();
        // Up to 2^53 every integer has its own f64.
        if value.abs() <= 9_007_199_254_740_992.0 {
            return Ok(value as i64);
        }
        Err(JsonError {
            message: "NUMBER_VALUE cannot be converted to Integer".to_owned(),
            position: self.position,
            malformed: false,
        })
    }

    /// Skips one value of any kind.
    ///
    /// # Errors
    /// Malformed JSON.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        self.skip_counting().map(drop)
    }

    /// As [`Reader::skip`]; how many objects and arrays contained each other there, 0 for none.
    pub(super) fn skip_counting(&mut self) -> Result<usize, JsonError> {
        // One bit per level that is open here: 1 for an object.
        let mut objects = [0_u64; JSON_DEPTH_MAX / 64];
        let base = self.depth;
        let mut deepest = 0;
        loop {
            let kind = self.peek()?;
            match kind {
                JsonKind::Object | JsonKind::Array => {
                    let level = self.depth - base;
                    self.enter()?;
                    deepest = deepest.max(level + 1);
                    let bit = 1 << (level % 64);
                    if kind == JsonKind::Object {
                        objects[level / 64] |= bit;
                    } else {
                        objects[level / 64] &= !bit;
                    }
                }
                JsonKind::String => drop(self.string_token()?),
                JsonKind::Number => drop(self.number_token()?),
                JsonKind::Bool => drop(self.bool()?),
                JsonKind::Null => drop(self.null()?),
            }
            // Leave every container that ends here, then stand before the next value.
            loop {
                if self.depth == base {
                    return Ok(deepest);
                }
                let level = self.depth - base - 1;
                let more = if objects[level / 64] >> (level % 64) & 1 == 1 {
                    self.next_key()?.is_some()
                } else {
                    self.next_element()?
                };
                if more {
                    break;
                }
            }
        }
    }

    /// Checks that nothing but whitespace follows the body's value.
    ///
    /// # Errors
    /// Something follows.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        match self.peek_byte() {
            None if self.depth == 0 => Ok(()),
            _ => Err(self.malformed("text behind the end")),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.bytes()[self.position..].starts_with(word.as_bytes()) {
            return Err(self.malformed("unknown word"));
        }
        self.position += word.len();
        self.entered = false;
        Ok(())
    }

    fn number_token(&mut self) -> Result<&'a str, JsonError> {
        let bytes = self.bytes();
        let start = self.position;
        let digits = |from: usize| {
            bytes[from..]
                .iter()
                .position(|byte| !byte.is_ascii_digit())
                .map_or(bytes.len(), |length| from + length)
        };
        let integer = start + usize::from(bytes[start] == b'-');
        let mut end = digits(integer);
        let mut valid = end > integer && (bytes[integer] != b'0' || end == integer + 1);
        if bytes.get(end) == Some(&b'.') {
            let fraction = end + 1;
            end = digits(fraction);
            valid &= end > fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            end = digits(exponent.min(bytes.len()));
            valid &= end > exponent;
        }
        if !valid {
            return Err(self.malformed("not a number"));
        }
        self.position = end;
        self.entered = false;
        Ok(&self.text[start..end])
    }

    /// Takes `{"S":"text"}` or `{"N":"text"}`, written without whitespace and escapes as every SDK does; most values are
    /// that. Where anything else stands, malformed JSON included, nothing is taken and `None` returned.
    pub(super) fn plain_scalar(&mut self) -> Option<(PlainScalar, &'a str)> {
        self.skip_space();
        let bytes = self.bytes();
        let scalar = match bytes.get(self.position..self.position + 6)? {
            b"{\"S\":\"" => PlainScalar::S,
            b"{\"N\":\"" => PlainScalar::N,
            _ => return None,
        };
        let start = self.position + 6;
        let end = find_special(bytes, start);
        if self.depth == JSON_DEPTH_MAX || bytes.get(end..end + 2)? != b"\"}" {
            return None;
        }
        self.position = end + 2;
        self.entered = false;
        Some((scalar, &self.text[start..end]))
    }

    /// Takes the string whose opening quote stands at the cursor.
    pub(super) fn string_token(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.position + 1;
        self.position = find_special(self.bytes(), start);
        self.entered = false;
        match self.bytes().get(self.position) {
            Some(b'"') => {
                let text = &self.text[start..self.position];
                self.position += 1;
                Ok(Cow::Borrowed(text))
            }
            Some(b'\\') => self.escaped_string(start).map(Cow::Owned),
            Some(_) => Err(self.malformed("a control character in a string")),
            None => Err(self.malformed("a string without an end")),
        }
    }

    /// The rest of a string that has an escape at the cursor.
    #[cold]
    fn escaped_string(&mut self, start: usize) -> Result<String, JsonError> {
        let mut text = self.text[start..self.position].to_owned();
        loop {
            match self.bytes().get(self.position) {
                Some(b'"') => {
                    self.position += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.position += 1;
                    text.push(self.escape()?);
                }
                Some(_) => return Err(self.malformed("a control character in a string")),
                None => return Err(self.malformed("a string without an end")),
            }
            let run = self.position;
            self.position = find_special(self.bytes(), run);
            text.push_str(&self.text[run..self.position]);
        }
    }

    /// The character of the escape whose backslash was taken.
    fn escape(&mut self) -> Result<char, JsonError> {
        let Some(&letter) = self.bytes().get(self.position) else {
            return Err(self.malformed("a string without an end"));
        };
        self.position += 1;
        Ok(match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                let code = match unit {
                    0xD800..=0xDBFF if self.bytes()[self.position..].starts_with(b"\\u") => {
                        self.position += 2;
                        let low = self.hex4()?;
                        if !(0xDC00..=0xDFFF).contains(&low) {
                            return Err(self.malformed("a high surrogate without its low one"));
                        }
                        0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    unit => unit,
                };
                char::from_u32(code).ok_or_else(|| self.malformed("a surrogate that stands alone"))?
            }
            _ => return Err(self.malformed("an unknown escape")),
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.bytes().get(self.position..self.position + 4).unwrap_or(&[]);
        let mut value = 0;
        for digit in digits {
            let digit = char::from(*digit)
                .to_digit(16)
                .ok_or_else(|| self.malformed("not four hexadecimal digits"))?;
            value = value << 4 | digit;
        }
        if digits.is_empty() {
            return Err(self.malformed("a string without an end"));
        }
        self.position += 4;
        Ok(value)
    }
}
