//! PartiQL: statements that read and write items.
//!
//! - A statement is **parsed** from its text alone. Its WHERE clause becomes a [`Condition`], its SET and REMOVE clauses an
//!   [`Update`], the very trees that expressions become; there is no second evaluator.
//! - Literals and parameters are the operands of those trees, numbered in the order of the text. A statement is **bound** to a
//!   request's parameters by making [`Values`] of them all, which is where everything about them that needs no table is checked.
//! - With a table's key, [`Statement::plan`] says which keys a SELECT has to read, and [`Statement::key`] which item an UPDATE or
//!   DELETE writes.
//! - Printing a statement and parsing it again gives the same statement.
//! - Every refusal is a [`StatementError`] whose `Display` is DynamoDB's message.

mod error;
mod expression;
mod lexer;
mod literal;
mod parser;
mod plan;
mod print;
mod statement;

use std::sync::Arc;

use cairn_item::{Attribute, Item, ItemView, Value, json};

pub use error::StatementError;
pub use plan::{Key, Plan, Read, ReadOrder};
pub use statement::STATEMENT_CHARACTERS_MAX;

use crate::bind::Bound;
use crate::condition::{Condition, follow};
use crate::error::{Parameter, Span};
use crate::placeholder::{Names, Values};
use crate::projection::Projection;
use crate::tree::{Node, Operator, PathId, Step, Tree, Types};
use crate::update::Update;

/// A literal or a parameter.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Literal(Value),
    /// By its number from 0.
    Parameter(u16),
}

/// A parsed statement. It depends on the text alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    table: String,
    index: Option<String>,
    action: Action,
    condition: Option<Arc<Condition>>,
    /// In the order of the text.
    operands: Vec<Operand>,
    parameters: u16,
    returning: Option<Returning>,
}

/// What a statement does.
#[derive(Debug, Clone, PartialEq)]
enum Action {
    Select {
        /// None for `*`.
        list: Option<Box<SelectList>>,
        order: Vec<OrderTerm>,
    },
    /// Names of the attributes, whose values are the operands.
    Insert(Vec<String>),
    Update {
        update: Arc<Update>,
        /// The paths of its actions.
        paths: Box<Projection>,
        set_calls: Vec<SetCall>,
    },
    Delete,
    Exists,
}

/// The kinds of statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// Reads items.
    Select,
    /// Puts an item that must not exist.
    Insert,
    /// Changes an item that must exist.
    Update,
    /// Removes an item.
    Delete,
    /// Is satisfied by an item; only transactions carry it out.
    Exists,
}

/// What RETURNING asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returning {
    /// The item as it is after the statement, else as it was before.
    pub new: bool,
    /// Only the parts that the statement is about, else all of it.
    pub modified: bool,
}

impl std::fmt::Display for Returning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.modified { "MODIFIED" } else { "ALL" };
        let when = if self.new { "NEW" } else { "OLD" };
        write!(formatter, "RETURNING {what} {when} *")
    }
}

/// `set_add` or `set_delete`, whose second argument must be a set.
#[derive(Debug, Clone)]
struct SetCall {
    operand: usize,
    /// What is said when it is not.
    refusal: StatementError,
}

/// Where it stood does not matter.
impl PartialEq for SetCall {
    fn eq(&self, other: &SetCall) -> bool {
        self.operand == other.operand
    }
}

/// What ORDER BY names.
#[derive(Debug, Clone)]
struct OrderTerm {
    name: String,
    descending: bool,
    /// What is said of a term that is not a name.
    refusal: Option<StatementError>,
}

impl PartialEq for OrderTerm {
    fn eq(&self, other: &OrderTerm) -> bool {
        (&self.name, self.descending, self.refusal.is_some())
            == (&other.name, other.descending, other.refusal.is_some())
    }
}

/// The paths of a SELECT.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectList {
    projection: Projection,
    paths: Tree,
    ids: Vec<PathId>,
    /// What each is called in the answer: its last name and the indexes after it.
    names: Vec<String>,
}

impl SelectList {
    /// The attributes that its paths begin with, in the order of the text.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.ids
            .iter()
            .filter_map(|id| match self.paths.path(*id).first() {
                Some(Step::Name(name)) => Some(&**name),
                _ => None,
            })
    }

    /// Appends the parts of the item, as DynamoDB's JSON of an item.
    pub fn write_json(&self, out: &mut Vec<u8>, item: ItemView<'_>) {
        let names = Names::none();
        let bound = Bound::new(&self.paths, &names, None);
        out.push(b'{');
        let mut first = true;
        for (id, name) in self.ids.iter().zip(&self.names) {
            let Some(value) = follow(item, bound.places(*id)) else {
                continue;
            };
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            json::write_string(out, name);
            out.push(b':');
            json::write_value_view(out, value);
        }
        out.push(b'}');
    }
}

impl Statement {
    /// Reads the text.
    ///
    /// # Errors
    /// The text is no statement, or one that DynamoDB does not carry out.
    pub fn parse(text: &str) -> Result<Statement, StatementError> {
        statement::parse(text)
    }

    /// Name of the table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Name of the table's index, if it is about one.
    #[must_use]
    pub fn index(&self) -> Option<&str> {
        self.index.as_deref()
    }

    /// What it does.
    #[must_use]
    pub fn kind(&self) -> StatementKind {
        match self.action {
            Action::Select { .. } => StatementKind::Select,
            Action::Insert(_) => StatementKind::Insert,
            Action::Update { .. } => StatementKind::Update,
            Action::Delete => StatementKind::Delete,
            Action::Exists => StatementKind::Exists,
        }
    }

    /// The WHERE clause; its values are what [`Statement::bind`] makes.
    #[must_use]
    pub fn condition(&self) -> Option<&Arc<Condition>> {
        self.condition.as_ref()
    }

    /// SET and REMOVE of an UPDATE; its values are what [`Statement::bind`] makes.
    #[must_use]
    pub fn update(&self) -> Option<&Arc<Update>> {
        match &self.action {
            Action::Update { update, .. } => Some(update),
            _ => None,
        }
    }

    /// What a SELECT gives of each item; all of it when there is no list.
    #[must_use]
    pub fn list(&self) -> Option<&SelectList> {
        match &self.action {
            Action::Select { list, .. } => list.as_deref(),
            _ => None,
        }
    }

    /// What an UPDATE or DELETE gives back.
    #[must_use]
    pub fn returning(&self) -> Option<Returning> {
        self.returning
    }

    /// Refuses a statement that only transactions carry out.
    ///
    /// # Errors
    /// DynamoDB's words.
    pub fn check_alone(&self) -> Result<(), StatementError> {
        match self.action {
            Action::Exists => Err(StatementError::refused(
                "EXISTS can only be used in ExecuteTransaction write requests.",
                None,
            )),
            _ => Ok(()),
        }
    }

    /// Gives the statement its parameters and checks all that needs no table.
    ///
    /// # Errors
    /// There are too few parameters, an operand is of the wrong type, two paths meet, or a limit is exceeded.
    pub fn bind(&self, parameters: Vec<Value>) -> Result<Values, StatementError> {
        if usize::from(self.parameters) > parameters.len() {
            return Err(StatementError::refused(
                "Number of parameters in request and statement don't match.",
                None,
            ));
        }
        // Each parameter is an operand of its own.
        let mut parameters: Vec<Option<Value>> = parameters.into_iter().map(Some).collect();
        let operands = self.operands.iter().map(|operand| match operand {
            Operand::Literal(value) => value.clone(),
            Operand::Parameter(number) => parameters[usize::from(*number)]
                .take()
                .expect("parameters are numbered as they come"),
        });
        let values = Values::numbered(operands.collect());
        let names = Names::none();
        match &self.action {
            Action::Select { list: Some(list), .. } => {
                list.projection.bind(&names)?;
            }
            Action::Update {
                update,
                paths,
                set_calls,
            } => {
                for call in set_calls {
                    if !Types::SET.meets(Types::of(numbered(&values, call.operand))) {
                        return Err(call.refusal.clone());
                    }
                }
                paths.bind(&names)?;
                update.bind(&names, &values)?;
            }
            Action::Delete => self.check_returning()?,
            _ => {}
        }
        if let Some(condition) = &self.condition {
            condition.bind(&names, &values)?;
        }
        if self.index.is_some() && self.kind() != StatementKind::Select {
            return Err(StatementError::refused(
                "This operation is not supported on an index",
                None,
            ));
        }
        Ok(values)
    }

    fn check_returning(&self) -> Result<(), StatementError> {
        match self.returning {
            Some(returning) if returning.new || returning.modified => Err(StatementError::refused(
                format!(
                    "Invalid returning clause: {returning}. Only RETURNING ALL OLD * is allowed in DELETE statements."
                ),
                None,
            )),
            _ => Ok(()),
        }
    }

    /// The item of an INSERT, whose limits have not been checked; `values` are the statement's.
    #[must_use]
    pub fn item(&self, values: &Values) -> Option<Item> {
        let Action::Insert(names) = &self.action else {
            return None;
        };
        let attributes = names.iter().enumerate().map(|(number, name)| Attribute {
            name: name.clone(),
            value: numbered(values, number).clone(),
        });
        Some(Item::from_attributes(attributes.collect()))
    }

    /// Checks that no path of a read or a condition goes into an attribute of the key; `role` is `Key` or `IndexKey`.
    ///
    /// # Errors
    /// The first attribute that one goes into.
    pub fn check_key_scalar(
        &self,
        role: &'static str,
        key: &[&str],
        values: &Values,
    ) -> Result<(), StatementError> {
        let names = Names::none();
        if let Some(list) = self.list() {
            list.projection.bind(&names)?.check_key_scalar(role, key)?;
        }
        if let Some(condition) = &self.condition {
            condition.bind(&names, values)?.check_key_scalar(role, key)?;
        }
        Ok(())
    }
}

impl Condition {
    /// That there is no item: `attribute` is one of its key.
    #[must_use]
    pub fn absent(attribute: &str) -> Condition {
        let mut tree = Tree::default();
        let root = not_exists(&mut tree, attribute);
        Condition::from_legacy(Parameter::Condition, tree, root)
    }

    /// That there is no item, or that this is true of it: `attribute` is one of its key.
    #[must_use]
    pub fn or_absent(&self, attribute: &str) -> Condition {
        let (mut tree, root) = (self.tree().clone(), self.root());
        let absent = not_exists(&mut tree, attribute);
        let root = tree.add_operator(Operator::Or, &[absent, root], Span::default());
        Condition::from_legacy(Parameter::Condition, tree, root)
    }
}

fn not_exists(tree: &mut Tree, attribute: &str) -> u16 {
    let path = tree.add_path(vec![Step::Name(attribute.into())], Span::default());
    let path = tree.add_node(Node::Path(path), Span::default());
    tree.add_operator(Operator::AttributeNotExists, &[path], Span::default())
}

/// Operand `number` of a statement.
fn numbered(values: &Values, number: usize) -> &Value {
    values
        .use_of(&Values::number(number))
        .expect("the values are the statement's")
}
