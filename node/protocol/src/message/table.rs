//! What a client knows of a table: its id, its keys, and where its partitions are.

use crate::wire::{Reader, WireError, put_text};

/// Partitions of one table that a description can hold.
const PARTITIONS_MAX: usize = 4096;

/// One attribute of a table's primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyAttribute {
    /// Its name.
    pub name: String,
    /// Its type: `b'S'`, `b'N'` or `b'B'`.
    pub kind: u8,
}

/// One partition: the hashes from `lower` up to the next partition's `lower`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its id.
    pub id: u64,
    /// Lowest hash of a partition key that it holds.
    pub lower: u64,
    /// `HOST:PORT` of the owner's native listener; empty for the node that answers.
    pub address: String,
}

/// A table's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its id, never reused: a recreated table has another.
    pub id: u64,
    /// Version of the partition map; requests carry it, and a stale one is answered with `WrongPartition`.
    pub epoch: u64,
    /// Seed of the hash of partition keys.
    pub seed: u64,
    /// Its name.
    pub name: String,
    /// Partition key.
    pub partition_key: KeyAttribute,
    /// Sort key, when the table has one.
    pub sort_key: Option<KeyAttribute>,
    /// Its partitions by ascending `lower`; the first begins at 0.
    pub partitions: Vec<Partition>,
}

impl KeyAttribute {
    fn encode(&self, into: &mut Vec<u8>) {
        into.push(self.kind);
        put_text(into, &self.name);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<KeyAttribute, WireError> {
        let kind = reader.u8("key type")?;
        if !matches!(kind, b'S' | b'N' | b'B') {
            return Err(WireError::Unknown {
                field: "key type",
                value: u64::from(kind),
            });
        }
        Ok(KeyAttribute {
            kind,
            name: reader.text("key name")?.to_owned(),
        })
    }
}

impl Table {
    /// Appends the description.
    ///
    /// # Panics
    /// When the table has more partitions than a description can hold (4,096).
    pub fn encode(&self, into: &mut Vec<u8>) {
        for field in [self.id, self.epoch, self.seed] {
            into.extend_from_slice(&field.to_le_bytes());
        }
        put_text(into, &self.name);
        self.partition_key.encode(into);
        into.push(u8::from(self.sort_key.is_some()));
        if let Some(sort_key) = &self.sort_key {
            sort_key.encode(into);
        }
        assert!(
            self.partitions.len() <= PARTITIONS_MAX,
            "more partitions than a description holds"
        );
        let count = u16::try_from(self.partitions.len()).expect("checked above");
        into.extend_from_slice(&count.to_le_bytes());
        for partition in &self.partitions {
            into.extend_from_slice(&partition.id.to_le_bytes());
            into.extend_from_slice(&partition.lower.to_le_bytes());
            put_text(into, &partition.address);
        }
    }

    /// Reads a description from the front of `reader`.
    ///
    /// # Errors
    /// [`WireError`], also when the partitions are not in order from hash 0.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Table, WireError> {
        let id = reader.u64("table id")?;
        let epoch = reader.u64("table epoch")?;
        let seed = reader.u64("table seed")?;
        let name = reader.text("table name")?.to_owned();
        let partition_key = KeyAttribute::decode(reader)?;
        let sort_key = if reader.flag("has sort key")? {
            Some(KeyAttribute::decode(reader)?)
        } else {
            None
        };
        let count = usize::from(reader.u16("partitions")?);
        if count > PARTITIONS_MAX {
            return Err(WireError::TooLarge {
                field: "partitions",
                got: count,
                limit: PARTITIONS_MAX,
            });
        }
        let mut partitions: Vec<Partition> = Vec::with_capacity(count);
        for _ in 0..count {
            let partition = Partition {
                id: reader.u64("partition id")?,
                lower: reader.u64("partition lower")?,
                address: reader.text("partition address")?.to_owned(),
            };
            let in_order = match partitions.last() {
                Some(before) => before.lower < partition.lower,
                None => partition.lower == 0,
            };
            if !in_order {
                return Err(WireError::Unknown {
                    field: "partition lower",
                    value: partition.lower,
                });
            }
            partitions.push(partition);
        }
        Ok(Table {
            id,
            epoch,
            seed,
            name,
            partition_key,
            sort_key,
            partitions,
        })
    }

    /// The partition that holds partition keys of this hash; `None` only when the table has no partitions.
    #[must_use]
    pub fn partition(&self, hash: u64) -> Option<&Partition> {
        let after = self
            .partitions
            .partition_point(|partition| partition.lower <= hash);
        self.partitions.get(after.checked_sub(1)?)
    }
}
