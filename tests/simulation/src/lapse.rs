//! Lapses: nodes keep account of who is away, pass the topology document on, and refuse a member whose data has lapsed,
//! which learns of that and comes back empty. Only where deletions are purged or databases flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gyre_cluster::gossip::Liveness;
use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::purge::absence::{AbsenceEffect, Absences, Seen};
use gyre_cluster::time::MonoMicros;
use gyre_cluster::topology::{Member, Topology};
use gyre_storage::{Hlc, Store};

use crate::checkers::Loss;
use crate::event::{Event, NodeLocal};
use crate::fault::FaultEvent;
use crate::mutation::Mutation;
use crate::network::{LinkIndex, WORKERS, WorkerAt};
use crate::node::{META_INCARNATION, Node, Process, node_id};
use crate::queue::{MS, Micros, SECOND};
use crate::surroundings::Env;
use crate::world::World;

/// Documents travel on the links of this worker.
const TELLING_WORKER: usize = 0;
const META_TOPOLOGY: &str = "topology";
const META_ABSENCES: &str = "absences";
/// How often a node looks who is up, in parts of the grace period.
const LOOK_PARTS: u64 = 2_000;
/// Others may not know yet that a node is back when they decide.
const NOTICE: Micros = 60 * SECOND;

/// The topology document as one process knows it, and its account of who is away.
pub(crate) struct Document {
    pub(crate) topology: Topology,
    absences: Absences,
}

impl Document {
    /// What a process of `node` begins with. The outer `None`: its disk takes nothing. The inner one: nothing is
    /// purged or flushed.
    #[expect(clippy::option_option, reason = "either may be missing")]
    pub(crate) fn open(store: &Store, node: usize, incarnation: u64, env: &Env) -> Option<Option<Document>> {
        if env.grace.is_none() && !env.has_flushes {
            return Some(None);
        }
        let known = store.meta_get(META_TOPOLOGY).ok()?.and_then(|bytes| Topology::decode(&bytes).ok());
        let mut topology = known.unwrap_or_else(|| (*env.topology).clone());
        let current = Member { incarnation, ..topology.members[&node_id(node)].clone() };
        topology.renew(&current).expect("it is a member");
        store.meta_put(META_TOPOLOGY, &topology.encode()).ok()?;
        store.set_horizons(&topology.horizons_by_database()).ok()?;
        let account = store.meta_get(META_ABSENCES).ok()?;
        let absences = Absences::new(node_id(node), account.as_deref(), MonoMicros(env.queue.now()));
        Some(Some(Document { topology, absences: absences.expect("what was encoded can be decoded") }))
    }

    /// Members whose data has lapsed.
    pub(crate) fn lapsed(&self) -> BTreeSet<NodeId> {
        self.topology.lapsed()
    }
}

/// As what a node comes back.
struct Rejoin {
    incarnation: u64,
    clock: Hlc,
    topology: Topology,
}

impl Node {
    /// Whether this node refuses what `peer` says, since its data has lapsed.
    pub(crate) fn refuses(&self, env: &Env, peer: usize) -> bool {
        let document = self.process.as_ref().and_then(|process| process.document.as_ref());
        document.is_some_and(|document| document.topology.has_lapsed(node_id(peer), env.incarnations[peer]))
    }

    /// Looks who is up, and comes again.
    pub(crate) fn watch_absences_and_wait(&mut self, env: &mut Env) {
        let Some(grace) = env.grace else { return };
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Absences };
        env.queue.after((grace / LOOK_PARTS).clamp(SECOND, 5 * SECOND), event);
        if self.has_lapsed(env) {
            // It was stopped when it had learned that and not done it.
            return env.queue.after(0, Event::Fault(FaultEvent::Rejoin(self.index)));
        }
        let now = MonoMicros(env.queue.now());
        let seen = self.seen(env, now);
        let Some(Process { store, ring, membership, purging, document: Some(document), .. }) =
            &mut self.process
        else {
            return;
        };
        let is_whole = purging.as_ref().is_some_and(|purging| purging.floor.is_some_and(|at| at > Hlc::ZERO));
        let lapsed = document.lapsed();
        let grace = Duration::from_micros(grace);
        let effects = document.absences.step(now, grace, ring, &seen, &lapsed, is_whole);
        let votes = document.absences.votes().to_vec();
        membership.tell(now, |about| about.away = votes);
        let mut topology = document.topology.clone();
        for effect in effects {
            match effect {
                // What cannot be saved is saved again later.
                AbsenceEffect::Save(bytes) => drop(store.meta_put(META_ABSENCES, &bytes)),
                // Under a mutation they go on without it, and nobody says so.
                AbsenceEffect::Lapse(_) if env.mutation == Some(Mutation::HorizonNotAgreed) => {}
                AbsenceEffect::Lapse(vote) => {
                    if topology.lapse(vote.member, vote.incarnation) {
                        self.install(env, topology.clone());
                    }
                    return;
                }
            }
        }
    }

    fn has_lapsed(&self, env: &Env) -> bool {
        self.refuses(env, self.index)
    }

    /// What is seen of the other members.
    fn seen(&self, env: &Env, now: MonoMicros) -> BTreeMap<NodeId, Seen> {
        let Some(Process { membership, document: Some(document), .. }) = &self.process else {
            return BTreeMap::new();
        };
        let peers = (0..env.network.nodes).filter(|&peer| peer != self.index);
        peers
            .map(|peer| {
                let view = membership.view(node_id(peer), now);
                let about = view.as_ref().and_then(|view| view.about.as_ref());
                let is_heard = view.as_ref().is_some_and(|view| view.liveness == Liveness::Up);
                let seen = Seen {
                    is_up: env.network.is_linked(self.index, peer) || is_heard,
                    incarnation: document.topology.members[&node_id(peer)].incarnation,
                    is_whole: about.is_some_and(|about| about.floor.is_some()),
                    votes: about.map(|about| about.away.clone()).unwrap_or_default(),
                };
                (node_id(peer), seen)
            })
            .collect()
    }

    /// Sends the document to `to`.
    pub(crate) fn send_document(&mut self, env: &mut Env, to: NodeId) {
        let Some(Process { hlc, document: Some(document), .. }) = &self.process else { return };
        let (bytes, clock) = (document.topology.encode(), hlc.now());
        let at = WorkerAt { node: self.index, worker: TELLING_WORKER };
        let Env { queue, random, network, names, .. } = env;
        network.send(queue, random, at, names[&to], &Message::Topology { bytes: &bytes }, clock);
    }

    /// A document has come.
    pub(crate) fn told_document(&mut self, env: &mut Env, bytes: &[u8]) {
        let Some(Process { document: Some(document), .. }) = &self.process else { return };
        let other = Topology::decode(bytes).expect("what was encoded can be decoded");
        let mut topology = document.topology.clone();
        topology.merge(&other).expect("all are of one cluster");
        if topology != document.topology {
            self.install(env, topology);
        }
    }

    /// Uses `topology` from now on, if the disk takes it.
    pub(crate) fn install(&mut self, env: &mut Env, topology: Topology) -> bool {
        let Some(Process { store, membership, document: Some(document), .. }) = &mut self.process else {
            return false;
        };
        let stored = store.meta_put(META_TOPOLOGY, &topology.encode());
        if stored.and_then(|()| store.set_horizons(&topology.horizons_by_database())).is_err() {
            return false;
        }
        membership.set_topology(MonoMicros(env.queue.now()), &topology);
        let lapsed: Vec<usize> = topology.lapsed().iter().map(|member| env.names[member]).collect();
        document.topology = topology;
        for member in lapsed {
            if member == self.index {
                env.queue.after(0, Event::Fault(FaultEvent::Rejoin(member)));
            } else {
                self.close_links(env, member);
            }
        }
        true
    }

    /// Closes every link with `peer`, made by either.
    fn close_links(&self, env: &mut Env, peer: usize) {
        for (owner, other) in [(self.index, peer), (peer, self.index)] {
            for worker in 0..WORKERS {
                let link = LinkIndex::of(WorkerAt { node: owner, worker }, other, env.network.nodes);
                if let Some(connection) = env.network.connection(link) {
                    env.queue.after(MS, Event::LinkBroken { link, connection });
                }
            }
        }
    }

    /// As what it comes back, if what it holds has lapsed.
    fn rejoin(&self, env: &Env) -> Option<Rejoin> {
        let Process { hlc, document, .. } = self.process.as_ref().filter(|_| self.has_lapsed(env))?;
        let mut topology = document.as_ref()?.topology.clone();
        let known = topology.members[&node_id(self.index)].incarnation;
        let incarnation = self.incarnation.max(known) + 1;
        topology.return_empty(node_id(self.index), incarnation);
        Some(Rejoin { incarnation, clock: hlc.now(), topology })
    }

    /// Makes the store of the stopped node, which is empty, that of its next incarnation.
    fn begin_anew(&mut self, Rejoin { incarnation, clock, topology }: &Rejoin) {
        self.incarnation = incarnation - 1;
        self.with_store(|store| {
            let last = self.incarnation.to_be_bytes();
            let put = store.meta_put(META_TOPOLOGY, &topology.encode());
            put.and_then(|()| store.meta_put(META_INCARNATION, &last))
                .and_then(|()| store.cover(*clock))
                .and_then(|()| store.sync())
                .expect("a new disk takes it");
        });
    }
}

impl World {
    /// Whether either node refuses the other, since its data has lapsed. One that has lapsed is told so.
    pub(crate) fn is_refused(&mut self, owner: usize, peer: usize) -> bool {
        let is_lapsed = self.nodes[peer].refuses(&self.env, owner);
        if is_lapsed {
            for (from, to) in [(peer, owner), (owner, peer)] {
                let Some(Process { document: Some(document), .. }) = &self.nodes[from].process else {
                    continue;
                };
                let bytes = document.topology.encode();
                self.nodes[to].told_document(&mut self.env, &bytes);
            }
        }
        is_lapsed || self.nodes[owner].refuses(&self.env, peer)
    }

    /// A node has learned that what it holds has lapsed: it comes back empty.
    pub(crate) fn rejoin(&mut self, node: usize) {
        if self.nodes[node].is_paused {
            return self.env.queue.after(SECOND, Event::Fault(FaultEvent::Rejoin(node)));
        }
        let Some(rejoin) = self.nodes[node].rejoin(&self.env) else { return };
        let verdict = self.check_absence(node);
        self.violated(verdict);
        self.stop(node, 50 * MS);
        if self.env.mutation != Some(Mutation::LapsedKept) {
            self.nodes[node].lose_disk(self.plan.is_cold);
        }
        self.unsafe_disks.remove(&node);
        self.nodes[node].begin_anew(&rejoin);
        self.rows_lost_at[node] = Some(self.env.queue.now());
        if self.env.mutation != Some(Mutation::LapsedKept) {
            self.rows_are_lost(node, Loss::Disk);
        }
        self.report.lapses += 1;
        self.env.queue.after(SECOND, Event::Fault(FaultEvent::Start(node)));
    }

    /// Only a node that nobody has seen for the grace period is given up.
    fn check_absence(&self, node: usize) -> Result<(), String> {
        let (now, grace) = (self.env.queue.now(), self.env.grace.unwrap_or_default());
        let (from, until) = self.absences[node].unwrap_or((now, None));
        let length = until.unwrap_or(now) - from;
        if length >= grace && until.is_none_or(|until| until + NOTICE > now) {
            return Ok(());
        }
        Err(format!("node {node} was given up, though it was away only for {} s", length / SECOND))
    }

    /// A process has stopped, or (`false`) has a link again: notes since when nobody sees it.
    pub(crate) fn note_absence(&mut self, node: usize, is_away: bool) {
        let now = self.env.queue.now();
        match &mut self.absences[node] {
            Some((_, until @ None)) if !is_away => *until = Some(now),
            Some((_, None)) => {}
            other if is_away => *other = Some((now, None)),
            _ => {}
        }
    }

    /// Whether each replica has the newest rows of all its keys, all run, and no disk is about to lose something.
    pub(crate) fn is_whole(&self) -> bool {
        if !self.unsafe_disks.is_empty() || self.nodes.iter().any(|node| node.process.is_none()) {
            return false;
        }
        self.plan.keys.iter().enumerate().all(|(index, key)| {
            let hidden = self.env.hidden(key.key_ref().slot());
            let digest = |node: &usize| self.nodes[*node].holds(key.key_ref()).without_dead(hidden).digest();
            let mut replicas = self.checkers.key(index).replicas.iter().map(digest);
            let first = replicas.next();
            replicas.all(|digest| Some(digest) == first)
        })
    }
}
