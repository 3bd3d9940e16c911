//! Repair before the answer: replicas that disagreed get what they lack.

use gyre_storage::{KeyRef, Record, RecordBuilder};

use super::{Answer, Phase, ReadRound};
use crate::coordinator::context::Context;
use crate::coordinator::replicas::Replicas;
use crate::coordinator::shell::{Shell, Ticket};
use crate::level::{Quorum, Verdict};
use crate::message::{Message, RequestId};
use crate::node::NodeId;
use crate::outcome::Failure;

impl ReadRound {
    /// Merges what was fetched and sends each replica the rows it lacks.
    pub(super) fn begin_repair<S: Shell>(&mut self, cx: &mut Context<'_, S>, key: KeyRef<'_>) {
        let merged =
            self.answers.iter().filter_map(Answer::record).fold(Record::ABSENT, |all, one| all.merge(one));
        let mut holders = Quorum::new(self.needed, self.replicas.len());
        let mut lacking = RecordBuilder::default();
        for (index, node) in self.replicas.iter() {
            let Some(record) = self.answers.get(index).and_then(Answer::record) else { continue };
            let missing = rows_missing(&merged, record, key);
            if missing.is_absent() {
                holders.ack(index);
                continue;
            }
            cx.env.statistics.repairs_blocking += 1;
            if send_repair(cx, node, cx.op.request(self.round), key, &missing) {
                keep_hint(cx, &self.replicas, index, key, &merged);
            } else {
                holders.fail(index);
            }
            merged.rows_missing_in(record, key).for_each(|row| lacking.add(&row));
        }
        // Replicas that were not heard of probably lack the same. Nobody waits for them. (Stand-ins probably lack
        // everything, and need not have it.)
        let lacking = lacking.build();
        for (index, node) in self.replicas.iter() {
            let was_heard = self.answers.get(index).is_some_and(|answer| answer.record().is_some());
            if !was_heard
                && !self.replicas.is_stand_in(index)
                && !lacking.is_absent()
                && send_repair(cx, node, RequestId::NONE, key, &lacking)
            {
                cx.env.statistics.repairs_background += 1;
            }
        }
        self.phase = Phase::Repair { merged, holders };
    }

    /// Waits for the repairs; a replica that fails meanwhile is replaced by one that was not asked.
    pub(super) fn advance_repair<S: Shell>(
        &mut self,
        cx: &mut Context<'_, S>,
        key: KeyRef<'_>,
    ) -> Option<Result<Record, Failure>> {
        let timeout = self.timeout();
        let Phase::Repair { merged, holders } = &mut self.phase else { return None };
        loop {
            // Replicas not heard of are pending in `holders`, so what can still come must be counted here.
            let on_their_way = |answers: &[Answer], holders: &Quorum| {
                answers
                    .iter()
                    .enumerate()
                    .filter(|(index, answer)| answer.record().is_some() && holders.is_pending(*index))
                    .count()
            };
            if holders.verdict() == Verdict::Met {
                return Some(Ok(merged.clone()));
            }
            if holders.acked() + on_their_way(&self.answers, holders) >= self.needed {
                return None;
            }
            let idle = self.replicas.iter().find(|&(index, node)| {
                cx.env.is_alive(node)
                    && holders.is_pending(index)
                    && self.answers.get(index).is_some_and(|answer| answer.record().is_none())
            });
            let Some((index, node)) = idle else { return Some(Err(timeout)) };
            if send_repair(cx, node, cx.op.request(self.round), key, merged) {
                keep_hint(cx, &self.replicas, index, key, merged);
                if let Some(answer) = self.answers.get_mut(index) {
                    *answer = Answer::Record(Record::ABSENT);
                }
            } else {
                holders.fail(index);
            }
        }
    }
}

/// The rows of `merged` that `held` lacks, as a record.
fn rows_missing(merged: &Record, held: &Record, key: KeyRef<'_>) -> Record {
    if held.is_absent() {
        return merged.clone();
    }
    let mut missing = RecordBuilder::default();
    merged.rows_missing_in(held, key).for_each(|row| missing.add(&row));
    missing.build()
}

/// Sends `rows` to `node`, be it this one. `false` if that cannot be.
fn send_repair<S: Shell>(
    cx: &mut Context<'_, S>,
    node: NodeId,
    request: RequestId,
    key: KeyRef<'_>,
    rows: &Record,
) -> bool {
    if cx.is_self(node) {
        let ticket = if request == RequestId::NONE { Ticket::Nobody } else { Ticket::Op(request) };
        apply_rows(cx.shell, ticket, key, rows);
        return true;
    }
    cx.send(node, &Message::Repair { request, key, record: rows.clone() })
}

/// A repair made the contact at place `index` hold `merged`: if it only stands in, the owner shall get it, too.
fn keep_hint<S: Shell>(
    cx: &mut Context<'_, S>,
    replicas: &Replicas,
    index: usize,
    key: KeyRef<'_>,
    merged: &Record,
) {
    if !replicas.is_stand_in(index) {
        return;
    }
    let contact = replicas.iter().find(|&(at, _)| at == index);
    if let (Some(owner), Some((_, node))) = (replicas.owner(index), contact)
        && !cx.keep_hint(node, owner, key, merged.newest_version())
    {
        cx.shell.drop_hint(key, merged.newest_version());
    }
}

/// Stores every row of `rows` here. The rows of one turn are committed together or in order, so the last one's result
/// is the result of all.
pub(crate) fn apply_rows<S: Shell>(shell: &mut S, ticket: Ticket, key: KeyRef<'_>, rows: &Record) {
    let mut rows = rows.rows(key).peekable();
    while let Some(row) = rows.next() {
        shell.apply(if rows.peek().is_some() { Ticket::Nobody } else { ticket }, &row);
    }
}
