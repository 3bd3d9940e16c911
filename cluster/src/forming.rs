//! Forming: how fresh nodes become one cluster.
//!
//! A node without seeds forms a cluster of one. A node that has a topology on disk belongs to it and never forms.
//! A fresh node with seeds either is admitted to a cluster that some reachable node belongs to, or forms one together
//! with the other fresh nodes:
//!
//! 1. Fresh nodes send each other their [`Status`] all the time. From them each works out its *core*: itself, the
//!    nodes its seeds lead to, the nodes their seeds lead to, and so on. While anyone in it is not heard, or reports a
//!    seed that it cannot reach, nothing is formed.
//! 2. When the core has been complete and unchanged for a while, its lowest id, if all of the core's seeds lead back to
//!    it, proposes: it asks the core, and all other fresh nodes that it hears, for their [`Promise`].
//! 3. A node promises itself to one try at a time, and writes the promise to disk before it says so. It gives it up
//!    only when the proposer says that the try is over ([`Status::ended`]) or has started again, still fresh, under a
//!    new incarnation; or when it finds a cluster that has formed.
//! 4. When everyone in the core has promised (and the others have, or had their time), the proposer writes the
//!    topology to disk. That write is the birth of the cluster. The document then goes to everyone, and to whoever
//!    later says that it is still fresh.
//!
//! This is two-phase commit (Gray 1978) whose coordinator forgets its undecided tries when it restarts ("presumed
//! abort", Mohan and Lindsay 1983). It blocks while the proposer is down between promise and outcome; but the proposer
//! is a seed of a seed of everyone in the core, and no cluster may form while such a node is unreachable anyway.
//!
//! # Why there is never a second cluster
//! The nodes that promised include a set that is closed under "is a seed of". If every two such sets have a node in
//! common, that node would have had to promise itself to both clusters. They do have one if every two seed lists do, or
//! if all lists lead to one group of nodes that lead to each other: one list for all, a chain, a circle. Lists may
//! change when nodes start again, as long as this holds of the old and the new ones together. It is impossible to do
//! better: two groups of nodes that name only themselves cannot know of each other when one of them starts first. For
//! the same reason a node whose only seed is itself, and which loses its disk, forms a second cluster unless a member
//! of the first reaches it in time: name more than one seed.
//!
//! # A node that lost its disk
//! comes back under its id if the operator has configured that id: a member tells it the document, in which it finds
//! itself with data that it does not have. It asks for its seat as the incarnation after the seat's
//! ([`Topology::admit`]) and is told [`Effect::Join`] with the word that it is empty. Under another id it is a new node.
//!
//! A promise to a proposer that is lost for good, disk and all, binds until the data directory (which holds nothing
//! else yet) is removed; [`Waiting::Promise`] names the proposer for the log.

mod api;
mod greet;
mod message;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use gyre_storage::key::murmur3_128;

pub use self::api::{Effect, Event, FormingOptions, Promise, Saved, Waiting};
pub use self::greet::{greet, is_request_for_seat};
pub use self::message::{Ballot, FORMING_NODES_MAX, FormingMessage, Refusal, SEEDS_MAX, SeedView, Status};
use self::view::View;
use crate::node::NodeId;
use crate::time::MonoMicros;
use crate::topology::{Endpoint, Member, MemberState, Topology};

/// How often statuses and unanswered proposals are sent, in milliseconds.
pub const STATUS_MS: u64 = 250;
/// The shortest time between two statuses, in milliseconds.
const NEWS_MS: u64 = 20;
/// For how long a node counts as reachable after its last status, in milliseconds.
pub const ALIVE_MS: u64 = 2_000;
/// How long a try waits for nodes outside the core, in milliseconds.
const PATIENCE_MS: u64 = 1_000;
/// How long a try waits for the core, in milliseconds.
const ATTEMPT_MS: u64 = 4_000;
/// The shortest pause after a try that failed, in milliseconds; as much again is added at random.
const BACKOFF_MS: u64 = 500;
/// A core that is complete waits at most this many settle times for the nodes around it to settle.
const SETTLES_MAX: u64 = 5;

/// The machine of a node that does not belong to a cluster yet.
#[derive(Debug)]
pub struct Forming {
    options: FormingOptions,
    seeds: Vec<SeedView>,
    view: View,
    /// The promise that binds this node.
    promise: Option<Promise>,
    attempt: Option<Attempt>,
    /// How many tries this incarnation has begun; all but the current one are over.
    attempts: u64,
    retry_at: MonoMicros,
    /// Nodes outside the core that were bound elsewhere: not asked again until then.
    shunned: BTreeMap<NodeId, MonoMicros>,
    settling: Settling,
    seq: u64,
    status_at: Option<MonoMicros>,
    /// Whether the last status is out of date.
    has_news: bool,
    is_done: bool,
    /// The node has lost its disk and has asked for its seat, as the incarnation that its options now name.
    is_returning: bool,
    /// Proposes although there is a lower id: rivals for the simulation, since complete views name one proposer.
    #[cfg(test)]
    is_rival: bool,
}

/// A try under way.
#[derive(Debug)]
struct Attempt {
    ballot: Ballot,
    since: MonoMicros,
    asked_at: Option<MonoMicros>,
    /// Everyone asked, and whether they have promised.
    asked: BTreeMap<NodeId, bool>,
}

/// Since when who would be asked has been the same.
#[derive(Debug, Default)]
struct Settling {
    core: BTreeMap<NodeId, u64>,
    core_since: MonoMicros,
    guests: BTreeMap<NodeId, u64>,
    guests_since: MonoMicros,
}

impl Forming {
    /// The machine of a node that starts at `now`. It may be done at once: see `effects`.
    pub fn start(
        mut options: FormingOptions,
        saved: Saved,
        now: MonoMicros,
        effects: &mut Vec<Effect>,
    ) -> Forming {
        options.seeds.truncate(SEEDS_MAX);
        let seeds = options.seeds.iter().map(|addr| SeedView { addr: addr.clone(), node: None }).collect();
        let mut forming = Forming {
            options,
            seeds,
            view: View::default(),
            promise: None,
            attempt: None,
            attempts: 0,
            retry_at: now,
            shunned: BTreeMap::new(),
            settling: Settling::default(),
            seq: 0,
            status_at: None,
            has_news: true,
            is_done: false,
            is_returning: false,
            #[cfg(test)]
            is_rival: false,
        };
        match saved {
            Saved::Topology(topology) => forming.adopt(topology, false, effects),
            Saved::Promise(promise) => forming.promise = Some(promise),
            Saved::Nothing if forming.seeds.is_empty() => {
                let alone = forming.document(forming.cluster_id(0), []);
                forming.adopt(alone, false, effects);
            }
            Saved::Nothing => {}
        }
        forming
    }

    /// Whether the node belongs to a cluster: [`Effect::Join`] has been given.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes one event at `now` and appends what is to be done.
    pub fn step(&mut self, now: MonoMicros, event: Event, effects: &mut Vec<Effect>) {
        if self.is_done {
            return;
        }
        match event {
            Event::SeedResolved { seed, node } => self.resolve(seed, Some(node)),
            Event::SeedIsSelf { seed } => self.resolve(seed, Some(self.options.member.id)),
            Event::SeedLost { seed } => self.resolve(seed, None),
            Event::Message { from, message } => self.message(now, from, message, effects),
            Event::Tick => {}
        }
        self.advance(now, effects);
    }

    /// What the node is waiting for.
    #[must_use]
    pub fn waiting(&self, now: MonoMicros) -> Waiting {
        if self.is_done {
            return Waiting::Done;
        }
        if let Some(promise) = &self.promise {
            return Waiting::Promise(Box::new(promise.clone()));
        }
        if let Some(attempt) = &self.attempt {
            return Waiting::Agreement {
                missing: attempt.asked.values().filter(|&&accepted| !accepted).count(),
            };
        }
        let me = self.options.member.id;
        match self.core(now) {
            Err(missing) => missing,
            Ok(None) => Waiting::Invitation,
            Ok(Some(core)) => match core.first() {
                Some(&lowest) if lowest != me => Waiting::Proposal { from: lowest },
                _ => Waiting::Settling { nodes: core.len() + self.guests(now, &core).len() },
            },
        }
    }

    fn resolve(&mut self, seed: usize, node: Option<NodeId>) {
        if let Some(seed) = self.seeds.get_mut(seed)
            && seed.node != node
        {
            seed.node = node;
            self.has_news = true;
        }
    }

    fn message(&mut self, now: MonoMicros, from: NodeId, message: FormingMessage, effects: &mut Vec<Effect>) {
        match message {
            FormingMessage::Status(status) if status.member.id == from => {
                if self.view.hear(now, *status) {
                    self.has_news = true;
                }
            }
            FormingMessage::Propose { ballot, addr, replication_factor } => {
                let is_ours =
                    ballot.proposer == from && replication_factor == self.options.replication_factor;
                if is_ours && !self.view.is_over(&ballot) {
                    self.proposed(now, Promise { ballot, addr }, effects);
                }
            }
            FormingMessage::Accept { ballot } => self.accepted(from, ballot),
            FormingMessage::Busy { ballot, holder } => self.turned_down(now, from, ballot, holder),
            FormingMessage::Formed { .. } => {
                self.end_attempt(now);
                self.ask_for_admission(from, effects);
            }
            FormingMessage::Document(topology) => self.documented(now, from, *topology, effects),
            FormingMessage::Refused(refusal) => effects.push(Effect::Refused(refusal)),
            FormingMessage::Status(_) | FormingMessage::Admit { .. } => {}
        }
    }

    /// Another node asks for this node's promise.
    fn proposed(&mut self, now: MonoMicros, asked: Promise, effects: &mut Vec<Effect>) {
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

    fn accepted(&mut self, from: NodeId, ballot: Ballot) {
        if let Some(attempt) = &mut self.attempt
            && attempt.ballot == ballot
            && let Some(has_promised) = attempt.asked.get_mut(&from)
        {
            *has_promised = true;
        }
    }

    /// `from` is bound to `holder`. A node outside the core is left out; for one of the core, the higher id yields.
    fn turned_down(&mut self, now: MonoMicros, from: NodeId, ballot: Ballot, holder: NodeId) {
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

    fn ask_for_admission(&self, to: NodeId, effects: &mut Vec<Effect>) {
        let member = Box::new(self.options.member.clone());
        let replication_factor = self.options.replication_factor;
        effects.push(Effect::Send { to, message: FormingMessage::Admit { member, replication_factor } });
    }

    /// A cluster exists. The node takes the seat it has in it.
    fn documented(&mut self, now: MonoMicros, from: NodeId, topology: Topology, effects: &mut Vec<Effect>) {
        let (options, id) = (&self.options, self.options.member.id);
        if topology.cluster_name != options.cluster_name {
            let (cluster, node) = (topology.cluster_name, options.cluster_name.clone());
            return effects.push(Effect::Refused(Refusal::ClusterName { cluster, node }));
        }
        if topology.replication_factor != options.replication_factor {
            let (cluster, node) = (topology.replication_factor, options.replication_factor);
            return effects.push(Effect::Refused(Refusal::ReplicationFactor { cluster, node }));
        }
        let Some(seat) = topology.members.get(&id) else { return };
        let has_promised =
            self.promise.as_ref().is_some_and(|promise| promise.ballot.cluster_id == topology.cluster_id);
        match seat.state {
            MemberState::Left => effects.push(Effect::Refused(Refusal::IdTaken { id })),
            MemberState::Active if !has_promised => self.returned(now, from, topology, effects),
            MemberState::Active | MemberState::Joining => self.adopt(topology, false, effects),
        }
    }

    /// The node has an Active seat in `topology`, and nothing on its disk says so: it has lost its disk. It asks for the
    /// seat as the next incarnation, and takes it once the document says that it has it.
    fn returned(&mut self, now: MonoMicros, from: NodeId, topology: Topology, effects: &mut Vec<Effect>) {
        let id = self.options.member.id;
        let known = topology.members.get(&id).map_or(0, |seat| seat.incarnation);
        let asked = self.options.member.incarnation;
        if self.is_returning && known == asked {
            return self.adopt(topology, true, effects);
        }
        if self.is_returning && known > asked {
            // Another process has taken the seat meanwhile.
            return effects.push(Effect::Refused(Refusal::IdTaken { id }));
        }
        if !self.is_returning {
            self.end_attempt(now);
            self.is_returning = true;
            self.options.member.incarnation = asked.max(known + 1);
        }
        self.ask_for_admission(from, effects);
    }

    /// The node belongs to the cluster of `topology`, which names it.
    fn adopt(&mut self, mut topology: Topology, is_empty: bool, effects: &mut Vec<Effect>) {
        // Only a topology from another node's disk could lack this node; then there is nothing to renew.
        let _ = topology.renew(&self.options.member);
        self.is_done = true;
        self.attempt = None;
        let incarnation = self.options.member.incarnation;
        effects.push(Effect::Join { topology, incarnation, has_lost_its_disk: is_empty });
    }

    /// Does whatever is due at `now`.
    fn advance(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        if self.is_done {
            return;
        }
        if self.promise.as_ref().is_some_and(|promise| self.view.is_over(&promise.ballot)) {
            self.promise = None;
        }
        self.conclude(now, effects);
        if self.is_done {
            return;
        }
        self.propose(now, effects);
        self.ask(now, effects);
        self.announce(now, effects);
    }

    /// Ends the try under way: with a cluster if it has all it needs, without if its time is up.
    fn conclude(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
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
    fn propose(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
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
    fn ask(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
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

    /// Sends the status to everyone, and asks for links to those who are not heard.
    fn announce(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let pause_ms = if self.has_news { NEWS_MS } else { STATUS_MS };
        if self.status_at.is_some_and(|at| now.micros_since(at) < pause_ms * 1_000) {
            return;
        }
        self.has_news = false;
        self.status_at = Some(now);
        self.view.forget(now);
        self.shunned.retain(|_, until| *until > now);
        let me = self.options.member.id;
        let status = self.status(now);
        let mut to: BTreeSet<NodeId> = self.seeds.iter().filter_map(|seed| seed.node).collect();
        let mut wanted: BTreeMap<NodeId, Endpoint> = BTreeMap::new();
        for heard in self.view.all_alive(now) {
            wanted.extend(heard.known.iter().cloned());
        }
        if let Some(Promise { ballot, addr }) = &self.promise {
            wanted.entry(ballot.proposer).or_insert_with(|| addr.clone());
        }
        for heard in self.view.all_alive(now) {
            wanted.insert(heard.member.id, heard.member.peer_addr.clone());
        }
        to.extend(self.view.nodes().chain(wanted.keys().copied()));
        for (node, addr) in wanted.into_iter().filter(|&(node, _)| node != me) {
            effects.push(Effect::Dial { node, addr });
        }
        for to in to.into_iter().filter(|&node| node != me) {
            let message = FormingMessage::Status(Box::new(status.clone()));
            effects.push(Effect::Send { to, message });
        }
    }

    fn status(&mut self, now: MonoMicros) -> Status {
        self.seq += 1;
        let heard = self.view.all_alive(now);
        Status {
            member: self.options.member.clone(),
            seq: self.seq,
            replication_factor: self.options.replication_factor,
            ended: self.attempts - u64::from(self.attempt.is_some()),
            seeds: self.seeds.clone(),
            known: heard.map(|status| (status.member.id, status.member.peer_addr.clone())).collect(),
        }
    }

    /// The try under way, if any, is over; everyone is told at once.
    fn end_attempt(&mut self, now: MonoMicros) {
        if self.attempt.take().is_some() {
            let jitter = u64::try_from(self.cluster_id(self.attempts) % u128::from(BACKOFF_MS)).unwrap_or(0);
            self.retry_at = now.plus_millis(BACKOFF_MS + jitter);
            self.has_news = true;
        }
    }

    fn core(&self, now: MonoMicros) -> Result<Option<BTreeSet<NodeId>>, Waiting> {
        self.view.core(now, self.options.member.id, &self.seeds, self.options.replication_factor)
    }

    /// The fresh nodes outside the core that are to be asked too.
    fn guests(&self, now: MonoMicros, core: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        self.view
            .all_alive(now)
            .filter(|status| status.replication_factor == self.options.replication_factor)
            .map(|status| status.member.id)
            .filter(|node| !core.contains(node) && !self.shunned.contains_key(node))
            .collect()
    }

    /// The id of the cluster that try number `attempt` is to form. Never zero.
    fn cluster_id(&self, attempt: u64) -> u128 {
        let mut seed = [0u8; 24];
        let (random, number) = seed.split_at_mut(16);
        random.copy_from_slice(&self.options.random.to_le_bytes());
        number.copy_from_slice(&attempt.to_le_bytes());
        murmur3_128(&seed).max(1)
    }

    fn document(&self, cluster_id: u128, others: impl IntoIterator<Item = Member>) -> Topology {
        let FormingOptions { member, cluster_name, replication_factor, .. } = &self.options;
        let members = others.into_iter().chain([member.clone()]);
        Topology::form(cluster_id, cluster_name, *replication_factor, members)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
