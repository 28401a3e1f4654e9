//! Bounded queues between shards.
