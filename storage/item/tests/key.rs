//! Storage keys: their order is the order of values, and a Query's range holds exactly what its condition allows.

use std::ops::{Bound, RangeBounds};

use cairn_item::testing::{self, Random};
use cairn_item::{
    Attribute, Item, ItemBytes, ItemError, KeyCondition, KeyRange, KeyType, KeyValue, Number, Space,
    StorageKey, Value,
};

const CASES: usize = 10_000;
const SEED: u64 = 77;
const TYPES: [KeyType; 3] = [KeyType::S, KeyType::N, KeyType::B];

#[test]
fn order_of_keys_is_order_of_values() {
    let mut random = Random::new(1);
    for _ in 0..CASES {
        let (partition_type, sort_type) = (random.pick(&TYPES), random.pick(&TYPES));
        let mut key = || {
            let partition = testing::key_value(&mut random, partition_type);
            let sort = testing::key_value(&mut random, sort_type);
            let stored = StorageKey::new(Space::Base, SEED, &partition, Some(&sort));
            let value = (
                StorageKey::hash(SEED, &partition),
                partition.clone(),
                sort.clone(),
            );
            let (space, hash, partition_again, sort_again) =
                StorageKey::decode(stored.as_bytes(), partition_type, Some(sort_type)).expect("decodes");
            assert_eq!(
                (space, (hash, partition_again, sort_again.expect("a sort key"))),
                (Space::Base, value.clone())
            );
            (stored, value)
        };
        let ((left, left_value), (right, right_value)) = (key(), key());
        assert_eq!(
            left.cmp(&right),
            left_value.cmp(&right_value),
            "{left_value:?} and {right_value:?}"
        );
        assert!(
            left == right || !left.as_bytes().starts_with(right.as_bytes()),
            "a version may follow a key"
        );
    }
}

#[test]
fn ranges_hold_what_conditions_allow() {
    let mut random = Random::new(2);
    let partition = KeyValue::S("p".to_owned());
    let mut inside = 0;
    for _ in 0..CASES {
        let key_type = random.pick(&TYPES);
        let mut value = || testing::key_value(&mut random, key_type);
        let (sort, first, second) = (value(), value(), value());
        let (lower, upper) = if first <= second {
            (first.clone(), second)
        } else {
            (second, first.clone())
        };
        let mut conditions = vec![
            (KeyCondition::All, true),
            (KeyCondition::Equal(first.clone()), sort == first),
            (KeyCondition::Equal(sort.clone()), true),
            (KeyCondition::Less(first.clone()), sort < first),
            (KeyCondition::LessOrEqual(first.clone()), sort <= first),
            (KeyCondition::Greater(first.clone()), sort > first),
            (KeyCondition::GreaterOrEqual(first.clone()), sort >= first),
            (
                KeyCondition::Between(lower.clone(), upper.clone()),
                lower <= sort && sort <= upper,
            ),
        ];
        if key_type != KeyType::N {
            let begins = sort.bytes().starts_with(first.bytes());
            conditions.push((KeyCondition::BeginsWith(first.clone()), begins));
            let prefix = match &sort {
                KeyValue::S(text) => KeyValue::S(text.chars().take(1).collect()),
                KeyValue::B(bytes) => KeyValue::B(bytes[..1].to_vec()),
                KeyValue::N(_) => unreachable!("numbers have no prefixes"),
            };
            conditions.push((KeyCondition::BeginsWith(prefix), true));
        }
        let key = StorageKey::new(Space::Base, SEED, &partition, Some(&sort));
        let stranger = StorageKey::new(Space::Base, SEED, &KeyValue::S("q".to_owned()), Some(&sort));
        for (condition, allowed) in conditions {
            let range = condition.range(Space::Base, SEED, &partition).expect("a range");
            assert_eq!(
                contains(&range, key.as_bytes()),
                allowed,
                "{sort:?} by {condition:?}"
            );
            assert!(!contains(&range, stranger.as_bytes()), "another partition key");
            inside += usize::from(allowed);
        }
    }
    assert!(inside > CASES, "enough keys are inside: {inside}");
}

fn contains((lower, upper): &KeyRange, key: &[u8]) -> bool {
    (lower.clone(), upper.clone()).contains(&key.to_vec())
}

#[test]
fn a_prefix_without_successor_is_unbounded_above_in_no_space() {
    // The space byte is below FF, so every prefix has a successor.
    let partition = KeyValue::B(vec![0xFF; 40]);
    let condition = KeyCondition::BeginsWith(KeyValue::B(vec![0xFF; 40]));
    let (_, upper) = condition
        .range(Space::TimeToLive, SEED, &partition)
        .expect("a range");
    assert!(matches!(upper, Bound::Excluded(_)));
}

#[test]
fn golden_keys() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let number: Number = "-12.5".parse().expect("a number");
    let key = StorageKey::new(
        Space::Base,
        7,
        &KeyValue::S("a\0b".to_owned()),
        Some(&KeyValue::N(number)),
    );
    assert_eq!(hex(key.as_bytes()), "019c78cdd56831e1226100ff6200013e5933660001");
    let key = StorageKey::new(Space::Base, 7, &KeyValue::B(vec![0, 255]), None);
    assert_eq!(hex(&key.as_bytes()[9..]), "00ffff0001");
}

#[test]
fn equal_numbers_are_one_key() {
    let key = |text: &str| {
        let number = KeyValue::N(text.parse().expect("a number"));
        StorageKey::new(Space::Base, SEED, &number, None)
    };
    assert_eq!(key("1"), key("1.000e0"));
    assert_eq!(key("0"), key("-0.0"));
}

#[test]
fn wrong_keys_are_refused_in_the_words_of_dynamodb() {
    let item: Item = [
        ("empty", Value::S(String::new())),
        ("hollow", Value::B(Vec::new())),
        ("number", Value::N(Number::ZERO)),
        ("flag", Value::Bool(true)),
    ]
    .into_iter()
    .map(|(name, value)| Attribute {
        name: name.to_owned(),
        value,
    })
    .collect();
    let bytes = ItemBytes::from_item(&item);
    let cases = [
        (
            "empty",
            KeyType::S,
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: empty",
        ),
        (
            "hollow",
            KeyType::B,
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty binary value. Key: hollow",
        ),
        (
            "number",
            KeyType::S,
            "One or more parameter values were invalid: Type mismatch for key number expected: S actual: N",
        ),
        (
            "flag",
            KeyType::N,
            "One or more parameter values were invalid: Type mismatch for key flag expected: N actual: BOOL",
        ),
        (
            "missing",
            KeyType::N,
            "One or more parameter values were invalid: Missing the key missing in the item",
        ),
    ];
    for (name, key_type, message) in cases {
        let owned = KeyValue::from_item(&item, name, key_type).map_err(|error| error.to_string());
        let viewed =
            KeyValue::from_item_view(bytes.view(), name, key_type).map_err(|error| error.to_string());
        assert_eq!(owned, Err(message.to_owned()));
        assert_eq!(viewed, owned);
    }
    assert_eq!(KeyValue::S("a".repeat(2048)).check_partition_key(), Ok(()));
    assert_eq!(
        KeyValue::S("a".repeat(2049)).check_partition_key(),
        Err(ItemError::PartitionKeyTooLong)
    );
    assert_eq!(KeyValue::B(vec![1; 1024]).check_sort_key(), Ok(()));
    assert_eq!(
        KeyValue::B(vec![1; 1025]).check_sort_key(),
        Err(ItemError::SortKeyTooLong)
    );
    let reversed = KeyCondition::Between(KeyValue::N(Number::from(2)), KeyValue::N(Number::from(1)));
    let error = reversed
        .range(Space::Base, SEED, &KeyValue::S("p".to_owned()))
        .expect_err("reversed");
    assert!(
        error.to_string().ends_with(
            "lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}"
        )
    );
}

#[test]
fn keys_of_index_entries_are_frozen() {
    let (pk, sort, base) = (
        KeyValue::S("a\0".to_owned()),
        KeyValue::S("s".to_owned()),
        KeyValue::B(vec![7]),
    );
    let mut local = StorageKey::local_index_prefix(1, 0x0203, &pk);
    StorageKey::push(&mut local, &sort);
    StorageKey::push(&mut local, &base);
    let mut expected = vec![2];
    expected.extend(StorageKey::hash(1, &pk).to_be_bytes());
    expected.extend(b"\x02\x03a\0\xff\0\x01s\0\x01\x07\0\x01");
    assert_eq!(local, expected);
    assert_eq!(StorageKey::local_index(&local), Some(0x0203));
    let item = StorageKey::new(Space::Base, 1, &pk, Some(&base));
    assert_eq!(StorageKey::of_local_index_entry(&local), Some(item));
    for bytes in 0..local.len() {
        assert_eq!(StorageKey::of_local_index_entry(&local[..bytes]), None, "{bytes}");
    }

    let mut global = StorageKey::global_index_prefix(1, std::slice::from_ref(&pk));
    assert_eq!(global, StorageKey::partition_prefix(Space::Base, 1, &pk));
    StorageKey::push(&mut global, &sort);
    assert!(global.ends_with(b"a\0\xff\0\x01s\0\x01"));
    let wide = StorageKey::global_index_prefix(1, &[pk.clone(), sort.clone()]);
    let narrow = StorageKey::global_index_prefix(1, &[pk]);
    assert_eq!(wide[9..], global[9..]);
    assert_ne!(wide[..9], narrow[..9], "all of the key places it");
}

/// What a condition allows among keys with more components behind, by brute force.
#[test]
fn ranges_of_index_entries_hold_what_the_condition_allows() {
    let text = |text: &str| KeyValue::S(text.to_owned());
    let prefix = StorageKey::global_index_prefix(9, &[text("p")]);
    let sorts = ["", "a", "a\0", "a\0b", "ab", "b", "b\u{ff}", "c"];
    let entry = |sort: &str, base: &str| {
        let mut key = prefix.clone();
        StorageKey::push(&mut key, &text(sort));
        StorageKey::push(&mut key, &text(base));
        key
    };
    for one in sorts {
        for other in sorts {
            let (low, high) = (one.min(other), one.max(other));
            type Holds<'a> = Box<dyn Fn(&str) -> bool + 'a>;
            let conditions: Vec<(KeyCondition, Holds<'_>)> = vec![
                (KeyCondition::All, Box::new(|_| true)),
                (KeyCondition::Equal(text(one)), Box::new(|sort| sort == one)),
                (KeyCondition::Less(text(one)), Box::new(|sort| sort < one)),
                (KeyCondition::LessOrEqual(text(one)), Box::new(|sort| sort <= one)),
                (KeyCondition::Greater(text(one)), Box::new(|sort| sort > one)),
                (
                    KeyCondition::GreaterOrEqual(text(one)),
                    Box::new(|sort| sort >= one),
                ),
                (
                    KeyCondition::Between(text(low), text(high)),
                    Box::new(|sort| low <= sort && sort <= high),
                ),
                (
                    KeyCondition::BeginsWith(text(one)),
                    Box::new(|sort| sort.starts_with(one)),
                ),
            ];
            for (condition, holds) in conditions {
                let range = condition.range_in(prefix.clone()).unwrap();
                for sort in sorts {
                    for base in ["", "x", "\u{ff}\u{ff}"] {
                        let key = entry(sort, base);
                        let inside = std::ops::RangeBounds::contains(&range, &key);
                        assert_eq!(inside, holds(sort), "{condition:?} {sort:?} {base:?}");
                    }
                }
                assert!(!std::ops::RangeBounds::contains(
                    &range,
                    &StorageKey::global_index_prefix(9, &[text("q")])
                ));
            }
        }
    }
}

#[test]
fn a_collection_is_what_its_items_and_entries_begin_with() {
    let text = |text: &str| KeyValue::S(text.to_owned());
    for partition in [
        text("a"),
        text("\0"),
        text("a\0\0b"),
        KeyValue::B(vec![0, 1, 255, 0]),
    ] {
        let prefix = StorageKey::partition_prefix(Space::Base, 5, &partition);
        for sort in [None, Some(text("")), Some(text("\0x"))] {
            let key = StorageKey::new(Space::Base, 5, &partition, sort.as_ref());
            assert_eq!(StorageKey::collection(key.as_bytes()), Some(&*prefix));
        }
        let entries = StorageKey::local_index_prefix(5, 0x0203, &partition);
        assert_eq!(StorageKey::local_index_prefix_of(&prefix, 0x0203), entries);
        assert_eq!(StorageKey::collection(&prefix[..prefix.len() - 1]), None);
    }
    assert_eq!(StorageKey::collection(b"short"), None);
}
