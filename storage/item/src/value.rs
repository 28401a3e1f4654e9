//! Attribute values and items as owned by a request, and their size as DynamoDB counts it.

use crate::{ItemError, Number, ValueView};

/// Largest size of an item in bytes, as [`item_size`] counts.
pub const ITEM_BYTES_MAX: usize = 400 * 1024;
/// Deepest level of a value; a top-level attribute's value is at level 1.
pub const DEPTH_MAX: usize = 32;
/// Below this level DynamoDB reports in another way that a value is nested too deep: observed between 62 and 64.
pub const DEPTH_FAR: usize = 63;
/// Longest attribute name in bytes.
pub const NAME_BYTES_MAX: usize = 65_535;

/// What a list or map costs beyond its elements.
const CONTAINER_BYTES: usize = 3;
/// What an element of a list or map costs beyond itself.
const ELEMENT_BYTES: usize = 1;

/// One attribute value. The variants are DynamoDB's ten types and bear its names.
///
/// The invariants of the crate hold for values made by the constructors and by [`crate::json`]; code that builds
/// `Ss`, `Ns`, `Bs` or `M` by hand must keep them, or use [`Value::string_set`] and its siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// String, may be empty.
    S(String),
    /// Number.
    N(Number),
    /// Binary, may be empty.
    B(Vec<u8>),
    /// Boolean.
    Bool(bool),
    /// The null value.
    Null,
    /// String set: sorted by bytes, unique, not empty.
    Ss(Vec<String>),
    /// Number set: sorted by value, unique, not empty.
    Ns(Vec<Number>),
    /// Binary set: sorted, unique, not empty.
    Bs(Vec<Vec<u8>>),
    /// List.
    L(Vec<Value>),
    /// Map: sorted by name, names unique.
    M(Vec<Attribute>),
}

/// A name and its value, in an item or in a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// 1 to [`NAME_BYTES_MAX`] bytes of UTF-8.
    pub name: String,
    /// The value.
    pub value: Value,
}

impl Value {
    /// A string set of these members in any order.
    ///
    /// # Errors
    /// No members, or one twice.
    pub fn string_set(mut members: Vec<String>) -> Result<Value, ItemError> {
        if members.is_empty() {
            return Err(ItemError::StringSetEmpty);
        }
        if !is_ascending(&members) {
            if has_duplicates(&mut members.iter().collect::<Vec<_>>()) {
                return Err(ItemError::StringSetDuplicates(members.join(", ")));
            }
            members.sort_unstable();
        }
        Ok(Value::Ss(members))
    }

    /// A number set of these members in any order.
    ///
    /// # Errors
    /// No members, or one twice.
    pub fn number_set(mut members: Vec<Number>) -> Result<Value, ItemError> {
        if members.is_empty() {
            return Err(ItemError::NumberSetEmpty);
        }
        if has_duplicates(&mut members) {
            return Err(ItemError::NumberSetDuplicates);
        }
        Ok(Value::Ns(members))
    }

    /// A binary set of these members in any order.
    ///
    /// # Errors
    /// No members, or one twice.
    pub fn binary_set(mut members: Vec<Vec<u8>>) -> Result<Value, ItemError> {
        if members.is_empty() {
            return Err(ItemError::BinarySetEmpty);
        }
        if is_ascending(&members) {
            return Ok(Value::Bs(members));
        }
        if has_duplicates(&mut members.iter().collect::<Vec<_>>()) {
            let mut text = Vec::new();
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    text.extend_from_slice(b", ");
                }
                crate::json::write_base64(&mut text, member);
            }
            return Err(ItemError::BinarySetDuplicates(
                String::from_utf8_lossy(&text).into_owned(),
            ));
        }
        members.sort_unstable();
        Ok(Value::Bs(members))
    }

    /// A map of these attributes in any order; of two with one name the later wins.
    #[must_use]
    pub fn map(attributes: Vec<Attribute>) -> Value {
        Value::M(sort_attributes(attributes))
    }

    /// DynamoDB's name of the type, such as `"SS"`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::S(_) => "S",
            Value::N(_) => "N",
            Value::B(_) => "B",
            Value::Bool(_) => "BOOL",
            Value::Null => "NULL",
            Value::Ss(_) => "SS",
            Value::Ns(_) => "NS",
            Value::Bs(_) => "BS",
            Value::L(_) => "L",
            Value::M(_) => "M",
        }
    }

    /// Size in bytes as DynamoDB counts it, without the attribute's name.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Value::S(text) => text.len(),
            Value::N(number) => number.size(),
            Value::B(bytes) => bytes.len(),
            Value::Bool(_) | Value::Null => 1,
            Value::Ss(members) => members.iter().map(String::len).sum(),
            Value::Ns(members) => members.iter().map(Number::size).sum(),
            Value::Bs(members) => members.iter().map(Vec::len).sum(),
            Value::L(elements) => {
                CONTAINER_BYTES
                    + elements
                        .iter()
                        .map(|element| ELEMENT_BYTES + element.size())
                        .sum::<usize>()
            }
            Value::M(attributes) => {
                CONTAINER_BYTES + ELEMENT_BYTES * attributes.len() + attributes_size(attributes)
            }
        }
    }

    /// Levels of nesting: 1 for a scalar, a set, an empty list or an empty map.
    #[must_use]
    pub fn depth(&self) -> usize {
        match self {
            Value::L(elements) => 1 + elements.iter().map(Value::depth).max().unwrap_or(0),
            Value::M(attributes) => {
                1 + attributes
                    .iter()
                    .map(|attribute| attribute.value.depth())
                    .max()
                    .unwrap_or(0)
            }
            _ => 1,
        }
    }

    /// Checks the invariants of the crate for this value at `level`, the first being 1.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self, level: usize) -> Result<(), ItemError> {
        if level > DEPTH_MAX {
            return Err(ItemError::NestingTooDeep { far: false });
        }
        match self {
            Value::Ss(members) if members.is_empty() => Err(ItemError::StringSetEmpty),
            Value::Ns(members) if members.is_empty() => Err(ItemError::NumberSetEmpty),
            Value::Bs(members) if members.is_empty() => Err(ItemError::BinarySetEmpty),
            Value::Ss(members) if !is_ascending(members) => {
                Err(ItemError::StringSetDuplicates(members.join(", ")))
            }
            Value::Ns(members) if !is_ascending(members) => Err(ItemError::NumberSetDuplicates),
            Value::Bs(members) if !is_ascending(members) => {
                Err(ItemError::BinarySetDuplicates(String::new()))
            }
            Value::L(elements) => elements
                .iter()
                .try_for_each(|element| element.validate(level + 1)),
            Value::M(attributes) => validate_attributes(attributes, level + 1),
            _ => Ok(()),
        }
    }
}

fn has_duplicates<T: Ord>(members: &mut [T]) -> bool {
    members.sort_unstable();
    members.windows(2).any(|pair| pair[0] == pair[1])
}

fn is_ascending<T: Ord>(members: &[T]) -> bool {
    members.windows(2).all(|pair| pair[0] < pair[1])
}

fn attributes_size(attributes: &[Attribute]) -> usize {
    attributes
        .iter()
        .map(|attribute| attribute.name.len() + attribute.value.size())
        .sum()
}

fn validate_attributes(attributes: &[Attribute], level: usize) -> Result<(), ItemError> {
    for attribute in attributes {
        match attribute.name.len() {
            0 => return Err(ItemError::NameEmpty),
            1..=NAME_BYTES_MAX => attribute.value.validate(level)?,
            _ => return Err(ItemError::NameTooLong),
        }
    }
    assert!(
        attributes.windows(2).all(|pair| pair[0].name < pair[1].name),
        "attributes are kept sorted by name and unique"
    );
    Ok(())
}

/// Sorts by name; of two with one name the later wins, as in every JSON parser DynamoDB could be using.
pub(crate) fn sort_attributes(mut attributes: Vec<Attribute>) -> Vec<Attribute> {
    if attributes.windows(2).all(|pair| pair[0].name < pair[1].name) {
        return attributes;
    }
    attributes.sort_by(|left, right| left.name.cmp(&right.name));
    // dedup_by keeps the first of equals, so hand the later value down to it.
    attributes.dedup_by(|later, earlier| {
        let same = later.name == earlier.name;
        if same {
            std::mem::swap(&mut later.value, &mut earlier.value);
        }
        same
    });
    attributes
}

/// An owned item: its attributes, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item(Vec<Attribute>);

impl Item {
    /// An item without attributes.
    #[must_use]
    pub fn new() -> Item {
        Item::default()
    }

    /// An item of these attributes in any order; of two with one name the later wins.
    #[must_use]
    pub fn from_attributes(attributes: Vec<Attribute>) -> Item {
        Item(sort_attributes(attributes))
    }

    /// The value of the attribute of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.position(name).ok().map(|index| &self.0[index].value)
    }

    /// The value of the attribute of this name, to be changed in place.
    #[must_use]
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.position(name).ok().map(|index| &mut self.0[index].value)
    }

    /// Sets an attribute and returns the value it had.
    pub fn insert(&mut self, name: impl Into<String> + AsRef<str>, value: Value) -> Option<Value> {
        match self.position(name.as_ref()) {
            Ok(index) => Some(std::mem::replace(&mut self.0[index].value, value)),
            Err(index) => {
                self.0.insert(
                    index,
                    Attribute {
                        name: name.into(),
                        value,
                    },
                );
                None
            }
        }
    }

    /// Removes an attribute and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.position(name).ok().map(|index| self.0.remove(index).value)
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0
            .binary_search_by(|attribute| attribute.name.as_str().cmp(name))
    }

    /// The attributes in the order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.0.iter()
    }

    /// The attributes in the order of their names.
    #[must_use]
    pub fn attributes(&self) -> &[Attribute] {
        &self.0
    }

    /// How many attributes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no attributes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Size in bytes as DynamoDB counts it; see [`item_size`].
    #[must_use]
    pub fn size(&self) -> usize {
        attributes_size(&self.0)
    }

    /// Checks names, nesting, sets and the size of the whole item.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ItemError> {
        validate_attributes(&self.0, 1)?;
        if self.size() > ITEM_BYTES_MAX {
            Err(ItemError::ItemTooLarge)
        } else {
            Ok(())
        }
    }
}

impl IntoIterator for Item {
    type Item = Attribute;
    type IntoIter = std::vec::IntoIter<Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Item {
    type Item = &'a Attribute;
    type IntoIter = std::slice::Iter<'a, Attribute>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl FromIterator<Attribute> for Item {
    fn from_iter<I: IntoIterator<Item = Attribute>>(attributes: I) -> Item {
        Item::from_attributes(attributes.into_iter().collect())
    }
}

impl From<ValueView<'_>> for Value {
    fn from(view: ValueView<'_>) -> Value {
        view.to_value()
    }
}

/// Size of an item in bytes, exactly as DynamoDB counts it against its limit and for capacity units.
///
/// Every attribute costs its name in UTF-8 bytes and its value: a string or binary its bytes, a number the bytes of
/// its canonical form ([`Number::size`]), a boolean or null 1, a set the sum of its members, a list or map 3 plus 1 per
/// element plus the elements (for a map with their names).
#[must_use]
pub fn item_size(item: &Item) -> usize {
    item.size()
}
