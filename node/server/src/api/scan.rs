//! Scan, and what Query has in common with it.

use cairn_item::json::write_item_view;
use cairn_item::{Item, ItemError};
use cairn_runtime::Runtime;

use super::capacity::{Capacity, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, CheckedItem, Text};
use super::item::Members;
use super::service::{Page, start_key, write_key_of};
use super::{ApiError, Scan, Service};
use crate::catalog::{PrimaryKey, Table};

/// Segments that a table may be scanned in.
const SEGMENTS_MAX: i64 = 1_000_000;

const SELECT: [&str; 4] = [
    "SPECIFIC_ATTRIBUTES",
    "COUNT",
    "ALL_ATTRIBUTES",
    "ALL_PROJECTED_ATTRIBUTES",
];

/// The parameters that Query and Scan share.
#[derive(Default)]
pub(super) struct PageParameters<'a> {
    pub table: Text<'a>,
    pub select: Text<'a>,
    pub limit: Option<i64>,
    pub start: CheckedItem,
    pub consistent: Option<bool>,
    pub capacity: Text<'a>,
}

impl<'a> PageParameters<'a> {
    pub(super) fn member(
        &mut self,
        name: &str,
        reader: &mut cairn_item::json::Reader<'a>,
    ) -> Result<bool, ApiError> {
        match name {
            "TableName" => decode::text(reader, &mut self.table),
            "Select" => decode::text(reader, &mut self.select),
            "Limit" => decode::integer(reader, &mut self.limit),
            "ExclusiveStartKey" => decode::item(reader, &mut self.start),
            "ConsistentRead" => decode::boolean(reader, &mut self.consistent),
            "ReturnConsumedCapacity" => decode::text(reader, &mut self.capacity),
            _ => Ok(false),
        }
    }

    pub(super) fn constraints(&self, constraints: &mut Constraints) {
        constraints.table_name(self.table.as_deref());
        constraints.one_of(self.select.as_deref(), "select", &SELECT);
        constraints.one_of(
            self.capacity.as_deref(),
            "returnConsumedCapacity",
            &ReturnCapacity::ALLOWED,
        );
    }

    /// Whether only the count is wanted. Indexes and projections, which the other values are about, do not exist.
    pub(super) fn count_only(&self) -> Result<bool, ApiError> {
        match self.select.as_deref() {
            Some("COUNT") => Ok(true),
            Some("SPECIFIC_ATTRIBUTES") => Err(ApiError::validation(
                "Must specify the AttributesToGet or ProjectionExpression when choosing to get \
                 SPECIFIC_ATTRIBUTES",
            )),
            Some("ALL_PROJECTED_ATTRIBUTES") => Err(ApiError::validation(
                "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
            )),
            _ => Ok(false),
        }
    }

    /// The starting key, if its values are allowed.
    pub(super) fn take_start(&mut self) -> Result<Option<Item>, ApiError> {
        match self.start.take() {
            None => Ok(None),
            Some(Ok(key)) => Ok(Some(key)),
            Some(Err(error)) => Err(start_refusal(&error)),
        }
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit.map(i64::unsigned_abs)
    }

    /// Writes the answer.
    pub(super) fn respond(&self, out: &mut Vec<u8>, table: &Table, page: &Page, count_only: bool) {
        let mut members = Members::begin(out);
        let bytes = page.scanned_bytes;
        members.capacity(
            ReturnCapacity::parse(self.capacity.as_deref()),
            &table.definition().name,
            Capacity::of_read(bytes, self.consistent.unwrap_or(false)),
        );
        members.number("Count", page.count);
        if !count_only {
            let list = members.member("Items");
            list.push(b'[');
            for (index, item) in page.items.iter().enumerate() {
                if index > 0 {
                    list.push(b',');
                }
                write_item_view(list, item.view());
            }
            list.push(b']');
        }
        if let Some(last) = &page.last {
            write_key_of(members.member("LastEvaluatedKey"), table, last.view());
        }
        members.number("ScannedCount", page.scanned_count);
        members.end();
    }
}

/// DynamoDB says that the starting key is wrong, except of numbers and of sets with duplicates.
fn start_refusal(error: &ItemError) -> ApiError {
    let bare = matches!(
        error,
        ItemError::NumberEmpty
            | ItemError::NumberSyntax(_)
            | ItemError::NumberOverflow
            | ItemError::NumberUnderflow
            | ItemError::NumberPrecision
            | ItemError::NumberSetEmpty
            | ItemError::StringSetDuplicates(_)
            | ItemError::NumberSetDuplicates
            | ItemError::BinarySetDuplicates(_)
    );
    let prefix = if bare {
        ""
    } else {
        "The provided starting key is invalid: "
    };
    ApiError::validation(format!("{prefix}{error}"))
}

/// The starting key of a table's page.
pub(super) fn resolve_start(table: &Table, start: Option<Item>) -> Result<Option<PrimaryKey>, ApiError> {
    start.map(|key| start_key(table, &key)).transpose()
}

pub(super) async fn scan<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut common = PageParameters::default();
    let (mut segment, mut total) = (None, None);
    let unsupported = decode::members(body, |name, reader| match name {
        "Segment" => decode::integer(reader, &mut segment),
        "TotalSegments" => decode::integer(reader, &mut total),
        _ => common.member(name, reader),
    })?;
    let mut constraints = Constraints::new();
    common.constraints(&mut constraints);
    constraints.at_least(common.limit, "limit", 1);
    constraints.at_least(segment, "segment", 0);
    constraints.at_least(total, "totalSegments", 1);
    constraints.at_most(total, "totalSegments", SEGMENTS_MAX);
    constraints.finish()?;
    unsupported.check()?;
    let start = common.take_start()?;
    let segment = match (segment, total) {
        (None, None) => None,
        (Some(_), None) => {
            return Err(ApiError::validation(
                "The TotalSegments parameter is required but was not present in the request when Segment \
                 parameter is present",
            ));
        }
        (None, Some(_)) => {
            return Err(ApiError::validation(
                "The Segment parameter is required but was not present in the request when parameter \
                 TotalSegments is present",
            ));
        }
        (Some(segment), Some(total)) if segment >= total => {
            return Err(ApiError::validation(format!(
                "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: \
                 {segment} is not less than TotalSegments: {total}"
            )));
        }
        (Some(segment), Some(total)) => {
            let small = |number: i64| u32::try_from(number).expect("at most a million");
            Some((small(segment), small(total)))
        }
    };
    let count_only = common.count_only()?;

    let table = service.table(common.table.as_deref().expect("required"))?;
    let start = resolve_start(&table, start)?;
    let scan = Scan {
        segment,
        start,
        limit: common.limit(),
        filter: None,
        count_only,
    };
    let page = service.scan(&table, scan).await?;
    common.respond(out, &table, &page, count_only);
    Ok(())
}
