//! The request's names and values by themselves.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use cairn_expression::{Condition, Names, PLACEHOLDER_BYTES_MAX, Parameter, Projection, Update, Values};
use cairn_item::Value;
use expect_test::{Expect, expect};

fn text<T>(result: Result<T, cairn_expression::ExpressionError>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "fine".to_owned())
}

fn names(entries: &[(&str, &str)]) -> Result<Names, cairn_expression::ExpressionError> {
    Names::new(
        entries
            .iter()
            .map(|(key, name)| ((*key).to_owned(), (*name).to_owned()))
            .collect(),
    )
}

fn values(entries: &[(&str, &str)]) -> Result<Values, cairn_expression::ExpressionError> {
    Values::new(
        entries
            .iter()
            .map(|(key, text)| ((*key).to_owned(), Value::S((*text).to_owned())))
            .collect(),
    )
}

#[test]
fn keys() {
    let check = |key: &str, expected_name: Expect, expected_value: Expect| {
        expected_name.assert_eq(&text(names(&[(key, "x")])));
        expected_value.assert_eq(&text(values(&[(key, "x")])));
    };
    check(
        "#a",
        expect!["fine"],
        expect![[r##"ExpressionAttributeValues contains invalid key: Syntax error; key: "#a""##]],
    );
    check(
        ":1_b",
        expect![[r#"ExpressionAttributeNames contains invalid key: Syntax error; key: ":1_b""#]],
        expect!["fine"],
    );
    check(
        "#",
        expect![[r##"ExpressionAttributeNames contains invalid key: Syntax error; key: "#""##]],
        expect![[r##"ExpressionAttributeValues contains invalid key: Syntax error; key: "#""##]],
    );
    check(
        "",
        expect![
            "ExpressionAttributeNames contains invalid key: The expression attribute map contains an empty key;"
        ],
        expect![
            "ExpressionAttributeValues contains invalid key: The expression attribute map contains an empty key;"
        ],
    );
    check(
        "a",
        expect![[r#"ExpressionAttributeNames contains invalid key: Syntax error; key: "a""#]],
        expect![[r#"ExpressionAttributeValues contains invalid key: Syntax error; key: "a""#]],
    );
    check(
        "#a b",
        expect![[r##"ExpressionAttributeNames contains invalid key: Syntax error; key: "#a b""##]],
        expect![[r##"ExpressionAttributeValues contains invalid key: Syntax error; key: "#a b""##]],
    );
    check(
        ":é",
        expect![[r#"ExpressionAttributeNames contains invalid key: Syntax error; key: ":é""#]],
        expect![[r#"ExpressionAttributeValues contains invalid key: Syntax error; key: ":é""#]],
    );
    expect!["ExpressionAttributeNames must not be empty"].assert_eq(&text(names(&[])));
    expect!["ExpressionAttributeValues must not be empty"].assert_eq(&text(values(&[])));
    let long = format!("#{}", "a".repeat(255));
    expect!["ExpressionAttributeNames contains invalid key: The expression attribute map contains a key that is too long; size of key: 256"].assert_eq(&text(names(&[(&long, "x")])));
    assert_eq!(text(names(&[(&long[..255], "x")])), "fine");
}

#[test]
fn sizes() {
    let half = "x".repeat(PLACEHOLDER_BYTES_MAX / 2 + 1);
    expect!["ExpressionAttributeValues exceeds max size"]
        .assert_eq(&text(values(&[(":a", &half), (":b", &half)])));
    let values = values(&[(":a", &half), (":b", &half[2..])]).unwrap();
    expect!["fine"].assert_eq(&text(values.check_size(&Names::none())));
    expect!["Combined size of ExpressionAttributeNames and ExpressionAttributeValues exceeds max size"]
        .assert_eq(&text(values.check_size(&names(&[("#a", "x")]).unwrap())));
    // Each use of a value counts against the size of the expression.
    let names = Names::none();
    let once = Condition::parse(Parameter::Condition, "a = :a").unwrap();
    expect!["fine"].assert_eq(&text(once.bind(&names, &values)));
    let twice = Condition::parse(Parameter::Condition, "a IN (:a, :a)").unwrap();
    expect!["Invalid ConditionExpression: Expression size has exceeded the maximum allowed size;"]
        .assert_eq(&text(twice.bind(&names, &values)));
    expect!["ExpressionAttributeNames contains invalid value: Empty attribute name for key #a"]
        .assert_eq(&text(names_of(0)));
    expect!["ExpressionAttributeNames contains invalid value: Attribute name is too large, must be less than 65536 bytes for key #a"].assert_eq(&text(names_of(65_536)));
}

fn names_of(bytes: usize) -> Result<Names, cairn_expression::ExpressionError> {
    names(&[("#a", &"x".repeat(bytes))])
}

#[test]
fn uses_are_counted_over_all_expressions() {
    let names = names(&[("#a", "x"), ("#b", "y"), ("#c", "z")]).unwrap();
    let values = values(&[(":a", "x"), (":b", "y")]).unwrap();
    Projection::parse("#a").unwrap().bind(&names).unwrap();
    Update::parse("SET #b = :a")
        .unwrap()
        .bind(&names, &values)
        .unwrap();
    expect!["Value provided in ExpressionAttributeNames unused in expressions: keys: {#c}"]
        .assert_eq(&text(names.check_used()));
    expect!["Value provided in ExpressionAttributeValues unused in expressions: keys: {:b}"]
        .assert_eq(&text(values.check_used()));
    Condition::parse(Parameter::Condition, "#c = :b")
        .unwrap()
        .bind(&names, &values)
        .unwrap();
    assert_eq!(text(names.check_used()), "fine");
    assert_eq!(text(values.check_used()), "fine");
}

#[test]
fn parsed_forms_can_be_shared_between_shards() {
    fn shared<T: Send + Sync>() {}
    shared::<Condition>();
    shared::<Update>();
    shared::<Projection>();
    shared::<cairn_expression::KeyCondition>();
    shared::<(Names, Values)>();
}
