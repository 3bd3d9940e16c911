//! The shell of gossip: when its rounds are due, how its messages travel, and who is told what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gyre_cluster::gossip::{
    About, Effect, Gossip, GossipMessage, GossipOptions, GossipSettings, NodeStatus, PeerView, TopologyMark,
};
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::time::MonoMicros;
use gyre_cluster::topology::{Endpoint, Member, MemberState, Topology};
use gyre_storage::Hlc;

use crate::event::{Event, NodeLocal};
use crate::lapse::Document;
use crate::network::{Network, WORKERS, WorkerAt};
use crate::node::{Node, Process, node_id};
use crate::surroundings::Env;

/// Gossip travels on the links of this worker.
const GOSSIPING_WORKER: usize = 0;

/// Gossip as one process runs it.
pub(crate) struct Membership {
    core: Gossip,
    pub(crate) about: About,
    /// Who is taken for dead.
    pub(crate) suspected: BTreeSet<usize>,
}

impl Membership {
    pub(crate) fn new(
        node: usize,
        incarnation: u64,
        document: Option<&Document>,
        env: &mut Env,
    ) -> Membership {
        let topology = document.map_or(&*env.topology, |document| &document.topology);
        let mark = document.map(|document| TopologyMark::of(&document.topology)).unwrap_or_default();
        let about = About { topology: mark, ..about(node) };
        let options = GossipOptions {
            id: node_id(node),
            incarnation,
            about: about.clone(),
            settings: GossipSettings::default(),
            random: env.random.next(),
        };
        let core = Gossip::new(options, topology, MonoMicros(env.queue.now()));
        Membership { core, about, suspected: BTreeSet::new() }
    }
}

impl Membership {
    /// What members say that they keep nothing for others before, this node's own word included; if some are `refused`, of
    /// those only who know the same document, and so refuse them, too.
    pub(crate) fn floors(
        &self,
        now: MonoMicros,
        own: NodeId,
        floor: Option<Hlc>,
        refused: bool,
    ) -> BTreeMap<NodeId, Hlc> {
        let said = self.core.peers(now).filter_map(|peer| {
            let about = peer.about.filter(|about| !refused || about.topology == self.about.topology)?;
            Some((peer.id, about.floor?))
        });
        said.chain(floor.map(|floor| (own, floor))).collect()
    }

    /// What is seen of `peer`.
    pub(crate) fn view(&self, peer: NodeId, now: MonoMicros) -> Option<PeerView> {
        self.core.peer(peer, now)
    }

    /// Uses another document.
    pub(crate) fn set_topology(&mut self, now: MonoMicros, topology: &Topology) {
        self.core.set_topology(now, topology);
        let mark = TopologyMark::of(topology);
        self.tell(now, |about| about.topology = mark);
    }

    /// Tells others what has changed, if it has.
    pub(crate) fn tell(&mut self, now: MonoMicros, change: impl FnOnce(&mut About)) {
        let before = self.about.clone();
        change(&mut self.about);
        if self.about != before {
            self.core.set_about(now, self.about.clone());
        }
    }
}

fn endpoint(node: usize) -> Endpoint {
    Endpoint::new(format!("node-{node}"), 6379)
}

fn about(node: usize) -> About {
    About {
        status: NodeStatus::Active,
        client_addr: endpoint(node),
        peer_addr: endpoint(node),
        rack: None,
        weight: 1,
        topology: TopologyMark::default(),
        build: "simulated".into(),
        load: 0,
        oldest_hint: None,
        floor: None,
        away: Vec::new(),
        has_failed: false,
    }
}

/// The document that names all nodes.
pub(crate) fn topology(nodes: usize, replication: usize, vnodes: u32) -> Arc<Topology> {
    let member = |node| Member {
        id: node_id(node),
        incarnation: 1,
        revision: 0,
        state: MemberState::Active,
        client_addr: endpoint(node),
        peer_addr: endpoint(node),
        rack: None,
        vnodes,
        build: "simulated".into(),
    };
    Arc::new(Topology::form(1, "simulated", replication as u8, (0..nodes).map(member)))
}

impl Node {
    /// A round of gossip, if it is due; and the next one.
    pub(crate) fn gossip_and_wait(&mut self, env: &mut Env) {
        let Some(Process { membership, .. }) = &mut self.process else { return };
        let mut effects = Vec::new();
        membership.core.tick(MonoMicros(env.queue.now()), &mut effects);
        let due_at = membership.core.due_at().0.max(env.queue.now() + 1);
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Gossip };
        env.queue.at(due_at, event);
        self.spread(env, effects);
    }

    /// The store has failed: the workers serve without it, and peers are told.
    pub(crate) fn store_failed(&mut self, env: &mut Env) {
        for worker in 0..WORKERS {
            self.step(env, worker, |core, _, _| core.set_failed());
        }
        let Some(Process { membership, .. }) = &mut self.process else { return };
        membership.about.has_failed = true;
        let about = membership.about.clone();
        let mut effects = Vec::new();
        membership.core.announce(MonoMicros(env.queue.now()), about, &mut effects);
        self.spread(env, effects);
    }

    /// A step of gossip has come from `from`.
    pub(crate) fn hear(&mut self, env: &mut Env, from: NodeId, bytes: &[u8]) {
        let Some(Process { membership, .. }) = &mut self.process else { return };
        let message = GossipMessage::decode(bytes).expect("what was encoded can be decoded");
        let mut effects = Vec::new();
        membership.core.receive(MonoMicros(env.queue.now()), from, &message, &mut effects);
        self.spread(env, effects);
    }

    /// Something has come from a peer, so it lives.
    pub(crate) fn heard_from(&mut self, now: MonoMicros, from: NodeId) {
        if let Some(Process { membership, .. }) = &mut self.process {
            membership.core.heard_from(from, now);
        }
    }

    fn spread(&mut self, env: &mut Env, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.gossip_to(env, to, &message),
                Effect::Up { peer } => self.trust(env, peer, true),
                Effect::Down { peer, .. } => self.trust(env, peer, false),
                Effect::SendTopology { to } => self.send_document(env, to),
                Effect::Superseded { incarnation } => {
                    let what = format!("node {} was superseded by its start {incarnation}", self.index);
                    env.journal.violated(what);
                }
            }
        }
    }

    fn gossip_to(&mut self, env: &mut Env, to: NodeId, message: &GossipMessage) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let Some(Process { hlc, .. }) = &self.process else { return };
        let clock = hlc.now();
        let at = WorkerAt { node: self.index, worker: GOSSIPING_WORKER };
        let Env { queue, random, network, names, .. } = env;
        network.send(queue, random, at, names[&to], &Message::Gossip { bytes: &bytes }, clock);
    }

    /// The failure detector has changed its mind about a peer.
    fn trust(&mut self, env: &mut Env, peer: NodeId, is_trusted: bool) {
        let index = env.names[&peer];
        env.suspicions += u64::from(!is_trusted);
        let Some(Process { membership, .. }) = &mut self.process else { return };
        if is_trusted {
            membership.suspected.remove(&index);
        } else {
            membership.suspected.insert(index);
        }
        for worker in 0..WORKERS {
            self.step(
                env,
                worker,
                |core, _, _| if is_trusted { core.trust(peer) } else { core.suspect(peer) },
            );
        }
        self.peer_changed(env, index);
    }
}

/// Whether `owner` may use `peer`: linked, and not suspected.
pub(crate) fn is_alive(network: &Network, membership: &Membership, owner: usize, peer: usize) -> bool {
    network.is_linked(owner, peer) && !membership.suspected.contains(&peer)
}
