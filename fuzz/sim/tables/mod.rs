//! Whole nodes under simulation: tables with indexes, a stream and a time to live, written by clients, through crashes, kills, restarts
//! with other numbers of shards, and a mirror that suffers.
//!
//! ```text
//! seed ─> scenario ─> rounds: start, verify, clients at work, verify, [crash | kill | close] ─> last round
//! ```
//!
//! **What is checked** ([`verify`]), after every start and when the clients have ended:
//! - the stream, replayed from its beginning over nothing, gives the table: each old image is the item that was there, sequence numbers
//!   ascend, nothing is there twice;
//! - every write that was acknowledged has its record, and no record is of a write that was never asked for;
//! - local and global indexes hold what the table's items say, and nothing else;
//! - what has expired goes, and a record says that the service deleted nothing else.

mod clients;
mod run;
mod verify;

pub use run::{TableScenario, TableSummary, run_tables};
