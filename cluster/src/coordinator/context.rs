//! What operations see of their coordinator: its settings, who is alive, its clock, timers and counters.

use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Hlc, KeyRef, Record, Row, Version};

use super::replicas::Replicas;
use super::shell::{OpId, Shell, Ticket};
use super::statistics::Statistics;
use super::timers::Timers;
use crate::clock::HybridClock;
use crate::latency::Latency;
use crate::message::{Message, Reason};
use crate::modify::{ModifyError, ModifyReply};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};
use crate::ring::Ring;
use crate::time::Now;

/// The settings of a coordinator.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// This node.
    pub node: NodeId,
    /// The actor of this node's counter cells. It must be new after every start that may have lost rows (an unclean
    /// stop without `appendfsync always`): two rows of one actor, of which the newer knows less, lose increments.
    pub actor: u64,
    /// How long a read, a write or a read-modify-write may take.
    pub timeout: Duration,
    /// How long each page of a scan, and each step of a FLUSHDB, may take.
    pub scan_timeout: Duration,
    /// How many operations may be unfinished at a time; more are refused. At most 8,388,608.
    pub operations_max: usize,
    /// How many finished writes may wait for their last acknowledgements, only to be counted for WAIT.
    pub lingering_max: usize,
}

impl CoordinatorConfig {
    /// The default settings of `node` with counter cells of `actor`.
    #[must_use]
    pub fn new(node: NodeId, actor: u64) -> CoordinatorConfig {
        CoordinatorConfig {
            node,
            actor,
            timeout: Duration::from_secs(2),
            scan_timeout: Duration::from_secs(10),
            operations_max: 65_536,
            lingering_max: 65_536,
        }
    }
}

/// Everything of the coordinator but its operations.
pub(crate) struct Environment {
    pub(crate) config: CoordinatorConfig,
    pub(crate) clock: Arc<HybridClock>,
    pub(crate) ring: Arc<Ring>,
    /// Peers with a link, ascending.
    pub(crate) live: Vec<NodeId>,
    pub(crate) latency: Latency,
    pub(crate) timers: Timers,
    pub(crate) statistics: Statistics,
}

/// Speculation starts no earlier than this: turns take some time, too.
const HURRY_MICROS_MIN: u64 = 2_000;
/// And no later: what waits this long waits for a node that is stuck.
const HURRY_MICROS_MAX: u64 = 500_000;
/// When there are too few samples to tell.
const HURRY_MICROS_DEFAULT: u64 = 50_000;

impl Environment {
    /// Whether `node` is this node or a peer with a link.
    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        node == self.config.node || self.live.binary_search(&node).is_ok()
    }

    /// How many of `replicas` are alive.
    pub(crate) fn alive(&self, replicas: &Replicas) -> usize {
        replicas.iter().filter(|&(_, node)| self.is_alive(node)).count()
    }

    /// The replicas of `key`.
    pub(crate) fn replicas(&self, key: KeyRef<'_>) -> Replicas {
        Replicas::of(self.ring.replicas(key.slot()))
    }

    /// `Some` if fewer than `needed` of `replicas` are alive.
    pub(crate) fn unavailable(&self, replicas: &Replicas, needed: usize) -> Option<Failure> {
        let alive = self.alive(replicas);
        (alive < needed).then_some(Failure::Unavailable { needed, alive })
    }

    /// A version after every one this node has stamped or seen.
    pub(crate) fn stamp(&self, now: Now) -> Version {
        Version { hlc: self.clock.stamp(now.wall), node: self.config.node.0 }
    }

    /// A version after `seen`, for a row that is made from what was read. Only if `seen` lies so far in the future that
    /// the clock refuses to follow it, the version is not one of the clock's: the next after `seen`.
    pub(crate) fn stamp_after(&self, now: Now, seen: Version) -> Version {
        let version = self.stamp(now);
        if version > seen {
            return version;
        }
        if self.clock.observe(seen.hlc, now.wall).is_ok() {
            return self.stamp(now);
        }
        Version { hlc: Hlc(seen.hlc.0.saturating_add(1)), node: self.config.node.0 }
    }

    /// How long to wait for a replica before another is asked.
    pub(crate) fn hurry_delay(&self) -> Duration {
        let micros = self.latency.p99().unwrap_or(HURRY_MICROS_DEFAULT);
        Duration::from_micros(micros.clamp(HURRY_MICROS_MIN, HURRY_MICROS_MAX))
    }
}

/// One input's view of the world: the environment, the shell and the time, on behalf of one operation.
pub(crate) struct Context<'a, S> {
    pub(crate) env: &'a mut Environment,
    pub(crate) shell: &'a mut S,
    pub(crate) now: Now,
    pub(crate) op: OpId,
}

impl<S: Shell> Context<'_, S> {
    /// Whether `node` is this node.
    pub(crate) fn is_self(&self, node: NodeId) -> bool {
        node == self.env.config.node
    }

    /// Stores `row` on `node`, be it this one. `false` if that cannot be.
    pub(crate) fn apply(&mut self, node: NodeId, round: u8, row: &Row<'_>, want_digest: bool) -> bool {
        let request = self.op.request(round);
        if self.is_self(node) {
            self.shell.apply(Ticket::Op(request), row);
            return true;
        }
        self.env.is_alive(node) && self.shell.send(node, &Message::Apply { request, row: *row, want_digest })
    }

    /// Reads `key` in this node's store. `None`: the record will come as an event.
    pub(crate) fn read_here(&mut self, round: u8, key: KeyRef<'_>) -> Option<Record> {
        self.shell.read(Ticket::Op(self.op.request(round)), key)
    }

    /// Sends a request to a peer. `false` if that cannot be.
    pub(crate) fn send(&mut self, node: NodeId, message: &Message<'_>) -> bool {
        self.env.is_alive(node) && self.shell.send(node, message)
    }
}

/// Something that has happened to an operation. Answers come from a node; this node's own store answers, too.
#[derive(Debug)]
pub(crate) enum Event {
    /// A row, a repair or a horizon is stored.
    Applied { digest: Option<u64> },
    /// A record was read.
    Found(Record),
    /// The digest of a record was read.
    Digested(u64),
    /// A read-modify-write has ended on its primary.
    Modified(Result<ModifyReply, ModifyError>),
    /// A page of keys was read.
    Scanned { entries: Vec<(Vec<u8>, Record)>, next: Option<u64> },
    /// A page of keys was counted.
    Counted { keys: u64, next: Option<u64> },
    /// A clock was read.
    Clock,
    /// The node refused.
    Refused(Reason),
    /// The link to the node is gone. (Comes for every node that dies, whether it was asked or not.)
    Lost,
}

/// What an input has made of an operation.
#[derive(Debug)]
pub(crate) enum Step {
    /// It goes on.
    Pending,
    /// It has ended.
    Finish(Outcome),
    /// It has ended, but late answers are still counted.
    FinishAndLinger(Outcome),
    /// A lingering operation has got its last answer: this many replicas acknowledged it.
    Settled(usize),
    /// It has ended, and nobody is waiting for it.
    Forget,
}

impl Step {
    pub(crate) fn fail(failure: Failure) -> Step {
        Step::Finish(Outcome::Failed(failure))
    }

    pub(crate) fn time_out(needed: usize, acked: usize) -> Step {
        Step::fail(Failure::Timeout { needed, acked })
    }
}
