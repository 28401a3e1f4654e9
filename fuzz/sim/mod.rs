//! The engine under simulation: one seed is one run, with its work, its limits and its faults. Whole nodes: [`tables`].
//!
//! ```text
//! seed ─> scenario ─> rounds: open, verify, clients at work, [crash | kill | close] ─> last round ─> check files
//!                         └──── model: what every answer, and every recovery, may be ────┘
//! ```
//!
//! **What can go wrong in a run** is chosen per seed ([`scenario`]): power loss and kill at any event; one mirror
//! that lies (torn, lost, misdirected, damaged, rotting), fails, stalls, fills up or vanishes, while the other is
//! healthy; clocks that jump. In a mode of its own there are up to seven drives, and an [`operator`] who takes them away,
//! brings them back, adds, rebuilds and removes them while clients work. The fault model itself stands at the top of `cairn_runtime::sim::fault`.
//!
//! **What is checked**: [`model`]. Any answer it does not allow fails the run, as does an engine that does not
//! open again, files that `check` finds fault with, and a run that makes no progress.

pub mod backup;
pub mod canaries;
pub mod model;
pub mod operator;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod summary;
pub mod sweep;
pub mod tables;
pub mod workload;

pub use run::{Failure, run, run_caught};
pub use scenario::Scenario;
pub use shrink::{Setting, shrink};
pub use summary::Summary;
