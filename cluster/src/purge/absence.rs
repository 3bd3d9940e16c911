//! Who has been away for longer than the grace period, so that the others purge without it.
//!
//! Each node keeps account of how long it has seen each member down, and saves that now and then. Time counts only while
//! the node runs and a majority of the members is up beside it: that a whole cluster was switched off, or this node cut
//! off, is nobody's absence. A member that is seen up, or has started again, begins anew. Whom a node has seen down for
//! longer than the grace period it names in gossip ([`Absences::votes`]).
//!
//! A member's data lapses ([`Topology::lapse`](crate::topology::Topology::lapse)) when
//!
//! - *every other* member that has not lapsed is up and names it. Purging cannot go on while another one is down, so
//!   there is nothing to be gained by asking fewer; and a member that has seen it lately stands up for it;
//! - they are a majority of all members, so that of the two sides of a broken network only one can come to that;
//! - no other replica of any of its slots has lapsed, and all of them have looked at what they keep for others since they
//!   started (a node that has come back empty has not, until it has compared all its slots with all their replicas). So a
//!   slot loses one replica at a time, as if it had lost a disk, and is whole again before it may lose the next;
//! - each of its slots has another replica.
//!
//! It is a pure core: the shell tells it who is up, saves its account, and carries out what it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gyre_storage::SLOTS;

use crate::node::NodeId;
use crate::ring::Ring;
use crate::time::MonoMicros;
use crate::wire::{Malformed, Reader, put_count};

/// Members named at a time.
pub const VOTES_MAX: usize = 16;
/// More than this between two steps counts as this much: the node was frozen, and has seen nothing.
const STEP_MAX: Duration = Duration::from_secs(10);
/// The account is saved after this part of the grace period, no oftener than that: so much is forgotten in a crash.
const SAVE_PARTS: u32 = 72;
const SAVE_EVERY_MIN: Duration = Duration::from_secs(1);
const VERSION: u8 = 1;
/// Absences in an account.
const ABSENCES_MAX: usize = crate::topology::MEMBERS_MAX;

/// "I have seen this member, of this incarnation, down for longer than the grace period."
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// The member.
    pub member: NodeId,
    /// Its latest incarnation that is known.
    pub incarnation: u64,
}

/// What is seen of another member.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Whether it lives.
    pub is_up: bool,
    /// Its latest incarnation, as the topology document has it.
    pub incarnation: u64,
    /// Whether it knows what it keeps for others, and so has all that it should.
    pub is_whole: bool,
    /// Whom it names.
    pub votes: Vec<Vote>,
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbsenceEffect {
    /// Save the account.
    Save(Vec<u8>),
    /// The member's data lapses: change the document.
    Lapse(Vote),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Absence {
    incarnation: u64,
    away: Duration,
}

/// How long this node has seen each member down. See the [module](self).
#[derive(Debug)]
pub struct Absences {
    node: NodeId,
    absences: BTreeMap<NodeId, Absence>,
    votes: Vec<Vote>,
    stepped_at: MonoMicros,
    saved_at: MonoMicros,
    /// Who was in the account that was saved last.
    saved: BTreeSet<NodeId>,
}

impl Absences {
    /// The account of `node`, which goes on from what was `saved`.
    ///
    /// # Errors
    /// [`Malformed`] if that is no account.
    pub fn new(node: NodeId, saved: Option<&[u8]>, now: MonoMicros) -> Result<Absences, Malformed> {
        let absences = saved.map_or(Ok(BTreeMap::new()), decode)?;
        let saved = absences.keys().copied().collect();
        Ok(Absences { node, absences, votes: Vec::new(), stepped_at: now, saved_at: now, saved })
    }

    /// Whom this node has seen down for longer than the grace period, as of the last step; at most [`VOTES_MAX`].
    #[must_use]
    pub fn votes(&self) -> &[Vote] {
        &self.votes
    }

    /// How long `member` has been seen down, if it is.
    #[must_use]
    pub fn away(&self, member: NodeId) -> Option<Duration> {
        self.absences.get(&member).map(|absence| absence.away)
    }

    /// Lets time pass. `seen` is of all other members of `ring`, `lapsed` who has lapsed already, `is_whole` whether this
    /// node itself knows what it keeps for others.
    pub fn step(
        &mut self,
        now: MonoMicros,
        grace: Duration,
        ring: &Ring,
        seen: &BTreeMap<NodeId, Seen>,
        lapsed: &BTreeSet<NodeId>,
        is_whole: bool,
    ) -> Vec<AbsenceEffect> {
        let passed = now.since(self.stepped_at).min(STEP_MAX);
        self.stepped_at = now;
        let up = 1 + seen.values().filter(|seen| seen.is_up).count();
        let is_majority = 2 * up > ring.members().len();
        self.count(passed, is_majority, seen, lapsed);
        let long = self.absences.iter().filter(|(_, absence)| absence.away >= grace);
        self.votes = long
            .map(|(&member, absence)| Vote { member, incarnation: absence.incarnation })
            .take(VOTES_MAX)
            .collect();
        let mut effects = Vec::new();
        if self.is_to_be_saved(now, grace) {
            (self.saved_at, self.saved) = (now, self.absences.keys().copied().collect());
            effects.push(AbsenceEffect::Save(self.encode()));
        }
        if is_majority && is_whole {
            let agreed = self.votes.iter().find(|vote| may_lapse(**vote, ring, seen, lapsed));
            effects.extend(agreed.map(|vote| AbsenceEffect::Lapse(*vote)));
        }
        effects
    }

    fn count(
        &mut self,
        passed: Duration,
        is_majority: bool,
        seen: &BTreeMap<NodeId, Seen>,
        lapsed: &BTreeSet<NodeId>,
    ) {
        let is_away =
            |member: &NodeId| !lapsed.contains(member) && seen.get(member).is_some_and(|seen| !seen.is_up);
        self.absences.retain(|member, _| is_away(member));
        for (&member, seen) in seen.iter().filter(|(member, _)| **member != self.node && is_away(member)) {
            let fresh = Absence { incarnation: seen.incarnation, away: Duration::ZERO };
            let absence = self.absences.entry(member).or_insert(fresh);
            if absence.incarnation != seen.incarnation {
                *absence = fresh;
            }
            if is_majority {
                absence.away += passed;
            }
        }
    }

    fn is_to_be_saved(&self, now: MonoMicros, grace: Duration) -> bool {
        let is_other = !self.saved.iter().eq(self.absences.keys());
        let every = (grace / SAVE_PARTS).max(SAVE_EVERY_MIN);
        is_other || (!self.absences.is_empty() && now.since(self.saved_at) >= every)
    }

    /// `version u8 = 1 | count u16 × { member, incarnation, milliseconds: u64 }`, little-endian, ascending by member.
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_count(&mut out, self.absences.len());
        for (member, Absence { incarnation, away }) in &self.absences {
            let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
            for number in [member.0, *incarnation, away_ms] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }
}

/// Whether all who are asked agree, and may: see the [module](self). This node itself does, as its vote shows.
fn may_lapse(vote: Vote, ring: &Ring, seen: &BTreeMap<NodeId, Seen>, lapsed: &BTreeSet<NodeId>) -> bool {
    let mut others = seen.iter().filter(|(member, _)| **member != vote.member && !lapsed.contains(member));
    let agree = others.all(|(_, other)| other.is_up && other.is_whole && other.votes.contains(&vote));
    agree
        && (0..SLOTS).filter(|&slot| ring.is_replica(vote.member, slot)).all(|slot| {
            let others = ring.replicas(slot).iter().filter(|&&replica| replica != vote.member);
            let (all, gone) = others
                .fold((0, 0), |(all, gone), replica| (all + 1, gone + usize::from(lapsed.contains(replica))));
            all > 0 && gone == 0
        })
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<NodeId, Absence>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed);
    }
    let absences = reader.list(ABSENCES_MAX, |reader| {
        let (member, incarnation) = (NodeId(reader.u64()?), reader.u64()?);
        Ok((member, Absence { incarnation, away: Duration::from_millis(reader.u64()?) }))
    })?;
    reader.end()?;
    Ok(absences.into_iter().collect())
}

#[cfg(test)]
mod tests;
