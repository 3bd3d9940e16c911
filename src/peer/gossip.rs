//! Gossip, on worker 0: drives [`Gossip`], carries its messages, and tells every worker whom it takes for dead.
//!
//! A peer that is taken for dead for its silence also loses its links. A network that comes back would otherwise find connections
//! whose next try is a minute away, and a process that was frozen would find minutes of stale requests; dialled anew,
//! they are back at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gyre_cluster::gossip::{
    About, Cause, Effect, Gossip, GossipMessage, GossipOptions, GossipSettings, NodeStatus, TopologyMark,
};
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::topology::{Endpoint, MemberState, Topology};
use gyre_storage::{Hlc, UnixMillis};

use crate::config::Config;
use crate::node::Node;
use crate::peer::membership;
use crate::worker::Worker;
use crate::worker::mailbox::Letter;

/// How often is looked whether the cluster has formed.
const FORMED_CHECK: Duration = Duration::from_millis(200);
/// Two rounds are no closer than this, whatever the clock does.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// The gossip as worker 0 holds it; `None` until the cluster has formed.
#[derive(Default)]
pub struct GossipState(RefCell<Option<Gossip>>);

/// Gossips for ever. Worker 0 only.
pub async fn run(worker: Rc<Worker>) {
    loop {
        let wait = round(&worker);
        tokio::time::sleep(wait.max(WAIT_MIN)).await;
    }
}

/// Lets a round happen if it is due. Answers when to come again.
fn round(worker: &Rc<Worker>) -> Duration {
    let node = worker.node();
    let topology = node.topology.load_full();
    let Some(topology) = (*topology).as_ref() else { return FORMED_CHECK };
    let (config, now) = (node.config.load(), worker.now().mono);
    let mut effects = Vec::new();
    let wait = {
        let mut state = worker.gossip.0.borrow_mut();
        let core = state.get_or_insert_with(|| begin(node, topology, worker));
        core.set_settings(settings(&config));
        core.set_about(now, about(node, topology));
        if node.store.poisoned().is_some() {
            node.store_failed();
        }
        core.tick(now, &mut effects);
        node.liveness.store(Arc::new(core.peers(now).collect()));
        core.due_at().since(now)
    };
    perform(worker, effects);
    wait
}

fn begin(node: &Node, topology: &Topology, worker: &Worker) -> Gossip {
    let options = GossipOptions {
        id: node.id,
        incarnation: node.incarnation(),
        about: about(node, topology),
        settings: settings(&node.config.load()),
        random: rand::random(),
    };
    let mut core = Gossip::new(options, topology, worker.now().mono);
    core.set_seeds(seeds(node, topology));
    core
}

fn settings(config: &Config) -> GossipSettings {
    GossipSettings {
        interval_ms: config.gossip_interval_ms,
        phi_threshold: config.phi_threshold,
        ..GossipSettings::default()
    }
}

/// The members at the addresses of the configured seeds.
fn seeds(node: &Node, topology: &Topology) -> Vec<NodeId> {
    let config = node.config.load();
    let is_seed = |address: &Endpoint| {
        config.seeds.iter().any(|seed| seed.host == address.host && seed.port == address.port)
    };
    topology.members.values().filter(|member| is_seed(&member.peer_addr)).map(|member| member.id).collect()
}

/// What this node says of itself. Its load is the number of its clients.
fn about(node: &Node, topology: &Topology) -> About {
    let member = topology.members.get(&node.id).cloned().unwrap_or_else(|| node.member());
    let oldest = node.store.hint_stats().iter().map(|stat| stat.oldest.millis()).min();
    let is_stopping = node.stopping.load(Ordering::Acquire);
    About {
        has_failed: node.store.poisoned().is_some(),
        status: match member.state {
            _ if is_stopping => NodeStatus::Stopping,
            MemberState::Joining => NodeStatus::Joining,
            MemberState::Active => NodeStatus::Active,
            MemberState::Left => NodeStatus::Left,
        },
        client_addr: member.client_addr,
        peer_addr: member.peer_addr,
        rack: member.rack,
        weight: member.vnodes,
        topology: TopologyMark::default(),
        build: member.build,
        load: node.clients.len() as u64,
        oldest_hint: oldest.map(UnixMillis),
        floor: Some(Hlc(node.keeps_nothing_before.load(Ordering::Relaxed)))
            .filter(|floor| *floor > Hlc::ZERO),
        away: node.away.load().to_vec(),
    }
}

/// The topology document has changed. Does nothing on workers that do not gossip.
pub fn topology_changed(worker: &Worker) {
    let node = worker.node();
    let topology = node.topology.load_full();
    if let (Some(core), Some(topology)) = (worker.gossip.0.borrow_mut().as_mut(), (*topology).as_ref()) {
        core.set_topology(worker.now().mono, topology);
        core.set_seeds(seeds(node, topology));
    }
}

/// A message of gossip has arrived at any worker: it is worker 0's. Bytes that are none are refused.
pub fn hand_over(node: &Node, from: NodeId, bytes: &[u8]) {
    match GossipMessage::decode(bytes) {
        Ok(message) => {
            if let Some(mailbox) = node.mailboxes.first() {
                // Without worker 0 the node is stopping.
                let _ = mailbox.send(Letter::Gossip { from, message: Box::new(message) });
            }
        }
        Err(error) => tracing::warn!(peer = %from, %error, "a message of gossip is refused"),
    }
}

/// Tells peers at once what has become of this node: that it stops, or that its store has failed. Only worker 0 does.
pub fn announce(worker: &Rc<Worker>) {
    let node = worker.node();
    let topology = node.topology.load_full();
    let (Some(topology), 0) = ((*topology).as_ref(), worker.index) else { return };
    let mut effects = Vec::new();
    if let Some(core) = worker.gossip.0.borrow_mut().as_mut() {
        core.announce(worker.now().mono, about(node, topology), &mut effects);
    }
    perform(worker, effects);
}

/// Takes a message in. Worker 0 only.
pub fn receive(worker: &Rc<Worker>, from: NodeId, message: &GossipMessage) {
    let mut effects = Vec::new();
    if let Some(core) = worker.gossip.0.borrow_mut().as_mut() {
        core.receive(worker.now().mono, from, message, &mut effects);
    }
    perform(worker, effects);
}

fn perform(worker: &Rc<Worker>, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Send { to, message } => {
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                send(worker, to, &Message::Gossip { bytes: &bytes });
            }
            Effect::SendTopology { to } => membership::send_topology(worker, to),
            Effect::Up { peer } => judge(worker.node(), peer, None),
            Effect::Down { peer, cause } => {
                match cause {
                    Cause::Silence { phi } => {
                        tracing::warn!(peer = %peer, phi = format!("{phi:.1}"), "peer is suspected: its heartbeats have stopped");
                    }
                    Cause::Stopping => tracing::info!(peer = %peer, "peer says that it stops"),
                    Cause::Failed => tracing::warn!(peer = %peer, "peer says that its store has failed"),
                }
                judge(worker.node(), peer, Some(cause));
            }
            Effect::Superseded { incarnation } => tracing::error!(
                incarnation,
                own = worker.node().incarnation(),
                "peers know a later start of this node: two processes run under one id, or this directory is an old copy"
            ),
        }
    }
}

/// Without a link the message is dropped; the next round sends another.
fn send(worker: &Rc<Worker>, to: NodeId, message: &Message<'_>) {
    worker.step(|turn| {
        let clock = turn.node.clock.now();
        turn.shell.outboxes.send(to, message, clock);
    });
}

/// Why `peer` is down, if it is, as far as gossip knows: for every worker.
fn judge(node: &Node, peer: NodeId, down: Option<Cause>) {
    if node.peers.set_suspected(peer, down.is_some()) && down.is_none() {
        tracing::info!(peer = %peer, "peer is no longer suspected");
    }
    for mailbox in &node.mailboxes {
        // A worker that is gone needs no word.
        let _ = mailbox.send(Letter::Liveness { peer, down });
    }
}

/// Uses the verdict on `peer` in this worker.
pub fn apply(worker: &Rc<Worker>, peer: NodeId, down: Option<Cause>) {
    worker.step(|turn| {
        match down {
            None => turn.core.trust(peer),
            Some(_) => turn.core.suspect(peer),
        }
        // Whoever says why it is down still answers what it was asked.
        if let Some(Cause::Silence { .. }) = down {
            turn.shell.outboxes.close(peer);
        }
    });
}
