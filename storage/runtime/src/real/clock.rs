//! The machine's clocks. Moments of all shards share one origin, so they can be compared.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::Moment;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Monotonic time since the first call in this process.
pub(super) fn now() -> Moment {
    let origin = *ORIGIN.get_or_init(Instant::now);
    Moment {
        nanoseconds: u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX),
    }
}

/// Milliseconds since the Unix epoch; 0 when the clock stands before it.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
