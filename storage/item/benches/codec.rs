//! The codec on a 1 KB item of 8 attributes: JSON in and out, archive, validate, look up.
//!
//! `cargo bench -p cairn-item`

use std::hint::black_box;

use cairn_item::json::{self, Reader};
use cairn_item::{Attribute, Item, ItemBytes, Number, Value, archive};
use criterion::{Criterion, criterion_group, criterion_main};

fn attribute(name: &str, value: Value) -> Attribute {
    Attribute {
        name: name.to_owned(),
        value,
    }
}

/// 8 attributes, 15 values, 961 bytes as DynamoDB counts.
fn item() -> Item {
    let number = |text: &str| Value::N(text.parse::<Number>().expect("a number"));
    let text = |length: usize| Value::S("lorem ipsum dolor ".repeat(60)[..length].to_owned());
    let item = Item::from_attributes(vec![
        attribute("pk", text(24)),
        attribute("sk", text(20)),
        attribute("balance", number("1234567.89")),
        attribute("createdAt", number("1700000000123")),
        attribute("active", Value::Bool(true)),
        attribute(
            "tags",
            Value::Ss(vec!["blue".to_owned(), "green".to_owned(), "violet".to_owned()]),
        ),
        attribute(
            "address",
            Value::map(vec![
                attribute("city", text(12)),
                attribute("street", text(30)),
                attribute("zip", number("12345")),
            ]),
        ),
        attribute("body", text(781)),
    ]);
    assert_eq!(item.size(), 961);
    item
}

fn codec(criterion: &mut Criterion) {
    let item = item();
    let bytes = ItemBytes::from_item(&item);
    let mut json = Vec::new();
    json::write_item(&mut json, &item);
    eprintln!(
        "DynamoDB size {}, archived {}, JSON {}",
        item.size(),
        bytes.as_bytes().len(),
        json.len()
    );
    criterion.bench_function("json to item", |bencher| {
        bencher.iter(|| {
            Reader::new(black_box(&json))
                .expect("UTF-8")
                .item()
                .expect("an item")
        });
    });
    criterion.bench_function("json to archive", |bencher| {
        bencher.iter(|| {
            archive(
                &Reader::new(black_box(&json))
                    .expect("UTF-8")
                    .item()
                    .expect("an item"),
            )
        });
    });
    criterion.bench_function("archive", |bencher| bencher.iter(|| archive(black_box(&item))));
    criterion.bench_function("validate", |bencher| {
        bencher.iter(|| {
            ItemBytes::validate(black_box(bytes.as_bytes()))
                .expect("valid")
                .len()
        });
    });
    criterion.bench_function("look up", |bencher| {
        bencher.iter(|| black_box(bytes.view()).get(black_box("createdAt")));
    });
    criterion.bench_function("size", |bencher| {
        bencher.iter(|| black_box(bytes.view()).size_bytes())
    });
    let mut out = Vec::with_capacity(4096);
    criterion.bench_function("view to json", |bencher| {
        bencher.iter(|| {
            out.clear();
            json::write_item_view(&mut out, black_box(bytes.view()));
        });
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
