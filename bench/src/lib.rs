//! Criterion micro-benches, engine benches and peer comparisons.
//!
//! `cargo run --release -p cairn-bench --bin peers` measures Cairn beside its peers and writes docs/benchmarks.md.
//! `cargo run --release -p cairn-bench --bin engine` measures the storage engine by itself beside RocksDB and fjall.
