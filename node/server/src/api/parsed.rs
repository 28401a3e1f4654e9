//! Parsed expressions and statements, kept for the requests that send the same text again.
//!
//! What is kept depends on the text alone; names and values belong to a request. Each shard has its own, bounded in number and
//! in length of text: an application sends few different expressions, and a shelf that has filled up with other
//! ones starts anew.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_expression::partiql::{Statement, StatementError};
use cairn_expression::{Condition, ExpressionError, KeyCondition, Parameter, Projection, Update};

/// Expressions of one kind that are kept.
const SHELF_MAX: usize = 256;
/// Longest text that is kept, in bytes; longer ones are parsed each time.
const TEXT_BYTES_MAX: usize = 1024;

/// The expressions of one kind.
struct Shelf<T>(RefCell<BTreeMap<Box<str>, Arc<T>>>);

impl<T> Default for Shelf<T> {
    fn default() -> Shelf<T> {
        Shelf(RefCell::default())
    }
}

impl<T> Shelf<T> {
    fn get<E>(&self, text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some(kept) = self.0.borrow().get(text) {
            return Ok(Arc::clone(kept));
        }
        let parsed = Arc::new(parse(text)?);
        if text.len() <= TEXT_BYTES_MAX {
            let mut shelf = self.0.borrow_mut();
            if shelf.len() >= SHELF_MAX {
                shelf.clear();
            }
            shelf.insert(text.into(), Arc::clone(&parsed));
        }
        Ok(parsed)
    }
}

/// The parsed expressions of one shard.
#[derive(Default)]
pub(super) struct Parsed {
    conditions: Shelf<Condition>,
    filters: Shelf<Condition>,
    key_conditions: Shelf<KeyCondition>,
    projections: Shelf<Projection>,
    updates: Shelf<Update>,
    statements: Shelf<Statement>,
}

impl Parsed {
    pub(super) fn condition(&self, text: &str) -> Result<Arc<Condition>, ExpressionError> {
        self.conditions
            .get(text, |text| Condition::parse(Parameter::Condition, text))
    }

    pub(super) fn filter(&self, text: &str) -> Result<Arc<Condition>, ExpressionError> {
        self.filters
            .get(text, |text| Condition::parse(Parameter::Filter, text))
    }

    pub(super) fn key_condition(&self, text: &str) -> Result<Arc<KeyCondition>, ExpressionError> {
        self.key_conditions.get(text, KeyCondition::parse)
    }

    pub(super) fn projection(&self, text: &str) -> Result<Arc<Projection>, ExpressionError> {
        self.projections.get(text, Projection::parse)
    }

    pub(super) fn update(&self, text: &str) -> Result<Arc<Update>, ExpressionError> {
        self.updates.get(text, Update::parse)
    }

    pub(super) fn statement(&self, text: &str) -> Result<Arc<Statement>, StatementError> {
        self.statements.get(text, Statement::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_comes_again_and_not_without_end() {
        let parsed = Parsed::default();
        let first = parsed.condition("a = :a").unwrap();
        assert!(Arc::ptr_eq(&first, &parsed.condition("a = :a").unwrap()));
        assert!(!Arc::ptr_eq(&first, &parsed.filter("a = :a").unwrap()));
        for number in 0..10 * SHELF_MAX {
            parsed.condition(&format!("a{number} = :a")).unwrap();
            assert!(parsed.conditions.0.borrow().len() <= SHELF_MAX);
        }
        let long = format!("{} = :a", "a".repeat(TEXT_BYTES_MAX));
        let long = (parsed.condition(&long).unwrap(), parsed.condition(&long).unwrap());
        assert!(!Arc::ptr_eq(&long.0, &long.1));
        assert!(parsed.condition("a =").is_err());
    }
}
