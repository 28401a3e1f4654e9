//! What differs on purpose, with its source. docs/compatibility.md has the same rows in words.
//!
//! A rule says as exactly as it can what is explained: which requests, which answer of either side, and that nothing else
//! differs. One that takes more than it explains hides what is really wrong behind it.

mod capacity;
mod items;
#[cfg(test)]
mod near_misses;
mod shape;
mod statements;
mod tables;
mod transactions;

use crate::client::Answer;
use crate::requests::Request;

/// A difference that is meant to be.
struct Known {
    name: &'static str,
    source: &'static str,
    is: fn(&Request, &Answer, &Answer) -> bool,
}

/// How it is said that a path leads into a key.
const PATHS_OF_KEYS: &str = "Key attributes must be scalars; ";
/// How it is said that an index's key attribute is of another type.
const TYPE_OF_INDEX: &str = "Type mismatch for Index Key";
/// The only one behind which both have stored different items, though both took the request.
const SET_WITHOUT_ACTION: &str = "a set in AttributeUpdates without an action";

fn all() -> impl Iterator<Item = &'static Known> {
    let lists = [
        items::RULES,
        statements::RULES,
        transactions::RULES,
        tables::RULES,
    ];
    lists.into_iter().flatten()
}

/// The name of the difference between these answers, when it is on purpose.
pub(crate) fn explanation(request: &Request, node: &Answer, peer: &Answer) -> Option<&'static str> {
    all()
        .find(|known| (known.is)(request, node, peer))
        .map(|known| known.name)
}

/// Whether both hold other items after this difference, though both took the request.
pub(crate) fn parts(name: &str) -> bool {
    name == SET_WITHOUT_ACTION
}

/// Where it is written that it should be so.
pub(crate) fn source(name: &str) -> &'static str {
    all()
        .find(|known| known.name == name)
        .map_or("", |known| known.source)
}
