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
//! A replica hides nothing more in a slot before it has removed what is counted: a counter that began at nothing beside a tombstone
//! must not become as old as the next horizon while that still is there, and be taken for a part of what is dead.
//!
//! Every statement is one of facts that stay true, so there is no round, no leader and no vote: each replica takes the
//! least of what all of them say, whenever that rises, and hides what another one hides already. Horizons move in leaps of a
//! third of the grace period, the same for all replicas, and slots take turns, since trees are hashed anew where one moves.
//!
//! It is a state machine: the shell calls [`step`](Purge::step) now and then (see [`wait`](Purge::wait)), hands messages and
//! results in, and carries the effects out.

pub mod absence;
mod agreement;
mod api;
pub mod kept;
mod message;
mod removal;
mod statements;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Hlc, PurgeHorizon, SLOTS, Slot};

pub use agreement::compared;
pub use api::{Effect, PurgeStatus};
pub use message::{PurgeMessage, Report, SlotReport};
use removal::{Pass, Removal};
use statements::{Statements, reports};

use crate::node::NodeId;
use crate::repair::Verified;
use crate::ring::Ring;
use crate::time::{MonoMicros, Now};
use crate::wire::Malformed;

/// How old a deletion must be before its record may go, unless configured otherwise.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(72 * 3600);
/// How often a replica says what it has reached, at the latest.
const REPORT_EVERY: Duration = Duration::from_secs(30);
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
    /// Up to when nothing dead is left on its disk.
    removed: Hlc,
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
    /// Slots with rows to be removed, and how far that is.
    waiting: BTreeMap<Slot, Pass>,
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
            Own {
                horizon,
                counted_at: clock,
                settled: horizon.purged,
                removed: Hlc::ZERO,
                verified: Hlc::ZERO,
            }
        };
        let own: Vec<Own> = (0..SLOTS).map(own).collect();
        // Whether the last removal came to its end is not known.
        let begun = (0..SLOTS).zip(&own).filter(|(_, own)| own.horizon.purged > Hlc::ZERO);
        let waiting = begun.map(|(slot, own)| (slot, Pass::of(own.horizon.purged))).collect();
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
                self.waiting.insert(slot, Pass::of(horizon.purged));
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
