//! What operations see of their coordinator: its settings, who is alive, its clock, timers and counters.

use std::sync::Arc;
use std::time::Duration;

use gyre_storage::{Hlc, KeyRef, Record, Row, Slot, Version};

use super::replicas::{REPLICAS_MAX, Replicas};
use super::shell::{OpId, Shell, Ticket};
use super::statistics::Statistics;
use super::timers::Timers;
use crate::clock::HybridClock;
use crate::latency::Latency;
use crate::level::{Quorums, bit};
use crate::message::{HintTargets, Message, Reason};
use crate::modify::{ModifyError, ModifyReply};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};
use crate::ring::Ring;
use crate::time::{MonoMicros, Now};

/// The settings of a coordinator.
#[derive(Clone, Debug)]
pub struct CoordinatorConfig {
    /// This node.
    pub node: NodeId,
    /// The actor of this node's counter and sibling cells. It must be new after every start that may have lost rows (an
    /// unclean stop without `appendfsync always`, a lost disk): two rows of one actor, of which the newer knows less,
    /// lose increments and siblings. Not 0, which is [`gyre_storage::siblings::PLAIN`].
    pub actor: u64,
    /// How long a read, a write, a read-modify-write, or reading the clocks for a FLUSHDB may take.
    pub timeout: Duration,
    /// How long each page of a scan may take, and each node to store the horizon of a FLUSHDB.
    pub scan_timeout: Duration,
    /// How many operations may be unfinished at a time; more are refused. At most 8,388,608.
    pub operations_max: usize,
    /// How many finished writes may wait for their last acknowledgements, to be counted for WAIT and to leave hints for
    /// the replicas that stay silent. A write over it does not wait: those that have not answered by then get a hint.
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
    /// This node's store has failed: it holds nothing that counts, and others stand in for it.
    pub(crate) has_failed: bool,
    /// Peers with a link, ascending.
    pub(crate) linked: Vec<NodeId>,
    /// Peers that the failure detector suspects, ascending; with or without a link.
    pub(crate) suspected: Vec<NodeId>,
    /// Peers with a link that are not suspected, ascending.
    pub(crate) live: Vec<NodeId>,
    /// Whether every member of the ring is alive: what is the case nearly always, and then nobody need be looked up.
    pub(crate) is_complete: bool,
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
    /// Whether `node` is this node and its store works, or a peer with a link that is not suspected.
    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        if node == self.config.node { !self.has_failed } else { self.live.binary_search(&node).is_ok() }
    }

    /// Who is alive has changed.
    pub(crate) fn update_live(&mut self) {
        self.live.clone_from(&self.linked);
        self.live.retain(|peer| self.suspected.binary_search(peer).is_err());
        self.is_complete = self.ring.members().iter().all(|&member| self.is_alive(member));
    }

    /// The places of `key`, and who is contacted there. The ring is walked for stand-ins only if a replica is down.
    pub(crate) fn replicas(&self, key: KeyRef<'_>, quorums: Quorums) -> Replicas {
        let mut replicas = self.replicas_of(key.slot());
        if replicas.has_absent() && quorums == Quorums::Sloppy {
            self.add_stand_ins(&mut replicas, key.slot());
        }
        replicas
    }

    /// The places of `slot`, with the replicas that are down marked as absent.
    pub(crate) fn replicas_of(&self, slot: Slot) -> Replicas {
        let mut replicas = Replicas::of(self.ring.replicas(slot));
        if !self.is_complete {
            for (index, _) in replicas.iter().filter(|&(_, node)| !self.is_alive(node)) {
                replicas.mark_absent(index);
            }
        }
        replicas
    }

    /// Gives each absent owner the next node clockwise that is alive and has no place yet, as far as there are any.
    fn add_stand_ins(&self, replicas: &mut Replicas, slot: Slot) {
        let mut fallbacks = self.ring.fallbacks(slot).filter(|&node| self.is_alive(node));
        let places = *replicas;
        for index in (0..places.len()).filter(|&index| places.is_absent(index)) {
            let Some(node) = fallbacks.next() else { return };
            replicas.stand_in(index, node);
        }
    }

    /// `Some` if fewer than `needed` of `replicas` have a contact that is alive.
    pub(crate) fn unavailable(&self, replicas: &Replicas, needed: usize) -> Option<Failure> {
        let alive = replicas.reachable();
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

    /// Gives the operation a scan's time from now on. Answers until when.
    pub(crate) fn begin_scan_step(&mut self) -> MonoMicros {
        let deadline = self.now.mono + self.env.config.scan_timeout;
        self.env.timers.scan(deadline, self.op);
        deadline
    }

    /// Stores `row` on every contact of `replicas`, with the hints for absent owners; calls `failed` with the places
    /// where that cannot be. The peers at the places in the mask `digests` are to answer with a digest.
    pub(crate) fn apply(
        &mut self,
        replicas: &Replicas,
        round: u8,
        row: &Row<'_>,
        digests: u8,
        mut failed: impl FnMut(usize),
    ) {
        if !replicas.has_absent() {
            for (index, node) in replicas.iter() {
                if !self.apply_at(node, round, row, digests & bit(index) != 0, HintTargets::NONE) {
                    failed(index);
                }
            }
            return;
        }
        self.env.statistics.stood_in += u64::from(replicas.has_stand_ins());
        let here = replicas.index_of(self.env.config.node);
        let mut ids = [[0; 8]; REPLICAS_MAX];
        for (index, node) in replicas.iter() {
            let hints = replicas.hints_at(index, here, &mut ids);
            if !self.apply_at(node, round, row, digests & bit(index) != 0, hints) {
                failed(index);
            }
        }
    }

    /// Stores `row` on this node.
    pub(crate) fn apply_here(&mut self, round: u8, row: &Row<'_>) {
        self.shell.apply(Ticket::Op(self.op.request(round)), row);
    }

    /// Stores `row` on `node`, with hints for those that miss it. `false` if that cannot be.
    pub(crate) fn apply_at(
        &mut self,
        node: NodeId,
        round: u8,
        row: &Row<'_>,
        want_digest: bool,
        hints: HintTargets<'_>,
    ) -> bool {
        if self.is_self(node) {
            self.apply_here(round, row);
            keep_hints(self.shell, node, row, hints);
            return true;
        }
        let request = self.op.request(round);
        let message = Message::Apply { request, row: *row, want_digest, hints };
        (self.env.is_complete || self.env.is_alive(node)) && self.shell.send(node, &message)
    }

    /// Has `node`, which holds what `target` misses of `key`, keep a hint. `false` if that cannot be.
    pub(crate) fn keep_hint(
        &mut self,
        node: NodeId,
        target: NodeId,
        key: KeyRef<'_>,
        missed: Version,
    ) -> bool {
        if self.is_self(node) {
            self.shell.hint(target, key, missed);
            return true;
        }
        self.send(node, &Message::KeepHint { target, key, missed })
    }

    /// Reads `key` in this node's store. `None`: the record will come as an event.
    pub(crate) fn read_here(&mut self, round: u8, key: KeyRef<'_>) -> Option<Record> {
        self.shell.read(Ticket::Op(self.op.request(round)), key)
    }

    /// As [`Context::read_here`], perhaps together with other reads of the turn.
    pub(crate) fn read_here_soon(&mut self, round: u8, key: KeyRef<'_>) -> Option<Record> {
        self.shell.read_soon(Ticket::Op(self.op.request(round)), key)
    }

    /// Sends a request to a peer. `false` if that cannot be.
    pub(crate) fn send(&mut self, node: NodeId, message: &Message<'_>) -> bool {
        self.env.is_alive(node) && self.shell.send(node, message)
    }
}

/// Adds a hint for each of `targets` to the batch that `row` was just added to.
pub(crate) fn keep_hints<S: Shell>(shell: &mut S, here: NodeId, row: &Row<'_>, targets: HintTargets<'_>) {
    for target in targets.iter().filter(|&target| target != here) {
        shell.hint(target, row.key, row.version);
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
