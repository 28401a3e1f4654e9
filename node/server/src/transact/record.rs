//! What transactions keep in partitions, byte by byte. Keys are big-endian, values little-endian.
//!
//! In every partition that a transaction is prepared in:
//! ```text
//! marker    | 4 u8 | least hash of the partition u64 | 1 u8 | transaction u128 | piece u16 |
//! value     a piece of the following, at most 256 KiB, in order
//! all       | version u8 | 0 u8 | operations u16 | home log u32 | home partition u64 | slot u128 | bytes of all u32 | 0 u32 | operation ... |
//! operation | kind u8 | 0 u8 | key bytes u16 | item size u32 | item bytes u32 | key | item |
//! kind      1 put · 2 delete · 3 only checked
//! ```
//!
//! In a partition of the ledger:
//! ```text
//! decision  | 4 u8 | hash u64 | 2 u8 | slot u128 | transaction u128 |              hash: the first 64 bits of the slot
//! value     | version u8 | state u8 | participants u16 | 0 u32 | partition u64, log u32 ... |
//! state     1 committed · 2 given up
//! token     | 4 u8 | hash u64 | 3 u8 | slot u128 |
//! value     | version u8 | 0 u8 | operations u16 | 0 u32 | transaction u128 | fingerprint u128 | decided, Unix ms u64 | item size u32 ... |
//! expiry    | 4 u8 | least hash of the partition u64 | 4 u8 | commit timestamp u64 |
//! value     | version u8 | 0 u8 | 0 u16 | 0 u32 | decided, Unix ms u64 | slot u128 | transaction u128 |
//! ```
//!
//! A reader refuses a version, kind or state that it does not know.

use std::ops::Bound;

use cairn_engine::Range;
use cairn_engine::ids::{LogId, PartitionId};
use cairn_engine::mutation::TransactionId;
use cairn_item::{Space, StorageKey};

/// Version of the layouts. History: 1, the first.
const VERSION: u8 = 1;

/// Bytes of a marker's piece, at most.
pub(super) const PIECE_BYTES_MAX: usize = 256 << 10;

const MARKER: u8 = 1;
const DECISION: u8 = 2;
const TOKEN: u8 = 3;
const EXPIRY: u8 = 4;

/// Space and hash.
const HEAD_BYTES: usize = 9;

/// Where the decision on a transaction is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home {
    /// The partition of the ledger.
    pub partition: PartitionId,
    pub log: LogId,
    /// Its place in there: of a client's token, or random.
    pub slot: u128,
}

/// A partition that a transaction is prepared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Participant {
    pub partition: PartitionId,
    pub log: LogId,
}

/// What becomes of an item when the transaction is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is this one, of this DynamoDB size.
    Put(Vec<u8>, u32),
    Delete,
    /// It stays; its condition was true.
    Check,
}

/// One item of a prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub key: Vec<u8>,
    pub outcome: Outcome,
}

/// The hash that places a slot in the ledger.
pub(super) fn hash_of_slot(slot: u128) -> u64 {
    u64::try_from(slot >> 64).expect("64 bits are left")
}

fn key(hash: u64, kind: u8, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = StorageKey::hash_prefix(Space::Transaction, hash);
    key.push(kind);
    for part in rest {
        key.extend_from_slice(part);
    }
    key
}

fn all_of(hash: u64, kind: u8) -> Range {
    Range {
        lower: Bound::Included(key(hash, kind, &[])),
        upper: Bound::Excluded(key(hash, kind + 1, &[])),
    }
}

/// The key of a marker's piece.
pub(super) fn marker_key(lower: u64, id: TransactionId, piece: u16) -> Vec<u8> {
    key(lower, MARKER, &[&id.0.to_be_bytes(), &piece.to_be_bytes()])
}

/// All markers of a partition.
pub(super) fn markers(lower: u64) -> Range {
    all_of(lower, MARKER)
}

/// The transaction and the number in the key of a marker's piece.
pub(super) fn piece_of(key: &[u8]) -> Option<(TransactionId, u16)> {
    let (id, piece) = key.get(HEAD_BYTES + 1..)?.split_first_chunk()?;
    let piece = u16::from_be_bytes(*piece.first_chunk()?);
    Some((TransactionId(u128::from_be_bytes(*id)), piece))
}

pub(super) fn decision_key(slot: u128, id: TransactionId) -> Vec<u8> {
    let rest: [&[u8]; 2] = [&slot.to_be_bytes(), &id.0.to_be_bytes()];
    key(hash_of_slot(slot), DECISION, &rest)
}

pub(super) fn token_key(slot: u128) -> Vec<u8> {
    key(hash_of_slot(slot), TOKEN, &[&slot.to_be_bytes()])
}

/// What the keys of the list of what expires begin with.
pub(super) fn expiry_prefix(lower: u64) -> Vec<u8> {
    key(lower, EXPIRY, &[])
}

/// The list of what expires, in its order, behind the entry of key `after`.
pub(super) fn expiries(lower: u64, after: Option<Vec<u8>>) -> Range {
    let all = all_of(lower, EXPIRY);
    Range {
        lower: after.map_or(all.lower, Bound::Excluded),
        upper: all.upper,
    }
}

fn short(count: usize) -> [u8; 2] {
    u16::try_from(count)
        .expect("a transaction has at most 100 items")
        .to_le_bytes()
}

fn long(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("a transaction is limited")
        .to_le_bytes()
}

/// The marker of a prepared transaction, to be cut into pieces.
pub(super) fn encode_marker(home: Home, operations: &[Operation]) -> Vec<u8> {
    let mut bytes = vec![VERSION, 0];
    bytes.extend_from_slice(&short(operations.len()));
    bytes.extend_from_slice(&home.log.0.to_le_bytes());
    bytes.extend_from_slice(&home.partition.0.to_le_bytes());
    bytes.extend_from_slice(&home.slot.to_le_bytes());
    let total_at = bytes.len();
    bytes.extend_from_slice(&[0; 8]);
    for operation in operations {
        let (kind, item, item_bytes) = match &operation.outcome {
            Outcome::Put(item, item_bytes) => (1, item.as_slice(), *item_bytes),
            Outcome::Delete => (2, &[][..], 0),
            Outcome::Check => (3, &[][..], 0),
        };
        bytes.extend_from_slice(&[kind, 0]);
        let key_bytes = u16::try_from(operation.key.len()).expect("limited by the engine");
        bytes.extend_from_slice(&key_bytes.to_le_bytes());
        bytes.extend_from_slice(&item_bytes.to_le_bytes());
        bytes.extend_from_slice(&long(item.len()));
        bytes.extend_from_slice(&operation.key);
        bytes.extend_from_slice(item);
    }
    let total = long(bytes.len());
    bytes[total_at..total_at + 4].copy_from_slice(&total);
    bytes
}

/// What the pieces of a marker say together.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Not all of it is there: it was never answered that the transaction is prepared.
    Incomplete,
    Whole(Home, Vec<Operation>),
}

/// Reads a marker; none when the bytes are not one of a version known here.
pub(super) fn decode_marker(bytes: &[u8]) -> Option<Marker> {
    let mut rest = bytes;
    let Some([version, _]) = take(&mut rest) else {
        return Some(Marker::Incomplete);
    };
    if version != VERSION {
        return None;
    }
    let count = u16::from_le_bytes(take(&mut rest)?);
    let log = LogId(u32::from_le_bytes(take(&mut rest)?));
    let partition = PartitionId(u64::from_le_bytes(take(&mut rest)?));
    let slot = u128::from_le_bytes(take(&mut rest)?);
    let total = u32::from_le_bytes(take(&mut rest)?);
    let _: [u8; 4] = take(&mut rest)?;
    if usize::try_from(total).ok()? > bytes.len() {
        return Some(Marker::Incomplete);
    }
    let mut operations = Vec::new();
    for _ in 0..count {
        let [kind, _] = take(&mut rest)?;
        let key_bytes = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let item_size = u32::from_le_bytes(take(&mut rest)?);
        let item_bytes = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
        let key = take_bytes(&mut rest, key_bytes)?.to_vec();
        let item = take_bytes(&mut rest, item_bytes)?.to_vec();
        let outcome = match kind {
            1 => Outcome::Put(item, item_size),
            2 if item.is_empty() => Outcome::Delete,
            3 if item.is_empty() => Outcome::Check,
            _ => return None,
        };
        operations.push(Operation { key, outcome });
    }
    let home = Home { partition, log, slot };
    rest.is_empty().then_some(Marker::Whole(home, operations))
}

/// The decision on a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is carried out in all of these.
    Committed(Vec<Participant>),
    /// Nothing of it is carried out.
    GivenUp,
}

impl Decision {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (state, participants) = match self {
            Decision::Committed(participants) => (1, participants.as_slice()),
            Decision::GivenUp => (2, &[][..]),
        };
        let mut bytes = vec![VERSION, state];
        bytes.extend_from_slice(&short(participants.len()));
        bytes.extend_from_slice(&[0; 4]);
        for participant in participants {
            bytes.extend_from_slice(&participant.partition.0.to_le_bytes());
            bytes.extend_from_slice(&participant.log.0.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Decision> {
        let rest = &mut bytes;
        let [version, state] = take(rest)?;
        let count = u16::from_le_bytes(take(rest)?);
        let _: [u8; 4] = take(rest)?;
        let mut participants = Vec::new();
        for _ in 0..count {
            let partition = PartitionId(u64::from_le_bytes(take(rest)?));
            let log = LogId(u32::from_le_bytes(take(rest)?));
            participants.push(Participant { partition, log });
        }
        match (version, state) {
            (VERSION, 1) if rest.is_empty() => Some(Decision::Committed(participants)),
            (VERSION, 2) if rest.is_empty() && count == 0 => Some(Decision::GivenUp),
            _ => None,
        }
    }
}

/// What is known of a client's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenRecord {
    pub id: TransactionId,
    pub fingerprint: u128,
    pub decided_ms: u64,
    /// The larger size of each item before and after, in the request's order.
    pub sizes: Vec<u32>,
}

impl TokenRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, 0];
        bytes.extend_from_slice(&short(self.sizes.len()));
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&self.decided_ms.to_le_bytes());
        for size in &self.sizes {
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<TokenRecord> {
        let rest = &mut bytes;
        let [version, _] = take(rest)?;
        let count = u16::from_le_bytes(take(rest)?);
        let _: [u8; 4] = take(rest)?;
        let id = TransactionId(u128::from_le_bytes(take(rest)?));
        let fingerprint = u128::from_le_bytes(take(rest)?);
        let decided_ms = u64::from_le_bytes(take(rest)?);
        let sizes: Option<Vec<u32>> = (0..count)
            .map(|_| Some(u32::from_le_bytes(take(rest)?)))
            .collect();
        let sizes = sizes?;
        (version == VERSION && rest.is_empty()).then_some(TokenRecord {
            id,
            fingerprint,
            decided_ms,
            sizes,
        })
    }
}

/// An entry of the list of what expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry {
    pub decided_ms: u64,
    pub slot: u128,
    pub id: TransactionId,
}

impl Expiry {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&[0; 7]);
        bytes.extend_from_slice(&self.decided_ms.to_le_bytes());
        bytes.extend_from_slice(&self.slot.to_le_bytes());
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Expiry> {
        let rest = &mut bytes;
        let [version, ..]: [u8; 8] = take(rest)?;
        let decided_ms = u64::from_le_bytes(take(rest)?);
        let slot = u128::from_le_bytes(take(rest)?);
        let id = TransactionId(u128::from_le_bytes(take(rest)?));
        (version == VERSION && rest.is_empty()).then_some(Expiry { decided_ms, slot, id })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn take_bytes<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod record_test;
