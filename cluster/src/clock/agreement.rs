//! The time that a node stamps and expires by: its own wall clock, unless the other members' say that it is wrong.
//!
//! A wall clock may be set wrong, by hand or by a bad time server; the monotonic clock of a process is not. So the time
//! is kept as an *offset* to the monotonic clock, and once a second it is asked whether the wall clock still is where
//! the time says it is. It votes, and every member whose clock was measured lately votes; what each says is an offset,
//! too. The median of the votes is where at least half of the clocks are on either side, so no minority of wrong clocks
//! moves it beyond a right one (Lamport and Melliar-Smith, "Synchronizing Clocks in the Presence of Faults", 1985, use
//! the mean of what is not too far off; a mean is moved by everyone). Then
//!
//! - if the wall clock is within the allowed drift of the median, the time is the wall clock, untouched;
//! - if not, the time is the median, until the wall clock is right again.
//!
//! Between two moments at which that is asked, the time runs with the monotonic clock: a wall clock that jumps has no
//! effect at all before the others have been heard about it.
//!
//! **Ties.** Of an even number of votes there are two medians, and any offset between them has as many votes on either
//! side. The one is taken that is nearest to the time so far. So a clock that jumps is outvoted even in a cluster of two:
//! both nodes know by their monotonic clocks which of the two it was. A node that has just started has no time so far; what
//! counts as that is the median of the times of peers that have one. If there is none, the lower median is taken, unless by
//! that clock the node would have stamped the future before it stopped: then the higher one. So it is neither a clock that
//! was set back, nor, of two that both are possible, the later one: what is stamped too early is overtaken, what is stamped
//! too late stays.
//!
//! **Not everybody is heard.** The time moves by more than the allowed drift only if most members, not just most of those
//! heard, have said so lately: two wrong clocks may be among the three that are heard of five. While fewer do, the time runs on with
//! the monotonic clock, since it was agreed upon before. The only member of a cluster believes its wall clock at
//! once: nobody else ever could confirm it.
//!
//! **After the start** the node has no time until most members have been heard ([`VOTES_MAX`] are enough), or for
//! [`SETTLE_MS_MAX`]. Until then it must not stamp.
//!
//! Peers vote by their wall clocks, not by their times: nodes that follow each other would go astray together.
//!
//! If the clocks of a majority were wrong, the time was wrong everywhere, and all have stamped by it. When these clocks
//! are set back the hybrid clocks stay ahead of the time, of most members alike. [`Judgement::majority`] tells how far
//! most of them are, so that nodes do not refuse each other for it.

use std::collections::BTreeMap;

use gyre_storage::Hlc;

use super::sample::{Sample, signed};
use crate::message::ClockReading;
use crate::node::NodeId;
use crate::time::MonoMicros;

/// How often the wall clock is compared with the others', in milliseconds.
pub const ROUND_MS: u64 = 1_000;
/// How often while there is no time yet.
pub const SETTLING_ROUND_MS: u64 = 100;
/// A node that starts waits so long for most members before it does with those it has heard, in milliseconds.
pub const SETTLE_MS_MAX: u64 = 3_000;
/// So many votes are enough to begin with in a large cluster, the node's own included.
pub const VOTES_MAX: usize = 9;
/// How many peers are asked in a round, those first that were asked longest ago.
pub const ASKED_MAX: usize = 4;
/// How many while there is no time yet.
pub const ASKED_SETTLING_MAX: usize = 16;
/// Older measurements do not count, in milliseconds.
pub const SAMPLE_AGE_MS_MAX: u64 = 60_000;
/// A clock that was wrong may be right again: only peers heard within this time can move the time far, in milliseconds.
pub const FRESH_MS_MAX: u64 = 5_000;
/// The durable mark that a hybrid clock starts from may be so far ahead of what was stamped, in milliseconds.
const MARK_LEAD_MS_MAX: u64 = 1_000;
/// A measurement that may be further off than half of the allowed drift tells nothing; but one that may be off by this
/// much always does, in microseconds.
const ERROR_US_USEFUL: u64 = 50_000;

/// How this node's wall clock stands to those of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockState {
    /// The node has started and has not compared it yet.
    #[default]
    Settling,
    /// It is within the allowed drift of the others', or there are no others.
    Agreed,
    /// It is not; the time is that of the others.
    Outvoted,
    /// It has jumped, and too few are heard to confirm it; the time goes on as before.
    Unconfirmed,
}

impl ClockState {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ClockState::Settling => "settling",
            ClockState::Agreed => "agreed",
            ClockState::Outvoted => "outvoted",
            ClockState::Unconfirmed => "unconfirmed",
        }
    }
}

/// What is to be done with the clock now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The time minus the monotonic clock, in microseconds.
    pub offset_us: i64,
    /// The time minus the wall clock, in microseconds: 0 unless the wall clock is not believed.
    pub correction_us: i64,
    /// How the wall clock stands.
    pub state: ClockState,
    /// How many clocks were compared, this node's own included.
    pub votes: usize,
    /// How far the hybrid clocks of most members are, as far as that is known: at least.
    pub majority: Hlc,
}

/// What is known of a peer's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// The peer.
    pub peer: NodeId,
    /// How far its wall clock is ahead of this node's, in microseconds.
    pub ahead_us: i64,
    /// How far that may be off, in microseconds.
    pub error_us: u64,
}

/// Which time a node goes by. See the [module](self).
#[derive(Clone, Debug)]
pub struct Agreement {
    drift_us_max: i64,
    started: MonoMicros,
    samples: BTreeMap<NodeId, Sample>,
    /// The number of the last question to each peer.
    asked: BTreeMap<NodeId, u64>,
    questions: u64,
    /// The time minus the monotonic clock; `None` before there is one.
    offset_us: Option<i64>,
    judgement: Judgement,
}

impl Agreement {
    /// Nothing known; the process has started at `now`. Clocks may differ by `drift_ms_max`.
    #[must_use]
    pub fn new(drift_ms_max: u64, now: MonoMicros) -> Agreement {
        Agreement {
            drift_us_max: signed(drift_ms_max.saturating_mul(1_000)),
            started: now,
            samples: BTreeMap::new(),
            asked: BTreeMap::new(),
            questions: 0,
            offset_us: None,
            judgement: Judgement::default(),
        }
    }

    /// Whether the node has a time, and may stamp by it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.offset_us.is_some()
    }

    /// How long until the next round, in milliseconds.
    #[must_use]
    pub fn round_ms(&self) -> u64 {
        if self.is_settled() { ROUND_MS } else { SETTLING_ROUND_MS }
    }

    /// Which of `reachable` are to be asked in this round.
    pub fn ask(&mut self, reachable: &[NodeId]) -> Vec<NodeId> {
        let count = if self.is_settled() { ASKED_MAX } else { ASKED_SETTLING_MAX };
        let mut peers: Vec<NodeId> = reachable.to_vec();
        peers.sort_by_key(|peer| self.asked.get(peer).copied());
        peers.truncate(count);
        for &peer in &peers {
            self.questions += 1;
            self.asked.insert(peer, self.questions);
        }
        peers
    }

    /// `peer` has answered at `now` what it was asked at `asked_at`: `reading`, in a message stamped `hlc`.
    pub fn answered(
        &mut self,
        peer: NodeId,
        asked_at: MonoMicros,
        now: MonoMicros,
        reading: ClockReading,
        hlc: Hlc,
    ) {
        if asked_at > now || asked_at < self.started {
            return;
        }
        let sample = Sample::new(asked_at, now, reading, hlc);
        if sample.error_us(now) > ERROR_US_USEFUL.max(self.drift_us_max.unsigned_abs() / 2) {
            return;
        }
        let known = self.samples.get(&peer).map_or(sample, |known| known.followed_by(sample, now));
        self.samples.insert(peer, known);
    }

    /// What is known of the peers' clocks, `wall_us` being this node's own, in microseconds since the Unix epoch.
    #[must_use]
    pub fn skews(&self, now: MonoMicros, wall_us: u64) -> Vec<Skew> {
        let own = own_offset(now, wall_us);
        let skew = |(&peer, sample): (&NodeId, &Sample)| Skew {
            peer,
            ahead_us: sample.offset_us.saturating_sub(own),
            error_us: sample.error_us(now),
        };
        self.samples.iter().map(skew).collect()
    }

    /// The last judgement.
    #[must_use]
    pub fn judgement(&self) -> Judgement {
        self.judgement
    }

    /// Compares the wall clock, which shows `wall_us`, with those of the other `members` (this node is one of them), and
    /// finds the time. `hlc` is this node's hybrid clock.
    pub fn judge(&mut self, now: MonoMicros, wall_us: u64, hlc: Hlc, members: &[NodeId]) -> Judgement {
        self.forget(now, members);
        let wall = own_offset(now, wall_us);
        let (offset, state) = if members.len() <= 1 {
            (wall, ClockState::Agreed)
        } else if self.may_settle(now, members.len()) {
            self.vote(now, wall, hlc, members.len())
        } else {
            (wall, ClockState::Settling)
        };
        if state != ClockState::Settling {
            self.offset_us = Some(offset);
        }
        self.judgement = Judgement {
            offset_us: offset,
            correction_us: offset.saturating_sub(wall),
            state,
            votes: self.samples.len() + 1,
            majority: self.majority(hlc, members.len()),
        };
        self.judgement
    }

    fn forget(&mut self, now: MonoMicros, members: &[NodeId]) {
        self.samples
            .retain(|peer, sample| sample.age_us(now) <= SAMPLE_AGE_MS_MAX * 1_000 && members.contains(peer));
        self.asked.retain(|peer, _| members.contains(peer));
    }

    /// Whether enough members were heard to have a time, or long enough was waited for them.
    fn may_settle(&self, now: MonoMicros, members: usize) -> bool {
        let has_waited = now.micros_since(self.started) >= SETTLE_MS_MAX * 1_000;
        self.is_settled() || self.samples.len() + 1 >= most(members) || has_waited
    }

    fn vote(&self, now: MonoMicros, wall: i64, hlc: Hlc, members: usize) -> (i64, ClockState) {
        let before = self.offset_us.or_else(|| self.time_of_peers());
        let reference = before.unwrap_or(wall);
        let votes = self.samples.values().map(|sample| sample.nearest_to(reference, now)).chain([wall]);
        let votes: Vec<i64> = votes.collect();
        let is_far = |from: i64, to: i64| from.abs_diff(to) > self.drift_us_max.unsigned_abs();
        let (low, high) = medians(votes.clone());
        let at_start = || if self.is_before(low, now, hlc) { high } else { low };
        let mut time = before.map_or_else(at_start, |before| before.clamp(low, high));
        if before.is_some() && is_far(reference, time) {
            let is_beyond = |vote: i64| is_far(reference, vote) && (vote > reference) == (time > reference);
            let is_fresh = |sample: &&Sample| sample.age_us(now) <= FRESH_MS_MAX * 1_000;
            let fresh = self.samples.values().filter(is_fresh);
            let beyond = fresh.filter(|sample| is_beyond(sample.nearest_to(reference, now))).count();
            if beyond + usize::from(is_beyond(wall)) < most(members) {
                time = reference;
            }
        }
        if !is_far(time, wall) {
            (wall, ClockState::Agreed)
        } else if votes.len() >= most(members) {
            (time, ClockState::Outvoted)
        } else {
            (time, ClockState::Unconfirmed)
        }
    }

    /// Whether by a clock at `offset_us` this node has stamped the future before it started, so that it is wrong.
    fn is_before(&self, offset_us: i64, now: MonoMicros, hlc: Hlc) -> bool {
        let stamped = own_offset(now, hlc.millis().saturating_sub(MARK_LEAD_MS_MAX).saturating_mul(1_000));
        offset_us < stamped.saturating_sub(self.drift_us_max)
    }

    /// The median of the times of the peers that have one.
    fn time_of_peers(&self) -> Option<i64> {
        let times = self.samples.values().filter_map(|sample| Some(sample.offset_us + sample.correction_us?));
        let times: Vec<i64> = times.collect();
        (!times.is_empty()).then(|| medians(times).0)
    }

    /// The greatest value that the hybrid clocks of more than half of the members have reached, as far as known.
    fn majority(&self, hlc: Hlc, members: usize) -> Hlc {
        let mut clocks: Vec<Hlc> = self.samples.values().map(|sample| sample.hlc).chain([hlc]).collect();
        clocks.sort_unstable_by(|a, b| b.cmp(a));
        clocks.get(members / 2).copied().unwrap_or(Hlc::ZERO)
    }
}

/// How many votes speak for all of `members`.
fn most(members: usize) -> usize {
    (members / 2 + 1).min(VOTES_MAX)
}

fn own_offset(now: MonoMicros, wall_us: u64) -> i64 {
    signed(wall_us).saturating_sub(signed(now.0))
}

/// The lower and the upper median: the same if there is an odd number. Of none: zero.
fn medians(mut values: Vec<i64>) -> (i64, i64) {
    values.sort_unstable();
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    (at(values.len().saturating_sub(1) / 2), at(values.len() / 2))
}

#[cfg(test)]
mod tests;
