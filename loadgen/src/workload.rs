//! Which operation comes next, on which key, with what content.
//!
//! An item is a function of its key and a generation: `p` is the key, `g` the generation, `f0`.. the payload. So
//! whatever is read can be checked without remembering what was written: the payload must be the one that its own
//! key and generation ask for. Whether that generation may be seen at that time is for [`crate::ledger`] to say.

use cairn_item::{Attribute, Item, Number, Value};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::options::{Distribution, Workload};

/// Payload attributes of an item: with key and generation ten attributes, as many as YCSB's records have.
const PAYLOAD_ATTRIBUTES: usize = 8;

/// The characters of payloads: 64 of them, none that JSON escapes.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A small, fast generator (splitmix64): its quality is enough for choosing keys.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from `0..below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(below)) >> 64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws ranks from a Zipf distribution by rejection-inversion (Hörmann and Derflinger 1996): no table, exact.
#[derive(Debug, Clone)]
struct Zipf {
    count: f64,
    exponent: f64,
    integral_first: f64,
    integral_last: f64,
    shift: f64,
}

impl Zipf {
    /// YCSB's exponent.
    const EXPONENT: f64 = 0.99;

    fn new(count: u64) -> Zipf {
        let exponent = Zipf::EXPONENT;
        let count = count as f64;
        let mut zipf = Zipf {
            count,
            exponent,
            integral_first: 0.0,
            integral_last: 0.0,
            shift: 0.0,
        };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(count + 0.5);
        zipf.shift = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn density(&self, rank: f64) -> f64 {
        (-self.exponent * rank.ln()).exp()
    }

    fn integral(&self, rank: f64) -> f64 {
        let log = rank.ln();
        expm1_over((1.0 - self.exponent) * log) * log
    }

    fn integral_inverse(&self, value: f64) -> f64 {
        let scaled = (value * (1.0 - self.exponent)).max(-1.0);
        (log1p_over(scaled) * value).exp()
    }

    /// A rank from `0..count`; 0 is the most frequent.
    fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let value = self.integral_last + random.unit() * (self.integral_first - self.integral_last);
            let exact = self.integral_inverse(value);
            let rank = exact.round().clamp(1.0, self.count);
            if rank - exact <= self.shift || value >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64 - 1;
            }
        }
    }
}

fn expm1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.exp_m1() / x
    } else {
        1.0 + x / 2.0
    }
}

fn log1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 {
        x.ln_1p() / x
    } else {
        1.0 - x / 2.0
    }
}

/// Chooses keys.
#[derive(Debug, Clone)]
enum Keys {
    Uniform,
    Zipfian(Zipf),
    Latest(Zipf),
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Read this key.
    Get { key: u64, how: Reading },
    /// Store this generation of this key.
    Put { key: u64, generation: u64, how: Writing },
}

/// How an item is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// GetItem.
    Get,
    /// Query of its partition key.
    Query,
    /// Query of the local index for the only item of its partition key.
    Local,
    /// Query of the global index for the only item of its owner; never strongly consistent.
    Global,
    /// TransactGetItems of the group that begins with this key.
    Group,
}

/// How an item is stored. It is the same item in every way, but for the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// PutItem.
    Put,
    /// PutItem on the condition that the item is there.
    Conditional,
    /// UpdateItem, which sets every attribute but the key.
    Update,
    /// The same on the condition that the item is there.
    ConditionalUpdate,
    /// UpdateItem, which adds 1 to the attribute `n` and leaves the rest, its generation too.
    Add,
    /// TransactWriteItems, which puts every item of the group that begins with this key.
    Group,
}

/// Items that a transaction reads or writes. They are neighbours, and nobody writes one of them without the others: so a
/// transaction that reads them finds one generation.
pub(crate) const GROUP: u64 = 4;

/// The keys of a group by its first.
pub(crate) fn group(first: u64) -> std::ops::Range<u64> {
    first..first + GROUP
}

/// Where the generations of a run begin, at random: they differ from those of every other run, also with the same
/// seed, so that a put of this run is told from what was there before. There are 2^24 - 1 beginnings behind the loaded
/// generation 0, 2^32 apart.
pub(crate) fn generations_begin(random: u64) -> u64 {
    (1 + random % ((1 << 24) - 1)) << 32
}

/// The sequence of operations of one run.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    random: Random,
    keys: Keys,
    items: u64,
    gets_percent: u64,
    reading: Reading,
    writing: Writing,
    generation: u64,
    newest: u64,
}

impl Operations {
    /// The operations of a run whose generations begin behind `generation`.
    pub(crate) fn new(
        workload: Workload,
        distribution: Distribution,
        items: u64,
        seed: u64,
        generation: u64,
    ) -> Operations {
        let keys = match distribution {
            Distribution::Uniform => Keys::Uniform,
            Distribution::Zipfian => Keys::Zipfian(Zipf::new(items)),
            Distribution::Latest => Keys::Latest(Zipf::new(items)),
        };
        Operations {
            random: Random::new(seed),
            keys,
            items,
            gets_percent: workload.gets_percent(),
            reading: workload.reading(),
            writing: workload.writing(),
            generation,
            newest: items - 1,
        }
    }

    /// The generation of the newest put so far.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn next(&mut self) -> Operation {
        let get = self.random.below(100) < self.gets_percent;
        let key = match &self.keys {
            Keys::Uniform => self.random.below(self.items),
            // Hot keys are spread over the key space, or one partition would be hot by accident of naming.
            Keys::Zipfian(zipf) => {
                let rank = zipf.draw(&mut self.random);
                xxh3_64_with_seed(&rank.to_le_bytes(), 0) % self.items
            }
            Keys::Latest(zipf) if get => {
                let back = zipf.draw(&mut self.random);
                (self.newest + self.items - back) % self.items
            }
            Keys::Latest(_) => {
                self.newest = (self.newest + 1) % self.items;
                self.newest
            }
        };
        // A group that the key space has a part of only is not used.
        let key = match self.writing {
            Writing::Group => (key / GROUP).min(self.items / GROUP - 1) * GROUP,
            _ => key,
        };
        if get {
            let how = match self.reading {
                Reading::Local if self.random.below(2) == 0 => Reading::Global,
                how => how,
            };
            return Operation::Get { key, how };
        }
        self.generation += 1;
        Operation::Put {
            key,
            generation: self.generation,
            how: self.writing,
        }
    }
}

/// What items look like: their layout follows from the item size alone.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    payload_bytes: Vec<usize>,
    /// With the attributes that an indexed table has besides: the owner `o` and the sort key `s`.
    indexed: bool,
}

/// The sort key of every item of an indexed table.
const SORT: &str = "0";

/// Digits of a key: fixed, so that every item has the same size.
const KEY_DIGITS: usize = 12;
/// Added to ten times the generation: 18 digits of which the last is never 0, because DynamoDB counts significant
/// digits only and every item is to have the same size.
const GENERATION_BASE: u64 = 10_u64.pow(17) + 1;

impl Shape {
    /// The layout of items of `item_bytes` by DynamoDB's count; `indexed` ones have the attributes of an indexed table.
    pub(crate) fn new(item_bytes: u32, indexed: bool) -> Shape {
        let mut empty = Item::new();
        empty.insert("p", Value::S(key_text(0)));
        empty.insert("g", Value::N(generation_number(0)));
        if indexed {
            empty.insert("o", Value::S(owner_text(0)));
            empty.insert("s", Value::S(SORT.into()));
        }
        let mut left = (item_bytes as usize).saturating_sub(empty.size());
        let mut payload_bytes = Vec::new();
        for index in 0..PAYLOAD_ATTRIBUTES {
            let share = left / (PAYLOAD_ATTRIBUTES - index);
            left -= share;
            // Each attribute costs its name, `f0`, as well.
            if share > 2 {
                payload_bytes.push(share - 2);
            }
        }
        Shape {
            payload_bytes,
            indexed,
        }
    }

    /// The item of a key and generation.
    pub(crate) fn item(&self, key: u64, generation: u64) -> Item {
        let mut attributes = Vec::with_capacity(self.payload_bytes.len() + 2);
        for (index, &bytes) in self.payload_bytes.iter().enumerate() {
            let mut payload = Vec::new();
            payload_into(&mut payload, key, generation, index, bytes);
            let payload = String::from_utf8(payload).expect("the alphabet is ASCII");
            attributes.push(Attribute {
                name: format!("f{index}"),
                value: Value::S(payload),
            });
        }
        attributes.push(Attribute {
            name: "g".into(),
            value: Value::N(generation_number(generation)),
        });
        if self.indexed {
            attributes.push(Attribute {
                name: "o".into(),
                value: Value::S(owner_text(key)),
            });
        }
        attributes.push(Attribute {
            name: "p".into(),
            value: Value::S(key_text(key)),
        });
        if self.indexed {
            attributes.push(Attribute {
                name: "s".into(),
                value: Value::S(SORT.into()),
            });
        }
        Item::from_attributes(attributes)
    }

    /// Appends the item as DynamoDB JSON, without building it first.
    pub(crate) fn write_json(&self, into: &mut Vec<u8>, key: u64, generation: u64) {
        into.push(b'{');
        for (index, &bytes) in self.payload_bytes.iter().enumerate() {
            into.extend_from_slice(&[b'"', b'f', b'0' + index as u8]);
            into.extend_from_slice(br#"":{"S":""#);
            payload_into(into, key, generation, index, bytes);
            into.extend_from_slice(br#""},"#);
        }
        into.extend_from_slice(br#""g":{"N":""#);
        push_generation(into, generation);
        if self.indexed {
            into.extend_from_slice(br#""},"o":{"S":""#);
            push_owner(into, key);
        }
        into.extend_from_slice(br#""},"p":{"S":""#);
        push_key(into, key);
        if self.indexed {
            into.extend_from_slice(br#""},"s":{"S":""#);
            into.extend_from_slice(SORT.as_bytes());
        }
        into.extend_from_slice(br#""}}"#);
    }

    /// Appends the members of an UpdateItem that makes the item of this key what [`Shape::item`] says.
    pub(crate) fn write_update(&self, into: &mut Vec<u8>, key: u64, generation: u64) {
        into.extend_from_slice(br#""UpdateExpression":"SET g = :g"#);
        for index in 0..self.payload_bytes.len() {
            let digit = b'0' + index as u8;
            into.extend_from_slice(&[b',', b' ', b'f', digit]);
            into.extend_from_slice(&[b' ', b'=', b' ', b':', b'f', digit]);
        }
        into.extend_from_slice(br#"","ExpressionAttributeValues":{":g":{"N":""#);
        push_generation(into, generation);
        into.extend_from_slice(br#""}"#);
        for (index, &bytes) in self.payload_bytes.iter().enumerate() {
            into.extend_from_slice(&[b',', b'"', b':', b'f', b'0' + index as u8]);
            into.extend_from_slice(br#"":{"S":""#);
            payload_into(into, key, generation, index, bytes);
            into.extend_from_slice(br#""}"#);
        }
        into.push(b'}');
    }

    /// Checks the payloads of an item that was read; `payload` finds attribute `index`.
    pub(crate) fn payloads_match<'a>(
        &self,
        key: u64,
        generation: u64,
        scratch: &mut Vec<u8>,
        mut payload: impl FnMut(usize) -> Option<&'a [u8]>,
    ) -> bool {
        self.payload_bytes.iter().enumerate().all(|(index, &bytes)| {
            scratch.clear();
            payload_into(scratch, key, generation, index, bytes);
            payload(index) == Some(scratch.as_slice())
        })
    }
}

/// The text of a key.
pub(crate) fn key_text(key: u64) -> String {
    let mut text = Vec::new();
    push_key(&mut text, key);
    String::from_utf8(text).expect("digits are ASCII")
}

/// Appends the text of a key.
pub(crate) fn push_key(into: &mut Vec<u8>, key: u64) {
    into.extend_from_slice(b"user");
    push_decimal(into, key, KEY_DIGITS);
}

/// Appends the owner of a key's item, under which the global index has it alone.
pub(crate) fn push_owner(into: &mut Vec<u8>, key: u64) {
    into.extend_from_slice(b"owner");
    push_decimal(into, key, KEY_DIGITS);
}

fn owner_text(key: u64) -> String {
    let mut text = Vec::new();
    push_owner(&mut text, key);
    String::from_utf8(text).expect("digits are ASCII")
}

/// The generation that the text of `g` names.
pub(crate) fn generation_of(text: &str) -> Option<u64> {
    Some(text.parse::<u64>().ok()?.checked_sub(GENERATION_BASE)? / 10)
}

fn generation_number(generation: u64) -> Number {
    let mut digits = Vec::new();
    push_generation(&mut digits, generation);
    let digits = std::str::from_utf8(&digits).expect("digits are ASCII");
    digits.parse().expect("18 digits are a number")
}

fn push_generation(into: &mut Vec<u8>, generation: u64) {
    push_decimal(into, generation * 10 + GENERATION_BASE, 18);
}

fn push_decimal(into: &mut Vec<u8>, mut value: u64, digits: usize) {
    let start = into.len();
    into.resize(start + digits, b'0');
    for digit in into[start..].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn payload_into(into: &mut Vec<u8>, key: u64, generation: u64, index: usize, bytes: usize) {
    let seed = key ^ generation.rotate_left(32) ^ ((index as u64) << 56);
    let mut random = Random::new(seed);
    let start = into.len();
    into.resize(start + bytes, 0);
    for chunk in into[start..].chunks_mut(8) {
        // Six bits of each byte choose a character.
        let mut bits = random.next();
        for byte in chunk {
            *byte = ALPHABET[(bits & 63) as usize];
            bits >>= 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_have_the_size_asked_for() {
        for bytes in [100, 400, 1024, 4096, 100_000, 409_600] {
            for indexed in [false, true] {
                let item = Shape::new(bytes, indexed).item(7, 9);
                assert_eq!(item.size(), bytes as usize, "{bytes}");
            }
        }
    }

    #[test]
    fn the_json_is_the_item() {
        for indexed in [false, true] {
            let shape = Shape::new(1024, indexed);
            let mut written = Vec::new();
            shape.write_json(&mut written, 5, 77);
            let mut expected = Vec::new();
            cairn_item::json::write_item(&mut expected, &shape.item(5, 77));
            assert_eq!(
                String::from_utf8(written).unwrap(),
                String::from_utf8(expected).unwrap()
            );
        }
    }

    #[test]
    fn transactions_are_about_whole_groups() {
        for items in [4, 7, 8, 1_002] {
            let mut operations = Operations::new(Workload::Transact, Distribution::Uniform, items, 5, 0);
            for _ in 0..1_000 {
                let (Operation::Get { key, .. } | Operation::Put { key, .. }) = operations.next();
                assert!(key % GROUP == 0 && group(key).end <= items, "{key} of {items}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        for distribution in [Distribution::Uniform, Distribution::Zipfian, Distribution::Latest] {
            let run = |seed| {
                let mut operations = Operations::new(Workload::A, distribution, 1000, seed, 0);
                (0..1000).map(|_| operations.next()).collect::<Vec<_>>()
            };
            assert_eq!(run(1), run(1));
            assert_ne!(run(1), run(2));
        }
    }

    #[test]
    fn zipf_follows_its_law() {
        let zipf = Zipf::new(1000);
        let mut random = Random::new(3);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..1_000_000 {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        let total: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-Zipf::EXPONENT)).sum();
        for rank in [0_usize, 1, 9, 99] {
            let expected = (rank as f64 + 1.0).powf(-Zipf::EXPONENT) / total * 1e6;
            let got = f64::from(counts[rank]);
            assert!(
                (got - expected).abs() < 6.0 * expected.sqrt() + 1.0,
                "rank {rank}: {got} for {expected}"
            );
        }
    }
}
