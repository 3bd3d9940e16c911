//! The coordinator's surroundings in the server: this turn's batch, the links' outboxes, the answers to deliver.
//!
//! Nothing here waits. What a coordinator asks for is noted or appended; the worker carries it out at the end of its
//! turn ([`super::Worker::end_turn`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use gyre_cluster::coordinator::{self, LinkId, OpId, Tag, Ticket};
use gyre_cluster::message::{Message, ScanRange};
use gyre_cluster::modify::Crowd;
use gyre_cluster::node::NodeId;
use gyre_cluster::outcome::Outcome;
use gyre_cluster::topology::Databases;
use gyre_storage::{Batch, KeyRef, Record, Row, Version};
use slab::Slab;
use tokio::sync::oneshot;

use crate::node::Node;
use crate::peer::outbox::Outboxes;
use crate::worker::locks::Waiter;
use crate::worker::mailbox::Letter;
use crate::worker::reads::SoonReads;

/// Tags with this bit set are answers to tasks; the others are commands of sessions.
const TASK: u64 = 1 << 63;

/// The tag of command `sequence` of the session at place `index`.
pub fn tag_of(index: u32, sequence: u32) -> Tag {
    Tag(u64::from(index) << 32 | u64::from(sequence))
}

/// The session's place and the command's sequence number of [`tag_of`]; `None` if `tag` is a task's.
pub fn session_of(tag: Tag) -> Option<(u32, u32)> {
    if tag.0 & TASK != 0 {
        return None;
    }
    let index = u32::try_from(tag.0 >> 32).unwrap_or(u32::MAX);
    Some((index, u32::try_from(tag.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)))
}

/// So many read-modify-writes make a turn full. Each takes two hops, to its primary and from there to the other replicas,
/// and the nodes take their turns one after the other if each takes all there is: smaller turns overlap.
const MODIFIES_MAX: usize = 32;
/// The log shows so much of a key.
const LOGGED_KEY_BYTES_MAX: usize = 128;
/// And no more than one line about siblings in this time, by each worker.
const CROWD_LINE_EVERY: Duration = Duration::from_secs(1);

/// Lets one line through now and then.
#[derive(Debug, Default)]
struct Pace(Option<Instant>);

impl Pace {
    fn may_pass(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.0.is_none_or(|last| now.duration_since(last) >= CROWD_LINE_EVERY);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// Whom an outcome is for.
pub enum Receiver {
    /// A command of a session.
    Session {
        /// The session's place.
        index: u32,
        /// The command's sequence number.
        sequence: u32,
    },
    /// A task that waits for it.
    Task(oneshot::Sender<Outcome>),
    /// Nobody any more.
    Gone,
}

/// A read that must touch the disk.
pub struct DiskRead {
    /// What the coordinator calls it.
    pub ticket: Ticket,
    /// The key's database.
    pub db: u8,
    /// The key.
    pub key: Vec<u8>,
}

/// A page of a scan, or a count, over this node's own rows.
pub struct DiskScan {
    /// What the coordinator calls it.
    pub ticket: Ticket,
    /// What to walk over.
    pub range: ScanRange,
    /// Whether only the number of live keys is wanted.
    pub count_only: bool,
}

/// Something in this turn's batch.
#[derive(Clone, Copy, Debug)]
pub struct Applying {
    /// What the coordinator calls it.
    pub ticket: Ticket,
    /// It is a row whose key is to be read back.
    pub is_asking: bool,
}

/// See the module's documentation.
pub struct Shell {
    worker: usize,
    node: Arc<Node>,
    /// The rows of this turn.
    pub batch: Batch,
    /// What each of them, and of its hints, was for.
    pub applying: Vec<Applying>,
    /// Outcomes to deliver.
    pub finished: Vec<(Tag, Outcome)>,
    /// Operations of this worker that have got the lock they waited for.
    pub locked: Vec<(OpId, u64)>,
    /// Writes that no replica will answer any more, with how many have them.
    pub settled: Vec<(Tag, usize)>,
    /// Reads put off until the turn ends.
    pub soon_reads: SoonReads,
    /// How many read-modify-writes this turn has begun, here or by sending them to their primaries.
    modifies: usize,
    /// Reads that the memory could not answer.
    pub disk_reads: Vec<DiskRead>,
    /// Scans to run.
    pub disk_scans: Vec<DiskScan>,
    /// Deletion horizons to make durable.
    pub horizons: Vec<(Ticket, Databases, Version)>,
    /// What is to be sent to peers.
    pub outboxes: Outboxes,
    tasks: Slab<oneshot::Sender<Outcome>>,
    crowd_lines: Pace,
}

impl Shell {
    /// The surroundings of worker `worker`'s coordinator.
    pub fn new(worker: usize, node: Arc<Node>) -> Shell {
        Shell {
            worker,
            batch: node.store.batch(),
            applying: Vec::new(),
            finished: Vec::new(),
            locked: Vec::new(),
            settled: Vec::new(),
            soon_reads: SoonReads::default(),
            modifies: 0,
            disk_reads: Vec::new(),
            disk_scans: Vec::new(),
            horizons: Vec::new(),
            outboxes: Outboxes::default(),
            tasks: Slab::new(),
            crowd_lines: Pace::default(),
            node,
        }
    }

    /// A tag for a task, and where its outcome will arrive.
    pub fn task_tag(&mut self) -> (Tag, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        (Tag(TASK | self.tasks.insert(sender) as u64), receiver)
    }

    /// Whom the outcome of `tag` is for. To be asked once for each tag: a task's place is another's after that.
    pub fn receiver(&mut self, tag: Tag) -> Receiver {
        if let Some((index, sequence)) = session_of(tag) {
            return Receiver::Session { index, sequence };
        }
        let key = usize::try_from(tag.0 & !TASK).unwrap_or(usize::MAX);
        self.tasks.try_remove(key).map_or(Receiver::Gone, Receiver::Task)
    }

    /// Whether the turn has begun so many read-modify-writes that their next hop should not wait for more.
    pub fn is_full(&self) -> bool {
        self.modifies >= MODIFIES_MAX && self.outboxes.is_any_connected()
    }

    /// Sends what peers are to be told, and a new turn begins.
    pub fn flush(&mut self) {
        self.outboxes.flush();
        self.modifies = 0;
    }

    /// Whether anything is left to do before the turn may end.
    pub fn is_idle(&self) -> bool {
        self.finished.is_empty()
            && self.locked.is_empty()
            && self.soon_reads.is_empty()
            && self.applying.is_empty()
    }
}

impl coordinator::Shell for Shell {
    fn send(&mut self, to: NodeId, message: &Message<'_>) -> bool {
        self.modifies += usize::from(matches!(message, Message::Modify { .. }));
        self.outboxes.send(to, message, self.node.clock.now())
    }

    fn respond(&mut self, link: LinkId, message: &Message<'_>) {
        self.outboxes.respond(link, message, self.node.clock.now());
    }

    fn apply(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.batch.push(row);
        self.applying.push(Applying { ticket, is_asking: false });
    }

    fn apply_and_read(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.batch.push_asking(row);
        self.applying.push(Applying { ticket, is_asking: true });
    }

    fn hint(&mut self, target: NodeId, key: KeyRef<'_>, missed: Version) {
        self.node.store.hint(&mut self.batch, target.0, key, missed);
        // Without a row of its own it must be committed, too.
        self.applying.push(Applying { ticket: Ticket::Nobody, is_asking: false });
    }

    fn drop_hint(&mut self, key: KeyRef<'_>, missed: Version) {
        self.batch.drop_hint(key, missed);
        self.applying.push(Applying { ticket: Ticket::Nobody, is_asking: false });
    }

    fn accepts_rows(&self) -> bool {
        self.node.store.poisoned().is_none()
    }

    fn read(&mut self, ticket: Ticket, key: KeyRef<'_>) -> Option<Record> {
        match self.node.store.try_read(key) {
            Ok(Some(record)) => Some(record),
            // A failing store is reported by the blocking read, which asks it again.
            Ok(None) | Err(_) => {
                self.disk_reads.push(DiskRead { ticket, db: key.db, key: key.key.to_vec() });
                None
            }
        }
    }

    fn read_soon(&mut self, ticket: Ticket, key: KeyRef<'_>) -> Option<Record> {
        self.modifies += 1;
        self.soon_reads.push(ticket, key);
        None
    }

    fn scan(&mut self, ticket: Ticket, range: &ScanRange) {
        self.disk_scans.push(DiskScan { ticket, range: *range, count_only: false });
    }

    fn count(&mut self, ticket: Ticket, range: &ScanRange) {
        self.disk_scans.push(DiskScan { ticket, range: *range, count_only: true });
    }

    fn set_horizon(&mut self, ticket: Ticket, databases: Databases, version: Version) {
        self.horizons.push((ticket, databases, version));
    }

    fn lock(&mut self, key_hash: u64, op: OpId) -> bool {
        self.node.locks.lock(key_hash, Waiter { worker: self.worker, op })
    }

    fn unlock(&mut self, key_hash: u64) {
        match self.node.locks.unlock(key_hash) {
            Some(next) if next.worker == self.worker => self.locked.push((next.op, key_hash)),
            Some(next) => {
                if let Some(mailbox) = self.node.mailboxes.get(next.worker) {
                    // A worker that is gone takes its operations with it; the node is stopping.
                    let _ = mailbox.send(Letter::Locked { op: next.op, key_hash });
                }
            }
            None => {}
        }
    }

    fn finish(&mut self, tag: Tag, outcome: Outcome) {
        self.finished.push((tag, outcome));
    }

    fn crowded(&mut self, key: KeyRef<'_>, crowd: Crowd) {
        if !self.crowd_lines.may_pass() {
            return;
        }
        // Keys are the user's data, and may be long.
        let name = String::from_utf8_lossy(key.key.get(..LOGGED_KEY_BYTES_MAX).unwrap_or(key.key));
        match crowd {
            Crowd::Many { siblings } => {
                tracing::warn!(key = %name, db = key.db, siblings, "a key has many siblings: its writers do not merge");
            }
            Crowd::Merged { dropped } => {
                tracing::error!(key = %name, db = key.db, dropped, "too many siblings: only the newest was kept");
            }
        }
    }

    fn settled(&mut self, tag: Tag, acked: usize) {
        self.settled.push((tag, acked));
    }
}
