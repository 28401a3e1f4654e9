//! UpdateTable.
//!
//! A request makes one change: DynamoDB refuses most combinations, and so the rules of which may go together stand in one
//! place, [`UpdateTable::check_combination`]. Whoever adds a parameter adds its member to [`UpdateTable`], its constraints, its
//! rules there, and its field to [`TableUpdate`]; until then it is refused by name.

use cairn_engine::ids::IndexId;
use cairn_runtime::Runtime;

use super::super::constraints::{Constraints, NAME_BYTES_MIN};
use super::super::decode::{self, Text, Unsupported};
use super::super::item::Members;
use super::super::{ApiError, Service};
use super::arn::{name_required, named_by};
use super::describe::{Shown, WarmShown, describe, warm_of};
use super::index_updates::{UpdateRequest, check_updates, decode_updates};
use super::shape::{
    BILLING_MODES, Pair, TABLE_CLASSES, Units, check_warm_limit, decode_ceilings, decode_pairs, decode_units,
    decode_warm, pair_constraints,
};
use super::stream::{StreamSpecification, decode_stream};
use crate::catalog::{
    Billing, BillingMode, Ceilings, Changed, IndexDefinition, Order, TableChange, TableClass,
    TableDefinition, TableUpdate, WarmRequest, units_on_demand,
};

#[derive(Default)]
struct UpdateTable<'a> {
    name: Text<'a>,
    /// Looked at for new indexes only; what else it says changes nothing.
    attributes: Option<Vec<Pair>>,
    indexes: Option<Vec<UpdateRequest>>,
    billing: Text<'a>,
    units: Option<Units>,
    table_class: Text<'a>,
    deletion_protection: Option<bool>,
    ceilings: Ceilings,
    /// One without members is none.
    warm: Option<WarmRequest>,
    stream: Option<StreamSpecification>,
    /// Parameters that are refused by name, but count as something that is to be changed.
    others: bool,
}

/// Parameters of which one at least must be given, as DynamoDB lists them.
const NOTHING_TO_DO: &str = "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, \
     GlobalSecondaryIndexUpdates, SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, ReplicaTransitRoleArn, \
     MultiRegionConsistency, DeletionProtectionEnabled, OnDemandThroughput, WarmThroughput or TableClass is required";

impl<'a> UpdateTable<'a> {
    fn decode(body: &'a [u8]) -> Result<(UpdateTable<'a>, Unsupported), ApiError> {
        let mut request = UpdateTable::default();
        let mut inner = Unsupported::default();
        let mut unsupported = decode::members(body, |name, reader| match name {
            "TableName" => decode::text(reader, &mut request.name),
            "AttributeDefinitions" => {
                decode_pairs(reader, "AttributeType", &mut inner, &mut request.attributes)
            }
            "BillingMode" => decode::text(reader, &mut request.billing),
            "ProvisionedThroughput" => decode_units(reader, &mut inner, &mut request.units),
            "TableClass" => decode::text(reader, &mut request.table_class),
            "DeletionProtectionEnabled" => decode::boolean(reader, &mut request.deletion_protection),
            "OnDemandThroughput" => decode_ceilings(reader, &mut inner, &mut request.ceilings),
            "WarmThroughput" => decode_warm(reader, &mut inner, &mut request.warm),
            "StreamSpecification" => decode_stream(reader, &mut inner, &mut request.stream),
            "GlobalSecondaryIndexUpdates" => decode_updates(reader, &mut inner, &mut request.indexes),
            _ => {
                request.others = true;
                Ok(false)
            }
        })?;
        unsupported.merge(inner);
        request.warm = request.warm.filter(|warm| !warm.is_none());
        Ok((request, unsupported))
    }

    fn check_constraints(&self) -> Result<(), ApiError> {
        let mut constraints = Constraints::new();
        constraints.name_or_arn(self.name.as_deref(), "tableName", NAME_BYTES_MIN);
        if let Some(units) = &self.units {
            units.constraints(&mut constraints, "provisionedThroughput");
        }
        constraints.one_of(self.billing.as_deref(), "billingMode", &BILLING_MODES);
        if let Some(attributes) = &self.attributes {
            pair_constraints(
                &mut constraints,
                attributes,
                "attributeDefinitions",
                "attributeType",
                &["B", "N", "S"],
            );
        }
        for (place, index) in self.indexes().iter().enumerate() {
            let path = format!("globalSecondaryIndexUpdates.{}.member", place + 1);
            index.constraints(&mut constraints, &path);
        }
        constraints.one_of(self.table_class.as_deref(), "tableClass", &TABLE_CLASSES);
        if let Some(stream) = &self.stream {
            stream.constraints(&mut constraints);
        }
        constraints.finish()
    }

    fn indexes(&self) -> &[UpdateRequest] {
        self.indexes.as_deref().unwrap_or_default()
    }

    /// What may be changed together.
    fn check_combination(&self) -> Result<(), ApiError> {
        let given = [
            self.units.is_some() || self.billing.is_some(),
            self.table_class.is_some(),
            self.deletion_protection.is_some(),
            !self.ceilings.is_none(),
            self.warm.is_some(),
            self.stream.is_some(),
            !self.indexes().is_empty(),
            self.others,
        ];
        let given = given.into_iter().filter(|given| *given).count();
        if given == 0 {
            return Err(ApiError::validation(NOTHING_TO_DO));
        }
        for (alone, name) in [
            (self.table_class.is_some(), "TableClass"),
            (self.deletion_protection.is_some(), "DeletionProtection"),
        ] {
            if alone && given > 1 {
                return Err(ApiError::parameters(format!(
                    "{name} modification must be the only operation in the request"
                )));
            }
        }
        let others =
            self.others || self.warm.is_some() || self.stream.is_some() || !self.indexes().is_empty();
        if !self.ceilings.is_none() && (self.units.is_some() || others) {
            return Err(ApiError::parameters(
                "OnDemandThroughput can only be combined with BillingMode in an UpdateTable request",
            ));
        }
        if self.warm.is_some() && given > 1 {
            return Err(ApiError::parameters(
                "WarmThroughput must be the only operation in the request",
            ));
        }
        let changes_units = self.units.is_some() || self.billing.as_deref() == Some("PROVISIONED");
        if self.stream.is_some() && changes_units {
            return Err(ApiError::parameters(
                "You cannot modify stream status while updating table IOPS",
            ));
        }
        if self.stream.is_some() && self.indexes().iter().any(UpdateRequest::is_of_life) {
            return Err(ApiError::parameters(
                "You cannot create or delete index while changing stream status",
            ));
        }
        if self.indexes.as_ref().is_some_and(Vec::is_empty) {
            return Err(ApiError::parameters(
                "List of GlobalSecondaryIndexUpdates is empty",
            ));
        }
        if self.units.is_some() && self.indexes().iter().any(UpdateRequest::is_of_life) {
            return Err(ApiError::parameters(
                "You cannot create or delete index while updating table IOPS",
            ));
        }
        Ok(())
    }

    /// What is asked for in this region; the constraints hold.
    fn update(&self, region: &str) -> Result<TableUpdate, ApiError> {
        let billing = self.billing.as_deref().map(|mode| match mode {
            "PAY_PER_REQUEST" => BillingMode::OnDemand,
            _ => BillingMode::Provisioned,
        });
        let units = match (billing, &self.units) {
            (Some(BillingMode::OnDemand), Some(_)) => return Err(units_on_demand()),
            (_, units) => units.as_ref().map(Units::checked).transpose()?,
        };
        check_warm_limit(self.warm, "table", region)?;
        Ok(TableUpdate {
            indexes: check_updates(self.indexes(), self.attributes.as_deref(), region)?,
            billing,
            units,
            class: self.table_class.as_deref().and_then(TableClass::from_name),
            deletion_protection: self.deletion_protection,
            ceilings: self.ceilings,
            warm: self.warm.unwrap_or_default(),
            stream: self
                .stream
                .as_ref()
                .map(StreamSpecification::change)
                .transpose()?,
        })
    }
}

pub(in crate::api) async fn update_table<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (request, unsupported) = UpdateTable::decode(body)?;
    let name = request.name.as_deref().ok_or_else(name_required)?;
    request.check_constraints()?;
    request.check_combination()?;
    unsupported.check()?;
    let update = request.update(service.region())?;
    let name = named_by(service, name)?.to_owned();
    let takes_time = update.billing.is_some()
        || update.units.is_some()
        || update.class.is_some()
        || update.stream.is_some();
    let ceilings = update.ceilings;
    let order = |reply| Order::Change {
        name: name.clone(),
        change: TableChange::Update(update),
        reply,
    };
    let changed = service.order(order).await?;

    let table = service.catalog().get(&name).cloned();
    let usage = match table {
        Some(table) => service.usage(&table).await,
        None => Default::default(),
    };
    let mut definition = in_transition(&changed, service.runtime().unix_ms());
    // Which ones are gone is said once, here.
    let shown = &mut definition.settings.ceilings;
    shown.read = shown.read.or(ceilings.read);
    shown.write = shown.write.or(ceilings.write);
    let mut shown = Shown {
        usage,
        updating: updating(&changed),
        ..Shown::new(&definition)
    };
    shown.warm = in_transition_warm(&changed, &request);
    if takes_time {
        shown.status = "UPDATING";
    }
    let mut members = Members::begin(out);
    describe(members.member("TableDescription"), service, &shown);
    members.end();
    Ok(())
}

/// The table as DynamoDB shows it while a change is being carried out: the mode of billing is the new one, without the time of
/// the change; capacity, its count of decreases and the table's class are still the old ones.
fn in_transition(changed: &Changed, now_ms: u64) -> TableDefinition {
    let Changed { before, after } = changed;
    let mut shown = TableDefinition::clone(after);
    shown.settings.class = before.settings.class;
    shown.settings.class_changed_ms = before.settings.class_changed_ms;
    let throughput = &mut shown.settings.throughput;
    match (before.billing, after.billing) {
        (Billing::Provisioned { .. }, Billing::Provisioned { .. }) => {
            shown.billing = before.billing;
            throughput.decreases = before.settings.throughput.decreases_today(now_ms);
            for index in &mut shown.indexes {
                let old = before.index(&index.name).and_then(|old| old.global.as_ref());
                if let (Some(global), Some(old)) = (&mut index.global, old) {
                    global.units = old.units;
                    global.throughput = old.throughput;
                }
            }
        }
        (Billing::Provisioned { .. }, Billing::OnDemand) => {
            throughput.decreases = throughput.decreases_today(now_ms);
            throughput.decreased_ms = Some(now_ms);
            shown.settings.on_demand_since_ms = None;
        }
        (Billing::OnDemand, Billing::Provisioned { .. }) => shown.settings.on_demand_since_ms = None,
        (Billing::OnDemand, Billing::OnDemand) => {}
    }
    shown
}

/// Warm throughput is shown as it was, and as on its way where the request is about it. A new index has what it was given.
fn in_transition_warm(changed: &Changed, request: &UpdateTable<'_>) -> WarmShown {
    let Changed { before, after } = changed;
    let mut shown = warm_of(after);
    shown.extend(warm_of(before));
    let is_asked = |id: &IndexId| {
        if *id == IndexId(0) {
            return request.warm.is_some();
        }
        let index = after.indexes.iter().find(|index| index.id == *id);
        let mut updates = request.indexes().iter().filter_map(UpdateRequest::warms);
        index.is_some_and(|index| updates.any(|name| name == index.name))
    };
    for (id, (_, status)) in &mut shown {
        if is_asked(id) {
            *status = "UPDATING";
        }
    }
    shown
}

/// The indexes that the change has given another throughput.
fn updating(changed: &Changed) -> Vec<IndexId> {
    let Changed { before, after } = changed;
    let is_changed = |index: &&IndexDefinition| {
        let old = before.index(&index.name).and_then(|old| old.global.as_ref());
        let new = index.global.as_ref();
        old.zip(new)
            .is_some_and(|(old, new)| (old.units, old.ceilings) != (new.units, new.ceilings))
    };
    after
        .indexes
        .iter()
        .filter(is_changed)
        .map(|index| index.id)
        .collect()
}
