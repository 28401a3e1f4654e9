//! Capacity units: what a request would have cost, and how that is said.
//!
//! A write costs one unit per started KiB of the larger of the old and the new item; a strongly consistent read one
//! per started 4 KiB, an eventually consistent one half of that. Whatever it touches, a request costs one at least.

use std::collections::BTreeMap;

use cairn_engine::ids::IndexId;
use cairn_item::json::write_string;

use crate::catalog::{IndexDefinition, TableDefinition};
use crate::route::Written;

const WRITE_UNIT_BYTES: u64 = 1024;
const READ_UNIT_BYTES: u64 = 4096;

/// How much of it the client wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReturnCapacity {
    /// Nothing.
    #[default]
    None,
    /// The sum.
    Total,
    /// The sum, and the table and each index by itself.
    Indexes,
}

impl ReturnCapacity {
    pub(crate) const ALLOWED: [&'static str; 3] = ["INDEXES", "TOTAL", "NONE"];

    /// Reads a value that has been checked against [`ReturnCapacity::ALLOWED`].
    pub(crate) fn parse(value: Option<&str>) -> ReturnCapacity {
        match value {
            Some("TOTAL") => ReturnCapacity::Total,
            Some("INDEXES") => ReturnCapacity::Indexes,
            _ => ReturnCapacity::None,
        }
    }
}

/// Capacity in halves of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capacity {
    halves: u64,
}

impl Capacity {
    /// Of a write that replaced `old` by `new` bytes.
    #[must_use]
    pub fn of_write(old_bytes: u32, new_bytes: u32) -> Capacity {
        let units = u64::from(old_bytes.max(new_bytes))
            .div_ceil(WRITE_UNIT_BYTES)
            .max(1);
        Capacity { halves: 2 * units }
    }

    /// Of a read of `bytes` bytes.
    #[must_use]
    pub fn of_read(bytes: u64, consistent: bool) -> Capacity {
        let units = bytes.div_ceil(READ_UNIT_BYTES).max(1);
        Capacity {
            halves: if consistent { 2 * units } else { units },
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Capacity) -> Capacity {
        Capacity {
            halves: self.halves + other.halves,
        }
    }

    /// Half of it: what an eventually consistent read of the same costs.
    #[must_use]
    pub(crate) fn halved(self) -> Capacity {
        Capacity {
            halves: self.halves / 2,
        }
    }

    /// In tenths of a unit, as the native protocol tells it.
    #[must_use]
    pub fn tenths(self) -> u32 {
        u32::try_from(self.halves * 5).unwrap_or(u32::MAX)
    }

    fn write_units(self, out: &mut Vec<u8>) {
        let fraction = if self.halves.is_multiple_of(2) { "0" } else { "5" };
        out.extend_from_slice(format!("{}.{fraction}", self.halves / 2).as_bytes());
    }

    /// Appends the object that is the value of `ConsumedCapacity`, of a request that was about a table alone.
    pub(crate) fn write_json(self, out: &mut Vec<u8>, table: &str, wanted: ReturnCapacity) {
        Consumed::of_table(self).write_json(out, table, wanted);
    }
}

/// What a request took of a table and of each of its indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Consumed<'a> {
    table: Capacity,
    local: BTreeMap<&'a str, Capacity>,
    global: BTreeMap<&'a str, Capacity>,
}

impl<'a> Consumed<'a> {
    pub(crate) fn of_table(table: Capacity) -> Consumed<'a> {
        Consumed {
            table,
            ..Consumed::default()
        }
    }

    /// Of a write.
    pub(crate) fn of_write(table: &'a TableDefinition, written: &Written) -> Consumed<'a> {
        let (old, new) = (written.old_item_bytes, written.new_item_bytes);
        let mut consumed = Consumed::of_table(Capacity::of_write(old.unwrap_or(0), new.unwrap_or(0)));
        consumed.add_all(table, &written.indexes);
        consumed
    }

    /// Adds what indexes took, by id.
    pub(crate) fn add_all(&mut self, table: &'a TableDefinition, indexes: &[(IndexId, Capacity)]) {
        for (id, capacity) in indexes {
            // One that has gone in the meantime is not told about.
            if let Some(index) = table.indexes.iter().find(|index| index.id == *id) {
                self.add(index, *capacity);
            }
        }
    }

    /// Adds what an index took.
    pub(crate) fn add(&mut self, index: &'a IndexDefinition, capacity: Capacity) {
        let indexes = match index.global {
            Some(_) => &mut self.global,
            None => &mut self.local,
        };
        let sum = indexes.entry(&index.name).or_default();
        *sum = sum.plus(capacity);
    }

    /// Adds another request on the same table.
    pub(crate) fn merge(&mut self, other: Consumed<'a>) {
        self.table = self.table.plus(other.table);
        for (sums, others) in [(&mut self.local, other.local), (&mut self.global, other.global)] {
            for (name, capacity) in others {
                let sum = sums.entry(name).or_default();
                *sum = sum.plus(capacity);
            }
        }
    }

    /// The sum of all.
    pub(crate) fn total(&self) -> Capacity {
        let indexes = self.local.values().chain(self.global.values());
        indexes.fold(self.table, |sum, capacity| sum.plus(*capacity))
    }

    /// Appends the object that is the value of `ConsumedCapacity`.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>, table: &str, wanted: ReturnCapacity) {
        self.write(out, table, wanted, None);
    }

    /// As [`Consumed::write_json`], of a transaction, which says besides what units they are.
    pub(crate) fn write_transacted_json(
        &self,
        out: &mut Vec<u8>,
        table: &str,
        wanted: ReturnCapacity,
        units: &str,
    ) {
        self.write(out, table, wanted, Some(units));
    }

    fn write(&self, out: &mut Vec<u8>, table: &str, wanted: ReturnCapacity, units: Option<&str>) {
        out.extend_from_slice(b"{\"TableName\":");
        write_string(out, table);
        out.push(b',');
        write_both(out, self.total(), units);
        if wanted == ReturnCapacity::Indexes {
            out.extend_from_slice(b",\"Table\":{");
            write_both(out, self.table, units);
            out.push(b'}');
            for (name, indexes) in [
                ("LocalSecondaryIndexes", &self.local),
                ("GlobalSecondaryIndexes", &self.global),
            ] {
                write_indexes(out, name, indexes, units);
            }
        }
        out.push(b'}');
    }
}

/// `CapacityUnits`, and the same again as those units.
fn write_both(out: &mut Vec<u8>, capacity: Capacity, units: Option<&str>) {
    out.extend_from_slice(b"\"CapacityUnits\":");
    capacity.write_units(out);
    if let Some(units) = units {
        out.push(b',');
        write_string(out, units);
        out.push(b':');
        capacity.write_units(out);
    }
}

fn write_indexes(out: &mut Vec<u8>, name: &str, indexes: &BTreeMap<&str, Capacity>, units: Option<&str>) {
    if indexes.is_empty() {
        return;
    }
    out.push(b',');
    write_string(out, name);
    out.extend_from_slice(b":{");
    for (place, (index, capacity)) in indexes.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_string(out, index);
        out.extend_from_slice(b":{");
        write_both(out, *capacity, units);
        out.push(b'}');
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_started_blocks() {
        // Old bytes, new bytes, units.
        for (old, new, units) in [
            (0, 0, 1),
            (0, 1, 1),
            (0, 1024, 1),
            (1025, 10, 2),
            (10, 2049, 3),
            (0, 409_600, 400),
        ] {
            assert_eq!(Capacity::of_write(old, new).halves, units * 2, "{old} {new}");
        }
        // Bytes, halves of a unit when consistent.
        for (bytes, halves) in [(0, 2), (1, 2), (4096, 2), (4097, 4), (1 << 20, 512)] {
            assert_eq!(Capacity::of_read(bytes, true).halves, halves, "{bytes}");
            assert_eq!(Capacity::of_read(bytes, false).halves, halves / 2, "{bytes}");
        }
    }

    #[test]
    fn says_what_is_wanted() {
        let mut out = Vec::new();
        Capacity::of_read(1, false).write_json(&mut out, "t\"1", ReturnCapacity::Total);
        Capacity::of_write(1, 2000).write_json(&mut out, "t2", ReturnCapacity::Indexes);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"TableName":"t\"1","CapacityUnits":0.5}{"TableName":"t2","CapacityUnits":2.0,"Table":{"CapacityUnits":2.0}}"#
        );
    }
}
