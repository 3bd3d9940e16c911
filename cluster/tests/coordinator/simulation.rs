//! The cluster, its clients, and what goes wrong.

mod ending;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gyre_cluster::coordinator::{Coordinator, CoordinatorConfig, Tag};
use gyre_cluster::hints::{Effect, Handoff, HandoffConfig};
use gyre_cluster::level::{Consistency, Level, Quorums};
use gyre_cluster::message::{Levels, Message};
use gyre_cluster::modify::Modify;
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::ring::{Ring, RingMember};
use gyre_cluster::time::{MonoMicros, Now};
use gyre_cluster::topology::Databases;
use gyre_storage::{Hint, KeyRef, Version};

use crate::checker::{Action, Checker, REGISTERS_FROM, is_counter, is_loose_counter};
use crate::machine::{Batch, Change, Machine, SimShell, node_id};
use crate::network::{Event, Local, Network, Worker};

/// Workers of each node.
pub(crate) const WORKERS: usize = 2;
const CLIENTS: usize = 8;
const KEYS: usize = 8;
/// How long clients work, in virtual microseconds.
const DURATION: u64 = 1_500_000;
const TIMEOUT: Duration = Duration::from_millis(150);
const QUORUM: Consistency = Consistency::Quorum;
const ALL: Consistency = Consistency::All;

/// What a simulation is to go through.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) crashes: bool,
    pub(crate) partitions: bool,
    pub(crate) loss_per_mille: u64,
    /// Whether nodes stand in for replicas that are down. Then quorums need not overlap, and what reads see may go back
    /// until hints are replayed.
    pub(crate) sloppy: bool,
    /// Whether the database is flushed now and then. Then nobody counts.
    pub(crate) flushes: bool,
}

/// A worker's coordinator and the batches it has yet to commit.
struct Thread {
    core: Coordinator,
    batches: VecDeque<Batch>,
    /// When the last of them will be.
    last_commit_at: u64,
}

/// A cluster in virtual time.
pub(crate) struct Simulation {
    plan: (usize, bool, bool),
    quorums: Quorums,
    ring: Arc<Ring>,
    network: Network,
    machines: Vec<Machine>,
    workers: BTreeMap<Worker, Thread>,
    checker: Checker,
    finished: Vec<(Tag, Outcome)>,
    /// The replay of hints of each node.
    handoffs: Vec<Handoff>,
    /// Hand-overs under way: of which node, to whom, which hint.
    handing: BTreeMap<u64, (usize, NodeId, Hint)>,
    delegated: HashSet<Version>,
    /// Which client waits for a tag, and where its operation runs.
    waiting: BTreeMap<u64, (usize, usize)>,
    outcomes: BTreeMap<u64, Outcome>,
    next_tag: u64,
    is_ending: bool,
    flushes: bool,
    /// No message was lost but by partitions.
    network_was_reliable: bool,
}

fn actor(node: usize, boot: u32) -> u64 {
    (node as u64) << 32 | u64::from(boot)
}

fn handoff(node: usize, boot: u32, ring: &Arc<Ring>, now: u64) -> Handoff {
    let mut config = HandoffConfig::new(node_id(node), actor(node, boot));
    // Commits may take longer than operations.
    config.settle = TIMEOUT * 4;
    Handoff::new(config, Arc::clone(ring), MonoMicros(now))
}

impl Simulation {
    pub(crate) fn new(plan: &Plan, seed: u64) -> Simulation {
        let member = |node| RingMember { id: node_id(node), rack: None, vnodes: 8 };
        let ring = Arc::new(Ring::build(&(0..plan.nodes).map(member).collect::<Vec<_>>(), 3));
        let mut network = Network::new(seed, plan.nodes, plan.loss_per_mille);
        let machines = (0..plan.nodes).map(|_| Machine::new(network.random.below(40))).collect();
        let mut simulation = Simulation {
            plan: (plan.nodes, plan.crashes, plan.partitions),
            quorums: if plan.sloppy { Quorums::Sloppy } else { Quorums::Strict },
            handoffs: (0..plan.nodes).map(|node| handoff(node, 0, &ring, 0)).collect(),
            handing: BTreeMap::new(),
            delegated: HashSet::new(),
            ring,
            network,
            machines,
            workers: BTreeMap::new(),
            checker: Checker::new(plan.sloppy),
            finished: Vec::new(),
            waiting: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            next_tag: 1,
            is_ending: false,
            flushes: plan.flushes,
            network_was_reliable: plan.loss_per_mille == 0,
        };
        for node in 0..plan.nodes {
            simulation.start_node(node);
        }
        for client in 0..CLIENTS {
            simulation.network.at(1_000 + client as u64, Event::Client { client });
        }
        simulation.network.at(50_000, Event::Chaos);
        simulation
    }

    /// Runs to the end; answers how many operations succeeded.
    pub(crate) fn run(mut self) -> u64 {
        while self.network.now < DURATION {
            self.step();
        }
        self.come_to_rest();
        self.check_end();
        self.checker.succeeded
    }

    fn step(&mut self) {
        match self.network.pop().expect("ticks never end") {
            Event::Client { client } => self.client(client),
            Event::Patience { tag } => self.abandon(tag),
            Event::Chaos => self.chaos(),
            Event::Worker { at, boot, local } => {
                if self.network.is_up[at.node] && self.network.boots[at.node] == boot {
                    self.local(at, local);
                }
            }
        }
    }

    /// Calls the core of worker `at` with a shell, then lets its batch commit and its outcomes reach the clients.
    fn with<R>(&mut self, at: Worker, call: impl FnOnce(&mut Coordinator, &mut SimShell<'_>, Now) -> R) -> R {
        let machine = &mut self.machines[at.node];
        let now = self.network.now(machine.skew_ms);
        let thread = self.workers.get_mut(&at).expect("the worker runs");
        let mut shell = SimShell {
            at,
            machine,
            network: &mut self.network,
            batch: Vec::new(),
            finished: &mut self.finished,
            stamped: None,
            delegated: &mut self.delegated,
        };
        let result = call(&mut thread.core, &mut shell, now);
        let batch = std::mem::take(&mut shell.batch);
        if !batch.is_empty() {
            thread.batches.push_back(batch);
            let delay = self.network.commit_delay();
            thread.last_commit_at = thread.last_commit_at.max(self.network.now + delay);
            self.network.local(thread.last_commit_at - self.network.now, at, Local::Commit);
        }
        for (tag, outcome) in std::mem::take(&mut self.finished) {
            self.finish(tag, outcome);
        }
        result
    }

    fn local(&mut self, at: Worker, local: Local) {
        match local {
            Local::Request { from, .. } | Local::Answer { from, .. }
                if self.network.is_blocked(from, at.node) => {}
            Local::Answer { from, link, .. } if !self.network.is_current(link, from) => {}
            Local::Request { from, link, bytes, clock } | Local::Answer { from, link, bytes, clock } => {
                let wall = self.network.now(self.machines[at.node].skew_ms).wall;
                self.machines[at.node].clock.observe(clock, wall).expect("clocks are close");
                let message = Message::decode(&bytes).expect("what was encoded");
                self.with(at, |core, shell, now| core.receive(shell, now, node_id(from), link, message));
            }
            Local::Commit => self.commit(at),
            Local::Record { ticket, db, key } => {
                let record = self.machines[at.node].read(KeyRef::new(db, &key));
                self.with(at, |core, shell, now| core.local_record(shell, now, ticket, Some(record)));
            }
            Local::Page { ticket, range } => {
                let page = self.machines[at.node].scan(&range);
                self.with(at, |core, shell, now| core.scanned(shell, now, ticket, Some(page)));
            }
            Local::Count { ticket, range } => {
                let wall = self.network.now(0).wall;
                let page = self.machines[at.node].count(&range, wall);
                self.with(at, |core, shell, now| core.counted(shell, now, ticket, Some(page)));
            }
            Local::Horizon { ticket, databases, version } => {
                self.machines[at.node].set_horizon(databases, version);
                self.with(at, |core, shell, now| core.applied(shell, now, ticket, true));
            }
            Local::Locked { op, key_hash } => {
                self.with(at, |core, shell, now| core.locked(shell, now, op, key_hash));
            }
            Local::Tick => {
                self.with(at, |core, shell, now| core.tick(shell, now));
                if at.worker == 0 {
                    self.replay(at);
                }
                self.network.local(3_000, at, Local::Tick);
            }
            Local::Up { peer } => {
                if self.network.connect(at, peer) {
                    self.with(at, |core, _, _| core.peer_up(node_id(peer)));
                }
                self.network.local(50_000, at, Local::Up { peer });
            }
            Local::Down { peer, connection } => {
                if self.network.disconnect(at, peer, connection) {
                    self.with(at, |core, shell, now| core.peer_down(shell, now, node_id(peer)));
                }
            }
        }
    }

    /// Commits everything that waits: a batch never overtakes an earlier one.
    fn commit(&mut self, at: Worker) {
        let Some(batch) = self.workers.get_mut(&at).and_then(|thread| thread.batches.pop_front()) else {
            return;
        };
        for (_, change) in &batch {
            self.machines[at.node].commit(change);
        }
        for (ticket, change) in batch {
            match change {
                // Now and then it is not in memory.
                Change::Rows { db, key, is_asking: true, .. } => {
                    let delay =
                        if self.network.random.chance(200) { self.network.random.below(3_000) } else { 0 };
                    self.network.local(delay, at, Local::Record { ticket, db, key });
                }
                _ => self.with(at, |core, shell, now| core.applied(shell, now, ticket, true)),
            }
        }
    }

    /// Lets the replay of a node's hints go on.
    fn replay(&mut self, at: Worker) {
        let now = self.network.now(self.machines[at.node].skew_ms);
        let live = self.workers[&at].core.live_peers().to_vec();
        let handoff = &mut self.handoffs[at.node];
        for &member in self.ring.members() {
            match live.contains(&member) {
                true => handoff.peer_up(member),
                false => handoff.peer_down(now.mono, member),
            }
        }
        let mut effects = Vec::new();
        handoff.step(now, &self.machines[at.node].hint_stats(), &mut effects);
        for effect in effects {
            match effect {
                Effect::ReadPage { target, after, limit } => {
                    let page = self.machines[at.node].hints_page(target, after.as_ref(), limit);
                    self.handoffs[at.node].page(now.mono, target, Some(page));
                }
                Effect::Drop { target, handed } => {
                    self.machines[at.node].drop_hints(target, &handed);
                    self.handoffs[at.node].dropped(target);
                }
                Effect::HandOff { target, hint } => {
                    let tag = Tag(self.next_tag);
                    self.next_tag += 1;
                    self.handing.insert(tag.0, (at.node, target, hint.clone()));
                    self.with(at, |core, shell, now| core.hand_off(shell, now, tag, target, hint.key()));
                }
                Effect::Open { .. } | Effect::Close { .. } | Effect::Expire { .. } => {
                    panic!("the window is hours, the simulation seconds")
                }
            }
        }
    }

    fn hints_left(&self) -> usize {
        self.machines.iter().map(|machine| machine.hint_stats().len()).sum()
    }

    fn start_node(&mut self, node: usize) {
        let boot = self.network.boots[node];
        self.handoffs[node] = handoff(node, boot, &self.ring, self.network.now);
        for worker in (0..WORKERS).map(|worker| Worker { node, worker }) {
            let actor = actor(node, self.network.boots[node]);
            let mut config = CoordinatorConfig::new(node_id(node), actor);
            config.timeout = TIMEOUT;
            config.scan_timeout = TIMEOUT * 4;
            let clock = Arc::clone(&self.machines[node].clock);
            let core = Coordinator::new(config, clock, Arc::clone(&self.ring));
            self.workers.insert(worker, Thread { core, batches: VecDeque::new(), last_commit_at: 0 });
            self.network.local(self.network.now % 1_000, worker, Local::Tick);
            for peer in (0..self.plan.0).filter(|peer| *peer != node) {
                self.network.local(100, worker, Local::Up { peer });
            }
        }
    }

    fn client(&mut self, client: usize) {
        if self.is_ending {
            return;
        }
        let from = if self.flushes { REGISTERS_FROM } else { 0 };
        let key = from + self.network.random.index(KEYS - from);
        let node = self.network.random.index(self.plan.0);
        let at = Worker { node, worker: self.network.random.index(WORKERS) };
        if !self.network.is_up[node] {
            let delay = self.network.random.below(5_000);
            return self.network.at(delay, Event::Client { client });
        }
        if self.flushes && self.network.random.chance(30) {
            return self.flush(client, at);
        }
        let action = self.choose(key);
        self.invoke(client, at, key, action);
    }

    fn choose(&mut self, key: usize) -> Action {
        let delta = 1 + self.network.random.below(9) as i64;
        if is_loose_counter(key) {
            return if delta < 4 { Action::GetOne } else { Action::AddOne { delta } };
        }
        match (is_counter(key), self.network.random.below(10)) {
            (true, 0..6) => Action::Add { delta },
            (true, _) | (false, 0..4) => Action::Get,
            (false, 4..6) => Action::Set { version: None },
            (false, 6) => Action::Delete { version: None },
            (false, 7) => Action::Append,
            (false, 8) => Action::Add { delta },
            (false, _) if self.network.random.chance(500) => Action::GetOne,
            (false, _) => Action::SetOne,
        }
    }

    fn invoke(&mut self, client: usize, at: Worker, key: usize, action: Action) -> u64 {
        let tag = self.await_tag(client, at.node);
        self.checker.start(tag, key, action, self.network.now);
        let name = format!("key-{key}");
        let value = format!("value-{}", tag.0);
        let quorums = self.quorums;
        let stamped = self.with(at, |core, shell, now| {
            let key = KeyRef::new(0, name.as_bytes());
            let value = Some(value.as_bytes());
            let levels = Levels { read: QUORUM, write: QUORUM, quorums };
            let [one, quorum] = [Consistency::One, QUORUM].map(|consistency| Level { consistency, quorums });
            match action {
                Action::Get => core.read(shell, now, tag, key, quorum),
                Action::GetAll => core.read(shell, now, tag, key, Level::strict(ALL)),
                Action::GetOne => core.read(shell, now, tag, key, one),
                Action::Set { .. } => drop(core.write(shell, now, tag, key, value, None, quorum)),
                Action::SetOne => drop(core.write(shell, now, tag, key, value, None, one)),
                Action::Delete { .. } => drop(core.write(shell, now, tag, key, None, None, quorum)),
                Action::Add { delta } => core.modify(shell, now, tag, key, &Modify::Add { delta }, levels),
                Action::AddOne { delta } => {
                    let levels = Levels { read: Consistency::One, write: Consistency::One, quorums };
                    core.modify(shell, now, tag, key, &Modify::Add { delta }, levels);
                }
                Action::Append => {
                    let modify = Modify::Append { value: b"x" };
                    core.modify(shell, now, tag, key, &modify, levels);
                }
            }
            shell.stamped
        });
        self.checker.stamped(tag, stamped);
        self.network.at(TIMEOUT.as_micros() as u64 * 4, Event::Patience { tag });
        tag.0
    }

    /// The tag of an operation of `client` that begins on `node`.
    fn await_tag(&mut self, client: usize, node: usize) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        self.waiting.insert(tag.0, (client, node));
        tag
    }

    fn flush(&mut self, client: usize, at: Worker) {
        let tag = self.await_tag(client, at.node);
        self.checker.start_flush(tag);
        let level = Level { consistency: QUORUM, quorums: self.quorums };
        self.with(at, |core, shell, now| core.flush(shell, now, tag, Databases::one(0), level));
        // Two steps, each of which may take as long as a scan.
        self.network.at(TIMEOUT.as_micros() as u64 * 10, Event::Patience { tag });
    }

    fn finish(&mut self, tag: Tag, outcome: Outcome) {
        if let Some((node, target, hint)) = self.handing.remove(&tag.0) {
            let record = if let Outcome::HandedOff(record) = outcome { Some(record) } else { None };
            return self.handoffs[node].handed(MonoMicros(self.network.now), target, hint, record);
        }
        let Some((client, _)) = self.waiting.remove(&tag.0) else {
            panic!("operation {tag:?} ended twice, or after its node had crashed");
        };
        if client == CLIENTS {
            self.checker.abandon(tag);
            self.outcomes.insert(tag.0, outcome);
            return;
        }
        self.checker.finish(tag, &outcome, self.network.now);
        let delay = self.network.random.below(3_000);
        self.network.at(delay, Event::Client { client });
    }

    /// By now an operation must have ended, or its node have crashed.
    fn abandon(&mut self, tag: Tag) {
        assert!(!self.waiting.contains_key(&tag.0), "operation {tag:?} has not ended in time");
    }

    fn chaos(&mut self) {
        if self.is_ending {
            return;
        }
        let (nodes, crashes, partitions) = self.plan;
        let delay = 20_000 + self.network.random.below(200_000);
        self.network.at(delay, Event::Chaos);
        match self.network.random.below(4) {
            0 if partitions => self.partition(nodes),
            1 if partitions => self.network.unblock_all(),
            2 if crashes => {
                let node = self.network.random.index(nodes);
                if self.network.is_up[node] { self.crash(node) } else { self.restart(node) }
            }
            3 => (0..nodes)
                .filter(|&node| !self.network.is_up[node])
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|node| self.restart(node)),
            _ => {}
        }
    }

    /// Cuts the cluster in two, or a single pair.
    fn partition(&mut self, nodes: usize) {
        let side = self.network.random.next();
        let is_left = |node: usize| side >> node & 1 == 0;
        for a in 0..nodes {
            for b in a + 1..nodes {
                if is_left(a) != is_left(b) {
                    self.network.block(a, b, WORKERS);
                }
            }
        }
    }

    fn crash(&mut self, node: usize) {
        self.network.is_up[node] = false;
        self.network.boots[node] += 1;
        self.network.forget_links_of(node);
        self.workers.retain(|worker, _| worker.node != node);
        self.handing.retain(|_, (of, ..)| *of != node);
        let here: Vec<u64> =
            self.waiting.iter().filter(|(_, (_, at))| *at == node).map(|(tag, _)| *tag).collect();
        for tag in here {
            let (client, _) = self.waiting.remove(&tag).expect("it waits");
            self.checker.abandon(Tag(tag));
            self.network.at(1_000, Event::Client { client });
        }
        for peer in (0..self.plan.0).filter(|&peer| peer != node) {
            for worker in (0..WORKERS).map(|worker| Worker { node: peer, worker }) {
                self.network.notice_down(worker, node);
            }
        }
    }

    fn restart(&mut self, node: usize) {
        self.machines[node].restart();
        self.network.is_up[node] = true;
        self.start_node(node);
    }
}
