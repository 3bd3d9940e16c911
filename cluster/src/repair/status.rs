//! What anti-entropy does and has done, for an operator.

use gyre_storage::{Hlc, Slot};

use super::Repair;
use super::exchange::{Moved, Trouble};
use crate::node::NodeId;
use crate::time::MonoMicros;

/// What was counted since the start. Only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Exchanges that this node drove to their end.
    pub completed: u64,
    /// Exchanges that it had to break off.
    pub failed: u64,
    /// Rows sent to peers.
    pub rows_sent: u64,
    /// Rows that peers have sent.
    pub rows_received: u64,
    /// Bytes of messages sent, of whatever kind.
    pub bytes_sent: u64,
    /// Bytes of messages that have arrived.
    pub bytes_received: u64,
    /// Keys that were compared one by one, as driver.
    pub keys_compared: u64,
    /// Ranges whose sums were compared, as driver.
    pub ranges_compared: u64,
    /// Steps served for peers.
    pub served: u64,
    /// Marked slots of others whose rows were handed over.
    pub strays: u64,
}

impl Totals {
    pub(super) fn add(&mut self, moved: &Moved) {
        self.rows_sent += moved.rows_pushed;
        self.rows_received += moved.rows_pulled;
        self.keys_compared += moved.keys_listed;
        self.ranges_compared += moved.ranges_compared;
    }
}

/// What goes on between this node and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairState {
    /// An exchange is under way.
    Running {
        /// Slots compared.
        done: usize,
        /// Slots to compare in all.
        total: usize,
        /// What it has moved.
        moved: Moved,
        /// How long it has gone on, in milliseconds.
        for_ms: u64,
    },
    /// An exchange is wanted and begins soon, by whoever of the two drives.
    Waiting,
    /// The peer is down.
    Down,
    /// Nothing.
    Idle,
}

/// This node and a peer that it shares slots with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// The peer.
    pub peer: NodeId,
    /// Whether this node drives their exchanges.
    pub drives: bool,
    /// Slots they share.
    pub slots: usize,
    /// Slots that are to be compared soon.
    pub wanted: usize,
    /// What goes on.
    pub state: PairState,
    /// Exchanges that ended well, driven here.
    pub completed: u64,
    /// How often in a row one has failed, and why the last time.
    pub failures: u32,
    /// Why the last exchange was broken off, if it was.
    pub trouble: Option<Trouble>,
    /// How long ago slots were last verified, in milliseconds; `None` if not since the start.
    pub verified_ms_ago: Option<u64>,
    /// The slot that was verified longest ago, and as of when; [`Hlc::ZERO`] is never.
    pub oldest: (Hlc, Slot),
}

/// What anti-entropy does and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairStatus {
    /// By peer.
    pub pairs: Vec<PairStatus>,
    /// What was counted.
    pub totals: Totals,
    /// Slots that are marked here.
    pub marked: usize,
    /// Steps of peers that wait.
    pub waiting: usize,
}

impl RepairStatus {
    /// The slot that was verified longest ago with some peer, and as of when; `None` without other replicas.
    #[must_use]
    pub fn oldest(&self) -> Option<(Hlc, Slot)> {
        self.pairs.iter().map(|pair| pair.oldest).min()
    }
}

impl Repair {
    /// What goes on. Looks at every slot: not to be asked many times a second.
    #[must_use]
    pub fn status(&self, now: MonoMicros) -> RepairStatus {
        let ms = |since: MonoMicros| now.micros_since(since) / 1_000;
        let mut totals = self.totals;
        let mut pairs = Vec::new();
        for (&peer, pair) in self.pairs.iter().filter(|(_, pair)| !pair.shared.is_empty()) {
            let state = match &pair.exchange {
                Some(exchange) => {
                    let (done, total) = exchange.progress();
                    totals.add(&exchange.moved);
                    let (moved, for_ms) = (exchange.moved, ms(exchange.started));
                    PairState::Running { done, total, moved, for_ms }
                }
                None if !pair.is_up => PairState::Down,
                None if !pair.wanted.is_empty() => PairState::Waiting,
                None => PairState::Idle,
            };
            pairs.push(PairStatus {
                peer,
                drives: pair.drives,
                slots: pair.shared.len(),
                wanted: pair.wanted.len(),
                state,
                completed: pair.completed,
                failures: pair.failures,
                trouble: pair.trouble,
                verified_ms_ago: pair.verified_at.map(ms),
                oldest: self.verified.oldest(peer, &pair.shared).unwrap_or_default(),
            });
        }
        RepairStatus { pairs, totals, marked: self.marks.len(), waiting: self.served.waiting_count() }
    }
}
