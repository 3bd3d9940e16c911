//! Virtual time and the network: a queue of what happens when, and which links are up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use gyre_cluster::coordinator::{LinkId, OpId, Tag, Ticket};
use gyre_cluster::message::{Message, ScanRange};
use gyre_cluster::time::{MonoMicros, Now, UnixMillis};
use gyre_cluster::topology::Databases;
use gyre_storage::{Hlc, Version};

use crate::random::Random;

/// When the simulated world begins, by its wall clock.
const EPOCH_MS: u64 = 1_000_000;

/// A worker of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    pub(crate) node: usize,
    pub(crate) worker: usize,
}

/// Something that will happen to a worker; void if its node has restarted since.
#[derive(Debug)]
pub(crate) enum Local {
    Request { from: usize, link: LinkId, bytes: Vec<u8>, clock: Hlc },
    Answer { from: usize, link: LinkId, bytes: Vec<u8>, clock: Hlc },
    Commit,
    Record { ticket: Ticket, db: u8, key: Vec<u8> },
    Page { ticket: Ticket, range: ScanRange },
    Count { ticket: Ticket, range: ScanRange },
    Horizon { ticket: Ticket, databases: Databases, version: Version },
    Locked { op: OpId, key_hash: u64 },
    Tick,
    Up { peer: usize },
    Down { peer: usize, connection: u32 },
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Worker { at: Worker, boot: u32, local: Local },
    Client { client: usize },
    Patience { tag: Tag },
    Chaos,
}

/// Time, the queue of events, and the links.
pub(crate) struct Network {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) loss_per_mille: u64,
    /// How many messages take very long.
    pub(crate) slow_per_mille: u64,
    /// How often each node has started.
    pub(crate) boots: Vec<u32>,
    pub(crate) is_up: Vec<bool>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    sequence: u64,
    /// Pairs of nodes that cannot reach each other, the lower first.
    blocked: HashSet<(usize, usize)>,
    /// The link of each worker to each peer, by its number, if it is up.
    links: BTreeMap<(Worker, usize), u32>,
    connections: u32,
}

impl Network {
    pub(crate) fn new(seed: u64, nodes: usize, loss_per_mille: u64) -> Network {
        Network {
            now: 0,
            random: Random::new(seed),
            loss_per_mille,
            slow_per_mille: 30,
            boots: vec![1; nodes],
            is_up: vec![true; nodes],
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            blocked: HashSet::new(),
            links: BTreeMap::new(),
            connections: 0,
        }
    }

    pub(crate) fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    pub(crate) fn local(&mut self, delay: u64, at: Worker, local: Local) {
        let boot = self.boots[at.node];
        self.at(delay, Event::Worker { at, boot, local });
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let Reverse((time, sequence)) = self.queue.pop()?;
        self.now = time;
        self.events.remove(&sequence)
    }

    /// The time on a node whose wall clock is `skew_ms` ahead.
    pub(crate) fn now(&self, skew_ms: u64) -> Now {
        Now { mono: MonoMicros(self.now), wall: UnixMillis(EPOCH_MS + self.now / 1_000 + skew_ms) }
    }

    fn delay(&mut self) -> u64 {
        if self.random.chance(self.slow_per_mille) {
            20_000 + self.random.below(80_000)
        } else {
            50 + self.random.below(800)
        }
    }

    /// How long a commit takes: now and then longer than operations may.
    pub(crate) fn commit_delay(&mut self) -> u64 {
        if self.random.chance(self.slow_per_mille / 10) {
            100_000 + self.random.below(200_000)
        } else {
            self.random.below(2_000)
        }
    }

    /// Sends a request by a worker's link. `false` if there is none.
    pub(crate) fn send(&mut self, from: Worker, to: usize, message: &Message<'_>, clock: Hlc) -> bool {
        let Some(&connection) = self.links.get(&(from, to)) else { return false };
        let link = pack(from, connection);
        let at = Worker { node: to, worker: serving(from, connection) };
        // Links are TCP streams, which never repeat a message; all but a read-modify-write may be repeated anyway.
        let copies = if matches!(message, Message::Modify { .. }) { 1 } else { self.copies() };
        for _ in 0..copies.min(if self.random.chance(self.loss_per_mille) { 0 } else { copies }) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let delay = self.delay();
            self.local(delay, at, Local::Request { from: from.node, link, bytes, clock });
        }
        true
    }

    /// Sends an answer by the link that what it answers came by: to the worker whose link it is, or from that to the one
    /// that serves it.
    pub(crate) fn respond(&mut self, from: usize, link: LinkId, message: &Message<'_>, clock: Hlc) {
        let (owner, connection) = unpack(link);
        let is_back = owner.node == from;
        let peer = self.links.iter().find(|&((worker, _), number)| (*worker, *number) == (owner, connection));
        let to = match peer {
            Some((&(_, node), _)) if is_back => Worker { node, worker: serving(owner, connection) },
            None if is_back => return,
            _ => owner,
        };
        for _ in 0..self.copies() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let delay = self.delay();
            let local = match is_back {
                true => Local::Request { from, link, bytes, clock },
                false => Local::Answer { from, link, bytes, clock },
            };
            self.local(delay, to, local);
        }
    }

    fn copies(&mut self) -> u64 {
        if self.random.chance(self.loss_per_mille) {
            0
        } else {
            1 + u64::from(self.random.chance(self.loss_per_mille))
        }
    }

    pub(crate) fn is_blocked(&self, a: usize, b: usize) -> bool {
        self.blocked.contains(&(a.min(b), a.max(b)))
    }

    /// Whether the link that an answer comes by is still the one its request went by.
    pub(crate) fn is_current(&self, link: LinkId, peer: usize) -> bool {
        let (worker, connection) = unpack(link);
        self.links.get(&(worker, peer)) == Some(&connection)
    }

    /// Cuts the network between `a` and `b`; their links die a little later.
    pub(crate) fn block(&mut self, a: usize, b: usize, workers: usize) {
        self.blocked.insert((a.min(b), a.max(b)));
        for (node, peer) in [(a, b), (b, a)] {
            for worker in (0..workers).map(|worker| Worker { node, worker }) {
                self.notice_down(worker, peer);
            }
        }
    }

    /// Tells a worker after a while that its link to `peer` is dead.
    pub(crate) fn notice_down(&mut self, worker: Worker, peer: usize) {
        if let Some(&connection) = self.links.get(&(worker, peer)) {
            let delay = 1_000 + self.random.below(100_000);
            self.local(delay, worker, Local::Down { peer, connection });
        }
    }

    pub(crate) fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    /// Opens a link if it is not open. `true` if it was opened.
    pub(crate) fn connect(&mut self, worker: Worker, peer: usize) -> bool {
        if self.links.contains_key(&(worker, peer)) || self.is_blocked(worker.node, peer) || !self.is_up[peer]
        {
            return false;
        }
        self.connections += 1;
        self.links.insert((worker, peer), self.connections);
        true
    }

    /// Closes a link, if it still is the one of number `connection`.
    pub(crate) fn disconnect(&mut self, worker: Worker, peer: usize, connection: u32) -> bool {
        let is_same = self.links.get(&(worker, peer)) == Some(&connection);
        if is_same {
            self.links.remove(&(worker, peer));
        }
        is_same
    }

    /// Closes all links of a node that stopped.
    pub(crate) fn forget_links_of(&mut self, node: usize) {
        self.links.retain(|(worker, _), _| worker.node != node);
    }
}

/// Which worker of the peer serves a link.
fn serving(owner: Worker, connection: u32) -> usize {
    (owner.worker + connection as usize) % crate::simulation::WORKERS
}

fn pack(worker: Worker, connection: u32) -> LinkId {
    LinkId((worker.node as u64) << 48 | (worker.worker as u64) << 32 | u64::from(connection))
}

fn unpack(link: LinkId) -> (Worker, u32) {
    let worker = Worker { node: (link.0 >> 48) as usize, worker: (link.0 >> 32 & 0xffff) as usize };
    (worker, link.0 as u32)
}
