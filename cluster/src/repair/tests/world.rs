//! A few nodes with real stores and a network that takes its time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::tree::PrefixRange;
use gyre_storage::{Body, Cell, Hlc, KeyRef, Record, Row, SLOTS, Slot, Store, Version};

use crate::clock::HybridClock;
use crate::node::NodeId;
use crate::repair::{Effect, Moved, Repair, RepairConfig, Ticket, Trouble, Verified, Work};
use crate::ring::{Ring, RingMember};
use crate::time::{MonoMicros, UnixMillis};

/// What a message takes.
const LATENCY: u64 = 500;
/// What a step takes.
const STEP: u64 = 200;
/// Time 0 of the monotonic clock.
const WALL_MS: u64 = 1_000_000;

pub(super) struct Node {
    pub(super) store: Store,
    pub(super) core: Repair,
    pub(super) clock: HybridClock,
    /// Exchanges that it drove and that have ended.
    pub(super) ended: Vec<(NodeId, Moved, Option<Trouble>)>,
    pub(super) forgotten: usize,
    pub(super) saved: Option<Vec<u8>>,
    is_saving_broken: bool,
}

enum Event {
    Message { from: NodeId, to: NodeId, bytes: Vec<u8> },
    Work { node: NodeId, ticket: Ticket, work: Work },
}

type BeforeWork = Box<dyn FnMut(&BTreeMap<NodeId, Node>, NodeId)>;

pub(super) struct World {
    pub(super) now: MonoMicros,
    pub(super) ring: Arc<Ring>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    /// Bytes of messages sent, and how many.
    pub(super) bytes: u64,
    pub(super) messages: u64,
    /// Nodes that are cut off.
    pub(super) down: Vec<NodeId>,
    /// Messages with these numbers are lost.
    pub(super) loses: fn(u64) -> bool,
    /// Called before each step of work.
    pub(super) before_work: Option<BeforeWork>,
}

pub(super) fn ring(nodes: u64, factor: usize) -> Arc<Ring> {
    let member = |id| RingMember { id: NodeId(id), rack: None, vnodes: 16 };
    Arc::new(Ring::build(&(1..=nodes).map(member).collect::<Vec<_>>(), factor))
}

pub(super) fn config(node: NodeId) -> RepairConfig {
    RepairConfig { rate: 1_000_000, ..RepairConfig::new(node, node.0 * 100, node.0 * 1_000) }
}

pub(super) fn version(clock: u64, node: u64) -> Version {
    Version { hlc: Hlc::from_millis(clock), node }
}

/// Numbers of messages in no order, so that losses meet every step.
pub(super) fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

impl World {
    pub(super) fn new(nodes: u64, factor: usize) -> World {
        let ring = ring(nodes, factor);
        let node = |id: u64| {
            let id = NodeId(id);
            let core = Repair::new(config(id), Arc::clone(&ring), Verified::default(), MonoMicros(0));
            (id, Node::new(core))
        };
        let nodes: BTreeMap<NodeId, Node> = (1..=nodes).map(node).collect();
        World {
            now: MonoMicros(0),
            ring,
            nodes,
            events: BTreeMap::new(),
            count: 0,
            bytes: 0,
            messages: 0,
            down: Vec::new(),
            loses: |_| false,
            before_work: None,
        }
    }

    pub(super) fn wall(&self) -> UnixMillis {
        UnixMillis(WALL_MS + self.now.0 / 1_000)
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&NodeId(id)).unwrap()
    }

    /// Stores a string on these nodes.
    pub(super) fn put(&mut self, nodes: &[u64], key: &str, value: &[u8], version: Version) {
        for &node in nodes {
            self.node(node).put(key, value, version);
        }
    }

    pub(super) fn replicas(&self, key: &str) -> Vec<u64> {
        let slot = KeyRef::new(0, key.as_bytes()).slot();
        self.ring.replicas(slot).iter().map(|id| id.0).collect()
    }

    /// Restarts a node's core with what it has saved.
    pub(super) fn restart(&mut self, id: u64) {
        let (ring, now) = (Arc::clone(&self.ring), self.now);
        let node = self.node(id);
        let verified = node.saved.as_ref().map(|bytes| Verified::decode(bytes).unwrap()).unwrap_or_default();
        let config = RepairConfig { session: id * 100 + now.0, ..config(NodeId(id)) };
        node.core = Repair::new(config, ring, verified, now);
        self.events.retain(|_, event| !matches!(event, Event::Work { node, .. } if node.0 == id));
    }

    pub(super) fn use_ring(&mut self, id: u64, ring: &Arc<Ring>) {
        let now = self.now;
        let mut effects = Vec::new();
        self.node(id).core.set_ring(now, Arc::clone(ring), &mut effects);
        self.perform(NodeId(id), effects);
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut step_at = self.now;
        while self.now < end {
            let next = self.events.keys().next().map_or(u64::MAX, |&(at, _)| at);
            self.now = MonoMicros(next.min(step_at.0)).max(self.now);
            if self.now >= step_at {
                self.step_all();
                let waits = self.nodes.values().map(|node| node.core.wait());
                step_at = self.now + waits.min().unwrap_or_default();
            }
            while let Some(entry) = self.events.first_entry()
                && entry.key().0 <= self.now.0
            {
                let event = entry.remove();
                self.happen(event);
            }
        }
    }

    /// Lets time pass until nothing is under way or wanted, for so long at most.
    pub(super) fn settle(&mut self, most: Duration) {
        let end = self.now + most;
        self.run(Duration::from_millis(100));
        while self.is_busy() {
            assert!(self.now < end, "it never ends: {:?}", self.nodes[&NodeId(1)].core.status(self.now));
            self.run(Duration::from_millis(100));
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        use crate::repair::PairState::{Running, Waiting};
        let is_busy = |node: &Node| {
            let status = node.core.status(self.now);
            status.pairs.iter().any(|pair| matches!(pair.state, Running { .. } | Waiting))
        };
        self.nodes.values().any(is_busy)
    }

    fn step_all(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for &id in &ids {
            let (now, wall) = (self.now, self.wall());
            let mut effects = Vec::new();
            let down = self.down.clone();
            let node = self.nodes.get_mut(&id).unwrap();
            for &peer in &ids {
                if down.contains(&peer) || down.contains(&id) {
                    node.core.peer_down(now, peer, &mut effects);
                } else {
                    node.core.peer_up(peer);
                }
            }
            node.core.step(now, node.clock.stamp(wall), &mut effects);
            self.perform(id, effects);
        }
    }

    fn happen(&mut self, event: Event) {
        let (now, wall) = (self.now, self.wall());
        let mut effects = Vec::new();
        match event {
            Event::Message { from, to, bytes } => {
                if self.down.contains(&to) || self.down.contains(&from) {
                    return;
                }
                let theirs = self.nodes[&from].clock.now();
                let node = self.nodes.get_mut(&to).unwrap();
                node.clock.observe(theirs, wall).unwrap();
                let clock = node.clock.stamp(wall);
                node.core.receive(now, clock, from, &bytes, &mut effects).unwrap();
                self.perform(to, effects);
            }
            Event::Work { node: id, ticket, work } => {
                if let Some(before) = &mut self.before_work {
                    before(&self.nodes, id);
                }
                let node = self.nodes.get_mut(&id).unwrap();
                let answer = work.run(&node.store).ok();
                let clock = node.clock.stamp(wall);
                node.core.worked(now, clock, ticket, answer, &mut effects);
                self.perform(id, effects);
            }
        }
    }

    fn later(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.now.0 + delay, self.count), event);
    }

    fn perform(&mut self, id: NodeId, effects: Vec<Effect>) {
        let (now, wall) = (self.now, self.wall());
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => {
                    self.bytes += bytes.len() as u64;
                    self.messages += 1;
                    if !(self.loses)(self.messages) {
                        self.later(LATENCY, Event::Message { from: id, to, bytes });
                    }
                }
                Effect::Work { ticket, work } => self.later(STEP, Event::Work { node: id, ticket, work }),
                Effect::ReadMarks => {
                    let node = self.nodes.get_mut(&id).unwrap();
                    let marks = node.store.marked_slots().ok();
                    let mut effects = Vec::new();
                    let clock = node.clock.stamp(wall);
                    node.core.marked(now, clock, marks, &mut effects);
                    self.perform(id, effects);
                }
                Effect::ClearMarks(marks) => self.nodes[&id].store.clear_marks(&marks).unwrap(),
                Effect::Forget(entries) => {
                    let node = self.nodes.get_mut(&id).unwrap();
                    for entry in entries {
                        let gone = node.store.forget(entry.key(), &entry.record).unwrap();
                        node.forgotten += usize::from(gone);
                    }
                }
                Effect::Save(bytes) => {
                    let node = self.nodes.get_mut(&id).unwrap();
                    let is_saved = !node.is_saving_broken;
                    node.saved = is_saved.then_some(bytes).or(node.saved.take());
                    node.core.saved(is_saved);
                }
                Effect::Ended { peer, moved, trouble } => {
                    self.nodes.get_mut(&id).unwrap().ended.push((peer, moved, trouble));
                }
            }
        }
    }

    /// All that any exchange has moved so far.
    pub(super) fn moved(&self) -> Moved {
        let mut total = Moved::default();
        for (_, moved, _) in self.nodes.values().flat_map(|node| &node.ended) {
            total.rows_pulled += moved.rows_pulled;
            total.rows_pushed += moved.rows_pushed;
            total.keys_listed += moved.keys_listed;
            total.ranges_compared += moved.ranges_compared;
        }
        total
    }

    pub(super) fn rows_sent(&self) -> u64 {
        self.moved().rows_pulled + self.moved().rows_pushed
    }

    /// Asserts that the replicas of every slot have the same rows.
    pub(super) fn assert_equal(&self) {
        for slot in 0..SLOTS {
            let range = PrefixRange::of_slot(slot);
            let mut states = self.ring.replicas(slot).iter().map(|id| {
                let store = &self.nodes[id].store;
                let states = store.key_states(range, usize::MAX).unwrap().states;
                // A void cell that only one side knows may be the newest row.
                let states: Vec<_> =
                    states.iter().map(|state| (state.hash, state.digest, state.is_live)).collect();
                (store.tree_sums(&[range]).unwrap(), states)
            });
            let first = states.next().unwrap();
            assert!(states.all(|other| other == first), "slot {slot}");
        }
    }

    /// As of when `node` and all other replicas of `slot` agree, as `node` has saved it.
    pub(super) fn verified(&self, node: u64, slot: Slot) -> Hlc {
        let core = &self.nodes[&NodeId(node)].core;
        core.verified().slot(&self.ring, NodeId(node), slot).unwrap().before()
    }
}

impl Node {
    fn new(core: Repair) -> Node {
        Node {
            store: Store::in_memory(),
            core,
            clock: HybridClock::default(),
            ended: Vec::new(),
            forgotten: 0,
            saved: None,
            is_saving_broken: false,
        }
    }

    pub(super) fn break_saving(&mut self) {
        self.is_saving_broken = true;
    }

    pub(super) fn put(&self, key: &str, value: &[u8], version: Version) {
        self.put_row(&Row {
            key: KeyRef::new(0, key.as_bytes()),
            cell: Cell::Register,
            version,
            expiry: None,
            body: Body::Value(value),
        });
    }

    pub(super) fn delete(&self, key: &str, version: Version) {
        let key = KeyRef::new(0, key.as_bytes());
        self.put_row(&Row { key, cell: Cell::Register, version, expiry: None, body: Body::Tombstone });
    }

    pub(super) fn add(&self, key: &str, actor: u64, base: Version, sum: i64, version: Version) {
        let key = KeyRef::new(0, key.as_bytes());
        let body = Body::Counter { base, sum };
        self.put_row(&Row { key, cell: Cell::Counter { actor }, version, expiry: None, body });
    }

    pub(super) fn put_row(&self, row: &Row<'_>) {
        let mut batch = self.store.batch();
        batch.push(row);
        self.store.commit(&mut batch).unwrap();
    }

    pub(super) fn read(&self, key: &str) -> Record {
        self.store.read(KeyRef::new(0, key.as_bytes())).unwrap()
    }

    /// Notes that somebody misses a row, and that there is no room for a hint.
    pub(super) fn drop_hint(&self, key: &str, version: Version) {
        let mut batch = self.store.batch();
        batch.drop_hint(KeyRef::new(0, key.as_bytes()), version);
        self.store.commit(&mut batch).unwrap();
    }
}
