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
mod attempt;
mod greet;
mod message;
mod view;

use std::collections::{BTreeMap, BTreeSet};

pub use self::api::{Effect, Event, FormingOptions, Promise, Saved, Waiting};
use self::attempt::{Attempt, Settling};
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
