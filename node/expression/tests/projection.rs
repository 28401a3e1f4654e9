//! Projections: what is refused in which words, and what is left of an item.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use cairn_expression::Projection;
use cairn_item::ItemBytes;
use cairn_item::json::write_item;
use expect_test::{Expect, expect};
use support::{item, names};

const NAMES: &str = "#a=a #dot=a.b #l=l";
const ITEM: &str = r#"{"pk":{"S":"p"},"a":{"S":"abc"},"a.b":{"N":"1"},"l":{"L":[{"S":"zero"},{"M":{"x":{"N":"1"},"y":{"N":"2"}}},{"S":"two"},{"L":[{"N":"3"},{"N":"4"}]}]},
    "m":{"M":{"k":{"N":"1"},"n":{"M":{"o":{"S":"deep"},"p":{"S":"more"}}},"hollow":{"M":{}}}}}"#;

fn check(expression: &str, expected: Expect) {
    let names = names(NAMES);
    let bytes = ItemBytes::from_item(&item(ITEM));
    let text = match Projection::parse(expression) {
        Err(error) => error.to_string(),
        Ok(projection) => match projection.bind(&names) {
            Err(error) => error.to_string(),
            Ok(bound) => {
                let mut owned = Vec::new();
                write_item(&mut owned, &bound.project(bytes.view()));
                let mut written = Vec::new();
                bound.write_json(&mut written, bytes.view());
                assert_eq!(String::from_utf8(owned), String::from_utf8(written.clone()));
                String::from_utf8(written).unwrap()
            }
        },
    };
    expected.assert_eq(text.trim_start_matches("Invalid ProjectionExpression: "));
}

#[test]
fn parts_of_an_item() {
    check("pk", expect![[r#"{"pk":{"S":"p"}}"#]]);
    check("pk, a, nothing", expect![[r#"{"a":{"S":"abc"},"pk":{"S":"p"}}"#]]);
    check("nothing", expect!["{}"]);
    check("#dot, a", expect![[r#"{"a":{"S":"abc"},"a.b":{"N":"1"}}"#]]);
    check("m.k", expect![[r#"{"m":{"M":{"k":{"N":"1"}}}}"#]]);
    check(
        "m.n.o, m.n.p",
        expect![[r#"{"m":{"M":{"n":{"M":{"o":{"S":"deep"},"p":{"S":"more"}}}}}}"#]],
    );
    check(
        "m.n.o, m.k, pk",
        expect![[r#"{"m":{"M":{"k":{"N":"1"},"n":{"M":{"o":{"S":"deep"}}}}},"pk":{"S":"p"}}"#]],
    );
    check("m.hollow", expect![[r#"{"m":{"M":{"hollow":{"M":{}}}}}"#]]);
    check("m.hollow.k", expect!["{}"]);
    check("m.gone, m.n.gone, a.b, l[9], l[0].x, l[2][0]", expect!["{}"]);
    check(
        "l[2], l[0]",
        expect![[r#"{"l":{"L":[{"S":"zero"},{"S":"two"}]}}"#]],
    );
    check(
        "l[1].y, l[1].x, l[3][1]",
        expect![[r#"{"l":{"L":[{"M":{"x":{"N":"1"},"y":{"N":"2"}}},{"L":[{"N":"4"}]}]}}"#]],
    );
    check(
        "l[1].gone, l[3][1], l[0]",
        expect![[r#"{"l":{"L":[{"S":"zero"},{"L":[{"N":"4"}]}]}}"#]],
    );
    check("l[10], l[2]", expect![[r#"{"l":{"L":[{"S":"two"}]}}"#]]);
}

#[test]
fn refused() {
    check("", expect!["The expression can not be empty;"]);
    check(" ", expect![[r#"Syntax error; token: "<EOF>", near: " ""#]]);
    check("a,", expect![[r#"Syntax error; token: "<EOF>", near: ",""#]]);
    check("a b", expect![[r#"Syntax error; token: "b", near: "a b""#]]);
    check(",a", expect![[r#"Syntax error; token: ",", near: ",a""#]]);
    check("a, :v", expect![[r#"Syntax error; token: ":v", near: ", :v""#]]);
    check("(a)", expect![[r#"Syntax error; token: "(", near: "(a""#]]);
    check("a = b", expect![[r#"Syntax error; token: "=", near: "a = b""#]]);
    check(
        "size(a)",
        expect![[r#"Syntax error; token: "(", near: "size(a""#]],
    );
    check("a[", expect![[r#"Syntax error; token: "<EOF>", near: "[""#]]);
    check("a[00]", expect![[r#"Syntax error; token: "0", near: "00]""#]]);
    check("a. b . c [ 0 ]", expect!["{}"]);
    check("a, !", expect![[r#"Syntax error; token: "!", near: ", !""#]]);
    check("set", expect![[r#"Syntax error; token: "set", near: "set""#]]);
    check(
        "status, hash",
        expect!["Attribute name is a reserved keyword; reserved keyword: status"],
    );
    check(
        "a.hash",
        expect!["Attribute name is a reserved keyword; reserved keyword: hash"],
    );
    check(
        "#hidden",
        expect![
            "An expression attribute name used in the document path is not defined; attribute name: #hidden"
        ],
    );
    check(
        "a, #a",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]"
        ],
    );
    check(
        "a, a.b",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]"
        ],
    );
    check(
        "a.b, a",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, b], path two: [a]"
        ],
    );
    check(
        "a.b, a[0]",
        expect![
            "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [a, b], path two: [a, [0]]"
        ],
    );
    check(
        "l[0], pk, l[0].x",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [l, [0]], path two: [l, [0], x]"
        ],
    );
    check(
        "#hidden, a, a",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]"
        ],
    );
    check(
        "a, a, #hidden",
        expect![
            "An expression attribute name used in the document path is not defined; attribute name: #hidden"
        ],
    );
    check(
        &vec!["a"; 33].join("."),
        expect!["The document path has too many nesting levels; nesting levels: 33"],
    );
    check(
        &"a".repeat(4097),
        expect!["Expression size has exceeded the maximum allowed size;"],
    );
}
