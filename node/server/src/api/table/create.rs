//! CreateTable.

use cairn_item::KeyType;
use cairn_runtime::Runtime;

use super::super::constraints::{Constraints, NAME_BYTES_MIN};
use super::super::decode::{self, Text, Unsupported};
use super::super::item::Members;
use super::super::{ApiError, Service};
use super::arn::name_required;
use super::describe::{Shown, describe};
use super::indexes::{IndexRequest, check_indexes, decode_indexes};
use super::shape::{
    BILLING_MODES, Pair, TABLE_CLASSES, Units, check_warm_limit, decode_ceilings, decode_pairs, decode_units,
    decode_warm, pair_constraints,
};
use super::stream::{StreamSpecification, decode_stream};
use super::tags::{Tag, check_tags, decode_tags};
use crate::catalog::{
    Billing, Ceilings, KeyAttribute, Order, StreamDefinition, TableClass, TableDefinition, TableDraft,
    TableSettings, WarmRequest, check_ceilings, check_tag_count, units_on_demand,
};

/// Longest name of a key attribute in bytes.
const KEY_NAME_BYTES_MAX: usize = 255;

#[derive(Default)]
struct CreateTable<'a> {
    name: Text<'a>,
    attributes: Option<Vec<Pair>>,
    keys: Option<Vec<Pair>>,
    local: Option<Vec<IndexRequest>>,
    global: Option<Vec<IndexRequest>>,
    billing: Text<'a>,
    units: Option<Units>,
    table_class: Text<'a>,
    deletion_protection: Option<bool>,
    tags: Option<Vec<Tag>>,
    ceilings: Ceilings,
    warm: Option<WarmRequest>,
    stream: Option<StreamSpecification>,
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
            "LocalSecondaryIndexes" => decode_indexes(reader, false, &mut inner, &mut request.local),
            "GlobalSecondaryIndexes" => decode_indexes(reader, true, &mut inner, &mut request.global),
            "BillingMode" => decode::text(reader, &mut request.billing),
            "ProvisionedThroughput" => decode_units(reader, &mut inner, &mut request.units),
            "TableClass" => decode::text(reader, &mut request.table_class),
            "DeletionProtectionEnabled" => decode::boolean(reader, &mut request.deletion_protection),
            "OnDemandThroughput" => decode_ceilings(reader, &mut inner, &mut request.ceilings),
            "WarmThroughput" => decode_warm(reader, &mut inner, &mut request.warm),
            "StreamSpecification" => decode_stream(reader, &mut inner, &mut request.stream),
            "Tags" => decode_tags(reader, &mut inner, &mut request.tags),
            _ => Ok(false),
        })?;
        unsupported.merge(inner);
        Ok((request, unsupported))
    }

    /// What the shape of the request allows.
    fn check_constraints(&self) -> Result<(), ApiError> {
        let mut constraints = Constraints::new();
        constraints.name(self.name.as_deref(), "tableName", NAME_BYTES_MIN);
        constraints.finish()?;
        let mut constraints = Constraints::new();
        constraints.one_of(self.billing.as_deref(), "billingMode", &BILLING_MODES);
        if let Some(units) = &self.units {
            units.constraints(&mut constraints, "provisionedThroughput");
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
        for (indexes, list, global) in [
            (&self.global, "globalSecondaryIndexes", true),
            (&self.local, "localSecondaryIndexes", false),
        ] {
            for (place, index) in indexes.iter().flatten().enumerate() {
                index.constraints(&mut constraints, &format!("{list}.{}.member", place + 1), global);
            }
        }
        constraints.one_of(self.table_class.as_deref(), "tableClass", &TABLE_CLASSES);
        if let Some(stream) = &self.stream {
            stream.constraints(&mut constraints);
        }
        constraints.finish()
    }

    fn billing(&self) -> Result<Billing, ApiError> {
        let on_demand = self.billing.as_deref() == Some("PAY_PER_REQUEST");
        match (&self.units, on_demand) {
            (Some(_), true) => Err(units_on_demand()),
            (None, true) => Ok(Billing::OnDemand),
            (None, false) => Err(ApiError::parameters(
                "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED",
            )),
            (Some(units), false) => {
                let (read_units, write_units) = units.checked()?;
                Ok(Billing::Provisioned {
                    read_units,
                    write_units,
                })
            }
        }
    }

    /// The indexes whose warm throughput is asked for, and the table under no name.
    fn warming(&self) -> Vec<Option<String>> {
        let is_given = |warm: &Option<WarmRequest>| warm.is_some_and(|warm| !warm.is_none());
        let table = is_given(&self.warm).then_some(None);
        let indexes = self.global.iter().flatten();
        let indexes = indexes.filter(|index| is_given(&index.warm));
        table
            .into_iter()
            .chain(indexes.map(|index| index.name.clone()))
            .collect()
    }

    /// The table that is asked for, in this region; the constraints hold.
    fn draft(self, region: &str) -> Result<TableDraft, ApiError> {
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
        let key_attribute = |attribute: &Pair| KeyAttribute {
            name: attribute.name.clone().expect("required"),
            kind: attribute
                .kind
                .as_deref()
                .and_then(KeyType::from_name)
                .expect("one of the types allowed"),
        };
        let attributes: Vec<KeyAttribute> = attributes.iter().map(key_attribute).collect();
        let (local, global) = (self.local.as_deref(), self.global.as_deref());
        let indexes = check_indexes(local, global, &keys, &attributes, billing, region)?;
        for KeyAttribute { name, .. } in &attributes {
            if name.is_empty() || name.len() > KEY_NAME_BYTES_MAX {
                return Err(ApiError::parameters(format!(
                    "Attribute name is too long or empty, must be 1 to {KEY_NAME_BYTES_MAX} bytes: {name}"
                )));
            }
        }
        let ceiling = self
            .ceilings
            .members()
            .into_iter()
            .find(|(_, units)| units.is_some());
        if let (Some((name, _)), Billing::Provisioned { .. }) = (ceiling, billing) {
            return Err(ApiError::parameters(format!(
                "{name} for OnDemandThroughput cannot be specified when table BillingMode is PROVISIONED."
            )));
        }
        check_ceilings(self.ceilings, 1, "table")?;
        check_warm_limit(self.warm, "table", region)?;
        let units = match billing {
            Billing::OnDemand => (0, 0),
            Billing::Provisioned {
                read_units,
                write_units,
            } => (read_units, write_units),
        };
        let warm = self.warm.unwrap_or_default().of_new("table", billing, units)?;
        let stream = self
            .stream
            .as_ref()
            .map(StreamSpecification::of_new_table)
            .transpose()?;
        let streams = stream.flatten().map(StreamDefinition::of_new_table);
        let mut settings = TableSettings {
            class: self.table_class.as_deref().and_then(TableClass::from_name),
            deletion_protection: self.deletion_protection.unwrap_or(false),
            ceilings: self.ceilings,
            warm,
            streams: streams.into_iter().collect(),
            ..TableSettings::default()
        };
        if let Some(tags) = self.tags {
            settings.tags.extend(check_tags(tags)?);
            check_tag_count(settings.tags.len())?;
        }
        let key = |place: usize| {
            let pair: &Pair = keys.get(place)?;
            let mut attributes = attributes.iter();
            attributes.find(|attribute| Some(&attribute.name) == pair.name.as_ref())
        };
        Ok(TableDraft {
            name: self.name.expect("required").into_owned(),
            partition_key: key(0).expect("checked above").clone(),
            sort_key: key(1).cloned(),
            attributes,
            indexes,
            billing,
            settings,
        })
    }
}

pub(super) fn dump_keys(keys: &[Pair]) -> String {
    let dump = |key: &Pair| {
        let (name, kind) = (
            key.name.as_deref().unwrap_or("null"),
            key.kind.as_deref().unwrap_or("null"),
        );
        format!("KeySchemaElement(attributeName={name}, keyType={kind})")
    };
    format!("[{}]", keys.iter().map(dump).collect::<Vec<_>>().join(", "))
}

pub(in crate::api) async fn create_table<R: Runtime>(
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
    let warming = request.warming();
    let draft = Box::new(request.draft(service.region())?);
    let definition = service.order(|reply| Order::Create { draft, reply }).await?;
    // DescribeTable says when the table became one that is paid for by request; this answer does not.
    let mut settings = definition.settings.clone();
    settings.on_demand_since_ms = None;
    let definition = TableDefinition {
        settings,
        ..(*definition).clone()
    };
    let mut members = Members::begin(out);
    let mut shown = Shown::new(&definition);
    // Of warm throughput this answer says what it was asked for, and nothing else.
    shown.warm.retain(|id, _| {
        let mut indexes = definition.indexes.iter();
        let name = indexes
            .find(|index| index.id == *id)
            .map(|index| index.name.clone());
        warming.contains(&name)
    });
    for (_, status) in shown.warm.values_mut() {
        *status = "UPDATING";
    }
    describe(members.member("TableDescription"), service, &shown);
    members.end();
    Ok(())
}
