//! The Cairn node: shards, catalog, routing, DynamoDB HTTP API, native server, admin.
fn main() {}
