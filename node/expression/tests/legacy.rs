//! The legacy parameters: what is refused in which words, and what they do to items.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use cairn_expression::Names;
use cairn_expression::legacy::{
    ATTRIBUTE_UPDATES_MAX, AttributeUpdate, CONDITION_PARTS_MAX, Comparison, Conditional, Expected,
    FilterCondition, UpdateAction, attribute_updates, attributes_to_get, expected, filter,
};
use cairn_item::ItemBytes;
use cairn_item::json::write_item;
use expect_test::{Expect, expect};
use support::{item, value};

const ITEM: &str =
    r#"{"pk":{"S":"p"},"a.b":{"S":"abc"},"n":{"N":"5"},"ss":{"SS":["x","y"]},"l":{"L":[{"N":"1"}]}}"#;

/// `attribute OPERATOR json json ..`, conditions parted by `;`.
fn conditions(text: &str) -> Vec<FilterCondition> {
    text.split(';')
        .map(|condition| {
            let mut words = condition.split_whitespace();
            FilterCondition {
                attribute: words.next().unwrap().to_owned(),
                comparison: Comparison::from_name(words.next().unwrap()).unwrap(),
                values: words.map(value).collect(),
            }
        })
        .collect()
}

fn check_filter(text: &str, conditional: Conditional, expect: Expect) {
    let found = match filter(conditions(text), conditional) {
        Err(error) => error.to_string(),
        Ok(translated) => {
            let translated = translated.unwrap();
            let bytes = ItemBytes::from_item(&item(ITEM));
            let names = Names::none();
            let bound = translated.expression.bind(&names, &translated.values).unwrap();
            format!("{} {}", translated.expression, bound.matches(Some(bytes.view())))
        }
    };
    expect.assert_eq(&found);
}

#[test]
fn filters() {
    use Conditional::{And, Or};
    check_filter(r#"a.b EQ {"S":"abc"}"#, And, expect!["a.b = :00000000 true"]);
    check_filter(
        r#"a.b NE {"S":"abc"}; missing NE {"S":"abc"}"#,
        Or,
        expect!["a.b <> :00000000 OR missing <> :00000001 true"],
    );
    check_filter(
        r#"n LT {"N":"5"}; n GE {"N":"5"}; n BETWEEN {"N":"1"} {"N":"9"}"#,
        And,
        expect!["n < :00000000 AND n >= :00000001 AND n BETWEEN :00000002 AND :00000003 false"],
    );
    check_filter(
        r#"n LE {"N":"5"}; n GT {"N":"4"}; n IN {"N":"1"} {"N":"5"}"#,
        And,
        expect!["n <= :00000000 AND n > :00000001 AND n IN (:00000002, :00000003) true"],
    );
    check_filter(
        r#"missing NULL; n NOT_NULL; a.b BEGINS_WITH {"S":"ab"}; ss CONTAINS {"S":"x"}"#,
        And,
        expect![
            "attribute_not_exists(missing) AND attribute_exists(n) AND (begins_with(a.b, :00000000) AND contains(ss, :00000001)) true"
        ],
    );
    check_filter(
        r#"ss NOT_CONTAINS {"S":"x"}"#,
        And,
        expect!["NOT contains(ss, :00000000) false"],
    );
    check_filter(
        r#"missing NOT_CONTAINS {"S":"x"}"#,
        And,
        expect!["NOT contains(missing, :00000000) true"],
    );
    check_filter(r#"l EQ {"L":[{"N":"1.0"}]}"#, And, expect!["l = :00000000 true"]);
}

#[test]
fn filters_that_are_refused() {
    let check = |text, expect| check_filter(text, Conditional::And, expect);
    check(
        "n EQ",
        expect![
            "One or more parameter values were invalid: Invalid number of argument(s) for the EQ ComparisonOperator"
        ],
    );
    check(
        r#"n NULL {"N":"1"}"#,
        expect![
            "One or more parameter values were invalid: Invalid number of argument(s) for the NULL ComparisonOperator"
        ],
    );
    check(
        r#"n BETWEEN {"N":"1"}"#,
        expect![
            "One or more parameter values were invalid: Invalid number of argument(s) for the BETWEEN ComparisonOperator"
        ],
    );
    check(
        "n IN",
        expect![
            "One or more parameter values were invalid: Invalid number of argument(s) for the IN ComparisonOperator"
        ],
    );
    check(
        r#"n LT {"BOOL":true}"#,
        expect![
            "One or more parameter values were invalid: ComparisonOperator LT is not valid for BOOL AttributeValue type"
        ],
    );
    check(
        r#"n BEGINS_WITH {"N":"1"}"#,
        expect![
            "One or more parameter values were invalid: ComparisonOperator BEGINS_WITH is not valid for N AttributeValue type"
        ],
    );
    check(
        r#"n CONTAINS {"SS":["x"]}"#,
        expect![
            "One or more parameter values were invalid: ComparisonOperator CONTAINS is not valid for SS AttributeValue type"
        ],
    );
    check(
        r#"n IN {"N":"1"} {"L":[]}"#,
        expect![
            "One or more parameter values were invalid: ComparisonOperator IN is not valid for L AttributeValue type"
        ],
    );
    check(
        r#"n IN {"N":"1"} {"S":"x"}"#,
        expect![
            "One or more parameter values were invalid: AttributeValues inside AttributeValueList must be of same type"
        ],
    );
    check(
        r#"n BETWEEN {"N":"1"} {"S":"x"}"#,
        expect![
            "One or more parameter values were invalid: AttributeValues inside AttributeValueList must be of same type"
        ],
    );
    check(
        r#"n BETWEEN {"N":"2"} {"N":"1"}"#,
        expect![
            "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
        ],
    );
}

#[test]
fn many_conditions_make_no_deep_tree() {
    let text = vec![r#"n EQ {"N":"5"}"#; 2000].join(";");
    let translated = filter(conditions(&text), Conditional::And).unwrap().unwrap();
    let names = Names::none();
    let bytes = ItemBytes::from_item(&item(ITEM));
    assert!(
        translated
            .expression
            .bind(&names, &translated.values)
            .unwrap()
            .matches(Some(bytes.view()))
    );
    assert!(filter(Vec::new(), Conditional::Or).unwrap().is_none());
}

#[test]
fn there_are_only_so_many_conditions_and_values() {
    let of = |values: usize| FilterCondition {
        attribute: "n".to_owned(),
        comparison: Comparison::In,
        values: vec![value(r#"{"N":"5"}"#); values],
    };
    let check = |conditions, expect: Expect| {
        let found = filter(conditions, Conditional::And).map(|translated| translated.is_some());
        expect.assert_eq(&found.map_or_else(|error| error.to_string(), |any| any.to_string()));
    };
    check(vec![of(CONDITION_PARTS_MAX - 1)], expect!["true"]);
    check(vec![of(1); CONDITION_PARTS_MAX / 2], expect!["true"]);
    check(
        vec![of(CONDITION_PARTS_MAX)],
        expect![
            "One or more parameter values were invalid: The conditions have too many parts, the maximum is 4096 conditions and values together"
        ],
    );
    check(
        vec![of(70_000)],
        expect![
            "One or more parameter values were invalid: The conditions have too many parts, the maximum is 4096 conditions and values together"
        ],
    );
    let member = Expected {
        comparison: Some(Comparison::In),
        values: Some(of(70_000).values),
        ..Expected::default()
    };
    assert!(expected(vec![member], Conditional::And).is_err());
    let member = Expected {
        exists: Some(false),
        ..Expected::default()
    };
    assert!(expected(vec![member; 70_000], Conditional::And).is_err());
}

#[test]
fn there_are_only_so_many_attribute_updates() {
    let member = |index: usize| AttributeUpdate {
        attribute: format!("n{index}"),
        action: UpdateAction::Delete,
        value: None,
    };
    assert!(attribute_updates((0..ATTRIBUTE_UPDATES_MAX).map(member).collect()).is_ok());
    let error = attribute_updates((0..70_000).map(member).collect()).unwrap_err();
    expect!["One or more parameter values were invalid: AttributeUpdates has too many members, the maximum is 16384"]
        .assert_eq(&error.to_string());
}

#[test]
fn expected_values() {
    let check = |member: Expected, expect: Expect| {
        let found = match expected(
            vec![Expected {
                attribute: "n".to_owned(),
                ..member
            }],
            Conditional::And,
        ) {
            Ok(translated) => translated.unwrap().expression.to_string(),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&found);
    };
    let five = || Some(value(r#"{"N":"5"}"#));
    let none = Expected::default;
    check(
        Expected {
            value: five(),
            ..none()
        },
        expect!["n = :00000000"],
    );
    check(
        Expected {
            value: five(),
            exists: Some(true),
            ..none()
        },
        expect!["n = :00000000"],
    );
    check(
        Expected {
            exists: Some(false),
            ..none()
        },
        expect!["attribute_not_exists(n)"],
    );
    check(
        Expected {
            comparison: Some(Comparison::Lt),
            value: five(),
            ..none()
        },
        expect!["n < :00000000"],
    );
    check(
        Expected {
            comparison: Some(Comparison::In),
            values: Some(vec![five().unwrap()]),
            ..none()
        },
        expect!["n IN (:00000000)"],
    );
    check(
        Expected {
            comparison: Some(Comparison::Null),
            ..none()
        },
        expect!["attribute_not_exists(n)"],
    );
    check(
        none(),
        expect![
            "One or more parameter values were invalid: Value must be provided when Exists is null for Attribute: n"
        ],
    );
    check(
        Expected {
            exists: Some(true),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: Value must be provided when Exists is true for Attribute: n"
        ],
    );
    check(
        Expected {
            exists: Some(false),
            value: five(),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: Value cannot be used when Exists is false for Attribute: n"
        ],
    );
    check(
        Expected {
            values: Some(Vec::new()),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: AttributeValueList can only be used with a ComparisonOperator for Attribute: n"
        ],
    );
    check(
        Expected {
            value: five(),
            values: Some(Vec::new()),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: Value and AttributeValueList cannot be used together for Attribute: n"
        ],
    );
    check(
        Expected {
            comparison: Some(Comparison::Eq),
            exists: Some(true),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: Exists and ComparisonOperator cannot be used together for Attribute: n"
        ],
    );
    check(
        Expected {
            comparison: Some(Comparison::Eq),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: Value or AttributeValueList must be used with ComparisonOperator: EQ for Attribute: n"
        ],
    );
    check(
        Expected {
            comparison: Some(Comparison::Eq),
            values: Some(Vec::new()),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: Invalid number of argument(s) for the EQ ComparisonOperator"
        ],
    );
    check(
        Expected {
            comparison: Some(Comparison::Null),
            value: five(),
            ..none()
        },
        expect![
            "One or more parameter values were invalid: Invalid number of argument(s) for the NULL ComparisonOperator"
        ],
    );
}

#[test]
fn updates() {
    let check = |attribute: &str, action: UpdateAction, text: &str, expect: Expect| {
        let value = (!text.is_empty()).then(|| value(text));
        let update = AttributeUpdate {
            attribute: attribute.to_owned(),
            action,
            value,
        };
        let found = attribute_updates(vec![update]).and_then(|translated| {
            let names = Names::none();
            let bytes = ItemBytes::from_item(&item(ITEM));
            let bound = translated.expression.bind(&names, &translated.values)?;
            bound.check_not_on_key(&["pk"])?;
            let new = bound.apply(bytes.view())?;
            let mut out = Vec::new();
            write_item(&mut out, &bound.updated(ItemBytes::from_item(&new).view()));
            Ok(String::from_utf8(out).unwrap())
        });
        expect.assert_eq(&found.unwrap_or_else(|error| error.to_string()));
    };
    use UpdateAction::{Add, Delete, Put};
    check("a.b", Put, r#"{"N":"1"}"#, expect![[r#"{"a.b":{"N":"1"}}"#]]);
    check("n", Add, r#"{"N":"1"}"#, expect![[r#"{"n":{"N":"6"}}"#]]);
    check("new", Add, r#"{"N":"1"}"#, expect![[r#"{"new":{"N":"1"}}"#]]);
    check(
        "ss",
        Add,
        r#"{"SS":["z"]}"#,
        expect![[r#"{"ss":{"SS":["x","y","z"]}}"#]],
    );
    check(
        "l",
        Add,
        r#"{"L":[{"S":"x"}]}"#,
        expect![[r#"{"l":{"L":[{"N":"1"},{"S":"x"}]}}"#]],
    );
    check(
        "new",
        Add,
        r#"{"L":[{"S":"x"}]}"#,
        expect![[r#"{"new":{"L":[{"S":"x"}]}}"#]],
    );
    check(
        "ss",
        Delete,
        r#"{"SS":["x"]}"#,
        expect![[r#"{"ss":{"SS":["y"]}}"#]],
    );
    check("ss", Delete, r#"{"SS":["x","y"]}"#, expect!["{}"]);
    check("n", Delete, "", expect!["{}"]);
    check(
        "pk",
        Put,
        r#"{"S":"q"}"#,
        expect![
            "One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"
        ],
    );
    check(
        "n",
        Put,
        "",
        expect![
            "One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is specified"
        ],
    );
    check(
        "n",
        Add,
        "",
        expect![
            "One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is specified"
        ],
    );
    check(
        "n",
        Add,
        r#"{"S":"x"}"#,
        expect!["One or more parameter values were invalid: ADD action is not supported for the type S"],
    );
    check(
        "n",
        Delete,
        r#"{"S":"x"}"#,
        expect![
            "One or more parameter values were invalid: DELETE action with value is not supported for the type S"
        ],
    );
    check(
        "n",
        Add,
        r#"{"SS":["x"]}"#,
        expect!["Type mismatch for attribute to update"],
    );
    check(
        "n",
        Delete,
        r#"{"SS":["x"]}"#,
        expect!["Type mismatch for attribute to update"],
    );
    check(
        "ss",
        Delete,
        r#"{"NS":["1"]}"#,
        expect!["Type mismatch for attribute to update"],
    );
}

#[test]
fn attributes() {
    let names = Names::none();
    let projection = attributes_to_get(["n", "a.b", "status"].map(str::to_owned).to_vec()).unwrap();
    let mut out = Vec::new();
    projection
        .bind(&names)
        .unwrap()
        .write_json(&mut out, ItemBytes::from_item(&item(ITEM)).view());
    expect![[r#"{"a.b":{"S":"abc"},"n":{"N":"5"}}"#]].assert_eq(&String::from_utf8(out).unwrap());
    let twice = attributes_to_get(["n", "a", "n"].map(str::to_owned).to_vec());
    expect!["One or more parameter values were invalid: Duplicate value in attribute name: n"]
        .assert_eq(&twice.unwrap_err().to_string());
}
