//! Replay against a store in memory and targets that answer, are slow, or fail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Body, Cell, Hint, HintStats, Hlc, KeyRef, Record, Row, Store, UnixMillis, Version};
use proptest::prelude::*;

use super::{Effect, HANDOFF_RATE_DEFAULT, Handed, Handoff, HandoffConfig};
use crate::node::NodeId;
use crate::ring::{Ring, RingMember};
use crate::time::{MonoMicros, Now};

const HERE: NodeId = NodeId(1);
const ACTOR: u64 = 11;
const WALL: u64 = 100_000_000;

fn ring(nodes: u64) -> Arc<Ring> {
    let member = |id| RingMember { id: NodeId(id), rack: None, vnodes: 16 };
    Arc::new(Ring::build(&(1..=nodes).map(member).collect::<Vec<_>>(), 3))
}

/// Names of keys that node 1 is, or is not, a replica of among `nodes`.
fn keys(nodes: u64, is_replica: bool) -> impl Iterator<Item = String> {
    let ring = ring(nodes);
    (0..)
        .map(|n| format!("key-{n}"))
        .filter(move |key| ring.is_replica(HERE, KeyRef::new(0, key.as_bytes()).slot()) == is_replica)
}

fn version(hlc: u64) -> Version {
    Version { hlc: Hlc(WALL << 16 | hlc), node: 9 }
}

/// A handoff over a store, and targets that hold what they were given.
struct World {
    handoff: Handoff,
    store: Store,
    now: Now,
    held: BTreeMap<NodeId, BTreeMap<Vec<u8>, Record>>,
    /// Hand-overs that were asked for and have not ended.
    open: Vec<(NodeId, Hint)>,
    other: Vec<Effect>,
    page_limit: usize,
}

impl World {
    fn new(nodes: u64) -> World {
        World::settling(nodes, Duration::ZERO)
    }

    fn settling(nodes: u64, settle: Duration) -> World {
        let now = Now { mono: MonoMicros(5_000_000), wall: UnixMillis(WALL) };
        let config = HandoffConfig { settle, ..HandoffConfig::new(HERE, ACTOR) };
        World {
            handoff: Handoff::new(config, ring(nodes), now.mono),
            store: Store::in_memory(),
            now,
            held: BTreeMap::new(),
            open: Vec::new(),
            other: Vec::new(),
            page_limit: usize::MAX,
        }
    }

    /// This node stores a row, with hints for `targets`.
    fn write(&self, key: &str, hlc: u64, targets: &[NodeId]) {
        let row = Row {
            key: KeyRef::new(0, key.as_bytes()),
            cell: Cell::Register,
            version: version(hlc),
            expiry: None,
            body: Body::Value(b"value"),
        };
        self.write_row(&row, targets);
    }

    fn write_row(&self, row: &Row<'_>, targets: &[NodeId]) {
        let mut batch = self.store.batch();
        batch.push(row);
        for target in targets {
            self.store.hint(&mut batch, target.0, row.key, row.version);
        }
        self.store.commit(&mut batch).unwrap();
    }

    fn step(&mut self) {
        let mut effects = Vec::new();
        self.handoff.step(self.now, &self.store.hint_stats(), &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::ReadPage { target, after, limit } => {
                let limit = limit.min(self.page_limit);
                let page = self.store.hints_page(target.0, after.as_ref(), limit).unwrap();
                self.handoff.page(self.now.mono, target, Some(page));
            }
            Effect::HandOff { target, hint } => self.open.push((target, hint)),
            Effect::Drop { target, handed } => {
                let hints: Vec<Hint> = handed.iter().map(|handed| handed.hint.clone()).collect();
                self.store.drop_hints(target.0, &hints).unwrap();
                for Handed { hint, forget } in handed {
                    if let Some(record) = forget {
                        self.store.forget(hint.key(), &record).unwrap();
                    }
                }
                self.handoff.dropped(target);
            }
            Effect::Expire { pass, before, limit } => {
                let pass = self.store.expire_hints(pass, before, limit).unwrap();
                self.handoff.expired(self.now.mono, pass);
            }
            Effect::Close { target } => {
                self.store.close_hints(target.0, true);
                self.other.push(effect);
            }
            Effect::Open { target } => {
                self.store.close_hints(target.0, false);
                self.other.push(effect);
            }
        }
    }

    /// Ends the oldest open hand-over.
    fn end(&mut self, is_acknowledged: bool) {
        let (target, hint) = self.open.remove(0);
        let record = is_acknowledged.then(|| self.store.read(hint.key()).unwrap());
        if let Some(record) = &record {
            let held = self.held.entry(target).or_default().entry(hint.key.clone()).or_default();
            *held = held.merge(record);
        }
        self.handoff.handed(self.now.mono, target, hint, record);
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_millis(ms);
        self.now.wall = UnixMillis(self.now.wall.0 + ms);
    }

    /// Steps and acknowledges everything, for so many rounds of 10 ms.
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.wait(10);
            self.step();
            while !self.open.is_empty() {
                self.end(true);
            }
        }
    }

    fn pending(&self) -> u64 {
        self.store.hint_stats().iter().map(|stat| stat.keys).sum()
    }
}

#[test]
fn nothing_is_replayed_to_a_target_that_is_down() {
    let mut world = World::new(5);
    world.write("a", 1, &[NodeId(2)]);
    world.run(100);
    assert_eq!((world.pending(), world.held.len()), (1, 0));
    world.handoff.peer_up(NodeId(2));
    world.run(10);
    assert_eq!(world.pending(), 0);
    assert_eq!(world.held[&NodeId(2)][&b"a"[..]].base(), version(1));
}

#[test]
fn a_hint_stays_until_the_target_has_acknowledged() {
    let mut world = World::new(5);
    world.write("a", 1, &[NodeId(2)]);
    world.handoff.peer_up(NodeId(2));
    world.wait(10);
    world.step();
    world.step();
    assert_eq!((world.open.len(), world.pending()), (1, 1), "in flight once, and still there");
    world.end(false);
    world.wait(900);
    world.step();
    assert_eq!((world.open.len(), world.pending()), (0, 1), "left alone after a failure");
    world.wait(200);
    world.step();
    world.step();
    assert_eq!(world.open.len(), 1);
    world.end(true);
    world.step();
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_row_missed_during_its_replay_is_replayed_again() {
    let mut world = World::new(5);
    world.write("a", 1, &[NodeId(2)]);
    world.handoff.peer_up(NodeId(2));
    world.wait(10);
    world.step();
    world.step();
    // The target has the first row; the second is missed before the hint is removed.
    world.end(true);
    world.write("a", 2, &[NodeId(2)]);
    world.step();
    assert_eq!(world.pending(), 1, "the hint is of another row now");
    world.run(10);
    assert_eq!(world.pending(), 0);
    assert_eq!(world.held[&NodeId(2)][&b"a"[..]].base(), version(2));
}

#[test]
fn the_rate_bounds_all_targets_together_and_each_by_its_share() {
    let mut world = World::new(5);
    for n in 0..2_000 {
        world.write(&format!("key-{n}"), n, &[NodeId(2), NodeId(3)]);
    }
    world.handoff.set_limits(500, Duration::from_secs(3_600));
    world.handoff.peer_up(NodeId(2));
    world.handoff.peer_up(NodeId(3));
    world.run(200);
    for node in [2, 3] {
        let count = world.held[&NodeId(node)].len();
        assert!((225..=265).contains(&count), "two seconds at 500 a second from four nodes: {count}");
    }
    let status = world.handoff.status(world.now, &world.store.hint_stats());
    assert!(status.iter().all(|target| (100..=150).contains(&target.rate)), "{status:?}");
    // With one other member all of it may go there, and two targets share the node's rate.
    world.handoff.set_ring(ring(2));
    let before: usize = world.held.values().map(BTreeMap::len).sum();
    world.run(200);
    let counts = [2, 3].map(|node| world.held[&NodeId(node)].len());
    let total = counts[0] + counts[1] - before;
    assert!((900..=1_050).contains(&total), "two seconds at 500 a second: {total}");
    assert!(counts[0].abs_diff(counts[1]) < 100, "in turns: {counts:?}");
}

#[test]
fn a_pause_is_not_followed_by_a_flood() {
    let mut world = World::new(5);
    for n in 0..1_000 {
        world.write(&format!("key-{n}"), n, &[NodeId(2), NodeId(3), NodeId(4)]);
    }
    world.wait(3_600_000);
    for node in [2, 3, 4] {
        world.handoff.peer_up(NodeId(node));
    }
    world.step();
    world.step();
    assert!(world.open.len() <= 3 * 32, "{}", world.open.len());
    while !world.open.is_empty() {
        world.end(true);
    }
    (0..100).for_each(|_| {
        world.step();
        while !world.open.is_empty() {
            world.end(true);
        }
    });
    let done: usize = world.held.values().map(BTreeMap::len).sum();
    assert!(done <= HANDOFF_RATE_DEFAULT as usize / 10, "{done} in no time");
}

#[test]
fn a_target_that_fails_does_not_hold_up_another() {
    let mut world = World::new(5);
    for n in 0..300 {
        world.write(&format!("key-{n}"), n, &[NodeId(2), NodeId(3)]);
    }
    world.handoff.peer_up(NodeId(2));
    world.handoff.peer_up(NodeId(3));
    for _ in 0..200 {
        world.wait(10);
        world.step();
        while let Some((target, _)) = world.open.first() {
            let is_well = *target == NodeId(3);
            world.end(is_well);
        }
    }
    assert_eq!(world.held[&NodeId(3)].len(), 300);
    assert!(!world.held.contains_key(&NodeId(2)));
    world.run(7_000);
    assert_eq!((world.pending(), world.held[&NodeId(2)].len()), (0, 300));
}

#[test]
fn foreign_rows_are_forgotten_once_every_owner_has_them_and_own_rows_stay() {
    let mut world = World::new(8);
    let foreign = keys(8, false).next().unwrap();
    let own = keys(8, true).next().unwrap();
    world.write(&foreign, 1, &[NodeId(2), NodeId(3)]);
    world.write(&own, 1, &[NodeId(2)]);
    world.handoff.peer_up(NodeId(2));
    world.run(10);
    let read = |world: &World, key: &str| world.store.read(KeyRef::new(0, key.as_bytes())).unwrap();
    assert!(!read(&world, &foreign).is_absent(), "another owner has yet to get it");
    world.handoff.peer_up(NodeId(3));
    world.run(10);
    assert_eq!(world.pending(), 0);
    assert!(read(&world, &foreign).is_absent());
    assert!(!read(&world, &own).is_absent());
    assert_eq!(world.store.hint_counts().forgotten, 1);
}

/// A coordinator may yet ask for a hint of a row: for a replica that stays silent.
#[test]
fn rows_kept_for_others_are_replayed_only_when_they_have_settled() {
    let mut world = World::settling(8, Duration::from_secs(10));
    let foreign: Vec<String> = keys(8, false).take(2).collect();
    let own = keys(8, true).next().unwrap();
    world.write(&foreign[0], 1, &[NodeId(2)]);
    world.write(&own, 1, &[NodeId(2)]);
    world.handoff.peer_up(NodeId(2));
    world.run(600);
    assert_eq!(world.held[&NodeId(2)].keys().collect::<Vec<_>>(), [own.as_bytes()], "its own rows at once");
    world.write(&foreign[1], 2, &[NodeId(2)]);
    world.run(500);
    assert_eq!((world.held[&NodeId(2)].len(), world.pending()), (2, 1), "the first has settled");
    // It is kept anew, so it must settle anew.
    world.write(&foreign[1], 1, &[NodeId(2)]);
    world.run(800);
    assert_eq!(world.pending(), 1);
    world.run(500);
    assert_eq!((world.pending(), world.store.hint_counts().forgotten), (0, 2));
}

#[test]
fn a_record_with_a_counter_cell_of_this_node_is_not_forgotten() {
    let mut world = World::new(8);
    let names: Vec<String> = keys(8, false).take(2).collect();
    for (name, actor) in names.iter().zip([ACTOR, ACTOR + 1]) {
        let row = Row {
            key: KeyRef::new(0, name.as_bytes()),
            cell: Cell::Counter { actor },
            version: version(1),
            expiry: None,
            body: Body::Counter { base: Version::ZERO, sum: 5 },
        };
        world.write_row(&row, &[NodeId(2)]);
    }
    world.handoff.peer_up(NodeId(2));
    world.run(10);
    assert_eq!(world.pending(), 0);
    let is_absent = |name: &String| world.store.read(KeyRef::new(0, name.as_bytes())).unwrap().is_absent();
    assert_eq!([is_absent(&names[0]), is_absent(&names[1])], [false, true]);
}

#[test]
fn without_a_ring_nothing_is_forgotten() {
    let mut world = World::new(8);
    world.handoff.set_ring(Arc::new(Ring::empty()));
    world.write("a", 1, &[NodeId(2)]);
    world.handoff.peer_up(NodeId(2));
    world.run(10);
    assert_eq!((world.pending(), world.store.hint_counts().forgotten), (0, 0));
}

#[test]
fn after_the_window_no_hints_are_kept_and_old_ones_go_with_a_mark() {
    let mut world = World::new(5);
    world.handoff.set_limits(2_000, Duration::from_secs(60));
    world.handoff.peer_up(NodeId(3));
    world.write("old", 1, &[NodeId(2)]);
    world.wait(59_000);
    world.step();
    assert!(world.other.is_empty());
    world.wait(2_000);
    world.step();
    world.step();
    assert_eq!(
        world.other,
        [Effect::Close { target: NodeId(2) }],
        "down since the start, for all that is known"
    );
    assert_eq!((world.pending(), world.store.hint_counts().expired), (0, 1));
    world.write("new", 2, &[NodeId(2), NodeId(3)]);
    assert_eq!((world.pending(), world.store.hint_counts().dropped), (1, 1));
    let marked: Vec<u16> = world.store.marked_slots().unwrap().into_iter().map(|(slot, _)| slot).collect();
    let mut expected = ["old", "new"].map(|key| KeyRef::new(0, key.as_bytes()).slot());
    expected.sort_unstable();
    assert_eq!(marked, expected);
    world.handoff.peer_up(NodeId(2));
    world.step();
    assert_eq!(world.other.last(), Some(&Effect::Open { target: NodeId(2) }));
    world.write("newer", 3, &[NodeId(2)]);
    assert!(world.store.hint_stats().iter().any(|stat: &HintStats| stat.target == 2));
}

#[test]
fn a_link_that_comes_and_goes_is_tried_ever_more_rarely() {
    let mut world = World::new(3);
    let target = NodeId(2);
    world.write("k", 1, &[target]);
    let mut tries = Vec::new();
    for second in 0..120 {
        // Up again each second; whatever is sent then is lost with the link.
        world.handoff.peer_up(target);
        world.step();
        world.step();
        if !world.open.is_empty() {
            tries.push(second);
            world.end(false);
        }
        world.handoff.peer_down(world.now.mono, target);
        world.wait(1_000);
    }
    assert_eq!(tries, [1, 2, 4, 8, 16, 32, 64], "1 s, doubled up to a minute");
    world.handoff.peer_up(target);
    for _ in 0..10 {
        world.step();
        if !world.open.is_empty() {
            world.end(true);
        }
        world.wait(1_000);
    }
    assert!(world.held.contains_key(&target), "and served within a minute of its last failure");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Writes, failures, targets that come and go, in any order: in the end every target has the newest row of every key
    /// it missed, no hint is left, and at no time has a hint gone whose row the target lacked.
    #[test]
    fn every_target_gets_everything_whatever_happens(
        script in prop::collection::vec((0..10u8, 0..12u64, 2..5u64), 1..120),
        page_limit in 1..40usize,
    ) {
        let mut world = World::new(7);
        world.page_limit = page_limit;
        let mut missed: BTreeMap<(NodeId, Vec<u8>), Version> = BTreeMap::new();
        for (at, (action, key, node)) in script.into_iter().enumerate() {
            let target = NodeId(node);
            match action {
                0..4 => {
                    let name = format!("key-{key}");
                    world.write(&name, at as u64, &[target]);
                    missed.insert((target, name.into_bytes()), version(at as u64));
                }
                4 => world.handoff.peer_up(target),
                5 => world.handoff.peer_down(world.now.mono, target),
                6..8 if !world.open.is_empty() => world.end(action == 6),
                _ => {
                    world.wait(u64::from(action) * 100);
                    world.step();
                }
            }
            for ((target, key), version) in &missed {
                let has = world.held.get(target).and_then(|held| held.get(key)).is_some_and(|r| r.base() >= *version);
                let hints = world.store.hints_page(target.0, None, usize::MAX).unwrap();
                prop_assert!(has || hints.iter().any(|hint| hint.key == *key), "a hint is gone too early");
            }
        }
        while !world.open.is_empty() {
            world.end(false);
        }
        for node in 2..5 {
            world.handoff.peer_up(NodeId(node));
        }
        world.run(8_000);
        prop_assert_eq!(world.pending(), 0);
    }
}
