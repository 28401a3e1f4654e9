//! Raft groups, leases, peer transport, snapshots, membership.
