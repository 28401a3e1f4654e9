//! Bolero targets for everything that decodes bytes from a drive or a client. As plain tests they run a bounded
//! number of random inputs and the committed corpora; `cargo bolero test NAME` runs them without end.
//!
//! Two kinds of input: arbitrary bytes, and a valid encoding with a few edits (what passes a checksum check is
//! only met that way). A decoder must never panic, and what it accepts must encode to what it accepted.

use bolero::check;
use cairn_engine::PartitionDescriptor;
use cairn_engine::ids::{CommitTimestamp, IndexId, LogSequence, PartitionId, RaftIndex, SegmentId, TableId};
use cairn_engine::manifest::{Edit, SegmentReference, decode_edits, encode_edits};
use cairn_engine::mutation::{
    Mutation, MutationHeader, MutationKind, OriginTimestamp, Provenance, RegionId, RequestToken,
    TransactionId,
};
use cairn_engine::volume::{DriveSet, superblock::Superblock};
use cairn_item::{Item, ItemView, Number, Value, archive, json};

const ITERATIONS: usize = 3_000;

/// Edits of a valid encoding: places (taken modulo its length) and what is xor-ed there, then a cut.
type Edits = (Vec<(u32, u8)>, Option<u16>);

fn edited(valid: &[u8], edits: &Edits) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for (place, flip) in edits.0.iter().take(8) {
        let place = *place as usize % bytes.len();
        bytes[place] ^= flip;
    }
    if let Some(cut) = edits.1 {
        bytes.truncate(usize::from(cut) % (bytes.len() + 1));
    }
    bytes
}

fn mutation() -> Vec<u8> {
    let mut bytes = Vec::new();
    Mutation {
        header: MutationHeader {
            kind: MutationKind::Put,
            commit: CommitTimestamp(7 << 16),
            provenance: Provenance {
                timestamp: OriginTimestamp(1),
                region: RegionId(2),
                transaction: TransactionId(3),
            },
            token: RequestToken(4),
            old_item_bytes: Some(5),
            new_item_bytes: Some(6),
        },
        extension: b"extension",
        key: b"key",
        item: b"item",
    }
    .encode(&mut bytes);
    bytes
}

fn check_mutation(bytes: &[u8]) {
    if let Ok(mutation) = Mutation::decode(bytes) {
        let mut again = Vec::new();
        mutation.encode(&mut again);
        assert_eq!(Mutation::decode(&again), Ok(mutation));
        assert_eq!(again.len(), bytes.len());
    }
}

#[test]
fn mutation_of_any_bytes() {
    check!().with_iterations(ITERATIONS).for_each(check_mutation);
}

#[test]
fn mutation_of_edited_bytes() {
    let valid = mutation();
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<Edits>()
        .for_each(|edits| {
            check_mutation(&edited(&valid, edits));
        });
}

fn edits() -> Vec<u8> {
    let partition = PartitionId(1);
    let descriptor = PartitionDescriptor {
        id: partition,
        table: TableId(2),
        index: IndexId(3),
        lower: b"a".to_vec(),
        upper: Some(b"z".to_vec()),
    };
    let segment = SegmentReference {
        id: SegmentId(4),
        level: 1,
        mirrors: DriveSet::from_bits(0b11),
        bytes: 4096,
        footer_checksum: 7,
        first_key: b"b".to_vec(),
        last_key: b"c".to_vec(),
        clip_lower: None,
        clip_upper: Some(b"d".to_vec()),
        commit_min: CommitTimestamp(8),
        commit_max: CommitTimestamp(9),
        entries: 2,
        tombstones: 1,
    };
    let commit = CommitTimestamp(9);
    let mut bytes = Vec::new();
    let list = [
        Edit::Reset,
        Edit::NextSegment(5),
        Edit::CreatePartition(descriptor),
        Edit::AddSegment { partition, segment },
        Edit::Counters {
            partition,
            item_count: 1,
            item_bytes: 2,
        },
        Edit::Flushed {
            partition,
            sequence: LogSequence(3),
            commit,
            index: RaftIndex(2),
        },
        Edit::Fenced {
            partition,
            why: "lost".to_owned(),
        },
    ];
    encode_edits(&list, &mut bytes);
    bytes
}

fn check_edits(bytes: &[u8]) {
    if let Ok(list) = decode_edits(bytes) {
        let mut again = Vec::new();
        encode_edits(&list, &mut again);
        assert_eq!(decode_edits(&again), Ok(list));
    }
}

#[test]
fn manifest_edits_of_any_bytes() {
    check!().with_iterations(ITERATIONS).for_each(check_edits);
}

#[test]
fn manifest_edits_of_edited_bytes() {
    let valid = edits();
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<Edits>()
        .for_each(|edits| {
            check_edits(&edited(&valid, edits));
        });
}

fn item() -> Item {
    let text =
        br#"{"id":{"S":"one"},"n":{"N":"-12.5E+3"},"b":{"B":"AQID"},"t":{"BOOL":true},"z":{"NULL":true},
        "ss":{"SS":["a","b"]},"ns":{"NS":["1","2.5"]},"bs":{"BS":["AQ==","Ag=="]},
        "l":{"L":[{"S":"x"},{"L":[]},{"M":{}}]},"m":{"M":{"k":{"N":"0"},"name that is long":{"S":""}}}}"#;
    json::Reader::new(text)
        .expect("the text is UTF-8")
        .item()
        .expect("the text is an item")
}

fn check_archive(bytes: &[u8]) {
    if let Ok(view) = ItemView::validate(bytes) {
        // Everything can be read, and is an item by the rules.
        let owned = view.to_item();
        assert_eq!(view.size_bytes(), cairn_item::item_size(&owned));
        let mut text = Vec::new();
        json::write_item_view(&mut text, view);
        let again = archive(&owned);
        assert_eq!(
            ItemView::validate(&again)
                .expect("an archive of an item is valid")
                .to_item(),
            owned
        );
    }
}

#[test]
fn item_archive_of_any_bytes() {
    check!().with_iterations(ITERATIONS).for_each(check_archive);
}

#[test]
fn item_archive_of_edited_bytes() {
    let valid = archive(&item());
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<Edits>()
        .for_each(|edits| {
            check_archive(&edited(&valid, edits));
        });
}

fn check_json(bytes: &[u8]) {
    let Ok(mut reader) = json::Reader::new(bytes) else {
        return;
    };
    if let Ok(item) = reader.item() {
        let mut text = Vec::new();
        json::write_item(&mut text, &item);
        let again = json::Reader::new(&text).expect("what is written is UTF-8").item();
        assert_eq!(again.expect("what is written is an item"), item);
    }
}

#[test]
fn json_of_any_bytes() {
    check!().with_iterations(ITERATIONS).for_each(check_json);
}

#[test]
fn json_of_edited_bytes() {
    let mut valid = Vec::new();
    json::write_item(&mut valid, &item());
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<Edits>()
        .for_each(|edits| {
            check_json(&edited(&valid, edits));
        });
}

/// Text made of what numbers are made of, so that many are numbers.
#[test]
fn number_of_number_like_text() {
    const ALPHABET: &[u8] = b"00112345678999..-+eE ";
    check!()
        .with_iterations(20_000)
        .with_type::<Vec<u8>>()
        .for_each(|choices| {
            let text: String = choices
                .iter()
                .take(60)
                .map(|choice| char::from(ALPHABET[usize::from(*choice) % ALPHABET.len()]))
                .collect();
            let Ok(number) = text.parse::<Number>() else {
                return;
            };
            let printed = number.to_string();
            assert_eq!(
                printed.parse::<Number>().as_ref(),
                Ok(&number),
                "{text} prints as {printed}"
            );
            let value = Value::N(number);
            assert!(cairn_item::item_size(&Item::default()) == 0 || matches!(value, Value::N(_)));
        });
}

#[test]
fn superblock_of_any_bytes() {
    check!()
        .with_iterations(ITERATIONS)
        .with_type::<(u8, Vec<u8>)>()
        .for_each(|(copy, bytes)| {
            let mut block = bytes.clone();
            block.resize(4096, 0);
            for kind in [
                cairn_engine::volume::superblock::MemberKind::Drive,
                cairn_engine::volume::superblock::MemberKind::Witness,
            ] {
                let _ = Superblock::decode(kind, usize::from(copy % 4), &block);
            }
        });
}
