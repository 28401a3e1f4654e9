//! Expressions on their way to the shard that owns the items: parsed and checked where the request came in, evaluated where
//! the item is.
//!
//! An expression travels as its parsed form, which requests share, and the request's names and values; both are behind
//! `Arc`s, so a request of several partitions sends them several times without copying. They are bound again on
//! arrival, which cannot fail: they were bound once to be checked before the request was sent.

use std::sync::Arc;

use cairn_expression::{
    BoundCondition, BoundUpdate, Condition as ParsedCondition, ExpressionError, Names, Problem,
    Update as ParsedUpdate, Values,
};
use cairn_item::json::write_item_view;
use cairn_item::{Item, ItemView};

use crate::api::ApiError;
use crate::api::error::{CONDITION_FALSE, CONDITIONAL_CHECK_FAILED};

const CHECKED: &str = "what is sent was bound before, to check it";

/// The names and values of one request.
#[derive(Debug)]
pub struct Operands {
    /// `ExpressionAttributeNames`
    pub names: Names,
    /// `ExpressionAttributeValues`
    pub values: Values,
}

/// What must be true of an item: for a write to happen, or for a read to give it out.
#[derive(Debug, Clone)]
pub struct Condition {
    parsed: Arc<ParsedCondition>,
    operands: Arc<Operands>,
}

/// The items that a page gives out.
pub type Filter = Condition;

impl Condition {
    /// Both must have been bound together without an error.
    #[must_use]
    pub fn new(parsed: Arc<ParsedCondition>, operands: Arc<Operands>) -> Condition {
        Condition { parsed, operands }
    }

    /// Ready to be evaluated.
    #[must_use]
    pub fn bound(&self) -> BoundCondition<'_> {
        self.parsed
            .bind(&self.operands.names, &self.operands.values)
            .expect(CHECKED)
    }
}

/// An expression of an update and its operands, which have been bound together without an error.
pub type UpdateParts = (Arc<ParsedUpdate>, Arc<Operands>);

/// What is made of an item.
#[derive(Debug, Clone)]
pub struct Update {
    expression: Option<UpdateParts>,
    key: Item,
    /// The key attribute that it would change.
    refused: Option<String>,
}

impl Update {
    /// An update of the item of `key`; without an expression it only makes sure that there is one.
    #[must_use]
    pub fn new(expression: Option<UpdateParts>, key: Item) -> Update {
        Update {
            expression,
            key,
            refused: None,
        }
    }

    /// The expression, ready to be applied.
    #[must_use]
    pub fn bound(&self) -> Option<BoundUpdate<'_>> {
        let (parsed, operands) = self.expression.as_ref()?;
        Some(parsed.bind(&operands.names, &operands.values).expect(CHECKED))
    }

    /// The expression changes this attribute of the key: the update fails once its condition is found true.
    pub(crate) fn refuse(&mut self, refused: Option<String>) {
        self.refused = refused;
    }

    /// The new item, which is valid.
    ///
    /// # Errors
    /// The update does not fit the old item, or the new one would not be valid.
    pub(crate) fn apply(&self, old: Option<ItemView<'_>>) -> Result<Item, ApiError> {
        if let Some(name) = &self.refused {
            return Err(ExpressionError::bare(Problem::UpdatesKey(name.clone())).into());
        }
        Ok(match (self.bound(), old) {
            (Some(update), Some(old)) => update.apply(old)?,
            (Some(update), None) => update.create(&self.key)?,
            (None, Some(old)) => old.to_item(),
            (None, None) => self.key.clone(),
        })
    }
}

/// A condition was false; `old` is the item to tell about.
pub(crate) fn condition_failed(old: Option<ItemView<'_>>) -> ApiError {
    let mut error = ApiError::new(CONDITIONAL_CHECK_FAILED, CONDITION_FALSE);
    if let Some(old) = old {
        let mut extra = b"\"Item\":".to_vec();
        write_item_view(&mut extra, old);
        error.extra = String::from_utf8(extra).expect("JSON is UTF-8");
    }
    error
}
