//! The real world: glommio executors, each with a shard ring.
