//! The coordinator against a scripted shell: what it sends, when it answers.

mod counters;
mod entrust;
mod modifies;
mod reads;
mod scans;
mod serving;
mod siblings;
mod sloppy;
mod writes;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Body, Cell, Hlc, KeyRef, Record, Row, UnixMillis, Version};

use super::{Coordinator, CoordinatorConfig, LinkId, OpId, Shell, Tag, Ticket};
use crate::clock::HybridClock;
use crate::level::Consistency;
use crate::message::{Message, Reason, RequestId, ScanRange};
use crate::modify::Crowd;
use crate::node::NodeId;
use crate::outcome::Outcome;
use crate::ring::{Ring, RingMember};
use crate::time::{MonoMicros, Now};
use crate::topology::Databases;

const QUORUM: Consistency = Consistency::Quorum;
const ONE: Consistency = Consistency::One;
const ALL: Consistency = Consistency::All;
const LINK: LinkId = LinkId(77);
const WALL: UnixMillis = UnixMillis(1_000_000);

/// A message that was sent.
#[derive(Debug)]
struct Sent {
    to: NodeId,
    bytes: Vec<u8>,
    is_answered: bool,
}

/// Remembers what it was asked and answers as it was told.
#[derive(Default)]
struct Script {
    sent: Vec<Sent>,
    responses: Vec<Vec<u8>>,
    applies: Vec<(Ticket, Record)>,
    /// Places in `applies` of those to be read back.
    asking: HashSet<usize>,
    /// Hints kept here: target, clock missed.
    hints: Vec<(NodeId, Version)>,
    dropped_hints: usize,
    horizons: Vec<(Ticket, Databases, Version)>,
    scans: Vec<(Ticket, ScanRange)>,
    /// What this node holds; without it reads go to the disk.
    record: Option<Record>,
    disk_reads: Vec<Ticket>,
    full_queues: HashSet<NodeId>,
    is_poisoned: bool,
    locks: HashMap<u64, VecDeque<OpId>>,
    handed_on: Vec<(OpId, u64)>,
    finished: Vec<(Tag, Outcome)>,
    settled: Vec<(Tag, usize)>,
    crowds: Vec<Crowd>,
}

impl Shell for Script {
    fn send(&mut self, to: NodeId, message: &Message<'_>) -> bool {
        if self.full_queues.contains(&to) {
            return false;
        }
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.sent.push(Sent { to, bytes, is_answered: false });
        true
    }

    fn respond(&mut self, link: LinkId, message: &Message<'_>) {
        assert_eq!(link, LINK);
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.responses.push(bytes);
    }

    fn apply(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.applies.push((ticket, Record::of_row(row)));
    }

    fn apply_and_read(&mut self, ticket: Ticket, row: &Row<'_>) {
        self.asking.insert(self.applies.len());
        self.apply(ticket, row);
    }

    fn hint(&mut self, target: NodeId, _key: KeyRef<'_>, missed: Version) {
        self.hints.push((target, missed));
    }

    fn drop_hint(&mut self, _key: KeyRef<'_>, _missed: Version) {
        self.dropped_hints += 1;
    }

    fn accepts_rows(&self) -> bool {
        !self.is_poisoned
    }

    fn read(&mut self, ticket: Ticket, _key: KeyRef<'_>) -> Option<Record> {
        if self.record.is_none() {
            self.disk_reads.push(ticket);
        }
        self.record.clone()
    }

    fn scan(&mut self, ticket: Ticket, range: &ScanRange) {
        self.scans.push((ticket, *range));
    }

    fn count(&mut self, ticket: Ticket, range: &ScanRange) {
        self.scans.push((ticket, *range));
    }

    fn set_horizon(&mut self, ticket: Ticket, databases: Databases, version: Version) {
        self.horizons.push((ticket, databases, version));
    }

    fn lock(&mut self, key_hash: u64, op: OpId) -> bool {
        let queue = self.locks.entry(key_hash).or_default();
        queue.push_back(op);
        queue.len() == 1
    }

    fn unlock(&mut self, key_hash: u64) {
        let queue = self.locks.get_mut(&key_hash).expect("only a held lock is given back");
        queue.pop_front();
        match queue.front() {
            Some(op) => self.handed_on.push((*op, key_hash)),
            None => drop(self.locks.remove(&key_hash)),
        }
    }

    fn finish(&mut self, tag: Tag, outcome: Outcome) {
        self.finished.push((tag, outcome));
    }

    fn crowded(&mut self, _key: KeyRef<'_>, crowd: Crowd) {
        self.crowds.push(crowd);
    }

    fn settled(&mut self, tag: Tag, acked: usize) {
        self.settled.push((tag, acked));
    }
}

/// A coordinator on node 1 of a cluster with three replicas a key, all peers alive.
struct Bench {
    core: Coordinator,
    shell: Script,
    now: Now,
    clock: Arc<HybridClock>,
    key: String,
    replicas: Vec<NodeId>,
    tags: u64,
}

impl Bench {
    /// Three nodes, and a key of which node 1 is the first replica.
    fn new() -> Bench {
        Bench::with(3, |replicas| replicas[0] == NodeId(1))
    }

    /// `nodes` nodes, and a key whose preference list is as wanted.
    fn with(nodes: u64, is_wanted: impl Fn(&[NodeId]) -> bool) -> Bench {
        let member = |id| RingMember { id: NodeId(id), rack: None, vnodes: 16 };
        let ring = Arc::new(Ring::build(&(1..=nodes).map(member).collect::<Vec<_>>(), 3));
        let clock = Arc::new(HybridClock::default());
        let mut config = CoordinatorConfig::new(NodeId(1), 11);
        config.operations_max = 8;
        let mut core = Coordinator::new(config, Arc::clone(&clock), Arc::clone(&ring));
        (2..=nodes).for_each(|peer| core.peer_up(NodeId(peer)));
        let replicas_of = |key: &String| ring.replicas(KeyRef::new(0, key.as_bytes()).slot()).to_vec();
        let key = (0..10_000).map(|n| format!("key-{n}")).find(|key| is_wanted(&replicas_of(key)));
        let key = key.expect("some key lies there");
        let replicas = replicas_of(&key);
        let shell = Script { record: Some(Record::ABSENT), ..Script::default() };
        let now = Now { mono: MonoMicros(1_000_000), wall: WALL };
        Bench { core, shell, now, clock, key, replicas, tags: 0 }
    }

    fn tag(&mut self) -> Tag {
        self.tags += 1;
        Tag(self.tags)
    }

    fn read(&mut self, level: Consistency) -> Tag {
        let tag = self.tag();
        let key = KeyRef::new(0, self.key.as_bytes());
        self.core.read(&mut self.shell, self.now, tag, key, level);
        tag
    }

    fn set(&mut self, value: &[u8], level: Consistency) -> Tag {
        let tag = self.tag();
        let key = KeyRef::new(0, self.key.as_bytes());
        self.core.write(&mut self.shell, self.now, tag, key, Some(value), None, level);
        tag
    }

    /// What `node` was sent and has not answered, oldest first, with its place.
    fn requests(&self, node: u64) -> Vec<(usize, Message<'_>)> {
        let open = |sent: &&Sent| sent.to == NodeId(node) && !sent.is_answered;
        let sent = self.shell.sent.iter().enumerate().filter(|(_, sent)| open(sent));
        sent.map(|(at, sent)| (at, Message::decode(&sent.bytes).unwrap())).collect()
    }

    /// Answers the oldest open request to `node`.
    fn answer(&mut self, node: u64, answer: impl FnOnce(&Message<'_>, RequestId) -> Message<'static>) {
        let requests = self.requests(node);
        let (at, message) = requests.first().expect("a request is open");
        let at = *at;
        let request = match message {
            Message::Apply { request, .. }
            | Message::Repair { request, .. }
            | Message::Read { request, .. }
            | Message::Digest { request, .. }
            | Message::Modify { request, .. }
            | Message::Scan { request, .. }
            | Message::Count { request, .. }
            | Message::ClockRead { request }
            | Message::Horizon { request, .. } => *request,
            other => panic!("not a request: {other:?}"),
        };
        let message = answer(message, request);
        self.shell.sent[at].is_answered = true;
        self.core.receive(&mut self.shell, self.now, NodeId(node), LINK, message);
    }

    /// `node`, holding `record`, does what the oldest open request asks.
    fn serve(&mut self, node: u64, record: &Record) {
        let record = record.clone();
        self.answer(node, |message, request| match message {
            Message::Read { .. } => Message::Found { request, record },
            Message::Digest { .. } => Message::Digested { request, digest: record.digest() },
            Message::Apply { row, want_digest, .. } => {
                let digest = want_digest.then(|| record.merge(&Record::of_row(row)).digest());
                Message::Applied { request, digest }
            }
            Message::Repair { .. } => Message::Applied { request, digest: None },
            other => panic!("not to be served: {other:?}"),
        });
    }

    fn refuse(&mut self, node: u64) {
        self.answer(node, |_, request| Message::Failed { request, reason: Reason::Storage });
    }

    /// Commits this node's batch.
    fn commit(&mut self, is_stored: bool) {
        let asking = std::mem::take(&mut self.shell.asking);
        for (place, (ticket, rows)) in std::mem::take(&mut self.shell.applies).into_iter().enumerate() {
            if let Some(record) = self.shell.record.as_mut().filter(|_| is_stored) {
                *record = record.merge(&rows);
            }
            if is_stored && asking.contains(&place) {
                let read = self.shell.record.clone();
                match read {
                    Some(_) => self.core.local_record(&mut self.shell, self.now, ticket, read),
                    None => self.shell.disk_reads.push(ticket),
                }
                continue;
            }
            self.core.applied(&mut self.shell, self.now, ticket, is_stored);
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono + Duration::from_millis(ms);
        self.now.wall = UnixMillis(self.now.wall.0 + ms);
        self.core.tick(&mut self.shell, self.now);
    }

    fn down(&mut self, node: u64) {
        self.core.peer_down(&mut self.shell, self.now, NodeId(node));
    }

    /// The outcome of `tag`, which must have come exactly once.
    fn outcome(&self, tag: Tag) -> Outcome {
        let mut outcomes = self.shell.finished.iter().filter(|(finished, _)| *finished == tag);
        let (_, outcome) = outcomes.next().unwrap_or_else(|| panic!("{tag:?} has not ended"));
        assert!(outcomes.next().is_none(), "{tag:?} ended twice");
        outcome.clone()
    }

    fn is_open(&self, tag: Tag) -> bool {
        self.shell.finished.iter().all(|(finished, _)| *finished != tag)
    }

    fn responses(&self) -> Vec<Message<'_>> {
        self.shell.responses.iter().map(|bytes| Message::decode(bytes).unwrap()).collect()
    }
}

/// A version long before what the benches stamp.
fn version(hlc: u64) -> Version {
    Version { hlc: Hlc(hlc), node: 9 }
}

fn value(hlc: u64, value: &[u8]) -> Record {
    Record::of_register(version(hlc), None, Some(value))
}

fn counter(actor: u64, hlc: u64, base: Version, sum: i64) -> Record {
    Record::of_row(&Row {
        key: KeyRef::new(0, b""),
        cell: Cell::Counter { actor },
        version: version(hlc),
        expiry: None,
        body: Body::Counter { base, sum },
    })
}
