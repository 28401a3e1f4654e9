//! The archived form: round trip, sizes, frozen bytes, and hostile bytes.

use cairn_item::testing::{self, Random};
use cairn_item::{
    ArchiveError, Attribute, DEPTH_MAX, Item, ItemBytes, ItemView, Number, Value, ValueView, archive,
    item_size,
};

const CASES: usize = 3_000;

/// DynamoDB's size rules, once more and plainly.
fn size_of_value(value: &Value) -> usize {
    match value {
        Value::S(text) => text.len(),
        Value::B(bytes) => bytes.len(),
        Value::Null | Value::Bool(_) => 1,
        Value::N(number) => size_of_number(&number.to_string()),
        Value::Ss(members) => members.iter().map(|text| text.len()).sum(),
        Value::Bs(members) => members.iter().map(|bytes| bytes.len()).sum(),
        Value::Ns(members) => members
            .iter()
            .map(|number| size_of_number(&number.to_string()))
            .sum(),
        Value::L(elements) => elements
            .iter()
            .fold(3, |sum, element| sum + 1 + size_of_value(element)),
        Value::M(attributes) => attributes.iter().fold(3, |sum, attribute| {
            sum + 1 + attribute.name.len() + size_of_value(&attribute.value)
        }),
    }
}

/// One byte per two digits as they fall around the point, outer pairs of zeros trimmed; one more; one for a minus.
fn size_of_number(text: &str) -> usize {
    let unsigned = text.trim_start_matches('-');
    let (integer, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut digits = format!(
        "{}{integer}{fraction}",
        if integer.len() % 2 == 1 { "0" } else { "" }
    );
    if digits.len() % 2 == 1 {
        digits.push('0');
    }
    let mut pairs: &[u8] = digits.as_bytes();
    while let [b'0', b'0', rest @ ..] = pairs {
        pairs = rest;
    }
    while let [rest @ .., b'0', b'0'] = pairs {
        pairs = rest;
    }
    if pairs.is_empty() {
        1
    } else {
        (1 + pairs.len() / 2 + usize::from(text.starts_with('-'))).min(21)
    }
}

#[test]
fn round_trip_and_size() {
    let mut random = Random::new(1);
    for _ in 0..CASES {
        let item = testing::item(&mut random);
        assert_eq!(item.validate(), Ok(()));
        let bytes = archive(&item);
        let view = ItemView::validate(&bytes).unwrap_or_else(|error| panic!("{error}: {item:?}"));
        assert_eq!(view.to_item(), item);
        assert_eq!(archive(&view.to_item()), bytes, "one form only");
        assert_eq!(view.len(), item.len());
        for (attribute, (name, value)) in item.iter().zip(view.iter()) {
            assert_eq!(attribute.name, name);
            assert!(value == attribute.value);
            assert!(view.get(name).is_some_and(|found| found == value));
            assert_eq!(value.type_name(), attribute.value.type_name());
        }
        assert!(view.get("no such name, surely").is_none());
        let oracle: usize = item
            .iter()
            .map(|attribute| attribute.name.len() + size_of_value(&attribute.value))
            .sum();
        assert_eq!(item_size(&item), oracle);
        assert_eq!(view.size_bytes(), oracle);
    }
}

#[test]
fn archives_stand_anywhere() {
    let item = testing::item(&mut Random::new(9));
    let bytes = archive(&item);
    for offset in 0..9 {
        let mut block = vec![0xAA; offset];
        block.extend_from_slice(&bytes);
        let view = ItemView::validate(&block[offset..]).expect("alignment does not matter");
        assert_eq!(view.to_item(), item);
    }
}

fn attribute(name: &str, value: Value) -> Attribute {
    Attribute {
        name: name.to_owned(),
        value,
    }
}

fn golden_item() -> Item {
    let number = |text: &str| text.parse::<Number>().expect("a number");
    Item::from_attributes(vec![
        attribute("id", Value::S("user#1".to_owned())),
        attribute("name", Value::S("Ada Lovelace".to_owned())),
        attribute("balance", Value::N(number("-12.5"))),
        attribute("pi", Value::N(number("3.14159265358979"))),
        attribute("raw", Value::B(vec![1, 2, 3])),
        attribute("raw2", Value::B(vec![1, 2, 3, 4, 5, 6])),
        attribute("yes", Value::Bool(true)),
        attribute("no", Value::Bool(false)),
        attribute("void", Value::Null),
        attribute("tags", Value::Ss(vec!["a".to_owned(), "bb".to_owned()])),
        attribute("nums", Value::Ns(vec![number("1"), number("2")])),
        attribute("bins", Value::Bs(vec![vec![0], vec![255, 0]])),
        attribute("list", Value::L(vec![Value::S("x".to_owned()), Value::L(vec![])])),
        attribute("map", Value::map(vec![attribute("k", Value::N(number("0")))])),
    ])
}

/// These bytes are in stored files. When this test fails, the format has changed.
#[test]
fn golden_bytes() {
    let bytes = archive(&golden_item());
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        include_str!("golden_item.hex")
            .split_whitespace()
            .collect::<String>()
    );
    assert_eq!(
        ItemView::validate(&bytes).expect("valid").to_item(),
        golden_item()
    );
    assert_eq!(archive(&Item::new()), [0; 6]);
}

#[test]
fn mutated_bytes_never_become_an_invalid_view() {
    let mut random = Random::new(2);
    let mut valid = 0;
    for _ in 0..CASES * 10 {
        let mut bytes = archive(&testing::item(&mut random));
        for _ in 0..1 + random.below(3) {
            let index = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[index] ^= 1 << random.below(8),
                1 => bytes[index] = random.next_u64() as u8,
                2 => drop(bytes.remove(index)),
                _ => bytes.insert(index, random.pick(&[0, 1, 7, 13, 0xFE, 0xFF])),
            }
            if bytes.is_empty() {
                break;
            }
        }
        if let Ok(view) = ItemView::validate(&bytes) {
            valid += 1;
            let item = view.to_item();
            // Validity but for the size, which is not the archive's business.
            item.iter()
                .for_each(|attribute| assert_eq!(attribute.value.validate(1), Ok(())));
            assert_eq!(
                archive(&item),
                bytes,
                "a valid archive is what its item is archived as"
            );
        }
    }
    assert!(
        valid > CASES / 10,
        "some mutations only change a character: {valid}"
    );
}

#[test]
fn random_bytes_are_refused() {
    let mut random = Random::new(3);
    for _ in 0..CASES * 10 {
        let length = random.below(64);
        let bytes: Vec<u8> = (0..length).map(|_| random.below(20) as u8).collect();
        if let Ok(view) = ItemView::validate(&bytes) {
            assert_eq!(archive(&view.to_item()), bytes);
        }
    }
}

fn nested(levels: usize) -> Value {
    (1..levels).fold(Value::L(vec![]), |value, _| Value::L(vec![value]))
}

#[test]
fn deep_archives_are_refused() {
    let mut item = Item::new();
    item.insert("a", nested(DEPTH_MAX));
    let mut bytes = archive(&item);
    assert!(ItemView::validate(&bytes).is_ok());
    // One more level, by hand: the row of one attribute stands before the root; wrap its value in another list.
    let row = bytes.len() - 19;
    let mut attribute = bytes[row..row + 13].to_vec();
    bytes.truncate(row);
    // The span stood at row + 7 of the attribute, now stands at row + 1 of a list element.
    let distance = attribute[7] - 6;
    bytes.extend_from_slice(&[12, distance, 0, 0, 1, 0, 0]);
    attribute[7] = 14;
    bytes.extend_from_slice(&attribute);
    bytes.extend_from_slice(&[13, 0, 0, 1, 0, 0]);
    assert_eq!(ItemView::validate(&bytes).err(), Some(ArchiveError::Depth));

    // A hundred thousand levels: bytecheck stops long before the stack ends.
    let mut bytes = vec![12, 0, 0, 0, 0, 0, 0];
    for _ in 0..100_000 {
        bytes.extend_from_slice(&[12, 8, 0, 0, 1, 0, 0]);
    }
    bytes.extend_from_slice(&[
        b'a', 0xFE, 0xFE, 0xFE, 0xFE, 0xFE, 12, 14, 0, 0, 1, 0, 0, 13, 0, 0, 1, 0, 0,
    ]);
    assert_eq!(ItemView::validate(&bytes).err(), Some(ArchiveError::Structure));
}

#[test]
fn broken_rules_are_named() {
    let one = |value: Value| archive(&Item::from_attributes(vec![attribute("a", value)]));
    let edit = |mut bytes: Vec<u8>, from: &[u8], to: &[u8]| {
        let at = bytes
            .windows(from.len())
            .position(|window| window == from)
            .expect("the bytes are there");
        bytes[at..at + to.len()].copy_from_slice(to);
        ItemView::validate(&bytes).err()
    };
    let two = archive(&Item::from_attributes(vec![
        attribute("a", Value::Null),
        attribute("b", Value::Null),
    ]));
    assert_eq!(edit(two.clone(), b"b", b"a"), Some(ArchiveError::NameOrder));
    assert_eq!(edit(two.clone(), b"b", b"\xFE"), Some(ArchiveError::NameEmpty));
    assert_eq!(edit(two, b"b", b"\x80"), Some(ArchiveError::Utf8));
    assert_eq!(
        edit(one(Value::S("xyz".to_owned())), b"xyz", b"x\xC3z"),
        Some(ArchiveError::Utf8)
    );
    assert_eq!(
        edit(one(Value::N(Number::from(5))), &[0xC1, 6], &[0xC1, 1]),
        Some(ArchiveError::Number)
    );
    assert_eq!(
        edit(one(Value::Null), &[0xFE, 0, 0], &[0xFE, 0, 9]),
        Some(ArchiveError::NotCanonical)
    );
    assert_eq!(
        edit(one(Value::Null), &[0xFE, 0, 0], &[0xFE, 14, 0]),
        Some(ArchiveError::Structure)
    );
    assert_eq!(
        edit(one(Value::L(vec![])), &[0xFE, 12], &[0xFE, 9]),
        Some(ArchiveError::Set)
    );
    let set = one(Value::Ss(vec!["p".to_owned(), "q".to_owned()]));
    assert_eq!(edit(set.clone(), b"q", b"p"), Some(ArchiveError::Set));
    assert_eq!(edit(set, &[0xFE, 9], &[0xFE, 10]), Some(ArchiveError::Set));
    let mut padded = vec![0];
    padded.extend(one(Value::Null));
    assert_eq!(
        ItemView::validate(&padded).err(),
        Some(ArchiveError::NotCanonical)
    );
    assert_eq!(ItemView::validate(&[]).err(), Some(ArchiveError::Structure));
    assert_eq!(
        ItemView::validate(&[0, 0, 0, 1, 0, 0]).err(),
        Some(ArchiveError::Structure)
    );
}

/// What an attribute costs beyond its bytes; the figures in docs/format-item.md.
#[test]
fn bytes_per_attribute() {
    let cost =
        |name: &str, value: Value| archive(&Item::from_attributes(vec![attribute(name, value)])).len() - 6;
    assert_eq!(cost("id", Value::S("user#1".to_owned())), 13);
    assert_eq!(cost("id", Value::S("user#12".to_owned())), 13 + 7);
    assert_eq!(cost("id", Value::N(Number::from(1_700_000_000))), 13);
    assert_eq!(cost("createdAt", Value::N(Number::from(1_700_000_000))), 13 + 9);
    assert_eq!(cost("id", Value::Bool(true)), 13);
    assert_eq!(cost("id", Value::L(vec![Value::Null; 3])), 13 + 3 * 7);
    assert_eq!(
        cost("id", Value::Ns((1..4).map(Number::from).collect())),
        13 + 3 * 7
    );
}

#[test]
fn views_compare_with_values() {
    let bytes = ItemBytes::from_item(&golden_item());
    let view = bytes.view();
    let Some(ValueView::Ss(tags)) = view.get("tags") else {
        panic!("tags are a string set")
    };
    assert!(tags.contains("bb") && !tags.contains("b"));
    let Some(ValueView::Ns(numbers)) = view.get("nums") else {
        panic!("nums are a number set")
    };
    assert!(numbers.contains(&Number::from(2)) && !numbers.contains(&Number::from(3)));
    let Some(ValueView::Bs(binaries)) = view.get("bins") else {
        panic!("bins are a binary set")
    };
    assert!(binaries.contains(&[255, 0]) && !binaries.contains(&[255]));
    let Some(ValueView::L(list)) = view.get("list") else {
        panic!("list is a list")
    };
    assert!(list.get(0).is_some_and(|value| value == Value::S("x".to_owned())) && list.get(2).is_none());
    let Some(ValueView::M(map)) = view.get("map") else {
        panic!("map is a map")
    };
    assert!(map.get("k").is_some_and(|value| value == Value::N(Number::ZERO)));
    let id = view.get("id").expect("id is there");
    assert!(
        id.compare(&Value::S("user#2".to_owned()))
            .is_some_and(std::cmp::Ordering::is_lt)
    );
    assert!(id.compare(&Value::N(Number::ZERO)).is_none());
    assert_eq!(ItemBytes::new(bytes.as_bytes().to_vec()), Ok(bytes));
}
