//! The hybrid logical clock: one per node, shared by its workers.
//!
//! Kulkarni, Demirbas, Madappa, Avva and Leone, "Logical Physical Clocks and Consistent Snapshots in Globally
//! Distributed Databases" (2014), section 3.3, in the packed form of section 6: 48 bits of physical time and 16 of
//! counter compare as one integer. Two deviations: a stamp is `max(last + 1, wall)` on that integer, so that a full
//! counter carries into the milliseconds instead of overflowing; and a remote clock too far ahead of our own wall
//! clock is refused (section 6 of the paper proposes the same), so that one wrong clock cannot drag the cluster
//! into the future.
//!
//! "Wall" is everywhere what the [agreement](agreement) of the members makes of this node's wall clock.

pub mod agreement;
mod sample;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gyre_storage::{Hlc, UnixMillis};

/// How far a remote clock may be ahead of our wall clock unless configured otherwise, in milliseconds.
pub const CLOCK_DRIFT_MS_MAX: u64 = 500;

/// A remote clock is further ahead of our wall clock than allowed. The message that carried it is to be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender's clock is {ahead_ms} ms ahead of ours, more than {allowed_ms} ms")]
pub struct ClockDrift {
    /// How far the remote clock is ahead, in milliseconds.
    pub ahead_ms: u64,
    /// How far it may be.
    pub allowed_ms: u64,
}

/// A hybrid logical clock. Lock-free; share it by reference or `Arc`.
#[derive(Debug)]
pub struct HybridClock {
    last: AtomicU64,
    drift_ms_max: u64,
    /// How far the hybrid clocks of most members are: see [`HybridClock::follow`].
    majority_ms: AtomicU64,
    /// Whether the node has a time to stamp by.
    is_settled: AtomicBool,
}

impl Default for HybridClock {
    fn default() -> HybridClock {
        HybridClock::new(CLOCK_DRIFT_MS_MAX)
    }
}

impl HybridClock {
    /// A clock at zero that refuses remote clocks more than `drift_ms_max` milliseconds ahead.
    #[must_use]
    pub const fn new(drift_ms_max: u64) -> HybridClock {
        HybridClock {
            last: AtomicU64::new(0),
            drift_ms_max,
            majority_ms: AtomicU64::new(0),
            is_settled: AtomicBool::new(true),
        }
    }

    /// Whether the wall clock that stamps are made of may be believed; a coordinator begins nothing until then. True
    /// unless [`HybridClock::set_settled`] says otherwise.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    /// Says whether the wall clock may be believed.
    pub fn set_settled(&self, is_settled: bool) {
        self.is_settled.store(is_settled, Ordering::Relaxed);
    }

    /// Lets remote clocks be as far ahead of `majority` as of the wall clock. If most members' hybrid clocks are that
    /// far, the wall clocks of most were wrong once, and there is no cluster without them.
    pub fn follow(&self, majority: Hlc) {
        self.majority_ms.store(majority.millis(), Ordering::Relaxed);
    }

    /// A stamp for an event at wall-clock time `wall`: greater than every stamp given and every clock observed
    /// before, on any thread, and never behind `wall`. Only a clock that [is settled](HybridClock::is_settled) stamps.
    ///
    /// # Panics
    /// In the year 10889, when 48 bits of milliseconds are used up: a stamp must never repeat.
    pub fn stamp(&self, wall: UnixMillis) -> Hlc {
        debug_assert!(self.is_settled(), "stamped by a wall clock that nobody has confirmed");
        self.advance(wall)
    }

    fn advance(&self, wall: UnixMillis) -> Hlc {
        let floor = Hlc::from_millis(wall.0).0;
        let mut last = self.last.load(Ordering::Acquire);
        loop {
            assert!(last < u64::MAX, "the hybrid clock is exhausted: 48 bits of milliseconds are used up");
            let next = floor.max(last + 1);
            match self.last.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Hlc(next),
                Err(current) => last = current,
            }
        }
    }

    /// Takes notice of a clock value that a message carried: every later stamp is greater. One that this clock has
    /// passed is never refused, since it changes nothing.
    ///
    /// # Errors
    /// [`ClockDrift`] if `remote` is too far ahead of `wall`; the clock then stays where it was.
    pub fn observe(&self, remote: Hlc, wall: UnixMillis) -> Result<(), ClockDrift> {
        if remote <= self.now() {
            return Ok(());
        }
        let start_ms = wall.0.max(self.majority_ms.load(Ordering::Relaxed));
        if remote.millis().saturating_sub(start_ms) > self.drift_ms_max {
            let ahead_ms = remote.millis().saturating_sub(wall.0);
            return Err(ClockDrift { ahead_ms, allowed_ms: self.drift_ms_max });
        }
        self.raise_to(remote);
        Ok(())
    }

    /// A value between everything given or observed before and everything given later, for those who note when they
    /// looked at something: a stamp, or, while `wall` may not be believed, the next value whatever it shows.
    pub fn mark(&self, wall: UnixMillis) -> Hlc {
        self.advance(if self.is_settled() { wall } else { UnixMillis(0) })
    }

    /// The latest value given or observed, without advancing: what outgoing messages carry.
    #[must_use]
    pub fn now(&self) -> Hlc {
        Hlc(self.last.load(Ordering::Acquire))
    }

    /// Raises the clock to `mark` if it is behind, however far: for the durable high-water mark at start, so that a
    /// wall clock set back while the node was down cannot make it stamp the past again.
    pub fn raise_to(&self, mark: Hlc) {
        self.last.fetch_max(mark.0, Ordering::AcqRel);
    }

    /// How far the clock runs ahead of `wall`, in milliseconds. Beyond the allowed drift, peers refuse us.
    #[must_use]
    pub fn ahead_ms(&self, wall: UnixMillis) -> u64 {
        self.now().millis().saturating_sub(wall.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stamps_follow_the_wall_clock_and_count_within_a_millisecond() {
        let clock = HybridClock::default();
        assert_eq!(clock.stamp(UnixMillis(7)), Hlc(7 << 16));
        assert_eq!(clock.stamp(UnixMillis(7)), Hlc((7 << 16) + 1));
        assert_eq!(clock.stamp(UnixMillis(5)), Hlc((7 << 16) + 2));
        assert_eq!(clock.stamp(UnixMillis(8)), Hlc(8 << 16));
        assert_eq!(clock.now(), Hlc(8 << 16));
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let clock = HybridClock::default();
        clock.raise_to(Hlc((3 << 16) | 0xffff));
        assert_eq!(clock.stamp(UnixMillis(3)), Hlc(4 << 16));
        assert_eq!(clock.ahead_ms(UnixMillis(3)), 1);
    }

    #[test]
    fn a_clock_too_far_ahead_is_refused_and_moves_nothing() {
        let clock = HybridClock::new(500);
        clock.stamp(UnixMillis(1_000));
        let before = clock.now();
        let far = Hlc::from_millis(1_501);
        assert_eq!(clock.observe(far, UnixMillis(1_000)), Err(ClockDrift { ahead_ms: 501, allowed_ms: 500 }));
        assert_eq!(clock.now(), before);
        assert_eq!(clock.observe(Hlc::from_millis(1_500), UnixMillis(1_000)), Ok(()));
        assert_eq!(clock.now(), Hlc::from_millis(1_500));
        assert!(clock.observe(Hlc(u64::MAX), UnixMillis(0)).is_err());
    }

    #[test]
    fn a_clock_is_as_far_ahead_as_most_members_or_as_this_one() {
        let (clock, wall) = (HybridClock::new(500), UnixMillis(1_000));
        clock.follow(Hlc::from_millis(9_000));
        assert!(clock.observe(Hlc::from_millis(9_501), wall).is_err());
        assert_eq!(clock.observe(Hlc::from_millis(9_500), wall), Ok(()));
        clock.follow(Hlc::ZERO);
        assert!(clock.observe(Hlc::from_millis(9_501), wall).is_err());
        assert_eq!(clock.observe(Hlc::from_millis(9_400), wall), Ok(()), "it drags nobody");
        assert_eq!(clock.now(), Hlc::from_millis(9_500));
    }

    #[test]
    fn a_clock_that_is_not_settled_is_not_moved_by_its_wall_clock() {
        let (clock, hour) = (HybridClock::default(), UnixMillis(3_600_000));
        clock.raise_to(Hlc::from_millis(1_000));
        clock.set_settled(false);
        assert_eq!(clock.mark(hour), Hlc((1_000 << 16) + 1));
        assert_eq!(clock.mark(hour), Hlc((1_000 << 16) + 2), "and marks are told apart");
        clock.set_settled(true);
        assert_eq!(clock.mark(UnixMillis(2_000)), Hlc::from_millis(2_000));
        assert!(clock.stamp(UnixMillis(2_000)) > Hlc::from_millis(2_000));
    }

    #[test]
    fn a_wall_clock_set_back_never_repeats_a_stamp() {
        let clock = HybridClock::default();
        clock.raise_to(Hlc::from_millis(9_000));
        assert!(clock.stamp(UnixMillis(10)) > Hlc::from_millis(9_000));
        assert_eq!(clock.ahead_ms(UnixMillis(10)), 8_990);
    }

    #[test]
    fn threads_never_share_a_stamp() {
        const THREADS: u64 = 4;
        const STAMPS: u64 = 5_000;
        let clock = HybridClock::default();
        let drawn: Vec<Vec<Hlc>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|t| {
                    let clock = &clock;
                    scope.spawn(move || {
                        (0..STAMPS).map(|i| clock.stamp(UnixMillis(i / 100 + t))).collect::<Vec<Hlc>>()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for own in &drawn {
            assert!(own.is_sorted_by(|a, b| a < b));
        }
        let distinct: BTreeSet<Hlc> = drawn.into_iter().flatten().collect();
        assert_eq!(distinct.len() as u64, THREADS * STAMPS);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Stamp { wall: u64 },
        Observe { remote: u64, wall: u64 },
        Raise { mark: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let ms = 0u64..2_000;
        prop_oneof![
            ms.clone().prop_map(|wall| Step::Stamp { wall }),
            (0u64..2_000 << 16, ms).prop_map(|(remote, wall)| Step::Observe { remote, wall }),
            (0u64..2_000 << 16).prop_map(|mark| Step::Raise { mark }),
        ]
    }

    proptest! {
        #[test]
        fn a_stamp_exceeds_all_that_happened_before(steps in proptest::collection::vec(step(), 1..60)) {
            let clock = HybridClock::new(500);
            let mut greatest = None;
            for step in steps {
                match step {
                    Step::Stamp { wall } => {
                        let stamp = clock.stamp(UnixMillis(wall));
                        prop_assert!(Some(stamp) > greatest && stamp >= Hlc::from_millis(wall));
                        greatest = Some(stamp);
                    }
                    Step::Observe { remote, wall } => {
                        let is_passed = Some(Hlc(remote)) <= greatest;
                        let taken = clock.observe(Hlc(remote), UnixMillis(wall)).is_ok();
                        prop_assert_eq!(taken, is_passed || Hlc(remote).millis() <= wall + 500);
                        greatest = if taken { greatest.max(Some(Hlc(remote))) } else { greatest };
                    }
                    Step::Raise { mark } => {
                        clock.raise_to(Hlc(mark));
                        greatest = greatest.max(Some(Hlc(mark)));
                    }
                }
                prop_assert_eq!(clock.now(), greatest.unwrap_or(Hlc::ZERO));
            }
        }
    }
}
