//! ExecuteTransaction: statements that all read or all write, carried out as one transaction.
//!
//! What is wrong with a statement alone refuses the request and says which statement it is; what is wrong with it against its
//! table is a reason of the cancellation.

use std::collections::BTreeSet;
use std::rc::Rc;

use cairn_expression::partiql::StatementKind;
use cairn_item::json::write_value;
use cairn_runtime::Runtime;

use super::cancellation::{SEVERAL_OPERATIONS, TOO_LARGE};
use super::capacity::ReturnCapacity;
use super::constraints::Constraints;
use super::decode::{self, Text, Unsupported};
use super::error::{CONDITION_FALSE, CONDITIONAL_CHECK_FAILED, RESOURCE_NOT_FOUND};
use super::item::Members;
use super::partiql::{Prepared, Target, WrittenStatement, duplicate, primary, schema};
use super::transact_write::{BYTES_MAX, check_count, check_token, read_units, token_of, write_units};
use super::{ApiError, Service};
use crate::catalog::{KEY_MISMATCH, PrimaryKey, Table};
use crate::route::{Action, ItemHandle, Write};
use crate::transact::{Token, TransactRead, Transacted, conflict};

const RETURNING: &str = "RETURNING clause is not supported in ExecuteTransaction.";
const ON_INDEX: &str = "Reads on indices are not supported within transactions.";
const MIXED: &str =
    "ExecuteTransaction API does not support both read and write operations in the same request.";
const UNKEYED: &str =
    "Select statements within ExecuteTransaction must specify the primary key in the where clause.";
/// How the words of a key's value of the wrong type, and of a type that no key has, begin.
const WRONG_TYPE: &str = "Key attribute's data type should match";
const NO_KEY_TYPE: &str = "Key value must be of type S, N, or B";
/// The words for a statement that does not say which item it is about, and Local's for an EXISTS that does not.
const NO_KEY: &str = "Where clause does not contain a mandatory equality on all key attributes";
const EXISTS_OF_SEVERAL: &str = "EXISTS() must contain a single item read with additional condition";

/// What is wrong with one statement of several.
fn in_statement(place: usize, error: &ApiError) -> ApiError {
    ApiError::validation(format!(
        "Validation failed in TransactStatements[{place}]: {}",
        error.message
    ))
}

struct Request<'a> {
    statements: Option<Vec<WrittenStatement<'a>>>,
    token: Text<'a>,
    capacity: Text<'a>,
}

impl<'a> Request<'a> {
    fn decode(body: &'a [u8]) -> Result<(Request<'a>, Unsupported), ApiError> {
        let mut request = Request {
            statements: None,
            token: None,
            capacity: None,
        };
        let mut inner = Unsupported::default();
        let mut unsupported = decode::members(body, |name, reader| match name {
            "TransactStatements" => {
                let mut all = Vec::new();
                decode::list(reader, |reader| {
                    let mut one = WrittenStatement::default();
                    inner.merge(decode::members_of(reader, |name, reader| {
                        Ok(name != "ConsistentRead" && one.member(name, reader)?)
                    })?);
                    all.push(one);
                    Ok(())
                })?;
                request.statements = Some(all);
                Ok(true)
            }
            "ClientRequestToken" => decode::text(reader, &mut request.token),
            "ReturnConsumedCapacity" => decode::text(reader, &mut request.capacity),
            _ => Ok(false),
        })?;
        unsupported.merge(inner);
        Ok((request, unsupported))
    }

    fn check(&self) -> Result<(), ApiError> {
        let mut constraints = Constraints::new();
        check_token(self.token.as_deref(), &mut constraints);
        check_count(&mut constraints, "transactStatements", self.statements.as_deref());
        for (place, statement) in self.statements.iter().flatten().enumerate() {
            let path = format!("transactStatements.{}.member.", place + 1);
            statement.check_on_failure(&path, &mut constraints);
            statement.check_statement(&path, &mut constraints);
            statement.check_parameters(&path, &mut constraints);
        }
        constraints.one_of(
            self.capacity.as_deref(),
            "returnConsumedCapacity",
            &ReturnCapacity::ALLOWED,
        );
        constraints.finish()
    }
}

/// Parses and binds the statements; appends what makes them the same as others.
fn prepare<R: Runtime>(
    service: &Service<R>,
    statements: Vec<WrittenStatement<'_>>,
    fingerprint: &mut Vec<u8>,
) -> Result<Vec<Prepared>, ApiError> {
    for statement in &statements {
        let mut values = Vec::new();
        for parameter in statement.parameters.iter().flatten() {
            write_value(&mut values, parameter.as_ref().map_err(|error| error.clone())?);
        }
        let text = statement.statement.as_deref().unwrap_or_default();
        let mode = statement.on_failure.as_deref().unwrap_or("NONE");
        for part in [text.as_bytes(), values.as_slice(), mode.as_bytes()] {
            fingerprint.extend_from_slice(&(part.len() as u64).to_le_bytes());
            fingerprint.extend_from_slice(part);
        }
    }
    let mut all = Vec::with_capacity(statements.len());
    for (place, statement) in statements.into_iter().enumerate() {
        let prepared = statement
            .prepare(service)
            .map_err(|error| in_statement(place, &error))?;
        if prepared.statement.returning().is_some() {
            return Err(in_statement(place, &ApiError::validation(RETURNING)));
        }
        if prepared.statement.kind() == StatementKind::Select && prepared.statement.index().is_some() {
            return Err(in_statement(place, &ApiError::validation(ON_INDEX)));
        }
        all.push(prepared);
    }
    Ok(all)
}

pub(super) async fn execute_transaction<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let (request, unsupported) = Request::decode(body)?;
    request.check()?;
    unsupported.check()?;
    let mut fingerprint = Vec::new();
    let statements = prepare(service, request.statements.expect("required"), &mut fingerprint)?;
    let is_read = |prepared: &Prepared| prepared.statement.kind() == StatementKind::Select;
    let reads = statements.iter().filter(|prepared| is_read(prepared)).count();
    if reads > 0 && reads < statements.len() {
        return Err(ApiError::validation(MIXED));
    }
    let wanted = ReturnCapacity::parse(request.capacity.as_deref());
    if reads > 0 {
        return read(service, &statements, wanted, out).await;
    }
    let token = request
        .token
        .map(|token| token_of("ExecuteTransaction", &token, &fingerprint));
    write(service, &statements, token, wanted, out).await
}

/// Refuses an item that two statements are about.
fn check_several<'k>(keys: impl Iterator<Item = (&'k Table, &'k PrimaryKey)>) -> Result<(), ApiError> {
    let mut seen = BTreeSet::new();
    for (table, key) in keys {
        if !seen.insert((table.definition().id, key)) {
            return Err(ApiError::validation(SEVERAL_OPERATIONS));
        }
    }
    Ok(())
}

/// When keys have values of the wrong type, that is all that is said.
fn only_wrong_keys(reasons: &mut [Option<ApiError>]) {
    let is_wrong = |reason: &Option<ApiError>| {
        let error = reason.as_ref();
        error.is_some_and(|error| error.message.starts_with(WRONG_TYPE))
    };
    if reasons.iter().any(is_wrong) {
        for reason in reasons {
            *reason = is_wrong(reason).then(|| ApiError::validation(KEY_MISMATCH));
        }
    }
}

fn is_missing(error: &ApiError) -> bool {
    error.kind == RESOURCE_NOT_FOUND
}

async fn read<R: Runtime>(
    service: &Service<R>,
    statements: &[Prepared],
    wanted: ReturnCapacity,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut tables = Vec::with_capacity(statements.len());
    let mut keys = Vec::with_capacity(statements.len());
    let mut reasons = Vec::with_capacity(statements.len());
    for (place, prepared) in statements.iter().enumerate() {
        let table = match prepared.table(service) {
            Ok(table) => table,
            Err(error) if is_missing(&error) => {
                reasons.push(Some(error));
                continue;
            }
            Err(error) => return Err(error),
        };
        let (partition, sort) = schema(&table);
        let values = &prepared.operands.values;
        match prepared.statement.key_alone(values, partition, sort) {
            Ok(Some(key)) => {
                keys.push(primary(key));
                tables.push(table);
                reasons.push(None);
            }
            Ok(None) => return Err(in_statement(place, &ApiError::validation(UNKEYED))),
            Err(error) => {
                let error = ApiError::from(error);
                if !error.message.starts_with(WRONG_TYPE) {
                    return Err(in_statement(place, &error));
                }
                reasons.push(Some(error));
            }
        }
    }
    check_several(tables.iter().map(Rc::as_ref).zip(&keys))?;
    only_wrong_keys(&mut reasons);
    if reasons.iter().any(Option::is_some) {
        return Err(service.cancelled(&reasons));
    }
    let items = match service.transact_read(&tables, &keys).await? {
        TransactRead::Items(items) => items,
        TransactRead::Conflicts(conflicts) => {
            let reasons = conflicts.into_iter().map(|conflicts| conflicts.then(conflict));
            return Err(service.cancelled(&reasons.collect::<Vec<_>>()));
        }
    };
    let sizes: Vec<u32> = items
        .iter()
        .map(|item| item.as_ref().map_or(0, ItemHandle::item_bytes))
        .collect();
    if sizes.iter().map(|bytes| u64::from(*bytes)).sum::<u64>() > BYTES_MAX as u64 {
        return Err(ApiError::validation(TOO_LARGE));
    }
    let mut members = Members::begin(out);
    read_units(&mut members, wanted, &tables, &sizes);
    let list = members.member("Responses");
    list.push(b'[');
    for (place, (item, prepared)) in items.iter().zip(statements).enumerate() {
        if place > 0 {
            list.push(b',');
        }
        let mut response = Members::begin(list);
        if let Some(item) = item {
            prepared.write_selected(response.member("Item"), item.view());
        }
        response.end();
    }
    list.push(b']');
    members.end();
    Ok(())
}

/// Whether this is a DELETE that says more of its item than the key.
fn is_conditional_delete(write: &Result<(PrimaryKey, Write), ApiError>) -> bool {
    let write = write.as_ref().ok();
    write.is_some_and(|(_, write)| matches!(write.action, Action::Delete) && write.condition.is_some())
}

async fn write<R: Runtime>(
    service: &Service<R>,
    statements: &[Prepared],
    token: Option<Token>,
    wanted: ReturnCapacity,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut missing: Vec<Option<ApiError>> = Vec::with_capacity(statements.len());
    let mut tables = Vec::with_capacity(statements.len());
    let mut keys = Vec::with_capacity(statements.len());
    let mut writes = Vec::with_capacity(statements.len());
    for (place, prepared) in statements.iter().enumerate() {
        let table = match prepared.table(service) {
            Ok(table) => table,
            Err(error) if is_missing(&error) => {
                missing.push(Some(error));
                continue;
            }
            Err(error) => return Err(error),
        };
        missing.push(None);
        let target = prepared.target_within(&table);
        if let Err(error) = &target {
            if error.message.starts_with(NO_KEY_TYPE) {
                return Err(in_statement(place, error));
            }
            if prepared.statement.kind() == StatementKind::Exists && error.message == NO_KEY {
                return Err(in_statement(place, &ApiError::validation(EXISTS_OF_SEVERAL)));
            }
        }
        // Two statements about one item are told before what else is wrong with them.
        keys.push(target.as_ref().ok().map(Target::key));
        let wanted = target.and_then(|target| prepared.wanted(&table, target));
        let write = wanted.map(|(key, write, _)| (key, write));
        tables.push(Rc::clone(&table));
        writes.push((table, write));
    }
    let keyed = tables.iter().zip(&keys);
    check_several(keyed.filter_map(|(table, key)| Some((table.as_ref(), key.as_ref()?))))?;
    // What the other statements meet is a reason as well.
    let only_judge = missing.iter().any(Option::is_some);
    let mut wrong: Vec<Option<ApiError>> = writes
        .iter()
        .map(|(_, write)| write.as_ref().err().cloned())
        .collect();
    only_wrong_keys(&mut wrong);
    if wrong.iter().flatten().any(|error| error.message == KEY_MISMATCH) {
        return Err(service.cancelled(&merged(missing, wrong)));
    }
    let conditional_deletes: Vec<bool> = writes
        .iter()
        .map(|(_, write)| is_conditional_delete(write))
        .collect();
    let transacted = service.transact_write(writes, token, false, only_judge).await?;
    let mut members = Members::begin(out);
    match transacted {
        Transacted::Done(changed) => write_units(&mut members, wanted, &tables, &changed),
        Transacted::Again(sizes) => read_units(&mut members, wanted, &tables, &sizes),
        Transacted::TooLarge => return Err(ApiError::validation(TOO_LARGE)),
        Transacted::Cancelled { mut reasons, absent } => {
            // Alone it would have passed: the live service says of it what it says of the others.
            let deletes = conditional_deletes.iter().zip(&absent);
            for (reason, _) in reasons
                .iter_mut()
                .zip(deletes)
                .filter(|(_, (is, absent))| **is && **absent)
            {
                *reason = Some(ApiError::new(CONDITIONAL_CHECK_FAILED, CONDITION_FALSE));
            }
            let mut reasons = merged(missing, reasons);
            for (reason, prepared) in reasons.iter_mut().zip(statements) {
                if prepared.statement.kind() == StatementKind::Insert
                    && reason
                        .as_ref()
                        .is_some_and(|error| error.kind == CONDITIONAL_CHECK_FAILED)
                {
                    *reason = Some(duplicate());
                }
            }
            return Err(service.cancelled(&reasons));
        }
    }
    members.member("Responses").extend_from_slice(b"[]");
    members.end();
    Ok(())
}

/// The reasons of the statements whose tables are missing, and of the others, in order.
fn merged(missing: Vec<Option<ApiError>>, others: Vec<Option<ApiError>>) -> Vec<Option<ApiError>> {
    let mut others = others.into_iter();
    let one = |missing: Option<ApiError>| missing.or_else(|| others.next().flatten());
    missing.into_iter().map(one).collect()
}
