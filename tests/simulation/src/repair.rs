//! The shell of anti-entropy: carries out what the production core decides, with the store and the network.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use gyre_cluster::message::Message;
use gyre_cluster::node::NodeId;
use gyre_cluster::repair::{
    Effect, Repair, RepairConfig, ReplicaStore, SlotRun, SlotSet, Ticket, Verified, Work,
};
use gyre_cluster::ring::Ring;
use gyre_cluster::time::MonoMicros;
use gyre_storage::tree::{KeyStates, PrefixRange, RangeSum, RecordPage};
use gyre_storage::{Hlc, KeyRef, Record, Row, SLOTS, Slot, StorageError, Store};

use crate::event::{Event, NodeLocal};
use crate::gossip;
use crate::lapse::Document;
use crate::mutation::Mutation;
use crate::network::WorkerAt;
use crate::node::{Node, Process, node_id};
use crate::queue::{MS, Micros};
use crate::surroundings::Env;

/// Anti-entropy travels on the links of this worker.
const EXCHANGING_WORKER: usize = 0;
const META_VERIFIED: &str = "verified";
/// Under a mutation: of so many slots, the trees of one miss everything.
const MISSED_EVERY: Slot = 4;

/// The core of a process that starts at `now`. `interval` is `None` while nothing is to be compared at all.
pub(crate) fn core(
    node: NodeId,
    actor: u64,
    store: &Store,
    ring: &Arc<Ring>,
    interval: Option<Micros>,
    now: MonoMicros,
) -> Repair {
    let stored = store.meta_get(META_VERIFIED).ok().flatten();
    let verified = stored.and_then(|bytes| Verified::decode(&bytes).ok()).unwrap_or_default();
    let interval = Duration::from_micros(interval.unwrap_or(0));
    let config = RepairConfig { interval, ..RepairConfig::new(node, actor, actor) };
    Repair::new(config, Arc::clone(ring), verified, now)
}

impl Node {
    /// Lets anti-entropy go on, and comes again. Does nothing while it is off.
    pub(crate) fn compare_and_wait(&mut self, env: &mut Env) {
        if env.compare_interval.is_none() {
            return;
        }
        let document = self.process.as_ref().and_then(|process| process.document.as_ref());
        let lapsed = document.map(Document::lapsed).unwrap_or_default();
        self.with_repair(env, |core, now, clock, effects| {
            core.set_lapsed(lapsed);
            core.step(now, clock, effects);
        });
        let Some(process) = &self.process else { return };
        let wait = process.repair.wait().as_micros() as u64;
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Repair };
        env.queue.after(wait.max(MS), event);
    }

    /// Begins with anti-entropy, which was off.
    pub(crate) fn begin_to_compare(&mut self, env: &mut Env) {
        let interval = Duration::from_micros(env.compare_interval.unwrap_or(0));
        for peer in 0..env.network.nodes {
            self.repair_peer_changed(env, peer);
        }
        self.with_repair(env, |core, now, _, _| core.set_limits(now, interval, 2_000));
        self.compare_and_wait(env);
    }

    /// A message has come from `from`.
    pub(crate) fn heed(&mut self, env: &mut Env, from: NodeId, bytes: &[u8]) {
        self.with_repair(env, |core, now, clock, effects| {
            core.receive(now, clock, from, bytes, effects).expect("what was encoded can be decoded");
        });
    }

    /// Does a step with the store.
    pub(crate) fn work(&mut self, env: &mut Env, ticket: Ticket, work: &Work) {
        let Some(Process { store, distortion, .. }) = &mut self.process else { return };
        let replica = Replica { store, env: RefCell::new(env), stored: RefCell::default() };
        let answer = work.run(&replica).ok();
        distortion.committed(replica.stored.into_inner());
        self.with_repair(env, |core, now, clock, effects| core.worked(now, clock, ticket, answer, effects));
    }

    /// A link to `peer` has come or gone, or what gossip says of it.
    pub(crate) fn repair_peer_changed(&mut self, env: &mut Env, peer: usize) {
        let Some(Process { membership, .. }) = &self.process else { return };
        let is_alive = gossip::is_alive(&env.network, membership, self.index, peer);
        self.with_repair(env, |core, now, _, effects| {
            if is_alive {
                core.peer_up(node_id(peer));
            } else {
                core.peer_down(now, node_id(peer), effects);
            }
        });
    }

    /// Calls the core, and carries out what it wants.
    fn with_repair(
        &mut self,
        env: &mut Env,
        call: impl FnOnce(&mut Repair, MonoMicros, Hlc, &mut Vec<Effect>),
    ) {
        let now = self.now(env.queue.now());
        let mut effects = Vec::new();
        let Some(Process { repair, hlc, .. }) = &mut self.process else { return };
        call(repair, now.mono, hlc.mark(now.wall), &mut effects);
        for effect in effects {
            self.carry_out_repair(env, effect);
        }
    }

    fn carry_out_repair(&mut self, env: &mut Env, effect: Effect) {
        let slowness = self.disk_slowness;
        let (index, boot) = (self.index, self.boot);
        let Some(Process { store, repair, hlc, .. }) = &mut self.process else { return };
        match effect {
            Effect::Send { to, bytes } => {
                let clock = hlc.now();
                let at = WorkerAt { node: index, worker: EXCHANGING_WORKER };
                let Env { queue, random, network, names, .. } = env;
                network.send(queue, random, at, names[&to], &Message::Exchange { bytes: &bytes }, clock);
            }
            Effect::Work { ticket, work } => {
                let delay = env.random.below(3 * MS) * slowness;
                let local = NodeLocal::Work { ticket, work: Box::new(work) };
                env.queue.after(delay, Event::Node { node: index, boot, local });
            }
            Effect::ReadMarks => {
                let marks = store.marked_slots().ok();
                self.with_repair(env, |core, now, clock, effects| core.marked(now, clock, marks, effects));
            }
            // What cannot be done on a disk that fails is done again later.
            Effect::ClearMarks(marks) => drop(store.clear_marks(&marks)),
            Effect::Forget(entries) => {
                entries.iter().for_each(|entry| drop(store.forget(entry.key(), &entry.record)));
            }
            Effect::Save(bytes) => repair.saved(store.meta_put(META_VERIFIED, &bytes).is_ok()),
            Effect::Ended { moved, trouble, .. } => {
                env.exchanged += moved.rows_pulled + moved.rows_pushed;
                env.exchanges += u64::from(trouble.is_none());
            }
        }
    }

    /// Whether this node has compared everything with all who keep the same since `clock`, and no slot is marked.
    pub(crate) fn has_compared_since(&self, ring: &Ring, clock: Hlc) -> bool {
        let Some(process) = &self.process else { return false };
        let is_marked = process.store.marked_slots().map_or(true, |marks| !marks.is_empty());
        let verified = process.repair.verified();
        let is_verified = |slot: Slot| {
            let known = verified.slot(ring, node_id(self.index), slot);
            known.is_none_or(|known| known.before() >= clock)
        };
        !is_marked && (0..SLOTS).all(is_verified)
    }
}

/// The store of a node, with what watches it.
struct Replica<'a> {
    store: &'a Store,
    env: RefCell<&'a mut Env>,
    stored: RefCell<Vec<(Vec<u8>, Record)>>,
}

impl ReplicaStore for Replica<'_> {
    fn sums(&self, ranges: &[PrefixRange]) -> Result<Vec<RangeSum>, StorageError> {
        let mut sums = self.store.tree_sums(ranges)?;
        if self.env.borrow().mutation == Some(Mutation::TreeMissesLeaf) {
            for (range, sum) in ranges.iter().zip(&mut sums) {
                for missed in self.store.tree_sums(&missed(*range))? {
                    sum.sum = sum.sum.wrapping_sub(missed.sum);
                    sum.keys -= missed.keys;
                }
            }
        }
        Ok(sums)
    }

    fn key_states(&self, range: PrefixRange, keys_max: usize) -> Result<KeyStates, StorageError> {
        self.store.key_states(range, keys_max)
    }

    fn records_of(
        &self,
        range: PrefixRange,
        hashes: &[u64],
        bytes_max: usize,
    ) -> Result<RecordPage, StorageError> {
        self.store.records_of(range, hashes, bytes_max)
    }

    fn read(&self, key: KeyRef<'_>) -> Result<Record, StorageError> {
        self.store.read(key)
    }

    fn store(&self, rows: &[Row<'_>]) -> Result<(), StorageError> {
        let mut env = self.env.borrow_mut();
        rows.iter().for_each(|row| env.journal.received(row));
        ReplicaStore::store(self.store, rows)?;
        let stored = rows.iter().map(|row| (row.key.key.to_vec(), Record::of_row(row)));
        self.stored.borrow_mut().extend(stored);
        Ok(())
    }

    fn mark(&self, marks: &[(Slot, Hlc)]) -> Result<(), StorageError> {
        self.store.mark_slots(marks)
    }
}

/// The parts of `range` that a tree with a hole misses.
fn missed(range: PrefixRange) -> Vec<PrefixRange> {
    let slots = (0..SLOTS).filter(|slot| slot % MISSED_EVERY == 1);
    let parts = slots.map(|slot| {
        let whole = PrefixRange::of_slot(slot);
        PrefixRange { from: whole.from.max(range.from), end: whole.end.min(range.end) }
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// The slots of `keys`.
pub(crate) fn slots_of(keys: &[crate::history::Key]) -> Vec<Slot> {
    let runs: Vec<SlotRun> =
        keys.iter().map(|key| key.key_ref().slot()).map(|slot| SlotRun { first: slot, last: slot }).collect();
    SlotSet::of(&runs).iter().collect()
}
