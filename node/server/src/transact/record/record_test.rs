use super::*;

const HOME: Home = Home {
    partition: PartitionId(0x0102),
    log: LogId(3),
    slot: 0x0405,
};
const ID: TransactionId = TransactionId(0x0607);

fn operations() -> Vec<Operation> {
    let operation = |key: &[u8], outcome| Operation {
        key: key.to_vec(),
        outcome,
    };
    vec![
        operation(b"put", Outcome::Put(b"item".to_vec(), 9)),
        operation(b"gone", Outcome::Delete),
        operation(b"seen", Outcome::Check),
    ]
}

#[test]
fn the_layouts_are_frozen() {
    let sixteen = |last: [u8; 2]| [&[0; 14][..], &last].concat();
    let little = |first: [u8; 2]| [&first[..], &[0; 14]].concat();
    let expected = [&[4, 0, 0, 0, 0, 0, 0, 0, 8, 1][..], &sixteen([6, 7]), &[0, 2]].concat();
    assert_eq!(marker_key(8, ID, 2), expected);
    let expected = [
        &[1, 0, 1, 0, 3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0][..],
        &little([5, 4]),
        &[59, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 3, 0, 9, 0, 0, 0, 4, 0, 0, 0],
        b"putitem",
    ]
    .concat();
    assert_eq!(encode_marker(HOME, &operations()[..1]), expected);

    let slot = 9 << 64 | 5;
    let expected = [
        &[4, 0, 0, 0, 0, 0, 0, 0, 9, 2][..],
        &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5],
        &sixteen([6, 7]),
    ]
    .concat();
    assert_eq!(decision_key(slot, ID), expected);
    assert_eq!(
        token_key(slot),
        [&[4, 0, 0, 0, 0, 0, 0, 0, 9, 3][..], &expected[10..26]].concat()
    );
    let participant = Participant {
        partition: PartitionId(7),
        log: LogId(8),
    };
    let decision = Decision::Committed(vec![participant]);
    assert_eq!(
        decision.encode(),
        [1, 1, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]
    );
    assert_eq!(Decision::GivenUp.encode(), [1, 2, 0, 0, 0, 0, 0, 0]);
    let token = TokenRecord {
        id: ID,
        fingerprint: 2,
        decided_ms: 3,
        sizes: vec![4],
    };
    let expected = [
        &[1, 0, 1, 0, 0, 0, 0, 0][..],
        &little([7, 6]),
        &little([2, 0]),
        &[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0],
    ]
    .concat();
    assert_eq!(token.encode(), expected);
    let expiry = Expiry {
        decided_ms: 3,
        slot: 2,
        id: ID,
    };
    let expected = [
        &[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..],
        &little([2, 0]),
        &little([7, 6]),
    ]
    .concat();
    assert_eq!(expiry.encode(), expected);
    assert_eq!(expiry_prefix(8), [4, 0, 0, 0, 0, 0, 0, 0, 8, 4]);

    assert_eq!(Decision::decode(&decision.encode()), Some(decision));
    assert_eq!(
        Decision::decode(&Decision::GivenUp.encode()),
        Some(Decision::GivenUp)
    );
    assert_eq!(TokenRecord::decode(&token.encode()), Some(token));
    assert_eq!(Expiry::decode(&expiry.encode()), Some(expiry));
    assert_eq!(piece_of(&marker_key(8, ID, 2)), Some((ID, 2)));
}

#[test]
fn a_marker_is_read_whole_or_known_to_be_incomplete() {
    for count in 0..=3 {
        let operations = &operations()[..count];
        let bytes = encode_marker(HOME, operations);
        assert_eq!(
            decode_marker(&bytes),
            Some(Marker::Whole(HOME, operations.to_vec()))
        );
        // The first piece holds more than what the operations begin behind.
        for length in [0, 40, 41, bytes.len() - 1] {
            if length == 0 || (40..bytes.len()).contains(&length) {
                let read = decode_marker(&bytes[..length]);
                assert_eq!(read, Some(Marker::Incomplete), "{length}");
            }
        }
    }
}

#[test]
fn hostile_bytes_are_refused_or_read_safely() {
    let good = encode_marker(HOME, &operations());
    for at in 0..good.len() {
        for byte in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = byte;
            if let Some(Marker::Whole(home, operations)) = decode_marker(&bytes) {
                let again = encode_marker(home, &operations);
                assert_eq!(decode_marker(&again), Some(Marker::Whole(home, operations)));
            }
        }
    }
    let mut other = good;
    other[0] = 2;
    assert_eq!(decode_marker(&other), None);
    assert_eq!(Decision::decode(&[1, 3, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(Decision::decode(&[2, 2, 0, 0, 0, 0, 0, 0]), None);
    assert_eq!(TokenRecord::decode(&[1; 20]), None);
    assert_eq!(Expiry::decode(&[1; 20]), None);
}
