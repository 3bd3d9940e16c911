//! Phi accrual failure detection: how suspicious a peer's silence is.
//!
//! Source: Hayashibara, Défago, Yared, Katayama, "The φ accrual failure detector" (SRDS 2004), in the form of Apache
//! Cassandra's `FailureDetector` and `ArrivalWindow`: gaps between heartbeats are taken to be exponentially distributed,
//! so that the probability of a gap of at least `elapsed` is e^(−elapsed / mean) and
//!
//! ```text
//! phi = −log10 of that probability = elapsed / mean · log10(e) = 0.4343 · elapsed / mean
//! ```
//!
//! A threshold of 8 thus means 18.4 mean gaps of silence. Differences from the paper: an exponential distribution
//! instead of a normal one. Differences from Cassandra:
//!
//! - The window is not the last 1,000 gaps but the last 50 to 100, as two halves of which the older is dropped when the
//!   newer is full: two sums instead of a ring of gaps, which matters with 10,000 peers.
//! - A gap longer than [`GAP_INTERVALS_MAX`] gossip intervals counts as one of that length. Cassandra leaves gaps of
//!   more than two intervals out, which makes the mean too small wherever heartbeats regularly come slower than that:
//!   on lossy networks and in large clusters.
//! - The mean is taken to be at least one gossip interval: heartbeats are not made faster than that, so a smaller mean
//!   says something of the network's bursts, not of the peer.
//! - Gaps that a local pause or the peer's being down made are not recorded.
//! - Silence does not count from before a local pause: see [`Arrivals::phi`].
//!
//! As in Cassandra, the first gap is made up: two gossip intervals, rather too long than too short.

use std::f64::consts::LOG10_E;

use crate::time::MonoMicros;

/// How many gaps each half of the window holds.
pub const HALF_WINDOW: u16 = 50;
/// The first, made-up gap, in gossip intervals.
pub const FIRST_GAP_INTERVALS: u64 = 2;
/// The longest gap recorded, in gossip intervals.
pub const GAP_INTERVALS_MAX: u64 = 10;

/// When a peer's heartbeats arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals {
    /// The last heartbeat.
    arrived_at: MonoMicros,
    /// The last sign of life: a heartbeat or direct evidence.
    heard_at: MonoMicros,
    older: Half,
    newer: Half,
}

/// A half of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Half {
    /// At most [`HALF_WINDOW`] gaps.
    gaps: u16,
    /// Their sum in milliseconds: [`HALF_WINDOW`] gaps of at most 10 intervals of at most a minute.
    sum_ms: u32,
}

impl Arrivals {
    /// The first heartbeat has arrived at `now`. `interval_ms` is the gossip interval, in milliseconds.
    #[must_use]
    pub fn first(now: MonoMicros, interval_ms: u64) -> Arrivals {
        let mut newer = Half::default();
        newer.add(FIRST_GAP_INTERVALS * interval_ms);
        Arrivals { arrived_at: now, heard_at: now, older: Half::default(), newer }
    }

    /// A newer heartbeat has arrived at `now`; with `is_gap` the time since the last is a sample of how often they do.
    pub fn heartbeat(&mut self, now: MonoMicros, interval_ms: u64, is_gap: bool) {
        if is_gap {
            let gap_ms = now.micros_since(self.arrived_at) / 1_000;
            if self.newer.gaps >= HALF_WINDOW {
                self.older = std::mem::take(&mut self.newer);
            }
            self.newer.add(gap_ms.min(GAP_INTERVALS_MAX * interval_ms));
        }
        self.arrived_at = now;
        self.heard_at = now;
    }

    /// The peer has shown at `now` that it lives, otherwise than by a newer heartbeat: no gap, but the silence is over.
    pub fn evidence(&mut self, now: MonoMicros) {
        self.heard_at = self.heard_at.max(now);
    }

    /// When the last heartbeat arrived.
    #[must_use]
    pub fn arrived_at(&self) -> MonoMicros {
        self.arrived_at
    }

    /// The mean gap between heartbeats, in milliseconds: of the last 50 to 100, and at least `interval_ms`.
    #[must_use]
    pub fn mean_ms(&self, interval_ms: u64) -> f64 {
        let gaps = f64::from(self.older.gaps) + f64::from(self.newer.gaps);
        let sum = f64::from(self.older.sum_ms) + f64::from(self.newer.sum_ms);
        #[expect(clippy::cast_precision_loss, reason = "an interval is at most a minute")]
        let floor = interval_ms as f64;
        (sum / gaps).max(floor)
    }

    /// How suspicious the silence is at `now`: 0 is just heard, rising without bound. Silence counts from `resumed_at`
    /// on, when this process came back from its own last pause: nothing could be heard during it.
    #[must_use]
    pub fn phi(&self, now: MonoMicros, resumed_at: MonoMicros, interval_ms: u64) -> f64 {
        let elapsed_ms = now.since(self.heard_at.max(resumed_at)).as_secs_f64() * 1_000.0;
        LOG10_E * elapsed_ms / self.mean_ms(interval_ms)
    }
}

impl Half {
    fn add(&mut self, gap_ms: u64) {
        self.gaps += 1;
        self.sum_ms = self.sum_ms.saturating_add(u32::try_from(gap_ms).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoMicros = MonoMicros(1_000_000);
    const NEVER: MonoMicros = MonoMicros(0);

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-3
    }

    /// Arrivals with `gaps_ms`, and when the last was.
    fn with_gaps(gaps_ms: impl IntoIterator<Item = u64>) -> (Arrivals, MonoMicros) {
        let mut now = START;
        let mut arrivals = Arrivals::first(now, 1_000);
        for gap_ms in gaps_ms {
            now = now.plus_millis(gap_ms);
            arrivals.heartbeat(now, 1_000, true);
        }
        (arrivals, now)
    }

    #[test]
    fn phi_is_the_table_of_cassandras_formula() {
        // (gap, silence, phi): a hundred gaps push the made-up first one out of the window.
        let table = [
            (1_000, 0, 0.0),
            (1_000, 2_000, 0.868_6),
            (1_000, 10_000, 4.343),
            (1_000, 18_420, 8.0),
            (2_000, 18_420, 4.0),
            (2_000, 36_841, 8.0),
            (5_000, 92_103, 8.0),
        ];
        for (gap_ms, silence_ms, phi) in table {
            let (arrivals, last) = with_gaps([gap_ms; 100]);
            let found = arrivals.phi(last.plus_millis(silence_ms), NEVER, 1_000);
            assert!(close(found, phi), "gaps of {gap_ms} ms, {silence_ms} ms of silence: {found}, not {phi}");
        }
    }

    #[test]
    fn the_first_heartbeat_counts_as_one_of_a_slow_peer() {
        let arrivals = Arrivals::first(START, 1_000);
        assert!(close(arrivals.phi(START.plus_millis(18_420), NEVER, 1_000), 4.0));
        assert!(close(arrivals.phi(START.plus_millis(36_841), NEVER, 1_000), 8.0));
    }

    #[test]
    fn bursts_do_not_make_the_detector_eager() {
        let (arrivals, _) = with_gaps([10; 100]);
        assert!(close(arrivals.mean_ms(1_000), 1_000.0));
    }

    #[test]
    fn a_long_gap_counts_as_the_longest_that_is_recorded() {
        let (arrivals, _) = with_gaps([1_000; 99].into_iter().chain([600_000]));
        let mean = arrivals.mean_ms(1_000);
        assert!(mean < 1_200.0, "one outage must not make the detector slow: {mean}");
        assert!(mean > 1_050.0, "but it counts: {mean}");
    }

    #[test]
    fn the_window_forgets_what_is_older_than_a_hundred_gaps() {
        let (arrivals, _) = with_gaps([5_000; 100].into_iter().chain([1_000; 100]));
        assert!(close(arrivals.mean_ms(1_000), 1_000.0));
        let (arrivals, _) = with_gaps([5_000; 100].into_iter().chain([1_000; 25]));
        assert!(arrivals.mean_ms(1_000) > 3_000.0, "and remembers at least fifty");
    }

    #[test]
    fn gaps_that_are_no_samples_leave_the_mean_alone() {
        let (mut arrivals, last) = with_gaps([1_000; 100]);
        let back = last.plus_millis(300_000);
        arrivals.heartbeat(back, 1_000, false);
        assert!(close(arrivals.mean_ms(1_000), 1_000.0));
        assert!(close(arrivals.phi(back, NEVER, 1_000), 0.0));
    }

    #[test]
    fn evidence_ends_the_silence_and_is_no_gap() {
        let (mut arrivals, last) = with_gaps([2_000; 100]);
        arrivals.evidence(last.plus_millis(1_500));
        assert!(close(arrivals.phi(last.plus_millis(1_500), NEVER, 1_000), 0.0));
        arrivals.heartbeat(last.plus_millis(2_000), 1_000, true);
        assert!(close(arrivals.mean_ms(1_000), 2_000.0));
        arrivals.evidence(last);
        assert!(
            close(arrivals.phi(last.plus_millis(2_000), NEVER, 1_000), 0.0),
            "old evidence changes nothing"
        );
    }

    #[test]
    fn silence_counts_from_the_end_of_a_local_pause() {
        let (arrivals, last) = with_gaps([1_000; 100]);
        let resumed = last.plus_millis(60_000);
        assert!(close(arrivals.phi(resumed, resumed, 1_000), 0.0));
        assert!(close(arrivals.phi(resumed.plus_millis(18_420), resumed, 1_000), 8.0));
    }
}
