//! The wall clock of a simulated machine: skewed, drifting, and set by whoever has the rights.

use gyre_cluster::time::UnixMillis;

use crate::queue::Micros;

/// What every right clock shows when the world begins: 2026-01-01, in milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// A wall clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct WallClock {
    /// How far it was ahead at `since`, in microseconds.
    ahead: i64,
    /// How much it gains, in microseconds a second.
    drift_ppm: i64,
    since: Micros,
}

impl WallClock {
    /// What it shows.
    pub(crate) fn read(&self, now: Micros) -> UnixMillis {
        UnixMillis(self.read_us(now) / 1_000)
    }

    /// What it shows, in microseconds.
    pub(crate) fn read_us(&self, now: Micros) -> u64 {
        (EPOCH_MS as u64 * 1_000 + now).saturating_add_signed(self.ahead(now))
    }

    /// Moves it by `micros`.
    pub(crate) fn jump(&mut self, now: Micros, micros: i64) {
        self.ahead = self.ahead(now) + micros;
        self.since = now;
    }

    /// From now on it gains `drift_ppm` microseconds a second.
    pub(crate) fn set_drift(&mut self, now: Micros, drift_ppm: i64) {
        self.jump(now, 0);
        self.drift_ppm = drift_ppm;
    }

    /// It is right again, and stays so.
    pub(crate) fn set_right(&mut self, now: Micros) {
        *self = WallClock { since: now, ..WallClock::default() };
    }

    /// How far it is ahead, in microseconds.
    pub(crate) fn ahead(&self, now: Micros) -> i64 {
        self.ahead + (now - self.since) as i64 / 1_000_000 * self.drift_ppm
    }
}

/// What a right clock shows, in milliseconds.
pub(crate) fn truth_ms(now: Micros) -> u64 {
    (EPOCH_MS + (now / 1_000) as i64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::SECOND;

    #[test]
    fn a_clock_jumps_drifts_and_is_set_right() {
        let mut clock = WallClock::default();
        assert_eq!(clock.read(5 * SECOND).0, truth_ms(5 * SECOND));
        clock.jump(5 * SECOND, -3_000_000);
        assert_eq!(clock.read(6 * SECOND).0, truth_ms(3 * SECOND));
        clock.set_drift(6 * SECOND, 1_000);
        assert_eq!(clock.read(106 * SECOND).0, truth_ms(103 * SECOND) + 100);
        clock.set_right(107 * SECOND);
        assert_eq!(clock.ahead(200 * SECOND), 0);
    }
}
