//! Blind writes: the row goes to the contact of every place at once, and the write is done when enough have it.
//!
//! Afterwards the write *lingers* until every contact has answered or its time is up (or at once, if too many linger).
//! Owners that then are not known to have the row, and have no hint either, get one from a node that has it.

use gyre_storage::{KeyRef, Row, Version};

use super::context::{Context, Event, Step};
use super::key::KeyBuf;
use super::replicas::Replicas;
use super::shell::Shell;
use crate::level::{Quorum, Verdict};
use crate::node::NodeId;
use crate::outcome::Outcome;

/// Keys up to this length are kept by a write without an allocation. Its place among the operations has room for it:
/// that of a read is larger.
const KEY_INLINE_BYTES: usize = 62;

/// One row on its way to the replicas of its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteRound {
    replicas: Replicas,
    quorum: Quorum,
    round: u8,
    /// The version of the row.
    written: Version,
    /// The index of this node, if the write counts only once it is stored here, whatever the others say.
    required: Option<usize>,
    required_failed: bool,
}

impl WriteRound {
    /// Sends `row` to all contacts of `replicas`.
    pub(crate) fn start<S: Shell>(
        cx: &mut Context<'_, S>,
        replicas: Replicas,
        needed: usize,
        round: u8,
        row: &Row<'_>,
    ) -> WriteRound {
        let mut quorum = Quorum::new(needed, replicas.len());
        cx.apply(&replicas, round, row, 0, |index| quorum.fail(index));
        let written = row.version;
        WriteRound { replicas, quorum, round, written, required: None, required_failed: false }
    }

    /// A row that another kind of round has sent: `quorum` says who has it.
    pub(crate) fn sent(replicas: Replicas, quorum: Quorum, round: u8, written: Version) -> WriteRound {
        WriteRound { replicas, quorum, round, written, required: None, required_failed: false }
    }

    /// Makes the write count only once `node` has it.
    pub(crate) fn requiring(mut self, node: NodeId) -> WriteRound {
        self.required = self.replicas.index_of(node);
        self
    }

    /// Takes in an answer of `round`.
    pub(crate) fn on_event(&mut self, node: NodeId, round: u8, event: &Event) {
        let Some(index) = self.replicas.index_of(node) else { return };
        match event {
            Event::Applied { .. } if round == self.round => self.quorum.ack(index),
            Event::Refused(_) if round == self.round => self.fail(index),
            Event::Lost => self.fail(index),
            _ => {}
        }
    }

    fn fail(&mut self, index: usize) {
        self.quorum.fail(index);
        self.required_failed |= self.required == Some(index) && !self.quorum.has_acked(index);
    }

    /// Where the write stands.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.required_failed {
            return Verdict::Lost;
        }
        match self.quorum.verdict() {
            Verdict::Met if self.required.is_some_and(|index| !self.quorum.has_acked(index)) => {
                Verdict::Pending
            }
            verdict => verdict,
        }
    }

    /// How many replicas must have it, and how many have.
    pub(crate) fn needed_and_acked(&self) -> (usize, usize) {
        (self.quorum.needed(), self.quorum.acked())
    }

    /// Who has the row.
    pub(crate) fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// Whether no replica's answer is outstanding.
    pub(crate) fn is_settled(&self) -> bool {
        self.quorum.is_settled()
    }

    /// The owners that are not known to have the row, nor to have a hint kept for them by a node that has it.
    fn missing<S: Shell>(&self, cx: &Context<'_, S>) -> impl Iterator<Item = NodeId> + use<S> {
        let (replicas, quorum) = (self.replicas, self.quorum);
        let here = replicas.index_of(cx.env.config.node);
        let is_served = move |index: usize| match replicas.is_absent(index) {
            true => replicas.holder(index, here).is_some_and(|holder| quorum.has_acked(holder)),
            false => quorum.has_acked(index),
        };
        (0..replicas.len())
            .filter(move |&index| !is_served(index))
            .filter_map(move |index| replicas.owner(index))
    }

    /// The row's time is up: has a node that has it keep a hint for every owner that may not. If nobody is known to
    /// have the row there is nothing to hand over.
    pub(crate) fn leave_hints<S: Shell>(&self, cx: &mut Context<'_, S>, key: KeyRef<'_>) {
        if self.quorum.acked() == 0 || self.quorum.is_unanimous() {
            return;
        }
        let here = self.replicas.index_of(cx.env.config.node).filter(|&index| self.quorum.has_acked(index));
        for owner in self.missing(cx) {
            let acked = self.replicas.iter().filter(|&(index, _)| self.quorum.has_acked(index));
            let mut holders = here.map(|_| cx.env.config.node).into_iter().chain(acked.map(|(_, node)| node));
            if holders.any(|holder| cx.keep_hint(holder, owner, key, self.written)) {
                cx.env.statistics.hints_late += 1;
            } else {
                cx.shell.drop_hint(key, self.written);
            }
        }
    }

    /// Gives up: the outcome of a write whose level cannot be met any more, or not in time.
    pub(crate) fn give_up(&self) -> Step {
        let (needed, acked) = self.needed_and_acked();
        Step::time_out(needed, acked)
    }
}

/// A client's write.
#[derive(Debug)]
pub(crate) struct WriteOp {
    key: KeyBuf<KEY_INLINE_BYTES>,
    pub(crate) round: WriteRound,
    finished: bool,
}

impl WriteOp {
    pub(crate) fn new(key: KeyRef<'_>, round: WriteRound) -> WriteOp {
        WriteOp { key: KeyBuf::of(key), round, finished: false }
    }

    /// The row's time is up: see [`WriteRound::leave_hints`].
    pub(crate) fn leave_hints<S: Shell>(&self, cx: &mut Context<'_, S>) {
        self.round.leave_hints(cx, self.key.key());
    }

    /// How many contacts have the row.
    pub(crate) fn acked(&self) -> usize {
        self.round.quorum.acked()
    }

    /// What to do now.
    pub(crate) fn step(&mut self) -> Step {
        if self.finished {
            return if self.round.is_settled() { Step::Settled(self.acked()) } else { Step::Pending };
        }
        match self.round.verdict() {
            Verdict::Pending => Step::Pending,
            Verdict::Lost => self.round.give_up(),
            Verdict::Met => {
                self.finished = true;
                Step::FinishAndLinger(Outcome::Written)
            }
        }
    }

    pub(crate) fn on_event(&mut self, node: NodeId, round: u8, event: &Event) -> Step {
        self.round.on_event(node, round, event);
        self.step()
    }

    pub(crate) fn on_deadline(&mut self) -> Step {
        if self.finished { Step::Settled(self.acked()) } else { self.round.give_up() }
    }
}
