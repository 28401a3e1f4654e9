//! What breaks Cairn on purpose: bolero targets for everything that decodes bytes (`tests/`), and [`sim`], whole
//! engines under random work and random faults, each run from one seed.

#[path = "../sim/mod.rs"]
pub mod sim;
