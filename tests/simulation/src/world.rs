//! A simulated world: machines, a network between them, clients, and what goes wrong; one event at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gyre_cluster::coordinator::Tag;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::ring::Ring;
use gyre_storage::Record;

use crate::checkers::{Checkers, Loss};
use crate::client::Client;
use crate::event::{Event, NodeLocal};
use crate::fault::FaultEvent;
use crate::flush::Known;
use crate::gossip;
use crate::history::{End, History};
use crate::mutation::Mutation;
use crate::network::{LinkIndex, Packet};
use crate::node::{Node, node_id};
use crate::plan::Plan;
use crate::queue::{MS, Micros, SECOND};
use crate::report::Report;
use crate::surroundings::Env;

/// The vnodes of each node: few, so that small clusters differ from seed to seed.
const VNODES: u32 = 8;

/// More events in a second, for each node, are no work but a loop.
const EVENTS_A_SECOND_MAX: u64 = 100_000;

/// A cluster, its clients and its troubles.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) ring: Arc<Ring>,
    pub(crate) env: Env,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) history: History,
    pub(crate) checkers: Checkers,
    pub(crate) report: Report,
    /// What was found to be wrong first.
    pub(crate) violation: Option<String>,
    /// The key that was judged last.
    pub(crate) judged: usize,
    /// Outcomes of the simulation's own operations.
    pub(crate) own: BTreeMap<u64, Outcome>,
    /// No new faults.
    pub(crate) is_healing: bool,
    /// No new steps of clients.
    pub(crate) is_resting: bool,
    /// From then on every operation must succeed.
    pub(crate) recovered_at: Option<Micros>,
    /// The present second, and how many events there were before it.
    pace: (Micros, u64),
    /// How many faults have struck.
    pub(crate) strikes: u64,
    /// What clients have got from VC.GET, by operation.
    pub(crate) contexts: BTreeMap<u64, Vec<u8>>,
    /// Nodes whose disk has failed to sync, so that a restart may lose rows.
    pub(crate) unsafe_disks: BTreeSet<usize>,
    /// Nodes that have lost their disk.
    pub(crate) disks_lost: BTreeSet<usize>,
    /// What was known to be written when a flush began, by its tag.
    pub(crate) flushes: BTreeMap<u64, Known>,
    /// When each node's clock was last set right.
    pub(crate) clock_right_at: Vec<Option<Micros>>,
    /// When each node last lost rows.
    pub(crate) rows_lost_at: Vec<Option<Micros>>,
    /// Since when, and until when, nobody saw each node when it was away last.
    pub(crate) absences: Vec<Option<(Micros, Option<Micros>)>>,
    /// When each node last synced.
    pub(crate) synced_at: Vec<Micros>,
    /// When each node last went on after a pause.
    pub(crate) resumed_at: Vec<Micros>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> World {
        let topology = gossip::topology(plan.nodes, plan.replication, VNODES);
        let ring = Arc::new(topology.ring());
        let mut env = Env::new(&plan, topology);
        let checkers = Checkers::new(&plan, &ring, &env);
        let nodes = (0..plan.nodes).map(|index| Node::new(index, plan.store_options())).collect();
        let clients = (0..plan.clients).map(|_| Client::new(&mut env.random, plan.nodes)).collect();
        let mut world = World {
            ring,
            env,
            nodes,
            clients,
            history: History::default(),
            checkers,
            report: Report::new(&plan),
            violation: None,
            judged: 0,
            own: BTreeMap::new(),
            is_healing: false,
            is_resting: false,
            recovered_at: None,
            pace: (0, 0),
            strikes: 0,
            contexts: BTreeMap::new(),
            unsafe_disks: BTreeSet::new(),
            disks_lost: BTreeSet::new(),
            flushes: BTreeMap::new(),
            clock_right_at: vec![None; plan.nodes],
            rows_lost_at: vec![None; plan.nodes],
            absences: vec![None; plan.nodes],
            synced_at: vec![0; plan.nodes],
            resumed_at: vec![0; plan.nodes],
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for index in 0..self.plan.nodes {
            let skew = self.env.random.below(2 * self.plan.skew + 1) as i64 - self.plan.skew as i64;
            self.nodes[index].clock.jump(0, skew);
            self.nodes[index].disk.set_cold(self.plan.is_cold);
            let is_started = self.nodes[index].start(&mut self.env, &self.ring);
            assert!(is_started, "an empty disk lets a node start");
        }
        for client in 0..self.clients.len() {
            let delay = self.env.random.within(500 * MS..2 * SECOND);
            self.env.queue.after(delay, Event::Client { client });
        }
        if let Some((at, length)) = self.plan.split {
            self.env.queue.after(at, Event::Fault(FaultEvent::Split(length)));
        }
        if !self.plan.away.is_empty() {
            let delay = self.env.random.within(0..self.plan.grace.unwrap_or(1).max(1));
            self.env.queue.after(delay, Event::Fault(FaultEvent::Away));
        }
        if self.plan.flush_gap.is_some() {
            self.env.queue.after(SECOND, Event::Flush);
        }
        if !self.plan.faults.is_empty() {
            self.env.queue.after(2 * SECOND, Event::Fault(FaultEvent::Strike));
        }
    }

    /// Lets everything happen that happens before `end`. Stops at a violation.
    ///
    /// # Errors
    /// What was violated.
    pub(crate) fn run_until(&mut self, end: Micros) -> Result<(), String> {
        while let Some(event) = self.env.queue.next_until(end) {
            self.report.events += 1;
            self.check_pace()?;
            self.happen(event);
            self.deliver();
            if let Some(what) = self.violation.take().or_else(|| self.env.journal.violation()) {
                return Err(what);
            }
        }
        Ok(())
    }

    /// A core that keeps itself busy without end would never let time go on.
    fn check_pace(&mut self) -> Result<(), String> {
        let second = self.env.queue.now() / SECOND;
        if self.pace.0 != second {
            self.pace = (second, self.report.events);
        }
        let events = self.report.events - self.pace.1;
        if events < EVENTS_A_SECOND_MAX * self.plan.nodes as u64 {
            return Ok(());
        }
        Err(format!("{events} events in one second"))
    }

    /// Notes that something is wrong.
    pub(crate) fn violated(&mut self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.violation.get_or_insert(what);
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = event.node(self.plan.nodes)
            && self.nodes[node].is_paused
        {
            self.nodes[node].backlog.push(event);
            return;
        }
        event.fold_into(&mut self.env.queue);
        match event {
            Event::Packet(packet) => self.packet(packet),
            Event::LinkTimeout { link, connection } => {
                if self.env.network.is_stalled(link, connection) {
                    self.link_down(link, connection);
                }
            }
            Event::LinkBroken { link, connection } => self.link_down(link, connection),
            Event::Dial { link } => self.dial(link),
            Event::Worker { at, boot, local } => {
                if self.nodes[at.node].boot == boot {
                    self.nodes[at.node].local(&mut self.env, at.worker, local);
                    self.look_at_disk(at.node);
                }
            }
            Event::Node { node, boot, local } => {
                if self.nodes[node].boot == boot {
                    self.node_local(node, &local);
                }
            }
            Event::Invoke { node, tag } => self.invoke(node, tag),
            Event::Client { client } => self.client(client),
            Event::Patience { tag } => self.patience(tag),
            Event::Fault(fault) => self.fault(fault),
            Event::Flush => self.flush_and_wait(),
        }
    }

    fn packet(&mut self, packet: Packet) {
        let Env { queue, random, network, .. } = &mut self.env;
        let Some(packet) = network.arrives(queue, random, packet) else { return };
        let receiver = packet.receiver(self.plan.nodes);
        if !self.nodes[receiver].receive(&mut self.env, &packet) {
            self.report.clock_refusals += 1;
            let (link, connection) = (packet.link, packet.connection);
            // Whichever side refuses closes; the owner of the link is told at once or a little later.
            let delay = if packet.is_answer { 0 } else { MS };
            self.env.queue.after(delay, Event::LinkBroken { link, connection });
        }
    }

    fn link_down(&mut self, link: LinkIndex, connection: u32) {
        let Env { queue, random, network, .. } = &mut self.env;
        if !network.disconnect(queue, random, link, connection) {
            return;
        }
        let (owner, peer) = (link.owner(self.plan.nodes), link.peer(self.plan.nodes));
        self.nodes[owner.node].step(&mut self.env, owner.worker, |core, shell, now| {
            core.peer_down(shell, now, node_id(peer));
        });
        self.nodes[owner.node].peer_changed(&mut self.env, peer);
    }

    fn dial(&mut self, link: LinkIndex) {
        let (owner, peer) = (link.owner(self.plan.nodes), link.peer(self.plan.nodes));
        if self.nodes[owner.node].process.is_none() || self.env.network.is_open(link) {
            return;
        }
        let is_reached = self.nodes[peer].is_running()
            && !self.env.network.is_blocked(owner.node, peer)
            && !self.env.network.is_blocked(peer, owner.node);
        if !is_reached || self.is_refused(owner.node, peer) || !self.env.network.connect(link) {
            let Env { queue, random, network, .. } = &mut self.env;
            return network.redial(queue, random, link);
        }
        self.note_absence(owner.node, false);
        self.note_absence(peer, false);
        self.nodes[owner.node].step(&mut self.env, owner.worker, |core, _, _| core.peer_up(node_id(peer)));
        self.nodes[owner.node].peer_changed(&mut self.env, peer);
    }

    fn node_local(&mut self, node: usize, local: &NodeLocal) {
        self.nodes[node].node_local(&mut self.env, local);
        if matches!(local, NodeLocal::Sync | NodeLocal::Compact) && !self.nodes[node].is_poisoned() {
            self.synced_at[node] = self.env.queue.now();
        }
        self.look_at_disk(node);
    }

    /// An operator mends a disk that has failed, a while later.
    fn look_at_disk(&mut self, node: usize) {
        let is_new =
            self.nodes[node].is_poisoned() && !std::mem::replace(&mut self.nodes[node].is_noticed, true);
        if is_new {
            self.report.poisoned += 1;
            self.nodes[node].store_failed(&mut self.env);
            let delay = self.env.random.within(SECOND..10 * SECOND);
            self.env.queue.after(delay, Event::Fault(FaultEvent::MendDisk(node)));
        }
    }

    /// A process ends without warning; others learn that within `notice`.
    pub(crate) fn stop(&mut self, node: usize, notice: Micros) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.report.stops += 1;
        self.note_absence(node, true);
        if self.env.mutation == Some(Mutation::DirtyMarkLost) {
            self.nodes[node].disk.lose_dirty_marks();
        }
        for event in self.nodes[node].stop() {
            // Connections to it end; what else waited for it is gone with it.
            if let Event::Invoke { tag, .. } = event {
                self.lost(tag);
            }
        }
        let Env { queue, random, network, .. } = &mut self.env;
        network.node_stopped(queue, random, node, notice);
        self.env.journal.stopped(node);
        self.env.owed.stopped(node, self.env.queue.now());
        let here = |operation: &&crate::history::Operation| {
            operation.node == node && operation.end == End::Pending && operation.begun_at.is_some()
        };
        let tags: Vec<Tag> = self.history.unsettled().filter(here).map(|operation| operation.tag).collect();
        tags.into_iter().for_each(|tag| self.lost(tag));
    }

    /// The machine of a stopped node forgets what was not synced.
    pub(crate) fn lose_rows(&mut self, node: usize) {
        let unsynced = self.nodes[node].disk.unsynced_batches();
        let kept = self.env.random.index(unsynced + 1);
        self.nodes[node].disk.crash(kept);
        self.report.batches_lost += (unsynced - kept) as u64;
        self.rows_lost_at[node] = Some(self.env.queue.now());
        self.env.journal.clock_lost(node);
        if unsynced != kept {
            self.rows_are_lost(node, Loss::Power);
        }
    }

    /// The machine of a stopped node gets an empty disk.
    pub(crate) fn lose_all_rows(&mut self, node: usize) {
        self.nodes[node].lose_disk(self.plan.is_cold);
        self.unsafe_disks.remove(&node);
        self.disks_lost.insert(node);
        self.report.disks_lost += 1;
        self.rows_lost_at[node] = Some(self.env.queue.now());
        self.env.journal.clock_lost(node);
        self.rows_are_lost(node, Loss::Disk);
    }

    /// What was promised of the keys of `node` becomes what their replicas still hold.
    pub(crate) fn rows_are_lost(&mut self, node: usize, loss: Loss) {
        self.env.owed.hints_gone(self.env.queue.now());
        if loss == Loss::Disk {
            // What it had stored of a flush under way is gone, too.
            self.flushes.values_mut().for_each(Vec::clear);
        }
        let held: Vec<Vec<Record>> = self.nodes.iter().map(|node| self.all_records(node)).collect();
        for key in 0..self.plan.keys.len() {
            let replicas = self.checkers.key(key).replicas.clone();
            if !replicas.contains(&node) {
                continue;
            }
            let records: Vec<Record> = replicas.iter().map(|&replica| held[replica][key].clone()).collect();
            let anywhere: Vec<&Record> = held.iter().map(|records| &records[key]).collect();
            let verdict = self.checkers.rows_lost(key, &records, &anywhere, loss, self.plan.fsync, &self.env);
            if verdict.is_err() {
                self.judged = key;
            }
            self.violated(verdict);
        }
        let checkers = &self.checkers;
        self.history.taint(|operation| checkers.key(operation.key).replicas.contains(&node));
    }

    fn all_records(&self, node: &Node) -> Vec<Record> {
        node.with_store(|store| {
            let read = |key: &crate::history::Key| store.read(key.key_ref()).unwrap_or_default();
            self.plan.keys.iter().map(read).collect()
        })
    }

    /// A paused process goes on with everything that has come meanwhile.
    pub(crate) fn resume(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].is_paused, false) {
            return;
        }
        self.resumed_at[node] = self.env.queue.now();
        for event in std::mem::take(&mut self.nodes[node].backlog) {
            self.env.queue.after(0, event);
        }
    }
}
