//! What a partition may hold, as clients know it, and the checks of every answer against it.
//!
//! Per key the model keeps the **chain** of versions in the order in which the engine decided them: `decide` is
//! called synchronously in proposal order, so the model appends inside of it. Every version carries the number
//! of the operation that wrote it, and the item's bytes are a function of that number. Then:
//!
//! 1. *Decisions see the newest proposed state*: what `decide` is lent equals the end of the chain.
//! 2. *Reads are linearizable*: each key has a `floor`, the newest version that anybody was told about (a write
//!    acknowledged, a read answered, an unchanged answer given). A read may return any version from the floor as it
//!    was when the read began up to the end of the chain, and raises the floor to what it returned.
//! 3. *Durability*: after a crash the same rule holds for the first read, and the chain is cut behind what it
//!    returned: what was never acknowledged is whole or absent.
//! 4. *Timestamps* of acknowledged writes ascend along every chain and are unique in their partition.
//! 5. When nothing is in flight, scans and counters equal the live ends of the chains.
//!
//! Absence carries no number, so a read of nothing is matched with the first absent version at or above the floor:
//! the weakest assumption.

use std::collections::{BTreeMap, BTreeSet};

use cairn_engine::{StoredRef, ids::CommitTimestamp};

/// Number of an operation; zero is the state before the first.
pub type OperationId = u64;

/// One version of a key.
#[derive(Debug, Clone)]
struct Version {
    operation: OperationId,
    /// DynamoDB size; none for an absent item.
    item_bytes: Option<u32>,
    commit: Option<CommitTimestamp>,
}

#[derive(Debug, Clone)]
struct Chain {
    /// Versions dropped from the front: places are absolute.
    dropped: usize,
    versions: Vec<Version>,
    /// Absolute place of the newest version that somebody was told about.
    floor: usize,
}

impl Default for Chain {
    fn default() -> Chain {
        let first = Version {
            operation: 0,
            item_bytes: None,
            commit: None,
        };
        Chain {
            dropped: 0,
            versions: vec![first],
            floor: 0,
        }
    }
}

impl Chain {
    fn end(&self) -> usize {
        self.dropped + self.versions.len() - 1
    }

    fn at(&self, place: usize) -> &Version {
        &self.versions[place - self.dropped]
    }
}

/// A version of a key in the model, by place in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(usize);

/// The model of one partition.
#[derive(Debug, Clone, Default)]
pub struct Model {
    chains: BTreeMap<Vec<u8>, Chain>,
    commits: BTreeSet<CommitTimestamp>,
    commit_max: CommitTimestamp,
}

/// The item's bytes that operation `operation` writes: its number, then bytes that depend on it, random for one
/// operation in three and such as a codec packs well for the others.
pub fn item_of(operation: OperationId, bytes: usize) -> Vec<u8> {
    let mut item = operation.to_le_bytes().to_vec();
    let mut state = operation.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while item.len() < bytes.max(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if !operation.is_multiple_of(3) {
            item.extend_from_slice(b"name of the attribute: ");
        }
        item.extend_from_slice(&state.to_le_bytes());
    }
    item.truncate(bytes.max(8));
    item
}

/// The operation that wrote `item`, if every byte is as it wrote it.
fn operation_of(item: &[u8]) -> Result<OperationId, String> {
    let number = item
        .first_chunk::<8>()
        .ok_or("an item too short to carry its number")?;
    let operation = u64::from_le_bytes(*number);
    if item_of(operation, item.len()) == item {
        Ok(operation)
    } else {
        Err(format!("the bytes of operation {operation} are damaged"))
    }
}

impl Model {
    /// Keys that the model has heard of.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.chains.keys().cloned().collect()
    }

    /// What `decide` was lent must be the end of the chain; answers its place.
    pub fn decided_on(&self, key: &[u8], old: Option<StoredRef<'_>>) -> Result<Place, String> {
        let chain = self.chains.get(key).cloned().unwrap_or_default();
        let end = chain.at(chain.end());
        match old {
            None if end.item_bytes.is_none() => Ok(Place(chain.end())),
            None => Err(format!(
                "decide saw nothing where operation {} had put an item",
                end.operation
            )),
            Some(old) => {
                let operation = operation_of(old.item)?;
                if operation != end.operation {
                    return Err(format!(
                        "decide saw operation {operation}, the newest is {}",
                        end.operation
                    ));
                }
                if end.item_bytes != Some(old.item_bytes) {
                    return Err(format!(
                        "decide saw size {}, it is {:?}",
                        old.item_bytes, end.item_bytes
                    ));
                }
                Ok(Place(chain.end()))
            }
        }
    }

    /// `decide` chose to write: the chain grows. `item_bytes` is none for a delete.
    pub fn proposed(&mut self, key: &[u8], operation: OperationId, item_bytes: Option<u32>) -> Place {
        let chain = self.chains.entry(key.to_vec()).or_default();
        chain.versions.push(Version {
            operation,
            item_bytes,
            commit: None,
        });
        Place(chain.end())
    }

    /// The proposal was refused and nothing written: it must still be the end of its chain.
    pub fn refused(&mut self, key: &[u8], place: Place) -> Result<(), String> {
        let chain = self.chains.get_mut(key).ok_or("refused an unknown key")?;
        if chain.end() != place.0 {
            return Err("a refused proposal was built upon".to_owned());
        }
        chain.versions.pop();
        Ok(())
    }

    /// An answer told a client of the version at `place`.
    pub fn told(&mut self, key: &[u8], place: Place) {
        if let Some(chain) = self.chains.get_mut(key) {
            chain.floor = chain.floor.max(place.0);
        }
    }

    /// A write was acknowledged with its timestamp.
    pub fn acknowledged(&mut self, key: &[u8], place: Place, commit: CommitTimestamp) -> Result<(), String> {
        if !self.commits.insert(commit) {
            return Err(format!("commit timestamp {commit} was given twice"));
        }
        self.commit_max = self.commit_max.max(commit);
        let chain = self.chains.get_mut(key).ok_or("acknowledged an unknown key")?;
        if place.0 >= chain.dropped {
            let at = place.0 - chain.dropped;
            let before = chain.versions[..at]
                .iter()
                .rev()
                .find_map(|version| version.commit);
            let after = chain.versions[at + 1..].iter().find_map(|version| version.commit);
            if before.is_some_and(|before| before >= commit) || after.is_some_and(|after| after <= commit) {
                return Err(format!("commit timestamp {commit} is out of order on its key"));
            }
            chain.versions[at].commit = Some(commit);
        }
        self.told(key, place);
        Ok(())
    }

    /// Where a read that begins now may start from.
    pub fn floor(&self, key: &[u8]) -> Place {
        Place(self.chains.get(key).map_or(0, |chain| chain.floor))
    }

    /// Checks a read of `key` that began when the floor was `floor`.
    pub fn read(&mut self, key: &[u8], floor: Place, item: Option<&[u8]>, size: u32) -> Result<(), String> {
        self.locate(key, floor, item, size)
            .map(|place| self.told(key, place))
    }

    fn locate(&mut self, key: &[u8], floor: Place, item: Option<&[u8]>, size: u32) -> Result<Place, String> {
        let chain = self.chains.entry(key.to_vec()).or_default();
        let from = floor.0.max(chain.dropped);
        let mut candidates = (from..=chain.end()).map(|place| (place, chain.at(place)));
        let Some(item) = item else {
            let found = candidates.find(|(_, version)| version.item_bytes.is_none());
            return found
                .map(|(place, _)| Place(place))
                .ok_or_else(|| format!("read nothing; operation {} was there", chain.at(from).operation));
        };
        let operation = operation_of(item)?;
        match candidates.find(|(_, version)| version.operation == operation) {
            Some((_, version)) if version.item_bytes != Some(size) => {
                Err(format!("read size {size}, it is {:?}", version.item_bytes))
            }
            Some((place, _)) => Ok(Place(place)),
            None => Err(format!(
                "read operation {operation}; operations {} to {} were possible",
                chain.at(from).operation,
                chain.at(chain.end()).operation
            )),
        }
    }

    /// Checks a read of `key` in a snapshot at `at` that shows operation `item`, or nothing: it must be the newest version
    /// up to `at`, as far as timestamps are known by now.
    pub fn read_at(&self, key: &[u8], at: CommitTimestamp, item: Option<&[u8]>) -> Result<(), String> {
        let Some(chain) = self.chains.get(key) else {
            return match item {
                None => Ok(()),
                Some(_) => Err("the snapshot shows an unknown key".to_owned()),
            };
        };
        let known = |version: &&Version| version.commit.is_some_and(|commit| commit <= at);
        let newest = chain.versions.iter().rposition(|version| known(&version));
        let Some(item) = item else {
            // The least that can be said: an absent version that is not older than the newest one known.
            let from = newest.unwrap_or(0);
            let absent = chain.versions[from..].iter().find(|version| {
                version.item_bytes.is_none() && version.commit.is_none_or(|commit| commit <= at)
            });
            return absent
                .map(|_| ())
                .ok_or_else(|| "the snapshot misses an item".to_owned());
        };
        let operation = operation_of(item)?;
        let shown = chain
            .versions
            .iter()
            .position(|version| version.operation == operation);
        let shown =
            shown.ok_or_else(|| format!("the snapshot shows operation {operation}, which is not there"))?;
        if chain.versions[shown].commit.is_some_and(|commit| commit > at) {
            return Err(format!(
                "the snapshot shows operation {operation}, which is newer"
            ));
        }
        match newest {
            Some(newest) if newest > shown => Err(format!(
                "the snapshot shows operation {operation} instead of {}",
                chain.versions[newest].operation
            )),
            _ => Ok(()),
        }
    }

    /// First read after a crash: as [`Model::read`], and what lies behind it in the chain is gone for good.
    pub fn recovered(&mut self, key: &[u8], item: Option<&[u8]>, size: u32) -> Result<(), String> {
        let place = self.locate(key, self.floor(key), item, size)?;
        let chain = self.chains.get_mut(key).ok_or("recovered an unknown key")?;
        chain.versions.truncate(place.0 + 1 - chain.dropped);
        chain.versions.drain(..chain.versions.len() - 1);
        chain.dropped = place.0;
        chain.floor = place.0;
        Ok(())
    }

    /// Live items in key order: operation and size. Meaningful when nothing is in flight.
    pub fn live(&self) -> Vec<(Vec<u8>, OperationId, u32)> {
        self.chains
            .iter()
            .filter_map(|(key, chain)| {
                let end = chain.at(chain.end());
                end.item_bytes.map(|bytes| (key.clone(), end.operation, bytes))
            })
            .collect()
    }

    /// Greatest timestamp that was acknowledged.
    pub fn commit_max(&self) -> CommitTimestamp {
        self.commit_max
    }

    /// Compares the partition's counters with the live items. For when nothing is in flight.
    pub fn counters(&self, item_count: u64, item_bytes: u64) -> Result<(), String> {
        let live = self.live();
        let bytes: u64 = live.iter().map(|(_, _, bytes)| u64::from(*bytes)).sum();
        if (live.len() as u64, bytes) == (item_count, item_bytes) {
            return Ok(());
        }
        let expected = live.len();
        Err(format!(
            "counters say {item_count} items, {item_bytes} bytes; there are {expected}, {bytes} bytes"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(item: &[u8], item_bytes: u32) -> StoredRef<'_> {
        StoredRef {
            item,
            item_bytes,
            commit: CommitTimestamp(1),
        }
    }

    #[test]
    fn a_stale_read_a_lost_write_and_a_wrong_decision_are_seen() {
        let mut model = Model::default();
        let (first, second) = (item_of(1, 20), item_of(2, 20));
        let before = model.decided_on(b"k", None).unwrap();
        assert_eq!(before, model.floor(b"k"));
        let one = model.proposed(b"k", 1, Some(20));
        assert!(model.decided_on(b"k", None).is_err());
        model.decided_on(b"k", Some(stored(&first, 20))).unwrap();
        let two = model.proposed(b"k", 2, Some(20));
        // Neither is acknowledged: anything goes, then no step back.
        model.read(b"k", before, Some(&first), 20).unwrap();
        assert!(model.read(b"k", model.floor(b"k"), None, 0).is_err());
        model.acknowledged(b"k", one, CommitTimestamp(7)).unwrap();
        assert!(model.acknowledged(b"k", two, CommitTimestamp(7)).is_err());
        model.acknowledged(b"k", two, CommitTimestamp(9)).unwrap();
        assert!(model.read(b"k", model.floor(b"k"), Some(&first), 20).is_err());
        assert!(model.recovered(b"k", Some(&first), 20).is_err());
        model.recovered(b"k", Some(&second), 20).unwrap();
        model.counters(1, 20).unwrap();
        assert!(model.counters(1, 19).is_err());
    }

    #[test]
    fn what_was_not_acknowledged_is_whole_or_absent() {
        let item = item_of(1, 20);
        let mut torn = item.clone();
        torn[12] ^= 1;
        for (read, allowed) in [(None, true), (Some(&item), true), (Some(&torn), false)] {
            let mut model = Model::default();
            model.proposed(b"k", 1, Some(20));
            assert_eq!(
                model.recovered(b"k", read.map(Vec::as_slice), 20).is_ok(),
                allowed
            );
            if allowed {
                assert_eq!(model.live().len(), usize::from(read.is_some()));
            }
        }
    }
}
