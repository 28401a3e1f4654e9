//! UpdateTimeToLive, DescribeTimeToLive.
//!
//! A change counts at once and for all items, so there is no state in between and no time to wait before the next change,
//! both of which DynamoDB has. What deletes expired items is [`crate::expiry`].

use cairn_runtime::Runtime;

use super::super::constraints::{Constraints, NAME_BYTES_MIN};
use super::super::decode::{self, Text, Unsupported};
use super::super::item::Members;
use super::super::{ApiError, Service};
use super::arn::{decode_newer_name, name_required, named_by, no_table};
use crate::catalog::{Order, TableChange, TableStatus};

/// Longest name of the attribute in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 255;

#[derive(Default)]
struct Specification<'a> {
    attribute: Text<'a>,
    enabled: Option<bool>,
}

pub(in crate::api) async fn update_time_to_live<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut name, mut specification): (Text<'_>, _) = (None, None);
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |member, reader| match member {
        "TableName" => decode::text(reader, &mut name),
        "TimeToLiveSpecification" => {
            let specification = specification.insert(Specification::default());
            let other = decode::members_of(reader, |member, reader| match member {
                "AttributeName" => decode::text(reader, &mut specification.attribute),
                "Enabled" => decode::boolean(reader, &mut specification.enabled),
                _ => Ok(false),
            })?;
            inner.merge(other);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    unsupported.merge(inner);
    let name = name.as_deref().ok_or_else(name_required)?;
    let mut constraints = Constraints::new();
    constraints.name_or_arn(Some(name), "tableName", NAME_BYTES_MIN);
    match &specification {
        None => constraints.missing("timeToLiveSpecification"),
        Some(Specification { attribute, enabled }) => {
            let path = "timeToLiveSpecification.attributeName";
            constraints.required(attribute.as_ref(), path);
            if let Some(attribute) = attribute.as_deref() {
                constraints.length_within(attribute, path, 1, ATTRIBUTE_BYTES_MAX);
            }
            constraints.required(enabled.as_ref(), "timeToLiveSpecification.enabled");
        }
    }
    constraints.finish()?;
    unsupported.check()?;
    let specification = specification.expect("required");
    let attribute = specification.attribute.expect("required").into_owned();
    let enabled = specification.enabled.expect("required");
    let name = named_by(service, name)?.to_owned();
    let change = TableChange::TimeToLive {
        attribute: attribute.clone(),
        enabled,
    };
    service
        .order(|reply| Order::Change { name, change, reply })
        .await?;

    let mut members = Members::begin(out);
    let mut answer = Members::begin(members.member("TimeToLiveSpecification"));
    answer.string("AttributeName", &attribute);
    answer.boolean("Enabled", enabled);
    answer.end();
    members.end();
    Ok(())
}

pub(in crate::api) fn describe_time_to_live<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let name = decode_newer_name(service, body)?;
    let catalog = service.catalog();
    let table = catalog.get(&name).ok_or_else(|| no_table(&name))?.definition();
    if table.status != TableStatus::Active {
        let state = table.status.name();
        return Err(ApiError::validation(format!(
            "Cannot describe time to live while table is in {state} state: Current table state is {state}"
        )));
    }
    let mut members = Members::begin(out);
    let mut answer = Members::begin(members.member("TimeToLiveDescription"));
    match &table.settings.expiry_attribute {
        Some(attribute) => {
            answer.string("TimeToLiveStatus", "ENABLED");
            answer.string("AttributeName", attribute);
        }
        None => answer.string("TimeToLiveStatus", "DISABLED"),
    }
    answer.end();
    members.end();
    Ok(())
}
