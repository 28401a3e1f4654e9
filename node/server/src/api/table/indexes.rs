//! Secondary indexes in CreateTable.
//!
//! Checked in DynamoDB's order: what the shape of the request allows (global indexes before local ones); then lists that are
//! empty; then the local indexes: attributes that nobody defines, each index by itself, names, their number; the same of the
//! global ones; names that both have; last, attributes that nobody uses.

use cairn_engine::ids::IndexId;
use cairn_item::json::Reader;

use super::super::ApiError;
use super::super::constraints::{Constraints, NAME_BYTES_MIN};
use super::super::decode::{self, Unsupported};
use super::create::dump_keys;
use super::shape::{Pair, Units, check_warm_limit, decode_ceilings, decode_pairs, decode_units, decode_warm};
use crate::catalog::{
    Billing, Ceilings, GLOBAL_MAX, GlobalIndex, IndexDefinition, IndexProjection, IndexStatus, KeyAttribute,
    ThroughputHistory, Warm, WarmRequest, check_index_ceilings,
};

/// Local indexes of a table, at most.
const LOCAL_MAX: usize = 5;
/// Key attributes of one kind that a global index has at most.
const KEYS_MAX: usize = 4;
/// Non-key attributes that an index may name.
const INCLUDED_MAX: usize = 20;
const DUPLICATE: &str = "Duplicate index name: ";

/// What an index is to project.
#[derive(Default)]
struct Projected {
    kind: Option<String>,
    include: Option<Vec<String>>,
}

/// An index as it is asked for.
#[derive(Default)]
pub(super) struct IndexRequest {
    pub name: Option<String>,
    keys: Option<Vec<Pair>>,
    projection: Option<Projected>,
    units: Option<Units>,
    pub ceilings: Ceilings,
    pub warm: Option<WarmRequest>,
}

/// Reads one index.
pub(super) fn decode_index(
    reader: &mut Reader<'_>,
    global: bool,
    unsupported: &mut Unsupported,
) -> Result<IndexRequest, ApiError> {
    let mut index = IndexRequest::default();
    let mut name = None;
    let mut inner = Unsupported::default();
    let other = decode::members_of(reader, |member, reader| match member {
        "IndexName" => decode::text(reader, &mut name),
        "KeySchema" => decode_pairs(reader, "KeyType", &mut inner, &mut index.keys),
        "Projection" => {
            index.projection = Some(decode_projection(reader, &mut inner)?);
            Ok(true)
        }
        "ProvisionedThroughput" if global => decode_units(reader, &mut inner, &mut index.units),
        "WarmThroughput" if global => decode_warm(reader, &mut inner, &mut index.warm),
        "OnDemandThroughput" if global => decode_ceilings(reader, &mut inner, &mut index.ceilings),
        _ => Ok(false),
    })?;
    unsupported.merge(other);
    unsupported.merge(inner);
    index.name = name.map(Into::into);
    Ok(index)
}

/// Reads a list of indexes.
pub(super) fn decode_indexes(
    reader: &mut Reader<'_>,
    global: bool,
    unsupported: &mut Unsupported,
    into: &mut Option<Vec<IndexRequest>>,
) -> Result<bool, ApiError> {
    let mut indexes = Vec::new();
    decode::list(reader, |reader| {
        indexes.push(decode_index(reader, global, unsupported)?);
        Ok(())
    })?;
    *into = Some(indexes);
    Ok(true)
}

fn decode_projection(reader: &mut Reader<'_>, unsupported: &mut Unsupported) -> Result<Projected, ApiError> {
    let mut projected = Projected::default();
    let mut kind = None;
    let other = decode::members_of(reader, |member, reader| match member {
        "ProjectionType" => decode::text(reader, &mut kind),
        "NonKeyAttributes" => {
            let mut names = Vec::new();
            decode::list(reader, |reader| {
                names.push(reader.string()?.into_owned());
                Ok(())
            })?;
            projected.include = Some(names);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    unsupported.merge(other);
    projected.kind = kind.map(Into::into);
    Ok(projected)
}

impl IndexRequest {
    /// What the shape of the request allows of an index at `path`.
    pub(super) fn constraints(&self, constraints: &mut Constraints, path: &str, global: bool) {
        let name = |constraints: &mut Constraints| {
            constraints.required(self.name.as_ref(), &format!("{path}.indexName"));
            constraints.name(self.name.as_deref(), &format!("{path}.indexName"), NAME_BYTES_MIN);
        };
        if !global {
            name(constraints);
        }
        self.key_constraints(constraints, path, if global { 2 * KEYS_MAX } else { 2 });
        self.projection_constraints(constraints, path);
        if global {
            name(constraints);
            if let Some(units) = &self.units {
                units.constraints(constraints, &format!("{path}.provisionedThroughput"));
            }
        }
    }

    fn key_constraints(&self, constraints: &mut Constraints, path: &str, most: usize) {
        let Some(keys) = &self.keys else {
            return constraints.missing(&format!("{path}.keySchema"));
        };
        if keys.is_empty() {
            constraints.add(
                "[]",
                &format!("{path}.keySchema"),
                "Member must have length greater than or equal to 1",
            );
        }
        if keys.len() > most {
            let constraint = format!("Member must have length less than or equal to {most}");
            constraints.add(&dump_keys(keys), "keySchema", &constraint);
        }
        for (place, key) in keys.iter().enumerate() {
            let path = format!("{path}.keySchema.{}.member", place + 1);
            constraints.required(key.name.as_ref(), &format!("{path}.attributeName"));
            constraints.required(key.kind.as_ref(), &format!("{path}.keyType"));
            constraints.one_of(
                key.kind.as_deref(),
                &format!("{path}.keyType"),
                &["HASH", "RANGE"],
            );
        }
    }

    fn projection_constraints(&self, constraints: &mut Constraints, path: &str) {
        let Some(projection) = &self.projection else {
            return constraints.missing(&format!("{path}.projection"));
        };
        constraints.one_of(
            projection.kind.as_deref(),
            &format!("{path}.projection.projectionType"),
            &["ALL", "INCLUDE", "KEYS_ONLY"],
        );
        let Some(include) = &projection.include else {
            return;
        };
        let dump = format!("[{}]", include.join(", "));
        let path = format!("{path}.projection.nonKeyAttributes");
        if include.is_empty() {
            constraints.add(&dump, &path, "Member must have length greater than or equal to 1");
        }
        if include.len() > INCLUDED_MAX {
            let constraint = format!("Member must have length less than or equal to {INCLUDED_MAX}");
            constraints.add(&dump, &path, &constraint);
        }
    }

    fn named(&self) -> &str {
        self.name.as_deref().expect("required")
    }

    fn keys(&self) -> &[Pair] {
        self.keys.as_deref().expect("required")
    }

    fn key_names(&self) -> Vec<&str> {
        names(self.keys())
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &str> {
        let keys = self.keys().iter();
        keys.filter(move |key| key.kind.as_deref() == Some(kind))
            .filter_map(|key| key.name.as_deref())
    }

    fn check_projection(&self) -> Result<IndexProjection, ApiError> {
        let projection = self.projection.as_ref().expect("required");
        let refuse = |what: &str| Err(ApiError::parameters(what));
        match (projection.kind.as_deref(), &projection.include) {
            (Some("ALL"), None) => Ok(IndexProjection::All),
            (Some("KEYS_ONLY"), None) => Ok(IndexProjection::KeysOnly),
            (Some("INCLUDE"), Some(include)) => {
                let mut names = include.iter().enumerate();
                match names.find(|(place, name)| include[..*place].contains(name)) {
                    Some((_, name)) => refuse(&format!("Duplicate element in NonKeyAttributes: {name}")),
                    None => Ok(IndexProjection::Include(include.clone())),
                }
            }
            (Some("INCLUDE"), None) => {
                refuse("ProjectionType is INCLUDE, but NonKeyAttributes is not specified")
            }
            (Some(kind), Some(_)) => refuse(&format!(
                "ProjectionType is {kind}, but NonKeyAttributes is specified"
            )),
            (_, _) => refuse("Unknown ProjectionType: null"),
        }
    }

    fn check_local(&self, table_key: &str) -> Result<(), ApiError> {
        let invalid = |what: &str| Err(ApiError::validation(format!("Invalid KeySchema: {what}")));
        let keys = self.keys();
        if keys[0].kind.as_deref() != Some("HASH") {
            return invalid("The first KeySchemaElement is not a HASH key type");
        }
        if keys.len() == 2 && keys[0].name == keys[1].name {
            return Err(ApiError::validation(
                "Both the Hash Key and the Range Key element in the KeySchema have the same name",
            ));
        }
        if keys.len() == 2 && keys[1].kind.as_deref() != Some("RANGE") {
            return invalid("The second KeySchemaElement is not a RANGE key type");
        }
        let name = self.named();
        if keys.len() < 2 {
            return Err(ApiError::parameters(format!(
                "Index KeySchema does not have a range key for index: {name}"
            )));
        }
        let own_key = keys[0].name.as_deref().expect("required");
        if own_key != table_key {
            return Err(ApiError::parameters(format!(
                "Index KeySchema does not have the same leading hash key as table KeySchema for index: {name}. index \
                 hash key: {own_key}, table hash key: {table_key}"
            )));
        }
        Ok(())
    }

    fn check_global(&self) -> Result<(), ApiError> {
        let keys = self.keys();
        let kind = |key: &Pair| key.kind.as_deref() == Some("HASH");
        if !kind(&keys[0]) {
            return Err(ApiError::validation(
                "Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
            ));
        }
        if let [hash, range] = keys
            && !kind(range)
            && hash.name == range.name
        {
            return Err(ApiError::validation(
                "Both the Hash Key and the Range Key element in the KeySchema have the same name",
            ));
        }
        let repeated =
            |(place, key): (usize, &Pair)| keys[..place].iter().any(|other| other.name == key.name);
        if keys.iter().enumerate().any(repeated) {
            return Err(ApiError::validation(
                "The KeySchema contains multiple key attributes with the same name",
            ));
        }
        if keys.windows(2).any(|pair| !kind(&pair[0]) && kind(&pair[1])) {
            return Err(ApiError::parameters(
                "All HASH key attributes must precede RANGE key attributes in the KeySchema",
            ));
        }
        for role in ["HASH", "RANGE"] {
            if self.of_kind(role).count() > KEYS_MAX {
                return Err(ApiError::parameters(format!(
                    "The KeySchema exceeds the maximum allowed number of {role} key attributes"
                )));
            }
        }
        Ok(())
    }

    /// Checks its throughput against the table's billing; answers its units.
    fn check_units(&self, billing: Billing) -> Result<(u64, u64), ApiError> {
        let name = self.named();
        match (&self.units, billing) {
            (None, Billing::OnDemand) => Ok((0, 0)),
            (Some(_), Billing::OnDemand) => Err(ApiError::parameters(format!(
                "ProvisionedThroughput should not be specified for index: {name} when BillingMode is PAY_PER_REQUEST"
            ))),
            (None, Billing::Provisioned { .. }) => Err(ApiError::parameters(format!(
                "ProvisionedThroughput is not specified for index: {name}"
            ))),
            (Some(units), Billing::Provisioned { .. }) => units.checked(),
        }
    }

    /// Its units, when it has any; the constraints hold.
    pub(super) fn units(&self) -> Result<Option<(u64, u64)>, ApiError> {
        self.units.as_ref().map(Units::checked).transpose()
    }

    /// The global index that is asked for; its key attributes are among `attributes`.
    pub(super) fn draft(&self, attributes: &[KeyAttribute]) -> Result<IndexDefinition, ApiError> {
        self.check_global()?;
        self.check_projection()?;
        Ok(self.definition(attributes, None))
    }

    fn definition(&self, attributes: &[KeyAttribute], global: Option<((u64, u64), Warm)>) -> IndexDefinition {
        let keys = |kind| {
            let named = |name: &str| attributes.iter().find(|attribute| attribute.name == name);
            let keys = self.of_kind(kind);
            keys.map(|name| named(name).expect("checked before").clone())
                .collect()
        };
        IndexDefinition {
            id: IndexId(0),
            name: self.named().to_owned(),
            partition_key: keys("HASH"),
            sort_key: keys("RANGE"),
            projection: self.check_projection().expect("checked before"),
            global: global.map(|(units, warm)| GlobalIndex {
                status: IndexStatus::Active,
                units,
                throughput: ThroughputHistory::default(),
                ceilings: self.ceilings,
                warm,
                places: Vec::new(),
            }),
        }
    }
}

fn names(pairs: &[Pair]) -> Vec<&str> {
    pairs.iter().filter_map(|pair| pair.name.as_deref()).collect()
}

/// What is wrong with an index whose key has attributes that nobody defines.
pub(super) fn check_defined(index: &IndexRequest, defined: &[&str]) -> Result<(), ApiError> {
    let keys = index.key_names();
    if keys.iter().all(|key| defined.contains(key)) {
        return Ok(());
    }
    let listed = in_table_order(&keys, true);
    if defined.len() < listed.len() {
        return Err(ApiError::validation(
            "Invalid KeySchema: Some index key attribute have no definition",
        ));
    }
    Err(ApiError::parameters(format!(
        "Some index key attributes are not defined in AttributeDefinitions. Keys: [{}], AttributeDefinitions: [{}]",
        listed.join(", "),
        in_table_order(defined, true).join(", ")
    )))
}

fn check_names<'a>(indexes: impl Iterator<Item = &'a IndexRequest>) -> Result<(), ApiError> {
    let mut seen: Vec<&str> = Vec::new();
    for index in indexes {
        if seen.contains(&index.named()) {
            return Err(ApiError::parameters(format!("{DUPLICATE}{}", index.named())));
        }
        seen.push(index.named());
    }
    Ok(())
}

/// Checks the indexes of a table that is to be created in this region, and that every attribute defined is used. `keys` are the
/// table's.
///
/// # Errors
/// The first thing that is wrong, in DynamoDB's order.
pub(super) fn check_indexes(
    local: Option<&[IndexRequest]>,
    global: Option<&[IndexRequest]>,
    keys: &[Pair],
    attributes: &[KeyAttribute],
    billing: Billing,
    region: &str,
) -> Result<Vec<IndexDefinition>, ApiError> {
    for (indexes, list) in [
        (local, "LocalSecondaryIndexes"),
        (global, "GlobalSecondaryIndexes"),
    ] {
        if indexes.is_some_and(<[IndexRequest]>::is_empty) {
            return Err(ApiError::parameters(format!("List of {list} is empty")));
        }
    }
    let (local, global) = (local.unwrap_or_default(), global.unwrap_or_default());
    let defined: Vec<&str> = attributes
        .iter()
        .map(|attribute| attribute.name.as_str())
        .collect();
    if !local.is_empty() {
        if keys.len() < 2 {
            return Err(ApiError::parameters(
                "Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex",
            ));
        }
        local
            .iter()
            .try_for_each(|index| check_defined(index, &defined))?;
        for index in local {
            index.check_local(keys[0].name.as_deref().expect("required"))?;
            index.check_projection()?;
        }
        check_names(local.iter())?;
        if local.len() > LOCAL_MAX {
            return Err(ApiError::parameters(format!(
                "Number of LocalSecondaryIndexes exceeds per-table limit of {LOCAL_MAX}"
            )));
        }
    }
    global
        .iter()
        .try_for_each(|index| check_defined(index, &defined))?;
    for index in global {
        index.check_global()?;
        index.check_projection()?;
    }
    check_names(global.iter())?;
    if global.len() > GLOBAL_MAX {
        return Err(ApiError::parameters(format!(
            "GlobalSecondaryIndex count exceeds the per-table limit of {GLOBAL_MAX}"
        )));
    }
    let units = global.iter().map(|index| {
        check_index_ceilings(index.named(), billing, index.ceilings, 1)?;
        let units = index.check_units(billing)?;
        let of = format!("index {}", index.named());
        check_warm_limit(index.warm, &of, region)?;
        Ok((units, index.warm.unwrap_or_default().of_new(&of, billing, units)?))
    });
    let units = units.collect::<Result<Vec<_>, ApiError>>()?;
    check_names(local.iter().chain(global))?;
    check_used(local, global, keys, &defined)?;
    let local = local.iter().map(|index| index.definition(attributes, None));
    let global = global.iter().zip(units);
    let global = global.map(|(index, units)| index.definition(attributes, Some(units)));
    Ok(local.chain(global).collect())
}

/// Checks that every attribute defined is a key of something.
fn check_used(
    local: &[IndexRequest],
    global: &[IndexRequest],
    keys: &[Pair],
    defined: &[&str],
) -> Result<(), ApiError> {
    let mut used = names(keys);
    for index in local.iter().chain(global) {
        used.extend(index.key_names());
    }
    let listed = in_table_order(&used, false);
    if listed.len() == defined.len() {
        return Ok(());
    }
    if local.is_empty() && global.is_empty() {
        return Err(ApiError::parameters(
            "Number of attributes in KeySchema does not exactly match number of attributes defined in \
             AttributeDefinitions",
        ));
    }
    Err(ApiError::parameters(format!(
        "Some AttributeDefinitions are not used. AttributeDefinitions: [{}], keys used: [{}]",
        in_table_order(defined, true).join(", "),
        listed.join(", ")
    )))
}

/// Names without repetitions, in the order in which the live service lists them: that of the hash table it keeps them in. A name
/// lies in bucket `(h ^ h >>> 16) & (buckets - 1)` of its `String.hashCode()` h; the table begins with 16 buckets, or with as many
/// as there are names, and doubles beyond three quarters.
fn in_table_order<'a>(names: &[&'a str], sized: bool) -> Vec<&'a str> {
    let mut listed: Vec<&str> = Vec::new();
    for name in names {
        if !listed.contains(name) {
            listed.push(name);
        }
    }
    let mut buckets = if sized {
        listed.len().max(1).next_power_of_two()
    } else {
        16
    };
    while listed.len() * 4 > buckets * 3 {
        buckets *= 2;
    }
    let bucket = |name: &&str| {
        let hash = name.encode_utf16().fold(0_u32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(u32::from(unit))
        });
        (hash ^ hash >> 16) as usize & (buckets - 1)
    };
    listed.sort_by_key(bucket);
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists that the live service has shown.
    #[test]
    fn names_are_listed_as_the_live_service_lists_them() {
        let cases: [(&[&str], bool, &[&str]); 5] = [
            (&["PK", "h", "a", "unused"], true, &["h", "a", "unused", "PK"]),
            (
                &["PK", "a", "b", "c", "d", "u1"],
                true,
                &["a", "b", "PK", "c", "d", "u1"],
            ),
            (&["h", "a", "zz", "h"], true, &["h", "zz", "a"]),
            (&["pk", "sk", "gpk", "gsk"], false, &["gpk", "sk", "pk", "gsk"]),
            (
                &["orderId", "customerId", "createdAt", "status"],
                false,
                &["createdAt", "orderId", "customerId", "status"],
            ),
        ];
        for (names, sized, listed) in cases {
            assert_eq!(in_table_order(names, sized), listed);
        }
    }
}
