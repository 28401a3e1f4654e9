//! Primary keys and the bytes under which the engine stores an item.
//!
//! ```text
//! storage key   | space u8 | hash u64 BE | partition key, escaped | 00 01 | sort key, escaped | 00 01 |
//! local index   | 2 u8 | hash u64 BE | index u16 BE | partition key | index's sort key | sort key |      each escaped, 00 01
//! global index  | 1 u8 | hash u64 BE | index's partition keys | index's sort keys | partition key | sort key | likewise
//! escaped       every byte as it is, but 00 as 00 FF
//! ```
//!
//! - The sort key is there when the table has one. String keys are their UTF-8 bytes, numbers their canonical form,
//!   binaries themselves; the type is the schema's business and not in the key.
//! - Comparing storage keys compares space, hash, partition key, sort key, in this order: a component that ends sorts
//!   below one that goes on (`00 01` is below every escaped byte), and no component is a prefix of another, so that a
//!   version may follow the key.
//! - The hash is xxh3 of the unescaped partition key, seeded per table, so that the partitions of a table fill evenly
//!   and no one can aim keys at one of them without knowing the seed.

use std::ops::Bound;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Item, ItemError, ItemView, Number, Value, ValueView};

/// Longest partition key value in bytes.
pub const PARTITION_KEY_BYTES_MAX: usize = 2048;
/// Longest sort key value in bytes.
pub const SORT_KEY_BYTES_MAX: usize = 1024;

const TERMINATOR: [u8; 2] = [0x00, 0x01];
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xFF];
/// Space byte and hash.
const HEAD_BYTES: usize = 9;

/// Type of a key attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// String.
    S,
    /// Number.
    N,
    /// Binary.
    B,
}

impl KeyType {
    /// DynamoDB's name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KeyType::S => "S",
            KeyType::N => "N",
            KeyType::B => "B",
        }
    }

    /// The type of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<KeyType> {
        match name {
            "S" => Some(KeyType::S),
            "N" => Some(KeyType::N),
            "B" => Some(KeyType::B),
            _ => None,
        }
    }
}

/// Value of a key attribute. Equal keys have equal values: `1` and `1.0` are one number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// String.
    S(String),
    /// Number.
    N(Number),
    /// Binary.
    B(Vec<u8>),
}

impl KeyValue {
    /// Takes the value of the key attribute `name`, which must be of type `expected` and not empty.
    ///
    /// # Errors
    /// Another type ([`ItemError::KeyTypeMismatch`]) or an empty value. Length is checked by
    /// [`KeyValue::check_partition_key`] and [`KeyValue::check_sort_key`].
    pub fn from_value(name: &str, value: &Value, expected: KeyType) -> Result<KeyValue, ItemError> {
        let key = match (value, expected) {
            (Value::S(text), KeyType::S) => KeyValue::S(text.clone()),
            (Value::N(number), KeyType::N) => KeyValue::N(*number),
            (Value::B(bytes), KeyType::B) => KeyValue::B(bytes.clone()),
            _ => return Err(mismatch(name, expected, value.type_name())),
        };
        key.check_not_empty(name)?;
        Ok(key)
    }

    /// [`KeyValue::from_value`] for an archived value.
    ///
    /// # Errors
    /// As there.
    pub fn from_view(name: &str, value: ValueView<'_>, expected: KeyType) -> Result<KeyValue, ItemError> {
        let key = match (value, expected) {
            (ValueView::S(text), KeyType::S) => KeyValue::S(text.to_owned()),
            (ValueView::N(number), KeyType::N) => KeyValue::N(number),
            (ValueView::B(bytes), KeyType::B) => KeyValue::B(bytes.to_vec()),
            _ => return Err(mismatch(name, expected, value.type_name())),
        };
        key.check_not_empty(name)?;
        Ok(key)
    }

    /// Takes the key attribute `name` out of an item.
    ///
    /// # Errors
    /// The attribute is missing ([`ItemError::KeyMissing`]), of another type or empty.
    pub fn from_item(item: &Item, name: &str, expected: KeyType) -> Result<KeyValue, ItemError> {
        let value = item
            .get(name)
            .ok_or_else(|| ItemError::KeyMissing(name.to_owned()))?;
        KeyValue::from_value(name, value, expected)
    }

    /// Takes the key attribute `name` out of an archived item.
    ///
    /// # Errors
    /// As [`KeyValue::from_item`].
    pub fn from_item_view(item: ItemView<'_>, name: &str, expected: KeyType) -> Result<KeyValue, ItemError> {
        let value = item
            .get(name)
            .ok_or_else(|| ItemError::KeyMissing(name.to_owned()))?;
        KeyValue::from_view(name, value, expected)
    }

    fn check_not_empty(&self, name: &str) -> Result<(), ItemError> {
        match self {
            KeyValue::S(text) if text.is_empty() => Err(ItemError::KeyEmptyString(name.to_owned())),
            KeyValue::B(bytes) if bytes.is_empty() => Err(ItemError::KeyEmptyBinary(name.to_owned())),
            _ => Ok(()),
        }
    }

    /// Checks the length allowed to a partition key.
    ///
    /// # Errors
    /// More than [`PARTITION_KEY_BYTES_MAX`] bytes.
    pub fn check_partition_key(&self) -> Result<(), ItemError> {
        if self.bytes().len() > PARTITION_KEY_BYTES_MAX {
            Err(ItemError::PartitionKeyTooLong)
        } else {
            Ok(())
        }
    }

    /// Checks the length allowed to a sort key.
    ///
    /// # Errors
    /// More than [`SORT_KEY_BYTES_MAX`] bytes.
    pub fn check_sort_key(&self) -> Result<(), ItemError> {
        if self.bytes().len() > SORT_KEY_BYTES_MAX {
            Err(ItemError::SortKeyTooLong)
        } else {
            Ok(())
        }
    }

    /// The value as an attribute value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            KeyValue::S(text) => Value::S(text.clone()),
            KeyValue::N(number) => Value::N(*number),
            KeyValue::B(bytes) => Value::B(bytes.clone()),
        }
    }

    /// The type of the value.
    #[must_use]
    pub fn key_type(&self) -> KeyType {
        match self {
            KeyValue::S(_) => KeyType::S,
            KeyValue::N(_) => KeyType::N,
            KeyValue::B(_) => KeyType::B,
        }
    }

    /// The bytes that are hashed and escaped; their order is the order of values of one type.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            KeyValue::S(text) => text.as_bytes(),
            KeyValue::N(number) => number.as_bytes(),
            KeyValue::B(bytes) => bytes,
        }
    }

    /// As DynamoDB prints an operand in its messages, such as `{S:abc}`.
    fn operand(&self) -> String {
        match self {
            KeyValue::S(text) => format!("{{S:{text}}}"),
            KeyValue::N(number) => format!("{{N:{number}}}"),
            KeyValue::B(bytes) => {
                let mut text = Vec::new();
                crate::json::write_base64(&mut text, bytes);
                format!("{{B:{}}}", String::from_utf8_lossy(&text))
            }
        }
    }
}

fn mismatch(name: &str, expected: KeyType, actual: &'static str) -> ItemError {
    ItemError::KeyTypeMismatch {
        name: name.to_owned(),
        expected: expected.name(),
        actual,
    }
}

/// What kind of record a storage key names. Part of the stored format: values are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// Items of a table, or of a global secondary index.
    Base = 1,
    /// Entries of local secondary indexes.
    LocalIndex = 2,
    /// A partition's change sequence, which feeds the global indexes.
    Stream = 3,
    /// Transaction records.
    Transaction = 4,
    /// Items by time to live.
    TimeToLive = 5,
    /// How far a partition of an index has come in the change sequences of its table.
    Cursor = 6,
    /// Records of a table's streams.
    Record = 7,
}

impl Space {
    /// The space of this byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Space> {
        [
            Space::Base,
            Space::LocalIndex,
            Space::Stream,
            Space::Transaction,
            Space::TimeToLive,
            Space::Cursor,
            Space::Record,
        ]
        .into_iter()
        .find(|space| *space as u8 == byte)
    }
}

/// The bytes under which the engine keeps an item, without its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageKey(Vec<u8>);

impl StorageKey {
    /// The key of an item of a table with this hash seed.
    #[must_use]
    pub fn new(space: Space, seed: u64, partition_key: &KeyValue, sort_key: Option<&KeyValue>) -> StorageKey {
        let (partition, sort) = (partition_key.bytes(), sort_key.map(KeyValue::bytes));
        let mut bytes = Vec::with_capacity(HEAD_BYTES + partition.len() + sort.map_or(0, <[u8]>::len) + 16);
        StorageKey::write(&mut bytes, space, seed, partition, sort);
        StorageKey(bytes)
    }

    /// Appends the bytes of a storage key to `into`, for key values of these [`KeyValue::bytes`]: for lookups, which keep no key.
    pub fn write(into: &mut Vec<u8>, space: Space, seed: u64, partition_key: &[u8], sort_key: Option<&[u8]>) {
        into.push(space as u8);
        into.extend_from_slice(&xxh3_64_with_seed(partition_key, seed).to_be_bytes());
        push_component(into, partition_key);
        if let Some(sort_key) = sort_key {
            push_component(into, sort_key);
        }
    }

    /// Hash of a partition key, which places it among a table's partitions.
    #[must_use]
    pub fn hash(seed: u64, partition_key: &KeyValue) -> u64 {
        xxh3_64_with_seed(partition_key.bytes(), seed)
    }

    /// What all storage keys of one partition key begin with, and no others.
    #[must_use]
    pub fn partition_prefix(space: Space, seed: u64, partition_key: &KeyValue) -> Vec<u8> {
        let raw = partition_key.bytes();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + raw.len() + 48);
        StorageKey::write(&mut bytes, space, seed, raw, None);
        bytes
    }

    /// What all entries of one partition key of a local index begin with: those of index `index`, of a table with this seed.
    #[must_use]
    pub fn local_index_prefix(seed: u64, index: u16, partition_key: &KeyValue) -> Vec<u8> {
        let raw = partition_key.bytes();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 2 + raw.len() + 48);
        bytes.push(Space::LocalIndex as u8);
        bytes.extend_from_slice(&StorageKey::hash(seed, partition_key).to_be_bytes());
        bytes.extend_from_slice(&index.to_be_bytes());
        push_component(&mut bytes, raw);
        bytes
    }

    /// What the keys of all items begin with that have the partition key of this one; none when these are not the bytes of a key.
    #[must_use]
    pub fn collection(key: &[u8]) -> Option<&[u8]> {
        let partition = key.get(HEAD_BYTES..)?;
        key.get(..HEAD_BYTES + component_bytes(partition)?)
    }

    /// What the entries of those items in local index `index` begin with; `collection` is of [`StorageKey::collection`].
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn local_index_prefix_of(collection: &[u8], index: u16) -> Vec<u8> {
        let (head, partition) = collection.split_at(HEAD_BYTES);
        let mut bytes = vec![Space::LocalIndex as u8];
        bytes.extend_from_slice(&head[1..]);
        bytes.extend_from_slice(&index.to_be_bytes());
        bytes.extend_from_slice(partition);
        bytes
    }

    /// What all entries of one partition key of a global index begin with; it may consist of several values.
    ///
    /// # Panics
    /// When there is no value.
    #[must_use]
    pub fn global_index_prefix(seed: u64, partition_key: &[KeyValue]) -> Vec<u8> {
        let mut components = Vec::with_capacity(48);
        for value in partition_key {
            push_component(&mut components, value.bytes());
        }
        let hash = match partition_key {
            [] => panic!("an index has a partition key"),
            [value] => StorageKey::hash(seed, value),
            _ => xxh3_64_with_seed(&components, seed),
        };
        let mut bytes = StorageKey::hash_prefix(Space::Base, hash);
        bytes.append(&mut components);
        bytes
    }

    /// Appends a further component to a key or prefix.
    pub fn push(bytes: &mut Vec<u8>, value: &KeyValue) {
        push_component(bytes, value.bytes());
    }

    /// The index that an entry of a local index belongs to; none when these are not the bytes of one.
    #[must_use]
    pub fn local_index(entry: &[u8]) -> Option<u16> {
        let index = entry.get(HEAD_BYTES..HEAD_BYTES + 2)?;
        (entry[0] == Space::LocalIndex as u8).then(|| u16::from_be_bytes([index[0], index[1]]))
    }

    /// The key of the item that an entry of a local index stands for; none when these are not the bytes of one.
    #[must_use]
    pub fn of_local_index_entry(entry: &[u8]) -> Option<StorageKey> {
        StorageKey::local_index(entry)?;
        let partition = &entry[HEAD_BYTES + 2..];
        let index_sort = &partition[component_bytes(partition)?..];
        let sort = &index_sort[component_bytes(index_sort)?..];
        if component_bytes(sort)? != sort.len() {
            return None;
        }
        let mut bytes = vec![Space::Base as u8];
        bytes.extend_from_slice(&entry[1..HEAD_BYTES]);
        bytes.extend_from_slice(&partition[..partition.len() - index_sort.len()]);
        bytes.extend_from_slice(sort);
        Some(StorageKey(bytes))
    }

    /// Where hash `hash` begins in a space: the boundary between two partitions of a table.
    #[must_use]
    pub fn hash_prefix(space: Space, hash: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.push(space as u8);
        bytes.extend_from_slice(&hash.to_be_bytes());
        bytes
    }

    /// Takes a storage key apart, for tools and tests. `None` when the bytes are not a key of these types.
    #[must_use]
    pub fn decode(
        bytes: &[u8],
        partition_type: KeyType,
        sort_type: Option<KeyType>,
    ) -> Option<(Space, u64, KeyValue, Option<KeyValue>)> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let space = Space::from_byte(head[0])?;
        let hash = u64::from_be_bytes(head[1..].try_into().ok()?);
        let (partition_key, rest) = take_component(rest, partition_type)?;
        let (sort_key, rest) = match sort_type {
            Some(sort_type) => take_component(rest, sort_type).map(|(key, rest)| (Some(key), rest))?,
            None => (None, rest),
        };
        rest.is_empty().then_some((space, hash, partition_key, sort_key))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, owned.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Length of the escaped component that `bytes` begin with, its terminator included.
fn component_bytes(bytes: &[u8]) -> Option<usize> {
    let mut position = 0;
    loop {
        let zero = bytes[position..].iter().position(|byte| *byte == 0)?;
        position += zero + 2;
        match *bytes.get(position - 1)? {
            0x01 => return Some(position),
            0xFF => {}
            _ => return None,
        }
    }
}

impl AsRef<[u8]> for StorageKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn push_component(out: &mut Vec<u8>, raw: &[u8]) {
    push_escaped(out, raw);
    out.extend_from_slice(&TERMINATOR);
}

fn push_escaped(out: &mut Vec<u8>, raw: &[u8]) {
    for (index, run) in raw.split(|byte| *byte == 0).enumerate() {
        if index > 0 {
            out.extend_from_slice(&ESCAPED_ZERO);
        }
        out.extend_from_slice(run);
    }
}

fn take_component(bytes: &[u8], key_type: KeyType) -> Option<(KeyValue, &[u8])> {
    let mut raw = Vec::new();
    let mut position = 0;
    loop {
        match *bytes.get(position)? {
            0 => match [0, *bytes.get(position + 1)?] {
                ESCAPED_ZERO => raw.push(0),
                TERMINATOR => break,
                _ => return None,
            },
            byte => {
                raw.push(byte);
                position += 1;
                continue;
            }
        }
        position += 2;
    }
    let value = match key_type {
        KeyType::S => KeyValue::S(String::from_utf8(raw).ok()?),
        KeyType::N => KeyValue::N(Number::from_bytes(&raw)?),
        KeyType::B => KeyValue::B(raw),
    };
    Some((value, &bytes[position + 2..]))
}

/// Storage keys between two bounds, as the engine scans them.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The condition of a Query on the sort key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyCondition {
    /// Every sort key, also for tables without one.
    All,
    /// `=`
    Equal(KeyValue),
    /// `<`
    Less(KeyValue),
    /// `<=`
    LessOrEqual(KeyValue),
    /// `>`
    Greater(KeyValue),
    /// `>=`
    GreaterOrEqual(KeyValue),
    /// `BETWEEN`, both ends included.
    Between(KeyValue, KeyValue),
    /// `begins_with`; strings and binaries only.
    BeginsWith(KeyValue),
}

impl KeyCondition {
    /// The storage keys of one partition key that the condition allows.
    ///
    /// # Errors
    /// The lower bound of BETWEEN is above the upper one.
    pub fn range(&self, space: Space, seed: u64, partition_key: &KeyValue) -> Result<KeyRange, ItemError> {
        let prefix = StorageKey::partition_prefix(space, seed, partition_key);
        let open = |value: &KeyValue| {
            let mut bytes = prefix.clone();
            push_escaped(&mut bytes, value.bytes());
            bytes
        };
        let whole = |value: &KeyValue| {
            let mut bytes = open(value);
            bytes.extend_from_slice(&TERMINATOR);
            bytes
        };
        let first = || Bound::Included(prefix.clone());
        let end = || after_prefix(prefix.clone());
        Ok(match self {
            KeyCondition::All => (first(), end()),
            KeyCondition::Equal(value) => (Bound::Included(whole(value)), Bound::Included(whole(value))),
            KeyCondition::Less(value) => (first(), Bound::Excluded(whole(value))),
            KeyCondition::LessOrEqual(value) => (first(), Bound::Included(whole(value))),
            KeyCondition::Greater(value) => (Bound::Excluded(whole(value)), end()),
            KeyCondition::GreaterOrEqual(value) => (Bound::Included(whole(value)), end()),
            KeyCondition::Between(lower, upper) => {
                if lower > upper {
                    return Err(ItemError::BetweenReversed {
                        lower: lower.operand(),
                        upper: upper.operand(),
                    });
                }
                (Bound::Included(whole(lower)), Bound::Included(whole(upper)))
            }
            KeyCondition::BeginsWith(value) => (Bound::Included(open(value)), after_prefix(open(value))),
        })
    }
}

impl KeyCondition {
    /// The storage keys that begin with `prefix` and go on with a component that the condition allows, whatever follows it:
    /// entries of an index.
    ///
    /// # Errors
    /// As [`KeyCondition::range`].
    pub fn range_in(&self, prefix: Vec<u8>) -> Result<KeyRange, ItemError> {
        let open = |value: &KeyValue| {
            let mut bytes = prefix.clone();
            push_escaped(&mut bytes, value.bytes());
            bytes
        };
        let whole = |value: &KeyValue| {
            let mut bytes = open(value);
            bytes.extend_from_slice(&TERMINATOR);
            bytes
        };
        let first = || Bound::Included(prefix.clone());
        let end = || after_prefix(prefix.clone());
        let after = |value: &KeyValue| after_prefix(whole(value));
        Ok(match self {
            KeyCondition::All => (first(), end()),
            KeyCondition::Equal(value) => (Bound::Included(whole(value)), after(value)),
            KeyCondition::Less(value) => (first(), Bound::Excluded(whole(value))),
            KeyCondition::LessOrEqual(value) => (first(), after(value)),
            KeyCondition::Greater(value) => match after(value) {
                Bound::Excluded(key) => (Bound::Included(key), end()),
                bound => (bound, end()),
            },
            KeyCondition::GreaterOrEqual(value) => (Bound::Included(whole(value)), end()),
            KeyCondition::Between(lower, upper) => {
                if lower > upper {
                    return Err(ItemError::BetweenReversed {
                        lower: lower.operand(),
                        upper: upper.operand(),
                    });
                }
                (Bound::Included(whole(lower)), after(upper))
            }
            KeyCondition::BeginsWith(value) => (Bound::Included(open(value)), after_prefix(open(value))),
        })
    }
}

/// The bound just after every key that begins with `prefix`.
fn after_prefix(mut prefix: Vec<u8>) -> Bound<Vec<u8>> {
    while let Some(last) = prefix.last_mut() {
        if *last < 0xFF {
            *last += 1;
            return Bound::Excluded(prefix);
        }
        prefix.pop();
    }
    Bound::Unbounded
}
