//! Primitives for tasks of one shard: no locks, no atomics.
