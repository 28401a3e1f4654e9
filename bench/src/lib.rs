//! Criterion micro-benches, engine benches and peer comparisons.
