//! The native protocol: frames, messages and the Rust client.
