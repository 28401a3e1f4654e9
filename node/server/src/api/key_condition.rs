//! Which items of a table a Query is about: its conditions against the table's keys.
//!
//! They come from `KeyConditionExpression`, which `cairn_expression` reads and resolves, or from `KeyConditions`, which is
//! what it replaced and is read and resolved here.

use cairn_expression::{KeyAttribute as SchemaAttribute, KeyClauses, KeySchema};
use cairn_item::json::Reader;
use cairn_item::{ItemError, KeyCondition, KeyValue, Value};

use super::ApiError;
use super::constraints::Constraints;
use super::decode::{self, Unsupported};
use crate::catalog::{KeyAttribute, Table};

/// An operator of `KeyConditions`, with DynamoDB's name for it and the number of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Between,
    BeginsWith,
    /// One that no key condition can have.
    NotIndexable,
}

/// All operators that DynamoDB knows.
const OPERATORS: [(&str, Operator, std::ops::RangeInclusive<usize>); 13] = [
    ("IN", Operator::NotIndexable, 1..=usize::MAX),
    ("NULL", Operator::NotIndexable, 0..=0),
    ("BETWEEN", Operator::Between, 2..=2),
    ("LT", Operator::Less, 1..=1),
    ("NOT_CONTAINS", Operator::NotIndexable, 1..=1),
    ("EQ", Operator::Equal, 1..=1),
    ("GT", Operator::Greater, 1..=1),
    ("NOT_NULL", Operator::NotIndexable, 0..=0),
    ("NE", Operator::NotIndexable, 1..=1),
    ("LE", Operator::LessOrEqual, 1..=1),
    ("BEGINS_WITH", Operator::BeginsWith, 1..=1),
    ("GE", Operator::GreaterOrEqual, 1..=1),
    ("CONTAINS", Operator::NotIndexable, 1..=1),
];

/// A condition on one attribute.
#[derive(Debug)]
pub(super) struct Condition {
    pub attribute: String,
    pub operator: Operator,
    pub values: Vec<Value>,
}

/// A member of `KeyConditions` as it stands in the request.
#[derive(Debug, Default)]
pub(super) struct Written {
    attribute: String,
    operator: Option<String>,
    values: Vec<Result<Value, ItemError>>,
}

/// Attribute, operator and values.
type Parts = (String, Option<String>, Vec<Result<Value, ItemError>>);

impl Written {
    pub(super) fn of(attribute: String) -> Written {
        Written {
            attribute,
            ..Written::default()
        }
    }

    pub(super) fn attribute(&self) -> &str {
        &self.attribute
    }

    pub(super) fn into_parts(self) -> Parts {
        (self.attribute, self.operator, self.values)
    }

    pub(super) fn member(&mut self, name: &str, reader: &mut Reader<'_>) -> Result<bool, ApiError> {
        match name {
            "ComparisonOperator" => {
                self.operator = Some(reader.string()?.into_owned());
                Ok(true)
            }
            "AttributeValueList" => decode::list(reader, |reader| {
                self.values.push(reader.checked_value()?);
                Ok(())
            }),
            _ => Ok(false),
        }
    }
}

/// Reads `KeyConditions`, `QueryFilter` or `ScanFilter`.
pub(super) fn decode(
    reader: &mut Reader<'_>,
    unsupported: &mut Unsupported,
    into: &mut Option<Vec<Written>>,
) -> Result<bool, ApiError> {
    let mut conditions = Vec::new();
    reader.begin_object()?;
    while let Some(attribute) = reader.next_key()? {
        let mut written = Written::of(attribute.into_owned());
        let other = decode::members_of(reader, |name, reader| written.member(name, reader))?;
        unsupported.merge(other);
        conditions.push(written);
    }
    decode::keep_last(&mut conditions, Written::attribute);
    *into = Some(conditions);
    Ok(true)
}

/// `parameter` is the path of the conditions.
pub(super) fn constraints(constraints: &mut Constraints, parameter: &str, conditions: &[Written]) {
    for written in conditions {
        let path = format!("{parameter}.{}.member.comparisonOperator", written.attribute);
        constraints.required(written.operator.as_ref(), &path);
    }
}

/// Checks each condition by itself; their constraints hold.
pub(super) fn check(conditions: Vec<Written>) -> Result<Vec<Condition>, ApiError> {
    let mut checked = Vec::with_capacity(conditions.len());
    for written in conditions {
        let values = written.values.into_iter().collect::<Result<Vec<_>, _>>()?;
        let name = written.operator.expect("required");
        let (_, operator, arguments) = OPERATORS
            .iter()
            .find(|(known, _, _)| *known == name)
            .ok_or_else(|| ApiError::parameters("Invalid comparison operator"))?;
        if !arguments.contains(&values.len()) {
            return Err(ApiError::parameters(format!(
                "Invalid number of argument(s) for the {name} ComparisonOperator"
            )));
        }
        if values
            .windows(2)
            .any(|pair| pair[0].type_name() != pair[1].type_name())
        {
            return Err(ApiError::parameters(
                "AttributeValues inside AttributeValueList must be of same type",
            ));
        }
        let refused = values.iter().find(|value| match (operator, value) {
            (Operator::NotIndexable, _) | (_, Value::S(_) | Value::B(_)) => false,
            (Operator::BeginsWith, _) => true,
            (Operator::Equal, Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) | (_, Value::N(_)) => false,
            _ => true,
        });
        if let Some(value) = refused {
            return Err(ApiError::parameters(format!(
                "ComparisonOperator {name} is not valid for {} AttributeValue type",
                value.type_name()
            )));
        }
        checked.push(Condition {
            attribute: written.attribute,
            operator: *operator,
            values,
        });
    }
    if !(1..=2).contains(&checked.len()) {
        return Err(ApiError::validation("Conditions can be of length 1 or 2 only"));
    }
    Ok(checked)
}

/// The partition key, and the condition on the sort key.
///
/// # Errors
/// They do not fit the key, or it has several attributes of a kind, which only expressions can name.
pub(super) fn resolve(
    partition_key: &[KeyAttribute],
    sort_key: &[KeyAttribute],
    conditions: &[Condition],
) -> Result<(KeyValue, KeyCondition), ApiError> {
    const NOT_SUPPORTED: &str = "Query key condition not supported";
    let ([partition_key], [] | [_]) = (partition_key, sort_key) else {
        return Err(ApiError::validation(NOT_SUPPORTED));
    };
    let sort_key = sort_key.first();
    if sort_key.is_none() && conditions.len() > 1 {
        return Err(ApiError::validation(NOT_SUPPORTED));
    }
    let Some((operator, mut values)) = take(partition_key, conditions)? else {
        return Err(missed(partition_key));
    };
    if operator != Operator::Equal {
        return Err(ApiError::validation(NOT_SUPPORTED));
    }
    let partition = values.remove(0);
    partition.check_partition_key()?;
    let Some(sort_key) = sort_key else {
        return Ok((partition, KeyCondition::All));
    };
    let Some((operator, values)) = take(sort_key, conditions)? else {
        return if conditions.len() > 1 {
            Err(missed(sort_key))
        } else {
            Ok((partition, KeyCondition::All))
        };
    };
    for value in &values {
        value.check_sort_key()?;
    }
    let mut values = values.into_iter();
    let mut next = || values.next().expect("the number of arguments was checked");
    let condition = match operator {
        Operator::Equal => KeyCondition::Equal(next()),
        Operator::Less => KeyCondition::Less(next()),
        Operator::LessOrEqual => KeyCondition::LessOrEqual(next()),
        Operator::Greater => KeyCondition::Greater(next()),
        Operator::GreaterOrEqual => KeyCondition::GreaterOrEqual(next()),
        Operator::BeginsWith => KeyCondition::BeginsWith(next()),
        Operator::Between => {
            let (lower, upper) = (next(), next());
            if lower > upper {
                return Err(ApiError::validation(
                    "The BETWEEN condition was provided a range where the lower bound is greater than the upper \
                     bound",
                ));
            }
            KeyCondition::Between(lower, upper)
        }
        Operator::NotIndexable => unreachable!("refused by take"),
    };
    Ok((partition, condition))
}

/// What an expression says about the keys of a table.
pub(super) fn of_expression(
    table: &Table,
    clauses: &KeyClauses<'_>,
) -> Result<(KeyValue, KeyCondition), ApiError> {
    let definition = table.definition();

    let partition = [schema_attribute(&definition.partition_key)];
    let sort = definition.sort_key.as_ref().map(schema_attribute);
    let conditions = clauses.resolve(KeySchema {
        partition: &partition,
        sort: sort.as_slice(),
    })?;
    Ok((conditions.partition, conditions.sort))
}

fn schema_attribute(key: &KeyAttribute) -> SchemaAttribute<'_> {
    SchemaAttribute {
        name: &key.name,
        kind: key.kind,
    }
}

fn missed(key: &KeyAttribute) -> ApiError {
    ApiError::validation(format!("Query condition missed key schema element: {}", key.name))
}

/// The condition on a key attribute, its values being of the key's type.
fn take(key: &KeyAttribute, conditions: &[Condition]) -> Result<Option<(Operator, Vec<KeyValue>)>, ApiError> {
    let Some(condition) = conditions
        .iter()
        .find(|condition| condition.attribute == key.name)
    else {
        return Ok(None);
    };
    if condition.operator == Operator::NotIndexable {
        return Err(ApiError::validation(
            "Attempted conditional constraint is not an indexable operation",
        ));
    }
    let value = |value: &Value| {
        KeyValue::from_value(&key.name, value, key.kind).map_err(|error| match error {
            ItemError::KeyTypeMismatch { .. } => {
                ApiError::parameters("Condition parameter type does not match schema type")
            }
            error => error.into(),
        })
    };
    let values = condition.values.iter().map(value).collect::<Result<_, _>>()?;
    Ok(Some((condition.operator, values)))
}
