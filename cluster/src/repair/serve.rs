//! The serving side: steps that peers ask for, one by one. Nothing is remembered between two steps of an exchange; only
//! how many run at once, how many wait, and how fast they go is decided here.

use std::collections::VecDeque;

use gyre_storage::Hlc;

use super::message::{Refusal, RepairMessage};
use super::work::{Answer, Work, rows_of};
use super::{Asker, Effect, Repair, Ticket};
use crate::node::NodeId;
use crate::time::MonoMicros;

/// Steps that run at once.
const RUNNING_MAX: usize = 4;
/// Steps that wait. A peer has one exchange with this node and so one step, or two while it hands over what it kept.
const WAITING_MAX: usize = 1_024;
/// Steps of one peer.
const PEER_MAX: usize = 4;

/// What peers have asked for.
#[derive(Debug, Default)]
pub(super) struct Served {
    waiting: VecDeque<(NodeId, u64, Work)>,
    running: usize,
}

impl Served {
    /// Whether steps wait for tokens (rather than for others to end).
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() && self.running < RUNNING_MAX
    }

    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Forgets what waits for `peer`.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.waiting.retain(|(from, ..)| *from != peer);
    }
}

impl Repair {
    pub(super) fn asked(
        &mut self,
        now: MonoMicros,
        clock: Hlc,
        from: NodeId,
        id: u64,
        work: Work,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = &self.served.waiting;
        if waiting.iter().any(|(peer, other, _)| *peer == from && *other == id) {
            return;
        }
        let is_full = waiting.len() >= WAITING_MAX
            || waiting.iter().filter(|(peer, ..)| *peer == from).count() >= PEER_MAX;
        let refusal = match () {
            () if !self.may_ask(from, &work) => Some(Refusal::NotReplica),
            () if is_full => Some(Refusal::Overloaded),
            () => None,
        };
        if let Some(reason) = refusal {
            return self.send(from, &RepairMessage::Refused { id, reason }, effects);
        }
        self.served.waiting.push_back((from, id, work));
        self.serve(now, clock, effects);
    }

    /// Rows are shown to other replicas of their slots only; they are taken, as are marks, from any member, which may
    /// have stood in.
    fn may_ask(&self, from: NodeId, work: &Work) -> bool {
        match work {
            Work::Merge(_) | Work::Mark(_) => {
                self.ring.contains(from) && work.lies_within(|run| self.own.contains_run(run))
            }
            Work::Sums(_) | Work::Keys(_) | Work::Fetch(_) => {
                let pair = self.pairs.get(&from);
                pair.is_some_and(|pair| work.lies_within(|run| pair.shared.contains_run(run)))
            }
        }
    }

    /// Begins steps that wait, as fast as this node goes.
    pub(super) fn serve(&mut self, now: MonoMicros, clock: Hlc, effects: &mut Vec<Effect>) {
        while self.served.running < RUNNING_MAX
            && !self.served.waiting.is_empty()
            && self.pace.is_free(now)
            && let Some((peer, id, work)) = self.served.waiting.pop_front()
        {
            self.pace.pay_records(work.records());
            if let Work::Sums(splits) = &work {
                self.pace.pay_parts(splits.iter().map(|split| usize::from(split.parts)).sum());
            }
            if let Work::Merge(entries) = &work {
                self.totals.rows_received += rows_of(entries);
            }
            self.served.running += 1;
            effects.push(Effect::Work { ticket: Ticket(Asker::Peer { peer, id, clock }), work });
        }
    }

    pub(super) fn worked_for_peer(
        &mut self,
        peer: NodeId,
        id: u64,
        clock: Hlc,
        answer: Option<Answer>,
        effects: &mut Vec<Effect>,
    ) {
        self.served.running = self.served.running.saturating_sub(1);
        self.totals.served += 1;
        match &answer {
            Some(Answer::Keys { lists, .. }) => self.pace.pay_keys(lists.iter().map(Vec::len).sum()),
            Some(Answer::Records { entries, .. }) => {
                self.totals.rows_sent += rows_of(entries);
            }
            _ => {}
        }
        let session = self.config.session;
        let message = match answer {
            Some(answer) => RepairMessage::Answer { id, session, clock, answer },
            None => RepairMessage::Refused { id, reason: Refusal::Storage },
        };
        self.send(peer, &message, effects);
    }
}
