//! What the tests share: requests written as DynamoDB's JSON.

#![allow(dead_code, reason = "each test uses a part of it")]

use cairn_expression::{Names, Values};
use cairn_item::json::Reader;
use cairn_item::{Item, Value};

/// An item of DynamoDB's JSON.
pub(crate) fn item(json: &str) -> Item {
    Reader::new(json.as_bytes()).unwrap().item().unwrap()
}

/// `ExpressionAttributeValues`; an empty text for none.
pub(crate) fn values(json: &str) -> Values {
    if json.is_empty() {
        return Values::none();
    }
    let mut reader = Reader::new(json.as_bytes()).unwrap();
    reader.begin_object().unwrap();
    let mut entries: Vec<(String, Value)> = Vec::new();
    while let Some(key) = reader.next_key().unwrap() {
        let key = key.into_owned();
        entries.push((key, reader.value().unwrap()));
    }
    Values::new(entries).unwrap()
}

/// `ExpressionAttributeNames` as `#a=x #b=y`; an empty text for none.
pub(crate) fn names(text: &str) -> Names {
    if text.is_empty() {
        return Names::none();
    }
    let entries = text.split(' ').map(|entry| {
        let (key, name) = entry.split_once('=').unwrap();
        (key.to_owned(), name.to_owned())
    });
    Names::new(entries.collect()).unwrap()
}

/// A value of DynamoDB's JSON.
pub(crate) fn value(json: &str) -> Value {
    Reader::new(json.as_bytes()).unwrap().value().unwrap()
}
