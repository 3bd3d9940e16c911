//! Handing a record over to the node that misses it: what replays one hint.

use gyre_storage::{KeyRef, Record};

use super::context::{Context, Event, Step};
use super::key::KeyBuf;
use super::shell::Shell;
use crate::message::Message;
use crate::node::NodeId;
use crate::outcome::Outcome;

/// This node's record is being read.
const READING: u8 = 1;
/// It is on its way to the target.
const SENDING: u8 = 2;

/// A hand-over in progress.
#[derive(Debug)]
pub(crate) struct HandOffOp {
    target: NodeId,
    key: KeyBuf,
    /// What was sent.
    record: Option<Record>,
}

impl HandOffOp {
    pub(crate) fn new(target: NodeId, key: KeyRef<'_>) -> HandOffOp {
        HandOffOp { target, key: KeyBuf::of(key), record: None }
    }

    /// Reads what this node holds.
    pub(crate) fn start<S: Shell>(&mut self, cx: &mut Context<'_, S>) -> Step {
        match cx.read_here(READING, self.key.key()) {
            Some(record) => self.send(cx, record),
            None => Step::Pending,
        }
    }

    pub(crate) fn on_event<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        node: NodeId,
        round: u8,
        event: Event,
    ) -> Step {
        match event {
            Event::Found(record) if round == READING && cx.is_self(node) => self.send(cx, record),
            Event::Refused(_) if round == READING && cx.is_self(node) => self.give_up(),
            Event::Applied { .. } if round == SENDING && node == self.target => {
                cx.env.statistics.handed_off += 1;
                Step::Finish(Outcome::HandedOff(self.record.take().unwrap_or_default()))
            }
            Event::Refused(_) if round == SENDING && node == self.target => self.give_up(),
            Event::Lost if node == self.target => self.give_up(),
            _ => Step::Pending,
        }
    }

    /// Not in time, or refused: the target may have it.
    pub(crate) fn give_up(&self) -> Step {
        Step::time_out(1, 0)
    }

    fn send<S: Shell>(&mut self, cx: &mut Context<'_, S>, record: Record) -> Step {
        if record.is_absent() {
            // Nothing is left that the target could miss.
            return Step::Finish(Outcome::HandedOff(record));
        }
        let request = cx.op.request(SENDING);
        let message = Message::Repair { request, key: self.key.key(), record: record.clone() };
        if !cx.send(self.target, &message) {
            return self.give_up();
        }
        self.record = Some(record);
        Step::Pending
    }
}
