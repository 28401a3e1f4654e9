//! Developer commands: verify, fix, test.
fn main() {}
