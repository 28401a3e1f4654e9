//! The parameters that carry expressions, and the names and values they use.
//!
//! Order of the checks, as DynamoDB has it: expression and non-expression parameters in one request; names or values
//! without an expression; the maps of names and values; each expression; names and values that none used.
//!
//! Writes of single items report all of these but a malformed placeholder in an envelope; reads report them bare.

use std::fmt;

use cairn_expression::{ExpressionError, Names, Problem, Values};
use cairn_item::json::{Reader, write_string, write_value};
use cairn_item::{ItemError, Value};

use super::ApiError;
use super::decode::Text;
use crate::route::Operands;

impl From<ExpressionError> for ApiError {
    fn from(error: ExpressionError) -> ApiError {
        ApiError::validation(error.to_string())
    }
}

/// How an operation reports what is wrong with its expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// GetItem, BatchGetItem, Query, Scan.
    Bare,
    /// PutItem, DeleteItem, UpdateItem.
    Enveloped,
}

impl Style {
    pub(super) fn refuse(self, problem: impl fmt::Display) -> ApiError {
        match self {
            Style::Bare => ApiError::validation(problem.to_string()),
            Style::Enveloped => envelope(problem),
        }
    }

    /// Of the map of names or values.
    fn refuse_map(self, error: &ExpressionError) -> ApiError {
        match error.problem {
            Problem::MapKey { .. } | Problem::MapKeyEmpty(_) | Problem::MapKeyTooLong { .. } => {
                Style::Bare.refuse(error)
            }
            _ => self.refuse(error),
        }
    }

    /// Of a value that is not among the expressions' values.
    pub(super) fn refuse_value(self, error: &ItemError) -> ApiError {
        match error {
            ItemError::StringSetEmpty
            | ItemError::NumberSetEmpty
            | ItemError::BinarySetEmpty
            | ItemError::ValueEmpty
            | ItemError::ValueAmbiguous => Style::Bare.refuse(error),
            _ => self.refuse(error),
        }
    }

    /// Of a value of `ExpressionAttributeValues`.
    fn refuse_named(self, key: &str, error: &ItemError) -> ApiError {
        let named = format_args!("ExpressionAttributeValues contains invalid value: {error} for key {key}");
        match (error, self) {
            (ItemError::StringSetEmpty | ItemError::NumberSetEmpty | ItemError::BinarySetEmpty, _) => {
                self.refuse(named)
            }
            (ItemError::ValueEmpty, Style::Bare) | (ItemError::ValueAmbiguous, Style::Enveloped) => {
                Style::Bare.refuse(named)
            }
            (ItemError::ValueEmpty, Style::Enveloped) => Style::Bare.refuse(error),
            (ItemError::NestingTooDeep { far: true }, Style::Enveloped) => Style::Bare.refuse(named),
            _ => self.refuse(error),
        }
    }
}

/// The form of a single refusal by the validation that comes before everything else.
pub(super) fn envelope(problem: impl fmt::Display) -> ApiError {
    ApiError::validation(format!("1 validation error detected: {problem}"))
}

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` as they stand in the request.
#[derive(Default)]
pub(super) struct Placeholders {
    names: Option<Vec<(String, String)>>,
    values: Option<Vec<(String, Result<Value, ItemError>)>>,
}

impl Placeholders {
    pub(super) fn none(&self) -> bool {
        self.names.is_none() && self.values.is_none()
    }

    /// The names as given.
    pub(super) fn names(&self) -> Option<&[(String, String)]> {
        self.names.as_deref()
    }

    /// Appends what makes them the same as others.
    pub(super) fn fingerprint(&self, out: &mut Vec<u8>) {
        let mut names: Vec<&(String, String)> = self.names.iter().flatten().collect();
        names.sort();
        for (name, attribute) in names {
            write_string(out, name);
            write_string(out, attribute);
        }
        let mut values: Vec<_> = self.values.iter().flatten().collect();
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (name, value) in values {
            write_string(out, name);
            if let Ok(value) = value {
                write_value(out, value);
            }
        }
    }

    pub(super) fn member(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<bool, ApiError> {
        Ok(self.names_member(name, reader)? || self.values_member(name, reader)?)
    }

    /// For operations whose expressions use no values.
    pub(super) fn names_member(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<bool, ApiError> {
        if name != "ExpressionAttributeNames" {
            return Ok(false);
        }
        let mut names = Vec::new();
        reader.begin_object()?;
        while let Some(key) = reader.next_key()? {
            names.push((key.into_owned(), reader.string()?.into_owned()));
        }
        self.names = Some(names);
        Ok(true)
    }

    fn values_member(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<bool, ApiError> {
        if name != "ExpressionAttributeValues" {
            return Ok(false);
        }
        let mut values = Vec::new();
        reader.begin_object()?;
        while let Some(key) = reader.next_key()? {
            values.push((key.into_owned(), reader.checked_value()?));
        }
        self.values = Some(values);
        Ok(true)
    }

    /// Checks them beside the other parameters of the request. `expressions` and `others` are its parameters that carry
    /// expressions and those that expressions replaced, in DynamoDB's order, each with whether it is there.
    pub(super) fn resolve(
        self,
        style: Style,
        expressions: &[(&'static str, bool)],
        others: &[(&'static str, bool)],
    ) -> Result<Operands, ApiError> {
        let given = names_of(expressions, true);
        let others = names_of(others, true);
        if !given.is_empty() && !others.is_empty() {
            return Err(style.refuse(format_args!(
                "Can not use both expression and non-expression parameters in the same request: Non-expression \
                 parameters: {{{}}} Expression parameters: {{{}}}",
                others.join(", "),
                given.join(", ")
            )));
        }
        if self.names.is_some() && given.is_empty() {
            return Err(style.refuse("ExpressionAttributeNames can only be specified when using expressions"));
        }
        let without = names_of(expressions, false);
        let valued = |name: &&str| *name != "ProjectionExpression";
        if self.values.is_some() && !given.iter().any(valued) {
            let missing: Vec<&str> = without.into_iter().filter(valued).collect();
            let are = if missing.len() > 1 { "are" } else { "is" };
            let which = match style {
                Style::Bare => format!(": {} {are} null", missing.join(" and ")),
                Style::Enveloped => String::new(),
            };
            return Err(style.refuse(format_args!(
                "ExpressionAttributeValues can only be specified when using expressions{which}"
            )));
        }
        let names = match self.names {
            Some(names) => Names::new(names).map_err(|error| style.refuse_map(&error))?,
            None => Names::none(),
        };
        let values = match self.values {
            Some(values) => check_values(style, values)?,
            None => Values::none(),
        };
        values.check_size(&names).map_err(|error| style.refuse(error))?;
        Ok(Operands { names, values })
    }
}

/// The keys are checked before the values.
fn check_values(style: Style, values: Vec<(String, Result<Value, ItemError>)>) -> Result<Values, ApiError> {
    let mut wrong: Option<(String, ItemError)> = None;
    let mut checked = Vec::with_capacity(values.len());
    for (key, value) in values {
        match value {
            Ok(value) => checked.push((key, value)),
            Err(error) => {
                checked.push((key.clone(), Value::Null));
                // Of several the one is reported that comes first in the order of the keys.
                if wrong.as_ref().is_none_or(|(first, _)| key < *first) {
                    wrong = Some((key, error));
                }
            }
        }
    }
    let values = Values::new(checked).map_err(|error| style.refuse_map(&error))?;
    match wrong {
        Some((key, error)) => Err(style.refuse_named(&key, &error)),
        None => Ok(values),
    }
}

fn names_of(parameters: &[(&'static str, bool)], given: bool) -> Vec<&'static str> {
    let wanted = parameters.iter().filter(|(_, present)| *present == given);
    wanted.map(|(name, _)| *name).collect()
}

/// The last check of a request's expressions, once all of them are bound.
pub(super) fn check_used(style: Style, operands: &Operands) -> Result<(), ApiError> {
    let used = operands
        .names
        .check_used()
        .and_then(|()| operands.values.check_used());
    used.map_err(|error| style.refuse(error))
}

/// Whether a parameter is there, by its name.
pub(super) fn present(name: &'static str, text: &Text<'_>) -> (&'static str, bool) {
    (name, text.is_some())
}
