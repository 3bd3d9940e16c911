//! Blind writes: the row goes to every live replica at once, and the write is done when enough have it.

use gyre_storage::Row;

use super::context::{Context, Event, Step};
use super::replicas::Replicas;
use super::shell::Shell;
use crate::level::{Quorum, Verdict};
use crate::node::NodeId;
use crate::outcome::Outcome;

/// One row on its way to the replicas of its key.
#[derive(Debug)]
pub(crate) struct WriteRound {
    replicas: Replicas,
    quorum: Quorum,
    round: u8,
    /// The index of this node, if the write counts only once it is stored here, whatever the others say.
    required: Option<usize>,
    required_failed: bool,
}

impl WriteRound {
    /// Sends `row` to all of `replicas` that are alive.
    pub(crate) fn start<S: Shell>(
        cx: &mut Context<'_, S>,
        replicas: Replicas,
        needed: usize,
        round: u8,
        row: &Row<'_>,
    ) -> WriteRound {
        let mut quorum = Quorum::new(needed, replicas.len());
        for (index, node) in replicas.iter() {
            if !cx.apply(node, round, row, false) {
                quorum.fail(index);
            }
        }
        WriteRound { replicas, quorum, round, required: None, required_failed: false }
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

    /// Whether no replica's answer is outstanding.
    pub(crate) fn is_settled(&self) -> bool {
        self.quorum.is_settled()
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
    pub(crate) round: WriteRound,
    finished: bool,
}

impl WriteOp {
    pub(crate) fn new(round: WriteRound) -> WriteOp {
        WriteOp { round, finished: false }
    }

    /// How many replicas have the row.
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
