//! Reading request bodies: what every operation's decoder is made of.
//!
//! A decoder makes one pass over the body and only refuses what is not the expected JSON (`SerializationException`).
//! Values that are not allowed, constraints, and parameters that are not supported are judged afterwards, in
//! DynamoDB's order, whatever the order of the body's members.

use std::borrow::Cow;
use std::collections::BTreeSet;

use cairn_item::json::{JsonError, Reader};
use cairn_item::{Item, ItemError};

use super::ApiError;

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> ApiError {
        // A body that is no JSON at all is answered without a message.
        ApiError::serialization(if error.malformed {
            String::new()
        } else {
            error.message
        })
    }
}

impl From<ItemError> for ApiError {
    fn from(error: ItemError) -> ApiError {
        ApiError::validation(error.to_string())
    }
}

/// A string of the body, borrowed where it has no escapes.
pub(crate) type Text<'a> = Option<Cow<'a, str>>;

/// An item or key whose values may be refused later.
pub(crate) type CheckedItem = Option<Result<Item, ItemError>>;

/// Hands each member of the body to `member`, which reads its value or says with `false` that it did not, and
/// gives the name of the first member that is not supported.
pub(crate) fn members<'a>(
    body: &'a [u8],
    mut member: impl FnMut(&str, &mut Reader<'a>) -> Result<bool, ApiError>,
) -> Result<Unsupported, ApiError> {
    // DynamoDB takes an empty body for an empty object.
    let body = if body.is_empty() { b"{}" } else { body };
    let mut reader = Reader::new(body)?;
    let unsupported = members_of(&mut reader, &mut member)?;
    reader.finish()?;
    Ok(unsupported)
}

/// Refuses whatever an operation without parameters is given.
pub(crate) fn no_parameters(body: &[u8]) -> Result<(), ApiError> {
    members(body, |_, _| Ok(false))?.check()
}

/// As [`members`], for an object within the body.
pub(crate) fn members_of<'a>(
    reader: &mut Reader<'a>,
    mut member: impl FnMut(&str, &mut Reader<'a>) -> Result<bool, ApiError>,
) -> Result<Unsupported, ApiError> {
    let mut unsupported = Unsupported::default();
    reader.begin_object()?;
    while let Some(name) = reader.next_key()? {
        // An explicit null is as good as nothing.
        if !reader.null()? && !member(&name, reader)? {
            reader.skip()?;
            unsupported.add(&name);
        }
    }
    Ok(unsupported)
}

/// The first parameter of a request that this node does not implement. It is refused by name, never ignored.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Unsupported(Option<String>);

impl Unsupported {
    pub(crate) fn add(&mut self, name: &str) {
        self.0.get_or_insert_with(|| name.to_owned());
    }

    pub(crate) fn merge(&mut self, other: Unsupported) {
        if let Some(name) = other.0 {
            self.add(&name);
        }
    }

    pub(crate) fn check(self) -> Result<(), ApiError> {
        match self.0 {
            None => Ok(()),
            Some(name) => Err(ApiError::unsupported(&name)),
        }
    }
}

/// Of members with the same name keeps the last one, as in the rest of a request.
pub(crate) fn keep_last<T>(members: &mut Vec<T>, name: impl Fn(&T) -> &str) {
    let mut seen = BTreeSet::new();
    let mut keep: Vec<bool> = members
        .iter()
        .rev()
        .map(|member| seen.insert(name(member)))
        .collect();
    members.retain(|_| keep.pop().expect("one for each member"));
}

pub(crate) fn text<'a>(reader: &mut Reader<'a>, into: &mut Text<'a>) -> Result<bool, ApiError> {
    *into = Some(reader.string()?);
    Ok(true)
}

pub(crate) fn boolean(reader: &mut Reader<'_>, into: &mut Option<bool>) -> Result<bool, ApiError> {
    *into = Some(reader.bool()?);
    Ok(true)
}

pub(crate) fn integer(reader: &mut Reader<'_>, into: &mut Option<i64>) -> Result<bool, ApiError> {
    *into = Some(reader.integer()?);
    Ok(true)
}

pub(crate) fn item(reader: &mut Reader<'_>, into: &mut CheckedItem) -> Result<bool, ApiError> {
    *into = Some(reader.checked_item()?);
    Ok(true)
}

/// Reads a list, element by element.
pub(crate) fn list<'a>(
    reader: &mut Reader<'a>,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<(), ApiError>,
) -> Result<bool, ApiError> {
    reader.begin_array()?;
    while reader.next_element()? {
        element(reader)?;
    }
    Ok(true)
}
