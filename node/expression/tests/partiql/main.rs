//! PartiQL: what statements are parsed to, what is refused in which words, what they read, and that random ones come back as
//! they were printed.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod plans;
mod random;

use cairn_expression::Names;
use cairn_expression::partiql::Statement;
use cairn_item::json::Reader;
use cairn_item::{Item, ItemBytes, Value};

/// Parameters of DynamoDB's JSON; an empty text for none.
fn parameters(json: &str) -> Vec<Value> {
    let mut values = Vec::new();
    if json.is_empty() {
        return values;
    }
    let mut reader = Reader::new(json.as_bytes()).unwrap();
    reader.begin_array().unwrap();
    while reader.next_element().unwrap() {
        values.push(reader.value().unwrap());
    }
    values
}

fn item(json: &str) -> Item {
    Reader::new(json.as_bytes()).unwrap().item().unwrap()
}

/// What is wrong with a statement, in parsing or in binding it.
fn refusal(text: &str, with: &str) -> String {
    match Statement::parse(text).and_then(|statement| statement.bind(parameters(with)).map(drop)) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// A statement, and how it is printed.
const PRINTED: [(&str, &str); 25] = [
    ("select * from T", r#"SELECT * FROM "T""#),
    (
        r#"SELECT a, "b".c[1]['d'] FROM "T"."i" ;"#,
        r#"SELECT "a", "b"."c"[1]."d" FROM "T"."i""#,
    ),
    (
        "SELECT * FROM T WHERE a = 1",
        r#"SELECT * FROM "T" WHERE "a" = 1"#,
    ),
    (
        "SELECT * FROM T WHERE a != 'it''s' -- why",
        r#"SELECT * FROM "T" WHERE "a" <> 'it''s'"#,
    ),
    (
        "SELECT * FROM T WHERE /* or */ NOT (a = ? OR b < .5) AND c >= -1e3",
        r#"SELECT * FROM "T" WHERE NOT ("a" = ? OR "b" < 0.5) AND "c" >= -1000"#,
    ),
    (
        "SELECT * FROM T WHERE a IS MISSING AND b IS NOT MISSING AND c IS NULL AND d IS NOT STRING",
        r#"SELECT * FROM "T" WHERE attribute_not_exists("a") AND attribute_exists("b") AND attribute_type("c", 'NULL') AND NOT attribute_type("d", 'S')"#,
    ),
    (
        "SELECT * FROM T WHERE a IN [1, 2] AND b NOT IN (?, c) AND a NOT BETWEEN 1 AND 2",
        r#"SELECT * FROM "T" WHERE "a" IN (1, 2) AND NOT "b" IN (?, "c") AND NOT "a" BETWEEN 1 AND 2"#,
    ),
    (
        "SELECT * FROM T WHERE BEGINS_WITH(a, 'x') AND contains(b, 1) = false AND size(c) > 3 AND attribute_type(d, ?) <> false",
        r#"SELECT * FROM "T" WHERE begins_with("a", 'x') AND NOT contains("b", 1) AND size("c") > 3 AND attribute_type("d", ?)"#,
    ),
    (
        "SELECT * FROM T WHERE a = 1 AND (b = 2 OR c = 3) OR d = 4",
        r#"SELECT * FROM "T" WHERE "a" = 1 AND ("b" = 2 OR "c" = 3) OR "d" = 4"#,
    ),
    (
        "SELECT * FROM T WHERE a = [1, {'x': TRUE, 'y': null}, <<'b', 'a'>>, <<2, 1>>, []]",
        r#"SELECT * FROM "T" WHERE "a" = [1, {'x': TRUE, 'y': NULL}, <<'a', 'b'>>, <<1, 2>>, []]"#,
    ),
    (
        "SELECT * FROM T WHERE ((a)) = ((1))",
        r#"SELECT * FROM "T" WHERE "a" = 1"#,
    ),
    (
        "SELECT * FROM T WHERE a = 1 = true",
        r#"SELECT * FROM "T" WHERE "a" = 1"#,
    ),
    (
        "SELECT * FROM T WHERE NOT NOT a = 1 ORDER BY a DESC, b ASC NULLS LAST, c",
        r#"SELECT * FROM "T" WHERE NOT NOT "a" = 1 ORDER BY "a" DESC, "b", "c""#,
    ),
    (
        "INSERT INTO T VALUE {'pk': ?, 'a': 1}",
        r#"INSERT INTO "T" VALUE {'pk': ?, 'a': 1}"#,
    ),
    (
        "UPDATE T SET a = 1, b.c = a + 1 SET d = ? - e REMOVE f REMOVE g[0] WHERE pk = 'a'",
        r#"UPDATE "T" SET "a" = 1 SET "b"."c" = "a" + 1 SET "d" = ? - "e" REMOVE "f" REMOVE "g"[0] WHERE "pk" = 'a'"#,
    ),
    (
        "UPDATE T SET a = list_append(if_not_exists(a, []), [1]) WHERE pk = 'a' RETURNING MODIFIED NEW *",
        r#"UPDATE "T" SET "a" = list_append(if_not_exists("a", []), [1]) WHERE "pk" = 'a' RETURNING MODIFIED NEW *"#,
    ),
    (
        "UPDATE T SET a.b = set_add(a.b, <<1>>), c = set_delete(c, ?) WHERE pk = 'a'",
        r#"UPDATE "T" SET "a"."b" = set_add("a"."b", <<1>>) SET "c" = set_delete("c", ?) WHERE "pk" = 'a'"#,
    ),
    (
        "FROM T WHERE pk = ? SET a = ? RETURNING ALL OLD *",
        r#"FROM "T" WHERE "pk" = ? SET "a" = ? RETURNING ALL OLD *"#,
    ),
    (
        "UPDATE T SET a = (b + 1) WHERE pk = 'a'",
        r#"UPDATE "T" SET "a" = "b" + 1 WHERE "pk" = 'a'"#,
    ),
    (
        "exists ( select * from T where pk = ? and a > 1 )",
        r#"EXISTS(SELECT * FROM "T" WHERE "pk" = ? AND "a" > 1)"#,
    ),
    (
        "DELETE FROM T WHERE pk = 'a'",
        r#"DELETE FROM "T" WHERE "pk" = 'a'"#,
    ),
    (
        "DELETE FROM T WHERE pk = 'a' RETURNING ALL OLD *",
        r#"DELETE FROM "T" WHERE "pk" = 'a' RETURNING ALL OLD *"#,
    ),
    (r#"SELECT "a""b" FROM "T""#, r#"SELECT "a""b" FROM "T""#),
    (
        "SELECT * FROM T WHERE 1 < a",
        r#"SELECT * FROM "T" WHERE 1 < "a""#,
    ),
    (
        "SELECT * FROM T WHERE a <> b AND 'x' IN [a, size(b)]",
        r#"SELECT * FROM "T" WHERE "a" <> "b" AND 'x' IN ("a", size("b"))"#,
    ),
];

#[test]
fn statements_are_printed_and_come_back() {
    for (text, printed) in PRINTED {
        let statement = Statement::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(statement.to_string(), printed, "{text}");
        assert_eq!(Statement::parse(printed).as_ref(), Ok(&statement), "{text}");
    }
}

const MALFORMED: &str = "Statement wasn't well formed, can't be processed: ";

/// What begins with `-` is DynamoDB's complaint about the form.
const REFUSED: [(&str, &str, &str); 93] = [
    ("", "", "-Unexpected term"),
    ("SELECT", "", "-Unexpected term"),
    (
        "SELECT FROM T",
        "",
        "-Expected identifier or an expression but found unexpected keyword 'from' in a select list.",
    ),
    ("SELECT * FROM", "", "-Unexpected term"),
    ("SELECT * FROM WHERE", "", "-Unexpected keyword"),
    ("SELECT * FROM T WHERE", "", "-Unexpected term"),
    ("SELECTT * FROMM T", "", "-Unexpected token after expression"),
    ("FOO", "", "Unsupported operation: Id"),
    ("FOO.BAR", "", "Unsupported operation: Path"),
    ("'a'", "", "Unsupported operation: Lit"),
    ("<<1>>", "", "Unsupported operation: Bag"),
    (
        "EXISTS(SELECT a FROM T)",
        "",
        "EXISTS takes SELECT * of a table with a WHERE clause",
    ),
    (
        "SET a = 1",
        "",
        "Only select from a single table or index is supported.",
    ),
    ("SELECT *, a FROM T", "", "-Unexpected token after expression"),
    ("SELECT a b FROM T", "", "Aliasing is not supported"),
    ("SELECT a AS b FROM T", "", "Aliasing is not supported"),
    ("SELECT a FROM T AS t", "", "Aliasing is not supported"),
    ("SELECT a FROM T t WHERE a = 1", "", "Aliasing is not supported"),
    ("SELECT COUNT(*) FROM T", "", "Unexpected path component at 1:8:5"),
    (
        "SELECT\n size(a) FROM T",
        "",
        "Unexpected path component at 2:2:4",
    ),
    (
        "SELECT a, a FROM T",
        "",
        "Duplicate identifiers in select clause: a",
    ),
    (
        "SELECT a.b, c.b FROM T",
        "",
        "Duplicate identifiers in select clause: b",
    ),
    (
        "SELECT a, a.b FROM T",
        "",
        "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a, b], path two: [a]",
    ),
    (
        "SELECT DISTINCT a FROM T",
        "",
        "Unsupported token in expression: DISTINCT",
    ),
    (
        "SELECT VALUE a FROM T",
        "",
        "Select projection doesn't support value or pivot keywords",
    ),
    (
        "SELECT a FROM T, U",
        "",
        "Only select from a single table or index is supported.",
    ),
    (
        "SELECT a FROM T LIMIT 1",
        "",
        "Unsupported clause: LIMIT at 1:23:1",
    ),
    ("SELECT a FROM T GROUP BY a", "", "Unsupported clause: GROUP BY"),
    (
        "SELECT a FROM a.b.c",
        "",
        "A path may contain at most 2 components in the FROM clause",
    ),
    (
        r#"SELECT a FROM """#,
        "",
        "Path component cannot be an empty string",
    ),
    (
        "SELECT a FROM T; x",
        "",
        "-Unexpected token after semicolon. (Only one query is allowed.)",
    ),
    (
        "SELECT a FROM T WHERE a = 1 foo",
        "",
        "-Unexpected token after expression",
    ),
    (
        "SELECT a FROM T WHERE a = 1 AND",
        "",
        "-Missing right-hand side expression of infix operator",
    ),
    ("SELECT a FROM T WHERE AND a = 1", "", "-Unexpected operator"),
    (
        "SELECT a FROM T WHERE SELECT",
        "",
        "Unsupported token in expression: SELECT at 1:23:6",
    ),
    ("SELECT a FROM T WHERE (a = 1", "", "-Expected RIGHT_PAREN"),
    ("SELECT a FROM T WHERE a = [1", "", "-Expected RIGHT_BRACKET"),
    ("SELECT a FROM T WHERE a = 'x", "", "-Unterminated string literal"),
    ("SELECT a FROM T /* x", "", "-"),
    ("SELECT a FROM T WHERE a # 1", "", "-"),
    (
        "SELECT a FROM T WHERE a",
        "",
        "WHERE clause must contain an expression that resolves to a boolean",
    ),
    (
        "SELECT a FROM T WHERE size(a)",
        "",
        "WHERE clause must contain an expression that resolves to a boolean",
    ),
    (
        "SELECT a FROM T WHERE a AND a = 1",
        "",
        "The arguments to AND/OR must be Expressions",
    ),
    (
        "SELECT a FROM T WHERE size(a) AND a = 1",
        "",
        "Incorrect operand type for operator or function; operator or function: AND, operand type: N",
    ),
    (
        "SELECT a FROM T WHERE a + 1 = 2",
        "",
        "Unsupported operator in Condition Expression. Operator: +",
    ),
    (
        "SELECT a FROM T WHERE a LIKE 'x'",
        "",
        "Unsupported operator in Condition Expression. Operator: like",
    ),
    (
        "SELECT a FROM T WHERE - a = 1",
        "",
        "Unsupported operator in Condition Expression. Operator: -",
    ),
    ("SELECT a FROM T WHERE a BETWEEN 1", "", "-Expected AND keyword"),
    (
        "SELECT a FROM T WHERE a BETWEEN 1 AND",
        "",
        "-Expected expression after AND",
    ),
    (
        "SELECT a FROM T WHERE a BETWEEN 2 AND 1",
        "",
        "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
    ),
    (
        "SELECT a FROM T WHERE a IN []",
        "",
        "IN operator must have a left hand argument of type Variable Reference and right hand argument of type Seq with at least one member",
    ),
    (
        "SELECT a FROM T WHERE a IN ?",
        r#"[{"N":"1"}]"#,
        "IN operator must have a left hand argument of type Variable Reference and right hand argument of type Seq with at least one member",
    ),
    ("SELECT a FROM T WHERE a IS", "", "-Expected type name"),
    ("SELECT a FROM T WHERE a IS FOO", "", "-Expected type name"),
    (
        "SELECT a FROM T WHERE a IS INT",
        "",
        "Unsupported data type for IS operator: IntegerType. Supported data types are [MISSING, NULL, BOOLEAN, BLOB, STRING, NUMERIC, STRUCT, TUPLE, LIST] at 1:23:1",
    ),
    (
        "SELECT a FROM T WHERE a = MISSING",
        "",
        "MISSING must be compared using IS operator",
    ),
    (
        "SELECT a FROM T WHERE foo(a)",
        "",
        "Unrecognized function: foo at 1:23:3",
    ),
    (
        "SELECT a FROM T WHERE EXISTS(a)",
        "",
        "Unrecognized function: exists at 1:23:6",
    ),
    (
        "SELECT a FROM T WHERE EXISTS(SELECT * FROM T)",
        "",
        "Unsupported token in expression: SELECT at 1:30:6",
    ),
    (
        "SELECT a FROM T WHERE begins_with(a)",
        "",
        "Incorrect number of operands for operator or function; operator or function: begins_with, number of operands: 1",
    ),
    (
        "SELECT a FROM T WHERE size() = 1",
        "",
        "Incorrect number of operands for operator or function; operator or function: size, number of operands: 0",
    ),
    (
        "SELECT a FROM T WHERE begins_with(a, 1)",
        "",
        "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N",
    ),
    (
        "SELECT a FROM T WHERE contains(a, b = 1)",
        "",
        "Incorrect operand type for operator or function; operator or function: contains, operand type: BOOL",
    ),
    (
        "SELECT a FROM T WHERE a = contains(b, 1)",
        "",
        "Incorrect operand type for operator or function; operator or function: =, operand type: BOOL",
    ),
    (
        "SELECT a FROM T WHERE a > ?",
        r#"[{"BOOL":true}]"#,
        "Incorrect operand type for operator or function; operator or function: >, operand type: BOOL",
    ),
    (
        "SELECT a FROM T WHERE attribute_exists(1)",
        "",
        "Operator or function requires a document path; operator or function: attribute_exists",
    ),
    (
        "SELECT a FROM T WHERE attribute_type(a, 'Q')",
        "",
        "Invalid attribute type name found; type: Q, valid types: {N,BS,L,B,NULL,M,S,SS,NS,BOOL}",
    ),
    (
        "SELECT a FROM T WHERE a = a",
        "",
        "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [a]",
    ),
    (
        "SELECT a FROM T WHERE a = ?",
        "",
        "Number of parameters in request and statement don't match.",
    ),
    ("SELECT a FROM T WHERE a = ?", r#"[{"N":"1"},{"N":"2"}]"#, ""),
    (
        "SELECT a FROM T WHERE a = [?]",
        "",
        "Unsupported data type: Parameter under key root[0] at 1:28:1",
    ),
    (
        "SELECT a FROM T WHERE a = {'x': [b]}",
        "",
        "Unsupported data type: VariableReference under key root.x[0] at 1:34:1",
    ),
    (
        "SELECT a FROM T WHERE a = {'x': 1e200}",
        "",
        "Number overflow. Attempting to store a number with magnitude larger than supported range under root.x",
    ),
    (
        "SELECT a FROM T WHERE a = {x: 1}",
        "",
        "Tuple keys must be of type String. Actual type: VariableReference under root at 1:28:1",
    ),
    (
        "SELECT a FROM T WHERE a = {'x': 1, 'x': 2}",
        "",
        "Duplicate keys in tuple. Key: x under root at 1:36:3",
    ),
    (
        "SELECT a FROM T WHERE a = <<>>",
        "",
        "Empty bags are not supported",
    ),
    (
        "SELECT a FROM T WHERE a = <<1, 'x'>>",
        "",
        "Unsupported data type in Bag. DynamoDB only supports either numbers or strings in bags",
    ),
    (
        "SELECT a FROM T WHERE a = <<1, 1.0>>",
        "",
        "One or more parameter values were invalid: Input collection [1, 1] contains duplicates! under root",
    ),
    (
        "SELECT a[9999999999] FROM T",
        "",
        "List index is not within the allowable range; index: [9999999999] at 1:10:10",
    ),
    ("INSERT T", "", "-Unexpected keyword"),
    (
        "INSERT INTO T VALUES ({'a': 1})",
        "",
        "Unsupported operation: InsertOp",
    ),
    (
        "INSERT INTO T VALUE ?",
        r#"[{"M":{}}]"#,
        "Unsupported format in item expression. Please use struct format {...} to express item values for insert statement. at 1:21:1",
    ),
    (
        "INSERT INTO T.i VALUE {'a': 1}",
        "",
        "FROM clause may only contain a single table name in data manipulation statements at 1:13:1",
    ),
    (
        "INSERT INTO T VALUE {'a': 1} RETURNING ALL OLD *",
        "",
        "RETURNING is not supported in INSERT",
    ),
    ("UPDATE T WHERE a = 1", "", "-Expected data manipulation"),
    ("UPDATE T SET a 1", "", "-Expected '='"),
    (
        "UPDATE T SET a = 1 * 2",
        "",
        "Unsupported operator in Update Expression. Operator: *",
    ),
    (
        "UPDATE T SET a = 1, a = 2",
        "",
        "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a]",
    ),
    (
        "UPDATE T SET a.b = 1 REMOVE a",
        "",
        "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [a], path two: [a, b]",
    ),
    (
        "UPDATE T SET a = set_add(b, <<1>>)",
        "",
        "The first argument to SET_ADD must equal the assignment value at 1:18:7",
    ),
    (
        "UPDATE T SET a = set_add(a, ?)",
        r#"[{"N":"1"}]"#,
        "The second argument to SET_ADD must be a value with type SET at 1:26:1",
    ),
    ("DELETE T", "", "-Expected FROM after DELETE"),
    (
        "DELETE FROM T WHERE a = 1 RETURNING ALL NEW *",
        "",
        "Invalid returning clause: RETURNING ALL NEW *. Only RETURNING ALL OLD * is allowed in DELETE statements.",
    ),
];

#[test]
fn what_is_wrong_is_said_in_dynamodbs_words() {
    for (text, with, expected) in REFUSED {
        let expected = match expected.strip_prefix('-') {
            Some(detail) => format!("{MALFORMED}{detail}"),
            None => expected.to_owned(),
        };
        assert_eq!(refusal(text, with), expected, "{text}");
    }
}

#[test]
fn nothing_exhausts_the_stack() {
    let deep = "Statement is nested too deeply to parse";
    for (open, close) in [
        ("(", ")"),
        ("size(", ")"),
        ("[", "]"),
        ("{'a':", "}"),
        ("<<", ">>"),
        ("a = NOT ", ""),
        ("- ", ""),
    ] {
        let count = 8000 / (open.len() + close.len());
        let text = format!(
            "SELECT * FROM T WHERE {}1{}",
            open.repeat(count),
            close.repeat(count)
        );
        assert_eq!(refusal(&text, ""), format!("{MALFORMED}{deep}"), "{open}");
    }
    let nots = format!("SELECT * FROM T WHERE {}a = 1", "NOT ".repeat(2000));
    assert_eq!(
        refusal(&nots, ""),
        "The expression contains too many operators; operator count: 301"
    );
    let chain = format!("SELECT * FROM T WHERE a = 1{}", " OR a = 1".repeat(800));
    assert_eq!(
        refusal(&chain, ""),
        "The expression contains too many operators; operator count: 301"
    );
    let long = format!("SELECT * FROM T WHERE a = '{}'", "ä".repeat(8192));
    assert_eq!(refusal(&long, ""), "Statements may have at most 8192 characters");
    let many = format!("SELECT * FROM T WHERE a IN [{}1]", "1,".repeat(100));
    assert_eq!(
        refusal(&many, ""),
        "The IN operator is provided with too many operands; number of operands: 101"
    );
    let literal = format!("SELECT * FROM T WHERE a = {}1{}", "[".repeat(40), "]".repeat(40));
    assert!(
        refusal(&literal, "").starts_with("Nesting Levels have exceeded supported limits under root[0][0]")
    );
}

#[test]
fn clauses_mean_what_expressions_mean() {
    let item = item(
        r#"{"pk":{"S":"a"},"n":{"N":"1"},"z":{"NULL":true},"t":{"BOOL":true},"l":{"L":[{"N":"1"},{"M":{"x":{"S":"y"}}}]},"s":{"SS":["p","q"]},"a.b":{"S":"dot"}}"#,
    );
    let bytes = ItemBytes::from_item(&item);
    for (clause, with, expected) in [
        ("n = 1.0", "", true),
        ("1 = n AND n != 2", "", true),
        (
            "n IS NUMERIC AND z IS NULL AND t IS BOOL AND l IS LIST AND pk IS STRING AND l[1] IS STRUCT",
            "",
            true,
        ),
        ("gone IS NULL", "", false),
        ("gone IS NOT NULL", "", true),
        ("gone IS MISSING AND n IS NOT MISSING", "", true),
        ("gone <> 1 AND NOT gone = 1", "", true),
        ("z = null AND t = true", "", true),
        ("l[1].x = 'y' AND l[1]['x'] = 'y'", "", true),
        (r#""a.b" = 'dot'"#, "", true),
        ("a.b = 'dot'", "", false),
        ("s = <<'q', 'p'>> AND contains(s, 'p')", "", true),
        ("contains(s, 'r') = FALSE", "", true),
        ("n IN [3, 2, 1] AND n NOT IN [2] AND n BETWEEN 0 AND 2", "", true),
        ("n NOT BETWEEN 1 AND 2", "", false),
        ("n = ? AND pk = ?", r#"[{"N":"1"},{"S":"a"}]"#, true),
        ("size(l) = 2 AND size(s) IN [2]", "", true),
        ("n = 2 AND n = 1 OR n = 1", "", true),
        ("n = 2 AND (n = 1 OR n = 1)", "", false),
        (
            "begins_with(pk, 'a') AND attribute_type(pk, 'S') = true",
            "",
            true,
        ),
    ] {
        let statement = Statement::parse(&format!("SELECT * FROM T WHERE {clause}")).unwrap();
        let values = statement.bind(parameters(with)).unwrap();
        let names = Names::none();
        let condition = statement.condition().unwrap().bind(&names, &values).unwrap();
        assert_eq!(condition.matches(Some(bytes.view())), expected, "{clause}");
    }
}

#[test]
fn a_select_names_its_parts_by_their_last_name() {
    let bytes = ItemBytes::from_item(&item(
        r#"{"a":{"L":[{"N":"1"},{"M":{"x":{"S":"y"}}}]},"m":{"M":{"k":{"N":"2"}}}}"#,
    ));
    for (list, expected) in [
        ("a[0], m.k", r#"{"a[0]":{"N":"1"},"k":{"N":"2"}}"#),
        ("a[1].x, gone, m", r#"{"x":{"S":"y"},"m":{"M":{"k":{"N":"2"}}}}"#),
        ("gone", "{}"),
    ] {
        let statement = Statement::parse(&format!("SELECT {list} FROM T")).unwrap();
        let mut out = Vec::new();
        statement.list().unwrap().write_json(&mut out, bytes.view());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
