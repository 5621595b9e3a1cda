use std::time::{Instant, SystemTime, UNIX_EPOCH};

use model::UnixTime;

/// The only clock: everything that thinks is told the time by who calls it, and that caller asks here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// The time for timers: never goes back, says nothing about the date.
    pub fn now(self) -> Instant {
        Instant::now()
    }

    /// The date, in seconds since 1970-01-01 UTC, for the validity of what is signed. A clock that stands
    /// before 1970 counts as 1970: every certificate is then not yet valid, which is the error to show.
    pub fn unix_time(self) -> UnixTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        UnixTime(since.map_or(0, |elapsed| elapsed.as_secs()))
    }
}
