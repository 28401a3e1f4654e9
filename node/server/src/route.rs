//! How a request reaches the shard that owns its partition.
