//! Gossip: how every node comes to know, without a leader, who lives and what each says of itself.
//!
//! Once in an interval each node counts its heartbeat up and begins an exchange with three random live peers, with one
//! that is down by a probability that grows with their number (so that a partition that heals is found), and now and
//! then with a seed. An exchange has three steps, of which the last is rarely needed:
//!
//! 1. SYN: how much the sender knows of members, as [`Digest`]s. The heartbeats in them are taken over at once.
//! 2. ACK: later heartbeats and the entries that the sender lacks; and how much the answerer knows of those members of
//!    whom the sender knows more.
//! 3. ACK2: the entries that the answerer lacked.
//!
//! This is scuttlebutt reconciliation (van Renesse et al., LADIS 2008) with the steps of Cassandra's `Gossiper`. The
//! difference to both: a heartbeat is no versioned entry. In a quiet cluster heartbeats are all that changes, and nearly
//! all change between two exchanges, so digests that carry them say everything in one step instead of two.
//!
//! # Large clusters
//! A message is at most [`MESSAGE_BYTES_MAX`] long. If not all members fit, each SYN takes the next page of them, round
//! and round: an exchange then settles a part of the membership, and a member's heartbeat travels in that share of the
//! exchanges. What is *news* (a changed status, address, rack, weight or build, or a restart) does not wait for its
//! page: for [`NEWS_ROUNDS`] rounds after a node has learned of it, the member is in each of the node's SYNs.
//!
//! # Who is up
//! Each node judges for itself, by the arrival of heartbeats ([`phi`]). Nothing about others' judgement is gossiped. A
//! member is up at its first new heartbeat that comes from itself, or at the second through others: see
//! `Peer::beat`. When this process was paused, nobody is judged for a while, and silence counts from its end.
//!
//! # The topology document
//! It decides who is gossiped with and about; members that it does not name are ignored. Every message carries its
//! sender's epoch and digest, and [`Effect::SendTopology`] asks the shell to send the document where they differ.

mod about;
mod api;
mod entry;
mod members;
mod message;
mod peer;
pub mod phi;

use std::collections::VecDeque;

pub use self::about::{About, NodeStatus, TopologyMark};
pub use self::api::{
    Cause, Effect, FAN_OUT_MAX, GossipOptions, GossipSettings, INTERVAL_MS_MAX, INTERVAL_MS_MIN, Liveness,
    PeerView,
};
pub use self::entry::{ENTRIES_MAX, ENTRY_BYTES_MAX, Entries, Entry, NODE_BYTES_MAX};
use self::members::Members;
use self::message::{DIGEST_BYTES_MAX, Draft};
pub use self::message::{Delta, Digest, GossipMessage, MESSAGE_BYTES_MAX, Step};
pub use self::peer::Heartbeat;
use self::peer::{Moment, Peer};
use crate::node::NodeId;
use crate::random::Random;
use crate::time::MonoMicros;
use crate::topology::Topology;

/// A tick that comes so many intervals after the one before shows that this process was paused, and for as long after
/// it nobody is judged: 5 s by default, as in Cassandra.
pub const PAUSE_INTERVALS: u64 = 5;
/// How often entries that nobody acts on (load, the age of the oldest hint) are published, in intervals.
pub const LEISURE_INTERVALS: u64 = 60;
/// For how many rounds news is passed on ahead of its turn.
pub const NEWS_ROUNDS: u64 = 20;
/// About how many members news is kept at a time; of more, the oldest wait for their page.
pub const NEWS_MAX: usize = 256;
/// How many peers are told at once that this node serves nobody any more.
pub const TOLD_MAX: usize = 256;
/// To how many peers the topology document is sent in a round, at most.
pub const TOPOLOGIES_PER_ROUND_MAX: usize = 3;

/// The gossip of one node.
#[derive(Clone, Debug)]
pub struct Gossip {
    settings: GossipSettings,
    random: Random,
    members: Members,
    /// What the own entries are to say.
    about: About,
    /// When the own entries that may wait were published last.
    published_at: MonoMicros,
    topology: TopologyMark,
    /// The seeds that have answered.
    seeds: Vec<NodeId>,
    /// When the next round is due.
    due_at: MonoMicros,
    ticked_at: MonoMicros,
    /// When this process came back from its last pause.
    resumed_at: MonoMicros,
    /// Where the next page of members begins.
    page_at: usize,
    /// Of whom there is news, and since which round.
    news: VecDeque<(NodeId, u64)>,
    /// Who was sent the topology document in this round.
    sent_topology: Vec<NodeId>,
    /// The latest incarnation of this node that peers know, if not its own.
    superseded_by: u64,
}

impl Gossip {
    /// The gossip of a node that starts, or begins to belong to the cluster of `topology`, at `now`. The first round is
    /// due at once.
    #[must_use]
    pub fn new(options: GossipOptions, topology: &Topology, now: MonoMicros) -> Gossip {
        let mut own = Peer::unheard(options.id);
        own.heartbeat.incarnation = options.incarnation;
        let mut gossip = Gossip {
            settings: options.settings.bounded(),
            random: Random::new(options.random),
            members: Members::new(own),
            about: options.about,
            published_at: now,
            topology: TopologyMark::default(),
            seeds: Vec::new(),
            due_at: now,
            ticked_at: now,
            resumed_at: now,
            page_at: 0,
            news: VecDeque::new(),
            sent_topology: Vec::new(),
            superseded_by: 0,
        };
        gossip.set_topology(now, topology);
        gossip.page_at = gossip.random.below(gossip.members.len());
        gossip
    }

    /// The document has changed: gossips from now on with and about the members that `topology` names, except those that
    /// left. What was known of the others is forgotten, without an [`Effect::Down`].
    pub fn set_topology(&mut self, now: MonoMicros, topology: &Topology) {
        self.topology = TopologyMark::of(topology);
        self.members.follow(topology);
        self.publish(now);
    }

    /// The nodes that answer at the seeds' addresses, as far as known.
    pub fn set_seeds(&mut self, seeds: impl IntoIterator<Item = NodeId>) {
        let own = self.members.own().id;
        self.seeds = seeds.into_iter().filter(|seed| *seed != own).collect();
    }

    /// What the operator has set, if it has changed.
    pub fn set_settings(&mut self, settings: GossipSettings) {
        self.settings = settings.bounded();
    }

    /// What this node says of itself from now on. Load and the age of the oldest hint are published at leisure, every
    /// [`LEISURE_INTERVALS`]; all else at once. [`About::topology`] does not matter.
    pub fn set_about(&mut self, now: MonoMicros, about: About) {
        self.about = about;
        self.publish(now);
    }

    /// As [`Gossip::set_about`], and tells up to [`TOLD_MAX`] live peers at once instead of with the next rounds: for what
    /// they should act on, that this node stops or that its store has failed. They pass it on as news.
    pub fn announce(&mut self, now: MonoMicros, about: About, effects: &mut Vec<Effect>) {
        self.set_about(now, about);
        let own = self.members.own().id;
        let is_told = |peer: &&Peer| peer.id != own && peer.liveness == Liveness::Up;
        let mut live: Vec<NodeId> = self.members.iter().filter(is_told).map(|peer| peer.id).collect();
        for &to in self.random.pick(&mut live, TOLD_MAX).iter() {
            let mut draft = Draft::new(Step::Ack2, self.topology, 1);
            draft.digest(self.members.own().digest());
            draft.delta(self.members.own(), 0);
            effects.push(Effect::Send { to, message: draft.finish() });
        }
    }

    /// When the next round is due.
    #[must_use]
    pub fn due_at(&self) -> MonoMicros {
        self.due_at
    }

    /// Time has passed. To be called at [`Gossip::due_at`], or about as often as an interval or more often.
    pub fn tick(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        self.notice_pause(now);
        self.ticked_at = self.ticked_at.max(now);
        if now < self.due_at {
            return;
        }
        let next = self.due_at.plus_millis(self.settings.interval_ms);
        self.due_at = if next > now { next } else { now.plus_millis(self.settings.interval_ms) };
        self.sent_topology.clear();
        self.members.own_mut().heartbeat.counter += 1;
        self.publish(now);
        self.judge(now, effects);
        for to in self.targets() {
            effects.push(Effect::Send { to, message: self.syn() });
        }
    }

    /// A message of `from` has arrived.
    pub fn receive(
        &mut self,
        now: MonoMicros,
        from: NodeId,
        message: &GossipMessage,
        effects: &mut Vec<Effect>,
    ) {
        if from == self.members.own().id {
            return;
        }
        self.notice_pause(now);
        self.compare_topologies(from, message.topology, effects);
        let differences = self.compare(now, from, message, effects);
        for delta in &message.deltas {
            self.learn(delta, effects);
        }
        if let Some(message) = self.answer(message.step, differences) {
            effects.push(Effect::Send { to: from, message });
        }
    }

    /// Direct evidence that `peer` lives, such as a frame from it. Ends its silence, and does not bring it up.
    pub fn heard_from(&mut self, peer: NodeId, now: MonoMicros) {
        if let Some(peer) = self.members.find(0, peer).and_then(|at| self.members.get_mut(at)) {
            peer.evidence(now);
        }
    }

    /// Whether `peer` lives; `Unknown` for no member. This node itself is always up.
    #[must_use]
    pub fn liveness(&self, peer: NodeId) -> Liveness {
        match self.members.find(0, peer) {
            Some(at) if at == self.members.own_at() => Liveness::Up,
            Some(at) => self.members.get(at).map_or(Liveness::Unknown, |peer| peer.liveness),
            None => Liveness::Unknown,
        }
    }

    /// How suspicious the silence of `peer` is at `now`: 0 is just heard, rising without bound. `None` before its first
    /// heartbeat, and for no member.
    #[must_use]
    pub fn phi(&self, peer: NodeId, now: MonoMicros) -> Option<f64> {
        self.members.get(self.members.find(0, peer)?)?.phi(self.moment(now), &self.settings)
    }

    /// What is known of `peer`; of this node itself, what it publishes.
    #[must_use]
    pub fn peer(&self, peer: NodeId, now: MonoMicros) -> Option<PeerView> {
        let peer = self.members.get(self.members.find(0, peer)?)?;
        Some(peer.view(self.moment(now), &self.settings))
    }

    /// What is known of all members but this node, ascending by id.
    pub fn peers(&self, now: MonoMicros) -> impl Iterator<Item = PeerView> {
        let (at, own) = (self.moment(now), self.members.own().id);
        self.members.iter().filter(move |peer| peer.id != own).map(move |peer| peer.view(at, &self.settings))
    }

    fn moment(&self, now: MonoMicros) -> Moment {
        Moment { now, resumed_at: self.resumed_at }
    }

    fn intervals(&self, count: u64) -> u64 {
        count * self.settings.interval_ms * 1_000
    }

    fn notice_pause(&mut self, now: MonoMicros) {
        if now.micros_since(self.ticked_at) > self.intervals(PAUSE_INTERVALS) {
            self.resumed_at = now;
        }
    }

    /// Brings the own entries up to what they are to say.
    fn publish(&mut self, now: MonoMicros) {
        self.about.topology = self.topology;
        let is_due = now.micros_since(self.published_at) >= self.intervals(LEISURE_INTERVALS);
        let entries = &mut self.members.own_mut().entries;
        let changed = self.about.values().into_iter().filter(|(kind, value)| {
            entries
                .value(*kind)
                .is_none_or(|old| old != &**value && (is_due || !about::may_wait(*kind, old, value)))
        });
        let changed: Vec<(u8, Vec<u8>)> = changed.collect();
        if is_due {
            self.published_at = now;
        }
        if !changed.is_empty() {
            entries.publish(changed);
        }
    }

    /// Judges everyone's silence.
    fn judge(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let (at, settings) = (self.moment(now), self.settings);
        if now.micros_since(self.resumed_at) < self.intervals(PAUSE_INTERVALS) {
            return;
        }
        for peer in self.members.iter_mut() {
            if let Some(cause) = peer.judge(at, &settings) {
                effects.push(Effect::Down { peer: peer.id, cause });
            }
        }
    }

    /// With whom this round begins an exchange.
    fn targets(&mut self) -> Vec<NodeId> {
        let own = self.members.own().id;
        let (mut live, mut down) = (Vec::new(), Vec::new());
        for peer in self.members.iter().filter(|peer| peer.id != own) {
            if peer.liveness == Liveness::Up { &mut live } else { &mut down }.push(peer.id);
        }
        let mut targets = self.random.pick(&mut live, self.settings.fan_out).to_vec();
        // Some that are down stand in where too few live: so a node that has just started finds the others.
        let missing = self.settings.fan_out - targets.len();
        let is_one_wanted = self.random.chance(down.len(), live.len() + 1);
        targets.extend(self.random.pick(&mut down, missing.max(usize::from(is_one_wanted))));
        let has_seed = self.seeds.iter().any(|seed| targets.contains(seed));
        if !has_seed && self.random.chance(self.seeds.len(), live.len() + down.len()) {
            targets.extend(self.random.pick(&mut self.seeds, 1));
        }
        targets
    }

    /// How much this node knows: of itself, of those of whom there is news, and of the next page of members.
    fn syn(&mut self) -> GossipMessage {
        let mut draft = Draft::new(Step::Syn, self.topology, self.members.len());
        let (members, own) = (&self.members, self.members.own_at());
        draft.digest(members.own().digest());
        if members.len() * DIGEST_BYTES_MAX > draft.room() {
            let oldest = members.own().heartbeat.counter.saturating_sub(NEWS_ROUNDS);
            self.news.retain(|&(_, round)| round >= oldest);
            for &(id, _) in &self.news {
                if let Some(peer) = members.find(0, id).and_then(|at| members.get(at)) {
                    draft.digest(peer.digest());
                }
            }
        }
        let page = (0..members.len()).map(|offset| (self.page_at + offset) % members.len());
        let mut taken = 0;
        for at in page {
            if at != own && !members.get(at).is_some_and(|peer| draft.digest(peer.digest())) {
                break;
            }
            taken += 1;
        }
        self.page_at = (self.page_at + taken) % members.len();
        draft.finish()
    }

    /// Lets the shell send the document where the other's is another and not ahead.
    fn compare_topologies(&mut self, from: NodeId, theirs: TopologyMark, effects: &mut Vec<Effect>) {
        let is_wanted = theirs != self.topology && theirs.epoch <= self.topology.epoch;
        let may_send = self.sent_topology.len() < TOPOLOGIES_PER_ROUND_MAX;
        if is_wanted && may_send && !self.sent_topology.contains(&from) {
            self.sent_topology.push(from);
            effects.push(Effect::SendTopology { to: from });
        }
    }

    /// Takes over the heartbeats of a message and finds what the sender and this node know differently.
    fn compare(
        &mut self,
        now: MonoMicros,
        from: NodeId,
        message: &GossipMessage,
        effects: &mut Vec<Effect>,
    ) -> Differences {
        let (at_moment, settings, own) = (self.moment(now), self.settings, self.members.own_at());
        let mut differences = Differences::default();
        let mut hint = 0;
        for digest in &message.digests {
            let Some(at) = self.members.find(hint, digest.id) else { continue };
            hint = at + 1;
            if at == own {
                self.notice_successor(digest.heartbeat.incarnation, effects);
            }
            let Some(peer) = self.members.get_mut(at) else { continue };
            let was_of = peer.heartbeat.incarnation;
            if at != own && peer.beat(at_moment, &settings, digest.heartbeat, digest.id == from) {
                effects.push(Effect::Up { peer: digest.id });
            }
            let theirs = (digest.heartbeat.incarnation, digest.version);
            let ours = peer.progress();
            if ours > theirs {
                let after = if ours.0 == theirs.0 { digest.version } else { 0 };
                differences.lacking.push((at, after));
            }
            // Of itself a node tells in any case.
            if at != own && (peer.heartbeat > digest.heartbeat || ours < theirs) {
                differences.telling.push(at);
            }
            if was_of != 0 && was_of < peer.heartbeat.incarnation {
                self.note_news(digest.id);
            }
        }
        differences
    }

    /// What is to be answered to a message of `step`.
    fn answer(&self, step: Step, mut differences: Differences) -> Option<GossipMessage> {
        let mut draft = match step {
            Step::Syn => Draft::new(Step::Ack, self.topology, differences.telling.len() + 1),
            Step::Ack if !differences.lacking.is_empty() => Draft::new(Step::Ack2, self.topology, 1),
            Step::Ack | Step::Ack2 => return None,
        };
        draft.digest(self.members.own().digest());
        if step == Step::Syn {
            let telling = differences.telling.iter().filter_map(|&at| self.members.get(at));
            // One that does not fit is told another time.
            let _ = telling.map(Peer::digest).all(|digest| draft.digest(digest));
        }
        // What has changed comes before what the other has never heard of.
        differences.lacking.sort_by_key(|&(_, after)| after == 0);
        for (at, after) in differences.lacking {
            if !self.members.get(at).is_some_and(|peer| draft.delta(peer, after)) {
                break;
            }
        }
        (step == Step::Syn || draft.has_deltas()).then(|| draft.finish())
    }

    fn learn(&mut self, delta: &Delta, effects: &mut Vec<Effect>) {
        let Some(at) = self.members.find(0, delta.id).filter(|at| *at != self.members.own_at()) else {
            return;
        };
        let Some(peer) = self.members.get_mut(at) else { return };
        let is_news = peer.learn(delta);
        if let Some(cause) = peer.stop() {
            effects.push(Effect::Down { peer: delta.id, cause });
        }
        if is_news {
            self.note_news(delta.id);
        }
    }

    fn note_news(&mut self, id: NodeId) {
        self.news.retain(|&(known, _)| known != id);
        self.news.push_back((id, self.members.own().heartbeat.counter));
        if self.news.len() > NEWS_MAX {
            self.news.pop_front();
        }
    }

    fn notice_successor(&mut self, incarnation: u64, effects: &mut Vec<Effect>) {
        if incarnation > self.superseded_by.max(self.members.own().heartbeat.incarnation) {
            self.superseded_by = incarnation;
            effects.push(Effect::Superseded { incarnation });
        }
    }
}

/// Where two nodes' knowledge differs, by place in the list of members.
#[derive(Default)]
struct Differences {
    /// Of whom the other lacks entries, and after which version.
    lacking: Vec<(usize, u64)>,
    /// Of whom the other should hear how much this node knows.
    telling: Vec<usize>,
}

#[cfg(test)]
mod tests;
