//! What the workers of a node share (store, locks, clock), and the shell of one worker over it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use gyre_cluster::clock::HybridClock;
use gyre_cluster::coordinator::{LinkId, OpId, Shell, Tag, Ticket};
use gyre_cluster::message::{Message, ScanRange};
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_storage::{KeyRef, Record, Row, UnixMillis, Version};

use crate::network::{Local, Network, Worker};

/// A store, locks and a clock.
pub(crate) struct Machine {
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) skew_ms: u64,
    records: BTreeMap<(u64, u8, Vec<u8>), Record>,
    horizons: [Version; 2],
    locks: HashMap<u64, VecDeque<(usize, OpId)>>,
}

impl Machine {
    pub(crate) fn new(skew_ms: u64) -> Machine {
        Machine {
            clock: Arc::default(),
            skew_ms,
            records: BTreeMap::new(),
            horizons: [Version::ZERO; 2],
            locks: HashMap::new(),
        }
    }

    /// Forgets what a stopped process forgets.
    pub(crate) fn restart(&mut self) {
        self.locks.clear();
        let mark = self.records.values().map(Record::newest_version).max().unwrap_or_default();
        self.clock = Arc::default();
        self.clock.raise_to(mark.hlc);
    }

    pub(crate) fn held_locks(&self) -> usize {
        self.locks.len()
    }

    pub(crate) fn read(&self, key: KeyRef<'_>) -> Record {
        let record = self.records.get(&(key.position, key.db, key.key.to_vec())).cloned().unwrap_or_default();
        record.under_horizon(self.horizons[usize::from(key.db)])
    }

    pub(crate) fn commit(&mut self, db: u8, key: &[u8], rows: &Record) {
        let position = KeyRef::new(db, key).position;
        let record = self.records.entry((position, db, key.to_vec())).or_default();
        *record = record.merge(rows);
    }

    pub(crate) fn set_horizon(&mut self, db: u8, version: Version) {
        let horizon = &mut self.horizons[usize::from(db)];
        *horizon = version.max(*horizon);
    }

    /// Whole groups of equal prefix from `from` on, until there are `keys_max` keys.
    pub(crate) fn scan(&self, range: &ScanRange) -> (Vec<(Vec<u8>, Record)>, Option<u64>) {
        let mut page: Vec<(Vec<u8>, Record)> = Vec::new();
        let mut last = None;
        for (position, db, key) in self.records.range((range.from << 32, 0, Vec::new())..).map(|(at, _)| at) {
            let prefix = position >> 32;
            if prefix >= range.end {
                break;
            }
            if page.len() >= range.keys_max as usize && last != Some(prefix) {
                return (page, Some(prefix));
            }
            if *db == range.db {
                page.push((key.clone(), self.read(KeyRef::new(*db, key))));
                last = Some(prefix);
            }
        }
        (page, None)
    }

    pub(crate) fn count(&self, range: &ScanRange, now: UnixMillis) -> (u64, Option<u64>) {
        let (page, next) = self.scan(range);
        (page.iter().filter(|(_, record)| record.view(now).is_some()).count() as u64, next)
    }
}

/// Rows of one worker's turn.
pub(crate) type Batch = Vec<(Ticket, u8, Vec<u8>, Record)>;

/// The shell of a worker for one input.
pub(crate) struct SimShell<'a> {
    pub(crate) at: Worker,
    pub(crate) machine: &'a mut Machine,
    pub(crate) network: &'a mut Network,
    pub(crate) batch: Batch,
    pub(crate) finished: &'a mut Vec<(Tag, Outcome)>,
    /// The version of the last row written by this input.
    pub(crate) stamped: Option<Version>,
}

pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

impl Shell for SimShell<'_> {
    fn send(&mut self, to: NodeId, message: &Message<'_>) -> bool {
        if let Message::Apply { row, .. } = message {
            self.stamped = Some(row.version);
        }
        // Now and then the queue to the peer is full.
        let is_full = self.network.random.chance(self.network.loss_per_mille / 4);
        !is_full && self.network.send(self.at, to.0 as usize - 1, message, self.machine.clock.now())
    }

    fn respond(&mut self, link: LinkId, message: &Message<'_>) {
        self.network.respond(self.at.node, link, message, self.machine.clock.now());
    }

    fn apply(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.stamped = Some(row.version);
        self.batch.push((ticket, row.key.db, row.key.key.to_vec(), Record::of_row(row)));
    }

    fn hint(&mut self, _target: NodeId, _key: KeyRef<'_>, _missed: Version) {}

    fn drop_hint(&mut self, _key: KeyRef<'_>, _missed: Version) {}

    fn read(&mut self, ticket: Ticket, key: KeyRef<'_>) -> Option<Record> {
        if self.network.random.chance(200) {
            let delay = self.network.random.below(3_000);
            let local = Local::Record { ticket, db: key.db, key: key.key.to_vec() };
            self.network.local(delay, self.at, local);
            return None;
        }
        Some(self.machine.read(key))
    }

    fn scan(&mut self, ticket: Ticket, range: &ScanRange) {
        let delay = self.network.random.below(2_000);
        self.network.local(delay, self.at, Local::Page { ticket, range: *range });
    }

    fn count(&mut self, ticket: Ticket, range: &ScanRange) {
        let delay = self.network.random.below(2_000);
        self.network.local(delay, self.at, Local::Count { ticket, range: *range });
    }

    fn set_horizon(&mut self, ticket: Ticket, db: u8, version: Version) {
        let delay = self.network.random.below(2_000);
        self.network.local(delay, self.at, Local::Horizon { ticket, db, version });
    }

    fn lock(&mut self, key_hash: u64, op: OpId) -> bool {
        let queue = self.machine.locks.entry(key_hash).or_default();
        queue.push_back((self.at.worker, op));
        queue.len() == 1
    }

    fn unlock(&mut self, key_hash: u64) {
        let queue = self.machine.locks.get_mut(&key_hash).expect("only a held lock is given back");
        queue.pop_front();
        match queue.front() {
            None => drop(self.machine.locks.remove(&key_hash)),
            Some(&(worker, op)) => {
                let delay = self.network.random.below(200);
                let at = Worker { node: self.at.node, worker };
                self.network.local(delay, at, Local::Locked { op, key_hash });
            }
        }
    }

    fn finish(&mut self, tag: Tag, outcome: Outcome) {
        self.finished.push((tag, outcome));
    }
}
