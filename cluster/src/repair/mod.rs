//! Anti-entropy: replicas of a slot become equal without anybody reading or writing it.
//!
//! Every two nodes that share slots compare what they hold of them, every [`interval`](RepairConfig::interval), and soon
//! for slots that are [marked](gyre_storage::Store::marked_slots) since some hint could not be kept. What they compare
//! are sums over ranges of ring positions (the store keeps them up; any range has one, however finely either side cuts
//! its tree), then the keys of the ranges that differ; then they send each other the rows that differ, both ways.
//! Merkle trees for this are Dynamo's (DeCandia et al. 2007, section 4.7). Here the hash of a range is a sum of strong
//! hashes instead of a hash of hashes: so any range can be compared with any other, of whatever depth the trees are, and
//! there is no tree to be exchanged node by node. A sum is no protection against keys that are chosen so that their
//! hashes cancel out; whoever can choose them can also delete the keys.
//!
//! Of two nodes one *drives* (a hash of both ids decides), the other [serves](serve) single steps without remembering
//! anything. So there is one exchange between two nodes at a time, and what the driver knows is bounded: the ranges of one
//! descent and the records of one step. An [exchange](exchange) goes through the slots in portions; what is compared stays
//! so when the next portion fails, and is remembered across restarts ([`Verified`]). Everything is paced by one token
//! bucket per node, for steps driven and served.
//!
//! Marked slots that this node is no replica of are [another matter](stray): it stood in for all of their replicas.
//!
//! It is a state machine: the shell calls [`step`](Repair::step) now and then (see [`wait`](Repair::wait)), hands messages
//! and results in, and carries the effects out.

mod compare;
mod exchange;
mod message;
mod pace;
mod pair;
mod replica;
mod schedule;
mod serve;
mod slots;
mod status;
mod stray;
#[cfg(test)]
mod tests;
mod transfer;
mod turns;
mod verified;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Hlc, Slot};

pub use exchange::{Moved, Trouble};
pub use message::{Refusal, RepairMessage};
pub use replica::ReplicaStore;
pub use slots::{SlotRun, SlotSet};
pub use status::{PairState, PairStatus, RepairStatus, Totals};
pub use verified::{Verified, VerifiedSlot};
pub use work::{Answer, Entry, KeyEntry, Place, Split, Want, Work};

use crate::node::NodeId;
use crate::ring::Ring;
use crate::time::MonoMicros;
use crate::wire::Malformed;
use pace::Pace;
use pair::{Pair, drives};
use serve::Served;
use stray::Stray;

/// How often two nodes compare the slots they share, unless configured otherwise.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(600);
/// Records a second that a node sends and takes in for anti-entropy, unless configured otherwise: as many as it hands over
/// for hints.
pub const RATE_DEFAULT: u32 = 2_000;
/// How often the marks of slots are read.
const MARKS_EVERY: Duration = Duration::from_secs(5);
/// Verified times are saved no more often.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// The settings of anti-entropy.
#[derive(Clone, Copy, Debug)]
pub struct RepairConfig {
    /// This node.
    pub node: NodeId,
    /// Names this process: another after each restart.
    pub session: u64,
    /// The actor of this node's counter cells.
    pub actor: u64,
    /// How often two nodes compare the slots they share; zero is never, unless asked to or for marked slots.
    pub interval: Duration,
    /// Records a second; at least 1.
    pub rate: u32,
}

impl RepairConfig {
    /// The default settings.
    #[must_use]
    pub fn new(node: NodeId, session: u64, actor: u64) -> RepairConfig {
        RepairConfig { node, session, actor, interval: INTERVAL_DEFAULT, rate: RATE_DEFAULT }
    }
}

/// Names a step in the call that brings its result. Opaque to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(Asker);

/// For whom a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// The exchange with this peer.
    Exchange { peer: NodeId, id: u64 },
    /// The rows that are kept here for others.
    Stray { id: u64 },
    /// This peer.
    Peer { peer: NodeId, id: u64, clock: Hlc },
}

/// What the shell shall do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this message, without waiting for anything.
    Send {
        /// To whom.
        to: NodeId,
        /// The encoded [`RepairMessage`].
        bytes: Vec<u8>,
    },
    /// Do this step with the node's store, where it may wait for the disk ([`Work::run`]); answered by
    /// [`Repair::worked`].
    Work {
        /// Names the result.
        ticket: Ticket,
        /// The step.
        work: Work,
    },
    /// Read which slots are marked; answered by [`Repair::marked`].
    ReadMarks,
    /// Remove these marks ([`Store::clear_marks`](gyre_storage::Store::clear_marks)). Not answered.
    ClearMarks(Vec<(Slot, Hlc)>),
    /// Forget these records, which were kept for others ([`Store::forget`](gyre_storage::Store::forget)). Not answered.
    Forget(Vec<Entry>),
    /// Save these verified times, on stable storage together with every row committed before; answered by
    /// [`Repair::saved`].
    Save(Vec<u8>),
    /// For the log: an exchange has ended.
    Ended {
        /// With whom.
        peer: NodeId,
        /// What it moved.
        moved: Moved,
        /// Why before its end, if so.
        trouble: Option<Trouble>,
    },
}

/// A marked slot.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The mark, as it is stored.
    clock: Hlc,
    /// When it was first seen so, by this node's hybrid clock and by its other one. What it stands for was stored before.
    seen: Hlc,
    seen_at: MonoMicros,
}

/// Anti-entropy of one node. See the [module](self).
#[derive(Debug)]
pub struct Repair {
    config: RepairConfig,
    ring: Arc<Ring>,
    /// The slots this node is a replica of.
    own: SlotSet,
    pairs: BTreeMap<NodeId, Pair>,
    /// Who is alive, whether it shares slots with this node or not.
    up: BTreeSet<NodeId>,
    /// Whose data the others count on no more ([`crate::topology::Lapse`]): they come back empty, so nothing waits for them.
    lapsed: BTreeSet<NodeId>,
    verified: Verified,
    /// What was saved last, and what is being saved.
    durable: Arc<Verified>,
    saving: Option<Verified>,
    is_changed: bool,
    save_at: MonoMicros,
    pace: Pace,
    /// Something waits for tokens.
    is_slowed: bool,
    last_id: u64,
    served: Served,
    stray: Option<Stray>,
    stray_paused_until: MonoMicros,
    marks: BTreeMap<Slot, Mark>,
    marks_at: MonoMicros,
    is_reading_marks: bool,
    totals: Totals,
}

impl Repair {
    /// Nothing compared but what `verified` says; every node counts as down until [`peer_up`](Repair::peer_up).
    #[must_use]
    pub fn new(config: RepairConfig, ring: Arc<Ring>, verified: Verified, now: MonoMicros) -> Repair {
        let mut repair = Repair {
            config,
            ring: Arc::new(Ring::empty()),
            own: SlotSet::default(),
            pairs: BTreeMap::new(),
            up: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            durable: Arc::new(verified.clone()),
            verified,
            saving: None,
            is_changed: false,
            save_at: now,
            pace: Pace::new(config.rate, now),
            is_slowed: false,
            last_id: 0,
            served: Served::default(),
            stray: None,
            stray_paused_until: now,
            marks: BTreeMap::new(),
            marks_at: now,
            is_reading_marks: false,
            totals: Totals::default(),
        };
        repair.use_ring(now, ring);
        repair
    }

    /// Uses a new ring. Exchanges over slots that are no longer shared end.
    pub fn set_ring(&mut self, now: MonoMicros, ring: Arc<Ring>, effects: &mut Vec<Effect>) {
        if Arc::ptr_eq(&ring, &self.ring) {
            return;
        }
        let before: Vec<(NodeId, SlotSet)> =
            self.pairs.iter().map(|(&peer, pair)| (peer, pair.shared.clone())).collect();
        self.use_ring(now, ring);
        for (peer, shared) in before {
            if self.pairs.get(&peer).is_none_or(|pair| pair.shared != shared) {
                self.end(now, peer, Some(Trouble::RingChanged), effects);
            }
        }
        self.pairs.retain(|_, pair| !pair.shared.is_empty());
        self.stray = None;
    }

    /// Hands rows of others over without these members from now on.
    pub fn set_lapsed(&mut self, lapsed: BTreeSet<NodeId>) {
        self.lapsed = lapsed;
    }

    fn use_ring(&mut self, now: MonoMicros, ring: Arc<Ring>) {
        let node = self.config.node;
        let mut shared: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        self.own = SlotSet::default();
        for slot in (0..gyre_storage::SLOTS).filter(|&slot| ring.is_replica(node, slot)) {
            self.own.insert(slot);
            for &other in ring.replicas(slot).iter().filter(|&&other| other != node) {
                shared.entry(other).or_default().insert(slot);
            }
        }
        for pair in self.pairs.values_mut() {
            pair.shared = SlotSet::default();
        }
        for (peer, slots) in shared {
            let pair = self.pairs.entry(peer).or_insert_with(|| Pair::new(drives(node, peer), peer, now));
            pair.is_up = self.up.contains(&peer);
            pair.wanted.keep(&slots);
            pair.shared = slots;
        }
        if !ring.members().is_empty() {
            self.verified.keep_replicas(&ring, node);
        }
        self.ring = ring;
    }

    /// Uses another interval and another rate from now on.
    pub fn set_limits(&mut self, now: MonoMicros, interval: Duration, rate: u32) {
        self.pace.set_rate(rate);
        self.config.rate = rate;
        if interval != self.config.interval {
            self.config.interval = interval;
            self.pairs.values_mut().for_each(|pair| pair.due_at = pair.due_at.min(now + interval));
        }
    }

    /// `peer` counts as alive. May be told again and again.
    pub fn peer_up(&mut self, peer: NodeId) {
        self.up.insert(peer);
        if let Some(pair) = self.pairs.get_mut(&peer) {
            pair.set_up();
        }
    }

    /// `peer` counts as down. May be told again and again.
    pub fn peer_down(&mut self, now: MonoMicros, peer: NodeId, effects: &mut Vec<Effect>) {
        if !self.up.remove(&peer) {
            return;
        }
        if let Some(pair) = self.pairs.get_mut(&peer) {
            pair.is_up = false;
        }
        self.served.forget(peer);
        if self.stray.as_ref().is_some_and(|stray| stray.needs(peer)) {
            self.end_stray(now);
        }
        self.end(now, peer, Some(Trouble::PeerLost), effects);
    }

    /// Compares those of `slots` that this node shares with others soon, with each of them. Answers with how many.
    pub fn request(&mut self, slots: &SlotSet) -> usize {
        let mut count = 0;
        for pair in self.pairs.values_mut() {
            let mut wanted = slots.clone();
            wanted.keep(&pair.shared);
            count += usize::from(!wanted.is_empty());
            pair.want(&wanted);
        }
        count
    }

    /// As [`request`](Repair::request), of all replicas of `slots` among each other. Answers how many nodes, this one
    /// included, are to do so.
    pub fn request_everywhere(&mut self, slots: &SlotSet, effects: &mut Vec<Effect>) -> usize {
        let mut replicas: BTreeSet<NodeId> = BTreeSet::new();
        slots.iter().for_each(|slot| replicas.extend(self.ring.replicas(slot)));
        replicas.retain(|&replica| self.is_up(replica));
        self.request(slots);
        let count = replicas.len();
        replicas.remove(&self.config.node);
        let message = RepairMessage::Compare { runs: slots.runs() };
        replicas.into_iter().for_each(|replica| self.send(replica, &message, effects));
        count
    }

    /// A message of `from` has arrived.
    ///
    /// # Errors
    /// [`Malformed`] bytes are refused; nothing is changed.
    pub fn receive(
        &mut self,
        now: MonoMicros,
        clock: Hlc,
        from: NodeId,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<(), Malformed> {
        let message = RepairMessage::decode(bytes)?;
        self.totals.bytes_received += bytes.len() as u64;
        match message {
            RepairMessage::Request { id, work } => self.asked(now, clock, from, id, work, effects),
            RepairMessage::Answer { id, session, clock: theirs, answer } => {
                self.answered(now, clock, from, id, Ok((session, theirs, answer)), effects);
            }
            RepairMessage::Refused { id, reason } => {
                self.answered(now, clock, from, id, Err(reason), effects);
            }
            RepairMessage::Verified { session, clock, runs } => {
                let Some(pair) = self.pairs.get_mut(&from) else { return Ok(()) };
                let is_shared = runs.iter().all(|&run| pair.shared.contains_run(run));
                if session == self.config.session && is_shared {
                    pair.wanted.subtract(&SlotSet::of(&runs));
                    pair.verified_at = Some(now);
                    self.verified.note(from, &runs, clock);
                    self.is_changed = true;
                }
            }
            RepairMessage::Compare { runs } => {
                if self.ring.contains(from) {
                    self.request(&SlotSet::of(&runs));
                }
            }
            RepairMessage::Wanted { runs } => {
                if let Some(pair) = self.pairs.get_mut(&from) {
                    let mut wanted = SlotSet::of(&runs);
                    wanted.keep(&pair.shared);
                    pair.want(&wanted);
                }
            }
        }
        self.go_on(now, clock, effects);
        Ok(())
    }

    /// A step is done; `None` says that the store failed.
    pub fn worked(
        &mut self,
        now: MonoMicros,
        clock: Hlc,
        ticket: Ticket,
        answer: Option<Answer>,
        effects: &mut Vec<Effect>,
    ) {
        match ticket.0 {
            Asker::Exchange { peer, id } => self.worked_for_exchange(now, clock, peer, id, answer, effects),
            Asker::Stray { id } => self.worked_for_stray(now, id, answer, effects),
            Asker::Peer { peer, id, clock } => self.worked_for_peer(peer, id, clock, answer, effects),
        }
        self.go_on(now, clock, effects);
    }

    /// The slots that are marked; `None` says that the store failed.
    pub fn marked(
        &mut self,
        now: MonoMicros,
        clock: Hlc,
        marks: Option<Vec<(Slot, Hlc)>>,
        effects: &mut Vec<Effect>,
    ) {
        self.is_reading_marks = false;
        let Some(marks) = marks else { return };
        let known = std::mem::take(&mut self.marks);
        let mark = |(slot, value): (Slot, Hlc)| {
            let same = known.get(&slot).filter(|mark| mark.clock == value).copied();
            (slot, same.unwrap_or(Mark { clock: value, seen: clock, seen_at: now }))
        };
        self.marks = marks.into_iter().map(mark).collect();
        self.want_marked(effects);
    }

    /// The verified times are saved, or could not be.
    pub fn saved(&mut self, is_saved: bool) {
        let Some(saved) = self.saving.take() else { return };
        if is_saved {
            self.durable = Arc::new(saved);
        } else {
            self.is_changed = true;
        }
    }

    /// The verified times as they were saved last: what may be relied upon whatever happens to this node or its peers.
    #[must_use]
    pub fn verified(&self) -> &Arc<Verified> {
        &self.durable
    }

    fn send(&mut self, to: NodeId, message: &RepairMessage, effects: &mut Vec<Effect>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.totals.bytes_sent += bytes.len() as u64;
        effects.push(Effect::Send { to, bytes });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
