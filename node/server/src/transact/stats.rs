//! What a shard counts of transactions.

use std::collections::BTreeMap;

/// Counters and gauges of a shard's transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionStats {
    /// Transactions that wrote and were committed, led by this shard; those that a token answers again do not count.
    pub committed: u64,
    /// Transactions that were cancelled, those that read too, by the codes of their reasons: one with reasons of several
    /// codes counts under each of them.
    pub cancelled: BTreeMap<&'static str, u64>,
    /// Items of this shard that were met while a transaction held them, by who met them.
    pub conflicts: BTreeMap<Met, u64>,
    /// Prepared transactions that nobody led any more, ended as the ledger said: committed ones, and others.
    pub recovered_committed: u64,
    /// The others: they were given up.
    pub recovered_given_up: u64,
    /// Transactions that write and are led by this shard now.
    pub in_flight: u64,
    /// Transactions that are prepared on partitions of this shard now.
    pub prepared: u64,
    /// Items of this shard that they hold.
    pub held_items: u64,
}

/// Who met an item that a transaction held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Met {
    /// A plain write, which was refused.
    Write,
    /// Another transaction, which was cancelled.
    Transaction,
    /// A transaction that reads, which tries again a few times.
    Read,
}

impl Met {
    /// As a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Met::Write => "write",
            Met::Transaction => "transaction",
            Met::Read => "read",
        }
    }
}
