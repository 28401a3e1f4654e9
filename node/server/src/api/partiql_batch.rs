//! BatchExecuteStatement: up to 25 statements, each about one item, that all read or all write.
//!
//! What is wrong with the batch refuses it; what is wrong with a statement is its own answer, and the others are carried
//! out at the same time, in no order.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cairn_expression::partiql::StatementKind;
use cairn_item::json::write_string;
use cairn_runtime::Runtime;
use futures_util::future::join_all;

use super::capacity::{Capacity, Consumed, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, Text, Unsupported};
use super::error::{
    COLLECTION_TOO_LARGE, CONDITIONAL_CHECK_FAILED, DUPLICATE_ITEM, LIMIT_EXCEEDED, RESOURCE_NOT_FOUND,
    THROUGHPUT_EXCEEDED, TRANSACTION_CONFLICT, VALIDATION,
};
use super::item::Members;
use super::partiql::{Done, Prepared, Target, WrittenStatement, check_single_attributes, primary, schema};
use super::{ApiError, Service};
use crate::catalog::{PrimaryKey, Table};
use crate::route::ItemHandle;

/// Statements of one batch.
const STATEMENTS_MAX: usize = 25;

const UNKEYED: &str =
    "Select statements within BatchExecuteStatement must specify the primary key in the where clause.";

/// A statement that is ready to be carried out.
struct Ready {
    prepared: Prepared,
    table: Rc<Table>,
    work: Work,
}

enum Work {
    Get(PrimaryKey),
    Write(Target),
}

/// What became of one.
enum Outcome {
    Got(Option<ItemHandle>),
    Written(Done),
}

/// What is wrong with a statement, and whether the answer names its table.
type Refused = (ApiError, Option<String>);

pub(super) async fn batch_execute_statement<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut capacity: Text<'_> = None;
    let mut statements: Option<Vec<WrittenStatement<'_>>> = None;
    let mut inner = Unsupported::default();
    let mut unsupported = decode::members(body, |name, reader| match name {
        "ReturnConsumedCapacity" => decode::text(reader, &mut capacity),
        "Statements" => {
            let mut all = Vec::new();
            decode::list(reader, |reader| {
                let mut one = WrittenStatement::default();
                inner.merge(decode::members_of(reader, |name, reader| {
                    one.member(name, reader)
                })?);
                all.push(one);
                Ok(())
            })?;
            statements = Some(all);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    unsupported.merge(inner);
    check(capacity.as_deref(), statements.as_deref())?;
    unsupported.check()?;

    let statements = statements.expect("required");
    check_kinds(service, &statements)?;
    let ready: Vec<Result<Ready, Refused>> = statements
        .into_iter()
        .map(|statement| ready(service, statement))
        .collect();
    check_together(&ready)?;
    let done = join_all(ready.into_iter().map(|ready| async {
        match ready {
            Ok(ready) => carry_out(service, ready).await,
            Err(refused) => Err(refused),
        }
    }))
    .await;
    respond(out, &done, ReturnCapacity::parse(capacity.as_deref()));
    Ok(())
}

fn check(capacity: Option<&str>, statements: Option<&[WrittenStatement<'_>]>) -> Result<(), ApiError> {
    let mut constraints = Constraints::new();
    constraints.one_of(capacity, "returnConsumedCapacity", &ReturnCapacity::ALLOWED);
    constraints.required(statements.as_ref(), "statements");
    let given = statements.is_some();
    let statements = statements.unwrap_or_default();
    let count = "Member must have length";
    if given && statements.is_empty() {
        constraints.add("[]", "statements", &format!("{count} greater than or equal to 1"));
    }
    if statements.len() > STATEMENTS_MAX {
        let all: Vec<&str> = statements
            .iter()
            .filter_map(|one| one.statement.as_deref())
            .collect();
        let constraint = format!("{count} less than or equal to {STATEMENTS_MAX}");
        constraints.add(&format!("[{}]", all.join(", ")), "statements", &constraint);
    }
    for (place, statement) in statements.iter().enumerate() {
        let path = format!("statements.{}.member.", place + 1);
        statement.check_on_failure(&path, &mut constraints);
        statement.check_statement(&path, &mut constraints);
        statement.check_parameters(&path, &mut constraints);
    }
    constraints.finish()
}

/// Parses and binds a statement and finds out which item it is about.
fn ready<R: Runtime>(service: &Service<R>, statement: WrittenStatement<'_>) -> Result<Ready, Refused> {
    let mut prepared = statement.prepare(service).map_err(|error| (error, None))?;
    // In a batch the live service takes the parameter and never tells the item.
    prepared.returns_refused = false;
    let alone = prepared.statement.check_alone();
    alone.map_err(|error| (error.into(), None))?;
    let name = prepared.statement.table().to_owned();
    let refuse = |error: ApiError| {
        let known = (error.kind != VALIDATION).then(|| name.clone());
        (error, known)
    };
    let select = prepared.statement.kind() == StatementKind::Select;
    if select
        && let Some(index) = prepared.statement.index()
        && let Ok(table) = service.table(&name)
    {
        if let Some(index) = table.definition().index(index) {
            check_single_attributes(index).map_err(refuse)?;
        }
        return Err(refuse(ApiError::validation(UNKEYED)));
    }
    let table = prepared.table(service).map_err(refuse)?;
    let work = if select {
        let (partition, sort) = schema(&table);
        let key = prepared
            .statement
            .key_alone(&prepared.operands.values, partition, sort);
        match key.map_err(|error| refuse(error.into()))? {
            Some(key) => Work::Get(primary(key)),
            None => return Err(refuse(ApiError::validation(UNKEYED))),
        }
    } else {
        Work::Write(prepared.target(&table).map_err(refuse)?)
    };
    Ok(Ready {
        prepared,
        table,
        work,
    })
}

/// Refuses a batch that reads and writes, whatever else is wrong with its statements; those that are none do not count.
fn check_kinds<R: Runtime>(
    service: &Service<R>,
    statements: &[WrittenStatement<'_>],
) -> Result<(), ApiError> {
    let texts = statements.iter().filter_map(|one| one.statement.as_deref());
    let parsed = texts.filter_map(|text| service.parsed().statement(text).ok());
    let is_read: Vec<bool> = parsed
        .map(|statement| statement.kind() == StatementKind::Select)
        .collect();
    if is_read.contains(&true) && is_read.contains(&false) {
        return Err(ApiError::validation(
            "Read and write requests together in the same batch is not supported.",
        ));
    }
    Ok(())
}

/// Refuses a batch that names an item twice.
fn check_together(all: &[Result<Ready, Refused>]) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for ready in all.iter().flatten() {
        let key = match &ready.work {
            Work::Get(key) => key.clone(),
            Work::Write(target) => target.key(),
        };
        if !seen.insert((ready.table.definition().id, key)) {
            return Err(ApiError::validation(
                "Provided list of item keys contains duplicates",
            ));
        }
    }
    Ok(())
}

async fn carry_out<R: Runtime>(
    service: &Service<R>,
    ready: Ready,
) -> Result<(Prepared, Rc<Table>, Outcome), Refused> {
    let Ready {
        prepared,
        table,
        work,
    } = ready;
    let outcome = match work {
        Work::Get(key) => service.get(&table, &key).await.map(Outcome::Got),
        Work::Write(target) => prepared
            .write(service, &table, target)
            .await
            .map(Outcome::Written),
    };
    match outcome {
        Ok(outcome) => Ok((prepared, table, outcome)),
        Err(error) => {
            let known = (error.kind != VALIDATION).then(|| table.definition().name.clone());
            Err((error, known))
        }
    }
}

type Answer = Result<(Prepared, Rc<Table>, Outcome), Refused>;

fn respond(out: &mut Vec<u8>, answers: &[Answer], wanted: ReturnCapacity) {
    let mut by_table: BTreeMap<&str, Consumed<'_>> = BTreeMap::new();
    let mut members = Members::begin(out);
    let list = members.member("Responses");
    list.push(b'[');
    for (place, answer) in answers.iter().enumerate() {
        if place > 0 {
            list.push(b',');
        }
        match answer {
            Ok((prepared, table, outcome)) => {
                let name = table.definition().name.as_str();
                let mut one = Members::begin(list);
                one.string("TableName", name);
                let consumed = match outcome {
                    Outcome::Got(item) => {
                        if let Some(item) = item {
                            prepared.write_selected(one.member("Item"), item.view());
                        }
                        let bytes = item.as_ref().map_or(0, ItemHandle::item_bytes);
                        Consumed::of_table(Capacity::of_read(u64::from(bytes), prepared.consistent))
                    }
                    Outcome::Written(done) => {
                        let mut item = Vec::new();
                        if done.write_item(&mut item) {
                            one.member("Item").extend_from_slice(&item);
                        }
                        done.consumed(table)
                    }
                };
                one.end();
                by_table.entry(name).or_default().merge(consumed);
            }
            Err((error, table)) => {
                let mut one = Members::begin(list);
                write_error(one.member("Error"), error);
                if let Some(table) = table {
                    one.string("TableName", table);
                }
                one.end();
            }
        }
    }
    list.push(b']');
    if wanted != ReturnCapacity::None && !by_table.is_empty() {
        let list = members.member("ConsumedCapacity");
        list.push(b'[');
        for (place, (table, consumed)) in by_table.into_iter().enumerate() {
            if place > 0 {
                list.push(b',');
            }
            consumed.write_json(list, table, wanted);
        }
        list.push(b']');
    }
    members.end();
}

fn write_error(out: &mut Vec<u8>, error: &ApiError) {
    out.extend_from_slice(b"{\"Code\":");
    write_string(out, code(error.kind));
    out.extend_from_slice(b",\"Message\":");
    write_string(out, &error.message);
    if !error.extra_of_part().is_empty() {
        out.push(b',');
        out.extend_from_slice(error.extra_of_part().as_bytes());
    }
    out.push(b'}');
}

fn code(kind: &str) -> &'static str {
    match kind {
        VALIDATION => "ValidationError",
        RESOURCE_NOT_FOUND => "ResourceNotFound",
        CONDITIONAL_CHECK_FAILED => "ConditionalCheckFailed",
        COLLECTION_TOO_LARGE => "ItemCollectionSizeLimitExceeded",
        DUPLICATE_ITEM => "DuplicateItem",
        TRANSACTION_CONFLICT => "TransactionConflict",
        THROUGHPUT_EXCEEDED => "ProvisionedThroughputExceeded",
        LIMIT_EXCEEDED => "RequestLimitExceeded",
        _ => "InternalServerError",
    }
}
