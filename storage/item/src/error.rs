//! What can be wrong with a value, a number, a key or an item, in DynamoDB's words.

use thiserror::Error;

/// Which DynamoDB exception an error becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// `ValidationException`: well-formed, but not allowed.
    Validation,
    /// `SerializationException`: not the JSON that was expected.
    Serialization,
}

/// A value that DynamoDB refuses with a `ValidationException`. `Display` is the message DynamoDB sends.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ItemError {
    /// A number without any text.
    #[error("The parameter cannot be converted to a numeric value")]
    NumberEmpty,
    /// Text that is not a number.
    #[error("The parameter cannot be converted to a numeric value: {0}")]
    NumberSyntax(String),
    /// Magnitude of 1E+126 or more.
    #[error("Number overflow. Attempting to store a number with magnitude larger than supported range")]
    NumberOverflow,
    /// Magnitude below 1E-130, but not zero.
    #[error("Number underflow. Attempting to store a number with magnitude smaller than supported range")]
    NumberUnderflow,
    /// More than 38 digits between the first and the last one that is not zero.
    #[error("Attempting to store more than 38 significant digits in a Number")]
    NumberPrecision,
    /// An attribute value without a type.
    #[error("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")]
    ValueEmpty,
    /// An attribute value with two types.
    #[error(
        "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
    )]
    ValueAmbiguous,
    /// `{"NULL": false}`.
    #[error(
        "One or more parameter values were invalid: Null attribute value types must have the value of true"
    )]
    NullNotTrue,
    /// `{"SS": []}`.
    #[error("One or more parameter values were invalid: An string set  may not be empty")]
    StringSetEmpty,
    /// `{"NS": []}`.
    #[error("One or more parameter values were invalid: An number set  may not be empty")]
    NumberSetEmpty,
    /// `{"BS": []}`.
    #[error("One or more parameter values were invalid: Binary sets should not be empty")]
    BinarySetEmpty,
    /// The members as given, separated by a comma and a space.
    #[error("One or more parameter values were invalid: Input collection [{0}] contains duplicates.")]
    StringSetDuplicates(String),
    /// Two members of a number set are equal, however they were written.
    #[error("Input collection contains duplicates")]
    NumberSetDuplicates,
    /// The members in base64, separated by a comma and a space.
    #[error(
        "One or more parameter values were invalid: Input collection [{0}]of type BS contains duplicates."
    )]
    BinarySetDuplicates(String),
    /// A value below level [`crate::DEPTH_MAX`].
    #[error(
        "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit"
    )]
    NestingTooDeep {
        /// Below level [`crate::DEPTH_FAR`] even, which DynamoDB reports otherwise.
        far: bool,
    },
    /// An attribute without a name.
    #[error("Empty attribute name")]
    NameEmpty,
    /// A name of more than [`crate::NAME_BYTES_MAX`] bytes.
    #[error("Attribute name is too large, must be less than 65536 bytes")]
    NameTooLong,
    /// More than [`crate::ITEM_BYTES_MAX`] bytes, counted as DynamoDB does.
    #[error("Item size has exceeded the maximum allowed size")]
    ItemTooLarge,
    /// More than [`crate::ITEM_BYTES_MAX`] bytes after an update, counted as DynamoDB does.
    #[error("Item size to update has exceeded the maximum allowed size")]
    UpdatedItemTooLarge,
    /// A key attribute, named here, holds an empty string.
    #[error(
        "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: {0}"
    )]
    KeyEmptyString(String),
    /// A key attribute, named here, holds an empty binary.
    #[error(
        "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty binary value. Key: {0}"
    )]
    KeyEmptyBinary(String),
    /// A partition key of more than [`crate::PARTITION_KEY_BYTES_MAX`] bytes.
    #[error(
        "One or more parameter values were invalid: Size of hashkey has exceeded the maximum size limit of2048 bytes"
    )]
    PartitionKeyTooLong,
    /// A sort key of more than [`crate::SORT_KEY_BYTES_MAX`] bytes.
    #[error(
        "One or more parameter values were invalid: Aggregated size of all range keys has exceeded the size limit of 1024 bytes"
    )]
    SortKeyTooLong,
    /// The item has no attribute of the key's name.
    #[error("One or more parameter values were invalid: Missing the key {0} in the item")]
    KeyMissing(String),
    /// The item's key attribute has another type than the table's schema says.
    #[error(
        "One or more parameter values were invalid: Type mismatch for key {name} expected: {expected} actual: {actual}"
    )]
    KeyTypeMismatch {
        /// Name of the key attribute.
        name: String,
        /// Type in the table's schema.
        expected: &'static str,
        /// Type found in the item.
        actual: &'static str,
    },
    /// The lower bound of BETWEEN is above the upper one.
    #[error(
        "Invalid KeyConditionExpression: The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {lower}, upper bound operand: AttributeValue: {upper}"
    )]
    BetweenReversed {
        /// The lower bound as DynamoDB prints it, such as `{N:2}`.
        lower: String,
        /// The upper bound as DynamoDB prints it.
        upper: String,
    },
}

impl ItemError {
    /// Always [`ErrorKind::Validation`]; here so that callers treat every error of this room alike.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Validation
    }
}
