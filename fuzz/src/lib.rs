//! Bolero targets, corpora and whole-node simulation.
