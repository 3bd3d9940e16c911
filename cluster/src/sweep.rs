//! When to sweep expired rows, and how fast.
//!
//! Once in an interval a pass goes over what is due in the expiry index ([`gyre_storage::Store::sweep`]), a bounded step
//! at a time. After a step the sweeper rests, in proportion to how long the step took (the "tranquilizer" of Garage,
//! `background/tranquilizer.rs`): a busy disk or processor makes steps slow and so the sweeper modest. Here the proportion
//! falls as the sweeper falls behind, from [`REST_MAX`] to nothing: expired rows are hidden from readers anyway, so a storm
//! may take minutes; but where more expires for ever than a modest sweeper manages, space must come back all the same.
//!
//! Rows count as due once they have been expired for the drift that clocks are allowed: within that a reader's clock may
//! still be before their expiry. The time must be one that was compared with others' ([`crate::clock`]).
//!
//! It is a state machine: the shell calls [`step`](Sweeper::step) when [`wait`](Sweeper::wait) is over, and answers each
//! step it was given by [`swept`](Sweeper::swept).

use std::time::Duration;

use gyre_storage::{SweepPass, SweepStep};

use crate::time::{MonoMicros, Now, UnixMillis};

/// How often a pass begins, unless configured otherwise.
pub const SWEEP_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Index entries in a step: about a millisecond's work, so that commits, which wait for a step's batch, hardly notice.
pub const STEP_ENTRIES: usize = 64;
/// How long to rest after a step while nothing is old, in times of the step.
pub const REST_MAX: f64 = 9.0;
/// From this lag on the sweeper rests no more.
pub const LAG_MAX: Duration = Duration::from_secs(600);
/// A rest is no longer than this, even after a step that a stalled disk has held up.
const REST_LIMIT: Duration = Duration::from_secs(1);
/// How soon to look again while a step is under way.
const WAIT_RUNNING: Duration = Duration::from_secs(1);

/// A step for the shell to take ([`gyre_storage::Store::sweep`]), answered by [`Sweeper::swept`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Where the pass stands.
    pub pass: SweepPass,
    /// Up to when rows must have expired.
    pub until: UnixMillis,
    /// How many entries to look at.
    pub limit: usize,
}

/// What the sweeper has done since it started, and how far it is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepStatus {
    /// Index entries that were due.
    pub due: u64,
    /// Rows that became tombstones.
    pub swept: u64,
    /// Bytes of their values.
    pub bytes_freed: u64,
    /// For how long the oldest entry of the last step had been due, in milliseconds; 0 once a pass is complete.
    pub lag_ms: u64,
}

/// Sweeps one node. See the [module](self).
#[derive(Debug)]
pub struct Sweeper {
    interval: Duration,
    drift_ms: u64,
    phase: Phase,
    status: SweepStatus,
}

#[derive(Debug)]
enum Phase {
    /// Until the next pass begins.
    Idle { until: MonoMicros },
    /// Between two steps of the pass that began at `begun`.
    Resting { until: MonoMicros, begun: MonoMicros, pass: SweepPass },
    /// A step is under way.
    Running { begun: MonoMicros, deadline: UnixMillis },
}

impl Sweeper {
    /// A sweeper whose first pass begins one `interval` after `now`. Clocks may differ by `drift_ms`.
    #[must_use]
    pub fn new(interval: Duration, drift_ms: u64, now: MonoMicros) -> Sweeper {
        Sweeper {
            interval,
            drift_ms,
            phase: Phase::Idle { until: now + interval },
            status: SweepStatus::default(),
        }
    }

    /// Uses another interval from the next pass on.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The step to take now, if one is due.
    pub fn step(&mut self, now: Now) -> Option<Sweep> {
        let (begun, pass) = match &mut self.phase {
            Phase::Idle { until } if *until <= now.mono => (now.mono, SweepPass::default()),
            Phase::Resting { until, begun, pass } if *until <= now.mono => (*begun, std::mem::take(pass)),
            _ => return None,
        };
        let until = UnixMillis(now.wall.0.saturating_sub(self.drift_ms));
        self.phase = Phase::Running { begun, deadline: until };
        Some(Sweep { pass, until, limit: STEP_ENTRIES })
    }

    /// The step has come to `result` (`None`: it failed) after it `took` so long.
    pub fn swept(&mut self, now: MonoMicros, took: Duration, result: Option<SweepStep>) {
        let Phase::Running { begun, deadline } = self.phase else { return };
        let next_pass = Phase::Idle { until: (begun + self.interval).max(now) };
        let Some(step) = result else {
            self.phase = Phase::Idle { until: now + self.interval };
            return;
        };
        self.status.due += step.due as u64;
        self.status.swept += step.swept as u64;
        self.status.bytes_freed += step.bytes_freed;
        let lag_ms = step.oldest.map_or(0, |oldest| deadline.0.saturating_sub(oldest.0));
        self.status.lag_ms = if step.next.is_some() { lag_ms } else { 0 };
        self.phase = match step.next {
            Some(pass) => Phase::Resting { until: now + rest(took, lag_ms), begun, pass },
            None => next_pass,
        };
    }

    /// How long [`step`](Sweeper::step) has nothing to do, unless it is answered before.
    #[must_use]
    pub fn wait(&self, now: MonoMicros) -> Duration {
        match &self.phase {
            Phase::Idle { until } | Phase::Resting { until, .. } => until.since(now),
            Phase::Running { .. } => WAIT_RUNNING,
        }
    }

    /// What was done since the start.
    #[must_use]
    pub fn status(&self) -> SweepStatus {
        self.status
    }
}

/// How long to rest after a step that took `took`, `lag_ms` behind.
fn rest(took: Duration, lag_ms: u64) -> Duration {
    let lag = Duration::from_millis(lag_ms).min(LAG_MAX);
    let share = 1.0 - lag.as_secs_f64() / LAG_MAX.as_secs_f64();
    took.mul_f64(REST_MAX * share).min(REST_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIFT: u64 = 500;

    fn at(ms: u64) -> Now {
        Now { mono: MonoMicros(ms * 1_000), wall: UnixMillis(1_000_000 + ms) }
    }

    fn sweeper() -> Sweeper {
        Sweeper::new(SWEEP_INTERVAL_DEFAULT, DRIFT, at(0).mono)
    }

    /// A result of a step whose oldest entry expired at `oldest` (by the clock of [`at`]).
    fn result(oldest: u64, has_more: bool) -> Option<SweepStep> {
        Some(SweepStep {
            due: 10,
            swept: 8,
            bytes_freed: 100,
            oldest: Some(UnixMillis(1_000_000 + oldest)),
            next: has_more.then(SweepPass::default),
            ..SweepStep::default()
        })
    }

    #[test]
    fn a_pass_begins_once_in_an_interval_and_leaves_the_drift_out() {
        let mut sweeper = sweeper();
        assert_eq!(sweeper.step(at(9_999)), None);
        assert_eq!(sweeper.wait(at(9_999).mono), Duration::from_millis(1));
        let sweep = sweeper.step(at(10_000)).unwrap();
        assert_eq!((sweep.until, sweep.limit), (UnixMillis(1_009_500), STEP_ENTRIES));
        assert_eq!(sweeper.step(at(12_000)), None, "one step at a time");
        sweeper.swept(at(12_000).mono, Duration::from_secs(2), result(9_000, false));
        assert_eq!(sweeper.wait(at(12_000).mono), Duration::from_secs(8), "intervals are of beginnings");
        assert!(sweeper.step(at(20_000)).is_some());
        let SweepStatus { due, swept, bytes_freed, lag_ms } = sweeper.status();
        assert_eq!((due, swept, bytes_freed, lag_ms), (10, 8, 100, 0));
    }

    #[test]
    fn rests_follow_the_steps_and_vanish_with_the_lag() {
        let took = Duration::from_millis(2);
        for (lag_ms, expected_ms) in [(0, 18), (300_000, 9), (600_000, 0), (9_000_000, 0)] {
            assert_eq!(rest(took, lag_ms), Duration::from_millis(expected_ms));
        }
        assert_eq!(rest(Duration::from_secs(60), 0), REST_LIMIT);
        let mut sweeper = sweeper();
        sweeper.step(at(310_500)).unwrap();
        sweeper.swept(at(310_502).mono, took, result(10_000, true));
        assert_eq!(sweeper.status().lag_ms, 300_000);
        assert_eq!(sweeper.wait(at(310_502).mono), Duration::from_millis(9));
        assert_eq!(sweeper.step(at(310_510)), None);
        assert!(sweeper.step(at(310_511)).is_some());
    }

    #[test]
    fn a_pass_that_takes_longer_than_the_interval_is_followed_at_once() {
        let mut sweeper = sweeper();
        sweeper.step(at(10_000)).unwrap();
        sweeper.swept(at(25_000).mono, Duration::from_millis(1), result(0, false));
        assert_eq!(sweeper.wait(at(25_000).mono), Duration::ZERO);
    }

    #[test]
    fn a_failed_step_is_left_alone_for_an_interval() {
        let mut sweeper = sweeper();
        sweeper.step(at(10_000)).unwrap();
        sweeper.swept(at(11_000).mono, Duration::from_secs(1), None);
        assert_eq!(sweeper.step(at(20_999)), None);
        assert!(sweeper.step(at(21_000)).is_some());
    }
}
