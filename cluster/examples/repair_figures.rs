//! What an exchange costs: bytes and rows between two nodes of a million keys each, real stores and cores, no network;
//! compared with a model that then says what a billion keys cost. A million keys in sixteen slots stand for a billion:
//! each slot holds as many. `docs/anti-entropy.md` has the tables.
//!
//!     cargo run --release -p gyre-cluster --example repair_figures [KEYS]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "figures for people"
)]

use std::collections::VecDeque;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gyre_cluster::node::NodeId;
use gyre_cluster::repair::{Effect, Repair, RepairConfig, SlotSet, Ticket, Verified, Work};
use gyre_cluster::ring::{Ring, RingMember};
use gyre_cluster::time::MonoMicros;
use gyre_storage::tree::PrefixRange;
use gyre_storage::{Body, Cell, Hlc, KeyRef, Row, Store, Version};

const VALUE: [u8; 64] = [7; 64];
const SLOTS: f64 = 16_384.0;
/// Slots that a sample of a larger node has: [`sampled_key`] takes four bits.
const SAMPLE_SLOTS: u64 = 16;
/// How far the model may be off.
const MODEL_ERROR_MAX: f64 = 0.15;
/// Bytes of a frame's head and of a message's kind, which every message has besides.
const FRAME_BYTES: u64 = 15;

struct Node {
    store: Store,
    core: Repair,
    inbox: VecDeque<Vec<u8>>,
    works: VecDeque<(Ticket, Work)>,
}

/// What one exchange took.
struct Cost {
    bytes: u64,
    messages: u64,
    rows: u64,
    keys_listed: u64,
    took: Duration,
}

struct Pair {
    nodes: [Node; 2],
    clock: u64,
    now: MonoMicros,
    /// How its keys are called.
    key: fn(u64) -> String,
}

impl Pair {
    fn new(keys: u64, key: fn(u64) -> String) -> Pair {
        let member = |id| RingMember { id: NodeId(id), rack: None, vnodes: 150 };
        let ring = Arc::new(Ring::build(&[member(1), member(2)], 2));
        let node = |id| {
            let config = RepairConfig {
                interval: Duration::ZERO,
                rate: 1_000_000,
                ..RepairConfig::new(NodeId(id), id, id)
            };
            let core = Repair::new(config, Arc::clone(&ring), Verified::default(), MonoMicros(0));
            Node { store: Store::in_memory(), core, inbox: VecDeque::new(), works: VecDeque::new() }
        };
        let mut pair = Pair { nodes: [node(1), node(2)], clock: 1 << 32, now: MonoMicros(0), key };
        for id in [0, 1] {
            pair.nodes[id].core.peer_up(NodeId(2 - id as u64));
            pair.put(id, 0..keys, 1);
        }
        pair
    }

    fn put(&mut self, node: usize, numbers: impl Iterator<Item = u64>, clock: u64) {
        let store = &self.nodes[node].store;
        let (mut batch, version) = (store.batch(), Version { hlc: Hlc::from_millis(clock), node: 1 });
        for number in numbers {
            let name = (self.key)(number);
            let key = KeyRef::new(0, name.as_bytes());
            batch.push(&Row { key, cell: Cell::Register, version, expiry: None, body: Body::Value(&VALUE) });
            if batch.len() == 1_000 {
                store.commit(&mut batch).unwrap();
                store.sync().unwrap();
            }
        }
        store.commit(&mut batch).unwrap();
        store.sync().unwrap();
    }

    fn sums(&self) -> [u64; 2] {
        [0, 1].map(|id| self.nodes[id].store.tree_sums(&[PrefixRange::ALL]).unwrap()[0].sum)
    }

    /// Has `slots` compared, and answers what that took.
    fn exchange(&mut self, slots: &SlotSet) -> Cost {
        let started = Instant::now();
        let mut cost = Cost { bytes: 0, messages: 0, rows: 0, keys_listed: 0, took: Duration::ZERO };
        let driver = usize::from(!self.nodes[0].core.status(self.now).pairs[0].drives);
        self.nodes[driver].core.request(slots);
        let mut is_over = false;
        while !is_over {
            self.now = self.now + Duration::from_millis(1);
            for id in [0, 1] {
                let mut effects = Vec::new();
                self.clock += 1;
                let (now, clock, node) = (self.now, Hlc(self.clock), &mut self.nodes[id]);
                node.core.step(now, clock, &mut effects);
                while let Some(bytes) = node.inbox.pop_front() {
                    node.core.receive(now, clock, NodeId(2 - id as u64), &bytes, &mut effects).unwrap();
                }
                while let Some((ticket, work)) = node.works.pop_front() {
                    let answer = work.run(&node.store).unwrap();
                    node.core.worked(now, clock, ticket, Some(answer), &mut effects);
                }
                for effect in effects {
                    match effect {
                        Effect::Send { bytes, .. } => {
                            cost.bytes += bytes.len() as u64 + FRAME_BYTES;
                            cost.messages += 1;
                            self.nodes[1 - id].inbox.push_back(bytes);
                        }
                        Effect::Work { ticket, work } => self.nodes[id].works.push_back((ticket, work)),
                        Effect::Ended { moved, trouble, .. } => {
                            assert_eq!(trouble, None);
                            cost.rows += moved.rows_pulled + moved.rows_pushed;
                            cost.keys_listed += moved.keys_listed;
                            is_over = true;
                        }
                        Effect::Save(_) => self.nodes[id].core.saved(true),
                        _ => {}
                    }
                }
            }
        }
        cost.took = started.elapsed();
        cost
    }
}

fn key(number: u64) -> String {
    format!("user:{number:012}")
}

/// The same, as long, in few slots.
fn sampled_key(number: u64) -> String {
    // Scattered, so that keys at even distances come to all slots.
    let tag = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
    format!("{{{tag:03}}}{number:012}")
}

fn sampled_slots() -> SlotSet {
    let mut slots = SlotSet::default();
    (0..1_000).for_each(|number| slots.insert(KeyRef::new(0, sampled_key(number).as_bytes()).slot()));
    assert_eq!(slots.len() as u64, SAMPLE_SLOTS, "each tag has a slot of its own");
    slots
}

/// What a model knows of an exchange beside its keys.
#[derive(Clone, Copy)]
struct Shape {
    /// Parts of the ring that are compared by themselves.
    portions: f64,
    /// Keys of the ranges that each begins with.
    in_range: f64,
}

/// That of `keys` keys on all slots.
fn shape(keys: f64) -> Shape {
    let per_slot = keys / SLOTS;
    // A portion has 65,536 keys or one slot, 4,096 slots at most; the first is 256 slots.
    let slots = (65_536.0 / per_slot).floor().clamp(1.0, 4_096.0);
    let first = 256.0f64;
    let portions = 1.0 + ((SLOTS - first) / slots).ceil();
    Shape { portions, in_range: (per_slot * slots).min(keys) }
}

/// Bytes that an exchange over `keys` keys takes of which `differ` differ, scattered; all messages with their frames.
fn model(keys: f64, differ: f64, Shape { portions, mut in_range }: Shape) -> f64 {
    // Request, answer, and that it is verified.
    let mut bytes = portions * (13.0 + 36.0 + 23.0 + 3.0 * FRAME_BYTES as f64);
    let share = differ / keys;
    let differs = |keys: f64| 1.0 - (1.0 - share).powf(keys);
    while in_range > 8.0 {
        let parts = (in_range / 4.0).floor().clamp(2.0, 16.0);
        let ranges = keys / in_range * differs(in_range);
        let count_bytes = if in_range / parts >= 128.0 { 2.0 } else { 1.0 };
        bytes += ranges * (7.0 + parts * (8.0 + count_bytes));
        in_range /= parts;
    }
    // Keys of a range that differs: one that does, and as many others as usual.
    bytes += keys / in_range * differs(in_range) * (5.0 + 2.0 + 32.0 * (in_range + 1.0));
    // The wish for a record, the record with key and value, and a part of the messages it is sent in.
    let record = 1.0 + 1.0 + 17.0 + 1.0 + 19.0 + VALUE.len() as f64;
    bytes + differ * (7.0 + 8.0 + record + 1.0)
}

fn show(bytes: f64) -> String {
    match bytes {
        b if b < 10e3 => format!("{b:.0} B"),
        b if b < 10e6 => format!("{:.1} kB", b / 1e3),
        b if b < 10e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

fn main() {
    let keys: u64 = env::args().nth(1).map_or(1_000_000, |text| text.parse().unwrap());
    println!("{keys} keys on all slots");
    measure(keys, key, &SlotSet::all(), shape(keys as f64));
    println!("\n{keys} keys in {SAMPLE_SLOTS} slots");
    // Slots that are no neighbours, each a range of its own. How many portions they come to the first exchange tells.
    let sample = Shape { portions: 0.0, in_range: keys as f64 / SAMPLE_SLOTS as f64 };
    measure(keys, sampled_key, &sampled_slots(), sample);
    println!("\n| of 1,000,000,000 keys differ | bytes by the model | for each row that differs |");
    println!("|---|---|---|");
    for share in [0.0, 1e-5, 1e-3, 0.1] {
        let (keys, differ) = (1e9, 1e9 * share);
        let bytes = model(keys, differ, shape(keys));
        let each = if differ == 0.0 { "-".into() } else { show(bytes / differ) };
        println!("| {differ} | {} | {each} |", show(bytes));
    }
}

fn measure(keys: u64, key: fn(u64) -> String, slots: &SlotSet, mut shape: Shape) {
    let mut pair = Pair::new(keys, key);
    let started = Instant::now();
    assert_eq!(pair.sums()[0], pair.sums()[1]);
    println!("hashing took {:.1} s for both", started.elapsed().as_secs_f64());
    println!(
        "| of {keys} keys differ | bytes | messages | keys listed | rows sent | rows sent / differ | model | s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (round, per_million) in [0u64, 10, 1_000, 100_000].into_iter().enumerate() {
        let differ = keys * per_million / 1_000_000;
        let stride = keys.checked_div(differ).unwrap_or(1);
        // Half of them are newer on one side, half on the other.
        for node in [0u64, 1] {
            let numbers = (0..differ).filter(|number| number % 2 == node).map(|number| number * stride);
            pair.put(node as usize, numbers, 10 + round as u64);
        }
        let cost = pair.exchange(slots);
        assert_eq!(pair.sums()[0], pair.sums()[1]);
        if shape.portions == 0.0 {
            shape.portions = (cost.messages / 3) as f64;
        }
        let model = model(keys as f64, differ as f64, shape);
        let ratio = if differ == 0 { "-".into() } else { format!("{:.3}", cost.rows as f64 / differ as f64) };
        println!(
            "| {differ} ({} %) | {} | {} | {} | {} | {ratio} | {} ({:+.0} %) | {:.1} |",
            per_million as f64 / 1e4,
            show(cost.bytes as f64),
            cost.messages,
            cost.keys_listed,
            cost.rows,
            show(model),
            (model / cost.bytes as f64 - 1.0) * 100.0,
            cost.took.as_secs_f64()
        );
        let error = model / cost.bytes as f64 - 1.0;
        assert!(differ < 1_000 || error.abs() <= MODEL_ERROR_MAX, "the model is off by {error}");
    }
}
