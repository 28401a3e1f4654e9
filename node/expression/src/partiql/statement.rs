//! Statements, from their first word to their last.

use std::sync::Arc;

use super::error::StatementError;
use super::expression::UNSUPPORTED_TOKEN;
use super::lexer::Kind;
use super::parser::{Parsed, Parser};
use super::{Action, OrderTerm, Returning, SelectList, SetCall, Statement};
use crate::condition::Condition;
use crate::error::Parameter;
use crate::projection::Projection;
use crate::tree::{Node, PathId, Step, Tree};
use crate::update::{Action as UpdateAction, ActionKind, Update};

/// Longest statement in characters.
pub const STATEMENT_CHARACTERS_MAX: usize = 8192;

const NO_SIMPLE_PATH: &str = "Expected identifier for simple path";
const LEFT_OVER: &str = "Unexpected token after expression";
const ALIAS: &str = "Aliasing is not supported";
const EXISTS_OTHER: &str = "EXISTS takes SELECT * of a table with a WHERE clause";
const SINGLE_TABLE: &str = "Only select from a single table or index is supported.";

/// A statement without what the parser has gathered.
struct Body {
    table: String,
    index: Option<String>,
    action: Action,
    condition: Option<Condition>,
    returning: Option<Returning>,
}

pub(super) fn parse(text: &str) -> Parsed<Statement> {
    let mut parser = Parser::new(text)?;
    let body = parser.statement()?;
    if parser.take(";") {
        if parser.token().kind != Kind::End {
            return Err(parser.syntax("Unexpected token after semicolon. (Only one query is allowed.)"));
        }
    } else if parser.token().kind != Kind::End {
        return Err(parser.syntax(LEFT_OVER));
    }
    let (parameters, operands) = parser.finish()?;
    Ok(Statement {
        table: body.table,
        index: body.index,
        action: body.action,
        condition: body.condition.map(Arc::new),
        operands,
        parameters,
        returning: body.returning,
    })
}

impl Parser<'_> {
    fn statement(&mut self) -> Parsed<Body> {
        if self.take_word("SELECT") {
            self.select()
        } else if self.take_word("INSERT") {
            self.insert()
        } else if self.take_word("UPDATE") {
            self.update()
        } else if self.take_word("DELETE") {
            self.delete()
        } else if self.take_word("FROM") {
            self.from()
        } else if self.is_word("EXISTS") && self.is_then("(") {
            self.exists()
        } else {
            Err(self.no_statement())
        }
    }

    /// Whatever else there is, DynamoDB reads as an expression, which it does not carry out.
    fn no_statement(&mut self) -> StatementError {
        let start = self.span();
        if self.is_word("SET") || self.is_word("REMOVE") {
            return StatementError::refused(SINGLE_TABLE, Some(start));
        }
        let what = if self.is_operand() {
            match self.shown() {
                "?" => "Parameter",
                "[" => "List",
                "{" => "Struct",
                "<<" => "Bag",
                _ => "Lit",
            }
        } else if self.is_name() {
            "Id"
        } else {
            return self.no_term();
        };
        let read = if what == "Id" {
            self.path().map(|(path, _)| self.tree.path(path).len() > 1)
        } else {
            self.operand().map(|_| false)
        };
        match read {
            Err(error) => error,
            Ok(_) if self.token().kind != Kind::End => self.syntax(LEFT_OVER),
            Ok(longer) => {
                let what = if longer { "Path" } else { what };
                StatementError::refused(format!("Unsupported operation: {what}"), Some(start))
            }
        }
    }

    /// The name of a table, and of an index of it, where there is no alias for them.
    fn target(&mut self) -> Parsed<(String, Option<String>)> {
        let table = self.target_name()?;
        let mut index = None;
        if self.take(".") {
            index = Some(self.target_name()?);
            if self.is(".") {
                let message = "A path may contain at most 2 components in the FROM clause";
                return Err(StatementError::refused(message, Some(self.span())));
            }
        }
        let clause = ["LIMIT", "GROUP", "HAVING"];
        let alias = self.is_word("AS") || self.is_name();
        if alias && !clause.iter().any(|word| self.is_word(word)) {
            return Err(StatementError::refused(ALIAS, Some(self.span())));
        }
        Ok((table, index))
    }

    fn target_name(&mut self) -> Parsed<String> {
        let span = self.span();
        let name = self.name()?;
        if name.is_empty() {
            let message = "Path component cannot be an empty string";
            return Err(StatementError::refused(message, Some(span)));
        }
        Ok(name)
    }

    /// The WHERE clause, if there is one.
    fn filter(&mut self) -> Parsed<Option<Condition>> {
        if !self.take_word("WHERE") {
            return Ok(None);
        }
        let root = self.condition()?;
        let tree = self.take_tree();
        Ok(Some(Condition::new(Parameter::Condition, tree, root)))
    }

    fn select(&mut self) -> Parsed<Body> {
        if self.at_end() {
            return Err(self.syntax("Unexpected term"));
        }
        for word in ["DISTINCT", "ALL"] {
            if self.is_word(word) && !self.is_then(",") && !self.is_word_then("FROM") {
                let message = format!("{UNSUPPORTED_TOKEN}: {word}");
                return Err(StatementError::refused(message, Some(self.span())));
            }
        }
        if self.is_word("VALUE") || self.is_word("PIVOT") && self.is_kind_then(Kind::Word) {
            let message = "Select projection doesn't support value or pivot keywords";
            return Err(StatementError::refused(message, Some(self.span())));
        }
        if self.is_word("FROM") {
            return Err(self.syntax(
                "Expected identifier or an expression but found unexpected keyword 'from' in a select list.",
            ));
        }
        let list = if self.take("*") {
            None
        } else {
            Some(Box::new(self.select_list()?))
        };
        self.expect_word("FROM", LEFT_OVER)?;
        let (table, index) = self.target()?;
        if self.is(",") {
            return Err(StatementError::refused(SINGLE_TABLE, Some(self.span())));
        }
        let condition = self.filter()?;
        let mut order = Vec::new();
        if self.take_word("ORDER") {
            self.expect_word("BY", "Expected BY")?;
            order = self.order()?;
        }
        self.no_other_clause()?;
        Ok(Body {
            table,
            index,
            action: Action::Select { list, order },
            condition,
            returning: None,
        })
    }

    /// Clauses of PartiQL that DynamoDB does not have.
    fn no_other_clause(&mut self) -> Parsed<()> {
        for (word, name) in [("GROUP", "GROUP BY"), ("HAVING", "HAVING")] {
            if self.is_word(word) {
                let message = format!("Unsupported clause: {name}");
                return Err(StatementError::refused(message, Some(self.span())));
            }
        }
        if self.is_word("LIMIT") || self.is_word("OFFSET") {
            let word = self.shown().to_ascii_uppercase();
            self.advance();
            return Err(self.refused_at(&format!("Unsupported clause: {word}"), self.span()));
        }
        Ok(())
    }

    fn select_list(&mut self) -> Parsed<SelectList> {
        let mut ids = Vec::new();
        let mut spans = Vec::new();
        loop {
            if self.is_operand() || self.is_name() && self.is_then("(") {
                return Err(self.refused_at("Unexpected path component", self.span()));
            }
            let (id, span) = self.path()?;
            ids.push(id);
            spans.push(span);
            if self.is_word("AS") || self.is_name() {
                return Err(StatementError::refused(ALIAS, Some(self.span())));
            }
            if !self.take(",") {
                break;
            }
        }
        let paths = self.take_tree();
        let names: Vec<String> = ids.iter().map(|id| answer_name(&paths, *id)).collect();
        let mut seen = std::collections::BTreeSet::new();
        if let Some(place) = names.iter().position(|name| !seen.insert(name)) {
            let message = format!("Duplicate identifiers in select clause: {}", names[place]);
            self.note(message, spans[place]);
        }
        Ok(SelectList {
            projection: projection(&paths, &ids),
            paths,
            ids,
            names,
        })
    }

    fn order(&mut self) -> Parsed<Vec<OrderTerm>> {
        let mut terms = Vec::new();
        loop {
            let (span, token) = (self.span(), self.token());
            let (name, found) = if token.kind == Kind::Text {
                self.advance();
                let text = self.unquoted(token);
                (text.clone(), Some(text))
            } else {
                let (path, _) = self.path()?;
                match self.tree.path(path) {
                    [Step::Name(name)] => (name.to_string(), None),
                    _ => (String::new(), Some("PATH".to_owned())),
                }
            };
            let refusal = found.map(|found| {
                let message =
                    format!("Argument to ORDER BY must be of type VariableReference. Type: {found}");
                self.refused_at(&message, span)
            });
            let descending = self.take_word("DESC");
            if !descending {
                self.take_word("ASC");
            }
            if self.take_word("NULLS") && !self.take_word("FIRST") && !self.take_word("LAST") {
                return Err(self.syntax("Expected FIRST or LAST after NULLS"));
            }
            terms.push(OrderTerm {
                name,
                descending,
                refusal,
            });
            if !self.take(",") {
                self.take_tree();
                return Ok(terms);
            }
        }
    }

    /// `EXISTS(SELECT * FROM table WHERE ..)`
    fn exists(&mut self) -> Parsed<Body> {
        self.advance();
        self.advance();
        let span = self.span();
        self.expect_word("SELECT", "Unexpected term")?;
        let body = self.select()?;
        self.expect(")", "Expected RIGHT_PAREN")?;
        if body.index.is_some()
            || !matches!(&body.action, Action::Select { list: None, order } if order.is_empty())
        {
            return Err(StatementError::refused(EXISTS_OTHER, Some(span)));
        }
        Ok(Body {
            action: Action::Exists,
            ..body
        })
    }

    fn insert(&mut self) -> Parsed<Body> {
        self.expect_word("INTO", "Unexpected keyword")?;
        if !self.is_name() {
            return Err(self.syntax(NO_SIMPLE_PATH));
        }
        let span = self.span();
        let table = self.target_name()?;
        if self.is(".") {
            let message = "FROM clause may only contain a single table name in data manipulation statements";
            return Err(self.refused_at(message, span));
        }
        if self.is_word("VALUES") {
            return Err(StatementError::refused(
                "Unsupported operation: InsertOp",
                Some(self.span()),
            ));
        }
        self.expect_word("VALUE", LEFT_OVER)?;
        if self.is_operand() && !self.is("{") {
            let message = "Unsupported format in item expression. Please use struct format {...} to express item \
                           values for insert statement.";
            return Err(self.refused_at(message, self.span()));
        }
        let mut names = Vec::new();
        self.members(&mut String::new(), |parser, _, name, _| {
            if parser.is_word("MISSING") || !parser.is_operand() {
                // A literal says what is wrong with it.
                parser.constant()?;
                return Ok(());
            }
            let (operand, _) = parser.operand()?;
            parser.operands.push(operand);
            names.push(name);
            Ok(())
        })?;
        if self.is_word("RETURNING") {
            let message = "RETURNING is not supported in INSERT";
            return Err(StatementError::refused(message, Some(self.span())));
        }
        Ok(Body {
            table,
            index: None,
            action: Action::Insert(names),
            condition: None,
            returning: None,
        })
    }

    fn update(&mut self) -> Parsed<Body> {
        if !self.is_name() {
            return Err(self.syntax(NO_SIMPLE_PATH));
        }
        let (table, index) = self.target()?;
        let action = self.changes()?;
        let Some(action) = action else {
            return Err(self.syntax("Expected data manipulation"));
        };
        let condition = self.filter()?;
        let returning = self.returning()?;
        Ok(Body {
            table,
            index,
            action,
            condition,
            returning,
        })
    }

    /// An UPDATE that begins with its table.
    fn from(&mut self) -> Parsed<Body> {
        let (table, index) = self.target()?;
        let condition = self.filter()?;
        let Some(action) = self.changes()? else {
            return Err(self.syntax("Expected data manipulation"));
        };
        let returning = self.returning()?;
        Ok(Body {
            table,
            index,
            action,
            condition,
            returning,
        })
    }

    /// Clauses of SET and REMOVE, of which there may be several; none when there is none.
    fn changes(&mut self) -> Parsed<Option<Action>> {
        let mut actions = Vec::new();
        let mut set_calls = Vec::new();
        loop {
            if self.take_word("SET") {
                loop {
                    let action = self.set(&mut set_calls)?;
                    actions.push(action);
                    if !self.take(",") {
                        break;
                    }
                }
            } else if self.take_word("REMOVE") {
                let path = self.changed_path()?;
                actions.push(UpdateAction {
                    kind: ActionKind::Remove,
                    path,
                    value: None,
                    first_node: self.node_count(),
                });
            } else {
                break;
            }
        }
        if actions.is_empty() {
            return Ok(None);
        }
        let tree = self.take_tree();
        let paths: Vec<PathId> = actions.iter().map(|action| action.path).collect();
        Ok(Some(Action::Update {
            paths: Box::new(projection(&tree, &paths)),
            update: Arc::new(Update::new(tree, actions, false)),
            set_calls,
        }))
    }

    fn changed_path(&mut self) -> Parsed<PathId> {
        if !self.is_name() {
            return Err(self.syntax(NO_SIMPLE_PATH));
        }
        Ok(self.path()?.0)
    }

    fn node_count(&self) -> u16 {
        u16::try_from(self.tree.nodes.len()).expect("nodes are numbered by it")
    }

    fn set(&mut self, set_calls: &mut Vec<SetCall>) -> Parsed<UpdateAction> {
        let path = self.changed_path()?;
        self.expect("=", "Expected '='")?;
        let first_node = self.node_count();
        let set_function = [("SET_ADD", ActionKind::Add), ("SET_DELETE", ActionKind::Delete)];
        let set_function = set_function.into_iter().find(|(name, _)| self.is_word(name));
        let (kind, value) = match set_function {
            Some((name, kind)) if self.is_then("(") => (kind, self.set_call_on(name, path, set_calls)?),
            _ => (ActionKind::Set, self.set_value()?),
        };
        Ok(UpdateAction {
            kind,
            path,
            value: Some(value),
            first_node,
        })
    }

    /// `set_add(path, set)` or `set_delete(path, set)`, assigned to `target`.
    fn set_call_on(&mut self, name: &str, target: PathId, set_calls: &mut Vec<SetCall>) -> Parsed<u16> {
        let call = self.advance().span;
        self.advance();
        let mut path = None;
        let mut value: Option<(u16, usize)> = None;
        let mut first = call;
        let mut count = 0;
        while !self.is(")") {
            count += 1;
            if count == 1 {
                first = self.span();
            }
            match count {
                1 if self.is_name() => path = Some(self.path()?.0),
                _ if self.is_operand() => {
                    let (operand, span) = self.operand()?;
                    let number = self.operands.len();
                    let node = self.add_operand(operand, span);
                    if count == 2 {
                        value = Some((node, number));
                    }
                }
                _ => {
                    self.path()?;
                }
            }
            if !self.take(",") {
                break;
            }
        }
        self.expect(")", "Expected RIGHT_PAREN")?;
        let same = path.is_some_and(|path| self.tree.path(path) == self.tree.path(target));
        let wants_set = format!("The second argument to {name} must be a value with type SET");
        if count != 2 {
            self.note_at(&format!("{name} must have exactly two arguments"), call);
        } else if !same {
            let message = format!("The first argument to {name} must equal the assignment value");
            self.note_at(&message, call);
        } else if value.is_none() {
            self.note_at(&wants_set, first);
        }
        // Without a value the statement is refused.
        let (node, operand) = value.unwrap_or_else(|| (self.add_text("", call), 0));
        set_calls.push(SetCall {
            operand,
            refusal: self.refused_at(&wants_set, first),
        });
        Ok(node)
    }

    fn delete(&mut self) -> Parsed<Body> {
        self.expect_word("FROM", "Expected FROM after DELETE")?;
        if !self.is_name() {
            return Err(self.syntax(NO_SIMPLE_PATH));
        }
        let (table, index) = self.target()?;
        let condition = self.filter()?;
        let returning = self.returning()?;
        Ok(Body {
            table,
            index,
            action: Action::Delete,
            condition,
            returning,
        })
    }

    fn returning(&mut self) -> Parsed<Option<Returning>> {
        if !self.take_word("RETURNING") {
            return Ok(None);
        }
        let modified = self.take_word("MODIFIED");
        if !modified {
            self.expect_word("ALL", "Expected ALL or MODIFIED in RETURNING clause")?;
        }
        let new = self.take_word("NEW");
        if !new {
            self.expect_word("OLD", "Expected OLD or NEW in RETURNING clause")?;
        }
        if !self.take("*") {
            let message = "Expected '*' after ( MODIFIED | ALL ) ( NEW | OLD ) in RETURNING clause";
            return Err(StatementError::refused(message, Some(self.span())));
        }
        Ok(Some(Returning { new, modified }))
    }
}

/// A projection on the paths, to find those that meet: of two DynamoDB names the later one first, unlike in expressions.
fn projection(tree: &Tree, paths: &[PathId]) -> Projection {
    Projection::from_legacy(tree.clone(), paths.iter().rev().copied().collect())
}

/// What a path of a SELECT is called in the answer.
fn answer_name(tree: &Tree, id: PathId) -> String {
    let steps = tree.path(id);
    let last = steps.iter().rposition(|step| matches!(step, Step::Name(_)));
    let mut name = String::new();
    for step in &steps[last.unwrap_or(0)..] {
        match step {
            Step::Name(text) => name.push_str(text),
            Step::Index(index) => name.push_str(&format!("[{index}]")),
            Step::Placeholder(_) => {}
        }
    }
    name
}

impl Condition {
    /// Whether a node of the tree is a path of this one name.
    pub(super) fn is_name(&self, node: u16, name: &str) -> bool {
        let tree = self.tree();
        match tree.nodes[usize::from(node)] {
            Node::Path(path) => matches!(tree.path(path), [Step::Name(step)] if **step == *name),
            _ => false,
        }
    }
}

const _: () = assert!(
    // A character takes four bytes at most, and spans are 16 bits.
    STATEMENT_CHARACTERS_MAX * 4 < u16::MAX as usize
);
