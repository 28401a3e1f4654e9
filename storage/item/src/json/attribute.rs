//! Attribute values in a body, straight to [`Value`].

use std::borrow::Cow;

use super::reader::PlainScalar;
use super::{Error, JsonError, JsonKind, Reader, decode_base64};
use crate::{
    Attribute, DEPTH_FAR, DEPTH_MAX, ITEM_BYTES_MAX, Item, ItemError, NAME_BYTES_MAX, Number, Value,
};

/// The first value that is not allowed, while the parse goes on behind it.
type Refused = Option<ItemError>;

fn refuse(refused: &mut Refused, error: ItemError) {
    refused.get_or_insert(error);
}

impl Reader<'_> {
    /// Reads a map of names to attribute values: an item, or a key.
    ///
    /// # Errors
    /// Not that JSON, or a value that is not allowed.
    pub fn item(&mut self) -> Result<Item, Error> {
        Ok(self.checked_item()??)
    }

    /// Reads a map of names to attribute values and stands behind it even when a value is not allowed.
    ///
    /// # Errors
    /// Not that JSON. Within: a value that is not allowed, or more than [`ITEM_BYTES_MAX`] bytes.
    pub fn checked_item(&mut self) -> Result<Result<Item, ItemError>, JsonError> {
        let mut refused = None;
        let item = Item::from_attributes(self.attributes(1, &mut refused)?);
        if refused.is_none() && item.size() > ITEM_BYTES_MAX {
            refused = Some(ItemError::ItemTooLarge);
        }
        Ok(refused.map_or(Ok(item), Err))
    }

    /// Reads one attribute value: `{"S": "..."}`.
    ///
    /// # Errors
    /// Not that JSON, or a value that is not allowed.
    pub fn value(&mut self) -> Result<Value, Error> {
        Ok(self.checked_value()??)
    }

    /// Reads one attribute value and stands behind it even when it is not allowed.
    ///
    /// # Errors
    /// Not that JSON. Within: a value that is not allowed.
    pub fn checked_value(&mut self) -> Result<Result<Value, ItemError>, JsonError> {
        let mut refused = None;
        let value = self.attribute_value(1, &mut refused)?;
        Ok(refused.map_or(Ok(value), Err))
    }

    /// Reads a base64 string.
    ///
    /// # Errors
    /// Something else stands there, or the text is not base64.
    pub fn binary(&mut self) -> Result<Vec<u8>, JsonError> {
        let kind = self.peek()?;
        if kind != JsonKind::String {
            return Err(self.unexpected("Blob", kind));
        }
        let text = self.string()?;
        decode_base64(&text).map_err(|message| JsonError {
            message,
            position: self.position(),
            malformed: false,
        })
    }

    fn attributes(&mut self, level: usize, refused: &mut Refused) -> Result<Vec<Attribute>, JsonError> {
        self.begin_object()?;
        let mut attributes = Vec::new();
        while let Some(name) = self.next_key()? {
            match name.len() {
                0 => refuse(refused, ItemError::NameEmpty),
                1..=NAME_BYTES_MAX => {}
                _ => refuse(refused, ItemError::NameTooLong),
            }
            if attributes.is_empty() {
                attributes.reserve(8);
            }
            let value = self.attribute_value(level, refused)?;
            attributes.push(Attribute {
                name: name.into_owned(),
                value,
            });
        }
        Ok(attributes)
    }

    fn attribute_value(&mut self, level: usize, refused: &mut Refused) -> Result<Value, JsonError> {
        if level > DEPTH_MAX {
            // A level is an object in an object, or in an array in one; the innermost value is an object by itself.
            let below = self.skip_counting()?.saturating_sub(1) / 2;
            let far = level + below > DEPTH_FAR;
            refuse(refused, ItemError::NestingTooDeep { far });
            return Ok(Value::Null);
        }
        if let Some((scalar, text)) = self.plain_scalar() {
            return Ok(match scalar {
                PlainScalar::S => Value::S(text.to_owned()),
                PlainScalar::N => Value::N(text.parse().unwrap_or_else(|error| {
                    refuse(refused, error);
                    Number::ZERO
                })),
            });
        }
        if self.null()? {
            refuse(refused, ItemError::ValueEmpty);
            return Ok(Value::Null);
        }
        self.begin_object()?;
        let mut found: Option<Value> = None;
        let mut ambiguous = false;
        while let Some(name) = self.next_key()? {
            if let Some(value) = self.typed_value(&name, level, refused)? {
                ambiguous |= found.replace(value).is_some();
            }
        }
        if ambiguous {
            refuse(refused, ItemError::ValueAmbiguous);
        }
        Ok(found.unwrap_or_else(|| {
            refuse(refused, ItemError::ValueEmpty);
            Value::Null
        }))
    }

    /// The member `name` of an attribute value; `None` when it is null or not a type.
    fn typed_value(
        &mut self,
        name: &str,
        level: usize,
        refused: &mut Refused,
    ) -> Result<Option<Value>, JsonError> {
        let name = name.as_bytes();
        if !matches!(
            name,
            b"S" | b"N" | b"B" | b"BOOL" | b"NULL" | b"SS" | b"NS" | b"BS" | b"L" | b"M"
        ) {
            self.skip()?;
            return Ok(None);
        }
        if self.null()? {
            return Ok(None);
        }
        Ok(Some(match name {
            b"S" => Value::S(self.string()?.into_owned()),
            b"N" => Value::N(self.decimal(refused)?),
            b"B" => Value::B(self.binary()?),
            b"BOOL" => Value::Bool(self.bool()?),
            b"NULL" => {
                // DynamoDB judges what is not a boolean here as it judges false.
                let truth = if self.peek()? == JsonKind::String {
                    self.string().map(|_| false)?
                } else {
                    self.bool()?
                };
                if !truth {
                    refuse(refused, ItemError::NullNotTrue);
                }
                Value::Null
            }
            b"SS" => {
                let members = self.array(|reader| reader.string().map(Cow::into_owned))?;
                set_or_null(Value::string_set(members), refused)
            }
            b"NS" => {
                let members = self.array(|reader| reader.decimal(refused))?;
                if refused.is_some() {
                    Value::Null
                } else {
                    set_or_null(Value::number_set(members), refused)
                }
            }
            b"BS" => {
                let members = self.array(Reader::binary)?;
                set_or_null(Value::binary_set(members), refused)
            }
            b"L" => Value::L(self.array(|reader| reader.attribute_value(level + 1, refused))?),
            _ => Value::map(self.attributes(level + 1, refused)?),
        }))
    }

    fn decimal(&mut self, refused: &mut Refused) -> Result<Number, JsonError> {
        Ok(self.string()?.parse().unwrap_or_else(|error| {
            refuse(refused, error);
            Number::ZERO
        }))
    }

    fn array<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, JsonError>,
    ) -> Result<Vec<T>, JsonError> {
        self.begin_array()?;
        let mut elements = Vec::new();
        while self.next_element()? {
            elements.push(element(self)?);
        }
        Ok(elements)
    }
}

fn set_or_null(set: Result<Value, ItemError>, refused: &mut Refused) -> Value {
    set.unwrap_or_else(|error| {
        refuse(refused, error);
        Value::Null
    })
}
