//! Updates: what is refused in which words.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use cairn_expression::Update;
use expect_test::{Expect, expect};
use support::{names, values};

const NAMES: &str = "#c=c #d=[3] #s=a.b #n=name #pk=pk";
const VALUES: &str = r#"{":s":{"S":"s"},":n":{"N":"5"},":m":{"N":"-0.5"},":b":{"B":"AQI="},":t":{"BOOL":true},":null":{"NULL":true},
    ":ss":{"SS":["x","y"]},":ns":{"NS":["1","5"]},":bs":{"BS":["AQ=="]},":l":{"L":[{"N":"1"},{"S":"x"}]},":el":{"L":[]},":map":{"M":{"k":{"N":"1"}}},
    ":big":{"N":"9e125"}}"#;

fn refuses(expression: &str, expected: Expect) {
    let (names, values) = (names(NAMES), values(VALUES));
    let text = match Update::parse(expression) {
        Ok(update) => match update.bind(&names, &values) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    expected.assert_eq(text.trim_start_matches("Invalid UpdateExpression: "));
}

#[test]
fn syntax_errors() {
    refuses("", expect!["The expression can not be empty;"]);
    refuses("  ", expect![[r#"Syntax error; token: "<EOF>", near: "  ""#]]);
    refuses(
        "INVALID SYNTAX HERE",
        expect![[r#"Syntax error; token: "INVALID", near: "INVALID SYNTAX""#]],
    );
    refuses("SET", expect![[r#"Syntax error; token: "<EOF>", near: "SET""#]]);
    refuses("SET a", expect![[r#"Syntax error; token: "<EOF>", near: "a""#]]);
    refuses("SET a =", expect![[r#"Syntax error; token: "<EOF>", near: "=""#]]);
    refuses(
        "SET a = :s,",
        expect![[r#"Syntax error; token: "<EOF>", near: ",""#]],
    );
    refuses(
        "SET a = :s b",
        expect![[r#"Syntax error; token: "b", near: ":s b""#]],
    );
    refuses(
        "SET a = :s, REMOVE b",
        expect![[r#"Syntax error; token: "REMOVE", near: ", REMOVE b""#]],
    );
    refuses(
        "SET a = b + c + d",
        expect![[r#"Syntax error; token: "+", near: "c + d""#]],
    );
    refuses(
        "SET a = (b + c) + d",
        expect![[r#"Syntax error; token: "+", near: ") + d""#]],
    );
    refuses(
        "SET a = ((b + c))",
        expect!["The expression has redundant parentheses;"],
    );
    refuses("SET a = (b + (c))", expect!["accepted"]);
    refuses("SET a = ((b) + c)", expect!["accepted"]);
    refuses(
        "SET a = b * c",
        expect![[r#"Syntax error; token: "*", near: "b * c""#]],
    );
    refuses(
        "SET (a) = :s",
        expect![[r#"Syntax error; token: "(", near: "SET (a""#]],
    );
    refuses(
        "SET (a = :s)",
        expect![[r#"Syntax error; token: "(", near: "SET (a""#]],
    );
    refuses(
        "SET :s = a",
        expect![[r#"Syntax error; token: ":s", near: "SET :s =""#]],
    );
    refuses(
        "SET f(a) = :s",
        expect![[r#"Syntax error; token: "(", near: "f(a""#]],
    );
    refuses(
        "SET a = b = c",
        expect![[r#"Syntax error; token: "=", near: "b = c""#]],
    );
    refuses(
        "SET a = NOT b",
        expect![[r#"Syntax error; token: "NOT", near: "= NOT b""#]],
    );
    refuses(
        "SET a = :s SET",
        expect![[r#"Syntax error; token: "<EOF>", near: "SET""#]],
    );
    refuses(
        "REMOVE",
        expect![[r#"Syntax error; token: "<EOF>", near: "REMOVE""#]],
    );
    refuses(
        "REMOVE a b",
        expect![[r#"Syntax error; token: "b", near: "a b""#]],
    );
    refuses(
        "REMOVE a :s",
        expect![[r#"Syntax error; token: ":s", near: "a :s""#]],
    );
    refuses("ADD a", expect![[r#"Syntax error; token: "<EOF>", near: "a""#]]);
    refuses("ADD a b", expect![[r#"Syntax error; token: "b", near: "a b""#]]);
    refuses(
        "ADD a = :n",
        expect![[r#"Syntax error; token: "=", near: "a = :n""#]],
    );
    refuses(
        "DELETE a :ss :ss",
        expect![[r#"Syntax error; token: ":ss", near: ":ss :ss""#]],
    );
    refuses(
        "SET a = (b.c).d + e",
        expect![[r#"Syntax error; token: ".", near: ").d""#]],
    );
    refuses(
        "SET a = true",
        expect!["Attribute name is a reserved keyword; reserved keyword: true"],
    );
    refuses(
        "SET add = :s",
        expect![[r#"Syntax error; token: "add", near: "SET add =""#]],
    );
}

#[test]
fn refused_by_sections_names_and_functions() {
    refuses(
        "SET a = :s SET b = :s",
        expect![[r#"The "SET" section can only be used once in an update expression;"#]],
    );
    refuses(
        "REMOVE #d SET a = b REMOVE e",
        expect![[r#"The "REMOVE" section can only be used once in an update expression;"#]],
    );
    refuses(
        "ADD a :n SET b = :s ADD c :n",
        expect![[r#"The "ADD" section can only be used once in an update expression;"#]],
    );
    refuses(
        "DELETE a :ss DELETE b :ss",
        expect![[r#"The "DELETE" section can only be used once in an update expression;"#]],
    );
    refuses(
        "SET a = :s SET hash = :s",
        expect!["Attribute name is a reserved keyword; reserved keyword: hash"],
    );
    refuses(
        "SET hash = :s SET a = :s",
        expect!["Attribute name is a reserved keyword; reserved keyword: hash"],
    );
    refuses(
        "SET Absolute = :s",
        expect!["Attribute name is a reserved keyword; reserved keyword: Absolute"],
    );
    refuses("SET a = foo(b)", expect!["Invalid function name; function: foo"]);
    refuses(
        "SET a = size(b)",
        expect!["The function is not allowed in an update expression; function: size"],
    );
    refuses(
        "SET a = list_append(list_append(a, b), c)",
        expect!["The function is not allowed to be used this way in an expression; function: list_append"],
    );
    refuses(
        "SET a = if_not_exists(b, list_append(a, b))",
        expect!["The function is not allowed to be used this way in an expression; function: list_append"],
    );
    refuses(
        "SET a = list_append(a, b) + :n",
        expect!["The function is not allowed to be used this way in an expression; function: list_append"],
    );
    refuses(
        "SET a = :n + list_append(a, b)",
        expect!["The function is not allowed to be used this way in an expression; function: list_append"],
    );
    refuses(
        "SET a = (if_not_exists(b, :n)) + if_not_exists(c, :n)",
        expect!["accepted"],
    );
    refuses(
        "SET a[2147483648] = :s",
        expect!["List index is not within the allowable range; index: [2147483648]"],
    );
}

#[test]
fn refused_by_placeholders_and_operands() {
    refuses(
        "SET a = :missing",
        expect!["An expression attribute value used in expression is not defined; attribute value: :missing"],
    );
    refuses(
        "SET #missing = :missing",
        expect![
            "An expression attribute name used in the document path is not defined; attribute name: #missing"
        ],
    );
    refuses(
        "SET a = :missing1, b = :missing2",
        expect![
            "An expression attribute value used in expression is not defined; attribute value: :missing2"
        ],
    );
    refuses(
        "SET a = if_not_exists(c)",
        expect![
            "Incorrect number of operands for operator or function; operator or function: if_not_exists, number of operands: 1"
        ],
    );
    refuses(
        "SET a = list_append(c)",
        expect![
            "Incorrect number of operands for operator or function; operator or function: list_append, number of operands: 1"
        ],
    );
    refuses(
        "SET a = if_not_exists(:s, c)",
        expect!["Operator or function requires a document path; operator or function: if_not_exists"],
    );
    refuses(
        "SET a = if_not_exists(if_not_exists(a, b), c)",
        expect!["Operator or function requires a document path; operator or function: if_not_exists"],
    );
    refuses(
        "SET a = if_not_exists(b, b)",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: if_not_exists, first operand: [b]"
        ],
    );
    refuses(
        "SET a = :s + :n",
        expect!["Incorrect operand type for operator or function; operator or function: +, operand type: S"],
    );
    refuses(
        "SET a = b - :l",
        expect!["Incorrect operand type for operator or function; operator or function: -, operand type: L"],
    );
    refuses(
        "SET a = list_append(b, :n)",
        expect![
            "Incorrect operand type for operator or function; operator or function: list_append, operand type: N"
        ],
    );
    refuses(
        "SET a = list_append(:ss, b)",
        expect![
            "Incorrect operand type for operator or function; operator or function: list_append, operand type: SS"
        ],
    );
    refuses(
        "ADD a :s",
        expect![
            "Incorrect operand type for operator or function; operator: ADD, operand type: STRING, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        "ADD a :b",
        expect![
            "Incorrect operand type for operator or function; operator: ADD, operand type: Binary, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        "ADD a :t",
        expect![
            "Incorrect operand type for operator or function; operator: ADD, operand type: BOOL, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        "ADD a :null",
        expect![
            "Incorrect operand type for operator or function; operator: ADD, operand type: NULL, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        "ADD a :l",
        expect![
            "Incorrect operand type for operator or function; operator: ADD, operand type: LIST, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        "ADD a :map",
        expect![
            "Incorrect operand type for operator or function; operator: ADD, operand type: MAP, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        "DELETE a :n",
        expect![
            "Incorrect operand type for operator or function; operator: DELETE, operand type: NUMBER, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        "DELETE a :l",
        expect![
            "Incorrect operand type for operator or function; operator: DELETE, operand type: LIST, typeSet: ALLOWED_FOR_ADD_OPERAND"
        ],
    );
    refuses(
        &format!("SET {} = :s", vec!["a"; 33].join(".")),
        expect!["The document path has too many nesting levels; nesting levels: 33"],
    );
    refuses(
        &format!(
            "SET a = {}b, :n{}",
            "if_not_exists(x, ".repeat(200),
            ")".repeat(200)
        ),
        expect![
            "Incorrect number of operands for operator or function; operator or function: if_not_exists, number of operands: 3"
        ],
    );
}

/// DynamoDB names the path that its hash map gives first, which need not be the one that is met.
#[test]
fn paths_that_meet() {
    refuses(
        "SET a = :s, a = :n",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]"
        ],
    );
    refuses(
        "SET a = :s REMOVE a",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]"
        ],
    );
    refuses(
        "SET a = :s, a.b = :n",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]"
        ],
    );
    refuses(
        "SET a.b = :s, a = :n",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, b], path two: [a]"
        ],
    );
    refuses(
        "SET a.b.c = :s, a.b = :n",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, b, c], path two: [a, b]"
        ],
    );
    refuses(
        "SET a[1] = :s, a[1] = :n",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, [1]], path two: [a, [1]]"
        ],
    );
    refuses(
        "SET a[0] = :s, a.b = :n",
        expect![
            "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [a, [0]], path two: [a, b]"
        ],
    );
    refuses(
        "REMOVE a.#c SET a[1] = #d",
        expect![
            "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [a, c], path two: [a, [1]]"
        ],
    );
    refuses(
        "SET a.b = :s, a.c = :n, a.d[0] = :n, a.d[1] = :s",
        expect!["accepted"],
    );
    refuses(
        "SET #c = :s, c = :n",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [c], path two: [c]"
        ],
    );
    refuses(
        "set c.b.#c = a, c = a, #d = a",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [c, b, c], path two: [[3]]"
        ],
    );
    refuses(
        "set a = b remove a, #c, #d",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [[3]]"
        ],
    );
    refuses(
        "set #c[3].#d = a, #c[3] = a",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [c, [3], [3]], path two: [c, [3]]"
        ],
    );
    refuses(
        "remove c, #c.a, #d",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [c], path two: [[3]]"
        ],
    );
    refuses(
        "remove a, #c, a, #d",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [[3]]"
        ],
    );
    refuses(
        "set #c[3].#d = a, #c.#d[3] = if_not_exists(a)",
        expect![
            "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: [c, [3], [3]], path two: [c, [3], [3]]"
        ],
    );
    refuses(
        "REMOVE a, a, #missing",
        expect![
            "An expression attribute name used in the document path is not defined; attribute name: #missing"
        ],
    );
    refuses(
        "REMOVE #missing, a, a",
        expect![
            "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]"
        ],
    );
}
