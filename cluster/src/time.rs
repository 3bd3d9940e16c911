//! Time as the cores see it: passed in with every input, never read.

use std::ops::{Add, Sub};
use std::time::Duration;

pub use gyre_storage::UnixMillis;

/// A point on this process's monotonic clock, in microseconds since some fixed start. For timeouts and latencies;
/// means nothing to another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoMicros(pub u64);

impl MonoMicros {
    /// The time from `earlier` to `self`, in microseconds; 0 if `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: MonoMicros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: MonoMicros) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }

    /// The point `ms` milliseconds later.
    #[must_use]
    pub const fn plus_millis(self, ms: u64) -> MonoMicros {
        MonoMicros(self.0.saturating_add(ms.saturating_mul(1_000)))
    }
}

impl Add<Duration> for MonoMicros {
    type Output = MonoMicros;

    fn add(self, duration: Duration) -> MonoMicros {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        MonoMicros(self.0.saturating_add(micros))
    }
}

impl Sub for MonoMicros {
    type Output = Duration;

    fn sub(self, earlier: MonoMicros) -> Duration {
        self.since(earlier)
    }
}

/// Both clocks at one moment, as a shell reads them once per turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timeouts and latencies: never goes back.
    pub mono: MonoMicros,
    /// For versions and expiry: Unix time, which an operator or NTP may set back.
    pub wall: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_never_wrap() {
        let (early, late) = (MonoMicros(5), MonoMicros(5).plus_millis(2));
        assert_eq!(late.micros_since(early), 2_000);
        assert_eq!(early.micros_since(late), 0);
        assert_eq!(late - early, Duration::from_millis(2));
        assert_eq!(MonoMicros(u64::MAX) + Duration::from_secs(1), MonoMicros(u64::MAX));
    }
}
