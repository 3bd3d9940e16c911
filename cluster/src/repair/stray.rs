//! Marked slots of which this node is no replica. It has stood in for replicas that were down and there was no room for
//! hints, or it has coordinated a write and nobody could be asked for a hint. So the rows it keeps may be nowhere else,
//! and replicas of the slot may miss rows of each other.
//!
//! It sends all records it holds of such slots to every replica, has every replica mark the slots (so that they compare
//! them among each other, whatever becomes of this node), and then forgets rows and marks. Replicas take what they lack.
//! This happens when all replicas of a slot are up, but for those that are to come back empty: these get the rows from the
//! others. Records in which this node has a counter cell of its own stay, for
//! the reason that handoff leaves them (see [`crate::hints`]); sent again, they do no harm.

use std::time::Duration;

use gyre_storage::tree::PrefixRange;
use gyre_storage::{Hlc, Slot};

use super::compare::cut;
use super::message::RepairMessage;
use super::slots::SlotRun;
use super::transfer::{Transfers, rest_of};
use super::work::{Answer, Entry, LISTS_MAX, Want, Work, rows_of};
use super::{Asker, Effect, Repair, Ticket};
use crate::node::NodeId;
use crate::time::MonoMicros;

/// How long all steps for one group of slots may take, with a pause when they do not end.
const STRAY_TIME_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Step {
    Idle,
    /// Which keys are here?
    List {
        ranges: Vec<PrefixRange>,
    },
    Load {
        wants: Vec<Want>,
    },
    /// The replica at this place gets the records.
    Send {
        entries: Vec<Entry>,
        to: usize,
    },
    /// The replica at this place marks the slots.
    Mark {
        to: usize,
    },
}

/// Slots with one set of replicas, being handed over.
#[derive(Debug)]
pub(super) struct Stray {
    slots: Vec<(Slot, Hlc)>,
    replicas: Vec<NodeId>,
    /// What is not listed yet.
    ranges: Vec<PrefixRange>,
    wants: Transfers,
    step: Step,
    id: u64,
    /// Who is to answer; `None` for this node.
    asked: Option<NodeId>,
    pub(super) until: MonoMicros,
}

/// Replicas, ascending, and marked slots that are theirs.
type Group = (Vec<NodeId>, Vec<(Slot, Hlc)>);

impl Stray {
    pub(super) fn needs(&self, replica: NodeId) -> bool {
        self.replicas.contains(&replica)
    }

    pub(super) fn waits_for(&self, peer: NodeId, id: u64) -> bool {
        self.id == id && self.asked == Some(peer)
    }
}

impl Repair {
    /// Begins with the first marked slots whose replicas are all up.
    pub(super) fn begin_stray(&mut self, now: MonoMicros) {
        if self.stray.is_some() || now < self.stray_paused_until {
            return;
        }
        let foreign = self.marks.iter().filter(|(slot, _)| !self.own.contains(**slot));
        let mut group: Option<Group> = None;
        for (&slot, mark) in foreign {
            let all = self.ring.replicas(slot).iter().copied();
            let mut replicas: Vec<NodeId> = all.filter(|replica| !self.lapsed.contains(replica)).collect();
            replicas.sort_unstable();
            let is_reachable = !replicas.is_empty() && replicas.iter().all(|&replica| self.is_up(replica));
            match &mut group {
                None if is_reachable => group = Some((replicas, vec![(slot, mark.clock)])),
                Some((of, slots)) if *of == replicas && slots.len() < LISTS_MAX => {
                    slots.push((slot, mark.clock));
                }
                _ => {}
            }
        }
        let Some((replicas, slots)) = group else { return };
        let range = |&(slot, _): &(Slot, Hlc)| SlotRun { first: slot, last: slot }.prefixes();
        self.stray = Some(Stray {
            ranges: slots.iter().map(range).collect(),
            slots,
            replicas,
            wants: Transfers::default(),
            step: Step::Idle,
            id: 0,
            asked: None,
            until: now + STRAY_TIME_MAX,
        });
    }

    /// Goes on, if nothing is waited for.
    pub(super) fn advance_stray(&mut self, now: MonoMicros, effects: &mut Vec<Effect>) {
        let Some(stray) = &mut self.stray else { return };
        if !matches!(stray.step, Step::Idle) {
            return;
        }
        if !self.pace.is_free(now) {
            return self.is_slowed = true;
        }
        if let Some((wants, _)) = stray.wants.take() {
            self.pace.pay_records(wants.iter().map(|want| want.hashes.len()).sum());
            stray.step = Step::Load { wants: wants.clone() };
            return self.ask_stray(None, Work::Fetch(wants), effects);
        }
        if !stray.ranges.is_empty() {
            let ranges = std::mem::take(&mut stray.ranges);
            stray.step = Step::List { ranges: ranges.clone() };
            return self.ask_stray(None, Work::Keys(ranges), effects);
        }
        self.mark_next(now, 0, effects);
    }

    fn ask_stray(&mut self, peer: Option<NodeId>, work: Work, effects: &mut Vec<Effect>) {
        let id = self.next_id();
        if let Some(stray) = &mut self.stray {
            (stray.id, stray.asked) = (id, peer);
        }
        match peer {
            Some(peer) => self.send(peer, &RepairMessage::Request { id, work }, effects),
            None => effects.push(Effect::Work { ticket: Ticket(Asker::Stray { id }), work }),
        }
    }

    pub(super) fn worked_for_stray(
        &mut self,
        now: MonoMicros,
        id: u64,
        answer: Option<Answer>,
        effects: &mut Vec<Effect>,
    ) {
        if self.stray.as_ref().is_none_or(|stray| stray.id != id || stray.asked.is_some()) {
            return;
        }
        self.answered_stray(now, answer, effects);
    }

    /// The answer has come that was waited for; `None` if it was refused.
    pub(super) fn answered_stray(
        &mut self,
        now: MonoMicros,
        answer: Option<Answer>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(stray) = &mut self.stray else { return };
        match (std::mem::replace(&mut stray.step, Step::Idle), answer) {
            (Step::List { ranges }, Some(Answer::Keys { lists, next })) => {
                let (covered, rest) = cut(&ranges, next);
                stray.ranges = rest;
                let want = |(range, list): (PrefixRange, Vec<super::KeyEntry>)| Want {
                    range,
                    hashes: list.into_iter().map(|entry| entry.hash).collect(),
                };
                let wants = covered.into_iter().zip(lists).map(want);
                stray.wants.add(wants.filter(|want| !want.hashes.is_empty()));
            }
            (Step::Load { wants }, Some(Answer::Records { entries, next })) => {
                stray.wants.put_back(rest_of(&wants, next, &entries), false);
                if !entries.is_empty() {
                    self.send_next(now, entries, 0, effects);
                }
            }
            (Step::Send { entries, to }, Some(Answer::Merged(_))) => {
                self.send_next(now, entries, to + 1, effects);
            }
            (Step::Mark { to }, Some(Answer::Marked)) => self.mark_next(now, to + 1, effects),
            _ => self.end_stray(now),
        }
    }

    /// Sends `entries` to the replica at `to`; forgets them when there is none.
    fn send_next(&mut self, now: MonoMicros, entries: Vec<Entry>, to: usize, effects: &mut Vec<Effect>) {
        let Some(stray) = &mut self.stray else { return };
        stray.until = now + STRAY_TIME_MAX;
        let Some(&replica) = stray.replicas.get(to) else {
            let actor = self.config.actor;
            let is_counted_here = |entry: &Entry| entry.record.counters().any(|cell| cell.actor == actor);
            let forgotten: Vec<Entry> = entries.into_iter().filter(|entry| !is_counted_here(entry)).collect();
            if !forgotten.is_empty() {
                effects.push(Effect::Forget(forgotten));
            }
            return;
        };
        self.totals.rows_sent += rows_of(&entries);
        stray.step = Step::Send { entries: entries.clone(), to };
        self.ask_stray(Some(replica), Work::Merge(entries), effects);
    }

    /// Has the replica at `to` mark the slots; when there is none, this node's marks go.
    fn mark_next(&mut self, now: MonoMicros, to: usize, effects: &mut Vec<Effect>) {
        let Some(stray) = &mut self.stray else { return };
        stray.until = now + STRAY_TIME_MAX;
        let slots = stray.slots.clone();
        let Some(&replica) = stray.replicas.get(to) else {
            self.stray = None;
            self.unmark(&slots);
            self.totals.strays += slots.len() as u64;
            return effects.push(Effect::ClearMarks(slots));
        };
        stray.step = Step::Mark { to };
        self.ask_stray(Some(replica), Work::Mark(slots), effects);
    }

    /// It did not work out: later once more, from the beginning.
    pub(super) fn end_stray(&mut self, now: MonoMicros) {
        self.stray = None;
        self.stray_paused_until = now + PAUSE;
    }
}
