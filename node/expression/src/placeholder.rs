//! The request's `ExpressionAttributeNames` and `ExpressionAttributeValues`.
//!
//! Binding an expression marks the placeholders it uses; once all expressions of the request are bound, those that no
//! expression used are an error.

use std::sync::atomic::{AtomicBool, Ordering};

use cairn_item::{NAME_BYTES_MAX, Value};

use crate::error::{ExpressionError, LongKey, Problem};
use crate::token::is_placeholder;

/// Longest placeholder in bytes, with its `#` or `:`.
const KEY_BYTES_MAX: usize = 255;
/// Most bytes of all names, of all values, and of both together.
pub const PLACEHOLDER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// `used` is atomic only so that a request's values can be shared with the shard that evaluates on them; it is never
/// contended.
#[derive(Debug)]
struct Entry<T> {
    key: String,
    value: T,
    used: AtomicBool,
}

impl<T: Clone> Clone for Entry<T> {
    fn clone(&self) -> Entry<T> {
        Entry {
            key: self.key.clone(),
            value: self.value.clone(),
            used: AtomicBool::new(self.used.load(Ordering::Relaxed)),
        }
    }
}

/// Sorted by key.
#[derive(Debug, Clone)]
struct Entries<T>(Vec<Entry<T>>);

impl<T> Entries<T> {
    fn new(entries: Vec<(String, T)>) -> Entries<T> {
        let mut entries: Vec<_> = entries
            .into_iter()
            .map(|(key, value)| Entry {
                key,
                value,
                used: AtomicBool::new(false),
            })
            .collect();
        // Of a key given twice the later wins, as in the rest of the request.
        entries.reverse();
        entries.sort_by(|left, right| left.key.cmp(&right.key));
        entries.dedup_by(|later, earlier| later.key == earlier.key);
        Entries(entries)
    }

    fn check_keys(&self, map: &'static str, sigil: u8) -> Result<(), ExpressionError> {
        if self.0.is_empty() {
            return Err(ExpressionError::bare(Problem::MapEmpty(map)));
        }
        for entry in &self.0 {
            let problem = match entry.key.len() {
                0 => Problem::MapKeyEmpty(map),
                1..=KEY_BYTES_MAX if is_placeholder(&entry.key, sigil) => continue,
                1..=KEY_BYTES_MAX => Problem::MapKey {
                    map,
                    key: entry.key.clone(),
                },
                // DynamoDB says how long for names only.
                length => Problem::MapKeyTooLong(LongKey {
                    map,
                    bytes: (map == NAMES).then_some(length),
                }),
            };
            return Err(ExpressionError::bare(problem));
        }
        Ok(())
    }

    fn find(&self, key: &str) -> Option<&Entry<T>> {
        let index = self
            .0
            .binary_search_by(|entry| entry.key.as_str().cmp(key))
            .ok()?;
        Some(&self.0[index])
    }

    fn use_of(&self, key: &str) -> Option<&T> {
        let entry = self.find(key)?;
        entry.used.store(true, Ordering::Relaxed);
        Some(&entry.value)
    }

    fn check_used(&self, map: &'static str) -> Result<(), ExpressionError> {
        let unused: Vec<&str> = self
            .0
            .iter()
            .filter(|entry| !entry.used.load(Ordering::Relaxed))
            .map(|entry| entry.key.as_str())
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        Err(ExpressionError::bare(Problem::Unused {
            map,
            keys: unused.join(", "),
        }))
    }
}

const NAMES: &str = "ExpressionAttributeNames";
const VALUES: &str = "ExpressionAttributeValues";

/// `ExpressionAttributeNames`: attribute names by placeholder `#name`.
#[derive(Debug, Clone)]
pub struct Names {
    entries: Entries<String>,
    bytes: usize,
}

impl Names {
    /// For a request without the parameter.
    #[must_use]
    pub fn none() -> Names {
        Names {
            entries: Entries(Vec::new()),
            bytes: 0,
        }
    }

    /// The parameter as sent, in any order.
    ///
    /// # Errors
    /// No entries, a key that is not a placeholder, a name that is empty or too long, or too many bytes in all.
    pub fn new(entries: Vec<(String, String)>) -> Result<Names, ExpressionError> {
        let entries = Entries::new(entries);
        entries.check_keys(NAMES, b'#')?;
        let mut bytes = 0;
        for entry in &entries.0 {
            let error = match entry.value.len() {
                0 => Some("Empty attribute name"),
                bytes if bytes > NAME_BYTES_MAX => {
                    Some("Attribute name is too large, must be less than 65536 bytes")
                }
                _ => None,
            };
            if let Some(error) = error {
                let key = entry.key.clone();
                return Err(ExpressionError::bare(Problem::MapName { error, key }));
            }
            bytes += entry.value.len();
        }
        if bytes > PLACEHOLDER_BYTES_MAX {
            return Err(ExpressionError::bare(Problem::MapTooLarge(NAMES)));
        }
        Ok(Names { entries, bytes })
    }

    /// The name that a placeholder stands for, marking it as used.
    pub(crate) fn use_of(&self, placeholder: &str) -> Option<&str> {
        self.entries.use_of(placeholder).map(String::as_str)
    }

    /// Checks that the expressions bound so far use every entry.
    ///
    /// # Errors
    /// The entries that none uses.
    pub fn check_used(&self) -> Result<(), ExpressionError> {
        self.entries.check_used(NAMES)
    }
}

/// `ExpressionAttributeValues`: values by placeholder `:value`.
#[derive(Debug, Clone)]
pub struct Values {
    entries: Entries<Value>,
    bytes: usize,
}

impl Values {
    /// For a request without the parameter.
    #[must_use]
    pub fn none() -> Values {
        Values {
            entries: Entries(Vec::new()),
            bytes: 0,
        }
    }

    /// The parameter as sent, in any order. The values keep the invariants of `cairn_item`.
    ///
    /// # Errors
    /// No entries, a key that is not a placeholder, or too many bytes in all.
    pub fn new(entries: Vec<(String, Value)>) -> Result<Values, ExpressionError> {
        let entries = Entries::new(entries);
        entries.check_keys(VALUES, b':')?;
        let bytes = entries.0.iter().map(|entry| entry.value.size()).sum();
        if bytes > PLACEHOLDER_BYTES_MAX {
            return Err(ExpressionError::bare(Problem::MapTooLarge(VALUES)));
        }
        Ok(Values { entries, bytes })
    }

    /// The placeholder of value `index` of [`Values::numbered`].
    pub(crate) fn number(index: usize) -> String {
        format!(":{index:08}")
    }

    /// Values without placeholders of their own.
    pub(crate) fn numbered(values: Vec<Value>) -> Values {
        let entries = values.into_iter().enumerate();
        Values {
            entries: Entries::new(
                entries
                    .map(|(index, value)| (Values::number(index), value))
                    .collect(),
            ),
            bytes: 0,
        }
    }

    /// Checks names and values together.
    ///
    /// # Errors
    /// More than [`PLACEHOLDER_BYTES_MAX`] bytes.
    pub fn check_size(&self, names: &Names) -> Result<(), ExpressionError> {
        if self.bytes + names.bytes > PLACEHOLDER_BYTES_MAX {
            return Err(ExpressionError::bare(Problem::MapsTooLarge));
        }
        Ok(())
    }

    /// The value that a placeholder stands for, marking it as used.
    pub(crate) fn use_of(&self, placeholder: &str) -> Option<&Value> {
        self.entries.use_of(placeholder)
    }

    /// Checks that the expressions bound so far use every entry.
    ///
    /// # Errors
    /// The entries that none uses.
    pub fn check_used(&self) -> Result<(), ExpressionError> {
        self.entries.check_used(VALUES)
    }
}
