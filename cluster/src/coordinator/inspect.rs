//! What every replica of a key holds, for an operator (`GYRE REPLICAS`). Changes nothing, repairs nothing.

use gyre_storage::{KeyRef, Record};

use super::context::{Context, Event, Step};
use super::replicas::Replicas;
use super::shell::Shell;
use crate::message::Message;
use crate::node::NodeId;
use crate::outcome::{Outcome, ReplicaState};

#[derive(Debug)]
enum Answer {
    Asked,
    Holds(Record),
    Silent,
}

/// An inspection in progress.
#[derive(Debug)]
pub(crate) struct InspectOp {
    answers: Vec<(NodeId, Answer)>,
}

const ROUND: u8 = 1;

impl InspectOp {
    /// Asks every replica for its record.
    pub(crate) fn start<S: Shell>(cx: &mut Context<'_, S>, replicas: Replicas, key: KeyRef<'_>) -> InspectOp {
        let ask = |(_, node)| {
            let request = cx.op.request(ROUND);
            let answer = if cx.is_self(node) {
                cx.read_here(ROUND, key).map_or(Answer::Asked, Answer::Holds)
            } else if cx.send(node, &Message::Read { request, key }) {
                Answer::Asked
            } else {
                Answer::Silent
            };
            (node, answer)
        };
        InspectOp { answers: replicas.iter().map(ask).collect() }
    }

    pub(crate) fn on_event(&mut self, node: NodeId, event: Event) -> Step {
        let replica = self.answers.iter_mut().find(|(replica, _)| *replica == node);
        if let Some((_, answer @ Answer::Asked)) = replica {
            match event {
                Event::Found(record) => *answer = Answer::Holds(record),
                Event::Refused(_) | Event::Lost => *answer = Answer::Silent,
                _ => {}
            }
        }
        self.advance()
    }

    /// Ends once every replica has answered or cannot.
    pub(crate) fn advance(&mut self) -> Step {
        if self.answers.iter().any(|(_, answer)| matches!(answer, Answer::Asked)) {
            return Step::Pending;
        }
        self.finish()
    }

    /// Ends with what is known.
    pub(crate) fn finish(&mut self) -> Step {
        let state = |answer| match answer {
            Answer::Holds(record) => ReplicaState::Holds(record),
            Answer::Asked | Answer::Silent => ReplicaState::Silent,
        };
        let answers = self.answers.drain(..).map(|(node, answer)| (node, state(answer))).collect();
        Step::Finish(Outcome::Replicas(answers))
    }
}
