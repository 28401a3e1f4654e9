//! Which partition a key belongs to.

use cairn_item::{KeyValue, StorageKey};

use crate::message::KeyPart;

/// The hash of a partition key under its table's seed; `None` when the key is no valid one, which the node will say.
pub(super) fn hash(seed: u64, key: KeyPart<'_>) -> Option<u64> {
    let key = match key {
        KeyPart::S(text) => KeyValue::S(text.to_owned()),
        KeyPart::N(text) => KeyValue::N(text.parse().ok()?),
        KeyPart::B(bytes) => KeyValue::B(bytes.to_vec()),
    };
    Some(StorageKey::hash(seed, &key))
}
