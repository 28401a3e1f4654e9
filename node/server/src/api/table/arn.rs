//! Names of tables as requests give them: plain, or as an ARN.

use std::borrow::Cow;

use cairn_runtime::Runtime;

use super::super::constraints::{Constraints, NAME_BYTES_MAX, NAME_BYTES_MIN, is_arn, is_name};
use super::super::decode::{self, Text, Unsupported};
use super::super::error::{ACCESS_DENIED, RESOURCE_NOT_FOUND};
use super::super::{ApiError, Service};

/// The table's name in a `TableName`, which may be the table's ARN.
pub(in crate::api) fn named_by<'a, R: Runtime>(
    service: &Service<R>,
    name: &'a str,
) -> Result<&'a str, ApiError> {
    if !is_arn(name) {
        return Ok(name);
    }
    let format = || {
        violation(
            name,
            "Valid ARN format is 'arn:<awsPartition>:<vendor>:<region>:<subscriber>:resourceType/resourceName', where \
             Resource name must have length less than or equal to 255, Resource name must have length greater than \
             or equal to 3, Resource name must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
        )
    };
    let arn = Arn::parse(name).ok_or_else(format)?;
    let invalid = |what: &str| {
        Err(ApiError::validation(format!(
            "1 validation error detected: Invalid {what} in '{name}'"
        )))
    };
    if arn.partition != "aws" {
        return invalid("AWS partition");
    }
    if arn.region != service.region() {
        return invalid("AWS region");
    }
    let Some(table) = arn
        .resource
        .strip_prefix("table/")
        .filter(|_| arn.vendor == "dynamodb")
    else {
        return invalid("resource type");
    };
    if !(NAME_BYTES_MIN..=NAME_BYTES_MAX).contains(&table.len()) || !is_name(table) {
        return Err(format());
    }
    if arn.account != service.account() {
        return Err(ApiError::new(RESOURCE_NOT_FOUND, "Requested resource not found"));
    }
    Ok(table)
}

fn violation(arn: &str, constraint: &str) -> ApiError {
    let mut constraints = Constraints::new();
    constraints.add(arn, "tableName", constraint);
    constraints.finish().expect_err("one was added")
}

/// The table that a `ResourceArn` names, in the words of the operations on tags and policies.
pub(super) fn resource<'a, R: Runtime>(
    service: &Service<R>,
    operation: &str,
    arn: &'a str,
) -> Result<&'a str, ApiError> {
    if !is_arn(arn) {
        return Err(ApiError::parameters(format!(
            "ARNs must start with 'arn:': {arn}"
        )));
    }
    let invalid = || {
        ApiError::validation(format!(
            "Invalid TableArn: Invalid ResourceArn provided as input {arn}"
        ))
    };
    let parts = Arn::parse(arn).ok_or_else(invalid)?;
    if parts.vendor != "dynamodb" {
        return Err(ApiError::parameters(format!(
            "Provided Arn is not a DynamoDB resource arn: {arn}"
        )));
    }
    let Some(table) = parts
        .resource
        .strip_prefix("table/")
        .filter(|table| !table.contains('/'))
    else {
        return Err(ApiError::parameters(format!(
            "Invalid resource arn provided, only table or stream is accepted. Provided resource arn: {arn}"
        )));
    };
    if parts.partition != "aws"
        || parts.region != service.region()
        || !(NAME_BYTES_MIN..=NAME_BYTES_MAX).contains(&table.len())
        || !is_name(table)
    {
        return Err(invalid());
    }
    if parts.account != service.account() {
        return Err(ApiError::new(
            ACCESS_DENIED,
            format!(
                "User: arn:aws:iam::{}:root is not authorized to perform: dynamodb:{operation} on resource: {arn}",
                service.account()
            ),
        ));
    }
    Ok(table)
}

/// `arn:partition:vendor:region:account:resource`.
struct Arn<'a> {
    partition: &'a str,
    vendor: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl Arn<'_> {
    fn parse(text: &str) -> Option<Arn<'_>> {
        let mut parts = text.splitn(6, ':').skip(1);
        let arn = Arn {
            partition: parts.next()?,
            vendor: parts.next()?,
            region: parts.next()?,
            account: parts.next()?,
            resource: parts.next()?,
        };
        (!arn.resource.is_empty()).then_some(arn)
    }
}

pub(super) fn name_required() -> ApiError {
    ApiError::validation("The parameter 'TableName' is required but was not present in the request")
}

/// The only parameter of an operation: a `TableName`, in the words of DescribeTable and DeleteTable.
pub(super) fn decode_name<R: Runtime>(service: &Service<R>, body: &[u8]) -> Result<String, ApiError> {
    let (name, unsupported) = decode_only_name(body)?;
    let name = name.ok_or_else(name_required)?;
    if !is_arn(&name) {
        if !(NAME_BYTES_MIN..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(ApiError::validation(
                "TableName must be at least 3 characters long and at most 255 characters long",
            ));
        }
        check_name(&name)?;
    }
    unsupported.check()?;
    Ok(named_by(service, &name)?.to_owned())
}

/// As [`decode_name`], in the words of the newer operations.
pub(super) fn decode_newer_name<R: Runtime>(service: &Service<R>, body: &[u8]) -> Result<String, ApiError> {
    let (name, unsupported) = decode_only_name(body)?;
    let name = name.ok_or_else(name_required)?;
    check_name(&name)?;
    unsupported.check()?;
    Ok(named_by(service, &name)?.to_owned())
}

fn decode_only_name(body: &[u8]) -> Result<(Text<'_>, Unsupported), ApiError> {
    let mut name: Option<Cow<'_, str>> = None;
    let unsupported = decode::members(body, |member, reader| match member {
        "TableName" => decode::text(reader, &mut name),
        _ => Ok(false),
    })?;
    Ok((name, unsupported))
}

/// The constraints of a name alone.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let mut constraints = Constraints::new();
    constraints.name_or_arn(Some(name), "tableName", NAME_BYTES_MIN);
    constraints.finish()
}

/// There is no table of that name.
pub(super) fn no_table(name: &str) -> ApiError {
    ApiError::new(
        RESOURCE_NOT_FOUND,
        format!("Requested resource not found: Table: {name} not found"),
    )
}
