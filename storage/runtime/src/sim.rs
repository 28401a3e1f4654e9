//! The simulated world: virtual time, seeded randomness, drives and a network that fail on demand.
