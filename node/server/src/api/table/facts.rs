//! What is the same for all tables, and lists that are always empty here.
//!
//! These operations ask about things that this node does not have (backups, exports, imports, global tables, policies,
//! insights, Kinesis streams): that there are none is the truth, and tools such as Terraform ask before they go on. What would
//! make one of those things is refused by name.

use cairn_item::json::Reader;
use cairn_runtime::Runtime;

use super::super::constraints::{Constraints, NAME_BYTES_MIN};
use super::super::decode::{self, Text, Unsupported};
use super::super::error::{POLICY_NOT_FOUND, RESOURCE_NOT_FOUND, TABLE_NOT_FOUND};
use super::super::item::Members;
use super::super::{ApiError, Service};
use super::arn::{check_name, decode_newer_name, name_required, named_by, no_table, resource};
use super::shape::UNITS_MAX;
use crate::catalog::TABLES_MAX;

pub(in crate::api) fn describe_limits(body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
    decode::no_parameters(body)?;
    let table = UNITS_MAX.unsigned_abs();
    let account = table * TABLES_MAX as u64;
    let mut members = Members::begin(out);
    members.number("AccountMaxReadCapacityUnits", account);
    members.number("AccountMaxWriteCapacityUnits", account);
    members.number("TableMaxReadCapacityUnits", table);
    members.number("TableMaxWriteCapacityUnits", table);
    members.end();
    Ok(())
}

fn no_backup_table(name: &str) -> ApiError {
    ApiError::new(TABLE_NOT_FOUND, format!("Table not found: {name}"))
}

fn write_continuous_backups(out: &mut Vec<u8>) {
    out.extend_from_slice(
        br#"{"ContinuousBackupsDescription":{"ContinuousBackupsStatus":"DISABLED","PointInTimeRecoveryDescription":{"PointInTimeRecoveryStatus":"DISABLED"}}}"#,
    );
}

pub(in crate::api) fn describe_continuous_backups<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let name = decode_newer_name(service, body)?;
    if service.catalog().get(&name).is_none() {
        return Err(no_backup_table(&name));
    }
    write_continuous_backups(out);
    Ok(())
}

/// Point-in-time recovery can be turned off, which it is.
pub(in crate::api) fn update_continuous_backups<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    const ENABLED: &str = "PointInTimeRecoveryEnabled";
    let (mut name, mut specified, mut enabled): (Text<'_>, bool, Option<bool>) = (None, false, None);
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |member, reader| match member {
        "TableName" => decode::text(reader, &mut name),
        "PointInTimeRecoverySpecification" => {
            specified = true;
            let other = decode::members_of(reader, |member, reader| match member {
                ENABLED => decode::boolean(reader, &mut enabled),
                _ => Ok(false),
            })?;
            inner.merge(other);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    if enabled == Some(true) {
        inner.add(ENABLED);
    }
    unsupported.merge(inner);
    let name = name.as_deref().ok_or_else(name_required)?;
    let mut constraints = Constraints::new();
    constraints.name_or_arn(Some(name), "tableName", NAME_BYTES_MIN);
    if !specified {
        constraints.missing("pointInTimeRecoverySpecification");
    } else {
        constraints.required(
            enabled.as_ref(),
            "pointInTimeRecoverySpecification.pointInTimeRecoveryEnabled",
        );
    }
    constraints.finish()?;
    unsupported.check()?;
    let name = named_by(service, name)?;
    if service.catalog().get(name).is_none() {
        return Err(no_backup_table(name));
    }
    write_continuous_backups(out);
    Ok(())
}

/// What a member of a request is, where its value decides nothing.
enum Kind {
    Text,
    Number,
    /// A number from 1 to this.
    UpTo(i64),
}

/// Reads a request of which nothing is needed.
fn read_members(body: &[u8], members: &[(&str, Kind)]) -> Result<(), ApiError> {
    let mut constraints = Constraints::new();
    let unsupported = decode::members(body, |name, reader| {
        read_member(name, reader, members, &mut constraints)
    })?;
    constraints.finish()?;
    unsupported.check()
}

fn read_member(
    name: &str,
    reader: &mut Reader<'_>,
    members: &[(&str, Kind)],
    constraints: &mut Constraints,
) -> Result<bool, ApiError> {
    match members.iter().find(|(member, _)| *member == name) {
        None => return Ok(false),
        Some((_, Kind::Text)) => {
            reader.string()?;
        }
        Some((_, Kind::Number)) => {
            reader.number()?;
        }
        Some((_, Kind::UpTo(most))) => {
            let value = Some(reader.integer()?);
            let path = format!("{}{}", name[..1].to_ascii_lowercase(), &name[1..]);
            constraints.at_least(value, &path, 1);
            constraints.at_most(value, &path, *most);
        }
    }
    Ok(true)
}

fn write_empty_list(out: &mut Vec<u8>, name: &str) {
    let mut members = Members::begin(out);
    members.member(name).extend_from_slice(b"[]");
    members.end();
}

pub(in crate::api) fn list_backups(body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
    read_members(
        body,
        &[
            ("TableName", Kind::Text),
            ("Limit", Kind::UpTo(100)),
            ("TimeRangeLowerBound", Kind::Number),
            ("TimeRangeUpperBound", Kind::Number),
            ("ExclusiveStartBackupArn", Kind::Text),
            ("BackupType", Kind::Text),
        ],
    )?;
    write_empty_list(out, "BackupSummaries");
    Ok(())
}

pub(in crate::api) fn list_exports(body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
    read_members(
        body,
        &[
            ("TableArn", Kind::Text),
            ("MaxResults", Kind::UpTo(25)),
            ("NextToken", Kind::Text),
        ],
    )?;
    write_empty_list(out, "ExportSummaries");
    Ok(())
}

pub(in crate::api) fn list_imports(body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
    read_members(
        body,
        &[
            ("TableArn", Kind::Text),
            ("PageSize", Kind::UpTo(25)),
            ("NextToken", Kind::Text),
        ],
    )?;
    write_empty_list(out, "ImportSummaryList");
    Ok(())
}

pub(in crate::api) fn list_global_tables(body: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
    read_members(
        body,
        &[
            ("ExclusiveStartGlobalTableName", Kind::Text),
            ("Limit", Kind::UpTo(i64::MAX)),
            ("RegionName", Kind::Text),
        ],
    )?;
    write_empty_list(out, "GlobalTables");
    Ok(())
}

pub(in crate::api) fn list_contributor_insights<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut name: Text<'_> = None;
    let mut constraints = Constraints::new();
    let members = [("MaxResults", Kind::UpTo(100)), ("NextToken", Kind::Text)];
    let unsupported = decode::members(body, |member, reader| match member {
        "TableName" => decode::text(reader, &mut name),
        _ => read_member(member, reader, &members, &mut constraints),
    })?;
    constraints.name_or_arn(name.as_deref(), "tableName", NAME_BYTES_MIN);
    constraints.finish()?;
    unsupported.check()?;
    if let Some(name) = name {
        known(service, &name)?;
    }
    write_empty_list(out, "ContributorInsightsSummaries");
    Ok(())
}

/// The name of a table that exists.
fn known<'a, R: Runtime>(service: &Service<R>, name: &'a str) -> Result<&'a str, ApiError> {
    let name = named_by(service, name)?;
    if service.catalog().get(name).is_none() {
        return Err(no_table(name));
    }
    Ok(name)
}

pub(in crate::api) fn describe_contributor_insights<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut name, mut index): (Text<'_>, Text<'_>) = (None, None);
    let unsupported = decode::members(body, |member, reader| match member {
        "TableName" => decode::text(reader, &mut name),
        "IndexName" => decode::text(reader, &mut index),
        _ => Ok(false),
    })?;
    let name = name.ok_or_else(name_required)?;
    check_name(&name)?;
    unsupported.check()?;
    let name = known(service, &name)?;
    if let Some(index) = index {
        return Err(ApiError::new(
            RESOURCE_NOT_FOUND,
            format!("Requested resource not found: Index: {index} not found for table: {name}"),
        ));
    }
    let mut members = Members::begin(out);
    members.string("TableName", name);
    members.string("ContributorInsightsStatus", "DISABLED");
    members.end();
    Ok(())
}

pub(in crate::api) fn describe_kinesis_streaming_destination<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let name = decode_newer_name(service, body)?;
    let name = known(service, &name)?;
    let mut members = Members::begin(out);
    members.string("TableName", name);
    members
        .member("KinesisDataStreamDestinations")
        .extend_from_slice(b"[]");
    members.end();
    Ok(())
}

pub(in crate::api) fn get_resource_policy<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
) -> Result<(), ApiError> {
    let mut arn: Text<'_> = None;
    let unsupported = decode::members(body, |member, reader| match member {
        "ResourceArn" => decode::text(reader, &mut arn),
        _ => Ok(false),
    })?;
    let mut constraints = Constraints::new();
    constraints.required(arn.as_ref(), "resourceArn");
    constraints.finish()?;
    unsupported.check()?;
    let arn = arn.expect("required");
    let name = resource(service, "GetResourcePolicy", &arn)?;
    if service.catalog().get(name).is_none() {
        return Err(no_table(name));
    }
    Err(ApiError::new(
        POLICY_NOT_FOUND,
        format!(
            "Resource-based policy not found for the provided ResourceArn: Requested policy not found for: {arn}"
        ),
    ))
}
