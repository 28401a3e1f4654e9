//! Whole nodes under simulation: tables with indexes, a stream and a time to live, written by clients, by transactions and without,
//! through crashes, kills, restarts with other numbers of shards, drives that fill up, and a mirror that suffers.
//!
//! ```text
//! seed ─> scenario ─> rounds: start, verify, clients at work, verify, [crash | kill | close] ─> last round
//! ```
//!
//! **What is checked** ([`verify`]), after every start and when the clients have ended:
//! - the stream, replayed from its beginning over nothing, gives the table: each old image is the item that was there, sequence numbers
//!   ascend, no write is there twice;
//! - every write that was acknowledged has its record, and no record is of a write or a deletion that was never asked for, or was refused;
//! - local and global indexes hold what the table's items say, and nothing else;
//! - what has expired goes, and a record says that the service deleted that and nothing else;
//! - all of a transaction's writes have their records or none has; the sum of the accounts stays, of each pair one exists, twins are alike
//!   ([`transactions`]); what transactions read while others write is such a state too;
//! - no item is held, and no transaction prepared, when no client is at work.

mod clients;
mod run;
mod transactions;
mod verify;

pub use run::{TableScenario, TableSummary, run_tables};
pub use transactions::TransactionCounts;
