//! Which items expire next, as far as memory reaches.
//!
//! **Invariant.** Of the partitions that have been gone through, every item that expires no later than the [horizon] is
//! in the schedule. Items beyond it may be in it, too. An item that is in the schedule need not expire any more: whoever takes it
//! out looks at the item itself.
//!
//! 1. An item that expires beyond the horizon is not taken in.
//! 2. When the items take more than the limit, those that expire last are dropped and the horizon moves before them.
//! 3. When time reaches the horizon, everything has to be gone through again from a new horizon, which is
//!    [`Schedule::forget_horizon`].
//!
//! [horizon]: Schedule::horizon

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use cairn_engine::ids::PartitionId;

/// What an item of the schedule takes in memory beside its key: two entries of trees, half full at worst, and the
/// counters of the shared key.
const ENTRY_BYTES: usize = 160;

/// An item by partition and key.
pub(super) type ItemId = (PartitionId, Rc<[u8]>);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Schedule {
    by_second: BTreeSet<(u64, ItemId)>,
    by_item: BTreeMap<ItemId, u64>,
    bytes: usize,
    bytes_max: usize,
    horizon: u64,
}

impl Schedule {
    /// A schedule of at most `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Schedule {
        Schedule {
            by_second: BTreeSet::new(),
            by_item: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            horizon: u64::MAX,
        }
    }

    /// The last second of which all items are known.
    pub(super) fn horizon(&self) -> u64 {
        self.horizon
    }

    pub(super) fn forget_horizon(&mut self) {
        self.horizon = u64::MAX;
    }

    pub(super) fn len(&self) -> usize {
        self.by_item.len()
    }

    /// As [`Schedule::set`], of an older state of the item than what may be known already: the earlier second stays, as an item
    /// that comes out too early is scheduled anew.
    pub(super) fn set_no_later(&mut self, partition: PartitionId, key: &[u8], second: u64) {
        let known = self.by_item.get(&(partition, Rc::from(key)));
        if known.is_none_or(|known| second < *known) {
            self.set(partition, key, Some(second));
        }
    }

    /// The item is due in this second (of the Unix epoch), or never.
    pub(super) fn set(&mut self, partition: PartitionId, key: &[u8], second: Option<u64>) {
        let item = (partition, Rc::from(key));
        self.remove(&item);
        let Some(second) = second.filter(|second| *second <= self.horizon) else {
            return;
        };
        self.bytes += ENTRY_BYTES + key.len();
        self.by_second.insert((second, (item.0, Rc::clone(&item.1))));
        self.by_item.insert(item, second);
        while self.bytes > self.bytes_max {
            let (last, item) = self.by_second.last().expect("it has bytes").clone();
            self.remove(&item);
            // Others of that second may remain, but not all of them.
            self.horizon = last.saturating_sub(1);
        }
    }

    /// Takes out an item that has expired by `second`.
    pub(super) fn take_due(&mut self, second: u64) -> Option<ItemId> {
        let (due, item) = self.by_second.first()?;
        if *due > second {
            return None;
        }
        let item = item.clone();
        self.remove(&item);
        Some(item)
    }

    /// Forgets a partition.
    pub(super) fn remove_partition(&mut self, partition: PartitionId) {
        let first = (partition, Rc::from([]));
        let items: Vec<ItemId> = self
            .by_item
            .range(first..)
            .take_while(|((of, _), _)| *of == partition)
            .map(|(item, _)| item.clone())
            .collect();
        for item in items {
            self.remove(&item);
        }
    }

    fn remove(&mut self, item: &ItemId) {
        if let Some(second) = self.by_item.remove(item) {
            let entry = (second, item.clone());
            assert!(self.by_second.remove(&entry), "both trees hold the same items");
            self.bytes -= ENTRY_BYTES + item.1.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const A: PartitionId = PartitionId(2);
    const B: PartitionId = PartitionId(3);

    fn due(schedule: &mut Schedule, second: u64) -> Vec<(u64, String)> {
        let mut due = Vec::new();
        while let Some((partition, key)) = schedule.take_due(second) {
            due.push((partition.0, String::from_utf8(key.to_vec()).unwrap()));
        }
        due
    }

    #[test]
    fn items_come_out_in_their_seconds() {
        let mut schedule = Schedule::new(1 << 20);
        for (partition, key, second) in [(A, "a", 5), (B, "a", 3), (A, "b", 9), (A, "c", 4)] {
            schedule.set(partition, key.as_bytes(), Some(second));
        }
        // Written again: later, and without a time.
        schedule.set(A, b"a", Some(6));
        schedule.set(A, b"c", None);
        assert_eq!(due(&mut schedule, 2), []);
        assert_eq!(due(&mut schedule, 6), [(3, "a".to_owned()), (2, "a".to_owned())]);
        schedule.set(B, b"z", Some(8));
        schedule.remove_partition(A);
        assert_eq!(due(&mut schedule, 100), [(3, "z".to_owned())]);
        assert_eq!((schedule.len(), schedule.bytes), (0, 0));
    }

    /// Whatever is written in whatever order, the items up to the horizon are known.
    #[test]
    fn the_invariant_holds() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut schedule = Schedule::new(20 * (ENTRY_BYTES + 8));
        let mut truth: BTreeMap<u64, u64> = BTreeMap::new();
        let mut now = 0;
        for round in 0..20_000 {
            let key = random(60);
            let second = (random(4) > 0).then(|| now + 1 + random(50));
            match second {
                Some(second) => truth.insert(key, second),
                None => truth.remove(&key),
            };
            schedule.set(A, &key.to_be_bytes(), second);
            assert!(schedule.bytes <= schedule.bytes_max);
            if round % 5 == 0 {
                now += 1;
                while let Some((_, key)) = schedule.take_due(now) {
                    let key = u64::from_be_bytes(key.as_ref().try_into().unwrap());
                    assert!(truth.remove(&key).unwrap() <= now);
                }
            }
            if schedule.horizon() <= now {
                schedule.forget_horizon();
                for (key, second) in &truth {
                    schedule.set(A, &key.to_be_bytes(), Some(*second));
                }
                truth.retain(|_, second| *second > now);
                while schedule.take_due(now).is_some() {}
            }
            for (key, second) in &truth {
                let known = schedule.by_item.contains_key(&(A, Rc::from(key.to_be_bytes())));
                assert!(known || *second > schedule.horizon(), "round {round}");
            }
        }
    }
}
