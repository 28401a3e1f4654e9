use super::*;
use crate::wire::{Reader, WireError};

pub(crate) fn table() -> Table {
    let partition = |id, lower| Partition {
        id,
        lower,
        address: "127.0.0.1:7600".into(),
    };
    Table {
        id: 3,
        epoch: 2,
        seed: 77,
        name: "music".into(),
        partition_key: KeyAttribute {
            name: "artist".into(),
            kind: b'S',
        },
        sort_key: Some(KeyAttribute {
            name: "year".into(),
            kind: b'N',
        }),
        partitions: vec![partition(1, 0), partition(2, 1 << 62), partition(9, 3 << 62)],
    }
}

fn operations() -> Vec<Operation<'static>> {
    let key = Key {
        partition: KeyPart::S("a"),
        sort: Some(KeyPart::N("-1.5")),
    };
    let plain = Key {
        partition: KeyPart::B(&[0, 255]),
        sort: None,
    };
    let query = |sort| Operation::Query {
        consistent: true,
        backward: true,
        limit: 5,
        partition: KeyPart::S("p"),
        sort,
        cursor: b"cursor",
    };
    let low = KeyPart::N("1");
    vec![
        Operation::Ping,
        Operation::Get {
            consistent: true,
            key,
        },
        Operation::Get {
            consistent: false,
            key: plain,
        },
        Operation::Put {
            return_old: true,
            item: b"archived",
        },
        Operation::Delete {
            return_old: false,
            key,
        },
        Operation::BatchGet {
            consistent: false,
            keys: vec![key, plain],
        },
        Operation::BatchWrite {
            writes: vec![Write::Put(b"item"), Write::Delete(key)],
        },
        query(SortCondition::All),
        query(SortCondition::Equal(low)),
        query(SortCondition::Less(low)),
        query(SortCondition::LessOrEqual(low)),
        query(SortCondition::Greater(low)),
        query(SortCondition::GreaterOrEqual(low)),
        query(SortCondition::Between(low, KeyPart::N("2"))),
        query(SortCondition::BeginsWith(KeyPart::S("x"))),
        Operation::Scan {
            consistent: false,
            limit: 0,
            segment: 1,
            segments: 4,
            cursor: b"",
        },
        Operation::OpenTable { name: "music" },
        Operation::Json {
            name: "CreateTable",
            body: b"{}",
        },
    ]
}

#[test]
fn requests_survive_the_round_trip() {
    for operation in operations() {
        let request = Request {
            budget_us: 5,
            table: 3,
            epoch: 2,
            trace: [4; 16],
            operation,
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        assert_eq!(Request::decode(&bytes), Ok(request.clone()));
        // Put and Json end with bytes of any length; every other prefix must be noticed.
        if !matches!(request.operation, Operation::Put { .. } | Operation::Json { .. }) {
            for end in 0..bytes.len() {
                assert!(
                    Request::decode(&bytes[..end]).is_err(),
                    "{request:?} cut at {end}"
                );
            }
            bytes.push(0);
            assert_eq!(Request::decode(&bytes), Err(WireError::Trailing(1)));
        }
    }
}

#[test]
fn changed_requests_never_panic() {
    for operation in operations() {
        let request = Request {
            budget_us: 0,
            table: 1,
            epoch: 1,
            trace: [0; 16],
            operation,
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        for position in 0..bytes.len() {
            for value in [0, 1, 2, 127, 128, 255] {
                let mut changed = bytes.clone();
                changed[position] = value;
                let _ = Request::decode(&changed);
            }
        }
    }
}

#[test]
fn responses_survive_the_round_trip() {
    let mut bytes = Vec::new();
    for item in [None, Some(b"".as_slice()), Some(b"item".as_slice())] {
        bytes.clear();
        response::encode_item(&mut bytes, 5, item);
        assert_eq!(response::decode_item(&bytes), Ok((5, item)));
    }
    let statuses = [
        BatchGetStatus::Missing,
        BatchGetStatus::Found(b"x"),
        BatchGetStatus::Unprocessed,
    ];
    bytes.clear();
    response::encode_batch_get(&mut bytes, 10, statuses.into_iter());
    assert_eq!(response::decode_batch_get(&bytes), Ok((10, statuses.to_vec())));
    bytes.clear();
    response::encode_batch_write(&mut bytes, 10, &[true, false]);
    assert_eq!(response::decode_batch_write(&bytes), Ok((10, vec![true, false])));
    bytes.clear();
    let items = vec![b"one".as_slice(), b"two"];
    response::encode_page(&mut bytes, 20, 7, items.iter().copied(), b"next");
    assert_eq!(
        response::decode_page(&bytes),
        Ok((
            20,
            Page {
                items,
                scanned: 7,
                cursor: b"next"
            }
        ))
    );
    bytes.clear();
    response::encode_table(&mut bytes, &table());
    assert_eq!(response::decode_table(&bytes), Ok(table()));
    bytes.clear();
    let failure = Failure {
        status: 400,
        retry: Retry::Remap,
        name: "WrongPartition".into(),
        message: "the map moved on".into(),
        epoch: 9,
        json: Vec::new(),
    };
    failure.encode(&mut bytes);
    assert_eq!(Failure::decode(&bytes), Ok(failure.clone()));
    let failure = Failure {
        json: b"{}".to_vec(),
        ..failure
    };
    bytes.clear();
    failure.encode(&mut bytes);
    assert_eq!(Failure::decode(&bytes), Ok(failure));
}

#[test]
fn a_page_cannot_announce_more_items_than_it_has_bytes() {
    let mut bytes = Vec::new();
    response::encode_page(&mut bytes, 0, 0, std::iter::empty(), b"");
    let count = bytes.len() - 4;
    bytes[count..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        response::decode_page(&bytes),
        Err(WireError::TooLarge { field: "items", .. })
    ));
}

#[test]
fn partitions_are_found_by_hash() {
    let table = table();
    let find = |hash| table.partition(hash).map(|partition| partition.id);
    assert_eq!(find(0), Some(1));
    assert_eq!(find((1 << 62) - 1), Some(1));
    assert_eq!(find(1 << 62), Some(2));
    assert_eq!(find(u64::MAX), Some(9));
}

#[test]
fn a_map_out_of_order_is_refused() {
    let mut table = table();
    table.partitions.swap(1, 2);
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    assert!(Table::decode(&mut Reader::new(&bytes)).is_err());
}
