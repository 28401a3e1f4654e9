//! Criterion micro-benches, engine benches and peer comparisons.
//!
//! `cargo run --release -p cairn-bench --bin peers` measures Cairn beside its peers and writes docs/benchmarks.md.
