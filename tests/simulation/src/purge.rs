//! The shell of purging: carries out what the production core decides, with the store, gossip and the network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::kept::{self, Keeper};
use gyre_cluster::purge::{Effect, Purge, compared};
use gyre_cluster::ring::Ring;
use gyre_cluster::time::{MonoMicros, Now};
use gyre_storage::{Hlc, KeyRef, PREFIX_END, PurgeHorizon, Record, Slot, Store};

use crate::event::{Event, NodeLocal};
use crate::gossip;
use crate::lapse::Document;
use crate::mutation::{Distortion, Mutation};
use crate::network::WorkerAt;
use crate::node::{Node, Process, node_id};
use crate::queue::{MS, Micros, SECOND};
use crate::surroundings::Env;

/// What replicas say travels on the links of this worker.
const SAYING_WORKER: usize = 0;
/// How long a step of purging takes.
const STEP_TIME: Duration = Duration::from_micros(100);
/// How often is looked whether the node has a time.
const BEGIN_CHECK: Micros = 200 * MS;
/// How often a node looks what it keeps for others, in parts of the grace period.
const FLOOR_PARTS: u64 = 24;

/// Purging as one process runs it.
pub(crate) struct Purging {
    core: Purge,
    keeper: Keeper,
    grace: Micros,
    /// Before when this node keeps nothing for others, and when it looked.
    pub(crate) floor: Option<Hlc>,
    floor_at: Micros,
    /// When all that is old goes next, under a mutation.
    by_age_at: Micros,
    ring: Arc<Ring>,
}

impl Purging {
    pub(crate) fn new(
        keeper: Keeper,
        grace: Micros,
        store: &Store,
        ring: &Arc<Ring>,
        now: MonoMicros,
        clock: Hlc,
    ) -> Purging {
        let horizons = |slot| store.purge_horizon(slot);
        let grace_time = Duration::from_micros(grace);
        let core = Purge::new(keeper.node, grace_time, Arc::clone(ring), horizons, now, clock);
        Purging { core, keeper, grace, floor: None, floor_at: 0, by_age_at: 0, ring: Arc::clone(ring) }
    }
}

impl Node {
    /// Lets purging go on, and comes again. Does nothing while it is off.
    pub(crate) fn purge_and_wait(&mut self, env: &mut Env) {
        let Some(grace) = env.grace else { return };
        let now = self.now(env.queue.now());
        let mut effects = Vec::new();
        loop {
            let Some(Process { store, hlc, ring, keeper, purging, membership, document, repair, .. }) =
                &mut self.process
            else {
                return;
            };
            if !hlc.is_settled() {
                // How old anything is only the time can tell.
                return self.purge_after(env, BEGIN_CHECK);
            }
            let clock = hlc.mark(now.wall);
            let purging =
                purging.get_or_insert_with(|| Purging::new(*keeper, grace, store, ring, now.mono, clock));
            let lapsed = document.as_ref().map(Document::lapsed).unwrap_or_default();
            let is_whole = || compared(repair.verified(), ring, &lapsed, keeper.node) > Hlc::ZERO;
            let has_looked = purging.look_around(store, now, clock, is_whole);
            membership.tell(now.mono, |about| about.floor = purging.floor);
            let floors = membership.floors(now.mono, keeper.node, purging.floor, !lapsed.is_empty());
            purging.core.set_lapsed(lapsed);
            if env.mutation == Some(Mutation::HorizonNotAgreed) {
                let peers = (0..env.network.nodes).filter(|&peer| peer != self.index);
                let is_down = |&peer: &usize| !gossip::is_alive(&env.network, membership, self.index, peer);
                purging.core.set_lapsed(peers.filter(is_down).map(node_id).collect());
            }
            purging.core.step(now, repair.verified(), &floors, &mut effects);
            if has_looked && env.mutation == Some(Mutation::PurgedByAge) {
                self.purge_by_age(env, now);
            }
            if effects.is_empty() {
                break;
            }
            for effect in std::mem::take(&mut effects) {
                self.carry_out_purge(env, now, effect);
            }
        }
        let Some(Process { purging: Some(purging), .. }) = &self.process else { return };
        let wait = purging.core.wait(now.mono).as_micros() as u64;
        self.purge_after(env, wait);
    }

    fn purge_after(&self, env: &mut Env, wait: Micros) {
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Purge };
        env.queue.after(wait.max(MS), event);
    }

    fn carry_out_purge(&mut self, env: &mut Env, now: Now, effect: Effect) {
        let index = self.index;
        let Some(Process { store, hlc, distortion, purging: Some(purging), .. }) = &mut self.process else {
            return;
        };
        match effect {
            Effect::Send { to, bytes } => {
                let clock = hlc.now();
                let at = WorkerAt { node: index, worker: SAYING_WORKER };
                let Env { queue, random, network, names, .. } = env;
                network.send(queue, random, at, names[&to], &Message::Purge { bytes: &bytes }, clock);
            }
            Effect::Raise(raised) => {
                let is_stored = store.raise_purge_horizons(&raised).is_ok();
                purging.core.raised(now.mono, hlc.mark(now.wall), is_stored);
                raised
                    .iter()
                    .filter(|_| is_stored)
                    .for_each(|&(slot, horizon)| env.hide(slot, horizon.hidden));
            }
            Effect::Purge { slots, keys } => {
                let steps = store.purge_slots(&slots, keys).ok();
                for ((slot, _), step) in slots.iter().zip(steps.iter().flatten()) {
                    env.purged += step.keys as u64;
                    if step.keys > 0 {
                        distortion.purged(store, *slot);
                    }
                }
                purging.core.purged(now.mono, STEP_TIME, steps);
            }
        }
    }

    /// A statement has come from `from`.
    pub(crate) fn told_of_purging(&mut self, env: &Env, from: NodeId, bytes: &[u8]) {
        let now = MonoMicros(env.queue.now());
        if let Some(Process { purging: Some(purging), .. }) = &mut self.process {
            purging.core.receive(now, from, bytes).expect("what was encoded can be decoded");
        }
    }

    /// `peer` counts as down.
    pub(crate) fn purge_peer_down(&mut self, peer: usize) {
        if let Some(Process { purging: Some(purging), .. }) = &mut self.process {
            purging.core.peer_down(node_id(peer));
        }
    }

    /// Under a mutation: whatever is old enough goes.
    fn purge_by_age(&mut self, env: &mut Env, now: Now) {
        let Some(Process { store, purging: Some(purging), .. }) = &mut self.process else { return };
        if now.mono.0 < purging.by_age_at {
            return;
        }
        purging.by_age_at = now.mono.0 + 60 * SECOND;
        let old = Hlc::from_millis(now.wall.0 - purging.grace / 1_000);
        let horizon = PurgeHorizon { hidden: old, counted: old, purged: old };
        for &slot in &env.slots {
            if store.raise_purge_horizons(&[(slot, horizon)]).is_ok() {
                env.purged += store.purge(slot, None, usize::MAX).map_or(0, |step| step.keys as u64);
            }
        }
        let slots = env.slots.clone();
        slots.into_iter().for_each(|slot| env.hide(slot, old));
    }
}

impl Purging {
    /// Looks now and then what this node keeps for others, once it has all that it should. Answers whether it did.
    fn look_around(&mut self, store: &Store, now: Now, clock: Hlc, is_whole: impl FnOnce() -> bool) -> bool {
        let every = if self.floor.is_some() { self.grace / FLOOR_PARTS } else { 0 };
        if self.floor_at > 0 && now.mono.0 < self.floor_at + every.max(10 * SECOND) {
            return false;
        }
        self.floor_at = now.mono.0;
        if !is_whole() {
            return false;
        }
        let forget_before = Hlc::from_millis(clock.millis() - self.grace / 2_000);
        self.floor = kept::floor(store, &self.ring, self.keeper, clock, forget_before).ok();
        true
    }
}

impl Node {
    /// What is on its disk though it was dead at `clock`; `None` if nothing is.
    pub(crate) fn dead_left(&self, clock: Hlc) -> Option<String> {
        let page =
            self.with_store(|store| store.scan(None, 0, PREFIX_END, usize::MAX, usize::MAX, true)).ok()?;
        let has_rows = |name: &[u8], record: &Record| record.rows(KeyRef::new(0, name)).next().is_some();
        let (_, name, record) = page.entries.into_iter().find(|(_, name, record)| {
            has_rows(name, record) && !has_rows(name, &record.without_dead(clock))
        })?;
        let status = self.process.as_ref()?.purging.as_ref().map(|purging| purging.core.status().clone());
        let name = String::from_utf8_lossy(&name).into_owned();
        Some(format!("node {} still has {record:?} of {name}, dead long ago: {status:?}", self.index))
    }
}

impl Distortion {
    /// Under a mutation: of the keys of `slot` that were just removed only the tombstone has gone.
    fn purged(&mut self, store: &Store, slot: Slot) {
        let Distortion::Kept(kept) = self else { return };
        for (name, record) in kept.iter() {
            let key = KeyRef::new(0, name);
            if key.slot() == slot && store.read(key).is_ok_and(|record| record.base().hlc == Hlc::ZERO) {
                let mut batch = store.batch();
                record.rows(key).for_each(|row| batch.push(&row));
                // A disk that fails keeps nothing either.
                let _ = store.commit(&mut batch);
            }
        }
    }
}

/// Up to when replicas hide what is dead, by slot.
pub(crate) type Hidden = BTreeMap<Slot, Hlc>;
