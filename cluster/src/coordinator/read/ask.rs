//! Whom a read asks, and for what.

use gyre_storage::KeyRef;

use super::{Answer, Phase, ReadRound};
use crate::coordinator::context::Context;
use crate::coordinator::shell::Shell;
use crate::message::Message;
use crate::node::NodeId;

impl ReadRound {
    /// Asks the contacts at `places`, in this order, as far as they are needed.
    pub(super) fn ask_enough<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        key: KeyRef<'_>,
        places: impl Iterator<Item = usize>,
    ) {
        for index in places {
            if self.count(|answer| answer.is_pending() || answer.is_there()) >= self.needed {
                return;
            }
            self.ask(cx, key, index);
        }
    }

    /// Asks the first live replica that was not asked: for its record unless one is there already. After the replicas
    /// come the stand-ins, if they may.
    pub(super) fn ask_another<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        key: KeyRef<'_>,
        may_stand_in: bool,
    ) -> bool {
        let stand_ins = may_stand_in && self.replicas.has_stand_ins();
        for role in [false, true].into_iter().take(1 + usize::from(stand_ins)) {
            for (index, _) in self.replicas.iter() {
                let is_idle = matches!(self.answers.get(index), Some(Answer::Idle));
                if is_idle && self.replicas.is_stand_in(index) == role && self.ask(cx, key, index) {
                    return true;
                }
            }
        }
        false
    }

    /// Asks replica `index`, if it was not asked before. `false` if it cannot be.
    fn ask<S: Shell>(&mut self, cx: &mut Context<'_, S>, key: KeyRef<'_>, index: usize) -> bool {
        let Some((_, node)) = self.replicas.iter().find(|&(at, _)| at == index) else { return false };
        if !matches!(self.answers.get(index), Some(Answer::Idle)) {
            return false;
        }
        // A second full record is asked for when the first is late, or when records must be merged anyway.
        let here = self.replicas.index_of(cx.env.config.node);
        let has_source = self.answers.iter().enumerate().any(|(at, answer)| {
            answer.record().is_some() || (matches!(answer, Answer::RecordAsked) && Some(at) == here)
        });
        let source_asked = self.answers.iter().any(|answer| matches!(answer, Answer::RecordAsked));
        let at_start = cx.now.mono == self.started;
        if let Some(asked_late) = self.asked_late.get_mut(index) {
            *asked_late = !at_start;
        }
        let wants_record =
            matches!(self.phase, Phase::Resolve) || !(has_source || (at_start && source_asked));
        if wants_record || cx.is_self(node) {
            self.ask_record(cx, key, index, node);
        } else {
            let request = cx.op.request(self.round);
            let sent = cx.send(node, &Message::Digest { request, key });
            self.set(index, if sent { Answer::DigestAsked } else { Answer::Failed });
        }
        self.answers.get(index).is_some_and(|answer| answer.is_pending() || answer.is_there())
    }

    pub(super) fn ask_record<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        key: KeyRef<'_>,
        index: usize,
        node: NodeId,
    ) {
        let request = cx.op.request(self.round);
        let answer = if cx.is_self(node) {
            cx.read_here(self.round, key).map_or(Answer::RecordAsked, Answer::Record)
        } else if cx.send(node, &Message::Read { request, key }) {
            Answer::RecordAsked
        } else {
            Answer::Failed
        };
        self.set(index, answer);
    }
}
