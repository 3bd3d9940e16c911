//! Purging among cores with stores in memory, and what goes wrong around them.

use gyre_storage::{Body, Cell, KeyRef, PurgeStep, Record, Row, Store, Version};

use super::kept::{Keeper, floor};
use super::*;
use crate::repair::SlotRun;
use crate::ring::RingMember;
use crate::time::UnixMillis;

/// The wall clock when tests begin: a year after the epoch.
const BEGIN_MS: u64 = 365 * 86_400_000;
const GRACE: Duration = Duration::from_secs(600);
/// The grace period, in milliseconds.
const GRACE_MS: u64 = 600_000;
const EXCHANGE_EVERY_MS: u64 = 300_000;
const ALL_SLOTS: SlotRun = SlotRun { first: 0, last: SLOTS - 1 };

fn ring(nodes: u64, factor: usize) -> Arc<Ring> {
    let member = |id| RingMember { id: NodeId(id), rack: None, vnodes: 8 };
    Arc::new(Ring::build(&(1..=nodes).map(member).collect::<Vec<_>>(), factor))
}

struct Replica {
    store: Store,
    core: Purge,
    verified: Verified,
}

/// Nodes whose messages and steps take no time.
struct World {
    ring: Arc<Ring>,
    at_ms: u64,
    replicas: BTreeMap<NodeId, Replica>,
    floors: BTreeMap<NodeId, Hlc>,
    down: BTreeSet<NodeId>,
}

impl World {
    fn new(nodes: u64, factor: usize) -> World {
        let ring = ring(nodes, factor);
        let replica = |id| {
            let store = Store::in_memory();
            let none = |_| PurgeHorizon::default();
            let core = Purge::new(NodeId(id), GRACE, Arc::clone(&ring), none, MonoMicros(0), clock(0));
            (NodeId(id), Replica { store, core, verified: Verified::default() })
        };
        let replicas = (1..=nodes).map(replica).collect();
        World { ring: Arc::clone(&ring), at_ms: 0, replicas, floors: BTreeMap::new(), down: BTreeSet::new() }
    }

    fn now(&self) -> Now {
        Now { mono: MonoMicros(self.at_ms * 1_000), wall: UnixMillis(BEGIN_MS + self.at_ms) }
    }

    fn is_up(&self, node: NodeId) -> bool {
        !self.down.contains(&node)
    }

    /// Nodes that are up and not among `silent` compare everything, and publish their floors.
    fn compare(&mut self, silent: &[u64]) {
        let is_heard = |node: &NodeId| self.is_up(*node) && !silent.contains(&node.0);
        let heard: Vec<NodeId> = self.replicas.keys().copied().filter(is_heard).collect();
        for &one in &heard {
            self.floors.insert(one, clock(self.at_ms));
            for &other in heard.iter().filter(|&&other| other != one) {
                let at = clock(self.at_ms);
                self.replicas.get_mut(&one).unwrap().verified.note(other, &[ALL_SLOTS], at);
            }
        }
    }

    /// Lets `ms` pass, a second at a time, with exchanges now and then.
    fn run(&mut self, ms: u64, silent: &[u64]) {
        for _ in 0..ms / 1_000 {
            self.at_ms += 1_000;
            if self.at_ms.is_multiple_of(EXCHANGE_EVERY_MS) {
                self.compare(silent);
            }
            let nodes: Vec<NodeId> = self.replicas.keys().copied().filter(|&node| self.is_up(node)).collect();
            for node in nodes {
                self.step(node);
            }
        }
    }

    fn step(&mut self, node: NodeId) {
        let (now, floors) = (self.now(), self.floors.clone());
        for _ in 0..1_000 {
            let mut effects = Vec::new();
            let Replica { core, verified, .. } = self.replicas.get_mut(&node).unwrap();
            core.step(now, verified, &floors, &mut effects);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.perform(node, effect);
            }
        }
    }

    fn perform(&mut self, node: NodeId, effect: Effect) {
        let mono = self.now().mono;
        match effect {
            Effect::Send { to, bytes } if self.is_up(to) => {
                self.replicas.get_mut(&to).unwrap().core.receive(mono, node, &bytes).unwrap();
            }
            Effect::Send { .. } => {}
            Effect::Raise(raised) => {
                let at = clock(self.at_ms);
                let Replica { store, core, .. } = self.replicas.get_mut(&node).unwrap();
                store.raise_purge_horizons(&raised).unwrap();
                core.raised(mono, at, true);
            }
            Effect::Purge { slots, keys } => {
                let Replica { store, core, .. } = self.replicas.get_mut(&node).unwrap();
                let steps = store.purge_slots(&slots, keys).unwrap();
                core.purged(mono, Duration::ZERO, Some(steps));
            }
        }
    }

    fn put(&self, nodes: &[u64], key: &[u8], at_ms: u64, value: Option<&[u8]>) {
        for node in nodes {
            let store = &self.replicas[&NodeId(*node)].store;
            let mut batch = store.batch();
            batch.push(&Row {
                key: KeyRef::new(0, key),
                cell: Cell::Register,
                version: Version { hlc: clock(at_ms), node: 1 },
                expiry: None,
                body: value.map_or(Body::Tombstone, Body::Value),
            });
            store.commit(&mut batch).unwrap();
        }
    }

    /// Whether `node` has rows of `key` on its disk.
    fn has_rows(&self, node: u64, key: &[u8]) -> bool {
        let store = &self.replicas[&NodeId(node)].store;
        let slot = u64::from(KeyRef::new(0, key).slot());
        let page = store.scan(None, slot << 18, (slot + 1) << 18, 100, 1 << 20, true).unwrap();
        page.entries.iter().any(|(_, name, _)| name == key)
    }

    fn horizon(&self, node: u64, key: &[u8]) -> PurgeHorizon {
        self.replicas[&NodeId(node)].store.purge_horizon(KeyRef::new(0, key).slot())
    }
}

fn clock(at_ms: u64) -> Hlc {
    Hlc::from_millis(BEGIN_MS + at_ms)
}

#[test]
fn a_deletion_goes_once_it_is_old_and_everywhere() {
    let mut world = World::new(3, 3);
    world.put(&[1, 2, 3], b"k", 0, Some(b"v"));
    world.put(&[1, 2, 3], b"k", 1, None);
    world.put(&[1, 2, 3], b"live", 2, Some(b"v"));
    world.run(GRACE_MS, &[]);
    assert!((1..=3).all(|node| world.has_rows(node, b"k")), "not before the grace period");
    world.run(2 * GRACE_MS, &[]);
    for node in 1..=3 {
        assert!(!world.has_rows(node, b"k") && world.has_rows(node, b"live"));
        assert_eq!(world.horizon(node, b"k"), world.horizon(1, b"k"), "all agree");
    }
    let status = world.replicas[&NodeId(1)].core.status();
    assert_eq!((status.keys, status.rows, status.slots_waiting), (1, 2, 0));
    assert!(status.silent.is_empty() && status.keeping.is_empty() && status.oldest_horizon > Hlc::ZERO);
}

#[test]
fn a_replica_that_is_down_or_not_compared_holds_the_horizon_up() {
    for is_down in [true, false] {
        let mut world = World::new(3, 3);
        world.put(&[1, 2], b"k", 2 * GRACE_MS, None);
        world.run(GRACE_MS, &[]);
        if is_down {
            world.down.insert(NodeId(3));
        }
        world.run(5 * GRACE_MS, &[3]);
        let held = world.horizon(1, b"k");
        assert!((1..=2).all(|node| world.has_rows(node, b"k")), "{held:?}");
        assert!(held.hidden <= clock(GRACE_MS));
        let status = world.replicas[&NodeId(1)].core.status();
        assert_eq!(status.keeping, [NodeId(3)]);
        assert_eq!(status.silent, if is_down { vec![NodeId(3)] } else { Vec::new() });
        // It is back, and has what the others have.
        world.down.clear();
        world.put(&[3], b"k", 2 * GRACE_MS, None);
        world.run(3 * GRACE_MS, &[]);
        assert!((1..=3).all(|node| !world.has_rows(node, b"k")));
    }
}

#[test]
fn a_member_that_keeps_something_holds_the_horizon_up_though_it_is_no_replica() {
    let mut world = World::new(5, 3);
    let replicas: Vec<u64> =
        world.ring.replicas(KeyRef::new(0, b"k").slot()).iter().map(|node| node.0).collect();
    let other = (1..=5).find(|node| !replicas.contains(node)).unwrap();
    world.put(&replicas, b"k", 0, None);
    for _ in 0..150 {
        world.run(20_000, &[]);
        world.floors.insert(NodeId(other), Hlc::ZERO);
    }
    assert!(replicas.iter().all(|&node| world.has_rows(node, b"k")));
    world.run(3 * GRACE_MS, &[]);
    assert!(replicas.iter().all(|&node| !world.has_rows(node, b"k")));
}

#[test]
fn nothing_is_removed_before_another_comparison() {
    let mut world = World::new(3, 3);
    world.put(&[1, 2, 3], b"k", 0, None);
    world.compare(&[]);
    world.at_ms = 3 * GRACE_MS;
    // All is old enough, but only as of long ago; and then as of now.
    for node in 1..=3 {
        world.floors.insert(NodeId(node), clock(world.at_ms));
    }
    world.run(60_000, &[]);
    assert!(world.horizon(1, b"k").hidden < clock(0));
    // With a comparison this earlier horizon is done with, and the next one can be hidden.
    world.compare(&[]);
    world.run(60_000, &[]);
    world.compare(&[]);
    world.run(150_000, &[]);
    let horizon = world.horizon(1, b"k");
    assert!(
        horizon.hidden > clock(0) && horizon.counted == horizon.hidden && horizon.purged < clock(0),
        "{horizon:?}"
    );
    assert!(world.has_rows(1, b"k"));
    world.run(250_000, &[]);
    assert!(world.horizon(1, b"k").purged >= horizon.hidden);
    assert!(!world.has_rows(1, b"k"));
}

#[test]
fn a_restarted_node_goes_on_with_what_it_had_begun() {
    let mut world = World::new(1, 3);
    world.put(&[1], b"k", 0, None);
    let slot = KeyRef::new(0, b"k").slot();
    let reached = clock(1);
    let Replica { store, core, .. } = world.replicas.get_mut(&NodeId(1)).unwrap();
    let horizon = PurgeHorizon { hidden: reached, counted: reached, purged: reached };
    store.raise_purge_horizons(&[(slot, horizon)]).unwrap();
    let horizons = |slot| store.purge_horizon(slot);
    *core = Purge::new(NodeId(1), GRACE, Arc::clone(&world.ring), horizons, MonoMicros(0), clock(0));
    world.run(5_000, &[]);
    assert!(!world.has_rows(1, b"k"));
}

#[test]
fn a_single_node_purges_by_itself() {
    let mut world = World::new(1, 3);
    world.put(&[1], b"k", 0, None);
    world.run(3 * GRACE_MS, &[]);
    assert!(!world.has_rows(1, b"k"));
}

#[test]
fn failures_are_tried_again_and_foreign_messages_ignored() {
    let ring = ring(2, 2);
    let none = |_| PurgeHorizon::default();
    let mut core = Purge::new(NodeId(1), GRACE, ring, none, MonoMicros(0), clock(0));
    assert!(core.receive(MonoMicros(0), NodeId(2), b"x").is_err());
    let reached = SlotReport { verified: clock(9), hidden: clock(8), settled: clock(7) };
    let reports = [Report { first: 0, last: 5, reached }, Report { first: 9, last: 9, reached }];
    let message = PurgeMessage { number: 1, part: 0, is_last: true, reports: reports.to_vec() };
    core.receive(MonoMicros(0), NodeId(3), &message.encode()).unwrap();
    core.receive(MonoMicros(0), NodeId(1), &message.encode()).unwrap();
    assert_eq!(core.peers.of(MonoMicros(0), NodeId(2), 4), None);
    core.receive(MonoMicros(0), NodeId(2), &message.encode()).unwrap();
    assert_eq!(core.peers.of(MonoMicros(0), NodeId(2), 4), Some(reached));
    assert_eq!(core.peers.of(MonoMicros(0), NodeId(2), 6), None);
    assert_eq!(core.peers.of(MonoMicros(0) + statements::TTL * 2, NodeId(2), 4), None);
    core.peer_down(NodeId(2));
    assert_eq!(core.peers.of(MonoMicros(0), NodeId(2), 4), None);
    core.raising = Some(vec![(0, PurgeHorizon { hidden: clock(1), ..PurgeHorizon::default() })]);
    core.raised(MonoMicros(0), clock(0), false);
    assert_eq!(core.own[0].horizon, PurgeHorizon::default());
    core.waiting.insert(3, Pass::of(clock(1)));
    core.removal = Removal::Running { slots: vec![(3, Pass::of(clock(1)))] };
    core.purged(MonoMicros(0), Duration::ZERO, None);
    assert!(core.waiting.contains_key(&3));
}

#[test]
fn a_slot_is_done_with_a_horizon_once_no_key_is_left_alone() {
    let none = |_| PurgeHorizon::default();
    let mut core = Purge::new(NodeId(1), GRACE, ring(1, 1), none, MonoMicros(0), clock(0));
    let reached = |at| PurgeHorizon { hidden: clock(at), counted: clock(at), purged: clock(at) };
    let raise = |core: &mut Purge, at| {
        core.raising = Some(vec![(3, reached(at))]);
        core.raised(MonoMicros(0), clock(0), true);
    };
    let at = MonoMicros(10_000_000);
    let step = |core: &mut Purge, busy, next| {
        let mut effects = Vec::new();
        core.removal = Removal::Idle { until: at };
        core.remove(at, &mut effects);
        core.purged(at, Duration::ZERO, Some(vec![PurgeStep { busy, next, ..PurgeStep::default() }]));
        effects
    };
    let from = |from| [Effect::Purge { slots: vec![(3, from)], keys: 256 }];
    raise(&mut core, 1);
    assert_eq!(step(&mut core, 1, Some(7)), from(None));
    assert_eq!(step(&mut core, 0, None), from(Some(7)));
    assert_eq!(core.own[3].removed, Hlc::ZERO, "a key was left alone");
    assert_eq!(step(&mut core, 0, Some(7)), from(None));
    raise(&mut core, 2);
    assert_eq!(step(&mut core, 0, Some(7)), from(None), "from the beginning for the later horizon");
    // It rises while a step is under way.
    core.removal = Removal::Idle { until: at };
    core.remove(at, &mut Vec::new());
    raise(&mut core, 3);
    core.purged(at, Duration::ZERO, Some(vec![PurgeStep::default()]));
    assert_eq!((core.own[3].removed, core.waiting.len()), (Hlc::ZERO, 1));
    assert_eq!(step(&mut core, 0, None), from(None));
    assert_eq!((core.own[3].removed, core.waiting.len()), (clock(3), 0));
}

#[test]
fn a_step_takes_many_slots_and_goes_on_where_it_stopped() {
    let none = |_| PurgeHorizon::default();
    let mut core = Purge::new(NodeId(1), GRACE, ring(1, 1), none, MonoMicros(0), clock(0));
    let reached = PurgeHorizon { hidden: clock(1), counted: clock(1), purged: clock(1) };
    core.raising = Some((0..300).map(|slot| (slot, reached)).collect());
    core.raised(MonoMicros(0), clock(0), true);
    let at = MonoMicros(10_000_000);
    let start = |core: &mut Purge| {
        let mut effects = Vec::new();
        core.removal = Removal::Idle { until: at };
        core.remove(at, &mut effects);
        let Some(Effect::Purge { slots, .. }) = effects.pop() else { panic!("nothing to do") };
        slots
    };
    let slots = start(&mut core);
    assert_eq!((slots.len(), slots[0], slots[255]), (256, (0, None), (255, None)));
    // It comes to three of them, and to the end of two.
    let half = PurgeStep { next: Some(7), looked_at: 256, ..PurgeStep::default() };
    core.purged(at, Duration::ZERO, Some(vec![PurgeStep::default(), PurgeStep::default(), half]));
    assert_eq!((core.waiting.len(), core.own[1].removed, core.own[2].removed), (298, clock(1), Hlc::ZERO));
    let slots = start(&mut core);
    assert_eq!((slots[0], slots[1]), ((2, Some(7)), (3, None)));
    core.purged(at, Duration::ZERO, Some(vec![PurgeStep::default(); slots.len()]));
    // The last of them, and no more.
    assert_eq!(start(&mut core).len(), 300 - 258);
    core.purged(at, Duration::ZERO, Some(vec![PurgeStep::default(); 42]));
    assert!(core.waiting.is_empty() && core.own[..300].iter().all(|own| own.removed == clock(1)));
}

/// What began at nothing beside a tombstone that is still there must not be taken for a part of it.
#[test]
fn nothing_more_is_hidden_before_what_is_counted_is_removed() {
    let mut world = World::new(3, 3);
    world.put(&[1, 2, 3], b"k", 0, None);
    world.run(2 * GRACE_MS, &[]);
    let slot = KeyRef::new(0, b"k").slot();
    let own = |world: &World| world.replicas[&NodeId(2)].core.own[usize::from(slot)];
    while own(&world).removed < own(&world).horizon.counted || own(&world).removed == Hlc::ZERO {
        world.run(1_000, &[]);
    }
    // As if a key had been left alone ever since.
    world.replicas.get_mut(&NodeId(2)).unwrap().core.own[usize::from(slot)].removed = Hlc::ZERO;
    world.run(3 * GRACE_MS, &[]);
    let (held, other) = (world.horizon(2, b"k"), world.horizon(1, b"k"));
    assert!(held.hidden == held.counted && held.hidden < other.hidden, "{held:?} {other:?}");
}

#[test]
fn statements_come_in_parts_and_bytes_round_trip() {
    let report = |slot: Slot| Report {
        first: slot * 2,
        last: slot * 2 + 1,
        reached: SlotReport { verified: Hlc(u64::from(slot)), ..SlotReport::default() },
    };
    let reports: Vec<Report> = (0..2_500).map(report).collect();
    let messages: Vec<PurgeMessage> = PurgeMessage::cut(7, &reports).collect();
    assert_eq!(messages.len(), 3);
    let ring = ring(2, 2);
    let mut core = Purge::new(NodeId(1), GRACE, ring, |_| PurgeHorizon::default(), MonoMicros(0), clock(0));
    // A part is missing: nothing is believed.
    for message in [&messages[0], &messages[2]] {
        core.receive(MonoMicros(1), NodeId(2), &message.encode()).unwrap();
    }
    assert_eq!(core.peers.of(MonoMicros(1), NodeId(2), 0), None);
    for message in &messages {
        let bytes = message.encode();
        assert_eq!(PurgeMessage::decode(&bytes), Ok(message.clone()));
        assert!(bytes.len() < 32 << 10);
        core.receive(MonoMicros(1), NodeId(2), &bytes).unwrap();
        for cut in [0, 5, 11, bytes.len() - 1] {
            assert!(PurgeMessage::decode(&bytes[..cut]).is_err());
        }
    }
    assert_eq!(core.peers.of(MonoMicros(1), NodeId(2), 4_999).map(|said| said.verified), Some(Hlc(2_499)));
    let overlapping = PurgeMessage { reports: vec![report(1), report(1)], ..messages[0].clone() };
    assert!(PurgeMessage::decode(&overlapping.encode()).is_err());
}

#[test]
fn leftovers_are_forgotten_unless_they_are_young_hinted_or_counted_on() {
    let ring = ring(5, 3);
    let name = |number: usize| format!("k{number}").into_bytes();
    let is_foreign = |key: &[u8]| !ring.is_replica(NodeId(1), KeyRef::new(0, key).slot());
    let foreign: Vec<Vec<u8>> = (0..).map(name).filter(|key| is_foreign(key)).take(4).collect();
    let own = (0..).map(name).find(|key| !is_foreign(key)).unwrap();
    let store = Store::in_memory();
    let put = |key: &[u8], at_ms: u64, actor: Option<u64>, target: Option<u64>| {
        let mut batch = store.batch();
        let cell = actor.map_or(Cell::Register, |actor| Cell::Counter { actor });
        let body = actor.map_or(Body::Value(b"v"), |_| Body::Counter { base: Version::ZERO, sum: 1 });
        let version = Version { hlc: clock(at_ms), node: 2 };
        let key = KeyRef::new(0, key);
        batch.push(&Row { key, cell, version, expiry: None, body });
        if let Some(target) = target {
            store.hint(&mut batch, target, key, version);
        }
        store.commit(&mut batch).unwrap();
    };
    put(&own, 1, None, None);
    put(&foreign[0], 2, None, None);
    let keeper = Keeper { node: NodeId(1), actor: 9 };
    let floor_at =
        |at_ms: u64, before_ms: u64| floor(&store, &ring, keeper, clock(at_ms), clock(before_ms)).unwrap();
    assert_eq!(floor_at(10, 2), clock(2), "it is young");
    assert_eq!(floor_at(10, 3), clock(10));
    let read = |key: &[u8]| store.read(KeyRef::new(0, key)).unwrap();
    assert!(read(&foreign[0]).is_absent() && read(&own) != Record::ABSENT);
    put(&foreign[1], 4, Some(9), None);
    put(&foreign[2], 5, Some(8), None);
    assert_eq!(floor_at(10, 8), clock(4), "this process goes on from its cell");
    assert!(read(&foreign[2]).is_absent());
    put(&foreign[3], 3, None, Some(4));
    assert_eq!(floor_at(10, 8), clock(3));
    assert!(!read(&foreign[3]).is_absent(), "a hint names it");
    store.mark_slots(&[(KeyRef::new(0, &foreign[3]).slot(), clock(3))]).unwrap();
    assert_eq!(floor_at(10, 8), Hlc::ZERO, "a mark says nothing of how old it is");
}
