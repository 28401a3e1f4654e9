//! The native protocol: frames, messages, the handshake and the Rust client.
//!
//! Everything but [`client`] is a codec without I/O, so that the node runs it under the simulator. The layout of
//! every byte is in docs/protocol.md, complete enough to write another client from; this code follows it.
//!
//! Read in this order: [`wire`] (bounded cursors), [`frame`] (what travels on a connection), [`handshake`],
//! [`message`] (requests and responses).

pub mod wire;

pub mod frame;
pub mod handshake;
pub mod message;

#[cfg(feature = "client")]
pub mod client;

/// The protocol version this code speaks; both sides settle on the highest version that both know.
pub const VERSION: u16 = 1;
