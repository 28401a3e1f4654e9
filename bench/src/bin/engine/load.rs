//! The work, the same for every store: keys, items, and which of them when.

use std::str::FromStr;

use cairn_item::{Item, KeyValue, Space, StorageKey, archive, json};
use cairn_runtime::sim::Random;

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Every item once, in random order.
    Fill,
    /// Items that are there, at random.
    Overwrite,
    /// Items that are there, at random.
    Read,
    /// Items that are not.
    Missing,
    /// Ranges that begin at random.
    Scan,
    /// A read and a write of items that are there, by turns.
    Mixed,
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Work, String> {
        Ok(match text {
            "fill" => Work::Fill,
            "overwrite" => Work::Overwrite,
            "read" => Work::Read,
            "missing" => Work::Missing,
            "scan" => Work::Scan,
            "mixed" => Work::Mixed,
            _ => {
                return Err(format!(
                    "{text:?} is not one of fill, overwrite, read, missing, scan, mixed"
                ));
            }
        })
    }
}

/// What items are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing that packs.
    Random,
    /// Random bytes, twice: what db_bench calls a compression ratio of one half.
    Half,
    /// The archived form of items with a dozen attributes: names, ids, times, words, numbers.
    Attributes,
}

impl FromStr for Content {
    type Err = String;

    fn from_str(text: &str) -> Result<Content, String> {
        match text {
            "random" => Ok(Content::Random),
            "half" => Ok(Content::Half),
            "attributes" => Ok(Content::Attributes),
            _ => Err(format!("{text:?} is not one of random, half, attributes")),
        }
    }
}

/// Key `number`, as a table without sort key has it.
pub(crate) fn key(number: u64) -> Vec<u8> {
    let partition_key = KeyValue::S(format!("user#{number:010}"));
    StorageKey::new(Space::Base, 7, &partition_key, None).into_bytes()
}

/// An item of about `bytes` bytes; `version` makes it another one.
pub(crate) fn item(content: Content, number: u64, version: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(number ^ (version << 40));
    let mut item = vec![0; bytes];
    match content {
        Content::Random => random.fill(&mut item),
        Content::Half => {
            let (first, second) = item.split_at_mut(bytes.div_ceil(2));
            random.fill(first);
            second.copy_from_slice(&first[..second.len()]);
        }
        Content::Attributes => return attributes(number, &mut random, bytes),
    }
    item
}

const WORDS: [&str; 24] = [
    "the",
    "order",
    "of",
    "a",
    "customer",
    "was",
    "shipped",
    "from",
    "warehouse",
    "north",
    "and",
    "arrives",
    "on",
    "monday",
    "with",
    "express",
    "delivery",
    "to",
    "their",
    "door",
    "after",
    "payment",
    "by",
    "card",
];

fn attributes(number: u64, random: &mut Random, bytes: usize) -> Vec<u8> {
    let status = ["pending", "paid", "shipped", "delivered", "returned"][random.index(5)];
    let mut text = format!(
        r#"{{"pk":{{"S":"user#{number:010}"}},"orderId":{{"S":"{:016x}-{:08x}"}},"status":{{"S":"{status}"}},
        "createdAt":{{"S":"2026-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z"}},"total":{{"N":"{}.{:02}"}},"currency":{{"S":"EUR"}},
        "quantity":{{"N":"{}"}},"express":{{"BOOL":{}}},"customer":{{"M":{{"name":{{"S":"{} {}"}},"email":{{"S":"{:08x}@example.com"}},
        "address":{{"M":{{"street":{{"S":"{} street {}"}},"postcode":{{"S":"{:05}"}},"country":{{"S":"DE"}}}}}}}}}},
        "tags":{{"SS":["{}","tag{}"]}},"description":{{"S":""#,
        random.next_u64(),
        random.below(1 << 32),
        1 + random.below(12),
        1 + random.below(28),
        random.below(24),
        random.below(60),
        random.below(60),
        random.below(1_000),
        random.below(500),
        random.below(100),
        1 + random.below(9),
        random.one_in(4),
        WORDS[random.index(24)],
        WORDS[random.index(24)],
        random.below(1 << 32),
        WORDS[random.index(24)],
        random.below(200),
        random.below(100_000),
        WORDS[random.index(24)],
        random.below(30),
    );
    while text.len() < bytes {
        text.push_str(WORDS[random.index(24)]);
        text.push(' ');
    }
    text.push_str(r#""}}"#);
    let item: Item = json::Reader::new(text.as_bytes())
        .expect("the text is UTF-8")
        .item()
        .expect("the text is an item");
    archive(&item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_reproducible_and_about_as_long_as_asked() {
        for content in [Content::Random, Content::Half, Content::Attributes] {
            for bytes in [1_000, 4_000] {
                let one = item(content, 7, 1, bytes);
                assert_eq!(one, item(content, 7, 1, bytes));
                assert_ne!(one, item(content, 7, 2, bytes));
                assert!(
                    (bytes / 2..bytes * 2).contains(&one.len()),
                    "{content:?}: {}",
                    one.len()
                );
            }
        }
    }

    #[test]
    fn works_and_contents_have_names() {
        assert_eq!("mixed".parse(), Ok(Work::Mixed));
        assert!("else".parse::<Work>().is_err() && "else".parse::<Content>().is_err());
    }
}
