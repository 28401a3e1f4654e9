//! The seam to the world. Everything above this room is generic over [`Runtime`], so that the same engine,
//! replication and server code runs on real cores and in the simulator.
//!
//! Read in this order: [`seam`] (the traits), [`buffer`] (aligned memory), [`sync`] (primitives of one shard),
//! [`mailbox`] (bounded queues between shards), then the two implementations, [`real`] and [`sim`], and the
//! [`conformance`] suite that both pass.

pub mod seam;

pub mod buffer;
pub mod mailbox;
pub mod real;
pub mod sim;
pub mod sync;

pub mod conformance;

pub use buffer::AlignedBuffer;
pub use seam::{
    BLOCK_BYTES, Connection, Drive, Entry, File, Listener, Moment, Open, Queue, Runtime, ShardIndex, Space,
    is_exhaustion,
};
