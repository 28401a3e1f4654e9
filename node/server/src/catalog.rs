//! Which tables and partitions exist.
