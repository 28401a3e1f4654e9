//! Changes of a table's global indexes, decided on its newest entry.
//!
//! Only one index of a table is created or deleted at a time. What a request must not do while an index is being created or
//! deleted is refused before what it says is looked at.

use cairn_engine::ids::IndexId;

use super::change::{check_ceilings, unchanged_units};
use super::definition::{Billing, TableDefinition};
use super::index::{GlobalIndex, IndexDefinition, IndexStatus};
use super::settings::{Ceilings, ThroughputHistory};
use super::warm::{Warm, WarmRequest};
use crate::api::ApiError;
use crate::api::error::{LIMIT_EXCEEDED, RESOURCE_IN_USE, RESOURCE_NOT_FOUND};

/// Global indexes of a table, at most.
pub(crate) const GLOBAL_MAX: usize = 20;

/// What UpdateTable does to one global index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IndexUpdate {
    /// Adds it: without id, status and places, its key attributes with the types that the request gives them.
    Create {
        index: Box<IndexDefinition>,
        units: Option<(u64, u64)>,
        ceilings: Ceilings,
        warm: WarmRequest,
    },
    /// Changes what may be charged, and what there is of warm throughput.
    Update {
        name: String,
        units: Option<(u64, u64)>,
        ceilings: Ceilings,
        warm: WarmRequest,
    },
    /// Removes it.
    Delete(String),
}

impl IndexUpdate {
    pub(crate) fn name(&self) -> &str {
        match self {
            IndexUpdate::Create { index, .. } => &index.name,
            IndexUpdate::Update { name, .. } | IndexUpdate::Delete(name) => name,
        }
    }

    fn is_of_life(&self) -> bool {
        !matches!(self, IndexUpdate::Update { .. })
    }
}

/// The answer while something about a table or its indexes is changing.
fn in_use(what: impl std::fmt::Display) -> ApiError {
    ApiError::new(
        RESOURCE_IN_USE,
        format!("Attempt to change a resource which is still in use: {what}"),
    )
}

fn one_at_a_time() -> ApiError {
    ApiError::new(
        LIMIT_EXCEEDED,
        "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table",
    )
}

/// The global indexes of a table in a status, as DynamoDB lists them; none for none.
fn names_in(table: &TableDefinition, status: IndexStatus) -> Option<String> {
    let indexes = table
        .indexes
        .iter()
        .filter(|index| index.status() == Some(status));
    let names: Vec<&str> = indexes.map(|index| index.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("[{}]", names.join(", ")))
}

/// Refuses a change of the table's throughput or billing while an index comes or goes.
pub(super) fn check_table_units(table: &TableDefinition) -> Result<(), ApiError> {
    for (status, doing) in [
        (IndexStatus::Creating, "created"),
        (IndexStatus::Deleting, "deleted"),
    ] {
        if let Some(names) = names_in(table, status) {
            return Err(in_use(format!(
                "Can't change table IOPS when an index is being {doing}. Table: {} Indexes: {names}",
                table.name
            )));
        }
    }
    Ok(())
}

/// Refuses a change of the table's ceilings while an index comes or goes.
pub(super) fn check_table_ceilings(table: &TableDefinition) -> Result<(), ApiError> {
    for (status, doing) in [
        (IndexStatus::Creating, "creation"),
        (IndexStatus::Deleting, "deletion"),
    ] {
        if let Some(names) = names_in(table, status) {
            return Err(in_use(format!(
                "OnDemandThroughput cannot be updated while index {doing} is in progress for indexes: {names}"
            )));
        }
    }
    Ok(())
}

/// Checks which indexes exist and may be changed now.
pub(super) fn check(table: &TableDefinition, updates: &[IndexUpdate]) -> Result<(), ApiError> {
    for update in updates {
        let index = table.index(update.name());
        if let IndexUpdate::Create { index: new, .. } = update {
            if index.is_some() {
                return Err(ApiError::parameters(format!(
                    "Index already exists: {}",
                    new.name
                )));
            }
            continue;
        }
        let is_local = index.is_some_and(|index| index.global.is_none());
        if is_local && matches!(update, IndexUpdate::Delete(_)) {
            return Err(ApiError::validation(
                "Cannot delete an index that is not a GlobalSecondaryIndex",
            ));
        }
        let status = index.and_then(IndexDefinition::status);
        check_one(table, update, status)?;
    }
    let of_life = updates.iter().filter(|update| update.is_of_life());
    if of_life.clone().count() > 1 {
        return Err(one_at_a_time());
    }
    let Some(update) = of_life.into_iter().next() else {
        return Ok(());
    };
    let mut others = table.indexes.iter().filter(|index| index.name != update.name());
    if others.any(|index| !index.is_active()) {
        return Err(one_at_a_time());
    }
    let count = table
        .indexes
        .iter()
        .filter(|index| index.global.is_some())
        .count();
    if matches!(update, IndexUpdate::Create { .. }) && count >= GLOBAL_MAX {
        return Err(ApiError::new(
            LIMIT_EXCEEDED,
            format!(
                "Subscriber limit exceeded: Number of global secondary indexes exceeds per-table limit of {GLOBAL_MAX}"
            ),
        ));
    }
    Ok(())
}

/// Checks an update or deletion of an index with this status, if it exists.
fn check_one(
    table: &TableDefinition,
    update: &IndexUpdate,
    status: Option<IndexStatus>,
) -> Result<(), ApiError> {
    let (table, name) = (&table.name, update.name());
    match status {
        None => Err(ApiError::new(
            RESOURCE_NOT_FOUND,
            format!("Requested resource not found: Index {name} for table {table}"),
        )),
        Some(IndexStatus::Deleting) => Err(in_use(format!(
            "Index is being deleted. Table: {table} Index: {name}"
        ))),
        Some(IndexStatus::Creating) if update.is_of_life() => Err(in_use(format!(
            "Index creation is in resource allocation phase. Retry deletion during backfilling phase or when the index \
             is active. Table: {table} Index: {name}"
        ))),
        Some(IndexStatus::Creating) => Err(in_use(format!(
            "Index is being created. Table: {table} Index: {name}"
        ))),
        Some(IndexStatus::Backfilling | IndexStatus::Active) => Ok(()),
    }
}

/// Carries the updates out; `before` is how the table was paid for before this request, which may change that.
pub(super) fn apply(
    table: &mut TableDefinition,
    updates: Vec<IndexUpdate>,
    before: Billing,
    now_ms: u64,
) -> Result<(), ApiError> {
    let billing = table.billing;
    for global in table.indexes.iter_mut().filter_map(|index| index.global.as_mut()) {
        global.warm = global.warm(before);
    }
    for update in updates {
        match update {
            IndexUpdate::Create {
                index,
                units,
                ceilings,
                warm,
            } => create(table, *index, units, ceilings, warm)?,
            IndexUpdate::Update {
                name,
                units,
                ceilings,
                warm,
            } => {
                let mut indexes = table.indexes.iter_mut();
                let index = indexes.find(|index| index.name == name);
                let index = index.expect("it exists, as was checked");
                change(index, (before, billing), units, ceilings, warm, now_ms)?;
            }
            IndexUpdate::Delete(name) => {
                let mut indexes = table.indexes.iter_mut();
                let index = indexes.find(|index| index.name == name);
                let global = index.and_then(|index| index.global.as_mut());
                global.expect("it exists, as was checked").status = IndexStatus::Deleting;
            }
        }
    }
    follow_billing(table, before, now_ms)?;
    for global in table.indexes.iter_mut().filter_map(|index| index.global.as_mut()) {
        global.warm = global.warm.beyond(Warm::of_billing(billing, global.units));
    }
    Ok(())
}

/// What becomes of the indexes when the table is paid for in another way.
fn follow_billing(table: &mut TableDefinition, before: Billing, now_ms: u64) -> Result<(), ApiError> {
    match (before, table.billing) {
        (Billing::OnDemand, Billing::Provisioned { .. }) => {
            for index in &mut table.indexes {
                let Some(global) = index.global.as_mut().filter(|global| global.is_wanted()) else {
                    continue;
                };
                if global.units == (0, 0) {
                    return Err(ApiError::parameters(format!(
                        "ProvisionedThroughput must be specified for index: {}",
                        index.name
                    )));
                }
                global.ceilings = Ceilings::default();
            }
        }
        (Billing::Provisioned { .. }, Billing::OnDemand) => {
            for global in table.indexes.iter_mut().filter_map(|index| index.global.as_mut()) {
                global.throughput = global.throughput.after(global.units, (0, 0), now_ms);
                global.units = (0, 0);
            }
        }
        _ => {}
    }
    Ok(())
}

fn create(
    table: &mut TableDefinition,
    mut index: IndexDefinition,
    units: Option<(u64, u64)>,
    ceilings: Ceilings,
    warm: WarmRequest,
) -> Result<(), ApiError> {
    let name = &index.name;
    check_index_ceilings(name, table.billing, ceilings, 1)?;
    let units = match (units, table.billing) {
        (None, Billing::OnDemand) => (0, 0),
        (Some(_), Billing::OnDemand) => {
            return Err(ApiError::parameters(format!(
                "ProvisionedThroughput should not be specified for index: {name} when BillingMode is PAY_PER_REQUEST"
            )));
        }
        (None, Billing::Provisioned { .. }) => {
            return Err(ApiError::parameters(format!(
                "Both ReadCapacityUnits and WriteCapacityUnits must be specified for index: {name}"
            )));
        }
        (Some(units), Billing::Provisioned { .. }) => units,
    };
    let warm = warm.of_new(&format!("index {name}"), table.billing, units)?;
    // 65,535 is no index's id.
    let Some(next_index) = table.next_index.checked_add(1) else {
        return Err(ApiError::new(
            LIMIT_EXCEEDED,
            "Subscriber limit exceeded: A table has 65,534 indexes in its life, counting those that were deleted",
        ));
    };
    index.id = IndexId(table.next_index);
    table.next_index = next_index;
    // An attribute that the table knows keeps its type, whatever the request says.
    for key in index.partition_key.iter_mut().chain(&mut index.sort_key) {
        match table.attributes.iter().find(|known| known.name == key.name) {
            Some(known) => key.kind = known.kind,
            None => table.attributes.push(key.clone()),
        }
    }
    index.global = Some(GlobalIndex {
        status: IndexStatus::Creating,
        units,
        throughput: ThroughputHistory::default(),
        ceilings,
        warm,
        places: Vec::new(),
    });
    table.indexes.push(index);
    Ok(())
}

fn change(
    index: &mut IndexDefinition,
    (before, billing): (Billing, Billing),
    units: Option<(u64, u64)>,
    ceilings: Ceilings,
    warm: WarmRequest,
    now_ms: u64,
) -> Result<(), ApiError> {
    let name = &index.name;
    let is_nothing = units.is_none() && ceilings.is_none() && warm.is_none();
    if is_nothing && billing != Billing::OnDemand {
        return Err(ApiError::parameters(format!(
            "ProvisionedThroughput, OnDemandThroughput or WarmThroughput must be specified for index: {name}"
        )));
    }
    if (units.is_some() || is_nothing) && billing == Billing::OnDemand {
        return Err(ApiError::parameters(format!(
            "The only Updates for index: {name} when TableThroughputMode is PAY_PER_REQUEST can be to \
             OnDemandThroughput, WarmThroughput"
        )));
    }
    check_index_ceilings(name, billing, ceilings, -1)?;
    let global = index.global.as_mut().expect("only global indexes are updated");
    if let Some(units) = units {
        if units == global.units && before != Billing::OnDemand {
            return Err(unchanged_units(
                &format!("the index {name}"),
                &format!("index {name}"),
                units,
            ));
        }
        // From on demand there is nothing to increase.
        if before != Billing::OnDemand {
            global.throughput = global.throughput.after(global.units, units, now_ms);
        }
        global.units = units;
    }
    global.ceilings.change(ceilings);
    global.warm = warm.raise(&format!("index {name}"), global.warm)?;
    Ok(())
}

/// Refuses ceilings that an index of a table with this billing cannot have; `least` may be given besides positive numbers.
pub(crate) fn check_index_ceilings(
    name: &str,
    billing: Billing,
    ceilings: Ceilings,
    least: i64,
) -> Result<(), ApiError> {
    let given = ceilings.members().into_iter().find(|(_, units)| units.is_some());
    if let (Some((member, _)), Billing::Provisioned { .. }) = (given, billing) {
        return Err(ApiError::parameters(format!(
            "{member} for OnDemandThroughput for index : {name} cannot be specified when the table BillingMode is PROVISIONED"
        )));
    }
    check_ceilings(ceilings, least, &format!("index : {name}"))
}

impl GlobalIndex {
    /// Whether it is not being deleted.
    fn is_wanted(&self) -> bool {
        self.status != IndexStatus::Deleting
    }
}
