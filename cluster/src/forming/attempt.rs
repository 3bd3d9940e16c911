//! Tries: proposing, promising, and how a try ends.

use std::collections::{BTreeMap, BTreeSet};

use gyre_storage::key::murmur3_128;

use super::{Ballot, Effect, Forming, FormingMessage, Promise, STATUS_MS};
use crate::node::NodeId;
use crate::time::MonoMicros;
use crate::topology::Member;

/// How long a try waits for nodes outside the core, in milliseconds.
pub(super) const PATIENCE_MS: u64 = 1_000;
/// How long a try waits for the core, in milliseconds.
pub(super) const ATTEMPT_MS: u64 = 4_000;
/// The shortest pause after a try that failed, in milliseconds; as much again is added at random.
const BACKOFF_MS: u64 = 500;
/// A core that is complete waits at most this many settle times for the nodes around it to settle.
const SETTLES_MAX: u64 = 5;

/// A try under way.
#[derive(Debug)]
pub(super) struct Attempt {
    ballot: Ballot,
    since: MonoMicros,
    asked_at: Option<MonoMicros>,
    /// Everyone asked, and whether they have promised.
    pub(super) asked: BTreeMap<NodeId, bool>,
}

/// Since when who would be asked has been the same.
#[derive(Debug, Default)]
pub(super) struct Settling {
    core: BTreeMap<NodeId, u64>,
    core_since: MonoMicros,
    guests: BTreeMap<NodeId, u64>,
    guests_since: MonoMicros,
}

impl Forming {
    /// Another node asks for this node's promise.
    pub(super) fn proposed(&mut self, now: MonoMicros, asked: Promise, effects: &mut Vec<Effect>) {
        let (ballot, me) = (asked.ballot, self.options.member.id);
        let bound_to = match &self.promise {
            Some(held) if self.view.is_over(&held.ballot) => None,
            Some(held) if held.ballot.proposer == ballot.proposer => {
                // The proposer runs one try at a time: a later one says that the earlier is over.
                let order = |ballot: &Ballot| (ballot.incarnation, ballot.attempt);
                if order(&ballot) < order(&held.ballot) {
                    return;
                }
                None
            }
            Some(held) => Some(held.ballot.proposer),
            None if self.attempt.is_some() && me < ballot.proposer => Some(me),
            None => None,
        };
        let message = if let Some(holder) = bound_to {
            FormingMessage::Busy { ballot, holder }
        } else {
            // A node that proposes itself yields to the lower id: its own try is over before the promise is given.
            self.end_attempt(now);
            if self.promise.as_ref() != Some(&asked) {
                self.promise = Some(asked.clone());
                effects.push(Effect::SavePromise(asked));
            }
            FormingMessage::Accept { ballot }
        };
        effects.push(Effect::Send { to: ballot.proposer, message });
    }

    pub(super) fn accepted(&mut self, from: NodeId, ballot: Ballot) {
        if let Some(attempt) = &mut self.attempt
            && attempt.ballot == ballot
            && let Some(has_promised) = attempt.asked.get_mut(&from)
        {
            *has_promised = true;
        }
    }

    /// `from` is bound to `holder`. A node outside the core is left out; for one of the core, the higher id yields.
    pub(super) fn turned_down(&mut self, now: MonoMicros, from: NodeId, ballot: Ballot, holder: NodeId) {
        let Ok(core) = self.core(now) else { return };
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.ballot != ballot {
            return;
        }
        if core.is_none_or(|core| core.contains(&from)) {
            if holder < self.options.member.id {
                self.end_attempt(now);
            }
        } else if attempt.asked.get(&from) == Some(&false) {
            attempt.asked.remove(&from);
            self.shunned.insert(from, now.plus_millis(ATTEMPT_MS));
        }
    }

    /// Ends the try under way: with a cluster if it has all it needs, without if its time is up.
    pub(super) fn conclude(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let Some(attempt) = &self.attempt else { return };
        let age = now.micros_since(attempt.since) / 1_000;
        let promised: BTreeSet<NodeId> =
            attempt.asked.iter().filter(|&(_, &accepted)| accepted).map(|(&node, _)| node).collect();
        let me = self.options.member.id;
        // Seen again at this very moment: nobody may have gone, and nobody's seeds may have changed.
        let has_core = matches!(self.core(now), Ok(Some(core))
            if core.iter().all(|node| *node == me || promised.contains(node)));
        let has_time = age < PATIENCE_MS && promised.len() < attempt.asked.len();
        if has_core && !has_time {
            let seated = promised.iter().filter_map(|&node| self.view.latest(node));
            let seated: Vec<Member> = seated.map(|status| status.member.clone()).collect();
            let topology = self.document(attempt.ballot.cluster_id, seated);
            self.adopt(topology.clone(), false, effects);
            for to in promised {
                let message = FormingMessage::Document(Box::new(topology.clone()));
                effects.push(Effect::Send { to, message });
            }
        } else if age >= ATTEMPT_MS {
            self.end_attempt(now);
        }
    }

    /// Begins a try if this is the node to do so and everything has settled.
    pub(super) fn propose(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let me = self.options.member.id;
        let (Ok(Some(core)), None, None) = (self.core(now), &self.promise, &self.attempt) else {
            self.settling = Settling::default();
            return;
        };
        let guests = self.guests(now, &core);
        self.settle(now, &core, &guests);
        let settled_ms = |since: MonoMicros| now.micros_since(since) / 1_000;
        let is_settled = settled_ms(self.settling.core_since) >= self.options.settle_ms
            && (settled_ms(self.settling.guests_since) >= self.options.settle_ms
                || settled_ms(self.settling.core_since) >= SETTLES_MAX * self.options.settle_ms);
        if !self.is_chosen(&core) || !is_settled || now < self.retry_at {
            return;
        }
        self.attempts += 1;
        let ballot = Ballot {
            proposer: me,
            incarnation: self.options.member.incarnation,
            attempt: self.attempts,
            cluster_id: self.cluster_id(self.attempts),
        };
        let asked =
            core.iter().chain(&guests).filter(|&&node| node != me).map(|&node| (node, false)).collect();
        self.attempt = Some(Attempt { ballot, since: now, asked_at: None, asked });
        // A node whose only seed is itself needs nobody's promise.
        self.conclude(now, effects);
    }

    /// Whether it is for this node to propose.
    fn is_chosen(&self, core: &BTreeSet<NodeId>) -> bool {
        #[cfg(test)]
        if self.is_rival {
            return true;
        }
        core.first() == Some(&self.options.member.id)
    }

    fn settle(&mut self, now: MonoMicros, core: &BTreeSet<NodeId>, guests: &BTreeSet<NodeId>) {
        let incarnations = |nodes: &BTreeSet<NodeId>| -> BTreeMap<NodeId, u64> {
            let incarnation = |node| self.view.latest(node).map_or(0, |status| status.member.incarnation);
            nodes.iter().map(|&node| (node, incarnation(node))).collect()
        };
        let (core, guests) = (incarnations(core), incarnations(guests));
        if core != self.settling.core {
            (self.settling.core, self.settling.core_since) = (core, now);
        }
        if guests != self.settling.guests {
            (self.settling.guests, self.settling.guests_since) = (guests, now);
        }
        self.settling.guests_since = self.settling.guests_since.max(self.settling.core_since);
    }

    /// Asks those who have not promised, again and again.
    pub(super) fn ask(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.asked_at.is_some_and(|at| now.micros_since(at) < STATUS_MS * 1_000) {
            return;
        }
        attempt.asked_at = Some(now);
        let replication_factor = self.options.replication_factor;
        for (&to, _) in attempt.asked.iter().filter(|&(_, &accepted)| !accepted) {
            let (ballot, addr) = (attempt.ballot, self.options.member.peer_addr.clone());
            let message = FormingMessage::Propose { ballot, addr, replication_factor };
            effects.push(Effect::Send { to, message });
        }
    }

    /// The try under way, if any, is over; everyone is told at once.
    pub(super) fn end_attempt(&mut self, now: MonoMicros) {
        if self.attempt.take().is_some() {
            let jitter = u64::try_from(self.cluster_id(self.attempts) % u128::from(BACKOFF_MS)).unwrap_or(0);
            self.retry_at = now.plus_millis(BACKOFF_MS + jitter);
            self.has_news = true;
        }
    }

    /// The id of the cluster that try number `attempt` is to form. Never zero.
    pub(super) fn cluster_id(&self, attempt: u64) -> u128 {
        let mut seed = [0u8; 24];
        let (random, number) = seed.split_at_mut(16);
        random.copy_from_slice(&self.options.random.to_le_bytes());
        number.copy_from_slice(&attempt.to_le_bytes());
        murmur3_128(&seed).max(1)
    }
}
