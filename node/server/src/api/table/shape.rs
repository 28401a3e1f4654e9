//! Parts of the requests that several operations on tables share.

use cairn_item::json::Reader;

use super::super::ApiError;
use super::super::constraints::Constraints;
use super::super::decode::{self, Unsupported};
use super::super::error::LIMIT_EXCEEDED;
use crate::catalog::{Ceilings, WarmRequest};

/// Provisioned capacity that DynamoDB takes at most.
pub(super) const UNITS_MAX: i64 = 1_000_000_000_000;

/// The values of BillingMode.
pub(super) const BILLING_MODES: [&str; 2] = ["PROVISIONED", "PAY_PER_REQUEST"];
/// The values of TableClass.
pub(super) const TABLE_CLASSES: [&str; 2] = ["STANDARD", "STANDARD_INFREQUENT_ACCESS"];

/// A name and what it is: an attribute's type, or a key's role.
#[derive(Default)]
pub(super) struct Pair {
    pub name: Option<String>,
    pub kind: Option<String>,
}

/// ProvisionedThroughput.
#[derive(Default)]
pub(super) struct Units {
    read: Option<i64>,
    write: Option<i64>,
}

/// Reads a list of pairs of `AttributeName` and `kind_name`.
pub(super) fn decode_pairs(
    reader: &mut Reader<'_>,
    kind_name: &str,
    unsupported: &mut Unsupported,
    into: &mut Option<Vec<Pair>>,
) -> Result<bool, ApiError> {
    let mut pairs = Vec::new();
    decode::list(reader, |reader| {
        let (mut name, mut kind) = (None, None);
        let other = decode::members_of(reader, |member, reader| match member {
            "AttributeName" => decode::text(reader, &mut name),
            _ if member == kind_name => decode::text(reader, &mut kind),
            _ => Ok(false),
        })?;
        unsupported.merge(other);
        pairs.push(Pair {
            name: name.map(Into::into),
            kind: kind.map(Into::into),
        });
        Ok(())
    })?;
    *into = Some(pairs);
    Ok(true)
}

pub(super) fn decode_units(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
    into: &mut Option<Units>,
) -> Result<bool, ApiError> {
    let mut units = Units::default();
    let other = decode::members_of(reader, |member, reader| match member {
        "ReadCapacityUnits" => decode::integer(reader, &mut units.read),
        "WriteCapacityUnits" => decode::integer(reader, &mut units.write),
        _ => Ok(false),
    })?;
    unsupported.merge(other);
    *into = Some(units);
    Ok(true)
}

impl Units {
    pub(super) fn constraints(&self, constraints: &mut Constraints, path: &str) {
        for (value, name) in [
            (self.write, "writeCapacityUnits"),
            (self.read, "readCapacityUnits"),
        ] {
            let path = format!("{path}.{name}");
            constraints.required(value.as_ref(), &path);
            constraints.at_least(value, &path, 1);
        }
    }

    /// Read and write units; the constraints hold.
    pub(super) fn checked(&self) -> Result<(u64, u64), ApiError> {
        let bounded = |value: Option<i64>, name: &str| {
            let value = value.expect("required");
            if value > UNITS_MAX {
                return Err(ApiError::validation(format!(
                    "Given value {value} for {name} is out of bounds"
                )));
            }
            Ok(value.unsigned_abs())
        };
        Ok((
            bounded(self.read, "ReadCapacityUnits")?,
            bounded(self.write, "WriteCapacityUnits")?,
        ))
    }
}

/// Reads OnDemandThroughput. One without members is none.
pub(super) fn decode_ceilings(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
    into: &mut Ceilings,
) -> Result<bool, ApiError> {
    let mut ceilings = Ceilings::default();
    let other = decode::members_of(reader, |member, reader| match member {
        "MaxReadRequestUnits" => decode::integer(reader, &mut ceilings.read),
        "MaxWriteRequestUnits" => decode::integer(reader, &mut ceilings.write),
        _ => Ok(false),
    })?;
    unsupported.merge(other);
    *into = ceilings;
    Ok(true)
}

/// Reads WarmThroughput.
pub(super) fn decode_warm(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
    into: &mut Option<WarmRequest>,
) -> Result<bool, ApiError> {
    let mut warm = WarmRequest::default();
    let other = decode::members_of(reader, |member, reader| match member {
        "ReadUnitsPerSecond" => decode::integer(reader, &mut warm.read),
        "WriteUnitsPerSecond" => decode::integer(reader, &mut warm.write),
        _ => Ok(false),
    })?;
    unsupported.merge(other);
    *into = Some(warm);
    Ok(true)
}

/// Refuses warm throughput of "table" or "index NAME" above what DescribeLimits says of a table.
pub(super) fn check_warm_limit(warm: Option<WarmRequest>, of: &str, region: &str) -> Result<(), ApiError> {
    let members = warm.unwrap_or_default().members().into_iter();
    for ((name, units), limit) in members.zip(["TableMaxReadCapacityUnits", "TableMaxWriteCapacityUnits"]) {
        if units.is_some_and(|units| units > UNITS_MAX) {
            return Err(ApiError::new(
                LIMIT_EXCEEDED,
                format!(
                    "Subscriber limit exceeded: Requested {name} for WarmThroughput for {of} exceeds {limit} of the account \
                     in region {region}"
                ),
            ));
        }
    }
    Ok(())
}

pub(super) fn pair_constraints(
    constraints: &mut Constraints,
    pairs: &[Pair],
    path: &str,
    kind_path: &str,
    kinds: &[&str],
) {
    for (index, pair) in pairs.iter().enumerate() {
        let path = format!("{path}.{}.member", index + 1);
        constraints.required(pair.name.as_ref(), &format!("{path}.attributeName"));
        constraints.required(pair.kind.as_ref(), &format!("{path}.{kind_path}"));
        constraints.one_of(pair.kind.as_deref(), &format!("{path}.{kind_path}"), kinds);
    }
}
