//! Identities and positions. Each is a newtype so that one cannot be passed for another; none is ever reused.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, $format, self.0)
            }
        }
    };
}

number!(
    /// A node: one process with its drives. Random, chosen at the first start.
    NodeId(u128), "{:032x}"
);
number!(
    /// A drive of a node. Random, chosen when the directory is first used; 0 stands for the witness.
    DriveId(u128), "{:032x}"
);
number!(
    /// A log. Not a shard: any shard can replay any log.
    LogId(u32), "{}"
);
number!(
    /// A table.
    TableId(u64), "{}"
);

impl TableId {
    /// The node's own table: what it holds is never refused for want of space.
    pub const SYSTEM: TableId = TableId(0);
}

number!(
    /// A partition. 0 is never a partition: records of the log itself carry it.
    PartitionId(u64), "{}"
);
number!(
    /// An index of a table; 0 is the table itself.
    IndexId(u16), "{}"
);
number!(
    /// Version of the in-sync set of a node's drives.
    Epoch(u64), "{}"
);
number!(
    /// Sequence number of a batch in a log, from 1, without gaps over all incarnations.
    LogSequence(u64), "{}"
);
number!(
    /// A raft term.
    Term(u64), "{}"
);
number!(
    /// A raft log index of one partition, from 1; 0 for records outside of a partition's chain.
    RaftIndex(u64), "{}"
);
number!(
    /// A segment, unique in the node: the log that created it and that log's counter.
    SegmentId(u64), "{:016x}"
);
number!(
    /// Version of an item: 48 bits of Unix milliseconds, 16 bits of counter. Unique and rising per partition.
    CommitTimestamp(u64), "{}"
);

impl LogSequence {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> LogSequence {
        LogSequence(self.0 + 1)
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// Bits of a [`SegmentId`] that count; the rest name the log.
const SEGMENT_COUNTER_BITS: u32 = 40;

impl SegmentId {
    /// Segment `counter` of `log`; `None` when the log id exceeds 24 bits or the counter 40.
    #[must_use]
    pub fn new(log: LogId, counter: u64) -> Option<SegmentId> {
        let fits = log.0 < 1 << (64 - SEGMENT_COUNTER_BITS) && counter < 1 << SEGMENT_COUNTER_BITS;
        fits.then_some(SegmentId(u64::from(log.0) << SEGMENT_COUNTER_BITS | counter))
    }

    /// The log whose engine created the segment.
    #[must_use]
    pub fn log(self) -> LogId {
        LogId(u32::try_from(self.0 >> SEGMENT_COUNTER_BITS).expect("24 bits remain"))
    }

    /// The counter within the log.
    #[must_use]
    pub fn counter(self) -> u64 {
        self.0 & ((1 << SEGMENT_COUNTER_BITS) - 1)
    }
}

/// Milliseconds a [`CommitTimestamp`] can hold: until the year 10889.
const COMMIT_MS_MAX: u64 = (1 << 48) - 1;

impl CommitTimestamp {
    /// The first timestamp of a millisecond; later than 48 bits is cut to the last.
    #[must_use]
    pub fn from_unix_ms(unix_ms: u64) -> CommitTimestamp {
        CommitTimestamp(unix_ms.min(COMMIT_MS_MAX) << 16)
    }

    /// Unix milliseconds.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0 >> 16
    }

    /// Position within the millisecond.
    #[must_use]
    pub fn counter(self) -> u16 {
        u16::try_from(self.0 & 0xffff).expect("masked to 16 bits")
    }

    /// The next timestamp; a full counter moves on to the next millisecond.
    #[must_use]
    pub fn next(self) -> CommitTimestamp {
        CommitTimestamp(
            self.0
                .checked_add(1)
                .expect("48 bits of milliseconds last until the year 10889"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_ids_hold_log_and_counter() {
        let id = SegmentId::new(LogId(7), 42).expect("both are small");
        assert_eq!((id.log(), id.counter()), (LogId(7), 42));
        assert_eq!(SegmentId::new(LogId(1 << 24), 0), None);
        assert_eq!(SegmentId::new(LogId(0), 1 << 40), None);
    }

    #[test]
    fn commit_timestamps_rise_into_the_next_millisecond() {
        let last = CommitTimestamp((5 << 16) | 0xffff);
        assert_eq!((last.next().unix_ms(), last.next().counter()), (6, 0));
        assert_eq!(CommitTimestamp::from_unix_ms(u64::MAX).unix_ms(), COMMIT_MS_MAX);
    }
}
