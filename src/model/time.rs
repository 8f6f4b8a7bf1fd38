//! Time as the deciding code sees it: handed in, never read.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment for people and logs: microseconds since 1970-01-01 UTC. Never used to measure a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The wall clock's present moment.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 with microseconds, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter ends with the year 9999: a later moment, which only a hostile peer sends, shows as that year.
        const LAST: u64 = 253_402_300_799_999_999;
        let time = UNIX_EPOCH + Duration::from_micros(self.0.min(LAST));
        fmt::Display::fmt(&humantime::format_rfc3339_micros(time), f)
    }
}

/// The present, as it is handed to a decision: `mono` for delays, `wall` for what people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock, which nobody can set.
    pub mono: Instant,
    /// The wall clock, which somebody may set an hour forth or back.
    pub wall: Timestamp,
}

impl Now {
    /// Reads both clocks. Only actors and shells call this.
    pub fn read() -> Self {
        Self { mono: Instant::now(), wall: Timestamp::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_prints_as_a_moment() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999999Z");
    }
}
