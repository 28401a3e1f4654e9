//! Workloads, open-loop driver, HDR latency and SLO verdicts.
fn main() {}
