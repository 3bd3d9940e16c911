//! How far horizons can move: what all replicas of a slot have reached.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gyre_storage::{Hlc, PurgeHorizon, SLOTS, Slot};

use super::api::Effect;
use super::message::SlotReport;
use super::{Own, Purge, Round, millis};
use crate::node::NodeId;
use crate::repair::Verified;
use crate::ring::Ring;
use crate::time::{MonoMicros, Now};

/// In how many leaps a horizon moves through the grace period.
const LEAPS: u64 = 3;
/// How many groups of neighbouring slots take turns.
const GROUPS: u64 = 64;
/// How often is looked whether horizons can move: after this part of the grace period, within bounds.
const LOOK_PARTS: u32 = 100;
const LOOK_EVERY_MIN: Duration = Duration::from_secs(10);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);
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

impl Purge {
    /// Before when no member keeps anything for others; [`Hlc::ZERO`] if that is not known.
    pub(super) fn floor(&mut self, now: Now, floors: &BTreeMap<NodeId, Hlc>) -> Hlc {
        let old = Hlc::from_millis(now.wall.0.saturating_sub(millis(self.grace)));
        let of = |member: &NodeId| floors.get(member).copied().unwrap_or_default();
        let members = self.ring.members().iter().filter(|member| !self.lapsed.contains(member));
        self.status.keeping = members.clone().copied().filter(|member| of(member) < old).collect();
        members.map(of).min().unwrap_or_default()
    }

    /// Goes on with a round through all slots, and moves what can be moved.
    pub(super) fn look(&mut self, now: Now, verified: &Verified, floor: Hlc, effects: &mut Vec<Effect>) {
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
            let (all, hidden_by_some) = self.said_by_all(now.mono, slot, own);
            let horizon = match all {
                Some(all) => self.reach(now, slot, own.horizon, all, floor),
                None => own.horizon,
            };
            // What another replica hides is agreed on: the sooner this one does, the less do their trees differ.
            let may_hide = own.removed >= own.horizon.counted;
            let most = if may_hide { horizon.hidden.max(hidden_by_some) } else { own.horizon.hidden };
            let horizon = PurgeHorizon { hidden: most, ..horizon };
            if horizon != own.horizon {
                raised.push((slot, horizon));
            }
        }
        self.round.next = if end < SLOTS { end } else { 0 };
        self.look_at = now.mono + if end < SLOTS { LOOK_NEXT } else { self.look_every() };
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

    /// How often is looked whether horizons can move.
    fn look_every(&self) -> Duration {
        (self.grace / LOOK_PARTS).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
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

    /// The least that all replicas have reached in `slot`, `None` if one of them has not said lately; and the most that
    /// another one hides, which had the word of all for that.
    fn said_by_all(&mut self, now: MonoMicros, slot: Slot, own: Own) -> (Option<SlotReport>, Hlc) {
        let (mut all, mut hidden_by_some) = (Some(own.report()), Hlc::ZERO);
        for &replica in others(&self.ring, &self.lapsed, self.node, slot) {
            let said = self.peers.of(now, replica, slot);
            match said {
                Some(said) => hidden_by_some = hidden_by_some.max(said.hidden),
                None => drop(self.round.silent.insert(replica)),
            }
            all = all.zip(said).map(|(all, said)| all.least(said));
        }
        (all, hidden_by_some)
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
