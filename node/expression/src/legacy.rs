//! The parameters that expressions replaced: `ScanFilter`, `QueryFilter`, `Expected`, `AttributeUpdates`, `AttributesToGet`.
//!
//! They are checked by rules and in words of their own and then become the same trees that expressions are parsed to, which
//! are bound without the checks that belong to expressions. Attributes are always top-level ones, whatever their names
//! contain. `KeyConditions` needs none of this: the table's key says everything about it.

use cairn_item::Value;

use crate::condition::Condition;
use crate::error::{ExpressionError, Parameter, Problem, Span};
use crate::placeholder::Values;
use crate::projection::Projection;
use crate::tree::{Node, NodeId, Operator, PathId, Step, Tree};
use crate::update::{Action, ActionKind, Update};

/// Conditions of one parameter, and values of all of them, together. An expression of 4 KB has room for about half as many,
/// and every item that is looked at may be compared with each of them.
pub const CONDITION_PARTS_MAX: usize = 4096;
/// Members of one `AttributeUpdates`. A tree has room for four times as many.
pub const ATTRIBUTE_UPDATES_MAX: usize = 16_384;

const _: () = assert!(
    5 * CONDITION_PARTS_MAX <= u16::MAX as usize,
    "a condition makes five nodes and operands at most, besides those of its values"
);
const _: () = assert!(
    ATTRIBUTE_UPDATES_MAX <= u16::MAX as usize,
    "a member makes a path and a node"
);

/// A translated parameter and the values to bind it with; it has no placeholders of names.
#[derive(Debug, Clone)]
pub struct Translated<T> {
    /// As if parsed.
    pub expression: T,
    /// What to bind it with.
    pub values: Values,
}

/// A `ComparisonOperator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are DynamoDB's names")]
pub enum Comparison {
    In,
    Null,
    Between,
    Lt,
    NotContains,
    Eq,
    Gt,
    NotNull,
    Ne,
    Le,
    BeginsWith,
    Ge,
    Contains,
}

impl Comparison {
    /// All of them, in the order in which DynamoDB's messages list them.
    pub const ALL: [Comparison; 13] = [
        Comparison::In,
        Comparison::Null,
        Comparison::Between,
        Comparison::Lt,
        Comparison::NotContains,
        Comparison::Eq,
        Comparison::Gt,
        Comparison::NotNull,
        Comparison::Ne,
        Comparison::Le,
        Comparison::BeginsWith,
        Comparison::Ge,
        Comparison::Contains,
    ];

    /// DynamoDB's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Comparison::In => "IN",
            Comparison::Null => "NULL",
            Comparison::Between => "BETWEEN",
            Comparison::Lt => "LT",
            Comparison::NotContains => "NOT_CONTAINS",
            Comparison::Eq => "EQ",
            Comparison::Gt => "GT",
            Comparison::NotNull => "NOT_NULL",
            Comparison::Ne => "NE",
            Comparison::Le => "LE",
            Comparison::BeginsWith => "BEGINS_WITH",
            Comparison::Ge => "GE",
            Comparison::Contains => "CONTAINS",
        }
    }

    /// The operator of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Comparison> {
        Comparison::ALL
            .into_iter()
            .find(|comparison| comparison.name() == name)
    }

    fn takes(self, count: usize) -> bool {
        match self {
            Comparison::Null | Comparison::NotNull => count == 0,
            Comparison::Between => count == 2,
            Comparison::In => count >= 1,
            _ => count == 1,
        }
    }

    fn supports(self, value: &Value) -> bool {
        match self {
            Comparison::Eq | Comparison::Ne | Comparison::Null | Comparison::NotNull => true,
            Comparison::BeginsWith => matches!(value, Value::S(_) | Value::B(_)),
            Comparison::Contains | Comparison::NotContains => {
                matches!(
                    value,
                    Value::S(_) | Value::N(_) | Value::B(_) | Value::Bool(_) | Value::Null
                )
            }
            _ => matches!(value, Value::S(_) | Value::N(_) | Value::B(_)),
        }
    }

    /// Checks the arguments.
    fn check(self, values: &[Value]) -> Result<(), ExpressionError> {
        if !self.takes(values.len()) {
            return refuse(format!(
                "Invalid number of argument(s) for the {} ComparisonOperator",
                self.name()
            ));
        }
        let checked = if self == Comparison::In {
            values
        } else {
            &values[..values.len().min(1)]
        };
        if let Some(value) = checked.iter().find(|value| !self.supports(value)) {
            return refuse(format!(
                "ComparisonOperator {} is not valid for {} AttributeValue type",
                self.name(),
                value.type_name()
            ));
        }
        if values
            .windows(2)
            .any(|pair| pair[0].type_name() != pair[1].type_name())
        {
            return refuse("AttributeValues inside AttributeValueList must be of same type".to_owned());
        }
        let reversed = match (self, values) {
            (Comparison::Between, [Value::S(lower), Value::S(upper)]) => lower > upper,
            (Comparison::Between, [Value::N(lower), Value::N(upper)]) => lower > upper,
            (Comparison::Between, [Value::B(lower), Value::B(upper)]) => lower > upper,
            _ => false,
        };
        if reversed {
            return Err(ExpressionError::bare(Problem::LegacyBare(
                "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
                    .to_owned(),
            )));
        }
        Ok(())
    }
}

fn refuse<T>(message: String) -> Result<T, ExpressionError> {
    Err(ExpressionError::bare(Problem::Legacy(message)))
}

/// A member of `ScanFilter` or `QueryFilter`.
#[derive(Debug, Clone)]
pub struct FilterCondition {
    /// Name of the attribute.
    pub attribute: String,
    /// How it is compared.
    pub comparison: Comparison,
    /// `AttributeValueList`
    pub values: Vec<Value>,
}

/// A member of `Expected`.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Name of the attribute.
    pub attribute: String,
    /// `Value`
    pub value: Option<Value>,
    /// `Exists`
    pub exists: Option<bool>,
    /// `ComparisonOperator`
    pub comparison: Option<Comparison>,
    /// `AttributeValueList`
    pub values: Option<Vec<Value>>,
}

/// `ConditionalOperator`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conditional {
    /// All conditions must be true.
    #[default]
    And,
    /// One condition must be true.
    Or,
}

/// Translates `ScanFilter` or `QueryFilter`; `None` when it is empty.
///
/// # Errors
/// There are too many conditions and values; else the first condition with arguments that do not fit its operator.
pub fn filter(
    conditions: Vec<FilterCondition>,
    conditional: Conditional,
) -> Result<Option<Translated<Condition>>, ExpressionError> {
    check_parts(conditions.iter().map(|condition| condition.values.len()))?;
    for condition in &conditions {
        condition.comparison.check(&condition.values)?;
    }
    Ok(translate(Parameter::Filter, conditions, conditional))
}

/// Translates `Expected`; `None` when it is empty.
///
/// # Errors
/// There are too many members and values; else the first member that contradicts itself or has arguments that do not fit
/// its operator.
pub fn expected(
    members: Vec<Expected>,
    conditional: Conditional,
) -> Result<Option<Translated<Condition>>, ExpressionError> {
    let values = |member: &Expected| member.values.as_ref().map_or(1, Vec::len);
    check_parts(members.iter().map(values))?;
    let conditions = members
        .into_iter()
        .map(Expected::check)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(translate(Parameter::Condition, conditions, conditional))
}

/// Checks conditions of these numbers of values before anything is made of them.
fn check_parts(values: impl Iterator<Item = usize>) -> Result<(), ExpressionError> {
    let parts: usize = values.map(|values| 1 + values).sum();
    if parts > CONDITION_PARTS_MAX {
        return refuse(format!(
            "The conditions have too many parts, the maximum is {CONDITION_PARTS_MAX} conditions and values together"
        ));
    }
    Ok(())
}

impl Expected {
    fn check(self) -> Result<FilterCondition, ExpressionError> {
        let Expected {
            attribute,
            value,
            exists,
            comparison,
            values,
        } = self;
        let refuse = |message: &str| refuse(format!("{message} for Attribute: {attribute}"));
        if exists.is_some() && comparison.is_some() {
            return refuse("Exists and ComparisonOperator cannot be used together");
        }
        if value.is_some() && values.is_some() {
            return refuse("Value and AttributeValueList cannot be used together");
        }
        let (comparison, values) = match (comparison, exists, value, values) {
            (None, _, _, Some(_)) => {
                return refuse("AttributeValueList can only be used with a ComparisonOperator");
            }
            (Some(comparison), _, None, None)
                if !matches!(comparison, Comparison::Null | Comparison::NotNull) =>
            {
                return refuse(&format!(
                    "Value or AttributeValueList must be used with ComparisonOperator: {}",
                    comparison.name()
                ));
            }
            (Some(comparison), _, value, values) => {
                let values = values.unwrap_or_else(|| value.into_iter().collect());
                comparison.check(&values)?;
                (comparison, values)
            }
            (None, Some(false), Some(_), None) => {
                return refuse("Value cannot be used when Exists is false");
            }
            (None, Some(false), None, None) => (Comparison::Null, Vec::new()),
            (None, _, Some(value), None) => (Comparison::Eq, vec![value]),
            (None, Some(true), None, None) => return refuse("Value must be provided when Exists is true"),
            (None, None, None, None) => return refuse("Value must be provided when Exists is null"),
        };
        Ok(FilterCondition {
            attribute,
            comparison,
            values,
        })
    }
}

/// Builds a tree whose values are numbered as they come.
#[derive(Default)]
struct Builder {
    tree: Tree,
    values: Vec<Value>,
}

impl Builder {
    fn path(&mut self, attribute: String) -> PathId {
        self.tree
            .add_path(vec![Step::Name(attribute.into())], Span::default())
    }

    fn operand(&mut self, attribute: String) -> NodeId {
        let path = self.path(attribute);
        self.tree.add_node(Node::Path(path), Span::default())
    }

    fn value(&mut self, value: Value) -> NodeId {
        let slot = self.tree.add_value(&Values::number(self.values.len()));
        self.values.push(value);
        self.tree.add_node(Node::Value(slot), Span::default())
    }

    fn operator(&mut self, operator: Operator, operands: &[NodeId]) -> NodeId {
        self.tree.add_operator(operator, operands, Span::default())
    }
}

fn translate(
    parameter: Parameter,
    conditions: Vec<FilterCondition>,
    conditional: Conditional,
) -> Option<Translated<Condition>> {
    let mut builder = Builder::default();
    let mut roots: Vec<NodeId> = Vec::with_capacity(conditions.len());
    for FilterCondition {
        attribute,
        comparison,
        values,
    } in conditions
    {
        let mut operands = vec![builder.operand(attribute)];
        operands.extend(values.into_iter().map(|value| builder.value(value)));
        let operator = match comparison {
            Comparison::In => Operator::In,
            Comparison::Null => Operator::AttributeNotExists,
            Comparison::NotNull => Operator::AttributeExists,
            Comparison::Between => Operator::Between,
            Comparison::Lt => Operator::Less,
            Comparison::Le => Operator::LessOrEqual,
            Comparison::Gt => Operator::Greater,
            Comparison::Ge => Operator::GreaterOrEqual,
            Comparison::Eq => Operator::Equal,
            Comparison::Ne => Operator::NotEqual,
            Comparison::BeginsWith => Operator::BeginsWith,
            Comparison::Contains | Comparison::NotContains => Operator::Contains,
        };
        let mut root = builder.operator(operator, &operands);
        if comparison == Comparison::NotContains {
            root = builder.operator(Operator::Not, &[root]);
        }
        roots.push(root);
    }
    let join = match conditional {
        Conditional::And => Operator::And,
        Conditional::Or => Operator::Or,
    };
    // In pairs, so that the tree stays shallow however many conditions there are.
    while roots.len() > 1 {
        roots = roots
            .chunks(2)
            .map(|pair| {
                if let [left, right] = *pair {
                    builder.operator(join, &[left, right])
                } else {
                    pair[0]
                }
            })
            .collect();
    }
    let root = *roots.first()?;
    let expression = Condition::from_legacy(parameter, builder.tree, root);
    Some(Translated {
        expression,
        values: Values::numbered(builder.values),
    })
}

/// `Action` of a member of `AttributeUpdates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpdateAction {
    /// Set the value.
    #[default]
    Put,
    /// Add to a number, set or list.
    Add,
    /// Remove the attribute, or members of a set.
    Delete,
}

/// A member of `AttributeUpdates`.
#[derive(Debug, Clone)]
pub struct AttributeUpdate {
    /// Name of the attribute.
    pub attribute: String,
    /// What is done to it.
    pub action: UpdateAction,
    /// `Value`
    pub value: Option<Value>,
}

/// Translates `AttributeUpdates`, whose members have different attributes. Unlike an expression, an update of this kind adds
/// to lists.
///
/// # Errors
/// There are too many members; else the first whose value does not fit its action.
pub fn attribute_updates(members: Vec<AttributeUpdate>) -> Result<Translated<Update>, ExpressionError> {
    if members.len() > ATTRIBUTE_UPDATES_MAX {
        return refuse(format!(
            "AttributeUpdates has too many members, the maximum is {ATTRIBUTE_UPDATES_MAX}"
        ));
    }
    let mut builder = Builder::default();
    let mut actions = Vec::with_capacity(members.len());
    for AttributeUpdate {
        attribute,
        action,
        value,
    } in members
    {
        let kind = match (action, &value) {
            (UpdateAction::Delete, None) => ActionKind::Remove,
            (_, None) => {
                return refuse(
                    "Only DELETE action is allowed when no attribute value is specified".to_owned(),
                );
            }
            (UpdateAction::Put, Some(_)) => ActionKind::Set,
            (UpdateAction::Delete, Some(Value::Ss(_) | Value::Ns(_) | Value::Bs(_))) => ActionKind::Delete,
            (UpdateAction::Delete, Some(value)) => {
                return refuse(format!(
                    "DELETE action with value is not supported for the type {}",
                    value.type_name()
                ));
            }
            (
                UpdateAction::Add,
                Some(Value::N(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_) | Value::L(_)),
            ) => ActionKind::Add,
            (UpdateAction::Add, Some(value)) => {
                return refuse(format!(
                    "ADD action is not supported for the type {}",
                    value.type_name()
                ));
            }
        };
        let path = builder.path(attribute);
        let value = value.map(|value| builder.value(value));
        actions.push(Action {
            kind,
            path,
            value,
            first_node: value.unwrap_or(0),
        });
    }
    let expression = Update::from_legacy(builder.tree, actions);
    Ok(Translated {
        expression,
        values: Values::numbered(builder.values),
    })
}

/// Translates `AttributesToGet`, which is not empty.
///
/// # Errors
/// An attribute is named twice.
pub fn attributes_to_get(names: Vec<String>) -> Result<Projection, ExpressionError> {
    let mut builder = Builder::default();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!("Duplicate value in attribute name: {}", pair[0]));
    }
    let paths = names.into_iter().map(|name| builder.path(name)).collect();
    Ok(Projection::from_legacy(builder.tree, paths))
}
