//! The coordinator: drives reads, writes, read-modify-writes, scans and FLUSHDB over the replicas of their keys, and
//! does a replica's part for the coordinators of other nodes.
//!
//! There is one per worker thread. It is a state machine: every method takes the shell, the time and one input, calls
//! the shell with what is to be done, and returns at once; nothing here waits, reads a clock or opens a socket.
//!
//! How a shell drives it, in each of its turns:
//!
//! 1. [`tick`](Coordinator::tick), then the inputs that have come: client operations ([`read`](Coordinator::read),
//!    [`write`](Coordinator::write), …), peer messages ([`receive`](Coordinator::receive)), links that came or went
//!    ([`peer_up`](Coordinator::peer_up), [`peer_down`](Coordinator::peer_down)), results of the blocking pool
//!    ([`local_record`](Coordinator::local_record), [`scanned`](Coordinator::scanned),
//!    [`counted`](Coordinator::counted)), locks ([`locked`](Coordinator::locked)).
//! 2. Commit the batch that [`Shell::apply`] filled, then [`applied`](Coordinator::applied) for each of its tickets.
//! 3. Flush links and clients; sleep until the next input or [`next_deadline`](Coordinator::next_deadline).
//!
//! Every operation ends in exactly one [`Shell::finish`]. Clocks travel with every message: the link takes the clock of
//! what comes in ([`HybridClock::observe`]) before it hands the message over here.
//!
//! [`HybridClock::observe`]: crate::clock::HybridClock::observe

mod add;
mod context;
mod flush;
mod forward;
mod handoff;
mod input;
mod inspect;
mod key;
mod modify;
mod operations;
mod read;
mod replicas;
mod scan;
mod serve;
mod shell;
mod statistics;
mod timers;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use gyre_storage::{Body, Cell, KeyRef, Row, UnixMillis};

pub use context::CoordinatorConfig;
pub use replicas::REPLICAS_MAX;
pub use scan::{PREFIX_END, ScannedPage};
pub use shell::{LinkId, OpId, PeerAnswer, Shell, Tag, Ticket};
pub use statistics::{Ends, Operation, Statistics};

use context::{Context, Environment, Step};
use flush::FlushOp;
use forward::{ForwardOp, Forwarder};
use handoff::HandOffOp;
use inspect::InspectOp;
use modify::ModifyOp;
use operations::{Kind, Operations, Origin, Slot};
use read::{ReadOp, ReadRound};
use replicas::Replicas;
use scan::ScanOp;
use timers::Timers;
use write::{WriteOp, WriteRound};

use crate::clock::HybridClock;
use crate::latency::Latency;
use crate::level::{Consistency, Level, Quorums};
use crate::message::{Levels, Message};
use crate::modify::Modify;
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};
use crate::ring::Ring;
use crate::time::{MonoMicros, Now};
use crate::topology::Databases;

/// The coordinator of one worker. See the [module](self) for how it is driven.
pub struct Coordinator {
    env: Environment,
    operations: Operations,
}

impl Coordinator {
    /// A coordinator without peers, over `ring` (empty before the cluster has formed). All workers of a node share
    /// `clock`.
    #[must_use]
    pub fn new(config: CoordinatorConfig, clock: Arc<HybridClock>, ring: Arc<Ring>) -> Coordinator {
        let mut env = Environment {
            config,
            clock,
            ring,
            has_failed: false,
            linked: Vec::new(),
            suspected: Vec::new(),
            live: Vec::new(),
            is_complete: false,
            latency: Latency::default(),
            timers: Timers::default(),
            statistics: Statistics::default(),
        };
        env.update_live();
        Coordinator { env, operations: Operations::default() }
    }

    /// Reads the newest record of `key`. Ends in [`Outcome::Record`].
    pub fn read<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        tag: Tag,
        key: KeyRef<'_>,
        level: impl Into<Level>,
    ) {
        let Level { consistency, quorums } = level.into();
        let replicas = self.env.replicas(key, quorums);
        let needed = consistency.needed(replicas.len());
        let start = Start { origin: Origin::Client(tag), operation: Operation::Read, level: consistency };
        if let Some(failure) = self.refusal(&replicas, needed) {
            return self.end(shell, start, Outcome::Failed(failure));
        }
        let op = self.operations.next_id();
        let mut cx = Context { env: &mut self.env, shell, now, op };
        let here = replicas.index_of(cx.env.config.node);
        if needed == 1 && here.is_some_and(|index| !replicas.is_stand_in(index)) {
            // What one replica holds decides, and this is one.
            if let Some(record) = cx.read_here(0, key) {
                return self.end(shell, start, Outcome::Record(record));
            }
            let round = ReadRound::waiting_here(&mut cx, replicas, 0);
            return self.insert(now, op, start, Kind::Read(ReadOp::boxed(key, round)));
        }
        let mut round = ReadRound::start(&mut cx, replicas, needed, 0, key);
        match round.advance(&mut cx, key) {
            Some(result) => self.end(shell, start, result.map_or_else(Outcome::Failed, Outcome::Record)),
            None => {
                self.insert(now, op, start, Kind::Read(ReadOp::boxed(key, round)));
            }
        }
    }

    /// Writes `value` to `key`, or with `None` deletes it, blindly. Ends in [`Outcome::Written`]. The id is for
    /// [`acknowledged`](Coordinator::acknowledged); `None` if nothing was sent.
    #[expect(clippy::too_many_arguments, reason = "surroundings, then the operands of the command")]
    pub fn write<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        tag: Tag,
        key: KeyRef<'_>,
        value: Option<&[u8]>,
        expiry: Option<UnixMillis>,
        level: impl Into<Level>,
    ) -> Option<OpId> {
        let Level { consistency, quorums } = level.into();
        let replicas = self.env.replicas(key, quorums);
        let needed = consistency.needed(replicas.len());
        let start = Start { origin: Origin::Client(tag), operation: Operation::Write, level: consistency };
        if let Some(failure) = self.refusal(&replicas, needed) {
            self.end(shell, start, Outcome::Failed(failure));
            return None;
        }
        let op = self.operations.next_id();
        let version = self.env.stamp(now);
        let body = value.map_or(Body::Tombstone, Body::Value);
        let expiry = expiry.filter(|_| value.is_some());
        let row = Row { key, cell: Cell::Register, version, expiry, body };
        let mut cx = Context { env: &mut self.env, shell, now, op };
        let mut write = WriteOp::new(key, WriteRound::start(&mut cx, replicas, needed, 0, &row));
        let step = write.step();
        self.insert(now, op, start, Kind::Write(write));
        self.conclude(shell, now, op, step);
        Some(op)
    }

    /// Does a read-modify-write on `key`'s first live replica, or with sloppy quorums on a stand-in when none is alive.
    /// Ends in [`Outcome::Modified`] or [`Outcome::Refused`].
    pub fn modify<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        tag: Tag,
        key: KeyRef<'_>,
        modify: &Modify<'_>,
        levels: impl Into<Levels>,
    ) {
        let levels = levels.into();
        let start = Start { origin: Origin::Client(tag), operation: Operation::Modify, level: levels.write };
        let replicas = self.env.replicas(key, levels.quorums);
        let needed = levels.read.needed(replicas.len()).max(levels.write.needed(replicas.len()));
        if self.operations.unfinished() >= self.env.config.operations_max {
            return self.end(shell, start, Outcome::Failed(Failure::Overloaded));
        }
        for primary in replicas.leaders() {
            if primary == self.env.config.node {
                return self.modify_here(shell, now, start, None, key, modify, levels, replicas);
            }
            let op = self.operations.next_id();
            let mut cx = Context { env: &mut self.env, shell: &mut *shell, now, op };
            let request = op.request(0);
            if cx.send(primary, &Message::Modify { request, key, levels, modify: *modify }) {
                self.env.statistics.forwarded += 1;
                let needed = levels.write.needed(replicas.len());
                return self.insert(now, op, start, Kind::Forward(ForwardOp::new(primary, needed)));
            }
        }
        self.end(shell, start, Outcome::Failed(Failure::Unavailable { needed, alive: 0 }));
    }

    /// A read-modify-write of which this node, one of the contacts in `replicas`, is the primary.
    #[expect(clippy::too_many_arguments, reason = "surroundings, then the operands of the command")]
    fn modify_here<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        start: Start,
        forwarder: Option<Forwarder>,
        key: KeyRef<'_>,
        modify: &Modify<'_>,
        levels: Levels,
        replicas: Replicas,
    ) {
        let needed = levels.read.needed(replicas.len()).max(levels.write.needed(replicas.len()));
        if let Some(failure) = self.refusal(&replicas, needed) {
            return self.end(shell, start, Outcome::Failed(failure));
        }
        let op = self.operations.next_id();
        let mut modify = Box::new(ModifyOp::new(key, modify, levels, replicas, forwarder));
        let is_locked = shell.lock(key.hash64(), op);
        let step = if is_locked {
            modify.on_locked(&mut Context { env: &mut self.env, shell, now, op })
        } else {
            Step::Pending
        };
        self.insert(now, op, start, Kind::Modify(modify));
        self.conclude(shell, now, op, step);
    }

    /// Hands this node's newest record of `key` over to `target`, which misses some of it: done when `target` holds it
    /// as durably as its store makes it. Ends in [`Outcome::HandedOff`].
    pub fn hand_off<S: Shell>(&mut self, shell: &mut S, now: Now, tag: Tag, target: NodeId, key: KeyRef<'_>) {
        let level = Consistency::One;
        let start = Start { origin: Origin::Client(tag), operation: Operation::Admin, level };
        if self.operations.unfinished() >= self.env.config.operations_max {
            return self.end(shell, start, Outcome::Failed(Failure::Overloaded));
        }
        if !self.env.is_alive(target) {
            let failure = Failure::Unavailable { needed: 1, alive: 0 };
            return self.end(shell, start, Outcome::Failed(failure));
        }
        let op = self.operations.next_id();
        let mut cx = Context { env: &mut self.env, shell: &mut *shell, now, op };
        let mut hand_off = Box::new(HandOffOp::new(target, key));
        let step = hand_off.start(&mut cx);
        self.insert(now, op, start, Kind::HandOff(hand_off));
        self.conclude(shell, now, op, step);
    }

    /// One page of the keys of database `db` whose position prefixes lie in `from..end`, at the read level: at least
    /// about `keys_max` of them unless the range or the patience for empty pages ends before. Only replicas are asked,
    /// never stand-ins, who know few of the keys. Ends in [`Outcome::Scanned`].
    #[expect(clippy::too_many_arguments, reason = "surroundings, then the operands of the command")]
    pub fn scan<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        tag: Tag,
        db: u8,
        from: u64,
        end: u64,
        keys_max: usize,
        level: impl Into<Level>,
    ) {
        let level = level.into().consistency;
        let start = Start { origin: Origin::Client(tag), operation: Operation::Admin, level };
        self.start_scan(shell, now, start, ScanOp::keys(db, from, end, keys_max, level));
    }

    /// Counts the live keys of database `db`, asking one replica of each range. Ends in [`Outcome::Counted`].
    pub fn count<S: Shell>(&mut self, shell: &mut S, now: Now, tag: Tag, db: u8) {
        let level = Consistency::One;
        let start = Start { origin: Origin::Client(tag), operation: Operation::Admin, level };
        self.start_scan(shell, now, start, ScanOp::count(db));
    }

    fn start_scan<S: Shell>(&mut self, shell: &mut S, now: Now, start: Start, scan: ScanOp) {
        if self.operations.unfinished() >= self.env.config.operations_max {
            return self.end(shell, start, Outcome::Failed(Failure::Overloaded));
        }
        let op = self.operations.next_id();
        let mut scan = Box::new(scan);
        let step = scan.next_page(&mut Context { env: &mut self.env, shell, now, op });
        self.insert(now, op, start, Kind::Scan(scan));
        self.conclude(shell, now, op, step);
    }

    /// Deletes every key of `databases` by a deletion horizon. Only members count, never stand-ins. Ends in
    /// [`Outcome::Written`].
    pub fn flush<S: Shell>(
        &mut self,
        shell: &mut S,
        now: Now,
        tag: Tag,
        databases: Databases,
        level: impl Into<Level>,
    ) {
        let level = level.into().consistency;
        let start = Start { origin: Origin::Client(tag), operation: Operation::Admin, level };
        if let Some(failure) = self.not_now() {
            return self.end(shell, start, Outcome::Failed(failure));
        }
        let op = self.operations.next_id();
        let mut cx = Context { env: &mut self.env, shell: &mut *shell, now, op };
        match FlushOp::start(&mut cx, databases, level) {
            Err(failure) => self.end(shell, start, Outcome::Failed(failure)),
            Ok(mut flush) => {
                let step = flush.advance(&mut cx);
                self.insert(now, op, start, Kind::Flush(Box::new(flush)));
                self.conclude(shell, now, op, step);
            }
        }
    }

    /// What every replica of `key` holds. Ends in [`Outcome::Replicas`].
    pub fn replicas<S: Shell>(&mut self, shell: &mut S, now: Now, tag: Tag, key: KeyRef<'_>) {
        let level = Consistency::One;
        let start = Start { origin: Origin::Client(tag), operation: Operation::Admin, level };
        let replicas = self.env.replicas(key, Quorums::Strict);
        if let Some(failure) = self.refusal(&replicas, 0) {
            return self.end(shell, start, Outcome::Failed(failure));
        }
        let op = self.operations.next_id();
        let mut cx = Context { env: &mut self.env, shell: &mut *shell, now, op };
        let mut inspect = InspectOp::start(&mut cx, replicas, key);
        let step = inspect.advance();
        self.insert(now, op, start, Kind::Inspect(Box::new(inspect)));
        self.conclude(shell, now, op, step);
    }

    /// Ends what is due at `now`, and asks further replicas where the first are slow. Cheap when nothing is due.
    pub fn tick<S: Shell>(&mut self, shell: &mut S, now: Now) {
        loop {
            let operations = &self.operations;
            let is_alive = |op| operations.get(op).is_some();
            let Some((op, alarm)) = self.env.timers.pop_due(now.mono, is_alive) else { return };
            self.on_alarm(shell, now, op, alarm);
        }
    }

    /// When [`tick`](Coordinator::tick) should come next, as far as known now; earlier and later do no harm.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoMicros> {
        self.env.timers.next()
    }

    /// Uses a new ring. Operations in flight keep the replicas they began with.
    pub fn set_ring(&mut self, ring: Arc<Ring>) {
        self.env.ring = ring;
        self.env.update_live();
    }

    /// This node's store has failed for good. It goes on to coordinate, and counts as down among the replicas: stand-ins
    /// take its place, hints are kept for it, and the next replica leads read-modify-writes.
    pub fn set_failed(&mut self) {
        self.env.has_failed = true;
        self.env.update_live();
    }

    /// The peers that count as alive: those with a link that are not suspected, ascending.
    #[must_use]
    pub fn live_peers(&self) -> &[NodeId] {
        &self.env.live
    }

    /// How many replicas have acknowledged the write `op` so far, while it is in flight or its last acknowledgements
    /// are awaited. `None` afterwards: [`Shell::settled`] told the final number.
    #[must_use]
    pub fn acknowledged(&self, op: OpId) -> Option<usize> {
        match &self.operations.get(op)?.kind {
            Kind::Write(write) => Some(write.acked()),
            _ => None,
        }
    }

    /// How many operations have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.operations.unfinished()
    }

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.env.statistics
    }

    /// What 99 of 100 peers' answers to reads took at most lately, in microseconds.
    #[must_use]
    pub fn peer_latency_p99(&self) -> Option<u64> {
        self.env.latency.p99()
    }

    /// Why an operation cannot begin, if so.
    fn refusal(&self, replicas: &Replicas, needed: usize) -> Option<Failure> {
        self.not_now().or_else(|| self.env.unavailable(replicas, needed))
    }

    /// Why no operation can begin at all, if so.
    fn not_now(&self) -> Option<Failure> {
        if self.operations.unfinished() >= self.env.config.operations_max {
            return Some(Failure::Overloaded);
        }
        (!self.env.clock.is_settled()).then_some(Failure::ClockUnsettled)
    }

    /// Keeps an operation that goes on, with its deadline.
    fn insert(&mut self, now: Now, op: OpId, start: Start, kind: Kind) {
        let config = &self.env.config;
        let deadline = match &kind {
            Kind::Read(_) | Kind::Write(_) | Kind::Modify(_) | Kind::Inspect(_) | Kind::HandOff(_) => {
                let at = now.mono + config.timeout;
                self.env.timers.request(at, op);
                at
            }
            Kind::Forward(_) => {
                let at = now.mono + config.timeout + config.timeout / 4;
                self.env.timers.forward(at, op);
                at
            }
            Kind::Flush(flush) if flush.is_reading_clocks() => {
                let at = now.mono + config.timeout;
                self.env.timers.request(at, op);
                at
            }
            Kind::Scan(_) | Kind::Flush(_) => {
                let at = now.mono + config.scan_timeout;
                self.env.timers.scan(at, op);
                at
            }
        };
        let Start { origin, operation, level } = start;
        let generation = op.generation;
        self.operations.insert(Slot {
            generation,
            origin,
            operation,
            level,
            deadline,
            is_lingering: false,
            kind,
        });
    }
}

/// What is common to the starts of all operations.
#[derive(Clone, Copy)]
struct Start {
    origin: Origin,
    operation: Operation,
    level: Consistency,
}
