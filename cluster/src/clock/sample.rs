//! One peer's clock as this node has measured it.
//!
//! A question says nothing of time; the answer carries the peer's clock. It was read somewhere between question and
//! answer, so in the middle of the round trip give or take half of it, however unequal the two ways were (Cristian,
//! "Probabilistic Clock Synchronization", 1989). Of several measurements the one of the shortest round trip says most
//! until age has made it vaguer than a new one (as NTP's clock filter does, RFC 5905, section 10); a delay never makes
//! what is known worse. But a new one that contradicts it shows that the clock was set, and replaces it.

use gyre_storage::Hlc;

use crate::message::ClockReading;
use crate::time::MonoMicros;

/// How much two clocks may drift apart, in microseconds a second: far more than quartz does, and as much as NTP slews.
const DRIFT_PPM: u64 = 1_000;

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// The peer's wall clock minus our monotonic clock, in microseconds.
    pub(super) offset_us: i64,
    /// How far that may be off, in microseconds, when it was measured.
    error_us: u64,
    at: MonoMicros,
    /// When the peer was last heard.
    heard_at: MonoMicros,
    /// What the peer adds to its wall clock to have the time it stamps by; `None` while it has not settled on one.
    pub(super) correction_us: Option<i64>,
    /// The peer's hybrid clock.
    pub(super) hlc: Hlc,
}

impl Sample {
    /// What an answer says that has come at `now` to a question of `asked_at`.
    pub(super) fn new(asked_at: MonoMicros, now: MonoMicros, reading: ClockReading, hlc: Hlc) -> Sample {
        let half = now.micros_since(asked_at) / 2;
        let middle = signed(asked_at.0.saturating_add(half));
        Sample {
            offset_us: signed(reading.wall_us).saturating_sub(middle),
            error_us: half + 1,
            at: now,
            heard_at: now,
            correction_us: reading.time_us.map(|time| signed(time).saturating_sub(signed(reading.wall_us))),
            hlc,
        }
    }

    /// How far [`Sample::offset_us`] may be off at `now`, in microseconds.
    pub(super) fn error_us(&self, now: MonoMicros) -> u64 {
        self.error_us + now.micros_since(self.at) / 1_000_000 * DRIFT_PPM
    }

    /// How long ago the peer was last heard, in microseconds.
    pub(super) fn age_us(&self, now: MonoMicros) -> u64 {
        now.micros_since(self.heard_at)
    }

    /// What is known of the peer once `newer` has come.
    pub(super) fn followed_by(self, newer: Sample, now: MonoMicros) -> Sample {
        let is_vaguer = newer.error_us > self.error_us(now);
        let apart = self.offset_us.abs_diff(newer.offset_us);
        if is_vaguer && apart <= newer.error_us + self.error_us(now) {
            return Sample { offset_us: self.offset_us, error_us: self.error_us, at: self.at, ..newer };
        }
        newer
    }

    /// The offset the peer may have that is nearest to `offset_us`: what cannot be told apart counts as equal.
    pub(super) fn nearest_to(&self, offset_us: i64, now: MonoMicros) -> i64 {
        let error = signed(self.error_us(now));
        offset_us.clamp(self.offset_us.saturating_sub(error), self.offset_us.saturating_add(error))
    }
}

pub(super) fn signed(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(micros: u64) -> MonoMicros {
        MonoMicros(micros)
    }

    /// The answer of a peer whose wall clock is `offset` ahead of our monotonic clock, read `there` after the question,
    /// `back` before its arrival.
    fn measured(asked: u64, there: u64, back: u64, offset: u64) -> Sample {
        let reading = ClockReading { wall_us: asked + there + offset, time_us: None };
        Sample::new(at(asked), at(asked + there + back), reading, Hlc::ZERO)
    }

    proptest! {
        #[test]
        fn the_truth_lies_within_the_error_whichever_way_was_slow(
            asked in 0..SECOND, there in 0..SECOND, back in 0..SECOND, offset in 0..1_000 * SECOND,
        ) {
            let sample = measured(asked, there, back, offset);
            let error = sample.offset_us.abs_diff(signed(offset));
            prop_assert!(error <= sample.error_us(at(asked + there + back)));
            prop_assert!(sample.error_us(at(asked + there + back)) <= (there + back) / 2 + 1);
        }

        #[test]
        fn delays_never_make_it_worse(
            trips in proptest::collection::vec((0..SECOND, 0..SECOND), 1..20),
        ) {
            let offset = 77 * SECOND;
            let mut known: Option<Sample> = None;
            let mut least = u64::MAX;
            for (index, (there, back)) in trips.into_iter().enumerate() {
                let asked = index as u64 * SECOND;
                let now = at(asked + there + back);
                let sample = measured(asked, there, back, offset);
                least = least.saturating_add(DRIFT_PPM * 3).min(sample.error_us(now));
                let next = known.map_or(sample, |known| known.followed_by(sample, now));
                prop_assert!(next.error_us(now) <= least, "{} after {least}", next.error_us(now));
                prop_assert!(next.offset_us.abs_diff(signed(offset)) <= next.error_us(now));
                known = Some(next);
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_is_noticed_by_the_next_answer_however_slow() {
        let sharp = measured(0, 100, 100, 5_000 * SECOND);
        let now = at(10 * SECOND + 600_000);
        let slow = measured(10 * SECOND, 500_000, 100_000, 1_400 * SECOND);
        assert_eq!(sharp.followed_by(slow, now), slow);
        let same = measured(10 * SECOND, 500_000, 100_000, 5_000 * SECOND);
        assert_eq!(sharp.followed_by(same, now).offset_us, sharp.offset_us);
        let sharper = measured(10 * SECOND, 20, 20, 5_000 * SECOND);
        assert_eq!(sharp.followed_by(sharper, now), sharper);
    }

    #[test]
    fn what_a_sample_cannot_tell_apart_counts_as_equal() {
        let sample = measured(0, 100, 300, 10 * SECOND);
        let now = at(400);
        let (offset, error) = (sample.offset_us, 201);
        assert_eq!(sample.nearest_to(offset + 150, now), offset + 150);
        assert_eq!(sample.nearest_to(0, now), offset - error);
        assert_eq!(sample.nearest_to(i64::MAX, now), offset + error);
    }
}
