//! Checks archived bytes that come from the network or from a drive.

use std::num::NonZeroUsize;

use rkyv::api::access_with_context;
use rkyv::rancor::{Failure, Strategy};
use rkyv::validation::archive::ArchiveValidator;
use thiserror::Error;

use super::layout::{ArchivedAttribute, ArchivedItem, ArchivedName, ArchivedValue, INLINE_BYTES, Span};
use super::read::scalar_bytes;
use crate::{DEPTH_MAX, ErrorKind, Number};

/// Nested ranges of the deepest item: the root, the row of attributes, the rows of 31 levels around a set, the row of
/// that set and the bytes of a member. The validator stops one before the number it is given.
const RANGES_DEPTH_MAX: NonZeroUsize = NonZeroUsize::new(DEPTH_MAX + 4).expect("not zero");

/// Bytes that are not the archived form of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ArchiveError {
    /// A tag is unknown, a range is not in the bytes or is used twice, or ranges are nested too deep.
    #[error("the bytes of an item are malformed")]
    Structure,
    /// The same item has another, the only right form.
    #[error("the bytes of an item are not in canonical form")]
    NotCanonical,
    /// A name or string that is not UTF-8.
    #[error("an item contains a string that is not UTF-8")]
    Utf8,
    /// An attribute without a name.
    #[error("an item contains an attribute without a name")]
    NameEmpty,
    /// Names out of order, or one twice.
    #[error("the attributes of an item are not sorted by unique names")]
    NameOrder,
    /// A number that is not in canonical form or not in range.
    #[error("an item contains an invalid number")]
    Number,
    /// A set without members, with members out of order, twice, or of another type.
    #[error("an item contains an invalid set")]
    Set,
    /// A value below level [`DEPTH_MAX`].
    #[error("an item is nested too deep")]
    Depth,
}

impl ArchiveError {
    /// Always [`ErrorKind::Serialization`]: the sender does not speak the format.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Serialization
    }
}

pub(super) fn check(bytes: &[u8]) -> Result<&ArchivedItem, ArchiveError> {
    let mut validator = ArchiveValidator::with_max_depth(bytes, Some(RANGES_DEPTH_MAX));
    let context = Strategy::<_, Failure>::wrap(&mut validator);
    let root = access_with_context::<ArchivedItem, _, Failure>(bytes, context)
        .map_err(|_| ArchiveError::Structure)?;
    let mut rules = Rules {
        used: size_of::<ArchivedItem>(),
    };
    rules.attributes(&root.attributes, 1)?;
    // Ranges are disjoint and in order; when they fill the bytes too, there is no other form.
    if rules.used == bytes.len() {
        Ok(root)
    } else {
        Err(ArchiveError::NotCanonical)
    }
}

/// The second pass: what bytecheck does not know.
struct Rules {
    /// Bytes that something points to, and the root.
    used: usize,
}

impl Rules {
    fn attributes(&mut self, row: &Span<ArchivedAttribute>, level: usize) -> Result<(), ArchiveError> {
        let attributes = self.row(row)?;
        let mut previous: &[u8] = &[];
        for attribute in attributes {
            let name = self.name(&attribute.name)?;
            // The first name is above the empty one, too.
            if previous >= name {
                return Err(if name.is_empty() {
                    ArchiveError::NameEmpty
                } else {
                    ArchiveError::NameOrder
                });
            }
            previous = name;
            self.value(&attribute.value, level)?;
        }
        Ok(())
    }

    fn name<'a>(&mut self, name: &'a ArchivedName) -> Result<&'a [u8], ArchiveError> {
        let bytes = name.as_bytes();
        if name.is_inline() != (bytes.len() <= INLINE_BYTES) {
            return Err(ArchiveError::NotCanonical);
        }
        if !name.is_inline() {
            self.used += bytes.len();
        }
        // Padding before the end of an inline name is not UTF-8.
        utf8(bytes)?;
        Ok(bytes)
    }

    fn value(&mut self, value: &ArchivedValue, level: usize) -> Result<(), ArchiveError> {
        if level > DEPTH_MAX {
            return Err(ArchiveError::Depth);
        }
        match value {
            ArchivedValue::Null(payload) | ArchivedValue::False(payload) | ArchivedValue::True(payload) => {
                if *payload == [0; INLINE_BYTES] {
                    Ok(())
                } else {
                    Err(ArchiveError::NotCanonical)
                }
            }
            ArchivedValue::Ss(members) => self.set(members, |member| {
                matches!(member, ArchivedValue::ShortS(_) | ArchivedValue::S(_))
            }),
            ArchivedValue::Ns(members) => self.set(members, |member| {
                matches!(member, ArchivedValue::ShortN(_) | ArchivedValue::N(_))
            }),
            ArchivedValue::Bs(members) => self.set(members, |member| {
                matches!(member, ArchivedValue::ShortB(_) | ArchivedValue::B(_))
            }),
            ArchivedValue::L(elements) => self
                .row(elements)?
                .iter()
                .try_for_each(|element| self.value(element, level + 1)),
            ArchivedValue::M(row) => self.attributes(row, level + 1),
            _ => self.scalar(value).map(|_| ()),
        }
    }

    fn scalar<'a>(&mut self, value: &'a ArchivedValue) -> Result<&'a [u8], ArchiveError> {
        let bytes = scalar_bytes(value);
        let fits = match value {
            ArchivedValue::ShortS(_) | ArchivedValue::ShortN(_) => true,
            ArchivedValue::ShortB(payload) => {
                let length = usize::from(payload[INLINE_BYTES - 1]);
                length < INLINE_BYTES && payload[length..INLINE_BYTES - 1].iter().all(|byte| *byte == 0)
            }
            ArchivedValue::B(_) => bytes.len() >= INLINE_BYTES,
            _ => bytes.len() > INLINE_BYTES,
        };
        if !fits {
            return Err(ArchiveError::NotCanonical);
        }
        match value {
            ArchivedValue::ShortS(_) | ArchivedValue::S(_) => utf8(bytes)?,
            ArchivedValue::ShortN(_) | ArchivedValue::N(_) if Number::from_bytes(bytes).is_none() => {
                return Err(ArchiveError::Number);
            }
            _ => {}
        }
        if matches!(
            value,
            ArchivedValue::S(_) | ArchivedValue::N(_) | ArchivedValue::B(_)
        ) {
            self.used += bytes.len();
        }
        Ok(bytes)
    }

    fn set(
        &mut self,
        members: &Span<ArchivedValue>,
        is_member: fn(&ArchivedValue) -> bool,
    ) -> Result<(), ArchiveError> {
        let mut previous: Option<&[u8]> = None;
        for member in self.row(members)? {
            if !is_member(member) {
                return Err(ArchiveError::Set);
            }
            let bytes = self.scalar(member)?;
            if previous.is_some_and(|previous| previous >= bytes) {
                return Err(ArchiveError::Set);
            }
            previous = Some(bytes);
        }
        if previous.is_none() {
            Err(ArchiveError::Set)
        } else {
            Ok(())
        }
    }

    fn row<'a, T>(&mut self, span: &'a Span<T>) -> Result<&'a [T], ArchiveError> {
        if !span.is_canonical() {
            return Err(ArchiveError::NotCanonical);
        }
        self.used += size_of::<T>() * span.len();
        Ok(span.as_slice())
    }
}

fn utf8(bytes: &[u8]) -> Result<(), ArchiveError> {
    if std::str::from_utf8(bytes).is_ok() {
        Ok(())
    } else {
        Err(ArchiveError::Utf8)
    }
}
