//! Points in time on the database's clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A point in time, in UTC, as the database's clock gave it.
///
/// Leases, ready times and lists compare these; local deadlines are `Instant`s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(#[serde(with = "time::serde::rfc3339")] OffsetDateTime);

impl Timestamp {
    /// Takes over a time of the database.
    pub const fn new(time: OffsetDateTime) -> Self {
        Self(time)
    }

    /// Returns the time for storage and the wire.
    pub const fn time(self) -> OffsetDateTime {
        self.0
    }

    /// Returns the time `duration` later, `None` beyond the year 9999.
    pub fn after(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration.try_into().ok()?).map(Self)
    }

    /// Returns the time from `earlier` to this one, zero when that is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        (self.0 - earlier.0).try_into().unwrap_or(Duration::ZERO)
    }

    /// Returns whole microseconds since 1970, the resolution of the database.
    pub fn micros(self) -> i64 {
        let micros = self.0.unix_timestamp_nanos().div_euclid(1_000);
        // Years up to 9999 are far within i64.
        i64::try_from(micros).unwrap_or(i64::MAX)
    }

    /// Returns the time `micros` microseconds after 1970, `None` beyond the year 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000).ok().map(Self)
    }
}
