//! Read-modify-writes on their primary: the first live replica of the key, which serialises them per key.
//!
//! The general way: take the key's lock, read at the read level, let the pure function decide, write at the write
//! level, give the lock back, answer. What it writes descends from what it read. After the answer its row lingers like
//! that of a blind write, for the last acknowledgements and the hints of those that do not come.
//!
//! Increments have a shorter way, in one round ([`AddRound`]), and fall back to the general one.
//!
//! Changes with a context (siblings) go the general way, and write this node's own cell, as increments do: so they take
//! what this node holds into account, whoever answers the read, and keep the lock until the row is stored here.

mod change;
mod rounds;

use gyre_storage::{KeyRef, Record, Version};

use self::change::Change;
use super::add::{AddRound, Told};
use super::context::{Context, Event, Step};
use super::forward::Forwarder;
use super::key::KeyBuf;
use super::read::ReadRound;
use super::replicas::Replicas;
use super::shell::Shell;
use super::write::WriteRound;
use crate::level::Quorum;
use crate::message::Levels;
use crate::modify::{Modify, ModifyReply};
use crate::node::NodeId;
use crate::outcome::{Failure, Outcome};

/// How far it has come.
#[derive(Debug)]
enum Phase {
    /// Waiting for the key's lock.
    Locking,
    /// Waiting for this node's record, which has its own cell.
    Recalling,
    /// An increment in its single round.
    Adding(AddRound),
    /// An increment whose replicas disagreed: fetching what they hold. The rest is of the round before.
    Resolving { read: Box<ReadRound>, base: Version, reply: i64, write: WriteRound, told: Told },
    /// An increment that is void on `record`: its forwarder has to say whether its client has the reply.
    Doubting { record: Record, reply: i64, write: WriteRound, told: Told },
    /// Reading at the read level.
    Reading(Box<ReadRound>),
    /// Writing at the write level.
    Writing { write: WriteRound, reply: ModifyReply },
}

/// A read-modify-write in progress.
#[derive(Debug)]
pub(crate) struct ModifyOp {
    key: KeyBuf,
    change: Change,
    levels: Levels,
    replicas: Replicas,
    /// Who has forwarded it here, if it was not a client.
    forwarder: Option<Forwarder>,
    phase: Phase,
    /// Distinguishes the answers of one phase from late ones of the phase before.
    round: u8,
    /// Whether the key's lock is held.
    is_locked: bool,
    /// What this node holds, if it may write its own sibling cell.
    own: Record,
    /// The round whose row of this node's own cell is on its way into the store. The lock is held until it is
    /// there, even when the client has its answer: whoever reads the cell next must see it.
    storing: Option<u8>,
    /// It has ended for whoever waits; only acknowledgements of its row are still awaited.
    is_finished: bool,
    /// Whoever waits was told by the forwarder.
    is_told: bool,
    /// Nothing is awaited any more but what is being stored.
    is_overdue: bool,
}

impl ModifyOp {
    /// The operation; it waits for its lock.
    pub(crate) fn new(
        key: KeyRef<'_>,
        modify: &Modify<'_>,
        levels: Levels,
        replicas: Replicas,
        forwarder: Option<Forwarder>,
    ) -> ModifyOp {
        ModifyOp {
            key: KeyBuf::of(key),
            change: Change::of(modify),
            levels,
            replicas,
            forwarder,
            phase: Phase::Locking,
            round: 0,
            is_locked: false,
            own: Record::ABSENT,
            storing: None,
            is_finished: false,
            is_told: false,
            is_overdue: false,
        }
    }

    /// Whether whoever waited was told how it ended, by the node that forwarded it.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told
    }

    /// Gives the lock back, if it is held. Must be called when the operation ends, however it ends.
    pub(crate) fn release<S: Shell>(&mut self, shell: &mut S) {
        if std::mem::take(&mut self.is_locked) {
            shell.unlock(self.key.key().hash64());
        }
    }

    /// Whether `locked` is expected.
    pub(crate) fn is_waiting_for_lock(&self) -> bool {
        matches!(self.phase, Phase::Locking) && !self.is_locked
    }

    /// The lock is ours.
    pub(crate) fn on_locked<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        self.is_locked = true;
        let step = self.begin(cx);
        self.conclude(step)
    }

    fn begin<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        if !self.change.writes_own_cell() {
            return self.read(cx);
        }
        if !cx.shell.accepts_rows() {
            // Others would take this node's cell, but not this node: the next change would go on from the older one, and
            // undo this one where it was seen.
            let needed = self.levels.write.needed(self.replicas.len());
            return Step::fail(Failure::Unavailable { needed, alive: 0 });
        }
        self.phase = Phase::Recalling;
        match cx.read_here_soon(self.round, self.key.key()) {
            Some(record) => self.recalled(cx, record),
            None => Step::Pending,
        }
    }

    /// This node's record is known.
    fn recalled<S: Shell>(&mut self, cx: &mut Context<'_, S>, record: Record) -> Step {
        if let Change::Siblings(_) = self.change {
            self.own = record;
            return self.read(cx);
        }
        self.add(cx, &record)
    }

    /// Takes in an answer. An operation that has ended stays until this node's own cell is stored and its row settled.
    pub(crate) fn on_event<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        node: NodeId,
        round: u8,
        event: Event,
    ) -> Step {
        let is_result = matches!(event, Event::Applied { .. } | Event::Refused(_));
        if cx.is_self(node) && self.storing == Some(round) && is_result {
            self.storing = None;
        }
        if self.is_finished {
            match &mut self.phase {
                Phase::Adding(add) => add.on_event(&self.replicas, node, round, &event),
                Phase::Resolving { write, .. }
                | Phase::Doubting { write, .. }
                | Phase::Writing { write, .. } => {
                    write.on_event(node, round, &event);
                }
                Phase::Locking | Phase::Recalling | Phase::Reading(_) => {}
            }
            return self.linger(cx.shell);
        }
        let step = self.on_answer(cx, node, round, event);
        self.conclude(step)
    }

    /// Ends the operation for whoever waits; for the coordinator only if nothing is being stored and, once it has
    /// written, no acknowledgement is outstanding.
    fn conclude(&mut self, step: Step) -> Step {
        match step {
            Step::Finish(outcome) => {
                let is_done = matches!(outcome, Outcome::Modified(_));
                let is_awaited = is_done && self.quorum().is_some_and(|quorum| !quorum.is_settled());
                if self.storing.is_none() && !is_awaited {
                    return Step::Finish(outcome);
                }
                self.is_finished = true;
                self.is_overdue = !is_awaited;
                Step::FinishAndLinger(outcome)
            }
            step => step,
        }
    }

    /// It was answered and lingers: whoever waits for the lock need not wait for the acknowledgements.
    pub(crate) fn linger<S: Shell>(&mut self, shell: &mut S) -> Step {
        if self.storing.is_some() {
            return Step::Pending;
        }
        self.release(shell);
        if self.is_overdue || self.quorum().is_none_or(Quorum::is_settled) {
            return Step::Forget;
        }
        Step::Pending
    }

    /// There is no room to linger: the row's time is up now.
    pub(crate) fn cut_short(&mut self) {
        self.is_overdue = true;
    }

    /// The row's time is up: see [`WriteRound::leave_hints`].
    pub(crate) fn leave_hints<S: Shell>(&self, cx: &mut Context<'_, S>) {
        if self.quorum().is_some_and(|quorum| !quorum.is_unanimous())
            && let Some(write) = self.written()
        {
            write.leave_hints(cx, self.key.key());
        }
    }

    /// Who has the row it has sent.
    fn quorum(&self) -> Option<&Quorum> {
        match &self.phase {
            Phase::Adding(add) => Some(add.heard()),
            Phase::Resolving { write, .. } | Phase::Doubting { write, .. } | Phase::Writing { write, .. } => {
                Some(write.quorum())
            }
            Phase::Locking | Phase::Recalling | Phase::Reading(_) => None,
        }
    }

    /// The row it has sent, and who has it.
    fn written(&self) -> Option<WriteRound> {
        match &self.phase {
            Phase::Adding(add) => Some(add.as_write(self.replicas)),
            Phase::Resolving { write, .. } | Phase::Doubting { write, .. } | Phase::Writing { write, .. } => {
                Some(*write)
            }
            Phase::Locking | Phase::Recalling | Phase::Reading(_) => None,
        }
    }

    fn on_answer<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        node: NodeId,
        round: u8,
        event: Event,
    ) -> Step {
        match &mut self.phase {
            Phase::Locking => Step::Pending,
            Phase::Recalling if round != self.round || !cx.is_self(node) => Step::Pending,
            Phase::Recalling => match event {
                Event::Found(record) => self.recalled(cx, record),
                Event::Refused(_) => self.give_up(),
                _ => Step::Pending,
            },
            Phase::Adding(add) => {
                add.on_event(&self.replicas, node, round, &event);
                add.entrust(cx, &self.replicas, self.key.key());
                self.advance_add(cx)
            }
            Phase::Resolving { read, write, told, .. } => {
                write.on_event(node, round, &event);
                told.on_event(node, round, &event);
                read.on_event(cx, node, round, event);
                self.advance_read(cx)
            }
            Phase::Reading(read) => {
                read.on_event(cx, node, round, event);
                self.advance_read(cx)
            }
            Phase::Doubting { write, told, .. } => {
                write.on_event(node, round, &event);
                told.on_event(node, round, &event);
                self.advance_doubt(cx)
            }
            Phase::Writing { write, .. } => {
                write.on_event(node, round, &event);
                self.advance_write()
            }
        }
    }

    pub(crate) fn on_hurry<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        if self.is_finished {
            return Step::Pending;
        }
        let step = match &mut self.phase {
            Phase::Adding(add) => {
                cx.env.statistics.speculative_retries += u64::from(add.hurry());
                self.advance_add(cx)
            }
            Phase::Resolving { read, .. } | Phase::Reading(read) => {
                read.hurry(cx, self.key.key());
                self.advance_read(cx)
            }
            Phase::Locking | Phase::Recalling | Phase::Doubting { .. } | Phase::Writing { .. } => {
                Step::Pending
            }
        };
        self.conclude(step)
    }

    /// Too late.
    pub(crate) fn on_deadline(&mut self) -> Step {
        if self.is_finished {
            self.is_overdue = true;
            return if self.storing.is_some() { Step::Pending } else { Step::Forget };
        }
        let step = match &self.phase {
            Phase::Doubting { write, .. } | Phase::Writing { write, .. } => write.give_up(),
            Phase::Adding(add) => add.give_up(),
            Phase::Resolving { read, .. } | Phase::Reading(read) => Step::fail(read.timeout()),
            Phase::Locking | Phase::Recalling => self.give_up(),
        };
        self.conclude(step)
    }

    /// Fails without saying what the phase knows: nothing of this round was written.
    fn give_up(&self) -> Step {
        Step::time_out(self.levels.write.needed(self.replicas.len()), 0)
    }
}
