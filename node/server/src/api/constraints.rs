//! The constraints of a request's shape, collected the way DynamoDB reports them: up to ten in one message.

use super::ApiError;

/// DynamoDB reports no more than this many at once.
const ERRORS_MAX: usize = 10;

/// Violations found so far.
#[derive(Debug, Default)]
pub(crate) struct Constraints {
    errors: Vec<String>,
}

impl Constraints {
    pub(crate) fn new() -> Constraints {
        Constraints::default()
    }

    /// The value `value` at `path` violates `constraint`.
    pub(crate) fn add(&mut self, value: &str, path: &str, constraint: &str) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(format!(
                "Value '{value}' at '{path}' failed to satisfy constraint: {constraint}"
            ));
        }
    }

    /// There is no value at `path`.
    pub(crate) fn missing(&mut self, path: &str) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(format!(
                "Value null at '{path}' failed to satisfy constraint: Member must not be null"
            ));
        }
    }

    /// As [`Constraints::missing`], when it is.
    pub(crate) fn required<T>(&mut self, value: Option<&T>, path: &str) {
        if value.is_none() {
            self.missing(path);
        }
    }

    /// One of `allowed`, or absent.
    pub(crate) fn one_of(&mut self, value: Option<&str>, path: &str, allowed: &[&str]) {
        if let Some(value) = value
            && !allowed.contains(&value)
        {
            let constraint = format!("Member must satisfy enum value set: [{}]", allowed.join(", "));
            self.add(value, path, &constraint);
        }
    }

    /// At least `least`, or absent.
    pub(crate) fn at_least(&mut self, value: Option<i64>, path: &str, least: i64) {
        if let Some(value) = value
            && value < least
        {
            let constraint = format!("Member must have value greater than or equal to {least}");
            self.add(&value.to_string(), path, &constraint);
        }
    }

    /// At most `most`, or absent.
    pub(crate) fn at_most(&mut self, value: Option<i64>, path: &str, most: i64) {
        if let Some(value) = value
            && value > most
        {
            let constraint = format!("Member must have value less than or equal to {most}");
            self.add(&value.to_string(), path, &constraint);
        }
    }

    /// A name of a table or index, or absent.
    pub(crate) fn name(&mut self, value: Option<&str>, path: &str, shortest: usize) {
        let Some(value) = value else { return };
        if !value.is_empty() && !is_name(value) || value.is_empty() && shortest > 1 {
            self.add(
                value,
                path,
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
            );
        }
        if value.len() < shortest {
            let constraint = format!("Member must have length greater than or equal to {shortest}");
            self.add(value, path, &constraint);
        }
        if value.len() > NAME_BYTES_MAX {
            let constraint = format!("Member must have length less than or equal to {NAME_BYTES_MAX}");
            self.add(value, path, &constraint);
        }
    }

    /// The `TableName` of a read or write.
    pub(crate) fn table_name(&mut self, value: Option<&str>) {
        self.required(value.as_ref(), "tableName");
        self.name(value, "tableName", 1);
    }

    /// All of them as one error.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let plural = if self.errors.len() == 1 { "" } else { "s" };
        Err(ApiError::validation(format!(
            "{} validation error{plural} detected: {}",
            self.errors.len(),
            self.errors.join("; ")
        )))
    }
}

/// Shortest name of a table or index.
pub(crate) const NAME_BYTES_MIN: usize = 3;
/// Longest name of a table or index.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// Whether all characters are allowed in the name of a table or index.
pub(crate) fn is_name(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !value.is_empty() && value.bytes().all(allowed)
}
