//! Reading an archived item in place.

use std::cmp::Ordering;

use super::layout::{
    ArchivedAttribute, ArchivedItem, ArchivedValue, INLINE_BYTES, TEXT_PAD, root_unchecked, unpadded,
};
use super::validate::{ArchiveError, check};
use crate::{Attribute, Item, Number, Value};

/// Archived bytes of one item, validated when made and unchanged since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemBytes(Vec<u8>);

impl ItemBytes {
    /// Takes bytes from anywhere.
    ///
    /// # Errors
    /// The bytes are not the archived form of an item.
    pub fn new(bytes: Vec<u8>) -> Result<ItemBytes, ArchiveError> {
        check(&bytes)?;
        Ok(ItemBytes(bytes))
    }

    /// Validates bytes from anywhere and reads them in place; the same as [`ItemView::validate`].
    ///
    /// # Errors
    /// The bytes are not the archived form of an item.
    pub fn validate(bytes: &[u8]) -> Result<ItemView<'_>, ArchiveError> {
        ItemView::validate(bytes)
    }

    /// Archives an item.
    ///
    /// # Panics
    /// As [`super::archive()`].
    #[must_use]
    pub fn from_item(item: &Item) -> ItemBytes {
        ItemBytes(super::archive(item))
    }

    /// The item, read in place.
    #[must_use]
    #[expect(unsafe_code, reason = "validated by every constructor")]
    pub fn view(&self) -> ItemView<'_> {
        // SAFETY: every constructor validates or archives, and the bytes are never handed out to be changed.
        unsafe { ItemView::from_validated(&self.0) }
    }

    /// The archived bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The archived bytes, owned.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

/// An archived item, read in place.
#[derive(Clone, Copy)]
pub struct ItemView<'a> {
    bytes: &'a [u8],
    root: &'a ArchivedItem,
}

impl<'a> ItemView<'a> {
    /// Reads bytes from anywhere, checking everything the module promises.
    ///
    /// # Errors
    /// The bytes are not the archived form of an item.
    pub fn validate(bytes: &'a [u8]) -> Result<ItemView<'a>, ArchiveError> {
        let root = check(bytes)?;
        Ok(ItemView { bytes, root })
    }

    /// Reads bytes that were validated before, without checking them again.
    ///
    /// # Safety
    /// `bytes` must be the output of [`super::archive()`] or have passed [`ItemView::validate`], and a checksum or
    /// ownership must prove that they have not changed since.
    #[must_use]
    #[expect(unsafe_code, reason = "skips validation by contract")]
    pub unsafe fn from_validated(bytes: &'a [u8]) -> ItemView<'a> {
        // SAFETY: the caller's promise.
        let root = unsafe { root_unchecked(bytes) };
        ItemView { bytes, root }
    }

    /// The archived bytes.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes as a map.
    #[must_use]
    pub fn attributes(self) -> MapView<'a> {
        MapView(self.root.attributes.as_slice())
    }

    /// The value of the attribute of this name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<ValueView<'a>> {
        self.attributes().get(name)
    }

    /// Names and values in the order of names.
    pub fn iter(self) -> impl ExactSizeIterator<Item = (&'a str, ValueView<'a>)> {
        self.attributes().iter()
    }

    /// How many attributes there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.attributes().len()
    }

    /// Whether there are no attributes.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Size in bytes as DynamoDB counts it; see [`crate::item_size`]. Walks the whole item.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.size()).sum()
    }

    /// A copy that owns everything.
    #[must_use]
    pub fn to_item(self) -> Item {
        Item::from_attributes(self.attributes().to_attributes())
    }
}

impl std::fmt::Debug for ItemView<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.attributes().fmt(formatter)
    }
}

/// One archived value.
#[derive(Debug, Clone, Copy)]
pub enum ValueView<'a> {
    /// String.
    S(&'a str),
    /// Number.
    N(Number),
    /// Binary.
    B(&'a [u8]),
    /// Boolean.
    Bool(bool),
    /// The null value.
    Null,
    /// String set.
    Ss(StringSetView<'a>),
    /// Number set.
    Ns(NumberSetView<'a>),
    /// Binary set.
    Bs(BinarySetView<'a>),
    /// List.
    L(ListView<'a>),
    /// Map.
    M(MapView<'a>),
}

impl<'a> ValueView<'a> {
    fn new(value: &'a ArchivedValue) -> ValueView<'a> {
        match value {
            ArchivedValue::Null(_) => ValueView::Null,
            ArchivedValue::False(_) => ValueView::Bool(false),
            ArchivedValue::True(_) => ValueView::Bool(true),
            ArchivedValue::ShortS(_) | ArchivedValue::S(_) => ValueView::S(text(value)),
            ArchivedValue::ShortN(_) | ArchivedValue::N(_) => ValueView::N(number(value)),
            ArchivedValue::ShortB(_) | ArchivedValue::B(_) => ValueView::B(scalar_bytes(value)),
            ArchivedValue::Ss(members) => ValueView::Ss(StringSetView(members.as_slice())),
            ArchivedValue::Ns(members) => ValueView::Ns(NumberSetView(members.as_slice())),
            ArchivedValue::Bs(members) => ValueView::Bs(BinarySetView(members.as_slice())),
            ArchivedValue::L(elements) => ValueView::L(ListView(elements.as_slice())),
            ArchivedValue::M(attributes) => ValueView::M(MapView(attributes.as_slice())),
        }
    }

    /// DynamoDB's name of the type, such as `"SS"`.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self {
            ValueView::S(_) => "S",
            ValueView::N(_) => "N",
            ValueView::B(_) => "B",
            ValueView::Bool(_) => "BOOL",
            ValueView::Null => "NULL",
            ValueView::Ss(_) => "SS",
            ValueView::Ns(_) => "NS",
            ValueView::Bs(_) => "BS",
            ValueView::L(_) => "L",
            ValueView::M(_) => "M",
        }
    }

    /// Size in bytes as DynamoDB counts it, without the attribute's name.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            ValueView::S(text) => text.len(),
            ValueView::N(number) => number.size(),
            ValueView::B(bytes) => bytes.len(),
            ValueView::Bool(_) | ValueView::Null => 1,
            ValueView::Ss(members) => members.iter().map(str::len).sum(),
            ValueView::Ns(members) => members.iter().map(|member| member.size()).sum(),
            ValueView::Bs(members) => members.iter().map(<[u8]>::len).sum(),
            ValueView::L(elements) => 3 + elements.iter().map(|element| 1 + element.size()).sum::<usize>(),
            ValueView::M(attributes) => {
                3 + attributes
                    .iter()
                    .map(|(name, value)| 1 + name.len() + value.size())
                    .sum::<usize>()
            }
        }
    }

    /// A copy that owns everything.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            ValueView::S(text) => Value::S(text.to_owned()),
            ValueView::N(number) => Value::N(number),
            ValueView::B(bytes) => Value::B(bytes.to_vec()),
            ValueView::Bool(truth) => Value::Bool(truth),
            ValueView::Null => Value::Null,
            ValueView::Ss(members) => Value::Ss(members.iter().map(str::to_owned).collect()),
            ValueView::Ns(members) => Value::Ns(members.iter().collect()),
            ValueView::Bs(members) => Value::Bs(members.iter().map(<[u8]>::to_vec).collect()),
            ValueView::L(elements) => Value::L(elements.iter().map(ValueView::to_value).collect()),
            ValueView::M(attributes) => Value::M(attributes.to_attributes()),
        }
    }

    /// Order against an owned value, where DynamoDB has one: two strings, two numbers or two binaries.
    #[must_use]
    pub fn compare(self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (ValueView::S(left), Value::S(right)) => Some(left.cmp(right.as_str())),
            (ValueView::N(left), Value::N(right)) => Some(left.cmp(right)),
            (ValueView::B(left), Value::B(right)) => Some(left.cmp(right.as_slice())),
            _ => None,
        }
    }
}

impl PartialEq for ValueView<'_> {
    fn eq(&self, other: &ValueView<'_>) -> bool {
        match (self, other) {
            (ValueView::S(left), ValueView::S(right)) => left == right,
            (ValueView::N(left), ValueView::N(right)) => left == right,
            (ValueView::B(left), ValueView::B(right)) => left == right,
            (ValueView::Bool(left), ValueView::Bool(right)) => left == right,
            (ValueView::Null, ValueView::Null) => true,
            (ValueView::Ss(left), ValueView::Ss(right)) => left.iter().eq(right.iter()),
            (ValueView::Ns(left), ValueView::Ns(right)) => left.iter().eq(right.iter()),
            (ValueView::Bs(left), ValueView::Bs(right)) => left.iter().eq(right.iter()),
            (ValueView::L(left), ValueView::L(right)) => left.iter().eq(right.iter()),
            (ValueView::M(left), ValueView::M(right)) => left.iter().eq(right.iter()),
            _ => false,
        }
    }
}

impl PartialEq<Value> for ValueView<'_> {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (ValueView::S(left), Value::S(right)) => left == right,
            (ValueView::N(left), Value::N(right)) => left == right,
            (ValueView::B(left), Value::B(right)) => left == right,
            (ValueView::Bool(left), Value::Bool(right)) => left == right,
            (ValueView::Null, Value::Null) => true,
            (ValueView::Ss(left), Value::Ss(right)) => left.iter().eq(right.iter().map(String::as_str)),
            (ValueView::Ns(left), Value::Ns(right)) => left.iter().eq(right.iter().copied()),
            (ValueView::Bs(left), Value::Bs(right)) => left.iter().eq(right.iter().map(Vec::as_slice)),
            (ValueView::L(left), Value::L(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left == *right)
            }
            (ValueView::M(left), Value::M(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|((name, left), right)| name == right.name && left == right.value)
            }
            _ => false,
        }
    }
}

/// Bytes of a string, number or binary.
pub(super) fn scalar_bytes(value: &ArchivedValue) -> &[u8] {
    match value {
        ArchivedValue::S(bytes) | ArchivedValue::N(bytes) | ArchivedValue::B(bytes) => bytes.as_slice(),
        ArchivedValue::ShortS(bytes) => unpadded(bytes, TEXT_PAD),
        ArchivedValue::ShortN(bytes) => unpadded(bytes, 0),
        ArchivedValue::ShortB(bytes) => &bytes[..usize::from(bytes[INLINE_BYTES - 1]).min(INLINE_BYTES - 1)],
        _ => &[],
    }
}

fn text(value: &ArchivedValue) -> &str {
    str_of(scalar_bytes(value))
}

#[expect(unsafe_code, reason = "validated once, read many times")]
fn str_of(bytes: &[u8]) -> &str {
    // SAFETY: views are made of validated bytes only, and validation has checked every name and string.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

fn number(value: &ArchivedValue) -> Number {
    Number::from_canonical(scalar_bytes(value))
}

/// An archived string set, sorted.
#[derive(Clone, Copy)]
pub struct StringSetView<'a>(&'a [ArchivedValue]);

/// An archived number set, sorted.
#[derive(Clone, Copy)]
pub struct NumberSetView<'a>(&'a [ArchivedValue]);

/// An archived binary set, sorted.
#[derive(Clone, Copy)]
pub struct BinarySetView<'a>(&'a [ArchivedValue]);

/// An archived list.
#[derive(Clone, Copy)]
pub struct ListView<'a>(&'a [ArchivedValue]);

/// Archived attributes, of a map or an item, sorted by name.
#[derive(Clone, Copy)]
pub struct MapView<'a>(&'a [ArchivedAttribute]);

macro_rules! row_view {
    ($view:ident, $element:ty, $read:expr) => {
        impl<'a> $view<'a> {
            /// In order.
            pub fn iter(self) -> impl ExactSizeIterator<Item = $element> + DoubleEndedIterator {
                self.0.iter().map($read)
            }

            /// How many there are.
            #[must_use]
            pub fn len(self) -> usize {
                self.0.len()
            }

            /// Whether there are none.
            #[must_use]
            pub fn is_empty(self) -> bool {
                self.0.is_empty()
            }
        }

        impl std::fmt::Debug for $view<'_> {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_list().entries(self.iter()).finish()
            }
        }
    };
}

row_view!(StringSetView, &'a str, text);
row_view!(NumberSetView, Number, number);
row_view!(BinarySetView, &'a [u8], scalar_bytes);
row_view!(ListView, ValueView<'a>, ValueView::new);
row_view!(MapView, (&'a str, ValueView<'a>), |attribute| {
    (
        str_of(attribute.name.as_bytes()),
        ValueView::new(&attribute.value),
    )
});

impl StringSetView<'_> {
    /// Whether the set has this member.
    #[must_use]
    pub fn contains(self, member: &str) -> bool {
        self.0
            .binary_search_by(|value| scalar_bytes(value).cmp(member.as_bytes()))
            .is_ok()
    }
}

impl NumberSetView<'_> {
    /// Whether the set has this member.
    #[must_use]
    pub fn contains(self, member: &Number) -> bool {
        self.0
            .binary_search_by(|value| scalar_bytes(value).cmp(member.as_bytes()))
            .is_ok()
    }
}

impl BinarySetView<'_> {
    /// Whether the set has this member.
    #[must_use]
    pub fn contains(self, member: &[u8]) -> bool {
        self.0
            .binary_search_by(|value| scalar_bytes(value).cmp(member))
            .is_ok()
    }
}

impl<'a> ListView<'a> {
    /// The element at `index`, from 0.
    #[must_use]
    pub fn get(self, index: usize) -> Option<ValueView<'a>> {
        self.0.get(index).map(ValueView::new)
    }
}

impl<'a> MapView<'a> {
    /// The value of the attribute of this name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<ValueView<'a>> {
        let index = self
            .0
            .binary_search_by(|attribute| attribute.name.as_bytes().cmp(name.as_bytes()))
            .ok()?;
        Some(ValueView::new(&self.0[index].value))
    }

    fn to_attributes(self) -> Vec<Attribute> {
        self.iter()
            .map(|(name, value)| Attribute {
                name: name.to_owned(),
                value: value.to_value(),
            })
            .collect()
    }
}
