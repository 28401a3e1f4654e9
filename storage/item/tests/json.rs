//! DynamoDB's JSON: round trip, grammar, and what is refused, in DynamoDB's words.

use cairn_item::json::{self, JsonKind, Reader};
use cairn_item::testing::{self, Random};
use cairn_item::{ErrorKind, Item, ItemBytes, Value};

const CASES: usize = 2_000;

fn read(text: &str) -> Result<Item, json::Error> {
    let mut reader = Reader::new(text.as_bytes())?;
    let item = reader.item()?;
    reader.finish()?;
    Ok(item)
}

fn write(item: &Item) -> String {
    let mut out = Vec::new();
    json::write_item(&mut out, item);
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// Sprinkles whitespace and escapes where JSON allows them.
fn dress_up(text: &str, random: &mut Random) -> String {
    let mut out = String::new();
    let (mut in_string, mut escaped, mut hex_digits) = (false, false, 0);
    for character in text.chars() {
        if hex_digits > 0 {
            hex_digits -= 1;
            out.push(character);
            continue;
        }
        if in_string && !escaped && character != '"' && character != '\\' && random.one_in(4) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&if random.one_in(2) {
                    format!("\\u{unit:04x}")
                } else {
                    format!("\\u{unit:04X}")
                });
            }
            continue;
        }
        if !in_string && "{}[]:,\"".contains(character) && random.one_in(3) {
            out.push_str(random.pick(&[" ", "\n", "\t\r\n  "]));
        }
        out.push(character);
        if escaped {
            escaped = false;
            hex_digits = if character == 'u' { 4 } else { 0 };
        } else if character == '\\' {
            escaped = true;
        } else if character == '"' {
            in_string = !in_string;
        }
    }
    out
}

#[test]
fn round_trip() {
    let mut random = Random::new(1);
    for _ in 0..CASES {
        let item = testing::item(&mut random);
        let text = write(&item);
        assert_eq!(read(&text).as_ref(), Ok(&item), "{text}");
        let mut from_view = Vec::new();
        json::write_item_view(&mut from_view, ItemBytes::from_item(&item).view());
        assert_eq!(String::from_utf8(from_view).expect("UTF-8"), text);
        let dressed = dress_up(&text, &mut random);
        assert_eq!(read(&dressed).as_ref(), Ok(&item), "{dressed}");
        let mut reader = Reader::new(dressed.as_bytes()).expect("UTF-8");
        assert_eq!(reader.skip(), Ok(()), "{dressed}");
        assert_eq!(reader.finish(), Ok(()));
    }
}

#[test]
fn cut_and_mutated_texts_never_panic() {
    let mut random = Random::new(2);
    for _ in 0..CASES {
        let text = write(&testing::item(&mut random));
        let cut = &text.as_bytes()[..random.below(text.len())];
        if let Ok(mut reader) = Reader::new(cut) {
            assert!(reader.clone().item().is_err());
            assert!(reader.skip().is_err());
        }
        let mut bytes = text.into_bytes();
        for _ in 0..1 + random.below(3) {
            let index = random.below(bytes.len());
            bytes[index] = random.pick(b"{}[]\":,\\0e-.tn S\x00\xFF");
        }
        if let Ok(mut reader) = Reader::new(&bytes) {
            let parsed = reader.clone().checked_item();
            let skipped = reader.skip();
            // What the item parser takes is JSON, so skipping takes it as well.
            assert!(
                parsed.is_err() || skipped.is_ok(),
                "{}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}

#[test]
fn refused_values() {
    let deep = |wraps: usize| {
        format!(
            "{}{{\"S\":\"x\"}}{}",
            "{\"L\":[".repeat(wraps),
            "]}".repeat(wraps)
        )
    };
    let depth = "Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit";
    let empty = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes";
    let invalid = "One or more parameter values were invalid: ";
    let cases: Vec<(&str, String)> = vec![
        ("{}", empty.to_owned()),
        (r#"{"a":""}"#, empty.to_owned()),
        ("null", empty.to_owned()),
        (r#"{"S":null}"#, empty.to_owned()),
        (r#"{"M":{"a":{}}}"#, empty.to_owned()),
        (r#"{"L":[{}]}"#, empty.to_owned()),
        (r#"{"L":[{"a":{}}]}"#, empty.to_owned()),
        (r#"{"NULL":"no"}"#, format!("{invalid}Null attribute value types must have the value of true")),
        (r#"{"NULL":false}"#, format!("{invalid}Null attribute value types must have the value of true")),
        (r#"{"SS":[]}"#, format!("{invalid}An string set  may not be empty")),
        (r#"{"NS":[]}"#, format!("{invalid}An number set  may not be empty")),
        (r#"{"BS":[]}"#, format!("{invalid}Binary sets should not be empty")),
        (r#"{"SS":["a","b","a"]}"#, format!("{invalid}Input collection [a, b, a] contains duplicates.")),
        (r#"{"BS":["Yg==","Yg=="]}"#, format!("{invalid}Input collection [Yg==, Yg==]of type BS contains duplicates.")),
        (r#"{"NS":["1","1.0"]}"#, "Input collection contains duplicates".to_owned()),
        (r#"{"S":"","N":""}"#, "The parameter cannot be converted to a numeric value".to_owned()),
        (r#"{"S":"a","N":"b"}"#, "The parameter cannot be converted to a numeric value: b".to_owned()),
        (r#"{"NS":["1",""]}"#, "The parameter cannot be converted to a numeric value".to_owned()),
        (r#"{"NS":["1","b"]}"#, "The parameter cannot be converted to a numeric value: b".to_owned()),
        (
            r#"{"S":"a","N":"1"}"#,
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
                .to_owned(),
        ),
        (r#"{"M":{"":{"S":"a"}}}"#, "Empty attribute name".to_owned()),
    ];
    for (text, message) in cases {
        check(text, ErrorKind::Validation, &message);
    }
    assert!(read(&format!(r#"{{"a":{}}}"#, deep(31))).is_ok());
    check(&deep(32), ErrorKind::Validation, depth);
    check(&deep(200), ErrorKind::Validation, depth);
    check(
        &format!(r#"{{"S":"{}"}}"#, "x".repeat(409_600)),
        ErrorKind::Validation,
        "Item size has exceeded the maximum allowed size",
    );
}

fn check(value: &str, kind: ErrorKind, message: &str) {
    let error = read(&format!(r#"{{"a":{value}}}"#)).expect_err(value);
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (kind, message),
        "{value}"
    );
}

#[test]
fn refused_json_types() {
    let cases = [
        ("\"a\"", "Unexpected value type in payload"),
        ("5", "Unexpected value type in payload"),
        ("[]", "Start of list found where not expected"),
        (r#"{"S":5}"#, "NUMBER_VALUE cannot be converted to String"),
        (r#"{"S":true}"#, "TRUE_VALUE cannot be converted to String"),
        (r#"{"N":5}"#, "NUMBER_VALUE cannot be converted to String"),
        (r#"{"N":[]}"#, "Start of list found where not expected"),
        (
            r#"{"S":{}}"#,
            "Start of structure or map found where not expected.",
        ),
        (
            r#"{"BOOL":"true"}"#,
            "STRING_VALUE cannot be converted to Boolean",
        ),
        (r#"{"SS":"a"}"#, "Expected list or null"),
        (r#"{"SS":[1]}"#, "NUMBER_VALUE cannot be converted to String"),
        (
            r#"{"L":{}}"#,
            "Start of structure or map found where not expected.",
        ),
        (r#"{"M":[]}"#, "Start of list found where not expected"),
        (
            r#"{"B":"23456"}"#,
            "'23456' can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: 5",
        ),
        (
            r#"{"B":"=+/="}"#,
            "'=+/=' can not be converted to a Blob: Invalid Base64 character: '='",
        ),
        (
            r#"{"B":"+/+="}"#,
            "'+/+=' can not be converted to a Blob: Invalid last non-pad Base64 character dectected",
        ),
    ];
    for (value, message) in cases {
        check(value, ErrorKind::Serialization, message);
    }
}

#[test]
fn malformed_json() {
    let texts = [
        "",
        " ",
        "{",
        "}",
        "{]",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,}"#,
        r#"{"a":1 "b":2}"#,
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "1e+",
        "tru",
        "nul",
        "truex",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12G4\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\u{1}\"",
        "\"\t\"",
        "1 2",
        "{} {}",
        "{1:2}",
        "[}",
        "'a'",
        "NaN",
    ];
    for text in texts {
        let mut reader = Reader::new(text.as_bytes()).expect("UTF-8");
        let result = reader.skip().and_then(|()| reader.finish());
        assert!(result.is_err_and(|error| error.malformed), "{text}");
    }
    assert!(Reader::new(b"\"\xFF\"").is_err());
    let deep = "[".repeat(100_000);
    assert!(
        Reader::new(deep.as_bytes())
            .expect("UTF-8")
            .skip()
            .is_err_and(|error| error.malformed)
    );
}

#[test]
fn whole_bodies() {
    let body = br#" { "TableName" : "t\u00e9st", "Item": {"id": {"S": "\ud83d\ude00"}, "bad": {"N": "x"}}, "Limit": 10.7,
        "ConsistentRead": true, "Nothing": null, "Names": ["a", "b"], "Other": {"deep": [1, {"x": [[]]}, -1.5e3]} } "#;
    let mut reader = Reader::new(body).expect("UTF-8");
    let mut seen = Vec::new();
    reader.begin_object().expect("an object");
    while let Some(key) = reader.next_key().expect("a key") {
        seen.push(key.clone().into_owned());
        match &*key {
            "TableName" => assert_eq!(reader.string().expect("a string"), "tést"),
            "Item" => {
                let refused = reader.checked_item().expect("JSON").expect_err("refused");
                assert_eq!(
                    refused.to_string(),
                    "The parameter cannot be converted to a numeric value: x"
                );
            }
            "Limit" => assert_eq!(reader.integer(), Ok(10)),
            "ConsistentRead" => assert_eq!(reader.bool(), Ok(true)),
            "Nothing" => assert_eq!(reader.null(), Ok(true)),
            "Names" => {
                assert_eq!(reader.peek(), Ok(JsonKind::Array));
                reader.begin_array().expect("an array");
                let mut names = Vec::new();
                while reader.next_element().expect("an element") {
                    names.push(reader.string().expect("a string").into_owned());
                }
                assert_eq!(names, ["a", "b"]);
            }
            _ => reader.skip().expect("a value"),
        }
    }
    reader.finish().expect("the end");
    assert_eq!(
        seen,
        [
            "TableName",
            "Item",
            "Limit",
            "ConsistentRead",
            "Nothing",
            "Names",
            "Other"
        ]
    );
}

#[test]
fn later_names_win_and_unknown_types_are_skipped() {
    let item = read(r#"{"b":{"S":"1"},"a":{"S":"2","zz":[1]},"b":{"S":"3"}}"#).expect("an item");
    assert_eq!(write(&item), r#"{"a":{"S":"2"},"b":{"S":"3"}}"#);
    assert_eq!(
        read(r#"{"e":{"S":""},"f":{"B":""},"g":{"SS":[""]}}"#).map(|item| item.len()),
        Ok(3)
    );
}

#[test]
fn base64_round_trip() {
    let mut random = Random::new(4);
    for _ in 0..CASES {
        let bytes = testing::bytes(&mut random, 60);
        let mut text = Vec::new();
        json::write_base64(&mut text, &bytes);
        assert_eq!(
            json::decode_base64(std::str::from_utf8(&text).expect("ASCII")),
            Ok(bytes)
        );
    }
    for (text, bytes) in [
        ("", ""),
        ("Zg==", "f"),
        ("Zm8=", "fo"),
        ("Zm9v", "foo"),
        ("Zm9vYmFy", "foobar"),
    ] {
        assert_eq!(json::decode_base64(text).as_deref(), Ok(bytes.as_bytes()));
    }
    for text in ["Zg=", "====", "Z===", "Zg==Zg==", "Zm9\n", "Zm9-", "Zh==", "Zm9="] {
        assert!(json::decode_base64(text).is_err(), "{text}");
    }
}

#[test]
fn value_reads_one_attribute_value() {
    let mut reader = Reader::new(br#"{"N":"1"} "#).expect("UTF-8");
    assert_eq!(reader.value(), Ok(Value::N(1.into())));
    assert_eq!(reader.finish(), Ok(()));
}
