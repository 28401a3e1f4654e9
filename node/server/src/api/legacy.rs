//! The parameters that expressions replaced.
//!
//! `AttributesToGet` is a projection of whole attributes. The others are refused by name, after the check that a request does not
//! have parameters of both kinds.

use cairn_item::json::Reader;

use super::ApiError;
use super::constraints::Constraints;
use super::decode;

/// Names of one `AttributesToGet`.
const ATTRIBUTES_MAX: usize = 255;

/// The legacy parameters of one request, `KeyConditions` excepted.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    /// In the order in which DynamoDB names them.
    given: [bool; NAMES.len()],
    attributes: Option<Vec<String>>,
}

const NAMES: [&str; 6] = [
    "AttributeUpdates",
    "AttributesToGet",
    "QueryFilter",
    "ScanFilter",
    "Expected",
    "ConditionalOperator",
];

impl Legacy {
    pub(super) fn none(&self) -> bool {
        !self.given.contains(&true)
    }

    pub(super) fn write_member(
        &mut self,
        name: &str,
        updates: bool,
        reader: &mut Reader<'_>,
    ) -> Result<bool, ApiError> {
        match name {
            "AttributeUpdates" if updates => self.skip(name, reader),
            "Expected" | "ConditionalOperator" => self.skip(name, reader),
            _ => Ok(false),
        }
    }

    pub(super) fn get_member(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<bool, ApiError> {
        if name != "AttributesToGet" {
            return Ok(false);
        }
        self.note(name);
        let mut attributes = Vec::new();
        decode::list(reader, |reader| {
            attributes.push(reader.string()?.into_owned());
            Ok(())
        })?;
        self.attributes = Some(attributes);
        Ok(true)
    }

    /// `filter` is `QueryFilter` or `ScanFilter`.
    pub(super) fn page_member(
        &mut self,
        name: &str,
        filter: &str,
        reader: &mut Reader<'_>,
    ) -> Result<bool, ApiError> {
        if name == filter || name == "ConditionalOperator" {
            self.skip(name, reader)
        } else {
            self.get_member(name, reader)
        }
    }

    fn skip(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<bool, ApiError> {
        self.note(name);
        reader.skip()?;
        Ok(true)
    }

    fn note(&mut self, name: &str) {
        let place = NAMES.iter().position(|known| *known == name);
        self.given[place.expect("one of the names")] = true;
    }

    /// Each with whether it is there.
    pub(super) fn given(&self) -> [(&'static str, bool); NAMES.len()] {
        std::array::from_fn(|place| (NAMES[place], self.given[place]))
    }

    /// The attributes wanted, when that is how they were given.
    pub(super) fn attributes(&self) -> Option<&[String]> {
        self.attributes.as_deref()
    }

    pub(super) fn constraints(&self, constraints: &mut Constraints) {
        let Some(attributes) = &self.attributes else {
            return;
        };
        let (dump, path) = (format!("[{}]", attributes.join(", ")), "attributesToGet");
        if attributes.is_empty() {
            constraints.add(&dump, path, "Member must have length greater than or equal to 1");
        }
        if attributes.len() > ATTRIBUTES_MAX {
            constraints.add(&dump, path, "Member must have length less than or equal to 255");
        }
    }

    /// What is wrong with them by themselves.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        for (name, given) in self.given() {
            if given && name != "AttributesToGet" {
                return Err(ApiError::unsupported(name));
            }
        }
        let attributes = self.attributes.as_deref().unwrap_or_default();
        for (index, name) in attributes.iter().enumerate() {
            if name.is_empty() {
                return Err(ApiError::parameters("Empty attribute name"));
            }
            if attributes[..index].contains(name) {
                return Err(ApiError::parameters(format!(
                    "Duplicate value in attribute name: {name}"
                )));
            }
        }
        Ok(())
    }
}
