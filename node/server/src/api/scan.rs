//! Scan, and what Query has in common with it.

use std::sync::Arc;

use cairn_item::json::write_item_view;
use cairn_item::{Item, ItemError};
use cairn_runtime::Runtime;

use super::capacity::{Capacity, Consumed, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, CheckedItem, Text};
use super::expressions::{Placeholders, Style, check_used, envelope, present};
use super::index::{
    IndexRead, IndexStart, check_consistency, check_scalars, consumed, fetches, index_of, write_entry_key,
};
use super::item::Members;
use super::legacy::Legacy;
use super::projection::Projection;
use super::service::{Page, start_key, write_key_of};
use super::{ApiError, Scan, Service};
use crate::catalog::{IndexDefinition, PrimaryKey, Table};
use crate::route::{Filter, Operands};

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
    pub index: Text<'a>,
    pub select: Text<'a>,
    pub limit: Option<i64>,
    pub start: CheckedItem,
    pub consistent: Option<bool>,
    pub capacity: Text<'a>,
    pub filter: Text<'a>,
    pub projection: Text<'a>,
    pub placeholders: Placeholders,
    pub legacy: Legacy,
}

impl<'a> PageParameters<'a> {
    /// `legacy_filter` is the operation's name for what filters replaced.
    pub(super) fn member(
        &mut self,
        name: &str,
        legacy_filter: &str,
        reader: &mut cairn_item::json::Reader<'a>,
    ) -> Result<bool, ApiError> {
        match name {
            "TableName" => decode::text(reader, &mut self.table),
            "IndexName" => decode::text(reader, &mut self.index),
            "Select" => decode::text(reader, &mut self.select),
            "Limit" => decode::integer(reader, &mut self.limit),
            "ExclusiveStartKey" => decode::item(reader, &mut self.start),
            "ConsistentRead" => decode::boolean(reader, &mut self.consistent),
            "ReturnConsumedCapacity" => decode::text(reader, &mut self.capacity),
            "FilterExpression" => decode::text(reader, &mut self.filter),
            "ProjectionExpression" => decode::text(reader, &mut self.projection),
            _ => Ok(self.placeholders.member(name, reader)?
                || self.legacy.page_member(name, legacy_filter, reader)?),
        }
    }

    pub(super) fn check_select(&self, constraints: &mut Constraints) {
        constraints.one_of(self.select.as_deref(), "select", &SELECT);
    }

    pub(super) fn check_capacity(&self, constraints: &mut Constraints) {
        constraints.one_of(
            self.capacity.as_deref(),
            "returnConsumedCapacity",
            &ReturnCapacity::ALLOWED,
        );
    }

    /// Whether `Select` goes with what else is asked for.
    pub(super) fn check_select_use(&self) -> Result<(), ApiError> {
        let Some(select) = self.select.as_deref() else {
            return Ok(());
        };
        let projected = if self.legacy.attributes().is_some() {
            Some("AttributesToGet")
        } else if self.projection.is_some() {
            Some("ProjectionExpression")
        } else {
            None
        };
        match (select, projected) {
            ("SPECIFIC_ATTRIBUTES", None) => Err(envelope(
                "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES",
            )),
            ("SPECIFIC_ATTRIBUTES", Some(_)) => Ok(()),
            (select, Some(projected)) => {
                let select = if select == "COUNT" {
                    "only the Count"
                } else {
                    select
                };
                Err(envelope(format_args!(
                    "Cannot specify the {projected} when choosing to get {select}"
                )))
            }
            ("ALL_PROJECTED_ATTRIBUTES", None) if self.index.is_none() => Err(envelope(
                "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn count_only(&self) -> bool {
        self.select.as_deref() == Some("COUNT")
    }

    /// The filter, checked as far as it can be without the table.
    pub(super) fn filter<R: Runtime>(
        &mut self,
        service: &Service<R>,
        operands: &Arc<Operands>,
    ) -> Result<Option<Filter>, ApiError> {
        let Some(text) = &self.filter else {
            return self.legacy.take_filter();
        };
        let parsed = service.parsed().filter(text)?;
        parsed.bind(&operands.names, &operands.values)?;
        Ok(Some(Filter::new(parsed, Arc::clone(operands))))
    }

    pub(super) fn projection<R: Runtime>(
        &self,
        service: &Service<R>,
        operands: &Arc<Operands>,
    ) -> Result<Option<Projection>, ApiError> {
        Projection::of(service, self.projection.as_deref(), &self.legacy, operands)
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
    pub(super) fn respond(
        &self,
        out: &mut Vec<u8>,
        table: &Table,
        index: Option<&IndexDefinition>,
        page: &Page,
        projection: Option<&Projection>,
    ) {
        let mut members = Members::begin(out);
        let consistent = self.consistent.unwrap_or(false);
        let consumed = match index {
            Some(index) => consumed(index, page, consistent),
            None => Consumed::of_table(Capacity::of_read(page.scanned_bytes, consistent)),
        };
        members.consumed(
            ReturnCapacity::parse(self.capacity.as_deref()),
            &table.definition().name,
            &consumed,
        );
        members.number("Count", page.count);
        if !self.count_only() {
            let projection = projection.map(Projection::bound);
            let list = members.member("Items");
            list.push(b'[');
            for (index, item) in page.items.iter().enumerate() {
                if index > 0 {
                    list.push(b',');
                }
                match &projection {
                    Some(projection) => projection.write_json(list, item.view()),
                    None => write_item_view(list, item.view()),
                }
            }
            list.push(b']');
        }
        if let Some(last) = &page.last {
            let key = members.member("LastEvaluatedKey");
            match index {
                Some(index) => write_entry_key(key, table, index, last.view()),
                None => write_key_of(key, table, last.view()),
            }
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

/// The starting key of a table's page. That its attributes are not those of the key is all that is said then.
pub(super) fn resolve_start(table: &Table, start: Option<Item>) -> Result<Option<PrimaryKey>, ApiError> {
    let definition = table.definition();
    let wrong = start.as_ref().is_some_and(|start| {
        let keys = std::iter::once(&definition.partition_key).chain(&definition.sort_key);
        start.len() != keys.clone().count() || keys.clone().any(|key| start.get(&key.name).is_none())
    });
    if wrong {
        return Err(ApiError::validation("The provided starting key is invalid"));
    }
    start.map(|key| start_key(table, &key)).transpose()
}

pub(super) async fn scan<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut common = PageParameters::default();
    let (mut segment, mut total) = (None, None);
    let mut unsupported = decode::members(body, |name, reader| match name {
        "Segment" => decode::integer(reader, &mut segment),
        "TotalSegments" => decode::integer(reader, &mut total),
        _ => common.member(name, "ScanFilter", reader),
    })?;
    unsupported.merge(common.legacy.take_unsupported());
    check(&common, segment, total)?;
    unsupported.check()?;
    let expressions = [
        present("ProjectionExpression", &common.projection),
        present("FilterExpression", &common.filter),
    ];
    let placeholders = std::mem::take(&mut common.placeholders);
    let operands = Arc::new(placeholders.resolve(Style::Bare, &expressions, &common.legacy.given())?);
    common.legacy.check(Style::Bare)?;
    let start = common.take_start()?;
    let filter = common.filter(service, &operands)?;
    let projection = common.projection(service, &operands)?;
    check_used(Style::Bare, &operands)?;
    let mut constraints = Constraints::new();
    common.check_select(&mut constraints);
    constraints.finish()?;
    common.check_select_use()?;
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
            return Err(ApiError::validation(
                "The Segment parameter is zero-based and must be less than parameter TotalSegments",
            ));
        }
        (Some(segment), Some(total)) => {
            let small = |number: i64| u32::try_from(number).expect("at most a million");
            Some((small(segment), small(total)))
        }
    };

    let table = service.table(common.table.as_deref().expect("required"))?;
    if let Some(name) = common.index.as_deref() {
        let index = index_of(&table, name)?;
        check_consistency(index, common.consistent.unwrap_or(false))?;
        let start = start.map(|start| IndexStart::of(&table, index, &start, true));
        let start = start.transpose()?;
        check_scalars(&table, filter.as_ref(), projection.as_ref())?;
        let fetch = fetches(
            table.definition(),
            index,
            common.select.as_deref(),
            None,
            projection.as_ref(),
        )?;
        let read = IndexRead {
            start,
            limit: common.limit(),
            filter,
            count_only: common.count_only(),
            fetch,
        };
        let page = service.scan_index(&table, index, segment, read).await?;
        common.respond(out, &table, Some(index), &page, projection.as_ref());
        return Ok(());
    }
    let start = resolve_start(&table, start)?;
    check_scalars(&table, filter.as_ref(), projection.as_ref())?;
    let scan = Scan {
        segment,
        start,
        limit: common.limit(),
        filter,
        count_only: common.count_only(),
    };
    let page = service.scan(&table, scan).await?;
    common.respond(out, &table, None, &page, projection.as_ref());
    Ok(())
}

/// The constraints of a Scan. Without a table's name it is judged by an older layer, which reports all of them together.
fn check(common: &PageParameters<'_>, segment: Option<i64>, total: Option<i64>) -> Result<(), ApiError> {
    let mut constraints = Constraints::new();
    if common.table.is_none() {
        common.check_select(&mut constraints);
        constraints.at_least(total, "totalSegments", 1);
        constraints.at_most(total, "totalSegments", SEGMENTS_MAX);
        common.check_capacity(&mut constraints);
        constraints.missing("tableName");
        constraints.at_least(segment, "segment", 0);
        constraints.at_most(segment, "segment", SEGMENTS_MAX - 1);
        constraints.at_least(common.limit, "limit", 1);
        return constraints.finish();
    }
    constraints.within(common.limit, "Limit", 1, i64::MAX);
    constraints.within(segment, "Segment", 0, SEGMENTS_MAX - 1);
    constraints.within(total, "TotalSegments", 1, SEGMENTS_MAX);
    constraints.no_empty_table_name(common.table.as_deref());
    constraints.finish()?;
    let mut constraints = Constraints::new();
    constraints.item_table_name(common.table.as_deref());
    common.check_capacity(&mut constraints);
    common.legacy.constraints(&mut constraints, "scanFilter");
    constraints.finish()
}
