//! What can be wrong with an expression, in DynamoDB's words.

use std::fmt;

use cairn_item::ItemError;
use thiserror::Error;

/// The request parameter that an expression came in; it begins most messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parameter {
    /// `ConditionExpression`
    Condition,
    /// `FilterExpression`
    Filter,
    /// `KeyConditionExpression`
    KeyCondition,
    /// `ProjectionExpression`
    Projection,
    /// `UpdateExpression`
    Update,
}

impl Parameter {
    /// The parameter's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Parameter::Condition => "ConditionExpression",
            Parameter::Filter => "FilterExpression",
            Parameter::KeyCondition => "KeyConditionExpression",
            Parameter::Projection => "ProjectionExpression",
            Parameter::Update => "UpdateExpression",
        }
    }
}

/// Bytes `start..end` of an expression's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u16,
    /// Just after the last byte.
    pub end: u16,
}

impl Span {
    /// From the start of this one to the end of the other.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span {
            start: self.start,
            end: other.end,
        }
    }

    /// The bytes of `text` that the span names.
    #[must_use]
    pub fn of(self, text: &str) -> &str {
        &text[usize::from(self.start)..usize::from(self.end)]
    }
}

/// An expression, or its use of a request's names and values, is refused. `Display` is the message of DynamoDB's
/// `ValidationException`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionError {
    /// The expression at fault, for the problems that DynamoDB reports with its parameter's name.
    pub parameter: Option<Parameter>,
    /// What is wrong.
    pub problem: Problem,
    /// Where, if it is one place of the expression's text.
    pub span: Option<Span>,
}

impl ExpressionError {
    /// A problem that is reported without the name of a parameter.
    #[must_use]
    pub fn bare(problem: Problem) -> ExpressionError {
        ExpressionError {
            parameter: None,
            problem,
            span: None,
        }
    }

    pub(crate) fn at(parameter: Parameter, problem: Problem, span: Span) -> ExpressionError {
        ExpressionError {
            parameter: Some(parameter),
            problem,
            span: Some(span),
        }
    }

    pub(crate) fn of(parameter: Parameter, problem: Problem) -> ExpressionError {
        ExpressionError {
            parameter: Some(parameter),
            problem,
            span: None,
        }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parameter) = self.parameter {
            write!(formatter, "Invalid {}: ", parameter.name())?;
        }
        self.problem.fmt(formatter)
    }
}

impl std::error::Error for ExpressionError {}

impl From<ItemError> for ExpressionError {
    fn from(error: ItemError) -> ExpressionError {
        ExpressionError::bare(Problem::Item(error))
    }
}

/// Every way to be wrong; see [`ExpressionError`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum Problem {
    // Of the text alone.
    #[error("The expression can not be empty;")]
    Empty,
    #[error("Expression size has exceeded the maximum allowed size;")]
    TooLong,
    #[error("Syntax error; token: \"{token}\", near: \"{near}\"")]
    Syntax { token: String, near: String },
    #[error("The expression has redundant parentheses;")]
    RedundantParentheses,
    #[error("Attribute name is a reserved keyword; reserved keyword: {0}")]
    Reserved(String),
    #[error("Invalid function name; function: {0}")]
    UnknownFunction(String),
    #[error("The function is not allowed in a condition expression; function: {0}")]
    NotAConditionFunction(String),
    #[error("The function is not allowed in an update expression; function: {0}")]
    NotAValueFunction(String),
    #[error("The function is not allowed to be used this way in an expression; function: {0}")]
    MisusedFunction(String),
    #[error("List index is not within the allowable range; index: [{0}]")]
    ListIndex(String),
    #[error("The \"{0}\" section can only be used once in an update expression;")]
    DuplicateSection(&'static str),

    // Of the text with the request's names and values.
    #[error("The document path has too many nesting levels; nesting levels: {0}")]
    PathTooDeep(usize),
    #[error("The document path cannot contain attribute value parameters; attribute value: {0}")]
    ValueInPath(String),
    #[error("An expression attribute name used in the document path is not defined; attribute name: {0}")]
    UndefinedName(String),
    #[error("An expression attribute value used in expression is not defined; attribute value: {0}")]
    UndefinedValue(String),
    #[error(
        "Incorrect number of operands for operator or function; operator or function: {operator}, number of operands: {count}"
    )]
    OperandCount { operator: &'static str, count: usize },
    #[error(
        "Incorrect operand type for operator or function; operator or function: {operator}, operand type: {found}"
    )]
    OperandType {
        operator: &'static str,
        found: &'static str,
    },
    #[error(
        "Incorrect operand type for operator or function; operator: {action}, operand type: {found}, typeSet: {allowed}"
    )]
    ActionOperandType {
        action: &'static str,
        found: &'static str,
        allowed: &'static str,
    },
    #[error("Operator or function requires a document path; operator or function: {0}")]
    PathRequired(&'static str),
    #[error(
        "The first operand must be distinct from the remaining operands for this operator or function; operator: {operator}, first operand: {operand}"
    )]
    RepeatedOperand { operator: &'static str, operand: String },
    #[error("Invalid attribute type name found; type: {0}, valid types: {{N,BS,L,B,NULL,M,S,SS,NS,BOOL}}")]
    TypeName(String),
    #[error(
        "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {lower}, upper bound operand: AttributeValue: {upper}"
    )]
    BetweenTypes { lower: String, upper: String },
    #[error(
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {lower}, upper bound operand: AttributeValue: {upper}"
    )]
    BetweenReversed { lower: String, upper: String },
    #[error("The IN operator is provided with too many operands; number of operands: {0}")]
    TooManyInOperands(usize),
    #[error("The expression contains too many operators; operator count: {0}")]
    TooManyOperators(usize),
    #[error(
        "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: {one}, path two: {two}"
    )]
    PathsOverlap { one: String, two: String },
    #[error(
        "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: {one}, path two: {two}"
    )]
    PathsConflict { one: String, two: String },

    // Of the request's names and values.
    #[error("{0} must not be empty")]
    MapEmpty(&'static str),
    #[error("{map} contains invalid key: Syntax error; key: \"{key}\"")]
    MapKey { map: &'static str, key: String },
    #[error("{0} contains invalid key: The expression attribute map contains an empty key;")]
    MapKeyEmpty(&'static str),
    #[error("{0}")]
    MapKeyTooLong(LongKey),
    #[error("ExpressionAttributeValues contains invalid value: {error} for key {key}")]
    MapValue { error: ItemError, key: String },
    #[error("ExpressionAttributeNames contains invalid value: {error} for key {key}")]
    MapName { error: &'static str, key: String },
    #[error("{0} exceeds max size")]
    MapTooLarge(&'static str),
    #[error("Combined size of ExpressionAttributeNames and ExpressionAttributeValues exceeds max size")]
    MapsTooLarge,
    #[error("Value provided in {map} unused in expressions: keys: {{{keys}}}")]
    Unused { map: &'static str, keys: String },

    // Of key conditions.
    #[error("Invalid operator used in KeyConditionExpression: {0}")]
    KeyOperator(&'static str),
    #[error("KeyConditionExpressions cannot contain nested operations")]
    KeyNestedOperation,
    #[error("KeyConditionExpressions cannot have conditions on nested attributes")]
    KeyNestedAttribute,
    #[error("KeyConditionExpressions must only contain one condition per key")]
    KeyRepeated,
    #[error(
        "Invalid condition in KeyConditionExpression: {0} operator must have the key attribute as its first operand"
    )]
    KeyNotFirst(&'static str),
    #[error("Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition")]
    KeySeveralNames,
    #[error("Invalid condition in KeyConditionExpression: No key attribute specified")]
    KeyNoName,
    #[error(
        "The number of query conditions ({given}) exceeds the number of key attributes defined in the schema ({defined})"
    )]
    KeyTooManyConditions { given: usize, defined: usize },
    #[error("Query key condition not supported")]
    KeyUnsupported,
    #[error("Query condition missed key schema element: {0}")]
    KeyMissed(String),
    #[error("HASH key attributes {0} must have equality conditions specified in the query")]
    KeyPartitionEquality(String),
    #[error(
        "RANGE key attributes {missing} must have equality conditions specified in the query because a condition is present on key attribute {last}"
    )]
    KeySortEquality { missing: String, last: String },
    #[error("One or more parameter values were invalid: Condition parameter type does not match schema type")]
    KeyType,

    // Of a filter or a condition with the table's keys.
    #[error("Filter Expression can only contain non-primary key attributes: Primary key attribute: {0}")]
    FilterOnKey(String),
    #[error(
        "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: {role}: {name}"
    )]
    KeyNotScalar { role: &'static str, name: String },

    // Of an update and the item it meets.
    #[error(
        "One or more parameter values were invalid: Cannot update attribute {0}. This attribute is part of the key"
    )]
    UpdatesKey(String),
    #[error("The provided expression refers to an attribute that does not exist in the item")]
    AttributeMissing,
    #[error("An operand in the update expression has an incorrect data type")]
    IncorrectDataType,
    #[error("The document path provided in the update expression is invalid for update")]
    InvalidPathForUpdate,
    #[error("Nesting Levels have exceeded supported limits")]
    NestingTooDeep,
    #[error("Type mismatch for attribute to update")]
    LegacyTypeMismatch,

    // Of the legacy parameters.
    #[error("One or more parameter values were invalid: {0}")]
    Legacy(String),
    #[error("{0}")]
    LegacyBare(String),

    #[error(transparent)]
    Item(ItemError),
}

/// A placeholder that is too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongKey {
    /// The parameter.
    pub map: &'static str,
    /// How long it is, where DynamoDB says so.
    pub bytes: Option<usize>,
}

impl fmt::Display for LongKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.map;
        write!(
            formatter,
            "{map} contains invalid key: The expression attribute map contains a key that is too long;"
        )?;
        self.bytes
            .map_or(Ok(()), |bytes| write!(formatter, " size of key: {bytes}"))
    }
}
