//! Query and Scan of an index.
//!
//! Both read the index's entries as a table's items are read, from the partitions of the table for a local index and from its own
//! for a global one. Where whole items are wanted of a local index that does not project everything, its owner fetches them;
//! that costs as much again as reading them one by one.

use std::ops::Bound;

use cairn_engine::{Direction, Range};
use cairn_expression::{KeyAttribute as SchemaAttribute, KeyClauses, KeySchema};
use cairn_item::json::{write_string, write_value_view};
use cairn_item::{Item, ItemBytes, ItemError, ItemView, KeyCondition, KeyRange, KeyValue, Space, StorageKey};
use cairn_runtime::Runtime;

use super::capacity::{Capacity, Consumed};
use super::key_condition::{self, Condition};
use super::projection::Projection;
use super::service::{
    PAGE_ANSWER_BYTES_MAX, START_OUTSIDE_PREDICATE, START_OUTSIDE_QUERY, contains_key, hash_bound, is_empty,
    segment_hashes, wrong_segment,
};
use super::{ApiError, PAGE_BYTES_MAX, Page, Service};
use crate::catalog::{IndexDefinition, KeyAttribute, Table, TableDefinition, hash_of};
use crate::index::entry;
use crate::route::{Filter, LocalPage, PageRequest, Target};

const START_INVALID: &str = "The provided starting key is invalid";
const AT_MOST_ONE: &str = "The query can return at most one row and cannot be restarted";

/// The index of this name, which may be read.
pub(super) fn index_of<'a>(table: &'a Table, name: &str) -> Result<&'a IndexDefinition, ApiError> {
    match table.definition().index(name) {
        Some(index) if index.is_active() => Ok(index),
        Some(index) if index.is_fed() => Err(ApiError::validation(format!(
            "Cannot read from backfilling global secondary index: {name}"
        ))),
        _ => Err(ApiError::validation(format!(
            "The table does not have the specified index: {name}"
        ))),
    }
}

/// Global indexes are behind their table by nature.
pub(super) fn check_consistency(index: &IndexDefinition, consistent: bool) -> Result<(), ApiError> {
    if consistent && index.global.is_some() {
        return Err(ApiError::validation(
            "Consistent reads are not supported on global secondary indexes",
        ));
    }
    Ok(())
}

/// Whether whole items are to be fetched, given what is asked for. `filter` is a Query's: a Scan's may be about attributes that
/// the index does not hold, which it does not find.
pub(super) fn fetches(
    table: &TableDefinition,
    index: &IndexDefinition,
    select: Option<&str>,
    filter: Option<&Filter>,
    projection: Option<&Projection>,
) -> Result<bool, ApiError> {
    let name = &index.name;
    let missing = |attributes: &mut dyn Iterator<Item = &str>| {
        let mut missing: Vec<String> = Vec::new();
        for attribute in attributes {
            if !entry::projects(table, index, attribute) && !missing.iter().any(|name| name == attribute) {
                missing.push(attribute.to_owned());
            }
        }
        missing
    };
    if select == Some("ALL_ATTRIBUTES") && index.projection != crate::catalog::IndexProjection::All {
        if index.global.is_some() {
            return Err(ApiError::parameters(format!(
                "Select type ALL_ATTRIBUTES is not supported for global secondary index {name} because its projection \
                 type is not ALL"
            )));
        }
        return Ok(true);
    }
    if let Some(filter) = filter.filter(|_| index.global.is_some()) {
        let missing = missing(&mut filter.bound().attributes());
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(ApiError::parameters(format!(
                "Secondary index {name} does not project one or more filter attributes: [{missing}]"
            )));
        }
    }
    let Some(projection) = projection else {
        return Ok(false);
    };
    let missing = missing(&mut projection.bound().attributes());
    if missing.is_empty() {
        return Ok(false);
    }
    if index.global.is_some() {
        let missing = missing.join(", ");
        return Err(ApiError::parameters(format!(
            "Global secondary index {name} does not project [{missing}]"
        )));
    }
    Ok(true)
}

/// Names of the key attributes of all the table's indexes that are not its own, whatever is read.
pub(super) fn index_key_names(table: &Table) -> Vec<&str> {
    let of_table = table.key_names();
    let indexes = table.definition().indexes.iter();
    let names = indexes.flat_map(IndexDefinition::key_names);
    names.filter(|name| !of_table.contains(name)).collect()
}

/// Checks that neither filter nor projection goes into a key.
pub(super) fn check_scalars(
    table: &Table,
    filter: Option<&Filter>,
    projection: Option<&Projection>,
) -> Result<(), ApiError> {
    let key = table.key_names();
    let index_key = index_key_names(table);
    if let Some(filter) = filter {
        filter.bound().check_key_scalar("Key", &key)?;
        filter.bound().check_key_scalar("IndexKey", &index_key)?;
    }
    if let Some(projection) = projection {
        projection.bound().check_key_scalar("Key", &key)?;
        projection.bound().check_key_scalar("IndexKey", &index_key)?;
    }
    Ok(())
}

/// What a query says of an index's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexConditions {
    partition: Vec<KeyValue>,
    /// Values of the first sort key attributes.
    equal: Vec<KeyValue>,
    /// The condition on the one after these.
    last: KeyCondition,
}

impl IndexConditions {
    pub(super) fn of_expression<'a>(
        index: &'a IndexDefinition,
        clauses: &KeyClauses<'_>,
    ) -> Result<IndexConditions, ApiError> {
        let attributes = |keys: &'a [KeyAttribute]| -> Vec<SchemaAttribute<'a>> {
            let attribute = |key: &'a KeyAttribute| SchemaAttribute {
                name: &key.name,
                kind: key.kind,
            };
            keys.iter().map(attribute).collect()
        };
        let (partition, sort) = (attributes(&index.partition_key), attributes(&index.sort_key));
        let conditions = clauses.resolve_composite(KeySchema {
            partition: &partition,
            sort: &sort,
        })?;
        Ok(IndexConditions {
            partition: conditions.partition,
            equal: conditions.equal,
            last: conditions.last,
        })
    }

    pub(super) fn of_legacy(
        index: &IndexDefinition,
        conditions: &[Condition],
    ) -> Result<IndexConditions, ApiError> {
        let (partition, last) = key_condition::resolve(&index.partition_key, &index.sort_key, conditions)?;
        Ok(IndexConditions {
            partition: vec![partition],
            equal: Vec::new(),
            last,
        })
    }

    /// Of an index whose keys have one attribute each.
    pub(super) fn of_read(partition: KeyValue, last: KeyCondition) -> IndexConditions {
        IndexConditions {
            partition: vec![partition],
            equal: Vec::new(),
            last,
        }
    }

    fn is_on_sort_key(&self) -> bool {
        !self.equal.is_empty() || self.last != KeyCondition::All
    }

    /// The entries of these partition values that the conditions on the sort key allow.
    fn range(
        &self,
        table: &TableDefinition,
        index: &IndexDefinition,
        partition: &[KeyValue],
    ) -> Result<KeyRange, ItemError> {
        let mut prefix = match index.global {
            Some(_) => StorageKey::global_index_prefix(table.seed, partition),
            None => StorageKey::local_index_prefix(table.seed, index.id.0, &partition[0]),
        };
        for value in &self.equal {
            StorageKey::push(&mut prefix, value);
        }
        self.last.range_in(prefix)
    }
}

/// A place between two entries: an `ExclusiveStartKey`.
pub(super) struct IndexStart {
    partition: Vec<KeyValue>,
    /// Storage key of the entry.
    key: Vec<u8>,
}

impl IndexStart {
    /// `scans` is whether it is a Scan's, which says more about what is wrong.
    pub(super) fn of(
        table: &Table,
        index: &IndexDefinition,
        start: &Item,
        scans: bool,
    ) -> Result<IndexStart, ApiError> {
        let invalid = || ApiError::validation(START_INVALID);
        let definition = table.definition();
        let keys = all_keys(definition, index);
        if scans {
            for attribute in &definition.attributes {
                let Some(value) = start.get(&attribute.name) else {
                    continue;
                };
                let (actual, expected) = (value.type_name(), attribute.kind.name());
                if actual != expected {
                    let name = &attribute.name;
                    return Err(ApiError::parameters(format!(
                        "Type mismatch for Index Key {name} Expected: {expected} Actual: {actual} IndexName: {}",
                        index.name
                    )));
                }
            }
        }
        if start.len() != keys.len() {
            return Err(invalid());
        }
        for key in &keys {
            match KeyValue::from_item(start, &key.name, key.kind) {
                Ok(_) => {}
                Err(ItemError::KeyMissing(_) | ItemError::KeyTypeMismatch { .. }) => return Err(invalid()),
                Err(error) => return Err(ApiError::validation(format!("{START_INVALID}: {error}"))),
            }
        }
        let partition = index.partition_key.iter();
        let partition = partition
            .map(|key| KeyValue::from_item(start, &key.name, key.kind).map_err(ApiError::from))
            .collect::<Result<_, _>>()?;
        let archived = ItemBytes::from_item(start);
        let entry = entry::entry(definition, index, archived.view(), 0).ok_or_else(invalid)?;
        Ok(IndexStart {
            partition,
            key: entry.key,
        })
    }
}

/// The keys of the index, then those of the table that are not among them.
fn all_keys<'a>(table: &'a TableDefinition, index: &'a IndexDefinition) -> Vec<&'a KeyAttribute> {
    let mut keys: Vec<&KeyAttribute> = index.keys().collect();
    for key in std::iter::once(&table.partition_key).chain(&table.sort_key) {
        if !keys.iter().any(|other| other.name == key.name) {
            keys.push(key);
        }
    }
    keys
}

/// Writes the key attributes of an entry: those of index and table.
pub(super) fn write_entry_key(
    out: &mut Vec<u8>,
    table: &Table,
    index: &IndexDefinition,
    entry: ItemView<'_>,
) {
    out.push(b'{');
    for (place, key) in all_keys(table.definition(), index).into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_string(out, &key.name);
        out.push(b':');
        let value = entry.get(&key.name).expect("entries have the keys");
        write_value_view(out, value);
    }
    out.push(b'}');
}

/// What a page of an index costs.
pub(super) fn consumed<'a>(index: &'a IndexDefinition, page: &Page, consistent: bool) -> Consumed<'a> {
    let own = Capacity::of_read(page.scanned_bytes, consistent);
    let fetched = if consistent {
        page.fetched_capacity
    } else {
        page.fetched_capacity.halved()
    };
    let mut consumed = Consumed::of_table(fetched);
    consumed.add(index, own);
    consumed
}

/// What Query and Scan of an index have in common.
pub(super) struct IndexRead {
    pub start: Option<IndexStart>,
    pub limit: Option<u64>,
    pub filter: Option<Filter>,
    pub count_only: bool,
    pub fetch: bool,
}

impl IndexRead {
    fn local(&self, index: &IndexDefinition) -> Option<LocalPage> {
        index.global.is_none().then_some(LocalPage {
            index: index.id,
            fetch: self.fetch,
        })
    }
}

impl<R: Runtime> Service<R> {
    /// One page of a query of an index.
    ///
    /// # Errors
    /// The starting key is not one of the query's; BETWEEN is reversed; what keeps the partition from being read.
    pub(super) async fn query_index(
        &self,
        table: &Table,
        index: &IndexDefinition,
        conditions: &IndexConditions,
        forward: bool,
        read: IndexRead,
    ) -> Result<Page, ApiError> {
        let definition = table.definition();
        let (mut lower, mut upper) = conditions.range(definition, index, &conditions.partition)?;
        let local = read.local(index);
        if let Some(start) = read.start {
            let (last, first) = (conditions.partition.last(), conditions.partition.split_last());
            let first = first.map_or(&[][..], |(_, first)| first);
            if start.partition[..first.len()] != *first {
                return Err(ApiError::validation(AT_MOST_ONE));
            }
            let (from, to) = conditions.range(definition, index, &start.partition)?;
            if !contains_key((from.as_ref(), to.as_ref()), &start.key) {
                return Err(ApiError::validation(START_OUTSIDE_PREDICATE));
            }
            if start.partition.last() != last {
                let message = if conditions.is_on_sort_key() {
                    AT_MOST_ONE
                } else {
                    START_OUTSIDE_QUERY
                };
                return Err(ApiError::validation(message));
            }
            let after = Bound::Excluded(start.key);
            if forward {
                lower = after;
            } else {
                upper = after;
            }
        }
        let (Bound::Included(key) | Bound::Excluded(key)) = &lower else {
            unreachable!("a query has a lower bound");
        };
        let target = table.index_target_of(index, hash_of(key));
        let request = PageRequest {
            range: Range { lower, upper },
            direction: if forward {
                Direction::Forward
            } else {
                Direction::Backward
            },
            items_max: read.limit.unwrap_or(u64::MAX),
            bytes_max: PAGE_BYTES_MAX,
            answer_bytes_max: PAGE_ANSWER_BYTES_MAX,
            filter: read.filter,
            count_only: read.count_only,
            local,
        };
        if is_empty(&request.range) {
            return Ok(Page::default());
        }
        self.page(table, target, request).await
    }

    /// One page of a scan of an index.
    ///
    /// # Errors
    /// The starting key is in another segment; what keeps a partition from being read.
    pub(super) async fn scan_index(
        &self,
        table: &Table,
        index: &IndexDefinition,
        segment: Option<(u32, u32)>,
        read: IndexRead,
    ) -> Result<Page, ApiError> {
        let space = match index.global {
            Some(_) => Space::Base,
            None => Space::LocalIndex,
        };
        let local = read.local(index);
        let (first, end) = segment.map_or((0, 1 << 64), segment_hashes);
        let mut hash = first;
        let mut lower = Bound::Included(hash_bound(space, first));
        if let Some(start) = read.start {
            hash = u128::from(hash_of(&start.key));
            if hash < first || hash >= end {
                return Err(wrong_segment(segment));
            }
            lower = Bound::Excluded(start.key);
        }
        let places = table.index_places(index);
        let begin = u64::try_from(hash).map_or(places.len(), |hash| {
            places.partition_point(|place| place.lower <= hash) - 1
        });
        let mut page = Page::default();
        for (place, position) in places.iter().zip(0..).skip(begin) {
            if u128::from(place.lower) >= end {
                break;
            }
            let request = PageRequest {
                range: Range {
                    lower: lower.clone(),
                    upper: Bound::Excluded(hash_bound(space, end)),
                },
                direction: Direction::Forward,
                items_max: read.limit.unwrap_or(u64::MAX) - page.scanned_count,
                bytes_max: PAGE_BYTES_MAX - page.scanned_bytes,
                answer_bytes_max: PAGE_ANSWER_BYTES_MAX - page.answer_bytes,
                filter: read.filter.clone(),
                count_only: read.count_only,
                local,
            };
            let target: Target = table.index_target(index, position);
            page.add(self.page(table, target, request).await?);
            if page.last.is_some() {
                break;
            }
        }
        Ok(page)
    }
}
