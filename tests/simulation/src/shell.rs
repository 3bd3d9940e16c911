//! What a coordinator finds around it: the production store, the simulated network, and a disk that takes its time.

use gyre_cluster::clock::HybridClock;
use gyre_cluster::coordinator::{LinkId, OpId, Shell, Tag, Ticket};
use gyre_cluster::message::{Message, RequestId, ScanRange};
use gyre_cluster::modify::Crowd;
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::topology::Databases;
use gyre_storage::{KeyRef, Record, Row, Store, Version};

use crate::checkers::owed::Promise;
use crate::commit::{Pending, Waiting};
use crate::event::{Event, Local};
use crate::history::Key;
use crate::mutation::{Distortion, Mutation};
use crate::network::WorkerAt;
use crate::node::{Locks, node_id};
use crate::queue::{MS, Micros, SECOND};
use crate::surroundings::Env;

/// The slowest disk takes a batch in this time.
const COMMIT_TIME_MAX: Micros = 5 * SECOND;

/// The surroundings of one worker's coordinator for one input.
pub(crate) struct SimShell<'a> {
    pub(crate) at: WorkerAt,
    pub(crate) boot: u32,
    /// The latest that the node's wall clock has ever shown.
    pub(crate) latest_wall_ms: u64,
    pub(crate) store: &'a Store,
    pub(crate) hlc: &'a HybridClock,
    pub(crate) locks: &'a mut Locks,
    pub(crate) distortion: &'a mut Distortion,
    pub(crate) pending: &'a mut Pending,
    pub(crate) disk_slowness: u64,
    /// The version of the last row that this node has stamped in this call.
    pub(crate) stamped: Option<Version>,
    pub(crate) env: &'a mut Env,
}

impl SimShell<'_> {
    fn later(&mut self, delay: Micros, local: Local) {
        let event = Event::Worker { at: self.at, boot: self.boot, local };
        self.env.queue.after(delay, event);
    }

    fn disk_delay(&mut self, most: Micros) -> Micros {
        self.env.random.below(most) * self.disk_slowness
    }

    /// The record of `key` as this node would answer it.
    pub(crate) fn read_store(&mut self, key: KeyRef<'_>) -> Option<Record> {
        let record = self.store.read(key).ok()?;
        Some(self.distortion.read(key, record))
    }

    /// If nothing waits for the disk yet, sees to it that what is added now goes there.
    fn open_batch(&mut self) {
        if std::mem::replace(&mut self.pending.is_open, true) {
            return;
        }
        let now = self.env.queue.now();
        let delay = (self.env.commit_time() * self.disk_slowness).min(COMMIT_TIME_MAX);
        self.pending.last_commit_at = self.pending.last_commit_at.max(now + delay);
        let wait = self.pending.last_commit_at - now;
        self.later(wait, Local::Commit);
        if self.env.mutation == Some(Mutation::AckBeforeApply) {
            self.later(wait / 2, Local::EarlyAcknowledgement);
        }
    }

    /// Notes who waits for a row of the batch.
    fn note_pending(&mut self, waiting: Waiting, row: &Row<'_>) {
        self.pending.waiting.push(waiting);
        if self.distortion.wants_rows() {
            self.pending.rows.push((row.key.key.to_vec(), Record::of_row(row)));
        }
    }

    /// Notes a row that this node coordinates. Repairs pass here, too; their rows are known already.
    fn note_stamped(&mut self, row: &Row<'_>) {
        self.stamped = Some(row.version);
        if row.version.node == node_id(self.at.node).0 {
            // The server does it before anything of the turn is sent.
            let _ = self.store.cover(row.version.hlc);
        }
        self.env.journal.stamped(row, self.at.node, self.latest_wall_ms);
    }
}

impl Shell for SimShell<'_> {
    fn send(&mut self, to: NodeId, message: &Message<'_>) -> bool {
        if let Message::Apply { row, .. } = message {
            self.note_stamped(row);
        }
        if let Message::KeepHint { target, key, missed } = *message
            && let Some(promise) = promise(target, key, missed)
        {
            self.env.owed.ask(promise);
        }
        let Env { queue, random, network, names, mutation, .. } = &mut *self.env;
        let (to, clock) = (names[&to], self.hlc.now());
        if let (Message::Repair { request, .. }, Some(Mutation::NoReadRepair)) = (message, *mutation) {
            return *request == RequestId::NONE
                || network.pretend_answer(queue, random, self.at, to, *request, clock);
        }
        network.send(queue, random, self.at, to, message, clock)
    }

    fn respond(&mut self, link: LinkId, message: &Message<'_>) {
        let Env { queue, random, network, .. } = &mut *self.env;
        network.respond(queue, random, self.at.node, link, message, self.hlc.now());
    }

    fn apply(&mut self, ticket: Ticket, row: &Row<'_>) {
        match ticket {
            Ticket::Op(_) => self.note_stamped(row),
            Ticket::Peer { .. } | Ticket::Nobody => self.env.journal.received(row),
        }
        self.open_batch();
        self.pending.batch.push(row);
        self.note_pending(Waiting { ticket, asks: None }, row);
    }

    fn apply_and_read(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.env.journal.received(row);
        self.open_batch();
        self.pending.batch.push_asking(row);
        self.note_pending(Waiting { ticket, asks: Some((row.key.db, row.key.key.to_vec())) }, row);
    }

    fn hint(&mut self, target: NodeId, key: KeyRef<'_>, missed: Version) {
        self.open_batch();
        let Some(promise) = promise(target, key, missed) else { return };
        if self.store.hint(&mut self.pending.batch, target.0, key, missed) {
            self.pending.hints.push(promise);
        } else {
            self.env.owed.excuse(promise.key, missed);
        }
    }

    fn drop_hint(&mut self, key: KeyRef<'_>, missed: Version) {
        self.open_batch();
        self.pending.batch.drop_hint(key, missed);
        if let Some(key) = Key::index_of(key.key) {
            self.env.owed.excuse(key, missed);
        }
    }

    fn accepts_rows(&self) -> bool {
        self.store.poisoned().is_none()
    }

    fn read(&mut self, ticket: Ticket, key: KeyRef<'_>) -> Option<Record> {
        if let Ok(Some(record)) = self.store.try_read(key) {
            return Some(self.distortion.read(key, record));
        }
        let delay = self.disk_delay(3 * MS);
        self.later(delay, Local::Record { ticket, db: key.db, key: key.key.to_vec() });
        None
    }

    fn scan(&mut self, ticket: Ticket, range: &ScanRange) {
        let delay = self.disk_delay(2 * MS);
        self.later(delay, Local::Page { ticket, range: *range });
    }

    fn count(&mut self, ticket: Ticket, range: &ScanRange) {
        let delay = self.disk_delay(2 * MS);
        self.later(delay, Local::Count { ticket, range: *range });
    }

    fn set_horizon(&mut self, ticket: Ticket, databases: Databases, version: Version) {
        let delay = self.disk_delay(2 * MS);
        self.env.journal.flushed(version);
        self.later(delay, Local::Horizon { ticket, databases, version });
    }

    fn lock(&mut self, key_hash: u64, op: OpId) -> bool {
        self.locks.lock(key_hash, self.at.worker, op)
    }

    fn unlock(&mut self, key_hash: u64) {
        if let Some((worker, op)) = self.locks.unlock(key_hash) {
            let delay = self.env.random.below(200);
            let at = WorkerAt { worker, ..self.at };
            let local = Local::Locked { op, key_hash };
            self.env.queue.after(delay, Event::Worker { at, boot: self.boot, local });
        }
    }

    fn crowded(&mut self, key: KeyRef<'_>, crowd: Crowd) {
        if let (Crowd::Merged { .. }, Some(key)) = (crowd, Key::index_of(key.key)) {
            self.env.merged_siblings.push(key);
        }
    }

    fn finish(&mut self, tag: Tag, outcome: Outcome) {
        self.env.finished.push((tag, outcome));
    }
}

fn promise(target: NodeId, key: KeyRef<'_>, version: Version) -> Option<Promise> {
    Some(Promise { key: Key::index_of(key.key)?, version, target: target.0 })
}
