//! Writes with a context against causal histories, over records that rows reach one by one; and the bounds.

use std::collections::{BTreeMap, BTreeSet};

use gyre_storage::{KeyRef, View};
use proptest::prelude::*;

use super::super::{Modify, apply, apply_in_context, seen_in_context};
use super::*;

const NOW: UnixMillis = UnixMillis(1_000);
const NODES: usize = 3;
const CLIENTS: usize = 3;

/// One thing that happens. Sets of nodes are bit masks.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client reads from some nodes at once.
    Get { client: usize, nodes: u8 },
    /// A client writes through a node, which reads some nodes; the row reaches some.
    Put { client: usize, node: usize, read: u8, reached: u8, is_blind: bool },
    /// As above, VC.DEL.
    Delete { client: usize, node: usize, read: u8, reached: u8 },
    /// SET, or DEL, by the clock of a node; the row reaches some nodes.
    Plain { node: usize, reached: u8, is_deletion: bool, behind: u64 },
    /// A node takes in what another one holds.
    Sync { from: usize, to: usize },
    /// A node loses its disk and goes on as another actor.
    Lose { node: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let (node, client, mask) = (0..NODES, 0..CLIENTS, 0..1u8 << NODES);
    prop_oneof![
        4 => (client.clone(), mask.clone()).prop_map(|(client, nodes)| Step::Get { client, nodes }),
        6 => (client.clone(), node.clone(), mask.clone(), mask.clone(), any::<bool>()).prop_map(
            |(client, node, read, reached, is_blind)| Step::Put { client, node, read, reached, is_blind }
        ),
        2 => (client, node.clone(), mask.clone(), mask.clone())
            .prop_map(|(client, node, read, reached)| Step::Delete { client, node, read, reached }),
        1 => (node.clone(), mask, any::<bool>(), 0..60u64)
            .prop_map(|(node, reached, is_deletion, behind)| Step::Plain { node, reached, is_deletion, behind }),
        3 => (node.clone(), node.clone()).prop_map(|(from, to)| Step::Sync { from, to }),
        1 => node.prop_map(|node| Step::Lose { node }),
    ]
}

/// A write of the model: on which base, and what it has replaced.
#[derive(Clone, Debug, Default)]
struct Fact {
    base: Version,
    replaced: BTreeSet<u64>,
    is_plain: bool,
    is_deletion: bool,
}

/// What is known: every write, with what it replaced.
#[derive(Clone, Debug, Default)]
struct History(BTreeMap<u64, Fact>);

impl History {
    fn base(&self) -> Version {
        self.0.values().map(|fact| fact.base).max().unwrap_or_default()
    }

    /// The writes on the newest base that none on it is known to have replaced.
    fn maxima(&self) -> BTreeSet<u64> {
        let base = self.base();
        let current = || self.0.iter().filter(|(_, fact)| fact.base == base);
        let replaced: BTreeSet<u64> = current().flat_map(|(_, fact)| fact.replaced.iter().copied()).collect();
        current()
            .filter(|(write, fact)| !fact.is_deletion && !replaced.contains(write))
            .map(|(write, _)| *write)
            .collect()
    }

    fn known(&self) -> BTreeSet<u64> {
        self.0.iter().flat_map(|(write, fact)| fact.replaced.iter().copied().chain([*write])).collect()
    }

    fn join(&mut self, other: &History) {
        self.0.extend(other.0.iter().map(|(write, fact)| (*write, fact.clone())));
    }
}

/// A node, twice: the record it holds, and what it knows.
#[derive(Clone, Default)]
struct Node {
    record: Record,
    history: History,
    actor: u64,
}

struct World {
    nodes: Vec<Node>,
    contexts: Vec<(CausalContext, BTreeSet<u64>)>,
    next: u64,
}

fn key() -> KeyRef<'static> {
    KeyRef::new(0, b"cart")
}

impl World {
    fn new() -> World {
        let node = |index| Node { actor: index as u64 + 1, ..Node::default() };
        World { nodes: (0..NODES).map(node).collect(), contexts: vec![Default::default(); CLIENTS], next: 1 }
    }

    /// What a read of `nodes` shows, and what they know.
    fn read(&self, nodes: u8) -> (Record, History) {
        let read = self.nodes.iter().enumerate().filter(|(index, _)| nodes & 1 << index != 0);
        read.fold(Default::default(), |(record, mut history), (_, node)| {
            history.join(&node.history);
            (record.merge(&node.record), history)
        })
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Get { client, nodes } => {
                let (record, history) = self.read(nodes);
                agrees(&record, &history);
                self.contexts[client] = (CausalContext::of(&record), history.known());
            }
            Step::Put { client, node, read, reached, is_blind } => {
                let (context, replaced) =
                    if is_blind { Default::default() } else { self.contexts[client].clone() };
                let value = self.next.to_string();
                let mut bytes = Vec::new();
                context.encode(&mut bytes);
                let set = Modify::SetSibling { context: &bytes, value: value.as_bytes(), expiry: None };
                self.write(node, read, reached, &context, replaced, &set);
            }
            Step::Delete { client, node, read, reached } => {
                let (context, replaced) = self.contexts[client].clone();
                let mut bytes = Vec::new();
                context.encode(&mut bytes);
                let delete = Modify::DeleteSiblings { context: &bytes };
                self.write(node, read, reached, &context, replaced, &delete);
            }
            Step::Plain { node, reached, is_deletion, behind } => {
                let hlc = self.clock(node, 0).saturating_sub(behind * 16).max(1);
                let version = Version { hlc: Hlc(hlc), node: self.next };
                let value = self.next.to_string();
                let row = Record::of_register(version, None, Some(value.as_bytes()).filter(|_| !is_deletion));
                let fact = Fact { base: version, is_plain: true, is_deletion, ..Fact::default() };
                self.deliver(reached | 1 << node, &row, &History([(self.next, fact)].into()));
                self.next += 1;
            }
            Step::Sync { from, to } => {
                let Node { record, history, .. } = self.nodes[from].clone();
                self.deliver(1 << to, &record, &history);
            }
            Step::Lose { node } => {
                let actor = self.nodes[node].actor + NODES as u64;
                self.nodes[node] = Node { actor, ..Node::default() };
            }
        }
        self.nodes.iter().for_each(|node| agrees(&node.record, &node.history));
    }

    /// Clocks of nodes differ.
    fn clock(&self, node: usize, seen: u64) -> u64 {
        (Hlc::from_millis(NOW.0).0 + self.next * 16 + node as u64 * 50).max(seen + 1)
    }

    fn write(
        &mut self,
        node: usize,
        read: u8,
        reached: u8,
        context: &CausalContext,
        replaced: BTreeSet<u64>,
        modify: &Modify<'_>,
    ) {
        let (record, mut history) = self.read(read | 1 << node);
        let seen = seen_in_context(modify, &record).unwrap().hlc.0;
        let hlc = self.clock(node, seen);
        let dot = Dot { event: hlc, actor: self.nodes[node].actor };
        let change = apply_in_context(modify, &record, NOW, dot).unwrap();
        let base = history.base().max(context.base);
        let is_deletion = matches!(modify, Modify::DeleteSiblings { .. });
        // A row tells what the actor knows, but for the value that was written without a context.
        history.0.retain(|_, fact| !fact.is_plain);
        history.0.insert(self.next, Fact { base, replaced, is_plain: false, is_deletion });
        self.next += 1;
        let Some(row) = change.row else { return };
        let version = Version { hlc: Hlc(hlc), node: node as u64 + 1 };
        self.deliver(reached | 1 << node, &Record::of_row(&row.row(key(), version)), &history);
    }

    fn deliver(&mut self, nodes: u8, rows: &Record, history: &History) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if nodes & 1 << index != 0 {
                node.record = node.record.merge(rows);
                node.history.join(history);
            }
        }
    }
}

/// A record shows exactly the causal maxima of what is known: none lost, none false.
fn agrees(record: &Record, history: &History) {
    let shown: Vec<u64> = record.siblings(NOW).iter().map(|sibling| number(sibling.value)).collect();
    assert_eq!(shown.iter().copied().collect::<BTreeSet<u64>>(), history.maxima(), "{record:?}\n{history:?}");
    assert_eq!(record.view(NOW).map(number), shown.first().copied());
    assert_eq!(&Record::decode(record.encoded()).unwrap(), record);
}

fn number(view: View<'_>) -> u64 {
    match view {
        View::Bytes(bytes) => std::str::from_utf8(bytes).unwrap().parse().unwrap(),
        View::Integer(number) => number.try_into().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn reads_show_exactly_the_causal_maxima(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut world = World::new();
        steps.into_iter().for_each(|step| world.step(step));
        let (everything, known) = world.read(u8::MAX);
        agrees(&everything, &known);
        for node in &world.nodes {
            let missing = everything.rows_missing_in(&node.record, key());
            let repaired = missing.fold(node.record.clone(), |record, row| record.merge(&Record::of_row(&row)));
            prop_assert_eq!(repaired.digest(), everything.digest());
        }
    }
}

/// A key that only one node writes.
#[derive(Default)]
struct Single {
    record: Record,
    writes: u64,
}

impl Single {
    fn run(&mut self, modify: &Modify<'_>, actor: u64) -> Change {
        let event = seen_in_context(modify, &self.record).unwrap().hlc.0 + 1;
        let change = if modify.has_context() {
            apply_in_context(modify, &self.record, NOW, Dot { event, actor }).unwrap()
        } else {
            apply(modify, &self.record, NOW, actor).unwrap()
        };
        if let Some(row) = &change.row {
            self.writes += 1;
            let version = Version { hlc: Hlc(event), node: 1 };
            self.record = self.record.merge(&Record::of_row(&row.row(key(), version)));
        }
        change
    }

    fn put(&mut self, context: &[u8], value: &[u8]) -> Change {
        self.run(&Modify::SetSibling { context, value, expiry: None }, 1)
    }

    fn context(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        CausalContext::of(&self.record).encode(&mut bytes);
        bytes
    }

    fn values(&self) -> Vec<Vec<u8>> {
        let text = |value| match value {
            View::Bytes(bytes) => bytes.to_vec(),
            View::Integer(number) => number.to_string().into_bytes(),
        };
        self.record.siblings(NOW).into_iter().map(|sibling| text(sibling.value)).collect()
    }
}

fn plain(version: u64, value: &[u8]) -> Record {
    Record::of_register(Version { hlc: Hlc(version), node: 1 }, None, Some(value))
}

#[test]
fn a_plain_value_that_was_not_seen_stays_beside_what_is_written() {
    let mut key = Single { record: plain(5, b"plain"), writes: 0 };
    let context = key.context();
    key.put(b"", b"blind");
    assert_eq!(key.values(), [&b"blind"[..], b"plain"]);
    key.put(&context, b"seen");
    assert_eq!(key.values(), [&b"seen"[..], b"blind"], "the plain value was seen, the other was not");
}

#[test]
fn a_context_from_before_a_set_does_not_replace_it() {
    let mut key = Single::default();
    key.put(b"", b"first");
    let context = key.context();
    let later = key.record.newest_version().hlc.0 + 10;
    key.record = key.record.merge(&plain(later, b"set"));
    assert_eq!(key.values(), [b"set"], "SET replaces all siblings");
    key.put(&context, b"second");
    assert_eq!(key.values(), [&b"second"[..], b"set"]);
}

#[test]
fn plain_changes_work_on_the_newest_sibling_and_replace_all() {
    let mut key = Single::default();
    key.put(b"", b"1");
    key.put(b"", b"40");
    let change = key.run(&Modify::Add { delta: 2 }, 1);
    assert_eq!(change.reply, ModifyReply::Integer(42));
    assert_eq!(key.values(), [b"42"]);
    assert!(key.record.is_plain());
    key.put(b"", b"7");
    assert_eq!(key.run(&Modify::Append { value: b"x" }, 1).reply, ModifyReply::Integer(2));
    assert_eq!(key.values(), [b"7x"]);
    key.put(b"", b"8");
    assert_eq!(key.run(&Modify::GetDelete, 1).reply, ModifyReply::Bytes(b"8".to_vec()));
    assert!(key.values().is_empty() && key.record.is_plain());
}

#[test]
fn deleting_answers_how_many_values_went_and_writes_only_if_something_was_seen() {
    let mut key = Single { record: plain(5, b"plain"), writes: 0 };
    assert_eq!(key.run(&Modify::DeleteSiblings { context: b"" }, 1).reply, ModifyReply::Integer(0));
    assert_eq!(key.writes, 0);
    key.put(b"", b"a");
    let context = key.context();
    key.put(b"", b"b");
    let delete = Modify::DeleteSiblings { context: &context };
    assert_eq!(key.run(&delete, 1).reply, ModifyReply::Integer(2));
    assert_eq!(key.values(), [b"b"]);
    assert_eq!(key.run(&delete, 1).reply, ModifyReply::Integer(0));
    assert_eq!(key.writes, 3, "the second time there was nothing to do");
    let rest = key.context();
    assert_eq!(key.run(&Modify::DeleteSiblings { context: &rest }, 1).reply, ModifyReply::Integer(1));
    assert!(key.record.view(NOW).is_none() && !key.record.is_absent());
}

#[test]
fn expired_siblings_are_not_shown_and_go_with_the_next_write() {
    let mut key = Single::default();
    let soon = UnixMillis(NOW.0 + 1);
    key.run(&Modify::SetSibling { context: b"", value: b"soon", expiry: Some(soon) }, 1);
    key.put(b"", b"stays");
    assert_eq!(key.values(), [&b"stays"[..], b"soon"]);
    assert_eq!(key.record.siblings(soon).len(), 1);
    let new = Modify::SetSibling { context: b"", value: b"new", expiry: None };
    let change = apply_in_context(&new, &key.record, soon, Dot { event: 1 << 40, actor: 1 }).unwrap();
    let NewBody::Siblings { set, .. } = &change.row.unwrap().body else { panic!("a set") };
    let set = SiblingSet::decode(set).unwrap();
    let kept: Vec<&[u8]> = set.siblings().iter().map(|sibling| sibling.value).collect();
    assert_eq!(kept, [&b"stays"[..], b"new"]);
    let context = key.context();
    key.run(&Modify::SetSibling { context: &context, value: b"late", expiry: Some(NOW) }, 1);
    assert!(key.values().is_empty(), "a time that has passed deletes what was seen");
}

#[test]
fn many_siblings_are_told_and_too_many_are_merged() {
    let mut key = Single::default();
    for count in 1..SIBLINGS_MAX {
        let crowd = key.put(b"", count.to_string().as_bytes()).crowd;
        let told = (count >= SIBLINGS_WARNED).then_some(Crowd::Many { siblings: count });
        assert_eq!((crowd, key.values().len()), (told, count));
    }
    let change = key.put(b"", b"last");
    assert_eq!(change.crowd, Some(Crowd::Merged { dropped: SIBLINGS_MAX - 1 }));
    assert_eq!(key.values(), [b"last"]);
}

#[test]
fn too_many_bytes_are_merged_and_too_long_a_value_is_refused() {
    let mut key = Single::default();
    let long = vec![b'x'; SIBLING_BYTES_MAX];
    for _ in 0..SIBLINGS_BYTES_MAX / SIBLING_BYTES_MAX {
        assert_eq!(key.put(b"", &long).crowd, None);
    }
    assert_eq!(key.put(b"", b"y").crowd, Some(Crowd::Merged { dropped: 4 }));
    assert_eq!(key.values(), [b"y"]);
    let longer = vec![b'x'; SIBLING_BYTES_MAX + 1];
    let set = Modify::SetSibling { context: b"", value: &longer, expiry: None };
    let dot = Dot { event: 1 << 40, actor: 1 };
    assert_eq!(apply_in_context(&set, &key.record, NOW, dot), Err(ModifyError::SiblingTooLong));
}

#[test]
fn a_key_that_many_actors_have_written_moves_to_a_new_base_and_loses_nothing() {
    let mut key = Single::default();
    let mut before = Vec::new();
    for actor in 1..=ACTORS_FOLDED as u64 + 3 {
        before = key.context();
        let value = actor.to_string();
        // Values of the last two are left: each write has seen all but the one before it.
        let context = CausalContext::decode(&before).unwrap();
        let mut seen = context.seen.clone();
        seen.retain(|seen| seen + 1 != actor);
        let mut bytes = Vec::new();
        CausalContext { seen, ..context }.encode(&mut bytes);
        key.run(&Modify::SetSibling { context: &bytes, value: value.as_bytes(), expiry: None }, actor);
        assert_eq!(key.values().len() as u64, 2.min(actor), "actor {actor}");
    }
    let state = key.record.sibling_state();
    assert!(state.set.seen().len() < 10, "{} actors", state.set.seen().len());
    assert!(state.base > Version::ZERO);
    key.put(&before, b"merged");
    assert_eq!(key.values().len(), 2, "a context from before the move still replaces what it has seen");
}

/// Bytes beside the values: of the newest row's value, of the record, of the token.
fn metadata(key: &Single) -> [usize; 3] {
    let values: usize = key.values().iter().map(Vec::len).sum();
    let cell = key.record.sibling_cells().max_by_key(|cell| cell.version).unwrap();
    let held: usize = SiblingSet::decode(cell.set).unwrap().siblings().iter().map(|s| s.value.len()).sum();
    // A row's value is its head, the base, and the set.
    let row = 1 + 16 + cell.set.len() - held;
    let token = CausalContext::of(&key.record).token(7, super::tests::key()).len();
    [row, key.record.encoded().len() - values, token]
}

/// The table of `docs/siblings.md`.
#[test]
fn metadata_at_1_5_and_20_actors_is_what_the_documentation_says() {
    for (actors, merged, concurrent) in [
        (1, [40, 76, 62], [40, 76, 62]),
        (5, [104, 140, 147], [120, 156, 147]),
        (20, [344, 380, 467], [420, 456, 467]),
    ] {
        let value = [b'x'; 64];
        let [mut one, mut all] = [Single::default(), Single::default()];
        for actor in 1..=actors {
            let context = one.context();
            one.run(&Modify::SetSibling { context: &context, value: &value, expiry: None }, actor);
            all.run(&Modify::SetSibling { context: b"", value: &value, expiry: None }, actor);
        }
        assert_eq!((metadata(&one), one.values().len()), (merged, 1), "{actors} actors");
        let count = usize::try_from(actors).unwrap();
        assert_eq!((metadata(&all), all.values().len()), (concurrent, count), "{actors} actors");
    }
}
