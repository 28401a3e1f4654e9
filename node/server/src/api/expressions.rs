//! The parameters that carry expressions, and the names and values they use.
//!
//! Order of the checks, as DynamoDB has it: expression and non-expression parameters in one request; names or values
//! without an expression; the maps of names and values; each expression; names and values that none used.

use cairn_expression::{ExpressionError, Names, Values};
use cairn_item::json::Reader;
use cairn_item::{ItemError, Value};

use super::ApiError;
use super::decode::Text;

impl From<ExpressionError> for ApiError {
    fn from(error: ExpressionError) -> ApiError {
        ApiError::validation(error.to_string())
    }
}

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` as they stand in the request.
#[derive(Default)]
pub(super) struct Placeholders {
    names: Option<Vec<(String, String)>>,
    values: Option<Vec<(String, Result<Value, ItemError>)>>,
}

impl Placeholders {
    pub(super) fn member(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<bool, ApiError> {
        match name {
            "ExpressionAttributeNames" => {
                let mut names = Vec::new();
                reader.begin_object()?;
                while let Some(key) = reader.next_key()? {
                    names.push((key.into_owned(), reader.string()?.into_owned()));
                }
                self.names = Some(names);
                Ok(true)
            }
            "ExpressionAttributeValues" => {
                let mut values = Vec::new();
                reader.begin_object()?;
                while let Some(key) = reader.next_key()? {
                    values.push((key.into_owned(), reader.checked_value()?));
                }
                self.values = Some(values);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Checks them against the expressions of the request. `valued` are the expression parameters of the operation
    /// that may use values, by name, with what the request gave; `given` is whether it has any expression at all.
    pub(super) fn resolve(
        self,
        given: bool,
        valued: &[(&str, &Text<'_>)],
    ) -> Result<(Names, Values), ApiError> {
        if self.names.is_some() && !given {
            return Err(ApiError::validation(
                "ExpressionAttributeNames can only be specified when using expressions",
            ));
        }
        if self.values.is_some() && valued.iter().all(|(_, expression)| expression.is_none()) {
            let names: Vec<&str> = valued.iter().map(|(name, _)| *name).collect();
            let are = if names.len() > 1 { "are" } else { "is" };
            return Err(ApiError::validation(format!(
                "ExpressionAttributeValues can only be specified when using expressions: {} {are} null",
                names.join(" and ")
            )));
        }
        let names = self.names.map_or_else(|| Ok(Names::none()), Names::new)?;
        let mut checked = Vec::new();
        let present = self.values.is_some();
        for (key, value) in self.values.into_iter().flatten() {
            let value = value.map_err(|error| {
                ApiError::validation(format!(
                    "ExpressionAttributeValues contains invalid value: {error} for key {key}"
                ))
            })?;
            checked.push((key, value));
        }
        let values = if present {
            Values::new(checked)?
        } else {
            Values::none()
        };
        values.check_size(&names)?;
        Ok((names, values))
    }
}

/// Refuses a request that has parameters of both kinds; each list holds the names of those present.
pub(super) fn check_not_mixed(expressions: &[&str], others: &[&str]) -> Result<(), ApiError> {
    if expressions.is_empty() || others.is_empty() {
        return Ok(());
    }
    Err(ApiError::validation(format!(
        "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: \
         {{{}}} Expression parameters: {{{}}}",
        others.join(", "),
        expressions.join(", ")
    )))
}
