//! DynamoDB's expressions and PartiQL statements: read, checked, evaluated on archived items, and printed back.
//!
//! - An expression is **parsed** from its text alone, so that the parsed form can be kept and used for every request that sends
//!   the same text. It is **bound** to a request's [`Names`] and [`Values`], which is where everything that needs them is
//!   checked, in DynamoDB's order. What is bound is **evaluated**, applied or resolved any number of times.
//! - Every refusal is an [`ExpressionError`] whose `Display` is DynamoDB's message, to the byte.
//! - No recursion depends on the length of an expression before its number of operators was checked: input cannot exhaust the
//!   stack.
//! - Items are read in place ([`cairn_item::ItemView`]); only what an update or a projection keeps is copied.
//!
//! After all expressions of a request are bound, [`Names::check_used`] and [`Values::check_used`] refuse what none of them used.

mod bind;
mod condition;
mod error;
pub mod key_condition;
pub mod legacy;
mod parser;
pub mod partiql;
mod paths;
mod placeholder;
mod projection;
mod reserved;
mod token;
mod tree;
mod update;

pub use bind::{IN_OPERANDS_MAX, OPERATORS_MAX, PATH_STEPS_MAX};
pub use condition::{BoundCondition, Condition};
pub use error::{ExpressionError, LongKey, Parameter, Problem, Span};
pub use key_condition::{KeyAttribute, KeyClauses, KeyCondition, KeyConditions, KeySchema};
pub use parser::EXPRESSION_BYTES_MAX;
pub use placeholder::{Names, PLACEHOLDER_BYTES_MAX, Values};
pub use projection::{BoundProjection, Projection};
pub use update::{BoundUpdate, Update};
