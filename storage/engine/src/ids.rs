//! INTERIM, until the author of this module publishes it: the ids of the contract.

macro_rules! id {
    ($($name:ident $inner:ty;)*) => {$(
        #[allow(missing_docs, reason = "interim")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(formatter, "{}", self.0)
            }
        }
    )*};
}

id! {
    NodeId u128; DriveId u128; LogId u32; TableId u64; PartitionId u64; IndexId u16; SegmentId u64; Epoch u64;
    LogSequence u64; Term u64; RaftIndex u64; CommitTimestamp u64;
}
