//! ExecuteStatement, and what it has in common with BatchExecuteStatement.
//!
//! A statement is parsed from its text, kept for requests that send the same, and bound to its parameters; that checks all that
//! needs no table. Then the table, then its key against the statement. What it does is what the operations on items do: a
//! SELECT becomes gets, queries or a scan, the others one write each, with the WHERE clause as the condition:
//! - INSERT puts an item on the condition that there is none;
//! - UPDATE changes one that exists, for its key is part of the condition;
//! - DELETE removes one, and one that is not there with success, whatever else the clause says.

use std::rc::Rc;
use std::sync::Arc;

use cairn_expression::partiql::{Key, Returning, Statement, StatementError, StatementKind};
use cairn_expression::{Condition as ParsedCondition, KeyAttribute as SchemaAttribute, Names};
use cairn_item::json::{Reader, write_item_view};
use cairn_item::{Attribute, Item, ItemBytes, ItemError, Value};
use cairn_runtime::Runtime;

use super::capacity::{Capacity, Consumed, ReturnCapacity};
use super::constraints::Constraints;
use super::decode::{self, Text};
use super::error::{CONDITIONAL_CHECK_FAILED, DUPLICATE_ITEM};
use super::item::Members;
use super::partiql_select::{self, Selected, Token};
use super::{ApiError, Page, Service, index};
use crate::catalog::{IndexDefinition, KeyAttribute, PrimaryKey, Table};
use crate::index::effects::check_keys;
use crate::route::{Action, Condition, Operands, Returns, Update, Write, Written, stored_view};

/// Longest `NextToken`.
const TOKEN_BYTES_MAX: usize = 32_768;
/// Longest statement in characters.
const STATEMENT_CHARACTERS_MAX: usize = cairn_expression::partiql::STATEMENT_CHARACTERS_MAX;

const SEVERAL_ATTRIBUTES: &str = "PartiQL statements cannot be executed on tables with multi-attribute HASH keys or \
     multi-attribute RANGE keys.";
const NO_SUCH_INDEX: &str = "The table does not have the specified index";
const NOT_CONSISTENT: &str = "Strongly consistent read is not supported on Global Secondary Indexes";

const ON_FAILURE: [&str; 2] = ["ALL_OLD", "NONE"];

impl From<StatementError> for ApiError {
    fn from(error: StatementError) -> ApiError {
        ApiError::validation(error.to_string())
    }
}

/// A statement as it stands in a request.
#[derive(Default)]
pub(super) struct WrittenStatement<'a> {
    pub statement: Text<'a>,
    pub parameters: Option<Vec<Result<Value, ItemError>>>,
    pub consistent: Option<bool>,
    pub on_failure: Text<'a>,
}

impl<'a> WrittenStatement<'a> {
    pub(super) fn member(&mut self, name: &str, reader: &mut Reader<'a>) -> Result<bool, ApiError> {
        match name {
            "Statement" => decode::text(reader, &mut self.statement),
            "ConsistentRead" => decode::boolean(reader, &mut self.consistent),
            "ReturnValuesOnConditionCheckFailure" => decode::text(reader, &mut self.on_failure),
            "Parameters" => {
                let mut parameters = Vec::new();
                decode::list(reader, |reader| {
                    parameters.push(reader.checked_value()?);
                    Ok(())
                })?;
                self.parameters = Some(parameters);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// `path` is what it is a member of, with a full stop.
    pub(super) fn check_on_failure(&self, path: &str, constraints: &mut Constraints) {
        let path = format!("{path}returnValuesOnConditionCheckFailure");
        constraints.one_of(self.on_failure.as_deref(), &path, &ON_FAILURE);
    }

    pub(super) fn check_statement(&self, path: &str, constraints: &mut Constraints) {
        let path = format!("{path}statement");
        let Some(statement) = self.statement.as_deref() else {
            constraints.missing(&path);
            return;
        };
        if statement.is_empty() {
            constraints.add(
                statement,
                &path,
                "Member must have length greater than or equal to 1",
            );
        } else if statement.chars().count() > STATEMENT_CHARACTERS_MAX {
            let constraint =
                format!("Member must have length less than or equal to {STATEMENT_CHARACTERS_MAX}");
            constraints.add(statement, &path, &constraint);
        }
    }

    pub(super) fn check_parameters(&self, path: &str, constraints: &mut Constraints) {
        if self.parameters.as_ref().is_some_and(Vec::is_empty) {
            let path = format!("{path}parameters");
            constraints.add("[]", &path, "Member must have length greater than or equal to 1");
        }
    }

    /// Parses and binds it.
    pub(super) fn prepare<R: Runtime>(self, service: &Service<R>) -> Result<Prepared, ApiError> {
        let parameters: Result<Vec<Value>, ItemError> =
            self.parameters.unwrap_or_default().into_iter().collect();
        let parameters = parameters?;
        let text = self.statement.as_deref().expect("required");
        let statement = service.parsed().statement(text)?;
        let digest = partiql_select::digest(text, &parameters);
        let operands = Operands {
            names: Names::none(),
            values: statement.bind(parameters)?,
        };
        Ok(Prepared {
            statement,
            operands: Arc::new(operands),
            digest,
            consistent: self.consistent.unwrap_or(false),
            returns_refused: self.on_failure.as_deref() == Some("ALL_OLD"),
        })
    }
}

/// A statement with its parameters, checked as far as it can be without the table.
pub(super) struct Prepared {
    pub statement: Arc<Statement>,
    pub operands: Arc<Operands>,
    /// Of the text and the parameters.
    pub digest: [u8; 16],
    pub consistent: bool,
    /// Whether the item of which the condition was false is wanted.
    pub returns_refused: bool,
}

/// The table's key, as expressions know it.
pub(super) fn schema(table: &Table) -> (SchemaAttribute<'_>, Option<SchemaAttribute<'_>>) {
    let definition = table.definition();
    let sort = definition.sort_key.as_ref().map(schema_attribute);
    (schema_attribute(&definition.partition_key), sort)
}

/// The index's key, each of one attribute.
pub(super) fn index_schema(index: &IndexDefinition) -> (SchemaAttribute<'_>, Option<SchemaAttribute<'_>>) {
    let sort = index.sort_key.first().map(schema_attribute);
    (schema_attribute(&index.partition_key[0]), sort)
}

/// Refuses an index whose partition or sort key has several attributes, before anything else about the key is looked at.
pub(super) fn check_single_attributes(index: &IndexDefinition) -> Result<(), ApiError> {
    if index.partition_key.len() > 1 || index.sort_key.len() > 1 {
        return Err(ApiError::validation(SEVERAL_ATTRIBUTES));
    }
    Ok(())
}

fn schema_attribute(key: &KeyAttribute) -> SchemaAttribute<'_> {
    SchemaAttribute {
        name: &key.name,
        kind: key.kind,
    }
}

/// What a write did.
pub(super) struct Done {
    written: Written,
    returning: Option<Returning>,
    update: Option<Update>,
}

impl Done {
    pub(super) fn consumed<'t>(&self, table: &'t Table) -> Consumed<'t> {
        Consumed::of_write(table.definition(), &self.written)
    }

    /// Appends what RETURNING asks for, if there is anything.
    pub(super) fn write_item(&self, out: &mut Vec<u8>) -> bool {
        let item = self.written.old.as_ref().or(self.written.new.as_ref());
        let (Some(returning), Some(item)) = (self.returning, item) else {
            return false;
        };
        let bound = self.update.as_ref().and_then(Update::bound);
        match bound.filter(|_| returning.modified) {
            None => write_item_view(out, item.view()),
            Some(bound) if bound.updated(item.view()).is_empty() => return false,
            Some(bound) => bound.write_updated_json(out, item.view()),
        }
        true
    }
}

impl Prepared {
    /// The condition of the WHERE clause, ready to be sent.
    pub(super) fn condition(&self) -> Option<Condition> {
        let parsed = self.statement.condition()?;
        Some(Condition::new(Arc::clone(parsed), Arc::clone(&self.operands)))
    }

    fn condition_of(&self, parsed: ParsedCondition) -> Condition {
        Condition::new(Arc::new(parsed), Arc::clone(&self.operands))
    }

    /// The statement's table.
    pub(super) fn table<R: Runtime>(&self, service: &Service<R>) -> Result<Rc<Table>, ApiError> {
        service.table(self.statement.table())
    }

    /// The index that a SELECT reads.
    pub(super) fn index<'t>(&self, table: &'t Table) -> Result<Option<&'t IndexDefinition>, ApiError> {
        let Some(name) = self.statement.index() else {
            return Ok(None);
        };
        // Query names the index that there is not; this does not.
        let is_there = table
            .definition()
            .index(name)
            .is_some_and(IndexDefinition::is_fed);
        if !is_there {
            return Err(ApiError::validation(NO_SUCH_INDEX));
        }
        let index = index::index_of(table, name)?;
        check_single_attributes(index)?;
        if self.consistent && index.global.is_some() {
            return Err(ApiError::validation(NOT_CONSISTENT));
        }
        Ok(Some(index))
    }

    /// The key of the item that a write is about; of an INSERT with the item.
    pub(super) fn target(&self, table: &Table) -> Result<Target, ApiError> {
        let values = &self.operands.values;
        let (partition, sort) = schema(table);
        let Some(item) = self.statement.item(values) else {
            return Ok(Target::Key(self.statement.key(values, partition, sort)?));
        };
        for attribute in std::iter::once(partition).chain(sort) {
            match item.get(attribute.name) {
                None => {
                    return Err(ApiError::validation(format!(
                        "Key attribute should be present in the item: Key {}",
                        attribute.name
                    )));
                }
                Some(value) if value.type_name() != attribute.kind.name() => {
                    return Err(ApiError::validation(format!(
                        "Key attribute's data type should match its data type in table's schema: Key {}",
                        attribute.name
                    )));
                }
                Some(_) => {}
            }
        }
        let key = table.key_of_item(&item)?;
        item.validate()?;
        Ok(Target::Item(key, item))
    }

    /// As [`Prepared::target`], in the words of a transaction: an INSERT's as PutItem's.
    pub(super) fn target_within(&self, table: &Table) -> Result<Target, ApiError> {
        let Some(item) = self.statement.item(&self.operands.values) else {
            return self.target(table);
        };
        let key = table.key_of_item(&item)?;
        item.validate()?;
        Ok(Target::Item(key, item))
    }

    /// Refuses a path that goes into a key of the table or of one of its indexes.
    pub(super) fn check_scalars(&self, table: &Table) -> Result<(), ApiError> {
        let values = &self.operands.values;
        self.statement
            .check_key_scalar("Key", &table.key_names(), values)?;
        let of_indexes = index::index_key_names(table);
        self.statement.check_key_scalar("IndexKey", &of_indexes, values)?;
        Ok(())
    }

    /// What an INSERT, UPDATE, DELETE or EXISTS asks of which item, and the update that it makes.
    pub(super) fn wanted(
        &self,
        table: &Table,
        target: Target,
    ) -> Result<(PrimaryKey, Write, Option<Update>), ApiError> {
        let names = table.key_names();
        self.check_scalars(table)?;
        let returning = self.statement.returning();
        let returns = Returns {
            old: returning.is_some_and(|returning| !returning.new),
            new: returning.is_some_and(|returning| returning.new),
            refused: self.returns_refused,
            collection: false,
        };
        let mut update = None;
        let (key, action, condition) = match target {
            Target::Item(key, item) => {
                let item_bytes = u32::try_from(item.size()).expect("item sizes are limited");
                let item = ItemBytes::from_item(&item).into_vec();
                // Before it is known whether the item is there, as for a put.
                check_keys(table.definition(), None, stored_view(&item))?;
                let absent = self.condition_of(ParsedCondition::absent(names[0]));
                (key, Action::Put { item, item_bytes }, Some(absent))
            }
            Target::Key(key) if self.statement.kind() == StatementKind::Exists => {
                (primary(key), Action::Check, self.condition())
            }
            Target::Key(key) if self.statement.kind() == StatementKind::Delete => {
                let clause = self.statement.condition().filter(|_| !key.alone);
                let condition = clause.map(|clause| self.condition_of(clause.or_absent(names[0])));
                (primary(key), Action::Delete, condition)
            }
            Target::Key(key) => {
                let changed = self.update(table, &key)?;
                update = Some(changed.clone());
                (primary(key), Action::Update(Box::new(changed)), self.condition())
            }
        };
        let write = Write {
            action,
            condition,
            returns: Returns {
                // What an INSERT meets is not given back.
                refused: returns.refused && self.statement.kind() != StatementKind::Insert,
                ..returns
            },
        };
        Ok((key, write, update))
    }

    /// Carries out an INSERT, UPDATE or DELETE.
    pub(super) async fn write<R: Runtime>(
        &self,
        service: &Service<R>,
        table: &Table,
        target: Target,
    ) -> Result<Done, ApiError> {
        let (key, write, update) = self.wanted(table, target)?;
        let written = service.write(table, &key, write).await;
        let written = written.map_err(|error| {
            if self.statement.kind() == StatementKind::Insert && error.kind == CONDITIONAL_CHECK_FAILED {
                duplicate()
            } else {
                error
            }
        })?;
        Ok(Done {
            written,
            returning: self.statement.returning(),
            update,
        })
    }

    /// What SET and REMOVE make of the item of `key`.
    fn update(&self, table: &Table, key: &Key) -> Result<Update, ApiError> {
        let names = table.key_names();
        let values = std::iter::once(&key.partition).chain(&key.sort);
        let attributes = names.iter().zip(values).map(|(name, value)| Attribute {
            name: (*name).to_owned(),
            value: value.to_value(),
        });
        let parsed = self.statement.update().expect("the statement is an UPDATE");
        let parts = (Arc::clone(parsed), Arc::clone(&self.operands));
        let update = Update::new(Some(parts), Item::from_attributes(attributes.collect()));
        if let Some(bound) = update.bound() {
            bound.check_not_on_key(&names)?;
            bound.check_key_scalar("Key", &names)?;
            bound.check_key_scalar("IndexKey", &index::index_key_names(table))?;
        }
        Ok(update)
    }
}

/// What a write is about.
pub(super) enum Target {
    Key(Key),
    /// An INSERT's item, which is valid.
    Item(PrimaryKey, Item),
}

impl Target {
    pub(super) fn key(&self) -> PrimaryKey {
        match self {
            Target::Key(key) => primary(key.clone()),
            Target::Item(key, _) => key.clone(),
        }
    }
}

/// An INSERT met an item.
pub(super) fn duplicate() -> ApiError {
    ApiError::new(DUPLICATE_ITEM, "Duplicate primary key exists in table")
}

pub(super) fn primary(key: Key) -> PrimaryKey {
    PrimaryKey {
        partition: key.partition,
        sort: key.sort,
    }
}

pub(super) async fn execute_statement<R: Runtime>(
    service: &Service<R>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let mut request = WrittenStatement::default();
    let (mut token, mut capacity, mut limit): (Text<'_>, Text<'_>, _) = (None, None, None);
    let unsupported = decode::members(body, |name, reader| match name {
        "NextToken" => decode::text(reader, &mut token),
        "Limit" => decode::integer(reader, &mut limit),
        "ReturnConsumedCapacity" => decode::text(reader, &mut capacity),
        _ => request.member(name, reader),
    })?;
    let mut constraints = Constraints::new();
    request.check_on_failure("", &mut constraints);
    constraints.at_least(limit, "limit", 1);
    request.check_statement("", &mut constraints);
    constraints.one_of(
        capacity.as_deref(),
        "returnConsumedCapacity",
        &ReturnCapacity::ALLOWED,
    );
    check_token(token.as_deref(), &mut constraints);
    request.check_parameters("", &mut constraints);
    constraints.finish()?;
    unsupported.check()?;

    let wanted = ReturnCapacity::parse(capacity.as_deref());
    let prepared = request.prepare(service)?;
    prepared.statement.check_alone()?;
    if prepared.statement.kind() != StatementKind::Select {
        if token.is_some() {
            return Err(ApiError::validation(
                "NextToken is only valid on a SELECT statement",
            ));
        }
        let table = prepared.table(service)?;
        let target = prepared.target(&table)?;
        let done = prepared.write(service, &table, target).await?;
        let mut members = Members::begin(out);
        let list = members.member("Items");
        list.push(b'[');
        done.write_item(list);
        list.push(b']');
        members.consumed(wanted, &table.definition().name, &done.consumed(&table));
        members.end();
        return Ok(());
    }
    let table = prepared.table(service)?;
    let start = token.as_deref().map(Token::decode).transpose()?;
    let limit = limit.map(i64::unsigned_abs);
    let index = prepared.index(&table)?;
    let selected = partiql_select::select(service, &table, index, &prepared, limit, start).await?;
    respond(out, &prepared, &table, index, &selected, wanted);
    Ok(())
}

fn check_token(token: Option<&str>, constraints: &mut Constraints) {
    match token.map(str::len) {
        Some(0) => constraints.add(
            "",
            "nextToken",
            "Member must have length greater than or equal to 1",
        ),
        Some(length) if length > TOKEN_BYTES_MAX => {
            let constraint = format!("Member must have length less than or equal to {TOKEN_BYTES_MAX}");
            constraints.add(token.unwrap_or_default(), "nextToken", &constraint);
        }
        _ => {}
    }
}

fn respond(
    out: &mut Vec<u8>,
    prepared: &Prepared,
    table: &Table,
    index: Option<&IndexDefinition>,
    selected: &Selected,
    wanted: ReturnCapacity,
) {
    let mut members = Members::begin(out);
    let list = members.member("Items");
    list.push(b'[');
    for (place, item) in selected.items.iter().enumerate() {
        if place > 0 {
            list.push(b',');
        }
        prepared.write_selected(list, item.view());
    }
    list.push(b']');
    if let Some(token) = &selected.token {
        members.string("NextToken", &token.encode());
    }
    let consumed = match index {
        None => Consumed::of_table(Capacity::of_read(selected.scanned_bytes, prepared.consistent)),
        Some(index) => {
            let page = Page {
                scanned_bytes: selected.scanned_bytes,
                fetched_capacity: selected.fetched_capacity,
                ..Page::default()
            };
            index::consumed(index, &page, prepared.consistent)
        }
    };
    members.consumed(wanted, &table.definition().name, &consumed);
    members.end();
}

impl Prepared {
    /// Appends what a SELECT gives of an item.
    pub(super) fn write_selected(&self, out: &mut Vec<u8>, item: cairn_item::ItemView<'_>) {
        match self.statement.list() {
            Some(list) => list.write_json(out, item),
            None => write_item_view(out, item),
        }
    }
}
