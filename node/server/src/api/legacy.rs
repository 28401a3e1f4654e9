//! The parameters that expressions replaced: `Expected`, `AttributeUpdates`, `QueryFilter`, `ScanFilter`, `AttributesToGet` and
//! `ConditionalOperator`. (`KeyConditions` is in `key_condition`.)
//!
//! Here they are read; what they mean and what is wrong with them by themselves is `cairn_expression`'s to say. There they
//! become what expressions are parsed to, so from then on there is one way to evaluate, update and project.

use std::sync::Arc;

use cairn_expression::Names;
use cairn_expression::legacy::{
    AttributeUpdate, Comparison, Conditional, Expected, FilterCondition, Translated, UpdateAction,
    attribute_updates, expected, filter,
};
use cairn_item::json::Reader;
use cairn_item::{ItemError, Value};

use super::ApiError;
use super::constraints::Constraints;
use super::decode::{self, Unsupported};
use super::expressions::Style;
use super::key_condition::{self, Written};
use crate::route::{Condition, Operands, UpdateParts};

/// Names of one `AttributesToGet`.
const ATTRIBUTES_MAX: usize = 255;

const NAMES: [&str; 6] = [
    "AttributeUpdates",
    "AttributesToGet",
    "QueryFilter",
    "ScanFilter",
    "Expected",
    "ConditionalOperator",
];

/// DynamoDB's own words, with a quotation mark too many.
const ACTION_REFUSED: &str = "Member must satisfy enum value set: [ADD, DELETE, PUT]' for Action";

/// The legacy parameters of one request as they stand there.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    /// By the order in which DynamoDB names them, which is that of [`NAMES`].
    given: [bool; NAMES.len()],
    attributes: Option<Vec<String>>,
    filter: Vec<Written>,
    expected: Vec<WrittenExpected>,
    updates: Vec<WrittenUpdate>,
    conditional: Option<String>,
    /// The first member within the parameters that is not supported.
    unsupported: Unsupported,
}

#[derive(Debug, Default)]
struct WrittenExpected {
    condition: Written,
    value: Option<Result<Value, ItemError>>,
    exists: Option<bool>,
    has_list: bool,
}

#[derive(Debug, Default)]
struct WrittenUpdate {
    attribute: String,
    action: Option<String>,
    value: Option<Result<Value, ItemError>>,
}

impl Legacy {
    pub(super) fn none(&self) -> bool {
        !self.given.contains(&true)
    }

    pub(super) fn take_unsupported(&mut self) -> Unsupported {
        std::mem::take(&mut self.unsupported)
    }

    /// Each with whether it is there.
    pub(super) fn given(&self) -> [(&'static str, bool); NAMES.len()] {
        std::array::from_fn(|place| (NAMES[place], self.given[place]))
    }

    fn note(&mut self, name: &str) {
        let place = NAMES.iter().position(|known| *known == name);
        self.given[place.expect("one of the names")] = true;
    }

    /// A parameter of a write.
    pub(super) fn write_member(
        &mut self,
        name: &str,
        updates: bool,
        reader: &mut Reader<'_>,
    ) -> Result<bool, ApiError> {
        match name {
            "AttributeUpdates" if updates => self.updates = decode_updates(reader, &mut self.unsupported)?,
            "Expected" => self.expected = decode_expected(reader, &mut self.unsupported)?,
            "ConditionalOperator" => self.conditional = Some(reader.string()?.into_owned()),
            _ => return Ok(false),
        }
        self.note(name);
        Ok(true)
    }

    /// A parameter of a read.
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

    /// A parameter of a read of pages; `filter` is `QueryFilter` or `ScanFilter`.
    pub(super) fn page_member(
        &mut self,
        name: &str,
        filter: &str,
        reader: &mut Reader<'_>,
    ) -> Result<bool, ApiError> {
        if name == filter {
            let mut written = None;
            key_condition::decode(reader, &mut self.unsupported, &mut written)?;
            self.filter = written.unwrap_or_default();
        } else if name == "ConditionalOperator" {
            self.conditional = Some(reader.string()?.into_owned());
        } else {
            return self.get_member(name, reader);
        }
        self.note(name);
        Ok(true)
    }

    /// The attributes wanted, when that is how they were given.
    pub(super) fn attributes(&self) -> Option<&[String]> {
        self.attributes.as_deref()
    }

    /// `filter` is the path of the filter.
    pub(super) fn constraints(&self, constraints: &mut Constraints, filter: &str) {
        key_condition::constraints(constraints, filter, &self.filter);
        self.attributes_constraints(constraints, "");
    }

    /// `above` is the path that `AttributesToGet` is in, with its full stop.
    pub(super) fn attributes_constraints(&self, constraints: &mut Constraints, above: &str) {
        let Some(attributes) = &self.attributes else {
            return;
        };
        let dump = format!("[{}]", attributes.join(", "));
        let path = format!("{above}attributesToGet");
        if attributes.is_empty() {
            constraints.add(&dump, &path, "Member must have length greater than or equal to 1");
        }
        if attributes.len() > ATTRIBUTES_MAX {
            constraints.add(&dump, &path, "Member must have length less than or equal to 255");
        }
    }

    /// Whether there is something for `ConditionalOperator` to join.
    fn conditional(&self, style: Style) -> Result<Conditional, ApiError> {
        let Some(conditional) = &self.conditional else {
            return Ok(Conditional::And);
        };
        match (self.filter.len() + self.expected.len(), conditional.as_str()) {
            (0, _) => Err(style.refuse("ConditionalOperator cannot be used without Filter or Expected")),
            (1, _) => Err(style.refuse(
                "ConditionalOperator can only be used when Filter or Expected has two or more elements",
            )),
            (_, "AND") => Ok(Conditional::And),
            (_, "OR") => Ok(Conditional::Or),
            _ => {
                Err(style
                    .refuse("Failed to satisfy constraint: Member must satisfy enum value set: [ALL, OR]"))
            }
        }
    }

    /// What is wrong with the parameters before their values are looked at.
    pub(super) fn check(&self, style: Style) -> Result<(), ApiError> {
        self.conditional(style)?;
        let attributes = self.attributes.as_deref().unwrap_or_default();
        for (index, name) in attributes.iter().enumerate() {
            if name.is_empty() {
                return Err(ApiError::validation("Empty attribute name"));
            }
            if attributes[..index].contains(name) {
                return Err(ApiError::parameters(format!(
                    "Duplicate value in attribute name: {name}"
                )));
            }
        }
        Ok(())
    }

    /// The filter that `QueryFilter` or `ScanFilter` is.
    pub(super) fn take_filter(&mut self) -> Result<Option<Condition>, ApiError> {
        let conditional = self.conditional(Style::Bare)?;
        let conditions = std::mem::take(&mut self.filter)
            .into_iter()
            .map(|written| filter_condition(written, Style::Bare))
            .collect::<Result<_, _>>()?;
        Ok(filter(conditions, conditional)?.map(condition))
    }

    /// The condition that `Expected` is.
    pub(super) fn take_condition(&mut self) -> Result<Option<Condition>, ApiError> {
        let style = Style::Enveloped;
        let conditional = self.conditional(style)?;
        let members = std::mem::take(&mut self.expected)
            .into_iter()
            .map(|written| {
                let (attribute, operator, values) = written.condition.into_parts();
                Ok(Expected {
                    attribute,
                    value: written
                        .value
                        .transpose()
                        .map_err(|error| style.refuse_value(&error))?,
                    exists: written.exists,
                    comparison: operator.map(|name| comparison(&name, style)).transpose()?,
                    values: written.has_list.then(|| all(values, style)).transpose()?,
                })
            })
            .collect::<Result<_, ApiError>>()?;
        let translated = expected(members, conditional).map_err(|error| style.refuse(error))?;
        Ok(translated.map(condition))
    }

    /// The update that `AttributeUpdates` is.
    pub(super) fn take_update(&mut self) -> Result<Option<UpdateParts>, ApiError> {
        let style = Style::Enveloped;
        let updates = std::mem::take(&mut self.updates);
        if updates.is_empty() {
            return Ok(None);
        }
        let mut members = Vec::with_capacity(updates.len());
        for written in updates {
            let action = match written.action.as_deref() {
                None | Some("PUT") => UpdateAction::Put,
                Some("ADD") => UpdateAction::Add,
                Some("DELETE") => UpdateAction::Delete,
                Some(_) => return Err(style.refuse(ACTION_REFUSED)),
            };
            members.push(AttributeUpdate {
                attribute: written.attribute,
                action,
                value: written
                    .value
                    .transpose()
                    .map_err(|error| style.refuse_value(&error))?,
            });
        }
        let Translated { expression, values } = attribute_updates(members)?;
        Ok(Some((Arc::new(expression), operands(values))))
    }
}

fn operands(values: cairn_expression::Values) -> Arc<Operands> {
    Arc::new(Operands {
        names: Names::none(),
        values,
    })
}

fn condition(translated: Translated<cairn_expression::Condition>) -> Condition {
    Condition::new(Arc::new(translated.expression), operands(translated.values))
}

fn comparison(name: &str, style: Style) -> Result<Comparison, ApiError> {
    Comparison::from_name(name)
        .ok_or_else(|| style.refuse("One or more parameter values were invalid: Invalid comparison operator"))
}

fn all(values: Vec<Result<Value, ItemError>>, style: Style) -> Result<Vec<Value>, ApiError> {
    let values = values.into_iter().collect::<Result<_, _>>();
    values.map_err(|error| style.refuse_value(&error))
}

fn filter_condition(written: Written, style: Style) -> Result<FilterCondition, ApiError> {
    let (attribute, operator, values) = written.into_parts();
    Ok(FilterCondition {
        attribute,
        values: all(values, style)?,
        comparison: comparison(&operator.expect("required"), style)?,
    })
}

fn decode_expected(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
) -> Result<Vec<WrittenExpected>, ApiError> {
    let mut members = Vec::new();
    reader.begin_object()?;
    while let Some(attribute) = reader.next_key()? {
        let mut written = WrittenExpected {
            condition: Written::of(attribute.into_owned()),
            ..WrittenExpected::default()
        };
        let other = decode::members_of(reader, |name, reader| match name {
            "Value" => {
                written.value = Some(reader.checked_value()?);
                Ok(true)
            }
            "Exists" => decode::boolean(reader, &mut written.exists),
            _ => {
                written.has_list |= name == "AttributeValueList";
                written.condition.member(name, reader)
            }
        })?;
        unsupported.merge(other);
        members.push(written);
    }
    decode::keep_last(&mut members, |member: &WrittenExpected| {
        member.condition.attribute()
    });
    Ok(members)
}

fn decode_updates(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
) -> Result<Vec<WrittenUpdate>, ApiError> {
    let mut members = Vec::new();
    reader.begin_object()?;
    while let Some(attribute) = reader.next_key()? {
        let mut written = WrittenUpdate {
            attribute: attribute.into_owned(),
            ..WrittenUpdate::default()
        };
        let other = decode::members_of(reader, |name, reader| match name {
            "Action" => {
                written.action = Some(reader.string()?.into_owned());
                Ok(true)
            }
            "Value" => {
                written.value = Some(reader.checked_value()?);
                Ok(true)
            }
            _ => Ok(false),
        })?;
        unsupported.merge(other);
        members.push(written);
    }
    decode::keep_last(&mut members, |member: &WrittenUpdate| &member.attribute);
    Ok(members)
}
