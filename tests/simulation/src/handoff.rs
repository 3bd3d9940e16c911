//! The shell of hinted handoff: carries out what the production core decides, with the store and a coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gyre_cluster::coordinator::Tag;
use gyre_cluster::hints::{Effect, Handed, Handoff, HandoffConfig};
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::ring::Ring;
use gyre_cluster::time::MonoMicros;
use gyre_storage::{Hint, Store};

use crate::event::{Event, NodeLocal};
use crate::gossip;
use crate::mutation::Mutation;
use crate::network::WORKERS;
use crate::node::{Node, Process, node_id};
use crate::queue::Micros;
use crate::surroundings::Env;

/// Marks the tags of hand-overs; behind it the node's index, then a number.
const HAND_OVER: u64 = 1 << 63;
const NODE_SHIFT: u32 = 40;

/// Hints wait for this part of the grace period, as they do by default.
const WINDOW_PARTS: Micros = 24;

/// Handoff as one process runs it.
pub(crate) struct Replay {
    pub(crate) core: Handoff,
    under_way: BTreeMap<u64, (NodeId, Hint)>,
    last_tag: u64,
}

impl Replay {
    pub(crate) fn new(
        node: NodeId,
        actor: u64,
        ring: Arc<Ring>,
        now: MonoMicros,
        grace: Option<Micros>,
    ) -> Replay {
        let mut config = HandoffConfig::new(node, actor);
        if let Some(grace) = grace {
            config.window = Duration::from_micros(grace / WINDOW_PARTS);
        }
        let core = Handoff::new(config, ring, now);
        Replay { core, under_way: BTreeMap::new(), last_tag: 0 }
    }
}

/// The node whose hand-over `tag` is; `None` if it is a client's operation.
pub(crate) fn node_of(tag: Tag) -> Option<usize> {
    (tag.0 & HAND_OVER != 0).then_some(((tag.0 & !HAND_OVER) >> NODE_SHIFT) as usize)
}

impl Node {
    /// Lets handoff go on, and comes again.
    pub(crate) fn replay_and_wait(&mut self, env: &mut Env) {
        self.replay(env);
        let Some(process) = &self.process else { return };
        let wait = process.replay.core.wait().max(Duration::from_millis(1)).as_micros() as u64;
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Handoff };
        env.queue.after(wait, event);
    }

    fn replay(&mut self, env: &mut Env) {
        let now = self.now(env.queue.now());
        let mut effects = Vec::new();
        loop {
            let Some(Process { store, replay, .. }) = &mut self.process else { return };
            replay.core.step(now, &store.hint_stats(), &mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in std::mem::take(&mut effects) {
                self.carry_out(env, effect);
            }
        }
    }

    fn carry_out(&mut self, env: &mut Env, effect: Effect) {
        let now = MonoMicros(env.queue.now());
        let Some(Process { store, replay, .. }) = &mut self.process else { return };
        match effect {
            Effect::ReadPage { target, after, limit } => {
                let page = store.hints_page(target.0, after.as_ref(), limit).ok();
                replay.core.page(now, target, page);
            }
            Effect::HandOff { target, hint } => self.hand_over(env, target, &hint),
            Effect::Drop { target, handed } => {
                forget(store, target, handed);
                replay.core.dropped(target);
            }
            Effect::Close { target } => store.close_hints(target.0, true),
            Effect::Open { target } => store.close_hints(target.0, false),
            Effect::Expire { pass, before, limit } => {
                let expired = store.hint_counts().expired;
                let pass = store.expire_hints(pass, before, limit).ok().flatten();
                if store.hint_counts().expired > expired {
                    env.owed.hints_gone(env.queue.now());
                }
                replay.core.expired(now, pass);
            }
        }
    }

    fn hand_over(&mut self, env: &mut Env, target: NodeId, hint: &Hint) {
        let Some(Process { store, replay, .. }) = &mut self.process else { return };
        if env.mutation == Some(Mutation::HintDroppedEarly) {
            let _ = store.drop_hints(target.0, std::slice::from_ref(hint));
        }
        replay.last_tag += 1;
        let number = replay.last_tag;
        replay.under_way.insert(number, (target, hint.clone()));
        let tag = Tag(HAND_OVER | (self.index as u64) << NODE_SHIFT | number);
        let worker = number as usize % WORKERS;
        self.step(env, worker, |core, shell, now| core.hand_off(shell, now, tag, target, hint.key()));
        env.handed_over += 1;
    }

    /// A hand-over has ended.
    pub(crate) fn handed(&mut self, env: &mut Env, tag: Tag, outcome: &Outcome) {
        let number = tag.0 & ((1 << NODE_SHIFT) - 1);
        let Some(Process { replay, .. }) = &mut self.process else { return };
        let Some((target, hint)) = replay.under_way.remove(&number) else { return };
        let record = if let Outcome::HandedOff(record) = outcome { Some(record.clone()) } else { None };
        replay.core.handed(MonoMicros(env.queue.now()), target, hint, record);
        self.replay(env);
    }

    /// A link to `peer` has come or gone, or what gossip says of it: it counts as alive while all workers have a link and
    /// nobody suspects it.
    pub(crate) fn peer_changed(&mut self, env: &mut Env, peer: usize) {
        self.repair_peer_changed(env, peer);
        let Some(Process { replay, membership, .. }) = &mut self.process else { return };
        if gossip::is_alive(&env.network, membership, self.index, peer) {
            replay.core.peer_up(node_id(peer));
        } else {
            replay.core.peer_down(MonoMicros(env.queue.now()), node_id(peer));
            self.purge_peer_down(peer);
        }
    }
}

fn forget(store: &Store, target: NodeId, handed: Vec<Handed>) {
    let hints: Vec<Hint> = handed.iter().map(|handed| handed.hint.clone()).collect();
    let _ = store.drop_hints(target.0, &hints);
    for Handed { hint, forget } in handed {
        if let Some(record) = forget {
            let _ = store.forget(hint.key(), &record);
        }
    }
}

/// Under a mutation: removes all hints of a store, as if they had been kept in memory only.
pub(crate) fn lose_hints(store: &Store) {
    for stats in store.hint_stats() {
        let hints = store.hints_page(stats.target, None, usize::MAX).unwrap_or_default();
        let _ = store.drop_hints(stats.target, &hints);
    }
}
