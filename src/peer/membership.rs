//! Who belongs to the cluster: drives [`Forming`] until it has formed, and passes the topology document on.
//!
//! Formation is worker 0's business; other workers hand what they hear of it over by mailbox. The document is the
//! node's: any worker may merge a peer's version into it ([`crate::node::Node::install`]).

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use gyre_cluster::forming::{
    Effect, Event, Forming, FormingMessage, FormingOptions, Promise, Refusal, Saved, greet,
    is_request_for_seat,
};
use gyre_cluster::handshake::Peer;
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::topology::{Endpoint, Topology, TopologyError};
use tokio::task::spawn_local;

use crate::node::Node;
use crate::peer::dial::{Target, keep};
use crate::peer::gossip;
use crate::peer::receive::Direction;
use crate::purger;
use crate::repair;
use crate::timekeeping;
use crate::worker::mailbox::Letter;
use crate::worker::{Turn, Worker};

/// How often time passes for the formation.
const TICK: Duration = Duration::from_millis(100);
/// How often the log says what the formation waits for, while that stays the same.
const REMIND: Duration = Duration::from_secs(10);
const META_PROMISE: &str = "forming-promise";

/// The formation as worker 0 holds it.
#[derive(Default)]
pub struct Membership {
    forming: RefCell<Option<Forming>>,
    /// Fresh nodes outside the seeds that are dialled already.
    dialled: RefCell<HashSet<(NodeId, String)>>,
}

/// Begins: rejoins the cluster that the disk knows, or begins to form one. Worker 0 only.
pub fn start(worker: &Rc<Worker>) {
    let node = worker.node();
    let saved = match (&**node.topology.load(), node.store.meta_get(META_PROMISE)) {
        (Some(topology), _) => Saved::Topology(topology.clone()),
        (None, Ok(Some(bytes))) => match Promise::decode(&bytes) {
            Ok(promise) => Saved::Promise(promise),
            Err(error) => {
                return give_up(&format!("the stored promise of cluster formation is damaged: {error}"));
            }
        },
        (None, Ok(None)) => Saved::Nothing,
        (None, Err(error)) => return give_up(&format!("cannot read the stored promise: {error}")),
    };
    let config = node.config.load();
    let options = FormingOptions {
        member: node.member(),
        cluster_name: config.cluster_name.clone(),
        replication_factor: u8::try_from(config.replication_factor).unwrap_or(u8::MAX),
        seeds: config.seeds.iter().map(|seed| Endpoint::new(seed.host.clone(), seed.port)).collect(),
        settle_ms: config.forming_settle_ms,
        random: rand::random(),
    };
    let mut effects = Vec::new();
    let forming = Forming::start(options, saved, worker.now().mono, &mut effects);
    *worker.membership.forming.borrow_mut() = Some(forming);
    perform(worker, effects);
    if !node.has_formed() {
        spawn_local(tick(Rc::clone(worker)));
    }
}

async fn tick(worker: Rc<Worker>) {
    let mut said = (String::new(), Duration::ZERO);
    while !worker.node().has_formed() {
        tokio::time::sleep(TICK).await;
        step(&worker, Event::Tick);
        let waiting =
            worker.membership.forming.borrow().as_ref().map(|f| f.waiting(worker.now().mono).to_string());
        let elapsed = worker.node().time.uptime();
        if let Some(waiting) =
            waiting.filter(|w| !worker.node().has_formed() && (*w != said.0 || elapsed > said.1))
        {
            tracing::info!(waiting, "the cluster has not formed yet");
            said = (waiting, elapsed + REMIND);
        }
    }
}

/// Takes an event of the formation in.
fn step(worker: &Rc<Worker>, event: Event) {
    let mut effects = Vec::new();
    if let Some(forming) = worker.membership.forming.borrow_mut().as_mut() {
        forming.step(worker.now().mono, event, &mut effects);
    }
    perform(worker, effects);
}

fn perform(worker: &Rc<Worker>, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::SavePromise(promise) => {
                if let Err(error) = worker.node().store.meta_put(META_PROMISE, &promise.encode()) {
                    return give_up(&format!("cannot store a promise of cluster formation: {error}"));
                }
            }
            Effect::Send { to, message } => worker.step(|turn| send(turn, to, &message)),
            Effect::Dial { node, addr } => {
                let address = addr.to_string();
                if worker.membership.dialled.borrow_mut().insert((node, address.clone())) {
                    spawn_local(keep(Rc::clone(worker), Target::Fresh(node, address)));
                }
            }
            Effect::Join { topology, incarnation, has_lost_its_disk } => {
                if has_lost_its_disk {
                    tracing::warn!(
                        incarnation,
                        "this node was a member with data and its disk is empty: it has its seat back and holds nothing yet"
                    );
                }
                join(worker, topology, incarnation);
            }
            Effect::Refused(refusal) => {
                return give_up(&format!("this node cannot join the cluster: {refusal}"));
            }
        }
    }
}

/// This node belongs to the cluster of `topology` from now on, as `incarnation` and under its present address.
fn join(worker: &Rc<Worker>, mut topology: Topology, incarnation: u64) {
    let node = worker.node();
    if incarnation != node.incarnation()
        && let Err(error) = node.raise_incarnation(incarnation)
    {
        return give_up(&format!("cannot store the incarnation: {error}"));
    }
    if let Err(error) = topology.renew(&node.member()) {
        return give_up(&format!("this node's entry in the topology cannot be renewed: {error}"));
    }
    let (members, id) = (topology.members.len(), topology.cluster_id);
    match node.install(|_| Some(topology)) {
        Ok(_) => {
            let own_slots = node.ring.load().ownership(node.id).replica_share() * 100.0;
            let share = format!("{own_slots:.1} %");
            tracing::info!(
                members,
                cluster = format!("{id:032x}"),
                share,
                "this node belongs to the cluster"
            );
            if own_slots == 0.0 {
                tracing::warn!(
                    "the cluster had formed before this node came: it coordinates requests and holds no data"
                );
            }
        }
        Err(error) => give_up(&format!("cannot store the topology: {error}")),
    }
}

/// Ends the process, in order: it must not go on, and only an operator can help.
fn give_up(reason: &str) {
    tracing::error!(reason, "stopping");
    // SIGTERM is handled for as long as the process lives; raising it cannot fail.
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
}

/// Whether `message` is of membership.
pub fn is_for(message: &Message<'_>) -> bool {
    matches!(
        message,
        Message::Topology { .. }
            | Message::Forming { .. }
            | Message::Gossip { .. }
            | Message::Exchange { .. }
            | Message::Purge { .. }
            | Message::Ping { .. }
            | Message::Pong { .. }
    )
}

/// Takes a message of membership in.
pub fn receive(turn: &mut Turn<'_>, peer: &Peer, direction: Direction, message: &Message<'_>) {
    let from = peer.identity.node;
    match message {
        Message::Topology { bytes } => match Topology::decode(bytes) {
            Ok(theirs) => merge(turn.node, from, &theirs),
            Err(error) => tracing::warn!(peer = %from, %error, "a peer's topology is refused"),
        },
        Message::Forming { bytes } => match FormingMessage::decode(bytes) {
            Ok(message) if turn.node.has_formed() => answer(turn, peer, direction, &message),
            Ok(message) => hand_over(turn.node, Event::Message { from, message }),
            Err(error) => tracing::warn!(peer = %from, %error, "a message of cluster formation is refused"),
        },
        Message::Gossip { bytes } => gossip::hand_over(turn.node, from, bytes),
        Message::Exchange { bytes } => repair::hand_over(turn.node, from, bytes),
        Message::Purge { bytes } => purger::hand_over(turn.node, from, bytes),
        Message::Ping { nonce } => {
            if let Direction::Theirs(link) = direction {
                let (clock, reading) = (turn.node.clock.now(), turn.node.time.reading(&turn.node.clock));
                let pong = Message::Pong { nonce: *nonce, reading: Some(reading) };
                turn.shell.outboxes.respond(link, &pong, clock);
            }
        }
        _ => {}
    }
}

/// Takes an event in that another worker heard of.
pub fn take(worker: &Rc<Worker>, event: Event) {
    step(worker, event);
}

fn hand_over(node: &Node, event: Event) {
    if let Some(mailbox) = node.mailboxes.first() {
        // Without worker 0 the node is stopping.
        let _ = mailbox.send(Letter::Forming(Box::new(event)));
    }
}

/// Merges a peer's document into ours.
fn merge(node: &Node, from: NodeId, theirs: &Topology) {
    let mut refused: Option<TopologyError> = None;
    let merged = node.install(|ours| {
        let mut merged = ours?.clone();
        match merged.merge(theirs) {
            Ok(changed) => changed.any().then_some(merged),
            Err(error) => {
                refused = Some(error);
                None
            }
        }
    });
    if let Some(error) = refused {
        tracing::error!(peer = %from, %error, "a peer's topology is refused");
    }
    if let Err(error) = merged {
        tracing::error!(%error, "cannot store the topology");
    }
}

/// Answers a fresh node, as a member of a formed cluster.
fn answer(turn: &mut Turn<'_>, peer: &Peer, direction: Direction, message: &FormingMessage) {
    let from = peer.identity.node;
    let mut reply = None;
    let is_second = turn.node.peers.is_another(from, peer.identity.instance);
    let stored = turn.node.install(|ours| {
        let mut topology = ours?.clone();
        if is_second && is_request_for_seat(&topology, from, message) {
            reply = Some(FormingMessage::Refused(Refusal::IdTaken { id: from }));
            return None;
        }
        let (changed, answer) = greet(&mut topology, from, message);
        reply = answer;
        changed.any().then_some(topology)
    });
    match (stored, reply) {
        (Ok(_), Some(reply)) => match direction {
            Direction::Theirs(link) => {
                let bytes = encoded(&reply);
                let clock = turn.node.clock.now();
                turn.shell.outboxes.respond(link, &Message::Forming { bytes: &bytes }, clock);
            }
            Direction::Ours(_) | Direction::Lapsed => send(turn, from, &reply),
        },
        (Ok(_), None) => {}
        (Err(error), _) => tracing::error!(%error, "cannot store the topology"),
    }
}

fn send(turn: &mut Turn<'_>, to: NodeId, message: &FormingMessage) {
    let bytes = encoded(message);
    let clock = turn.node.clock.now();
    // Without a link it is dropped, and said again later.
    turn.shell.outboxes.send(to, &Message::Forming { bytes: &bytes }, clock);
}

fn encoded(message: &FormingMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

/// This worker has a link to `peer`, dialled as `target`.
pub fn linked(worker: &Rc<Worker>, peer: &Peer, target: &Target) {
    timekeeping::linked(worker, peer.identity.node);
    if worker.index != 0 {
        return;
    }
    if let Target::Seed(seed) = target {
        step(worker, Event::SeedResolved { seed: *seed, node: peer.identity.node });
    }
    send_topology(worker, peer.identity.node);
    let topology = worker.node().topology.load();
    if let (Some(topology), 0) = (topology.as_ref(), peer.identity.cluster_id) {
        // A node that lost its disk must hear of the cluster before it forms another.
        let formed = FormingMessage::Formed { cluster_id: topology.cluster_id };
        worker.step(|turn| send(turn, peer.identity.node, &formed));
    }
}

/// Sends the topology document to `peer`, if there is one and a link.
pub fn send_topology(worker: &Rc<Worker>, peer: NodeId) {
    if let Some(topology) = worker.node().topology.load().as_ref() {
        let bytes = topology.encode();
        worker.step(|turn| {
            let clock = turn.node.clock.now();
            turn.shell.outboxes.send(peer, &Message::Topology { bytes: &bytes }, clock);
        });
    }
}

/// This worker's link that was dialled as `target` is gone.
pub fn unlinked(worker: &Rc<Worker>, target: &Target) {
    if let (0, Target::Seed(seed)) = (worker.index, target) {
        step(worker, Event::SeedLost { seed: *seed });
    }
}

/// The seed `seed` is this node itself.
pub fn seed_is_self(worker: &Rc<Worker>, seed: usize) {
    step(worker, Event::SeedIsSelf { seed });
}

/// Tells every peer the topology, after it has changed. Worker 0 only.
pub fn broadcast(worker: &Rc<Worker>) {
    let topology = worker.node().topology.load();
    if let (0, Some(topology)) = (worker.index, topology.as_ref()) {
        let bytes = topology.encode();
        worker.step(|turn| {
            turn.shell.outboxes.broadcast(&Message::Topology { bytes: &bytes }, turn.node.clock.now());
        });
    }
}
