//! A simulated cluster of gossiping nodes: virtual time, a network that delays, loses and is cut, nodes that crash,
//! pause and restart. The same seed gives the same run.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use gyre_cluster::gossip::{
    About, Effect, Gossip, GossipMessage, GossipOptions, GossipSettings, MESSAGE_BYTES_MAX, NodeStatus,
    TopologyMark,
};
use gyre_cluster::node::NodeId;
use gyre_cluster::time::MonoMicros;
use gyre_cluster::topology::{Endpoint, Member, MemberState, Topology};

use crate::random::Random;

/// The delay of a message: 0.5 to 10 ms, evenly.
const DELAY_US: (u64, u64) = (500, 10_000);

/// Everyone is marked up by everyone at the start: in a greater world that is too much to keep.
const UPS_NODES_MAX: usize = 1_000;

/// A node was marked up or down by another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) at_us: u64,
    pub(crate) observer: usize,
    pub(crate) peer: usize,
    pub(crate) is_up: bool,
}

/// A change of one node, and when each node had it.
pub(crate) struct Change {
    node: NodeId,
    incarnation: u64,
    version: u64,
    made_us: u64,
    had_us: Vec<Option<u64>>,
}

enum Happening {
    Tick { node: usize, life: u64 },
    Message { from: NodeId, to: usize, message: Box<GossipMessage> },
    Document { to: usize, document: Rc<Topology> },
}

struct Planned {
    at_us: u64,
    order: u64,
    happening: Happening,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    /// The earliest is the greatest: a heap gives it first.
    fn cmp(&self, other: &Planned) -> Ordering {
        (other.at_us, other.order).cmp(&(self.at_us, self.order))
    }
}

struct Node {
    gossip: Gossip,
    document: Rc<Topology>,
    is_alive: bool,
    /// Counts the starts: also the incarnation.
    life: u64,
    /// Until then it neither ticks nor takes messages; they wait.
    paused_until_us: u64,
    /// Which side of a cut network it is on.
    side: u8,
    sent_bytes: u64,
}

pub(crate) struct World {
    random: Random,
    settings: GossipSettings,
    ids: Vec<NodeId>,
    index: HashMap<NodeId, usize>,
    nodes: Vec<Node>,
    agenda: BinaryHeap<Planned>,
    now_us: u64,
    order: u64,
    /// How many of a thousand messages are lost.
    pub(crate) loss_per_mille: u64,
    /// Whom nodes marked up and down; in a world of more than [`UPS_NODES_MAX`] only down.
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) longest_message: usize,
    changes: Vec<Change>,
    effects: Vec<Effect>,
}

impl World {
    /// `count` nodes that start within one interval, knowing nothing of each other but the document.
    pub(crate) fn new(count: usize, seed: u64, settings: GossipSettings) -> World {
        let mut random = Random::new(seed);
        let mut ids: Vec<NodeId> = (0..count).map(|_| NodeId::from_random(random.next())).collect();
        ids.sort_unstable();
        let members = ids.iter().map(|id| member(*id));
        let document = Rc::new(Topology::form(1, "simulated", 3, members));
        let index = ids.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let mut world = World {
            random,
            settings,
            ids,
            index,
            nodes: Vec::with_capacity(count),
            agenda: BinaryHeap::new(),
            now_us: 1_000_000_000,
            order: 0,
            loss_per_mille: 0,
            verdicts: Vec::new(),
            longest_message: 0,
            changes: Vec::new(),
            effects: Vec::new(),
        };
        for at in 0..count {
            // Each has its own beat: in step, all messages would be on the way at the same time.
            let delay_us = world.random.below(settings.interval_ms * 1_000);
            let node = world.fresh(at, 1, &document, world.now_us + delay_us);
            world.nodes.push(node);
            world.plan(delay_us, Happening::Tick { node: at, life: 1 });
        }
        world
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// A random node.
    pub(crate) fn any(&mut self) -> usize {
        let count = self.nodes.len();
        self.random.index(count)
    }

    pub(crate) fn run_for(&mut self, ms: u64) {
        let end_us = self.now_us + ms * 1_000;
        while self.agenda.peek().is_some_and(|planned| planned.at_us <= end_us) {
            let Some(planned) = self.agenda.pop() else { break };
            self.now_us = planned.at_us;
            self.happen(planned.happening);
        }
        self.now_us = end_us;
    }

    /// Runs for a part of an interval, so that what comes next is not in step with anyone's rounds.
    pub(crate) fn run_off_beat(&mut self) {
        let ms = self.random.below(self.settings.interval_ms);
        self.run_for(ms);
    }

    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].is_alive = false;
    }

    /// Starts a crashed node again, under its next incarnation.
    pub(crate) fn restart(&mut self, node: usize) {
        let (life, document) = (self.nodes[node].life + 1, Rc::clone(&self.nodes[node].document));
        self.nodes[node] = self.fresh(node, life, &document, self.now_us);
        self.plan(0, Happening::Tick { node, life });
    }

    /// The node stands still for so long, as under SIGSTOP; what is sent to it waits.
    pub(crate) fn pause(&mut self, node: usize, ms: u64) {
        self.nodes[node].paused_until_us = self.now_us + ms * 1_000;
    }

    /// Cuts the network between those of which `is_away` is true and the others. All false mends it.
    pub(crate) fn cut(&mut self, is_away: impl Fn(usize) -> bool) {
        self.nodes.iter_mut().enumerate().for_each(|(at, node)| node.side = u8::from(is_away(at)));
    }

    /// The node changes what it says of itself. Answers the number of the change.
    pub(crate) fn change(&mut self, node: usize) -> usize {
        let now = MonoMicros(self.now_us);
        let weight = u32::try_from(self.changes.len()).unwrap_or(0) + 1_000;
        let gossip = &mut self.nodes[node].gossip;
        gossip.set_about(now, About { weight, ..about() });
        let own = gossip.peer(self.ids[node], now).expect("a node knows itself");
        let mut had_us = vec![None; self.nodes.len()];
        had_us[node] = Some(self.now_us);
        self.changes.push(Change {
            node: own.id,
            incarnation: own.heartbeat.incarnation,
            version: own.version,
            made_us: self.now_us,
            had_us,
        });
        self.changes.len() - 1
    }

    /// How long after the change each node that lives had it, in microseconds, ascending; `None` if one has it not.
    pub(crate) fn spread_us(&self, change: usize) -> Option<Vec<u64>> {
        let change = &self.changes[change];
        let had = change.had_us.iter().zip(&self.nodes).filter(|(_, node)| node.is_alive);
        let mut spread =
            had.map(|(had, _)| had.map(|had_us| had_us - change.made_us)).collect::<Option<Vec<u64>>>()?;
        spread.sort_unstable();
        Some(spread)
    }

    /// A document that `node` alone has so far.
    pub(crate) fn install(&mut self, node: usize, document: Topology) {
        self.nodes[node].gossip.set_topology(MonoMicros(self.now_us), &document);
        self.nodes[node].document = Rc::new(document);
    }

    pub(crate) fn document(&self, node: usize) -> &Topology {
        &self.nodes[node].document
    }

    pub(crate) fn gossip(&self, node: usize) -> &Gossip {
        &self.nodes[node].gossip
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        self.ids[node]
    }

    /// Bytes sent by each node since they were asked for last.
    pub(crate) fn take_sent_bytes(&mut self) -> Vec<u64> {
        self.nodes.iter_mut().map(|node| std::mem::take(&mut node.sent_bytes)).collect()
    }

    fn fresh(&mut self, at: usize, life: u64, document: &Rc<Topology>, now_us: u64) -> Node {
        let options = GossipOptions {
            id: self.ids[at],
            incarnation: life,
            about: about(),
            settings: self.settings,
            random: self.random.next(),
        };
        Node {
            gossip: Gossip::new(options, document, MonoMicros(now_us)),
            document: Rc::clone(document),
            is_alive: true,
            life,
            paused_until_us: 0,
            side: 0,
            sent_bytes: 0,
        }
    }

    fn plan(&mut self, delay_us: u64, happening: Happening) {
        self.order += 1;
        self.agenda.push(Planned { at_us: self.now_us + delay_us, order: self.order, happening });
    }

    fn happen(&mut self, happening: Happening) {
        let at = match &happening {
            Happening::Tick { node, .. } => *node,
            Happening::Message { to, .. } | Happening::Document { to, .. } => *to,
        };
        let node = &mut self.nodes[at];
        if !node.is_alive {
            return;
        }
        if node.paused_until_us > self.now_us {
            let delay_us = node.paused_until_us - self.now_us;
            return self.plan(delay_us, happening);
        }
        let now = MonoMicros(self.now_us);
        let mut effects = std::mem::take(&mut self.effects);
        match happening {
            Happening::Tick { life, .. } if life != node.life => {}
            Happening::Tick { life, .. } => {
                node.gossip.tick(now, &mut effects);
                let delay_us = node.gossip.due_at().0 - self.now_us;
                self.plan(delay_us, Happening::Tick { node: at, life });
            }
            Happening::Message { from, message, .. } => {
                node.gossip.receive(now, from, &message, &mut effects);
                self.look_for_changes(at);
            }
            Happening::Document { document, .. } => {
                let mut merged = (*node.document).clone();
                if merged.merge(&document).expect("one cluster").any() {
                    self.install(at, merged);
                }
            }
        }
        self.perform(at, &mut effects);
        self.effects = effects;
    }

    fn look_for_changes(&mut self, at: usize) {
        let gossip = &self.nodes[at].gossip;
        for change in self.changes.iter_mut().filter(|change| change.had_us[at].is_none()) {
            let view = gossip.peer(change.node, MonoMicros(self.now_us)).expect("all are members");
            if (view.heartbeat.incarnation, view.version) >= (change.incarnation, change.version) {
                change.had_us[at] = Some(self.now_us);
            }
        }
    }

    fn perform(&mut self, at: usize, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => {
                    let bytes = message.encoded_bytes();
                    self.longest_message = self.longest_message.max(bytes);
                    self.nodes[at].sent_bytes += bytes as u64;
                    let to = self.index[&to];
                    let message = Box::new(message);
                    self.send(at, to, Happening::Message { from: self.ids[at], to, message });
                }
                Effect::SendTopology { to } => {
                    let (to, document) = (self.index[&to], Rc::clone(&self.nodes[at].document));
                    self.send(at, to, Happening::Document { to, document });
                }
                Effect::Up { peer } => self.judged(at, peer, true),
                Effect::Down { peer, .. } => self.judged(at, peer, false),
                Effect::Superseded { incarnation } => panic!("there is no incarnation {incarnation}"),
            }
        }
        assert!(self.longest_message <= MESSAGE_BYTES_MAX);
    }

    fn judged(&mut self, observer: usize, peer: NodeId, is_up: bool) {
        if is_up && self.nodes.len() > UPS_NODES_MAX {
            return;
        }
        let peer = self.index[&peer];
        self.verdicts.push(Verdict { at_us: self.now_us, observer, peer, is_up });
    }

    fn send(&mut self, from: usize, to: usize, happening: Happening) {
        let is_cut = self.nodes[from].side != self.nodes[to].side;
        if is_cut || !self.nodes[to].is_alive || self.random.chance(self.loss_per_mille) {
            return;
        }
        let delay_us = DELAY_US.0 + self.random.below(DELAY_US.1 - DELAY_US.0);
        self.plan(delay_us, happening);
    }
}

fn member(id: NodeId) -> Member {
    Member {
        id,
        incarnation: 1,
        revision: 0,
        state: MemberState::Active,
        client_addr: Endpoint::new("10.0.0.1", 6379),
        peer_addr: Endpoint::new("10.0.0.1", 16379),
        rack: None,
        vnodes: 150,
        build: "0.1.0".into(),
    }
}

pub(crate) fn about() -> About {
    About {
        status: NodeStatus::Active,
        client_addr: Endpoint::new("10.0.0.1", 6379),
        peer_addr: Endpoint::new("10.0.0.1", 16379),
        rack: Some("r1".into()),
        weight: 150,
        topology: TopologyMark::default(),
        build: "0.1.0".into(),
        load: 0,
        oldest_hint: None,
        floor: None,
        away: Vec::new(),
        has_failed: false,
    }
}
