//! Updates: what becomes of an item.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use cairn_expression::{ExpressionError, Update};
use cairn_item::json::write_item;
use cairn_item::{Item, ItemBytes};
use expect_test::{Expect, expect};
use support::{item, names, values};

const NAMES: &str = "#c=c #d=[3] #s=a.b #n=name #pk=pk";
const VALUES: &str = r#"{":s":{"S":"s"},":n":{"N":"5"},":m":{"N":"-0.5"},":b":{"B":"AQI="},":t":{"BOOL":true},":null":{"NULL":true},
    ":ss":{"SS":["x","y"]},":ns":{"NS":["1","5"]},":bs":{"BS":["AQ=="]},":l":{"L":[{"N":"1"},{"S":"x"}]},":el":{"L":[]},":map":{"M":{"k":{"N":"1"}}},
    ":big":{"N":"9e125"}}"#;
const ITEM: &str = r#"{"pk":{"S":"p"},"s":{"S":"abc"},"num":{"N":"10"},"ss":{"SS":["y","z"]},"ns":{"NS":["5","7"]},"bs":{"BS":["AQ==","Ag=="]},
    "l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]}]},"m":{"M":{"k":{"N":"1"},"deep":{"M":{"x":{"S":"v"}}},"l":{"L":[{"N":"0"}]}}}}"#;

fn json(item: &Item) -> String {
    let mut out = Vec::new();
    write_item(&mut out, item);
    String::from_utf8(out).unwrap()
}

/// The attributes that differ from the item's, or the error; then UPDATED_OLD and UPDATED_NEW.
fn check(expression: &str, expected: Expect) {
    let (names, values) = (names(NAMES), values(VALUES));
    let update = Update::parse(expression).unwrap();
    let bound = update.bind(&names, &values).unwrap();
    let old = item(ITEM);
    let old_bytes = ItemBytes::from_item(&old);
    let text = match bound.apply(old_bytes.view()) {
        Err(error) => error.to_string(),
        Ok(new) => {
            let changed: Item = new
                .iter()
                .filter(|attribute| old.get(&attribute.name) != Some(&attribute.value))
                .cloned()
                .collect();
            let gone: Vec<&str> = old
                .iter()
                .map(|attribute| attribute.name.as_str())
                .filter(|name| new.get(name).is_none())
                .collect();
            let new_bytes = ItemBytes::from_item(&new);
            let (updated_old, updated_new) =
                (bound.updated(old_bytes.view()), bound.updated(new_bytes.view()));
            let mut written = Vec::new();
            bound.write_updated_json(&mut written, new_bytes.view());
            assert_eq!(
                String::from_utf8(written).unwrap(),
                json(&updated_new),
                "{expression}"
            );
            format!(
                "{} without {gone:?}\nold {}\nnew {}",
                json(&changed),
                json(&updated_old),
                json(&updated_new)
            )
        }
    };
    expected.assert_eq(&text);
}

#[test]
fn set() {
    check(
        "SET a = :s",
        expect![[r#"
        {"a":{"S":"s"}} without []
        old {}
        new {"a":{"S":"s"}}"#]],
    );
    check(
        "set s = :n, num = :s",
        expect![[r#"
        {"num":{"S":"s"},"s":{"N":"5"}} without []
        old {"num":{"N":"10"},"s":{"S":"abc"}}
        new {"num":{"S":"s"},"s":{"N":"5"}}"#]],
    );
    check(
        "SET s = num, num = s",
        expect![[r#"
        {"num":{"S":"abc"},"s":{"N":"10"}} without []
        old {"num":{"N":"10"},"s":{"S":"abc"}}
        new {"num":{"S":"abc"},"s":{"N":"10"}}"#]],
    );
    check(
        "SET m.k = :s",
        expect![[r#"
        {"m":{"M":{"deep":{"M":{"x":{"S":"v"}}},"k":{"S":"s"},"l":{"L":[{"N":"0"}]}}}} without []
        old {"m":{"M":{"k":{"N":"1"}}}}
        new {"m":{"M":{"k":{"S":"s"}}}}"#]],
    );
    check(
        "SET m.fresh = :map, m.deep.x = m.k",
        expect![[r#"
        {"m":{"M":{"deep":{"M":{"x":{"N":"1"}}},"fresh":{"M":{"k":{"N":"1"}}},"k":{"N":"1"},"l":{"L":[{"N":"0"}]}}}} without []
        old {"m":{"M":{"deep":{"M":{"x":{"S":"v"}}}}}}
        new {"m":{"M":{"deep":{"M":{"x":{"N":"1"}}},"fresh":{"M":{"k":{"N":"1"}}}}}}"#]],
    );
    check(
        "SET l[1] = :s",
        expect![[r#"
        {"l":{"L":[{"S":"a"},{"S":"s"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]}]}} without []
        old {"l":{"L":[{"S":"b"}]}}
        new {"l":{"L":[{"S":"s"}]}}"#]],
    );
    check(
        "SET l[9] = :s, l[7] = :n",
        expect![[r#"
        {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]},{"N":"5"},{"S":"s"}]}} without []
        old {}
        new {}"#]],
    );
    check(
        "SET l[2].k = :s, l[3][0] = :n, l[3][5] = :m",
        expect![[r#"
        {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"S":"s"}}},{"L":[{"N":"5"},{"N":"-0.5"}]}]}} without []
        old {"l":{"L":[{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]}]}}
        new {"l":{"L":[{"M":{"k":{"S":"s"}}},{"L":[{"N":"5"}]}]}}"#]],
    );
    check(
        "SET num = num + :n",
        expect![[r#"
        {"num":{"N":"15"}} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"15"}}"#]],
    );
    check(
        "SET num = num - :m",
        expect![[r#"
        {"num":{"N":"10.5"}} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"10.5"}}"#]],
    );
    check(
        "SET num = :n - num",
        expect![[r#"
        {"num":{"N":"-5"}} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"-5"}}"#]],
    );
    check(
        "SET num = (num + num)",
        expect![[r#"
        {"num":{"N":"20"}} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"20"}}"#]],
    );
    check(
        "SET num = (num) + (m.k)",
        expect![[r#"
        {"num":{"N":"11"}} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"11"}}"#]],
    );
    check(
        "SET num = num + num",
        expect![[r#"
        {"num":{"N":"20"}} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"20"}}"#]],
    );
    check(
        "SET a = if_not_exists(a, :n)",
        expect![[r#"
        {"a":{"N":"5"}} without []
        old {}
        new {"a":{"N":"5"}}"#]],
    );
    check(
        "SET num = if_not_exists(num, :s)",
        expect![[r#"
        {} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"10"}}"#]],
    );
    check(
        "SET a = if_not_exists(a, :n) + if_not_exists(num, :n)",
        expect![[r#"
        {"a":{"N":"15"}} without []
        old {}
        new {"a":{"N":"15"}}"#]],
    );
    check(
        "SET a = if_not_exists(b, if_not_exists(c, m.k))",
        expect![[r#"
        {"a":{"N":"1"}} without []
        old {}
        new {"a":{"N":"1"}}"#]],
    );
    check(
        "SET l = list_append(l, :l)",
        expect![[r#"
        {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]},{"N":"1"},{"S":"x"}]}} without []
        old {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]}]}}
        new {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]},{"N":"1"},{"S":"x"}]}}"#]],
    );
    check(
        "SET l = list_append(:el, m.l)",
        expect![[r#"
        {"l":{"L":[{"N":"0"}]}} without []
        old {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]}]}}
        new {"l":{"L":[{"N":"0"}]}}"#]],
    );
    check(
        "SET a = list_append(if_not_exists(a, :el), :l)",
        expect![[r#"
        {"a":{"L":[{"N":"1"},{"S":"x"}]}} without []
        old {}
        new {"a":{"L":[{"N":"1"},{"S":"x"}]}}"#]],
    );
    check(
        "SET #s = :s",
        expect![[r#"
        {"a.b":{"S":"s"}} without []
        old {}
        new {"a.b":{"S":"s"}}"#]],
    );
}

#[test]
fn set_that_does_not_fit() {
    check(
        "SET a = b",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET a = b + :n",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET a = s + :n",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "SET a = s + b",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "SET a = b + s",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET a = s + if_not_exists(b, c)",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET a = num + l",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "SET a = list_append(b, :l)",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET a = list_append(s, :l)",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "SET a = list_append(:l, m)",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "SET num = if_not_exists(num, b)",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET a.b = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET s.b = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET s[0] = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET m[0] = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET l.k = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET l[9].k = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET a[0] = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET a = :big + :big",
        expect!["Number overflow. Attempting to store a number with magnitude larger than supported range"],
    );
}

#[test]
fn remove() {
    check(
        "REMOVE s, num",
        expect![[r#"
        {} without ["num", "s"]
        old {"num":{"N":"10"},"s":{"S":"abc"}}
        new {}"#]],
    );
    check(
        "REMOVE nothing",
        expect![[r#"
        {} without []
        old {}
        new {}"#]],
    );
    check(
        "REMOVE m.k",
        expect![[r#"
        {"m":{"M":{"deep":{"M":{"x":{"S":"v"}}},"l":{"L":[{"N":"0"}]}}}} without []
        old {"m":{"M":{"k":{"N":"1"}}}}
        new {}"#]],
    );
    check(
        "REMOVE m.nothing",
        expect![[r#"
        {} without []
        old {}
        new {}"#]],
    );
    check(
        "REMOVE l[0], l[2]",
        expect![[r#"
        {"l":{"L":[{"S":"b"},{"L":[{"S":"in"}]}]}} without []
        old {"l":{"L":[{"S":"a"},{"M":{"k":{"N":"1"}}}]}}
        new {"l":{"L":[{"S":"b"}]}}"#]],
    );
    check(
        "REMOVE l[0], l[2].k, l[3][0]",
        expect![[r#"
        {"l":{"L":[{"S":"b"},{"M":{}},{"L":[]}]}} without []
        old {"l":{"L":[{"S":"a"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]}]}}
        new {"l":{"L":[{"S":"b"}]}}"#]],
    );
    check(
        "REMOVE l[9]",
        expect![[r#"
        {} without []
        old {}
        new {}"#]],
    );
    check(
        "REMOVE l[0] SET l[1] = :s, l[8] = :n",
        expect![[r#"
        {"l":{"L":[{"S":"s"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]},{"N":"5"}]}} without []
        old {"l":{"L":[{"S":"a"},{"S":"b"}]}}
        new {"l":{"L":[{"S":"s"},{"M":{"k":{"N":"1"}}}]}}"#]],
    );
    check(
        "REMOVE a.b",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "REMOVE s.b",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "REMOVE l.k",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "REMOVE m.nothing.k",
        expect!["The document path provided in the update expression is invalid for update"],
    );
}

#[test]
fn add_and_delete() {
    check(
        "ADD num :n",
        expect![[r#"
        {"num":{"N":"15"}} without []
        old {"num":{"N":"10"}}
        new {"num":{"N":"15"}}"#]],
    );
    check(
        "ADD a :n, b :ss",
        expect![[r#"
        {"a":{"N":"5"},"b":{"SS":["x","y"]}} without []
        old {}
        new {"a":{"N":"5"},"b":{"SS":["x","y"]}}"#]],
    );
    check(
        "ADD ss :ss, ns :ns, bs :bs",
        expect![[r#"
        {"ns":{"NS":["1","5","7"]},"ss":{"SS":["x","y","z"]}} without []
        old {"bs":{"BS":["AQ==","Ag=="]},"ns":{"NS":["5","7"]},"ss":{"SS":["y","z"]}}
        new {"bs":{"BS":["AQ==","Ag=="]},"ns":{"NS":["1","5","7"]},"ss":{"SS":["x","y","z"]}}"#]],
    );
    check(
        "ADD m.k :m, l[2].k :n",
        expect![[r#"
        {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"6"}}},{"L":[{"S":"in"}]}]},"m":{"M":{"deep":{"M":{"x":{"S":"v"}}},"k":{"N":"0.5"},"l":{"L":[{"N":"0"}]}}}} without []
        old {"l":{"L":[{"M":{"k":{"N":"1"}}}]},"m":{"M":{"k":{"N":"1"}}}}
        new {"l":{"L":[{"M":{"k":{"N":"6"}}}]},"m":{"M":{"k":{"N":"0.5"}}}}"#]],
    );
    check(
        "ADD l[9] :n",
        expect![[r#"
        {"l":{"L":[{"S":"a"},{"S":"b"},{"M":{"k":{"N":"1"}}},{"L":[{"S":"in"}]},{"N":"5"}]}} without []
        old {}
        new {}"#]],
    );
    check(
        "DELETE ss :ss, ns :ns",
        expect![[r#"
        {"ns":{"NS":["7"]},"ss":{"SS":["z"]}} without []
        old {"ns":{"NS":["5","7"]},"ss":{"SS":["y","z"]}}
        new {"ns":{"NS":["7"]},"ss":{"SS":["z"]}}"#]],
    );
    check(
        "DELETE bs :bs",
        expect![[r#"
        {"bs":{"BS":["Ag=="]}} without []
        old {"bs":{"BS":["AQ==","Ag=="]}}
        new {"bs":{"BS":["Ag=="]}}"#]],
    );
    check(
        "DELETE a :ss",
        expect![[r#"
        {} without []
        old {}
        new {}"#]],
    );
    check(
        "ADD ss :ns",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "ADD s :n",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "ADD num :ss",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "DELETE num :ss",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "DELETE ns :ss",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "ADD a.b :n",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "DELETE a.b :ss",
        expect!["The document path provided in the update expression is invalid for update"],
    );
    check(
        "SET a.b = :s ADD num :ss",
        expect!["An operand in the update expression has an incorrect data type"],
    );
    check(
        "SET x.y = nothing",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET z = :s REMOVE s ADD num :n DELETE ss :ss",
        expect![[r#"
        {"num":{"N":"15"},"ss":{"SS":["z"]},"z":{"S":"s"}} without ["s"]
        old {"num":{"N":"10"},"s":{"S":"abc"},"ss":{"SS":["y","z"]}}
        new {"num":{"N":"15"},"ss":{"SS":["z"]},"z":{"S":"s"}}"#]],
    );
}

#[test]
fn an_emptied_set_is_removed() {
    let (names, values) = (names(""), values(r#"{":all":{"SS":["y","z"]}}"#));
    let update = Update::parse("DELETE ss :all").unwrap();
    let bytes = ItemBytes::from_item(&item(ITEM));
    assert!(
        update
            .bind(&names, &values)
            .unwrap()
            .apply(bytes.view())
            .unwrap()
            .get("ss")
            .is_none()
    );
}

#[test]
fn an_item_that_is_not_there() {
    let (names, values) = (names(NAMES), values(VALUES));
    let check = |expression: &str, expected: Expect| {
        let update = Update::parse(expression).unwrap();
        let bound = update.bind(&names, &values).unwrap();
        let text = match bound.create(&item(r#"{"pk":{"S":"p"},"sk":{"N":"1"}}"#)) {
            Ok(item) => json(&item),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    };
    check(
        "SET a = :s ADD z :n DELETE y :ss REMOVE x",
        expect![[r#"{"a":{"S":"s"},"pk":{"S":"p"},"sk":{"N":"1"},"z":{"N":"5"}}"#]],
    );
    check(
        "SET a = pk",
        expect![[r#"{"a":{"S":"p"},"pk":{"S":"p"},"sk":{"N":"1"}}"#]],
    );
    check(
        "SET a = b",
        expect!["The provided expression refers to an attribute that does not exist in the item"],
    );
    check(
        "SET a.b = :s",
        expect!["The document path provided in the update expression is invalid for update"],
    );
}

#[test]
fn results_have_limits() {
    let big = format!(
        r#"{{":v":{{"S":"{}"}},":deep":{}}}"#,
        "x".repeat(400 * 1024),
        nested(31)
    );
    let (names, values) = (names(""), values(&big));
    let check = |expression: &str, expected: Expect| {
        let update = Update::parse(expression).unwrap();
        let bytes = ItemBytes::from_item(&item(ITEM));
        let text = match update.bind(&names, &values).unwrap().apply(bytes.view()) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    };
    check(
        "SET a = :v",
        expect!["Item size to update has exceeded the maximum allowed size"],
    );
    check("SET a = :deep", expect!["fine"]);
    check(
        "SET m.deep.x = :deep",
        expect!["Nesting Levels have exceeded supported limits"],
    );
    check("SET m.x = :deep", expect!["fine"]);
}

fn nested(levels: usize) -> String {
    (1..levels).fold(r#"{"L":[]}"#.to_owned(), |inner, _| {
        format!(r#"{{"L":[{inner}]}}"#)
    })
}

#[test]
fn keys_are_left_alone() {
    let (names, values) = (names(NAMES), values(VALUES));
    let text = |expression: &str,
                check: fn(&cairn_expression::BoundUpdate<'_>) -> Result<(), ExpressionError>| {
        let update = Update::parse(expression).unwrap();
        let bound = update.bind(&names, &values).unwrap();
        check(&bound).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    };
    expect!["One or more parameter values were invalid: Cannot update attribute pk. This attribute is part of the key"].assert_eq(&text("SET a = :s, sk = :s REMOVE #pk", |bound| {
        bound.check_not_on_key(&["pk", "sk"])
    }));
    expect!["fine"].assert_eq(&text("SET a = pk", |bound| bound.check_not_on_key(&["pk", "sk"])));
    expect![
        "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: Key: pk"
    ]
    .assert_eq(&text("SET a = pk.a", |bound| {
        bound.check_key_scalar("Key", &["pk"])
    }));
    expect!["Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: IndexKey: b"].assert_eq(&text("SET b[0] = pk", |bound| {
        bound.check_key_scalar("IndexKey", &["b"])
    }));
}

/// Each part of a request is charged by itself; the sums are those of the module's table.
#[test]
fn requests_are_charged() {
    let (names, values) = (names(NAMES), values(VALUES));
    for (expression, bytes) in [
        ("SET a = :s", 3 + 19 + 1 + 1),
        ("SET abc.de[10] = :s", 3 + 19 + (3 + 6 + 6) + 1),
        ("SET a = b.cd", 3 + 19 + 1 + (1 + 15 + 16)),
        ("SET a = :n + :n", 3 + 19 + 1 + 34 + 2 + 2),
        ("SET a = a - :n", 3 + 19 + 1 + 37 + 16 + 2),
        ("SET a = if_not_exists(a, :n)", 3 + 19 + 1 + 39 + 16 + 2),
        ("SET a = list_append(a, :el)", 3 + 19 + 1 + 37 + 16 + 3),
        (
            "ADD a :n REMOVE #n DELETE c :ss",
            3 + (19 + 1 + 2) + (1 + 4) + (1 + 1),
        ),
    ] {
        let update = Update::parse(expression);
        let update = update.unwrap();
        let bound = update.bind(&names, &values).unwrap();
        assert_eq!(bound.request_bytes(), bytes, "{expression}");
    }
}

/// Of 200,000 nulls, 5 MB as values, 500 copies would take 3 GB before the new item is found to be too large.
#[test]
fn an_attribute_that_is_set_hundreds_of_times_is_refused_before_it_is_copied() {
    let nulls = vec![r#"{"NULL":true}"#; 200_000].join(",");
    let old = ItemBytes::from_item(&item(&format!(r#"{{"pk":{{"S":"p"}},"b":{{"L":[{nulls}]}}}}"#)));
    let check = |of: &dyn Fn(usize) -> String, count: usize| {
        let sets: Vec<String> = (0..count).map(of).collect();
        let update = Update::parse(&format!("SET {}", sets.join(","))).unwrap();
        let (names, values) = (names(""), values(""));
        let outcome = update.bind(&names, &values).unwrap().apply(old.view());
        expect!["Item size to update has exceeded the maximum allowed size"]
            .assert_eq(&outcome.unwrap_err().to_string());
    };
    check(&|index| format!("a{index}=b"), 500);
    check(&|index| format!("a{index}=if_not_exists(x,b)"), 150);
    check(&|index| format!("a{index}=list_append(b,b)"), 150);
    check(&|index| format!("a{index}=b"), 1);
}
