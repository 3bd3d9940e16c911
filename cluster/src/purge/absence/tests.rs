//! Claims about absences: who is given up, and above all who is not.

use super::*;
use crate::ring::RingMember;

const GRACE: Duration = Duration::from_secs(3_600);
const STEP: Duration = Duration::from_secs(10);

fn ring(nodes: u64, factor: usize) -> Ring {
    let member = |id| RingMember { id: NodeId(id), rack: None, vnodes: 8 };
    Ring::build(&(1..=nodes).map(member).collect::<Vec<_>>(), factor)
}

/// Nodes that hear of each other at once.
struct World {
    ring: Ring,
    at: MonoMicros,
    nodes: BTreeMap<NodeId, Absences>,
    saved: BTreeMap<NodeId, Vec<u8>>,
    down: BTreeSet<NodeId>,
    empty: BTreeSet<NodeId>,
    lapsed: BTreeSet<NodeId>,
    incarnations: BTreeMap<NodeId, u64>,
}

impl World {
    fn new(nodes: u64, factor: usize) -> World {
        let ring = ring(nodes, factor);
        let at = MonoMicros(0);
        let ids: Vec<NodeId> = ring.members().to_vec();
        World {
            nodes: ids.iter().map(|&id| (id, Absences::new(id, None, at).unwrap())).collect(),
            incarnations: ids.iter().map(|&id| (id, 1)).collect(),
            saved: BTreeMap::new(),
            down: BTreeSet::new(),
            empty: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            ring,
            at,
        }
    }

    fn seen(&self, by: NodeId) -> BTreeMap<NodeId, Seen> {
        let others = self.ring.members().iter().copied().filter(|&id| id != by);
        let seen = |id: NodeId| Seen {
            is_up: !self.down.contains(&id),
            incarnation: self.incarnations[&id],
            is_whole: !self.empty.contains(&id),
            votes: self.nodes[&id].votes().to_vec(),
        };
        others.map(|id| (id, seen(id))).collect()
    }

    /// Lets `time` pass, in steps.
    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_secs() / STEP.as_secs() {
            self.at = self.at + STEP;
            for id in self.ring.members().to_vec() {
                if self.down.contains(&id) {
                    continue;
                }
                let seen = self.seen(id);
                let is_whole = !self.empty.contains(&id);
                let node = self.nodes.get_mut(&id).unwrap();
                for effect in node.step(self.at, GRACE, &self.ring, &seen, &self.lapsed, is_whole) {
                    match effect {
                        AbsenceEffect::Save(bytes) => drop(self.saved.insert(id, bytes)),
                        AbsenceEffect::Lapse(vote) => drop(self.lapsed.insert(vote.member)),
                    }
                }
            }
        }
    }

    fn stop(&mut self, id: u64) {
        self.down.insert(NodeId(id));
    }

    /// A process starts again, with the account it has saved.
    fn start(&mut self, id: u64) {
        let id = NodeId(id);
        self.down.remove(&id);
        *self.incarnations.get_mut(&id).unwrap() += 1;
        let account = Absences::new(id, self.saved.get(&id).map(Vec::as_slice), self.at).unwrap();
        self.nodes.insert(id, account);
    }

    fn lapsed(&self) -> Vec<u64> {
        self.lapsed.iter().map(|id| id.0).collect()
    }
}

#[test]
fn a_member_lapses_once_all_others_have_seen_it_down_for_the_grace_period() {
    let mut world = World::new(3, 3);
    world.stop(3);
    world.run(GRACE - STEP);
    assert!(world.lapsed().is_empty());
    assert_eq!(world.nodes[&NodeId(1)].away(NodeId(3)), Some(GRACE - STEP));
    world.run(3 * STEP);
    assert_eq!(world.lapsed(), [3]);
}

#[test]
fn who_was_seen_in_between_begins_anew() {
    let mut world = World::new(3, 3);
    world.stop(3);
    world.run(GRACE - 2 * STEP);
    world.start(3);
    world.run(STEP);
    world.stop(3);
    world.run(GRACE - STEP);
    assert!(world.lapsed().is_empty());
    world.run(3 * STEP);
    assert_eq!(world.lapsed(), [3]);
}

#[test]
fn a_restart_of_an_observer_forgets_little() {
    let mut world = World::new(3, 3);
    world.stop(3);
    world.run(GRACE / 2);
    world.stop(1);
    world.start(1);
    let kept = world.nodes[&NodeId(1)].away(NodeId(3)).unwrap();
    assert!(kept > GRACE / 2 - GRACE / 60, "{kept:?}");
    world.run(GRACE / 2 + GRACE / 30);
    assert_eq!(world.lapsed(), [3]);
}

#[test]
fn a_cluster_that_was_off_has_seen_nobody_away() {
    let mut world = World::new(3, 3);
    world.run(STEP * 3);
    (1..=3).for_each(|id| world.stop(id));
    world.at = world.at + 100 * GRACE;
    (1..=2).for_each(|id| world.start(id));
    world.run(GRACE / 2);
    assert!(world.lapsed().is_empty(), "the third may need a moment longer");
    world.start(3);
    world.run(2 * GRACE);
    assert!(world.lapsed().is_empty());
}

#[test]
fn a_process_that_was_frozen_has_seen_nothing() {
    let mut world = World::new(3, 3);
    world.stop(3);
    world.run(STEP * 2);
    world.at = world.at + 5 * GRACE;
    world.run(STEP * 2);
    assert!(world.lapsed().is_empty());
}

#[test]
fn a_minority_gives_nobody_up_and_neither_do_halves() {
    for (nodes, down) in [(5, vec![1, 2, 3]), (4, vec![1, 2]), (2, vec![1])] {
        let mut world = World::new(nodes, 3);
        down.into_iter().for_each(|id| world.stop(id));
        world.run(3 * GRACE);
        assert!(world.lapsed().is_empty(), "of {nodes}");
    }
}

#[test]
fn while_another_member_is_down_too_nobody_lapses() {
    let mut world = World::new(5, 3);
    world.stop(4);
    world.run(GRACE / 2);
    world.stop(5);
    world.run(3 * GRACE);
    assert!(world.lapsed().is_empty(), "they share slots: both lost would be too many");
    world.start(5);
    world.run(STEP);
    assert!(world.lapsed().is_empty(), "it has its own account to keep");
    world.run(2 * GRACE);
    assert_eq!(world.lapsed(), [4]);
}

#[test]
fn a_slot_loses_its_next_replica_only_when_it_is_whole_again() {
    let mut world = World::new(4, 3);
    world.stop(4);
    world.run(GRACE + 2 * STEP);
    assert_eq!(world.lapsed(), [4]);
    // It is back with nothing; another one goes before it has been given all.
    world.start(4);
    world.lapsed.clear();
    world.empty.insert(NodeId(4));
    world.stop(1);
    world.run(3 * GRACE);
    assert!(world.lapsed().is_empty());
    world.empty.clear();
    world.run(STEP);
    assert_eq!(world.lapsed(), [1]);
}

#[test]
fn a_lapsed_replica_keeps_the_others_of_its_slots() {
    let mut world = World::new(5, 3);
    world.stop(4);
    world.run(GRACE + 2 * STEP);
    assert_eq!(world.lapsed(), [4]);
    world.stop(5);
    world.run(3 * GRACE);
    assert_eq!(world.lapsed(), [4], "all five share slots");
}

#[test]
fn the_only_replica_of_a_slot_never_lapses() {
    let mut world = World::new(3, 1);
    world.stop(3);
    world.run(3 * GRACE);
    assert!(world.lapsed().is_empty());
}

#[test]
fn accounts_survive_the_trip_and_noise_is_refused() {
    let mut world = World::new(3, 3);
    world.stop(3);
    world.run(GRACE / 2);
    let bytes = world.saved[&NodeId(1)].clone();
    let read = Absences::new(NodeId(1), Some(&bytes), MonoMicros(0)).unwrap();
    assert!(read.away(NodeId(3)) > Some(GRACE / 3));
    for cut in 0..bytes.len() {
        assert!(Absences::new(NodeId(1), Some(&bytes[..cut]), MonoMicros(0)).is_err());
    }
    assert!(Absences::new(NodeId(1), Some(&[9, 0, 0]), MonoMicros(0)).is_err());
    // Back up: the account says so.
    world.start(3);
    world.run(STEP);
    assert_eq!(world.saved[&NodeId(1)], [VERSION, 0, 0]);
}
