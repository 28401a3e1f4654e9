//! Conditions and filters: what is refused in which words, and what is true of an item.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use cairn_expression::{Condition, Parameter};
use cairn_item::ItemBytes;
use expect_test::{Expect, expect};
use support::{item, names, values};

const NAMES: &str = "#n=name #s=a.b #m=m #a=a #c=c";
const VALUES: &str = r#"{":s":{"S":"abc"},":t":{"S":"abd"},":n":{"N":"5"},":m":{"N":"7.0"},":b":{"B":"AQID"},":t1":{"BOOL":true},":null":{"NULL":true},
    ":ss":{"SS":["x","y"]},":ns":{"NS":["1","5"]},":bs":{"BS":["AQ=="]},":l":{"L":[{"N":"1"},{"S":"x"}]},":map":{"M":{"k":{"N":"1"}}},
    ":S":{"S":"S"},":N":{"S":"N"},":SS":{"S":"SS"},":L":{"S":"L"},":bad":{"S":"Q"},":e":{"S":""}}"#;
const ITEM: &str = r#"{"pk":{"S":"p"},"a":{"S":"abc"},"num":{"N":"5"},"bin":{"B":"AQID"},"aye":{"BOOL":true},"nil":{"NULL":true},
    "ss":{"SS":["y","x"]},"ns":{"NS":["5","1.0"]},"bs":{"BS":["AQ=="]},"l":{"L":[{"N":"1.0"},{"S":"x"},{"L":[{"SS":["x","y"]}]}]},
    "m":{"M":{"k":{"N":"1"},"deep":{"M":{"k":{"S":"v"}}},"a.b":{"S":"dotted"}}},"name":{"S":"n"},"u":{"S":"é😀"},"hollow":{"S":""},
    "emap":{"M":{"k":{"N":"1.00"}}},"same":{"N":"5.0"}}"#;

fn refuses(expression: &str, expected: Expect) {
    let (names, values) = (names(NAMES), values(VALUES));
    let error = match Condition::parse(Parameter::Condition, expression) {
        Ok(condition) => condition
            .bind(&names, &values)
            .map(|_| "accepted".to_owned())
            .unwrap_or_else(|error| error.to_string()),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(error.trim_start_matches("Invalid ConditionExpression: "));
}

fn accepts(expression: &str) -> bool {
    let (names, values) = (names(NAMES), values(VALUES));
    let condition = Condition::parse(Parameter::Filter, expression)
        .unwrap_or_else(|error| panic!("{expression}: {error}"));
    let bytes = ItemBytes::from_item(&item(ITEM));
    let bound = condition
        .bind(&names, &values)
        .unwrap_or_else(|error| panic!("{expression}: {error}"));
    bound.matches(Some(bytes.view()))
}

/// Every line is a condition that is true of the item.
#[test]
fn true_of_the_item() {
    for expression in "
        a = :s
        :s = a
        a <> :t
        a < :t
        :t > a
        a <= :s
        a >= :s
        num = :n
        num = same
        num < :m
        num <= :m AND num >= :n
        bin = :b
        aye = :t1
        nil = :null
        ss = :ss
        ns = :ns
        bs = :bs
        emap = :map
        l[0] = m.k
        m.#s <> a OR a = :s
        attribute_exists(a)
        attribute_exists(m.deep.k)
        attribute_exists(l[2][0])
        attribute_not_exists(nothing)
        attribute_not_exists(a.b)
        attribute_not_exists(l[9])
        attribute_not_exists(a[0])
        attribute_not_exists(l.k)
        attribute_exists(nil)
        attribute_type(a, :S)
        attribute_type(num, :N)
        attribute_type(ss, :SS)
        attribute_type(l, :L)
        begins_with(a, :e)
        begins_with(a, a.k) OR begins_with(:s, a)
        begins_with(bin, :b)
        contains(a, :e)
        contains(u, u.k) OR contains(ss, l[1])
        contains(ns, :n)
        contains(l, :n) OR contains(l, m.k)
        contains(l[2], :ss)
        contains(bs, :bs) OR contains(:ss, l[1])
        contains(:l, m.k)
        size(a) = size(:s)
        size(u) < :n
        size(l) < :n
        size(ss) = size(ns)
        size(m) > size(bs)
        size(hollow) < size(a)
        num BETWEEN :n AND :m
        :n BETWEEN num AND :m
        a BETWEEN :s AND :t
        a IN (:s)
        a IN (:t, :s, :n)
        num IN (same)
        NOT a = :t
        NOT num < :n
        NOT gone = :s
        gone <> :s
        NOT gone < :s
        a <> :n
        NOT a < :n
        NOT a BETWEEN :n AND :m
        gone <> gone2
        ss <> :ns
        (a = :t OR num = :n) AND aye = :t1
        a = :t OR num = :n AND aye = :t1
        NOT a = :t AND num = :n
        NOT (a = :s AND num = :m)
        NOT NOT a = :s
        (NOT (a = :t))
        attribute_exists (a) and(attribute_exists(#n))
        #n <> :s
        a=:s AnD num=:n oR a=:t
    "
    .lines()
    .filter(|line| !line.trim().is_empty())
    {
        assert!(accepts(line_of(expression)), "{expression}");
    }
}

/// Every line is a condition that is not true of the item.
#[test]
fn false_of_the_item() {
    for expression in "
        a = :t
        gone = :s
        gone < :s
        gone = gone2
        a = num
        a < :n
        num < :n
        aye < nil
        ss = :ns
        l = :l
        emap = m
        attribute_exists(m.deep.x)
        attribute_not_exists(#n)
        attribute_type(gone, :S)
        attribute_type(a, :N)
        begins_with(a, :t)
        begins_with(num, a)
        begins_with(gone, :s)
        contains(a, :t)
        contains(a, num)
        contains(num, :n)
        contains(ss, :n)
        contains(ss, :ss)
        contains(gone, :s)
        contains(m, :s)
        contains(:s, gone)
        size(num) > :n
        size(aye) <= :n
        size(gone) = :n
        num BETWEEN m.k AND a
        gone BETWEEN :n AND :m
        a BETWEEN :n AND :m
        aye BETWEEN aye.k AND nil
        gone IN (:s, gone2)
        a IN (:n)
        NOT attribute_exists(a)
        NOT a <> :t
        a = :t AND num = :n OR num = :m
        (a = :s OR num = :n) AND num = :m
    "
    .lines()
    .filter(|line| !line.trim().is_empty())
    {
        assert!(!accepts(line_of(expression)), "{expression}");
    }
}

fn line_of(line: &str) -> &str {
    line.trim()
}

#[test]
fn an_item_that_is_not_there() {
    let (names, values) = (names(NAMES), values(VALUES));
    for (expression, truth) in [
        ("attribute_not_exists(pk)", true),
        ("attribute_exists(pk)", false),
        ("pk <> :s", true),
        ("pk = :s", false),
        ("size(pk) > :n", false),
        ("NOT size(pk) > :n", true),
        (":s < :t", true),
    ] {
        let condition = Condition::parse(Parameter::Condition, expression).unwrap();
        assert_eq!(
            condition.bind(&names, &values).unwrap().matches(None),
            truth,
            "{expression}"
        );
    }
}

#[test]
fn size_counts_utf16_code_units() {
    let condition = Condition::parse(Parameter::Filter, "size(u) = :three").unwrap();
    let (names, values) = (names(""), values(r#"{":three":{"N":"3"}}"#));
    let bytes = ItemBytes::from_item(&item(ITEM));
    assert!(
        condition
            .bind(&names, &values)
            .unwrap()
            .matches(Some(bytes.view()))
    );
}

#[test]
fn syntax_errors() {
    refuses("", expect!["The expression can not be empty;"]);
    refuses("   ", expect![[r#"Syntax error; token: "<EOF>", near: "   ""#]]);
    refuses(
        "attribute_not_exists(",
        expect![[r#"Syntax error; token: "<EOF>", near: "(""#]],
    );
    refuses(
        "attribute_exists(pk",
        expect![[r#"Syntax error; token: "<EOF>", near: "pk""#]],
    );
    refuses(
        "a = :s AND",
        expect![[r#"Syntax error; token: "<EOF>", near: "AND""#]],
    );
    refuses(
        "a BETWEEN :s",
        expect![[r#"Syntax error; token: "<EOF>", near: ":s""#]],
    );
    refuses(
        "a BETWEEN :s OR :t",
        expect![[r#"Syntax error; token: "OR", near: ":s OR :t""#]],
    );
    refuses(
        "(a = :s",
        expect![[r#"Syntax error; token: "<EOF>", near: ":s""#]],
    );
    refuses("a.", expect![[r#"Syntax error; token: "<EOF>", near: ".""#]]);
    refuses("a[", expect![[r#"Syntax error; token: "<EOF>", near: "[""#]]);
    refuses("a[x] = :s", expect![[r#"Syntax error; token: "x", near: "[x]""#]]);
    refuses(
        "a[1 = :s",
        expect![[r#"Syntax error; token: "=", near: "1 = :s""#]],
    );
    refuses(
        "a[01] = :s",
        expect![[r#"Syntax error; token: "1", near: "01]""#]],
    );
    refuses(
        "a[-1] = :s",
        expect![[r#"Syntax error; token: "-", near: "[-1""#]],
    );
    refuses(
        "attribute_exists(pk) x",
        expect![[r#"Syntax error; token: "x", near: ") x""#]],
    );
    refuses(
        "attribute_exists(pk) x y",
        expect![[r#"Syntax error; token: "x", near: ") x y""#]],
    );
    refuses(
        "a = :s :t x",
        expect![[r#"Syntax error; token: ":t", near: ":s :t x""#]],
    );
    refuses("a = :s)", expect![[r#"Syntax error; token: ")", near: ":s)""#]]);
    refuses(
        "a = = :s",
        expect![[r#"Syntax error; token: "=", near: "= = :s""#]],
    );
    refuses(
        "AND a = :s",
        expect![[r#"Syntax error; token: "AND", near: "AND a""#]],
    );
    refuses(
        "aaa = :s AND bbbb = :s cccc = :s",
        expect![[r#"Syntax error; token: "cccc", near: ":s cccc =""#]],
    );
    refuses(
        "attribute_exists pk",
        expect![[r#"Syntax error; token: "pk", near: "attribute_exists pk""#]],
    );
    refuses(
        "attribute_exists(pk,)",
        expect![[r#"Syntax error; token: ")", near: ",)""#]],
    );
    refuses(
        "attribute_exists()",
        expect![[r#"Syntax error; token: ")", near: "()""#]],
    );
    refuses(
        "begins_with(a :s)",
        expect![[r#"Syntax error; token: ":s", near: "a :s)""#]],
    );
    refuses(
        "a IN :s",
        expect![[r#"Syntax error; token: ":s", near: "IN :s""#]],
    );
    refuses("a IN ()", expect![[r#"Syntax error; token: ")", near: "()""#]]);
    refuses("NOT", expect![[r#"Syntax error; token: "<EOF>", near: "NOT""#]]);
    refuses("NOT a", expect![[r#"Syntax error; token: "<EOF>", near: "a""#]]);
    refuses("a", expect![[r#"Syntax error; token: "<EOF>", near: "a""#]]);
    refuses(":s", expect![[r#"Syntax error; token: "<EOF>", near: ":s""#]]);
    refuses("(a)", expect![[r#"Syntax error; token: "<EOF>", near: ")""#]]);
    refuses(
        "(a) AND b = :s",
        expect![[r#"Syntax error; token: "AND", near: ") AND b""#]],
    );
    refuses("a = :s !", expect![[r#"Syntax error; token: "!", near: ":s !""#]]);
    refuses("a ! b", expect![[r#"Syntax error; token: "!", near: "a ! b""#]]);
    refuses("a = :é", expect![[r#"Syntax error; token: ":", near: "= :é""#]]);
    refuses(
        "a\u{a0}= :s",
        expect![[r#"Syntax error; token: " ", near: "a =""#]],
    );
    refuses("_a = :s", expect![[r#"Syntax error; token: "_", near: "_a""#]]);
    refuses("a = #", expect![[r##"Syntax error; token: "#", near: "= #""##]]);
    refuses("a = 5", expect![[r#"Syntax error; token: "5", near: "= 5""#]]);
    refuses("a = 'x'", expect![[r#"Syntax error; token: "'", near: "= 'x""#]]);
    refuses(
        "set = :s",
        expect![[r#"Syntax error; token: "set", near: "set =""#]],
    );
    refuses(
        "a.in = :s",
        expect![[r#"Syntax error; token: "in", near: ".in =""#]],
    );
    refuses(
        "a = :s + :t",
        expect![[r#"Syntax error; token: "+", near: ":s + :t""#]],
    );
    refuses(
        "a = NOT :s",
        expect![[r#"Syntax error; token: "NOT", near: "= NOT :s""#]],
    );
    refuses(
        "(a = :s) = :t",
        expect![[r#"Syntax error; token: "=", near: ") = :t""#]],
    );
    refuses(
        "a = (b = :s)",
        expect![[r#"Syntax error; token: "=", near: "b = :s""#]],
    );
    refuses(
        "(a).b = :s",
        expect![[r#"Syntax error; token: ".", near: ").b""#]],
    );
    refuses(
        " a == :s ",
        expect![[r#"Syntax error; token: "=", near: "== :s""#]],
    );
}

#[test]
fn redundant_parentheses() {
    refuses("((a = :s))", expect!["The expression has redundant parentheses;"]);
    refuses("((a)) = :s", expect!["The expression has redundant parentheses;"]);
    refuses("a = ((:s))", expect!["The expression has redundant parentheses;"]);
    refuses(
        "a IN (((:s)))",
        expect!["The expression has redundant parentheses;"],
    );
    refuses(
        "attribute_exists(((a)))",
        expect!["The expression has redundant parentheses;"],
    );
    refuses(
        "((attribute_exists(a)))",
        expect!["The expression has redundant parentheses;"],
    );
    refuses(
        "((attribute_exists(a))) x",
        expect!["The expression has redundant parentheses;"],
    );
    refuses(
        "((a = :s)) x",
        expect!["The expression has redundant parentheses;"],
    );
    refuses("((a)) x", expect![[r#"Syntax error; token: "x", near: ") x""#]]);
    refuses(
        "((a = :s)) AND hash = :s",
        expect!["The expression has redundant parentheses;"],
    );
    refuses(
        "((a = :s",
        expect![[r#"Syntax error; token: "<EOF>", near: ":s""#]],
    );
    refuses("((a = :s) AND (a = :t))", expect!["accepted"]);
    refuses("(a) = (:s)", expect!["accepted"]);
    refuses("((a) = (:s))", expect!["accepted"]);
    refuses("(NOT (a = :s))", expect!["accepted"]);
}

#[test]
fn refused_by_names_and_functions() {
    refuses(
        "hash = :s",
        expect!["Attribute name is a reserved keyword; reserved keyword: hash"],
    );
    refuses(
        "a.Status = :s",
        expect!["Attribute name is a reserved keyword; reserved keyword: Status"],
    );
    refuses(
        "size = :s",
        expect!["Attribute name is a reserved keyword; reserved keyword: size"],
    );
    refuses("foo(a)", expect!["Invalid function name; function: foo"]);
    refuses("Size(a) = :n", expect!["Invalid function name; function: Size"]);
    refuses("foo(hash)", expect!["Invalid function name; function: foo"]);
    refuses(
        "hash = foo(a)",
        expect!["Attribute name is a reserved keyword; reserved keyword: hash"],
    );
    refuses(
        "if_not_exists(a, :s)",
        expect!["The function is not allowed in a condition expression; function: if_not_exists"],
    );
    refuses(
        "a = list_append(a, :l)",
        expect!["The function is not allowed in a condition expression; function: list_append"],
    );
    refuses(
        "size(a)",
        expect!["The function is not allowed to be used this way in an expression; function: size"],
    );
    refuses(
        "NOT size(a)",
        expect!["The function is not allowed to be used this way in an expression; function: size"],
    );
    refuses(
        "(size(a))",
        expect!["The function is not allowed to be used this way in an expression; function: size"],
    );
    refuses(
        "size(a) AND a = :s",
        expect!["The function is not allowed to be used this way in an expression; function: size"],
    );
    refuses(
        "a = :s AND size(a)",
        expect!["The function is not allowed to be used this way in an expression; function: size"],
    );
    refuses(
        "attribute_exists(a) = :s",
        expect![
            "The function is not allowed to be used this way in an expression; function: attribute_exists"
        ],
    );
    refuses(
        "(attribute_exists(a)) = :s",
        expect![
            "The function is not allowed to be used this way in an expression; function: attribute_exists"
        ],
    );
    refuses(
        "a = contains(a, :s)",
        expect!["The function is not allowed to be used this way in an expression; function: contains"],
    );
    refuses(
        "a = (contains(a, :s))",
        expect!["The function is not allowed to be used this way in an expression; function: contains"],
    );
    refuses(
        "attribute_exists(contains(a, :s))",
        expect!["The function is not allowed to be used this way in an expression; function: contains"],
    );
    refuses(
        "begins_with(a, b) IN (:s)",
        expect!["The function is not allowed to be used this way in an expression; function: begins_with"],
    );
    refuses(
        "a BETWEEN contains(a, :s) AND :s",
        expect!["The function is not allowed to be used this way in an expression; function: contains"],
    );
    refuses(
        "contains(hash, :s) = :s",
        expect!["The function is not allowed to be used this way in an expression; function: contains"],
    );
    refuses("a[2147483647] = :s", expect!["accepted"]);
    refuses(
        "a[2147483648] = :s",
        expect!["List index is not within the allowable range; index: [2147483648]"],
    );
    refuses(
        "a[99999999999999999999] = :s",
        expect!["List index is not within the allowable range; index: [99999999999999999999]"],
    );
}

#[test]
fn refused_by_placeholders_and_operands() {
    refuses(
        "a = :missing",
        expect!["An expression attribute value used in expression is not defined; attribute value: :missing"],
    );
    refuses(
        "#missing = :s",
        expect![
            "An expression attribute name used in the document path is not defined; attribute name: #missing"
        ],
    );
    refuses(
        "a.#missing = :missing",
        expect![
            "An expression attribute name used in the document path is not defined; attribute name: #missing"
        ],
    );
    refuses(
        "a = :missing AND #missing = :s",
        expect!["An expression attribute value used in expression is not defined; attribute value: :missing"],
    );
    refuses(
        "attribute_exists(a, b)",
        expect![
            "Incorrect number of operands for operator or function; operator or function: attribute_exists, number of operands: 2"
        ],
    );
    refuses(
        "size(a, b) = :n",
        expect![
            "Incorrect number of operands for operator or function; operator or function: size, number of operands: 2"
        ],
    );
    refuses(
        "contains(a)",
        expect![
            "Incorrect number of operands for operator or function; operator or function: contains, number of operands: 1"
        ],
    );
    refuses(
        "attribute_exists(:s)",
        expect!["Operator or function requires a document path; operator or function: attribute_exists"],
    );
    refuses(
        "attribute_exists(size(a))",
        expect!["Operator or function requires a document path; operator or function: attribute_exists"],
    );
    refuses(
        "begins_with(a, :n)",
        expect![
            "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N"
        ],
    );
    refuses(
        "begins_with(:ss, a)",
        expect![
            "Incorrect operand type for operator or function; operator or function: begins_with, operand type: SS"
        ],
    );
    refuses(
        "begins_with(a, size(b))",
        expect![
            "Incorrect operand type for operator or function; operator or function: begins_with, operand type: N"
        ],
    );
    refuses(
        "attribute_type(a, :bad)",
        expect!["Invalid attribute type name found; type: Q, valid types: {N,BS,L,B,NULL,M,S,SS,NS,BOOL}"],
    );
    refuses(
        "attribute_type(a, :n)",
        expect![
            "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: N"
        ],
    );
    refuses(
        "attribute_type(a, b)",
        expect![
            "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: {S,HDS,N,FS,BS,NULL,DOUBLE,NS,DECIMAL,SS,DECIMALSET,BOOL,HD,DICT,INTSET,M,L,B,FLOAT,INT,DOUBLESET}"
        ],
    );
    refuses(
        "attribute_type(a, a)",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: attribute_type, first operand: [a]"
        ],
    );
    refuses(
        "attribute_type(a, size(b))",
        expect![
            "Incorrect operand type for operator or function; operator or function: attribute_type, operand type: N"
        ],
    );
    refuses(
        "size(:n) = :n",
        expect![
            "Incorrect operand type for operator or function; operator or function: size, operand type: N"
        ],
    );
    refuses(
        "size(:t1) = :n",
        expect![
            "Incorrect operand type for operator or function; operator or function: size, operand type: BOOL"
        ],
    );
    refuses(
        "size(:null) = :n",
        expect![
            "Incorrect operand type for operator or function; operator or function: size, operand type: NULL"
        ],
    );
    refuses(
        "size(size(a)) = :n",
        expect![
            "Incorrect operand type for operator or function; operator or function: size, operand type: N"
        ],
    );
    refuses(
        "a < :t1",
        expect![
            "Incorrect operand type for operator or function; operator or function: <, operand type: BOOL"
        ],
    );
    refuses(
        "a >= :map",
        expect!["Incorrect operand type for operator or function; operator or function: >=, operand type: M"],
    );
    refuses(
        "a BETWEEN :ss AND :s",
        expect![
            "Incorrect operand type for operator or function; operator or function: BETWEEN, operand type: SS"
        ],
    );
    refuses(
        "a BETWEEN :t AND :s",
        expect![
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {S:abd}, upper bound operand: AttributeValue: {S:abc}"
        ],
    );
    refuses(
        "a BETWEEN :m AND :n",
        expect![
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {N:7}, upper bound operand: AttributeValue: {N:5}"
        ],
    );
    refuses(
        "a BETWEEN :b AND :s",
        expect![
            "The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {B:AQID}, upper bound operand: AttributeValue: {S:abc}"
        ],
    );
    refuses(
        "a = a",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [a]"
        ],
    );
    refuses(
        "#a = a",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [a]"
        ],
    );
    refuses(
        "m.#s = m.#s",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: =, first operand: [m, a.b]"
        ],
    );
    refuses(
        "m.k[1] <> #m.k[1]",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: <>, first operand: [m, k, [1]]"
        ],
    );
    refuses(
        "contains(a, a)",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: contains, first operand: [a]"
        ],
    );
    refuses(
        "a IN (b, :s, a)",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: IN, first operand: [a]"
        ],
    );
    refuses(
        "a BETWEEN b AND a",
        expect![
            "The first operand must be distinct from the remaining operands for this operator or function; operator: BETWEEN, first operand: [a]"
        ],
    );
    refuses("a BETWEEN b AND b", expect!["accepted"]);
    refuses(
        &format!("a IN ({})", vec![":s"; 100].join(",")),
        expect!["accepted"],
    );
    refuses(
        &format!("a IN ({})", vec![":s"; 101].join(",")),
        expect!["The IN operator is provided with too many operands; number of operands: 101"],
    );
    refuses(&format!("{} = :s", vec!["a"; 32].join(".")), expect!["accepted"]);
    refuses(
        &format!("{} = :s", vec!["a"; 33].join(".")),
        expect!["The document path has too many nesting levels; nesting levels: 33"],
    );
    refuses(&vec!["a=:s"; 150].join(" OR "), expect!["accepted"]);
    refuses(
        &vec!["a=:s"; 151].join(" OR "),
        expect!["The expression contains too many operators; operator count: 301"],
    );
    refuses(&format!("{}a=:s", "NOT ".repeat(299)), expect!["accepted"]);
    refuses(
        &format!("{}a=:s", "NOT ".repeat(300)),
        expect!["The expression contains too many operators; operator count: 301"],
    );
    refuses(
        &format!("{}a=:s", "NOT ".repeat(1000)),
        expect!["The expression contains too many operators; operator count: 301"],
    );
    refuses(
        &format!("{}a=:s{}", "(NOT ".repeat(290), ")".repeat(290)),
        expect!["accepted"],
    );
    refuses(
        &format!("{}a=:s", "(".repeat(4000)),
        expect![[r#"Syntax error; token: "<EOF>", near: ":s""#]],
    );
    refuses(
        &format!("{}a{} = :n", "size(".repeat(600), ")".repeat(600)),
        expect![
            "Incorrect operand type for operator or function; operator or function: size, operand type: N"
        ],
    );
    refuses(
        &format!("a = :s{}", " ".repeat(4091)),
        expect!["Expression size has exceeded the maximum allowed size;"],
    );
}

#[test]
fn filters_and_keys() {
    let (names, values) = (names("#p=pk"), values(VALUES));
    let condition = Condition::parse(Parameter::Filter, "a = :s OR (b.c < :n AND size(#p) > :n)").unwrap();
    let bound = condition.bind(&names, &values).unwrap();
    assert_eq!(bound.attributes().collect::<Vec<_>>(), ["a", "b", "pk"]);
    let text = |result: Result<(), cairn_expression::ExpressionError>| match result {
        Ok(()) => "fine".to_owned(),
        Err(error) => error.to_string(),
    };
    expect!["Filter Expression can only contain non-primary key attributes: Primary key attribute: pk"]
        .assert_eq(&text(bound.check_not_on_key(&["pk", "sk"])));
    expect!["fine"].assert_eq(&text(bound.check_not_on_key(&["sk"])));
    expect![
        "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: b"
    ]
    .assert_eq(&text(bound.check_key_scalar("Key", &["b"])));
    expect!["fine"].assert_eq(&text(bound.check_key_scalar("Key", &["a", "pk"])));
}
