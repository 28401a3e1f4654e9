//! Key conditions: what they compile to, and what is refused in which words.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use cairn_expression::{KeyAttribute, KeyCondition, KeySchema, key_condition};
use cairn_item::KeyType;
use expect_test::{Expect, expect};
use support::{names, values};

const PARTITION: KeyAttribute<'static> = KeyAttribute {
    name: "pk",
    kind: KeyType::S,
};
const SORT: KeyAttribute<'static> = KeyAttribute {
    name: "sk",
    kind: KeyType::S,
};
const VALUES: &str = r#"{":p":{"S":"p"},":s":{"S":"s"},":t":{"S":"t"},":n":{"N":"1"},":m":{"N":"2"},":b":{"BOOL":true},":l":{"L":[]},":e":{"S":""},":x":{"B":"AQI="}}"#;

fn check_key(key: KeySchema<'_>, expression: &str, expected: Expect) {
    let (names, values) = (names("#p=pk #s=sk #o=other #d=a.b"), values(VALUES));
    let text = match key_condition::parse(expression, &names, &values, key) {
        Ok(conditions) => format!("{:?} {:?}", conditions.partition, conditions.sort),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&text);
}

fn check(expression: &str, expected: Expect) {
    check_key(
        KeySchema {
            partition: &[PARTITION],
            sort: &[SORT],
        },
        expression,
        expected,
    );
}

#[test]
fn conditions_of_a_composite_key() {
    check("pk = :p", expect![[r#"S("p") All"#]]);
    check(" ( #p = :p ) ", expect![[r#"S("p") All"#]]);
    check(":p = pk", expect![[r#"S("p") All"#]]);
    check("pk = :p AND sk = :s", expect![[r#"S("p") Equal(S("s"))"#]]);
    check("sk = :s and pk = :p", expect![[r#"S("p") Equal(S("s"))"#]]);
    check("pk = :p AND sk < :s", expect![[r#"S("p") Less(S("s"))"#]]);
    check("pk = :p AND :s < sk", expect![[r#"S("p") Greater(S("s"))"#]]);
    check("pk = :p AND sk <= :s", expect![[r#"S("p") LessOrEqual(S("s"))"#]]);
    check(
        "pk = :p AND :s <= sk",
        expect![[r#"S("p") GreaterOrEqual(S("s"))"#]],
    );
    check(
        "pk = :p AND sk >= :s",
        expect![[r#"S("p") GreaterOrEqual(S("s"))"#]],
    );
    check("pk = :p AND sk > :s", expect![[r#"S("p") Greater(S("s"))"#]]);
    check(
        "pk = :p AND sk BETWEEN :s AND :t",
        expect![[r#"S("p") Between(S("s"), S("t"))"#]],
    );
    check(
        "pk = :p AND begins_with(sk, :s)",
        expect![[r#"S("p") BeginsWith(S("s"))"#]],
    );
    check(
        "(#p = :p) AND (#s between :s and :t)",
        expect![[r#"S("p") Between(S("s"), S("t"))"#]],
    );
    check(
        "(#p = :p AND (begins_with(#s, (:s))))",
        expect![[r#"S("p") BeginsWith(S("s"))"#]],
    );
}

#[test]
fn refused_by_their_text() {
    check(
        "",
        expect!["Invalid KeyConditionExpression: The expression can not be empty;"],
    );
    check(
        " \t",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: "<EOF>", near: " 	""#]],
    );
    check(
        &format!("pk = :p{}", " ".repeat(4090)),
        expect!["Invalid KeyConditionExpression: Expression size has exceeded the maximum allowed size;"],
    );
    check(
        "pk =",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: "<EOF>", near: "=""#]],
    );
    check(
        "pk = :p AND",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: "<EOF>", near: "AND""#]],
    );
    check(
        "pk = :p x",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: "x", near: ":p x""#]],
    );
    check(
        "pk = :p :s",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: ":s", near: ":p :s""#]],
    );
    check(
        "pk :p",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: ":p", near: "pk :p""#]],
    );
    check(
        "= :p",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: "=", near: "= :p""#]],
    );
    check(
        "pk = :p)",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: ")", near: ":p)""#]],
    );
    check(
        "pk = :p AND begins_with(sk",
        expect![[r#"Invalid KeyConditionExpression: Syntax error; token: "<EOF>", near: "sk""#]],
    );
    check(
        "foo(pk)",
        expect!["Invalid KeyConditionExpression: Invalid function name; function: foo"],
    );
    check(
        "((pk = :p))",
        expect!["Invalid KeyConditionExpression: The expression has redundant parentheses;"],
    );
    check(
        "pk = ((:p))",
        expect!["Invalid KeyConditionExpression: The expression has redundant parentheses;"],
    );
    check(
        "hash = :p",
        expect![
            "Invalid KeyConditionExpression: Attribute name is a reserved keyword; reserved keyword: hash"
        ],
    );
}

#[test]
fn refused_with_their_values() {
    check(
        "pk = :missing",
        expect![
            "Invalid KeyConditionExpression: An expression attribute value used in expression is not defined; attribute value: :missing"
        ],
    );
    check(
        "#missing = :p",
        expect![
            "Invalid KeyConditionExpression: An expression attribute name used in the document path is not defined; attribute name: #missing"
        ],
    );
    check(
        "pk = :p AND begins_with(sk, :n)",
        expect![
            "Invalid KeyConditionExpression: Incorrect operand type for operator or function; operator or function: begins_with, operand type: N"
        ],
    );
    check(
        "pk = :p AND sk < :b",
        expect![
            "Invalid KeyConditionExpression: Incorrect operand type for operator or function; operator or function: <, operand type: BOOL"
        ],
    );
    check(
        "pk = :p AND sk BETWEEN :l AND :s",
        expect![
            "Invalid KeyConditionExpression: Incorrect operand type for operator or function; operator or function: BETWEEN, operand type: L"
        ],
    );
    check(
        "pk = :p AND sk BETWEEN :t AND :s",
        expect![
            "Invalid KeyConditionExpression: The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {S:t}, upper bound operand: AttributeValue: {S:s}"
        ],
    );
    check(
        "pk = :p AND sk BETWEEN :m AND :x",
        expect![
            "Invalid KeyConditionExpression: The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {B:AQI=}"
        ],
    );
    check(
        "pk = :p AND begins_with(sk)",
        expect![
            "Invalid KeyConditionExpression: Incorrect number of operands for operator or function; operator or function: begins_with, number of operands: 1"
        ],
    );
}

#[test]
fn refused_as_key_conditions() {
    check(
        "pk = :p OR sk = :s",
        expect!["Invalid operator used in KeyConditionExpression: OR"],
    );
    check(
        "NOT pk = :p",
        expect!["Invalid operator used in KeyConditionExpression: NOT"],
    );
    check(
        "pk <> :p",
        expect!["Invalid operator used in KeyConditionExpression: <>"],
    );
    check(
        "pk IN (:p)",
        expect!["Invalid operator used in KeyConditionExpression: IN"],
    );
    check(
        "attribute_exists(pk)",
        expect!["Invalid operator used in KeyConditionExpression: attribute_exists"],
    );
    check(
        "contains(pk, :p)",
        expect!["Invalid operator used in KeyConditionExpression: contains"],
    );
    check(
        "size(pk) = :n",
        expect!["KeyConditionExpressions cannot contain nested operations"],
    );
    check(
        "pk.a = :p",
        expect![
            "Invalid KeyConditionExpression: KeyConditionExpressions cannot have conditions on nested attributes"
        ],
    );
    check(
        "pk[0] = :p",
        expect![
            "Invalid KeyConditionExpression: KeyConditionExpressions cannot have conditions on nested attributes"
        ],
    );
    check(
        "pk = sk",
        expect![
            "Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition"
        ],
    );
    check(
        "pk = :p AND :s BETWEEN sk AND :t",
        expect![
            "Invalid condition in KeyConditionExpression: BETWEEN operator must have the key attribute as its first operand"
        ],
    );
    check(
        "pk = :p AND begins_with(:s, sk)",
        expect![
            "Invalid condition in KeyConditionExpression: begins_with operator must have the key attribute as its first operand"
        ],
    );
    check(
        ":p = :s",
        expect!["Invalid condition in KeyConditionExpression: No key attribute specified"],
    );
    check(
        "pk = :p AND sk > :s AND sk < :t",
        expect![
            "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key"
        ],
    );
}

#[test]
fn refused_by_the_key() {
    check(
        "sk = :s",
        expect!["Query condition missed key schema element: pk"],
    );
    check(
        "attr1 = :s",
        expect!["Query condition missed key schema element: pk"],
    );
    check("pk > :p", expect!["Query key condition not supported"]);
    check(
        "begins_with(pk, :p)",
        expect!["Query key condition not supported"],
    );
    check(
        "pk = :p AND attr1 = :s",
        expect!["Query condition missed key schema element: sk"],
    );
    check(
        "pk = :p AND #d = :s",
        expect!["Query condition missed key schema element: sk"],
    );
    check(
        "pk = :p AND sk = :s AND attr1 = :s",
        expect![
            "The number of query conditions (3) exceeds the number of key attributes defined in the schema (2)"
        ],
    );
    check(
        "pk = :n",
        expect![
            "One or more parameter values were invalid: Condition parameter type does not match schema type"
        ],
    );
    check(
        "pk = :p AND sk = :n",
        expect![
            "One or more parameter values were invalid: Condition parameter type does not match schema type"
        ],
    );
    check(
        "pk = :e",
        expect![
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk"
        ],
    );
}

#[test]
fn keys_of_other_shapes() {
    let simple = KeySchema {
        partition: &[PARTITION],
        sort: &[],
    };
    check_key(simple, "pk = :p", expect![[r#"S("p") All"#]]);
    check_key(
        simple,
        "pk = :p AND sk = :s",
        expect![
            "The number of query conditions (2) exceeds the number of key attributes defined in the schema (1)"
        ],
    );

    let attribute = |name| KeyAttribute {
        name,
        kind: KeyType::S,
    };
    let (partition, sort) = ([attribute("a"), attribute("b")], [attribute("c"), attribute("d")]);
    let key = KeySchema {
        partition: &partition,
        sort: &sort,
    };
    let check = |expression: &str, expected: Expect| {
        let (names, values) = (names(""), values(VALUES));
        let condition = KeyCondition::parse(expression).unwrap();
        let text = match condition
            .bind(&names, &values)
            .and_then(|clauses| clauses.resolve_composite(key))
        {
            Ok(found) => format!("{:?} {:?} {:?}", found.partition, found.equal, found.last),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    };
    check("a = :p AND b = :s", expect![[r#"[S("p"), S("s")] [] All"#]]);
    check(
        "b = :s AND a = :p AND c = :t AND d > :s",
        expect![[r#"[S("p"), S("s")] [S("t")] Greater(S("s"))"#]],
    );
    check(
        "a = :p AND b = :s AND begins_with(c, :t)",
        expect![[r#"[S("p"), S("s")] [] BeginsWith(S("t"))"#]],
    );
    check(
        "a = :p",
        expect!["HASH key attributes b must have equality conditions specified in the query"],
    );
    check(
        "c = :p",
        expect!["HASH key attributes a, b must have equality conditions specified in the query"],
    );
    check(
        "a = :p AND b = :s AND d > :t",
        expect![
            "RANGE key attributes c must have equality conditions specified in the query because a condition is present on key attribute d"
        ],
    );
    check(
        "a = :p AND b = :s AND c > :t AND d > :t",
        expect![
            "RANGE key attributes c must have equality conditions specified in the query because a condition is present on key attribute d"
        ],
    );
}

#[test]
fn placeholders_that_nothing_uses() {
    let (names, values) = (
        names("#p=pk #unused=x #alas=y"),
        values(r#"{":p":{"S":"p"},":q":{"S":"q"}}"#),
    );
    KeyCondition::parse("#p = :p")
        .unwrap()
        .bind(&names, &values)
        .unwrap();
    expect!["Value provided in ExpressionAttributeNames unused in expressions: keys: {#alas, #unused}"]
        .assert_eq(&names.check_used().unwrap_err().to_string());
    expect!["Value provided in ExpressionAttributeValues unused in expressions: keys: {:q}"]
        .assert_eq(&values.check_used().unwrap_err().to_string());
}
