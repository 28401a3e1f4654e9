//! CreateTable, DescribeTable, ListTables, DeleteTable.

use cairn_item::KeyType;
use cairn_item::json::{Reader, write_string};
use cairn_runtime::Runtime;

use super::constraints::{Constraints, NAME_BYTES_MAX, NAME_BYTES_MIN, is_name};
use super::decode::{self, Text, Unsupported};
use super::error::RESOURCE_NOT_FOUND;
use super::item::Members;
use super::{ApiError, Service};
use crate::catalog::{Billing, KeyAttribute, Order, TableDefinition, TableDraft, TableStatus, Usage};

/// Provisioned capacity that DynamoDB takes at most.
const UNITS_MAX: i64 = 1_000_000_000_000;
/// Tables that one answer of ListTables names at most.
const LIST_MAX: i64 = 100;
/// Longest name of a key attribute in bytes.
const KEY_NAME_BYTES_MAX: usize = 255;

/// A name and what it is: an attribute's type, or a key's role.
#[derive(Default)]
struct Pair {
    name: Option<String>,
    kind: Option<String>,
}

#[derive(Default)]
struct Units {
    read: Option<i64>,
    write: Option<i64>,
}

#[derive(Default)]
struct CreateTable<'a> {
    name: Text<'a>,
    attributes: Option<Vec<Pair>>,
    keys: Option<Vec<Pair>>,
    billing: Text<'a>,
    units: Option<Units>,
    table_class: Text<'a>,
    deletion_protection: Option<bool>,
}

fn decode_pairs(
    reader: &mut Reader<'_>,
    kind_name: &str,
    unsupported: &mut Unsupported,
    into: &mut Option<Vec<Pair>>,
) -> Result<bool, ApiError> {
    let mut pairs = Vec::new();
    decode::list(reader, |reader| {
        let mut pair = Pair::default();
        let (mut name, mut kind) = (None, None);
        let other = decode::members_of(reader, |member, reader| match member {
            "AttributeName" => decode::text(reader, &mut name),
            _ if member == kind_name => decode::text(reader, &mut kind),
            _ => Ok(false),
        })?;
        unsupported.merge(other);
        pair.name = name.map(Into::into);
        pair.kind = kind.map(Into::into);
        pairs.push(pair);
        Ok(())
    })?;
    *into = Some(pairs);
    Ok(true)
}

fn decode_units(
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

impl<'a> CreateTable<'a> {
    fn decode(body: &'a [u8]) -> Result<(CreateTable<'a>, Unsupported), ApiError> {
        let mut request = CreateTable::default();
        let mut inner = Unsupported::default();
        let mut unsupported = decode::members(body, |name, reader| match name {
            "TableName" => decode::text(reader, &mut request.name),
            "AttributeDefinitions" => {
                decode_pairs(reader, "AttributeType", &mut inner, &mut request.attributes)
            }
            "KeySchema" => decode_pairs(reader, "KeyType", &mut inner, &mut request.keys),
            "BillingMode" => decode::text(reader, &mut request.billing),
            "ProvisionedThroughput" => decode_units(reader, &mut inner, &mut request.units),
            "TableClass" => decode::text(reader, &mut request.table_class),
            "DeletionProtectionEnabled" => decode::boolean(reader, &mut request.deletion_protection),
            _ => Ok(false),
        })?;
        unsupported.merge(inner);
        // Known to DynamoDB, and these values of them are what a table has anyway.
        if request.deletion_protection == Some(true) {
            unsupported.add("DeletionProtectionEnabled");
        }
        if request.table_class.as_deref() == Some("STANDARD_INFREQUENT_ACCESS") {
            unsupported.add("TableClass");
        }
        Ok((request, unsupported))
    }

    /// What the shape of the request allows.
    fn check_constraints(&self) -> Result<(), ApiError> {
        let mut constraints = Constraints::new();
        constraints.name(self.name.as_deref(), "tableName", NAME_BYTES_MIN);
        constraints.finish()?;
        let mut constraints = Constraints::new();
        constraints.one_of(
            self.billing.as_deref(),
            "billingMode",
            &["PROVISIONED", "PAY_PER_REQUEST"],
        );
        if let Some(units) = &self.units {
            for (value, path) in [
                (units.write, "provisionedThroughput.writeCapacityUnits"),
                (units.read, "provisionedThroughput.readCapacityUnits"),
            ] {
                constraints.required(value.as_ref(), path);
                constraints.at_least(value, path, 1);
            }
        }
        match &self.keys {
            None => constraints.missing("keySchema"),
            Some(keys) => {
                if keys.is_empty() {
                    constraints.add(
                        "[]",
                        "keySchema",
                        "Member must have length greater than or equal to 1",
                    );
                }
                if keys.len() > 2 {
                    let dump = dump_keys(keys);
                    constraints.add(
                        &dump,
                        "keySchema",
                        "Member must have length less than or equal to 2",
                    );
                }
                pair_constraints(&mut constraints, keys, "keySchema", "keyType", &["HASH", "RANGE"]);
            }
        }
        match &self.attributes {
            None => constraints.missing("attributeDefinitions"),
            Some(attributes) => {
                let types = ["B", "N", "S"];
                pair_constraints(
                    &mut constraints,
                    attributes,
                    "attributeDefinitions",
                    "attributeType",
                    &types,
                );
            }
        }
        constraints.one_of(
            self.table_class.as_deref(),
            "tableClass",
            &["STANDARD", "STANDARD_INFREQUENT_ACCESS"],
        );
        constraints.finish()
    }

    fn billing(&self) -> Result<Billing, ApiError> {
        let on_demand = self.billing.as_deref() == Some("PAY_PER_REQUEST");
        match (&self.units, on_demand) {
            (Some(_), true) => Err(ApiError::parameters(
                "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is \
                 PAY_PER_REQUEST",
            )),
            (None, true) => Ok(Billing::OnDemand),
            (None, false) => Err(ApiError::parameters(
                "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED",
            )),
            (Some(units), false) => {
                let (read, write) = (units.read.expect("required"), units.write.expect("required"));
                for (value, name) in [(read, "ReadCapacityUnits"), (write, "WriteCapacityUnits")] {
                    if value > UNITS_MAX {
                        return Err(ApiError::validation(format!(
                            "Given value {value} for {name} is out of bounds"
                        )));
                    }
                }
                Ok(Billing::Provisioned {
                    read_units: read.unsigned_abs(),
                    write_units: write.unsigned_abs(),
                })
            }
        }
    }

    /// The table that is asked for; the constraints hold.
    fn draft(self) -> Result<TableDraft, ApiError> {
        let billing = self.billing()?;
        let keys = self.keys.expect("required");
        let attributes = self.attributes.expect("required");
        let names = |pairs: &[Pair]| {
            let names: Vec<&str> = pairs.iter().filter_map(|pair| pair.name.as_deref()).collect();
            names.join(", ")
        };
        if keys.len() > attributes.len() {
            return Err(ApiError::validation(
                "Invalid KeySchema: Some index key attribute have no definition",
            ));
        }
        let definition = |key: &Pair| attributes.iter().position(|attribute| attribute.name == key.name);
        if keys.iter().any(|key| definition(key).is_none()) {
            return Err(ApiError::parameters(format!(
                "Some index key attributes are not defined in AttributeDefinitions. Keys: [{}], \
                 AttributeDefinitions: [{}]",
                names(&keys),
                names(&attributes)
            )));
        }
        if keys.len() == 2 && keys[0].name == keys[1].name {
            return Err(ApiError::validation(
                "Both the Hash Key and the Range Key element in the KeySchema have the same name",
            ));
        }
        if keys[0].kind.as_deref() != Some("HASH") {
            return Err(ApiError::validation(
                "Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
            ));
        }
        if keys.len() == 2 && keys[1].kind.as_deref() != Some("RANGE") {
            return Err(ApiError::validation(
                "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type",
            ));
        }
        if keys.len() != attributes.len() {
            return Err(ApiError::parameters(
                "Number of attributes in KeySchema does not exactly match number of attributes defined in \
                 AttributeDefinitions",
            ));
        }
        for key in &keys {
            let name = key.name.as_deref().expect("required");
            if name.is_empty() || name.len() > KEY_NAME_BYTES_MAX {
                return Err(ApiError::parameters(format!(
                    "Attribute name is too long or empty, must be 1 to {KEY_NAME_BYTES_MAX} bytes: {name}"
                )));
            }
        }
        let key_attribute = |key: &Pair| {
            let position = definition(key).expect("checked above");
            let kind = attributes[position].kind.as_deref().and_then(KeyType::from_name);
            let name = key.name.clone().expect("required");
            (
                KeyAttribute {
                    name,
                    kind: kind.expect("one of the types allowed"),
                },
                position,
            )
        };
        let (partition_key, partition_position) = key_attribute(&keys[0]);
        let sort = keys.get(1).map(key_attribute);
        Ok(TableDraft {
            name: self.name.expect("required").into_owned(),
            partition_key,
            sort_key_defined_first: sort.as_ref().is_some_and(|(_, sort)| *sort < partition_position),
            sort_key: sort.map(|(key, _)| key),
            billing,
        })
    }
}

fn pair_constraints(
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

fn dump_keys(keys: &[Pair]) -> String {
    let dump = |key: &Pair| {
        let (name, kind) = (
            key.name.as_deref().unwrap_or("null"),
            key.kind.as_deref().unwrap_or("null"),
        );
        format!("KeySchemaElement(attributeName={name}, keyType={kind})")
    };
    format!("[{}]", keys.iter().map(dump).collect::<Vec<_>>().join(", "))
}

pub(super) async fn create_table<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (request, unsupported) = CreateTable::decode(body)?;
    if request.name.is_none() {
        return Err(name_required());
    }
    request.check_constraints()?;
    unsupported.check()?;
    let draft = request.draft()?;
    let definition = service.order(|reply| Order::Create { draft, reply }).await?;
    let mut members = Members::begin(out);
    describe(
        members.member("TableDescription"),
        service,
        &definition,
        Usage::default(),
    );
    members.end();
    Ok(())
}

fn name_required() -> ApiError {
    ApiError::validation("The parameter 'TableName' is required but was not present in the request")
}

/// The only parameter of DescribeTable and DeleteTable.
fn decode_name(body: &[u8]) -> Result<String, ApiError> {
    let mut name = None;
    let unsupported = decode::members(body, |member, reader| match member {
        "TableName" => decode::text(reader, &mut name),
        _ => Ok(false),
    })?;
    let name = name.ok_or_else(name_required)?;
    if !(NAME_BYTES_MIN..=NAME_BYTES_MAX).contains(&name.len()) {
        return Err(ApiError::validation(
            "TableName must be at least 3 characters long and at most 255 characters long",
        ));
    }
    if !is_name(&name) {
        let mut constraints = Constraints::new();
        constraints.name(Some(&name), "tableName", NAME_BYTES_MIN);
        constraints.finish()?;
    }
    unsupported.check()?;
    Ok(name.into_owned())
}

pub(super) async fn describe_table<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let name = decode_name(body)?;
    let table = service.catalog().get(&name).cloned();
    let Some(table) = table else {
        return Err(ApiError::new(
            RESOURCE_NOT_FOUND,
            format!("Requested resource not found: Table: {name} not found"),
        ));
    };
    let usage = service.usage(&table).await;
    let mut members = Members::begin(out);
    describe(members.member("Table"), service, table.definition(), usage);
    members.end();
    Ok(())
}

pub(super) async fn delete_table<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let name = decode_name(body)?;
    let definition = service.order(|reply| Order::Delete { name, reply }).await?;
    let mut members = Members::begin(out);
    describe(
        members.member("TableDescription"),
        service,
        &definition,
        Usage::default(),
    );
    members.end();
    Ok(())
}

pub(super) fn list_tables<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (mut start, mut limit) = (None, None);
    let unsupported = decode::members(body, |member, reader| match member {
        "ExclusiveStartTableName" => decode::text(reader, &mut start),
        "Limit" => decode::integer(reader, &mut limit),
        _ => Ok(false),
    })?;
    let mut constraints = Constraints::new();
    constraints.name(start.as_deref(), "exclusiveStartTableName", NAME_BYTES_MIN);
    constraints.at_least(limit, "limit", 1);
    constraints.at_most(limit, "limit", LIST_MAX);
    constraints.finish()?;
    unsupported.check()?;

    let limit = usize::try_from(limit.unwrap_or(LIST_MAX)).expect("between 1 and 100");
    let catalog = service.catalog();
    let mut names = catalog.names_after(start.as_deref());
    let mut members = Members::begin(out);
    let mut last = None;
    let list = members.member("TableNames");
    list.push(b'[');
    for (index, name) in names.by_ref().take(limit).enumerate() {
        if index > 0 {
            list.push(b',');
        }
        write_string(list, name);
        last = Some(name);
    }
    list.push(b']');
    if let (Some(last), Some(_)) = (last, names.next()) {
        members.string("LastEvaluatedTableName", last);
    }
    members.end();
    Ok(())
}

/// Writes a TableDescription.
fn describe<R: Runtime>(out: &mut Vec<u8>, service: &Service<R>, definition: &TableDefinition, usage: Usage) {
    let mut members = Members::begin(out);
    let keys: Vec<&KeyAttribute> = std::iter::once(&definition.partition_key)
        .chain(&definition.sort_key)
        .collect();
    let (read, write) = match definition.billing {
        Billing::OnDemand => (0, 0),
        Billing::Provisioned {
            read_units,
            write_units,
        } => (read_units, write_units),
    };
    if definition.status != TableStatus::Deleting {
        let mut defined = keys.clone();
        if definition.sort_key_defined_first {
            defined.reverse();
        }
        write_pairs(
            members.member("AttributeDefinitions"),
            defined
                .iter()
                .map(|key| (key.name.as_str(), "AttributeType", key.kind.name())),
        );
    }
    members.string("TableName", &definition.name);
    if definition.status != TableStatus::Deleting {
        let roles = ["HASH", "RANGE"];
        write_pairs(
            members.member("KeySchema"),
            keys.iter()
                .zip(roles)
                .map(|(key, role)| (key.name.as_str(), "KeyType", role)),
        );
    }
    members.string("TableStatus", definition.status.name());
    if definition.status != TableStatus::Deleting {
        let created = format!(
            "{}.{:03}",
            definition.created_ms / 1000,
            definition.created_ms % 1000
        );
        members
            .member("CreationDateTime")
            .extend_from_slice(created.as_bytes());
    }
    let mut units = Members::begin(members.member("ProvisionedThroughput"));
    units.number("NumberOfDecreasesToday", 0);
    units.number("ReadCapacityUnits", read);
    units.number("WriteCapacityUnits", write);
    units.end();
    members.number("TableSizeBytes", usage.item_bytes);
    members.number("ItemCount", usage.item_count);
    let arn = format!(
        "arn:aws:dynamodb:{}:{}:table/{}",
        service.region(),
        service.account(),
        definition.name
    );
    members.string("TableArn", &arn);
    members.string("TableId", &definition.unique);
    if definition.billing == Billing::OnDemand {
        let mut summary = Members::begin(members.member("BillingModeSummary"));
        summary.string("BillingMode", "PAY_PER_REQUEST");
        summary.end();
    }
    members
        .member("DeletionProtectionEnabled")
        .extend_from_slice(b"false");
    members.end();
}

fn write_pairs<'a>(out: &mut Vec<u8>, pairs: impl Iterator<Item = (&'a str, &'a str, &'a str)>) {
    out.push(b'[');
    for (index, (name, kind_name, kind)) in pairs.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let mut members = Members::begin(out);
        members.string("AttributeName", name);
        members.string(kind_name, kind);
        members.end();
    }
    out.push(b']');
}
