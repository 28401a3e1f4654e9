//! `GlobalSecondaryIndexUpdates` of UpdateTable: what the request alone shows to be wrong. What depends on the table is decided on
//! its newest entry, in the catalog.

use cairn_item::KeyType;
use cairn_item::json::Reader;

use super::super::ApiError;
use super::super::constraints::{Constraints, NAME_BYTES_MIN};
use super::super::decode::{self, Unsupported};
use super::indexes::{IndexRequest, check_defined, decode_index};
use super::shape::{Pair, Units, check_warm_limit, decode_ceilings, decode_units, decode_warm};
use crate::catalog::{Ceilings, IndexUpdate, KeyAttribute, WarmRequest};

/// One element of the list: one of its members is to be there.
#[derive(Default)]
pub(super) struct UpdateRequest {
    create: Option<IndexRequest>,
    update: Option<UnitsRequest>,
    delete: Option<Option<String>>,
}

/// New throughput of an index.
#[derive(Default)]
struct UnitsRequest {
    name: Option<String>,
    units: Option<Units>,
    ceilings: Ceilings,
    warm: Option<WarmRequest>,
}

pub(super) fn decode_updates(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
    into: &mut Option<Vec<UpdateRequest>>,
) -> Result<bool, ApiError> {
    let mut updates = Vec::new();
    decode::list(reader, |reader| {
        let mut update = UpdateRequest::default();
        let mut inner = Unsupported::default();
        let other = decode::members_of(reader, |member, reader| {
            match member {
                "Create" => update.create = Some(decode_index(reader, true, &mut inner)?),
                "Update" => update.update = Some(decode_units_request(reader, &mut inner)?),
                "Delete" => {
                    let mut name = None;
                    let other = decode::members_of(reader, |member, reader| match member {
                        "IndexName" => decode::text(reader, &mut name),
                        _ => Ok(false),
                    })?;
                    inner.merge(other);
                    update.delete = Some(name.map(Into::into));
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        unsupported.merge(other);
        unsupported.merge(inner);
        updates.push(update);
        Ok(())
    })?;
    *into = Some(updates);
    Ok(true)
}

fn decode_units_request(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
) -> Result<UnitsRequest, ApiError> {
    let mut request = UnitsRequest::default();
    let mut name = None;
    let mut inner = Unsupported::default();
    let other = decode::members_of(reader, |member, reader| match member {
        "IndexName" => decode::text(reader, &mut name),
        "ProvisionedThroughput" => decode_units(reader, &mut inner, &mut request.units),
        "OnDemandThroughput" => decode_ceilings(reader, &mut inner, &mut request.ceilings),
        "WarmThroughput" => decode_warm(reader, &mut inner, &mut request.warm),
        _ => Ok(false),
    })?;
    unsupported.merge(other);
    unsupported.merge(inner);
    request.name = name.map(Into::into);
    Ok(request)
}

impl UpdateRequest {
    /// What the shape of the request allows of the element at `path`.
    pub(super) fn constraints(&self, constraints: &mut Constraints, path: &str) {
        let name = |constraints: &mut Constraints, name: Option<&String>, action: &str| {
            let path = format!("{path}.{action}.indexName");
            constraints.required(name, &path);
            constraints.name(name.map(String::as_str), &path, NAME_BYTES_MIN);
        };
        if let Some(update) = &self.update {
            name(constraints, update.name.as_ref(), "update");
            if let Some(units) = &update.units {
                units.constraints(constraints, &format!("{path}.update.provisionedThroughput"));
            }
        }
        if let Some(create) = &self.create {
            create.constraints(constraints, &format!("{path}.create"), true);
        }
        if let Some(delete) = &self.delete {
            name(constraints, delete.as_ref(), "delete");
        }
    }

    /// Name of the index of its only action.
    fn named(&self) -> Result<&str, ApiError> {
        let update = self.update.as_ref().map(|update| update.name.as_deref());
        let create = self.create.as_ref().map(|create| create.name.as_deref());
        let delete = self.delete.as_ref().map(Option::as_deref);
        let mut actions = [update, create, delete].into_iter().flatten();
        let Some(name) = actions.next() else {
            return Err(ApiError::parameters(
                "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, \
                 GlobalSecondaryIndexUpdate.Delete must not be null",
            ));
        };
        if actions.next().is_some() {
            return Err(ApiError::parameters(
                "Only one global secondary index action is allowed per GlobalSecondaryIndexUpdate object",
            ));
        }
        Ok(name.expect("required"))
    }

    /// Whether it creates or deletes an index.
    pub(super) fn is_of_life(&self) -> bool {
        self.create.is_some() || self.delete.is_some()
    }

    /// The index whose warm throughput it changes.
    pub(super) fn warms(&self) -> Option<&str> {
        let update = self.update.as_ref()?;
        update.warm?;
        update.name.as_deref()
    }

    fn checked(&self, attributes: Option<&[Pair]>, region: &str) -> Result<IndexUpdate, ApiError> {
        let name = self.named()?.to_owned();
        if let Some(update) = &self.update {
            if update.warm.is_some_and(WarmRequest::is_none) {
                return Err(ApiError::parameters(format!(
                    "WarmThroughput must have at least one of ReadUnitsPerSecond or WriteUnitsPerSecond specified for \
                     index: {name}"
                )));
            }
            check_warm_limit(update.warm, &format!("index {name}"), region)?;
            return Ok(IndexUpdate::Update {
                name,
                units: update.units.as_ref().map(Units::checked).transpose()?,
                ceilings: update.ceilings,
                warm: update.warm.unwrap_or_default(),
            });
        }
        let Some(create) = &self.create else {
            return Ok(IndexUpdate::Delete(name));
        };
        let Some(attributes) = attributes else {
            return Err(ApiError::parameters(format!(
                "AttributeDefinitions is not specified for index: {name}"
            )));
        };
        let defined: Vec<&str> = attributes
            .iter()
            .filter_map(|pair| pair.name.as_deref())
            .collect();
        check_defined(create, &defined)?;
        let attribute = |pair: &Pair| {
            Some(KeyAttribute {
                name: pair.name.clone()?,
                kind: KeyType::from_name(pair.kind.as_deref()?)?,
            })
        };
        let attributes: Vec<KeyAttribute> = attributes.iter().filter_map(attribute).collect();
        check_warm_limit(create.warm, &format!("index {name}"), region)?;
        Ok(IndexUpdate::Create {
            index: Box::new(create.draft(&attributes)?),
            units: create.units()?,
            ceilings: create.ceilings,
            warm: create.warm.unwrap_or_default(),
        })
    }
}

/// What is asked for in this region; the constraints hold. `attributes` are the request's.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn check_updates(
    updates: &[UpdateRequest],
    attributes: Option<&[Pair]>,
    region: &str,
) -> Result<Vec<IndexUpdate>, ApiError> {
    for (place, update) in updates.iter().enumerate() {
        let name = update.named()?;
        let mut others = updates[..place].iter();
        if others.any(|other| other.named().is_ok_and(|other| other == name)) {
            return Err(ApiError::parameters(format!(
                "Only one global secondary index update per index is allowed simultaneously. Index: {name}"
            )));
        }
    }
    updates
        .iter()
        .map(|update| update.checked(attributes, region))
        .collect()
}
