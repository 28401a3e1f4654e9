//! Condition, filter, projection, update and key-condition expressions.
