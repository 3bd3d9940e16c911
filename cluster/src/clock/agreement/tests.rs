//! Claims about the agreement on time, and that no minority moves it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MS: i64 = 1_000;
const HOUR: i64 = 3_600 * 1_000 * MS;
/// What a right clock shows when the monotonic clock is zero.
const EPOCH: i64 = 1_700_000_000 * 1_000 * MS;
const DRIFT_MS: u64 = 500;

/// A node under test, node 1, and what its peers' clocks are ahead of a right one.
struct Bench {
    agreement: Agreement,
    now: MonoMicros,
    members: Vec<NodeId>,
    hlc: Hlc,
}

impl Bench {
    fn new(members: u64) -> Bench {
        let now = MonoMicros(5_000_000);
        Bench {
            agreement: Agreement::new(DRIFT_MS, now),
            now,
            members: (1..=members).map(NodeId).collect(),
            hlc: Hlc::ZERO,
        }
    }

    fn reading(&self, wall: i64, time: Option<i64>) -> ClockReading {
        let at = |ahead: i64| u64::try_from(EPOCH + self.now.0.cast_signed() + ahead).unwrap();
        ClockReading { wall_us: at(wall), time_us: time.map(at) }
    }

    /// Peer `id`, whose wall clock is `wall` ahead and whose time, if it has one, is `time` ahead, answers within 1 ms.
    fn hear(&mut self, id: u64, wall: i64, time: Option<i64>) {
        let asked = self.now;
        self.now.0 += 500;
        let reading = self.reading(wall, time);
        self.now.0 += 500;
        self.agreement.answered(NodeId(id), asked, self.now, reading, self.hlc);
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now.plus_millis(ms);
    }

    /// Judges with a wall clock that is `wall` ahead. How far the time is ahead, in microseconds, and the state.
    fn judge(&mut self, wall: i64) -> (i64, ClockState) {
        let wall_us = self.reading(wall, None).wall_us;
        let judgement = self.agreement.judge(self.now, wall_us, self.hlc, &self.members);
        let time = judgement.offset_us - EPOCH;
        assert_eq!(judgement.correction_us, time - wall);
        assert_eq!(judgement, self.agreement.judgement());
        (time, judgement.state)
    }

    /// Settles among right clocks.
    fn settle(&mut self) {
        for id in 2..=self.members.len() as u64 {
            self.hear(id, 0, None);
        }
        assert_eq!(self.judge(0), (0, ClockState::Agreed));
    }
}

/// Within what a measurement of 1 ms may be off some seconds later.
fn close(time: i64, expected: i64) -> bool {
    time.abs_diff(expected) <= 20_000
}

#[test]
fn a_right_clock_is_left_alone() {
    let mut bench = Bench::new(3);
    bench.hear(2, 200 * MS, None);
    bench.hear(3, -300 * MS, None);
    assert_eq!(bench.judge(0), (0, ClockState::Agreed));
    assert_eq!(bench.judge(450 * MS), (450 * MS, ClockState::Agreed), "within the drift of the median");
}

#[test]
fn a_clock_that_jumps_is_outvoted_until_it_is_right_again() {
    for jump in [HOUR, -HOUR] {
        let mut bench = Bench::new(3);
        bench.settle();
        let (time, state) = bench.judge(jump);
        assert!(close(time, 0) && state == ClockState::Outvoted, "{time}");
        bench.wait(10_000);
        bench.hear(2, 0, Some(0));
        let (time, state) = bench.judge(jump);
        assert!(close(time, 0) && state == ClockState::Outvoted, "{time}");
        assert_eq!(bench.judge(3 * MS), (3 * MS, ClockState::Agreed));
        assert!(close(bench.judge(-jump).0, 0), "back and forth");
        assert_eq!(bench.judge(0), (0, ClockState::Agreed));
    }
}

#[test]
fn a_node_that_starts_has_no_time_before_it_has_heard_most_of_the_others() {
    let mut bench = Bench::new(5);
    assert_eq!(bench.judge(HOUR), (HOUR, ClockState::Settling));
    assert!(!bench.agreement.is_settled());
    bench.hear(2, 0, Some(0));
    assert_eq!(bench.judge(HOUR).1, ClockState::Settling);
    bench.hear(3, 0, Some(0));
    let (time, state) = bench.judge(HOUR);
    assert!(close(time, 0) && state == ClockState::Outvoted && bench.agreement.is_settled());
}

#[test]
fn a_node_that_hears_nobody_begins_with_its_own_clock_after_a_while() {
    let mut bench = Bench::new(3);
    bench.wait(SETTLE_MS_MAX - 1);
    assert_eq!(bench.judge(7).1, ClockState::Settling);
    bench.wait(1);
    assert_eq!(bench.judge(7), (7, ClockState::Agreed));
}

#[test]
fn the_only_member_follows_its_clock_at_once() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.judge(0), (0, ClockState::Agreed));
    assert_eq!(bench.judge(-HOUR), (-HOUR, ClockState::Agreed));
}

#[test]
fn a_jump_that_nobody_can_confirm_is_not_believed() {
    let mut bench = Bench::new(3);
    bench.settle();
    bench.wait(SAMPLE_AGE_MS_MAX + 10_000);
    assert_eq!(bench.judge(400 * MS), (400 * MS, ClockState::Agreed), "a small step is");
    assert_eq!(bench.judge(HOUR), (400 * MS, ClockState::Unconfirmed));
    // Another was set by the same hand: two of three.
    bench.hear(2, HOUR, None);
    assert_eq!(bench.judge(HOUR), (HOUR, ClockState::Agreed));
}

#[test]
fn two_wrong_clocks_on_the_lesser_side_of_a_broken_network_do_not_make_a_time() {
    let mut bench = Bench::new(5);
    bench.settle();
    bench.wait(SAMPLE_AGE_MS_MAX + 10_000);
    bench.hear(2, HOUR, Some(0));
    assert_eq!(bench.judge(HOUR), (0, ClockState::Unconfirmed));
    assert_eq!(bench.judge(-MS), (-MS, ClockState::Agreed));
    // Nor do they on the greater one, of which only some are heard.
    bench.hear(3, HOUR, Some(0));
    assert_eq!(bench.judge(-MS), (-MS, ClockState::Agreed));
    let (time, state) = bench.judge(-HOUR);
    assert!(close(time, -MS) && state == ClockState::Outvoted, "{time}");
    // Nor for a node that starts, if there is a time.
    let mut starting = Bench::new(5);
    starting.hear(2, HOUR, Some(0));
    starting.hear(3, HOUR, Some(0));
    let (time, _) = starting.judge(MS);
    assert!(close(time, MS), "{time}");
}

#[test]
fn two_nodes_know_which_of_their_clocks_has_jumped() {
    let mut right = Bench::new(2);
    right.settle();
    right.hear(2, HOUR, Some(0));
    assert_eq!(right.judge(0), (0, ClockState::Agreed));
    let mut wrong = Bench::new(2);
    wrong.settle();
    let (time, state) = wrong.judge(HOUR);
    assert!(close(time, 0) && state == ClockState::Outvoted);
    // It starts again, and cannot know by its own clocks; but the other has a time.
    let mut again = Bench::new(2);
    again.hear(2, 0, Some(0));
    let (time, state) = again.judge(HOUR);
    assert!(close(time, 0) && state == ClockState::Outvoted, "{time}");
}

#[test]
fn two_fresh_nodes_with_different_clocks_begin_with_the_earlier_one() {
    let mut early = Bench::new(2);
    early.hear(2, HOUR, None);
    assert_eq!(early.judge(0), (0, ClockState::Agreed));
    let skew = early.agreement.skews(early.now, early.reading(0, None).wall_us)[0];
    assert!(close(skew.ahead_us, HOUR) && skew.error_us < 600, "{skew:?}");
    let mut late = Bench::new(2);
    late.hear(2, 0, None);
    let (time, state) = late.judge(HOUR);
    assert!(close(time, 0) && state == ClockState::Outvoted, "{time}");
}

#[test]
fn of_two_clocks_at_a_start_the_earlier_counts_unless_the_node_has_stamped_after_it() {
    for stopped_ago in [0, 10_000 * MS, 100 * HOUR] {
        for (wall, other) in [(HOUR, 0), (0, HOUR), (-HOUR, 0), (0, -HOUR)] {
            // A clock an hour back is seen through only if the node was down for less.
            let is_possible = stopped_ago > HOUR;
            let expected = if is_possible { wall.min(other) } else { 0 };
            let mut bench = Bench::new(2);
            let mark = EPOCH + bench.now.0.cast_signed() - stopped_ago + 400 * MS;
            bench.hlc = Hlc::from_millis(u64::try_from(mark / MS).unwrap());
            bench.hear(2, other, None);
            let (time, state) = bench.judge(wall);
            assert!(close(time, expected), "{wall} {other} {stopped_ago}: {time}");
            assert_eq!(state == ClockState::Agreed, wall == expected);
        }
    }
}

#[test]
fn when_a_majority_jumps_everyone_goes_with_it() {
    let mut bench = Bench::new(3);
    bench.settle();
    bench.hear(2, HOUR, Some(0));
    assert_eq!(bench.judge(0), (0, ClockState::Agreed));
    bench.hear(3, HOUR, Some(0));
    let (time, state) = bench.judge(0);
    assert!(close(time, HOUR) && state == ClockState::Outvoted);
}

#[test]
fn the_majority_of_hybrid_clocks_is_known_only_from_a_majority() {
    let mut bench = Bench::new(5);
    let mut told = |id: Option<u64>, hlc| {
        if let Some(id) = id {
            bench.hlc = Hlc(hlc);
            bench.hear(id, 0, None);
        }
        bench.hlc = Hlc(50);
        bench.judge(0);
        bench.agreement.judgement().majority.0
    };
    assert_eq!(told(None, 0), 0);
    assert_eq!(told(Some(2), 900), 0, "two of five");
    assert_eq!(told(Some(3), 800), 50);
    assert_eq!(told(Some(4), 40), 50);
    assert_eq!(told(Some(5), 700), 700, "three of five have passed it");
}

#[test]
fn those_asked_longest_ago_are_asked_first() {
    let mut bench = Bench::new(8);
    let peers: Vec<NodeId> = (2..=8).map(NodeId).collect();
    assert_eq!(bench.agreement.ask(&peers).len(), 7, "everyone while it settles");
    bench.settle();
    bench.wait(1);
    let mut asked = Vec::new();
    for _ in 0..7 {
        asked.extend(bench.agreement.ask(&peers));
        bench.wait(ROUND_MS);
    }
    assert_eq!(asked.len(), 7 * ASKED_MAX, "{asked:?}");
    for peer in peers {
        assert_eq!(asked.iter().filter(|asked| **asked == peer).count(), 4, "{peer}");
    }
}

#[test]
fn answers_to_nothing_and_slow_ones_are_not_listened_to() {
    let mut bench = Bench::new(2);
    let reading = bench.reading(HOUR, None);
    let now = bench.now;
    for (asked, answered) in [(now.plus_millis(1), now), (MonoMicros(1), now), (now, now.plus_millis(501))] {
        bench.agreement.answered(NodeId(2), asked, answered, reading, Hlc::ZERO);
    }
    assert!(bench.agreement.skews(now, 0).is_empty());
    bench.agreement.answered(NodeId(2), now, now.plus_millis(499), reading, Hlc::ZERO);
    assert_eq!(bench.agreement.skews(now, 0).len(), 1);
    bench.agreement.answered(
        NodeId(2),
        now,
        now.plus_millis(1),
        ClockReading { wall_us: u64::MAX, time_us: Some(0) },
        Hlc(u64::MAX),
    );
    bench.judge(0);
}

proptest! {
    /// Whatever a minority of clocks shows, and whether this node is one of it or not.
    #[test]
    fn no_minority_moves_the_time(
        mut right in vec(-200 * MS..=200 * MS, 2..6),
        wrong in vec(prop_oneof![-HOUR..HOUR, Just(i64::MAX / 4), Just(i64::MIN / 4)], 0..6),
        is_own_wrong: bool,
        has_settled: bool,
    ) {
        let mut wrong = wrong[..wrong.len().min(right.len() - 1)].to_vec();
        let mut bench = Bench::new((right.len() + wrong.len()) as u64);
        if has_settled {
            bench.settle();
        }
        let own = if is_own_wrong && !wrong.is_empty() { wrong.remove(0) } else { right.remove(0) };
        let own = own.clamp(-EPOCH / 2, HOUR);
        for (index, clock) in right.iter().chain(&wrong).enumerate() {
            bench.hear(index as u64 + 2, (*clock).clamp(-EPOCH / 2, HOUR), None);
        }
        let (time, _) = bench.judge(own);
        prop_assert!(time.abs() <= (200 + DRIFT_MS.cast_signed()) * MS + 1_000, "{time}");
    }
}
