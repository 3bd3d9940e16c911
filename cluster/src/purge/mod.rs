//! Purging: when the record of a deletion may go, so that what it deleted stays gone.
//!
//! A tombstone that goes too soon lets what it deleted come back from a replica, a hint or a leftover that it had not
//! reached (Cassandra's "zombies"). So it does not go by age alone. All replicas of a slot agree on a *horizon*, a clock
//! up to which nothing is under way any more, and only what is dead at the horizon is removed
//! ([`gyre_storage::PurgeHorizon`] tells the three steps, and why there are three):
//!
//! 1. **Hidden.** A replica hides what is dead at a horizon that is older than the grace period; up to which every replica
//!    of the slot has compared it with every other ([`Verified`]); and up to which no member of the cluster keeps anything
//!    for others, be it named by a hint or not ([`kept`]). Each replica says what it has verified, and members gossip up
//!    to when they keep nothing (their *floor*). A member that is down says nothing new, so it holds the horizon up, until
//!    it has been away for longer than the grace period and its data lapses ([`absence`]).
//! 2. **Counted.** All replicas have said that they hide it.
//! 3. **Purged.** All replicas have said that they have compared the slot with each other once more since 2 (they have
//!    *settled*): whatever had been added to a counter on a dead register, before nobody could any more, is everywhere.
//!
//! Every statement is one of facts that stay true, so there is no round, no leader and no vote: each replica takes the
//! least of what all of them say, whenever that rises, and hides what another one hides already. Horizons move in leaps of a third of the grace period, the same for all
//! replicas, and slots take turns, since trees are hashed anew where one moves.
//!
//! It is a state machine: the shell calls [`step`](Purge::step) now and then (see [`wait`](Purge::wait)), hands messages and
//! results in, and carries the effects out.

pub mod absence;
mod api;
pub mod kept;
mod message;
mod statements;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Hlc, PurgeHorizon, PurgeStep, SLOTS, Slot};

pub use api::{Effect, PurgeStatus};
pub use message::{PurgeMessage, Report, SlotReport};
use statements::{Statements, reports};

use crate::node::NodeId;
use crate::repair::Verified;
use crate::ring::Ring;
use crate::time::{MonoMicros, Now};
use crate::wire::Malformed;

/// How old a deletion must be before its record may go, unless configured otherwise.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(72 * 3600);
/// In how many leaps a horizon moves through the grace period.
const LEAPS: u64 = 3;
/// How many groups of neighbouring slots take turns.
const GROUPS: u64 = 64;
/// How often a replica says what it has reached, at the latest.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// How often is looked whether horizons can move.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// An exchange shows what had been stored so long before it began: longer than an increment that has read takes to be
/// stored.
const SETTLE: Duration = Duration::from_secs(20);
/// Horizons keep away from what replicas have verified and members keep by this part of the grace period: so long a row
/// may be on its way, because its coordinator or a replica was frozen, and still arrive before it is compared.
const MARGIN_PARTS: u64 = 6;
/// Slots looked at in one step.
const SLOTS_PER_LOOK: Slot = 1_024;
/// How soon the next ones are.
const LOOK_NEXT: Duration = Duration::from_millis(20);
/// Keys in a step of purging.
const STEP_KEYS: usize = 256;
/// How long to rest after a step, in times of the step.
const REST: u32 = 9;
/// A failed step is left alone so long.
const PAUSE: Duration = Duration::from_secs(10);
/// How soon to look again while a step is under way.
const WAIT_RUNNING: Duration = Duration::from_secs(1);

/// What this node has reached in a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    horizon: PurgeHorizon,
    /// Since when `horizon.counted` is what it is, by this node's hybrid clock.
    counted_at: Hlc,
    settled: Hlc,
    /// Up to when it has compared the slot with every other replica, as it was looked at last.
    verified: Hlc,
}

impl Own {
    fn report(&self) -> SlotReport {
        SlotReport { verified: self.verified, hidden: self.horizon.hidden, settled: self.settled }
    }
}

/// What was seen in a round through all slots.
#[derive(Debug, Default)]
struct Round {
    /// The slot to go on with.
    next: Slot,
    silent: BTreeSet<NodeId>,
    oldest: Option<Hlc>,
}

/// Where the removal of rows stands.
#[derive(Debug)]
enum Removal {
    Idle { until: MonoMicros },
    Running { slot: Slot },
}

/// Purging of one node. See the [module](self).
#[derive(Debug)]
pub struct Purge {
    node: NodeId,
    grace: Duration,
    ring: Arc<Ring>,
    /// Members whose data has lapsed: they are not asked.
    lapsed: BTreeSet<NodeId>,
    /// By slot.
    own: Vec<Own>,
    peers: Statements,
    /// Slots with rows to be removed, and from which prefix on.
    waiting: BTreeMap<Slot, Option<u64>>,
    /// The slot that is next to be looked for among them.
    hand: Slot,
    removal: Removal,
    /// Horizons that are being made durable.
    raising: Option<Vec<(Slot, PurgeHorizon)>>,
    round: Round,
    look_at: MonoMicros,
    report_at: MonoMicros,
    reports: u64,
    status: PurgeStatus,
}

impl Purge {
    /// Purging of `node`, whose store has `horizons`. It begins to look around at `now`, by its hybrid clock `clock`.
    #[must_use]
    pub fn new(
        node: NodeId,
        grace: Duration,
        ring: Arc<Ring>,
        horizons: impl Fn(Slot) -> PurgeHorizon,
        now: MonoMicros,
        clock: Hlc,
    ) -> Purge {
        let own = |slot: Slot| {
            let horizon = horizons(slot);
            Own { horizon, counted_at: clock, settled: horizon.purged, verified: Hlc::ZERO }
        };
        let own: Vec<Own> = (0..SLOTS).map(own).collect();
        // Whether the last removal came to its end is not known.
        let begun = (0..SLOTS).zip(&own).filter(|(_, own)| own.horizon.purged > Hlc::ZERO);
        let waiting = begun.map(|(slot, _)| (slot, None)).collect();
        Purge {
            node,
            grace,
            ring,
            lapsed: BTreeSet::new(),
            own,
            peers: Statements::default(),
            waiting,
            hand: 0,
            removal: Removal::Idle { until: now },
            raising: None,
            round: Round::default(),
            look_at: now,
            report_at: now,
            reports: 0,
            status: PurgeStatus::default(),
        }
    }

    /// Uses a new ring.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        if Arc::ptr_eq(&ring, &self.ring) {
            return;
        }
        self.peers.keep_members(&ring);
        self.ring = ring;
    }

    /// Goes on without these members. To be told before any floor of a member that knows no less.
    pub fn set_lapsed(&mut self, lapsed: BTreeSet<NodeId>) {
        self.lapsed = lapsed;
    }

    /// Uses another grace period from now on.
    pub fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// `peer` is down: what it said may be true no more, once it is back.
    pub fn peer_down(&mut self, peer: NodeId) {
        self.peers.forget(peer);
    }

    /// A message of `from` has arrived.
    ///
    /// # Errors
    /// [`Malformed`] bytes are refused; nothing is changed.
    pub fn receive(&mut self, now: MonoMicros, from: NodeId, bytes: &[u8]) -> Result<(), Malformed> {
        let message = PurgeMessage::decode(bytes)?;
        let is_of_peer = self.ring.contains(from) && from != self.node;
        if is_of_peer && self.peers.take(now, from, message) {
            self.look_at = self.look_at.min(now);
        }
        Ok(())
    }

    /// Lets time pass. `verified` is what this node has compared, and `floors` are what members say that they keep nothing
    /// for others before: while there are lapsed members, only of those who are known to refuse their data, too.
    pub fn step(
        &mut self,
        now: Now,
        verified: &Verified,
        floors: &BTreeMap<NodeId, Hlc>,
        effects: &mut Vec<Effect>,
    ) {
        if now.mono >= self.look_at && self.raising.is_none() {
            let floor = self.floor(now, floors);
            self.look(now, verified, floor, effects);
        }
        if now.mono >= self.report_at {
            self.report_at = now.mono + REPORT_EVERY;
            self.report(effects);
        }
        self.remove(now.mono, effects);
    }

    /// Before when no member keeps anything for others; [`Hlc::ZERO`] if that is not known.
    fn floor(&mut self, now: Now, floors: &BTreeMap<NodeId, Hlc>) -> Hlc {
        let old = Hlc::from_millis(now.wall.0.saturating_sub(millis(self.grace)));
        let of = |member: &NodeId| floors.get(member).copied().unwrap_or_default();
        let members = self.ring.members().iter().filter(|member| !self.lapsed.contains(member));
        self.status.keeping = members.clone().copied().filter(|member| of(member) < old).collect();
        members.map(of).min().unwrap_or_default()
    }

    /// Goes on with a round through all slots, and moves what can be moved.
    fn look(&mut self, now: Now, verified: &Verified, floor: Hlc, effects: &mut Vec<Effect>) {
        let first = self.round.next;
        let end = first.saturating_add(SLOTS_PER_LOOK).min(SLOTS);
        let mut raised = Vec::new();
        for slot in first..end {
            if !self.ring.is_replica(self.node, slot) {
                continue;
            }
            self.settle(now.mono, slot, self.compared(verified, slot));
            let Some(own) = self.own.get(usize::from(slot)).copied() else { continue };
            self.round.oldest = Some(self.round.oldest.unwrap_or(own.horizon.hidden).min(own.horizon.hidden));
            let horizon = match self.all(now.mono, slot, own) {
                Some(all) => self.reach(now, slot, own.horizon, all, floor),
                None => own.horizon,
            };
            // What another replica hides is agreed on: the sooner this one does, the less do their trees differ.
            let hidden = horizon.hidden.max(self.hidden_by_others(now.mono, slot));
            let horizon = PurgeHorizon { hidden, ..horizon };
            if horizon != own.horizon {
                raised.push((slot, horizon));
            }
        }
        self.round.next = if end < SLOTS { end } else { 0 };
        self.look_at = now.mono + if end < SLOTS { LOOK_NEXT } else { LOOK_EVERY };
        if end >= SLOTS {
            let Round { silent, oldest, .. } = std::mem::take(&mut self.round);
            self.status.silent = silent.into_iter().collect();
            self.status.oldest_horizon = oldest.unwrap_or_default();
        }
        if !raised.is_empty() {
            self.raising = Some(raised.clone());
            effects.push(Effect::Raise(raised));
        }
    }

    /// Up to when this node has compared `slot` with all other replicas.
    fn compared(&self, verified: &Verified, slot: Slot) -> Hlc {
        let others = others(&self.ring, &self.lapsed, self.node, slot);
        others.map(|&peer| verified.with(slot, peer)).min().unwrap_or(Hlc(u64::MAX))
    }

    /// The slot is compared up to `verified`: if that was begun long enough after all replicas hid what is dead at the
    /// horizon, it is settled.
    fn settle(&mut self, now: MonoMicros, slot: Slot, verified: Hlc) {
        let Some(own) = self.own.get_mut(usize::from(slot)) else { return };
        own.verified = verified;
        if own.settled < own.horizon.counted && verified.millis() >= own.counted_at.millis() + millis(SETTLE)
        {
            own.settled = own.horizon.counted;
            self.report_at = self.report_at.min(now);
        }
    }

    /// The least that all replicas have reached in `slot`; `None` if one of them has not said lately.
    fn all(&mut self, now: MonoMicros, slot: Slot, own: Own) -> Option<SlotReport> {
        let mut all = Some(own.report());
        for &replica in others(&self.ring, &self.lapsed, self.node, slot) {
            let said = self.peers.of(now, replica, slot);
            if said.is_none() {
                self.round.silent.insert(replica);
            }
            all = all.zip(said).map(|(all, said)| all.least(said));
        }
        all
    }

    /// The most that another replica of `slot` hides: it had the word of all for that.
    fn hidden_by_others(&self, now: MonoMicros, slot: Slot) -> Hlc {
        let others = others(&self.ring, &self.lapsed, self.node, slot);
        let said = others.filter_map(|&replica| self.peers.of(now, replica, slot));
        said.map(|said| said.hidden).max().unwrap_or_default()
    }

    /// The horizon of `slot` that what all have reached allows.
    fn reach(&self, now: Now, slot: Slot, own: PurgeHorizon, all: SlotReport, floor: Hlc) -> PurgeHorizon {
        let grace_ms = millis(self.grace);
        let age_limit = now.wall.0.saturating_sub(grace_ms);
        let known_limit = all.verified.min(floor).millis().saturating_sub(grace_ms / MARGIN_PARTS);
        PurgeHorizon {
            hidden: self.leap(slot, age_limit.min(known_limit)).max(own.hidden),
            counted: all.hidden.max(own.counted),
            purged: all.settled.max(own.purged),
        }
    }

    /// The greatest horizon of `slot` that is not after `limit_ms`: all replicas come to the same ones.
    fn leap(&self, slot: Slot, limit_ms: u64) -> Hlc {
        let width = (millis(self.grace) / LEAPS).max(1);
        let group = u64::from(slot) * GROUPS / u64::from(SLOTS);
        let offset = width * group / GROUPS;
        if limit_ms < offset {
            return Hlc::ZERO;
        }
        Hlc::from_millis((limit_ms - offset) / width * width + offset)
    }

    /// The horizons are durable; `false` says that the store failed.
    pub fn raised(&mut self, now: MonoMicros, clock: Hlc, is_stored: bool) {
        let Some(raised) = self.raising.take() else { return };
        if !is_stored {
            self.look_at = now + PAUSE;
            return;
        }
        for (slot, horizon) in raised {
            let Some(own) = self.own.get_mut(usize::from(slot)) else { continue };
            if horizon.counted > own.horizon.counted {
                own.counted_at = clock;
            }
            if horizon.purged > own.horizon.purged {
                self.waiting.insert(slot, None);
            }
            own.horizon = horizon;
        }
        self.report_at = self.report_at.min(now);
    }

    /// Tells every peer what this node has reached in the slots that both keep.
    fn report(&mut self, effects: &mut Vec<Effect>) {
        let reached = |slot: Slot| self.own.get(usize::from(slot)).copied().unwrap_or_default().report();
        let to = reports(&self.ring, self.node, reached);
        self.reports += 1;
        for (peer, reports) in to {
            for message in PurgeMessage::cut(self.reports, &reports) {
                effects.push(Effect::Send { to: peer, bytes: message.encode() });
            }
        }
    }

    /// Goes on with removing rows.
    fn remove(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        self.status.slots_waiting = self.waiting.len();
        if !matches!(self.removal, Removal::Idle { until } if until <= now) {
            return;
        }
        // Round and round, or the first ones would be waited for again before the last have had their turn.
        let next = self.waiting.range(self.hand..).next().or_else(|| self.waiting.first_key_value());
        let Some((&slot, &from)) = next else { return };
        self.hand = slot;
        self.removal = Removal::Running { slot };
        effects.push(Effect::Purge { slot, from, keys: STEP_KEYS });
    }

    /// The step has come to `result` (`None`: it failed) after it `took` so long.
    pub fn purged(&mut self, now: MonoMicros, took: Duration, result: Option<PurgeStep>) {
        let Removal::Running { slot } = self.removal else { return };
        let Some(step) = result else {
            self.removal = Removal::Idle { until: now + PAUSE };
            return;
        };
        self.removal = Removal::Idle { until: now + took * REST };
        self.status.looked_at += step.looked_at as u64;
        self.status.keys += step.keys as u64;
        self.status.rows += step.rows as u64;
        match step.next {
            Some(next) => drop(self.waiting.insert(slot, Some(next))),
            None => {
                self.waiting.remove(&slot);
                self.hand = slot.saturating_add(1);
            }
        }
    }

    /// How long [`step`](Purge::step) has nothing to do, unless something comes in before.
    #[must_use]
    pub fn wait(&self, now: MonoMicros) -> Duration {
        let look = if self.raising.is_some() { now + WAIT_RUNNING } else { self.look_at };
        let remove = match self.removal {
            Removal::Idle { until } if !self.waiting.is_empty() => until,
            _ => now + WAIT_RUNNING,
        };
        look.min(self.report_at).min(remove).since(now)
    }

    /// How purging stands.
    #[must_use]
    pub fn status(&self) -> &PurgeStatus {
        &self.status
    }
}

/// The replicas of `slot` that `node` has to agree with.
fn others<'a>(
    ring: &'a Ring,
    lapsed: &'a BTreeSet<NodeId>,
    node: NodeId,
    slot: Slot,
) -> impl Iterator<Item = &'a NodeId> {
    ring.replicas(slot).iter().filter(move |replica| **replica != node && !lapsed.contains(replica))
}

/// Up to when `node` has compared all slots that it keeps with all their replicas that have not `lapsed`; [`Hlc::ZERO`] if it
/// has not compared some slot with some of them, since it had nothing.
#[must_use]
pub fn compared(verified: &Verified, ring: &Ring, lapsed: &BTreeSet<NodeId>, node: NodeId) -> Hlc {
    let own = (0..SLOTS).filter(|&slot| ring.is_replica(node, slot));
    let times =
        own.flat_map(|slot| others(ring, lapsed, node, slot).map(move |&peer| verified.with(slot, peer)));
    times.min().unwrap_or(Hlc(u64::MAX))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
