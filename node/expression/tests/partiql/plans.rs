//! What a statement reads, given the table's key.

use cairn_expression::KeyAttribute;
use cairn_expression::partiql::{Plan, ReadOrder, Statement};
use cairn_item::{KeyCondition, KeyType, KeyValue};

fn key(value: &KeyValue) -> String {
    match value {
        KeyValue::S(text) => text.clone(),
        KeyValue::N(number) => number.to_string(),
        KeyValue::B(bytes) => format!("{bytes:?}"),
    }
}

fn shown(condition: &KeyCondition) -> String {
    match condition {
        KeyCondition::All => "*".to_owned(),
        KeyCondition::Equal(value) => key(value),
        KeyCondition::Less(value) => format!("<{}", key(value)),
        KeyCondition::LessOrEqual(value) => format!("<={}", key(value)),
        KeyCondition::Greater(value) => format!(">{}", key(value)),
        KeyCondition::GreaterOrEqual(value) => format!(">={}", key(value)),
        KeyCondition::Between(lower, upper) => format!("{}..{}", key(lower), key(upper)),
        KeyCondition::BeginsWith(value) => format!("{}%", key(value)),
    }
}

const PARTITION: KeyAttribute<'_> = KeyAttribute {
    name: "pk",
    kind: KeyType::S,
};
const SORT: KeyAttribute<'_> = KeyAttribute {
    name: "sk",
    kind: KeyType::N,
};

/// The reads, each partition key with its sort keys, in their order; `-` before those that are read backwards.
fn plan(clause: &str) -> String {
    let statement = Statement::parse(&format!("SELECT * FROM T {clause}")).unwrap();
    let values = statement.bind(Vec::new()).unwrap();
    match statement.plan(&values, PARTITION, Some(SORT)) {
        Err(error) => error.to_string(),
        Ok(Plan::Scan) => "scan".to_owned(),
        Ok(Plan::Reads(reads, order)) => {
            let reads: Vec<String> = reads
                .iter()
                .map(|read| format!("{}/{}", key(&read.partition), shown(&read.condition)))
                .collect();
            let sign = if order == ReadOrder::Backward { "-" } else { "" };
            format!("{sign}{}", reads.join(" "))
        }
    }
}

const OVERLAPPING: &str = "Overlapping conditions with range keys are not supported in where clause";

#[test]
fn reads_by_key_where_the_key_is_pinned() {
    for (clause, expected) in [
        ("", "scan"),
        ("WHERE a = 1", "scan"),
        ("WHERE pk <> 'a'", "scan"),
        ("WHERE NOT pk = 'a'", "scan"),
        ("WHERE begins_with(pk, 'a')", "scan"),
        ("WHERE pk.x = 'a'", "scan"),
        ("WHERE pk = 'a'", "a/*"),
        ("WHERE 'a' = pk", "a/*"),
        ("WHERE NOT NOT pk = 'a'", "a/*"),
        ("WHERE NOT (pk <> 'a' OR a = 1)", "scan"),
        ("WHERE pk = 'a' AND a = 1", "a/*"),
        ("WHERE pk = 'a' AND (a = 1 OR b = 2)", "a/*"),
        ("WHERE pk = 'a' OR a = 1", "scan"),
        ("WHERE pk = 'a' AND sk = 1", "a/1"),
        ("WHERE pk = 'a' AND 1 < sk", "a/>1"),
        ("WHERE pk = 'a' AND sk <= 1", "a/<=1"),
        ("WHERE pk = 'a' AND sk BETWEEN 1 AND 2", "a/1..2"),
        ("WHERE pk = 'a' AND sk > 1 AND sk < 5", "a/1..5"),
        ("WHERE pk = 'a' AND sk > 5 AND sk < 1", "a/>5"),
        ("WHERE pk = 'a' AND sk > 1 AND sk = 5", "a/5"),
        ("WHERE pk = 'a' AND NOT sk = 1", "a/*"),
        ("WHERE pk = 'a' AND sk IN [3, 1]", "a/3 a/1"),
        ("WHERE pk IN ['b', 'a']", "b/* a/*"),
        ("WHERE pk IN ['b', 'a'] AND sk > 1", "b/>1 a/>1"),
        ("WHERE pk IN ['a', 'b'] AND pk = 'b'", "b/*"),
        ("WHERE pk = 'a' AND pk = 'b'", ""),
        ("WHERE pk = 'a' OR pk = 'b'", "a/* b/*"),
        ("WHERE pk = 'a' AND sk = 1 OR pk = 'b' AND sk > 2", "a/1 b/>2"),
        ("WHERE pk = 'a' AND (sk < 1 OR sk > 1)", "a/<1 a/>1"),
        ("WHERE pk = 'a' AND NOT (sk <> 1 AND sk <> 2)", "a/*"),
        ("WHERE pk = 'a' OR pk = 'a'", OVERLAPPING),
        ("WHERE pk IN ['a', 'a']", OVERLAPPING),
        ("WHERE pk = 'a' AND sk IN [1, 1.0]", OVERLAPPING),
        ("WHERE pk = 'a' AND (sk <= 1 OR sk >= 1)", OVERLAPPING),
        ("WHERE pk = 'a' AND (sk = 1 OR a = 2)", OVERLAPPING),
        (
            "WHERE pk = 'a' AND sk = 1 OR pk = 'a' AND sk > 0 AND sk < 5",
            "a/*",
        ),
        ("WHERE pk = 'a' AND sk <> 1 OR pk = 'a' AND sk = 2", "a/*"),
        (
            "WHERE pk = 1",
            "Key attribute's data type should match its data type in table's schema: Key pk",
        ),
        (
            "WHERE pk = true",
            "Key value must be of type S, N, or B. Key name: pk, Key type: BOOL",
        ),
        (
            "WHERE pk = 'a' AND sk = 'x'",
            "Key attribute's data type should match its data type in table's schema: Key sk",
        ),
        (
            "WHERE pk = ''",
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: pk",
        ),
    ] {
        assert_eq!(plan(clause), expected, "{clause}");
    }
    // More reads than are made one by one.
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let keys: Vec<String> = numbers.iter().map(|number| format!("'{number}'")).collect();
    let many = format!(
        "WHERE pk IN [{}] AND sk IN [{}]",
        keys.join(","),
        numbers.join(",")
    );
    let whole: Vec<String> = numbers.iter().map(|number| format!("{number}/*")).collect();
    assert_eq!(plan(&many), whole.join(" "));
    assert_eq!(
        plan(&format!("{many} ORDER BY pk, sk")).matches("/*").count(),
        100
    );
    let wide = format!("WHERE {}", vec!["(pk = 'a' OR pk = 'b')"; 20].join(" AND "));
    assert_eq!(plan(&wide), "scan");
}

#[test]
fn orders_by_the_key_only() {
    for (clause, expected) in [
        (
            "ORDER BY pk",
            "Must have WHERE clause in the statement when using ORDER BY clause.",
        ),
        (
            "WHERE pk = 'a' ORDER BY a",
            "Attribute a in ORDER BY clause must be part of the primary key",
        ),
        (
            "WHERE pk = 'a' ORDER BY m.x",
            "Argument to ORDER BY must be of type VariableReference. Type: PATH at 1:41:1",
        ),
        (
            "WHERE a = 1 ORDER BY pk",
            "Must have at least one non-optional hash key condition in WHERE clause when using ORDER BY clause.",
        ),
        (
            "WHERE pk IN ['a', 'b'] ORDER BY sk",
            "Must have hash key in ORDER BY clause when more than one hash key condition specified in WHERE clause.",
        ),
        ("WHERE pk = 'a' ORDER BY sk", "a/*"),
        ("WHERE pk = 'a' ORDER BY sk DESC", "-a/*"),
        ("WHERE pk = 'a' ORDER BY pk", "-a/*"),
        ("WHERE pk IN ['b', 'a'] ORDER BY pk, sk", "a/* b/*"),
        ("WHERE pk IN ['a', 'b'] ORDER BY pk DESC, sk", "b/* a/*"),
        ("WHERE pk = 'a' AND sk IN [3, 1, 2] ORDER BY sk", "a/1 a/2 a/3"),
        (
            "WHERE pk = 'a' AND sk IN [3, 1, 2] ORDER BY sk DESC",
            "-a/3 a/2 a/1",
        ),
    ] {
        assert_eq!(plan(clause), expected, "{clause}");
    }
}

#[test]
fn writes_are_about_one_item() {
    let key_of = |clause: &str| {
        let statement = Statement::parse(&format!("DELETE FROM T {clause}")).unwrap();
        let values = statement.bind(Vec::new()).unwrap();
        match statement.key(&values, PARTITION, Some(SORT)) {
            Ok(found) => format!(
                "{}/{}{}",
                key(&found.partition),
                found.sort.as_ref().map(key).unwrap_or_default(),
                if found.alone { "" } else { " and more" }
            ),
            Err(error) => error.to_string(),
        }
    };
    let unpinned = "Where clause does not contain a mandatory equality on all key attributes";
    for (clause, expected) in [
        ("", unpinned),
        ("WHERE pk = 'a'", unpinned),
        ("WHERE pk = 'a' AND sk > 1", unpinned),
        ("WHERE pk IN ['a'] AND sk = 1", unpinned),
        ("WHERE pk = 'a' AND sk = 1 OR a = 1", unpinned),
        ("WHERE NOT NOT pk = 'a' AND sk = 1", unpinned),
        ("WHERE pk = 'a' AND sk = 1", "a/1"),
        ("WHERE (1.0 = sk AND sk = 1) AND pk = 'a'", "a/1"),
        ("WHERE pk = 'a' AND sk = 1 AND (a = 1 OR b = 1)", "a/1 and more"),
        (
            "WHERE pk = 'a' AND sk = 1 AND sk = 2",
            "Multiple conditions on same key sk. Only single item Update/Insert/Delete are supported",
        ),
    ] {
        assert_eq!(key_of(clause), expected, "{clause}");
    }
}

#[test]
fn a_select_of_a_batch_is_about_one_item() {
    for (clause, expected) in [
        ("WHERE pk = 'a' AND sk = 1", true),
        ("WHERE pk IN ['a'] AND sk = 1", true),
        ("WHERE pk = 'a'", false),
        ("WHERE pk = 'a' AND sk = 1 AND a = 1", false),
        ("WHERE pk = 'a' AND sk = 1 AND sk = 2", false),
        ("WHERE pk = 'a' AND sk IN [1, 2]", false),
    ] {
        let statement = Statement::parse(&format!("SELECT * FROM T {clause}")).unwrap();
        let values = statement.bind(Vec::new()).unwrap();
        let found = statement.key_alone(&values, PARTITION, Some(SORT)).unwrap();
        assert_eq!(found.is_some(), expected, "{clause}");
    }
}
