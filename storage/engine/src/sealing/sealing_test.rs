//! Golden bytes of sealing and of the key hierarchy, and what breaks a seal.

use super::*;
use crate::ids::{LogId, NodeId, SegmentId, TableId};
use cairn_runtime::ShardIndex;
use cairn_runtime::sim::{Config, NodeIndex, Simulation};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn simulated<T: 'static>(work: impl FnOnce(cairn_runtime::sim::SimRuntime) -> T + 'static) -> T {
    let sim = Simulation::new(1, Config::default());
    sim.block_on(NodeIndex(0), ShardIndex(0), async move |runtime| work(runtime))
}

#[test]
fn the_bytes_are_frozen() {
    let key = Secret::new([3; KEY_BYTES]);
    let derived = key.derive(&[4; SALT_BYTES], &[b"cairn", b" log"]);
    assert_eq!(hex(&derived.0), DERIVED);
    let cipher = FileCipher::new(&derived, 1);
    let mut content = *b"what a client wrote";
    let tag = cipher.seal(7, b"about", &mut content);
    assert_eq!([hex(&content), hex(&tag)], SEALED);
    assert_eq!(RootKey::new([5; KEY_BYTES]).id().to_string(), ROOT_ID);
}

// Checked against another implementation of HKDF (RFC 5869) and AES-256-GCM.
const DERIVED: &str = "ba742f7bdb8028d76aa6948a3fc4e1b7afc25133d51059a0bf1727674e8eedad";
const SEALED: [&str; 2] = [
    "00bbc5f1b2653dd91262e22a506e4bc628c445",
    "2a7bc6483a5250b30997cc8e6e73a0ee",
];
const ROOT_ID: &str = "2a5b1a914c87aa48";

#[test]
fn a_seal_holds_for_its_bytes_its_place_its_header_and_its_key() {
    let key = Secret::new([3; KEY_BYTES]);
    let cipher = FileCipher::new(&key, 1);
    let plain = b"what a client wrote".to_vec();
    let mut sealed = plain.clone();
    let tag = cipher.seal(7, b"about", &mut sealed);
    assert_ne!(sealed, plain);
    let open = |cipher: &FileCipher, block, about: &[u8], sealed: &[u8], tag: &[u8]| {
        let mut into = vec![0; sealed.len()];
        let opened = cipher.open(block, about, sealed, tag, &mut into);
        opened.map(|()| into)
    };
    assert_eq!(open(&cipher, 7, b"about", &sealed, &tag), Ok(plain));
    assert!(open(&cipher, 8, b"about", &sealed, &tag).is_err());
    assert!(open(&cipher, 7, b"About", &sealed, &tag).is_err());
    let other = FileCipher::new(&Secret::new([4; KEY_BYTES]), 1);
    assert!(open(&other, 7, b"about", &sealed, &tag).is_err());
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        assert!(open(&cipher, 7, b"about", &bad, &tag).is_err(), "byte {at}");
    }
    for at in 0..tag.len() {
        let mut bad = tag;
        bad[at] ^= 1;
        assert!(open(&cipher, 7, b"about", &sealed, &bad).is_err(), "tag {at}");
    }
}

#[test]
fn every_part_of_a_files_name_makes_another_key() {
    simulated(|runtime| {
        let (node, _) = RootKey::new([1; 32]).make_node_key(&runtime, NodeId(1));
        let sealed = |cipher: FileCipher| {
            let mut content = [0; 32];
            cipher.seal(1, &[], &mut content);
            content
        };
        let log = |log, number, salt: u8| sealed(node.log_cipher(LogId(log), number, &[salt; 32]));
        let keys = TableKeys::new(Some(std::sync::Arc::new(node.clone())));
        let segment = |table, id, salt: u8| {
            let key = keys.newest(&runtime, TableId(table)).unwrap();
            sealed(key.segment_cipher(SegmentId(id), &[salt; 32]))
        };
        let all = [
            log(1, 1, 1),
            log(2, 1, 1),
            log(1, 2, 1),
            log(1, 1, 2),
            segment(1, 1, 1),
            segment(2, 1, 1),
            segment(1, 2, 1),
            segment(1, 1, 2),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(segment(1, 1, 1), all[4], "the key of a table stays");
    });
}

#[test]
fn keys_are_unwrapped_by_what_wrapped_them_and_where_they_belong() {
    simulated(|runtime| {
        let root = RootKey::new([1; 32]);
        let (node, kept) = root.make_node_key(&runtime, NodeId(1));
        assert!(root.unwrap(NodeId(1), &kept).is_some_and(|key| key == node));
        assert!(root.unwrap(NodeId(2), &kept).is_none());
        assert!(RootKey::new([2; 32]).unwrap(NodeId(1), &kept).is_none());
        let again = root.wrap(&runtime, &node);
        assert_ne!(again, kept, "a salt is never used twice");

        let ours = TableKeys::new(Some(std::sync::Arc::new(node)));
        let key = ours.newest(&runtime, TableId(5)).unwrap();
        let sealed = Some((key.id, &key.wrapped));
        for table in [5, 6] {
            assert_eq!(ours.of(TableId(table), sealed).is_ok(), table == 5);
        }
        assert!(ours.of(TableId(5), None).is_err());
        assert!(TableKeys::default().of(TableId(5), sealed).is_err());
        assert!(TableKeys::default().of(TableId(5), None).unwrap().is_none());
        let (stranger, _) = root.make_node_key(&runtime, NodeId(1));
        let theirs = TableKeys::new(Some(std::sync::Arc::new(stranger)));
        assert!(theirs.of(TableId(5), sealed).is_err());
    });
}

#[test]
fn a_root_key_reads_back_and_what_is_none_is_refused() {
    let key = RootKey::new(std::array::from_fn(|at| at as u8 * 7));
    let text = key.to_text();
    assert_eq!(format!(" {text}\n").parse(), Ok(key.clone()));
    assert!(!format!("{key:?}").contains(&text[..8]));
    for bad in [
        "",
        &text[1..],
        &text.replace('0', "g"),
        &format!("+{}", &text[1..]),
    ] {
        assert!(bad.parse::<RootKey>().is_err(), "{bad}");
    }
}

#[test]
#[cfg(debug_assertions)]
fn the_audit_counts_pairs_of_key_and_nonce() {
    audit::begin();
    let cipher = FileCipher::new(&Secret::new([3; KEY_BYTES]), 1);
    for block in [1, 2, 2] {
        cipher.seal(block, b"", &mut [7; 4]);
    }
    assert_eq!(audit::end(), 2);
    assert_eq!(audit::end(), 0);
}
