//! TagResource, UntagResource, ListTagsOfResource.
//!
//! Tags are part of the table's entry in the catalog. Those whose keys begin with `cairn:` are settings of the table that
//! DynamoDB has no parameter for: they can be set by everything that can set tags.

use std::collections::BTreeSet;

use cairn_item::json::Reader;
use cairn_runtime::Runtime;

use super::super::constraints::Constraints;
use super::super::decode::{self, Text, Unsupported};
use super::super::error::RESOURCE_NOT_FOUND;
use super::super::item::Members;
use super::super::{ApiError, Service};
use super::arn::resource;
use crate::catalog::{Order, TableChange, TableStatus, check_own_tag, check_tag_count};

/// Longest key of a tag in characters.
const KEY_CHARACTERS_MAX: usize = 128;
/// Longest value of a tag in characters.
const VALUE_CHARACTERS_MAX: usize = 256;

/// A tag as a request gives it.
#[derive(Default)]
pub(super) struct Tag {
    key: Option<String>,
    value: Option<String>,
}

pub(super) fn decode_tags(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
    into: &mut Option<Vec<Tag>>,
) -> Result<bool, ApiError> {
    let mut tags = Vec::new();
    decode::list(reader, |reader| {
        let (mut key, mut value) = (None, None);
        let other = decode::members_of(reader, |member, reader| match member {
            "Key" => decode::text(reader, &mut key),
            "Value" => decode::text(reader, &mut value),
            _ => Ok(false),
        })?;
        unsupported.merge(other);
        tags.push(Tag {
            key: key.map(Into::into),
            value: value.map(Into::into),
        });
        Ok(())
    })?;
    *into = Some(tags);
    Ok(true)
}

/// The tags of a request, each key once.
pub(super) fn check_tags(tags: Vec<Tag>) -> Result<Vec<(String, String)>, ApiError> {
    let mut seen = BTreeSet::new();
    let mut checked = Vec::with_capacity(tags.len());
    for Tag { key, value } in tags {
        let key = check_key(key)?;
        let valid =
            |value: &String| value.chars().count() <= VALUE_CHARACTERS_MAX && value.chars().all(is_allowed);
        let value = match value {
            Some(value) if valid(&value) => value,
            value => {
                let value = value.as_deref().unwrap_or("null");
                return Err(ApiError::validation(format!(
                    "The Tag Value provided is invalid, Value: {value}"
                )));
            }
        };
        check_own_tag(&key, &value)?;
        if !seen.insert(key.clone()) {
            return Err(ApiError::validation(format!(
                "Duplicate Tag Keys provided as input: Duplicate Tag Key found {key}"
            )));
        }
        checked.push((key, value));
    }
    check_tag_count(checked.len())?;
    Ok(checked)
}

fn check_key(key: Option<String>) -> Result<String, ApiError> {
    let valid =
        |key: &String| (1..=KEY_CHARACTERS_MAX).contains(&key.chars().count()) && key.chars().all(is_allowed);
    let Some(key) = key.clone().filter(valid) else {
        let key = key.as_deref().unwrap_or("null");
        return Err(ApiError::validation(format!(
            "The Tag Key provided is invalid, Key: {key}"
        )));
    };
    if key
        .get(..4)
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"))
    {
        return Err(ApiError::validation(format!(
            "Tag Key cannot be prefixed with aws:, Key: {key}"
        )));
    }
    Ok(key)
}

/// Letters, digits and spaces of any script, and a few signs.
fn is_allowed(character: char) -> bool {
    character.is_alphanumeric()
        || (character.is_whitespace() && !character.is_control())
        || "+-=._:/@".contains(character)
}

fn arn_given(arn: &Text<'_>) -> Result<String, ApiError> {
    arn.as_deref()
        .map(str::to_owned)
        .ok_or_else(|| ApiError::validation("Invalid TableArn"))
}

fn required<T>(value: Option<T>, path: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| {
        let mut constraints = Constraints::new();
        constraints.missing(path);
        constraints.finish().expect_err("one was added")
    })
}

fn no_resource(arn: &str) -> ApiError {
    ApiError::new(
        RESOURCE_NOT_FOUND,
        format!("Requested resource not found: ResourceArn: {arn} not found"),
    )
}

/// Has the tags changed; the answer has no body.
async fn change<R: Runtime>(
    service: &Service<R>,
    arn: &str,
    table: &str,
    change: TableChange,
) -> Result<(), ApiError> {
    let name = table.to_owned();
    let changed = service.order(|reply| Order::Change { name, change, reply }).await;
    match changed {
        Err(error) if error.kind == RESOURCE_NOT_FOUND => Err(no_resource(arn)),
        changed => changed.map(|_| ()),
    }
}

pub(in crate::api) async fn tag_resource<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
) -> Result<(), ApiError> {
    let (mut arn, mut tags) = (None, None);
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |member, reader| match member {
        "ResourceArn" => decode::text(reader, &mut arn),
        "Tags" => decode_tags(reader, &mut inner, &mut tags),
        _ => Ok(false),
    })?;
    unsupported.merge(inner);
    let arn = arn_given(&arn)?;
    let tags = required(tags, "tags")?;
    unsupported.check()?;
    let table = resource(service, "TagResource", &arn)?;
    if tags.is_empty() {
        return Err(ApiError::validation(
            "Atleast one Tag needs to be provided as Input.",
        ));
    }
    change(service, &arn, table, TableChange::Tag(check_tags(tags)?)).await
}

pub(in crate::api) async fn untag_resource<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
) -> Result<(), ApiError> {
    let (mut arn, mut keys) = (None, None);
    let unsupported = decode::members(body, |member, reader| match member {
        "ResourceArn" => decode::text(reader, &mut arn),
        "TagKeys" => {
            let keys = keys.insert(Vec::new());
            decode::list(reader, |reader| {
                keys.push(reader.string()?.into_owned());
                Ok(())
            })
        }
        _ => Ok(false),
    })?;
    let arn = arn_given(&arn)?;
    let keys = required(keys, "tagKeys")?;
    unsupported.check()?;
    let table = resource(service, "UntagResource", &arn)?;
    if keys.is_empty() {
        return Err(ApiError::validation(
            "Atleast one Tag Key needs to be provided as Input.",
        ));
    }
    let keys: Vec<String> = keys
        .into_iter()
        .map(|key| check_key(Some(key)))
        .collect::<Result<_, _>>()?;
    check_tag_count(keys.len())?;
    change(service, &arn, table, TableChange::Untag(keys)).await
}

pub(in crate::api) fn list_tags_of_resource<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut arn, mut token) = (None, None);
    let unsupported = decode::members(body, |member, reader| match member {
        "ResourceArn" => decode::text(reader, &mut arn),
        "NextToken" => decode::text(reader, &mut token),
        _ => Ok(false),
    })?;
    let arn = arn_given(&arn)?;
    unsupported.check()?;
    let name = resource(service, "ListTagsOfResource", &arn)?;
    if token.is_some() {
        // One answer holds all tags, so none was ever given out.
        return Err(ApiError::parameters(
            "NextToken is not one that this operation returned",
        ));
    }
    let catalog = service.catalog();
    let table = catalog.get(name).map(|table| table.definition());
    let Some(table) = table.filter(|table| table.status == TableStatus::Active) else {
        return Err(no_resource(&arn));
    };
    let mut members = Members::begin(out);
    let list = members.member("Tags");
    list.push(b'[');
    for (index, (key, value)) in table.settings.tags.iter().enumerate() {
        if index > 0 {
            list.push(b',');
        }
        let mut tag = Members::begin(list);
        tag.string("Key", key);
        tag.string("Value", value);
        tag.end();
    }
    list.push(b']');
    members.end();
    Ok(())
}
