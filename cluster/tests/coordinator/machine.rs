//! What the workers of a node share (store, locks, clock), and the shell of one worker over it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use gyre_cluster::clock::HybridClock;
use gyre_cluster::coordinator::{LinkId, OpId, Shell, Tag, Ticket};
use gyre_cluster::hints::Handed;
use gyre_cluster::message::{Message, ScanRange};
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::topology::Databases;
use gyre_storage::{Hint, HintStats, Hlc, KeyRef, Record, RecordBuilder, Row, UnixMillis, Version};

use crate::network::{Local, Network, Worker};

/// A store, locks and a clock.
pub(crate) struct Machine {
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) skew_ms: u64,
    records: BTreeMap<(u64, u8, Vec<u8>), Record>,
    horizons: [Version; 2],
    /// By target, position and key: the clock of the row missed, and a stamp.
    hints: BTreeMap<(u64, u64, Vec<u8>), (Hlc, u64)>,
    next_stamp: u64,
    locks: HashMap<u64, VecDeque<(usize, OpId)>>,
}

impl Machine {
    pub(crate) fn new(skew_ms: u64) -> Machine {
        Machine {
            clock: Arc::default(),
            skew_ms,
            records: BTreeMap::new(),
            horizons: [Version::ZERO; 2],
            hints: BTreeMap::new(),
            next_stamp: 1,
            locks: HashMap::new(),
        }
    }

    /// Forgets what a stopped process forgets.
    pub(crate) fn restart(&mut self) {
        self.locks.clear();
        let known = self.records.values().map(Record::newest_version).chain(self.horizons);
        let mark = known.max().unwrap_or_default();
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

    pub(crate) fn commit(&mut self, change: &Change) {
        match change {
            Change::Rows { db, key, rows, .. } => {
                let position = KeyRef::new(*db, key).position;
                let record = self.records.entry((position, *db, key.clone())).or_default();
                *record = record.merge(rows);
            }
            Change::Hint { target, key, missed } => {
                let at = (target.0, KeyRef::new(0, key).position, key.clone());
                self.hints.insert(at, (missed.hlc, self.next_stamp));
                self.next_stamp += 1;
            }
        }
    }

    /// What the store says of its hints.
    pub(crate) fn hint_stats(&self) -> Vec<HintStats> {
        let mut stats: BTreeMap<u64, HintStats> = BTreeMap::new();
        for ((target, ..), (missed, _)) in &self.hints {
            let next_stamp = self.next_stamp;
            let new = HintStats { target: *target, keys: 0, bytes: 0, oldest: *missed, next_stamp };
            let stat = stats.entry(*target).or_insert(new);
            stat.keys += 1;
            stat.oldest = stat.oldest.min(*missed);
        }
        stats.into_values().collect()
    }

    pub(crate) fn hints_page(&self, target: NodeId, after: Option<&Hint>, limit: usize) -> Vec<Hint> {
        let after = after.map(|hint| (hint.key().position, hint.key.clone()));
        let of_target = self.hints.iter().filter(|((of, ..), _)| *of == target.0);
        of_target
            .filter(|((_, position, key), _)| Some(&(*position, key.clone())) > after.as_ref())
            .map(|((.., key), &(missed, stamp))| Hint { db: 0, key: key.clone(), missed, stamp })
            .take(limit)
            .collect()
    }

    /// Removes what is unchanged, then forgets what may be.
    pub(crate) fn drop_hints(&mut self, target: NodeId, handed: &[Handed]) {
        for Handed { hint, forget } in handed {
            let at = (target.0, hint.key().position, hint.key.clone());
            if self.hints.get(&at) == Some(&(hint.missed, hint.stamp)) {
                self.hints.remove(&at);
            }
            if let Some(record) = forget {
                self.forget(hint.key(), record);
            }
        }
    }

    fn forget(&mut self, key: KeyRef<'_>, handed: &Record) {
        let is_hinted = self.hints.keys().any(|(_, _, hinted)| hinted == key.key);
        let at = (key.position, key.db, key.key.to_vec());
        let Some(record) = self.records.get(&at).filter(|_| !is_hinted) else { return };
        let mut left = RecordBuilder::default();
        // Nothing that `handed` lacks, and no cell without the register it counts on.
        if handed.merge(record) != *handed {
            left.add_record(record);
        }
        match left.build() {
            left if left.is_absent() => drop(self.records.remove(&at)),
            left => drop(self.records.insert(at, left)),
        }
    }

    /// Every key it has rows of.
    pub(crate) fn records(&self) -> impl Iterator<Item = (KeyRef<'_>, &Record)> {
        self.records.iter().map(|((_, db, key), record)| (KeyRef::new(*db, key), record))
    }

    pub(crate) fn set_horizon(&mut self, databases: Databases, version: Version) {
        for db in databases.iter() {
            let horizon = &mut self.horizons[usize::from(db)];
            *horizon = version.max(*horizon);
        }
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

/// Something to be stored.
pub(crate) enum Change {
    Rows { db: u8, key: Vec<u8>, rows: Record, is_asking: bool },
    Hint { target: NodeId, key: Vec<u8>, missed: Version },
}

/// What one worker's turn stores.
pub(crate) type Batch = Vec<(Ticket, Change)>;

/// The shell of a worker for one input.
pub(crate) struct SimShell<'a> {
    pub(crate) at: Worker,
    pub(crate) machine: &'a mut Machine,
    pub(crate) network: &'a mut Network,
    pub(crate) batch: Batch,
    pub(crate) finished: &'a mut Vec<(Tag, Outcome)>,
    /// The version of the last row written by this input.
    pub(crate) stamped: Option<Version>,
    /// Rows whose hints another node was asked to keep, or nobody: the message may be lost.
    pub(crate) delegated: &'a mut HashSet<Version>,
}

impl SimShell<'_> {
    fn stage(&mut self, ticket: Ticket, row: &Row<'_>, is_asking: bool) {
        self.stamped = Some(row.version);
        let (db, key) = (row.key.db, row.key.key.to_vec());
        self.batch.push((ticket, Change::Rows { db, key, rows: Record::of_row(row), is_asking }));
    }
}

pub(crate) fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

impl Shell for SimShell<'_> {
    fn send(&mut self, to: NodeId, message: &Message<'_>) -> bool {
        match message {
            Message::Apply { row, .. } => self.stamped = Some(row.version),
            Message::KeepHint { missed, .. } => drop(self.delegated.insert(*missed)),
            _ => {}
        }
        // Now and then the queue to the peer is full.
        let is_full = self.network.random.chance(self.network.loss_per_mille / 4);
        !is_full && self.network.send(self.at, to.0 as usize - 1, message, self.machine.clock.now())
    }

    fn respond(&mut self, link: LinkId, message: &Message<'_>) {
        self.network.respond(self.at.node, link, message, self.machine.clock.now());
    }

    fn apply(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.stage(ticket, row, false);
    }

    fn apply_and_read(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.stage(ticket, row, true);
    }

    fn hint(&mut self, target: NodeId, key: KeyRef<'_>, missed: Version) {
        let key = key.key.to_vec();
        self.batch.push((Ticket::Nobody, Change::Hint { target, key, missed }));
    }

    fn drop_hint(&mut self, _key: KeyRef<'_>, missed: Version) {
        self.delegated.insert(missed);
    }

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

    fn set_horizon(&mut self, ticket: Ticket, databases: Databases, version: Version) {
        let delay = self.network.random.below(2_000);
        self.network.local(delay, self.at, Local::Horizon { ticket, databases, version });
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
