//! The constraints of a request's shape, collected the way DynamoDB reports them: up to ten in one message.

use super::ApiError;

const EMPTY_TABLE_NAME: &str =
    "Value at 'TableName' failed to satisfy constraint: Member must have length greater than or equal to 1";

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
        self.length(value, path, shortest);
    }

    /// As [`Constraints::name`], where a table may also be named by its ARN, which is judged when it is resolved.
    pub(crate) fn name_or_arn(&mut self, value: Option<&str>, path: &str, shortest: usize) {
        self.name(value.filter(|value| !is_arn(value)), path, shortest);
    }

    fn length(&mut self, value: &str, path: &str, shortest: usize) {
        self.length_within(value, path, shortest, NAME_BYTES_MAX);
    }

    /// As many bytes as these.
    pub(crate) fn length_within(&mut self, value: &str, path: &str, shortest: usize, longest: usize) {
        if value.len() < shortest {
            let constraint = format!("Member must have length greater than or equal to {shortest}");
            self.add(value, path, &constraint);
        }
        if value.len() > longest {
            let constraint = format!("Member must have length less than or equal to {longest}");
            self.add(value, path, &constraint);
        }
    }

    /// A violation in words of its own.
    pub(crate) fn add_text(&mut self, text: &str) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(text.to_owned());
        }
    }

    /// Between `least` and `most`, or absent, in the words of the newer layer, which does not repeat the value.
    pub(crate) fn within(&mut self, value: Option<i64>, name: &str, least: i64, most: i64) {
        let Some(value) = value else { return };
        let bound = if value < least {
            format!("greater than or equal to {least}")
        } else if value > most {
            format!("less than or equal to {most}")
        } else {
            return;
        };
        self.add_text(&format!(
            "Value at '{name}' failed to satisfy constraint: Member must have value {bound}"
        ));
    }

    pub(crate) fn no_empty_table_name(&mut self, value: Option<&str>) {
        if value == Some("") {
            self.add_text(EMPTY_TABLE_NAME);
        }
    }

    /// An empty `TableName` is reported before anything else, in the words of another layer.
    pub(crate) fn table_name_given(value: Option<&str>) -> Result<(), ApiError> {
        let mut constraints = Constraints::new();
        constraints.no_empty_table_name(value);
        constraints.finish()
    }

    /// The `TableName` of an operation on items: the first of its violations.
    pub(crate) fn item_table_name(&mut self, value: Option<&str>) {
        if value.is_some_and(is_arn) {
            return;
        }
        let mut all = Constraints::new();
        if value.is_some_and(|value| (NAME_BYTES_MIN..=NAME_BYTES_MAX).contains(&value.len())) {
            all.name(value, "tableName", NAME_BYTES_MIN);
        } else if let Some(value) = value {
            all.length(value, "tableName", NAME_BYTES_MIN);
        } else {
            all.missing("tableName");
        }
        self.errors.append(&mut all.errors);
    }

    /// The `TableName` of UpdateItem: all of its violations.
    pub(crate) fn whole_table_name(&mut self, value: Option<&str>) {
        self.required(value.as_ref(), "tableName");
        self.name_or_arn(value, "tableName", NAME_BYTES_MIN);
    }

    /// The `TableName` of a batch.
    pub(crate) fn table_name(&mut self, value: Option<&str>) {
        self.required(value.as_ref(), "tableName");
        self.name_or_arn(value, "tableName", 1);
    }

    /// The first of them, without the envelope.
    pub(crate) fn finish_bare(mut self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::validation(self.errors.swap_remove(0)))
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

/// Whether this is meant to be an ARN: no name has a colon.
pub(crate) fn is_arn(value: &str) -> bool {
    value.starts_with("arn:")
}

/// Whether all characters are allowed in the name of a table or index.
pub(crate) fn is_name(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !value.is_empty() && value.bytes().all(allowed)
}
