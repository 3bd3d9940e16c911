//! Sets against causal histories: after any history of writes, deletions and exchanges each replica holds exactly the
//! causal maxima of what it knows.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const REPLICAS: usize = 4;
const CLIENTS: usize = 3;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client reads at a replica.
    Get { client: usize, replica: usize },
    /// A client writes at a replica, by what it last read, or blindly.
    Put { client: usize, replica: usize, is_blind: bool },
    /// A client deletes at a replica what it last read.
    Delete { client: usize, replica: usize },
    /// A replica takes in what another one knows.
    Sync { from: usize, to: usize },
    /// A replica loses everything and goes on as another actor.
    Lose { replica: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let (replica, client) = (0..REPLICAS, 0..CLIENTS);
    prop_oneof![
        3 => (client.clone(), replica.clone()).prop_map(|(client, replica)| Step::Get { client, replica }),
        4 => (client.clone(), replica.clone(), any::<bool>())
            .prop_map(|(client, replica, is_blind)| Step::Put { client, replica, is_blind }),
        1 => (client, replica.clone()).prop_map(|(client, replica)| Step::Delete { client, replica }),
        4 => (replica.clone(), replica.clone()).prop_map(|(from, to)| Step::Sync { from, to }),
        1 => replica.prop_map(|replica| Step::Lose { replica }),
    ]
}

/// A causal history: the writes known, each with those it has replaced. The model that needs no vector.
#[derive(Clone, Debug, Default)]
struct History(BTreeMap<u64, BTreeSet<u64>>);

impl History {
    fn maxima(&self) -> BTreeSet<u64> {
        let replaced: BTreeSet<u64> = self.0.values().flatten().copied().collect();
        self.0.keys().copied().filter(|write| !replaced.contains(write)).collect()
    }

    fn known(&self) -> BTreeSet<u64> {
        self.0.keys().copied().chain(self.0.values().flatten().copied()).collect()
    }

    fn join(&mut self, other: &History) {
        for (write, replaced) in &other.0 {
            self.0.entry(*write).or_default().extend(replaced);
        }
    }
}

/// Replicas and clients, each twice: as sets and as histories.
struct World {
    sets: Vec<SiblingSet<'static>>,
    histories: Vec<History>,
    actors: Vec<u64>,
    contexts: Vec<(VersionVector, BTreeSet<u64>)>,
    /// Deletions are writes of the model that no set holds.
    deletions: BTreeSet<u64>,
    next: u64,
}

impl World {
    fn new() -> World {
        World {
            sets: vec![SiblingSet::default(); REPLICAS],
            histories: vec![History::default(); REPLICAS],
            actors: (1..=REPLICAS as u64).collect(),
            contexts: vec![Default::default(); CLIENTS],
            deletions: BTreeSet::new(),
            next: 1,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Get { client, replica } => {
                let known = self.histories[replica].known();
                self.contexts[client] = (self.sets[replica].seen().clone(), known);
            }
            Step::Put { client, replica, is_blind } => {
                let (seen, replaced) =
                    if is_blind { Default::default() } else { self.contexts[client].clone() };
                let event = self.event(replica, &seen);
                let set = &mut self.sets[replica];
                set.discard(&seen);
                let value: &'static [u8] = Box::leak(Box::new(self.next.to_be_bytes()));
                set.put(Sibling::new(Dot { event, actor: self.actors[replica] }, None, value));
                self.write(replica, replaced);
            }
            Step::Delete { client, replica } => {
                let (seen, replaced) = self.contexts[client].clone();
                self.sets[replica].discard(&seen);
                self.deletions.insert(self.next);
                self.write(replica, replaced);
            }
            Step::Sync { from, to } => {
                self.sets[to] = self.sets[to].join(&self.sets[from]);
                let other = self.histories[from].clone();
                self.histories[to].join(&other);
            }
            Step::Lose { replica } => {
                self.sets[replica] = SiblingSet::default();
                self.histories[replica] = History::default();
                self.actors[replica] += REPLICAS as u64;
            }
        }
    }

    /// Events jump, as clocks do, and clocks of replicas differ.
    fn event(&self, replica: usize, context: &VersionVector) -> u64 {
        let clock = self.next * 3 % 50 + replica as u64 * 7;
        clock.max(1 + self.sets[replica].seen().newest().max(context.newest()))
    }

    fn write(&mut self, replica: usize, replaced: BTreeSet<u64>) {
        self.histories[replica].0.insert(self.next, replaced);
        self.next += 1;
    }

    fn agrees(&self) {
        for (replica, (set, history)) in self.sets.iter().zip(&self.histories).enumerate() {
            let held: BTreeSet<u64> =
                set.siblings().iter().map(|s| u64::from_be_bytes(s.value.try_into().unwrap())).collect();
            let maxima: BTreeSet<u64> =
                history.maxima().into_iter().filter(|write| !self.deletions.contains(write)).collect();
            assert_eq!(held, maxima, "replica {replica}: {set:?}");
            assert!(set.siblings().iter().all(|sibling| set.seen().covers(sibling.dot)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn replicas_hold_exactly_the_causal_maxima(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.agrees();
        }
    }

    #[test]
    fn join_commutes_associates_and_is_idempotent(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        for a in &world.sets {
            prop_assert_eq!(&a.join(a), a);
            for b in &world.sets {
                let joined = a.join(b);
                prop_assert_eq!(&joined, &b.join(a));
                prop_assert_eq!(a.descends(b), &joined == a);
                for c in &world.sets {
                    prop_assert_eq!(joined.join(c), a.join(&b.join(c)));
                }
            }
        }
    }

    #[test]
    fn sweeping_changes_no_law_and_not_which_set_descends_from_which(
        steps in prop::collection::vec(any_step(), 1..60),
        expiries in prop::collection::vec(0..4u64, 1..20),
        cuts in prop::collection::vec(0..5u64, REPLICAS),
    ) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        let sets = world.sets.clone();
        for (set, cut) in world.sets.iter_mut().zip(&cuts) {
            for sibling in &mut set.siblings {
                // Of a write that is there twice both copies expire at the same time.
                let at = expiries[usize::try_from(sibling.dot.event + sibling.dot.actor).unwrap() % expiries.len()];
                sibling.expiry = (at > 0).then_some(UnixMillis(at));
            }
            let due = set.siblings.iter().filter(|sibling| !sibling.is_live(UnixMillis(*cut))).count();
            prop_assert_eq!(set.sweep(UnixMillis(*cut)), (due > 0).then_some(due * 8));
            prop_assert_eq!((set.swept(), set.sweep(UnixMillis(*cut))), (due, None));
            prop_assert!(set.due_at().is_none_or(|at| at > UnixMillis(*cut)));
        }
        for (a, whole) in world.sets.iter().zip(&sets) {
            prop_assert_eq!(&a.join(a), a);
            for (b, whole_b) in world.sets.iter().zip(&sets) {
                let joined = a.join(b);
                prop_assert_eq!(&joined, &b.join(a));
                prop_assert_eq!(a.descends(b), whole.descends(whole_b));
                for c in &world.sets {
                    prop_assert_eq!(joined.join(c), a.join(&b.join(c)));
                }
                // A value is gone only where everybody who held it has swept it.
                for sibling in joined.siblings() {
                    let is_whole = |set: &SiblingSet<'_>| set.find(sibling.dot).is_some_and(|own| !own.is_swept);
                    prop_assert_eq!(sibling.is_swept, !is_whole(a) && !is_whole(b));
                }
            }
        }
    }

    #[test]
    fn what_was_encoded_is_decoded(steps in prop::collection::vec(any_step(), 1..60), expiry in 1..u64::MAX) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        for (index, mut set) in world.sets.into_iter().enumerate() {
            if let Some(sibling) = set.siblings.first_mut() {
                sibling.expiry = Some(UnixMillis(expiry));
            }
            if index % 2 == 0 {
                set.sweep(UnixMillis(expiry));
            }
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            prop_assert_eq!(SiblingSet::decode(&bytes), Ok(set));
            for end in 0..bytes.len() {
                prop_assert!(SiblingSet::decode(&bytes[..end]).is_err(), "cut at {}", end);
            }
            bytes.push(0);
            prop_assert!(SiblingSet::decode(&bytes).is_err());
        }
    }

    #[test]
    fn decoding_never_panics_and_has_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..80), small: bool) {
        let mut bytes = bytes;
        if small {
            // Small numbers are what counts and lengths must be to get anywhere.
            bytes.iter_mut().for_each(|byte| *byte %= 4);
            bytes.insert(0, 1 + u8::from(bytes.len() % 2 == 0));
        }
        if let Ok(set) = SiblingSet::decode(&bytes) {
            let mut again = Vec::new();
            set.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}

#[test]
fn hostile_counts_are_refused_without_allocating_for_them() {
    for bytes in [
        &[1, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
        &[1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[1, 0, 1, 0, 0, 0, 0],
        &[1, 0x80, 0x00, 0],
        &[2, 0, 0],
        &[3, 0, 0],
        &[],
    ] {
        assert_eq!(SiblingSet::decode(bytes), Err(MalformedSiblings), "{bytes:?}");
    }
}

#[test]
fn the_encoding_is_the_documented_one() {
    let mut set = SiblingSet::default();
    set.put(Sibling::new(Dot { event: 3, actor: 7 }, None, b"ab"));
    set.put(Sibling::new(Dot { event: 5, actor: 7 }, Some(UnixMillis(200)), b"c"));
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    let mut expected = vec![1, 1];
    expected.extend_from_slice(&7u64.to_le_bytes());
    expected.extend_from_slice(&5u64.to_le_bytes());
    expected.extend_from_slice(&[2, 0, 2, 0, 2, 0, 0, 0xc8, 0x01, 1]);
    expected.extend_from_slice(b"abc");
    assert_eq!(bytes, expected);
    assert_eq!(set.sweep(UnixMillis(199)), None);
    assert_eq!(set.sweep(UnixMillis(200)), Some(1));
    let mut swept = Vec::new();
    set.encode(&mut swept);
    expected[0] = 2;
    expected.truncate(18);
    expected.extend_from_slice(&[2, 0, 2, 0, 3, 0, 0, 0xc8, 0x01, 0]);
    expected.extend_from_slice(b"ab");
    assert_eq!(swept, expected);
    // What never expires cannot have been swept, and a set without a swept value has the other format.
    let head = |format: u8, heads: &[u8]| [&[format][..], &swept[1..18], heads].concat();
    for bytes in [head(2, &[1, 0, 0, 0, 0]), head(2, &[1, 0, 0, 0xc8, 0x01, 1]), head(2, &[0])] {
        assert_eq!(SiblingSet::decode(&bytes), Err(MalformedSiblings), "{bytes:?}");
    }
    assert!(SiblingSet::decode(&head(2, &[1, 0, 0, 0xc8, 0x01, 0])).is_ok());
}

/// The case that plain version vectors get wrong (Preguiça et al. 2010, section 2): two clients write through one actor,
/// and the second has not seen what the first wrote.
#[test]
fn two_clients_of_one_actor_are_concurrent() {
    let mut set = SiblingSet::default();
    let put = |set: &mut SiblingSet<'static>, event, value| {
        set.put(Sibling::new(Dot { event, actor: 1 }, None, value));
    };
    put(&mut set, 1, b"base");
    let context = set.seen().clone();
    set.discard(&context);
    put(&mut set, 2, b"first");
    set.discard(&context);
    put(&mut set, 3, b"second");
    let values: Vec<&[u8]> = set.siblings().iter().map(|sibling| sibling.value).collect();
    assert_eq!(values, [&b"first"[..], b"second"]);
    let context = set.seen().clone();
    assert_eq!(set.discard(&context), 2);
}
